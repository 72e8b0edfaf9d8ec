//! Trees from directories of this machine, and directories from trees.
//!
//! Effects on the file system live here: [`scan`] and [`ingest`] read, [`materialise`] writes. May use `cas` and system
//! calls relative to directory handles, so that no path is too long and no link is followed. Must never know specs,
//! graphs, layers or processes.

pub mod ingest;
pub mod materialise;
pub mod origins;
pub mod owner;
mod pool;
pub mod scan;
pub mod seal;
pub mod stat_cache;
mod walk;
pub mod xattr;

#[cfg(test)]
mod overlay_tests;

use std::io;
use std::path::Path;

use immbuild_cas::path::{Name, PathError, RelPath, escape};
use immbuild_cas::store::StoreError;
use immbuild_cas::tree::{DirectoryError, LinksError};

use crate::pattern::PatternError;

/// Why a directory cannot be read as a tree, or a tree not be written as a directory.
#[derive(Debug, thiserror::Error)]
pub enum HostFsError {
    /// The system refused.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// Where.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The file was written to, or replaced, while it was read.
    #[error("`{path}` changed while it was being read")]
    Changed {
        /// The file.
        path: String,
    },
    /// A socket, pipe or device where there may be none.
    #[error("`{path}` is {kind}, which cannot be part of an image")]
    Kind {
        /// The file.
        path: String,
        /// `a socket`, `a device`, …
        kind: &'static str,
    },
    /// A path below a root that is too long for any image.
    #[error("`{path}` cannot be named in an image")]
    Path {
        /// As far as it can be said.
        path: String,
        /// What is wrong with it.
        source: PathError,
    },
    /// An entry that no directory of an image can hold.
    #[error("`{path}` cannot be part of an image")]
    Entry {
        /// The directory it is in.
        path: String,
        /// What is wrong with it.
        source: DirectoryError,
    },
    /// An attribute by which overlayfs speaks to itself, in a place or form that overlayfs did not write.
    #[error(
        "`{path}` has the attribute `{name}`, which is not part of an image and was not written by overlayfs"
    )]
    Overlay {
        /// The entry.
        path: String,
        /// The attribute.
        name: String,
    },
    /// An owner that this user cannot give to a file.
    #[error("`{path}` belongs to {uid}:{gid}; only ids up to {highest} can be given here")]
    Owner {
        /// The entry.
        path: String,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
        /// The highest id that can be given.
        highest: u32,
    },
    /// Two names that are one on file systems that ignore case.
    #[error("`{first}` and `{second}` differ only by case")]
    Case {
        /// The first in order.
        first: String,
        /// The other.
        second: String,
    },
    /// An ignore file that cannot be read as one.
    #[error("`{path}` is no list of patterns")]
    Pattern {
        /// The ignore file.
        path: String,
        /// What is wrong with it.
        source: PatternError,
    },
    /// A path was found twice.
    #[error(transparent)]
    Links(#[from] LinksError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl HostFsError {
    /// The system refused to `action` what is at `path`, with an error of `rustix` or `std`.
    fn io(action: &'static str, path: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// A path of the host below `root`, as messages show it.
fn shown(root: &Path, below: &RelPath) -> String {
    let mut text = root.display().to_string();
    if !below.is_root() {
        if !text.ends_with('/') {
            text.push('/');
        }
        escape(below.as_bytes(), &mut text).expect("writing to a string cannot fail");
    }
    text
}

/// `name` in `directory` below `root`, or the error that says it is too long.
fn join(root: &Path, directory: &RelPath, name: &Name) -> Result<RelPath, HostFsError> {
    directory.join(name).map_err(|source| HostFsError::Path {
        path: shown(root, directory),
        source,
    })
}
