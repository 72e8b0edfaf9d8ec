//! `oci-archive`: an OCI layout in one tar.

use std::path::Path;

use super::copy::{LayerSource, copy_layer};
use super::staging::StagedFile;
use super::tar::Archive;
use super::{Blob, LAYOUT_MARKER, Names, OutputError, Subject, io_error};

/// Writes an archive with this one image; a file that is there is replaced.
///
/// The archive's own bytes are a function of the image and its names, too: members in the order of their names, each with the
/// epoch. `progress` gets the bytes of layers as they are copied.
///
/// # Errors
/// A directory stands at `path`; a layer cannot be read or is not what its digest says; the system refuses.
pub fn write_oci_archive(
    path: &Path,
    subject: Subject<'_>,
    names: &Names,
    layers: &dyn LayerSource,
    progress: &dyn Fn(u64),
) -> Result<(), OutputError> {
    let mut staged = StagedFile::new(path)?;
    let failed = io_error("write", path);
    let mut archive = Archive::new(&mut staged.file, subject.epoch());
    archive.directory("blobs/").map_err(&failed)?;
    archive.directory("blobs/sha256/").map_err(&failed)?;
    for (digest, blob) in subject.blobs() {
        let name = format!("blobs/sha256/{}", digest.to_hex());
        match blob {
            Blob::Document(bytes) => archive.file(&name, bytes).map_err(&failed)?,
            Blob::Layer(layer) => archive.sized(&name, layer.size, path, |file| {
                copy_layer(layers, &layer, file, path, progress)
            })?,
        }
    }
    let index = names.layout_index(&subject.descriptor());
    archive
        .file("index.json", index.as_bytes())
        .map_err(&failed)?;
    archive.file("oci-layout", LAYOUT_MARKER).map_err(&failed)?;
    archive.finish().map_err(&failed)?;
    staged.publish()
}
