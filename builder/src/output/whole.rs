//! An image as it is, whoever made it, into a layout or an archive: no byte of it changes on the way.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use immbuild_cas::digest::{BlobId, Digest};
use immbuild_cas::store::{BlobSource, read_error};

use super::copy::{CopyError, copy};
use super::oci_layout::{is_layout_of_one_image, is_ours};
use super::staging::{StagedDirectory, StagedFile};
use super::tar::Archive;
use super::{LAYOUT_MARKER, Names, OutputError, io_error};
use crate::epoch::Epoch;
use crate::image::descriptor::Descriptor;

/// All that is written of an image.
#[derive(Clone, Copy, Debug)]
pub struct AsItIs<'a> {
    /// What names all of it.
    pub root: &'a Descriptor,
    /// Manifests and indexes, each once.
    pub documents: &'a [(Digest, &'a [u8])],
    /// Digests and sizes of configs and layers, each once.
    pub blobs: &'a [(Digest, u64)],
    /// What it is called.
    pub names: &'a Names,
}

/// Copies a blob to the end of `out`.
fn blob(
    source: &dyn BlobSource,
    (digest, size): (Digest, u64),
    out: &mut File,
    path: &Path,
    progress: &dyn Fn(u64),
) -> Result<(), OutputError> {
    let layer = |source| OutputError::Layer { digest, source };
    let reader = source.open(&BlobId::new(digest)).map_err(layer)?;
    // One byte more than there should be is enough to know that it is another.
    let copied = copy(&mut reader.take(size + 1), out, progress).map_err(|error| match error {
        CopyError::Read(error) => layer(read_error(&digest, error)),
        CopyError::Write(source) => io_error("write", path)(source),
    })?;
    if copied == size {
        return Ok(());
    }
    Err(OutputError::Size {
        digest,
        expected: size,
        actual: copied,
    })
}

/// Writes a layout with this image alone. What may be replaced is as for
/// [`write_oci_layout`](super::write_oci_layout).
///
/// # Errors
/// Anything else stands at `path`; a blob cannot be read or is not what its digest says; the system refuses.
pub fn write_layout_as_it_is(
    path: &Path,
    image: &AsItIs<'_>,
    source: &dyn BlobSource,
    progress: &dyn Fn(u64),
) -> Result<(), OutputError> {
    if !is_ours(path, &[])? && !is_layout_of_one_image(path) {
        return Err(OutputError::InTheWay {
            path: path.into(),
            what: "something that is no layout of a single image",
        });
    }
    let staged = StagedDirectory::new(path)?;
    let directory = staged.path.join("blobs/sha256");
    fs::create_dir_all(&directory).map_err(io_error("create", &directory))?;
    let write = |path: &Path, bytes: &[u8]| fs::write(path, bytes).map_err(io_error("write", path));
    for (digest, bytes) in image.documents {
        write(&directory.join(digest.to_hex()), bytes)?;
    }
    for part in image.blobs {
        let path = directory.join(part.0.to_hex());
        let mut file = File::create_new(&path).map_err(io_error("create", &path))?;
        blob(source, *part, &mut file, &path, progress)?;
    }
    let index = image.names.layout_index(image.root);
    write(&staged.path.join("index.json"), index.as_bytes())?;
    write(&staged.path.join("oci-layout"), LAYOUT_MARKER)?;
    staged.publish()
}

/// Writes an archive with this image alone; a file that is there is replaced. Its own bytes are a function of the image and its
/// names.
///
/// # Errors
/// As [`write_layout_as_it_is`].
pub fn write_archive_as_it_is(
    path: &Path,
    image: &AsItIs<'_>,
    source: &dyn BlobSource,
    progress: &dyn Fn(u64),
) -> Result<(), OutputError> {
    enum Member<'a> {
        Document(&'a [u8]),
        Blob(u64),
    }
    let documents = image.documents.iter();
    let mut members: Vec<(Digest, Member<'_>)> = documents
        .map(|(digest, bytes)| (*digest, Member::Document(bytes)))
        .chain(
            image
                .blobs
                .iter()
                .map(|(digest, size)| (*digest, Member::Blob(*size))),
        )
        .collect();
    members.sort_by_key(|(digest, _)| *digest);
    let mut staged = StagedFile::new(path)?;
    let failed = io_error("write", path);
    let mut archive = Archive::new(&mut staged.file, Epoch::DEFAULT);
    archive.directory("blobs/").map_err(&failed)?;
    archive.directory("blobs/sha256/").map_err(&failed)?;
    for (digest, member) in members {
        let name = format!("blobs/sha256/{}", digest.to_hex());
        match member {
            Member::Document(bytes) => archive.file(&name, bytes).map_err(&failed)?,
            Member::Blob(size) => archive.sized(&name, size, path, |file| {
                blob(source, (digest, size), file, path, progress)
            })?,
        }
    }
    let index = image.names.layout_index(image.root);
    archive
        .file("index.json", index.as_bytes())
        .map_err(&failed)?;
    archive.file("oci-layout", LAYOUT_MARKER).map_err(&failed)?;
    archive.finish().map_err(&failed)?;
    staged.publish()
}
