//! A `.deb` as a tree: what is in it, in the form that an install wants (deb(5)).
//!
//! A package is hostile until it is proven harmless. The archive holds `debian-binary`, `control.tar` and `data.tar`,
//! each once and in this order; both tars are read as strictly as [`UntarOptions::PACKAGE`] says. Nothing is written
//! outside the store.
//!
//! Must never know which packages there are, or where one came from.
//!
//! [`UntarOptions::PACKAGE`]: crate::layer::UntarOptions::PACKAGE

use std::io::{self, Read};

use immbuild_cas::canonical::Encoder;
use immbuild_cas::digest::{BlobId, Digest};
use immbuild_cas::path::RelPath;
use immbuild_cas::store::{Record, Store, StoreError};
use immbuild_cas::tree::{Entry, File, Meta, Mode, Tree, TreeBuilder, TreeError};

use crate::layer::Dropped;
use crate::resolve::unpack::{Limits, PackageArchive, UnpackError, unpack_package};

/// Where the control files of a decoded package are.
pub const CONTROL: &str = "control";
/// Where the files of a decoded package are.
pub const DATA: &str = "data";
/// The paths of its files in the order of the archive, as dpkg lists them.
pub const LIST: &str = "list";

/// Version of the decoded form. Another form is another memo.
const FORM: u32 = 1;
/// Name of the memo from a package to its decoded form.
const KIND: &str = "deb";

/// First bytes of the archive (ar(5)).
const MAGIC: &[u8; 8] = b"!<arch>\n";
/// Length of the header of a member.
const HEADER: usize = 60;

/// How much may come out of the control files: scripts, checksums, translations of questions.
const CONTROL_LIMITS: Limits = Limits {
    bytes: 64 << 20,
    entries: 1 << 12,
    ratio: 1000,
    free: 16 << 20,
};

/// How much may come out of the files: the largest packages of Debian have 3 GiB.
const DATA_LIMITS: Limits = Limits {
    bytes: 16 << 30,
    entries: 1 << 20,
    ratio: 1000,
    free: 64 << 20,
};

/// A package that was decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deb {
    /// Directories [`CONTROL`] and [`DATA`], and the file [`LIST`].
    pub tree: Tree,
    /// What its archives say that no image keeps; nothing when the package was decoded before.
    pub dropped: Vec<Dropped>,
}

/// Why a package is refused.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// It is something else.
    #[error("it is no Debian package: {0}")]
    NotADeb(&'static str),
    /// The archive breaks its format.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// One of its two tars is no tar, or a hostile one.
    #[error("its `{member}` cannot be unpacked")]
    Member {
        /// Which.
        member: String,
        /// Why.
        source: UnpackError,
    },
    /// No name of a file list can be this.
    #[error("`{0}` holds a line feed, and lists of files are made of lines")]
    Name(RelPath),
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tree refused.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// The decoded form of a package that is in the store. What was decoded once is found by the package's digest.
///
/// # Errors
/// It is not in the store, or is refused.
pub fn decode(package: &BlobId, store: &dyn Store) -> Result<Deb, DebError> {
    let key = memo(package);
    if let Some(record) = store.record(KIND, &key)?
        && let Some(tree) = record.trees.first()
        && let Ok(tree) = store.tree(tree)
    {
        let dropped = Vec::new();
        return Ok(Deb { tree, dropped });
    }
    let deb = {
        let mut reader = store.open(package)?;
        read(&mut *reader, store)?
    };
    let record = Record {
        value: Vec::new(),
        blobs: Vec::new(),
        trees: vec![store.put_tree(&deb.tree)?],
    };
    store.put_record(KIND, &key, &record)?;
    Ok(deb)
}

/// Is the decoded form of this package at hand?
///
/// # Errors
/// The store failed.
pub fn is_decoded(package: &BlobId, store: &dyn Store) -> Result<bool, StoreError> {
    let record = store.record(KIND, &memo(package))?;
    let tree = record.and_then(|record| record.trees.first().copied());
    Ok(tree.is_some_and(|tree| store.tree(&tree).is_ok()))
}

fn memo(package: &BlobId) -> Digest {
    let mut out = Encoder::default();
    out.str(KIND);
    out.u32(FORM);
    out.digest(package.digest());
    Digest::of(&out.into_bytes())
}

/// Decodes a package, which is read to its end.
///
/// # Errors
/// It is refused.
pub fn read(source: &mut (dyn Read + Send), store: &dyn Store) -> Result<Deb, DebError> {
    let mut archive = Archive::open(source)?;
    archive.version()?;
    let control = archive.tar("control.tar", &CONTROL_LIMITS, store)?;
    let data = archive.tar("data.tar", &DATA_LIMITS, store)?;
    archive.end()?;
    if let Some(path) = control
        .named
        .iter()
        .find(|path| path.parent().is_some_and(|parent| !parent.is_root()))
    {
        return Err(DebError::Damaged(format!(
            "`{path}` of its control files is in a directory"
        )));
    }
    let list = listed(&data.named)?;
    let mut tree = TreeBuilder::new(store, Meta::root(Mode::DIRECTORY));
    for (name, part) in [(CONTROL, &control), (DATA, &data)] {
        tree.graft(&path(name), part.tree.root, &part.tree.links)?;
    }
    let list = Entry::File(File {
        blob: store.put_bytes(&list)?,
        size: list.len() as u64,
        meta: Meta::root(Mode::FILE),
    });
    tree.insert(&path(LIST), list)?;
    Ok(Deb {
        tree: tree.seal(store)?,
        dropped: data.dropped,
    })
}

/// The paths as `/var/lib/dpkg/info/NAME.list` has them.
fn listed(named: &[RelPath]) -> Result<Vec<u8>, DebError> {
    let mut list = Vec::new();
    for path in named {
        if path.as_bytes().contains(&b'\n') {
            return Err(DebError::Name(path.clone()));
        }
        list.push(b'/');
        list.extend_from_slice(if path.is_root() {
            b"."
        } else {
            path.as_bytes()
        });
        list.push(b'\n');
    }
    Ok(list)
}

fn path(name: &str) -> RelPath {
    RelPath::new(name.as_bytes()).expect("a constant is a path")
}

/// A package while it is read.
struct Archive<'r> {
    reader: &'r mut (dyn Read + Send),
    offset: u64,
}

/// What a header says.
struct Member {
    name: String,
    size: u64,
}

impl<'r> Archive<'r> {
    fn open(reader: &'r mut (dyn Read + Send)) -> Result<Self, DebError> {
        let mut archive = Self { reader, offset: 0 };
        let mut magic = [0; MAGIC.len()];
        match archive.fill(&mut magic)? {
            0 => Err(DebError::NotADeb("it is empty")),
            _ if magic == *MAGIC => Ok(archive),
            _ => Err(DebError::NotADeb("it does not begin as an ar archive")),
        }
    }

    /// `debian-binary`: the major version says whether the rest is understood, the minor one does not matter.
    fn version(&mut self) -> Result<(), DebError> {
        let member = self
            .next()?
            .filter(|member| member.name == "debian-binary")
            .ok_or(DebError::NotADeb("its first member is not `debian-binary`"))?;
        let mut text = Vec::new();
        let size = member.size.min(256);
        if size < member.size {
            return Err(DebError::NotADeb("its `debian-binary` is too long"));
        }
        self.content(&member, |content| {
            content.read_to_end(&mut text).map_err(DebError::Read)
        })?;
        let version = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
        match version.split(|byte| *byte == b'.').next() {
            Some(b"2") => Ok(()),
            _ => Err(DebError::NotADeb("its format is not version 2")),
        }
    }

    /// The next member, which is this tar, whatever compresses it.
    fn tar(
        &mut self,
        name: &str,
        limits: &Limits,
        store: &dyn Store,
    ) -> Result<PackageArchive, DebError> {
        let member = loop {
            match self.next()? {
                // dpkg leaves out what begins so, for signatures.
                Some(member) if member.name.starts_with('_') => {
                    self.content(&member, |content| {
                        io::copy(content, &mut io::sink()).map_err(DebError::Read)
                    })?;
                }
                Some(member) => break member,
                None => return Err(DebError::Damaged(format!("it has no `{name}`"))),
            }
        };
        let rest = member.name.strip_prefix(name);
        if !matches!(rest, Some("" | ".gz" | ".xz" | ".zst" | ".bz2")) {
            return Err(DebError::Damaged(format!(
                "`{}` stands where `{name}` should",
                member.name
            )));
        }
        self.content(&member, |content| {
            unpack_package(content, limits, store).map_err(|source| match source {
                UnpackError::Store(error) => DebError::Store(error),
                source => DebError::Member {
                    member: member.name.clone(),
                    source,
                },
            })
        })
    }

    /// Nothing that means something may follow: who read only the first of two would see another package.
    fn end(&mut self) -> Result<(), DebError> {
        while let Some(member) = self.next()? {
            if !member.name.starts_with('_') {
                return Err(DebError::Damaged(format!(
                    "`{}` stands behind `data.tar`",
                    member.name
                )));
            }
            self.content(&member, |content| {
                io::copy(content, &mut io::sink()).map_err(DebError::Read)
            })?;
        }
        Ok(())
    }

    /// The header of the next member; nothing at the end.
    fn next(&mut self) -> Result<Option<Member>, DebError> {
        let start = self.offset;
        let bad = |reason: &str| DebError::Damaged(format!("the header at byte {start} {reason}"));
        let mut header = [0; HEADER];
        match self.fill(&mut header)? {
            0 => return Ok(None),
            HEADER => {}
            _ => return Err(bad("is cut short")),
        }
        if header[58..] != *b"`\n" {
            return Err(bad("does not end as it should"));
        }
        let name = field(&header[..16]).ok_or_else(|| bad("has no readable name"))?;
        let name = name.strip_suffix('/').unwrap_or(name).to_owned();
        if name.is_empty() {
            return Err(bad("has no name"));
        }
        let size = field(&header[48..58])
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| bad("has no readable size"))?;
        Ok(Some(Member { name, size }))
    }

    /// Lets `take` read the content of a member, all of it, and reads the byte that fills it up.
    fn content<T>(
        &mut self,
        member: &Member,
        take: impl FnOnce(&mut (dyn Read + Send)) -> Result<T, DebError>,
    ) -> Result<T, DebError> {
        let short = || DebError::Damaged(format!("it is cut short in `{}`", member.name));
        let mut content = (&mut *self.reader).take(member.size);
        let taken = take(&mut content);
        let left = content.limit();
        if left > 0 {
            // Who decodes notices first that something is missing, and says something else about it.
            let mut next = [0; 1];
            return match (content.read(&mut next), taken) {
                (Ok(0), _) => Err(short()),
                (_, Err(error)) => Err(error),
                (_, Ok(_)) => Err(DebError::Damaged(format!(
                    "`{}` has bytes that belong to nothing",
                    member.name
                ))),
            };
        }
        self.offset += member.size;
        let taken = taken?;
        if member.size % 2 == 1 {
            let mut padding = [0; 1];
            // The last member of an archive may lack it.
            self.fill(&mut padding)?;
        }
        Ok(taken)
    }

    /// Fills the buffer as far as there are bytes; says how far.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, DebError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.reader.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(DebError::Read(error)),
            }
        }
        self.offset += filled as u64;
        Ok(filled)
    }
}

/// A field of a header: text, filled up with spaces.
fn field(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let text = text.trim_end_matches(' ');
    text.bytes()
        .all(|byte| byte.is_ascii_graphic())
        .then_some(text)
}
