//! `immbuild compare A B`: where two images, or two directories, begin to differ, and in what.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::Path;

use immbuild_cas::store::LocalStore;
use immbuild_cas::tree::{Meta, Mode, Tree, TreeBuilder};

use super::failure::{Exit, Failure};
use super::locate::{Documents, ImageAt, ImageDocuments, Located};
use super::realise::IMAGE_MAX;
use super::scratch::ScratchPlace;
use super::session::Session;
use crate::compare::{
    AttributeDifference, Comparison, FieldDifference, Level, PathChange, Side, TreeSide, Verdict,
    compare_images, compare_indexes, compare_trees,
};
use crate::diag::Diagnostic;
use crate::hostfs::scan::ingest_directory;
use crate::image::Index;
use crate::image::descriptor::{Descriptor, MEDIA_MANIFEST, PlatformText};
use crate::resolve::image::import_base;

/// All differences of two images, each for any number of platforms, or of two trees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// How much they are the same.
    pub verdict: Verdict,
    /// What the indexes say differently.
    pub index: Vec<FieldDifference>,
    /// What differs for each platform that both have; of trees, for none in particular.
    pub platforms: Vec<ComparedPlatform>,
    /// Owners were not compared: a directory of somebody who is not root can have no others.
    pub without_owners: bool,
}

/// All differences for one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComparedPlatform {
    /// Which. Trees have none.
    pub platform: Option<PlatformText>,
    /// What differs.
    pub comparison: Comparison,
    /// For each layer of the image on the left, the step that its history names.
    pub steps: Vec<Option<String>>,
}

impl Compared {
    /// The verdict in a word. Trees have no bits that could be compared, only entries.
    pub fn word(&self) -> &'static str {
        let is_trees = self.platforms.iter().any(|one| one.platform.is_none());
        match self.verdict {
            Verdict::Identical if is_trees => "identical",
            verdict => verdict.as_str(),
        }
    }

    /// The outermost level with a difference, if there is one.
    pub fn level(&self) -> Option<Level> {
        let index = self.index.first().map(|field| field.level);
        let inner = self
            .platforms
            .iter()
            .filter_map(|one| one.comparison.level());
        index.or(inner.min())
    }
}

/// Compares what was named on the left and on the right.
///
/// # Errors
/// One of the two cannot be read, or an image for several platforms meets a directory.
pub fn compare(
    session: &Session<'_>,
    left: &Located<'_>,
    right: &Located<'_>,
) -> Result<Compared, Failure> {
    match (left, right) {
        (Located::Image(left), Located::Image(right)) => images(session, left, right),
        _ => trees(session, left, right),
    }
}

/// Compares two images, platform by platform. Layers are unpacked only where they differ.
pub fn images(
    session: &Session<'_>,
    left: &ImageAt<'_>,
    right: &ImageAt<'_>,
) -> Result<Compared, Failure> {
    let (left_documents, right_documents) = (left.documents()?, right.documents()?);
    let digests = (left_documents.digest(), right_documents.digest());
    let mut compared = Compared {
        verdict: Verdict::Identical,
        index: Vec::new(),
        platforms: Vec::new(),
        without_owners: false,
    };
    if digests.0.is_some() && digests.0 == digests.1 {
        return Ok(compared);
    }
    compared.index = index_differences(&left_documents, &right_documents);
    for (left_image, right_image) in pairs(&left_documents.images, &right_documents.images) {
        compared.platforms.push(ComparedPlatform {
            platform: Some(left_image.platform.clone()),
            comparison: one_platform(session, (left, left_image), (right, right_image))?,
            steps: steps(left_image),
        });
    }
    compared.verdict = if compared.index.is_empty() {
        // Equal images below indexes that differ in nothing they say: the same in another JSON text.
        let texts_differ = digests.0.is_some() && digests.1.is_some();
        let least = if texts_differ {
            Verdict::DiffIdIdentical
        } else {
            Verdict::Identical
        };
        compared
            .platforms
            .iter()
            .map(|one| one.comparison.verdict)
            .fold(least, Verdict::max)
    } else {
        Verdict::Different
    };
    Ok(compared)
}

/// What the indexes say differently. Two images for one platform each need none.
fn index_differences(left: &Documents, right: &Documents) -> Vec<FieldDifference> {
    let is_one = |documents: &Documents| documents.index.is_none() && documents.images.len() == 1;
    if is_one(left) && is_one(right) {
        return Vec::new();
    }
    let mut differences = Vec::new();
    if left.index.is_some() != right.index.is_some() {
        let kind = |documents: &Documents| {
            let kind = if documents.index.is_some() {
                "an index"
            } else {
                "no index"
            };
            Some(kind.to_owned())
        };
        differences.push(FieldDifference {
            level: Level::Index,
            field: "document".into(),
            left: kind(left),
            right: kind(right),
        });
    }
    differences.extend(compare_indexes(&as_index(left), &as_index(right)));
    // An index may say other platforms than the configs do: what has no partner is never passed over.
    let platforms = |documents: &Documents| {
        let all: Vec<String> = documents
            .images
            .iter()
            .map(|one| one.platform.to_string())
            .collect();
        Some(all.join(", "))
    };
    if differences.is_empty() && platforms(left) != platforms(right) {
        differences.push(FieldDifference {
            level: Level::Index,
            field: "platforms in configs".into(),
            left: platforms(left),
            right: platforms(right),
        });
    }
    differences
}

/// What made each layer, as far as the history says. A history of other lines than one per layer says nothing.
fn steps(one: &ImageDocuments) -> Vec<Option<String>> {
    let history = one.image.config.history.iter();
    let steps: Vec<Option<String>> = history
        .filter(|line| !line.empty_layer)
        .map(|line| line.created_by.clone())
        .collect();
    if steps.len() == one.image.layers.len() {
        steps
    } else {
        vec![None; one.image.layers.len()]
    }
}

/// The index, or the one that would say the same.
fn as_index(documents: &Documents) -> Index {
    match &documents.index {
        Some((_, index)) => index.clone(),
        None => Index {
            manifests: documents
                .images
                .iter()
                .map(|one| Descriptor {
                    platform: Some(one.platform.clone()),
                    ..Descriptor::new(MEDIA_MANIFEST, *one.image.manifest.digest(), 0)
                })
                .collect(),
            annotations: BTreeMap::new(),
        },
    }
}

/// Images of the same platform. Two single images are a pair whatever they are for.
fn pairs<'a>(
    left: &'a [ImageDocuments],
    right: &'a [ImageDocuments],
) -> Vec<(&'a ImageDocuments, &'a ImageDocuments)> {
    if let ([left], [right]) = (left, right) {
        return vec![(left, right)];
    }
    let mut pairs = Vec::new();
    // Both are sorted by platform.
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        match a.platform.cmp(&b.platform) {
            Ordering::Less => drop(left.next()),
            Ordering::Greater => drop(right.next()),
            Ordering::Equal => pairs.extend(left.next().zip(right.next())),
        }
    }
    pairs
}

type OneImage<'a> = (&'a ImageAt<'a>, &'a ImageDocuments);

fn one_platform(
    session: &Session<'_>,
    left: OneImage<'_>,
    right: OneImage<'_>,
) -> Result<Comparison, Failure> {
    let place = ScratchPlace::new(session, "compare")?;
    let store = place.open()?;
    let diff_ids = |one: &ImageDocuments| one.image.config.diff_ids.clone();
    // Layers that are the same bytes unpack to the same tree, so any tree will do on both sides.
    let is_one_tree = diff_ids(left.1) == diff_ids(right.1);
    let tree = |(at, documents): OneImage<'_>| {
        if is_one_tree {
            empty(&store)
        } else {
            unpack(at, documents, &store)
        }
    };
    let trees = (tree(left)?, tree(right)?);
    let (left, right) = (
        side(left.1, &trees.0, &store),
        side(right.1, &trees.1, &store),
    );
    Ok(compare_images(&left, &right)?)
}

fn side<'a>(documents: &'a ImageDocuments, tree: &'a Tree, store: &'a LocalStore) -> Side<'a> {
    Side {
        image: &documents.image,
        annotations: &documents.manifest.annotations,
        tree: side_of(tree, store),
    }
}

fn side_of<'a>(tree: &'a Tree, store: &'a LocalStore) -> TreeSide<'a> {
    TreeSide {
        tree,
        directories: store,
        blobs: store,
    }
}

fn empty(store: &LocalStore) -> Result<Tree, Failure> {
    Ok(TreeBuilder::new(store, Meta::root(Mode::DIRECTORY)).seal(store)?)
}

/// What an image's layers are together.
pub fn unpack(
    at: &ImageAt<'_>,
    documents: &ImageDocuments,
    store: &LocalStore,
) -> Result<Tree, Failure> {
    Ok(import_base(&documents.image, at, store, IMAGE_MAX)?.tree)
}

/// Compares two trees, at least one of which is a directory.
fn trees(
    session: &Session<'_>,
    left: &Located<'_>,
    right: &Located<'_>,
) -> Result<Compared, Failure> {
    let place = ScratchPlace::new(session, "compare")?;
    let store = place.open()?;
    let tree = |side: &Located<'_>| match side {
        Located::Directory(path) => directory(session, path, &store),
        Located::Image(at) => match at.documents()?.images.as_slice() {
            [one] => unpack(at, one, &store),
            several => {
                let platforms: Vec<String> =
                    several.iter().map(|one| one.platform.to_string()).collect();
                Err(Failure::new(
                    Exit::Usage,
                    Diagnostic::error(format!(
                        "`{}` is for several platforms, and a directory is for one",
                        at.name
                    ))
                    .because(format!("it is for {}", platforms.join(", "))),
                )
                .hint("name one of its manifests by digest: `immbuild inspect` lists them"))
            }
        },
    };
    let (left_tree, right_tree) = (tree(left)?, tree(right)?);
    let mut paths = compare_trees(&side_of(&left_tree, &store), &side_of(&right_tree, &store))?;
    let without_owners = !rustix::process::geteuid().is_root();
    if without_owners {
        for difference in &mut paths {
            if let PathChange::Attributes(attributes) = &mut difference.change {
                attributes.retain(|one| !matches!(one, AttributeDifference::Owner { .. }));
            }
        }
        paths.retain(|path| path.change != PathChange::Attributes(Vec::new()));
    }
    let verdict = if paths.is_empty() {
        Verdict::Identical
    } else {
        Verdict::Different
    };
    let comparison = Comparison {
        verdict,
        fields: Vec::new(),
        layers: Vec::new(),
        paths,
    };
    Ok(Compared {
        verdict,
        index: Vec::new(),
        platforms: vec![ComparedPlatform {
            platform: None,
            comparison,
            steps: Vec::new(),
        }],
        without_owners,
    })
}

fn directory(session: &Session<'_>, path: &Path, store: &LocalStore) -> Result<Tree, Failure> {
    let scanned = ingest_directory(path, store, session.settings.threads)?;
    for (path, name) in &scanned.dropped {
        session.events.event(crate::ports::Event::Warning {
            text: format!(
                "`{path}`: attribute `{}` is no part of an image and was not compared",
                String::from_utf8_lossy(name)
            ),
            hint: None,
        });
    }
    Ok(scanned.tree)
}
