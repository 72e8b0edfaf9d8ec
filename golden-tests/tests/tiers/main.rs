//! What the tiers `deterministic` and `strict` promise, asked from inside a step: each test says what a program must see,
//! not only that it sees it twice. Whether it is the same in every world is asked by the corpus in `hostile/`.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::needless_raw_string_hashes,
    reason = "tests take time, show what they saw, and keep scripts as they are"
)]

mod clock;
mod files;
mod inside;
mod machine;
mod probe;
mod processes;
mod programs;
mod random;
mod refusals;
mod stops;
mod strict;
mod supervise;
mod surroundings;
mod timers;
