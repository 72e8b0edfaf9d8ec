//! What a person sees while a build goes on and after it. The only home of `indicatif`.
//!
//! Everything here goes to standard error; data goes to standard output and is written by `cli`.

mod progress;

pub use progress::{Progress, Show};
