//! A recipe: one step that leaves something in its tree which comes from outside its inputs, and what that is.
//!
//! Knows the form of the files in `hostile/`, and nothing of how they are built.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// How a step can be isolated from its surroundings, least first.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Its view of the machine is constant, as far as that can be had without looking at system calls.
    Isolated,
    /// Clock, randomness and metadata are virtual too.
    Deterministic,
    /// One thread at a time too.
    Strict,
}

impl Tier {
    /// Its name in a spec.
    pub fn name(self) -> &'static str {
        match self {
            Self::Isolated => "isolated",
            Self::Deterministic => "deterministic",
            Self::Strict => "strict",
        }
    }
}

impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Where what differs comes from. Verification is scored against these, so each names the source itself, not the program
/// that reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The time of day.
    Clock,
    /// A clock that counts from some start: monotonic, raw, boot.
    MonotonicClock,
    /// Time since the machine was started, and when that was.
    Uptime,
    /// What a process or thread has used of the processor.
    CpuTime,
    /// The cycle counter of the processor.
    Tsc,
    /// When a timer or a timeout is over.
    Timers,
    /// The kernel's random numbers, on whatever path.
    Random,
    /// The random bytes that a program gets when it is started.
    AuxiliaryRandom,
    /// The identity of one start of the machine.
    BootId,
    /// Where code, stack and heap are.
    AddressSpace,
    /// Numbers of processes and threads.
    Pid,
    /// Which thread of a process comes first.
    ThreadRace,
    /// Which of several processes ends, or writes, first.
    CompletionOrder,
    /// The order in which a directory gives its names.
    DirectoryOrder,
    /// Inode numbers.
    Inode,
    /// Times of files: modification, change, access, birth.
    FileTime,
    /// Link counts.
    LinkCount,
    /// How many blocks a file or a directory takes, and of what size.
    BlockCount,
    /// Where on the disk the blocks of a file are.
    BlockPlace,
    /// Numbers of devices that file systems are on.
    DeviceNumber,
    /// The order in which extended attributes are given.
    AttributeOrder,
    /// Room on a file system.
    DiskSpace,
    /// The table of mounts.
    Mounts,
    /// Instructions that ask the processor itself.
    CpuInstruction,
    /// What kind of processor it is, as the kernel tells.
    CpuModel,
    /// How many processors there are, and which one this is.
    CpuCount,
    /// How much memory there is, and how much is free.
    MemorySize,
    /// How busy the machine is.
    Load,
    /// Name, release and version of the kernel.
    KernelRelease,
    /// The name of the host.
    Hostname,
    /// Addresses, interfaces and ports.
    Network,
    /// Who the builder is.
    User,
    /// Environment variables of the builder.
    Environment,
    /// The builder's mask for modes of new files.
    Umask,
    /// The builder's locale.
    Locale,
    /// The builder's time zone.
    Timezone,
    /// Limits on processes.
    Limits,
    /// Scheduling priority.
    Nice,
    /// The terminal, or that there is none.
    Terminal,
    /// The path where the build happens.
    Path,
}

impl Cause {
    /// What is asked of the processor without the kernel seeing it stays as it is.
    pub fn is_hardware(self) -> bool {
        self == Self::CpuInstruction
    }
}

/// What a tier makes of a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expectation {
    /// The same tree in every world.
    Identical,
    /// Another tree in another world, always.
    Differs,
    /// Chance decides, or the machine.
    MayDiffer,
}

/// One recipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// The name of its file.
    pub name: String,
    /// The form in which people meet it.
    pub trap: String,
    /// Where the difference comes from.
    pub cause: Cause,
    /// What else gets into its tree.
    pub also: Vec<Cause>,
    /// What each tier makes of it.
    expect: [Expectation; 3],
    /// For `/bin/sh -eu`, in `/work`; `/src` has what is in the directory `src` beside it.
    pub script: String,
}

/// A file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    trap: String,
    cause: Cause,
    #[serde(default)]
    also: Vec<Cause>,
    isolated: Expectation,
    #[serde(default = "identical")]
    deterministic: Expectation,
    #[serde(default = "identical")]
    strict: Expectation,
    script: String,
}

fn identical() -> Expectation {
    Expectation::Identical
}

impl Recipe {
    /// What a file says.
    ///
    /// # Errors
    /// It is no recipe, or promises less of `strict` than its cause allows.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let written: Written = toml::from_str(text).with_context(|| format!("recipe {name}"))?;
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        ensure!(
            name.bytes().all(plain) && name.starts_with(|first: char| first.is_ascii_lowercase()),
            "recipe {name}: a name is of lower case letters, digits and hyphens"
        );
        ensure!(
            written.strict == Expectation::Identical || written.cause.is_hardware(),
            "recipe {name}: only what the processor itself answers may differ under `strict`"
        );
        ensure!(
            !written.also.contains(&written.cause),
            "recipe {name}: `also` repeats the cause"
        );
        Ok(Self {
            name: name.to_owned(),
            trap: written.trap,
            cause: written.cause,
            also: written.also,
            expect: [written.isolated, written.deterministic, written.strict],
            script: written.script,
        })
    }

    /// What this tier makes of it.
    pub fn expected(&self, tier: Tier) -> Expectation {
        self.expect[tier as usize]
    }
}

/// Every recipe in a directory, by name.
pub(super) fn read_all(directory: &Path) -> Result<Vec<Recipe>> {
    let mut recipes = Vec::new();
    for entry in walkdir::WalkDir::new(directory)
        .max_depth(1)
        .sort_by_file_name()
    {
        let path = entry?.into_path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let Some(name) = path.file_stem().and_then(|name| name.to_str()) else {
            bail!("{} has no name", path.display());
        };
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        recipes.push(Recipe::parse(name, &text)?);
    }
    Ok(recipes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = r#"
trap = "a log with the time"
cause = "clock"
also = ["pid"]
isolated = "differs"
script = "date > date"
"#;

    #[test]
    fn a_recipe_is_identical_unless_it_says_otherwise() {
        let recipe = Recipe::parse("date", DATE).unwrap();
        assert_eq!(
            recipe,
            Recipe {
                name: "date".to_owned(),
                trap: "a log with the time".to_owned(),
                cause: Cause::Clock,
                also: vec![Cause::Pid],
                expect: [
                    Expectation::Differs,
                    Expectation::Identical,
                    Expectation::Identical
                ],
                script: "date > date".to_owned(),
            }
        );
        assert_eq!(recipe.expected(Tier::Isolated), Expectation::Differs);
        assert_eq!(recipe.expected(Tier::Strict), Expectation::Identical);
    }

    #[test]
    fn what_is_wrong_with_a_recipe_is_said() {
        let said = |name: &str, text: &str| {
            format!(
                "{:#}",
                Recipe::parse(name, text).expect_err("it is no recipe")
            )
        };
        let unknown = said("date", &DATE.replace("\"clock\"", "\"weather\""));
        assert!(
            unknown.contains("recipe date") && unknown.contains("`weather`"),
            "{unknown}"
        );
        assert_eq!(
            said("Date", DATE),
            "recipe Date: a name is of lower case letters, digits and hyphens"
        );
        assert_eq!(
            said("date", &format!("strict = \"may-differ\"\n{DATE}")),
            "recipe date: only what the processor itself answers may differ under `strict`"
        );
        assert_eq!(
            said("date", &DATE.replace("\"pid\"", "\"clock\"")),
            "recipe date: `also` repeats the cause"
        );
        let more = said("date", &format!("when = \"now\"\n{DATE}"));
        assert!(more.contains("unknown field `when`"), "{more}");
    }
}
