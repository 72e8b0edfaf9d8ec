//! Where the stream of a layer is cut into blocks, and blocks that an earlier layer has already.
//!
//! Cuts are where the entries around them say so, not where a count is full: after a change, all but the blocks around it are
//! what they were. A block is described before any content is read, and the description decides its bytes, so a block with
//! the same description is taken over in its compressed form. Must never know the store.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use immbuild_cas::canonical::{Canonical, DecodeError, Decoder, Encoder};
use immbuild_cas::digest::{Digest, Hasher};
use immbuild_cas::tree::File;

use super::at_most;
use super::codec::{BLOCK, Compression};
use super::tar::padding;

/// A block that ends before an entry has at least so many bytes, unless that entry is as long itself. Part of `zstd/1` and
/// `gzip/1`: changing it changes image bytes.
const LEAST: usize = 2 << 20;

/// Of the entries that could begin a new block, so many bytes have one on average that does. Shorter blocks make layers larger
/// (these, 1.6 % more than blocks that are always full), longer ones are found again later after a change. Part of `zstd/1`
/// and `gzip/1`: changing it changes image bytes.
const SPREAD: u64 = 1 << 20;

/// A part of a block.
pub(super) enum Piece<'p> {
    /// These of the draft's bytes.
    Bytes(Range<usize>),
    /// Zeros.
    Zeros(usize),
    /// `length` bytes of a file from `from` on.
    Content {
        path: &'p [u8],
        file: &'p File,
        from: u64,
        length: u64,
    },
}

/// A block whose content was not read yet.
#[derive(Default)]
pub(super) struct Draft<'p> {
    pub(super) pieces: Vec<Piece<'p>>,
    pub(super) bytes: Vec<u8>,
    length: usize,
    /// Path of the last entry of which something is in it.
    pub(super) last: &'p [u8],
}

impl Draft<'_> {
    /// Names everything that decides the bytes of the block and of its compressed form.
    pub(super) fn key(&self, compression: Compression) -> BlockKey {
        let mut out = Encoder::default();
        out.str("block");
        out.str(compression.encoder_id());
        out.digest(&Digest::of(&self.bytes));
        out.sequence(self.pieces.iter(), |out, piece| match piece {
            Piece::Bytes(range) => {
                out.u8(0);
                out.count(range.len());
            }
            Piece::Zeros(count) => {
                out.u8(1);
                out.count(*count);
            }
            Piece::Content {
                file, from, length, ..
            } => {
                out.u8(2);
                out.digest(file.blob.digest());
                out.u64(*from);
                out.u64(*length);
            }
        });
        BlockKey::new(Digest::of(&out.into_bytes()))
    }

    fn clear(&mut self) {
        self.pieces.clear();
        self.bytes.clear();
        self.length = 0;
    }
}

/// Cuts entries into blocks and hands on each draft that is complete.
pub(super) struct Cutter<'p, F> {
    draft: Draft<'p>,
    /// Length of the entry before, with its headers and padding.
    before: u64,
    complete: F,
}

impl<'p, E, F: FnMut(&Draft<'p>) -> Result<(), E>> Cutter<'p, F> {
    pub(super) fn new(complete: F) -> Self {
        Self {
            draft: Draft::default(),
            before: 0,
            complete,
        }
    }

    /// Appends an entry: its headers, its content if it has one, and the padding.
    pub(super) fn entry(
        &mut self,
        path: &'p [u8],
        header: &[u8],
        file: Option<&'p File>,
    ) -> Result<(), E> {
        let size = file.map_or(0, |file| file.size);
        let length = (header.len() as u64)
            .saturating_add(size)
            .saturating_add(padding(size) as u64);
        if self.is_cut_before(path, length) {
            self.complete()?;
        }
        self.draft.last = path;
        self.bytes(header)?;
        if let Some(file) = file {
            self.content(path, file)?;
        }
        self.zeros(padding(size))?;
        self.before = length;
        Ok(())
    }

    /// Appends zeros, of which there are some at the end of an archive.
    pub(super) fn zeros(&mut self, mut count: usize) -> Result<(), E> {
        while count > 0 {
            let part = count.min(self.room()?);
            self.draft.pieces.push(Piece::Zeros(part));
            self.draft.length += part;
            count -= part;
        }
        Ok(())
    }

    /// Hands on what is left.
    pub(super) fn finish(mut self) -> Result<(), E> {
        if self.draft.length > 0 {
            self.complete()?;
        }
        Ok(())
    }

    /// The book, "The bytes", "Blocks".
    fn is_cut_before(&self, path: &[u8], length: u64) -> bool {
        if length >= LEAST as u64 {
            return self.draft.length > 0;
        }
        if self.draft.length < LEAST {
            return false;
        }
        let [a, b, c, d, ..] = *Digest::of(path).as_bytes();
        let number = u64::from(u32::from_be_bytes([a, b, c, d]));
        number * SPREAD < self.before.min(SPREAD) << 32
    }

    fn bytes(&mut self, mut bytes: &[u8]) -> Result<(), E> {
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at(bytes.len().min(self.room()?));
            let start = self.draft.bytes.len();
            self.draft.bytes.extend_from_slice(part);
            let end = self.draft.bytes.len();
            self.draft.pieces.push(Piece::Bytes(start..end));
            self.draft.length += part.len();
            bytes = rest;
        }
        Ok(())
    }

    fn content(&mut self, path: &'p [u8], file: &'p File) -> Result<(), E> {
        let mut from = 0;
        loop {
            // Content of no bytes is a piece, too: whoever reads it checks that there are none.
            let room = if from < file.size { self.room()? } else { 0 };
            let length = at_most(file.size - from, room);
            self.draft.pieces.push(Piece::Content {
                path,
                file,
                from,
                length: length as u64,
            });
            self.draft.length += length;
            from += length as u64;
            if from == file.size {
                return Ok(());
            }
        }
    }

    /// How much the block still takes, at least 1.
    fn room(&mut self) -> Result<usize, E> {
        if self.draft.length == BLOCK {
            self.complete()?;
        }
        Ok(BLOCK - self.draft.length)
    }

    fn complete(&mut self) -> Result<(), E> {
        (self.complete)(&self.draft)?;
        self.draft.clear();
        Ok(())
    }
}

immbuild_cas::id! {
    /// Names what a block says and how it is compressed.
    BlockKey;
}

/// A block as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WrittenBlock {
    pub(super) key: BlockKey,
    /// How many bytes it has in the layer.
    pub(super) length: u32,
    /// How many bytes of the tar they stand for.
    pub(super) uncompressed: u32,
    /// States of the hashers of the tar and of the layer behind it. The second, with the one before it, is also what the
    /// bytes in the layer are checked by.
    pub(super) states: (Vec<u8>, Vec<u8>),
}

/// The blocks of a layer, one after another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks(pub(super) Vec<WrittenBlock>);

impl Blocks {
    /// Reads a canonical encoding and nothing else.
    pub fn decode_strict(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new::<Self>(bytes)?;
        let blocks = (0..decoder.count()?)
            .map(|_| {
                Ok(WrittenBlock {
                    key: BlockKey::new(decoder.digest()?),
                    length: decoder.u32()?,
                    uncompressed: decoder.u32()?,
                    states: (decoder.bytes()?.to_vec(), decoder.bytes()?.to_vec()),
                })
            })
            .collect::<Result<_, DecodeError>>()?;
        decoder.finish()?;
        Ok(Self(blocks))
    }
}

impl Canonical for Blocks {
    const TAG: &'static str = "blocks";
    const VERSION: u32 = 2;

    fn encode_fields(&self, out: &mut Encoder) {
        out.sequence(self.0.iter(), |out, block| {
            out.digest(block.key.digest());
            out.u32(block.length);
            out.u32(block.uncompressed);
            out.bytes(&block.states.0);
            out.bytes(&block.states.1);
        });
    }
}

/// A layer that was written before, whose blocks are taken over where they say the same.
#[derive(Debug)]
pub struct Earlier {
    layer: fs::File,
    /// Where each begins in the layer.
    blocks: Vec<(u64, WrittenBlock)>,
    places: BTreeMap<BlockKey, usize>,
}

impl Earlier {
    /// The layer in this file, which has these blocks.
    pub fn new(layer: fs::File, blocks: &Blocks) -> Self {
        let mut end = 0;
        let placed = blocks.0.iter().map(|block| {
            let start = end;
            end += u64::from(block.length);
            (start, block.clone())
        });
        Self {
            layer,
            blocks: placed.collect(),
            places: blocks.0.iter().map(|block| block.key).zip(0..).collect(),
        }
    }

    /// The block that says the same, and its place.
    pub(super) fn find(&self, key: &BlockKey) -> Option<(usize, EarlierBlock<'_>)> {
        let nth = *self.places.get(key)?;
        Some((nth, self.block(nth)?))
    }

    pub(super) fn block(&self, nth: usize) -> Option<EarlierBlock<'_>> {
        let (at, block) = self.blocks.get(nth)?;
        let before = nth.checked_sub(1).map(|nth| &self.blocks[nth].1);
        Some(EarlierBlock {
            layer: &self.layer,
            at: *at,
            before,
            block,
        })
    }
}

/// A block of an earlier layer.
#[derive(Clone, Copy)]
pub(super) struct EarlierBlock<'a> {
    layer: &'a fs::File,
    at: u64,
    before: Option<&'a WrittenBlock>,
    pub(super) block: &'a WrittenBlock,
}

impl EarlierBlock<'_> {
    /// Replaces `stands` by the bytes in the layer, and the first bytes of `block` by those that they stand for. Gives how
    /// many these are; nothing if they are not what they were.
    pub(super) fn read(
        &self,
        compression: Compression,
        stands: &mut Vec<u8>,
        block: &mut [u8],
    ) -> Option<usize> {
        self.read_encoded(stands)?;
        let count = self.block.uncompressed as usize;
        let is_same = compression.decode(stands, block.get_mut(..count)?).ok()?;
        is_same.then_some(count)
    }

    /// Replaces `stands` by the bytes in the layer; gives nothing if they are not what they were.
    pub(super) fn read_encoded(&self, stands: &mut Vec<u8>) -> Option<()> {
        stands.resize(self.block.length as usize, 0);
        self.layer.read_exact_at(stands, self.at).ok()?;
        let mut hasher = match self.before {
            Some(before) => Hasher::resume(&before.states.1)?,
            None => Hasher::new(),
        };
        hasher.update(stands);
        (hasher.state() == self.block.states.1).then_some(())
    }
}
