//! Waits and timers: what is asked of the kernel's time is put into the queue of virtual time instead.

use std::io;

use super::answer::error;
use super::arch::{Machine as _, Registers};
use super::call::{Call, Span, Timeout, Wait};
use super::clock::{SECOND, Time, to_timespec, to_timeval};
use super::run::{Answer, Pending, Tracer, Waiting, read_span};
use super::sys::{self, Resume, Tid};
use super::waits::{Alarm, Deadline, Timer, TimerFile};

/// Results of a call that a signal ended, and that the kernel may make again (linux/errno.h).
pub(super) const RESTARTS: std::ops::RangeInclusive<i64> = -516..=-512;
/// Made again, unless a handler runs that does not want it (`SA_RESTART`).
pub(super) const RESTART: i64 = -512;
/// Made again unless a handler runs.
const RESTART_NO_HANDLER: i64 = -514;

#[cfg(target_arch = "x86_64")]
const SELECTS: [i64; 2] = [libc::SYS_select, libc::SYS_pselect6];
#[cfg(not(target_arch = "x86_64"))]
const SELECTS: [i64; 1] = [libc::SYS_pselect6];

impl Tracer {
    pub(super) fn timer_answer(
        &mut self,
        tid: Tid,
        call: Call,
        registers: &mut Registers,
    ) -> io::Result<Answer> {
        match call {
            Call::Sleep {
                clock,
                absolute,
                request,
                remain,
            } => {
                let timeout = Span::Nano(request);
                let wait = Wait {
                    timeout: if absolute {
                        Timeout::Absolute(timeout)
                    } else {
                        Timeout::Relative(timeout)
                    },
                    clock,
                    endless: (0, 0),
                    expired: 0,
                    left: (!absolute && remain != 0).then_some(Span::Nano(remain)),
                };
                self.wait(tid, wait, true, registers)
            }
            Call::Wait(wait) => self.wait(tid, wait, false, registers),
            Call::Alarm { seconds } => {
                let process = self.process(tid);
                let now = process.clock.now();
                let (left, _) = process.alarm.left(now);
                let span = seconds.cast_signed() * SECOND;
                process.alarm = if seconds == 0 {
                    Alarm::default()
                } else {
                    Alarm::new(now + span, now, 0)
                };
                Ok(Answer::Gives((left + SECOND - 1) / SECOND))
            }
            Call::SetItimer { which, new, old } => self.set_itimer(tid, which, new, old),
            Call::GetItimer { which, to } => match self.itimer(tid, which) {
                Some(value) => {
                    sys::write_memory(tid, to, &itimer(value, to_timeval))?;
                    Ok(Answer::Gives(0))
                }
                None => Ok(error(libc::EINVAL)),
            },
            Call::TimerfdSettime {
                descriptor,
                flags,
                new,
                old,
            } => self.set_timer_file(tid, descriptor, flags, new, old),
            Call::TimerfdGettime { descriptor, to } => {
                let Some(at) = self.timer_file(tid, descriptor) else {
                    return Ok(Answer::Native);
                };
                let now = self.process(tid).clock.now();
                let value = self.timer_files[at].alarm.left(now);
                sys::write_memory(tid, to, &itimer(value, to_timespec))?;
                Ok(Answer::Gives(0))
            }
            call => self.posix_timer(tid, call),
        }
    }

    /// A call that waits for at most some time is made one that waits for ever.
    fn wait(
        &mut self,
        tid: Tid,
        call: Wait,
        sleep: bool,
        registers: &mut Registers,
    ) -> io::Result<Answer> {
        self.keep_sets(tid, registers)?;
        let clock = &self.process(tid).clock;
        let now = clock.now();
        if clock.show(call.clock, 0).is_none() {
            return Ok(Answer::Native);
        }
        let endless = match call.timeout {
            Timeout::Milliseconds(count) => count < 0,
            Timeout::Relative(span) | Timeout::Absolute(span) => span.address() == 0,
        };
        if endless {
            self.thread(tid).asking.waits();
            return Ok(Answer::ToEnd(Pending::Blocked));
        }
        let at = match call.timeout {
            Timeout::Milliseconds(count) => now.saturating_add(i64::from(count) * 1_000_000),
            Timeout::Relative(span) => match read_span(tid, span)? {
                Some(span) => now.saturating_add(span),
                // The kernel says what is wrong with it.
                None => return Ok(Answer::Native),
            },
            Timeout::Absolute(span) => match read_span(tid, span)? {
                Some(time) => {
                    let clock = &self.process(tid).clock;
                    clock.when(call.clock, time).unwrap_or(now)
                }
                None => return Ok(Answer::Native),
            },
        };
        let place = (registers.instruction(), registers.number());
        let mut deadline = Deadline::new(at, now);
        match self.thread(tid).interrupted.take() {
            // Made again by the kernel after a signal without a handler: time has passed meanwhile.
            Some((instruction, number, before)) if (instruction, number) == place => {
                deadline = before;
            }
            _ => {}
        }
        if at <= now && sleep {
            return Ok(Answer::Gives(0));
        }
        if at <= now {
            if let Timeout::Absolute(_) = call.timeout {
                // The kernel's clock would not agree that it is over.
                return Ok(Answer::Gives(call.expired));
            }
            // Only a look at what is there.
            self.thread(tid).asking.looks();
            return Ok(Answer::Native);
        }
        let saved = registers.clone();
        if sleep {
            registers.set_number(libc::SYS_ppoll);
            for at in 0..4 {
                registers.set_argument(at, 0);
            }
        } else {
            registers.set_argument(call.endless.0, call.endless.1);
        }
        self.thread(tid).asking.waits();
        self.thread(tid).waiting = Some(Waiting {
            deadline,
            fired: false,
            call,
            only_if_interrupted: sleep,
        });
        Ok(Answer::Changed(Pending::Wait(saved)))
    }

    pub(super) fn end_wait(
        &mut self,
        tid: Tid,
        mut saved: Registers,
        registers: &Registers,
    ) -> io::Result<Resume> {
        let result = registers.result();
        let waiting = self
            .thread(tid)
            .waiting
            .take()
            .expect("a wait is pending as long as it waits");
        let interrupted = RESTARTS.contains(&result);
        let number = saved.number();
        saved.set_result(result);
        // Some calls (epoll_wait, rt_sigtimedwait, semtimedop) are never made again by the kernel.
        let ended = interrupted || result == -i64::from(libc::EINTR);
        if ended && waiting.fired {
            if SELECTS.contains(&number) {
                // select(2): when the time is over no descriptor is in any set.
                let zeros = vec![0; set_bytes(&saved)];
                for at in 1..4 {
                    if saved.argument(at) != 0 {
                        sys::write_memory(tid, saved.argument(at), &zeros)?;
                    }
                }
            }
            saved.skip(waiting.call.expired);
        } else if interrupted {
            saved.set_result(RESTART_NO_HANDLER);
            self.thread(tid).interrupted = Some((saved.instruction(), number, waiting.deadline));
        }
        let was_a_signal = interrupted && !waiting.fired;
        if let Some(left) = waiting.call.left
            && (was_a_signal || !waiting.only_if_interrupted)
        {
            let now = self.process(tid).clock.now();
            let rest = waiting.deadline.at.saturating_sub(now).max(0);
            let bytes = match left {
                Span::Micro(_) => to_timeval(rest),
                Span::Nano(_) | Span::Whole(_) => to_timespec(rest),
            };
            sys::write_memory(tid, left.address(), &bytes)?;
        }
        sys::set_registers(tid, &saved)?;
        Ok(Resume::Run)
    }

    fn itimer(&mut self, tid: Tid, which: i32) -> Option<(Time, Time)> {
        let process = self.process(tid);
        match which {
            0 => Some(process.alarm.left(process.clock.now())),
            1 | 2 => Some(process.idle_timers[usize::from(which == 2)]),
            _ => None,
        }
    }

    fn set_itimer(&mut self, tid: Tid, which: i32, new: u64, old: u64) -> io::Result<Answer> {
        let Some(before) = self.itimer(tid, which) else {
            return Ok(error(libc::EINVAL));
        };
        let (value, interval) = if new == 0 {
            (0, 0)
        } else {
            match read_pair(tid, new, Span::Micro)? {
                Some(both) => both,
                None => return Ok(error(libc::EINVAL)),
            }
        };
        let process = self.process(tid);
        let now = process.clock.now();
        if which == 0 {
            process.alarm = if value == 0 {
                Alarm::default()
            } else {
                Alarm::new(now.saturating_add(value), now, interval)
            };
        } else {
            process.idle_timers[usize::from(which == 2)] = (value, interval);
        }
        if old != 0 {
            sys::write_memory(tid, old, &itimer(before, to_timeval))?;
        }
        Ok(Answer::Gives(0))
    }

    /// `timer_create(2)` and its like; the kernel knows nothing of these timers.
    fn posix_timer(&mut self, tid: Tid, call: Call) -> io::Result<Answer> {
        let process = self.process(tid);
        let now = process.clock.now();
        Ok(match call {
            Call::TimerCreate { clock, event, id } => {
                if process.clock.show(clock, 0).is_none() {
                    return Ok(error(libc::EINVAL));
                }
                let Some(mut timer) = read_event(tid, event)? else {
                    return Ok(error(libc::EINVAL));
                };
                let process = self.process(tid);
                let number = process.next_timer;
                process.next_timer += 1;
                timer.clock = clock;
                if event == 0 {
                    timer.value = u64::from(number.unsigned_abs());
                }
                process.timers.insert(number, timer);
                sys::write_memory(tid, id, &number.to_ne_bytes())?;
                Answer::Gives(0)
            }
            Call::TimerSettime {
                id,
                absolute,
                new,
                old,
            } => {
                let Some(timer) = process.timers.get(&id) else {
                    return Ok(error(libc::EINVAL));
                };
                let (before, clock) = (timer.alarm.left(now), timer.clock);
                let Some((value, interval)) = read_pair(tid, new, Span::Nano)? else {
                    return Ok(error(libc::EINVAL));
                };
                if old != 0 {
                    sys::write_memory(tid, old, &itimer(before, to_timespec))?;
                }
                let process = self.process(tid);
                let at = if absolute {
                    process.clock.when(clock, value).unwrap_or(now)
                } else {
                    now.saturating_add(value)
                };
                if let Some(timer) = process.timers.get_mut(&id) {
                    timer.alarm = if value == 0 {
                        Alarm::default()
                    } else {
                        Alarm::new(at, now, interval)
                    };
                }
                Answer::Gives(0)
            }
            Call::TimerGettime { id, to } => match process.timers.get(&id) {
                Some(timer) => {
                    sys::write_memory(tid, to, &itimer(timer.alarm.left(now), to_timespec))?;
                    Answer::Gives(0)
                }
                None => error(libc::EINVAL),
            },
            Call::TimerGetoverrun { id } if process.timers.contains_key(&id) => {
                Answer::Gives(process.timers[&id].overrun.into())
            }
            Call::TimerDelete { id } if process.timers.remove(&id).is_some() => Answer::Gives(0),
            Call::TimerGetoverrun { .. } | Call::TimerDelete { .. } => error(libc::EINVAL),
            _ => Answer::Native,
        })
    }

    /// Our copy of the timer that a process has as this descriptor.
    fn timer_file(&mut self, tid: Tid, descriptor: i32) -> Option<usize> {
        let file = self.descriptor(tid, descriptor).ok()?;
        self.timer_files
            .iter()
            .position(|timer| sys::same_file(&timer.file, &file))
    }

    fn set_timer_file(
        &mut self,
        tid: Tid,
        descriptor: i32,
        flags: i32,
        new: u64,
        old: u64,
    ) -> io::Result<Answer> {
        const TFD_TIMER_ABSTIME: i32 = 1;
        let Ok(file) = self.descriptor(tid, descriptor) else {
            return Ok(Answer::Native);
        };
        let Some(clock) = timer_clock(tid, descriptor) else {
            // No timer: the kernel says so.
            return Ok(Answer::Native);
        };
        let Some((value, interval)) = read_pair(tid, new, Span::Nano)? else {
            return Ok(error(libc::EINVAL));
        };
        let known = self
            .timer_files
            .iter()
            .position(|timer| sys::same_file(&timer.file, &file));
        let owner = self.threads[&tid].process;
        let process = self.process(tid);
        let now = process.clock.now();
        let at = if flags & TFD_TIMER_ABSTIME != 0 {
            process.clock.when(clock, value).unwrap_or(now)
        } else {
            now.saturating_add(value)
        };
        let alarm = if value == 0 {
            Alarm::default()
        } else {
            Alarm::new(at, now, interval)
        };
        sys::disarm_timer(&file);
        let before = if let Some(at) = known {
            let before = self.timer_files[at].alarm.left(now);
            self.timer_files[at].alarm = alarm;
            before
        } else {
            self.timer_files.push(TimerFile {
                owner,
                file,
                alarm,
                ticks: 0,
            });
            (0, 0)
        };
        if old != 0 {
            sys::write_memory(tid, old, &itimer(before, to_timespec))?;
        }
        Ok(Answer::Gives(0))
    }
}

/// How large the sets of a select(2) are.
pub(super) fn set_bytes(registers: &Registers) -> usize {
    let words = registers.argument(0).min(1 << 20).div_ceil(64);
    usize::try_from(words * 8).expect("a set is small")
}

/// `struct itimerval` or `struct itimerspec`: the interval, then the value.
fn itimer((value, interval): (Time, Time), form: fn(Time) -> [u8; 16]) -> Vec<u8> {
    [form(interval), form(value)].concat()
}

/// The value and the interval of such a structure.
fn read_pair(tid: Tid, at: u64, unit: fn(u64) -> Span) -> io::Result<Option<(Time, Time)>> {
    let interval = read_span(tid, unit(at))?;
    let value = read_span(tid, unit(at + 16))?;
    Ok(value.zip(interval))
}

/// Reads `struct sigevent` (sigevent(3type)); an address of 0 is `SIGALRM`.
fn read_event(tid: Tid, at: u64) -> io::Result<Option<Timer>> {
    const SIGEV_SIGNAL: i32 = 0;
    const SIGEV_NONE: i32 = 1;
    const SIGEV_THREAD_ID: i32 = 4;
    let mut timer = Timer {
        clock: 0,
        signal: Some(libc::SIGALRM),
        thread: None,
        value: 0,
        alarm: Alarm::default(),
        overrun: 0,
    };
    if at == 0 {
        return Ok(Some(timer));
    }
    let mut bytes = [0; 20];
    sys::read_memory(tid, at, &mut bytes)?;
    let int = |at: usize| i32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    timer.value = u64::from_ne_bytes(bytes[..8].try_into().expect("eight bytes"));
    timer.signal = Some(int(8));
    match int(12) {
        SIGEV_SIGNAL => {}
        SIGEV_NONE => timer.signal = None,
        SIGEV_THREAD_ID => timer.thread = Some(int(16)),
        _ => return Ok(None),
    }
    let valid = timer.signal.is_none_or(|signal| (1..=64).contains(&signal));
    Ok(valid.then_some(timer))
}

/// The clock of a timer descriptor (`proc_pid_fdinfo(5)`).
fn timer_clock(tid: Tid, descriptor: i32) -> Option<i32> {
    let text = std::fs::read_to_string(format!("/proc/{tid}/fdinfo/{descriptor}")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("clockid:"))?;
    line.trim().parse().ok()
}
