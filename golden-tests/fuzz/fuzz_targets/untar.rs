//! A tar from anybody, as a layer and as an archive: the tree, written as a layer and read again, is the same.
#![no_main]

use std::num::NonZeroUsize;

use immbuild::epoch::Epoch;
use immbuild::layer::{
    Compression, LayerError, LayerPlan, LayerWriter, Mtimes, UntarError, UntarOptions,
    UntarTarget, untar,
};
use immbuild_cas::store::MemoryStore;
use immbuild_cas::tree::{Meta, Mode, Tree, TreeBuilder, delta, to_listing};
use libfuzzer_sys::fuzz_target;

// The first byte says how the rest is read.
fuzz_target!(|input: &[u8]| {
    let Some((how, tar)) = input.split_first() else {
        return;
    };
    let tar = &summed(tar);
    let options = UntarOptions {
        entries_max: 1 << 10,
        bytes_max: 1 << 20,
        ..match how % 4 {
            0 => UntarOptions::LAYER,
            1 => UntarOptions::archive(0, true),
            2 => UntarOptions::archive(1, false),
            _ => UntarOptions {
                whiteouts: false,
                ..UntarOptions::LAYER
            },
        }
    };
    let store = MemoryStore::new();
    let Ok(tree) = read(tar, &options, &store) else {
        return;
    };
    to_listing(&store, &tree).expect("all of the tree is in the store");

    let nothing = empty(&store);
    let changes = delta(&store, &nothing, &tree).expect("both trees are in the store");
    let plan = match LayerPlan::new(&store, &tree, changes) {
        Ok(plan) => plan,
        // An archive may have such names, a layer may not.
        Err(LayerError::WhiteoutName(_)) if !options.whiteouts => return,
        Err(error) => panic!("{error}"),
    };
    let mut layer = Vec::new();
    LayerWriter {
        blobs: &store,
        epoch: Epoch::DEFAULT,
        compression: Compression::None,
        threads: NonZeroUsize::MIN,
        earlier: None,
        progress: &|_| {},
    }
    .write(&plan, &mut layer)
    .expect("all content is in the store");
    let again = read(&layer, &UntarOptions::LAYER, &store).expect("what we write is a layer");
    assert_eq!(
        to_listing(&store, &again).expect("in the store"),
        to_listing(&store, &tree).expect("in the store")
    );
    assert_eq!(again, tree);
});

/// The archive with a right sum in each header, which no mutation would find.
fn summed(tar: &[u8]) -> Vec<u8> {
    let mut tar = tar.to_vec();
    for block in tar.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    tar
}

fn empty(store: &MemoryStore) -> Tree {
    TreeBuilder::new(store, Meta::root(Mode::DIRECTORY))
        .seal(store)
        .expect("the memory takes it")
}

fn read(tar: &[u8], options: &UntarOptions, store: &MemoryStore) -> Result<Tree, UntarError> {
    let mut tree = TreeBuilder::new(store, Meta::root(Mode::DIRECTORY));
    let target = UntarTarget {
        tree: &mut tree,
        store,
        mtimes: &mut Mtimes::default(),
        dropped: &mut Vec::new(),
    };
    let mut reader = tar;
    untar(&mut reader, options, target)?;
    Ok(tree.seal(store).expect("the memory takes it"))
}
