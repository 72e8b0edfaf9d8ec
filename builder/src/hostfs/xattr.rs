//! Extended attributes: which are part of an image, and in which form.
//!
//! Must never know where the attributes of a file come from besides the file itself.

use std::io;
use std::os::fd::AsFd;

use immbuild_cas::tree::{XattrName, Xattrs, capability_v2};
use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr};
use rustix::io::Errno;

use super::owner::{NOTE, Owner, ROOT, of_note, to_note};

/// Attributes of overlayfs, by which it would take orders from an image.
const OVERLAY: [&[u8]; 2] = [b"user.overlay.", b"trusted.overlay."];
/// What the host's security module puts on every file: its policy, not the file's content.
const LABEL: &[u8] = b"security.selinux";

/// The extended attributes of an open file or directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Those that are part of an image, in their canonical form.
    pub kept: Xattrs,
    /// Names of those that are not.
    pub dropped: Vec<Box<[u8]>>,
    /// Those of overlayfs.
    pub overlay: Vec<Attribute>,
    /// What a note says of the owner. The note's name is in `dropped`, too.
    pub owner: Option<Owner>,
}

/// Name and value.
pub type Attribute = (Box<[u8]>, Box<[u8]>);

/// Reads all extended attributes of an open file or directory. A file system without any has none.
pub fn read(file: impl AsFd) -> io::Result<Found> {
    let mut found = Found::default();
    for name in names(&file)? {
        if name == LABEL {
            continue;
        }
        if OVERLAY.iter().any(|prefix| name.starts_with(prefix)) {
            let value = value(&file, &name)?;
            found.overlay.push((name.into(), value.into()));
            continue;
        }
        if name == NOTE.as_bytes() {
            found.owner = of_note(&value(&file, &name)?);
        }
        let kept = match XattrName::new(&name) {
            Some(_) if name == NOTE.as_bytes() => None,
            None => None,
            Some(kept) if name == XattrName::CAPABILITY => {
                capability_v2(&value(&file, &name)?).map(|value| (kept, value))
            }
            Some(kept) => Some((kept, value(&file, &name)?.into())),
        };
        match kept {
            Some((name, value)) => drop(found.kept.insert(name, value)),
            None => found.dropped.push(name.into()),
        }
    }
    found.dropped.sort();
    Ok(found)
}

/// Gives an open file or directory these attributes.
pub fn write(file: impl AsFd, xattrs: &Xattrs) -> io::Result<()> {
    for (name, value) in xattrs {
        fsetxattr(&file, name.as_bytes(), value, XattrFlags::empty())?;
    }
    Ok(())
}

/// Takes away every attribute that is not part of an image. A note of the owner stays if that is asked for.
pub fn clean(file: impl AsFd, keeps_note: bool) -> io::Result<()> {
    let found = read(&file)?;
    let overlay = found.overlay.into_iter().map(|(name, _)| name);
    let is_kept = |name: &[u8]| keeps_note && found.owner.is_some() && name == NOTE.as_bytes();
    let dropped = found.dropped.into_iter().filter(|name| !is_kept(name));
    for name in overlay.chain(dropped) {
        fremovexattr(&file, &*name)?;
    }
    Ok(())
}

/// Notes on an open file or directory whose it is.
pub fn note(file: impl AsFd, owner: Owner) -> io::Result<()> {
    if owner == ROOT {
        return Ok(());
    }
    Ok(fsetxattr(
        &file,
        NOTE,
        &to_note(owner),
        XattrFlags::empty(),
    )?)
}

fn names(file: impl AsFd) -> io::Result<Vec<Vec<u8>>> {
    // Nearly every file has none or little; the length is asked only when the first room is too small.
    let mut room = [0; 256];
    let length = match flistxattr(&file, &mut room) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => 0,
        Err(Errno::RANGE) => {
            let list = grow(|buffer| flistxattr(&file, buffer))?;
            return Ok(split(&list));
        }
        Err(error) => return Err(error.into()),
    };
    Ok(split(&room[..length]))
}

fn split(list: &[u8]) -> Vec<Vec<u8>> {
    list.split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(<[u8]>::to_vec)
        .collect()
}

fn value(file: impl AsFd, name: &[u8]) -> io::Result<Vec<u8>> {
    grow(|buffer| fgetxattr(&file, name, buffer))
}

/// Calls with more room until the answer fits.
fn grow(call: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 1024];
    loop {
        match call(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) => buffer.resize(buffer.len() * 4, 0),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn attributes_are_kept_dropped_or_of_overlayfs() {
        let directory = tempfile::tempdir().unwrap();
        let file = File::create(directory.path().join("f")).unwrap();
        let long = vec![b'x'; 3000];
        for (name, value) in [
            ("user.one", &b"1"[..]),
            ("user.long", &long),
            ("user.overlay.opaque", b"y"),
            ("user.a=b", b"t"),
            (NOTE, b"5:6"),
        ] {
            fsetxattr(&file, name, value, XattrFlags::CREATE).unwrap();
        }
        let found = read(&file).unwrap();
        let kept: Vec<_> = found.kept.keys().map(XattrName::as_bytes).collect();
        assert_eq!(kept, [&b"user.long"[..], b"user.one"]);
        assert_eq!(
            found.dropped,
            [b"user.a=b"[..].into(), NOTE.as_bytes().into()]
        );
        assert_eq!(found.owner, Some((5, 6)));
        assert_eq!(
            found.overlay,
            [(b"user.overlay.opaque"[..].into(), b"y"[..].into())]
        );
        clean(&file, true).unwrap();
        assert_eq!(read(&file).unwrap().owner, Some((5, 6)));
        clean(&file, false).unwrap();
        let cleaned = read(&file).unwrap();
        assert_eq!(cleaned.kept, found.kept);
        assert!(cleaned.dropped.is_empty() && cleaned.overlay.is_empty());
    }
}
