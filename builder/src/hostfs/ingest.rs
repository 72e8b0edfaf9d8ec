//! What a step left in the upper directory of its overlay, read by meaning, as the tree that it made.
//!
//! overlayfs copies more than was changed: a file that was only touched, one name of a hard-linked file, every directory on
//! the way. Here only content, mode, owner, attributes and names count, so that any way to come to the same root gives the
//! same tree. The dialect understood is that of `userxattr` (kernel, filesystems/overlayfs.rst): a 0:0 character device
//! is a deletion, `user.overlay.opaque` = `y` hides what is below.
//!
//! Nothing else may write to the directory meanwhile: the step's processes are dead.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use immbuild_cas::digest::{BlobId, DirectoryId, Hasher};
use immbuild_cas::path::{Name, RelPath};
use immbuild_cas::store::Store;
use immbuild_cas::tree::{
    Directory, Entry, File, LinkGroups, Meta, Special, SpecialKind, Symlink, Tree, Xattrs,
};
use rustix::fs::{AtFlags, FileType, SeekFrom as FsSeek, Stat, fstat, readlinkat, statat};
use rustix::io::Errno;

use super::materialise::Above;
use super::owner::{NOTE, Noteless, Owner, ROOT};
use super::scan::meta_of;
use super::{HostFsError, join, pool, shown, walk, xattr};

const OPAQUE: &[u8] = b"user.overlay.opaque";
/// What overlayfs notes for itself on what it copied, and on its root; nothing here depends on it.
const NOTES: [&[u8]; 3] = [
    b"user.overlay.impure",
    b"user.overlay.origin",
    b"user.overlay.uuid",
];
/// How overlayfs stores an attribute `user.overlay.x` that a program in the step asked for.
const ESCAPED: &[u8] = b"user.overlay.overlay.";
/// Bytes read at a time.
const BUFFER: usize = 256 * 1024;

/// What a step made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingested {
    /// The whole tree after the step.
    pub tree: Tree,
    /// Sockets that were left behind. They are not part of the tree.
    pub sockets: Vec<RelPath>,
    /// Attributes that are not part of the tree, with the paths they are on.
    pub dropped: Vec<(RelPath, Box<[u8]>)>,
    /// How many regular files of the upper directory were read.
    pub files: u64,
    /// How many bytes they had.
    pub bytes: u64,
}

/// Reads the upper directory of an overlay whose lower directories showed `base`. Content and directories that are new
/// go to `store`. Owners are those of the entries, or, if this is given, in notes and for what has none here.
pub fn ingest_upper(
    upper: &Path,
    base: &Tree,
    store: &dyn Store,
    noted: Option<&Noteless>,
    threads: NonZeroUsize,
) -> Result<Ingested, HostFsError> {
    let upper = Upper::open(upper)?;
    let mut reader = Reader {
        upper: &upper,
        base: Above::new(store, base),
        noted,
        found: BTreeMap::new(),
        inodes: BTreeMap::new(),
        sockets: Vec::new(),
        dropped: Vec::new(),
    };
    reader.read()?;
    let Reader {
        mut found,
        inodes,
        mut sockets,
        mut dropped,
        ..
    } = reader;
    let (files, bytes) = upper.store_content(&mut found, &inodes, store, threads)?;
    let tree = merge(&upper, base, &found, &inodes, store)?;
    sockets.sort();
    dropped.sort();
    Ok(Ingested {
        tree,
        sockets,
        dropped,
        files,
        bytes,
    })
}

/// An upper directory.
struct Upper<'a> {
    path: &'a Path,
    root: OwnedFd,
}

/// What is at a path of the upper directory.
struct Found {
    kind: Kind,
    /// What the base has at this path, if that can be seen beneath.
    base: Option<Entry>,
}

enum Kind {
    Whiteout,
    Directory {
        meta: Meta,
        /// The directory of the base that can be seen beneath.
        base: Option<Arc<Directory>>,
    },
    File {
        inode: Inode,
        size: u64,
        meta: Meta,
        /// Once it is known.
        blob: Option<BlobId>,
    },
    Other(Entry),
}

/// Device and inode.
type Inode = (u64, u64);

/// The paths of every inode that has several names.
type Inodes = BTreeMap<Inode, Vec<RelPath>>;

impl Upper<'_> {
    fn open(path: &Path) -> Result<Upper<'_>, HostFsError> {
        let root = walk::open_root(path)
            .map_err(|error| HostFsError::io("open", path.display().to_string())(error))?;
        Ok(Upper { path, root })
    }

    fn failed(
        &self,
        action: &'static str,
        path: &RelPath,
    ) -> impl FnOnce(io::Error) -> HostFsError {
        HostFsError::io(action, shown(self.path, path))
    }

    fn open_directory(&self, path: &RelPath) -> Result<OwnedFd, HostFsError> {
        let name = if path.is_root() {
            b"."
        } else {
            path.as_bytes()
        };
        walk::open_directory(&self.root, name).map_err(self.failed("open", path))
    }

    fn open_file(&self, path: &RelPath) -> Result<OwnedFd, HostFsError> {
        walk::open_file(&self.root, path.as_bytes()).map_err(self.failed("open", path))
    }

    fn stat(&self, path: &RelPath) -> Result<Stat, HostFsError> {
        statat(&self.root, path.as_bytes(), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| self.failed("read", path)(error.into()))
    }

    /// Finds the blob of every file, and stores those that the base does not have at the same path.
    fn store_content(
        &self,
        found: &mut BTreeMap<RelPath, Found>,
        inodes: &Inodes,
        store: &dyn Store,
        threads: NonZeroUsize,
    ) -> Result<(u64, u64), HostFsError> {
        let jobs: Vec<Job> = found
            .iter()
            .filter_map(|(path, found)| match &found.kind {
                Kind::File { inode, size, .. }
                    if inodes.get(inode).is_none_or(|paths| paths[0] == *path) =>
                {
                    let known = match &found.base {
                        Some(Entry::File(file)) if file.size == *size => Some(file.blob),
                        _ => None,
                    };
                    Some(Job {
                        path: path.clone(),
                        inode: *inode,
                        size: *size,
                        known,
                    })
                }
                _ => None,
            })
            .collect();
        let totals = (jobs.len() as u64, jobs.iter().map(|job| job.size).sum());
        let blobs: BTreeMap<Inode, BlobId> =
            pool::run(threads, jobs, Vec::new, |blobs, job, _| {
                blobs.push((job.inode, self.store_file(&job, store)?));
                Ok::<(), HostFsError>(())
            })?
            .into_iter()
            .flatten()
            .collect();
        for found in found.values_mut() {
            if let Kind::File { inode, blob, .. } = &mut found.kind {
                *blob = blobs.get(inode).copied();
            }
        }
        Ok(totals)
    }

    fn store_file(&self, job: &Job, store: &dyn Store) -> Result<BlobId, HostFsError> {
        let reading = |error: io::Error| self.failed("read", &job.path)(error);
        let mut file = SparseReader::new(self.open_file(&job.path)?, job.size);
        if let Some(known) = job.known {
            let mut hasher = Hasher::new();
            let mut buffer = vec![0; BUFFER];
            loop {
                match file.read(&mut buffer).map_err(reading)? {
                    0 => break,
                    count => hasher.update(&buffer[..count]),
                }
            }
            if BlobId::new(hasher.finish()) == known {
                return Ok(known);
            }
            file.rewind().map_err(reading)?;
        }
        Ok(store.put(&mut file)?.0)
    }
}

/// A file whose content is to be known.
struct Job {
    path: RelPath,
    inode: Inode,
    size: u64,
    /// The blob it may turn out to be.
    known: Option<BlobId>,
}

/// Reads the upper directory, without the content of files.
struct Reader<'a> {
    upper: &'a Upper<'a>,
    base: Above<'a>,
    noted: Option<&'a Noteless>,
    found: BTreeMap<RelPath, Found>,
    inodes: Inodes,
    sockets: Vec<RelPath>,
    dropped: Vec<(RelPath, Box<[u8]>)>,
}

impl Reader<'_> {
    fn read(&mut self) -> Result<(), HostFsError> {
        // Directories with whether the base can be seen beneath them.
        let mut waiting = vec![(RelPath::root(), true)];
        while let Some((path, is_seen)) = waiting.pop() {
            let handle = self.upper.open_directory(&path)?;
            let is_seen = self.directory(&path, &handle, is_seen)?;
            let listed = walk::list(&handle).map_err(self.upper.failed("read", &path))?;
            for (name, kind) in listed {
                let path = join(self.upper.path, &path, &name)?;
                if kind == FileType::Directory {
                    waiting.push((path, is_seen));
                } else {
                    self.other(path, is_seen)?;
                }
            }
        }
        self.inodes.retain(|_, paths| paths.len() > 1);
        for paths in self.inodes.values_mut() {
            paths.sort();
        }
        Ok(())
    }

    /// Takes in a directory and says whether the base can be seen beneath it.
    fn directory(
        &mut self,
        path: &RelPath,
        handle: &OwnedFd,
        is_seen: bool,
    ) -> Result<bool, HostFsError> {
        let stat = fstat(handle).map_err(|error| self.upper.failed("read", path)(error.into()))?;
        let (xattrs, note, is_opaque) = self.xattrs(path, handle)?;
        let base = if is_seen && !is_opaque {
            self.base.find(path)?
        } else {
            None
        };
        let is_seen = base.is_some();
        let kind = Kind::Directory {
            meta: self.meta(&stat, xattrs, note),
            base,
        };
        self.found.insert(path.clone(), Found { kind, base: None });
        Ok(is_seen)
    }

    fn other(&mut self, path: RelPath, is_seen: bool) -> Result<(), HostFsError> {
        let stat = self.upper.stat(&path)?;
        let stamp = walk::Stamp::of(&stat);
        let inode = stamp.file;
        let base = if is_seen {
            self.base.entry(&path)?
        } else {
            None
        };
        let kind = match walk::file_type(&stat) {
            FileType::RegularFile => {
                let (xattrs, note, _) = self.xattrs(&path, &self.upper.open_file(&path)?)?;
                Kind::File {
                    inode,
                    size: stamp.size,
                    meta: self.meta(&stat, xattrs, note),
                    blob: None,
                }
            }
            FileType::Symlink => {
                let target = readlinkat(&self.upper.root, path.as_bytes(), Vec::new())
                    .map_err(|error| self.upper.failed("read", &path)(error.into()))?;
                let (uid, gid) = self.owner_without_note(&path, &stat, base.as_ref());
                let entry = Entry::Symlink(Symlink {
                    target: target.into_bytes().into(),
                    uid,
                    gid,
                });
                Kind::Other(entry)
            }
            FileType::Fifo => {
                // No attribute of a pipe can be changed, so it has those it had.
                let xattrs = match &base {
                    Some(Entry::Special(special)) => special.meta.xattrs.clone(),
                    _ => Xattrs::new(),
                };
                let owner = self.owner_without_note(&path, &stat, base.as_ref());
                let entry = Entry::Special(Special {
                    kind: SpecialKind::Fifo,
                    meta: owned(meta_of(&stat, xattrs), owner),
                });
                Kind::Other(entry)
            }
            FileType::CharacterDevice if stat.st_rdev == 0 => Kind::Whiteout,
            FileType::Socket => {
                self.sockets.push(path);
                return Ok(());
            }
            other => {
                return Err(HostFsError::Kind {
                    path: path.to_string(),
                    kind: walk::refused(other).unwrap_or("of an unknown kind"),
                });
            }
        };
        // All deletions may be one inode; that makes them no hard links.
        if stat.st_nlink > 1 && !matches!(kind, Kind::Whiteout) {
            self.inodes.entry(inode).or_default().push(path.clone());
        }
        self.found.insert(path, Found { kind, base });
        Ok(())
    }

    /// With the owner that the note says, if that is where owners are.
    fn meta(&self, stat: &Stat, xattrs: Xattrs, note: Option<Owner>) -> Meta {
        let meta = meta_of(stat, xattrs);
        match self.noted {
            None => meta,
            Some(_) => owned(meta, note.unwrap_or(ROOT)),
        }
    }

    /// The owner of a link or a pipe. One of the base that was only touched is whose it was.
    fn owner_without_note(&self, path: &RelPath, stat: &Stat, base: Option<&Entry>) -> Owner {
        let Some(noted) = self.noted else {
            return (stat.st_uid, stat.st_gid);
        };
        if let Some(owner) = noted.get(path) {
            return *owner;
        }
        let kind = walk::file_type(stat);
        match base {
            Some(Entry::Symlink(link)) if kind == FileType::Symlink => (link.uid, link.gid),
            Some(Entry::Special(special)) if kind == FileType::Fifo => {
                (special.meta.uid, special.meta.gid)
            }
            _ => ROOT,
        }
    }

    /// The attributes of an open file or directory, the owner that is noted, and whether it is opaque.
    fn xattrs(
        &mut self,
        path: &RelPath,
        handle: &OwnedFd,
    ) -> Result<(Xattrs, Option<Owner>, bool), HostFsError> {
        let found = xattr::read(handle).map_err(self.upper.failed("read", path))?;
        let is_noted = self.noted.is_some();
        let is_ours = |name: &[u8]| is_noted && name == NOTE.as_bytes();
        let dropped = found.dropped.into_iter().filter(|name| !is_ours(name));
        let dropped = dropped.map(|name| (path.clone(), name));
        self.dropped.extend(dropped);
        let mut is_opaque = false;
        for (name, value) in found.overlay {
            match &*name {
                OPAQUE if &*value == b"y" => is_opaque = true,
                note if NOTES.contains(&note) => {}
                escaped if escaped.starts_with(ESCAPED) => {
                    self.dropped.push((path.clone(), name));
                }
                _ => {
                    return Err(HostFsError::Overlay {
                        path: path.to_string(),
                        name: String::from_utf8_lossy(&name).into_owned(),
                    });
                }
            }
        }
        Ok((found.kept, found.owner, is_opaque))
    }
}

fn owned(meta: Meta, (uid, gid): Owner) -> Meta {
    Meta { uid, gid, ..meta }
}

impl Found {
    /// The entry it is in the new tree; nothing for deletions and directories.
    fn entry(&self) -> Option<Entry> {
        match &self.kind {
            Kind::Whiteout | Kind::Directory { .. } => None,
            Kind::Other(entry) => Some(entry.clone()),
            Kind::File {
                size, meta, blob, ..
            } => Some(Entry::File(File {
                blob: blob.expect("the content of every file has been read"),
                size: *size,
                meta: meta.clone(),
            })),
        }
    }
}

/// The base with what was found put over it.
fn merge(
    upper: &Upper<'_>,
    base: &Tree,
    found: &BTreeMap<RelPath, Found>,
    inodes: &Inodes,
    store: &dyn Store,
) -> Result<Tree, HostFsError> {
    let mut children = BTreeMap::<RelPath, Vec<(Name, Option<Entry>)>>::new();
    let mut root = base.root;
    // Backwards, so that everything in a directory comes before the directory.
    for (path, found) in found.iter().rev() {
        let entry = match &found.kind {
            Kind::Directory { meta, base } => {
                let mut directory = match base {
                    Some(base) => Directory::clone(base),
                    None => Directory::new(meta.clone()),
                };
                directory.set_meta(meta.clone());
                for (name, entry) in children.remove(path).unwrap_or_default() {
                    match entry {
                        None => drop(directory.remove(name.as_bytes())),
                        Some(entry) => {
                            directory
                                .insert(name, entry)
                                .map_err(|source| HostFsError::Entry {
                                    path: shown(upper.path, path),
                                    source,
                                })?;
                        }
                    }
                }
                let id = match base {
                    Some(base) if **base == directory => base.id(),
                    _ => store.put_directory(&directory)?,
                };
                if path.is_root() {
                    root = id;
                }
                Some(Entry::Directory(id))
            }
            _ => found.entry(),
        };
        if let Some((parent, name)) = path.split_last() {
            children.entry(parent).or_default().push((name, entry));
        }
    }
    let links = merge_links(root, base, found, inodes, store)?;
    Ok(Tree { root, links })
}

/// A path stays in the group it had while the file is what it was. overlayfs takes a name out of its group also when only
/// that name was touched; that is not a change. Names that are one file in the upper directory are a group, unless they
/// all were in one before and nothing else changed.
fn merge_links(
    root: DirectoryId,
    base: &Tree,
    found: &BTreeMap<RelPath, Found>,
    inodes: &Inodes,
    store: &dyn Store,
) -> Result<LinkGroups, HostFsError> {
    let first = base.links.first_by_path();
    let is_untouched = |path: &RelPath| {
        let found = &found[path];
        found.base.is_some() && found.base == found.entry()
    };
    let is_as_before = |paths: &[RelPath]| {
        let group = first.get(&paths[0]);
        let is_in = |path| first.get(path) == group && is_untouched(path);
        group.is_some() && paths.iter().all(is_in)
    };
    let mut groups: Vec<Vec<RelPath>> = inodes.values().cloned().collect();
    groups.retain(|paths| !is_as_before(paths));
    let regrouped: BTreeSet<RelPath> = groups.iter().flatten().cloned().collect();
    let mut now = Above::new(store, &Tree::new(root));
    for group in base.links.groups() {
        let mut stays = Vec::new();
        for path in group {
            let is_in = match found.get(path) {
                Some(Found {
                    kind: Kind::File { .. } | Kind::Other(_),
                    ..
                }) => !regrouped.contains(path) && is_untouched(path),
                Some(_) => false,
                None => now
                    .entry(path)?
                    .is_some_and(|entry| !matches!(entry, Entry::Directory(_))),
            };
            if is_in {
                stays.push(path.clone());
            }
        }
        groups.push(stays);
    }
    Ok(LinkGroups::new(groups)?)
}

/// Reads a file of known size; holes are not read from the disk.
struct SparseReader {
    file: fs::File,
    size: u64,
    at: u64,
    /// From `at` up to here is data, or a hole.
    end: u64,
    is_hole: bool,
}

impl SparseReader {
    /// Up to this size it is not worth asking for holes.
    const SMALL: u64 = 64 * 1024;

    fn new(file: OwnedFd, size: u64) -> Self {
        Self {
            file: file.into(),
            size,
            at: 0,
            end: if size <= Self::SMALL { size } else { 0 },
            is_hole: false,
        }
    }

    fn rewind(&mut self) -> io::Result<()> {
        self.file.rewind()?;
        self.at = 0;
        self.end = if self.size <= Self::SMALL {
            self.size
        } else {
            0
        };
        self.is_hole = false;
        Ok(())
    }

    /// Finds out what comes at `at`.
    fn look(&mut self) -> io::Result<()> {
        let data = match rustix::fs::seek(&self.file, FsSeek::Data(self.at)) {
            Ok(data) => data,
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => self.size,
            // A file system that knows no holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => self.at,
            Err(error) => return Err(error.into()),
        };
        self.is_hole = data > self.at;
        self.end = if self.is_hole {
            data
        } else {
            match rustix::fs::seek(&self.file, FsSeek::Hole(self.at)) {
                Ok(hole) => hole,
                Err(Errno::INVAL | Errno::OPNOTSUPP) => self.size,
                Err(error) => return Err(error.into()),
            }
        }
        .min(self.size);
        self.file.seek(SeekFrom::Start(self.at))?;
        Ok(())
    }
}

impl Read for SparseReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.size || buffer.is_empty() {
            return Ok(0);
        }
        if self.at >= self.end {
            self.look()?;
        }
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let length = left.min(buffer.len());
        let count = if self.is_hole {
            buffer[..length].fill(0);
            length
        } else {
            self.file.read(&mut buffer[..length])?
        };
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count as u64;
        Ok(count)
    }
}
