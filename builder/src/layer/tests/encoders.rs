//! Compressed bytes: whose they are, and that threads and sizes of reads and writes do not show in them.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use super::*;

/// A tree whose tar is a little more than three blocks.
fn three_blocks(store: &MemoryStore) -> Tree {
    let mut listing = String::new();
    for (name, length) in [
        ("a", 5 << 20),
        ("b", 3 << 20),
        ("c", 1),
        ("d", (5 << 20) + 17),
    ] {
        let blob = store.put_bytes(&bytes(length, 1)).expect("a blob");
        writeln!(listing, "f 0644 0:0 /{name} {blob} {length}").expect("a string");
    }
    tree(store, &listing)
}

#[test]
fn the_encoders_are_golden() {
    let store = MemoryStore::new();
    let new = three_blocks(&store);
    let plan = plan(&store, &empty(&store), &new);
    let mut told = String::new();
    for compression in [Compression::None, Compression::Zstd, Compression::Gzip] {
        let (_, info) = write(&plan, &store, compression, 2);
        writeln!(
            told,
            "{} {} {} {}",
            compression.encoder_id(),
            info.uncompressed,
            info.size,
            info.digest
        )
        .expect("a string");
    }
    assert_eq!(told, include_str!("golden/encoders.txt"));
}

#[test]
fn a_file_of_a_zip_is_one_member_without_its_frame() {
    let mut deflater = Deflater::new().expect("itself");
    let small = bytes(1 << 20, 1);
    let mut gzip = Vec::new();
    codec::BlockEncoder::new(Compression::Gzip)
        .and_then(|mut encoder| encoder.encode(&small, &mut gzip))
        .expect("a block");
    assert!(deflater.deflate(&small).expect("shorter") == gzip[10..gzip.len() - 8]);
    assert_eq!(crc32(&small).to_le_bytes(), gzip[gzip.len() - 8..][..4]);
    // Longer than a member is: still one stream, and always the same.
    let large = bytes(5 << 20, 1);
    let stream = deflater.deflate(&large).expect("shorter");
    assert_eq!(
        Digest::of(&stream).to_string(),
        "sha256:54129c059dd2c958cc55a0601c6f18a83042247c9ec96e11ea8dc3c7882b4d01"
    );
    let mut back = Vec::new();
    flate2::bufread::DeflateDecoder::new(&stream[..])
        .read_to_end(&mut back)
        .expect("a stream");
    assert!(back == large);
    // What does not get shorter is left as it is.
    assert_eq!(deflater.deflate(b""), None);
    assert_eq!(deflater.deflate(b"ab"), None);
}

#[test]
fn bytes_do_not_depend_on_threads_or_on_the_sizes_of_reads() {
    let store = MemoryStore::new();
    let new = three_blocks(&store);
    let plan = plan(&store, &empty(&store), &new);
    for compression in [Compression::None, Compression::Zstd, Compression::Gzip] {
        let (expected, _) = write(&plan, &store, compression, 1);
        for threads in [2, 8, 1000] {
            assert_eq!(write(&plan, &store, compression, threads).0, expected);
            assert_eq!(
                write(&plan, &Dribble(&store), compression, threads).0,
                expected
            );
        }
    }
}

#[test]
fn progress_ends_at_the_length_of_the_tar() {
    let store = MemoryStore::new();
    let new = three_blocks(&store);
    let plan = plan(&store, &empty(&store), &new);
    let told = std::cell::RefCell::new(Vec::new());
    let info = LayerWriter {
        blobs: &store,
        epoch: Epoch::DEFAULT,
        compression: Compression::Gzip,
        threads: NonZeroUsize::new(2).expect("two"),
        earlier: None,
        progress: &|done| told.borrow_mut().push(done),
    }
    .write(&plan, &mut io::sink())
    .expect("a layer");
    let ends = info.blocks.0.iter().scan(0, |end, block| {
        *end += u64::from(block.uncompressed);
        Some(*end)
    });
    assert_eq!(told.into_inner(), ends.collect::<Vec<_>>());
    assert_eq!(plan.expected_length() + tar::END as u64, info.uncompressed);
}

#[test]
fn decoders_give_the_tar_back() {
    let store = MemoryStore::new();
    let new = three_blocks(&store);
    let plan = plan(&store, &empty(&store), &new);
    let (tar, _) = write(&plan, &store, Compression::None, 2);
    for (compression, encoding) in [
        (Compression::None, Encoding::Plain),
        (Compression::Zstd, Encoding::Zstd),
        (Compression::Gzip, Encoding::Gzip),
    ] {
        let (layer, _) = write(&plan, &store, compression, 2);
        assert_eq!(Encoding::of(&layer), encoding);
        let mut back = Vec::new();
        decoder(&layer[..])
            .and_then(|mut reader| reader.read_to_end(&mut back))
            .expect("a layer");
        assert!(back == tar, "{compression:?}");
    }
}

#[test]
fn a_stream_cut_short_or_too_long_is_an_error() {
    let store = MemoryStore::new();
    let new = tree(&store, "f 0644 0:0 /a \"some content\\n\"");
    let plan = plan(&store, &empty(&store), &new);
    for compression in [Compression::Zstd, Compression::Gzip] {
        let (layer, _) = write(&plan, &store, compression, 1);
        let read = |bytes: &[u8]| {
            decoder(bytes).and_then(|mut reader| reader.read_to_end(&mut Vec::new()))
        };
        assert!(read(&layer).is_ok());
        for length in 5..layer.len() {
            assert!(read(&layer[..length]).is_err(), "{compression:?} {length}");
        }
        let longer = [&layer[..], b"garbage"].concat();
        assert!(read(&longer).is_err(), "{compression:?}");
    }
}

#[test]
fn a_bomb_stops_at_the_limit() {
    let mut bomb = Vec::new();
    let mut encoder = BlockEncoderForTest::new();
    for _ in 0..64 {
        bomb.extend_from_slice(encoder.block(&vec![0; BLOCK]));
    }
    assert!(bomb.len() < 64 << 10);
    let mut reader = Limited::new(decoder(&bomb[..]).expect("a stream"), 100 << 20);
    let error = io::copy(&mut reader, &mut io::sink()).expect_err("too much");
    assert_eq!(
        error.to_string(),
        "more than 104857600 bytes come out of it"
    );
    // Exactly the limit is not too much.
    let mut reader = Limited::new(decoder(&bomb[..]).expect("a stream"), 64 << 22);
    assert_eq!(
        io::copy(&mut reader, &mut io::sink()).expect("all"),
        64 << 22
    );
}

struct BlockEncoderForTest(codec::BlockEncoder, Vec<u8>);

impl BlockEncoderForTest {
    fn new() -> Self {
        let encoder = codec::BlockEncoder::new(Compression::Zstd).expect("an encoder");
        Self(encoder, Vec::new())
    }

    fn block(&mut self, bytes: &[u8]) -> &[u8] {
        self.0.encode(bytes, &mut self.1).expect("a block");
        &self.1
    }
}

fn filtered(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), input).expect("a file");
    let output = Command::new(program)
        .args(arguments)
        .stdin(std::fs::File::open(file.path()).expect("a file"))
        .stderr(Stdio::inherit())
        .output()
        .expect(program);
    assert!(output.status.success());
    output.stdout
}

#[test]
fn gzip_itself_reads_many_members_as_one() {
    let store = MemoryStore::new();
    let new = three_blocks(&store);
    let plan = plan(&store, &empty(&store), &new);
    let (tar, _) = write(&plan, &store, Compression::None, 2);
    let (layer, _) = write(&plan, &store, Compression::Gzip, 2);
    assert!(filtered("gzip", &["-dc"], &layer) == tar);
}

#[test]
#[ignore = "needs zstd"]
fn zstd_itself_reads_many_frames_as_one() {
    let store = MemoryStore::new();
    let new = three_blocks(&store);
    let plan = plan(&store, &empty(&store), &new);
    let (tar, _) = write(&plan, &store, Compression::None, 2);
    let (layer, _) = write(&plan, &store, Compression::Zstd, 2);
    assert!(filtered("zstd", &["-dc"], &layer) == tar);
}
