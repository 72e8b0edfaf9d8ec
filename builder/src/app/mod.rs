//! The use cases, one in each file: what a command does, without arguments, colours or terminals.

pub mod build;
pub mod cache;
pub mod compare;
pub mod doctor;
pub mod explain;
pub mod failure;
pub mod graph;
pub mod init;
pub mod inspect;
pub mod layers;
pub mod libraries;
pub mod load;
pub mod locate;
pub mod lock;
pub mod manifest;
pub mod memory;
pub mod outputs;
mod package_layers;
pub mod packages;
pub mod pins;
pub mod planned;
pub mod project;
pub mod realise;
pub mod sbom;
pub mod scratch;
pub mod session;
pub mod shell;
pub mod step_failure;
pub mod until;
pub mod user;
pub mod vendor;
pub mod verify;
pub mod why;

pub use failure::{Exit, Failure};
pub use project::Project;
pub use session::{Session, Settings};
