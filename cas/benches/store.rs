//! What the local store costs. Each figure is for one store in a fresh temporary directory.

#![allow(clippy::unwrap_used, reason = "a panic is the report")]

use divan::{Bencher, counter::BytesCount, counter::ItemsCount};
use immbuild_cas::digest::{BlobId, Digest};
use immbuild_cas::store::{BlobSource, LocalStore, Store};
use tempfile::TempDir;

const SMALL: u64 = 10_000;
const LARGE: usize = 64 << 20;

fn main() {
    divan::main();
}

fn store() -> (TempDir, LocalStore) {
    let directory = TempDir::new().unwrap();
    let store = LocalStore::open(&directory.path().join("store")).unwrap();
    (directory, store)
}

fn put_small(store: &LocalStore, count: u64) {
    for number in 0..count {
        store.put_bytes(&number.to_le_bytes()).unwrap();
    }
}

fn small(number: u64) -> BlobId {
    BlobId::new(Digest::of(&number.to_le_bytes()))
}

#[divan::bench(sample_count = 10)]
fn put_small_blobs(bencher: Bencher<'_, '_>) {
    bencher
        .counter(ItemsCount::new(SMALL))
        .with_inputs(store)
        .bench_refs(|(_, store)| put_small(store, SMALL));
}

#[divan::bench(sample_count = 10)]
fn put_small_blobs_again(bencher: Bencher<'_, '_>) {
    bencher
        .counter(ItemsCount::new(SMALL))
        .with_inputs(|| {
            let (directory, store) = store();
            put_small(&store, SMALL);
            let path = store.path().to_owned();
            drop(store);
            (directory, LocalStore::open(&path).unwrap())
        })
        .bench_refs(|(_, store)| put_small(store, SMALL));
}

#[divan::bench(sample_count = 10)]
fn read_small_blobs(bencher: Bencher<'_, '_>) {
    let (_directory, store) = store();
    put_small(&store, SMALL);
    bencher.counter(ItemsCount::new(SMALL)).bench_local(|| {
        for number in 0..SMALL {
            divan::black_box(store.read(&small(number)).unwrap());
        }
    });
}

#[divan::bench(sample_count = 5)]
fn put_a_large_blob(bencher: Bencher<'_, '_>) {
    let content = vec![7; LARGE];
    bencher
        .counter(BytesCount::new(LARGE))
        .with_inputs(store)
        .bench_refs(|(_, store)| store.put(&mut &content[..]).unwrap());
}

#[divan::bench(sample_count = 5)]
fn copy_a_large_blob_out(bencher: Bencher<'_, '_>) {
    let (directory, store) = store();
    let id = store.put_bytes(&vec![7; LARGE]).unwrap();
    let out = directory.path().join("out");
    bencher.counter(BytesCount::new(LARGE)).bench_local(|| {
        let mut out = std::fs::File::create(&out).unwrap();
        store.copy_out(&id, &mut out).unwrap()
    });
}

/// Opens it and reads one object, the worst a command can be kept waiting.
#[divan::bench(sample_count = 50)]
fn open_a_store_of_200_000_objects(bencher: Bencher<'_, '_>) {
    let (_directory, store) = store();
    put_small(&store, 200_000);
    let path = store.path().to_owned();
    drop(store);
    bencher.bench_local(|| {
        let store = LocalStore::open(&path).unwrap();
        store.read(&small(77_777)).unwrap()
    });
}
