//! Bad input gets a clear error with the status of the reference, and nothing is lost or half-written: tried as a user
//! would, with the program. What is wrong in a spec or lock itself is in the `told` test of `immbuild`.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::large_stack_arrays,
    clippy::needless_raw_string_hashes,
    reason = "tests list what they made, show what they saw, and keep rendered messages as they are"
)]

mod inputs;
mod killed;
mod lock;
mod machine;
mod steps;
mod usage;
