//! What the store remembers of a build besides its results: which image a spec gave last, and of which ops images were
//! made, so that a later build can say what is another.

use std::collections::BTreeMap;

use immbuild_cas::canonical::{Canonical, DecodeError, Decoder, Encoder};
use immbuild_cas::digest::{BlobId, Digest, TreeId};
use immbuild_cas::store::{BlobSource as _, Record, Store as _};

use super::failure::Failure;
use super::session::Session;
use crate::epoch::Epoch;
use crate::graph::op::OpId;
use crate::image::descriptor::Descriptor;
use crate::image::{BaseImage, ImageId, ManifestDigest};
use crate::platform::Platform;
use crate::ports::Realised;
use crate::spec::model::Ident;

/// An image as a build left it in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// Digest of the index, or of the manifest for one platform.
    pub digest: Digest,
    /// Is it an index?
    pub index: bool,
    /// Its images, in the order of their platforms.
    pub images: Vec<BuiltImage>,
    /// The name it is given by `load`.
    pub name: Option<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// The one time in it.
    pub epoch: Epoch,
    /// Its ops by label, in the order of the graph.
    pub ops: Vec<(String, OpId)>,
}

/// One platform's image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltImage {
    /// What it runs on.
    pub platform: Platform,
    /// Digest of its manifest.
    pub manifest: Digest,
    /// Its root.
    pub tree: TreeId,
}

impl Canonical for Built {
    const TAG: &'static str = "built";
    const VERSION: u32 = 1;

    fn encode_fields(&self, out: &mut Encoder) {
        out.digest(&self.digest);
        out.bool(self.index);
        out.sequence(self.images.iter(), |out, image| {
            out.str(&image.platform.to_string());
            out.digest(&image.manifest);
            out.digest(image.tree.digest());
        });
        out.str(self.name.as_deref().unwrap_or_default());
        out.sequence(self.tags.iter(), |out, tag| out.str(tag));
        out.i64(self.epoch.seconds());
        encode_ops(&self.ops, out);
    }
}

impl Built {
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new::<Self>(bytes)?;
        let digest = decoder.digest()?;
        let index = decoder.u8()? == 1;
        let images = (0..decoder.count()?)
            .map(|_| {
                Ok(BuiltImage {
                    platform: text(&mut decoder)?.parse().map_err(not_canonical)?,
                    manifest: decoder.digest()?,
                    tree: TreeId::new(decoder.digest()?),
                })
            })
            .collect::<Result<_, DecodeError>>()?;
        let name = Some(text(&mut decoder)?).filter(|name| !name.is_empty());
        let tags = (0..decoder.count()?)
            .map(|_| text(&mut decoder))
            .collect::<Result<_, _>>()?;
        let epoch = Epoch::from_seconds(decoder.i64()?).map_err(not_canonical)?;
        let ops = decode_ops(&mut decoder)?;
        decoder.finish()?;
        Ok(Self {
            digest,
            index,
            images,
            name,
            tags,
            epoch,
            ops,
        })
    }
}

fn encode_ops(ops: &[(String, OpId)], out: &mut Encoder) {
    out.sequence(ops.iter(), |out, (label, id)| {
        out.str(label);
        out.digest(id.digest());
    });
}

fn decode_ops(decoder: &mut Decoder<'_>) -> Result<Vec<(String, OpId)>, DecodeError> {
    (0..decoder.count()?)
        .map(|_| Ok((text(decoder)?, OpId::new(decoder.digest()?))))
        .collect()
}

fn text(decoder: &mut Decoder<'_>) -> Result<String, DecodeError> {
    String::from_utf8(decoder.bytes()?.to_vec()).map_err(not_canonical)
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "it is what `map_err` hands over"
)]
fn not_canonical(error: impl ToString) -> DecodeError {
    DecodeError::NotCanonical(error.to_string())
}

const LAST: &str = "last";
const OPS: &str = "image-ops";

fn key_of(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

/// Remembers what a spec (by its absolute path) gave last, and keeps all of it from being collected.
pub fn remember(
    session: &Session<'_>,
    spec: &str,
    stage: &Ident,
    built: &Built,
    realised: &BTreeMap<OpId, Realised>,
) -> Result<(), Failure> {
    let store = &session.store;
    let mut blobs: Vec<BlobId> = vec![BlobId::new(built.digest)];
    for image in &built.images {
        blobs.push(BlobId::new(image.manifest));
        let bytes = store.read(&BlobId::new(image.manifest))?;
        let manifest = BaseImage::manifest(ManifestDigest::new(image.manifest), &bytes)?;
        let parts = std::iter::once(&manifest.config).chain(&manifest.layers);
        blobs.extend(parts.map(|part: &Descriptor| BlobId::new(part.digest)));
    }
    blobs.extend(
        realised
            .values()
            .filter_map(|root| Some(root.times?.mtimes)),
    );
    blobs.sort_unstable();
    blobs.dedup();
    let record = Record {
        value: built.to_canonical(),
        blobs,
        trees: built.images.iter().map(|image| image.tree).collect(),
    };
    store.put_record(LAST, &key_of(&last_key(spec, stage.as_str())), &record)?;
    Ok(())
}

fn last_key(spec: &str, stage: &str) -> String {
    format!("{stage}\0{spec}")
}

/// What a spec gave last, if the store knows.
pub fn last(session: &Session<'_>, spec: &str, stage: &str) -> Result<Option<Built>, Failure> {
    let record = session
        .store
        .record(LAST, &key_of(&last_key(spec, stage)))?;
    Ok(record.and_then(|record| Built::decode(&record.value).ok()))
}

/// What each spec gave last, as far as the store knows.
pub fn all(session: &Session<'_>) -> Result<Vec<Built>, Failure> {
    let records = session.store.records(LAST)?;
    Ok(records
        .iter()
        .filter_map(|(_, record)| Built::decode(&record.value).ok())
        .collect())
}

/// Remembers of which ops an image that is expected from now on was made.
pub fn remember_ops(
    session: &Session<'_>,
    image: ImageId,
    ops: &[(String, OpId)],
) -> Result<(), Failure> {
    let mut out = Encoder::default();
    encode_ops(ops, &mut out);
    let record = Record {
        value: out.into_bytes(),
        ..Record::default()
    };
    session.store.put_record(OPS, image.digest(), &record)?;
    Ok(())
}

/// The label of the first op that is not as it was in the image of this id, as far as the store knows.
pub fn first_changed(
    session: &Session<'_>,
    image_id: Digest,
    ops: &[(String, OpId)],
) -> Result<Option<String>, Failure> {
    let Some(record) = session.store.record(OPS, &image_id)? else {
        return Ok(None);
    };
    let Ok(before) = decode_ops(&mut Decoder::over(&record.value)) else {
        return Ok(None);
    };
    let changed = ops.iter().find(|op| !before.contains(op));
    let gone = || before.iter().find(|op| !ops.contains(op));
    Ok(changed.or_else(gone).map(|(label, _)| label.clone()))
}
