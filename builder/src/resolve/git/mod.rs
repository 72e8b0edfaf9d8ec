//! EFFECT: git repositories, on this machine and elsewhere, as trees.
//!
//! The only home of `gix`. What is taken is what is committed: objects are read straight from the object database, so
//! no filter, line-end conversion, attribute, hook or program of a configuration has a part in it, and a repository of
//! another owner is as safe to read as one's own. Files are 0644 or 0755, directories 0755, all 0:0; symbolic links stay
//! as written; a submodule is an empty directory unless submodules are asked for.
//!
//! `subdir` counts from the root of the repository, also when the path that was given lies deeper.

mod import;
mod local;
mod remote;
mod worktree;

use std::fmt::{self, Write as _};
use std::io;
use std::path::PathBuf;

use immbuild_cas::digest::TreeId;
use immbuild_cas::path::{PathError, RelPath};
use immbuild_cas::store::StoreError;
use immbuild_cas::tree::{DirectoryError, Tree, TreeError};

pub use local::{Local, local};
pub use remote::{Means, Pin, Remote, fetch_remote, keep, lock_remote};

/// What a commit holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitTree {
    /// Its files, with all content in the store.
    pub tree: Tree,
    /// The commit in lower-case hex: provenance, not identity.
    pub commit: String,
    /// The committer's time, in seconds since 1970-01-01T00:00:00Z.
    pub time: i64,
    /// Were uncommitted changes taken with it?
    pub dirty: bool,
}

/// One path that is not as it was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where, from the root of the repository.
    pub path: String,
    /// In which way.
    pub kind: ChangeKind,
}

/// How a path differs from what was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// Another content, mode or type than in the commit.
    Modified,
    /// In the commit and not in the working tree.
    Deleted,
    /// Not known to git, and not ignored.
    Untracked,
    /// Added to or changed in the index.
    Staged,
    /// Left with a merge conflict.
    Conflict,
}

impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Modified => "modified",
            Self::Deleted => "deleted",
            Self::Untracked => "untracked",
            Self::Staged => "staged",
            Self::Conflict => "in conflict",
        })
    }
}

/// Why a git source gives no tree.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// There is no repository.
    #[error("`{}` is not in a git repository", path.display())]
    NotFound {
        /// Where one was looked for.
        path: PathBuf,
    },
    /// A repository is there and cannot be used.
    #[error("cannot open the git repository of `{}`: {cause}", path.display())]
    Open {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The repository has no such branch, tag or commit.
    #[error("`{repository}` has no branch, tag or commit `{rev}`")]
    Rev {
        /// The path or URL.
        repository: String,
        /// What was asked for.
        rev: String,
    },
    /// The commit has no such directory.
    #[error("commit {commit} has no directory `{subdir}`")]
    Subdir {
        /// The commit.
        commit: String,
        /// What was asked for.
        subdir: RelPath,
    },
    /// A submodule cannot be had.
    #[error("submodule `{path}`: {reason}")]
    Submodule {
        /// Where it belongs.
        path: RelPath,
        /// Why not, and what to do.
        reason: String,
    },
    /// There are changes that no commit holds.
    #[error("{}", dirty(first, *count))]
    Dirty {
        /// The first few.
        first: Vec<Change>,
        /// How many there are.
        count: usize,
    },
    /// An object is missing or damaged.
    #[error("git object {id} cannot be read: {cause}")]
    Object {
        /// Its git id.
        id: String,
        /// What git's library says.
        cause: String,
    },
    /// An entry that no tree of ours can hold.
    #[error("`{path}` cannot be part of a tree")]
    Entry {
        /// The path as git has it.
        path: String,
        /// What is wrong with it.
        source: EntryError,
    },
    /// A working tree that is no tree of ours.
    #[error("cannot take the working tree")]
    Tree(#[source] TreeError),
    /// Not a URL that can be fetched from.
    #[error("`{url}` cannot be fetched from: {reason}")]
    Url {
        /// The URL, without what may be secret in it.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The network is needed and not allowed.
    #[error("`{commit}` of `{url}` is not here, and the network is off")]
    Offline {
        /// The URL.
        url: String,
        /// What is missing.
        commit: String,
    },
    /// Neither the URL nor a mirror gave the commit.
    #[error("cannot fetch {}", attempts(.0))]
    Unreachable(
        /// What each URL answered.
        Vec<(String, String)>,
    ),
    /// The commit does not hold what was locked.
    #[error("commit {commit} holds {actual}, locked is {expected}")]
    Mismatch {
        /// The commit.
        commit: String,
        /// The tree in the lock.
        expected: TreeId,
        /// The tree that the commit holds.
        actual: TreeId,
    },
    /// The file system refused.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The store refused.
    #[error("cannot store what a commit holds")]
    Store(#[from] StoreError),
}

/// What is wrong with an entry of a git tree.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// Its path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Its content.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Its path, which another entry has, too.
    #[error("two entries have this path")]
    Twice,
}

fn dirty(first: &[Change], count: usize) -> String {
    let mut text = String::from("uncommitted changes:");
    for (index, change) in first.iter().enumerate() {
        let separator = if index == 0 { "" } else { "," };
        let _ = write!(text, "{separator} `{}` ({})", change.path, change.kind);
    }
    if count > first.len() {
        let _ = write!(text, " and {} more", count - first.len());
    }
    text
}

fn attempts(attempts: &[(String, String)]) -> String {
    let one = |(url, cause): &(String, String)| format!("`{url}`: {cause}");
    attempts.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// The innermost of an error's causes: what went wrong, without the layers that noticed it.
fn cause(error: &gix::Error) -> String {
    error.probable_cause().to_string()
}

/// How every repository is opened: nothing from the environment (a hook sets `GIT_DIR` and its like), no replaced
/// objects. The user's and the system's configuration say what is ignored, and nothing else that matters here.
fn open_options() -> gix::open::Options {
    let mut permissions = gix::open::Permissions::isolated();
    permissions.config = gix::open::permissions::Config {
        git_binary: false,
        system: true,
        git: true,
        user: true,
        env: false,
        includes: true,
    };
    permissions.env.home = gix::sec::Permission::Allow;
    permissions.env.xdg_config_home = gix::sec::Permission::Allow;
    gix::open::Options::default()
        .permissions(permissions)
        .config_overrides(["core.useReplaceRefs=false"])
}

#[cfg(test)]
mod tests;
