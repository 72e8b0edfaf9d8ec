//! The store in a directory of the local file system.
//!
//! ```text
//! form             which form this is: `immbuild store 1`
//! lock             shared lock: in use; exclusive lock: garbage is collected
//! blobs/ab/<hex>   large blobs, one file each, read-only
//! packs/           small blobs, directories and trees: see `pack` and `index`
//! records/<kind>/ab/<hex>   what was computed: see `record`
//! roots/<hex>      records with a name, kept whatever their age
//! snapshots/<hex>/ materialised trees: see `snapshot`
//! damaged/         what was found damaged, for whoever wants to know why; emptied by gc
//! tmp/             one private, locked directory per process that uses the store
//! ```
//!
//! **What it withstands.** *A kill at any point*: whatever has its final name is whole, since it was renamed or
//! appended with one call; the rest is in `tmp/` and goes with the next gc. *A full disk*: the same. *A crash of the
//! machine and bit rot*: objects are not synced one by one; instead what this process did not write just now is checked
//! when it is read, and what is not what its digest says is set aside, is not there any more, and is made again. *Several processes*: they share blobs, packs
//! and records without waiting for each other; only gc wants to be alone.
//!
//! Must never know what a record is for.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a store is files; their times say what was used last"
)]

mod files;
mod fsck;
mod gc;
mod incoming;
mod index;
mod pack;
mod packs;
mod record;
mod snapshot;
#[cfg(test)]
mod tests;

pub use files::Scratch;
pub use fsck::FsckReport;
pub use gc::GcReport;
pub use incoming::Incoming;

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use self::files::{TempFile, Workspace, failed, found, is_at, make_directory};
use self::pack::PACKED_MAX;
use self::packs::{Packed, Packs};
use self::record::Named;
use super::{BlobSource, DirectorySink, DirectorySource, Record, Store, StoreError, read_error};
use crate::canonical::Canonical;
use crate::digest::{BlobId, Digest, DirectoryId, Hasher, MismatchError, VerifiedReader};
use crate::tree::Directory;

/// What stands in the form file.
const FORM: &str = "immbuild store 1\n";
const DIRECTORIES: [&str; 7] = [
    "blobs",
    "packs",
    "records",
    "roots",
    "snapshots",
    "damaged",
    "tmp",
];
/// How much is read and written at once, in bytes.
const CHUNK: usize = 256 << 10;
/// A record that is used is marked so at most this often.
const TOUCH_EVERY: Duration = Duration::from_secs(60);

/// Keeps everything in one directory. May be open many times, in one process and in several.
#[derive(Debug)]
pub struct LocalStore {
    path: PathBuf,
    lock: File,
    workspace: Arc<Workspace>,
    packs: Packs,
    directories: DirectoryCache,
    /// Large blobs that this value wrote and that were hashed then, as their files were: read again they are not hashed again.
    written: Mutex<Written>,
}

/// The files that were written last, as far as memory may still hold them: one that has to come from the disk again is hashed,
/// since a disk may lose what it took.
#[derive(Debug, Default)]
struct Written {
    states: BTreeMap<Digest, FileState>,
    /// In the order they were written.
    order: VecDeque<Digest>,
    bytes: u64,
}

impl Written {
    /// Bytes of all of them, the last one aside.
    const MOST: u64 = 2 << 30;

    fn insert(&mut self, digest: Digest, state: FileState) {
        if let Some(before) = self.states.insert(digest, state) {
            self.bytes -= before.size;
        } else {
            self.order.push_back(digest);
        }
        self.bytes += state.size;
        while self.bytes > Self::MOST && self.order.len() > 1 {
            let oldest = self.order.pop_front().expect("there are two");
            let state = self.states.remove(&oldest).expect("each has a state");
            self.bytes -= state.size;
        }
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// What changes when somebody writes to a file, or puts another in its place: not sooner than the file system's clock
/// ticks, which is a matter of milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileState {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileState {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What is in a store, in numbers and bytes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Large blobs: files of their own.
    pub blobs: Count,
    /// Small blobs, directories and trees in packs.
    pub packed: Count,
    /// Records and roots.
    pub records: Count,
    /// Materialised trees.
    pub snapshots: Count,
    /// Damaged objects set aside.
    pub damaged: Count,
}

/// How many of something, and their bytes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How many.
    pub count: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Count {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

impl Stat {
    /// All bytes.
    pub fn bytes(&self) -> u64 {
        let Self {
            blobs,
            packed,
            records,
            snapshots,
            damaged,
        } = self;
        [blobs, packed, records, snapshots, damaged]
            .iter()
            .map(|count| count.bytes)
            .sum()
    }
}

impl LocalStore {
    /// Opens the store in this directory; a directory that is missing or empty becomes one. Waits while garbage is
    /// collected.
    ///
    /// # Errors
    /// The directory belongs to another user, or is a store of another form, or something else.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let path = std::path::absolute(path).map_err(failed("find", path))?;
        if found(fs::metadata(&path))
            .map_err(failed("open", &path))?
            .is_none()
        {
            let parent = path.parent().unwrap_or(&path);
            fs::create_dir_all(parent).map_err(failed("make", parent))?;
            make_directory(&path)?;
        }
        let metadata = fs::metadata(&path).map_err(failed("open", &path))?;
        let user = rustix::process::geteuid().as_raw();
        if metadata.uid() != user {
            return Err(StoreError::Owner {
                path: path.display().to_string(),
                owner: metadata.uid(),
                user,
            });
        }
        let form = check_form(&path)?;
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(failed("open", &path.join("lock")))?;
        lock.lock_shared().map_err(failed("lock", &path))?;
        let workspace = Arc::new(Workspace::new(path.join("tmp")));
        if form.is_none() {
            for name in DIRECTORIES {
                make_directory(&path.join(name))?;
            }
            workspace.write(&path.join("form"), FORM.as_bytes())?;
        }
        Ok(Self {
            packs: Packs::new(path.join("packs"), Arc::clone(&workspace)),
            path,
            lock,
            workspace,
            directories: DirectoryCache::default(),
            written: Mutex::default(),
        })
    }

    /// The directory it is in.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A fresh private directory on the file system of the store, mode 0700.
    pub fn scratch(&self, prefix: &str) -> Result<Scratch, StoreError> {
        Scratch::make(self.workspace.private()?, prefix)
    }

    /// Removes what processes that were killed left in `tmp/`. Gives how many of their directories were removed, and
    /// how many could not be.
    pub fn remove_stale(&self) -> Result<(u64, u64), StoreError> {
        self.workspace.remove_stale()
    }

    /// The file of a blob that has one. **Its content is not checked**: who reads it checks it.
    pub fn blob_file(&self, id: &BlobId) -> Result<Option<File>, StoreError> {
        let path = self.blob_path(id.digest());
        found(File::open(&path)).map_err(failed("open", &path))
    }

    /// Appends a whole blob to `out` and gives its length. It is checked on the way, so an error means that `out` holds
    /// bytes that must not be used.
    pub fn copy_out(&self, id: &BlobId, out: &mut dyn Write) -> Result<u64, StoreError> {
        let mut reader = self.open_checked(id.digest())?;
        let mut buffer = vec![0; CHUNK];
        let mut length = 0;
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => return Ok(length),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(read_error(id.digest(), error)),
            };
            out.write_all(&buffer[..count])
                .map_err(|source| StoreError::Io {
                    action: "copy",
                    path: id.to_string(),
                    source,
                })?;
            length += count as u64;
        }
    }

    /// Keeps a record under a name, whatever its age, and all it reaches with it.
    pub fn set_root(&self, name: &str, record: &Record) -> Result<(), StoreError> {
        let key = Digest::of(name.as_bytes());
        self.write_record(&self.root_path(&key), name, &key, record)
    }

    /// Forgets a root. It need not be there.
    pub fn remove_root(&self, name: &str) -> Result<(), StoreError> {
        let path = self.root_path(&Digest::of(name.as_bytes()));
        found(fs::remove_file(&path))
            .map(drop)
            .map_err(failed("remove", &path))
    }

    /// All roots by name. Damaged ones are set aside and left out.
    pub fn roots(&self) -> Result<BTreeMap<String, Record>, StoreError> {
        let mut roots = BTreeMap::new();
        for path in list(&self.path.join("roots"))? {
            if let Some(named) = self.read_record(&path)? {
                roots.insert(named.name, named.record);
            }
        }
        Ok(roots)
    }

    /// Counts what is there. Takes as long as looking at every file does.
    pub fn stat(&self) -> Result<Stat, StoreError> {
        let mut stat = Stat::default();
        for (path, _) in self.blob_paths()? {
            stat.blobs.add(size(&path));
        }
        stat.packed.count = self.packs.sizes()?.len() as u64;
        stat.packed.bytes = self.packs.disk_bytes()?;
        for path in self
            .record_paths()?
            .iter()
            .chain(&list(&self.path.join("roots"))?)
        {
            stat.records.add(size(path));
        }
        for path in list(&self.path.join("snapshots"))? {
            stat.snapshots.add(files::disk_usage(&path));
        }
        for path in list(&self.path.join("damaged"))? {
            stat.damaged.add(size(&path));
        }
        Ok(stat)
    }

    /// All records of a kind, in the order of their keys. Damaged ones are set aside and left out.
    pub fn records(&self, kind: &str) -> Result<Vec<(Digest, Record)>, StoreError> {
        let mut records = Vec::new();
        for directory in list(&self.records_path(kind))? {
            for path in list(&directory)? {
                if let Some(named) = self.read_record(&path)? {
                    records.push((named.key, named.record));
                }
            }
        }
        records.sort_by_key(|(key, _)| *key);
        Ok(records)
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.to_hex();
        self.path.join("blobs").join(&hex[..2]).join(hex)
    }

    fn records_path(&self, kind: &str) -> PathBuf {
        assert!(
            !kind.is_empty()
                && kind
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'-'),
            "the kind of a record is `[a-z-]+`, not `{kind}`"
        );
        self.path.join("records").join(kind)
    }

    fn record_path(&self, kind: &str, key: &Digest) -> PathBuf {
        let hex = key.to_hex();
        self.records_path(kind).join(&hex[..2]).join(hex)
    }

    fn root_path(&self, key: &Digest) -> PathBuf {
        self.path.join("roots").join(key.to_hex())
    }

    /// Blobs that are files of their own. Files with other names are none of ours.
    fn blob_paths(&self) -> Result<Vec<(PathBuf, Digest)>, StoreError> {
        let mut blobs = Vec::new();
        for directory in list(&self.path.join("blobs"))? {
            for path in list(&directory)? {
                let name = path.file_name().and_then(|name| name.to_str());
                if let Some(digest) = name.and_then(|name| Digest::from_hex(name).ok()) {
                    blobs.push((path, digest));
                }
            }
        }
        Ok(blobs)
    }

    fn record_paths(&self) -> Result<Vec<PathBuf>, StoreError> {
        let mut paths = Vec::new();
        for kind in list(&self.path.join("records"))? {
            for directory in list(&kind)? {
                paths.extend(list(&directory)?);
            }
        }
        Ok(paths)
    }

    fn write_record(
        &self,
        path: &Path,
        name: &str,
        key: &Digest,
        record: &Record,
    ) -> Result<(), StoreError> {
        let named = Named {
            name: name.to_owned(),
            key: *key,
            record: record.clone(),
        };
        self.workspace.write(path, &named.to_file())
    }

    /// Reads the file of a record or root. A damaged one is set aside and is none.
    fn read_record(&self, path: &Path) -> Result<Option<Named>, StoreError> {
        let Some(bytes) = found(fs::read(path)).map_err(failed("read", path))? else {
            return Ok(None);
        };
        if let Some(named) = Named::of_file(&bytes)
            && path
                .file_name()
                .is_some_and(|name| *name == *named.key.to_hex())
        {
            return Ok(Some(named));
        }
        let name = path.file_name().expect("a record has a name");
        let aside = format!("record-{}", name.to_string_lossy());
        found(fs::rename(path, self.path.join("damaged").join(aside)))
            .map_err(failed("set aside", path))?;
        Ok(None)
    }

    /// Is all here that a record names itself?
    fn holds_objects_of(&self, record: &Record) -> Result<bool, StoreError> {
        let trees = record.trees.iter().map(crate::digest::TreeId::digest);
        for digest in record.blobs.iter().map(BlobId::digest).chain(trees) {
            if !self.has(&BlobId::new(*digest))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Moves the file of a damaged blob out of the way, unless a good one has come in its place.
    fn set_aside(&self, digest: &Digest, file: &File) -> Result<(), StoreError> {
        let path = self.blob_path(digest);
        if !is_at(file, &path) {
            return Ok(());
        }
        let aside = self.path.join("damaged").join(digest.to_hex());
        found(fs::rename(&path, aside))
            .map(drop)
            .map_err(failed("set aside", &path))
    }

    /// Keeps the bytes of a damaged object that was taken out of a pack.
    fn keep_damaged(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let aside = self.path.join("damaged").join(digest.to_hex());
        self.workspace.write(&aside, bytes)
    }

    fn open_checked(&self, digest: &Digest) -> Result<CheckedReader<'_>, StoreError> {
        match self.packs.get(digest)? {
            Some(Packed::Whole(bytes)) => return Ok(CheckedReader::Packed(io::Cursor::new(bytes))),
            Some(Packed::Damaged(bytes)) => {
                // It is no longer in the pack, which is what counts: on a full disk no copy of it is kept.
                let _ = self.keep_damaged(digest, &bytes);
                return Err(StoreError::Damaged { digest: *digest });
            }
            None => {}
        }
        let file = self
            .blob_file(&BlobId::new(*digest))?
            .ok_or(StoreError::Missing(*digest))?;
        if self.is_as_written(digest, &file) {
            return Ok(CheckedReader::Own(file));
        }
        Ok(CheckedReader::File {
            reader: VerifiedReader::new(file, *digest),
            store: self,
            digest: *digest,
        })
    }

    /// Makes it the blob of this digest, which its bytes had when they were written.
    fn persist_hashed(&self, temp: &TempFile, digest: Digest) -> Result<(), StoreError> {
        temp.persist(&self.blob_path(&digest))?;
        // Not known, it is only hashed again.
        if let Ok(metadata) = temp.file.metadata() {
            self.written().insert(digest, FileState::of(&metadata));
        }
        Ok(())
    }

    /// Did this value write the file, and has nobody touched it since?
    fn is_as_written(&self, digest: &Digest, file: &File) -> bool {
        let written = self.written().states.get(digest).copied();
        written.is_some_and(|state| {
            file.metadata()
                .is_ok_and(|metadata| FileState::of(&metadata) == state)
        })
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what is in `head` and then in `rest`, as a file of its own.
    fn put_large(&self, head: &[u8], rest: &mut dyn Read) -> Result<(BlobId, u64), StoreError> {
        let mut temp = TempFile::make(self.workspace.private()?, 0o600)?;
        let mut hasher = Hasher::new();
        let mut length = 0;
        let mut buffer = vec![0; CHUNK];
        let mut chunk = head;
        loop {
            hasher.update(chunk);
            temp.file
                .write_all(chunk)
                .map_err(failed("write", &temp.path))?;
            length += chunk.len() as u64;
            let count = read_full(rest, &mut buffer)?;
            if count == 0 {
                break;
            }
            chunk = &buffer[..count];
        }
        let digest = hasher.finish();
        let id = BlobId::new(digest);
        if !self.has(&id)? {
            temp.file
                .set_permissions(Permissions::from_mode(0o444))
                .map_err(failed("write", &temp.path))?;
            self.persist_hashed(&temp, digest)?;
        }
        Ok((id, length))
    }
}

impl Drop for LocalStore {
    fn drop(&mut self) {
        // Without its index the pack is still good: the next who opens the store makes it.
        if let Ok(true) = self.packs.finish() {
            let _ = self.packs.merge();
        }
    }
}

/// Looks at the form file. None: the directory is empty, or was left while it was being made.
fn check_form(path: &Path) -> Result<Option<()>, StoreError> {
    let file = path.join("form");
    let form = found(fs::read(&file)).map_err(failed("read", &file))?;
    let unknown = |found: &str| StoreError::Form {
        path: path.display().to_string(),
        found: found.trim_end().to_owned(),
        known: FORM.trim_end().to_owned(),
    };
    match form {
        Some(form) if form == FORM.as_bytes() => Ok(Some(())),
        Some(form) => Err(unknown(&String::from_utf8_lossy(&form))),
        None => {
            for path in list(path)? {
                let name = path.file_name().and_then(|name| name.to_str());
                // Another process may be making it at the same time.
                if !name.is_some_and(|name| {
                    matches!(name, "lock" | "form") || DIRECTORIES.contains(&name)
                }) {
                    return Err(unknown("not a store"));
                }
            }
            Ok(None)
        }
    }
}

/// What is in a directory, sorted. Nothing when the directory is gone.
fn list(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let Some(entries) = found(fs::read_dir(directory)).map_err(failed("read", directory))? else {
        return Ok(Vec::new());
    };
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(failed("read", directory))?;
    paths.sort();
    Ok(paths)
}

fn size(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |metadata| metadata.len())
}

/// Marks a file as used now, if it has not been marked for a while.
fn touch(path: &Path) {
    let now = SystemTime::now();
    let is_recent = fs::metadata(path)
        .and_then(|metadata| metadata.modified())
        .is_ok_and(|marked| {
            now.duration_since(marked)
                .is_ok_and(|age| age < TOUCH_EVERY)
        });
    if !is_recent {
        // It only decides what gc drops first.
        let _ = File::open(path).and_then(|file| file.set_modified(now));
    }
}

/// Fills the buffer as far as the source goes.
fn read_full(source: &mut dyn Read, buffer: &mut [u8]) -> Result<usize, StoreError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(match error.downcast::<StoreError>() {
                    Ok(error) => error,
                    Err(source) => StoreError::Io {
                        action: "read",
                        path: "content to be stored".into(),
                        source,
                    },
                });
            }
        }
    }
    Ok(filled)
}

/// Reads a blob, checks it, and sets it aside when it is damaged.
enum CheckedReader<'a> {
    /// Already checked.
    Packed(io::Cursor<Vec<u8>>),
    /// Hashed when it was written.
    Own(File),
    /// Checked at the end.
    File {
        reader: VerifiedReader<File>,
        store: &'a LocalStore,
        digest: Digest,
    },
}

impl Read for CheckedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Packed(bytes) => bytes.read(buffer),
            Self::Own(file) => file.read(buffer),
            Self::File {
                reader,
                store,
                digest,
            } => reader.read(buffer).inspect_err(|error| {
                if MismatchError::of(error).is_some() {
                    // The caller learns of the damage itself, which is worse than one that stays in place.
                    let _ = store.set_aside(digest, reader.inner());
                }
            }),
        }
    }
}

impl BlobSource for LocalStore {
    fn open(&self, id: &BlobId) -> Result<Box<dyn Read + Send + '_>, StoreError> {
        Ok(match self.open_checked(id.digest())? {
            CheckedReader::Packed(bytes) => Box::new(bytes),
            file => Box::new(BufReader::with_capacity(CHUNK, file)),
        })
    }

    fn read(&self, id: &BlobId) -> Result<Vec<u8>, StoreError> {
        match self.open_checked(id.digest())? {
            CheckedReader::Packed(bytes) => Ok(bytes.into_inner()),
            mut file => {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes)
                    .map_err(|error| read_error(id.digest(), error))?;
                Ok(bytes)
            }
        }
    }
}

impl DirectorySource for LocalStore {
    fn directory(&self, id: &DirectoryId) -> Result<Arc<Directory>, StoreError> {
        if let Some(directory) = self.directories.get(id) {
            return Ok(directory);
        }
        let digest = *id.digest();
        let bytes = self.read(&BlobId::new(digest))?;
        let directory = Directory::decode_strict(&bytes)
            .map(Arc::new)
            .map_err(|source| StoreError::Decode { digest, source })?;
        self.directories.insert(*id, Arc::clone(&directory));
        Ok(directory)
    }
}

impl DirectorySink for LocalStore {
    fn put_directory(&self, directory: &Directory) -> Result<DirectoryId, StoreError> {
        let id = self.put_bytes(&directory.to_canonical())?;
        Ok(DirectoryId::new(*id.digest()))
    }
}

impl Store for LocalStore {
    fn has(&self, id: &BlobId) -> Result<bool, StoreError> {
        let path = self.blob_path(id.digest());
        Ok(self.packs.has(id.digest())?
            || found(fs::metadata(&path))
                .map_err(failed("read", &path))?
                .is_some())
    }

    fn put(&self, source: &mut dyn Read) -> Result<(BlobId, u64), StoreError> {
        let mut head = vec![0; PACKED_MAX + 1];
        let count = read_full(source, &mut head)?;
        if count > PACKED_MAX {
            return self.put_large(&head, source);
        }
        Ok((self.put_bytes(&head[..count])?, count as u64))
    }

    fn put_bytes(&self, bytes: &[u8]) -> Result<BlobId, StoreError> {
        if bytes.len() > PACKED_MAX {
            return Ok(self.put_large(bytes, &mut io::empty())?.0);
        }
        let digest = Digest::of(bytes);
        self.packs.put(&digest, bytes)?;
        Ok(BlobId::new(digest))
    }

    fn record(&self, kind: &str, key: &Digest) -> Result<Option<Record>, StoreError> {
        let path = self.record_path(kind, key);
        let Some(named) = self.read_record(&path)? else {
            return Ok(None);
        };
        if named.name != kind || !self.holds_objects_of(&named.record)? {
            return Ok(None);
        }
        touch(&path);
        Ok(Some(named.record))
    }

    fn put_record(&self, kind: &str, key: &Digest, record: &Record) -> Result<(), StoreError> {
        self.write_record(&self.record_path(kind, key), kind, key, record)
    }
}

/// Directories that were decoded not long ago, in two generations: when the young one is full it becomes the old one,
/// and what was in the old one and not asked for is forgotten.
#[derive(Debug, Default)]
struct DirectoryCache(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: BTreeMap<DirectoryId, Arc<Directory>>,
    old: BTreeMap<DirectoryId, Arc<Directory>>,
    /// Entries in the young generation, which is what takes the memory.
    weight: usize,
}

impl DirectoryCache {
    /// Entries of a full generation: some 8 MB.
    const FULL: usize = 40_000;

    fn get(&self, id: &DirectoryId) -> Option<Arc<Directory>> {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(directory) = generations.young.get(id) {
            return Some(Arc::clone(directory));
        }
        let directory = generations.old.remove(id)?;
        generations.insert(*id, Arc::clone(&directory));
        Some(directory)
    }

    fn insert(&self, id: DirectoryId, directory: Arc<Directory>) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, directory);
    }

    fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Generations::default();
    }
}

impl Generations {
    fn insert(&mut self, id: DirectoryId, directory: Arc<Directory>) {
        self.weight += directory.len() + 1;
        self.young.insert(id, directory);
        if self.weight > DirectoryCache::FULL {
            self.old = std::mem::take(&mut self.young);
            self.weight = 0;
        }
    }
}
