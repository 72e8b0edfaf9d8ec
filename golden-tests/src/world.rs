//! One build of one example under chosen surroundings.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

use crate::machine::{User, run};

/// What a process can see of its surroundings and an image must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Environment {
    /// umask 022, `TZ=UTC`, `LANG=C.UTF-8`, the machine's name, in the spec's directory.
    Plain,
    /// umask 077, another time zone, a locale that is not there, another host name and home, in `/`, with less priority
    /// and another limit of open files.
    Odd,
}

/// The surroundings of a build.
#[derive(Clone, Debug)]
pub struct World<'a> {
    /// Who builds.
    pub user: User,
    /// A directory on the file system to build on, which everybody may write to.
    pub place: &'a Path,
    /// On how many CPUs.
    pub cpus: usize,
    /// The first of them.
    pub first_cpu: usize,
    /// With how many threads; none: the default.
    pub threads: Option<usize>,
    /// What the process sees.
    pub environment: Environment,
}

impl World<'_> {
    /// The same, for the build that this thread of several runs: what has one CPU gets the thread's own.
    #[must_use]
    pub fn on(&self, thread: usize) -> Self {
        let first_cpu = if self.cpus == 1 { thread } else { 0 };
        Self {
            first_cpu,
            ..self.clone()
        }
    }

    /// Lays a copy of `example` under a new directory `name`, owned by the user, with the modes that the environment's
    /// umask gives and times of now.
    pub fn lay(&self, example: &Path, name: &str) -> Result<PathBuf> {
        let directory = self.place.join(name);
        ensure!(
            !directory.exists(),
            "{} is there already",
            directory.display()
        );
        let umask = match self.environment {
            Environment::Plain => "022",
            Environment::Odd => "077",
        };
        let script = format!(
            "umask {umask}; cp -R --no-preserve=mode,timestamps \"$1\" \"$2\" && \
             cd \"$1\" && find . -type f -perm /111 -exec chmod u+x \"$2/{{}}\" ';'"
        );
        run(
            "sh",
            &["-c", &script, "sh", &text(example), &text(&directory)],
        )?;
        run(
            "chown",
            &[
                "-R",
                "--no-dereference",
                &self.user.id()?.to_string(),
                &text(&directory),
            ],
        )?;
        Ok(directory)
    }

    /// The command line that runs `immbuild` with these arguments in this world.
    pub fn command(&self, arguments: &[OsString], directory: &Path) -> Result<Command> {
        let uid = self.user.id()?;
        let (umask, host, cwd) = match self.environment {
            Environment::Plain => ("022", "", directory),
            Environment::Odd => ("077", "some-other-host", Path::new("/")),
        };
        let mut command = Command::new("unshare");
        command.args(["--uts", "sh", "-c"]);
        command
            .arg("[ -z \"$1\" ] || hostname \"$1\"; umask \"$2\"; cd \"$3\"; shift 3; exec \"$@\"");
        command.args(["sh", host, umask]).arg(cwd);
        command.args(["taskset", "--cpu-list"]);
        let last = self.first_cpu + self.cpus - 1;
        command.arg(format!("{}-{last}", self.first_cpu));
        if self.environment == Environment::Odd {
            command.args(["nice", "-n", "5", "prlimit", "--nofile=777:"]);
        }
        if self.user != User::Root {
            let id = uid.to_string();
            command.args(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"]);
        }
        // No build takes as long: a check must not wait for ever for one that hangs.
        command.args(["timeout", "--foreground", "--kill-after=60", "600"]);
        command.arg(crate::immbuild()).args(arguments);
        if let Some(threads) = self.threads {
            command.args(["--threads", &threads.to_string()]);
        }
        command.env_clear();
        command.env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        );
        match self.environment {
            Environment::Plain => {
                command
                    .env("TZ", "UTC")
                    .env("LANG", "C.UTF-8")
                    .env("HOME", directory);
                command.env("USER", self.user.name());
            }
            Environment::Odd => {
                command
                    .env("TZ", "Pacific/Kiritimati")
                    .env("LC_ALL", "tr_TR.UTF-8");
                command
                    .env("HOME", "/nonexistent")
                    .env("EXTRA", "something else");
                command
                    .env("MAKEFLAGS", "-j7")
                    .env("CFLAGS", "-O0")
                    .env("USER", "somebody");
            }
        }
        Ok(command)
    }

    /// Builds the spec in `directory` and gives its digest, or the output of the failed run.
    pub fn build(
        &self,
        directory: &Path,
        store: &Path,
        more: &[&str],
    ) -> Result<Result<String, Output>> {
        let mut arguments: Vec<OsString> = vec![
            "build".into(),
            directory.join("spec.toml").into(),
            "--store".into(),
            store.into(),
        ];
        arguments.extend(more.iter().map(Into::into));
        let output = self
            .command(&arguments, directory)?
            .output()
            .context("cannot run immbuild in another world")?;
        if !output.status.success() {
            return Ok(Err(output));
        }
        let stdout = String::from_utf8(output.stdout).context("a digest is text")?;
        let digest = stdout.trim().to_owned();
        ensure!(
            digest.starts_with("sha256:") && digest.len() == 71,
            "stdout is not one digest: {stdout:?}"
        );
        Ok(Ok(digest))
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
