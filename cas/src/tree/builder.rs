//! Edits a tree in memory and hashes what changed once, at the end.
//!
//! Directories are read when a path leads into them. What is not read, or read and not edited, keeps its id and is
//! neither hashed nor written again. Symbolic links are entries here; nothing follows them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::{Directory, Entry, LinkGroups, Meta, Mode, Tree, TreeError, join_path};
use crate::digest::DirectoryId;
use crate::path::{Name, RelPath};
use crate::store::{DirectorySink, DirectorySource};

/// What kind of entry stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A named pipe or device.
    Special,
}

impl EntryKind {
    /// The kind of this entry.
    pub const fn of(entry: &Entry) -> Self {
        match entry {
            Entry::Directory(_) => Self::Directory,
            Entry::File(_) => Self::File,
            Entry::Symlink(_) => Self::Symlink,
            Entry::Special(_) => Self::Special,
        }
    }
}

/// A tree that is being made.
///
/// Hard links: an entry put at a path is a file of its own, so the path leaves the group it was in; so does every path
/// below a directory that is removed or replaced. A group of one is none.
pub struct TreeBuilder<'a> {
    source: &'a dyn DirectorySource,
    /// The id of the root, until it is read into `root`.
    unread: Option<DirectoryId>,
    root: Open,
    links: Links,
}

impl std::fmt::Debug for TreeBuilder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TreeBuilder")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl<'a> TreeBuilder<'a> {
    /// An empty root directory with this metadata. Directories that are inserted by id are read from `source`.
    pub fn new(source: &'a dyn DirectorySource, root: Meta) -> Self {
        Self {
            source,
            unread: None,
            root: Open::new(root),
            links: Links::default(),
        }
    }

    /// The tree `tree`, whose directories are read from `source`.
    pub fn from_tree(source: &'a dyn DirectorySource, tree: &Tree) -> Self {
        let mut builder = Self::new(source, Meta::root(Mode::DIRECTORY));
        builder.unread = Some(tree.root);
        builder
            .links
            .add(&RelPath::root(), &tree.links)
            .expect("a path seen from the root is as long as it was");
        builder
    }

    /// The entry at `path`; of a directory its id.
    ///
    /// # Errors
    /// [`TreeError::Unsealed`] for a directory in or below which something was edited: it has no id yet. Ask
    /// [`kind`](Self::kind), [`directory_meta`](Self::directory_meta) and [`names`](Self::names) instead.
    pub fn get(&mut self, path: &RelPath) -> Result<Option<Entry>, TreeError> {
        let Some((parent, name)) = self.parent(path)? else {
            return match self.open(path)? {
                Some(open) => open.entry(path).map(Some),
                None => Ok(None),
            };
        };
        match parent.children.get(name) {
            Some(open) => open.entry(path).map(Some),
            None => Ok(parent.directory.get(name).cloned()),
        }
    }

    /// What kind of entry is at `path`.
    pub fn kind(&mut self, path: &RelPath) -> Result<Option<EntryKind>, TreeError> {
        if path.is_root() {
            return Ok(Some(EntryKind::Directory));
        }
        Ok(self
            .parent(path)?
            .and_then(|(parent, name)| parent.kind(name)))
    }

    /// The metadata of the directory at `path`; nothing when there is none.
    pub fn directory_meta(&mut self, path: &RelPath) -> Result<Option<Meta>, TreeError> {
        Ok(self.open(path)?.map(|open| open.directory.meta().clone()))
    }

    /// The names in the directory at `path`, sorted.
    pub fn names(&mut self, path: &RelPath) -> Result<Vec<Name>, TreeError> {
        let open = self
            .open(path)?
            .ok_or_else(|| TreeError::NotADirectory(path.clone()))?;
        let names: BTreeSet<&Name> = open
            .directory
            .entries()
            .map(|(name, _)| name)
            .chain(open.children.keys())
            .collect();
        Ok(names.into_iter().cloned().collect())
    }

    /// Makes a directory in one that is there. One that is there already gets this metadata and keeps what is in it;
    /// any other entry is replaced.
    pub fn make_directory(&mut self, path: &RelPath, meta: Meta) -> Result<(), TreeError> {
        if let Some(open) = self.open(path)? {
            if *open.directory.meta() != meta {
                open.edit().set_meta(meta);
            }
            return Ok(());
        }
        let (parent, name) = self.parent_or_error(path)?;
        if parent.directory.get(name.as_bytes()).is_some() {
            parent.edit().remove(name.as_bytes());
        }
        // It is in no directory object yet, and gets there when it is sealed.
        parent.id = None;
        parent.children.insert(name, Box::new(Open::new(meta)));
        self.links.forget(path);
        Ok(())
    }

    /// Puts an entry into a directory that is there. What stood at `path` is replaced, a directory with all in it.
    ///
    /// An [`Entry::Directory`] comes without hard links; [`graft`](Self::graft) brings them.
    pub fn insert(&mut self, path: &RelPath, entry: Entry) -> Result<(), TreeError> {
        if path.is_root() {
            let Entry::Directory(id) = entry else {
                return Err(TreeError::Root);
            };
            self.unread = Some(id);
        } else {
            let (parent, name) = self.parent_or_error(path)?;
            parent.children.remove(&name);
            parent
                .edit()
                .insert(name, entry)
                .map_err(|source| TreeError::Entry {
                    path: path.clone(),
                    source,
                })?;
        }
        self.links.forget(path);
        self.links.forget_below(path);
        Ok(())
    }

    /// Puts a whole directory of another tree at `path`, replacing what is there, with the hard links inside of it:
    /// `links` has paths relative to that directory, as [`LinkGroups::below`] gives them.
    pub fn graft(
        &mut self,
        path: &RelPath,
        directory: DirectoryId,
        links: &LinkGroups,
    ) -> Result<(), TreeError> {
        self.insert(path, Entry::Directory(directory))?;
        self.links.add(path, links)
    }

    /// Makes `new` a hard link to the file, symbolic link or special file `existing`, replacing what is at `new`.
    pub fn link(&mut self, existing: &RelPath, new: &RelPath) -> Result<(), TreeError> {
        if self.kind(existing)? == Some(EntryKind::Directory) {
            return Err(TreeError::IsADirectory(existing.clone()));
        }
        let entry = self
            .get(existing)?
            .ok_or_else(|| TreeError::Missing(existing.clone()))?;
        if existing == new {
            return Ok(());
        }
        self.insert(new, entry)?;
        // What stood in a directory that the link has replaced is gone.
        if !existing.starts_with(new) {
            self.links.join(existing, new);
        }
        Ok(())
    }

    /// Removes what is at `path`, with everything below.
    pub fn remove(&mut self, path: &RelPath) -> Result<(), TreeError> {
        if path.is_root() {
            return Err(TreeError::Root);
        }
        let missing = || TreeError::Missing(path.clone());
        let (parent, name) = self.parent(path)?.ok_or_else(missing)?;
        parent.kind(name).ok_or_else(missing)?;
        parent.children.remove(name);
        parent.edit().remove(name);
        self.links.forget(path);
        self.links.forget_below(path);
        Ok(())
    }

    /// Hashes and keeps every edited directory once, and gives the tree.
    pub fn seal(mut self, sink: &dyn DirectorySink) -> Result<Tree, TreeError> {
        let root = match self.unread {
            Some(id) => id,
            None => self.root.seal(sink, &mut Vec::new())?,
        };
        Ok(Tree {
            root,
            links: self.links.into_groups(),
        })
    }

    /// The directory at `path`; nothing when there is something else or nothing.
    fn open(&mut self, path: &RelPath) -> Result<Option<&mut Open>, TreeError> {
        let depth = path.names().count();
        let (open, reached) = self.descend(path, depth)?;
        Ok((reached == depth).then_some(open))
    }

    /// The directory that `path` is in and its name there; nothing for the root, or when that is no directory.
    fn parent<'p>(
        &mut self,
        path: &'p RelPath,
    ) -> Result<Option<(&mut Open, &'p [u8])>, TreeError> {
        let Some(name) = path.names().next_back() else {
            return Ok(None);
        };
        let depth = path.names().count() - 1;
        let (open, reached) = self.descend(path, depth)?;
        Ok((reached == depth).then_some((open, name)))
    }

    /// As [`parent`](Self::parent), for an edit.
    fn parent_or_error(&mut self, path: &RelPath) -> Result<(&mut Open, Name), TreeError> {
        let name = path.names().next_back().ok_or(TreeError::Root)?;
        let depth = path.names().count() - 1;
        let (open, reached) = self.descend(path, depth)?;
        if reached == depth {
            let name = Name::new(name).expect("a path is made of names");
            return Ok((open, name));
        }
        let blocked = prefix(path, reached + 1);
        let name = path.names().nth(reached).expect("above the depth of path");
        Err(match open.kind(name) {
            None => TreeError::Missing(blocked),
            Some(_) => TreeError::NotADirectory(blocked),
        })
    }

    /// Goes down `depth` names of `path` as far as there are directories, and says how far that was.
    fn descend(&mut self, path: &RelPath, depth: usize) -> Result<(&mut Open, usize), TreeError> {
        let source = self.source;
        if let Some(id) = self.unread {
            self.root = Open::load(source, &id, RelPath::root)?;
            self.unread = None;
        }
        let mut open = &mut self.root;
        for (above, name) in path.names().take(depth).enumerate() {
            if !open.has_child(source, name, || prefix(path, above + 1))? {
                return Ok((open, above));
            }
            open = open
                .children
                .get_mut(name)
                .expect("has_child read it or found it there");
        }
        Ok((open, depth))
    }
}

/// The first `count` names of a path.
fn prefix(path: &RelPath, count: usize) -> RelPath {
    let names: Vec<&[u8]> = path.names().take(count).collect();
    RelPath::new(names.join(&b'/')).expect("the beginning of a path is a path")
}

/// A directory in memory. It is what `directory` says, with each of `children` in the place of what stands there under
/// the same name, if anything does.
#[derive(Debug)]
struct Open {
    /// The id of `directory`, until that is edited.
    id: Option<DirectoryId>,
    directory: Arc<Directory>,
    children: BTreeMap<Name, Box<Open>>,
}

impl Open {
    fn new(meta: Meta) -> Self {
        Self {
            id: None,
            directory: Arc::new(Directory::new(meta)),
            children: BTreeMap::new(),
        }
    }

    fn load(
        source: &dyn DirectorySource,
        id: &DirectoryId,
        path: impl FnOnce() -> RelPath,
    ) -> Result<Self, TreeError> {
        let directory = source.directory(id).map_err(|source| TreeError::Store {
            path: path(),
            source,
        })?;
        Ok(Self {
            id: Some(*id),
            directory,
            children: BTreeMap::new(),
        })
    }

    /// Is `name` a directory? If so it is among `children` now.
    fn has_child(
        &mut self,
        source: &dyn DirectorySource,
        name: &[u8],
        path: impl FnOnce() -> RelPath,
    ) -> Result<bool, TreeError> {
        if self.children.contains_key(name) {
            return Ok(true);
        }
        let Some(Entry::Directory(id)) = self.directory.get(name) else {
            return Ok(false);
        };
        let child = Self::load(source, id, path)?;
        let name = Name::new(name).expect("it names an entry");
        self.children.insert(name, Box::new(child));
        Ok(true)
    }

    fn kind(&self, name: &[u8]) -> Option<EntryKind> {
        if self.children.contains_key(name) {
            return Some(EntryKind::Directory);
        }
        self.directory.get(name).map(EntryKind::of)
    }

    fn edit(&mut self) -> &mut Directory {
        self.id = None;
        Arc::make_mut(&mut self.directory)
    }

    /// Its id, when neither it nor anything below was edited.
    fn unchanged(&self) -> Option<DirectoryId> {
        let mut children = self.children.iter();
        let all_unchanged = children.all(|(name, child)| {
            let here = self.directory.get(name.as_bytes());
            child.unchanged().map(Entry::Directory).as_ref() == here
        });
        self.id.filter(|_| all_unchanged)
    }

    fn entry(&self, path: &RelPath) -> Result<Entry, TreeError> {
        self.unchanged()
            .map(Entry::Directory)
            .ok_or_else(|| TreeError::Unsealed(path.clone()))
    }

    /// Hashes and keeps what was edited. `path` holds the names on the way, for an error.
    fn seal(
        &mut self,
        sink: &dyn DirectorySink,
        path: &mut Vec<Name>,
    ) -> Result<DirectoryId, TreeError> {
        while let Some((name, mut child)) = self.children.pop_first() {
            path.push(name);
            let sealed = Entry::Directory(child.seal(sink, path)?);
            let name = path.pop().expect("pushed above");
            if self.directory.get(name.as_bytes()) != Some(&sealed) {
                self.edit()
                    .insert(name, sealed)
                    .expect("a directory can be in any directory");
            }
        }
        if let Some(id) = self.id {
            return Ok(id);
        }
        sink.put_directory(&self.directory)
            .map_err(|source| TreeError::Store {
                path: joined(path),
                source,
            })
    }
}

fn joined(names: &[Name]) -> RelPath {
    let names: Vec<&[u8]> = names.iter().map(Name::as_bytes).collect();
    RelPath::new(names.join(&b'/')).expect("the builder was given this path")
}

/// Hard link groups that can be edited: each linked path with the number of its group.
#[derive(Debug, Default)]
struct Links {
    group_of: BTreeMap<RelPath, usize>,
    groups: usize,
}

impl Links {
    /// Takes in the groups of what was put at `directory`.
    fn add(&mut self, directory: &RelPath, groups: &LinkGroups) -> Result<(), TreeError> {
        for group in groups.groups() {
            self.groups += 1;
            for path in group {
                self.group_of
                    .insert(join_path(directory, path)?, self.groups);
            }
        }
        Ok(())
    }

    fn join(&mut self, existing: &RelPath, new: &RelPath) {
        let known = self.group_of.get(existing).copied();
        let group = known.unwrap_or_else(|| {
            self.groups += 1;
            self.group_of.insert(existing.clone(), self.groups);
            self.groups
        });
        self.group_of.insert(new.clone(), group);
    }

    fn forget(&mut self, path: &RelPath) {
        self.group_of.remove(path);
    }

    fn forget_below(&mut self, directory: &RelPath) {
        if directory.is_root() {
            self.group_of.clear();
        }
        if self.group_of.is_empty() {
            return;
        }
        // In the order of bytes everything below `a` lies from `a/` up to, and without, `a0`.
        let [mut first, mut end] = [directory.as_bytes().to_vec(), directory.as_bytes().to_vec()];
        first.push(b'/');
        end.push(b'/' + 1);
        let range = (Bound::Included(&*first), Bound::Excluded(&*end));
        let below: Vec<RelPath> = self
            .group_of
            .range::<[u8], _>(range)
            .map(|(path, _)| path.clone())
            .collect();
        for path in below {
            self.group_of.remove(&path);
        }
    }

    fn into_groups(self) -> LinkGroups {
        let mut groups: BTreeMap<usize, Vec<RelPath>> = BTreeMap::new();
        for (path, group) in self.group_of {
            groups.entry(group).or_default().push(path);
        }
        LinkGroups::new(groups.into_values()).expect("a path has one group")
    }
}
