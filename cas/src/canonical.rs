//! The one encoding that ids are made from: tagged, versioned, length-prefixed, little-endian.
//!
//! What has an id implements [`Canonical`] by hand. Adding a field is a new version, never a
//! silent change. Must never know serde or any format that people or other programs read.

use crate::digest::Digest;

/// A value with exactly one encoding.
pub trait Canonical {
    /// What kind of thing this is; part of the encoding, so ids of different kinds never meet.
    const TAG: &'static str;
    /// Version of the encoding. A new field is a new version.
    const VERSION: u32;

    /// Writes the fields, in an order that never changes.
    fn encode_fields(&self, out: &mut Encoder);

    /// Tag, version and fields.
    fn to_canonical(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.str(Self::TAG);
        out.u32(Self::VERSION);
        self.encode_fields(&mut out);
        out.into_bytes()
    }

    /// The digest of [`to_canonical`](Self::to_canonical).
    fn canonical_digest(&self) -> Digest {
        Digest::of(&self.to_canonical())
    }
}

/// Writes canonical bytes.
#[derive(Debug, Default)]
pub struct Encoder(Vec<u8>);

impl Encoder {
    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Eight bytes, little-endian, two's complement.
    pub fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// One byte, 0 or 1.
    pub fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    /// How many of something follow.
    pub fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("a canonical sequence has less than 2^32 members"));
    }

    /// The length, then the bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// As [`bytes`](Self::bytes), of UTF-8.
    pub fn str(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// The 32 raw bytes.
    pub fn digest(&mut self, digest: &Digest) {
        self.0.extend_from_slice(digest.as_bytes());
    }

    /// 0, or 1 and the value.
    pub fn option<T>(&mut self, value: Option<T>, encode: impl FnOnce(&mut Self, T)) {
        match value {
            None => self.u8(0),
            Some(value) => {
                self.u8(1);
                encode(self, value);
            }
        }
    }

    /// The count, then each member in the order given.
    pub fn sequence<T>(
        &mut self,
        values: impl ExactSizeIterator<Item = T>,
        mut encode: impl FnMut(&mut Self, T),
    ) {
        self.count(values.len());
        for value in values {
            encode(self, value);
        }
    }
}

/// Why bytes are not a canonical encoding.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a value.
    #[error("the encoding is cut short")]
    Short,
    /// Bytes after the last value.
    #[error("{0} bytes after the end of the encoding")]
    Trailing(usize),
    /// Another kind of object, or another version of it.
    #[error("expected `{expected}` version {version}, found something else")]
    Kind {
        /// The tag asked for.
        expected: &'static str,
        /// The version asked for.
        version: u32,
    },
    /// A value out of its range, an order that is not the canonical one, a name that is none.
    #[error("not canonical: {0}")]
    NotCanonical(String),
}

/// Reads canonical bytes and takes nothing else.
#[derive(Clone, Debug)]
pub struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    /// Starts behind the tag and version of `T`.
    ///
    /// # Errors
    /// The bytes are of another kind or version.
    pub fn new<T: Canonical>(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut decoder = Self(bytes);
        if decoder.bytes() == Ok(T::TAG.as_bytes()) && decoder.u32() == Ok(T::VERSION) {
            Ok(decoder)
        } else {
            Err(DecodeError::Kind {
                expected: T::TAG,
                version: T::VERSION,
            })
        }
    }

    /// Starts at the first byte, for fields without a tag.
    pub fn over(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(DecodeError::Short)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        Ok(self
            .take(N)?
            .try_into()
            .expect("take gives exactly the count asked for"))
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Eight bytes, little-endian, two's complement.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// How many members follow. Each is at least one byte, so a count beyond the bytes left is refused
    /// before anything is allocated for it.
    pub fn count(&mut self) -> Result<usize, DecodeError> {
        let count = self.u32()? as usize;
        if count > self.0.len() {
            return Err(DecodeError::Short);
        }
        Ok(count)
    }

    /// The length, then that many bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let count = self.u32()? as usize;
        self.take(count)
    }

    /// The 32 raw bytes of a digest.
    pub fn digest(&mut self) -> Result<Digest, DecodeError> {
        Ok(Digest::from_bytes(self.array()?))
    }

    /// Nothing may be left.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Trailing(self.0.len()))
        }
    }
}
