//! The OCI documents: config, manifest and index, written in one canonical form and read from anybody.
//!
//! The only home of `oci-spec`, which reads in tests what we wrote: its own serialisation differs from run to run.
//! May use: floors 0 to 2, `layer`. Must never know where images come from or go to, nor any clock.

pub mod artifact;
pub mod base;
pub mod config;
pub mod contract;
pub mod descriptor;
pub mod index;
pub mod json;
pub mod key;
pub mod manifest;
pub mod read;
pub mod verify;

mod assemble;

pub use assemble::{Image, ImageIndex, ImageSpec, OwnLayer, assemble, assemble_index};
pub use base::{BaseError, BaseImage};
pub use config::{ConfigChanges, ContainerConfig, History, ImageConfig};
pub use descriptor::{
    ConfigDigest, Descriptor, ImageLayer, IndexDigest, LayerMedia, ManifestDigest,
};
pub use index::Index;
pub use json::CanonicalJson;
pub use key::{ImageId, ImageKey};
pub use manifest::Manifest;
pub use read::{Document, ReadError};

#[cfg(test)]
mod tests;
