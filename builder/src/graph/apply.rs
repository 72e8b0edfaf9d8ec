//! Does the verbs that edit a tree and execute nothing: from trees to a tree.
//!
//! Paths are walked as a process inside the root would walk them: links on the way are followed and end in the root whatever
//! they say. What stands at the end of a path is what it is, a link too.
//!
//! Must never know specs, processes or where a tree came from.

use std::collections::BTreeMap;
use std::ops::Bound;

use immbuild_cas::digest::DirectoryId;
use immbuild_cas::path::{Name, PathError, RelPath};
use immbuild_cas::store::{BlobSource, DirectorySource, Store, StoreError};
use immbuild_cas::tree::{
    Directory, Entry, EntryKind, File, Meta, Mode, Symlink, Tree, TreeBuilder, TreeError,
};

use super::accounts::{self, AccountError, GROUP, NewUser, PASSWD};
use super::file_op::{FileOp, Owner, one_file_path};
use crate::pattern::{PatternError, Selection};

/// How many links a path may lead through, as in Linux (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// Why a verb cannot be done on this root.
#[derive(Debug, thiserror::Error)]
pub enum FileOpError {
    /// There is nothing at the path a copy names.
    #[error("`{path}` is not in the source")]
    NotInSource {
        /// The path in the source.
        path: RelPath,
    },
    /// A path into a source that is one file.
    #[error("the source is one file, and `{path}` is a path in a directory")]
    InsideOneFile {
        /// The path in the source.
        path: RelPath,
    },
    /// `include` or `exclude` for something that is no directory.
    #[error("`include` and `exclude` pick below a directory, and `{path}` is none")]
    PickingFromFile {
        /// The path in the source.
        path: RelPath,
    },
    /// `include` and `exclude` leave nothing.
    #[error("`include` and `exclude` leave nothing of `{path}`")]
    NothingPicked {
        /// The path in the source.
        path: RelPath,
    },
    /// A pattern of `include` or `exclude` is none.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// Something that is no directory would take the place of a directory.
    #[error("`{verb}` would put a file at `{path}`, where a directory is")]
    FileMeetsDirectory {
        /// The verb.
        verb: &'static str,
        /// Where they meet.
        path: RelPath,
        /// What to write in the spec.
        write: String,
    },
    /// A directory would take the place of something that is none.
    #[error("`{verb}` would make a directory of `{path}`, where a file is")]
    DirectoryMeetsFile {
        /// The verb.
        verb: &'static str,
        /// Where they meet.
        path: RelPath,
        /// What to write in the spec.
        write: String,
    },
    /// A path leads through something that is no directory.
    #[error("`{verb}` of `{path}`: `{blocked}` is not a directory")]
    NotADirectory {
        /// The verb.
        verb: &'static str,
        /// The path.
        path: RelPath,
        /// What is in its way.
        blocked: RelPath,
    },
    /// A path leads through more than 40 links.
    #[error("`{verb}` of `{path}`: links lead around in a circle")]
    Loop {
        /// The verb.
        verb: &'static str,
        /// The path.
        path: RelPath,
    },
    /// A link on the way says what cannot be a path.
    #[error("`{verb}` of `{path}`: a link on the way leads to no path")]
    LinkText {
        /// The verb.
        verb: &'static str,
        /// The path.
        path: RelPath,
        /// What is wrong with it.
        source: PathError,
    },
    /// Something gets too long a path.
    #[error("what goes below `{directory}` gets too long a path")]
    TooLong {
        /// The directory.
        directory: RelPath,
        /// What is wrong with it.
        source: PathError,
    },
    /// There is nothing to remove.
    #[error("there is nothing at `{path}` to remove")]
    NothingToRemove {
        /// The path.
        path: RelPath,
    },
    /// The root cannot go.
    #[error("the root cannot be removed")]
    RemovesRoot,
    /// A user or group is missing or there already.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// `/etc/passwd` or `/etc/group` is no regular file, or cannot be read.
    #[error("cannot read accounts from `{path}`")]
    Accounts {
        /// The path.
        path: RelPath,
        /// What the store says; nothing when it is no regular file.
        source: Option<StoreError>,
    },
    /// The home of a user is no text, or has no place in an account line.
    #[error("`{path}` cannot be a home directory")]
    Home {
        /// The path.
        path: RelPath,
    },
    /// The store does not take a file.
    #[error("cannot keep `{path}`")]
    Keep {
        /// The path of the file.
        path: RelPath,
        /// What the store says.
        source: StoreError,
    },
    /// The tree cannot be read or edited so.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

impl FileOpError {
    /// What to write in the spec to mend it, where that can be said.
    pub fn write(&self) -> Option<String> {
        match self {
            Self::FileMeetsDirectory { write, .. } | Self::DirectoryMeetsFile { write, .. } => {
                Some(write.clone())
            }
            Self::Account(AccountError::NoUser(name)) => {
                Some(format!("{{ user = \"{name}\", uid = 10001 }}"))
            }
            _ => None,
        }
    }
}

/// The root that `op` makes of `base`.
///
/// `source` is what a copy copies from; `source_is_file` says that it is one file, as [`file_op`](super::file_op) has it.
/// Directories are read from `store`, account files through `blobs`; what is made is kept in `store`.
///
/// # Panics
/// `op` is a copy and there is no `source`: a plan gives it one.
pub fn apply_file_op(
    op: &FileOp,
    base: &Tree,
    source: Option<&Tree>,
    source_is_file: bool,
    store: &dyn Store,
    blobs: &dyn BlobSource,
) -> Result<Tree, FileOpError> {
    let mut root = Root {
        verb: op.verb(),
        builder: TreeBuilder::from_tree(store, base),
    };
    match op {
        FileOp::Copy {
            from,
            to,
            include,
            exclude,
            mode,
            dir_mode,
            owner,
        } => {
            let given = Given {
                mode: *mode,
                dir_mode: *dir_mode,
                owner: owner
                    .as_ref()
                    .map(|owner| root.owner(owner, blobs))
                    .transpose()?,
            };
            let selection = (!include.is_empty() || !exclude.is_empty())
                .then(|| Selection::new(include, exclude))
                .transpose()?;
            let source = source.expect("a plan gives a copy its source");
            let mut copy = Copy {
                root: &mut root,
                directories: store,
                from,
                to,
                selection,
                given,
                made: BTreeMap::new(),
                group_of: BTreeMap::new(),
                landed: BTreeMap::new(),
            };
            copy.copy(source, source_is_file)?;
        }
        FileOp::Write {
            path,
            text,
            mode,
            owner,
        } => {
            let (uid, gid) = root.owner(owner, blobs)?;
            let meta = Meta {
                uid,
                gid,
                ..Meta::root(*mode)
            };
            let place = root.place(path)?;
            root.put_file(&place, text, meta, store)?;
        }
        FileOp::Mkdir { path, mode, owner } => {
            let owner = owner
                .as_ref()
                .map(|owner| root.owner(owner, blobs))
                .transpose()?;
            root.make_directory(path, *mode, owner)?;
        }
        FileOp::Link { path, target } => {
            let place = root.place(path)?;
            let link = Symlink {
                target: target.as_slice().into(),
                uid: 0,
                gid: 0,
            };
            root.put(&place, Entry::Symlink(link))?;
        }
        FileOp::Remove { path } => root.remove(path)?,
        FileOp::User {
            name,
            uid,
            gid,
            home,
            login,
            groups,
        } => {
            let user = NewUser {
                name,
                uid: *uid,
                gid: *gid,
                home: &home_text(home.as_ref())?,
                login,
                groups,
            };
            root.add_user(&user, blobs, store)?;
            if let Some(home) = home {
                root.make_directory(home, None, Some((*uid, *gid)))?;
            }
        }
    }
    Ok(root.builder.seal(store)?)
}

/// The numbers of an owner, names being looked up in `tree`.
pub fn resolve_owner(
    owner: &Owner,
    tree: &Tree,
    directories: &dyn DirectorySource,
    blobs: &dyn BlobSource,
) -> Result<(u32, u32), FileOpError> {
    let mut root = Root {
        verb: "owner",
        builder: TreeBuilder::from_tree(directories, tree),
    };
    root.owner(owner, blobs)
}

fn home_text(home: Option<&RelPath>) -> Result<String, FileOpError> {
    let Some(home) = home else {
        return Ok("/nonexistent".to_owned());
    };
    let text = std::str::from_utf8(home.as_bytes());
    text.map(|text| format!("/{text}"))
        .map_err(|_| FileOpError::Home { path: home.clone() })
}

/// A root that a verb works on.
struct Root<'a> {
    verb: &'static str,
    builder: TreeBuilder<'a>,
}

/// What becomes of names on the way that lead nowhere.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// They become directories, 0755 0:0.
    Make,
    /// They end the way.
    Stop,
}

/// Where a way through a root has led.
enum Way {
    /// To a directory, by a path without links.
    Directory(RelPath),
    /// No further than to this path, where there is nothing.
    Nothing,
    /// No further than to this path, which is no directory.
    Blocked(RelPath),
    /// Through more than [`MAX_LINKS`] links.
    Loop,
}

impl Root<'_> {
    /// Walks to a directory, every link on the way and at its end being followed inside the root.
    fn way(&mut self, path: &RelPath, missing: Missing) -> Result<Way, FileOpError> {
        let mut todo: Vec<Box<[u8]>> = path.names().rev().map(Into::into).collect();
        let mut at = RelPath::root();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            match &*name {
                b"" | b"." => continue,
                b".." => {
                    at = at.parent().unwrap_or_default();
                    continue;
                }
                _ => {}
            }
            let next = Name::new(name)
                .and_then(|name| at.join(&name))
                .map_err(|source| FileOpError::LinkText {
                    verb: self.verb,
                    path: path.clone(),
                    source,
                })?;
            match self.builder.kind(&next)? {
                Some(EntryKind::Directory) => at = next,
                Some(EntryKind::Symlink) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Ok(Way::Loop);
                    }
                    let target = self.link_text(&next)?;
                    if target.starts_with(b"/") {
                        at = RelPath::root();
                    }
                    todo.extend(target.rsplit(|byte| *byte == b'/').map(Into::into));
                }
                Some(EntryKind::File | EntryKind::Special) => return Ok(Way::Blocked(next)),
                None if missing == Missing::Stop => return Ok(Way::Nothing),
                None => {
                    let meta = Meta::root(Mode::DIRECTORY);
                    self.builder.make_directory(&next, meta)?;
                    at = next;
                }
            }
        }
        Ok(Way::Directory(at))
    }

    fn link_text(&mut self, path: &RelPath) -> Result<Box<[u8]>, FileOpError> {
        match self.builder.get(path)? {
            Some(Entry::Symlink(link)) => Ok(link.target),
            _ => Err(TreeError::Missing(path.clone()).into()),
        }
    }

    /// The directory at `path`, made with its parents where it is missing.
    fn directory(&mut self, path: &RelPath) -> Result<RelPath, FileOpError> {
        let verb = self.verb;
        match self.way(path, Missing::Make)? {
            Way::Directory(real) => Ok(real),
            Way::Blocked(blocked) => Err(FileOpError::NotADirectory {
                verb,
                path: path.clone(),
                blocked,
            }),
            Way::Loop => Err(FileOpError::Loop {
                verb,
                path: path.clone(),
            }),
            Way::Nothing => unreachable!("what is missing was to be made"),
        }
    }

    /// Where an entry for `path` goes: its parents are made, and what is at its end is not followed. The root is itself.
    fn place(&mut self, path: &RelPath) -> Result<RelPath, FileOpError> {
        let Some((parent, name)) = path.split_last() else {
            return Ok(RelPath::root());
        };
        join(&self.directory(&parent)?, &name)
    }

    /// The path without links on the way to `path`; nothing when there is nothing on the way or at its end.
    fn find(&mut self, path: &RelPath) -> Result<Option<RelPath>, FileOpError> {
        let Some((parent, name)) = path.split_last() else {
            return Ok(Some(RelPath::root()));
        };
        match self.way(&parent, Missing::Stop)? {
            Way::Directory(real) => {
                let found = join(&real, &name)?;
                Ok(self.builder.kind(&found)?.map(|_| found))
            }
            Way::Nothing | Way::Blocked(_) => Ok(None),
            Way::Loop => Err(FileOpError::Loop {
                verb: self.verb,
                path: path.clone(),
            }),
        }
    }

    /// Puts something that is no directory at `place`.
    fn put(&mut self, place: &RelPath, entry: Entry) -> Result<(), FileOpError> {
        if self.builder.kind(place)? == Some(EntryKind::Directory) {
            return Err(FileOpError::FileMeetsDirectory {
                verb: self.verb,
                path: place.clone(),
                write: remove_first(place),
            });
        }
        Ok(self.builder.insert(place, entry)?)
    }

    fn put_file(
        &mut self,
        place: &RelPath,
        text: &[u8],
        meta: Meta,
        store: &dyn Store,
    ) -> Result<(), FileOpError> {
        let blob = store.put_bytes(text).map_err(|source| FileOpError::Keep {
            path: place.clone(),
            source,
        })?;
        let size = text.len() as u64;
        self.put(place, Entry::File(File { blob, size, meta }))
    }

    /// Makes a directory with its parents, or sets what is given on the one that is there.
    fn make_directory(
        &mut self,
        path: &RelPath,
        mode: Option<Mode>,
        owner: Option<(u32, u32)>,
    ) -> Result<(), FileOpError> {
        let place = self.place(path)?;
        let real = match self.builder.kind(&place)? {
            None => place,
            Some(EntryKind::Directory | EntryKind::Symlink) => {
                match self.way(&place, Missing::Stop)? {
                    Way::Directory(real) => real,
                    Way::Nothing | Way::Blocked(_) => return Err(self.meets_file(place)),
                    Way::Loop => {
                        return Err(FileOpError::Loop {
                            verb: self.verb,
                            path: path.clone(),
                        });
                    }
                }
            }
            Some(EntryKind::File | EntryKind::Special) => return Err(self.meets_file(place)),
        };
        let known = self.builder.directory_meta(&real)?;
        let mut meta = known.unwrap_or_else(|| Meta::root(Mode::DIRECTORY));
        if let Some(mode) = mode {
            meta.mode = mode;
        }
        if let Some((uid, gid)) = owner {
            (meta.uid, meta.gid) = (uid, gid);
        }
        Ok(self.builder.make_directory(&real, meta)?)
    }

    fn meets_file(&self, path: RelPath) -> FileOpError {
        FileOpError::DirectoryMeetsFile {
            verb: self.verb,
            write: remove_first(&path),
            path,
        }
    }

    fn remove(&mut self, path: &RelPath) -> Result<(), FileOpError> {
        if path.is_root() {
            return Err(FileOpError::RemovesRoot);
        }
        let missing = || FileOpError::NothingToRemove { path: path.clone() };
        let found = self.find(path)?.ok_or_else(missing)?;
        Ok(self.builder.remove(&found)?)
    }

    // ---- accounts

    fn owner(&mut self, owner: &Owner, blobs: &dyn BlobSource) -> Result<(u32, u32), FileOpError> {
        match owner {
            Owner::Ids { uid, gid } => Ok((*uid, *gid)),
            Owner::Names { user, group } => {
                let passwd = self.accounts(PASSWD, blobs)?.text;
                let (uid, own) = accounts::find_user(&passwd, user)?;
                let gid = match group {
                    None => own,
                    Some(group) => accounts::find_group(&self.accounts(GROUP, blobs)?.text, group)?,
                };
                Ok((uid, gid))
            }
        }
    }

    /// An account file as a program would open it: a link at the end is followed too. One that is missing is empty, and
    /// 0644 0:0 when it is made.
    fn accounts(&mut self, path: &str, blobs: &dyn BlobSource) -> Result<AccountFile, FileOpError> {
        let mut path = RelPath::new(path.as_bytes()).expect("a path");
        for _ in 0..=MAX_LINKS {
            let Some(found) = self.find(&path)? else {
                return Ok(AccountFile {
                    path,
                    text: Vec::new(),
                    meta: Meta::root(Mode::FILE),
                });
            };
            match self.builder.get(&found)? {
                Some(Entry::File(file)) => {
                    let text = blobs
                        .read(&file.blob)
                        .map_err(|source| FileOpError::Accounts {
                            path: found.clone(),
                            source: Some(source),
                        })?;
                    return Ok(AccountFile {
                        path: found,
                        text,
                        meta: file.meta,
                    });
                }
                Some(Entry::Symlink(link)) => path = self.target(&found, &link)?,
                _ => {
                    return Err(FileOpError::Accounts {
                        path: found,
                        source: None,
                    });
                }
            }
        }
        Err(FileOpError::Loop {
            verb: self.verb,
            path,
        })
    }

    /// Where the link at `path` leads, one link further.
    fn target(&mut self, path: &RelPath, link: &Symlink) -> Result<RelPath, FileOpError> {
        let mut names: Vec<&[u8]> = if link.target.starts_with(b"/") {
            Vec::new()
        } else {
            path.names().rev().skip(1).collect()
        };
        names.reverse();
        for name in link.target.split(|byte| *byte == b'/') {
            match name {
                b"" | b"." => {}
                b".." => drop(names.pop()),
                name => names.push(name),
            }
        }
        RelPath::new(names.join(&b'/')).map_err(|source| FileOpError::LinkText {
            verb: self.verb,
            path: path.clone(),
            source,
        })
    }

    fn add_user(
        &mut self,
        user: &NewUser<'_>,
        blobs: &dyn BlobSource,
        store: &dyn Store,
    ) -> Result<(), FileOpError> {
        let passwd = self.accounts(PASSWD, blobs)?;
        let group = self.accounts(GROUP, blobs)?;
        let (users, groups) = accounts::add_user(&passwd.text, &group.text, user)?;
        for (file, text) in [(passwd, users), (group, groups)] {
            if file.text != text {
                let place = self.place(&file.path)?;
                self.put_file(&place, &text, file.meta, store)?;
            }
        }
        Ok(())
    }
}

/// An account file that was read, or is to be made.
struct AccountFile {
    path: RelPath,
    text: Vec<u8>,
    meta: Meta,
}

fn join(directory: &RelPath, name: &Name) -> Result<RelPath, FileOpError> {
    directory
        .join(name)
        .map_err(|source| too_long(directory, source))
}

fn join_path(directory: &RelPath, below: &RelPath) -> Result<RelPath, FileOpError> {
    directory
        .join_path(below)
        .map_err(|source| too_long(directory, source))
}

fn too_long(directory: &RelPath, source: PathError) -> FileOpError {
    FileOpError::TooLong {
        directory: directory.clone(),
        source,
    }
}

/// The step that takes out of the way what is at `path`.
fn remove_first(path: &RelPath) -> String {
    format!("{{ remove = \"{path}\" }}")
}

// ---- copy

/// What a copy sets on what it copies, in place of what that brings.
#[derive(Clone, Copy, Default)]
struct Given {
    mode: Option<Mode>,
    dir_mode: Option<Mode>,
    owner: Option<(u32, u32)>,
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

struct Copy<'r, 'a, 's> {
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

impl Copy<'_, '_, '_> {
    fn copy(&mut self, source: &Tree, source_is_file: bool) -> Result<(), FileOpError> {
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

#[cfg(test)]
mod tests;
