//! What turns one tree into another, by meaning: content, mode, owner, extended attributes and hard links, never by what
//! some file system happened to touch.
//!
//! `apply(a, delta(a, b))` is `b`, and `delta(a, a)` is empty.

use std::collections::{BTreeMap, BTreeSet};

use super::walk::load;
use super::{
    Entry, File, LinkGroups, Meta, Special, Symlink, Tree, TreeBuilder, TreeError, entry_at, join,
};
use crate::digest::DirectoryId;
use crate::path::RelPath;
use crate::store::{DirectorySink, DirectorySource};

/// What happens at one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// What is there goes, with everything below.
    Remove,
    /// There is a directory with this metadata. One that was there keeps what is in it; any other entry goes.
    Directory(Meta),
    /// There is this file. What was there goes, with everything below.
    File(File),
    /// There is this symbolic link. What was there goes, with everything below.
    Symlink(Symlink),
    /// There is this pipe or device. What was there goes, with everything below.
    Special(Special),
}

/// The changes that turn one tree into another. What it does not name stays.
///
/// A directory is named when it is new or its own metadata changed, not because something in it did. [`Change::Remove`]
/// names only the topmost path that vanishes, and none where another entry takes its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// The changes in the order of the bytes of paths: a parent before what is in it.
    pub changes: BTreeMap<RelPath, Change>,
    /// Which of the changed paths are one file. Every member of a group is in `changes`.
    pub links: LinkGroups,
}

impl Delta {
    /// Does it change nothing?
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Does this path, in both trees a file, link or special file, become a file of its own by the changes?
    fn replaces(&self, path: &RelPath) -> bool {
        if self.changes.contains_key(path) {
            return true;
        }
        let mut above = path.parent();
        while let Some(directory) = above {
            match self.changes.get(&directory) {
                None | Some(Change::Directory(_)) => above = directory.parent(),
                Some(_) => return true,
            }
        }
        false
    }
}

/// What turns `old` into `new`. Directories of equal id are not opened.
///
/// # Hard links
/// A changed path is a file of its own to whoever applies the delta, unless `links` ties it to other changed paths. So
/// what is left of the groups of `old` are their unchanged paths. Where that is not what `new` says, more paths have to
/// be named, with the content they have already:
///
/// - A group of `new` with a changed path in it, or with paths that were not one file before, is named whole, and stands
///   in `links`: a layer must not link to a file of a layer below.
/// - Of the unchanged paths of one group of `old`, all have to remain together that are not named. So when they are apart
///   in `new`, only one part may remain: the largest, of equally large ones the part with the first path. The others are
///   named.
pub fn delta(source: &dyn DirectorySource, old: &Tree, new: &Tree) -> Result<Delta, TreeError> {
    let mut delta = Delta::default();
    compare(source, &old.root, &new.root, &mut delta.changes)?;
    compare_links(source, old, new, &mut delta)?;
    Ok(delta)
}

/// Compares two directories, and what is below as far as it differs.
///
/// What is still to be done waits in a list, not on the stack: a path can be 2048 names deep.
fn compare(
    source: &dyn DirectorySource,
    old: &DirectoryId,
    new: &DirectoryId,
    changes: &mut BTreeMap<RelPath, Change>,
) -> Result<(), TreeError> {
    let mut waiting = vec![(RelPath::root(), *old, *new)];
    while let Some((path, old, new)) = waiting.pop() {
        if old == new {
            continue;
        }
        let (old, new) = (load(source, &path, &old)?, load(source, &path, &new)?);
        if old.meta() != new.meta() {
            changes.insert(path.clone(), Change::Directory(new.meta().clone()));
        }
        for (name, _) in old.entries() {
            if new.get(name.as_bytes()).is_none() {
                changes.insert(join(&path, name)?, Change::Remove);
            }
        }
        for (name, entry) in new.entries() {
            match (old.get(name.as_bytes()), entry) {
                (Some(same), _) if same == entry => {}
                (Some(Entry::Directory(old)), Entry::Directory(new)) => {
                    waiting.push((join(&path, name)?, *old, *new));
                }
                _ => add(source, join(&path, name)?, entry, changes)?,
            }
        }
    }
    Ok(())
}

/// All of `entry` is new at `path`.
fn add(
    source: &dyn DirectorySource,
    path: RelPath,
    entry: &Entry,
    changes: &mut BTreeMap<RelPath, Change>,
) -> Result<(), TreeError> {
    let mut waiting = vec![(path, entry.clone())];
    while let Some((path, entry)) = waiting.pop() {
        let change = match entry {
            Entry::Directory(id) => {
                let directory = load(source, &path, &id)?;
                for (name, entry) in directory.entries() {
                    waiting.push((join(&path, name)?, entry.clone()));
                }
                Change::Directory(directory.meta().clone())
            }
            Entry::File(file) => Change::File(file),
            Entry::Symlink(link) => Change::Symlink(link),
            Entry::Special(special) => Change::Special(special),
        };
        changes.insert(path, change);
    }
    Ok(())
}

fn compare_links(
    source: &dyn DirectorySource,
    old: &Tree,
    new: &Tree,
    delta: &mut Delta,
) -> Result<(), TreeError> {
    let group_in_new = new.links.first_by_path();
    let mut named: BTreeSet<&RelPath> = BTreeSet::new();
    let mut kept: BTreeSet<&RelPath> = BTreeSet::new();
    for group in old.links.groups() {
        let mut parts: BTreeMap<&RelPath, Vec<&RelPath>> = BTreeMap::new();
        for path in group.iter().filter(|path| !delta.replaces(path)) {
            // A path without a group in `new` is a part by itself.
            let part = group_in_new.get(path).copied().unwrap_or(path);
            parts.entry(part).or_default().push(path);
        }
        let largest = parts
            .iter()
            .filter(|(part, paths)| match new.links.starting_with(part) {
                Some(whole) => whole.len() == paths.len(),
                None => true,
            })
            // The last of the largest would win; the order is turned so that it is the first.
            .rev()
            .max_by_key(|(_, paths)| paths.len())
            .map(|(part, _)| *part);
        for (part, paths) in parts {
            if largest != Some(part) {
                named.extend(paths);
            } else if paths.len() > 1 {
                kept.insert(part);
            }
        }
    }
    let mut groups = Vec::new();
    for group in new.links.groups().filter(|group| !kept.contains(&group[0])) {
        named.extend(group);
        groups.push(group.to_vec());
    }
    for path in named {
        if delta.changes.contains_key(path) {
            continue;
        }
        match entry_at(source, new, path)? {
            None | Some(Entry::Directory(_)) => return Err(TreeError::Links(path.clone())),
            Some(entry) => add(source, path.clone(), &entry, &mut delta.changes)?,
        }
    }
    delta.links = LinkGroups::new(groups).expect("groups of one tree");
    Ok(())
}

/// The tree that `delta` makes of `base`.
///
/// # Errors
/// The delta is none of a tree like `base`: it removes what is not there, or puts something where no directory is.
pub fn apply(
    source: &dyn DirectorySource,
    sink: &dyn DirectorySink,
    base: &Tree,
    delta: &Delta,
) -> Result<Tree, TreeError> {
    let mut builder = TreeBuilder::from_tree(source, base);
    for (path, change) in &delta.changes {
        match change {
            Change::Remove => builder.remove(path)?,
            Change::Directory(meta) => builder.make_directory(path, meta.clone())?,
            Change::File(file) => builder.insert(path, Entry::File(file.clone()))?,
            Change::Symlink(link) => builder.insert(path, Entry::Symlink(link.clone()))?,
            Change::Special(special) => builder.insert(path, Entry::Special(special.clone()))?,
        }
    }
    for group in delta.links.groups() {
        for path in &group[1..] {
            builder.link(&group[0], path)?;
        }
    }
    builder.seal(sink)
}
