//! How a failed graph is told: which step, what it ran, what it said last, and what to type next.

use super::failure::{Exit, Failure};
use super::project::Project;
use crate::diag::{Diagnostic, Place};
use crate::exec::embedded::RunError;
use crate::exec::sandbox::{SandboxError, Status};
use crate::exec::scheduler::ExecError;
use crate::graph::Origin;
use crate::spec::model::Source;

/// A failed build as sentences.
pub fn of_exec(error: ExecError<RunError, Failure>, project: &Project) -> Failure {
    match error {
        ExecError::Source { name, source } => at_source(source, &name, project),
        ExecError::Run { origin, source } => at_origin(of_step(&origin, source), &origin, project),
        ExecError::File { origin, source } => {
            let failure = Failure::of(Exit::Spec, &source);
            in_step(failure, &origin, project)
        }
        ExecError::Unpack {
            origin,
            path,
            source,
        } => {
            let failure = source.unwrap_or_else(|| {
                Failure::new(
                    Exit::Spec,
                    Diagnostic::error(format!("there is no file `{path}` to unpack")),
                )
            });
            in_step(failure, &origin, project)
        }
        ExecError::Install { origin, source } => match &origin {
            Origin::Source { name } => at_source(source, name, project),
            Origin::Step { .. } | Origin::Start => in_step(source, &origin, project),
        },
        ExecError::Store(error) => error.into(),
        ExecError::Tree(error) => error.into(),
        ExecError::Interrupted => Failure::new(Exit::Interrupted, Diagnostic::error("interrupted")),
    }
}

/// Points at the source in the spec.
fn at_source(failure: Failure, name: &str, project: &Project) -> Failure {
    match source(name, project) {
        Some(source) => {
            let place = Place {
                file: project.file.clone(),
                span: source.span,
            };
            failure.at(place, &source.name)
        }
        None => failure,
    }
}

fn source(name: &str, project: &Project) -> Option<Source> {
    let resolved = project.resolve_defaults().unwrap_or_default();
    resolved
        .into_values()
        .flat_map(|spec| spec.sources.into_values())
        .find(|source| source.name.as_str() == name)
}

/// Shows the step, or the source, where nothing says a place yet.
fn at_origin(mut failure: Failure, origin: &Origin, project: &Project) -> Failure {
    if failure.exit == Exit::Interrupted {
        return failure;
    }
    let span = match origin {
        Origin::Source { name } => source(name, project).map(|source| source.span),
        Origin::Step { stage, number, .. } => {
            let resolved = project.resolve_defaults().unwrap_or_default();
            let mut stages = resolved.values().flat_map(|spec| spec.stages.values());
            stages
                .find(|found| found.name.as_str() == stage)
                .and_then(|stage| stage.steps.get(number - 1))
                .map(|step| step.span)
        }
        Origin::Start => None,
    };
    if let Some(first) = failure.diagnostics.first_mut()
        && first.place.is_none()
    {
        first.place = span.map(|span| Place {
            file: project.file.clone(),
            span,
        });
    }
    failure
}

/// Says in which step of which spec.
fn in_step(mut failure: Failure, origin: &Origin, project: &Project) -> Failure {
    if let Some(first) = failure.diagnostics.first_mut() {
        let message = std::mem::take(&mut first.message);
        first.cause = Some(match first.cause.take() {
            Some(cause) => format!("{message}: {cause}"),
            None => message,
        });
        first.message = match origin {
            Origin::Step { text, .. } => format!("cannot do step `{}`: {text}", origin.label()),
            Origin::Source { .. } | Origin::Start => format!("cannot do `{}`", origin.label()),
        };
    }
    at_origin(failure, origin, project)
}

fn of_step(origin: &Origin, error: RunError) -> Failure {
    let label = origin.label();
    match origin {
        // It has no name that a shell could be opened by.
        Origin::Source { name } => {
            let failed = format!("the scripts of the packages of source `{name}` failed");
            of_run("", failed, error)
        }
        Origin::Step { .. } | Origin::Start => {
            of_run(&label, format!("step `{label}` failed"), error)
        }
    }
}

/// A shell that could not be opened as sentences.
pub fn of_shell(label: &str, error: RunError) -> Failure {
    of_run(
        label,
        format!("cannot open a shell in the root of `{label}`"),
        error,
    )
}

fn of_run(label: &str, failed: String, error: RunError) -> Failure {
    match error {
        RunError::Step {
            status,
            argv,
            tail,
            log,
        } => {
            let how = match status {
                Status::Exited(code) => format!("exited with {code}"),
                Status::Signalled(signal) => format!("was killed by signal {signal}"),
                Status::TimedOut => "took longer than its `timeout` and was killed".into(),
                Status::Spun(spin) => format!("was killed: {spin}"),
            };
            let mut cause = format!("`{}` {how}", argv.join(" "));
            if tail.is_empty() {
                cause.push_str("; it printed nothing");
            } else {
                cause.push_str("; it printed last\n");
                for line in tail.lines() {
                    cause.push_str("    ");
                    cause.push_str(line);
                    cause.push('\n');
                }
                cause.truncate(cause.trim_end().len());
            }
            let mut hints = Vec::from_iter(refused_connection(&tail));
            if let Some(log) = log {
                if !label.is_empty() {
                    hints.push(format!("`immbuild shell {label}` opens a shell where it ended"));
                }
                if !tail.is_empty() {
                    hints.push(format!("the whole log is `immbuild cache log {}`", log.digest().short()));
                }
            }
            let failure = Failure::new(Exit::Step, Diagnostic::error(failed).because(cause));
            if hints.is_empty() { failure } else { failure.hint(hints.join("; ")) }
        }
        RunError::Tier { asked, source } => Failure::new(
            Exit::Machine,
            Diagnostic::error(format!(
                "this machine cannot keep tier `{}` of step `{label}`",
                asked.as_str()
            ))
            .because(source.to_string())
            .hint(format!(
                "{}; or let it run in tier `isolated` with `--allow-tier-downgrade`, which is told but never recorded",
                source.fix
            )),
        ),
        RunError::NoSecret(name) => Failure::new(
            Exit::Usage,
            Diagnostic::error(format!("step `{label}` needs the secret `{name}`"))
                .hint(format!("add `--secret {name}=env:VARIABLE` or `--secret {name}=file:PATH`")),
        ),
        RunError::SecretLeaked { path, name } => Failure::new(
            Exit::Step,
            Diagnostic::error(failed)
                .because(format!("the file `{path}` it left holds the secret `{name}`"))
                .hint("use the secret where it is, in `/run/secrets`, or remove the file in the same step"),
        ),
        RunError::User(error) => told_as(Failure::of(Exit::Spec, &error), failed)
            .hint("a name in `as` must be in the root's /etc/passwd; numbers always work"),
        RunError::Sandbox(error @ SandboxError::Directory { .. }) => {
            let failure: Failure = error.into();
            told_as(failure, failed).hint("`in` must name a directory that is there: make it with `mkdir` or `copy` before")
        }
        RunError::Sandbox(error) => told_as(error.into(), failed),
        RunError::HostFs(error) => told_as(error.into(), failed),
        RunError::Store(error) => error.into(),
        RunError::Tree(error) => error.into(),
        error @ RunError::Cache { .. } => Failure::of(Exit::Local, &error),
    }
}

fn told_as(mut failure: Failure, message: String) -> Failure {
    if failure.exit == Exit::Interrupted {
        return failure;
    }
    if let Some(first) = failure.diagnostics.first_mut() {
        let was = std::mem::replace(&mut first.message, message);
        first.cause = Some(match first.cause.take() {
            Some(cause) => format!("{was}: {cause}"),
            None => was,
        });
    }
    failure
}

/// Does the log say that a host could not be reached? Then what it wanted can be declared.
fn refused_connection(tail: &str) -> Option<String> {
    const SIGNS: [&str; 7] = [
        "Could not resolve host",
        "Temporary failure in name resolution",
        "Temporary failure resolving",
        "Name or service not known",
        "Network is unreachable",
        "Connection refused",
        "bad address",
    ];
    let line = tail
        .lines()
        .find(|line| SIGNS.iter().any(|sign| line.contains(sign)))?;
    let url = line
        .split(|c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '`' | '(' | ')'))
        .find(|word| word.starts_with("https://") || word.starts_with("http://"));
    let url = url.map_or("https://…", |url| url.trim_end_matches([':', ',', '.']));
    Some(format!(
        "a step has no network: declare what it wants, `source.NAME.http = \"{url}\"`, and copy it in"
    ))
}
