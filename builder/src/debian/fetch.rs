//! EFFECT: brings what an archive has into the store: releases, indexes, packages.
//!
//! What is known by digest is looked for in the store first and costs no network when it is there.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read as _};
use std::num::NonZeroUsize;
use std::sync::atomic::AtomicBool;

use immbuild_cas::digest::{BlobId, Digest};
use immbuild_cas::store::{Store, StoreError};

use super::release::{IndexFile, Release};
use super::sources::Places;
use crate::epoch::Epoch;
use crate::layer::Limited;
use crate::resolve::http::{self, Fetcher, HttpError, Policy};
use crate::resolve::several::{self, Fetched};
use crate::resolve::unpack;

/// Most bytes of a release: Debian's has 150 kB.
const RELEASE_MAX: u64 = 16 << 20;
/// Most bytes of an index, decompressed: Debian's greatest has 55 MB.
const INDEX_MAX: u64 = 1 << 30;

/// Why something of an archive was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody says where the archive is.
    #[error("nothing says where the archive `{archive}` is")]
    NoPlace {
        /// Its name in the spec.
        archive: String,
        /// A suite that is named much like the one that is wanted, and whose place is known.
        near: Option<String>,
    },
    /// A file was not fetched.
    #[error("cannot fetch {what}")]
    File {
        /// What it is.
        what: String,
        /// Why.
        source: HttpError,
    },
    /// Files that are not in the store, and the network is off.
    #[error("{} not in the store, and the network is off: {}", count(missing.len()), list(missing))]
    Offline {
        /// All of them.
        missing: Vec<MissingFile>,
    },
    /// Packages that were not fetched.
    #[error("{} not fetched: {}", count(failed.len()), failures(failed))]
    Packages {
        /// Each with why.
        failed: Vec<(MissingFile, HttpError)>,
    },
    /// What was fetched is no text of this form.
    #[error("{what} is damaged: {cause}")]
    Damaged {
        /// What it is.
        what: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The store refused.
    #[error("cannot use the store")]
    Store(#[from] StoreError),
}

/// A package that is not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingFile {
    /// `zlib1g`.
    pub name: String,
    /// `1:1.2.13.dfsg-1`.
    pub version: String,
    /// Of the `.deb`.
    pub sha256: Digest,
}

impl fmt::Display for MissingFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.name, self.version, self.sha256)
    }
}

fn count(number: usize) -> String {
    match number {
        1 => "1 package is".to_owned(),
        _ => format!("{number} packages are"),
    }
}

fn list(missing: &[MissingFile]) -> String {
    let all: Vec<String> = missing.iter().map(ToString::to_string).collect();
    all.join(", ")
}

fn failures(failed: &[(MissingFile, HttpError)]) -> String {
    let all: Vec<String> = failed
        .iter()
        .map(|(file, error)| format!("{file}: {error}"))
        .collect();
    all.join("; ")
}

/// A place that was asked for a release, and what it gave.
#[derive(Debug)]
pub struct Offer {
    /// The URL, as messages may have it.
    pub url: String,
    /// The release's text, or why there is none.
    pub text: Result<(Digest, String), HttpError>,
}

/// What fetching works with.
pub struct Archive<'a> {
    /// Its name in the spec.
    pub name: &'a str,
    /// Where it is.
    pub places: &'a Places,
    /// Ask nothing of the network.
    pub offline: bool,
    /// Takes what is fetched.
    pub store: &'a dyn Store,
    /// Does it.
    pub fetcher: &'a Fetcher,
}

impl Archive<'_> {
    fn one(
        &self,
        what: String,
        urls: &[String],
        expected: Option<Digest>,
        size: Option<u64>,
    ) -> Result<BlobId, FetchError> {
        let Some((url, mirrors)) = urls.split_first() else {
            return Err(FetchError::NoPlace {
                archive: self.name.to_owned(),
                near: None,
            });
        };
        let request = http::Request {
            url,
            mirrors,
            expected,
            size,
            offline: self.offline,
        };
        match self.fetcher.fetch(&request, self.store, &|_, _| {}) {
            Ok(fetched) => Ok(fetched.blob),
            Err(source) => Err(FetchError::File { what, source }),
        }
    }

    /// The newest release of a suite, as each mirror in turn offers it: whether one is good, the caller says by taking it.
    pub fn offers<'s>(&'s self, suite: &'s str) -> impl Iterator<Item = Offer> + 's {
        let urls = self.places.urls(&format!("dists/{suite}/InRelease"), None);
        urls.into_iter().map(|url| {
            let request = http::Request {
                url: &url,
                mirrors: &[],
                expected: None,
                size: None,
                offline: self.offline,
            };
            let text = self
                .fetcher
                .fetch_at_most(&request, RELEASE_MAX, self.store, &|_, _| {})
                .and_then(|fetched| {
                    let text = self.store.read(&fetched.blob)?;
                    Ok((
                        *fetched.blob.digest(),
                        String::from_utf8_lossy(&text).into_owned(),
                    ))
                });
            Offer { url, text }
        })
    }

    /// The release that was locked: from the store, from a mirror that still has it, or from the old states.
    pub fn locked_release(
        &self,
        suite: &str,
        inrelease: Digest,
        date: Epoch,
    ) -> Result<String, FetchError> {
        let urls = self
            .places
            .urls(&format!("dists/{suite}/InRelease"), Some(date));
        let what = format!("the release of `{suite}` of {date}");
        let blob = self.one(what.clone(), &urls, Some(inrelease), None)?;
        let bytes = self.store.read(&blob)?;
        String::from_utf8(bytes).map_err(|error| FetchError::Damaged {
            what,
            cause: error.to_string(),
        })
    }

    /// The text of an index of a release, checked by its digest. Looked for by digest first, which is the same file also
    /// while the archive is being renewed.
    pub fn index(
        &self,
        suite: &str,
        release: &Release,
        name: &str,
        file: &IndexFile,
    ) -> Result<String, FetchError> {
        let (directory, _) = name.rsplit_once('/').unwrap_or_default();
        let by_hash = format!(
            "dists/{suite}/{directory}/by-hash/SHA256/{}",
            file.sha256.to_hex()
        );
        let plain = format!("dists/{suite}/{name}");
        let date = Some(release.date);
        let mut urls = Vec::new();
        if release.by_hash {
            urls.extend(self.places.urls(&by_hash, date));
        }
        urls.extend(self.places.urls(&plain, date));
        let what = format!("`{plain}` of the archive `{}`", self.name);
        let blob = self.one(what.clone(), &urls, Some(file.sha256), Some(file.size))?;
        let damaged = |error: io::Error| FetchError::Damaged {
            what: what.clone(),
            cause: error.to_string(),
        };
        let reader = self.store.open(&blob)?;
        let decoded = unpack::decompressed(reader).map_err(damaged)?;
        let mut text = String::new();
        Limited::new(decoded, INDEX_MAX)
            .read_to_string(&mut text)
            .map_err(damaged)?;
        Ok(text)
    }
}

/// A package to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// It, for messages.
    pub file: MissingFile,
    /// The archive's name in the spec.
    pub archive: String,
    /// Below the archive's top directory.
    pub path: String,
    /// Bytes of the `.deb`.
    pub size: u64,
    /// When the archive had it.
    pub date: Option<Epoch>,
}

/// How packages are fetched.
pub struct Means<'a> {
    /// Where each archive is, by its name.
    pub places: &'a BTreeMap<String, Places>,
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

/// Brings packages into the store, the greatest first. What is there already is not fetched; without a network, everything
/// that is missing is told at once.
pub fn packages(wanted: &[Wanted], means: &Means<'_>) -> Result<(), FetchError> {
    let files: Vec<several::Wanted> = wanted
        .iter()
        .map(|one| several::Wanted {
            label: format!("{} {}", one.file.name, one.file.version),
            sha256: one.file.sha256,
            size: Some(one.size),
            urls: urls(one, means),
            whole: format!("the archive `{}`", one.archive),
        })
        .collect();
    let each = several::Means {
        offline: means.offline,
        store: means.store,
        fetcher: means.fetcher,
        threads: means.threads,
        cancel: means.cancel,
        progress: means.progress,
    };
    let file = |at: usize| wanted[at].file.clone();
    let mut failed = match several::fetch_each(&files, &each)? {
        Fetched::All => return Ok(()),
        Fetched::Offline(missing) => {
            let missing = missing.into_iter().map(file).collect();
            return Err(FetchError::Offline { missing });
        }
        Fetched::Failed(failed) => failed,
    };
    let is_of_store = |(_, error): &(usize, HttpError)| matches!(error, HttpError::Store(_));
    if let Some(of_store) = failed.iter().position(is_of_store) {
        let (at, source) = failed.swap_remove(of_store);
        let what = files[at].label.clone();
        return Err(FetchError::File { what, source });
    }
    let failed = failed.into_iter();
    let mut failed: Vec<_> = failed.map(|(at, error)| (file(at), error)).collect();
    failed.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    Err(FetchError::Packages { failed })
}

fn urls(one: &Wanted, means: &Means<'_>) -> Vec<String> {
    means
        .places
        .get(&one.archive)
        .map(|places| places.urls(&one.path, one.date))
        .unwrap_or_default()
}

/// How patiently archives are asked: as files are, but for no longer than an index or a package may be.
pub fn fetcher() -> Fetcher {
    Fetcher::new(Policy {
        limit: INDEX_MAX,
        ..Policy::default()
    })
}
