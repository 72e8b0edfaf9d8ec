//! Which calls stop a thread, as a program for the kernel.
//!
//! A binary search over call numbers, then at most a few instructions on the arguments: what is not
//! named costs about as much as without a filter.

use std::collections::BTreeSet;

use seccompiler::sock_filter;

use super::arch;
use super::call::{SYS_FACCESSAT2, SYS_FCHMODAT2, SYS_FUTEX_WAIT, SYS_FUTEX_WAITV};
use super::inside::{BASE, CODE};
use super::{Metadata, Virtual};

/// When a call stops its thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Always,
    /// This argument, an address, is not null.
    NotZero {
        at: u8,
    },
    /// This argument has one of these bits in its low half.
    HasAny {
        at: u8,
        bits: u32,
    },
    /// This argument is a finite time to wait in milliseconds.
    Milliseconds {
        at: u8,
    },
    /// It may write or make a file, or may open a device or a file of /proc by its name.
    Opens {
        flags: u8,
    },
    /// futex(2): the command waits, and not for ever.
    Futex,
    /// futex(2): the command waits.
    FutexWaits,
    /// The low half of this argument is one of these.
    IsOneOf {
        at: u8,
        values: &'static [u32],
    },
    /// It opens a file, and it is not our own code that does.
    OpensAny {
        flags: u8,
    },
    /// Never made: the call fails with this.
    Fails(i32),
}

/// One call number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    number: i64,
    when: When,
    only: Only,
}

/// Where a rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Only {
    Everywhere,
    /// Where file numbers and times are virtual.
    Metadata,
    /// Where file numbers, times or owners are virtual.
    Stat,
    /// Where owners are emulated.
    Owners,
}

impl Rule {
    pub(super) const fn new(number: i64, when: When) -> Self {
        Self {
            number,
            when,
            only: Only::Everywhere,
        }
    }

    pub(super) const fn metadata(number: i64) -> Self {
        Self {
            number,
            when: When::Always,
            only: Only::Metadata,
        }
    }

    pub(super) const fn stat(number: i64) -> Self {
        Self {
            number,
            when: When::Always,
            only: Only::Stat,
        }
    }

    pub(super) const fn owners(number: i64) -> Self {
        Self {
            number,
            when: When::Always,
            only: Only::Owners,
        }
    }

    /// As [`Rule::owners`], for a call that opens a file.
    pub(super) const fn opens_any(number: i64, flags: u8) -> Self {
        Self {
            when: When::OpensAny { flags },
            ..Self::owners(number)
        }
    }

    pub(super) const fn is_for(&self, number: i64) -> bool {
        self.number == number
    }

    fn holds(&self, what: &Virtual) -> bool {
        let metadata = what.metadata == Metadata::Virtual;
        match self.only {
            Only::Everywhere => true,
            Only::Metadata => metadata,
            Only::Stat => metadata || what.owners,
            Only::Owners => what.owners,
        }
    }
}

/// prctl(2)
const PR_SET_KEEPCAPS: u32 = 8;
const PR_CAPBSET_READ: u32 = 23;
const PR_CAPBSET_DROP: u32 = 24;
const PR_SET_TSC: u32 = 26;
const PR_SET_CHILD_SUBREAPER: u32 = 36;
const PR_CAP_AMBIENT: u32 = 47;

/// `setxattrat`, `listxattrat` and `removexattrat` (Linux 6.13); libc does not have them.
const NEW_ATTRIBUTES: [i64; 3] = [463, 465, 466];

#[expect(clippy::too_many_lines, reason = "a table: one call after the other")]
fn common_rules() -> Vec<Rule> {
    use When::{Always, Fails, Futex, HasAny, IsOneOf, Milliseconds, NotZero, Opens};
    let always = [
        libc::SYS_clock_gettime,
        libc::SYS_clock_getres,
        libc::SYS_gettimeofday,
        libc::SYS_times,
        libc::SYS_getrusage,
        libc::SYS_sysinfo,
        libc::SYS_getrandom,
        libc::SYS_uname,
        libc::SYS_sched_getaffinity,
        libc::SYS_sched_setaffinity,
        libc::SYS_getcpu,
        libc::SYS_getpriority,
        libc::SYS_setpriority,
        libc::SYS_nanosleep,
        libc::SYS_clock_nanosleep,
        libc::SYS_setitimer,
        libc::SYS_getitimer,
        libc::SYS_timer_create,
        libc::SYS_timer_settime,
        libc::SYS_timer_gettime,
        libc::SYS_timer_getoverrun,
        libc::SYS_timer_delete,
        libc::SYS_timerfd_settime,
        libc::SYS_timerfd_gettime,
        libc::SYS_wait4,
        libc::SYS_waitid,
        libc::SYS_statfs,
        libc::SYS_fstatfs,
        libc::SYS_openat2,
        libc::SYS_chroot,
        libc::SYS_pivot_root,
        libc::SYS_setns,
        libc::SYS_unshare,
        libc::SYS_setuid,
        libc::SYS_setreuid,
        libc::SYS_setresuid,
        libc::SYS_setfsuid,
        libc::SYS_setgid,
        libc::SYS_setregid,
        libc::SYS_setresgid,
        libc::SYS_setfsgid,
        libc::SYS_capset,
        libc::SYS_ptrace,
        libc::SYS_bind,
        libc::SYS_connect,
        libc::SYS_listen,
        libc::SYS_setsockopt,
        libc::SYS_msgctl,
        libc::SYS_semctl,
        libc::SYS_shmctl,
    ];
    let metadata = [
        libc::SYS_getdents64,
        libc::SYS_utimensat,
        libc::SYS_readlinkat,
        libc::SYS_unlinkat,
        libc::SYS_truncate,
    ];
    let stat = [
        libc::SYS_fstat,
        libc::SYS_newfstatat,
        libc::SYS_statx,
        libc::SYS_mkdirat,
        libc::SYS_mknodat,
        libc::SYS_symlinkat,
        libc::SYS_linkat,
        libc::SYS_renameat,
        libc::SYS_renameat2,
        libc::SYS_listxattr,
        libc::SYS_llistxattr,
        libc::SYS_flistxattr,
    ];
    let not_null = [
        (libc::SYS_sendto, 4),
        (libc::SYS_epoll_pwait2, 3),
        (libc::SYS_ppoll, 2),
        (libc::SYS_pselect6, 4),
        (libc::SYS_rt_sigtimedwait, 2),
        (libc::SYS_semtimedop, 3),
        (libc::SYS_mq_timedsend, 4),
        (libc::SYS_mq_timedreceive, 4),
        (libc::SYS_io_getevents, 4),
        (SYS_FUTEX_WAITV, 3),
        (SYS_FUTEX_WAIT, 4),
    ];
    let others = [
        Rule::new(libc::SYS_openat, Opens { flags: 2 }),
        Rule::new(libc::SYS_epoll_pwait, Milliseconds { at: 3 }),
        Rule::new(libc::SYS_futex, Futex),
        Rule::new(
            libc::SYS_clone,
            HasAny {
                at: 0,
                bits: libc::CLONE_UNTRACED.cast_unsigned(),
            },
        ),
        Rule::new(
            libc::SYS_prctl,
            IsOneOf {
                at: 0,
                values: &[PR_SET_TSC, PR_SET_CHILD_SUBREAPER],
            },
        ),
        // Where the number of the processor and the time stand in the thread's own memory.
        Rule::new(libc::SYS_rseq, Fails(libc::ENOSYS)),
        // They also tell the time.
        Rule::new(libc::SYS_adjtimex, Fails(libc::EPERM)),
        Rule::new(libc::SYS_clock_adjtime, Fails(libc::EPERM)),
    ];
    let always = always.into_iter().map(|number| Rule::new(number, Always));
    let not_null = not_null
        .into_iter()
        .map(|(number, at)| Rule::new(number, NotZero { at }));
    always
        .chain(metadata.into_iter().map(Rule::metadata))
        .chain(stat.into_iter().map(Rule::stat))
        .chain(not_null)
        .chain(others)
        .collect()
}

/// What may be refused to an ordinary user (`access`), besides calls that stop anyway.
fn access_rules() -> impl Iterator<Item = Rule> {
    let owners = [
        libc::SYS_faccessat,
        SYS_FACCESSAT2,
        libc::SYS_fchmod,
        libc::SYS_fchmodat,
        SYS_FCHMODAT2,
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_chdir,
        libc::SYS_fchdir,
        libc::SYS_getxattr,
        libc::SYS_lgetxattr,
        libc::SYS_fgetxattr,
        libc::SYS_readlinkat,
        libc::SYS_unlinkat,
        libc::SYS_utimensat,
        libc::SYS_truncate,
        libc::SYS_pipe2,
    ];
    owners.into_iter().map(Rule::owners)
}

/// What stops for more reasons where owners are emulated.
fn more_for_owners() -> [Rule; 2] {
    let capabilities = When::IsOneOf {
        at: 0,
        values: &[
            PR_SET_TSC,
            PR_SET_CHILD_SUBREAPER,
            PR_SET_KEEPCAPS,
            PR_CAPBSET_READ,
            PR_CAPBSET_DROP,
            PR_CAP_AMBIENT,
        ],
    };
    [
        Rule::opens_any(libc::SYS_openat, 2),
        Rule {
            when: capabilities,
            ..Rule::owners(libc::SYS_prctl)
        },
    ]
}

/// What tells or changes a user or an owner.
fn owner_rules() -> impl Iterator<Item = Rule> {
    let owners = [
        libc::SYS_capget,
        libc::SYS_fchown,
        libc::SYS_fchownat,
        libc::SYS_setxattr,
        libc::SYS_lsetxattr,
        libc::SYS_fsetxattr,
        libc::SYS_removexattr,
        libc::SYS_lremovexattr,
        libc::SYS_fremovexattr,
        libc::SYS_getuid,
        libc::SYS_geteuid,
        libc::SYS_getgid,
        libc::SYS_getegid,
        libc::SYS_getresuid,
        libc::SYS_getresgid,
        libc::SYS_getgroups,
        libc::SYS_setgroups,
    ];
    let new_attributes = NEW_ATTRIBUTES.map(|number| Rule {
        when: When::Fails(libc::ENOSYS),
        ..Rule::owners(number)
    });
    owners.into_iter().map(Rule::owners).chain(new_attributes)
}

/// The rules that hold, sorted by number.
fn rules(what: &Virtual) -> Vec<Rule> {
    let mut rules = if what.strict {
        super::strict::rules()
    } else {
        Vec::new()
    };
    rules.extend(more_for_owners());
    rules.extend(common_rules());
    rules.extend(owner_rules());
    rules.extend(access_rules());
    rules.extend(arch::rules());
    rules.retain(|rule| rule.holds(what));
    // Stable, so that the first of two rules for a number holds.
    rules.sort_by_key(|rule| rule.number);
    rules.dedup_by_key(|rule| rule.number);
    rules
}

/// The calls that stop a thread only because users and owners are emulated: where they are not, nobody sees them.
pub(super) fn only_for_owners(what: &Virtual) -> BTreeSet<i64> {
    let without = Virtual {
        owners: false,
        ..*what
    };
    let numbers =
        |what: &Virtual| -> BTreeSet<i64> { rules(what).iter().map(|rule| rule.number).collect() };
    numbers(what)
        .difference(&numbers(&without))
        .copied()
        .collect()
}

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const NOT_LESS: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const ANY_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

const ALLOW: sock_filter = instruction(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW);
const TRACE: sock_filter = instruction(RETURN, 0, 0, libc::SECCOMP_RET_TRACE);

const fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// `struct seccomp_data`: number, architecture, instruction pointer, six arguments.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const INSTRUCTION: u32 = 8;

/// The low half of an argument (both architectures are little-endian).
fn low(at: u8) -> sock_filter {
    instruction(LOAD, 0, 0, 16 + 8 * u32::from(at))
}

fn high(at: u8) -> sock_filter {
    instruction(LOAD, 0, 0, 20 + 8 * u32::from(at))
}

/// The program.
pub(super) fn program(what: &Virtual) -> Vec<sock_filter> {
    let mut program = vec![
        instruction(LOAD, 0, 0, ARCHITECTURE),
        instruction(EQUAL, 1, 0, arch::AUDIT),
        // Another architecture's numbers mean other calls: none is let through.
        instruction(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
    ];
    if what.answers_inside() {
        program.extend(from_inside());
    }
    program.push(instruction(LOAD, 0, 0, NUMBER));
    program.extend(search(&rules(what)));
    program
}

/// Lets a call through that comes from the code in every process, if it is one that the code makes.
fn from_inside() -> Vec<sock_filter> {
    let [low, high] =
        [BASE & 0xffff_ffff, BASE >> 32].map(|half| u32::try_from(half).expect("a half"));
    let page = u32::try_from(CODE).expect("a page");
    let calls = arch::inside::CALLS;
    let count = u8::try_from(calls.len()).expect("a few");
    let mut block = vec![
        instruction(LOAD, 0, 0, INSTRUCTION + 4),
        instruction(EQUAL, 0, count + 6, high),
        instruction(LOAD, 0, 0, INSTRUCTION),
        instruction(NOT_LESS, 0, count + 4, low),
        instruction(NOT_LESS, count + 3, 0, low + page),
        instruction(LOAD, 0, 0, NUMBER),
    ];
    for (at, call) in (1..).zip(calls) {
        let number = u32::try_from(call).expect("a call number");
        // Over the rest, and over what is for those that are none of them.
        block.push(instruction(EQUAL, count - at + 1, 0, number));
    }
    block.push(instruction(JUMP, 0, 0, 1));
    block.push(ALLOW);
    block
}

fn search(rules: &[Rule]) -> Vec<sock_filter> {
    const FEW: usize = 3;
    if rules.len() > FEW {
        let (low, high) = rules.split_at(rules.len() / 2);
        let low = search(low);
        let first = u32::try_from(high[0].number).expect("a call number");
        let skip = u32::try_from(low.len()).expect("a short program");
        let mut out = vec![
            instruction(NOT_LESS, 0, 1, first),
            instruction(JUMP, 0, 0, skip),
        ];
        out.extend(low);
        out.extend(search(high));
        return out;
    }
    let mut out = Vec::new();
    for rule in rules {
        let block = decision(rule.when);
        let number = u32::try_from(rule.number).expect("a call number");
        let skip = u8::try_from(block.len()).expect("a short block");
        out.push(instruction(EQUAL, 0, skip, number));
        out.extend(block);
    }
    out.push(ALLOW);
    out
}

/// Decides about one call.
fn decision(when: When) -> Vec<sock_filter> {
    match when {
        When::Always => vec![TRACE],
        When::Fails(error) => vec![instruction(
            RETURN,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | error.unsigned_abs(),
        )],
        When::NotZero { at } => vec![
            low(at),
            instruction(EQUAL, 0, 3, 0),
            high(at),
            instruction(EQUAL, 0, 1, 0),
            ALLOW,
            TRACE,
        ],
        When::Milliseconds { at } => vec![
            low(at),
            instruction(EQUAL, 1, 0, 0),
            // Negative is for ever.
            instruction(NOT_LESS, 0, 1, 0x8000_0000),
            ALLOW,
            TRACE,
        ],
        When::Opens { flags } => vec![
            low(flags),
            instruction(ANY_BIT, 4, 0, WRITES),
            instruction(ANY_BIT, 2, 0, NO_DEVICE),
            low(flags + 1),
            instruction(EQUAL, 0, 1, NO_MODE),
            ALLOW,
            TRACE,
        ],
        When::OpensAny { flags } => vec![
            low(flags + 1),
            instruction(EQUAL, 0, 1, NO_MODE),
            ALLOW,
            TRACE,
        ],
        When::Futex => [
            low(3),
            instruction(EQUAL, 0, 2, 0),
            high(3),
            instruction(EQUAL, 7, 0, 0),
        ]
        .into_iter()
        .chain(futex_waits())
        .collect(),
        When::FutexWaits => futex_waits().to_vec(),
        When::HasAny { at, bits } => {
            vec![low(at), instruction(ANY_BIT, 0, 1, bits), TRACE, ALLOW]
        }
        When::IsOneOf { at, values } => {
            let mut block = vec![low(at)];
            for (at, value) in (1..).zip(values) {
                let rest = u8::try_from(values.len() - at).expect("a few");
                block.push(instruction(EQUAL, rest + 1, 0, *value));
            }
            block.extend([ALLOW, TRACE]);
            block
        }
    }
}

/// `FUTEX_WAIT`, `FUTEX_LOCK_PI`, `FUTEX_WAIT_BITSET`, `FUTEX_WAIT_REQUEUE_PI`, `FUTEX_LOCK_PI2`; the last but one
/// instruction is where a null timeout jumps to.
fn futex_waits() -> [sock_filter; 9] {
    [
        low(1),
        instruction(AND, 0, 0, 0x7f),
        instruction(EQUAL, 5, 0, 0),
        instruction(EQUAL, 4, 0, 6),
        instruction(EQUAL, 3, 0, 9),
        instruction(EQUAL, 2, 0, 11),
        instruction(EQUAL, 1, 0, 13),
        ALLOW,
        TRACE,
    ]
}

/// `O_WRONLY | O_RDWR | O_CREAT | O_TRUNC`.
pub(super) const WRITES: u32 = 0o1 | 0o2 | 0o100 | 0o1000;
/// Nobody gives a mode like that with a file that is not to be made: our own code does.
pub(super) const NO_MODE: u32 = 0x696d_6d62;
/// `O_DIRECTORY | O_NOFOLLOW | O_PATH`: nobody opens a random device like that.
#[cfg(target_arch = "x86_64")]
const NO_DEVICE: u32 = 0o200_000 | 0o400_000 | 0o10_000_000;
#[cfg(target_arch = "aarch64")]
const NO_DEVICE: u32 = 0o40_000 | 0o100_000 | 0o10_000_000;

#[cfg(test)]
mod tests {
    use immbuild_cas::digest::Digest;

    use super::*;

    #[test]
    fn what_stops_for_owners_alone_is_known() {
        let what = |metadata, owners| Virtual {
            epoch: 0,
            seed: Digest::of(b""),
            metadata,
            strict: false,
            owners,
        };
        let unseen = only_for_owners(&what(Metadata::Virtual, true));
        for (number, is_unseen) in [
            (libc::SYS_getuid, true),
            (libc::SYS_fchownat, true),
            (libc::SYS_execve, true),
            (libc::SYS_statx, false),
            (libc::SYS_openat, false),
            (libc::SYS_prctl, false),
            (libc::SYS_clock_gettime, false),
        ] {
            assert_eq!(unseen.contains(&number), is_unseen, "{number}");
        }
        // Where times are those of the file system, questions about files stop for their owners alone.
        let clamped = only_for_owners(&what(Metadata::Clamp, true));
        assert!(clamped.contains(&libc::SYS_statx) && clamped.is_superset(&unseen));
        assert!(only_for_owners(&what(Metadata::Virtual, false)).is_empty());
    }
}
