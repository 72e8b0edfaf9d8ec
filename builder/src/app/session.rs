//! What every use case works with: the store, whoever is told, and what was asked for once for all commands.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use immbuild_cas::store::LocalStore;

use super::failure::Failure;
use super::shared::Sharing;
use crate::cargo::places::CargoPlaces;
use crate::debian::sources::UserMirrors;
use crate::exec::sandbox::IdMap;
use crate::ports::Events;
use crate::python::places::IndexPlaces;
use crate::registry::{Access, Client, Patience};
use crate::resolve::git;

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
    /// `GIT_SSH_COMMAND` of the process: how repositories behind `ssh` are reached.
    pub ssh: Option<String>,
    /// `SOURCE_DATE_EPOCH` of the process, which only locking may read.
    pub source_date_epoch: Option<String>,
    /// What of this machine locking and fetching packages look at.
    pub host: Host,
    /// When the process began, in seconds and nanoseconds since 1970: tells which files were touched too shortly ago for
    /// their times to be trusted. Reaches no byte of any image.
    pub started: (i64, u32),
}

/// What of this machine says where packages are and who signs them. Reaches no byte of any image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Where apt's configuration is.
    pub apt: PathBuf,
    /// Where keyrings are.
    pub keyrings: PathBuf,
    /// Where the user says archives are.
    pub mirrors: UserMirrors,
    /// Where packages of Python are.
    pub python: IndexPlaces,
    /// Where crates are.
    pub cargo: CargoPlaces,
    /// How registries are reached.
    pub registries: Access,
    /// Who is believed about results of steps.
    pub sharing: Sharing,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            apt: "/etc/apt".into(),
            keyrings: "/usr/share/keyrings".into(),
            mirrors: UserMirrors::new(),
            python: IndexPlaces::default(),
            cargo: CargoPlaces::default(),
            registries: Access::default(),
            sharing: Sharing::default(),
        }
    }
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
    /// Where bare repositories are kept; what is in it can be deleted at any time.
    git: PathBuf,
    /// Directories that are no part of any source: the store, and for a rebuild the one it takes place in.
    stores: Vec<PathBuf>,
}

impl<'a> Session<'a> {
    /// Opens the store.
    pub fn open(
        settings: &'a Settings,
        events: &'a dyn Events,
        cancel: &'a AtomicBool,
    ) -> Result<Self, Failure> {
        let store = LocalStore::open(&settings.store)?;
        Ok(Self {
            git: store.path().join("git"),
            stores: vec![real_path(&store)?],
            store,
            settings,
            events,
            cancel,
        })
    }

    /// Opens another store for a while, inside the directory of this one.
    ///
    /// Repositories are shared, as what is read from them is named by its digest.
    pub fn inside<'b>(&'b self, settings: &'b Settings) -> Result<Session<'b>, Failure> {
        let mut inner = Session::open(settings, self.events, self.cancel)?;
        inner.git.clone_from(&self.git);
        inner.stores.extend_from_slice(&self.stores);
        Ok(inner)
    }

    /// Where bare repositories are kept.
    pub fn git_cache(&self) -> PathBuf {
        self.git.clone()
    }

    /// Directories that are no part of any source.
    pub fn stores(&self) -> &[PathBuf] {
        &self.stores
    }

    /// Asks registries.
    pub fn registries(&self) -> Client<'_> {
        Client::new(
            &self.settings.host.registries,
            Patience::default(),
            self.cancel,
        )
    }

    /// What fetching from a repository may use.
    pub fn git_means<'b>(&self, cache: &'b Path) -> git::Means<'b> {
        git::Means {
            cache,
            offline: self.settings.offline,
        }
    }
}

/// The store's directory without symbolic links, as a walk over sources meets it.
fn real_path(store: &LocalStore) -> Result<PathBuf, Failure> {
    std::fs::canonicalize(store.path())
        .map_err(|error| super::project::io_failure("find", store.path(), &error))
}
