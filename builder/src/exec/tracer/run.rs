//! The loop: a thread stops, is answered, goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::again::{Again, Look, Sets};
use super::arch::{self, Machine as _, Registers};
use super::busy::Busy;
use super::call::{self, Call, Span, Wait};
use super::clock::{Asking, Clock, SECOND, Time};
use super::evidence::{self, Evidence, Source};
use super::feeder::Feeder;
use super::files::Files;
use super::ids::Ids;
use super::inside::{Entered, Inside};
use super::open::StandsFor;
use super::owners;
use super::place::Place;
use super::ports::Ports;
use super::random::Stream;
use super::rest::Looks;
use super::spin::Spin;
use super::stat::Listing;
use super::streams::Pieces;
use super::strict::Turns;
use super::sys::{self, Event, Resume, Started, Tid};
use super::waits::{Alarm, Deadline, Due, Timer, TimerFile};
use super::{Names, Virtual, filter, vdso};

/// What is left of the time of a process with several threads when its parent has waited for it.
const GRID: Time = SECOND / 100;

/// How the first process ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its exit code, or the signal that killed it.
    pub status: Result<i32, i32>,
    /// What it and the others did.
    pub evidence: Evidence,
    /// Emulated owners of what it left, by absolute path, where the files themselves do not say it.
    pub owners: BTreeMap<Vec<u8>, (u32, u32)>,
    /// A thread that ran for ever while others waited for it; everything was killed.
    pub spin: Option<Spin>,
}

/// A thread.
#[derive(Debug)]
pub(super) struct Thread {
    pub(super) process: Tid,
    pub(super) stream: Stream,
    /// What is to be done at the end of the call it is in.
    pub(super) pending: Option<Pending>,
    /// A wait with a deadline that it is in.
    pub(super) waiting: Option<Waiting>,
    /// Where its stack was when it last stopped for a question.
    pub(super) stack: u64,
    /// How it asks for the time, where it is one of several.
    pub(super) asking: Asking,
    /// It waits for the child of a vfork(2).
    pub(super) in_vfork: bool,
    /// A signal has stopped it, as job control does: it is traced, so its state is another's.
    pub(super) is_halted: bool,
    /// The wait it was taken out of by a signal, which may be made again.
    pub(super) interrupted: Option<(u64, i64, Deadline)>,
    /// Who it is told that it is, where users are emulated.
    pub(super) ids: Ids,
    /// It lost the turn in the call it is in.
    pub(super) slept: bool,
    /// What it asked for, in a select(2) that it is in.
    pub(super) sets: Sets,
    /// Calls that it is to make; the last of them first.
    pub(super) again: Vec<Again>,
    /// How often it has stopped.
    pub(super) stops: u64,
}

/// A process: threads with one memory.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) clock: Clock,
    lineage: Vec<u32>,
    children: u32,
    /// How many of them it has not waited for: at most so many.
    pub(super) unwaited: u32,
    /// It has the tracer's rights to files.
    pub(super) privileged: bool,
    /// Its root, and its view of mounts, are the tracer's.
    pub(super) at_home: bool,
    /// A descriptor for it, once it was needed.
    pub(super) handle: Option<OwnedFd>,
    pub(super) alarm: Alarm,
    /// Timers of CPU time, which never go off: `ITIMER_VIRTUAL`, `ITIMER_PROF`.
    pub(super) idle_timers: [(Time, Time); 2],
    pub(super) timers: BTreeMap<i32, Timer>,
    pub(super) next_timer: i32,
    pub(super) nice: i32,
    pub(super) affinity: u64,
    /// CPU time of children that it waited for.
    pub(super) children_used: Time,
    /// It had more than one thread.
    pub(super) threaded: bool,
    pub(super) ports: Ports,
    record: usize,
    /// Where the program interpreter is in memory.
    pub(super) interpreter: Option<u64>,
    /// It has what it needs to answer questions itself.
    pub(super) inside: Option<Entered>,
}

/// A wait with a deadline.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) deadline: Deadline,
    /// The deadline has come, and the thread was told.
    pub(super) fired: bool,
    pub(super) call: Wait,
    /// nanosleep(2) says what was left of it only when a signal ended it.
    pub(super) only_if_interrupted: bool,
}

/// What is to be done at the end of a call.
#[derive(Debug)]
pub(super) enum Pending {
    /// Look whether the time was over, and put the arguments back.
    Wait(Registers),
    /// If it was made, the process sees other files under the same names.
    Root,
    /// Take over the clock of the child that was waited for.
    Child(call::WaitChild),
    /// Make the answer one that depends on nothing outside.
    Stat(call::Stat),
    /// As above.
    Statfs { to: u64 },
    /// Note what was opened for writing.
    Opened { flags: i32, new: bool },
    /// Note whose a file is.
    Owner(owners::Then),
    /// A file of ours takes the place of the one that was asked for.
    Content {
        saved: Registers,
        content: Vec<u8>,
        stands_for: Option<StandsFor>,
    },
    /// A socket takes the place of a random device: it was made; its other end is to be closed.
    Pair {
        saved: Registers,
        pair: u64,
        minor: u32,
    },
    /// The other end is being closed.
    Closing {
        saved: Registers,
        reader: i32,
        entered: bool,
    },
    /// The path was another one.
    Redirected(Registers),
    /// Make the target of a link one that depends on nothing outside.
    Link { to: u64 },
    /// Sort the names of attributes.
    Names { to: u64 },
    /// Make times the process' own.
    Control { kind: call::Control, to: u64 },
    /// Nothing, but it was worth knowing when it ended.
    Blocked,
    /// Look whether its own call would end now, too.
    Look(Box<Look>),
    /// Send what is left.
    Pieces(Box<Pieces>),
    /// Make the call that was asked for: it is a read, and there is something.
    Arrival(Box<Registers>),
}

/// How a call is answered.
#[derive(Debug)]
pub(super) enum Answer {
    /// With this, and without the kernel.
    Gives(i64),
    /// By the kernel.
    Native,
    /// By the kernel; there is something to do when it has.
    ToEnd(Pending),
    /// By the kernel, with the changed registers; as above.
    Changed(Pending),
}

/// Traces a process and all it starts.
#[derive(Debug)]
pub struct Tracer {
    pub(super) what: Virtual,
    pub(super) names: Names,
    pub(super) threads: BTreeMap<Tid, Thread>,
    pub(super) processes: BTreeMap<Tid, Process>,
    /// Threads that stopped before we knew who started them.
    early: BTreeSet<Tid>,
    /// Clock and CPU time of processes that have ended, until their parents know.
    pub(super) dead: BTreeMap<Tid, (Time, Time)>,
    pub(super) files: Files,
    /// Directories that are being read, by process and descriptor.
    pub(super) listings: BTreeMap<(Tid, i32), Listing>,
    pub(super) timer_files: Vec<TimerFile>,
    pub(super) feeder: Option<Feeder>,
    pub(super) turns: Option<Turns>,
    pub(super) looks: Looks,
    pub(super) busy: Busy,
    /// A process may have children that it did not start, from now on.
    pub(super) adopts: bool,
    place: Place,
    /// Where users and owners are emulated.
    pub(super) owners: Option<owners::Table>,
    /// What the step began as.
    pub(super) first: Tid,
    /// Calls that stop a thread only where users and owners are emulated.
    pub(super) unseen: BTreeSet<i64>,
    /// The thread that was let go last: the first to look at when asking whether any is running.
    last: Tid,
    evidence: Evidence,
    started: Instant,
    written: BTreeMap<usize, BTreeSet<Vec<u8>>>,
    calls: BTreeMap<i64, u64>,
    others: BTreeMap<&'static str, u64>,
    complained: bool,
    /// What the functions of the vDSO become.
    pub(super) vdso: vdso::Patch,
    pub(super) inside: Option<Inside>,
    /// Where the program interpreter reads the time stamp counter: offset, and the code there.
    time_stamps: BTreeSet<(u64, [u8; 8])>,
}

impl Tracer {
    /// Takes hold of `first`, a child of the caller, which waits for a sign before it becomes the program.
    pub fn seize(first: i32, what: Virtual, names: Names) -> io::Result<Self> {
        sys::block_news()?;
        sys::seize(first, what.strict)?;
        let mut tracer = Self {
            what,
            names,
            threads: BTreeMap::new(),
            processes: BTreeMap::new(),
            early: BTreeSet::new(),
            dead: BTreeMap::new(),
            files: Files::new(what.epoch.saturating_mul(SECOND))?,
            listings: BTreeMap::new(),
            timer_files: Vec::new(),
            feeder: None,
            turns: what.strict.then(Turns::default),
            looks: Looks::default(),
            busy: Busy::default(),
            adopts: false,
            place: Place::new(first, what.strict)?,
            owners: None,
            first,
            unseen: filter::only_for_owners(&what),
            last: first,
            evidence: Evidence::default(),
            started: Instant::now(),
            written: BTreeMap::new(),
            calls: BTreeMap::new(),
            others: BTreeMap::new(),
            complained: false,
            vdso: vdso::patch(&[]),
            inside: None,
            time_stamps: BTreeSet::new(),
        };
        tracer
            .threads
            .insert(first, Thread::new(first, Stream::new(&what.seed)));
        let clock = Clock::starting_at(what.epoch);
        tracer
            .processes
            .insert(first, Process::new(clock, Vec::new()));
        tracer.evidence.processes.push(evidence::Process::default());
        if let Some(turns) = &mut tracer.turns {
            turns.start(first);
        }
        Ok(tracer)
    }

    /// From their start on, programs answer the most frequent questions themselves; for that they have this empty file in
    /// their memory, which they find under `path` and nobody can write to.
    pub fn answering_inside(
        mut self,
        file: std::fs::File,
        path: &std::ffi::CStr,
    ) -> io::Result<Self> {
        if self.what.answers_inside() {
            // By its name it is an empty file of `/proc`, as its neighbour is.
            self.files
                .stand_in(&file, c"/proc/ioports", path.to_bytes().to_vec());
            let inside = Inside::new(file, path.to_owned())?;
            self.vdso = vdso::patch(inside.setup());
            self.inside = Some(inside);
        }
        Ok(self)
    }

    /// Serves until the first process has ended.
    pub fn run(mut self, first: i32) -> io::Result<Ended> {
        let mut spin = None;
        let status = loop {
            let next = if self.turns.is_some() {
                match self.next_in_turn()? {
                    Ok(next) => next,
                    Err(found) => {
                        spin = Some(found);
                        break Err(libc::SIGKILL);
                    }
                }
            } else {
                self.next()?
            };
            let (tid, event) = next;
            self.place.stopped();
            match event {
                Event::Exited(code) if tid == first => break Ok(code),
                Event::Killed(signal) if tid == first => break Err(signal),
                _ => {}
            }
            match self.handle(tid, event) {
                // It is being killed; its end will be told.
                Err(error) if sys::is_gone(&error) => {}
                result => result?,
            }
        };
        Ok(Ended {
            status,
            owners: self.settle_owners(),
            evidence: self.into_evidence(),
            spin,
        })
    }

    /// The next event; virtual time moves on when there is none to come.
    fn next(&mut self) -> io::Result<(Tid, Event)> {
        const FIRST: Duration = Duration::from_micros(100);
        const LONGEST: Duration = Duration::from_millis(5);
        let mut patience = FIRST;
        loop {
            let waits = self.has_deadlines();
            if let Some(event) = sys::wait(!waits)? {
                return Ok(event);
            }
            let now = Instant::now();
            if let Some(due) = self.overdue(now) {
                self.fire(due, false)?;
                continue;
            }
            if let Some(tid) = self.gave_way(now) {
                self.wake(tid)?;
                continue;
            }
            // Something happens at once when everything waits: first look, then sleep.
            if self.is_idle() {
                // One that has just ended is told of first.
                if let Some(event) = sys::wait(false)? {
                    return Ok(event);
                }
                if let Some((due, at)) = self.earliest() {
                    self.move_time(at);
                    self.fire(due, true)?;
                    continue;
                }
            }
            sys::wait_for_news(patience);
            patience = (patience * 2).min(LONGEST);
        }
    }

    /// Can no thread run before a time comes?
    fn is_idle(&mut self) -> bool {
        if !self.early.is_empty() || !self.is_waiting(self.last) {
            return false;
        }
        let tids: Vec<Tid> = self.threads.keys().copied().collect();
        for tid in &tids {
            if !self.is_waiting(*tid) {
                self.last = *tid;
                return false;
            }
        }
        if !self.is_quiet() {
            return false;
        }
        // Each was seen waiting, but at another moment: only if none has run since, all waited at once.
        let before: Vec<String> = tids.iter().map(|tid| switches(*tid)).collect();
        tids.iter().all(|tid| self.is_waiting(*tid))
            && tids.iter().map(|tid| switches(*tid)).eq(before)
    }

    /// Is it blocked in a call, stopped by a signal, or ended?
    fn is_waiting(&self, tid: Tid) -> bool {
        match state(tid) {
            // Its end is about to be told, or was.
            None => true,
            Some(b't') => self
                .threads
                .get(&tid)
                .is_some_and(|thread| thread.is_halted),
            Some(state) => [b'S', b'T', b'Z', b'X', b'I'].contains(&state),
        }
    }

    /// A log that nobody reads fast enough, or a random device that is being filled, is no reason for
    /// time to pass, or for another thread's turn.
    pub(super) fn is_quiet(&self) -> bool {
        Self::output_is_taken() && !self.feeder.as_ref().is_some_and(Feeder::is_behind)
    }

    pub(super) fn output_is_taken() -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let output = rustix::stdio::stdout();
        let output: BorrowedFd<'_> = output;
        let mut fds = [PollFd::new(&output, PollFlags::OUT)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        !matches!(poll(&mut fds, Some(&now)), Ok(0))
    }

    fn has_deadlines(&self) -> bool {
        self.deadlines().next().is_some()
    }

    pub(super) fn deadlines(&self) -> impl Iterator<Item = (Deadline, Due)> + '_ {
        let threads = self.threads.iter().filter_map(|(tid, thread)| {
            let waiting = thread.waiting.as_ref().filter(|waiting| !waiting.fired)?;
            Some((waiting.deadline, Due::Thread(*tid)))
        });
        let processes = self.processes.iter().flat_map(|(pid, process)| {
            let alarm = process.alarm.next.map(|next| (next, Due::Alarm(*pid)));
            let timers = process
                .timers
                .iter()
                .filter_map(|(id, timer)| Some((timer.alarm.next?, Due::Timer(*pid, *id))));
            alarm.into_iter().chain(timers)
        });
        let files = self
            .timer_files
            .iter()
            .enumerate()
            .filter_map(|(at, timer)| Some((timer.alarm.next?, Due::File(at))));
        threads.chain(processes).chain(files)
    }

    pub(super) fn earliest(&self) -> Option<(Due, Time)> {
        self.deadlines()
            .map(|(deadline, due)| (deadline.at, due))
            .min()
            .map(|(at, due)| (due, at))
    }

    /// A thread that waits for a moment while another of its process runs: as a rule for that one, which may look in memory whether
    /// it has gone on. Then both would wait for the other: time does not move while one runs.
    fn gave_way(&self, now: Instant) -> Option<Tid> {
        let is_one = |tid: &Tid, thread: &Thread| {
            let waits = thread.waiting.as_ref().filter(|waiting| !waiting.fired);
            waits.is_some_and(|waiting| waiting.deadline.gave_way(now))
                && self.threads.iter().any(|(other, beside)| {
                    other != tid && beside.process == thread.process && state(*other) == Some(b'R')
                })
        };
        self.threads
            .iter()
            .find(|(tid, thread)| is_one(tid, thread))
            .map(|(tid, _)| *tid)
    }

    /// Its wait is over, and no time has passed: how long others ran is chance.
    fn wake(&mut self, tid: Tid) -> io::Result<()> {
        if let Some(waiting) = &mut self.thread(tid).waiting {
            waiting.fired = true;
            sys::interrupt(tid)?;
        }
        Ok(())
    }

    /// It is this time, for everybody.
    pub(super) fn move_time(&mut self, at: Time) {
        for process in self.processes.values_mut() {
            process.clock.learn(at);
            if process.threaded && !self.what.strict {
                process.clock.wakes();
            }
        }
    }

    /// Lets happen what is due. `idle`: everything waits, and time has moved for all; otherwise for its
    /// process only.
    pub(super) fn fire(&mut self, due: Due, idle: bool) -> io::Result<()> {
        let learn = |process: Option<&mut Process>, at| {
            if let Some(process) = process.filter(|_| !idle) {
                process.clock.learn(at);
            }
        };
        match due {
            Due::Thread(tid) => {
                let Some(thread) = self.threads.get_mut(&tid) else {
                    return Ok(());
                };
                if let Some(waiting) = &mut thread.waiting {
                    waiting.fired = true;
                    learn(self.processes.get_mut(&thread.process), waiting.deadline.at);
                    sys::interrupt(tid)?;
                }
            }
            Due::Alarm(pid) => {
                if let Some(process) = self.processes.get_mut(&pid) {
                    let at = process.alarm.next.map_or(0, |next| next.at);
                    process.alarm.go_off();
                    learn(Some(process), at);
                    sys::send_timer_signal(pid, None, libc::SIGALRM, 0, 0);
                }
            }
            Due::Timer(pid, id) => {
                if let Some(process) = self.processes.get_mut(&pid)
                    && let Some(timer) = process.timers.get_mut(&id)
                {
                    let at = timer.alarm.next.map_or(0, |next| next.at);
                    timer.alarm.go_off();
                    if let Some(signal) = timer.signal {
                        if timer.overrun > 0 || timer.alarm.interval > 0 {
                            timer.overrun = if is_pending(timer.thread.unwrap_or(pid), signal) {
                                timer.overrun + 1
                            } else {
                                0
                            };
                        }
                        if timer.overrun == 0 {
                            sys::send_timer_signal(pid, timer.thread, signal, id, timer.value);
                        }
                    }
                    learn(Some(process), at);
                }
            }
            Due::File(at) => {
                let timer = &mut self.timer_files[at];
                let time = timer.alarm.next.map_or(0, |next| next.at);
                timer.alarm.go_off();
                timer.ticks = if sys::is_readable(&timer.file) {
                    timer.ticks + 1
                } else {
                    1
                };
                if timer.ticks == 1 || !sys::set_ticks(&timer.file, timer.ticks) {
                    sys::fire_timer(&timer.file);
                }
                let owner = timer.owner;
                learn(self.processes.get_mut(&owner), time);
            }
        }
        Ok(())
    }

    pub(super) fn handle(&mut self, tid: Tid, event: Event) -> io::Result<()> {
        if let Event::Exited(_) | Event::Killed(_) = event {
            self.gone(tid);
            return Ok(());
        }
        if !self.threads.contains_key(&tid) {
            // A child of somebody whose news is still to come, or one that no tracee started.
            self.early.insert(tid);
            return Ok(());
        }
        let thread = self.thread(tid);
        thread.stops += 1;
        thread.is_halted = event == Event::GroupStop;
        match event {
            Event::Exited(_) | Event::Killed(_) => Ok(()),
            Event::Call => self.call(tid),
            Event::CallEnd => self.call_end(tid),
            Event::Started(how) => self.started(tid, how),
            Event::Exec => self.exec(tid),
            Event::VforkDone => {
                self.thread(tid).in_vfork = false;
                self.go(tid, Resume::Run, 0)
            }
            Event::Interrupted => {
                self.count("interrupt");
                self.go(tid, Resume::Run, 0)
            }
            Event::GroupStop => self.go(tid, Resume::Listen, 0),
            Event::Signal(signal) => self.signal(tid, signal),
        }
    }

    /// Lets a stopped thread go on, now or when it is its turn.
    pub(super) fn go(&mut self, tid: Tid, how: Resume, signal: i32) -> io::Result<()> {
        if let Some(turns) = &mut self.turns
            && how != Resume::Listen
        {
            turns.ready(tid, how, signal);
            return Ok(());
        }
        self.last = tid;
        sys::resume(tid, how, signal)
    }

    fn gone(&mut self, tid: Tid) {
        self.early.remove(&tid);
        self.looks.forget(tid);
        self.place.gone(tid);
        if let Some(turns) = &mut self.turns {
            turns.gone(tid);
        }
        let Some(thread) = self.threads.remove(&tid) else {
            return;
        };
        if tid != thread.process {
            return;
        }
        // The first thread's end is told last.
        if let Some(process) = self.processes.remove(&tid) {
            let mut time = process.clock.now();
            if process.threaded {
                // How its threads came to read the clock is chance, down to a few microseconds: not for its parent.
                time = time.saturating_add(GRID - time.rem_euclid(GRID));
            }
            self.dead.insert(tid, (time, process.clock.used()));
        }
        self.threads.retain(|_, thread| thread.process != tid);
        self.timer_files.retain(|timer| timer.owner != tid);
        self.listings.retain(|(process, _), _| *process != tid);
    }

    fn started(&mut self, tid: Tid, how: Started) -> io::Result<()> {
        let child = Tid::try_from(sys::event_message(tid)?).unwrap_or(0);
        let flags = Self::clone_flags(tid)?;
        let shares = flags & libc::CLONE_THREAD != 0;
        self.count(if shares { "thread" } else { "fork" });
        let thread = self.threads.get_mut(&tid).expect("it has stopped");
        let stream = thread.stream.child();
        let ids = thread.ids.clone();
        thread.in_vfork = how == Started::Vfork;
        let parent = thread.process;
        let owner = if shares { parent } else { child };
        let mut new = Thread::new(owner, stream);
        new.ids = ids;
        self.threads.insert(child, new);
        // Another had the number before, and nobody waited for it.
        self.dead.remove(&child);
        self.adopts |= flags & (libc::CLONE_PARENT | libc::CLONE_NEWPID) != 0;
        self.place.born(child);
        if shares && let Some(process) = self.processes.get_mut(&parent) {
            process.threaded = true;
            process.inside = process.inside.map(Entered::beside_others);
        }
        if !shares && let Some(process) = self.processes.get_mut(&parent) {
            let mut lineage = process.lineage.clone();
            lineage.push(process.children);
            process.children += 1;
            process.unwaited += 1;
            let record = self.evidence.processes.len();
            let mut new = Process::new(process.clock.of_child(), lineage.clone());
            new.privileged = process.privileged;
            new.at_home = process.at_home && flags & call::NEW_VIEW == 0;
            new.nice = process.nice;
            new.affinity = process.affinity;
            new.record = record;
            new.interpreter = process.interpreter;
            if how == Started::Clone {
                // Their memory may be the same from now on.
                process.inside = process.inside.map(Entered::beside_others);
            }
            new.inside = match how {
                Started::Fork => process.inside,
                Started::Vfork | Started::Clone => process.inside.map(Entered::beside_others),
            };
            let argv = self.evidence.processes[process.record].argv.clone();
            self.evidence.processes.push(evidence::Process {
                lineage,
                argv,
                ..evidence::Process::default()
            });
            self.processes.insert(child, new);
        }
        if let Some(turns) = &mut self.turns {
            turns.born(child);
        }
        if self.early.remove(&child) {
            self.count("interrupt");
            self.go(child, Resume::Run, 0)?;
        }
        self.go(tid, Resume::Run, 0)
    }

    /// What a thread asked for when it started what it has just started (clone(2)).
    fn clone_flags(tid: Tid) -> io::Result<i32> {
        let registers = sys::registers(tid)?;
        let flags = match registers.number() {
            libc::SYS_clone => registers.argument(0),
            libc::SYS_clone3 => {
                let mut bytes = [0; 8];
                sys::read_memory(tid, registers.argument(0), &mut bytes)?;
                u64::from_ne_bytes(bytes)
            }
            // fork(2), vfork(2).
            _ => 0,
        };
        Ok(i32::try_from(flags & 0x7fff_ffff).unwrap_or(0))
    }

    fn signal(&mut self, tid: Tid, signal: i32) -> io::Result<()> {
        const SI_KERNEL: i32 = 0x80;
        if signal == libc::SIGSEGV && sys::signal_code(tid)? == SI_KERNEL {
            let mut registers = sys::registers(tid)?;
            let at = registers.instruction();
            let mut code = [0; 8];
            let read = sys::read_memory(tid, at, &mut code).unwrap_or(0);
            self.thread(tid).stack = registers.stack();
            let interpreter = self.in_interpreter(tid, at);
            // Which program's interpreter is the first to ask may be chance: its questions do not count.
            let now = match interpreter {
                Some(_) => self.process(tid).clock.now(),
                None => self.time(tid),
            };
            let ticks = now - self.process(tid).clock_start();
            if registers.read_time_stamp(&code[..read], ticks.cast_unsigned()) {
                self.count("tsc");
                self.learn_time_stamp(tid, interpreter, code);
                sys::set_registers(tid, &registers)?;
                return self.go(tid, Resume::Run, 0);
            }
        }
        if signal == libc::SIGTRAP && self.cannot_go_inside(tid)? {
            return self.go(tid, Resume::Run, 0);
        }
        if signal == libc::SIGCHLD {
            sys::hide_child_times(tid)?;
        }
        self.count("signal");
        self.go(tid, Resume::Run, signal)
    }

    /// The program interpreter looks at the counter several times whenever a program starts, and shows what
    /// it found only when it is asked for statistics (`LD_DEBUG`): it need not fault each time.
    fn learn_time_stamp(&mut self, tid: Tid, interpreter: Option<u64>, code: [u8; 8]) {
        match interpreter {
            None => self.used(tid, Source::Tsc),
            Some(offset) if arch::quiet_time_stamp(code).is_some() => {
                self.time_stamps.insert((offset, code));
            }
            Some(_) => {}
        }
    }

    /// How far from the beginning of the process' program interpreter this is, if it is in it.
    fn in_interpreter(&mut self, tid: Tid, at: u64) -> Option<u64> {
        /// An interpreter is smaller.
        const INTERPRETER: u64 = 1 << 20;
        let base = self.process(tid).interpreter?;
        Some(at.wrapping_sub(base)).filter(|offset| *offset < INTERPRETER)
    }

    /// Takes the instructions out that [`Self::learn_time_stamp`] has found.
    fn quieten_interpreter(&self, tid: Tid, base: u64) -> io::Result<()> {
        if self.time_stamps.is_empty() {
            return Ok(());
        }
        let places: Vec<u64> = self
            .time_stamps
            .iter()
            .map(|(offset, _)| base + offset)
            .collect();
        // Another interpreter may end before such a place, and then before all that follow.
        let found = sys::read_words(tid, &places).unwrap_or_default();
        for ((place, (_, code)), found) in places.iter().zip(&self.time_stamps).zip(found) {
            if found == *code
                && let Some(quiet) = arch::quiet_time_stamp(found)
            {
                sys::patch_memory(tid, *place, quiet)?;
            }
        }
        Ok(())
    }

    fn call(&mut self, tid: Tid) -> io::Result<()> {
        let mut registers = sys::registers(tid)?;
        if let Some(pending) = self.made_again(tid, &registers)? {
            self.count("call again");
            self.thread(tid).pending = Some(pending);
            return self.go(tid, Resume::ToCallEnd, 0);
        }
        let thread = self.thread(tid);
        thread.slept = false;
        thread.stack = registers.stack();
        let number = registers.number();
        *self.calls.entry(number).or_default() += 1;
        let arguments = registers.arguments();
        let call = call::decode(number, &arguments);
        // What stops a thread of one user and not of another, or under one tier alone, says nothing.
        let counts = match call {
            Some(Call::Prctl { option }) => option == libc::PR_SET_TSC,
            _ => !self.unseen.contains(&number),
        };
        if counts && let Some(turns) = &mut self.turns {
            turns.calls();
        }
        let answer = match call {
            Some(call) => {
                if counts {
                    self.process(tid).rest_unless_clock(&call);
                }
                match self.answer(tid, call, &mut registers) {
                    Err(error) if error.raw_os_error() == Some(libc::EFAULT) => {
                        Answer::Gives(-i64::from(libc::EFAULT))
                    }
                    answer => answer?,
                }
            }
            None => self.blocking(tid, number, &mut registers)?,
        };
        self.shorten(tid, number, registers.instruction())?;
        match answer {
            Answer::Gives(result) => {
                registers.skip(result);
                sys::set_registers(tid, &registers)?;
                self.go(tid, Resume::Run, 0)
            }
            Answer::Native => self.go(tid, Resume::Run, 0),
            Answer::ToEnd(pending) => {
                self.thread(tid).pending = Some(pending);
                self.go(tid, Resume::ToCallEnd, 0)
            }
            Answer::Changed(pending) => {
                sys::set_registers(tid, &registers)?;
                self.thread(tid).pending = Some(pending);
                self.go(tid, Resume::ToCallEnd, 0)
            }
        }
    }

    fn call_end(&mut self, tid: Tid) -> io::Result<()> {
        self.count("end of a call");
        let Some(pending) = self.thread(tid).pending.take() else {
            return self.go(tid, Resume::Run, 0);
        };
        let registers = sys::registers(tid)?;
        let Some((pending, registers)) = self.look_again(tid, pending, registers)? else {
            return self.go(tid, Resume::Run, 0);
        };
        let next = match self.finish(tid, pending, registers) {
            // The memory of the answer is gone: the kernel has written to it just now, so only if another
            // thread took it away.
            Err(error) if error.raw_os_error() == Some(libc::EFAULT) => Resume::Run,
            next => next?,
        };
        self.go(tid, next, 0)
    }

    fn exec(&mut self, tid: Tid) -> io::Result<()> {
        self.count("exec");
        let former = Tid::try_from(sys::event_message(tid)?).unwrap_or(tid);
        if former != tid
            && let Some(thread) = self.threads.remove(&former)
        {
            self.threads.insert(tid, thread);
            self.place.gone(former);
            if let Some(turns) = &mut self.turns {
                turns.renamed(former, tid);
            }
        }
        self.threads
            .retain(|other, thread| thread.process != tid || *other == tid);
        let thread = self.thread(tid);
        thread.process = tid;
        thread.pending = None;
        thread.waiting = None;
        thread.again.clear();
        let mut random = [0; 16];
        thread.stream.fill(&mut random);
        let start = match Start::read(tid) {
            Err(error) if error.raw_os_error() == Some(libc::ENOEXEC) => {
                // The filter would kill it at its first call, without a word.
                let name = std::fs::read_to_string(format!("/proc/{tid}/comm")).unwrap_or_default();
                let text = format!(
                    "immbuild: `{}` is a program of another architecture, as 32-bit ones are, and no step can run those\n",
                    name.trim_end()
                );
                let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
                if let Some(pid) = rustix::process::Pid::from_raw(tid) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
                return self.go(tid, Resume::Run, 0);
            }
            start => start?,
        };
        let mut told = start.hidden(&random);
        if let Some(ids) = self.new_program(tid) {
            told.extend(start.ids(ids));
        }
        sys::write_places(tid, &told)?;
        if let Some(base) = start.vdso {
            sys::patch_code(tid, base + self.vdso.at, &self.vdso.code)?;
        }
        if let Some(base) = start.interpreter {
            self.quieten_interpreter(tid, base)?;
        }
        let inside = self.enter_inside(tid, &start)?;
        let process = self.process(tid);
        process.inside = inside;
        process.timers.clear();
        process.next_timer = 0;
        process.privileged = start.is_root;
        process.interpreter = start.interpreter;
        let lineage = process.lineage.clone();
        let record = process.record;
        // A process that did nothing but become this program needs no line of its own.
        let old = &self.evidence.processes[record];
        let record = if old.sources.is_empty() && !self.written.contains_key(&record) {
            record
        } else {
            self.evidence.processes.push(evidence::Process::default());
            self.evidence.processes.len() - 1
        };
        self.process(tid).record = record;
        let new = &mut self.evidence.processes[record];
        new.lineage = lineage;
        new.argv = start.argv;
        self.go(tid, Resume::Run, 0)
    }

    pub(super) fn thread(&mut self, tid: Tid) -> &mut Thread {
        self.threads
            .get_mut(&tid)
            .expect("it has stopped, so it is there")
    }

    pub(super) fn process(&mut self, tid: Tid) -> &mut Process {
        let process = self.threads[&tid].process;
        self.processes
            .get_mut(&process)
            .expect("a process lives as long as its threads")
    }

    pub(super) fn used(&mut self, tid: Tid, source: Source) {
        let record = self.process(tid).record;
        let sources = &mut self.evidence.processes[record].sources;
        *sources.entry(source).or_default() += 1;
    }

    pub(super) fn wrote(&mut self, tid: Tid, path: Vec<u8>) {
        /// A process that writes more is known well enough by then.
        const MOST: usize = 4096;
        let record = self.process(tid).record;
        let paths = self.written.entry(record).or_default();
        if paths.len() < MOST {
            paths.insert(path);
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.others.entry(what).or_default() += 1;
    }

    /// Says once, in the step's log, that a step cannot trace.
    pub(super) fn refuse_tracing(&mut self, tid: Tid) {
        if !std::mem::replace(&mut self.complained, true) {
            let name = std::fs::read_to_string(format!("/proc/{tid}/comm")).unwrap_or_default();
            let text = format!(
                "immbuild: `{}` wants to trace a process, but this step is traced itself: run it with `tier = \"isolated\"`\n",
                name.trim_end()
            );
            let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
        }
    }

    fn into_evidence(self) -> Evidence {
        let mut evidence = self.evidence;
        for (record, paths) in self.written {
            evidence.processes[record].written = paths.into_iter().collect();
        }
        // Stable: programs of one process stay in order.
        evidence
            .processes
            .sort_by(|one, other| one.lineage.cmp(&other.lineage));
        evidence.real = arch::UNCAUGHT
            .iter()
            .map(|name| (*name).to_owned())
            .collect();
        if !self.what.strict {
            evidence.real.push("pids".into());
        }
        evidence.real.sort_unstable();
        let took = self.started.elapsed().as_millis();
        evidence.milliseconds = u64::try_from(took).unwrap_or(u64::MAX);
        evidence.stops = self
            .others
            .into_iter()
            .map(|(name, count)| (name.to_owned(), count))
            .chain(
                self.calls
                    .into_iter()
                    .map(|(number, count)| (super::names::of_call(number), count)),
            )
            .collect();
        evidence
    }
}

impl Thread {
    fn new(process: Tid, stream: Stream) -> Self {
        Self {
            process,
            stream,
            pending: None,
            waiting: None,
            stack: 0,
            asking: Asking::default(),
            in_vfork: false,
            is_halted: false,
            interrupted: None,
            ids: Ids::default(),
            slept: false,
            sets: Sets::new(),
            again: Vec::new(),
            stops: 0,
        }
    }
}

impl Process {
    fn new(clock: Clock, lineage: Vec<u32>) -> Self {
        Self {
            threaded: false,
            ports: Ports::of(&lineage),
            clock,
            lineage,
            children: 0,
            unwaited: 0,
            privileged: true,
            at_home: true,
            handle: None,
            alarm: Alarm::default(),
            idle_timers: [(0, 0); 2],
            timers: BTreeMap::new(),
            next_timer: 0,
            nice: 0,
            affinity: (1 << super::PROCESSORS) - 1,
            children_used: 0,
            record: 0,
            interpreter: None,
            inside: None,
        }
    }

    fn rest_unless_clock(&mut self, call: &Call) {
        // What a process may also answer itself does not count: which of these stop it can be chance.
        let counts = !matches!(
            call,
            Call::ClockGettime { .. }
                | Call::Gettimeofday { .. }
                | Call::Time { .. }
                | Call::Stat(_)
                | Call::Open { .. }
                | Call::Readlink { .. }
        );
        if counts {
            self.clock.rest();
        }
    }

    fn clock_start(&self) -> Time {
        self.clock.when(libc::CLOCK_MONOTONIC, 0).unwrap_or(0)
    }
}

/// What the kernel put onto the stack of a new program (execve(2), getauxval(3)).
pub(super) struct Start {
    pub(super) registers: Registers,
    argv: Vec<Vec<u8>>,
    is_root: bool,
    random: Option<u64>,
    pub(super) interpreter: Option<u64>,
    pub(super) vdso: Option<u64>,
    /// Where entries are that name what the kernel mapped for reading the clock without a call, and what
    /// differs between processors and kernels.
    hidden: Vec<u64>,
    /// Where the ids stand: user, effective user, group, effective group, and whether it is a set-id program.
    ids: [Option<u64>; 5],
    /// Where the least size of a signal stack stands, which depends on the processor.
    signal_stack: Option<u64>,
}

impl Start {
    fn read(tid: Tid) -> io::Result<Self> {
        const AT_BASE: u64 = 7;
        const AT_UID: u64 = 11;
        const AT_EUID: u64 = 12;
        const AT_GID: u64 = 13;
        const AT_EGID: u64 = 14;
        const AT_SECURE: u64 = 23;
        const AT_SYSINFO_EHDR: u64 = 33;
        const AT_RANDOM: u64 = 25;
        const AT_HWCAP2: u64 = 26;
        const AT_RSEQ_FEATURE_SIZE: u64 = 27;
        const AT_RSEQ_ALIGN: u64 = 28;
        const AT_HWCAP3: u64 = 29;
        const AT_HWCAP4: u64 = 30;
        const AT_MINSIGSTKSZ: u64 = 51;
        let registers = sys::registers(tid)?;
        let mut words = Words::new(tid, registers.stack());
        let count = words.next()?;
        let mut arguments = Vec::new();
        for at in 0..count {
            let address = words.next()?;
            if at < 8 {
                arguments.push(address);
            }
        }
        words.next()?;
        while words.next()? != 0 {}
        let mut start = Self {
            registers,
            argv: Vec::new(),
            is_root: true,
            random: None,
            interpreter: None,
            vdso: None,
            hidden: Vec::new(),
            ids: [None; 5],
            signal_stack: None,
        };
        loop {
            let at = words.at;
            let (kind, value) = (words.next()?, words.next()?);
            let ids = [AT_UID, AT_EUID, AT_GID, AT_EGID, AT_SECURE];
            if let Some(which) = ids.iter().position(|id| *id == kind) {
                start.ids[which] = Some(at + 8);
            }
            match kind {
                0 => break,
                AT_RANDOM => start.random = Some(value),
                AT_SYSINFO_EHDR => {
                    start.vdso = Some(value);
                    start.hidden.push(at);
                }
                AT_BASE => start.interpreter = (value != 0).then_some(value),
                AT_UID | AT_EUID => start.is_root &= value == 0,
                AT_HWCAP2 | AT_HWCAP3 | AT_HWCAP4 | AT_RSEQ_FEATURE_SIZE | AT_RSEQ_ALIGN => {
                    start.hidden.push(at);
                }
                AT_MINSIGSTKSZ => start.signal_stack = Some(at + 8),
                _ => {}
            }
        }
        start.argv = strings(tid, &arguments, 256)?;
        Ok(start)
    }

    /// What is to be written where, so that it has these ids.
    fn ids(&self, ids: [u64; 5]) -> impl Iterator<Item = (u64, Vec<u8>)> {
        let places = self.ids.iter().zip(ids);
        places.filter_map(|(at, id)| Some(((*at)?, id.to_ne_bytes().to_vec())))
    }

    /// What is to be written where, so that it sees nothing that differs between machines.
    fn hidden(&self, random: &[u8; 16]) -> Vec<(u64, Vec<u8>)> {
        const AT_IGNORE: u64 = 1;
        /// More than any processor asks for today.
        const SIGNAL_STACK: u64 = 16 << 10;
        let ignored = self
            .hidden
            .iter()
            .map(|at| (*at, AT_IGNORE.to_ne_bytes().to_vec()));
        let signal_stack = self
            .signal_stack
            .map(|at| (at, SIGNAL_STACK.to_ne_bytes().to_vec()));
        let random = self.random.map(|at| (at, random.to_vec()));
        ignored.chain(signal_stack).chain(random).collect()
    }
}

/// Reads words of another process one after the other.
struct Words {
    tid: Tid,
    at: u64,
    buffer: Vec<u8>,
    start: u64,
}

impl Words {
    fn new(tid: Tid, at: u64) -> Self {
        Self {
            tid,
            at,
            buffer: Vec::new(),
            start: at,
        }
    }

    fn next(&mut self) -> io::Result<u64> {
        const CHUNK: u64 = 4096;
        let mut offset = usize::try_from(self.at - self.start).expect("within the buffer");
        if offset + 8 > self.buffer.len() {
            self.start = self.at;
            offset = 0;
            // Up to the end of a page, which may be the last.
            let length = CHUNK - self.at % CHUNK;
            let length = if length < 8 { 8 } else { length };
            self.buffer
                .resize(usize::try_from(length).expect("a page"), 0);
            let read = sys::read_memory(self.tid, self.at, &mut self.buffer)?;
            self.buffer.truncate(read);
        }
        let word = self.buffer.get(offset..offset + 8);
        let word = word.ok_or_else(|| io::Error::from_raw_os_error(libc::EFAULT))?;
        self.at += 8;
        Ok(u64::from_ne_bytes(word.try_into().expect("eight bytes")))
    }
}

/// Strings of another process, each cut at `longest`: with one look where they lie together, as those of a new program do.
fn strings(tid: Tid, addresses: &[u64], longest: usize) -> io::Result<Vec<Vec<u8>>> {
    const PAGE: u64 = 4096;
    let first = addresses.first().copied().unwrap_or(0);
    let last = addresses.last().copied().unwrap_or(0);
    let length = (last | (PAGE - 1)).wrapping_sub(first).wrapping_add(1);
    let mut together = Vec::new();
    if (1..=2 * PAGE).contains(&length) {
        together.resize(usize::try_from(length).expect("two pages"), 0);
        let read = sys::read_memory(tid, first, &mut together).unwrap_or(0);
        together.truncate(read);
    }
    let string = |address: &u64| {
        let at = usize::try_from(address.wrapping_sub(first)).unwrap_or(usize::MAX);
        let rest = together.get(at..).unwrap_or_default();
        let rest = &rest[..rest.len().min(longest)];
        match rest.iter().position(|byte| *byte == 0) {
            Some(end) => Ok(rest[..end].to_vec()),
            None => sys_string(tid, *address, longest),
        }
    };
    addresses.iter().map(string).collect()
}

/// A string of another process, cut at `longest`.
pub(super) fn sys_string(tid: Tid, address: u64, longest: usize) -> io::Result<Vec<u8>> {
    const PAGE: u64 = 4096;
    let mut text = Vec::new();
    let mut at = address;
    while text.len() < longest {
        let room = usize::try_from(PAGE - at % PAGE).expect("at most a page");
        let mut part = vec![0; room.min(256).min(longest - text.len())];
        let read = sys::read_memory(tid, at, &mut part)?;
        if let Some(end) = part[..read].iter().position(|byte| *byte == 0) {
            text.extend_from_slice(&part[..end]);
            return Ok(text);
        }
        if read == 0 {
            return Err(io::Error::from_raw_os_error(libc::EFAULT));
        }
        text.extend_from_slice(&part[..read]);
        at += read as u64;
    }
    Ok(text)
}

/// The letter for what a thread does (`proc_pid_stat(5)`).
pub(super) fn state(tid: Tid) -> Option<u8> {
    let file = sys::open_proc(tid, "stat").ok()?;
    state_in(&sys::read_proc(&file).ok()?)
}

/// The same from the text that says it.
pub(super) fn state_in(text: &[u8]) -> Option<u8> {
    let end = text.iter().rposition(|byte| *byte == b')')?;
    text.get(end + 2).copied()
}

/// Does this signal wait to be delivered to the thread or its process?
fn is_pending(tid: Tid, signal: i32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    text.lines().any(|line| {
        let mask = line
            .strip_prefix("SigPnd:")
            .or_else(|| line.strip_prefix("ShdPnd:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
    })
}

/// How often a thread has run, as text that changes when it does.
pub(super) fn switches(tid: Tid) -> String {
    let text = std::fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    text.lines()
        .filter(|line| line.contains("ctxt_switches"))
        .collect()
}

/// Times of another process: one `struct timespec` or `struct timeval`.
pub(super) fn read_span(tid: Tid, span: Span) -> io::Result<Option<Time>> {
    let mut bytes = [0; 16];
    let fault = || io::Error::from_raw_os_error(libc::EFAULT);
    let read = sys::read_memory(tid, span.address(), &mut bytes)?;
    let (needed, unit) = match span {
        Span::Nano(_) => (16, 1),
        Span::Micro(_) => (16, 1000),
        Span::Whole(_) => (8, 1),
    };
    if read < needed {
        return Err(fault());
    }
    if let Span::Whole(_) = span {
        bytes[8..].fill(0);
    }
    Ok(super::clock::from_pair(bytes, unit))
}
