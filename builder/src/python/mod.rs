//! Python packages by the project's own lock: `uv.lock`, `pylock.toml` or hashed requirements.
//!
//! Nothing is solved here: their lock is the lock. It says which files there may be, each with its digest; for one
//! interpreter and platform the best wheel of each package is chosen ([`choose`]), read ([`wheel`]) and put into an
//! environment ([`environment`]). Nothing of a package is executed, and no index is known but those that the machine or
//! its user names ([`places`]).

pub mod choose;
pub mod environment;
pub mod index;
pub mod locked;
pub mod marker;
pub mod name;
pub mod places;
pub mod pylock;
pub mod record;
pub mod requirements;
pub mod scripts;
pub mod target;
pub mod uv;
pub mod version;
pub mod wheel;

#[cfg(test)]
mod tests;
