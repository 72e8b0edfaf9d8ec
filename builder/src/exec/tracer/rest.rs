//! Whether threads are at rest: stopped, or asleep in the kernel.
//!
//! Threads cannot all be looked at in one moment, and one that sleeps may be woken by another that is looked at
//! later. So each is looked at twice: who was off its processor the first time, sleeps the second time, and has
//! not run in between slept at every moment between the two, and that moment is one for all.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use super::run::{Tracer, state_in, switches};
use super::strict::Turns;
use super::sys::{self, Tid};

/// What a thread does that is not known to have stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Motion {
    /// It runs, or is on its way to a stop.
    Moves,
    /// It is blocked in a call, or stopped by job control.
    Sleeps,
    /// It has ended.
    Ended,
}

impl Tracer {
    pub(super) fn motion(&self, tid: Tid) -> Motion {
        let thread = self.threads.get(&tid);
        match self.state(tid) {
            None | Some(b'Z' | b'X') => Motion::Ended,
            Some(b'S' | b'T' | b'I') => Motion::Sleeps,
            Some(b't') if thread.is_some_and(|thread| thread.is_halted) => Motion::Sleeps,
            // vfork(2) waits without being interruptible.
            Some(b'D') if thread.is_some_and(|thread| thread.in_vfork) => Motion::Sleeps,
            Some(_) => Motion::Moves,
        }
    }

    fn state(&self, tid: Tid) -> Option<u8> {
        state_in(&self.looks.read(tid, Look::Stat).ok()?)
    }

    /// How often a thread came to a processor.
    fn runs(&self, tid: Tid) -> Vec<u8> {
        // The third number, where the kernel counts.
        let text = self.looks.read(tid, Look::Schedstat).unwrap_or_default();
        let mut numbers = text.trim_ascii().split(|byte| *byte == b' ');
        match numbers.nth(2) {
            Some(count) if count != b"0" => count.to_vec(),
            _ => switches(tid).into_bytes(),
        }
    }

    /// A thread says that it sleeps a moment before it does, and may still find that it need not: the kernel waits
    /// until it has left its processor before it tells its call (`proc_pid_syscall(5)`).
    fn is_on_processor(&self, tid: Tid) -> bool {
        match self.looks.read(tid, Look::Syscall) {
            Ok(text) => text.starts_with(b"running"),
            Err(error) => error.raw_os_error() == Some(libc::EAGAIN),
        }
    }

    /// Is this thread blocked because nobody takes what the step prints, or because a random device is being filled?
    /// That is the affair of others, and no reason for another thread's turn.
    pub(super) fn waits_for_outside(&self, tid: Tid) -> bool {
        let Some(call) = Blocked::of(tid) else {
            return false;
        };
        let input = call.input().and_then(|argument| call.file(tid, argument));
        if input.is_some_and(|file| self.files.stands_for_random(&file).is_some()) {
            return true;
        }
        let output = call.output().and_then(|argument| call.file(tid, argument));
        output.is_some_and(|file| is_our_output(&file))
    }

    /// Is it what the step prints to, or a random device?
    pub(super) fn belongs_outside(&self, tid: Tid, descriptor: i32) -> bool {
        file_of(tid, u64::from(descriptor.unsigned_abs())).is_some_and(|file| {
            self.files.stands_for_random(&file).is_some() || is_our_output(&file)
        })
    }

    /// Are all threads at rest? `doubt`: those that had stopped may have been killed since.
    pub(super) fn all_rest(&self, turns: &Turns, doubt: bool) -> bool {
        let mut before = Vec::new();
        for tid in self.threads.keys().copied() {
            if !turns.is_stopped(tid) {
                let runs = self.runs(tid);
                if self.is_on_processor(tid) {
                    return false;
                }
                before.push((tid, runs));
            } else if doubt && !matches!(self.state(tid), None | Some(b't' | b'Z' | b'X')) {
                return false;
            }
        }
        before.iter().all(|(tid, before)| match self.motion(*tid) {
            Motion::Moves => false,
            Motion::Sleeps => self.runs(*tid) == *before,
            Motion::Ended => true,
        })
    }
}

/// The files of `/proc` that are looked at again and again stay open, for as many threads as there may be
/// descriptors for.
#[derive(Debug, Default)]
pub(super) struct Looks(RefCell<BTreeMap<Tid, [Option<OwnedFd>; 3]>>);

#[derive(Clone, Copy, Debug)]
enum Look {
    Stat,
    Schedstat,
    Syscall,
}

impl Looks {
    const MOST: usize = 100;

    fn read(&self, tid: Tid, look: Look) -> io::Result<Vec<u8>> {
        let name = match look {
            Look::Stat => "stat",
            Look::Schedstat => "schedstat",
            Look::Syscall => "syscall",
        };
        let mut all = self.0.borrow_mut();
        if all.len() >= Self::MOST && !all.contains_key(&tid) {
            return sys::read_proc(&sys::open_proc(tid, name)?);
        }
        let file = &mut all.entry(tid).or_default()[look as usize];
        if file.is_none() {
            *file = Some(sys::open_proc(tid, name)?);
        }
        sys::read_proc(file.as_ref().expect("it was opened above"))
    }

    /// This thread is no more.
    pub(super) fn forget(&self, tid: Tid) {
        self.0.borrow_mut().remove(&tid);
    }
}

/// What a thread is blocked in (`proc_pid_syscall(5)`).
struct Blocked {
    number: i64,
    arguments: Vec<u64>,
}

impl Blocked {
    fn of(tid: Tid) -> Option<Self> {
        let text = sys::read_proc(&sys::open_proc(tid, "syscall").ok()?).ok()?;
        let mut words = std::str::from_utf8(&text).ok()?.split_whitespace();
        let number = words.next()?.parse().ok()?;
        let hexadecimal =
            |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap_or(0);
        Some(Self {
            number,
            arguments: words.map(hexadecimal).collect(),
        })
    }

    fn file(&self, tid: Tid, argument: usize) -> Option<libc::statx> {
        file_of(tid, self.arguments.get(argument)? & 0xffff_ffff)
    }

    /// Which argument is the file it writes to.
    fn output(&self) -> Option<usize> {
        match self.number {
            libc::SYS_write
            | libc::SYS_writev
            | libc::SYS_pwritev2
            | libc::SYS_sendfile
            | libc::SYS_vmsplice => Some(0),
            libc::SYS_tee => Some(1),
            libc::SYS_splice => Some(2),
            _ => None,
        }
    }

    /// Which argument is the file it reads from.
    fn input(&self) -> Option<usize> {
        match self.number {
            libc::SYS_read
            | libc::SYS_readv
            | libc::SYS_preadv2
            | libc::SYS_recvfrom
            | libc::SYS_recvmsg
            | libc::SYS_splice => Some(0),
            _ => None,
        }
    }
}

/// What a descriptor of a thread is.
pub(super) fn file_of(tid: Tid, descriptor: u64) -> Option<libc::statx> {
    let link = std::ffi::CString::new(format!("/proc/{tid}/fd/{descriptor}")).ok()?;
    sys::statx(libc::AT_FDCWD, &link, 0).ok()
}

/// Is it what the step prints to?
fn is_our_output(file: &libc::statx) -> bool {
    [c"/proc/self/fd/1", c"/proc/self/fd/2"]
        .into_iter()
        .filter_map(|link| sys::statx(libc::AT_FDCWD, link, 0).ok())
        .any(|ours| {
            (ours.stx_dev_major, ours.stx_dev_minor, ours.stx_ino)
                == (file.stx_dev_major, file.stx_dev_minor, file.stx_ino)
        })
}
