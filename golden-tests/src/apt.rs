//! This machine's apt as a judge: what it would install on nothing at all, from the lists that it has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// An apt that believes that nothing is installed, with a cache of its own.
#[derive(Debug)]
pub struct Apt {
    place: tempfile::TempDir,
}

/// What is asked of it.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// These packages.
    pub packages: &'a [String],
    /// With what they recommend.
    pub recommends: bool,
    /// With every essential package.
    pub essential: bool,
}

impl Apt {
    /// Brings the machine's lists up to date, once.
    pub fn new() -> Result<Self> {
        let place = tempfile::tempdir()?;
        std::fs::write(place.path().join("status"), "")?;
        let apt = Self { place };
        if apt.lists()?.is_empty() {
            let status = Command::new("apt-get")
                .args(["update", "--quiet=2"])
                .status()?;
            ensure!(status.success(), "apt-get update ended with {status}");
        }
        // Made once, or else every question makes it.
        let status = apt
            .command("apt-cache")
            .args(["gencaches", "-q"])
            .output()?
            .status;
        ensure!(status.success(), "apt-cache gencaches ended with {status}");
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let path = |name: &str| self.place.path().join(name).display().to_string();
        for option in [
            format!("Dir::State::status={}", path("status")),
            format!("Dir::Cache::pkgcache={}", path("pkgcache.bin")),
            format!("Dir::Cache::srcpkgcache={}", path("srcpkgcache.bin")),
            // By itself it takes itself for essential, which no archive says.
            "pkgCacheGen::ForceEssential=,".to_owned(),
            "Dir::Etc::preferences=/dev/null".to_owned(),
            "Dir::Etc::preferencesparts=/dev/null".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command.env("LC_ALL", "C");
        command
    }

    /// The files of `Packages` that it reads, in its order.
    pub fn lists(&self) -> Result<Vec<PathBuf>> {
        let output = self
            .command("apt-get")
            .args([
                "indextargets",
                "--format",
                "$(FILENAME)",
                "Created-By: Packages",
            ])
            .output()
            .context("apt-get does not run")?;
        let text = String::from_utf8(output.stdout)?;
        Ok(text
            .lines()
            .map(PathBuf::from)
            .filter(|path| path.exists())
            .collect())
    }

    /// The text of such a file, which apt keeps compressed in its own way.
    pub fn text(&self, list: &Path) -> Result<String> {
        let output = Command::new("/usr/lib/apt/apt-helper")
            .arg("cat-file")
            .arg(list)
            .output()?;
        ensure!(output.status.success(), "cannot read {}", list.display());
        Ok(String::from_utf8(output.stdout)?)
    }

    /// What it would install: names and versions. An error is what it says.
    pub fn closure(
        &self,
        question: &Question<'_>,
    ) -> Result<Result<BTreeMap<String, String>, String>> {
        let recommends = if question.recommends { "1" } else { "0" };
        let mut command = self.command("apt-get");
        command.args([
            "-s",
            "-q",
            "-o",
            &format!("APT::Install-Recommends={recommends}"),
        ]);
        command.arg("install");
        if question.essential {
            command.arg("?essential");
        }
        let output = command.args(question.packages).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            return Ok(Err(format!("{text}{error}")));
        }
        let inst = |line: &str| {
            let mut words = line.strip_prefix("Inst ")?.split_whitespace();
            let (name, version) = (words.next()?, words.next()?);
            Some((name.to_owned(), version.trim_start_matches('(').to_owned()))
        };
        Ok(Ok(text.lines().filter_map(inst).collect()))
    }
}
