//! One thread makes the stream, several compress its blocks, the caller's hashes and writes them in order.
//!
//! Uses threads, because compression is four fifths of the work. The bytes written do not depend on how many there are:
//! a block is always [`BLOCK`] bytes of the stream, the last one what is left.

use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use immbuild_cas::digest::Hasher;

use super::codec::{BLOCK, BlockEncoder, Compression, EncoderError};
use super::{DiffId, LayerDigest, LayerError, LayerInfo, at_most};

/// More encoders than this would wait for the one thread that reads and verifies files, and each holds two blocks.
const MOST_ENCODERS: usize = 8;

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

/// A block that is being compressed, and where to put it then.
type Job = (Block, SyncSender<Result<Block, EncoderError>>);
/// Where a block arrives once it is compressed.
type Promise = Receiver<Result<Block, EncoderError>>;

/// The other threads went away; whoever sees it stops, and the reason is told by the one that failed first.
#[derive(Debug)]
pub(super) struct Stopped;

/// Takes the stream and cuts it into blocks.
pub(super) struct Stream {
    block: Block,
    spare: Receiver<Block>,
    to_encoders: Option<SyncSender<Job>>,
    to_writer: SyncSender<Promise>,
}

impl Stream {
    /// Appends these bytes.
    pub(super) fn put(&mut self, mut bytes: &[u8]) -> Result<(), Stopped> {
        while !bytes.is_empty() {
            let room = self.room()?;
            let count = room.len().min(bytes.len());
            room[..count].copy_from_slice(&bytes[..count]);
            self.block.filled += count;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Appends `length` zeros.
    pub(super) fn put_zeros(&mut self, mut length: usize) -> Result<(), Stopped> {
        while length > 0 {
            let room = self.room()?;
            let count = room.len().min(length);
            room[..count].fill(0);
            self.block.filled += count;
            length -= count;
        }
        Ok(())
    }

    /// Appends up to `most` bytes of one read, straight into the block. Gives 0 at the end of `reader`.
    pub(super) fn put_read(
        &mut self,
        reader: &mut dyn Read,
        most: u64,
    ) -> Result<io::Result<usize>, Stopped> {
        let room = self.room()?;
        let most = at_most(most, room.len());
        let result = loop {
            match reader.read(&mut room[..most]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        if let Ok(count) = result {
            self.block.filled += count;
        }
        Ok(result)
    }

    /// The unfilled rest of a block, never empty.
    fn room(&mut self) -> Result<&mut [u8], Stopped> {
        if self.block.filled == BLOCK {
            self.send()?;
        }
        Ok(&mut self.block.input[self.block.filled..])
    }

    fn send(&mut self) -> Result<(), Stopped> {
        let mut next = self.spare.try_recv().unwrap_or_else(|_| Block::new());
        next.filled = 0;
        let block = std::mem::replace(&mut self.block, next);
        let (answer, promise) = sync_channel(1);
        // The writer is told first: its queue is the bound on how many blocks there are at once.
        self.to_writer.send(promise).map_err(|_| Stopped)?;
        match &self.to_encoders {
            Some(encoders) => encoders.send((block, answer)).map_err(|_| Stopped),
            None => answer.send(Ok(block)).map_err(|_| Stopped),
        }
    }

    /// Sends what is left.
    fn finish(mut self) -> Result<(), Stopped> {
        if self.block.filled > 0 {
            self.send()?;
        }
        Ok(())
    }
}

/// Runs `produce` on a thread of its own and writes what it puts into its [`Stream`] to `out`, compressed.
///
/// `expected` is the length of the stream as far as it is known; it only decides how many encoders are started.
/// `progress` gets the number of bytes of the stream done so far.
pub(super) fn run(
    compression: Compression,
    threads: NonZeroUsize,
    expected: u64,
    out: &mut dyn Write,
    progress: &dyn Fn(u64),
    produce: impl FnOnce(&mut Stream) -> Result<(), ProduceError> + Send,
) -> Result<LayerInfo, LayerError> {
    let blocks = usize::try_from(expected.div_ceil(BLOCK as u64)).unwrap_or(usize::MAX);
    let count = threads.get().min(MOST_ENCODERS).min(blocks.max(1));
    let encoders = (0..count)
        .filter_map(|_| BlockEncoder::new(compression).transpose())
        .collect::<Result<Vec<_>, _>>()?;

    let (to_encoders, jobs) = sync_channel::<Job>(count);
    let jobs = Arc::new(Mutex::new(jobs));
    let (to_writer, promises) = sync_channel::<Promise>(count + 1);
    let (give_back, spare) = channel();
    let mut stream = Stream {
        block: Block::new(),
        spare,
        to_encoders: (compression != Compression::None).then_some(to_encoders),
        to_writer,
    };
    thread::scope(|scope| {
        for encoder in encoders {
            let jobs = Arc::clone(&jobs);
            scope.spawn(move || encode_jobs(encoder, &jobs));
        }
        // When the last encoder is gone, so is the queue, and nobody waits to put something into it.
        drop(jobs);
        let producer = scope.spawn(move || {
            produce(&mut stream)?;
            stream.finish().map_err(ProduceError::from)
        });
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

fn encode_jobs(mut encoder: BlockEncoder, jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((mut block, answer)) = job else {
            return;
        };
        let mut output = std::mem::take(&mut block.output);
        let result = encoder.encode(block.bytes(), &mut output);
        block.output = output;
        // Nobody waits any more when the writer has failed.
        let _ = answer.send(result.map(|()| block));
    }
}

fn write_in_order(
    promises: Receiver<Promise>,
    give_back: &Sender<Block>,
    compression: Compression,
    out: &mut dyn Write,
    progress: &dyn Fn(u64),
) -> Result<LayerInfo, LayerError> {
    let (mut tar, mut layer) = (Hasher::new(), Hasher::new());
    let (mut uncompressed, mut size) = (0, 0);
    for promise in promises {
        // The answer is lost only when an encoder panicked, which ends the scope with that panic.
        let Ok(block) = promise.recv() else { break };
        let block = block?;
        tar.update(block.bytes());
        uncompressed += block.filled as u64;
        if compression == Compression::None {
            out.write_all(block.bytes()).map_err(LayerError::Write)?;
        } else {
            layer.update(&block.output);
            size += block.output.len() as u64;
            out.write_all(&block.output).map_err(LayerError::Write)?;
        }
        progress(uncompressed);
        // Nobody takes it when the stream is at its end.
        let _ = give_back.send(block);
    }
    let tar = tar.finish();
    let (layer, size) = match compression {
        Compression::None => (tar, uncompressed),
        Compression::Zstd | Compression::Gzip => (layer.finish(), size),
    };
    Ok(LayerInfo {
        diff_id: DiffId::new(tar),
        digest: LayerDigest::new(layer),
        size,
        uncompressed,
    })
}
