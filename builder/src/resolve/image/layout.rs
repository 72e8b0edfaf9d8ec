//! OCI layouts, as a directory and in a tar.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use immbuild_cas::digest::Digest;

use super::archive::Archive;
use super::{ExtentReader, LocalImage, LocalImageError, Parts, Root, open_regular};
use crate::image::descriptor::Descriptor;
use crate::image::json::MAX_JSON;
use crate::image::read::{self, Document, ReadError};

/// Reads the table of contents of a layout in a directory.
pub(super) fn open(path: &Path) -> Result<LocalImage, LocalImageError> {
    let small = |name: &'static str| {
        let file = path.join(name);
        let opened = open_regular(&file).and_then(|reader| {
            let size = reader.metadata()?.len();
            Ok((reader, size))
        });
        match opened {
            Ok((mut reader, size)) => bounded(path, name, size, &mut reader),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(LocalImageError::Unknown {
                    path: path.into(),
                    reason: "the directory lacks `oci-layout` or `index.json`",
                })
            }
            Err(source) => Err(LocalImageError::Io { path: file, source }),
        }
    };
    Ok(LocalImage {
        path: path.into(),
        roots: roots(path, &small("oci-layout")?, &small("index.json")?)?,
        parts: Parts::Layout(path.join("blobs/sha256")),
    })
}

/// Reads the table of contents of a layout in a tar.
pub(super) fn open_archive(
    path: &Path,
    file: File,
    archive: &Archive,
) -> Result<LocalImage, LocalImageError> {
    let small = |name: &'static str| {
        let extent = archive.get(name).ok_or_else(|| LocalImageError::Unknown {
            path: path.into(),
            reason: "the tar has `oci-layout` and no `index.json` in it",
        })?;
        bounded(
            path,
            name,
            extent.size,
            &mut ExtentReader::new(&file, extent),
        )
    };
    let roots = roots(path, &small("oci-layout")?, &small("index.json")?)?;
    let extents = archive
        .below("blobs/sha256/")
        .filter_map(|(name, extent)| Some((Digest::from_hex(name).ok()?, extent)))
        .collect();
    Ok(LocalImage {
        path: path.into(),
        roots,
        parts: Parts::Archive {
            file,
            extents,
            made: BTreeMap::new(),
        },
    })
}

/// All of a small document.
pub(super) fn bounded(
    path: &Path,
    name: &str,
    size: u64,
    reader: &mut dyn Read,
) -> Result<Vec<u8>, LocalImageError> {
    if size > MAX_JSON {
        return Err(LocalImageError::Document {
            path: path.into(),
            source: ReadError::Size {
                document: name.into(),
                size,
            },
        });
    }
    let mut bytes = Vec::new();
    reader
        .take(MAX_JSON)
        .read_to_end(&mut bytes)
        .map_err(|source| LocalImageError::Io {
            path: path.join(name),
            source,
        })?;
    Ok(bytes)
}

fn roots(path: &Path, marker: &[u8], index: &[u8]) -> Result<Vec<Root>, LocalImageError> {
    let document = |source| LocalImageError::Document {
        path: path.into(),
        source,
    };
    read::layout_marker(marker, "oci-layout").map_err(document)?;
    let Document::Index(index) = read::document(index, "index.json").map_err(document)? else {
        return Err(LocalImageError::Unknown {
            path: path.into(),
            reason: "its `index.json` is a manifest",
        });
    };
    Ok(index
        .manifests
        .into_iter()
        .filter(|entry| !entry.is_attestation())
        .filter(|entry| read::is_index(&entry.media_type) || read::is_manifest(&entry.media_type))
        .map(|descriptor| Root {
            tags: tags(&descriptor),
            descriptor,
        })
        .collect())
}

/// The tag, and the full name that containerd adds.
fn tags(descriptor: &Descriptor) -> BTreeSet<String> {
    [
        "org.opencontainers.image.ref.name",
        "io.containerd.image.name",
    ]
    .iter()
    .filter_map(|key| descriptor.annotations.get(*key).cloned())
    .collect()
}
