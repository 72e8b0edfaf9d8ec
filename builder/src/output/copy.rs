//! Brings a layer's bytes into an output.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use immbuild_cas::digest::{BlobId, HashingReader};
use immbuild_cas::store::{BlobSource, StoreError, read_error};

use super::{OutputError, io_error};
use crate::image::descriptor::{ImageLayer, LayerMedia};
use crate::layer::{LayerDigest, decoder};

/// Gives layers by digest.
pub trait LayerSource: Sync {
    /// Opens a layer. The reader fails at its end when the bytes were not the right ones.
    fn open(&self, digest: &LayerDigest) -> Result<Box<dyn Read + Send + '_>, StoreError>;

    /// A file that holds the layer's bytes and nothing else, at its start, for the kernel to copy.
    ///
    /// Nothing checks these bytes again: give a file only when this process hashed it and nobody else writes to it.
    fn file(&self, _digest: &LayerDigest) -> Result<Option<File>, StoreError> {
        Ok(None)
    }
}

/// Layers that are blobs of a store.
#[derive(Clone, Copy)]
pub struct Blobs<'a>(pub &'a dyn BlobSource);

impl std::fmt::Debug for Blobs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Blobs")
    }
}

impl LayerSource for Blobs<'_> {
    fn open(&self, digest: &LayerDigest) -> Result<Box<dyn Read + Send + '_>, StoreError> {
        self.0.open(&BlobId::new(*digest.digest()))
    }
}

/// Bytes moved per system call: large enough that calls cost nothing, small enough to stay in the CPU's cache.
const BUFFER: usize = 1 << 20;

/// Copies a layer as it is shipped to the end of `out`. `path` is what `out` will be called, for messages.
pub(super) fn copy_layer(
    layers: &dyn LayerSource,
    layer: &ImageLayer,
    out: &mut File,
    path: &Path,
    progress: &dyn Fn(u64),
) -> Result<(), OutputError> {
    let digest = *layer.digest.digest();
    let store = |source| OutputError::Layer { digest, source };
    let copied = if let Some(file) = layers.file(&layer.digest).map_err(store)? {
        // From file to file the standard library lets the kernel copy.
        let copied = io::copy(&mut file.take(layer.size), out).map_err(io_error("write", path))?;
        progress(copied);
        copied
    } else {
        let mut reader = layers.open(&layer.digest).map_err(store)?;
        copy(&mut *reader, out, progress).map_err(|error| match error {
            CopyError::Read(error) => store(read_error(&digest, error)),
            CopyError::Write(source) => io_error("write", path)(source),
        })?
    };
    if copied == layer.size {
        Ok(())
    } else {
        Err(OutputError::Size {
            digest,
            expected: layer.size,
            actual: copied,
        })
    }
}

/// Which side failed: a full disk is not a damaged layer.
pub(super) enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

/// Copies to the end of `reader` and says how many bytes that were.
pub(super) fn copy(
    reader: &mut dyn Read,
    out: &mut dyn Write,
    progress: &dyn Fn(u64),
) -> Result<u64, CopyError> {
    let mut buffer = vec![0; BUFFER];
    let mut copied = 0;
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyError::Read(error)),
        };
        out.write_all(&buffer[..count]).map_err(CopyError::Write)?;
        copied += count as u64;
        progress(count as u64);
    }
}

/// Copies a layer without its compression to the end of `out`, and checks that this gives its diff id.
pub(super) fn copy_uncompressed(
    layers: &dyn LayerSource,
    layer: &ImageLayer,
    out: &mut File,
    path: &Path,
    progress: &dyn Fn(u64),
) -> Result<(), OutputError> {
    let digest = *layer.digest.digest();
    let wrong = || OutputError::DiffId {
        digest,
        media: layer.media,
        diff_id: *layer.diff_id.digest(),
    };
    if layer.media == LayerMedia::Tar {
        if digest != *layer.diff_id.digest() {
            return Err(wrong());
        }
        return copy_layer(layers, layer, out, path, progress);
    }
    let read = |error: io::Error| {
        let known = error.get_ref().is_some_and(|inner| {
            inner.is::<immbuild_cas::digest::MismatchError>() || inner.is::<StoreError>()
        });
        if known {
            let source = read_error(&digest, error);
            OutputError::Layer { digest, source }
        } else {
            OutputError::Decompress {
                digest,
                source: error,
            }
        }
    };
    let reader = layers
        .open(&layer.digest)
        .map_err(|source| OutputError::Layer { digest, source })?;
    let mut reader = HashingReader::new(decoder(reader).map_err(read)?);
    copy(&mut reader, out, progress).map_err(|error| match error {
        CopyError::Read(error) => read(error),
        CopyError::Write(source) => io_error("write", path)(source),
    })?;
    let (actual, _) = reader.finish();
    if actual == *layer.diff_id.digest() {
        Ok(())
    } else {
        Err(wrong())
    }
}
