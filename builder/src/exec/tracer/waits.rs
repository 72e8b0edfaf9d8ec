//! Everything that happens at a time: one queue of deadlines for a whole step.
//!
//! A wait with a timeout is made a wait for ever; its deadline stands here. When no thread of the step
//! can run any more, virtual time moves to the earliest deadline, for everybody, and whoever waits for it
//! goes on. So deadlines come in their order, and take no real time. A thread that computes without an
//! end does not keep timers from going off: they do when several times their real time is over, and it is known that it does
//! (`busy`).

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::clock::Time;
use super::sys::Tid;

/// A machine may be slow, and what a timeout guards takes no virtual time; only what computes without end runs
/// into this.
const PATIENCE: Duration = Duration::from_secs(20);
/// What nobody can explain is ended by this.
const LONG: Duration = Duration::from_secs(600);
/// Who waits no longer than this gives way to another thread, rather than waiting for a time to come.
const MOMENT: Time = 1_000_000;
/// On the machine's clock, so long a moment takes at most while another thread of the process runs.
const GIVES_WAY: Duration = Duration::from_millis(20);
/// A time that the machine cannot express is one that never comes.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// When something is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    /// On the virtual clock.
    pub(super) at: Time,
    /// At the latest, on the machine's clock.
    latest: Instant,
    /// For a moment: when it has given way.
    gave_way: Option<Instant>,
}

impl Deadline {
    /// One at `at`, for a process whose clock shows `now`.
    pub(super) fn new(at: Time, now: Time) -> Self {
        let span = at.saturating_sub(now);
        let left = u64::try_from(span).unwrap_or(0);
        let begun = Instant::now();
        Self {
            at,
            latest: begun + (PATIENCE + Duration::from_nanos(left) * 4).min(LONGEST),
            gave_way: (span <= MOMENT).then_some(begun + GIVES_WAY),
        }
    }

    /// Has whoever waits for a moment given way to others?
    pub(super) fn gave_way(&self, now: Instant) -> bool {
        self.gave_way.is_some_and(|until| now >= until)
    }

    /// Has its real time come?
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.latest
    }

    /// Has it come so long ago that something must be wrong?
    pub(super) fn is_long_over(&self, now: Instant) -> bool {
        now >= self.latest + LONG
    }
}

/// A timer that goes off, once or again and again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Alarm {
    pub(super) next: Option<Deadline>,
    pub(super) interval: Time,
}

impl Alarm {
    /// One that goes off at `at` and then every `interval`; 0 is never again.
    pub(super) fn new(at: Time, now: Time, interval: Time) -> Self {
        Self {
            next: Some(Deadline::new(at, now)),
            interval,
        }
    }

    /// It went off: the next time.
    pub(super) fn go_off(&mut self) {
        self.next = self
            .next
            .filter(|_| self.interval > 0)
            .map(|next| Deadline::new(next.at.saturating_add(self.interval), next.at));
    }

    /// What is left of the time, and the interval.
    pub(super) fn left(&self, now: Time) -> (Time, Time) {
        // One that is due but has not gone off yet is not unset.
        let left = self
            .next
            .map_or(0, |next| next.at.saturating_sub(now).max(1));
        (left, self.interval)
    }
}

/// A timer of `timer_create(2)`.
#[derive(Clone, Debug)]
pub(super) struct Timer {
    pub(super) clock: i32,
    /// None: nobody is told.
    pub(super) signal: Option<i32>,
    /// The thread that is told, where it is one.
    pub(super) thread: Option<Tid>,
    pub(super) value: u64,
    pub(super) alarm: Alarm,
    /// How often it went off while its signal was still waiting (`timer_getoverrun(2)`).
    pub(super) overrun: i32,
}

/// A timer of `timerfd_create(2)`.
#[derive(Debug)]
pub(super) struct TimerFile {
    /// The process that set it.
    pub(super) owner: Tid,
    pub(super) file: OwnedFd,
    pub(super) alarm: Alarm,
    /// How often it went off since somebody looked.
    pub(super) ticks: u64,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// A thread has waited long enough.
    Thread(Tid),
    /// The alarm of a process (alarm(2), setitimer(2)).
    Alarm(Tid),
    /// A timer of a process.
    Timer(Tid, i32),
    /// A timer file, by its place.
    File(usize),
}
