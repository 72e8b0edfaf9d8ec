//! Steps that misbehave.

use std::fs;
use std::time::{Duration, Instant};

use golden_tests::lab::{Lab, shell_spec};
use golden_tests::machine::run;

const OUTPUT: [&str; 3] = ["build", "--output", "kind=oci-archive,file=image.tar"];

#[test]
fn a_failed_step_tells_its_status_its_last_words_and_what_to_type() {
    Lab::with_shell("{ shell = \"echo one; echo two >&2; exit 3\" },", "").run(&OUTPUT).refused_with(
        7,
        &[
            "error: step `image.3` failed\n  cause: `/bin/sh -eu -c echo one; echo two >&2; exit 3` exited with 3; it printed last\n    one\n    two\n",
            "hint: `immbuild shell image.3` opens a shell where it ended; the whole log is `immbuild cache log ",
        ],
    );
}

/// A script of many lines is shown by its first.
#[test]
fn a_failed_step_is_shown_where_it_is_written() {
    let lab = Lab::with_shell("{ shell = \"\"\"\nbusybox true\nexit 4\n\"\"\" },", "");
    lab.run(&OUTPUT).refused_with(
        7,
        &[" --> spec.toml:9:1\n  |\n9 | { shell = \"\"\"\n  | ^^^^^^^^^^^^^\n"],
    );
    let lab = Lab::with_shell("{ remove = \"/nowhere\" },", "");
    lab.run(&OUTPUT).refused(
        3,
        r#"
error: cannot do step `image.3`: remove /nowhere
  cause: there is nothing at `/nowhere` to remove
 --> spec.toml:9:1
  |
9 | { remove = "/nowhere" },
  | ^^^^^^^^^^^^^^^^^^^^^^^
"#,
    );
}

#[test]
fn a_step_that_prints_nothing_has_no_log_to_look_at() {
    Lab::with_shell("{ shell = \"kill -9 $$\" },", "")
        .run(&OUTPUT)
        .refused(
            7,
            r#"
error: step `image.3` failed
  cause: `/bin/sh -eu -c kill -9 $$` was killed by signal 9; it printed nothing
 --> spec.toml:9:1
  |
9 | { shell = "kill -9 $$" },
  | ^^^^^^^^^^^^^^^^^^^^^^^^
hint: `immbuild shell image.3` opens a shell where it ended
"#,
        );
}

#[test]
fn a_step_cannot_make_a_device() {
    Lab::with_shell(
        "{ run = [\"busybox\", \"mknod\", \"/null\", \"c\", \"1\", \"3\"] },",
        "",
    )
    .run(&OUTPUT)
    .refused_with(
        7,
        &[
            "`busybox mknod /null c 1 3` exited with 1",
            "mknod: /null: Operation not permitted",
        ],
    );
}

#[test]
fn a_step_that_ignores_sigterm_ends_with_its_timeout() {
    let lab = Lab::with_shell(
        "{ shell = \"trap : TERM INT HUP; while true; do busybox sleep 1; done\", timeout = \"2s\" },",
        "",
    );
    let start = Instant::now();
    lab.run(&OUTPUT).refused_with(
        7,
        &[
            "error: step `image.3` failed\n",
            "took longer than its `timeout` and was killed",
        ],
    );
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_step_that_forks_without_end_is_bounded_and_leaves_nothing() {
    let lab = Lab::with_shell(
        "{ shell = \"f() { f & f & }; f 2>/dev/null & exec busybox sleep 60\", timeout = \"5s\" },",
        "",
    );
    lab.run(&OUTPUT)
        .refused_with(7, &["took longer than its `timeout` and was killed"]);
    // Nothing of it runs on: its processes have no path of the lab, but their program.
    let left = run("ps", &["-e", "-o", "args"]).expect("ps lists processes");
    assert!(!left.contains("f() { f & f & }"), "{left}");
}

#[test]
fn what_a_step_leaves_running_is_killed() {
    let lab = Lab::with_shell(
        "{ shell = \"busybox sleep 86401 & echo $! > /pid; busybox setsid busybox sleep 86401 & :\" },",
        "",
    );
    lab.run(&OUTPUT).digest();
    let left = run("ps", &["-e", "-o", "args"]).expect("ps lists processes");
    assert!(!left.contains("sleep 86401"), "{left}");
    golden_tests::lab::nothing_left_running(&lab);
}

#[test]
fn a_program_that_is_not_there_is_named() {
    Lab::with_shell("{ run = [\"make\"] },", "")
        .run(&OUTPUT)
        .refused(
            7,
            r#"
error: step `image.3` failed
  cause: cannot execute `make`: No such file or directory (os error 2)
 --> spec.toml:9:1
  |
9 | { run = ["make"] },
  | ^^^^^^^^^^^^^^^^^^
hint: add what brings it to an earlier step or to `packages`: no directory of the step's `PATH` has it, or not what it starts with
"#,
        );
}

#[test]
fn an_interpreter_that_is_not_there_is_named() {
    const WRITTEN: &str = "{ write = \"/s\", mode = \"0755\", text = \"#!/usr/bin/python3 -s\\n\" },\n{ run = [\"/s\"] },";
    Lab::with_shell(WRITTEN, "").run(&OUTPUT).refused(
        7,
        r#"
error: step `image.4` failed
  cause: cannot execute `/s`: it needs `/usr/bin/python3`, which is not there
  --> spec.toml:10:1
   |
10 | { run = ["/s"] },
   | ^^^^^^^^^^^^^^^^
hint: for a script, add what brings its interpreter; a linker comes with the C library that the program was made for
"#,
    );
    // Where the process is traced, and may not be looked into before it is that program.
    let other = "as = \"65534\", tier = \"deterministic\" },";
    Lab::with_shell(
        &WRITTEN.replace("[\"/s\"] },", &format!("[\"/s\"], {other}")),
        "",
    )
    .run(&OUTPUT)
    .refused_with(7, &["it needs `/usr/bin/python3`, which is not there"]);
    // As an editor of another system leaves it.
    Lab::with_shell(
        &WRITTEN.replace("/usr/bin/python3 -s", "/bin/busybox\\r"),
        "",
    )
    .run(&OUTPUT)
    .refused(
        7,
        r#"
error: step `image.4` failed
  cause: cannot execute `/s`: it needs `/bin/busybox\r`, which is not there
  --> spec.toml:10:1
   |
10 | { run = ["/s"] },
   | ^^^^^^^^^^^^^^^^
hint: the script's lines end in CR LF, and CR is taken for a part of the name: keep it with LF alone
"#,
    );
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    Lab::with_shell("{ run = [\"busybox\"], in = \"/src\" },", "")
        .run(&OUTPUT)
        .refused(
            7,
            r#"
error: step `image.3` failed
  cause: cannot start in `/src`: No such file or directory (os error 2)
 --> spec.toml:9:1
  |
9 | { run = ["busybox"], in = "/src" },
  | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
hint: `in` must name a directory that is there: make it with `mkdir` or `copy` before
"#,
        );
}

#[test]
fn a_user_that_the_root_does_not_know_is_named() {
    Lab::with_shell("{ run = [\"busybox\"], as = \"shop\" },", "")
        .run(&OUTPUT)
        .refused(
            3,
            r#"
error: step `image.3` failed
  cause: there is no user `shop` in `/etc/passwd`
 --> spec.toml:9:1
  |
9 | { run = ["busybox"], as = "shop" },
  | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
hint: a name in `as` must be in the root's /etc/passwd; numbers always work
"#,
        );
}

#[test]
fn a_host_that_a_step_wants_can_be_declared() {
    Lab::with_shell(
        "{ run = [\"busybox\", \"wget\", \"https://example.com/x.tar.gz\"] },",
        "",
    )
    .run(&OUTPUT)
    .refused_with(
        7,
        &["hint: a step has no network: declare what it wants, `source.NAME.http = "],
    );
}

#[test]
fn a_secret_that_no_step_asks_for_is_told() {
    let lab = Lab::with_shell(
        "{ run = [\"busybox\", \"true\"], secrets = [\"token\"] },",
        "",
    );
    lab.write("value", "hush");
    let secrets = [
        "--secret",
        "token=file:value",
        "--secret",
        "tokn=file:value",
    ];
    let ended = lab.run(&[&["build"][..], &secrets].concat());
    assert!(ended.status().success(), "{}", ended.said());
    let said = ended.said();
    assert!(
        said.contains("warning: no step asks for the secret `tokn`\nhint: a step does so with `secrets = [\"tokn\"]`\n"),
        "{said}"
    );
    assert!(!said.contains("secret `token`"), "{said}");
}

#[test]
fn a_secret_that_was_not_given_is_asked_for() {
    let lab = Lab::with_shell("{ run = [\"busybox\"], secrets = [\"token\"] },", "");
    lab.run(&OUTPUT).refused(
        2,
        r#"
error: step `image.3` needs the secret `token`
 --> spec.toml:9:1
  |
9 | { run = ["busybox"], secrets = ["token"] },
  | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
hint: add `--secret token=env:VARIABLE` or `--secret token=file:PATH`
"#,
    );
    lab.run(&["build", "--secret", "token=env:TOKEN"]).refused(
        2,
        "error: secret `token` is to come from `TOKEN`, which is not set",
    );
    lab.run(&["build", "--secret", "token=file:none"]).refused(
        5,
        r"
error: cannot read secret `token` from `none`
  cause: No such file or directory (os error 2)
",
    );
    lab.run(&["build", "--secret", "token"]).refused(
        2,
        r"
error: `--secret token` names no secret
hint: write it as `--secret name=env:VARIABLE` or `--secret name=file:PATH`
",
    );
}

#[test]
fn a_secret_in_a_file_that_a_step_leaves_is_an_error() {
    let lab = Lab::with_shell(
        "{ shell = \"(busybox head -c 300000 /dev/zero; busybox tr a-z A-Z < /run/secrets/token; busybox printf %s $(busybox cat /run/secrets/token)) > /log\", secrets = [\"token\"] },",
        "",
    );
    fs::write(lab.beside("token"), "swordfish-12345\n").expect("it can be written");
    let secret = format!("token=file:{}", lab.beside("token").display());
    lab.run(&[&OUTPUT[..], &["--secret", &secret]].concat())
        .refused(
            7,
            r#"
error: step `image.3` failed
  cause: the file `/log` it left holds the secret `token`
 --> spec.toml:9:1
  |
9 | { shell = "(busybox head -c 300000 /dev/zero; busybox tr a-z A-Z < /run/secrets/token; busybox printf %s $(busybox cat /run/secrets/token)) > /log", secrets = ["token"] },
  | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
hint: use the secret where it is, in `/run/secrets`, or remove the file in the same step
"#,
        );
}

#[test]
fn a_secret_that_a_step_prints_is_neither_shown_nor_kept() {
    let lab = Lab::with_shell(
        "{ shell = \"busybox cat /run/secrets/token; exit 1\", secrets = [\"token\"] },",
        "",
    );
    fs::write(lab.beside("token"), "swordfish-12345\n").expect("it can be written");
    let secret = format!("token=file:{}", lab.beside("token").display());
    let arguments = [&OUTPUT[..], &["--secret", &secret]].concat();
    lab.run(&arguments)
        .refused_with(7, &["it printed last\n    ***\n"]);
    let ended = lab.start(&arguments).wait();
    assert!(!ended.said().contains("swordfish"), "{}", ended.said());
    for entry in walkdir::WalkDir::new(&lab.store) {
        let entry = entry.expect("it can be read");
        let name = entry.path().display().to_string();
        if entry.file_type().is_file() {
            let bytes = fs::read(entry.path()).expect("it can be read");
            let found = bytes.windows(9).any(|part| part == b"swordfish");
            assert!(!found, "the secret is in {name}");
        }
    }
}

/// After an error is mended, the build gives what it would have given without it.
#[test]
fn a_failed_build_leaves_nothing_that_the_next_one_could_see() {
    let good = "{ shell = \"echo a > /a\" },\n  { shell = \"cat /a > /b\" },";
    let good = good.replace("cat", "busybox cat");
    let wanted = Lab::with_shell(&good, "").run(&OUTPUT).digest();
    let lab = Lab::with_shell(&good.replace("> /b", "> /b; echo x > /c; exit 1"), "");
    lab.run(&OUTPUT).refused_with(7, &["exited with 1"]);
    lab.write("spec.toml", shell_spec(&good, ""));
    assert_eq!(lab.run(&OUTPUT).digest(), wanted);
}
