//! A vertex of the build graph, and the id it has before anything is built.
//!
//! Must never know sandboxes, how a pin is fetched, or tar.

use std::collections::BTreeMap;
use std::time::Duration;

use immbuild_cas::canonical::{Canonical, Encoder};
use immbuild_cas::digest::{Digest, TreeId};
use immbuild_cas::path::RelPath;

use super::file_op::{FileOp, Owner};
use super::install::{InstallOp, PackagePin};
use super::libraries::{Language, LibrariesOp, LibraryPin};
use crate::epoch::{Epoch, FormatVersion};
use crate::platform::Platform;
use crate::spec::model::{Metadata, Tier};

immbuild_cas::id! {
    /// Names an op: its definition with its inputs' op ids. Known before anything is built.
    OpId;
}

/// A named input with its digest. There is no pin for something that floats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// Files of this machine or of a git commit, by content.
    Tree {
        /// The tree they are.
        tree: TreeId,
        /// Is the source one file, whose tree is as [`file_op`](super::file_op) says?
        file: bool,
    },
    /// A file from the network.
    Http {
        /// Digest of its bytes.
        sha256: Digest,
        /// How it becomes a tree, when it is an archive; else it *is* one file.
        unpack: Option<Unpack>,
    },
    /// A base image for one platform.
    Image {
        /// Digest of its manifest.
        manifest: Digest,
    },
    /// Packages for one architecture: a directory with one for each of them. By name and architecture.
    Packages(Vec<PackagePin>),
    /// Libraries of a language: a directory with one for each of them. By name.
    Libraries(Language, Vec<LibraryPin>),
}

/// How an archive becomes a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpack {
    /// How many leading names are taken off every path.
    pub strip: u32,
    /// Are mode, owner and hard links kept?
    pub preserve: bool,
}

/// One process in a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOp {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// What the stage and the step add to the environment.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub directory: RelPath,
    /// Who runs it.
    pub user: Owner,
    /// Secrets it is given, by name.
    pub secrets: Vec<String>,
    /// Directories kept between builds.
    pub caches: Vec<RelPath>,
    /// The least guarantee it asks for.
    pub tier: Tier,
    /// What it is told about files, above tier `isolated`.
    pub metadata: Metadata,
    /// How many steps of its stage before it execute the same: what tells their random bytes apart.
    pub occurrence: u32,
    /// The time it sees in `SOURCE_DATE_EPOCH` and on every file.
    pub epoch: Epoch,
    /// What its programs run on.
    pub platform: Platform,
    /// How long it may take. In no id: it decides whether there is a result, not which.
    pub timeout: Option<Duration>,
}

impl ExecOp {
    /// Where its random bytes come from: its definition and its place among equals. Not its inputs, so that what is done
    /// before it reshuffles nothing.
    pub fn seed(&self) -> Digest {
        self.canonical_digest()
    }
}

impl Canonical for ExecOp {
    const TAG: &'static str = "exec";
    const VERSION: u32 = 1;

    fn encode_fields(&self, out: &mut Encoder) {
        out.sequence(self.argv.iter(), |out, word| out.str(word));
        out.sequence(self.env.iter(), |out, (name, value)| {
            out.str(name);
            out.str(value);
        });
        out.bytes(self.directory.as_bytes());
        out.bytes(&self.user.to_canonical());
        out.sequence(self.secrets.iter(), |out, name| out.str(name));
        out.sequence(self.caches.iter(), |out, path| out.bytes(path.as_bytes()));
        out.str(self.tier.as_str());
        out.str(self.metadata.as_str());
        out.u32(self.occurrence);
        out.i64(self.epoch.seconds());
        out.str(&self.platform.to_string());
    }
}

/// What an op does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpKind {
    /// A root with nothing in it. No inputs.
    Empty,
    /// An input from outside. No inputs.
    Source(Pin),
    /// A verb that executes nothing. Inputs: the root it changes and, for a copy, what it copies from.
    File(FileOp),
    /// An archive unpacked onto a root. Inputs: the root, and where the archive is.
    Unpack {
        /// The archive, in its source.
        from: RelPath,
        /// The directory it becomes.
        to: RelPath,
        /// How.
        unpack: Unpack,
    },
    /// A process. Input: the root it changes.
    Exec(ExecOp),
    /// Packages put onto a root. Inputs: the root, and the packages.
    Install(InstallOp),
    /// Libraries put into a directory of a root. Inputs: the root, and the libraries.
    Libraries(LibrariesOp),
}

/// A vertex of the build graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// What it does.
    pub kind: OpKind,
    /// To what, in the order its kind says.
    pub inputs: Vec<OpId>,
}

impl Op {
    /// The id: digest of the definition and the inputs' ids.
    pub fn id(&self) -> OpId {
        OpId::new(self.canonical_digest())
    }

    /// The root that this op changes, where it changes one.
    pub fn base(&self) -> Option<OpId> {
        self.inputs.first().copied()
    }
}

impl Canonical for Op {
    const TAG: &'static str = "op";
    const VERSION: u32 = 1;

    fn encode_fields(&self, out: &mut Encoder) {
        out.u32(FormatVersion::V1.number());
        out.bytes(&self.kind.to_canonical());
        out.sequence(self.inputs.iter(), |out, input| out.digest(input.digest()));
    }
}

/// The definition alone: what [`Action`](super::action::Action) puts its input trees beside.
impl Canonical for OpKind {
    const TAG: &'static str = "op-kind";
    const VERSION: u32 = 2;

    fn encode_fields(&self, out: &mut Encoder) {
        match self {
            Self::Empty => out.u8(0),
            Self::Source(pin) => {
                out.u8(1);
                encode_pin(pin, out);
            }
            Self::File(op) => {
                out.u8(2);
                out.bytes(&op.to_canonical());
            }
            Self::Unpack { from, to, unpack } => {
                out.u8(3);
                out.bytes(from.as_bytes());
                out.bytes(to.as_bytes());
                encode_unpack(*unpack, out);
            }
            Self::Exec(op) => {
                out.u8(4);
                out.bytes(&op.to_canonical());
            }
            Self::Install(op) => {
                out.u8(5);
                out.bytes(&op.to_canonical());
            }
            Self::Libraries(op) => {
                out.u8(6);
                out.bytes(&op.to_canonical());
            }
        }
    }
}

fn encode_pin(pin: &Pin, out: &mut Encoder) {
    match pin {
        Pin::Tree { tree, file } => {
            out.u8(0);
            out.digest(tree.digest());
            out.bool(*file);
        }
        Pin::Http { sha256, unpack } => {
            out.u8(1);
            out.digest(sha256);
            out.option(*unpack, |out, unpack| encode_unpack(unpack, out));
        }
        Pin::Image { manifest } => {
            out.u8(2);
            out.digest(manifest);
        }
        Pin::Packages(packages) => {
            out.u8(3);
            out.sequence(packages.iter(), |out, package| package.encode(out));
        }
        Pin::Libraries(language, libraries) => {
            out.u8(4);
            out.u8(match language {
                Language::Python => 0,
                Language::Rust => 1,
            });
            out.sequence(libraries.iter(), |out, library| library.encode(out));
        }
    }
}

fn encode_unpack(unpack: Unpack, out: &mut Encoder) {
    out.u32(unpack.strip);
    out.bool(unpack.preserve);
}
