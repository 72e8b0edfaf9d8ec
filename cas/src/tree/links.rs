//! Hard links as a sorted side table: which paths of a tree are one file.
//!
//! Must never know inode numbers.

use std::collections::BTreeMap;

use crate::canonical::{DecodeError, Decoder, Encoder};
use crate::path::RelPath;

/// Groups of paths that are one file. Every group has two or more paths, no path is in two groups, paths and groups are
/// sorted; so equal tables have one form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkGroups(Vec<Vec<RelPath>>);

/// A path stands in two groups, or twice in one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is in two hard link groups")]
pub struct LinksError(pub RelPath);

impl LinkGroups {
    /// Sorts these groups and drops those of fewer than two paths.
    ///
    /// # Errors
    /// A path is named twice.
    pub fn new(groups: impl IntoIterator<Item = Vec<RelPath>>) -> Result<Self, LinksError> {
        let mut groups: Vec<Vec<RelPath>> = groups
            .into_iter()
            .map(|mut group| {
                group.sort();
                group
            })
            .collect();
        let mut all: Vec<&RelPath> = groups.iter().flatten().collect();
        all.sort();
        if let Some(pair) = all.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(LinksError(pair[0].clone()));
        }
        groups.retain(|group| group.len() > 1);
        groups.sort();
        Ok(Self(groups))
    }

    /// The groups, each sorted, in the order of their first paths.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = &[RelPath]> {
        self.0.iter().map(Vec::as_slice)
    }

    /// The group whose first path is this.
    pub fn starting_with(&self, first: &RelPath) -> Option<&[RelPath]> {
        let at = self.0.binary_search_by(|group| group[0].cmp(first)).ok()?;
        Some(&self.0[at])
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every linked path with the first path of its group.
    pub fn first_by_path(&self) -> BTreeMap<&RelPath, &RelPath> {
        self.0
            .iter()
            .flat_map(|group| group.iter().map(|path| (path, &group[0])))
            .collect()
    }

    /// The groups as they are below `directory`, with paths relative to it. Paths elsewhere leave their groups.
    #[must_use]
    pub fn below(&self, directory: &RelPath) -> Self {
        let below = |group: &Vec<RelPath>| {
            group
                .iter()
                .filter_map(|path| path.strip_prefix(directory))
                .filter(|path| !path.is_root())
                .collect()
        };
        Self::new(self.0.iter().map(below))
            .expect("paths that differ also differ below a directory")
    }

    pub(super) fn encode(&self, out: &mut Encoder) {
        out.sequence(self.0.iter(), |out, group| {
            out.sequence(group.iter(), |out, path| out.bytes(path.as_bytes()));
        });
    }

    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let not_canonical = |text: &str| DecodeError::NotCanonical(text.into());
        let mut groups = Vec::new();
        for _ in 0..decoder.count()? {
            let mut group = Vec::new();
            for _ in 0..decoder.count()? {
                let path = RelPath::new(decoder.bytes()?)
                    .map_err(|error| DecodeError::NotCanonical(error.to_string()))?;
                if path.is_root() {
                    return Err(not_canonical("the root is no hard link"));
                }
                group.push(path);
            }
            groups.push(group);
        }
        let sorted = Self::new(groups.iter().cloned())
            .map_err(|error| DecodeError::NotCanonical(error.to_string()))?;
        if sorted.0 == groups {
            Ok(sorted)
        } else {
            Err(not_canonical("hard link groups are not sorted"))
        }
    }
}
