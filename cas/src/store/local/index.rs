//! The index of one pack: digests sorted, found with one read.
//!
//! ```text
//! "immidx1\n"  bits: u32  count: u32
//! start: u32 × (2^bits + 1)           first entry whose digest has these leading bits
//! (digest: 32, offset: u64, length: u32) × count, sorted by digest
//! sha256 of all that is before it
//! ```
//!
//! Numbers are little-endian. An index is only a hint: what it points to says its own digest.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::digest::Digest;

const MAGIC: &[u8; 8] = b"immidx1\n";
const HEADER: usize = 16;
const ENTRY: usize = 44;

/// Where an object is in its pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Of its header, in bytes from the start of the pack.
    pub(super) offset: u64,
    /// Of its content, in bytes.
    pub(super) length: u32,
}

/// An open index.
#[derive(Debug)]
pub(super) struct Index {
    file: File,
    bits: u32,
    starts: Vec<u32>,
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The leading `bits` of a digest. `bits` is at most 32.
fn bucket(digest: &Digest, bits: u32) -> usize {
    let [a, b, c, d, ..] = *digest.as_bytes();
    let leading = u64::from(u32::from_be_bytes([a, b, c, d])) >> (32 - bits);
    usize::try_from(leading).expect("32 bits fit")
}

/// The bytes of an index of these entries.
pub(super) fn encode(entries: &BTreeMap<Digest, Place>) -> Vec<u8> {
    let count =
        u32::try_from(entries.len()).expect("a pack is closed long before it has 2^32 objects");
    // About eight entries share a bucket: a lookup reads a few hundred bytes.
    let bits = (count / 8).checked_ilog2().unwrap_or(0).min(20);
    let mut starts = vec![0_u32; (1 << bits) + 1];
    for digest in entries.keys() {
        starts[bucket(digest, bits) + 1] += 1;
    }
    let mut sum = 0;
    for start in &mut starts {
        sum += *start;
        *start = sum;
    }
    let mut bytes = Vec::with_capacity(HEADER + starts.len() * 4 + entries.len() * ENTRY + 32);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&bits.to_le_bytes());
    bytes.extend_from_slice(&count.to_le_bytes());
    for start in &starts {
        bytes.extend_from_slice(&start.to_le_bytes());
    }
    for (digest, place) in entries {
        bytes.extend_from_slice(digest.as_bytes());
        bytes.extend_from_slice(&place.offset.to_le_bytes());
        bytes.extend_from_slice(&place.length.to_le_bytes());
    }
    let sum = Digest::of(&bytes);
    bytes.extend_from_slice(sum.as_bytes());
    bytes
}

fn decode_entry(bytes: &[u8]) -> (Digest, Place) {
    let (digest, rest) = bytes.split_first_chunk::<32>().expect("44 bytes");
    let (offset, rest) = rest.split_first_chunk::<8>().expect("12 bytes");
    let length = rest.first_chunk::<4>().expect("4 bytes");
    let place = Place {
        offset: u64::from_le_bytes(*offset),
        length: u32::from_le_bytes(*length),
    };
    (Digest::from_bytes(*digest), place)
}

impl Index {
    /// Opens an index. Its entries are not read, so this takes microseconds whatever its size.
    ///
    /// # Errors
    /// `InvalidData` when its frame is damaged.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0)
            .map_err(|_| damaged("cut short"))?;
        let (magic, rest) = header.split_at(8);
        let bits = u32::from_le_bytes(*rest.first_chunk().expect("8 bytes"));
        let count = u32::from_le_bytes(*rest.last_chunk().expect("8 bytes"));
        if magic != MAGIC || bits > 20 {
            return Err(damaged("no index"));
        }
        let mut bytes = vec![0; ((1 << bits) + 1) * 4];
        let length = HEADER as u64 + bytes.len() as u64 + u64::from(count) * ENTRY as u64 + 32;
        if file.metadata()?.len() != length {
            return Err(damaged("not of its length"));
        }
        file.read_exact_at(&mut bytes, HEADER as u64)?;
        let starts: Vec<u32> = bytes
            .chunks_exact(4)
            .map(|chunk| u32::from_le_bytes(*chunk.first_chunk().expect("4 bytes")))
            .collect();
        if !starts.is_sorted() || starts.first() != Some(&0) || starts.last() != Some(&count) {
            return Err(damaged("starts are not sorted"));
        }
        Ok(Self { file, bits, starts })
    }

    fn entry_offset(&self, entry: u32) -> u64 {
        HEADER as u64 + self.starts.len() as u64 * 4 + u64::from(entry) * ENTRY as u64
    }

    /// Where this object is, as far as the index knows.
    pub(super) fn find(&self, digest: &Digest) -> io::Result<Option<Place>> {
        let bucket = bucket(digest, self.bits);
        let (start, end) = (self.starts[bucket], self.starts[bucket + 1]);
        let mut bytes = vec![0; (end - start) as usize * ENTRY];
        self.file
            .read_exact_at(&mut bytes, self.entry_offset(start))?;
        Ok(bytes
            .chunks_exact(ENTRY)
            .map(decode_entry)
            .find_map(|(found, place)| (found == *digest).then_some(place)))
    }

    /// All entries, checked.
    ///
    /// # Errors
    /// `InvalidData` when the checksum is wrong.
    pub(super) fn entries(&self) -> io::Result<BTreeMap<Digest, Place>> {
        let end = self.entry_offset(*self.starts.last().expect("there is one start at least"));
        let mut bytes = vec![0; usize::try_from(end).map_err(io::Error::other)?];
        let mut sum = [0; 32];
        self.file.read_exact_at(&mut bytes, 0)?;
        self.file.read_exact_at(&mut sum, end)?;
        if Digest::of(&bytes) != Digest::from_bytes(sum) {
            return Err(damaged("checksum"));
        }
        let first = usize::try_from(self.entry_offset(0)).map_err(io::Error::other)?;
        Ok(bytes[first..]
            .chunks_exact(ENTRY)
            .map(decode_entry)
            .collect())
    }
}
