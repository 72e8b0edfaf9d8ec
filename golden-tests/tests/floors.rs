//! The direction of knowledge: a module uses what is on a floor below its own, and each third-party crate has one home.
//!
//! Reads the paths in the source: `crate::x` and chains of `super` that come out at the crate's root. Code of tests may
//! use anything.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use golden_tests::workspace;
use immbuild_cas::digest::Digest;

/// The modules of the library by floor. The names may change, the direction may not.
const FLOORS: [&[&str]; 8] = [
    &["diag", "epoch", "pattern", "platform"],
    &["spec", "lock"],
    &["graph"],
    &["layer", "image", "compare", "sbom"],
    &["ports"],
    &[
        "hostfs", "resolve", "registry", "debian", "exec", "output", "python", "cargo",
    ],
    &["app"],
    &["ui", "cli"],
];

/// What may be used on the same floor: the user, then what it uses. No two use each other.
const SIDEWAYS: [(&str, &str); 12] = [
    ("lock", "spec"),
    ("image", "layer"),
    ("compare", "image"),
    ("sbom", "image"),
    ("cargo", "resolve"),
    ("debian", "resolve"),
    ("exec", "hostfs"),
    ("output", "hostfs"),
    ("python", "resolve"),
    ("registry", "resolve"),
    ("resolve", "hostfs"),
    ("cli", "ui"),
];

/// Where a crate may be named: paths below the repository, by their beginning.
const HOMES: [(&str, &str); 30] = [
    ("annotate_snippets", "builder/src/diag/"),
    ("base64", "builder/src/registry/credentials.rs"),
    ("bzip2", "builder/src/resolve/unpack"),
    ("clap", "builder/src/cli/"),
    ("clap_complete", "builder/src/cli/"),
    ("clap_mangen", "builder/src/cli/"),
    ("csv", "builder/src/python/record.rs"),
    ("docker_credential", "builder/src/registry/credentials.rs"),
    ("ed25519_dalek", "builder/src/registry/signing.rs"),
    ("flate2", "builder/src/layer/codec.rs"),
    ("gix", "builder/src/resolve/git/"),
    ("indicatif", "builder/src/ui/"),
    ("libc", "builder/src/exec/"),
    ("libdeflater", "builder/src/layer/codec.rs"),
    ("liblzma", "builder/src/resolve/unpack"),
    ("md5", "builder/src/debian/sums.rs"),
    ("memchr", "builder/src/debian/control.rs"),
    ("pep440_rs", "builder/src/python/version.rs"),
    ("pgp", "builder/src/debian/openpgp"),
    ("reqwest", "builder/src/resolve/http"),
    ("rustls", "builder/src/resolve/http"),
    ("seccompiler", "builder/src/exec/"),
    ("sha2", "cas/src/digest.rs"),
    ("signal_hook", "builder/src/cli/"),
    ("strsim", "builder/src/diag/"),
    ("syscalls", "builder/src/exec/tracer/names.rs"),
    ("toml", "builder/src/spec/document.rs"),
    ("toml_parser", "builder/src/spec/document.rs"),
    ("zip", "builder/src/resolve/unpack"),
    ("zstd", "builder/src/layer/codec.rs"),
];

/// A file of the source without comments and tests.
struct Source {
    /// From the root of the repository.
    path: PathBuf,
    /// The modules it is in, from the crate's root.
    modules: Vec<String>,
    lines: Vec<String>,
}

fn sources(of: &str) -> Vec<Source> {
    let root = golden_tests::workspace().join(of).join("src");
    walkdir::WalkDir::new(&root)
        .sort_by_file_name()
        .into_iter()
        .map(|entry| entry.expect("the source can be read"))
        .filter(|entry| entry.path().extension().is_some_and(|rs| rs == "rs"))
        .filter_map(|entry| source(&root, entry.path()))
        .collect()
}

/// None for a file of tests.
fn source(root: &Path, path: &Path) -> Option<Source> {
    let relative = path.strip_prefix(root).expect("it was found there");
    let mut modules: Vec<String> = relative
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if modules.iter().any(|name| name.ends_with("tests")) {
        return None;
    }
    if matches!(modules.last()?.as_str(), "mod" | "lib" | "main") {
        modules.pop();
    }
    let text = std::fs::read_to_string(path).expect("source is text");
    // Tests inside a file are its end.
    let code = text.split("#[cfg(test)]\nmod tests {").next()?;
    Some(Source {
        path: path
            .strip_prefix(golden_tests::workspace())
            .expect("the source is in the repository")
            .to_owned(),
        modules,
        lines: code
            .lines()
            .map(|line| line.split("//").next().unwrap_or_default().to_owned())
            .collect(),
    })
}

/// The names that follow `prefix` in a line, where the prefix begins a path.
fn after<'a>(line: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(prefix)
        .filter(|(at, _)| {
            !line[..*at]
                .ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '.' | '$'))
        })
        .map(|(at, _)| {
            let rest = &line[at + prefix.len()..];
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            &rest[..end.unwrap_or(rest.len())]
        })
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

#[test]
fn every_module_has_a_floor() {
    let modules: BTreeSet<String> = sources("builder")
        .into_iter()
        .filter_map(|source| source.modules.into_iter().next())
        .collect();
    let known: BTreeSet<String> = FLOORS.concat().into_iter().map(Into::into).collect();
    assert_eq!(modules, known);
}

#[test]
fn nothing_is_used_from_above() {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for source in sources("builder") {
        let Some(from) = source.modules.first() else {
            // The roots of the library and of the program only name modules.
            continue;
        };
        let up = "super::".repeat(source.modules.len());
        for (line, number) in source.lines.iter().zip(1..) {
            for used in after(line, "crate::").chain(after(line, &up)) {
                if used == from {
                    continue;
                }
                let at = format!("{}:{number}: {from} uses {used}", source.path.display());
                match (floor(from), floor(used)) {
                    (Some(own), Some(other)) if other < own => {}
                    (Some(own), Some(other))
                        if other == own && SIDEWAYS.contains(&(from.as_str(), used)) => {}
                    _ => wrong.push(at),
                }
                seen.insert((from.clone(), used.to_owned()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // A reader of paths that finds none would find nothing wrong either.
    for (from, used) in [("cli", "app"), ("app", "exec"), ("spec", "diag")] {
        assert!(seen.contains(&(from.to_owned(), used.to_owned())));
    }
}

#[test]
fn the_store_knows_nothing_of_images() {
    for source in sources("cas") {
        for line in &source.lines {
            let used = after(line, "immbuild::").next();
            assert_eq!(used, None, "{}: {line}", source.path.display());
        }
    }
}

#[test]
fn every_crate_has_one_home() {
    let sources: Vec<Source> = ["cas", "builder"].into_iter().flat_map(sources).collect();
    for (name, home) in HOMES {
        let path = format!("{name}::");
        let mut at_home = false;
        for source in &sources {
            let used = source
                .lines
                .iter()
                .find(|line| after(line, &path).next().is_some());
            if let Some(line) = used {
                let is_home = source.path.to_string_lossy().starts_with(home);
                at_home |= is_home;
                assert!(is_home, "{}: {line}", source.path.display());
            }
        }
        assert!(at_home, "`{name}` is not used in {home}: who needs it?");
    }
}

/// The book, decision 22. To compare them with a release: `diff -r` with its `lib/`.
#[test]
fn the_sources_of_the_encoder_are_those_that_were_released() {
    let root = workspace().join("builder/zstd-sys/zstd");
    let mut sums = String::new();
    for entry in walkdir::WalkDir::new(&root).sort_by_file_name() {
        let entry = entry.expect("a directory that can be read");
        if entry.file_type().is_file() {
            let path = entry.path().strip_prefix(&root).expect("below the root");
            let content = std::fs::read(entry.path()).expect("a file that can be read");
            writeln!(sums, "{} {}", Digest::of(&content).to_hex(), path.display())
                .expect("a string");
        }
    }
    assert_eq!(
        Digest::of(sums.as_bytes()).to_hex(),
        "8950b5dc0cf843fafe0e4dc3d2f846bdc8718c720853333e2491bdca23575714",
        "{sums}"
    );
}
