//! A tree with all it reaches as one file, to carry it from one store to another.
//!
//! ```text
//! immbuild-bundle 1\n
//! for each object, by rising digest:  u64 big-endian: its length · its bytes
//! ```
//!
//! An object is a blob, a directory or the tree itself, each once; its digest is that of its bytes, so none is written. One
//! tree has one bundle; beyond another tree, which whoever reads it has, it has one too: without what that one reaches.

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
    /// A tree says of an object that it has another length than it has.
    #[error("{0} has another length than its tree says")]
    Length(Digest),
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
/// A directory is not in `source`, or two entries give one file two lengths.
pub fn objects(
    source: &dyn DirectorySource,
    tree: &Tree,
) -> Result<BTreeMap<Digest, u64>, BundleError> {
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
                    let before = found.insert(*file.blob.digest(), file.size);
                    if before.is_some_and(|before| before != file.size) {
                        return Err(BundleError::Length(*file.blob.digest()));
                    }
                }
                Entry::Symlink(_) | Entry::Special(_) => {}
            }
        }
    }
    Ok(found)
}

/// What a tree reaches beyond another, as [`objects`] has it.
///
/// # Errors
/// As for [`objects`].
pub fn beyond(
    source: &dyn DirectorySource,
    tree: &Tree,
    base: Option<&Tree>,
) -> Result<BTreeMap<Digest, u64>, BundleError> {
    let mut found = objects(source, tree)?;
    if let Some(base) = base {
        for known in objects(source, base)?.keys() {
            found.remove(known);
        }
    }
    Ok(found)
}

/// Writes the bundle of a tree, or of what it has beyond another. Gives its length in bytes.
///
/// # Errors
/// Something that the tree reaches is not in `store`, or `out` fails.
pub fn write(
    store: &dyn Store,
    tree: &Tree,
    base: Option<&Tree>,
    out: &mut dyn Write,
) -> Result<u64, BundleError> {
    out.write_all(MAGIC)?;
    let mut length = MAGIC.len() as u64;
    for (digest, size) in beyond(store, tree, base)? {
        out.write_all(&size.to_be_bytes())?;
        length += 8 + size;
        if digest == *tree.id().digest() {
            out.write_all(&tree.to_canonical())?;
            continue;
        }
        let mut blob = store.open(&BlobId::new(digest))?;
        let copied = io::copy(&mut blob, out).map_err(|error| read_error(&digest, error))?;
        if copied != size {
            return Err(BundleError::Length(digest));
        }
    }
    Ok(length)
}

/// Brings a bundle of this tree, or of what it has beyond `base`, into `store`. What it has is checked: nothing else than that,
/// and all of it.
///
/// # Errors
/// It is not that bundle; some of its objects may then be in the store, where nothing speaks of them.
pub fn read(
    input: &mut dyn Read,
    tree: &TreeId,
    base: Option<&Tree>,
    store: &dyn Store,
) -> Result<Tree, BundleError> {
    let mut magic = [0; MAGIC.len()];
    exactly(input, &mut magic)?;
    if magic != MAGIC {
        return Err(BundleError::Form);
    }
    let mut had: BTreeMap<Digest, u64> = BTreeMap::new();
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
        if had
            .last_key_value()
            .is_some_and(|(last, _)| last >= id.digest())
        {
            return Err(BundleError::Order);
        }
        had.insert(*id.digest(), size);
    }
    let known = match base {
        Some(base) => objects(store, base)?,
        None => BTreeMap::new(),
    };
    let here = |digest: &Digest| had.get(digest).or_else(|| known.get(digest));
    if here(tree.digest()).is_none() {
        return Err(BundleError::Lacks(*tree.digest()));
    }
    let lacks = |error| match error {
        BundleError::Store(StoreError::Missing(digest)) => BundleError::Lacks(digest),
        error => error,
    };
    let tree = store.tree(tree)?;
    let wanted = objects(store, &tree).map_err(lacks)?;
    for (digest, size) in &wanted {
        match here(digest) {
            None => return Err(BundleError::Lacks(*digest)),
            Some(actual) if actual != size => return Err(BundleError::Length(*digest)),
            Some(_) => {}
        }
    }
    let stranger = |digest: &&Digest| !wanted.contains_key(digest) || known.contains_key(digest);
    if let Some(stranger) = had.keys().find(stranger) {
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
        write(&store, &tree, None, &mut bundle).expect("written");
        (bundle, tree)
    }

    #[test]
    fn a_tree_arrives_whole_in_an_empty_store() {
        let (bundle, tree) = bundled();
        let store = MemoryStore::default();
        let arrived = read(&mut bundle.as_slice(), &tree.id(), None, &store).expect("read");
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
        write(&store, &tree, None, &mut again).expect("written");
        assert_eq!(again, bundle);
    }

    #[test]
    fn nothing_that_is_cut_anywhere_is_taken_for_whole() {
        let (bundle, tree) = bundled();
        for length in 0..bundle.len() {
            let store = MemoryStore::default();
            let read = read(&mut &bundle[..length], &tree.id(), None, &store);
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
                read(&mut changed.as_slice(), &tree.id(), None, &store).is_err(),
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
        let read = read(
            &mut more.as_slice(),
            &tree.id(),
            None,
            &MemoryStore::default(),
        );
        assert!(matches!(read, Err(BundleError::Stranger(_))), "{read:?}");
    }

    /// Another tree with much of the first.
    fn followed(store: &MemoryStore) -> Tree {
        let listing = "f 0644 0:0 /a \"one\\n\"\nf 0600 1:2 /b/c \"two\\n\"\nf 0644 0:0 /b/d \"one\\n\"\nf 0644 0:0 /e/f \"three\\n\"\n";
        let tree = tree_of_listing(listing, store).expect("a tree");
        store.put_tree(&tree).expect("kept");
        tree
    }

    #[test]
    fn what_the_other_has_does_not_travel() {
        let (store, base) = filled();
        let tree = followed(&store);
        let mut bundle = Vec::new();
        let length = write(&store, &tree, Some(&base), &mut bundle).expect("written");
        assert_eq!(length, bundle.len() as u64);
        // A file, its directory, the root and the tree; not `/b`, nor what is in it.
        assert_eq!(beyond(&store, &tree, Some(&base)).expect("all").len(), 4);

        let (other, _) = filled();
        let arrived = read(&mut bundle.as_slice(), &tree.id(), Some(&base), &other);
        assert_eq!(arrived.expect("read"), tree);
        let nothing = MemoryStore::default();
        let alone = read(&mut bundle.as_slice(), &tree.id(), None, &nothing);
        assert!(matches!(alone, Err(BundleError::Lacks(_))), "{alone:?}");
        // Without the right base not even a store that happens to have everything makes it whole.
        let alone = read(&mut bundle.as_slice(), &tree.id(), None, &store);
        assert!(matches!(alone, Err(BundleError::Lacks(_))), "{alone:?}");
        let mut whole = Vec::new();
        write(&store, &tree, None, &mut whole).expect("written");
        let more = read(&mut whole.as_slice(), &tree.id(), Some(&base), &other);
        assert!(matches!(more, Err(BundleError::Stranger(_))), "{more:?}");
        let mut none = Vec::new();
        write(&store, &tree, Some(&tree), &mut none).expect("written");
        assert_eq!(none, MAGIC);
        let same = read(&mut none.as_slice(), &tree.id(), Some(&tree), &store);
        assert_eq!(same.expect("read"), tree);
    }

    #[test]
    fn no_file_is_longer_than_it_is() {
        use crate::store::DirectorySink as _;
        use crate::tree::{Directory, File, Meta, Mode};

        let store = MemoryStore::default();
        let blob = store.put_bytes(b"four").expect("kept");
        let mut root = Directory::new(Meta::root(Mode::DIRECTORY));
        let file = Entry::File(File {
            blob,
            size: 5,
            meta: Meta::root(Mode::FILE),
        });
        root.insert(crate::path::Name::new(*b"a").expect("a name"), file)
            .expect("inserted");
        let tree = Tree::new(store.put_directory(&root).expect("kept"));
        store.put_tree(&tree).expect("kept");
        let written = write(&store, &tree, None, &mut Vec::new());
        assert!(
            matches!(written, Err(BundleError::Length(_))),
            "{written:?}"
        );
        let mut bundle = MAGIC.to_vec();
        let mut all = vec![b"four".to_vec(), root.to_canonical(), tree.to_canonical()];
        all.sort_by_key(|bytes| Digest::of(bytes));
        for bytes in all {
            bundle.extend((bytes.len() as u64).to_be_bytes());
            bundle.extend(bytes);
        }
        let store = MemoryStore::default();
        let read = read(&mut bundle.as_slice(), &tree.id(), None, &store);
        assert!(matches!(read, Err(BundleError::Length(_))), "{read:?}");
    }
}
