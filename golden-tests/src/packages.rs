//! The system packages that the checks need: runtimes that read our images, file systems to build on, real inputs.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Debian's names.
const PACKAGES: &[&str] = &[
    "apache2-utils",
    "buildah",
    "busybox-static",
    "btrfs-progs",
    "bzip2",
    "containerd",
    "crun",
    "curl",
    "docker-registry",
    "e2fsprogs",
    "gcc",
    "git",
    "libc6-dev",
    "make",
    "mmdebstrap",
    "openssl",
    "podman",
    "python3",
    "python3-pip",
    "python3-venv",
    "python3-yaml",
    "qemu-user-static",
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

/// Those of `--full`, and the program for which each is needed: a machine may have it from elsewhere.
const PACKAGES_OF_FULL: &[(&str, &str)] = &[("docker.io", "dockerd")];

/// Installs what is missing.
pub fn install(full: bool) -> Result<()> {
    let lacking = PACKAGES_OF_FULL
        .iter()
        .filter(|(_, program)| full && Command::new(program).arg("--version").output().is_err())
        .map(|(package, _)| *package);
    let missing: Vec<&str> = PACKAGES
        .iter()
        .copied()
        .filter(|package| !is_installed(package))
        .chain(lacking)
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
