//! The upper directory of a step, once it is ingested, made into the snapshot of what the step changed: without a copy.
//!
//! What is left is what [`Materialise::delta`](super::materialise::Materialise::delta) would write for the same trees:
//! nothing that was only touched, no opaque directory, no note of overlayfs, and the times of a materialised tree.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::os::fd::OwnedFd;
use std::path::Path;

use immbuild_cas::path::RelPath;
use immbuild_cas::tree::{Change, Delta};
use rustix::fs::{AtFlags, FileType, Mode, futimens, mknodat, unlinkat, utimensat};

use super::materialise::Times;
use super::owner::Owners;
use super::{HostFsError, join, shown, walk, xattr};

/// Makes the upper directory of a step into a snapshot of `delta`, which is what the step changed.
///
/// `owners` says where the step's owners are. Gives `false`, and has changed nothing, if something of `delta` is not there, so that it must be materialised instead.
pub fn seal_upper(
    upper: &Path,
    delta: &Delta,
    times: Times<'_>,
    owners: Owners,
) -> Result<bool, HostFsError> {
    let root = walk::open_root(upper)
        .map_err(|error| HostFsError::io("open", upper.display().to_string())(error))?;
    let seal = Seal {
        path: upper,
        root,
        delta,
        times,
        keeps_notes: owners == Owners::Noted,
    };
    let found = seal.list()?;
    let is_whole = delta.changes.iter().all(|(path, change)| {
        let kind = found.get(path);
        match change {
            Change::Remove => path
                .parent()
                .is_some_and(|parent| found.get(&parent) == Some(&FileType::Directory)),
            Change::Directory(_) => kind == Some(&FileType::Directory),
            Change::File(_) => kind == Some(&FileType::RegularFile),
            Change::Symlink(_) => kind == Some(&FileType::Symlink),
            Change::Special(_) => kind == Some(&FileType::Fifo),
        }
    });
    if is_whole {
        seal.apply(&found)?;
    }
    Ok(is_whole)
}

struct Seal<'a> {
    path: &'a Path,
    root: OwnedFd,
    delta: &'a Delta,
    times: Times<'a>,
    /// Of owners.
    keeps_notes: bool,
}

impl Seal<'_> {
    fn failed(
        &self,
        action: &'static str,
        path: &RelPath,
    ) -> impl FnOnce(io::Error) -> HostFsError {
        HostFsError::io(action, shown(self.path, path))
    }

    fn list(&self) -> Result<BTreeMap<RelPath, FileType>, HostFsError> {
        let mut found = BTreeMap::new();
        let mut waiting = vec![RelPath::root()];
        while let Some(path) = waiting.pop() {
            let listed = walk::open_directory(&self.root, name(&path))
                .and_then(walk::list)
                .map_err(self.failed("read", &path))?;
            for (name, kind) in listed {
                let path = join(self.path, &path, &name)?;
                if kind == FileType::Directory {
                    waiting.push(path);
                } else {
                    found.insert(path, kind);
                }
            }
            found.insert(path, FileType::Directory);
        }
        Ok(found)
    }

    /// Backwards, so that the time of a directory is set when nothing in it changes any more.
    fn apply(&self, found: &BTreeMap<RelPath, FileType>) -> Result<(), HostFsError> {
        for (path, change) in &self.delta.changes {
            if matches!(change, Change::Remove) {
                self.make_whiteout(path, found.get(path).copied())?;
            }
        }
        for (path, kind) in found.iter().rev() {
            let is_changed = match self.delta.changes.get(path) {
                None | Some(Change::Remove) => false,
                Some(_) => true,
            };
            match kind {
                FileType::Directory if is_changed || self.has_changes_below(path) => {
                    self.finish(path)?;
                }
                FileType::Directory => self.remove(path, AtFlags::REMOVEDIR)?,
                FileType::RegularFile if is_changed => self.finish(path)?,
                _ if is_changed => self.set_times(path)?,
                _ if self.delta.changes.contains_key(path) => {}
                _ => self.remove(path, AtFlags::empty())?,
            }
        }
        Ok(())
    }

    fn has_changes_below(&self, path: &RelPath) -> bool {
        if path.is_root() {
            return true;
        }
        let first = [path.as_bytes(), b"/"].concat();
        let after = (Bound::Included(&first[..]), Bound::Unbounded);
        let next = self.delta.changes.range::<[u8], _>(after).next();
        next.is_some_and(|(other, _)| other.as_bytes().starts_with(&first))
    }

    fn make_whiteout(&self, path: &RelPath, there: Option<FileType>) -> Result<(), HostFsError> {
        match there {
            Some(FileType::CharacterDevice) => return Ok(()),
            // A socket that took the place of what was removed.
            Some(_) => self.remove(path, AtFlags::empty())?,
            None => {}
        }
        let kind = FileType::CharacterDevice;
        mknodat(&self.root, name(path), kind, Mode::empty(), 0)
            .map_err(|error| self.failed("make", path)(error.into()))
    }

    fn remove(&self, path: &RelPath, flags: AtFlags) -> Result<(), HostFsError> {
        unlinkat(&self.root, name(path), flags)
            .map_err(|error| self.failed("remove", path)(error.into()))
    }

    /// Cleans a file or directory and sets its times.
    fn finish(&self, path: &RelPath) -> Result<(), HostFsError> {
        walk::open_file(&self.root, name(path))
            .and_then(|handle| {
                xattr::clean(&handle, self.keeps_notes)?;
                Ok(futimens(&handle, &self.times.of(path))?)
            })
            .map_err(self.failed("set times of", path))
    }

    fn set_times(&self, path: &RelPath) -> Result<(), HostFsError> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        utimensat(&self.root, name(path), &self.times.of(path), flags)
            .map_err(|error| self.failed("set times of", path)(error.into()))
    }
}

fn name(path: &RelPath) -> &[u8] {
    if path.is_root() {
        b"."
    } else {
        path.as_bytes()
    }
}
