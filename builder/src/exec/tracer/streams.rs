//! Streams between processes of a step (`AF_UNIX`, `SOCK_STREAM`).
//!
//! A thread that sends more than fits goes on within its call, beside the one that reads, and a thread that is woken reads
//! beside the one that sends: how much is found is chance. So who sends sends what fits, without blocking, waits until
//! there is room, and sends more when it has the turn; and who reads waits until there is something, and reads when it
//! has the turn. Both are told of one call all the same.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use super::arch::{Machine as _, Registers};
use super::open::scratch;
use super::run::{Answer, Pending, Tracer};
use super::sys::{self, Tid};
use super::time::{RESTART, RESTARTS};

/// Addresses and lengths.
type Parts = VecDeque<(u64, u64)>;

/// What a thread still has to send.
#[derive(Debug)]
pub(super) struct Pieces {
    /// The call as the program makes it.
    asked: Registers,
    left: Parts,
    flags: u64,
    sent: u64,
    /// It waits for room.
    waits: bool,
}

const DONT_WAIT: u64 = libc::MSG_DONTWAIT.unsigned_abs() as u64;
const NO_SIGNAL: u64 = libc::MSG_NOSIGNAL.unsigned_abs() as u64;

impl Tracer {
    /// If a call sends or reads on a stream, and may wait: how it goes on instead.
    pub(super) fn on_a_stream(
        &mut self,
        tid: Tid,
        number: i64,
        registers: &mut Registers,
    ) -> io::Result<Option<Answer>> {
        let reads = match number {
            libc::SYS_read | libc::SYS_readv => Some(0),
            libc::SYS_recvmsg => Some(registers.argument(2)),
            libc::SYS_recvfrom => Some(registers.argument(3)),
            _ => None,
        };
        let sends = asked_to_send(tid, number, registers)?;
        let Some(flags) = reads.or_else(|| sends.as_ref().map(|(_, flags)| *flags)) else {
            return Ok(None);
        };
        let Ok(descriptor) = i32::try_from(registers.argument(0) & 0xffff_ffff) else {
            return Ok(None);
        };
        if flags & u64::from((libc::MSG_DONTWAIT | libc::MSG_OOB).unsigned_abs()) != 0
            || self.belongs_outside(tid, descriptor)
        {
            return Ok(None);
        }
        let Ok(file) = self.descriptor(tid, descriptor) else {
            return Ok(None);
        };
        if !waits_for_others(&file) {
            return Ok(None);
        }
        let asked = registers.clone();
        let (call, then) = match sends {
            Some((left, flags)) => {
                let pieces = Pieces {
                    asked,
                    left,
                    flags,
                    sent: 0,
                    waits: false,
                };
                (pieces.next(), Pending::Pieces(Box::new(pieces)))
            }
            None if sys::is_readable(&file) => return Ok(None),
            None => {
                sys::write_memory(tid, scratch(&asked), &polled(&asked, libc::POLLIN))?;
                (poll(&asked), Pending::Arrival(Box::new(asked)))
            }
        };
        registers.set_number(call.0);
        for (at, value) in call.1.into_iter().enumerate() {
            registers.set_argument(at, value);
        }
        Ok(Some(Answer::Changed(then)))
    }

    /// There is something to read, or a signal came first.
    pub(super) fn arrived(
        &mut self,
        tid: Tid,
        mut asked: Registers,
        registers: &Registers,
    ) -> io::Result<Option<(Pending, Registers)>> {
        let result = registers.result();
        if result < 0 {
            asked.set_result(of_asked(result));
            sys::set_registers(tid, &asked)?;
            return Ok(Some((Pending::Blocked, asked)));
        }
        let call = (asked.number(), asked.arguments());
        asked.set_result(result);
        self.make_next(tid, &asked, call, [0; 16], Pending::Blocked)?;
        Ok(None)
    }

    /// One call of several has ended. Nothing yet, when another follows.
    pub(super) fn sent_a_piece(
        &mut self,
        tid: Tid,
        mut pieces: Pieces,
        registers: &Registers,
    ) -> io::Result<Option<(Pending, Registers)>> {
        let result = registers.result();
        if let Some(result) = pieces.end(result) {
            let mut ended = pieces.asked;
            ended.set_result(result);
            sys::set_registers(tid, &ended)?;
            return Ok(Some((Pending::Blocked, ended)));
        }
        self.ended_a_wait(tid, registers.number());
        let mut before = pieces.asked.clone();
        before.set_result(result);
        let beside = polled(&before, libc::POLLOUT);
        self.make_next(
            tid,
            &before,
            pieces.next(),
            beside,
            Pending::Pieces(Box::new(pieces)),
        )?;
        Ok(None)
    }
}

impl Pieces {
    /// What a call has come to; nothing, as long as there is more to do.
    fn end(&mut self, result: i64) -> Option<i64> {
        let fails = |error| match i64::try_from(self.sent) {
            Ok(sent) if sent > 0 => Some(sent),
            _ => Some(error),
        };
        if std::mem::take(&mut self.waits) {
            return match result {
                0.. => None,
                _ => fails(of_asked(result)),
            };
        }
        match u64::try_from(result) {
            Ok(sent) => {
                self.sent += sent;
                let whole = self.take(sent);
                self.waits = !whole;
                (whole && self.left.is_empty()).then(|| self.sent.cast_signed())
            }
            Err(_) if result == -i64::from(libc::EAGAIN) => {
                self.waits = true;
                None
            }
            Err(_) => fails(result),
        }
    }

    /// So much was sent. Was it all that was tried?
    fn take(&mut self, mut sent: u64) -> bool {
        while let Some((at, length)) = self.left.pop_front() {
            if sent < length {
                self.left.push_front((at + sent, length - sent));
                return sent == 0;
            }
            sent -= length;
        }
        true
    }

    /// The call that comes next.
    fn next(&self) -> (i64, [u64; 6]) {
        let descriptor = self.asked.argument(0);
        if self.waits {
            return poll(&self.asked);
        }
        if self.sent == 0 && self.asked.number() == libc::SYS_sendmsg {
            let message = self.asked.argument(1);
            return (
                libc::SYS_sendmsg,
                [descriptor, message, self.flags | DONT_WAIT, 0, 0, 0],
            );
        }
        let (at, length) = self.left.front().copied().unwrap_or_default();
        // That nobody reads any more is told by what was sent (send(2)).
        let quiet = if self.sent > 0 { NO_SIGNAL } else { 0 };
        let flags = self.flags | DONT_WAIT | quiet;
        (libc::SYS_sendto, [descriptor, at, length, flags, 0, 0])
    }
}

/// A wait, without an end, for the descriptor of a call.
fn poll(asked: &Registers) -> (i64, [u64; 6]) {
    (libc::SYS_ppoll, [scratch(asked), 1, 0, 0, 0, 0])
}

/// `struct pollfd` (poll(2)) for that.
fn polled(asked: &Registers, events: i16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&asked.argument(0).to_ne_bytes()[..4]);
    bytes[4..6].copy_from_slice(&events.to_ne_bytes());
    bytes
}

/// What the call would have come to if a signal had ended it, and not a wait in its place: the kernel makes it again
/// as far as a handler wants that.
fn of_asked(result: i64) -> i64 {
    if RESTARTS.contains(&result) {
        RESTART
    } else {
        result
    }
}

/// What a call sends on a connection, and its flags.
fn asked_to_send(tid: Tid, number: i64, registers: &Registers) -> io::Result<Option<(Parts, u64)>> {
    let [_, second, third, fourth, fifth, _] = registers.arguments();
    Ok(match number {
        libc::SYS_write => Some(([(second, third)].into(), 0)),
        libc::SYS_sendto if fifth == 0 => Some(([(second, third)].into(), fourth)),
        libc::SYS_writev => parts(tid, second, third)?.map(|parts| (parts, 0)),
        libc::SYS_sendmsg => {
            // struct msghdr: name, its length, parts, their number.
            let mut message = [0; 32];
            if sys::read_memory(tid, second, &mut message)? < message.len() {
                return Ok(None);
            }
            let [name, _, at, count] = words(message);
            if name != 0 {
                return Ok(None);
            }
            parts(tid, at, count)?.map(|parts| (parts, third))
        }
        _ => None,
    })
}

/// The parts of an array of `struct iovec`; none, if the kernel would refuse it.
fn parts(tid: Tid, mut at: u64, count: u64) -> io::Result<Option<Parts>> {
    /// `UIO_MAXIOV`.
    const MOST: u64 = 1024;
    let mut parts = Parts::new();
    if count > MOST {
        return Ok(None);
    }
    for _ in 0..count {
        let mut part = [0; 16];
        if sys::read_memory(tid, at, &mut part)? < part.len() {
            return Ok(None);
        }
        let [address, length] = words(part);
        if length > 0 {
            parts.push_back((address, length));
        }
        at += 16;
    }
    Ok(Some(parts))
}

fn words<const BYTES: usize, const WORDS: usize>(bytes: [u8; BYTES]) -> [u64; WORDS] {
    let (words, _) = bytes.as_chunks();
    std::array::from_fn(|at| u64::from_ne_bytes(words[at]))
}

/// Does who sends and reads here wait, for as long as it takes?
fn waits_for_others(file: &OwnedFd) -> bool {
    use rustix::net::sockopt;
    sys::is_stream_socket(file)
        && sockopt::socket_domain(file) == Ok(rustix::net::AddressFamily::UNIX)
        && [sockopt::Timeout::Send, sockopt::Timeout::Recv]
            .into_iter()
            .all(|which| sockopt::socket_timeout(file, which) == Ok(None))
        && rustix::fs::fcntl_getfl(file)
            .is_ok_and(|flags| !flags.contains(rustix::fs::OFlags::NONBLOCK))
}
