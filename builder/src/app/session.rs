//! What every use case works with: the store, whoever is told, and what was asked for once for all commands.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use immbuild_cas::store::LocalStore;

use super::failure::Failure;
use crate::exec::sandbox::IdMap;
use crate::ports::Events;

/// What a process was started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Directory of the store.
    pub store: PathBuf,
    /// Ask nothing of any network.
    pub offline: bool,
    /// How many things to do at once.
    pub threads: NonZeroUsize,
    /// Which ids steps can have here.
    pub ids: IdMap,
    /// `SOURCE_DATE_EPOCH` of the process, which only locking may read.
    pub source_date_epoch: Option<String>,
    /// When the process began, in seconds and nanoseconds since 1970: tells which files were touched too shortly ago for
    /// their times to be trusted. Reaches no byte of any image.
    pub started: (i64, u32),
}

/// An open store and those settings.
pub struct Session<'a> {
    /// What was asked for.
    pub settings: &'a Settings,
    /// Where everything is kept.
    pub store: LocalStore,
    /// Is told what goes on.
    pub events: &'a dyn Events,
    /// Set when the process is asked to stop.
    pub cancel: &'a AtomicBool,
}

impl<'a> Session<'a> {
    /// Opens the store.
    pub fn open(
        settings: &'a Settings,
        events: &'a dyn Events,
        cancel: &'a AtomicBool,
    ) -> Result<Self, Failure> {
        Ok(Self {
            store: LocalStore::open(&settings.store)?,
            settings,
            events,
            cancel,
        })
    }

    /// Where bare repositories are kept; what is in it can be deleted at any time.
    pub fn git_cache(&self) -> PathBuf {
        self.store.path().join("git")
    }
}
