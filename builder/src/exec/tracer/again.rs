//! What a thread that was woken finds, as it is when it gets the turn.
//!
//! A thread that waits for one of several things goes on when the first has come, beside the one that made it come:
//! whether it sees the second, too, is chance. So it looks again when it has the turn, and waits on if there is nothing
//! any more.
//!
//! One call of a program becomes several for that: here is how a thread makes another before the program goes on.

use std::io;

use super::arch::{Machine as _, Registers};
use super::open::scratch;
use super::run::{Pending, Tracer, Waiting};
use super::sys::{self, Tid};

/// A call that a thread makes before its program goes on.
#[derive(Debug)]
pub(super) struct Again {
    number: i64,
    /// As it makes it.
    registers: Registers,
    /// What is in [`scratch`], if an argument points there.
    beside: [u8; 16],
    /// What is to be done at its end.
    then: Pending,
    /// What the thread knows of it; the signal's handler makes others.
    waiting: Option<Waiting>,
    sets: Sets,
}

/// A look at what there is.
#[derive(Debug)]
pub(super) struct Look {
    /// What its own call is about.
    own: Pending,
    /// At the end of its own call.
    ended: Registers,
    /// A signal came first, which its own call has not been ended by.
    signalled: bool,
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

    /// What to make of a call that has ended; nothing yet, when the thread makes another.
    pub(super) fn look_again(
        &mut self,
        tid: Tid,
        pending: Pending,
        registers: Registers,
    ) -> io::Result<Option<(Pending, Registers)>> {
        let pending = match pending {
            Pending::Look(look) => return self.found(tid, *look, &registers),
            Pending::Pieces(pieces) => return self.sent_a_piece(tid, *pieces, &registers),
            Pending::Arrival(asked) => return self.arrived(tid, *asked, &registers),
            other => other,
        };
        let slept = std::mem::take(&mut self.thread(tid).slept);
        let waited = matches!(pending, Pending::Blocked | Pending::Wait(_));
        if !slept || !waited || registers.result() <= 0 {
            return Ok(Some((pending, registers)));
        }
        let [a, b, c, d, ..] = registers.arguments();
        let no_time = scratch(&registers);
        let number = registers.number();
        let call = match number {
            POLL => [a, b, 0, 0, 0, 0],
            libc::SYS_ppoll => [a, b, no_time, 0, 0, 0],
            SELECT | libc::SYS_pselect6 => [a, b, c, d, no_time, 0],
            _ => return Ok(Some((pending, registers))),
        };
        let look = Look {
            own: pending,
            ended: registers.clone(),
            signalled: has_signal(tid),
        };
        self.restore_sets(tid)?;
        self.make_next(
            tid,
            &registers,
            (number, call),
            [0; 16],
            Pending::Look(Box::new(look)),
        )?;
        Ok(None)
    }

    fn found(
        &mut self,
        tid: Tid,
        look: Look,
        registers: &Registers,
    ) -> io::Result<Option<(Pending, Registers)>> {
        let Look {
            own,
            mut ended,
            signalled,
        } = look;
        let result = registers.result();
        if result == 0 && !signalled {
            // Another was faster.
            self.restore_sets(tid)?;
            let call = (ended.number(), ended.arguments());
            self.make_next(tid, &ended, call, [0; 16], own)?;
            return Ok(None);
        }
        if result != 0 {
            ended.set_result(result);
        }
        sys::set_registers(tid, &ended)?;
        Ok(Some((own, ended)))
    }

    /// The thread, whose call has ended with `ended`, makes this call next.
    pub(super) fn make_next(
        &mut self,
        tid: Tid,
        ended: &Registers,
        (number, arguments): (i64, [u64; 6]),
        beside: [u8; 16],
        then: Pending,
    ) -> io::Result<()> {
        /// Handlers within handlers; calls of those that were left by a jump are never made.
        const MOST: usize = 16;
        let mut registers = ended.clone();
        registers.call_again(number, &arguments);
        sys::set_registers(tid, &registers)?;
        let thread = self.thread(tid);
        if thread.again.len() == MOST {
            thread.again.remove(0);
        }
        thread.again.push(Again {
            number,
            registers,
            beside,
            then,
            waiting: thread.waiting.take(),
            sets: std::mem::take(&mut thread.sets),
        });
        Ok(())
    }

    /// If the call that a thread is about to make is one of [`Tracer::make_next`]: what is to be done at its end. The
    /// handler of a signal may make others before.
    pub(super) fn made_again(
        &mut self,
        tid: Tid,
        registers: &Registers,
    ) -> io::Result<Option<Pending>> {
        let is_the_same = |again: &Again| {
            registers.stack() == again.registers.stack()
                && registers.instruction() == again.registers.instruction_after_call()
                && registers.number() == again.number
                && registers.arguments() == again.registers.arguments()
        };
        let thread = self.thread(tid);
        let Some(at) = thread.again.iter().rposition(is_the_same) else {
            return Ok(None);
        };
        // Those after it are of handlers that have gone elsewhere.
        thread.again.truncate(at + 1);
        let again = thread.again.pop().expect("it was found at this place");
        thread.waiting = again.waiting;
        thread.sets = again.sets;
        let beside = scratch(registers);
        if registers.arguments().contains(&beside) {
            // Only now: a handler has written to where this is.
            sys::write_memory(tid, beside, &again.beside)?;
        }
        Ok(Some(again.then))
    }

    fn restore_sets(&mut self, tid: Tid) -> io::Result<()> {
        for (at, set) in &self.thread(tid).sets {
            sys::write_memory(tid, *at, set)?;
        }
        Ok(())
    }
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
