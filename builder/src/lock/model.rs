//! Pins and expectations.

use std::collections::BTreeMap;
use std::fmt;

use immbuild_cas::digest::{Digest, TreeId};

use crate::epoch::Epoch;
use crate::platform::Platform;
use crate::spec::model::Ident;

/// All pins of one spec, its epoch and what its bytes are expected to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// The one time in the image.
    pub epoch: Epoch,
    /// What was found for each source that needs a pin.
    pub sources: BTreeMap<Ident, Locked>,
    /// What `build --record` saw.
    pub expect: BTreeMap<Target, Expect>,
}

/// A source with its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locked {
    /// Digest of what the source asked for.
    pub request: Digest,
    /// What was found.
    pub pin: Pin,
}

/// What was found for a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// An image.
    Image {
        /// The index; absent when there is none, or when each platform asks for another image.
        index: Option<Digest>,
        /// Its manifests.
        manifests: BTreeMap<Platform, ManifestPin>,
    },
    /// Bytes behind a URL. One for all platforms (key `None`), or one for each.
    Http {
        /// The files.
        files: BTreeMap<Option<Platform>, FilePin>,
    },
    /// A commit. One for all platforms (key `None`), or one for each.
    Git {
        /// The commits.
        commits: BTreeMap<Option<Platform>, CommitPin>,
    },
}

/// One manifest of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestPin {
    /// Digest of its bytes.
    pub digest: Digest,
    /// How many bytes.
    pub size: u64,
}

/// One file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilePin {
    /// Digest of its bytes.
    pub sha256: Digest,
    /// How many bytes.
    pub size: u64,
}

/// One commit and the tree it gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitPin {
    /// 40 or 64 lower-case hex digits.
    pub commit: String,
    /// Identity of the content.
    pub tree: TreeId,
}

/// What an expectation is about. Platforms first, in the order of their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// The image for one platform.
    Platform(Platform),
    /// The index over all of them.
    Index,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Platform(platform) => platform.fmt(f),
            Self::Index => f.write_str("index"),
        }
    }
}

/// What a build gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expect {
    /// The image id; for the index, the digest of the set of them.
    pub image_id: Digest,
    /// Digest of the manifest, or of the index.
    pub manifest: Digest,
    /// The image's root; absent for the index.
    pub tree: Option<TreeId>,
}
