//! Where blocks end, and that a layer made with an earlier one is the layer made without.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Mutex;

use immbuild_cas::canonical::Canonical as _;

use super::*;

/// What blobs were asked for.
struct Asked<'a>(&'a MemoryStore, Mutex<BTreeSet<BlobId>>);

impl BlobSource for Asked<'_> {
    fn open(&self, id: &BlobId) -> Result<Box<dyn Read + Send + '_>, StoreError> {
        self.1.lock().expect("not poisoned").insert(*id);
        self.0.open(id)
    }
}

/// `count` files of some 3000 bytes; the first lines of those in `changed` are other ones, and longer.
fn many(store: &MemoryStore, count: usize, changed: &[usize]) -> Tree {
    let mut listing = String::new();
    for number in 0..count {
        let seed = u32::try_from(number).expect("not that many");
        let mut content = bytes(2_000 + number * 7 % 2_000, seed);
        if changed.contains(&number) {
            content.splice(0..0, vec![b'!'; 700]);
        }
        let blob = store.put_bytes(&content).expect("a blob");
        let length = content.len();
        writeln!(listing, "f 0644 0:0 /d/{number:05} {blob} {length}").expect("a string");
    }
    tree(store, &listing)
}

/// A layer in a file, as it is found again for the next one.
fn earlier(bytes: &[u8], info: &LayerInfo) -> Earlier {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).expect("the disk takes it");
    let blocks = info.blocks.to_canonical();
    let blocks = Blocks::decode_strict(&blocks).expect("what we encode we decode");
    assert_eq!(blocks, info.blocks);
    Earlier::new(file, &blocks)
}

fn write_after(
    plan: &LayerPlan,
    blobs: &dyn BlobSource,
    compression: Compression,
    earlier: &Earlier,
) -> Result<(Vec<u8>, LayerInfo), LayerError> {
    let mut bytes = Vec::new();
    let writer = LayerWriter {
        blobs,
        epoch: Epoch::DEFAULT,
        compression,
        threads: NonZeroUsize::new(3).expect("three"),
        earlier: Some(earlier),
        progress: &|_| (),
    };
    let info = writer.write(plan, &mut bytes)?;
    Ok((bytes, info))
}

const ALL: [Compression; 3] = [Compression::Zstd, Compression::Gzip, Compression::None];

#[test]
fn an_earlier_layer_saves_work_and_changes_nothing() {
    let store = MemoryStore::new();
    let nothing = empty(&store);
    let before = plan(&store, &nothing, &many(&store, 8_000, &[]));
    let after = plan(&store, &nothing, &many(&store, 8_000, &[1_234]));
    for compression in ALL {
        let (old, info) = write(&before, &store, compression, 2);
        let blocks = info.blocks.0.len();
        assert!(blocks > 8, "{blocks} blocks prove little");
        let earlier = earlier(&old, &info);

        let asked = Asked(&store, Mutex::default());
        let same = write_after(&before, &asked, compression, &earlier).expect("a layer");
        assert_eq!(same, (old, info));
        assert_eq!(asked.1.lock().expect("not poisoned").len(), 0);

        let fresh = write(&after, &store, compression, 2);
        let changed = write_after(&after, &asked, compression, &earlier).expect("a layer");
        assert!(changed == fresh, "the layers differ");
        let read = asked.1.lock().expect("not poisoned").len();
        assert_eq!(read, 1, "only what has changed is read again");
    }
}

#[test]
fn a_change_moves_no_block_but_those_around_it() {
    let store = MemoryStore::new();
    let keys = |tree: &Tree| {
        let plan = plan(&store, &empty(&store), tree);
        let (_, info) = write(&plan, &store, Compression::None, 2);
        info.blocks
            .0
            .iter()
            .map(|block| block.key)
            .collect::<Vec<_>>()
    };
    let before = keys(&many(&store, 16_000, &[]));
    let after: BTreeSet<_> = keys(&many(&store, 16_000, &[100])).into_iter().collect();
    let lost = before.iter().filter(|key| !after.contains(key)).count();
    assert!((1..=4).contains(&lost), "{lost} of {} blocks", before.len());
    assert!(before.len() > 12, "{} blocks prove little", before.len());
}

#[test]
fn blocks_end_before_large_files_and_are_never_longer_than_the_longest() {
    let store = MemoryStore::new();
    let mut listing = String::new();
    for (name, length) in [
        ("a", 1),
        ("b", 9 << 20),
        ("c", 2 << 20),
        ("d", 1 << 20),
        ("e", 0),
    ] {
        let blob = store.put_bytes(&bytes(length, 1)).expect("a blob");
        writeln!(listing, "f 0644 0:0 /{name} {blob} {length}").expect("a string");
    }
    let plan = plan(&store, &empty(&store), &tree(&store, &listing));
    let (_, info) = write(&plan, &store, Compression::Zstd, 2);
    let lengths: Vec<u32> = info
        .blocks
        .0
        .iter()
        .map(|block| block.uncompressed)
        .collect();
    let block = u32::try_from(BLOCK).expect("4 MiB");
    assert_eq!(
        lengths,
        [
            // `./`, and `a`
            512 + 1024,
            block,
            block,
            (1 << 20) + 512,
            // `c`; after an entry of 1 MiB and more the next one begins a block, if this one has 2 MiB
            (2 << 20) + 512,
            // `d` and `e`, and the end
            (1 << 20) + 512 + 512 + 1024,
        ]
    );
}

#[test]
fn a_damaged_earlier_layer_is_noticed() {
    let store = MemoryStore::new();
    let plan = |changed: &[usize]| {
        let tree = many(&store, 3_000, changed);
        plan(&store, &empty(&store), &tree)
    };
    // The same from its start on, and something else before what is damaged.
    let (before, after) = (plan(&[]), plan(&[10]));
    for compression in ALL {
        let (whole, info) = write(&before, &store, compression, 2);
        let mut damaged = whole.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        for bytes in [&damaged[..], &whole[..middle]] {
            for plan in [&before, &after] {
                let error = write_after(plan, &store, compression, &earlier(bytes, &info));
                assert!(matches!(error, Err(LayerError::Earlier)));
            }
        }
    }
}

#[test]
fn a_file_that_begins_in_a_known_block_is_checked_all_the_same() {
    let store = MemoryStore::new();
    let nothing = empty(&store);
    let with = |name: &str| {
        let (large, small) = (bytes(9 << 20, 1), bytes(1_000, 2));
        let (large, small) = (store.put_bytes(&large), store.put_bytes(&small));
        let (large, small) = (large.expect("a blob"), small.expect("a blob"));
        let listing = format!(
            "f 0644 0:0 /a {large} {}\nf 0644 0:0 /{name} {small} 1000\n",
            9 << 20
        );
        plan(&store, &nothing, &tree(&store, &listing))
    };
    let (before, after) = (with("b"), with("c"));
    for compression in ALL {
        let (old, info) = write(&before, &store, compression, 2);
        let changed = write_after(&after, &store, compression, &earlier(&old, &info));
        let fresh = write(&after, &store, compression, 2);
        assert!(changed.expect("a layer") == fresh, "the layers differ");
    }
}
