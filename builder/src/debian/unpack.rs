//! Puts the files of packages into a root, as dpkg does: who owns what, who may replace whom, what lies where.
//!
//! Order matters only where dpkg makes it matter: a directory has the mode of the first package that brings it, and a link
//! to a directory stays one. Everything is found inside the root that is being built.
//!
//! Must never know scripts.

use std::collections::{BTreeMap, BTreeSet};

use immbuild_cas::path::{Name, PathError, RelPath};
use immbuild_cas::store::Store;
use immbuild_cas::tree::{Entry, EntryKind, Meta, Mode, Symlink, Visit, walk};

use super::install::InstallError;
use super::package::{Fields, Package};
use super::version;
use crate::graph::apply::{Missing, Root, Way};
use crate::spec::model::Prune;

/// What a conffile is called until it is in its place.
const NEW: &[u8] = b".dpkg-new";

/// A package that was there.
#[derive(Clone, Debug)]
pub(super) struct BasePackage {
    /// What its files in the database are called by.
    pub(super) info_name: String,
    /// Its fields.
    pub(super) fields: Fields,
    /// The paths of its files, as it names them.
    pub(super) list: Vec<RelPath>,
    /// Did it lose files to a package that replaces it?
    pub(super) lost: bool,
}

/// What an administrator, or a script, has said about paths.
#[derive(Clone, Debug, Default)]
pub(super) struct Overrides {
    /// Where files go instead (dpkg-divert(1)): from, to, and the package that they are not diverted for.
    pub(super) diversions: BTreeMap<RelPath, (RelPath, Option<String>)>,
    /// Owners and modes (dpkg-statoverride(1)).
    pub(super) stats: BTreeMap<RelPath, (u32, u32, Mode)>,
}

/// How conffiles are put into the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conffiles {
    /// Beside their place, for dpkg to put them there.
    Beside,
    /// In their place, unless something is there.
    InPlace,
}

/// A root that packages are put into.
#[allow(missing_debug_implementations, reason = "holds a trait object")]
pub(super) struct Unpacker<'a> {
    /// The root.
    pub(super) root: Root<'a>,
    /// Where directories and contents are.
    pub(super) store: &'a dyn Store,
    /// What is installed.
    pub(super) packages: &'a [Package],
    /// What was there.
    pub(super) base: Vec<BasePackage>,
    /// What was said about paths.
    pub(super) overrides: Overrides,
    /// How conffiles go.
    pub(super) conffiles: Conffiles,
    /// What is left out.
    pub(super) prune: &'a BTreeSet<Prune>,
    /// Whose each new file is, by its place in the root.
    owners: BTreeMap<RelPath, usize>,
    /// Whose each file that was there is; found out when it is asked.
    base_owners: Option<BTreeMap<RelPath, usize>>,
    /// Directories that nobody has spoken of yet: whoever brings them first says their mode.
    implicit: BTreeSet<RelPath>,
    /// Files that went to a package which replaces another, by the package that lost them.
    lost: Vec<BTreeSet<RelPath>>,
}

impl<'a> Unpacker<'a> {
    /// Packages for a root.
    pub(super) fn new(
        root: Root<'a>,
        store: &'a dyn Store,
        packages: &'a [Package],
        base: Vec<BasePackage>,
        overrides: Overrides,
        conffiles: Conffiles,
        prune: &'a BTreeSet<Prune>,
    ) -> Self {
        Self {
            root,
            store,
            packages,
            base,
            overrides,
            conffiles,
            prune,
            owners: BTreeMap::new(),
            base_owners: None,
            implicit: BTreeSet::new(),
            lost: vec![BTreeSet::new(); packages.len()],
        }
    }

    /// The links of a root whose `/bin` is `/usr/bin`, where there is nothing yet: what bookworm requires. `/lib64` and its
    /// like are made where a package has something for them, as a system of one architecture has it. A linker in
    /// `/usr/lib64` (from trixie on) counts as well, because programs name it by `/lib64`.
    ///
    /// # Errors
    /// The tree refused.
    pub(super) fn merge_usr(&mut self) -> Result<(), InstallError> {
        let mut names: BTreeSet<&str> = ["bin", "sbin", "lib"].into();
        let lists = self.packages.iter().flat_map(|package| &package.list);
        let firsts: BTreeSet<&[u8]> = lists
            .filter_map(|path| {
                let names: Vec<&[u8]> = path.names().take(3).collect();
                match names[..] {
                    [b"usr", second @ b"lib64", linker] if linker.starts_with(b"ld-") => {
                        Some(second)
                    }
                    _ => names.first().copied(),
                }
            })
            .collect();
        let others = ["lib32", "lib64", "libx32", "libo32"];
        names.extend(
            others
                .iter()
                .filter(|name| firsts.contains(name.as_bytes())),
        );
        for name in names {
            let link = constant(name);
            if self.root.builder.kind(&link)?.is_some() {
                continue;
            }
            let target = format!("usr/{name}");
            self.make_implicit(&constant(&target))?;
            let symlink = Symlink {
                target: target.into_bytes().into(),
                uid: 0,
                gid: 0,
            };
            self.root.builder.insert(&link, Entry::Symlink(symlink))?;
        }
        Ok(())
    }

    /// Puts the files of one package into the root.
    ///
    /// # Errors
    /// A path belongs to another package, or cannot be there.
    pub(super) fn unpack(&mut self, nth: usize) -> Result<(), InstallError> {
        let packages = self.packages;
        let package = &packages[nth];
        let mut one = One {
            nth,
            package,
            conffiles: package.conffiles(self.store)?.into_iter().collect(),
            real: BTreeMap::from([(RelPath::root(), RelPath::root())]),
            placed: BTreeMap::new(),
        };
        let first = package.data.links.first_by_path();
        walk(self.store, &package.data, &mut |path, visit| {
            if self.is_pruned(path, matches!(visit, Visit::Directory(_))) {
                return Ok(());
            }
            let entry = match visit {
                Visit::Directory(meta) => return self.directory(&mut one, path, meta),
                Visit::File(file) => Entry::File(file.clone()),
                Visit::Symlink(link) => Entry::Symlink(link.clone()),
                Visit::Special(special) => Entry::Special(special.clone()),
            };
            self.entry(&mut one, path, entry, first.get(path).copied())
        })
    }

    /// What is left of a package's file list: without what went to others.
    pub(super) fn list(&self, nth: usize) -> Vec<&RelPath> {
        let gone = &self.lost[nth];
        let all = self.packages[nth].list.iter();
        all.filter(|path| !gone.contains(*path)).collect()
    }

    fn is_pruned(&self, path: &RelPath, is_directory: bool) -> bool {
        self.prune
            .iter()
            .any(|prune| is_pruned_by(*prune, path.as_bytes(), is_directory))
    }

    fn directory(
        &mut self,
        one: &mut One<'_>,
        path: &RelPath,
        meta: &Meta,
    ) -> Result<(), InstallError> {
        let Some((parent, name)) = path.split_last() else {
            // The root is there, as a directory that exists.
            return Ok(());
        };
        let place = self.real(one, &parent)?.join(&name).map_err(of_path)?;
        let real = match self.root.builder.kind(&place)? {
            None => {
                self.root
                    .builder
                    .make_directory(&place, self.stat(path, meta.clone()))?;
                place
            }
            Some(EntryKind::Directory) => {
                if self.implicit.remove(&place) {
                    self.root
                        .builder
                        .make_directory(&place, self.stat(path, meta.clone()))?;
                }
                place
            }
            Some(EntryKind::Symlink) => match self.root.way(&place, Missing::Stop)? {
                Way::Directory(real) => real,
                _ => return Err(self.meets(one, path, &place, "a directory")),
            },
            Some(EntryKind::File | EntryKind::Special) => {
                return Err(self.meets(one, path, &place, "a directory"));
            }
        };
        one.real.insert(path.clone(), real);
        Ok(())
    }

    fn entry(
        &mut self,
        one: &mut One<'_>,
        path: &RelPath,
        mut entry: Entry,
        first: Option<&RelPath>,
    ) -> Result<(), InstallError> {
        let diverted = self.diverted(one, path);
        let written = diverted.as_ref().unwrap_or(path);
        let (parent, name) = written
            .split_last()
            .expect("the root of a package is a directory");
        let mut place = self.real(one, &parent)?.join(&name).map_err(of_path)?;
        match self.root.builder.kind(&place)? {
            // dpkg does not replace a directory by a link.
            Some(EntryKind::Directory) if matches!(entry, Entry::Symlink(_)) => return Ok(()),
            Some(EntryKind::Directory) => return Err(self.meets(one, path, &place, "a file")),
            Some(_) if !self.may_replace(one, path, &place, &entry)? => return Ok(()),
            Some(_) | None => {}
        }
        if one.conffiles.contains(path) && matches!(entry, Entry::File(_)) {
            match self.conffiles {
                Conffiles::Beside => {
                    let (parent, name) = place.split_last().expect("it is a file");
                    let name = Name::new([name.as_bytes(), NEW].concat()).map_err(of_path)?;
                    self.owners.insert(place.clone(), one.nth);
                    place = parent.join(&name).map_err(of_path)?;
                }
                // What a step, or somebody's base, has put there is meant.
                Conffiles::InPlace if self.root.builder.kind(&place)?.is_some() => {
                    self.owners.insert(place, one.nth);
                    return Ok(());
                }
                Conffiles::InPlace => {}
            }
        }
        if let Entry::File(file) = &mut entry {
            file.meta = self.stat(path, file.meta.clone());
        }
        match first.and_then(|first| one.placed.get(first)) {
            Some(existing) if !one.conffiles.contains(path) => {
                self.root.builder.link(existing, &place)?;
            }
            _ => {
                self.root.builder.insert(&place, entry)?;
                if let Some(first) = first {
                    one.placed.insert(first.clone(), place.clone());
                }
            }
        }
        self.owners.insert(place, one.nth);
        Ok(())
    }

    /// Where a path goes instead, if it does.
    fn diverted(&self, one: &One<'_>, path: &RelPath) -> Option<RelPath> {
        let (to, by) = self.overrides.diversions.get(path)?;
        (by.as_deref() != Some(one.package.name())).then(|| to.clone())
    }

    /// May this entry take a place where something is? If not, and nothing is wrong, the other has it for good.
    fn may_replace(
        &mut self,
        one: &One<'_>,
        path: &RelPath,
        place: &RelPath,
        entry: &Entry,
    ) -> Result<bool, InstallError> {
        if let Some(other) = self.owners.get(place).copied() {
            let (new, old) = (one.package, &self.packages[other]);
            if other == one.nth {
                return Ok(true);
            }
            if replaces(&new.fields, &old.fields) {
                let lost = self.written_by(other, place, path);
                self.lost[other].insert(lost);
                return Ok(true);
            }
            if replaces(&old.fields, &new.fields) {
                self.lost[one.nth].insert(path.clone());
                return Ok(false);
            }
            let is_shared = new.name() == old.name()
                && new.fields.get("Multi-Arch") == Some("same")
                && self.root.builder.get(place)?.as_ref() == Some(entry);
            if is_shared {
                return Ok(false);
            }
            return Err(InstallError::Overwrites {
                path: path.clone(),
                package: new.name().to_owned(),
                other: old.name().to_owned(),
            });
        }
        let Some(base) = self.base_owner(place)? else {
            return Ok(true);
        };
        let other = &mut self.base[base];
        if replaces(&one.package.fields, &other.fields) {
            other.list.retain(|listed| listed != path);
            other.lost = true;
            return Ok(true);
        }
        Err(InstallError::Overwrites {
            path: path.clone(),
            package: one.package.name().to_owned(),
            other: other.fields.get("Package").unwrap_or_default().to_owned(),
        })
    }

    /// What a package calls the file at a place: most of the time, as the other does.
    fn written_by(&mut self, nth: usize, place: &RelPath, path: &RelPath) -> RelPath {
        let packages = self.packages;
        let list = &packages[nth].list;
        if list.contains(path) {
            return path.clone();
        }
        list.iter()
            .find(|listed| self.root.find(listed).ok().flatten().as_ref() == Some(place))
            .unwrap_or(path)
            .clone()
    }

    /// Whose file was there.
    fn base_owner(&mut self, place: &RelPath) -> Result<Option<usize>, InstallError> {
        if self.base_owners.is_none() {
            let mut owners = BTreeMap::new();
            for (nth, package) in self.base.iter().enumerate() {
                for path in &package.list {
                    let path = match self.overrides.diversions.get(path) {
                        Some((to, by)) if by.as_deref() != package.fields.get("Package") => to,
                        _ => path,
                    };
                    if let Some(found) = self.root.find(path)? {
                        owners.insert(found, nth);
                    }
                }
            }
            self.base_owners = Some(owners);
        }
        let owners = self.base_owners.as_ref();
        Ok(owners.and_then(|owners| owners.get(place)).copied())
    }

    /// The directory that a package means by a path, made if it names none.
    fn real(&mut self, one: &mut One<'_>, path: &RelPath) -> Result<RelPath, InstallError> {
        if let Some(real) = one.real.get(path) {
            return Ok(real.clone());
        }
        let real = match self.root.way(path, Missing::Stop)? {
            Way::Directory(real) => real,
            Way::Nothing => {
                self.make_implicit(path)?;
                self.root.directory(path)?
            }
            Way::Blocked(_) | Way::Loop => {
                return Err(self.meets(one, path, path, "a directory"));
            }
        };
        one.real.insert(path.clone(), real.clone());
        Ok(real)
    }

    /// Makes a directory, with its parents, that a package may still say the mode of.
    fn make_implicit(&mut self, path: &RelPath) -> Result<(), InstallError> {
        let mut above = vec![path.clone()];
        while let Some(parent) = above[above.len() - 1].parent() {
            above.push(parent);
        }
        for path in above.iter().rev() {
            if let Some((parent, name)) = path.split_last() {
                let place = self.root.directory(&parent)?.join(&name).map_err(of_path)?;
                if self.root.builder.kind(&place)?.is_none() {
                    let meta = Meta::root(Mode::DIRECTORY);
                    self.root.builder.make_directory(&place, meta)?;
                    self.implicit.insert(place);
                }
            }
        }
        Ok(())
    }

    /// Owner and mode as an administrator wants them.
    fn stat(&self, path: &RelPath, mut meta: Meta) -> Meta {
        if let Some((uid, gid, mode)) = self.overrides.stats.get(path) {
            (meta.uid, meta.gid, meta.mode) = (*uid, *gid, *mode);
        }
        meta
    }

    fn meets(
        &self,
        one: &One<'_>,
        path: &RelPath,
        place: &RelPath,
        what: &'static str,
    ) -> InstallError {
        let other = self.owners.get(place);
        InstallError::Meets {
            path: path.clone(),
            package: one.package.name().to_owned(),
            what,
            other: other.map(|other| self.packages[*other].name().to_owned()),
        }
    }
}

/// A package while it is unpacked.
struct One<'p> {
    nth: usize,
    package: &'p Package,
    conffiles: BTreeSet<RelPath>,
    /// Where its directories are in the root.
    real: BTreeMap<RelPath, RelPath>,
    /// Where the first file of each of its hard link groups is.
    placed: BTreeMap<RelPath, RelPath>,
}

fn of_path(source: PathError) -> InstallError {
    InstallError::Path(source)
}

fn constant(path: &str) -> RelPath {
    RelPath::new(path.as_bytes()).expect("a constant is a path")
}

/// Does `new` say that it replaces files of `old`?
fn replaces(new: &Fields, old: &Fields) -> bool {
    let name = old.get("Package").unwrap_or_default();
    let version = old.get("Version").unwrap_or_default();
    new.get("Replaces")
        .unwrap_or_default()
        .split(',')
        .any(|relation| is_met(relation, name, version))
}

/// Does a package of this name and version meet one relation, `name (>= 1)`?
pub(super) fn is_met(relation: &str, name: &str, version: &str) -> bool {
    let (wanted, rest) = match relation.split_once('(') {
        Some((wanted, rest)) => (wanted, Some(rest)),
        None => (relation, None),
    };
    let wanted = wanted.trim();
    let wanted = wanted.split_once(':').map_or(wanted, |(name, _)| name);
    if wanted != name {
        return false;
    }
    let Some(rest) = rest else {
        return true;
    };
    let rest = rest.trim().trim_end_matches(')');
    let at = rest
        .find(|c| !matches!(c, '<' | '>' | '='))
        .unwrap_or(rest.len());
    let (operator, bound) = rest.split_at(at);
    let order = version::compare(version, bound.trim());
    match operator {
        "<<" => order.is_lt(),
        "<=" | "<" => order.is_le(),
        ">>" => order.is_gt(),
        ">=" | ">" => order.is_ge(),
        _ => order.is_eq(),
    }
}

/// Is this path left out? Copyright files never are.
fn is_pruned_by(prune: Prune, path: &[u8], is_directory: bool) -> bool {
    let below = |directory: &str| {
        path.strip_prefix(directory.as_bytes())
            .and_then(|rest| rest.strip_prefix(b"/"))
    };
    match prune {
        // A link in place of a package's directory leads to where its copyright is.
        Prune::Docs => below("usr/share/doc").is_some_and(|rest| {
            let mut names = rest.split(|byte| *byte == b'/');
            let deep = names.next().is_some() && names.next().is_some();
            deep && !rest.ends_with(b"/copyright")
        }),
        Prune::Info => below("usr/share/info").is_some(),
        Prune::Man => below("usr/share/man").is_some(),
        Prune::Locales => below("usr/share/locale").is_some_and(|rest| {
            let name = rest.split(|byte| *byte == b'/').next().unwrap_or_default();
            (is_directory || name.len() < rest.len())
                && name != b"C"
                && name != b"en"
                && !name.starts_with(b"C.")
                && !name.starts_with(b"en_")
                && !name.starts_with(b"en@")
        }),
    }
}
