//! Which packages share a layer, and what of a root is in it.
//!
//! A layer is to stay the same bytes when a package in another one moves. So who is in which depends on names alone, never
//! on versions, sizes or on what else is there: what is essential is together, the rest is spread by the name of the source
//! it was built from, since packages of one source move together. What the root has and no package brought as it is, merged
//! files above all, comes last.

use std::collections::{BTreeMap, BTreeSet};

use immbuild_cas::digest::{Digest, TreeId};
use immbuild_cas::path::RelPath;
use immbuild_cas::store::Store;
use immbuild_cas::tree::{Entry, EntryKind, Tree, TreeBuilder, TreeError, Visit, walk};

use super::install::{InstallError, packages_of};
use super::package::Package;
use crate::graph::apply::{Missing, Root, Way};

/// What everything else stands on, where a root has nothing essential.
const CORE: [&str; 1] = ["libc6"];

/// Packages that share a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Their names, sorted.
    pub names: Vec<String>,
    /// Their files as they are in the root, and nothing else.
    pub tree: TreeId,
}

/// A root by packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    /// The groups, each with something in it, in the order of layers.
    pub groups: Vec<Group>,
    /// What was below, with the files of all groups.
    pub together: TreeId,
}

/// Takes `root` apart, which packages of `set` were installed to, onto `below`. Of `most` layers one is for what is left.
///
/// # Errors
/// A tree cannot be read or made.
pub fn groups(
    below: &Tree,
    root: &Tree,
    set: &Tree,
    most: usize,
    store: &dyn Store,
) -> Result<Groups, InstallError> {
    let packages = packages_of(set, store)?;
    let mut cutter = Cutter {
        store,
        root: Root {
            verb: "layers",
            builder: TreeBuilder::from_tree(store, root),
        },
        below: TreeBuilder::from_tree(store, below),
        links: root.links.first_by_path(),
        taken: BTreeSet::new(),
    };
    let mut together = TreeBuilder::from_tree(store, below);
    let meta = cutter
        .root
        .builder
        .directory_meta(&RelPath::root())?
        .expect("the root is a directory");
    let mut groups = Vec::new();
    for members in assigned(&packages, most) {
        let mut tree = TreeBuilder::new(store, meta.clone());
        let mut names = BTreeSet::new();
        for nth in members {
            let package = &packages[nth];
            for piece in cutter.pieces(package)? {
                cutter.put(&mut tree, &piece)?;
                cutter.put(&mut together, &piece)?;
                names.insert(package.name().to_owned());
            }
        }
        if !names.is_empty() {
            groups.push(Group {
                names: names.into_iter().collect(),
                tree: store.put_tree(&tree.seal(store)?)?,
            });
        }
    }
    let together = store.put_tree(&together.seal(store)?)?;
    Ok(Groups { groups, together })
}

/// The places of packages, by group.
fn assigned(packages: &[Package], most: usize) -> Vec<Vec<usize>> {
    let core = core(packages);
    let others = most.saturating_sub(2);
    let mut groups = vec![Vec::new(); others + 1];
    for (package, nth) in packages.iter().zip(0..) {
        let group = if most < 2 || core.contains(&nth) || others == 0 {
            0
        } else {
            1 + bucket(source(package), others)
        };
        groups[group].push(nth);
    }
    if most < 2 {
        // There is one layer, and it is for what is left: everything.
        groups.clear();
    }
    groups
}

/// What is essential, or the C library, with all that it needs.
fn core(packages: &[Package]) -> BTreeSet<usize> {
    let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (package, nth) in packages.iter().zip(0..) {
        by_name.entry(package.name()).or_default().push(nth);
    }
    let mut open: Vec<usize> = (0..packages.len())
        .filter(|nth| {
            let package = &packages[*nth];
            package.is_essential() || CORE.contains(&package.name())
        })
        .collect();
    let mut core = BTreeSet::new();
    while let Some(nth) = open.pop() {
        if !core.insert(nth) {
            continue;
        }
        let fields = &packages[nth].fields;
        for field in ["Pre-Depends", "Depends"] {
            for clause in fields.get(field).unwrap_or_default().split(',') {
                let found = clause.split('|').find_map(|relation| {
                    let name = relation.split(['(', ':']).next().unwrap_or_default();
                    by_name.get(name.trim())
                });
                open.extend(found.into_iter().flatten());
            }
        }
    }
    core
}

/// The source a package was built from.
fn source(package: &Package) -> &str {
    let source = package.fields.get("Source");
    let name = source.and_then(|source| source.split([' ', '(']).next());
    name.unwrap_or_else(|| package.name())
}

/// One of so many, by name: when there is one more, only what goes to it moves. Part of format 1: changing it changes image
/// bytes.
fn bucket(name: &str, buckets: usize) -> usize {
    (0..buckets)
        .max_by_key(|bucket| {
            let weight = Digest::of(format!("{name}\0{bucket}").as_bytes());
            *weight.as_bytes()
        })
        .unwrap_or(0)
}

/// A file of a package as the root has it.
struct Piece {
    place: RelPath,
    entry: Entry,
    /// The first path of its hard link group, where it is another.
    first: Option<RelPath>,
}

struct Cutter<'c, 'a> {
    store: &'a dyn Store,
    root: Root<'a>,
    below: TreeBuilder<'a>,
    links: BTreeMap<&'c RelPath, &'c RelPath>,
    taken: BTreeSet<RelPath>,
}

impl Cutter<'_, '_> {
    /// The files of a package that the root has as the package brought them, and that were not below.
    fn pieces(&mut self, package: &Package) -> Result<Vec<Piece>, InstallError> {
        let mut pieces = Vec::new();
        let mut real: BTreeMap<RelPath, Option<RelPath>> = BTreeMap::new();
        let firsts = package.data.links.first_by_path();
        walk(self.store, &package.data, &mut |path, visit| {
            let entry = match visit {
                Visit::Directory(_) => return Ok::<(), InstallError>(()),
                Visit::File(file) => Entry::File(file.clone()),
                Visit::Symlink(link) => Entry::Symlink(link.clone()),
                Visit::Special(special) => Entry::Special(special.clone()),
            };
            let Some((parent, name)) = path.split_last() else {
                return Ok(());
            };
            if !real.contains_key(&parent) {
                let found = match self.root.way(&parent, Missing::Stop)? {
                    Way::Directory(found) => Some(found),
                    _ => None,
                };
                real.insert(parent.clone(), found);
            }
            let Some(directory) = &real[&parent] else {
                return Ok(());
            };
            let place = directory.join(&name).map_err(InstallError::Path)?;
            let has = matches!(
                self.root.builder.kind(&place)?,
                Some(EntryKind::File | EntryKind::Symlink | EntryKind::Special)
            );
            if !has
                || self.root.builder.get(&place)?.as_ref() != Some(&entry)
                || self.below.kind(&place)?.is_some()
                || !self.taken.insert(place.clone())
            {
                return Ok(());
            }
            // A group that the root has otherwise is left to what comes last.
            let first = self.links.get(&place).map(|first| (*first).clone());
            if first.is_some() != firsts.contains_key(path) {
                return Ok(());
            }
            let first = first.filter(|first| *first != place);
            pieces.push(Piece {
                place,
                entry,
                first,
            });
            Ok(())
        })?;
        // The first of each group comes first.
        pieces.sort_by(|one, other| one.place.cmp(&other.place));
        let places: BTreeSet<RelPath> = pieces.iter().map(|piece| piece.place.clone()).collect();
        pieces.retain(|piece| {
            piece
                .first
                .as_ref()
                .is_none_or(|first| places.contains(first))
        });
        Ok(pieces)
    }

    fn put(&mut self, tree: &mut TreeBuilder<'_>, piece: &Piece) -> Result<(), InstallError> {
        let parent = piece.place.parent().unwrap_or_default();
        let mut missing = Vec::new();
        let mut above = Some(parent);
        while let Some(directory) = above {
            if tree.kind(&directory)? == Some(EntryKind::Directory) {
                break;
            }
            above = directory.parent();
            missing.push(directory);
        }
        for directory in missing.into_iter().rev() {
            let meta = self.root.builder.directory_meta(&directory)?;
            let meta = meta.ok_or_else(|| TreeError::NotADirectory(directory.clone()))?;
            tree.make_directory(&directory, meta)?;
        }
        match &piece.first {
            Some(first) => tree.link(first, &piece.place)?,
            None => tree.insert(&piece.place, piece.entry.clone())?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bucket_more_moves_only_what_goes_to_it() {
        let names: Vec<String> = (0..200).map(|nth| format!("source-{nth}")).collect();
        for buckets in 1..12 {
            for name in &names {
                let (before, after) = (bucket(name, buckets), bucket(name, buckets + 1));
                assert!(before == after || after == buckets, "{name}");
            }
        }
        let used: BTreeSet<usize> = names.iter().map(|name| bucket(name, 10)).collect();
        assert_eq!(used.len(), 10);
    }
}
