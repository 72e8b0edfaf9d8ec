//! Layers: a delta as a tar, the tar as compressed bytes, and other people's layers as trees.
//!
//! Writing has one form per format version, frozen to the byte (book, "The bytes"). Reading is strict where readers are
//! known to disagree. May use threads. Must never know where a layer goes.

mod blocks;
mod codec;
pub mod cut;
mod members;
mod mtimes;
mod pipeline;
mod plan;
mod salvage;
mod tar;
mod untar;

pub use blocks::{Blocks, Earlier};
pub use codec::{
    BLOCK, Compressing, Compression, Deflater, EncoderError, Encoding, LimitError, Limited, crc32,
    decoder,
};
pub use members::MemberError;
pub use mtimes::{Mtime, Mtimes};
pub use plan::LayerPlan;
pub use untar::{
    Dropped, Refusal, UntarError, UntarOptions, UntarTarget, read_layer, untar, untar_listed,
};

use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::ops::Range;

use immbuild_cas::digest::{BlobId, Digest};
use immbuild_cas::path::RelPath;
use immbuild_cas::store::{BlobSource, StoreError, read_error};
use immbuild_cas::tree::{File, Meta, Mode, SpecialKind, TreeError};

use crate::epoch::Epoch;
use blocks::{Cutter, Draft, Piece};
use pipeline::{ProduceError, Stream, Work};
use plan::Item;
use salvage::Salvage;
use tar::{Flag, Header};

immbuild_cas::id! {
    /// Names the uncompressed bytes of a layer (OCI image-spec, config, "Layer DiffID").
    DiffId;
    /// Names the bytes of a layer as they are shipped.
    LayerDigest;
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerInfo {
    /// Digest of the tar.
    pub diff_id: DiffId,
    /// Digest of what was written.
    pub digest: LayerDigest,
    /// Length of what was written in bytes.
    pub size: u64,
    /// Length of the tar in bytes.
    pub uncompressed: u64,
    /// What it is made of, for the layer after the next change.
    pub blocks: Blocks,
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
    /// A block of the earlier layer is not what it was.
    #[error("the layer that was written before is damaged")]
    Earlier,
    /// Where the layer should go, it does not.
    #[error("cannot write the layer")]
    Write(#[source] io::Error),
}

/// What a layer is written with.
#[derive(Clone, Copy)]
pub struct LayerWriter<'a> {
    /// Where content is. Asked for files in the order of their paths, from another thread.
    pub blobs: &'a dyn BlobSource,
    /// The one time in it.
    pub epoch: Epoch,
    /// How it is compressed.
    pub compression: Compression,
    /// How many threads compress, at most eight. Each holds a few blocks of 4 MiB.
    pub threads: NonZeroUsize,
    /// What blocks may be taken from; of those no content is read.
    pub earlier: Option<&'a Earlier>,
    /// Is told how many bytes of the tar are done.
    pub progress: &'a dyn Fn(u64),
}

impl LayerWriter<'_> {
    /// Writes a layer: the tar of `plan`, compressed.
    ///
    /// The bytes depend on the plan, the contents, the epoch and the encoder, and on nothing else.
    ///
    /// # Errors
    /// [`LayerError`]; `out` is then half-written.
    pub fn write(&self, plan: &LayerPlan, out: &mut dyn Write) -> Result<LayerInfo, LayerError> {
        let Self {
            blobs,
            epoch,
            compression,
            threads,
            earlier,
            progress,
        } = *self;
        let expected = plan.expected_length();
        pipeline::run(compression, threads, expected, out, progress, |stream| {
            let mut filler = Filler {
                blobs,
                open: None,
                salvage: earlier.map(|earlier| Salvage::new(earlier, compression)),
            };
            // How many blocks are the same as those of the earlier layer from its start on.
            let (mut sent, mut same) = (0, 0);
            let mut cutter = Cutter::new(|draft: &Draft<'_>| {
                let key = draft.key(compression);
                let known = earlier.and_then(|earlier| earlier.find(&key));
                let work = if let Some((nth, block)) = known {
                    filler.skip(nth);
                    if (nth, sent) == (same, same) {
                        same += 1;
                        Work::Repeat(block)
                    } else {
                        Work::TakeOver(block)
                    }
                } else {
                    filler.fill(draft, stream)?;
                    Work::Encode
                };
                sent += 1;
                Ok::<_, ProduceError>(stream.send(key, work)?)
            });
            let mut header = Vec::new();
            for (path, item) in plan.entries() {
                write_header(path, item, epoch, &mut header);
                let file = match item {
                    Item::File(file) => Some(file),
                    _ => None,
                };
                cutter.entry(path, &header, file)?;
            }
            cutter.zeros(tar::END)?;
            cutter.finish()
        })
    }
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

/// A content that is read further in the next block, and how much of it was read.
struct Open<'a> {
    file: File,
    reader: Box<dyn Read + Send + 'a>,
    at: u64,
}

/// Fills blocks with contents.
struct Filler<'a> {
    blobs: &'a dyn BlobSource,
    open: Option<Open<'a>>,
    salvage: Option<Salvage<'a>>,
}

impl Filler<'_> {
    /// The earlier block of this place is taken instead of filling one.
    fn skip(&mut self, nth: usize) {
        if let Some(salvage) = &mut self.salvage {
            salvage.taken_over(nth);
        }
    }

    fn fill(&mut self, draft: &Draft<'_>, stream: &mut Stream<'_>) -> Result<(), LayerError> {
        if let Some(salvage) = &mut self.salvage {
            salvage.look_for(draft);
        }
        for piece in &draft.pieces {
            match piece {
                Piece::Bytes(range) => stream.put(&draft.bytes[range.clone()]),
                Piece::Zeros(count) => stream.put_zeros(*count),
                Piece::Content {
                    path,
                    file,
                    from,
                    length,
                } => self.content(path, file, *from..*from + *length, stream)?,
            }
        }
        Ok(())
    }

    /// Copies a part of a file into the stream, and checks at its end that the content is the right one.
    fn content(
        &mut self,
        path: &[u8],
        file: &File,
        part: Range<u64>,
        stream: &mut Stream<'_>,
    ) -> Result<(), LayerError> {
        if file.size == 0 && file.blob == BlobId::new(Digest::of(b"")) {
            return Ok(());
        }
        if part == (0..file.size)
            && let Some(salvage) = &mut self.salvage
            && let Some(content) = salvage.content(path, file)
        {
            stream.put(&content);
            return Ok(());
        }
        let path =
            || RelPath::new(path).expect("only whiteouts have paths that are none of a tree");
        let failed = |source| LayerError::Content {
            path: path(),
            source,
        };
        let unreadable = |error| failed(read_error(file.blob.digest(), error));
        let length = |found| LayerError::Length {
            path: path(),
            expected: file.size,
            found,
        };
        let mut content = match self.open.take() {
            Some(open) if open.file == *file && open.at == part.start => open,
            _ => {
                let mut reader = self.blobs.open(&file.blob).map_err(failed)?;
                // What is in blocks of an earlier layer: a digest is checked from the start.
                let skipped = io::copy(&mut (&mut reader).take(part.start), &mut io::sink());
                Open {
                    file: file.clone(),
                    reader,
                    at: skipped.map_err(unreadable)?,
                }
            }
        };
        while content.at < part.end {
            match stream.put_read(&mut content.reader, part.end - content.at) {
                Ok(0) => return Err(length(content.at)),
                Ok(count) => content.at += count as u64,
                Err(error) => return Err(unreadable(error)),
            }
        }
        if part.end < file.size {
            self.open = Some(content);
            return Ok(());
        }
        // The last read is the one that checks the digest.
        match content.reader.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(more) => Err(length(file.size + more as u64)),
            Err(error) => Err(unreadable(error)),
        }
    }
}

#[cfg(test)]
mod tests;
