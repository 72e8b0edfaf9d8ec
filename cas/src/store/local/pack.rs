//! Packs: append-only files of small objects. Each open store writes its own; every store reads all.
//!
//! ```text
//! "immpack1"
//! (digest: 32, length: u32 little-endian, content) ...
//! ```
//!
//! An object is written with one call and is there from then on, also for other processes and also when its writer
//! is killed. A torn tail says so itself: its digest is not that of its content. A damaged object gets a digest of
//! zeros, so that it is there for nobody and can be stored again. The writer holds a lock on its pack; a pack
//! without index and without lock has lost its writer, and whoever sees it first makes the index.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::files::{TempFile, Workspace, failed, found, is_at};
use super::index::{self, Index, Place};
use crate::digest::Digest;
use crate::store::StoreError;

/// Longest content that is packed, in bytes.
pub(super) const PACKED_MAX: usize = 64 << 10;
/// A pack that has this many bytes, or so many objects, is closed and the next one begun: it bounds what making an
/// index again costs, and the memory of the writer.
const PACK_BYTES: u64 = 64 << 20;
const PACK_OBJECTS: usize = 1 << 17;
/// When so many packs are smaller than half of `PACK_BYTES`, they are put together.
const SMALL_PACKS: usize = 16;

const MAGIC: &[u8; 8] = b"immpack1";
const HEADER: u64 = 36;
/// The digest of an object that is no more. No content is known that has it.
const NONE: [u8; 32] = [0; 32];

/// All packs of a store, as far as they are known.
#[derive(Debug)]
pub(super) struct Packs {
    directory: PathBuf,
    workspace: Arc<Workspace>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Time of the directory when it was last listed; none when that was so shortly after a change that another
    /// may carry the same time.
    listed: Option<SystemTime>,
    packs: Vec<Pack>,
    writer: Option<Writer>,
}

#[derive(Debug)]
struct Pack {
    name: String,
    /// Of its index, or of itself when it has none: names can come again.
    inode: u64,
    file: Arc<File>,
    table: Table,
}

#[derive(Debug)]
enum Table {
    /// The pack is complete.
    Index(Index),
    /// Another process writes it, or its index cannot be written: what was seen up to `end`.
    Seen {
        entries: BTreeMap<Digest, Place>,
        end: u64,
    },
}

/// A pack being written.
#[derive(Debug)]
struct Writer {
    name: String,
    file: Arc<File>,
    end: u64,
    entries: BTreeMap<Digest, Place>,
    buffer: Vec<u8>,
}

/// An object that was found: the pack and its place there.
#[derive(Debug)]
struct Found {
    pack: String,
    file: Arc<File>,
    place: Place,
}

/// What a check of all packs found.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// Objects that are whole.
    pub(super) objects: u64,
    /// Objects that are not, and were taken out.
    pub(super) damaged: Vec<(Digest, Vec<u8>)>,
    /// Indexes that were made again.
    pub(super) indexes: u64,
}

impl Pack {
    fn find(&self, digest: &Digest) -> Option<Place> {
        match &self.table {
            // An index that cannot be read finds nothing; fsck makes it again.
            Table::Index(index) => index.find(digest).ok().flatten(),
            Table::Seen { entries, .. } => entries.get(digest).copied(),
        }
    }

    fn entries(&self) -> io::Result<BTreeMap<Digest, Place>> {
        match &self.table {
            Table::Index(index) => index.entries(),
            Table::Seen { entries, .. } => Ok(entries.clone()),
        }
    }

    /// Looks for what its writer has added. True when that is something.
    fn grow(&mut self) -> bool {
        let Table::Seen { entries, end } = &mut self.table else {
            return false;
        };
        let before = *end;
        if self
            .file
            .metadata()
            .is_ok_and(|metadata| metadata.len() > before)
        {
            // A tail that cannot be read now is looked at again the next time.
            *end = scan(&self.file, before, |digest, place| {
                entries.insert(digest, place);
            })
            .unwrap_or(before);
        }
        *end > before
    }
}

/// The header at this place of a pack, if a whole one is there.
fn header(file: &File, offset: u64) -> io::Result<Option<(Digest, u32)>> {
    let mut bytes = [0; 36];
    match file.read_exact_at(&mut bytes, offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let (digest, length) = bytes.split_first_chunk::<32>().expect("36 bytes");
    let length = u32::from_le_bytes(*length.first_chunk().expect("4 bytes"));
    Ok(Some((Digest::from_bytes(*digest), length)))
}

/// Goes through the headers from `offset` on and says where the last whole object ends.
fn scan(file: &File, mut offset: u64, mut visit: impl FnMut(Digest, Place)) -> io::Result<u64> {
    let size = file.metadata()?.len();
    while let Some((digest, length)) = header(file, offset)? {
        let end = offset + HEADER + u64::from(length);
        let is_none = *digest.as_bytes() == NONE;
        if length as usize > PACKED_MAX || end > size || (is_none && length == 0) {
            break;
        }
        if !is_none {
            visit(digest, Place { offset, length });
        }
        offset = end;
    }
    Ok(offset)
}

/// The content at this place, whatever it is; short when the pack ends before it.
fn content(file: &File, place: Place) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; place.length as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], place.offset + HEADER + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// All objects of a pack without a writer whose content is what their digest says.
fn recover(file: &File) -> io::Result<BTreeMap<Digest, Place>> {
    let mut entries = BTreeMap::new();
    let mut magic = [0; 8];
    if file.read_exact_at(&mut magic, 0).is_err() || magic != *MAGIC {
        return Ok(entries);
    }
    scan(file, MAGIC.len() as u64, |digest, place| {
        if content(file, place).is_ok_and(|bytes| Digest::of(&bytes) == digest) {
            entries.insert(digest, place);
        }
    })?;
    Ok(entries)
}

impl Writer {
    fn append(&mut self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.buffer.clear();
        self.buffer.extend_from_slice(digest.as_bytes());
        self.buffer.extend_from_slice(&length.to_le_bytes());
        self.buffer.extend_from_slice(bytes);
        if let Err(error) = self.file.write_all_at(&self.buffer, self.end) {
            // Part of it may be there. What follows must not come behind it.
            self.file.set_len(self.end)?;
            return Err(error);
        }
        let place = Place {
            offset: self.end,
            length,
        };
        self.entries.insert(*digest, place);
        self.end += self.buffer.len() as u64;
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.end >= PACK_BYTES || self.entries.len() >= PACK_OBJECTS
    }
}

impl State {
    /// Finds an object whose header says that it is the one.
    fn find(&self, digest: &Digest) -> Option<Found> {
        let written = self.writer.iter().filter_map(|writer| {
            let place = *writer.entries.get(digest)?;
            Some((&writer.name, &writer.file, place))
        });
        let packed = self
            .packs
            .iter()
            .filter_map(|pack| Some((&pack.name, &pack.file, pack.find(digest)?)));
        written
            .chain(packed)
            .find(|(_, file, place)| {
                matches!(header(file, place.offset), Ok(Some((found, length)))
                    if found == *digest && length == place.length)
            })
            .map(|(pack, file, place)| Found {
                pack: pack.clone(),
                file: Arc::clone(file),
                place,
            })
    }
}

impl Packs {
    pub(super) fn new(directory: PathBuf, workspace: Arc<Workspace>) -> Self {
        Self {
            directory,
            workspace,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Tables are only ever replaced by true ones, so a panic elsewhere leaves nothing half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &str, extension: &str) -> PathBuf {
        self.directory.join(format!("{name}.{extension}"))
    }

    fn find(&self, state: &mut State, digest: &Digest) -> Result<Option<Found>, StoreError> {
        if let Some(found) = state.find(digest) {
            return Ok(Some(found));
        }
        Ok(if self.refresh(state)? {
            state.find(digest)
        } else {
            None
        })
    }

    /// Is this object here?
    pub(super) fn has(&self, digest: &Digest) -> Result<bool, StoreError> {
        Ok(self.find(&mut self.state(), digest)?.is_some())
    }

    /// The content of this object, checked.
    ///
    /// # Errors
    /// With the bytes that were there instead, as `Err` inside: then it has been taken out.
    pub(super) fn get(
        &self,
        digest: &Digest,
    ) -> Result<Option<Result<Vec<u8>, Vec<u8>>>, StoreError> {
        let mut damaged = None;
        loop {
            let found = self.find(&mut self.state(), digest)?;
            let Some(found) = found else {
                return Ok(damaged.map(Err));
            };
            let path = self.path(&found.pack, "pack");
            let bytes = content(&found.file, found.place).map_err(failed("read", &path))?;
            if Digest::of(&bytes) == *digest {
                return Ok(Some(Ok(bytes)));
            }
            // There may be another copy of it.
            take_out(&path, digest, found.place).map_err(failed("write", &path))?;
            damaged = Some(bytes);
        }
    }

    /// Keeps these bytes, which are the ones of this digest and at most `PACKED_MAX`.
    pub(super) fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let mut state = self.state();
        if self.find(&mut state, digest)?.is_some() {
            return Ok(());
        }
        self.append(&mut state, digest, bytes)
    }

    fn append(&self, state: &mut State, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        if state.writer.as_ref().is_some_and(Writer::is_full) {
            self.close(state)?;
        }
        if state.writer.is_none() {
            state.writer = Some(self.begin()?);
        }
        let writer = state.writer.as_mut().expect("just begun");
        writer
            .append(digest, bytes)
            .map_err(failed("write", &self.path(&writer.name, "pack")))
    }

    fn begin(&self) -> Result<Writer, StoreError> {
        let temp = TempFile::make(self.workspace.private()?, 0o600)?;
        let file = temp.file.try_clone().map_err(failed("open", &temp.path))?;
        // Locked before anybody can see it: a pack that is not locked is taken for one without a writer.
        file.try_lock()
            .map_err(|error| failed("lock", &temp.path)(error.into()))?;
        file.write_all_at(MAGIC, 0)
            .map_err(failed("write", &temp.path))?;
        let pid = std::process::id();
        for number in 0_u64.. {
            let name = format!("{pid}-{number}");
            let path = self.path(&name, "pack");
            match fs::hard_link(&temp.path, &path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                result => {
                    result.map_err(failed("write", &path))?;
                    return Ok(Writer {
                        name,
                        file: Arc::new(file),
                        end: MAGIC.len() as u64,
                        entries: BTreeMap::new(),
                        buffer: Vec::new(),
                    });
                }
            }
        }
        unreachable!("there are more numbers than packs")
    }

    /// Ends the pack being written, if there is one: from then on it is found by its index.
    pub(super) fn finish(&self) -> Result<(), StoreError> {
        self.close(&mut self.state())
    }

    fn close(&self, state: &mut State) -> Result<(), StoreError> {
        let Some(writer) = &state.writer else {
            return Ok(());
        };
        let path = self.path(&writer.name, "idx");
        self.workspace
            .write(&path, &index::encode(&writer.entries))?;
        let pack = self.open_indexed(&writer.name)?;
        let writer = state.writer.take().expect("seen above");
        state.packs.extend(pack);
        writer
            .file
            .unlock()
            .map_err(failed("unlock", &self.path(&writer.name, "pack")))
    }

    /// Looks for packs that came, went or grew. False when nothing did.
    fn refresh(&self, state: &mut State) -> Result<bool, StoreError> {
        let changed = fs::metadata(&self.directory)
            .and_then(|metadata| metadata.modified())
            .map_err(failed("read", &self.directory))?;
        if state.listed == Some(changed) {
            let mut grown = false;
            for pack in &mut state.packs {
                grown |= pack.grow();
            }
            return Ok(grown);
        }
        // A pack that is gone when it is opened was merged into one that may be newer than the list.
        while !self.relist(state)? {}
        let is_settled = SystemTime::now()
            .duration_since(changed)
            .is_ok_and(|age| age > Duration::from_millis(20));
        state.listed = is_settled.then_some(changed);
        Ok(true)
    }

    /// Makes the packs those of the directory. False when one vanished on the way.
    fn relist(&self, state: &mut State) -> Result<bool, StoreError> {
        let (packs, indexes) = self.list()?;
        let mut known = std::mem::take(&mut state.packs);
        let own = state.writer.as_ref().map(|writer| writer.name.clone());
        let mut is_whole = true;
        for (name, pack_inode) in packs {
            if own.as_ref() == Some(&name) {
                continue;
            }
            let inode = indexes.get(&name).copied().unwrap_or(pack_inode);
            let is_known = |pack: &Pack| pack.name == name && pack.inode == inode;
            if let Some(position) = known.iter().position(is_known) {
                let mut pack = known.swap_remove(position);
                pack.grow();
                state.packs.push(pack);
            } else if let Some(pack) = self.adopt(&name)? {
                state.packs.push(pack);
            } else {
                is_whole = false;
            }
        }
        Ok(is_whole)
    }

    /// Names and inodes of packs and of indexes. An index comes after its pack and goes before it.
    #[allow(
        clippy::type_complexity,
        reason = "two of the same, taken apart at once"
    )]
    fn list(&self) -> Result<(BTreeMap<String, u64>, BTreeMap<String, u64>), StoreError> {
        let (mut packs, mut indexes) = (BTreeMap::new(), BTreeMap::new());
        for entry in fs::read_dir(&self.directory).map_err(failed("read", &self.directory))? {
            let entry = entry.map_err(failed("read", &self.directory))?;
            let name = entry.file_name();
            match name.to_str().and_then(|name| name.rsplit_once('.')) {
                Some((name, "pack")) => packs.insert(name.to_owned(), entry.ino()),
                Some((name, "idx")) => indexes.insert(name.to_owned(), entry.ino()),
                _ => None,
            };
        }
        Ok((packs, indexes))
    }

    /// Takes in a pack with an index, one without a writer, or one that another process writes.
    fn adopt(&self, name: &str) -> Result<Option<Pack>, StoreError> {
        if let Some(pack) = self.open_indexed(name)? {
            return Ok(Some(pack));
        }
        let path = self.path(name, "pack");
        let Some(file) =
            found(OpenOptions::new().read(true).open(&path)).map_err(failed("open", &path))?
        else {
            return Ok(None);
        };
        if file.try_lock().is_err() {
            return Ok(Some(seen(name, file, BTreeMap::new())));
        }
        // Its writer may have closed it, or somebody else may have made its index, just before the lock.
        if let Some(pack) = self.open_indexed(name)? {
            return Ok(Some(pack));
        }
        let entries = recover(&file).map_err(failed("read", &path))?;
        let is_indexed = self
            .workspace
            .write(&self.path(name, "idx"), &index::encode(&entries))
            .is_ok();
        file.unlock().map_err(failed("unlock", &path))?;
        match self.open_indexed(name)? {
            Some(pack) if is_indexed => Ok(Some(pack)),
            // The disk is full, or cannot be written: it can still be read.
            _ => Ok(Some(seen(name, file, entries))),
        }
    }

    /// Opens a pack by its index. None when it has no index, or one that cannot be used.
    fn open_indexed(&self, name: &str) -> Result<Option<Pack>, StoreError> {
        let path = self.path(name, "idx");
        let index = match found(Index::open(&path)) {
            Ok(Some(index)) => index,
            Ok(None) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(None),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let inode = fs::metadata(&path).map(|metadata| metadata.ino()).ok();
        let path = self.path(name, "pack");
        let file = found(File::open(&path)).map_err(failed("open", &path))?;
        Ok(file.zip(inode).map(|(file, inode)| Pack {
            name: name.to_owned(),
            inode,
            file: Arc::new(file),
            table: Table::Index(index),
        }))
    }

    /// Number and bytes of the objects in all packs, copies counted once each.
    pub(super) fn sizes(&self) -> Result<BTreeMap<Digest, u64>, StoreError> {
        let mut state = self.state();
        self.refresh(&mut state)?;
        let mut sizes = BTreeMap::new();
        for pack in &state.packs {
            let entries = pack
                .entries()
                .map_err(failed("read", &self.path(&pack.name, "idx")));
            for (digest, place) in entries? {
                sizes.insert(digest, HEADER + u64::from(place.length));
            }
        }
        for (digest, place) in state.writer.iter().flat_map(|writer| &writer.entries) {
            sizes.insert(*digest, HEADER + u64::from(place.length));
        }
        Ok(sizes)
    }

    /// Bytes of all packs and indexes on disk.
    pub(super) fn disk_bytes(&self) -> Result<u64, StoreError> {
        let mut total = 0;
        for entry in fs::read_dir(&self.directory).map_err(failed("read", &self.directory))? {
            let entry = entry.map_err(failed("read", &self.directory))?;
            total += entry.metadata().map_or(0, |metadata| metadata.len());
        }
        Ok(total)
    }

    /// Puts small packs together when there are many.
    pub(super) fn merge(&self) -> Result<(), StoreError> {
        let mut state = self.state();
        self.refresh(&mut state)?;
        let small = self.small(&state);
        if small.len() <= SMALL_PACKS {
            return Ok(());
        }
        // One at a time is enough. Two would only do the work twice.
        let directory = File::open(&self.directory).map_err(failed("open", &self.directory))?;
        if directory.try_lock().is_err() {
            return Ok(());
        }
        self.rewrite(&mut state, &small, &|_| true).map(drop)
    }

    fn small(&self, state: &State) -> Vec<String> {
        state
            .packs
            .iter()
            .filter(|pack| matches!(pack.table, Table::Index(_)))
            .filter(|pack| {
                let size = pack
                    .file
                    .metadata()
                    .map_or(u64::MAX, |metadata| metadata.len());
                size < PACK_BYTES / 2
            })
            .map(|pack| pack.name.clone())
            .collect()
    }

    /// Removes every object that is not to be kept, and puts small packs together. Nobody else may use the store.
    /// Gives the objects that were found damaged on the way.
    pub(super) fn keep_only(
        &self,
        keep: &dyn Fn(&Digest) -> bool,
    ) -> Result<Vec<(Digest, Vec<u8>)>, StoreError> {
        let mut state = self.state();
        self.close(&mut state)?;
        state.listed = None;
        self.refresh(&mut state)?;
        let small = self.small(&state);
        let mut names = Vec::new();
        for pack in &state.packs {
            let entries = pack
                .entries()
                .map_err(failed("read", &self.path(&pack.name, "idx")));
            let is_merged = small.len() > SMALL_PACKS && small.contains(&pack.name);
            if is_merged || entries?.keys().any(|digest| !keep(digest)) {
                names.push(pack.name.clone());
            }
        }
        self.rewrite(&mut state, &names, keep)
    }

    /// Appends what is kept of these packs to the one being written, closes it, and removes them. Killed in between,
    /// it leaves some objects twice, which harms nobody.
    fn rewrite(
        &self,
        state: &mut State,
        names: &[String],
        keep: &dyn Fn(&Digest) -> bool,
    ) -> Result<Vec<(Digest, Vec<u8>)>, StoreError> {
        let (old, packs) = std::mem::take(&mut state.packs)
            .into_iter()
            .partition(|pack| names.contains(&pack.name));
        state.packs = packs;
        state.listed = None;
        let old: Vec<Pack> = old;
        let mut damaged = Vec::new();
        for pack in &old {
            let path = self.path(&pack.name, "pack");
            for (digest, place) in pack.entries().map_err(failed("read", &path))? {
                if !keep(&digest) || state.find(&digest).is_some() {
                    continue;
                }
                // A digest of zeros: taken out before.
                if header(&pack.file, place.offset).map_err(failed("read", &path))?
                    != Some((digest, place.length))
                {
                    continue;
                }
                let bytes = content(&pack.file, place).map_err(failed("read", &path))?;
                if Digest::of(&bytes) == digest {
                    self.append(state, &digest, &bytes)?;
                } else {
                    damaged.push((digest, bytes));
                }
            }
        }
        self.close(state)?;
        for pack in &old {
            for extension in ["idx", "pack"] {
                let path = self.path(&pack.name, extension);
                found(fs::remove_file(&path)).map_err(failed("remove", &path))?;
            }
        }
        Ok(damaged)
    }

    /// Reads every object of every pack, takes the damaged ones out, and makes damaged indexes again.
    pub(super) fn check(&self) -> Result<Checked, StoreError> {
        let mut checked = Checked::default();
        let mut state = self.state();
        self.close(&mut state)?;
        for name in self.list()?.0.into_keys() {
            let path = self.path(&name, "pack");
            let Some(file) = found(File::open(&path)).map_err(failed("open", &path))? else {
                continue;
            };
            // Who writes a pack knows what is in it better than we do.
            if file.try_lock().is_err() {
                continue;
            }
            let index = self.path(&name, "idx");
            let entries = Index::open(&index).and_then(|index| index.entries());
            let mut is_right = entries.is_ok();
            let mut whole = BTreeMap::new();
            for (digest, place) in entries.unwrap_or_default() {
                let bytes = content(&file, place).map_err(failed("read", &path))?;
                let there = header(&file, place.offset).map_err(failed("read", &path))?;
                if there == Some((digest, place.length)) && Digest::of(&bytes) == digest {
                    whole.insert(digest, place);
                    continue;
                }
                is_right = false;
                take_out(&path, &digest, place).map_err(failed("write", &path))?;
                if there.is_none_or(|(digest, _)| *digest.as_bytes() != NONE) {
                    checked.damaged.push((digest, bytes));
                }
            }
            if !is_right && is_at(&file, &path) {
                // A damaged header hides what is behind it from a scan, but not from the index.
                whole.extend(recover(&file).map_err(failed("read", &path))?);
                self.workspace.write(&index, &index::encode(&whole))?;
                checked.indexes += 1;
            }
            checked.objects += whole.len() as u64;
        }
        *state = State::default();
        Ok(checked)
    }
}

fn seen(name: &str, file: File, entries: BTreeMap<Digest, Place>) -> Pack {
    let mut pack = Pack {
        name: name.to_owned(),
        inode: file.metadata().map_or(0, |metadata| metadata.ino()),
        file: Arc::new(file),
        table: Table::Seen {
            entries,
            end: MAGIC.len() as u64,
        },
    };
    pack.grow();
    pack
}

/// Makes an object be there for nobody.
fn take_out(pack: &Path, digest: &Digest, place: Place) -> io::Result<()> {
    let Some(file) = found(OpenOptions::new().read(true).write(true).open(pack))? else {
        return Ok(());
    };
    if header(&file, place.offset)? == Some((*digest, place.length)) {
        file.write_all_at(&NONE, place.offset)?;
    }
    Ok(())
}
