//! Five Debian systems, with their scripts and without: they work, and are one image whoever builds them and wherever.
//!
//! Each directory of `roots` holds a spec whose steps use what is installed, in a root that scripts made and in one that they did not.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, ensure};

use crate::abreast::{abreast, processors};
use crate::examples::{Example, Material, PLAIN, unlay};
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

/// Builds each of them from an empty store as root, as a user without sub-uids and as one with them.
pub fn check() -> Result<()> {
    let place = scratch().join("systems");
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir_all(&place)?;
    open_to_all(&crate::immbuild())?;
    open_to_all(&place)?;
    run("chmod", &["1777", &place.display().to_string()])?;
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
    let digest = world.build(&directory, &store, &flags)?.map_err(|output| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        anyhow::anyhow!("{name} in {world:?} ended with {}: {said}", output.status)
    })?;
    run("rm", &["-rf", &store.display().to_string()])?;
    unlay(&directory)?;
    Ok(digest)
}
