//! Pins and expectations.

use std::collections::{BTreeMap, BTreeSet};
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
    /// Packages.
    Debian(DebianPin),
    /// Wheels.
    Python(PythonPin),
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

/// The packages of a `debian` source, for all architectures it is locked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebianPin {
    /// The rules they were chosen by, with their version: `apt-greedy/1`.
    pub solver: String,
    /// The signed lists they were found in, by archive and suite. Each once.
    pub releases: Vec<ReleasePin>,
    /// By name, architecture and version. Each once, and one version of a name on one architecture.
    pub packages: Vec<PackagePin>,
}

impl DebianPin {
    /// The architectures it is locked for, in Debian's words: `amd64`.
    pub fn architectures(&self) -> BTreeSet<&str> {
        let all = self.packages.iter().flat_map(PackagePin::architectures);
        all.collect()
    }

    /// The packages for one architecture, by name.
    pub fn packages_for<'a>(
        &'a self,
        architecture: &'a str,
    ) -> impl Iterator<Item = &'a PackagePin> {
        self.packages
            .iter()
            .filter(move |package| package.architectures().any(|it| it == architecture))
    }
}

/// The wheels of a `python` source that are chosen, for all platforms it is locked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PythonPin {
    /// By platform and name. Each once.
    pub wheels: Vec<WheelPin>,
}

impl PythonPin {
    /// The wheels for one platform, by name.
    pub fn wheels_for(&self, platform: Platform) -> impl Iterator<Item = &WheelPin> {
        self.wheels
            .iter()
            .filter(move |wheel| wheel.platform == platform)
    }
}

/// One wheel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WheelPin {
    /// What it is installed for.
    pub platform: Platform,
    /// `flask`, normalised.
    pub name: String,
    /// `3.0.0`, as the requirements have it.
    pub version: String,
    /// The name of its file.
    pub file: String,
    /// Digest of its bytes.
    pub sha256: Digest,
    /// How many, where an index said so.
    pub size: Option<u64>,
}

/// One signed list of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleasePin {
    /// The archive's name in the spec.
    pub archive: Ident,
    /// `bookworm-updates`.
    pub suite: String,
    /// Digest of the file `InRelease`.
    pub inrelease: Digest,
    /// When the archive says that it was made. A later lock takes no older one.
    pub date: Epoch,
    /// Fingerprints of the keys whose signatures were good: capital hex digits, sorted.
    pub signers: Vec<String>,
}

/// One package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackagePin {
    /// `zlib1g`.
    pub name: String,
    /// `amd64`, or `all` for one that fits every architecture.
    pub arch: String,
    /// `1:1.2.13.dfsg-1`.
    pub version: String,
    /// With `all`: the architectures it is installed for. Else empty.
    pub for_architectures: Vec<String>,
    /// The archive's name in the spec.
    pub archive: Ident,
    /// Below the archive's top directory, in plain form.
    pub path: String,
    /// Bytes of the `.deb`.
    pub size: u64,
    /// Digest of the `.deb`.
    pub sha256: Digest,
    /// What it was built from.
    pub source: String,
    /// The version of that, where it is another than the package's.
    pub source_version: Option<String>,
    /// The packages of this lock that satisfy what it depends on, sorted, without itself.
    pub depends: Vec<String>,
    /// Why it is here: `requested`, `essential`, `needed by NAME`, `recommended by NAME`.
    pub reason: String,
}

impl PackagePin {
    /// The architectures it is installed for.
    pub fn architectures(&self) -> impl Iterator<Item = &str> {
        let own = (self.arch != ALL).then_some(self.arch.as_str());
        let others = self.for_architectures.iter().map(String::as_str);
        own.into_iter().chain(others)
    }
}

/// The architecture of a package that fits every other.
pub const ALL: &str = "all";

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
