//! Why a package is in an image: from the lock alone.

use std::collections::BTreeSet;

use super::failure::{Exit, Failure};
use super::project::Project;
use crate::diag::{Diagnostic, nearest};
use crate::lock::model::{DebianPin, PackagePin, Pin};
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
