//! The surroundings of a step, as constants: everything a process can see that is not in its tree.
//!
//! Pure data. A change here changes what steps see and so is a new [`POLICY`].

use rustix::process::Resource;
use rustix::thread::CapabilitySet;

use crate::exec::tracer::Names;

/// Name and version of these surroundings; part of what identifies the result of a step.
pub const POLICY: &str = "isolated/4";

/// `uname -n`.
pub(super) const HOSTNAME: &str = "immbuild";
/// The NIS domain; the kernel's own word for none.
pub(super) const DOMAIN: &str = "(none)";
/// What uname(2) says where it is virtual.
pub const NAMES: Names = Names {
    host: HOSTNAME,
    domain: DOMAIN,
    release: "6.1.0",
    version: "#1",
    memory: 8 << 30,
};
/// Mode bits taken from new files unless the step sets its own.
pub(super) const UMASK: u32 = 0o022;

/// Options of every overlay. `redirect_dir=nofollow` is the spelling of "off" that the kernel takes
/// together with `userxattr` whatever the module's default is. `volatile` leaves out the write-back of
/// everything to disk when the step ends, and makes fsync(2) inside a no-op: a result is ingested at
/// once or thrown away, and the work directory that a crash would spoil is used once.
pub(super) const OVERLAY_OPTIONS: &str =
    "userxattr,index=off,metacopy=off,redirect_dir=nofollow,xino=on,uuid=null,volatile";

/// Most processes and threads at one time: the limit of the user (which does not bind root outside)
/// and, from Linux 6.14, the size of the pid namespace (which binds everybody).
pub(super) const PROCESSES: u64 = 4096;

/// Soft and hard limits; `None` is unlimited. Each is at most what an ordinary user's session or a
/// container grants, because a limit cannot be raised without privilege on the host.
pub(super) const LIMITS: [(&str, Resource, Option<u64>); 16] = [
    ("RLIMIT_AS", Resource::As, None),
    ("RLIMIT_CORE", Resource::Core, Some(0)),
    ("RLIMIT_CPU", Resource::Cpu, None),
    ("RLIMIT_DATA", Resource::Data, None),
    ("RLIMIT_FSIZE", Resource::Fsize, None),
    ("RLIMIT_LOCKS", Resource::Locks, None),
    // The default of kernels before 5.16; newer ones grant 8 MiB.
    ("RLIMIT_MEMLOCK", Resource::Memlock, Some(64 << 10)),
    ("RLIMIT_MSGQUEUE", Resource::Msgqueue, Some(819_200)),
    ("RLIMIT_NICE", Resource::Nice, Some(0)),
    // The hard limit of a login without any configuration; below it builds see no difference.
    ("RLIMIT_NOFILE", Resource::Nofile, Some(4096)),
    ("RLIMIT_NPROC", Resource::Nproc, Some(PROCESSES)),
    ("RLIMIT_RSS", Resource::Rss, None),
    ("RLIMIT_RTPRIO", Resource::Rtprio, Some(0)),
    ("RLIMIT_RTTIME", Resource::Rttime, None),
    ("RLIMIT_SIGPENDING", Resource::Sigpending, Some(1024)),
    ("RLIMIT_STACK", Resource::Stack, Some(8 << 20)),
];

/// What root may do inside: the set that container engines give by default, which package scripts
/// are written against. There is no mounting, no module, no clock; a set-user-id program and a
/// nested user namespace get no more.
pub(super) const CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::AUDIT_WRITE)
    .union(CapabilitySet::SETFCAP);

/// Device files, bound from the host's, which are the same everywhere.
pub(super) const DEVICES: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];

/// Links in `/dev`.
pub(super) const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("ptmx", "pts/ptmx"),
    ("stderr", "/proc/self/fd/2"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
];

/// Directories that must exist for the mounts; made in the lowest layer, never in the tree.
pub(super) const MOUNT_DIRECTORIES: [&str; 5] = ["dev", "etc", "proc", "sys", "tmp"];

/// Files of `/etc` that are always these.
pub(super) const ETC_FILES: [(&str, &str); 2] = [
    (
        "hosts",
        "127.0.0.1\tlocalhost\n127.0.1.1\timmbuild\n::1\tlocalhost\n",
    ),
    ("resolv.conf", "# no network\n"),
];

/// Where the secrets are.
pub(super) const SECRETS: &str = "run/secrets";

/// What `/proc` shows besides the processes themselves. Every name that is not here and not one of
/// [`PROC_LIVE`] is an empty file or an empty directory, so that nothing of the host shows through
/// when a new kernel brings a new file.
pub(super) const PROC_FILES: [(&str, &str); 15] = [
    ("cmdline", "\n"),
    ("cpuinfo", CPUINFO),
    (
        "devices",
        "Character devices:\n  1 mem\n  5 /dev/tty\n\nBlock devices:\n",
    ),
    (
        "filesystems",
        "nodev\tproc\nnodev\ttmpfs\nnodev\tdevpts\nnodev\tramfs\nnodev\toverlay\n",
    ),
    ("interrupts", ""),
    ("loadavg", "0.00 0.00 0.00 1/1 1\n"),
    (
        "meminfo",
        "MemTotal:        8388608 kB\nMemFree:         8388608 kB\nMemAvailable:    8388608 kB\n\
         Buffers:               0 kB\nCached:                0 kB\nSwapCached:            0 kB\n\
         SwapTotal:             0 kB\nSwapFree:              0 kB\n",
    ),
    ("misc", ""),
    ("modules", ""),
    ("partitions", "major minor  #blocks  name\n\n"),
    (
        "stat",
        "cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0 0 0\n\
         cpu2 0 0 0 0 0 0 0 0 0 0\ncpu3 0 0 0 0 0 0 0 0 0 0\nintr 0\nctxt 0\nbtime 0\n\
         processes 1\nprocs_running 1\nprocs_blocked 0\nsoftirq 0\n",
    ),
    (
        "swaps",
        "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n",
    ),
    ("uptime", "0.00 0.00\n"),
    ("version", "Linux version 6.1.0 (immbuild) #1\n"),
    ("vmstat", ""),
];

/// Names in `/proc` that lead to the reading process itself.
pub(super) const PROC_LIVE: [&str; 4] = ["mounts", "net", "self", "thread-self"];

/// Processors with what every machine of the architecture has, so that programs which pick code by
/// it pick the same everywhere.
#[cfg(target_arch = "x86_64")]
macro_rules! processor {
    ($number:literal) => {
        concat!(
            "processor\t: ",
            $number,
            "\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 6\n",
            "model name\t: x86-64\nstepping\t: 3\ncpu MHz\t\t: 1000.000\ncache size\t: 1024 KB\n",
            "physical id\t: 0\nsiblings\t: 4\ncore id\t\t: ",
            $number,
            "\ncpu cores\t: 4\nfpu\t\t: yes\n",
            "flags\t\t: fpu tsc cx8 cmov mmx fxsr sse sse2 syscall lm\n",
            "bogomips\t: 2000.00\nclflush size\t: 64\ncache_alignment\t: 64\n",
            "address sizes\t: 40 bits physical, 48 bits virtual\n\n",
        )
    };
}
/// See above.
#[cfg(target_arch = "aarch64")]
macro_rules! processor {
    ($number:literal) => {
        concat!(
            "processor\t: ",
            $number,
            "\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\n",
            "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd03\n",
            "CPU revision\t: 4\n\n",
        )
    };
}
const CPUINFO: &str = concat!(
    processor!("0"),
    processor!("1"),
    processor!("2"),
    processor!("3")
);

/// All of `/proc/sys`: what programs are known to read. Read-only.
pub(super) const PROC_SYS_FILES: [(&str, &str); 25] = [
    ("fs/file-max", "1048576\n"),
    ("fs/nr_open", "1048576\n"),
    ("fs/pipe-max-size", "1048576\n"),
    ("kernel/cap_last_cap", "40\n"),
    ("kernel/domainname", "(none)\n"),
    ("kernel/hostname", "immbuild\n"),
    ("kernel/ngroups_max", "65536\n"),
    ("kernel/osrelease", "6.1.0\n"),
    ("kernel/ostype", "Linux\n"),
    ("kernel/overflowgid", "65534\n"),
    ("kernel/overflowuid", "65534\n"),
    ("kernel/pid_max", "4096\n"),
    (
        "kernel/random/boot_id",
        "00000000-0000-4000-8000-000000000000\n",
    ),
    ("kernel/random/entropy_avail", "256\n"),
    ("kernel/random/poolsize", "256\n"),
    (
        "kernel/random/uuid",
        "00000000-0000-4000-8000-000000000000\n",
    ),
    ("kernel/randomize_va_space", "0\n"),
    (
        "kernel/seccomp/actions_avail",
        "kill_process kill_thread errno trace allow\n",
    ),
    ("kernel/shmmax", "18446744073692774399\n"),
    ("kernel/threads-max", "4096\n"),
    ("kernel/version", "#1\n"),
    ("net/core/somaxconn", "4096\n"),
    ("net/ipv4/ip_local_port_range", "32768\t60999\n"),
    ("vm/max_map_count", "65530\n"),
    ("vm/overcommit_memory", "0\n"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_so_that_the_mount_table_has_one_order() {
        assert!(PROC_FILES.is_sorted() && PROC_SYS_FILES.is_sorted() && PROC_LIVE.is_sorted());
        assert!(DEVICES.is_sorted() && DEVICE_LINKS.is_sorted() && ETC_FILES.is_sorted());
        assert!(LIMITS.is_sorted_by_key(|(name, ..)| *name));
    }

    #[test]
    fn numbers_in_proc_sys_are_those_in_force() {
        let value = |name: &str| {
            let found = PROC_SYS_FILES.iter().find(|(path, _)| *path == name);
            found.expect(name).1.trim_end().to_owned()
        };
        assert_eq!(value("kernel/pid_max"), PROCESSES.to_string());
        assert_eq!(value("kernel/hostname"), HOSTNAME);
        assert_eq!(value("kernel/domainname"), DOMAIN);
    }
}
