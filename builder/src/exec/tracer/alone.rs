//! A traced command without a sandbox around it: in front of any command, inside any container.
#![allow(
    unsafe_code,
    reason = "fork(2), prctl(2) and seccomp(2) have no safe wrapper"
)]

use std::ffi::{CString, OsString};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;

use super::run::{Ended, Tracer};
use super::{Names, Virtual};

/// Why a command has no end.
#[derive(Debug, thiserror::Error)]
pub enum AloneError {
    /// There is no such program, or it cannot be executed.
    #[error("cannot execute the program")]
    Program(#[source] io::Error),
    /// The machine does not let it be traced, or tracing it failed.
    #[error("cannot trace the program")]
    Machine(#[from] io::Error),
}

/// What the child says before the number of its error.
const CANNOT_EXECUTE: u8 = b'x';
const CANNOT_PREPARE: u8 = b'p';

/// Runs the command to its end under a tracer, in the surroundings of the caller, whose process must have
/// one thread. The command gets the caller's standard streams.
pub fn supervise(argv: &[OsString], what: Virtual, names: Names) -> Result<Ended, AloneError> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(AloneError::Program(io::ErrorKind::InvalidInput.into()));
    };
    let (mut start, mut starter) = io::pipe()?;
    let (mut failures, mut failed) = io::pipe()?;
    let filter = super::filter(&what);
    // SAFETY: the caller has one thread, so the child finds no lock held.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err(AloneError::Machine(io::Error::last_os_error()));
    }
    if child == 0 {
        drop((starter, failures));
        let prepared = (|| {
            start.read_exact(&mut [0])?;
            fix_addresses()?;
            super::arm()?;
            install(&filter)
        })();
        let (kind, error) = match prepared {
            Err(error) => (CANNOT_PREPARE, error),
            Ok(()) => (
                CANNOT_EXECUTE,
                std::process::Command::new(program).args(arguments).exec(),
            ),
        };
        let number = error.raw_os_error().unwrap_or(libc::EIO);
        let _ = failed.write_all(&[kind]);
        let _ = failed.write_all(&number.to_ne_bytes());
        // SAFETY: takes a number and does not return.
        unsafe { libc::_exit(127) }
    }
    drop((start, failed));
    let tracer = Tracer::seize(child, what, names)?;
    let (inside, path) = shared()?;
    let tracer = tracer.answering_inside(inside, &path)?;
    starter.write_all(b"!")?;
    drop(starter);
    let ended = tracer.run(child)?;
    let (mut kind, mut number) = ([0], [0; 4]);
    let failed = failures
        .read_exact(&mut kind)
        .and_then(|()| failures.read_exact(&mut number));
    if failed.is_err() {
        return Ok(ended);
    }
    let error = io::Error::from_raw_os_error(i32::from_ne_bytes(number));
    Err(match kind {
        [CANNOT_EXECUTE] => AloneError::Program(error),
        _ => AloneError::Machine(error),
    })
}

/// A file that the traced processes find at this path.
fn shared() -> io::Result<(std::fs::File, CString)> {
    let file = rustix::fs::memfd_create("immbuild", rustix::fs::MemfdFlags::CLOEXEC)?;
    let own = rustix::process::getpid();
    let path = format!("/proc/{own}/fd/{}", file.as_raw_fd());
    Ok((file.into(), CString::new(path)?))
}

fn fix_addresses() -> io::Result<()> {
    let value = libc::c_ulong::from(libc::ADDR_NO_RANDOMIZE.unsigned_abs());
    // SAFETY: takes a number.
    match unsafe { libc::personality(value) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Puts the filter in force. Without the right to do so in another way, set-user-id programs lose theirs.
fn install(filter: &[seccompiler::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: filter.len().try_into().expect("a short program"),
        filter: filter.as_ptr().cast_mut().cast(),
    };
    // SAFETY: `program` points to `len` instructions, which the kernel copies before it returns.
    let attempt = || unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    };
    if attempt() == 0 {
        return Ok(());
    }
    // SAFETY: takes numbers.
    unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    match attempt() {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
