//! One thread at a time.
//!
//! One thread has the turn and runs; the others are stopped, or blocked in a call. Every call that may
//! block stops its thread when it ends, so that a thread that was woken does not run beside the one that
//! woke it. When the one with the turn blocks, ends or yields, we wait until no other is on its way to a
//! stop, and then the next in order of birth that can run gets the turn. What a thread wakes it wakes
//! within its own calls, so who can run at that moment is the same each time.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use super::arch::{Machine as _, Registers};
use super::call::{SYS_FUTEX_WAIT, SYS_FUTEX_WAITV};
use super::filter::{Rule, When};
use super::run::{Answer, Pending, Spin, Tracer, state};
use super::sys::{self, Event, Resume, Tid};

/// After so many stops the turn goes on, so that a loop that only looks whether another thread is done
/// does not keep that one from running.
const LONGEST_TURN: u32 = 5000;

/// Who runs, and who could.
#[derive(Debug, Default)]
pub(super) struct Turns {
    births: BTreeMap<Tid, u64>,
    born: u64,
    /// Threads that are stopped and can go on, and how.
    ready: BTreeMap<Tid, (Resume, i32)>,
    /// Threads that are stopped by something that is looked at when they have the turn.
    stopped: BTreeMap<Tid, Event>,
    /// Who has the turn.
    holder: Option<Tid>,
    /// The birth of who had it last.
    last: u64,
    stops: u32,
    yields: bool,
    /// The call of the thread with the turn may have woken others, which see what is there when they run: they
    /// come to rest before it changes more.
    woke: bool,
    watch: Option<Watch>,
}

/// A thread that has run for long without a stop.
#[derive(Debug)]
struct Watch {
    since: Instant,
    /// Its CPU time then.
    used: Duration,
    /// The lowest and the highest place it was seen at, and how often it was looked at.
    range: Option<(u64, u64)>,
    samples: u32,
    next: Instant,
}

impl Turns {
    pub(super) fn start(&mut self, first: Tid) {
        self.born(first);
        self.holder = Some(first);
    }

    pub(super) fn born(&mut self, tid: Tid) {
        self.births.insert(tid, self.born);
        self.born += 1;
    }

    pub(super) fn ready(&mut self, tid: Tid, how: Resume, signal: i32) {
        self.ready.insert(tid, (how, signal));
    }

    pub(super) fn gone(&mut self, tid: Tid) {
        self.births.remove(&tid);
        self.ready.remove(&tid);
        self.stopped.remove(&tid);
        if self.holder == Some(tid) {
            self.holder = None;
        }
    }

    /// exec(2) by another thread than the first makes it the first.
    pub(super) fn renamed(&mut self, from: Tid, to: Tid) {
        let birth = self.births.get(&from).copied();
        self.gone(to);
        if let Some(birth) = birth {
            let held = self.holder == Some(from);
            self.gone(from);
            self.births.insert(to, birth);
            if held {
                self.holder = Some(to);
            }
        }
    }

    /// The thread with the turn lets others go first.
    pub(super) fn yields(&mut self) {
        self.yields = true;
    }

    fn is_stopped(&self, tid: Tid) -> bool {
        self.ready.contains_key(&tid) || self.stopped.contains_key(&tid)
    }

    /// The next by birth after the last, of those that can run.
    fn next(&self) -> Option<(u64, Tid)> {
        let able = || {
            self.births
                .iter()
                .filter(|(tid, _)| self.is_stopped(**tid))
                .map(|(tid, birth)| (*birth, *tid))
        };
        able()
            .filter(|(birth, _)| *birth > self.last)
            .min()
            .or_else(|| able().min())
    }
}

/// Calls that can wait for another thread.
pub(super) fn rules() -> Vec<Rule> {
    let always = [
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_readv,
        libc::SYS_writev,
        libc::SYS_recvfrom,
        libc::SYS_sendto,
        libc::SYS_recvmsg,
        libc::SYS_sendmsg,
        libc::SYS_recvmmsg,
        libc::SYS_sendmmsg,
        libc::SYS_accept,
        libc::SYS_accept4,
        libc::SYS_connect,
        libc::SYS_flock,
        libc::SYS_fcntl,
        libc::SYS_ppoll,
        libc::SYS_pselect6,
        libc::SYS_epoll_pwait,
        libc::SYS_epoll_pwait2,
        libc::SYS_rt_sigsuspend,
        libc::SYS_rt_sigtimedwait,
        libc::SYS_msgrcv,
        libc::SYS_msgsnd,
        libc::SYS_semop,
        libc::SYS_semtimedop,
        libc::SYS_mq_timedsend,
        libc::SYS_mq_timedreceive,
        libc::SYS_sched_yield,
        libc::SYS_splice,
        libc::SYS_tee,
        libc::SYS_vmsplice,
        libc::SYS_sendfile,
        SYS_FUTEX_WAITV,
        SYS_FUTEX_WAIT,
    ];
    let mut rules: Vec<Rule> = always
        .into_iter()
        .map(|number| Rule::new(number, When::Always))
        .collect();
    rules.push(Rule::new(libc::SYS_futex, When::FutexWaits));
    rules.extend(super::arch::blocking_rules());
    rules
}

impl Tracer {
    /// The next event that is to be looked at, or a thread that will never stop.
    pub(super) fn next_in_turn(&mut self) -> io::Result<Result<(Tid, Event), Spin>> {
        const FIRST: Duration = Duration::from_micros(50);
        const LONGEST: Duration = Duration::from_millis(2);
        let mut patience = FIRST;
        loop {
            if let Some(news) = self.news(false)? {
                if let Some(news) = self.sort_in(news) {
                    return Ok(Ok(news));
                }
                patience = FIRST;
                continue;
            }
            if let Some(holder) = self.turns().holder {
                if self.turns_ref().woke && self.turns_ref().is_stopped(holder) {
                    if self.one_moves() {
                        sys::wait_for_news(patience);
                        patience = (patience * 2).min(LONGEST);
                        continue;
                    }
                    self.turns().woke = false;
                }
                if let Some((how, signal)) = self.turns().ready.remove(&holder) {
                    if self.keeps_turn(holder) {
                        sys::resume(holder, how, signal)?;
                        continue;
                    }
                    self.turns().ready.insert(holder, (how, signal));
                } else if self.is_running(holder) {
                    if let Some(due) = self.overdue(Instant::now()) {
                        self.fire(due, false)?;
                    }
                    if let Some(spin) = self.watch(holder)? {
                        return Ok(Err(spin));
                    }
                    sys::wait_for_news(patience);
                    patience = (patience * 2).min(LONGEST);
                    continue;
                }
                // It may have stopped since we asked for news.
                if self.has_news()? {
                    continue;
                }
                self.turns().holder = None;
                continue;
            }
            // Wait until all others have come to rest.
            if self.one_moves() || !self.is_quiet() {
                sys::wait_for_news(patience);
                patience = (patience * 2).min(LONGEST);
                continue;
            }
            if self.has_news()? {
                continue;
            }
            if let Some((birth, next)) = self.turns_ref().next() {
                let turns = self.turns();
                turns.holder = Some(next);
                turns.last = birth;
                turns.stops = 0;
                turns.yields = false;
                turns.watch = None;
                if let Some(event) = turns.stopped.remove(&next) {
                    return Ok(Ok((next, event)));
                }
                continue;
            }
            if let Some((due, at)) = self.earliest() {
                self.move_time(at);
                self.fire(due, true)?;
                continue;
            }
            // Nobody can run, and nothing is due: only from outside can anything come.
            if let Some(news) = self.news(true)?
                && let Some(news) = self.sort_in(news)
            {
                return Ok(Ok(news));
            }
        }
    }

    /// A call that may block has ended: it may have woken others.
    pub(super) fn ended_a_wait(&mut self, tid: Tid) {
        if let Some(turns) = &mut self.turns
            && turns.holder == Some(tid)
        {
            turns.woke = true;
        }
    }

    fn turns(&mut self) -> &mut Turns {
        self.turns.as_mut().expect("only asked in the strict tier")
    }

    fn turns_ref(&self) -> &Turns {
        self.turns.as_ref().expect("only asked in the strict tier")
    }

    /// What is looked at now is given back; the rest waits for its thread's turn.
    fn sort_in(&mut self, (tid, event): (Tid, Event)) -> Option<(Tid, Event)> {
        let now = matches!(
            event,
            Event::Exited(_) | Event::Killed(_) | Event::GroupStop
        );
        if event == Event::Interrupted {
            self.sample(tid);
        } else if self.turns().holder == Some(tid) {
            self.turns().watch = None;
        }
        if now || !self.threads.contains_key(&tid) || self.turns().holder == Some(tid) {
            if self.turns().holder == Some(tid) {
                self.turns().stops += 1;
            }
            return Some((tid, event));
        }
        self.turns().stopped.insert(tid, event);
        None
    }

    fn keeps_turn(&mut self, holder: Tid) -> bool {
        let turns = self.turns();
        let others = turns
            .births
            .keys()
            .any(|tid| *tid != holder && turns.is_stopped(*tid));
        !others || (!turns.yields && turns.stops < LONGEST_TURN)
    }

    /// Is there a thread that is on its way to a stop?
    fn one_moves(&self) -> bool {
        let turns = self.turns_ref();
        let mut tids = self.threads.keys();
        tids.any(|tid| !turns.is_stopped(*tid) && self.is_running(*tid))
    }

    /// Is it computing, or on its way to a stop?
    fn is_running(&self, tid: Tid) -> bool {
        let Some(state) = state(tid) else {
            return false;
        };
        match state {
            b't' => !self
                .threads
                .get(&tid)
                .is_some_and(|thread| thread.is_halted),
            b'S' | b'T' | b'Z' | b'X' | b'I' => false,
            // vfork(2) waits without being interruptible.
            b'D' => !self.threads.get(&tid).is_some_and(|thread| thread.in_vfork),
            _ => true,
        }
    }

    /// Is there something to be told? If so it is looked at next.
    fn has_news(&mut self) -> io::Result<bool> {
        let news = self.news(false)?;
        let has = news.is_some();
        if let Some(news) = news {
            self.keep_news(news);
        }
        Ok(has)
    }

    /// Nothing to be said about a call that can block, but that it ended.
    pub(super) fn blocking(&mut self, tid: Tid, number: i64, registers: &Registers) -> Answer {
        if self.turns.is_none() {
            return Answer::Native;
        }
        if number == libc::SYS_sched_yield {
            self.turns().yields();
            return Answer::Gives(0);
        }
        let on_a_file = [
            libc::SYS_read,
            libc::SYS_write,
            libc::SYS_readv,
            libc::SYS_writev,
        ];
        if on_a_file.contains(&number) && is_file(tid, registers.argument(0)) {
            return Answer::Native;
        }
        if number == libc::SYS_fcntl && !LOCKS.contains(&(registers.argument(1) & 0xffff_ffff)) {
            return Answer::Native;
        }
        Answer::ToEnd(Pending::Blocked)
    }

    /// Looks whether a thread that runs for long goes round in a circle, while another of its process
    /// waits for the turn. There is no way to take the turn from it at the same place each time.
    fn watch(&mut self, holder: Tid) -> io::Result<Option<Spin>> {
        const PATIENCE: Duration = Duration::from_secs(4);
        const EVERY: Duration = Duration::from_millis(200);
        const SAMPLES: u32 = 20;
        /// Bytes of code that a loop without a call has at most.
        const CIRCLE: u64 = 256;
        let now = Instant::now();
        let process = self.threads.get(&holder).map(|thread| thread.process);
        let turns = self.turns_ref();
        let another = self.threads.iter().any(|(tid, thread)| {
            *tid != holder && Some(thread.process) == process && turns.is_stopped(*tid)
        });
        if !another {
            self.turns().watch = None;
            return Ok(None);
        }
        let Some(watch) = &mut self.turns().watch else {
            self.turns().watch = Some(Watch {
                since: now,
                used: cpu_time(holder),
                range: None,
                samples: 0,
                next: now + PATIENCE,
            });
            return Ok(None);
        };
        if now < watch.next || cpu_time(holder).saturating_sub(watch.used) < PATIENCE / 2 {
            return Ok(None);
        }
        if watch.samples < SAMPLES {
            watch.next = now + EVERY;
            sys::interrupt(holder)?;
            return Ok(None);
        }
        let (low, high) = watch.range.unwrap_or((0, u64::MAX));
        if high - low > CIRCLE {
            // It goes far: give it as long again.
            watch.samples = 0;
            watch.range = None;
            watch.next = now + (now - watch.since).max(PATIENCE);
            return Ok(None);
        }
        let name = std::fs::read_to_string(format!("/proc/{holder}/comm")).unwrap_or_default();
        Ok(Some(Spin {
            thread: holder,
            name: name.trim_end().to_owned(),
            instruction: low,
        }))
    }

    fn sample(&mut self, tid: Tid) {
        let Ok(registers) = sys::registers(tid) else {
            return;
        };
        let at = registers.instruction();
        if let Some(watch) = &mut self.turns().watch {
            let (low, high) = watch.range.unwrap_or((at, at));
            watch.range = Some((low.min(at), high.max(at)));
            watch.samples += 1;
        }
    }
}

/// `F_SETLKW`, `F_OFD_SETLKW`.
const LOCKS: [u64; 2] = [7, 38];

/// Reading and writing files never waits for a thread.
fn is_file(tid: Tid, descriptor: u64) -> bool {
    let Ok(link) = std::ffi::CString::new(format!("/proc/{tid}/fd/{descriptor}")) else {
        return false;
    };
    sys::statx(libc::AT_FDCWD, &link, 0).is_ok_and(|found| {
        let kind = u32::from(found.stx_mode) & libc::S_IFMT;
        kind == libc::S_IFREG || kind == libc::S_IFDIR
    })
}

/// The CPU time of a thread, in the precision of its scheduler statistics.
fn cpu_time(tid: Tid) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{tid}/schedstat")).unwrap_or_default();
    let first = text.split_whitespace().next();
    Duration::from_nanos(first.and_then(|text| text.parse().ok()).unwrap_or(u64::MAX))
}
