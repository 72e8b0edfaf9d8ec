//! `dir`: the image's tree as plain files.

use std::path::Path;

use immbuild_cas::tree::Tree;

use super::oci_layout::is_ours;
use super::staging::StagedDirectory;
use super::{OutputError, Stamp};
use crate::hostfs::materialise::{Materialise, Materialised};

/// Writes a tree; `materialise` says where its parts are and who owns the files.
///
/// A directory that is there is replaced when it is empty, or when `written` says that it is the one written last time.
///
/// # Errors
/// Anything else stands at `path`; the tree holds what the file system cannot; a file's content cannot be read; the system
/// refuses.
pub fn write_dir(
    path: &Path,
    tree: &Tree,
    materialise: &Materialise<'_>,
    written: Option<&Stamp>,
) -> Result<Materialised, OutputError> {
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
    staged.publish()?;
    Ok(materialised)
}
