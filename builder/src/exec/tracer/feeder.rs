//! What a process has for a random device: a socket whose other end is ours, and is kept full.
//!
//! A socket can be told to give as many bytes as are asked for, as the device does and a pipe does not; it takes
//! what is written to it; it cannot be mapped. It cannot be sought in either, which the device can.

use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};

use super::random::Stream;
use super::sys;

/// Fills all sockets, in a thread of its own: what runs beside it does not change what is read.
#[derive(Debug)]
pub(super) struct Feeder {
    sockets: Vec<Arc<OwnedFd>>,
    new: Sender<Fed>,
    wake: PipeWriter,
}

/// A socket with the bytes for it.
struct Fed {
    socket: Arc<OwnedFd>,
    stream: Stream,
    /// Taken from the stream, and not sent yet.
    rest: Vec<u8>,
}

/// Bytes that are sent at once.
const BLOCK: usize = 4096;

impl Feeder {
    pub(super) fn start() -> io::Result<Self> {
        let (new, to_feed) = channel();
        let (woken, wake) = io::pipe()?;
        std::thread::Builder::new().spawn(move || serve(&to_feed, woken))?;
        Ok(Self {
            sockets: Vec::new(),
            new,
            wake,
        })
    }

    /// From now on `reader`, whose other end `socket` is, gives this stream.
    pub(super) fn feed(
        &mut self,
        reader: &OwnedFd,
        socket: OwnedFd,
        stream: Stream,
    ) -> io::Result<()> {
        /// Bytes that wait for a reader who may want few.
        const AHEAD: usize = 8 << 10;
        // A read waits until it has all it asked for.
        sys::read_all_or_wait(reader)?;
        sockopt::set_socket_send_buffer_size(&socket, AHEAD)?;
        let mut fed = Fed {
            socket: Arc::new(socket),
            stream,
            rest: Vec::new(),
        };
        // There is something to read from the first moment on.
        fed.fill();
        self.sockets.retain(|socket| Arc::strong_count(socket) > 1);
        self.sockets.push(Arc::clone(&fed.socket));
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        self.new.send(fed).map_err(|_| gone())?;
        self.wake.write_all(b"!")
    }

    /// Is a socket empty just because its thread has not come to filling it?
    pub(super) fn is_behind(&self) -> bool {
        self.sockets
            .iter()
            .any(|socket| Arc::strong_count(socket) > 1 && sys::bytes_unread(socket) == 0)
    }
}

impl Fed {
    /// Sends as much as there is room for; says whether anybody can still read it.
    fn fill(&mut self) -> bool {
        loop {
            if self.rest.is_empty() {
                self.rest.resize(BLOCK, 0);
                self.stream.fill(&mut self.rest);
            }
            match send(
                &self.socket,
                &self.rest,
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            ) {
                Ok(sent) => drop(self.rest.drain(..sent)),
                Err(rustix::io::Errno::AGAIN) => return true,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    /// What was written to it is for nobody.
    fn drain(&self) {
        let mut waste = [0; BLOCK];
        while recv(&self.socket, &mut waste, RecvFlags::DONTWAIT).is_ok_and(|(count, _)| count > 0)
        {
        }
    }
}

/// Serves until the tracer is gone.
fn serve(new: &Receiver<Fed>, mut woken: PipeReader) {
    let mut all: Vec<Fed> = Vec::new();
    loop {
        let mut sources = vec![PollFd::from_borrowed_fd(woken.as_fd(), PollFlags::IN)];
        for fed in &all {
            sources.push(PollFd::new(&*fed.socket, PollFlags::IN | PollFlags::OUT));
        }
        match poll(&mut sources, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        let found: Vec<PollFlags> = sources.iter().map(PollFd::revents).collect();
        let mut told = found.iter().skip(1);
        all.retain_mut(|fed| {
            let told = told.next().copied().unwrap_or(PollFlags::empty());
            if told.contains(PollFlags::IN) {
                fed.drain();
            }
            let closed = told.intersects(PollFlags::HUP | PollFlags::ERR);
            !closed && (!told.contains(PollFlags::OUT) || fed.fill())
        });
        if !found[0].is_empty() {
            match woken.read(&mut [0; 64]) {
                Ok(1..) => {}
                _ => return,
            }
            all.extend(new.try_iter());
        }
    }
}
