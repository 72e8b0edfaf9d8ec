//! Other people's archives as trees: layers of images, and what a source unpacks.
//!
//! Every path is found inside the tree that is being built, never on the host, so nothing can escape: `..` is refused, and
//! a link on the way is followed as `chroot` would. Must never know where an archive comes from.

use std::collections::BTreeSet;
use std::io::Read;
use std::ops::Bound;

use immbuild_cas::path::{Name, PATH_MAX, PathError, RelPath};
use immbuild_cas::store::{Store, StoreError};
use immbuild_cas::tree::{
    Entry, EntryKind, File, Meta, Mode, Special, SpecialKind, Symlink, TreeBuilder, TreeError,
    XattrName, Xattrs, capability_v2,
};

use super::members::{Kind, Member, MemberError, Members, shown};
use super::plan::WHITEOUT;
use super::{Mtime, Mtimes};

/// The rest of a whiteout's name when it empties the directory it is in.
const OPAQUE: &[u8] = b".wh..opq";

/// Most links on the way to one entry (Linux follows as many).
const LINKS_MAX: u32 = 40;

/// How an archive is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a rule of its own")]
pub struct UntarOptions {
    /// Are names with `.wh.` deletions (OCI image-spec, layer, "Whiteouts"), or names?
    pub whiteouts: bool,
    /// Are devices taken?
    pub devices: bool,
    /// Keep modes, owners, attributes, hard links and pipes? Else files are 0644, or 0755 if anybody may execute them,
    /// directories 0755, owners 0:0, and each hard link is a file of its own.
    pub preserve: bool,
    /// Refuse absolute names, members behind a symbolic link, and a path twice? No package has them.
    pub strict: bool,
    /// How many leading names are taken off each path. What has no more names than that is left out.
    pub strip: usize,
    /// Most members.
    pub entries_max: u64,
    /// Most bytes of the uncompressed archive.
    pub bytes_max: u64,
}

impl UntarOptions {
    /// A layer of an image: at most 2^24 members and 1 TiB.
    pub const LAYER: Self = Self {
        whiteouts: true,
        devices: true,
        preserve: true,
        strict: false,
        strip: 0,
        entries_max: 1 << 24,
        bytes_max: 1 << 40,
    };

    /// One of the archives in a package: everything is kept, at most 2^20 members and 16 GiB.
    pub const PACKAGE: Self = Self {
        whiteouts: false,
        devices: false,
        preserve: true,
        strict: true,
        strip: 0,
        entries_max: 1 << 20,
        bytes_max: 16 << 30,
    };

    /// An archive from somewhere: no devices, at most 2^20 members and 32 GiB.
    pub const fn archive(strip: usize, preserve: bool) -> Self {
        Self {
            whiteouts: false,
            devices: false,
            preserve,
            strict: false,
            strip,
            entries_max: 1 << 20,
            bytes_max: 32 << 30,
        }
    }
}

/// Where an archive goes.
#[allow(missing_debug_implementations, reason = "holds a trait object")]
pub struct UntarTarget<'t, 'a> {
    /// Gets the entries, on top of what is there.
    pub tree: &'t mut TreeBuilder<'a>,
    /// Gets the contents.
    pub store: &'t dyn Store,
    /// Gets the times.
    pub mtimes: &'t mut Mtimes,
    /// Gets what is no part of an image and was left out.
    pub dropped: &'t mut Vec<Dropped>,
}

/// Something an archive says about an entry that no image keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The entry.
    pub path: RelPath,
    /// Name of the attribute or of the archive's record.
    pub what: String,
}

/// Why an archive does not become a tree.
#[derive(Debug, thiserror::Error)]
pub enum UntarError {
    /// It is no archive, or a harmful one.
    #[error(transparent)]
    Archive(#[from] MemberError),
    /// More members than allowed.
    #[error("the archive has more than {0} members")]
    Entries(u64),
    /// One member cannot be an entry of a tree.
    #[error("`{path}` at byte {offset} of the archive {reason}")]
    Member {
        /// The path as it stands in the archive, escaped.
        path: String,
        /// Where its header starts in the tar.
        offset: u64,
        /// Why not.
        reason: Refusal,
    },
    /// The tree refused.
    #[error("cannot put `{path}` into the tree")]
    Tree {
        /// The entry.
        path: RelPath,
        /// Why.
        source: TreeError,
    },
    /// The store refused.
    #[error("cannot keep the content of `{path}`")]
    Store {
        /// The entry.
        path: RelPath,
        /// Why.
        source: StoreError,
    },
}

/// What is wrong with a member.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A way out.
    #[error("has `..` in its path")]
    Escape,
    /// A name from the root of the machine.
    #[error("has an absolute path")]
    Absolute,
    /// A way through a link.
    #[error("is behind a symbolic link, at `{0}`")]
    BehindLink(RelPath),
    /// There was one.
    #[error("is there twice")]
    Twice,
    /// The path is none.
    #[error("is no path of a tree: {0}")]
    Path(#[from] PathError),
    /// The root is a directory.
    #[error("is the root and no directory")]
    Root,
    /// Something on the way is there and no directory.
    #[error("is below `{0}`, which is no directory")]
    Parent(RelPath),
    /// Links on the way lead in a circle.
    #[error("is behind more than {LINKS_MAX} symbolic links")]
    Links,
    /// The target of a hard link is missing or of the wrong kind.
    #[error("is a hard link to `{0}`, which is no file there")]
    Target(String),
    /// A symbolic link says nothing, too much, or a NUL.
    #[error("is a symbolic link whose text is empty or too long")]
    Text,
    /// Devices are not taken.
    #[error("is a device")]
    Device,
    /// Pipes are not taken.
    #[error("is a named pipe")]
    Fifo,
    /// A 0:0 character device, a deletion in overlayfs.
    #[error("is a 0:0 character device, which overlayfs reads as a deletion")]
    OverlayDevice,
    /// An attribute that speaks to overlayfs.
    #[error("has the attribute `{0}`, which speaks to overlayfs")]
    OverlayXattr(String),
    /// File capabilities in an unknown form.
    #[error("has file capabilities in an unknown form")]
    Capability,
    /// A whiteout of nothing.
    #[error("is a whiteout without a name")]
    Whiteout,
    /// Something in a whiteout.
    #[error("is in `{0}`, and in a layer that name means a deletion")]
    BelowWhiteout(RelPath),
}

/// Applies a layer of an image to the tree of the layers below it: [`untar`] with [`UntarOptions::LAYER`].
///
/// # Errors
/// As [`untar`].
pub fn read_layer(reader: &mut dyn Read, target: UntarTarget<'_, '_>) -> Result<(), UntarError> {
    untar(reader, &UntarOptions::LAYER, target)
}

/// Applies an archive to a tree, as `options` say.
///
/// A later member replaces an earlier one of the same path, except that a directory keeps what is in it. Missing parents
/// are made 0755 0:0. Whiteouts only hide what was in the tree before this archive, wherever they stand in it. The
/// reader is read to its end.
///
/// # Errors
/// [`UntarError`]; the tree is then in an unknown state and MUST be given up.
pub fn untar(
    reader: &mut dyn Read,
    options: &UntarOptions,
    target: UntarTarget<'_, '_>,
) -> Result<(), UntarError> {
    untar_listed(reader, options, target).map(drop)
}

/// The same, and says the paths that the archive names, in its order.
///
/// # Errors
/// As [`untar`].
pub fn untar_listed(
    reader: &mut dyn Read,
    options: &UntarOptions,
    target: UntarTarget<'_, '_>,
) -> Result<Vec<RelPath>, UntarError> {
    let mut members = Members::new(reader, options.bytes_max);
    let mut untar = Untar {
        options,
        target,
        fresh: BTreeSet::new(),
    };
    let mut named = Vec::new();
    let mut count = 0;
    while let Some(member) = members.next()? {
        count += 1;
        if count > options.entries_max {
            return Err(UntarError::Entries(options.entries_max));
        }
        let path = untar
            .member(&member, &mut members)
            .map_err(|failure| failure.of(&member))?;
        named.extend(path);
    }
    Ok(named)
}

/// Why one member failed, still without its name.
enum Failure {
    Refused(Refusal),
    Whole(UntarError),
}

impl Failure {
    fn of(self, member: &Member) -> UntarError {
        match self {
            Self::Refused(reason) => UntarError::Member {
                path: shown(&member.path),
                offset: member.offset,
                reason,
            },
            Self::Whole(error) => error,
        }
    }
}

impl<T: Into<Refusal>> From<T> for Failure {
    fn from(refusal: T) -> Self {
        Self::Refused(refusal.into())
    }
}

/// Names that begin with `.wh..wh.` are marks of aufs, which mean nothing to anybody else: old layers have directories of
/// them.
fn is_aufs_mark(name: &[u8]) -> bool {
    name.strip_prefix(WHITEOUT)
        .is_some_and(|rest| rest.starts_with(WHITEOUT))
}

struct Untar<'o, 't, 'a> {
    options: &'o UntarOptions,
    target: UntarTarget<'t, 'a>,
    /// What this archive has brought so far, which its own whiteouts do not hide.
    fresh: BTreeSet<RelPath>,
}

impl Untar<'_, '_, '_> {
    /// The path it names, if it names one.
    fn member(
        &mut self,
        member: &Member,
        members: &mut Members<'_>,
    ) -> Result<Option<RelPath>, Failure> {
        if self.options.strict && member.path.starts_with(b"/") {
            return Err(Refusal::Absolute.into());
        }
        let Some(written) = self.path(&member.path)? else {
            return Ok(None);
        };
        if self.options.strict && self.fresh.contains(&written) {
            return Err(Refusal::Twice.into());
        }
        self.named(member, members, &written)?;
        Ok(Some(written))
    }

    fn named(
        &mut self,
        member: &Member,
        members: &mut Members<'_>,
        written: &RelPath,
    ) -> Result<(), Failure> {
        let Some((parent, name)) = written.split_last() else {
            return self.root(member);
        };
        if self.options.whiteouts
            && let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT)
        {
            return self.whiteout(&parent, hidden);
        }
        if self.options.whiteouts && parent.names().any(is_aufs_mark) {
            return Ok(());
        }
        let directory = self.resolve(&parent, true)?;
        if self.options.strict && directory != parent {
            return Err(Refusal::BehindLink(parent).into());
        }
        let path = directory.join(&name)?;
        match member.kind {
            Kind::Directory => self.directory(member, &path)?,
            Kind::HardLink => return self.hard_link(member, &path),
            Kind::File => {
                let meta = self.meta(member, &path)?;
                let (blob, size) = self.target.store.put(&mut members.content()).map_err(
                    |source| match members.failure() {
                        Some(error) => Failure::Whole(error.into()),
                        None => Failure::Whole(UntarError::Store {
                            path: path.clone(),
                            source,
                        }),
                    },
                )?;
                self.insert(&path, Entry::File(File { blob, size, meta }))?;
            }
            Kind::Symlink => {
                let symlink = self.symlink(member)?;
                self.insert(&path, Entry::Symlink(symlink))?;
            }
            Kind::Char | Kind::Block | Kind::Fifo => {
                let special = self.special(member, &path)?;
                self.insert(&path, Entry::Special(special))?;
            }
        }
        self.brought(path, member.mtime);
        Ok(())
    }

    /// The path in the tree that the archive's path says; nothing if all of it is stripped.
    fn path(&self, written: &[u8]) -> Result<Option<RelPath>, Refusal> {
        let names = names(written)?;
        let strip = self.options.strip;
        if strip > 0 && names.len() <= strip {
            return Ok(None);
        }
        Ok(Some(RelPath::new(names[strip..].join(&b'/'))?))
    }

    /// The directory of this path, with links on the way followed inside the root. What is missing is made, if `make`.
    fn resolve(&mut self, path: &RelPath, make: bool) -> Result<RelPath, Failure> {
        let mut links = 0;
        let mut at = RelPath::root();
        // Names still to go, the next one last.
        let mut ahead: Vec<Box<[u8]>> = path.names().rev().map(Into::into).collect();
        while let Some(name) = ahead.pop() {
            match &*name {
                b"" | b"." => continue,
                b".." => {
                    at = at.parent().unwrap_or_default();
                    continue;
                }
                _ => {}
            }
            let is_whiteout = name.starts_with(WHITEOUT);
            let next = at.join(&Name::new(name)?)?;
            match self.kind(&next)? {
                Some(EntryKind::Directory) => at = next,
                Some(EntryKind::Symlink) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Refusal::Links.into());
                    }
                    let text = self.link_text(&next)?;
                    if text.starts_with(b"/") {
                        at = RelPath::root();
                    }
                    ahead.extend(text.split(|byte| *byte == b'/').rev().map(Into::into));
                }
                None if make && self.options.whiteouts && is_whiteout => {
                    return Err(Refusal::BelowWhiteout(next).into());
                }
                None if make => {
                    self.in_tree(&next, |tree| {
                        tree.make_directory(&next, Meta::root(Mode::DIRECTORY))
                    })?;
                    at = next;
                }
                None | Some(EntryKind::File | EntryKind::Special) => {
                    return Err(Refusal::Parent(next).into());
                }
            }
        }
        Ok(at)
    }

    fn root(&mut self, member: &Member) -> Result<(), Failure> {
        if member.kind != Kind::Directory {
            return Err(Refusal::Root.into());
        }
        self.directory(member, &RelPath::root())?;
        self.brought(RelPath::root(), member.mtime);
        Ok(())
    }

    fn directory(&mut self, member: &Member, path: &RelPath) -> Result<(), Failure> {
        let meta = self.meta(member, path)?;
        if self
            .kind(path)?
            .is_some_and(|kind| kind != EntryKind::Directory)
        {
            self.forget(path);
        }
        self.in_tree(path, |tree| tree.make_directory(path, meta))
    }

    fn hard_link(&mut self, member: &Member, path: &RelPath) -> Result<(), Failure> {
        let no_target = || Refusal::Target(shown(&member.link));
        let written = self.path(&member.link)?.ok_or_else(no_target)?;
        let (parent, name) = written.split_last().ok_or_else(no_target)?;
        let directory = self.resolve(&parent, false)?;
        if self.options.strict && directory != parent {
            return Err(Refusal::BehindLink(parent).into());
        }
        let existing = directory.join(&name)?;
        let is_there = self
            .kind(&existing)?
            .is_some_and(|kind| kind != EntryKind::Directory);
        // A link that replaces its own target, or a directory above it, would be left with nothing.
        if !is_there || existing.starts_with(path) {
            return Err(no_target().into());
        }
        self.forget(path);
        if self.options.preserve {
            self.in_tree(path, |tree| tree.link(&existing, path))?;
        } else {
            let entry = self
                .in_tree(&existing, |tree| tree.get(&existing))?
                .ok_or_else(no_target)?;
            self.in_tree(path, |tree| tree.insert(path, entry))?;
        }
        if let Some(mtime) = self.target.mtimes.get(&existing) {
            self.target.mtimes.insert(path.clone(), mtime);
        }
        self.fresh.insert(path.clone());
        Ok(())
    }

    fn symlink(&self, member: &Member) -> Result<Symlink, Refusal> {
        let text = &member.link;
        if text.is_empty() || text.len() > PATH_MAX || text.contains(&0) {
            return Err(Refusal::Text);
        }
        let (uid, gid) = self.owner(member);
        Ok(Symlink {
            target: text.as_slice().into(),
            uid,
            gid,
        })
    }

    fn special(&mut self, member: &Member, path: &RelPath) -> Result<Special, Refusal> {
        let (major, minor) = member.device;
        let kind = match member.kind {
            Kind::Char => SpecialKind::Char { major, minor },
            Kind::Block => SpecialKind::Block { major, minor },
            _ => SpecialKind::Fifo,
        };
        match kind {
            SpecialKind::Fifo if !self.options.preserve => return Err(Refusal::Fifo),
            SpecialKind::Char { major: 0, minor: 0 } => return Err(Refusal::OverlayDevice),
            SpecialKind::Char { .. } | SpecialKind::Block { .. } if !self.options.devices => {
                return Err(Refusal::Device);
            }
            _ => {}
        }
        let meta = self.meta(member, path)?;
        Ok(Special { kind, meta })
    }

    fn owner(&self, member: &Member) -> (u32, u32) {
        if self.options.preserve {
            (member.uid, member.gid)
        } else {
            (0, 0)
        }
    }

    fn meta(&mut self, member: &Member, path: &RelPath) -> Result<Meta, Refusal> {
        let mode = Mode::of_st_mode(member.mode);
        let (uid, gid) = self.owner(member);
        let mut xattrs = Xattrs::new();
        for (name, value) in &member.xattrs {
            if name.starts_with(b"user.overlay.") || name.starts_with(b"trusted.overlay.") {
                return Err(Refusal::OverlayXattr(shown(name)));
            }
            match XattrName::new(name) {
                Some(name) if name.as_bytes() == XattrName::CAPABILITY => {
                    xattrs.insert(name, capability_v2(value).ok_or(Refusal::Capability)?);
                }
                Some(name) => {
                    xattrs.insert(name, value.as_slice().into());
                }
                None => self.drop(path, name),
            }
        }
        for key in &member.dropped {
            self.drop(path, key);
        }
        if self.options.preserve {
            return Ok(Meta {
                mode,
                uid,
                gid,
                xattrs,
            });
        }
        let executable = member.kind == Kind::Directory || mode.is_executable();
        Ok(Meta::root(if executable {
            Mode::DIRECTORY
        } else {
            Mode::FILE
        }))
    }

    fn drop(&mut self, path: &RelPath, what: &[u8]) {
        // Who does not keep any attribute does not ask which.
        if self.options.preserve {
            self.target.dropped.push(Dropped {
                path: path.clone(),
                what: shown(what),
            });
        }
    }

    /// Puts an entry there, in place of whatever was there.
    fn insert(&mut self, path: &RelPath, entry: Entry) -> Result<(), Failure> {
        self.forget(path);
        self.in_tree(path, |tree| tree.insert(path, entry))
    }

    /// What was at this path, and below it, is no more.
    fn forget(&mut self, path: &RelPath) {
        self.target.mtimes.remove(path);
        for path in self.fresh_at(path) {
            self.fresh.remove(&path);
        }
    }

    fn brought(&mut self, path: RelPath, (seconds, nanoseconds): (i64, u32)) {
        if let Some(mtime) = Mtime::new(seconds, nanoseconds) {
            self.target.mtimes.insert(path.clone(), mtime);
        }
        if self.options.whiteouts || self.options.strict {
            self.fresh.insert(path);
        }
    }

    fn whiteout(&mut self, parent: &RelPath, hidden: &[u8]) -> Result<(), Failure> {
        let directory = match self.resolve(parent, false) {
            Ok(directory) => directory,
            // A whiteout of what is not there, as some builders write it.
            Err(Failure::Refused(Refusal::Parent(_))) => return Ok(()),
            Err(other) => return Err(other),
        };
        if hidden == OPAQUE {
            return self.hide_below(&directory);
        }
        if hidden.starts_with(WHITEOUT) {
            // See `is_aufs_mark`.
            return Ok(());
        }
        if hidden.is_empty() {
            return Err(Refusal::Whiteout.into());
        }
        let path = directory.join(&Name::new(hidden)?)?;
        self.hide(&path)
    }

    /// Removes what was in the tree at this path before this archive.
    fn hide(&mut self, path: &RelPath) -> Result<(), Failure> {
        let Some(kind) = self.kind(path)? else {
            return Ok(());
        };
        if self.fresh_at(path).is_empty() {
            self.target.mtimes.remove(path);
            return self.in_tree(path, |tree| tree.remove(path));
        }
        if kind == EntryKind::Directory {
            self.hide_below(path)?;
        }
        Ok(())
    }

    fn hide_below(&mut self, directory: &RelPath) -> Result<(), Failure> {
        for name in self.in_tree(directory, |tree| tree.names(directory))? {
            self.hide(&directory.join(&name)?)?;
        }
        Ok(())
    }

    /// What this archive has brought at this path and below.
    fn fresh_at(&self, path: &RelPath) -> Vec<RelPath> {
        self.fresh
            .range::<RelPath, _>((Bound::Included(path), Bound::Unbounded))
            .take_while(|other| other.as_bytes().starts_with(path.as_bytes()))
            .filter(|other| other.starts_with(path))
            .cloned()
            .collect()
    }

    fn kind(&mut self, path: &RelPath) -> Result<Option<EntryKind>, Failure> {
        self.in_tree(path, |tree| tree.kind(path))
    }

    fn link_text(&mut self, path: &RelPath) -> Result<Box<[u8]>, Failure> {
        match self.in_tree(path, |tree| tree.get(path))? {
            Some(Entry::Symlink(symlink)) => Ok(symlink.target),
            _ => Err(Refusal::Parent(path.clone()).into()),
        }
    }

    fn in_tree<T>(
        &mut self,
        path: &RelPath,
        act: impl FnOnce(&mut TreeBuilder<'_>) -> Result<T, TreeError>,
    ) -> Result<T, Failure> {
        act(self.target.tree).map_err(|source| {
            Failure::Whole(UntarError::Tree {
                path: path.clone(),
                source,
            })
        })
    }
}

/// The names of a path as archives write it: slashes and `.` mean nothing, `..` is refused.
fn names(written: &[u8]) -> Result<Vec<&[u8]>, Refusal> {
    if written.is_empty() {
        return Err(PathError::Empty.into());
    }
    let names: Vec<&[u8]> = written
        .split(|byte| *byte == b'/')
        .filter(|name| !matches!(*name, b"" | b"."))
        .collect();
    if names.contains(&&b".."[..]) {
        return Err(Refusal::Escape);
    }
    Ok(names)
}
