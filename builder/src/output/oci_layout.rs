//! `oci-layout`: a directory as OCI image-spec, "Image Layout", describes it.
#![allow(clippy::disallowed_methods, reason = "is a directory empty, and ours")]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::copy::{LayerSource, copy_layer};
use super::staging::StagedDirectory;
use super::{Blob, LAYOUT_MARKER, Names, OutputError, Stamp, Subject, io_error, stamp};
use crate::image::read::{Document, document, layout_marker};
use crate::image::{CanonicalJson, json::MAX_JSON};

/// Writes a layout with this one image.
///
/// A directory that is there is replaced when it is empty, when `written` says that it is the one written last time, or when
/// it is itself a layout of a single image in the form we write. `progress` gets the bytes of layers as they are copied.
///
/// # Errors
/// Anything else stands at `path`; a layer cannot be read or is not what its digest says; the system refuses.
pub fn write_oci_layout(
    path: &Path,
    subject: Subject<'_>,
    names: &Names,
    layers: &dyn LayerSource,
    written: Option<&Stamp>,
    progress: &dyn Fn(u64),
) -> Result<(), OutputError> {
    if !is_ours(path, written.map_or(&[], std::slice::from_ref))? && !is_layout_of_one_image(path) {
        return Err(OutputError::InTheWay {
            path: path.into(),
            what: "something that is no layout of a single image",
        });
    }
    let staged = StagedDirectory::new(path)?;
    let blobs = staged.path.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(io_error("create", &blobs))?;
    for (digest, blob) in subject.blobs() {
        let path = blobs.join(digest.to_hex());
        let mut file = File::create_new(&path).map_err(io_error("create", &path))?;
        match blob {
            Blob::Document(bytes) => file.write_all(bytes).map_err(io_error("write", &path))?,
            Blob::Layer(layer) => copy_layer(layers, &layer, &mut file, &path, progress)?,
        }
    }
    let index = names.layout_index(&subject.descriptor());
    for (name, bytes) in [
        ("index.json", index.as_bytes()),
        ("oci-layout", LAYOUT_MARKER),
    ] {
        let path = staged.path.join(name);
        fs::write(&path, bytes).map_err(io_error("write", &path))?;
    }
    staged.publish()
}

/// Is there nothing, an empty directory, or a directory that was written before?
pub(super) fn is_ours(path: &Path, written: &[Stamp]) -> Result<bool, OutputError> {
    let Some(now) = stamp::root_stamp(path)? else {
        return Ok(true);
    };
    let is_empty = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    Ok(is_empty || written.iter().any(|written| written.is_same_object(&now)))
}

/// Is it a layout as [`write_oci_layout`] leaves it, so that replacing it loses nothing that others put there?
pub(super) fn is_layout_of_one_image(path: &Path) -> bool {
    let names = ["blobs", "index.json", "oci-layout"];
    let only_these = fs::read_dir(path).is_ok_and(|mut entries| {
        entries.all(|entry| {
            entry.is_ok_and(|entry| names.iter().any(|name| entry.file_name() == *name))
        })
    });
    let small = |name: &str| {
        let path = path.join(name);
        let fits =
            fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_JSON);
        fits.then(|| fs::read(path).ok()).flatten()
    };
    let (Some(marker), Some(index)) = (small("oci-layout"), small("index.json")) else {
        return false;
    };
    let Ok(Document::Index(parsed)) = document(&index, "index.json") else {
        return false;
    };
    let one_image = parsed
        .manifests
        .windows(2)
        .all(|pair| pair[0].digest == pair[1].digest);
    only_these
        && one_image
        && layout_marker(&marker, "oci-layout").is_ok()
        && CanonicalJson::of(&parsed).as_bytes() == index
}
