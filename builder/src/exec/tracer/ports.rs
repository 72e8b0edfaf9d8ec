//! Ports and names of sockets, where the kernel would draw one: each process has a row of its own.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{SocketAddrUnix, SocketType, bind, getsockname, sockopt};

use super::answer::error;
use super::call::FileName;
use super::files::number_of;
use super::run::{Answer, Tracer};
use super::sys::{self, Tid};

/// As in `ip_local_port_range` (ip(7)).
const FIRST: u16 = 32_768;
const COUNT: u16 = 28_000;

/// The next port of a process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports(u16);

impl Ports {
    /// Two processes begin at the same place only by accident.
    pub(super) fn of(lineage: &[u32]) -> Self {
        let place: Vec<u8> = lineage
            .iter()
            .flat_map(|place| place.to_be_bytes())
            .collect();
        let start = number_of(&place) % u64::from(COUNT);
        Self(u16::try_from(start).expect("less than their count"))
    }

    fn next(&mut self) -> u16 {
        let port = FIRST + self.0;
        self.0 = (self.0 + 1) % COUNT;
        port
    }
}

/// What a socket asks for that takes any name.
enum Any {
    Port(SocketAddr),
    /// unix(7), "Autobind feature".
    Name,
}

impl Any {
    fn read(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let family = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
        let wants_port = || bytes.get(2..4) == Some(&[0, 0]);
        match i32::from(family) {
            libc::AF_UNIX if bytes.len() == 2 => Some(Self::Name),
            libc::AF_INET if wants_port() => {
                let address: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
                Some(Self::Port(SocketAddrV4::new(address.into(), 0).into()))
            }
            libc::AF_INET6 if wants_port() => {
                let address: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
                // The scope was added later (ipv6(7)).
                let scope = word(24).unwrap_or(0);
                let address = SocketAddrV6::new(address.into(), 0, word(4)?, scope);
                Some(Self::Port(address.into()))
            }
            _ => None,
        }
    }
}

impl Tracer {
    /// bind(2): a socket that takes any port gets the next one, and not one that the kernel has drawn.
    pub(super) fn bind(
        &mut self,
        tid: Tid,
        socket: i32,
        address: u64,
        length: u64,
    ) -> io::Result<Answer> {
        /// Bytes of `sockaddr_in6`.
        const LONGEST: usize = 28;
        const UNIX: [u8; 2] = [1, 0];
        let mut bytes = [0; LONGEST];
        let length = usize::try_from(length).map_or(LONGEST, |length| length.min(LONGEST));
        let read = sys::read_memory(tid, address, &mut bytes[..length])?;
        let Some(any) = Any::read(&bytes[..read]) else {
            let has_path = read > 2 && bytes[..2] == UNIX && bytes[2] != 0;
            return Ok(if has_path {
                // A file, which belongs to somebody.
                self.make(FileName {
                    directory: libc::AT_FDCWD,
                    path: address + 2,
                })
            } else {
                Answer::Native
            });
        };
        let Ok(socket) = self.descriptor(tid, socket) else {
            return Ok(Answer::Native);
        };
        Ok(match self.bind_next(tid, &socket, &any) {
            Ok(()) => Answer::Gives(0),
            Err(failure) => error(failure.raw_os_error()),
        })
    }

    /// connect(2), listen(2), sendto(2): the kernel draws a port for a socket that has none.
    pub(super) fn give_port(&mut self, tid: Tid, socket: i32) {
        let Ok(socket) = self.descriptor(tid, socket) else {
            return;
        };
        let name = getsockname(&socket).ok().map(SocketAddr::try_from);
        let Some(Ok(name)) = name.filter(|name| matches!(name, Ok(name) if name.port() == 0))
        else {
            return;
        };
        let kind = sockopt::socket_type(&socket);
        if !matches!(kind, Ok(SocketType::STREAM | SocketType::DGRAM)) {
            return;
        }
        let any = match name {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        // One that cannot have it is told so by the kernel.
        let _ = self.bind_next(tid, &socket, &Any::Port(any));
    }

    fn bind_next(&mut self, tid: Tid, socket: &OwnedFd, any: &Any) -> Result<(), Errno> {
        /// Tries, before a process hears that all are taken.
        const MOST: u16 = 1000;
        let ports = &mut self.process(tid).ports;
        let mut result = Ok(());
        for _ in 0..MOST {
            let port = ports.next();
            result = match any {
                Any::Port(address) => {
                    let mut address = *address;
                    address.set_port(port);
                    bind(socket, &address)
                }
                Any::Name => {
                    let name = format!("{port:05x}");
                    bind(socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)
                }
            };
            if result != Err(Errno::ADDRINUSE) {
                break;
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_takes_any_name_is_given_one() {
        let four = |port: u16| {
            let mut bytes = vec![0; 16];
            bytes[..2].copy_from_slice(&2u16.to_ne_bytes());
            bytes[2..4].copy_from_slice(&port.to_be_bytes());
            bytes[4..8].copy_from_slice(&[127, 0, 0, 1]);
            bytes
        };
        let address = match Any::read(&four(0)) {
            Some(Any::Port(address)) => address.to_string(),
            _ => String::new(),
        };
        assert_eq!(address, "127.0.0.1:0");
        assert!(Any::read(&four(80)).is_none());
        assert!(Any::read(&four(0)[..7]).is_none());
        let unix = 1u16.to_ne_bytes();
        assert!(matches!(Any::read(&unix), Some(Any::Name)));
        assert!(Any::read(&[unix.as_slice(), b"/x"].concat()).is_none());
    }

    #[test]
    fn ports_go_round() {
        let mut ports = Ports(COUNT - 1);
        assert_eq!([ports.next(), ports.next()], [FIRST + COUNT - 1, FIRST]);
    }
}
