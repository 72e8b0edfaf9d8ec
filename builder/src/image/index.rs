//! The image index: an image for several platforms (OCI image-spec, "OCI Image Index Specification").

use std::collections::BTreeMap;

use super::descriptor::{Descriptor, MEDIA_INDEX};
use super::json::{ToJson, Writer};

/// Manifests, each for a platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Point to the manifests.
    pub manifests: Vec<Descriptor>,
    /// Empty when there are none.
    pub annotations: BTreeMap<String, String>,
}

/// Fields in the order `schemaVersion` (2), `mediaType`, `manifests`, `annotations`; the last when there are any.
impl ToJson for Index {
    fn write(&self, out: &mut Writer) {
        out.object(|fields| {
            fields.field("schemaVersion", &2_u64);
            fields.field("mediaType", MEDIA_INDEX);
            fields.field("manifests", &self.manifests);
            fields.unless_empty("annotations", &self.annotations);
        });
    }
}
