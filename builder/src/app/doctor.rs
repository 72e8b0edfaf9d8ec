//! What this machine can do, found out by trying, and what to do about what it cannot.

use std::path::Path;
use std::process::{Command, Stdio};

use immbuild_cas::store::LocalStore;

use super::failure::Failure;
use crate::exec::sandbox::{self, FOREIGN_FIX, Foreign, Outcome, Probe, runs_programs_of};
use crate::output::Engine;
use crate::platform::Platform;

/// How something that was tried went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// It works, or is as it should be.
    Good,
    /// Builds work, but not all that can be built.
    Limited,
    /// Something needed does not work.
    Bad,
}

impl Health {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Limited => "limited",
            Self::Bad => "failed",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What, in a few words.
    pub name: String,
    /// How it is.
    pub health: Health,
    /// What was found.
    pub detail: String,
    /// What to do about it, unless it is good.
    pub fix: Option<String>,
}

impl Check {
    fn good(name: &str, detail: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            health: Health::Good,
            detail: detail.into(),
            fix: None,
        }
    }

    fn of_failure(name: &str, failure: &Failure) -> Self {
        let first = failure.diagnostics.first();
        let detail = first.map_or_else(String::new, |first| match &first.cause {
            Some(cause) => format!("{}: {cause}", first.message),
            None => first.message.clone(),
        });
        Self {
            name: name.into(),
            health: Health::Bad,
            detail,
            fix: first.and_then(|first| first.hint.clone()),
        }
    }

    fn of_probe(probe: Probe) -> Self {
        let (health, detail) = match probe.outcome {
            Outcome::Works => (Health::Good, probe.detail),
            Outcome::Limited => (Health::Limited, probe.detail),
            // Most errors tell their number by themselves.
            Outcome::Fails(number) if number == 0 || probe.detail.contains("(os error ") => {
                (Health::Bad, probe.detail)
            }
            Outcome::Fails(number) => {
                (Health::Bad, format!("{} (os error {number})", probe.detail))
            }
        };
        Self {
            name: probe.name.into(),
            health,
            detail,
            fix: (health != Health::Good).then(|| probe.fix.to_owned()),
        }
    }
}

/// Less free space than this is told: a base image with a compiler is about as large.
const ROOMY: u64 = 1_000_000_000;

/// Looks at everything. Where there can be no store, `elsewhere` is where the sandbox is tried.
pub fn doctor(store: &Path, elsewhere: &Path) -> Result<Vec<Check>, Failure> {
    let kernel = rustix::system::uname();
    let mut checks = vec![
        Check::good("immbuild", env!("CARGO_PKG_VERSION")),
        Check::good(
            "kernel",
            format!(
                "{} {}",
                kernel.sysname().to_string_lossy(),
                kernel.release().to_string_lossy()
            ),
        ),
        Check::good("machine", std::env::consts::ARCH),
    ];
    let opened = LocalStore::open(store).map_err(Failure::from);
    let scratch = opened.and_then(|store| Ok((store.scratch("doctor")?, store)));
    match &scratch {
        Ok((_, store)) => {
            checks.push(Check::good(
                "store",
                format!("{} can be written to", store.path().display()),
            ));
            checks.push(free_space(store.path()));
        }
        Err(failure) => checks.push(Check::of_failure("store", failure)),
    }
    let place = scratch
        .as_ref()
        .map_or(elsewhere, |(scratch, _)| scratch.path());
    checks.extend(sandbox::probe(place)?.into_iter().map(Check::of_probe));
    checks.push(other_machines(place)?);
    checks.extend([Engine::Podman, Engine::Docker, Engine::Containerd].map(engine));
    Ok(checks)
}

fn free_space(path: &Path) -> Check {
    match rustix::fs::statvfs(path) {
        Err(error) => Check::good("free space", format!("cannot be told: {error}")),
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let mut check = Check::good("free space", format!("{} MB", free / 1_000_000));
            if free < ROOMY {
                check.health = Health::Limited;
                check.fix = Some(
                    "make room, name a store elsewhere with `--store DIR`, or run `immbuild cache gc`".into(),
                );
            }
            check
        }
    }
}

/// Emulators are only needed for steps of other platforms.
fn other_machines(place: &Path) -> Result<Check, Failure> {
    let (mut run, mut broken) = (Vec::new(), None);
    for platform in Platform::all().filter(|it| it.machine() != std::env::consts::ARCH) {
        match runs_programs_of(platform.machine(), place)? {
            Ok(()) => run.push(platform.to_string()),
            Err(Foreign::Unknown { .. }) => {}
            // x86_64 knows them without a handler, and the sandbox refuses their calls.
            Err(Foreign::Broken { .. }) if platform.machine() == "i686" => {}
            Err(lack) => broken = broken.or(Some(lack)),
        }
    }
    let name = "other machines";
    Ok(match (broken, run.as_slice()) {
        (Some(lack), _) => Check {
            name: name.into(),
            health: Health::Limited,
            detail: lack.to_string(),
            fix: Some(lack.fix().into()),
        },
        (None, []) => Check::good(
            name,
            format!("none; only steps of other platforms need them: {FOREIGN_FIX}"),
        ),
        (None, run) => Check::good(name, format!("steps of {} can be run", run.join(", "))),
    })
}

/// An engine is only needed to load images into it.
fn engine(engine: Engine) -> Check {
    let name = engine.name();
    let output = Command::new(engine.program())
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let version = output
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .and_then(|text| text.lines().next().map(str::to_owned));
    Check::good(
        name,
        version.unwrap_or_else(|| format!("not here; only `immbuild load {name}` needs it")),
    )
}
