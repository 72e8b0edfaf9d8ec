//! Ends long reading and writing when the process is asked to stop.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use immbuild_cas::digest::{BlobId, DirectoryId};
use immbuild_cas::store::{BlobSource, DirectorySink, StoreError};
use immbuild_cas::tree::Directory;

/// Gives blobs and takes directories until the process is asked to stop; from then on everything fails.
#[derive(Clone, Copy, Debug)]
pub struct Until<'a, T: ?Sized> {
    inner: &'a T,
    stop: &'a AtomicBool,
}

impl<'a, T: ?Sized> Until<'a, T> {
    /// Passes on to `inner` while `stop` is not set.
    pub fn new(inner: &'a T, stop: &'a AtomicBool) -> Self {
        Self { inner, stop }
    }

    fn check(&self) -> Result<(), StoreError> {
        check(self.stop).map_err(|source| StoreError::Io {
            action: "go on with",
            path: "the build".into(),
            source,
        })
    }
}

fn check(stop: &AtomicBool) -> io::Result<()> {
    if stop.load(Ordering::Relaxed) {
        // Not of the kind `Interrupted`, which readers and writers are expected to try again after.
        return Err(io::Error::other("interrupted"));
    }
    Ok(())
}

impl<'a, T: BlobSource + ?Sized> Until<'a, T> {
    /// Opens a blob, for as long as what it is in lives.
    pub fn reader(&self, id: &BlobId) -> Result<Box<dyn Read + Send + 'a>, StoreError> {
        self.check()?;
        Ok(Box::new(Reader {
            inner: self.inner.open(id)?,
            stop: self.stop,
        }))
    }
}

impl<T: BlobSource + ?Sized> BlobSource for Until<'_, T> {
    fn open(&self, id: &BlobId) -> Result<Box<dyn Read + Send + '_>, StoreError> {
        self.reader(id)
    }
}

impl<T: DirectorySink + ?Sized> DirectorySink for Until<'_, T> {
    fn put_directory(&self, directory: &Directory) -> Result<DirectoryId, StoreError> {
        self.check()?;
        self.inner.put_directory(directory)
    }
}

struct Reader<'a> {
    inner: Box<dyn Read + Send + 'a>,
    stop: &'a AtomicBool,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        check(self.stop)?;
        self.inner.read(buffer)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use immbuild_cas::store::{MemoryStore, Store as _};
    use immbuild_cas::tree::{Meta, Mode};

    #[test]
    fn nothing_is_given_or_taken_once_it_is_asked_to_stop() {
        let store = MemoryStore::new();
        let id = store.put_bytes(b"content").unwrap();
        let stop = AtomicBool::new(false);
        let until = Until::new(&store, &stop);
        assert_eq!(until.read(&id).unwrap(), b"content");
        let mut begun = until.open(&id).unwrap();
        begun.read_exact(&mut [0; 3]).unwrap();
        let directory = Directory::new(Meta::root(Mode::DIRECTORY));
        until.put_directory(&directory).unwrap();

        stop.store(true, Ordering::Relaxed);
        assert!(begun.read_to_end(&mut Vec::new()).is_err());
        assert!(matches!(until.read(&id), Err(StoreError::Io { .. })));
        assert!(until.put_directory(&directory).is_err());
    }
}
