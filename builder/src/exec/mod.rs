//! Executing steps: what runs a process, and under which promises.
pub mod cache;
pub mod embedded;
mod interpreter;
pub mod key_material;
pub mod sandbox;
pub mod scheduler;
pub mod shell;
pub mod tracer;
