//! A store that lives as long as one command: for trees that nobody will ask for again.

use std::path::PathBuf;

use immbuild_cas::store::{LocalStore, Scratch};

use super::failure::Failure;
use super::session::Session;

/// An empty directory below the store's `tmp`, removed at the end, or by the next collection if the process dies.
#[derive(Debug)]
pub struct ScratchPlace(Scratch);

impl ScratchPlace {
    /// Makes the directory.
    pub fn new(session: &Session<'_>, name: &str) -> Result<Self, Failure> {
        Ok(Self(session.store.scratch(name)?))
    }

    /// Where a store can be opened.
    pub fn store_path(&self) -> PathBuf {
        self.0.path().join("store")
    }

    /// Opens a store there. Drop it before the place.
    pub fn open(&self) -> Result<LocalStore, Failure> {
        Ok(LocalStore::open(&self.store_path())?)
    }
}
