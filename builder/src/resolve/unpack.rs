//! EFFECT: unpacks archives into trees in a store.
//!
//! The only home of `bzip2`, `liblzma` and `zip`. Known by content, never by name: a zip, or a tar that is
//! plain or compressed by gzip, xz, zstd or bzip2.
//!
//! An archive is hostile until it is proven harmless. Refused, with the path: names with `..`; devices; attributes that
//! speak to overlayfs; symbolic links out, which are those with an absolute target and those that climb above the root,
//! also by way of other links; in a zip also absolute names, entries that lead through a link, two entries of one name,
//! and encryption. Bombs are refused before they fill anything. No file of this machine is touched but one nameless
//! temporary file for a zip, which must be read from its end.
//!
//! Without `preserve`, files are 0644, or 0755 if anybody may execute them, directories 0755, all 0:0, without extended
//! attributes, and hard links are separate files. With it, modes, numeric owners, extended attributes and hard links
//! are those of a tar; a zip has modes only, and its owners are 0:0.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::io::{self, BufReader, Cursor, Read, Seek as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bzip2::read::MultiBzDecoder;
use immbuild_cas::path::RelPath;
use immbuild_cas::store::{DirectorySource, Store, StoreError};
use immbuild_cas::tree::{
    Directory, Entry, EntryKind, File, Meta, Mode, Symlink, Tree, TreeBuilder, TreeError,
};
use liblzma::read::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};
use zip::read::{ZipFile, ZipFileEntry};
use zip::result::ZipError;
use zip::{CompressionMethod, System, ZipArchive};

use super::make_parents;
use crate::layer::{
    self, Dropped, Encoding, MemberError, Mtimes, UntarError, UntarOptions, UntarTarget,
};

/// Most memory an xz stream may ask for: `xz -9` needs 65 MiB.
const XZ_MEMORY: u64 = 128 << 20;
/// Most links followed on one path, as in Linux (`path_resolution(7)`).
const LINKS: u32 = 40;

/// How an archive becomes a tree.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// How many leading names every path loses. What has no more names than that vanishes.
    pub strip: u32,
    /// Keep modes and what else the archive says about its entries.
    pub preserve: bool,
}

/// How much may come out of an archive.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most bytes, all decompressed content together.
    pub bytes: u64,
    /// Most entries.
    pub entries: u64,
    /// Most decompressed bytes for each compressed one, beyond [`Limits::free`].
    pub ratio: u64,
    /// How many decompressed bytes are never too many.
    pub free: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 16 << 30,
            entries: 4_000_000,
            ratio: 1000,
            free: 64 << 20,
        }
    }
}

/// Why an archive is not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// Neither a zip nor a tar.
    #[error("it is no archive: {0}")]
    NotArchive(&'static str),
    /// The archive is cut short or otherwise wrong in itself.
    #[error("the archive is damaged: {0}")]
    Damaged(String),
    /// An entry is refused.
    #[error("`{path}` in the archive is refused: {reason}")]
    Entry {
        /// Its path, as the archive has it.
        path: String,
        /// Why.
        reason: String,
    },
    /// More comes out than may.
    #[error("the archive is a bomb: {0}")]
    Bomb(String),
    /// Nothing is left after `strip`.
    #[error("no entry of the archive has more than {strip} names in its path")]
    Nothing {
        /// How many names were to be stripped.
        strip: u32,
    },
    /// The archive could not be read.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// The temporary file could not be made or written.
    #[error("cannot use a temporary file")]
    Temporary(#[source] io::Error),
    /// The store refused.
    #[error("cannot store what an archive holds")]
    Store(#[from] StoreError),
}

/// What came out of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Its entries, with all content in the store.
    pub tree: Tree,
    /// What the archive says about them that no image keeps: worth a warning.
    pub dropped: Vec<Dropped>,
}

/// Puts what an archive holds into the store. `source` is read to its end.
pub fn unpack(
    source: &mut (dyn Read + Send),
    options: Options,
    limits: &Limits,
    store: &dyn Store,
) -> Result<Unpacked, UnpackError> {
    let mut start = Vec::new();
    let mut head = (&mut *source).take(6);
    head.read_to_end(&mut start).map_err(UnpackError::Read)?;
    if start.is_empty() {
        return Err(UnpackError::NotArchive("it is empty"));
    }
    let kind = Kind::of(&start);
    let whole = Cursor::new(start).chain(source);
    let mut tree = TreeBuilder::new(store, Meta::root(Mode::DIRECTORY));
    let mut dropped = Vec::new();
    if kind == Kind::Zip {
        unzip(whole, options, limits, &mut tree, store)?;
    } else {
        let options = UntarOptions {
            entries_max: limits.entries,
            bytes_max: limits.bytes,
            ..UntarOptions::archive(options.strip as usize, options.preserve)
        };
        untar(
            whole,
            kind,
            &options,
            limits,
            &mut tree,
            &mut dropped,
            store,
        )?;
    }
    let tree = tree.seal(store).map_err(tree_error)?;
    let root = store.directory(&tree.root)?;
    if options.strip > 0 && root.is_empty() {
        return Err(UnpackError::Nothing {
            strip: options.strip,
        });
    }
    let links = Links {
        root,
        source: store,
    };
    links.check()?;
    Ok(Unpacked { tree, dropped })
}

/// What the tree says about an entry.
fn tree_error(error: TreeError) -> UnpackError {
    match error {
        TreeError::Store { source, .. } => source.into(),
        error => UnpackError::Damaged(error.to_string()),
    }
}

/// What an archive is by its first bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Zip,
    Xz,
    Bzip2,
    Other(Encoding),
}

impl Kind {
    fn of(start: &[u8]) -> Self {
        match start {
            // A local file header, or the end record of a zip with nothing in it (APPNOTE 4.3.7, 4.3.16).
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Self::Zip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            _ => Self::Other(Encoding::of(start)),
        }
    }
}

/// Why reading failed, kept beside the reader: whoever reads turns the error into one of its own.
#[derive(Default)]
struct Faults {
    /// The archive itself could not be read.
    source: Mutex<Option<io::Error>>,
    /// More comes out of it than may.
    bomb: Mutex<Option<String>>,
    /// What comes out of it is damaged.
    content: Mutex<Option<String>>,
}

impl Faults {
    /// The fault behind a failure, if there is one.
    fn take(&self) -> Option<UnpackError> {
        let source = lock(&self.source).take().map(UnpackError::Read);
        let bomb = || lock(&self.bomb).take().map(UnpackError::Bomb);
        let content = || lock(&self.content).take().map(UnpackError::Damaged);
        source.or_else(bomb).or_else(content)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts what goes into decompression.
struct Counted<'a, R> {
    inner: R,
    count: &'a AtomicU64,
    faults: &'a Faults,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(count) => {
                self.count.fetch_add(count as u64, Ordering::Relaxed);
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let shown = io::Error::other(error.to_string());
                *lock(&self.faults.source) = Some(error);
                Err(shown)
            }
        }
    }
}

/// Reads what comes out of decompression, as long as it is not too much.
struct Bounded<'a, R> {
    inner: R,
    limits: &'a Limits,
    compressed: &'a AtomicU64,
    /// Bytes so far, of all entries of the archive.
    bytes: &'a mut u64,
    faults: &'a Faults,
}

impl<R> Bounded<'_, R> {
    fn excess(&self) -> Option<String> {
        let limits = self.limits;
        if *self.bytes > limits.bytes {
            return Some(format!("more than {} bytes come out of it", limits.bytes));
        }
        let compressed = self.compressed.load(Ordering::Relaxed);
        let fair = compressed.saturating_mul(limits.ratio);
        (*self.bytes > limits.free.saturating_add(fair)).then(|| {
            let ratio = limits.ratio;
            format!("{compressed} bytes of it become more than {ratio} times as many")
        })
    }
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer).inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                *lock(&self.faults.content) = Some(error.to_string());
            }
        })?;
        *self.bytes += count as u64;
        if let Some(excess) = self.excess() {
            let error = io::Error::other(excess.clone());
            *lock(&self.faults.bomb) = Some(excess);
            return Err(error);
        }
        Ok(count)
    }
}

/// One of the two archives in a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageArchive {
    /// What is in it, as it stands there: links may lead anywhere.
    pub tree: Tree,
    /// The paths that it names, in its order.
    pub named: Vec<RelPath>,
    /// What it says about them that no image keeps.
    pub dropped: Vec<Dropped>,
}

/// Puts what an archive in a package holds into the store, with modes and owners. `source` is read to its end.
///
/// # Errors
/// It is no tar, plain or compressed, or a hostile one.
pub fn unpack_package(
    source: &mut (dyn Read + Send),
    limits: &Limits,
    store: &dyn Store,
) -> Result<PackageArchive, UnpackError> {
    let mut start = Vec::new();
    let mut head = (&mut *source).take(6);
    head.read_to_end(&mut start).map_err(UnpackError::Read)?;
    let kind = match Kind::of(&start) {
        Kind::Zip => return Err(UnpackError::NotArchive("it is a zip and no tar")),
        kind => kind,
    };
    let whole = Cursor::new(start).chain(source);
    let options = UntarOptions {
        entries_max: limits.entries,
        bytes_max: limits.bytes,
        ..UntarOptions::PACKAGE
    };
    let mut tree = TreeBuilder::new(store, Meta::root(Mode::DIRECTORY));
    let mut dropped = Vec::new();
    let named = untar(
        whole,
        kind,
        &options,
        limits,
        &mut tree,
        &mut dropped,
        store,
    )?;
    Ok(PackageArchive {
        tree: tree.seal(store).map_err(tree_error)?,
        named,
        dropped,
    })
}

/// Gives the paths that the archive names.
fn untar(
    source: impl Read + Send,
    kind: Kind,
    options: &UntarOptions,
    limits: &Limits,
    tree: &mut TreeBuilder<'_>,
    dropped: &mut Vec<Dropped>,
    store: &dyn Store,
) -> Result<Vec<RelPath>, UnpackError> {
    let (faults, compressed) = (Faults::default(), AtomicU64::new(0));
    let mut source = Counted {
        inner: source,
        count: &compressed,
        faults: &faults,
    };
    let result = {
        let inner = decompress(&mut source, kind).map_err(UnpackError::Read)?;
        let mut bounded = Bounded {
            inner,
            limits,
            compressed: &compressed,
            bytes: &mut 0,
            faults: &faults,
        };
        let target = UntarTarget {
            tree,
            store,
            mtimes: &mut Mtimes::default(),
            dropped,
        };
        layer::untar_listed(&mut bounded, options, target)
    };
    let named = match result {
        Ok(named) => named,
        Err(error) => return Err(faults.take().unwrap_or_else(|| untar_error(error, kind))),
    };
    // What checks a source's digest does so at its end, which a decoder need not reach.
    io::copy(&mut source, &mut io::sink())
        .map_err(|error| faults.take().unwrap_or(UnpackError::Read(error)))?;
    Ok(named)
}

/// The decompressed bytes of a file that is plain or compressed by gzip, xz, zstd or bzip2, whichever its first bytes say.
/// What comes out has no bound.
pub fn decompressed<'a>(
    mut source: impl Read + Send + 'a,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut start = Vec::new();
    (&mut source).take(6).read_to_end(&mut start)?;
    let kind = Kind::of(&start);
    decompress(Cursor::new(start).chain(source), kind)
}

fn decompress<'a>(
    source: impl Read + Send + 'a,
    kind: Kind,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    Ok(match kind {
        Kind::Xz => {
            let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED)?;
            Box::new(XzDecoder::new_stream(source, stream))
        }
        Kind::Bzip2 => Box::new(MultiBzDecoder::new(source)),
        Kind::Zip | Kind::Other(_) => layer::decoder(source)?,
    })
}

fn untar_error(error: UntarError, kind: Kind) -> UnpackError {
    match error {
        // Already the first header is none.
        UntarError::Archive(
            MemberError::Header { offset: 0, .. } | MemberError::Short { offset: 0..512 },
        ) => UnpackError::NotArchive(match kind {
            Kind::Other(Encoding::Plain) => "it is neither a zip nor a tar, plain or compressed",
            _ => "it is one compressed file and no tar",
        }),
        UntarError::Archive(MemberError::Bytes(limit)) => {
            UnpackError::Bomb(format!("more than {limit} bytes come out of it"))
        }
        UntarError::Archive(error) => UnpackError::Damaged(error.to_string()),
        UntarError::Entries(limit) => {
            UnpackError::Bomb(format!("it has more than {limit} entries"))
        }
        UntarError::Member { path, reason, .. } => UnpackError::Entry {
            path,
            reason: format!("it {reason}"),
        },
        UntarError::Tree { source, .. } => tree_error(source),
        UntarError::Store { source, .. } => source.into(),
    }
}

/// The path an entry gets; nothing when `strip` takes it away.
fn path_of(name: &[u8], strip: u32) -> Result<Option<RelPath>, String> {
    if name.starts_with(b"/") {
        return Err("its name is absolute".into());
    }
    let names: Vec<&[u8]> = name
        .split(|byte| *byte == b'/')
        .filter(|name| !matches!(*name, b"" | b"."))
        .collect();
    if names.contains(&&b".."[..]) {
        return Err("its name climbs by `..`".into());
    }
    let strip = strip as usize;
    if strip > 0 && names.len() <= strip {
        return Ok(None);
    }
    RelPath::new(names[strip..].join(&b'/'))
        .map(Some)
        .map_err(|error| error.to_string())
}

fn unzip(
    mut source: impl Read,
    options: Options,
    limits: &Limits,
    tree: &mut TreeBuilder<'_>,
    store: &dyn Store,
) -> Result<(), UnpackError> {
    let mut file = tempfile::tempfile().map_err(UnpackError::Temporary)?;
    let size = spool(&mut source, &mut file)?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(zip_error)?;
    if archive.has_duplicate_names() {
        return Err(UnpackError::Damaged("two entries have one name".into()));
    }
    if archive.has_overlapping_entries().map_err(zip_error)? {
        return Err(UnpackError::Bomb("its entries overlap".into()));
    }
    if archive.len() as u64 > limits.entries {
        let reason = format!("it has more than {} entries", limits.entries);
        return Err(UnpackError::Bomb(reason));
    }
    let mut unzip = Unzip {
        options,
        limits,
        tree,
        store,
        compressed: AtomicU64::new(size),
        bytes: 0,
        described: BTreeSet::new(),
    };
    for index in 0..archive.len() {
        let described = archive.by_index_data(index).map_err(zip_error)?;
        let name = name_of(&described);
        let refuse = |reason: String| UnpackError::Entry {
            path: shown(&name),
            reason,
        };
        let Some(path) = path_of(&name, options.strip).map_err(refuse)? else {
            continue;
        };
        if described.encrypted() {
            return Err(refuse("it is encrypted".into()));
        }
        let method = described.compression();
        if !matches!(
            method,
            CompressionMethod::Stored | CompressionMethod::Deflated
        ) {
            return Err(refuse(format!("its compression {method} is not supported")));
        }
        let mut entry = archive.by_index(index).map_err(zip_error)?;
        unzip.entry(&mut entry, &name, &path)?;
    }
    Ok(())
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// Copies the archive into the temporary file; gives its length.
fn spool(source: &mut dyn Read, file: &mut fs::File) -> Result<u64, UnpackError> {
    let mut buffer = vec![0; 128 << 10];
    let mut size = 0;
    loop {
        let count = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(UnpackError::Read(error)),
        };
        file.write_all(&buffer[..count])
            .map_err(UnpackError::Temporary)?;
        size += count as u64;
    }
    file.rewind().map_err(UnpackError::Temporary)?;
    Ok(size)
}

/// The name in bytes. What is UTF-8 is taken as it stands, whatever the flag says, and so is what a Unix wrote; the
/// rest is code page 437 (APPNOTE appendix D). A name that DOS or Windows wrote with `\` alone has that between names.
fn name_of(entry: &ZipFileEntry<'_>) -> Vec<u8> {
    let raw = entry.name_raw();
    let is_unix = matches!(entry.system(), System::Unix | System::OsDarwin);
    if is_unix {
        return raw.to_vec();
    }
    let mut name = match (std::str::from_utf8(raw), entry.name()) {
        (Err(_), Ok(decoded)) => decoded.as_bytes().to_vec(),
        _ => raw.to_vec(),
    };
    if !name.contains(&b'/') {
        for byte in &mut name {
            if *byte == b'\\' {
                *byte = b'/';
            }
        }
    }
    name
}

/// A zip while it is unpacked.
struct Unzip<'u, 'a> {
    options: Options,
    limits: &'u Limits,
    tree: &'u mut TreeBuilder<'a>,
    store: &'u dyn Store,
    /// Length of the archive: its entries do not overlap, so no more than that is decompressed.
    compressed: AtomicU64,
    bytes: u64,
    /// Directories with an entry of their own.
    described: BTreeSet<RelPath>,
}

impl Unzip<'_, '_> {
    fn entry(
        &mut self,
        entry: &mut ZipFile<'_, BufReader<fs::File>>,
        name: &[u8],
        path: &RelPath,
    ) -> Result<(), UnpackError> {
        let refuse = |reason: &str| UnpackError::Entry {
            path: shown(name),
            reason: reason.to_owned(),
        };
        let is_unix = matches!(entry.system(), System::Unix | System::OsDarwin);
        // A Unix puts `st_mode` into the upper half. Zero comes from writers that have none to give.
        let mode = Some(entry.external_attributes() >> 16).filter(|mode| is_unix && *mode != 0);
        let meta = |usual: Mode| match mode {
            Some(mode) if self.options.preserve => Meta::root(Mode::of_st_mode(mode)),
            _ => Meta::root(usual),
        };
        let is_directory = match mode.unwrap_or_default() & FILE_TYPE {
            DIRECTORY => true,
            REGULAR | 0 => name.ends_with(b"/"),
            LINK => false,
            _ => return Err(refuse("it is neither file, directory nor link")),
        };
        let in_tree = |error: TreeError| match error {
            TreeError::Store { source, .. } => source.into(),
            error => refuse(&error.to_string()),
        };
        make_parents(self.tree, path).map_err(in_tree)?;
        let before = self.tree.kind(path).map_err(in_tree)?;
        if is_directory {
            let is_free = matches!(before, None | Some(EntryKind::Directory));
            if !is_free || !self.described.insert(path.clone()) {
                return Err(refuse("another entry has this path"));
            }
            let meta = meta(Mode::DIRECTORY);
            return self.tree.make_directory(path, meta).map_err(in_tree);
        }
        if before.is_some() {
            return Err(refuse("another entry has this path"));
        }
        let taken = if mode.unwrap_or_default() & FILE_TYPE == LINK {
            Entry::Symlink(Symlink {
                target: self.target(entry)?.into(),
                uid: 0,
                gid: 0,
            })
        } else {
            let executable = mode.is_some_and(|mode| mode & 0o111 != 0);
            let meta = meta(if executable {
                Mode::DIRECTORY
            } else {
                Mode::FILE
            });
            let store = self.store;
            let (blob, size) = self.content(entry, |content| Ok(store.put(content)?))?;
            Entry::File(File { blob, size, meta })
        };
        self.tree.insert(path, taken).map_err(in_tree)
    }

    /// The target of a link, which is its content.
    fn target(
        &mut self,
        entry: &mut ZipFile<'_, BufReader<fs::File>>,
    ) -> Result<Vec<u8>, UnpackError> {
        self.content(entry, |content| {
            let mut target = Vec::new();
            // One byte more than a link may have, so that a longer one is noticed.
            content
                .take(4096)
                .read_to_end(&mut target)
                .map_err(|error| UnpackError::Damaged(error.to_string()))?;
            Ok(target)
        })
    }

    /// Reads an entry's content as long as it is not too much.
    fn content<T>(
        &mut self,
        entry: &mut ZipFile<'_, BufReader<fs::File>>,
        take: impl FnOnce(&mut dyn Read) -> Result<T, UnpackError>,
    ) -> Result<T, UnpackError> {
        let faults = Faults::default();
        let mut content = Bounded {
            inner: entry,
            limits: self.limits,
            compressed: &self.compressed,
            bytes: &mut self.bytes,
            faults: &faults,
        };
        let taken = take(&mut content);
        faults.take().map_or(taken, Err)
    }
}

/// The type bits of `st_mode` (inode(7)).
const FILE_TYPE: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

fn zip_error(error: ZipError) -> UnpackError {
    match error {
        ZipError::Io(error) => UnpackError::Damaged(error.to_string()),
        ZipError::InvalidArchive(reason) => UnpackError::Damaged(reason.into_owned()),
        error => UnpackError::Damaged(error.to_string()),
    }
}

/// Finds symbolic links that lead out of a tree.
struct Links<'a> {
    root: Arc<Directory>,
    source: &'a dyn DirectorySource,
}

impl Links<'_> {
    /// Asks every link of the tree.
    fn check(&self) -> Result<(), UnpackError> {
        let mut ahead = vec![(RelPath::root(), Arc::clone(&self.root))];
        while let Some((at, directory)) = ahead.pop() {
            for (name, entry) in directory.entries() {
                match entry {
                    Entry::Directory(id) => {
                        let path = at
                            .join(name)
                            .map_err(|error| UnpackError::Damaged(error.to_string()))?;
                        ahead.push((path, self.source.directory(id)?));
                    }
                    Entry::Symlink(link) if self.leads_out(&at, &link.target)? => {
                        return Err(UnpackError::Entry {
                            path: shown(at.join(name).unwrap_or_default().as_bytes()),
                            reason: format!(
                                "it links out of the archive, to `{}`",
                                shown(&link.target)
                            ),
                        });
                    }
                    Entry::Symlink(_) | Entry::File(_) | Entry::Special(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Does this target, seen from the directory `at`, lead above the root?
    ///
    /// Every link of the tree is asked, so a way through another link is that link's matter, unless it climbs after
    /// it: then the links on it are followed.
    fn leads_out(&self, at: &RelPath, target: &[u8]) -> Result<bool, StoreError> {
        if target.starts_with(b"/") {
            return Ok(true);
        }
        let mut place: Vec<Vec<u8>> = at.names().map(<[u8]>::to_vec).collect();
        let mut way: VecDeque<Vec<u8>> = names_of(target).collect();
        let mut links = 0;
        while way.iter().any(|name| name == b"..") {
            let name = way.pop_front().expect("there is a `..` left");
            if name == b".." {
                if place.pop().is_none() {
                    return Ok(true);
                }
                continue;
            }
            match self.link(&place, &name)? {
                None => place.push(name),
                Some(target) if target.starts_with(b"/") => return Ok(true),
                Some(target) => {
                    links += 1;
                    // A circle of links leads nowhere.
                    if links > LINKS {
                        return Ok(false);
                    }
                    for name in names_of(&target).rev() {
                        way.push_front(name);
                    }
                }
            }
        }
        Ok(false)
    }

    /// The target of the link `name` in the directory `place`, if there is one.
    fn link(&self, place: &[Vec<u8>], name: &[u8]) -> Result<Option<Box<[u8]>>, StoreError> {
        let mut directory = Arc::clone(&self.root);
        for name in place {
            let Some(Entry::Directory(id)) = directory.get(name) else {
                return Ok(None);
            };
            directory = self.source.directory(id)?;
        }
        Ok(match directory.get(name) {
            Some(Entry::Symlink(link)) => Some(link.target.clone()),
            _ => None,
        })
    }
}

fn names_of(target: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> + '_ {
    target
        .split(|byte| *byte == b'/')
        .filter(|name| !matches!(*name, b"" | b"."))
        .map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests;
