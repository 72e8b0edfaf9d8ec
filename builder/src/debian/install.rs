//! Installs locked packages onto a root: files, dpkg's database, and what takes the place of scripts.
//!
//! The result is a function of the two trees and the op. Must never know where packages come from, or sandboxes: scripts
//! are left for a step to run, with the program that runs them (`scripts`).

use std::collections::{BTreeMap, BTreeSet};

use immbuild_cas::path::{PathError, RelPath};
use immbuild_cas::store::{BlobSource, Store, StoreError};
use immbuild_cas::tree::{Entry, EntryKind, Meta, Mode, Tree, TreeBuilder, TreeError};

use super::fixups::{self, Fixing};
use super::package::{Fields, Package, PackageError};
use super::status::{ADMIN, Installed, State, Status, Triggers, interest_line};
use super::unpack::{BasePackage, Conffiles, Overrides, Unpacker, is_met};
use super::{scripts, sums};
use crate::graph::apply::{FileOpError, Root};
use crate::graph::file_op;
use crate::graph::install::InstallOp;
use crate::spec::model::Configure;

/// Why packages cannot be installed onto a root.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// What was decoded is no package.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// Two packages have one file.
    #[error(
        "`{package}` would overwrite `{path}` of `{other}`, and does not say that it replaces it"
    )]
    Overwrites {
        /// The file.
        path: RelPath,
        /// Who would.
        package: String,
        /// Whose it is.
        other: String,
    },
    /// A file and a directory have one path.
    #[error("`{path}` of `{package}` is {what}, and {} is there", match other {
        Some(other) => format!("something else of `{other}`"),
        None => "something else".to_owned(),
    })]
    Meets {
        /// The path.
        path: RelPath,
        /// Whose it is.
        package: String,
        /// What it is.
        what: &'static str,
        /// Who has what is there.
        other: Option<String>,
    },
    /// The database of the root is not as dpkg writes it.
    #[error("`{path}` is not as dpkg writes it: {reason}")]
    Database {
        /// The file.
        path: RelPath,
        /// What is wrong with it.
        reason: String,
    },
    /// The packages and those of the root do not fit.
    #[error("`{package}` {relation} `{wanted}`, and the root has {found}")]
    Unmet {
        /// The package.
        package: String,
        /// `needs`, `conflicts with`, `breaks`.
        relation: &'static str,
        /// What it says.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// Nothing is there that could run scripts.
    #[error("there is no `{0}` that could run scripts")]
    NoRunner(&'static str),
    /// A fix-up cannot be done.
    #[error("cannot apply the fix-up `{fixup}`: {reason}")]
    Fixup {
        /// Which, as the spec calls it.
        fixup: &'static str,
        /// Why.
        reason: String,
    },
    /// A path is too long, or none.
    #[error("a path cannot be in a tree")]
    Path(#[source] PathError),
    /// The root refused.
    #[error(transparent)]
    Root(#[from] FileOpError),
    /// The tree refused.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What an installation gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// The root with the packages.
    pub tree: Tree,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// Installs the packages in `set`, a directory of decoded packages, onto `base`.
///
/// # Errors
/// The packages do not fit each other or the root.
pub fn install(
    op: &InstallOp,
    base: &Tree,
    set: &Tree,
    store: &dyn Store,
    blobs: &dyn BlobSource,
) -> Result<Installation, InstallError> {
    let root = Root {
        verb: "install",
        builder: TreeBuilder::from_tree(store, base),
    };
    let database = Database::read(root, blobs)?;
    let given = packages_of(set, store)?;
    let packages = database.new_ones(&given, &op.architecture)?;
    let mut warnings = Vec::new();
    if packages.is_empty() {
        let tree = database.root.builder.seal(store)?;
        return Ok(Installation { tree, warnings });
    }
    let state = match op.configure {
        Configure::Scripts => State::Unpacked,
        Configure::None => State::Installed,
    };
    let Database {
        root,
        status,
        base,
        overrides,
        interests,
    } = database;
    let conffiles = match state {
        State::Unpacked => Conffiles::Beside,
        State::Installed => Conffiles::InPlace,
    };
    let mut unpacker = Unpacker::new(
        root,
        store,
        &packages,
        base,
        overrides,
        conffiles,
        &op.fixups.prune,
    );
    unpacker.merge_usr()?;
    for nth in 0..packages.len() {
        unpacker.unpack(nth)?;
    }
    let mut writer = Writer {
        store,
        state,
        packages: &packages,
        status,
        architecture: &op.architecture,
    };
    writer.write(&mut unpacker, &interests, &mut warnings)?;
    match op.configure {
        Configure::Scripts => {
            scripts::prepare(&mut unpacker.root, &packages, &writer.status, store)?;
        }
        Configure::None => {
            let mut fixing = Fixing {
                root: &mut unpacker.root,
                packages: &packages,
                store,
                blobs,
                fixups: &op.fixups,
            };
            warnings.extend(fixups::apply(&mut fixing)?);
        }
    }
    Ok(Installation {
        tree: unpacker.root.builder.seal(store)?,
        warnings,
    })
}

/// The packages of a set.
pub(super) fn packages_of(set: &Tree, store: &dyn Store) -> Result<Vec<Package>, InstallError> {
    let root = store.directory(&set.root)?;
    let mut packages = Vec::new();
    for (name, entry) in root.entries() {
        let shown = name.to_string();
        let Entry::Directory(directory) = entry else {
            return Err(PackageError::Form(shown).into());
        };
        let at = RelPath::new(name.as_bytes()).map_err(InstallError::Path)?;
        let links = set.links.below(&at);
        packages.push(Package::read(&shown, *directory, &links, store)?);
    }
    Ok(packages)
}

/// What a root says about the packages it has.
struct Database<'a> {
    root: Root<'a>,
    status: Status,
    base: Vec<BasePackage>,
    overrides: Overrides,
    /// What installed packages wait for: path, and how the package is called there.
    interests: Vec<(RelPath, String)>,
}

impl<'a> Database<'a> {
    fn read(mut root: Root<'a>, blobs: &dyn BlobSource) -> Result<Self, InstallError> {
        let status_at = admin("status");
        let text = text(&mut root, &status_at, blobs)?.unwrap_or_default();
        let status = Status::parse(&text).map_err(|reason| InstallError::Database {
            path: status_at,
            reason,
        })?;
        let mut base = Vec::new();
        for installed in status.0.values().filter(|it| it.has_files()) {
            let info_name = super::package::info_name(&installed.0);
            let list = text_lines(&mut root, &admin(&format!("info/{info_name}.list")), blobs)?;
            base.push(BasePackage {
                info_name,
                fields: installed.0.clone(),
                list: list.iter().filter_map(|line| path_of(line)).collect(),
                lost: false,
            });
        }
        base.extend(status_directory(&mut root, blobs)?);
        let overrides = Overrides {
            diversions: diversions(&mut root, blobs)?,
            stats: stat_overrides(&mut root, blobs)?,
        };
        let interests = text_lines(&mut root, &admin("triggers/File"), blobs)?
            .iter()
            .filter_map(|line| {
                let (path, package) = line.rsplit_once(' ')?;
                let package = package.strip_suffix("/noawait").unwrap_or(package);
                Some((path_of(path)?, package.to_owned()))
            })
            .collect();
        Ok(Self {
            root,
            status,
            base,
            overrides,
            interests,
        })
    }

    /// The packages that are not there yet, in the order they are unpacked: what has the modes of the first directories,
    /// what is essential, the rest, each by name.
    ///
    /// What the root has stays as it is, also in another version, as long as everything fits.
    fn new_ones(
        &self,
        given: &[Package],
        architecture: &str,
    ) -> Result<Vec<Package>, InstallError> {
        let there: BTreeMap<&str, Vec<&BasePackage>> =
            self.base.iter().fold(BTreeMap::new(), |mut all, package| {
                let name = package.fields.get("Package").unwrap_or_default();
                all.entry(name).or_insert_with(Vec::new).push(package);
                all
            });
        let is_there = |package: &Package| {
            there.get(package.name()).is_some_and(|all| {
                all.iter().any(|other| {
                    let arch = other.fields.get("Architecture").unwrap_or_default();
                    let native = |arch: &str| arch == "all" || arch == architecture;
                    arch == package.arch() || (native(arch) && native(package.arch()))
                })
            })
        };
        let mut new: Vec<Package> = given.iter().filter(|it| !is_there(it)).cloned().collect();
        if !self.base.is_empty() {
            check_relations(&new, &self.base)?;
        }
        new.sort_by_cached_key(|package| {
            let is_first = package.name() == "base-files";
            (!is_first, !package.is_essential(), package.key())
        });
        Ok(new)
    }
}

/// Do new packages fit what is there, and each other?
fn check_relations(new: &[Package], base: &[BasePackage]) -> Result<(), InstallError> {
    let all: Vec<&Fields> = new
        .iter()
        .map(|package| &package.fields)
        .chain(base.iter().map(|package| &package.fields))
        .collect();
    let found = |relation: &str| {
        let name = relation.split(['(', ':']).next().unwrap_or_default().trim();
        let named = all
            .iter()
            .find(|fields| fields.get("Package") == Some(name));
        named.map_or_else(
            || "no such package".to_owned(),
            |fields| {
                let version = fields.get("Version").unwrap_or_default();
                format!("`{name}` {version}")
            },
        )
    };
    for package in new {
        let name = package.name().to_owned();
        for field in ["Pre-Depends", "Depends"] {
            let value = package.fields.get(field).unwrap_or_default();
            for clause in clauses(value) {
                let is_met = clause
                    .split('|')
                    .any(|relation| all.iter().any(|fields| satisfies(fields, relation)));
                if !is_met {
                    return Err(InstallError::Unmet {
                        package: name,
                        relation: "needs",
                        found: found(clause),
                        wanted: clause.to_owned(),
                    });
                }
            }
        }
    }
    let new_fields: Vec<&Fields> = new.iter().map(|package| &package.fields).collect();
    let old_fields: Vec<&Fields> = base.iter().map(|package| &package.fields).collect();
    let pairs = [(&new_fields, &all), (&old_fields, &new_fields)];
    for (speakers, others) in pairs {
        for speaker in speakers {
            let name = speaker.get("Package").unwrap_or_default();
            for (field, relation) in [("Conflicts", "conflicts with"), ("Breaks", "breaks")] {
                for clause in clauses(speaker.get(field).unwrap_or_default()) {
                    let hit = others.iter().find(|other| {
                        other.get("Package") != Some(name) && satisfies(other, clause)
                    });
                    if let Some(hit) = hit {
                        return Err(InstallError::Unmet {
                            package: name.to_owned(),
                            relation,
                            wanted: clause.to_owned(),
                            found: format!(
                                "`{}` {}",
                                hit.get("Package").unwrap_or_default(),
                                hit.get("Version").unwrap_or_default()
                            ),
                        });
                    }
                }
            }
        }
    }
    Ok(())
}

fn clauses(value: &str) -> impl Iterator<Item = &str> {
    value
        .split(',')
        .map(str::trim)
        .filter(|clause| !clause.is_empty())
}

/// Is a relation met by this package, or by what it provides?
fn satisfies(fields: &Fields, relation: &str) -> bool {
    let name = fields.get("Package").unwrap_or_default();
    let version = fields.get("Version").unwrap_or_default();
    if is_met(relation, name, version) {
        return true;
    }
    clauses(fields.get("Provides").unwrap_or_default()).any(|provided| {
        match provided.split_once('(') {
            Some((name, version)) => {
                let version = version.trim_matches(|c| matches!(c, '=' | ')' | ' '));
                is_met(relation, name.trim(), version)
            }
            None => !relation.contains('(') && is_met(relation, provided, ""),
        }
    })
}

/// What is written into the database.
struct Writer<'w> {
    store: &'w dyn Store,
    state: State,
    packages: &'w [Package],
    status: Status,
    architecture: &'w str,
}

impl Writer<'_> {
    fn write(
        &mut self,
        unpacker: &mut Unpacker<'_>,
        interests: &[(RelPath, String)],
        warnings: &mut Vec<String>,
    ) -> Result<(), InstallError> {
        for name in ["info", "parts", "triggers", "updates"] {
            make_directory(&mut unpacker.root, &admin(name))?;
        }
        self.wake(interests, warnings);
        for (nth, package) in self.packages.iter().enumerate() {
            self.info(unpacker, nth)?;
            let conffiles = self.conffiles(package)?;
            let installed = Installed::new(&package.fields, self.state, &conffiles);
            self.status.0.insert(package.key(), installed);
        }
        let lost: Vec<(String, String)> = unpacker
            .base
            .iter()
            .filter(|package| package.lost)
            .map(|package| (package.info_name.clone(), lines(&package.list)))
            .collect();
        let root = &mut unpacker.root;
        for (name, list) in lost {
            self.file(root, &admin(&format!("info/{name}.list")), list.as_bytes())?;
        }
        self.triggers(root)?;
        self.file(root, &admin("status"), self.status.to_text().as_bytes())?;
        for (name, text) in [("available", ""), ("info/format", "1\n")] {
            if root.find(&admin(name))?.is_none() {
                self.file(root, &admin(name), text.as_bytes())?;
            }
        }
        self.architectures(root)
    }

    /// The files of one package in `info`.
    fn info(&self, unpacker: &mut Unpacker<'_>, nth: usize) -> Result<(), InstallError> {
        let package = &self.packages[nth];
        let name = package.info_name();
        let list: Vec<RelPath> = unpacker.list(nth).into_iter().cloned().collect();
        let root = &mut unpacker.root;
        self.file(
            root,
            &admin(&format!("info/{name}.list")),
            lines(&list).as_bytes(),
        )?;
        for (file_name, file) in &package.control {
            let at = [
                admin("info").as_bytes(),
                b"/",
                name.as_bytes(),
                b".",
                file_name.as_bytes(),
            ]
            .concat();
            let place = root.place(&RelPath::new(at).map_err(InstallError::Path)?)?;
            root.put(&place, Entry::File(file.clone()))?;
        }
        if package.control_file("md5sums").is_none() {
            let sums = sums::of_files(package, self.store)?;
            self.file(
                root,
                &admin(&format!("info/{name}.md5sums")),
                sums.as_bytes(),
            )?;
        }
        Ok(())
    }

    /// The configuration files of a package with what `status` says of them.
    fn conffiles(&self, package: &Package) -> Result<Vec<(String, String)>, InstallError> {
        let paths = package.conffiles(self.store)?;
        let mut said = Vec::new();
        for path in paths {
            let text = match self.state {
                State::Unpacked => "newconffile".to_owned(),
                State::Installed => match sums::of_file(package, &path, self.store)? {
                    Some(sum) => sum,
                    None => continue,
                },
            };
            said.push((shown(&path), text));
        }
        Ok(said)
    }

    /// What new packages wait for.
    fn triggers(&self, root: &mut Root<'_>) -> Result<(), InstallError> {
        let mut named: BTreeMap<String, String> = BTreeMap::new();
        let mut paths = String::new();
        for package in self.packages {
            let text = package.control_text("triggers", self.store)?;
            for (trigger, is_noawait) in Triggers::parse(&text.unwrap_or_default()).interests {
                let line = interest_line(&package.info_name(), is_noawait);
                if trigger.starts_with('/') {
                    paths.push_str(&trigger);
                    paths.push(' ');
                    paths.push_str(&line);
                } else if !trigger.contains('/') {
                    named.entry(trigger).or_default().push_str(&line);
                }
            }
        }
        named.insert("File".to_owned(), paths);
        for (name, lines) in named {
            let at = admin(&format!("triggers/{name}"));
            let mut whole = text(root, &at, self.store)?.unwrap_or_default();
            whole.push_str(&lines);
            if !whole.is_empty() || name == "File" {
                self.file(root, &at, whole.as_bytes())?;
            }
        }
        Ok(())
    }

    /// Installed packages that wait for paths which new ones bring.
    fn wake(&mut self, interests: &[(RelPath, String)], warnings: &mut Vec<String>) {
        let mut woken: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for (path, package) in interests {
            let mut brought = self.packages.iter().flat_map(|package| &package.list);
            if brought.any(|other| other.starts_with(path)) {
                woken.entry(package).or_default().insert(shown(path));
            }
        }
        for (name, paths) in woken {
            let (name, arch) = name.split_once(':').unwrap_or((name, ""));
            let found = self.status.0.iter_mut().find(|(key, installed)| {
                key.name == name
                    && (arch.is_empty() || key.arch == arch)
                    && installed.is_installed()
            });
            let Some((_, installed)) = found else {
                continue;
            };
            if self.state == State::Installed {
                let paths: Vec<String> = paths.into_iter().collect();
                warnings.push(format!(
                    "`{name}` of the root waits for `{}`, and nothing executes",
                    paths.join("`, `")
                ));
                continue;
            }
            installed.wake(&paths);
        }
    }

    /// The file that names the architectures, where there is more than one.
    fn architectures(&self, root: &mut Root<'_>) -> Result<(), InstallError> {
        let at = admin("arch");
        let known = text(root, &at, self.store)?.unwrap_or_default();
        let mut all: Vec<&str> = known.lines().collect();
        if all.is_empty() {
            all.push(self.architecture);
        }
        let before = all.len();
        for package in self.packages {
            if package.arch() != "all" && !all.contains(&package.arch()) {
                all.push(package.arch());
            }
        }
        if all.len() > before {
            self.file(root, &at, (all.join("\n") + "\n").as_bytes())?;
        }
        Ok(())
    }

    fn file(&self, root: &mut Root<'_>, at: &RelPath, text: &[u8]) -> Result<(), InstallError> {
        put_text(root, at, text, Mode::FILE, self.store)
    }
}

/// Puts a file of root's there, in the place of a file or link.
pub fn put_text(
    root: &mut Root<'_>,
    at: &RelPath,
    text: &[u8],
    mode: Mode,
    store: &dyn Store,
) -> Result<(), InstallError> {
    let place = root.place(at)?;
    Ok(root.put_file(&place, text, Meta::root(mode), store)?)
}

/// Makes a directory 0755 0:0 where there is none.
pub fn make_directory(root: &mut Root<'_>, at: &RelPath) -> Result<(), InstallError> {
    root.directory(at)?;
    Ok(())
}

/// The text of a file, links at its end being no file.
pub fn text(
    root: &mut Root<'_>,
    at: &RelPath,
    blobs: &dyn BlobSource,
) -> Result<Option<String>, InstallError> {
    let Some(found) = root.find(at)? else {
        return Ok(None);
    };
    let Some(Entry::File(file)) = root.builder.get(&found)? else {
        return Ok(None);
    };
    let bytes = blobs.read(&file.blob)?;
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|_| InstallError::Database {
            path: at.clone(),
            reason: "it is not UTF-8 text".into(),
        })
}

fn text_lines(
    root: &mut Root<'_>,
    at: &RelPath,
    blobs: &dyn BlobSource,
) -> Result<Vec<String>, InstallError> {
    let text = text(root, at, blobs)?.unwrap_or_default();
    Ok(text.lines().map(str::to_owned).collect())
}

/// A file of the database.
pub fn admin(name: &str) -> RelPath {
    RelPath::new(format!("{ADMIN}/{name}").into_bytes()).expect("a name of the database is a path")
}

fn path_of(line: &str) -> Option<RelPath> {
    match line {
        "/." => Some(RelPath::root()),
        line => RelPath::from_absolute(line.as_bytes()).ok(),
    }
}

/// A path as the database writes it.
fn shown(path: &RelPath) -> String {
    format!("/{}", String::from_utf8_lossy(path.as_bytes()))
}

fn lines(paths: &[RelPath]) -> String {
    let mut out = String::new();
    for path in paths {
        out.push_str(&if path.is_root() {
            "/.".to_owned()
        } else {
            shown(path)
        });
        out.push('\n');
    }
    out
}

/// Packages of a root whose maker wrote a file for each of them, without lists of files, for scanners.
fn status_directory(
    root: &mut Root<'_>,
    blobs: &dyn BlobSource,
) -> Result<Vec<BasePackage>, InstallError> {
    let at = admin("status.d");
    let mut packages = Vec::new();
    let Some(found) = root.find(&at)? else {
        return Ok(packages);
    };
    if root.builder.kind(&found)? != Some(EntryKind::Directory) {
        return Ok(packages);
    }
    for name in root.builder.names(&found)? {
        if name.as_bytes().ends_with(b".md5sums") {
            continue;
        }
        let file = found.join(&name).map_err(InstallError::Path)?;
        let text = text(root, &file, blobs)?.unwrap_or_default();
        let stanzas = Fields::parse(&text).map_err(|error| InstallError::Database {
            path: file,
            reason: error.to_string(),
        })?;
        packages.extend(stanzas.into_iter().map(|fields| BasePackage {
            info_name: super::package::info_name(&fields),
            fields,
            list: Vec::new(),
            lost: false,
        }));
    }
    Ok(packages)
}

/// Three lines each: what is diverted, where to, and the package that it is not diverted for, or `:`.
fn diversions(
    root: &mut Root<'_>,
    blobs: &dyn BlobSource,
) -> Result<BTreeMap<RelPath, (RelPath, Option<String>)>, InstallError> {
    let at = admin("diversions");
    let lines = text_lines(root, &at, blobs)?;
    let mut all = BTreeMap::new();
    for entry in lines.chunks(3) {
        let read = match entry {
            [from, to, by] => path_of(from).zip(path_of(to)).map(|pair| (pair, by)),
            _ => None,
        };
        let ((from, to), by) = read.ok_or_else(|| InstallError::Database {
            path: at.clone(),
            reason: "a diversion is not two paths and a package".into(),
        })?;
        all.insert(from, (to, (by != ":").then(|| by.clone())));
    }
    Ok(all)
}

/// A line each: user, group, mode, path.
fn stat_overrides(
    root: &mut Root<'_>,
    blobs: &dyn BlobSource,
) -> Result<BTreeMap<RelPath, (u32, u32, Mode)>, InstallError> {
    let at = admin("statoverride");
    let mut all = BTreeMap::new();
    for line in text_lines(root, &at, blobs)? {
        let wrong = || InstallError::Database {
            path: at.clone(),
            reason: format!("`{line}` is not user, group, mode and path"),
        };
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().ok_or_else(wrong);
        let (user, group, mode, path) = (word()?, word()?, word()?, word()?);
        let owner = match (user.strip_prefix('#'), group.strip_prefix('#')) {
            (Some(uid), Some(gid)) => file_op::Owner::Ids {
                uid: uid.parse().map_err(|_| wrong())?,
                gid: gid.parse().map_err(|_| wrong())?,
            },
            _ => file_op::Owner::Names {
                user: user.to_owned(),
                group: Some(group.to_owned()),
            },
        };
        let mode = u32::from_str_radix(mode, 8).map_err(|_| wrong())?;
        let path = path_of(path).ok_or_else(wrong)?;
        let (uid, gid) = root.owner(&owner, blobs)?;
        all.insert(path, (uid, gid, Mode::of_st_mode(mode)));
    }
    Ok(all)
}
