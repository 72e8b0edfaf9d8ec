//! A tree as a directory: the root a step runs on, what a step changed as one more layer of it, or an output for people.
//!
//! Writes below one directory that is given empty, by paths relative to a handle of it. Every mode, owner and time is set
//! explicitly, so neither umask nor clock matters.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use immbuild_cas::digest::DirectoryId;
use immbuild_cas::path::RelPath;
use immbuild_cas::store::{BlobSource, DirectorySource, StoreError, read_error};
use immbuild_cas::tree::{
    Change, Delta, Directory, Entry, File, LinkGroups, Meta, Mode, Special, SpecialKind, Symlink,
    Tree, XattrName,
};
use rustix::fs::{
    AtFlags, FileType, Gid, OFlags, Timespec, Timestamps, Uid, chmodat, chownat, fchmod, fchown,
    fstat, futimens, linkat, mkdirat, mknodat, openat, symlinkat, utimensat,
};

use super::owner::Owners;
use super::{HostFsError, join, pool, shown, walk, xattr};
use crate::epoch::Epoch;

/// Entries that one thread writes before it takes more.
const JOB: usize = 64;
/// Bytes written at a time.
const BUFFER: usize = 256 * 1024;

/// How a tree is written.
#[derive(Clone, Copy)]
pub struct Materialise<'a> {
    /// Gives the directories.
    pub directories: &'a dyn DirectorySource,
    /// Gives the content.
    pub blobs: &'a dyn BlobSource,
    /// Gives the times.
    pub times: Times<'a>,
    /// What it is for.
    pub purpose: Purpose,
    /// How many threads write.
    pub threads: NonZeroUsize,
}

/// The times of a tree's entries.
#[derive(Clone, Copy)]
pub struct Times<'a> {
    /// Of every entry that has none of its own.
    pub epoch: Epoch,
    /// The time of an entry that is unchanged from a base image, in seconds and nanoseconds since 1970.
    pub known: &'a (dyn Fn(&RelPath) -> Option<(i64, u32)> + Sync),
}

/// What a directory is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Steps run on it. Owners must be given or noted; devices cannot be made in a user namespace and are left out.
    Snapshot {
        /// Which of the two.
        owners: Owners,
    },
    /// People look at it. Devices, and names that differ only by case, are errors.
    Output {
        /// Whether owners and file capabilities are given, which needs root.
        owners: bool,
    },
}

/// What could not be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Materialised {
    /// Devices.
    pub left_out: Vec<RelPath>,
}

/// One thing to write.
#[derive(Clone, Debug)]
enum Item {
    Directory(Meta),
    File(File),
    Symlink(Symlink),
    Special(Special),
    /// What overlayfs reads as a deletion.
    Whiteout,
}

impl std::fmt::Debug for Materialise<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Materialise")
            .field("purpose", &self.purpose)
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Times<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Times")
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

impl Times<'_> {
    /// The time of this path, as both of the times a file has.
    pub(super) fn of(&self, path: &RelPath) -> Timestamps {
        let (seconds, nanoseconds) = (self.known)(path).unwrap_or((self.epoch.seconds(), 0));
        both(seconds, nanoseconds)
    }
}

impl Materialise<'_> {
    /// Writes a whole tree into the empty directory `into`.
    pub fn tree(&self, tree: &Tree, into: &Path) -> Result<Materialised, HostFsError> {
        let mut items = BTreeMap::new();
        let mut waiting = vec![(RelPath::root(), tree.root)];
        while let Some((path, id)) = waiting.pop() {
            let directory = self.directories.directory(&id)?;
            for (name, entry) in directory.entries() {
                let path = join(into, &path, name)?;
                match Item::of(entry) {
                    Ok(item) => drop(items.insert(path, item)),
                    Err(id) => waiting.push((path, id)),
                }
            }
            items.insert(path, Item::Directory(directory.meta().clone()));
        }
        self.write(&items, &tree.links, into)
    }

    /// Writes what turns another tree into `tree` into the empty directory `into`, so that overlayfs shows `tree` when
    /// this lies on a snapshot of the other. Directories above a change are there with the metadata they have in `tree`.
    pub fn delta(
        &self,
        tree: &Tree,
        delta: &Delta,
        into: &Path,
    ) -> Result<Materialised, HostFsError> {
        let mut above = Above::new(self.directories, tree);
        let mut items = BTreeMap::new();
        let root = above.directory(&RelPath::root())?.meta().clone();
        items.insert(RelPath::root(), Item::Directory(root));
        for (path, change) in &delta.changes {
            let mut parent = path.parent();
            while let Some(path) = parent.filter(|path| !items.contains_key(path)) {
                let meta = above.directory(&path)?.meta().clone();
                parent = path.parent();
                items.insert(path, Item::Directory(meta));
            }
            items.insert(path.clone(), Item::of_change(change));
        }
        self.write(&items, &delta.links, into)
    }

    /// Directories first, then all else on several threads, then hard links; and when nothing is written any more, what
    /// writing would spoil: modes and times of directories, the deepest first.
    fn write(
        &self,
        items: &BTreeMap<RelPath, Item>,
        links: &LinkGroups,
        into: &Path,
    ) -> Result<Materialised, HostFsError> {
        let root = walk::open_root(into)
            .map_err(|error| HostFsError::io("open", into.display().to_string())(error))?;
        let target = Target {
            materialise: self,
            root,
            path: into,
        };
        let left_out = target.check(items)?;
        let firsts = links.first_by_path();
        let mut files = Vec::new();
        for (path, item) in items {
            match item {
                Item::Directory(_) if path.is_root() => {}
                Item::Directory(_) => target.make_directory(path)?,
                _ if left_out.binary_search(path).is_ok() => {}
                _ if firsts.get(path).is_some_and(|first| *first != path) => {}
                _ => files.push((path, item)),
            }
        }
        pool::run(
            self.threads,
            files.chunks(JOB).collect(),
            || vec![0; BUFFER],
            |buffer, job, _| {
                job.iter()
                    .try_for_each(|(path, item)| target.make(path, item, buffer))
            },
        )?;
        for group in links.groups() {
            if left_out.binary_search(&group[0]).is_err() {
                target.link(group)?;
            }
        }
        for (path, item) in items.iter().rev() {
            if let Item::Directory(meta) = item {
                target.finish_directory(path, meta)?;
            }
        }
        Ok(Materialised { left_out })
    }
}

impl Item {
    /// What an entry is; the id of one that is a directory.
    fn of(entry: &Entry) -> Result<Self, DirectoryId> {
        Ok(match entry {
            Entry::Directory(id) => return Err(*id),
            Entry::File(file) => Self::File(file.clone()),
            Entry::Symlink(link) => Self::Symlink(link.clone()),
            Entry::Special(special) => Self::Special(special.clone()),
        })
    }

    fn of_change(change: &Change) -> Self {
        match change {
            Change::Remove => Self::Whiteout,
            Change::Directory(meta) => Self::Directory(meta.clone()),
            Change::File(file) => Self::File(file.clone()),
            Change::Symlink(link) => Self::Symlink(link.clone()),
            Change::Special(special) => Self::Special(special.clone()),
        }
    }

    fn owner(&self) -> (u32, u32) {
        match self {
            Self::Directory(meta)
            | Self::File(File { meta, .. })
            | Self::Special(Special { meta, .. }) => (meta.uid, meta.gid),
            Self::Symlink(link) => (link.uid, link.gid),
            Self::Whiteout => (0, 0),
        }
    }

    fn is_device(&self) -> bool {
        matches!(self, Self::Special(special) if special.kind != SpecialKind::Fifo)
    }
}

/// Reads the directories of a tree by path, each once.
pub(super) struct Above<'a> {
    source: &'a dyn DirectorySource,
    root: DirectoryId,
    read: BTreeMap<RelPath, Arc<Directory>>,
}

impl<'a> Above<'a> {
    pub(super) fn new(source: &'a dyn DirectorySource, tree: &Tree) -> Self {
        Self {
            source,
            root: tree.root,
            read: BTreeMap::new(),
        }
    }

    /// The entry at this path, if there is one. The root is none.
    pub(super) fn entry(&mut self, path: &RelPath) -> Result<Option<Entry>, HostFsError> {
        let Some((parent, name)) = path.split_last() else {
            return Ok(None);
        };
        let parent = self.find(&parent)?;
        Ok(parent.and_then(|parent| parent.get(name.as_bytes()).cloned()))
    }

    /// The directory at this path, if there is one.
    pub(super) fn find(&mut self, path: &RelPath) -> Result<Option<Arc<Directory>>, HostFsError> {
        if let Some(directory) = self.read.get(path) {
            return Ok(Some(Arc::clone(directory)));
        }
        let id = match self.entry(path)? {
            Some(Entry::Directory(id)) => id,
            None if path.is_root() => self.root,
            _ => return Ok(None),
        };
        let directory = self.source.directory(&id)?;
        self.read.insert(path.clone(), Arc::clone(&directory));
        Ok(Some(directory))
    }

    /// The directory that must be at this path.
    fn directory(&mut self, path: &RelPath) -> Result<Arc<Directory>, HostFsError> {
        let found = self.find(path)?;
        Ok(found.expect("what lies above a change is a directory of the new tree"))
    }
}

/// The directory that is written to.
struct Target<'a> {
    materialise: &'a Materialise<'a>,
    root: OwnedFd,
    /// For messages.
    path: &'a Path,
}

impl Target<'_> {
    /// Whatever can be known to fail fails before anything is written. Gives the paths that are left out.
    fn check(&self, items: &BTreeMap<RelPath, Item>) -> Result<Vec<RelPath>, HostFsError> {
        let devices = items.iter().filter(|(_, item)| item.is_device());
        let mut devices = devices.map(|(path, _)| path.clone());
        match self.materialise.purpose {
            Purpose::Snapshot { owners } => {
                let devices = devices.collect();
                if let Owners::Real { highest } = owners {
                    check_owners(items, highest)?;
                }
                Ok(devices)
            }
            Purpose::Output { .. } => {
                if let Some(path) = devices.next() {
                    return Err(HostFsError::Kind {
                        path: path.to_string(),
                        kind: "a device",
                    });
                }
                check_case(items.keys())?;
                Ok(Vec::new())
            }
        }
    }

    fn failed(
        &self,
        action: &'static str,
        path: &RelPath,
    ) -> impl FnOnce(io::Error) -> HostFsError {
        HostFsError::io(action, shown(self.path, path))
    }

    fn make_directory(&self, path: &RelPath) -> Result<(), HostFsError> {
        let mode = rustix::fs::Mode::RWXU;
        mkdirat(&self.root, path.as_bytes(), mode)
            .map_err(|error| self.failed("make", path)(error.into()))
    }

    fn finish_directory(&self, path: &RelPath, meta: &Meta) -> Result<(), HostFsError> {
        let name = if path.is_root() {
            b"."
        } else {
            path.as_bytes()
        };
        walk::open_directory(&self.root, name)
            .and_then(|handle| self.finish(&handle, path, meta))
            .map_err(self.failed("set mode, owner and times of", path))
    }

    fn make(&self, path: &RelPath, item: &Item, buffer: &mut [u8]) -> Result<(), HostFsError> {
        let name = path.as_bytes();
        let made = match item {
            Item::File(file) => return self.make_file(path, file, buffer),
            Item::Symlink(link) => symlinkat(&*link.target, &self.root, name)
                .map_err(io::Error::from)
                .and_then(|()| self.finish_by_name(path, (link.uid, link.gid), None)),
            // Attributes of a pipe are not written: the kernel refuses them, and nothing can be asked of them.
            Item::Special(Special { meta, .. }) => self
                .make_special(path, FileType::Fifo)
                .and_then(|()| self.finish_by_name(path, (meta.uid, meta.gid), Some(meta.mode))),
            Item::Whiteout => self
                .make_special(path, FileType::CharacterDevice)
                .and_then(|()| self.finish_by_name(path, (0, 0), None)),
            Item::Directory(_) => Ok(()),
        };
        made.map_err(self.failed("make", path))
    }

    fn make_special(&self, path: &RelPath, kind: FileType) -> io::Result<()> {
        let mode = rustix::fs::Mode::empty();
        Ok(mknodat(&self.root, path.as_bytes(), kind, mode, 0)?)
    }

    fn make_file(&self, path: &RelPath, file: &File, buffer: &mut [u8]) -> Result<(), HostFsError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        let handle = openat(&self.root, path.as_bytes(), flags, mode)
            .map_err(|error| self.failed("make", path)(error.into()))?;
        let mut to = fs::File::from(handle);
        let mut from = self.materialise.blobs.open(&file.blob)?;
        let mut length = 0;
        loop {
            let count = from
                .read(buffer)
                .map_err(|error| read_error(file.blob.digest(), error))?;
            if count == 0 {
                break;
            }
            length += count as u64;
            write_or_skip(&mut to, &buffer[..count]).map_err(self.failed("write", path))?;
        }
        if length != file.size {
            let digest = *file.blob.digest();
            return Err(StoreError::Damaged { digest }.into());
        }
        to.set_len(length)
            .and_then(|()| self.finish(&to.into(), path, &file.meta))
            .map_err(self.failed("write", path))
    }

    /// The second and further names of one file.
    fn link(&self, group: &[RelPath]) -> Result<(), HostFsError> {
        for other in &group[1..] {
            linkat(
                &self.root,
                group[0].as_bytes(),
                &self.root,
                other.as_bytes(),
                AtFlags::empty(),
            )
            .map_err(|error| self.failed("link", other)(error.into()))?;
        }
        Ok(())
    }

    /// Owner before attributes and mode, for a change of owner takes capabilities and set-uid away; attributes before
    /// mode, for a mode may forbid to write them; times last.
    fn finish(&self, handle: &OwnedFd, path: &RelPath, meta: &Meta) -> io::Result<()> {
        match self.materialise.purpose {
            Purpose::Output { owners: false } => {
                let mut xattrs = meta.xattrs.clone();
                xattrs.retain(|name, _| name.as_bytes() != XattrName::CAPABILITY);
                xattr::write(handle, &xattrs)?;
            }
            Purpose::Snapshot {
                owners: Owners::Noted,
            } => {
                xattr::note(handle, (meta.uid, meta.gid))?;
                xattr::write(handle, &meta.xattrs)?;
            }
            _ => {
                let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
                fchown(handle, Some(uid), Some(gid))?;
                xattr::write(handle, &meta.xattrs)?;
            }
        }
        fchmod(handle, rustix::fs::Mode::from_raw_mode(meta.mode.bits()))?;
        Ok(futimens(handle, &self.materialise.times.of(path))?)
    }

    /// The same for what cannot be opened.
    fn finish_by_name(
        &self,
        path: &RelPath,
        (uid, gid): (u32, u32),
        mode: Option<Mode>,
    ) -> io::Result<()> {
        let name = path.as_bytes();
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        if self.gives_owners() {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            chownat(&self.root, name, Some(uid), Some(gid), flags)?;
        }
        if let Some(mode) = mode {
            let mode = rustix::fs::Mode::from_raw_mode(mode.bits());
            chmodat(&self.root, name, mode, AtFlags::empty())?;
        }
        Ok(utimensat(
            &self.root,
            name,
            &self.materialise.times.of(path),
            flags,
        )?)
    }

    fn gives_owners(&self) -> bool {
        matches!(
            self.materialise.purpose,
            Purpose::Output { owners: true }
                | Purpose::Snapshot {
                    owners: Owners::Real { .. }
                }
        )
    }
}

/// Gives the empty directory `upper` what the root of a snapshot has, times too: overlayfs shows the root of the topmost
/// directory, so a step would see the hour in which its own was made.
pub fn prepare_upper(snapshot: &Path, upper: &Path) -> Result<(), HostFsError> {
    let copy = || {
        let (from, to) = (walk::open_root(snapshot)?, walk::open_root(upper)?);
        let stat = fstat(&from)?;
        let (seconds, nanoseconds) = walk::Stamp::of(&stat).mtime;
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        fchown(&to, Some(uid), Some(gid))?;
        xattr::write(&to, &xattr::read(&from)?.kept)?;
        fchmod(&to, rustix::fs::Mode::from_raw_mode(stat.st_mode))?;
        Ok(futimens(&to, &both(seconds, nanoseconds))?)
    };
    copy().map_err(HostFsError::io("prepare", upper.display().to_string()))
}

/// One time as both of the times a file has.
fn both(seconds: i64, nanoseconds: u32) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Writes bytes; many zeros become a hole.
fn write_or_skip(to: &mut fs::File, bytes: &[u8]) -> io::Result<()> {
    const PAGE: usize = 4096;
    if bytes.len() >= PAGE && bytes.iter().all(|byte| *byte == 0) {
        let length = i64::try_from(bytes.len()).expect("a buffer is small");
        return to.seek(SeekFrom::Current(length)).map(drop);
    }
    to.write_all(bytes)
}

/// Every owner must be one that can be given.
fn check_owners(items: &BTreeMap<RelPath, Item>, highest: u32) -> Result<(), HostFsError> {
    for (path, item) in items {
        let (uid, gid) = item.owner();
        if uid.max(gid) > highest {
            return Err(HostFsError::Owner {
                path: path.to_string(),
                uid,
                gid,
                highest,
            });
        }
    }
    Ok(())
}

/// No two paths may be one where case is ignored. Case is that of Unicode; bytes that are no text have none.
fn check_case<'a>(paths: impl Iterator<Item = &'a RelPath>) -> Result<(), HostFsError> {
    let mut seen = BTreeMap::new();
    for path in paths {
        let folded = match std::str::from_utf8(path.as_bytes()) {
            Ok(text) => text.to_lowercase().into_bytes(),
            Err(_) => path.as_bytes().to_ascii_lowercase(),
        };
        if let Some(first) = seen.insert(folded, path) {
            return Err(HostFsError::Case {
                first: first.to_string(),
                second: path.to_string(),
            });
        }
    }
    Ok(())
}
