//! The tar dialect, byte for byte.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use immbuild_cas::path::escape;
use immbuild_cas::store::DirectorySink;
use immbuild_cas::tree::{Change, Directory, Special};
use proptest::prelude::*;

use super::*;

/// A tree with one of everything.
fn features(store: &MemoryStore) -> (Tree, Tree) {
    let old = tree(
        store,
        r#"
        d 1777 0:0 /tmp
        f 0644 0:0 /tmp/gone "x"
        d 0700 7:7 /var
        f 0644 0:0 /var/lib/old/a "x"
        f 0644 0:0 /was-file "x"
        f 0644 0:0 /was-dir/a "x"
        d 0755 0:0 /mode
        f 0644 0:0 /kept "x"
        "#,
    );
    let name_100 = format!("{}/{}", "d".repeat(50), "n".repeat(49));
    let name_101 = format!("{}/{}", "d".repeat(50), "n".repeat(50));
    let new = tree(
        store,
        &format!(
            r#"
            d 1777 0:0 /tmp
            d 0700 7:7 /var
            d 0755 0:0 /var/lib
            d 0755 0:0 /was-file
            f 0644 0:0 /was-dir "file\n"
            d 0711 0:0 /mode
            f 0644 0:0 /kept "x"
            f 0644 0:0 /a "a\n"
            f 0644 0:0 /a/../a.b "between\n"
            d 0750 1:2 /dir
            f 4755 0:0 /dir/second "program\n"
            x security.capability=0100000200040000000000000000000000000000
            x user.note=6869
            h /dir/third => /dir/second
            l 5:6 /link -> ../dir/second
            l 0:0 /long-link -> {long}
            p 0600 0:0 /pipe
            c 0666 0:0 /null 1:3
            b 0660 0:6 /disk 8:0
            f 0644 2097151:2097152 /owner ""
            f 0644 0:0 /not-\xff-utf8 "x"
            f 0644 0:0 /{name_100} "x"
            f 0644 0:0 /{name_101} "x"
            f 0644 0:0 /{long}/\xff "x"
            "#,
            long = "long/".repeat(20) + "end",
        )
        .replace("/a/../a.b", "/a.b"),
    );
    (old, new)
}

/// Every header of a tar, field by field: a second reader, that knows nothing but the book.
fn headers(tar: &[u8]) -> String {
    let mut out = String::new();
    let mut at = 0;
    while tar[at..].len() > 1024 || tar[at..].iter().any(|byte| *byte != 0) {
        let header = &tar[at..at + 512];
        let field = |from: usize, to: usize| {
            let mut text = String::new();
            escape(&header[from..to], &mut text).expect("a string");
            text.trim_end_matches("\\x00").to_owned()
        };
        let size = usize::from_str_radix(&field(124, 136), 8).expect("a size");
        let content = &tar[at + 512..at + 512 + size];
        writeln!(
            out,
            "{} `{}` mode {} uid {} gid {} size {} mtime {} device {} {} link `{}`",
            field(156, 157),
            field(0, 100),
            field(100, 108),
            field(108, 116),
            field(116, 124),
            field(124, 136),
            field(136, 148),
            field(329, 337),
            field(337, 345),
            field(157, 257),
        )
        .expect("a string");
        if header[156] == b'x' {
            for line in content.split_inclusive(|byte| *byte == b'\n') {
                out.push_str("    ");
                escape(line, &mut out).expect("a string");
                out.push('\n');
            }
        }
        // What is the same in every header, and the sum.
        assert_eq!(&header[257..265], b"ustar\x0000");
        assert!(
            header[265..329].iter().all(|byte| *byte == 0),
            "names of owners"
        );
        assert!(header[345..].iter().all(|byte| *byte == 0), "prefix");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        let own: u32 = header[148..156].iter().map(|byte| u32::from(*byte)).sum();
        assert_eq!(
            header[148..156],
            *format!("{:06o}\0 ", sum - own + 8 * 32).as_bytes()
        );
        let padded = size.next_multiple_of(512);
        assert!(
            tar[at + 512 + size..at + 512 + padded]
                .iter()
                .all(|byte| *byte == 0)
        );
        at += 512 + padded;
    }
    assert_eq!(tar[at..].len(), 1024, "two records of zeros, no more");
    out
}

#[test]
fn the_tar_of_every_feature_is_golden() {
    let store = MemoryStore::new();
    let (old, new) = features(&store);
    let tar = layer(&store, &old, &new);
    assert_eq!(headers(&tar), include_str!("golden/features.txt"));
    assert_eq!(
        Digest::of(&tar).to_hex(),
        "8c46e167b760d7f0886a0ab4252ba08e6be1751786ab0e7a8e9babcb6c27c98b"
    );
}

#[test]
fn numbers_beyond_ustar_are_records() {
    let mut out = Vec::new();
    let meta = Meta::root(Mode::FILE);
    let header = |size| Header {
        path: b"f",
        flag: Flag::File,
        meta: &meta,
        size,
        link: b"",
        device: (0, 0),
    };
    let late = Epoch::from_seconds(8_589_934_592).expect("before the year 10000");
    header(8_589_934_592).write(late, &mut out);
    assert_eq!(
        String::from_utf8_lossy(&out[512..512 + 39]),
        "20 mtime=8589934592\n19 size=8589934592\n"
    );
    assert_eq!(
        &out[1024 + 124..1024 + 148],
        b"00000000000\x0000000000000\0"
    );

    let last = Epoch::from_seconds(8_589_934_591).expect("before the year 10000");
    header(8_589_934_591).write(last, &mut out);
    assert_eq!(out.len(), 512);
    assert_eq!(&out[124..148], b"77777777777\x0077777777777\0");
}

#[test]
fn a_record_counts_the_digits_of_its_own_length() {
    // 98 and 100 bytes, never 99: with two digits it is one too short, with three one too long.
    for length in 1..2000 {
        let mut out = Vec::new();
        Header {
            path: &vec![b'p'; 100 + length],
            flag: Flag::File,
            meta: &Meta::root(Mode::FILE),
            size: 0,
            link: b"",
            device: (0, 0),
        }
        .write(Epoch::DEFAULT, &mut out);
        let end = out[512..]
            .iter()
            .position(|byte| *byte == b'\n')
            .expect("a line")
            + 1;
        let digits = out[512..]
            .split(|byte| *byte == b' ')
            .next()
            .expect("a number");
        let told: usize = String::from_utf8_lossy(digits).parse().expect("a number");
        assert_eq!(told, end);
    }
}

#[test]
fn gnu_tar_reads_what_was_written() {
    let store = MemoryStore::new();
    let (old, new) = features(&store);
    let tar = layer(&store, &old, &new);
    let mut child = Command::new("tar")
        .args([
            "--list",
            "--verbose",
            "--numeric-owner",
            "--quoting-style=escape",
            "-f",
            "-",
        ])
        .env_clear()
        .envs([("LC_ALL", "C"), ("TZ", "UTC"), ("PATH", "/usr/bin:/bin")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("GNU tar");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(&tar).expect("a pipe");
    drop(input);
    let output = child.wait_with_output().expect("GNU tar");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        include_str!("golden/features.gnu-tar.txt")
    );
}

#[test]
fn the_tar_crate_reads_what_was_written() {
    let store = MemoryStore::new();
    let new = tree(
        &store,
        &format!(
            r#"
            d 1777 3:4 /dir
            f 0640 3000000:7 /dir/{} "content"
            x user.note=6869
            l 0:0 /link -> dir
            "#,
            "n".repeat(120)
        ),
    );
    let tar = layer(&store, &empty(&store), &new);
    let mut archive = ::tar::Archive::new(&tar[..]);
    let mut entries = archive.entries().expect("entries");
    let mut told = String::new();
    while let Some(mut entry) = entries.next().transpose().expect("an entry") {
        let mut content = String::new();
        entry.read_to_string(&mut content).expect("a content");
        let xattrs: Vec<String> = entry
            .pax_extensions()
            .expect("records")
            .into_iter()
            .flatten()
            .filter_map(|record| record.ok()?.key().ok().map(str::to_owned))
            .collect();
        let header = entry.header();
        writeln!(
            told,
            "{} {:o} {}:{} {} {} {content} {xattrs:?}",
            entry.path().expect("a path").display(),
            header.mode().expect("a mode"),
            header.uid().expect("a uid"),
            header.gid().expect("a gid"),
            header.mtime().expect("a time"),
            entry.size(),
        )
        .expect("a string");
    }
    assert_eq!(
        told,
        format!(
            "./ 755 0:0 1577836800 0  []\n\
             dir/ 1777 3:4 1577836800 0  []\n\
             dir/{} 640 3000000:7 1577836800 7 content [\"SCHILY.xattr.user.note\", \"path\", \"uid\"]\n\
             link 777 0:0 1577836800 0  []\n",
            "n".repeat(120)
        )
    );
}

#[test]
#[ignore = "needs python3"]
fn python_reads_what_was_written() {
    let store = MemoryStore::new();
    let (old, new) = features(&store);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), layer(&store, &old, &new)).expect("a file");
    let script = "import sys, tarfile
for m in tarfile.open(sys.argv[1], errorlevel=2):
    print(m.type.decode(), ascii(m.name), oct(m.mode), m.uid, m.gid, m.size, m.mtime, ascii(m.linkname))";
    let output = Command::new("python3")
        .args(["-c", script])
        .arg(file.path())
        .output()
        .expect("python3");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        include_str!("golden/features.python.txt")
    );
}

#[test]
fn what_is_above_a_change_is_there_and_what_is_beside_it_is_not() {
    let store = MemoryStore::new();
    let old = tree(
        &store,
        r#"
        d 1777 0:0 /tmp
        d 0700 9:9 /home/me/deep
        f 0644 0:0 /home/me/beside "x"
        f 0644 0:0 /other/file "x"
        "#,
    );
    let new = tree(
        &store,
        r#"
        d 1777 0:0 /tmp
        f 0644 0:0 /tmp/new ""
        d 0700 9:9 /home/me/deep
        f 0600 9:9 /home/me/deep/secret ""
        f 0644 0:0 /home/me/beside "x"
        f 0644 0:0 /other/file "x"
        "#,
    );
    let tar = layer(&store, &old, &new);
    let lines = headers(&tar);
    let lines: Vec<&str> = lines
        .lines()
        .map(|line| line.split(" uid").next().expect("a line"))
        .collect();
    assert_eq!(
        lines,
        [
            "5 `./` mode 0000755",
            "5 `home/` mode 0000755",
            "5 `home/me/` mode 0000755",
            "5 `home/me/deep/` mode 0000700",
            "0 `home/me/deep/secret` mode 0000600",
            "5 `tmp/` mode 0001777",
            "0 `tmp/new` mode 0000644",
        ]
    );
}

#[test]
fn no_change_is_no_layer() {
    let store = MemoryStore::new();
    let tree = tree(&store, "f 0644 0:0 /a \"x\"");
    let plan = plan(&store, &tree, &tree);
    assert!(plan.is_empty());
}

#[test]
fn what_a_layer_cannot_say_is_refused_by_name() {
    let store = MemoryStore::new();
    let refused = |new: &Tree| {
        let delta = delta(&store, &empty(&store), new).expect("a delta");
        let error = LayerPlan::new(&store, new, delta).expect_err("no plan");
        error.to_string()
    };
    assert_eq!(
        refused(&tree(&store, "f 0644 0:0 /dir/.wh.x \"\"")),
        "`/dir/.wh.x` cannot be in a layer: there a name that starts with `.wh.` means a deletion"
    );
    assert_eq!(
        refused(&tree(&store, "d 0755 0:0 /.wh..wh..opq")),
        "`/.wh..wh..opq` cannot be in a layer: there a name that starts with `.wh.` means a deletion"
    );
    assert_eq!(
        refused(&tree(&store, "c 0644 0:0 /null 2097152:0")),
        "`/null` cannot be in a layer: its device number is too large"
    );
}

/// Gives other bytes than it was asked for, as a file that changed does.
struct Other(&'static [u8]);

impl BlobSource for Other {
    fn open(&self, id: &BlobId) -> Result<Box<dyn Read + Send + '_>, StoreError> {
        let reader = immbuild_cas::digest::VerifiedReader::new(self.0, *id.digest());
        Ok(Box::new(reader))
    }
}

#[test]
fn content_that_changed_is_never_written_as_if_it_had_not() {
    let store = MemoryStore::new();
    let new = tree(&store, "f 0644 0:0 /a \"four\"");
    let plan = plan(&store, &empty(&store), &new);
    let failed = |blobs: &dyn BlobSource| {
        let error = LayerWriter {
            blobs,
            epoch: Epoch::DEFAULT,
            compression: Compression::Zstd,
            threads: NonZeroUsize::MIN,
            earlier: None,
            progress: &|_| (),
        }
        .write(&plan, &mut io::sink())
        .expect_err("no layer");
        chain(&error)
    };
    let digest = Digest::of(b"four");
    assert_eq!(
        failed(&Other(b"five")),
        format!("cannot read the content of `/a`: {digest} is damaged in the store")
    );
    assert_eq!(
        failed(&Other(b"fourteen")),
        "`/a` should have 4 bytes and has 5"
    );
    assert_eq!(
        failed(&Other(b"fo")),
        format!("cannot read the content of `/a`: {digest} is damaged in the store")
    );
    assert_eq!(
        failed(&MemoryStore::new()),
        format!("cannot read the content of `/a`: {digest} is not in the store")
    );
}

#[test]
fn a_full_disk_stops_everything_and_says_so() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self
                .0
                .checked_sub(bytes.len())
                .ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let store = MemoryStore::new();
    let blob = store.put_bytes(&bytes(30 << 20, 1)).expect("a blob");
    let new = tree(&store, &format!("f 0644 0:0 /a {blob} {}", 30 << 20));
    let plan = plan(&store, &empty(&store), &new);
    for compression in [Compression::Zstd, Compression::Gzip, Compression::None] {
        let error = LayerWriter {
            blobs: &store,
            epoch: Epoch::DEFAULT,
            compression,
            threads: NonZeroUsize::new(3).expect("three"),
            earlier: None,
            progress: &|_| (),
        }
        .write(&plan, &mut Full(5 << 20))
        .expect_err("no layer");
        assert_eq!(chain(&error), "cannot write the layer: no storage space");
    }
}

/// One entry of a random tree.
fn any_meta() -> impl Strategy<Value = Meta> {
    let xattrs = proptest::collection::btree_map("user\\.[a-z]{1,3}", any::<Vec<u8>>(), 0..2);
    let id = prop_oneof![0..3_u32, Just(2_097_152), Just(u32::MAX)];
    (0..0o10000_u32, id.clone(), id, xattrs).prop_map(|(mode, uid, gid, xattrs)| Meta {
        mode: Mode::new(mode).expect("permission bits"),
        uid,
        gid,
        xattrs: xattrs
            .into_iter()
            .map(|(name, value)| {
                let name = immbuild_cas::tree::XattrName::new(name.as_bytes()).expect("a name");
                (name, value.into())
            })
            .collect(),
    })
}

#[derive(Clone, Debug)]
enum Edit {
    Directory(Meta),
    File(Vec<u8>, Meta),
    Symlink(Vec<u8>, u32),
    Special(Special),
    Link(RelPath),
    Remove,
}

fn any_edit() -> impl Strategy<Value = Edit> {
    let device = (1..9_u32, 0..300_u32);
    prop_oneof![
        3 => any_meta().prop_map(Edit::Directory),
        4 => (any::<Vec<u8>>(), any_meta()).prop_map(|(bytes, meta)| Edit::File(bytes, meta)),
        1 => (proptest::collection::vec(1..=255_u8, 1..200), 0..3_u32)
            .prop_map(|(text, uid)| Edit::Symlink(text, uid)),
        1 => (any_meta(), device).prop_map(|(meta, (major, minor))| Edit::Special(Special {
            kind: if major < 4 { SpecialKind::Fifo } else { SpecialKind::Char { major, minor } },
            meta,
        })),
        2 => any_path().prop_map(Edit::Link),
        1 => Just(Edit::Remove),
    ]
}

/// Few names, so that paths meet; one of them long, one no UTF-8, one that sorts around a slash.
fn any_path() -> impl Strategy<Value = RelPath> {
    let name = prop_oneof![
        Just(b"a".to_vec()),
        Just(b"a.b".to_vec()),
        Just(b"\xff".to_vec()),
        Just(vec![b'l'; 99]),
    ];
    proptest::collection::vec(name, 1..4)
        .prop_map(|names| RelPath::new(names.join(&b'/')).expect("a path"))
}

fn edited(store: &MemoryStore, base: &Tree, edits: &[(RelPath, Edit)]) -> Tree {
    let mut tree = TreeBuilder::from_tree(store, base);
    for (path, edit) in edits {
        // An edit that this tree does not allow changes nothing.
        let _ = match edit.clone() {
            Edit::Directory(meta) => tree.make_directory(path, meta),
            Edit::File(bytes, meta) => {
                let size = bytes.len() as u64;
                let blob = store.put_bytes(&bytes).expect("a blob");
                tree.insert(
                    path,
                    immbuild_cas::tree::Entry::File(File { blob, size, meta }),
                )
            }
            Edit::Symlink(text, uid) => {
                let symlink = immbuild_cas::tree::Symlink {
                    target: text.into(),
                    uid,
                    gid: 0,
                };
                tree.insert(path, immbuild_cas::tree::Entry::Symlink(symlink))
            }
            Edit::Special(special) => {
                tree.insert(path, immbuild_cas::tree::Entry::Special(special))
            }
            Edit::Link(existing) if existing.starts_with(path) => Ok(()),
            Edit::Link(existing) => tree.link(&existing, path),
            Edit::Remove => tree.remove(path),
        };
    }
    tree.seal(store).expect("a tree")
}

proptest! {
    #[test]
    fn a_layer_read_onto_the_old_tree_gives_the_new_one(
        root in any_meta(),
        first in proptest::collection::vec((any_path(), any_edit()), 0..30),
        second in proptest::collection::vec((any_path(), any_edit()), 0..30),
    ) {
        let store = MemoryStore::new();
        let old = edited(&store, &empty(&store), &first);
        let root_id = store.put_directory(&Directory::new(root)).expect("a directory");
        let base = if second.len() % 2 == 0 { old.clone() } else { Tree::new(root_id) };
        let new = edited(&store, &base, &second);
        let tar = layer(&store, &old, &new);
        let (read, mtimes, dropped) =
            read_onto(&store, &old, &tar, &UntarOptions::LAYER).expect("our own layer");
        prop_assert_eq!(listing(&store, &read), listing(&store, &new));
        prop_assert_eq!(read, new);
        prop_assert_eq!(dropped, []);
        for (_, mtime) in mtimes.iter() {
            prop_assert_eq!(mtime.seconds(), Epoch::DEFAULT.seconds());
        }
    }
}

#[test]
fn the_order_of_a_delta_does_not_matter() {
    let meta = || Meta::root(Mode::DIRECTORY);
    let path = |text: &str| RelPath::new(text.as_bytes()).expect("a path");
    let store = MemoryStore::new();
    let new = tree(&store, "d 0755 0:0 /a\nd 0755 0:0 /a/b\nd 0755 0:0 /a.b");
    let mut changes: Vec<(RelPath, Change)> = ["a.b", "a", "a/b", "gone", "a/gone"]
        .iter()
        .map(|text| {
            let gone = text.ends_with("gone");
            let change = if gone {
                Change::Remove
            } else {
                Change::Directory(meta())
            };
            (path(text), change)
        })
        .collect();
    let mut seen = Vec::new();
    for _ in 0..changes.len() {
        changes.rotate_left(1);
        let delta = Delta {
            changes: changes.iter().cloned().collect(),
            ..Delta::default()
        };
        let plan = LayerPlan::new(&store, &new, delta).expect("a plan");
        let names: Vec<String> = plan
            .entries()
            .map(|(path, _)| String::from_utf8_lossy(path).into_owned())
            .collect();
        assert_eq!(names, ["", ".wh.gone", "a", "a.b", "a/.wh.gone", "a/b"]);
        seen.push(write(&plan, &store, Compression::Zstd, 1).1);
    }
    seen.dedup();
    assert_eq!(seen.len(), 1);
}
