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
    /// The id of the root, until it is read.
    unread: Option<DirectoryId>,
    /// Directories in memory, the root first. They name each other by their places here, so that nothing depends on how
    /// deep a tree is. One that was removed stays in its place, where nothing leads to it.
    open: Vec<Open>,
    links: Links,
}

impl std::fmt::Debug for TreeBuilder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TreeBuilder")
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

impl<'a> TreeBuilder<'a> {
    /// An empty root directory with this metadata. Directories that are inserted by id are read from `source`.
    pub fn new(source: &'a dyn DirectorySource, root: Meta) -> Self {
        Self {
            source,
            unread: None,
            open: vec![Open::new(None, root)],
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
        if let Some(at) = self.open(path)? {
            let id = self.open[at].id;
            let id = id.ok_or_else(|| TreeError::Unsealed(path.clone()))?;
            return Ok(Some(Entry::Directory(id)));
        }
        Ok(match self.parent(path)? {
            Some((parent, name)) => self.open[parent].directory.get(name).cloned(),
            None => None,
        })
    }

    /// What kind of entry is at `path`.
    pub fn kind(&mut self, path: &RelPath) -> Result<Option<EntryKind>, TreeError> {
        if path.is_root() {
            return Ok(Some(EntryKind::Directory));
        }
        Ok(match self.parent(path)? {
            Some((parent, name)) => self.open[parent].kind(name),
            None => None,
        })
    }

    /// The metadata of the directory at `path`; nothing when there is none.
    pub fn directory_meta(&mut self, path: &RelPath) -> Result<Option<Meta>, TreeError> {
        let at = self.open(path)?;
        Ok(at.map(|at| self.open[at].directory.meta().clone()))
    }

    /// The names in the directory at `path`, sorted.
    pub fn names(&mut self, path: &RelPath) -> Result<Vec<Name>, TreeError> {
        let at = self.open(path)?;
        let open = &self.open[at.ok_or_else(|| TreeError::NotADirectory(path.clone()))?];
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
        if let Some(at) = self.open(path)? {
            if *self.open[at].directory.meta() != meta {
                self.edit(at).set_meta(meta);
            }
            return Ok(());
        }
        let (parent, name) = self.parent_or_error(path)?;
        // It is in no directory object before it is sealed.
        self.edit(parent).remove(name.as_bytes());
        let at = self.open.len();
        self.open
            .push(Open::new(Some((parent, name.clone())), meta));
        self.open[parent].children.insert(name, at);
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
            self.open.truncate(1);
            self.unread = Some(id);
        } else {
            let (parent, name) = self.parent_or_error(path)?;
            self.edit(parent)
                .insert(name.clone(), entry)
                .map_err(|source| TreeError::Entry {
                    path: path.clone(),
                    source,
                })?;
            self.open[parent].children.remove(&name);
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
        let group = self.links.group_of.get(existing).copied();
        self.insert(new, entry)?;
        if !existing.starts_with(new) {
            self.links.join(existing, new);
        } else if let Some(group) = group {
            // It stood in a directory that the link has replaced, and is gone; what else is that file is not.
            self.links.group_of.insert(new.clone(), group);
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
        self.open[parent].kind(name).ok_or_else(missing)?;
        self.edit(parent).remove(name);
        self.open[parent].children.remove(name);
        self.links.forget(path);
        self.links.forget_below(path);
        Ok(())
    }

    /// Hashes and keeps every edited directory once, and gives the tree.
    pub fn seal(mut self, sink: &dyn DirectorySink) -> Result<Tree, TreeError> {
        let root = match self.unread {
            Some(id) => id,
            None => self.seal_root(sink)?,
        };
        Ok(Tree {
            root,
            links: self.links.into_groups(),
        })
    }

    fn seal_root(&mut self, sink: &dyn DirectorySink) -> Result<DirectoryId, TreeError> {
        // Every edited directory that can still be reached, each before what is in it.
        let mut edited = vec![0];
        let mut looked_into = 0;
        while let Some(at) = edited.get(looked_into) {
            let children = self.open[*at].children.values();
            edited.extend(children.filter(|child| self.open[**child].id.is_none()));
            looked_into += 1;
        }
        let mut root = None;
        for at in edited.into_iter().rev() {
            root = Some(self.seal_one(at, sink)?);
        }
        Ok(root.expect("the root is the last one"))
    }

    /// Everything in the directory is sealed.
    fn seal_one(&mut self, at: usize, sink: &dyn DirectorySink) -> Result<DirectoryId, TreeError> {
        if let Some(id) = self.open[at].id {
            return Ok(id);
        }
        for (name, child) in std::mem::take(&mut self.open[at].children) {
            let id = self.open[child].id.expect("it is sealed or unchanged");
            Arc::make_mut(&mut self.open[at].directory)
                .insert(name, Entry::Directory(id))
                .expect("a directory can be in any directory");
        }
        let id = sink
            .put_directory(&self.open[at].directory)
            .map_err(|source| TreeError::Store {
                path: self.path(at),
                source,
            })?;
        self.open[at].id = Some(id);
        Ok(id)
    }

    /// The directory object, which is about to be edited: it and all above lose their ids.
    fn edit(&mut self, at: usize) -> &mut Directory {
        let mut changed = Some(at);
        while let Some(at) = changed {
            let open = &mut self.open[at];
            // Above one that has none, none has one.
            changed = open
                .id
                .take()
                .and(open.place.as_ref())
                .map(|(parent, _)| *parent);
        }
        Arc::make_mut(&mut self.open[at].directory)
    }

    /// The path of a directory in memory.
    fn path(&self, mut at: usize) -> RelPath {
        let mut names = Vec::new();
        while let Some((parent, name)) = &self.open[at].place {
            names.push(name.as_bytes());
            at = *parent;
        }
        names.reverse();
        RelPath::new(names.join(&b'/')).expect("a path led there")
    }

    /// The directory at `path`; nothing when there is something else or nothing.
    fn open(&mut self, path: &RelPath) -> Result<Option<usize>, TreeError> {
        let depth = path.names().count();
        let (at, reached) = self.descend(path, depth)?;
        Ok((reached == depth).then_some(at))
    }

    /// The directory that `path` is in and its name there; nothing for the root, or when that is no directory.
    fn parent<'p>(&mut self, path: &'p RelPath) -> Result<Option<(usize, &'p [u8])>, TreeError> {
        let Some(name) = path.names().next_back() else {
            return Ok(None);
        };
        let depth = path.names().count() - 1;
        let (at, reached) = self.descend(path, depth)?;
        Ok((reached == depth).then_some((at, name)))
    }

    /// As [`parent`](Self::parent), for an edit.
    fn parent_or_error(&mut self, path: &RelPath) -> Result<(usize, Name), TreeError> {
        let name = path.names().next_back().ok_or(TreeError::Root)?;
        let depth = path.names().count() - 1;
        let (at, reached) = self.descend(path, depth)?;
        if reached == depth {
            return Ok((at, Name::new(name).expect("a path is made of names")));
        }
        let blocked = prefix(path, reached + 1);
        let name = path.names().nth(reached).expect("above the depth of path");
        Err(match self.open[at].kind(name) {
            None => TreeError::Missing(blocked),
            Some(_) => TreeError::NotADirectory(blocked),
        })
    }

    /// Goes down `depth` names of `path` as far as there are directories, and says how far that was.
    fn descend(&mut self, path: &RelPath, depth: usize) -> Result<(usize, usize), TreeError> {
        let load = |id: &DirectoryId, depth| {
            let loaded = self.source.directory(id);
            loaded.map_err(|source| TreeError::Store {
                path: prefix(path, depth),
                source,
            })
        };
        if let Some(id) = self.unread {
            self.open[0] = Open::of(None, id, load(&id, 0)?);
            self.unread = None;
        }
        let mut at = 0;
        for (above, name) in path.names().take(depth).enumerate() {
            if let Some(child) = self.open[at].children.get(name) {
                at = *child;
                continue;
            }
            let Some(Entry::Directory(id)) = self.open[at].directory.get(name) else {
                return Ok((at, above));
            };
            let (id, directory) = (*id, load(id, above + 1)?);
            let name = Name::new(name).expect("it names an entry");
            let child = self.open.len();
            self.open[at].children.insert(name.clone(), child);
            self.open.push(Open::of(Some((at, name)), id, directory));
            at = child;
        }
        Ok((at, depth))
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
    /// Where it is, and its name there; nothing for the root.
    place: Option<(usize, Name)>,
    /// Its id, until something in or below it is edited.
    id: Option<DirectoryId>,
    directory: Arc<Directory>,
    children: BTreeMap<Name, usize>,
}

impl Open {
    fn new(place: Option<(usize, Name)>, meta: Meta) -> Self {
        Self {
            place,
            id: None,
            directory: Arc::new(Directory::new(meta)),
            children: BTreeMap::new(),
        }
    }

    fn of(place: Option<(usize, Name)>, id: DirectoryId, directory: Arc<Directory>) -> Self {
        Self {
            place,
            id: Some(id),
            directory,
            children: BTreeMap::new(),
        }
    }

    fn kind(&self, name: &[u8]) -> Option<EntryKind> {
        if self.children.contains_key(name) {
            return Some(EntryKind::Directory);
        }
        self.directory.get(name).map(EntryKind::of)
    }
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
