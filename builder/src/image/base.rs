//! A base image as a value: what its manifest and config say, checked against each other.

use immbuild_cas::digest::Digest;

use super::config::ImageConfig;
use super::descriptor::{ImageLayer, LayerMedia, ManifestDigest};
use super::manifest::Manifest;
use super::read::{Document, ReadError, config, document, seconds_of_rfc3339};
use crate::epoch::Epoch;
use crate::layer::{DiffId, LayerDigest};
use crate::platform::Platform;

/// An image that others are built on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseImage {
    /// The manifest it was read from.
    pub manifest: ManifestDigest,
    /// Its config, as far as it can be inherited.
    pub config: ImageConfig,
    /// Its layers, lowest first.
    pub layers: Vec<ImageLayer>,
    /// Fields of its config that have a meaning and cannot be inherited, for a warning: `Healthcheck`.
    pub dropped: Vec<String>,
}

/// Why a manifest and a config are no image.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// One of the two cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The bytes are not those of the digest.
    #[error("{document} mismatch: expected {expected}, read {actual}")]
    Mismatch {
        /// `manifest` or `config`.
        document: &'static str,
        /// The digest it was asked by.
        expected: Digest,
        /// The digest of what was there.
        actual: Digest,
    },
    /// The bytes have another size than the descriptor says.
    #[error("the config of manifest {manifest} has {actual} bytes, its descriptor says {expected}")]
    Size {
        /// Whose config.
        manifest: Digest,
        /// The size in the descriptor.
        expected: u64,
        /// The size of what was there.
        actual: u64,
    },
    /// An index where a manifest was asked for.
    #[error("{0} is an index, not a manifest")]
    Index(Digest),
    /// The config counts other layers than the manifest.
    #[error("manifest {manifest} has {layers} layers, its config has {diff_ids}")]
    Layers {
        /// Which manifest.
        manifest: Digest,
        /// Layers in it.
        layers: usize,
        /// Layers in its config.
        diff_ids: usize,
    },
}

impl BaseImage {
    /// Checks and joins a manifest and its config.
    ///
    /// # Errors
    /// The bytes are not those of the digests, are no such documents, or do not fit each other.
    pub fn new(
        digest: ManifestDigest,
        manifest_bytes: &[u8],
        config_bytes: &[u8],
    ) -> Result<Self, BaseError> {
        let manifest = Self::manifest(digest, manifest_bytes)?;
        check("config", manifest.config.digest, config_bytes)?;
        let size = config_bytes.len() as u64;
        if manifest.config.size != size {
            return Err(BaseError::Size {
                manifest: *digest.digest(),
                expected: manifest.config.size,
                actual: size,
            });
        }
        let (config, dropped) = config(config_bytes, &manifest.config.digest.to_string())?;
        if manifest.layers.len() != config.diff_ids.len() {
            return Err(BaseError::Layers {
                manifest: *digest.digest(),
                layers: manifest.layers.len(),
                diff_ids: config.diff_ids.len(),
            });
        }
        let layers = manifest
            .layers
            .iter()
            .zip(&config.diff_ids)
            .map(|(layer, diff_id)| ImageLayer {
                diff_id: DiffId::new(*diff_id),
                digest: LayerDigest::new(layer.digest),
                size: layer.size,
                media: LayerMedia::of_media_type(&layer.media_type)
                    .expect("a manifest that was read has layers of known media types only"),
            })
            .collect();
        Ok(Self {
            manifest: digest,
            config,
            layers,
            dropped,
        })
    }

    /// The manifest of this digest, for finding its config.
    ///
    /// # Errors
    /// The bytes are not those of the digest, or are no manifest.
    pub fn manifest(digest: ManifestDigest, bytes: &[u8]) -> Result<Manifest, BaseError> {
        check("manifest", *digest.digest(), bytes)?;
        match document(bytes, &digest.to_string())? {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(_) => Err(BaseError::Index(*digest.digest())),
        }
    }

    /// When it was made, if its config says so.
    pub fn date(&self) -> Option<Epoch> {
        let seconds = seconds_of_rfc3339(self.config.created.as_deref()?)?;
        Epoch::from_seconds(seconds).ok()
    }

    /// What it runs on, where that is a platform we know.
    pub fn platform(&self) -> Option<Platform> {
        self.config.platform.known()
    }
}

fn check(document: &'static str, expected: Digest, bytes: &[u8]) -> Result<(), BaseError> {
    let actual = Digest::of(bytes);
    if actual == expected {
        Ok(())
    } else {
        Err(BaseError::Mismatch {
            document,
            expected,
            actual,
        })
    }
}
