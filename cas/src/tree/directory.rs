//! One canonical object: a directory's own metadata and its sorted, named entries.
//!
//! Must never know how it is stored or where it was found.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::meta::Meta;
use crate::canonical::{Canonical, DecodeError, Decoder, Encoder};
use crate::digest::{BlobId, DirectoryId};
use crate::path::Name;

/// Longest text of a symbolic link in bytes (Linux `PATH_MAX` without its NUL).
pub const TARGET_MAX: usize = 4095;

/// A child of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A directory; its metadata is in the object itself.
    Directory(DirectoryId),
    /// A regular file.
    File(File),
    /// A symbolic link.
    Symlink(Symlink),
    /// A named pipe or device.
    Special(Special),
}

/// A regular file: what is in it and what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// The content.
    pub blob: BlobId,
    /// Length of the content in bytes.
    pub size: u64,
    /// Mode, owner, extended attributes.
    pub meta: Meta,
}

/// A symbolic link. Its mode is always 0777, so there is no field for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symlink {
    /// The text of the link, 1 to 4095 bytes, no NUL.
    pub target: Box<[u8]>,
    /// Owner, by number.
    pub uid: u32,
    /// Group, by number.
    pub gid: u32,
}

/// A named pipe or device. Sockets are no part of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Special {
    /// Which kind, with the numbers a device has.
    pub kind: SpecialKind,
    /// Mode, owner, extended attributes.
    pub meta: Meta,
}

/// The kinds of special file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialKind {
    /// A named pipe.
    Fifo,
    /// A character device.
    Char {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// Why an entry cannot be in a directory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// The text of a link is empty, longer than 4095 bytes or holds a NUL.
    #[error("the text of symbolic link `{0}` is empty, too long or holds a NUL")]
    Target(Name),
    /// A 0:0 character device, which overlayfs reads as a deletion.
    #[error("`{0}` is a 0:0 character device, which overlayfs reads as a deletion")]
    Whiteout(Name),
}

/// A directory. Sorted and free of duplicates by construction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    meta: Meta,
    entries: BTreeMap<Name, Entry>,
}

impl Directory {
    /// A directory with nothing in it.
    pub fn new(meta: Meta) -> Self {
        Self {
            meta,
            entries: BTreeMap::new(),
        }
    }

    /// Its own mode, owner and extended attributes.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Sets its own mode, owner and extended attributes.
    pub fn set_meta(&mut self, meta: Meta) {
        self.meta = meta;
    }

    /// Its entries in the order of their names.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (&Name, &Entry)> {
        self.entries.iter()
    }

    /// The entry of this name.
    pub fn get(&self, name: &[u8]) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// The first entry whose name comes after this one; without a name the first of all.
    pub(super) fn after(&self, name: Option<&Name>) -> Option<(&Name, &Entry)> {
        let from = name.map_or(Bound::Unbounded, Bound::Excluded);
        self.entries
            .range::<Name, _>((from, Bound::Unbounded))
            .next()
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Has it none?
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Puts an entry at `name` and gives back the one that was there.
    ///
    /// # Errors
    /// The entry is one that no directory can hold.
    pub fn insert(&mut self, name: Name, entry: Entry) -> Result<Option<Entry>, DirectoryError> {
        match &entry {
            Entry::Symlink(link)
                if link.target.is_empty()
                    || link.target.len() > TARGET_MAX
                    || link.target.contains(&0) =>
            {
                Err(DirectoryError::Target(name))
            }
            Entry::Special(Special {
                kind: SpecialKind::Char { major: 0, minor: 0 },
                ..
            }) => Err(DirectoryError::Whiteout(name)),
            _ => Ok(self.entries.insert(name, entry)),
        }
    }

    /// Takes the entry of this name out.
    pub fn remove(&mut self, name: &[u8]) -> Option<Entry> {
        self.entries.remove(name)
    }

    /// The id: digest of the canonical encoding.
    pub fn id(&self) -> DirectoryId {
        DirectoryId::new(self.canonical_digest())
    }

    /// Reads a canonical encoding and nothing else.
    pub fn decode_strict(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new::<Self>(bytes)?;
        let mut directory = Self::new(Meta::decode(&mut decoder)?);
        for _ in 0..decoder.count()? {
            let name = Name::new(decoder.bytes()?)
                .map_err(|error| DecodeError::NotCanonical(error.to_string()))?;
            if directory
                .entries
                .last_key_value()
                .is_some_and(|(last, _)| *last >= name)
            {
                return Err(DecodeError::NotCanonical(format!(
                    "entry `{name}` is not in its place"
                )));
            }
            let entry = decode_entry(&mut decoder)?;
            directory
                .insert(name, entry)
                .map_err(|error| DecodeError::NotCanonical(error.to_string()))?;
        }
        decoder.finish()?;
        Ok(directory)
    }
}

impl Canonical for Directory {
    const TAG: &'static str = "directory";
    const VERSION: u32 = 1;

    fn encode_fields(&self, out: &mut Encoder) {
        self.meta.encode(out);
        out.sequence(self.entries.iter(), |out, (name, entry)| {
            out.bytes(name.as_bytes());
            encode_entry(entry, out);
        });
    }
}

fn encode_entry(entry: &Entry, out: &mut Encoder) {
    match entry {
        Entry::Directory(id) => {
            out.u8(0);
            out.digest(id.digest());
        }
        Entry::File(file) => {
            out.u8(1);
            out.digest(file.blob.digest());
            out.u64(file.size);
            file.meta.encode(out);
        }
        Entry::Symlink(link) => {
            out.u8(2);
            out.bytes(&link.target);
            out.u32(link.uid);
            out.u32(link.gid);
        }
        Entry::Special(special) => {
            let (tag, major, minor) = match special.kind {
                SpecialKind::Fifo => (3, 0, 0),
                SpecialKind::Char { major, minor } => (4, major, minor),
                SpecialKind::Block { major, minor } => (5, major, minor),
            };
            out.u8(tag);
            out.u32(major);
            out.u32(minor);
            special.meta.encode(out);
        }
    }
}

fn decode_entry(decoder: &mut Decoder<'_>) -> Result<Entry, DecodeError> {
    Ok(match decoder.u8()? {
        0 => Entry::Directory(DirectoryId::new(decoder.digest()?)),
        1 => Entry::File(File {
            blob: BlobId::new(decoder.digest()?),
            size: decoder.u64()?,
            meta: Meta::decode(decoder)?,
        }),
        2 => Entry::Symlink(Symlink {
            target: decoder.bytes()?.into(),
            uid: decoder.u32()?,
            gid: decoder.u32()?,
        }),
        tag @ 3..=5 => {
            let (major, minor) = (decoder.u32()?, decoder.u32()?);
            let kind = match tag {
                3 if (major, minor) != (0, 0) => {
                    return Err(DecodeError::NotCanonical(
                        "a named pipe has no numbers".into(),
                    ));
                }
                3 => SpecialKind::Fifo,
                4 => SpecialKind::Char { major, minor },
                _ => SpecialKind::Block { major, minor },
            };
            Entry::Special(Special {
                kind,
                meta: Meta::decode(decoder)?,
            })
        }
        tag => {
            return Err(DecodeError::NotCanonical(format!(
                "{tag} is no kind of entry"
            )));
        }
    })
}
