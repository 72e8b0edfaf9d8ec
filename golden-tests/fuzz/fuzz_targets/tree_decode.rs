//! Canonical bytes from a damaged store or a peer: what is read is encoded to the same bytes.
#![no_main]

use immbuild::layer::Mtimes;
use immbuild_cas::canonical::Canonical as _;
use immbuild_cas::tree::{Directory, Tree};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(directory) = Directory::decode_strict(bytes) {
        assert_eq!(directory.to_canonical(), bytes);
    }
    if let Ok(tree) = Tree::decode_strict(bytes) {
        assert_eq!(tree.to_canonical(), bytes);
    }
    if let Ok(mtimes) = Mtimes::decode_strict(bytes) {
        assert_eq!(mtimes.to_canonical(), bytes);
    }
});
