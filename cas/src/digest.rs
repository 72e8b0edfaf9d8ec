//! SHA-256 digests, the id types made of them, and readers and writers that hash as they go.
//!
//! The only home of `sha2`. Must never know what it hashes.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use sha2::Digest as _;
use sha2::digest::common::hazmat::SerializableState as _;

/// A SHA-256 digest (FIPS 180-4) of exact bytes, written `sha256:` and 64 lower-case hex digits
/// (OCI image-spec, descriptor, "Digests").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// Why a text is not a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseDigestError {
    /// Another algorithm, or none.
    #[error("a digest starts with `sha256:`")]
    Algorithm,
    /// Not exactly 64 hex digits.
    #[error("a digest has 64 hex digits after `sha256:`")]
    Length,
    /// Something else than `0-9a-f`.
    #[error("a digest has only the digits `0-9a-f`")]
    Digit,
}

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// A digest from its 32 raw bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hex digits without the algorithm.
    pub fn to_hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(64);
        for byte in self.0 {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        text
    }

    /// The first 12 hex digits, for people.
    pub fn short(&self) -> String {
        let mut hex = self.to_hex();
        hex.truncate(12);
        hex
    }

    /// A digest from 64 lower-case hex digits.
    ///
    /// # Errors
    /// The text is not exactly that; upper case is not canonical and is refused.
    pub fn from_hex(hex: &str) -> Result<Self, ParseDigestError> {
        fn digit(byte: u8) -> Result<u8, ParseDigestError> {
            match byte {
                b'0'..=b'9' => Ok(byte - b'0'),
                b'a'..=b'f' => Ok(byte - b'a' + 10),
                _ => Err(ParseDigestError::Digit),
            }
        }
        let hex: &[u8; 64] = hex
            .as_bytes()
            .try_into()
            .map_err(|_| ParseDigestError::Length)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.short())
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::from_hex(
            text.strip_prefix("sha256:")
                .ok_or(ParseDigestError::Algorithm)?,
        )
    }
}

/// Makes one newtype per kind of digest, so that a `DiffId` cannot stand where a `LayerDigest` is due.
#[macro_export]
macro_rules! id {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($crate::digest::Digest);

        impl $name {
            /// Names the digest for what it is; the caller vouches for the kind.
            pub const fn new(digest: $crate::digest::Digest) -> Self {
                Self(digest)
            }

            /// The digest without its kind.
            pub const fn digest(&self) -> &$crate::digest::Digest {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::digest::ParseDigestError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    )+};
}

id! {
    /// Names the bytes of a blob.
    BlobId;
    /// Names one canonical [`Directory`](crate::tree::Directory).
    DirectoryId;
    /// Names one canonical [`Tree`](crate::tree::Tree).
    TreeId;
}

/// An incremental SHA-256.
#[derive(Clone, Debug, Default)]
pub struct Hasher(sha2::Sha256);

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes taken in.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }

    /// What it has taken in so far, for [`resume`](Self::resume). A store keeps it, so a test holds its form.
    pub fn state(&self) -> Vec<u8> {
        self.0.serialize().to_vec()
    }

    /// The hasher that had this state; none if no hasher has.
    pub fn resume(state: &[u8]) -> Option<Self> {
        let state = state.try_into().ok()?;
        sha2::Sha256::deserialize(&state).ok().map(Self)
    }
}

/// Passes bytes on to `W` and hashes them.
#[derive(Debug)]
pub struct HashingWriter<W> {
    inner: W,
    hasher: Hasher,
    written: u64,
}

impl<W: Write> HashingWriter<W> {
    /// Hashes what goes to `inner`.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            hasher: Hasher::new(),
            written: 0,
        }
    }

    /// The inner writer, the digest and the number of bytes.
    pub fn finish(self) -> (W, Digest, u64) {
        (self.inner, self.hasher.finish(), self.written)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Passes bytes on from `R` and hashes them.
#[derive(Debug)]
pub struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
    read: u64,
}

impl<R: Read> HashingReader<R> {
    /// Hashes what is read from `inner`.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            hasher: Hasher::new(),
            read: 0,
        }
    }

    /// The digest and number of the bytes read so far.
    pub fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.read)
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.read += count as u64;
        Ok(count)
    }
}

/// The bytes read are not the bytes asked for. Travels inside an [`io::Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("content mismatch: expected {expected}, read {actual}")]
pub struct MismatchError {
    /// The digest the content was asked by.
    pub expected: Digest,
    /// The digest of what was there.
    pub actual: Digest,
}

impl MismatchError {
    /// The mismatch that a reader reported with this error, if that is what it is.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

/// A reader that fails at the end when the bytes were not those of `expected`.
///
/// The last read gives the error, so a caller MUST read to the end before it believes anything.
#[derive(Debug)]
pub struct VerifiedReader<R> {
    inner: R,
    hasher: Option<Hasher>,
    expected: Digest,
}

impl<R: Read> VerifiedReader<R> {
    /// Checks what is read from `inner` against `expected`.
    pub fn new(inner: R, expected: Digest) -> Self {
        Self {
            inner,
            hasher: Some(Hasher::new()),
            expected,
        }
    }

    /// What is read from.
    pub fn inner(&self) -> &R {
        &self.inner
    }
}

impl<R: Read> Read for VerifiedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.inner.read(buffer)?;
        if count > 0 {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&buffer[..count]);
            }
            return Ok(count);
        }
        match self.hasher.take().map(Hasher::finish) {
            Some(actual) if actual != self.expected => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                MismatchError {
                    expected: self.expected,
                    actual,
                },
            )),
            _ => Ok(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The form is kept in stores: another one would let them go on from a wrong place.
    #[test]
    fn a_state_has_one_form_and_can_be_gone_on_from() {
        let mut hasher = Hasher::new();
        hasher.update(&[b'a'; 100]);
        let state = hasher.state();
        assert_eq!(
            Digest::of(&state).to_hex(),
            "4ffaacb7b9d027890dd4873fee5fa45d484973f6ae2dd1d73668bcc90fb295d9"
        );
        let mut resumed = Hasher::resume(&state).expect("a state");
        resumed.update(b"b");
        hasher.update(b"b");
        assert_eq!(resumed.finish(), hasher.finish());
        assert!(Hasher::resume(&state[1..]).is_none());
    }

    #[test]
    fn hex_is_strict() {
        let digest = Digest::of(b"");
        let hex = digest.to_hex();
        assert_eq!(Digest::from_hex(&hex), Ok(digest));
        assert_eq!(
            Digest::from_hex(&hex.to_uppercase()),
            Err(ParseDigestError::Digit)
        );
        assert_eq!(Digest::from_hex(&hex[1..]), Err(ParseDigestError::Length));
        assert_eq!(hex.parse::<Digest>(), Err(ParseDigestError::Algorithm));
    }

    #[test]
    fn verified_reader_fails_at_the_end_of_wrong_bytes() {
        let mut good = VerifiedReader::new(&b"abc"[..], Digest::of(b"abc"));
        assert_eq!(good.read_to_end(&mut Vec::new()).expect("right bytes"), 3);
        let mut bad = VerifiedReader::new(&b"abd"[..], Digest::of(b"abc"));
        let error = bad.read_to_end(&mut Vec::new()).expect_err("wrong bytes");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
