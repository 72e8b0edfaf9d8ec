//! The identity matrix: one digest for each example whatever the surroundings, and a control that must differ.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::abreast::{abreast, processors};
use crate::examples::{EXAMPLES, Example, Material, PLAIN, unlay};
use crate::machine::{FileSystem, Mounted, User, run};
use crate::pairwise::{product, rows};
use crate::scratch;
use crate::world::{Environment, World};

const USERS: [User; 3] = [User::Root, User::Range, User::Plain];
const SYSTEMS: [FileSystem; 3] = [FileSystem::Ext4, FileSystem::Tmpfs, FileSystem::Xfs];
const ENVIRONMENTS: [Environment; 2] = [Environment::Plain, Environment::Odd];
/// What each file system has room for, in GiB: the stores of as many builds as there are processors, and the images of one
/// example.
const ROOM: u8 = 8;
/// Users, file systems, CPUs, cold and warm, environments, threads.
const LEVELS: [usize; 6] = [3, 3, 2, 2, 2, 2];

/// Runs a part of the matrix, or the whole of it.
pub fn run_matrix(full: bool) -> Result<()> {
    let scratch = scratch();
    std::fs::create_dir_all(&scratch)?;
    // Other users must be able to reach the program and what is laid for them.
    open_to_all(&scratch)?;
    open_to_all(&crate::immbuild())?;
    let mounts = SYSTEMS
        .iter()
        .map(|kind| Mounted::new(*kind, ROOM, &scratch, &format!("{kind:?}").to_lowercase()))
        .collect::<Result<Vec<_>>>()?;
    for example in EXAMPLES {
        let whole = full && example.name == "hello";
        let cells = match (whole, full) {
            (true, _) => product(&LEVELS),
            (false, false) if example.is_long => continue,
            (false, false) if example.material != Material::Nothing => {
                rows(&LEVELS).into_iter().step_by(3).collect()
            }
            (false, _) => rows(&LEVELS),
        };
        let images = abreast(processors(), cells.len(), |at, thread| {
            build_cell(example, &cells[at], at, thread, &mounts)
        })?;
        let distinct: BTreeMap<&String, &PathBuf> = images
            .iter()
            .flatten()
            .map(|(digest, file)| (digest, file))
            .collect();
        let refused = images.iter().filter(|image| image.is_none()).count();
        println!(
            "{:12} {} worlds, {refused} refused as they should be, {} digest: {}",
            example.name,
            cells.len(),
            distinct.len(),
            distinct
                .keys()
                .map(|digest| &digest[7..19])
                .collect::<Vec<_>>()
                .join(" ")
        );
        if distinct.len() != 1 {
            let mut files = distinct.values();
            let (a, b) = (files.next(), files.next());
            let (a, b) = a.zip(b).context("no world built it")?;
            bail!("{} is not one image:\n{}", example.name, compared(a, b)?);
        }
        for (_, file) in images.into_iter().flatten() {
            std::fs::remove_file(file)?;
        }
    }
    control(&mounts[0])?;
    if full {
        thirteen_years_ahead(&mounts[0])?;
    }
    Ok(())
}

/// In which worlds two images were built, which their names say, and where they begin to differ.
fn compared(a: &Path, b: &Path) -> Result<String> {
    let output = Command::new(crate::immbuild())
        .arg("compare")
        .args([a, b])
        .output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok(format!(
        "{}\n{}\n{}",
        a.display(),
        b.display(),
        String::from_utf8_lossy(&said)
    ))
}

/// Builds an example in one world, and gives its digest and the image itself; nothing where the refusal is what is expected.
fn build_cell(
    example: &Example,
    cell: &[usize],
    at: usize,
    thread: usize,
    mounts: &[Mounted],
) -> Result<Option<(String, PathBuf)>> {
    let world = World {
        user: USERS[cell[0]],
        place: mounts[cell[1]].path(),
        cpus: cell[2] + 1,
        first_cpu: 0,
        environment: ENVIRONMENTS[cell[4]],
        threads: (cell[5] == 1).then_some(8),
    };
    let world = world.on(thread);
    let name = format!("{}-{at}", example.name);
    let directory = example.lay(&world, &name)?;
    let store = world.place.join(format!("store-{name}"));
    let mut flags = example.prepare(&world, &directory, &store)?;
    if cell[3] == 1 {
        // Warm: the same build has been here before.
        let _ = world.build(&directory, &store, &flags)?;
    }
    let digits: String = cell.iter().map(ToString::to_string).collect();
    let image = world.place.join(format!("{name}-world-{digits}.tar"));
    let output = format!("kind=oci-archive,file={}", image.display());
    flags.extend(["--quiet", "--output", &output]);
    let outcome = world.build(&directory, &store, &flags)?;
    run("rm", &["-rf", &store.display().to_string()])?;
    unlay(&directory)?;
    match outcome {
        Ok(digest) if world.user == User::Plain && !example.without_range => {
            bail!("{} was not refused without a range: {digest}", example.name)
        }
        Ok(digest) => Ok(Some((digest, image))),
        Err(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(
                world.user == User::Plain
                    && !example.without_range
                    && output.status.code() == Some(8)
                    && said.contains("hint:"),
                "{} in {world:?} ended with {}:\n{said}",
                example.name,
                output.status
            );
            Ok(None)
        }
    }
}

/// A step that prints the time differs between two builds: the matrix can fail.
fn control(mount: &Mounted) -> Result<()> {
    let world = World {
        user: User::Root,
        place: mount.path(),
        cpus: 2,
        first_cpu: 0,
        threads: None,
        environment: Environment::Plain,
    };
    let clock = Example {
        name: "../golden-tests/controls/clock",
        material: Material::Debian,
        without_range: false,
        ..PLAIN
    };
    let mut digests = BTreeSet::new();
    for at in 0..2 {
        let directory = clock.lay(&world, &format!("clock-{at}"))?;
        let store = world.place.join(format!("store-clock-{at}"));
        let digest = world
            .build(&directory, &store, &[])?
            .map_err(|output| anyhow::anyhow!("{}", String::from_utf8_lossy(&output.stderr)))?;
        digests.insert(digest);
        run("rm", &["-rf", &store.display().to_string()])?;
        unlay(&directory)?;
    }
    ensure!(
        digests.len() == 2,
        "the control did not differ: the matrix proves nothing"
    );
    println!("control      differs, as it must");
    Ok(())
}

/// Sets the machine's clock 13 years ahead for one build, and back by the monotonic clock.
fn thirteen_years_ahead(mount: &Mounted) -> Result<()> {
    let world = World {
        user: User::Root,
        place: mount.path(),
        cpus: 2,
        first_cpu: 0,
        threads: None,
        environment: Environment::Plain,
    };
    let executes = EXAMPLES.iter().find(|example| example.name == "hello");
    let executes = executes.context("there is no such example")?;
    let build = |name: &str| -> Result<String> {
        let directory = executes.lay(&world, name)?;
        let store = world.place.join(format!("store-{name}"));
        let flags = executes.prepare(&world, &directory, &store)?;
        let digest = world
            .build(&directory, &store, &flags)?
            .map_err(|output| anyhow::anyhow!("{}", String::from_utf8_lossy(&output.stderr)));
        unlay(&directory)?;
        digest
    };
    let now = build("clock-now")?;
    let years = 13 * 365 * 86_400;
    shift_clock(years)?;
    let ahead = build("clock-ahead");
    shift_clock(-years).context("the clock is still 13 years ahead")?;
    ensure!(ahead? == now, "the clock leaks into the image");
    println!("clock        13 years ahead: the same digest");
    Ok(())
}

/// Sets the machine's clock ahead, or back.
pub(crate) fn shift_clock(seconds: i64) -> Result<()> {
    use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

    let now = clock_gettime(ClockId::Realtime);
    let then = Timespec {
        tv_sec: now.tv_sec + seconds,
        tv_nsec: now.tv_nsec,
    };
    clock_settime(ClockId::Realtime, then).context("cannot set the clock")
}

/// Lets every user reach a path.
pub(crate) fn open_to_all(path: &Path) -> Result<()> {
    for directory in path
        .ancestors()
        .filter(|directory| directory.parent().is_some())
    {
        run("chmod", &["a+rx", &directory.display().to_string()])?;
    }
    Ok(())
}
