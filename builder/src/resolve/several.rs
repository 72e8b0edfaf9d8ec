//! EFFECT: brings several files into the store, each known by its digest and from places of its own.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use immbuild_cas::digest::{BlobId, Digest};
use immbuild_cas::store::{Store, StoreError};

use super::http::{Fetcher, HttpError, Request};

/// Most connections at once: places are shared with others.
const CONNECTIONS: usize = 4;

/// A file that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What people call it.
    pub label: String,
    /// Digest of its bytes.
    pub sha256: Digest,
    /// How many, where that is known.
    pub size: Option<u64>,
    /// Where it is, in the order that is tried.
    pub urls: Vec<String>,
}

/// Why files were not fetched.
#[derive(Debug, thiserror::Error)]
pub enum SeveralError {
    /// The network is off: all that is missing.
    #[error("{} not in the store, and the network is off: {}", count(missing.len()), missing.join(", "))]
    Offline {
        /// What each is called, with its digest.
        missing: Vec<String>,
    },
    /// Some were not fetched.
    #[error("{} not fetched: {}", count(failed.len()), failures(failed))]
    Failed {
        /// What each is called, with why.
        failed: Vec<(String, HttpError)>,
    },
    /// The store refused.
    #[error("cannot use the store")]
    Store(#[from] StoreError),
}

fn count(number: usize) -> String {
    match number {
        1 => "1 file is".to_owned(),
        _ => format!("{number} files are"),
    }
}

fn failures(failed: &[(String, HttpError)]) -> String {
    let all: Vec<String> = failed
        .iter()
        .map(|(label, error)| format!("{label}: {error}"))
        .collect();
    all.join("; ")
}

/// How files are fetched.
pub struct Means<'a> {
    /// Ask nothing of the network.
    pub offline: bool,
    /// Takes what is fetched.
    pub store: &'a dyn Store,
    /// Does it.
    pub fetcher: &'a Fetcher,
    /// How many at once, but never more than four.
    pub threads: NonZeroUsize,
    /// Set to stop.
    pub cancel: &'a AtomicBool,
    /// Told how many bytes arrived in all.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// Those that are not in the store.
///
/// # Errors
/// The store failed.
pub fn missing<'w>(wanted: &'w [Wanted], store: &dyn Store) -> Result<Vec<&'w Wanted>, StoreError> {
    let mut missing = Vec::new();
    for one in wanted {
        if !store.has(&BlobId::new(one.sha256))? {
            missing.push(one);
        }
    }
    Ok(missing)
}

/// Brings files into the store, the greatest first. What is there already is not fetched; without a network, everything that
/// is missing is told at once.
///
/// # Errors
/// One of them was not fetched.
pub fn fetch(wanted: &[Wanted], means: &Means<'_>) -> Result<(), SeveralError> {
    let mut missing = missing(wanted, means.store)?;
    // What is a file of this machine needs no network.
    let is_here = |one: &&&Wanted| one.urls.iter().any(|url| url.starts_with("file:"));
    let away: Vec<String> = missing
        .iter()
        .filter(|one| means.offline && !is_here(one))
        .map(|one| format!("{} ({})", one.label, one.sha256))
        .collect();
    if !away.is_empty() {
        return Err(SeveralError::Offline { missing: away });
    }
    missing.sort_by_key(|one| std::cmp::Reverse(one.size));
    let (next, arrived) = (AtomicUsize::new(0), AtomicU64::new(0));
    let failed = Mutex::new(Vec::new());
    let worker = || {
        while !means.cancel.load(Ordering::Relaxed) {
            let Some(one) = missing.get(next.fetch_add(1, Ordering::Relaxed)) else {
                return;
            };
            if let Err(error) = file(one, means, &arrived) {
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.push((one.label.clone(), error));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..means
            .threads
            .get()
            .min(CONNECTIONS)
            .min(missing.len().max(1))
        {
            scope.spawn(worker);
        }
        worker();
    });
    let mut failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.sort_by(|(a, _), (b, _)| a.cmp(b));
    if failed.is_empty() {
        Ok(())
    } else {
        Err(SeveralError::Failed { failed })
    }
}

fn file(one: &Wanted, means: &Means<'_>, arrived: &AtomicU64) -> Result<(), HttpError> {
    let Some((url, mirrors)) = one.urls.split_first() else {
        return Err(HttpError::NoPlace {
            what: "it".to_owned(),
        });
    };
    let request = Request {
        url,
        mirrors,
        expected: Some(one.sha256),
        size: one.size,
        offline: means.offline,
    };
    let seen = AtomicU64::new(0);
    let progress = |done: u64, _: Option<u64>| {
        // A file that is begun anew at another place counts once.
        let before = seen.fetch_max(done, Ordering::Relaxed);
        let more = done.saturating_sub(before);
        (means.progress)(arrived.fetch_add(more, Ordering::Relaxed) + more);
    };
    means
        .fetcher
        .fetch(&request, means.store, &progress)
        .map(|_| ())
}
