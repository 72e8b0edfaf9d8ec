//! Crates by the project's own `Cargo.lock`, laid out as `cargo vendor` lays them.
//!
//! Nothing is solved here: their lock is the lock. No registry is known but those that this machine's cargo names
//! ([`places`]).

pub mod lock;
pub mod package;
pub mod places;
pub mod vendored;

#[cfg(test)]
mod tests;
