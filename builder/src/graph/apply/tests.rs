//! The copy rule and the corner cases of every verb, as trees before and after.

use immbuild_cas::store::MemoryStore;
use immbuild_cas::tree::{Mode, to_listing, tree_of_listing};

use super::super::file_op::one_file_tree;
use super::*;

/// A root as Debian has it: `/bin` and `/lib` are links into `/usr`.
const MERGED: &str = r#"
    l      0:0 /bin -> usr/bin
    l      0:0 /lib -> /usr/lib
    f 0755 0:0 /usr/bin/sh "sh"
    f 0644 0:0 /usr/lib/libc.so "libc"
    f 0644 0:0 /etc/passwd "root:x:0:0::/root:/bin/sh\nwww:x:33:34::/:/no\n"
    f 0644 0:0 /etc/group "root:x:0:\nweb:x:50:\n"
"#;

/// What a source brings.
const SITE: &str = r#"
    d 0750 5:6 /
    f 0640 5:6 /a.toml "a"
    x user.k=61
    l      5:6 /link -> a.toml
    f 4755 5:6 /sub/b.toml "b"
    f 0644 5:6 /sub/c.txt "c"
    d 0700 5:6 /empty
    p 0600 5:6 /pipe
"#;

fn path(text: &str) -> RelPath {
    RelPath::from_absolute(text.as_bytes()).unwrap()
}

fn mode(bits: u32) -> Option<Mode> {
    Mode::new(bits)
}

fn copy(from: &str, to: &str) -> FileOp {
    FileOp::Copy {
        from: path(from),
        to: path(to),
        include: Vec::new(),
        exclude: Vec::new(),
        mode: None,
        dir_mode: None,
        owner: None,
    }
}

fn picking(from: &str, to: &str, include: &[&str], exclude: &[&str]) -> FileOp {
    let owned = |patterns: &[&str]| patterns.iter().map(|it| (*it).to_owned()).collect();
    FileOp::Copy {
        from: path(from),
        to: path(to),
        include: owned(include),
        exclude: owned(exclude),
        mode: None,
        dir_mode: None,
        owner: None,
    }
}

fn write(to: &str, text: &str) -> FileOp {
    FileOp::Write {
        path: path(to),
        text: text.into(),
        mode: Mode::FILE,
        owner: Owner::ROOT,
    }
}

fn mkdir(to: &str, mode: Option<Mode>, owner: Option<Owner>) -> FileOp {
    FileOp::Mkdir {
        path: path(to),
        mode,
        owner,
    }
}

fn link(at: &str, target: &str) -> FileOp {
    FileOp::Link {
        path: path(at),
        target: target.into(),
    }
}

fn remove(at: &str) -> FileOp {
    FileOp::Remove { path: path(at) }
}

fn user(name: &str, uid: u32, home: Option<&str>, groups: &[&str]) -> FileOp {
    FileOp::User {
        name: name.to_owned(),
        uid,
        gid: uid,
        home: home.map(path),
        login: "/usr/sbin/nologin".to_owned(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
    }
}

fn named(user: &str, group: Option<&str>) -> Owner {
    Owner::Names {
        user: user.to_owned(),
        group: group.map(str::to_owned),
    }
}

fn applied(
    store: &MemoryStore,
    base: &str,
    source: &str,
    op: &FileOp,
) -> Result<Tree, FileOpError> {
    let base = tree_of_listing(base, store).unwrap();
    let source = tree_of_listing(source, store).unwrap();
    apply_file_op(op, &base, Some(&source), false, store, store)
}

/// `base` after `op` is `expected`.
fn gives(base: &str, source: &str, op: &FileOp, expected: &str) {
    let store = MemoryStore::new();
    let tree = applied(&store, base, source, op).unwrap();
    let expected = tree_of_listing(expected, &store).unwrap();
    let listing = |tree| to_listing(&store, tree).unwrap();
    assert_eq!(listing(&tree), listing(&expected), "{op:?}");
    assert_eq!(tree, expected);
}

/// `op` cannot be done on `base`: the message, and what it says to write.
fn fails(base: &str, source: &str, op: &FileOp, message: &str, write: Option<&str>) {
    let error = applied(&MemoryStore::new(), base, source, op).expect_err(message);
    assert_eq!(error.to_string(), message, "{op:?}");
    assert_eq!(error.write().as_deref(), write, "{op:?}");
}

// ---- copy

#[test]
fn what_is_named_becomes_to() {
    gives(
        "",
        SITE,
        &copy("/a.toml", "/etc/x"),
        "f 0640 5:6 /etc/x \"a\"\nx user.k=61",
    );
    gives("", SITE, &copy("/link", "/l"), "l 5:6 /l -> a.toml");
    gives("", SITE, &copy("/pipe", "/p"), "p 0600 5:6 /p");
    gives("", SITE, &copy("/empty", "/e"), "d 0700 5:6 /e");
    gives("", SITE, &copy("/", "/"), SITE);
    gives(
        "",
        SITE,
        &copy("/sub", "/"),
        "f 4755 5:6 /b.toml \"b\"\nf 0644 5:6 /c.txt \"c\"",
    );
}

#[test]
fn a_directory_is_merged_and_the_copied_entry_wins() {
    gives(
        r#"
        d 0711 1:1 /srv
        f 0600 1:1 /srv/a.toml "old"
        f 0600 1:1 /srv/kept "kept"
        f 0600 1:1 /srv/sub/c.txt "old"
        f 0600 1:1 /srv/sub/kept "kept"
        f 0600 1:1 /srv/link "old"
        l      1:1 /srv/pipe -> kept
        "#,
        SITE,
        &copy("/", "/srv"),
        r#"
        d 0750 5:6 /srv
        f 0640 5:6 /srv/a.toml "a"
        x user.k=61
        f 0600 1:1 /srv/kept "kept"
        f 4755 5:6 /srv/sub/b.toml "b"
        f 0644 5:6 /srv/sub/c.txt "c"
        f 0600 1:1 /srv/sub/kept "kept"
        l      5:6 /srv/link -> a.toml
        p 0600 5:6 /srv/pipe
        d 0700 5:6 /srv/empty
        "#,
    );
}

#[test]
fn a_merged_usr_stays_merged() {
    let source = "f 0755 0:0 /bin/x \"x\"\nf 0755 0:0 /lib/m/y \"y\"\nf 0755 0:0 /usr/bin/z \"z\"";
    gives(
        MERGED,
        source,
        &copy("/", "/"),
        &format!(
            "{MERGED}\nf 0755 0:0 /usr/bin/x \"x\"\nf 0755 0:0 /usr/lib/m/y \"y\"\nf 0755 0:0 /usr/bin/z \"z\""
        ),
    );
    gives(
        MERGED,
        source,
        &copy("/bin/x", "/bin/x"),
        &format!("{MERGED}\nf 0755 0:0 /usr/bin/x \"x\""),
    );
    // The directory itself meets a link to one.
    gives(
        MERGED,
        source,
        &copy("/lib", "/lib"),
        &format!("{MERGED}\nf 0755 0:0 /usr/lib/m/y \"y\""),
    );
    // In the source links on the way are followed as well.
    gives("", MERGED, &copy("/bin/sh", "/sh"), "f 0755 0:0 /sh \"sh\"");
    gives(
        "",
        MERGED,
        &copy("/lib/libc.so", "/c"),
        "f 0644 0:0 /c \"libc\"",
    );
    gives("", MERGED, &copy("/bin", "/b"), "l 0:0 /b -> usr/bin");
}

#[test]
fn a_link_at_the_end_is_replaced_and_one_on_the_way_stays_inside() {
    let file = "f 0644 0:0 /f \"new\"";
    gives(
        "l 0:0 /x -> y\nf 0644 0:0 /y \"old\"",
        file,
        &copy("/f", "/x"),
        "f 0644 0:0 /x \"new\"\nf 0644 0:0 /y \"old\"",
    );
    gives(
        "l 0:0 /d -> ../../../real\nd 0755 0:0 /real",
        file,
        &copy("/f", "/d/x"),
        "l 0:0 /d -> ../../../real\nf 0644 0:0 /real/x \"new\"",
    );
    gives(
        "l 0:0 /a/d -> /b/./c//\nl 0:0 /b -> a/../e",
        file,
        &copy("/f", "/a/d/x"),
        "l 0:0 /a/d -> /b/./c//\nl 0:0 /b -> a/../e\nf 0644 0:0 /e/c/x \"new\"",
    );
    // A directory that meets a link to none takes its place.
    gives(
        "l 0:0 /d -> nowhere",
        "f 0644 0:0 /d/f \"1\"",
        &copy("/d", "/d"),
        "f 0644 0:0 /d/f \"1\"",
    );
}

#[test]
fn links_in_a_circle_are_an_error() {
    let circle = "l 0:0 /a -> b\nl 0:0 /b -> a";
    for (op, message) in [
        (
            copy("/", "/a/x"),
            "`copy` of `/a`: links lead around in a circle",
        ),
        (
            copy("/", "/a"),
            "`copy` of `/a`: links lead around in a circle",
        ),
        (
            mkdir("/a", None, None),
            "`mkdir` of `/a`: links lead around in a circle",
        ),
        (
            remove("/a/x"),
            "`remove` of `/a/x`: links lead around in a circle",
        ),
    ] {
        fails(circle, SITE, &op, message, None);
    }
    fails(
        "",
        circle,
        &copy("/a/x", "/x"),
        "`copy` of `/a/x`: links lead around in a circle",
        None,
    );
}

#[test]
fn a_file_that_meets_a_directory_is_an_error_with_the_line_to_write() {
    fails(
        MERGED,
        SITE,
        &copy("/a.toml", "/usr/bin"),
        "`copy` would put a file at `/usr/bin`, where a directory is",
        Some("to = \"/usr/bin/a.toml\""),
    );
    fails(
        "",
        SITE,
        &copy("/sub/c.txt", "/"),
        "`copy` would put a file at `/`, where a directory is",
        Some("to = \"/c.txt\""),
    );
    fails(
        MERGED,
        "l 0:0 /etc -> x",
        &copy("/", "/"),
        "`copy` would put a file at `/etc`, where a directory is",
        Some("{ remove = \"/etc\" }"),
    );
    fails(
        MERGED,
        SITE,
        &copy("/sub", "/etc/passwd"),
        "`copy` would make a directory of `/etc/passwd`, where a file is",
        Some("{ remove = \"/etc/passwd\" }"),
    );
    fails(
        MERGED,
        "p 0600 0:0 /bin/sh/x",
        &copy("/", "/"),
        "`copy` would make a directory of `/usr/bin/sh`, where a file is",
        Some("{ remove = \"/usr/bin/sh\" }"),
    );
    fails(
        MERGED,
        SITE,
        &copy("/a.toml", "/bin/sh/x"),
        "`copy` of `/bin/sh`: `/usr/bin/sh` is not a directory",
        None,
    );
}

#[test]
fn what_is_not_in_the_source_is_named() {
    for from in ["/none", "/none/x", "/a.toml/x", "/link/x"] {
        fails(
            "",
            SITE,
            &copy(from, "/x"),
            &format!("`{from}` is not in the source"),
            None,
        );
    }
}

#[test]
fn a_source_that_is_one_file_has_no_paths() {
    let store = MemoryStore::new();
    let blob = store.put_bytes(b"hi").unwrap();
    let source = one_file_tree(blob, 2, &store).unwrap();
    let base = tree_of_listing("d 0755 0:0 /usr", &store).unwrap();
    let apply = |op: &FileOp| apply_file_op(op, &base, Some(&source), true, &store, &store);
    let expected = tree_of_listing("d 0755 0:0 /usr\nf 0644 0:0 /bin/hi \"hi\"", &store).unwrap();
    assert_eq!(apply(&copy("/", "/bin/hi")).unwrap(), expected);
    let error = apply(&copy("/file", "/hi")).unwrap_err();
    assert!(matches!(error, FileOpError::InsideOneFile { path: at } if at == path("/file")));
    let error = apply(&picking("/", "/hi", &["*"], &[])).unwrap_err();
    assert!(matches!(error, FileOpError::PickingFromFile { .. }));
    let error = apply(&copy("/", "/usr")).unwrap_err();
    assert_eq!(error.write().as_deref(), Some("to = \"/usr/NAME\""));
}

#[test]
fn include_and_exclude_pick_below_the_named_directory() {
    gives(
        "d 0711 9:9 /etc/app/sub",
        SITE,
        &picking("/", "/etc/app", &["*.toml"], &[]),
        r#"
        d 0750 5:6 /etc/app
        f 0640 5:6 /etc/app/a.toml "a"
        x user.k=61
        d 0711 9:9 /etc/app/sub
        f 4755 5:6 /etc/app/sub/b.toml "b"
        "#,
    );
    // Directories that are only on the way are made as any parent is.
    gives(
        "",
        "d 0700 5:6 /x/y\nf 0644 0:0 /x/y/a.c \"\"\nd 0700 5:6 /x/z",
        &picking("/x", "/s", &["y/*.c"], &[]),
        "f 0644 0:0 /s/y/a.c \"\"",
    );
    gives(
        "",
        SITE,
        &picking("/", "/s", &[], &["*.toml", "pipe", "/link"]),
        "d 0750 5:6 /s\nf 0644 5:6 /s/sub/c.txt \"c\"\nd 0700 5:6 /s/empty",
    );
    gives(
        "",
        SITE,
        &picking("/", "/s", &["empty"], &[]),
        "d 0750 5:6 /s\nd 0700 5:6 /s/empty",
    );
    for op in [
        picking("/", "/s", &["*.rs"], &[]),
        picking("/", "/s", &["*.toml"], &["*.toml"]),
        picking("/", "/s", &[], &["*"]),
    ] {
        fails(
            "",
            SITE,
            &op,
            "`include` and `exclude` leave nothing of `/`",
            None,
        );
    }
    fails(
        "",
        SITE,
        &picking("/a.toml", "/s", &["*"], &[]),
        "`include` and `exclude` pick below a directory, and `/a.toml` is none",
        None,
    );
}

#[test]
fn mode_is_of_files_dir_mode_of_directories_and_owner_of_all() {
    let op = FileOp::Copy {
        from: path("/"),
        to: path("/s"),
        include: Vec::new(),
        exclude: Vec::new(),
        mode: mode(0o4711),
        dir_mode: mode(0o2750),
        owner: Some(named("www", Some("web"))),
    };
    gives(
        MERGED,
        SITE,
        &op,
        &format!(
            r#"{MERGED}
            d 2750 33:50 /s
            f 4711 33:50 /s/a.toml "a"
            x user.k=61
            l      33:50 /s/link -> a.toml
            d 2750 33:50 /s/sub
            f 4711 33:50 /s/sub/b.toml "b"
            f 4711 33:50 /s/sub/c.txt "c"
            d 2750 33:50 /s/empty
            p 0600 33:50 /s/pipe
            "#
        ),
    );
}

#[test]
fn hard_links_are_kept_when_both_ends_come_along() {
    let source = r#"
        f 0644 0:0 /d/a "1"
        h          /d/b => /d/a
        h          /d/e/c => /d/a
        h          /out => /d/a
        f 0644 0:0 /d/e/x "2"
        h          /d/e/y => /d/e/x
    "#;
    gives(
        "",
        source,
        &copy("/d", "/t"),
        "f 0644 0:0 /t/a \"1\"\nh /t/b => /t/a\nh /t/e/c => /t/a\nf 0644 0:0 /t/e/x \"2\"\nh /t/e/y => /t/e/x",
    );
    gives("", source, &copy("/d/a", "/t"), "f 0644 0:0 /t \"1\"");
    gives(
        "f 0600 0:0 /t/a \"old\"\nh /u => /t/a\nh /v => /t/a\nd 0755 0:0 /t/e",
        source,
        &picking("/d", "/t", &[], &["b", "y"]),
        "f 0600 0:0 /u \"old\"\nh /v => /u\nf 0644 0:0 /t/a \"1\"\nh /t/e/c => /t/a\nf 0644 0:0 /t/e/x \"2\"",
    );
}

#[test]
fn a_linked_file_that_another_overwrites_is_linked_no_more() {
    // `/bin/x` and `/usr/bin/x` of the source come to one place, and the later wins.
    gives(
        MERGED,
        "f 0755 0:0 /bin/x \"1\"\nh /bin/y => /bin/x\nh /bin/z => /bin/x\nf 0755 0:0 /usr/bin/x \"2\"",
        &copy("/", "/"),
        &format!(
            "{MERGED}\nf 0755 0:0 /usr/bin/x \"2\"\nf 0755 0:0 /usr/bin/y \"1\"\nh /usr/bin/z => /usr/bin/y"
        ),
    );
}

// ---- the other verbs

#[test]
fn write_puts_a_file_in_the_place_of_a_file_or_link() {
    gives("", "", &write("/a/b", "hi\n"), "f 0644 0:0 /a/b \"hi\\n\"");
    gives(
        "f 0600 1:1 /f \"old\"\nh /g => /f",
        "",
        &write("/f", "new"),
        "f 0644 0:0 /f \"new\"\nf 0600 1:1 /g \"old\"",
    );
    gives(
        MERGED,
        "",
        &write("/bin/x", ""),
        &format!("{MERGED}\nf 0644 0:0 /usr/bin/x \"\""),
    );
    gives("l 0:0 /x -> y", "", &write("/x", ""), "f 0644 0:0 /x \"\"");
    fails(
        MERGED,
        "",
        &write("/etc", ""),
        "`write` would put a file at `/etc`, where a directory is",
        Some("{ remove = \"/etc\" }"),
    );
    let owned = FileOp::Write {
        path: path("/f"),
        text: Vec::new(),
        mode: Mode::new(0o4755).unwrap(),
        owner: named("www", None),
    };
    gives(
        MERGED,
        "",
        &owned,
        &format!("{MERGED}\nf 4755 33:34 /f \"\""),
    );
}

#[test]
fn mkdir_makes_parents_and_sets_what_is_given() {
    let ids = Some(Owner::Ids { uid: 7, gid: 8 });
    gives(
        "",
        "",
        &mkdir("/a/b", mode(0o1777), ids.clone()),
        "d 0755 0:0 /a\nd 1777 7:8 /a/b",
    );
    gives(
        "d 0700 1:2 /a",
        "",
        &mkdir("/a", None, None),
        "d 0700 1:2 /a",
    );
    gives(
        "d 0700 1:2 /a\np 0600 0:0 /a/p",
        "",
        &mkdir("/a", None, ids),
        "d 0700 7:8 /a\np 0600 0:0 /a/p",
    );
    gives(
        "d 0700 1:2 /a",
        "",
        &mkdir("/a", mode(0o755), None),
        "d 0755 1:2 /a",
    );
    gives("", "", &mkdir("/", mode(0o711), None), "d 0711 0:0 /");
    gives(
        "l 0:0 /l -> d\nd 0755 0:0 /d",
        "",
        &mkdir("/l", mode(0o700), None),
        "l 0:0 /l -> d\nd 0700 0:0 /d",
    );
    for base in [
        "f 0644 0:0 /a \"\"",
        "l 0:0 /a -> nowhere",
        "l 0:0 /a -> f\nf 0644 0:0 /f \"\"",
    ] {
        fails(
            base,
            "",
            &mkdir("/a", None, None),
            "`mkdir` would make a directory of `/a`, where a file is",
            Some("{ remove = \"/a\" }"),
        );
    }
}

#[test]
fn link_keeps_its_text_and_is_not_followed() {
    gives(
        "",
        "",
        &link("/a/l", "../../x y"),
        "l 0:0 /a/l -> ../../x\\x20y",
    );
    gives("f 0644 0:0 /l \"\"", "", &link("/l", "/"), "l 0:0 /l -> /");
    gives(
        "l 0:0 /l -> d\nd 0755 0:0 /d",
        "",
        &link("/l", "e"),
        "l 0:0 /l -> e\nd 0755 0:0 /d",
    );
    fails(
        "d 0755 0:0 /l",
        "",
        &link("/l", "x"),
        "`link` would put a file at `/l`, where a directory is",
        Some("{ remove = \"/l\" }"),
    );
    fails("", "", &link("/l", ""), "cannot put an entry at `/l`", None);
}

#[test]
fn remove_takes_what_is_there_and_nothing_else() {
    gives(
        "f 0644 0:0 /d/e/f \"\"",
        "",
        &remove("/d/e"),
        "d 0755 0:0 /d",
    );
    gives(
        "l 0:0 /l -> d\nd 0755 0:0 /d",
        "",
        &remove("/l"),
        "d 0755 0:0 /d",
    );
    gives(
        "l 0:0 /l -> d\nf 0644 0:0 /d/f \"\"",
        "",
        &remove("/l/f"),
        "l 0:0 /l -> d\nd 0755 0:0 /d",
    );
    for at in ["/none", "/none/x", "/etc/passwd/x"] {
        fails(
            MERGED,
            "",
            &remove(at),
            &format!("there is nothing at `{at}` to remove"),
            None,
        );
    }
    fails(MERGED, "", &remove("/"), "the root cannot be removed", None);
}

#[test]
fn user_adds_account_lines_and_makes_its_home() {
    gives(
        "",
        "",
        &user("shop", 10001, None, &[]),
        r#"
        f 0644 0:0 /etc/passwd "shop:x:10001:10001::/nonexistent:/usr/sbin/nologin\n"
        f 0644 0:0 /etc/group "shop:x:10001:\n"
        "#,
    );
    gives(
        r#"
        l      0:0 /etc/passwd -> ../usr/passwd
        f 0600 1:1 /usr/passwd "root:x:0:0::/root:/bin/sh"
        f 0640 0:2 /etc/group "web:x:50:\n"
        d 0700 0:0 /home/shop
        "#,
        "",
        &user("shop", 10001, Some("/home/shop"), &["web"]),
        r#"
        l      0:0 /etc/passwd -> ../usr/passwd
        f 0600 1:1 /usr/passwd "root:x:0:0::/root:/bin/sh\nshop:x:10001:10001::/home/shop:/usr/sbin/nologin\n"
        f 0640 0:2 /etc/group "web:x:50:shop\nshop:x:10001:\n"
        d 0700 10001:10001 /home/shop
        "#,
    );
    gives(
        "",
        "",
        &user("shop", 5, Some("/home/shop"), &[]),
        r#"
        f 0644 0:0 /etc/passwd "shop:x:5:5::/home/shop:/usr/sbin/nologin\n"
        f 0644 0:0 /etc/group "shop:x:5:\n"
        d 0755 5:5 /home/shop
        "#,
    );
    for (op, message) in [
        (user("www", 1, None, &[]), "there is a user `www` already"),
        (
            user("shop", 33, None, &[]),
            "user `www` has the number 33 already",
        ),
        (
            user("web", 1, None, &[]),
            "group `web` has the number 50, not 1",
        ),
        (
            user("shop", 1, None, &["x"]),
            "there is no group `x` in `/etc/group`",
        ),
    ] {
        fails(MERGED, "", &op, message, None);
    }
    for base in ["d 0755 0:0 /etc/passwd", "p 0600 0:0 /etc/passwd"] {
        fails(
            base,
            "",
            &user("shop", 1, None, &[]),
            "cannot read accounts from `/etc/passwd`",
            None,
        );
    }
}

#[test]
fn an_owner_is_looked_up_in_the_root() {
    let store = MemoryStore::new();
    let tree = tree_of_listing(MERGED, &store).unwrap();
    let owner = |owner: Owner| resolve_owner(&owner, &tree, &store, &store);
    assert_eq!(owner(Owner::Ids { uid: 1, gid: 2 }).unwrap(), (1, 2));
    assert_eq!(owner(named("www", None)).unwrap(), (33, 34));
    assert_eq!(owner(named("www", Some("web"))).unwrap(), (33, 50));
    let error = owner(named("shop", None)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no user `shop` in `/etc/passwd`"
    );
    assert_eq!(
        error.write().as_deref(),
        Some("{ user = \"shop\", uid = 10001 }")
    );
    let error = owner(named("www", Some("x"))).unwrap_err();
    assert_eq!(error.to_string(), "there is no group `x` in `/etc/group`");
}

// ---- ids

#[test]
fn ops_that_differ_have_different_encodings() {
    use immbuild_cas::canonical::Canonical as _;
    let ops = [
        copy("/", "/a"),
        copy("/a", "/"),
        picking("/", "/a", &["x"], &[]),
        picking("/", "/a", &[], &["x"]),
        picking("/", "/a", &["x", "y"], &[]),
        picking("/", "/a", &["xy"], &[]),
        write("/a", ""),
        write("/", "a"),
        mkdir("/a", None, None),
        mkdir("/a", mode(0), None),
        mkdir("/a", None, Some(Owner::ROOT)),
        mkdir("/a", None, Some(named("0", None))),
        mkdir("/a", None, Some(named("0", Some("0")))),
        link("/a", "b"),
        remove("/a"),
        user("a", 1, None, &[]),
        user("a", 1, Some("/"), &[]),
        user("a", 1, None, &["a"]),
    ];
    let encodings: std::collections::BTreeSet<_> = ops.iter().map(FileOp::to_canonical).collect();
    assert_eq!(encodings.len(), ops.len());
}
