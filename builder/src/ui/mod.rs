//! What a person sees while a build goes on and after it. The only home of `indicatif`.
//!
//! Everything here goes to standard error; data goes to standard output and is written by `cli`.

mod progress;

use immbuild_cas::path::escape;

pub use progress::{Progress, Show};

/// Most characters of a step that are shown: with what stands before them, a line of a terminal.
const STEP_MAX: usize = 60;

/// A step's text on one line; a script can have many.
pub fn in_short(text: &str) -> String {
    let mut words = text.lines().map(str::trim_end);
    let first = words.next().unwrap_or_default();
    let mut short: String = first.chars().take(STEP_MAX).collect();
    if short.len() < first.len() || words.next().is_some() {
        short.push('…');
    }
    let mut shown = String::new();
    escape(short.as_bytes(), &mut shown).expect("a string takes everything");
    shown
}
