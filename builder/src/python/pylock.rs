//! `pylock.toml` (PEP 751): one lock for every tool.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::locked::{Files, Location, Locked, Wanted, WheelFile, file_name, unknown};
use super::marker::{Context, Marker};
use super::name::{WheelName, normalised};
use crate::diag::{Diagnostic, Place, SourceFile, Span};
use crate::spec::document::{self, Table};

/// The packages that a lock has for a target, by name.
///
/// # Errors
/// It is no such lock, or has nothing for this target.
pub fn wanted(file: &Arc<SourceFile>, wanted: &Wanted<'_>) -> Result<Vec<Locked>, Vec<Diagnostic>> {
    let document = document::parse(file)?;
    read(file, &document, wanted).map_err(|error| vec![error])
}

fn read(
    file: &Arc<SourceFile>,
    document: &Table,
    wanted: &Wanted<'_>,
) -> Result<Vec<Locked>, Diagnostic> {
    let place = |span: Span| Place {
        file: Arc::clone(file),
        span,
    };
    let top = place(document.span);
    match document.text("lock-version") {
        Some(version) if version == "1" || version.starts_with("1.") => {}
        Some(version) => {
            return Err(Diagnostic::error(format!(
                "version `{}` of this form of lock is not known",
                version.escape_debug()
            ))
            .at(top));
        }
        None => {
            return Err(
                Diagnostic::error("this is no `pylock.toml`: it has no `lock-version`").at(top),
            );
        }
    }
    if let Some(asked) = document.text("requires-python") {
        wanted.check_interpreter(asked, top.clone())?;
    }
    let names =
        |key: &str| -> BTreeSet<String> { document.texts(key).filter_map(normalised).collect() };
    let (extras, mut groups) = (wanted.extras(), wanted.groups());
    unknown("extra", &extras, &names("extras"), &top)?;
    unknown("group", &groups, &names("dependency-groups"), &top)?;
    if groups.is_empty() {
        groups = names("default-groups");
    }
    let context = Context {
        target: wanted.target,
        extras: &extras,
        groups: &groups,
    };
    let environments: Vec<&str> = document.texts("environments").collect();
    if !environments.is_empty() {
        let mut fits = false;
        for text in &environments {
            fits |= holds(text, &context, &top)?;
        }
        if !fits {
            return Err(Diagnostic::error("the lock is not for this target")
                .because(format!("it is for {}", environments.join("; or ")))
                .at(top));
        }
    }
    let mut found: Vec<Locked> = Vec::new();
    for package in document.tables("packages") {
        let at = place(package.span);
        if let Some(marker) = package.text("marker")
            && !holds(marker, &context, &at)?
        {
            continue;
        }
        let locked = one(package, &at, file)?;
        if let Some(asked) = package.text("requires-python") {
            wanted.check_interpreter(asked, at.clone())?;
        }
        if found.iter().any(|other| other.name == locked.name) {
            let message = format!("`{}` is there twice for this target", locked.name);
            return Err(Diagnostic::error(message).at(at));
        }
        found.push(locked);
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn holds(text: &str, context: &Context<'_>, place: &Place) -> Result<bool, Diagnostic> {
    let marker = Marker::parse(text).map_err(|cause| {
        Diagnostic::error(format!("`{}` is no marker", text.escape_debug()))
            .because(cause)
            .at(place.clone())
    })?;
    Ok(marker.holds(context))
}

fn one(package: &Table, place: &Place, file: &Arc<SourceFile>) -> Result<Locked, Diagnostic> {
    let complain = |message: String| Diagnostic::error(message).at(place.clone());
    let name = package
        .text("name")
        .and_then(normalised)
        .ok_or_else(|| complain("a package has no name".into()))?;
    for (key, what) in [("vcs", "a repository"), ("directory", "a directory")] {
        if package.get(key).is_some() {
            return Err(complain(format!("`{name}` is {what}"))
                .because("only wheels are installed, each by its digest")
                .hint("build a wheel of it, or copy it with a `path` source"));
        }
    }
    let mut wheels = Vec::new();
    for wheel in package.tables("wheels") {
        let location = match (wheel.text("url"), wheel.text("path")) {
            (Some(url), _) => Location::Url(url.to_owned()),
            (None, Some(path)) => Location::Path(path.to_owned()),
            (None, None) => {
                return Err(complain(format!(
                    "a wheel of `{name}` has neither `url` nor `path`"
                )));
            }
        };
        let (Location::Url(text) | Location::Path(text)) = &location;
        let file = wheel
            .text("name")
            .map_or_else(|| file_name(text), str::to_owned);
        wheels.push(WheelFile {
            name: WheelName::parse(&file)
                .ok_or_else(|| complain(format!("`{}` is no wheel", file.escape_debug())))?,
            sha256: wheel
                .table("hashes")
                .and_then(|hashes| hashes.text("sha256"))
                .and_then(|hex| immbuild_cas::digest::Digest::from_hex(hex).ok())
                .ok_or_else(|| {
                    complain(format!("`{file}` has no hash of sha256"))
                        .because("what is not pinned by its digest does not exist")
                })?,
            size: size(wheel),
            from: location,
            file,
        });
    }
    let mut others = Vec::new();
    for key in ["sdist", "archive"] {
        if let Some(other) = package.table(key) {
            let name = other.text("name").map(str::to_owned);
            let url = other.text("url").or_else(|| other.text("path"));
            others.push(name.unwrap_or_else(|| file_name(url.unwrap_or(key))));
        }
    }
    let version = package.text("version").map(str::to_owned);
    let version = version.or_else(|| wheels.first().map(|wheel| wheel.name.version.clone()));
    let depends: BTreeSet<String> = package
        .tables("dependencies")
        .filter_map(|it| it.text("name").and_then(normalised))
        .collect();
    let lock = file.name.rsplit('/').next().unwrap_or_default();
    Ok(Locked {
        version: version.ok_or_else(|| complain(format!("`{name}` has no version")))?,
        files: Files::Named { wheels, others },
        depends: depends.into_iter().filter(|it| *it != name).collect(),
        reason: format!("named in {lock}"),
        place: place.clone(),
        name,
    })
}

pub(super) fn size(table: &Table) -> Option<u64> {
    match table.get("size").map(|entry| &entry.value.data) {
        Some(document::Data::Integer(Some(size))) => u64::try_from(*size).ok(),
        _ => None,
    }
}
