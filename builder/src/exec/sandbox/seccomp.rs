//! Which system calls a step may not make.
//!
//! A short list of refusals, everything else is allowed: the namespaces are the wall, this closes what
//! they leave open — calls that reach across namespaces, read the host, or go around a filter.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

#[cfg(target_arch = "x86_64")]
const ARCH: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCH: TargetArch = TargetArch::aarch64;

/// As on a kernel built without them, which is what programs have a second way for. The key rings
/// are not namespaced, `io_uring` does not pass the filter, the others look at the host.
const ABSENT: [libc::c_long; 9] = [
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_perf_event_open,
    libc::SYS_request_key,
    libc::SYS_userfaultfd,
];

/// Address families that belong to the network namespace. Others, as `AF_VSOCK` to the hypervisor,
/// reach outside.
const FAMILIES: [libc::c_int; 5] = [
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
    libc::AF_PACKET,
];

/// Typing into the terminal that `shell` inherits.
const TERMINAL_INPUT: [u64; 2] = [libc::TIOCSTI, 0x541c /* TIOCLINUX */];

/// Sharing blocks between files, which some file systems of the host can and others cannot: `FICLONE`,
/// `FICLONERANGE`, `FIDEDUPERANGE` (`ioctl_ficlone(2)`). Copying has another way.
const SHARING: [u64; 3] = [0x4004_9409, 0x4020_940d, 0xc018_9436];

/// What a file system of the host says of where and how it keeps a file: flags, version, extents, project.
/// `FS_IOC_GETFLAGS`, `FS_IOC_GETVERSION`, `FS_IOC_FIEMAP`, `FIBMAP`, `FS_IOC_FSGETXATTR`.
const LAYOUT: [u64; 5] = [0x8008_6601, 0x8008_7601, 0xc020_660b, 1, 0x801c_581f];

/// When a packet came, by the machine's clock: `SIOCGSTAMP`, `SIOCGSTAMPNS`, old and new (socket(7)).
const PACKET_TIMES: [u64; 4] = [0x8906, 0x8907, 0x8010_8906, 0x8010_8907];

/// The programs, to be installed one after the other. A call of a foreign ABI (32-bit) kills the
/// process with SIGSYS; x32 calls are refused as absent.
pub(super) fn filters() -> Vec<BpfProgram> {
    let absent = ABSENT.map(|number| (number, vec![])).into();
    let not_permitted = BTreeMap::from([
        (
            libc::SYS_ioctl,
            TERMINAL_INPUT
                .map(|request| rule(&[(1, SeccompCmpOp::Eq, request)]))
                .into(),
        ),
        // The kernel's log, which every user of some machines may read.
        (libc::SYS_syslog, vec![]),
        // Address randomisation stays off: the query (all bits) and what keeps the bit pass.
        (
            libc::SYS_personality,
            vec![rule(&[(0, SeccompCmpOp::MaskedEq(NO_RANDOMIZE), 0)])],
        ),
    ]);
    let families = FAMILIES.map(|family| (0, SeccompCmpOp::Ne, u64::from(family.unsigned_abs())));
    let family = BTreeMap::from([
        (libc::SYS_socket, vec![rule(&families)]),
        (libc::SYS_socketpair, vec![rule(&families)]),
    ]);
    let ioctls = |requests: &[u64]| {
        let rules = requests
            .iter()
            .map(|request| rule(&[(1, SeccompCmpOp::Eq, *request)]));
        BTreeMap::from([(libc::SYS_ioctl, rules.collect())])
    };
    let mut filters = vec![
        filter(ioctls(&SHARING), libc::EOPNOTSUPP),
        filter(ioctls(&LAYOUT), libc::ENOTTY),
        filter(ioctls(&PACKET_TIMES), libc::ENOTTY),
        filter(absent, libc::ENOSYS),
        filter(not_permitted, libc::EPERM),
        filter(family, libc::EAFNOSUPPORT),
    ];
    if cfg!(target_arch = "x86_64") {
        filters.push(no_x32());
    }
    filters
}

const NO_RANDOMIZE: u64 = libc::ADDR_NO_RANDOMIZE as u64;

fn rule(conditions: &[(u8, SeccompCmpOp, u64)]) -> SeccompRule {
    let conditions = conditions.iter().map(|(argument, operator, value)| {
        SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, operator.clone(), *value)
            .expect("argument numbers are below 6")
    });
    SeccompRule::new(conditions.collect()).expect("a rule has conditions")
}

fn filter(rules: BTreeMap<libc::c_long, Vec<SeccompRule>>, errno: libc::c_int) -> BpfProgram {
    let refuse = SeccompAction::Errno(errno.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, ARCH)
        .and_then(BpfProgram::try_from)
        .expect("the rules are constant and fit into a program")
}

/// x32 calls have the x86-64 architecture number and a bit in the call number, so the filters above
/// would not know them.
#[expect(
    clippy::cast_possible_truncation,
    reason = "libc's constants are wider than the field they are for"
)]
fn no_x32() -> BpfProgram {
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_GREATER_OR_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const X32_BIT: u32 = 0x4000_0000;
    let instruction = |code, jt, jf, k| seccompiler::sock_filter { code, jt, jf, k };
    vec![
        instruction(LOAD_NUMBER, 0, 0, 0),
        instruction(JUMP_IF_GREATER_OR_EQUAL, 0, 1, X32_BIT),
        instruction(
            RETURN,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs(),
        ),
        instruction(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

/// Puts the programs in force for this process and all it starts. Needs `CAP_SYS_ADMIN` in its user
/// namespace, because `no_new_privs` must stay off: set-user-id programs work inside.
#[allow(
    unsafe_code,
    reason = "seccomp(2) has no safe wrapper that leaves no_new_privs off"
)]
pub(super) fn install(filters: &[BpfProgram]) -> std::io::Result<()> {
    for filter in filters {
        let program = libc::sock_fprog {
            len: filter.len().try_into().expect("programs are short"),
            filter: filter.as_ptr().cast_mut().cast(),
        };
        // SAFETY: `program` points to `len` instructions, which the kernel copies before it returns;
        // the two `sock_filter` types are the kernel's.
        let result = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0,
                &raw const program,
            )
        };
        if result != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}
