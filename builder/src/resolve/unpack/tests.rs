//! Archives made by the tools that everybody uses, and by hand where no tool would.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use immbuild_cas::store::MemoryStore;
use immbuild_cas::tree::to_listing;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;

/// Unpacks with these options; gives the listing of the tree.
fn list(archive: &[u8], options: Options, limits: &Limits) -> Result<String, UnpackError> {
    let store = MemoryStore::new();
    let unpacked = unpack(&mut &archive[..], options, limits, &store)?;
    Ok(to_listing(&store, &unpacked.tree).expect("what was unpacked is in the store"))
}

fn plain(archive: &[u8]) -> Result<String, UnpackError> {
    list(archive, Options::default(), &Limits::default())
}

fn preserved(archive: &[u8]) -> Result<String, UnpackError> {
    let options = Options {
        preserve: true,
        ..Options::default()
    };
    list(archive, options, &Limits::default())
}

fn stripped(archive: &[u8], strip: u32) -> Result<String, UnpackError> {
    let options = Options {
        strip,
        ..Options::default()
    };
    list(archive, options, &Limits::default())
}

/// Runs a program in `directory` and gives what it prints.
fn run(directory: &Path, line: &str) -> Vec<u8> {
    let output = Command::new("sh")
        .args(["-eu", "-c", line])
        .current_dir(directory)
        .stderr(Stdio::inherit())
        .output()
        .expect("a shell is installed");
    assert!(output.status.success(), "{line}");
    output.stdout
}

/// A directory `pkg` with a file, a program, a directory and a link.
fn package() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir_all(at("pkg/bin")).unwrap();
    fs::write(at("pkg/README"), "read me\n").unwrap();
    fs::write(at("pkg/bin/run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(at("pkg/README"), Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(at("pkg/bin/run"), Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(at("pkg/bin"), Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(at("pkg"), Permissions::from_mode(0o750)).unwrap();
    symlink("../README", at("pkg/bin/link")).unwrap();
    directory
}

/// What a listing of the package says.
fn listing_of(text: &str) -> String {
    let store = MemoryStore::new();
    let tree = immbuild_cas::tree::tree_of_listing(text, &store).expect("a listing");
    to_listing(&store, &tree).expect("it is in the store")
}

fn package_listing() -> String {
    listing_of(
        "
        d 0755 0:0 /pkg
        f 0644 0:0 /pkg/README \"read me\\n\"
        d 0755 0:0 /pkg/bin
        l      0:0 /pkg/bin/link -> ../README
        f 0755 0:0 /pkg/bin/run \"#!/bin/sh\\n\"
        ",
    )
}

#[test]
fn an_archive_is_known_by_its_content() {
    let package = package();
    for line in [
        "tar c pkg",
        "tar c --format=v7 pkg",
        "tar c --format=posix pkg",
        "tar c pkg | gzip",
        "tar c pkg | xz",
        "tar c pkg | xz -9 --check=sha256",
        "tar c pkg | zstd -q",
        "tar c pkg | bzip2",
        // Two members in a row are one stream.
        "tar c pkg > t; head -c 700 t | gzip; tail -c +701 t | gzip",
        "tar c pkg > t; head -c 700 t | xz; tail -c +701 t | xz",
        "tar c pkg > t; head -c 700 t | bzip2; tail -c +701 t | bzip2",
        "tar c pkg > t; head -c 700 t | zstd -q; tail -c +701 t | zstd -q",
        "zip -q -r -y t.zip pkg; cat t.zip",
        "zip -q -0 -r -y u.zip pkg; cat u.zip",
        // Without entries for directories.
        "zip -q -D -r -y v.zip pkg; cat v.zip",
    ] {
        let archive = run(package.path(), line);
        assert_eq!(plain(&archive).unwrap(), package_listing(), "{line}");
    }
}

#[test]
fn modes_can_be_kept() {
    let package = package();
    let expected = listing_of(
        "
        d 0750 0:0 /pkg
        f 0600 0:0 /pkg/README \"read me\\n\"
        d 0700 0:0 /pkg/bin
        l      0:0 /pkg/bin/link -> ../README
        f 4711 0:0 /pkg/bin/run \"#!/bin/sh\\n\"
        ",
    );
    for line in [
        "tar c --owner=0 --group=0 pkg",
        "zip -q -r -y t.zip pkg; cat t.zip",
    ] {
        let archive = run(package.path(), line);
        assert_eq!(preserved(&archive).unwrap(), expected, "{line}");
    }
    let owned = run(package.path(), "tar c --owner=7 --group=8 pkg/README");
    let expected = listing_of("d 0755 0:0 /pkg\nf 0600 7:8 /pkg/README \"read me\\n\"");
    assert_eq!(preserved(&owned).unwrap(), expected);
}

#[test]
fn leading_names_are_stripped() {
    let package = package();
    let expected = listing_of(
        "
        f 0644 0:0 /README \"read me\\n\"
        d 0755 0:0 /bin
        l      0:0 /bin/link -> ../README
        f 0755 0:0 /bin/run \"#!/bin/sh\\n\"
        ",
    );
    for line in [
        "tar c pkg",
        "tar c ./pkg",
        "zip -q -r -y t.zip pkg; cat t.zip",
    ] {
        let archive = run(package.path(), line);
        assert_eq!(stripped(&archive, 1).unwrap(), expected, "{line}");
        let nothing = stripped(&archive, 3);
        assert!(
            matches!(nothing, Err(UnpackError::Nothing { strip: 3 })),
            "{line}: {nothing:?}"
        );
        // What pointed to a place that is stripped points out now.
        let out = stripped(&archive, 2);
        assert!(
            matches!(out, Err(UnpackError::Entry { .. })),
            "{line}: {out:?}"
        );
    }
}

#[test]
fn an_empty_archive_is_an_empty_tree() {
    let empty = listing_of("");
    assert_eq!(plain(&[0; 1024]).unwrap(), empty);
    let zip = ZipWriter::new(Cursor::new(Vec::new()))
        .finish()
        .unwrap()
        .into_inner();
    assert_eq!(plain(&zip).unwrap(), empty);
}

#[test]
fn what_is_no_archive_says_so() {
    let here = tempfile::tempdir().unwrap();
    for (line, reason) in [
        (
            "echo hello",
            "it is neither a zip nor a tar, plain or compressed",
        ),
        (
            "yes | head -c 4096",
            "it is neither a zip nor a tar, plain or compressed",
        ),
        ("echo hello | gzip", "it is one compressed file and no tar"),
        (
            "yes | head -c 9999 | xz",
            "it is one compressed file and no tar",
        ),
        (
            "echo hello | zstd -q",
            "it is one compressed file and no tar",
        ),
        ("echo hello | bzip2", "it is one compressed file and no tar"),
    ] {
        let got = plain(&run(here.path(), line));
        assert!(
            matches!(&got, Err(UnpackError::NotArchive(text)) if *text == reason),
            "{line}: {got:?}"
        );
    }
}

#[test]
fn a_damaged_archive_is_refused() {
    let package = package();
    let random = "head -c 99999 /dev/urandom > pkg/random; ";
    for line in [
        "tar c pkg",
        "tar c pkg | gzip",
        "tar c pkg | xz",
        "tar c pkg | zstd -q",
        "tar c pkg | bzip2",
        "zip -q -r -y t.zip pkg; cat t.zip",
    ] {
        let archive = run(package.path(), &format!("{random}{line}"));
        plain(&archive).unwrap();
        let half = plain(&archive[..archive.len() / 2]);
        assert!(
            matches!(half, Err(UnpackError::Damaged(_))),
            "{line}: {half:?}"
        );
        // The end of a tar is padding, and nothing in it tells whether its contents are right.
        if line == "tar c pkg" {
            continue;
        }
        let cut = plain(&archive[..archive.len() - 1]);
        assert!(
            matches!(cut, Err(UnpackError::Damaged(_))),
            "{line}: {cut:?}"
        );
        let mut flipped = archive.clone();
        flipped[archive.len() / 2] ^= 1;
        let got = plain(&flipped);
        // bzip2 checks a block after it gave out all of it, so its first header is wrong before its sum is.
        assert!(
            matches!(
                got,
                Err(UnpackError::Damaged(_) | UnpackError::NotArchive(_))
            ),
            "{line}: {got:?}"
        );
    }
}

/// A zip with these entries: `st_mode`, name, content.
fn zip_of(entries: &[(u32, &str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (mode, name, content) in entries {
        let options = SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored)
            .unix_permissions(mode & 0o7777);
        if mode & FILE_TYPE == LINK {
            let target = std::str::from_utf8(content).unwrap();
            zip.add_symlink(*name, target, options).unwrap();
        } else {
            zip.start_file(*name, options).unwrap();
            zip.write_all(content).unwrap();
        }
    }
    zip.finish().unwrap().into_inner()
}

/// A tar with these members: type, name, link, content.
fn tar_of(members: &[(u8, &str, &str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (kind, name, link, content) in members {
        let mut header = [0_u8; 512];
        let mut set = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        set(0, name.as_bytes());
        set(100, b"0000644\0");
        set(108, b"0000000\0");
        set(116, b"0000000\0");
        set(124, format!("{:011o}\0", content.len()).as_bytes());
        set(136, b"00000000000\0");
        set(148, b"        ");
        set(156, &[*kind]);
        set(157, link.as_bytes());
        set(257, b"ustar\x0000");
        set(329, b"0000001\0");
        set(337, b"0000003\0");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend_from_slice(&header);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

/// The path that is refused.
fn refused(archive: &[u8]) -> String {
    match preserved(archive) {
        Err(UnpackError::Entry { path, .. }) => path,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn escapes_are_refused() {
    for name in ["../evil", "a/../../evil", "a/..", "a/b/../c"] {
        assert_eq!(refused(&zip_of(&[(0o644, name, b"x")])), name);
        assert_eq!(refused(&tar_of(&[(b'0', name, "", b"x")])), name);
    }
    assert_eq!(
        refused(&zip_of(&[(0o644, "/etc/passwd", b"x")])),
        "/etc/passwd"
    );
    // A tar's leading slash means nothing, as for everybody who reads tars.
    assert_eq!(
        plain(&tar_of(&[(b'0', "/etc/passwd", "", b"x")])).unwrap(),
        listing_of("d 0755 0:0 /etc\nf 0644 0:0 /etc/passwd \"x\"")
    );
    assert_eq!(refused(&tar_of(&[(b'1', "a", "../evil", b"")])), "a");
}

#[test]
fn links_out_are_refused() {
    for target in [
        "/",
        "/etc/passwd",
        "..",
        "../x",
        "./../x",
        "a/../../x",
        "a/b/../../../x",
    ] {
        assert_eq!(
            refused(&zip_of(&[(LINK, "l", target.as_bytes())])),
            "l",
            "{target}"
        );
        assert_eq!(
            refused(&tar_of(&[(b'2', "l", target, b"")])),
            "l",
            "{target}"
        );
    }
    for target in ["../../x", "../d/../../x"] {
        assert_eq!(
            refused(&tar_of(&[(b'2', "d/l", target, b"")])),
            "d/l",
            "{target}"
        );
    }
}

#[test]
fn links_that_climb_by_way_of_others_are_refused() {
    // `d/e/up` is the root, so `d/e/up/..` is above it, though its text has no more `..` than names.
    let up = (b'2', "d/e/up", "../..", &b""[..]);
    assert_eq!(refused(&tar_of(&[up, (b'2', "l", "d/e/up/..", b"")])), "l");
    assert_eq!(
        refused(&tar_of(&[(b'2', "l", "d/e/up/../x", b""), up])),
        "l"
    );
    let far = (b'2', "far", "d/e", &b""[..]);
    assert_eq!(
        refused(&tar_of(&[
            far,
            (b'0', "d/e/x", "", b""),
            (b'2', "l", "far/../../..", b"")
        ])),
        "l"
    );
    // A circle leads nowhere.
    let circle = tar_of(&[(b'2', "a", "b/../x", b""), (b'2', "b", "a/../x", b"")]);
    plain(&circle).unwrap();
}

#[test]
fn links_inside_stay() {
    let links = [
        ("l", "a/b"),
        ("m", "a/.."),
        ("n", "missing/../also"),
        ("a/o", "../x"),
        ("a/b/p", "../../a/./q//r"),
        ("self", "self"),
        ("dot", "."),
    ];
    let tar: Vec<_> = links
        .iter()
        .map(|(name, target)| (b'2', *name, *target, &b""[..]))
        .collect();
    let zip: Vec<_> = links
        .iter()
        .map(|(name, target)| (LINK, *name, target.as_bytes()))
        .collect();
    let listing = plain(&tar_of(&tar)).unwrap();
    assert_eq!(plain(&zip_of(&zip)).unwrap(), listing);
    for (name, target) in links {
        assert!(
            listing.contains(&format!("/{name} -> {target}\n")),
            "{listing}"
        );
    }
}

#[test]
fn nothing_is_put_behind_a_link_or_file() {
    for first in [(LINK, "a", &b"b"[..]), (0o644, "a", &b"x"[..])] {
        assert_eq!(refused(&zip_of(&[first, (0o644, "a/c", b"x")])), "a/c");
        assert_eq!(refused(&zip_of(&[(0o644, "a/c", b"x"), first])), "a");
    }
    assert_eq!(
        refused(&tar_of(&[(b'0', "a", "", b"x"), (b'0', "a/c", "", b"x")])),
        "a/c"
    );
}

#[test]
fn two_entries_of_one_name_are_refused_in_a_zip() {
    // The library refuses to write them, so `./a` is made from `x/a` in place.
    let mut archive = zip_of(&[(0o644, "a", b"x"), (0o644, "x/a", b"y")]);
    for at in 0..archive.len() - 3 {
        if &archive[at..at + 3] == b"x/a" {
            archive[at..at + 3].copy_from_slice(b"./a");
        }
    }
    assert_eq!(refused(&archive), "./a");
    let mut archive = zip_of(&[(0o644, "a", b"x"), (0o644, "b", b"y")]);
    for byte in archive.iter_mut().filter(|byte| **byte == b'b') {
        *byte = b'a';
    }
    let got = plain(&archive);
    assert!(matches!(got, Err(UnpackError::Damaged(_))), "{got:?}");
}

#[test]
fn devices_and_what_speaks_to_overlayfs_are_refused() {
    assert_eq!(refused(&tar_of(&[(b'3', "dev", "", b"")])), "dev");
    assert_eq!(refused(&tar_of(&[(b'4', "dev", "", b"")])), "dev");
    let fifo = plain(&tar_of(&[(b'6', "pipe", "", b"")]));
    assert!(matches!(fifo, Err(UnpackError::Entry { .. })), "{fifo:?}");
    let record = b"38 SCHILY.xattr.user.overlay.opaque=y\n";
    assert_eq!(
        refused(&tar_of(&[(b'x', "p", "", record), (b'0', "a", "", b"")])),
        "a"
    );
    // A zip's type bits are in its central directory.
    let mut archive = zip_of(&[(0o644, "pipe", b"")]);
    let at = archive
        .windows(4)
        .position(|bytes| bytes == b"PK\x01\x02")
        .unwrap();
    archive[at + 38..at + 42].copy_from_slice(&(0o010_644_u32 << 16).to_le_bytes());
    assert_eq!(refused(&archive), "pipe");
}

#[test]
fn encrypted_and_unknown_entries_are_named() {
    let here = tempfile::tempdir().unwrap();
    let archive = run(here.path(), "echo hello > a; zip -q -P secret - a");
    assert_eq!(refused(&archive), "a");
    let mut archive = zip_of(&[(0o644, "a", b"x")]);
    archive[8] = 97;
    let at = archive
        .windows(4)
        .position(|bytes| bytes == b"PK\x01\x02")
        .unwrap();
    archive[at + 10] = 97;
    assert_eq!(refused(&archive), "a");
}

#[test]
fn names_are_bytes() {
    let expected = listing_of("f 0644 0:0 /\\xff \"x\"");
    assert_eq!(
        plain(&tar_of(&[(b'0', "a", "", b"x")]).renamed(b'a', 0xff)).unwrap(),
        expected
    );
    assert_eq!(
        plain(&zip_of(&[(0o644, "Q", b"x")]).renamed(b'Q', 0xff)).unwrap(),
        expected
    );
    let here = tempfile::tempdir().unwrap();
    let line = "printf x > 'na\u{ef}ve \u{65e5}'; zip -q - *";
    let expected = listing_of("f 0644 0:0 /na\u{ef}ve\\x20\u{65e5} \"x\"");
    assert_eq!(plain(&run(here.path(), line)).unwrap(), expected);
}

trait Renamed {
    fn renamed(self, from: u8, to: u8) -> Self;
}

impl Renamed for Vec<u8> {
    /// Replaces a name of one byte, and mends a tar's checksum.
    fn renamed(mut self, from: u8, to: u8) -> Self {
        if self.starts_with(b"PK") {
            for byte in &mut self {
                if *byte == from {
                    *byte = to;
                }
            }
            return self;
        }
        self[0] = to;
        self[148..156].copy_from_slice(b"        ");
        let sum: u32 = self[..512].iter().map(|byte| u32::from(*byte)).sum();
        self[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self
    }
}

#[test]
fn bombs_are_refused() {
    let here = tempfile::tempdir().unwrap();
    let limits = Limits {
        free: 1 << 20,
        ratio: 100,
        ..Limits::default()
    };
    let make = "head -c 9000000 /dev/zero > zeros; ";
    for line in [
        "tar c zeros | gzip",
        "tar c zeros | xz",
        "tar c zeros | zstd -q",
        "tar c zeros | bzip2",
        "zip -q - zeros",
    ] {
        let archive = run(here.path(), &format!("{make}{line}"));
        let got = list(&archive, Options::default(), &limits);
        assert!(matches!(got, Err(UnpackError::Bomb(_))), "{line}: {got:?}");
        // As much in relation, but not in all, is no bomb.
        plain(&archive).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
    let small = Limits {
        bytes: 1 << 20,
        ..Limits::default()
    };
    for line in [
        "tar c zeros",
        "zip -q -0 z.zip zeros; cat z.zip",
        "tar c zeros | gzip",
    ] {
        let archive = run(here.path(), line);
        let got = list(&archive, Options::default(), &small);
        assert!(matches!(got, Err(UnpackError::Bomb(_))), "{line}: {got:?}");
    }
    let few = Limits {
        entries: 2,
        ..Limits::default()
    };
    for line in ["touch a b c; tar c a b c", "zip -q - a b c"] {
        let archive = run(here.path(), line);
        let got = list(&archive, Options::default(), &few);
        assert!(matches!(got, Err(UnpackError::Bomb(_))), "{line}: {got:?}");
    }
}

#[test]
fn entries_that_share_bytes_are_refused() {
    // Two entries of the central directory that point at one local header, as in Fifield's "better zip bomb".
    let one = zip_of(&[(0o644, "a", b"content")]);
    let central = one
        .windows(4)
        .position(|bytes| bytes == b"PK\x01\x02")
        .unwrap();
    let end = one
        .windows(4)
        .position(|bytes| bytes == b"PK\x05\x06")
        .unwrap();
    let mut archive = one[..end].to_vec();
    let mut second = one[central..end].to_vec();
    second[46] = b'b';
    archive.extend_from_slice(&second);
    let mut tail = one[end..].to_vec();
    tail[8] = 2;
    tail[10] = 2;
    let length = u32::try_from(2 * (end - central)).unwrap();
    tail[12..16].copy_from_slice(&length.to_le_bytes());
    archive.extend_from_slice(&tail);
    let got = plain(&archive);
    assert!(matches!(got, Err(UnpackError::Bomb(_))), "{got:?}");
}

#[test]
fn a_source_that_fails_at_its_end_fails_all() {
    use immbuild_cas::digest::{Digest, VerifiedReader};
    let package = package();
    for line in [
        "tar c pkg",
        "tar c pkg | gzip",
        "tar c pkg | xz",
        "zip -q -r -y t.zip pkg; cat t.zip",
    ] {
        let archive = run(package.path(), line);
        let mut source = VerifiedReader::new(&archive[..], Digest::of(b"something else"));
        let got = unpack(
            &mut source,
            Options::default(),
            &Limits::default(),
            &MemoryStore::new(),
        );
        let Err(UnpackError::Read(error)) = got else {
            panic!("{line}: {got:?}");
        };
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}

#[test]
fn a_later_member_of_a_tar_wins() {
    let archive = tar_of(&[(b'0', "a", "", b"old"), (b'0', "a", "", b"new")]);
    assert_eq!(
        plain(&archive).unwrap(),
        listing_of("f 0644 0:0 /a \"new\"")
    );
}

#[test]
fn hard_links_are_separate_files_unless_kept() {
    let here = tempfile::tempdir().unwrap();
    let archive = run(
        here.path(),
        "printf x > a; ln a b; tar c --owner=0 --group=0 --mode=644 a b",
    );
    let separate = listing_of("f 0644 0:0 /a \"x\"\nf 0644 0:0 /b \"x\"");
    assert_eq!(plain(&archive).unwrap(), separate);
    let linked = preserved(&archive).unwrap();
    assert_ne!(linked, separate);
}

#[test]
fn deep_paths_are_paths() {
    // A link at the bottom climbs to the top, and no further.
    let depth = 250;
    let directory = "a/".repeat(depth);
    let (file, link) = (format!("{directory}f"), format!("{directory}l"));
    let up = "../".repeat(depth);
    let archive = zip_of(&[(0o644, &file, b"x"), (LINK, &link, up.as_bytes())]);
    assert!(plain(&archive).unwrap().contains(&file));
    let out = "../".repeat(depth + 1);
    assert_eq!(refused(&zip_of(&[(LINK, &link, out.as_bytes())])), link);
    let long = format!("{}f", "a/".repeat(2048));
    assert_eq!(refused(&zip_of(&[(0o644, &long, b"x")])), long);
}
