//! Docker archives: what `docker save` before version 25, kaniko, Bazel and others write.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use immbuild_cas::digest::{Digest, HashingReader};

use super::archive::Archive;
use super::layout::bounded;
use super::{Extent, ExtentReader, LocalImage, LocalImageError, Parts, Root};
use crate::image::CanonicalJson;
use crate::image::descriptor::{Descriptor, LayerMedia, MEDIA_CONFIG, MEDIA_MANIFEST};
use crate::image::manifest::Manifest;
use crate::image::read::{self, DockerImage};
use crate::layer::Encoding;

/// Reads `manifest.json` and makes a manifest for each image in it.
pub(super) fn open(
    path: &Path,
    file: File,
    archive: &Archive,
) -> Result<LocalImage, LocalImageError> {
    let mut reader = Members {
        path,
        file: &file,
        archive,
        extents: BTreeMap::new(),
    };
    let document = |source| LocalImageError::Document {
        path: path.into(),
        source,
    };
    let bytes = reader.small("manifest.json")?;
    let images = read::docker_manifest(&bytes, "manifest.json").map_err(document)?;
    let mut made = BTreeMap::new();
    let mut roots = Vec::new();
    for image in images {
        let manifest = reader.manifest(&image)?;
        roots.push(Root {
            descriptor: Descriptor::new(MEDIA_MANIFEST, manifest.digest(), manifest.size()),
            tags: image.tags.into_iter().collect(),
        });
        made.insert(manifest.digest(), manifest.as_bytes().to_vec());
    }
    let extents = reader.extents;
    Ok(LocalImage {
        path: path.into(),
        roots,
        parts: Parts::Archive {
            file,
            extents,
            made,
        },
    })
}

struct Members<'a> {
    path: &'a Path,
    file: &'a File,
    archive: &'a Archive,
    extents: BTreeMap<Digest, Extent>,
}

impl Members<'_> {
    fn extent(&self, name: &str) -> Result<Extent, LocalImageError> {
        self.archive
            .get(name)
            .ok_or_else(|| LocalImageError::NoMember {
                path: self.path.into(),
                member: name.into(),
            })
    }

    fn small(&self, name: &str) -> Result<Vec<u8>, LocalImageError> {
        let extent = self.extent(name)?;
        bounded(
            self.path,
            name,
            extent.size,
            &mut ExtentReader::new(self.file, extent),
        )
    }

    fn manifest(&mut self, image: &DockerImage) -> Result<CanonicalJson, LocalImageError> {
        let config_bytes = self.small(&image.config)?;
        let config = Digest::of(&config_bytes);
        self.extents.insert(config, self.extent(&image.config)?);
        let (parsed, _) = read::config(&config_bytes, &image.config).map_err(|source| {
            LocalImageError::Document {
                path: self.path.into(),
                source,
            }
        })?;
        let mut layers = Vec::with_capacity(image.layers.len());
        for (at, name) in image.layers.iter().enumerate() {
            layers.push(self.layer(name, parsed.diff_ids.get(at))?);
        }
        Ok(CanonicalJson::of(&Manifest {
            config: Descriptor::new(MEDIA_CONFIG, config, config_bytes.len() as u64),
            layers,
            annotations: BTreeMap::new(),
        }))
    }

    /// A plain layer's digest is its diff id, which the config says and which is checked when the layer is read. A compressed one
    /// is read here to know its digest.
    fn layer(
        &mut self,
        name: &str,
        diff_id: Option<&Digest>,
    ) -> Result<Descriptor, LocalImageError> {
        let extent = self.extent(name)?;
        let io = |source| LocalImageError::Io {
            path: self.path.into(),
            source,
        };
        let mut start = [0; 4];
        let most = usize::try_from(extent.size.min(4)).expect("at most four");
        io::Read::read_exact(
            &mut ExtentReader::new(self.file, extent),
            &mut start[..most],
        )
        .map_err(io)?;
        let media = match Encoding::of(&start) {
            Encoding::Plain => LayerMedia::Tar,
            Encoding::Gzip => LayerMedia::Gzip,
            Encoding::Zstd => LayerMedia::Zstd,
        };
        let digest = if let (LayerMedia::Tar, Some(diff_id)) = (media, diff_id) {
            *diff_id
        } else {
            let mut reader = HashingReader::new(ExtentReader::new(self.file, extent));
            io::copy(&mut reader, &mut io::sink()).map_err(io)?;
            reader.finish().0
        };
        self.extents.insert(digest, extent);
        Ok(Descriptor::new(media.media_type(), digest, extent.size))
    }
}
