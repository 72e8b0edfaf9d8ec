//! Finds what a spec asks for and brings it into the store: effects, network included.
//!
//! Must never know the graph, the sandbox, or how a lock is written.

pub mod git;
pub mod http;
pub mod image;
pub mod unpack;

use immbuild_cas::path::RelPath;
use immbuild_cas::tree::{EntryKind, Meta, Mode, TreeBuilder, TreeError};

/// Makes the directories above `path` that are missing, 0755 0:0.
fn make_parents(tree: &mut TreeBuilder<'_>, path: &RelPath) -> Result<(), TreeError> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    match tree.kind(&parent)? {
        Some(EntryKind::Directory) => Ok(()),
        Some(_) => Err(TreeError::NotADirectory(parent)),
        None => {
            make_parents(tree, &parent)?;
            tree.make_directory(&parent, Meta::root(Mode::DIRECTORY))
        }
    }
}
