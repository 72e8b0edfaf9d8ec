//! How fast layers are written and read: bytes of tar per second.
//!
//! `cargo bench -p immbuild --bench layer`
#![allow(
    clippy::disallowed_methods,
    reason = "how fast it is on all CPUs is the question"
)]

use std::hint::black_box;
use std::io::{self, Read};
use std::num::NonZeroUsize;

use divan::Bencher;
use divan::counter::BytesCount;
use immbuild::epoch::Epoch;
use immbuild::layer::{
    Compression, LayerPlan, LayerWriter, Mtimes, UntarTarget, decoder, read_layer,
};
use immbuild_cas::path::RelPath;
use immbuild_cas::store::{MemoryStore, Store};
use immbuild_cas::tree::{Entry, File, Meta, Mode, Tree, TreeBuilder, delta};

fn main() {
    divan::main();
}

/// Text-like bytes: words from a small vocabulary.
fn text(length: usize, mut state: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 16);
    while bytes.len() < length {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        bytes.extend_from_slice(format!("{:x} ", (state >> 33) % 5000).as_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// `count` files of `length` bytes each, 100 in a directory.
fn planned(count: usize, length: usize) -> (MemoryStore, LayerPlan) {
    let store = MemoryStore::new();
    let empty = TreeBuilder::new(&store, Meta::root(Mode::DIRECTORY))
        .seal(&store)
        .expect("a tree");
    let mut tree = TreeBuilder::from_tree(&store, &empty);
    for index in 0..count {
        let path = |text: String| RelPath::new(text.into_bytes()).expect("a path");
        let directory = index / 100;
        tree.make_directory(&path(format!("{directory}")), Meta::root(Mode::DIRECTORY))
            .expect("a directory");
        let blob = store
            .put_bytes(&text(length, index as u64))
            .expect("a blob");
        let meta = Meta::root(Mode::FILE);
        let size = length as u64;
        tree.insert(
            &path(format!("{directory}/{index}")),
            Entry::File(File { blob, size, meta }),
        )
        .expect("a file");
    }
    let tree: Tree = tree.seal(&store).expect("a tree");
    let delta = delta(&store, &empty, &tree).expect("a delta");
    let plan = LayerPlan::new(&store, &tree, delta).expect("a plan");
    (store, plan)
}

fn write(bencher: Bencher<'_, '_>, compression: Compression, count: usize, length: usize) {
    let (store, plan) = planned(count, length);
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    bencher
        .counter(BytesCount::new(plan.expected_length()))
        .bench_local(|| {
            LayerWriter {
                blobs: &store,
                epoch: Epoch::DEFAULT,
                compression,
                threads,
                earlier: None,
                progress: &|_| (),
            }
            .write(black_box(&plan), &mut io::sink())
            .expect("a layer")
        });
}

const ALL: [Compression; 3] = [Compression::None, Compression::Zstd, Compression::Gzip];

#[divan::bench(args = ALL, sample_count = 5)]
fn eight_large_files(bencher: Bencher<'_, '_>, compression: Compression) {
    write(bencher, compression, 8, 16 << 20);
}

#[divan::bench(args = ALL, sample_count = 5)]
fn many_small_files(bencher: Bencher<'_, '_>, compression: Compression) {
    write(bencher, compression, 20_000, 2_000);
}

#[divan::bench(args = ALL, sample_count = 5)]
fn read_back(bencher: Bencher<'_, '_>, compression: Compression) {
    let (store, plan) = planned(5_000, 10_000);
    let mut layer = Vec::new();
    let threads = NonZeroUsize::MIN;
    LayerWriter {
        blobs: &store,
        epoch: Epoch::DEFAULT,
        compression,
        threads,
        earlier: None,
        progress: &|_| (),
    }
    .write(&plan, &mut layer)
    .expect("a layer");
    bencher
        .counter(BytesCount::new(plan.expected_length()))
        .bench_local(|| {
            let mut reader: Box<dyn Read> = decoder(&layer[..]).expect("a layer");
            let mut tree = TreeBuilder::new(&store, Meta::root(Mode::DIRECTORY));
            let target = UntarTarget {
                tree: &mut tree,
                store: &store,
                mtimes: &mut Mtimes::default(),
                dropped: &mut Vec::new(),
            };
            read_layer(&mut *reader, target).expect("a layer");
        });
}
