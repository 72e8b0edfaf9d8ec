//! Crates by the project's own lock: the program against a registry on this machine, and beside cargo.
#![allow(clippy::disallowed_methods, reason = "a test lists what it made")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use immbuild_cas::digest::Digest;

#[path = "common/place.rs"]
mod place;

use place::{Ran, World, listing};

/// Crates that others made: as they are on the registry of the community.
const REAL: [(&str, &str); 2] = [("cfg-if", "1.0.5"), ("itoa", "1.0.19")];
/// How every lock names that registry; where it really is, nobody asks.
const COMMUNITY: &str = "registry+https://g.example.com/rust-lang/crates.io-index";

fn real(name: &str, version: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crates");
    fs::read(path.join(format!("{name}-{version}.crate"))).expect("it is in the repository")
}

fn crates() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let all = REAL.iter();
    all.map(|(name, version)| (*name, *version, real(name, version)))
        .collect()
}

fn lock(source: &str, crates: &[(&str, &str, Vec<u8>)]) -> String {
    let names: Vec<String> = crates.iter().map(|it| format!("\"{}\"", it.0)).collect();
    let mut text = format!(
        "version = 4\n\n[[package]]\nname = \"app\"\nversion = \"0.1.0\"\ndependencies = [{}]\n",
        names.join(", ")
    );
    for (name, version, bytes) in crates {
        let _ = write!(
            text,
            "\n[[package]]\nname = \"{name}\"\nversion = \"{version}\"\nsource = \"{source}\"\nchecksum = \"{}\"\n",
            Digest::of(bytes).to_hex()
        );
    }
    text
}

/// A registry as cargo reads it, and a home of cargo that takes it in place of the community's.
fn serve(world: &World, crates: &[(&str, &str, Vec<u8>)]) {
    let url = &world.index.url;
    let mut files = world.index.files.lock().expect("no test panics with it");
    let config = format!("{{\"dl\": \"{url}/crates/{{crate}}-{{version}}.crate\"}}");
    files.insert("/index/config.json".into(), config.into_bytes());
    for (name, version, bytes) in crates {
        let digest = Digest::of(bytes).to_hex();
        let line = format!(
            "{{\"name\":\"{name}\",\"vers\":\"{version}\",\"deps\":[],\"cksum\":\"{digest}\",\"features\":{{}},\"yanked\":false}}\n"
        );
        let path = format!(
            "/index/{}/{}/{name}",
            &name[..2],
            &name[2..4.min(name.len())]
        );
        files.insert(path, line.into_bytes());
        files.insert(format!("/crates/{name}-{version}.crate"), bytes.clone());
    }
    drop(files);
    let text = format!(
        "[source.crates-io]\nreplace-with = \"here\"\n[source.here]\nregistry = \"sparse+{url}/index/\"\n"
    );
    world.write("home/.cargo/config.toml", &text);
}

fn spec(world: &World, more: &str) {
    world.write(
        "spec.toml",
        &format!(
            "immbuild = 1\n[source.app]\npath = \"app\"\n[source.crates]\ncargo = \"app/Cargo.lock\"\n\
             [image]\nsteps = [\n  {{ copy = \"app\", to = \"/src\" }},\n{more}  {{ install = \"crates\", to = \"/src/vendor\" }},\n]\n\
             entrypoint = [\"/a\"]\n[[output]]\nkind = \"dir\"\ndir = \"out\"\n"
        ),
    );
}

fn project(world: &World, source: &str, crates: &[(&str, &str, Vec<u8>)]) {
    world.write(
        "app/Cargo.toml",
        "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\ncfg-if = \"1\"\nitoa = \"1\"\n",
    );
    world.write(
        "app/src/main.rs",
        "cfg_if::cfg_if! { if #[cfg(unix)] { const N: u8 = 42; } else { const N: u8 = 0; } }\nfn main() {\n    println!(\"{}\", itoa::Buffer::new().format(N));\n}\n",
    );
    world.write("app/Cargo.lock", &lock(source, crates));
}

fn good() -> World {
    let (world, crates) = (World::new(), crates());
    serve(&world, &crates);
    project(&world, COMMUNITY, &crates);
    spec(&world, "");
    world
}

/// cargo of this machine, with nothing of its user.
fn cargo(world: &World, home: &str, directory: &Path, args: &[&str]) -> String {
    let program = Command::new("rustup").args(["which", "cargo"]).output();
    let program = program
        .ok()
        .filter(|output| output.status.success())
        .map_or_else(
            || "cargo".to_owned(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        );
    let bin = Path::new(&program).parent().unwrap_or(Path::new(""));
    let path = format!(
        "{}:{}",
        bin.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let output = Command::new(&program)
        .args(args)
        .current_dir(directory)
        .env_clear()
        .env("PATH", path)
        .env("HOME", world.path("nobody"))
        .env("CARGO_HOME", world.path(home))
        .env("CARGO_TARGET_DIR", world.path("target"))
        .output()
        .expect("cargo is installed");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {args:?}: {err}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn crates_are_laid_out_as_cargo_vendor_lays_them_and_cargo_builds_from_them() {
    let world = good();
    world.build();
    // What cargo itself makes of the same registry. It knows the community's by its real name only.
    let real_name = {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
        let text = fs::read_to_string(own).expect("a lock");
        let line = text.lines().find(|line| line.starts_with("source = "));
        let line = line.expect("it has crates of the registry");
        line.trim_start_matches("source = ")
            .trim_matches('"')
            .to_owned()
    };
    world.write(
        "theirs/Cargo.toml",
        &fs::read_to_string(world.path("app/Cargo.toml")).expect("there"),
    );
    world.write("theirs/src/main.rs", "fn main() {}\n");
    world.write("theirs/Cargo.lock", &lock(&real_name, &crates()));
    let theirs = world.path("theirs");
    cargo(
        &world,
        "home/.cargo",
        &theirs,
        &["vendor", "--locked", "--versioned-dirs", "vendor"],
    );
    let mut ours = listing(&world.path("out/src/vendor"));
    let mut expected = listing(&theirs.join("vendor"));
    let sums = |files: &mut BTreeMap<String, (u32, Vec<u8>)>| -> Vec<serde_json::Value> {
        let names = REAL.map(|(name, version)| format!("{name}-{version}/.cargo-checksum.json"));
        names
            .iter()
            .map(|name| {
                let (_, text) = files.remove(name).expect("checksums");
                serde_json::from_slice(&text).expect("JSON")
            })
            .collect()
    };
    assert_eq!(sums(&mut ours), sums(&mut expected));
    let names = |files: &BTreeMap<String, (u32, Vec<u8>)>| -> Vec<String> {
        files.keys().cloned().collect()
    };
    assert_eq!(names(&ours), names(&expected));
    for (path, (mode, content)) in &ours {
        let (other, bytes) = &expected[path];
        assert_eq!(mode & 0o111, other & 0o111, "the mode of {path}");
        assert!(content == bytes, "{path} differs");
    }
    assert!(!ours.contains_key("itoa-1.0.19/.gitignore"));
    // And cargo builds what is in the image, with no network, no home and the lock as it is.
    let built = world.path("out/src");
    fs::write(built.join("Cargo.lock"), lock(&real_name, &crates())).expect("written");
    let said = cargo(
        &world,
        "empty",
        &built,
        &["run", "-q", "--offline", "--locked"],
    );
    assert_eq!(said, "42\n");
    // A file that was changed is noticed by cargo itself.
    let changed = built.join("vendor/itoa-1.0.19/src/lib.rs");
    let mut text = fs::read_to_string(&changed).expect("there");
    text.push_str("// changed\n");
    fs::write(&changed, text).expect("written");
    fs::remove_dir_all(world.path("target")).expect("removed");
    let output = Command::new("cargo")
        .args(["build", "--offline", "--locked"])
        .current_dir(&built)
        .env("CARGO_HOME", world.path("empty"))
        .env("CARGO_TARGET_DIR", world.path("target"))
        .output()
        .expect("cargo is installed");
    assert!(String::from_utf8_lossy(&output.stderr).contains("checksum"));
}

#[test]
fn the_same_lock_gives_the_same_image_wherever_it_is_built() {
    let world = good();
    let first = world.build();
    assert!(!world.path("spec.lock").exists(), "its lock is the lock");
    assert_eq!(world.build(), first, "warm");
    world.index.asked();
    fs::remove_dir_all(world.path("out")).expect("removed");
    assert_eq!(world.run(&["build", "--offline", "--locked"]).good(), first);
    assert_eq!(world.index.asked(), [""; 0]);
    // Elsewhere, from what cargo has fetched, with another mask and no registry.
    let other = World::new();
    let crates = crates();
    project(&other, COMMUNITY, &crates);
    spec(&other, "");
    let kept = other.path("home/.cargo/registry/cache/somewhere");
    fs::create_dir_all(&kept).expect("made");
    for (name, version, bytes) in &crates {
        fs::write(kept.join(format!("{name}-{version}.crate")), bytes).expect("written");
    }
    let mut command = Command::new("sh");
    command
        .args(["-c", "umask 077; exec \"$0\" build --offline"])
        .arg(env!("CARGO_BIN_EXE_immbuild"))
        .current_dir(other.place.path())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", other.path("home"))
        .env("XDG_CACHE_HOME", other.path("cache"));
    // The mask makes no other modes: the project's files were written before.
    assert_eq!(Ran::of(&command.output().expect("it runs")).good(), first);
}

#[test]
fn what_is_missing_is_told_and_everything_can_be_vendored() {
    let world = good();
    world.run(&["lock", "--check"]).good();
    world
        .run(&["build", "--offline"])
        .fails(5, &["cfg-if 1.0.5", "itoa 1.0.19", "the network is off"]);
    world.run(&["vendor", "-o", "vendored"]).good();
    fs::remove_dir_all(world.path("cache")).expect("removed");
    world.run(&["vendor", "--read", "vendored"]).good();
    world.run(&["build", "--offline"]).good();
    let why = world.run(&["why", "itoa"]).good();
    assert!(why.contains("needed by the project app"), "{why}");
    let bill = world.run(&["sbom"]).good();
    assert!(bill.contains("pkg:cargo/itoa@1.0.19"), "{bill}");
    assert!(
        bill.contains(&Digest::of(&real("itoa", "1.0.19")).to_hex()),
        "{bill}"
    );

    // Nobody says where they are.
    let world = World::new();
    project(&world, COMMUNITY, &crates());
    spec(&world, "");
    world.run(&["build"]).fails(
        5,
        &[
            "nothing says where crates of `crates-io` are",
            "cargo fetch --locked",
        ],
    );
    // The user does.
    serve(&world, &crates());
    fs::remove_file(world.path("home/.cargo/config.toml")).expect("removed");
    let url = &world.index.url;
    let text = format!("[cargo]\ndownloads = [\"{url}/crates/{{crate}}-{{version}}.crate\"]\n");
    world.write("home/.config/immbuild/config.toml", &text);
    world.build();
}

#[test]
fn crates_of_another_registry_are_replaced_by_its_name() {
    let (world, crates) = (World::new(), crates());
    serve(&world, &crates);
    fs::remove_file(world.path("home/.cargo/config.toml")).expect("removed");
    let source = format!("sparse+{}/index/", world.index.url);
    project(&world, &source, &crates);
    spec(&world, "");
    world.build();
    let text = fs::read_to_string(world.path("out/src/.cargo/config.toml")).expect("there");
    assert_eq!(
        text,
        format!(
            "[source.crates-io]\nreplace-with = \"vendored-sources\"\n\n[source.\"{source}\"]\nregistry = \"{source}\"\nreplace-with = \"vendored-sources\"\n\n[source.vendored-sources]\ndirectory = \"vendor\"\n"
        )
    );
}

#[test]
fn a_configuration_that_is_there_is_added_to() {
    let world = good();
    world.write("app/.cargo/config.toml", "[build]\njobs = 1");
    world.build();
    let text = fs::read_to_string(world.path("out/src/.cargo/config.toml")).expect("there");
    assert!(
        text.starts_with("[build]\njobs = 1\n[source.crates-io]\n"),
        "{text}"
    );
    for (path, content, says) in [
        (
            "app/.cargo/config.toml",
            "[source.crates-io]\nreplace-with = \"x\"\n",
            "says itself where crates are",
        ),
        ("app/.cargo/config.toml", "[source", "is no TOML"),
        ("app/.cargo/config", "[build]\n", "would hide `config.toml`"),
        (
            "app/vendor/itoa-1.0.19/x",
            "",
            "`/src/vendor/itoa-1.0.19` is there already",
        ),
    ] {
        let _ = fs::remove_dir_all(world.path("app/.cargo"));
        world.write(path, content);
        world.run(&["build"]).fails(3, &[says]);
    }
}

/// A crate of these entries: path, type and content.
fn archive(entries: &[(&str, u8, &[u8])]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (path, kind, content) in entries {
        let mut header = tar::Header::new_ustar();
        let name = &mut header.as_old_mut().name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(tar::EntryType::new(*kind));
        header.set_mode(0o644);
        let is_link = matches!(*kind, b'1' | b'2');
        if is_link {
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content);
        }
        let content: &[u8] = if is_link { b"" } else { content };
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.extend_from_slice(header.as_bytes());
        tar.extend_from_slice(content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    let mut gz = GzEncoder::new(Vec::new(), Compression::best());
    std::io::Write::write_all(&mut gz, &tar).expect("written");
    gz.finish().expect("finished")
}

#[test]
fn what_cargo_leaves_out_is_left_out() {
    let world = World::new();
    let bytes = archive(&[
        ("own-1.0.0/Cargo.toml", b'0', b"[package]\n"),
        ("own-1.0.0/.gitignore", b'0', b"x"),
        ("own-1.0.0/deep/.gitattributes", b'0', b"x"),
        ("own-1.0.0/deep/er/.gitignore", b'0', b"x"),
        ("own-1.0.0/deep/file", b'0', b"x"),
        ("own-1.0.0/empty/", b'5', b""),
        ("own-1.0.0/.cargo-checksum.json", b'0', b"{}"),
        ("own-1.0.0/deep/.cargo-checksum.json", b'0', b"{}"),
    ]);
    let crates = [("own", "1.0.0", bytes)];
    serve(&world, &crates);
    project(&world, COMMUNITY, &crates);
    spec(&world, "");
    world.build();
    let found = listing(&world.path("out/src/vendor/own-1.0.0"));
    let names: Vec<&String> = found.keys().collect();
    assert_eq!(
        names,
        [
            ".cargo-checksum.json",
            "Cargo.toml",
            "deep",
            "deep/.cargo-checksum.json",
            "deep/file"
        ]
    );
    let checksums: serde_json::Value =
        serde_json::from_slice(&found[".cargo-checksum.json"].1).expect("JSON");
    assert_eq!(checksums["package"], Digest::of(&crates[0].2).to_hex());
    assert_eq!(
        checksums["files"].as_object().map(serde_json::Map::len),
        Some(3)
    );
}

#[test]
fn hostile_crates_are_refused() {
    let manifest = ("bad-1.0.0/Cargo.toml", b'0', &b"[package]\n"[..]);
    let zeros = vec![0; 160 << 20];
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "climbs",
            archive(&[manifest, ("bad-1.0.0/../../evil", b'0', b"x")]),
            "`..`",
        ),
        (
            "absolute",
            archive(&[manifest, ("/etc/evil", b'0', b"x")]),
            "something else than the directory",
        ),
        (
            "beside",
            archive(&[manifest, ("other/evil", b'0', b"x")]),
            "something else than the directory `bad-1.0.0`",
        ),
        (
            "another name",
            archive(&[("bad-1.0.1/Cargo.toml", b'0', b"")]),
            "something else than the directory `bad-1.0.0`",
        ),
        (
            "link",
            archive(&[manifest, ("bad-1.0.0/link", b'2', b"Cargo.toml")]),
            "is a link or a device",
        ),
        (
            "link out",
            archive(&[manifest, ("bad-1.0.0/link", b'2', b"../../../etc/passwd")]),
            "bad-1.0.0.crate` is refused",
        ),
        (
            "hard link out",
            archive(&[manifest, ("bad-1.0.0/link", b'1', b"/etc/passwd")]),
            "bad-1.0.0.crate` is refused",
        ),
        (
            "pipe",
            archive(&[manifest, ("bad-1.0.0/pipe", b'6', b"")]),
            "bad-1.0.0.crate` is refused",
        ),
        (
            "device",
            archive(&[manifest, ("bad-1.0.0/null", b'3', b"")]),
            "bad-1.0.0.crate` is refused",
        ),
        (
            "no manifest",
            archive(&[("bad-1.0.0/src", b'0', b"")]),
            "it has no `Cargo.toml`",
        ),
        (
            "bomb",
            archive(&[manifest, ("bad-1.0.0/zeros", b'0', &zeros)]),
            "bomb",
        ),
        ("nothing", archive(&[]), "bad-1.0.0.crate` is refused"),
        (
            "no archive",
            b"hello".to_vec(),
            "bad-1.0.0.crate` is refused",
        ),
    ];
    for (case, bytes, says) in cases {
        let world = World::new();
        let crates = [("bad", "1.0.0", bytes)];
        // Its index is never read, only where crates are.
        serve(&world, &[]);
        let path = "/crates/bad-1.0.0.crate".to_owned();
        let mut files = world.index.files.lock().expect("no test panics with it");
        files.insert(path, crates[0].2.clone());
        drop(files);
        project(&world, COMMUNITY, &crates);
        spec(&world, "");
        let ran = world.run(&["build"]);
        assert_eq!(ran.code, 6, "{case}: {}", ran.err);
        assert!(
            ran.err.contains(says),
            "{case}: no `{says}` in:\n{}",
            ran.err
        );
        assert!(!world.path("out").exists(), "{case}");
    }
}

#[test]
fn another_file_than_the_lock_has_is_refused() {
    let world = good();
    let mut files = world.index.files.lock().expect("no test panics with it");
    files.insert("/crates/itoa-1.0.19.crate".into(), b"evil".to_vec());
    drop(files);
    world
        .run(&["build"])
        .fails(6, &["itoa 1.0.19", "the bytes are those of"]);
    let text = lock(COMMUNITY, &crates());
    world.write("app/Cargo.lock", &text.replace("registry+", "git+"));
    world
        .run(&["build"])
        .fails(4, &["app/Cargo.lock:", "is from no registry"]);
    world
        .run(&["lock", "--check"])
        .fails(4, &["is from no registry"]);
    fs::remove_file(world.path("app/Cargo.lock")).expect("removed");
    world.run(&["build"]).fails(3, &["there is no file"]);
}
