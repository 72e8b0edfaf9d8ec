//! Opening and listing directories by handles. Must never follow a symbolic link below its root.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use immbuild_cas::path::Name;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, Stat, openat, statat};

/// Room for the names that one call brings.
const LISTING: usize = 64 * 1024;

/// What identifies a file and tells that it changed. Times are seconds and nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Device and inode.
    pub(super) file: (u64, u64),
    pub(super) size: u64,
    pub(super) mtime: (i64, u32),
    pub(super) ctime: (i64, u32),
    /// With the file type.
    pub(super) mode: u32,
}

impl Stamp {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::unnecessary_cast,
        reason = "the fields have other types on other machines, never other values"
    )]
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            file: (stat.st_dev as u64, stat.st_ino as u64),
            size: stat.st_size as u64,
            mtime: (stat.st_mtime as i64, stat.st_mtime_nsec as u32),
            ctime: (stat.st_ctime as i64, stat.st_ctime_nsec as u32),
            mode: stat.st_mode as u32,
        }
    }
}

/// Opens the directory a walk starts at. Links on the way to it and at its end are followed: the user named it.
pub(super) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}

/// Opens the directory `name` in `parent`.
pub(super) fn open_directory(parent: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(parent, name, flags, Mode::empty())?)
}

/// Opens the regular file `name` in `parent` for reading. A pipe that took its place does not block.
pub(super) fn open_file(parent: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(openat(parent, name, flags, Mode::empty())?)
}

/// The names in a directory with their types, in the order of the file system.
pub(super) fn list(directory: impl AsFd) -> io::Result<Vec<(Name, FileType)>> {
    let mut buffer = vec![MaybeUninit::uninit(); LISTING];
    let mut listing = RawDir::new(&directory, &mut buffer);
    let mut entries = Vec::new();
    while let Some(entry) = listing.next() {
        let entry = entry?;
        let name = CStr::to_bytes(entry.file_name());
        if matches!(name, b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => file_type(&statat(
                &directory,
                entry.file_name(),
                AtFlags::SYMLINK_NOFOLLOW,
            )?),
            kind => kind,
        };
        let name = Name::new(name).map_err(io::Error::other)?;
        entries.push((name, kind));
    }
    Ok(entries)
}

/// The type in a `st_mode`.
pub(super) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// How messages name what can be no part of a tree; nothing for what can.
pub(super) fn refused(kind: FileType) -> Option<&'static str> {
    match kind {
        FileType::RegularFile | FileType::Directory | FileType::Symlink => None,
        FileType::Fifo => Some("a named pipe"),
        FileType::Socket => Some("a socket"),
        FileType::CharacterDevice | FileType::BlockDevice => Some("a device"),
        FileType::Unknown => Some("of an unknown kind"),
    }
}
