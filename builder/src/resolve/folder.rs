//! A directory that is put together from paths in any order.

use std::collections::BTreeMap;

use immbuild_cas::digest::DirectoryId;
use immbuild_cas::path::{Name, PathError, RelPath};
use immbuild_cas::store::{DirectorySink, StoreError};
use immbuild_cas::tree::{Directory, DirectoryError, Entry, Meta, Mode};

/// Why an entry cannot be where it wants to be.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// Its path is none.
    #[error(transparent)]
    Path(#[from] PathError),
    /// No directory can hold it.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Another entry has this path.
    #[error("two entries have this path")]
    Twice,
    /// Its path leads through a file or link.
    #[error("what it is in is no directory")]
    Through,
}

/// A directory with all that is below it. Directories that only a path names are 0755 0:0.
pub(super) struct Folder {
    /// Set once, by the entry that describes the directory.
    meta: Option<Meta>,
    children: BTreeMap<Name, Child>,
}

enum Child {
    Folder(Folder),
    Entry(Entry),
}

impl Folder {
    pub(super) fn new() -> Self {
        Self {
            meta: None,
            children: BTreeMap::new(),
        }
    }

    /// Has it no entries?
    pub(super) fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    /// Puts an entry where there is none.
    pub(super) fn insert(&mut self, path: &RelPath, entry: Entry) -> Result<(), EntryError> {
        let (parent, name) = path.split_last().ok_or(EntryError::Twice)?;
        let folder = self.descend(&parent)?;
        match folder.children.insert(name, Child::Entry(entry)) {
            None => Ok(()),
            Some(_) => Err(EntryError::Twice),
        }
    }

    /// Describes a directory that may have been named by paths below it.
    pub(super) fn make_directory(&mut self, path: &RelPath, meta: Meta) -> Result<(), EntryError> {
        match self.descend(path)?.meta.replace(meta) {
            None => Ok(()),
            Some(_) => Err(EntryError::Twice),
        }
    }

    fn descend(&mut self, path: &RelPath) -> Result<&mut Self, EntryError> {
        let mut folder = self;
        for name in path.names() {
            let child = folder
                .children
                .entry(Name::new(name)?)
                .or_insert_with(|| Child::Folder(Self::new()));
            let Child::Folder(below) = child else {
                return Err(EntryError::Through);
            };
            folder = below;
        }
        Ok(folder)
    }

    /// Keeps the directory with all that is below it.
    ///
    /// # Errors
    /// An entry that no directory can hold, by the path it has, or what the sink says.
    pub(super) fn put(self, sink: &dyn DirectorySink) -> Result<DirectoryId, PutError> {
        self.put_at(&RelPath::root(), sink)
    }

    fn put_at(self, at: &RelPath, sink: &dyn DirectorySink) -> Result<DirectoryId, PutError> {
        let meta = self.meta.unwrap_or_else(|| Meta::root(Mode::DIRECTORY));
        let mut directory = Directory::new(meta);
        for (name, child) in self.children {
            let refuse = |source| PutError::Entry(at.clone(), source);
            let entry = match child {
                Child::Folder(folder) => {
                    let path = at.join(&name).map_err(|error| refuse(error.into()))?;
                    Entry::Directory(folder.put_at(&path, sink)?)
                }
                Child::Entry(entry) => entry,
            };
            directory
                .insert(name, entry)
                .map_err(|error| refuse(error.into()))?;
        }
        Ok(sink.put_directory(&directory)?)
    }
}

/// Why a folder is not kept.
pub(super) enum PutError {
    /// An entry in this directory.
    Entry(RelPath, EntryError),
    /// The store refused.
    Store(StoreError),
}

impl From<StoreError> for PutError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
