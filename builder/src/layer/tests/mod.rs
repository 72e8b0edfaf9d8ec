//! What layers are made of, read back by everybody who has to.

mod blocks;
mod encoders;
mod reading;
mod writing;

use std::io::{self, Read};
use std::num::NonZeroUsize;

use immbuild_cas::digest::BlobId;
use immbuild_cas::store::{BlobSource, MemoryStore, Store, StoreError};
use immbuild_cas::tree::{
    Delta, Meta, Mode, Tree, TreeBuilder, delta, to_listing, tree_of_listing,
};

use super::*;

fn tree(store: &MemoryStore, listing: &str) -> Tree {
    tree_of_listing(listing, store).expect("a listing")
}

fn empty(store: &MemoryStore) -> Tree {
    TreeBuilder::new(store, Meta::root(Mode::DIRECTORY))
        .seal(store)
        .expect("a tree")
}

fn plan(store: &MemoryStore, old: &Tree, new: &Tree) -> LayerPlan {
    let delta: Delta = delta(store, old, new).expect("a delta");
    LayerPlan::new(store, new, delta).expect("a plan")
}

/// The uncompressed layer that turns `old` into `new`.
fn layer(store: &MemoryStore, old: &Tree, new: &Tree) -> Vec<u8> {
    write(&plan(store, old, new), store, Compression::None, 2).0
}

fn write(
    plan: &LayerPlan,
    blobs: &dyn BlobSource,
    compression: Compression,
    threads: usize,
) -> (Vec<u8>, LayerInfo) {
    let threads = NonZeroUsize::new(threads).expect("some threads");
    let mut bytes = Vec::new();
    let info = LayerWriter {
        blobs,
        epoch: Epoch::DEFAULT,
        compression,
        threads,
        earlier: None,
        progress: &|_| (),
    }
    .write(plan, &mut bytes)
    .expect("a layer");
    assert_eq!(info.digest, LayerDigest::new(Digest::of(&bytes)));
    assert_eq!(info.size, bytes.len() as u64);
    (bytes, info)
}

/// Applies an archive to a tree.
fn read_onto(
    store: &MemoryStore,
    base: &Tree,
    archive: &[u8],
    options: &UntarOptions,
) -> Result<(Tree, Mtimes, Vec<Dropped>), UntarError> {
    let mut tree = TreeBuilder::from_tree(store, base);
    let (mut mtimes, mut dropped) = (Mtimes::default(), Vec::new());
    untar(
        &mut &*archive,
        options,
        UntarTarget {
            tree: &mut tree,
            store,
            mtimes: &mut mtimes,
            dropped: &mut dropped,
        },
    )?;
    Ok((tree.seal(store).expect("a tree"), mtimes, dropped))
}

fn listing(store: &MemoryStore, tree: &Tree) -> String {
    to_listing(store, tree).expect("a listing")
}

/// An error and what it comes from, as it is shown to people.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Bytes that are neither all alike nor all noise.
fn bytes(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            match state.to_le_bytes() {
                [_, _, _, 0..0x80] => b'a',
                [_, _, noise, _] => noise,
            }
        })
        .collect()
}

/// Gives contents in pieces of odd sizes.
struct Dribble<'a>(&'a MemoryStore);

impl BlobSource for Dribble<'_> {
    fn open(&self, id: &BlobId) -> Result<Box<dyn Read + Send + '_>, StoreError> {
        struct Pieces<R>(R, usize);
        impl<R: Read> Read for Pieces<R> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.1 = (self.1 * 31 + 7) % 70_001;
                let most = buffer.len().min(self.1 + 1);
                self.0.read(&mut buffer[..most])
            }
        }
        Ok(Box::new(Pieces(self.0.open(id)?, 0)))
    }
}
