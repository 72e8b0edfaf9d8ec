//! What a person sees while a build goes on and after it. The only home of `indicatif`.
//!
//! What people read goes to standard error, data to standard output.

mod progress;

use std::io::{self, Write as _};
use std::sync::OnceLock;

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

/// Why data on standard output was lost, the first time that some was.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// A line of data on standard output.
pub fn data(text: &str) {
    let mut out = io::stdout().lock();
    keep(writeln!(out, "{text}").and_then(|()| out.flush()));
}

/// Bytes as they are on standard output.
pub fn raw(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    keep(out.write_all(bytes).and_then(|()| out.flush()));
}

/// A reader that has gone away wants no more, and misses nothing.
fn keep(result: io::Result<()>) {
    if let Err(error) = result
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        let _ = LOST.set(error);
    }
}

/// Why not all data is on standard output, if it is not.
pub fn lost() -> Option<&'static io::Error> {
    LOST.get()
}
