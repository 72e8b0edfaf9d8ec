//! The verbs that edit a tree and execute nothing, as data with one encoding.
//!
//! A source that *is* one file is a tree as well: its root, 0755 0:0, has one entry, a regular file named [`ONE_FILE`].
//! That the name means nothing is said beside the tree.
//!
//! Must never know how an edit is done: [`apply`](super::apply) does it.

use immbuild_cas::canonical::{Canonical, Encoder};
use immbuild_cas::digest::BlobId;
use immbuild_cas::path::RelPath;
use immbuild_cas::store::{DirectorySink, StoreError};
use immbuild_cas::tree::{Directory, Entry, File, Meta, Mode, Tree};

/// The name of the file in the tree of a source that is one file. Part of format 1: changing it changes tree ids.
pub const ONE_FILE: &str = "file";

/// Where the file is in the tree of a source that is one file.
pub fn one_file_path() -> RelPath {
    RelPath::new(ONE_FILE.as_bytes()).expect("it is a name")
}

/// The tree of a source that is one file, 0644 0:0.
pub fn one_file_tree(
    blob: BlobId,
    size: u64,
    sink: &dyn DirectorySink,
) -> Result<Tree, StoreError> {
    let meta = Meta::root(Mode::FILE);
    let (_, name) = one_file_path().split_last().expect("it is a name");
    let mut root = Directory::new(Meta::root(Mode::DIRECTORY));
    root.insert(name, Entry::File(File { blob, size, meta }))
        .expect("any directory can hold a file");
    Ok(Tree::new(sink.put_directory(&root)?))
}

/// One edit of a root. Paths are absolute in the spec and relative to the root here; defaults are filled in, except where
/// "not given" means something else than any value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileOp {
    /// What stands at `from` in the source becomes `to`.
    Copy {
        /// The path in the source; the root is all of it, and the only path of a source that is one file.
        from: RelPath,
        /// The full name it gets.
        to: RelPath,
        /// Patterns that pick below `from`; none pick everything.
        include: Vec<String>,
        /// Patterns that remove below `from`.
        exclude: Vec<String>,
        /// Mode of copied regular files; else they keep theirs.
        mode: Option<Mode>,
        /// Mode of copied directories; else they keep theirs.
        dir_mode: Option<Mode>,
        /// Owner of all that is copied; else it keeps its own.
        owner: Option<Owner>,
    },
    /// A file with this text, in the place of a file or link.
    Write {
        /// The file.
        path: RelPath,
        /// What is in it.
        text: Vec<u8>,
        /// Its mode.
        mode: Mode,
        /// Its owner.
        owner: Owner,
    },
    /// A directory with its parents.
    Mkdir {
        /// The directory.
        path: RelPath,
        /// Its mode; else a new one gets 0755 and one that is there keeps its own.
        mode: Option<Mode>,
        /// Its owner; else a new one gets 0:0 and one that is there keeps its own.
        owner: Option<Owner>,
    },
    /// A symbolic link, owned by 0:0, in the place of a file or link.
    Link {
        /// The link.
        path: RelPath,
        /// Its text.
        target: Vec<u8>,
    },
    /// A file, link or whole directory goes.
    Remove {
        /// What goes.
        path: RelPath,
    },
    /// Account lines in `/etc/passwd` and `/etc/group`.
    User {
        /// Name of the user, and of its own group.
        name: String,
        /// Number of the user.
        uid: u32,
        /// Number of its own group.
        gid: u32,
        /// Its home directory, which is made; else the line says `/nonexistent`.
        home: Option<RelPath>,
        /// Its login program.
        login: String,
        /// Names of further groups, which have to be there.
        groups: Vec<String>,
    },
}

/// An owner as a spec says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// `"uid:gid"`, or `"n"` for both.
    Ids {
        /// Number of the user.
        uid: u32,
        /// Number of the group.
        gid: u32,
    },
    /// `"name"` or `"name:group"`, looked up in the root as it is before the edit.
    Names {
        /// Name of the user.
        user: String,
        /// Name of the group; else the one that the user's line in `/etc/passwd` says.
        group: Option<String>,
    },
}

impl Owner {
    /// 0:0.
    pub const ROOT: Self = Self::Ids { uid: 0, gid: 0 };
}

impl Canonical for Owner {
    const TAG: &'static str = "owner";
    const VERSION: u32 = 1;

    fn encode_fields(&self, out: &mut Encoder) {
        match self {
            Self::Ids { uid, gid } => {
                out.u8(0);
                out.u32(*uid);
                out.u32(*gid);
            }
            Self::Names { user, group } => {
                out.u8(1);
                out.str(user);
                out.option(group.as_ref(), |out, group| out.str(group));
            }
        }
    }
}

impl FileOp {
    /// The verb as a spec writes it.
    pub const fn verb(&self) -> &'static str {
        match self {
            Self::Copy { .. } => "copy",
            Self::Write { .. } => "write",
            Self::Mkdir { .. } => "mkdir",
            Self::Link { .. } => "link",
            Self::Remove { .. } => "remove",
            Self::User { .. } => "user",
        }
    }
}

impl Canonical for FileOp {
    const TAG: &'static str = "file-op";
    const VERSION: u32 = 1;

    fn encode_fields(&self, out: &mut Encoder) {
        let path = |out: &mut Encoder, path: &RelPath| out.bytes(path.as_bytes());
        let mode = |out: &mut Encoder, mode: Mode| out.u32(mode.bits());
        let texts = |out: &mut Encoder, texts: &[String]| {
            out.sequence(texts.iter(), |out, text| out.str(text));
        };
        let owner = |out: &mut Encoder, owner: &Owner| owner.encode_fields(out);
        match self {
            Self::Copy {
                from,
                to,
                include,
                exclude,
                mode: file_mode,
                dir_mode,
                owner: new_owner,
            } => {
                out.u8(0);
                path(out, from);
                path(out, to);
                texts(out, include);
                texts(out, exclude);
                out.option(*file_mode, mode);
                out.option(*dir_mode, mode);
                out.option(new_owner.as_ref(), owner);
            }
            Self::Write {
                path: file,
                text,
                mode: file_mode,
                owner: file_owner,
            } => {
                out.u8(1);
                path(out, file);
                out.bytes(text);
                mode(out, *file_mode);
                owner(out, file_owner);
            }
            Self::Mkdir {
                path: directory,
                mode: new_mode,
                owner: new_owner,
            } => {
                out.u8(2);
                path(out, directory);
                out.option(*new_mode, mode);
                out.option(new_owner.as_ref(), owner);
            }
            Self::Link { path: link, target } => {
                out.u8(3);
                path(out, link);
                out.bytes(target);
            }
            Self::Remove { path: removed } => {
                out.u8(4);
                path(out, removed);
            }
            Self::User {
                name,
                uid,
                gid,
                home,
                login,
                groups,
            } => {
                out.u8(5);
                out.str(name);
                out.u32(*uid);
                out.u32(*gid);
                out.option(home.as_ref(), path);
                out.str(login);
                texts(out, groups);
            }
        }
    }
}
