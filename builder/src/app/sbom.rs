//! The bill of materials of an image: from the spec and its lock alone, before anything is built.

use std::collections::BTreeSet;

use super::failure::Failure;
use super::libraries;
use super::project::Project;
use crate::epoch::Epoch;
use crate::graph::libraries::LibraryPin;
use crate::image::CanonicalJson;
use crate::lock::model::{Lock, Locked, Pin};
use crate::platform::Platform;
use crate::sbom::{Bill, Distribution, Form};
use crate::spec::model::{Ident, Origin, Resolved, SourceKind, Verb};

/// What ships: what `[image]` starts from and is installed, and what is copied into it from sources that the lock names.
///
/// # Errors
/// The lock is missing, outdated or cannot be read.
pub fn sbom(project: &Project, form: Form) -> Result<CanonicalJson, Failure> {
    super::lock::check(project)?;
    let resolved = project.resolve_defaults()?;
    // Without one there is nothing to lock: what is local is no component.
    let lock = project.read_lock()?;
    let first = resolved.values().next().expect("a spec has a platform");
    let stem = project.path.file_stem().unwrap_or_default();
    let name = first.image.name.clone();
    let name = name.unwrap_or_else(|| stem.to_string_lossy().into_owned());
    let epoch = lock.as_ref().map(|lock| lock.epoch).or(first.epoch);
    let mut bill = Bill::new(&name, epoch.unwrap_or(Epoch::DEFAULT));
    for (platform, spec) in &resolved {
        for source in shipped(spec) {
            if libraries::language(&spec.sources[source]).is_some() {
                add_libraries(&mut bill, project, spec, lock.as_ref(), source)?;
                continue;
            }
            let locked = lock.as_ref().and_then(|lock| lock.sources.get(source));
            // What is local is no part of a lock.
            if let Some(locked) = locked {
                add(&mut bill, spec, locked, source, *platform);
            }
        }
    }
    Ok(bill.to_json(form))
}

/// The sources whose content is in the image as it came, by name: of its own lineage, and copied from by a step of that.
fn shipped(spec: &Resolved) -> BTreeSet<&Ident> {
    let mut sources = BTreeSet::new();
    let mut stage = Some(Ident::image());
    while let Some(name) = stage.take() {
        let Some(found) = spec.stages.get(&name) else {
            break;
        };
        let copied = found.steps.iter().filter_map(|step| match &step.verb {
            Verb::Copy(copy) => Some(&copy.from.origin),
            Verb::Unpack(unpack) => Some(&unpack.from.origin),
            Verb::Install(install) => Some(&install.origin),
            _ => None,
        });
        let from = found.from.as_ref().map(|base| &base.origin);
        for origin in copied.chain(from) {
            if let Origin::Source(name) = origin {
                sources.insert(name);
            }
        }
        if let Some(Origin::Stage(below)) = from {
            stage = Some(below.clone());
        }
    }
    sources
}

fn add_libraries(
    bill: &mut Bill,
    project: &Project,
    spec: &Resolved,
    lock: Option<&Lock>,
    name: &Ident,
) -> Result<(), Failure> {
    let source = &spec.sources[name];
    let Some(language) = libraries::language(source) else {
        return Ok(());
    };
    for platform in spec.image_platforms().remove(name).unwrap_or_default() {
        let found = libraries::of(project, source, platform, lock)?;
        let all: Vec<(LibraryPin, Vec<String>)> =
            found.into_iter().map(|it| (it.pin, it.depends)).collect();
        bill.add_libraries(language, &all);
    }
    Ok(())
}

fn add(bill: &mut Bill, spec: &Resolved, locked: &Locked, name: &Ident, platform: Platform) {
    match (&locked.pin, &spec.sources[name].kind) {
        (Pin::Debian(pin), SourceKind::Debian(debian)) => {
            let of = Distribution {
                name: &debian.distro,
                suite: &debian.suite,
            };
            bill.add_packages(pin, of, platform.debian());
        }
        (Pin::Image { manifests, .. }, _) => {
            if let Some(manifest) = manifests.get(&platform) {
                bill.add(name.as_str(), None, Some(manifest.digest));
            }
        }
        (Pin::Http { files }, _) => {
            let file = files.get(&Some(platform)).or_else(|| files.get(&None));
            if let Some(file) = file {
                bill.add(name.as_str(), None, Some(file.sha256));
            }
        }
        (Pin::Git { commits }, _) => {
            let commit = commits.get(&Some(platform)).or_else(|| commits.get(&None));
            if let Some(commit) = commit {
                bill.add(name.as_str(), Some(commit.commit.clone()), None);
            }
        }
        (Pin::Debian(_) | Pin::Python(_), _) => {}
    }
}
