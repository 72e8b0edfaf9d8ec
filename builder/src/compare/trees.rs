//! Where two trees differ.

use std::collections::BTreeMap;

use immbuild_cas::digest::{BlobId, DirectoryId};
use immbuild_cas::path::{Name, RelPath};
use immbuild_cas::store::{BlobSource, DirectorySource, StoreError};
use immbuild_cas::tree::{
    Directory, Entry, File, Meta, Mode, SpecialKind, Symlink, Tree, XattrName,
};

use super::hints::{Hint, hints};

/// A tree and where its parts are found.
#[derive(Clone, Copy)]
pub struct TreeSide<'a> {
    /// The tree.
    pub tree: &'a Tree,
    /// Gives its directories.
    pub directories: &'a dyn DirectorySource,
    /// Gives the content of its files.
    pub blobs: &'a dyn BlobSource,
}

impl std::fmt::Debug for TreeSide<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TreeSide")
            .field("tree", &self.tree.id())
            .finish_non_exhaustive()
    }
}

/// A path that is not the same on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathDifference {
    /// Which.
    pub path: RelPath,
    /// What about it.
    pub change: PathChange,
}

/// How a path differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathChange {
    /// It is only on the left, with everything below it.
    OnlyLeft,
    /// It is only on the right, with everything below it.
    OnlyRight,
    /// It is of another kind: `a file`, `a directory`, ….
    Kind {
        /// On the left.
        left: &'static str,
        /// On the right.
        right: &'static str,
    },
    /// It is of one kind and has other attributes.
    Attributes(Vec<AttributeDifference>),
}

/// An attribute with two values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttributeDifference {
    /// Permission bits.
    Mode {
        /// On the left.
        left: Mode,
        /// On the right.
        right: Mode,
    },
    /// User and group.
    Owner {
        /// On the left.
        left: (u32, u32),
        /// On the right.
        right: (u32, u32),
    },
    /// An extended attribute; nothing where it is absent.
    Xattr {
        /// Its name.
        name: XattrName,
        /// On the left.
        left: Option<Box<[u8]>>,
        /// On the right.
        right: Option<Box<[u8]>>,
    },
    /// A file's bytes.
    Content {
        /// Blob and length in bytes on the left.
        left: (BlobId, u64),
        /// Blob and length in bytes on the right.
        right: (BlobId, u64),
        /// What the bytes give away about the cause.
        hints: Vec<Hint>,
    },
    /// The text of a symbolic link.
    Target {
        /// On the left.
        left: Box<[u8]>,
        /// On the right.
        right: Box<[u8]>,
    },
    /// The kind or number of a device.
    Device {
        /// On the left.
        left: SpecialKind,
        /// On the right.
        right: SpecialKind,
    },
    /// The first path of the file that this is a hard link to; nothing where it is none.
    Link {
        /// On the left.
        left: Option<RelPath>,
        /// On the right.
        right: Option<RelPath>,
    },
}

/// Files beyond this many bytes are not searched for hints.
const MAX_SEARCHED: u64 = 64 << 20;

/// Lists every path that differs, in the order of paths. Equal directories are not opened.
///
/// # Errors
/// A directory that differs, or a file of at most 64 MiB that differs, cannot be read.
pub fn compare_trees(
    left: &TreeSide<'_>,
    right: &TreeSide<'_>,
) -> Result<Vec<PathDifference>, StoreError> {
    let mut found = Found {
        left,
        right,
        paths: BTreeMap::new(),
    };
    found.directories(&RelPath::root(), left.tree.root, right.tree.root)?;
    found.links();
    Ok(found
        .paths
        .into_iter()
        .map(|(path, change)| PathDifference { path, change })
        .collect())
}

struct Found<'a> {
    left: &'a TreeSide<'a>,
    right: &'a TreeSide<'a>,
    paths: BTreeMap<RelPath, PathChange>,
}

impl Found<'_> {
    fn directories(
        &mut self,
        path: &RelPath,
        left: DirectoryId,
        right: DirectoryId,
    ) -> Result<(), StoreError> {
        if left == right {
            return Ok(());
        }
        let left = self.left.directories.directory(&left)?;
        let right = self.right.directories.directory(&right)?;
        self.attributes(path, metas(left.meta(), right.meta()));
        for name in names(&left, &right) {
            // Both trees were sealed, so no path in them is too long.
            let path = path.join(name).expect("a path of a tree");
            match (left.get(name.as_bytes()), right.get(name.as_bytes())) {
                (Some(left), Some(right)) => self.entries(path, left, right)?,
                (Some(_), None) => drop(self.paths.insert(path, PathChange::OnlyLeft)),
                _ => drop(self.paths.insert(path, PathChange::OnlyRight)),
            }
        }
        Ok(())
    }

    fn attributes(&mut self, path: &RelPath, differences: Vec<AttributeDifference>) {
        if !differences.is_empty() {
            self.paths
                .insert(path.clone(), PathChange::Attributes(differences));
        }
    }

    fn entries(&mut self, path: RelPath, left: &Entry, right: &Entry) -> Result<(), StoreError> {
        let differences = match (left, right) {
            (Entry::Directory(left), Entry::Directory(right)) => {
                return self.directories(&path, *left, *right);
            }
            (Entry::File(left), Entry::File(right)) => self.files(left, right)?,
            (Entry::Symlink(left), Entry::Symlink(right)) => symlinks(left, right),
            (Entry::Special(left), Entry::Special(right)) => {
                let mut differences = metas(&left.meta, &right.meta);
                if left.kind != right.kind {
                    differences.push(AttributeDifference::Device {
                        left: left.kind,
                        right: right.kind,
                    });
                }
                differences
            }
            (left, right) => {
                let (left, right) = (kind(left), kind(right));
                self.paths.insert(path, PathChange::Kind { left, right });
                return Ok(());
            }
        };
        self.attributes(&path, differences);
        Ok(())
    }

    fn files(&self, left: &File, right: &File) -> Result<Vec<AttributeDifference>, StoreError> {
        let mut differences = metas(&left.meta, &right.meta);
        if left.blob != right.blob {
            let hints = if left.size.max(right.size) <= MAX_SEARCHED {
                hints(
                    &self.left.blobs.read(&left.blob)?,
                    &self.right.blobs.read(&right.blob)?,
                )
            } else {
                Vec::new()
            };
            differences.push(AttributeDifference::Content {
                left: (left.blob, left.size),
                right: (right.blob, right.size),
                hints,
            });
        }
        Ok(differences)
    }

    /// Hard links that lead elsewhere, where the paths differ in nothing worse.
    fn links(&mut self) {
        let (left, right) = (
            self.left.tree.links.first_by_path(),
            self.right.tree.links.first_by_path(),
        );
        for path in left.keys().chain(right.keys()) {
            let first = |links: &BTreeMap<&RelPath, &RelPath>| {
                links.get(*path).map(|first| (*first).clone())
            };
            let (left, right) = (first(&left), first(&right));
            if left == right {
                continue;
            }
            let link = AttributeDifference::Link { left, right };
            let is_gone = |above: &RelPath| {
                matches!(
                    self.paths.get(above),
                    Some(PathChange::OnlyLeft | PathChange::OnlyRight | PathChange::Kind { .. })
                )
            };
            let mut above = Some((*path).clone());
            while let Some(current) = above.as_ref().filter(|current| !is_gone(current)) {
                above = current.parent();
            }
            if above.is_some() {
                continue;
            }
            match self.paths.get_mut(*path) {
                Some(PathChange::Attributes(differences)) if !differences.contains(&link) => {
                    differences.push(link);
                }
                None => drop(
                    self.paths
                        .insert((*path).clone(), PathChange::Attributes(vec![link])),
                ),
                _ => (),
            }
        }
    }
}

fn names<'a>(left: &'a Directory, right: &'a Directory) -> Vec<&'a Name> {
    let mut names: Vec<&Name> = left
        .entries()
        .chain(right.entries())
        .map(|(name, _)| name)
        .collect();
    names.sort();
    names.dedup();
    names
}

fn kind(entry: &Entry) -> &'static str {
    match entry {
        Entry::Directory(_) => "a directory",
        Entry::File(_) => "a file",
        Entry::Symlink(_) => "a symbolic link",
        Entry::Special(special) => match special.kind {
            SpecialKind::Fifo => "a pipe",
            SpecialKind::Char { .. } | SpecialKind::Block { .. } => "a device",
        },
    }
}

fn symlinks(left: &Symlink, right: &Symlink) -> Vec<AttributeDifference> {
    let mut differences = owners((left.uid, left.gid), (right.uid, right.gid));
    if left.target != right.target {
        differences.push(AttributeDifference::Target {
            left: left.target.clone(),
            right: right.target.clone(),
        });
    }
    differences
}

fn owners(left: (u32, u32), right: (u32, u32)) -> Vec<AttributeDifference> {
    if left == right {
        Vec::new()
    } else {
        vec![AttributeDifference::Owner { left, right }]
    }
}

fn metas(left: &Meta, right: &Meta) -> Vec<AttributeDifference> {
    let mut differences = Vec::new();
    if left.mode != right.mode {
        differences.push(AttributeDifference::Mode {
            left: left.mode,
            right: right.mode,
        });
    }
    differences.extend(owners((left.uid, left.gid), (right.uid, right.gid)));
    let mut names: Vec<&XattrName> = left.xattrs.keys().chain(right.xattrs.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let (left, right) = (left.xattrs.get(name), right.xattrs.get(name));
        if left != right {
            differences.push(AttributeDifference::Xattr {
                name: name.clone(),
                left: left.cloned(),
                right: right.cloned(),
            });
        }
    }
    differences
}
