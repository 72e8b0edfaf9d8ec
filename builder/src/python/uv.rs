//! `uv.lock`: the lock of a project for every interpreter and platform. What is wanted is found by walking from the project.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::locked::{Files, Location, Locked, Wanted, WheelFile, file_name, sha256, unknown};
use super::marker::{Context, Marker};
use super::name::{WheelName, normalised};
use super::pylock::size;
use super::version;
use crate::diag::{Diagnostic, Place, SourceFile};
use crate::spec::document::{self, Data, Table};

/// The packages that a lock has for a target, by name. The project itself and the other members of its workspace are no part
/// of it: they are directories, and copied.
///
/// # Errors
/// It is no such lock, or has nothing for this target.
pub fn wanted(file: &Arc<SourceFile>, wanted: &Wanted<'_>) -> Result<Vec<Locked>, Vec<Diagnostic>> {
    let document = document::parse(file)?;
    Walk::new(file, &document, wanted)
        .and_then(|mut walk| walk.walk())
        .map_err(|error| vec![error])
}

/// One package of the lock.
struct Package<'d> {
    name: String,
    version: Option<&'d str>,
    table: &'d Table,
}

impl Package<'_> {
    fn source(&self) -> Option<&Table> {
        self.table.table("source")
    }

    /// A directory of the workspace: the project, or another member.
    fn is_member(&self) -> bool {
        let kinds = ["virtual", "editable", "directory"];
        self.source()
            .is_some_and(|source| kinds.iter().any(|kind| source.get(kind).is_some()))
    }

    fn is_root(&self) -> bool {
        let kinds = ["virtual", "editable", "directory"];
        self.source()
            .is_some_and(|source| kinds.iter().any(|kind| source.text(kind) == Some(".")))
    }
}

struct Walk<'d, 'w> {
    file: &'d Arc<SourceFile>,
    wanted: &'w Wanted<'w>,
    packages: Vec<Package<'d>>,
    /// Places in `packages` of those that were reached, each with why.
    reached: BTreeMap<usize, String>,
    /// What was reached with which extra; nothing: without.
    seen: BTreeSet<(usize, Option<String>)>,
    depends: BTreeMap<usize, BTreeSet<String>>,
    open: VecDeque<(usize, Option<String>)>,
    /// The names under which markers know the extras and groups that are wanted.
    extras: BTreeSet<String>,
}

impl<'d, 'w> Walk<'d, 'w> {
    fn new(
        file: &'d Arc<SourceFile>,
        document: &'d Table,
        wanted: &'w Wanted<'w>,
    ) -> Result<Self, Diagnostic> {
        let top = Place {
            file: Arc::clone(file),
            span: document.span,
        };
        match document.get("version").map(|entry| &entry.value.data) {
            Some(Data::Integer(Some(1))) => {}
            Some(_) => {
                return Err(Diagnostic::error("this version of `uv.lock` is not known").at(top));
            }
            None => {
                return Err(Diagnostic::error("this is no `uv.lock`: it has no `version`").at(top));
            }
        }
        if let Some(asked) = document.text("requires-python") {
            wanted.check_interpreter(asked, top.clone())?;
        }
        let mut packages = Vec::new();
        for table in document.tables("package") {
            let place = Place {
                file: Arc::clone(file),
                span: table.span,
            };
            let name = table
                .text("name")
                .and_then(normalised)
                .ok_or_else(|| Diagnostic::error("a package has no name").at(place))?;
            packages.push(Package {
                name,
                version: table.text("version"),
                table,
            });
        }
        let root = packages.iter().position(Package::is_root).ok_or_else(|| {
            Diagnostic::error("the lock has no project: none of its packages is `.`").at(top)
        })?;
        let mut walk = Self {
            file,
            wanted,
            packages,
            reached: BTreeMap::new(),
            seen: BTreeSet::new(),
            depends: BTreeMap::new(),
            open: VecDeque::new(),
            extras: wanted.extras(),
        };
        walk.start(root)?;
        Ok(walk)
    }

    fn place(&self, table: &Table) -> Place {
        Place {
            file: Arc::clone(self.file),
            span: table.span,
        }
    }

    /// The project, with the extras and groups that are wanted of it.
    fn start(&mut self, root: usize) -> Result<(), Diagnostic> {
        let table = self.packages[root].table;
        let place = self.place(table);
        let keys = |key: &str| -> BTreeSet<String> {
            let table = table.table(key);
            let entries = table.iter().flat_map(|table| &table.entries);
            entries.filter_map(|entry| normalised(&entry.key)).collect()
        };
        let (extras, groups) = (self.wanted.extras(), self.wanted.groups());
        unknown("extra", &extras, &keys("optional-dependencies"), &place)?;
        unknown("group", &groups, &keys("dev-dependencies"), &place)?;
        // Where extras or groups exclude each other, uv names them so in markers.
        let project = self.packages[root].name.clone();
        let length = project.len();
        for extra in &extras {
            self.extras
                .insert(format!("extra-{length}-{project}-{extra}"));
        }
        for group in &groups {
            self.extras
                .insert(format!("group-{length}-{project}-{group}"));
        }
        self.open.push_back((root, None));
        for extra in &extras {
            self.open.push_back((root, Some(extra.clone())));
        }
        if let Some(by_group) = table.table("dev-dependencies") {
            for entry in &by_group.entries {
                if normalised(&entry.key).is_some_and(|name| groups.contains(&name))
                    && let Data::Array(_) = entry.value.data
                {
                    self.follow(root, by_group.tables(&entry.key))?;
                }
            }
        }
        Ok(())
    }

    fn walk(&mut self) -> Result<Vec<Locked>, Diagnostic> {
        while let Some((at, extra)) = self.open.pop_front() {
            if !self.seen.insert((at, extra.clone())) {
                continue;
            }
            let table = self.packages[at].table;
            match extra {
                None => self.follow(at, table.tables("dependencies"))?,
                Some(extra) => {
                    let Some(by_extra) = table.table("optional-dependencies") else {
                        continue;
                    };
                    for entry in &by_extra.entries {
                        if normalised(&entry.key).as_ref() == Some(&extra) {
                            self.follow(at, by_extra.tables(&entry.key))?;
                        }
                    }
                }
            }
        }
        let mut found = Vec::new();
        for (at, reason) in &self.reached {
            let package = &self.packages[*at];
            if package.is_member() {
                continue;
            }
            let depends = self.depends.get(at).cloned().unwrap_or_default();
            found.push(self.locked(package, depends, reason)?);
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(two) = found.windows(2).find(|two| two[0].name == two[1].name) {
            let message = format!("`{}` is wanted in two versions", two[0].name);
            return Err(Diagnostic::error(message).at(two[1].place.clone()));
        }
        Ok(found)
    }

    /// The dependencies of a package that are meant for this target.
    fn follow(
        &mut self,
        from: usize,
        dependencies: impl Iterator<Item = &'d Table>,
    ) -> Result<(), Diagnostic> {
        let groups = self.wanted.groups();
        for dependency in dependencies {
            let place = self.place(dependency);
            if let Some(text) = dependency.text("marker") {
                let marker = Marker::parse(text).map_err(|cause| {
                    Diagnostic::error(format!("`{}` is no marker", text.escape_debug()))
                        .because(cause)
                        .at(place.clone())
                })?;
                let context = Context {
                    target: self.wanted.target,
                    extras: &self.extras,
                    groups: &groups,
                };
                if !marker.holds(&context) {
                    continue;
                }
            }
            let at = self.find(dependency, &place)?;
            let name = self.packages[from].name.clone();
            let reason = if self.packages[from].is_member() {
                format!("needed by the project {name}")
            } else {
                format!("needed by {name}")
            };
            self.reached.entry(at).or_insert(reason);
            if at != from {
                let needed = self.packages[at].name.clone();
                self.depends.entry(from).or_default().insert(needed);
            }
            self.open.push_back((at, None));
            for extra in dependency.texts("extra").filter_map(normalised) {
                self.open.push_back((at, Some(extra)));
            }
        }
        Ok(())
    }

    /// The package that a dependency means: its version and source are said where the name alone would not do.
    fn find(&self, dependency: &Table, place: &Place) -> Result<usize, Diagnostic> {
        let name = dependency.text("name").and_then(normalised);
        let name =
            name.ok_or_else(|| Diagnostic::error("a dependency has no name").at(place.clone()))?;
        let version = dependency.text("version");
        let source = dependency.table("source").map(plain);
        let fits = |package: &&(usize, &Package<'_>)| {
            let package = package.1;
            package.name == name
                && version.is_none_or(|wanted| package.version == Some(wanted))
                && (source.is_none() || package.source().map(plain) == source)
        };
        let all: Vec<(usize, &Package<'_>)> = self.packages.iter().enumerate().collect();
        let found: Vec<usize> = all.iter().filter(fits).map(|(at, _)| *at).collect();
        match found.as_slice() {
            [one] => Ok(*one),
            [] => {
                Err(Diagnostic::error(format!("the lock does not have `{name}`")).at(place.clone()))
            }
            _ => Err(
                Diagnostic::error(format!("the lock has `{name}` more than once"))
                    .at(place.clone()),
            ),
        }
    }

    fn locked(
        &self,
        package: &Package<'_>,
        depends: BTreeSet<String>,
        reason: &str,
    ) -> Result<Locked, Diagnostic> {
        let name = &package.name;
        let place = self.place(package.table);
        let complain = |message: String| Diagnostic::error(message).at(place.clone());
        let source = package.source();
        if source.is_some_and(|source| source.get("git").is_some()) {
            return Err(complain(format!("`{name}` is taken from a repository"))
                .because("only wheels are installed, each by its digest")
                .hint("build a wheel of it and let the project depend on that"));
        }
        let version = package
            .version
            .ok_or_else(|| complain(format!("`{name}` has no version")))?;
        let mut wheels = Vec::new();
        for wheel in package.table.tables("wheels") {
            let location = match (
                wheel.text("url"),
                wheel.text("path"),
                wheel.text("filename"),
            ) {
                (Some(url), _, _) => Location::Url(url.to_owned()),
                (None, Some(path), _) => {
                    // Seen from a local registry.
                    let base = source.and_then(|source| source.text("registry"));
                    Location::Path(match base {
                        Some(base) if !base.contains("://") => format!("{base}/{path}"),
                        _ => path.to_owned(),
                    })
                }
                // A source that is one file names it itself.
                (None, None, Some(_)) => match source {
                    Some(source) => match (source.text("url"), source.text("path")) {
                        (Some(url), _) => Location::Url(url.to_owned()),
                        (None, Some(path)) => Location::Path(path.to_owned()),
                        (None, None) => continue,
                    },
                    None => continue,
                },
                (None, None, None) => continue,
            };
            let (Location::Url(text) | Location::Path(text)) = &location;
            let file = wheel
                .text("filename")
                .map_or_else(|| file_name(text), str::to_owned);
            let parsed = WheelName::parse(&file)
                .ok_or_else(|| complain(format!("`{}` is no wheel", file.escape_debug())))?;
            if !version::is_same(&parsed.version.replace('_', "-"), version) {
                return Err(complain(format!("`{file}` is not of version {version}")));
            }
            wheels.push(WheelFile {
                sha256: wheel.text("hash").and_then(sha256).ok_or_else(|| {
                    complain(format!("`{file}` has no hash of sha256"))
                        .because("what is not pinned by its digest does not exist")
                })?,
                size: size(wheel),
                name: parsed,
                from: location,
                file,
            });
        }
        let sdist = package.table.table("sdist");
        let others = sdist.iter().map(|sdist| {
            let url = sdist.text("url").or_else(|| sdist.text("path"));
            file_name(url.unwrap_or("a source distribution"))
        });
        Ok(Locked {
            name: name.clone(),
            version: version.to_owned(),
            files: Files::Named {
                wheels,
                others: others.collect(),
            },
            depends: depends.into_iter().collect(),
            reason: reason.to_owned(),
            place,
        })
    }
}

/// A source as far as it tells one from another.
fn plain(source: &Table) -> Vec<(String, String)> {
    let text = |data: &Data| match data {
        Data::String(text) => text.clone(),
        _ => String::new(),
    };
    source
        .entries
        .iter()
        .map(|entry| (entry.key.clone(), text(&entry.value.data)))
        .collect()
}
