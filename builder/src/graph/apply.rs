//! Does the verbs that edit a tree and execute nothing: from trees to a tree.
//!
//! Paths are walked as a process inside the root would walk them: links on the way are followed and end in the root whatever
//! they say. What stands at the end of a path is what it is, a link too.
//!
//! Must never know specs, processes or where a tree came from.

mod accounts;
mod copy;
mod root;
#[cfg(test)]
mod tests;

use immbuild_cas::path::{PathError, RelPath};
use immbuild_cas::store::{BlobSource, DirectorySource, Store, StoreError};
use immbuild_cas::tree::{Entry, Meta, Symlink, Tree, TreeBuilder, TreeError};

pub use self::accounts::{AccountError, NewUser};
use self::copy::{Copy, Given};
pub use self::root::{Missing, Root, Way};
use super::file_op::{FileOp, Owner};
use crate::pattern::{PatternError, Selection};

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
            let mut copy = Copy::new(&mut root, store, from, to, selection, given);
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
