//! The worlds that recipes are built in, one after the other: each differs from the first in everything that an image must
//! not depend on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::Clock;
use crate::machine::{FileSystem, User, run};
use crate::matrix::shift_clock;
use crate::world::Environment;

/// What a run of the corpus finds around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// What the store lies on, made afresh: another hash seed, other inode numbers.
    pub system: FileSystem,
    /// Who builds.
    pub user: User,
    /// On how many processors.
    pub cpus: usize,
    /// Environment, umask, locale, time zone, host name, directory.
    pub environment: Environment,
    /// How many threads keep the machine busy meanwhile.
    pub load: usize,
    /// How many processes come and go before, so that numbers begin elsewhere.
    pub processes: usize,
    /// Whether the kernel forgets names and inodes all the time, as it does when memory is short.
    pub forgetful: bool,
    /// How far the clock is set ahead.
    pub ahead: i64,
}

const PLAIN: Surroundings = Surroundings {
    system: FileSystem::Ext4,
    user: User::Root,
    cpus: 2,
    environment: Environment::Plain,
    load: 0,
    processes: 0,
    forgetful: false,
    ahead: 0,
};

/// How long a thread that keeps the machine busy does so, and then does not.
const SPURT: Duration = Duration::from_millis(5);

/// After how long names and inodes are forgotten again.
const FORGET: Duration = Duration::from_millis(100);

const YEAR: i64 = 365 * 86_400;

/// Those of the hostile corpus, in order. Two runs see the first two, which differ most.
pub(super) const WORLDS: [Surroundings; 5] = [
    PLAIN,
    Surroundings {
        system: FileSystem::Xfs,
        user: User::Range,
        cpus: 1,
        environment: Environment::Odd,
        load: 1,
        processes: 333,
        forgetful: true,
        ahead: 0,
    },
    Surroundings {
        system: FileSystem::Tmpfs,
        load: 3,
        processes: 77,
        ..PLAIN
    },
    // As the first: what differs here is chance, or the hash seed of the file system.
    PLAIN,
    Surroundings {
        system: FileSystem::Btrfs,
        user: User::Plain,
        ahead: 13 * YEAR,
        environment: Environment::Odd,
        ..PLAIN
    },
];

/// Those of real programs. They take long, so three worlds must be enough for each kind of user.
pub(super) const OF_PROGRAMS: [Surroundings; 5] = [
    PLAIN,
    Surroundings {
        ahead: 13 * YEAR,
        ..WORLDS[1]
    },
    Surroundings {
        system: FileSystem::Btrfs,
        user: User::Plain,
        processes: 77,
        ..PLAIN
    },
    Surroundings {
        system: FileSystem::Xfs,
        user: User::Plain,
        environment: Environment::Odd,
        cpus: 1,
        load: 3,
        ..PLAIN
    },
    PLAIN,
];

/// The world of this number, from 1; after the last comes the first again.
pub(super) fn numbered(worlds: &[Surroundings], number: usize) -> Surroundings {
    worlds[number.saturating_sub(1) % worlds.len()]
}

impl Surroundings {
    /// Makes of the machine what a build shall find, until what is given back is dropped.
    pub(super) fn arrange(&self, clock: Clock) -> Result<Arranged> {
        for _ in 0..self.processes {
            run("true", &[])?;
        }
        let mut arranged = Arranged {
            stop: Arc::default(),
            busy: Vec::new(),
            ahead: 0,
        };
        // In spurts: what gives way to it at odd moments is disturbed more than what never runs beside it.
        for _ in 0..self.load {
            arranged.again_and_again(SPURT, || {
                let start = Instant::now();
                while start.elapsed() < SPURT {
                    std::hint::spin_loop();
                }
            });
        }
        if self.forgetful {
            forget()?;
            arranged.again_and_again(FORGET, || {
                let _ = forget();
            });
        }
        if self.ahead != 0 && clock == Clock::Set {
            shift_clock(self.ahead)?;
            arranged.ahead = self.ahead;
        }
        Ok(arranged)
    }
}

/// What has to be put back.
#[derive(Debug)]
pub(super) struct Arranged {
    stop: Arc<AtomicBool>,
    busy: Vec<JoinHandle<()>>,
    ahead: i64,
}

impl Arranged {
    fn again_and_again(&mut self, pause: Duration, work: impl Fn() + Send + 'static) {
        let stop = Arc::clone(&self.stop);
        self.busy.push(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                work();
                std::thread::sleep(pause);
            }
        }));
    }
}

/// Drops what the kernel need not keep of names and inodes (`Documentation/admin-guide/sysctl/vm.rst`, `drop_caches`).
fn forget() -> Result<()> {
    let file = "/proc/sys/vm/drop_caches";
    std::fs::write(file, "2").context(file)
}

impl Drop for Arranged {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.busy.drain(..) {
            let _ = thread.join();
        }
        if self.ahead != 0 {
            let back = shift_clock(-self.ahead).context("the clock is still ahead");
            if let Err(error) = back {
                println!("{error:#}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_two_worlds_have_nothing_in_common() {
        for worlds in [&WORLDS[..], &OF_PROGRAMS] {
            let (one, two) = (worlds[0], worlds[1]);
            assert_ne!(one.system, two.system);
            assert_ne!(one.user, two.user);
            assert_ne!(one.cpus, two.cpus);
            assert_ne!(one.environment, two.environment);
            assert_ne!(one.load, two.load);
            assert_ne!(one.processes, two.processes);
            assert_ne!(one.forgetful, two.forgetful);
            assert_eq!([numbered(worlds, 1), numbered(worlds, 2)], [one, two]);
            assert_eq!(numbered(worlds, worlds.len() + 1), one);
        }
    }

    #[test]
    fn everybody_builds_in_some_world() {
        for worlds in [&WORLDS[..], &OF_PROGRAMS] {
            for user in [User::Root, User::Range, User::Plain] {
                assert!(worlds.iter().any(|world| world.user == user));
            }
        }
    }
}
