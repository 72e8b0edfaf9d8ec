//! What an ordinary user may do with files, where users are emulated: the kernel sees root, which may do everything, so it
//! is refused here what the kernel refuses elsewhere (`path_resolution(7)`, capabilities(7), inode(7)).
//!
//! Before a thread makes a call that needs a right, its path is walked as the thread sees it, one name after the other,
//! through directories that it may search; what it wants to do is looked at where the way ends. What the kernel refuses for
//! another reason it still does itself: where the walk finds no way, the call is made. So does `/proc`.
//!
//! Whoever is root pays one look at its ids. A right that a file gives to everybody needs no look at its owner.
//!
//! That may depend on the machine (`fs.protected_*`, `proc_sys_fs(5)`): hard links are protected, as everywhere; links and
//! files in sticky directories are not.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;

use super::answer::error;
use super::arch::{self, Machine as _, Registers};
use super::call::{Call, FileName, SYS_FACCESSAT2, SYS_FCHMODAT2, Span};
use super::files::path_of;
use super::ids::{Rights, capability};
use super::open::{PATH_MAX, descriptor_named};
use super::run::{Answer, Pending, Tracer, sys_string};
use super::sys::{self, Tid};
use crate::exec::interpreter;
use crate::hostfs::owner::{Owner, ROOT};

/// Rights, as mode bits of one class.
const READ: u32 = 4;
const WRITE: u32 = 2;
/// Of a file: to execute it.
const SEARCH: u32 = 1;

/// Why a call is not made.
type Refused = i32;

/// Does a mode give these rights to each class?
const fn gives_all(mode: u32, wanted: u32) -> bool {
    (mode >> 6) & (mode >> 3) & mode & wanted == wanted
}

impl Rights {
    /// `generic_permission` of the kernel: the bits of the first class it is in, or capabilities.
    fn may(&self, mode: u32, owner: Owner, wanted: u32) -> bool {
        let class = if owner.0 == self.user {
            mode >> 6
        } else if self.is_in(owner.1) {
            mode >> 3
        } else {
            mode
        };
        if class & wanted == wanted {
            return true;
        }
        let is_directory = mode & libc::S_IFMT == libc::S_IFDIR;
        let reads = wanted & WRITE == 0 && (is_directory || wanted == READ);
        if reads && self.has(capability::DAC_READ_SEARCH) {
            return true;
        }
        let executes = wanted & SEARCH == 0 || is_directory || mode & 0o111 != 0;
        executes && self.has(capability::DAC_OVERRIDE)
    }

    /// May it do what only its owner may?
    fn owns(&self, owner: Owner) -> bool {
        owner.0 == self.user || self.has(capability::FOWNER)
    }

    /// May it take a name out of this directory, which it may write to? In a sticky one only whose the file or the directory is.
    fn may_remove(&self, (mode, directory): (u32, Owner), file: Owner) -> bool {
        mode & libc::S_ISVTX == 0 || self.owns(file) || directory.0 == self.user
    }
}

/// A file that the walk came to.
#[derive(Debug)]
struct Spot {
    file: OwnedFd,
    real: libc::statx,
}

impl Spot {
    fn of(file: OwnedFd) -> Option<Self> {
        let real = sys::statx(file.as_raw_fd(), c"", libc::AT_EMPTY_PATH).ok()?;
        Some(Self { file, real })
    }

    fn open(path: &str) -> Option<Self> {
        Self::of(openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?)
    }

    fn mode(&self) -> u32 {
        self.real.stx_mode.into()
    }

    fn kind(&self) -> u32 {
        self.mode() & libc::S_IFMT
    }

    fn is_directory(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }

    fn is_read_only(&self) -> bool {
        let flags = rustix::fs::fstatvfs(&self.file).map(|system| system.f_flag);
        flags.is_ok_and(|flags| flags.contains(rustix::fs::StatVfsMountFlags::RDONLY))
    }

    fn link(&self) -> CString {
        CString::new(format!("/proc/self/fd/{}", self.file.as_raw_fd())).expect("no zero in it")
    }

    fn is(&self, other: &Self) -> bool {
        let key = |spot: &Self| {
            let real = &spot.real;
            (real.stx_dev_major, real.stx_dev_minor, real.stx_ino)
        };
        key(self) == key(other) && self.real.stx_mnt_id == other.real.stx_mnt_id
    }
}

/// What the last name of a path is for the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// A link is followed.
    Follow,
    /// A link is not followed, unless a `/` comes after it.
    Stay,
    /// A link is not followed: the name is made or taken away.
    Name,
}

impl Last {
    const fn of(follows: bool) -> Self {
        if follows { Self::Follow } else { Self::Stay }
    }
}

/// Where a path leads.
#[derive(Debug)]
struct Way {
    /// The directory with the last name; none for what has no name, as `/`, `..` and a descriptor's own file.
    parent: Option<Spot>,
    /// None: there is nothing by this name.
    file: Option<Spot>,
    /// A `/` comes after the last name.
    slash: bool,
}

/// Why there is no way.
enum Lost {
    /// A directory may not be searched.
    Refused,
    /// The kernel knows better.
    Unknown,
}

/// Who walks, and what for.
#[derive(Clone, Copy)]
struct Walker<'a> {
    tid: Tid,
    rights: &'a Rights,
    /// The directory that a path begins at is its root (`RESOLVE_IN_ROOT`).
    is_confined: bool,
    /// An empty path means the descriptor's own file (`AT_EMPTY_PATH`).
    may_be_empty: bool,
}

/// `Ok` of what there is; refusals and what is left to the kernel at once.
macro_rules! way {
    ($walk:expr) => {
        match $walk {
            Ok(way) => way,
            Err(Lost::Refused) => return Ok(Some(libc::EACCES)),
            Err(Lost::Unknown) => return Ok(None),
        }
    };
}

impl Tracer {
    /// Refuses a call that its thread may not make. `None`: it goes on as if nobody had looked.
    pub(super) fn permission(
        &mut self,
        tid: Tid,
        call: Call,
        registers: &mut Registers,
    ) -> io::Result<Option<Answer>> {
        if self.owners.is_none() {
            return Ok(None);
        }
        if !self.threads[&tid].ids.may_do_all() {
            if let Some(number) = self.refusal(tid, call, registers)? {
                self.as_if_made(tid, call)?;
                return Ok(Some(error(number)));
            }
            if let Some(answer) = self.without_group(tid, registers) {
                return Ok(Some(answer));
            }
        }
        // These calls stop for us alone, and elsewhere nobody sees them.
        let is_seen = !self.unseen.contains(&registers.number());
        let is_ours = matches!(
            call,
            Call::Access | Call::Readlink { .. } | Call::Remove { .. } | Call::Touch { .. }
        );
        Ok((is_ours && !is_seen).then_some(Answer::Native))
    }

    /// What is noted of calls before they are made is noted of those that the kernel refuses elsewhere, too.
    fn as_if_made(&mut self, tid: Tid, call: Call) -> io::Result<()> {
        match call {
            Call::Remove { name } => self.names(tid, Some(name), None),
            Call::Make { name } => self.names(tid, None, Some(name)),
            Call::Rename {
                from, to, stays, ..
            } => self.names(tid, (!stays).then_some(from), Some(to)),
            Call::Touch { name, times, flags } => self.touch(tid, name, times, flags).map(|_| ()),
            _ => Ok(()),
        }
    }

    fn refusal(&self, tid: Tid, call: Call, registers: &Registers) -> io::Result<Option<Refused>> {
        let (number, a) = arch::modern(registers.number(), &registers.arguments());
        let real = match number {
            libc::SYS_faccessat => true,
            SYS_FACCESSAT2 => int(a[3]) & libc::AT_EACCESS == 0,
            _ => false,
        };
        let rights = &self.threads[&tid].ids.rights(real);
        let flags = match number {
            SYS_FACCESSAT2 | SYS_FCHMODAT2 => int(a[3]),
            libc::SYS_linkat | libc::SYS_execveat => int(a[4]),
            _ => 0,
        };
        let walker = Walker {
            tid,
            rights,
            is_confined: false,
            may_be_empty: flags & libc::AT_EMPTY_PATH != 0,
        };
        let (name, other) = (file_name(a[0], a[1]), file_name(a[2], a[3]));
        let at = |path| file_name(HERE, path);
        let own = file_name(a[0], 0);
        let follow = Last::of(int(a[3]) & libc::AT_SYMLINK_NOFOLLOW == 0);
        match number {
            libc::SYS_openat => self.may_open(walker, name, int(a[2])),
            libc::SYS_openat2 => self.may_open_how(walker, name, a[2]),
            libc::SYS_faccessat | SYS_FACCESSAT2 => {
                let follow = if number == SYS_FACCESSAT2 {
                    follow
                } else {
                    Last::Follow
                };
                self.may_use(walker, name, follow, low(a[2]) & 7)
            }
            libc::SYS_mkdirat => self.may_make(walker, name, true),
            libc::SYS_mknodat => self.may_make(walker, name, false),
            libc::SYS_symlinkat => self.may_make(walker, file_name(a[1], a[2]), false),
            libc::SYS_unlinkat => {
                let is_directory = int(a[2]) & libc::AT_REMOVEDIR != 0;
                self.may_unlink(walker, name, is_directory)
            }
            libc::SYS_renameat2 => self.may_rename(walker, name, other, low(a[4])),
            libc::SYS_linkat => {
                let follows = int(a[4]) & libc::AT_SYMLINK_FOLLOW != 0;
                self.may_link(walker, (name, Last::of(follows)), other)
            }
            libc::SYS_fchmodat => self.must_own(walker, name, Last::Follow),
            SYS_FCHMODAT2 => self.must_own(walker, name, follow),
            libc::SYS_fchmod => self.must_own(walker, own, Last::Follow),
            libc::SYS_truncate => self.may_truncate(walker, at(a[0])),
            libc::SYS_chdir => self.may_enter(walker, at(a[0])),
            libc::SYS_fchdir => self.may_enter(walker, own),
            libc::SYS_chroot => Ok(match self.may_enter(walker, at(a[0]))? {
                None if !rights.has(capability::SYS_CHROOT) => {
                    let way = way!(self.walk(walker, at(a[0]), Last::Follow)?);
                    way.file.filter(Spot::is_directory).map(|_| libc::EPERM)
                }
                refused => refused,
            }),
            libc::SYS_execve => self.may_execute(walker, at(a[0]), Last::Follow),
            libc::SYS_execveat => {
                let follows = int(a[4]) & libc::AT_SYMLINK_NOFOLLOW == 0;
                self.may_execute(walker, name, Last::of(follows))
            }
            libc::SYS_setxattr | libc::SYS_removexattr => {
                self.may_change_attribute(walker, (at(a[0]), Last::Follow), a[1], WRITE)
            }
            libc::SYS_lsetxattr | libc::SYS_lremovexattr => {
                self.may_change_attribute(walker, (at(a[0]), Last::Stay), a[1], WRITE)
            }
            libc::SYS_fsetxattr | libc::SYS_fremovexattr => {
                self.may_change_attribute(walker, (own, Last::Follow), a[1], WRITE)
            }
            libc::SYS_getxattr => {
                self.may_change_attribute(walker, (at(a[0]), Last::Follow), a[1], READ)
            }
            libc::SYS_lgetxattr => {
                self.may_change_attribute(walker, (at(a[0]), Last::Stay), a[1], READ)
            }
            libc::SYS_fgetxattr => {
                self.may_change_attribute(walker, (own, Last::Follow), a[1], READ)
            }
            libc::SYS_statfs => self.may_use(walker, at(a[0]), Last::Follow, 0),
            libc::SYS_bind => self.may_bind(walker, a[1], a[2]),
            libc::SYS_connect => self.may_connect(walker, a[1], a[2]),
            libc::SYS_sendto => self.may_connect(walker, a[4], a[5]),
            _ => self.may_by_call(walker, call),
        }
    }

    /// Calls that need no more than that their path can be walked; and setting times.
    fn may_by_call(&self, walker: Walker<'_>, call: Call) -> io::Result<Option<Refused>> {
        let follow = |flags| Last::of(flags & libc::AT_SYMLINK_NOFOLLOW == 0);
        match call {
            Call::Stat(stat) => self.may_use(walker, stat.name, follow(stat.flags), 0),
            Call::Readlink { name, .. } => self.may_use(walker, name, Last::Stay, 0),
            Call::Attributes { name, flags, .. } | Call::Owner { name, flags, .. } => {
                self.may_use(walker, name, follow(flags), 0)
            }
            Call::Touch { name, times, flags } => {
                self.may_touch(walker, (name, follow(flags)), times)
            }
            _ => Ok(None),
        }
    }

    /// The way of a path, seen as the process sees it.
    fn walk(
        &self,
        walker: Walker<'_>,
        name: FileName,
        last: Last,
    ) -> io::Result<Result<Way, Lost>> {
        let path = match name.path {
            0 => Vec::new(),
            at => sys_string(walker.tid, at, PATH_MAX)?,
        };
        if path.is_empty() && name.path != 0 && !walker.may_be_empty {
            return Ok(Err(Lost::Unknown));
        }
        Ok(self.walk_path(walker, name.directory, &path, last))
    }

    fn walk_path(
        &self,
        walker: Walker<'_>,
        directory: i32,
        path: &[u8],
        last: Last,
    ) -> Result<Way, Lost> {
        /// The kernel's `MAXSYMLINKS`.
        const LINKS: u32 = 40;
        let tid = walker.tid;
        let open = |place: &str| Spot::open(&format!("/proc/{tid}/{place}")).ok_or(Lost::Unknown);
        let start = || match directory {
            libc::AT_FDCWD => open("cwd"),
            number => open(&format!("fd/{number}")),
        };
        let no_name = |file| Way {
            parent: None,
            file: Some(file),
            slash: false,
        };
        if path.len() >= PATH_MAX {
            return Err(Lost::Unknown);
        }
        if path.is_empty() {
            return start().map(no_name);
        }
        let process = self.threads[&tid].process;
        if last == Last::Follow
            && let Some(number) = descriptor_named(process, path)
        {
            // The way there is the kernel's; what is there is not.
            return open(&format!("fd/{number}")).map(no_name);
        }
        let root = if walker.is_confined {
            start()?
        } else {
            open("root")?
        };
        let from_root = || Spot::of(root.file.try_clone().ok()?);
        let mut here = if path.starts_with(b"/") {
            from_root().ok_or(Lost::Unknown)?
        } else {
            start()?
        };
        let mut slash = path.ends_with(b"/");
        let mut rest = names(path);
        let mut links = 0;
        let mut parent = None;
        while let Some(name) = rest.pop() {
            if !here.is_directory() || !self.files.is_known(&here.real) {
                return Err(Lost::Unknown);
            }
            if !self.may(walker.rights, &here, SEARCH) {
                return Err(Lost::Refused);
            }
            parent = None;
            if name == b"." || (name == b".." && here.is(&root)) {
                continue;
            }
            let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let next = match openat(&here.file, name.as_slice(), flags, Mode::empty()) {
                Ok(next) => Spot::of(next).ok_or(Lost::Unknown)?,
                Err(Errno::NOENT) if rest.is_empty() => {
                    return Ok(Way {
                        parent: Some(here),
                        file: None,
                        slash,
                    });
                }
                Err(_) => return Err(Lost::Unknown),
            };
            let follows = match last {
                _ if !rest.is_empty() => true,
                Last::Follow => true,
                Last::Stay => slash,
                Last::Name => false,
            };
            if next.kind() != libc::S_IFLNK || !follows {
                let from = std::mem::replace(&mut here, next);
                parent = (name != b"..").then_some(from);
                continue;
            }
            links += 1;
            let target = readlinkat(&next.file, c"", Vec::new()).map_err(|_| Lost::Unknown)?;
            let target = target.as_bytes();
            if links > LINKS || target.is_empty() || !self.files.is_known(&next.real) {
                return Err(Lost::Unknown);
            }
            slash |= rest.is_empty() && target.ends_with(b"/");
            rest.extend(names(target));
            if target.starts_with(b"/") {
                here = from_root().ok_or(Lost::Unknown)?;
            }
        }
        if slash && last != Last::Name && !here.is_directory() {
            return Err(Lost::Unknown);
        }
        Ok(Way {
            parent,
            file: Some(here),
            slash,
        })
    }

    /// Whose it is. What the machine's root has is root's.
    fn owner_here(&self, spot: &Spot) -> Owner {
        let link = spot.link();
        let kernels = (spot.real.stx_uid, spot.real.stx_gid);
        self.owner_of(&spot.real, &link, || path_of(&link))
            .unwrap_or(if kernels == super::stat::NOBODY {
                ROOT
            } else {
                kernels
            })
    }

    fn may(&self, rights: &Rights, spot: &Spot, wanted: u32) -> bool {
        gives_all(spot.mode(), wanted)
            || !self.has_owner(spot)
            || rights.may(spot.mode(), self.owner_here(spot), wanted)
            // That comes before rights, and the kernel says it.
            || wanted & WRITE != 0 && spot.is_read_only()
    }

    fn owns(&self, rights: &Rights, spot: &Spot) -> bool {
        !self.has_owner(spot) || rights.owns(self.owner_here(spot))
    }

    /// Whose it is is known of what is in the tree, and of pipes.
    fn has_owner(&self, spot: &Spot) -> bool {
        self.files.is_known(&spot.real) || spot.kind() == libc::S_IFIFO
    }

    /// `may_delete` of the kernel.
    fn must_remove(&self, rights: &Rights, directory: &Spot, file: &Spot) -> Option<Refused> {
        if !self.may(rights, directory, WRITE) {
            return Some(libc::EACCES);
        }
        if directory.mode() & libc::S_ISVTX == 0 || !self.files.is_known(&directory.real) {
            return None;
        }
        let of = (directory.mode(), self.owner_here(directory));
        (!rights.may_remove(of, self.owner_here(file))).then_some(libc::EPERM)
    }

    /// access(2), and everything that only has to get there.
    fn may_use(
        &self,
        walker: Walker<'_>,
        name: FileName,
        last: Last,
        wanted: u32,
    ) -> io::Result<Option<Refused>> {
        let way = way!(self.walk(walker, name, last)?);
        Ok(way
            .file
            .filter(|file| wanted != 0 && !self.may(walker.rights, file, wanted))
            .map(|_| libc::EACCES))
    }

    fn may_open_how(
        &self,
        walker: Walker<'_>,
        name: FileName,
        how: u64,
    ) -> io::Result<Option<Refused>> {
        /// `RESOLVE_IN_ROOT` (openat2(2)).
        const IN_ROOT: u64 = 0x10;
        let mut bytes = [0; 24];
        sys::read_memory(walker.tid, how, &mut bytes)?;
        let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight"));
        let walker = Walker {
            is_confined: word(16) & IN_ROOT != 0,
            ..walker
        };
        self.may_open(walker, name, int(word(0)))
    }

    /// `may_open`, `may_o_create` of the kernel.
    fn may_open(
        &self,
        walker: Walker<'_>,
        name: FileName,
        flags: i32,
    ) -> io::Result<Option<Refused>> {
        /// Without `O_DIRECTORY`, which it contains.
        const TMPFILE: i32 = 0o20_000_000;
        let creates = flags & libc::O_CREAT != 0;
        let exclusive = creates && flags & libc::O_EXCL != 0;
        let last = match (flags & libc::O_NOFOLLOW != 0, exclusive) {
            (_, true) => Last::Name,
            (stays, false) => Last::of(!stays),
        };
        let way = way!(self.walk(walker, name, last)?);
        if flags & libc::O_PATH != 0 {
            return Ok(None);
        }
        let rights = walker.rights;
        let refused_unless = |may: bool| Ok((!may).then_some(libc::EACCES));
        let Some(file) = way.file else {
            let directory = way.parent.filter(|_| creates && !way.slash);
            return refused_unless(directory.is_none_or(|parent| self.may(rights, &parent, WRITE)));
        };
        let wanted = match flags & libc::O_ACCMODE {
            libc::O_RDONLY => READ,
            libc::O_WRONLY => WRITE,
            _ => READ | WRITE,
        };
        let wanted = match flags & libc::O_TRUNC {
            0 => wanted,
            _ => wanted | WRITE,
        };
        match file.kind() {
            libc::S_IFDIR if flags & TMPFILE != 0 => {
                refused_unless(self.may(rights, &file, WRITE | SEARCH))
            }
            // The kernel has other reasons.
            libc::S_IFDIR if creates || wanted & WRITE != 0 => Ok(None),
            libc::S_IFLNK => Ok(None),
            _ if exclusive => Ok(None),
            _ if !self.may(rights, &file, wanted) => Ok(Some(libc::EACCES)),
            _ if flags & libc::O_NOATIME != 0 && !self.owns(rights, &file) => Ok(Some(libc::EPERM)),
            _ => Ok(None),
        }
    }

    fn may_make(
        &self,
        walker: Walker<'_>,
        name: FileName,
        is_directory: bool,
    ) -> io::Result<Option<Refused>> {
        let way = way!(self.walk(walker, name, Last::Name)?);
        let parent = way.parent.filter(|_| way.file.is_none());
        Ok(parent
            .filter(|_| is_directory || !way.slash)
            .filter(|parent| !self.may(walker.rights, parent, WRITE))
            .map(|_| libc::EACCES))
    }

    /// bind(2): a name for a socket, or one of the ports that not everybody gets.
    fn may_bind(
        &self,
        walker: Walker<'_>,
        address: u64,
        length: u64,
    ) -> io::Result<Option<Refused>> {
        /// `ip_unprivileged_port_start`
        const FIRST: u16 = 1024;
        Ok(match Address::read(walker.tid, address, length)? {
            Some(Address::Path(path)) => {
                let way = way!(self.walk_path(walker, libc::AT_FDCWD, &path, Last::Name));
                let parent = way.parent.filter(|_| way.file.is_none());
                let refused = parent.filter(|parent| !self.may(walker.rights, parent, WRITE));
                refused.map(|_| libc::EACCES)
            }
            Some(Address::Port(port)) => {
                let may = walker.rights.has(capability::NET_BIND_SERVICE);
                ((1..FIRST).contains(&port) && !may).then_some(libc::EACCES)
            }
            None => None,
        })
    }

    /// connect(2), sendto(2): who talks to a socket writes to its file.
    fn may_connect(
        &self,
        walker: Walker<'_>,
        address: u64,
        length: u64,
    ) -> io::Result<Option<Refused>> {
        let Some(Address::Path(path)) = Address::read(walker.tid, address, length)? else {
            return Ok(None);
        };
        let way = way!(self.walk_path(walker, libc::AT_FDCWD, &path, Last::Follow));
        let refused = way
            .file
            .filter(|file| !self.may(walker.rights, file, WRITE));
        Ok(refused.map(|_| libc::EACCES))
    }

    fn may_unlink(
        &self,
        walker: Walker<'_>,
        name: FileName,
        is_directory: bool,
    ) -> io::Result<Option<Refused>> {
        let way = way!(self.walk(walker, name, Last::Name)?);
        Ok(match (way.parent, way.file) {
            (Some(parent), Some(file)) if is_directory || !way.slash => {
                self.must_remove(walker.rights, &parent, &file)
            }
            _ => None,
        })
    }

    /// `vfs_rename` of the kernel, with what comes before it.
    fn may_rename(
        &self,
        walker: Walker<'_>,
        from: FileName,
        to: FileName,
        flags: u32,
    ) -> io::Result<Option<Refused>> {
        let rights = walker.rights;
        let from = way!(self.walk(walker, from, Last::Name)?);
        let to = way!(self.walk(walker, to, Last::Name)?);
        let (Some(old), Some(file), Some(new)) = (from.parent, from.file, to.parent) else {
            return Ok(None);
        };
        let exchanges = flags & libc::RENAME_EXCHANGE != 0;
        let moves = !old.is(&new);
        let other_reason = old.real.stx_mnt_id != new.real.stx_mnt_id
            || (from.slash || to.slash && !exchanges) && !file.is_directory()
            || flags & libc::RENAME_NOREPLACE != 0 && to.file.is_some()
            || exchanges && to.file.is_none()
            || moves && file.is_directory() && is_within(&new, &file)
            || to.file.as_ref().is_some_and(|there| {
                there.is(&file) || moves && there.is_directory() && is_within(&old, there)
            });
        if other_reason {
            return Ok(None);
        }
        if let Some(refused) = self.must_remove(rights, &old, &file) {
            return Ok(Some(refused));
        }
        let refused = match &to.file {
            None => (!self.may(rights, &new, WRITE)).then_some(libc::EACCES),
            Some(there) => self.must_remove(rights, &new, there),
        };
        if refused.is_some() || !moves {
            return Ok(refused);
        }
        // Its `..` becomes another one.
        let changes = |spot: &Spot| spot.is_directory() && !self.may(rights, spot, WRITE);
        Ok(match &to.file {
            Some(there) if !exchanges && there.is_directory() != file.is_directory() => None,
            Some(there) if exchanges && changes(there) => Some(libc::EACCES),
            _ => changes(&file).then_some(libc::EACCES),
        })
    }

    /// `may_linkat`, `vfs_link` of the kernel.
    fn may_link(
        &self,
        walker: Walker<'_>,
        (from, last): (FileName, Last),
        to: FileName,
    ) -> io::Result<Option<Refused>> {
        let rights = walker.rights;
        let from = way!(self.walk(walker, from, last)?);
        let to = way!(self.walk(walker, to, Last::Name)?);
        let (Some(file), Some(new), None, false) = (from.file, to.parent, to.file, to.slash) else {
            return Ok(None);
        };
        if file.real.stx_mnt_id != new.real.stx_mnt_id {
            return Ok(None);
        }
        let is_set_id = file.mode() & libc::S_ISUID != 0
            || file.mode() & libc::S_ISGID != 0 && file.mode() & libc::S_IXGRP != 0;
        let is_safe =
            file.kind() == libc::S_IFREG && !is_set_id && self.may(rights, &file, READ | WRITE);
        if !is_safe && !self.owns(rights, &file) {
            return Ok(Some(libc::EPERM));
        }
        Ok((!self.may(rights, &new, WRITE)).then_some(libc::EACCES))
    }

    /// chmod(2)
    fn must_own(
        &self,
        walker: Walker<'_>,
        name: FileName,
        last: Last,
    ) -> io::Result<Option<Refused>> {
        let way = way!(self.walk(walker, name, last)?);
        Ok(way
            .file
            .filter(|file| file.kind() != libc::S_IFLNK && !self.owns(walker.rights, file))
            .map(|_| libc::EPERM))
    }

    /// chmod(2) by one that is not in the group of the file: without the bit that sets it.
    fn without_group(&self, tid: Tid, registers: &mut Registers) -> Option<Answer> {
        let (number, a) = arch::modern(registers.number(), &registers.arguments());
        let (name, mode) = match number {
            libc::SYS_fchmodat | SYS_FCHMODAT2 => (file_name(a[0], a[1]), a[2]),
            libc::SYS_fchmod => (file_name(a[0], 0), a[1]),
            _ => return None,
        };
        let rights = self.threads[&tid].ids.rights(false);
        if low(mode) & libc::S_ISGID == 0 || rights.has(capability::FSETID) {
            return None;
        }
        let walker = Walker {
            tid,
            rights: &rights,
            is_confined: false,
            may_be_empty: true,
        };
        let way = self.walk(walker, name, Last::Follow).ok()?.ok()?;
        let file = way.file.filter(|file| self.files.is_known(&file.real))?;
        if rights.is_in(self.owner_here(&file).1) {
            return None;
        }
        let saved = registers.clone();
        let at = (0..4).find(|at| registers.argument(*at) == mode && *at > 0)?;
        registers.set_argument(at, mode & !u64::from(libc::S_ISGID));
        Some(Answer::Changed(Pending::Redirected(saved)))
    }

    fn may_truncate(&self, walker: Walker<'_>, name: FileName) -> io::Result<Option<Refused>> {
        let way = way!(self.walk(walker, name, Last::Follow)?);
        Ok(way
            .file
            .filter(|file| file.kind() == libc::S_IFREG && !self.may(walker.rights, file, WRITE))
            .map(|_| libc::EACCES))
    }

    fn may_enter(&self, walker: Walker<'_>, name: FileName) -> io::Result<Option<Refused>> {
        let way = way!(self.walk(walker, name, Last::Follow)?);
        Ok(way
            .file
            .filter(|file| file.is_directory() && !self.may(walker.rights, file, SEARCH))
            .map(|_| libc::EACCES))
    }

    fn may_execute(
        &self,
        walker: Walker<'_>,
        name: FileName,
        last: Last,
    ) -> io::Result<Option<Refused>> {
        let mut way = way!(self.walk(walker, name, last)?);
        for _ in 0..=interpreter::CHAIN {
            let Some(file) = way.file.filter(|file| file.kind() == libc::S_IFREG) else {
                return Ok(None);
            };
            if !self.may(walker.rights, &file, SEARCH) {
                return Ok(Some(libc::EACCES));
            }
            let Some(interpreter) = interpreter_of(&file) else {
                return Ok(None);
            };
            way = way!(self.walk_path(walker, libc::AT_FDCWD, &interpreter, Last::Follow));
        }
        Ok(None)
    }

    /// `xattr_permission` of the kernel; `wanted` is [`READ`] or [`WRITE`].
    fn may_change_attribute(
        &self,
        walker: Walker<'_>,
        (file, last): (FileName, Last),
        attribute: u64,
        wanted: u32,
    ) -> io::Result<Option<Refused>> {
        /// `XATTR_NAME_MAX`
        const LONGEST: usize = 256;
        let rights = walker.rights;
        let way = way!(self.walk(walker, file, last)?);
        let Some(file) = way.file else {
            return Ok(None);
        };
        let attribute = sys_string(walker.tid, attribute, LONGEST)?;
        if attribute == b"security.capability" && wanted == WRITE {
            return Ok((!rights.has(capability::SETFCAP)).then_some(libc::EPERM));
        }
        if attribute.starts_with(b"system.posix_acl_") && wanted == WRITE {
            return Ok((!self.owns(rights, &file)).then_some(libc::EPERM));
        }
        if !attribute.starts_with(b"user.")
            || ![libc::S_IFREG, libc::S_IFDIR].contains(&file.kind())
        {
            return Ok(None);
        }
        let is_sticky = file.is_directory() && file.mode() & libc::S_ISVTX != 0;
        if is_sticky && wanted == WRITE && !self.owns(rights, &file) {
            return Ok(Some(libc::EPERM));
        }
        Ok((!self.may(rights, &file, wanted)).then_some(libc::EACCES))
    }

    /// utimensat(2): who may write to a file may set its times to now, and only its owner to others.
    fn may_touch(
        &self,
        walker: Walker<'_>,
        (name, last): (FileName, Last),
        times: Option<Span>,
    ) -> io::Result<Option<Refused>> {
        const UTIME_NOW: i64 = libc::UTIME_NOW;
        const UTIME_OMIT: i64 = libc::UTIME_OMIT;
        let parts = match times.filter(|times| times.address() != 0) {
            None => None,
            Some(Span::Nano(at)) => {
                let mut bytes = [0; 32];
                sys::read_memory(walker.tid, at, &mut bytes)?;
                let word =
                    |at: usize| i64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight"));
                Some((word(8), word(24)))
            }
            Some(_) => Some((0, 0)),
        };
        let is_now = match parts {
            // Nothing is looked at.
            Some((UTIME_OMIT, UTIME_OMIT)) => return Ok(None),
            Some(parts) => parts == (UTIME_NOW, UTIME_NOW),
            None => true,
        };
        let way = way!(self.walk(walker, name, last)?);
        let Some(file) = way.file else {
            return Ok(None);
        };
        let rights = walker.rights;
        Ok(match (self.owns(rights, &file), is_now) {
            (true, _) => None,
            (false, false) => Some(libc::EPERM),
            (false, true) => (!self.may(rights, &file, WRITE)).then_some(libc::EACCES),
        })
    }
}

/// The program that a script names as its interpreter (execve(2)).
fn interpreter_of(script: &Spot) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = openat(CWD, script.link(), flags, Mode::empty()).ok()?;
    let mut head = [0; interpreter::HEAD];
    let length = rustix::io::pread(&file, &mut head, 0).ok()?;
    interpreter::of_script(&head[..length])
}

/// What is named by the address of a socket.
enum Address {
    Path(Vec<u8>),
    Port(u16),
}

impl Address {
    fn read(tid: Tid, at: u64, length: u64) -> io::Result<Option<Self>> {
        /// Bytes of `sockaddr_un`.
        const LONGEST: usize = 110;
        let length = usize::try_from(length).map_or(LONGEST, |length| length.min(LONGEST));
        let mut bytes = [0; LONGEST];
        if at == 0 || length < 4 || sys::read_memory(tid, at, &mut bytes[..length])? < length {
            return Ok(None);
        }
        let (family, rest) = bytes[..length].split_at(2);
        let path = rest.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(
            match i32::from(u16::from_ne_bytes([family[0], family[1]])) {
                libc::AF_UNIX if !path.is_empty() => Some(Self::Path(path.to_vec())),
                libc::AF_INET | libc::AF_INET6 => {
                    Some(Self::Port(u16::from_be_bytes([rest[0], rest[1]])))
                }
                _ => None,
            },
        )
    }
}

/// Is a directory this one, or below it?
fn is_within(directory: &Spot, top: &Spot) -> bool {
    /// Longer than any path.
    const DEEPEST: usize = 4096;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let open = |spot: &Spot| openat(&spot.file, c"..", flags, Mode::empty()).ok();
    let mut above = open(directory).and_then(Spot::of);
    if directory.is(top) {
        return true;
    }
    let mut last: Option<Spot> = None;
    for _ in 0..DEEPEST {
        let Some(here) = above else { return false };
        if here.is(top) {
            return true;
        }
        if last.is_some_and(|last| last.is(&here)) {
            return false;
        }
        above = open(&here).and_then(Spot::of);
        last = Some(here);
    }
    false
}

/// The names of a path, the last one first.
fn names(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty())
        .rev()
        .map(<[u8]>::to_vec)
        .collect()
}

const HERE: u64 = libc::AT_FDCWD.cast_unsigned() as u64;

fn file_name(directory: u64, path: u64) -> FileName {
    FileName {
        directory: int(directory),
        path,
    }
}

/// The kernel takes the low half of the register, too.
fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).expect("32 bits")
}

fn int(value: u64) -> i32 {
    low(value).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(user: u32, group: u32, groups: &[u32], capabilities: u32) -> Rights {
        Rights {
            user,
            group,
            groups: groups.to_vec(),
            capabilities,
        }
    }

    const FILE: u32 = libc::S_IFREG;
    const DIRECTORY: u32 = libc::S_IFDIR;

    #[test]
    fn the_first_class_alone_counts() {
        let me = rights(5, 6, &[8], 0);
        for (mode, owner, may) in [
            (0o400, (5, 6), true),
            (0o044, (5, 6), false),
            (0o040, (7, 6), true),
            (0o040, (7, 8), true),
            (0o404, (7, 8), false),
            (0o004, (7, 9), true),
            (0o440, (7, 9), false),
        ] {
            assert_eq!(me.may(FILE | mode, owner, READ), may, "{mode:o} {owner:?}");
        }
        assert!(!me.may(FILE | 0o600, (5, 6), READ | SEARCH));
    }

    #[test]
    fn who_overrides_executes_only_what_somebody_may_execute() {
        let root = rights(0, 0, &[], capability::DAC_OVERRIDE);
        assert!(root.may(FILE, (5, 6), READ | WRITE));
        assert!(!root.may(FILE | 0o666, (5, 6), SEARCH));
        assert!(root.may(FILE | 0o001, (5, 6), SEARCH));
        assert!(root.may(DIRECTORY, (5, 6), READ | WRITE | SEARCH));
    }

    #[test]
    fn who_may_look_everywhere_changes_nothing() {
        let reader = rights(5, 5, &[], capability::DAC_READ_SEARCH);
        assert!(reader.may(DIRECTORY, (0, 0), READ | SEARCH));
        assert!(reader.may(FILE, (0, 0), READ));
        assert!(!reader.may(FILE | 0o100, (0, 0), SEARCH));
        assert!(!reader.may(DIRECTORY, (0, 0), WRITE));
    }

    #[test]
    fn in_a_sticky_directory_everybody_removes_what_is_theirs() {
        let me = rights(5, 6, &[], 0);
        let sticky = DIRECTORY | 0o1777;
        assert!(me.may_remove((sticky, (0, 0)), (5, 0)));
        assert!(me.may_remove((sticky, (5, 0)), (7, 0)));
        assert!(!me.may_remove((sticky, (0, 0)), (7, 6)));
        assert!(me.may_remove((DIRECTORY | 0o777, (0, 0)), (7, 6)));
        let other = rights(5, 6, &[], capability::FOWNER);
        assert!(other.may_remove((sticky, (0, 0)), (7, 6)));
    }

    #[test]
    fn what_everybody_may_needs_no_owner() {
        assert!(gives_all(0o755, READ | SEARCH) && gives_all(0o666, WRITE) && gives_all(0, 0));
        assert!(!gives_all(0o744, SEARCH) && !gives_all(0o770, READ));
    }

    #[test]
    fn a_path_is_its_names() {
        let of = |path: &str| {
            let mut names = names(path.as_bytes());
            names.reverse();
            names.join(&b' ')
        };
        assert_eq!(of("/a//b/./c/"), b"a b . c");
        assert_eq!(of("/"), b"");
    }
}
