//! The action cache: what an action gave, found again by its id.

use immbuild_cas::digest::{BlobId, Digest, TreeId};
use immbuild_cas::store::{Record, Store, StoreError};
use immbuild_cas::tree::Tree;

use crate::graph::action::ActionId;

/// Why the cache cannot be asked. A result that is damaged or gone is no error: it is made again.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Action id → tree.
#[derive(Clone, Copy)]
pub struct ActionCache<'a>(&'a dyn Store);

const KIND: &str = "action";

impl<'a> ActionCache<'a> {
    /// The cache kept in this store.
    pub fn new(store: &'a dyn Store) -> Self {
        Self(store)
    }

    /// The tree this action gave, if it is known and still there.
    pub fn get(&self, action: ActionId) -> Result<Option<TreeId>, CacheError> {
        let Some(record) = self.0.record(KIND, action.digest())? else {
            return Ok(None);
        };
        let Some(tree) = record.trees.first().copied() else {
            return Ok(None);
        };
        match self.0.tree(&tree) {
            Ok(_) => Ok(Some(tree)),
            Err(
                StoreError::Missing(_) | StoreError::Damaged { .. } | StoreError::Decode { .. },
            ) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps what this action gave, and the log of the process if there was one.
    pub fn put(
        &self,
        action: ActionId,
        tree: &Tree,
        log: Option<BlobId>,
    ) -> Result<TreeId, CacheError> {
        let id = self.0.put_tree(tree)?;
        let record = Record {
            value: Vec::new(),
            blobs: log.into_iter().collect(),
            trees: vec![id],
        };
        self.0.put_record(KIND, action.digest(), &record)?;
        Ok(id)
    }
}

/// A digest for the memo of something computed from these parts.
pub fn memo_key(kind: &str, parts: &[&[u8]]) -> Digest {
    let mut out = immbuild_cas::canonical::Encoder::default();
    out.str(kind);
    out.sequence(parts.iter(), |out, part| out.bytes(part));
    Digest::of(&out.into_bytes())
}
