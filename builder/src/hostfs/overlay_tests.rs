//! Steps on a real overlay: each way to come to a tree gives the one canonical delta, and a snapshot made by sealing the
//! upper directory, one made from the delta, and a whole one look alike.
#![allow(clippy::disallowed_methods, reason = "tests look at directories")]

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use immbuild_cas::digest::Digest;
use immbuild_cas::path::RelPath;
use immbuild_cas::store::MemoryStore;
use immbuild_cas::tree::{Delta, Tree, apply, delta, delta_listing, to_listing, tree_of_listing};
use rustix::fs::{FileType, XattrFlags, makedev, mknodat};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use tempfile::TempDir;

use super::HostFsError;
use super::ingest::{Ingested, ingest_upper};
use super::materialise::{Materialise, Materialised, Purpose, Times, prepare_upper};
use super::owner::Owners;
use super::scan::{Scan, ingest_directory, scan};
use super::seal::seal_upper;
use super::stat_cache::StatCache;
use crate::epoch::Epoch;

const REAL: Owners = Owners::Real { highest: 65_535 };
const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

const BASE: &str = r#"
    d 0755 0:0 /
    d 0755 0:0 /dev
    c 0666 0:0 /dev/null 1:3
    d 0755 0:0 /dir
    f 0644 0:0 /dir/a "a\n"
    f 0640 1:2 /dir/b "b\n"
    d 0750 0:0 /dir/sub
    f 0644 0:0 /dir/sub/c "c\n"
    f 0644 0:0 /dir.x "x\n"
    f 0644 0:0 /hard1 "hard\n"
    h          /hard2 => /hard1
    h          /hard3 => /hard1
    l      0:0 /link -> dir/a
    p 0644 0:0 /pipe
    f 4755 0:0 /tool "tool\n"
"#;

/// Runs a test as root of its own mount namespace; as another user, in a user namespace with the ids of that user.
fn isolated(test: impl FnOnce() + Send) {
    if !rustix::process::geteuid().is_root() {
        let name = thread::current()
            .name()
            .expect("a test has a name")
            .to_owned();
        let status = Command::new("unshare")
            .args(["--user", "--map-root-user", "--map-auto", "--"])
            .arg(std::env::current_exe().unwrap())
            .args([&name, "--exact", "--nocapture"])
            .status()
            .unwrap();
        assert!(status.success(), "{name} in a user namespace");
        return;
    }
    thread::scope(|scope| {
        let run = || {
            #[allow(unsafe_code, reason = "the mounts of a test are seen by nobody else")]
            // SAFETY: only the mount namespace of this thread changes, no descriptor and no memory.
            unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", private).unwrap();
            test();
        };
        if let Err(panic) = scope.spawn(run).join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Directories of one test.
struct Place {
    store: MemoryStore,
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            store: MemoryStore::new(),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn tree(&self, listing: &str) -> Tree {
        tree_of_listing(listing, &self.store).unwrap()
    }

    fn listing(&self, tree: &Tree) -> String {
        to_listing(&self.store, tree).unwrap()
    }

    fn make(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    }

    fn write<T>(&self, known: &Known, write: impl FnOnce(&Materialise<'_>) -> T) -> T {
        write(&Materialise {
            directories: &self.store,
            blobs: &self.store,
            times: Times {
                epoch: Epoch::DEFAULT,
                known: &|path| known.get(path).copied(),
            },
            purpose: Purpose::Snapshot { owners: REAL },
            threads: TWO,
        })
    }

    /// A snapshot of a whole tree.
    fn snapshot(&self, name: &str, tree: &Tree, known: &Known) -> PathBuf {
        let into = self.make(name);
        self.write(known, |materialise| materialise.tree(tree, &into))
            .unwrap();
        into
    }

    /// Mounts an overlay of these, the first on top, and gives its root and its upper directory.
    fn overlay(&self, name: &str, lowers: &[&Path]) -> (PathBuf, PathBuf) {
        let (upper, work) = (
            self.make(&format!("{name}.upper")),
            self.make(&format!("{name}.work")),
        );
        let merged = self.make(name);
        prepare_upper(lowers[0], &upper).unwrap();
        let lowers: Vec<_> = lowers.iter().map(|path| path.to_str().unwrap()).collect();
        let options = format!(
            "lowerdir={},upperdir={},workdir={},userxattr,index=off,metacopy=off,redirect_dir=nofollow,xino=on,uuid=null",
            lowers.join(":"),
            upper.display(),
            work.display(),
        );
        let options = CString::new(options).unwrap();
        mount(
            "overlay",
            &merged,
            "overlay",
            MountFlags::empty(),
            &*options,
        )
        .unwrap();
        (merged, upper)
    }
}

/// Times of what is unchanged from a base image.
type Known = BTreeMap<RelPath, (i64, u32)>;

/// A time of its own for every entry of the base; the names of one file have one time.
fn known(listing: &str) -> Known {
    let mut known = Known::new();
    for (at, line) in listing.lines().enumerate() {
        let mut words = line.split_whitespace().filter(|word| word.starts_with('/'));
        let path = |word: &str| RelPath::from_absolute(word.as_bytes()).unwrap();
        let Some(name) = words.next().map(path) else {
            continue;
        };
        let own = (1_000_000_000 + i64::try_from(at).unwrap(), 123_456_789);
        let time = match words.next().map(path) {
            Some(first) if line.contains("=>") => known[&first],
            _ => own,
        };
        known.insert(name, time);
    }
    known
}

/// The times of the tree after a delta: what is changed or gone has none of its own.
fn known_after(known: &Known, delta: &Delta) -> Known {
    let is_unchanged = |path: &RelPath| {
        let replaces = |(changed, change): (&RelPath, &immbuild_cas::tree::Change)| {
            changed == path
                || (path.starts_with(changed)
                    && !matches!(change, immbuild_cas::tree::Change::Directory(_)))
        };
        !delta.changes.iter().any(replaces)
    };
    let mut known = known.clone();
    known.retain(|path, _| is_unchanged(path));
    known
}

/// Everything a program sees: entries with their metadata and hard links, and their times.
fn view(root: &Path) -> String {
    let store = MemoryStore::new();
    let tree = ingest_directory(root, &store, TWO).unwrap().tree;
    let mut times = Vec::new();
    let mut waiting = vec![root.to_path_buf()];
    while let Some(path) = waiting.pop() {
        let metadata = path.symlink_metadata().unwrap();
        times.push(format!(
            "{} {}.{}\n",
            path.strip_prefix(root).unwrap().display(),
            metadata.mtime(),
            metadata.mtime_nsec()
        ));
        if metadata.is_dir() {
            waiting.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
    }
    times.sort();
    to_listing(&store, &tree).unwrap() + &times.concat()
}

/// Compares long texts line by line, so that what differs can be read.
fn assert_same(actual: &str, expected: &str) {
    let (actual, expected): (Vec<_>, Vec<_>) =
        (actual.lines().collect(), expected.lines().collect());
    let missing: Vec<_> = expected
        .iter()
        .filter(|line| !actual.contains(line))
        .collect();
    let added: Vec<_> = actual
        .iter()
        .filter(|line| !expected.contains(line))
        .collect();
    assert_eq!((missing, added), (vec![], vec![]));
    assert_eq!(actual.len(), expected.len());
}

fn shell(directory: &Path, script: &str) {
    let status = Command::new("sh")
        .args(["-euc", script])
        .current_dir(directory)
        .status()
        .unwrap();
    assert!(status.success(), "{script}");
}

/// `"text"` in a line as the digest and size that a listing has there.
fn with_digests(listing: &str) -> String {
    let line = |line: &str| {
        let line = line.trim();
        match line.split_once('"') {
            None => format!("{line}\n"),
            Some((head, text)) => {
                let text = text.trim_end_matches('"').replace("\\n", "\n");
                format!("{head}{} {}\n", Digest::of(text.as_bytes()), text.len())
            }
        }
    };
    listing.trim().lines().map(line).collect()
}

/// Runs `script` on the base and expects what it changed to be `expected`; then expects all snapshots to look alike.
fn changes(script: &str, expected: &str) {
    changes_of(BASE, script, expected);
}

fn changes_of(base: &str, script: &str, expected: &str) {
    let expected = with_digests(expected);
    isolated(|| {
        let (delta, _, _) = step(base, script);
        assert_same(&delta, expected.trim_start_matches('\n'));
    });
}

/// Runs `script` on `base` and expects all snapshots of what it made to look alike. Gives the listings of the delta, of
/// the tree, and of what the step itself saw at its end.
fn step(base: &str, script: &str) -> (String, String, String) {
    let place = Place::new();
    let store = &place.store;
    let base_times = known(base);
    let base = place.tree(base);
    let lower = place.snapshot("base", &base, &base_times);
    let (merged, upper) = place.overlay("step", &[&lower]);
    shell(&merged, script);
    let seen = ingest_directory(&merged, store, TWO).unwrap().tree;

    let ingested = ingest_upper(&upper, &base, store, None, TWO).unwrap();
    assert_eq!(ingested.sockets, []);
    assert_eq!(ingested.dropped, []);
    let tree = ingested.tree;
    let delta = delta(store, &base, &tree).unwrap();
    assert_eq!(apply(store, store, &base, &delta).unwrap(), tree);

    let times = known_after(&base_times, &delta);
    let from_delta = place.make("delta");
    place
        .write(&times, |materialise| {
            materialise.delta(&tree, &delta, &from_delta)
        })
        .unwrap();
    let of_times = Times {
        epoch: Epoch::DEFAULT,
        known: &|path| times.get(path).copied(),
    };
    assert!(seal_upper(&upper, &delta, of_times, REAL).unwrap());
    assert_eq!(plain_view(&upper), plain_view(&from_delta));

    let whole = place.snapshot("whole", &tree, &times);
    let (over_delta, _) = place.overlay("over-delta", &[&from_delta, &lower]);
    let (over_sealed, _) = place.overlay("over-sealed", &[&upper, &lower]);
    let expected = view(&whole);
    assert_same(&view(&over_delta), &expected);
    assert_same(&view(&over_sealed), &expected);
    (
        delta_listing(&delta),
        place.listing(&tree),
        place.listing(&seen),
    )
}

#[test]
fn whatever_a_step_does_is_what_it_saw() {
    // No devices, which are not seen, and no hard links, which overlayfs breaks.
    let base = r#"
        d 0755 0:0 /a
        f 0644 0:0 /a/x "ax"
        d 0700 1:2 /a/y
        f 0600 0:0 /a/y/x "ayx"
        f 0644 0:0 /b "b"
        l      0:0 /c -> a
    "#;
    let paths = ["a", "b", "c", "a/x", "a/y", "a/y/x", "n", "n/x"];
    // A fixed sequence of numbers (Knuth, MMIX), so that a failure comes again.
    let mut state = 2026_u64;
    let mut random = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let scripts: Vec<String> = (0..40)
        .map(|_| {
            let mut script = "umask 022\n".to_owned();
            for _ in 0..6 {
                let (one, other) = (paths[random(paths.len())], paths[random(paths.len())]);
                let command = match random(8) {
                    0 => format!("rm -rf {one}"),
                    1 => format!("mkdir {one}"),
                    2 => format!("echo {other} > {one}"),
                    3 => format!("mv -T {one} {other}"),
                    4 => format!("touch -h {one}"),
                    5 => format!("chmod 0711 {one}"),
                    6 => format!("ln -s {one} {other}"),
                    _ => format!("cp -aT {one} {other}"),
                };
                script.push_str(&command);
                script.push_str(" 2>/dev/null || :\n");
            }
            script
        })
        .collect();
    isolated(|| {
        for script in &scripts {
            let (_, tree, seen) = step(base, script);
            assert_eq!(tree, seen, "{script}");
        }
    });
}

/// What lies in a directory, deletions and all, with times.
fn plain_view(root: &Path) -> Vec<String> {
    let mut seen = Vec::new();
    let mut waiting = vec![root.to_path_buf()];
    while let Some(path) = waiting.pop() {
        let metadata = path.symlink_metadata().unwrap();
        let is_whiteout = metadata.mode() & 0o170_000 == 0o020_000;
        // The time of a deletion is seen by nobody.
        let time = if is_whiteout {
            String::new()
        } else {
            format!("{}.{}", metadata.mtime(), metadata.mtime_nsec())
        };
        let links = if metadata.is_dir() || is_whiteout {
            0
        } else {
            metadata.nlink()
        };
        seen.push(format!(
            "{} {:o} {}:{} {} {links} {time}",
            path.strip_prefix(root).unwrap().display(),
            metadata.mode(),
            metadata.uid(),
            metadata.gid(),
            metadata.rdev(),
        ));
        if metadata.is_dir() {
            let names = xattr_names(&path);
            assert!(names.is_empty(), "{}: {names:?}", path.display());
            waiting.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
    }
    seen.sort();
    seen
}

fn xattr_names(path: &Path) -> String {
    let mut list = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, &mut list).unwrap();
    String::from_utf8(list[..length].to_vec()).unwrap()
}

#[test]
fn nothing_done_is_no_change() {
    changes(":", "");
}

#[test]
fn touched_files_are_no_change() {
    changes(
        "touch dir/a hard1 dir link; touch -h link; chmod 0600 dir/b; chmod 0640 dir/b; cp dir/a x; cp x dir/a; rm x; chmod 0700 .; chmod 755 .; touch pipe",
        "",
    );
}

#[test]
fn a_file_that_was_renamed_there_and_back_is_no_change() {
    changes("mv dir/a x; mv x dir/a; mv dir/sub/c y; mv y dir/sub/c", "");
}

#[test]
fn a_directory_made_again_as_it_was_is_no_change() {
    changes(
        "rm -r dir/sub; mkdir -m 0750 dir/sub; echo c > dir/sub/c; chmod 644 dir/sub/c",
        "",
    );
}

#[test]
fn new_and_changed_entries_are_named_each() {
    changes(
        "umask 077; echo new > dir/sub/new; mkdir -p n/m; echo two > dir/a; ln -sf tool link; mkfifo n/p",
        r#"
        + f 0644 0:0 /dir/a "two\n"
        + f 0600 0:0 /dir/sub/new "new\n"
        + l      0:0 /link -> tool
        + d 0700 0:0 /n
        + d 0700 0:0 /n/m
        + p 0600 0:0 /n/p
        "#,
    );
}

#[test]
fn the_umask_of_a_step_is_seen_in_modes_only() {
    for (umask, mode) in [
        ("000", "0666"),
        ("022", "0644"),
        ("077", "0600"),
        ("777", "0000"),
    ] {
        changes(
            &format!("umask {umask}; : > f"),
            &format!("+ f {mode} 0:0 /f \"\""),
        );
    }
}

#[test]
fn removed_entries_are_named_by_the_topmost() {
    changes("rm -r dir; rm link pipe", "- /dir\n- /link\n- /pipe");
}

#[test]
fn an_emptied_directory_stays() {
    changes("rm -r dir/*", "- /dir/a\n- /dir/b\n- /dir/sub");
}

#[test]
fn a_replaced_directory_names_what_is_gone_from_it() {
    changes(
        "rm -r dir; mkdir dir; echo a > dir/a; echo new > dir/new",
        r#"
        - /dir/b
        + f 0644 0:0 /dir/new "new\n"
        - /dir/sub
        "#,
    );
}

#[test]
fn a_renamed_directory_is_a_new_one_and_a_removed_one() {
    changes(
        "mv dir moved",
        r#"
        - /dir
        + d 0755 0:0 /moved
        + f 0644 0:0 /moved/a "a\n"
        + f 0640 1:2 /moved/b "b\n"
        + d 0750 0:0 /moved/sub
        + f 0644 0:0 /moved/sub/c "c\n"
        "#,
    );
}

#[test]
fn a_new_directory_that_was_renamed_is_just_new() {
    changes(
        "mkdir t; echo x > t/x; mv t final",
        r#"
        + d 0755 0:0 /final
        + f 0644 0:0 /final/x "x\n"
        "#,
    );
}

#[test]
fn an_entry_may_change_its_type() {
    changes(
        "rm -r dir; echo f > dir; rm tool; mkdir tool; echo t > tool/t; rm link; mkfifo link; rm pipe; ln -s a pipe",
        r#"
        + f 0644 0:0 /dir "f\n"
        + p 0644 0:0 /link
        + l      0:0 /pipe -> a
        + d 0755 0:0 /tool
        + f 0644 0:0 /tool/t "t\n"
        "#,
    );
}

#[test]
fn modes_and_owners_are_changes() {
    changes(
        "chmod 4711 dir/a; chown 7:8 dir/sub; chmod 2750 dir/sub; chown -h 5:6 link; chmod 600 pipe; chmod 0700 .",
        r#"
        + d 0700 0:0 /
        + f 4711 0:0 /dir/a "a\n"
        + d 2750 7:8 /dir/sub
        + l      5:6 /link -> dir/a
        + p 0600 0:0 /pipe
        "#,
    );
}

#[test]
fn an_edited_name_leaves_its_group() {
    changes("echo edited > hard1", r#"+ f 0644 0:0 /hard1 "edited\n""#);
    changes("chmod 600 hard2", r#"+ f 0600 0:0 /hard2 "hard\n""#);
    changes("rm hard1 hard2", "- /hard1\n- /hard2");
}

#[test]
fn a_touched_name_stays_in_its_group() {
    changes("touch hard1; touch hard3", "");
    changes("rm hard2; ln hard1 hard2", "");
}

#[test]
fn a_new_name_of_an_old_file_is_a_group() {
    changes(
        "ln dir/a again",
        r#"
        + f 0644 0:0 /again "a\n"
        + h          /dir/a => /again
        "#,
    );
}

#[test]
fn new_hard_links_are_a_group() {
    changes(
        "echo n > dir/n; ln dir/n m; ln -s x s; ln s dir/s",
        r#"
        + f 0644 0:0 /dir/n "n\n"
        + l      0:0 /dir/s -> x
        + h          /m => /dir/n
        + h          /s => /dir/s
        "#,
    );
}

#[test]
fn names_are_any_bytes_and_paths_are_deep() {
    let deep = "d/".repeat(250);
    let parent = |depth: usize| format!("+ d 0755 0:0 /{}\n", &deep[..2 * depth - 1]);
    let parents = (1..=250).map(parent).collect::<Vec<_>>().concat();
    changes(
        &format!("mkdir -p {deep}; echo f > {deep}f; printf x > \"$(printf 'a\\377\\n b')\""),
        &format!("+ f 0644 0:0 /a\\xff\\x0a\\x20b \"x\"\n{parents}+ f 0644 0:0 /{deep}f \"f\\n\""),
    );
}

#[test]
fn what_the_base_does_not_have_cannot_vanish() {
    // A mount point that the sandbox lays below everything, and that the step removes, or writes to.
    isolated(|| {
        let place = Place::new();
        let base = place.tree("d 0755 0:0 /a");
        let stubs = place.make("stubs");
        shell(&stubs, "umask 022; mkdir run etc");
        let lower = place.snapshot("base", &base, &Known::new());
        let (merged, upper) = place.overlay("step", &[&lower, &stubs]);
        shell(&merged, "umask 022; rmdir run; echo x > etc/x");
        let tree = ingest_upper(&upper, &base, &place.store, None, TWO)
            .unwrap()
            .tree;
        let delta = delta(&place.store, &base, &tree).unwrap();
        let expected = with_digests("+ d 0755 0:0 /etc\n+ f 0644 0:0 /etc/x \"x\\n\"");
        assert_eq!(delta_listing(&delta), expected);
        let times = Times {
            epoch: Epoch::DEFAULT,
            known: &|_| None,
        };
        assert!(seal_upper(&upper, &delta, times, REAL).unwrap());
        assert_eq!(
            plain_view(&upper)
                .iter()
                .map(|line| line.split(' ').next().unwrap())
                .collect::<Vec<_>>(),
            ["", "etc", "etc/x"]
        );
    });
}

/// An upper directory as overlayfs would leave it, made by hand.
fn by_hand(base: &str, make: impl FnOnce(&Path)) -> Result<(Ingested, String), HostFsError> {
    let place = Place::new();
    let base = place.tree(base);
    let upper = place.make("upper");
    shell(&upper, "chmod 755 .");
    make(&upper);
    let ingested = ingest_upper(&upper, &base, &place.store, None, TWO)?;
    let listing = place.listing(&ingested.tree);
    Ok((ingested, listing))
}

#[test]
fn attributes_are_read_and_brought_into_one_form() {
    isolated(|| {
        let path = |text: &str| RelPath::new(text.as_bytes()).unwrap();
        let (ingested, listing) = by_hand("f 0644 0:0 /f \"f\\n\"", |upper| {
            shell(upper, "umask 022; echo x > f; mkdir d; echo y > g");
            let set = |name: &str, xattr: &str, value: &[u8]| {
                rustix::fs::lsetxattr(upper.join(name), xattr, value, XattrFlags::CREATE).unwrap();
            };
            set("f", "user.note", b"hi");
            set("f", "user.overlay.origin", b"");
            set("f", "user.overlay.overlay.redirect", b"/etc");
            set("d", "user.overlay.impure", b"y");
            set("d", "user.a=b", b"1");
            set(
                "g",
                "security.capability",
                &[[1, 0, 0, 2], [4, 0, 0, 0], [0; 4], [0; 4], [0; 4]].concat(),
            );
        })
        .unwrap();
        assert_eq!(
            listing,
            with_digests(
                r#"d 0755 0:0 /
            d 0755 0:0 /d
            f 0644 0:0 /f "x\n"
            x          user.note=6869
            f 0644 0:0 /g "y\n"
            x          security.capability=0100000204000000000000000000000000000000"#
            )
        );
        assert_eq!(
            ingested.dropped,
            [
                (path("d"), b"user.a=b"[..].into()),
                (path("f"), b"user.overlay.overlay.redirect"[..].into()),
            ]
        );
    });
}

#[test]
fn a_socket_is_left_out_and_named() {
    isolated(|| {
        let (ingested, listing) = by_hand("f 0644 0:0 /run/s \"f\\n\"", |upper| {
            shell(upper, "umask 022; mkdir run");
            drop(std::os::unix::net::UnixListener::bind(upper.join("run/t")).unwrap());
        })
        .unwrap();
        assert_eq!(ingested.sockets, [RelPath::new(*b"run/t").unwrap()]);
        assert_eq!(
            listing,
            with_digests("d 0755 0:0 /\nd 0755 0:0 /run\nf 0644 0:0 /run/s \"f\\n\"")
        );
    });
}

#[test]
fn orders_to_overlayfs_are_refused() {
    isolated(|| {
        for (xattr, value) in [
            ("user.overlay.redirect", "/etc"),
            ("user.overlay.metacopy", ""),
            ("user.overlay.opaque", "x"),
            ("user.overlay.whiteout", "y"),
        ] {
            let error = by_hand("d 0755 0:0 /d", |upper| {
                shell(upper, "mkdir d");
                let value = value.as_bytes();
                rustix::fs::lsetxattr(upper.join("d"), xattr, value, XattrFlags::CREATE).unwrap();
            });
            assert!(
                matches!(&error, Err(HostFsError::Overlay { path, name }) if path == "/d" && name == xattr),
                "{error:?}"
            );
        }
    });
}

#[test]
fn a_device_is_an_error() {
    isolated(|| {
        let mut is_made = false;
        let error = by_hand("", |upper| {
            let directory = fs::File::open(upper).unwrap();
            let (kind, mode) = (FileType::CharacterDevice, rustix::fs::Mode::RUSR);
            // A user namespace does not even let one be made.
            is_made = mknodat(&directory, "null", kind, mode, makedev(1, 3)).is_ok();
        });
        if !is_made {
            return;
        }
        assert!(
            matches!(&error, Err(HostFsError::Kind { path, kind }) if path == "/null" && *kind == "a device"),
            "{error:?}"
        );
    });
}

#[test]
fn holes_are_read_as_zeros() {
    isolated(|| {
        let (ingested, listing) = by_hand("", |upper| {
        shell(upper, "truncate -s 3M a; printf x | dd of=a bs=1 seek=1500000 conv=notrunc status=none; printf y >> a; truncate -s 2M hole");
    })
    .unwrap();
        let mut bytes = vec![0; 3 << 20];
        bytes[1_500_000] = b'x';
        bytes.push(b'y');
        let (whole, hole) = (Digest::of(&bytes), Digest::of(&vec![0; 2 << 20]));
        assert_eq!(
            listing,
            format!(
                "d 0755 0:0 /\nf 0644 0:0 /a {whole} {}\nf 0644 0:0 /hole {hole} {}\n",
                bytes.len(),
                2 << 20
            )
        );
        assert_eq!((ingested.files, ingested.bytes), (2, (5 << 20) + 1));
    });
}

#[test]
fn materialise_and_ingest_are_inverse_for_any_umask() {
    isolated(|| {
        let place = Place::new();
        let tree = place.tree(
            r#"
            d 0711 3:4 /
            x          user.root=00ff
            d 0000 0:0 /closed
            f 0000 0:0 /closed/f "f"
            f 6755 1:2 /caps "caps"
            x          security.capability=0100000204000000000000000000000000000000
            x          user.a=61
            d 3777 0:9 /sticky
            f 0444 0:0 /sticky/x\x0a "x"
            h          /zlink => /caps
            l      8:9 /zsym -> \xff
            h          /zsym2 => /zsym
            p 0606 5:5 /zpipe
            "#,
        );
        let listing = place.listing(&tree);
        for umask in [0o000, 0o077, 0o777] {
            let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(umask));
            let into = place.snapshot(&format!("umask-{umask:o}"), &tree, &Known::new());
            rustix::process::umask(mask);
            let found = ingest_directory(&into, &place.store, TWO).unwrap();
            assert_same(&place.listing(&found.tree), &listing);
            assert_eq!(found.tree, tree);
        }
    });
}

#[test]
fn devices_are_left_out_of_a_snapshot_and_stay_in_the_tree() {
    isolated(|| {
        let place = Place::new();
        let tree = place.tree(BASE);
        let into = place.make("base");
        let made = place.write(&Known::new(), |materialise| materialise.tree(&tree, &into));
        let left_out = vec![RelPath::new(*b"dev/null").unwrap()];
        assert_eq!(made.unwrap(), Materialised { left_out });
        let (merged, upper) = place.overlay("step", &[&into]);
        shell(&merged, "test ! -e dev/null; touch dev/x");
        let after = ingest_upper(&upper, &tree, &place.store, None, TWO)
            .unwrap()
            .tree;
        assert!(
            place
                .listing(&after)
                .contains("\nc 0666 0:0 /dev/null 1:3\n")
        );
    });
}

#[test]
fn an_owner_that_cannot_be_given_is_named_before_anything_is_written() {
    let place = Place::new();
    let tree = place.tree("f 0644 7:70000 /f \"\"");
    let into = place.make("into");
    let error = place.write(&Known::new(), |materialise| materialise.tree(&tree, &into));
    assert_eq!(
        error.unwrap_err().to_string(),
        "`/f` belongs to 7:70000; only ids up to 65535 can be given here"
    );
    assert_eq!(fs::read_dir(&into).unwrap().count(), 0);
}

#[test]
fn an_output_for_people_has_no_devices_and_no_names_that_collide() {
    let place = Place::new();
    let output = |listing: &str| {
        let tree = place.tree(listing);
        let into = tempfile::tempdir().unwrap();
        place.write(&Known::new(), |materialise| {
            let materialise = Materialise {
                purpose: Purpose::Output { owners: false },
                ..*materialise
            };
            let made = materialise.tree(&tree, into.path());
            made.map(|_| view(into.path()))
                .map_err(|error| error.to_string())
        })
    };
    assert_eq!(
        output("c 0666 0:0 /dev/null 1:3"),
        Err("`/dev/null` is a device, which cannot be part of an image".into())
    );
    assert_eq!(
        output("f 0644 0:0 /d/\u{c4}x \"\"\nf 0644 0:0 /d/\u{e4}X \"\""),
        Err("`/d/\u{c4}x` and `/d/\u{e4}X` differ only by case".into())
    );
    let seen = output("f 0750 7:8 /d/run \"run\"").unwrap();
    let user = rustix::process::geteuid().as_raw();
    assert!(seen.contains(&format!("f 0750 {user}:")), "{seen}");
    assert!(
        seen.ends_with("\nd 1577836800.0\nd/run 1577836800.0\n"),
        "{seen}"
    );
}

#[test]
fn an_upper_directory_that_lacks_a_change_is_not_sealed() {
    let place = Place::new();
    let (old, new) = (place.tree(BASE), place.tree("f 0644 0:0 /new \"\""));
    let delta = delta(&place.store, &old, &new).unwrap();
    let upper = place.make("upper");
    fs::write(upper.join("other"), "").unwrap();
    let times = Times {
        epoch: Epoch::DEFAULT,
        known: &|_| None,
    };
    assert!(!seal_upper(&upper, &delta, times, REAL).unwrap());
    assert!(upper.join("other").exists());
}

#[test]
fn a_source_keeps_everything_that_is_to_be_preserved() {
    isolated(|| {
        let place = Place::new();
        let root = place.make("source");
        shell(
            &root,
            "umask 022; mkdir d; echo hello > d/a; chown 1:2 d/a; chmod 4711 d/a; ln d/a b; chmod 2750 d\n\
             ln -s a d/l; chown -h 3:4 d/l; ln d/l m; chmod 700 .",
        );
        for name in ["user.note", "user.a=b"] {
            rustix::fs::lsetxattr(root.join("d/a"), name, b"hi", XattrFlags::CREATE).unwrap();
        }
        let options = Scan {
            root: &root,
            selection: None,
            ignore: &[],
            leave_out: &[],
            preserve: true,
            threads: TWO,
            started: (0, 0),
        };
        let scanned = scan(&options, &StatCache::default(), &place.store).unwrap();
        assert_eq!(
            place.listing(&scanned.tree),
            with_digests(
                r#"d 0700 0:0 /
                f 4711 1:2 /b "hello\n"
                x          user.note=6869
                d 2750 0:0 /d
                h          /d/a => /b
                l      3:4 /d/l -> a
                h          /m => /d/l"#
            )
        );
        let path = |text: &str| RelPath::new(text.as_bytes()).unwrap();
        assert_eq!(
            scanned.dropped,
            [
                (path("b"), b"user.a=b"[..].into()),
                (path("d/a"), b"user.a=b"[..].into()),
            ]
        );
    });
}
