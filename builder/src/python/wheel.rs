//! A wheel as a tree: what is in it, checked against its own record (binary distribution format).
//!
//! A wheel is hostile until it is proven harmless: names that leave it, links, devices, entries twice, bombs, files that the
//! record does not have or has otherwise are refused. Nothing is written outside the store.
//!
//! Must never know which wheel is wanted, or where one came from.

use std::collections::BTreeMap;
use std::io::{Cursor, Read as _};

use immbuild_cas::canonical::Encoder;
use immbuild_cas::digest::{BlobId, Digest};
use immbuild_cas::path::RelPath;
use immbuild_cas::store::{BlobSource, DirectorySource, Record, Store, StoreError};
use immbuild_cas::tree::{File, Tree, TreeError, Visit, walk};

use super::name::WheelName;
use super::record;
use super::version;
use crate::resolve::unpack::{Limits, Options, UnpackError, unpack};

/// Version of the decoded form. Another form is another memo.
const FORM: u32 = 1;
/// Name of the memo from a wheel to its decoded form.
const KIND: &str = "wheel";
/// No file that describes a wheel is longer.
const TEXT_MAX: u64 = 64 << 20;

/// How much may come out of a wheel: the largest have 5 GiB.
const LIMITS: Limits = Limits {
    bytes: 16 << 30,
    entries: 1 << 20,
    ratio: 100,
    free: 64 << 20,
};

/// Why a wheel is refused.
#[derive(Debug, thiserror::Error)]
pub enum WheelError {
    /// It is something else.
    #[error("it is no wheel: {0}")]
    NotAWheel(String),
    /// What it says about itself and what it is differ.
    #[error("its `RECORD` and its files differ: `{path}` {reason}")]
    Record {
        /// The file.
        path: String,
        /// How.
        reason: &'static str,
    },
    /// It is another than it was locked as.
    #[error("it says that it is `{0}`")]
    Other(String),
    /// It is no archive, or a hostile one.
    #[error("it cannot be unpacked")]
    Unpack(#[source] UnpackError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tree refused.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// The files of a wheel, by path.
pub type Files = BTreeMap<String, File>;

/// What a wheel says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The directory that describes it, `flask-3.0.0.dist-info`.
    pub dist_info: String,
    /// Its name, as its metadata have it.
    pub name: String,
    /// Its version, as its metadata have it.
    pub version: String,
    /// The interpreters it is for, where its metadata say so.
    pub requires_python: Option<String>,
}

/// The decoded form of a wheel that is in the store: its files as they are in it. What was decoded once is found by the
/// wheel's digest.
///
/// # Errors
/// It is not in the store, or is refused.
pub fn decode(wheel: &BlobId, store: &dyn Store) -> Result<Tree, WheelError> {
    let key = memo(wheel);
    if let Some(record) = store.record(KIND, &key)?
        && let Some(tree) = record.trees.first()
        && let Ok(tree) = store.tree(tree)
    {
        return Ok(tree);
    }
    let mut source = store.open(wheel)?;
    let mut start = Vec::new();
    (&mut source)
        .take(4)
        .read_to_end(&mut start)
        .map_err(|error| WheelError::Unpack(UnpackError::Read(error)))?;
    if start != b"PK\x03\x04" {
        return Err(WheelError::NotAWheel("it does not begin as a zip".into()));
    }
    let mut whole = Cursor::new(start).chain(source);
    let unpacked =
        unpack(&mut whole, Options::default(), &LIMITS, store).map_err(|error| match error {
            UnpackError::Store(error) => WheelError::Store(error),
            error => WheelError::Unpack(error),
        })?;
    check(&unpacked.tree, store)?;
    let record = Record {
        value: Vec::new(),
        blobs: Vec::new(),
        trees: vec![store.put_tree(&unpacked.tree)?],
    };
    store.put_record(KIND, &key, &record)?;
    Ok(unpacked.tree)
}

/// Is the decoded form of this wheel at hand?
///
/// # Errors
/// The store failed.
pub fn is_decoded(wheel: &BlobId, store: &dyn Store) -> Result<bool, StoreError> {
    let record = store.record(KIND, &memo(wheel))?;
    let tree = record.and_then(|record| record.trees.first().copied());
    Ok(tree.is_some_and(|tree| store.tree(&tree).is_ok()))
}

fn memo(wheel: &BlobId) -> Digest {
    let mut out = Encoder::default();
    out.str(KIND);
    out.u32(FORM);
    out.digest(wheel.digest());
    Digest::of(&out.into_bytes())
}

/// The files of a decoded wheel.
///
/// # Errors
/// It holds something else than files and directories.
pub fn files(tree: &Tree, source: &dyn DirectorySource) -> Result<Files, WheelError> {
    let mut files = Files::new();
    walk(source, tree, &mut |path: &RelPath, visit: Visit<'_>| {
        let text = || {
            std::str::from_utf8(path.as_bytes())
                .map(str::to_owned)
                .map_err(|_| WheelError::NotAWheel(format!("the name `{path}` is no UTF-8")))
        };
        match visit {
            Visit::Directory(_) => Ok(()),
            Visit::File(file) => {
                files.insert(text()?, file.clone());
                Ok(())
            }
            Visit::Symlink(_) | Visit::Special(_) => Err(WheelError::NotAWheel(format!(
                "`{path}` is a link or a device, which no wheel has"
            ))),
        }
    })?;
    Ok(files)
}

/// What a decoded wheel says about itself.
///
/// # Errors
/// It does not say it as a wheel does.
pub fn describe(files: &Files, blobs: &dyn BlobSource) -> Result<Description, WheelError> {
    let bad = |reason: String| WheelError::NotAWheel(reason);
    let mut found: Vec<&str> = files
        .keys()
        .filter_map(|path| path.split_once('/'))
        .map(|(top, _)| top)
        .filter(|top| top.ends_with(".dist-info"))
        .collect();
    found.dedup();
    let dist_info = match found.as_slice() {
        [one] => *one,
        [] => return Err(bad("it has no directory `….dist-info`".into())),
        _ => return Err(bad("it has more than one directory `….dist-info`".into())),
    };
    let text = |name: &str| -> Result<String, WheelError> {
        let path = format!("{dist_info}/{name}");
        let file = files
            .get(&path)
            .ok_or_else(|| bad(format!("it has no `{path}`")))?;
        let bytes = read(file, &path, blobs)?;
        String::from_utf8(bytes).map_err(|_| bad(format!("`{path}` is no UTF-8")))
    };
    let wheel = text("WHEEL")?;
    match field(&wheel, "Wheel-Version") {
        Some(version) if version == "1" || version.starts_with("1.") => {}
        Some(version) => {
            let version = version.escape_debug();
            return Err(bad(format!(
                "version `{version}` of the format is not known"
            )));
        }
        None => return Err(bad("its `WHEEL` does not say its version".into())),
    }
    let metadata = text("METADATA")?;
    let said = |key: &str| {
        field(&metadata, key)
            .map(str::to_owned)
            .ok_or_else(|| bad(format!("its `METADATA` does not say `{key}`")))
    };
    let description = Description {
        dist_info: dist_info.to_owned(),
        name: said("Name")?,
        version: said("Version")?,
        requires_python: field(&metadata, "Requires-Python").map(str::to_owned),
    };
    // The directory is named as the wheel is: who reads only one of the two would see another package.
    let stem = dist_info.trim_end_matches(".dist-info");
    let named = WheelName::parse(&format!("{stem}-py3-none-any.whl"));
    let own = super::name::normalised(&description.name);
    let fits = named
        .zip(own)
        .is_some_and(|(named, own)| named.is_of(&own, &description.version));
    if !fits {
        return Err(bad(format!(
            "`{dist_info}` describes `{}` {}",
            description.name.escape_debug(),
            description.version.escape_debug()
        )));
    }
    Ok(description)
}

impl Description {
    /// Complains when it is another package than this one.
    ///
    /// # Errors
    /// It is.
    pub fn check(&self, name: &str, version: &str) -> Result<(), WheelError> {
        let own = super::name::normalised(&self.name);
        if own.as_deref() == Some(name) && version::is_same(&self.version, version) {
            return Ok(());
        }
        let said = format!("{} {}", self.name, self.version);
        Err(WheelError::Other(said.escape_debug().to_string()))
    }
}

/// The content of a file that describes a wheel.
///
/// # Errors
/// It is too long, or the store failed.
pub fn read(file: &File, path: &str, blobs: &dyn BlobSource) -> Result<Vec<u8>, WheelError> {
    if file.size > TEXT_MAX {
        return Err(WheelError::NotAWheel(format!("`{path}` is too long")));
    }
    Ok(blobs.read(&file.blob)?)
}

/// A field of a text of the form of mail headers, which end at the first empty line.
fn field<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    text.lines()
        .take_while(|line| !line.trim_end().is_empty())
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case(key))
        .map(|(_, value)| value.trim())
}

/// Signatures of the record, which it cannot hold itself.
fn is_unrecorded(path: &str, dist_info: &str) -> bool {
    let name = path
        .strip_prefix(dist_info)
        .and_then(|rest| rest.strip_prefix('/'));
    matches!(name, Some("RECORD" | "RECORD.jws" | "RECORD.p7s"))
}

/// Every file is in the record with its digest, and everything in the record is a file.
fn check(tree: &Tree, store: &dyn Store) -> Result<(), WheelError> {
    let files = files(tree, store)?;
    let description = describe(&files, store)?;
    let dist_info = &description.dist_info;
    let path = format!("{dist_info}/RECORD");
    let file = files
        .get(&path)
        .ok_or_else(|| WheelError::NotAWheel(format!("it has no `{path}`")))?;
    let text = read(file, &path, store)?;
    let rows = record::parse(&text)
        .map_err(|cause| WheelError::NotAWheel(format!("its `RECORD` is damaged: {cause}")))?;
    let mut recorded: BTreeMap<&str, &record::Row> = BTreeMap::new();
    let differs = |path: &str, reason: &'static str| WheelError::Record {
        path: path.escape_debug().to_string(),
        reason,
    };
    for row in &rows {
        if recorded.insert(&row.path, row).is_some() {
            return Err(differs(&row.path, "is recorded twice"));
        }
        let Some(file) = files.get(&row.path) else {
            // Some tools record directories, too.
            if row.path.ends_with('/') && row.hash.is_none() {
                continue;
            }
            return Err(differs(&row.path, "is recorded and not there"));
        };
        if is_unrecorded(&row.path, dist_info) {
            continue;
        }
        if row.size.is_some_and(|size| size != file.size) {
            return Err(differs(&row.path, "has another size"));
        }
        // The store names content by the same digest.
        match row.hash.as_deref().and_then(|hash| hash.split_once('=')) {
            Some(("sha256", _)) => {
                let own = record::hash(file.blob.digest());
                if row.hash.as_deref().map(|hash| hash.trim_end_matches('=')) != Some(&*own) {
                    return Err(differs(&row.path, "has other content"));
                }
            }
            _ => return Err(differs(&row.path, "is recorded without a digest of sha256")),
        }
    }
    let missing = files
        .keys()
        .find(|path| !recorded.contains_key(path.as_str()) && !is_unrecorded(path, dist_info));
    match missing {
        Some(path) => Err(differs(path, "is not recorded")),
        None => Ok(()),
    }
}
