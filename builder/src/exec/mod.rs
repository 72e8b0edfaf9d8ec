//! (to be written)
pub mod sandbox;
