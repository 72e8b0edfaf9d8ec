//! The commands around a build, as they are typed: `explain`, `graph`, `shell`, `doctor`, `cache`, `init`, `schema`.
//!
//! Needs Debian's busybox-static, and what `immbuild doctor` asks for.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "what a test prepares is there, or the test fails"
)]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

/// A directory with a spec, and a store of its own. Gone at the end.
struct Desk {
    directory: PathBuf,
}

/// How a command ended.
struct Done {
    code: i32,
    out: String,
    err: String,
}

impl Done {
    /// Standard output of a command that succeeded.
    fn out(self) -> String {
        assert_eq!(self.code, 0, "{}\n{}", self.out, self.err);
        self.out
    }

    /// The result of a command with `--json`.
    fn json(&self) -> Value {
        let line = self.out.lines().last().expect("a result");
        serde_json::from_str(line).expect("the last line is the result")
    }
}

impl Desk {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("workshop-{}-{number}", std::process::id());
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        // A process of this id may have been killed here before.
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(directory.join("work")).unwrap();
        Self { directory }
    }

    fn with(spec: &str) -> Self {
        let desk = Self::new();
        desk.write("spec.toml", spec);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join("work").join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// What a root with a shell needs, as a source named `tools`.
    fn tools(self) -> Self {
        let busybox = fs::read("/bin/busybox").expect("the package busybox-static is installed");
        self.write("tools/busybox", busybox);
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(self.path("tools/busybox"), mode).unwrap();
        self
    }

    fn run(&self, words: &[&str]) -> Done {
        self.run_with(words, "")
    }

    fn run_with(&self, words: &[&str], input: &str) -> Done {
        Self::done(self.command(words), input)
    }

    /// On a machine where no process can be traced.
    fn run_untraced(&self, words: &[&str]) -> Done {
        let mut command = self.command(words);
        without_ptrace(&mut command);
        Self::done(command, "")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_immbuild"));
        command
            .arg("--store")
            .arg(self.directory.join("store"))
            .args(words)
            .current_dir(self.path(""))
            .env("NO_COLOR", "1");
        command
    }

    fn done(mut command: Command, input: &str) -> Done {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that reads no input may be gone before it is written.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        Done {
            code: output.status.code().expect("not killed"),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// `label fate reason…` of each op.
    fn explained(&self, words: &[&str]) -> Vec<String> {
        let done = self.run(&[&["explain", "--json"], words].concat());
        assert_eq!(done.code, 0, "{}", done.err);
        let result = done.json();
        let ops = result["ops"].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        ops.iter()
            .map(|op| {
                let mut words = vec![text(&op["label"]).replace(' ', ":"), text(&op["fate"])];
                for reason in op["reasons"].as_array().unwrap() {
                    let input = reason["input"].as_str().map(|name| name.replace(' ', ":"));
                    let input = input.map(|name| format!("={name}")).unwrap_or_default();
                    words.push(text(&reason["reason"]) + &input);
                }
                for label in op["waits-for"].as_array().unwrap() {
                    words.push(format!("after={}", text(label)));
                }
                words.join(" ")
            })
            .collect()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Refuses ptrace(2) to a command and all it starts.
#[allow(unsafe_code, reason = "prctl(2) has no wrapper for filters")]
fn without_ptrace(command: &mut Command) {
    let instruction = |code: u32, jt, jf, k| libc::sock_filter {
        code: code.try_into().unwrap(),
        jt,
        jf,
        k,
    };
    let filter = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            0,
            1,
            libc::SYS_ptrace.try_into().unwrap(),
        ),
        instruction(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs(),
        ),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let program = libc::sock_fprog {
            len: 4,
            filter: filter.as_ptr().cast_mut(),
        };
        let filter = libc::SECCOMP_MODE_FILTER;
        // SAFETY: the kernel copies the four instructions that `program` points to.
        let results = unsafe {
            [
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
                libc::prctl(libc::PR_SET_SECCOMP, filter, &raw const program),
            ]
        };
        match results {
            [0, 0] => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes two system calls and touches nothing that the parent shares.
    unsafe { command.pre_exec(install) };
}

const FILES: &str = r#"
immbuild = 1
source.a.path = "a"

[stage.build]
steps = [
  { copy = "a", to = "/a" },
  { write = "/b", text = "b\n" },
]

[image]
steps = [
  { copy = "build:/b", to = "/b" },
  { mkdir = "/c" },
]
"#;

/// A spec whose stage `build` has these steps in a root with a shell.
fn with_shell(steps: &str) -> String {
    format!(
        r#"
immbuild = 1
tier = "isolated"
source.tools.path = "tools"

[stage.build]
env = {{ COLOUR = "blue" }}
steps = [
  {{ copy = "tools:busybox", to = "/bin/busybox" }},
  {{ link = "/bin/sh", to = "busybox" }},
  {{ link = "/bin/cat", to = "busybox" }},
{steps}]

[image]
steps = [
  {{ copy = "build:/result", to = "/result" }},
]
"#
    )
}

/// The same spec without a tier.
fn by_default(steps: &str) -> String {
    with_shell(steps).replace("tier = \"isolated\"\n", "")
}

#[test]
fn a_tier_that_cannot_be_kept_is_refused_unless_said_otherwise() {
    let spec = by_default("  { shell = \"echo done > /result\" },\n");
    let desk = Desk::with(&spec).tools();

    let refused = desk.run_untraced(&["build"]);
    assert_eq!(refused.code, 8, "{}", refused.err);
    for words in [
        "error: this machine cannot keep tier `deterministic` of step `build.4`",
        "cause: ptrace does not work here: Operation not permitted (os error 1)",
        "--allow-tier-downgrade",
    ] {
        assert!(refused.err.contains(words), "{}", refused.err);
    }

    let lesser = desk.run_untraced(&["build", "--allow-tier-downgrade"]);
    assert_eq!(lesser.code, 0, "{}", lesser.err);
    for words in [
        "tier isolated (deterministic was asked for)",
        "warning: tier `isolated` instead of `deterministic` for `build.4`",
    ] {
        assert!(lesser.err.contains(words), "{}", lesser.err);
    }
    let json = desk.run_untraced(&["build", "--allow-tier-downgrade", "--json"]);
    assert_eq!(json.json()["tier"], "isolated");
    assert_eq!(json.json()["ops"]["run"], 0, "it is known by now");
    let asked = serde_json::json!({ "steps": ["build.4"], "asked": "deterministic" });
    assert_eq!(json.json()["downgraded"], asked);
    let explained = desk.run_untraced(&["explain", "--sources", "--allow-tier-downgrade"]);
    assert_eq!(
        explained.out(),
        "build.4  isolated  shell echo done > /result\n  \
         nothing is virtual in this tier, and nobody looks\n"
    );

    // What was made in a lesser tier is never taken for what was asked for, and never recorded.
    assert_eq!(desk.run_untraced(&["build"]).code, 8);
    let recorded = desk.run_untraced(&["build", "--record", "--allow-tier-downgrade"]);
    assert_eq!(recorded.code, 8, "{}", recorded.err);
    assert!(!desk.path("spec.lock").exists());
}

#[test]
fn a_result_in_the_tier_asked_for_is_used_wherever_it_is_found() {
    let spec = by_default("  { shell = \"echo done > /result\" },\n");
    let desk = Desk::with(&spec).tools();
    let built = desk.run(&["build", "--json"]);
    assert_eq!(built.code, 0, "{}", built.err);
    assert_eq!(built.json()["tier"], "deterministic");
    assert!(built.json()["downgraded"].is_null());

    let explained = desk.run(&["explain", "build.4", "--sources", "--json"]);
    let trace = &explained.json()["ops"][0]["trace"];
    assert_eq!(trace["tier"], "deterministic", "{}", explained.out);
    assert!(trace["evidence"]["processes"].is_array(), "{trace}");

    for words in [
        &["build", "--json"][..],
        &["build", "--json", "--allow-tier-downgrade"],
    ] {
        let done = desk.run_untraced(words);
        assert_eq!(done.code, 0, "{}", done.err);
        assert_eq!(done.json()["ops"]["run"], 0);
        assert_eq!(done.json()["tier"], "deterministic");
        assert_eq!(done.json()["digest"], built.json()["digest"]);
    }
}

#[test]
fn doctor_says_what_a_tier_lacks() {
    let desk = Desk::new();
    let done = desk.run_untraced(&["doctor"]);
    assert_eq!(done.code, 8, "{}", done.out);
    let line = done.out.lines().find(|line| line.contains(" ptrace "));
    let line = line.expect("it was tried");
    assert!(line.starts_with("failed"), "{line}");
    assert!(
        done.out.contains("kernel.yama.ptrace_scope"),
        "{}",
        done.out
    );
}

#[test]
fn explain_tells_what_changed_from_what_follows() {
    let desk = Desk::with(FILES);
    desk.write("a", "1\n");
    assert_eq!(
        desk.explained(&[]),
        [
            "source:a here first-build",
            "build.1 run first-build",
            "build.2 wait first-build after=build.1",
            "image.1 wait first-build after=build.1",
            "image.2 wait first-build after=build.1",
        ]
    );
    assert!(
        !desk.path("spec.lock").exists(),
        "to explain writes nothing"
    );

    desk.run(&["build"]).out();
    let cached = [
        "source:a here",
        "build.1 cached",
        "build.2 cached",
        "image.1 cached",
        "image.2 cached",
    ];
    assert_eq!(desk.explained(&[]), cached);
    assert_eq!(desk.explained(&["build.2"]), ["build.2 cached"]);

    desk.write("a", "another\n");
    assert_eq!(
        desk.explained(&[]),
        [
            "source:a here changed",
            "build.1 run input=source:a",
            "build.2 wait input=build.1 after=build.1",
            "image.1 wait input=build.2 after=build.1",
            "image.2 wait input=image.1 after=build.1",
        ]
    );
    assert_eq!(
        desk.run(&["explain", "build"]).out(),
        "build.1  run     copy a to /a  (`source a` changed)\n\
         build.2  wait    write /b  (runs if `build.1` gives another result; `build.1` changed)\n"
    );

    desk.write("a", "1\n");
    desk.write(
        "spec.toml",
        FILES.replace("b\\n", "B\\n").replace(
            "{ mkdir = \"/c\" }",
            "{ mkdir = \"/c\" },\n  { mkdir = \"/d\" }",
        ),
    );
    assert_eq!(
        desk.explained(&[]),
        [
            "source:a here",
            "build.1 cached",
            "build.2 run changed",
            "image.1 wait input=build.2 after=build.2",
            "image.2 wait input=image.1 after=build.2",
            "image.3 wait new after=build.2",
        ]
    );
}

/// What changed and gave the same again is no reason to run what follows.
#[test]
fn explain_knows_early_cutoff() {
    let desk = Desk::with(&FILES.replace("copy = \"a\"", "copy = \"a\", mode = \"0644\""));
    desk.write("a", "1\n");
    desk.run(&["build"]).out();
    let spec = fs::read_to_string(desk.path("spec.toml")).unwrap();
    desk.write("spec.toml", spec.replace(", mode = \"0644\"", ""));
    assert_eq!(
        desk.explained(&["build"]),
        [
            "build.1 run changed",
            "build.2 wait input=build.1 after=build.1"
        ]
    );
    desk.run(&["build", "--stage", "build"]).out();
    assert_eq!(
        desk.explained(&["image"]),
        [
            "image.1 cached input=build.2",
            "image.2 cached input=image.1"
        ]
    );
    assert_eq!(
        desk.run(&["explain", "image.1"]).out(),
        "image.1  cached  copy build:b to /b  (though `build.2` changed)\n"
    );
}

#[test]
fn explain_says_what_is_lost() {
    let desk = Desk::with(FILES);
    desk.write("a", "1\n");
    desk.run(&["build"]).out();
    fs::remove_dir_all(desk.directory.join("store/records/action")).unwrap();
    assert_eq!(
        desk.explained(&["build"]),
        ["build.1 run lost", "build.2 wait after=build.1"]
    );
}

/// What is locked and not here yet is brought by a build; to explain brings nothing and locks nothing.
#[test]
fn explain_says_what_is_still_to_be_fetched() {
    let desk = Desk::with(FILES);
    desk.write("a", "1\n");
    desk.run(&["build", "--output", "kind=oci-layout,dir=base"])
        .out();
    desk.write(
        "spec.toml",
        "immbuild = 1\nsource.base.image = \"./base\"\n\n[image]\nfrom = \"base\"\nsteps = [{ mkdir = \"/d\" }]\n",
    );
    let done = desk.run(&["explain"]);
    assert_eq!(done.code, 4, "{}", done.err);
    assert!(
        done.err.starts_with("error: there is no lock `spec.lock`"),
        "{}",
        done.err
    );
    assert!(!desk.path("spec.lock").exists());

    desk.run(&["lock"]).out();
    // The last build remembered for this file is that of another spec.
    assert_eq!(
        desk.explained(&[]),
        [
            "source:base fetch new",
            "image.1 wait input=source:base after=source base",
        ]
    );
    desk.run(&["build"]).out();
    assert_eq!(desk.explained(&[]), ["source:base here", "image.1 cached"]);
}

#[test]
fn explain_names_a_step_that_is_not_there() {
    let desk = Desk::with(FILES);
    desk.write("a", "1\n");
    for (at, told) in [
        (
            "build.3",
            "there is no step `build.3`\nhint: its steps are `build.1` to `build.2`",
        ),
        (
            "biuld",
            "there is no stage `biuld`\nhint: the stages are build, image",
        ),
        (
            "build.x",
            "`build.x` names no step\n  cause: `x` is not a number\nhint: write it as `build` or `build.2`",
        ),
    ] {
        let done = desk.run(&["explain", at]);
        assert_eq!(
            (done.code, done.err.trim_end()),
            (2, format!("error: {told}").as_str())
        );
    }
}

#[test]
fn explain_tells_a_filled_cache_from_a_failure() {
    let desk = Desk::with(
        &with_shell("  { shell = \"echo x > /cache/x; echo x > /result\" },\n")
            .replace("env = { COLOUR", "cache = [\"/cache\"]\nenv = { COLOUR"),
    )
    .tools();
    desk.run(&["build"]).out();
    assert_eq!(desk.explained(&["build.4"]), ["build.4 run warm-cache"]);
    desk.run(&["build"]).out();
    assert_eq!(desk.explained(&["build.4"]), ["build.4 cached"]);

    desk.write("spec.toml", with_shell("  { shell = \"exit 3\" },\n"));
    assert_eq!(desk.run(&["build"]).code, 7);
    assert_eq!(desk.explained(&["build.4"]), ["build.4 run changed failed"]);
}

#[test]
fn a_graph_is_text_dot_or_json() {
    let desk = Desk::with(FILES);
    desk.write("a", "1\n");
    let text = desk.run(&["graph"]).out();
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            line.split_whitespace()
                .skip(1)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    assert_eq!(
        lines,
        [
            "empty start",
            "tree source a",
            "file build.1 copy a to /a <- start, source a",
            "file build.2 write /b <- build.1",
            "file image.1 copy build:b to /b <- start, build.2",
            "file image.2 mkdir /c <- image.1",
        ]
    );
    let dot = desk.run(&["graph", "--format", "dot"]).out();
    assert_eq!(dot.matches(" -> ").count(), 6, "{dot}");
    assert_eq!(dot.matches("[label = ").count(), 6, "{dot}");
    let result = desk.run(&["graph", "--json"]).json();
    let ops = result["ops"].as_array().unwrap();
    assert_eq!(
        ops[2]["inputs"],
        serde_json::json!([ops[0]["op"], ops[1]["op"]])
    );
}

#[test]
fn a_shell_opens_where_a_step_ended() {
    let steps = "  { shell = \"echo one > /one\" },
  { shell = \"echo two > /result; echo lost > /tmp/lost\", in = \"/bin\", env = { SIZE = \"7\" } },\n";
    let desk = Desk::with(&with_shell(steps)).tools();
    let done = desk.run_with(&["shell", "build.4"], "cat /one; cat /result; exit 3\n");
    assert_eq!((done.code, done.out.as_str()), (0, "one\n"));
    assert!(
        done.err
            .contains("shell     build.4 as it ended; read-only but for /tmp"),
        "{}",
        done.err
    );

    // The last step, with what it sees: nothing of it is left in `/tmp`.
    let script = "cat /result; echo $PWD $COLOUR $SIZE $SOURCE_DATE_EPOCH; echo /tmp/*\n";
    assert_eq!(
        desk.run_with(&["shell", "build"], script).out(),
        "two\n/bin blue 7 1577836800\n/tmp/*\n"
    );
    // A step that executes nothing, and the root before the first.
    assert_eq!(
        desk.run_with(&["shell", "build.3"], "echo /* $COLOUR\n")
            .out(),
        "/bin /dev /etc /proc /sys /tmp blue\n"
    );
    let done = desk.run_with(&["shell", "build.0"], "");
    assert_eq!(done.code, 2);
    assert!(
        done.err
            .contains("error: there is no shell in the root of `build.0`"),
        "{}",
        done.err
    );
}

#[test]
fn what_is_done_in_a_shell_is_thrown_away() {
    let desk = Desk::with(&with_shell("  { shell = \"echo one > /result\" },\n")).tools();
    let before = desk.run(&["build"]).out();
    let write = "echo two > /result; echo $?; cat /result\n";
    assert_eq!(desk.run_with(&["shell", "build"], write).out(), "1\none\n");
    assert_eq!(
        desk.run_with(&["shell", "--writable", "build"], write)
            .out(),
        "0\ntwo\n"
    );
    assert_eq!(
        desk.run_with(&["shell", "build"], "cat /result\n").out(),
        "one\n"
    );
    assert_eq!(desk.run(&["build", "--rerun"]).out(), before);
    let result = desk
        .run_with(&["shell", "build", "--json"], "exit 3\n")
        .json();
    assert_eq!(result["exited"], 3);
}

#[test]
fn a_shell_opens_where_a_step_failed_and_its_log_is_kept() {
    let steps = "  { shell = \"echo one > /one\" },
  { shell = \"echo said; echo half > /half; busybox rm /one; exit 5\" },\n"
        .replace("busybox rm", "/bin/busybox rm");
    let desk = Desk::with(&with_shell(&steps)).tools();
    let done = desk.run(&["build"]);
    assert_eq!(done.code, 7, "{}", done.err);
    assert!(done.err.contains("immbuild shell build.5"), "{}", done.err);
    let script = "cat /half; echo /one*\n";
    let shell = desk.run_with(&["shell", "build.5"], script);
    assert_eq!(
        (shell.code, shell.out.as_str()),
        (0, "half\n/one*\n"),
        "{}",
        shell.err
    );
    assert_eq!(
        shell.err.trim_end(),
        "shell     build.5 as it failed; read-only but for /tmp"
    );

    let (_, log) = done
        .err
        .split_once("immbuild cache log ")
        .expect("it names the log");
    let digits: String = log.chars().take_while(char::is_ascii_hexdigit).collect();
    assert_eq!(desk.run(&["cache", "log", &digits]).out(), "said\n");
    assert_eq!(desk.run(&["cache", "log", "0000"]).code, 2);
}

/// Without a build before, the shell runs the step, says how it failed, and opens there.
#[test]
fn a_shell_runs_what_is_not_done_yet() {
    let desk = Desk::with(&with_shell(
        "  { shell = \"echo half > /half; exit 5\" },\n",
    ))
    .tools();
    let shell = desk.run_with(&["shell", "build"], "cat /half\n");
    assert_eq!(
        (shell.code, shell.out.as_str()),
        (0, "half\n"),
        "{}",
        shell.err
    );
    assert!(
        shell.err.contains("error: step `build.4` failed"),
        "{}",
        shell.err
    );
    // One that fails on the way is an error: there is no such root.
    let on_the_way = desk.run_with(&["shell", "image"], "cat /half\n");
    assert_eq!((on_the_way.code, on_the_way.out.as_str()), (7, ""));
}

#[test]
fn doctor_says_how_each_thing_is() {
    let desk = Desk::new();
    let done = desk.run(&["doctor", "--json"]);
    let result = done.json();
    let checks = result["checks"].as_array().unwrap();
    let names: Vec<&str> = checks
        .iter()
        .map(|check| check["name"].as_str().unwrap())
        .collect();
    for name in [
        "kernel",
        "store",
        "free space",
        "ids",
        "user namespaces",
        "overlay",
        "podman",
    ] {
        assert!(names.contains(&name), "{names:?}");
    }
    let bad = checks.iter().any(|check| check["health"] == "failed");
    assert_eq!(
        (done.code, result["ok"].as_bool()),
        if bad {
            (8, Some(false))
        } else {
            (0, Some(true))
        }
    );
    for check in checks {
        assert_eq!(check["health"] != "ok", check["fix"].is_string(), "{check}");
    }
}

#[test]
fn doctor_fails_where_there_can_be_no_store() {
    let desk = Desk::new();
    fs::write(desk.directory.join("store"), "a file\n").unwrap();
    let done = desk.run(&["doctor"]);
    assert_eq!(done.code, 8, "{}", done.out);
    assert!(done.out.contains("\nfailed  store "), "{}", done.out);
    assert!(
        done.out.contains(" overlay "),
        "the sandbox is tried all the same: {}",
        done.out
    );
}

#[test]
fn gc_keeps_what_a_build_remembers() {
    let desk = Desk::with(FILES);
    desk.write("a", "1\n");
    let digest = desk.run(&["build"]).out();
    let before = desk.run(&["cache", "stat", "--json"]).json();
    assert!(before["bytes"].as_u64().unwrap() > 0);
    assert_eq!(desk.run(&["cache", "gc", "--json"]).json()["ok"], true);
    assert_eq!(
        desk.explained(&["build"]),
        ["build.1 cached", "build.2 cached"]
    );

    let collected = desk
        .run(&["cache", "gc", "--max-size", "0", "--json"])
        .json();
    assert_eq!(collected["objects"]["kept"], 0);
    assert!(collected["objects"]["removed"].as_u64().unwrap() > 0);
    assert_eq!(desk.run(&["build"]).out(), digest);

    let done = desk.run(&["cache", "gc", "--max-size", "lots"]);
    assert_eq!(
        (done.code, done.err.trim_end()),
        (
            2,
            "error: `--max-size lots` is no size\nhint: write it as `500M` or `20G`"
        )
    );
}

#[test]
fn gc_with_a_size_empties_cache_directories() {
    let spec = with_shell("  { shell = \"echo x > /cache/x; echo x > /result\" },\n");
    let desk =
        Desk::with(&spec.replace("env = { COLOUR", "cache = [\"/cache\"]\nenv = { COLOUR")).tools();
    desk.run(&["build"]).out();
    let stat = || desk.run(&["cache", "stat", "--json"]).json()["step-caches"].clone();
    let filled = stat();
    assert_eq!(filled["count"], 1);
    desk.run(&["cache", "gc"]).out();
    assert_eq!(stat(), filled);
    desk.run(&["cache", "gc", "--max-size", "0"]).out();
    assert!(stat()["bytes"].as_u64() < filled["bytes"].as_u64());
    desk.run(&["build"]).out();
}

#[test]
fn fsck_finds_a_damaged_object_and_the_next_build_mends_it() {
    let desk = Desk::with(FILES);
    desk.write("a", "1\n");
    let digest = desk.run(&["build"]).out();
    assert_eq!(desk.run(&["cache", "fsck"]).code, 0);

    // The layer is a blob that has a file of its own.
    let blob = files_below(&desk.directory.join("store/blobs"))
        .pop()
        .expect("a blob");
    let mut bytes = fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(&blob, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&blob, bytes).unwrap();

    let name = blob.file_name().unwrap().to_str().unwrap().to_owned();
    let done = desk.run(&["cache", "fsck"]);
    assert_eq!(
        (done.code, done.out.trim_end()),
        (9, format!("sha256:{name}").as_str())
    );
    assert_eq!(desk.run(&["build"]).out(), digest);
    assert_eq!(desk.run(&["cache", "fsck"]).code, 0);
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                files_below(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

#[test]
fn init_writes_a_spec_for_each_template_and_never_over_one() {
    for template in ["static", "site", "compile"] {
        let desk = Desk::new();
        assert_eq!(desk.run(&["init", "--from", template]).out(), "");
        let spec = fs::read_to_string(desk.path("spec.toml")).unwrap();
        assert!(spec.starts_with("#:schema ./spec.schema.json\n"), "{spec}");
        immbuild::spec::parse(&spec, "spec.toml").unwrap();
        let schema = fs::read_to_string(desk.path("spec.schema.json")).unwrap();
        assert_eq!(desk.run(&["schema"]).out().trim_end(), schema.trim_end());

        let again = desk.run(&["init", "--from", template]);
        assert_eq!(again.code, 9);
        assert!(
            again
                .err
                .starts_with("error: there is a file `spec.toml` already"),
            "{}",
            again.err
        );
        assert_eq!(fs::read_to_string(desk.path("spec.toml")).unwrap(), spec);
    }
}

/// From a program to an image by two commands.
#[test]
fn what_init_writes_for_a_program_builds() {
    let desk = Desk::new();
    let mut program = vec![0; 64];
    program[..6].copy_from_slice(b"\x7fELF\x02\x01");
    (program[16], program[18]) = (2, 62);
    desk.write("dist/my \"server\"", program);
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(desk.path("dist/my \"server\""), mode).unwrap();
    let done = desk.run(&["init"]);
    assert_eq!(
        done.err,
        "written   spec.toml\nwritten   spec.schema.json\nnext      immbuild build\n"
    );
    assert!(desk.run(&["build"]).out().starts_with("sha256:"));
    assert!(desk.path("out").join("work.tar").exists());
}

#[test]
fn init_looks_at_what_lies_here() {
    for (file, expected) in [
        ("Makefile", "run = [\"make\"]"),
        (
            "Cargo.toml",
            "run = [\"cargo\", \"build\", \"--release\", \"--locked\", \"--offline\"]",
        ),
        ("public/index.html", "path = \"public\""),
        ("index.html", "path = \".\""),
    ] {
        let desk = Desk::new();
        desk.write(file, "[package]\nname = \"shop\"\n");
        desk.run(&["init"]).out();
        let spec = fs::read_to_string(desk.path("spec.toml")).unwrap();
        assert!(spec.contains(expected), "{file}: {spec}");
        assert!(!spec.contains("tier"), "{spec}");
    }
}

#[test]
fn completions_and_manual_know_every_command() {
    let desk = Desk::new();
    let commands = [
        "build", "lock", "update", "init", "shell", "explain", "graph", "load", "verify",
        "compare", "inspect", "doctor", "cache", "schema",
    ];
    for shell in ["bash", "zsh", "fish"] {
        let text = desk.run(&["completions", shell]).out();
        for command in commands {
            assert!(text.contains(command), "{shell} does not know {command}");
        }
    }
    let manual = desk.run(&["man"]).out();
    assert!(manual.contains(".TH immbuild 1"), "{manual}");
    for command in commands {
        let section = format!("\n.SH \"IMMBUILD {}", command.to_uppercase());
        assert!(manual.contains(&section), "{command}: {manual}");
    }
}

#[test]
fn a_vendored_commit_builds_where_its_repository_is_not() {
    let desk = Desk::new();
    desk.write("there/code/main.c", "int main(void) { return 0; }\n");
    let git = |words: &[&str]| {
        let status = Command::new("git")
            .args(["-c", "user.email=a@example.com", "-c", "user.name=a"])
            .args(words)
            .current_dir(desk.path("there"))
            .status();
        assert!(status.expect("git is installed").success());
    };
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message", "one"]);
    let spec = format!(
        "immbuild = 1\n[source.code]\ngit = \"file://{}\"\nrev = \"HEAD\"\n\n\
         [image]\nsteps = [{{ copy = \"code\", to = \"/src\" }}]\n",
        desk.path("there").display()
    );
    desk.write("spec.toml", spec);
    desk.run(&["lock"]).out();
    let artifact = desk.run(&["vendor", "-o", "vendor"]).out();
    assert_eq!(desk.run(&["vendor", "-o", "again"]).out(), artifact);
    let digest = desk.run(&["build", "--locked"]).out();

    fs::remove_dir_all(desk.path("there")).unwrap();
    fs::remove_dir_all(desk.directory.join("store")).unwrap();
    let offline = ["build", "--locked", "--offline"];
    assert_eq!(desk.run(&offline).code, 5);
    // One changed byte, wherever it is, and the store has nothing of it.
    let manifest = fs::read_to_string(desk.path("vendor/index.json")).unwrap();
    assert!(manifest.contains(artifact.trim()), "{manifest}");
    let blobs = desk.path("vendor/blobs/sha256");
    let bundle = fs::read_dir(&blobs)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| fs::read(path).unwrap().starts_with(b"immbuild-bundle 1\n"))
        .expect("the commit");
    let good = fs::read(&bundle).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    fs::write(&bundle, bad).unwrap();
    let refused = desk.run(&["vendor", "--read", "vendor"]);
    assert_eq!(refused.code, 6, "{}", refused.err);
    assert_eq!(desk.run(&offline).code, 5);

    fs::write(&bundle, good).unwrap();
    desk.run(&["vendor", "--read", "vendor"]).out();
    assert_eq!(desk.run(&offline).out(), digest);
}
