//! What files had which content when they were last read, so that an unchanged file is not read again.
//!
//! A file is known again by device, inode, size, mode, and times of modification and change in nanoseconds. A file that
//! was touched within two seconds of the reading, or later, could have been written again within the grain of the file
//! system's clock, so it does not count as known (the rule of git's index). Must never know trees.

use immbuild_cas::digest::{BlobId, Digest};
use immbuild_cas::store::{Record, Store, StoreError};

use super::walk::Stamp;

/// First bytes of the encoding; another form has another number.
const MAGIC: &[u8; 16] = b"immbuild stat 1\n";
/// Magic and the time of the scan.
const HEADER: usize = 16 + 8 + 4;
/// Device, inode, size, two times, mode.
const FIELDS: usize = 8 + 8 + 8 + 12 + 12 + 4;
/// Fields and digest.
const ENTRY: usize = FIELDS + 32;
/// Digest of all before it: half a cache is no cache.
const TRAILER: usize = 32;
/// Kind of the store's record.
const RECORD: &str = "stat";
/// A file touched this many seconds before the scan or later is read again.
const GRAIN: i64 = 2;

/// Which files had which content. Kept as its encoding: entries of fixed length, sorted by device and inode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatCache {
    bytes: Vec<u8>,
    /// Files touched at this time or later are not known.
    fresh: (i64, u32),
}

/// A time since 1970 in seconds and nanoseconds.
pub type Time = (i64, u32);

impl StatCache {
    /// The cache of the source `key`; an empty one if there is none that can be read.
    pub fn load(store: &dyn Store, key: &Digest) -> Result<Self, StoreError> {
        let record = store.record(RECORD, key)?;
        Ok(record
            .and_then(|record| Self::decode(record.value))
            .unwrap_or_default())
    }

    /// Keeps this cache for the source `key`.
    pub fn save(&self, store: &dyn Store, key: &Digest) -> Result<(), StoreError> {
        let record = Record {
            value: self.bytes.clone(),
            ..Record::default()
        };
        store.put_record(RECORD, key, &record)
    }

    /// A cache of what was read by a scan that began at `started`.
    pub(super) fn new(started: Time, mut entries: Vec<(Stamp, BlobId)>) -> Self {
        entries.sort_unstable_by_key(|(stamp, _)| stamp.file);
        entries.dedup_by_key(|(stamp, _)| stamp.file);
        let mut bytes = Vec::with_capacity(HEADER + ENTRY * entries.len() + TRAILER);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&started.0.to_be_bytes());
        bytes.extend_from_slice(&started.1.to_be_bytes());
        for (stamp, blob) in &entries {
            bytes.extend_from_slice(&fields(stamp));
            bytes.extend_from_slice(blob.digest().as_bytes());
        }
        let digest = Digest::of(&bytes);
        bytes.extend_from_slice(digest.as_bytes());
        Self {
            bytes,
            fresh: (started.0.saturating_sub(GRAIN), started.1),
        }
    }

    fn decode(bytes: Vec<u8>) -> Option<Self> {
        let (body, trailer) = bytes.split_last_chunk::<TRAILER>()?;
        let entries = body.len().checked_sub(HEADER)?;
        if !body.starts_with(MAGIC)
            || !entries.is_multiple_of(ENTRY)
            || Digest::of(body).as_bytes() != trailer
        {
            return None;
        }
        let seconds = i64::from_be_bytes(*body[16..].first_chunk()?);
        let nanoseconds = u32::from_be_bytes(*body[24..].first_chunk()?);
        Some(Self {
            fresh: (seconds.saturating_sub(GRAIN), nanoseconds),
            bytes,
        })
    }

    /// Does it know nothing?
    pub fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }

    fn entries(&self) -> &[[u8; ENTRY]] {
        let end = self.bytes.len().saturating_sub(TRAILER);
        let entries = self.bytes.get(HEADER..end).unwrap_or_default();
        entries.as_chunks().0
    }

    /// The content of the file with this stamp, if it is the file that was read.
    pub(super) fn get(&self, stamp: &Stamp) -> Option<BlobId> {
        if stamp.mtime >= self.fresh || stamp.ctime >= self.fresh {
            return None;
        }
        let wanted = fields(stamp);
        let entries = self.entries();
        let at = entries
            .binary_search_by(|entry| entry[..16].cmp(&wanted[..16]))
            .ok()?;
        let (found, digest) = entries[at].split_last_chunk::<32>()?;
        (found == wanted).then(|| BlobId::new(Digest::from_bytes(*digest)))
    }
}

/// The encoding of a stamp, device and inode first, so that it sorts by them.
fn fields(stamp: &Stamp) -> [u8; FIELDS] {
    let mut bytes = [0; FIELDS];
    bytes[..8].copy_from_slice(&stamp.file.0.to_be_bytes());
    bytes[8..16].copy_from_slice(&stamp.file.1.to_be_bytes());
    bytes[16..24].copy_from_slice(&stamp.size.to_be_bytes());
    bytes[24..32].copy_from_slice(&stamp.mtime.0.to_be_bytes());
    bytes[32..36].copy_from_slice(&stamp.mtime.1.to_be_bytes());
    bytes[36..44].copy_from_slice(&stamp.ctime.0.to_be_bytes());
    bytes[44..48].copy_from_slice(&stamp.ctime.1.to_be_bytes());
    bytes[48..].copy_from_slice(&stamp.mode.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use immbuild_cas::store::MemoryStore;

    fn stamp(inode: u64, mtime: i64) -> Stamp {
        Stamp {
            file: (1, inode),
            size: 5,
            mtime: (mtime, 7),
            ctime: (mtime, 9),
            mode: 0o100_644,
        }
    }

    fn blob(text: &str) -> BlobId {
        BlobId::new(Digest::of(text.as_bytes()))
    }

    #[test]
    fn a_file_is_known_again_only_if_nothing_changed() {
        let known = stamp(2, 100);
        let cache = StatCache::new(
            (200, 0),
            vec![(stamp(3, 100), blob("c")), (known, blob("b"))],
        );
        assert_eq!(cache.get(&known), Some(blob("b")));
        assert_eq!(cache.get(&stamp(3, 100)), Some(blob("c")));
        assert_eq!(cache.get(&stamp(4, 100)), None);
        for other in [
            Stamp {
                file: (2, 2),
                ..known
            },
            Stamp { size: 6, ..known },
            Stamp {
                mtime: (100, 8),
                ..known
            },
            Stamp {
                ctime: (100, 8),
                ..known
            },
            Stamp {
                mode: 0o100_755,
                ..known
            },
        ] {
            assert_eq!(cache.get(&other), None, "{other:?}");
        }
    }

    #[test]
    fn a_file_touched_within_two_seconds_is_not_known() {
        for (mtime, is_known) in [(197, true), (198, false), (200, false), (300, false)] {
            let entry = stamp(2, mtime);
            let cache = StatCache::new((200, 0), vec![(entry, blob("b"))]);
            assert_eq!(cache.get(&entry).is_some(), is_known, "{mtime}");
        }
    }

    #[test]
    fn it_is_found_again_and_damage_is_no_cache() {
        let store = MemoryStore::new();
        let key = Digest::of(b"here");
        assert!(StatCache::load(&store, &key).unwrap().is_empty());
        let cache = StatCache::new((200, 0), vec![(stamp(2, 100), blob("b"))]);
        cache.save(&store, &key).unwrap();
        assert_eq!(StatCache::load(&store, &key).unwrap(), cache);
        for cut in 0..cache.bytes.len() {
            assert_eq!(StatCache::decode(cache.bytes[..cut].to_vec()), None);
        }
        let mut damaged = cache.bytes.clone();
        damaged[HEADER + 3] ^= 1;
        assert_eq!(StatCache::decode(damaged), None);
    }
}
