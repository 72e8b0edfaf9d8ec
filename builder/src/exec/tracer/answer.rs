//! Answers that are values: clocks, random bytes, what the machine is.

use std::io;

use super::arch::{self, Machine as _, Registers};
use super::call::{Call, Control, WaitChild};
use super::clock::{SECOND, Time, to_timespec, to_timeval};
use super::evidence::Source;
use super::open::PATH_MAX;
use super::run::{Answer, Pending, Tracer, sys_string};
use super::sys::{self, Resume, Tid};

/// An error number as a call gives it.
pub(super) const fn error(number: i32) -> Answer {
    Answer::Gives(-(number as i64))
}

impl Tracer {
    #[expect(clippy::too_many_lines, reason = "a table: one call after the other")]
    pub(super) fn answer(
        &mut self,
        tid: Tid,
        call: Call,
        registers: &mut Registers,
    ) -> io::Result<Answer> {
        if let Some(answer) = self.permission(tid, call, registers)? {
            return Ok(answer);
        }
        match call {
            Call::ClockGettime { .. }
            | Call::ClockGetres { .. }
            | Call::Gettimeofday { .. }
            | Call::Time { .. }
            | Call::Times { .. }
            | Call::Getrusage { .. } => {
                self.used(tid, Source::Clock);
                self.clock_answer(tid, call)
            }
            Call::Getrandom { to, length, flags } => self.random_bytes(tid, to, length, flags),
            Call::Sysinfo { .. }
            | Call::Uname { .. }
            | Call::GetAffinity { .. }
            | Call::SetAffinity { .. }
            | Call::Getcpu { .. }
            | Call::GetPriority { .. }
            | Call::SetPriority { .. } => {
                self.used(tid, Source::Machine);
                self.machine_answer(tid, call)
            }
            Call::Sleep { .. }
            | Call::Wait(_)
            | Call::Alarm { .. }
            | Call::SetItimer { .. }
            | Call::GetItimer { .. }
            | Call::TimerCreate { .. }
            | Call::TimerSettime { .. }
            | Call::TimerGettime { .. }
            | Call::TimerGetoverrun { .. }
            | Call::TimerDelete { .. }
            | Call::TimerfdSettime { .. }
            | Call::TimerfdGettime { .. } => {
                self.used(tid, Source::Timer);
                self.timer_answer(tid, call, registers)
            }
            Call::WaitChild(wait) if wait.proper && self.is_childless(tid) => {
                Ok(error(libc::ECHILD))
            }
            Call::WaitChild(wait) => Ok(Answer::ToEnd(Pending::Child(wait))),
            Call::Statfs { name, to } => {
                self.used(tid, Source::Machine);
                // As a rule it is asked for a file system that no step has (`/sys/fs/selinux`).
                let missing = name.map(|name| self.missing(tid, name)).transpose()?;
                Ok(match missing.flatten() {
                    Some(number) => error(number),
                    None => Answer::ToEnd(Pending::Statfs { to }),
                })
            }
            Call::Open { name, flags } => self.open(tid, name, flags, registers),
            Call::OpenHow { name, how } => {
                let mut bytes = [0; 8];
                sys::read_memory(tid, how, &mut bytes)?;
                #[expect(clippy::cast_possible_truncation, reason = "no flag is above")]
                let flags = u64::from_ne_bytes(bytes) as i32;
                self.open(tid, name, flags, registers)
            }
            Call::Stat(stat) => {
                self.used(tid, Source::Files);
                self.stat(tid, stat)
            }
            Call::Listing {
                descriptor,
                to,
                length,
                old,
            } => {
                self.used(tid, Source::Listing);
                self.listing(tid, descriptor, to, length, old)
            }
            Call::Touch { name, times, flags } => self.touch(tid, name, times, flags),
            Call::Readlink { name, to } => {
                let path = sys_string(tid, name.path, PATH_MAX)?;
                Ok(if path.starts_with(b"/proc/") {
                    Answer::ToEnd(Pending::Link { to })
                } else {
                    Answer::Native
                })
            }
            Call::Remove { name } => {
                self.names(tid, Some(name), None)?;
                Ok(Answer::Native)
            }
            Call::Bind {
                socket,
                address,
                length,
            } => self.bind(tid, socket, address, length),
            Call::NeedsPort { socket } => {
                self.give_port(tid, socket);
                self.blocking(tid, registers.number(), registers)
            }
            Call::SetSocket { level, option } => {
                // Times of arrival: SO_TIMESTAMP and its like (asm-generic/socket.h).
                let stamps =
                    level == libc::SOL_SOCKET && [29, 35, 37, 63, 64, 65].contains(&option);
                Ok(if stamps {
                    error(libc::ENOPROTOOPT)
                } else {
                    Answer::Native
                })
            }
            Call::Control { kind, command, to } => {
                // Perhaps with the `IPC_64` of old C libraries.
                Ok(if kind.tells().contains(&(command & 0xff)) {
                    Answer::ToEnd(Pending::Control { kind, to })
                } else {
                    Answer::Native
                })
            }
            Call::Owner {
                name,
                flags,
                uid,
                gid,
            } => Ok(self.change_owner(tid, name, flags, (uid, gid), registers)),
            Call::Make { name } => {
                self.names(tid, None, Some(name))?;
                Ok(self.make(name))
            }
            Call::Rename {
                from,
                to,
                flags,
                stays,
            } => {
                self.names(tid, (!stays).then_some(from), Some(to))?;
                Ok(self.rename(tid, from, to, flags))
            }
            Call::Attributes {
                name,
                flags,
                to,
                size,
            } if self.owners.is_some() => self.attributes(tid, name, flags, (to, size)),
            Call::Attributes { to, .. } => Ok(Answer::ToEnd(Pending::Names { to })),
            Call::Attribute { name } => self.attribute(tid, name),
            Call::Identity => self.identity(tid, registers),
            Call::Become if self.what.owners => self.identity(tid, registers),
            Call::Root { stays } => {
                // The first of a new namespace of pids takes the orphans.
                self.adopts = true;
                Ok(if stays {
                    Answer::Native
                } else {
                    Answer::ToEnd(Pending::Root)
                })
            }
            Call::Access => Ok(Answer::Native),
            Call::Rights if self.what.owners => self.set_capabilities(tid, registers),
            Call::Become | Call::Rights => {
                self.process(tid).privileged = false;
                Ok(Answer::Native)
            }
            Call::Ptrace => {
                self.refuse_tracing(tid);
                Ok(error(libc::EPERM))
            }
            // The counter faults whatever the process wants; it is told that it does not.
            Call::Prctl {
                option: libc::PR_SET_TSC,
            } => Ok(Answer::Gives(0)),
            Call::Untraced
            | Call::Prctl {
                option: libc::PR_SET_CHILD_SUBREAPER,
            } => {
                self.adopts = true;
                Ok(Answer::Native)
            }
            Call::Prctl { option } => Ok(self.control_capabilities(tid, option, registers)),
            Call::Pipe { to } => Ok(self.make_pipe(tid, to)),
        }
    }

    /// What is done when a call is over.
    pub(super) fn finish(
        &mut self,
        tid: Tid,
        pending: Pending,
        registers: Registers,
    ) -> io::Result<Resume> {
        match pending {
            Pending::Wait(saved) => self.end_wait(tid, saved, &registers),
            Pending::Root => {
                if registers.result() == 0 {
                    self.process(tid).at_home = false;
                }
                Ok(Resume::Run)
            }
            Pending::Child(wait) => {
                let child = waited_for(tid, registers.result(), wait)?;
                self.child_answer(tid, child, wait)?;
                Ok(Resume::Run)
            }
            Pending::Stat(stat) => {
                if registers.result() == 0 {
                    self.stat_end(tid, stat)?;
                }
                Ok(Resume::Run)
            }
            Pending::Statfs { to } => {
                if registers.result() == 0 {
                    hide_space(tid, to)?;
                }
                Ok(Resume::Run)
            }
            Pending::Owner(then) => self.owner_end(tid, then, &registers),
            Pending::Opened { flags, new } => {
                if let Ok(descriptor @ 0..) = i32::try_from(registers.result()) {
                    if new {
                        self.opened_new(tid, descriptor)?;
                    }
                    self.opened(tid, descriptor, flags);
                }
                Ok(Resume::Run)
            }
            Pending::Content {
                saved,
                content,
                stands_for,
            } => self.fill_content(tid, saved, &registers, &content, stands_for),
            Pending::Pair { saved, pair, minor } => {
                self.feed_pair(tid, saved, registers, pair, minor)
            }
            Pending::Closing {
                saved,
                reader,
                entered: false,
            } => {
                self.thread(tid).pending = Some(Pending::Closing {
                    saved,
                    reader,
                    entered: true,
                });
                Ok(Resume::ToCallEnd)
            }
            Pending::Closing {
                mut saved, reader, ..
            } => {
                saved.skip(reader.into());
                sys::set_registers(tid, &saved)?;
                Ok(Resume::Run)
            }
            Pending::Redirected(mut saved) => {
                saved.set_result(registers.result());
                sys::set_registers(tid, &saved)?;
                Ok(Resume::Run)
            }
            Pending::Link { to } => {
                if let Ok(length @ 1..) = usize::try_from(registers.result()) {
                    let mut target = vec![0; length];
                    sys::read_memory(tid, to, &mut target)?;
                    if let Some(mut quiet) = super::proc::quiet_link(&target) {
                        quiet.truncate(length);
                        sys::write_memory(tid, to, &quiet)?;
                        let mut registers = registers;
                        registers.set_result(i64::try_from(quiet.len()).unwrap_or(0));
                        sys::set_registers(tid, &registers)?;
                    }
                }
                Ok(Resume::Run)
            }
            Pending::Names { to } => {
                sort_names(tid, to, registers.result())?;
                Ok(Resume::Run)
            }
            Pending::Control { kind, to } => {
                if registers.result() >= 0 {
                    self.hide_times(tid, kind, to)?;
                }
                Ok(Resume::Run)
            }
            // It was looked at before.
            Pending::Look(_) | Pending::Pieces(_) | Pending::Arrival(_) => Ok(Resume::Run),
            Pending::Blocked => {
                self.ended_a_wait(tid, registers.number());
                Ok(Resume::Run)
            }
        }
    }

    /// Times in what `IPC_STAT` gives: the process' own.
    fn hide_times(&mut self, tid: Tid, kind: Control, to: u64) -> io::Result<()> {
        let places: &[u64] = match kind {
            Control::Queue => &[48, 56, 64],
            Control::Semaphores => &[48, 64],
            Control::Memory => &[56, 64, 72],
        };
        let now = self.time(tid).div_euclid(SECOND);
        for place in places {
            let mut bytes = [0; 8];
            sys::read_memory(tid, to + place, &mut bytes)?;
            if bytes != [0; 8] {
                sys::write_memory(tid, to + place, &now.to_ne_bytes())?;
            }
        }
        Ok(())
    }

    /// What the clock shows a thread that asks for the time.
    pub(super) fn time(&mut self, tid: Tid) -> Time {
        let thread = self.threads.get_mut(&tid).expect("it has stopped");
        let process = self.processes.get_mut(&thread.process);
        let process = process.expect("a process lives as long as its threads");
        if self.what.strict || !process.threaded {
            return process.clock.read();
        }
        thread.asking.asks(thread.stack);
        process.clock.read_among_threads(&thread.asking)
    }

    fn clock_answer(&mut self, tid: Tid, call: Call) -> io::Result<Answer> {
        let now = match call {
            Call::ClockGetres { .. } | Call::Getrusage { .. } => self.process(tid).clock.now(),
            _ => self.time(tid),
        };
        let process = self.process(tid);
        let clock = &process.clock;
        Ok(match call {
            Call::ClockGettime { clock: number, to } => match clock.show(number, now) {
                Some(time) => {
                    sys::write_memory(tid, to, &to_timespec(time))?;
                    Answer::Gives(0)
                }
                None => error(libc::EINVAL),
            },
            Call::ClockGetres { clock: number, to } => {
                if clock.show(number, 0).is_none() {
                    return Ok(error(libc::EINVAL));
                }
                if to != 0 {
                    sys::write_memory(tid, to, &to_timespec(1))?;
                }
                Answer::Gives(0)
            }
            Call::Gettimeofday { to, zone } => {
                if to != 0 {
                    sys::write_memory(tid, to, &to_timeval(now))?;
                }
                if zone != 0 {
                    sys::write_memory(tid, zone, &[0; 8])?;
                }
                Answer::Gives(0)
            }
            Call::Time { to } => {
                let seconds = now.div_euclid(SECOND);
                if to != 0 {
                    sys::write_memory(tid, to, &seconds.to_ne_bytes())?;
                }
                Answer::Gives(seconds)
            }
            Call::Times { to } => {
                const TICK: i64 = SECOND / 100;
                let uptime = clock.show(libc::CLOCK_MONOTONIC, now).unwrap_or(0);
                if to != 0 {
                    let (own, children) = (clock.used() / TICK, process.children_used / TICK);
                    sys::write_memory(tid, to, &words(&[own, 0, children, 0]))?;
                }
                Answer::Gives(uptime / TICK)
            }
            Call::Getrusage { who, to } => {
                let used = match who {
                    libc::RUSAGE_SELF | libc::RUSAGE_THREAD => clock.used(),
                    libc::RUSAGE_CHILDREN => process.children_used,
                    _ => return Ok(error(libc::EINVAL)),
                };
                sys::write_memory(tid, to, &rusage(used))?;
                Answer::Gives(0)
            }
            _ => Answer::Native,
        })
    }

    fn random_bytes(&mut self, tid: Tid, to: u64, length: u64, flags: u64) -> io::Result<Answer> {
        /// `GRND_NONBLOCK | GRND_RANDOM | GRND_INSECURE`.
        const FLAGS: u64 = 7;
        /// As much as the kernel gives at once (random(4)).
        const MOST: u64 = (32 << 20) - 1;
        const CHUNK: usize = 64 << 10;
        self.used(tid, Source::Random);
        if flags & !FLAGS != 0 {
            return Ok(error(libc::EINVAL));
        }
        let length = length.min(MOST);
        let mut done = 0;
        while done < length {
            let count = usize::try_from(length - done).map_or(CHUNK, |left| left.min(CHUNK));
            let mut bytes = vec![0; count];
            self.thread(tid).stream.fill(&mut bytes);
            sys::write_memory(tid, to + done, &bytes)?;
            done += count as u64;
        }
        Ok(Answer::Gives(length.cast_signed()))
    }

    fn machine_answer(&mut self, tid: Tid, call: Call) -> io::Result<Answer> {
        let (names, all) = (self.names, (1u64 << super::PROCESSORS) - 1);
        let now = match call {
            Call::Sysinfo { .. } => self.time(tid),
            _ => 0,
        };
        let process = self.process(tid);
        Ok(match call {
            Call::Uname { to } => {
                const FIELD: usize = 65;
                let fields = [
                    "Linux",
                    names.host,
                    names.release,
                    names.version,
                    arch::MACHINE,
                    names.domain,
                ];
                let mut bytes = vec![0; FIELD * fields.len()];
                for (field, text) in bytes.chunks_mut(FIELD).zip(fields) {
                    field[..text.len()].copy_from_slice(text.as_bytes());
                }
                sys::write_memory(tid, to, &bytes)?;
                Answer::Gives(0)
            }
            Call::Sysinfo { to } => {
                let uptime = process.clock.show(libc::CLOCK_MONOTONIC, now).unwrap_or(0);
                let memory = names.memory.cast_signed();
                let mut bytes = words(&[uptime / SECOND, 0, 0, 0, memory, memory, 0, 0, 0, 0]);
                // `procs` and padding; no high memory; bytes as unit.
                bytes.extend_from_slice(&words(&[1, 0, 0, 1]));
                sys::write_memory(tid, to, &bytes)?;
                Answer::Gives(0)
            }
            Call::GetAffinity { length, to } => {
                const WORD: u64 = 8;
                if length < WORD || length % WORD != 0 {
                    return Ok(error(libc::EINVAL));
                }
                sys::write_memory(tid, to, &process.affinity.to_ne_bytes())?;
                Answer::Gives(WORD.cast_signed())
            }
            Call::SetAffinity { length, from } => {
                let mut bytes = [0; 8];
                let length = usize::try_from(length).map_or(8, |length| length.min(8));
                sys::read_memory(tid, from, &mut bytes[..length])?;
                let wanted = u64::from_ne_bytes(bytes) & all;
                if wanted == 0 {
                    return Ok(error(libc::EINVAL));
                }
                process.affinity = wanted;
                Answer::Gives(0)
            }
            Call::Getcpu { cpu, node } => {
                for to in [cpu, node].into_iter().filter(|to| *to != 0) {
                    sys::write_memory(tid, to, &[0; 4])?;
                }
                Answer::Gives(0)
            }
            // getpriority(2), "C library/kernel differences": 40 to 1 instead of -20 to 19.
            Call::GetPriority { which: 0..=2 } => Answer::Gives(i64::from(20 - process.nice)),
            Call::SetPriority {
                which: 0..=2,
                value,
            } => {
                process.nice = value.clamp(process.nice, 19);
                if value < process.nice {
                    error(libc::EACCES)
                } else {
                    Answer::Gives(0)
                }
            }
            Call::GetPriority { .. } | Call::SetPriority { .. } => error(libc::EINVAL),
            _ => Answer::Native,
        })
    }

    /// Has its process no child, not even one that has ended? A wait ends at once then. Under `strict` its turn would be
    /// another's.
    fn is_childless(&self, tid: Tid) -> bool {
        let process = &self.processes[&self.threads[&tid].process];
        process.unwaited == 0 && !self.adopts && !self.what.strict
    }

    /// A child was waited for: what it knew of time is known now.
    fn child_answer(&mut self, tid: Tid, child: Tid, wait: WaitChild) -> io::Result<()> {
        if child <= 0 {
            return Ok(());
        }
        // One that was only stopped lives on.
        let mut used = 0;
        if let Some((time, own)) = self.dead.get(&child).copied() {
            used = own;
            self.process(tid).clock.learn(time);
            if !wait.stays {
                self.dead.remove(&child);
                let process = self.process(tid);
                process.children_used += own;
                process.unwaited = process.unwaited.saturating_sub(1);
            }
        }
        if wait.rusage != 0 {
            sys::write_memory(tid, wait.rusage, &rusage(used))?;
        }
        Ok(())
    }
}

/// The child that wait4(2) gives, or that waitid(2) writes to `info` or was asked for; 0 if none.
fn waited_for(tid: Tid, result: i64, wait: WaitChild) -> io::Result<Tid> {
    if result != 0 || wait.info == 0 {
        let child = Tid::try_from(result).unwrap_or(0);
        return Ok(if child == 0 { wait.child } else { child });
    }
    let mut bytes = [0; 4];
    // `si_pid`.
    sys::read_memory(tid, wait.info + 12, &mut bytes)?;
    Ok(Tid::from_ne_bytes(bytes))
}

/// The names of attributes that the kernel has written, in order: file systems have orders of their own.
fn sort_names(tid: Tid, at: u64, length: i64) -> io::Result<()> {
    let Ok(length @ 1..) = usize::try_from(length) else {
        return Ok(());
    };
    if at == 0 {
        return Ok(());
    }
    let mut names = vec![0; length];
    sys::read_memory(tid, at, &mut names)?;
    let mut sorted: Vec<&[u8]> = names.split_inclusive(|byte| *byte == 0).collect();
    sorted.sort_unstable();
    sys::write_memory(tid, at, &sorted.concat())
}

/// `struct rusage`: CPU time, and nothing else that is known.
fn rusage(used: i64) -> Vec<u8> {
    const REST: usize = 14 * 8;
    let mut bytes = to_timeval(used).to_vec();
    bytes.extend_from_slice(&[0; 16]);
    // The largest size in memory: programs divide by it.
    bytes.extend_from_slice(&4096i64.to_ne_bytes());
    bytes.resize(32 + REST, 0);
    bytes
}

fn words(values: &[i64]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_ne_bytes())
        .collect()
}

/// `struct statfs`: a file system that is half full, without a name.
fn hide_space(tid: Tid, at: u64) -> io::Result<()> {
    const BLOCK: i64 = 4096;
    const BLOCKS: i64 = 1 << 28;
    const FILES: i64 = 1 << 28;
    const NAME: i64 = 255;
    let constants = words(&[
        BLOCK,
        BLOCKS,
        BLOCKS / 2,
        BLOCKS / 2,
        FILES,
        FILES / 2,
        0,
        NAME,
        BLOCK,
    ]);
    // After the type; the id is before the longest name and the size of a fragment.
    sys::write_memory(tid, at + 8, &constants)
}
