//! Finds what a spec asks for and brings it into the store: effects, network included.
//!
//! Must never know the graph, the sandbox, or how a lock is written.

mod folder;
pub mod git;
pub mod http;
pub mod image;
pub mod unpack;

pub use folder::EntryError;
