//! The system packages that the checks need: runtimes that read our images, file systems to build on, real inputs.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Debian's names.
const PACKAGES: &[&str] = &[
    "buildah",
    "busybox-static",
    "bzip2",
    "crun",
    "e2fsprogs",
    "gcc",
    "git",
    "libc6-dev",
    "make",
    "mmdebstrap",
    "podman",
    "python3",
    "skopeo",
    "sudo",
    "uidmap",
    "umoci",
    "unzip",
    "util-linux",
    "xfsprogs",
    "xz-utils",
    "zip",
    "zstd",
];

/// Installs what is missing.
pub fn install() -> Result<()> {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .copied()
        .filter(|package| !is_installed(package))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {}", missing.join(" "));
    apt(&["update", "--quiet=2"])?;
    let mut arguments = vec!["install", "--quiet=2", "--yes", "--no-install-recommends"];
    arguments.extend(missing);
    apt(&arguments)
}

fn is_installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}

fn apt(arguments: &[&str]) -> Result<()> {
    let status = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status()
        .context("cannot run apt-get: install these packages by hand")?;
    ensure!(
        status.success(),
        "apt-get {} ended with {status}",
        arguments.join(" ")
    );
    Ok(())
}
