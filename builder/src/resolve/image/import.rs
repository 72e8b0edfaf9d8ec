//! A base image's layers as a tree.

use std::io::{self, Read};

use immbuild_cas::canonical::Canonical;
use immbuild_cas::digest::{BlobId, HashingReader, MismatchError};
use immbuild_cas::store::{BlobSource, Store, StoreError};
use immbuild_cas::tree::{Meta, Mode, Tree, TreeBuilder, TreeError};

use crate::image::BaseImage;
use crate::image::descriptor::ImageLayer;
use crate::layer::{
    DiffId, Dropped, LayerDigest, Limited, Mtimes, UntarError, UntarTarget, decoder, read_layer,
};

/// What a base image becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseImported {
    /// All its layers, one on top of the other.
    pub tree: Tree,
    /// The times of its entries, in the store; they decide what steps see.
    pub mtimes: BlobId,
    /// What its layers say that no image keeps, for warnings.
    pub dropped: Vec<Dropped>,
}

/// Why a base image does not become a tree.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A layer is not there, or is not what its digest says.
    #[error("cannot read base layer {layer}")]
    Blob {
        /// The layer.
        layer: LayerDigest,
        /// Why.
        source: StoreError,
    },
    /// The image lacks a layer.
    #[error("base layer {layer} is missing: the manifest names it, and the image does not have it")]
    Missing {
        /// The layer.
        layer: LayerDigest,
    },
    /// A layer is there with other bytes.
    #[error("base layer {layer} was changed: its bytes are not those of its digest")]
    Changed {
        /// The layer.
        layer: LayerDigest,
    },
    /// A layer is not compressed as anything known.
    #[error("base layer {layer} does not decompress")]
    Decompress {
        /// The layer.
        layer: LayerDigest,
        /// What the decoder says.
        source: io::Error,
    },
    /// A layer is no tar, or a hostile one, or ends in bytes that are not those of its digest.
    #[error("base layer {layer} cannot be unpacked")]
    Untar {
        /// The layer.
        layer: LayerDigest,
        /// Which member, and why.
        source: Box<UntarError>,
    },
    /// A layer unpacks, but to other bytes than the config names.
    #[error("base layer {layer} decompresses to {actual}, its config says {expected}")]
    DiffId {
        /// The layer.
        layer: LayerDigest,
        /// What the config names.
        expected: DiffId,
        /// What was there.
        actual: DiffId,
    },
    /// The tree cannot be made.
    #[error("cannot make the tree of the base image")]
    Tree(#[from] TreeError),
    /// The store does not take it.
    #[error("cannot store the base image")]
    Store(#[source] StoreError),
}

/// Unpacks the layers of `base`, read from `layers`, into `store`. Together they may decompress to `limit` bytes.
///
/// Each layer is checked on its way: its digest, and the diff id that the config names. When this fails, `store` has blobs
/// that nothing refers to.
pub fn import_base(
    base: &BaseImage,
    layers: &dyn BlobSource,
    store: &dyn Store,
    limit: u64,
) -> Result<BaseImported, ImportError> {
    let mut tree = TreeBuilder::new(store, Meta::root(Mode::DIRECTORY));
    let mut mtimes = Mtimes::default();
    let mut dropped = Vec::new();
    let mut left = limit;
    for layer in &base.layers {
        let target = UntarTarget {
            tree: &mut tree,
            store,
            mtimes: &mut mtimes,
            dropped: &mut dropped,
        };
        left -= import_layer(layer, layers, target, left)?;
    }
    Ok(BaseImported {
        tree: tree.seal(store)?,
        mtimes: store
            .put_bytes(&mtimes.to_canonical())
            .map_err(ImportError::Store)?,
        dropped,
    })
}

/// Unpacks one layer on top of what is in `target`. Says how many bytes it decompressed to, at most `limit`.
pub fn import_layer(
    layer: &ImageLayer,
    layers: &dyn BlobSource,
    target: UntarTarget<'_, '_>,
    limit: u64,
) -> Result<u64, ImportError> {
    let digest = layer.digest;
    let raw = layers
        .open(&BlobId::new(*digest.digest()))
        .map_err(|source| ImportError::Blob {
            layer: digest,
            source,
        })?;
    let decompress = |source| ImportError::Decompress {
        layer: digest,
        source,
    };
    let plain = decoder(raw).map_err(decompress)?;
    let mut reader = HashingReader::new(Limited::new(plain, limit));
    read_layer(&mut reader, target).map_err(|source| ImportError::Untar {
        layer: digest,
        source: source.into(),
    })?;
    // What follows the end of the archive belongs to the diff id, and the last read is the one that checks the digest.
    io::copy(&mut reader, &mut io::sink()).map_err(decompress)?;
    let (actual, size) = reader.finish();
    if actual == *layer.diff_id.digest() {
        Ok(size)
    } else {
        Err(ImportError::DiffId {
            layer: digest,
            expected: layer.diff_id,
            actual: DiffId::new(actual),
        })
    }
}

/// Copies the layers of `base` into `store` as they are, so that the image can be written again when its source is gone.
pub fn keep_layers(
    base: &BaseImage,
    layers: &dyn BlobSource,
    store: &dyn Store,
) -> Result<(), ImportError> {
    for layer in &base.layers {
        let id = BlobId::new(*layer.digest.digest());
        if store.has(&id).map_err(ImportError::Store)? {
            continue;
        }
        let changed = ImportError::Changed {
            layer: layer.digest,
        };
        let reader = layers.open(&id).map_err(|source| match source {
            StoreError::Missing(_) => ImportError::Missing {
                layer: layer.digest,
            },
            source => ImportError::Blob {
                layer: layer.digest,
                source,
            },
        })?;
        // One byte more than there should be is enough to know that it is another layer.
        match store.put(&mut reader.take(layer.size + 1)) {
            Ok((stored, _)) if stored == id => {}
            Ok(_) => return Err(changed),
            // A reader that checks what it gives found it out first: it is not the store that failed.
            Err(StoreError::Io { source, .. }) if MismatchError::of(&source).is_some() => {
                return Err(changed);
            }
            Err(error) => return Err(ImportError::Store(error)),
        }
    }
    Ok(())
}
