//! The tree: a file system as a value.

mod directory;
mod links;
mod meta;

pub use directory::{Directory, DirectoryError, Entry, File, Special, SpecialKind, Symlink};
pub use links::{LinkGroups, LinksError};
pub use meta::{Meta, Mode, XattrName, Xattrs};

use crate::canonical::{Canonical, DecodeError, Decoder, Encoder};
use crate::digest::{DirectoryId, TreeId};

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
