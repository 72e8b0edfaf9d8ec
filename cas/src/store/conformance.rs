//! What every [`Store`] must do, as one suite that each of them passes.
//!
//! Panics where a store does not.

use std::io::{self, Read};

use super::{Record, Store, StoreError};
use crate::canonical::Canonical;
use crate::digest::{BlobId, Digest, DirectoryId, TreeId};
use crate::path::Name;
use crate::tree::{Directory, Entry, File, Meta, Mode, Tree};

/// Runs the whole suite; `make` gives a new store with nothing in it each time.
pub fn conformance(make: &dyn Fn() -> Box<dyn Store>) {
    blobs_come_back(&*make());
    missing_is_missing(&*make());
    a_failing_source_leaves_nothing(&*make());
    directories_and_trees_come_back(&*make());
    other_objects_are_no_directories(&*make());
    records_come_back_and_are_replaced(&*make());
    threads_share_a_store(&*make());
}

/// Content of this length that is like no other.
fn bytes(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at / 251 + at).to_le_bytes()[0])
        .collect()
}

fn blobs_come_back(store: &dyn Store) {
    for length in [0, 1, 4096, 65_535, 65_536, 65_537, 300_000, 1 << 20] {
        let content = bytes(length);
        let digest = Digest::of(&content);
        let id = BlobId::new(digest);
        assert!(!store.has(&id).expect("has"), "{length} bytes before");
        for _ in 0..2 {
            let put = store.put(&mut &content[..]).expect("put");
            assert_eq!(put, (id, length as u64));
            assert_eq!(store.put_bytes(&content).expect("put bytes"), id);
            assert!(store.has(&id).expect("has"), "{length} bytes after");
            assert!(store.read(&id).expect("read") == content, "{length} bytes");
        }
    }
}

fn missing_is_missing(store: &dyn Store) {
    let digest = Digest::of(b"nobody stored this");
    let id = BlobId::new(digest);
    assert!(!store.has(&id).expect("has"));
    let is_missing = |error: &StoreError| matches!(error, StoreError::Missing(d) if *d == digest);
    assert!(
        store
            .open(&id)
            .err()
            .is_some_and(|error| is_missing(&error))
    );
    assert!(is_missing(&store.read(&id).expect_err("missing")));
    let directory = store.directory(&DirectoryId::new(digest));
    assert!(is_missing(&directory.expect_err("missing")));
    let tree = store.tree(&TreeId::new(digest));
    assert!(is_missing(&tree.expect_err("missing")));
    assert_eq!(store.record("test", &digest).expect("record"), None);
}

/// Gives some bytes and then fails.
struct Failing(usize);

impl Read for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(self.0);
        if count == 0 {
            return Err(io::Error::other("the cable was cut"));
        }
        buffer[..count].fill(b'x');
        self.0 -= count;
        Ok(count)
    }
}

fn a_failing_source_leaves_nothing(store: &dyn Store) {
    for length in [10, 200_000] {
        let error = store.put(&mut Failing(length)).expect_err("a cut cable");
        assert!(matches!(error, StoreError::Io { .. }), "{error}");
        let id = BlobId::new(Digest::of(&vec![b'x'; length]));
        assert!(!store.has(&id).expect("has"));
    }
}

fn directory(store: &dyn Store) -> Directory {
    let meta = Meta::root(Mode::FILE);
    let blob = store.put_bytes(b"hello\n").expect("put");
    let mut directory = Directory::new(Meta::root(Mode::DIRECTORY));
    let file = File {
        blob,
        size: 6,
        meta,
    };
    let name = Name::new(*b"hello").expect("a name");
    directory.insert(name, Entry::File(file)).expect("a file");
    directory
}

fn directories_and_trees_come_back(store: &dyn Store) {
    let directory = directory(store);
    let id = store.put_directory(&directory).expect("put");
    assert_eq!(id, directory.id());
    assert_eq!(store.put_directory(&directory).expect("again"), id);
    for _ in 0..2 {
        assert_eq!(*store.directory(&id).expect("get"), directory);
    }
    let tree = Tree::new(id);
    let tree_id = store.put_tree(&tree).expect("put");
    assert_eq!(tree_id, tree.id());
    assert_eq!(store.tree(&tree_id).expect("get"), tree);
    let as_blob = store.read(&BlobId::new(*id.digest())).expect("read");
    assert_eq!(as_blob, directory.to_canonical());
}

fn other_objects_are_no_directories(store: &dyn Store) {
    let digest = *store.put_bytes(b"no directory").expect("put").digest();
    let directory = store.directory(&DirectoryId::new(digest));
    assert!(matches!(directory, Err(StoreError::Decode { digest: d, .. }) if d == digest));
    let tree = store.tree(&TreeId::new(digest));
    assert!(matches!(tree, Err(StoreError::Decode { digest: d, .. }) if d == digest));
}

fn records_come_back_and_are_replaced(store: &dyn Store) {
    let directory = store.put_directory(&directory(store)).expect("put");
    let key = Digest::of(b"key");
    let first = Record {
        value: b"first".to_vec(),
        blobs: vec![store.put_bytes(b"log").expect("put")],
        trees: vec![store.put_tree(&Tree::new(directory)).expect("put")],
    };
    store.put_record("action", &key, &first).expect("put");
    assert_eq!(
        store.record("action", &key).expect("get"),
        Some(first.clone())
    );
    assert_eq!(store.record("other-kind", &key).expect("get"), None);
    let second = Record {
        value: b"second".to_vec(),
        ..Record::default()
    };
    store.put_record("action", &key, &second).expect("put");
    store.put_record("other-kind", &key, &first).expect("put");
    assert_eq!(store.record("action", &key).expect("get"), Some(second));
    assert_eq!(store.record("other-kind", &key).expect("get"), Some(first));
}

fn threads_share_a_store(store: &dyn Store) {
    let contents: Vec<Vec<u8>> = (0..200_usize)
        .map(|number| bytes(number * 977 % 90_000 + number))
        .collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for content in &contents {
                    let (id, length) = store.put(&mut &content[..]).expect("put");
                    assert_eq!(length, content.len() as u64);
                    assert!(store.read(&id).expect("read") == *content);
                }
            });
        }
    });
}
