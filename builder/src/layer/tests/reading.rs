//! Archives of other people, friendly and hostile.

use std::fmt::Write as _;

use immbuild_cas::canonical::{Canonical as _, DecodeError};

use super::*;

/// A member as ustar: its header, with `content` behind it.
fn member(flag: u8, name: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    bytes[100..108].copy_from_slice(b"0000644\0");
    bytes[108..116].copy_from_slice(b"0000000\0");
    bytes[116..124].copy_from_slice(b"0000000\0");
    bytes[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    bytes[136..148].copy_from_slice(b"00000000000\0");
    bytes[156] = flag;
    bytes[257..265].copy_from_slice(b"ustar\x0000");
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    summed(bytes)
}

fn summed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[148..156].fill(b' ');
    let sum: u32 = bytes[..512].iter().map(|byte| u32::from(*byte)).sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    bytes
}

/// The member with other bytes in a field of its header.
fn with(mut member: Vec<u8>, at: usize, field: &[u8]) -> Vec<u8> {
    member[at..at + field.len()].copy_from_slice(field);
    summed(member)
}

fn link(flag: u8, name: &str, target: &str) -> Vec<u8> {
    with(member(flag, name, b""), 157, target.as_bytes())
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
    let length = (1..9).find(|digits| (rest.len() + digits).to_string().len() == *digits);
    let length = rest.len() + length.expect("a length");
    [length.to_string().as_bytes(), &rest].concat()
}

fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let records: Vec<Vec<u8>> = records
        .iter()
        .map(|(key, value)| record(key, value))
        .collect();
    member(b'x', "pax", &records.concat())
}

/// Reads members, and the end after them, onto a tree.
fn read_with(
    base: &str,
    members: &[Vec<u8>],
    options: &UntarOptions,
) -> Result<(String, Mtimes, Vec<Dropped>), String> {
    let store = MemoryStore::new();
    let base = tree(&store, base);
    let archive = [&members.concat()[..], &[0; 1024]].concat();
    read_onto(&store, &base, &archive, options)
        .map(|(tree, mtimes, dropped)| (listing(&store, &tree), mtimes, dropped))
        .map_err(|error| chain(&error))
}

/// The tree that a layer makes of `base`, without digests of contents.
fn applied(base: &str, members: &[Vec<u8>]) -> String {
    let (listing, _, _) = read_with(base, members, &UntarOptions::LAYER).expect("a layer");
    shortened(&listing)
}

fn unpacked(options: &UntarOptions, members: &[Vec<u8>]) -> String {
    let (listing, _, _) = read_with("", members, options).expect("an archive");
    shortened(&listing)
}

fn shortened(listing: &str) -> String {
    let mut out = String::new();
    for line in listing.lines() {
        match line.split_once(" sha256:") {
            Some((head, tail)) => {
                let size = tail.split(' ').nth(1).expect("a size");
                writeln!(out, "{head} {size}").expect("a string");
            }
            None => writeln!(out, "{line}").expect("a string"),
        }
    }
    out
}

fn refused(members: &[Vec<u8>]) -> String {
    refused_on("", members, &UntarOptions::LAYER)
}

fn refused_on(base: &str, members: &[Vec<u8>], options: &UntarOptions) -> String {
    read_with(base, members, options).expect_err("a refusal")
}

#[test]
fn whiteouts_hide_what_was_there_before_and_nothing_else() {
    let base = r#"
        f 0644 0:0 /a "x"
        f 0644 0:0 /dir/below "x"
        f 0644 0:0 /kept/a "x"
        f 0644 0:0 /kept/b "x"
        f 0644 0:0 /swapped "x"
    "#;
    let members = [
        member(b'0', ".wh.a", b""),
        member(b'0', ".wh.dir", b""),
        member(b'5', "kept/", b""),
        member(b'0', "kept/new", b"12"),
        // After what it must not hide.
        member(b'0', "kept/.wh..wh..opq", b""),
        member(b'0', "swapped", b"123"),
        member(b'0', ".wh.swapped", b""),
        member(b'0', ".wh.never-was", b""),
        member(b'0', "no/where/.wh.x", b""),
        member(b'0', ".wh..wh.plnk", b""),
    ];
    assert_eq!(
        applied(base, &members),
        "d 0755 0:0 /\n\
         d 0644 0:0 /kept\n\
         f 0644 0:0 /kept/new 2\n\
         f 0644 0:0 /swapped 3\n"
    );
}

#[test]
fn a_whiteout_of_a_directory_spares_what_the_layer_put_into_it() {
    let base = "f 0644 0:0 /d/old \"x\"\nf 0644 0:0 /d/deep/old \"x\"";
    let members = [member(b'0', "d/deep/new", b"1"), member(b'0', ".wh.d", b"")];
    assert_eq!(
        applied(base, &members),
        "d 0755 0:0 /\nd 0755 0:0 /d\nd 0755 0:0 /d/deep\nf 0644 0:0 /d/deep/new 1\n"
    );
}

#[test]
fn nothing_is_below_a_whiteout() {
    let below = "`.wh.a/b` at byte 0 of the archive is in `/.wh.a`, and in a layer that name means a deletion";
    assert_eq!(refused(&[member(b'0', ".wh.a/b", b"x")]), below);
    // A link to such a name makes no directory of it either.
    assert_eq!(
        refused(&[link(b'2', "l", "x/.wh.a"), member(b'0', "l/b", b"x")]),
        "`l/b` at byte 512 of the archive is in `/x/.wh.a`, and in a layer that name means a deletion"
    );
    // What aufs kept for itself is passed over.
    let marks = [
        member(b'5', ".wh..wh.plnk", b""),
        member(b'0', ".wh..wh.plnk/1.2", b"x"),
        member(b'0', "a", b"x"),
    ];
    assert_eq!(applied("", &marks), "d 0755 0:0 /\nf 0644 0:0 /a 1\n");
}

#[test]
fn without_whiteouts_their_names_are_names() {
    let options = UntarOptions::archive(0, false);
    assert_eq!(
        unpacked(&options, &[member(b'0', ".wh.a", b"")]),
        "d 0755 0:0 /\nf 0644 0:0 /.wh.a 0\n"
    );
}

#[test]
fn links_on_the_way_are_followed_inside_the_root() {
    let base = r#"
        f 0755 0:0 /usr/lib/libc "x"
        l 0:0 /lib -> usr/lib
        l 0:0 /out -> ../../../../etc
        l 0:0 /abs -> /usr/lib/
        l 0:0 /usr/up -> ./../lib
        l 0:0 /dangling -> new/place
    "#;
    let members = [
        member(b'0', "lib/one", b""),
        member(b'0', "out/passwd", b""),
        member(b'0', "abs/two", b""),
        member(b'0', "usr/up/three", b""),
        member(b'0', "dangling/four", b""),
        link(b'1', "hard", "lib/libc"),
        // The last name is never followed: the link itself is replaced.
        member(b'0', "abs", b"file"),
    ];
    assert_eq!(
        applied(base, &members),
        "d 0755 0:0 /\n\
         f 0644 0:0 /abs 4\n\
         l      0:0 /dangling -> new/place\n\
         d 0755 0:0 /etc\n\
         f 0644 0:0 /etc/passwd 0\n\
         f 0755 0:0 /hard 1\n\
         l      0:0 /lib -> usr/lib\n\
         d 0755 0:0 /new\n\
         d 0755 0:0 /new/place\n\
         f 0644 0:0 /new/place/four 0\n\
         l      0:0 /out -> ../../../../etc\n\
         d 0755 0:0 /usr\n\
         d 0755 0:0 /usr/lib\n\
         h          /usr/lib/libc => /hard\n\
         f 0644 0:0 /usr/lib/one 0\n\
         f 0644 0:0 /usr/lib/three 0\n\
         f 0644 0:0 /usr/lib/two 0\n\
         l      0:0 /usr/up -> ./../lib\n"
    );
}

#[test]
fn a_later_member_replaces_an_earlier_one() {
    let members = [
        member(b'0', "./a", b"1"),
        member(b'0', "//a", b"22"),
        member(b'5', "d", b""),
        member(b'0', "d/kept", b""),
        with(member(b'5', "d/", b""), 100, b"0000700\0"),
        member(b'5', "e", b""),
        member(b'0', "e/gone", b""),
        member(b'0', "e", b"333"),
        link(b'2', "e", "text"),
        member(b'5', "e", b""),
    ];
    let (listing, mtimes, _) = read_with("", &members, &UntarOptions::LAYER).expect("a layer");
    assert_eq!(
        shortened(&listing),
        "d 0755 0:0 /\nf 0644 0:0 /a 2\nd 0700 0:0 /d\nf 0644 0:0 /d/kept 0\nd 0644 0:0 /e\n"
    );
    let timed: Vec<String> = mtimes.iter().map(|(path, _)| path.to_string()).collect();
    assert_eq!(timed, ["/a", "/d", "/d/kept", "/e"]);
}

#[test]
fn hard_links_join_groups_across_layers() {
    let base = "f 0644 0:0 /a \"x\"\nh /b => /a";
    assert_eq!(
        applied(base, &[link(b'1', "c", "./b")]),
        "d 0755 0:0 /\nf 0644 0:0 /a 1\nh          /b => /a\nh          /c => /a\n"
    );
    for (name, target) in [
        ("c", "none"),
        ("c", "d"),
        ("c", "c"),
        ("a", "a"),
        ("d", "d/x"),
        ("c", "a/x"),
    ] {
        let base = "f 0644 0:0 /a \"x\"\nf 0644 0:0 /d/x \"x\"";
        let error = refused_on(base, &[link(b'1', name, target)], &UntarOptions::LAYER);
        assert!(
            error.starts_with(&format!("`{name}` at byte 0 of the archive is")),
            "{error}"
        );
    }
}

#[test]
fn without_preserve_modes_and_owners_are_plain_and_links_are_apart() {
    let members = [
        with(member(b'5', "top/dir", b""), 100, b"0001700\0"),
        with(member(b'0', "top/dir/run", b"1"), 100, b"0004510\0"),
        with(member(b'0', "top/dir/read", b"1"), 108, b"0000007\0"),
        link(b'1', "top/same", "top/dir/run"),
        link(b'2', "top/sym", "top/dir"),
        member(b'0', "top", b"stripped away"),
    ];
    let plain = UntarOptions::archive(1, false);
    assert_eq!(
        unpacked(&plain, &members),
        "d 0755 0:0 /\n\
         d 0755 0:0 /dir\n\
         f 0644 0:0 /dir/read 1\n\
         f 0755 0:0 /dir/run 1\n\
         f 0755 0:0 /same 1\n\
         l      0:0 /sym -> top/dir\n"
    );
    let kept = UntarOptions::archive(1, true);
    assert_eq!(
        unpacked(&kept, &members),
        "d 0755 0:0 /\n\
         d 1700 0:0 /dir\n\
         f 0644 7:0 /dir/read 1\n\
         f 4510 0:0 /dir/run 1\n\
         h          /same => /dir/run\n\
         l      0:0 /sym -> top/dir\n"
    );
    let fifo = [member(b'6', "top/pipe", b"")];
    assert_eq!(
        refused_on("", &fifo, &plain),
        "`top/pipe` at byte 0 of the archive is a named pipe"
    );
    assert_eq!(unpacked(&kept, &fifo), "d 0755 0:0 /\np 0644 0:0 /pipe\n");
    let device = [with(
        member(b'3', "top/null", b""),
        329,
        b"0000001\x000000003\0",
    )];
    assert_eq!(
        refused_on("", &device, &kept),
        "`top/null` at byte 0 of the archive is a device"
    );
    assert_eq!(
        applied("", &device),
        "d 0755 0:0 /\nd 0755 0:0 /top\nc 0644 0:0 /top/null 1:3\n"
    );
}

#[test]
fn every_dialect_is_read() {
    let long = "deep/".repeat(30) + "file";
    let mut v7 = member(b'\0', "v7", b"1");
    v7[257..512].fill(0);
    let mut gnu = member(b'0', "short", b"4444");
    gnu[257..265].copy_from_slice(b"ustar  \0");
    // GNU keeps times where ustar has a prefix.
    gnu[345..357].copy_from_slice(b"01234567012\0");
    let gnu = with(gnu, 108, b"\x80\x00\x00\x00\x00\x2d\xc6\xc0");
    let members = [
        summed(v7),
        with(member(b'0', "name", b"22"), 345, b"prefix/of/ustar"),
        pax(&[
            ("path", long.as_bytes()),
            ("uid", b"4294967295"),
            ("gid", b"2097152"),
            ("size", b"3"),
            ("mtime", b"-1.25"),
            ("atime", b"1.5"),
            ("SCHILY.xattr.user.empty", b""),
            ("SCHILY.xattr.user.a", b"=\0\n"),
            ("SCHILY.xattr.security.selinux", b"label"),
            ("LIBARCHIVE.xattr.user.a", b"PQAK"),
            ("SCHILY.acl.access", b"user::rw-"),
            ("comment", b""),
        ]),
        with(member(b'0', "ignored", b"333"), 124, b"77777777777\0"),
        member(b'L', "././@LongLink", b"gnu-name\0"),
        gnu,
        member(b'K', "././@LongLink", b"gnu-target\0"),
        link(b'2', "sym", "short"),
        with(
            member(b'0', "old", b""),
            136,
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe",
        ),
        // Full `st_mode`, spaces in front.
        with(member(b'0', "mode", b""), 100, b" 100755 "),
    ];
    let (listing, mtimes, dropped) =
        read_with("", &members, &UntarOptions::LAYER).expect("a layer");
    let shown = shortened(&listing);
    let lines: Vec<&str> = shown
        .lines()
        .filter(|line| !line.starts_with('d'))
        .collect();
    assert_eq!(
        lines,
        [
            &*format!("f 0644 4294967295:2097152 /{long} 3"),
            "x          user.a=3d000a",
            "x          user.empty=",
            "f 0644 3000000:0 /gnu-name 4",
            "f 0755 0:0 /mode 0",
            "f 0644 0:0 /old 0",
            "f 0644 0:0 /prefix/of/ustar/name 2",
            "l      0:0 /sym -> gnu-target",
            "f 0644 0:0 /v7 1",
        ]
    );
    let path = |text: &str| RelPath::new(text.as_bytes()).expect("a path");
    assert_eq!(mtimes.get(&path(&long)), Mtime::new(-2, 750_000_000));
    assert_eq!(mtimes.get(&path("old")), Mtime::new(-2, 0));
    let dropped: Vec<&str> = dropped.iter().map(|dropped| &*dropped.what).collect();
    assert_eq!(dropped, ["security.selinux", "SCHILY.acl.access"]);
}

#[test]
fn capabilities_have_one_form() {
    let v2 = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let v3 = [&b"\x01\0\0\x03"[..], &v2[4..], b"\xe8\x03\0\0"].concat();
    for value in [&v2[..], &v3] {
        let members = [
            pax(&[("SCHILY.xattr.security.capability", value)]),
            member(b'0', "ping", b""),
        ];
        assert_eq!(
            applied("", &members),
            "d 0755 0:0 /\nf 0644 0:0 /ping 0\n\
             x          security.capability=0100000200040000000000000000000000000000\n"
        );
    }
    let members = [
        pax(&[("SCHILY.xattr.security.capability", b"\x01\0\0\x09")]),
        member(b'0', "ping", b""),
    ];
    assert_eq!(
        refused(&members),
        "`ping` at byte 1024 of the archive has file capabilities in an unknown form"
    );
}

#[test]
fn ways_out_are_refused() {
    for name in ["../x", "a/../../x", "/../x", "a/.."] {
        assert_eq!(
            refused(&[member(b'0', name, b"")]),
            format!("`{name}` at byte 0 of the archive has `..` in its path")
        );
    }
    assert_eq!(
        refused(&[link(b'1', "x", "../../etc/shadow")]),
        "`x` at byte 0 of the archive has `..` in its path"
    );
    // An absolute path is one inside the root.
    assert_eq!(
        applied("", &[member(b'0', "/etc/x", b"")]),
        "d 0755 0:0 /\nd 0755 0:0 /etc\nf 0644 0:0 /etc/x 0\n"
    );
    let circle = [
        link(b'2', "a", "b"),
        link(b'2', "b", "a"),
        member(b'0', "a/x", b""),
    ];
    assert_eq!(
        refused(&circle),
        "`a/x` at byte 1024 of the archive is behind more than 40 symbolic links"
    );
    let through_a_file = [member(b'0', "a", b""), member(b'0', "a/b", b"")];
    assert_eq!(
        refused(&through_a_file),
        "`a/b` at byte 512 of the archive is below `/a`, which is no directory"
    );
}

#[test]
fn members_that_no_tree_can_hold_are_refused() {
    let long = "n".repeat(256);
    let cases: [(&[Vec<u8>], &str); 8] = [
        (&[member(b'0', "./", b"x")], "its type"),
        (
            &[member(b'0', ".", b"")],
            "`.` at byte 0 of the archive is the root and no directory",
        ),
        (
            &[member(b'0', "", b"")],
            "`` at byte 0 of the archive is no path of a tree: a name is empty",
        ),
        (
            &[pax(&[("path", long.as_bytes())]), member(b'0', "x", b"")],
            "at byte 1024 of the archive is no path of a tree: a name is longer than 255 bytes",
        ),
        (
            &[pax(&[("path", b"a\0b")]), member(b'0', "x", b"")],
            "`a\\x00b` at byte 1024 of the archive is no path of a tree: a name holds a slash or a NUL",
        ),
        (
            &[link(b'2', "x", "")],
            "`x` at byte 0 of the archive is a symbolic link whose text is empty or too long",
        ),
        (
            &[member(b'3', "x", b"")],
            "`x` at byte 0 of the archive is a 0:0 character device, which overlayfs reads as a deletion",
        ),
        (
            &[
                pax(&[("SCHILY.xattr.trusted.overlay.opaque", b"y")]),
                member(b'5', "x", b""),
            ],
            "`x` at byte 1024 of the archive has the attribute `trusted.overlay.opaque`, which speaks to overlayfs",
        ),
    ];
    for (members, message) in &cases[1..] {
        let error = refused(members);
        assert!(error.ends_with(message), "{error}");
    }
    assert_eq!(
        refused(cases[0].0),
        "the archive has a bad header at byte 0: `./` is no file and has 1 bytes"
    );
    assert_eq!(
        refused(&[member(b'0', "a/.wh.", b""), member(b'0', ".wh.", b"")]),
        "`.wh.` at byte 512 of the archive is a whiteout without a name"
    );
}

#[test]
fn bad_headers_are_refused_with_their_place() {
    let first = || member(b'0', "first", b"");
    let file = || member(b'0', "x", b"");
    let mut wrong_sum = file();
    wrong_sum[0] = b'y';
    let huge = format!("{}", u64::MAX);
    let cases: [(Vec<u8>, &str); 17] = [
        (wrong_sum, "its checksum is wrong"),
        (
            with(
                file(),
                124,
                b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            ),
            "its size is -1",
        ),
        (with(file(), 124, b"-0000000001\0"), "its size is no number"),
        (
            with(
                file(),
                124,
                b"\x80\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff",
            ),
            "its size is no number",
        ),
        (
            with(file(), 108, b"\xff\xff\xff\xff\xff\xff\xff\xff"),
            "its uid is -1",
        ),
        (with(file(), 100, b"0000999\0"), "its mode is no number"),
        (
            with(member(b'2', "x", b""), 124, b"00000000001\0"),
            "`x` is no file and has 1 bytes",
        ),
        (
            member(b'S', "x", b""),
            "a sparse file, which is not supported",
        ),
        (member(b'V', "x", b""), "type `V` is not supported"),
        (
            [pax(&[]), pax(&[]), file()].concat(),
            "two extended headers for one member",
        ),
        (
            [pax(&[("path", b"a"), ("path", b"b")]), file()].concat(),
            "the path of one member twice",
        ),
        (
            [pax(&[("path", b"a")]), member(b'L', "x", b"b\0"), file()].concat(),
            "the path of one member twice",
        ),
        (
            [pax(&[("size", b"-1")]), file()].concat(),
            "`-1` is no size",
        ),
        (
            [
                pax(&[("size", huge.as_bytes()), ("GNU.sparse.major", b"1")]),
                file(),
            ]
            .concat(),
            "a sparse file, which is not supported",
        ),
        (
            [member(b'x', "x", b"99 path=a\n"), file()].concat(),
            "an extended record that is not `<length> <key>=<value>`",
        ),
        (
            [member(b'g', "x", &record("path", b"a")), file()].concat(),
            "a global extended header that changes members",
        ),
        (
            pax(&[("path", b"a")]),
            "an extended header belongs to no member",
        ),
    ];
    for (bad, reason) in cases {
        let error = refused(&[first(), bad]);
        assert!(
            error.starts_with("the archive has a bad header at byte "),
            "{error}"
        );
        assert!(error.ends_with(reason), "{error}");
    }
    // What git writes in front says nothing about members.
    let comment = member(b'g', "pax_global_header", &record("comment", b"0123abcd"));
    assert_eq!(
        applied("", &[comment, file()]),
        "d 0755 0:0 /\nf 0644 0:0 /x 0\n"
    );
    let alone = [first(), vec![0; 512], file()];
    assert_eq!(
        refused(&alone),
        "the archive has a bad header at byte 1024: a record of zeros stands alone before it"
    );
}

#[test]
fn sizes_are_bounded() {
    let mut options = UntarOptions::LAYER;
    options.bytes_max = 4096;
    let big = [member(b'0', "big", &[7; 5000])];
    assert_eq!(
        refused_on("", &big, &options),
        "the archive has more than 4096 bytes"
    );
    // A size that is only claimed.
    let claimed = [with(member(b'0', "big", b""), 124, b"77777777777\0")];
    assert_eq!(
        refused(&claimed),
        "the archive is cut short after 1536 bytes"
    );
    let zeros = vec![vec![0; 8192]];
    assert_eq!(
        refused_on("", &zeros, &options),
        "the archive has more than 4096 bytes"
    );

    options = UntarOptions::LAYER;
    options.entries_max = 2;
    let three = ["a", "b", "c"].map(|name| member(b'0', name, b""));
    assert_eq!(
        refused_on("", &three, &options),
        "the archive has more than 2 members"
    );

    let claimed = [with(member(b'x', "x", b""), 124, b"00004000001\0")];
    assert_eq!(
        refused(&claimed),
        "the archive has a bad header at byte 0: an extended header of 1048577 bytes, more than 1048576"
    );
    let claimed = [with(member(b'L', "x", b""), 124, b"77777777777\0")];
    assert_eq!(
        refused(&claimed),
        "the archive has a bad header at byte 0: an extended header of 8589934591 bytes, more than 1048576"
    );
}

#[test]
fn an_archive_cut_short_is_refused_wherever_it_was_cut() {
    let store = MemoryStore::new();
    let members = [
        member(b'0', "a", &[1; 700]),
        pax(&[("path", b"b")]),
        member(b'0', "x", b"12"),
    ]
    .concat();
    let base = empty(&store);
    for length in 0..members.len() {
        let read = read_onto(&store, &base, &members[..length], &UntarOptions::LAYER);
        // Between members nobody can tell, as long as no extended header waits for its member.
        let whole = [0, 512 + 1024].contains(&length);
        assert_eq!(read.is_ok(), whole, "{length}");
        if let Err(error) = read {
            let text = chain(&error);
            let short = format!("the archive is cut short after {length} bytes");
            assert!(
                text == short || text.ends_with("belongs to no member"),
                "{text}"
            );
        }
    }
}

#[test]
fn what_follows_the_end_is_read_and_means_nothing() {
    let store = MemoryStore::new();
    let archive = [
        &member(b'0', "a", b"")[..],
        &[0; 10240],
        &member(b'0', "b", b""),
    ]
    .concat();
    let mut reader = &archive[..];
    let mut tree = TreeBuilder::new(&store, Meta::root(Mode::DIRECTORY));
    let target = UntarTarget {
        tree: &mut tree,
        store: &store,
        mtimes: &mut Mtimes::default(),
        dropped: &mut Vec::new(),
    };
    read_layer(&mut reader, target).expect("a layer");
    assert_eq!(reader, b"");
    let tree = tree.seal(&store).expect("a tree");
    let names: Vec<String> = listing(&store, &tree).lines().map(str::to_owned).collect();
    assert_eq!(names.len(), 2);
    assert!(store.has(&BlobId::new(Digest::of(b""))).expect("a store"));
}

#[test]
fn a_reader_that_fails_is_named_and_not_taken_for_an_end() {
    struct Failing(usize);
    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let header = member(b'0', "a", &[1; 600]);
            let rest = &header[self.0..700];
            if rest.is_empty() {
                return Err(io::Error::other("the line went dead"));
            }
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            self.0 += count;
            Ok(count)
        }
    }
    let store = MemoryStore::new();
    let error = read_layer(
        &mut Failing(0),
        UntarTarget {
            tree: &mut TreeBuilder::new(&store, Meta::root(Mode::DIRECTORY)),
            store: &store,
            mtimes: &mut Mtimes::default(),
            dropped: &mut Vec::new(),
        },
    )
    .expect_err("a failure");
    assert_eq!(
        chain(&error),
        "cannot read the archive after 700 bytes: the line went dead"
    );
}

#[test]
fn times_have_one_encoding() {
    let mut mtimes = Mtimes::default();
    let path = |text: &str| RelPath::new(text.as_bytes()).expect("a path");
    for text in ["a", "a.b", "a/b", "a/b/c", "ab"] {
        mtimes.insert(path(text), Mtime::new(-1, 999_999_999).expect("a time"));
    }
    let bytes = mtimes.to_canonical();
    assert_eq!(
        Mtimes::decode_strict(&bytes).expect("its own encoding"),
        mtimes
    );
    for length in 0..bytes.len() {
        assert!(Mtimes::decode_strict(&bytes[..length]).is_err());
    }
    // The paths of the second and third entry change places.
    let mut unsorted = bytes.clone();
    let at = |text: &[u8]| bytes.windows(text.len()).position(|window| window == text);
    let (second, third) = (at(b"a.b").expect("a path"), at(b"a/b").expect("a path"));
    unsorted[second + 1] = b'/';
    unsorted[third + 1] = b'.';
    assert_eq!(
        Mtimes::decode_strict(&unsorted),
        Err(DecodeError::NotCanonical("times are not sorted".into()))
    );
    mtimes.remove(&path("a"));
    let left: Vec<String> = mtimes.iter().map(|(path, _)| path.to_string()).collect();
    assert_eq!(left, ["/a.b", "/ab"]);
    assert_eq!(Mtime::new(0, 1_000_000_000), None);
}
