//! What a build reads and cannot take.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use golden_tests::lab::{Lab, NOBODY, need_root};
use golden_tests::machine::run;
use golden_tests::roots::layout_of_tar;

const FILE: &str = r#"
immbuild = 1
source.data.path = "data"

[image]
steps = [
  { copy = "data", to = "/data" },
]
"#;

#[test]
fn a_missing_source_is_pointed_at() {
    Lab::new(FILE).run(&["build"]).refused(
        5,
        r#"
error: cannot use source `data`
  cause: cannot find `DIR/project/data`: No such file or directory (os error 2)
 --> spec.toml:3:20
  |
3 | source.data.path = "data"
  |                    ^^^^^^
hint: a path begins at the directory of the spec
"#,
    );
}

#[test]
fn an_include_that_picks_nothing_is_told() {
    const TOLD: &str = "warning: `include` of source `data` picks nothing that is left";
    let lab = Lab::new(&FILE.replace(
        "\"data\"\n",
        "\"data\"\nsource.data.include = [\"*.confg\"]\n",
    ));
    fs::create_dir(lab.file("data")).expect("it can be made");
    lab.write("data/a.conf", "a");
    let ended = lab.run(&["build"]);
    ended.digest();
    assert!(ended.said().contains(TOLD), "{}", ended.said());
    symlink("a.conf", lab.file("data/a.confg")).expect("it can be made");
    let ended = lab.run(&["build"]);
    ended.digest();
    assert!(!ended.said().contains(TOLD), "{}", ended.said());
}

#[test]
fn a_source_may_lie_outside_the_directory_of_the_spec() {
    let lab = Lab::new(&FILE.replace("\"data\"\n", "\"../data\"\n"));
    fs::write(lab.beside("data"), "outside").expect("it can be written");
    let inside = Lab::new(FILE);
    inside.write("data", "outside");
    assert_eq!(
        lab.run(&["build"]).digest(),
        inside.run(&["build"]).digest()
    );
}

#[test]
fn a_link_in_a_source_stays_a_link_wherever_it_leads() {
    let lab = Lab::new(FILE);
    fs::create_dir(lab.file("data")).expect("it can be made");
    symlink("../../../../etc/passwd", lab.file("data/out")).expect("it can be made");
    let ended = lab.run(&["build", "--output", "kind=dir,dir=root"]);
    ended.digest();
    assert_eq!(
        fs::read_link(lab.file("root/data/out")).expect("it is a link"),
        Path::new("../../../../etc/passwd")
    );
}

#[test]
fn a_socket_is_no_part_of_an_image() {
    let lab = Lab::new(FILE);
    fs::create_dir(lab.file("data")).expect("it can be made");
    let _socket = UnixListener::bind(lab.file("data/socket")).expect("it can be made");
    lab.run(&["build"]).refused(
        3,
        r#"
error: cannot use source `data`
  cause: `DIR/project/data/socket` is a socket, which cannot be part of an image
 --> spec.toml:3:20
  |
3 | source.data.path = "data"
  |                    ^^^^^^
hint: leave it out: `exclude = ["…"]`, or a line in `.immignore`
"#,
    );
}

#[test]
fn a_file_that_may_not_be_read_is_named() {
    let lab = Lab::new(FILE);
    lab.write("data/public", "a");
    lab.write("data/secret", "b");
    fs::set_permissions(lab.file("data/secret"), fs::Permissions::from_mode(0o600))
        .expect("it is ours");
    lab.open_to_all();
    lab.run_as_nobody(&["build"]).refused(
        9,
        r#"
error: cannot use source `data`
  cause: cannot open `DIR/project/data/secret`: Permission denied (os error 13)
 --> spec.toml:3:20
  |
3 | source.data.path = "data"
  |                    ^^^^^^
hint: check who owns it and its mode
"#,
    );
}

/// A build that prints `now` in its first step while nothing of `data` but its digest is known. Then `data` changes.
fn changed_meanwhile(lab: &Lab, before: &[u8], behind: &[u8]) -> std::process::Output {
    lab.write("data", before);
    let mut running = lab.start(&["build", "--output", "kind=oci-archive,file=image.tar"]);
    running.wait_for("now");
    lab.write("data", behind);
    running.wait().output
}

fn slow_lab() -> Lab {
    Lab::with_shell(
        "{ shell = \"echo now; busybox sleep 1\" },\n  { copy = \"data\", to = \"/data\" },",
        "source.data.path = \"data\"",
    )
}

#[test]
fn a_file_that_changes_while_it_is_used_is_an_error() {
    need_root();
    let lab = slow_lab();
    let output = changed_meanwhile(&lab, &vec![b'a'; 1 << 20], &vec![b'b'; 1 << 20]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{said}");
    let data = lab.file("data").display().to_string();
    assert!(
        said.contains(&format!("`{data}` changed while it was being read")),
        "{said}"
    );
    assert!(
        said.contains("hint: build again when nothing writes to it"),
        "{said}"
    );
    assert!(
        !lab.file("image.tar").exists(),
        "no output of mixed content"
    );
    lab.run(&["build"]).digest();
}

/// What is small is kept as it was when it was hashed, so the image is the one that was asked for.
#[test]
fn a_small_file_that_changes_while_it_is_used_is_used_as_it_was() {
    need_root();
    let lab = slow_lab();
    let output = changed_meanwhile(&lab, b"before", b"behind");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    lab.write("data", "before");
    let digest = lab.run(&["build"]).digest();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), digest);
}

#[test]
fn an_output_inside_a_source_would_feed_the_next_build() {
    let lab = Lab::new(FILE);
    lab.write("data/a", "a");
    lab.run(&["build", "--output", "kind=oci-archive,file=data/out/image.tar"])
        .refused(
            2,
            r#"
error: cannot write `data/out/image.tar`
  cause: it lies in source `data`, so the next build would take it in
 --> spec.toml:3:20
  |
3 | source.data.path = "data"
  |                    ^^^^^^
hint: write it elsewhere, leave it out with `exclude`, or declare it as an `[[output]]`: those are never part of a source
"#,
        );
}

#[test]
fn an_output_that_the_source_leaves_out_is_none_of_it() {
    let lab = Lab::new(&FILE.replace(
        "source.data.path = \"data\"",
        "source.data = { path = \"data\", exclude = [\"/out\"] }",
    ));
    lab.write("data/a", "a");
    let output = [
        "build",
        "--output",
        "kind=oci-archive,file=data/out/image.tar",
    ];
    assert_eq!(lab.run(&output).digest(), lab.run(&output).digest());
}

const HTTP: &str = r#"
immbuild = 1
source.data.http = "file://HERE/data"

[image]
steps = [
  { copy = "data", to = "/data" },
]
"#;

/// A lab with a file that is fetched by URL, locked.
fn locked_file() -> Lab {
    let lab = Lab::new("");
    lab.write(
        "spec.toml",
        HTTP.replace("HERE", &lab.project().display().to_string()),
    );
    lab.write("data", "one\n");
    assert!(lab.run(&["lock"]).status().success());
    lab
}

#[test]
fn a_download_that_is_not_what_was_locked_is_an_error() {
    let mut lab = locked_file();
    // The file is in the store now, and is not asked for again.
    lab.write("data", "two\n");
    lab.run(&["build"]).digest();
    lab.store = lab.beside("other-store");
    lab.run(&["build"]).refused_with(
        6,
        &[
            "error: cannot use source `data`\n",
            "sha256:2c8b08da5ce60398e1f19af0e5dccc744df274b826abe585eaba68c525434806",
            "sha256:27dd8ed44a83ff94d557f9fd0412ed5a8cbca69ea04922d88c01184a07300a5a",
            " --> spec.toml:3:20\n",
            "hint: if the file was meant to change, say its new digest where the spec has `sha256`, and `immbuild update` moves the pin; else somebody changed it",
        ],
    );
    assert!(lab.run(&["update"]).status().success());
    lab.run(&["build"]).digest();
}

#[test]
fn an_archive_that_reaches_outside_is_refused() {
    let lab = Lab::new("");
    lab.write(
        "spec.toml",
        HTTP.replace("HERE", &lab.project().display().to_string())
            .replace(
                "source.data.http =",
                "source.data.unpack = true\nsource.data.http =",
            ),
    );
    fs::write(lab.beside("evil"), "x").expect("it can be written");
    run(
        "tar",
        &[
            "--absolute-names",
            "--create",
            "--file",
            &lab.file("data").display().to_string(),
            "--directory",
            &lab.project().display().to_string(),
            "../evil",
        ],
    )
    .expect("tar makes it");
    assert!(lab.run(&["lock"]).status().success());
    lab.run(&["build"]).refused_with(
        6,
        &[
            "error: cannot use source `data`\n  cause: `../evil` in the archive is refused: it has `..` in its path\n",
            " --> spec.toml:4:20\n",
        ],
    );
}

/// A base image of one layer in `base`, and a spec on it, locked.
fn on_a_base() -> Lab {
    let lab = Lab::new(
        r#"
immbuild = 1
source.base.image = "./base"

[image]
from = "base"
"#,
    );
    let tar = lab.beside("base.tar");
    fs::create_dir_all(lab.beside("root/etc")).expect("it can be made");
    fs::write(lab.beside("root/etc/name"), "base\n").expect("it can be written");
    let names = [&tar, &lab.beside("root")].map(|path| path.display().to_string());
    run(
        "tar",
        &[
            "--create",
            "--file",
            &names[0],
            "--directory",
            &names[1],
            ".",
        ],
    )
    .expect("tar makes it");
    layout_of_tar(&tar, &lab.file("base"), "base").expect("a layout can be written");
    assert!(lab.run(&["lock"]).status().success());
    lab
}

/// The blobs of the base, the largest first: layer, config, manifest.
fn blobs(lab: &Lab) -> Vec<PathBuf> {
    let mut blobs: Vec<PathBuf> = walkdir::WalkDir::new(lab.file("base/blobs/sha256"))
        .min_depth(1)
        .into_iter()
        .map(|entry| entry.expect("it can be read").into_path())
        .collect();
    blobs.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).expect("it is there").len()));
    blobs
}

#[test]
fn a_base_image_with_a_changed_byte_is_an_error() {
    // The layer, the config, the manifest.
    for at in 0..3 {
        let mut lab = on_a_base();
        // Nothing of it may be in the store already.
        lab.store = lab.beside("other-store");
        let blob = &blobs(&lab)[at];
        let mut bytes = fs::read(blob).expect("it can be read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(blob, bytes).expect("it can be written");
        let digest = blob.file_name().expect("it has a name").to_string_lossy();
        let ended = lab.run(&["build", "--output", "kind=oci-archive,file=image.tar"]);
        ended.refused_with(
            6,
            &[
                "error: cannot use source `base`\n",
                &digest,
                " --> spec.toml:3:21\n",
            ],
        );
    }
}

#[test]
fn a_base_image_without_a_layer_is_an_error() {
    let mut lab = on_a_base();
    lab.store = lab.beside("other-store");
    let layer = &blobs(&lab)[0];
    fs::remove_file(layer).expect("it is there");
    lab.run(&["build"]).refused_with(
        5,
        &[
            "error: cannot use source `base`\n  cause: base layer sha256:",
            " is missing",
            " --> spec.toml:3:21\n",
        ],
    );
}

#[test]
fn a_base_image_without_the_platform_is_an_error() {
    let lab = on_a_base();
    let spec = String::from_utf8(lab.read("spec.toml")).expect("it is text");
    lab.write("spec.toml", spec + "platforms = [\"linux/arm64\"]\n");
    lab.run(&["lock"]).refused(
        5,
        r#"
error: cannot use source `base`
  cause: the image in `DIR/project/./base` is not for linux/arm64; it is for `linux/amd64`
 --> spec.toml:3:21
  |
3 | source.base.image = "./base"
  |                     ^^^^^^^^
"#,
    );
}

#[test]
fn uncommitted_changes_of_a_repository_are_an_error() {
    let lab = Lab::new(
        r#"
immbuild = 1
source.src.git = "."

[image]
steps = [
  { copy = "src", to = "/src" },
]
"#,
    );
    lab.write("a", "committed\n");
    let project = lab.project().display().to_string();
    let git = |arguments: &[&str]| {
        let mut all = vec!["-C", &project, "-c", "user.name=n", "-c", "user.email=e"];
        all.extend(arguments);
        run("git", &all).expect("git does it");
    };
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message", "m"]);
    let clean = lab.run(&["build"]).digest();
    lab.write("a", "changed\n");
    lab.run(&["build"]).refused_with(
        4,
        &[
            "error: cannot use source `src`\n",
            "a",
            "hint: commit them, or take them as they are with `--dirty`",
        ],
    );
    assert_ne!(lab.run(&["build", "--dirty"]).digest(), clean);
}

#[test]
fn names_that_differ_only_by_case_cannot_be_a_directory() {
    let lab = Lab::new(FILE);
    lab.write("data/readme", "a");
    lab.write("data/README", "b");
    lab.run(&["build", "--output", "kind=dir,dir=root"])
        .refused(
            9,
            r"
error: cannot write the tree to `DIR/project/root`
  cause: `/data/README` and `/data/readme` differ only by case
hint: write an archive instead: in a tar both have their place
",
        );
    lab.run(&["build", "--output", "kind=oci-archive,file=image.tar"])
        .digest();
}

/// An image has the one time of its epoch, whatever times its sources have: none is too old or too new to be read.
#[test]
fn times_of_files_do_not_matter_however_odd_they_are() {
    let lab = Lab::new(FILE);
    lab.write("data/a", "a");
    let plain = lab.run(&["build"]).digest();
    // 1901, before and at 1970, after 2038, after 2106.
    for seconds in [-2_147_483_648, -1, 0, 4_102_444_800, 9_999_999_999_i64] {
        let time = rustix::fs::Timespec {
            tv_sec: seconds,
            tv_nsec: 999_999_999,
        };
        let times = rustix::fs::Timestamps {
            last_access: time,
            last_modification: time,
        };
        let flags = rustix::fs::AtFlags::empty();
        for name in ["data/a", "data"] {
            rustix::fs::utimensat(rustix::fs::CWD, lab.file(name), &times, flags)
                .expect("it is ours");
        }
        assert_eq!(lab.run(&["build"]).digest(), plain, "{seconds}");
        lab.run(&["build", "--output", "kind=dir,dir=root"])
            .digest();
    }
}

#[test]
fn a_store_of_somebody_else_is_refused() {
    need_root();
    let lab = Lab::new(FILE);
    lab.write("data", "a");
    lab.open_to_all();
    lab.run(&["build"]).digest();
    lab.run_as_nobody(&["build"]).refused(
        9,
        &format!(
            r"
error: the store `DIR/store` belongs to user 0, not to user {NOBODY}
hint: a store belongs to one user: name another with `--store DIR`
"
        ),
    );
}
