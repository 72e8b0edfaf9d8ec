//! Check 5: a step is told of a machine that is not this one.

use std::fs;

use golden_tests::machine::run;

use crate::probe::{VIRTUAL, log, same_log, store, value};

/// What this machine says of itself and no step may.
fn marks_of_this_machine() -> Vec<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |path: &str, name: &str| {
        let text = read(path);
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default();
        let value = line.split_once([':', ' ']).map_or("", |(_, value)| value);
        value
            .trim_matches([' ', ':', '\t'])
            .trim_end_matches(" kB")
            .to_owned()
    };
    let mut marks = vec![
        read("/proc/sys/kernel/random/boot_id"),
        read("/etc/machine-id"),
        read("/proc/sys/kernel/osrelease"),
        read("/proc/sys/kernel/version"),
        field("/proc/meminfo", "MemTotal"),
        field("/proc/cpuinfo", "model name"),
        field("/proc/cpuinfo", "flags"),
        field("/proc/stat", "btime"),
        field("/proc/version", "Linux"),
        store().display().to_string(),
    ];
    let addresses = run("ip", &["-br", "link"]).unwrap_or_default();
    marks.extend(
        addresses
            .split_whitespace()
            .filter(|word| word.len() == 17)
            .map(str::to_owned),
    );
    marks.push(run("findmnt", &["-no", "SOURCE", "/"]).unwrap_or_default());
    // The kernel reckons the size of /dev from the memory.
    let devices = run("findmnt", &["-no", "OPTIONS", "/dev"]).unwrap_or_default();
    let reckoned = |option: &&str| option.starts_with("size=") || option.starts_with("nr_inodes=");
    marks.extend(
        devices
            .trim()
            .split(',')
            .filter(reckoned)
            .map(str::to_owned),
    );
    marks.push(read("/proc/sys/kernel/hostname").trim().to_owned() + "\n");
    marks
        .into_iter()
        .map(|mark| mark.trim().to_owned())
        .filter(|mark| mark.len() > 3 && mark != "00:00:00:00:00:00")
        .collect()
}

const QUESTIONS: &str = r#"
tell() { for path; do [ ! -r $path ] || { echo "== $path"; cat $path 2>&1 || true; }; done; }
tell /proc/sys/kernel/random/uuid /proc/sys/kernel/random/boot_id /proc/cpuinfo /proc/meminfo /proc/uptime /proc/loadavg \
  /proc/version /proc/stat /proc/mounts /proc/self/mountinfo /proc/partitions /proc/diskstats /proc/swaps /proc/modules \
  /proc/cmdline /proc/interrupts /proc/devices /proc/filesystems /proc/vmstat /proc/zoneinfo /proc/buddyinfo \
  /proc/schedstat /proc/self/stat /proc/self/status /proc/self/maps /proc/self/cgroup /proc/self/limits /proc/self/io \
  /proc/self/sched /proc/self/schedstat /proc/1/stat /proc/1/cmdline /proc/1/environ /proc/net/dev /proc/net/arp \
  /proc/net/route /proc/sys/kernel/* /proc/sys/fs/file-nr /proc/sys/fs/inode-nr /proc/sys/fs/dentry-state \
  /proc/pressure/* /proc/key-users /proc/keys /proc/timer_list /proc/driver/rtc /proc/softirqs /etc/machine-id \
  /etc/hostname /etc/resolv.conf /proc/self/auxv /proc/self/fdinfo/0 /proc/self/numa_maps /proc/self/smaps_rollup \
  /proc/kmsg /proc/config.gz /proc/iomem /proc/ioports /proc/self/timerslack_ns /proc/self/environ | tr -d '\0'
find /sys -maxdepth 4 | head -1000
ls /sys/class/net /proc/sys/net/ipv4/conf /dev /dev/disk 2>&1 || true
uname -a; hostname; env; id
df -k / /tmp /dev | sed 1d
stat -f / /tmp /dev/shm
ps -ef; free; lscpu || true; who; last 2>&1 || true; dmesg 2>&1 || true; mount; lsblk 2>&1 || true
python3 -c 'import os, platform, socket; print(os.uname(), os.cpu_count(), os.getloadavg(), os.sched_getaffinity(0), platform.platform(), platform.processor(), socket.gethostname(), os.sysconf("SC_PHYS_PAGES"), os.statvfs("/"))'
"#;

#[test]
fn nothing_of_this_machine_is_told() {
    let marks = marks_of_this_machine();
    assert!(marks.len() >= 9, "{marks:?}");
    for tier in VIRTUAL {
        let said = log(tier, QUESTIONS);
        let told: Vec<String> = said
            .lines()
            .flat_map(|line| {
                marks
                    .iter()
                    .filter(|mark| contains_word(line, mark))
                    .map(move |mark| format!("{mark:?} in {line:?}"))
            })
            .collect();
        assert!(told.is_empty(), "under `{tier}`: {told:#?}");
    }
}

/// Not as a part of a longer number or name.
fn contains_word(line: &str, word: &str) -> bool {
    let within = |found: Option<char>| found.is_some_and(char::is_alphanumeric);
    line.match_indices(word).any(|(at, _)| {
        !within(line[..at].chars().next_back()) && !within(line[at + word.len()..].chars().next())
    })
}

#[test]
fn the_machine_is_always_the_same_one() {
    let script = r#"
echo host $(hostname)
echo node $(uname -n)
echo known-as $(getent hosts $(hostname))
echo processors $(nproc)
echo all-processors $(nproc --all)
echo in-cpuinfo $(grep -c ^processor /proc/cpuinfo)
echo in-stat $(grep -c '^cpu[0-9]' /proc/stat)
python3 -c '
import os
print("python", os.cpu_count(), len(os.sched_getaffinity(0)), os.sysconf("SC_NPROCESSORS_ONLN"), os.sysconf("SC_NPROCESSORS_CONF"))
print("load", *os.getloadavg())
'
echo allowed $(grep Cpus_allowed_list /proc/self/status | cut -f 2)
echo perl $(perl -MPOSIX -e 'print join " ", (POSIX::uname())[0, 1, 4]')
echo memory $(grep MemTotal /proc/meminfo | tr -dc 0-9)
echo free $(free -k | awk '/Mem/ { print $2 }')
echo interfaces $(ls /sys/class/net 2> /dev/null)
echo boot $(cat /proc/sys/kernel/random/boot_id)
echo kernel $(uname -r) $(cat /proc/sys/kernel/osrelease)
taskset -p 1 $$ > /dev/null
echo after-pinning $(nproc)
"#;
    for tier in VIRTUAL {
        let said = same_log(tier, script);
        assert_eq!(value(&said, "host"), "immbuild");
        assert_eq!(value(&said, "node"), "immbuild");
        assert_eq!(value(&said, "known-as"), "127.0.1.1 immbuild");
        for name in ["processors", "all-processors", "in-cpuinfo", "in-stat"] {
            assert_eq!(value(&said, name), "4", "{name} of\n{said}");
        }
        assert_eq!(value(&said, "python"), "4 4 4 4");
        assert_eq!(value(&said, "load"), "0.0 0.0 0.0");
        assert_eq!(value(&said, "allowed"), "0-3");
        assert_eq!(value(&said, "perl"), "Linux immbuild x86_64");
        assert_eq!(value(&said, "memory"), value(&said, "free"));
        let (by_call, by_file) = value(&said, "kernel").split_once(' ').expect("two");
        assert_eq!(by_call, by_file);
    }
}

/// Which users of the machine those of the step are depends on who builds; those of a namespace that the step makes do not.
#[test]
fn which_users_they_are_outside_is_not_told() {
    for tier in VIRTUAL {
        let said = log(
            tier,
            "cat /proc/self/uid_map /proc/$$/gid_map; unshare -r cat /proc/self/uid_map",
        );
        let maps: Vec<Vec<&str>> = said
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        let one = vec!["0", "0", "1"];
        let others = vec!["1", "1", "65535"];
        let both = [one.clone(), others];
        assert_eq!(maps, [&both[..], &both, &[one]].concat(), "{tier}");
    }
}

/// What libgcrypt reads when it starts: the processor's random numbers are not to be used. What the root says is what holds.
#[test]
fn libgcrypt_is_told_to_leave_the_processor_alone() {
    for tier in VIRTUAL {
        let said = log(
            tier,
            "cat /etc/gcrypt/hwf.deny; test -e /etc/gcrypt || echo none; mkdir -p /etc/gcrypt
             cat /etc/gcrypt/hwf.deny; echo mine > /etc/gcrypt/hwf.deny; cat /etc/gcrypt/hwf.deny
             cat /etc/gcrypt/hwf.den || echo none",
        );
        let said: Vec<&str> = said
            .lines()
            .filter(|line| !line.starts_with("cat:"))
            .collect();
        assert_eq!(
            said,
            ["intel-rdrand", "none", "intel-rdrand", "mine", "none"],
            "{tier}"
        );
    }
}

/// What is left of ways to the machine's time and to its memory when the usual ones are closed.
#[test]
fn rare_ways_to_the_machine_tell_nothing() {
    let script = r#"
ipcmk --shmem 4096 > /dev/null; ipcmk --queue > /dev/null; ipcmk --semaphore 2 > /dev/null
ipcs -t; ipcs -m -t; ipcs -q -t; ipcs -s -t
echo fragment $(stat -f -c '%S %s %l' /)
head -c 8 /proc/self/pagemap | wc -c
python3 -c '
import ctypes, fcntl, os, socket, time
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); here.bind(("127.0.0.1", 5000))
there = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(2):
    there.sendto(b"x", ("127.0.0.1", 5000)); here.recv(1)
    for number in (0x8906, 0x8907):
        try:
            fcntl.ioctl(here, number, bytes(16)); print("stamp: told")
        except OSError as error:
            print("stamp", os.strerror(error.errno))
libc = ctypes.CDLL(None, use_errno=True)
print("log", libc.klogctl(3, ctypes.create_string_buffer(100), 100))
os.close(os.open("/chosen", os.O_CREAT | os.O_WRONLY)); before = time.time()
for month in range(24):
    at = before + month * 30 * 86400
    os.utime("/chosen", (at, at)); os.stat("/chosen")
print("moved", time.time() - before > 86400)
'
"#;
    for tier in VIRTUAL {
        let said = same_log(tier, script);
        assert_eq!(value(&said, "fragment"), "4096 4096 255");
        assert_eq!(value(&said, "stamp"), "Inappropriate ioctl for device");
        assert_eq!(value(&said, "log"), "-1");
        assert_eq!(value(&said, "moved"), "False");
    }
}

/// A file about a process says the same by whatever name it is opened, also about what the process watches and locks.
#[test]
fn a_file_about_a_process_is_quiet_by_any_name() {
    let script = r#"
cd /proc/self/task/..; grep -c ctxt status; cut -d ' ' -f 14- stat
exec 3< /proc/self/stat; cat <&3 > /dev/null
for name in //proc/./self/status /proc/1/../self/status /proc/self//status; do
  echo "$name" $(grep -c '^TracerPid:.0$' "$name")
done
cd /proc; cut -d ' ' -f 1 uptime > /dev/null; echo relative $(grep -c '^TracerPid:.0$' self/status)
python3 -c '
import fcntl, os, select
os.chdir("/proc/self/fdinfo")
file = open("/lock", "w"); fcntl.flock(file, fcntl.LOCK_EX)
epoll = select.epoll(); epoll.register(os.pipe()[0])
print(open(str(file.fileno())).read(), open("%d" % epoll.fileno()).read())
'
"#;
    for tier in VIRTUAL {
        let said = same_log(tier, script);
        for name in [
            "//proc/./self/status",
            "/proc/1/../self/status",
            "/proc/self//status",
            "relative",
        ] {
            assert_eq!(value(&said, name), "1", "{tier}: {said}");
        }
        assert!(!said.contains("lock:") && !said.contains("tfd:"), "{said}");
    }
}

/// Ports and names of sockets that the kernel draws.
#[test]
fn a_socket_gets_the_same_port_each_time() {
    let script = r#"
python3 -c '
import socket
server = socket.socket(); server.bind(("127.0.0.1", 0)); server.listen()
again = socket.socket(); again.listen()
client = socket.create_connection(server.getsockname())
theirs, address = server.accept()
print("tcp", server.getsockname(), again.getsockname(), client.getsockname(), address == client.getsockname())
client.sendall(b"hello"); print("heard", theirs.recv(5).decode())
one, two = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
one.bind(("127.0.0.1", 0)); two.sendto(b"x", one.getsockname())
print("udp", *one.recvfrom(1))
six = socket.socket(socket.AF_INET6); six.bind(("::1", 0)); six.listen()
print("ipv6", socket.create_connection(six.getsockname()[:2]).getsockname())
named = socket.socket(socket.AF_UNIX); named.bind(""); print("name", named.getsockname())
try:
    server.bind(("127.0.0.1", 0)); print("twice bound")
except OSError as error:
    print("twice", error.strerror)
'
"#;
    for tier in VIRTUAL {
        let said = same_log(tier, script);
        assert_eq!(value(&said, "heard"), "hello", "{tier}");
        assert_eq!(value(&said, "twice"), "Invalid argument", "{tier}");
        assert!(value(&said, "tcp").ends_with("True"), "{tier}: {said}");
    }
}

/// How long a child ran on the processor also stands in the signal of its end.
#[test]
fn the_end_of_a_child_does_not_tell_how_long_it_took() {
    let script = r#"
cat > child.c <<'END'
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
static volatile long user, system_, code;
static void ended(int signal, siginfo_t *info, void *context) {
  user = info->si_utime; system_ = info->si_stime; code = info->si_code;
}
int main(void) {
  struct sigaction action = {.sa_sigaction = ended, .sa_flags = SA_SIGINFO};
  sigaction(SIGCHLD, &action, 0);
  if (fork() == 0) { for (volatile long at = 0; at < 200000000; at++); _exit(3); }
  wait(0);
  printf("took %ld %ld exited %d\n", user, system_, code == CLD_EXITED);
}
END
gcc -w -o child child.c; ./child
"#;
    for tier in VIRTUAL {
        let said = log(tier, script);
        assert_eq!(value(&said, "took"), "0 0 exited 1", "{tier}");
    }
}
