//! The x86-64 machine.

pub(in super::super) mod inside;

use super::super::call::{self, Call, FileName, Span, Stat, StatForm, Timeout, Wait};
use super::super::filter::{Rule, When};
use super::super::sys::zero_statx;
use super::Machine;

pub(in super::super) const AUDIT: u32 = 0xc000_003e;
pub(in super::super) const MACHINE: &str = "x86_64";
pub(in super::super) const UNCAUGHT: &[&str] = &["cpuid", "rdrand", "rdseed"];

/// `struct user_regs_struct` (`sys/user.h`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(in super::super) struct Registers {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    rbp: u64,
    rbx: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rax: u64,
    rcx: u64,
    rdx: u64,
    rsi: u64,
    rdi: u64,
    orig_rax: u64,
    rip: u64,
    cs: u64,
    eflags: u64,
    rsp: u64,
    ss: u64,
    fs_base: u64,
    gs_base: u64,
    ds: u64,
    es: u64,
    fs: u64,
    gs: u64,
}

/// Length of the `syscall` instruction.
const SYSCALL: u64 = 2;

impl Machine for Registers {
    fn number(&self) -> i64 {
        self.orig_rax.cast_signed()
    }

    fn set_number(&mut self, number: i64) {
        self.orig_rax = number.cast_unsigned();
    }

    fn argument(&self, at: usize) -> u64 {
        [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9][at]
    }

    fn set_argument(&mut self, at: usize, value: u64) {
        let registers = [
            &mut self.rdi,
            &mut self.rsi,
            &mut self.rdx,
            &mut self.r10,
            &mut self.r8,
            &mut self.r9,
        ];
        *registers.into_iter().nth(at).expect("there are six") = value;
    }

    fn result(&self) -> i64 {
        self.rax.cast_signed()
    }

    fn set_result(&mut self, result: i64) {
        self.rax = result.cast_unsigned();
    }

    fn skip(&mut self, result: i64) {
        self.forget_call();
        self.set_result(result);
    }

    fn forget_call(&mut self) {
        self.set_number(-1);
    }

    fn call_again(&mut self, number: i64, arguments: &[u64]) {
        self.rip -= SYSCALL;
        self.rax = number.cast_unsigned();
        // No call is under way, so that the kernel restarts none.
        self.forget_call();
        for (at, value) in arguments.iter().enumerate() {
            self.set_argument(at, *value);
        }
    }

    fn instruction(&self) -> u64 {
        self.rip
    }

    fn call_first(&mut self, place: u64) -> u64 {
        self.rsp -= inside::BELOW;
        self.rip = place;
        self.rsp
    }

    fn instruction_after_call(&self) -> u64 {
        self.rip + SYSCALL
    }

    #[cfg(test)]
    fn set_instruction(&mut self, at: u64) {
        self.rip = at;
    }

    fn stack(&self) -> u64 {
        self.rsp
    }

    fn read_time_stamp(&mut self, code: &[u8], ticks: u64) -> bool {
        // Intel SDM 2: `rdtsc` is 0f 31, `rdtscp` 0f 01 f9 and puts the processor's number into ecx.
        let length = match code {
            [0x0f, 0x31, ..] => 2,
            [0x0f, 0x01, 0xf9, ..] => {
                self.rcx = 0;
                3
            }
            _ => return false,
        };
        self.rax = ticks & 0xffff_ffff;
        self.rdx = ticks >> 32;
        self.rip += length;
        true
    }
}

const AT_FDCWD: i32 = libc::AT_FDCWD;

#[expect(
    clippy::cast_possible_truncation,
    reason = "the kernel takes the low half of the register, too"
)]
const fn int(value: u64) -> i32 {
    value as i32
}

pub(in super::super) fn decode(number: i64, a: &[u64; 6]) -> Option<Call> {
    let at = |path| FileName {
        directory: AT_FDCWD,
        path,
    };
    Some(match number {
        libc::SYS_stat | libc::SYS_lstat => Call::Stat(Stat {
            name: at(a[0]),
            flags: if number == libc::SYS_lstat {
                libc::AT_SYMLINK_NOFOLLOW
            } else {
                0
            },
            form: StatForm::Stat,
            to: a[1],
        }),
        libc::SYS_readlink => Call::Readlink {
            name: at(a[0]),
            to: a[1],
        },
        libc::SYS_time => Call::Time { to: a[0] },
        libc::SYS_alarm => Call::Alarm {
            seconds: a[0] & 0xffff_ffff,
        },
        libc::SYS_getdents => Call::Listing {
            descriptor: int(a[0]),
            to: a[1],
            length: a[2] & 0xffff_ffff,
            old: true,
        },
        libc::SYS_poll => Call::Wait(Wait {
            timeout: Timeout::Milliseconds(int(a[2])),
            clock: libc::CLOCK_MONOTONIC,
            endless: (2, u64::from(u32::MAX)),
            expired: 0,
            left: None,
        }),
        libc::SYS_epoll_wait => Call::Wait(Wait {
            timeout: Timeout::Milliseconds(int(a[3])),
            clock: libc::CLOCK_MONOTONIC,
            endless: (3, u64::from(u32::MAX)),
            expired: 0,
            left: None,
        }),
        libc::SYS_select => Call::Wait(Wait {
            timeout: Timeout::Relative(Span::Micro(a[4])),
            clock: libc::CLOCK_MONOTONIC,
            endless: (4, 0),
            expired: 0,
            left: Some(Span::Micro(a[4])),
        }),
        libc::SYS_utime => Call::Touch {
            name: at(a[0]),
            times: Some(Span::Whole(a[1])),
            flags: 0,
        },
        libc::SYS_utimes => Call::Touch {
            name: at(a[0]),
            times: Some(Span::Micro(a[1])),
            flags: 0,
        },
        libc::SYS_futimesat => Call::Touch {
            name: FileName {
                directory: int(a[0]),
                path: a[1],
            },
            times: Some(Span::Micro(a[2])),
            flags: 0,
        },
        libc::SYS_chown => Call::Owner {
            name: at(a[0]),
            flags: 0,
            uid: int(a[1]),
            gid: int(a[2]),
        },
        libc::SYS_lchown => Call::Owner {
            name: at(a[0]),
            flags: libc::AT_SYMLINK_NOFOLLOW,
            uid: int(a[1]),
            gid: int(a[2]),
        },
        libc::SYS_pipe => Call::Pipe { to: a[0] },
        _ => {
            let (modern, arguments) = modern(number, a);
            return (modern != number)
                .then(|| call::decode(modern, &arguments))
                .flatten();
        }
    })
}

/// The same call as architectures make it that have none of the old ones.
pub(in super::super) fn modern(number: i64, a: &[u64; 6]) -> (i64, [u64; 6]) {
    const HERE: u64 = AT_FDCWD.cast_unsigned() as u64;
    const REMOVE_DIRECTORY: u64 = libc::AT_REMOVEDIR.cast_unsigned() as u64;
    const CREATE: u64 = (libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC).cast_unsigned() as u64;
    let (number, arguments) = match number {
        libc::SYS_open => (libc::SYS_openat, [HERE, a[0], a[1], a[2]]),
        libc::SYS_creat => (libc::SYS_openat, [HERE, a[0], CREATE, a[1]]),
        libc::SYS_access => (libc::SYS_faccessat, [HERE, a[0], a[1], 0]),
        libc::SYS_chmod => (libc::SYS_fchmodat, [HERE, a[0], a[1], 0]),
        libc::SYS_mkdir => (libc::SYS_mkdirat, [HERE, a[0], a[1], 0]),
        libc::SYS_mknod => (libc::SYS_mknodat, [HERE, a[0], a[1], a[2]]),
        libc::SYS_symlink => (libc::SYS_symlinkat, [a[0], HERE, a[1], 0]),
        libc::SYS_unlink => (libc::SYS_unlinkat, [HERE, a[0], 0, 0]),
        libc::SYS_rmdir => (libc::SYS_unlinkat, [HERE, a[0], REMOVE_DIRECTORY, 0]),
        libc::SYS_rename => (libc::SYS_renameat2, [HERE, a[0], HERE, a[1]]),
        libc::SYS_renameat => (libc::SYS_renameat2, [a[0], a[1], a[2], a[3]]),
        libc::SYS_link => (libc::SYS_linkat, [HERE, a[0], HERE, a[1]]),
        _ => return (number, *a),
    };
    let [one, two, three, four] = arguments;
    (number, [one, two, three, four, 0, 0])
}

pub(in super::super) fn rules() -> Vec<Rule> {
    vec![
        Rule::opens_any(libc::SYS_open, 1),
        Rule::owners(libc::SYS_access),
        Rule::owners(libc::SYS_chmod),
        Rule::owners(libc::SYS_pipe),
        Rule::new(libc::SYS_open, When::Opens { flags: 1 }),
        Rule::new(libc::SYS_creat, When::Always),
        Rule::stat(libc::SYS_stat),
        Rule::stat(libc::SYS_lstat),
        Rule::metadata(libc::SYS_getdents),
        Rule::metadata(libc::SYS_readlink),
        Rule::metadata(libc::SYS_unlink),
        Rule::metadata(libc::SYS_rmdir),
        Rule::new(libc::SYS_time, When::Always),
        Rule::new(libc::SYS_alarm, When::Always),
        Rule::new(libc::SYS_poll, When::Milliseconds { at: 2 }),
        Rule::new(libc::SYS_epoll_wait, When::Milliseconds { at: 3 }),
        Rule::new(libc::SYS_select, When::NotZero { at: 4 }),
        Rule::metadata(libc::SYS_utime),
        Rule::metadata(libc::SYS_utimes),
        Rule::metadata(libc::SYS_futimesat),
        Rule::owners(libc::SYS_chown),
        Rule::owners(libc::SYS_lchown),
        Rule::stat(libc::SYS_mkdir),
        Rule::stat(libc::SYS_mknod),
        Rule::stat(libc::SYS_symlink),
        Rule::stat(libc::SYS_rename),
        Rule::stat(libc::SYS_link),
        Rule::owners(libc::SYS_readlink),
        Rule::owners(libc::SYS_unlink),
        Rule::owners(libc::SYS_rmdir),
        Rule::owners(libc::SYS_utime),
        Rule::owners(libc::SYS_utimes),
        Rule::owners(libc::SYS_futimesat),
    ]
}

pub(in super::super) fn blocking_rules() -> Vec<Rule> {
    [
        libc::SYS_poll,
        libc::SYS_epoll_wait,
        libc::SYS_select,
        libc::SYS_pause,
    ]
    .into_iter()
    .map(|number| Rule::new(number, When::Always))
    .collect()
}

/// `struct stat` (asm/stat.h).
pub(in super::super) fn to_stat(from: &libc::statx) -> Vec<u8> {
    let device = |major, minor| libc::makedev(major, minor);
    let mut out = Vec::with_capacity(144);
    let mut word = |value: u64| out.extend_from_slice(&value.to_ne_bytes());
    word(device(from.stx_dev_major, from.stx_dev_minor));
    word(from.stx_ino);
    word(from.stx_nlink.into());
    word(u64::from(from.stx_mode) | u64::from(from.stx_uid) << 32);
    word(from.stx_gid.into());
    word(device(from.stx_rdev_major, from.stx_rdev_minor));
    word(from.stx_size);
    word(from.stx_blksize.into());
    word(from.stx_blocks);
    for time in [from.stx_atime, from.stx_mtime, from.stx_ctime] {
        word(time.tv_sec.cast_unsigned());
        word(time.tv_nsec.into());
    }
    for _ in 0..3 {
        word(0);
    }
    out
}

/// `mov eax, number; syscall; ret`: the arguments are where the call has them.
pub(in super::super) fn vdso_call(name: &[u8]) -> Option<[u8; 8]> {
    let number = match name.strip_prefix(b"__vdso_")? {
        b"clock_gettime" => libc::SYS_clock_gettime,
        b"clock_getres" => libc::SYS_clock_getres,
        b"gettimeofday" => libc::SYS_gettimeofday,
        b"time" => libc::SYS_time,
        b"getcpu" => libc::SYS_getcpu,
        b"getrandom" => libc::SYS_getrandom,
        _ => return None,
    };
    let [one, two, ..] = number.to_ne_bytes();
    Some([0xb8, one, two, 0, 0, 0x0f, 0x05, 0xc3])
}

/// `rdtsc` becomes `xor eax, eax`: edx keeps what it had, which is the same each time.
pub(in super::super) fn quiet_time_stamp(mut code: [u8; 8]) -> Option<[u8; 8]> {
    code.starts_with(&[0x0f, 0x31]).then(|| {
        code[..2].copy_from_slice(&[0x31, 0xc0]);
        code
    })
}

pub(in super::super) const STAT: usize = 144;
pub(in super::super) const STAT_OWNER: u64 = 28;

pub(in super::super) fn from_stat(bytes: &[u8; STAT]) -> libc::statx {
    let word =
        |at: usize| u64::from_ne_bytes(bytes[at * 8..at * 8 + 8].try_into().expect("eight bytes"));
    let mut to = zero_statx();
    (to.stx_dev_major, to.stx_dev_minor) = (libc::major(word(0)), libc::minor(word(0)));
    to.stx_ino = word(1);
    to.stx_nlink = low(word(2));
    to.stx_mode = u16::try_from(low(word(3)) & 0xffff).unwrap_or(0);
    to.stx_uid = low(word(3) >> 32);
    to.stx_gid = low(word(4));
    (to.stx_rdev_major, to.stx_rdev_minor) = (libc::major(word(5)), libc::minor(word(5)));
    to.stx_size = word(6);
    to.stx_blksize = low(word(7));
    to.stx_blocks = word(8);
    to.stx_mtime.tv_sec = word(11).cast_signed();
    to.stx_mtime.tv_nsec = low(word(12));
    to
}

fn low(word: u64) -> u32 {
    u32::try_from(word & 0xffff_ffff).expect("32 bits")
}
