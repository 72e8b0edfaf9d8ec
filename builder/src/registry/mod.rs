//! Registries (OCI distribution-spec 1.1): images come from them and go to them.
//!
//! EFFECT: the network, credential files and helpers. May use: floors 0 to 4, `resolve::http` for its connections. Must never
//! know how an image was made or what a lock says. Nothing that a registry says is believed: documents and blobs are what their
//! digests say, or are not taken.

pub mod access;
mod challenge;
pub mod client;
pub mod credentials;
mod pull;
mod push;
mod referrers;
mod results;
mod signing;

pub use access::{Access, HostAccess};
pub use client::{Client, Patience};
pub use pull::{Document, Found, Part, Pull};
pub use push::{Push, Pushed, Whole};
pub use referrers::{AttachedFile, Attachment};
pub use results::{SharedResult, Statement};
pub use signing::{KeyError, PublicKey, SecretKey};

use immbuild_cas::digest::Digest;
use immbuild_cas::store::StoreError;

use crate::image::ReadError;

/// Why a registry did not give or take something.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No answer, or only ones that say to come again.
    #[error("`{url}` does not answer: {cause}{}", times(*attempts))]
    Unreachable {
        /// Who was asked.
        url: String,
        /// How the last attempt failed.
        cause: String,
        /// How many there were.
        attempts: u32,
    },
    /// The other side, or this one, is not who it should be.
    #[error("`{url}` cannot be spoken to safely: {cause}")]
    Tls {
        /// Who was asked.
        url: String,
        /// What the connection's protocol says.
        cause: String,
    },
    /// It wants to know who asks, and does not let this one in.
    #[error("`{host}` does not let {} in: {said}", if *named { "this user" } else { "who has no name" })]
    Unauthorized {
        /// The registry.
        host: String,
        /// Was there a credential?
        named: bool,
        /// What it said.
        said: String,
    },
    /// A credential cannot be had.
    #[error("the credential for `{host}` cannot be had: {cause}")]
    Credential {
        /// The registry.
        host: String,
        /// Why not.
        cause: String,
    },
    /// A file that says how to reach the registry cannot be used.
    #[error("`{path}`, which is to reach `{host}`, cannot be used: {cause}")]
    Access {
        /// The registry.
        host: String,
        /// The file.
        path: String,
        /// Why not.
        cause: String,
    },
    /// It has no such thing.
    #[error("`{0}` is not there")]
    NotFound(String),
    /// It does not want to.
    #[error("`{host}` refuses {what} (HTTP {status}){said}")]
    Refused {
        /// The registry.
        host: String,
        /// What it was asked for.
        what: String,
        /// The status it answered with.
        status: u16,
        /// What it said, with a colon in front, or nothing.
        said: String,
    },
    /// It points to a place where we do not go.
    #[error("`{host}` points elsewhere: {cause}")]
    Redirect {
        /// The registry.
        host: String,
        /// Where, and why not there.
        cause: String,
    },
    /// An answer that the protocol does not have.
    #[error("`{host}` answers what no registry does: {cause}")]
    Protocol {
        /// The registry.
        host: String,
        /// What is wrong with it.
        cause: String,
    },
    /// Other bytes than those asked for.
    #[error("{what} of `{from}` is not {expected}: its bytes are those of {actual}")]
    Mismatch {
        /// What it should be.
        what: String,
        /// The repository.
        from: String,
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// More or fewer bytes than its descriptor says.
    #[error("{what} of `{from}` has {actual} bytes, its descriptor says {expected}")]
    Size {
        /// What it should be.
        what: String,
        /// The repository.
        from: String,
        /// In the descriptor.
        expected: u64,
        /// What came: at least so many.
        actual: u64,
    },
    /// The manifest is not one of the index that is locked.
    #[error("manifest {manifest} is not in index {index} of `{from}` for {platform}")]
    NotInIndex {
        /// The manifest.
        manifest: Digest,
        /// The index.
        index: Digest,
        /// The repository.
        from: String,
        /// What it should be for.
        platform: String,
    },
    /// An image in Docker's first form, which has neither digests of layers nor a config.
    #[error("`{0}` is an image of schema 1, Docker's first form")]
    Schema1(String),
    /// A document is damaged or hostile, or of a kind that cannot be used.
    #[error("the image in `{from}` cannot be used")]
    Document {
        /// Where it is.
        from: String,
        /// Which document and field.
        source: ReadError,
    },
    /// The network is needed and not allowed: all that is missing.
    #[error("{} of `{from}` not in the store, and the network is off: {}", count(missing.len()), missing.join(", "))]
    Offline {
        /// Where it would be fetched from.
        from: String,
        /// What is missing.
        missing: Vec<String>,
    },
    /// Several parts were not fetched.
    #[error("{}", several(.0))]
    Several(Vec<RegistryError>),
    /// The process is asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// What is to be sent cannot be read, or what was fetched cannot be kept.
    #[error("cannot use the store")]
    Store(#[from] StoreError),
}

fn times(attempts: u32) -> String {
    match attempts {
        0 | 1 => String::new(),
        _ => format!(" ({attempts} attempts)"),
    }
}

fn count(number: usize) -> String {
    match number {
        1 => "1 part is".to_owned(),
        _ => format!("{number} parts are"),
    }
}

fn several(errors: &[RegistryError]) -> String {
    let all: Vec<String> = errors
        .iter()
        .map(|error| match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        })
        .collect();
    all.join("; ")
}

impl RegistryError {
    /// One error for all of them: itself when it is the only one, or when it makes the others meaningless.
    fn of_all(mut errors: Vec<Self>) -> Self {
        let decisive = |error: &Self| {
            matches!(
                error,
                Self::Interrupted
                    | Self::Store(_)
                    | Self::Unauthorized { .. }
                    | Self::Credential { .. }
                    | Self::Access { .. }
                    | Self::Tls { .. }
            )
        };
        if let Some(at) = errors.iter().position(decisive) {
            return errors.swap_remove(at);
        }
        if errors.len() == 1 {
            return errors.remove(0);
        }
        errors.sort_by_key(ToString::to_string);
        Self::Several(errors)
    }
}
