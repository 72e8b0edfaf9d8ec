//! immbuild: container images that are the same bytes everywhere, with proof.
//!
//! ```text
//! text ──parse──▶ Spec ──resolve──▶ Lock ──plan──▶ Graph ──realise──▶ Tree ──project──▶ Layers ──assemble──▶ Image ──▶ outputs
//!         pure            EFFECT            pure            EFFECT            pure             pure             EFFECT
//! ```
//!
//! The modules stand on floors; each uses only what is on a lower one, which a test checks
//! (`golden-tests/tests/floors.rs`).

// floor 0
pub mod diag;
pub mod epoch;
pub mod pattern;
pub mod platform;
// floor 1
pub mod lock;
pub mod spec;
// floor 2
pub mod graph;
// floor 3
pub mod compare;
pub mod image;
pub mod layer;
pub mod sbom;
// floor 4
pub mod ports;
// floor 5
pub mod cargo;
pub mod debian;
pub mod exec;
pub mod hostfs;
pub mod output;
pub mod python;
pub mod registry;
pub mod resolve;
// floor 6
pub mod app;
// floor 7
pub mod cli;
pub mod ui;
