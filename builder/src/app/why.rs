//! Why a package is in an image: from the lock alone.

use std::collections::BTreeSet;

use super::failure::{Exit, Failure};
use super::libraries::{self, Library};
use super::project::Project;
use crate::diag::{Diagnostic, nearest};
use crate::lock::model::{DebianPin, Lock, PackagePin, Pin};
use crate::platform::Platform;
use crate::spec::model::Ident;

/// One package of one source on one architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// The source.
    pub source: Ident,
    /// `amd64`.
    pub architecture: String,
    /// The version that is locked.
    pub version: String,
    /// From the package that was asked for to this one, each with its reason.
    pub chain: Vec<(String, String)>,
    /// All packages of the lock that need it.
    pub needed_by: Vec<String>,
}

/// `immbuild why PACKAGE`.
pub fn why(project: &Project, package: &str) -> Result<Vec<Why>, Failure> {
    super::lock::check(project)?;
    let lock = project.read_lock()?;
    let mut found = Vec::new();
    let mut names = BTreeSet::new();
    for (source, locked) in lock.iter().flat_map(|lock| &lock.sources) {
        let Pin::Debian(pin) = &locked.pin else {
            continue;
        };
        names.extend(pin.packages.iter().map(|it| it.name.as_str()));
        for architecture in pin.architectures() {
            found.extend(one(source, pin, architecture, package));
        }
    }
    let libraries = libraries(project, lock.as_ref())?;
    for (source, platform, libraries) in &libraries {
        names.extend(libraries.iter().map(|it| it.pin.name.as_str()));
        found.extend(library(source, *platform, libraries, package));
    }
    if found.is_empty() {
        let failure = Failure::new(
            Exit::Usage,
            Diagnostic::error(format!("no package `{package}` is locked")),
        );
        return Err(match nearest(package, names.iter().copied()) {
            Some(near) => failure.hint(format!("did you mean `{near}`?")),
            None => failure,
        });
    }
    Ok(found)
}

/// The libraries of each source on each platform.
fn libraries(
    project: &Project,
    lock: Option<&Lock>,
) -> Result<Vec<(Ident, Platform, Vec<Library>)>, Failure> {
    let mut found: Vec<(Ident, Platform, Vec<Library>)> = Vec::new();
    for spec in project.resolve_defaults()?.values() {
        for source in spec.sources.values() {
            if libraries::language(source).is_none() {
                continue;
            }
            let platforms = spec.image_platforms().remove(&source.name);
            for platform in platforms.unwrap_or_else(|| [spec.platform].into()) {
                let is_known = |it: &(Ident, Platform, _)| it.0 == source.name && it.1 == platform;
                if !found.iter().any(is_known) {
                    let all = libraries::of(project, source, platform, lock)?;
                    found.push((source.name.clone(), platform, all));
                }
            }
        }
    }
    Ok(found)
}

fn library(source: &Ident, platform: Platform, all: &[Library], package: &str) -> Option<Why> {
    let get = |name: &str| all.iter().find(|it| it.pin.name == name);
    let wanted = get(package)?;
    let mut chain = vec![(wanted.pin.name.clone(), wanted.reason.clone())];
    let mut seen = BTreeSet::from([wanted.pin.name.as_str()]);
    let mut at = wanted;
    while let Some(parent) = parent(&at.reason).and_then(get) {
        if !seen.insert(&parent.pin.name) {
            break;
        }
        chain.insert(0, (parent.pin.name.clone(), parent.reason.clone()));
        at = parent;
    }
    let needs = |it: &&Library| it.depends.iter().any(|name| name == package);
    Some(Why {
        source: source.clone(),
        architecture: platform.arch().to_owned(),
        version: wanted.pin.version.clone(),
        chain,
        needed_by: all
            .iter()
            .filter(needs)
            .map(|it| it.pin.name.clone())
            .collect(),
    })
}

fn one(source: &Ident, pin: &DebianPin, architecture: &str, package: &str) -> Option<Why> {
    let packages: Vec<&PackagePin> = pin.packages_for(architecture).collect();
    let get = |name: &str| packages.iter().find(|it| it.name == name).copied();
    let wanted = get(package)?;
    let mut chain = vec![(wanted.name.clone(), wanted.reason.clone())];
    let mut seen = BTreeSet::from([wanted.name.as_str()]);
    let mut at = wanted;
    while let Some(parent) = parent(&at.reason).and_then(get) {
        // A lock that was made by hand may lead in a circle.
        if !seen.insert(&parent.name) {
            break;
        }
        chain.insert(0, (parent.name.clone(), parent.reason.clone()));
        at = parent;
    }
    let needed_by = packages
        .iter()
        .filter(|it| it.depends.iter().any(|name| name == package))
        .map(|it| it.name.clone())
        .collect();
    Some(Why {
        source: source.clone(),
        architecture: architecture.to_owned(),
        version: wanted.version.clone(),
        chain,
        needed_by,
    })
}

/// The package that a reason names.
fn parent(reason: &str) -> Option<&str> {
    reason
        .strip_prefix("needed by ")
        .or_else(|| reason.strip_prefix("recommended by "))
}
