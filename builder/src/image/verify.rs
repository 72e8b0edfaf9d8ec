//! Is an image what its digests say? Every document and layer is read and hashed; nothing is unpacked.

use std::collections::BTreeSet;
use std::io::Read as _;

use immbuild_cas::digest::{BlobId, Digest, HashingReader};
use immbuild_cas::store::{BlobSource, StoreError, read_error};

use super::base::{BaseError, BaseImage};
use super::descriptor::{Descriptor, ImageLayer, ManifestDigest};
use super::json::{CanonicalJson, MAX_JSON};
use super::read::{self, Document, ReadError};
use crate::layer::{DiffId, Limited, decoder};

/// What is wrong with one blob.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It is missing, or has other bytes than its digest.
    #[error("cannot be read")]
    Blob(#[source] StoreError),
    /// It has another length than the descriptor says.
    #[error("has {actual} bytes, its descriptor says {expected}")]
    Size {
        /// What the descriptor says.
        expected: u64,
        /// What is there.
        actual: u64,
    },
    /// It is not the document it should be.
    #[error("is no such document")]
    Document(#[source] ReadError),
    /// Manifest and config do not fit.
    #[error("is no image")]
    Image(#[source] BaseError),
    /// A platform of the index is not that of the config.
    #[error("is for {config}, the index says {index}")]
    Platform {
        /// In the config.
        config: String,
        /// In the index.
        index: String,
    },
    /// A layer does not decompress.
    #[error("does not decompress")]
    Decompress(#[source] std::io::Error),
    /// A layer decompresses to other bytes than the config names.
    #[error("decompresses to {actual}, its config says {expected}")]
    DiffId {
        /// In the config.
        expected: DiffId,
        /// What is there.
        actual: DiffId,
    },
}

/// What was found.
#[derive(Debug, Default)]
pub struct Structure {
    /// Manifests that were read.
    pub manifests: usize,
    /// Layers that were read, each once.
    pub layers: usize,
    /// What is wrong, in the order in which it was met.
    pub problems: Vec<(Digest, Problem)>,
    /// Documents that are right and not in our canonical form: written by another tool.
    pub foreign: Vec<Digest>,
}

/// Reads all of an image. A layer may decompress to `limit` bytes.
pub fn verify_structure(blobs: &dyn BlobSource, root: &Descriptor, limit: u64) -> Structure {
    let mut check = Check {
        blobs,
        limit,
        seen: BTreeSet::new(),
        structure: Structure::default(),
    };
    check.root(root);
    check.structure
}

struct Check<'a> {
    blobs: &'a dyn BlobSource,
    limit: u64,
    seen: BTreeSet<Digest>,
    structure: Structure,
}

impl Check<'_> {
    fn problem(&mut self, blob: Digest, problem: Problem) {
        self.structure.problems.push((blob, problem));
    }

    fn root(&mut self, descriptor: &Descriptor) {
        let Some(bytes) = self.document(descriptor) else {
            return;
        };
        match read::document(&bytes, &descriptor.digest.to_string()) {
            Err(error) => self.problem(descriptor.digest, Problem::Document(error)),
            Ok(Document::Manifest(manifest)) => {
                self.form(descriptor.digest, &bytes, &CanonicalJson::of(&manifest));
                self.manifest(descriptor, &bytes, &manifest.config);
            }
            Ok(Document::Index(index)) => {
                self.form(descriptor.digest, &bytes, &CanonicalJson::of(&index));
                for entry in &index.manifests {
                    // Indexes do not nest: what is not a manifest is reported as one that cannot be read.
                    if let Some(bytes) = self.document(entry)
                        && !entry.is_attestation()
                    {
                        match BaseImage::manifest(ManifestDigest::new(entry.digest), &bytes) {
                            Err(error) => self.problem(entry.digest, Problem::Image(error)),
                            Ok(manifest) => {
                                self.form(entry.digest, &bytes, &CanonicalJson::of(&manifest));
                                self.manifest(entry, &bytes, &manifest.config);
                            }
                        }
                    }
                }
            }
        }
    }

    fn manifest(&mut self, entry: &Descriptor, bytes: &[u8], config: &Descriptor) {
        self.structure.manifests += 1;
        let Some(config_bytes) = self.document(config) else {
            return;
        };
        let digest = ManifestDigest::new(entry.digest);
        let image = match BaseImage::new(digest, bytes, &config_bytes) {
            Ok(image) => image,
            Err(error) => return self.problem(entry.digest, Problem::Image(error)),
        };
        self.form(
            config.digest,
            &config_bytes,
            &CanonicalJson::of(&image.config),
        );
        if let Some(platform) = &entry.platform
            && (platform.os != image.config.platform.os
                || platform.architecture != image.config.platform.architecture)
        {
            self.problem(
                entry.digest,
                Problem::Platform {
                    config: image.config.platform.to_string(),
                    index: platform.to_string(),
                },
            );
        }
        for layer in &image.layers {
            if self.seen.insert(*layer.digest.digest()) {
                self.structure.layers += 1;
                if let Err(problem) = self.layer(layer) {
                    self.problem(*layer.digest.digest(), problem);
                }
            }
        }
    }

    fn form(&mut self, digest: Digest, bytes: &[u8], canonical: &CanonicalJson) {
        if bytes != canonical.as_bytes() && self.seen.insert(digest) {
            self.structure.foreign.push(digest);
        }
    }

    fn document(&mut self, descriptor: &Descriptor) -> Option<Vec<u8>> {
        let digest = descriptor.digest;
        let read = || {
            let mut bytes = Vec::new();
            let reader = self.blobs.open(&BlobId::new(digest))?;
            Limited::new(reader, MAX_JSON)
                .read_to_end(&mut bytes)
                .map_err(|error| read_error(&digest, error))?;
            Ok(bytes)
        };
        match read() {
            Err(error) => {
                self.problem(digest, Problem::Blob(error));
                None
            }
            Ok(bytes) => {
                let actual = bytes.len() as u64;
                if actual != descriptor.size {
                    let expected = descriptor.size;
                    self.problem(digest, Problem::Size { expected, actual });
                }
                Some(bytes)
            }
        }
    }

    /// Reads a layer twice: as it is shipped, then decompressed. The first tells a damaged blob from a wrong diff id.
    fn layer(&self, layer: &ImageLayer) -> Result<(), Problem> {
        let digest = *layer.digest.digest();
        let open = || self.blobs.open(&BlobId::new(digest)).map_err(Problem::Blob);
        let mut shipped = open()?;
        let actual = std::io::copy(&mut shipped, &mut std::io::sink())
            .map_err(|error| Problem::Blob(read_error(&digest, error)))?;
        if actual != layer.size {
            let expected = layer.size;
            return Err(Problem::Size { expected, actual });
        }
        let plain = decoder(open()?).map_err(Problem::Decompress)?;
        let mut reader = HashingReader::new(Limited::new(plain, self.limit));
        std::io::copy(&mut reader, &mut std::io::sink()).map_err(Problem::Decompress)?;
        let actual = DiffId::new(reader.finish().0);
        if actual == layer.diff_id {
            Ok(())
        } else {
            let expected = layer.diff_id;
            Err(Problem::DiffId { expected, actual })
        }
    }
}
