//! Descriptors: what points from one document to a blob (OCI image-spec, "OCI Content Descriptors").

use std::collections::BTreeMap;

use immbuild_cas::digest::Digest;

use super::json::{Fields, ToJson, Writer};
use crate::layer::{Compression, DiffId, LayerDigest, LayerInfo};
use crate::platform::Platform;

immbuild_cas::id! {
    /// Names the bytes of an image config.
    ConfigDigest;
    /// Names the bytes of an image manifest: an image for one platform.
    ManifestDigest;
    /// Names the bytes of an image index: an image for several platforms.
    IndexDigest;
}

/// `application/vnd.oci.image.index.v1+json`
pub const MEDIA_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// `application/vnd.oci.image.manifest.v1+json`
pub const MEDIA_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// `application/vnd.oci.image.config.v1+json`
pub const MEDIA_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// How a layer is compressed, as its media type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LayerMedia {
    /// `application/vnd.oci.image.layer.v1.tar`
    Tar,
    /// `application/vnd.oci.image.layer.v1.tar+gzip`
    Gzip,
    /// `application/vnd.oci.image.layer.v1.tar+zstd`
    Zstd,
}

impl LayerMedia {
    /// The OCI media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Tar => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    /// The layer that a media type speaks of: OCI's own, or Docker's name for the same bytes. Layers that may not be
    /// distributed (`nondistributable`, `foreign`) are none, as their bytes are not in the image.
    pub fn of_media_type(text: &str) -> Option<Self> {
        match text {
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar" => Some(Self::Tar),
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Some(Self::Gzip),
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Some(Self::Zstd),
            _ => None,
        }
    }
}

impl From<Compression> for LayerMedia {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::Zstd => Self::Zstd,
            Compression::Gzip => Self::Gzip,
            Compression::None => Self::Tar,
        }
    }
}

/// What points to a blob: its media type, digest and size, and in an index the platform and annotations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// What the blob is.
    pub media_type: String,
    /// Its bytes.
    pub digest: Digest,
    /// How many bytes.
    pub size: u64,
    /// Empty when there is none.
    pub annotations: BTreeMap<String, String>,
    /// In an index: what the image runs on.
    pub platform: Option<PlatformText>,
}

impl Descriptor {
    /// A descriptor without annotations and platform.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            annotations: BTreeMap::new(),
            platform: None,
        }
    }

    /// Is this entry of an index a statement about another (`BuildKit` puts them there) and no image?
    pub fn is_attestation(&self) -> bool {
        self.annotations.contains_key("vnd.docker.reference.type")
            || self
                .platform
                .as_ref()
                .is_some_and(|platform| platform.os == "unknown")
    }
}

/// Fields in the order `mediaType`, `digest`, `size`, `annotations`, `platform`; the last two when there are any.
impl ToJson for Descriptor {
    fn write(&self, out: &mut Writer) {
        out.object(|fields| {
            fields.field("mediaType", &self.media_type);
            fields.field("digest", &self.digest);
            fields.field("size", &self.size);
            fields.unless_empty("annotations", &self.annotations);
            fields.optional("platform", self.platform.as_ref());
        });
    }
}

/// A platform as a document spells it, which may be one that we do not know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlatformText {
    /// `linux`
    pub os: String,
    /// `amd64`
    pub architecture: String,
    /// `v7`, or empty.
    pub variant: String,
}

impl PlatformText {
    /// The known platform that this is.
    pub fn known(&self) -> Option<Platform> {
        self.to_string().parse().ok()
    }

    /// Writes `architecture`, `os` and, when there is one, `variant` into an object that is open.
    pub(super) fn write_fields(&self, fields: &mut Fields<'_>) {
        fields.field("architecture", &self.architecture);
        fields.field("os", &self.os);
        fields.unless_empty("variant", self.variant.as_str());
    }
}

impl From<Platform> for PlatformText {
    fn from(platform: Platform) -> Self {
        Self {
            os: platform.os().into(),
            architecture: platform.arch().into(),
            variant: platform.variant().into(),
        }
    }
}

/// `linux/amd64`, `linux/arm/v7`.
impl std::fmt::Display for PlatformText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

impl ToJson for PlatformText {
    fn write(&self, out: &mut Writer) {
        out.object(|fields| self.write_fields(fields));
    }
}

/// A layer of an image: both its digests, its size and its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLayer {
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// Digest of the bytes as they are shipped.
    pub digest: LayerDigest,
    /// How many bytes are shipped.
    pub size: u64,
    /// How they are compressed.
    pub media: LayerMedia,
}

impl ImageLayer {
    /// A layer that was written with this compression.
    pub fn own(info: &LayerInfo, compression: Compression) -> Self {
        Self {
            diff_id: info.diff_id,
            digest: info.digest,
            size: info.size,
            media: compression.into(),
        }
    }

    /// The descriptor that a manifest has for it.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(self.media.media_type(), *self.digest.digest(), self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_media_types_are_other_names_for_the_same_bytes() {
        for media in [LayerMedia::Tar, LayerMedia::Gzip, LayerMedia::Zstd] {
            assert_eq!(LayerMedia::of_media_type(media.media_type()), Some(media));
        }
        assert_eq!(
            LayerMedia::of_media_type("application/vnd.docker.image.rootfs.diff.tar.gzip"),
            Some(LayerMedia::Gzip)
        );
        assert_eq!(
            LayerMedia::of_media_type("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
            None
        );
    }

    #[test]
    fn arm64_with_and_without_variant_is_one_platform() {
        let text = |variant: &str| PlatformText {
            os: "linux".into(),
            architecture: "arm64".into(),
            variant: variant.into(),
        };
        assert_eq!(text("").known(), text("v8").known());
        assert!(text("").known().is_some());
        assert_eq!(text("v9").known(), None);
    }
}
