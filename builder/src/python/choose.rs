//! The best wheel of a package for a target, among those that its lock knows by digest.

use std::collections::BTreeSet;

use immbuild_cas::digest::Digest;

use super::locked::{Location, Locked, WheelFile};
use super::target::{Target, rank};
use crate::diag::Diagnostic;

/// A wheel that is to be installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The package, normalised.
    pub name: String,
    /// Its version, as the lock has it.
    pub version: String,
    /// The file's name.
    pub file: String,
    /// Digest of its bytes.
    pub sha256: Digest,
    /// How many, where somebody said so.
    pub size: Option<u64>,
    /// Where it is; nothing: an index knows.
    pub from: Option<Location>,
    /// The packages it needs.
    pub depends: Vec<String>,
    /// Why it is here.
    pub reason: String,
}

/// Chooses among wheels, and explains when none fits. `others` are the names of files that are no wheels.
///
/// # Errors
/// None fits.
pub fn choose(
    package: &Locked,
    wheels: &[WheelFile],
    others: &[String],
    target: &Target,
) -> Result<Chosen, Diagnostic> {
    let tags = target.tags();
    let own = |wheel: &&WheelFile| wheel.name.is_of(&package.name, &package.version);
    let wheels: Vec<&WheelFile> = wheels.iter().filter(own).collect();
    let best = wheels
        .iter()
        .filter_map(|wheel| {
            // The best tag, then the highest build; the name and digest only so that there is one answer.
            let rank = rank(&wheel.name, &tags)?;
            let build = std::cmp::Reverse(wheel.name.build.clone());
            Some(((rank, build, &wheel.file, wheel.sha256), wheel))
        })
        .min_by(|(a, _), (b, _)| a.cmp(b));
    let Some((_, wheel)) = best else {
        return Err(none(package, &wheels, others, target));
    };
    Ok(Chosen {
        name: package.name.clone(),
        version: package.version.clone(),
        file: wheel.file.clone(),
        sha256: wheel.sha256,
        size: wheel.size,
        from: Some(wheel.from.clone()),
        depends: package.depends.clone(),
        reason: package.reason.clone(),
    })
}

fn none(package: &Locked, wheels: &[&WheelFile], others: &[String], target: &Target) -> Diagnostic {
    let (name, version) = (&package.name, &package.version);
    let interpreter = target.full_version();
    let error = Diagnostic::error(format!(
        "no wheel of `{name}` {version} fits Python {interpreter} on {} with {}",
        target.platform, target.libc
    ))
    .at(package.place.clone());
    if wheels.is_empty() {
        return match others.first() {
            Some(other) => error
                .because(format!("there is only `{other}`, which would have to be built"))
                .hint("build a wheel of it with its project's tools, and lock that: only wheels are installed"),
            None => error.because("the lock knows no file of it that can be had"),
        };
    }
    let tags: BTreeSet<&str> = wheels
        .iter()
        .flat_map(|wheel| wheel.name.tags.iter().map(String::as_str))
        .collect();
    let tags: Vec<&str> = tags.into_iter().take(8).collect();
    error
        .because(format!("there are wheels for {}", tags.join(", ")))
        .hint("check `interpreter`, `libc` and `platforms`")
}
