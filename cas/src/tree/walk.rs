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
    // A stack of its own: a path can be 2048 names deep, which is more than a thread's stack is sure to hold.
    let mut inside = vec![Inside::new(RelPath::root(), root)];
    while let Some(Inside {
        path,
        directory,
        last,
        waiting,
    }) = inside.last_mut()
    {
        let next = directory.after(last.as_ref());
        let is_due = |(entered, ..): &mut (Name, RelPath, Arc<Directory>)| {
            next.is_none_or(|(name, _)| content_comes_before(entered, name))
        };
        if let Some((_, path, directory)) = waiting.pop_if(is_due) {
            inside.push(Inside::new(path, directory));
            continue;
        }
        let Some((name, entry)) = next else {
            inside.pop();
            continue;
        };
        let child = join(path, name)?;
        *last = Some(name.clone());
        match entry {
            Entry::Directory(id) => {
                let directory = load(source, &child, id)?;
                visit(&child, Visit::Directory(directory.meta()))?;
                waiting.push((name.clone(), child, directory));
            }
            Entry::File(file) => visit(&child, Visit::File(file))?,
            Entry::Symlink(link) => visit(&child, Visit::Symlink(link))?,
            Entry::Special(special) => visit(&child, Visit::Special(special))?,
        }
    }
    Ok(())
}

/// A directory that a walk is inside of.
struct Inside {
    path: RelPath,
    directory: Arc<Directory>,
    /// The name met last.
    last: Option<Name>,
    /// Directories met and not yet entered. When `b` comes after `a` and before `a/`, it begins with `a`, and `b/` comes
    /// before `a/` as well: so the last one met is always the next to enter.
    waiting: Vec<(Name, RelPath, Arc<Directory>)>,
}

impl Inside {
    fn new(path: RelPath, directory: Arc<Directory>) -> Self {
        Self {
            path,
            directory,
            last: None,
            waiting: Vec::new(),
        }
    }
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
