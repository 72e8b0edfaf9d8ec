//! The lock: what was found for what a spec asks. Text in, [`model::Lock`] out, and back.
//!
//! Pure: no files, no clock. Must never know the network or how pins are found.

mod check;
mod file;
pub mod model;

pub use check::{Check, Outdated, Why, check, requests};
pub use file::{RESTORE, parse, write};

#[cfg(test)]
mod tests;
