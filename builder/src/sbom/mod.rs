//! A bill of materials: what ships in an image, from the lock alone, as SPDX and as `CycloneDX`.
//!
//! Pure: equal locks give equal bytes. There is no time but the epoch, and no name but a digest of what is said.
//! Must never know the files of an image.

mod cyclonedx;
mod json;
mod purl;
mod spdx;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use immbuild_cas::digest::Digest;

use crate::epoch::Epoch;
use crate::graph::libraries::{Language, LibraryPin};
use crate::image::CanonicalJson;
use crate::lock::model::DebianPin;

pub use purl::deb as package_url;

/// The forms it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// SPDX 2.3.
    Spdx,
    /// `CycloneDX` 1.6.
    CycloneDx,
}

/// What ships.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bill {
    /// What the image is called.
    pub name: String,
    /// The image's one time.
    pub epoch: Epoch,
    /// Every component, by its reference.
    pub components: BTreeMap<String, Component>,
}

/// One thing that ships.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Its version, where it has one.
    pub version: Option<String>,
    /// Digest of what it came as.
    pub sha256: Option<Digest>,
    /// Its package URL, where it has one.
    pub purl: Option<String>,
    /// What it was built from, with the version of that.
    pub source: Option<(String, String)>,
    /// Where it was found to be authentic: a name and a digest.
    pub provenance: Vec<(String, String)>,
    /// References of what it needs.
    pub depends: BTreeSet<String>,
}

/// Whose packages they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Distribution<'a> {
    /// `debian`.
    pub name: &'a str,
    /// `bookworm`.
    pub suite: &'a str,
}

impl Bill {
    /// A bill with nothing on it.
    pub fn new(name: &str, epoch: Epoch) -> Self {
        Self {
            name: name.to_owned(),
            epoch,
            components: BTreeMap::new(),
        }
    }

    /// Adds the packages of a source for one architecture.
    pub fn add_packages(&mut self, pin: &DebianPin, of: Distribution<'_>, architecture: &str) {
        let packages: Vec<_> = pin.packages_for(architecture).collect();
        let references: BTreeMap<&str, String> = packages
            .iter()
            .map(|package| (package.name.as_str(), purl::deb(package, of)))
            .collect();
        for package in &packages {
            let source_version = package.source_version.as_ref().unwrap_or(&package.version);
            let releases = pin
                .releases
                .iter()
                .filter(|release| release.archive == package.archive);
            let depends = package.depends.iter();
            let component = Component {
                name: package.name.clone(),
                version: Some(package.version.clone()),
                sha256: Some(package.sha256),
                purl: Some(purl::deb(package, of)),
                source: Some((package.source.clone(), source_version.clone())),
                provenance: releases
                    .map(|release| {
                        let name = format!("{} {}", release.archive, release.suite);
                        (name, release.inrelease.to_string())
                    })
                    .collect(),
                depends: depends
                    .filter_map(|name| references.get(name.as_str()).cloned())
                    .collect(),
            };
            let known = self
                .components
                .entry(purl::deb(package, of))
                .or_insert(component.clone());
            known.depends.extend(component.depends);
        }
    }

    /// Adds libraries of a language, each with the names of those that it needs.
    pub fn add_libraries(&mut self, language: Language, libraries: &[(LibraryPin, Vec<String>)]) {
        let references: BTreeMap<&str, String> = libraries
            .iter()
            .map(|(library, _)| (library.name.as_str(), purl::library(library, language)))
            .collect();
        for (library, depends) in libraries {
            let purl = purl::library(library, language);
            let depends = depends.iter();
            let component = Component {
                name: library.name.clone(),
                version: Some(library.version.clone()),
                sha256: Some(library.sha256),
                purl: Some(purl.clone()),
                source: None,
                provenance: Vec::new(),
                depends: depends
                    .filter_map(|name| references.get(name.as_str()).cloned())
                    .collect(),
            };
            let known = self.components.entry(purl).or_insert(component.clone());
            known.depends.extend(component.depends);
        }
    }

    /// Adds something that is known by its digest alone.
    pub fn add(&mut self, name: &str, version: Option<String>, sha256: Option<Digest>) {
        let shown = sha256.map_or_else(|| version.clone().unwrap_or_default(), |it| it.to_string());
        let component = Component {
            name: name.to_owned(),
            version,
            sha256,
            purl: None,
            source: None,
            provenance: Vec::new(),
            depends: BTreeSet::new(),
        };
        self.components.insert(format!("{name}@{shown}"), component);
    }

    /// The document.
    pub fn to_json(&self, form: Form) -> CanonicalJson {
        match form {
            Form::Spdx => spdx::document(self),
            Form::CycloneDx => cyclonedx::document(self),
        }
    }

    /// Names what is said, so that equal documents have one name and others have others.
    fn digest(&self) -> Digest {
        let nameless = cyclonedx::body(self, None);
        CanonicalJson::of(&nameless).digest()
    }
}
