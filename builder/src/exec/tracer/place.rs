//! On which processor the tracer and the threads of a step run.
//!
//! A stop goes from a thread to the tracer and back. If they have a processor each, both ways wake one that sleeps, and that
//! costs several times what there is to do. So when a step stops often all its threads share one processor with the tracer. They
//! may all go where they like again as soon as several of them have something to do for a while, and now and then anyway,
//! because others may have come to that processor. It changes nothing that a step sees.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

use super::run::state;
use super::sys::Tid;

/// So many stops within a tick bring them together.
const OFTEN: u32 = 10;
/// How often it is looked at whether they should stay together.
const TICK: Duration = Duration::from_millis(10);
/// They stay together for so many ticks at the longest.
const LONGEST: u32 = 20;
/// At so many ticks in a row threads must be seen beside each other.
const SURE: u32 = 3;
/// Who was seen so has this long to go on.
const APART: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct Place {
    shared: Arc<Shared>,
    /// When the last stops were counted.
    window: Instant,
    stops: u32,
}

#[derive(Debug)]
struct Shared {
    tracer: Pid,
    /// Where they may run.
    all: Option<CpuSet>,
    serial: bool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    threads: BTreeSet<Tid>,
    /// The processor that they share.
    shared: Option<CpuSet>,
    ticks: u32,
    beside: u32,
    apart_until: Option<Instant>,
    /// They have shared one, so that a new thread may have been born to that.
    ever: bool,
    over: bool,
}

impl Place {
    /// Starts to watch, before there is any other process of the step: the thread that does has a number among theirs, on
    /// every machine the same. `serial`: never does more than one thread of the step run.
    pub(super) fn new(first: Tid, serial: bool) -> io::Result<Self> {
        let all = sched_getaffinity(None).ok().filter(|all| all.count() > 1);
        let state = State {
            threads: BTreeSet::from([first]),
            ..State::default()
        };
        let shared = Arc::new(Shared {
            tracer: rustix::thread::gettid(),
            all,
            serial,
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let watched = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("place".into())
            .spawn(move || watch(&watched))?;
        Ok(Self {
            shared,
            window: Instant::now(),
            stops: 0,
        })
    }

    pub(super) fn born(&self, tid: Tid) {
        let Some(all) = &self.shared.all else {
            return;
        };
        let mut state = self.shared.lock();
        state.threads.insert(tid);
        if state.ever {
            put(tid, state.shared.as_ref().unwrap_or(all));
        }
    }

    pub(super) fn gone(&self, tid: Tid) {
        self.shared.lock().threads.remove(&tid);
    }

    /// A thread has stopped.
    pub(super) fn stopped(&mut self) {
        if self.shared.all.is_none() {
            return;
        }
        self.stops += 1;
        if self.stops.is_multiple_of(OFTEN) {
            let now = Instant::now();
            let in_time = now.duration_since(self.window) <= TICK;
            self.window = now;
            if in_time {
                self.meet(now);
            }
        }
    }

    fn meet(&mut self, now: Instant) {
        let mut state = self.shared.lock();
        if state.shared.is_some() || state.apart_until.is_some_and(|until| now < until) {
            return;
        }
        state.meet(&self.shared);
        self.shared.changed.notify_all();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.part(&self.shared);
        state.over = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn meet(&mut self, shared: &Shared) {
        let mut here = CpuSet::new();
        here.set(sched_getcpu());
        self.put_all(shared, &here);
        self.shared = Some(here);
        self.ticks = 0;
        self.beside = 0;
        self.ever = true;
    }

    fn part(&mut self, shared: &Shared) {
        if self.shared.take().is_some()
            && let Some(all) = &shared.all
        {
            self.put_all(shared, all);
        }
    }

    /// Have several threads something to do?
    fn are_beside(&self) -> bool {
        let busy = |tid: &&Tid| matches!(state(**tid), Some(b'R' | b't'));
        self.threads.iter().filter(busy).nth(1).is_some()
    }

    fn put_all(&self, shared: &Shared, set: &CpuSet) {
        // Only how fast it is depends on it; a thread may have ended.
        let _ = sched_setaffinity(Some(shared.tracer), set);
        for tid in &self.threads {
            put(*tid, set);
        }
    }
}

fn put(tid: Tid, set: &CpuSet) {
    let _ = sched_setaffinity(Pid::from_raw(tid), set);
}

/// Takes them apart in time: a thread that stops no more cannot.
fn watch(shared: &Shared) {
    let mut state = shared.lock();
    while !state.over {
        if state.shared.is_none() {
            let woken = shared.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        let woken = shared.changed.wait_timeout(state, TICK);
        (state, _) = woken.unwrap_or_else(PoisonError::into_inner);
        state.ticks += 1;
        let beside = !shared.serial && state.are_beside();
        state.beside = if beside { state.beside + 1 } else { 0 };
        if state.beside >= SURE {
            state.apart_until = Some(Instant::now() + APART);
            state.part(shared);
        } else if state.ticks > LONGEST {
            state.part(shared);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stops_often_shares_a_processor_for_a_while() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .expect("a child");
        let tid = Tid::try_from(child.id()).expect("a pid");
        let all = sched_getaffinity(None).expect("a set");
        let of_child = || sched_getaffinity(Pid::from_raw(tid)).expect("a set");
        let mut place = Place::new(tid, false).expect("a thread");
        for _ in 0..2 * OFTEN {
            place.stopped();
        }
        let (shared, ours) = (of_child(), sched_getaffinity(None).expect("a set"));
        assert_eq!(shared, ours, "they are together");
        assert_eq!(shared.count(), 1);
        let parted = (0..1000).any(|_| {
            std::thread::sleep(TICK);
            of_child() == all && sched_getaffinity(None).is_ok_and(|ours| ours == all)
        });
        assert!(parted, "they may go where they like again");
        for _ in 0..2 * OFTEN {
            place.stopped();
        }
        assert_eq!(of_child().count(), 1, "they are together again");
        drop(place);
        assert_eq!((of_child(), sched_getaffinity(None).ok()), (all, Some(all)));
        child.kill().expect("it runs");
        child.wait().expect("it was killed");
    }
}
