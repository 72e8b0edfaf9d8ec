//! A `.crate` as a tree: a directory as `cargo vendor` makes it, with the checksums that cargo checks.
//!
//! A crate is hostile until it is proven harmless: besides what every archive is refused for, one that holds links or
//! devices, or anything outside its own directory.

use immbuild_cas::canonical::Encoder;
use immbuild_cas::digest::{BlobId, Digest};
use immbuild_cas::path::RelPath;
use immbuild_cas::store::{Record, Store, StoreError};
use immbuild_cas::tree::{Entry, Meta, Mode, Tree, TreeBuilder, TreeError, Visit, walk};

use crate::graph::apply::{FileOpError, Root};
use crate::resolve::unpack::{Limits, Options, UnpackError, unpack};

/// Version of the decoded form. Another form is another memo.
const FORM: u32 = 1;
/// Name of the memo from a crate to its decoded form.
const KIND: &str = "crate";
/// The file with the checksums of a crate's files.
pub const CHECKSUMS: &str = ".cargo-checksum.json";
/// Names of files that cargo leaves out.
const LEFT_OUT: [&[u8]; 4] = [b".gitattributes", b".gitignore", b".git", b".cargo-ok"];

/// How much may come out of a crate: a registry takes 10 MB, some take more.
const LIMITS: Limits = Limits {
    bytes: 8 << 30,
    entries: 1 << 20,
    ratio: 200,
    free: 64 << 20,
};

/// Why a crate is refused.
#[derive(Debug, thiserror::Error)]
pub enum CrateError {
    /// It is something else.
    #[error("it is no crate: {0}")]
    NotACrate(String),
    /// It is no archive, or a hostile one.
    #[error("it cannot be unpacked")]
    Unpack(#[source] UnpackError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tree refused.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The tree refused.
    #[error(transparent)]
    Root(#[from] FileOpError),
}

/// The vendored form of a crate that is in the store. What was decoded once is found by the crate's digest.
///
/// # Errors
/// It is not in the store, or is refused.
pub fn decode(
    package: &BlobId,
    name: &str,
    version: &str,
    store: &dyn Store,
) -> Result<Tree, CrateError> {
    let directory = format!("{name}-{version}");
    let key = memo(package, &directory);
    if let Some(record) = store.record(KIND, &key)?
        && let Some(tree) = record.trees.first()
        && let Ok(tree) = store.tree(tree)
    {
        return Ok(tree);
    }
    let unpacked = {
        let mut source = store.open(package)?;
        unpack(&mut source, Options::default(), &LIMITS, store).map_err(|error| match error {
            UnpackError::Store(error) => CrateError::Store(error),
            error => CrateError::Unpack(error),
        })?
    };
    let tree = vendored(package, &directory, &unpacked.tree, store)?;
    let record = Record {
        value: Vec::new(),
        blobs: Vec::new(),
        trees: vec![store.put_tree(&tree)?],
    };
    store.put_record(KIND, &key, &record)?;
    Ok(tree)
}

/// Is the decoded form of this crate at hand?
///
/// # Errors
/// The store failed.
pub fn is_decoded(
    package: &BlobId,
    name: &str,
    version: &str,
    store: &dyn Store,
) -> Result<bool, StoreError> {
    let record = store.record(KIND, &memo(package, &format!("{name}-{version}")))?;
    let tree = record.and_then(|record| record.trees.first().copied());
    Ok(tree.is_some_and(|tree| store.tree(&tree).is_ok()))
}

/// What a crate is called is part of what makes it good.
fn memo(package: &BlobId, directory: &str) -> Digest {
    let mut out = Encoder::default();
    out.str(KIND);
    out.u32(FORM);
    out.digest(package.digest());
    out.str(directory);
    Digest::of(&out.into_bytes())
}

fn vendored(
    package: &BlobId,
    directory: &str,
    unpacked: &Tree,
    store: &dyn Store,
) -> Result<Tree, CrateError> {
    let top = store.directory(&unpacked.root)?;
    let mut entries = top.entries();
    let (first, second) = (entries.next(), entries.next());
    let root = match (first, second) {
        (Some((name, Entry::Directory(id))), None) if name.as_bytes() == directory.as_bytes() => {
            *id
        }
        _ => {
            let reason = format!("it holds something else than the directory `{directory}`");
            return Err(CrateError::NotACrate(reason));
        }
    };
    // Made anew from its files, as cargo does: what held nothing else than what is left out is not there.
    let mut kept = Root {
        verb: "vendor",
        builder: TreeBuilder::new(store, Meta::root(Mode::DIRECTORY)),
    };
    let mut files = serde_json::Map::new();
    let checksums = RelPath::new(CHECKSUMS.as_bytes()).expect("a constant is a path");
    walk(
        store,
        &Tree::new(root),
        &mut |path: &RelPath, visit: Visit<'_>| {
            let file = match visit {
                Visit::Directory(_) => return Ok(()),
                Visit::File(file) => file,
                Visit::Symlink(_) | Visit::Special(_) => {
                    return Err(CrateError::NotACrate(format!(
                        "`{path}` is a link or a device, which no crate has"
                    )));
                }
            };
            if LEFT_OUT.contains(&path.file_name()) || *path == checksums {
                return Ok(());
            }
            let name = std::str::from_utf8(path.as_bytes())
                .map_err(|_| CrateError::NotACrate(format!("the name `{path}` is no UTF-8")))?;
            files.insert(name.to_owned(), file.blob.digest().to_hex().into());
            let place = kept.place(path)?;
            Ok(kept.put(&place, Entry::File(file.clone()))?)
        },
    )?;
    if !files.contains_key("Cargo.toml") {
        return Err(CrateError::NotACrate("it has no `Cargo.toml`".into()));
    }
    let text = serde_json::json!({ "files": files, "package": package.digest().to_hex() });
    kept.put_file(
        &checksums,
        text.to_string().as_bytes(),
        Meta::root(Mode::FILE),
        store,
    )?;
    Ok(kept.builder.seal(store)?)
}
