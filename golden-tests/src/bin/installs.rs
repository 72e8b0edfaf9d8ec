//! `cargo run --release -p golden-tests --bin installs -- redis-server postfix`: is an install by scripts one image whoever
//! builds it?

#![allow(
    clippy::print_stdout,
    reason = "what came of each package is what it is for"
)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use golden_tests::systems::Installs;

/// Installs each package with its scripts from empty stores as root, as a user without sub-uids and as one with them, in other
/// surroundings each, and says whether that gives one image
#[derive(Debug, Parser)]
struct Arguments {
    /// Packages
    #[arg(required = true)]
    packages: Vec<String>,
    /// Of this release
    #[arg(long, default_value = "bookworm")]
    suite: String,
    /// A file of `[[source.os.archive]]` tables, for an archive that this machine's apt does not have; paths in it are absolute
    #[arg(long, value_name = "FILE")]
    archives: Option<PathBuf>,
    /// In which the scripts run
    #[arg(long, default_value = "deterministic", value_parser = ["deterministic", "strict"])]
    tier: String,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if !rustix::process::geteuid().is_root() {
        bail!("other users need root");
    }
    let archives = arguments.archives.map(std::fs::read_to_string);
    let installs = Installs {
        suite: arguments.suite,
        tier: arguments.tier,
        archives: archives
            .transpose()
            .context("cannot read the archives")?
            .unwrap_or_default(),
    };
    let mut is_good = true;
    for package in &arguments.packages {
        let (word, rest) = match installs.digests(package) {
            Ok(digests) if digests.len() == 1 => ("identical", digests.into_iter().collect()),
            Ok(digests) => ("differs", Vec::from_iter(digests)),
            Err(error) => ("failed", vec![format!("{error:#}")]),
        };
        is_good &= word == "identical";
        println!("{package:24} {word:9} {}", rest.join(" "));
    }
    Ok(ExitCode::from(u8::from(!is_good)))
}
