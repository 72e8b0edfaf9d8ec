//! Snapshots: materialised trees, kept so that a step can mount them instead of making them.
//!
//! `snapshots/<hex>/root` is the tree, `snapshots/<hex>/boot` says in which run of the machine it was made. Both come with
//! one rename. A snapshot is neither checked when it is used nor synced when it is made, so after a start of the
//! machine nobody can say that it is whole: then it is as good as none.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::files::{Scratch, failed, found};
use super::{LocalStore, touch};
use crate::digest::Digest;
use crate::store::StoreError;

/// Names the present run of the machine, which does not end before this process.
fn boot_id() -> Result<&'static [u8], StoreError> {
    static ID: OnceLock<Vec<u8>> = OnceLock::new();
    if let Some(id) = ID.get() {
        return Ok(id);
    }
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let id = fs::read(path).map_err(failed("read", path))?;
    Ok(ID.get_or_init(|| id))
}

/// Is the snapshot in this directory whole?
pub(super) fn is_current(directory: &Path) -> Result<bool, StoreError> {
    let path = directory.join("boot");
    let boot = found(fs::read(&path)).map_err(failed("read", &path))?;
    Ok(boot.as_deref() == Some(boot_id()?))
}

impl LocalStore {
    pub(super) fn snapshot_path(&self, key: &Digest) -> PathBuf {
        self.path.join("snapshots").join(key.to_hex())
    }

    /// The materialised tree of this key, if there is one. It stays as long as this store is open. It MUST NOT be
    /// written to.
    pub fn snapshot(&self, key: &Digest) -> Result<Option<PathBuf>, StoreError> {
        let directory = self.snapshot_path(key);
        if !is_current(&directory)? {
            return Ok(None);
        }
        touch(&directory.join("boot"));
        Ok(Some(directory.join("root")))
    }

    /// Makes a scratch directory the snapshot of this key and gives the path of its tree. When another process was
    /// faster, its snapshot is the one.
    pub fn publish_snapshot(&self, key: &Digest, tree: Scratch) -> Result<PathBuf, StoreError> {
        let wrapper = self.scratch("snapshot")?;
        let root = wrapper.path().join("root");
        tree.persist(&root)?;
        let boot = wrapper.path().join("boot");
        fs::write(&boot, boot_id()?).map_err(failed("write", &boot))?;

        let directory = self.snapshot_path(key);
        let all = self.path.join("snapshots");
        let lock = File::open(&all).map_err(failed("open", &all))?;
        lock.lock().map_err(failed("lock", &all))?;
        match fs::rename(wrapper.path(), &directory) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                ) =>
            {
                if !is_current(&directory)? {
                    self.workspace.remove(&directory)?;
                    fs::rename(wrapper.path(), &directory).map_err(failed("write", &directory))?;
                }
            }
            result => result.map_err(failed("write", &directory))?,
        }
        Ok(directory.join("root"))
    }
}
