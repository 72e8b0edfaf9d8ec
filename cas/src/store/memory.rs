//! A store that lasts as long as its process: for tests, and for checks that should leave nothing behind.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{BlobSource, DirectorySink, DirectorySource, Record, Store, StoreError, read_error};
use crate::canonical::Canonical;
use crate::digest::{BlobId, Digest, DirectoryId};
use crate::tree::Directory;

/// Keeps everything in memory.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    blobs: BTreeMap<Digest, Arc<[u8]>>,
    records: BTreeMap<(String, Digest), Record>,
}

impl MemoryStore {
    /// A store with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one insertion, so a panic elsewhere leaves nothing half-done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn blob(&self, digest: &Digest) -> Result<Arc<[u8]>, StoreError> {
        self.state()
            .blobs
            .get(digest)
            .cloned()
            .ok_or(StoreError::Missing(*digest))
    }
}

impl BlobSource for MemoryStore {
    fn open(&self, id: &BlobId) -> Result<Box<dyn Read + Send + '_>, StoreError> {
        Ok(Box::new(std::io::Cursor::new(self.blob(id.digest())?)))
    }
}

impl DirectorySource for MemoryStore {
    fn directory(&self, id: &DirectoryId) -> Result<Arc<Directory>, StoreError> {
        let digest = *id.digest();
        Directory::decode_strict(&self.blob(&digest)?)
            .map(Arc::new)
            .map_err(|source| StoreError::Decode { digest, source })
    }
}

impl DirectorySink for MemoryStore {
    fn put_directory(&self, directory: &Directory) -> Result<DirectoryId, StoreError> {
        Ok(DirectoryId::new(
            *self.put_bytes(&directory.to_canonical())?.digest(),
        ))
    }
}

impl Store for MemoryStore {
    fn has(&self, id: &BlobId) -> Result<bool, StoreError> {
        Ok(self.state().blobs.contains_key(id.digest()))
    }

    fn put(&self, source: &mut dyn Read) -> Result<(BlobId, u64), StoreError> {
        let mut bytes = Vec::new();
        source
            .read_to_end(&mut bytes)
            .map_err(|error| read_error(&Digest::of(&bytes), error))?;
        let digest = Digest::of(&bytes);
        let length = bytes.len() as u64;
        self.state().blobs.entry(digest).or_insert(bytes.into());
        Ok((BlobId::new(digest), length))
    }

    fn record(&self, kind: &str, key: &Digest) -> Result<Option<Record>, StoreError> {
        Ok(self.state().records.get(&(kind.to_owned(), *key)).cloned())
    }

    fn put_record(&self, kind: &str, key: &Digest, record: &Record) -> Result<(), StoreError> {
        self.state()
            .records
            .insert((kind.to_owned(), *key), record.clone());
        Ok(())
    }
}
