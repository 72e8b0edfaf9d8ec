//! An artifact: a manifest that is no image (OCI image-spec, "Guidelines for Artifact Usage").

use std::collections::BTreeMap;

use super::descriptor::{Descriptor, MEDIA_MANIFEST};
use super::json::{ToJson, Writer};

/// The config of what has none (OCI image-spec, "Guidance for an Empty Descriptor").
pub const EMPTY_MEDIA: &str = "application/vnd.oci.empty.v1+json";
/// Its bytes.
pub const EMPTY: &[u8] = b"{}";
/// What a file of an artifact is called.
pub const TITLE: &str = "org.opencontainers.image.title";

/// Files under one digest, as a rule about an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// What it is.
    pub artifact_type: String,
    /// As a rule the empty one.
    pub config: Descriptor,
    /// Its files.
    pub layers: Vec<Descriptor>,
    /// The manifest it is about.
    pub subject: Option<Descriptor>,
    /// Empty when there are none.
    pub annotations: BTreeMap<String, String>,
}

/// Fields in the order `schemaVersion` (2), `mediaType`, `artifactType`, `config`, `layers`, `subject`, `annotations`; the last two
/// when there are any.
impl ToJson for Artifact {
    fn write(&self, out: &mut Writer) {
        out.object(|fields| {
            fields.field("schemaVersion", &2_u64);
            fields.field("mediaType", MEDIA_MANIFEST);
            fields.field("artifactType", &self.artifact_type);
            fields.field("config", &self.config);
            fields.field("layers", &self.layers);
            fields.optional("subject", self.subject.as_ref());
            fields.unless_empty("annotations", &self.annotations);
        });
    }
}

/// What points to an artifact that is about an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrer {
    /// The artifact's manifest.
    pub descriptor: Descriptor,
    /// What it is; empty where nobody says so.
    pub artifact_type: String,
}
