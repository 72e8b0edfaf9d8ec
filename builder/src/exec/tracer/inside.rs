//! Answers that a process gives itself, without being stopped.
//!
//! Most of what programs ask is about files that were there before they started and that nobody has changed. What is to be
//! said of such a file is the same from its first question on, so it is put into a table that every process has in its
//! memory, together with code that asks the kernel, looks the answer up, and puts what is to be shown over it. A call gets
//! there once its place in the program is known: when it has stopped its thread for the first time, it is replaced by a
//! jump. Everything else, and every process where this cannot be done, is answered as before; nobody can tell by the
//! answers.
//!
//! A row holds for a file with exactly these times of change and of its name, both from before the start: whoever changes
//! it makes the row void by that, also beside us.
//!
//! Where things are is the same in every process: nothing of a program is there while addresses are not random and the
//! stack is not unusually large, and libraries are near enough for a jump.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs::File;
use std::io;

use super::arch::inside::{self as code, Displaced};
use super::arch::{self, Machine as _};
use super::clock::Clock;
use super::run::{Start, Tracer};
use super::sys::{self, Shared, Tid};

/// Where the file is in the memory of a process: between the libraries and the stack, which may grow to 96 MiB.
pub(super) const BASE: u64 = 0x7fff_f800_0000;
/// Bytes of the page in which calls are let through.
pub(super) const CODE: u64 = 0x1000;
/// Where the code begins in it.
const CODE_AT: u64 = 0x100;
/// The numbers of devices whose files need not be replaced when they are opened, in the first page.
pub(super) const DEVICES_AT: u64 = BASE + 0x10;
pub(super) const DEVICES: usize = 8;
/// A call that stops.
pub(super) const GATE: u64 = BASE + 0x1000;
/// A piece of code for each place that jumps.
const TRAMPOLINES: u64 = BASE + 0x2000;
/// The table.
pub(super) const TABLE: u64 = BASE + 0x2_0000;
/// Rows of the table.
pub(super) const SLOTS: u64 = 1 << 17;
/// Bytes of a row: what the kernel says, and what is shown.
const ROW: u64 = 48 + 144;
/// How many rows are looked at for a file.
pub(super) const LOOKS: u64 = 16;
/// Spreads file numbers over the table: 2^64 divided by the golden ratio.
pub(super) const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// How far from the beginning.
fn offset(address: u64) -> usize {
    usize::try_from(address - BASE).expect("within a small file")
}

/// Bytes of the whole.
pub(super) const LENGTH: u64 = TABLE - BASE + SLOTS * ROW;

/// A process that has table and code.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entered {
    /// Where its vDSO is.
    vdso: u64,
    /// No other thread runs the code that is changed when a call is made to jump.
    alone: bool,
    /// A thread of it is refused what the code would do: all calls stop.
    left: bool,
}

impl Entered {
    /// Another thread may run in the same memory.
    pub(super) fn beside_others(self) -> Self {
        Self {
            alone: false,
            ..self
        }
    }
}

/// The table, and the places that jump.
#[derive(Debug)]
pub(super) struct Inside {
    memory: Shared,
    /// What a process does to get it, and where it is if it cannot: behind a trap.
    setup: (Vec<u8>, u64),
    path: Vec<u8>,
    devices: Vec<u64>,
    rows: BTreeMap<(u64, u64), u64>,
    taken: Vec<bool>,
    /// Where a call goes: by where it returns to, by its number and by what was before it.
    trampolines: BTreeMap<(u64, i64, Displaced), u64>,
    /// Calls that are made in another way, or from too far away.
    unknown: BTreeSet<(u64, i64)>,
    next: u64,
    /// Calls of the program interpreter, by their distance from its beginning: it makes them before anything else.
    interpreter: BTreeMap<u64, (i64, Displaced)>,
}

impl Inside {
    /// Writes the code into an empty file, which processes find at `path`.
    pub(super) fn new(file: File, path: CString) -> io::Result<Self> {
        let mut memory = Shared::new(file, offset(BASE + LENGTH))?;
        memory.write(offset(BASE + CODE_AT), sys::inside_code());
        memory.write(offset(GATE), &code::GATE_CODE);
        let length = u32::try_from(LENGTH).expect("a small file");
        let slots = usize::try_from(SLOTS).expect("a small table");
        Ok(Self {
            memory,
            setup: code::setup(&path, length),
            path: path.into_bytes(),
            devices: Vec::new(),
            rows: BTreeMap::new(),
            taken: vec![false; slots],
            trampolines: BTreeMap::new(),
            unknown: BTreeSet::new(),
            next: TRAMPOLINES,
            interpreter: BTreeMap::new(),
        })
    }

    /// The code that maps the file.
    pub(super) fn setup(&self) -> &[u8] {
        &self.setup.0
    }

    /// What the file is called among the processes.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// From now on a file that the kernel describes by `real` is shown as `shown`, as long as that is what the kernel says.
    /// Where that is not `settled` it is only known where the file is.
    fn tell(&mut self, real: &libc::statx, shown: &libc::statx, settled: bool) {
        let device = libc::makedev(real.stx_dev_major, real.stx_dev_minor);
        let number = real.stx_ino;
        self.know_device(device);
        if !settled || number == 0 || self.rows.contains_key(&(device, number)) {
            return;
        }
        let first = number.wrapping_mul(SPREAD) >> (64 - SLOTS.trailing_zeros());
        let free = (first..first + LOOKS)
            .map(|slot| slot % SLOTS)
            .find(|slot| !self.taken[usize::try_from(*slot).expect("a small table")]);
        let Some(slot) = free else {
            return;
        };
        let key = arch::to_stat(real);
        let mut row = Vec::with_capacity(usize::try_from(ROW).expect("a small row"));
        row.extend_from_slice(&key[..8]);
        // Its number comes last: a row without one is none.
        row.extend_from_slice(&[0; 8]);
        row.extend_from_slice(&key[88..120]);
        row.extend_from_slice(&arch::to_stat(shown));
        let at = offset(TABLE + slot * ROW);
        self.memory.write(at, &row);
        self.memory.publish(at + 8, number);
        self.taken[usize::try_from(slot).expect("a small table")] = true;
        self.rows.insert((device, number), slot);
    }

    /// Something else may have to be shown of this file.
    fn forget(&mut self, real: &libc::statx) {
        let device = libc::makedev(real.stx_dev_major, real.stx_dev_minor);
        if let Some(slot) = self.rows.remove(&(device, real.stx_ino)) {
            // No file has this number, and others are still found behind it.
            self.memory
                .publish(offset(TABLE + slot * ROW) + 8, u64::MAX);
        }
    }

    fn know_device(&mut self, device: u64) {
        if self.devices.contains(&device) || self.devices.len() == DEVICES {
            return;
        }
        let at = offset(DEVICES_AT) + 8 * self.devices.len();
        self.memory.publish(at, device);
        self.devices.push(device);
    }

    /// Makes the call that returns to `behind` jump, if it is one and can. Gives the instruction that did not stay.
    fn shorten(&mut self, tid: Tid, number: i64, behind: u64) -> io::Result<Option<Displaced>> {
        if self.unknown.contains(&(behind, number)) {
            return Ok(None);
        }
        let mut found = [0; LOOK];
        let read = sys::read_memory(tid, behind.wrapping_sub(code::CALL as u64), &mut found);
        let (call, word) = (found.first_chunk(), found.last_chunk());
        let displaced = match (read, call) {
            (Ok(read), Some(call)) if read == found.len() => code::displaced(call, number),
            _ => None,
        };
        let jump = match displaced {
            Some(displaced) => self.jump(behind, number, displaced),
            None => None,
        };
        match jump.zip(word) {
            Some((jump, word)) => put(tid, behind, *word, jump)?,
            None => {
                self.unknown.insert((behind, number));
            }
        }
        Ok(displaced.filter(|_| jump.is_some()))
    }

    /// Puts an instruction back, if it was made to jump in this process: its interpreter may be another one.
    fn lengthen(&self, tid: Tid, number: i64, behind: u64, displaced: Displaced) -> io::Result<()> {
        let from = behind - code::BEFORE;
        let at = self.trampolines.get(&(behind, number, displaced));
        let jump = at.and_then(|at| code::jump(from, *at));
        let mut word = [0; WORD];
        let read = sys::read_memory(tid, from, &mut word)?;
        if read == WORD && jump.is_some_and(|jump| word.starts_with(&jump)) {
            put(tid, behind, word, displaced)?;
        }
        Ok(())
    }

    /// What the displaced instruction becomes.
    fn jump(&mut self, behind: u64, number: i64, displaced: Displaced) -> Option<[u8; 5]> {
        let from = behind - code::BEFORE;
        let key = (behind, number, displaced);
        let at = self.trampolines.get(&key).copied();
        if let Some(at) = at {
            return code::jump(from, at);
        }
        let at = self.next;
        let entrance = code::entrance(number);
        let made = code::trampoline(at, displaced, entrance, BASE + CODE_AT, behind);
        let made = made.filter(|made| at + made.len() as u64 <= TABLE)?;
        let jump = code::jump(from, at)?;
        self.memory.write(offset(at), &made);
        self.next += made.len() as u64;
        self.trampolines.insert(key, at);
        Some(jump)
    }
}

/// So much is written at once.
const WORD: usize = 8;
/// From the beginning of a call to the end of the word that is written for it.
const LOOK: usize = code::CALL + 1;
const _: () = assert!(code::BEFORE + (LOOK - code::CALL) as u64 == WORD as u64);

/// Writes an instruction over the one before a call, where this `word` begins.
fn put(tid: Tid, behind: u64, mut word: [u8; WORD], instruction: Displaced) -> io::Result<()> {
    word[..instruction.len()].copy_from_slice(&instruction);
    sys::patch_memory(tid, behind - code::BEFORE, word)
}

impl Tracer {
    /// A program starts: before its first instruction it maps the table.
    pub(super) fn enter_inside(&mut self, tid: Tid, start: &Start) -> io::Result<Option<Entered>> {
        let is_home = self.process(tid).at_home;
        let (Some(inside), Some(interpreter), Some(vdso), Some(more)) = (
            &mut self.inside,
            start.interpreter,
            start.vdso,
            self.vdso.more,
        ) else {
            return Ok(None);
        };
        if !is_home {
            return Ok(None);
        }
        let mut registers = start.registers.clone();
        let place = registers.instruction();
        let at = registers.call_first(vdso + more);
        sys::write_memory(tid, at, &place.to_ne_bytes())?;
        sys::set_registers(tid, &registers)?;
        if !self.threads[&tid].ids.may_do_all() {
            // It has the table, so that its memory looks like that of others, and makes no call jump.
            return Ok(Some(Entered {
                vdso,
                alone: false,
                left: true,
            }));
        }
        for (at, (number, _)) in inside.interpreter.clone() {
            inside.shorten(tid, number, interpreter + at)?;
        }
        Ok(Some(Entered {
            vdso,
            alone: true,
            left: false,
        }))
    }

    /// Is this trap the one of a program that cannot map the table? Then it goes on without.
    pub(super) fn cannot_go_inside(&mut self, tid: Tid) -> io::Result<bool> {
        let (entered, interpreter) = {
            let process = self.process(tid);
            (process.inside, process.interpreter)
        };
        let (Some(inside), Some(entered), Some(more)) = (&self.inside, entered, self.vdso.more)
        else {
            return Ok(false);
        };
        if sys::registers(tid)?.instruction() != entered.vdso + more + inside.setup.1 {
            return Ok(false);
        }
        for (at, (number, displaced)) in &inside.interpreter {
            inside.lengthen(tid, *number, interpreter.unwrap_or(0) + at, *displaced)?;
        }
        self.process(tid).inside = None;
        Ok(true)
    }

    /// The call that has stopped a thread, which is behind it now, will not do so again, if that can be.
    pub(super) fn shorten(&mut self, tid: Tid, number: i64, behind: u64) -> io::Result<()> {
        /// An interpreter is smaller.
        const INTERPRETER: u64 = 1 << 20;
        let process = self.process(tid);
        let can = process.inside.is_some_and(|entered| entered.alone);
        let interpreter = process.interpreter;
        let Some(inside) = self.inside.as_mut().filter(|_| can) else {
            return Ok(());
        };
        if !code::CALLS.contains(&number) || (BASE..BASE + LENGTH).contains(&behind) {
            return Ok(());
        }
        let from = behind.wrapping_sub(interpreter.unwrap_or(behind));
        if let Some(displaced) = inside.shorten(tid, number, behind)?
            && interpreter.is_some()
            && from < INTERPRETER
        {
            inside.interpreter.insert(from, (number, displaced));
        }
        Ok(())
    }

    /// All calls of a process stop from now on: a thread of it is refused some that root is not. It has the code for itself,
    /// so what jumps there is sent back.
    pub(super) fn leave_inside(&mut self, tid: Tid) -> io::Result<()> {
        let Some(entered) = self.process(tid).inside.filter(|entered| !entered.left) else {
            return Ok(());
        };
        sys::patch_code(tid, BASE + CODE_AT, &code::closed(BASE + CODE_AT, GATE))?;
        self.process(tid).inside = Some(Entered {
            alone: false,
            left: true,
            ..entered
        });
        Ok(())
    }

    /// As [`Self::tell_inside`], for a file that nobody has asked about: whoever lists a directory mostly will.
    pub(super) fn tell_listed(&mut self, real: &libc::statx) {
        let is_of_use = self.inside.is_some() && !self.what.owners;
        if !is_of_use || !self.files.is_settled(real) || !self.files.is_plain(real) {
            return;
        }
        // Its time depends on no clock.
        let mut none = Clock::starting_at(0);
        let shown = self.files.show(real, &mut none, Vec::new);
        self.tell_inside(real, &shown);
    }

    /// Something was done to a file, so that something else may have to be shown of it.
    pub(super) fn forget_inside(&mut self, real: &libc::statx) {
        if let Some(inside) = &mut self.inside {
            inside.forget(real);
        }
    }

    /// Processes are told what is shown of a file, if that will not change as long as the file does not.
    pub(super) fn tell_inside(&mut self, real: &libc::statx, shown: &libc::statx) {
        if let Some(inside) = &mut self.inside
            && self.files.has_one_place(real)
        {
            inside.tell(real, shown, self.files.is_settled(real));
        }
    }
}
