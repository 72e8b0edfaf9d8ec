//! `docker-archive`: what `docker save` writes and `docker load` reads, with uncompressed layers.
//!
//! `manifest.json`, the config and the layers (Docker image specification 1.2). The config is byte for byte the image's own, so
//! Docker shows the same image id. The `repositories` file is for Docker before 1.10 (2016) and is not written: it names layers by
//! ids that no longer exist.

use std::collections::BTreeSet;
use std::path::Path;

use super::copy::{LayerSource, copy_uncompressed};
use super::staging::StagedFile;
use super::tar::Archive;
use super::{Names, OutputError, Subject, io_error, only_image};
use crate::image::CanonicalJson;
use crate::image::json::{ToJson, Writer};

/// Writes an archive with the one image that `subject` has; a file that is there is replaced.
///
/// # Errors
/// The image has several platforms; a directory stands at `path`; a layer cannot be read, or does not decompress to its
/// diff id; the system refuses.
pub fn write_docker_archive(
    path: &Path,
    subject: Subject<'_>,
    names: &Names,
    layers: &dyn LayerSource,
    progress: &dyn Fn(u64),
) -> Result<(), OutputError> {
    let image = only_image(subject, "docker-archive")?;
    let mut staged = StagedFile::new(path)?;
    let failed = io_error("write", path);
    let mut archive = Archive::new(&mut staged.file, image.epoch);
    let config = format!("{}.json", image.config_digest().digest().to_hex());
    archive
        .file(&config, image.config.as_bytes())
        .map_err(&failed)?;
    let mut written = BTreeSet::new();
    for layer in &image.layers {
        if written.insert(layer.diff_id) {
            let name = layer_name(layer.diff_id.digest());
            archive.streamed(&name, path, |file| {
                copy_uncompressed(layers, layer, file, path, progress)
            })?;
        }
    }
    let manifest = CanonicalJson::of(&vec![DockerManifest {
        config,
        references: names.references(),
        layers: image
            .layers
            .iter()
            .map(|layer| layer_name(layer.diff_id.digest()))
            .collect(),
    }]);
    archive
        .file("manifest.json", manifest.as_bytes())
        .map_err(&failed)?;
    archive.finish().map_err(&failed)?;
    staged.publish()
}

fn layer_name(diff_id: &immbuild_cas::digest::Digest) -> String {
    format!("{}.tar", diff_id.to_hex())
}

struct DockerManifest {
    config: String,
    references: Vec<String>,
    layers: Vec<String>,
}

impl ToJson for DockerManifest {
    fn write(&self, out: &mut Writer) {
        out.object(|fields| {
            fields.field("Config", &self.config);
            fields.field("RepoTags", &self.references);
            fields.field("Layers", &self.layers);
        });
    }
}
