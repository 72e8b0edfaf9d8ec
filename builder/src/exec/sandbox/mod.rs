//! Runs one process on a tree, in surroundings that are the same on every machine.
//!
//! [`run`] takes snapshots and a command, and leaves what the command changed in an overlay's upper
//! directory. Always in a user namespace, as root too, so that root and an ordinary user get the same.
//! What the process sees is fixed in `policy`; how it is built up is in `mounts` (files) and
//! `supervisor` (processes).
//!
//! What a step can still find out about the machine, because the kernel offers no way to hide it:
//!
//! - by system call: time, the kernel release (`uname`), processors and their affinity, free memory and
//!   disk (`sysinfo`, `statfs`), `cpuid`, nice value; the deterministic tier takes care of these;
//! - in `/proc/self`: mount ids and anonymous device numbers, inode numbers of pipes and namespaces,
//!   `timens_offsets`, memory and scheduling counters, `loginuid`, `oom_score_adj`, controllers of
//!   cgroup v1, and the mount options of the host's `/dev`;
//! - which names there are in `/proc` (as the kernel was configured; empty), and how many processes the
//!   machine has (the link count of `/proc`);
//! - whether the builder is root: the owner of `/proc` and of device files is 0 for root and 65534 for
//!   others, and without a range of sub-uids the id map is shorter.
//!
//! Effects: processes, namespaces, mounts, the scratch directory. Must not know steps, actions, stores
//! or trees.
#![allow(
    clippy::disallowed_methods,
    reason = "a timeout needs a clock; it reaches no byte"
)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use immbuild_cas::canonical::Canonical;
use immbuild_cas::path::RelPath;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::tracer::evidence::Evidence;
use super::tracer::{Spin, Virtual};
use crate::hostfs::owner::{Noteless, Owner};

mod foreign;
mod idmap;
mod mounts;
mod policy;
mod probe;
mod request;
mod seccomp;
mod supervisor;
mod support;
mod terminal;

pub use foreign::{FOREIGN_FIX, Foreign, runs_programs_of};
pub use idmap::{EnterError, IdMap, RANGE_FIX, enter_if_needed};
/// Where the upper directory is in a job's scratch directory.
pub use mounts::UPPER;
pub use policy::{NAMES, POLICY};
pub use probe::{Outcome, Probe, probe};
use request::{Failure, Left, Report, Request, Stage};
pub use support::{Unsupported, tier_support};

/// One process to run.
#[derive(Debug)]
pub struct Job<'a> {
    /// The root directory, topmost layer first; nothing is written to them. May be empty.
    pub lowers: &'a [PathBuf],
    /// An empty directory on a file system with user extended attributes, the caller's to remove.
    pub scratch: &'a Path,
    /// The program and its arguments. A program without `/` is looked for in `PATH` of `env`.
    pub argv: Vec<Vec<u8>>,
    /// The whole environment.
    pub env: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Where the process starts; must exist.
    pub directory: RelPath,
    /// The user; supplementary groups there are none.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Mount points, and the directories outside that are seen there. On the file system of `scratch`,
    /// and used by one process at a time: another one waits.
    pub caches: Vec<(RelPath, PathBuf)>,
    /// Files in `/run/secrets`, mode 0400, of the user: name and content. A name has no `/`.
    pub secrets: Vec<(String, Vec<u8>)>,
    /// After this time everything is killed.
    pub timeout: Option<Duration>,
    /// The process gets the caller's standard input, output and error, and its terminal.
    pub terminal: bool,
    /// Nothing can be written below `/` except where something else is mounted, as in `/tmp`.
    pub read_only: bool,
    /// The clock, randomness and file numbers it gets; none: the machine's.
    pub virtualise: Option<Virtual>,
    /// Where owners are emulated: those of links and pipes in `lowers` that are not root's.
    pub owners: Noteless,
}

/// A process that has ended. Nothing that it started is left, and no mount.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub status: Status,
    /// What it changed: the upper directory of an overlay with the option `userxattr`. The mount points
    /// of the surroundings are never in it.
    pub upper: PathBuf,
    /// What it did that could differ, if it was made virtual.
    pub evidence: Option<Evidence>,
    /// Where owners are emulated: those of links and pipes in `upper`. Of one that was only touched there is none.
    pub owners: Noteless,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// By us, because it took too long.
    TimedOut,
    /// By us, because one of its threads ran for ever while others waited for their turn.
    Spun(Spin),
}

/// Why a process could not be run.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The program did not call [`supervise_if_asked`].
    #[error("this program cannot supervise a sandbox")]
    NotReady,
    /// The supervisor did not start, or died.
    #[error("cannot supervise the sandbox")]
    Supervisor(#[source] io::Error),
    /// The user or group is not one of those that can be had here.
    #[error("cannot run as {uid}:{gid} without a range of sub-uids for this user")]
    Ids {
        /// The user asked for.
        uid: u32,
        /// The group asked for.
        gid: u32,
    },
    /// A secret whose name is not a file name.
    #[error("`{0}` is not a name for a secret")]
    SecretName(String),
    /// Namespaces or their id maps.
    #[error("cannot make the namespaces of the sandbox ({what})")]
    Namespaces {
        /// The call.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The scratch directory.
    #[error("cannot prepare `{}`", path.display())]
    Scratch {
        /// What was being made or read.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A change within a second would not be seen.
    #[error("the file system of `{}` keeps times in whole seconds", path.display())]
    Times {
        /// The scratch directory.
        path: PathBuf,
    },
    /// The overlay of the root.
    #[error("cannot mount the overlay of the root directory")]
    Overlay(#[source] io::Error),
    /// Another mount.
    #[error("cannot mount `{}` in the sandbox", path.display())]
    Mount {
        /// Where, or of which kind.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A cache directory.
    #[error("cannot mount the cache `{}`", path.display())]
    Cache {
        /// The mount point.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A limit that this session does not grant.
    #[error("cannot set the limit {name}")]
    Limit {
        /// As in setrlimit(2).
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The directory to start in.
    #[error("cannot start in `{}`", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The program itself.
    #[error("cannot execute `{}`", program.display())]
    Program {
        /// The first word of the command.
        program: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The program is there, but not what the kernel starts it with.
    #[error("cannot execute `{}`: it needs `{}`, which is not there", program.display(), interpreter.to_string_lossy().escape_debug())]
    Interpreter {
        /// The first word of the command.
        program: PathBuf,
        /// What the first line of a script names, or the linker of a dynamic program.
        interpreter: PathBuf,
    },
    /// Anything else between clone and exec.
    #[error("cannot set up the sandbox ({what})")]
    Setup {
        /// The call.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Init was killed from outside, most likely for want of memory.
    #[error("the sandbox was killed from outside")]
    Killed,
    /// Init did what it never does, as to panic.
    #[error("the supervisor of the sandbox failed: {0}")]
    Defect(String),
    /// The caller asked to stop.
    #[error("interrupted")]
    Cancelled,
}

/// A container's engine covers files of /proc, and then the kernel lets nobody mount another one in it.
const PROC_FIX: &str = "this container covers parts of /proc: start it with `--security-opt systempaths=unconfined` \
     (podman: `--security-opt unmask=ALL`), or run outside it";

impl SandboxError {
    /// What to do about it, where that is known.
    pub fn fix(&self) -> Option<&'static str> {
        match self {
            Self::Namespaces { .. } => Some(idmap::NAMESPACE_FIX),
            Self::Ids { .. } => Some(RANGE_FIX),
            Self::Overlay(_) => Some(
                "keep the store on a local file system with extended attributes (ext4, xfs, btrfs, tmpfs); overlay in user namespaces needs Linux 5.11",
            ),
            Self::Times { .. } => Some(
                "keep the store on a file system with finer times: ext4 has them where its inodes have 256 bytes (`mkfs.ext4 -I 256`)",
            ),
            Self::Limit { .. } => Some(
                "raise the hard limit of this session, for example in /etc/security/limits.conf",
            ),
            Self::Program { program, source } if source.kind() == io::ErrorKind::NotFound => {
                Some(if program.as_os_str().as_bytes().contains(&b'/') {
                    "paths are those in the image, as it is at this step"
                } else {
                    "add what brings it to an earlier step or to `packages`: no directory of the step's `PATH` has it, or not what it starts with"
                })
            }
            Self::Interpreter { interpreter, .. } => {
                let is_dos = interpreter.as_os_str().as_bytes().ends_with(b"\r");
                Some(if is_dos {
                    "the script's lines end in CR LF, and CR is taken for a part of the name: keep it with LF alone"
                } else {
                    "for a script, add what brings its interpreter; a linker comes with the C library that the program was made for"
                })
            }
            Self::Mount { path, source }
                if path == Path::new("proc") && source.raw_os_error() == Some(libc::EPERM) =>
            {
                Some(PROC_FIX)
            }
            Self::Cache { source, .. } if source.kind() == io::ErrorKind::NotFound => Some(
                "a link in the tree leads the mount point to a directory that does not exist: name that directory",
            ),
            Self::Killed => Some("look for the out-of-memory killer in the kernel's log"),
            Self::Defect(_) => Some(
                "this is a defect of immbuild, not of the step: please report it with these words",
            ),
            _ => None,
        }
    }
}

impl From<Failure> for SandboxError {
    fn from(failure: Failure) -> Self {
        let source = io::Error::from_raw_os_error(failure.errno);
        let path = PathBuf::from(std::ffi::OsString::from_vec(failure.detail));
        let what = path.display().to_string();
        match failure.stage {
            Stage::Namespaces => Self::Namespaces { what, source },
            Stage::Scratch => Self::Scratch { path, source },
            Stage::Times => Self::Times { path },
            Stage::Overlay => Self::Overlay(source),
            Stage::Mount => Self::Mount { path, source },
            Stage::Cache => Self::Cache { path, source },
            Stage::Limit => Self::Limit { name: what, source },
            Stage::Directory => Self::Directory { path, source },
            Stage::Program => Self::Program {
                program: path,
                source,
            },
            Stage::Interpreter => {
                let mut parts = path.as_os_str().as_bytes().splitn(2, |byte| *byte == 0);
                let mut part =
                    || PathBuf::from(OsStr::from_bytes(parts.next().unwrap_or_default()));
                Self::Interpreter {
                    program: part(),
                    interpreter: part(),
                }
            }
            Stage::Setup => Self::Setup { what, source },
            Stage::Killed => Self::Killed,
            Stage::Defect => Self::Defect(what),
        }
    }
}

/// Name of the program when it is to be the supervisor.
const SUPERVISOR: &str = "immbuild: sandbox";
/// Name of the program when it is to try one of the probes.
const PROBE: &str = "immbuild: probe";

/// Whether [`supervise_if_asked`] was called: otherwise [`run`] would start who knows what.
static READY: AtomicBool = AtomicBool::new(false);

/// The first thing `main` calls. If the program was started by [`run`] or [`probe`], it is their helper,
/// and this call does not return.
pub fn supervise_if_asked() {
    let name = std::env::args_os().next().unwrap_or_default();
    if name == SUPERVISOR {
        std::process::exit(supervisor::supervise());
    }
    if name == PROBE {
        std::process::exit(probe::attempt());
    }
    READY.store(true, Ordering::Relaxed);
}

fn is_ready() -> bool {
    READY.load(Ordering::Relaxed)
}

/// How often a waiting builder looks at `cancel`.
const TICK: Duration = Duration::from_millis(50);

/// Runs the job to its end. `output` gets what it writes to standard output and error, in order, as it
/// comes. When `cancel` becomes true or the timeout is over, everything is killed.
///
/// `ids` is what [`enter_if_needed`] said.
pub fn run(
    job: &Job<'_>,
    ids: IdMap,
    output: &mut dyn FnMut(&[u8]),
    cancel: &AtomicBool,
) -> Result<Ended, SandboxError> {
    let request = to_request(job, ids)?;
    let deadline = job
        .timeout
        .and_then(|timeout| Instant::now().checked_add(timeout));
    let wait = Wait { cancel, deadline };
    let Some(_locks) = lock_caches(&job.caches, &wait)? else {
        return wait.ended_early(job);
    };
    let (mut connection, theirs) = UnixStream::pair().map_err(SandboxError::Supervisor)?;
    let (mut reader, writer) = io::pipe().map_err(SandboxError::Supervisor)?;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0(SUPERVISOR)
        .env_clear()
        .stdin(OwnedFd::from(theirs));
    if job.terminal {
        drop(writer);
    } else {
        // A group of its own, so that an interrupt typed at the terminal reaches the builder alone.
        command.process_group(0);
        command
            .stdout(writer.try_clone().map_err(SandboxError::Supervisor)?)
            .stderr(writer);
    }
    let mut child = command.spawn().map_err(SandboxError::Supervisor)?;
    // The command holds our copies of the supervisor's ends.
    drop(command);
    let result = send(&mut connection, &request).and_then(|()| {
        let finished = relay(&connection, &mut reader, output, &wait)?;
        if !finished {
            connection.shutdown(std::net::Shutdown::Write)?;
        }
        let mut report = Vec::new();
        connection.read_to_end(&mut report)?;
        Ok((finished, report))
    });
    drop(connection);
    let exit = child.wait().map_err(SandboxError::Supervisor)?;
    let (finished, report) = result.map_err(SandboxError::Supervisor)?;
    drain(&mut reader, output).map_err(SandboxError::Supervisor)?;
    if !finished {
        return wait.ended_early(job);
    }
    let (report, left) = split(&report);
    match Report::decode(report) {
        Some(Report::Ended(status)) => {
            let left = job.virtualise.and_then(|_| Left::decode(left).ok());
            let owners = left.iter().flat_map(|left| &left.owners);
            Ok(Ended {
                status,
                upper: job.scratch.join(mounts::UPPER),
                owners: owners
                    .filter_map(|(path, owner)| {
                        Some((RelPath::new(path.strip_prefix(b"/")?).ok()?, *owner))
                    })
                    .collect(),
                evidence: left.map(|left| left.evidence),
            })
        }
        Some(Report::Failed(failure)) => Err(failure.into()),
        None => Err(SandboxError::Supervisor(io::Error::other(format!(
            "it ended with {exit}"
        )))),
    }
}

/// A report by its length, and what follows.
fn split(answer: &[u8]) -> (&[u8], &[u8]) {
    let parts = answer.split_first_chunk().and_then(|(length, rest)| {
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        rest.split_at_checked(length)
    });
    parts.unwrap_or((&[], &[]))
}

fn to_request(job: &Job<'_>, ids: IdMap) -> Result<Request, SandboxError> {
    if !is_ready() {
        return Err(SandboxError::NotReady);
    }
    let emulated = job.virtualise.is_some_and(|what| what.owners);
    let ids_held = if emulated { IdMap::Range } else { ids };
    if !ids_held.holds(job.uid) || !ids_held.holds(job.gid) {
        return Err(SandboxError::Ids {
            uid: job.uid,
            gid: job.gid,
        });
    }
    let bad_name = |name: &&String| {
        name.is_empty() || name.contains(['/', '\0']) || [".", ".."].contains(&name.as_str())
    };
    if let Some(name) = job.secrets.iter().map(|(name, _)| name).find(bad_name) {
        return Err(SandboxError::SecretName(name.clone()));
    }
    let to_path = |path: &RelPath| PathBuf::from(OsStr::from_bytes(path.as_bytes()));
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|source| SandboxError::Scratch {
            path: path.to_owned(),
            source,
        })
    };
    Ok(Request {
        lowers: job
            .lowers
            .iter()
            .map(|lower| absolute(lower))
            .collect::<Result<_, _>>()?,
        scratch: absolute(job.scratch)?,
        argv: job.argv.clone(),
        env: job.env.clone(),
        directory: Path::new("/").join(to_path(&job.directory)),
        uid: job.uid,
        gid: job.gid,
        caches: job
            .caches
            .iter()
            .map(|(at, host)| Ok((to_path(at), absolute(host)?)))
            .collect::<Result<_, SandboxError>>()?,
        secrets: job.secrets.clone(),
        terminal: job.terminal,
        read_only: job.read_only,
        virtualise: job.virtualise,
        owners: absolute_owners(job),
        ids,
    })
}

/// Owners of what can have no note, and of secrets, which are in memory.
fn absolute_owners(job: &Job<'_>) -> BTreeMap<Vec<u8>, Owner> {
    let secrets = job.secrets.iter().map(|(name, _)| {
        let path = format!("/{}/{name}", policy::SECRETS);
        (path.into_bytes(), (job.uid, job.gid))
    });
    job.owners
        .iter()
        .map(|(path, owner)| ([b"/", path.as_bytes()].concat(), *owner))
        .chain(secrets)
        .collect()
}

/// What ends a wait before its time.
struct Wait<'a> {
    cancel: &'a AtomicBool,
    deadline: Option<Instant>,
}

impl Wait<'_> {
    fn is_over(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
            || self
                .deadline
                .is_some_and(|deadline| Instant::now() >= deadline)
    }

    fn ended_early(&self, job: &Job<'_>) -> Result<Ended, SandboxError> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(SandboxError::Cancelled);
        }
        Ok(Ended {
            status: Status::TimedOut,
            upper: job.scratch.join(mounts::UPPER),
            evidence: None,
            owners: Noteless::new(),
        })
    }
}

/// Two overlays must not write to one directory. Sorted, so that two jobs cannot wait for each other.
fn lock_caches(
    caches: &[(RelPath, PathBuf)],
    wait: &Wait<'_>,
) -> Result<Option<Vec<std::fs::File>>, SandboxError> {
    let mut directories: Vec<&PathBuf> = caches.iter().map(|(_, host)| host).collect();
    directories.sort();
    let mut locks = Vec::new();
    for path in directories {
        let failed = |source| SandboxError::Cache {
            path: path.clone(),
            source,
        };
        let directory = std::fs::File::open(path).map_err(failed)?;
        loop {
            match directory.try_lock() {
                Ok(()) => break,
                Err(std::fs::TryLockError::WouldBlock) if wait.is_over() => return Ok(None),
                Err(std::fs::TryLockError::WouldBlock) => std::thread::sleep(TICK),
                Err(std::fs::TryLockError::Error(source)) => return Err(failed(source)),
            }
        }
        locks.push(directory);
    }
    Ok(Some(locks))
}

fn send(connection: &mut UnixStream, request: &Request) -> io::Result<()> {
    let bytes = request.to_canonical();
    connection.write_all(&(bytes.len() as u64).to_le_bytes())?;
    connection.write_all(&bytes)?;
    if request.terminal {
        terminal::send(connection, io::stdin())?;
    }
    Ok(())
}

/// Passes output on until the supervisor answers (true) or the wait is over (false).
fn relay(
    connection: &UnixStream,
    reader: &mut io::PipeReader,
    output: &mut dyn FnMut(&[u8]),
    wait: &Wait<'_>,
) -> io::Result<bool> {
    let mut buffer = vec![0; 64 << 10];
    while !wait.is_over() {
        let until = wait.deadline.map_or(TICK, |deadline| {
            deadline.saturating_duration_since(Instant::now()).min(TICK)
        });
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: until.subsec_nanos().into(),
        };
        let mut sources = [
            PollFd::new(connection, PollFlags::IN),
            PollFd::new(reader, PollFlags::IN),
        ];
        match poll(&mut sources, Some(&timeout)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let (answered, ready) = (
            !sources[0].revents().is_empty(),
            !sources[1].revents().is_empty(),
        );
        // Output first, so that a busy step cannot be taken for one that has ended.
        if ready && let count @ 1.. = reader.read(&mut buffer)? {
            output(&buffer[..count]);
        } else if answered {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What is left in the pipe when all writers are gone.
fn drain(reader: &mut io::PipeReader, output: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(()),
            count => output(&buffer[..count]),
        }
    }
}
