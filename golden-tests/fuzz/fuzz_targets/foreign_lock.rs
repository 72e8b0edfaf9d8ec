//! Locks of other tools and pages of indexes, from anybody: an error, or packages each of which is there once.
#![no_main]

use std::collections::BTreeSet;
use std::sync::Arc;

use immbuild::cargo;
use immbuild::diag::SourceFile;
use immbuild::python::locked::{Locked, Wanted};
use immbuild::python::requirements::Requirements;
use immbuild::python::target::Target;
use immbuild::python::{index, pylock, uv};
use immbuild::spec::model::{Interpreter, Libc};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let file = Arc::new(SourceFile {
        name: "lock".into(),
        text: input.into(),
    });
    let target = Target {
        interpreter: Interpreter {
            major: 3,
            minor: 11,
            patch: None,
        },
        platform: "linux/amd64".parse().expect("a platform"),
        libc: Libc::default(),
    };
    let wanted = Wanted {
        target: &target,
        extras: &[],
        groups: &[],
    };
    let once = |found: &[Locked]| {
        let names: BTreeSet<&str> = found.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names.len(), found.len());
    };
    if let Ok(requirements) = Requirements::parse(&file) {
        requirements.digest();
        if let Ok(found) = requirements.wanted(&wanted) {
            once(&found);
        }
    }
    if let Ok(found) = uv::wanted(&file, &wanted) {
        once(&found);
    }
    if let Ok(found) = pylock::wanted(&file, &wanted) {
        once(&found);
    }
    if let Ok(found) = cargo::lock::read(&file) {
        let all: BTreeSet<(&str, &str)> = found
            .iter()
            .map(|it| (it.name.as_str(), it.version.as_str()))
            .collect();
        assert_eq!(all.len(), found.len());
    }
    let _ = index::parse(input.as_bytes(), "https://i.example.com/simple/a/");
});
