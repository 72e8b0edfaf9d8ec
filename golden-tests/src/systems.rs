//! Five Debian systems, with their scripts and without, and any other package: they work, and are one image whoever builds
//! them and wherever.
//!
//! Each directory of `roots` holds a spec whose steps use what is installed, in a root that scripts made and in one that they did not.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::abreast::{abreast, processors};
use crate::examples::{Example, Material, PLAIN, told, unlay};
use crate::machine::{User, run};
use crate::matrix::open_to_all;
use crate::scratch;
use crate::world::{Environment, World};

const SYSTEMS: [Example; 5] = [
    system("../golden-tests/roots/python3-minimal"),
    system("../golden-tests/roots/nginx-light"),
    system("../golden-tests/roots/openjdk-17-jre-headless"),
    system("../golden-tests/roots/postgresql-15"),
    system("../golden-tests/roots/build-essential"),
];

const fn system(name: &'static str) -> Example {
    Example {
        name,
        material: Material::Archive,
        is_long: true,
        ..PLAIN
    }
}

/// Packages of an archive, each to be installed alone, with what it needs and what is essential.
#[derive(Clone, Debug)]
pub struct Installs {
    /// `bookworm`.
    pub suite: String,
    /// The tier of their scripts.
    pub tier: String,
    /// Tables `[[source.os.archive]]`, for what this machine's apt does not have; empty otherwise. Paths are absolute.
    pub archives: String,
}

impl Installs {
    fn spec(&self, package: &str) -> String {
        let Self {
            suite,
            tier,
            archives,
        } = self;
        format!(
            "immbuild = 1\ntier = \"{tier}\"\n\n\
             [source.os]\ndebian = \"{suite}\"\npackages = [\"{package}\"]\n\n{archives}\n\
             [image]\nfrom = \"os\"\nsteps = []\n"
        )
    }

    /// Installs a package in each of the worlds of [`check`], from empty stores; the digests that came of it.
    pub fn digests(&self, package: &str) -> Result<BTreeSet<String>> {
        let place = open_place("installs")?;
        let project = place.join("project");
        std::fs::create_dir(&project)?;
        std::fs::write(project.join("spec.toml"), self.spec(package))?;
        let worlds = worlds(&place);
        told(&worlds[0], &["lock"], &project, &place.join("store"))?;
        let digests = abreast(processors(), worlds.len(), |at, thread| {
            let world = worlds[at].on(thread);
            let directory = world.lay(&project, &format!("{package}-{at}"))?;
            let store = place.join(format!("store-{at}"));
            digest(
                &world,
                package,
                &directory,
                &store,
                &["--locked", "--quiet"],
            )
        })?;
        std::fs::remove_dir_all(&place)?;
        Ok(digests.into_iter().collect())
    }
}

/// An empty directory where every user can work.
fn open_place(name: &str) -> Result<PathBuf> {
    let place = scratch().join(name);
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir_all(&place)?;
    open_to_all(&crate::immbuild())?;
    open_to_all(&place)?;
    run("chmod", &["1777", &place.display().to_string()])?;
    Ok(place)
}

/// Builds each of them from an empty store as root, as a user without sub-uids and as one with them.
pub fn check() -> Result<()> {
    let place = open_place("systems")?;
    let mut several = Vec::new();
    for system in &SYSTEMS {
        system.forget();
        let worlds = worlds(&place);
        let digests = abreast(processors(), worlds.len(), |at, thread| {
            build(system, &worlds[at].on(thread), at)
        })?;
        let digests: BTreeSet<String> = digests.into_iter().collect();
        println!("{:24} {digests:?}", system.leaf());
        if digests.len() > 1 {
            several.push(system.leaf());
        }
    }
    ensure!(several.is_empty(), "not one image: {}", several.join(", "));
    Ok(())
}

fn worlds(place: &Path) -> [World<'_>; 3] {
    let world = |user, cpus, threads, environment| World {
        user,
        place,
        cpus,
        first_cpu: 0,
        threads,
        environment,
    };
    [
        world(User::Root, 2, None, Environment::Plain),
        world(User::Plain, 1, Some(8), Environment::Odd),
        world(User::Range, 2, None, Environment::Odd),
    ]
}

fn build(system: &Example, world: &World<'_>, at: usize) -> Result<String> {
    let name = format!("{}-{at}", system.leaf());
    let directory = system.lay(world, &name)?;
    let store = world.place.join(format!("store-{name}"));
    let mut flags = system.prepare(world, &directory, &store)?;
    flags.push("--quiet");
    let digest = digest(world, &name, &directory, &store, &flags)?;
    run("rm", &["-rf", &store.display().to_string()])?;
    unlay(&directory)?;
    Ok(digest)
}

/// Builds what is called `name`, and wants that to succeed.
fn digest(
    world: &World<'_>,
    name: &str,
    directory: &Path,
    store: &Path,
    flags: &[&str],
) -> Result<String> {
    world.build(directory, store, flags)?.map_err(|output| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        anyhow::anyhow!("{name} in {world:?} ended with {}: {said}", output.status)
    })
}
