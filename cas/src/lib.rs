//! Content-addressed directories, trees and stores.
//!
//! A [`tree::Tree`] is a file system as a value: no times, no inode numbers, no order but the one
//! its names have. Equal content has an equal id on every machine; that is the whole point.
//!
//! ```
//! use immbuild_cas::digest::Digest;
//!
//! let digest = Digest::of(b"hello\n");
//! assert_eq!(
//!     digest.to_string(),
//!     "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
//! );
//! assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
//! ```
//!
//! May use: the standard library, `sha2`, system calls. Must never know: OCI, TOML, tar, processes.

pub mod canonical;
pub mod digest;
pub mod path;
pub mod store;
pub mod tree;
