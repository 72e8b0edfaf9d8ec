//! Threads that compute, while others wait for a time that does not come meanwhile.
//!
//! As a rule they come to their end, and how long that takes is the machine's affair. One that never does may be waiting
//! for what a timer does to it or to another. It is told by what it did since somebody first asked: it has computed for
//! long without a call that we see, or made more calls than any work takes. Both are measured in what it did itself, not
//! in time that passes: that is longer where others use the machine.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::run::{Tracer, state};
use super::spin::cpu_time;
use super::sys::Tid;
use super::waits::Due;

/// On the processor, without a call.
const COMPUTES: Duration = Duration::from_secs(15);
/// Stops, with calls.
const CALLS: u64 = 1_000_000;

/// What a thread had done when somebody looked.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Stops at the first look.
    first: u64,
    /// Stops at the last one, and its CPU time then.
    stops: u64,
    used: Duration,
}

/// The threads that were running while something was due.
#[derive(Debug, Default)]
pub(super) struct Busy(BTreeMap<Tid, Seen>);

impl Busy {
    /// Does a thread that has stopped so often and used so much go on without end?
    fn is_endless(&mut self, tid: Tid, stops: u64, used: Duration) -> bool {
        let seen = self.0.entry(tid).or_insert(Seen {
            first: stops,
            stops,
            used,
        });
        if seen.stops != stops {
            seen.stops = stops;
            seen.used = used;
        }
        used.saturating_sub(seen.used) >= COMPUTES || stops - seen.first >= CALLS
    }
}

impl Tracer {
    /// What is due on the machine's clock, too, while somebody computes without end.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<Due> {
        let over = self
            .deadlines()
            .filter(|(deadline, _)| deadline.is_over(now));
        let Some((deadline, due)) = over.min_by_key(|(deadline, due)| (deadline.at, *due)) else {
            self.busy.0.clear();
            return None;
        };
        if deadline.is_long_over(now) {
            return Some(due);
        }
        let mut endless = false;
        for (tid, thread) in &self.threads {
            if state(*tid) == Some(b'R') {
                endless |= self.busy.is_endless(*tid, thread.stops, cpu_time(*tid));
            }
        }
        endless.then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_computes_or_calls_for_long_goes_on_without_end() {
        let second = Duration::from_secs(1);
        let mut busy = Busy::default();
        assert!(!busy.is_endless(1, 7, second * 100));
        assert!(!busy.is_endless(1, 7, second * 114));
        // It has made a call.
        assert!(!busy.is_endless(1, 8, second * 116));
        assert!(!busy.is_endless(2, 0, second * 200));
        assert!(busy.is_endless(1, 8, second * 131));
        assert!(busy.is_endless(2, CALLS, second * 200));
    }
}
