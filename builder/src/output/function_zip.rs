//! `function-zip`: a directory of the image as the zip that platforms for functions take, such as AWS Lambda.
//!
//! Modes and symbolic links are kept. Owners, extended attributes and hard links are not: the form has no place for them, and platforms
//! unpack as a user of their own.

use std::path::Path;

use immbuild_cas::path::RelPath;
use immbuild_cas::store::{BlobSource, DirectorySource};
use immbuild_cas::tree::{
    Entry, File, Meta, Special, SpecialKind, Symlink, Tree, Visit, entry_at, walk,
};

use super::staging::StagedFile;
use super::zip::{Content, Member, Type, Zip};
use super::{OutputError, io_error};
use crate::epoch::Epoch;
use crate::layer::{Deflater, crc32};

/// The most that AWS Lambda unpacks, with all layers of the function: 250 MB, which there are MiB.
pub const MAX_UNPACKED: u64 = 250 << 20;
/// The most that AWS Lambda takes in one request: 50 MB, which there are MiB. More goes by way of a bucket.
pub const MAX_PACKED: u64 = 50 << 20;

/// What becomes a zip.
#[derive(Clone, Copy)]
pub struct FunctionZip<'a> {
    /// The root of the image.
    pub tree: &'a Tree,
    /// The directory of it that is the root of the zip.
    pub root: &'a RelPath,
    /// The time of all that is in it.
    pub epoch: Epoch,
    /// Gives the directories.
    pub directories: &'a dyn DirectorySource,
    /// Gives the content.
    pub blobs: &'a dyn BlobSource,
}

impl std::fmt::Debug for FunctionZip<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FunctionZip")
            .field("root", self.root)
            .finish_non_exhaustive()
    }
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Length of the zip.
    pub packed: u64,
    /// Bytes of all files in it.
    pub unpacked: u64,
    /// What only its owner can read: the user that the platform runs it as is another.
    pub unreadable: Vec<RelPath>,
    /// What has extended attributes, such as capabilities, which are lost.
    pub without_xattrs: Vec<RelPath>,
}

/// Something to write, by its path in the image and in the zip.
struct Item {
    path: RelPath,
    name: String,
    what: What,
}

enum What {
    Directory(u32),
    File(File),
    Symlink(Symlink),
}

/// Writes the zip; a file that is there is replaced. `progress` gets the bytes of files as they are written.
///
/// # Errors
/// The directory is not there; it holds what no zip can, or more than a function may have; a directory stands at `path`; a file's
/// content cannot be read; the system refuses.
pub fn write_function_zip(
    path: &Path,
    zip: &FunctionZip<'_>,
    progress: &dyn Fn(u64),
) -> Result<Written, OutputError> {
    let (items, mut written) = zip.plan()?;
    let mut staged = StagedFile::new(path)?;
    let failed = io_error("write", path);
    let mut deflater = Deflater::new()?;
    // Members are written whole, so there is nothing to buffer.
    let mut out = Zip::new(&mut staged.file, zip.epoch);
    for item in &items {
        let name = item.name.as_str();
        let (kind, mode, bytes) = match &item.what {
            What::Directory(mode) => {
                out.directory(name, *mode).map_err(&failed)?;
                continue;
            }
            What::File(file) => {
                let bytes = zip.blobs.read(&file.blob);
                let bytes = bytes.map_err(|source| OutputError::Content {
                    path: item.path.clone(),
                    source,
                })?;
                (Type::File, file.meta.mode.bits(), bytes)
            }
            // The text of a link is the content of its entry, and its mode is all of them, as in a tar.
            What::Symlink(link) => (Type::Symlink, 0o777, link.target.to_vec()),
        };
        let packed = match kind {
            Type::Symlink => None,
            Type::File | Type::Directory => deflater.deflate(&bytes),
        };
        let size = u32::try_from(bytes.len()).map_err(|_| OutputError::NoMember {
            path: item.path.clone(),
            what: "it has 4 GiB or more",
        })?;
        let content = Content {
            crc: crc32(&bytes),
            size,
            bytes: packed.as_deref().unwrap_or(&bytes),
            deflated: packed.is_some(),
        };
        out.member(Member { name, kind, mode }, content)
            .map_err(&failed)?;
        progress(bytes.len() as u64);
    }
    written.packed = out.finish().map_err(&failed)?;
    staged.publish()?;
    Ok(written)
}

impl FunctionZip<'_> {
    /// All that is below the root, in order, and what is to be said of it. Nothing is written yet.
    fn plan(&self) -> Result<(Vec<Item>, Written), OutputError> {
        let wrong = |what| OutputError::Root {
            root: self.root.clone(),
            what,
        };
        let root = match entry_at(self.directories, self.tree, self.root)? {
            Some(Entry::Directory(id)) => Tree::new(id),
            Some(Entry::Symlink(_)) => return Err(wrong("is a symbolic link")),
            Some(Entry::File(_) | Entry::Special(_)) => return Err(wrong("is not a directory")),
            None => return Err(wrong("is not in the image")),
        };
        let mut items = Vec::new();
        let mut written = Written::default();
        walk::<OutputError>(self.directories, &root, &mut |below, visit| {
            let path = self
                .root
                .join_path(below)
                .map_err(|_| self.no_member(below, "its path is too long"))?;
            let what = match visit {
                Visit::Directory(meta) => {
                    written.note(&path, meta, 0o005);
                    What::Directory(meta.mode.bits())
                }
                Visit::File(file) => {
                    written.note(&path, &file.meta, 0o004);
                    written.unpacked += file.size;
                    What::File(file.clone())
                }
                Visit::Symlink(link) => What::Symlink(link.clone()),
                Visit::Special(special) => return Err(self.no_member(below, special_name(special))),
            };
            if below.is_root() {
                return Ok(());
            }
            let name = std::str::from_utf8(below.as_bytes())
                .map_err(|_| self.no_member(below, "its name is not UTF-8"))?
                .to_owned();
            items.push(Item { path, name, what });
            Ok(())
        })?;
        if written.unpacked > MAX_UNPACKED {
            return Err(OutputError::Unpacked {
                root: self.root.clone(),
                unpacked: written.unpacked,
                limit: MAX_UNPACKED,
            });
        }
        Ok((items, written))
    }

    fn no_member(&self, below: &RelPath, what: &'static str) -> OutputError {
        let path = self.root.join_path(below);
        OutputError::NoMember {
            path: path.unwrap_or_else(|_| below.clone()),
            what,
        }
    }
}

impl Written {
    /// Notes what will be missed; `wanted` are the bits that others need.
    fn note(&mut self, path: &RelPath, meta: &Meta, wanted: u32) {
        if meta.mode.bits() & wanted != wanted {
            self.unreadable.push(path.clone());
        }
        if !meta.xattrs.is_empty() {
            self.without_xattrs.push(path.clone());
        }
    }
}

fn special_name(special: &Special) -> &'static str {
    match special.kind {
        SpecialKind::Fifo => "it is a named pipe",
        SpecialKind::Char { .. } | SpecialKind::Block { .. } => "it is a device",
    }
}
