//! Raw bindings to the zstd 1.5.7 beside this crate, as the crate of this name has them.
#![no_std]
#![allow(
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    clippy::all,
    clippy::pedantic,
    reason = "generated"
)]

include!("bindings_zstd.rs");
