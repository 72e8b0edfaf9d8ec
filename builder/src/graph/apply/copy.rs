//! The copy rule: what is named in the source becomes `to` in the root.

use std::collections::BTreeMap;
use std::ops::Bound;

use immbuild_cas::digest::DirectoryId;
use immbuild_cas::path::RelPath;
use immbuild_cas::store::DirectorySource;
use immbuild_cas::tree::{Directory, Entry, EntryKind, Meta, Mode, Tree, TreeBuilder, TreeError};

use super::FileOpError;
use super::root::{Missing, Root, Way, join, join_path};
use crate::graph::file_op::one_file_path;
use crate::pattern::Selection;

/// What a copy sets on what it copies, in place of what that brings.
#[derive(Clone, Copy)]
pub(super) struct Given {
    pub(super) mode: Option<Mode>,
    pub(super) dir_mode: Option<Mode>,
    pub(super) owner: Option<(u32, u32)>,
}

impl Given {
    const fn is_nothing(&self) -> bool {
        self.mode.is_none() && self.dir_mode.is_none() && self.owner.is_none()
    }

    fn meta(&self, meta: &Meta, mode: Option<Mode>) -> Meta {
        let (uid, gid) = self.owner.unwrap_or((meta.uid, meta.gid));
        Meta {
            mode: mode.unwrap_or(meta.mode),
            uid,
            gid,
            xattrs: meta.xattrs.clone(),
        }
    }

    fn directory(&self, directory: &Directory) -> Meta {
        self.meta(directory.meta(), self.dir_mode)
    }

    fn entry(&self, mut entry: Entry) -> Entry {
        match &mut entry {
            Entry::Directory(_) => {}
            Entry::File(file) => file.meta = self.meta(&file.meta, self.mode),
            Entry::Special(special) => special.meta = self.meta(&special.meta, None),
            Entry::Symlink(link) => {
                (link.uid, link.gid) = self.owner.unwrap_or((link.uid, link.gid));
            }
        }
        entry
    }
}

/// A copy under way.
pub(super) struct Copy<'r, 'a, 's> {
    root: &'r mut Root<'a>,
    directories: &'s dyn DirectorySource,
    from: &'s RelPath,
    to: &'s RelPath,
    selection: Option<Selection>,
    given: Given,
    /// Directories below `to`, as they are named by the copy, and where in the root they really are.
    made: BTreeMap<RelPath, RelPath>,
    /// The linked paths of the source below `from`, with the number of their group.
    group_of: BTreeMap<RelPath, usize>,
    /// Where in the root something of a group has come, and is not overwritten since.
    landed: BTreeMap<RelPath, usize>,
}

impl<'r, 'a, 's> Copy<'r, 'a, 's> {
    pub(super) fn new(
        root: &'r mut Root<'a>,
        directories: &'s dyn DirectorySource,
        from: &'s RelPath,
        to: &'s RelPath,
        selection: Option<Selection>,
        given: Given,
    ) -> Self {
        Self {
            root,
            directories,
            from,
            to,
            selection,
            given,
            made: BTreeMap::new(),
            group_of: BTreeMap::new(),
            landed: BTreeMap::new(),
        }
    }

    pub(super) fn copy(&mut self, source: &Tree, source_is_file: bool) -> Result<(), FileOpError> {
        let one_file = one_file_path();
        if source_is_file && !self.from.is_root() {
            return Err(FileOpError::InsideOneFile {
                path: self.from.clone(),
            });
        }
        let named = if source_is_file { &one_file } else { self.from };
        let mut reader = Root {
            verb: self.root.verb,
            builder: TreeBuilder::from_tree(self.directories, source),
        };
        let missing = || FileOpError::NotInSource {
            path: self.from.clone(),
        };
        let found = reader.find(named)?.ok_or_else(missing)?;
        let entry = reader.builder.get(&found)?.ok_or_else(missing)?;
        let Entry::Directory(_) = entry else {
            if self.selection.is_some() {
                return Err(FileOpError::PickingFromFile {
                    path: self.from.clone(),
                });
            }
            return self.copy_file(entry, source_is_file);
        };
        for (number, group) in source.links.below(&found).groups().enumerate() {
            for path in group {
                self.group_of.insert(path.clone(), number);
            }
        }
        self.copy_directory(entry)?;
        self.link()
    }

    /// Something that is no directory becomes `to`.
    fn copy_file(&mut self, entry: Entry, is_one_file: bool) -> Result<(), FileOpError> {
        let place = self.root.place(self.to)?;
        let entry = self.given.entry(entry);
        self.root.put(&place, entry).map_err(|error| match error {
            FileOpError::FileMeetsDirectory { verb, path, .. } => {
                let name = self.from.split_last().filter(|_| !is_one_file);
                let name = name.map_or_else(|| "NAME".to_owned(), |(_, name)| name.to_string());
                let slash = if self.to.is_root() { "" } else { "/" };
                FileOpError::FileMeetsDirectory {
                    verb,
                    path,
                    write: format!("to = \"{}{slash}{name}\"", self.to),
                }
            }
            other => other,
        })
    }

    /// What is below a directory becomes what is below `to`, in the order of names, directories before what is in them;
    /// so where two paths of the source lead to one of the root, the later wins.
    fn copy_directory(&mut self, named: Entry) -> Result<(), FileOpError> {
        let mut is_anything_picked = false;
        let mut waiting = vec![(RelPath::root(), named)];
        while let Some((path, entry)) = waiting.pop() {
            let is_dir = matches!(entry, Entry::Directory(_));
            let is_picked = match &self.selection {
                Some(selection) => selection.picks(&path, is_dir),
                None => true,
            };
            is_anything_picked |= is_picked && !path.is_root();
            let Entry::Directory(id) = entry else {
                if is_picked {
                    self.copy_entry(&path, entry)?;
                }
                continue;
            };
            // What is named becomes `to`, whatever is picked below it.
            let place = if is_picked || path.is_root() {
                Some(self.directory_place(&path)?)
            } else if self.may_pick_below(&path) {
                None
            } else {
                continue;
            };
            if let Some(place) = &place
                && self.takes_whole()
                && self.root.builder.kind(place)? != Some(EntryKind::Directory)
            {
                self.take_whole(&path, place, &id)?;
                continue;
            }
            let directory = self
                .directories
                .directory(&id)
                .map_err(|source| TreeError::Store {
                    path: path.clone(),
                    source,
                })?;
            if let Some(place) = place {
                let meta = self.given.directory(&directory);
                self.root.builder.make_directory(&place, meta)?;
                self.land(&path, &place);
                self.made.insert(join_path(self.to, &path)?, place);
            }
            let children: Vec<_> = directory.entries().collect();
            for (name, entry) in children.into_iter().rev() {
                waiting.push((join(&path, name)?, entry.clone()));
            }
        }
        if is_anything_picked || self.selection.is_none() {
            Ok(())
        } else {
            Err(FileOpError::NothingPicked {
                path: self.from.clone(),
            })
        }
    }

    fn may_pick_below(&self, path: &RelPath) -> bool {
        let selection = self.selection.as_ref();
        selection.is_none_or(|selection| selection.may_pick_below(path))
    }

    /// Can a directory be taken as it is, without a look into it, where there is none to merge it with?
    fn takes_whole(&self) -> bool {
        self.selection.is_none() && self.given.is_nothing()
    }

    fn take_whole(
        &mut self,
        path: &RelPath,
        place: &RelPath,
        id: &DirectoryId,
    ) -> Result<(), FileOpError> {
        self.root.builder.insert(place, Entry::Directory(*id))?;
        self.land(path, place);
        // From `path` on lie what is below it and, among that, what has its name and more.
        let beginning = path.as_bytes();
        for (linked, group) in self
            .group_of
            .range::<[u8], _>((Bound::Included(beginning), Bound::Unbounded))
            .take_while(|(linked, _)| linked.as_bytes().starts_with(beginning))
        {
            if let Some(below) = linked.strip_prefix(path) {
                self.landed.insert(join_path(place, &below)?, *group);
            }
        }
        Ok(())
    }

    fn copy_entry(&mut self, path: &RelPath, entry: Entry) -> Result<(), FileOpError> {
        let place = self.place(path)?;
        let entry = self.given.entry(entry);
        self.root.put(&place, entry)?;
        self.land(path, &place);
        Ok(())
    }

    /// Where the directory `path` of the source goes: where a link to a directory is, to that.
    fn directory_place(&mut self, path: &RelPath) -> Result<RelPath, FileOpError> {
        let place = self.place(path)?;
        match self.root.builder.kind(&place)? {
            None | Some(EntryKind::Directory) => Ok(place),
            Some(EntryKind::Symlink) => match self.root.way(&place, Missing::Stop)? {
                Way::Directory(real) => Ok(real),
                Way::Nothing | Way::Blocked(_) => Ok(place),
                Way::Loop => Err(FileOpError::Loop {
                    verb: self.root.verb,
                    path: place,
                }),
            },
            Some(EntryKind::File | EntryKind::Special) => Err(self.root.meets_file(place)),
        }
    }

    /// Where the entry `path` of the source goes, the directories above it being made.
    fn place(&mut self, path: &RelPath) -> Result<RelPath, FileOpError> {
        let Some((parent, name)) = join_path(self.to, path)?.split_last() else {
            return Ok(RelPath::root());
        };
        let real = match self.made.get(&parent) {
            Some(real) => real.clone(),
            None => self.root.directory(&parent)?,
        };
        let place = join(&real, &name)?;
        self.made.insert(parent, real);
        Ok(place)
    }

    /// Keeps in mind that `path` of the source is at `place` of the root now.
    fn land(&mut self, path: &RelPath, place: &RelPath) {
        match self.group_of.get(path) {
            Some(group) => self.landed.insert(place.clone(), *group),
            None => self.landed.remove(place),
        };
    }

    /// Ties together what was one file in the source and came along.
    fn link(&mut self) -> Result<(), FileOpError> {
        let mut first: BTreeMap<usize, &RelPath> = BTreeMap::new();
        for (place, group) in &self.landed {
            let first = first.entry(*group).or_insert(place);
            self.root.builder.link(first, place)?;
        }
        Ok(())
    }
}
