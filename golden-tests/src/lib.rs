//! The harness that judges immbuild: goldens, the identity matrix, real inputs, benchmarks and `cargo ci`.

#![allow(clippy::print_stdout, reason = "a check tells what it does")]

use std::path::{Path, PathBuf};

pub mod abreast;
pub mod apt;
pub mod containers;
pub mod debs;
pub mod elf;
pub mod engine;
pub mod examples;
pub mod goldens;
pub mod hostile;
pub mod lab;
pub mod listing;
pub mod machine;
pub mod material;
pub mod matrix;
pub mod packages;
pub mod pairwise;
pub mod roots;
pub mod sharing;
pub mod systems;
pub mod world;

/// The root of the repository.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("golden-tests lies in the workspace")
}

/// Where cargo puts what it builds.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// The program under test, built for release.
pub fn immbuild() -> PathBuf {
    target().join("release/immbuild")
}

/// A place for what the checks make and may keep between runs.
pub fn scratch() -> PathBuf {
    target().join("golden")
}
