//! One step in a chosen tier, and what became of it.
//!
//! All start from the root of the hostile corpus in one store that is kept, so that it is written out once; the step runs
//! each time (`--rerun`).

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use golden_tests::lab::{Lab, immbuild, need_root};
use golden_tests::{roots, scratch, workspace};
use immbuild_cas::digest::TreeId;
use immbuild_cas::store::{LocalStore, Store as _};
use immbuild_cas::tree::{Change, Delta, delta};

/// 2026-01-01T00:00:00Z.
pub(crate) const EPOCH: i64 = 1_767_225_600;

/// The tiers with a virtual clock.
pub(crate) const VIRTUAL: [&str; 2] = ["deterministic", "strict"];

/// A step that is to be tried: a shell script that finds the C programs of `tests/tiers/src` in `/src`.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    tier: &'static str,
    keys: String,
    before: Option<String>,
    script: String,
}

/// What it printed and left.
#[derive(Debug)]
pub(crate) struct Told {
    /// Its output, a line each.
    pub(crate) log: String,
    /// What the build warned of.
    pub(crate) warnings: Vec<String>,
    /// The tree it left.
    pub(crate) tree: String,
    /// How long the build took.
    pub(crate) real: Duration,
    /// How often threads were stopped, by what for.
    pub(crate) stops: BTreeMap<String, u64>,
}

/// How it failed.
#[derive(Debug)]
pub(crate) struct Failed {
    /// The exit status of the build.
    pub(crate) exit: Option<i32>,
    /// What the build said: message, cause and hint.
    pub(crate) said: String,
    /// Its output, a line each.
    pub(crate) log: String,
    /// How long the build took.
    pub(crate) real: Duration,
}

impl Probe {
    pub(crate) fn new(tier: &'static str, script: &str) -> Self {
        Self {
            tier,
            keys: String::new(),
            before: None,
            script: script.to_owned(),
        }
    }

    /// With more keys of the step.
    pub(crate) fn with(mut self, keys: &str) -> Self {
        self.keys.push_str(keys);
        self.keys.push_str(", ");
        self
    }

    /// After another step, under `isolated`, that makes what it works on.
    pub(crate) fn after(mut self, script: &str) -> Self {
        self.before = Some(script.to_owned());
        self
    }

    fn lab(&self) -> Lab {
        let quoted = |script: &String| toml::Value::String(script.clone());
        let before = self.before.as_ref().map(|script| {
            format!(
                "{{ in = \"/work\", tier = \"isolated\", shell = {} }}, ",
                quoted(script)
            )
        });
        let timeout = if self.keys.contains("timeout") {
            ""
        } else {
            "timeout = \"100s\", "
        };
        let mut lab = Lab::new(&spec(&format!(
            "{}{{ in = \"/work\", tier = \"{}\", {timeout}{}shell = {} }}",
            before.unwrap_or_default(),
            self.tier,
            self.keys,
            quoted(&self.script)
        )));
        lab.store.clone_from(store());
        lab
    }

    /// Builds it.
    pub(crate) fn build(&self) -> Result<Told, Failed> {
        let lab = self.lab();
        let start = Instant::now();
        let output = build(&lab, "probe");
        let real = start.elapsed();
        let lines = objects(&output);
        let log: Vec<&str> = of_kind(&lines, "output")
            .map(|line| line["line"].as_str().unwrap_or_default())
            .collect();
        let log = log.join("\n");
        let result = of_kind(&lines, "result").last();
        let Some(result) = result.filter(|result| result["ok"] == true) else {
            let said = result.map_or_else(
                || String::from_utf8_lossy(&output.stderr).into_owned(),
                |result| {
                    let told = &result["diagnostics"][0];
                    let parts = ["message", "cause", "hint"].map(|part| told[part].as_str());
                    parts.into_iter().flatten().collect::<Vec<_>>().join("\n")
                },
            );
            return Err(Failed {
                exit: output.status.code(),
                said,
                log,
                real,
            });
        };
        Ok(Told {
            log,
            warnings: of_kind(&lines, "warning")
                .map(|line| line["message"].as_str().unwrap_or_default().to_owned())
                .collect(),
            tree: tree(result),
            real,
            stops: stops(&lab),
        })
    }

    /// Builds it; it must succeed.
    #[track_caller]
    pub(crate) fn run(&self) -> Told {
        self.build().unwrap_or_else(|failed| {
            panic!(
                "under `{}` it failed with {:?} after {:?}: {}\n{}",
                self.tier, failed.exit, failed.real, failed.said, failed.log
            )
        })
    }

    /// Builds it; it must fail.
    #[track_caller]
    pub(crate) fn fails(&self) -> Failed {
        match self.build() {
            Err(failed) => failed,
            Ok(told) => panic!("under `{}` it succeeded:\n{}", self.tier, told.log),
        }
    }
}

/// What a script prints in this tier.
#[track_caller]
pub(crate) fn log(tier: &'static str, script: &str) -> String {
    Probe::new(tier, script).run().log
}

/// What a script prints in this tier, which must be the same twice.
#[track_caller]
pub(crate) fn same_log(tier: &'static str, script: &str) -> String {
    let probe = Probe::new(tier, script);
    let (one, two) = (probe.run(), probe.run());
    assert_eq!(one.log, two.log, "under `{tier}` it prints the same twice");
    assert_eq!(
        one.tree, two.tree,
        "under `{tier}` it leaves the same twice"
    );
    one.log
}

impl Told {
    /// Every path that the step changed, and what is there now.
    pub(crate) fn changes(&self) -> BTreeMap<String, Change> {
        let delta = self.delta();
        let named = |(path, change)| (format!("{path}"), change);
        delta.changes.into_iter().map(named).collect()
    }

    /// The first path of the file that each path is one with.
    pub(crate) fn links(&self) -> BTreeMap<String, String> {
        let delta = self.delta();
        let first = delta.links.first_by_path();
        let names = first
            .iter()
            .map(|(path, first)| (path.to_string(), first.to_string()));
        names.collect()
    }

    fn delta(&self) -> Delta {
        let store = LocalStore::open(store()).unwrap();
        let tree = |id: &str| store.tree(&TreeId::new(id.parse().unwrap())).unwrap();
        delta(&store, &tree(base()), &tree(&self.tree)).unwrap()
    }
}

/// The value of a line `name value` of a log.
#[track_caller]
pub(crate) fn value<'a>(log: &'a str, name: &str) -> &'a str {
    log.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .unwrap_or_else(|| panic!("no line `{name} …` in:\n{log}"))
}

/// A whole number with this name in a log.
#[track_caller]
pub(crate) fn number(log: &str, name: &str) -> i64 {
    let text = value(log, name);
    text.parse()
        .unwrap_or_else(|error| panic!("{name} is {text:?}: {error}"))
}

/// Processes that compute until this is dropped.
pub(crate) struct Load(Vec<std::process::Child>);

impl Load {
    pub(crate) fn new() -> Self {
        let busy = || {
            Command::new("sh")
                .args(["-c", "while :; do :; done"])
                .spawn()
                .unwrap()
        };
        Self(vec![busy(), busy(), busy()])
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits until no process of the machine has this word in its command line.
#[track_caller]
pub(crate) fn none_runs(word: &str) {
    let start = Instant::now();
    loop {
        let found = processes_with(word);
        if found.is_empty() {
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "these still run: {found:?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Command lines with this word.
pub(crate) fn processes_with(word: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new("/proc")
        .max_depth(1)
        .into_iter()
        .flatten()
    {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        // The builder names the step in no argument.
        if line.contains(word) {
            found.push(line);
        }
    }
    found
}

/// A spec with the root, and a step `probe` on it.
pub(crate) fn spec(step: &str) -> String {
    format!(
        r#"immbuild = 1
epoch = 2026-01-01T00:00:00Z

[source.debian]
image = {root}
tag = "hostile"

[source.src]
path = {src}

[stage.base]
from = "debian"
steps = [ {{ mkdir = "/work" }}, {{ copy = "src", to = "/src", mode = "0644", dir-mode = "0755" }} ]

[stage.probe]
from = "base"
steps = [ {step} ]

[image]
from = "base"
steps = []
"#,
        root = quoted(&roots::hostile().unwrap()),
        src = quoted(&workspace().join("golden-tests/tests/tiers/src")),
    )
}

fn quoted(path: &std::path::Path) -> String {
    toml::Value::String(path.display().to_string()).to_string()
}

/// The store of all probes and the tree they start from.
fn prepared() -> &'static (PathBuf, String) {
    static PREPARED: OnceLock<(PathBuf, String)> = OnceLock::new();
    PREPARED.get_or_init(|| {
        need_root();
        let mut lab = Lab::new(&spec("{ tier = \"isolated\", shell = \"true\" }"));
        lab.store = scratch().join("tiers-store");
        // Writes out the root.
        let output = build(&lab, "probe");
        assert!(output.status.success(), "{output:?}");
        let output = build(&lab, "base");
        let lines = objects(&output);
        let result = of_kind(&lines, "result").last();
        let result = result.unwrap_or_else(|| panic!("no result: {output:?}"));
        (lab.store.clone(), tree(result))
    })
}

/// Where all probes are built.
pub(crate) fn store() -> &'static PathBuf {
    &prepared().0
}

fn base() -> &'static str {
    &prepared().1
}

/// Runs the program, but not for ever.
fn build(lab: &Lab, stage: &str) -> Output {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "170"]).arg(immbuild());
    command.args(["build", "--json", "--rerun", "--stage", stage, "--store"]);
    command
        .arg(&lab.store)
        .current_dir(lab.project())
        .env_clear();
    command
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", lab.beside("home"))
        .stdin(Stdio::null());
    command.output().unwrap()
}

fn objects(output: &Output) -> Vec<serde_json::Value> {
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn of_kind<'a>(
    lines: &'a [serde_json::Value],
    kind: &'a str,
) -> impl Iterator<Item = &'a serde_json::Value> {
    lines.iter().filter(move |line| line["event"] == kind)
}

fn tree(result: &serde_json::Value) -> String {
    let tree = result["images"][0]["tree"].as_str();
    tree.unwrap_or_else(|| panic!("no tree in {result}"))
        .to_owned()
}

/// The stops of the step, from its evidence.
fn stops(lab: &Lab) -> BTreeMap<String, u64> {
    let output = Command::new(immbuild())
        .args(["explain", "probe", "--sources", "--json", "--store"])
        .arg(&lab.store)
        .current_dir(lab.project())
        .output()
        .unwrap();
    let lines = objects(&output);
    let result = of_kind(&lines, "result").last();
    let Some(ops) = result.and_then(|result| result["ops"].as_array()) else {
        panic!("nothing is explained: {output:?}");
    };
    let stops = ops
        .iter()
        .find_map(|op| op["trace"]["evidence"]["stops"].as_object());
    let counted = stops.into_iter().flatten();
    counted
        .map(|(what, count)| (what.clone(), count.as_u64().unwrap_or_default()))
        .collect()
}
