//! A package from anybody: it is refused, or it becomes a tree that an installation can be asked to take.
#![no_main]

use immbuild::debian::deb;
use immbuild::debian::package::Package;
use immbuild_cas::store::MemoryStore;
use immbuild_cas::tree::{TreeError, Visit, walk};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let store = MemoryStore::new();
    let mut reader = input;
    let Ok(deb) = deb::read(&mut reader, &store) else {
        return;
    };
    walk::<TreeError>(&store, &deb.tree, &mut |path, visit| {
        if let Visit::Special(special) = visit {
            assert!(
                matches!(special.kind, immbuild_cas::tree::SpecialKind::Fifo),
                "{path} is a device"
            );
        }
        Ok(())
    })
    .expect("all of the tree is in the store");
    if let Ok(package) = Package::read("it", deb.tree.root, &deb.tree.links, &store) {
        let _ = package.conffiles(&store);
    }
});
