//! What it costs to read packages, beside `xz -d` of the same files: `cargo run --release -p golden-tests --bin debs -- FILE…`.
//!
//! Figures are processor seconds, user and system: on a machine that is shared they are what can be compared.

#![allow(clippy::print_stdout, reason = "figures are what it is for")]

use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use golden_tests::machine::{processor_seconds, run};
use immbuild::debian::set::Assembly;
use immbuild::graph::install::PackagePin;
use immbuild_cas::store::{LocalStore, Store as _};

/// Reads packages into an empty store.
#[derive(Debug, Parser)]
struct Arguments {
    /// Packages whose data is compressed with xz
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// How many are read at once
    #[arg(long, default_value = "2")]
    threads: NonZeroUsize,
    /// Where the store is made
    #[arg(long, default_value = "target")]
    dir: PathBuf,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let top = tempfile::Builder::new()
        .prefix("debs-")
        .tempdir_in(&arguments.dir)?;
    let store = LocalStore::open(&top.path().join("store"))?;
    let mut packages = Vec::new();
    for file in &arguments.files {
        let shown = file.display().to_string();
        let field = |name: &str| -> Result<String> {
            Ok(run("dpkg-deb", &["--field", &shown, name])?
                .trim()
                .to_owned())
        };
        let bytes = fs::read(file)?;
        let pin = PackagePin {
            name: field("Package")?,
            arch: field("Architecture")?,
            version: field("Version")?,
            sha256: *store.put_bytes(&bytes)?.digest(),
        };
        packages.push((pin, bytes.len() as u64));
    }
    packages.sort();
    let assembly = Assembly {
        store: &store,
        threads: arguments.threads,
        progress: &|_| {},
    };
    let mut ours = Vec::new();
    for _ in 0..2 {
        let (before, start) = (processor_seconds(libc::RUSAGE_SELF), Instant::now());
        assembly.assemble(&packages)?;
        ours.push((
            processor_seconds(libc::RUSAGE_SELF) - before,
            start.elapsed().as_secs_f64(),
        ));
    }
    let (before, start) = (processor_seconds(libc::RUSAGE_CHILDREN), Instant::now());
    for file in &arguments.files {
        let line = "ar p \"$0\" data.tar.xz | xz -dc >/dev/null";
        let status = Command::new("sh").args(["-c", line]).arg(file).status();
        ensure!(
            status.context("cannot run sh")?.success(),
            "{}",
            file.display()
        );
    }
    let xz = processor_seconds(libc::RUSAGE_CHILDREN) - before;
    let bytes: u64 = packages.iter().map(|(_, size)| size).sum();
    println!("{} packages, {:.1} MB", packages.len(), mega(bytes));
    println!("read       {:.2} CPU-s, {:.2} s", ours[0].0, ours[0].1);
    println!("again      {:.2} CPU-s, {:.2} s", ours[1].0, ours[1].1);
    println!(
        "xz -d      {xz:.2} CPU-s, {:.2} s one after the other",
        start.elapsed().as_secs_f64()
    );
    println!("ratio      {:.2}", ours[0].0 / xz);
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "it is shown with one digit")]
fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
