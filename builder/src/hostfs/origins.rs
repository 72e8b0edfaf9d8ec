//! Where content of this machine was found, so that it can be read again without having been copied.
//!
//! Every reading is checked against the digest: a file that changed since is an error, never other bytes.

use std::fmt;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use immbuild_cas::digest::{BlobId, MismatchError, VerifiedReader};
use immbuild_cas::path::RelPath;
use immbuild_cas::store::{BlobSource, StoreError};

use super::{shown, walk};

/// Which blob is in which file. A [`BlobSource`] of just these.
#[derive(Debug, Default)]
pub struct Origins(Vec<Origin>);

/// The directory that files were found below.
#[derive(Debug)]
pub(super) struct Root {
    /// As the user knows it.
    pub(super) path: PathBuf,
    pub(super) handle: OwnedFd,
}

/// One file.
pub(super) struct Origin {
    pub(super) blob: BlobId,
    pub(super) root: Arc<Root>,
    pub(super) path: RelPath,
    /// The content of a small file, as it was hashed.
    pub(super) content: Option<Box<[u8]>>,
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.blob, self.shown())
    }
}

impl Origin {
    fn shown(&self) -> String {
        shown(&self.root.path, &self.path)
    }
}

impl Origins {
    /// Sorts these files. Of several with one content the first path stays.
    pub(super) fn new(mut files: Vec<Origin>) -> Self {
        files.sort_unstable_by(|a, b| (a.blob, &a.path).cmp(&(b.blob, &b.path)));
        files.dedup_by_key(|origin| origin.blob);
        Self(files)
    }

    /// The files of all of these.
    pub fn merge(all: impl IntoIterator<Item = Self>) -> Self {
        Self::new(all.into_iter().flat_map(|origins| origins.0).collect())
    }

    /// How many blobs it can give.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Has it none?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn get(&self, id: &BlobId) -> Option<&Origin> {
        let at = self.0.binary_search_by_key(id, |origin| origin.blob).ok()?;
        Some(&self.0[at])
    }
}

impl BlobSource for Origins {
    fn open(&self, id: &BlobId) -> Result<Box<dyn Read + Send + '_>, StoreError> {
        let origin = self.get(id).ok_or(StoreError::Missing(*id.digest()))?;
        if let Some(content) = &origin.content {
            return Ok(Box::new(Cursor::new(&**content)));
        }
        match walk::open_file(&origin.root.handle, origin.path.as_bytes()) {
            Ok(file) => Ok(Box::new(OriginReader {
                inner: VerifiedReader::new(File::from(file), *id.digest()),
                origin,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StoreError::Changed {
                path: origin.shown(),
            }),
            Err(source) => Err(StoreError::Io {
                action: "open",
                path: origin.shown(),
                source,
            }),
        }
    }
}

/// Says which file it was when its content is no longer what it was.
struct OriginReader<'a> {
    inner: VerifiedReader<File>,
    origin: &'a Origin,
}

impl Read for OriginReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|error| {
            let path = self.origin.shown();
            let changed = matches!(error.get_ref(), Some(inner) if inner.is::<MismatchError>());
            io::Error::other(if changed {
                StoreError::Changed { path }
            } else {
                StoreError::Io {
                    action: "read",
                    path,
                    source: error,
                }
            })
        })
    }
}

/// Two sources as one: what `first` cannot open is sought in `then`.
#[derive(Clone, Copy)]
pub struct Chain<'a> {
    /// Asked first.
    pub first: &'a dyn BlobSource,
    /// Asked for what `first` does not have, or no longer has.
    pub then: &'a dyn BlobSource,
}

impl fmt::Debug for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").finish_non_exhaustive()
    }
}

impl BlobSource for Chain<'_> {
    fn open(&self, id: &BlobId) -> Result<Box<dyn Read + Send + '_>, StoreError> {
        match self.first.open(id) {
            Err(StoreError::Missing(_)) => self.then.open(id),
            // Also content that was found elsewhere and is gone there; what is said is then what is wrong there.
            Err(error @ StoreError::Changed { .. }) => self.then.open(id).map_err(|_| error),
            opened => opened,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use immbuild_cas::digest::Digest;
    use immbuild_cas::store::{MemoryStore, Store as _};
    use std::fs;

    fn origins(directory: &std::path::Path, name: &str, content: &[u8]) -> Origins {
        Origins::new(vec![Origin {
            blob: BlobId::new(Digest::of(content)),
            root: Arc::new(Root {
                path: directory.to_path_buf(),
                handle: walk::open_root(directory).unwrap(),
            }),
            path: RelPath::new(name.as_bytes()).unwrap(),
            content: None,
        }])
    }

    #[test]
    fn a_chain_gives_what_either_has() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("here"), "here").unwrap();
        let here = origins(directory.path(), "here", b"here");
        let gone = origins(directory.path(), "gone", b"gone");
        let origins = Origins::merge([here, gone]);
        assert_eq!(origins.len(), 2);
        let store = MemoryStore::new();
        let stored = store.put_bytes(b"stored").unwrap();
        let chain = Chain {
            first: &origins,
            then: &store,
        };
        let id = |text: &str| BlobId::new(Digest::of(text.as_bytes()));
        assert_eq!(chain.read(&id("here")).unwrap(), b"here");
        assert_eq!(chain.read(&stored).unwrap(), b"stored");
        assert!(matches!(
            chain.read(&id("gone")),
            Err(StoreError::Changed { .. })
        ));
        store.put_bytes(b"gone").unwrap();
        assert_eq!(chain.read(&id("gone")).unwrap(), b"gone");
        assert!(matches!(
            chain.read(&id("nowhere")),
            Err(StoreError::Missing(_))
        ));
    }
}
