//! Executing steps: what runs a process, and under which promises.
pub mod sandbox;
