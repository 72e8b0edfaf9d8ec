//! One pack: an append-only file of small objects.
//!
//! ```text
//! "immpack1"
//! (digest: 32, length: u32 little-endian, content) ...
//! ```
//!
//! An object is written with one call and is there from then on, also for other processes and also when its writer
//! is killed. A torn tail says so itself: its digest is not that of its content. A damaged object gets a digest of
//! zeros, so that it is there for nobody and can be stored again.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use super::files::found;
use super::index::{Index, Place};
use crate::digest::Digest;

/// Longest content that is packed, in bytes.
pub(super) const PACKED_MAX: usize = 64 << 10;
/// A pack that has this many bytes, or so many objects, is closed and the next one begun: it bounds what making an
/// index again costs, and the memory of the writer.
pub(super) const PACK_BYTES: u64 = 64 << 20;
const PACK_OBJECTS: usize = 1 << 17;

/// How a pack begins.
pub(super) const MAGIC: &[u8; 8] = b"immpack1";
/// Bytes of an object before its content.
pub(super) const HEADER: u64 = 36;
/// The digest of an object that is no more. No content is known that has it.
const NONE: [u8; 32] = [0; 32];

/// A pack that is read.
#[derive(Debug)]
pub(super) struct Pack {
    pub(super) name: String,
    /// Of its index, or of itself when it has none: names can come again.
    pub(super) inode: u64,
    pub(super) file: Arc<File>,
    pub(super) table: Table,
}

/// How the objects of a pack are found.
#[derive(Debug)]
pub(super) enum Table {
    /// The pack is complete.
    Index(Index),
    /// Another process writes it, or its index cannot be written: what was seen up to `end`.
    Seen {
        entries: BTreeMap<Digest, Place>,
        end: u64,
    },
}

/// A pack being written.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) name: String,
    pub(super) file: Arc<File>,
    end: u64,
    pub(super) entries: BTreeMap<Digest, Place>,
    buffer: Vec<u8>,
}

impl Pack {
    /// Where this object is, as far as is known.
    pub(super) fn find(&self, digest: &Digest) -> Option<Place> {
        match &self.table {
            // An index that cannot be read finds nothing; fsck makes it again.
            Table::Index(index) => index.find(digest).ok().flatten(),
            Table::Seen { entries, .. } => entries.get(digest).copied(),
        }
    }

    /// All objects that are known.
    pub(super) fn entries(&self) -> io::Result<BTreeMap<Digest, Place>> {
        match &self.table {
            // A damaged index is no reason to lose the objects.
            Table::Index(index) => index.entries().or_else(|_| recover(&self.file)),
            Table::Seen { entries, .. } => Ok(entries.clone()),
        }
    }

    /// Looks for what its writer has added. True when that is something.
    pub(super) fn grow(&mut self) -> bool {
        let Table::Seen { entries, end } = &mut self.table else {
            return false;
        };
        let before = *end;
        if self
            .file
            .metadata()
            .is_ok_and(|metadata| metadata.len() > before)
        {
            // A tail that cannot be read now is looked at again the next time.
            *end = scan(&self.file, before, |digest, place| {
                entries.insert(digest, place);
            })
            .unwrap_or(before);
        }
        *end > before
    }
}

/// Is it the digest of an object that was taken out?
pub(super) fn is_none(digest: &Digest) -> bool {
    *digest.as_bytes() == NONE
}

/// The header at this place of a pack, if a whole one is there.
pub(super) fn header(file: &File, offset: u64) -> io::Result<Option<(Digest, u32)>> {
    let mut bytes = [0; 36];
    match file.read_exact_at(&mut bytes, offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let (digest, length) = bytes.split_first_chunk::<32>().expect("36 bytes");
    let length = u32::from_le_bytes(*length.first_chunk().expect("4 bytes"));
    Ok(Some((Digest::from_bytes(*digest), length)))
}

/// Goes through the headers from `offset` on and says where the last whole object ends.
fn scan(file: &File, mut offset: u64, mut visit: impl FnMut(Digest, Place)) -> io::Result<u64> {
    let size = file.metadata()?.len();
    while let Some((digest, length)) = header(file, offset)? {
        let end = offset + HEADER + u64::from(length);
        if length as usize > PACKED_MAX || end > size || (is_none(&digest) && length == 0) {
            break;
        }
        if !is_none(&digest) {
            visit(digest, Place { offset, length });
        }
        offset = end;
    }
    Ok(offset)
}

/// The content at this place, whatever it is; short when the pack ends before it.
pub(super) fn content(file: &File, place: Place) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; place.length as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], place.offset + HEADER + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// All objects of a pack without a writer whose content is what their digest says.
pub(super) fn recover(file: &File) -> io::Result<BTreeMap<Digest, Place>> {
    let mut entries = BTreeMap::new();
    let mut magic = [0; 8];
    if file.read_exact_at(&mut magic, 0).is_err() || magic != *MAGIC {
        return Ok(entries);
    }
    scan(file, MAGIC.len() as u64, |digest, place| {
        if content(file, place).is_ok_and(|bytes| Digest::of(&bytes) == digest) {
            entries.insert(digest, place);
        }
    })?;
    Ok(entries)
}

impl Writer {
    /// Begins in this file, which has nothing in it and no name yet.
    pub(super) fn new(file: File) -> io::Result<Self> {
        file.write_all_at(MAGIC, 0)?;
        Ok(Self {
            name: String::new(),
            file: Arc::new(file),
            end: MAGIC.len() as u64,
            entries: BTreeMap::new(),
            buffer: Vec::new(),
        })
    }

    /// Adds an object, whole or not at all.
    pub(super) fn append(&mut self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.buffer.clear();
        self.buffer.extend_from_slice(digest.as_bytes());
        self.buffer.extend_from_slice(&length.to_le_bytes());
        self.buffer.extend_from_slice(bytes);
        if let Err(error) = self.file.write_all_at(&self.buffer, self.end) {
            // Part of it may be there. What follows must not come behind it.
            self.file.set_len(self.end)?;
            return Err(error);
        }
        let place = Place {
            offset: self.end,
            length,
        };
        self.entries.insert(*digest, place);
        self.end += self.buffer.len() as u64;
        Ok(())
    }

    /// Is it time for the next pack?
    pub(super) fn is_full(&self) -> bool {
        self.end >= PACK_BYTES || self.entries.len() >= PACK_OBJECTS
    }
}

/// A pack of another writer, as far as it is written.
pub(super) fn seen(name: &str, file: File, entries: BTreeMap<Digest, Place>) -> Pack {
    let mut pack = Pack {
        name: name.to_owned(),
        inode: file.metadata().map_or(0, |metadata| metadata.ino()),
        file: Arc::new(file),
        table: Table::Seen {
            entries,
            end: MAGIC.len() as u64,
        },
    };
    pack.grow();
    pack
}

/// Makes an object be there for nobody.
pub(super) fn take_out(pack: &Path, digest: &Digest, place: Place) -> io::Result<()> {
    let Some(file) = found(OpenOptions::new().read(true).write(true).open(pack))? else {
        return Ok(());
    };
    if header(&file, place.offset)? == Some((*digest, place.length)) {
        file.write_all_at(&NONE, place.offset)?;
    }
    Ok(())
}
