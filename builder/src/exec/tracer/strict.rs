//! One thread at a time.
//!
//! One thread has the turn and runs; the others are stopped, or blocked in a call. Every call that may
//! block stops its thread when it ends, so that a thread that was woken does not run beside the one that
//! woke it. When the one with the turn blocks, ends or yields, we wait until all others are at rest (`rest`),
//! and then the next in order of birth that can run gets the turn. What a thread wakes it wakes
//! within its own calls, so who can run at that moment is the same each time.
//!
//! Nothing that happens on the way to that moment counts: a thread that blocks for a moment, because a pipe is full
//! until its reader has taken what is there, keeps the turn; and the end of a process is told to its parent only
//! then.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use super::arch::{Machine as _, Registers};
use super::call::{SYS_FUTEX_WAIT, SYS_FUTEX_WAITV};
use super::filter::{Rule, When};
use super::rest::{Motion, file_of};
use super::run::{Answer, Pending, Tracer};
use super::spin::{Spin, Watch};
use super::sys::{self, Event, Resume, Tid};

/// After so many calls the turn goes on, so that a loop that only looks whether another thread is done
/// does not keep that one from running.
const LONGEST_TURN: u32 = 5000;

/// Who yields so often, and no other can run, waits for a time to come.
const LONGEST_YIELDING: u32 = 1000;

/// So often counts who was to give the turn away because of its many calls.
const CALLS_IN_VAIN: u32 = 20;

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
    /// How many calls it has made since, of those that stop a thread whoever builds.
    calls: u32,
    yields: bool,
    /// How often it has yielded although no other could run.
    vain: u32,
    /// The call of the thread with the turn may have woken others, which see what is there when they run: they
    /// come to rest before it changes more.
    woke: bool,
    /// Somebody may have been killed while he was stopped.
    doubt: bool,
    pub(super) watch: Option<Watch>,
}

/// What is to be done.
enum Move {
    /// This event is looked at.
    Look(Tid, Event),
    /// The step ends.
    Spins(Spin),
    /// Nothing; there may be news at once.
    Again,
    /// A thread was let go.
    Goes,
    /// Nothing, until there is news.
    Wait,
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

    /// The thread with the turn makes a call.
    pub(super) fn calls(&mut self) {
        self.calls += 1;
    }

    /// Should another go on, if one can?
    fn gives_way(&self) -> bool {
        self.yields || self.calls >= LONGEST_TURN
    }

    fn another_can(&self, holder: Tid) -> bool {
        self.births
            .keys()
            .any(|tid| *tid != holder && self.is_stopped(*tid))
    }

    pub(super) fn is_stopped(&self, tid: Tid) -> bool {
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
        libc::SYS_preadv2,
        libc::SYS_pwritev2,
        libc::SYS_io_getevents,
        libc::SYS_shutdown,
        libc::SYS_splice,
        libc::SYS_tee,
        libc::SYS_vmsplice,
        libc::SYS_sendfile,
        SYS_FUTEX_WAITV,
        SYS_FUTEX_WAIT,
    ];
    let mut rules: Vec<Rule> = always
        .into_iter()
        .chain(SIGNALS)
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
        let mut waited = false;
        loop {
            if let Some(news) = sys::wait_stopped()? {
                patience = FIRST;
                if let Some(news) = self.sort_in(news) {
                    return Ok(Ok(news));
                }
                continue;
            }
            match self.next_move(waited)? {
                Move::Look(tid, event) => return Ok(Ok((tid, event))),
                Move::Spins(spin) => return Ok(Err(spin)),
                Move::Again => patience = FIRST,
                // It stops soon, most likely.
                Move::Goes => {
                    patience = FIRST;
                    waited = false;
                    sys::wait_for_news(patience);
                }
                Move::Wait => {
                    sys::wait_for_news(patience);
                    patience = (patience * 2).min(LONGEST);
                    waited = true;
                }
            }
        }
    }

    /// What is to be done when nobody has stopped. `waited`: nor before, for a while.
    fn next_move(&mut self, waited: bool) -> io::Result<Move> {
        if let Some(goes) = self.goes_on()? {
            return Ok(goes);
        }
        let moves = self.holder_moves();
        if (waited || !moves)
            && let Some(tid) = self.may_be_reaped()?
        {
            return Ok(Move::Look(tid, self.reap(tid)?));
        }
        if let Some(holder) = self.turns_ref().holder {
            let turns = self.turns_ref();
            if turns.is_stopped(holder) {
                if turns.woke || turns.gives_way() {
                    if !self.is_settled()? {
                        return Ok(Move::Wait);
                    }
                    let turns = self.turns();
                    turns.woke = false;
                    turns.doubt = false;
                }
                let turns = self.turns();
                let keeps = !turns.gives_way();
                if keeps || !turns.another_can(holder) {
                    if !keeps && self.waits_by_yielding()? {
                        return Ok(Move::Again);
                    }
                    return Ok(self.goes_on()?.unwrap_or(Move::Again));
                }
            } else {
                if moves {
                    if let Some(due) = self.overdue(Instant::now()) {
                        self.turns().woke = true;
                        self.fire(due, false)?;
                    }
                    return Ok(match self.watch(holder)? {
                        Some(spin) => Move::Spins(spin),
                        None => Move::Wait,
                    });
                }
                // It may be woken by one that its call has woken, and then nothing has happened.
                if !self.is_settled()? || self.waits_for_outside(holder) || !self.is_quiet() {
                    return Ok(Move::Wait);
                }
                if let Some(thread) = self.threads.get_mut(&holder) {
                    thread.slept = true;
                }
            }
            self.turns().holder = None;
        } else if !self.is_settled()? || !self.is_quiet() {
            return Ok(Move::Wait);
        }
        self.turns().doubt = false;
        self.turns().woke = false;
        self.next_turn()
    }

    /// The thread with the turn goes on, if it has stopped and nothing is to be waited for.
    fn goes_on(&mut self) -> io::Result<Option<Move>> {
        let turns = self.turns();
        let Some(holder) = turns.holder.filter(|_| !turns.woke && !turns.gives_way()) else {
            return Ok(None);
        };
        if let Some((how, signal)) = turns.ready.remove(&holder) {
            sys::resume(holder, how, signal)?;
            return Ok(Some(Move::Goes));
        }
        let stopped = turns.stopped.remove(&holder);
        Ok(stopped.map(|event| Move::Look(holder, event)))
    }

    fn holder_moves(&self) -> bool {
        let turns = self.turns_ref();
        turns
            .holder
            .is_some_and(|holder| !turns.is_stopped(holder) && self.motion(holder) == Motion::Moves)
    }

    /// The thread with the turn would give it away, and nobody takes it. Says whether time has passed instead.
    fn waits_by_yielding(&mut self) -> io::Result<bool> {
        let turns = self.turns();
        turns.calls = 0;
        turns.vain += if std::mem::take(&mut turns.yields) {
            1
        } else {
            CALLS_IN_VAIN
        };
        if turns.vain < LONGEST_YIELDING {
            return Ok(false);
        }
        turns.vain = 0;
        let Some((due, at)) = self.earliest() else {
            return Ok(false);
        };
        self.turns().woke = true;
        self.turns().yields = true;
        self.move_time(at);
        self.fire(due, true)?;
        Ok(true)
    }

    /// Everybody is at rest: somebody gets the turn.
    fn next_turn(&mut self) -> io::Result<Move> {
        if let Some((birth, next)) = self.turns_ref().next() {
            let turns = self.turns();
            turns.holder = Some(next);
            turns.last = birth;
            turns.calls = 0;
            turns.yields = false;
            turns.vain = 0;
            turns.watch = None;
            return Ok(Move::Again);
        }
        if let Some((due, at)) = self.earliest() {
            self.move_time(at);
            self.fire(due, true)?;
            return Ok(Move::Again);
        }
        // Nobody can run, and nothing is due: only from outside can anything come.
        Ok(Move::Wait)
    }

    /// Is everybody at rest, and all that happened known?
    fn is_settled(&self) -> io::Result<bool> {
        let turns = self.turns_ref();
        Ok(self.all_rest(turns, turns.doubt) && !sys::has_news()?)
    }

    /// Somebody whose end is told now. The parent of a process gets its signal when we reap it: that is when all
    /// others are at rest, and not while the parent runs.
    fn may_be_reaped(&self) -> io::Result<Option<Tid>> {
        let Some(ended) = sys::ended(None)? else {
            return Ok(None);
        };
        let turns = self.turns_ref();
        let tells_a_parent = |tid: Tid| {
            self.threads
                .get(&tid)
                .is_some_and(|thread| thread.process == tid)
        };
        if !tells_a_parent(ended) || self.all_rest(turns, true) {
            return Ok(Some(ended));
        }
        // Threads have no parent, and exec(2) waits for the end of the others of its process.
        for (tid, thread) in &self.threads {
            if *tid != thread.process && sys::ended(Some(*tid))?.is_some() {
                return Ok(Some(*tid));
            }
        }
        Ok(None)
    }

    fn reap(&mut self, tid: Tid) -> io::Result<Event> {
        let event = sys::reap(tid)?;
        // Of its threads others may be dying, and its parent has a signal.
        let turns = self.turns();
        turns.doubt = true;
        turns.woke = true;
        Ok(event)
    }

    /// A call that may block has ended: it may have woken others.
    pub(super) fn ended_a_wait(&mut self, tid: Tid, number: i64) {
        if let Some(turns) = &mut self.turns
            && turns.holder == Some(tid)
        {
            turns.woke |= !wakes_nobody(number);
            turns.doubt |= SIGNALS.contains(&number);
        }
    }

    pub(super) fn turns(&mut self) -> &mut Turns {
        self.turns.as_mut().expect("only asked in the strict tier")
    }

    fn turns_ref(&self) -> &Turns {
        self.turns.as_ref().expect("only asked in the strict tier")
    }

    /// What is looked at now is given back; the rest waits for its thread's turn.
    fn sort_in(&mut self, (tid, event): (Tid, Event)) -> Option<(Tid, Event)> {
        let holds = self.turns().holder == Some(tid);
        if event == Event::Interrupted && holds {
            self.sample(tid);
        } else if holds {
            let turns = self.turns();
            turns.watch = None;
            // A new thread comes to its first stop; who waited for the end of vfork(2) goes on.
            turns.woke |= matches!(event, Event::Started(_) | Event::Exec);
            turns.doubt |= event == Event::Exec;
        }
        if holds || event == Event::GroupStop || !self.threads.contains_key(&tid) {
            return Some((tid, event));
        }
        self.turns().stopped.insert(tid, event);
        None
    }

    /// Nothing to be said about a call that can block, but that it ended.
    pub(super) fn blocking(
        &mut self,
        tid: Tid,
        number: i64,
        registers: &mut Registers,
    ) -> io::Result<Answer> {
        if self.turns.is_none() {
            return Ok(Answer::Native);
        }
        if number == libc::SYS_sched_yield {
            self.turns().yields();
            return Ok(Answer::Gives(0));
        }
        if SIGNALS.contains(&number) {
            // Whom a signal of a process goes to depends on who has stopped.
            self.turns().woke = true;
            return Ok(Answer::ToEnd(Pending::Blocked));
        }
        let on_a_file = [
            libc::SYS_read,
            libc::SYS_write,
            libc::SYS_readv,
            libc::SYS_writev,
        ];
        if on_a_file.contains(&number) && is_file(tid, registers.argument(0)) {
            return Ok(Answer::Native);
        }
        if number == libc::SYS_fcntl && !LOCKS.contains(&(registers.argument(1) & 0xffff_ffff)) {
            return Ok(Answer::Native);
        }
        let instead = self.on_a_stream(tid, number, registers)?;
        Ok(instead.unwrap_or(Answer::ToEnd(Pending::Blocked)))
    }
}

/// Calls that send a signal.
const SIGNALS: [i64; 6] = [
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_send_signal,
];

/// Calls that can block, but after which nobody goes on who could not before.
fn wakes_nobody(number: i64) -> bool {
    let only_wait = [
        libc::SYS_ppoll,
        libc::SYS_pselect6,
        libc::SYS_epoll_pwait,
        libc::SYS_epoll_pwait2,
        libc::SYS_rt_sigsuspend,
        libc::SYS_rt_sigtimedwait,
        SYS_FUTEX_WAITV,
        SYS_FUTEX_WAIT,
    ];
    only_wait.contains(&number)
        || super::arch::blocking_rules()
            .iter()
            .any(|rule| rule.is_for(number))
}

/// `F_SETLKW`, `F_OFD_SETLKW`.
const LOCKS: [u64; 2] = [7, 38];

/// Reading and writing files never waits for a thread.
fn is_file(tid: Tid, descriptor: u64) -> bool {
    file_of(tid, descriptor).is_some_and(|found| {
        let kind = u32::from(found.stx_mode) & libc::S_IFMT;
        kind == libc::S_IFREG || kind == libc::S_IFDIR
    })
}
