//! `immbuild inspect IMAGE`: what an image says of itself, and every file in it.

use std::io::Read;
use std::sync::Arc;

use immbuild_cas::digest::{BlobId, Digest, DirectoryId, HashingReader};
use immbuild_cas::store::{
    BlobSource, DirectorySink, DirectorySource, MemoryStore, Record, Store, StoreError,
};
use immbuild_cas::tree::{Directory, Tree};

use super::failure::Failure;
use super::locate::{ImageAt, ImageDocuments};
use super::realise::IMAGE_MAX;
use crate::resolve::image::import_base;

/// The files of an image for one platform.
pub struct Files {
    /// Gives the directories of the tree.
    pub directories: Hashed,
    /// What the layers are together.
    pub tree: Tree,
}

/// Reads all layers of an image. Content is hashed and not kept.
pub fn files(at: &ImageAt<'_>, documents: &ImageDocuments) -> Result<Files, Failure> {
    let directories = Hashed::default();
    let tree = import_base(&documents.image, at, &directories, IMAGE_MAX)?.tree;
    Ok(Files { directories, tree })
}

/// A store that knows directories and the digests of blobs, and forgets what was in the blobs.
#[derive(Debug, Default)]
pub struct Hashed(MemoryStore);

impl BlobSource for Hashed {
    fn open(&self, id: &BlobId) -> Result<Box<dyn Read + Send + '_>, StoreError> {
        self.0.open(id)
    }
}

impl DirectorySource for Hashed {
    fn directory(&self, id: &DirectoryId) -> Result<Arc<Directory>, StoreError> {
        self.0.directory(id)
    }
}

impl DirectorySink for Hashed {
    fn put_directory(&self, directory: &Directory) -> Result<DirectoryId, StoreError> {
        self.0.put_directory(directory)
    }
}

impl Store for Hashed {
    fn has(&self, id: &BlobId) -> Result<bool, StoreError> {
        self.0.has(id)
    }

    fn put(&self, source: &mut dyn Read) -> Result<(BlobId, u64), StoreError> {
        let mut reader = HashingReader::new(source);
        std::io::copy(&mut reader, &mut std::io::sink()).map_err(|source| StoreError::Io {
            action: "read",
            path: "a layer".into(),
            source,
        })?;
        let (digest, size) = reader.finish();
        Ok((BlobId::new(digest), size))
    }

    fn record(&self, kind: &str, key: &Digest) -> Result<Option<Record>, StoreError> {
        self.0.record(kind, key)
    }

    fn put_record(&self, kind: &str, key: &Digest, record: &Record) -> Result<(), StoreError> {
        self.0.put_record(kind, key, record)
    }
}
