//! What a thread that was woken finds, as it is when it gets the turn.
//!
//! A thread that waits for one of several things goes on when the first has come, beside the one that made it come:
//! whether it sees the second, too, is chance. So it looks again when it has the turn, and waits on if there is
//! nothing any more. In the same way a thread that reads from a stream takes what has come meanwhile.

use std::io;

use super::arch::{Machine as _, Registers};
use super::open::scratch;
use super::run::{Pending, Tracer, Waiting};
use super::sys::{self, Tid};

/// What a thread does between the end of its own call and what is made of that.
#[derive(Debug)]
pub(super) struct Again {
    first: Pending,
    /// At the end of its own call.
    ended: Registers,
    /// As it makes the next.
    call: Registers,
    then: Then,
    /// A signal came first, which its own call has not been ended by.
    signalled: bool,
    /// What the thread knows of its call; the signal's handler makes others.
    waiting: Option<Waiting>,
    sets: Sets,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// What it finds now is the answer.
    Look,
    /// What it finds now comes on top.
    Take,
    /// It makes its own call again.
    Wait,
}

/// Sets of descriptors that select(2) writes to: where they are, and what was in them.
pub(super) type Sets = Vec<(u64, Vec<u8>)>;

#[cfg(target_arch = "x86_64")]
const POLL: i64 = libc::SYS_poll;
#[cfg(not(target_arch = "x86_64"))]
const POLL: i64 = -2;
#[cfg(target_arch = "x86_64")]
pub(super) const SELECT: i64 = libc::SYS_select;
#[cfg(not(target_arch = "x86_64"))]
pub(super) const SELECT: i64 = -2;

impl Tracer {
    /// Keeps what select(2) asks for.
    pub(super) fn keep_sets(&mut self, tid: Tid, registers: &Registers) -> io::Result<()> {
        if self.turns.is_none() || ![SELECT, libc::SYS_pselect6].contains(&registers.number()) {
            return Ok(());
        }
        let mut sets = Sets::new();
        for at in (1..4)
            .map(|at| registers.argument(at))
            .filter(|at| *at != 0)
        {
            let mut set = vec![0; super::time::set_bytes(registers)];
            sys::read_memory(tid, at, &mut set)?;
            sets.push((at, set));
        }
        self.thread(tid).sets = sets;
        Ok(())
    }

    /// What to make of a call that has ended; nothing yet, when the thread looks again.
    pub(super) fn look_again(
        &mut self,
        tid: Tid,
        pending: Pending,
        registers: Registers,
    ) -> io::Result<Option<(Pending, Registers)>> {
        if let Pending::Again(again) = pending {
            return self.found(tid, *again, &registers);
        }
        let slept = std::mem::take(&mut self.thread(tid).slept);
        let waited = matches!(pending, Pending::Blocked | Pending::Wait(_));
        if !slept || !waited || registers.result() <= 0 {
            return Ok(Some((pending, registers)));
        }
        let arguments: [u64; 6] = std::array::from_fn(|at| registers.argument(at));
        let [a, b, c, d, ..] = arguments;
        let no_time = scratch(&registers);
        let number = registers.number();
        let (call, then) = match number {
            POLL => ([a, b, 0, 0, 0, 0], Then::Look),
            libc::SYS_ppoll => ([a, b, no_time, 0, 0, 0], Then::Look),
            SELECT | libc::SYS_pselect6 => ([a, b, c, d, no_time, 0], Then::Look),
            libc::SYS_read | libc::SYS_recvfrom => {
                let flags = if number == libc::SYS_read { 0 } else { d };
                let got = registers.result().cast_unsigned();
                if got >= c || !self.is_stream(tid, flags, a) {
                    return Ok(Some((pending, registers)));
                }
                let flags = flags | u64::from(libc::MSG_DONTWAIT.unsigned_abs());
                ([a, b + got, c - got, flags, 0, 0], Then::Take)
            }
            _ => return Ok(Some((pending, registers))),
        };
        self.restore_sets(tid)?;
        let number = match then {
            Then::Take => libc::SYS_recvfrom,
            _ => number,
        };
        let call = call_instead(tid, &registers, number, &call)?;
        let thread = self.thread(tid);
        let again = Again {
            first: pending,
            call,
            ended: registers,
            then,
            signalled: has_signal(tid),
            waiting: thread.waiting.take(),
            sets: std::mem::take(&mut thread.sets),
        };
        thread.again = Some(Box::new(again));
        Ok(None)
    }

    fn found(
        &mut self,
        tid: Tid,
        again: Again,
        registers: &Registers,
    ) -> io::Result<Option<(Pending, Registers)>> {
        let Again {
            first,
            mut ended,
            then,
            signalled,
            ..
        } = again;
        let result = registers.result();
        if then == Then::Look && result == 0 && !signalled {
            // Another was faster.
            self.restore_sets(tid)?;
            let arguments: [u64; 6] = std::array::from_fn(|at| ended.argument(at));
            let call = call_instead(tid, &ended, ended.number(), &arguments)?;
            let thread = self.thread(tid);
            let again = Again {
                first,
                call,
                ended,
                then: Then::Wait,
                signalled: false,
                waiting: thread.waiting.take(),
                sets: std::mem::take(&mut thread.sets),
            };
            thread.again = Some(Box::new(again));
            return Ok(None);
        }
        match then {
            Then::Look if result != 0 => ended.set_result(result),
            Then::Take => ended.set_result(ended.result() + result.max(0)),
            Then::Look | Then::Wait => {}
        }
        sys::set_registers(tid, &ended)?;
        Ok(Some((first, ended)))
    }

    /// If the call that a thread is about to make is the one that [`Tracer::look_again`] lets it make: what is to be
    /// done at its end. The handler of a signal may make others before.
    pub(super) fn made_again(
        &mut self,
        tid: Tid,
        registers: &Registers,
    ) -> io::Result<Option<Pending>> {
        let thread = self.thread(tid);
        let Some(Again { call, .. }) = thread.again.as_deref() else {
            return Ok(None);
        };
        let is_the_same = registers.stack() == call.stack()
            && registers.instruction() == call.instruction_after_call()
            && (0..6).all(|at| registers.argument(at) == call.argument(at));
        if is_the_same {
            // Only now: the handler of a signal has written to where this is.
            let no_time = scratch(registers);
            if (0..6).any(|at| registers.argument(at) == no_time) {
                sys::write_memory(tid, no_time, &[0; 16])?;
            }
            let Some(mut again) = thread.again.take() else {
                return Ok(None);
            };
            thread.waiting = again.waiting.take();
            thread.sets = std::mem::take(&mut again.sets);
            return Ok(Some(match again.then {
                Then::Wait => again.first,
                Then::Look | Then::Take => Pending::Again(again),
            }));
        }
        if registers.stack() > call.stack() {
            // The handler has gone elsewhere.
            thread.again = None;
        }
        Ok(None)
    }

    fn restore_sets(&mut self, tid: Tid) -> io::Result<()> {
        for (at, set) in &self.thread(tid).sets {
            sys::write_memory(tid, *at, set)?;
        }
        Ok(())
    }

    /// Does the call read from a stream of bytes that its writer fills in pieces?
    fn is_stream(&mut self, tid: Tid, flags: u64, descriptor: u64) -> bool {
        let peeks = u64::from((libc::MSG_PEEK | libc::MSG_OOB | libc::MSG_TRUNC).unsigned_abs());
        let Ok(descriptor) = i32::try_from(descriptor & 0xffff_ffff) else {
            return false;
        };
        if flags & peeks != 0 {
            return false;
        }
        self.descriptor(tid, descriptor)
            .is_ok_and(|file| sys::is_stream_socket(&file))
    }
}

/// The thread makes this call next; gives its registers.
fn call_instead(
    tid: Tid,
    registers: &Registers,
    number: i64,
    arguments: &[u64; 6],
) -> io::Result<Registers> {
    let mut registers = registers.clone();
    registers.call_again(number, arguments);
    sys::set_registers(tid, &registers)?;
    Ok(registers)
}

/// Is there a signal for it? Then its handler comes first.
fn has_signal(tid: Tid) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    let mask = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .unwrap_or(0)
    };
    (mask("SigPnd:") | mask("ShdPnd:")) & !mask("SigBlk:") != 0
}
