//! Puts an image together: a base, own layers and what the spec says become a config, a manifest and an index.

use std::collections::BTreeMap;

use super::base::BaseImage;
use super::config::{ConfigChanges, ContainerConfig, History, ImageConfig};
use super::descriptor::{
    ConfigDigest, Descriptor, ImageLayer, IndexDigest, MEDIA_CONFIG, MEDIA_INDEX, MEDIA_MANIFEST,
    ManifestDigest,
};
use super::index::Index;
use super::json::CanonicalJson;
use super::manifest::Manifest;
use crate::epoch::Epoch;
use crate::platform::Platform;

/// One step's part of an image: a line of history, and a layer unless the step changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnLayer {
    /// The step, as `history` shows it.
    pub created_by: String,
    /// What it changed.
    pub layer: Option<ImageLayer>,
}

/// All that decides a manifest.
#[derive(Clone, Debug)]
pub struct ImageSpec<'a> {
    /// What it stands on.
    pub base: Option<&'a BaseImage>,
    /// What is added, lowest first.
    pub own: &'a [OwnLayer],
    /// What the spec says about the container.
    pub changes: &'a ConfigChanges,
    /// Annotations of the manifest. A base's own annotations speak of the base and are not inherited.
    pub annotations: &'a BTreeMap<String, String>,
    /// What it runs on.
    pub platform: Platform,
    /// The one time in it.
    pub epoch: Epoch,
}

/// An image for one platform, ready to be written somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The config's bytes.
    pub config: CanonicalJson,
    /// The manifest's bytes.
    pub manifest: CanonicalJson,
    /// The layers, lowest first.
    pub layers: Vec<ImageLayer>,
    /// What it runs on.
    pub platform: Platform,
    /// The one time in it.
    pub epoch: Epoch,
}

impl Image {
    /// Digest of the manifest: the image's name for one platform.
    pub fn manifest_digest(&self) -> ManifestDigest {
        ManifestDigest::new(self.manifest.digest())
    }

    /// Digest of the config: Docker's image id.
    pub fn config_digest(&self) -> ConfigDigest {
        ConfigDigest::new(self.config.digest())
    }

    /// The descriptor that an index has for it.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor {
            platform: Some(self.platform.into()),
            ..Descriptor::new(MEDIA_MANIFEST, self.manifest.digest(), self.manifest.size())
        }
    }
}

/// An image for several platforms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageIndex {
    /// The index's bytes.
    pub index: CanonicalJson,
    /// Its images in the order of their platforms' names.
    pub images: Vec<Image>,
}

impl ImageIndex {
    /// Digest of the index: the image's name.
    pub fn digest(&self) -> IndexDigest {
        IndexDigest::new(self.index.digest())
    }

    /// What a layout's `index.json` has for it.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(MEDIA_INDEX, self.index.digest(), self.index.size())
    }
}

/// Puts an image together.
///
/// `created` is the epoch everywhere but in lines of history that came with the base. Base layers keep digest and size; only
/// Docker's media types are written as OCI's. The base's history stays as it was while it says one line for each of its layers;
/// where it does not (some tools write none), one line per layer stands for it, so that tools can tell which line is whose.
pub fn assemble(spec: &ImageSpec<'_>) -> Image {
    let created = spec.epoch.to_string();
    let (inherited, base_layers, mut history) = match spec.base {
        None => (ContainerConfig::default(), &[][..], Vec::new()),
        Some(base) => (
            base.config.config.clone(),
            &base.layers[..],
            base_history(base, &created),
        ),
    };
    history.extend(spec.own.iter().map(|own| History {
        created: Some(created.clone()),
        created_by: Some(own.created_by.clone()),
        empty_layer: own.layer.is_none(),
        ..History::default()
    }));
    let layers: Vec<ImageLayer> = base_layers
        .iter()
        .copied()
        .chain(spec.own.iter().filter_map(|own| own.layer))
        .collect();
    let config = CanonicalJson::of(&ImageConfig {
        created: Some(created),
        platform: spec.platform.into(),
        config: spec.changes.apply(inherited),
        diff_ids: layers.iter().map(|layer| *layer.diff_id.digest()).collect(),
        history,
    });
    let manifest = CanonicalJson::of(&Manifest {
        config: Descriptor::new(MEDIA_CONFIG, config.digest(), config.size()),
        layers: layers.iter().map(ImageLayer::descriptor).collect(),
        annotations: spec.annotations.clone(),
    });
    Image {
        config,
        manifest,
        layers,
        platform: spec.platform,
        epoch: spec.epoch,
    }
}

fn base_history(base: &BaseImage, created: &str) -> Vec<History> {
    let lines = &base.config.history;
    let with_layer = lines.iter().filter(|line| !line.empty_layer).count();
    if with_layer == base.layers.len() {
        return lines.clone();
    }
    let line = History {
        created: Some(created.into()),
        comment: Some(format!("layer of base image {}", base.manifest)),
        ..History::default()
    };
    vec![line; base.layers.len()]
}

/// Puts images for several platforms under one index, whatever order they come in.
///
/// The spec's annotations stand on the index as on each manifest: registries that show a description look at what the tag
/// points to.
pub fn assemble_index(
    mut images: Vec<Image>,
    annotations: &BTreeMap<String, String>,
) -> ImageIndex {
    images.sort_by_key(|image| image.platform);
    let index = CanonicalJson::of(&Index {
        manifests: images.iter().map(Image::descriptor).collect(),
        annotations: annotations.clone(),
    });
    ImageIndex { index, images }
}
