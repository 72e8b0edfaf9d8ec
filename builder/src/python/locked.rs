//! What a project's own lock says about a package, whichever form the lock has.

use std::collections::BTreeSet;

use immbuild_cas::digest::Digest;

use super::name::{WheelName, normalised};
use super::target::Target;
use super::version;
use crate::diag::{Diagnostic, Place, nearest};

/// A package that is wanted for a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locked {
    /// Its name, normalised.
    pub name: String,
    /// Its version, as the lock has it.
    pub version: String,
    /// What it may be.
    pub files: Files,
    /// The packages of the lock that it needs on this target, where the lock says so. Sorted.
    pub depends: Vec<String>,
    /// Why it is here: `named in requirements.txt`, `needed by flask`.
    pub reason: String,
    /// Where the lock says it.
    pub place: Place,
}

/// What a lock says about the files of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Files {
    /// Their digests: which file each is, an index says.
    Digests(BTreeSet<Digest>),
    /// The wheels, and the names of what is no wheel.
    Named {
        /// Those that can be installed.
        wheels: Vec<WheelFile>,
        /// Source distributions and such.
        others: Vec<String>,
    },
}

/// A wheel that can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WheelFile {
    /// The file's name.
    pub file: String,
    /// What that says.
    pub name: WheelName,
    /// Digest of its bytes.
    pub sha256: Digest,
    /// How many, where it is said.
    pub size: Option<u64>,
    /// Where it is.
    pub from: Location,
}

/// Where a wheel is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// Behind this URL.
    Url(String),
    /// On this machine, seen from the directory of the lock.
    Path(String),
}

/// What is wanted of a lock.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// For what.
    pub target: &'a Target,
    /// Extras of the project, as the spec has them.
    pub extras: &'a [String],
    /// Groups of dependencies, as the spec has them.
    pub groups: &'a [String],
}

impl Wanted<'_> {
    /// The extras, normalised.
    pub fn extras(&self) -> BTreeSet<String> {
        self.extras.iter().filter_map(|it| normalised(it)).collect()
    }

    /// The groups, normalised.
    pub fn groups(&self) -> BTreeSet<String> {
        self.groups.iter().filter_map(|it| normalised(it)).collect()
    }

    /// Complains when the lock is for other interpreters.
    pub fn check_interpreter(&self, asked: &str, place: Place) -> Result<(), Diagnostic> {
        let own = self.target.full_version();
        match version::fulfils(&own, asked) {
            Some(true) => Ok(()),
            Some(false) => Err(Diagnostic::error(format!(
                "the lock is for Python {asked}, and the source says {own}"
            ))
            .at(place)
            .hint("set `interpreter` to the one that the image has, as exactly as it matters: `\"3.11\"` means 3.11.0")),
            None => Err(
                Diagnostic::error(format!("`{}` is no range of versions", asked.escape_debug()))
                    .at(place),
            ),
        }
    }
}

/// Complains of an extra or a group that the lock does not have.
pub fn unknown(
    what: &str,
    wanted: &BTreeSet<String>,
    known: &BTreeSet<String>,
    place: &Place,
) -> Result<(), Diagnostic> {
    let Some(name) = wanted.iter().find(|name| !known.contains(*name)) else {
        return Ok(());
    };
    let error = Diagnostic::error(format!("the lock has no {what} `{name}`")).at(place.clone());
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    Err(
        match (nearest(name, known.iter().copied()), known.as_slice()) {
            (Some(near), _) => error.hint(format!("did you mean `{near}`?")),
            (None, []) => error,
            (None, known) => error.hint(format!("it has {}", known.join(", "))),
        },
    )
}

/// A digest as locks write it, `sha256:…`.
pub fn sha256(text: &str) -> Option<Digest> {
    text.strip_prefix("sha256:")
        .and_then(|hex| Digest::from_hex(hex).ok())
}

/// The last part of a URL or path, without what follows `#` and `?`, and with `%2B` undone.
pub fn file_name(url: &str) -> String {
    let plain = url.split(['#', '?']).next().unwrap_or_default();
    let name = plain.rsplit('/').next().unwrap_or_default();
    name.replace("%2B", "+")
        .replace("%2b", "+")
        .replace("%21", "!")
}
