//! `dir`: the image's tree as plain files.

use std::path::Path;

use immbuild_cas::tree::Tree;

use super::oci_layout::is_ours;
use super::staging::StagedDirectory;
use super::stamp::root_stamp;
use super::{OutputError, Stamp};
use crate::hostfs::materialise::{Materialise, Materialised};

/// A directory that is whole, and not yet at its place.
#[derive(Debug)]
pub struct WholeDir {
    staged: StagedDirectory,
    /// What was written, and what could not be.
    pub materialised: Materialised,
    /// What it will be known by.
    pub stamp: Stamp,
}

/// Writes a tree beside `path`; `materialise` says where its parts are and who owns the files. Whoever keeps the stamp before
/// [`WholeDir::publish`] knows the directory again, also when nothing could be noted after that.
///
/// A directory that is there can be replaced when it is empty, or when one of `written` says that it is ours.
///
/// # Errors
/// Anything else stands at `path`; the tree holds what the file system cannot; a file's content cannot be read; the system
/// refuses.
pub fn write_dir(
    path: &Path,
    tree: &Tree,
    materialise: &Materialise<'_>,
    written: &[Stamp],
) -> Result<WholeDir, OutputError> {
    if !is_ours(path, written)? {
        return Err(OutputError::InTheWay {
            path: path.into(),
            what: "something that was not written by the last build",
        });
    }
    let staged = StagedDirectory::new(path)?;
    let materialised =
        materialise
            .tree(tree, &staged.path)
            .map_err(|source| OutputError::Tree {
                path: path.into(),
                source,
            })?;
    let stamp = root_stamp(&staged.path)?.expect("it was made above");
    Ok(WholeDir {
        staged,
        materialised,
        stamp,
    })
}

impl WholeDir {
    /// Puts it at its place; what is there goes.
    ///
    /// # Errors
    /// The system refuses.
    pub fn publish(self) -> Result<Materialised, OutputError> {
        self.staged.publish()?;
        Ok(self.materialised)
    }
}
