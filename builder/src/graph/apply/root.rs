//! A root that is being edited: ways through it, places in it, and its account files.
//!
//! A way is walked as a process inside the root would walk it: links are followed and end in the root whatever they say.

use immbuild_cas::path::{Name, PathError, RelPath};
use immbuild_cas::store::{BlobSource, Store};
use immbuild_cas::tree::{Entry, EntryKind, File, Meta, Mode, Symlink, TreeBuilder, TreeError};

use super::FileOpError;
use super::accounts::{self, GROUP, NewUser, PASSWD};
use crate::graph::file_op::Owner;

/// How many links a path may lead through, as in Linux (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// A root that a verb works on.
#[derive(Debug)]
pub struct Root<'a> {
    /// The verb, for errors.
    pub verb: &'static str,
    /// The tree.
    pub builder: TreeBuilder<'a>,
}

/// What becomes of names on the way that lead nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// They become directories, 0755 0:0.
    Make,
    /// They end the way.
    Stop,
}

/// Where a way through a root has led.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// To a directory, by a path without links.
    Directory(RelPath),
    /// No further than to this path, where there is nothing.
    Nothing,
    /// No further than to this path, which is no directory.
    Blocked(RelPath),
    /// Through more links than a path may have.
    Loop,
}

impl Root<'_> {
    /// Walks to a directory, every link on the way and at its end being followed inside the root.
    pub fn way(&mut self, path: &RelPath, missing: Missing) -> Result<Way, FileOpError> {
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
    pub fn directory(&mut self, path: &RelPath) -> Result<RelPath, FileOpError> {
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
    pub fn place(&mut self, path: &RelPath) -> Result<RelPath, FileOpError> {
        let Some((parent, name)) = path.split_last() else {
            return Ok(RelPath::root());
        };
        join(&self.directory(&parent)?, &name)
    }

    /// The path without links on the way to `path`; nothing when there is nothing on the way or at its end.
    pub fn find(&mut self, path: &RelPath) -> Result<Option<RelPath>, FileOpError> {
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
    pub fn put(&mut self, place: &RelPath, entry: Entry) -> Result<(), FileOpError> {
        if self.builder.kind(place)? == Some(EntryKind::Directory) {
            return Err(FileOpError::FileMeetsDirectory {
                verb: self.verb,
                path: place.clone(),
                write: remove_first(place),
            });
        }
        Ok(self.builder.insert(place, entry)?)
    }

    /// Puts a file at `place`.
    pub fn put_file(
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
    pub fn make_directory(
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

    pub(super) fn meets_file(&self, path: RelPath) -> FileOpError {
        FileOpError::DirectoryMeetsFile {
            verb: self.verb,
            write: remove_first(&path),
            path,
        }
    }

    /// Removes what is at `path`.
    pub fn remove(&mut self, path: &RelPath) -> Result<(), FileOpError> {
        if path.is_root() {
            return Err(FileOpError::RemovesRoot);
        }
        let missing = || FileOpError::NothingToRemove { path: path.clone() };
        let found = self.find(path)?.ok_or_else(missing)?;
        Ok(self.builder.remove(&found)?)
    }

    // ---- accounts

    /// The numbers of an owner.
    pub fn owner(
        &mut self,
        owner: &Owner,
        blobs: &dyn BlobSource,
    ) -> Result<(u32, u32), FileOpError> {
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

    /// Adds a user to the account files.
    pub fn add_user(
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

pub(super) fn join(directory: &RelPath, name: &Name) -> Result<RelPath, FileOpError> {
    directory
        .join(name)
        .map_err(|source| too_long(directory, source))
}

pub(super) fn join_path(directory: &RelPath, below: &RelPath) -> Result<RelPath, FileOpError> {
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
