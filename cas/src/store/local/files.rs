//! How files come and go: private names first, then one rename; and removal that copes with any depth and mode.

use std::ffi::CString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::store::StoreError;

/// Makes a system error say what was being done, and where.
pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io {
        action,
        path: path.display().to_string(),
        source,
    }
}

/// `Ok(None)` for what is not there.
pub(super) fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes a directory that only its owner can enter, if it is not there.
pub(super) fn make_directory(path: &Path) -> Result<(), StoreError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result.map_err(failed("make", path)),
    }
}

/// Renames onto `target`, whose parent is made when it is missing.
pub(super) fn rename_to(from: &Path, target: &Path) -> Result<(), StoreError> {
    match fs::rename(from, target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = target.parent().expect("a path in the store has a parent");
            fs::create_dir_all(parent).map_err(failed("make", parent))?;
            fs::rename(from, target).map_err(failed("write", target))
        }
        result => result.map_err(failed("write", target)),
    }
}

/// The private directory of one open store below `tmp/`, made when it is first needed.
#[derive(Debug)]
pub(super) struct Workspace {
    tmp: PathBuf,
    private: Mutex<Option<Arc<Private>>>,
}

impl Workspace {
    pub(super) fn new(tmp: PathBuf) -> Self {
        Self {
            tmp,
            private: Mutex::new(None),
        }
    }

    pub(super) fn private(&self) -> Result<Arc<Private>, StoreError> {
        let mut slot = self.private.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(private) = &*slot {
            return Ok(Arc::clone(private));
        }
        let private = Arc::new(Private::make(&self.tmp)?);
        *slot = Some(Arc::clone(&private));
        Ok(private)
    }

    /// Writes a whole small file under a name that then has all of it or nothing.
    pub(super) fn write(&self, target: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let mut file = TempFile::make(self.private()?, 0o600)?;
        file.file
            .write_all(bytes)
            .map_err(failed("write", &file.path))?;
        file.persist(target)
    }

    /// Removes a file or a directory with all that is in it.
    pub(super) fn remove(&self, path: &Path) -> Result<(), StoreError> {
        let private = self.private()?;
        remove_tree(path, &private.fresh("trash")).map_err(failed("remove", path))
    }

    /// Removes what dead processes left in `tmp/` and says how many of them had left something, and how many could
    /// not be removed (they hold files of other users, which takes their user namespace).
    pub(super) fn remove_stale(&self) -> Result<(u64, u64), StoreError> {
        let (mut removed, mut left) = (0, 0);
        for entry in fs::read_dir(&self.tmp).map_err(failed("read", &self.tmp))? {
            let path = entry.map_err(failed("read", &self.tmp))?.path();
            let Some(directory) = found(File::open(&path)).map_err(failed("open", &path))? else {
                continue;
            };
            // Who lives holds the lock, also we; who died, however it died, does not.
            if directory.try_lock().is_ok() {
                match self.remove(&path) {
                    Ok(()) => removed += 1,
                    Err(_) => left += 1,
                }
            }
        }
        Ok((removed, left))
    }
}

/// A directory of one process, locked as long as it lives.
#[derive(Debug)]
pub(super) struct Private {
    path: PathBuf,
    _lock: File,
    counter: AtomicU64,
}

impl Private {
    fn make(tmp: &Path) -> Result<Self, StoreError> {
        let pid = std::process::id();
        for number in 0_u64.. {
            let path = tmp.join(format!("{pid}-{number}"));
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                result => result.map_err(failed("make", &path))?,
            }
            // Between making and locking it, somebody may have taken it for stale: then it is no longer there.
            let Some(lock) = found(File::open(&path)).map_err(failed("open", &path))? else {
                continue;
            };
            if lock.try_lock().is_ok() && is_at(&lock, &path) {
                return Ok(Self {
                    path,
                    _lock: lock,
                    counter: AtomicU64::new(0),
                });
            }
        }
        unreachable!("there are more numbers than directories")
    }

    /// A path that nothing has yet.
    pub(super) fn fresh(&self, prefix: &str) -> PathBuf {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        self.path.join(format!("{prefix}-{number}"))
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // Whoever makes something here holds this value, so it is empty; if not, because something could not be
        // removed, the next gc tries again.
        let _ = fs::remove_dir(&self.path);
    }
}

/// Is the open file the one at this path?
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// A file without its final name. Removed unless it gets one.
#[derive(Debug)]
pub(super) struct TempFile {
    pub(super) file: File,
    pub(super) path: PathBuf,
    _private: Arc<Private>,
}

impl TempFile {
    pub(super) fn make(private: Arc<Private>, mode: u32) -> Result<Self, StoreError> {
        let path = private.fresh("file");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)
            .map_err(failed("write", &path))?;
        Ok(Self {
            file,
            path,
            _private: private,
        })
    }

    /// Gives it its final name, in place of whatever has that name.
    pub(super) fn persist(&self, target: &Path) -> Result<(), StoreError> {
        rename_to(&self.path, target)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // After `persist` there is nothing of this name any more: names are never used twice.
        let _ = fs::remove_file(&self.path);
    }
}

/// A private directory for the work of a step. It and all that is in it is removed on drop.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    private: Arc<Private>,
}

impl Scratch {
    pub(super) fn make(private: Arc<Private>, prefix: &str) -> Result<Self, StoreError> {
        let path = private.fresh(prefix);
        make_directory(&path)?;
        Ok(Self { path, private })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves it to `target`, which nothing has.
    pub(super) fn persist(self, target: &Path) -> Result<(), StoreError> {
        rename_to(&self.path, target)
    }

    /// Removes everything in it but what has this name.
    pub fn keep_only(&self, name: &str) -> Result<(), StoreError> {
        for entry in fs::read_dir(&self.path).map_err(failed("read", &self.path))? {
            let entry = entry.map_err(failed("read", &self.path))?;
            if entry.file_name() != name {
                let path = entry.path();
                remove_tree(&path, &self.private.fresh("trash"))
                    .map_err(failed("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Removes it and says what stood in the way; dropping it says nothing.
    pub fn remove(self) -> Result<(), StoreError> {
        remove_tree(&self.path, &self.private.fresh("trash")).map_err(failed("remove", &self.path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Moved or removed already: `remove_tree` finds nothing, which is fine. Otherwise the next gc tries again.
        let _ = remove_tree(&self.path, &self.private.fresh("trash"));
    }
}

/// Removes `path` with all that is in it. `trash` is a name on the same file system that nothing has.
///
/// Directories are moved up into `trash` before they are emptied: so no depth needs more than two open
/// directories, and no path becomes too long.
pub(super) fn remove_tree(path: &Path, trash: &Path) -> io::Result<()> {
    let Some(metadata) = found(fs::symlink_metadata(path))? else {
        return Ok(());
    };
    if !metadata.is_dir() {
        return fs::remove_file(path);
    }
    DirBuilder::new().mode(0o700).create(trash)?;
    let result = empty_into(path, trash);
    fs::remove_dir(trash)?;
    result
}

fn empty_into(path: &Path, trash: &Path) -> io::Result<()> {
    // Moving a directory to another parent takes the right to write in it; only root has that for mode 0000.
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    fs::rename(path, trash.join("0"))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let trash = rustix::fs::openat(CWD, trash, flags, Mode::empty())?;
    let (mut waiting, mut made) = (vec![0_u64], 1_u64);
    while let Some(number) = waiting.pop() {
        let directory = rustix::fs::openat(&trash, number.to_string(), flags, Mode::empty())?;
        for (name, kind) in names(&directory)? {
            if kind != FileType::Directory {
                match rustix::fs::unlinkat(&directory, &name, AtFlags::empty()) {
                    Err(Errno::ISDIR) => {}
                    result => {
                        result?;
                        continue;
                    }
                }
            }
            let _ = rustix::fs::chmodat(&directory, &name, Mode::RWXU, AtFlags::empty());
            rustix::fs::renameat(&directory, &name, &trash, made.to_string())?;
            waiting.push(made);
            made += 1;
        }
        rustix::fs::unlinkat(&trash, number.to_string(), AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

/// The names in an open directory. All at once: what is removed meanwhile may otherwise hide its neighbours.
fn names(directory: impl AsFd) -> io::Result<Vec<(CString, FileType)>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    Ok(names)
}

/// Bytes that a directory takes on disk with all that is in it. What cannot be looked at counts nothing: it is
/// an estimate for people and for the size cap.
pub(super) fn disk_usage(path: &Path) -> u64 {
    let mut total = 0;
    let mut waiting = vec![path.to_owned()];
    while let Some(path) = waiting.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        total += metadata.blocks() * 512;
        if metadata.is_dir() {
            waiting.extend(
                fs::read_dir(&path)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|entry| entry.path()),
            );
        }
    }
    total
}
