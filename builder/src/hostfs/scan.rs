//! A directory or file of this machine as a tree, without a copy of its content.
//!
//! What is here is read; nothing is written. The result depends on names, content and, if they are to be preserved, on
//! modes, owners and attributes; never on the order of the file system, on the umask of a checkout, or on its hard links.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
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
use crate::graph::file_op::ONE_FILE;
use crate::pattern::{Patterns, Selection};

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
    /// Files and directories of this machine that are no part of it, as absolute paths. `.git` never is. A directory above
    /// one of them is part of it only when something else is in it: so it makes no difference whether it was made already.
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

/// Would what is written to `target` be part of the source next time? Asks the selection and the ignore files.
///
/// # Errors
/// An ignore file cannot be read, or is no list of patterns.
pub fn would_take(scan: &Scan<'_>, target: &Path, is_directory: bool) -> Result<bool, HostFsError> {
    let Ok(root) = scan.root.canonicalize() else {
        return Ok(false);
    };
    let Some(path) = real(target).and_then(|target| {
        let below = target.strip_prefix(&root).ok()?;
        RelPath::new(below.as_os_str().as_bytes()).ok()
    }) else {
        return Ok(false);
    };
    let mut ignores: Option<Arc<Ignores>> = None;
    let mut above = RelPath::root();
    let mut directory = root;
    for name in path.names() {
        if name == b".git" {
            return Ok(false);
        }
        for wanted in scan.ignore {
            let file = directory.join(wanted);
            let shown = || file.display().to_string();
            if !file.is_file() {
                continue;
            }
            let text = fs::read(&file).map_err(HostFsError::io("read", shown()))?;
            let patterns =
                Patterns::of_ignore_file(&text).map_err(|source| HostFsError::Pattern {
                    path: shown(),
                    source,
                })?;
            ignores = Some(Arc::new(Ignores {
                above: ignores.take(),
                directory: above.clone(),
                patterns,
            }));
        }
        above = join(
            scan.root,
            &above,
            &Name::new(name).expect("a path is made of names"),
        )?;
        directory.push(OsStr::from_bytes(name));
        let is_directory = is_directory || above != path;
        if ignores
            .as_ref()
            .is_some_and(|ignores| ignores.contain(&above, is_directory))
        {
            return Ok(false);
        }
    }
    Ok(scan.selection.is_none_or(|selection| {
        if is_directory {
            selection.may_pick_below(&path)
        } else {
            selection.picks(&path, false)
        }
    }))
}

/// The path without links, as far as it exists.
fn real(path: &Path) -> Option<PathBuf> {
    path.ancestors().find_map(|above| {
        let real = above.canonicalize().ok()?;
        Some(real.join(path.strip_prefix(above).ok()?))
    })
}

struct Scanner<'a> {
    scan: &'a Scan<'a>,
    known: &'a StatCache,
    sink: &'a dyn DirectorySink,
    /// Where content is copied to, if it is copied.
    store: Option<&'a dyn Store>,
    /// What is left out, below the root.
    leave_out: BTreeSet<RelPath>,
    /// The directories above it.
    leads_out: BTreeSet<RelPath>,
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
    /// Read this directory; the handle is that of the directory it is in.
    Directory(Place, Handle),
    /// Read these files.
    Files(Arc<Node>, Handle, Vec<Name>),
}

/// Open only while a job waits for it, so that a path may be deeper than a process may have files open.
type Handle = Arc<OwnedFd>;

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
        let kind = real.metadata().map_err(at("read"))?.file_type();
        if !kind.is_dir() && !kind.is_file() {
            return Err(HostFsError::Kind {
                path: scan.root.display().to_string(),
                kind: "neither a directory nor a regular file",
            });
        }
        let (directory, file) = match (kind.is_dir(), real.parent(), real.file_name()) {
            (false, Some(parent), Some(name)) => (parent, Some(name)),
            _ => (&*real, None),
        };
        let file = file
            .map(|name| Name::new(name.as_encoded_bytes()))
            .transpose()
            .map_err(|source| HostFsError::Path {
                path: scan.root.display().to_string(),
                source,
            })?;
        let shown = match &file {
            Some(_) => scan.root.parent().unwrap_or(directory),
            None => scan.root,
        };
        let leave_out = below(directory, scan.leave_out);
        Ok(Self {
            leads_out: leave_out.iter().flat_map(above).collect(),
            leave_out,
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
            None => {
                let handle = self.root.handle.try_clone();
                let handle = handle.map_err(|error| self.opening(&RelPath::root(), error))?;
                pool::run(
                    self.scan.threads,
                    vec![Job::Directory(None, Arc::new(handle))],
                    Worker::default,
                    |worker, job, jobs| self.work(worker, job, jobs),
                )?
            }
            Some(name) => {
                let mut worker = Worker::default();
                let entry = self.file(&mut worker, &self.root.handle, &RelPath::root(), name)?;
                let mut directory = Directory::new(Meta::root(Mode::DIRECTORY));
                let name = Name::new(ONE_FILE.as_bytes()).expect("it is a name");
                directory
                    .insert(name, entry)
                    .expect("any directory can hold a file");
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
            Job::Directory(place, above) => {
                let (mut node, handle) = self.open(worker, place, above)?;
                let listed =
                    walk::list(&handle).map_err(|error| self.reading(&node.path, error))?;
                self.read_ignores(&mut node, &handle, &listed)?;
                let node = Arc::new(node);
                self.list(worker, &node, &handle, listed, jobs)?;
                node
            }
            Job::Files(node, handle, names) => {
                self.files(worker, &node, &handle, names)?;
                node
            }
        };
        self.release(node)
    }

    fn open(
        &self,
        worker: &mut Worker,
        place: Place,
        above: Handle,
    ) -> Result<(Node, Handle), HostFsError> {
        let (path, handle) = match &place {
            None => (RelPath::root(), above),
            Some((parent, name)) => {
                let path = join(&self.root.path, &parent.path, name)?;
                let handle = walk::open_directory(&above, name.as_bytes())
                    .map_err(|error| self.opening(&path, error))?;
                (path, Arc::new(handle))
            }
        };
        let meta = if self.scan.preserve {
            let stat = fstat(&handle).map_err(|error| self.reading(&path, error.into()))?;
            self.preserved(worker, &handle, &stat, &path)?
        } else {
            Meta::root(Mode::DIRECTORY)
        };
        let is_picked = match (&place, self.scan.selection) {
            (None, _) => true,
            (Some(_), Some(selection)) => {
                selection.picks(&path, true) && !self.leads_out.contains(&path)
            }
            (Some(_), None) => !self.leads_out.contains(&path),
        };
        let ignores = place
            .as_ref()
            .and_then(|(parent, _)| parent.ignores.clone());
        let node = Node {
            place,
            path,
            meta,
            ignores,
            is_picked,
            entries: Mutex::default(),
        };
        Ok((node, handle))
    }

    /// Puts what the ignore files in this directory say before what those above it say.
    fn read_ignores(
        &self,
        node: &mut Node,
        handle: &Handle,
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
            walk::open_file(handle, wanted.as_bytes())
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
        handle: &Handle,
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
                    let place = Some((Arc::clone(node), name));
                    jobs.push(Job::Directory(place, Arc::clone(handle)));
                }
                FileType::RegularFile => files.push(name),
                FileType::Symlink => {
                    let link = self.symlink(worker, node, handle, &name)?;
                    entries.push((name, link));
                }
                FileType::Fifo if self.store.is_some() => {
                    let pipe = self.pipe(worker, node, handle, &name)?;
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
            jobs.push(Job::Files(Arc::clone(node), Arc::clone(handle), rest));
        }
        self.files(worker, node, handle, files)
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
        handle: &Handle,
        names: Vec<Name>,
    ) -> Result<(), HostFsError> {
        let mut entries = Vec::with_capacity(names.len());
        for name in names {
            let entry = self.file(worker, handle, &node.path, &name)?;
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
        let file =
            walk::open_file(parent, name.as_bytes()).map_err(|error| self.opening(&path, error))?;
        let stat = fstat(&file).map_err(|error| self.reading(&path, error.into()))?;
        let stamp = Stamp::of(&stat);
        if walk::file_type(&stat) != FileType::RegularFile {
            return Err(self.changed(&path));
        }
        let meta = if self.scan.preserve {
            worker.link(&stat, &path);
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
        let (blob, kept, length) = if let Some(store) = self.store {
            let (blob, length) = store.put(&mut file)?;
            (blob, None, length)
        } else {
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

    fn symlink(
        &self,
        worker: &mut Worker,
        node: &Node,
        handle: &Handle,
        name: &Name,
    ) -> Result<Entry, HostFsError> {
        let path = join(&self.root.path, &node.path, name)?;
        let reading = |error: Errno| self.reading(&path, error.into());
        let target = readlinkat(handle, name.as_bytes(), Vec::new()).map_err(reading)?;
        let (uid, gid) = if self.scan.preserve {
            let stat =
                statat(handle, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW).map_err(reading)?;
            worker.link(&stat, &path);
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

    fn pipe(
        &self,
        worker: &mut Worker,
        node: &Node,
        handle: &Handle,
        name: &Name,
    ) -> Result<Entry, HostFsError> {
        let path = join(&self.root.path, &node.path, name)?;
        let stat = statat(handle, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| self.reading(&path, error.into()))?;
        worker.link(&stat, &path);
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

impl Worker {
    /// Notes a name of a file that has several.
    fn link(&mut self, stat: &Stat, path: &RelPath) {
        if stat.st_nlink > 1 {
            self.links.push((Stamp::of(stat).file, path.clone()));
        }
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

/// Those of these paths of the machine that are below `directory`, seen from there. Where a path that does not exist would
/// be, the nearest directory above it that does says.
fn below(directory: &Path, paths: &[PathBuf]) -> BTreeSet<RelPath> {
    let real = |path: &PathBuf| {
        let exists = |above: &&Path| above.exists();
        let there = path.ancestors().skip(1).find(exists)?;
        let missing = path.strip_prefix(there).ok()?;
        let path = there.canonicalize().ok()?.join(missing);
        let below = path.strip_prefix(directory).ok()?;
        RelPath::new(below.as_os_str().as_encoded_bytes()).ok()
    };
    paths.iter().filter_map(real).collect()
}

/// The directories above a path, without the root.
fn above(path: &RelPath) -> impl Iterator<Item = RelPath> {
    std::iter::successors(path.parent(), RelPath::parent).filter(|above| !above.is_root())
}

#[cfg(test)]
mod tests {
    use super::*;
    use immbuild_cas::digest::Digest;
    use immbuild_cas::store::{BlobSource, DirectorySource, MemoryStore, Record, StoreError};
    use immbuild_cas::tree::to_listing;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::process::Command;
    use std::sync::atomic::AtomicBool;
    use std::thread;
    use std::time::{Duration, SystemTime};
    use tempfile::TempDir;

    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

    /// A directory made by a shell script under umask 022.
    fn directory(script: &str) -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        shell(directory.path(), script);
        directory
    }

    fn shell(directory: &Path, script: &str) {
        let status = Command::new("sh")
            .args(["-euc", &format!("umask 022\n{script}")])
            .current_dir(directory)
            .status()
            .unwrap();
        assert!(status.success(), "{script}");
    }

    fn plainly(root: &Path) -> Scan<'_> {
        Scan {
            root,
            selection: None,
            ignore: &[],
            leave_out: &[],
            preserve: false,
            threads: TWO,
            started: later(10),
        }
    }

    /// So many seconds from now: what was touched just now counts as touched long ago.
    #[allow(clippy::disallowed_methods, reason = "a test may know the time")]
    fn later(seconds: i64) -> Time {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap();
        (now.as_secs().cast_signed() + seconds, 0)
    }

    fn listing(options: &Scan<'_>) -> String {
        let store = MemoryStore::new();
        let scanned = scan(options, &StatCache::default(), &store).unwrap();
        to_listing(&store, &scanned.tree).unwrap()
    }

    /// The paths in the listing of a tree of files and directories.
    fn paths(listing: &str) -> Vec<&str> {
        listing
            .lines()
            .map(|line| line.split_whitespace().nth(3).unwrap())
            .collect()
    }

    fn failure(options: &Scan<'_>) -> String {
        scan(options, &StatCache::default(), &MemoryStore::new())
            .unwrap_err()
            .to_string()
    }

    const HELLO: &str = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03 6";

    #[test]
    fn what_would_be_taken_next_time_is_known_before_it_is_there() {
        let directory = directory("mkdir out; echo '*.tar' > out/.immignore");
        let root = directory.path();
        let selection = Selection::new(&[], &["/build".to_owned()]).unwrap();
        let ignore = [".immignore".to_owned()];
        let scan = Scan {
            selection: Some(&selection),
            ignore: &ignore,
            ..plainly(root)
        };
        let taken =
            |path: &str, is_directory| would_take(&scan, &root.join(path), is_directory).unwrap();
        assert!(taken("image.tar", false));
        assert!(taken("new/directory/image.tar", false));
        assert!(taken("out/layout", true));
        assert!(!taken("out/image.tar", false), "ignored");
        assert!(!taken("out/a/image.tar", false), "ignored");
        assert!(!taken("build/image.tar", false), "excluded");
        assert!(!taken(".git/image.tar", false));
        assert!(!taken("../image.tar", false), "outside");
    }

    #[test]
    fn modes_owners_and_links_of_a_checkout_do_not_count() {
        let expected = format!(
            "d 0755 0:0 /\n\
             d 0755 0:0 /bin\n\
             f 0755 0:0 /bin/run {HELLO}\n\
             f 0644 0:0 /data {HELLO}\n\
             l      0:0 /link -> ../no/where\n\
             f 0644 0:0 /other {HELLO}\n"
        );
        let script = "mkdir bin; echo hello > bin/run; chmod +x bin/run; ln -s ../no/where link\n";
        for (umask, rest) in [
            ("022", "echo hello > data; echo hello > other"),
            ("077", "echo hello > other; ln other data; chmod 2700 ."),
            ("000", "echo hello > data; ln data other; chmod 6666 data"),
        ] {
            let directory = directory(&format!("umask {umask}; {script}{rest}"));
            assert_eq!(listing(&plainly(directory.path())), expected, "{umask}");
        }
    }

    #[test]
    fn what_is_never_part_of_a_source_is_left_out() {
        let directory = directory(
            "mkdir -p .git sub/.git out store/a empty there; touch .git/x sub/.git/y sub/f spec.toml spec.lock out/image.tar store/a/b",
        );
        let there = |name: &str| directory.path().join(name);
        let leave_out = [
            there("spec.toml"),
            there("spec.lock"),
            there("out/image.tar"),
            there("store"),
            there("not/there"),
            there("empty/not/there"),
            PathBuf::from("/elsewhere"),
        ];
        let options = Scan {
            leave_out: &leave_out,
            ..plainly(directory.path())
        };
        // `out` has nothing but an output in it, and `empty` nothing yet.
        let expected = ["/", "/sub", "/sub/f", "/there"];
        assert_eq!(paths(&listing(&options)), expected);
        // Also when the source is named by a link.
        let link = tempfile::tempdir().unwrap();
        let link = link.path().join("l");
        symlink(directory.path(), &link).unwrap();
        let options = Scan {
            leave_out: &leave_out,
            ..plainly(&link)
        };
        assert_eq!(paths(&listing(&options)), expected);
    }

    #[test]
    fn patterns_pick_and_remove() {
        let directory = directory(
            "mkdir -p a/b empty c; touch a/x.c a/x.o a/b/y.c a/b/keep.o c/z.o; mkfifo c/pipe\n\
             printf '*.o\\n/c/pipe\\n' > .immignore; printf '!keep.o\\n' > a/b/.immignore",
        );
        let ignore = [".immignore".to_owned()];
        let all = Scan {
            ignore: &ignore,
            ..plainly(directory.path())
        };
        assert_eq!(
            paths(&listing(&all)),
            [
                "/",
                "/.immignore",
                "/a",
                "/a/b",
                "/a/b/.immignore",
                "/a/b/keep.o",
                "/a/b/y.c",
                "/a/x.c",
                "/c",
                "/empty"
            ]
        );
        let selection = Selection::new(&["*.o".into(), "*.c".into()], &["y.c".into()]).unwrap();
        let some = Scan {
            selection: Some(&selection),
            ..all
        };
        assert_eq!(
            paths(&listing(&some)),
            ["/", "/a", "/a/b", "/a/b/keep.o", "/a/x.c"]
        );
    }

    #[test]
    fn an_ignore_file_that_is_none_is_named() {
        let directory = directory("mkdir d; printf 'a[z-a]' > d/.immignore");
        let ignore = [".immignore".to_owned()];
        let options = Scan {
            ignore: &ignore,
            ..plainly(directory.path())
        };
        let path = directory.path().display();
        assert_eq!(
            failure(&options),
            format!("`{path}/d/.immignore` is no list of patterns")
        );
    }

    #[test]
    fn what_cannot_be_in_an_image_is_named() {
        let piped = directory("mkdir d; mkfifo d/x");
        assert_eq!(
            failure(&plainly(piped.path())),
            format!(
                "`{}/d/x` is a named pipe, which cannot be part of an image",
                piped.path().display()
            )
        );
        assert_eq!(
            failure(&plainly(Path::new("/dev/null"))),
            "`/dev/null` is neither a directory nor a regular file, which cannot be part of an image"
        );
        let directory = directory("mkdir d");
        let path = directory.path().join("d/x");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(
            failure(&plainly(directory.path())),
            format!(
                "`{}` is a socket, which cannot be part of an image",
                path.display()
            )
        );
    }

    #[test]
    fn a_missing_or_unreadable_file_is_named() {
        let directory = directory("chmod 755 .; mkdir d; echo secret > d/x; chmod 000 d/x");
        let path = directory.path().display();
        assert_eq!(
            failure(&plainly(&directory.path().join("no"))),
            format!("cannot find `{path}/no`")
        );
        // Root reads everything, so another user tries, on a thread of its own.
        let message = thread::scope(|scope| {
            let another = scope.spawn(|| {
                let user = rustix::fs::Uid::from_raw(65_534);
                if rustix::process::geteuid().is_root() {
                    rustix::thread::set_thread_res_uid(user, user, user).unwrap();
                }
                failure(&plainly(directory.path()))
            });
            another.join().unwrap()
        });
        assert_eq!(message, format!("cannot open `{path}/d/x`"));
    }

    #[test]
    fn one_file_is_a_source_by_itself() {
        let directory = directory("echo hello > program; chmod 700 program; ln -s program link");
        for name in ["program", "link"] {
            let store = MemoryStore::new();
            let path = directory.path().join(name);
            let scanned = scan(&plainly(&path), &StatCache::default(), &store).unwrap();
            assert!(scanned.is_file);
            assert_eq!(
                to_listing(&store, &scanned.tree).unwrap(),
                format!("d 0755 0:0 /\nf 0755 0:0 /file {HELLO}\n")
            );
            let blob = BlobId::new(Digest::of(b"hello\n"));
            assert_eq!(scanned.origins.read(&blob).unwrap(), b"hello\n");
        }
    }

    #[test]
    fn names_are_any_bytes_and_paths_are_deep() {
        let directory = tempfile::tempdir().unwrap();
        let odd = OsStr::from_bytes(b"a\xff\n b");
        fs::write(directory.path().join(odd), "x").unwrap();
        // Deeper than a process may have files open, where that is what it is by default.
        let deep = "d/".repeat(1500);
        shell(
            directory.path(),
            &format!("mkdir -p {deep}; echo hello > {deep}f"),
        );
        let listing = listing(&plainly(directory.path()));
        assert!(listing.contains(" /a\\xff\\x0a\\x20b "), "{listing}");
        let last = format!("f 0644 0:0 /{deep}f {HELLO}");
        assert_eq!(listing.lines().last(), Some(&*last));
        // What removes it must not go by its path, either.
        shell(directory.path(), "rm -rf d");
    }

    #[test]
    fn a_path_longer_than_an_image_can_have_is_an_error() {
        let directory = directory(
            "name=$(printf '%0200d' 0); i=0; while [ $i -lt 21 ]; do mkdir $name; cd -P $name; i=$((i+1)); done",
        );
        assert!(failure(&plainly(directory.path())).ends_with("cannot be named in an image"));
        // What removes it must not go by its path either.
        shell(directory.path(), "rm -rf 0*");
    }

    #[test]
    fn an_unchanged_file_is_not_read_again() {
        let directory = directory(
            "mkdir d; i=0; while [ $i -lt 200 ]; do echo $i > d/$i; i=$((i+1)); done; echo hello > a",
        );
        let store = MemoryStore::new();
        let options = plainly(directory.path());
        let cold = scan(&options, &StatCache::default(), &store).unwrap();
        let bytes = 10 * 2 + 90 * 3 + 100 * 4 + 6;
        assert_eq!(
            cold.report,
            ScanReport {
                files: 201,
                cached: 0,
                bytes_hashed: bytes,
            }
        );
        let warm = scan(&options, &cold.stat_cache, &store).unwrap();
        assert_eq!(warm.tree, cold.tree);
        assert_eq!(
            warm.report,
            ScanReport {
                files: 201,
                cached: 201,
                bytes_hashed: 0,
            }
        );
        // Of the same length, with the old time of modification: the time of change tells.
        shell(
            directory.path(),
            "touch -r a /tmp/.stamp.$$; echo hallo > a; touch -r /tmp/.stamp.$$ a; rm /tmp/.stamp.$$",
        );
        let changed = scan(&options, &warm.stat_cache, &store).unwrap();
        assert_ne!(changed.tree, cold.tree);
        assert_eq!(
            changed.report,
            ScanReport {
                files: 201,
                cached: 200,
                bytes_hashed: 6,
            }
        );
    }

    #[test]
    fn a_file_touched_just_before_the_scan_is_read_again() {
        let directory = directory("echo hello > a");
        let store = MemoryStore::new();
        let options = Scan {
            started: later(0),
            ..plainly(directory.path())
        };
        let cold = scan(&options, &StatCache::default(), &store).unwrap();
        let warm = scan(&options, &cold.stat_cache, &store).unwrap();
        assert_eq!((warm.report.cached, warm.report.bytes_hashed), (0, 6));
    }

    #[test]
    fn what_is_known_of_one_directory_says_nothing_of_its_copy() {
        let directory = directory("mkdir one; echo hello > one/a; cp -a one two");
        let store = MemoryStore::new();
        let (one, two) = (directory.path().join("one"), directory.path().join("two"));
        let first = scan(&plainly(&one), &StatCache::default(), &store).unwrap();
        let second = scan(&plainly(&two), &first.stat_cache, &store).unwrap();
        assert_eq!(second.tree, first.tree);
        assert_eq!(second.report.bytes_hashed, 6);
    }

    #[test]
    fn a_file_that_is_written_to_while_it_is_read_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::write(&path, vec![1; 64 << 20]).unwrap();
        let is_done = AtomicBool::new(false);
        let error = thread::scope(|scope| {
            scope.spawn(|| {
                let mut log = fs::OpenOptions::new().append(true).open(&path).unwrap();
                while !is_done.load(Ordering::Relaxed) {
                    io::Write::write_all(&mut log, b"more").unwrap();
                    thread::sleep(Duration::from_micros(100));
                }
            });
            let error = scan(
                &plainly(directory.path()),
                &StatCache::default(),
                &MemoryStore::new(),
            );
            is_done.store(true, Ordering::Relaxed);
            error
        });
        assert_eq!(
            error.unwrap_err().to_string(),
            format!("`{}` changed while it was being read", path.display())
        );
    }

    /// A store during whose work a file is replaced by one of the same length.
    struct Replacing(MemoryStore, PathBuf);

    impl BlobSource for Replacing {
        fn open(&self, id: &BlobId) -> Result<Box<dyn Read + Send + '_>, StoreError> {
            self.0.open(id)
        }
    }

    impl DirectorySource for Replacing {
        fn directory(&self, id: &DirectoryId) -> Result<Arc<Directory>, StoreError> {
            self.0.directory(id)
        }
    }

    impl DirectorySink for Replacing {
        fn put_directory(&self, directory: &Directory) -> Result<DirectoryId, StoreError> {
            self.0.put_directory(directory)
        }
    }

    impl Store for Replacing {
        fn has(&self, id: &BlobId) -> Result<bool, StoreError> {
            self.0.has(id)
        }

        fn put(&self, source: &mut dyn Read) -> Result<(BlobId, u64), StoreError> {
            let put = self.0.put(source);
            fs::write(&self.1, "hallo\n").unwrap();
            put
        }

        fn record(&self, kind: &str, key: &Digest) -> Result<Option<Record>, StoreError> {
            self.0.record(kind, key)
        }

        fn put_record(&self, kind: &str, key: &Digest, record: &Record) -> Result<(), StoreError> {
            self.0.put_record(kind, key, record)
        }
    }

    #[test]
    fn a_file_that_changes_while_it_is_copied_is_an_error() {
        let directory = directory("echo hello > a");
        let path = directory.path().join("a");
        let store = Replacing(MemoryStore::new(), path.clone());
        let error = ingest_directory(directory.path(), &store, TWO).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("`{}` changed while it was being read", path.display())
        );
    }

    #[test]
    fn content_is_found_again_unless_it_changed() {
        let directory = directory("echo hello > small");
        let big = vec![7; 100_000];
        fs::write(directory.path().join("big"), &big).unwrap();
        fs::write(directory.path().join("gone"), &big[1..]).unwrap();
        let store = MemoryStore::new();
        let scanned = scan(&plainly(directory.path()), &StatCache::default(), &store).unwrap();
        let id = |bytes: &[u8]| BlobId::new(Digest::of(bytes));
        let origins = &scanned.origins;
        assert_eq!(origins.read(&id(&big)).unwrap(), big);
        assert!(!store.has(&id(&big)).unwrap(), "nothing was copied");
        shell(
            directory.path(),
            "echo hallo > small; echo x >> big; rm gone",
        );
        assert_eq!(origins.read(&id(b"hello\n")).unwrap(), b"hello\n");
        let changed = |bytes: &[u8], name: &str| {
            let error = origins.read(&id(bytes)).unwrap_err();
            let path = directory.path().join(name).display().to_string();
            assert!(
                matches!(&error, StoreError::Changed { path: found } if *found == path),
                "{error:?}"
            );
        };
        changed(&big, "big");
        changed(&big[1..], "gone");
        assert!(matches!(
            origins.read(&id(b"?")),
            Err(StoreError::Missing(_))
        ));
    }

    #[test]
    fn an_imported_directory_is_in_the_store() {
        let directory = directory("mkdir .git; echo hello > .git/a; chmod 600 .git/a; mkfifo p");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let store = MemoryStore::new();
        let imported = ingest_directory(directory.path(), &store, TWO).unwrap();
        let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
        let owner = format!("{user}:{group}");
        assert_eq!(
            to_listing(&store, &imported.tree).unwrap(),
            format!(
                "d 0755 {owner} /\nd 0755 {owner} /.git\nf 0600 {owner} /.git/a {HELLO}\n\
                 p 0644 {owner} /p\n"
            )
        );
        assert!(store.has(&BlobId::new(Digest::of(b"hello\n"))).unwrap());
        assert!(imported.origins.is_empty());
    }
}
