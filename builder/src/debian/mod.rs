//! Debian-format packages as a source: what an archive says, which packages are wanted, where they are, what they hold.
//!
//! Reading, comparing and choosing are pure; fetching says so in its own first line. Must never know the graph, the
//! sandbox, or how a lock is written.

pub mod control;
pub mod fetch;
pub mod index;
pub mod openpgp;
pub mod relation;
pub mod release;
pub mod solve;
pub mod sources;
pub mod version;
