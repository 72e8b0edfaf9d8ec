//! A lock as text and as a value, and how it stands to a spec.

use std::collections::BTreeMap;

use immbuild_cas::digest::{Digest, TreeId};
use proptest::prelude::*;

use super::model::*;
use super::*;
use crate::diag::{Style, render_all};
use crate::platform::Platform;
use crate::spec::model::{Ident, Resolved};

const LOCK: &str = "\
# Written by immbuild. Commit it; do not edit it.
lock = 1
epoch = 2026-11-21T00:53:02Z

[source.base]
kind = \"image\"
request = \"sha256:0c1f5d0e6f7a8b9c0d1e2f3a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e\"
index = \"sha256:aa11bb22cc33dd44ee55ff660718293a4b5c6d7e8f90a1b2c3d4e5f607182930\"

[[source.base.manifest]]
platform = \"linux/amd64\"
digest = \"sha256:bb22cc33dd44ee55ff660718293a4b5c6d7e8f90a1b2c3d4e5f60718293aa112\"
size = 1778

[[source.base.manifest]]
platform = \"linux/arm64\"
digest = \"sha256:cc22cc33dd44ee55ff660718293a4b5c6d7e8f90a1b2c3d4e5f60718293aa112\"
size = 1779

[source.each]
kind = \"git\"
request = \"sha256:5a5b6c7d8e9f00a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f6071829\"

[[source.each.revision]]
platform = \"linux/amd64\"
commit = \"9f8e7d6c5b4a39281706f5e4d3c2b1a09f8e7d6c\"
tree = \"sha256:5b6c7d8e9f00a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a\"

[[source.each.revision]]
platform = \"linux/arm64\"
commit = \"8f8e7d6c5b4a39281706f5e4d3c2b1a09f8e7d6c\"
tree = \"sha256:6b6c7d8e9f00a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a\"

[source.notes]
kind = \"http\"
request = \"sha256:3e3f4a5b6c7d8e9f00a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f607\"

[[source.notes.file]]
sha256 = \"4f4a5b6c7d8e9f00a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718\"
size = 0

[source.os]
kind = \"debian\"
request = \"sha256:1d2e3f4a5b6c7d8e9f00a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f6\"
solver = \"apt-greedy/1\"

[[source.os.release]]
archive = \"main\"
suite = \"bookworm\"
inrelease = \"sha256:77737fa4b34f2693e982cc9ee35736816c35a7778fc2d326cc1bbf5b301fe1aa\"
date = 2026-07-11T10:16:37Z
signers = [\"4CB50190207B4758A3F73A796ED0E7B82643E131\"]

[[source.os.package]]
name = \"ca-certificates\"
version = \"20230311+deb12u1\"
arch = \"all\"
for = [\"amd64\"]
archive = \"main\"
path = \"pool/main/c/ca-certificates/ca-certificates_20230311+deb12u1_all.deb\"
size = 155000
sha256 = \"e7dd1d1411fedf27f5e27650a6eff20ef294077b568f4c8c5e51466dc7c08ce4\"
source = \"ca-certificates\"
depends = [\"zlib1g\"]
reason = \"requested\"

[[source.os.package]]
name = \"zlib1g\"
version = \"1:1.2.13.dfsg-1+b1\"
arch = \"amd64\"
archive = \"main\"
path = \"pool/main/z/zlib/zlib1g_1.2.13.dfsg-1+b1_amd64.deb\"
size = 86740
sha256 = \"d7dd1d1411fedf27f5e27650a6eff20ef294077b568f4c8c5e51466dc7c08ce4\"
source = \"zlib\"
source-version = \"1:1.2.13.dfsg-1\"
depends = []
reason = \"needed by python3-minimal\"

[source.tool]
kind = \"http\"
request = \"sha256:2e3f4a5b6c7d8e9f00a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f607\"

[[source.tool.file]]
platform = \"linux/amd64\"
sha256 = \"3f4a5b6c7d8e9f00a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718\"
size = 73112

[source.vendor]
kind = \"git\"
request = \"sha256:4a5b6c7d8e9f00a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f6071829\"
commit = \"9f8e7d6c5b4a39281706f5e4d3c2b1a09f8e7d6c\"
tree = \"sha256:5b6c7d8e9f00a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a\"

[source.wheels]
kind = \"python\"
request = \"sha256:5a5b6c7d8e9f00a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f6071829\"

[[source.wheels.wheel]]
platform = \"linux/amd64\"
name = \"itsdangerous\"
version = \"2.2.0\"
file = \"itsdangerous-2.2.0-py3-none-any.whl\"
sha256 = \"a7dd1d1411fedf27f5e27650a6eff20ef294077b568f4c8c5e51466dc7c08ce4\"
size = 16234

[[source.wheels.wheel]]
platform = \"linux/arm64\"
name = \"pyyaml\"
version = \"6.0+local.1\"
file = \"PyYAML-6.0+local.1-cp311-cp311-manylinux_2_17_aarch64.manylinux2014_aarch64.whl\"
sha256 = \"b7dd1d1411fedf27f5e27650a6eff20ef294077b568f4c8c5e51466dc7c08ce4\"

[[expect]]
platform = \"linux/amd64\"
image-id = \"sha256:6c7d8e9f00a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b\"
manifest = \"sha256:7d8e9f00a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c\"
tree = \"sha256:8e9f00a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d\"

[[expect]]
platform = \"index\"
image-id = \"sha256:6d7d8e9f00a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b\"
manifest = \"sha256:7e8e9f00a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c\"
";

fn read(text: &str) -> Lock {
    parse(text, "spec.lock")
        .unwrap_or_else(|errors| panic!("{}", render_all(&errors, Style::Plain)))
}

fn ident(text: &str) -> Ident {
    Ident::new(text).expect("a name")
}

fn platform(text: &str) -> Platform {
    text.parse().expect("a platform")
}

#[test]
fn what_is_read_is_written_byte_for_byte() {
    assert_eq!(write(&read(LOCK)), LOCK);
}

#[test]
fn every_field_is_read() {
    let lock = read(LOCK);
    assert_eq!(lock.epoch.to_string(), "2026-11-21T00:53:02Z");
    let names: Vec<&str> = lock.sources.keys().map(Ident::as_str).collect();
    assert_eq!(
        names,
        ["base", "each", "notes", "os", "tool", "vendor", "wheels"]
    );
    let hex = "3f4a5b6c7d8e9f00a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718";
    let file = FilePin {
        sha256: Digest::from_hex(hex).expect("hex"),
        size: 73112,
    };
    assert_eq!(
        lock.sources[&ident("tool")].pin,
        Pin::Http {
            files: BTreeMap::from([(Some(platform("linux/amd64")), file)])
        }
    );
    let targets: Vec<String> = lock.expect.keys().map(Target::to_string).collect();
    assert_eq!(targets, ["linux/amd64", "index"]);
    assert_eq!(lock.expect[&Target::Index].tree, None);
}

#[test]
fn comments_order_and_line_ends_do_not_matter() {
    let (head, sources) = LOCK.split_once("\n[source.base]").expect("there");
    let (base, others) = sources.split_once("\n[source.each]").expect("there");
    let moved = format!("{head}\n[source.each]{others}\n# moved\n[source.base]{base}");
    assert_eq!(read(&moved), read(LOCK));
    assert_eq!(read(&LOCK.replace('\n', "\r\n")), read(LOCK));
}

#[test]
fn no_line_can_go_missing_unnoticed() {
    let lines: Vec<&str> = LOCK.lines().collect();
    let lock = read(LOCK);
    for (at, gone) in lines.iter().enumerate() {
        let without: Vec<&str> = [&lines[..at], &lines[at + 1..]].concat();
        match parse(&without.join("\n"), "spec.lock") {
            Err(_) => {}
            // Comments and blank lines say nothing; an index is optional; a file without platform is for all.
            Ok(same) if same == lock => assert!(gone.is_empty() || gone.starts_with('#'), "{gone}"),
            Ok(_) => assert!(
                [
                    "index",
                    "source-version",
                    "platform = \"linux/amd64\"",
                    "size = 16234"
                ]
                .iter()
                .any(|optional| gone.starts_with(optional)),
                "{gone}"
            ),
        }
    }
}

const SPEC: &str = "\
immbuild = 1
source.here.path = \".\"
source.base.image = \"./base\"
source.tool.http = \"https://example.com/tool-${arch}\"
source.notes.http = \"https://example.com/notes\"
source.vendor.git = \"https://example.com/vendor.git\"

[image]
from = \"base\"
platforms = [\"linux/amd64\", \"linux/arm64\"]
";

fn resolved(text: &str) -> BTreeMap<Platform, Resolved> {
    let spec = crate::spec::parse(text, "spec.toml").expect("a spec");
    let defaults = spec.arguments(&BTreeMap::new()).expect("defaults");
    spec.resolve_each(spec.platforms(), &defaults)
        .expect("no errors")
}

/// A lock that answers a spec, with made-up content.
fn locked(spec: &BTreeMap<Platform, Resolved>) -> Lock {
    let digest = Digest::of(b"content");
    let file = FilePin {
        sha256: digest,
        size: 7,
    };
    let manifest = ManifestPin { digest, size: 7 };
    let commit = CommitPin {
        commit: "0".repeat(40),
        tree: TreeId::new(digest),
    };
    let pin = |name: &Ident| match name.as_str() {
        "base" => Pin::Image {
            index: Some(digest),
            manifests: spec.keys().map(|platform| (*platform, manifest)).collect(),
        },
        "vendor" => Pin::Git {
            commits: BTreeMap::from([(None, commit.clone())]),
        },
        "tool" => Pin::Http {
            files: spec
                .keys()
                .map(|platform| (Some(*platform), file))
                .collect(),
        },
        _ => Pin::Http {
            files: BTreeMap::from([(None, file)]),
        },
    };
    let sources = requests(spec).into_iter().map(|(name, request)| {
        let pin = pin(&name);
        (name, Locked { request, pin })
    });
    Lock {
        epoch: crate::epoch::Epoch::DEFAULT,
        sources: sources.collect(),
        expect: BTreeMap::new(),
    }
}

#[test]
fn a_lock_answers_the_spec_it_was_made_for() {
    let spec = resolved(SPEC);
    let lock = locked(&spec);
    let names: Vec<&str> = lock.sources.keys().map(Ident::as_str).collect();
    assert_eq!(
        names,
        ["base", "notes", "tool", "vendor"],
        "`path` needs no pin"
    );
    assert_eq!(check(&spec, &lock), Check::default());
    assert_eq!(read(&write(&lock)), lock);
}

#[test]
fn what_was_added_changed_and_removed_is_told_apart() {
    let lock = locked(&resolved(SPEC));
    let changed = SPEC
        .replace("/notes", "/notes-2")
        .replace("source.vendor", "source.other");
    let expected = Check {
        missing: vec![ident("other")],
        outdated: vec![Outdated {
            name: ident("notes"),
            why: Why::Request,
        }],
        unused: vec![ident("vendor")],
    };
    assert_eq!(check(&resolved(&changed), &lock), expected);
    assert!(!expected.is_clean());
}

#[test]
fn a_platform_more_or_less_outdates_what_is_locked_for_each() {
    let lock = locked(&resolved(SPEC));
    let outdated = |text: &str| -> Vec<(String, Why)> {
        let check = check(&resolved(text), &lock);
        check
            .outdated
            .into_iter()
            .map(|it| (it.name.to_string(), it.why))
            .collect()
    };
    let fewer = SPEC.replace(", \"linux/arm64\"", "");
    assert_eq!(
        outdated(&fewer),
        [
            ("base".into(), Why::Removed(platform("linux/arm64"))),
            ("tool".into(), Why::Request)
        ]
    );
    let more = SPEC.replace("\"linux/arm64\"", "\"linux/arm64\", \"linux/s390x\"");
    assert_eq!(
        outdated(&more),
        [
            ("base".into(), Why::Added(platform("linux/s390x"))),
            ("tool".into(), Why::Request)
        ]
    );
}

#[test]
fn a_stage_of_another_platform_wants_its_own_manifest() {
    let lock = locked(&resolved(SPEC));
    let cross = SPEC.replace(
        "[image]\nfrom = \"base\"\n",
        "[stage.build]\nfrom = \"base\"\nplatform = \"linux/amd64\"\n[image]\n",
    );
    let check = check(&resolved(&cross), &lock);
    let expected = Outdated {
        name: ident("base"),
        why: Why::Removed(platform("linux/arm64")),
    };
    assert_eq!(check.outdated, [expected]);
}

#[test]
fn another_kind_of_source_is_another_request() {
    let lock = locked(&resolved(SPEC));
    let other = SPEC.replace("source.notes.http = ", "source.notes.git = ");
    let expected = Outdated {
        name: ident("notes"),
        why: Why::Request,
    };
    assert_eq!(check(&resolved(&other), &lock).outdated, [expected]);
}

proptest! {
    #[test]
    fn no_mutation_makes_the_reader_fall_over(
        at in any::<prop::sample::Index>(),
        length in 0_usize..60,
        piece in "[a-z0-9\"=\\[\\]{}.\n\\\\é<>#-]{0,12}",
    ) {
        let start = at.index(LOCK.len());
        let end = (start + length).min(LOCK.len());
        let text = format!("{}{piece}{}", &LOCK[..start], &LOCK[end..]);
        match parse(&text, "spec.lock") {
            // What is read is what is written: nothing was guessed.
            Ok(lock) => prop_assert_eq!(read(&write(&lock)), lock),
            Err(errors) => prop_assert!(!render_all(&errors, Style::Plain).is_empty()),
        }
    }

    #[test]
    fn no_text_makes_the_reader_fall_over(text in "\\PC{0,200}") {
        let _ = parse(&text, "spec.lock");
    }
}
