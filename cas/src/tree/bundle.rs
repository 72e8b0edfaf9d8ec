//! A tree with all it reaches as one file, to carry it from one store to another.
//!
//! ```text
//! immbuild-bundle 1\n
//! for each object, by rising digest:  u64 big-endian: its length · its bytes
//! ```
//!
//! An object is a blob, a directory or the tree itself, each once; its digest is that of its bytes, so none is written. One
//! tree has one bundle.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use super::{Entry, Tree};
use crate::canonical::Canonical as _;
use crate::digest::{BlobId, Digest, DirectoryId, TreeId};
use crate::store::{DirectorySource, Store, StoreError, read_error};

const MAGIC: &[u8] = b"immbuild-bundle 1\n";

/// Why a bundle cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// It does not begin as one does.
    #[error("it is no bundle of this form")]
    Form,
    /// It ends within an object.
    #[error("it is cut short")]
    Cut,
    /// Objects are not in the order of their digests, or one is there twice.
    #[error("its objects are not in order")]
    Order,
    /// It has more than the tree that it is for reaches, or other things.
    #[error("{0} is not of the tree")]
    Stranger(Digest),
    /// It lacks something that the tree reaches.
    #[error("it lacks {0}")]
    Lacks(Digest),
    /// It cannot be read or written.
    #[error("cannot read or write it")]
    Io(#[from] io::Error),
    /// The store it goes to or comes from refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Every object that a tree reaches, itself included, with its length in bytes.
///
/// # Errors
/// A directory is not in `source`.
pub fn objects(
    source: &dyn DirectorySource,
    tree: &Tree,
) -> Result<BTreeMap<Digest, u64>, StoreError> {
    let mut found = BTreeMap::new();
    found.insert(*tree.id().digest(), tree.to_canonical().len() as u64);
    let mut entered: BTreeSet<DirectoryId> = BTreeSet::new();
    let mut waiting = vec![tree.root];
    while let Some(id) = waiting.pop() {
        if !entered.insert(id) {
            continue;
        }
        let directory = source.directory(&id)?;
        found.insert(*id.digest(), directory.to_canonical().len() as u64);
        for (_, entry) in directory.entries() {
            match entry {
                Entry::Directory(id) => waiting.push(*id),
                Entry::File(file) => {
                    found.insert(*file.blob.digest(), file.size);
                }
                Entry::Symlink(_) | Entry::Special(_) => {}
            }
        }
    }
    Ok(found)
}

/// Writes the bundle of a tree.
///
/// # Errors
/// Something that the tree reaches is not in `store`, or `out` fails.
pub fn write(store: &dyn Store, tree: &Tree, out: &mut dyn Write) -> Result<(), BundleError> {
    out.write_all(MAGIC)?;
    for (digest, size) in objects(store, tree)? {
        out.write_all(&size.to_be_bytes())?;
        if digest == *tree.id().digest() {
            out.write_all(&tree.to_canonical())?;
            continue;
        }
        let mut blob = store.open(&BlobId::new(digest))?;
        io::copy(&mut blob, out).map_err(|error| read_error(&digest, error))?;
    }
    Ok(())
}

/// Brings a bundle of this tree into `store`. What it has is checked: nothing else than the tree, and all of it.
///
/// # Errors
/// It is not the bundle of `tree`; some of its objects may then be in the store, where nothing speaks of them.
pub fn read(input: &mut dyn Read, tree: &TreeId, store: &dyn Store) -> Result<Tree, BundleError> {
    let mut magic = [0; MAGIC.len()];
    exactly(input, &mut magic)?;
    if magic != MAGIC {
        return Err(BundleError::Form);
    }
    let mut had = BTreeSet::new();
    loop {
        let mut length = [0; 8];
        // Nothing is read at the end, and all of it else.
        let first = input.read(&mut length)?;
        if first == 0 {
            break;
        }
        exactly(input, &mut length[first..])?;
        let length = u64::from_be_bytes(length);
        let (id, size) = store.put(&mut input.take(length))?;
        if size != length {
            return Err(BundleError::Cut);
        }
        if had.last().is_some_and(|last| last >= id.digest()) {
            return Err(BundleError::Order);
        }
        had.insert(*id.digest());
    }
    if !had.contains(tree.digest()) {
        return Err(BundleError::Lacks(*tree.digest()));
    }
    let tree = store.tree(tree)?;
    let wanted = objects(store, &tree).map_err(|error| match error {
        StoreError::Missing(digest) => BundleError::Lacks(digest),
        error => error.into(),
    })?;
    if let Some(lacks) = wanted.keys().find(|digest| !had.contains(digest)) {
        return Err(BundleError::Lacks(*lacks));
    }
    if let Some(stranger) = had.iter().find(|digest| !wanted.contains_key(digest)) {
        return Err(BundleError::Stranger(*stranger));
    }
    Ok(tree)
}

fn exactly(input: &mut dyn Read, buffer: &mut [u8]) -> Result<(), BundleError> {
    input
        .read_exact(buffer)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => BundleError::Cut,
            _ => error.into(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{BlobSource as _, MemoryStore};
    use crate::tree::tree_of_listing;

    fn filled() -> (MemoryStore, Tree) {
        let store = MemoryStore::default();
        let listing =
            "f 0644 0:0 /a \"one\\n\"\nf 0600 1:2 /b/c \"two\\n\"\nf 0644 0:0 /b/d \"one\\n\"\n";
        let tree = tree_of_listing(listing, &store).expect("a tree");
        store.put_tree(&tree).expect("kept");
        (store, tree)
    }

    fn bundled() -> (Vec<u8>, Tree) {
        let (store, tree) = filled();
        let mut bundle = Vec::new();
        write(&store, &tree, &mut bundle).expect("written");
        (bundle, tree)
    }

    #[test]
    fn a_tree_arrives_whole_in_an_empty_store() {
        let (bundle, tree) = bundled();
        let store = MemoryStore::default();
        let arrived = read(&mut bundle.as_slice(), &tree.id(), &store).expect("read");
        assert_eq!(arrived, tree);
        assert_eq!(
            store
                .read(&BlobId::new(Digest::of(b"two\n")))
                .expect("there"),
            b"two\n"
        );
        // Two blobs, two directories and the tree, each once.
        assert_eq!(objects(&store, &tree).expect("all").len(), 5);
        let mut again = Vec::new();
        write(&store, &tree, &mut again).expect("written");
        assert_eq!(again, bundle);
    }

    #[test]
    fn nothing_that_is_cut_anywhere_is_taken_for_whole() {
        let (bundle, tree) = bundled();
        for length in 0..bundle.len() {
            let store = MemoryStore::default();
            let read = read(&mut &bundle[..length], &tree.id(), &store);
            assert!(
                matches!(read, Err(BundleError::Cut | BundleError::Lacks(_))),
                "{length}: {read:?}"
            );
        }
    }

    #[test]
    fn no_changed_byte_is_taken_for_the_tree() {
        let (bundle, tree) = bundled();
        for at in 0..bundle.len() {
            let mut changed = bundle.clone();
            changed[at] ^= 1;
            let store = MemoryStore::default();
            assert!(
                read(&mut changed.as_slice(), &tree.id(), &store).is_err(),
                "{at}"
            );
        }
    }

    #[test]
    fn what_is_not_of_the_tree_is_refused() {
        let (bundle, tree) = bundled();
        // The digest of this text is above all others.
        let text = (0_u32..100_000)
            .map(|number| number.to_string())
            .find(|text| Digest::of(text.as_bytes()).to_hex().starts_with("fff"))
            .expect("there is one");
        let mut more = bundle;
        more.extend((text.len() as u64).to_be_bytes());
        more.extend(text.as_bytes());
        let read = read(&mut more.as_slice(), &tree.id(), &MemoryStore::default());
        assert!(matches!(read, Err(BundleError::Stranger(_))), "{read:?}");
    }
}
