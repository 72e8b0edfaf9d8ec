//! What an image runs on, in the words of the OCI image index (`platform`).

use std::fmt;
use std::str::FromStr;

/// Operating system, architecture and variant: `linux/amd64`, `linux/arm/v7`.
///
/// `linux/arm64` and `linux/arm64/v8` are one platform and are written `linux/arm64`; its variant is `v8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform(&'static Row);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Row {
    text: &'static str,
    os: &'static str,
    arch: &'static str,
    variant: &'static str,
    machine: &'static str,
    debian: &'static str,
}

const fn row(
    text: &'static str,
    arch: &'static str,
    variant: &'static str,
    machine: &'static str,
    debian: &'static str,
) -> Row {
    Row {
        text,
        os: "linux",
        arch,
        variant,
        machine,
        debian,
    }
}

/// Every platform that format 1 knows. Changing a row changes image bytes.
static PLATFORMS: [Row; 10] = [
    row("linux/386", "386", "", "i686", "i386"),
    row("linux/amd64", "amd64", "", "x86_64", "amd64"),
    row("linux/arm/v5", "arm", "v5", "armv5l", "armel"),
    row("linux/arm/v6", "arm", "v6", "armv6l", "armel"),
    row("linux/arm/v7", "arm", "v7", "armv7l", "armhf"),
    row("linux/arm64", "arm64", "v8", "aarch64", "arm64"),
    row("linux/loong64", "loong64", "", "loongarch64", "loong64"),
    row("linux/ppc64le", "ppc64le", "", "ppc64le", "ppc64el"),
    row("linux/riscv64", "riscv64", "", "riscv64", "riscv64"),
    row("linux/s390x", "s390x", "", "s390x", "s390x"),
];

/// A text names no known platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a platform")]
pub struct PlatformError(pub String);

impl Platform {
    /// All platforms, in the order of their names.
    pub fn all() -> impl Iterator<Item = Self> {
        PLATFORMS.iter().map(Self)
    }

    /// `linux`.
    pub fn os(self) -> &'static str {
        self.0.os
    }

    /// `amd64`, `arm64`, …: the name Go gives it, as OCI asks for.
    pub fn arch(self) -> &'static str {
        self.0.arch
    }

    /// `v8`, `v7`, … or empty.
    pub fn variant(self) -> &'static str {
        self.0.variant
    }

    /// `amd64`, `armhf`, …: the architecture whose packages Debian runs there.
    pub fn debian(self) -> &'static str {
        self.0.debian
    }

    /// `x86_64`, `aarch64`, …: what `uname -m` says there.
    pub fn machine(self) -> &'static str {
        self.0.machine
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.text)
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let text = match text {
            "linux/arm64/v8" => "linux/arm64",
            "linux/arm" => "linux/arm/v7",
            text => text,
        };
        PLATFORMS
            .iter()
            .find(|row| row.text == text)
            .map(Self)
            .ok_or_else(|| PlatformError(text.into()))
    }
}
