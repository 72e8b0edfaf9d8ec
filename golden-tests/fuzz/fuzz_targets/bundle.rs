//! A tree from a peer: what is taken is the whole tree and nothing else, so that it is written as it was read.
//!
//! Digests are out of a fuzzer's reach: the input is objects, which are put in order here, or, if it begins as one, a bundle.
#![no_main]

use std::collections::BTreeMap;

use immbuild_cas::canonical::Canonical as _;
use immbuild_cas::digest::{Digest, TreeId};
use immbuild_cas::store::MemoryStore;
use immbuild_cas::tree::bundle;
use immbuild_cas::tree::{Tree, tree_of_listing};
use libfuzzer_sys::fuzz_target;

const MAGIC: &[u8] = b"immbuild-bundle 1\n";

/// Objects, each after two bytes that say its length: the bundle of them all.
fn framed(mut input: &[u8]) -> Vec<u8> {
    let mut objects = BTreeMap::new();
    while let Some(([high, low], rest)) = input.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (object, rest) = rest.split_at(length);
        objects.insert(Digest::of(object), object);
        input = rest;
    }
    let mut bundle = MAGIC.to_vec();
    for object in objects.values() {
        bundle.extend((object.len() as u64).to_be_bytes());
        bundle.extend_from_slice(object);
    }
    bundle
}

/// Every tree among the objects of a bundle.
fn trees(bundle: &[u8]) -> Vec<TreeId> {
    let mut rest = &bundle[MAGIC.len().min(bundle.len())..];
    let mut trees = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = usize::try_from(u64::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let (object, after) = after.split_at(length.min(after.len()));
        if let Ok(tree) = Tree::decode_strict(object) {
            trees.push(tree.id());
        }
        rest = after;
    }
    trees
}

/// One that a bundle can be smaller by.
fn base(store: &MemoryStore) -> Tree {
    tree_of_listing("f 0644 0:0 /a \"one\\n\"\n", store).expect("a tree")
}

fuzz_target!(|input: &[u8]| {
    let bundle = if input.starts_with(MAGIC) {
        input.to_vec()
    } else {
        framed(input)
    };
    for id in trees(&bundle) {
        for beside in [false, true] {
            let store = MemoryStore::new();
            let base = beside.then(|| base(&store));
            let read = bundle::read(&mut bundle.as_slice(), &id, base.as_ref(), &store);
            let Ok(tree) = read else { continue };
            assert_eq!(tree.id(), id);
            let mut written = Vec::new();
            bundle::write(&store, &tree, base.as_ref(), &mut written).expect("all of it is there");
            assert!(written == bundle, "one tree has two bundles");
        }
    }
});
