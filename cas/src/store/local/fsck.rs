//! Reading everything once, to find what is damaged before a build does.

use std::io::{self, Read};

use super::{CHUNK, LocalStore, list};
use crate::digest::{BlobId, Digest};
use crate::store::{BlobSource, StoreError, read_error};

/// What a check of the whole store found. What is damaged has been set aside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FsckReport {
    /// Objects that are what their digest says.
    pub objects: u64,
    /// Objects that are not, sorted.
    pub damaged: Vec<Digest>,
    /// Records and roots that are whole.
    pub records: u64,
    /// How many are not.
    pub damaged_records: u64,
    /// Indexes of packs that were wrong or missing and were made again. A killed writer leaves one; that loses nothing.
    pub indexes: u64,
    /// Directories of killed processes that were removed.
    pub stale: u64,
    /// Such directories that could not be removed.
    pub stale_left: u64,
}

impl FsckReport {
    /// Was everything whole?
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty() && self.damaged_records == 0
    }
}

impl LocalStore {
    /// Reads and checks every object and record, sets aside what is damaged, makes missing indexes, and removes what
    /// killed processes left. Others may use the store meanwhile; what they are just writing is not looked at.
    pub fn fsck(&self) -> Result<FsckReport, StoreError> {
        let mut report = FsckReport::default();
        // Everything is hashed, and what this value wrote too.
        self.written().clear();
        for (_, digest) in self.blob_paths()? {
            match self.check_blob(&digest) {
                Ok(()) => report.objects += 1,
                Err(StoreError::Damaged { digest }) => report.damaged.push(digest),
                // Somebody else found it damaged just now.
                Err(StoreError::Missing(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let packed = self.packs.check()?;
        report.objects += packed.objects;
        report.indexes = packed.indexes;
        for (digest, bytes) in packed.damaged {
            self.keep_damaged(&digest, &bytes)?;
            report.damaged.push(digest);
        }
        report.damaged.sort();
        let roots = list(&self.path.join("roots"))?;
        for path in self.record_paths()?.iter().chain(&roots) {
            match self.read_record(path)? {
                Some(_) => report.records += 1,
                None => report.damaged_records += 1,
            }
        }
        (report.stale, report.stale_left) = self.remove_stale()?;
        self.directories.clear();
        Ok(report)
    }

    fn check_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        let mut reader = self.open(&BlobId::new(*digest))?;
        let mut buffer = vec![0; CHUNK];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(read_error(digest, error)),
            }
        }
    }
}
