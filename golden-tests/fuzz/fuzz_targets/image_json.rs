//! The JSON of an image from anybody: what is read, written and read again is the same.
#![no_main]

use immbuild::image::read::{Document, config, docker_manifest, document, layout_marker};
use immbuild::image::CanonicalJson;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(read) = document(bytes, "document") {
        let written = match &read {
            Document::Manifest(manifest) => CanonicalJson::of(manifest),
            Document::Index(index) => CanonicalJson::of(index),
        };
        assert_eq!(
            document(written.as_bytes(), "ours").expect("what we write is a document"),
            read
        );
    }
    if let Ok((read, _)) = config(bytes, "config") {
        let written = CanonicalJson::of(&read);
        let (again, dropped) =
            config(written.as_bytes(), "ours").expect("what we write is a config");
        assert_eq!(again, read);
        assert!(dropped.is_empty(), "{dropped:?}");
    }
    let _ = docker_manifest(bytes, "manifest.json");
    let _ = layout_marker(bytes, "oci-layout");
});
