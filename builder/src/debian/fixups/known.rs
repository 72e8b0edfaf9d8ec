//! What the scripts of some packages are known to do, said again. From the scripts of Debian 12.

use immbuild_cas::path::RelPath;
use immbuild_cas::tree::{Entry, EntryKind, Meta, Mode};

use super::{Fixing, constant};
use crate::debian::install::InstallError;

/// Packages whose scripts are said again here or in a module beside, in full as far as a container can tell.
pub(super) const PACKAGES: [&str; 9] = [
    "base-files",
    "base-passwd",
    "dash",
    "debianutils",
    "libc-bin",
    "libc6",
    "mawk",
    "netbase",
    "nginx-common",
];

// Numbers that Debian has fixed for ever (base-passwd).
const ADM: u32 = 4;
const MAIL: u32 = 8;
const WWW_DATA: u32 = 33;
const UTMP: u32 = 43;

/// Directories that every root has, whatever is in it. Part of format 1: changing it changes image bytes.
const SKELETON: [(&str, u32); 13] = [
    ("/dev", 0o755),
    ("/etc", 0o755),
    ("/home", 0o755),
    ("/proc", 0o755),
    ("/root", 0o700),
    ("/run", 0o755),
    ("/sys", 0o755),
    ("/tmp", 0o1777),
    ("/var", 0o755),
    ("/var/cache", 0o755),
    ("/var/lib", 0o755),
    ("/var/log", 0o755),
    ("/var/tmp", 0o1777),
];

/// A root without the package that has these directories has them all the same.
pub(super) fn skeleton(fixing: &mut Fixing<'_, '_>) -> Result<(), InstallError> {
    for (path, mode) in SKELETON {
        directory(fixing, path, mode, 0)?;
    }
    Ok(())
}

pub(super) fn apply(fixing: &mut Fixing<'_, '_>) -> Result<(), InstallError> {
    if fixing.has("base-files") {
        base_files(fixing)?;
    }
    if fixing.has("debianutils") {
        shells(fixing)?;
    }
    if fixing.has("libc-bin") {
        copy(
            fixing,
            "/usr/share/libc-bin/nsswitch.conf",
            "/etc/nsswitch.conf",
        )?;
    }
    if fixing.has("netbase") && !fixing.is_there(&constant("/etc/networks"))? {
        let text = "default\t\t0.0.0.0\nloopback\t127.0.0.0\nlink-local\t169.254.0.0\n\n";
        fixing.write(&constant("/etc/networks"), text, Mode::FILE)?;
    }
    if fixing.has("nginx-common") {
        nginx(fixing)?;
    }
    Ok(())
}

fn base_files(fixing: &mut Fixing<'_, '_>) -> Result<(), InstallError> {
    if !fixing.is_there(&constant("/etc/dpkg/origins/default"))?
        && fixing.is_there(&constant("/etc/dpkg/origins/debian"))?
    {
        fixing.link(&constant("/etc/dpkg/origins/default"), "debian")?;
    }
    for (from, to) in [
        ("dot.profile", "/root/.profile"),
        ("dot.bashrc", "/root/.bashrc"),
        ("profile", "/etc/profile"),
        ("motd", "/etc/motd"),
        ("info.dir", "/usr/share/info/dir"),
    ] {
        copy(fixing, &format!("/usr/share/base-files/{from}"), to)?;
    }
    for path in ["/mnt", "/srv", "/opt", "/etc/opt", "/var/opt", "/media"] {
        directory(fixing, path, 0o755, 0)?;
    }
    directory(fixing, "/var/mail", 0o2775, MAIL)?;
    directory(fixing, "/var/spool", 0o755, 0)?;
    if !fixing.is_there(&constant("/var/spool/mail"))? {
        fixing.link(&constant("/var/spool/mail"), "../mail")?;
    }
    directory(fixing, "/run/lock", 0o1777, 0)?;
    for (path, target) in [("/var/run", "/run"), ("/var/lock", "/run/lock")] {
        migrate(fixing, path, target)?;
    }
    for name in [
        "",
        "/share",
        "/share/man",
        "/bin",
        "/games",
        "/lib",
        "/include",
        "/sbin",
        "/src",
        "/etc",
    ] {
        directory(fixing, &format!("/usr/local{name}"), 0o755, 0)?;
    }
    fixing.link(&constant("/usr/local/man"), "share/man")?;
    for (path, mode) in [
        ("/var/log/wtmp", 0o664),
        ("/var/log/btmp", 0o660),
        ("/var/log/lastlog", 0o664),
    ] {
        empty_file(fixing, path, mode, (0, UTMP))?;
    }
    Ok(())
}

/// An empty directory becomes a link.
fn migrate(fixing: &mut Fixing<'_, '_>, path: &str, target: &str) -> Result<(), InstallError> {
    let place = fixing.root.place(&constant(path))?;
    match fixing.root.builder.kind(&place)? {
        Some(EntryKind::Directory) if fixing.root.builder.names(&place)?.is_empty() => {
            fixing.root.builder.remove(&place)?;
            fixing.link(&place, target)
        }
        None => fixing.link(&place, target),
        Some(_) => Ok(()),
    }
}

/// What `update-shells` writes (debianutils).
fn shells(fixing: &mut Fixing<'_, '_>) -> Result<(), InstallError> {
    let template = constant("/usr/share/debianutils/shells");
    let directory = constant("/usr/share/debianutils/shells.d");
    let mut files = vec![template.clone()];
    if let Some(found) = fixing.root.find(&directory)? {
        for name in fixing.root.builder.names(&found)? {
            files.push(found.join(&name).map_err(InstallError::Path)?);
        }
    }
    let mut known: Vec<String> = Vec::new();
    for file in files {
        let text = fixing.text(&file)?.unwrap_or_default();
        for line in text.lines() {
            let shell = line.split('#').next().unwrap_or_default();
            let Ok(path) = RelPath::from_absolute(shell.as_bytes()) else {
                continue;
            };
            let real = fixing.root.find(&path)?.unwrap_or(path).to_string();
            for shell in [shell.to_owned(), real] {
                if !known.contains(&shell) {
                    known.push(shell);
                }
            }
        }
    }
    let etc = constant("/etc/shells");
    let mut text = match fixing.text(&etc)? {
        Some(text) => text,
        None => fixing.text(&template)?.unwrap_or_default(),
    };
    for shell in &known {
        if !text.lines().any(|line| line == shell) {
            text.push_str(shell);
            text.push('\n');
        }
    }
    fixing.write(&etc, &text, Mode::FILE)?;
    let state = known.join("\n") + "\n";
    fixing.write(&constant("/var/lib/shells.state"), &state, Mode::FILE)
}

fn nginx(fixing: &mut Fixing<'_, '_>) -> Result<(), InstallError> {
    let logs = constant("/var/log/nginx");
    fixing
        .root
        .make_directory(&logs, Some(Mode::DIRECTORY), Some((0, ADM)))?;
    for path in ["/var/log/nginx/access.log", "/var/log/nginx/error.log"] {
        empty_file(fixing, path, 0o640, (WWW_DATA, ADM))?;
    }
    let enabled = constant("/etc/nginx/sites-enabled/default");
    if !fixing.is_there(&enabled)? && fixing.is_there(&constant("/etc/nginx/sites-available"))? {
        fixing.link(&enabled, "/etc/nginx/sites-available/default")?;
    }
    copy(
        fixing,
        "/usr/share/nginx/html/index.html",
        "/var/www/html/index.nginx-debian.html",
    )
}

/// A directory of root's, unless something is there.
fn directory(
    fixing: &mut Fixing<'_, '_>,
    path: &str,
    mode: u32,
    gid: u32,
) -> Result<(), InstallError> {
    let path = constant(path);
    if !fixing.is_there(&path)? {
        let mode = Mode::of_st_mode(mode);
        fixing
            .root
            .make_directory(&path, Some(mode), Some((0, gid)))?;
    }
    Ok(())
}

fn empty_file(
    fixing: &mut Fixing<'_, '_>,
    path: &str,
    mode: u32,
    (uid, gid): (u32, u32),
) -> Result<(), InstallError> {
    let path = constant(path);
    if fixing.is_there(&path)? {
        return Ok(());
    }
    let place = fixing.root.place(&path)?;
    let meta = Meta {
        uid,
        gid,
        ..Meta::root(Mode::of_st_mode(mode))
    };
    Ok(fixing.root.put_file(&place, b"", meta, fixing.store)?)
}

/// A copy with mode and owner, where the one is there and the other is not.
fn copy(fixing: &mut Fixing<'_, '_>, from: &str, to: &str) -> Result<(), InstallError> {
    let to: RelPath = constant(to);
    if fixing.is_there(&to)? {
        return Ok(());
    }
    let Some(found) = fixing.root.find(&constant(from))? else {
        return Ok(());
    };
    if let Some(entry @ Entry::File(_)) = fixing.root.builder.get(&found)? {
        let place = fixing.root.place(&to)?;
        fixing.root.put(&place, entry)?;
    }
    Ok(())
}
