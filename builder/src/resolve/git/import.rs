//! Git's tree objects as directories of ours.

use std::collections::{BTreeMap, BTreeSet};

use gix::objs::tree::EntryKind;
use gix::{ObjectId, Repository};
use immbuild_cas::canonical::{Canonical, Encoder};
use immbuild_cas::digest::{DirectoryId, TreeId};
use immbuild_cas::path::{Name, RelPath};
use immbuild_cas::store::{Record, Store};
use immbuild_cas::tree::{Directory, Entry, File, Meta, Mode, Symlink, Tree};

use super::{EntryError, GitError, cause};

/// Kind of the records that remember which tree a git tree became.
const RECORD: &str = "git-tree";

/// Finds the repositories of submodules.
pub(super) trait Modules {
    /// The repository that has `commit`, and how to find its own submodules.
    fn open(
        &self,
        at: &RelPath,
        module: &Module,
        commit: ObjectId,
    ) -> Result<(Repository, Box<dyn Modules + '_>), GitError>;
}

/// A submodule as `.gitmodules` declares it.
#[derive(Clone, Debug)]
pub(super) struct Module {
    pub(super) name: String,
    pub(super) path: Vec<u8>,
    pub(super) url: String,
}

impl<'a> Level<'a> {
    /// The repository whose root tree is `tree`.
    pub(super) fn new(
        repo: &'a Repository,
        tree: ObjectId,
        root: RelPath,
        modules: Option<&'a dyn Modules>,
    ) -> Result<Self, GitError> {
        let modules = match modules {
            Some(modules) => Some((modules, declared(repo, tree)?)),
            None => None,
        };
        Ok(Self {
            repo,
            root,
            modules,
        })
    }
}

/// Turns git trees into directories.
pub(super) struct Import<'a> {
    pub(super) store: &'a dyn Store,
    /// How submodules are found; nothing when they are to be empty directories.
    pub(super) modules: Option<&'a dyn Modules>,
    /// Paths that are no part of the source, from the root of the outermost repository.
    pub(super) omit: &'a BTreeSet<RelPath>,
}

/// One repository among those a tree is put together from.
pub(super) struct Level<'a> {
    repo: &'a Repository,
    /// Where its root is in the outermost repository.
    root: RelPath,
    modules: Option<(&'a dyn Modules, Declared)>,
}

/// The submodules that `.gitmodules` declares, by path.
type Declared = BTreeMap<Vec<u8>, Module>;

impl Import<'_> {
    /// The tree of `subdir` in `commit`.
    pub(super) fn tree(
        &self,
        repo: &Repository,
        commit: &gix::Commit<'_>,
        subdir: &RelPath,
    ) -> Result<Tree, GitError> {
        let root = commit
            .tree_id()
            .map_err(|error| object(commit.id, &error))?;
        let id = find_directory(repo, root.detach(), commit.id, subdir)?;
        let key = Key {
            import: self,
            id,
            subdir,
        }
        .canonical_digest();
        if let Some(known) = self.known(&key)? {
            return Ok(known);
        }
        let level = Level::new(repo, root.detach(), RelPath::root(), self.modules)?;
        let tree = Tree::new(self.directory(&level, id, subdir)?);
        let tree_id = self.store.put_tree(&tree)?;
        let record = Record {
            value: tree_id.digest().as_bytes().to_vec(),
            blobs: Vec::new(),
            trees: vec![tree_id],
        };
        self.store.put_record(RECORD, &key, &record)?;
        Ok(tree)
    }

    fn known(&self, key: &immbuild_cas::digest::Digest) -> Result<Option<Tree>, GitError> {
        let Some(record) = self.store.record(RECORD, key)? else {
            return Ok(None);
        };
        match record.trees.first() {
            Some(id) => Ok(self.store.tree(id).ok()),
            None => Ok(None),
        }
    }

    /// The directory that a git tree becomes. No recursion but into submodules: a hostile tree may be deep.
    fn directory(
        &self,
        level: &Level<'_>,
        id: ObjectId,
        at: &RelPath,
    ) -> Result<DirectoryId, GitError> {
        let mut above: Vec<(Open, Name)> = Vec::new();
        let mut open = Open::read(level.repo, id, at.clone())?;
        loop {
            let Some((kind, id, name)) = open.entries.next() else {
                let id = self.store.put_directory(&open.directory)?;
                let Some((parent, name)) = above.pop() else {
                    return Ok(id);
                };
                open = parent;
                open.insert(name, Entry::Directory(id))?;
                continue;
            };
            let name = Name::new(name.clone()).map_err(|error| open.refuse(&name, error.into()))?;
            let path = open
                .at
                .join(&name)
                .map_err(|error| open.refuse(name.as_bytes(), error.into()))?;
            if self.omit.contains(&path) {
                continue;
            }
            let entry = match kind {
                EntryKind::Tree => {
                    let below = Open::read(level.repo, id, path)?;
                    above.push((std::mem::replace(&mut open, below), name));
                    continue;
                }
                EntryKind::Commit => Entry::Directory(self.submodule(level, id, &path)?),
                EntryKind::Blob | EntryKind::BlobExecutable | EntryKind::Link => {
                    self.content(level.repo, kind, id)?
                }
            };
            open.insert(name, entry)?;
        }
    }

    /// A file or link from the object database.
    pub(super) fn content(
        &self,
        repo: &Repository,
        kind: EntryKind,
        id: ObjectId,
    ) -> Result<Entry, GitError> {
        let data = blob(repo, id)?;
        if kind == EntryKind::Link {
            return Ok(symlink(data));
        }
        let size = data.len() as u64;
        Ok(file(
            self.store.put_bytes(&data)?,
            size,
            kind == EntryKind::BlobExecutable,
        ))
    }

    /// The directory of a submodule at this commit.
    pub(super) fn submodule(
        &self,
        level: &Level<'_>,
        commit: ObjectId,
        at: &RelPath,
    ) -> Result<DirectoryId, GitError> {
        let Some((modules, declared)) = &level.modules else {
            return empty(self.store);
        };
        let path = at
            .strip_prefix(&level.root)
            .expect("an entry is below the root of its repository");
        let module = declared
            .get(path.as_bytes())
            .ok_or_else(|| GitError::Submodule {
                path: at.clone(),
                reason: "`.gitmodules` does not declare it".into(),
            })?;
        let (repo, modules) = modules.open(at, module, commit)?;
        let found = repo
            .find_commit(commit)
            .map_err(|error| object(commit, &error))?;
        let tree = found
            .tree_id()
            .map_err(|error| object(commit, &error))?
            .detach();
        let level = Level::new(&repo, tree, at.clone(), Some(&*modules))?;
        self.directory(&level, tree, at)
    }
}

/// A git tree while it becomes a directory.
struct Open {
    at: RelPath,
    entries: std::vec::IntoIter<(EntryKind, ObjectId, Vec<u8>)>,
    directory: Directory,
}

impl Open {
    fn read(repo: &Repository, id: ObjectId, at: RelPath) -> Result<Self, GitError> {
        Ok(Self {
            at,
            entries: entries(repo, id)?.into_iter(),
            directory: Directory::new(Meta::root(Mode::DIRECTORY)),
        })
    }

    fn insert(&mut self, name: Name, entry: Entry) -> Result<(), GitError> {
        match self.directory.insert(name.clone(), entry) {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(self.refuse(name.as_bytes(), EntryError::Twice)),
            Err(error) => Err(self.refuse(name.as_bytes(), error.into())),
        }
    }

    fn refuse(&self, name: &[u8], source: EntryError) -> GitError {
        GitError::Entry {
            path: below(&self.at, name),
            source,
        }
    }
}

/// The entries of a git tree: kind, id, name.
pub(super) fn entries(
    repo: &Repository,
    id: ObjectId,
) -> Result<Vec<(EntryKind, ObjectId, Vec<u8>)>, GitError> {
    let tree = repo.find_tree(id).map_err(|error| object(id, &error))?;
    tree.iter()
        .map(|entry| {
            let entry = entry.map_err(|error| object(id, &error))?;
            Ok((
                entry.mode().kind(),
                entry.object_id(),
                entry.filename().to_vec(),
            ))
        })
        .collect()
}

/// A path as git has it, which may be none of ours, from the root.
pub(super) fn below(at: &RelPath, name: &[u8]) -> String {
    let at = String::from_utf8_lossy(at.as_bytes());
    format!("{at}/{}", String::from_utf8_lossy(name))
}

/// A directory with nothing in it.
pub(super) fn empty(store: &dyn Store) -> Result<DirectoryId, GitError> {
    Ok(store.put_directory(&Directory::new(Meta::root(Mode::DIRECTORY)))?)
}

/// A regular file with the modes that git knows.
pub(super) fn file(blob: immbuild_cas::digest::BlobId, size: u64, executable: bool) -> Entry {
    let mode = if executable {
        Mode::DIRECTORY
    } else {
        Mode::FILE
    };
    Entry::File(File {
        blob,
        size,
        meta: Meta::root(mode),
    })
}

/// A symbolic link owned by 0:0.
pub(super) fn symlink(target: Vec<u8>) -> Entry {
    Entry::Symlink(Symlink {
        target: target.into(),
        uid: 0,
        gid: 0,
    })
}

/// The bytes of a blob as they were committed.
pub(super) fn blob(repo: &Repository, id: ObjectId) -> Result<Vec<u8>, GitError> {
    let mut blob = repo.find_blob(id).map_err(|error| object(id, &error))?;
    Ok(blob.take_data())
}

pub(super) fn object(id: ObjectId, error: &gix::Error) -> GitError {
    GitError::Object {
        id: id.to_string(),
        cause: cause(error),
    }
}

fn find_directory(
    repo: &Repository,
    root: ObjectId,
    commit: ObjectId,
    subdir: &RelPath,
) -> Result<ObjectId, GitError> {
    if subdir.is_root() {
        return Ok(root);
    }
    let tree = repo.find_tree(root).map_err(|error| object(root, &error))?;
    let found = tree
        .lookup_entry(subdir.names())
        .map_err(|error| object(root, &error))?;
    match found {
        Some(entry) if entry.mode().is_tree() => Ok(entry.object_id()),
        _ => Err(GitError::Subdir {
            commit: commit.to_string(),
            subdir: subdir.clone(),
        }),
    }
}

/// The submodules that `.gitmodules` in this tree declares, by path.
fn declared(repo: &Repository, tree: ObjectId) -> Result<Declared, GitError> {
    let root = repo.find_tree(tree).map_err(|error| object(tree, &error))?;
    let entry = root
        .lookup_entry([".gitmodules"])
        .map_err(|error| object(tree, &error))?;
    // A link named `.gitmodules` could say that any file of the host is one; git refuses it, too.
    let Some(entry) = entry.filter(|entry| entry.mode().is_blob()) else {
        return Ok(BTreeMap::new());
    };
    let bytes = blob(repo, entry.object_id())?;
    let file = gix::submodule::File::from_bytes(&bytes, None, &gix::config::File::default())
        .map_err(|error| object(entry.object_id(), &error))?;
    let mut modules = BTreeMap::new();
    for name in file.names() {
        let path = file.path(name);
        let url = file.config().string_by("submodule", Some(name), "url");
        if let (Ok(path), Some(url)) = (path, url) {
            let module = Module {
                name: name.to_string(),
                path: path.to_vec(),
                url: url.to_string(),
            };
            modules.insert(module.path.clone(), module);
        }
    }
    Ok(modules)
}

/// What decides the tree that a git tree becomes. A commit inside stands for all it holds, as it does for git.
struct Key<'a> {
    import: &'a Import<'a>,
    id: ObjectId,
    subdir: &'a RelPath,
}

impl Canonical for Key<'_> {
    const TAG: &'static str = "git-tree";
    const VERSION: u32 = 1;

    fn encode_fields(&self, out: &mut Encoder) {
        out.bytes(self.id.as_bytes());
        out.u8(u8::from(self.import.modules.is_some()));
        // Only what is left out below the directory matters, and where that is does not.
        let below: Vec<RelPath> = self
            .import
            .omit
            .iter()
            .filter_map(|path| path.strip_prefix(self.subdir))
            .collect();
        out.sequence(below.iter(), |out, path| out.bytes(path.as_bytes()));
    }
}

/// The tree's id, checked against the lock.
pub(super) fn check(tree: &Tree, expected: &TreeId, commit: &str) -> Result<(), GitError> {
    let actual = tree.id();
    if actual == *expected {
        return Ok(());
    }
    Err(GitError::Mismatch {
        commit: commit.to_owned(),
        expected: *expected,
        actual,
    })
}
