//! Packages made here, byte by byte, and what becomes of them.

use std::io::Cursor;
use std::num::NonZeroUsize;

use immbuild_cas::digest::{BlobId, Digest};
use immbuild_cas::path::RelPath;
use immbuild_cas::store::{BlobSource as _, MemoryStore, Store as _};
use immbuild_cas::tree::{
    Entry, Meta, Mode, Tree, TreeBuilder, entry_at, to_listing, tree_of_listing,
};
use liblzma::write::XzEncoder;
use proptest::prelude::*;

use super::deb::{self, DebError};
use super::groups::groups;
use super::install::{InstallError, install};
use super::set::{Assembly, SetError};
use crate::graph::install::{InstallOp, PackagePin};
use crate::resolve::unpack::UnpackError;
use crate::spec::model::{Configure, FixupAccount, Fixups, Prune};

/// How a tar in a package is compressed.
#[derive(Clone, Copy)]
enum Packing {
    Plain,
    Gzip,
    Xz,
    Zstd,
}

/// One file of a package.
enum Content<'t> {
    Directory(u32),
    File(u32, &'t [u8]),
    Symlink(&'t str),
    HardLink(&'t str),
    Device,
}

fn tar(entries: &[(&str, Content<'_>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (path, content) in entries {
        let mut header = tar::Header::new_gnu();
        let name = &mut header.as_old_mut().name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        let mut link = |target: &str| {
            let field = &mut header.as_old_mut().linkname;
            field[..target.len()].copy_from_slice(target.as_bytes());
        };
        let (kind, mode, bytes): (_, _, &[u8]) = match content {
            Content::Directory(mode) => (tar::EntryType::Directory, *mode, b""),
            Content::File(mode, bytes) => (tar::EntryType::Regular, *mode, bytes),
            Content::Symlink(target) => {
                link(target);
                (tar::EntryType::Symlink, 0o777, b"")
            }
            Content::HardLink(target) => {
                link(target);
                (tar::EntryType::Link, 0o644, b"")
            }
            Content::Device => (tar::EntryType::Char, 0o600, b""),
        };
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(bytes.len() as u64);
        if matches!(content, Content::Device) {
            header.set_device_major(1).expect("a number");
            header.set_device_minor(3).expect("a number");
        }
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn packed(bytes: &[u8], packing: Packing) -> (&'static str, Vec<u8>) {
    use std::io::Write as _;
    match packing {
        Packing::Plain => ("", bytes.to_vec()),
        Packing::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).expect("memory");
            (".gz", encoder.finish().expect("memory"))
        }
        Packing::Xz => {
            let mut encoder = XzEncoder::new(Vec::new(), 0);
            encoder.write_all(bytes).expect("memory");
            (".xz", encoder.finish().expect("memory"))
        }
        Packing::Zstd => (".zst", zstd::encode_all(bytes, 1).expect("memory")),
    }
}

fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, bytes) in members {
        let size = bytes.len();
        out.extend_from_slice(
            format!("{name:<16}1           0     0     100644  {size:<10}`\n").as_bytes(),
        );
        out.extend_from_slice(bytes);
        if size % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}

/// A package as text: fields, control files beside, files.
struct Made<'t> {
    fields: &'t str,
    control: Vec<(&'t str, Content<'t>)>,
    data: Vec<(&'t str, Content<'t>)>,
}

fn made<'t>(fields: &'t str, data: Vec<(&'t str, Content<'t>)>) -> Made<'t> {
    Made {
        fields,
        control: Vec::new(),
        data,
    }
}

impl Made<'_> {
    fn bytes(&self, packing: Packing) -> Vec<u8> {
        let text = format!("{}\nDescription: made\n", self.fields);
        let mut control = vec![
            ("./", Content::Directory(0o755)),
            ("./control", Content::File(0o644, text.as_bytes())),
        ];
        for (path, content) in &self.control {
            if let Content::File(mode, bytes) = content {
                control.push((path, Content::File(*mode, bytes)));
            }
        }
        let (rest, control) = packed(&tar(&control), packing);
        let (_, data) = packed(&tar(&self.data), packing);
        ar(&[
            ("debian-binary", b"2.0\n"),
            (&format!("control.tar{rest}"), &control),
            (&format!("data.tar{rest}"), &data),
        ])
    }
}

fn fields(name: &str, more: &str) -> String {
    format!("Package: {name}\nVersion: 1\nArchitecture: amd64\nMaintainer: x{more}")
}

/// The packages as a source has them.
fn set(store: &MemoryStore, packages: &[Made<'_>]) -> Result<Tree, SetError> {
    let pins: Vec<(PackagePin, u64)> = packages
        .iter()
        .map(|package| {
            let bytes = package.bytes(Packing::Xz);
            let blob = store.put_bytes(&bytes).expect("memory");
            let name = package.fields.lines().next().expect("a name");
            let pin = PackagePin {
                name: name.trim_start_matches("Package: ").to_owned(),
                arch: "amd64".into(),
                version: "1".into(),
                sha256: *blob.digest(),
            };
            (pin, bytes.len() as u64)
        })
        .collect();
    let assembly = Assembly {
        store,
        threads: NonZeroUsize::new(2).expect("two"),
        progress: &|_| {},
    };
    Ok(assembly.assemble(&pins)?.tree)
}

fn nothing(store: &MemoryStore) -> Tree {
    tree_of_listing("", store).expect("an empty root")
}

fn op(configure: Configure, fixups: Fixups) -> InstallOp {
    InstallOp {
        architecture: "amd64".into(),
        configure,
        fixups,
    }
}

fn installed_on(
    store: &MemoryStore,
    base: &Tree,
    packages: &[Made<'_>],
    fixups: Fixups,
) -> Result<(Tree, Vec<String>), InstallError> {
    let set = set(store, packages).expect("packages");
    let op = op(Configure::None, fixups);
    let done = install(&op, base, &set, store, store)?;
    Ok((done.tree, done.warnings))
}

fn installed(store: &MemoryStore, packages: &[Made<'_>]) -> Result<Tree, InstallError> {
    let base = nothing(store);
    installed_on(store, &base, packages, Fixups::default()).map(|(tree, _)| tree)
}

fn text(store: &MemoryStore, tree: &Tree, path: &str) -> Option<String> {
    let path = RelPath::from_absolute(path.as_bytes()).expect("a path");
    match entry_at(store, tree, &path).expect("a tree") {
        Some(Entry::File(file)) => {
            Some(String::from_utf8(store.read(&file.blob).expect("a blob")).expect("text"))
        }
        Some(Entry::Symlink(link)) => Some(format!("-> {}", String::from_utf8_lossy(&link.target))),
        Some(_) => Some("something else".into()),
        None => None,
    }
}

// ---- reading a package

#[test]
fn every_packing_gives_one_tree() {
    let fields = fields("demo", "");
    let demo = made(
        &fields,
        vec![
            ("./", Content::Directory(0o755)),
            ("./usr/", Content::Directory(0o755)),
            ("./usr/su", Content::File(0o4755, b"su")),
            ("./usr/hard", Content::HardLink("./usr/su")),
            ("./usr/soft", Content::Symlink("/etc/su")),
        ],
    );
    let store = MemoryStore::default();
    let read = |packing| {
        let bytes = demo.bytes(packing);
        deb::read(&mut Cursor::new(bytes), &store)
            .expect("a package")
            .tree
    };
    let plain = read(Packing::Plain);
    for packing in [Packing::Gzip, Packing::Xz, Packing::Zstd] {
        assert_eq!(read(packing), plain);
    }
    let listing = to_listing(&store, &plain).expect("a tree");
    assert!(listing.contains("f 4755 0:0 /data/usr/hard "), "{listing}");
    assert!(
        listing.contains("h          /data/usr/su => /data/usr/hard"),
        "{listing}"
    );
    assert!(
        listing.contains("l      0:0 /data/usr/soft -> /etc/su"),
        "{listing}"
    );
    assert_eq!(
        text(&store, &plain, "/list").as_deref(),
        Some("/.\n/usr\n/usr/su\n/usr/hard\n/usr/soft\n")
    );
}

#[test]
fn a_package_is_decoded_once() {
    let store = MemoryStore::default();
    let fields = fields("demo", "");
    let blob = store
        .put_bytes(&made(&fields, vec![]).bytes(Packing::Xz))
        .expect("memory");
    assert!(!deb::is_decoded(&blob, &store).expect("memory"));
    let first = deb::decode(&blob, &store).expect("a package");
    assert!(deb::is_decoded(&blob, &store).expect("memory"));
    assert_eq!(deb::decode(&blob, &store).expect("a package"), first);
    let gone = BlobId::new(Digest::of(b"gone"));
    assert!(matches!(
        deb::decode(&gone, &store),
        Err(DebError::Store(_))
    ));
}

fn refused(bytes: &[u8]) -> String {
    let store = MemoryStore::default();
    let error = deb::read(&mut Cursor::new(bytes), &store).expect_err("it is hostile");
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[test]
fn a_hostile_file_is_refused() {
    let fields = fields("demo", "");
    let of = |data| refused(&made(&fields, data).bytes(Packing::Xz));
    let file = || Content::File(0o644, b"x");
    assert!(of(vec![("./../etc/x", file())]).contains("`..` in its path"));
    assert!(of(vec![("/etc/x", file())]).contains("has an absolute path"));
    assert!(
        of(vec![("./a", Content::Symlink("/etc")), ("./a/x", file())])
            .contains("is behind a symbolic link, at `/a`")
    );
    assert!(of(vec![("./a", Content::HardLink("../../etc/shadow"))]).contains("`..` in its path"));
    assert!(of(vec![("./a", Content::HardLink("./b"))]).contains("is a hard link to"));
    assert!(of(vec![("./null", Content::Device)]).contains("is a device"));
    assert!(of(vec![("./a", file()), ("./a", file())]).contains("is there twice"));
    assert!(of(vec![("./a\nb", file())]).contains("holds a line feed"));
    let mut sparse = tar(&[("./a", file())]);
    // An old GNU header of a sparse file.
    sparse[156] = b'S';
    let sum: u32 = sparse[..512]
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            if (148..156).contains(&at) {
                32
            } else {
                u32::from(*byte)
            }
        })
        .sum();
    sparse[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let control = tar(&[("./control", Content::File(0o644, b"Package: a\n"))]);
    let mut data = tar(&[("./b", file())]);
    data.truncate(1024);
    data.extend_from_slice(&sparse);
    let bytes = ar(&[
        ("debian-binary", b"2.0\n"),
        ("control.tar", &control),
        ("data.tar", &data),
    ]);
    assert!(refused(&bytes).contains("sparse"), "{}", refused(&bytes));
}

#[test]
fn a_bomb_is_refused() {
    let zeros = vec![0; 200 << 20];
    let fields = fields("demo", "");
    let demo = made(&fields, vec![("./a", Content::File(0o644, &zeros))]);
    let bytes = demo.bytes(Packing::Zstd);
    assert!(bytes.len() < 100 << 10);
    assert!(refused(&bytes).contains("is a bomb"), "{}", refused(&bytes));
}

#[test]
fn an_archive_that_is_none_is_refused() {
    let control = tar(&[("./control", Content::File(0o644, b"Package: a\n"))]);
    let data = tar(&[]);
    let first: (&str, &[u8]) = ("debian-binary", b"2.0\n");
    let (of_control, of_data) = (("control.tar", &*control), ("data.tar", &*data));
    assert!(refused(b"").contains("it is empty"));
    assert!(refused(b"PK\x03\x04 and more").contains("does not begin as an ar archive"));
    assert!(refused(&ar(&[of_control, of_data])).contains("first member is not"));
    assert!(
        refused(&ar(&[("debian-binary", b"3.0\n"), of_control, of_data])).contains("version 2")
    );
    assert!(refused(&ar(&[first, of_data, of_control])).contains("stands where `control.tar`"));
    assert!(refused(&ar(&[first, of_control])).contains("has no `data.tar`"));
    assert!(refused(&ar(&[first, of_control, of_data, of_data])).contains("behind `data.tar`"));
    assert!(
        refused(&ar(&[first, ("control.tar.lz4", &control), of_data])).contains("stands where")
    );
    let whole = ar(&[first, of_control, of_data]);
    for length in [whole.len() - 600, 30, 200] {
        let text = refused(&whole[..length]);
        assert!(text.contains("cut short"), "{length}: {text}");
    }
    let fields = fields("demo", "");
    let xz = made(&fields, vec![("./a", Content::File(0o644, &[7; 4000]))]).bytes(Packing::Xz);
    assert!(refused(&xz[..xz.len() - 20]).contains("cut short"));
    let mut damaged = xz.clone();
    let at = damaged.len() - 40;
    damaged[at] ^= 0xff;
    refused(&damaged);
    let signed = ar(&[
        first,
        of_control,
        ("_gpgorigin", b"sig"),
        of_data,
        ("_x", b"y"),
    ]);
    let store = MemoryStore::default();
    assert!(deb::read(&mut Cursor::new(signed), &store).is_ok());
}

#[test]
fn a_package_is_what_it_is_locked_as() {
    let store = MemoryStore::default();
    let made = made("Package: demo\nVersion: 2\nArchitecture: amd64", vec![]);
    let error = set(&store, &[made]).expect_err("version 1 is locked");
    assert_eq!(
        error.to_string(),
        "the package locked as `demo 1 amd64` says that it is `demo 2 amd64`"
    );
    let error = match deb::read(&mut Cursor::new(b"".to_vec()), &store) {
        Err(DebError::NotADeb(_)) => UnpackError::NotArchive("x").to_string(),
        other => panic!("{other:?}"),
    };
    assert!(!error.is_empty());
}

// ---- putting packages into a root

#[test]
fn a_root_is_merged_and_has_a_database() {
    let store = MemoryStore::default();
    let fields = fields("demo", "\nMulti-Arch: same\nDepends: other(>=1)");
    let mut demo = made(
        &fields,
        vec![
            ("./", Content::Directory(0o755)),
            ("./lib64/", Content::Directory(0o755)),
            ("./lib64/ld.so", Content::File(0o755, b"ld")),
            ("./bin/", Content::Directory(0o755)),
            ("./bin/demo", Content::File(0o755, b"demo")),
            ("./etc/", Content::Directory(0o755)),
            ("./etc/demo.conf", Content::File(0o640, b"conf\n")),
        ],
    );
    demo.control = vec![
        ("./conffiles", Content::File(0o644, b"/etc/demo.conf\n")),
        (
            "./triggers",
            Content::File(0o644, b"interest-noawait /usr/share/x\ninterest y\n"),
        ),
    ];
    let tree = installed(&store, &[demo]).expect("it can be installed");
    assert_eq!(text(&store, &tree, "/bin").as_deref(), Some("-> usr/bin"));
    assert_eq!(
        text(&store, &tree, "/lib64").as_deref(),
        Some("-> usr/lib64")
    );
    assert_eq!(text(&store, &tree, "/lib32"), None);
    assert_eq!(
        text(&store, &tree, "/usr/bin/demo").as_deref(),
        Some("demo")
    );
    let get = |name: &str| text(&store, &tree, &format!("/var/lib/dpkg/{name}"));
    assert_eq!(
        get("status").as_deref(),
        Some(
            "Package: demo\nStatus: install ok installed\nMaintainer: x\nArchitecture: amd64\n\
             Multi-Arch: same\nVersion: 1\nDepends: other (>= 1)\nConffiles:\n \
             /etc/demo.conf 12bfd6d98a2e8b2ae0f9a4a7d0b0ed10\nDescription: made\n\n"
        )
        .map(|text| text.replace("12bfd6d98a2e8b2ae0f9a4a7d0b0ed10", CONF_SUM))
        .as_deref()
    );
    assert_eq!(
        get("info/demo:amd64.list").as_deref(),
        Some("/.\n/lib64\n/lib64/ld.so\n/bin\n/bin/demo\n/etc\n/etc/demo.conf\n")
    );
    assert!(
        get("info/demo:amd64.md5sums")
            .expect("sums")
            .ends_with("  bin/demo\n")
    );
    assert_eq!(
        get("triggers/File").as_deref(),
        Some("/usr/share/x demo:amd64/noawait\n")
    );
    assert_eq!(get("triggers/y").as_deref(), Some("demo:amd64\n"));
    assert_eq!(get("info/format").as_deref(), Some("1\n"));
}

#[test]
fn a_linker_below_usr_is_found_by_its_own_name() {
    let store = MemoryStore::default();
    let fields = fields("libc6", "");
    for (directory, file, link) in [
        ("lib64", "ld-linux-x86-64.so.2", Some("-> usr/lib64")),
        ("lib64", "libother.so", None),
        ("lib32", "ld-linux.so.2", None),
    ] {
        let path = format!("./usr/{directory}/{file}");
        let libc = made(&fields, vec![(path.as_str(), Content::File(0o755, b"ld"))]);
        let tree = installed(&store, &[libc]).expect("it can be installed");
        let found = text(&store, &tree, &format!("/{directory}"));
        assert_eq!(found.as_deref(), link);
    }
}

/// `printf 'conf\n' | md5sum`
const CONF_SUM: &str = "b9a771b420047cfaa3543e66c78f44f6";

fn file<'t>(name: &'t str, text: &'t [u8]) -> Vec<(&'t str, Content<'t>)> {
    vec![(name, Content::File(0o644, text))]
}

#[test]
fn two_packages_cannot_have_one_file() {
    let store = MemoryStore::default();
    let (a, b) = (fields("a", ""), fields("b", ""));
    let error = installed(
        &store,
        &[made(&a, file("./x", b"1")), made(&b, file("./x", b"1"))],
    )
    .expect_err("dpkg refuses it, too");
    assert_eq!(
        error.to_string(),
        "`b` would overwrite `/x` of `a`, and does not say that it replaces it"
    );
    // Also by way of the merged directories.
    let error = installed(
        &store,
        &[
            made(&a, file("./bin/x", b"1")),
            made(&b, file("./usr/bin/x", b"2")),
        ],
    )
    .expect_err("one file");
    assert!(error.to_string().contains("would overwrite"), "{error}");
    let error = installed(
        &store,
        &[
            made(&a, vec![("./x/", Content::Directory(0o755))]),
            made(&b, file("./x", b"1")),
        ],
    )
    .expect_err("file and directory");
    assert!(
        error.to_string().contains("`/x` of `b` is a file"),
        "{error}"
    );
}

#[test]
fn who_replaces_another_has_the_file_whatever_the_order() {
    let store = MemoryStore::default();
    for (first, second) in [("a", "b"), ("b", "a")] {
        let winner = fields(first, &format!("\nReplaces: {second} (<< 2), z"));
        let loser = fields(second, "");
        let tree = installed(
            &store,
            &[
                made(&winner, file("./x", b"new")),
                made(&loser, file("./x", b"old")),
            ],
        )
        .expect("it says that it replaces it");
        assert_eq!(text(&store, &tree, "/x").as_deref(), Some("new"));
        let list = |name| text(&store, &tree, &format!("/var/lib/dpkg/info/{name}.list"));
        assert_eq!(list(first).as_deref(), Some("/x\n"));
        assert_eq!(list(second).as_deref(), Some(""));
    }
    let not = fields("a", "\nReplaces: b (<< 1)");
    let other = fields("b", "");
    assert!(
        installed(
            &store,
            &[
                made(&not, file("./x", b"1")),
                made(&other, file("./x", b"2"))
            ]
        )
        .is_err()
    );
}

#[test]
fn a_directory_is_that_of_who_brings_it_first() {
    let store = MemoryStore::default();
    let directory = |mode| {
        vec![
            ("./d/", Content::Directory(mode)),
            ("./e/x", Content::File(0o644, b"")),
        ]
    };
    let (a, base) = (fields("a", ""), fields("base-files", ""));
    let tree = installed(
        &store,
        &[
            made(&a, vec![("./d/", Content::Directory(0o700))]),
            made(&base, directory(0o1777)),
        ],
    )
    .expect("directories meet");
    let listing = to_listing(&store, &tree).expect("a tree");
    assert!(listing.contains("d 1777 0:0 /d\n"), "{listing}");
    assert!(listing.contains("d 0755 0:0 /e\n"), "{listing}");
}

#[test]
fn a_package_of_two_architectures_shares_what_is_equal() {
    let store = MemoryStore::default();
    let fields = |arch: &str| {
        format!("Package: lib\nVersion: 1\nArchitecture: {arch}\nMulti-Arch: same\nMaintainer: x")
    };
    let (one, two) = (fields("amd64"), fields("i386"));
    let packages = [
        made(&one, file("./doc", b"1")),
        made(&two, file("./doc", b"1")),
    ];
    let pins: Vec<(PackagePin, u64)> = packages
        .iter()
        .zip(["amd64", "i386"])
        .map(|(package, arch)| {
            let bytes = package.bytes(Packing::Gzip);
            let pin = PackagePin {
                name: "lib".into(),
                arch: arch.into(),
                version: "1".into(),
                sha256: *store.put_bytes(&bytes).expect("memory").digest(),
            };
            (pin, 1)
        })
        .collect();
    let assembly = Assembly {
        store: &store,
        threads: NonZeroUsize::MIN,
        progress: &|_| {},
    };
    let set = assembly.assemble(&pins).expect("packages").tree;
    let op = op(Configure::None, Fixups::default());
    let done = install(&op, &nothing(&store), &set, &store, &store).expect("one file is equal");
    assert_eq!(
        text(&store, &done.tree, "/var/lib/dpkg/arch").as_deref(),
        Some("amd64\ni386\n")
    );
}

#[test]
fn a_diversion_of_the_root_is_kept() {
    let store = MemoryStore::default();
    let base = tree_of_listing(
        "d 0755 0:0 /usr
         d 0755 0:0 /var
         d 0755 0:0 /var/lib
         d 0755 0:0 /var/lib/dpkg
         f 0644 0:0 /var/lib/dpkg/diversions \"/usr/x\\n/usr/x.real\\nother\\n\"
         f 0644 0:0 /usr/x \"mine\"",
        &store,
    )
    .expect("a listing");
    let a = fields("a", "");
    let (tree, _) = installed_on(
        &store,
        &base,
        &[made(&a, file("./usr/x", b"theirs"))],
        Fixups::default(),
    )
    .expect("it is diverted");
    assert_eq!(text(&store, &tree, "/usr/x").as_deref(), Some("mine"));
    assert_eq!(
        text(&store, &tree, "/usr/x.real").as_deref(),
        Some("theirs")
    );
    assert_eq!(
        text(&store, &tree, "/var/lib/dpkg/info/a.list").as_deref(),
        Some("/usr/x\n")
    );
}

#[test]
fn what_a_root_has_stays_and_has_to_fit() {
    let store = MemoryStore::default();
    let lib = fields("lib", "");
    let base = installed(&store, &[made(&lib, file("./libx", b"old"))]).expect("a base");
    let needs = fields(
        "app",
        "\nDepends: lib (>= 1) | nothing, virtual\nProvides: virtual",
    );
    let on = |more: &str| {
        let app = fields("app", more);
        let packages = [
            made(&app, file("./app", b"1")),
            made(&lib, file("./libx", b"new")),
        ];
        installed_on(&store, &base, &packages, Fixups::default())
    };
    let packages = [
        made(&needs, file("./app", b"1")),
        made(&lib, file("./libx", b"new")),
    ];
    let (tree, _) = installed_on(&store, &base, &packages, Fixups::default()).expect("it fits");
    assert_eq!(text(&store, &tree, "/libx").as_deref(), Some("old"));
    let status = text(&store, &tree, "/var/lib/dpkg/status").expect("a status");
    assert_eq!(status.matches("Package: ").count(), 2);
    let error = on("\nDepends: lib (>= 2)").expect_err("it is older");
    assert_eq!(
        error.to_string(),
        "`app` needs `lib (>= 2)`, and the root has `lib` 1"
    );
    let error = on("\nBreaks: lib (<< 2)").expect_err("it is older");
    assert_eq!(
        error.to_string(),
        "`app` breaks `lib (<< 2)`, and the root has `lib` 1"
    );
}

#[test]
fn scripts_are_left_to_dpkg() {
    let store = MemoryStore::default();
    let dpkg = fields("dpkg", "\nEssential: yes\nPre-Depends: tool");
    let tool = fields("tool", "");
    let app = fields("app", "\nDepends: dpkg");
    let user = fields("user", "\nDepends: base");
    let base = fields("base", "");
    let server = fields("server", "\nPre-Depends: user\nDepends: app");
    let shell = || {
        vec![
            ("./bin/sh", Content::File(0o755, b"sh")),
            ("./usr/bin/dpkg", Content::File(0o755, b"dpkg")),
        ]
    };
    let mut with_script = made(&app, file("./etc/app", b"conf"));
    with_script.control = vec![
        ("./preinst", Content::File(0o755, b"#!/bin/sh\n")),
        ("./conffiles", Content::File(0o644, b"/etc/app\n")),
    ];
    // In a circle: the one that pre-depends on the other comes first.
    let one = fields("ring-a", "\nDepends: ring-b");
    let other = fields("ring-b", "\nPre-Depends: ring-a");
    let [server, one, other] = [&server, &one, &other].map(|fields| {
        let mut made = made(fields, vec![]);
        made.control = vec![("./preinst", Content::File(0o755, b"#!/bin/sh\n"))];
        made
    });
    let set = set(
        &store,
        &[
            made(&dpkg, shell()),
            made(&tool, vec![]),
            with_script,
            made(&user, vec![]),
            made(&base, vec![]),
            server,
            one,
            other,
        ],
    )
    .expect("packages");
    let op = op(Configure::Scripts, Fixups::default());
    let done = install(&op, &nothing(&store), &set, &store, &store).expect("unpacked");
    let get = |path: &str| text(&store, &done.tree, path);
    assert_eq!(get("/etc/app"), None);
    assert_eq!(get("/etc/app.dpkg-new").as_deref(), Some("conf"));
    let status = get("/var/lib/dpkg/status").expect("a status");
    assert_eq!(status.matches("install ok unpacked").count(), 8);
    assert!(status.contains("\n /etc/app newconffile\n"), "{status}");
    let program = get("/var/lib/dpkg/immbuild-configure").expect("a program");
    let lines: Vec<&str> = program
        .lines()
        .filter(|line| {
            line.starts_with("set -- ")
                || line.starts_with("preinst ")
                || line.contains("--pending")
        })
        .collect();
    assert_eq!(
        lines,
        [
            "set -- tool dpkg",
            "preinst app amd64 app",
            "preinst ring-a amd64 ring-a",
            "set -- ring-a",
            "preinst ring-b amd64 ring-b",
            // Before the script runs, what it may rely on is configured.
            "set -- base user",
            "preinst server amd64 server",
            "dpkg $options --configure --pending"
        ]
    );
    let alone = [made(&app, vec![])];
    let set = self::set(&store, &alone).expect("a package");
    let error =
        install(&op, &nothing(&store), &set, &store, &store).expect_err("who would run it?");
    assert_eq!(error.to_string(), "there is no `sh` that could run scripts");
}

#[test]
fn fixups_are_statements_about_the_root() {
    let store = MemoryStore::default();
    let a = fields("tool", "");
    let mut tool = made(
        &a,
        vec![
            ("./usr/bin/tool-1", Content::File(0o755, b"1")),
            ("./usr/bin/tool-2", Content::File(0o755, b"2")),
            ("./usr/share/man/man1/tool.1", Content::File(0o644, b"man")),
            ("./usr/share/doc/tool/copyright", Content::File(0o644, b"c")),
            ("./usr/share/doc/tool/README", Content::File(0o644, b"r")),
            ("./usr/share/locale/de/x.mo", Content::File(0o644, b"de")),
            ("./usr/share/locale/en_GB/x.mo", Content::File(0o644, b"en")),
        ],
    );
    tool.control = vec![(
        "./postinst",
        Content::File(
            0o755,
            b"#!/bin/sh\nset -e\n\
              update-alternatives --install /usr/bin/tool tool /usr/bin/tool-1 1 --slave /usr/share/man/man1/t.1 t.1 /usr/share/man/man1/tool.1\n\
              update-alternatives --install /usr/bin/tool tool /usr/bin/tool-2 2\n\
              adduser --system --group tool\n\
              make-keys\n",
        ),
    )];
    let fixups = Fixups {
        accounts: vec![
            FixupAccount {
                name: "www-data".into(),
                ids: None,
            },
            FixupAccount {
                name: "shop".into(),
                ids: Some((7000, 7000)),
            },
        ],
        symlinks: [(RelPath::new(*b"etc/x").expect("a path"), "/y".to_owned())].into(),
        prune: [Prune::Docs, Prune::Locales, Prune::Man].into(),
        ..Fixups::default()
    };
    let base = nothing(&store);
    let (tree, warnings) = installed_on(&store, &base, &[tool], fixups.clone()).expect("a root");
    let get = |path: &str| text(&store, &tree, path);
    assert_eq!(
        get("/usr/bin/tool").as_deref(),
        Some("-> /etc/alternatives/tool")
    );
    assert_eq!(
        get("/etc/alternatives/tool").as_deref(),
        Some("-> /usr/bin/tool-2")
    );
    assert_eq!(get("/usr/share/man/man1/tool.1"), None);
    assert_eq!(get("/usr/share/doc/tool/copyright").as_deref(), Some("c"));
    assert_eq!(get("/usr/share/doc/tool/README"), None);
    assert_eq!(get("/usr/share/locale/de/x.mo"), None);
    assert_eq!(get("/usr/share/locale/en_GB/x.mo").as_deref(), Some("en"));
    assert_eq!(get("/etc/x").as_deref(), Some("-> /y"));
    let passwd = get("/etc/passwd").expect("accounts");
    let names: Vec<&str> = passwd
        .lines()
        .filter_map(|line| line.split(':').next())
        .collect();
    assert_eq!(names, ["root", "nobody", "tool", "www-data", "shop"]);
    assert_eq!(
        warnings,
        ["the script of `tool` was not run, and nothing takes its place: it calls `make-keys`"]
    );
    let listing = to_listing(&store, &tree).expect("a tree");
    assert!(listing.contains("d 1777 0:0 /tmp\n"), "{listing}");
    let a = fields("tool", "");
    let unknown = Fixups {
        accounts: vec![FixupAccount {
            name: "postgres".into(),
            ids: None,
        }],
        ..Fixups::default()
    };
    let error = installed_on(&store, &base, &[made(&a, vec![])], unknown).expect_err("a number");
    assert!(
        error
            .to_string()
            .contains("Debian has no fixed number for `postgres`"),
        "{error}"
    );
}

#[test]
fn an_install_of_nothing_new_changes_nothing() {
    let store = MemoryStore::default();
    let a = fields("a", "");
    let once = installed(&store, &[made(&a, file("./x", b"1"))]).expect("a root");
    let (twice, _) = installed_on(
        &store,
        &once,
        &[made(&a, file("./x", b"1"))],
        Fixups::default(),
    )
    .expect("the same");
    assert_eq!(twice, once);
}

// ---- layers

#[test]
fn a_bumped_package_moves_its_layer_and_the_last() {
    let store = MemoryStore::default();
    let libc = fields("libc6", "");
    let names: Vec<String> = (0..9).map(|nth| format!("p{nth}")).collect();
    let all: Vec<String> = names
        .iter()
        .map(|name| fields(name, "\nDepends: libc6"))
        .collect();
    let cut = |bumped: &'static [u8]| {
        let mut packages = vec![made(&libc, file("./usr/lib/libc", b"c"))];
        let paths: Vec<String> = names
            .iter()
            .map(|name| format!("./usr/share/{name}"))
            .collect();
        for ((fields, path), name) in all.iter().zip(&paths).zip(&names) {
            let text: &[u8] = if name == "p3" { bumped } else { b"same" };
            packages.push(made(fields, vec![(path, Content::File(0o644, text))]));
        }
        let set = set(&store, &packages).expect("packages");
        let op = op(Configure::None, Fixups::default());
        let below = nothing(&store);
        let root = install(&op, &below, &set, &store, &store)
            .expect("a root")
            .tree;
        let cut = groups(&below, &root, &set, 6, &store).expect("groups");
        let root = store.put_tree(&root).expect("memory");
        assert_ne!(cut.together, root, "the database comes last");
        cut
    };
    let (before, after) = (cut(b"1"), cut(b"2"));
    assert!(before.groups.len() > 2 && before.groups.len() <= 5);
    assert_eq!(before.groups[0].names, ["libc6"]);
    let moved: Vec<&Vec<String>> = before
        .groups
        .iter()
        .zip(&after.groups)
        .filter(|(one, other)| one.tree != other.tree)
        .map(|(one, _)| &one.names)
        .collect();
    assert!(
        matches!(&moved[..], [names] if names.contains(&"p3".to_owned())),
        "{moved:?}"
    );
}

// ---- anything

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_mutation_makes_an_installation_fall_over(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let fields = fields("demo", "\nDepends: a (>= 1), b | c\nReplaces: x");
        let mut demo = made(
            &fields,
            vec![
                ("./", Content::Directory(0o755)),
                ("./etc/", Content::Directory(0o755)),
                ("./etc/conf", Content::File(0o644, b"conf")),
                ("./etc/link", Content::Symlink("conf")),
                ("./etc/hard", Content::HardLink("./etc/conf")),
            ],
        );
        demo.control = vec![
            ("./conffiles", Content::File(0o644, b"/etc/conf\n")),
            ("./postinst", Content::File(0o755, b"#!/bin/sh\nadduser --system x\nupdate-alternatives --install /a b /etc/conf 1\n")),
            ("./triggers", Content::File(0o644, b"interest /usr\n")),
        ];
        let mut bytes = demo.bytes(Packing::Plain);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let store = MemoryStore::default();
        if let Ok(deb) = deb::read(&mut Cursor::new(bytes), &store) {
            let mut set = TreeBuilder::new(&store, Meta::root(Mode::DIRECTORY));
            let at = RelPath::new(*b"demo").expect("a path");
            set.graft(&at, deb.tree.root, &deb.tree.links).expect("a directory");
            let set = set.seal(&store).expect("memory");
            for configure in [Configure::None, Configure::Scripts] {
                let op = op(configure, Fixups::default());
                let _ = install(&op, &nothing(&store), &set, &store, &store);
            }
        }
    }
}
