//! Small whole images, made from listings.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary is a crate of its own and uses some of it"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use immbuild::epoch::Epoch;
use immbuild::image::{BaseImage, ConfigChanges, Image, ImageLayer, ImageSpec, OwnLayer, assemble};
use immbuild::layer::{Compression, LayerPlan, LayerWriter};
use immbuild::output::Names;
use immbuild_cas::path::RelPath;
use immbuild_cas::store::{MemoryStore, Store};
use immbuild_cas::tree::{Meta, Mode, Tree, TreeBuilder, delta, tree_of_listing};

/// Two trees, the second with a change, a removal, a link and a new file.
pub const LISTINGS: [&str; 2] = [
    "d 1777 0:0 /tmp
     d 0755 0:0 /usr/bin
     f 0755 0:0 /usr/bin/hello \"#!/bin/sh\\necho hello\\n\"
     f 0644 0:0 /usr/gone \"gone\\n\"
     l      0:0 /bin -> usr/bin",
    "d 1777 0:0 /tmp
     d 0755 0:0 /usr/bin
     f 0755 0:0 /usr/bin/hello \"#!/bin/sh\\necho hello\\n\"
     f 0640 10:20 /etc/conf \"listen = 8080\\n\"
     h          /etc/conf.link => /etc/conf
     l      0:0 /bin -> usr/bin",
];

/// A tree with nothing in it.
pub fn empty(store: &MemoryStore) -> Tree {
    TreeBuilder::new(store, Meta::root(Mode::DIRECTORY))
        .seal(store)
        .expect("an empty tree")
}

/// The layer that turns `below` into `tree`, kept in the store.
pub fn layer(
    store: &MemoryStore,
    below: &Tree,
    tree: &Tree,
    compression: Compression,
) -> ImageLayer {
    let delta = delta(store, below, tree).expect("a delta");
    let plan = LayerPlan::new(store, tree, delta).expect("a plan");
    let mut bytes = Vec::new();
    let info = LayerWriter {
        blobs: store,
        epoch: Epoch::DEFAULT,
        compression,
        threads: NonZeroUsize::MIN,
        earlier: None,
        progress: &|_| (),
    }
    .write(&plan, &mut bytes)
    .expect("a layer");
    let id = store.put_bytes(&bytes).expect("stored");
    assert_eq!(id.digest(), info.digest.digest());
    ImageLayer::own(&info, compression)
}

/// An image of the trees of [`LISTINGS`] on top of a base, or of nothing, and its tree.
pub fn image(
    store: &MemoryStore,
    platform: &str,
    compression: Compression,
    base: Option<(&BaseImage, &Tree)>,
) -> (Image, Tree) {
    let mut below = base.map_or_else(|| empty(store), |(_, tree)| tree.clone());
    let mut own = Vec::new();
    for (number, listing) in LISTINGS.iter().enumerate() {
        let tree = tree_of_listing(listing, store).expect("a tree");
        own.push(OwnLayer {
            created_by: format!("step {number}"),
            layer: Some(layer(store, &below, &tree, compression)),
        });
        below = tree;
    }
    own.push(OwnLayer {
        created_by: "mkdir /tmp".into(),
        layer: None,
    });
    let changes = ConfigChanges {
        entrypoint: Some(vec!["/usr/bin/hello".into()]),
        env: BTreeMap::from([("HELLO".into(), "1".into())]),
        expose: Some(BTreeSet::from(["8080/tcp".into()])),
        labels: BTreeMap::from([("org.example.label".into(), "<a & b>".into())]),
        ..ConfigChanges::default()
    };
    let image = assemble(&ImageSpec {
        base: base.map(|(image, _)| image),
        own: &own,
        changes: &changes,
        annotations: &BTreeMap::from([("org.example.annotation".into(), "yes".into())]),
        platform: platform.parse().expect("known"),
        epoch: Epoch::DEFAULT,
    });
    (image, below)
}

/// The platform that programs of this machine are for.
pub fn host_platform() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "linux/arm64",
        _ => "linux/amd64",
    }
}

/// `registry.example.com/shop` with these tags.
pub fn names(tags: &[&str]) -> Names {
    Names {
        name: Some("registry.example.com/shop".into()),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
    }
}

/// A path of a tree.
pub fn path(text: &str) -> RelPath {
    RelPath::from_absolute(text.as_bytes()).expect("a path")
}
