//! Contents out of an earlier layer, for the blocks around a change: there they stand together, and a thousand small files
//! need not be opened again.

use std::collections::BTreeMap;
use std::io::Read as _;

use immbuild_cas::digest::{BlobId, Digest};
use immbuild_cas::tree::File;

use super::blocks::{Draft, Earlier};
use super::codec::{BLOCK, Compression};
use super::members::Members;

/// After so many blocks with nothing of use, no more are looked at until one is taken over.
const FRUITLESS: u32 = 4;

/// Follows the blocks of an earlier layer while a new one is written: both are in the order of their paths.
pub(super) struct Salvage<'e> {
    earlier: &'e Earlier,
    compression: Compression,
    /// The next block to look into.
    next: usize,
    fruitless: u32,
    /// Path of the last entry seen.
    seen: Vec<u8>,
    contents: BTreeMap<Vec<u8>, Vec<u8>>,
    stands: Vec<u8>,
    block: Box<[u8]>,
}

impl<'e> Salvage<'e> {
    pub(super) fn new(earlier: &'e Earlier, compression: Compression) -> Self {
        Self {
            earlier,
            compression,
            next: 0,
            fruitless: 0,
            seen: Vec::new(),
            contents: BTreeMap::new(),
            stands: Vec::new(),
            block: Box::default(),
        }
    }

    /// The block of this place was taken over as a whole.
    pub(super) fn taken_over(&mut self, nth: usize) {
        self.next = nth + 1;
        self.fruitless = 0;
        self.contents.clear();
    }

    /// Looks into the blocks that may have contents of this one.
    pub(super) fn look_for(&mut self, draft: &Draft<'_>) {
        while self.seen.as_slice() < draft.last && self.fruitless < FRUITLESS {
            let Some(block) = self.earlier.block(self.next) else {
                return;
            };
            self.next += 1;
            self.fruitless += 1;
            if self.block.is_empty() {
                self.block = vec![0; BLOCK].into();
            }
            let read = block.read(self.compression, &mut self.stands, &mut self.block);
            if let Some(count) = read {
                self.take_contents(count);
            }
        }
    }

    /// A block that begins inside an entry has none that can be told, and the last entry may go on in the next block.
    fn take_contents(&mut self, count: usize) {
        let mut reader = &self.block[..count];
        let mut members = Members::new(&mut reader, count as u64);
        while let Ok(Some(member)) = members.next() {
            self.seen.clone_from(&member.path);
            let mut content = Vec::new();
            if member.size > 0 && members.content().read_to_end(&mut content).is_ok() {
                self.contents.insert(member.path, content);
            }
        }
    }

    /// The content of this file, if it stood under the same path before. It is what its digest says.
    pub(super) fn content(&mut self, path: &[u8], file: &File) -> Option<Vec<u8>> {
        let content = self.contents.remove(path)?;
        let is_it =
            content.len() as u64 == file.size && BlobId::new(Digest::of(&content)) == file.blob;
        if !is_it {
            return None;
        }
        self.fruitless = 0;
        Some(content)
    }
}
