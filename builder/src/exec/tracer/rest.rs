//! Whether threads are at rest: stopped, or asleep in the kernel.
//!
//! Threads cannot all be looked at in one moment, and one that sleeps may be woken by another that is looked at
//! later. So each is looked at twice: who was off its processor the first time, sleeps the second time, and has
//! not run in between slept at every moment between the two, and that moment is one for all.

use std::collections::BTreeMap;

use super::run::{Tracer, state, switches};
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
        match state(tid) {
            None | Some(b'Z' | b'X') => Motion::Ended,
            Some(b'S' | b'T' | b'I') => Motion::Sleeps,
            Some(b't') if thread.is_some_and(|thread| thread.is_halted) => Motion::Sleeps,
            // vfork(2) waits without being interruptible.
            Some(b'D') if thread.is_some_and(|thread| thread.in_vfork) => Motion::Sleeps,
            Some(_) => Motion::Moves,
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
        let Some(output) = call.output().and_then(|argument| call.file(tid, argument)) else {
            return false;
        };
        [c"/proc/self/fd/1", c"/proc/self/fd/2"]
            .into_iter()
            .filter_map(|link| sys::statx(libc::AT_FDCWD, link, 0).ok())
            .any(|ours| {
                (ours.stx_dev_major, ours.stx_dev_minor, ours.stx_ino)
                    == (output.stx_dev_major, output.stx_dev_minor, output.stx_ino)
            })
    }

    /// Are all threads at rest? `doubt`: those that had stopped may have been killed since.
    pub(super) fn all_rest(&self, turns: &Turns, doubt: bool) -> bool {
        let mut asleep = Vec::new();
        for tid in self.threads.keys().copied() {
            if turns.is_stopped(tid) {
                if doubt && !matches!(state(tid), None | Some(b't' | b'Z' | b'X')) {
                    return false;
                }
                continue;
            }
            match self.motion(tid) {
                Motion::Moves => return false,
                Motion::Sleeps => asleep.push(tid),
                Motion::Ended => {}
            }
        }
        let mut before = BTreeMap::new();
        for tid in &asleep {
            let runs = runs(*tid);
            if is_on_processor(*tid) {
                return false;
            }
            before.insert(*tid, runs);
        }
        before
            .iter()
            .all(|(tid, before)| self.motion(*tid) == Motion::Sleeps && runs(*tid) == *before)
    }
}

/// What a thread is blocked in (`proc_pid_syscall(5)`).
struct Blocked {
    number: i64,
    arguments: Vec<u64>,
}

impl Blocked {
    fn of(tid: Tid) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{tid}/syscall")).ok()?;
        let mut words = text.split_whitespace();
        let number = words.next()?.parse().ok()?;
        let hexadecimal =
            |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap_or(0);
        Some(Self {
            number,
            arguments: words.map(hexadecimal).collect(),
        })
    }

    fn file(&self, tid: Tid, argument: usize) -> Option<libc::statx> {
        let descriptor = self.arguments.get(argument)? & 0xffff_ffff;
        let link = std::ffi::CString::new(format!("/proc/{tid}/fd/{descriptor}")).ok()?;
        sys::statx(libc::AT_FDCWD, &link, 0).ok()
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

/// How often a thread came to a processor.
fn runs(tid: Tid) -> String {
    // The third number, where the kernel counts.
    let text = std::fs::read_to_string(format!("/proc/{tid}/schedstat")).unwrap_or_default();
    match text.split_whitespace().nth(2) {
        Some(count) if count != "0" => count.to_owned(),
        _ => switches(tid),
    }
}

/// A thread says that it sleeps a moment before it does, and may still find that it need not: the kernel waits
/// until it has left its processor before it tells its call (`proc_pid_syscall(5)`).
fn is_on_processor(tid: Tid) -> bool {
    match std::fs::read(format!("/proc/{tid}/syscall")) {
        Ok(text) => text.starts_with(b"running"),
        Err(error) => error.raw_os_error() == Some(libc::EAGAIN),
    }
}
