//! The tree: a file system as a value.

mod builder;
pub mod bundle;
mod delta;
mod directory;
mod links;
mod listing;
mod meta;
mod walk;

#[cfg(test)]
mod tests;

pub use builder::{EntryKind, TreeBuilder};
pub use delta::{Change, Delta, apply, delta};
pub use directory::{
    Directory, DirectoryError, Entry, File, Special, SpecialKind, Symlink, TARGET_MAX,
};
pub use links::{LinkGroups, LinksError};
pub use listing::{ListingError, delta_listing, to_listing, tree_of_listing};
pub use meta::{Meta, Mode, XattrName, Xattrs, capability_v2};
pub use walk::{Visit, entry_at, walk};

use crate::canonical::{Canonical, DecodeError, Decoder, Encoder};
use crate::digest::{DirectoryId, TreeId};
use crate::path::{Name, PathError, RelPath};
use crate::store::StoreError;

/// Why a tree cannot be read or edited so.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// There is nothing at this path.
    #[error("`{0}` does not exist")]
    Missing(RelPath),
    /// Something must be in or below this path, and it is no directory.
    #[error("`{0}` is not a directory")]
    NotADirectory(RelPath),
    /// A directory cannot be a hard link.
    #[error("`{0}` is a directory")]
    IsADirectory(RelPath),
    /// The root is always there, and a directory.
    #[error("the root can be neither removed nor replaced")]
    Root,
    /// The directory was edited, so it has no id before the tree is sealed.
    #[error("`{0}` was edited and has no id yet")]
    Unsealed(RelPath),
    /// No directory can hold this entry.
    #[error("cannot put an entry at `{path}`")]
    Entry {
        /// Where it should go.
        path: RelPath,
        /// What is wrong with it.
        source: DirectoryError,
    },
    /// A path gets too long.
    #[error("`{name}` cannot be below `{directory}`")]
    Path {
        /// The directory.
        directory: RelPath,
        /// What is in it, or should be.
        name: RelPath,
        /// Why not.
        source: PathError,
    },
    /// A hard link group names a path that is no file, link or special file of this tree, or names it twice.
    #[error("`{0}` is in a hard link group and cannot be")]
    Links(RelPath),
    /// A directory cannot be read from the store, or not kept there.
    #[error("cannot read or keep the directory `{path}`")]
    Store {
        /// The path of the directory.
        path: RelPath,
        /// What the store says.
        source: StoreError,
    },
}

/// The entry `name` in `directory`.
fn join(directory: &RelPath, name: &Name) -> Result<RelPath, TreeError> {
    directory.join(name).map_err(|source| TreeError::Path {
        directory: directory.clone(),
        name: RelPath::new(name.as_bytes()).expect("a name is a path"),
        source,
    })
}

/// The path `below` seen from `directory`.
fn join_path(directory: &RelPath, below: &RelPath) -> Result<RelPath, TreeError> {
    directory
        .join_path(below)
        .map_err(|source| TreeError::Path {
            directory: directory.clone(),
            name: below.clone(),
            source,
        })
}

/// A root directory, all it reaches, and which of its paths are one file (hard links).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The root directory.
    pub root: DirectoryId,
    /// Which paths share one inode.
    pub links: LinkGroups,
}

impl Tree {
    /// A tree without hard links.
    pub fn new(root: DirectoryId) -> Self {
        Self {
            root,
            links: LinkGroups::default(),
        }
    }

    /// The id: digest of the canonical encoding.
    pub fn id(&self) -> TreeId {
        TreeId::new(self.canonical_digest())
    }

    /// Reads a canonical encoding and nothing else.
    pub fn decode_strict(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new::<Self>(bytes)?;
        let root = DirectoryId::new(decoder.digest()?);
        let links = LinkGroups::decode(&mut decoder)?;
        decoder.finish()?;
        Ok(Self { root, links })
    }
}

impl Canonical for Tree {
    const TAG: &'static str = "tree";
    const VERSION: u32 = 1;

    fn encode_fields(&self, out: &mut Encoder) {
        out.digest(self.root.digest());
        self.links.encode(out);
    }
}
