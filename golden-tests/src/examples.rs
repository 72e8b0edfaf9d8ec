//! The examples: what each needs that is not committed, and whether it can be built at all.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::machine::{User, run};
use crate::world::{Environment, World};
use crate::{roots, scratch, workspace};

/// What an example is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Example {
    /// Its directory below `examples`.
    pub name: &'static str,
    /// Does it start from the Debian root that is made on the machine?
    pub debian: bool,
    /// Does it fetch [`roots::release`]? Here the machine's own copy is what the URL names.
    pub release: bool,
    /// Can a user without sub-uids build it? If not, the refusal is what is expected.
    pub without_range: bool,
    /// Flags its build needs.
    pub flags: &'static [&'static str],
}

/// Every example, smallest first.
pub const EXAMPLES: &[Example] = &[
    Example {
        name: "hello",
        debian: false,
        release: false,
        without_range: true,
        flags: &[],
    },
    Example {
        name: "static",
        debian: false,
        release: false,
        without_range: true,
        flags: &[],
    },
    Example {
        name: "site",
        debian: true,
        release: false,
        without_range: true,
        flags: &[],
    },
    Example {
        name: "compile",
        debian: true,
        release: false,
        without_range: true,
        flags: &[],
    },
    Example {
        name: "release",
        debian: true,
        release: true,
        without_range: true,
        flags: &[],
    },
    Example {
        name: "secrets",
        debian: true,
        release: false,
        without_range: true,
        flags: &["--secret", "token=file:/etc/hostname"],
    },
    Example {
        name: "everything",
        debian: true,
        release: false,
        without_range: true,
        flags: &[],
    },
];

impl Example {
    /// Where it is committed.
    pub fn directory(&self) -> PathBuf {
        workspace().join("examples").join(self.name)
    }

    /// Lays a copy in `world` and, where it needs one, the Debian root as `./debian` beside its spec.
    pub fn lay(&self, world: &World<'_>, name: &str) -> Result<PathBuf> {
        let directory = world.lay(&self.directory(), name)?;
        if self.debian {
            let root = roots::debian()?;
            let to = directory.join("debian");
            // A link would lead out of the example; a copy of 380 MB for each world would be a copy too many.
            run("mkdir", &["-m", "755", &text(&to)])?;
            run("mount", &["--bind", &text(&root), &text(&to)])?;
        }
        if self.release {
            let release = roots::release()?;
            let to = directory.join(roots::RELEASE);
            run("install", &["-m", "644", &text(&release), &text(&to)])?;
            let spec = directory.join("spec.toml");
            let theirs = std::fs::read_to_string(&spec)?;
            let url = format!("file://{}/", directory.display());
            let ours = theirs.replace("https://ftp.gnu.org/gnu/hello/", &url);
            ensure!(ours != theirs, "{} has another URL", spec.display());
            std::fs::write(&spec, ours)?;
        }
        Ok(directory)
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Takes away what [`Example::lay`] laid.
pub fn unlay(directory: &Path) -> Result<()> {
    let debian = directory.join("debian");
    if debian.exists() {
        run("umount", &["--lazy", &text(&debian)])?;
    }
    run("rm", &["-rf", &text(directory)])?;
    Ok(())
}

/// Builds every example once, from nothing; those with a committed expectation against it.
pub fn build_all() -> Result<()> {
    let place = scratch().join("examples");
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir_all(&place)?;
    let world = World {
        user: User::Root,
        place: &place,
        cpus: 2,
        threads: None,
        environment: Environment::Plain,
    };
    for example in EXAMPLES {
        let directory = example.lay(&world, example.name)?;
        let store = place.join("store");
        let mut flags = example.flags.to_vec();
        if !example.debian {
            flags.extend(["--locked", "--expected"]);
        }
        let digest = world
            .build(&directory, &store, &flags)?
            .map_err(|output| anyhow::anyhow!("{}", String::from_utf8_lossy(&output.stderr)))
            .with_context(|| format!("example {} does not build", example.name))?;
        println!("{:12} {digest}", example.name);
        let again = world.build(&directory, &store, example.flags)?;
        ensure!(
            again.is_ok_and(|again| again == digest),
            "{} differs when warm",
            example.name
        );
        unlay(&directory)?;
    }
    Ok(())
}
