//! Each command: arguments into a request, the use case, and its result into words.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Read as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Instant, SystemTime};

use serde_json::Value;

use super::args::{self, Cli, Command};
use super::registry::targets_of;
use super::report;
use crate::app::build::{self, BuildRequest};
use crate::app::locate;
use crate::app::lock::{self, LockOptions, UpdateRequest};
use crate::app::outputs::OutputRequest;
use crate::app::project::{io_failure, write_atomically};
use crate::app::realise::Options;
use crate::app::session::Host;
use crate::app::shared::{self, Sharable};
use crate::app::user::{self, User};
use crate::app::{Exit, Failure, Project, Session, Settings, sbom, vendor, why};
use crate::cargo::places::CargoPlaces;
use crate::diag::{Diagnostic, Style, render};
use crate::exec::embedded::Secrets;
use crate::exec::sandbox::{IdMap, enter_if_needed};
use crate::python::places;
use crate::registry::Access;
use crate::registry::credentials::CredentialFiles;
use crate::sbom::Form;
use crate::spec::image_name::ImageRepository;
use crate::ui::{Progress, Show};

/// What a command is run with.
pub(super) struct Context<'a> {
    pub(super) cli: &'a Cli,
    pub(super) style: Style,
    /// Set when the process is asked to stop.
    pub(super) cancel: Arc<AtomicBool>,
    /// By which signal.
    signal: Arc<AtomicUsize>,
}

pub(super) fn run(cli: &Cli, style: Style) -> Result<ExitCode, Failure> {
    let context = Context {
        cli,
        style,
        cancel: Arc::default(),
        signal: Arc::default(),
    };
    match &cli.command {
        Command::Build(arguments) => context.build(arguments),
        Command::Lock(arguments) => context.lock(arguments),
        Command::Update(arguments) => context.update(arguments),
        Command::Inspect(arguments) => context.inspect(arguments),
        Command::Compare(arguments) => context.compare(arguments),
        Command::Verify(arguments) => context.verify(arguments),
        Command::Load(arguments) => context.load(arguments),
        Command::Manifest(arguments) => context.manifest(arguments),
        Command::Push(arguments) => context.push(arguments),
        Command::Copy(arguments) => context.copy(arguments),
        Command::Attach(arguments) => context.attach(arguments),
        Command::Referrers(arguments) => context.referrers(arguments),
        Command::Login(arguments) => context.login(arguments),
        Command::Init(arguments) => context.init(arguments),
        Command::Shell(arguments) => context.shell(arguments),
        Command::Explain(arguments) => context.explain(arguments),
        Command::Graph(arguments) => context.graph(arguments),
        Command::Why(arguments) => context.why(arguments),
        Command::Vendor(arguments) => context.vendor(arguments),
        Command::Sbom(arguments) => context.sbom(arguments),
        Command::Supervise(arguments) => context.supervise(arguments),
        Command::Doctor => context.doctor(),
        Command::Cache(command) => context.cache(command),
        Command::Schema => {
            report::data(crate::spec::schema::schema().trim_end());
            Ok(ExitCode::SUCCESS)
        }
        Command::Completions { shell } => {
            let mut out = Vec::new();
            clap_complete::generate(*shell, &mut super::command(), "immbuild", &mut out);
            report::data(String::from_utf8_lossy(&out).trim_end());
            Ok(ExitCode::SUCCESS)
        }
        Command::Man => {
            let page = super::manual::manual(super::command()).expect("a vector takes everything");
            report::raw(&page);
            Ok(ExitCode::SUCCESS)
        }
        Command::Check(_) => Err(not_yet("`check`")),
        Command::Audit(_) => Err(not_yet("`audit`")),
        Command::Attest(_) => Err(not_yet("`attest`")),
    }
}

/// Known to the reference, and of a later version.
pub(super) fn not_yet(what: &str) -> Failure {
    Failure::new(
        Exit::Usage,
        Diagnostic::error(format!("{what} is not supported by this version")),
    )
}

pub(super) fn usage(message: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, Diagnostic::error(message.into()))
}

impl Context<'_> {
    pub(super) fn progress(&self) -> Progress {
        let global = &self.cli.global;
        let show = if global.quiet {
            Show::Nothing
        } else if global.json {
            Show::Json
        } else if std::io::stderr().is_terminal() {
            Show::Rows
        } else {
            Show::Lines
        };
        Progress::new(show, self.style)
    }

    /// The spec a command is about.
    pub(super) fn project(&self, positional: Option<&Path>) -> Result<Project, Failure> {
        let path = match (positional, &self.cli.global.spec) {
            (Some(_), Some(_)) => {
                return Err(
                    usage("the spec is named twice").hint("name it once: as argument or with `-f`")
                );
            }
            (Some(path), None) => path.to_owned(),
            (None, Some(path)) => path.clone(),
            (None, None) => PathBuf::from("spec.toml"),
        };
        let path = if path.is_dir() {
            path.join("spec.toml")
        } else {
            path
        };
        let project = Project::open(&path)?;
        if !self.cli.global.quiet {
            for warning in project.spec.warnings() {
                report::say(render(warning, self.style).trim_end());
            }
        }
        Ok(project)
    }

    /// Whoever executes steps needs the ids that files of an image have. This may start the program again, once.
    pub(super) fn ids(executes: bool) -> Result<IdMap, Failure> {
        if !executes {
            return Ok(IdMap::Single);
        }
        enter_if_needed().map_err(|error| Failure::of(Exit::Machine, &error).hint(error.fix()))
    }

    pub(super) fn store_path(&self) -> Result<PathBuf, Failure> {
        match &self.cli.global.store {
            Some(store) => Ok(store.clone()),
            None => default_store(),
        }
    }

    pub(super) fn settings(&self, ids: IdMap) -> Result<Settings, Failure> {
        let global = &self.cli.global;
        let store = self.store_path()?;
        let started = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map(|since| {
                (
                    i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                    since.subsec_nanos(),
                )
            })
            .unwrap_or_default();
        let threads = global
            .threads
            .unwrap_or_else(|| std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN));
        Ok(Settings {
            store,
            offline: global.offline,
            threads,
            ids,
            ssh: std::env::var("GIT_SSH_COMMAND").ok(),
            source_date_epoch: std::env::var("SOURCE_DATE_EPOCH").ok(),
            host: host()?,
            started,
        })
    }

    fn build(&self, arguments: &args::Build) -> Result<ExitCode, Failure> {
        let later = &arguments.later;
        if later.executor.is_some() {
            return Err(not_yet("`--executor`"));
        }
        let start = Instant::now();
        let project = self.project(arguments.file.as_deref())?;
        let request = BuildRequest {
            locked: arguments.locked,
            expected: arguments.expected,
            record: arguments.record,
            ignore_expectations: false,
            platforms: arguments.platform.clone(),
            stage: arguments.stage.clone(),
            outputs: outputs(&arguments.output)?,
            no_outputs: arguments.stage.is_some(),
            options: Options {
                args: pairs(&arguments.args, "--arg")?,
                secrets: secrets(&arguments.secret)?,
                dirty: arguments.dirty,
                rerun: arguments.rerun,
                // SPEC A, "Running": what is published never saw a filled cache.
                // Nor did what machines share.
                empty_caches: arguments.without_caches
                    || arguments.push
                    || !arguments.cache_from.is_empty()
                    || !arguments.cache_to.is_empty(),
                distrust_times: arguments.record,
                allow_downgrade: arguments.tiers.allow_tier_downgrade,
                cache_from: arguments.cache_from.clone(),
                forget: false,
            },
        };
        if arguments.push {
            // Before it takes hours to find out.
            targets_of(&project)?;
        }
        let settings = self.settings(Self::ids(project.executes())?)?;
        let progress = self.progress();
        self.listen_for_signals();
        let session = Session::open(&settings, &progress, &self.cancel)?;
        // Before it takes hours to find out.
        shared::check(&session, &arguments.cache_from, &arguments.cache_to)?;
        let built = build::build(&session, &project, &request)
            .map_err(|failure| self.or_interrupted(failure))?;
        let seconds = start.elapsed().as_secs_f64();
        let (json, quiet) = (self.cli.global.json, self.cli.global.quiet);
        if !json && !quiet {
            let next = !arguments.push && std::io::stderr().is_terminal();
            report::build(&built, seconds, next);
        }
        let mut value = report::build_json(&built, seconds);
        if arguments.push {
            let at = locate::last_of(&session, &project)?;
            let pushed = self.send(&session, &at, Some(&project), &[])?;
            value["pushed"] = report::push_json(&pushed);
        } else if !json {
            report::data(&built.digest.to_string());
        }
        // The image is where it should be, whatever becomes of this.
        let sent = self.share(&session, &built.sharable, &arguments.cache_to, &mut value);
        if json {
            report::data(&value.to_string());
        }
        sent?;
        Ok(ExitCode::SUCCESS)
    }

    /// `--cache-to`
    fn share(
        &self,
        session: &Session<'_>,
        results: &[Sharable],
        to: &[ImageRepository],
        value: &mut Value,
    ) -> Result<(), Failure> {
        for to in to {
            let sent = shared::send(session, results, to)
                .map_err(|failure| self.or_interrupted(failure))?;
            if !self.cli.global.json && !self.cli.global.quiet {
                report::sent(to, &sent);
            }
            value["shared"][to.to_string()] = report::sent_json(&sent);
        }
        Ok(())
    }

    fn lock(&self, arguments: &args::Lock) -> Result<ExitCode, Failure> {
        let project = self.project(arguments.file.as_deref())?;
        if arguments.check {
            lock::check(&project)?;
            if !self.cli.global.quiet {
                report::say("the lock is complete and up to date");
            }
            if !arguments.online {
                return Ok(ExitCode::SUCCESS);
            }
        }
        let settings = self.settings(IdMap::Single)?;
        let progress = self.progress();
        let session = Session::open(&settings, &progress, &self.cancel)?;
        if arguments.online {
            let request = UpdateRequest {
                dry_run: true,
                ..UpdateRequest::default()
            };
            // A spec with nothing to lock has no lock, and nothing that could move.
            if project.read_lock()?.is_some() {
                self.tell_lock(&lock::update(&session, &project, &request)?);
            }
            return Ok(ExitCode::SUCCESS);
        }
        let options = LockOptions {
            allow_expired: arguments.allow_expired,
        };
        let report = lock::lock(&session, &project, options)?;
        self.tell_lock(&report);
        Ok(ExitCode::SUCCESS)
    }

    fn update(&self, arguments: &args::Update) -> Result<ExitCode, Failure> {
        let project = self.project(None)?;
        let settings = self.settings(IdMap::Single)?;
        let progress = self.progress();
        let session = Session::open(&settings, &progress, &self.cancel)?;
        let request = UpdateRequest {
            sources: arguments.sources.clone(),
            epoch: arguments.epoch,
            dry_run: arguments.dry_run,
            options: LockOptions {
                allow_expired: arguments.allow_expired,
            },
        };
        let report = lock::update(&session, &project, &request)?;
        self.tell_lock(&report);
        Ok(ExitCode::SUCCESS)
    }

    fn why(&self, arguments: &args::Why) -> Result<ExitCode, Failure> {
        let project = self.project(None)?;
        let found = why::why(&project, &arguments.package)?;
        if self.cli.global.json {
            report::data(&report::why_json(&found).to_string());
        } else {
            report::why(&arguments.package, &found);
        }
        Ok(ExitCode::SUCCESS)
    }

    fn sbom(&self, arguments: &args::Sbom) -> Result<ExitCode, Failure> {
        let project = self.project(None)?;
        let form = match arguments.format {
            args::SbomForm::Spdx => Form::Spdx,
            args::SbomForm::Cyclonedx => Form::CycloneDx,
        };
        let document = sbom::sbom(&project, form)?;
        match &arguments.output {
            Some(path) => write_atomically(path, document.as_bytes())
                .map_err(|error| io_failure("write", path, &error))?,
            None => report::data(&String::from_utf8_lossy(document.as_bytes())),
        }
        Ok(ExitCode::SUCCESS)
    }

    fn vendor(&self, arguments: &args::Vendor) -> Result<ExitCode, Failure> {
        let settings = self.settings(IdMap::Single)?;
        let progress = self.progress();
        let session = Session::open(&settings, &progress, &self.cancel)?;
        let report = match (&arguments.output, &arguments.read) {
            (Some(out), _) => vendor::vendor(&session, &self.project(None)?, out)?,
            (None, Some(layout)) => vendor::read(&session.store, layout)?,
            (None, None) => unreachable!("one of the two is required"),
        };
        if self.cli.global.json {
            report::data(&report::vendor_json(&report).to_string());
            return Ok(ExitCode::SUCCESS);
        }
        if !self.cli.global.quiet {
            let done = if report.manifest.is_some() {
                "written"
            } else {
                "read   "
            };
            report::say(&format!(
                "{done}   {} files, {}",
                report.files,
                report::bytes(report.bytes)
            ));
        }
        if let Some(manifest) = report.manifest {
            report::data(&manifest.to_string());
        }
        Ok(ExitCode::SUCCESS)
    }

    fn tell_lock(&self, found: &lock::LockReport) {
        if self.cli.global.json {
            report::data(&report::lock_json(found).to_string());
        } else if !self.cli.global.quiet {
            report::lock(found);
        }
    }

    /// From now on SIGINT and SIGTERM end the work in an orderly way; a second one ends it at once.
    pub(super) fn listen_for_signals(&self) {
        use signal_hook::consts::{SIGINT, SIGTERM};

        for signal in [SIGINT, SIGTERM] {
            // Without the handlers the signals end the process as they always do, which loses nothing either.
            let _ = signal_hook::flag::register_conditional_shutdown(
                signal,
                128 + signal,
                Arc::clone(&self.cancel),
            );
            let number = usize::try_from(signal).expect("a signal is a small number");
            let _ = signal_hook::flag::register_usize(signal, Arc::clone(&self.signal), number);
            let _ = signal_hook::flag::register(signal, Arc::clone(&self.cancel));
        }
    }

    /// Whatever fails after the process was asked to stop, fails because of that.
    pub(super) fn or_interrupted(&self, failure: Failure) -> Failure {
        let terminated = usize::try_from(signal_hook::consts::SIGTERM);
        if !self.cancel.load(Ordering::Relaxed) {
            failure
        } else if terminated == Ok(self.signal.load(Ordering::Relaxed)) {
            Failure::new(Exit::Terminated, Diagnostic::error("terminated"))
        } else {
            Failure::new(Exit::Interrupted, Diagnostic::error("interrupted"))
        }
    }
}

/// `$XDG_CACHE_HOME/immbuild`, else `~/.cache/immbuild` (XDG Base Directory Specification).
/// Where packages are and who signs them, as this machine and its user have it.
pub(super) fn host() -> Result<Host, Failure> {
    let configuration = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
    let user = match configuration {
        Some(path) => user::read(&path.join("immbuild/config.toml"))?,
        None => User::default(),
    };
    let variable = |name: &str| std::env::var(name).ok();
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    Ok(Host {
        mirrors: user.mirrors,
        cargo: CargoPlaces {
            home: variable("CARGO_HOME")
                .map(PathBuf::from)
                .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".cargo"))),
            downloads: user.downloads,
        },
        registries: Access {
            hosts: user.registries,
            certificates: vec![
                "/etc/docker/certs.d".into(),
                "/etc/containers/certs.d".into(),
            ],
            credentials: credential_files(&variable),
        },
        sharing: user.sharing,
        python: user
            .python
            .unwrap_or_else(|| places::of_pip(&variable, &read)),
        ..Host::default()
    })
}

/// Where Docker and podman keep credentials (docker-login(1), podman-login(1)): what a variable names before what a home has.
fn credential_files(variable: &dyn Fn(&str) -> Option<String>) -> CredentialFiles {
    let path = |name: &str, rest: &str| {
        let directory = variable(name).filter(|value| !value.is_empty())?;
        Some(PathBuf::from(directory).join(rest))
    };
    let docker =
        path("DOCKER_CONFIG", "config.json").or_else(|| path("HOME", ".docker/config.json"));
    let named = variable("REGISTRY_AUTH_FILE").filter(|value| !value.is_empty());
    let read = [
        named.map(PathBuf::from),
        docker.clone(),
        path("XDG_RUNTIME_DIR", "containers/auth.json"),
        path("XDG_CONFIG_HOME", "containers/auth.json")
            .or_else(|| path("HOME", ".config/containers/auth.json")),
    ];
    CredentialFiles {
        read: read.into_iter().flatten().collect(),
        write: docker,
    }
}

fn default_store() -> Result<PathBuf, Failure> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("immbuild"))
        .ok_or_else(|| {
            usage("there is no place for the store: neither `XDG_CACHE_HOME` nor `HOME` is set")
                .hint("name one with `--store DIR`")
        })
}

pub(super) fn pairs(texts: &[String], flag: &str) -> Result<BTreeMap<String, String>, Failure> {
    texts
        .iter()
        .map(|text| {
            text.split_once('=')
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .ok_or_else(|| usage(format!("`{flag} {text}` has no `=`")))
        })
        .collect()
}

fn outputs(texts: &[String]) -> Result<Vec<OutputRequest>, Failure> {
    texts
        .iter()
        .map(|text| {
            OutputRequest::parse(text).map_err(|reason| {
                usage(format!("`--output {text}` names no output"))
                    .because(reason)
                    .hint("write it as `--output kind=oci-archive,file=out/image.tar`")
            })
        })
        .collect()
}

/// Secrets are read here, once, and handed down as bytes.
pub(super) fn secrets(texts: &[String]) -> Result<Secrets, Failure> {
    let mut secrets = Secrets::new();
    for text in texts {
        let form = || {
            usage(format!("`--secret {text}` names no secret"))
                .hint("write it as `--secret name=env:VARIABLE` or `--secret name=file:PATH`")
        };
        let (name, from) = text.split_once('=').ok_or_else(form)?;
        let value = match from.split_once(':') {
            Some(("env", variable)) => std::env::var_os(variable)
                .map(std::os::unix::ffi::OsStringExt::into_vec)
                .ok_or_else(|| {
                    usage(format!(
                        "secret `{name}` is to come from `{variable}`, which is not set"
                    ))
                })?,
            Some(("file", path)) => {
                let mut value = Vec::new();
                std::fs::File::open(path)
                    .and_then(|file| file.take(1 << 20).read_to_end(&mut value))
                    .map_err(|error| {
                        Failure::new(
                            Exit::Unreachable,
                            Diagnostic::error(format!("cannot read secret `{name}` from `{path}`"))
                                .because(error.to_string()),
                        )
                    })?;
                value
            }
            _ => return Err(form()),
        };
        secrets.insert(name.to_owned(), value);
    }
    Ok(secrets)
}
