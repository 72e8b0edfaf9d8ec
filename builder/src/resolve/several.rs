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
    /// What has no place when it has none: `it`, or what it is part of.
    pub whole: String,
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

/// Brings files into the store, the greatest first. What is there already is not fetched; without a network, everything that
/// is missing is told at once.
///
/// # Errors
/// One of them was not fetched.
pub fn fetch(wanted: &[Wanted], means: &Means<'_>) -> Result<(), SeveralError> {
    match fetch_each(wanted, means)? {
        Fetched::All => Ok(()),
        Fetched::Offline(missing) => Err(SeveralError::Offline {
            missing: missing
                .into_iter()
                .map(|at| format!("{} ({})", wanted[at].label, wanted[at].sha256))
                .collect(),
        }),
        Fetched::Failed(failed) => {
            let failed = failed.into_iter();
            let mut failed: Vec<_> = failed
                .map(|(at, error)| (wanted[at].label.clone(), error))
                .collect();
            failed.sort_by(|(a, _), (b, _)| a.cmp(b));
            Err(SeveralError::Failed { failed })
        }
    }
}

/// What became of several files, by their places in the list.
#[derive(Debug)]
pub enum Fetched {
    /// Each is in the store.
    All,
    /// These are not, and the network is off. Nothing was fetched.
    Offline(Vec<usize>),
    /// These are not, and why. Once the store had refused one, no other was begun.
    Failed(Vec<(usize, HttpError)>),
}

/// As [`fetch`], for who has words of its own for what goes wrong.
///
/// # Errors
/// The store cannot say what it has.
pub fn fetch_each(wanted: &[Wanted], means: &Means<'_>) -> Result<Fetched, StoreError> {
    let mut missing = Vec::new();
    for (at, one) in wanted.iter().enumerate() {
        if !means.store.has(&BlobId::new(one.sha256))? {
            missing.push(at);
        }
    }
    // What is a file of this machine needs no network.
    let is_here = |at: &usize| wanted[*at].urls.iter().any(|url| url.starts_with("file:"));
    let away: Vec<usize> = missing
        .iter()
        .copied()
        .filter(|at| means.offline && !is_here(at))
        .collect();
    if !away.is_empty() {
        return Ok(Fetched::Offline(away));
    }
    missing.sort_by_key(|at| std::cmp::Reverse(wanted[*at].size));
    let (next, arrived) = (AtomicUsize::new(0), AtomicU64::new(0));
    let failed = Mutex::new(Vec::new());
    let is_full = AtomicBool::new(false);
    let worker = || {
        while !means.cancel.load(Ordering::Relaxed) && !is_full.load(Ordering::Relaxed) {
            let Some(at) = missing.get(next.fetch_add(1, Ordering::Relaxed)) else {
                return;
            };
            if let Err(error) = file(&wanted[*at], means, &arrived) {
                // Where one has no room, no other has.
                is_full.fetch_or(matches!(error, HttpError::Store(_)), Ordering::Relaxed);
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.push((*at, error));
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
    failed.sort_by_key(|(at, _)| *at);
    Ok(if failed.is_empty() {
        Fetched::All
    } else {
        Fetched::Failed(failed)
    })
}

fn file(one: &Wanted, means: &Means<'_>, arrived: &AtomicU64) -> Result<(), HttpError> {
    let Some((url, mirrors)) = one.urls.split_first() else {
        return Err(HttpError::NoPlace {
            what: one.whole.clone(),
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
