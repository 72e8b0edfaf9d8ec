//! The action cache: what an action gave, found again by its id.

use immbuild_cas::canonical::{Decoder, Encoder};
use immbuild_cas::digest::{BlobId, Digest, TreeId};
use immbuild_cas::store::{Record, Store, StoreError};
use immbuild_cas::tree::Tree;

use super::tracer::evidence::Evidence;
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

/// What is kept beside a result, for who asks how it came about. Where one is gone, the result is as good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// What the process printed.
    pub log: Option<BlobId>,
    /// What it did that could have differed.
    pub evidence: Option<BlobId>,
}

impl Beside {
    fn named(self) -> impl Iterator<Item = (&'static str, BlobId)> {
        let all = [("log", self.log), ("evidence", self.evidence)];
        all.into_iter()
            .filter_map(|(name, blob)| Some((name, blob?)))
    }

    /// Names in the value, and in the same order what they name among the blobs.
    fn to_record(self, tree: TreeId) -> Record {
        let names: Vec<&str> = self.named().map(|(name, _)| name).collect();
        let mut value = Encoder::default();
        value.sequence(names.iter(), |out, name| out.str(name));
        Record {
            value: value.into_bytes(),
            blobs: self.named().map(|(_, blob)| blob).collect(),
            trees: vec![tree],
        }
    }

    /// What a record of another version says and this one does not know is left out.
    fn of_record(record: &Record) -> Self {
        let mut names = Decoder::over(&record.value);
        let mut beside = Self::default();
        if names.count().unwrap_or(0) != record.blobs.len() {
            return beside;
        }
        for blob in &record.blobs {
            match names.bytes() {
                Ok(b"log") => beside.log = Some(*blob),
                Ok(b"evidence") => beside.evidence = Some(*blob),
                Ok(_) => {}
                Err(_) => return Self::default(),
            }
        }
        beside
    }
}

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

    /// What was said when this action was done, if it is known.
    pub fn log(&self, action: ActionId) -> Result<Option<Vec<u8>>, CacheError> {
        let Some(blob) = self.beside(action)?.log else {
            return Ok(None);
        };
        match self.0.read(&blob) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StoreError::Missing(_) | StoreError::Damaged { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What the process of this action did, if it is known.
    pub fn evidence(&self, action: ActionId) -> Result<Option<Evidence>, CacheError> {
        let Some(blob) = self.beside(action)?.evidence else {
            return Ok(None);
        };
        match self.0.read(&blob) {
            Ok(bytes) => Ok(Evidence::decode(&bytes).ok()),
            Err(StoreError::Missing(_) | StoreError::Damaged { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What is kept beside the result of this action.
    pub fn beside(&self, action: ActionId) -> Result<Beside, CacheError> {
        let record = self.0.record(KIND, action.digest())?;
        Ok(record.map_or_else(Beside::default, |record| Beside::of_record(&record)))
    }

    /// Keeps what this action gave, and what belongs to it.
    pub fn put(&self, action: ActionId, tree: &Tree, beside: Beside) -> Result<TreeId, CacheError> {
        let id = self.0.put_tree(tree)?;
        self.0
            .put_record(KIND, action.digest(), &beside.to_record(id))?;
        Ok(id)
    }
}

/// A digest for the memo of something computed from these parts.
pub fn memo_key(kind: &str, parts: &[&[u8]]) -> Digest {
    let mut out = Encoder::default();
    out.str(kind);
    out.sequence(parts.iter(), |out, part| out.bytes(part));
    Digest::of(&out.into_bytes())
}

#[cfg(test)]
mod tests {
    use immbuild_cas::canonical::Canonical as _;
    use immbuild_cas::store::{BlobSource as _, MemoryStore};
    use immbuild_cas::tree::tree_of_listing;

    use super::*;
    use crate::exec::tracer::evidence::Process;

    fn evidence() -> Evidence {
        Evidence {
            processes: vec![Process {
                argv: vec![b"uuidgen".to_vec()],
                ..Process::default()
            }],
            ..Evidence::default()
        }
    }

    #[test]
    fn what_is_beside_a_result_is_told_apart() {
        let store = MemoryStore::default();
        let tree = tree_of_listing("f 0644 0:0 /a \"a\"", &store).unwrap();
        let log = store.put_bytes(b"it said so").unwrap();
        let kept = store.put_bytes(&evidence().to_canonical()).unwrap();
        let cache = ActionCache::new(&store);
        for (number, log, kept) in [
            (0, None, None),
            (1, Some(log), None),
            (2, None, Some(kept)),
            (3, Some(log), Some(kept)),
        ] {
            let action = ActionId::new(Digest::of(&[number]));
            let beside = Beside {
                log,
                evidence: kept,
            };
            let id = cache.put(action, &tree, beside).unwrap();
            assert_eq!(cache.get(action).unwrap(), Some(id));
            assert_eq!(
                cache.evidence(action).unwrap(),
                kept.map(|_| evidence()),
                "{number}"
            );
            let record = store.record(KIND, action.digest()).unwrap().unwrap();
            assert_eq!(Beside::of_record(&record), beside);
        }
        assert!(store.read(&log).is_ok());
    }

    #[test]
    fn a_result_of_an_earlier_version_has_nothing_beside_it() {
        let id = BlobId::new(Digest::of(b"log"));
        let record = Record {
            blobs: vec![id],
            ..Record::default()
        };
        assert_eq!(Beside::of_record(&record), Beside::default());
    }
}
