//! Runs a process and all it starts under a virtual clock, virtual randomness and virtual file numbers.
//!
//! Effects: traces processes (ptrace(2), seccomp(2)). Must not know steps, stores, trees or how the
//! surroundings were made.

pub mod evidence;

use immbuild_cas::digest::Digest;

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
