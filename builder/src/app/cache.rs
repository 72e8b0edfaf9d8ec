//! Looking after what is kept between builds.
//!
//! Besides objects, records and snapshots, which the store knows, its directory has two more that can be deleted at any
//! time: `caches/`, what steps keep in their `cache` directories, and `git/`, repositories as they were fetched.
#![allow(
    clippy::disallowed_methods,
    reason = "sizes are added up and what is listed is sorted: no order of a directory reaches anything"
)]

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use immbuild_cas::digest::BlobId;
use immbuild_cas::store::{BlobSource as _, Count, FsckReport, GcReport, LocalStore, Stat};

use super::failure::{Exit, Failure};
use super::project::io_failure;
use crate::diag::Diagnostic;
use crate::exec::embedded::failed_logs;

/// How long a collection waits for builds that use the store.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// What the store knows.
    pub store: Stat,
    /// Cache directories of steps.
    pub caches: Count,
    /// Fetched repositories.
    pub repositories: Count,
}

impl Kept {
    /// All bytes.
    pub fn bytes(&self) -> u64 {
        self.store.bytes() + self.caches.bytes + self.repositories.bytes
    }
}

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// To what the store knows.
    pub store: GcReport,
    /// Cache directories that were emptied and repositories that were removed.
    pub dropped: Count,
    /// Cache directories and repositories that stay.
    pub kept: Count,
}

/// Counts what is there.
pub fn stat(store: &LocalStore) -> Result<Kept, Failure> {
    let total = |directories: Vec<Extra>| {
        directories
            .iter()
            .fold(Count::default(), |sum, extra| Count {
                count: sum.count + 1,
                bytes: sum.bytes + extra.bytes,
            })
    };
    Ok(Kept {
        store: store.stat()?,
        caches: total(extras(store, CACHES)?),
        repositories: total(extras(store, REPOSITORIES)?),
    })
}

/// Removes what nothing remembered needs. With a cap in bytes, also what was not used for longest, first of what the
/// store knows; cache directories and repositories get what that leaves, from the one that changed last.
pub fn gc(store: &mut LocalStore, cap: Option<u64>) -> Result<Collected, Failure> {
    let mut collected = Collected {
        store: store.gc(cap, PATIENCE)?,
        ..Collected::default()
    };
    let mut left = cap.map_or(u64::MAX, |cap| {
        cap.saturating_sub(collected.store.bytes_kept)
    });
    let mut all = extras(store, CACHES)?;
    all.extend(extras(store, REPOSITORIES)?);
    all.sort_by(|a, b| b.changed.cmp(&a.changed).then_with(|| a.path.cmp(&b.path)));
    for extra in all {
        let count = if extra.bytes <= left || !extra.remove(store)? {
            left = left.saturating_sub(extra.bytes);
            &mut collected.kept
        } else {
            &mut collected.dropped
        };
        count.count += 1;
        count.bytes += extra.bytes;
    }
    Ok(collected)
}

/// Reads everything again and sets aside what is damaged.
pub fn fsck(store: &LocalStore) -> Result<FsckReport, Failure> {
    Ok(store.fsck()?)
}

/// The kept log of a step that failed, by the first digits of its digest.
pub fn log(store: &LocalStore, prefix: &str) -> Result<Vec<u8>, Failure> {
    let digits = prefix
        .strip_prefix("sha256:")
        .unwrap_or(prefix)
        .to_ascii_lowercase();
    let missing = |what: String| {
        Failure::new(
            Exit::Usage,
            Diagnostic::error(what)
                .hint("the message of a failed step names its log; a log is kept until `immbuild cache gc` drops it"),
        )
    };
    if digits.len() < 4 {
        return Err(missing(format!("`{prefix}` is too short to name a log")));
    }
    let logs: Vec<BlobId> = failed_logs(store)?
        .into_iter()
        .filter(|log| log.digest().to_hex().starts_with(&digits))
        .collect();
    match logs.as_slice() {
        [log] => Ok(store.read(log)?),
        [] => Err(missing(format!("there is no log `{prefix}`"))),
        _ => Err(missing(format!(
            "{} logs begin with `{prefix}`",
            logs.len()
        ))),
    }
}

/// `500M`, `20G`: bytes in decimal units, as they are shown.
pub fn parse_size(text: &str) -> Option<u64> {
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let factor = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "K" | "KB" => 1_000,
        "M" | "MB" => 1_000_000,
        "G" | "GB" => 1_000_000_000,
        "T" | "TB" => 1_000_000_000_000,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

const CACHES: &str = "caches";
const REPOSITORIES: &str = "git";

/// A directory in the store's that is no object.
#[derive(Debug)]
struct Extra {
    path: PathBuf,
    /// A cache directory: a step may be about to use it.
    cache: bool,
    bytes: u64,
    changed: SystemTime,
}

fn extras(store: &LocalStore, name: &str) -> Result<Vec<Extra>, Failure> {
    let directory = store.path().join(name);
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_failure("read", &directory, &error)),
    };
    let mut extras = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| io_failure("read", &directory, &error))?;
        let path = entry.path();
        let changed = entry.metadata().and_then(|metadata| metadata.modified());
        extras.push(Extra {
            bytes: disk_usage(&path),
            changed: changed.unwrap_or(SystemTime::UNIX_EPOCH),
            path,
            cache: name == CACHES,
        });
    }
    Ok(extras)
}

/// Bytes on disk of a file or directory with all in it. What cannot be looked at, or is gone meanwhile, counts nothing.
fn disk_usage(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return 0;
    };
    let below: u64 = match fs::read_dir(path) {
        Ok(entries) if metadata.is_dir() => entries
            .flatten()
            .map(|entry| disk_usage(&entry.path()))
            .sum(),
        _ => 0,
    };
    metadata.blocks() * 512 + below
}

impl Extra {
    /// Says whether it is gone: a cache directory that a step uses stays.
    fn remove(&self, store: &LocalStore) -> Result<bool, Failure> {
        let failed = |error: io::Error| io_failure("remove", &self.path, &error);
        if !self.cache {
            fs::remove_dir_all(&self.path).map_err(failed)?;
            return Ok(true);
        }
        // Steps lock the directory itself while they use it. Only its content goes, so that one that found the directory
        // and waits for the lock does not lose it.
        let directory = File::open(&self.path).map_err(failed)?;
        if directory.try_lock().is_err() {
            return Ok(false);
        }
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let trash = store.scratch("trash")?;
            fs::rename(&path, trash.path().join("trash")).map_err(failed)?;
            trash.remove()?;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_decimal() {
        let table = [
            ("0", Some(0)),
            ("17", Some(17)),
            ("500M", Some(500_000_000)),
            ("20G", Some(20_000_000_000)),
            ("2kb", Some(2_000)),
            ("1T", Some(1_000_000_000_000)),
            ("", None),
            ("M", None),
            ("1.5G", None),
            ("-1", None),
            ("1X", None),
            ("99999999999T", None),
        ];
        for (text, size) in table {
            assert_eq!(parse_size(text), size, "{text}");
        }
    }
}
