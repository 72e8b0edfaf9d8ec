//! The commands one works with around a build: what would happen, what happened, the machine, the store, a first spec.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use immbuild_cas::store::{Count, FsckReport, LocalStore};
use serde_json::{Value, json};

use super::args;
use super::report::{self, bytes, say};
use super::run::{Context, host, pairs, secrets, usage};
use super::trace;
use crate::app::cache::{self, Collected, Kept};
use crate::app::doctor::{self, Check, Health};
use crate::app::explain::{self, Explained, Fate, Reason};
use crate::app::graph::{self, Vertex};
use crate::app::init::{self, Template};
use crate::app::planned::At;
use crate::app::realise::Options;
use crate::app::shared;
use crate::app::shell::{self, ShellRequest};
use crate::app::{Exit, Failure, Session};
use crate::diag::render_all;
use crate::exec::sandbox::{IdMap, Status};

impl Context<'_> {
    pub(super) fn explain(&self, arguments: &args::Explain) -> Result<ExitCode, Failure> {
        let at = arguments.at.as_deref().map(At::parse).transpose()?;
        let project = self.project(None)?;
        let options = Options {
            allow_downgrade: arguments.tiers.allow_tier_downgrade,
            ..options(&arguments.args, arguments.dirty)?
        };
        // Keys depend on the ids that steps have here, so this asks for them as a build does.
        let settings = self.settings(Self::ids(project.executes())?)?;
        let progress = self.progress();
        let session = Session::open(&settings, &progress, &self.cancel)?;
        let sources = arguments.sources;
        let explained = explain::explain(&session, &project, at.as_ref(), &options, sources)?;
        if self.cli.global.json {
            let ops: Vec<Value> = explained.iter().map(explained_json).collect();
            result(&json!({ "ops": ops }));
        } else if sources {
            for line in trace::lines(&explained) {
                report::data(&line);
            }
        } else {
            for line in explained_lines(&explained) {
                report::data(&line);
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    pub(super) fn graph(&self, arguments: &args::Graph) -> Result<ExitCode, Failure> {
        let project = self.project(arguments.file.as_deref())?;
        let options = options(&arguments.args, arguments.dirty)?;
        let settings = self.settings(IdMap::Single)?;
        let progress = self.progress();
        let session = Session::open(&settings, &progress, &self.cancel)?;
        let vertices = graph::graph(&session, &project, &options)?;
        if self.cli.global.json {
            let ops: Vec<Value> = vertices.iter().map(vertex_json).collect();
            result(&json!({ "ops": ops }));
        } else {
            let text = match arguments.format {
                args::GraphFormat::Text => graph::to_text(&vertices),
                args::GraphFormat::Dot => graph::to_dot(&vertices),
            };
            report::data(text.trim_end());
        }
        Ok(ExitCode::SUCCESS)
    }

    pub(super) fn shell(&self, arguments: &args::Shell) -> Result<ExitCode, Failure> {
        let request = ShellRequest {
            at: At::parse(&arguments.at)?,
            writable: arguments.writable,
            terminal: ["TERM", "COLORTERM"]
                .into_iter()
                .filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)))
                .collect(),
            options: Options {
                secrets: secrets(&arguments.secret)?,
                allow_downgrade: arguments.tiers.allow_tier_downgrade,
                ..options(&arguments.args, arguments.dirty)?
            },
        };
        let project = self.project(None)?;
        let settings = self.settings(Self::ids(true)?)?;
        let progress = self.progress();
        self.listen_for_signals();
        let session = Session::open(&settings, &progress, &self.cancel)?;
        let found = shell::find(&session, &project, &request)?;
        if let Some(failure) = &found.failure {
            say(render_all(&failure.diagnostics, self.style).trim_end());
        }
        if !self.cli.global.quiet {
            let how = if found.failed {
                "as it failed"
            } else {
                "as it ended"
            };
            let writes = if request.writable {
                "changes are thrown away at the end"
            } else {
                "read-only but for /tmp"
            };
            say(&format!("shell     {} {how}; {writes}", found.label));
        }
        let status = shell::open(&session, &project, &request, &found)?;
        // What the last command typed gave is no verdict of ours.
        if self.cli.global.json {
            let (exited, signal) = match status {
                Status::Exited(code) => (Some(code), None),
                Status::Signalled(signal) => (None, Some(signal)),
                Status::TimedOut | Status::Spun(_) => (None, None),
            };
            result(&json!({
                "at": found.label, "failed": found.failed, "exited": exited, "signal": signal,
            }));
        }
        Ok(ExitCode::SUCCESS)
    }

    pub(super) fn doctor(&self) -> Result<ExitCode, Failure> {
        let store = self.store_path()?;
        let elsewhere = std::env::temp_dir();
        let checks = doctor::doctor(&store, &elsewhere)?;
        let worst = checks.iter().map(|check| check.health).max();
        let bad = worst == Some(Health::Bad);
        if self.cli.global.json {
            let checks: Vec<Value> = checks.iter().map(check_json).collect();
            result(&json!({
                "ok": !bad,
                "exit": if bad { Exit::Machine as u8 } else { 0 },
                "checks": checks,
            }));
        } else {
            checks
                .iter()
                .flat_map(check_lines)
                .for_each(|line| report::data(&line));
        }
        Ok(if bad {
            ExitCode::from(Exit::Machine as u8)
        } else {
            ExitCode::SUCCESS
        })
    }

    pub(super) fn cache(&self, command: &args::Cache) -> Result<ExitCode, Failure> {
        if let args::Cache::Key { file } = command {
            return self.cache_key(file.as_deref());
        }
        if !matches!(command, args::Cache::Log { .. }) {
            // Snapshots hold files of users that only the user namespace of a build has. Where there is none, what is
            // left is told.
            let _ = Self::ids(true);
        }
        let mut store = LocalStore::open(&self.store_path()?)?;
        match command {
            args::Cache::Key { .. } => unreachable!("it needs no store"),
            args::Cache::Log { digest } => report::raw(&cache::log(&store, digest)?),
            args::Cache::Stat => {
                let kept = cache::stat(&store)?;
                if self.cli.global.json {
                    result(&kept_json(&kept));
                } else {
                    for line in kept_lines(&store, &kept) {
                        report::data(&line);
                    }
                }
            }
            args::Cache::Gc { max_size } => {
                let cap = max_size.as_deref().map(size).transpose()?;
                let collected = cache::gc(&mut store, cap)?;
                if self.cli.global.json {
                    result(&collected_json(&collected));
                } else if !self.cli.global.quiet {
                    for line in collected_lines(&collected) {
                        say(&line);
                    }
                }
            }
            args::Cache::Fsck => {
                let found = cache::fsck(&store)?;
                self.tell_fsck(&found);
                if !found.is_clean() {
                    return Ok(ExitCode::from(Exit::Local as u8));
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn cache_key(&self, file: Option<&Path>) -> Result<ExitCode, Failure> {
        let (key, is_new) = shared::key(&host()?.sharing, file)?;
        if let Some(file) = file
            && is_new
            && !self.cli.global.quiet
        {
            let shown = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
            let shown = shown.display();
            say(&format!(
                "made      {shown}: keep it secret, and name it in your `config.toml`: `cache.key = \"{shown}\"`"
            ));
        }
        if self.cli.global.json {
            result(&json!({ "key": key.to_string(), "new": is_new }));
        } else {
            report::data(&key.to_string());
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Damaged objects are data, the summary is for people.
    fn tell_fsck(&self, found: &FsckReport) {
        if self.cli.global.json {
            let damaged: Vec<String> = found.damaged.iter().map(ToString::to_string).collect();
            result(&json!({
                "ok": found.is_clean(),
                "objects": found.objects,
                "records": found.records,
                "damaged": damaged,
                "damaged-records": found.damaged_records,
            }));
            return;
        }
        for digest in &found.damaged {
            report::data(&digest.to_string());
        }
        if self.cli.global.quiet && found.is_clean() {
            return;
        }
        let fate = if found.is_clean() {
            ""
        } else {
            ": set aside, the next build makes them anew"
        };
        say(&format!(
            "checked   {}, {}",
            counted(found.objects, "object", "objects"),
            counted(found.records, "record", "records")
        ));
        say(&format!(
            "damaged   {}, {}{fate}",
            counted(found.damaged.len() as u64, "object", "objects"),
            counted(found.damaged_records, "record", "records")
        ));
    }

    pub(super) fn init(&self, arguments: &args::Init) -> Result<ExitCode, Failure> {
        let spec = self.cli.global.spec.clone();
        let spec = spec.unwrap_or_else(|| PathBuf::from("spec.toml"));
        let template = arguments.from.map(|from| match from {
            args::Template::Static => Template::Static,
            args::Template::Site => Template::Site,
            args::Template::Compile => Template::Compile,
        });
        let done = init::init(&spec, template)?;
        if self.cli.global.json {
            let written: Vec<String> = done.written.iter().map(|path| shown(path)).collect();
            result(&json!({ "written": written, "next": done.next }));
        } else if !self.cli.global.quiet {
            for path in &done.written {
                say(&format!("written   {}", path.display()));
            }
            for line in &done.next {
                say(&format!("next      {line}"));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// How sources are read where nothing is built.
fn options(given: &[String], dirty: bool) -> Result<Options, Failure> {
    Ok(Options {
        args: pairs(given, "--arg")?,
        dirty,
        ..Options::default()
    })
}

/// The last line of `--json`.
fn result(fields: &Value) {
    let mut value = json!({ "event": "result", "ok": true });
    if let (Some(value), Some(fields)) = (value.as_object_mut(), fields.as_object()) {
        value.extend(fields.clone());
    }
    report::data(&value.to_string());
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn size(text: &str) -> Result<u64, Failure> {
    cache::parse_size(text).ok_or_else(|| {
        usage(format!("`--max-size {text}` is no size")).hint("write it as `500M` or `20G`")
    })
}

/// Why, in words that follow what will be done.
fn reason(reason: &Reason) -> String {
    match reason {
        Reason::FirstBuild => "no build of this spec is remembered".into(),
        Reason::New => "the last build had no such step or source".into(),
        Reason::Changed => "it is not what it was".into(),
        Reason::Input(label) => format!("`{label}` changed"),
        Reason::Failed => "it failed when it ran like this".into(),
        Reason::WarmCache => "its cache directories are filled since its result was made".into(),
        Reason::Lost => {
            "its result is no longer in the store, or its surroundings are others".into()
        }
    }
}

/// A line for each op: label, what would be done, the step, and why.
fn explained_lines(all: &[Explained]) -> Vec<String> {
    let width = all.iter().map(|op| op.label.len()).max().unwrap_or(0);
    all.iter()
        .map(|op| {
            let mut why: Vec<String> = Vec::new();
            if let Fate::Waits(others) = &op.fate {
                let others: Vec<String> = others.iter().map(|label| format!("`{label}`")).collect();
                let another = |reason: &Reason| !matches!(reason, Reason::Input(_));
                why.push(if op.reasons.iter().any(another) {
                    format!("after {}", others.join(" and "))
                } else {
                    format!(
                        "runs if {} {} another result",
                        others.join(" or "),
                        if others.len() == 1 { "gives" } else { "give" }
                    )
                });
            }
            // That nothing is remembered is told of what runs; of what is there already it is no news.
            let news = |found: &&Reason| op.fate == Fate::Runs || **found != Reason::FirstBuild;
            why.extend(op.reasons.iter().filter(news).map(reason));
            let mut line = format!(
                "{:width$}  {:6}  {}",
                op.label,
                op.fate.as_str(),
                graph::first_line(&op.text)
            );
            line.truncate(line.trim_end().len());
            if !why.is_empty() {
                let also = if op.fate == Fate::Cached {
                    "though "
                } else {
                    ""
                };
                let _ = write!(line, "  ({also}{})", why.join("; "));
            }
            line
        })
        .collect()
}

fn explained_json(op: &Explained) -> Value {
    let reasons: Vec<Value> = op
        .reasons
        .iter()
        .map(|reason| match reason {
            Reason::Input(input) => json!({ "reason": reason.as_str(), "input": input }),
            _ => json!({ "reason": reason.as_str() }),
        })
        .collect();
    let waits = match &op.fate {
        Fate::Waits(others) => others.iter().cloned().collect(),
        _ => Vec::new(),
    };
    let mut value = json!({
        "label": op.label,
        "text": op.text,
        "op": op.op.to_string(),
        "action": op.action.map(|action| action.to_string()),
        "fate": op.fate.as_str(),
        "reasons": reasons,
        "waits-for": waits,
    });
    if let Some(trace) = &op.trace {
        value["trace"] = trace::json(trace);
    }
    value
}

fn vertex_json(vertex: &Vertex) -> Value {
    let inputs: Vec<String> = vertex.inputs.iter().map(ToString::to_string).collect();
    json!({
        "op": vertex.op.to_string(),
        "kind": vertex.kind,
        "label": vertex.label,
        "text": vertex.text,
        "inputs": inputs,
    })
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn collected_lines(collected: &Collected) -> Vec<String> {
    let Collected {
        store: gc,
        dropped,
        kept,
    } = collected;
    let line =
        |what: &str, objects: u64, records: u64, snapshots: u64, others: Count, size: u64| {
            format!(
                "{what:10}{}, {}, {}, {}: {}",
                counted(objects, "object", "objects"),
                counted(records, "record", "records"),
                counted(snapshots, "snapshot", "snapshots"),
                counted(others.count, "directory", "directories"),
                bytes(size + others.bytes)
            )
        };
    let mut lines = vec![
        line(
            "removed",
            gc.objects_removed,
            gc.records_dropped,
            gc.snapshots_removed,
            *dropped,
            gc.bytes_removed,
        ),
        line(
            "kept",
            gc.objects_kept,
            gc.records_kept,
            gc.snapshots_kept,
            *kept,
            gc.bytes_kept,
        ),
    ];
    if gc.stale_left > 0 {
        lines.push(format!(
            "left      {} with files of users that this process cannot act for",
            counted(gc.stale_left, "directory", "directories")
        ));
    }
    lines
}

fn collected_json(collected: &Collected) -> Value {
    let Collected {
        store: gc,
        dropped,
        kept,
    } = collected;
    json!({
        "objects": { "kept": gc.objects_kept, "removed": gc.objects_removed },
        "records": { "kept": gc.records_kept, "removed": gc.records_dropped },
        "snapshots": { "kept": gc.snapshots_kept, "removed": gc.snapshots_removed },
        "directories": { "kept": kept.count, "removed": dropped.count },
        "bytes": {
            "kept": gc.bytes_kept + kept.bytes,
            "removed": gc.bytes_removed + dropped.bytes,
        },
        "left": gc.stale_left,
    })
}

fn check_lines(check: &Check) -> Vec<String> {
    let mut lines = vec![format!(
        "{:8}{:18}{}",
        check.health.as_str(),
        check.name,
        check.detail
    )];
    lines.extend(
        check
            .fix
            .iter()
            .map(|fix| format!("{:8}{:18}{fix}", "", "to mend it:")),
    );
    lines
}

fn check_json(check: &Check) -> Value {
    json!({
        "name": check.name,
        "health": check.health.as_str(),
        "detail": check.detail,
        "fix": check.fix,
    })
}

fn parts(kept: &Kept) -> [(&'static str, Count); 7] {
    [
        ("large objects", kept.store.blobs),
        ("small objects", kept.store.packed),
        ("records", kept.store.records),
        ("snapshots", kept.store.snapshots),
        ("damaged", kept.store.damaged),
        ("step caches", kept.caches),
        ("repositories", kept.repositories),
    ]
}

fn kept_lines(store: &LocalStore, kept: &Kept) -> Vec<String> {
    let mut lines = vec![format!("{:15}{}", "store", store.path().display())];
    for (name, count) in parts(kept) {
        lines.push(format!(
            "{name:15}{:>9}  {}",
            count.count,
            bytes(count.bytes)
        ));
    }
    lines.push(format!("{:15}{:>9}  {}", "all", "", bytes(kept.bytes())));
    lines
}

fn kept_json(kept: &Kept) -> Value {
    let mut value: serde_json::Map<String, Value> = parts(kept)
        .into_iter()
        .map(|(name, count)| {
            let count = json!({ "count": count.count, "bytes": count.bytes });
            (name.replace(' ', "-"), count)
        })
        .collect();
    value.insert("bytes".into(), kept.bytes().into());
    Value::Object(value)
}
