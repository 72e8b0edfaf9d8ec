//! An index from anybody, chosen from: what is chosen lacks nothing and is closed.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};

use immbuild::debian::index;
use immbuild::debian::release::Rank;
use immbuild::debian::solve::{List, Universe, Wish};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(packages) = index::parse(text) else {
        return;
    };
    let asked: Vec<String> = packages.iter().take(2).map(|it| it.name.to_owned()).collect();
    let list = List {
        text,
        packages,
        rank: Rank::Normal,
    };
    let universe = Universe::new(vec![list], "amd64", &BTreeMap::new());
    for recommends in [false, true] {
        let wish = Wish {
            packages: &asked,
            recommends,
            essential: recommends,
            ..Wish::default()
        };
        match universe.solve(&wish) {
            Ok(chosen) => {
                let names: BTreeSet<&str> = chosen.iter().map(|it| it.package.name).collect();
                assert_eq!(names.len(), chosen.len(), "each once");
                let mut needed = chosen.iter().flat_map(|it| &it.depends);
                assert!(needed.all(|name| names.contains(name)), "closed");
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
});
