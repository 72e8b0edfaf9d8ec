//! What a layer will say, before a byte of it is written.
//!
//! Pure. Must never know blobs' bytes, compression or where the layer goes.

use std::collections::{BTreeMap, BTreeSet};

use immbuild_cas::path::{Name, RelPath};
use immbuild_cas::store::DirectorySource;
use immbuild_cas::tree::{
    Change, Delta, File, Meta, Mode, Special, SpecialKind, Symlink, Tree, TreeBuilder,
};

use super::LayerError;
use super::tar::{RECORD, device_fits, padding};

/// What stands before the name of a file that says "the entry below is gone" (OCI image-spec, layer, "Whiteouts").
pub(super) const WHITEOUT: &[u8] = b".wh.";

/// The entries of a layer in the order they are written: by the bytes of their paths, as [`RelPath`] orders them, so
/// that a parent comes before what is in it. A whiteout stands where its own name belongs.
///
/// Besides what a delta changes, every directory above a change is there, the root too, with the mode, owner and
/// attributes it has in the new tree. Without them podman, which unpacks each layer into a directory of its own, makes such
/// parents up as 0755 0:0, and `/tmp` is no longer 1777.
#[derive(Clone, Debug)]
pub struct LayerPlan {
    /// Sorted by path; no path is there twice.
    entries: Vec<(Box<[u8]>, Item)>,
}

/// One entry of a layer.
#[derive(Clone, Debug)]
pub(super) enum Item {
    Whiteout,
    Directory(Meta),
    File(File),
    /// Another name of `target`, the first path of its group.
    HardLink {
        target: RelPath,
        meta: Meta,
    },
    Symlink(Symlink),
    Special(Special),
}

impl LayerPlan {
    /// Plans the layer that turns the tree below into `tree`; `delta` is the difference of the two.
    ///
    /// # Errors
    /// A changed name starts with `.wh.`, or a device number has more than seven octal digits: no layer can say that.
    /// A directory of `tree` is missing.
    pub fn new(
        directories: &dyn DirectorySource,
        tree: &Tree,
        delta: Delta,
    ) -> Result<Self, LayerError> {
        let mut tree = TreeBuilder::from_tree(directories, tree);
        let mut entries = Vec::with_capacity(delta.changes.len());
        for directory in unchanged_above(&delta.changes) {
            let meta = tree
                .directory_meta(&directory)?
                .expect("a delta's changes are in directories of the new tree");
            entries.push((directory.into_bytes(), Item::Directory(meta)));
        }
        let first_by_path = delta.links.first_by_path();
        for (path, change) in delta.changes {
            let link = first_by_path
                .get(&path)
                .filter(|target| **target != &path)
                .map(|target| (*target).clone());
            entries.push(planned(path, change, link)?);
        }
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(Self { entries })
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Is there nothing to say? An image has no layer for that.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Length of the uncompressed layer in bytes, but for extended headers: for showing progress.
    pub fn expected_length(&self) -> u64 {
        let content = self.entries.iter().map(|(_, item)| match item {
            Item::File(file) => file.size + padding(file.size) as u64,
            _ => 0,
        });
        content.sum::<u64>() + (self.entries.len() * RECORD) as u64
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&[u8], &Item)> {
        self.entries.iter().map(|(path, item)| (&**path, item))
    }
}

/// The directories above changes that do not change themselves.
fn unchanged_above(changes: &BTreeMap<RelPath, Change>) -> BTreeSet<RelPath> {
    let mut directories = BTreeSet::new();
    let mut last: &[u8] = b"/";
    for path in changes.keys() {
        let bytes = path.as_bytes();
        let parent = &bytes[..bytes.iter().rposition(|byte| *byte == b'/').unwrap_or(0)];
        // Most of the time the one of the path before.
        if std::mem::replace(&mut last, parent) == parent {
            continue;
        }
        let mut above = path.parent();
        while let Some(directory) = above {
            above = directory.parent();
            if changes.contains_key(&directory) || !directories.insert(directory) {
                break;
            }
        }
    }
    directories
}

/// The path an entry is written under, without the slash behind a directory, and what it is.
fn planned(
    path: RelPath,
    change: Change,
    link: Option<RelPath>,
) -> Result<(Box<[u8]>, Item), LayerError> {
    if path.file_name().starts_with(WHITEOUT) {
        return Err(LayerError::WhiteoutName(path));
    }
    let item = match (change, link) {
        (Change::Remove, _) => {
            let (parent, name) = path.split_last().expect("the root is never removed");
            return Ok((whiteout_path(&parent, &name), Item::Whiteout));
        }
        (Change::Directory(meta), _) => Item::Directory(meta),
        (Change::File(file), None) => Item::File(file),
        (Change::Symlink(symlink), None) => Item::Symlink(symlink),
        (Change::Special(special), None) => Item::Special(special),
        (Change::File(File { meta, .. }) | Change::Special(Special { meta, .. }), Some(target)) => {
            Item::HardLink { target, meta }
        }
        (Change::Symlink(symlink), Some(target)) => Item::HardLink {
            target,
            meta: symlink_meta(&symlink),
        },
    };
    if let Item::Special(special) = &item
        && let SpecialKind::Char { major, minor } | SpecialKind::Block { major, minor } =
            special.kind
        && !device_fits(major, minor)
    {
        return Err(LayerError::Device(path));
    }
    Ok((path.into_bytes(), item))
}

fn whiteout_path(parent: &RelPath, name: &Name) -> Box<[u8]> {
    let mut path = parent.as_bytes().to_vec();
    if !parent.is_root() {
        path.push(b'/');
    }
    path.extend_from_slice(WHITEOUT);
    path.extend_from_slice(name.as_bytes());
    path.into()
}

/// What Linux shows of a symbolic link.
pub(super) fn symlink_meta(symlink: &Symlink) -> Meta {
    Meta {
        uid: symlink.uid,
        gid: symlink.gid,
        ..Meta::root(Mode::of_st_mode(0o777))
    }
}
