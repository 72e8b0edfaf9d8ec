//! What the builder, deltas, walks and listings promise, on trees that a reader can see and on random ones.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::digest::BlobId;
use crate::store::{DirectorySink, DirectorySource, MemoryStore, Store, StoreError};

fn path(text: &str) -> RelPath {
    RelPath::from_absolute(text.as_bytes()).expect("a path")
}

fn tree(store: &MemoryStore, text: &str) -> Tree {
    tree_of_listing(text, store).expect("a listing")
}

fn listing(store: &MemoryStore, tree: &Tree) -> String {
    to_listing(store, tree).expect("a whole tree")
}

/// Counts what is read and written.
#[derive(Default)]
struct Counting {
    store: MemoryStore,
    read: Mutex<Vec<DirectoryId>>,
    written: Mutex<Vec<DirectoryId>>,
}

impl DirectorySource for Counting {
    fn directory(&self, id: &DirectoryId) -> Result<Arc<Directory>, StoreError> {
        self.read.lock().unwrap().push(*id);
        self.store.directory(id)
    }
}

impl DirectorySink for Counting {
    fn put_directory(&self, directory: &Directory) -> Result<DirectoryId, StoreError> {
        let id = self.store.put_directory(directory)?;
        self.written.lock().unwrap().push(id);
        Ok(id)
    }
}

const SMALL: &str = r#"
    d 0755 0:0 /
    d 0755 0:0 /etc
    f 0600 0:0 /etc/shadow "root:*\n"
    d 1777 0:0 /tmp
    d 0755 0:0 /usr
    d 0755 0:0 /usr/bin
    f 4755 0:0 /usr/bin/su "su"
    d 0755 0:0 /usr/lib
    f 0644 0:0 /usr/lib/libc.so "libc"
"#;

// ---- listing

#[test]
fn a_listing_loses_nothing() {
    let store = MemoryStore::new();
    let text = format!(
        "\
d 0755 0:0 /
d 0755 7:8 /a
x          user.a\\x20b=
x          user.foo=00ff
f 0644 0:0 /a.b {digest} 2
x          security.capability=0100000200040000000000000000000000000000
f 0644 0:0 /a/b {digest} 2
l      1:2 /a/c -> ../x\\x20y\\xff
h          /a/d\\x0a => /a/b
p 0600 0:0 /a/p
c 0666 0:0 /a\\\\ 1:3
b 0660 0:6 /ä 8:0
",
        digest = BlobId::new(crate::digest::Digest::of(b"hi")),
    );
    let tree = tree(&store, &text);
    assert_eq!(listing(&store, &tree), text);
}

#[test]
fn a_fixture_may_leave_out_what_is_usual() {
    let store = MemoryStore::new();
    let short = tree(
        &store,
        r#"
        # Parents are made.
        f 0755 0:0 /usr/bin/a "hi \"\x00\n"
        h /usr/bin/b => /usr/bin/a
        "#,
    );
    let blob = store.put_bytes(b"hi \"\0\n").unwrap();
    let long = tree(
        &store,
        &format!(
            "d 0755 0:0 /usr\nd 0755 0:0 /usr/bin\nf 0755 0:0 /usr/bin/a {blob} 6\nh /usr/bin/b => /usr/bin/a"
        ),
    );
    assert_eq!(short, long);
    assert_eq!(short.links.groups().count(), 1);
}

#[test]
fn a_line_that_cannot_be_read_is_named() {
    let store = MemoryStore::new();
    for (text, expected) in [
        ("d 0755 0:0", "line 1: a path is missing"),
        ("\nq 0755 0:0 /a", "line 2: `q` is no kind of entry"),
        (
            "d 755 0:0 /a",
            "line 1: `755` is no mode of four octal digits",
        ),
        (
            "d 0855 0:0 /a",
            "line 1: `0855` is no mode of four octal digits",
        ),
        (
            "d 0755 0 /a",
            "line 1: `0` is not two numbers with a colon between",
        ),
        ("d 0755 0:-1 /a", "line 1: `-1` is no number that fits"),
        (
            "d 0755 0:0 a",
            "line 1: the path `a` does not begin with `/`",
        ),
        (
            "d 0755 0:0 /a/../b",
            "line 1: `/a/../b`: `.` and `..` are not names",
        ),
        ("d 0755 0:0 /a b", "line 1: `b` is too much"),
        (
            "f 0644 0:0 /a",
            "line 1: a digest or a text in quotes is missing",
        ),
        ("f 0644 0:0 /a \"", "line 1: \" has no closing quote"),
        (
            "f 0644 0:0 /a \"\\q\"",
            "line 1: `\\q` has an unknown escape",
        ),
        ("l 0:0 /a => b", "line 1: `->` is due where `=>` stands"),
        ("h /b => /a", "line 1"),
        (
            "d 0755 0:0 /a\nd 0755 0:0 /a",
            "line 2: `/a` stands in two lines",
        ),
        ("f 0644 0:0 /a \"\"\nf 0644 0:0 /a/b \"\"", "line 2"),
        (
            "x user.a=00",
            "line 1: an extended attribute follows the entry that has it",
        ),
        ("p 0644 0:0 /a\nx user.a=0", "line 2: `0` is no hex"),
        (
            "p 0644 0:0 /a\nx trusted.a=00",
            "line 2: the attribute `trusted.a` is not part of an image",
        ),
        (
            "l 0:0 /a -> b\nx user.a=00",
            "line 2: a link has no extended attributes",
        ),
        ("c 0600 0:0 /a 0:0", "line 1"),
    ] {
        let error = tree_of_listing(text, &store).expect_err(text);
        assert_eq!(error.to_string(), expected, "for {text:?}");
    }
}

#[test]
fn a_delta_is_listed_with_its_links_and_removals() {
    let store = MemoryStore::new();
    let old = tree(
        &store,
        "d 0755 0:0 /old\nf 0644 0:0 /gone/x \"\"\nf 0644 0:0 /a \"1\"",
    );
    let new = tree(
        &store,
        "d 0700 0:0 /old\nf 0644 0:0 /a \"2\"\nx user.k=61\nh /b => /a\nl 0:0 /l -> a",
    );
    let delta = delta(&store, &old, &new).unwrap();
    let digest = crate::digest::Digest::of(b"2");
    assert_eq!(
        delta_listing(&delta),
        format!(
            "\
+ f 0644 0:0 /a {digest} 1
+ x          user.k=61
+ h          /b => /a
- /gone
+ l      0:0 /l -> a
+ d 0700 0:0 /old
"
        )
    );
}

// ---- walk

#[test]
fn a_walk_goes_in_the_order_of_path_bytes() {
    let store = MemoryStore::new();
    let tree = tree(
        &store,
        r#"
        f 0644 0:0 /a/b/c ""
        f 0644 0:0 /a/b-c ""
        f 0644 0:0 /a.b/x ""
        f 0644 0:0 /a.b.c/x ""
        f 0644 0:0 /a.b-c ""
        f 0644 0:0 /a0 ""
        f 0644 0:0 /a-/x ""
        "#,
    );
    let mut met = Vec::new();
    walk(&store, &tree, &mut |path, _| {
        met.push(path.clone());
        Ok::<(), TreeError>(())
    })
    .unwrap();
    assert_eq!(met.len(), 13);
    assert!(met.is_sorted(), "{met:?}");
}

#[test]
fn an_entry_is_found_by_its_path_and_links_are_not_followed() {
    let store = MemoryStore::new();
    let tree = tree(
        &store,
        "d 0755 0:0 /usr/bin\nl 0:0 /bin -> usr/bin\np 0600 0:0 /usr/bin/p",
    );
    let kind = |text| {
        entry_at(&store, &tree, &path(text))
            .unwrap()
            .map(|entry| EntryKind::of(&entry))
    };
    assert_eq!(kind("/"), Some(EntryKind::Directory));
    assert_eq!(kind("/bin"), Some(EntryKind::Symlink));
    assert_eq!(kind("/usr/bin/p"), Some(EntryKind::Special));
    assert_eq!(kind("/bin/p"), None);
    assert_eq!(kind("/usr/bin/p/q"), None);
    assert_eq!(kind("/no/thing"), None);
}

// ---- builder

#[test]
fn only_edited_directories_are_read_and_written() {
    let counting = Counting::default();
    let base = tree(&counting.store, SMALL);
    let mut builder = TreeBuilder::from_tree(&counting, &base);
    builder.remove(&path("/usr/bin/su")).unwrap();
    builder
        .make_directory(&path("/usr/bin"), Meta::root(Mode::DIRECTORY))
        .unwrap();
    let edited = builder.seal(&counting).unwrap();
    let read = counting.read.lock().unwrap().clone();
    let id = |tree: &Tree, text| match entry_at(&counting.store, tree, &path(text)).unwrap() {
        Some(Entry::Directory(id)) => id,
        other => panic!("{other:?}"),
    };
    assert_eq!(read, [base.root, id(&base, "/usr"), id(&base, "/usr/bin")]);
    assert_eq!(
        *counting.written.lock().unwrap(),
        [id(&edited, "/usr/bin"), id(&edited, "/usr"), edited.root]
    );
}

#[test]
fn a_builder_that_is_only_looked_into_writes_nothing() {
    let counting = Counting::default();
    let base = tree(&counting.store, SMALL);
    let mut builder = TreeBuilder::from_tree(&counting, &base);
    assert_eq!(
        builder.kind(&path("/usr/bin/su")).unwrap(),
        Some(EntryKind::File)
    );
    assert_eq!(builder.kind(&path("/usr/bin/su/x")).unwrap(), None);
    assert_eq!(builder.names(&path("/usr")).unwrap().len(), 2);
    let meta = builder.directory_meta(&path("/tmp")).unwrap().unwrap();
    builder.make_directory(&path("/tmp"), meta).unwrap();
    assert_eq!(
        builder.get(&RelPath::root()).unwrap(),
        Some(Entry::Directory(base.root))
    );
    assert_eq!(builder.seal(&counting).unwrap(), base);
    assert_eq!(*counting.written.lock().unwrap(), []);
}

#[test]
fn an_edited_directory_has_no_id_yet() {
    let store = MemoryStore::new();
    let base = tree(&store, SMALL);
    let mut builder = TreeBuilder::from_tree(&store, &base);
    builder
        .make_directory(&path("/usr/bin/new"), Meta::root(Mode::DIRECTORY))
        .unwrap();
    for text in ["/", "/usr", "/usr/bin", "/usr/bin/new"] {
        let error = builder.get(&path(text)).expect_err(text);
        assert!(matches!(error, TreeError::Unsealed(at) if at == path(text)));
    }
    assert!(matches!(
        builder.get(&path("/usr/lib")),
        Ok(Some(Entry::Directory(_)))
    ));
}

#[test]
fn an_edit_that_cannot_be_names_the_path() {
    let store = MemoryStore::new();
    let base = tree(&store, SMALL);
    let mut builder = TreeBuilder::from_tree(&store, &base);
    let fifo = || {
        Entry::Special(Special {
            kind: SpecialKind::Fifo,
            meta: Meta::root(Mode::FILE),
        })
    };
    let mut errors = vec![
        builder.insert(&path("/no/such/x"), fifo()),
        builder.insert(&path("/etc/shadow/x"), fifo()),
        builder.insert(&path("/etc/shadow/x/y"), fifo()),
        builder.insert(&RelPath::root(), fifo()),
        builder.remove(&RelPath::root()),
        builder.remove(&path("/etc/none")),
        builder.remove(&path("/etc/none/x")),
        builder.link(&path("/etc"), &path("/x")),
        builder.link(&path("/none"), &path("/x")),
        builder.make_directory(&path("/none/x"), Meta::root(Mode::FILE)),
    ];
    let whiteout = Entry::Special(Special {
        kind: SpecialKind::Char { major: 0, minor: 0 },
        meta: Meta::root(Mode::FILE),
    });
    errors.push(builder.insert(&path("/x"), whiteout));
    let texts: Vec<String> = errors
        .into_iter()
        .map(|error| error.unwrap_err().to_string())
        .collect();
    assert_eq!(
        texts,
        [
            "`/no` does not exist",
            "`/etc/shadow` is not a directory",
            "`/etc/shadow` is not a directory",
            "the root can be neither removed nor replaced",
            "the root can be neither removed nor replaced",
            "`/etc/none` does not exist",
            "`/etc/none/x` does not exist",
            "`/etc` is a directory",
            "`/none` does not exist",
            "`/none` does not exist",
            "cannot put an entry at `/x`",
        ]
    );
    assert_eq!(builder.seal(&store).unwrap(), base);
}

const LINKED: &str = r#"
    f 0644 0:0 /a "1"
    d 0755 0:0 /d
    f 0644 0:0 /d/a "2"
    h          /d/b => /d/a
    h          /d.x => /d/a
    h          /b => /a
    h          /c => /a
"#;

#[test]
fn an_edited_path_leaves_its_group_and_a_group_of_one_is_none() {
    let store = MemoryStore::new();
    let base = tree(&store, LINKED);
    let groups = |edit: &dyn Fn(&mut TreeBuilder<'_>)| {
        let mut builder = TreeBuilder::from_tree(&store, &base);
        edit(&mut builder);
        let tree = builder.seal(&store).unwrap();
        let groups: Vec<String> = tree
            .links
            .groups()
            .map(|group| format!("{group:?}"))
            .collect();
        groups.join(" ")
    };
    let insert = |to: &str| {
        let to = path(to);
        move |builder: &mut TreeBuilder<'_>| {
            let entry = builder.get(&path("/a")).unwrap().unwrap();
            builder.insert(&to, entry).unwrap();
        }
    };
    assert_eq!(
        groups(&|_| {}),
        "[`/a`, `/b`, `/c`] [`/d.x`, `/d/a`, `/d/b`]"
    );
    assert_eq!(
        groups(&insert("/a")),
        "[`/b`, `/c`] [`/d.x`, `/d/a`, `/d/b`]"
    );
    assert_eq!(groups(&insert("/d")), "[`/a`, `/b`, `/c`]");
    assert_eq!(
        groups(&|builder| builder.remove(&path("/d")).unwrap()),
        "[`/a`, `/b`, `/c`]"
    );
    assert_eq!(
        groups(&|builder| {
            builder.remove(&path("/a")).unwrap();
            builder.remove(&path("/b")).unwrap();
        }),
        "[`/d.x`, `/d/a`, `/d/b`]"
    );
    assert_eq!(
        groups(&|builder| builder
            .make_directory(&path("/a"), Meta::root(Mode::DIRECTORY))
            .unwrap()),
        "[`/b`, `/c`] [`/d.x`, `/d/a`, `/d/b`]"
    );
    assert_eq!(
        groups(&|builder| builder
            .make_directory(&path("/d"), Meta::root(Mode::FILE))
            .unwrap()),
        "[`/a`, `/b`, `/c`] [`/d.x`, `/d/a`, `/d/b`]"
    );
    assert_eq!(
        groups(&|builder| builder.link(&path("/a"), &path("/d/b")).unwrap()),
        "[`/a`, `/b`, `/c`, `/d/b`] [`/d.x`, `/d/a`]"
    );
    // The directory goes, and with it what was named; the file is still at another path.
    assert_eq!(
        groups(&|builder| builder.link(&path("/d/a"), &path("/d")).unwrap()),
        "[`/a`, `/b`, `/c`] [`/d`, `/d.x`]"
    );
    assert_eq!(
        groups(&|builder| {
            let root = Entry::Directory(base.root);
            builder.insert(&RelPath::root(), root).unwrap();
        }),
        ""
    );
}

#[test]
fn a_grafted_directory_keeps_the_links_inside_of_it() {
    let store = MemoryStore::new();
    let other = tree(&store, LINKED);
    let Some(Entry::Directory(id)) = entry_at(&store, &other, &path("/d")).unwrap() else {
        panic!("a directory")
    };
    let mut builder = TreeBuilder::new(&store, Meta::root(Mode::DIRECTORY));
    builder
        .graft(&path("/x"), id, &other.links.below(&path("/d")))
        .unwrap();
    builder
        .make_directory(&path("/y"), Meta::root(Mode::DIRECTORY))
        .unwrap();
    builder
        .graft(&path("/y"), other.root, &other.links)
        .unwrap();
    let grafted = builder.seal(&store).unwrap();
    let expected = tree(
        &store,
        r#"
        f 0644 0:0 /x/a "2"
        h          /x/b => /x/a
        f 0644 0:0 /y/a "1"
        h          /y/b => /y/a
        h          /y/c => /y/a
        f 0644 0:0 /y/d/a "2"
        h          /y/d/b => /y/d/a
        h          /y/d.x => /y/d/a
        "#,
    );
    assert_eq!(listing(&store, &grafted), listing(&store, &expected));
    assert_eq!(grafted, expected);
}

#[test]
fn the_deepest_path_there_can_be_fits_the_stack() {
    let store = MemoryStore::new();
    let mut builder = TreeBuilder::new(&store, Meta::root(Mode::DIRECTORY));
    let empty = builder.seal(&store).unwrap();
    builder = TreeBuilder::new(&store, Meta::root(Mode::DIRECTORY));
    let deepest = RelPath::new(vec![b"a".as_slice(); 2048].join(&b'/')).unwrap();
    let mut made = RelPath::root();
    for _ in 0..2048 {
        made = made.join(&Name::new(*b"a").unwrap()).unwrap();
        builder
            .make_directory(&made, Meta::root(Mode::DIRECTORY))
            .unwrap();
    }
    assert_eq!(made, deepest);
    let deep = builder.seal(&store).unwrap();
    assert_eq!(listing(&store, &deep).lines().count(), 2049);
    let delta = delta(&store, &empty, &deep).unwrap();
    assert_eq!(delta.changes.len(), 2048);
    assert_eq!(apply(&store, &store, &empty, &delta).unwrap(), deep);
}

// ---- delta

#[test]
fn equal_subtrees_are_not_opened() {
    let counting = Counting::default();
    let old = tree(&counting.store, SMALL);
    let new = tree(&counting.store, &SMALL.replace("root:*", "root:!"));
    assert!(delta(&counting, &old, &old).unwrap().is_empty());
    assert_eq!(counting.read.lock().unwrap().len(), 0);
    let delta = delta(&counting, &old, &new).unwrap();
    assert_eq!(
        delta.changes.keys().collect::<Vec<_>>(),
        [&path("/etc/shadow")]
    );
    // The root and `/etc`, of both.
    assert_eq!(counting.read.lock().unwrap().len(), 4);
}

#[test]
fn a_delta_names_no_more_than_it_must() {
    let store = MemoryStore::new();
    let table = [
        // A directory is named for itself, not for what is in it.
        ("f 0644 0:0 /d/f \"1\"", "f 0644 0:0 /d/f \"2\"", "+f /d/f"),
        ("d 0755 0:0 /d", "d 0700 0:0 /d", "+d /d"),
        ("d 0755 0:0 /", "d 0700 0:0 /", "+d /"),
        // Only the topmost path that vanishes.
        ("f 0644 0:0 /d/e/f \"1\"", "", "-/d"),
        ("f 0644 0:0 /d/f \"1\"", "d 0755 0:0 /d", "-/d/f"),
        // A new entry says that the old one is gone.
        ("f 0644 0:0 /d/f \"1\"", "f 0644 0:0 /d \"1\"", "+f /d"),
        (
            "f 0644 0:0 /d \"1\"",
            "f 0644 0:0 /d/f \"1\"",
            "+d /d +f /d/f",
        ),
        ("f 0644 0:0 /d \"1\"", "l 0:0 /d -> 1", "+l /d"),
        ("p 0644 0:0 /d", "p 0600 0:0 /d", "+s /d"),
        // Groups that are as they were, with another entry beside them.
        (LINKED, &format!("{LINKED}\nf 0644 0:0 /z \"\""), "+f /z"),
    ];
    for (old, new, expected) in table {
        let (old, new) = (tree(&store, old), tree(&store, new));
        assert_eq!(changes(&delta(&store, &old, &new).unwrap()), expected);
    }
}

fn changes(delta: &Delta) -> String {
    let changes: Vec<String> = delta
        .changes
        .iter()
        .map(|(path, change)| match change {
            Change::Remove => format!("-{path}"),
            Change::Directory(_) => format!("+d {path}"),
            Change::File(_) => format!("+f {path}"),
            Change::Symlink(_) => format!("+l {path}"),
            Change::Special(_) => format!("+s {path}"),
        })
        .chain(delta.links.groups().map(|group| format!("{group:?}")))
        .collect();
    changes.join(" ")
}

#[test]
fn a_delta_names_linked_paths_by_the_rule() {
    let store = MemoryStore::new();
    // Groups over the files a to f, all of one content, before and after.
    let table = [
        ("", "", ""),
        // New groups are named whole.
        ("", "ab", "+f /a +f /b [`/a`, `/b`]"),
        ("ab", "abc", "+f /a +f /b +f /c [`/a`, `/b`, `/c`]"),
        (
            "ab cd",
            "abcd",
            "+f /a +f /b +f /c +f /d [`/a`, `/b`, `/c`, `/d`]",
        ),
        (
            "ab cd",
            "ac bd",
            "+f /a +f /b +f /c +f /d [`/a`, `/c`] [`/b`, `/d`]",
        ),
        // What leaves is named; what remains is not.
        ("abc", "ab", "+f /c"),
        ("abc", "bc", "+f /a"),
        ("ab", "", "+f /b"),
        ("abc", "", "+f /b +f /c"),
        // The largest part remains, of equal ones the first.
        ("abcde", "ab cde", "+f /a +f /b [`/a`, `/b`]"),
        ("abcd", "ac bd", "+f /b +f /d [`/b`, `/d`]"),
        // A part that another path joins cannot remain.
        ("abcd", "abe cd", "+f /a +f /b +f /e [`/a`, `/b`, `/e`]"),
        (
            "abcd",
            "abce",
            "+f /a +f /b +f /c +f /e [`/a`, `/b`, `/c`, `/e`]",
        ),
    ];
    for (old, new, expected) in table {
        let linked = |groups: &str| {
            let base = tree(
                &store,
                &"abcdef".chars().fold(String::new(), |text, name| {
                    text + &format!("f 0644 0:0 /{name} \"1\"\n")
                }),
            );
            let groups = groups.split_whitespace().map(|group| {
                group
                    .chars()
                    .map(|name| path(&format!("/{name}")))
                    .collect()
            });
            Tree {
                root: base.root,
                links: LinkGroups::new(groups).unwrap(),
            }
        };
        let (old_tree, new_tree) = (linked(old), linked(new));
        let delta = delta(&store, &old_tree, &new_tree).unwrap();
        assert_eq!(changes(&delta), expected, "from `{old}` to `{new}`");
        assert_eq!(apply(&store, &store, &old_tree, &delta).unwrap(), new_tree);
    }
}

#[test]
fn a_group_that_names_no_file_is_an_error() {
    let store = MemoryStore::new();
    let old = tree(&store, SMALL);
    let links = LinkGroups::new([vec![path("/etc"), path("/none")]]).unwrap();
    let new = Tree {
        links,
        ..old.clone()
    };
    let error = delta(&store, &old, &new).expect_err("no such file");
    assert!(matches!(error, TreeError::Links(at) if at == path("/etc")));
}

// ---- random trees

/// One edit, as it is said; it is left out where it cannot be.
#[derive(Clone, Debug)]
enum Edit {
    Directory(RelPath, Meta),
    Entry(RelPath, Entry),
    Link(RelPath, RelPath),
    Remove(RelPath),
}

fn any_path() -> impl Strategy<Value = RelPath> {
    let name = select(vec!["a", "a.b", "b", "a\\ b", "\u{fc}"]);
    prop::collection::vec(name, 1..4).prop_map(|names| path(&format!("/{}", names.join("/"))))
}

fn any_meta() -> impl Strategy<Value = Meta> {
    let xattr = select(vec![
        None,
        None,
        Some("user.k"),
        Some("security.capability"),
    ]);
    (select(vec![0o755, 0o644, 0o4755]), 0..2_u32, xattr).prop_map(|(mode, uid, xattr)| Meta {
        uid,
        xattrs: xattr
            .map(|name| (XattrName::new(name.as_bytes()).unwrap(), [0, 255].into()))
            .into_iter()
            .collect(),
        ..Meta::root(Mode::new(mode).unwrap())
    })
}

fn any_entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        4 => (0..3_u8, any_meta()).prop_map(|(content, meta)| Entry::File(File {
            blob: BlobId::new(crate::digest::Digest::of(&[content])),
            size: 1,
            meta,
        })),
        1 => (0..2_u32).prop_map(|uid| Entry::Symlink(Symlink {
            target: (*b"a b\n").into(),
            uid,
            gid: 0,
        })),
        1 => (any_meta(), 0..3_u32).prop_map(|(meta, major)| Entry::Special(Special {
            kind: match major {
                0 => SpecialKind::Fifo,
                1 => SpecialKind::Char { major, minor: 3 },
                _ => SpecialKind::Block { major, minor: 0 },
            },
            meta,
        })),
    ]
}

fn any_edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        3 => (any_path(), any_meta()).prop_map(|(path, meta)| Edit::Directory(path, meta)),
        4 => (any_path(), any_entry()).prop_map(|(path, entry)| Edit::Entry(path, entry)),
        3 => (any_path(), any_path()).prop_map(|(existing, new)| Edit::Link(existing, new)),
        2 => any_path().prop_map(Edit::Remove),
    ]
}

fn any_edits(count: usize) -> impl Strategy<Value = Vec<Edit>> {
    prop::collection::vec(any_edit(), 0..count)
}

fn edit(builder: &mut TreeBuilder<'_>, edit: &Edit) {
    // What cannot be is refused by the builder, and the model agrees on when.
    let _ = match edit {
        Edit::Directory(path, meta) => builder.make_directory(path, meta.clone()),
        Edit::Entry(path, entry) => builder.insert(path, entry.clone()),
        Edit::Link(existing, new) => builder.link(existing, new),
        Edit::Remove(path) => builder.remove(path),
    };
}

fn tree_of(store: &MemoryStore, base: &Tree, edits: &[Edit]) -> Tree {
    let mut builder = TreeBuilder::from_tree(store, base);
    for it in edits {
        edit(&mut builder, it);
    }
    builder.seal(store).unwrap()
}

fn nothing(store: &MemoryStore) -> Tree {
    TreeBuilder::new(store, Meta::root(Mode::DIRECTORY))
        .seal(store)
        .unwrap()
}

/// A tree as a plain map of what stands where and which inode it is: slow, and plainly right.
#[derive(Default)]
struct Model {
    entries: BTreeMap<RelPath, (Stands, usize)>,
    inodes: usize,
}

#[derive(Clone)]
enum Stands {
    Directory(Meta),
    Entry(Entry),
}

impl Model {
    fn is_directory(&self, path: &RelPath) -> bool {
        path.is_root() || matches!(self.entries.get(path), Some((Stands::Directory(_), _)))
    }

    fn has_parent(&self, path: &RelPath) -> bool {
        self.is_directory(&path.parent().expect("not the root"))
    }

    fn remove(&mut self, path: &RelPath) {
        self.entries.retain(|at, _| !at.starts_with(path));
    }

    fn edit(&mut self, edit: &Edit) {
        self.inodes += 1;
        match edit {
            Edit::Directory(path, meta) if self.has_parent(path) => {
                if !self.is_directory(path) {
                    self.remove(path);
                }
                let stands = Stands::Directory(meta.clone());
                self.entries.insert(path.clone(), (stands, self.inodes));
            }
            Edit::Entry(path, entry) if self.has_parent(path) => {
                self.remove(path);
                let stands = Stands::Entry(entry.clone());
                self.entries.insert(path.clone(), (stands, self.inodes));
            }
            Edit::Link(existing, new) if self.has_parent(new) && existing != new => {
                if let Some((Stands::Entry(entry), inode)) = self.entries.get(existing).cloned() {
                    self.remove(new);
                    let stands = Stands::Entry(entry);
                    self.entries.insert(new.clone(), (stands, inode));
                }
            }
            Edit::Remove(path) => self.remove(path),
            _ => {}
        }
    }

    /// Makes the tree, the entries taken in the order that `turn` gives among siblings.
    fn tree(&self, store: &MemoryStore, turned: bool) -> Tree {
        let mut builder = TreeBuilder::new(store, Meta::root(Mode::DIRECTORY));
        let mut groups: BTreeMap<usize, Vec<RelPath>> = BTreeMap::new();
        let mut entries: Vec<_> = self.entries.iter().collect();
        if turned {
            entries.reverse();
        }
        // Parents first, whatever the order is otherwise.
        entries.sort_by_key(|(path, _)| path.names().count());
        for (path, (stands, inode)) in entries {
            match stands {
                Stands::Directory(meta) => builder.make_directory(path, meta.clone()).unwrap(),
                Stands::Entry(entry) => {
                    builder.insert(path, entry.clone()).unwrap();
                    groups.entry(*inode).or_default().push(path.clone());
                }
            }
        }
        Tree {
            links: LinkGroups::new(groups.into_values()).unwrap(),
            ..builder.seal(store).unwrap()
        }
    }
}

#[test]
fn a_link_in_place_of_the_directory_that_its_target_is_in_keeps_the_other_links() {
    let store = MemoryStore::new();
    let mut builder = TreeBuilder::new(&store, Meta::root(Mode::DIRECTORY));
    let path = |text: &str| RelPath::new(text.as_bytes()).unwrap();
    let [a, b, inside] = ["a", "b", "b/file"].map(path);
    let file = File {
        blob: store.put_bytes(b"content").unwrap(),
        size: 7,
        meta: Meta::root(Mode::of_st_mode(0o644)),
    };
    builder
        .make_directory(&b, Meta::root(Mode::DIRECTORY))
        .unwrap();
    builder.insert(&a, Entry::File(file)).unwrap();
    builder.link(&a, &inside).unwrap();
    builder.link(&inside, &b).unwrap();
    let tree = builder.seal(&store).unwrap();
    assert_eq!(tree.links, LinkGroups::new([vec![a, b]]).unwrap());
}

proptest! {
    #[test]
    fn a_builder_does_what_a_plain_map_does(first in any_edits(30), second in any_edits(30)) {
        let store = MemoryStore::new();
        let mut model = Model::default();
        let mut tree = nothing(&store);
        for edits in [first, second] {
            for it in &edits {
                model.edit(it);
            }
            tree = tree_of(&store, &tree, &edits);
            let expected = model.tree(&store, false);
            prop_assert_eq!(listing(&store, &tree), listing(&store, &expected));
            prop_assert_eq!(&tree, &expected);
        }
        prop_assert_eq!(tree, model.tree(&store, true));
    }

    #[test]
    fn a_delta_applied_gives_the_other_tree(
        old in any_edits(30),
        edits in any_edits(12),
        other in any_edits(30),
    ) {
        let store = MemoryStore::new();
        let old = tree_of(&store, &nothing(&store), &old);
        let near = tree_of(&store, &old, &edits);
        let far = tree_of(&store, &nothing(&store), &other);
        prop_assert!(delta(&store, &old, &old).unwrap().is_empty());
        for new in [near, far] {
            let delta = delta(&store, &old, &new).unwrap();
            prop_assert_eq!(&apply(&store, &store, &old, &delta).unwrap(), &new);
            for group in delta.links.groups() {
                for path in group {
                    prop_assert!(delta.changes.contains_key(path));
                }
            }
            // Nothing can be left out.
            for path in delta.changes.keys() {
                let mut less = delta.clone();
                less.changes.remove(path);
                less.links = LinkGroups::new(less.links.groups().map(|group| {
                    group.iter().filter(|at| *at != path).cloned().collect()
                })).unwrap();
                let applied = apply(&store, &store, &old, &less).ok();
                prop_assert_ne!(applied, Some(new.clone()), "without {}", path);
            }
        }
    }

    #[test]
    fn a_listing_is_read_back(edits in any_edits(40)) {
        let store = MemoryStore::new();
        let made = tree_of(&store, &nothing(&store), &edits);
        let text = listing(&store, &made);
        prop_assert_eq!(&tree(&store, &text), &made);
        let mut met = Vec::new();
        walk(&store, &made, &mut |path, _| {
            met.push(path.clone());
            Ok::<(), TreeError>(())
        }).unwrap();
        prop_assert!(met.is_sorted());
    }

    #[test]
    fn what_is_decoded_is_encoded_to_the_same_bytes(
        edits in any_edits(30),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let store = MemoryStore::new();
        let made = tree_of(&store, &nothing(&store), &edits);
        let root = store.directory(&made.root).unwrap();
        for mut bytes in [root.to_canonical(), made.to_canonical()] {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(directory) = Directory::decode_strict(&bytes) {
                prop_assert_eq!(directory.to_canonical(), bytes.clone());
            }
            if let Ok(tree) = Tree::decode_strict(&bytes) {
                prop_assert_eq!(tree.to_canonical(), bytes.clone());
            }
            // An encoding that is cut short is none.
            prop_assert!(Directory::decode_strict(&bytes[..at]).is_err());
            prop_assert!(Tree::decode_strict(&bytes[..at]).is_err());
        }
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut directory = Directory::new(Meta::root(Mode::FILE)).to_canonical();
        directory.truncate(directory.len() - 4);
        directory.extend_from_slice(&bytes);
        if let Ok(decoded) = Directory::decode_strict(&directory) {
            prop_assert_eq!(decoded.to_canonical(), directory);
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(
        text in "([dflhpcbx] ([0-7]{4} )?([0-9]:[0-9] )?(/[a-b\\\\x\"]{0,3} )?(-> |=> )?[a-z/\"0-9.:=]{0,8}\n){0,4}",
    ) {
        let store = MemoryStore::new();
        if let Ok(made) = tree_of_listing(&text, &store) {
            prop_assert_eq!(&tree(&store, &listing(&store, &made)), &made);
        }
    }
}

#[test]
fn capabilities_have_one_form() {
    let two = [&[1, 0, 0, 2][..], &[4; 16]].concat();
    let three = [&[1, 0, 0, 3][..], &[4; 16], &[0, 1, 2, 3]].concat();
    assert_eq!(capability_v2(&two).as_deref(), Some(&*two));
    assert_eq!(capability_v2(&three).as_deref(), Some(&*two));
    assert_eq!(capability_v2(&three[..20]), None);
    assert_eq!(capability_v2(&[1, 0, 0, 1]), None);
    assert_eq!(capability_v2(&[]), None);
}
