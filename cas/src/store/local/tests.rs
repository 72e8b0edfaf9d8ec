//! What the local store withstands, tried out.

#![allow(
    clippy::cast_possible_truncation,
    reason = "test code: a panic is the report"
)]

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, Mode, OFlags};
use tempfile::TempDir;

use super::*;
use crate::digest::TreeId;
use crate::path::Name;
use crate::store::{MemoryStore, conformance::conformance};
use crate::tree::{Entry, Meta, Tree};

const CHILD: &str = "IMMBUILD_TEST_STORE";
const NO_WAIT: Duration = Duration::ZERO;

fn open(path: &Path) -> LocalStore {
    LocalStore::open(path).unwrap()
}

fn fresh() -> (TempDir, LocalStore) {
    let directory = TempDir::new().unwrap();
    let store = open(&directory.path().join("store"));
    (directory, store)
}

fn large(seed: u8) -> Vec<u8> {
    (0..PACKED_MAX * 3)
        .map(|at| (at % 251) as u8 ^ seed)
        .collect()
}

/// All files below a directory, sorted.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(list(&path).unwrap());
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn file_of(store: &LocalStore, directory: &str, end: &str) -> PathBuf {
    let found: Vec<PathBuf> = files(&store.path().join(directory))
        .into_iter()
        .filter(|path| path.to_str().unwrap().ends_with(end))
        .collect();
    let [path] = &found[..] else {
        panic!("one file in {directory}: {found:?}")
    };
    path.clone()
}

fn flip(path: &Path, offset: u64) {
    let mode = fs::metadata(path).unwrap().permissions();
    wait_for_the_clock(path);
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
    fs::set_permissions(path, mode).unwrap();
}

/// Until the file system's clock, which ticks every few milliseconds, has another time than the file.
fn wait_for_the_clock(path: &Path) {
    let changed = |path: &Path| {
        let metadata = fs::metadata(path).unwrap();
        (metadata.ctime(), metadata.ctime_nsec())
    };
    let directory = tempfile::tempdir().unwrap();
    let probe = directory.path().join("probe");
    loop {
        fs::write(&probe, "").unwrap();
        if changed(&probe) > changed(path) {
            return;
        }
    }
}

fn require_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test mounts a file system or changes owners: run it as root, as CI does"
    );
}

fn record_of(blobs: &[BlobId]) -> Record {
    Record {
        value: b"value".to_vec(),
        blobs: blobs.to_vec(),
        trees: Vec::new(),
    }
}

/// Stores a tree with one file and gives the ids of the tree, the directories and the file's content.
fn put_tree_with(store: &dyn Store, content: &[u8]) -> (TreeId, [DirectoryId; 2], BlobId) {
    let blob = store.put_bytes(content).unwrap();
    let mut inner = Directory::new(Meta::root(crate::tree::Mode::DIRECTORY));
    let file = crate::tree::File {
        blob,
        size: content.len() as u64,
        meta: Meta::root(crate::tree::Mode::FILE),
    };
    let absent = crate::tree::File {
        blob: BlobId::new(Digest::of(&[content, b"is in a path source"].concat())),
        ..file.clone()
    };
    inner
        .insert(Name::new(*b"file").unwrap(), Entry::File(file))
        .unwrap();
    inner
        .insert(Name::new(*b"absent").unwrap(), Entry::File(absent))
        .unwrap();
    let inner = store.put_directory(&inner).unwrap();
    let mut root = Directory::new(Meta::root(crate::tree::Mode::DIRECTORY));
    root.insert(Name::new(*b"sub").unwrap(), Entry::Directory(inner))
        .unwrap();
    let root = store.put_directory(&root).unwrap();
    let tree = store.put_tree(&Tree::new(root)).unwrap();
    (tree, [root, inner], blob)
}

#[test]
fn the_memory_store_conforms() {
    conformance(&|| Box::new(MemoryStore::new()));
}

#[test]
fn the_local_store_conforms() {
    let directory = TempDir::new().unwrap();
    let number = std::cell::Cell::new(0);
    conformance(&|| {
        number.set(number.get() + 1);
        Box::new(open(&directory.path().join(number.get().to_string())))
    });
}

#[test]
fn everything_is_there_after_reopening() {
    let (_directory, store) = fresh();
    let path = store.path().to_owned();
    let small = store.put_bytes(b"small").unwrap();
    let big = store.put_bytes(&large(1)).unwrap();
    let key = Digest::of(b"key");
    let record = record_of(&[small, big]);
    store.put_record("action", &key, &record).unwrap();
    store.set_root("spec.toml", &record).unwrap();
    drop(store);

    let store = open(&path);
    assert_eq!(store.read(&small).unwrap(), b"small");
    assert_eq!(store.read(&big).unwrap(), large(1));
    assert_eq!(store.record("action", &key).unwrap(), Some(record.clone()));
    assert_eq!(store.records("action").unwrap(), [(key, record.clone())]);
    assert_eq!(store.records("other").unwrap(), []);
    let roots = store.roots().unwrap();
    assert_eq!(
        roots.into_iter().collect::<Vec<_>>(),
        [("spec.toml".to_owned(), record)]
    );
    store.remove_root("spec.toml").unwrap();
    store.remove_root("spec.toml").unwrap();
    assert!(store.roots().unwrap().is_empty());
    let mut copy = Vec::new();
    assert_eq!(store.copy_out(&big, &mut copy).unwrap(), copy.len() as u64);
    assert_eq!(copy, large(1));
    let mut file = store.blob_file(&big).unwrap().unwrap();
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o444);
    copy.clear();
    file.read_to_end(&mut copy).unwrap();
    assert_eq!(copy, large(1));
    assert!(store.blob_file(&small).unwrap().is_none());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn a_hundred_thousand_tiny_blobs_are_a_few_files() {
    let (_directory, store) = fresh();
    let path = store.path().to_owned();
    for number in 0..100_000_u32 {
        store.put_bytes(&number.to_le_bytes()).unwrap();
    }
    drop(store);
    let count = files(&path).len();
    assert!(count <= 6, "{count} files");

    let store = open(&path);
    for number in (0..100_000_u32).step_by(97) {
        let id = BlobId::new(Digest::of(&number.to_le_bytes()));
        assert_eq!(store.read(&id).unwrap(), number.to_le_bytes());
    }
    assert_eq!(store.stat().unwrap().packed.count, 100_000);
    // Nothing is stored twice.
    for number in 0..1000_u32 {
        store.put_bytes(&number.to_le_bytes()).unwrap();
    }
    drop(store);
    assert_eq!(files(&path).len(), count);
}

#[test]
fn many_small_packs_become_few() {
    let (_directory, store) = fresh();
    let path = store.path().to_owned();
    drop(store);
    // Open all the time, it must find everything although the packs are replaced under it.
    let reader = open(&path);
    let mut ids = Vec::new();
    for number in 0..60_u32 {
        let store = open(&path);
        ids.push(store.put_bytes(&number.to_le_bytes()).unwrap());
        drop(store);
        for id in &ids {
            reader.read(id).unwrap();
        }
    }
    let count = files(&path.join("packs")).len();
    assert!(count <= 2 * 17, "{count} files");
    assert!(reader.fsck().unwrap().is_clean());
    let store = open(&path);
    for id in &ids {
        store.read(id).unwrap();
    }
}

#[test]
fn a_damaged_blob_is_set_aside_and_can_be_made_again() {
    let (_directory, store) = fresh();
    let path = store.path().to_owned();
    for content in [b"small".to_vec(), large(7)] {
        let id = store.put_bytes(&content).unwrap();
        let (directory, end, offset) = if content.len() > PACKED_MAX {
            ("blobs", "", 100_000)
        } else {
            ("packs", ".pack", 8 + 36 + 2)
        };
        flip(&file_of(&store, directory, end), offset);
        // Somebody else has it open before it is found out.
        let other = open(&path);
        assert!(other.has(&id).unwrap());

        let error = store.read(&id).expect_err("damaged");
        assert!(matches!(&error, StoreError::Damaged { digest } if digest == id.digest()));
        for store in [&store, &other] {
            assert!(!store.has(&id).unwrap());
            assert!(matches!(store.read(&id), Err(StoreError::Missing(_))));
        }
        let aside = path.join("damaged").join(id.digest().to_hex());
        assert_eq!(fs::read(&aside).unwrap().len(), content.len());

        assert_eq!(other.put_bytes(&content).unwrap(), id);
        assert_eq!(other.read(&id).unwrap(), content);
        assert_eq!(store.read(&id).unwrap(), content);
        let report = store.fsck().unwrap();
        assert!(report.is_clean(), "{report:?}");
    }
}

#[test]
fn a_blob_is_the_stores_own_until_somebody_writes_to_it() {
    let (_directory, store) = fresh();
    let id = store.put_bytes(&large(2)).unwrap();
    let is_own = |store: &LocalStore| store.own_file(&id).unwrap().is_some();
    assert!(is_own(&store));
    assert!(!is_own(&open(store.path())));
    flip(&file_of(&store, "blobs", ""), 5);
    assert!(!is_own(&store));
    // Not even when it is as it was.
    flip(&file_of(&store, "blobs", ""), 5);
    assert!(!is_own(&store));
    assert_eq!(store.read(&id).unwrap(), large(2));
}

#[test]
fn a_damaged_blob_fails_while_it_is_copied_out() {
    let (_directory, store) = fresh();
    let id = store.put_bytes(&large(3)).unwrap();
    flip(&file_of(&store, "blobs", ""), 5);
    let error = store.copy_out(&id, &mut Vec::new()).expect_err("damaged");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

#[test]
fn a_truncated_blob_is_damaged() {
    let (_directory, store) = fresh();
    let id = store.put_bytes(&large(3)).unwrap();
    let path = file_of(&store, "blobs", "");
    wait_for_the_clock(&path);
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    File::create(&path).unwrap();
    assert!(matches!(store.read(&id), Err(StoreError::Damaged { .. })));
    assert!(!store.has(&id).unwrap());
}

#[test]
fn a_damaged_record_is_none() {
    let (_directory, store) = fresh();
    let key = Digest::of(b"key");
    store.put_record("action", &key, &record_of(&[])).unwrap();
    let path = file_of(&store, "records", "");
    flip(&path, 20);
    assert_eq!(store.record("action", &key).unwrap(), None);
    assert!(!path.exists());
    // A record under another's key is not that one.
    store.put_record("action", &key, &record_of(&[])).unwrap();
    let other = Digest::of(b"other");
    rename_record(&store, &path, &store.record_path("action", &other));
    assert_eq!(store.record("action", &other).unwrap(), None);
}

fn rename_record(store: &LocalStore, from: &Path, to: &Path) {
    assert!(from.starts_with(store.path()));
    files::rename_to(from, to).unwrap();
}

#[test]
fn a_record_of_something_gone_is_none() {
    let (_directory, store) = fresh();
    let id = store.put_bytes(&large(1)).unwrap();
    let key = Digest::of(b"key");
    store.put_record("action", &key, &record_of(&[id])).unwrap();
    fs::remove_file(file_of(&store, "blobs", "")).unwrap();
    assert_eq!(store.record("action", &key).unwrap(), None);
    store.put_bytes(&large(1)).unwrap();
    assert_eq!(
        store.record("action", &key).unwrap(),
        Some(record_of(&[id]))
    );
}

/// Whatever byte of whatever file is wrong: a read gives the right bytes or an error, and after fsck all that is
/// there is right and everything can be stored again.
#[test]
fn a_flipped_bit_anywhere_is_survived() {
    let contents = [b"one".to_vec(), b"two, longer".to_vec(), large(9)];
    let (_directory, store) = fresh();
    let path = store.path().to_owned();
    let ids: Vec<BlobId> = contents
        .iter()
        .map(|content| store.put_bytes(content).unwrap())
        .collect();
    let key = Digest::of(b"key");
    store.put_record("action", &key, &record_of(&ids)).unwrap();
    drop(store);
    let sound: Vec<(PathBuf, Vec<u8>)> = files(&path)
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .filter(|(path, bytes)| !bytes.is_empty() && !path.ends_with("form"))
        .collect();
    assert_eq!(sound.len(), 4, "{:?}", files(&path));
    let mut seen_damaged = 0;
    for (file, bytes) in &sound {
        let step = if bytes.len() > PACKED_MAX { 40_001 } else { 5 };
        for offset in (0..bytes.len()).step_by(step) {
            flip(file, offset as u64);
            let store = open(&path);
            for (id, content) in ids.iter().zip(&contents) {
                match store.read(id) {
                    Ok(read) => assert!(read == *content),
                    Err(StoreError::Damaged { .. } | StoreError::Missing(_)) => seen_damaged += 1,
                    Err(error) => panic!("{error} after {offset} in {}", file.display()),
                }
            }
            if let Some(record) = store.record("action", &key).unwrap() {
                assert_eq!(record, record_of(&ids));
            }
            store.fsck().unwrap();
            let again = store.fsck().unwrap();
            assert!(
                again.is_clean() && again.indexes == 0,
                "{again:?} after {offset} in {}",
                file.display()
            );
            for (id, content) in ids.iter().zip(&contents) {
                if store.has(id).unwrap() {
                    assert!(store.read(id).unwrap() == *content);
                }
                assert_eq!(store.put_bytes(content).unwrap(), *id);
                assert!(store.read(id).unwrap() == *content);
            }
            drop(store);
            for extra in files(&path.join("packs")) {
                fs::remove_file(extra).unwrap();
            }
            for (path, bytes) in &sound {
                let _ = fs::remove_file(path);
                fs::write(path, bytes).unwrap();
            }
        }
    }
    assert!(seen_damaged > 10, "{seen_damaged}");
}

#[test]
fn fsck_finds_what_is_damaged() {
    let (_directory, store) = fresh();
    let small = store.put_bytes(b"small").unwrap();
    let whole = store.put_bytes(b"whole").unwrap();
    let big = store.put_bytes(&large(1)).unwrap();
    let key = Digest::of(b"key");
    store.put_record("action", &key, &record_of(&[])).unwrap();
    store.set_root("kept", &record_of(&[])).unwrap();
    let clean = store.fsck().unwrap();
    assert_eq!((clean.objects, clean.records), (3, 2));
    assert!(clean.is_clean());

    flip(&file_of(&store, "packs", ".pack"), 8 + 36);
    flip(&file_of(&store, "blobs", ""), 9);
    flip(&file_of(&store, "records", ""), 9);
    let report = store.fsck().unwrap();
    let mut damaged = vec![*small.digest(), *big.digest()];
    damaged.sort();
    assert_eq!(report.damaged, damaged);
    assert_eq!((report.objects, report.records), (1, 1));
    assert_eq!(report.damaged_records, 1);
    assert_eq!(report.indexes, 1);
    assert_eq!(store.read(&whole).unwrap(), b"whole");
    assert_eq!(store.stat().unwrap().damaged.count, 3);
    assert!(store.fsck().unwrap().is_clean());
}

#[test]
fn a_lost_or_damaged_index_is_made_again() {
    let (_directory, store) = fresh();
    let path = store.path().to_owned();
    let ids: Vec<BlobId> = (0..1000_u32)
        .map(|number| store.put_bytes(&number.to_le_bytes()).unwrap())
        .collect();
    drop(store);
    let index = files(&path.join("packs")).remove(0);
    assert_eq!(index.extension().unwrap(), "idx");
    let spoil: [&dyn Fn(); 3] = [
        &|| fs::remove_file(&index).unwrap(),
        &|| flip(&index, 3),
        &|| drop(File::create(&index).unwrap()),
    ];
    for spoil in spoil {
        spoil();
        let store = open(&path);
        for id in &ids {
            store.read(id).unwrap();
        }
        assert!(index.exists());
        assert_eq!(store.fsck().unwrap().indexes, 0);
    }
    // An entry that is wrong is seen by fsck only; until then the object is not found or another copy is.
    flip(&index, 5000);
    let store = open(&path);
    assert_eq!(store.fsck().unwrap().indexes, 1);
    for id in &ids {
        store.read(id).unwrap();
    }
}

#[test]
fn a_store_of_another_user_is_refused() {
    require_root();
    let (_directory, store) = fresh();
    let path = store.path().to_owned();
    drop(store);
    std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
    let error = LocalStore::open(&path).expect_err("of another user");
    assert!(
        matches!(
            error,
            StoreError::Owner {
                owner: 65_534,
                user: 0,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn another_form_or_another_directory_is_refused() {
    let (_directory, store) = fresh();
    let path = store.path().to_owned();
    drop(store);
    fs::write(path.join("form"), "immbuild store 99\n").unwrap();
    let error = LocalStore::open(&path).expect_err("another form");
    assert!(matches!(&error, StoreError::Form { found, .. } if found == "immbuild store 99"));

    let home = TempDir::new().unwrap();
    fs::write(home.path().join("letter.txt"), "dear").unwrap();
    let error = LocalStore::open(home.path()).expect_err("no store");
    assert!(matches!(&error, StoreError::Form { found, .. } if found == "not a store"));
    assert_eq!(list(home.path()).unwrap().len(), 1);
}

#[test]
fn a_store_left_while_it_was_made_is_finished() {
    let directory = TempDir::new().unwrap();
    fs::create_dir(directory.path().join("blobs")).unwrap();
    fs::write(directory.path().join("lock"), "").unwrap();
    let store = open(directory.path());
    let id = store.put_bytes(b"x").unwrap();
    assert!(open(directory.path()).has(&id).unwrap());
}

/// A tmpfs of one size, unmounted on drop.
struct Disk(TempDir);

impl Disk {
    fn new(options: &std::ffi::CStr) -> Self {
        require_root();
        let directory = TempDir::new().unwrap();
        rustix::mount::mount(
            "tmpfs",
            directory.path(),
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            options,
        )
        .unwrap();
        Self(directory)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn a_full_disk_leaves_nothing_half_done() {
    let disk = Disk::new(c"size=3m");
    let filler = disk.0.path().join("filler");
    fs::write(&filler, vec![0; 1 << 20]).unwrap();
    let path = disk.0.path().join("store");
    let store = open(&path);
    let is_full = |error: &StoreError| {
        matches!(error, StoreError::Io { action: "write", source, .. }
            if source.kind() == io::ErrorKind::StorageFull)
    };

    let mut stored = Vec::new();
    let error = loop {
        let content = large(u8::try_from(stored.len()).unwrap());
        match store.put(&mut &content[..]) {
            Ok((id, _)) => stored.push((id, content)),
            Err(error) => break error,
        }
    };
    assert!(is_full(&error), "{error}");
    let big_ones = stored.len();
    let error = loop {
        let content = vec![stored.len() as u8; 4001];
        match store.put_bytes(&content) {
            Ok(id) => stored.push((id, content)),
            Err(error) => break error,
        }
    };
    assert!(is_full(&error), "{error}");
    assert!(
        big_ones > 3 && stored.len() > big_ones + 3,
        "{big_ones} of {}",
        stored.len()
    );
    let key = Digest::of(b"key");
    let value = Record {
        value: vec![1; 300_000],
        ..Record::default()
    };
    let error = store.put_record("action", &key, &value).expect_err("full");
    assert!(is_full(&error), "{error}");
    assert_eq!(store.record("action", &key).unwrap(), None);

    let check = |store: &LocalStore, stored: &[(BlobId, Vec<u8>)]| {
        for (id, content) in stored {
            assert!(store.read(id).unwrap() == *content);
        }
    };
    check(&store, &stored);
    // What comes after the torn object is found, also by who reads the pack while it is written.
    fs::remove_file(&filler).unwrap();
    let content = b"after the full disk".to_vec();
    stored.push((store.put_bytes(&content).unwrap(), content));
    check(&store, &stored);
    check(&open(&path), &stored);
    // As much as goes.
    let _ = fs::write(&filler, vec![0; 1 << 20]);
    drop(store);
    let store = open(&path);
    check(&store, &stored);
    assert_eq!(files(&path.join("tmp")), [] as [PathBuf; 0]);

    fs::remove_file(&filler).unwrap();
    let report = store.fsck().unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.objects, stored.len() as u64);
    let id = store.put_bytes(b"goes on").unwrap();
    assert_eq!(store.read(&id).unwrap(), b"goes on");
    store.put_record("action", &key, &value).unwrap();
    check(&store, &stored);
}

#[test]
fn garbage_is_collected_on_a_full_disk() {
    let disk = Disk::new(c"size=3m");
    let mut store = open(&disk.0.path().join("store"));
    let kept: Vec<BlobId> = (0..20_u8)
        .map(|number| store.put_bytes(&[number; 9000]).unwrap())
        .collect();
    store.set_root("kept", &record_of(&kept)).unwrap();
    // The kept ones and some garbage in one pack, garbage alone in others.
    let path = store.path().to_owned();
    for round in 0_u32.. {
        let result = (0..150_u32)
            .map(|number| {
                [round.to_le_bytes(), number.to_le_bytes()]
                    .concat()
                    .repeat(400)
            })
            .try_for_each(|content| store.put_bytes(&content).map(drop));
        if result.is_err() {
            break;
        }
        drop(store);
        store = open(&path);
    }
    let report = store.gc(None, NO_WAIT).unwrap();
    assert_eq!(report.objects_kept, 20);
    assert!(report.objects_removed > 500, "{report:?}");
    for id in &kept {
        store.read(id).unwrap();
    }
    for seed in 0..8 {
        store.put_bytes(&large(seed)).unwrap();
    }
    assert!(store.fsck().unwrap().is_clean());
}

/// Starts this test binary again as a writer of the store at `path`.
fn child(path: &Path, first: u32) -> (Child, impl Iterator<Item = String>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::local::tests::child_writes_until_killed"])
        .args(["--nocapture", "--ignored"])
        .env(CHILD, format!("{first}:{}", path.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .filter_map(|line| line.strip_prefix("stored ").map(str::to_owned));
    (child, lines)
}

fn child_content(number: u32) -> Vec<u8> {
    let mut content = number.to_le_bytes().to_vec();
    if number % 7 == 3 {
        content.resize(PACKED_MAX * 2, number as u8);
    }
    content
}

/// Not a test: the process that the others kill.
#[test]
#[ignore = "the process that other tests start and kill"]
fn child_writes_until_killed() {
    let Ok(argument) = std::env::var(CHILD) else {
        return;
    };
    let (first, path) = argument.split_once(':').unwrap();
    let first: u32 = first.parse().unwrap();
    let mut store = open(Path::new(path));
    for number in first.. {
        let id = store.put_bytes(&child_content(number)).unwrap();
        let record = record_of(&[id]);
        store.put_record("action", id.digest(), &record).unwrap();
        // One write: a killed process has reported all of a line or nothing that is taken for one.
        let line = format!("stored {number}\n");
        std::io::stdout().write_all(line.as_bytes()).unwrap();
        let scratch = store.scratch("work").unwrap();
        fs::create_dir_all(scratch.path().join("a/b")).unwrap();
        fs::write(scratch.path().join("a/b/c"), "left over").unwrap();
        match number % 25 {
            9 => drop(store.publish_snapshot(id.digest(), scratch).unwrap()),
            15 => {
                drop(scratch);
                // Others may be at work.
                let _ = store.gc(None, NO_WAIT);
            }
            20 => {
                drop(scratch);
                drop(store);
                store = open(Path::new(path));
            }
            _ => {}
        }
    }
}

#[test]
fn a_kill_at_any_point_loses_nothing_that_was_stored() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store");
    let mut reported = BTreeSet::new();
    for round in 0..20_u32 {
        let (mut child, mut lines) = child(&path, round * 1000);
        // From before the store is made to the middle of collecting, closing and merging.
        for _ in 0..round * 3 {
            reported.insert(lines.next().unwrap());
        }
        std::thread::sleep(Duration::from_micros(u64::from(round) * 317 % 2000));
        child.kill().unwrap();
        child.wait().unwrap();
        reported.extend(lines);

        let store = open(&path);
        for number in &reported {
            let content = child_content(number.parse().unwrap());
            let id = BlobId::new(Digest::of(&content));
            assert!(store.read(&id).unwrap() == content, "{number}");
            let record = store.record("action", id.digest()).unwrap();
            assert_eq!(record, Some(record_of(&[id])), "{number}");
        }
        let report = store.fsck().unwrap();
        assert!(report.is_clean() && report.stale_left == 0, "{report:?}");
        let own = list(&path.join("tmp")).unwrap().len();
        assert!(own <= 1, "{own} directories in tmp");
    }
    assert!(reported.len() > 500, "{}", reported.len());
}

#[test]
fn processes_share_a_store_and_see_each_other_at_once() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store");
    let store = open(&path);
    std::thread::scope(|scope| {
        for first in [0, 0, 100] {
            let (store, path) = (&store, &path);
            scope.spawn(move || {
                let (mut child, mut lines) = child(path, first);
                for number in lines.by_ref().take(120) {
                    let content = child_content(number.parse().unwrap());
                    let id = BlobId::new(Digest::of(&content));
                    assert!(store.read(&id).unwrap() == content, "{number}");
                    let record = store.record("action", id.digest()).unwrap();
                    assert_eq!(record, Some(record_of(&[id])));
                    store.put_bytes(&content).unwrap();
                }
                child.kill().unwrap();
                child.wait().unwrap();
            });
        }
    });
    let report = store.fsck().unwrap();
    assert!(report.is_clean(), "{report:?}");
}

#[test]
fn gc_keeps_what_is_reached_and_removes_the_rest() {
    let (_directory, mut store) = fresh();
    let (kept, [root, inner], content) = put_tree_with(&store, b"content");
    let (by_root, ..) = put_tree_with(&store, b"by a root");
    let (lost, [lost_root, _], lost_content) = put_tree_with(&store, b"lost");
    let log = store.put_bytes(&large(1)).unwrap();
    let garbage = store.put_bytes(&large(2)).unwrap();
    let record = Record {
        value: Vec::new(),
        blobs: vec![log],
        trees: vec![kept],
    };
    let key = Digest::of(b"key");
    store.put_record("action", &key, &record).unwrap();
    let root_record = Record {
        trees: vec![by_root],
        ..Record::default()
    };
    store.set_root("spec.toml", &root_record).unwrap();
    let before = store.stat().unwrap();

    let report = store.gc(None, NO_WAIT).unwrap();
    assert_eq!(report.records_kept, 2);
    assert_eq!(report.objects_removed, 5);
    assert_eq!(report.objects_kept, 9);
    for digest in [
        root.digest(),
        inner.digest(),
        content.digest(),
        kept.digest(),
    ] {
        store.read(&BlobId::new(*digest)).unwrap();
    }
    assert_eq!(store.read(&log).unwrap(), large(1));
    assert_eq!(store.tree(&by_root).unwrap().id(), by_root);
    for digest in [
        lost.digest(),
        lost_root.digest(),
        lost_content.digest(),
        garbage.digest(),
    ] {
        assert!(!store.has(&BlobId::new(*digest)).unwrap());
    }
    assert_eq!(store.record("action", &key).unwrap(), Some(record));
    assert!(store.fsck().unwrap().is_clean());
    let after = store.stat().unwrap();
    assert!(after.bytes() + (large(2).len() as u64) < before.bytes() + 500);
    // The second finds nothing more to do.
    let again = store.gc(None, NO_WAIT).unwrap();
    assert_eq!((again.objects_kept, again.objects_removed), (9, 0));
    assert_eq!(store.stat().unwrap(), after);
}

#[test]
fn gc_drops_what_was_not_used_for_longest() {
    let (_directory, mut store) = fresh();
    let unit = large(0).len() as u64;
    let ids: Vec<BlobId> = (1..=4)
        .map(|seed| store.put_bytes(&large(seed)).unwrap())
        .collect();
    let now = SystemTime::now();
    for (age, id) in ids.iter().enumerate() {
        let key = id.digest();
        store.put_record("action", key, &record_of(&[*id])).unwrap();
        let record = File::open(store.record_path("action", key)).unwrap();
        let age = Duration::from_secs(100 * (age as u64 + 1));
        record.set_modified(now - age).unwrap();
    }
    // Reading it makes the oldest the youngest.
    assert!(store.record("action", ids[3].digest()).unwrap().is_some());
    store.set_root("fixed", &record_of(&[ids[1]])).unwrap();

    let report = store.gc(Some(unit * 5 / 2), NO_WAIT).unwrap();
    assert_eq!((report.records_kept, report.records_dropped), (2, 3));
    assert!(report.bytes_kept <= unit * 5 / 2);
    for (at, is_kept) in [(0, false), (1, true), (2, false), (3, true)] {
        assert_eq!(store.has(&ids[at]).unwrap(), is_kept, "{at}");
    }
    assert!(store.record("action", ids[0].digest()).unwrap().is_none());
    assert!(store.fsck().unwrap().is_clean());
    // Roots stay whatever the cap.
    store.gc(Some(0), NO_WAIT).unwrap();
    assert!(store.has(&ids[1]).unwrap());
    assert!(!store.has(&ids[3]).unwrap());
}

#[test]
fn gc_waits_for_users_and_they_for_it() {
    let (_directory, mut store) = fresh();
    let path = store.path().to_owned();
    let id = store.put_bytes(b"no record reaches this").unwrap();
    let user = open(&path);
    let error = store
        .gc(None, Duration::from_millis(30))
        .expect_err("in use");
    assert!(matches!(error, StoreError::Busy { .. }), "{error}");
    assert!(user.has(&id).unwrap());
    let waiting = std::thread::spawn(move || {
        let report = store.gc(None, Duration::from_secs(60)).unwrap();
        (store, report)
    });
    std::thread::sleep(Duration::from_millis(50));
    assert!(!waiting.is_finished());
    drop(user);
    let (mut store, report) = waiting.join().unwrap();
    assert_eq!(report.objects_removed, 1);
    // It is a user again, and another one is none of its business.
    let mut other = open(&path);
    assert!(matches!(
        store.gc(None, NO_WAIT),
        Err(StoreError::Busy { .. })
    ));
    assert!(matches!(
        other.gc(None, NO_WAIT),
        Err(StoreError::Busy { .. })
    ));
}

#[test]
fn a_scratch_directory_goes_whatever_is_in_it() {
    let (_directory, store) = fresh();
    let scratch = store.scratch("step").unwrap();
    assert_eq!(fs::metadata(scratch.path()).unwrap().mode() & 0o7777, 0o700);
    let name = "n".repeat(200);
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut open = vec![rustix::fs::openat(CWD, scratch.path(), flags, Mode::empty()).unwrap()];
    for _ in 0..300 {
        let at = open.last().unwrap();
        rustix::fs::mkdirat(at, &name, Mode::RWXU).unwrap();
        rustix::fs::symlinkat("/etc", at, "link").unwrap();
        let next = rustix::fs::openat(at, &name, flags, Mode::empty()).unwrap();
        open.push(next);
    }
    for number in 0..500 {
        fs::write(scratch.path().join(number.to_string()), "x").unwrap();
    }
    for (level, directory) in open.iter().enumerate() {
        let mode = if level % 2 == 0 {
            Mode::empty()
        } else {
            Mode::RUSR
        };
        rustix::fs::fchmod(directory, mode).unwrap();
    }
    drop(open);
    let path = scratch.path().to_owned();
    scratch.remove().unwrap();
    assert!(!path.exists());
    let own = path.parent().unwrap().to_owned();
    assert_eq!(list(&own).unwrap(), [] as [PathBuf; 0]);
    // Longer than the store itself.
    let scratch = store.scratch("step").unwrap();
    drop(store);
    assert!(scratch.path().exists());
    drop(scratch);
    assert!(!own.exists());
    assert!(Path::new("/etc/passwd").exists());
}

#[test]
fn a_snapshot_is_published_once_and_only_for_this_boot() {
    let (_directory, mut store) = fresh();
    let key = Digest::of(b"tree and id map");
    let publish = |store: &LocalStore, text: &str| {
        let scratch = store.scratch("snapshot").unwrap();
        fs::write(scratch.path().join("file"), text).unwrap();
        store.publish_snapshot(&key, scratch).unwrap()
    };
    assert_eq!(store.snapshot(&key).unwrap(), None);
    let path = publish(&store, "first");
    assert_eq!(store.snapshot(&key).unwrap(), Some(path.clone()));
    assert_eq!(publish(&store, "second"), path);
    assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "first");
    assert_eq!(store.stat().unwrap().snapshots.count, 1);

    fs::write(path.with_file_name("boot"), "another run\n").unwrap();
    assert_eq!(store.snapshot(&key).unwrap(), None);
    assert_eq!(publish(&store, "third"), path);
    assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "third");
    assert_eq!(store.snapshot(&key).unwrap(), Some(path.clone()));

    assert_eq!(store.gc(None, NO_WAIT).unwrap().snapshots_kept, 1);
    assert_eq!(store.snapshot(&key).unwrap(), Some(path.clone()));
    assert_eq!(store.gc(Some(0), NO_WAIT).unwrap().snapshots_removed, 1);
    assert_eq!(store.snapshot(&key).unwrap(), None);
    assert!(!path.exists());
}

#[test]
fn what_a_dead_process_left_goes_and_what_a_living_one_has_stays() {
    let (_directory, store) = fresh();
    let path = store.path().to_owned();
    let scratch = store.scratch("mine").unwrap();
    let stale = path.join("tmp/1-0/step-0/upper/a");
    fs::create_dir_all(&stale).unwrap();
    fs::write(stale.join("file"), "x").unwrap();
    let other = open(&path);
    assert_eq!(other.remove_stale().unwrap(), (1, 0));
    assert!(!path.join("tmp/1-0").exists());
    assert!(scratch.path().exists());
}
