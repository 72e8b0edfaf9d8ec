//! Tells whether an output still stands as it was written, without reading its bytes again.
#![allow(clippy::disallowed_methods, reason = "names are sorted after reading")]

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use immbuild_cas::canonical::{Canonical, DecodeError, Decoder, Encoder};
use immbuild_cas::digest::{Digest, Hasher};

use super::{OutputError, io_error};

/// What the file system says about an output. Equal stamps: nobody has changed it since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    /// Seconds and nanoseconds; nothing where the file system does not keep it. With it an inode number that is used again is
    /// not taken for the same directory.
    born: Option<(u64, u32)>,
    /// Over path, device, inode, type and mode, size, mtime and ctime of everything.
    state: Digest,
}

impl Stamp {
    /// Is this the same file or directory, whatever happened in it?
    pub fn is_same_object(&self, other: &Self) -> bool {
        (self.device, self.inode, self.born) == (other.device, other.inode, other.born)
    }

    /// Reads what [`Canonical::to_canonical`] wrote.
    pub fn decode_strict(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new::<Self>(bytes)?;
        let (device, inode) = (decoder.u64()?, decoder.u64()?);
        let born = match decoder.u8()? {
            0 => None,
            1 => Some((decoder.u64()?, decoder.u32()?)),
            other => return Err(DecodeError::NotCanonical(format!("option {other}"))),
        };
        let state = decoder.digest()?;
        decoder.finish()?;
        Ok(Self {
            device,
            inode,
            born,
            state,
        })
    }
}

impl Canonical for Stamp {
    const TAG: &'static str = "output-stamp";
    const VERSION: u32 = 1;

    fn encode_fields(&self, out: &mut Encoder) {
        out.u64(self.device);
        out.u64(self.inode);
        out.option(self.born, |out, (seconds, nanoseconds)| {
            out.u64(seconds);
            out.u32(nanoseconds);
        });
        out.digest(&self.state);
    }
}

/// The stamp of an output; nothing when there is none.
pub fn stamp(path: &Path) -> Result<Option<Stamp>, OutputError> {
    look(path, true)
}

/// As [`stamp`], without looking into a directory: good for [`Stamp::is_same_object`] only.
pub(super) fn root_stamp(path: &Path) -> Result<Option<Stamp>, OutputError> {
    look(path, false)
}

fn look(path: &Path, inside: bool) -> Result<Option<Stamp>, OutputError> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("look at", path)(error)),
    };
    let mut hasher = Hasher::new();
    if inside {
        take(path, &meta, &mut hasher).map_err(io_error("look at", path))?;
    }
    let born = meta.created().ok().and_then(|time| {
        let age = time.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some((age.as_secs(), age.subsec_nanos()))
    });
    Ok(Some(Stamp {
        device: meta.dev(),
        inode: meta.ino(),
        born,
        state: hasher.finish(),
    }))
}

fn take(path: &Path, meta: &fs::Metadata, hasher: &mut Hasher) -> io::Result<()> {
    for number in [
        meta.dev(),
        meta.ino(),
        u64::from(meta.mode()),
        meta.size(),
        meta.mtime().cast_unsigned(),
        meta.mtime_nsec().cast_unsigned(),
        meta.ctime().cast_unsigned(),
        meta.ctime_nsec().cast_unsigned(),
    ] {
        hasher.update(&number.to_le_bytes());
    }
    if !meta.is_dir() {
        return Ok(());
    }
    let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        hasher.update(name.as_bytes());
        hasher.update(&[0]);
        take(&entry.path(), &entry.metadata()?, hasher)?;
    }
    Ok(())
}
