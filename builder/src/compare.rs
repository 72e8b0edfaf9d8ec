//! What differs between two images: the level, the paths, the attributes, and what the content gives away. Data only.
//!
//! Pure: reads by digest. Must never know where the images came from or how a difference is shown.

mod hints;
mod trees;

pub use hints::{Hint, hints};
pub use trees::{AttributeDifference, PathChange, PathDifference, TreeSide, compare_trees};

use std::collections::{BTreeMap, BTreeSet};

use immbuild_cas::store::StoreError;

use crate::image::json::Json;
use crate::image::{BaseImage, CanonicalJson, Index};

/// How much two images are the same. The order is from most to least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Every byte.
    Identical,
    /// All but the compression of layers.
    DiffIdIdentical,
    /// All but the tar form of layers.
    TreeIdentical,
    /// Less.
    Different,
}

impl Verdict {
    /// `bit-identical`, `diff-id-identical`, `tree-identical` or `different`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Identical => "bit-identical",
            Self::DiffIdIdentical => "diff-id-identical",
            Self::TreeIdentical => "tree-identical",
            Self::Different => "different",
        }
    }
}

/// Where a difference is, from the outside in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// In the index itself: annotations, platforms.
    Index,
    /// In the manifest itself: annotations, the number of layers.
    Manifest,
    /// In the config, other than its diff ids.
    Config,
    /// In a layer's compression or tar form.
    Layer,
    /// In what the layers unpack to.
    Tree,
}

impl Level {
    /// `index`, `manifest`, `config`, `layer` or `tree`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Manifest => "manifest",
            Self::Config => "config",
            Self::Layer => "layer",
            Self::Tree => "tree",
        }
    }
}

/// A field of a document with two values. A digest or size that differs because of what it points to is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldDifference {
    /// Which document.
    pub level: Level,
    /// The way to the field: `config.Labels.version`.
    pub field: String,
    /// Its value on the left, as JSON; nothing where it is absent.
    pub left: Option<String>,
    /// Its value on the right.
    pub right: Option<String>,
}

/// A layer that is not the same bytes on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerDifference {
    /// Which, counted from 0, the lowest.
    pub number: usize,
    /// Do both decompress to the same bytes?
    pub same_diff_id: bool,
}

/// All differences of two images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// How much they are the same.
    pub verdict: Verdict,
    /// Fields of documents, outermost document first.
    pub fields: Vec<FieldDifference>,
    /// Layers, lowest first. Empty when their number differs.
    pub layers: Vec<LayerDifference>,
    /// Paths of the trees, in their order.
    pub paths: Vec<PathDifference>,
}

impl Comparison {
    /// The outermost level with a difference of its own, if there is one.
    pub fn level(&self) -> Option<Level> {
        let field = self.fields.first().map(|field| field.level);
        let layer = (!self.layers.is_empty()).then_some(Level::Layer);
        let path = (!self.paths.is_empty()).then_some(Level::Tree);
        field.or(layer).or(path)
    }
}

/// An image and its tree.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// What its documents say.
    pub image: &'a BaseImage,
    /// The manifest's annotations.
    pub annotations: &'a BTreeMap<String, String>,
    /// What its layers unpack to.
    pub tree: TreeSide<'a>,
}

impl std::fmt::Debug for Side<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Side")
            .field("image", &self.image.manifest)
            .finish_non_exhaustive()
    }
}

/// Compares two images for one platform.
///
/// # Errors
/// A directory or file that differs cannot be read.
pub fn compare_images(left: &Side<'_>, right: &Side<'_>) -> Result<Comparison, StoreError> {
    let mut comparison = Comparison {
        verdict: Verdict::Identical,
        fields: Vec::new(),
        layers: Vec::new(),
        paths: Vec::new(),
    };
    if left.image.manifest == right.image.manifest {
        return Ok(comparison);
    }
    differ(
        Level::Manifest,
        &manifest_json(left),
        &manifest_json(right),
        &mut comparison.fields,
    );
    differ(
        Level::Config,
        &config_json(left.image),
        &config_json(right.image),
        &mut comparison.fields,
    );
    let layers = (&left.image.layers, &right.image.layers);
    if layers.0.len() == layers.1.len() {
        let pairs = layers.0.iter().zip(layers.1).enumerate();
        comparison.layers = pairs
            .filter(|(_, (left, right))| left != right)
            .map(|(number, (left, right))| LayerDifference {
                number,
                same_diff_id: left.diff_id == right.diff_id,
            })
            .collect();
    }
    comparison.paths = compare_trees(&left.tree, &right.tree)?;
    comparison.verdict = if !comparison.fields.is_empty() || !comparison.paths.is_empty() {
        Verdict::Different
    } else if comparison.layers.iter().all(|layer| layer.same_diff_id) {
        // Also when only the JSON form of equal documents differs.
        Verdict::DiffIdIdentical
    } else {
        Verdict::TreeIdentical
    };
    Ok(comparison)
}

/// Compares what two indexes say themselves: their annotations, and which platforms they have.
pub fn compare_indexes(left: &Index, right: &Index) -> Vec<FieldDifference> {
    let json = |index: &Index| {
        let platforms = index.manifests.iter().map(|entry| {
            let platform = entry.platform.as_ref().map(ToString::to_string);
            Json::String(platform.unwrap_or_else(|| "no platform".into()))
        });
        Json::Object(BTreeMap::from([
            ("annotations".into(), strings(&index.annotations)),
            ("platforms".into(), Json::Array(platforms.collect())),
        ]))
    };
    let mut fields = Vec::new();
    differ(Level::Index, &json(left), &json(right), &mut fields);
    fields
}

fn strings(map: &BTreeMap<String, String>) -> Json {
    Json::Object(
        map.iter()
            .map(|(name, value)| (name.clone(), Json::String(value.clone())))
            .collect(),
    )
}

/// What a manifest says itself.
fn manifest_json(side: &Side<'_>) -> Json {
    Json::Object(BTreeMap::from([
        ("annotations".into(), strings(side.annotations)),
        (
            "number of layers".into(),
            Json::Integer(side.image.layers.len() as u64),
        ),
    ]))
}

/// What a config says itself.
fn config_json(image: &BaseImage) -> Json {
    let mut config = image.config.clone();
    config.diff_ids.clear();
    Json::parse(CanonicalJson::of(&config).as_bytes()).expect("we read what we write")
}

/// Lists where two values differ. Objects are compared by key; everything else whole, as a list that moved by one is not many
/// differences.
fn differ(level: Level, left: &Json, right: &Json, fields: &mut Vec<FieldDifference>) {
    differ_at(level, String::new(), Some(left), Some(right), fields);
}

fn differ_at(
    level: Level,
    field: String,
    left: Option<&Json>,
    right: Option<&Json>,
    fields: &mut Vec<FieldDifference>,
) {
    match (left, right) {
        (left, right) if left == right => (),
        (Some(Json::Object(left)), Some(Json::Object(right))) => {
            let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            for key in keys {
                let field = match field.as_str() {
                    "" => key.clone(),
                    above => format!("{above}.{key}"),
                };
                differ_at(level, field, left.get(key), right.get(key), fields);
            }
        }
        (left, right) => fields.push(FieldDifference {
            level,
            field,
            left: left.map(Json::to_string),
            right: right.map(Json::to_string),
        }),
    }
}
