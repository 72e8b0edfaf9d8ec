//! `Cargo.lock`: every crate of a registry with its checksum.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use immbuild_cas::digest::Digest;

use crate::diag::{Diagnostic, Place, SourceFile};
use crate::spec::document::{self, Data, Table};

/// The last part of the address by which every lock names the registry of the community.
const COMMUNITY: &str = "crates.io-index";

/// A crate of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crate {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Digest of its `.crate`.
    pub sha256: Digest,
    /// The registry it is from; nothing: that of the community.
    pub registry: Option<String>,
    /// The crates of registries that it needs, sorted.
    pub depends: Vec<String>,
    /// Why it is here: `needed by serde`.
    pub reason: String,
}

/// A package of the lock.
struct Package<'d> {
    name: &'d str,
    version: &'d str,
    source: Option<&'d str>,
    table: &'d Table,
}

/// The crates that a lock has, by name and version. Packages without a source are those of the project: directories.
///
/// # Errors
/// It is no such lock, or has something that is from no registry.
pub fn read(file: &Arc<SourceFile>) -> Result<Vec<Crate>, Vec<Diagnostic>> {
    let document = document::parse(file)?;
    crates(file, &document).map_err(|error| vec![error])
}

fn crates(file: &Arc<SourceFile>, document: &Table) -> Result<Vec<Crate>, Diagnostic> {
    let place = |table: &Table| Place {
        file: Arc::clone(file),
        span: table.span,
    };
    match document.get("version").map(|entry| &entry.value.data) {
        // Versions 1 and 2 do not say theirs.
        None | Some(Data::Integer(Some(1..=4))) => {}
        Some(_) => {
            return Err(
                Diagnostic::error("this version of `Cargo.lock` is not known").at(place(document)),
            );
        }
    }
    let mut packages = Vec::new();
    for table in document.tables("package") {
        let text = |key: &str| {
            table
                .text(key)
                .filter(|text| is_plain(text))
                .ok_or_else(|| {
                    Diagnostic::error(format!("a package has no good `{key}`")).at(place(table))
                })
        };
        packages.push(Package {
            name: text("name")?,
            version: text("version")?,
            source: table.text("source"),
            table,
        });
    }
    if packages.is_empty() {
        return Err(
            Diagnostic::error("this is no `Cargo.lock`: it has no package").at(place(document)),
        );
    }
    let reasons = reasons(&packages);
    let mut found: BTreeMap<(&str, &str), Crate> = BTreeMap::new();
    for (nth, package) in packages.iter().enumerate() {
        let Some(source) = package.source else {
            continue;
        };
        let (name, version) = (package.name, package.version);
        let complain = |message: String| Diagnostic::error(message).at(place(package.table));
        let url = source
            .strip_prefix("registry+")
            .or_else(|| source.strip_prefix("sparse+"));
        let Some(url) = url else {
            return Err(complain(format!("`{name}` is from no registry"))
                .because("a repository has no checksum in this lock")
                .hint("publish it to a registry, or make it a member of the workspace"));
        };
        let sha256 = package
            .table
            .text("checksum")
            .or_else(|| old_checksum(document, package, source))
            .and_then(|hex| Digest::from_hex(hex).ok())
            .ok_or_else(|| {
                complain(format!("`{name}` {version} has no checksum"))
                    .because("what is not pinned by its digest does not exist")
            })?;
        let is_community = url.trim_end_matches('/').rsplit('/').next() == Some(COMMUNITY);
        let depends: BTreeSet<&str> = dependencies(&packages, nth)
            .map(|at| &packages[at])
            .filter(|package| package.source.is_some())
            .map(|package| package.name)
            .collect();
        let one = Crate {
            name: name.to_owned(),
            version: version.to_owned(),
            sha256,
            registry: (!is_community).then(|| source.to_owned()),
            depends: depends.into_iter().map(str::to_owned).collect(),
            reason: reasons
                .get(&nth)
                .cloned()
                .unwrap_or_else(|| "named in Cargo.lock".into()),
        };
        if found.insert((name, version), one).is_some() {
            return Err(
                complain(format!("`{name}` {version} is there twice")).because(
                    "two crates of one name and version cannot be vendored beside each other",
                ),
            );
        }
    }
    Ok(found.into_values().collect())
}

/// A text that can be part of a path and of a URL.
fn is_plain(text: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+');
    !text.is_empty() && !text.starts_with('.') && text.bytes().all(allowed)
}

/// Versions 1 and 2 have checksums in a table of their own.
fn old_checksum<'d>(document: &'d Table, package: &Package<'_>, source: &str) -> Option<&'d str> {
    let (name, version) = (package.name, package.version);
    document
        .table("metadata")?
        .text(&format!("checksum {name} {version} ({source})"))
}

/// The packages that one needs: `name`, `name version` or `name version (source)`.
fn dependencies<'p>(
    packages: &'p [Package<'_>],
    of: usize,
) -> impl Iterator<Item = usize> + use<'p> {
    packages[of].table.texts("dependencies").filter_map(|text| {
        let mut words = text.split(' ');
        let (name, version) = (words.next(), words.next());
        packages.iter().position(|package| {
            Some(package.name) == name && version.is_none_or(|version| version == package.version)
        })
    })
}

/// Why each package is here, walking from those of the project.
fn reasons(packages: &[Package<'_>]) -> BTreeMap<usize, String> {
    let mut reasons = BTreeMap::new();
    let members = (0..packages.len()).filter(|nth| packages[*nth].source.is_none());
    let mut open: VecDeque<usize> = members.collect();
    let mut seen: BTreeSet<usize> = open.iter().copied().collect();
    while let Some(at) = open.pop_front() {
        for needed in dependencies(packages, at) {
            if seen.insert(needed) {
                let name = packages[at].name;
                let reason = match packages[at].source {
                    None => format!("needed by the project {name}"),
                    Some(_) => format!("needed by {name}"),
                };
                reasons.insert(needed, reason);
                open.push_back(needed);
            }
        }
    }
    reasons
}
