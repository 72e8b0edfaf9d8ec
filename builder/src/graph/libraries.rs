//! Libraries of a language, put into a directory of a root, as data with one encoding.
//!
//! Must never know how it is done: a [`Sources`](crate::ports::Sources) does it.

use immbuild_cas::canonical::{Canonical, Encoder};
use immbuild_cas::digest::Digest;
use immbuild_cas::path::RelPath;

use crate::platform::Platform;
use crate::spec::model::Interpreter;

/// Whose libraries they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Language {
    /// Wheels.
    Python,
    /// Crates.
    Rust,
}

/// A library with its digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LibraryPin {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The name of its file.
    pub file: String,
    /// Digest of that file.
    pub sha256: Digest,
    /// The registry it is from, where that is not the language's own.
    pub registry: Option<String>,
}

impl LibraryPin {
    pub(super) fn encode(&self, out: &mut Encoder) {
        out.str(&self.name);
        out.str(&self.version);
        out.str(&self.file);
        out.digest(&self.sha256);
        out.option(self.registry.as_deref(), Encoder::str);
    }
}

/// Libraries put into a directory of a root. Inputs: the root, and the libraries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibrariesOp {
    /// The directory.
    pub to: RelPath,
    /// What it becomes.
    pub layout: Layout,
}

/// What a directory of libraries is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A virtual environment of Python.
    Environment(Environment),
    /// A directory of crates, which cargo takes in place of these registries besides the language's own.
    Vendored(Vec<String>),
}

/// A virtual environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Its interpreter.
    pub interpreter: Interpreter,
    /// Has it a second name for its directory of libraries, as on platforms of 64 bits?
    pub lib64: bool,
}

impl Environment {
    /// With this interpreter on this platform.
    pub fn new(interpreter: Interpreter, platform: Platform) -> Self {
        Self {
            interpreter,
            lib64: !matches!(platform.arch(), "386" | "arm"),
        }
    }

    /// `3.11`.
    pub fn series(&self) -> String {
        format!("{}.{}", self.interpreter.major, self.interpreter.minor)
    }

    /// `3.11.2`, or `3.11` where the spec does not say more.
    pub fn version(&self) -> String {
        self.interpreter.to_string()
    }

    /// `3.11.2`, or `3.11.0` where the spec does not say more.
    pub fn full_version(&self) -> String {
        format!("{}.{}", self.series(), self.interpreter.patch.unwrap_or(0))
    }
}

/// Version of what is made of equal libraries. Another is another op.
const FORM: u32 = 1;

impl Canonical for LibrariesOp {
    const TAG: &'static str = "libraries";
    const VERSION: u32 = 1;

    fn encode_fields(&self, out: &mut Encoder) {
        out.u32(FORM);
        out.bytes(self.to.as_bytes());
        match &self.layout {
            Layout::Environment(environment) => {
                out.u8(0);
                out.str(&environment.version());
                out.bool(environment.lib64);
            }
            Layout::Vendored(registries) => {
                out.u8(1);
                out.sequence(registries.iter(), |out, registry| out.str(registry));
            }
        }
    }
}
