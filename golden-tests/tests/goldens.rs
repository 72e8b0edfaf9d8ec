//! Format 1, to the byte: every case becomes what is committed, whatever the number of threads.
//!
//! `cargo bless` takes what is built now; `CHANGELOG.md` says why.

use std::collections::BTreeSet;

use golden_tests::goldens::{self, CASES, digest_file, digest_of_all, directory};

macro_rules! cases {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                judge(stringify!($name));
            }
        )*

        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

cases! {
    from_nothing single nothing_changes platforms late archive names preserve whiteouts replaced attributes packages frames_zstd frames_gzip
}

fn judge(name: &str) {
    let case = CASES
        .iter()
        .find(|case| case.name == name)
        .expect("a test has a case");
    if let Err(error) = goldens::judge(case) {
        panic!("{error:#}");
    }
}

#[test]
fn every_directory_is_a_case_and_tested() {
    let directories: BTreeSet<String> = walkdir::WalkDir::new(directory())
        .min_depth(1)
        .max_depth(1)
        .into_iter()
        .map(|entry| entry.expect("the cases can be read"))
        .filter(|entry| entry.file_type().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let cases: BTreeSet<String> = CASES.iter().map(|case| case.name.to_owned()).collect();
    let tested: BTreeSet<String> = TESTED.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(directories, cases);
    assert_eq!(tested, cases);
}

/// Nobody's image may change by accident: whoever changes a golden says so in the changelog.
#[test]
fn the_changelog_knows_the_goldens() {
    let digest = digest_of_all()
        .expect("the goldens can be read")
        .to_string();
    let committed = std::fs::read_to_string(digest_file()).expect("`cargo bless` writes it");
    assert_eq!(committed.trim(), digest, "run `cargo bless`");
    let changelog = std::fs::read_to_string(golden_tests::workspace().join("CHANGELOG.md"))
        .expect("there is a changelog");
    let line = format!("- goldens: {digest}");
    let under = changelog
        .split("\n### ")
        .find(|section| section.starts_with("Changes to image bytes"))
        .expect("the newest release has the heading");
    assert!(
        under.lines().any(|found| found == line),
        "`Changes to image bytes` of the newest release in CHANGELOG.md must say what changed, and `{line}`"
    );
}
