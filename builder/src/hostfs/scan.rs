//! A directory or file of this machine as a tree, without a copy of its content.
//!
//! What is here is read; nothing is written. The result depends on names, content and, if they are to be preserved, on
//! modes, owners and attributes; never on the order of the file system, on the umask of a checkout, or on its hard links.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use immbuild_cas::digest::{BlobId, DirectoryId, Hasher};
use immbuild_cas::path::{Name, RelPath};
use immbuild_cas::store::{DirectorySink, Store};
use immbuild_cas::tree::{
    Directory, Entry, File, LinkGroups, Meta, Mode, Special, SpecialKind, Symlink, Tree, Xattrs,
};
use rustix::fs::{AtFlags, FileType, Stat, fstat, readlinkat, statat};
use rustix::io::Errno;

use super::origins::{Origin, Origins, Root};
use super::pool::{self, Jobs};
use super::stat_cache::{StatCache, Time};
use super::walk::{self, Stamp};
use super::{HostFsError, join, shown, xattr};
use crate::pattern::{Patterns, Selection};

/// The name that the only entry of the tree has when the source is one file.
pub const ONE_FILE: &[u8] = b"file";

/// Files of one directory that are read as one job.
const JOB: usize = 64;
/// Bytes read at a time.
const BUFFER: usize = 256 * 1024;
/// The content of a file up to this size is kept, so that it need not be opened again.
const SMALL: u64 = 16 * 1024;
/// As long as all that is kept is not more than this.
const KEPT: u64 = 64 * 1024 * 1024;

/// What to read and how.
#[derive(Debug)]
pub struct Scan<'a> {
    /// The directory or file. If it is a link, what the link means.
    pub root: &'a Path,
    /// Which paths below the root are taken; all of them if nothing is said.
    pub selection: Option<&'a Selection>,
    /// Names of files that say, as `.gitignore` does, what beside and below them is not taken.
    pub ignore: &'a [String],
    /// Files and directories of this machine that are no part of it, as absolute paths. `.git` never is.
    pub leave_out: &'a [PathBuf],
    /// Whether modes, owners, attributes and hard links are kept, or made 0644, 0755 and 0:0 and separate.
    pub preserve: bool,
    /// How many threads read.
    pub threads: NonZeroUsize,
    /// When the scan begins; what was touched shortly before is read again next time.
    pub started: Time,
}

/// What was read.
#[derive(Debug)]
pub struct Scanned {
    /// The tree. If the source is one file, its only entry is [`ONE_FILE`].
    pub tree: Tree,
    /// Is the source one file?
    pub is_file: bool,
    /// Where the content is.
    pub origins: Origins,
    /// What is known of the files now. Worth keeping if any was hashed.
    pub stat_cache: StatCache,
    /// How much was done.
    pub report: ScanReport,
    /// Attributes that are no part of an image, with the path of the file that has them.
    pub dropped: Vec<(RelPath, Box<[u8]>)>,
}

/// How much a scan did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanReport {
    /// Regular files found.
    pub files: u64,
    /// Of these, files whose content was known from their stamp.
    pub cached: u64,
    /// Bytes read of the others.
    pub bytes_hashed: u64,
}

/// Reads a `path` source. Directories go to `sink`; content stays where it is.
pub fn scan(
    scan: &Scan<'_>,
    known: &StatCache,
    sink: &dyn DirectorySink,
) -> Result<Scanned, HostFsError> {
    Scanner::new(scan, known, sink, None)?.run()
}

/// Copies a whole directory into a store, as it is: modes, owners, attributes, hard links and pipes are kept.
pub fn ingest_directory(
    directory: &Path,
    store: &dyn Store,
    threads: NonZeroUsize,
) -> Result<Scanned, HostFsError> {
    let scan = Scan {
        root: directory,
        selection: None,
        ignore: &[],
        leave_out: &[],
        preserve: true,
        threads,
        started: (0, 0),
    };
    Scanner::new(&scan, &StatCache::default(), store, Some(store))?.run()
}

struct Scanner<'a> {
    scan: &'a Scan<'a>,
    known: &'a StatCache,
    sink: &'a dyn DirectorySink,
    /// Where content is copied to, if it is copied.
    store: Option<&'a dyn Store>,
    /// What is left out, below the root.
    leave_out: BTreeSet<RelPath>,
    root: Arc<Root>,
    /// Set when the source is one file: its name in `root`.
    file: Option<Name>,
    /// How many bytes of small files may still be kept.
    room: AtomicU64,
    done: Mutex<Option<DirectoryId>>,
}

/// The directory something is in and the name it has there; nothing for the root.
type Place = Option<(Arc<Node>, Name)>;

/// A directory that is being read. When the last job that holds it is done, it is whole.
struct Node {
    place: Place,
    handle: OwnedFd,
    path: RelPath,
    meta: Meta,
    /// What the ignore files above it say.
    ignores: Option<Arc<Ignores>>,
    /// Whether it is there also when nothing in it is.
    is_picked: bool,
    entries: Mutex<Vec<(Name, Entry)>>,
}

/// The patterns of an ignore file, and of those above it.
struct Ignores {
    above: Option<Arc<Ignores>>,
    /// The directory the file is in.
    directory: RelPath,
    patterns: Patterns,
}

enum Job {
    /// Read this directory.
    Directory(Place),
    /// Read these files.
    Files(Arc<Node>, Vec<Name>),
}

/// What one thread has found.
#[derive(Default)]
struct Worker {
    buffer: Option<Box<[u8]>>,
    origins: Vec<Origin>,
    stamps: Vec<(Stamp, BlobId)>,
    /// Paths by device and inode, of files that have several.
    links: Vec<((u64, u64), RelPath)>,
    dropped: Vec<(RelPath, Box<[u8]>)>,
    report: ScanReport,
}

impl<'a> Scanner<'a> {
    fn new(
        scan: &'a Scan<'a>,
        known: &'a StatCache,
        sink: &'a dyn DirectorySink,
        store: Option<&'a dyn Store>,
    ) -> Result<Self, HostFsError> {
        let at = |action| HostFsError::io(action, scan.root.display().to_string());
        let real = scan.root.canonicalize().map_err(at("find"))?;
        let is_directory = real.metadata().map_err(at("read"))?.is_dir();
        let (directory, file) = match (is_directory, real.parent(), real.file_name()) {
            (false, Some(parent), Some(name)) => (parent, Some(name)),
            _ => (&*real, None),
        };
        let file = file
            .map(|name| Name::new(name.as_encoded_bytes()))
            .transpose()
            .map_err(|source| HostFsError::Path {
                path: scan.root.display().to_string(),
                source: source.into(),
            })?;
        let shown = match &file {
            Some(_) => scan.root.parent().unwrap_or(directory),
            None => scan.root,
        };
        Ok(Self {
            leave_out: below(directory, scan.leave_out),
            root: Arc::new(Root {
                path: shown.to_path_buf(),
                handle: walk::open_root(directory).map_err(at("open"))?,
            }),
            scan,
            known,
            sink,
            store,
            file,
            room: AtomicU64::new(KEPT),
            done: Mutex::new(None),
        })
    }

    fn run(self) -> Result<Scanned, HostFsError> {
        let workers = match &self.file {
            None => pool::run(
                self.scan.threads,
                vec![Job::Directory(None)],
                Worker::default,
                |worker, job, jobs| self.work(worker, job, jobs),
            )?,
            Some(name) => {
                let mut worker = Worker::default();
                let entry = self.file(&mut worker, &self.root.handle, &RelPath::root(), name)?;
                let mut directory = Directory::new(Meta::root(Mode::DIRECTORY));
                let name = Name::new(ONE_FILE).expect("it is a name");
                directory.insert(name, entry).expect("any directory can hold a file");
                *self.done() = Some(self.sink.put_directory(&directory)?);
                vec![worker]
            }
        };
        self.finish(workers)
    }

    fn done(&self) -> MutexGuard<'_, Option<DirectoryId>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(self, workers: Vec<Worker>) -> Result<Scanned, HostFsError> {
        let mut all = Worker::default();
        for worker in workers {
            all.origins.extend(worker.origins);
            all.stamps.extend(worker.stamps);
            all.links.extend(worker.links);
            all.dropped.extend(worker.dropped);
            all.report.files += worker.report.files;
            all.report.cached += worker.report.cached;
            all.report.bytes_hashed += worker.report.bytes_hashed;
        }
        let mut groups = BTreeMap::<_, Vec<RelPath>>::new();
        for (file, path) in all.links {
            groups.entry(file).or_default().push(path);
        }
        all.dropped.sort();
        let root = self.done().expect("the last job has made the root");
        Ok(Scanned {
            tree: Tree {
                root,
                links: LinkGroups::new(groups.into_values())?,
            },
            is_file: self.file.is_some(),
            origins: Origins::new(all.origins),
            stat_cache: StatCache::new(self.scan.started, all.stamps),
            report: all.report,
            dropped: all.dropped,
        })
    }

    fn shown(&self, path: &RelPath) -> String {
        shown(&self.root.path, path)
    }

    fn work(
        &self,
        worker: &mut Worker,
        job: Job,
        jobs: &Jobs<Job, HostFsError>,
    ) -> Result<(), HostFsError> {
        let node = match job {
            Job::Directory(place) => {
                let mut node = self.open(worker, place)?;
                let listed =
                    walk::list(&node.handle).map_err(|error| self.reading(&node.path, error))?;
                self.read_ignores(&mut node, &listed)?;
                let node = Arc::new(node);
                self.list(worker, &node, listed, jobs)?;
                node
            }
            Job::Files(node, names) => {
                self.files(worker, &node, names)?;
                node
            }
        };
        self.release(node)
    }

    fn open(&self, worker: &mut Worker, place: Place) -> Result<Node, HostFsError> {
        let (path, handle) = match &place {
            None => (RelPath::root(), self.root.handle.try_clone()),
            Some((parent, name)) => (
                join(&self.root.path, &parent.path, name)?,
                walk::open_directory(&parent.handle, name.as_bytes()),
            ),
        };
        let handle = handle.map_err(|error| self.opening(&path, error))?;
        let meta = if self.scan.preserve {
            let stat = fstat(&handle).map_err(|error| self.reading(&path, error.into()))?;
            self.preserved(worker, &handle, &stat, &path)?
        } else {
            Meta::root(Mode::DIRECTORY)
        };
        let is_picked = match (&place, self.scan.selection) {
            (Some(_), Some(selection)) => selection.picks(&path, true),
            _ => true,
        };
        let ignores = place.as_ref().and_then(|(parent, _)| parent.ignores.clone());
        Ok(Node {
            place,
            handle,
            path,
            meta,
            ignores,
            is_picked,
            entries: Mutex::default(),
        })
    }

    /// Puts what the ignore files in this directory say before what those above it say.
    fn read_ignores(
        &self,
        node: &mut Node,
        listed: &[(Name, FileType)],
    ) -> Result<(), HostFsError> {
        for wanted in self.scan.ignore {
            let is_there = listed.iter().any(|(name, kind)| {
                name.as_bytes() == wanted.as_bytes() && *kind == FileType::RegularFile
            });
            if !is_there {
                continue;
            }
            let name = Name::new(wanted.as_bytes()).expect("a listed name is a name");
            let path = join(&self.root.path, &node.path, &name)?;
            let mut text = Vec::new();
            walk::open_file(&node.handle, wanted.as_bytes())
                .and_then(|file| fs::File::from(file).read_to_end(&mut text))
                .map_err(|error| self.opening(&path, error))?;
            let patterns =
                Patterns::of_ignore_file(&text).map_err(|source| HostFsError::Pattern {
                    path: self.shown(&path),
                    source,
                })?;
            node.ignores = Some(Arc::new(Ignores {
                above: node.ignores.take(),
                directory: node.path.clone(),
                patterns,
            }));
        }
        Ok(())
    }

    /// Takes in what is in a directory: links at once, files at once if they are few, the rest as jobs.
    fn list(
        &self,
        worker: &mut Worker,
        node: &Arc<Node>,
        listed: Vec<(Name, FileType)>,
        jobs: &Jobs<Job, HostFsError>,
    ) -> Result<(), HostFsError> {
        let mut files = Vec::new();
        let mut entries = Vec::new();
        for (name, kind) in listed {
            if !self.is_part(node, &name, kind)? {
                continue;
            }
            match kind {
                FileType::Directory => {
                    jobs.push(Job::Directory(Some((Arc::clone(node), name))));
                }
                FileType::RegularFile => files.push(name),
                FileType::Symlink => {
                    let link = self.symlink(node, &name)?;
                    entries.push((name, link));
                }
                FileType::Fifo if self.store.is_some() => {
                    let pipe = self.pipe(node, &name)?;
                    entries.push((name, pipe));
                }
                other => {
                    return Err(HostFsError::Kind {
                        path: self.shown(&join(&self.root.path, &node.path, &name)?),
                        kind: walk::refused(other).unwrap_or("of an unknown kind"),
                    });
                }
            }
        }
        node.add(entries);
        // Files are taken before the directories pushed above, so that few directories are open at a time.
        while files.len() > JOB {
            let rest = files.split_off(files.len() - JOB);
            jobs.push(Job::Files(Arc::clone(node), rest));
        }
        self.files(worker, node, files)
    }

    /// Is this entry of a directory part of the source, or may something below it be?
    fn is_part(&self, node: &Node, name: &Name, kind: FileType) -> Result<bool, HostFsError> {
        if name.as_bytes() == b".git" && self.store.is_none() {
            return Ok(false);
        }
        // Nearly always there is nothing to ask, and then no path need be made.
        if self.leave_out.is_empty() && self.scan.selection.is_none() && node.ignores.is_none() {
            return Ok(true);
        }
        let path = join(&self.root.path, &node.path, name)?;
        let is_directory = kind == FileType::Directory;
        let is_selected = self.scan.selection.is_none_or(|selection| {
            if is_directory {
                selection.may_pick_below(&path)
            } else {
                selection.picks(&path, false)
            }
        });
        Ok(is_selected
            && !self.leave_out.contains(&path)
            && !node
                .ignores
                .as_ref()
                .is_some_and(|ignores| ignores.contain(&path, is_directory)))
    }

    fn files(
        &self,
        worker: &mut Worker,
        node: &Node,
        names: Vec<Name>,
    ) -> Result<(), HostFsError> {
        let mut entries = Vec::with_capacity(names.len());
        for name in names {
            let entry = self.file(worker, &node.handle, &node.path, &name)?;
            entries.push((name, entry));
        }
        node.add(entries);
        Ok(())
    }

    /// Reads one file, or knows it from its stamp.
    fn file(
        &self,
        worker: &mut Worker,
        parent: &OwnedFd,
        directory: &RelPath,
        name: &Name,
    ) -> Result<Entry, HostFsError> {
        let path = join(&self.root.path, directory, name)?;
        worker.report.files += 1;
        if !self.known.is_empty() && !self.scan.preserve {
            let stat = statat(parent, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| self.reading(&path, error.into()))?;
            let stamp = Stamp::of(&stat);
            if let Some(blob) = self.known.get(&stamp) {
                return Ok(self.found(worker, path, &stamp, Content::known(blob), plain(&stat)));
            }
        }
        let file = walk::open_file(parent, name.as_bytes())
            .map_err(|error| self.opening(&path, error))?;
        let stat = fstat(&file).map_err(|error| self.reading(&path, error.into()))?;
        let stamp = Stamp::of(&stat);
        if walk::file_type(&stat) != FileType::RegularFile {
            return Err(self.changed(&path));
        }
        let meta = if self.scan.preserve {
            if stat.st_nlink > 1 {
                worker.links.push((stamp.file, path.clone()));
            }
            self.preserved(worker, &file, &stat, &path)?
        } else {
            plain(&stat)
        };
        if let Some(blob) = self.known.get(&stamp) {
            return Ok(self.found(worker, path, &stamp, Content::known(blob), meta));
        }
        let content = self.read(worker, file, &stamp, &path)?;
        Ok(self.found(worker, path, &stamp, content, meta))
    }

    fn found(
        &self,
        worker: &mut Worker,
        path: RelPath,
        stamp: &Stamp,
        content: Content,
        meta: Meta,
    ) -> Entry {
        worker.report.cached += u64::from(content.is_known);
        worker.stamps.push((*stamp, content.blob));
        if self.store.is_none() {
            worker.origins.push(Origin {
                blob: content.blob,
                root: Arc::clone(&self.root),
                path,
                content: content.kept,
            });
        }
        Entry::File(File {
            blob: content.blob,
            size: stamp.size,
            meta,
        })
    }

    /// Reads a file to its end and makes sure that it is the one that `stamp` speaks of from first to last.
    fn read(
        &self,
        worker: &mut Worker,
        file: OwnedFd,
        stamp: &Stamp,
        path: &RelPath,
    ) -> Result<Content, HostFsError> {
        let mut file = fs::File::from(file);
        let reading = |error| self.reading(path, error);
        let (blob, kept, length) = match self.store {
            Some(store) => {
                let (blob, length) = store.put(&mut file)?;
                (blob, None, length)
            }
            None => {
                let buffer = worker.buffer.get_or_insert_with(|| vec![0; BUFFER].into());
                let mut hasher = Hasher::new();
                let mut length = 0;
                // The end is where the stamp says; that nothing came behind it, the second stamp says.
                while length < stamp.size {
                    match file.read(buffer).map_err(reading)? {
                        0 => break,
                        count => {
                            hasher.update(&buffer[..count]);
                            length += count as u64;
                        }
                    }
                }
                let kept = (length <= SMALL && self.may_keep(length)).then(|| {
                    let length = usize::try_from(length).expect("it is small");
                    buffer[..length].into()
                });
                (BlobId::new(hasher.finish()), kept, length)
            }
        };
        worker.report.bytes_hashed += length;
        let after = fstat(&file).map_err(|error| reading(error.into()))?;
        if length != stamp.size || Stamp::of(&after) != *stamp {
            return Err(self.changed(path));
        }
        Ok(Content {
            blob,
            kept,
            is_known: false,
        })
    }

    /// Is there room to keep so many bytes?
    fn may_keep(&self, length: u64) -> bool {
        let take = |room: u64| room.checked_sub(length);
        let relaxed = Ordering::Relaxed;
        self.room.fetch_update(relaxed, relaxed, take).is_ok()
    }

    fn symlink(&self, node: &Node, name: &Name) -> Result<Entry, HostFsError> {
        let path = join(&self.root.path, &node.path, name)?;
        let reading = |error: Errno| self.reading(&path, error.into());
        let target =
            readlinkat(&node.handle, name.as_bytes(), Vec::new()).map_err(reading)?;
        let (uid, gid) = if self.scan.preserve {
            let stat = statat(&node.handle, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(reading)?;
            (stat.st_uid, stat.st_gid)
        } else {
            (0, 0)
        };
        Ok(Entry::Symlink(Symlink {
            target: target.into_bytes().into(),
            uid,
            gid,
        }))
    }

    fn pipe(&self, node: &Node, name: &Name) -> Result<Entry, HostFsError> {
        let path = join(&self.root.path, &node.path, name)?;
        let stat = statat(&node.handle, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| self.reading(&path, error.into()))?;
        Ok(Entry::Special(Special {
            kind: SpecialKind::Fifo,
            meta: meta_of(&stat, Xattrs::new()),
        }))
    }

    /// Mode, owner and attributes as they are.
    fn preserved(
        &self,
        worker: &mut Worker,
        file: &OwnedFd,
        stat: &Stat,
        path: &RelPath,
    ) -> Result<Meta, HostFsError> {
        let found = xattr::read(file).map_err(|error| self.reading(path, error))?;
        if let Some((name, _)) = found.overlay.first() {
            return Err(HostFsError::Overlay {
                path: self.shown(path),
                name: String::from_utf8_lossy(name).into_owned(),
            });
        }
        let dropped = found.dropped.into_iter().map(|name| (path.clone(), name));
        worker.dropped.extend(dropped);
        Ok(meta_of(stat, found.kept))
    }

    /// A job is done with a directory. Whoever is last makes the directory of what was found, and may be last in the
    /// one above, too.
    fn release(&self, mut node: Arc<Node>) -> Result<(), HostFsError> {
        while let Some(done) = Arc::into_inner(node) {
            let mut entries = done
                .entries
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner);
            entries.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
            if entries.is_empty()
                && !done.is_picked
                && let Some((parent, _)) = done.place
            {
                node = parent;
                continue;
            }
            let mut directory = Directory::new(done.meta);
            for (name, entry) in entries {
                directory
                    .insert(name, entry)
                    .map_err(|source| HostFsError::Entry {
                        path: self.shown(&done.path),
                        source,
                    })?;
            }
            let id = self.sink.put_directory(&directory)?;
            match done.place {
                None => {
                    *self.done() = Some(id);
                    return Ok(());
                }
                Some((parent, name)) => {
                    parent.add(vec![(name, Entry::Directory(id))]);
                    node = parent;
                }
            }
        }
        Ok(())
    }

    fn opening(&self, path: &RelPath, error: io::Error) -> HostFsError {
        // What was a file or directory a moment ago and is gone, or a link or pipe now, was changed.
        match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => self.changed(path),
            _ => HostFsError::io("open", self.shown(path))(error),
        }
    }

    fn reading(&self, path: &RelPath, error: io::Error) -> HostFsError {
        HostFsError::io("read", self.shown(path))(error)
    }

    fn changed(&self, path: &RelPath) -> HostFsError {
        HostFsError::Changed {
            path: self.shown(path),
        }
    }
}

impl Ignores {
    /// The nearest file that speaks of the path decides, and in it the last pattern. What is below an ignored directory
    /// is never asked for.
    fn contain(&self, path: &RelPath, is_directory: bool) -> bool {
        let mut next = Some(self);
        while let Some(ignores) = next {
            let said = path
                .strip_prefix(&ignores.directory)
                .and_then(|path| ignores.patterns.matches(&path, is_directory));
            if let Some(is_ignored) = said {
                return is_ignored;
            }
            next = ignores.above.as_deref();
        }
        false
    }
}

impl Node {
    fn add(&self, entries: Vec<(Name, Entry)>) {
        self.entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(entries);
    }
}

/// What a file holds.
struct Content {
    blob: BlobId,
    kept: Option<Box<[u8]>>,
    is_known: bool,
}

impl Content {
    fn known(blob: BlobId) -> Self {
        Self {
            blob,
            kept: None,
            is_known: true,
        }
    }
}

/// What every file has if nothing is preserved.
fn plain(stat: &Stat) -> Meta {
    Meta::root(if Mode::of_st_mode(stat.st_mode).is_executable() {
        Mode::DIRECTORY
    } else {
        Mode::FILE
    })
}

pub(super) fn meta_of(stat: &Stat, xattrs: Xattrs) -> Meta {
    Meta {
        mode: Mode::of_st_mode(stat.st_mode),
        uid: stat.st_uid,
        gid: stat.st_gid,
        xattrs,
    }
}

/// Those of these paths of the machine that are below `directory`, seen from there. A path that does not exist counts
/// if the directory it would be in does.
fn below(directory: &Path, paths: &[PathBuf]) -> BTreeSet<RelPath> {
    let real = |path: &PathBuf| {
        let parent = path.parent()?.canonicalize().ok()?;
        let path = parent.join(path.file_name()?);
        let below = path.strip_prefix(directory).ok()?;
        RelPath::new(below.as_os_str().as_encoded_bytes()).ok()
    };
    paths.iter().filter_map(real).collect()
}
