//! The mount table of a step.
//!
//! Two halves. [`prepare`] makes directories in the scratch directory, outside. [`enter`] runs in the
//! new namespaces, makes the rest in memory and mounts everything; when it returns, `/` is the step's root and nothing of the
//! host can be reached.
//!
//! `/proc/self/mountinfo` is readable inside, so nothing in it may tell where the store is: every disk
//! directory comes in through an overlay with short relative names (a bind mount
//! shows the path of its source), and what is in memory is a `ramfs`, because a `tmpfs` shows the host
//! ids of its owner. Left over, because the kernel offers no way: mount ids, anonymous device
//! numbers, and the options of the file system of the host's `/dev`.
#![allow(
    clippy::disallowed_methods,
    reason = "what is mounted does not depend on the order of names"
)]

use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};

use super::policy::{
    DEVICE_LINKS, DEVICES, ETC_FILES, MOUNT_DIRECTORIES, OVERLAY_OPTIONS, PROC_FILES, PROC_LIVE,
    PROC_SYS_FILES, SECRETS,
};
use super::request::{At, Failure, Request, Stage};

/// Where the step's changes are, below the scratch directory.
pub const UPPER: &str = "upper";

/// Where what is in memory is mounted, below the scratch directory.
const MEMORY: &str = "memory";
/// Where a traced process finds what it shares with its tracer: in the place of a file that says nothing to a step and
/// that every kernel has.
pub(super) const INSIDE: &CStr = c"/proc/iomem";
/// The same before it is there.
const SHARED: &str = "shared";

/// Mode of directories and files that the sandbox makes.
const DIRECTORY: u32 = 0o755;
const FILE: u32 = 0o444;

/// Makes on disk what overlays write to, in the empty scratch directory: everything else is made in memory, by [`enter`].
/// What is not on disk need not be removed from it, which takes longer than making it.
pub(super) fn prepare(request: &Request) -> Result<(), Failure> {
    keeps_marks(&request.scratch)?;
    if request.virtualise.is_some() {
        keeps_fractions(&request.scratch)?;
    }
    let scratch = Place(&request.scratch);
    for name in ["work", MEMORY, UPPER, "tmp", "tmp/work"] {
        scratch.directory(name, DIRECTORY)?;
    }
    scratch.directory("tmp/upper", 0o1777)?;
    if let Some(top) = request.lowers.first() {
        copy_root(top, &request.scratch.join(UPPER))?;
    }
    for number in 0..request.caches.len() {
        scratch.directory(&cache(number, ""), DIRECTORY)?;
    }
    for name in ["tmp/upper", UPPER] {
        settle(&request.scratch.join(name)).at(Stage::Scratch, name)?;
    }
    Ok(())
}

/// Makes the rest, and short names for what is on disk: an overlay finds its layers by name, and names that are links keep
/// paths out of its options. The current directory is the scratch directory before and this one afterwards.
fn prepare_memory(request: &Request) -> Result<(), Failure> {
    attach(new_mount("ramfs", &[], MountAttrFlags::empty())?, MEMORY)?;
    std::env::set_current_dir(MEMORY).at(Stage::Scratch, MEMORY)?;
    let here = Place(Path::new(""));
    for name in ["root", "constants", "empty", "stubs"] {
        here.directory(name, DIRECTORY)?;
    }
    for name in [UPPER, "work", "tmp"] {
        here.link(&Path::new("..").join(name), name)?;
    }
    for (number, lower) in request.lowers.iter().enumerate() {
        here.link(lower, &number.to_string())?;
    }
    for (number, (_, host)) in request.caches.iter().enumerate() {
        let name = cache(number, "");
        for part in ["", "root"] {
            here.directory(&cache(number, part), DIRECTORY)?;
        }
        here.link(&Path::new("../..").join(&name), &cache(number, "work"))?;
        here.link(host, &cache(number, "upper"))?;
    }
    for name in MOUNT_DIRECTORIES {
        here.directory(&format!("stubs/{name}"), DIRECTORY)?;
    }
    for (name, _) in ETC_FILES {
        here.file(&format!("stubs/etc/{name}"))?;
    }
    if !request.secrets.is_empty() {
        here.directories("stubs", Path::new(SECRETS))?;
    }
    for (at, _) in &request.caches {
        here.directories("stubs", at)?;
    }
    settle(Path::new("stubs")).at(Stage::Scratch, "stubs")
}

/// An overlay can also be mounted where it cannot mark what it replaces; a step that does so then fails, or not, and nobody
/// knows why (overlayfs.rst, "Upper file system").
fn keeps_marks(directory: &Path) -> Result<(), Failure> {
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(directory, "user.immbuild", b"", flags).at(Stage::Overlay, directory)
}

/// Whether a file was changed since the step began is told by its time.
fn keeps_fractions(directory: &Path) -> Result<(), Failure> {
    let time = Timespec {
        tv_sec: 1,
        tv_nsec: 123_456_700,
    };
    set_times(directory, time).at(Stage::Times, directory)?;
    let kept = fs::metadata(directory).at(Stage::Times, directory)?;
    if kept.mtime_nsec() == 0 {
        return Err(Failure {
            stage: Stage::Times,
            detail: directory.as_os_str().as_bytes().to_vec(),
            errno: 0,
        });
    }
    Ok(())
}

/// Sets the times of everything we made to 0, so that a step does not see when it runs.
fn settle(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() {
        for entry in fs::read_dir(path)? {
            settle(&entry?.path())?;
        }
    }
    settle_alone(path)
}

/// The same, and nothing of what is in it.
fn settle_alone(path: &Path) -> io::Result<()> {
    let zero = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    set_times(path, zero)
}

fn set_times(path: &Path, time: Timespec) -> io::Result<()> {
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(rustix::fs::utimensat(
        CWD,
        path,
        &times,
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

/// The root directory's own mode, owner and attributes come from the upper one.
fn copy_root(from: &Path, to: &Path) -> Result<(), Failure> {
    let at = |path: &Path| path.to_owned();
    let meta = fs::metadata(from).at(Stage::Scratch, at(from))?;
    own(to, meta.uid(), meta.gid(), meta.mode() & 0o7777)?;
    let mut names = vec![0; 64 << 10];
    let length = match rustix::fs::listxattr(from, names.as_mut_slice()) {
        Err(Errno::NOTSUP) => 0,
        result => result.at(Stage::Scratch, at(from))?,
    };
    let overlay = b"user.overlay.";
    let kept = |name: &&[u8]| name.starts_with(b"user.") && !name.starts_with(overlay);
    for name in names[..length].split(|byte| *byte == 0).filter(kept) {
        let mut value = vec![0; 64 << 10];
        let length =
            rustix::fs::getxattr(from, name, value.as_mut_slice()).at(Stage::Scratch, at(from))?;
        rustix::fs::setxattr(to, name, &value[..length], rustix::fs::XattrFlags::empty())
            .at(Stage::Scratch, at(to))?;
    }
    let time = Timespec {
        tv_sec: meta.mtime(),
        tv_nsec: meta.mtime_nsec(),
    };
    set_times(to, time).at(Stage::Scratch, at(to))
}

/// Owner before mode: changing the owner clears set-id bits.
fn own(path: &Path, uid: u32, gid: u32, mode: u32) -> Result<(), Failure> {
    std::os::unix::fs::chown(path, Some(uid), Some(gid)).at(Stage::Scratch, path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).at(Stage::Scratch, path)
}

/// A directory that is filled.
struct Place<'a>(&'a Path);

impl Place<'_> {
    fn directory(&self, name: &str, mode: u32) -> Result<(), Failure> {
        let path = self.0.join(name);
        fs::create_dir(&path).at(Stage::Scratch, &path)?;
        own(&path, 0, 0, mode)
    }

    /// Each directory of `path` that is missing below `under`.
    fn directories(&self, under: &str, path: &Path) -> Result<(), Failure> {
        let mut here = PathBuf::from(under);
        for name in path {
            here.push(name);
            if !self.0.join(&here).is_dir() {
                self.directory(&here.to_string_lossy(), DIRECTORY)?;
            }
        }
        Ok(())
    }

    fn file(&self, name: &str) -> Result<(), Failure> {
        let path = self.0.join(name);
        fs::write(&path, "").at(Stage::Scratch, &path)?;
        own(&path, 0, 0, FILE)
    }

    fn link(&self, target: &Path, name: &str) -> Result<(), Failure> {
        let path = self.0.join(name);
        symlink(target, &path).at(Stage::Scratch, &path)
    }
}

/// Mounts everything and makes it the root. The current directory is `/` afterwards.
/// Gives the file that [`INSIDE`] is, where one is needed.
pub(super) fn enter(request: &Request) -> Result<Option<File>, Failure> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).at(Stage::Mount, "/")?;
    std::env::set_current_dir(&request.scratch).at(Stage::Scratch, &request.scratch)?;
    prepare_memory(request)?;
    let inside = match request.virtualise {
        Some(what) if what.answers_inside() => Some(shared()?),
        _ => None,
    };

    overlay(&root_layers(request.lowers.len()), UPPER, "work", "root").map_err(|failure| {
        Failure {
            stage: Stage::Overlay,
            ..failure
        }
    })?;
    constants()?;
    // While their links still lead outside.
    for (number, (at, _)) in request.caches.iter().enumerate() {
        let part = |part| cache(number, part);
        overlay("empty", &part("upper"), &part("work"), part("root")).map_err(|failure| {
            Failure {
                stage: Stage::Cache,
                detail: at.as_os_str().as_bytes().to_vec(),
                ..failure
            }
        })?;
    }
    let outside = open_directory("/")?;
    let memory = open_directory(".")?;
    rustix::process::chdir("root").at(Stage::Mount, "root")?;
    // With both names the same, the old root ends up on top of the new one and is taken off below.
    rustix::process::pivot_root(".", ".").at(Stage::Mount, "pivot_root")?;
    // From here on absolute paths and the links in them stay inside, relative ones are outside.
    rustix::process::fchdir(&memory).at(Stage::Mount, MEMORY)?;

    proc(inside.is_some())?;
    bind("constants/empty", "/sys")?;
    devices(&outside, request.virtualise.is_some())?;
    overlay("empty", "tmp/upper", "tmp/work", "/tmp")?;
    for (name, _) in ETC_FILES {
        match bind(&format!("constants/etc/{name}"), &format!("/etc/{name}")) {
            // The tree has a dangling link there, or a file for `/etc`: what is read is as constant.
            Err(failure) if [libc::ENOENT, libc::ENOTDIR].contains(&failure.errno) => {}
            result => result?,
        }
    }
    secrets(request)?;
    for (number, (at, _)) in request.caches.iter().enumerate() {
        let target = Path::new("/").join(at);
        let flags = MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
        rustix::mount::move_mount(CWD, cache(number, "root"), CWD, &target, flags)
            .at(Stage::Cache, &target)?;
    }

    if request.read_only {
        let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOATIME;
        rustix::mount::mount_remount("/", flags, "").at(Stage::Mount, "/")?;
    }
    rustix::process::fchdir(&outside).at(Stage::Mount, "/")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).at(Stage::Mount, "old root")?;
    rustix::process::chdir("/").at(Stage::Mount, "/")?;
    Ok(inside)
}

/// Name of a part of a cache's overlay.
fn cache(number: usize, part: &str) -> String {
    let name = format!("cache{number}");
    if part.is_empty() {
        name
    } else {
        format!("{name}/{part}")
    }
}

fn root_layers(lowers: usize) -> String {
    let mut layers = String::new();
    for number in 0..lowers {
        layers.push_str(&number.to_string());
        layers.push(':');
    }
    layers + "stubs"
}

fn open_directory(path: &str) -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).at(Stage::Mount, path)
}

/// Mounts an overlay whose parts are named relative to the current directory.
fn overlay(lower: &str, upper: &str, work: &str, target: impl AsRef<Path>) -> Result<(), Failure> {
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work},{OVERLAY_OPTIONS}");
    let options = std::ffi::CString::new(options).expect("the names are ours");
    let target = target.as_ref();
    rustix::mount::mount(
        "overlay",
        target,
        "overlay",
        MountFlags::NOATIME,
        Some(options.as_c_str()),
    )
    .at(Stage::Mount, target)
}

/// Mounts what is at `source`, relative to the current directory, onto `target` inside.
fn bind(source: &str, target: &str) -> Result<(), Failure> {
    bind_from(CWD, source, target)
}

fn bind_from(directory: impl std::os::fd::AsFd, source: &str, target: &str) -> Result<(), Failure> {
    attach(copy_of(directory, source)?, target)
}

/// A mount of what is there, that is nowhere yet.
fn copy_of(directory: impl std::os::fd::AsFd, source: &str) -> Result<OwnedFd, Failure> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(directory, source, flags).at(Stage::Mount, source)
}

/// `MOUNT_ATTR_NOSYMFOLLOW` (`mount_setattr(2)`), for this mount and all that are made of it. Linux before 5.14 does not
/// know it; there what a step has mounted again is not recognised.
#[allow(unsafe_code, reason = "there is no wrapper for it")]
fn mark(mount: &OwnedFd) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        namespace: u64,
    }
    let attributes = Attributes {
        set: 0x20_0000,
        clear: 0,
        propagation: 0,
        namespace: 0,
    };
    // SAFETY: both pointers live through the call, and the size is that of the structure.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    match result {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            error => Err(error),
        },
    }
}

fn attach(mount: OwnedFd, target: &str) -> Result<(), Failure> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    rustix::mount::move_mount(mount, "", CWD, target, flags).at(Stage::Mount, target)
}

/// A new file system with its defaults.
fn new_mount(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Failure> {
    let context =
        rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).at(Stage::Mount, kind)?;
    for (name, value) in options {
        rustix::mount::fsconfig_set_string(&context, *name, *value).at(Stage::Mount, kind)?;
    }
    rustix::mount::fsconfig_create(&context).at(Stage::Mount, kind)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .at(Stage::Mount, kind)
}

/// One read-only file system that holds every constant file; its parts are mounted where they belong.
fn constants() -> Result<(), Failure> {
    attach(
        new_mount("ramfs", &[], MountAttrFlags::empty())?,
        "constants",
    )?;
    let directories = [
        "empty",
        "etc",
        "proc",
        "sys",
        "sys/fs",
        "sys/kernel",
        "sys/kernel/random",
        "sys/kernel/seccomp",
        "sys/net",
        "sys/net/core",
        "sys/net/ipv4",
        "sys/vm",
    ];
    for name in directories {
        let path = Path::new("constants").join(name);
        fs::create_dir(&path).at(Stage::Mount, &path)?;
    }
    let tables = [
        ("etc", ETC_FILES.as_slice()),
        ("proc", &PROC_FILES),
        ("sys", &PROC_SYS_FILES),
    ];
    for (directory, files) in tables {
        for (name, text) in files {
            write(
                &Path::new("constants").join(directory).join(name),
                text.as_bytes(),
                FILE,
            )?;
        }
    }
    write(Path::new("constants/nothing"), b"", FILE)?;
    settle(Path::new("constants")).at(Stage::Mount, "constants")?;
    let read_only =
        MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount_remount("constants", read_only, "").at(Stage::Mount, "constants")
}

/// A file for the tracer and all that it traces. It can be run, as nothing else that we mount.
fn shared() -> Result<File, Failure> {
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(SHARED)
        .at(Stage::Mount, SHARED)?;
    file.set_permissions(fs::Permissions::from_mode(0o444))
        .at(Stage::Mount, SHARED)?;
    Ok(file)
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), Failure> {
    let mut file = File::create_new(path).at(Stage::Mount, path)?;
    file.write_all(content).at(Stage::Mount, path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))
        .at(Stage::Mount, path)
}

/// `/proc` of the new pid namespace, with everything that is not a process covered.
fn proc(shares: bool) -> Result<(), Failure> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    attach(new_mount("proc", &[], attributes)?, "/proc")?;
    limit_pids();
    let mut names = Vec::new();
    for entry in fs::read_dir("/proc").at(Stage::Mount, "/proc")? {
        let entry = entry.at(Stage::Mount, "/proc")?;
        let directory = entry.file_type().at(Stage::Mount, entry.path())?.is_dir();
        names.push((entry.file_name(), directory));
    }
    names.sort();
    for (name, directory) in names {
        let Some(name) = name.to_str() else { continue };
        if PROC_LIVE.contains(&name) || name.as_bytes()[0].is_ascii_digit() {
            continue;
        }
        let target = format!("/proc/{name}");
        if name == "sys" {
            bind("constants/sys", &target)?;
        } else if PROC_FILES.iter().any(|(file, _)| *file == name) {
            bind(&format!("constants/proc/{name}"), &target)?;
        } else if shares && target.as_bytes() == INSIDE.to_bytes() {
            bind(SHARED, &target)?;
        } else if directory {
            bind("constants/empty", &target)?;
        } else {
            bind("constants/nothing", &target)?;
        }
    }
    Ok(())
}

/// Sets the size of the pid namespace where it has one of its own (Linux 6.14). On older kernels the
/// same file is the host's, and root would change it for everybody.
fn limit_pids() {
    let release = rustix::system::uname();
    let mut numbers = release
        .release()
        .to_bytes()
        .split(|byte| !byte.is_ascii_digit());
    let mut number = || {
        std::str::from_utf8(numbers.next()?)
            .ok()?
            .parse::<u32>()
            .ok()
    };
    if (number(), number()) >= (Some(6), Some(14)) {
        // A machine with more than 512 processors refuses so small a size; the limit of the user stays.
        let _ = fs::write(
            "/proc/sys/kernel/pid_max",
            super::policy::PROCESSES.to_string(),
        );
    }
}

/// `/dev`: a few device files of the host, a terminal multiplexer of its own, and `/dev/shm`.
///
/// Where randomness is virtual the tracer opens something else for a random device. It knows it by its mount, and where
/// a step has mounted it again by a mark that goes with it: no link is followed there, which means nothing for a file.
fn devices(outside: &OwnedFd, virtualise: bool) -> Result<(), Failure> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    attach(new_mount("ramfs", &[], attributes)?, "/dev")?;
    for name in DEVICES {
        let target = format!("/dev/{name}");
        write(Path::new(&target), b"", 0o666)?;
        if virtualise && matches!(name, "random" | "urandom") {
            let device = copy_of(outside, "dev/zero")?;
            mark(&device).at(Stage::Mount, &target)?;
            attach(device, &target)?;
        } else {
            bind_from(outside, &format!("dev/{name}"), &target)?;
        }
    }
    for (name, target) in DEVICE_LINKS {
        symlink(target, Path::new("/dev").join(name)).at(Stage::Mount, name)?;
    }
    for (name, mode) in [("pts", DIRECTORY), ("shm", 0o1777)] {
        let path = Path::new("/dev").join(name);
        fs::create_dir(&path).at(Stage::Mount, &path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).at(Stage::Mount, &path)?;
    }
    for name in ["pts", "shm"]
        .into_iter()
        .chain(DEVICE_LINKS.map(|(name, _)| name))
    {
        settle(&Path::new("/dev").join(name)).at(Stage::Mount, name)?;
    }
    let pts = new_mount(
        "devpts",
        &[("mode", "0620"), ("ptmxmode", "0666")],
        attributes,
    )?;
    attach(pts, "/dev/pts")?;
    // The devices are the host's, and keep their times.
    for path in ["/dev", "/dev/pts"] {
        settle_alone(Path::new(path)).at(Stage::Mount, path)?;
    }
    Ok(())
}

/// Secrets are in memory that is never swapped out, and read-only.
fn secrets(request: &Request) -> Result<(), Failure> {
    if request.secrets.is_empty() {
        return Ok(());
    }
    let target = format!("/{SECRETS}");
    attach(new_mount("ramfs", &[], MountAttrFlags::empty())?, &target)?;
    for (name, value) in &request.secrets {
        let path = Path::new(&target).join(name);
        write(&path, value, 0o400)?;
        let (uid, gid) = request.real_ids();
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::fs::chown(&path, Some(uid), Some(gid)).at(Stage::Mount, &path)?;
    }
    settle(Path::new(&target)).at(Stage::Mount, &target)?;
    let read_only =
        MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount_remount(target.as_str(), read_only, "").at(Stage::Mount, &target)
}
