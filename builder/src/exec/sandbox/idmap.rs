//! Ids: which of them a build can own files with, and the user namespace that makes it so.
//!
//! Effects: starts `newuidmap` and `newgidmap`, replaces the running program.
#![allow(clippy::disallowed_methods, reason = "the helpers are found by PATH")]

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::{getegid, geteuid};
use rustix::thread::UnshareFlags;

/// Ids from 0 on that a build can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IdMap {
    /// 0 to 65535.
    Range,
    /// Only 0: there is no range of sub-uids.
    Single,
}

/// Ids in a [`IdMap::Range`].
const COUNT: u32 = 65536;

impl IdMap {
    /// The word for keys and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::Single => "single",
        }
    }

    /// Whether files can belong to `id`.
    pub fn holds(self, id: u32) -> bool {
        match self {
            Self::Range => id < COUNT,
            Self::Single => id == 0,
        }
    }

    /// The highest id that files can belong to.
    pub fn highest(self) -> u32 {
        match self {
            Self::Range => COUNT - 1,
            Self::Single => 0,
        }
    }

    /// The map of the inner namespace onto the ids of the caller. Two extents, also where one would
    /// do: the kernel maps an extent only into one extent of the outer map, and `newuidmap` makes
    /// two. The step sees the same text everywhere.
    pub(super) fn inner(self) -> &'static str {
        match self {
            Self::Range => "0 0 1\n1 1 65535\n",
            Self::Single => "0 0 1\n",
        }
    }

    /// What the namespace this process is in already offers.
    fn of_this_process() -> io::Result<Self> {
        let range = ["/proc/self/uid_map", "/proc/self/gid_map"]
            .into_iter()
            .map(|file| Ok(covers(&fs::read_to_string(file)?)))
            .collect::<io::Result<Vec<_>>>()?;
        Ok(if range == [true, true] {
            Self::Range
        } else {
            Self::Single
        })
    }
}

/// Whether a map holds 0 in one extent and 1 to 65535 in one, as the inner map needs.
fn covers(map: &str) -> bool {
    let extents: Vec<(u64, u64)> = map
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().map(|word| word.parse::<u64>().ok());
            let (start, _, count) = (words.next()??, words.next()??, words.next()??);
            Some((start, start + count))
        })
        .collect();
    let has = |from, to| {
        extents
            .iter()
            .any(|&(start, end)| start <= from && to <= end)
    };
    has(0, 1) && has(1, u64::from(COUNT))
}

/// Why the process could not become root of a user namespace.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// The kernel or its policy refuses user namespaces.
    #[error("cannot make a user namespace")]
    Namespace(#[source] io::Error),
    /// The kernel refused the single-id map that needs no privilege.
    #[error("cannot map the user in a new user namespace")]
    Map(#[source] io::Error),
    /// `newuidmap` or `newgidmap` refused the range that the system's files grant.
    #[error("`{program}` failed: {message}")]
    Helper {
        /// Which of the two.
        program: &'static str,
        /// What it said.
        message: String,
    },
    /// Root without the capability to mount, as in a container with default settings.
    #[error("running as root without the capability CAP_SYS_ADMIN")]
    Capability,
    /// The program could not start itself again.
    #[error("cannot start the program again inside its user namespace")]
    Restart(#[source] io::Error),
    /// A file of `/proc` could not be read.
    #[error("cannot read the id map of this process")]
    Proc(#[source] io::Error),
}

impl EnterError {
    /// What to do about it.
    pub fn fix(&self) -> &'static str {
        match self {
            Self::Namespace(_) | Self::Map(_) => NAMESPACE_FIX,
            Self::Helper { .. } => {
                "check that newuidmap and newgidmap are set-user-id root and that /etc/subuid and /etc/subgid name this user"
            }
            Self::Capability => {
                "run as an ordinary user (`--user`), or give the container that right (`--cap-add SYS_ADMIN`)"
            }
            Self::Restart(_) | Self::Proc(_) => "mount /proc and keep the program's file in place",
        }
    }
}

/// What gives a user more than one id.
pub const RANGE_FIX: &str = "give the user a range of ids: `sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER`, \
     and install `newuidmap` (Debian: `uidmap`); `immbuild doctor` checks it. \
     A step of tier `deterministic` or `strict` needs no range";

/// The ways in which distributions turn user namespaces off.
pub(super) const NAMESPACE_FIX: &str = "allow user namespaces: `sysctl user.max_user_namespaces=28633`, on Debian also \
     `kernel.unprivileged_userns_clone=1`, on Ubuntu `kernel.apparmor_restrict_unprivileged_userns=0` \
     or an AppArmor profile for this program; or run as root; in a container of Docker's, start it with \
     `--security-opt seccomp=seccomp.json`, the profile that is in the book";

/// Root of a container is not always root enough.
pub(super) fn root_without_rights() -> io::Result<bool> {
    let capabilities = rustix::thread::capabilities(None)?;
    let needed = rustix::thread::CapabilitySet::SYS_ADMIN;
    Ok(geteuid().is_root() && !capabilities.effective.contains(needed))
}

/// Makes sure that this process is root in a user namespace that it may make others in, and says which
/// ids there are. As root that is so already. Otherwise **the program is started again in place**, with
/// the same arguments and environment, as root of a new user namespace, and this call does not
/// return; the second time it finds itself root and returns. Process id, terminal and parent stay.
///
/// Call it while the process has one thread.
pub fn enter_if_needed() -> Result<IdMap, EnterError> {
    if geteuid().is_root() {
        if root_without_rights().map_err(EnterError::Proc)? {
            return Err(EnterError::Capability);
        }
        return IdMap::of_this_process().map_err(EnterError::Proc);
    }
    match subordinate_ids() {
        Some(ranges) => enter_range(ranges)?,
        None => enter_single()?,
    }
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let error = Command::new("/proc/self/exe")
        .arg0(name)
        .args(arguments)
        .exec();
    Err(EnterError::Restart(error))
}

/// First ids of the ranges for users and groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subordinate {
    uid: u32,
    gid: u32,
}

/// The ranges of this user, if the system's files grant both and the helpers are installed.
pub(super) fn subordinate_ids() -> Option<Subordinate> {
    let uid = geteuid().as_raw();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = user_name(&passwd, uid);
    let start = |file| first_range(&fs::read_to_string(file).ok()?, name, uid);
    let ranges = Subordinate {
        uid: start("/etc/subuid")?,
        gid: start("/etc/subgid")?,
    };
    (on_path("newuidmap") && on_path("newgidmap")).then_some(ranges)
}

pub(super) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

fn user_name(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

/// Start of the first range with room for 1 to 65535; subuid(5).
fn first_range(file: &str, name: Option<&str>, uid: u32) -> Option<u32> {
    file.lines().find_map(|line| {
        let (owner, range) = line.split_once(':')?;
        let (start, count) = range.split_once(':')?;
        let ours = Some(owner) == name || owner.parse() == Ok(uid);
        let enough = count.trim().parse::<u32>().ok()? >= COUNT - 1;
        (ours && enough).then(|| start.parse().ok())?
    })
}

/// The helpers must run outside the new namespace, so a child that stays outside starts them. The
/// child is a shell, because a program that may have threads must not fork itself.
fn enter_range(ranges: Subordinate) -> Result<(), EnterError> {
    let pid = std::process::id().to_string();
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let count = (COUNT - 1).to_string();
    let arguments = |own: u32, start: u32| {
        [
            pid.clone(),
            "0".into(),
            own.to_string(),
            "1".into(),
            "1".into(),
            start.to_string(),
            count.clone(),
        ]
    };
    let mut waiting = Command::new("/bin/sh")
        .args([
            "-c",
            "read -r go && u=$1 g=$2 && newuidmap $u && newgidmap $g",
            "sh",
        ])
        .arg(arguments(uid, ranges.uid).join(" "))
        .arg(arguments(gid, ranges.gid).join(" "))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(EnterError::Restart)?;
    unshare_user().map_err(EnterError::Namespace)?;
    let mut go = waiting.stdin.take().expect("stdin is piped");
    // A shell that is gone says why below.
    let _ = go.write_all(b"go\n");
    drop(go);
    let mut message = String::new();
    let mut stderr = waiting.stderr.take().expect("stderr is piped");
    stderr
        .read_to_string(&mut message)
        .map_err(EnterError::Restart)?;
    let status = waiting.wait().map_err(EnterError::Restart)?;
    if status.success() {
        return Ok(());
    }
    let program = if message.contains("newgidmap") {
        "newgidmap"
    } else {
        "newuidmap"
    };
    Err(EnterError::Helper {
        program,
        message: message.trim().to_owned(),
    })
}

fn enter_single() -> Result<(), EnterError> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    unshare_user().map_err(EnterError::Namespace)?;
    // user_namespaces(7): without privilege the group map needs setgroups off.
    let files = [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {uid} 1\n")),
        ("/proc/self/gid_map", format!("0 {gid} 1\n")),
    ];
    for (file, text) in files {
        fs::write(OsStr::new(file), text).map_err(EnterError::Map)?;
    }
    Ok(())
}

#[allow(
    unsafe_code,
    reason = "unshare of file descriptor tables is unsafe, the wrapper is one for all"
)]
pub(super) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    debug_assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: only unsharing the descriptor table could invalidate what Rust holds; no caller does.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(Into::into)
}

fn unshare_user() -> io::Result<()> {
    unshare(UnshareFlags::NEWUSER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_covers_the_range_in_one_extent_or_two() {
        assert!(covers("         0          0 4294967295\n"));
        assert!(covers("0 1000 1\n1 100000 65535\n"));
        assert!(covers("0 1000 1\n1 100000 65536\n"));
        assert!(!covers("0 1000 1\n"));
        assert!(!covers("0 1000 1\n1 100000 65534\n"));
        assert!(!covers("0 1000 1\n1 1 9\n10 10 65526\n"));
        assert!(!covers(""));
    }

    #[test]
    fn the_first_large_enough_range_of_the_user_is_taken() {
        let file = "other:100000:65536\nme:200000:1000\nme:300000:65535\n1000:400000:65536\n";
        assert_eq!(first_range(file, Some("me"), 1000), Some(300_000));
        assert_eq!(first_range(file, None, 1000), Some(400_000));
        assert_eq!(first_range(file, Some("nobody"), 7), None);
        assert_eq!(first_range("me:x:65536\nme\n", Some("me"), 1000), None);
    }

    #[test]
    fn a_user_is_found_by_number() {
        let passwd = "root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\n";
        assert_eq!(user_name(passwd, 1000), Some("me"));
        assert_eq!(user_name(passwd, 1), None);
    }
}
