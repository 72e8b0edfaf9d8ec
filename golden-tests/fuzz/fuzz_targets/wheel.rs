//! A wheel from anybody: it is refused, or it holds files only and says what it is.
#![no_main]

use immbuild::python::{record, scripts, wheel};
use immbuild_cas::digest::BlobId;
use immbuild_cas::digest::Digest;
use immbuild_cas::store::{MemoryStore, Store as _};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // What is inside is reached more often alone.
    if let Ok(mut rows) = record::parse(input) {
        rows.sort();
        let written = record::write(&mut rows);
        assert_eq!(record::parse(&written).as_deref(), Ok(&*rows));
    }
    if let Ok(text) = std::str::from_utf8(input) {
        for point in scripts::entry_points(text).unwrap_or_default() {
            assert!(!point.program("/p").contains('\0'));
        }
    }
    let store = MemoryStore::new();
    store.put_bytes(input).expect("memory takes everything");
    let Ok(tree) = wheel::decode(&BlobId::new(Digest::of(input)), &store) else {
        return;
    };
    let files = wheel::files(&tree, &store).expect("nothing but files");
    wheel::describe(&files, &store).expect("it was looked at");
});
