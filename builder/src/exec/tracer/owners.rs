//! Users and owners that the machine cannot give: where only id 0 exists, processes are told that they are
//! whoever they became, and files that they belong to whom they were given.
//!
//! - Who a thread is stands in [`Ids`] and follows the rules of credentials(7). The kernel goes on seeing
//!   root, and refuses nothing: what an ordinary user may not do with files is refused by `access`.
//! - Whose a file is stands in a note, an extended attribute of the file itself (`hostfs::owner`), which the
//!   overlay carries along when the file is copied up, renamed or linked. What can have no note (links, pipes,
//!   files in memory) is in a [`Table`].
//! - chown(2) is still made, to user 0: so that errors, copying up, and the loss of set-id bits and
//!   capabilities are the kernel's.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    CWD, Mode, OFlags, ResolveFlags, XattrFlags, getxattr, listxattr, openat, openat2, removexattr,
    setxattr,
};
use rustix::io::Errno;

use super::answer::error;
use super::arch::{Machine as _, Registers};
use super::call::FileName;
use super::evidence::Source;
use super::files::{Key, path_of};
use super::ids::{COUNT, Ids, NONE, capability, check, or};
use super::open::scratch;
use super::run::{Answer, Pending, Tracer, sys_string};
use super::sys::{self, Resume, Tid};
use crate::hostfs::owner::{NOTE, Owner, ROOT, of_note, to_note};

/// A file without a note.
#[derive(Clone, Debug, Default)]
struct Record {
    owner: Owner,
    /// Where it was seen; it may be there no more.
    paths: BTreeSet<Vec<u8>>,
}

/// Owners of what can have no note.
#[derive(Debug)]
pub(super) struct Table {
    /// Of what is there from the start, by absolute path.
    base: BTreeMap<Vec<u8>, Owner>,
    records: BTreeMap<Key, Record>,
    /// Of pipes without a name, if it is not root.
    pipes: BTreeMap<Key, Owner>,
    /// Who the first program is; taken when it starts.
    first: Option<Owner>,
}

impl Table {
    /// `first`: who the first program is. `base`: absolute paths of links, pipes and files in memory.
    pub(super) const fn new(first: Owner, base: BTreeMap<Vec<u8>, Owner>) -> Self {
        Self {
            base,
            records: BTreeMap::new(),
            pipes: BTreeMap::new(),
            first: Some(first),
        }
    }

    fn get(&self, real: &libc::statx, path: impl FnOnce() -> Vec<u8>) -> Option<Owner> {
        match self.records.get(&Key::of(real)) {
            Some(record) => Some(record.owner),
            None if kind_of(real) == libc::S_IFIFO && self.pipes.contains_key(&Key::of(real)) => {
                self.pipes.get(&Key::of(real)).copied()
            }
            None if self.base.is_empty() => None,
            None => self.base.get(&path()).copied(),
        }
    }

    fn set(&mut self, real: &libc::statx, owner: Owner, path: Vec<u8>) {
        let record = self.records.entry(Key::of(real)).or_default();
        record.owner = owner;
        record.paths.insert(path);
    }

    /// Where the files of the table are now, and whose: what belongs to root is not told, unless something
    /// else was there at the start.
    fn settle(&self) -> BTreeMap<Vec<u8>, Owner> {
        let mut found = BTreeMap::new();
        let mut lost = false;
        for (key, record) in &self.records {
            let mut names = 0;
            for path in &record.paths {
                let Some(links) = links_of(path, key) else {
                    continue;
                };
                names += 1;
                lost |= links > record.paths.len();
                self.tell(&mut found, path, record.owner);
            }
            lost |= names == 0 && record.owner != ROOT;
        }
        if lost {
            self.search(&mut found);
        }
        found
    }

    fn tell(&self, found: &mut BTreeMap<Vec<u8>, Owner>, path: &[u8], owner: Owner) {
        if owner != ROOT || self.base.contains_key(path) {
            found.insert(path.to_vec(), owner);
        }
    }

    /// Looks at everything: something was moved together with the directory it is in.
    #[allow(
        clippy::disallowed_methods,
        reason = "what is found does not depend on the order"
    )]
    fn search(&self, found: &mut BTreeMap<Vec<u8>, Owner>) {
        let Ok(device) = std::fs::metadata("/").map(|root| root.dev()) else {
            return;
        };
        let mut waiting = vec![PathBuf::from("/")];
        while let Some(directory) = waiting.pop() {
            for entry in std::fs::read_dir(&directory)
                .into_iter()
                .flatten()
                .flatten()
            {
                let path = entry.path();
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => {
                        // Directories have the device of their mount.
                        if path
                            .symlink_metadata()
                            .is_ok_and(|meta| meta.dev() == device)
                        {
                            waiting.push(path);
                        }
                    }
                    Ok(kind) if kind.is_file() => {}
                    _ => {
                        let record =
                            real_of(&path).and_then(|real| self.records.get(&Key::of(&real)));
                        if let Some(record) = record {
                            self.tell(found, path.as_os_str().as_bytes(), record.owner);
                        }
                    }
                }
            }
        }
    }
}

fn real_of(path: &Path) -> Option<libc::statx> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    sys::statx(libc::AT_FDCWD, &path, libc::AT_SYMLINK_NOFOLLOW).ok()
}

/// How many names the file has, if it is the one with this key.
fn links_of(path: &[u8], key: &Key) -> Option<usize> {
    let real = real_of(Path::new(std::ffi::OsStr::from_bytes(path)))?;
    (Key::of(&real) == *key).then(|| usize::try_from(real.stx_nlink).unwrap_or(1))
}

fn kind_of(real: &libc::statx) -> u32 {
    u32::from(real.stx_mode) & libc::S_IFMT
}

/// A file that a process named.
#[derive(Debug)]
struct Place {
    real: libc::statx,
    /// Leads to it.
    link: CString,
    _file: OwnedFd,
}

impl Place {
    fn of(file: OwnedFd) -> Option<Self> {
        Some(Self {
            real: sys::statx(file.as_raw_fd(), c"", libc::AT_EMPTY_PATH).ok()?,
            link: CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?,
            _file: file,
        })
    }

    fn open(path: &[u8], follow: bool) -> Option<Self> {
        Self::of(openat(CWD, path, path_flags(follow), Mode::empty()).ok()?)
    }

    fn path(&self) -> Vec<u8> {
        path_of(&self.link)
    }
}

fn path_flags(follow: bool) -> OFlags {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    if follow {
        flags
    } else {
        flags | OFlags::NOFOLLOW
    }
}

/// What is done when the call is over.
#[derive(Debug)]
pub(super) enum Then {
    /// A file is given away.
    Give {
        saved: Registers,
        name: FileName,
        flags: i32,
        owner: (u32, u32),
    },
    /// There is a new file.
    Made(FileName),
    /// There is a new pipe, with two descriptors there.
    Piped(u64),
    /// What can have no note has another name, or two have changed places.
    Moved {
        here: Option<(FileName, Owner)>,
        there: Option<(FileName, Owner)>,
    },
}

const PATH_MAX: usize = 4096;

impl Tracer {
    /// Users and owners are emulated from now on.
    #[must_use]
    pub fn with_owners(mut self, first: Owner, base: BTreeMap<Vec<u8>, Owner>) -> Self {
        self.owners = Some(Table::new(first, base));
        self
    }

    /// Owners of what can have no note, by absolute path.
    pub(super) fn settle_owners(&self) -> BTreeMap<Vec<u8>, Owner> {
        self.owners.as_ref().map(Table::settle).unwrap_or_default()
    }

    /// The file that a process names, seen as the process sees it.
    fn place(&self, tid: Tid, name: FileName, flags: i32) -> Option<Place> {
        let path = match name.path {
            0 => Vec::new(),
            at => sys_string(tid, at, PATH_MAX).ok()?,
        };
        let follow = flags & libc::AT_SYMLINK_NOFOLLOW == 0;
        let absolute = path.starts_with(b"/");
        let from = match name.directory {
            libc::AT_FDCWD => format!("/proc/{tid}/cwd"),
            directory => format!("/proc/{tid}/fd/{directory}"),
        }
        .into_bytes();
        if path.is_empty() {
            return Place::open(&from, true);
        }
        let process = self.threads[&tid].process;
        if self.processes[&process].at_home {
            let whole = if absolute {
                of_itself(tid, &path).unwrap_or(path)
            } else {
                [&from, b"/".as_slice(), &path].concat()
            };
            return Place::open(&whole, follow);
        }
        let root = format!("/proc/{tid}/root");
        let whole = if absolute {
            path
        } else {
            let home = path_of(&CString::new(root.clone()).ok()?);
            let here = path_of(&CString::new(from).ok()?);
            let below = if home == b"/" {
                &here[..]
            } else {
                here.strip_prefix(&home[..])?
            };
            [below, b"/", &path].concat()
        };
        let root = openat(CWD, root, path_flags(true), Mode::empty()).ok()?;
        let whole = if whole.is_empty() {
            b"/".to_vec()
        } else {
            whole
        };
        let file = openat2(
            root,
            whole,
            path_flags(follow),
            Mode::empty(),
            ResolveFlags::IN_ROOT,
        );
        Place::of(file.ok()?)
    }

    /// Whose a file is, if not the kernel's answer holds. `link` leads to it; `path` is its own.
    pub(super) fn owner_of(
        &self,
        real: &libc::statx,
        link: &CStr,
        path: impl FnOnce() -> Vec<u8>,
    ) -> Option<Owner> {
        let table = self.owners.as_ref()?;
        if [libc::S_IFREG, libc::S_IFDIR].contains(&kind_of(real)) {
            let mut note = [0; 32];
            match getxattr(link, NOTE, &mut note) {
                Ok(length) => return of_note(&note[..length]),
                Err(Errno::OPNOTSUPP) => {}
                Err(_) => return None,
            }
        }
        table.get(real, path)
    }

    fn owner_at(&self, place: &Place) -> Owner {
        self.owner_of(&place.real, &place.link, || place.path())
            .unwrap_or((place.real.stx_uid, place.real.stx_gid))
    }

    /// The owner for an answer to a question about a file that the tracer could not look up as such.
    pub(super) fn owner_named(&self, tid: Tid, name: FileName, flags: i32) -> Option<Owner> {
        self.owners.as_ref()?;
        let place = self.place(tid, name, flags)?;
        self.owner_of(&place.real, &place.link, || place.path())
    }

    fn give(&mut self, place: &Place, owner: Owner) -> io::Result<()> {
        let link = place.link.as_c_str();
        if [libc::S_IFREG, libc::S_IFDIR].contains(&kind_of(&place.real)) {
            let noted = if owner == ROOT {
                removexattr(link, NOTE)
            } else {
                setxattr(link, NOTE, &to_note(owner), XattrFlags::empty())
            };
            match noted {
                Ok(()) | Err(Errno::NODATA) => return Ok(()),
                Err(Errno::OPNOTSUPP) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(table) = &mut self.owners {
            table.set(&place.real, owner, place.path());
        }
        Ok(())
    }

    /// There is a new file: it belongs to who made it, and to the group of a directory that says so.
    fn born(&mut self, tid: Tid, place: &Place) -> io::Result<()> {
        let (uid, mut gid) = self.threads[&tid].ids.owner();
        let path = place.path();
        let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        if let Some(parent) = Place::open(&path[..end.max(1)], false)
            && u32::from(parent.real.stx_mode) & libc::S_ISGID != 0
        {
            gid = self.owner_at(&parent).1;
        }
        let noteless = ![libc::S_IFREG, libc::S_IFDIR].contains(&kind_of(&place.real));
        if (uid, gid) != ROOT {
            self.used(tid, Source::Owner);
        } else if !noteless {
            return Ok(());
        }
        self.give(place, (uid, gid))
    }

    /// Will this call to open make a file?
    pub(super) fn will_be_new(&self, tid: Tid, name: FileName, flags: i32) -> bool {
        const TMPFILE: i32 = 0o20_000_000;
        if self.owners.is_none() || flags & (libc::O_CREAT | TMPFILE) == 0 {
            return false;
        }
        flags & (libc::O_EXCL | TMPFILE) != 0 || self.place(tid, name, 0).is_none()
    }

    /// A file was made and opened.
    pub(super) fn opened_new(&mut self, tid: Tid, descriptor: i32) -> io::Result<()> {
        match Place::open(format!("/proc/{tid}/fd/{descriptor}").as_bytes(), true) {
            Some(place) => self.born(tid, &place),
            None => Ok(()),
        }
    }

    /// chown(2) and its like.
    pub(super) fn change_owner(
        &mut self,
        tid: Tid,
        name: FileName,
        flags: i32,
        (uid, gid): (i32, i32),
        registers: &mut Registers,
    ) -> Answer {
        if self.owners.is_none() {
            return Answer::Native;
        }
        let owner = (uid.cast_unsigned(), gid.cast_unsigned());
        if let Err(number) = check(&[owner.0, owner.1]) {
            return error(number);
        }
        if !self.threads[&tid].ids.may_do_all()
            && let Some(place) = self.place(tid, name, flags)
        {
            let old = self.owner_at(&place);
            if !self.threads[&tid].ids.may_give(old, owner) {
                return error(libc::EPERM);
            }
        }
        self.used(tid, Source::Owner);
        let saved = registers.clone();
        let first = match registers.number() {
            libc::SYS_fchownat => 2,
            _ => 1,
        };
        for (at, id) in [(first, owner.0), (first + 1, owner.1)] {
            if id != NONE {
                registers.set_argument(at, 0);
            }
        }
        Answer::Changed(Pending::Owner(Then::Give {
            saved,
            name,
            flags,
            owner,
        }))
    }

    /// mkdir(2), mknod(2), symlink(2).
    pub(super) fn make(&self, name: FileName) -> Answer {
        if self.owners.is_none() {
            return Answer::Native;
        }
        Answer::ToEnd(Pending::Owner(Then::Made(name)))
    }

    /// pipe(2): what is not remembered is root's.
    pub(super) fn make_pipe(&self, tid: Tid, to: u64) -> Answer {
        if self.owners.is_none() || self.threads[&tid].ids.owner() == ROOT {
            return Answer::Native;
        }
        Answer::ToEnd(Pending::Owner(Then::Piped(to)))
    }

    /// rename(2), link(2).
    pub(super) fn rename(&self, tid: Tid, from: FileName, to: FileName, flags: i32) -> Answer {
        let noteless = |name| {
            let place = self.place(tid, name, flags)?;
            let has_note = [libc::S_IFREG, libc::S_IFDIR].contains(&kind_of(&place.real));
            (self.owners.is_some() && !has_note).then(|| self.owner_at(&place))
        };
        let there = noteless(from).map(|owner| (to, owner));
        // Only an exchange leaves something there; otherwise it is gone when the call is over.
        let here = noteless(to).map(|owner| (from, owner));
        if there.is_none() && here.is_none() {
            return Answer::Native;
        }
        Answer::ToEnd(Pending::Owner(Then::Moved { here, there }))
    }

    pub(super) fn owner_end(
        &mut self,
        tid: Tid,
        then: Then,
        registers: &Registers,
    ) -> io::Result<Resume> {
        let result = registers.result();
        match then {
            Then::Give {
                mut saved,
                name,
                flags,
                owner,
            } => {
                saved.set_result(result);
                if result == 0
                    && let Some(place) = self.place(tid, name, flags)
                {
                    let old = self.owner_at(&place);
                    let new = (or(owner.0, old.0), or(owner.1, old.1));
                    if let Err(failure) = self.give(&place, new) {
                        let number = failure.raw_os_error().unwrap_or(libc::EIO);
                        saved.set_result(-i64::from(number));
                    }
                }
                sys::set_registers(tid, &saved)?;
            }
            Then::Made(name) if result == 0 => {
                if let Some(place) = self.place(tid, name, libc::AT_SYMLINK_NOFOLLOW) {
                    self.born(tid, &place)?;
                }
            }
            Then::Moved { here, there } if result == 0 => {
                for (name, owner) in here.into_iter().chain(there) {
                    let Some(place) = self.place(tid, name, libc::AT_SYMLINK_NOFOLLOW) else {
                        continue;
                    };
                    if ![libc::S_IFREG, libc::S_IFDIR].contains(&kind_of(&place.real)) {
                        self.give(&place, owner)?;
                    }
                }
            }
            Then::Piped(at) if result == 0 => {
                let mut descriptor = [0; 4];
                sys::read_memory(tid, at, &mut descriptor)?;
                let link = format!("/proc/{tid}/fd/{}", i32::from_ne_bytes(descriptor));
                let owner = self.threads[&tid].ids.owner();
                if let (Some(place), Some(table)) =
                    (Place::open(link.as_bytes(), true), &mut self.owners)
                {
                    table.pipes.insert(Key::of(&place.real), owner);
                }
            }
            Then::Made(_) | Then::Piped(_) | Then::Moved { .. } => {}
        }
        Ok(Resume::Run)
    }

    /// listxattr(2), without the note.
    pub(super) fn attributes(
        &self,
        tid: Tid,
        name: FileName,
        flags: i32,
        (to, size): (u64, u64),
    ) -> io::Result<Answer> {
        const MOST: usize = 64 << 10;
        if self.owners.is_none() {
            return Ok(Answer::Native);
        }
        let Some(place) = self.place(tid, name, flags) else {
            return Ok(Answer::Native);
        };
        let mut list = vec![0; MOST];
        let Ok(length) = listxattr(place.link.as_c_str(), list.as_mut_slice()) else {
            return Ok(Answer::Native);
        };
        let is_note = |name: &&[u8]| name.strip_suffix(b"\0") == Some(NOTE.as_bytes());
        let mut names: Vec<&[u8]> = list[..length]
            .split_inclusive(|byte| *byte == 0)
            .filter(|name| !is_note(name))
            .collect();
        // File systems have them in orders of their own.
        names.sort_unstable();
        let list = names.concat();
        let length = list.len() as u64;
        if size == 0 || length == 0 {
            return Ok(Answer::Gives(length.cast_signed()));
        }
        if size < length {
            return Ok(error(libc::ERANGE));
        }
        sys::write_memory(tid, to, &list)?;
        Ok(Answer::Gives(length.cast_signed()))
    }

    /// setxattr(2), removexattr(2): the note is not the step's.
    pub(super) fn attribute(&self, tid: Tid, name: u64) -> io::Result<Answer> {
        const LONGEST: usize = 256;
        let forged = self.owners.is_some() && sys_string(tid, name, LONGEST)? == NOTE.as_bytes();
        Ok(if forged {
            error(libc::EPERM)
        } else {
            Answer::Native
        })
    }

    /// getuid(2), setuid(2) and their like.
    pub(super) fn identity(&mut self, tid: Tid, registers: &Registers) -> io::Result<Answer> {
        if self.owners.is_none() {
            return Ok(Answer::Native);
        }
        let number = registers.number();
        let a: [u64; 3] = std::array::from_fn(|at| registers.argument(at));
        if let Some(answer) = self.tell_identity(tid, number, &a)? {
            return Ok(answer);
        }
        self.used(tid, Source::Owner);
        let [one, two, three] = a.map(low);
        let ids = &mut self.thread(tid).ids;
        let group = ids.may_set_group();
        let result = match number {
            libc::SYS_setuid => ids.change_user(|user, may| user.set(one, may)),
            libc::SYS_setgid => ids.group.set(one, group),
            libc::SYS_setreuid => ids.change_user(|user, may| user.set_two(one, two, may)),
            libc::SYS_setregid => ids.group.set_two(one, two, group),
            libc::SYS_setresuid => {
                ids.change_user(|user, may| user.set_three([one, two, three], may))
            }
            libc::SYS_setresgid => ids.group.set_three([one, two, three], group),
            libc::SYS_setfsuid => {
                let old = ids.set_file_user(one);
                self.leave_inside_unless_free(tid)?;
                return Ok(Answer::Gives(old.into()));
            }
            libc::SYS_setfsgid => {
                return Ok(Answer::Gives(ids.group.set_file(one, group).into()));
            }
            libc::SYS_setgroups if !group => Err(libc::EPERM),
            libc::SYS_setgroups => read_groups(tid, one, a[1])?.map(|groups| ids.groups = groups),
            _ => return Ok(Answer::Native),
        };
        self.leave_inside_unless_free(tid)?;
        Ok(result.map_or_else(error, |()| Answer::Gives(0)))
    }

    /// capset(2) is made, but the kernel takes nothing away that it is to allow and `access` to refuse.
    pub(super) fn set_capabilities(
        &mut self,
        tid: Tid,
        registers: &mut Registers,
    ) -> io::Result<Answer> {
        if self.owners.is_none() {
            return Ok(Answer::Native);
        }
        let (header, at) = (registers.argument(0), registers.argument(1));
        let Some((pid, length)) = read_header(tid, header)?.filter(|_| at != 0) else {
            return Ok(Answer::Native);
        };
        if pid != 0 && pid != tid {
            return Ok(Answer::Native);
        }
        let mut sets = [0; 24];
        sys::read_memory(tid, at, &mut sets[..length])?;
        let word = |at: usize| u32::from_ne_bytes(sets[at..at + 4].try_into().expect("four bytes"));
        let [effective, permitted, inheritable] = [0, 4, 8].map(word);
        let capabilities = &mut self.thread(tid).ids.capabilities;
        if let Err(number) = capabilities.set(effective, permitted, inheritable) {
            return Ok(error(number));
        }
        self.leave_inside_unless_free(tid)?;
        for (at, set) in [(0, effective), (4, permitted)] {
            sets[at..at + 4].copy_from_slice(&(set | capability::KEPT).to_ne_bytes());
        }
        let saved = registers.clone();
        let there = scratch(registers);
        sys::write_memory(tid, there, &sets[..length])?;
        registers.set_argument(1, there);
        Ok(Answer::Changed(Pending::Redirected(saved)))
    }

    /// prctl(2), as far as it is about capabilities.
    pub(super) fn control_capabilities(
        &mut self,
        tid: Tid,
        option: i32,
        registers: &Registers,
    ) -> Answer {
        if self.owners.is_none() {
            return Answer::Native;
        }
        let (one, two) = (registers.argument(1), registers.argument(2));
        let capabilities = &mut self.thread(tid).ids.capabilities;
        let result = match option {
            libc::PR_SET_KEEPCAPS => {
                capabilities.are_kept = one == 1;
                return Answer::Native;
            }
            libc::PR_CAPBSET_READ => capabilities.is_bounding(one),
            libc::PR_CAPBSET_DROP => match capabilities.bound(one) {
                Ok(()) if one >= 32 || 1 << one & capability::KEPT == 0 => return Answer::Native,
                result => result.map(|()| 0),
            },
            libc::PR_CAP_AMBIENT => capabilities.change_ambient(one, two),
            _ => return Answer::Native,
        };
        result.map_or_else(error, Answer::Gives)
    }

    /// capget(2)
    fn tell_capabilities(&self, tid: Tid, header: u64, to: u64) -> io::Result<Answer> {
        let Some((pid, length)) = read_header(tid, header)?.filter(|_| to != 0) else {
            return Ok(Answer::Native);
        };
        let of = if pid == 0 { tid } else { pid };
        let Some(thread) = self.threads.get(&of) else {
            return Ok(Answer::Native);
        };
        let sets = thread.ids.capabilities;
        let sets = [sets.effective, sets.permitted, sets.inheritable, 0, 0, 0];
        let sets: Vec<u8> = sets.iter().flat_map(|set| set.to_ne_bytes()).collect();
        sys::write_memory(tid, to, &sets[..length])?;
        Ok(Answer::Gives(0))
    }

    /// Answers that a process gives itself are root's.
    fn leave_inside_unless_free(&mut self, tid: Tid) -> io::Result<()> {
        if self.threads[&tid].ids.may_do_all() {
            Ok(())
        } else {
            self.leave_inside(tid)
        }
    }

    fn tell_identity(&self, tid: Tid, number: i64, a: &[u64; 3]) -> io::Result<Option<Answer>> {
        let ids = &self.threads[&tid].ids;
        let set = match number {
            libc::SYS_getresuid => ids.user,
            _ => ids.group,
        };
        Ok(Some(match number {
            libc::SYS_capget => self.tell_capabilities(tid, a[0], a[1])?,
            libc::SYS_getuid => Answer::Gives(ids.user.real.into()),
            libc::SYS_geteuid => Answer::Gives(ids.user.effective.into()),
            libc::SYS_getgid => Answer::Gives(ids.group.real.into()),
            libc::SYS_getegid => Answer::Gives(ids.group.effective.into()),
            libc::SYS_getresuid | libc::SYS_getresgid => {
                for (at, id) in a.iter().zip([set.real, set.effective, set.saved]) {
                    sys::write_memory(tid, *at, &id.to_ne_bytes())?;
                }
                Answer::Gives(0)
            }
            libc::SYS_getgroups => {
                let count = i32::try_from(ids.groups.len()).expect("at most 65536");
                let size = low(a[0]).cast_signed();
                if size == 0 {
                    return Ok(Some(Answer::Gives(count.into())));
                }
                if size < count {
                    return Ok(Some(error(libc::EINVAL)));
                }
                let bytes: Vec<u8> = ids.groups.iter().flat_map(|id| id.to_ne_bytes()).collect();
                sys::write_memory(tid, a[1], &bytes)?;
                Answer::Gives(count.into())
            }
            _ => return Ok(None),
        }))
    }

    /// A thread has become another program: a set-user-id program has its owner's rights. Gives the ids
    /// that the kernel puts on its stack: user, effective user, group, effective group, and whether the two of a
    /// kind differ.
    pub(super) fn new_program(&mut self, tid: Tid) -> Option<[u64; 5]> {
        let table = self.owners.as_mut()?;
        if let Some(first) = table.first.take() {
            self.thread(tid).ids = Ids::of(first, bounding(tid));
        }
        let program = Place::open(format!("/proc/{tid}/exe").as_bytes(), true);
        let set_id = program.filter(|program| {
            let mode = u32::from(program.real.stx_mode);
            mode & (libc::S_ISUID | libc::S_ISGID) != 0 && !has_no_new_privileges(tid)
        });
        let (mode, owner) = set_id.map_or((0, ROOT), |program| {
            (program.real.stx_mode.into(), self.owner_at(&program))
        });
        let ids = &mut self.thread(tid).ids;
        ids.execute(mode, owner);
        let numbers = [
            ids.user.real.into(),
            ids.user.effective.into(),
            ids.group.real.into(),
            ids.group.effective.into(),
            ids.is_set_id().into(),
        ];
        if mode != 0 {
            self.used(tid, Source::Owner);
        }
        Some(numbers)
    }
}

/// Paths that lead a process to its own descriptors, for somebody else.
fn of_itself(tid: Tid, path: &[u8]) -> Option<Vec<u8>> {
    let whole = |at: &str, rest: &[u8]| [format!("/proc/{tid}/{at}").as_bytes(), rest].concat();
    let prefixes = [
        ("/proc/self/", ""),
        ("/proc/thread-self/", ""),
        ("/dev/fd/", "fd/"),
    ];
    let descriptors = [
        ("/dev/stdin", "fd/0"),
        ("/dev/stdout", "fd/1"),
        ("/dev/stderr", "fd/2"),
    ];
    for (prefix, at) in prefixes {
        if let Some(rest) = path.strip_prefix(prefix.as_bytes()) {
            return Some(whole(at, rest));
        }
    }
    let mut descriptors = descriptors.iter();
    let found = descriptors.find(|(name, _)| name.as_bytes() == path);
    found.map(|(_, at)| whole(at, b""))
}

fn low(word: u64) -> u32 {
    u32::try_from(word & 0xffff_ffff).expect("32 bits")
}

/// The list that setgroups(2) is given.
fn read_groups(tid: Tid, count: u32, at: u64) -> io::Result<Result<Vec<u32>, i32>> {
    if count > COUNT {
        return Ok(Err(libc::EINVAL));
    }
    let mut bytes = vec![0; count as usize * 4];
    if count > 0 && sys::read_memory(tid, at, &mut bytes)? < bytes.len() {
        return Err(io::Error::from_raw_os_error(libc::EFAULT));
    }
    let mut groups: Vec<u32> = bytes
        .chunks_exact(4)
        .map(|id| u32::from_ne_bytes(id.try_into().expect("four bytes")))
        .collect();
    groups.sort_unstable();
    if groups.iter().any(|id| *id >= COUNT) {
        return Ok(Err(libc::EINVAL));
    }
    Ok(Ok(groups))
}

/// The process that a header of capget(2) names, and how many bytes of sets belong to its version; nothing for a
/// version that there is not.
fn read_header(tid: Tid, at: u64) -> io::Result<Option<(Tid, usize)>> {
    let mut header = [0; 8];
    sys::read_memory(tid, at, &mut header)?;
    let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let length = match word(0) {
        0x1998_0330 => 12,
        0x2007_1026 | 0x2008_0522 => 24,
        _ => return Ok(None),
    };
    Ok(Some((word(4).cast_signed(), length)))
}

/// The low half of the bounding set of a thread.
fn bounding(tid: Tid) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    let set = status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:\t"))
        .and_then(|set| u64::from_str_radix(set, 16).ok());
    set.map_or(u32::MAX, low)
}

/// `PR_SET_NO_NEW_PRIVS`.
fn has_no_new_privileges(tid: Tid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    status.lines().any(|line| line == "NoNewPrivs:\t1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_where_they_were_moved() {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name).into_os_string().into_encoded_bytes();
        std::os::unix::fs::symlink("x", home.path().join("theirs")).unwrap();
        std::os::unix::fs::symlink("x", home.path().join("ours")).unwrap();
        std::os::unix::fs::symlink("x", home.path().join("gone")).unwrap();
        let real = |name: &str| real_of(&home.path().join(name)).unwrap();
        let mut table = Table::new(
            ROOT,
            [(path("base"), (3, 3)), (path("ours"), (4, 4))].into(),
        );
        table.set(&real("theirs"), (5, 6), path("theirs"));
        table.set(&real("ours"), ROOT, path("ours"));
        table.set(&real("gone"), ROOT, path("gone"));
        assert_eq!(table.get(&real("theirs"), Vec::new), Some((5, 6)));
        assert_eq!(table.get(&real("ours"), || path("ours")), Some(ROOT));
        std::fs::remove_file(home.path().join("gone")).unwrap();
        assert_eq!(
            table.settle(),
            [(path("ours"), ROOT), (path("theirs"), (5, 6))].into()
        );
        assert_eq!(
            table.get(&real_of(Path::new("/proc/self")).unwrap(), || path("base")),
            Some((3, 3))
        );
    }
}
