//! A repository of this machine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use gix::{ObjectId, Repository};
use immbuild_cas::path::RelPath;
use immbuild_cas::store::Store;

use super::import::{Import, Module, Modules, object};
use super::worktree::{Part, Worktree};
use super::{GitError, GitTree, cause, open_options};

/// How many uncommitted changes an error names.
const SHOWN: usize = 5;

/// What is wanted from a repository of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Local<'a> {
    /// A checkout, a place inside one, or a bare repository.
    pub path: &'a Path,
    /// Branch, tag or commit; `HEAD` if there is none.
    pub rev: Option<&'a str>,
    /// The part that is wanted, from the root of the repository.
    pub subdir: &'a RelPath,
    /// Take the files of submodules, from their repositories on this machine.
    pub submodules: bool,
    /// Take uncommitted changes instead of refusing them.
    pub dirty: bool,
    /// Paths of this machine that are never part of the source nor count as dirt: the spec, its lock, declared
    /// outputs, the store.
    pub omit: &'a [PathBuf],
}

/// The tree at a revision of a repository of this machine, with all content put into the store.
///
/// When that revision is the one checked out, uncommitted changes below `subdir` are an error, or are taken with it. A
/// revision that is not checked out is taken as it was committed, whatever the working tree has.
pub fn local(request: &Local<'_>, store: &dyn Store) -> Result<GitTree, GitError> {
    let repo = discover(request.path)?;
    let shown = request.path.display().to_string();
    let commit = find_commit(&repo, request.rev, &shown)?;
    let omit = omitted(&repo, request.omit);
    let modules = LocalModules::of(&repo);
    let import = Import {
        store,
        modules: request.submodules.then_some(&modules as &dyn Modules),
        omit: &omit,
    };
    let committed = committed(&commit)?;
    let mut tree = None;
    if is_head(&repo, &commit) {
        let head = commit
            .tree_id()
            .map_err(|error| object(commit.id, &error))?
            .detach();
        let part = Part {
            subdir: request.subdir,
            omit: &omit,
            submodules: request.submodules,
        };
        let changed = Worktree::scan(&repo, head, part)?.filter(|found| !found.changes.is_empty());
        if let Some(found) = changed {
            if !request.dirty {
                let count = found.changes.len();
                let mut first = found.changes;
                first.truncate(SHOWN);
                return Err(GitError::Dirty { first, count });
            }
            if found.is_empty() && !request.subdir.is_root() {
                return Err(GitError::Subdir {
                    commit: commit.id.to_string(),
                    subdir: request.subdir.clone(),
                });
            }
            tree = Some(found.take(&import, request.subdir)?);
        }
    }
    let dirty = tree.is_some();
    let tree = match tree {
        Some(tree) => tree,
        None => import.tree(&repo, &commit, request.subdir)?,
    };
    Ok(GitTree {
        tree,
        commit: commit.id.to_string(),
        time: committed,
        dirty,
    })
}

/// Is this the commit that is checked out? Only then does the working tree have a say.
fn is_head(repo: &Repository, commit: &gix::Commit<'_>) -> bool {
    repo.head_id().is_ok_and(|head| head == commit.id)
}

/// The committer's time in seconds.
pub(super) fn committed(commit: &gix::Commit<'_>) -> Result<i64, GitError> {
    let time = commit.time().map_err(|error| object(commit.id, &error))?;
    Ok(time.seconds)
}

fn discover(path: &Path) -> Result<Repository, GitError> {
    let options = gix::discover::upwards::Options::default();
    gix::discover_opts(path, options, open_options()).map_err(|error| opening(path, &error))
}

/// Opens exactly this repository, not one above it.
pub(super) fn open(path: &Path) -> Result<Repository, GitError> {
    gix::open_opts(path, open_options()).map_err(|error| opening(path, &error))
}

fn opening(path: &Path, error: &gix::Error) -> GitError {
    let path = path.to_owned();
    if error.classify().is_not_found() {
        return GitError::NotFound { path };
    }
    let cause = cause(error);
    GitError::Open { path, cause }
}

/// The commit that `rev` names, by git's own rules (gitrevisions(7)): a full id, `refs/…`, a tag, a branch, a remote's
/// branch. Annotated tags are followed.
pub(super) fn find_commit<'r>(
    repo: &'r Repository,
    rev: Option<&str>,
    shown: &str,
) -> Result<gix::Commit<'r>, GitError> {
    let rev = rev.unwrap_or("HEAD");
    let missing = || GitError::Rev {
        repository: shown.to_owned(),
        rev: rev.to_owned(),
    };
    if let Ok(id) = ObjectId::from_hex(rev.as_bytes()) {
        let found = repo.find_object(id).map_err(|_| missing())?;
        return found.peel_to_commit().map_err(|_| missing());
    }
    let reference = repo.try_find_reference(rev).ok().flatten();
    if let Some(mut reference) = reference {
        return reference.peel_to_commit().map_err(|_| missing());
    }
    let prefix = gix::hash::Prefix::from_hex(rev).map_err(|_| missing())?;
    let id = repo
        .objects
        .lookup_prefix(prefix, None)
        .ok()
        .flatten()
        .and_then(Result::ok)
        .ok_or_else(missing)?;
    let found = repo.find_object(id).map_err(|_| missing())?;
    found.peel_to_commit().map_err(|_| missing())
}

/// Those of these paths that lie in the working tree, from its root.
fn omitted(repo: &Repository, paths: &[PathBuf]) -> BTreeSet<RelPath> {
    let Some(root) = repo.workdir().and_then(|root| root.canonicalize().ok()) else {
        return BTreeSet::new();
    };
    let inside = |path: &PathBuf| {
        let path = real_path(path)?;
        let inside = path.strip_prefix(&root).ok()?;
        RelPath::new(inside.as_os_str().as_encoded_bytes()).ok()
    };
    paths.iter().filter_map(inside).collect()
}

/// The path with the links on its way resolved. The file itself need not exist, nor the last of its directories.
fn real_path(path: &Path) -> Option<PathBuf> {
    if let Ok(path) = path.canonicalize() {
        return Some(path);
    }
    let parent = match path.parent()? {
        parent if parent.as_os_str().is_empty() => Path::new("."),
        parent => parent,
    };
    Some(real_path(parent)?.join(path.file_name()?))
}

/// Submodules as a checkout keeps them: below the repository's own directory, or inside the working tree.
struct LocalModules {
    git_dirs: Vec<PathBuf>,
    workdir: Option<PathBuf>,
}

impl LocalModules {
    fn of(repo: &Repository) -> Self {
        // A linked worktree keeps its submodules apart from those of the main one.
        let mut git_dirs = vec![repo.git_dir().to_owned(), repo.common_dir().to_owned()];
        git_dirs.dedup();
        Self {
            git_dirs,
            workdir: repo.workdir().map(Path::to_owned),
        }
    }
}

impl Modules for LocalModules {
    fn open(
        &self,
        at: &RelPath,
        module: &Module,
        commit: ObjectId,
    ) -> Result<(Repository, Box<dyn Modules + '_>), GitError> {
        // Checked, since a name like `../../x` would lead out of the repository.
        let name = RelPath::new(module.name.as_bytes()).map_err(|_| GitError::Submodule {
            path: at.clone(),
            reason: format!("`{}` is no name for a submodule", module.name),
        })?;
        let module_dir = |git_dir: &PathBuf| git_dir.join("modules").join(to_host(&name));
        let candidates = self.git_dirs.iter().map(module_dir).chain(
            self.workdir
                .iter()
                .filter_map(|root| Some(root.join(to_host(&RelPath::new(&*module.path).ok()?)))),
        );
        for candidate in candidates {
            if let Ok(repo) = open(&candidate)
                && repo.has_object(commit)
            {
                let modules = Self::of(&repo);
                return Ok((repo, Box::new(modules)));
            }
        }
        Err(GitError::Submodule {
            path: at.clone(),
            reason: format!(
                "commit {commit} is not on this machine; run `git submodule update --init --recursive`"
            ),
        })
    }
}

/// The path as this machine writes it.
pub(super) fn to_host(path: &RelPath) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    PathBuf::from(std::ffi::OsStr::from_bytes(path.as_bytes()))
}
