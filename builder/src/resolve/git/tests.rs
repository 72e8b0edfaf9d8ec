//! Repositories made by the `git` program, which the library itself never runs.
#![allow(clippy::disallowed_methods, reason = "tests look at directories")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use immbuild_cas::digest::DirectoryId;
use immbuild_cas::store::{BlobSource as _, DirectorySource as _, MemoryStore, Store as _};
use immbuild_cas::tree::Entry;
use tempfile::TempDir;

use super::*;

/// A directory with a repository `repo` in it, and a home of its own.
struct Fixture {
    root: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let fixture = Self {
            root: tempfile::tempdir().unwrap(),
        };
        fixture.init("repo");
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn init(&self, name: &str) {
        fs::create_dir_all(self.path(name)).unwrap();
        self.git(name, &["init", "-q", "-b", "main"]);
    }

    /// Runs `git` in `directory` and gives what it prints.
    fn git(&self, directory: &str, args: &[&str]) -> String {
        let output = Command::new("git")
            .arg("-C")
            .arg(self.path(directory))
            .args(["-c", "protocol.file.allow=always"])
            .args(args)
            .env("HOME", self.root.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .envs([
                ("GIT_AUTHOR_NAME", "A"),
                ("GIT_AUTHOR_EMAIL", "a@example.com"),
                ("GIT_AUTHOR_DATE", "1700000000 +0000"),
                ("GIT_COMMITTER_NAME", "C"),
                ("GIT_COMMITTER_EMAIL", "c@example.com"),
                ("GIT_COMMITTER_DATE", "1700000123 +0200"),
            ])
            .output()
            .expect("git is installed");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {args:?}: {error}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Commits everything in `directory` and gives the commit.
    fn commit(&self, directory: &str) -> String {
        self.git(directory, &["add", "-A"]);
        self.git(directory, &["commit", "-q", "--allow-empty", "-m", "x"]);
        self.git(directory, &["rev-parse", "HEAD"])
    }
}

/// What is asked of a local repository, with defaults.
struct Ask<'a> {
    path: &'a Path,
    rev: Option<&'a str>,
    subdir: &'a str,
    submodules: bool,
    dirty: bool,
    omit: Vec<PathBuf>,
}

impl<'a> Ask<'a> {
    fn of(path: &'a Path) -> Self {
        Self {
            path,
            rev: None,
            subdir: "",
            submodules: false,
            dirty: false,
            omit: Vec::new(),
        }
    }

    fn get(&self, store: &MemoryStore) -> Result<GitTree, GitError> {
        let subdir = RelPath::new(self.subdir.as_bytes()).unwrap();
        local(
            &Local {
                path: self.path,
                rev: self.rev,
                subdir: &subdir,
                submodules: self.submodules,
                dirty: self.dirty,
                omit: &self.omit,
            },
            store,
        )
    }

    /// The listing of the tree.
    fn listing(&self) -> String {
        let store = MemoryStore::new();
        let got = self.get(&store).unwrap_or_else(|error| panic!("{error}"));
        listing(&store, &got.tree)
    }

    /// The changes that stand in the way.
    fn changes(&self) -> Vec<(String, ChangeKind)> {
        match self.get(&MemoryStore::new()) {
            Err(GitError::Dirty { first, count }) => {
                assert_eq!(first.len(), count.min(5));
                first.into_iter().map(|one| (one.path, one.kind)).collect()
            }
            Ok(_) => Vec::new(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// One line for each entry: kind and mode, path, content.
fn listing(store: &MemoryStore, tree: &Tree) -> String {
    fn list(store: &MemoryStore, id: &DirectoryId, at: &str, lines: &mut BTreeMap<String, String>) {
        let directory = store.directory(id).unwrap();
        assert_eq!((directory.meta().uid, directory.meta().gid), (0, 0));
        lines.insert(format!("{at}/"), format!("d {}", directory.meta().mode));
        for (name, entry) in directory.entries() {
            let path = format!("{at}/{name}");
            match entry {
                Entry::Directory(id) => list(store, id, &path, lines),
                Entry::File(file) => {
                    assert_eq!((file.meta.uid, file.meta.gid), (0, 0));
                    let bytes = store.read(&file.blob).unwrap();
                    assert_eq!(bytes.len() as u64, file.size);
                    let text = bytes.escape_ascii();
                    lines.insert(path, format!("f {} \"{text}\"", file.meta.mode));
                }
                Entry::Symlink(link) => {
                    lines.insert(path, format!("l -> {}", link.target.escape_ascii()));
                }
                Entry::Special(special) => panic!("{special:?}"),
            }
        }
    }
    let mut lines = BTreeMap::new();
    list(store, &tree.root, "", &mut lines);
    let line = |(path, what): (&String, &String)| format!("{path} {what}\n");
    lines.iter().map(line).collect()
}

fn checkout(fixture: &Fixture) -> String {
    fixture.write("repo/a", "hello\n");
    fixture.write("repo/bin/run", "#!/bin/sh\n");
    fs::set_permissions(
        fixture.path("repo/bin/run"),
        fs::Permissions::from_mode(0o700),
    )
    .unwrap();
    symlink("../a", fixture.path("repo/bin/link")).unwrap();
    fixture.commit("repo")
}

const CHECKOUT: &str = "\
/ d 0755
/a f 0644 \"hello\\n\"
/bin/ d 0755
/bin/link l -> ../a
/bin/run f 0755 \"#!/bin/sh\\n\"
";

#[test]
fn a_commit_is_a_tree() {
    let fixture = Fixture::new();
    let commit = checkout(&fixture);
    let store = MemoryStore::new();
    let got = Ask::of(&fixture.path("repo")).get(&store).unwrap();
    assert_eq!(listing(&store, &got.tree), CHECKOUT);
    assert_eq!(
        (got.commit, got.time, got.dirty),
        (commit, 1_700_000_123, false)
    );
    assert_eq!(store.tree(&got.tree.id()).unwrap(), got.tree);
}

#[test]
fn a_place_inside_a_checkout_means_the_whole_of_it() {
    let fixture = Fixture::new();
    checkout(&fixture);
    assert_eq!(Ask::of(&fixture.path("repo/bin")).listing(), CHECKOUT);
}

#[test]
fn how_a_checkout_lies_on_disk_does_not_matter() {
    let fixture = Fixture::new();
    checkout(&fixture);
    let copy = fixture.path("copy");
    let status = Command::new("cp")
        .arg("-al")
        .args([fixture.path("repo"), copy.clone()])
        .status()
        .unwrap();
    assert!(status.success());
    fs::set_permissions(copy.join("bin"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(copy.join("a"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(Ask::of(&copy).listing(), CHECKOUT);
    let dirty = Ask {
        dirty: true,
        ..Ask::of(&copy)
    };
    assert_eq!(dirty.listing(), CHECKOUT);
}

#[test]
fn branches_tags_and_commits_are_found() {
    let fixture = Fixture::new();
    fixture.write("repo/a", "one");
    let first = fixture.commit("repo");
    fixture.git("repo", &["tag", "light"]);
    fixture.git("repo", &["tag", "-a", "-m", "x", "heavy"]);
    fixture.git("repo", &["branch", "side"]);
    fixture.write("repo/a", "two");
    fixture.commit("repo");
    fixture.git("repo", &["pack-refs", "--all"]);
    let path = fixture.path("repo");
    for rev in [
        "light",
        "heavy",
        "side",
        "refs/heads/side",
        "heads/side",
        &first,
        &first[..8],
    ] {
        let got = Ask {
            rev: Some(rev),
            ..Ask::of(&path)
        }
        .get(&MemoryStore::new());
        assert_eq!(got.unwrap().commit, first, "{rev}");
    }
    for rev in [
        "nothing",
        "--help",
        "0000000000000000000000000000000000000000",
        "light^{tree}",
        "",
    ] {
        let got = Ask {
            rev: Some(rev),
            ..Ask::of(&path)
        }
        .get(&MemoryStore::new());
        assert!(matches!(got, Err(GitError::Rev { .. })), "{rev}: {got:?}");
    }
}

#[test]
fn a_subdir_becomes_the_root() {
    let fixture = Fixture::new();
    checkout(&fixture);
    let path = fixture.path("repo");
    let ask = Ask {
        subdir: "bin",
        ..Ask::of(&path)
    };
    assert_eq!(
        ask.listing(),
        "/ d 0755\n/link l -> ../a\n/run f 0755 \"#!/bin/sh\\n\"\n"
    );
    for subdir in ["a", "bin/run", "none", "bin/link"] {
        let got = Ask {
            subdir,
            ..Ask::of(&path)
        }
        .get(&MemoryStore::new());
        assert!(
            matches!(got, Err(GitError::Subdir { .. })),
            "{subdir}: {got:?}"
        );
    }
}

#[test]
fn filters_and_line_ends_do_not_apply() {
    let fixture = Fixture::new();
    fixture.git("repo", &["config", "core.autocrlf", "true"]);
    fixture.git("repo", &["config", "filter.shout.smudge", "tr a-z A-Z"]);
    fixture.git("repo", &["config", "filter.shout.clean", "tr A-Z a-z"]);
    fixture.write(
        "repo/.gitattributes",
        "*.s filter=shout\n*.u text working-tree-encoding=UTF-16LE\n*.i ident\n",
    );
    fixture.write("repo/x.txt", "a\nb\n");
    fixture.write("repo/x.s", "quiet\n");
    fixture.write("repo/x.i", "$Id$\n");
    fs::write(fixture.path("repo/x.u"), b"h\0i\0\n\0").unwrap();
    fixture.commit("repo");
    fs::remove_dir_all(fixture.path("repo/x.txt")).unwrap_err();
    for name in ["x.txt", "x.s", "x.i", "x.u"] {
        fs::remove_file(fixture.path("repo").join(name)).unwrap();
    }
    fixture.git("repo", &["checkout", "-q", "."]);
    assert_eq!(fs::read(fixture.path("repo/x.txt")).unwrap(), b"a\r\nb\r\n");
    assert_eq!(fs::read(fixture.path("repo/x.s")).unwrap(), b"QUIET\r\n");
    let expected = "\
/ d 0755
/.gitattributes f 0644 \"*.s filter=shout\\n*.u text working-tree-encoding=UTF-16LE\\n*.i ident\\n\"
/x.i f 0644 \"$Id$\\n\"
/x.s f 0644 \"quiet\\n\"
/x.txt f 0644 \"a\\nb\\n\"
/x.u f 0644 \"hi\\n\"
";
    let path = fixture.path("repo");
    assert_eq!(Ask::of(&path).listing(), expected);
    assert_eq!(
        Ask {
            dirty: true,
            ..Ask::of(&path)
        }
        .listing(),
        expected
    );

    // In a copy no stamp is as the index has it: now content decides. The filter program is not run, so its file is the
    // one that cannot be told from a changed one.
    let copy = fixture.path("copy");
    let status = Command::new("cp")
        .arg("-r")
        .args([&path, &copy])
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(
        Ask::of(&copy).changes(),
        [("x.s".into(), ChangeKind::Modified)]
    );
}

#[test]
fn no_program_of_a_configuration_runs() {
    let fixture = Fixture::new();
    let commit = checkout(&fixture);
    let marker = fixture.path("ran");
    let program = format!("touch {}", marker.display());
    for key in [
        "filter.x.clean",
        "filter.x.smudge",
        "filter.x.process",
        "core.fsmonitor",
        "core.sshCommand",
        "diff.external",
        "credential.helper",
    ] {
        fixture.git("repo", &["config", key, &program]);
    }
    fixture.write("repo/.git/info/attributes", "* filter=x\n");
    for hook in ["post-checkout", "pre-commit", "post-index-change"] {
        let path = format!("repo/.git/hooks/{hook}");
        fixture.write(&path, &format!("#!/bin/sh\n{program}\n"));
        fs::set_permissions(fixture.path(&path), fs::Permissions::from_mode(0o755)).unwrap();
    }
    fixture.write("repo/a", "changed\n");
    let path = fixture.path("repo");
    assert_eq!(
        Ask::of(&path).changes(),
        [("a".into(), ChangeKind::Modified)]
    );
    Ask {
        dirty: true,
        ..Ask::of(&path)
    }
    .listing();
    Ask {
        rev: Some(&commit),
        dirty: true,
        ..Ask::of(&path)
    }
    .listing();
    assert!(!marker.exists());
}

#[test]
fn uncommitted_changes_are_refused_by_name() {
    let fixture = Fixture::new();
    checkout(&fixture);
    fixture.write("repo/.gitignore", "*.log\n/out/\n");
    fixture.write("repo/gone", "x");
    fixture.write("repo/staged", "x");
    fixture.write("repo/kind", "x");
    fixture.commit("repo");
    let path = fixture.path("repo");
    assert_eq!(Ask::of(&path).changes(), []);

    fixture.write("repo/x.log", "ignored");
    fixture.write("repo/out/deep/x", "ignored");
    fs::create_dir_all(fixture.path("repo/empty/dir")).unwrap();
    assert_eq!(
        Ask::of(&path).changes(),
        [],
        "ignored files and empty directories"
    );

    fixture.write("repo/a", "other");
    fs::remove_file(fixture.path("repo/gone")).unwrap();
    fixture.write("repo/new/file", "x");
    fixture.write("repo/staged", "y");
    fixture.git("repo", &["add", "staged"]);
    fs::remove_file(fixture.path("repo/kind")).unwrap();
    symlink("a", fixture.path("repo/kind")).unwrap();
    assert_eq!(
        Ask::of(&path).changes(),
        [
            ("a".into(), ChangeKind::Modified),
            ("gone".into(), ChangeKind::Deleted),
            ("kind".into(), ChangeKind::Modified),
            ("new/file".into(), ChangeKind::Untracked),
            ("staged".into(), ChangeKind::Staged),
        ]
    );
    let error = Ask::of(&path).get(&MemoryStore::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "uncommitted changes: `a` (modified), `gone` (deleted), `kind` (modified), `new/file` (untracked), `staged` (staged)"
    );
    fs::set_permissions(
        fixture.path("repo/bin/run"),
        fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    let error = Ask::of(&path).get(&MemoryStore::new()).unwrap_err();
    assert!(error.to_string().ends_with("and 1 more"), "{error}");

    // Elsewhere, or at another commit, the working tree has no say.
    fs::set_permissions(
        fixture.path("repo/bin/run"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    assert_eq!(
        Ask {
            subdir: "bin",
            ..Ask::of(&path)
        }
        .changes(),
        []
    );
    // The branch that is checked out is not elsewhere.
    let main = Ask {
        rev: Some("main"),
        ..Ask::of(&path)
    };
    assert_eq!(main.changes().len(), 5);
    let first = fixture.git("repo", &["rev-parse", "HEAD~"]);
    assert_eq!(
        Ask {
            rev: Some(&first),
            ..Ask::of(&path)
        }
        .listing(),
        CHECKOUT
    );
}

#[test]
fn uncommitted_changes_can_be_taken() {
    let fixture = Fixture::new();
    checkout(&fixture);
    fixture.write("repo/.gitignore", "*.log\n");
    fixture.write("repo/gone", "x");
    fixture.commit("repo");
    fixture.write("repo/a", "other");
    fixture.write("repo/x.log", "ignored");
    fixture.write("repo/new/file", "new");
    fs::set_permissions(
        fixture.path("repo/new/file"),
        fs::Permissions::from_mode(0o711),
    )
    .unwrap();
    fs::remove_file(fixture.path("repo/gone")).unwrap();
    fs::remove_file(fixture.path("repo/bin/run")).unwrap();
    let path = fixture.path("repo");
    let store = MemoryStore::new();
    let got = Ask {
        dirty: true,
        ..Ask::of(&path)
    }
    .get(&store)
    .unwrap();
    assert!(got.dirty);
    assert_eq!(
        listing(&store, &got.tree),
        "\
/ d 0755
/.gitignore f 0644 \"*.log\\n\"
/a f 0644 \"other\"
/bin/ d 0755
/bin/link l -> ../a
/new/ d 0755
/new/file f 0755 \"new\"
"
    );
    let new = Ask {
        dirty: true,
        subdir: "new",
        ..Ask::of(&path)
    };
    assert_eq!(new.listing(), "/ d 0755\n/file f 0755 \"new\"\n");
}

#[test]
fn a_change_of_the_same_size_and_second_is_seen() {
    let fixture = Fixture::new();
    fixture.write("repo/a", "one");
    fixture.commit("repo");
    fixture.write("repo/a", "two");
    assert_eq!(
        Ask::of(&fixture.path("repo")).changes(),
        [("a".into(), ChangeKind::Modified)]
    );
}

#[test]
fn a_conflict_is_a_change() {
    let fixture = Fixture::new();
    fixture.write("repo/a", "base\n");
    fixture.commit("repo");
    fixture.git("repo", &["checkout", "-q", "-b", "side"]);
    fixture.write("repo/a", "side\n");
    fixture.commit("repo");
    fixture.git("repo", &["checkout", "-q", "main"]);
    fixture.write("repo/a", "main\n");
    fixture.commit("repo");
    let merge = Command::new("git")
        .arg("-C")
        .arg(fixture.path("repo"))
        .args([
            "-c",
            "user.name=x",
            "-c",
            "user.email=x",
            "merge",
            "-q",
            "side",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(!merge.success());
    let path = fixture.path("repo");
    assert_eq!(
        Ask::of(&path).changes(),
        [("a".into(), ChangeKind::Conflict)]
    );
    let taken = Ask {
        dirty: true,
        ..Ask::of(&path)
    }
    .listing();
    assert!(taken.contains("<<<<<<<"), "{taken}");
}

#[test]
fn the_spec_its_lock_and_outputs_are_no_part() {
    let fixture = Fixture::new();
    checkout(&fixture);
    fixture.write("repo/spec.toml", "x");
    fixture.write("repo/spec.lock", "x");
    fixture.commit("repo");
    fixture.write("repo/spec.toml", "changed");
    fs::remove_file(fixture.path("repo/spec.lock")).unwrap();
    fixture.write("repo/out/image.tar", "new");
    fixture.write("repo/out/oci/blobs/x", "new");
    let path = fixture.path("repo");
    let omit = [
        "spec.toml",
        "spec.lock",
        "out/image.tar",
        "out/oci",
        "out/not/yet",
        "../elsewhere",
    ];
    let omit: Vec<PathBuf> = omit.iter().map(|name| path.join(name)).collect();
    let ask = Ask {
        omit: omit.clone(),
        ..Ask::of(&path)
    };
    assert_eq!(ask.listing(), CHECKOUT);
    assert_eq!(
        Ask {
            dirty: true,
            omit,
            ..Ask::of(&path)
        }
        .listing(),
        CHECKOUT
    );
}

#[test]
fn a_linked_worktree_is_a_checkout_of_its_own() {
    let fixture = Fixture::new();
    checkout(&fixture);
    fixture.git(
        "repo",
        &["worktree", "add", "-q", "../linked", "-b", "side"],
    );
    fixture.write("linked/a", "side\n");
    let linked = fixture.path("linked");
    assert_eq!(
        Ask::of(&linked).changes(),
        [("a".into(), ChangeKind::Modified)]
    );
    assert_eq!(Ask::of(&fixture.path("repo")).changes(), []);
    fixture.commit("linked");
    assert!(Ask::of(&linked).listing().contains("side"));
    assert_eq!(Ask::of(&fixture.path("repo")).listing(), CHECKOUT);
}

#[test]
fn bare_shallow_and_borrowing_repositories_are_read() {
    let fixture = Fixture::new();
    fixture.write("repo/a", "first\n");
    fixture.commit("repo");
    checkout(&fixture);
    let url = format!("file://{}", fixture.path("repo").display());
    fixture.git("", &["clone", "-q", "--bare", &url, "bare.git"]);
    fixture.git("", &["clone", "-q", "--depth", "1", &url, "shallow"]);
    fixture.git("", &["clone", "-q", "--shared", "repo", "shared"]);
    fixture.git("", &["clone", "-q", "repo", "packed"]);
    fixture.git("packed", &["gc", "-q"]);
    for name in ["bare.git", "shallow", "shared", "packed"] {
        assert_eq!(Ask::of(&fixture.path(name)).listing(), CHECKOUT, "{name}");
    }
}

#[test]
fn replaced_objects_stay_what_they_were() {
    let fixture = Fixture::new();
    checkout(&fixture);
    let old = fixture.git("repo", &["rev-parse", "HEAD:a"]);
    fixture.write("other", "evil\n");
    let new = fixture.git("repo", &["hash-object", "-w", "../other"]);
    fixture.git("repo", &["replace", &old, &new]);
    assert_eq!(Ask::of(&fixture.path("repo")).listing(), CHECKOUT);
}

#[test]
fn the_environment_of_a_hook_is_not_listened_to() {
    // Hooks run with `GIT_DIR` and `GIT_INDEX_FILE` set; a build inside one must not care. The test binary's own
    // environment cannot be changed safely, so the options are asked.
    let options = open_options();
    assert_eq!(
        options.permissions.env.git_prefix,
        gix::sec::Permission::Deny
    );
    assert_eq!(options.permissions.env.objects, gix::sec::Permission::Deny);
}

#[test]
fn nowhere_and_nothing() {
    let outside = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let got = Ask::of(outside.path()).get(&MemoryStore::new());
    assert!(matches!(got, Err(GitError::NotFound { .. })), "{got:?}");
    let got = Ask::of(&outside.path().join("missing")).get(&MemoryStore::new());
    assert!(
        matches!(got, Err(GitError::NotFound { .. } | GitError::Open { .. })),
        "{got:?}"
    );
    // No commit yet.
    let fixture = Fixture::new();
    let got = Ask::of(&fixture.path("repo")).get(&MemoryStore::new());
    assert!(matches!(got, Err(GitError::Rev { .. })), "{got:?}");
}

#[test]
fn a_repository_of_a_kind_unknown_here_says_so() {
    let fixture = Fixture::new();
    fixture.git("", &["init", "-q", "--object-format=sha256", "new"]);
    fixture.write("new/a", "x");
    fixture.commit("new");
    let got = Ask::of(&fixture.path("new")).get(&MemoryStore::new());
    let error = got.unwrap_err();
    assert!(matches!(error, GitError::Open { .. }), "{error:?}");
    assert!(error.to_string().contains("sha256"), "{error}");
}

#[test]
fn a_damaged_object_is_named() {
    let fixture = Fixture::new();
    checkout(&fixture);
    let id = fixture.git("repo", &["rev-parse", "HEAD:a"]);
    let object = fixture.path(&format!("repo/.git/objects/{}/{}", &id[..2], &id[2..]));
    fs::remove_file(&object).unwrap();
    let got = Ask::of(&fixture.path("repo")).get(&MemoryStore::new());
    assert!(
        matches!(&got, Err(GitError::Object { id: found, .. }) if *found == id),
        "{got:?}"
    );
}

#[test]
fn what_was_taken_once_is_not_read_again() {
    let fixture = Fixture::new();
    checkout(&fixture);
    let path = fixture.path("repo");
    let store = MemoryStore::new();
    let first = Ask::of(&path).get(&store).unwrap();
    let id = fixture.git("repo", &["rev-parse", "HEAD:a"]);
    let object = path.join(format!(".git/objects/{}/{}", &id[..2], &id[2..]));
    fs::remove_file(object).unwrap();
    assert_eq!(Ask::of(&path).get(&store).unwrap(), first);
    // What is left out makes another tree.
    let omit = vec![path.join("bin")];
    let without = Ask {
        omit,
        ..Ask::of(&path)
    };
    let got = without.get(&store);
    assert!(matches!(got, Err(GitError::Object { .. })), "{got:?}");
}

/// Commits a tree of these raw entries (mode, name, object id), which git itself would not write.
fn commit_raw(fixture: &Fixture, entries: &[(&str, &[u8], &str)]) {
    let mut raw = Vec::new();
    for (mode, name, id) in entries {
        raw.extend_from_slice(mode.as_bytes());
        raw.push(b' ');
        raw.extend_from_slice(name);
        raw.push(0);
        let byte = |at: usize| u8::from_str_radix(&id[at..at + 2], 16).unwrap();
        raw.extend((0..id.len()).step_by(2).map(byte));
    }
    fs::write(fixture.path("raw"), raw).unwrap();
    let tree = fixture.git(
        "repo",
        &["hash-object", "-t", "tree", "-w", "--literally", "../raw"],
    );
    let commit = fixture.git("repo", &["commit-tree", "-m", "x", &tree]);
    fixture.git("repo", &["update-ref", "refs/heads/raw", &commit]);
}

#[test]
fn a_hostile_tree_is_refused() {
    let fixture = Fixture::new();
    checkout(&fixture);
    let path = fixture.path("repo");
    let blob = fixture.git("repo", &["rev-parse", "HEAD:a"]);
    fixture.write("empty", "");
    let empty = fixture.git("repo", &["hash-object", "-w", "../empty"]);
    for (entries, shown) in [
        (vec![("100644", &b".."[..], &*blob)], "/.."),
        (vec![("100644", b".", &blob)], "/."),
        (vec![("100644", b"a/b", &blob)], "/a/b"),
        (vec![("100644", b"a", &blob), ("100755", b"a", &blob)], "/a"),
        (vec![("120000", b"l", &empty)], "/l"),
    ] {
        commit_raw(&fixture, &entries);
        let raw = Ask {
            rev: Some("raw"),
            ..Ask::of(&path)
        };
        match raw.get(&MemoryStore::new()) {
            Err(GitError::Entry { path, .. }) => assert_eq!(path, shown),
            other => panic!("{shown}: {other:?}"),
        }
    }
    // Modes of long ago, and names that are no text.
    commit_raw(&fixture, &[("100664", b"\xff", &blob)]);
    let raw = Ask {
        rev: Some("raw"),
        ..Ask::of(&path)
    };
    assert_eq!(raw.listing(), "/ d 0755\n/\\xff f 0644 \"hello\\n\"\n");
}

#[test]
fn the_deepest_tree_is_only_deep() {
    let fixture = Fixture::new();
    fixture.write("repo/a", "x");
    fixture.commit("repo");
    let deep = "a/".repeat(2000);
    // `git` makes the trees from an index entry, without a file in the way.
    let blob = fixture.git("repo", &["rev-parse", "HEAD:a"]);
    fixture.git("repo", &["rm", "-q", "--cached", "a"]);
    let entry = format!("100644,{blob},{deep}f");
    fixture.git("repo", &["update-index", "--add", "--cacheinfo", &entry]);
    fixture.git("repo", &["commit", "-q", "-m", "x"]);
    let commit = fixture.git("repo", &["rev-parse", "HEAD"]);
    fixture.git("repo", &["checkout", "-q", "--orphan", "other"]);
    let path = fixture.path("repo");
    let ask = Ask {
        rev: Some(&commit),
        ..Ask::of(&path)
    };
    let store = MemoryStore::new();
    ask.get(&store).unwrap();
}

#[test]
fn a_submodule_cannot_lead_out_of_its_place() {
    let fixture = Fixture::new();
    with_submodules(&fixture);
    let name = "../../../lib/.git";
    fixture.write(
        "repo/.gitmodules",
        &format!("[submodule \"{name}\"]\n\tpath = lib\n\turl = ../lib\n"),
    );
    fixture.commit("repo");
    let path = fixture.path("repo");
    let ask = Ask {
        submodules: true,
        ..Ask::of(&path)
    };
    let got = ask.get(&MemoryStore::new());
    assert!(matches!(got, Err(GitError::Submodule { .. })), "{got:?}");
}

/// `repo` with submodules `lib` and, in that, `deep`.
fn with_submodules(fixture: &Fixture) {
    for name in ["deep", "lib"] {
        fixture.init(name);
        fixture.write(&format!("{name}/{name}.c"), name);
        fixture.commit(name);
    }
    fixture.git(
        "lib",
        &["submodule", "--quiet", "add", "../deep", "third/deep"],
    );
    fixture.commit("lib");
    fixture.git("repo", &["submodule", "--quiet", "add", "../lib", "lib"]);
    fixture.git(
        "repo",
        &["submodule", "--quiet", "update", "--init", "--recursive"],
    );
    fixture.commit("repo");
}

#[test]
fn a_submodule_is_empty_unless_asked_for() {
    let fixture = Fixture::new();
    with_submodules(&fixture);
    let path = fixture.path("repo");
    let without = Ask::of(&path).listing();
    assert!(
        without.contains("/lib/ d 0755\n") && !without.contains("lib.c"),
        "{without}"
    );
    let with = Ask {
        submodules: true,
        ..Ask::of(&path)
    }
    .listing();
    assert!(with.contains("/lib/lib.c f 0644 \"lib\"\n"), "{with}");
    assert!(
        with.contains("/lib/third/deep/deep.c f 0644 \"deep\"\n"),
        "{with}"
    );
    let dirty = Ask {
        submodules: true,
        dirty: true,
        ..Ask::of(&path)
    }
    .listing();
    assert_eq!(dirty, with);
}

#[test]
fn changes_in_submodules_count_when_they_are_asked_for() {
    let fixture = Fixture::new();
    with_submodules(&fixture);
    let path = fixture.path("repo");
    fixture.write("repo/lib/third/deep/deep.c", "changed");
    assert_eq!(Ask::of(&path).changes(), []);
    let with = Ask {
        submodules: true,
        ..Ask::of(&path)
    };
    assert_eq!(
        with.changes(),
        [("lib/third/deep/deep.c".into(), ChangeKind::Modified)]
    );
    let taken = Ask {
        submodules: true,
        dirty: true,
        ..Ask::of(&path)
    }
    .listing();
    assert!(
        taken.contains("/lib/third/deep/deep.c f 0644 \"changed\"\n"),
        "{taken}"
    );
    fixture.git("repo/lib/third/deep", &["checkout", "-q", "."]);
    fixture.write("repo/lib/lib.c", "newer");
    fixture.commit("repo/lib");
    assert_eq!(with.changes(), [("lib".into(), ChangeKind::Modified)]);
}

#[test]
fn a_submodule_that_is_not_here_is_named() {
    let fixture = Fixture::new();
    with_submodules(&fixture);
    fixture.git("", &["clone", "-q", "repo", "clone"]);
    let path = fixture.path("clone");
    assert!(Ask::of(&path).listing().contains("/lib/ d 0755\n"));
    let got = Ask {
        submodules: true,
        ..Ask::of(&path)
    }
    .get(&MemoryStore::new());
    let error = got.unwrap_err().to_string();
    assert!(error.starts_with("submodule `/lib`: commit "), "{error}");
}

fn far<'a>(url: &'a str, rev: Option<&'a str>, root: &'a RelPath) -> Remote<'a> {
    Remote {
        url,
        mirrors: &[],
        rev,
        subdir: root,
        submodules: false,
        ssh: None,
    }
}

fn online(cache: &Path) -> Means<'_> {
    Means {
        cache,
        offline: false,
    }
}

fn offline(cache: &Path) -> Means<'_> {
    Means {
        cache,
        offline: true,
    }
}

#[test]
fn a_file_url_is_read_in_place() {
    let fixture = Fixture::new();
    let commit = checkout(&fixture);
    fixture.write("repo/a", "a change that no commit has");
    let url = format!("file://{}", fixture.path("repo").display());
    let root = RelPath::root();
    let cache = fixture.path("cache");
    let store = MemoryStore::new();
    let locked = lock_remote(&far(&url, None, &root), &online(&cache), &store).unwrap();
    assert_eq!(locked.commit, commit);
    assert_eq!(listing(&store, &locked.tree), CHECKOUT);
    assert!(!cache.exists());
    let pin = Pin {
        commit: &commit,
        tree: locked.tree.id(),
    };
    let tree = fetch_remote(
        &far(&url, None, &root),
        &pin,
        &offline(&cache),
        &MemoryStore::new(),
    );
    assert_eq!(tree.unwrap(), locked.tree);
    let other = Pin {
        tree: TreeId::new(immbuild_cas::digest::Digest::of(b"x")),
        ..pin
    };
    let tree = fetch_remote(
        &far(&url, None, &root),
        &other,
        &offline(&cache),
        &MemoryStore::new(),
    );
    assert!(matches!(tree, Err(GitError::Mismatch { .. })), "{tree:?}");
}

/// `git daemon` on the loopback interface, until dropped.
struct Daemon {
    child: Child,
    port: u16,
}

impl Daemon {
    fn new(base: &Path) -> Self {
        // The daemon does not tell which port it took, so one is found for it.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        // Not by way of `git`, which would leave the daemon behind when it is killed.
        let programs = Command::new("git").arg("--exec-path").output().unwrap();
        let programs = String::from_utf8(programs.stdout).unwrap();
        let child = Command::new(Path::new(programs.trim()).join("git-daemon"))
            .args(["--listen=127.0.0.1", "--export-all", "--reuseaddr"])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", base.display()))
            .arg(base)
            .stderr(Stdio::null())
            .spawn()
            .expect("git daemon is installed");
        for _ in 0..200 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Self { child, port }
    }

    fn url(&self, path: &str) -> String {
        format!("git://127.0.0.1:{}/{path}", self.port)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_remote_is_locked_and_fetched_by_its_commit() {
    let fixture = Fixture::new();
    fixture.write("repo/a", "first\n");
    fixture.commit("repo");
    let commit = checkout(&fixture);
    fixture.git("repo", &["tag", "-a", "-m", "x", "v1"]);
    let daemon = Daemon::new(fixture.root.path());
    let url = daemon.url("repo");
    let root = RelPath::root();
    let cache = fixture.path("cache");
    for rev in [
        None,
        Some("main"),
        Some("v1"),
        Some("refs/heads/main"),
        Some(&*commit),
    ] {
        let store = MemoryStore::new();
        let locked = lock_remote(&far(&url, rev, &root), &online(&cache), &store).unwrap();
        assert_eq!(
            (&locked.commit, locked.time),
            (&commit, 1_700_000_123),
            "{rev:?}"
        );
        assert_eq!(listing(&store, &locked.tree), CHECKOUT);
    }
    let store = MemoryStore::new();
    let tree = lock_remote(&far(&url, None, &root), &online(&cache), &store)
        .unwrap()
        .tree;

    // The branch moves on; the pin does not.
    fixture.write("repo/a", "later\n");
    fixture.commit("repo");
    let pin = Pin {
        commit: &commit,
        tree: tree.id(),
    };
    let fresh = fixture.path("fresh");
    let request = far(&url, None, &root);
    let absent = fetch_remote(&request, &pin, &offline(&fresh), &MemoryStore::new());
    assert!(
        matches!(absent, Err(GitError::Offline { .. })),
        "{absent:?}"
    );
    let absent = lock_remote(&request, &offline(&fresh), &MemoryStore::new());
    assert!(
        matches!(absent, Err(GitError::Offline { .. })),
        "{absent:?}"
    );
    let got = fetch_remote(&request, &pin, &online(&fresh), &MemoryStore::new()).unwrap();
    assert_eq!(got, tree);
    drop(daemon);
    let kept = MemoryStore::new();
    fetch_remote(&request, &pin, &offline(&fresh), &kept).unwrap();
    let nowhere = fixture.path("nowhere");
    let again = fetch_remote(&request, &pin, &offline(&nowhere), &kept).unwrap();
    assert_eq!(again, tree);
    assert!(!nowhere.exists());
    let cached = fetch_remote(&request, &pin, &offline(&fresh), &MemoryStore::new()).unwrap();
    assert_eq!(cached, tree);
    let gone = fetch_remote(
        &request,
        &pin,
        &online(&fixture.path("empty")),
        &MemoryStore::new(),
    );
    assert!(matches!(gone, Err(GitError::Unreachable(_))), "{gone:?}");
}

#[test]
fn a_remote_without_the_rev_or_the_repository_says_so() {
    let fixture = Fixture::new();
    checkout(&fixture);
    let daemon = Daemon::new(fixture.root.path());
    let root = RelPath::root();
    let cache = fixture.path("cache");
    let url = daemon.url("repo");
    let got = lock_remote(
        &far(&url, Some("v9"), &root),
        &online(&cache),
        &MemoryStore::new(),
    );
    assert!(matches!(got, Err(GitError::Rev { .. })), "{got:?}");
    let missing = "1234567890123456789012345678901234567890";
    let got = lock_remote(
        &far(&url, Some(missing), &root),
        &online(&cache),
        &MemoryStore::new(),
    );
    assert!(
        matches!(got, Err(GitError::Rev { .. } | GitError::Unreachable(_))),
        "{got:?}"
    );
    let url = daemon.url("none");
    let got = lock_remote(
        &far(&url, None, &root),
        &online(&cache),
        &MemoryStore::new(),
    );
    assert!(matches!(got, Err(GitError::Unreachable(_))), "{got:?}");
}

#[test]
fn mirrors_of_a_remote_are_tried_in_order() {
    let fixture = Fixture::new();
    let commit = checkout(&fixture);
    let daemon = Daemon::new(fixture.root.path());
    let root = RelPath::root();
    let mirrors = [daemon.url("none"), daemon.url("repo")];
    let request = Remote {
        mirrors: &mirrors,
        ..far("git://127.0.0.1:1/repo", None, &root)
    };
    let got = lock_remote(
        &request,
        &online(&fixture.path("cache")),
        &MemoryStore::new(),
    )
    .unwrap();
    assert_eq!(got.commit, commit);
}

#[test]
fn submodules_of_a_remote_are_fetched() {
    let fixture = Fixture::new();
    with_submodules(&fixture);
    let daemon = Daemon::new(fixture.root.path());
    let root = RelPath::root();
    let url = daemon.url("repo");
    let request = Remote {
        submodules: true,
        ..far(&url, None, &root)
    };
    let store = MemoryStore::new();
    let got = lock_remote(&request, &online(&fixture.path("cache")), &store).unwrap();
    let near = Ask {
        submodules: true,
        ..Ask::of(&fixture.path("repo"))
    }
    .get(&MemoryStore::new());
    assert_eq!(got.tree, near.unwrap().tree);
}

#[test]
fn a_remote_cannot_name_a_submodule_of_this_machine() {
    let fixture = Fixture::new();
    with_submodules(&fixture);
    let url = format!("file://{}", fixture.path("lib").display());
    fixture.git(
        "repo",
        &["config", "-f", ".gitmodules", "submodule.lib.url", &url],
    );
    fixture.commit("repo");
    let daemon = Daemon::new(fixture.root.path());
    let root = RelPath::root();
    let url = daemon.url("repo");
    let request = Remote {
        submodules: true,
        ..far(&url, None, &root)
    };
    let got = lock_remote(
        &request,
        &online(&fixture.path("cache")),
        &MemoryStore::new(),
    );
    assert!(matches!(got, Err(GitError::Submodule { .. })), "{got:?}");
}

#[test]
fn urls_with_secrets_or_tricks_are_refused() {
    let root = RelPath::root();
    for url in [
        "https://user:hunter2@example.com/x",
        "https://hunter2@example.com/x",
        "ssh://user:hunter2@example.com/x",
        "ssh://-oProxyCommand=hunter2/x",
        "ext::sh -c hunter2",
        "ftp://example.com/x",
    ] {
        let got = lock_remote(
            &far(url, None, &root),
            &online(Path::new("/nonexistent")),
            &MemoryStore::new(),
        );
        let error = got.unwrap_err();
        assert!(matches!(error, GitError::Url { .. }), "{url}: {error:?}");
        assert!(!error.to_string().contains("user:hunter2"), "{error}");
    }
}

/// The smart HTTP protocol by `git http-backend`, a thread for each request.
fn serve_http(root: &Path) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let root = root.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, root) = (stream.unwrap(), root.clone());
            std::thread::spawn(move || answer(stream, &root));
        }
    });
    url
}

/// Answers one request as a web server with CGI would (RFC 3875).
fn answer(mut stream: std::net::TcpStream, root: &Path) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let mut words = line.split(' ');
    let method = words.next().unwrap().to_owned();
    let target = words.next().unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let mut body = Vec::new();
    if let Some(length) = headers.get("content-length") {
        let length = length.parse().unwrap();
        (&mut reader).take(length).read_to_end(&mut body).unwrap();
    } else if headers.contains_key("transfer-encoding") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let length = u64::from_str_radix(line.trim(), 16).unwrap();
            (&mut reader).take(length).read_to_end(&mut body).unwrap();
            reader.read_line(&mut line).unwrap();
            if length == 0 {
                break;
            }
        }
    }
    let header = |name: &str| headers.get(name).cloned().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    if let Some(status) = path.strip_prefix("/status/") {
        let status = status.split('/').next().unwrap();
        write!(
            stream,
            "HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        return;
    }
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&body).unwrap();
    let output = child.wait_with_output().unwrap().stdout;
    let end = output
        .windows(4)
        .position(|bytes| bytes == b"\r\n\r\n")
        .unwrap();
    let text = std::str::from_utf8(&output[..end]).unwrap();
    let status = text.lines().find_map(|line| line.strip_prefix("Status: "));
    let length = output.len() - end - 4;
    let status = status.unwrap_or("200 OK");
    write!(
        stream,
        "HTTP/1.1 {status}\r\n{text}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let _ = stream.write_all(&output[end + 4..]);
}

#[test]
fn a_remote_is_fetched_over_http() {
    let fixture = Fixture::new();
    fixture.write("repo/a", "first\n");
    let first = fixture.commit("repo");
    let commit = checkout(&fixture);
    fixture.git("repo", &["tag", "-a", "-m", "x", "v1"]);
    let server = serve_http(fixture.root.path());
    let url = format!("{server}/repo");
    let root = RelPath::root();
    let cache = fixture.path("cache");
    for rev in [None, Some("v1"), Some(&*commit)] {
        let store = MemoryStore::new();
        let locked = lock_remote(&far(&url, rev, &root), &online(&cache), &store).unwrap();
        assert_eq!(locked.commit, commit, "{rev:?}");
        assert_eq!(listing(&store, &locked.tree), CHECKOUT);
    }
    // Only what was asked for came.
    let history = Command::new("git")
        .args(["cat-file", "-e", &first])
        .env(
            "GIT_DIR",
            fs::read_dir(&cache)
                .unwrap()
                .find_map(|entry| {
                    let path = entry.unwrap().path();
                    path.is_dir().then_some(path)
                })
                .unwrap(),
        )
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(!history.success());
    // An older commit, which no branch or tag points at, comes when it is asked for.
    let store = MemoryStore::new();
    let older = lock_remote(&far(&url, Some(&first), &root), &online(&cache), &store).unwrap();
    assert_eq!(
        listing(&store, &older.tree),
        "/ d 0755\n/a f 0644 \"first\\n\"\n"
    );
}

#[test]
fn what_a_server_answers_is_told() {
    let fixture = Fixture::new();
    let server = serve_http(fixture.root.path());
    let root = RelPath::root();
    for (status, word) in [
        ("401", "401"),
        ("403", "403"),
        ("404", "404"),
        ("500", "500"),
    ] {
        let url = format!("{server}/status/{status}");
        let got = lock_remote(
            &far(&url, None, &root),
            &online(&fixture.path("cache")),
            &MemoryStore::new(),
        );
        let Err(GitError::Unreachable(attempts)) = got else {
            panic!("{status}: {got:?}");
        };
        assert_eq!(attempts.len(), 1);
        assert_eq!(attempts[0].0, url);
        assert!(attempts[0].1.contains(word), "{attempts:?}");
    }
}

#[test]
fn a_remote_is_fetched_over_ssh() {
    let fixture = Fixture::new();
    let commit = checkout(&fixture);
    // Stands for ssh: runs here what should run there, which is what follows the host.
    fixture.write(
        "ssh",
        "#!/bin/sh\nwhile [ \"$1\" != git@example.com ]; do shift; done; shift; exec sh -c \"$*\"\n",
    );
    fs::set_permissions(fixture.path("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
    let ssh = fixture.path("ssh").display().to_string();
    let root = RelPath::root();
    let path = fixture.path("repo").display().to_string();
    for (index, url) in [
        format!("ssh://git@example.com{path}"),
        format!("git@example.com:{path}"),
    ]
    .iter()
    .enumerate()
    {
        let request = Remote {
            ssh: Some(&ssh),
            ..far(url, None, &root)
        };
        let store = MemoryStore::new();
        let cache = fixture.path(&format!("cache{index}"));
        let locked = lock_remote(&request, &online(&cache), &store).unwrap();
        assert_eq!(locked.commit, commit);
        assert_eq!(listing(&store, &locked.tree), CHECKOUT);
    }
}

#[test]
fn two_at_once_fetch_into_one_cache() {
    let fixture = Fixture::new();
    checkout(&fixture);
    let daemon = Daemon::new(fixture.root.path());
    let url = daemon.url("repo");
    let cache = fixture.path("cache");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let root = RelPath::root();
                let store = MemoryStore::new();
                let got = lock_remote(&far(&url, None, &root), &online(&cache), &store).unwrap();
                assert_eq!(listing(&store, &got.tree), CHECKOUT);
            });
        }
    });
}

/// Gives a path with all below it to nobody in particular, which only root can; says whether it did.
fn give_away(path: &Path) -> bool {
    if std::os::unix::fs::lchown(path, Some(4711), Some(4711)).is_err() {
        return false;
    }
    if path.symlink_metadata().unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give_away(&entry.unwrap().path());
        }
    }
    true
}

#[test]
fn a_repository_of_another_owner_is_read() {
    let fixture = Fixture::new();
    checkout(&fixture);
    fixture.write("repo/new", "x");
    let path = fixture.path("repo");
    // As another user than root this is a repository like any other.
    give_away(&path);
    assert_eq!(
        Ask::of(&path).changes(),
        [("new".into(), ChangeKind::Untracked)]
    );
    fs::remove_file(path.join("new")).unwrap();
    assert_eq!(Ask::of(&path).listing(), CHECKOUT);
}

#[test]
fn urls_of_submodules_count_from_their_repository() {
    for (parent, url, expected) in [
        (
            "https://example.com/a/b",
            "../c",
            Some("https://example.com/a/c"),
        ),
        (
            "https://example.com/a/b/",
            "../../c",
            Some("https://example.com/c"),
        ),
        (
            "https://example.com/a/b",
            "./c",
            Some("https://example.com/a/b/c"),
        ),
        ("git@example.com:a/b", "../c", Some("git@example.com:a/c")),
        ("git@example.com:b", "../c", Some("git@example.com:c")),
        (
            "https://example.com/a",
            "https://other.example/x",
            Some("https://other.example/x"),
        ),
    ] {
        assert_eq!(
            remote::resolve(parent, url).as_deref(),
            expected,
            "{parent} {url}"
        );
    }
}
