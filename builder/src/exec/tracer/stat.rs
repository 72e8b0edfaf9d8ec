//! Questions about files, and lists of directories.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::fs::{SeekFrom, seek};

use super::Metadata;
use super::answer::error;
use super::arch;
use super::call::{FileName, Span, Stat, StatForm};
use super::files::{Key, Original, number_of, path_of};
use super::open::PATH_MAX;
use super::run::{Answer, Pending, Tracer, sys_string};
use super::sys::{self, Tid};
use crate::hostfs::owner::ROOT;

/// `utimensat(2)`.
const UTIME_NOW: i64 = (1 << 30) - 1;
const UTIME_OMIT: i64 = (1 << 30) - 2;

/// `/proc/sys/kernel/overflowuid` and `overflowgid`.
pub(super) const NOBODY: (u32, u32) = (65534, 65534);

/// With what the tracer puts before it, a path of a process is no longer than the kernel takes.
const LONGEST: usize = PATH_MAX - 64;

/// What the tracer finds under a name.
enum Found {
    Real(Named),
    /// The kernel would say this.
    Fails(i32),
    /// The name leads where the tracer sees something else than the process does.
    Elsewhere,
}

/// A file by a name that the tracer can use.
struct Named {
    name: CString,
    /// How it is looked up.
    flags: i32,
    real: Box<libc::statx>,
    /// The name leads through this.
    _way: Option<OwnedFd>,
}

impl Named {
    fn new(name: CString, flags: i32, way: Option<OwnedFd>) -> io::Result<Self> {
        Ok(Self {
            real: Box::new(sys::statx(libc::AT_FDCWD, &name, flags)?),
            name,
            flags,
            _way: way,
        })
    }

    fn canonical(&self) -> Vec<u8> {
        canonical(&self.name, self.flags)
    }
}

impl Tracer {
    /// Answered at once where we see what the process sees, with its rights; otherwise by the kernel, and
    /// made virtual afterwards.
    pub(super) fn stat(&mut self, tid: Tid, stat: Stat) -> io::Result<Answer> {
        let pid = self.threads[&tid].process;
        let process = &self.processes[&pid];
        if !process.at_home || !process.privileged || self.what.metadata == Metadata::Clamp {
            return Ok(Answer::ToEnd(Pending::Stat(stat)));
        }
        match self.find(tid, stat.name, stat.flags)? {
            Found::Fails(number) => Ok(error(number)),
            Found::Real(named) if self.files.is_plain(&named.real) => {
                let mut shown = self.show(tid, &named);
                let real = &named.real;
                let owner = self.owner_of(real, &named.name, || named.canonical());
                (shown.stx_uid, shown.stx_gid) = owner.unwrap_or((real.stx_uid, real.stx_gid));
                self.tell_inside(real, &shown);
                write_answer(tid, &stat, &shown)?;
                Ok(Answer::Gives(0))
            }
            Found::Real(_) | Found::Elsewhere => Ok(Answer::ToEnd(Pending::Stat(stat))),
        }
    }

    fn show(&mut self, tid: Tid, named: &Named) -> libc::statx {
        let pid = self.threads[&tid].process;
        let process = self
            .processes
            .get_mut(&pid)
            .expect("its thread has stopped");
        self.files
            .show(&named.real, &mut process.clock, || named.canonical())
    }

    /// Looks a name up as the process would, through the tracer's `/proc`.
    fn find(&self, tid: Tid, name: FileName, flags: i32) -> io::Result<Found> {
        /// Others are left to the kernel.
        const KNOWN: i32 =
            libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT | libc::AT_EMPTY_PATH | 0x6000;
        if flags & !KNOWN != 0 {
            return Ok(Found::Elsewhere);
        }
        let path = if name.path == 0 {
            Vec::new()
        } else {
            sys_string(tid, name.path, PATH_MAX)?
        };
        if path.is_empty() && flags & libc::AT_EMPTY_PATH == 0 {
            return Ok(Found::Fails(libc::ENOENT));
        }
        let absolute = path.starts_with(b"/");
        let Some(whole) = place_of(tid, name.directory, &path) else {
            return Ok(Found::Elsewhere);
        };
        let process = self.threads[&tid].process;
        if !path.is_empty() && !self.processes[&process].at_home {
            let follow = flags & libc::AT_SYMLINK_NOFOLLOW == 0;
            let named = sys::open_in_root(tid, name.directory, &path, follow).and_then(|file| {
                let link = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
                Named::new(link, 0, Some(file))
            });
            // Where it cannot be found, the kernel knows why.
            return Ok(named.map_or(Found::Elsewhere, Found::Real));
        }
        // The descriptor's own file is behind a link of /proc.
        let flags = if path.is_empty() {
            0
        } else {
            flags & (libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT)
        };
        match Named::new(whole, flags, None) {
            Ok(named) => Ok(Found::Real(named)),
            Err(failure) => {
                let number = failure.raw_os_error().unwrap_or(libc::EIO);
                Ok(match (number, path.is_empty(), absolute) {
                    // There is no such descriptor.
                    (libc::ENOENT, true, _) => Found::Fails(libc::EBADF),
                    // It may be the directory's descriptor that is bad; the kernel knows the order of checks.
                    (_, false, false) if name.directory != libc::AT_FDCWD => Found::Elsewhere,
                    (libc::ENOENT | libc::ENOTDIR, false, _) => Found::Fails(number),
                    _ => Found::Elsewhere,
                })
            }
        }
    }

    /// The error for a name below `/sys` that leads nowhere, where we see what the process sees.
    pub(super) fn missing(&self, tid: Tid, name: FileName) -> io::Result<Option<i32>> {
        const BELOW: &str = "/sys/";
        let process = &self.processes[&self.threads[&tid].process];
        if !process.at_home || !process.privileged || name.path == 0 {
            return Ok(None);
        }
        // Of others links may lead to what `/proc` tells of the process that asks.
        if sys_string(tid, name.path, BELOW.len())? != BELOW.as_bytes() {
            return Ok(None);
        }
        Ok(match self.find(tid, name, 0)? {
            Found::Fails(number) => Some(number),
            Found::Real(_) | Found::Elsewhere => None,
        })
    }

    /// What the kernel has answered, with the plain number of the mount.
    fn read_answer(&self, tid: Tid, stat: &Stat) -> io::Result<libc::statx> {
        match stat.form {
            StatForm::Stat => {
                let mut bytes = [0; arch::STAT];
                sys::read_memory(tid, stat.to, &mut bytes)?;
                Ok(arch::from_stat(&bytes))
            }
            StatForm::Statx { .. } => {
                let mut bytes = [0; size_of::<libc::statx>()];
                sys::read_memory(tid, stat.to, &mut bytes)?;
                let mut answered = sys::statx_of_bytes(&bytes);
                if answered.stx_mask & sys::STATX_MNT_ID_UNIQUE != 0 {
                    answered.stx_mnt_id = self.files.plain_mount(answered.stx_mnt_id);
                }
                Ok(answered)
            }
        }
    }

    /// The kernel has answered.
    pub(super) fn stat_end(&mut self, tid: Tid, stat: Stat) -> io::Result<()> {
        let pid = self.threads[&tid].process;
        let at_home = self.processes[&pid].at_home;
        let owner = self.owner_named(tid, stat.name, stat.flags);
        let mut answered = self.read_answer(tid, &stat)?;
        let stands_for = self.files.stands_for(&answered).cloned();
        if let Some(Original { real, .. }) = &stands_for {
            answered = *real;
            // As the answer to its name would be: stat(2) does not say on which mount it is.
            if matches!(stat.form, StatForm::Stat) && self.files.random_device(real).is_none() {
                answered.stx_mnt_id = 0;
            }
        }
        if self.what.metadata == Metadata::Clamp {
            if stands_for.is_some() {
                write_answer(tid, &stat, &answered)?;
            }
            return match owner {
                Some(owner) => write_owner(tid, &stat, owner),
                None => Ok(()),
            };
        }
        let found = self.find(tid, stat.name, stat.flags)?;
        let own = if at_home && self.is_the_machines(tid, &stat, &found, &answered) {
            ROOT
        } else {
            (answered.stx_uid, answered.stx_gid)
        };
        let shown = match found {
            Found::Real(named)
                if named.real.stx_ino == answered.stx_ino
                    && (self.files.is_plain(&named.real)
                        || self.files.random_device(&named.real).is_some()) =>
            {
                self.show(tid, &named)
            }
            found => {
                let path = match (stands_for, found) {
                    (Some(Original { name, .. }), _) => name,
                    // What a descriptor leads to has a name, too.
                    (None, Found::Real(named)) if named.real.stx_ino == answered.stx_ino => {
                        named.canonical()
                    }
                    _ => sys_string(tid, stat.name.path, PATH_MAX).unwrap_or_default(),
                };
                let process = self
                    .processes
                    .get_mut(&pid)
                    .expect("its thread has stopped");
                self.files.show(&answered, &mut process.clock, || path)
            }
        };
        write_answer(tid, &stat, &owned(shown, owner.unwrap_or(own)))
    }

    /// Does it belong to the machine's root, who is nobody in a step when somebody else builds? So do devices and
    /// `/proc`; a file of the step's that belongs to nobody is something else.
    fn is_the_machines(
        &self,
        tid: Tid,
        stat: &Stat,
        found: &Found,
        answered: &libc::statx,
    ) -> bool {
        if (answered.stx_uid, answered.stx_gid) != NOBODY {
            return false;
        }
        match (found, u32::from(answered.stx_mode) & libc::S_IFMT) {
            (_, libc::S_IFCHR | libc::S_IFBLK) => true,
            (Found::Real(named), libc::S_IFREG | libc::S_IFDIR | libc::S_IFLNK) => {
                !self.files.is_plain(&named.real)
            }
            (Found::Elsewhere, _) => sys_string(tid, stat.name.path, PATH_MAX)
                .is_ok_and(|path| path.starts_with(b"/proc")),
            _ => false,
        }
    }

    /// getdents64(2), sorted by name. The place in the list is the offset of the open directory itself, so
    /// that rewinding, copies of the descriptor and child processes work.
    pub(super) fn listing(
        &mut self,
        tid: Tid,
        descriptor: i32,
        to: u64,
        length: u64,
        old: bool,
    ) -> io::Result<Answer> {
        let directory = match self.descriptor(tid, descriptor) {
            Ok(directory) => directory,
            Err(failure) => return Ok(error(failure.raw_os_error().unwrap_or(libc::EBADF))),
        };
        let Ok(start) = seek(&directory, SeekFrom::Current(0)) else {
            return Ok(Answer::Native);
        };
        let entries = match self.snapshot((tid, descriptor), &directory, start) {
            Ok(entries) => entries,
            Err(failure) => return Ok(error(failure.raw_os_error().unwrap_or(libc::EIO))),
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let mut out = Vec::new();
        let mut place = start;
        let first = usize::try_from(start).unwrap_or(usize::MAX);
        for entry in entries.entries.iter().skip(first) {
            let record = entry.to_record(place + 1, old);
            if out.len() + record.len() > length {
                if out.is_empty() {
                    return Ok(error(libc::EINVAL));
                }
                break;
            }
            out.extend_from_slice(&record);
            place += 1;
        }
        sys::write_memory(tid, to, &out)?;
        seek(&directory, SeekFrom::Start(place))?;
        if !out.is_empty() {
            let pid = self.threads[&tid].process;
            self.listings.insert((pid, descriptor), entries);
        }
        Ok(Answer::Gives(i64::try_from(out.len()).unwrap_or(0)))
    }

    /// What a directory held when the reading of it began: a place in the list means the same until its end, whatever is
    /// removed meanwhile (`readdir(3p)`).
    fn snapshot(
        &mut self,
        (tid, descriptor): (Tid, i32),
        directory: &std::os::fd::OwnedFd,
        start: u64,
    ) -> io::Result<Listing> {
        let key = sys::statx(directory.as_raw_fd(), c"", libc::AT_EMPTY_PATH)
            .map(|real| Key::of(&real))?;
        let pid = self.threads[&tid].process;
        let kept = self.listings.remove(&(pid, descriptor));
        match kept.filter(|kept| start > 0 && kept.key == key) {
            Some(kept) => Ok(kept),
            None => Ok(Listing {
                key,
                entries: self.entries(directory)?,
            }),
        }
    }

    /// Everything in a directory. Its offset is anywhere afterwards.
    fn entries(&mut self, directory: &std::os::fd::OwnedFd) -> io::Result<Vec<Entry>> {
        seek(directory, SeekFrom::Start(0))?;
        let mut entries = Vec::new();
        let mut buffer = Vec::with_capacity(32 << 10);
        let mut list = rustix::fs::RawDir::new(directory, buffer.spare_capacity_mut());
        while let Some(entry) = list.next() {
            let entry = entry?;
            entries.push(Entry {
                number: entry.ino(),
                kind: file_kind(entry.file_type()),
                name: entry.file_name().to_owned(),
            });
        }
        // Before they get numbers: a file with two names has that of the first.
        entries.sort_by(|one, other| one.order().cmp(&other.order()));
        let link = CString::new(format!("/proc/self/fd/{}", directory.as_raw_fd()))?;
        let path = path_of(&link);
        for entry in &mut entries {
            let name = entry.name.to_bytes();
            let whole = || match name {
                b"." => path.clone(),
                _ => [path.as_slice(), b"/", name].concat(),
            };
            let flags = libc::AT_SYMLINK_NOFOLLOW;
            entry.number = match sys::statx(directory.as_raw_fd(), &entry.name, flags) {
                // The parent has its own name, not that of a way to it.
                Ok(real) if name == b".." => self.files.number(&real, || parent(&path)),
                Ok(real) => {
                    let number = self.files.number(&real, whole);
                    self.tell_listed(&real);
                    number
                }
                Err(_) => number_of(&whole()),
            };
        }
        Ok(entries)
    }

    /// A process makes or removes names. That it will be able to is seen beforehand: then the directory is
    /// changed.
    pub(super) fn names(
        &mut self,
        tid: Tid,
        old: Option<FileName>,
        new: Option<FileName>,
    ) -> io::Result<()> {
        let pid = self.threads[&tid].process;
        if self.what.metadata == Metadata::Clamp {
            return Ok(());
        }
        let moves = old.is_some();
        let mut changed = Vec::new();
        for (name, exists) in [(old, true), (new, false)] {
            let Some(name) = name else { continue };
            let Some((whole, way)) = self.place_of_name(tid, name)? else {
                return Ok(());
            };
            let flags = libc::AT_SYMLINK_NOFOLLOW;
            let real = sys::statx(libc::AT_FDCWD, &whole, flags).ok();
            let found = real.is_some();
            // A new name may be there only where something is moved over it.
            if found != exists && !(found && moves) {
                return Ok(());
            }
            changed.push((whole, way, real));
        }
        for (whole, _way, real) in changed {
            if let Some(real) = real {
                let kind = u32::from(real.stx_mode) & libc::S_IFMT;
                let directory = moves && new.is_some() && kind == libc::S_IFDIR;
                self.files.removes(&canonical_name(&whole), directory);
            }
            self.names_changed(pid, whole.as_bytes());
        }
        Ok(())
    }

    /// A name as the tracer can use it, and what it leads through; `None` for one that means something else to it.
    fn place_of_name(
        &self,
        tid: Tid,
        name: FileName,
    ) -> io::Result<Option<(CString, Option<OwnedFd>)>> {
        let path = sys_string(tid, name.path, PATH_MAX)?;
        let process = self.threads[&tid].process;
        if path.is_empty() || path.len() >= LONGEST {
            return Ok(None);
        }
        if self.processes[&process].at_home {
            return Ok(place_of(tid, name.directory, &path).map(|place| (place, None)));
        }
        let end = path.len() - path.iter().rev().take_while(|byte| **byte == b'/').count();
        let (directory, last) = match path[..end].iter().rposition(|byte| *byte == b'/') {
            Some(0) => (b"/".as_slice(), &path[1..end]),
            Some(at) => (&path[..at], &path[at + 1..end]),
            None => (b".".as_slice(), &path[..end]),
        };
        if path.starts_with(b"/") && leads_to_processes(&path) {
            return Ok(None);
        }
        let Ok(way) = sys::open_in_root(tid, name.directory, directory, true) else {
            return Ok(None);
        };
        let mut whole = format!("/proc/self/fd/{}/", way.as_raw_fd()).into_bytes();
        whole.extend_from_slice(last);
        let whole = CString::new(whole).expect("a string without its end in it");
        Ok(Some((whole, Some(way))))
    }

    /// The directory that holds this path was changed.
    pub(super) fn names_changed(&mut self, pid: Tid, path: &[u8]) {
        let end = path
            .iter()
            .rposition(|byte| *byte != b'/')
            .map_or(0, |at| at + 1);
        let directory = match path[..end].iter().rposition(|byte| *byte == b'/') {
            Some(0) => b"/".as_slice(),
            Some(at) => &path[..at],
            None => return,
        };
        let Ok(directory) = CString::new(directory) else {
            return;
        };
        if let Ok(real) = sys::statx(libc::AT_FDCWD, &directory, 0)
            && self.files.is_plain(&real)
            && let Some(process) = self.processes.get_mut(&pid)
        {
            self.files
                .touched(&real, &mut process.clock, None, || canonical(&directory, 0));
            self.forget_inside(&real);
        }
    }

    /// A process sets the times of a file.
    pub(super) fn touch(
        &mut self,
        tid: Tid,
        name: FileName,
        times: Option<Span>,
        flags: i32,
    ) -> io::Result<Answer> {
        let to = match times.filter(|times| times.address() != 0) {
            None => None,
            Some(span) => match modification(tid, span)? {
                Some((_, UTIME_OMIT)) | None => return Ok(Answer::Native),
                Some((_, UTIME_NOW)) => None,
                Some((seconds, part)) => Some((seconds, u32::try_from(part).unwrap_or(0))),
            },
        };
        let flags = if name.path == 0 {
            libc::AT_EMPTY_PATH
        } else {
            flags
        };
        if let Found::Real(named) = self.find(tid, name, flags)?
            && self.files.is_plain(&named.real)
        {
            let pid = self.threads[&tid].process;
            let process = self
                .processes
                .get_mut(&pid)
                .expect("its thread has stopped");
            self.files
                .touched(&named.real, &mut process.clock, to, || named.canonical());
            self.forget_inside(&named.real);
        }
        Ok(Answer::Native)
    }
}

/// A directory that is being read.
#[derive(Debug)]
pub(super) struct Listing {
    key: Key,
    entries: Vec<Entry>,
}

/// One name of a directory.
#[derive(Debug)]
struct Entry {
    number: u64,
    kind: u8,
    name: CString,
}

impl Entry {
    /// The directory itself and its parent come first, as programs may expect.
    fn order(&self) -> (bool, &[u8]) {
        let name = self.name.to_bytes();
        (![b".".as_slice(), b".."].contains(&name), name)
    }

    /// `struct linux_dirent64`, or the older `struct linux_dirent` with the type at its end.
    fn to_record(&self, next: u64, old: bool) -> Vec<u8> {
        let name = self.name.to_bytes_with_nul();
        let length = (8 + 8 + 2 + 1 + name.len()).next_multiple_of(8);
        let mut record = Vec::with_capacity(length);
        record.extend_from_slice(&self.number.to_ne_bytes());
        record.extend_from_slice(&next.to_ne_bytes());
        record.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes());
        if old {
            record.extend_from_slice(name);
            record.resize(length, 0);
            record[length - 1] = self.kind;
        } else {
            record.push(self.kind);
            record.extend_from_slice(name);
            record.resize(length, 0);
        }
        record
    }
}

/// `d_type`.
fn file_kind(kind: rustix::fs::FileType) -> u8 {
    use rustix::fs::FileType;
    match kind {
        FileType::RegularFile => libc::DT_REG,
        FileType::Directory => libc::DT_DIR,
        FileType::Symlink => libc::DT_LNK,
        FileType::Fifo => libc::DT_FIFO,
        FileType::Socket => libc::DT_SOCK,
        FileType::CharacterDevice => libc::DT_CHR,
        FileType::BlockDevice => libc::DT_BLK,
        FileType::Unknown => libc::DT_UNKNOWN,
    }
}

fn parent(path: &[u8]) -> Vec<u8> {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(0) | None => b"/".to_vec(),
        Some(at) => path[..at].to_vec(),
    }
}

pub(super) fn place_of(tid: Tid, directory: i32, path: &[u8]) -> Option<CString> {
    let absolute = path.starts_with(b"/");
    if path.len() >= LONGEST || (absolute && leads_to_processes(path)) {
        return None;
    }
    let mut whole = match (absolute, directory) {
        (true, _) => Vec::new(),
        (false, libc::AT_FDCWD) => format!("/proc/{tid}/cwd").into_bytes(),
        (false, directory) => format!("/proc/{tid}/fd/{directory}").into_bytes(),
    };
    if !absolute && !path.is_empty() {
        whole.push(b'/');
    }
    whole.extend_from_slice(path);
    Some(CString::new(whole).expect("a string without its end in it"))
}

/// `/proc`, or the links in `/dev` that lead there.
fn leads_to_processes(path: &[u8]) -> bool {
    let links: [&[u8]; 3] = [b"/proc", b"/dev/fd", b"/dev/std"];
    links.iter().any(|link| path.starts_with(link))
}

/// The path without links, of a name that was just found.
fn canonical(name: &CString, flags: i32) -> Vec<u8> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    let mut how = OFlags::PATH | OFlags::CLOEXEC;
    if flags & libc::AT_SYMLINK_NOFOLLOW != 0 {
        how |= OFlags::NOFOLLOW;
    }
    let opened = openat(CWD, name.as_c_str(), how, Mode::empty());
    let link = opened.ok().and_then(|file| {
        let link = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
        Some(path_of(&link))
    });
    link.unwrap_or_else(|| name.as_bytes().to_vec())
}

/// The same of a name itself, whatever it leads to.
fn canonical_name(name: &CString) -> Vec<u8> {
    canonical(name, libc::AT_SYMLINK_NOFOLLOW)
}

/// The second of two times: that of modification.
fn modification(tid: Tid, span: Span) -> io::Result<Option<(i64, i64)>> {
    let mut bytes = [0; 32];
    let (length, unit) = match span {
        Span::Nano(_) => (32, 1),
        Span::Micro(_) => (32, 1000),
        Span::Whole(_) => (16, 0),
    };
    if sys::read_memory(tid, span.address(), &mut bytes[..length])? < length {
        return Err(io::Error::from_raw_os_error(libc::EFAULT));
    }
    let word = |at: usize| i64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    Ok(Some(match unit {
        0 => (word(8), 0),
        unit => (word(16), word(24).saturating_mul(unit)),
    }))
}

fn owned(mut shown: libc::statx, owner: (u32, u32)) -> libc::statx {
    (shown.stx_uid, shown.stx_gid) = owner;
    shown
}

/// Only whose it is; all else stays as the kernel has written it.
fn write_owner(tid: Tid, stat: &Stat, (uid, gid): (u32, u32)) -> io::Result<()> {
    let at = match stat.form {
        StatForm::Stat => arch::STAT_OWNER,
        StatForm::Statx { .. } => std::mem::offset_of!(libc::statx, stx_uid) as u64,
    };
    let bytes = [uid.to_ne_bytes(), gid.to_ne_bytes()].concat();
    sys::write_memory(tid, stat.to + at, &bytes)
}

fn write_answer(tid: Tid, stat: &Stat, shown: &libc::statx) -> io::Result<()> {
    match stat.form {
        StatForm::Stat => sys::write_memory(tid, stat.to, &arch::to_stat(shown)),
        StatForm::Statx { unique } => {
            let mut shown = *shown;
            if unique {
                shown.stx_mask = sys::STATX_MASK_UNIQUE;
            }
            sys::write_memory(tid, stat.to, sys::bytes_of_statx(&shown))
        }
    }
}
