//! Bad input gets a clear error with the status of the reference, and nothing is lost or half-written: tried as a user
//! would, with the program. What is wrong in a spec or lock itself is in the `told` test of `immbuild`.

mod inputs;
mod killed;
mod lock;
mod machine;
mod steps;
mod usage;
