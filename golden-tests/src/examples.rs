//! The examples: what each needs that is not committed, and whether it can be built at all.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::engine::Says;
use crate::machine::{User, run};
use crate::sharing::SharedCache;
use crate::world::{Environment, World};
use crate::{roots, scratch, workspace};

/// What an example needs that is not committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Material {
    /// Nothing.
    Nothing,
    /// The Debian root that is made on the machine.
    Debian,
    /// That, and [`roots::release`]: here the machine's own copy is what the URL names.
    Release,
    /// Packages of the archive that the machine's own apt uses. It is built from what `locked` locked there, and
    /// from the committed lock where its packages can still be had.
    Archive,
}

/// An example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Example {
    /// Its directory below `examples`.
    pub name: &'static str,
    /// What it needs.
    pub material: Material,
    /// Can a user without sub-uids build it? If not, the refusal is what is expected.
    pub without_range: bool,
    /// Flags its build needs.
    pub flags: &'static [&'static str],
    /// What its image says when it runs.
    pub says: Option<Says>,
    /// Does a build take so long that many are for `--full`?
    pub is_long: bool,
}

/// One that needs nothing.
pub(crate) const PLAIN: Example = Example {
    name: "",
    material: Material::Nothing,
    without_range: true,
    flags: &[],
    says: None,
    is_long: false,
};

/// What `sha256sum` has to say of outputs whose bytes are committed, as those of images are in the lock.
const SUMS: &str = "SHA256SUMS";

/// The wheels that an example asks for: the machine's own pip fetches them, from where it is configured for.
const REQUIREMENTS: &str = "requirements.txt";
/// Where they are then, beside the spec.
const WHEELS: &str = "wheels";

/// Every example, smallest first.
pub const EXAMPLES: &[Example] = &[
    Example {
        name: "smallest",
        says: Some(Says::Prints("hello, the same bytes everywhere")),
        ..PLAIN
    },
    Example {
        name: "static",
        ..PLAIN
    },
    Example {
        name: "function",
        ..PLAIN
    },
    Example {
        name: "readonly",
        says: Some(Says::Prints("hello, the same bytes everywhere")),
        ..PLAIN
    },
    Example {
        name: "hello",
        material: Material::Archive,
        says: Some(Says::Prints("hello, built at ")),
        ..PLAIN
    },
    Example {
        name: "nginx",
        material: Material::Archive,
        says: Some(Says::Answers("/", "Served from the same bytes everywhere.")),
        ..PLAIN
    },
    Example {
        name: "python-app",
        material: Material::Archive,
        says: Some(Says::Answers(
            "/a?b=1",
            r#"{"path": "/a", "query": {"b": ["1"]}}"#,
        )),
        is_long: true,
        ..PLAIN
    },
    Example {
        name: "wheels",
        material: Material::Archive,
        says: Some(Says::Answers("/hello/moon", r#"{"hello": "moon"}"#)),
        is_long: true,
        ..PLAIN
    },
    Example {
        name: "site",
        material: Material::Debian,
        ..PLAIN
    },
    Example {
        name: "compile",
        material: Material::Debian,
        ..PLAIN
    },
    Example {
        name: "release",
        material: Material::Release,
        ..PLAIN
    },
    Example {
        name: "secrets",
        material: Material::Debian,
        flags: &["--secret", "token=file:/etc/hostname"],
        ..PLAIN
    },
    Example {
        name: "everything",
        material: Material::Debian,
        ..PLAIN
    },
    Example {
        name: "toolchain",
        material: Material::Archive,
        says: Some(Says::Prints("words: 0")),
        is_long: true,
        ..PLAIN
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
        if matches!(self.material, Material::Debian | Material::Release) {
            let root = roots::debian()?;
            let to = directory.join("debian");
            // A link would lead out of the example; a copy of 380 MB for each world would be a copy too many.
            run("mkdir", &["-m", "755", &text(&to)])?;
            run("mount", &["--bind", &text(&root), &text(&to)])?;
        }
        if self.material == Material::Archive {
            let lock = self.locked()?.join("spec.lock");
            run("cp", &[&text(&lock), &text(&directory.join("spec.lock"))])?;
        }
        if self.material == Material::Release {
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

    /// The last part of its directory's name.
    pub fn leaf(&self) -> &'static str {
        self.name.rsplit('/').next().unwrap_or(self.name)
    }

    /// Lets `locked` ask the archive again.
    pub fn forget(&self) {
        let _ = std::fs::remove_dir_all(scratch().join("locked").join(self.leaf()));
    }

    /// A copy whose lock names what the archive has now, with `vendor` beside it, in which all of that is. Made once, and anew by
    /// [`build_all`].
    fn locked(&self) -> Result<PathBuf> {
        let place = scratch().join("locked");
        let _alone = roots::alone(&format!("locked-{}", self.leaf()))?;
        std::fs::create_dir_all(&place)?;
        let directory = place.join(self.leaf());
        let asked = |directory: &Path| {
            ["spec.toml", REQUIREMENTS].map(|name| std::fs::read(directory.join(name)).ok())
        };
        let is_there = directory.join("vendor/index.json").exists();
        if is_there && asked(&directory) == asked(&self.directory()) {
            return Ok(directory);
        }
        let _ = std::fs::remove_dir_all(&directory);
        let world = plain(&place);
        world.lay(&self.directory(), self.leaf())?;
        // A committed one stays in the release that it names.
        let _ = std::fs::remove_file(directory.join("spec.lock"));
        let store = place.join("store");
        let vendor = text(&directory.join("vendor"));
        let requirements = directory.join(REQUIREMENTS);
        if requirements.exists() {
            let mut arguments = vec!["-m", "pip", "download", "--quiet", "--require-hashes"];
            arguments.extend(["--no-deps", "--only-binary=:all:"]);
            let (wheels, requirements) = (text(&directory.join(WHEELS)), text(&requirements));
            arguments.extend(["--dest", &wheels, "--requirement", &requirements]);
            run("/usr/bin/python3", &arguments)?;
        }
        for words in [&["lock"][..], &["vendor", "-o", &vendor]] {
            told(&world, words, &directory, &store)?;
        }
        Ok(directory)
    }

    /// Puts into a world's store what the archive would be asked for, and gives the flags that a build of what
    /// [`Example::lay`] laid needs.
    pub fn prepare(
        &self,
        world: &World<'_>,
        directory: &Path,
        store: &Path,
    ) -> Result<Vec<&'static str>> {
        let mut flags = self.flags.to_vec();
        if self.material == Material::Archive {
            let vendor = text(&self.locked()?.join("vendor"));
            told(world, &["vendor", "--read", &vendor], directory, store)?;
            flags.extend(["--locked", "--offline"]);
        }
        Ok(flags)
    }
}

/// Runs `immbuild` for the spec in `directory`, and wants it to succeed.
pub(crate) fn told(
    world: &World<'_>,
    words: &[&str],
    directory: &Path,
    store: &Path,
) -> Result<()> {
    let mut arguments: Vec<OsString> = words.iter().map(Into::into).collect();
    for word in ["--quiet", "--store", &text(store), "--spec"] {
        arguments.push(word.into());
    }
    arguments.push(directory.join("spec.toml").into());
    let output = world
        .command(&arguments, directory)?
        .env("PIP_FIND_LINKS", directory.join(WHEELS))
        .output()?;
    ensure!(
        output.status.success(),
        "immbuild {} ended with {}: {}",
        words.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Root on this machine, as it is.
fn plain(place: &Path) -> World<'_> {
    World {
        user: User::Root,
        place,
        cpus: 2,
        first_cpu: 0,
        threads: None,
        environment: Environment::Plain,
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

/// Builds every example once, from nothing; those with a committed expectation against it. Those that say something are run.
pub fn build_all() -> Result<()> {
    let place = scratch().join("examples");
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir_all(&place)?;
    let world = plain(&place);
    let store = place.join("store");
    let cache = SharedCache::start(&place)?;
    for example in EXAMPLES {
        // The archive may have moved on.
        example.forget();
        let directory = example.lay(&world, example.name)?;
        let flags = example.prepare(&world, &directory, &store)?;
        let mut first = flags.clone();
        if example.material == Material::Nothing {
            first.extend(["--locked", "--expected"]);
        }
        let digest = world
            .build(&directory, &store, &first)?
            .map_err(|output| anyhow::anyhow!("{}", String::from_utf8_lossy(&output.stderr)))
            .with_context(|| format!("example {} does not build", example.name))?;
        println!("{:12} {digest}", example.name);
        if directory.join(SUMS).exists() {
            let sums = Command::new("sha256sum")
                .args(["--check", "--strict", "--quiet", SUMS])
                .current_dir(&directory)
                .status()?;
            ensure!(sums.success(), "{} has another output", example.name);
        }
        let again = world.build(&directory, &store, &flags)?;
        ensure!(
            again.is_ok_and(|again| again == digest),
            "{} differs when warm",
            example.name
        );
        let taken = build_elsewhere(example, &world, &cache, (&directory, &store))?;
        println!("{:12} {taken} results taken by another store", "");
        if let Some(says) = example.says {
            let archive = directory.join(format!("out/{}.tar", example.name));
            says.check(&archive)
                .with_context(|| format!("example {} does not run", example.name))?;
        }
        unlay(&directory)?;
        if example.material == Material::Archive {
            build_committed(example, &world, &store)?;
        }
    }
    Ok(())
}

/// Another store, which has only what is locked, executes nothing and has the same image. Gives how many results it took.
fn build_elsewhere(
    example: &Example,
    world: &World<'_>,
    cache: &SharedCache,
    (directory, store): (&Path, &Path),
) -> Result<u64> {
    let sent = cache.build(world, directory, store, example.flags, "--cache-to")?;
    let other = world.place.join("other-store");
    let _ = std::fs::remove_dir_all(&other);
    // The cache is in a network.
    let flags = example.prepare(world, directory, &other)?;
    let flags: Vec<&str> = flags
        .into_iter()
        .filter(|flag| *flag != "--offline")
        .collect();
    let taken = cache.build(world, directory, &other, &flags, "--cache-from")?;
    let name = example.name;
    ensure!(taken.digest == sent.digest, "{name} differs elsewhere");
    ensure!(
        taken.executed == 0,
        "{name} executes {} ops elsewhere",
        taken.executed
    );
    ensure!(
        taken.taken == sent.sent,
        "{name}: {} results were sent, {} taken",
        sent.sent,
        taken.taken
    );
    run("rm", &["-rf", &text(&other)])?;
    Ok(taken.taken)
}

/// Builds an example from the lock that is committed, where its packages can still be had.
fn build_committed(example: &Example, world: &World<'_>, store: &Path) -> Result<()> {
    let directory = world.lay(&example.directory(), example.name)?;
    let lock = std::fs::read_to_string(directory.join("spec.lock"))?;
    let mut flags = [example.flags, &["--locked"]].concat();
    if lock.contains("[[expect]]") {
        flags.push("--expected");
    }
    match world.build(&directory, store, &flags)? {
        Ok(digest) => println!("{:12} {digest} from its committed lock", ""),
        // What the archive no longer has is in none of the places that this machine knows.
        Err(output) if output.status.code() == Some(5) => {
            println!(
                "{:12} its committed lock names packages that can no longer be had",
                ""
            );
        }
        Err(output) => anyhow::bail!(
            "example {} does not build from its committed lock: {}",
            example.name,
            String::from_utf8_lossy(&output.stderr)
        ),
    }
    unlay(&directory)
}
