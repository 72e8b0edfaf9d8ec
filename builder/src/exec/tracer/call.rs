//! The calls that the tracer answers, with their arguments taken apart.

use super::arch;
use super::sys::STATX_MNT_ID_UNIQUE;

/// A file by a directory's descriptor and the address of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileName {
    pub(super) directory: i32,
    /// 0: the descriptor's own file.
    pub(super) path: u64,
}

/// The address of a time, or of two, by its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    /// `struct timespec`
    Nano(u64),
    /// `struct timeval`
    Micro(u64),
    /// `time_t`
    Whole(u64),
}

impl Span {
    pub(super) const fn address(self) -> u64 {
        match self {
            Self::Nano(at) | Self::Micro(at) | Self::Whole(at) => at,
        }
    }
}

/// How long a call may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timeout {
    /// In the register.
    Milliseconds(i32),
    /// From now on.
    Relative(Span),
    /// Until the clock shows it.
    Absolute(Span),
}

/// A call that waits for something, but not for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) timeout: Timeout,
    pub(super) clock: i32,
    /// Which argument makes it wait for ever, with which value.
    pub(super) endless: (usize, u64),
    /// What it gives when the time is over.
    pub(super) expired: i64,
    /// Where it writes what is left of the time.
    pub(super) left: Option<Span>,
}

/// What a stat call is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StatForm {
    Stat,
    Statx {
        /// The number of the mount is to be one that no other gets.
        unique: bool,
    },
}

/// A call of the stat family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) name: FileName,
    /// `AT_SYMLINK_NOFOLLOW`, `AT_EMPTY_PATH`, ….
    pub(super) flags: i32,
    pub(super) form: StatForm,
    pub(super) to: u64,
}

/// wait4(2) or waitid(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WaitChild {
    /// The child, where waitid(2) names one.
    pub(super) child: i32,
    pub(super) rusage: u64,
    pub(super) info: u64,
    /// Nothing is wrong with it, so without a child it fails with `ECHILD`.
    pub(super) proper: bool,
    /// The child can be waited for again.
    pub(super) stays: bool,
}

/// System V objects whose state tells the time (svipc(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    Queue,
    Semaphores,
    Memory,
}

impl Control {
    /// The commands whose answer has times in it: `IPC_STAT`, and by the number of the object, for those who may read it and for
    /// all.
    pub(super) const fn tells(self) -> &'static [i32] {
        match self {
            Self::Queue => &[2, 11, 13],
            Self::Semaphores => &[2, 18, 20],
            Self::Memory => &[2, 13, 15],
        }
    }
}

/// A call with its arguments; numbers that end in an address say what is read or written there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    ClockGettime {
        clock: i32,
        to: u64,
    },
    ClockGetres {
        clock: i32,
        to: u64,
    },
    Gettimeofday {
        to: u64,
        zone: u64,
    },
    Time {
        to: u64,
    },
    Times {
        to: u64,
    },
    Getrusage {
        who: i32,
        to: u64,
    },
    Sysinfo {
        to: u64,
    },
    Getrandom {
        to: u64,
        length: u64,
        flags: u64,
    },
    Uname {
        to: u64,
    },
    GetAffinity {
        length: u64,
        to: u64,
    },
    SetAffinity {
        length: u64,
        from: u64,
    },
    Getcpu {
        cpu: u64,
        node: u64,
    },
    GetPriority {
        which: i32,
    },
    SetPriority {
        which: i32,
        value: i32,
    },
    Sleep {
        clock: i32,
        absolute: bool,
        request: u64,
        remain: u64,
    },
    Wait(Wait),
    Alarm {
        seconds: u64,
    },
    SetItimer {
        which: i32,
        new: u64,
        old: u64,
    },
    GetItimer {
        which: i32,
        to: u64,
    },
    TimerCreate {
        clock: i32,
        event: u64,
        id: u64,
    },
    TimerSettime {
        id: i32,
        absolute: bool,
        new: u64,
        old: u64,
    },
    TimerGettime {
        id: i32,
        to: u64,
    },
    TimerGetoverrun {
        id: i32,
    },
    TimerDelete {
        id: i32,
    },
    TimerfdSettime {
        descriptor: i32,
        flags: i32,
        new: u64,
        old: u64,
    },
    TimerfdGettime {
        descriptor: i32,
        to: u64,
    },
    WaitChild(WaitChild),
    Statfs {
        /// `None`: that of a descriptor.
        name: Option<FileName>,
        to: u64,
    },
    Open {
        name: FileName,
        flags: i32,
    },
    OpenHow {
        name: FileName,
        how: u64,
    },
    Stat(Stat),
    Listing {
        descriptor: i32,
        to: u64,
        length: u64,
        old: bool,
    },
    /// The target of a link.
    Readlink {
        name: FileName,
        to: u64,
    },
    /// A name goes.
    Remove {
        name: FileName,
    },
    /// An address for a socket.
    Bind {
        socket: i32,
        address: u64,
        length: u64,
    },
    /// What a queue, a semaphore or shared memory is.
    Control {
        kind: Control,
        command: i32,
        to: u64,
    },
    /// A socket that has no port yet gets one.
    NeedsPort {
        socket: i32,
    },
    SetSocket {
        level: i32,
        option: i32,
    },
    Touch {
        name: FileName,
        times: Option<Span>,
        flags: i32,
    },
    Owner {
        name: FileName,
        flags: i32,
        uid: i32,
        gid: i32,
    },
    /// Its root or its view of mounts and users may be another one afterwards.
    Root {
        /// It will not.
        stays: bool,
    },
    /// There will be a new file.
    Make {
        name: FileName,
    },
    /// A file gets another name, or one more.
    Rename {
        from: FileName,
        to: FileName,
        /// Of the first.
        flags: i32,
        /// The first name stays.
        stays: bool,
    },
    /// Names of extended attributes.
    Attributes {
        name: FileName,
        flags: i32,
        to: u64,
        size: u64,
    },
    /// An extended attribute is changed.
    Attribute {
        name: u64,
    },
    /// Who it is, is asked for.
    Identity,
    /// Its ids may be others afterwards.
    Become,
    /// Its rights may be others afterwards.
    Rights,
    Ptrace,
    Prctl {
        option: i32,
    },
    /// A process starts that nobody may trace.
    Untraced,
    /// Nothing, but an ordinary user may not do it with every file.
    Access,
    /// A pipe without a name.
    Pipe {
        to: u64,
    },
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the kernel takes the low half of the register, too"
)]
const fn int(value: u64) -> i32 {
    value as i32
}

/// Flags of clone(2) and unshare(2) after which names or owners mean something else than to the tracer.
pub(super) const NEW_VIEW: i32 = libc::CLONE_NEWNS | libc::CLONE_NEWUSER;

/// In the width of a register.
const AT_FDCWD: u64 = libc::AT_FDCWD.cast_unsigned() as u64;

const TIMER_ABSTIME: u64 = 1;

/// What wait4(2) takes; with anything else it fails before it looks for children.
const WAIT_OPTIONS: i32 = libc::WNOHANG
    | libc::WUNTRACED
    | libc::WCONTINUED
    | libc::__WNOTHREAD
    | libc::__WCLONE
    | libc::__WALL;

/// futex(2) commands that take a timeout; others have a number in its place.
const FUTEX_WAIT: u64 = 0;
const FUTEX_LOCK_PI: u64 = 6;

const MONOTONIC: i32 = libc::CLOCK_MONOTONIC;
const REALTIME: i32 = libc::CLOCK_REALTIME;

/// linkat(2) follows a link only when told so; other calls when not told otherwise.
const fn link_flags(flags: i32) -> i32 {
    if flags & libc::AT_SYMLINK_FOLLOW == 0 {
        flags | libc::AT_SYMLINK_NOFOLLOW
    } else {
        flags
    }
}

/// Takes a call apart; `None` for one that the filter does not name.
#[expect(clippy::too_many_lines, reason = "a table: one call after the other")]
pub(super) fn decode(number: i64, a: &[u64; 6]) -> Option<Call> {
    let name = |directory, path| FileName {
        directory: int(directory),
        path,
    };
    let wait = |timeout, clock, endless, expired: i32| {
        Call::Wait(Wait {
            timeout,
            clock,
            endless: (endless, 0),
            expired: i64::from(expired),
            left: None,
        })
    };
    let relative = |at: usize| Timeout::Relative(Span::Nano(a[at]));
    let absolute = |at: usize| Timeout::Absolute(Span::Nano(a[at]));
    Some(match number {
        libc::SYS_clock_gettime => Call::ClockGettime {
            clock: int(a[0]),
            to: a[1],
        },
        libc::SYS_clock_getres => Call::ClockGetres {
            clock: int(a[0]),
            to: a[1],
        },
        libc::SYS_gettimeofday => Call::Gettimeofday {
            to: a[0],
            zone: a[1],
        },
        libc::SYS_times => Call::Times { to: a[0] },
        libc::SYS_getrusage => Call::Getrusage {
            who: int(a[0]),
            to: a[1],
        },
        libc::SYS_sysinfo => Call::Sysinfo { to: a[0] },
        libc::SYS_getrandom => Call::Getrandom {
            to: a[0],
            length: a[1],
            flags: a[2],
        },
        libc::SYS_uname => Call::Uname { to: a[0] },
        libc::SYS_sched_getaffinity => Call::GetAffinity {
            length: a[1],
            to: a[2],
        },
        libc::SYS_sched_setaffinity => Call::SetAffinity {
            length: a[1],
            from: a[2],
        },
        libc::SYS_getcpu => Call::Getcpu {
            cpu: a[0],
            node: a[1],
        },
        libc::SYS_getpriority => Call::GetPriority { which: int(a[0]) },
        libc::SYS_setpriority => Call::SetPriority {
            which: int(a[0]),
            value: int(a[2]),
        },
        libc::SYS_nanosleep => Call::Sleep {
            clock: MONOTONIC,
            absolute: false,
            request: a[0],
            remain: a[1],
        },
        libc::SYS_clock_nanosleep => Call::Sleep {
            clock: int(a[0]),
            absolute: a[1] & TIMER_ABSTIME != 0,
            request: a[2],
            remain: a[3],
        },
        libc::SYS_epoll_pwait => Call::Wait(Wait {
            timeout: Timeout::Milliseconds(int(a[3])),
            clock: MONOTONIC,
            endless: (3, u64::from(u32::MAX)),
            expired: 0,
            left: None,
        }),
        libc::SYS_epoll_pwait2 => wait(relative(3), MONOTONIC, 3, 0),
        libc::SYS_ppoll => Call::Wait(Wait {
            timeout: relative(2),
            clock: MONOTONIC,
            endless: (2, 0),
            expired: 0,
            left: Some(Span::Nano(a[2])),
        }),
        libc::SYS_pselect6 => Call::Wait(Wait {
            timeout: relative(4),
            clock: MONOTONIC,
            endless: (4, 0),
            expired: 0,
            left: Some(Span::Nano(a[4])),
        }),
        libc::SYS_futex => {
            let clock = if a[1] & 0x100 != 0 {
                REALTIME
            } else {
                MONOTONIC
            };
            match a[1] & 0x7f {
                FUTEX_WAIT => wait(relative(3), clock, 3, -libc::ETIMEDOUT),
                FUTEX_LOCK_PI => wait(absolute(3), REALTIME, 3, -libc::ETIMEDOUT),
                _ => wait(absolute(3), clock, 3, -libc::ETIMEDOUT),
            }
        }
        SYS_FUTEX_WAITV => wait(absolute(3), int(a[4]), 3, -libc::ETIMEDOUT),
        SYS_FUTEX_WAIT => wait(absolute(4), int(a[5]), 4, -libc::ETIMEDOUT),
        libc::SYS_rt_sigtimedwait => wait(relative(2), MONOTONIC, 2, -libc::EAGAIN),
        libc::SYS_semtimedop => wait(relative(3), MONOTONIC, 3, -libc::EAGAIN),
        libc::SYS_mq_timedsend | libc::SYS_mq_timedreceive => {
            wait(absolute(4), REALTIME, 4, -libc::ETIMEDOUT)
        }
        libc::SYS_io_getevents => wait(relative(4), MONOTONIC, 4, 0),
        libc::SYS_setitimer => Call::SetItimer {
            which: int(a[0]),
            new: a[1],
            old: a[2],
        },
        libc::SYS_getitimer => Call::GetItimer {
            which: int(a[0]),
            to: a[1],
        },
        libc::SYS_timer_create => Call::TimerCreate {
            clock: int(a[0]),
            event: a[1],
            id: a[2],
        },
        libc::SYS_timer_settime => Call::TimerSettime {
            id: int(a[0]),
            absolute: a[1] & TIMER_ABSTIME != 0,
            new: a[2],
            old: a[3],
        },
        libc::SYS_timer_gettime => Call::TimerGettime {
            id: int(a[0]),
            to: a[1],
        },
        libc::SYS_timer_getoverrun => Call::TimerGetoverrun { id: int(a[0]) },
        libc::SYS_timer_delete => Call::TimerDelete { id: int(a[0]) },
        libc::SYS_timerfd_settime => Call::TimerfdSettime {
            descriptor: int(a[0]),
            flags: int(a[1]),
            new: a[2],
            old: a[3],
        },
        libc::SYS_timerfd_gettime => Call::TimerfdGettime {
            descriptor: int(a[0]),
            to: a[1],
        },
        libc::SYS_wait4 => Call::WaitChild(WaitChild {
            child: 0,
            rusage: a[3],
            info: 0,
            proper: int(a[0]) >= -1 && int(a[2]) & !WAIT_OPTIONS == 0,
            stays: false,
        }),
        libc::SYS_waitid => Call::WaitChild(WaitChild {
            child: match u32::try_from(int(a[0])) {
                Ok(libc::P_PID) => int(a[1]),
                _ => 0,
            },
            rusage: a[4],
            info: a[2],
            proper: false,
            stays: int(a[3]) & libc::WNOWAIT != 0,
        }),
        libc::SYS_statfs => Call::Statfs {
            name: Some(name(AT_FDCWD, a[0])),
            to: a[1],
        },
        libc::SYS_fstatfs => Call::Statfs {
            name: None,
            to: a[1],
        },
        libc::SYS_openat => Call::Open {
            name: name(a[0], a[1]),
            flags: int(a[2]),
        },
        libc::SYS_openat2 => Call::OpenHow {
            name: name(a[0], a[1]),
            how: a[2],
        },
        libc::SYS_fstat => Call::Stat(Stat {
            name: name(a[0], 0),
            flags: libc::AT_EMPTY_PATH,
            form: StatForm::Stat,
            to: a[1],
        }),
        libc::SYS_newfstatat => Call::Stat(Stat {
            name: name(a[0], a[1]),
            flags: int(a[3]),
            form: StatForm::Stat,
            to: a[2],
        }),
        libc::SYS_statx => Call::Stat(Stat {
            name: name(a[0], a[1]),
            flags: int(a[2]),
            form: StatForm::Statx {
                unique: a[3] & u64::from(STATX_MNT_ID_UNIQUE) != 0,
            },
            to: a[4],
        }),
        libc::SYS_getdents64 => Call::Listing {
            descriptor: int(a[0]),
            to: a[1],
            length: a[2] & 0xffff_ffff,
            old: false,
        },
        libc::SYS_utimensat => Call::Touch {
            name: name(a[0], a[1]),
            times: Some(Span::Nano(a[2])),
            flags: int(a[3]),
        },
        libc::SYS_unlinkat => Call::Remove {
            name: name(a[0], a[1]),
        },
        libc::SYS_truncate => Call::Touch {
            name: name(AT_FDCWD, a[0]),
            times: None,
            flags: 0,
        },
        libc::SYS_readlinkat => Call::Readlink {
            name: name(a[0], a[1]),
            to: a[2],
        },
        libc::SYS_connect | libc::SYS_listen | libc::SYS_sendto => {
            Call::NeedsPort { socket: int(a[0]) }
        }
        libc::SYS_bind => Call::Bind {
            socket: int(a[0]),
            address: a[1],
            length: a[2],
        },
        libc::SYS_setsockopt => Call::SetSocket {
            level: int(a[1]),
            option: int(a[2]),
        },
        libc::SYS_msgctl => Call::Control {
            kind: Control::Queue,
            command: int(a[1]),
            to: a[2],
        },
        libc::SYS_semctl => Call::Control {
            kind: Control::Semaphores,
            command: int(a[2]),
            to: a[3],
        },
        libc::SYS_shmctl => Call::Control {
            kind: Control::Memory,
            command: int(a[1]),
            to: a[2],
        },
        libc::SYS_fchownat => Call::Owner {
            name: name(a[0], a[1]),
            flags: int(a[4]),
            uid: int(a[2]),
            gid: int(a[3]),
        },
        libc::SYS_fchown => Call::Owner {
            name: name(a[0], 0),
            flags: libc::AT_EMPTY_PATH,
            uid: int(a[1]),
            gid: int(a[2]),
        },
        libc::SYS_unshare => Call::Root {
            stays: int(a[0]) & NEW_VIEW == 0,
        },
        libc::SYS_chroot | libc::SYS_pivot_root | libc::SYS_setns => Call::Root { stays: false },
        libc::SYS_setuid
        | libc::SYS_setreuid
        | libc::SYS_setresuid
        | libc::SYS_setfsuid
        | libc::SYS_setgid
        | libc::SYS_setregid
        | libc::SYS_setresgid
        | libc::SYS_setfsgid => Call::Become,
        libc::SYS_capset => Call::Rights,
        libc::SYS_getuid
        | libc::SYS_geteuid
        | libc::SYS_getgid
        | libc::SYS_getegid
        | libc::SYS_getresuid
        | libc::SYS_getresgid
        | libc::SYS_getgroups
        | libc::SYS_setgroups
        | libc::SYS_capget => Call::Identity,
        libc::SYS_mkdirat | libc::SYS_mknodat => Call::Make {
            name: name(a[0], a[1]),
        },
        libc::SYS_symlinkat => Call::Make {
            name: name(a[1], a[2]),
        },
        libc::SYS_renameat | libc::SYS_renameat2 => Call::Rename {
            from: name(a[0], a[1]),
            to: name(a[2], a[3]),
            flags: libc::AT_SYMLINK_NOFOLLOW,
            stays: false,
        },
        libc::SYS_linkat => Call::Rename {
            from: name(a[0], a[1]),
            to: name(a[2], a[3]),
            flags: link_flags(int(a[4])),
            stays: true,
        },
        libc::SYS_listxattr | libc::SYS_llistxattr => Call::Attributes {
            name: FileName {
                directory: libc::AT_FDCWD,
                path: a[0],
            },
            flags: if number == libc::SYS_llistxattr {
                libc::AT_SYMLINK_NOFOLLOW
            } else {
                0
            },
            to: a[1],
            size: a[2],
        },
        libc::SYS_flistxattr => Call::Attributes {
            name: name(a[0], 0),
            flags: libc::AT_EMPTY_PATH,
            to: a[1],
            size: a[2],
        },
        libc::SYS_setxattr
        | libc::SYS_lsetxattr
        | libc::SYS_fsetxattr
        | libc::SYS_removexattr
        | libc::SYS_lremovexattr
        | libc::SYS_fremovexattr => Call::Attribute { name: a[1] },
        libc::SYS_faccessat
        | SYS_FACCESSAT2
        | libc::SYS_fchmod
        | libc::SYS_fchmodat
        | SYS_FCHMODAT2
        | libc::SYS_execve
        | libc::SYS_execveat
        | libc::SYS_chdir
        | libc::SYS_fchdir
        | libc::SYS_getxattr
        | libc::SYS_lgetxattr
        | libc::SYS_fgetxattr => Call::Access,
        libc::SYS_pipe2 => Call::Pipe { to: a[0] },
        libc::SYS_ptrace => Call::Ptrace,
        libc::SYS_prctl => Call::Prctl { option: int(a[0]) },
        libc::SYS_clone => Call::Untraced,
        _ => return arch::decode(number, a),
    })
}

/// Linux 5.16 and 6.7; libc does not have all of them.
pub(super) const SYS_FUTEX_WAITV: i64 = 449;
pub(super) const SYS_FUTEX_WAIT: i64 = 455;
/// Linux 5.8 and 6.6.
pub(super) const SYS_FACCESSAT2: i64 = 439;
pub(super) const SYS_FCHMODAT2: i64 = 452;
