//! A blob whose writer hashes it itself.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::{MutexGuard, PoisonError};

use super::LocalStore;
use super::files::TempFile;
use crate::digest::{BlobId, Digest};
use crate::store::StoreError;

/// A blob that is being written. Gone when it is dropped without having been kept.
#[derive(Debug)]
pub struct Incoming<'a> {
    store: &'a LocalStore,
    file: TempFile,
}

impl LocalStore {
    /// Begins a blob whose digest the writer computes on the way, as a layer's is: it is not hashed twice.
    pub fn incoming(&self) -> Result<Incoming<'_>, StoreError> {
        Ok(Incoming {
            store: self,
            file: TempFile::make(self.workspace.private()?, 0o444)?,
        })
    }

    /// Was this blob written by this very [`LocalStore`], so that its bytes need not be hashed to be believed?
    pub fn wrote(&self, id: &BlobId) -> bool {
        self.vouched().contains(id.digest())
    }

    fn vouched(&self) -> MutexGuard<'_, BTreeSet<Digest>> {
        self.vouched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Incoming<'_> {
    /// Keeps what was written as the blob of this id. The caller vouches for the digest; a wrong one is found by the
    /// first reader, as any damage is.
    pub fn keep(self, id: BlobId) -> Result<(), StoreError> {
        self.file.persist(&self.store.blob_path(id.digest()))?;
        self.store.vouched().insert(*id.digest());
        Ok(())
    }
}

impl Write for Incoming<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
