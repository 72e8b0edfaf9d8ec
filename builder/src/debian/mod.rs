//! Debian-format packages as a source: what an archive says, which packages are wanted, where they are, what they hold, and
//! what a root becomes with them.
//!
//! Reading, comparing, choosing and installing are pure; fetching says so in its own first line. Must never know the
//! sandbox, or how a lock is written.

pub mod control;
pub mod deb;
pub mod fetch;
pub mod fixups;
pub mod groups;
pub mod index;
pub mod install;
pub mod openpgp;
pub mod package;
pub mod relation;
pub mod release;
mod scripts;
pub mod set;
mod shell;
pub mod solve;
pub mod sources;
pub mod status;
mod sums;
mod unpack;
pub mod version;

#[cfg(test)]
mod tests;
