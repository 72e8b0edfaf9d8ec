//! What a lock and this machine's cargo say, read.
#![allow(clippy::disallowed_methods, reason = "a test writes what is read")]

use std::fs;
use std::sync::Arc;

use immbuild_cas::digest::Digest;

use super::lock;
use super::places::{self, CargoPlaces};
use crate::diag::{SourceFile, Style, render_all};

const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn read(text: &str) -> Result<Vec<lock::Crate>, String> {
    let file = Arc::new(SourceFile {
        name: "Cargo.lock".into(),
        text: text.replace("HEX", HEX),
    });
    lock::read(&file).map_err(|errors| render_all(&errors, Style::Plain))
}

const LOCK: &str = r#"
version = 4
[[package]]
name = "app"
version = "0.1.0"
dependencies = ["a 1.0.0", "own"]
[[package]]
name = "a"
version = "1.0.0"
source = "registry+https://g.example.com/r/crates.io-index"
checksum = "HEX"
dependencies = ["b"]
[[package]]
name = "a"
version = "2.0.0"
source = "registry+https://g.example.com/r/crates.io-index"
checksum = "HEX"
[[package]]
name = "b"
version = "0.1.0+wasi"
source = "registry+https://g.example.com/r/crates.io-index"
checksum = "HEX"
dependencies = ["a 2.0.0"]
[[package]]
name = "own"
version = "1.0.0"
source = "sparse+https://own.example.com/index/"
checksum = "HEX"
"#;

#[test]
fn a_lock_names_its_crates() {
    let found = read(LOCK).expect("a lock");
    let told: Vec<String> = found
        .iter()
        .map(|it| {
            let registry = it.registry.as_deref().unwrap_or("its own");
            format!(
                "{} {} of {registry}, {}, {:?}",
                it.name, it.version, it.reason, it.depends
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "a 1.0.0 of its own, needed by the project app, [\"b\"]",
            "a 2.0.0 of its own, needed by b, []",
            "b 0.1.0+wasi of its own, needed by a, [\"a\"]",
            "own 1.0.0 of sparse+https://own.example.com/index/, needed by the project app, []",
        ]
    );
    // Checksums of the first form are in a table of their own.
    let old = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"registry+https://g.example.com/r/crates.io-index\"\n\
               [metadata]\n\"checksum a 1.0.0 (registry+https://g.example.com/r/crates.io-index)\" = \"HEX\"\n";
    let found = read(old).expect("a lock");
    assert_eq!(found[0].sha256, Digest::from_hex(HEX).expect("hex"));
}

#[test]
fn what_has_no_checksum_is_refused() {
    for (from, to, says) in [
        (
            "version = 4",
            "version = 5",
            "version of `Cargo.lock` is not known",
        ),
        ("sparse+https", "git+https", "`own` is from no registry"),
        (
            "checksum = \"HEX\"\ndependencies = [\"b\"]",
            "",
            "`a` 1.0.0 has no checksum",
        ),
        (
            "checksum = \"HEX\"\ndependencies = [\"b\"]",
            "checksum = \"00\"",
            "`a` 1.0.0 has no checksum",
        ),
        (
            "version = \"2.0.0\"",
            "version = \"1.0.0\"",
            "`a` 1.0.0 is there twice",
        ),
        ("name = \"b\"", "name = \"../b\"", "no good `name`"),
        (
            "version = \"2.0.0\"",
            "version = \"2/0\"",
            "no good `version`",
        ),
        ("[[package]]", "[[other]]", "it has no package"),
        ("version = 4", "version = ", "this is not TOML"),
    ] {
        assert!(LOCK.contains(from), "{from}");
        let said = read(&LOCK.replace(from, to)).expect_err(to);
        assert!(said.contains(says), "{to}: no `{says}` in\n{said}");
        assert!(said.contains("Cargo.lock:"), "{said}");
    }
}

#[test]
fn a_registry_says_where_its_crates_are() {
    let digest = Digest::from_hex(HEX).expect("hex");
    let url = |download: &str, name: &str| places::url(download, name, "1.0.0+x", &digest);
    assert_eq!(
        url("https://d.example.com/crates", "serde"),
        "https://d.example.com/crates/serde/1.0.0%2Bx/download"
    );
    assert_eq!(
        url(
            "https://d.example.com/{prefix}/{lowerprefix}/{crate}-{version}.crate",
            "Serde"
        ),
        "https://d.example.com/Se/rd/se/rd/Serde-1.0.0%2Bx.crate"
    );
    for (name, prefix) in [("a", "1"), ("ab", "2"), ("abc", "3/a"), ("abcd", "ab/cd")] {
        assert_eq!(
            url("https://d.example.com/{prefix}", name),
            format!("https://d.example.com/{prefix}")
        );
    }
    assert!(url("https://d.example.com/{sha256-checksum}", "a").ends_with(HEX));
    let config = br#"{"dl": "https://d.example.com", "api": null}"#;
    assert_eq!(
        places::download_of(config).as_deref(),
        Some("https://d.example.com")
    );
    assert_eq!(places::download_of(b"{}"), None);
    assert_eq!(
        places::config_of("https://i.example.com/index").as_deref(),
        Some("https://i.example.com/index/config.json")
    );
}

#[test]
fn the_configuration_of_cargo_is_followed() {
    let place = tempfile::tempdir().expect("a directory");
    let write = |path: &str, text: &str| {
        let path = place.path().join(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(path, text).expect("written");
    };
    let machine = CargoPlaces {
        home: Some(place.path().join("home")),
        downloads: vec!["https://user.example.com".into()],
    };
    let project = place.path().join("work/app");
    fs::create_dir_all(&project).expect("made");
    let of = |registry: Option<&str>| places::places(&machine, &project, registry);
    // Nothing is said: what cargo has fetched, and where it has fetched it.
    write(
        "home/registry/index/i-1/config.json",
        "{\"dl\": \"https://i.example.com/dl\"}",
    );
    write("home/registry/cache/i-1/a-1.0.0.crate", "");
    let own = of(None);
    assert_eq!(
        own.downloads,
        ["https://user.example.com", "https://i.example.com/dl"]
    );
    assert_eq!(
        own.file("a", "1.0.0"),
        Some(place.path().join("home/registry/cache/i-1/a-1.0.0.crate"))
    );
    assert_eq!(own.file("a", "2.0.0"), None);
    assert_eq!(own.indexes, [""; 0]);
    // The nearest file wins, and replacements are followed.
    write(
        "home/config.toml",
        "[source.crates-io]\nreplace-with = \"far\"\n[source.far]\nregistry = \"sparse+https://far.example.com/\"\n[registries.named]\nindex = \"sparse+https://named.example.com/\"\n",
    );
    assert_eq!(of(None).indexes, ["https://far.example.com/"]);
    assert_eq!(of(None).downloads, ["https://user.example.com"]);
    write(
        "work/.cargo/config.toml",
        "[source.crates-io]\nreplace-with = \"named\"\n",
    );
    assert_eq!(of(None).indexes, ["https://named.example.com/"]);
    write(
        "work/app/.cargo/config.toml",
        "[source.crates-io]\nreplace-with = \"files\"\n[source.files]\nlocal-registry = \"crates\"\n",
    );
    let files = of(None);
    assert_eq!(files.directories.last(), Some(&project.join("crates")));
    // Another registry is its own index unless it is replaced.
    let own = of(Some("sparse+https://own.example.com/"));
    assert_eq!(own.indexes, ["https://own.example.com/"]);
    assert_eq!(own.downloads, [""; 0]);
    assert!(
        of(Some("registry+https://git.example.com/index"))
            .indexes
            .is_empty()
    );
    write(
        "work/app/.cargo/config.toml",
        "[source.mine]\nregistry = \"https://git.example.com/index\"\nreplace-with = \"mirror\"\n[source.mirror]\nregistry = \"sparse+https://mirror.example.com/\"\n",
    );
    assert_eq!(
        of(Some("registry+https://git.example.com/index")).indexes,
        ["https://mirror.example.com/"]
    );
    // A circle ends.
    write(
        "work/app/.cargo/config.toml",
        "[source.crates-io]\nreplace-with = \"a\"\n[source.a]\nreplace-with = \"crates-io\"\n",
    );
    assert_eq!(of(None).indexes, [""; 0]);
}
