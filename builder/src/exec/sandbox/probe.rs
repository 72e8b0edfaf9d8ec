//! What this machine lets a build do, found out by doing it.
//!
//! Each probe runs in a process of its own, with one thread, and changes nothing outside the scratch
//! directory it is given.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::fs::{AtFlags, CWD};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{Rlimit, getegid, geteuid};
use rustix::thread::UnshareFlags;

use super::idmap::{
    EnterError, NAMESPACE_FIX, on_path, root_without_rights, subordinate_ids, unshare,
};
use super::policy::{LIMITS, OVERLAY_OPTIONS};
use super::{PROBE, PROC_FIX, SandboxError, foreign, is_ready, seccomp, supervisor, support};

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What, in a few words.
    pub name: &'static str,
    /// How it went.
    pub outcome: Outcome,
    /// What it is needed for, or what went wrong, in one line.
    pub detail: String,
    /// What to do when it did not go well.
    pub fix: &'static str,
}

/// How a probe went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Well.
    Works,
    /// Badly, and steps can run all the same: only what needs foreign owners cannot.
    Limited,
    /// Badly, with this error number (0 where there is none); no step can run.
    Fails(i32),
}

type Check = fn(&Path) -> io::Result<()>;

/// A probe that runs in a child.
pub(super) struct Trial {
    pub(super) name: &'static str,
    pub(super) needed_for: &'static str,
    pub(super) fix: &'static str,
    pub(super) check: Check,
}

/// Where Docker's own profile is what refuses.
macro_rules! or_profile {
    ($fix:literal) => {
        concat!(
            $fix,
            "; in a container of Docker's, start it with `--security-opt seccomp=seccomp.json`, the profile that is in the book"
        )
    };
}
pub(super) use or_profile;

const TRIALS: [Trial; 9] = [
    Trial {
        name: "user namespaces",
        needed_for: "a step is root in a namespace of its own",
        fix: NAMESPACE_FIX,
        check: |_| enter_namespace(),
    },
    Trial {
        name: "other namespaces",
        needed_for: "mount, pid, net, ipc, uts, cgroup and time namespaces",
        fix: or_profile!("use a kernel of at least 5.11 with these namespaces built in"),
        check: |_| {
            enter_namespace()?;
            unshare(
                UnshareFlags::NEWPID
                    | UnshareFlags::NEWNET
                    | UnshareFlags::NEWIPC
                    | UnshareFlags::NEWUTS
                    | UnshareFlags::NEWCGROUP
                    | UnshareFlags::NEWTIME,
            )
        },
    },
    Trial {
        name: "proc",
        needed_for: "a step sees its own processes and no others",
        fix: PROC_FIX,
        check: |scratch| {
            enter_namespace()?;
            unshare(UnshareFlags::NEWPID)?;
            match start(&PROC_INSIDE, scratch)?.outcome {
                Outcome::Works | Outcome::Limited => Ok(()),
                Outcome::Fails(errno) => Err(io::Error::from_raw_os_error(errno)),
            }
        },
    },
    Trial {
        name: "user attributes",
        needed_for: "the store's file system keeps user.* attributes, where overlays keep their marks",
        fix: "keep the store on ext4, xfs, btrfs, or tmpfs of Linux 6.6 and newer",
        check: |scratch| {
            let flags = rustix::fs::XattrFlags::empty();
            Ok(rustix::fs::setxattr(
                scratch,
                "user.immbuild.probe",
                b"1",
                flags,
            )?)
        },
    },
    Trial {
        name: "overlay",
        needed_for: "an overlay in a user namespace, which can delete and replace what is below",
        fix: "use a kernel of at least 5.11, and a store on ext4, xfs, btrfs or tmpfs; in a container, keep it on a volume",
        check: overlay,
    },
    Trial {
        name: "pivot_root",
        needed_for: "nothing of the machine is visible in a step",
        fix: or_profile!("do not run from an initial ramdisk"),
        check: |scratch| {
            enter_namespace()?;
            let root = scratch.join("root");
            fs::create_dir(&root)?;
            rustix::mount::mount_bind(&root, &root)?;
            rustix::process::chdir(&root)?;
            Ok(rustix::process::pivot_root(".", ".")?)
        },
    },
    Trial {
        name: "seccomp filter",
        needed_for: "calls that reach across namespaces are refused",
        fix: or_profile!("use a kernel with CONFIG_SECCOMP_FILTER"),
        check: |_| {
            enter_namespace()?;
            seccomp::install(&seccomp::filters())
        },
    },
    Trial {
        name: "personality",
        needed_for: "address space randomisation is off",
        fix: or_profile!("allow personality(ADDR_NO_RANDOMIZE)"),
        check: |_| supervisor::set_personality(),
    },
    Trial {
        name: "limits",
        needed_for: "the limits of a step are the same everywhere",
        fix: "raise the hard limits of this session, for example in /etc/security/limits.conf",
        check: |_| {
            for (name, resource, limit) in LIMITS {
                let limit = Rlimit {
                    current: limit,
                    maximum: limit,
                };
                rustix::process::setrlimit(resource, limit)
                    .map_err(|error| io::Error::new(io::Error::from(error).kind(), name))?;
            }
            Ok(())
        },
    },
];

/// The part of the trial `proc` that is done by the first process of a pid namespace.
const PROC_INSIDE: Trial = Trial {
    name: "proc inside",
    needed_for: "",
    fix: PROC_FIX,
    check: |scratch| {
        let proc = scratch.join("proc");
        fs::create_dir(&proc)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        rustix::mount::mount("proc", &proc, "proc", flags, None)?;
        Ok(rustix::mount::unmount(&proc, UnmountFlags::DETACH)?)
    },
};

/// Tries everything. `scratch` is a directory on the store's file system; what is made there is removed.
///
/// Call it before [`enter_if_needed`](super::enter_if_needed): it tells what that needs, too.
pub fn probe(scratch: &Path) -> Result<Vec<Probe>, SandboxError> {
    if !is_ready() {
        return Err(SandboxError::NotReady);
    }
    let mut probes = vec![ids()];
    for trial in trials() {
        probes.push(run(trial, scratch).map_err(SandboxError::Supervisor)?);
    }
    Ok(probes)
}

/// All of them.
fn trials() -> impl Iterator<Item = &'static Trial> {
    TRIALS.iter().chain(support::TRIALS)
}

/// Whether files can have owners.
fn ids() -> Probe {
    let probe = |outcome, detail: &str, fix| Probe {
        name: "ids",
        outcome,
        detail: detail.into(),
        fix,
    };
    if root_without_rights().unwrap_or(false) {
        let error = EnterError::Capability;
        let outcome = Outcome::Fails(libc::EPERM);
        return probe(outcome, &error.to_string(), error.fix());
    }
    if geteuid().is_root() {
        return probe(Outcome::Works, "running as root", "");
    }
    if !on_path("newuidmap") || !on_path("newgidmap") {
        let fix = "install newuidmap and newgidmap (package uidmap or shadow-utils)";
        return probe(
            Outcome::Limited,
            "newuidmap or newgidmap is missing: only uid 0 can own files in tier `isolated`",
            fix,
        );
    }
    if subordinate_ids().is_none() {
        let fix = "`usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER`";
        return probe(
            Outcome::Limited,
            "no range of 65535 sub-uids and sub-gids: only uid 0 can own files in tier `isolated`",
            fix,
        );
    }
    probe(Outcome::Works, "a range of sub-uids", "")
}

/// Runs a trial in a directory of its own.
fn run(trial: &Trial, scratch: &Path) -> io::Result<Probe> {
    let directory = scratch.join("probe");
    fs::create_dir(&directory)?;
    let directory = directory.canonicalize()?;
    let probe = start(trial, &directory)?;
    fs::remove_dir_all(&directory)?;
    Ok(probe)
}

/// Starts this program again as the trial.
pub(super) fn start(trial: &Trial, directory: &Path) -> io::Result<Probe> {
    let output = Command::new("/proc/self/exe")
        .arg0(PROBE)
        .arg(trial.name)
        .arg(directory)
        .env_clear()
        .output()?;
    let errno = String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse::<i32>();
    let (outcome, detail) = match (output.status.success(), errno) {
        (true, _) => (Outcome::Works, trial.needed_for.to_owned()),
        (false, Ok(errno)) => {
            let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            (Outcome::Fails(errno), message)
        }
        (false, Err(_)) => (
            Outcome::Fails(0),
            format!("the trial ended with {}", output.status),
        ),
    };
    Ok(Probe {
        name: trial.name,
        outcome,
        detail,
        fix: trial.fix,
    })
}

/// The child's side of [`run`]: the error number to standard output, words to standard error.
#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "both are pipes to the parent"
)]
pub(super) fn attempt() -> i32 {
    let mut arguments = std::env::args_os().skip(1);
    let name = arguments.next().unwrap_or_default();
    if name == support::WAIT {
        return support::wait();
    }
    let trial = trials()
        .chain([&PROC_INSIDE, &foreign::TRIAL])
        .find(|trial| name == trial.name);
    let (Some(trial), Some(directory)) = (trial, arguments.next()) else {
        return 2;
    };
    match (trial.check)(Path::new(&directory)) {
        Ok(()) => 0,
        Err(error) => {
            println!("{}", error.raw_os_error().unwrap_or(0));
            eprintln!("{error}");
            1
        }
    }
}

/// A user and a mount namespace with only the caller's id, which needs no helper.
pub(super) fn enter_namespace() -> io::Result<()> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1\n"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1\n"))?;
    let private =
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
    Ok(rustix::mount::mount_change("/", private)?)
}

/// Mounts one as a step does, and does what needs whiteouts and opaque marks.
fn overlay(scratch: &Path) -> io::Result<()> {
    enter_namespace()?;
    std::env::set_current_dir(scratch)?;
    for name in ["lower/old/file", "upper", "work", "root"] {
        fs::create_dir_all(name)?;
    }
    let options = format!("lowerdir=lower,upperdir=upper,workdir=work,{OVERLAY_OPTIONS}");
    let options = CString::new(options).expect("the options are ours");
    rustix::mount::mount(
        "overlay",
        "root",
        "overlay",
        MountFlags::NOATIME,
        Some(options.as_c_str()),
    )?;
    let result = replace_directory();
    // Its directories of mode 0 can be removed here, by root of the namespace.
    rustix::mount::unmount("root", UnmountFlags::DETACH)?;
    fs::remove_dir_all("work")?;
    result
}

/// In an overlay this needs a whiteout and an opaque mark.
fn replace_directory() -> io::Result<()> {
    fs::remove_dir_all("root/old")?;
    fs::create_dir("root/old")?;
    rustix::fs::statat(CWD, "root/old/file", AtFlags::SYMLINK_NOFOLLOW).map_or(Ok(()), |_| {
        Err(io::Error::other(
            "a replaced directory still shows what was below",
        ))
    })
}
