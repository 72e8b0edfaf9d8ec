//! (to be written)

mod accounts;
pub mod apply;
pub mod file_op;
