//! The file form of a record: its canonical encoding, then the digest of that.

use crate::canonical::{Canonical, DecodeError, Decoder, Encoder};
use crate::digest::{BlobId, Digest, TreeId};
use crate::store::Record;

/// A record with its name, so that a file in the wrong place is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// The kind of a record, or the name of a root.
    pub(super) name: String,
    /// The key of a record, or the digest of the root's name.
    pub(super) key: Digest,
    /// The record itself.
    pub(super) record: Record,
}

impl Canonical for Named {
    const TAG: &'static str = "record";
    const VERSION: u32 = 1;

    fn encode_fields(&self, out: &mut Encoder) {
        out.str(&self.name);
        out.digest(&self.key);
        out.bytes(&self.record.value);
        out.sequence(self.record.blobs.iter(), |out, id| out.digest(id.digest()));
        out.sequence(self.record.trees.iter(), |out, id| out.digest(id.digest()));
    }
}

impl Named {
    /// The bytes of the file.
    pub(super) fn to_file(&self) -> Vec<u8> {
        let mut bytes = self.to_canonical();
        let sum = Digest::of(&bytes);
        bytes.extend_from_slice(sum.as_bytes());
        bytes
    }

    /// What the bytes of a file say, if they are whole.
    pub(super) fn of_file(bytes: &[u8]) -> Option<Self> {
        let (bytes, sum) = bytes.split_last_chunk::<32>()?;
        if Digest::of(bytes) != Digest::from_bytes(*sum) {
            return None;
        }
        Self::decode(bytes).ok()
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new::<Self>(bytes)?;
        let name = String::from_utf8(decoder.bytes()?.to_vec())
            .map_err(|error| DecodeError::NotCanonical(error.to_string()))?;
        let key = decoder.digest()?;
        let value = decoder.bytes()?.to_vec();
        let mut record = Record {
            value,
            ..Record::default()
        };
        for _ in 0..decoder.count()? {
            record.blobs.push(BlobId::new(decoder.digest()?));
        }
        for _ in 0..decoder.count()? {
            record.trees.push(TreeId::new(decoder.digest()?));
        }
        decoder.finish()?;
        Ok(Self { name, key, record })
    }
}
