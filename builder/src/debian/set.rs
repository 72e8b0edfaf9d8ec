//! The packages of a source as one tree: a directory with the decoded form of each, several decoded at once.
//!
//! Must never know where packages come from: they are in the store by digest.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use immbuild_cas::digest::BlobId;
use immbuild_cas::path::RelPath;
use immbuild_cas::store::{Store, StoreError};
use immbuild_cas::tree::{Meta, Mode, Tree, TreeBuilder, TreeError};

use super::deb::{self, Deb, DebError};
use super::package::{Package, PackageError};
use crate::graph::install::PackagePin;
use crate::layer::Dropped;

/// Why packages do not become a tree.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// One of them is refused.
    #[error("the package `{package}` {version} is refused")]
    Package {
        /// Its name.
        package: String,
        /// Its version.
        version: String,
        /// Why.
        source: DebError,
    },
    /// One of them has no readable control file.
    #[error(transparent)]
    Control(#[from] PackageError),
    /// One of them is another than it was locked as.
    #[error("the package locked as `{locked}` says that it is `{found}`")]
    Other {
        /// Name, version and architecture as they are locked.
        locked: String,
        /// The same as the package has them.
        found: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tree could not be made.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// What is needed to decode packages.
#[allow(missing_debug_implementations, reason = "holds trait objects")]
pub struct Assembly<'a> {
    /// Where packages are, and their contents go.
    pub store: &'a dyn Store,
    /// How many are decoded at once.
    pub threads: NonZeroUsize,
    /// Is told how many bytes of packages are done.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// The packages of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// A directory for each.
    pub tree: Tree,
    /// What their archives say that no image keeps, by package.
    pub dropped: Vec<(String, Dropped)>,
}

impl Assembly<'_> {
    /// Decodes packages, each with its length, and checks that they are what they are locked as.
    ///
    /// # Errors
    /// One of them is not in the store, is refused, or is another.
    pub fn assemble(&self, packages: &[(PackagePin, u64)]) -> Result<Set, SetError> {
        let decoded = self.decode(packages)?;
        let mut tree = TreeBuilder::new(self.store, Meta::root(Mode::DIRECTORY));
        let mut dropped = Vec::new();
        for ((pin, _), deb) in packages.iter().zip(decoded) {
            let name = set_name(pin);
            let path = RelPath::new(name.as_bytes()).map_err(|source| TreeError::Path {
                directory: RelPath::root(),
                name: RelPath::root(),
                source,
            })?;
            tree.graft(&path, deb.tree.root, &deb.tree.links)?;
            dropped.extend(deb.dropped.into_iter().map(|it| (pin.name.clone(), it)));
        }
        let tree = tree.seal(self.store)?;
        Ok(Set { tree, dropped })
    }

    /// The largest first, so that no thread begins a large one when the others are done.
    fn decode(&self, packages: &[(PackagePin, u64)]) -> Result<Vec<Deb>, SetError> {
        let mut order: Vec<usize> = (0..packages.len()).collect();
        order.sort_by_key(|nth| (std::cmp::Reverse(packages[*nth].1), *nth));
        let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
        let decoded: Mutex<Vec<Option<Result<Deb, SetError>>>> =
            Mutex::new(packages.iter().map(|_| None).collect());
        let work = || {
            while let Some(nth) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                let (pin, size) = &packages[*nth];
                let result = self.one(pin);
                let is_over = result.is_err();
                decoded.lock().unwrap_or_else(PoisonError::into_inner)[*nth] = Some(result);
                if is_over {
                    next.store(order.len(), Ordering::Relaxed);
                }
                (self.progress)(done.fetch_add(*size, Ordering::Relaxed) + size);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.threads.get().min(packages.len().max(1)) {
                scope.spawn(work);
            }
            work();
        });
        let decoded = decoded.into_inner().unwrap_or_else(PoisonError::into_inner);
        // What was not begun comes only with an error before it or behind it.
        let (errors, debs): (Vec<_>, Vec<_>) =
            decoded.into_iter().flatten().partition(Result::is_err);
        match errors.into_iter().next() {
            Some(Err(error)) => Err(error),
            _ => debs.into_iter().collect(),
        }
    }

    fn one(&self, pin: &PackagePin) -> Result<Deb, SetError> {
        let blob = BlobId::new(pin.sha256);
        let deb = deb::decode(&blob, self.store).map_err(|error| match error {
            DebError::Store(error) => SetError::Store(error),
            source => SetError::Package {
                package: pin.name.clone(),
                version: pin.version.clone(),
                source,
            },
        })?;
        let package = Package::read(&pin.name, deb.tree.root, &deb.tree.links, self.store)?;
        let locked = [&*pin.name, &*pin.version, &*pin.arch];
        let found = [package.name(), package.version(), package.arch()];
        if locked != found {
            return Err(SetError::Other {
                locked: locked.join(" "),
                found: found.join(" "),
            });
        }
        Ok(deb)
    }
}

/// The name a package has in a set.
fn set_name(pin: &PackagePin) -> String {
    format!("{}_{}", pin.name, pin.arch)
}
