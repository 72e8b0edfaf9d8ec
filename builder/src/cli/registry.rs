//! The commands about registries: `push`, `copy`, `attach`, `referrers`, `login`.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde_json::json;

use super::args;
use super::report;
use super::run::{Context, host, usage};
use crate::app::locate::{self, ImageAt};
use crate::app::push::{self, PushReport, Targets};
use crate::app::{Exit, Failure, Project, Session, copy, login, referrers};
use crate::diag::Diagnostic;
use crate::exec::sandbox::IdMap;
use crate::output::Names;
use crate::spec::image_name::{ImageName, ImageNameError};

/// Longest line that is taken for a user or a password.
const LINE_MAX: u64 = 64 << 10;

/// Where the image of a spec goes.
pub(super) fn targets_of(project: &Project) -> Result<Targets, Failure> {
    let specs = project.resolve_defaults()?;
    let image = &specs.values().next().expect("a spec has a platform").image;
    let names = Names {
        name: image.name.clone(),
        tags: image.tags.iter().cloned().collect(),
    };
    push::targets(&names, &[])
}

impl Context<'_> {
    pub(super) fn push(&self, arguments: &args::Push) -> Result<ExitCode, Failure> {
        let settings = self.settings(IdMap::Single)?;
        let progress = self.progress();
        self.listen_for_signals();
        let session = Session::open(&settings, &progress, &self.cancel)?;
        let project = match &arguments.image {
            None => Some(self.project(None)?),
            Some(text) => match locate::spec_at(Path::new(text)) {
                Some(path) => Some(Project::open(&path)?),
                None => None,
            },
        };
        let at = self.image(&session, arguments.image.as_deref())?;
        let pushed = self.send(&session, &at, project.as_ref(), &arguments.tag)?;
        if self.cli.global.json {
            let value = json!({
                "event": "result",
                "ok": true,
                "exit": 0,
                "pushed": report::push_json(&pushed),
            });
            report::data(&value.to_string());
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Sends an image and says where it is now.
    pub(super) fn send(
        &self,
        session: &Session<'_>,
        at: &ImageAt<'_>,
        project: Option<&Project>,
        tags: &[String],
    ) -> Result<Vec<PushReport>, Failure> {
        let targets = push::targets(&at.names, tags)?;
        let elsewhere = match project {
            Some(project) => push::elsewhere(session, project)?,
            None => push::Elsewhere::new(),
        };
        let pushed = push::push(session, at, &targets, &elsewhere)
            .map_err(|failure| self.or_interrupted(failure))?;
        if !self.cli.global.json {
            for report in &pushed {
                if !self.cli.global.quiet {
                    report::push(report);
                }
                report::data(&report.reference.to_string());
            }
        }
        Ok(pushed)
    }

    pub(super) fn copy(&self, arguments: &args::Copy) -> Result<ExitCode, Failure> {
        let settings = self.settings(IdMap::Single)?;
        let progress = self.progress();
        self.listen_for_signals();
        let session = Session::open(&settings, &progress, &self.cancel)?;
        let copied = copy::copy(&session, &arguments.from, &arguments.to)
            .map_err(|failure| self.or_interrupted(failure))?;
        let reference = copied.reference.map(|reference| reference.to_string());
        if self.cli.global.json {
            let value = json!({
                "event": "result",
                "ok": true,
                "exit": 0,
                "digest": copied.digest.to_string(),
                "reference": reference,
                "documents": copied.documents,
                "blobs": { "count": copied.blobs.0, "bytes": copied.blobs.1 },
            });
            report::data(&value.to_string());
            return Ok(ExitCode::SUCCESS);
        }
        if !self.cli.global.quiet {
            let (documents, blobs) = (copied.documents, copied.blobs.0);
            let bytes = report::bytes(copied.blobs.1);
            report::say(&format!(
                "copied    {documents} manifests, {blobs} blobs, {bytes}"
            ));
        }
        report::data(&reference.unwrap_or_else(|| copied.digest.to_string()));
        Ok(ExitCode::SUCCESS)
    }

    pub(super) fn attach(&self, arguments: &args::Attach) -> Result<ExitCode, Failure> {
        let name = image_name(&arguments.image)?;
        if !is_media_type(&arguments.artifact_type) {
            let shown = arguments.artifact_type.escape_debug();
            return Err(usage(format!("`{shown}` is no media type"))
                .hint("it is of the form `application/spdx+json`"));
        }
        let settings = self.settings(IdMap::Single)?;
        let progress = self.progress();
        self.listen_for_signals();
        let session = Session::open(&settings, &progress, &self.cancel)?;
        let attached =
            referrers::attach(&session, &name, &arguments.files, &arguments.artifact_type)
                .map_err(|failure| self.or_interrupted(failure))?;
        if self.cli.global.json {
            let value = json!({
                "event": "result",
                "ok": true,
                "exit": 0,
                "reference": attached.reference.to_string(),
                "subject": attached.subject.to_string(),
            });
            report::data(&value.to_string());
            return Ok(ExitCode::SUCCESS);
        }
        if !self.cli.global.quiet {
            let image = name.repository.at(attached.subject);
            report::say(&format!("attached  to {image}"));
        }
        report::data(&attached.reference.to_string());
        Ok(ExitCode::SUCCESS)
    }

    pub(super) fn referrers(&self, arguments: &args::Referrers) -> Result<ExitCode, Failure> {
        let name = image_name(&arguments.image)?;
        let settings = self.settings(IdMap::Single)?;
        let progress = self.progress();
        self.listen_for_signals();
        let session = Session::open(&settings, &progress, &self.cancel)?;
        let artifact_type = arguments.artifact_type.as_deref();
        let into = arguments.fetch.as_deref();
        let found = referrers::referrers(&session, &name, artifact_type, into)
            .map_err(|failure| self.or_interrupted(failure))?;
        if self.cli.global.json {
            let all = found.all.iter().map(|referrer| {
                json!({
                    "digest": referrer.descriptor.digest.to_string(),
                    "type": referrer.artifact_type,
                    "size": referrer.descriptor.size,
                    "annotations": referrer.descriptor.annotations,
                })
            });
            let written = found.written.iter().map(|path| path.display().to_string());
            let value = json!({
                "event": "result",
                "ok": true,
                "exit": 0,
                "subject": found.subject.to_string(),
                "referrers": all.collect::<Vec<_>>(),
                "written": written.collect::<Vec<_>>(),
            });
            report::data(&value.to_string());
            return Ok(ExitCode::SUCCESS);
        }
        for referrer in &found.all {
            let digest = referrer.descriptor.digest;
            // What others wrote is shown, not obeyed.
            let of_type = referrer.artifact_type.escape_debug();
            report::data(format!("{digest}  {of_type}").trim_end());
        }
        if !self.cli.global.quiet {
            for path in &found.written {
                report::say(&format!("written   {}", path.display()));
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    pub(super) fn login(&self, arguments: &args::Login) -> Result<ExitCode, Failure> {
        if self.cli.global.offline {
            return Err(usage("`login` asks the registry, and the network is off"));
        }
        let user = match &arguments.username {
            Some(user) => user.clone(),
            None => ask("user: ")?,
        };
        let password = if arguments.password_stdin {
            line()?
        } else {
            if !std::io::stdin().is_terminal() {
                return Err(usage("there is no terminal to ask for the password")
                    .hint("pipe it in with `--username USER --password-stdin`"));
            }
            let _silenced = Silenced::new().map_err(|error| {
                Failure::of(Exit::Local, &error)
                    .hint("pipe it in with `--username USER --password-stdin`")
            })?;
            let password = ask("password: ");
            report::say("");
            password?
        };
        let host_access = host()?.registries;
        let done = login::login(
            &host_access,
            &self.cancel,
            &arguments.host,
            &user,
            &password,
        )?;
        if self.cli.global.json {
            let value = json!({
                "event": "result",
                "ok": true,
                "exit": 0,
                "host": arguments.host,
                "user": user,
                "checked": done.asked,
            });
            report::data(&value.to_string());
        } else if !self.cli.global.quiet {
            if !done.asked {
                report::say(&format!(
                    "warning: `{}` lets everybody in, so nothing says whether the password is right",
                    arguments.host
                ));
            }
            report::say(&format!("kept      in {}", done.kept));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// An image in a registry, as a command takes it.
fn image_name(text: &str) -> Result<ImageName, Failure> {
    text.parse().map_err(|error: ImageNameError| {
        usage(format!(
            "`{}` is no image in a registry",
            text.escape_debug()
        ))
        .because(error.to_string())
        .hint("it is `HOST/PATH:TAG` or `HOST/PATH@sha256:…`")
    })
}

/// RFC 6838 §4.2, as far as a registry cares.
fn is_media_type(text: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty()
            && name.len() <= 127
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    text.split_once('/')
        .is_some_and(|(top, sub)| is_name(top) && is_name(sub))
}

/// The terminal of standard input without its echo, until it goes.
struct Silenced(Termios);

impl Silenced {
    fn new() -> std::io::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silenced {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// A question to the terminal, and the line that answers it.
fn ask(question: &str) -> Result<String, Failure> {
    let mut out = std::io::stderr().lock();
    let _ = write!(out, "{question}").and_then(|()| out.flush());
    drop(out);
    line()
}

/// A line of standard input without its end.
fn line() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let stdin = std::io::stdin().lock();
    std::io::Read::take(stdin, LINE_MAX)
        .read_until(b'\n', &mut bytes)
        .map_err(|error| Failure::of(Exit::Local, &error))?;
    while matches!(bytes.last(), Some(b'\n' | b'\r')) {
        bytes.pop();
    }
    String::from_utf8(bytes).map_err(|_| {
        let message = "what was typed is not text in UTF-8";
        Failure::new(Exit::Usage, Diagnostic::error(message))
    })
}
