//! All packs of a store. Each open store writes its own; every store reads all.
//!
//! The writer holds a lock on its pack. A pack without index and without lock has lost its writer, and whoever sees it
//! first makes the index. Small packs are put together when they are many.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::files::{TempFile, Workspace, failed, found, is_at};
use super::index::{self, Index, Place};
use super::pack::{
    HEADER, PACK_BYTES, Pack, Table, Writer, content, header, is_none, recover, seen, take_out,
};
use crate::digest::Digest;
use crate::store::StoreError;

/// When so many packs are smaller than half of `PACK_BYTES`, they are put together.
const SMALL_PACKS: usize = 16;

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

/// An object that was found: the pack and its place there.
#[derive(Debug)]
struct Found {
    pack: String,
    file: Arc<File>,
    place: Place,
}

/// What was found under a digest.
#[derive(Debug)]
pub(super) enum Packed {
    /// Its content.
    Whole(Vec<u8>),
    /// Something else. It was taken out, if the file system lets us.
    Damaged(Vec<u8>),
}

/// What is in the directory: names and inodes.
#[derive(Debug, Default)]
struct Listing {
    packs: BTreeMap<String, u64>,
    /// An index comes after its pack and goes before it.
    indexes: BTreeMap<String, u64>,
}

/// What a check of all packs found.
#[derive(Debug, Default)]
pub(super) struct PacksReport {
    /// Objects that are whole.
    pub(super) objects: u64,
    /// Objects that are not, and were taken out.
    pub(super) damaged: Vec<(Digest, Vec<u8>)>,
    /// Indexes that were made again.
    pub(super) indexes: u64,
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

    /// Names of the finished packs that are small.
    fn small(&self) -> Vec<String> {
        self.packs
            .iter()
            .filter(|pack| matches!(pack.table, Table::Index(_)))
            .filter(|pack| {
                let size = pack.file.metadata().map(|metadata| metadata.len());
                size.is_ok_and(|size| size < PACK_BYTES / 2)
            })
            .map(|pack| pack.name.clone())
            .collect()
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
    pub(super) fn get(&self, digest: &Digest) -> Result<Option<Packed>, StoreError> {
        let mut damaged = None;
        loop {
            let found = self.find(&mut self.state(), digest)?;
            let Some(found) = found else {
                return Ok(damaged.map(Packed::Damaged));
            };
            let path = self.path(&found.pack, "pack");
            let bytes = content(&found.file, found.place).map_err(failed("read", &path))?;
            if Digest::of(&bytes) == *digest {
                return Ok(Some(Packed::Whole(bytes)));
            }
            if take_out(&path, digest, found.place).is_err() {
                return Ok(Some(Packed::Damaged(bytes)));
            }
            // There may be another copy of it.
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
        let mut writer = Writer::new(file).map_err(failed("write", &temp.path))?;
        let pid = std::process::id();
        for number in 0_u64.. {
            let name = format!("{pid}-{number}");
            let path = self.path(&name, "pack");
            match fs::hard_link(&temp.path, &path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                result => {
                    result.map_err(failed("write", &path))?;
                    // Of an older pack of this name, which was merged while its index was being made.
                    let index = self.path(&name, "idx");
                    found(fs::remove_file(&index)).map_err(failed("remove", &index))?;
                    writer.name = name;
                    return Ok(writer);
                }
            }
        }
        unreachable!("there are more numbers than packs")
    }

    /// Ends the pack being written: from then on it is found by its index. False when none was.
    pub(super) fn finish(&self) -> Result<bool, StoreError> {
        let mut state = self.state();
        let is_written = state.writer.is_some();
        self.close(&mut state)?;
        Ok(is_written)
    }

    /// Forgets what is known of the packs, after somebody else may have removed some.
    pub(super) fn forget(&self) {
        *self.state() = State::default();
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
        let Listing { packs, indexes } = self.list()?;
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

    fn list(&self) -> Result<Listing, StoreError> {
        let mut listing = Listing::default();
        for entry in fs::read_dir(&self.directory).map_err(failed("read", &self.directory))? {
            let entry = entry.map_err(failed("read", &self.directory))?;
            let name = entry.file_name();
            match name.to_str().and_then(|name| name.rsplit_once('.')) {
                Some((name, "pack")) => listing.packs.insert(name.to_owned(), entry.ino()),
                Some((name, "idx")) => listing.indexes.insert(name.to_owned(), entry.ino()),
                _ => None,
            };
        }
        Ok(listing)
    }

    /// Takes in a pack with an index, one without a writer, or one that another process writes.
    fn adopt(&self, name: &str) -> Result<Option<Pack>, StoreError> {
        if let Some(pack) = self.open_indexed(name)? {
            return Ok(Some(pack));
        }
        let path = self.path(name, "pack");
        let Some(file) = found(File::open(&path)).map_err(failed("open", &path))? else {
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
        let small = state.small();
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

    /// Removes every object that is not to be kept, and puts small packs together. Nobody else may use the store.
    pub(super) fn keep_only(
        &self,
        keep: &dyn Fn(&Digest) -> bool,
    ) -> Result<Vec<(Digest, Vec<u8>)>, StoreError> {
        let mut state = self.state();
        self.close(&mut state)?;
        state.listed = None;
        self.refresh(&mut state)?;
        let small = state.small();
        let (mut empty, mut names) = (Vec::new(), Vec::new());
        for pack in &state.packs {
            let entries = pack
                .entries()
                .map_err(failed("read", &self.path(&pack.name, "idx")))?;
            let is_merged = small.len() > SMALL_PACKS && small.contains(&pack.name);
            if !entries.keys().any(keep) {
                empty.push(pack.name.clone());
            } else if is_merged || !entries.keys().all(keep) {
                names.push(pack.name.clone());
            }
        }
        // Removing these takes no space and makes some.
        self.rewrite(&mut state, &empty, keep)?;
        self.rewrite(&mut state, &names, keep)
    }

    /// Writes what is kept of these packs anew and removes them, in batches: so it takes little space on a full disk.
    /// Gives the objects that were found damaged on the way.
    fn rewrite(
        &self,
        state: &mut State,
        names: &[String],
        keep: &dyn Fn(&Digest) -> bool,
    ) -> Result<Vec<(Digest, Vec<u8>)>, StoreError> {
        let (old, rest): (Vec<Pack>, Vec<Pack>) = std::mem::take(&mut state.packs)
            .into_iter()
            .partition(|pack| names.contains(&pack.name));
        state.packs = rest;
        state.listed = None;
        let mut damaged = Vec::new();
        let (mut batch, mut size) = (Vec::new(), 0);
        for pack in old {
            size += pack.file.metadata().map_or(0, |metadata| metadata.len());
            batch.push(pack);
            if size >= PACK_BYTES {
                self.rewrite_batch(state, &batch, keep, &mut damaged)?;
                (batch, size) = (Vec::new(), 0);
            }
        }
        self.rewrite_batch(state, &batch, keep, &mut damaged)?;
        Ok(damaged)
    }

    /// Killed in between, it leaves some objects twice, which harms nobody.
    fn rewrite_batch(
        &self,
        state: &mut State,
        old: &[Pack],
        keep: &dyn Fn(&Digest) -> bool,
        damaged: &mut Vec<(Digest, Vec<u8>)>,
    ) -> Result<(), StoreError> {
        let before = state.packs.len();
        for pack in old {
            let path = self.path(&pack.name, "pack");
            for (digest, place) in pack.entries().map_err(failed("read", &path))? {
                if !keep(&digest) || state.find(&digest).is_some() {
                    continue;
                }
                // Otherwise it was taken out before.
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
        // What was safe from a crash of the machine shall stay so.
        for pack in &state.packs[before..] {
            let path = self.path(&pack.name, "pack");
            pack.file.sync_data().map_err(failed("write", &path))?;
        }
        for pack in old {
            for extension in ["idx", "pack"] {
                let path = self.path(&pack.name, extension);
                found(fs::remove_file(&path)).map_err(failed("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Reads every object of every pack, takes the damaged ones out, and makes damaged indexes again.
    pub(super) fn check(&self) -> Result<PacksReport, StoreError> {
        let mut report = PacksReport::default();
        let mut state = self.state();
        self.close(&mut state)?;
        for name in self.list()?.packs.into_keys() {
            let path = self.path(&name, "pack");
            let Some(file) = found(File::open(&path)).map_err(failed("open", &path))? else {
                continue;
            };
            // Who writes a pack knows what is in it better than we do.
            if file.try_lock().is_ok() {
                self.check_pack(&name, &file, &mut report)?;
            }
        }
        *state = State::default();
        Ok(report)
    }

    fn check_pack(
        &self,
        name: &str,
        file: &File,
        report: &mut PacksReport,
    ) -> Result<(), StoreError> {
        let (path, index) = (self.path(name, "pack"), self.path(name, "idx"));
        let entries = Index::open(&index).and_then(|index| index.entries());
        let mut is_right = entries.is_ok();
        let mut whole = BTreeMap::new();
        for (digest, place) in entries.unwrap_or_default() {
            let bytes = content(file, place).map_err(failed("read", &path))?;
            let there = header(file, place.offset).map_err(failed("read", &path))?;
            if there == Some((digest, place.length)) && Digest::of(&bytes) == digest {
                whole.insert(digest, place);
                continue;
            }
            is_right = false;
            take_out(&path, &digest, place).map_err(failed("write", &path))?;
            // Otherwise it was taken out before.
            if there.is_none_or(|(digest, _)| !is_none(&digest)) {
                report.damaged.push((digest, bytes));
            }
        }
        if !is_right && is_at(file, &path) {
            // A damaged header hides what is behind it from a scan, but not from the index.
            whole.extend(recover(file).map_err(failed("read", &path))?);
            self.workspace.write(&index, &index::encode(&whole))?;
            report.indexes += 1;
        }
        report.objects += whole.len() as u64;
        Ok(())
    }
}
