//! The language of a spec: text in, [`model::Resolved`] out, or everything that is wrong with it.
//!
//! Pure: no files, no clock, no environment. Must never know the network or how pins are found.

pub mod model;
