//! A machine that refuses: full disks, things in the way, no namespaces, file systems that cannot do what is needed.

use std::fs;
use std::path::Path;
use std::process::Command;

use golden_tests::lab::{Lab, immbuild, need_root, shell_spec};
use golden_tests::machine::{FileSystem, Mounted, run};

const FILE: &str = r#"
immbuild = 1
source.data.path = "data"

[image]
compression = "none"
steps = [
  { copy = "data", to = "/data" },
]
"#;

const OUTPUT: [&str; 3] = ["build", "--output", "kind=oci-archive,file=image.tar"];

/// A small file system that goes when this is dropped.
struct Small(tempfile::TempDir);

impl Small {
    fn new(kind: &str, options: &str) -> Self {
        need_root();
        let directory = tempfile::Builder::new()
            .prefix("small-")
            .tempdir()
            .expect("it can be made");
        let path = directory.path().display().to_string();
        run("mount", &["-t", kind, "-o", options, kind, &path]).expect("root may mount");
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Nothing is left to tell anybody.
        let _ = run("umount", &["--lazy", &self.0.path().display().to_string()]);
    }
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 7_u64;
    std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33).to_le_bytes()
    })
    .flat_map(|bytes| bytes.into_iter().take(3))
    .take(length)
    .collect()
}

#[test]
fn a_step_that_fills_the_disk_fails() {
    let small = Small::new("tmpfs", "size=16M");
    let lab = Lab::with_shell_below(
        small.path(),
        "{ run = [\"busybox\", \"dd\", \"if=/dev/zero\", \"of=/big\", \"bs=1M\", \"count=64\"] },",
        "",
    );
    lab.run(&OUTPUT).refused_with(
        7,
        &["error: step `image.3` failed\n", "No space left on device"],
    );
    lab.write("spec.toml", shell_spec("{ shell = \"echo a > /a\" },", ""));
    lab.run(&["build"]).digest();
}

#[test]
fn a_full_disk_while_storing_is_an_error_and_no_output() {
    let mut lab = Lab::new(FILE);
    lab.write("data", noise(12 << 20));
    let small = Small::new("tmpfs", "size=8M");
    lab.store = small.path().join("store");
    lab.run(&OUTPUT).refused_with(
        9,
        &[
            "No space left on device",
            "hint: make room and run the same command again; `immbuild cache gc` drops what no recent build needs",
        ],
    );
    // With room in the same store it goes on.
    run(
        "mount",
        &[
            "-o",
            "remount,size=64M",
            &small.path().display().to_string(),
        ],
    )
    .expect("root may");
    let digest = lab.run(&OUTPUT).digest();
    lab.store = lab.beside("store");
    assert_eq!(lab.run(&OUTPUT).digest(), digest);
}

#[test]
fn a_full_disk_while_writing_the_output_leaves_the_old_output() {
    let small = Small::new("tmpfs", "size=6M");
    let mut lab = Lab::below(small.path(), FILE);
    let store = tempfile::tempdir().expect("it can be made");
    lab.store = store.path().join("store");
    lab.write("data", "old");
    for output in [
        "kind=oci-archive,file=image.tar",
        "kind=docker-archive,file=docker.tar",
        "kind=oci-layout,dir=layout",
        "kind=dir,dir=root",
    ] {
        lab.run(&["build", "--output", output]).digest();
    }
    lab.write("data", noise(4 << 20));
    for output in [
        "kind=oci-archive,file=image.tar",
        "kind=docker-archive,file=docker.tar",
        "kind=oci-layout,dir=layout",
        "kind=dir,dir=root",
    ] {
        lab.run(&["build", "--output", output]).refused_with(
            9,
            &[
                "No space left on device",
                "hint: make room and run the same command again",
            ],
        );
    }
}

#[test]
fn something_in_the_way_of_an_output_stays() {
    let lab = Lab::new(FILE);
    lab.write("data", "a");
    lab.write("taken/by", "somebody");
    lab.write("file", "of somebody");
    let refused = |output: &str, message: &str| {
        lab.run(&["build", "--output", output]).refused(9, message);
    };
    let hint = "hint: name another place, or move away what is there";
    for kind in ["oci-archive", "docker-archive"] {
        refused(
            &format!("kind={kind},file=taken"),
            &format!(
                "error: cannot write `taken`\n  cause: there is a directory of that name\n{hint}"
            ),
        );
    }
    for kind in ["oci-layout", "dir"] {
        refused(
            &format!("kind={kind},dir=file"),
            &format!("error: cannot write `file`\n  cause: there is a file of that name\n{hint}"),
        );
    }
    refused(
        "kind=dir,dir=taken",
        &format!(
            "error: something that was not written by the last build is in the way at `DIR/project/taken`\n{hint}"
        ),
    );
    refused(
        "kind=oci-layout,dir=taken",
        &format!(
            "error: something that is no layout of a single image is in the way at `DIR/project/taken`\n{hint}"
        ),
    );
}

#[test]
fn a_place_that_may_not_be_written_to_is_named() {
    let lab = Lab::new(FILE);
    lab.write("data", "a");
    lab.write("theirs/a", "a");
    lab.open_to_all();
    lab.run_as_nobody(&[
        "build",
        "--output",
        "kind=oci-archive,file=theirs/image.tar",
    ])
    .refused_with(
        9,
        &[
            "DIR/project/theirs/image.tar",
            "Permission denied",
            "hint: check who owns it and its mode",
        ],
    );
}

#[test]
fn a_store_that_cannot_be_written_to_is_named() {
    let small = Small::new("tmpfs", "ro");
    let mut lab = Lab::new(FILE);
    lab.write("data", "a");
    lab.store = small.path().join("store");
    lab.run(&["build"]).refused_with(
        9,
        &[
            "Read-only file system",
            "hint: name a place that can be written to",
        ],
    );
}

/// `immbuild build` in the lab, as the last words of this shell script.
fn after(lab: &Lab, namespaces: &[&str], script: &str) -> Command {
    last(lab, namespaces, script, &["build", "--quiet"])
}

/// `immbuild` with these words and the lab's store, as the last words of this shell script.
fn last(lab: &Lab, namespaces: &[&str], script: &str, words: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(namespaces)
        .args(["sh", "-ec", &format!("{script}\nexec \"$@\""), "sh"]);
    command
        .arg(immbuild())
        .args(words)
        .arg("--store")
        .arg(&lab.store);
    command.current_dir(lab.project()).env_clear();
    command
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", lab.beside("home"));
    command
}

const STEP: &str = "{ shell = \"echo a > /a\" },";

#[test]
fn without_user_namespaces_no_step_runs() {
    need_root();
    let lab = Lab::with_shell(STEP, "");
    let mut command = after(
        &lab,
        &["--user", "--map-root-user", "--mount"],
        "echo 0 > /proc/sys/user/max_user_namespaces",
    );
    lab.end(&mut command).refused_with(
        8,
        &[
            "cannot make the namespaces of the sandbox",
            "hint: ",
            "max_user_namespaces",
        ],
    );
    // What executes nothing needs none.
    lab.write("data", "a");
    lab.write("spec.toml", FILE);
    let mut command = after(
        &lab,
        &["--user", "--map-root-user", "--mount"],
        "echo 0 > /proc/sys/user/max_user_namespaces",
    );
    lab.end(&mut command).digest();
}

/// An overlay cannot have its upper directory on another overlay: the same refusal as of a kernel without overlayfs.
#[test]
fn where_no_overlay_can_be_no_step_runs() {
    need_root();
    let mut lab = Lab::with_shell(STEP, "");
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(lab.beside(name)).expect("it can be made");
    }
    let options = ["lower", "upper", "work"]
        .map(|name| format!("{name}dir={}", lab.beside(name).display()))
        .join(",");
    let merged = lab.beside("merged").display().to_string();
    lab.store = lab.beside("merged").join("store");
    let script = format!("mount -t overlay -o '{options}' overlay '{merged}'");
    lab.end(&mut after(&lab, &["--mount"], &script))
        .refused_with(
            8,
            &["cannot mount the overlay of the root directory", "hint: "],
        );
}

/// There an overlay could be mounted, but a step that replaces a directory would fail with an I/O error.
#[test]
fn where_an_overlay_cannot_keep_its_marks_no_step_runs() {
    let memory = Small::new("ramfs", "mode=0755");
    let mut lab = Lab::with_shell(STEP, "");
    lab.store = memory.path().join("store");
    lab.run(&OUTPUT).refused(
        8,
        r#"
error: step `image.3` failed
  cause: cannot mount the overlay of the root directory: Operation not supported (os error 95)
 --> spec.toml:9:1
  |
9 | { shell = "echo a > /a" },
  | ^^^^^^^^^^^^^^^^^^^^^^^^^
hint: keep the store on a local file system with extended attributes (ext4, xfs, btrfs, tmpfs); overlay in user namespaces needs Linux 5.11
"#,
    );
    // What executes nothing needs no overlay.
    lab.write("data", "a");
    lab.write("spec.toml", FILE);
    lab.run(&OUTPUT).digest();
}

/// Whether a file was changed since a step began is told by its time.
#[test]
fn where_times_are_whole_seconds_no_step_runs_whose_times_are_virtual() {
    let scratch = tempfile::tempdir().unwrap();
    let disk = Mounted::new(FileSystem::WholeSeconds, 1, scratch.path(), "seconds").unwrap();
    let mut lab = Lab::with_shell(STEP, "");
    lab.store = disk.path().join("store");
    lab.run(&OUTPUT).digest();
    lab.write(
        "spec.toml",
        shell_spec(STEP, "").replace("\"isolated\"", "\"deterministic\""),
    );
    lab.run(&OUTPUT).refused_with(
        8,
        &[
            "keeps times in whole seconds",
            "ext4 has them where its inodes have 256 bytes",
        ],
    );
}

#[test]
fn a_user_without_a_range_cannot_have_files_of_others() {
    need_root();
    let lab = Lab::with_shell(
        "{ write = \"/a\", text = \"a\", owner = \"7\" },\n  { shell = \"echo a > /b\" },",
        "",
    );
    lab.open_to_all();
    lab.run_as_nobody(&OUTPUT).refused_with(
        8,
        &["hint: give the user a range of ids: `sudo usermod --add-subuids "],
    );
    let other = Lab::with_shell("{ run = [\"busybox\", \"true\"], as = \"7\" },", "");
    other.open_to_all();
    other
        .run_as_nobody(&OUTPUT)
        .refused_with(8, &["cannot run as 7:7", "hint: give the user a range"]);
}

#[test]
fn programs_of_another_machine_cannot_be_run() {
    let lab = Lab::with_shell(STEP, "");
    let spec = shell_spec(STEP, "") + "platforms = [\"linux/s390x\"]\n";
    lab.write("spec.toml", spec);
    // Handlers that this machine has are not seen there; before Linux 6.7 they are, and it must have none.
    let script = "mount -t binfmt_misc none /proc/sys/fs/binfmt_misc || true";
    let mut command = after(&lab, &["--user", "--map-root-user", "--mount"], script);
    lab.end(&mut command).refused_with(
        8,
        &[
            "executes programs of linux/s390x, and this machine is ",
            "hint: install an emulator with its handler: ",
            "or give its stage `platform = ",
        ],
    );
}

/// `immbuild doctor` instead of `build`.
fn doctor(lab: &Lab, namespaces: &[&str], script: &str) -> Command {
    last(lab, namespaces, script, &["doctor"])
}

/// What doctor says of a feature that failed, and how to mend it.
#[track_caller]
fn failed(command: &mut Command, feature: &str) -> (String, String) {
    let output = command.output().expect("it can be run");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(8), "{said}");
    let mut lines = said.lines();
    let line = lines.find(|line| line.starts_with(&format!("failed  {feature} ")));
    let line = line.unwrap_or_else(|| panic!("`{feature}` did not fail:\n{said}"));
    let fix = lines.next().unwrap_or_default();
    (line.to_owned(), fix.trim_start().to_owned())
}

#[test]
fn doctor_names_what_is_missing_with_its_error_and_how_to_mend_it() {
    need_root();
    let mut lab = Lab::new(FILE);
    let mut command = doctor(
        &lab,
        &["--user", "--map-root-user", "--mount"],
        "echo 0 > /proc/sys/user/max_user_namespaces",
    );
    let (line, fix) = failed(&mut command, "user namespaces");
    // ENOSPC: there are as many as there may be.
    assert!(line.ends_with("(os error 28)"), "{line}");
    assert!(
        fix.starts_with("to mend it:") && fix.contains("`sysctl user.max_user_namespaces="),
        "{fix}"
    );

    let merged = lab.beside("merged");
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(lab.beside(name)).expect("it can be made");
    }
    let options = ["lower", "upper", "work"]
        .map(|name| format!("{name}dir={}", lab.beside(name).display()))
        .join(",");
    let script = format!(
        "mount -t overlay -o '{options}' overlay '{}'",
        merged.display()
    );
    lab.store = merged.join("store");
    let (line, fix) = failed(&mut doctor(&lab, &["--mount"], &script), "overlay");
    assert!(line.ends_with("(os error 22)"), "{line}");
    assert!(
        fix.contains("a store on ext4, xfs, btrfs or tmpfs"),
        "{fix}"
    );

    // A container without uncovered /proc.
    lab.store = lab.beside("store");
    let script = "mount -t tmpfs none /proc/sys";
    let (line, fix) = failed(&mut doctor(&lab, &["--mount"], script), "proc");
    assert!(line.ends_with("(os error 1)"), "{line}");
    assert!(
        fix.contains("--security-opt systempaths=unconfined"),
        "{fix}"
    );

    // Root of a container, which may not mount.
    let mut command = Command::new("setpriv");
    command
        .args(["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"])
        .arg(immbuild())
        .args(["doctor", "--store"])
        .arg(&lab.store);
    let (line, fix) = failed(&mut command, "ids");
    assert!(line.ends_with("(os error 1)"), "{line}");
    assert!(fix.contains("--cap-add SYS_ADMIN"), "{fix}");
}
