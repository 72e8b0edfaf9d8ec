//! What keeps blobs, directories and trees, and finds them by digest.
//!
//! Directories and trees are blobs in their canonical encoding: `DirectoryId`, `TreeId` and `BlobId` of one object have
//! the same digest. A read by digest has one possible value or fails.

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod local;
mod memory;

pub use local::{Count, FsckReport, GcReport, Incoming, LocalStore, Scratch, Stat};
pub use memory::MemoryStore;

use std::io::{self, Read};
use std::sync::Arc;

use crate::canonical::{Canonical, DecodeError};
use crate::digest::{BlobId, Digest, DirectoryId, MismatchError, TreeId};
use crate::tree::{Directory, Tree};

/// Why a store cannot give or take something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing of this digest is here.
    #[error("{0} is not in the store")]
    Missing(Digest),
    /// What is here under this digest has other bytes. It was set aside, so that it can be made again.
    #[error("{digest} is damaged in the store")]
    Damaged {
        /// The digest it is stored by.
        digest: Digest,
    },
    /// The bytes have the right digest and are no directory or tree.
    #[error("{digest} is not what it is asked for as")]
    Decode {
        /// The digest of the object.
        digest: Digest,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The content came from outside the store and changed after it was hashed.
    #[error("`{path}` changed while it was being read")]
    Changed {
        /// The file, as the user knows it.
        path: String,
    },
    /// The store belongs to somebody else.
    #[error("the store `{path}` belongs to user {owner}, not to user {user}")]
    Owner {
        /// Directory of the store.
        path: String,
        /// Who owns it.
        owner: u32,
        /// Who asks.
        user: u32,
    },
    /// The store was written by another version in a form unknown here.
    #[error("the store `{path}` has form `{found}`, this version knows `{known}`")]
    Form {
        /// Directory of the store.
        path: String,
        /// What stands in its form file.
        found: String,
        /// What this version writes.
        known: String,
    },
    /// Garbage can only be collected while nobody else uses the store.
    #[error("the store `{path}` is in use by another process")]
    Busy {
        /// Directory of the store.
        path: String,
    },
    /// The file system refused.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// Where.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Gives blobs by digest.
pub trait BlobSource: Send + Sync {
    /// Opens a blob. The reader MUST be read to its end: the last read fails when the bytes were not the right ones,
    /// unless it is known already that they are.
    fn open(&self, id: &BlobId) -> Result<Box<dyn Read + Send + '_>, StoreError>;

    /// The whole blob, checked.
    fn read(&self, id: &BlobId) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        self.open(id)?
            .read_to_end(&mut bytes)
            .map_err(|error| read_error(id.digest(), error))?;
        Ok(bytes)
    }
}

/// What an error of a blob's reader means.
pub fn read_error(digest: &Digest, error: io::Error) -> StoreError {
    if MismatchError::of(&error).is_some() {
        return StoreError::Damaged { digest: *digest };
    }
    match error.downcast::<StoreError>() {
        Ok(error) => error,
        Err(source) => StoreError::Io {
            action: "read",
            path: digest.to_string(),
            source,
        },
    }
}

/// Gives directories by id.
pub trait DirectorySource: Send + Sync {
    /// The directory of this id, decoded strictly.
    fn directory(&self, id: &DirectoryId) -> Result<Arc<Directory>, StoreError>;
}

/// Takes directories.
pub trait DirectorySink: Send + Sync {
    /// Keeps a directory. Idempotent.
    fn put_directory(&self, directory: &Directory) -> Result<DirectoryId, StoreError>;
}

/// A memo of something that was computed: found again by kind and key, checked when read, dropped when what it
/// speaks of is gone. A record that cannot be read is as good as none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// What the writer wants to find again. The store does not look inside.
    pub value: Vec<u8>,
    /// Objects that must stay as long as the record does.
    pub blobs: Vec<BlobId>,
    /// Trees that must stay, with all they reach, as far as it is in the store.
    pub trees: Vec<TreeId>,
}

/// Keeps blobs, directories, trees and records.
pub trait Store: BlobSource + DirectorySource + DirectorySink {
    /// Is a blob of this digest here?
    fn has(&self, id: &BlobId) -> Result<bool, StoreError>;

    /// Keeps what is read from `source` and says its id and length. Idempotent; nothing is visible before it is whole.
    fn put(&self, source: &mut dyn Read) -> Result<(BlobId, u64), StoreError>;

    /// Keeps these bytes.
    fn put_bytes(&self, bytes: &[u8]) -> Result<BlobId, StoreError> {
        Ok(self.put(&mut &bytes[..])?.0)
    }

    /// Keeps a tree object. Idempotent.
    fn put_tree(&self, tree: &Tree) -> Result<TreeId, StoreError> {
        Ok(TreeId::new(*self.put_bytes(&tree.to_canonical())?.digest()))
    }

    /// The tree of this id, decoded strictly.
    fn tree(&self, id: &TreeId) -> Result<Tree, StoreError> {
        let digest = *id.digest();
        Tree::decode_strict(&self.read(&BlobId::new(digest))?)
            .map_err(|source| StoreError::Decode { digest, source })
    }

    /// The record of this kind (`[a-z-]+`) and key, if there is a readable one.
    fn record(&self, kind: &str, key: &Digest) -> Result<Option<Record>, StoreError>;

    /// Keeps a record and replaces the one that was there.
    fn put_record(&self, kind: &str, key: &Digest, record: &Record) -> Result<(), StoreError>;
}
