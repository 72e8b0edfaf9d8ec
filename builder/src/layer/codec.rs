//! Encoders with names that stand for exact bytes, and the decoders that read what others wrote.
//!
//! The only home of `zstd`, `libdeflater` and `flate2`. Must never know what it compresses.
//!
//! No compressor promises that its next version writes the same bytes, so a layer digest belongs to an *encoder id*:
//! the rules below together with C sources pinned to the letter. When a source must move, it gets a new id and the old
//! one stays (book, "The bytes").

use std::io::{self, BufReader, Cursor, Read, Write};
use std::sync::OnceLock;

use immbuild_cas::digest::Digest;
use libdeflater::{CompressionLvl, Compressor};
use zstd::zstd_safe::{self, CCtx, CParameter, Strategy};

use super::at_most;

/// Input of one block, in bytes: what an encoder sees at once, and one frame of `zstd/1`. Part of `zstd/1` and `gzip/1`:
/// changing it changes image bytes.
pub const BLOCK: usize = 4 << 20;

/// Input of one gzip member, in bytes; [`BLOCK`] is a multiple of it. Part of `gzip/1`: changing it changes image bytes.
const MEMBER: usize = 1 << 20;

/// Version of the C library behind `zstd/1`. Another one is another encoder.
const ZSTD_VERSION: u32 = 1_05_07;

/// Every parameter of `zstd/1`, so that no table of the library decides: what level 3 stands for with more than 256 KiB of
/// input, but with the whole block as window (level 3 has half of it), which makes layers 3 % smaller and takes no longer.
/// Part of `zstd/1`: changing one changes image bytes.
const ZSTD_PARAMETERS: [CParameter; 13] = [
    CParameter::CompressionLevel(3),
    CParameter::WindowLog(22),
    CParameter::ChainLog(16),
    CParameter::HashLog(17),
    CParameter::SearchLog(1),
    CParameter::MinMatch(5),
    CParameter::TargetLength(0),
    CParameter::Strategy(Strategy::ZSTD_dfast),
    CParameter::EnableLongDistanceMatching(false),
    CParameter::ContentSizeFlag(true),
    CParameter::ChecksumFlag(true),
    CParameter::DictIdFlag(false),
    CParameter::NbWorkers(0),
];

/// Level of libdeflate behind `gzip/1`. Part of `gzip/1`: changing it changes image bytes.
const DEFLATE_LEVEL: i32 = 6;

/// Head of each member of `gzip/1` (RFC 1952, 2.3): magic, deflate, no flags, no time, no extra flags, OS unknown.
const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// How an own layer is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Compression {
    /// Zstandard frames.
    #[default]
    Zstd,
    /// Gzip members.
    Gzip,
    /// The tar as it is.
    None,
}

impl Compression {
    /// Names the encoder: the same id and input give the same bytes forever.
    pub const fn encoder_id(self) -> &'static str {
        match self {
            Self::Zstd => "zstd/1",
            Self::Gzip => "gzip/1",
            Self::None => "none",
        }
    }

    /// Digest of what the encoder makes of [`question`].
    const fn answer(self) -> &'static str {
        match self {
            Self::Zstd => "1c2235d683e037ef3b4af6b20885428eb7802a52bd716214e6efd8c36e3c9add",
            Self::Gzip => "a78ce230d1b959dc361abc64d467a6e03f346485fb7659c3ff89951f3f1a15ad",
            Self::None => "",
        }
    }
}

/// Why an encoder is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncoderError {
    /// The library compresses to other bytes than the encoder id stands for.
    #[error(
        "encoder `{id}` is not itself: its library gives {found} for the known question, which should be {expected}"
    )]
    Moved {
        /// The encoder id.
        id: &'static str,
        /// The answer that belongs to the id.
        expected: String,
        /// The answer of the library, or its version.
        found: String,
    },
    /// The library failed, which takes a lack of memory.
    #[error("encoder `{id}` failed: {reason}")]
    Failed {
        /// The encoder id.
        id: &'static str,
        /// What the library said.
        reason: String,
    },
}

/// Compresses one block after another; each is a piece of the stream on its own.
pub(super) enum BlockEncoder {
    Zstd(Box<CCtx<'static>>),
    Gzip(Compressor),
    None,
}

impl BlockEncoder {
    /// An encoder that has answered the known question.
    pub(super) fn new(compression: Compression) -> Result<Self, EncoderError> {
        static ZSTD: OnceLock<Result<(), EncoderError>> = OnceLock::new();
        static GZIP: OnceLock<Result<(), EncoderError>> = OnceLock::new();
        let tested = match compression {
            Compression::Zstd => &ZSTD,
            Compression::Gzip => &GZIP,
            Compression::None => return Ok(Self::None),
        };
        tested.get_or_init(|| self_test(compression)).clone()?;
        Self::untested(compression)
    }

    fn untested(compression: Compression) -> Result<Self, EncoderError> {
        if compression == Compression::Gzip {
            let level = CompressionLvl::new(DEFLATE_LEVEL).expect("6 is a level of libdeflate");
            return Ok(Self::Gzip(Compressor::new(level)));
        }
        let failed = |code| failed(Compression::Zstd, zstd_safe::get_error_name(code));
        let mut context = CCtx::try_create()
            .ok_or_else(|| self::failed(Compression::Zstd, "no memory for its context"))?;
        for parameter in ZSTD_PARAMETERS {
            context.set_parameter(parameter).map_err(failed)?;
        }
        Ok(Self::Zstd(Box::new(context)))
    }

    /// Replaces `out` by the compressed form of `block`, which is 1 to [`BLOCK`] bytes long; by nothing, if that is the block
    /// itself.
    pub(super) fn encode(&mut self, block: &[u8], out: &mut Vec<u8>) -> Result<(), EncoderError> {
        debug_assert!(!block.is_empty() && block.len() <= BLOCK);
        out.clear();
        match self {
            Self::None => {}
            Self::Zstd(context) => {
                out.reserve(zstd_safe::compress_bound(block.len()));
                context
                    .compress2(out, block)
                    .map_err(|code| failed(Compression::Zstd, zstd_safe::get_error_name(code)))?;
            }
            Self::Gzip(compressor) => {
                for member in block.chunks(MEMBER) {
                    let start = out.len() + GZIP_HEAD.len();
                    out.extend_from_slice(&GZIP_HEAD);
                    out.resize(start + compressor.deflate_compress_bound(member.len()), 0);
                    let deflated = compressor
                        .deflate_compress(member, &mut out[start..])
                        .map_err(|error| failed(Compression::Gzip, &error.to_string()))?;
                    out.truncate(start + deflated);
                    let length = u32::try_from(member.len()).expect("at most 1 MiB");
                    out.extend_from_slice(&libdeflater::crc32(member).to_le_bytes());
                    out.extend_from_slice(&length.to_le_bytes());
                }
            }
        }
        Ok(())
    }
}

impl Compression {
    /// What stands in the layer for a block: `encoded`, if blocks are encoded at all.
    pub(super) fn stands_for<'b>(self, block: &'b [u8], encoded: &'b [u8]) -> &'b [u8] {
        match self {
            Self::None => block,
            Self::Zstd | Self::Gzip => encoded,
        }
    }

    /// Fills `block` with what stands for it in a layer; says no if that has another length.
    pub(super) fn decode(self, stands: &[u8], block: &mut [u8]) -> io::Result<bool> {
        match self {
            Self::None if stands.len() == block.len() => {
                block.copy_from_slice(stands);
                Ok(true)
            }
            Self::None => Ok(false),
            Self::Zstd => Ok(zstd_safe::decompress(&mut *block, stands) == Ok(block.len())),
            Self::Gzip => {
                let mut reader = decoder(stands)?;
                reader.read_exact(block)?;
                Ok(reader.read(&mut [0])? == 0)
            }
        }
    }
}

/// Compresses whole files, each to one stream without a frame around it (RFC 1951): encoder `deflate/1`, which is what stands
/// inside a member of `gzip/1`, over input of any length.
///
/// The input, and as much again, are in memory.
pub struct Deflater(Compressor);

impl std::fmt::Debug for Deflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Deflater")
    }
}

impl Deflater {
    /// An encoder that has answered the known question.
    ///
    /// # Errors
    /// The library is not the one that `gzip/1` and `deflate/1` stand for.
    pub fn new() -> Result<Self, EncoderError> {
        match BlockEncoder::new(Compression::Gzip)? {
            BlockEncoder::Gzip(compressor) => Ok(Self(compressor)),
            BlockEncoder::Zstd(_) | BlockEncoder::None => unreachable!("gzip was asked for"),
        }
    }

    /// The stream for these bytes, if it is shorter than they are.
    pub fn deflate(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        // Always room for the worst case: how much there is must not decide anything.
        let mut out = vec![0; self.0.deflate_compress_bound(bytes.len())];
        let count = self.0.deflate_compress(bytes, &mut out);
        out.truncate(count.expect("the library said how much room it needs"));
        (out.len() < bytes.len()).then_some(out)
    }
}

/// The checksum of RFC 1952, 8, which zip has too.
pub fn crc32(bytes: &[u8]) -> u32 {
    libdeflater::crc32(bytes)
}

fn failed(compression: Compression, reason: &str) -> EncoderError {
    EncoderError::Failed {
        id: compression.encoder_id(),
        reason: reason.to_owned(),
    }
}

/// 16 KiB that compress neither well nor badly: runs, repeats and noise from a fixed generator.
fn question() -> Vec<u8> {
    let mut state = 1_u32;
    let mut bytes = Vec::with_capacity(16 << 10);
    while bytes.len() < 16 << 10 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [_, low, middle, _] = state.to_le_bytes();
        let back = (state >> 8) as usize % 1000;
        match state >> 30 {
            0 => bytes.push(middle),
            1 => bytes.extend_from_slice(&[low; 7]),
            _ if back > 16 && back < bytes.len() => {
                let from = bytes.len() - back;
                bytes.extend_from_within(from..from + 16);
            }
            _ => bytes.extend_from_slice(b"immbuild"),
        }
    }
    bytes.truncate(16 << 10);
    bytes
}

/// Asks the encoder the known question. Costs less than a millisecond.
fn self_test(compression: Compression) -> Result<(), EncoderError> {
    let moved = |expected: &str, found: String| EncoderError::Moved {
        id: compression.encoder_id(),
        expected: expected.to_owned(),
        found,
    };
    if compression == Compression::Zstd && zstd_safe::version_number() != ZSTD_VERSION {
        return Err(moved(
            "version 1.5.7",
            zstd_safe::version_string().to_owned(),
        ));
    }
    let mut out = Vec::new();
    BlockEncoder::untested(compression)?.encode(&question(), &mut out)?;
    let found = Digest::of(&out).to_hex();
    if found == compression.answer() {
        Ok(())
    } else {
        Err(moved(compression.answer(), found))
    }
}

/// Compresses what is written to it, block after block; the same bytes give the same bytes, however they are cut.
pub struct Compressing<W> {
    inner: W,
    compression: Compression,
    encoder: BlockEncoder,
    block: Vec<u8>,
    encoded: Vec<u8>,
}

impl<W: Write> Compressing<W> {
    /// Writes the compressed bytes to `inner`.
    ///
    /// # Errors
    /// The library does not write what the encoder id stands for.
    pub fn new(inner: W, compression: Compression) -> Result<Self, EncoderError> {
        Ok(Self {
            inner,
            compression,
            encoder: BlockEncoder::new(compression)?,
            block: Vec::new(),
            encoded: Vec::new(),
        })
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// `inner` fails, or the library does.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_block()?;
        Ok(self.inner)
    }

    fn end_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        self.encoder
            .encode(&self.block, &mut self.encoded)
            .map_err(io::Error::other)?;
        let stands = self.compression.stands_for(&self.block, &self.encoded);
        self.inner.write_all(stands)?;
        self.block.clear();
        Ok(())
    }
}

impl<W: Write> Write for Compressing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        if self.block.len() == BLOCK {
            self.end_block()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How a stream of bytes is compressed, known by how it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all, or in a way unknown here.
    Plain,
    /// Gzip members (RFC 1952).
    Gzip,
    /// Zstandard frames, skippable ones too (RFC 8878).
    Zstd,
}

impl Encoding {
    /// What these first bytes of a stream say. Four are enough.
    pub fn of(start: &[u8]) -> Self {
        match *start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }
}

/// Reads the decompressed bytes of a stream that is plain, gzip or zstd, whichever its first bytes say.
///
/// Any number of gzip members or zstd frames is read as one stream. A stream cut short is an error of the reader, as are
/// bytes after the last member; a zstd window above 128 MiB is refused. What comes out has no bound:
/// wrap it in [`Limited`].
pub fn decoder<'a>(mut reader: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut start = Vec::with_capacity(4);
    (&mut reader).take(4).read_to_end(&mut start)?;
    let encoding = Encoding::of(&start);
    let whole = BufReader::with_capacity(128 << 10, Cursor::new(start).chain(reader));
    Ok(match encoding {
        Encoding::Plain => Box::new(whole),
        Encoding::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        Encoding::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(whole)?),
    })
}

/// More came out of a stream than was allowed. Travels inside an [`io::Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {0} bytes come out of it")]
pub struct LimitError(pub u64);

/// A reader that fails once more than so many bytes came out: what stands between a bomb and the disk.
#[derive(Debug)]
pub struct Limited<R> {
    inner: R,
    limit: u64,
    left: u64,
}

impl<R: Read> Limited<R> {
    /// Lets `limit` bytes through.
    pub fn new(inner: R, limit: u64) -> Self {
        Self {
            inner,
            limit,
            left: limit,
        }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // One byte more than allowed is asked for, so that the end right at the limit is seen as an end.
        let most = at_most(self.left.saturating_add(1), buffer.len());
        let count = self.inner.read(&mut buffer[..most])?;
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or_else(|| io::Error::other(LimitError(self.limit)))?;
        Ok(count)
    }
}
