//! `cargo ci`: everything that judges a change, on this machine and on any other, in one command.
//!
//! What it needs it installs, or it fails and names it. Nothing is skipped.

#![allow(clippy::print_stdout, reason = "a check tells what it does")]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use golden_tests::{containers, examples, goldens, hostile, matrix, packages, systems, workspace};

/// Runs every check of this repository.
#[derive(Debug, Parser)]
struct Arguments {
    /// The whole matrices, and the benchmark
    #[arg(long)]
    full: bool,
    /// Only the checks whose name contains one of these
    only: Vec<String>,
}

type Check = (&'static str, fn(&Arguments) -> Result<()>);

/// In order: what is quick to fail comes first.
const CHECKS: &[Check] = &[
    ("packages", |arguments| packages::install(arguments.full)),
    ("format", |_| cargo(&["fmt", "--all", "--check"])),
    ("lints", |_| {
        cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ])
    }),
    ("dependencies", |_| deny()),
    ("tests", |_| cargo(&["test", "--workspace", "--locked"])),
    ("real readers", |_| {
        cargo(&[
            "test",
            "--locked",
            "-p",
            "immbuild",
            "--lib",
            "--test",
            "consumers",
            "--test",
            "emulated",
            "--test",
            "function_zip",
            "--test",
            "images",
            "--test",
            "images_cli",
            "--test",
            "manifest",
            "--test",
            "registries",
            "--",
            "--ignored",
        ])
    }),
    ("documentation", |_| {
        run(Command::new("cargo")
            .args(["doc", "--workspace", "--no-deps", "--locked", "--quiet"])
            .env("RUSTDOCFLAGS", "-D warnings"))
    }),
    ("book", |_| book()),
    // With the features that this program was built with: nearly all of it is there already.
    ("release", |_| {
        cargo(&["build", "--release", "--workspace", "--locked", "--bins"])
    }),
    ("goldens, release", |_| {
        goldens::CASES.iter().try_for_each(goldens::judge)
    }),
    ("examples", |_| examples::build_all()),
    ("matrix", |arguments| matrix::run_matrix(arguments.full)),
    ("hostile", |arguments| hostile::check(arguments.full)),
];

/// What takes too long for every change, with `--full`.
const FULL: &[Check] = &[
    ("containers", |_| containers::check()),
    ("programs", |_| hostile::check_programs()),
    ("systems", |_| systems::check()),
    ("closures", |_| {
        cargo(&[
            "test",
            "--release",
            "--locked",
            "-p",
            "golden-tests",
            "--test",
            "closures",
            "--",
            "--ignored",
        ])
    }),
];

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !rustix::process::geteuid().is_root() {
        return again_as_root();
    }
    let mut passed = 0;
    let mut failed = Vec::new();
    let more = if arguments.full { FULL } else { &[] };
    for (name, check) in CHECKS.iter().chain(more) {
        let wanted = arguments.only.is_empty()
            || arguments
                .only
                .iter()
                .any(|part| name.contains(part.as_str()));
        if !wanted {
            continue;
        }
        println!("==> {name}");
        let start = Instant::now();
        match check(&arguments) {
            Ok(()) => {
                passed += 1;
                println!("==> {name}: ok, {:.0} s", start.elapsed().as_secs_f64());
            }
            Err(error) => {
                println!("==> {name}: FAILED: {error:#}");
                failed.push(format!("{name}: {error:#}"));
                // Without its packages nothing that follows means anything.
                if *name == "packages" {
                    break;
                }
            }
        }
    }
    // Once more, with the reasons: whoever reads a log of 10,000 lines begins at its end.
    for reason in &failed {
        println!("failed: {reason}");
    }
    println!("ci: {passed} passed, {} failed", failed.len());
    ExitCode::from(u8::from(!failed.is_empty()))
}

/// Loop mounts, user switching and package installation need root.
fn again_as_root() -> ExitCode {
    let program = std::env::current_exe().expect("a running program has a path");
    let keep = "--preserve-env=PATH,HOME,CARGO_HOME,RUSTUP_HOME,CI,PIP_CONFIG_FILE,PIP_INDEX_URL,PIP_FIND_LINKS,PIP_CERT,https_proxy";
    let status = Command::new("sudo")
        .arg(keep)
        .arg(program)
        .args(std::env::args_os().skip(1))
        .status();
    match status {
        Ok(status) => ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)),
        Err(error) => {
            println!("`cargo ci` needs root, and sudo cannot be run: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let status = command
        .current_dir(workspace())
        .status()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

fn cargo(arguments: &[&str]) -> Result<()> {
    run(Command::new("cargo").args(arguments))
}

fn deny() -> Result<()> {
    tool("cargo-deny", "0.20.2")?;
    // It wants to read the manifests of every crate in the lock, also of those for other systems.
    cargo(&["fetch", "--locked", "--quiet"])?;
    cargo(&["deny", "--offline", "check", "licenses", "bans", "sources"])
}

fn book() -> Result<()> {
    tool("mdbook", "0.5.4")?;
    let book = workspace().join("book");
    run(Command::new("mdbook").arg("build").arg(&book))?;
    check_links(&book.join("src"))
}

/// Installs a cargo tool of this version unless it is there.
fn tool(name: &str, version: &str) -> Result<()> {
    let found = Command::new(name).arg("--version").output();
    let right = found.is_ok_and(|output| {
        String::from_utf8_lossy(&output.stdout)
            .trim()
            .ends_with(version)
    });
    if right {
        return Ok(());
    }
    cargo(&[
        "install",
        "--locked",
        "--quiet",
        &format!("{name}@{version}"),
    ])
}

/// Every link from one page to another leads somewhere, and every page is in the summary.
fn check_links(pages: &Path) -> Result<()> {
    let summary = std::fs::read_to_string(pages.join("SUMMARY.md"))?;
    let mut broken = Vec::new();
    for page in walkdir::WalkDir::new(pages).sort_by_file_name() {
        let page = page?;
        if page
            .path()
            .extension()
            .is_none_or(|extension| extension != "md")
        {
            continue;
        }
        let relative = page.path().strip_prefix(pages)?.display().to_string();
        if relative != "SUMMARY.md" && !summary.contains(&format!("({relative})")) {
            broken.push(format!("{relative} is not in SUMMARY.md"));
        }
        let text = std::fs::read_to_string(page.path())?;
        let directory = page.path().parent().unwrap_or(pages);
        for target in links(&text) {
            let file: PathBuf = directory.join(target);
            if !file.exists() {
                broken.push(format!("{relative} links to {target}, which is not there"));
            }
        }
    }
    if !broken.is_empty() {
        bail!("{}", broken.join("; "));
    }
    Ok(())
}

/// The targets of relative links to pages in a Markdown text, without anchors.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.split('#').next().unwrap_or_default())
        .filter(|target| {
            Path::new(target)
                .extension()
                .is_some_and(|extension| extension == "md")
        })
        .filter(|target| !target.contains("://"))
}
