//! Steps for another machine, in a user namespace whose handlers of `binfmt_misc` are the test's own (Linux 6.7): the machine's stay
//! as they are, and are not seen.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// Programs for arm64 go to Debian's emulator; `\\` for the shell's printf.
const HANDLER: &str = r":qemu-aarch64:M::\\x7fELF\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\xb7\\x00:\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff:/usr/bin/qemu-aarch64-static:";

struct Place(tempfile::TempDir);

impl Place {
    /// A program of `examples/static` for arm64, as a step that runs in this tier.
    fn new(tier: &str) -> Self {
        let place = Self(tempfile::tempdir().expect("a directory"));
        let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/static/dist");
        for arch in ["amd64", "arm64"] {
            let name = format!("hello-{arch}");
            fs::copy(programs.join(&name), place.0.path().join(&name)).expect("copied");
        }
        let spec = format!(
            r#"
            immbuild = 1
            tier = "{tier}"
            source.hello.path = "hello-${{arch}}"
            [image]
            platforms = ["linux/amd64", "linux/arm64"]
            steps = [
              {{ copy = "hello", to = "/hello", mode = "0755" }},
              {{ run = ["/hello"] }},
            ]
            "#
        );
        fs::write(place.0.path().join("spec.toml"), spec).expect("written");
        place
    }

    /// Runs `immbuild` where there are these handlers and no others.
    fn run(&self, handlers: &[&str], words: &[&str]) -> (i32, String, String) {
        let registered: Vec<String> = handlers
            .iter()
            .map(|it| format!("printf '%b' '{it}' > $at/register || exit 98"))
            .collect();
        let script = format!(
            "at=/proc/sys/fs/binfmt_misc\nmount -t binfmt_misc none $at || exit 99\n{}\nexec \"$@\"",
            registered.join("\n")
        );
        let output = Command::new("unshare")
            .args([
                "--user",
                "--map-root-user",
                "--mount",
                "sh",
                "-c",
                &script,
                "sh",
            ])
            .arg(env!("CARGO_BIN_EXE_immbuild"))
            .args(words)
            .args(["--store", "store"])
            .current_dir(self.0.path())
            .env_remove("SOURCE_DATE_EPOCH")
            .output()
            .expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let code = output.status.code().expect("no signal");
        let told = text(output.stderr);
        assert!(
            code < 98,
            "this needs Linux 6.7, which has handlers for each user namespace: {told}"
        );
        (code, text(output.stdout), told)
    }
}

fn fixed() -> String {
    format!("{HANDLER}OCF")
}

#[test]
#[ignore = "needs qemu-user-static, and Linux 6.7"]
fn a_step_for_another_machine_runs_where_there_is_a_handler() {
    for tier in ["isolated", "deterministic"] {
        let place = Place::new(tier);
        let (code, out, told) = place.run(&[&fixed()], &["build"]);
        assert_eq!(code, 0, "{told}");
        assert_eq!(told.matches("image.2      hello").count(), 2, "{told}");
        assert!(
            told.contains("\nemulated  image.2: programs of linux/arm64\n"),
            "{told}"
        );
        let (_, json, _) = place.run(&[&fixed()], &["build", "--rerun", "--json"]);
        let result: Value =
            serde_json::from_str(json.lines().last().expect("a line")).expect("JSON");
        assert_eq!(
            (result["emulated"].clone(), result["digest"].clone()),
            (
                json!([{ "step": "image.2", "platform": "linux/arm64" }]),
                json!(out.trim())
            )
        );
        // What is known needs nobody to run it, but a handler all the same: whether it is known turns out later.
        let (code, _, told) = place.run(&[&fixed()], &["build"]);
        assert_eq!(code, 0, "{told}");
        assert!(!told.contains("emulated"), "{told}");
    }
}

#[test]
#[ignore = "needs qemu-user-static, and Linux 6.7"]
fn without_a_handler_the_error_says_which_is_missing() {
    let place = Place::new("isolated");
    let step = "error: step `image.2` executes programs of linux/arm64, and this machine is ";
    let (code, _, told) = place.run(&[], &["build"]);
    assert_eq!(code, 8, "{told}");
    for part in [
        step,
        "cause: no handler of binfmt_misc is registered for aarch64",
        "hint: install an emulator with its handler: `apt install qemu-user-static binfmt-support`",
    ] {
        assert!(told.contains(part), "{told}");
    }
    let (code, _, told) = place.run(&[&format!("{HANDLER}OC")], &["build"]);
    assert_eq!(code, 8, "{told}");
    for part in [
        step,
        "cause: the handler of binfmt_misc for aarch64 lacks the flag `F`",
        "hint: register it anew with the flag `F`",
    ] {
        assert!(told.contains(part), "{told}");
    }
    // One that is there and does not work.
    let broken = HANDLER.replace("qemu-aarch64-static", "qemu-arm-static");
    let (code, _, told) = place.run(&[&format!("{broken}F")], &["build"]);
    assert_eq!(code, 8, "{told}");
    assert!(told.contains("does not even do that here"), "{told}");

    // The other platform alone needs none, and neither does a step that executes nothing.
    let (code, _, told) = place.run(&[], &["build", "--platform", "linux/amd64"]);
    assert_eq!(code, 0, "{told}");
    let spec = fs::read_to_string(place.0.path().join("spec.toml")).expect("there");
    let without = spec.replace("{ run = [\"/hello\"] },", "");
    fs::write(place.0.path().join("spec.toml"), without).expect("written");
    let (code, _, told) = place.run(&[], &["build"]);
    assert_eq!(code, 0, "{told}");
}

#[test]
#[ignore = "needs qemu-user-static, and Linux 6.7"]
fn doctor_says_which_machines_can_be_stood_in_for() {
    let place = Place::new("isolated");
    for (handlers, expected) in [
        (
            vec![],
            "ok      other machines    none; only steps of other platforms need them",
        ),
        (
            vec![fixed()],
            "ok      other machines    steps of linux/arm64 can be run",
        ),
        (
            vec![format!("{HANDLER}OC")],
            "limited other machines    the handler of binfmt_misc for aarch64 lacks the flag `F`",
        ),
    ] {
        let handlers: Vec<&str> = handlers.iter().map(String::as_str).collect();
        let (_, out, told) = place.run(&handlers, &["doctor"]);
        assert!(out.contains(expected), "{out}{told}");
    }
}
