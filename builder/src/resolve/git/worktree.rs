//! What a working tree has that no commit holds.
//!
//! Compares `HEAD`, the index and the files as `git status` does, but runs none of the programs that a configuration
//! may name: a file whose stamp differs is clean if its bytes, or its bytes after line-end and encoding conversion, are
//! those committed. What only a filter program could tell counts as changed.
#![allow(clippy::disallowed_methods, reason = "names go into ordered sets")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use gix::filter::plumbing::pipeline::convert::ToGitOutcome;
use gix::index::entry::{Flags, Mode, Stage, Stat, stat};
use gix::objs::tree::EntryKind;
use gix::worktree::stack::state::{attributes, ignore};
use gix::{ObjectId, Repository};
use immbuild_cas::path::{Name, RelPath};
use immbuild_cas::store::{Store, StoreError};
use immbuild_cas::tree::{Entry, Meta, Mode as TreeMode, Tree, TreeBuilder, TreeError};

use super::import::{self, Import, Level, blob, file, object, symlink};
use super::local::{open, to_host};
use super::{Change, ChangeKind, GitError, cause};
use crate::resolve::make_parents;

/// A working tree, compared with what is committed.
pub(super) struct Worktree {
    repo: Repository,
    /// Where its root is in the outermost repository.
    root: RelPath,
    /// What its files are, from the root of the outermost repository.
    files: BTreeMap<RelPath, Found>,
    submodules: Vec<Worktree>,
    /// Every path that differs, in the order of the paths, each repository after the one it is in.
    pub(super) changes: Vec<Change>,
}

/// Where the content of a path is.
enum Found {
    /// In the object database: the file is as committed.
    Committed(EntryKind, ObjectId),
    /// On disk.
    Disk(EntryKind),
    /// A repository that is not looked into.
    Closed(Option<ObjectId>),
}

/// What part of a working tree is looked at.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    /// Only this directory, from the root of the outermost repository.
    pub(super) subdir: &'a RelPath,
    /// Not these paths, from the same root.
    pub(super) omit: &'a BTreeSet<RelPath>,
    /// Into submodules, too?
    pub(super) submodules: bool,
}

impl Part<'_> {
    fn has(&self, path: &RelPath) -> bool {
        path.starts_with(self.subdir) && !self.is_omitted(path)
    }

    fn is_omitted(&self, path: &RelPath) -> bool {
        self.omit.iter().any(|omitted| path.starts_with(omitted))
    }
}

impl Worktree {
    /// Compares the working tree of `repo` with the tree of its `HEAD`. A bare repository has none.
    pub(super) fn scan(
        repo: &Repository,
        head: ObjectId,
        part: Part<'_>,
    ) -> Result<Option<Self>, GitError> {
        let Some(workdir) = repo.workdir() else {
            return Ok(None);
        };
        let workdir = workdir.to_owned();
        Scan::new(repo, &workdir, RelPath::root(), part)?
            .run(head)
            .map(Some)
    }

    /// The tree that the working tree's files make, with all content put into the store.
    pub(super) fn take(&self, import: &Import<'_>, subdir: &RelPath) -> Result<Tree, GitError> {
        let mut tree = TreeBuilder::new(import.store, Meta::root(TreeMode::DIRECTORY));
        self.add(import, subdir, &mut tree)?;
        tree.seal(import.store).map_err(tree_error)
    }

    /// Is nothing in it?
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.submodules.iter().all(Self::is_empty)
    }

    fn add(
        &self,
        import: &Import<'_>,
        subdir: &RelPath,
        tree: &mut TreeBuilder<'_>,
    ) -> Result<(), GitError> {
        let workdir = self
            .repo
            .workdir()
            .expect("a bare repository is not scanned");
        for (path, found) in &self.files {
            let below = |from: &RelPath| {
                path.strip_prefix(from)
                    .expect("a file of the scan is below both")
            };
            let entry = match found {
                Found::Committed(kind, id) => import.content(&self.repo, *kind, *id)?,
                Found::Disk(kind) => {
                    let host = workdir.join(to_host(&below(&self.root)));
                    from_disk(*kind, &host, import.store)?
                }
                Found::Closed(None) => Entry::Directory(import::empty(import.store)?),
                Found::Closed(Some(commit)) => {
                    let head = self
                        .repo
                        .head_tree_id()
                        .map_err(|error| object(*commit, &error))?;
                    let level =
                        Level::new(&self.repo, head.detach(), self.root.clone(), import.modules)?;
                    Entry::Directory(import.submodule(&level, *commit, path)?)
                }
            };
            let at = below(subdir);
            make_parents(tree, &at)
                .and_then(|()| tree.insert(&at, entry))
                .map_err(tree_error)?;
        }
        for submodule in &self.submodules {
            submodule.add(import, subdir, tree)?;
        }
        Ok(())
    }
}

fn tree_error(error: TreeError) -> GitError {
    match error {
        TreeError::Store { source, .. } => source.into(),
        error => GitError::Tree(error),
    }
}

/// Reads a file or link into the store. A file that changes meanwhile is an error.
fn from_disk(kind: EntryKind, path: &Path, store: &dyn Store) -> Result<Entry, GitError> {
    let io = |source| GitError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    };
    if kind == EntryKind::Link {
        let target = fs::read_link(path).map_err(io)?;
        return Ok(symlink(target.into_os_string().into_vec()));
    }
    let stamp = |status: &fs::Metadata| {
        (
            status.ino(),
            status.len(),
            (status.mtime(), status.mtime_nsec()),
            (status.ctime(), status.ctime_nsec()),
        )
    };
    let mut source = fs::File::open(path).map_err(io)?;
    let before = stamp(&source.metadata().map_err(io)?);
    let (blob, size) = store.put(&mut source)?;
    if stamp(&source.metadata().map_err(io)?) != before {
        return Err(StoreError::Changed {
            path: path.display().to_string(),
        }
        .into());
    }
    Ok(file(blob, size, kind == EntryKind::BlobExecutable))
}

/// One repository while it is compared.
struct Scan<'a> {
    repo: &'a Repository,
    workdir: &'a Path,
    root: RelPath,
    part: Part<'a>,
    index: gix::worktree::Index,
    stamps: stat::Options,
    capabilities: gix::fs::Capabilities,
    files: BTreeMap<RelPath, Found>,
    submodules: Vec<Worktree>,
    changes: BTreeMap<RelPath, ChangeKind>,
    /// Directories that are still to be searched for untracked files.
    ahead: Vec<RelPath>,
}

impl<'a> Scan<'a> {
    fn new(
        repo: &'a Repository,
        workdir: &'a Path,
        root: RelPath,
        part: Part<'a>,
    ) -> Result<Self, GitError> {
        let refuse = |error: gix::Error| unusable(workdir, cause(&error));
        let index = repo.index_or_empty().map_err(refuse)?;
        if index.is_sparse() {
            let reason =
                "it has a sparse index; run `git sparse-checkout reapply --no-sparse-index`";
            return Err(unusable(workdir, reason.into()));
        }
        Ok(Self {
            repo,
            workdir,
            root,
            part,
            index,
            // Git writes nanoseconds even where it does not compare them.
            stamps: stat::Options {
                use_nsec: true,
                ..repo.stat_options().map_err(refuse)?
            },
            capabilities: repo.filesystem_options().map_err(refuse)?,
            files: BTreeMap::new(),
            submodules: Vec::new(),
            changes: BTreeMap::new(),
            ahead: Vec::new(),
        })
    }

    fn run(mut self, head: ObjectId) -> Result<Worktree, GitError> {
        let mut committed = flatten(self.repo, head, &self.root)?;
        committed.retain(|path, _| self.part.has(path));
        let index = self.index.clone();
        for entry in index.entries() {
            let path = self.path(entry.path(&index))?;
            if !self.part.has(&path) {
                continue;
            }
            let before = committed.remove(&path);
            if entry.stage() != Stage::Unconflicted {
                self.changes.insert(path.clone(), ChangeKind::Conflict);
            } else if before != kind_of(entry.mode).map(|kind| (kind, entry.id)) {
                self.changes.insert(path.clone(), ChangeKind::Staged);
            }
            self.tracked(&path, entry)?;
        }
        // What the commit has and the index has not was removed from it.
        for path in committed.into_keys() {
            self.changes.insert(path, ChangeKind::Deleted);
        }
        self.untracked()?;
        let mut changes: Vec<Change> = self
            .changes
            .into_iter()
            .map(|(path, kind)| Change {
                path: String::from_utf8_lossy(path.as_bytes()).into_owned(),
                kind,
            })
            .collect();
        for submodule in &mut self.submodules {
            changes.append(&mut submodule.changes);
        }
        Ok(Worktree {
            repo: self.repo.clone(),
            root: self.root,
            files: self.files,
            submodules: self.submodules,
            changes,
        })
    }

    /// A path of the index, from the root of the outermost repository.
    fn path(&self, path: &[u8]) -> Result<RelPath, GitError> {
        RelPath::new(path)
            .and_then(|path| self.root.join_path(&path))
            .map_err(|error| GitError::Entry {
                path: String::from_utf8_lossy(path).into_owned(),
                source: error.into(),
            })
    }

    fn host(&self, path: &RelPath) -> PathBuf {
        let below = path
            .strip_prefix(&self.root)
            .expect("every path of the scan is below its root");
        self.workdir.join(to_host(&below))
    }

    /// Looks at a path that the index knows.
    fn tracked(&mut self, path: &RelPath, entry: &gix::index::Entry) -> Result<(), GitError> {
        let Some(committed) = kind_of(entry.mode) else {
            return Ok(());
        };
        if committed == EntryKind::Commit {
            return self.submodule(path, entry.id);
        }
        if entry
            .flags
            .intersects(Flags::SKIP_WORKTREE | Flags::ASSUME_VALID)
        {
            self.files
                .insert(path.clone(), Found::Committed(committed, entry.id));
            return Ok(());
        }
        let host = self.host(path);
        let status = match gix::index::fs::Metadata::from_path_no_follow(&host) {
            Ok(status) if status.is_file() || status.is_symlink() => status,
            Ok(_) => {
                self.gone(path);
                return Ok(());
            }
            Err(error) if is_absent(&error) => {
                self.gone(path);
                return Ok(());
            }
            Err(source) => return Err(reading(&host, source)),
        };
        let kind = self.kind_on_disk(&status, committed);
        let is_same = kind == committed
            && entry.stage() == Stage::Unconflicted
            && self.is_unchanged(entry, kind, &status, &host)?;
        if is_same {
            self.files
                .insert(path.clone(), Found::Committed(committed, entry.id));
        } else {
            self.changes
                .entry(path.clone())
                .or_insert(ChangeKind::Modified);
            self.files.insert(path.clone(), Found::Disk(kind));
        }
        Ok(())
    }

    fn gone(&mut self, path: &RelPath) {
        self.changes
            .entry(path.clone())
            .or_insert(ChangeKind::Deleted);
    }

    /// Which kind a path on disk has, where the file system can tell; else the one it has in the index.
    fn kind_on_disk(&self, status: &gix::index::fs::Metadata, committed: EntryKind) -> EntryKind {
        let is_link = committed == EntryKind::Link;
        if status.is_symlink() || is_link && !self.capabilities.symlink {
            EntryKind::Link
        } else if !self.capabilities.executable_bit && !is_link {
            committed
        } else if status.is_executable() {
            EntryKind::BlobExecutable
        } else {
            EntryKind::Blob
        }
    }

    fn is_unchanged(
        &self,
        entry: &gix::index::Entry,
        kind: EntryKind,
        status: &gix::index::fs::Metadata,
        host: &Path,
    ) -> Result<bool, GitError> {
        let is_stamped =
            Stat::from_fs(status).is_ok_and(|found| entry.stat.matches(&found, self.stamps));
        let is_racy = entry.stat.is_racy(self.index.timestamp(), self.stamps);
        if is_stamped && !is_racy || self.has_content(entry, kind, host)? {
            return Ok(true);
        }
        // Its filter would have to run to tell more, and the stamp speaks for it.
        Ok(is_stamped
            && self
                .has_filter(entry)
                .map_err(|error| unusable(host, cause(&error)))?)
    }

    fn has_filter(&self, entry: &gix::index::Entry) -> Result<bool, gix::Error> {
        let source = attributes::Source::WorktreeThenIdMapping;
        let mut stack = self.repo.attributes_only(&self.index, source)?;
        let mut found = stack.selected_attribute_matches(["filter"]);
        let path = gix::path::from_bstr(entry.path(&self.index))?;
        stack.at_path(&path, None)?.matching_attributes(&mut found);
        Ok(found
            .iter_selected()
            .any(|one| one.assignment.state.as_bstr().is_some()))
    }

    /// Are the bytes on disk those that are committed, as they are or after conversion?
    fn has_content(
        &self,
        entry: &gix::index::Entry,
        kind: EntryKind,
        host: &Path,
    ) -> Result<bool, GitError> {
        let is_link = kind == EntryKind::Link && self.capabilities.symlink;
        let bytes = if is_link {
            fs::read_link(host).map(|target| target.into_os_string().into_vec())
        } else {
            fs::read(host)
        }
        .map_err(|source| reading(host, source))?;
        if is_blob(entry.id, &bytes) {
            return Ok(true);
        }
        if is_link {
            return Ok(false);
        }
        let converted = self
            .converted(entry, &bytes)
            .map_err(|error| unusable(host, cause(&error)))?;
        Ok(converted.is_some_and(|bytes| is_blob(entry.id, &bytes)))
    }

    /// The bytes as git would commit them, without filter programs; nothing if they stay as they are.
    fn converted(
        &self,
        entry: &gix::index::Entry,
        bytes: &[u8],
    ) -> Result<Option<Vec<u8>>, gix::Error> {
        let mut options = gix::filter::Pipeline::options(self.repo)?;
        options.drivers.clear();
        // Whether the conversion could be undone is git's concern when committing, not ours when comparing.
        options.crlf_roundtrip_check = gix::filter::plumbing::pipeline::CrlfRoundTripCheck::Skip;
        let mut pipeline = gix::filter::plumbing::Pipeline::new(
            gix::command::Context::default(),
            self.repo.object_hash(),
            options,
        );
        let source = attributes::Source::WorktreeThenIdMapping;
        let mut stack = self.repo.attributes_only(&self.index, source)?;
        let path = gix::path::from_bstr(entry.path(&self.index))?;
        let platform = stack.at_path(&path, None)?;
        let committed = |buffer: &mut Vec<u8>| -> Result<Option<()>, gix::Error> {
            let found = blob(self.repo, entry.id).ok();
            Ok(found.map(|bytes| {
                *buffer = bytes;
            }))
        };
        let outcome = pipeline.convert_to_git(
            bytes,
            &path,
            &mut |_, attributes| {
                platform.matching_attributes(attributes);
            },
            &mut { committed },
        )?;
        Ok(match outcome {
            ToGitOutcome::Buffer(bytes) => Some(bytes.to_vec()),
            ToGitOutcome::Unchanged(_) | ToGitOutcome::Process(_) => None,
        })
    }

    fn submodule(&mut self, path: &RelPath, commit: ObjectId) -> Result<(), GitError> {
        let host = self.host(path);
        let is_there = host.join(".git").symlink_metadata().is_ok();
        if !self.part.submodules || !is_there {
            self.files.insert(
                path.clone(),
                Found::Closed(self.part.submodules.then_some(commit)),
            );
            return Ok(());
        }
        let repo = open(&host)?;
        let head = repo
            .head_commit()
            .map_err(|error| unusable(&host, cause(&error)))?;
        if head.id != commit {
            self.changes
                .entry(path.clone())
                .or_insert(ChangeKind::Modified);
        }
        let tree = head
            .tree_id()
            .map_err(|error| object(head.id, &error))?
            .detach();
        let scan = Scan::new(&repo, &host, path.clone(), self.part)?.run(tree)?;
        self.submodules.push(scan);
        Ok(())
    }

    /// Finds files that the index does not know and no pattern ignores.
    fn untracked(&mut self) -> Result<(), GitError> {
        let source = ignore::Source::WorktreeThenIdMappingIfNotSkipped;
        let index = self.index.clone();
        let repo = self.repo;
        let mut ignored = repo
            .excludes(&index, None, source)
            .map_err(|error| unusable(self.workdir, cause(&error)))?;
        self.ahead.push(self.root.clone());
        while let Some(directory) = self.ahead.pop() {
            self.untracked_in(&directory, &mut ignored)?;
        }
        Ok(())
    }

    fn untracked_in(
        &mut self,
        directory: &RelPath,
        ignored: &mut gix::AttributeStack<'_>,
    ) -> Result<(), GitError> {
        let host = self.host(directory);
        for child in fs::read_dir(&host).map_err(|source| reading(&host, source))? {
            let child = child.map_err(|source| reading(&host, source))?;
            let name = child.file_name().into_vec();
            if name == b".git" {
                continue;
            }
            let path = Name::new(name)
                .and_then(|name| directory.join(&name))
                .map_err(|error| GitError::Entry {
                    path: child.path().display().to_string(),
                    source: error.into(),
                })?;
            let on_the_way = self.part.subdir.starts_with(&path);
            if !on_the_way && !self.part.has(&path) {
                continue;
            }
            let status = child
                .file_type()
                .map_err(|source| reading(&child.path(), source))?;
            self.untracked_at(&path, status, ignored)?;
        }
        Ok(())
    }

    fn untracked_at(
        &mut self,
        path: &RelPath,
        status: fs::FileType,
        ignored: &mut gix::AttributeStack<'_>,
    ) -> Result<(), GitError> {
        let below = path
            .strip_prefix(&self.root)
            .expect("every path of the scan is below its root");
        let in_index = gix::bstr::BStr::new(below.as_bytes());
        let is_tracked = |entry: &gix::index::Entry| entry.path(&self.index) == in_index;
        let found = self.index.prefixed_entries(in_index).unwrap_or_default();
        if found.iter().any(is_tracked) {
            // A directory where a file is tracked may hold anything; the file itself is seen as deleted.
            let is_module = |entry: &gix::index::Entry| entry.mode == Mode::COMMIT;
            if !status.is_dir()
                || found
                    .iter()
                    .any(|entry| is_tracked(entry) && is_module(entry))
            {
                return Ok(());
            }
        }
        if status.is_dir() && self.index.path_is_directory(in_index) {
            self.ahead.push(path.clone());
            return Ok(());
        }
        let mode = status.is_dir().then_some(Mode::DIR);
        let is_ignored = ignored
            .at_path(to_host(&below), mode)
            .map_err(|error| unusable(self.workdir, cause(&error)))?
            .is_excluded();
        if is_ignored {
            return Ok(());
        }
        let host = self.host(path);
        let found = if status.is_dir() {
            if host.join(".git").symlink_metadata().is_err() {
                self.ahead.push(path.clone());
                return Ok(());
            }
            Found::Closed(None)
        } else if status.is_symlink() {
            Found::Disk(EntryKind::Link)
        } else if status.is_file() {
            let status = fs::metadata(&host).map_err(|source| reading(&host, source))?;
            let executable = status.mode() & 0o100 != 0;
            Found::Disk(if executable {
                EntryKind::BlobExecutable
            } else {
                EntryKind::Blob
            })
        } else {
            // Git does not see sockets, pipes and devices.
            return Ok(());
        };
        self.changes.insert(path.clone(), ChangeKind::Untracked);
        self.files.insert(path.clone(), found);
        Ok(())
    }
}

fn is_blob(id: ObjectId, bytes: &[u8]) -> bool {
    gix::objs::compute_hash(id.kind(), gix::objs::Kind::Blob, bytes).is_ok_and(|found| found == id)
}

fn is_absent(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn reading(path: &Path, source: std::io::Error) -> GitError {
    GitError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    }
}

fn unusable(path: &Path, cause: String) -> GitError {
    GitError::Open {
        path: path.to_owned(),
        cause,
    }
}

fn kind_of(mode: Mode) -> Option<EntryKind> {
    mode.to_tree_entry_mode().map(|mode| mode.kind())
}

/// Every file, link and submodule of a git tree by path.
fn flatten(
    repo: &Repository,
    root: ObjectId,
    at: &RelPath,
) -> Result<BTreeMap<RelPath, (EntryKind, ObjectId)>, GitError> {
    let mut files = BTreeMap::new();
    let mut ahead = vec![(at.clone(), root)];
    while let Some((at, id)) = ahead.pop() {
        for (kind, id, name) in import::entries(repo, id)? {
            let path = Name::new(name.clone())
                .and_then(|name| at.join(&name))
                .map_err(|error| GitError::Entry {
                    path: import::below(&at, &name),
                    source: error.into(),
                })?;
            if kind == EntryKind::Tree {
                ahead.push((path, id));
            } else {
                files.insert(path, (kind, id));
            }
        }
    }
    Ok(files)
}
