//! One thread makes the stream, several compress its blocks, the caller's hashes and writes them in order.
//!
//! Uses threads, because compression is four fifths of the work. The bytes written do not depend on how many there are,
//! since what a block is was decided before ([`Cutter`](super::blocks::Cutter)).

use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use immbuild_cas::digest::Hasher;

use super::blocks::{BlockKey, Blocks, EarlierBlock, WrittenBlock};
use super::codec::{BLOCK, BlockEncoder, Compression, EncoderError};
use super::{DiffId, LayerDigest, LayerError, LayerInfo, at_most};

/// More encoders than this would wait for the one thread that reads and verifies files, and each holds two blocks.
const MOST_ENCODERS: usize = 8;

/// How much is hashed and then written at once, in bytes.
const PIECE: usize = 128 << 10;

/// A piece of the stream with room for its compressed form. Passed around and used again.
struct Block {
    input: Box<[u8]>,
    filled: usize,
    output: Vec<u8>,
}

impl Block {
    fn new() -> Self {
        Self {
            input: vec![0; BLOCK].into(),
            filled: 0,
            output: Vec::new(),
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.input[..self.filled]
    }
}

/// What is to be done with a block, and where to put it then.
struct Job<'a> {
    block: Block,
    work: Work<'a>,
    answer: SyncSender<Result<Block, BlockError>>,
}

/// Where the bytes of a block come from.
#[derive(Clone, Copy)]
pub(super) enum Work<'a> {
    /// It is filled and wants to be compressed.
    Encode,
    /// From an earlier layer.
    TakeOver(EarlierBlock<'a>),
    /// From an earlier layer that is the same up to the end of this block, so that what it says need not be hashed again.
    Repeat(EarlierBlock<'a>),
}

/// A block that arrives once it is compressed.
struct Promise<'a> {
    key: BlockKey,
    work: Work<'a>,
    arrives: Receiver<Result<Block, BlockError>>,
}

/// Why a block is not compressed.
enum BlockError {
    Encoder(EncoderError),
    Earlier,
}

/// The other threads went away; whoever sees it stops, and the reason is told by the one that failed first.
#[derive(Debug)]
pub(super) struct Stopped;

/// Takes the blocks of the stream, one after another.
pub(super) struct Stream<'a> {
    block: Block,
    spare: Receiver<Block>,
    to_encoders: SyncSender<Job<'a>>,
    to_writer: SyncSender<Promise<'a>>,
}

impl<'a> Stream<'a> {
    /// Appends these bytes, for which the block has room.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        let (room, _) = self.room().split_at_mut(bytes.len());
        room.copy_from_slice(bytes);
        self.block.filled += bytes.len();
    }

    /// Appends `count` zeros, for which the block has room.
    pub(super) fn put_zeros(&mut self, count: usize) {
        self.room()[..count].fill(0);
        self.block.filled += count;
    }

    /// Appends up to `most` bytes of one read, straight into the block, which has room for them. Gives 0 at the end of
    /// `reader`.
    pub(super) fn put_read(&mut self, reader: &mut dyn Read, most: u64) -> io::Result<usize> {
        let room = self.room();
        let most = at_most(most, room.len());
        let count = loop {
            match reader.read(&mut room[..most]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        self.block.filled += count;
        Ok(count)
    }

    fn room(&mut self) -> &mut [u8] {
        &mut self.block.input[self.block.filled..]
    }

    /// Hands on the block, which says what `key` names.
    pub(super) fn send(&mut self, key: BlockKey, work: Work<'a>) -> Result<(), Stopped> {
        let mut next = self.spare.try_recv().unwrap_or_else(|_| Block::new());
        next.filled = 0;
        let block = std::mem::replace(&mut self.block, next);
        let (answer, arrives) = sync_channel(1);
        // The writer is told first: its queue is the bound on how many blocks there are at once.
        let promise = Promise { key, work, arrives };
        self.to_writer.send(promise).map_err(|_| Stopped)?;
        let job = Job {
            block,
            work,
            answer,
        };
        self.to_encoders.send(job).map_err(|_| Stopped)
    }
}

/// Runs `produce` on a thread of its own and writes what it puts into its [`Stream`] to `out`, compressed.
///
/// `expected` is the length of the stream as far as it is known; it only decides how many encoders are started.
/// `progress` gets the number of bytes of the stream done so far.
pub(super) fn run<'a>(
    compression: Compression,
    threads: NonZeroUsize,
    expected: u64,
    out: &mut dyn Write,
    progress: &dyn Fn(u64),
    produce: impl FnOnce(&mut Stream<'a>) -> Result<(), ProduceError> + Send,
) -> Result<LayerInfo, LayerError> {
    let blocks = usize::try_from(expected.div_ceil(BLOCK as u64)).unwrap_or(usize::MAX);
    let count = threads.get().min(MOST_ENCODERS).min(blocks.max(1));
    let encoders = (0..count)
        .map(|_| BlockEncoder::new(compression))
        .collect::<Result<Vec<_>, _>>()?;

    let (to_encoders, jobs) = sync_channel::<Job<'a>>(count);
    let jobs = Arc::new(Mutex::new(jobs));
    let (to_writer, promises) = sync_channel::<Promise<'a>>(count + 1);
    let (give_back, spare) = channel();
    let mut stream = Stream {
        block: Block::new(),
        spare,
        to_encoders,
        to_writer,
    };
    thread::scope(|scope| {
        for encoder in encoders {
            let jobs = Arc::clone(&jobs);
            scope.spawn(move || encode_jobs(compression, encoder, &jobs));
        }
        // When the last encoder is gone, so is the queue, and nobody waits to put something into it.
        drop(jobs);
        let producer = scope.spawn(move || produce(&mut stream));
        let written = write_in_order(promises, &give_back, compression, out, progress);
        let stream = producer.join().unwrap_or_else(|panic| resume_unwind(panic));
        match stream {
            Err(ProduceError::Layer(error)) => Err(error),
            // Stopped, by an error of the writer.
            Err(ProduceError::Stopped) | Ok(()) => written,
        }
    })
}

/// Why a stream was not made.
pub(super) enum ProduceError {
    /// Somebody else failed.
    Stopped,
    /// This is the reason.
    Layer(LayerError),
}

impl From<Stopped> for ProduceError {
    fn from(Stopped: Stopped) -> Self {
        Self::Stopped
    }
}

impl From<LayerError> for ProduceError {
    fn from(error: LayerError) -> Self {
        Self::Layer(error)
    }
}

fn encode_jobs(
    compression: Compression,
    mut encoder: BlockEncoder,
    jobs: &Mutex<Receiver<Job<'_>>>,
) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(mut job) = job else {
            return;
        };
        let result = match &job.work {
            Work::Encode => encode(&mut encoder, &mut job.block),
            Work::TakeOver(earlier) => take_over(compression, earlier, &mut job.block),
            Work::Repeat(earlier) => earlier
                .read_encoded(&mut job.block.output)
                .ok_or(BlockError::Earlier),
        };
        // Nobody waits any more when the writer has failed.
        let _ = job.answer.send(result.map(|()| job.block));
    }
}

fn encode(encoder: &mut BlockEncoder, block: &mut Block) -> Result<(), BlockError> {
    let input = &block.input[..block.filled];
    encoder
        .encode(input, &mut block.output)
        .map_err(BlockError::Encoder)
}

/// The hashers as they were behind this block.
fn resume(block: &WrittenBlock) -> Option<(Hasher, Hasher)> {
    let (tar, layer) = &block.states;
    Some((Hasher::resume(tar)?, Hasher::resume(layer)?))
}

/// The compressed form is copied, and decompressed for the digest of the tar.
fn take_over(
    compression: Compression,
    earlier: &EarlierBlock<'_>,
    block: &mut Block,
) -> Result<(), BlockError> {
    let read = earlier.read(compression, &mut block.output, &mut block.input);
    block.filled = read.ok_or(BlockError::Earlier)?;
    Ok(())
}

fn write_in_order(
    promises: Receiver<Promise<'_>>,
    give_back: &Sender<Block>,
    compression: Compression,
    out: &mut dyn Write,
    progress: &dyn Fn(u64),
) -> Result<LayerInfo, LayerError> {
    let mut hashers = (Hasher::new(), Hasher::new());
    let (mut uncompressed, mut size) = (0, 0);
    let mut blocks = Blocks::default();
    for Promise { key, work, arrives } in promises {
        // The answer is lost only when an encoder panicked, which ends the scope with that panic.
        let Ok(block) = arrives.recv() else { break };
        let block = block.map_err(|error| match error {
            BlockError::Encoder(error) => LayerError::Encoder(error),
            BlockError::Earlier => LayerError::Earlier,
        })?;
        let repeated = match work {
            Work::Repeat(earlier) => Some(earlier.block),
            Work::Encode | Work::TakeOver(_) => None,
        };
        let written = match repeated {
            Some(_) => &block.output,
            None => compression.stands_for(block.bytes(), &block.output),
        };
        let written = if let Some(known) = repeated {
            out.write_all(written).map_err(LayerError::Write)?;
            hashers = resume(known).ok_or(LayerError::Earlier)?;
            known.clone()
        } else {
            let is_tar = compression == Compression::None;
            if !is_tar {
                hashers.0.update(block.bytes());
            }
            // By pieces that the processor still has at hand when they are written.
            for piece in written.chunks(PIECE) {
                let hasher = if is_tar {
                    &mut hashers.0
                } else {
                    &mut hashers.1
                };
                hasher.update(piece);
                out.write_all(piece).map_err(LayerError::Write)?;
            }
            let tar = hashers.0.state();
            let layer = if is_tar {
                tar.clone()
            } else {
                hashers.1.state()
            };
            let short = |length| u32::try_from(length).expect("a block has some 4 MiB at most");
            WrittenBlock {
                key,
                length: short(written.len()),
                uncompressed: short(block.filled),
                states: (tar, layer),
            }
        };
        size += u64::from(written.length);
        uncompressed += u64::from(written.uncompressed);
        blocks.0.push(written);
        progress(uncompressed);
        // Nobody takes it when the stream is at its end.
        let _ = give_back.send(block);
    }
    let (tar, layer) = hashers;
    let tar = tar.finish();
    let layer = match compression {
        Compression::None => tar,
        Compression::Zstd | Compression::Gzip => layer.finish(),
    };
    Ok(LayerInfo {
        diff_id: DiffId::new(tar),
        digest: LayerDigest::new(layer),
        size,
        uncompressed,
        blocks,
    })
}
