//! Things on their way to a name: written aside, then put there at once, or gone without a trace.
#![allow(
    clippy::disallowed_methods,
    reason = "what is removed or synced has no order"
)]

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::{OutputError, io_error};

/// A file without a name until it is whole.
#[derive(Debug)]
pub(super) struct StagedFile {
    /// Open for reading and writing.
    pub(super) file: File,
    target: PathBuf,
    /// Where it stands meanwhile, on file systems that know no files without a name.
    aside: Option<PathBuf>,
}

impl StagedFile {
    /// Begins a file that will be `target`. Makes missing parent directories.
    pub(super) fn new(target: &Path) -> Result<Self, OutputError> {
        // Also behind a link: whoever names `/dev/stdout` does not want it replaced.
        if let Ok(meta) = fs::metadata(target)
            && !meta.is_file()
        {
            return Err(OutputError::InTheWay {
                path: target.into(),
                what: if meta.is_dir() {
                    "a directory"
                } else {
                    "something that is no file"
                },
            });
        }
        let parent = make_parent(target)?;
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o666);
        match rustix::fs::open(parent, flags | OFlags::TMPFILE, mode) {
            Ok(file) => Ok(Self {
                file: file.into(),
                target: target.into(),
                aside: None,
            }),
            // What file systems without O_TMPFILE say, open(2).
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                let aside = sibling(target, "new")?;
                let file = rustix::fs::open(&aside, flags | OFlags::CREATE | OFlags::EXCL, mode)
                    .map_err(|error| io_error("create", &aside)(error.into()))?;
                Ok(Self {
                    file: file.into(),
                    target: target.into(),
                    aside: Some(aside),
                })
            }
            Err(error) => Err(io_error("create", target)(error.into())),
        }
    }

    /// Puts it at its name, in place of a file that is there.
    pub(super) fn publish(mut self) -> Result<(), OutputError> {
        let failed = io_error("write", &self.target);
        self.file.sync_all().map_err(&failed)?;
        if self.aside.is_none() {
            let fd = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            let link =
                |to: &Path| rustix::fs::linkat(CWD, fd.as_str(), CWD, to, AtFlags::SYMLINK_FOLLOW);
            match link(&self.target) {
                Ok(()) => return sync_parent(&self.target),
                Err(Errno::EXIST) => (),
                Err(error) => return Err(failed(error.into())),
            }
            // A link cannot replace, a rename can.
            let aside = sibling(&self.target, "new")?;
            link(&aside).map_err(|error| failed(error.into()))?;
            self.aside = Some(aside);
        }
        if let Some(aside) = &self.aside {
            fs::rename(aside, &self.target).map_err(failed)?;
            self.aside = None;
        }
        sync_parent(&self.target)
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if let Some(aside) = &self.aside {
            // There is nobody left to tell; the error that led here is on its way already.
            let _ = fs::remove_file(aside);
        }
    }
}

/// A directory beside its final name until it is whole.
#[derive(Debug)]
pub(super) struct StagedDirectory {
    /// Where to write meanwhile.
    pub(super) path: PathBuf,
    target: PathBuf,
    /// Held while we live: what is not locked was left behind by a process that was killed.
    lock: OwnedFd,
}

impl StagedDirectory {
    /// Begins a directory that will be `target`. Makes missing parents, and removes what killed processes left here.
    pub(super) fn new(target: &Path) -> Result<Self, OutputError> {
        make_parent(target)?;
        remove_left_behind(target);
        let path = sibling(target, "new")?;
        fs::create_dir(&path).map_err(io_error("create", &path))?;
        let staged = Self {
            lock: open_directory(&path).map_err(io_error("open", &path))?,
            path,
            target: target.into(),
        };
        rustix::fs::flock(&staged.lock, FlockOperation::NonBlockingLockShared)
            .map_err(|error| io_error("lock", &staged.path)(error.into()))?;
        Ok(staged)
    }

    /// Puts it at its name; what is there goes. The caller has made sure that it may.
    pub(super) fn publish(self) -> Result<(), OutputError> {
        let failed = io_error("write", &self.target);
        rustix::fs::syncfs(&self.lock).map_err(|error| failed(error.into()))?;
        self.swap().map_err(|error| failed(error.into()))?;
        sync_parent(&self.target)
    }
}

impl StagedDirectory {
    /// Takes the target's name. An old directory is then at our path, where dropping `self` removes it.
    fn swap(&self) -> Result<(), Errno> {
        let rename = |flags| rustix::fs::renameat_with(CWD, &self.path, CWD, &self.target, flags);
        match rename(RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => (),
            Err(Errno::INVAL | Errno::NOSYS) => return self.swap_in_steps(),
            other => return other,
        }
        match rename(RenameFlags::EXCHANGE) {
            Err(Errno::INVAL | Errno::NOSYS) => self.swap_in_steps(),
            other => other,
        }
    }

    /// For file systems that cannot exchange names (rename(2), `EINVAL`): for an instant nothing stands at the target.
    fn swap_in_steps(&self) -> Result<(), Errno> {
        let mut old = self.path.clone().into_os_string();
        old.push("-old");
        let rename = |from: &OsStr, to: &OsStr| rustix::fs::rename(from, to);
        let target = self.target.as_os_str();
        let had_one = match rename(target, &old) {
            Ok(()) => true,
            Err(Errno::NOENT) => false,
            Err(error) => return Err(error),
        };
        rename(self.path.as_os_str(), target)?;
        if had_one {
            rename(&old, self.path.as_os_str())?;
        }
        Ok(())
    }
}

impl Drop for StagedDirectory {
    fn drop(&mut self) {
        remove_all(&self.path);
    }
}

/// Removes a directory with all in it, also directories that their owner may not write to.
fn remove_all(path: &Path) {
    if fs::remove_dir_all(path).is_ok() {
        return;
    }
    open_up(path);
    let _ = fs::remove_dir_all(path);
}

fn open_up(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if !fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()) {
        return;
    }
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        open_up(&entry.path());
    }
}

/// The directory that `target` is in, made if it is missing.
fn make_parent(target: &Path) -> Result<&Path, OutputError> {
    let parent = parent(target);
    fs::create_dir_all(parent).map_err(io_error("create", parent))?;
    Ok(parent)
}

fn parent(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn file_name(target: &Path) -> Result<&OsStr, OutputError> {
    target.file_name().ok_or_else(|| OutputError::InTheWay {
        path: target.into(),
        what: "a directory",
    })
}

/// A hidden name beside `target` that no other living process uses.
fn sibling(target: &Path, what: &str) -> Result<PathBuf, OutputError> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut name = sibling_prefix(file_name(target)?);
    name.push(format!("{what}-{}-{number}", std::process::id()));
    Ok(parent(target).join(name))
}

fn sibling_prefix(name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".immbuild-");
    prefix
}

fn remove_left_behind(target: &Path) {
    let Ok(name) = file_name(target) else {
        return;
    };
    let prefix = sibling_prefix(name);
    for entry in fs::read_dir(parent(target)).into_iter().flatten().flatten() {
        let ours = entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(prefix.as_encoded_bytes());
        if ours
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
            && is_left_behind(&entry.path())
        {
            remove_all(&entry.path());
        }
    }
}

/// Is there nobody who holds the lock, and was it made long enough ago that its maker is past locking it?
fn is_left_behind(path: &Path) -> bool {
    let Ok(directory) = open_directory(path) else {
        return false;
    };
    let idle = fs::metadata(path)
        .and_then(|meta| meta.modified())
        .is_ok_and(|time| time.elapsed().is_ok_and(|age| age.as_secs() >= 2));
    idle && rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok()
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn sync_parent(target: &Path) -> Result<(), OutputError> {
    let parent = parent(target);
    File::open(parent)
        .and_then(|directory| directory.sync_all())
        .map_err(io_error("sync", parent))
}
