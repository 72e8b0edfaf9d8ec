//! The commands about registries: `push`, `login`.

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
use crate::app::{Exit, Failure, Project, Session, login};
use crate::diag::Diagnostic;
use crate::exec::sandbox::IdMap;
use crate::output::Names;

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
