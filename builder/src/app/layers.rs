//! The own layers of an image: made from the difference of two trees, or found because they were made before.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};

use immbuild_cas::canonical::{Canonical as _, Encoder};
use immbuild_cas::digest::{BlobId, Digest, TreeId};
use immbuild_cas::store::{BlobSource, Incoming, LocalStore, Record, Store as _};
use immbuild_cas::tree::delta;

use super::failure::Failure;
use crate::epoch::{Epoch, FormatVersion};
use crate::image::{ImageLayer, LayerMedia};
use crate::layer::{
    Blocks, Compression, DiffId, Earlier, LayerDigest, LayerError, LayerInfo, LayerPlan,
    LayerWriter,
};
use crate::ports::{Event, Events, Outcome, WorkId};

/// What layers are made with.
pub struct LayerMaker<'a> {
    /// Where trees and finished layers are.
    pub store: &'a LocalStore,
    /// Where content is.
    pub blobs: &'a dyn BlobSource,
    /// The one time in them.
    pub epoch: Epoch,
    /// How they are compressed.
    pub compression: Compression,
    /// How many threads compress.
    pub threads: NonZeroUsize,
    /// Is told what goes on.
    pub events: &'a dyn Events,
    /// Names spec and platform: the next image of them is likely to be much like this one.
    pub place: String,
}

const KIND: &str = "layer";
const BLOCKS: &str = "blocks";
static NEXT_WORK: AtomicU64 = AtomicU64::new(1 << 32);

impl LayerMaker<'_> {
    /// The layer that turns `lower` into `upper`; none when they are one tree. It is the `nth` of the image.
    pub fn layer(
        &self,
        nth: usize,
        lower: TreeId,
        upper: TreeId,
    ) -> Result<Option<ImageLayer>, Failure> {
        if lower == upper {
            return Ok(None);
        }
        let key = self.key(lower, upper);
        if let Some(layer) = self.known(&key)? {
            return Ok(Some(layer));
        }
        let tree = self.store.tree(&upper)?;
        let changes = delta(self.store, &self.store.tree(&lower)?, &tree)?;
        let plan = LayerPlan::new(self.store, &tree, changes)?;
        let work = WorkId(NEXT_WORK.fetch_add(1, Ordering::Relaxed));
        self.events.event(Event::Started {
            id: work,
            label: format!("layer ({})", self.compression.encoder_id()),
            total: Some(plan.expected_length()),
        });
        let progress = |done| self.events.event(Event::Advanced { id: work, done });
        let mut file = self.store.incoming()?;
        let earlier = self.earlier(nth)?;
        let mut written = self.write(&plan, earlier.as_ref(), &mut file, &progress);
        if matches!(written, Err(LayerError::Earlier)) {
            file = self.store.incoming()?;
            written = self.write(&plan, None, &mut file, &progress);
        }
        self.events.event(Event::Finished {
            id: work,
            outcome: if written.is_ok() {
                Outcome::Done
            } else {
                Outcome::Failed
            },
        });
        let info = written?;
        let layer = ImageLayer::own(&info, self.compression);
        file.keep(BlobId::new(*layer.digest.digest()))?;
        self.store.put_record(KIND, &key, &to_record(&layer))?;
        let blocks = Record {
            value: info.blocks.to_canonical(),
            blobs: vec![BlobId::new(*layer.digest.digest())],
            trees: Vec::new(),
        };
        self.store
            .put_record(BLOCKS, &self.blocks_key(nth), &blocks)?;
        Ok(Some(layer))
    }

    fn write(
        &self,
        plan: &LayerPlan,
        earlier: Option<&Earlier>,
        file: &mut Incoming<'_>,
        progress: &dyn Fn(u64),
    ) -> Result<LayerInfo, LayerError> {
        let writer = LayerWriter {
            blobs: self.blobs,
            epoch: self.epoch,
            compression: self.compression,
            threads: self.threads,
            earlier,
            progress,
        };
        writer.write(plan, file)
    }

    /// The layer that was written last in this place.
    fn earlier(&self, nth: usize) -> Result<Option<Earlier>, Failure> {
        let Some(record) = self.store.record(BLOCKS, &self.blocks_key(nth))? else {
            return Ok(None);
        };
        let (Ok(blocks), [layer]) = (Blocks::decode_strict(&record.value), &record.blobs[..])
        else {
            return Ok(None);
        };
        let file = self.store.blob_file(layer)?;
        Ok(file.map(|file| Earlier::new(file, &blocks)))
    }

    /// Names a place, not bytes: a wrong layer in it costs time and nothing else.
    fn blocks_key(&self, nth: usize) -> Digest {
        let mut out = Encoder::default();
        out.str("blocks");
        out.str(&self.place);
        out.count(nth);
        Digest::of(&out.into_bytes())
    }

    /// Everything that decides the bytes of a layer.
    fn key(&self, lower: TreeId, upper: TreeId) -> Digest {
        let mut out = Encoder::default();
        out.str("layer");
        out.u32(FormatVersion::V1.number());
        out.digest(lower.digest());
        out.digest(upper.digest());
        out.str(self.compression.encoder_id());
        out.i64(self.epoch.seconds());
        Digest::of(&out.into_bytes())
    }

    fn known(&self, key: &Digest) -> Result<Option<ImageLayer>, Failure> {
        let Some(record) = self.store.record(KIND, key)? else {
            return Ok(None);
        };
        let Some(layer) = from_record(&record, self.compression.into()) else {
            return Ok(None);
        };
        let is_here = self.store.has(&BlobId::new(*layer.digest.digest()))?;
        Ok(is_here.then_some(layer))
    }
}

fn to_record(layer: &ImageLayer) -> Record {
    let mut out = Encoder::default();
    out.digest(layer.diff_id.digest());
    out.u64(layer.size);
    Record {
        value: out.into_bytes(),
        blobs: vec![BlobId::new(*layer.digest.digest())],
        trees: Vec::new(),
    }
}

fn from_record(record: &Record, media: LayerMedia) -> Option<ImageLayer> {
    let (diff_id, size) = record.value.split_first_chunk::<32>()?;
    Some(ImageLayer {
        diff_id: DiffId::new(Digest::from_bytes(*diff_id)),
        digest: LayerDigest::new(*record.blobs.first()?.digest()),
        size: u64::from_le_bytes(size.try_into().ok()?),
        media,
    })
}
