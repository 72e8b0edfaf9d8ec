//! A process' clock: it starts at the epoch and moves when it is read, when its process waits, and when
//! it learns of a later time. Nothing else moves it. Reading moves it only where it is known who reads first: in a process
//! with one thread, or where one thread runs at a time.

/// Nanoseconds since 1970, on the virtual clock.
pub(super) type Time = i64;

/// Nanoseconds in a second.
pub(super) const SECOND: i64 = 1_000_000_000;
const MICROSECOND: i64 = 1000;

/// What monotonic clocks show at the start: some programs take 0 for "never".
pub(super) const UPTIME: i64 = 10 * SECOND;

/// A clock of one process.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    start: Time,
    now: Time,
    used: Time,
    /// How often it was read without anything else that we see.
    streak: i64,
}

impl Clock {
    /// One that shows `epoch`, in seconds.
    pub(super) fn starting_at(epoch: i64) -> Self {
        let start = epoch.saturating_mul(SECOND);
        Self {
            start,
            now: start,
            used: 0,
            streak: 0,
        }
    }

    /// The clock of a new process.
    #[must_use]
    pub(super) fn of_child(&self) -> Self {
        Self {
            used: 0,
            streak: 0,
            ..self.clone()
        }
    }

    /// Reading takes time, too: a microsecond, and more the longer a process does nothing but look at the
    /// clock, so that a loop that waits for a second ends.
    pub(super) fn read(&mut self) -> Time {
        const PATIENCE: i64 = 256;
        self.streak += 1;
        self.advance(MICROSECOND + MICROSECOND * self.streak / PATIENCE);
        self.now
    }

    /// One of several threads reads it. How many others came before is chance, so reading takes no time, until it can only
    /// be that the thread waits for a time to come.
    pub(super) fn read_among_threads(&mut self, asking: &Asking) -> Time {
        const STEEPNESS: i64 = 256;
        self.advance(MICROSECOND * asking.impatience() / STEEPNESS);
        self.now
    }

    /// The time of a change: later than any before in this process.
    pub(super) fn tick(&mut self) -> Time {
        self.advance(MICROSECOND);
        self.now
    }

    /// A thread was woken by the time that has come. Where looking at the clock takes no time, waking does: who looks then
    /// finds it later than what was waited for, also where two clocks were looked at one after the other to say until when.
    pub(super) fn wakes(&mut self) {
        self.advance(10 * MICROSECOND);
    }

    fn advance(&mut self, by: Time) {
        self.now = self.now.saturating_add(by);
        self.used = self.used.saturating_add(by);
    }

    /// The process did something else than reading its clock.
    pub(super) fn rest(&mut self) {
        self.streak = 0;
    }

    /// What it shows, unmoved.
    pub(super) fn now(&self) -> Time {
        self.now
    }

    /// It learns that it is at least as late as this.
    pub(super) fn learn(&mut self, time: Time) {
        self.now = self.now.max(time);
    }

    /// How long its process ran, as far as that moved the clock.
    pub(super) fn used(&self) -> Time {
        self.used
    }

    /// What the clock of this number (`clock_gettime(2)`) shows when this one shows `now`; `None` for a
    /// number without a clock.
    pub(super) fn show(&self, clock: i32, now: Time) -> Option<Time> {
        match kind(clock)? {
            Kind::Real => Some(now),
            Kind::Monotonic => Some(now - self.start + UPTIME),
            Kind::Used => Some(self.used),
        }
    }

    /// When this one shows what is `time` on the other.
    pub(super) fn when(&self, clock: i32, time: Time) -> Option<Time> {
        match kind(clock)? {
            Kind::Real => Some(time),
            Kind::Monotonic => Some(time.saturating_sub(UPTIME).saturating_add(self.start)),
            Kind::Used => Some(time.saturating_sub(self.used).saturating_add(self.now)),
        }
    }
}

/// How one of several threads asks for the time. Depends on what it does itself, and on nothing else.
#[derive(Clone, Debug, Default)]
pub(super) struct Asking {
    /// Where its stack was when it asked last.
    stack: u64,
    /// How often it asked from there, one time after the other.
    here: i64,
    /// How often it asked since it last waited.
    all: i64,
}

impl Asking {
    /// A loop that does nothing else looks from one place.
    const HERE: i64 = 1 << 13;
    /// A virtual machine that measures all it does reads the clock a hundred thousand times.
    const ALL: i64 = 1 << 18;
    /// How many questions a look at what would end a wait counts for.
    const LOOK: i64 = 1 << 10;

    /// It asks, and its stack is here.
    pub(super) fn asks(&mut self, stack: u64) {
        self.here = if self.stack == stack {
            self.here + 1
        } else {
            1
        };
        self.stack = stack;
        self.all += 1;
    }

    /// It looks whether a wait would end at once: in between it asks whether it is time.
    pub(super) fn looks(&mut self) {
        self.all += Self::LOOK;
    }

    /// It waits.
    pub(super) fn waits(&mut self) {
        *self = Self::default();
    }

    fn impatience(&self) -> i64 {
        (self.here - Self::HERE).max(0) + (self.all - Self::ALL).max(0)
    }
}

enum Kind {
    Real,
    Monotonic,
    Used,
}

fn kind(clock: i32) -> Option<Kind> {
    Some(match clock {
        libc::CLOCK_REALTIME
        | libc::CLOCK_REALTIME_COARSE
        | libc::CLOCK_REALTIME_ALARM
        | libc::CLOCK_TAI => Kind::Real,
        libc::CLOCK_MONOTONIC
        | libc::CLOCK_MONOTONIC_RAW
        | libc::CLOCK_MONOTONIC_COARSE
        | libc::CLOCK_BOOTTIME
        | libc::CLOCK_BOOTTIME_ALARM => Kind::Monotonic,
        // Negative: the clocks of processes and threads (clock_getcpuclockid(3)).
        libc::CLOCK_PROCESS_CPUTIME_ID | libc::CLOCK_THREAD_CPUTIME_ID | ..0 => Kind::Used,
        _ => return None,
    })
}

/// `struct timespec`.
pub(super) fn to_timespec(time: Time) -> [u8; 16] {
    pair(time.div_euclid(SECOND), time.rem_euclid(SECOND))
}

/// `struct timeval`.
pub(super) fn to_timeval(time: Time) -> [u8; 16] {
    pair(
        time.div_euclid(SECOND),
        time.rem_euclid(SECOND) / MICROSECOND,
    )
}

fn pair(first: i64, second: i64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&first.to_ne_bytes());
    bytes[8..].copy_from_slice(&second.to_ne_bytes());
    bytes
}

/// Two words as a time; `None` where the kernel says `EINVAL`.
pub(super) fn from_pair(bytes: [u8; 16], unit: i64) -> Option<Time> {
    let word = |at: usize| i64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let (seconds, part) = (word(0), word(8));
    (seconds >= 0 && (0..SECOND / unit).contains(&part)).then(|| {
        seconds
            .saturating_mul(SECOND)
            .saturating_add(part.saturating_mul(unit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_waits_for_a_second_ends() {
        let mut clock = Clock::starting_at(0);
        let reads = (0..100_000).take_while(|_| clock.read() < SECOND).count();
        assert!((10_000..50_000).contains(&reads), "{reads} reads");
    }

    /// How often a thread asks until a second is over, when `asks` is how it does.
    fn asks_in_a_second(mut asks: impl FnMut(&mut Asking, u64)) -> u64 {
        let (mut clock, mut asking) = (Clock::starting_at(0), Asking::default());
        let mut count = 0;
        while clock.read_among_threads(&asking) < SECOND {
            asks(&mut asking, count);
            count += 1;
        }
        count
    }

    #[test]
    fn among_threads_only_who_waits_for_a_time_moves_it() {
        let in_a_loop = asks_in_a_second(|asking, _| asking.asks(7));
        assert!((10_000..50_000).contains(&in_a_loop), "{in_a_loop}");
        let here_and_there = asks_in_a_second(|asking, count| asking.asks(count % 2));
        assert!(
            (262_144..300_000).contains(&here_and_there),
            "{here_and_there}"
        );
        let with_a_look = asks_in_a_second(|asking, count| {
            asking.asks(count % 2);
            asking.looks();
        });
        assert!((256..2000).contains(&with_a_look), "{with_a_look}");
        let (mut clock, mut asking) = (Clock::starting_at(0), Asking::default());
        for _ in 0..100 {
            (0..8000).for_each(|_| asking.asks(7));
            assert_eq!(clock.read_among_threads(&asking), 0);
            asking.waits();
        }
    }

    #[test]
    fn clocks_show_the_same_moment() {
        let mut clock = Clock::starting_at(1_600_000_000);
        let now = clock.read();
        assert_eq!(now, 1_600_000_000 * SECOND + 1003);
        let uptime = clock.show(libc::CLOCK_MONOTONIC, now).expect("a clock");
        assert_eq!(uptime, UPTIME + 1003);
        assert_eq!(clock.when(libc::CLOCK_MONOTONIC, uptime), Some(now));
        assert_eq!(clock.show(99, now), None);
    }

    #[test]
    fn times_are_taken_as_the_kernel_takes_them() {
        assert_eq!(from_pair(to_timespec(5), 1), Some(5));
        assert_eq!(from_pair(to_timeval(5000), 1000), Some(5000));
        assert_eq!(from_pair(pair(0, SECOND), 1), None);
        assert_eq!(from_pair(pair(-1, 0), 1), None);
    }
}
