//! The lock: missing, outdated, damaged, or with an expectation that is not met.

use golden_tests::lab::Lab;

/// A lab with one pinned source.
fn lab() -> Lab {
    let lab = Lab::new("");
    let here = lab.project();
    lab.write(
        "spec.toml",
        format!(
            r#"
immbuild = 1
source.data.http = "file://{}/data"

[image]
steps = [
  {{ copy = "data", to = "/data" }},
]
"#,
            here.display()
        ),
    );
    lab.write("data", "one\n");
    lab
}

fn locked() -> Lab {
    let lab = lab();
    assert!(lab.run(&["lock"]).status().success());
    lab
}

/// Changes a text in a file of the project.
fn edit(lab: &Lab, name: &str, from: &str, to: &str) {
    let text = String::from_utf8(lab.read(name)).expect("it is text");
    assert!(text.contains(from), "there is no {from:?} in {text}");
    lab.write(name, text.replace(from, to));
}

#[test]
fn a_lock_is_needed_under_locked() {
    lab().run(&["build", "--locked"]).refused(
        4,
        r"
error: there is no lock `spec.lock`
  cause: `--locked`, `explain`, `graph` and `shell` go by the lock and never make one
hint: run `immbuild lock` and commit the file
",
    );
}

#[test]
fn an_outdated_lock_says_what_was_added_and_removed() {
    let lab = locked();
    edit(&lab, "spec.toml", "source.data.", "source.more.");
    edit(&lab, "spec.toml", "copy = \"data\"", "copy = \"more\"");
    lab.run(&["build"]).refused(
        4,
        r"
error: `spec.lock` is outdated
  cause: `more` is not locked; `data` is no longer used
hint: run `immbuild lock`, which adds and drops pins and moves none
",
    );
}

#[test]
fn a_source_that_asks_for_something_else_makes_the_lock_outdated() {
    let lab = locked();
    edit(&lab, "spec.toml", "/data\"\n\n", "/data2\"\n\n");
    for arguments in [&["build"][..], &["build", "--locked"], &["lock", "--check"]] {
        lab.run(arguments).refused(
            4,
            r"
error: `spec.lock` is outdated
  cause: `data` asks for something else now
hint: run `immbuild lock`, which adds and drops pins and moves none
",
        );
    }
}

#[test]
fn a_damaged_lock_is_an_error() {
    let lab = locked();
    edit(&lab, "spec.lock", "size = ", "size ");
    lab.run(&["build"]).refused_with(
        4,
        &[
            "error: this is not TOML\n",
            " --> spec.lock:",
            "hint: take the file back from version control",
        ],
    );
}

#[test]
fn a_lock_that_is_no_text_is_an_error() {
    let lab = locked();
    lab.write("spec.lock", b"# \xff\n");
    lab.run(&["build"]).refused(
        4,
        r"
error: `spec.lock` is not UTF-8 text
  cause: byte 2 starts no character
hint: take the file back from version control, or remove it and run `immbuild lock`, which finds everything anew
",
    );
}

#[test]
fn a_lock_with_conflict_markers_is_an_error() {
    let lab = locked();
    edit(
        &lab,
        "spec.lock",
        "[source.data]",
        "<<<<<<< HEAD\n[source.data]",
    );
    lab.run(&["build"]).refused(
        4,
        r"
error: the lock holds merge conflict markers
 --> spec.lock:5:1
  |
5 | <<<<<<< HEAD
  | ^^^^^^^^^^^^
hint: keep either side, then run `immbuild lock`
",
    );
}

#[test]
fn expected_needs_an_expectation() {
    let lab = locked();
    lab.run(&[
        "build",
        "--expected",
        "--output",
        "kind=oci-archive,file=image.tar",
    ])
    .refused(
        4,
        r"
error: the lock expects nothing
  cause: there is no `[[expect]]` in `spec.lock`
hint: run `immbuild build --record` to write what this build gives
",
    );
}

#[test]
fn expected_needs_an_expectation_of_this_very_image() {
    let lab = locked();
    lab.run(&["build", "--record"]).digest();
    lab.run(&["build", "--expected"]).digest();
    edit(&lab, "spec.toml", "to = \"/data\"", "to = \"/other\"");
    // Without the flag it is a note, not an error.
    lab.run(&["build"]).digest();
    lab.run(&[
        "build",
        "--expected",
        "--output",
        "kind=oci-archive,file=image.tar",
    ])
    .refused(
        4,
        r"
error: no expectation applies
  cause: the lock's `[[expect]]` is about another image: `image.1` is not as it was
hint: run `immbuild build --record` when the change is meant
",
    );
}

#[test]
fn other_bytes_than_expected_are_not_written() {
    let lab = locked();
    let built = lab.run(&["build", "--record"]).digest();
    let other = format!("sha256:{}", "0".repeat(64));
    edit(&lab, "spec.lock", &built, &other);
    lab.run(&["build", "--output", "kind=oci-archive,file=image.tar"]).refused(
        12,
        &format!(
            r"
error: linux/amd64 is not what `[[expect]]` says
  cause: expected {other}, built {built}; the trees are equal: the difference is in how they were written
hint: nothing was written; `immbuild compare` shows where two images begin to differ, `immbuild build --record` takes the new bytes
"
        ),
    );
}
