//! A blob whose writer hashes it itself.

use std::fs::File;
use std::io::{self, Write};

use super::LocalStore;
use super::files::TempFile;
use crate::digest::BlobId;
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

    /// The file of a large blob, if this very [`LocalStore`] wrote it: its bytes need not be hashed to be believed.
    pub fn own_file(&self, id: &BlobId) -> Result<Option<File>, StoreError> {
        let file = self.blob_file(id)?;
        Ok(file.filter(|file| self.is_as_written(id.digest(), file)))
    }
}

impl Incoming<'_> {
    /// Keeps what was written as the blob of this id. The caller vouches for the digest; a wrong one is found by the
    /// first reader in another process, as any damage is.
    pub fn keep(self, id: BlobId) -> Result<(), StoreError> {
        self.store.persist_hashed(&self.file, *id.digest())
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
