//! Whose the entries of a directory are, where the machine can give them to one user only: a note in an extended
//! attribute says it.
//!
//! overlayfs carries such a note with a file: when it is copied up, renamed or linked. Links and pipes cannot have one.
//! A note is never part of a tree.

use std::collections::BTreeMap;

use immbuild_cas::path::RelPath;

/// User and group.
pub type Owner = (u32, u32);

/// User 0, group 0: the owner of what has no note.
pub const ROOT: Owner = (0, 0);

/// The attribute. Its value is user and group as decimal numbers, `5:6`.
pub const NOTE: &str = "user.immbuild.owner";

/// Where the owners of a snapshot's entries are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// At the entries.
    Real {
        /// The highest user and group id that can be given to a file.
        highest: u32,
    },
    /// In notes; all entries belong to whoever builds.
    Noted,
}

/// Owners of what cannot have a note: links and pipes.
pub type Noteless = BTreeMap<RelPath, Owner>;

/// The note for an owner.
pub fn to_note((uid, gid): Owner) -> Vec<u8> {
    format!("{uid}:{gid}").into_bytes()
}

/// The owner that a note says; nothing for what [`to_note`] would not write.
pub fn of_note(note: &[u8]) -> Option<Owner> {
    let (uid, gid) = std::str::from_utf8(note).ok()?.split_once(':')?;
    let owner = (uid.parse().ok()?, gid.parse().ok()?);
    (to_note(owner) == note).then_some(owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_says_an_owner_and_nothing_else_does() {
        for owner in [ROOT, (5, 6), (u32::MAX, 0)] {
            assert_eq!(of_note(&to_note(owner)), Some(owner));
        }
        for bad in [
            &b""[..],
            b"5",
            b"05:6",
            b"5:6 ",
            b"+5:6",
            b"5:4294967296",
            b"5:6:7",
        ] {
            assert_eq!(of_note(bad), None);
        }
    }
}
