//! The caller's terminal, for `shell`: the step becomes a job of it, as one that a shell starts.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Hands standard input to the supervisor, whose own is the connection.
pub(super) fn send(supervisor: &UnixStream, input: impl AsFd) -> io::Result<()> {
    let descriptors = [input.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)),
        "the space is for one"
    );
    let byte = [io::IoSlice::new(b"t")];
    sendmsg(supervisor, &byte, &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The other end of [`send`].
pub(super) fn receive(builder: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(
        builder,
        &mut [io::IoSliceMut::new(&mut byte)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let messages = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    messages
        .flatten()
        .next()
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Makes the calling process a job of its own in the foreground. Without a terminal there is no
/// foreground, and nothing to do.
pub(super) fn make_foreground(terminal: &OwnedFd) {
    let _ = rustix::process::setpgid(None, None);
    take_back(terminal);
}

/// Puts the caller's process group into the foreground.
#[allow(unsafe_code, reason = "signal dispositions have no safe wrapper")]
pub(super) fn take_back(terminal: &OwnedFd) {
    // SAFETY: ignoring a signal runs no code of ours. A background process that sets the foreground
    // would be stopped by it.
    unsafe { libc::signal(libc::SIGTTOU, libc::SIG_IGN) };
    let _ = rustix::termios::tcsetpgrp(terminal, rustix::process::getpgrp());
}
