//! What takes the place of maintainer scripts where nothing executes: plain statements of what the root has.
//!
//! Two kinds. What the spec says; and what scripts are known to do, of which the common part is read from the scripts
//! themselves, unexecuted: alternatives and accounts with literal arguments. What is left over is told by name.

mod accounts;
mod alternatives;
mod certificates;
mod known;
mod skipped;

use immbuild_cas::path::RelPath;
use immbuild_cas::store::{BlobSource, Store};
use immbuild_cas::tree::{Entry, EntryKind, Mode, Symlink};

use super::install::{InstallError, put_text, text};
use super::package::Package;
use crate::graph::apply::{Missing, Root, Way};
use crate::graph::plan;
use crate::spec::model::Fixups;

/// A root that is mended.
#[allow(missing_debug_implementations, reason = "holds trait objects")]
pub struct Fixing<'f, 'a> {
    /// The root.
    pub root: &'f mut Root<'a>,
    /// What was installed.
    pub packages: &'f [Package],
    /// Where directories and contents are.
    pub store: &'f dyn Store,
    /// Where contents of the root are.
    pub blobs: &'f dyn BlobSource,
    /// What the spec says.
    pub fixups: &'f Fixups,
}

/// Does all of it. Gives what a person should know.
///
/// # Errors
/// The spec asks for what cannot be done on this root.
pub fn apply(fixing: &mut Fixing<'_, '_>) -> Result<Vec<String>, InstallError> {
    known::skeleton(fixing)?;
    accounts::apply(fixing)?;
    known::apply(fixing)?;
    alternatives::apply(fixing)?;
    let is_bundled = fixing
        .fixups
        .ca_bundle
        .unwrap_or_else(|| fixing.has("ca-certificates"));
    if is_bundled {
        certificates::apply(fixing)?;
    }
    for directory in &fixing.fixups.dirs {
        let owner = match &directory.owner {
            Some(owner) => Some(fixing.root.owner(&plan::owner(owner), fixing.blobs)?),
            None => None,
        };
        fixing
            .root
            .make_directory(&directory.path, directory.mode, owner)?;
    }
    for (path, target) in &fixing.fixups.symlinks {
        fixing.link(path, target)?;
    }
    skipped::warnings(fixing, is_bundled)
}

impl Fixing<'_, '_> {
    /// Is a package of this name being installed?
    fn has(&self, name: &str) -> bool {
        self.packages.iter().any(|package| package.name() == name)
    }

    /// The script that configures a package.
    fn postinst(&self, package: &Package) -> Result<String, InstallError> {
        let text = package.control_text("postinst", self.store)?;
        Ok(text.unwrap_or_default())
    }

    /// Is something at this path, when its links are followed?
    fn leads_somewhere(&mut self, path: &RelPath) -> Result<bool, InstallError> {
        let mut path = path.clone();
        for _ in 0..40 {
            let Some(found) = self.root.find(&path)? else {
                return Ok(false);
            };
            let Some(kind) = self.root.builder.kind(&found)? else {
                return Ok(false);
            };
            if kind != EntryKind::Symlink {
                return Ok(true);
            }
            if matches!(self.root.way(&found, Missing::Stop)?, Way::Directory(_)) {
                return Ok(true);
            }
            let Some(Entry::Symlink(link)) = self.root.builder.get(&found)? else {
                return Ok(false);
            };
            let Some(next) = followed(&found, &link.target) else {
                return Ok(false);
            };
            path = next;
        }
        Ok(false)
    }

    /// A symbolic link, in the place of a file or link.
    fn link(&mut self, path: &RelPath, target: &str) -> Result<(), InstallError> {
        let place = self.root.place(path)?;
        let link = Symlink {
            target: target.as_bytes().into(),
            uid: 0,
            gid: 0,
        };
        Ok(self.root.put(&place, Entry::Symlink(link))?)
    }

    /// A file of root's.
    fn write(&mut self, path: &RelPath, text: &str, mode: Mode) -> Result<(), InstallError> {
        put_text(self.root, path, text.as_bytes(), mode, self.store)
    }

    /// The text of a file of the root.
    fn text(&mut self, path: &RelPath) -> Result<Option<String>, InstallError> {
        text(self.root, path, self.blobs)
    }

    /// Is anything at this path?
    fn is_there(&mut self, path: &RelPath) -> Result<bool, InstallError> {
        Ok(self.root.find(path)?.is_some())
    }
}

/// Where a link at `at` leads, one link further.
fn followed(at: &RelPath, target: &[u8]) -> Option<RelPath> {
    let mut names: Vec<&[u8]> = if target.starts_with(b"/") {
        Vec::new()
    } else {
        let mut names: Vec<&[u8]> = at.names().collect();
        names.pop();
        names
    };
    for name in target.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    RelPath::new(names.join(&b'/')).ok()
}

/// A path that is written here.
fn constant(path: &str) -> RelPath {
    RelPath::from_absolute(path.as_bytes()).expect("a constant is a path")
}
