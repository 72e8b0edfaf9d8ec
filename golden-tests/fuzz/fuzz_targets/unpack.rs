//! An archive of any kind from anybody: nothing in the tree leads out of it.
#![no_main]

use immbuild::resolve::unpack::{Limits, Options, unpack};
use immbuild_cas::store::MemoryStore;
use immbuild_cas::tree::{TreeError, Visit, walk};
use libfuzzer_sys::fuzz_target;

// The first byte says how the rest is read.
fuzz_target!(|input: &[u8]| {
    let Some((how, archive)) = input.split_first() else {
        return;
    };
    let options = Options {
        strip: u32::from(how >> 1 & 3),
        preserve: how & 1 == 1,
    };
    let limits = Limits {
        bytes: 1 << 20,
        entries: 1 << 10,
        ratio: 1000,
        free: 1 << 16,
    };
    let store = MemoryStore::new();
    let mut reader = archive;
    let Ok(unpacked) = unpack(&mut reader, options, &limits, &store) else {
        return;
    };
    walk::<TreeError>(&store, &unpacked.tree, &mut |path, visit| {
        match visit {
            Visit::Directory(_) | Visit::File(_) => {}
            Visit::Symlink(link) => {
                assert!(!link.target.starts_with(b"/"), "{path} leads out");
            }
            Visit::Special(_) => {
                assert!(options.preserve, "{path} is a pipe");
            }
        }
        Ok(())
    })
    .expect("all of the tree is in the store");
});
