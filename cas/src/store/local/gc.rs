//! Garbage collection: what no record reaches goes, and with a size cap the records that were not used for longest.
//!
//! Roots are always kept. Records are kept from the one used last to the one used first, while all that the kept ones
//! reach fits the cap; the first that does not fit and all older ones are dropped. What is kept reaches its blobs, and
//! its trees with all directories and file contents below them *as far as they are in the store*. Snapshots can be made
//! again from what is kept, so they get what the cap leaves, again from the one used last.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::files::{disk_usage, failed, found};
use super::{LocalStore, list, size, snapshot};
use crate::digest::{Digest, DirectoryId};
use crate::store::{DirectorySource, Record, Store, StoreError};
use crate::tree::Entry;

/// What a collection kept and removed. Bytes are those of the objects, not of the file system's blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Records and roots kept.
    pub records_kept: u64,
    /// Records dropped: unused for longest, or of objects that are gone.
    pub records_dropped: u64,
    /// Objects kept.
    pub objects_kept: u64,
    /// Objects removed.
    pub objects_removed: u64,
    /// Snapshots kept.
    pub snapshots_kept: u64,
    /// Snapshots removed.
    pub snapshots_removed: u64,
    /// Bytes of all that was kept.
    pub bytes_kept: u64,
    /// Bytes of all that was removed.
    pub bytes_removed: u64,
    /// Snapshots and directories of killed processes that could not be removed: they hold files of users that only
    /// their user namespace has.
    pub stale_left: u64,
}

/// What is reached so far.
#[derive(Debug, Default)]
struct Reached {
    objects: BTreeSet<Digest>,
    followed: BTreeSet<DirectoryId>,
    bytes: u64,
    /// What the record looked at last has added to `objects`.
    added: Vec<Digest>,
}

impl LocalStore {
    /// Removes what no record reaches and, with a cap in bytes, what was not used for longest.
    ///
    /// The exclusive borrow keeps this process from using the store meanwhile, the lock keeps others from it: waits
    /// for them for at most `wait`.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when others still used the store after that. Any error leaves the store whole.
    pub fn gc(&mut self, cap: Option<u64>, wait: Duration) -> Result<GcReport, StoreError> {
        // Nothing of ours may be unfinished while another process could be the one that collects. On a full disk this
        // fails; then our pack is one that has lost its writer.
        let _ = self.packs.finish();
        self.packs.forget();
        let result = self
            .lock_alone(wait)
            .and_then(|()| self.collect(cap.unwrap_or(u64::MAX)));
        let shared = self.lock.lock_shared().map_err(failed("lock", &self.path));
        self.packs.forget();
        self.directories.clear();
        shared.and(result)
    }

    /// Changes the shared lock into an exclusive one. An attempt that fails leaves none.
    fn lock_alone(&self, wait: Duration) -> Result<(), StoreError> {
        let start = Instant::now();
        while self.lock.try_lock().is_err() {
            if start.elapsed() >= wait {
                return Err(StoreError::Busy {
                    path: self.path.display().to_string(),
                });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// On a full disk nothing can be written before something is removed: what needs no space comes first.
    fn collect(&self, cap: u64) -> Result<GcReport, StoreError> {
        let mut report = GcReport::default();
        let blobs = self.blob_paths()?;
        let mut sizes = self.packs.sizes()?;
        sizes.extend(blobs.iter().map(|(path, digest)| (*digest, size(path))));

        let mut reached = Reached::default();
        for path in list(&self.path.join("roots"))? {
            if let Some(named) = self.read_record(&path)? {
                self.reach(&named.record, &sizes, &mut reached);
                reached.bytes += size(&path);
                report.records_kept += 1;
            }
        }
        self.keep_records(cap, &sizes, &mut reached, &mut report)?;
        report.bytes_kept = reached.bytes;
        for (digest, bytes) in &sizes {
            if reached.objects.contains(digest) {
                report.objects_kept += 1;
            } else {
                report.objects_removed += 1;
                report.bytes_removed += bytes;
            }
        }

        for path in list(&self.path.join("damaged"))? {
            report.bytes_removed += size(&path);
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        for (path, digest) in &blobs {
            if !reached.objects.contains(digest) {
                fs::remove_file(path).map_err(failed("remove", path))?;
            }
        }
        let (_, stale_left) = self.remove_stale()?;
        report.stale_left = stale_left;
        self.keep_snapshots(cap, &mut report)?;
        let damaged = self
            .packs
            .keep_only(&|digest| reached.objects.contains(digest))?;
        for (digest, bytes) in damaged {
            self.keep_damaged(&digest, &bytes)?;
        }
        Ok(report)
    }

    /// Keeps the records used last, as far as the cap goes.
    fn keep_records(
        &self,
        cap: u64,
        sizes: &BTreeMap<Digest, u64>,
        reached: &mut Reached,
        report: &mut GcReport,
    ) -> Result<(), StoreError> {
        let mut is_full = false;
        for path in by_last_use(self.record_paths()?) {
            let Some(named) = self.read_record(&path)? else {
                continue;
            };
            if !is_full && self.holds_objects_of(&named.record)? {
                let before = reached.bytes;
                self.reach(&named.record, sizes, reached);
                reached.bytes += size(&path);
                if reached.bytes <= cap {
                    report.records_kept += 1;
                    continue;
                }
                // It is the last one that is looked at, so `followed` may keep what it has added.
                for digest in std::mem::take(&mut reached.added) {
                    reached.objects.remove(&digest);
                }
                reached.bytes = before;
                is_full = true;
            }
            report.records_dropped += 1;
            report.bytes_removed += size(&path);
            found(fs::remove_file(&path)).map_err(failed("remove", &path))?;
        }
        Ok(())
    }

    /// Keeps the snapshots used last, as far as the cap goes.
    fn keep_snapshots(&self, cap: u64, report: &mut GcReport) -> Result<(), StoreError> {
        let markers = list(&self.path.join("snapshots"))?
            .into_iter()
            .map(|path| path.join("boot"))
            .collect();
        let mut is_full = false;
        for marker in by_last_use(markers) {
            let path = marker.parent().expect("a marker is in its snapshot");
            let bytes = disk_usage(path);
            is_full |= report.bytes_kept.saturating_add(bytes) > cap;
            if !is_full && snapshot::is_current(path)? {
                report.snapshots_kept += 1;
                report.bytes_kept += bytes;
            } else {
                report.snapshots_removed += 1;
                report.bytes_removed += bytes;
                // It is out of the way even when some of it cannot be removed.
                report.stale_left += u64::from(self.workspace.remove(path).is_err());
            }
        }
        Ok(())
    }

    /// Adds what this record reaches.
    fn reach(&self, record: &Record, sizes: &BTreeMap<Digest, u64>, reached: &mut Reached) {
        reached.added.clear();
        for blob in &record.blobs {
            reached.add(blob.digest(), sizes);
        }
        for id in &record.trees {
            reached.add(id.digest(), sizes);
            // A tree or directory that is missing or damaged reaches nothing: whoever needs it makes it again.
            let Ok(tree) = self.tree(id) else {
                continue;
            };
            let mut waiting = vec![tree.root];
            while let Some(id) = waiting.pop() {
                if !reached.followed.insert(id) {
                    continue;
                }
                reached.add(id.digest(), sizes);
                let Ok(directory) = self.directory(&id) else {
                    continue;
                };
                for (_, entry) in directory.entries() {
                    match entry {
                        Entry::Directory(id) => waiting.push(*id),
                        Entry::File(file) => reached.add(file.blob.digest(), sizes),
                        Entry::Symlink(_) | Entry::Special(_) => {}
                    }
                }
            }
        }
    }
}

impl Reached {
    fn add(&mut self, digest: &Digest, sizes: &BTreeMap<Digest, u64>) {
        if let Some(bytes) = sizes.get(digest)
            && self.objects.insert(*digest)
        {
            self.bytes += bytes;
            self.added.push(*digest);
        }
    }
}

/// The paths from the one used last to the one used first; equal times by name.
fn by_last_use(paths: Vec<PathBuf>) -> Vec<PathBuf> {
    fn used(path: &Path) -> SystemTime {
        fs::symlink_metadata(path)
            .and_then(|metadata| metadata.modified())
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }
    let mut paths: Vec<(SystemTime, PathBuf)> =
        paths.into_iter().map(|path| (used(&path), path)).collect();
    paths.sort_by(|(a_time, a), (b_time, b)| b_time.cmp(a_time).then_with(|| a.cmp(b)));
    paths.into_iter().map(|(_, path)| path).collect()
}
