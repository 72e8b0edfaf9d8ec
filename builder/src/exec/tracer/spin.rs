//! A thread that has the turn and goes round in a circle, waiting in memory for what only another can do.
//!
//! There is no way to take the turn from it at the same place each time, so it is an error. It is told from a
//! computation by its registers: whoever computes has others each time he is seen at the same place.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use super::arch::{Machine as _, Registers};
use super::run::Tracer;
use super::sys::{self, Tid};

/// A thread that computes without end while another that shares its memory could run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spin {
    /// Its process' number, as it knows it.
    pub process: i32,
    /// The name of the process.
    pub program: String,
    /// The thread's number, as it knows it.
    pub thread: i32,
    /// The thread's name.
    pub name: String,
    /// Where it is.
    pub instruction: u64,
    /// Who waits is of another process.
    pub between: bool,
}

impl fmt::Display for Spin {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            process,
            program,
            thread,
            name,
            instruction,
            between,
        } = self;
        let waiting = if *between {
            "a process that shares memory with it waits for its"
        } else {
            "another of its process waits for the"
        };
        write!(
            to,
            "in process {process} (`{program}`) thread {thread} (`{name}`) runs without end at {instruction:#x} while {waiting} turn"
        )
    }
}

/// A thread that has run for long without a stop.
#[derive(Debug)]
pub(super) struct Watch {
    since: Instant,
    /// Its CPU time then.
    used: Duration,
    samples: Vec<Sample>,
    next: Instant,
}

/// Where it was, and all that it held.
#[derive(Debug)]
struct Sample {
    registers: Registers,
    floats: Vec<u8>,
}

/// After so long it is looked at.
const PATIENCE: Duration = Duration::from_secs(4);
const EVERY: Duration = Duration::from_millis(200);
const SAMPLES: usize = 20;
/// Bytes of code that a loop without a call has at most.
const CIRCLE: u64 = 256;
/// So long a loop may count.
const LONGEST: Duration = Duration::from_secs(300);

impl Tracer {
    /// Looks whether the thread with the turn, which runs, waits in vain.
    pub(super) fn watch(&mut self, holder: Tid) -> io::Result<Option<Spin>> {
        let now = Instant::now();
        let turns = self.turns();
        let Some(watch) = &mut turns.watch else {
            turns.watch = Some(Watch {
                since: now,
                used: cpu_time(holder),
                samples: Vec::new(),
                next: now + PATIENCE,
            });
            return Ok(None);
        };
        if now < watch.next || cpu_time(holder).saturating_sub(watch.used) < PATIENCE / 2 {
            return Ok(None);
        }
        if watch.samples.len() < SAMPLES {
            watch.next = now + EVERY;
            sys::interrupt(holder)?;
            return Ok(None);
        }
        let samples = std::mem::take(&mut watch.samples);
        let long = cpu_time(holder).saturating_sub(watch.used) > LONGEST;
        // It does something: give it as long again.
        watch.next = now + (now - watch.since).max(PATIENCE);
        let Some(circle) = circle(&samples).filter(|circle| circle.is_idle || long) else {
            return Ok(None);
        };
        let Some(between) = self.in_vain(holder) else {
            return Ok(None);
        };
        let process = self.threads[&holder].process;
        Ok(Some(Spin {
            process,
            program: name(process),
            thread: holder,
            name: name(holder),
            instruction: circle.start,
            between,
        }))
    }

    /// The thread with the turn was stopped only to look at it.
    pub(super) fn sample(&mut self, tid: Tid) {
        let (Ok(registers), Ok(floats)) = (sys::registers(tid), sys::float_registers(tid)) else {
            return;
        };
        if let Some(watch) = &mut self.turns().watch {
            watch.samples.push(Sample { registers, floats });
        }
    }

    /// Whether somebody who could change its memory waits, for the turn or for a time that does not come while
    /// this one runs: and whether that is another process.
    fn in_vain(&self, holder: Tid) -> Option<bool> {
        let process = self.threads.get(&holder)?.process;
        let turns = self.turns.as_ref()?;
        let waiting: BTreeSet<Tid> = self
            .threads
            .iter()
            .filter(|(tid, thread)| {
                **tid != holder && (turns.is_stopped(**tid) || thread.waiting.is_some())
            })
            .map(|(_, thread)| thread.process)
            .collect();
        if waiting.contains(&process) {
            return Some(false);
        }
        let own = shared_memory(process);
        waiting
            .iter()
            .any(|other| !own.is_disjoint(&shared_memory(*other)))
            .then_some(true)
    }
}

/// A loop that a thread was seen in.
#[derive(Debug, PartialEq, Eq)]
struct Circle {
    start: u64,
    /// It does nothing but look.
    is_idle: bool,
}

fn circle(samples: &[Sample]) -> Option<Circle> {
    let places = || samples.iter().map(|sample| sample.registers.instruction());
    let (start, end) = (places().min()?, places().max()?);
    let mut seen: BTreeMap<u64, &Sample> = BTreeMap::new();
    let mut again = 0;
    let mut changes = false;
    for sample in samples {
        let place = sample.registers.instruction();
        if let Some(before) = seen.insert(place, sample) {
            again += 1;
            changes |= before.registers != sample.registers || before.floats != sample.floats;
        }
    }
    (end - start <= CIRCLE).then_some(Circle {
        start,
        is_idle: !changes && again * 4 >= samples.len(),
    })
}

/// Device and number of what a process has in memory together with others (`proc_pid_maps(5)`).
fn shared_memory(process: Tid) -> BTreeSet<(String, String)> {
    let text = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace().skip(1);
            let (rights, _offset) = (words.next()?, words.next()?);
            let place = (words.next()?.to_owned(), words.next()?.to_owned());
            rights.ends_with('s').then_some(place)
        })
        .collect()
}

fn name(tid: Tid) -> String {
    let name = std::fs::read_to_string(format!("/proc/{tid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// The CPU time of a thread, in the precision of its scheduler statistics.
pub(super) fn cpu_time(tid: Tid) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{tid}/schedstat")).unwrap_or_default();
    let first = text.split_whitespace().next();
    Duration::from_nanos(first.and_then(|text| text.parse().ok()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples from one place each, with what one register held.
    fn samples(held: impl Iterator<Item = (u64, i64)>) -> Vec<Sample> {
        held.map(|(at, held)| {
            let mut registers = Registers::default();
            registers.set_result(held);
            registers.set_instruction(0x4000 + at);
            Sample {
                registers,
                floats: Vec::new(),
            }
        })
        .collect()
    }

    #[test]
    fn who_holds_the_same_at_the_same_place_only_looks() {
        let looks = samples((0..20).map(|at| (at % 3 * 2, 0)));
        assert_eq!(
            circle(&looks),
            Some(Circle {
                start: 0x4000,
                is_idle: true
            })
        );
    }

    #[test]
    fn who_counts_or_goes_far_computes() {
        let counts = samples((0..20).map(|at| (at % 3 * 2, i64::try_from(at).unwrap())));
        assert_eq!(circle(&counts).map(|circle| circle.is_idle), Some(false));
        let wanders = samples((0..20).map(|at| (at * 2, 0)));
        assert_eq!(circle(&wanders).map(|circle| circle.is_idle), Some(false));
        let far = samples((0..20).map(|at| (at % 2 * 4096, 0)));
        assert_eq!(circle(&far), None);
    }
}
