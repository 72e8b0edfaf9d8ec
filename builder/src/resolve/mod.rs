//! Finds what a spec asks for and brings it into the store: effects, network included.
//!
//! Must never know the graph, the sandbox, or how a lock is written.

pub mod git;
pub mod http;
pub mod image;
pub mod several;
pub mod unpack;

use immbuild_cas::path::RelPath;
use immbuild_cas::tree::{EntryKind, Meta, Mode, TreeBuilder, TreeError};

/// Makes the directories above `path` that are missing, 0755 0:0.
fn make_parents(tree: &mut TreeBuilder<'_>, path: &RelPath) -> Result<(), TreeError> {
    let mut missing = Vec::new();
    let mut above = path.parent();
    while let Some(directory) = above {
        match tree.kind(&directory)? {
            Some(EntryKind::Directory) => break,
            Some(_) => return Err(TreeError::NotADirectory(directory)),
            None => above = directory.parent(),
        }
        missing.push(directory);
    }
    missing
        .iter()
        .rev()
        .try_for_each(|directory| tree.make_directory(directory, Meta::root(Mode::DIRECTORY)))
}
