//! Layers: a delta as a tar, the tar as compressed bytes, and other people's layers as trees.
//!
//! Writing has one form per format version, frozen to the byte (book, "The bytes"). Reading is strict where readers are
//! known to disagree. May use threads. Must never know where a layer goes.

mod codec;
pub mod cut;
mod members;
mod mtimes;
mod pipeline;
mod plan;
mod tar;
mod untar;

pub use codec::{BLOCK, Compression, EncoderError, Encoding, LimitError, Limited, decoder};
pub use members::MemberError;
pub use mtimes::{Mtime, Mtimes};
pub use plan::LayerPlan;
pub use untar::{Dropped, Refusal, UntarError, UntarOptions, UntarTarget, read_layer, untar};

use std::io::{self, Read, Write};
use std::num::NonZeroUsize;

use immbuild_cas::digest::{BlobId, Digest};
use immbuild_cas::path::RelPath;
use immbuild_cas::store::{BlobSource, StoreError, read_error};
use immbuild_cas::tree::{File, Meta, Mode, SpecialKind, TreeError};

use crate::epoch::Epoch;
use pipeline::{ProduceError, Stream};
use plan::Item;
use tar::{Flag, Header};

immbuild_cas::id! {
    /// Names the uncompressed bytes of a layer (OCI image-spec, config, "Layer DiffID").
    DiffId;
    /// Names the bytes of a layer as they are shipped.
    LayerDigest;
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerInfo {
    /// Digest of the tar.
    pub diff_id: DiffId,
    /// Digest of what was written.
    pub digest: LayerDigest,
    /// Length of what was written in bytes.
    pub size: u64,
    /// Length of the tar in bytes.
    pub uncompressed: u64,
}

/// Why there is no layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The name means something else in a layer.
    #[error("`{0}` cannot be in a layer: there a name that starts with `.wh.` means a deletion")]
    WhiteoutName(RelPath),
    /// Larger than Linux knows them.
    #[error("`{0}` cannot be in a layer: its device number is too large")]
    Device(RelPath),
    /// The content of a file has another length than the tree says.
    #[error("`{path}` should have {expected} bytes and has {found}")]
    Length {
        /// The file.
        path: RelPath,
        /// The length that the tree says.
        expected: u64,
        /// The length of the content, or what was read of it.
        found: u64,
    },
    /// The content of a file cannot be had.
    #[error("cannot read the content of `{path}`")]
    Content {
        /// The file.
        path: RelPath,
        /// Why.
        source: StoreError,
    },
    /// A directory of the tree cannot be had.
    #[error("cannot read the tree of the layer")]
    Tree(#[from] TreeError),
    /// There is no encoder.
    #[error("cannot compress the layer")]
    Encoder(#[from] EncoderError),
    /// Where the layer should go, it does not.
    #[error("cannot write the layer")]
    Write(#[source] io::Error),
}

/// Writes a layer: the tar of `plan` with all times set to `epoch`, compressed.
///
/// The bytes depend on the plan, the contents, the epoch and the encoder, and on nothing else. `blobs` is asked for every
/// file once, in the order of the paths, from another thread. `progress` is told how many bytes of the tar are done.
///
/// Holds a few blocks of 4 MiB for each of the `threads` that compress, at most eight.
///
/// # Errors
/// [`LayerError`]; `out` is then half-written.
pub fn write_layer(
    plan: &LayerPlan,
    blobs: &dyn BlobSource,
    epoch: Epoch,
    compression: Compression,
    threads: NonZeroUsize,
    out: &mut dyn Write,
    progress: &dyn Fn(u64),
) -> Result<LayerInfo, LayerError> {
    let expected = plan.expected_length();
    pipeline::run(compression, threads, expected, out, progress, |stream| {
        let mut header = Vec::new();
        for (path, item) in plan.entries() {
            write_header(path, item, epoch, &mut header);
            stream.put(&header)?;
            if let Item::File(file) = item {
                write_content(path, file, blobs, stream)?;
            }
        }
        Ok(stream.put_zeros(tar::END)?)
    })
}

/// So much of `length` as has `room`.
fn at_most(length: u64, room: usize) -> usize {
    usize::try_from(length).map_or(room, |length| length.min(room))
}

fn write_header(path: &[u8], item: &Item, epoch: Epoch, out: &mut Vec<u8>) {
    let none = Meta::root(Mode::of_st_mode(0));
    let owned;
    let with = |flag, meta| Header {
        path,
        flag,
        meta,
        size: 0,
        link: b"",
        device: (0, 0),
    };
    let header = match item {
        Item::Whiteout => with(Flag::File, &none),
        Item::Directory(meta) => {
            owned = if path.is_empty() {
                b"./".to_vec()
            } else {
                [path, b"/"].concat()
            };
            Header {
                path: &owned,
                ..with(Flag::Directory, meta)
            }
        }
        Item::File(file) => Header {
            size: file.size,
            ..with(Flag::File, &file.meta)
        },
        Item::HardLink { target, meta } => Header {
            link: target.as_bytes(),
            ..with(Flag::HardLink, meta)
        },
        Item::Symlink(symlink) => {
            let meta = plan::symlink_meta(symlink);
            return Header {
                link: &symlink.target,
                ..with(Flag::Symlink, &meta)
            }
            .write(epoch, out);
        }
        Item::Special(special) => {
            let (flag, device) = match special.kind {
                SpecialKind::Fifo => (Flag::Fifo, (0, 0)),
                SpecialKind::Char { major, minor } => (Flag::Char, (major, minor)),
                SpecialKind::Block { major, minor } => (Flag::Block, (major, minor)),
            };
            Header {
                device,
                ..with(flag, &special.meta)
            }
        }
    };
    header.write(epoch, out);
}

/// Copies the content of a file into the stream, with its padding, and checks that it is the right one.
fn write_content(
    path: &[u8],
    file: &File,
    blobs: &dyn BlobSource,
    stream: &mut Stream,
) -> Result<(), ProduceError> {
    let path = || RelPath::new(path).expect("only whiteouts have paths that are none of a tree");
    if file.size == 0 && file.blob == BlobId::new(Digest::of(b"")) {
        return Ok(());
    }
    let failed = |source| LayerError::Content {
        path: path(),
        source,
    };
    let length = |found| LayerError::Length {
        path: path(),
        expected: file.size,
        found,
    };
    let mut reader = blobs.open(&file.blob).map_err(failed)?;
    let mut left = file.size;
    while left > 0 {
        match stream.put_read(&mut *reader, left)? {
            Ok(0) => return Err(length(file.size - left).into()),
            Ok(count) => left -= count as u64,
            Err(error) => return Err(failed(read_error(file.blob.digest(), error)).into()),
        }
    }
    // The last read is the one that checks the digest.
    match reader.read(&mut [0]) {
        Ok(0) => Ok(stream.put_zeros(tar::padding(file.size))?),
        Ok(more) => Err(length(file.size + more as u64).into()),
        Err(error) => Err(failed(read_error(file.blob.digest(), error)).into()),
    }
}

#[cfg(test)]
mod tests;
