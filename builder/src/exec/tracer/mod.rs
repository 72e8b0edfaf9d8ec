//! Runs a process and all it starts under a virtual clock, virtual randomness and virtual file numbers.
//!
//! [`arm`] puts a filter in force in the process that will run the program; every call that the filter
//! names then stops its thread, and [`Tracer`] answers it instead of the kernel, or lets it go on with
//! other arguments, or changes what it gave. Everything else runs at full speed. It works on any program,
//! static ones too, and takes no privilege.
//!
//! Where what is told comes from: `clock`, `random`, `files`, `waits`. How calls are answered:
//! `answer` (values), `time` (waits and timers), `open` (devices), `stat` (files),
//! `owners` (users and owners), `access` (what users may do), `inside` (by the process itself). How threads are
//! stopped and go on: `run`, and `strict` for one at a time. What depends on the processor: `arch`.
//!
//! Effects: traces processes (ptrace(2), seccomp(2)). Must not know steps, stores, trees or how the
//! surroundings were made.
#![allow(
    clippy::disallowed_methods,
    reason = "a timer has a real time at the latest; it reaches no byte unless a program computes without end"
)]

mod access;
mod again;
mod alone;
mod answer;
mod arch;
mod busy;
mod call;
mod clock;
pub mod evidence;
mod feeder;
mod files;
mod filter;
mod ids;
mod inside;
mod names;
mod open;
mod owners;
mod place;
mod ports;
mod proc;
mod random;
mod rest;
mod run;
mod spin;
mod stat;
mod streams;
mod strict;
mod sys;
mod time;
mod vdso;
mod waits;

use std::io;

use immbuild_cas::digest::Digest;
use seccompiler::sock_filter;

pub use alone::{AloneError, supervise};
pub use run::{Ended, Tracer};
pub use spin::Spin;

/// Processors that a process is told of.
pub const PROCESSORS: u32 = 4;

/// What a process gets instead of the machine's clock, randomness and file numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Virtual {
    /// Where its clock starts: seconds since 1970.
    pub epoch: i64,
    /// Where all its random bytes come from.
    pub seed: Digest,
    /// What file times, inode numbers and the order of directories are.
    pub metadata: Metadata,
    /// One thread runs at a time.
    pub strict: bool,
    /// Users and owners are emulated, because only id 0 exists.
    pub owners: bool,
}

/// What a process is told about files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// Numbers, times and order that depend on nothing outside.
    Virtual,
    /// What the file system says; only what the process leaves is made equal. For programs that ask about
    /// very many files.
    Clamp,
}

/// Names that uname(2) gives.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// The host's.
    pub host: &'static str,
    /// The NIS domain's.
    pub domain: &'static str,
    /// The kernel's release.
    pub release: &'static str,
    /// The kernel's version.
    pub version: &'static str,
    /// Bytes of memory.
    pub memory: u64,
}

/// The filter program for a process that is to be traced, to be installed when its tracer is there.
pub fn filter(what: &Virtual) -> Vec<sock_filter> {
    filter::program(what)
}

/// Bytes of the file that [`Tracer::answering_inside`] takes.
pub const INSIDE: u64 = inside::LENGTH;

impl Virtual {
    /// Whether processes can answer questions about files themselves: where one thread runs at a time each question is a
    /// place to let another go on.
    pub fn answers_inside(&self) -> bool {
        self.metadata == Metadata::Virtual && !self.strict
    }
}

/// Prepares the calling thread, and all that it will start, for being traced.
pub fn arm() -> io::Result<()> {
    sys::hide_time_stamp_counter()
}
