//! The image manifest: an image for one platform (OCI image-spec, "OCI Image Manifest Specification").

use std::collections::BTreeMap;

use super::descriptor::{Descriptor, MEDIA_MANIFEST};
use super::json::{ToJson, Writer};

/// A config and layers, lowest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Points to the config.
    pub config: Descriptor,
    /// Point to the layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// Empty when there are none.
    pub annotations: BTreeMap<String, String>,
}

/// Fields in the order `schemaVersion` (2), `mediaType`, `config`, `layers`, `annotations`; the last when there are any.
impl ToJson for Manifest {
    fn write(&self, out: &mut Writer) {
        out.object(|fields| {
            fields.field("schemaVersion", &2_u64);
            fields.field("mediaType", MEDIA_MANIFEST);
            fields.field("config", &self.config);
            fields.field("layers", &self.layers);
            fields.unless_empty("annotations", &self.annotations);
        });
    }
}
