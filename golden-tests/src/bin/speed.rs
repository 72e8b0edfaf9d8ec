//! What the tiers cost, and what a system costs beside mmdebstrap: `cargo run --release -p golden-tests --bin speed -- tiers`.
//!
//! Figures are processor seconds of a command with all its children, user and system: on a machine that is shared they are
//! what can be compared. What is compared is run in turn.

#![allow(clippy::print_stdout, reason = "figures are what it is for")]

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Parser, ValueEnum};
use golden_tests::machine::{FileSystem, Mounted, processor_seconds, run};
use golden_tests::{immbuild, roots, scratch, workspace};

/// Times whole builds beside what they are to be compared with
#[derive(Debug, Parser)]
struct Arguments {
    what: What,
    /// How many times each is run; the median of the ratios counts
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Only these
    #[arg(long, num_args = 1..)]
    only: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// The stages of `golden-tests/speed/spec.toml` under each tier, beside `isolated`
    Tiers,
    /// Debian systems with their scripts, packages in the store, beside mmdebstrap, which downloads them. It writes a tar:
    /// what counts is an image whose layer is not compressed either
    Systems,
}

/// A stage, the goal under `deterministic`, and that under `strict` if there is one.
const STAGES: [(&str, f64, Option<f64>); 8] = [
    ("gcc", 1.15, Some(2.5)),
    ("make", 1.15, None),
    ("configure-make", 1.15, None),
    ("compileall", 1.3, None),
    ("apt", 1.8, None),
    ("cargo", 1.2, None),
    ("additions", 1.01, None),
    ("tar", 2.0, None),
];

const SYSTEMS: [&str; 5] = [
    "python3-minimal",
    "nginx-light",
    "openjdk-17-jre-headless",
    "postgresql-15",
    "build-essential",
];

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let place = scratch().join("speed");
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place)?;
    match arguments.what {
        What::Tiers => tiers(&arguments, &place)?,
        What::Systems => systems(&arguments, &place)?,
    }
    fs::remove_dir_all(&place)?;
    Ok(())
}

impl Arguments {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

fn tiers(arguments: &Arguments, place: &Path) -> Result<()> {
    let root = roots::programs()?.display().to_string();
    let text = fs::read_to_string(workspace().join("golden-tests/speed/spec.toml"))?;
    let spec = |tier: &str, run: usize| -> Result<PathBuf> {
        let text = text.replace("\"ROOT\"", &format!("{root:?}"));
        let text = text.replace("# RUN", &format!("# {run}"));
        let file = place.join(format!("{tier}.toml"));
        fs::write(&file, text.replace("\"isolated\"", &format!("\"{tier}\"")))?;
        Ok(file)
    };
    let store = place.join("store");
    println!("| stage | isolated | deterministic | goal | strict | goal |");
    println!("|---|---|---|---|---|---|");
    for (stage, goal, strict) in STAGES {
        if !arguments.wants(stage) {
            continue;
        }
        let build = |tier: &str, run: usize| -> Result<f64> {
            let spec = spec(tier, run)?.display().to_string();
            let store = store.display().to_string();
            cpu(
                &immbuild().display().to_string(),
                &[
                    "build", &spec, "--store", &store, "--stage", stage, "--quiet",
                ],
            )
        };
        // The first makes what the stage begins with.
        build("isolated", 0)?;
        build("deterministic", 0)?;
        if strict.is_some() {
            build("strict", 0)?;
        }
        let (mut plain, mut ours, mut alone) = (Vec::new(), Vec::new(), Vec::new());
        for run in 1..=arguments.runs {
            let isolated = build("isolated", run)?;
            plain.push(isolated);
            ours.push(build("deterministic", run)? / isolated);
            if strict.is_some() {
                alone.push(build("strict", run)? / isolated);
            }
        }
        let (alone, least) = match strict {
            Some(goal) => (shown(&mut alone), format!("≤ {goal}")),
            None => Default::default(),
        };
        println!(
            "| {stage} | {:.2} CPU-s | {} | ≤ {goal} | {alone} | {least} |",
            median(&mut plain),
            shown(&mut ours)
        );
    }
    Ok(())
}

/// Every command has a fresh ext4 to itself: what others removed from one costs the next who makes files on it.
fn systems(arguments: &Arguments, place: &Path) -> Result<()> {
    println!("| system | one tar | mmdebstrap | ratio | goal | zstd layer | ratio |");
    println!("|---|---|---|---|---|---|---|");
    let ours = immbuild().display().to_string();
    for system in SYSTEMS {
        if !arguments.wants(system) {
            continue;
        }
        let directory = place.join(system);
        fs::create_dir_all(&directory)?;
        let spec = |compression: &str| {
            format!(
                "immbuild = 1\n\n[source.os]\ndebian = \"bookworm\"\npackages = [\"{system}\"]\n\n\
                 [image]\nfrom = \"os\"\ncompression = \"{compression}\"\nsteps = []\n\n\
                 [[output]]\nkind = \"oci-archive\"\nfile = \"out/image.tar\"\n"
            )
        };
        fs::write(directory.join("spec.toml"), spec("zstd"))?;
        let told = |words: &[&str], at: &Path| {
            let spec = at.join("spec.toml").display().to_string();
            let store = at.join("store").display().to_string();
            cpu(
                &ours,
                &[words, &["--quiet", "--store", &store, "--spec", &spec]].concat(),
            )
        };
        let vendor = directory.join("vendor").display().to_string();
        told(&["lock"], &directory)?;
        told(&["vendor", "-o", &vendor], &directory)?;
        let disk = || Mounted::new(FileSystem::Ext4, 12, place, system);
        let build = |compression: &str| -> Result<f64> {
            let disk = disk()?;
            fs::write(disk.path().join("spec.toml"), spec(compression))?;
            fs::copy(directory.join("spec.lock"), disk.path().join("spec.lock"))?;
            told(&["vendor", "--read", &vendor], disk.path())?;
            told(&["build", "--locked", "--offline"], disk.path())
        };
        let (mut tars, mut layers, mut others) = (Vec::new(), Vec::new(), Vec::new());
        let (mut ratios, mut compressed) = (Vec::new(), Vec::new());
        for _ in 0..arguments.runs {
            let tar = build("none")?;
            let layer = build("zstd")?;
            let disk = disk()?;
            let at = disk.path().display();
            let beside = cpu(
                "env",
                &[
                    &format!("TMPDIR={at}"),
                    "mmdebstrap",
                    "--quiet",
                    "--mode=root",
                    "--variant=essential",
                    &format!("--include={system}"),
                    "bookworm",
                    &format!("{at}/image.tar"),
                ],
            )?;
            ratios.push(tar / beside);
            compressed.push(layer / beside);
            tars.push(tar);
            layers.push(layer);
            others.push(beside);
        }
        println!(
            "| {system} | {:.2} CPU-s | {:.2} CPU-s | {} | ≤ 0.4 | {:.2} CPU-s | {:.2} |",
            median(&mut tars),
            median(&mut others),
            shown(&mut ratios),
            median(&mut layers),
            median(&mut compressed)
        );
    }
    Ok(())
}

/// The median, and between what it lies.
fn shown(ratios: &mut [f64]) -> String {
    let middle = median(ratios);
    let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
    format!("**{middle:.2}** ({least:.2} to {most:.2})")
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Runs a command, and gives the processor seconds that it and its children took.
fn cpu(program: &str, arguments: &[&str]) -> Result<f64> {
    let before = processor_seconds(libc::RUSAGE_CHILDREN);
    run(program, arguments)?;
    Ok(processor_seconds(libc::RUSAGE_CHILDREN) - before)
}
