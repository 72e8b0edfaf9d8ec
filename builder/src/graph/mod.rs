//! (to be written)

pub mod apply;
pub mod file_op;
