//! Reads a tree from end to end, or follows one path into it.

use std::sync::Arc;

use super::{Directory, Entry, File, Meta, Special, Symlink, Tree, TreeError, join};
use crate::digest::DirectoryId;
use crate::path::{Name, RelPath};
use crate::store::DirectorySource;

/// What a walk meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit<'a> {
    /// A directory. What is in it comes later, not always next: between `a` and `a/b` lies `a.b`.
    Directory(&'a Meta),
    /// A regular file.
    File(&'a File),
    /// A symbolic link.
    Symlink(&'a Symlink),
    /// A named pipe or device.
    Special(&'a Special),
}

/// Shows every entry to `visit` in the order of the bytes of full paths, the root first: the order of tar entries and
/// listings. The first error ends the walk.
pub fn walk<E: From<TreeError>>(
    source: &dyn DirectorySource,
    tree: &Tree,
    visit: &mut dyn FnMut(&RelPath, Visit<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let root = load(source, &RelPath::root(), &tree.root)?;
    visit(&RelPath::root(), Visit::Directory(root.meta()))?;
    walk_below(source, &RelPath::root(), &root, visit)
}

fn walk_below<E: From<TreeError>>(
    source: &dyn DirectorySource,
    path: &RelPath,
    directory: &Directory,
    visit: &mut dyn FnMut(&RelPath, Visit<'_>) -> Result<(), E>,
) -> Result<(), E> {
    // Directories met and not yet entered. When `b` comes after `a` and before `a/`, it begins with `a` and `b/` comes
    // before `a/` as well: so the last one met is always the next to enter.
    let mut waiting: Vec<(&Name, RelPath, Arc<Directory>)> = Vec::new();
    for (name, entry) in directory.entries() {
        while let Some((_, path, directory)) =
            waiting.pop_if(|(entered, ..)| content_comes_before(entered, name))
        {
            walk_below(source, &path, &directory, visit)?;
        }
        let child = join(path, name)?;
        match entry {
            Entry::Directory(id) => {
                let directory = load(source, &child, id)?;
                visit(&child, Visit::Directory(directory.meta()))?;
                waiting.push((name, child, directory));
            }
            Entry::File(file) => visit(&child, Visit::File(file))?,
            Entry::Symlink(link) => visit(&child, Visit::Symlink(link))?,
            Entry::Special(special) => visit(&child, Visit::Special(special))?,
        }
    }
    while let Some((_, path, directory)) = waiting.pop() {
        walk_below(source, &path, &directory, visit)?;
    }
    Ok(())
}

/// Does what is in the directory `entered` come before its sibling `name`? `a/` and what follows, against `a.b`.
fn content_comes_before(entered: &Name, name: &Name) -> bool {
    entered.as_bytes().iter().chain(b"/").lt(name.as_bytes())
}

/// The entry at `path`; nothing when there is none or a directory on the way is none. Symbolic links are not followed.
pub fn entry_at(
    source: &dyn DirectorySource,
    tree: &Tree,
    path: &RelPath,
) -> Result<Option<Entry>, TreeError> {
    let mut entry = Entry::Directory(tree.root);
    let mut above = RelPath::root();
    for name in path.names() {
        let Entry::Directory(id) = entry else {
            return Ok(None);
        };
        let directory = load(source, &above, &id)?;
        let Some(found) = directory.get(name) else {
            return Ok(None);
        };
        entry = found.clone();
        above = join(&above, &Name::new(name).expect("a path is made of names"))?;
    }
    Ok(Some(entry))
}

pub(super) fn load(
    source: &dyn DirectorySource,
    path: &RelPath,
    id: &DirectoryId,
) -> Result<Arc<Directory>, TreeError> {
    source.directory(id).map_err(|source| TreeError::Store {
        path: path.clone(),
        source,
    })
}
