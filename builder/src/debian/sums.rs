//! MD5 sums, which dpkg's database is made of. The only home of `md5`. They check nothing here: what is installed is known
//! by better digests.

use std::fmt::Write as _;
use std::io;

use immbuild_cas::digest::BlobId;
use immbuild_cas::path::RelPath;
use immbuild_cas::store::{BlobSource, Store, StoreError, read_error};
use immbuild_cas::tree::{Entry, entry_at};
use md5::{Digest as _, Md5};

use super::install::InstallError;
use super::package::Package;

/// The sum of a blob, in hex.
///
/// # Errors
/// The store failed.
pub(super) fn of_blob(blob: &BlobId, blobs: &dyn BlobSource) -> Result<String, StoreError> {
    struct Sink(Md5);
    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut sink = Sink(Md5::new());
    io::copy(&mut *blobs.open(blob)?, &mut sink)
        .map_err(|error| read_error(blob.digest(), error))?;
    let mut hex = String::new();
    for byte in sink.0.finalize() {
        write!(hex, "{byte:02x}").expect("a string takes everything");
    }
    Ok(hex)
}

/// The sum of one file of a package; nothing when it has no such file.
///
/// # Errors
/// The store failed.
pub(super) fn of_file(
    package: &Package,
    path: &RelPath,
    store: &dyn Store,
) -> Result<Option<String>, InstallError> {
    match entry_at(store, &package.data, path)? {
        Some(Entry::File(file)) => Ok(Some(of_blob(&file.blob, store)?)),
        _ => Ok(None),
    }
}

/// The sums of all files of a package that are no conffiles, as dpkg writes them for a package that brings none.
///
/// # Errors
/// The store failed.
pub(super) fn of_files(package: &Package, store: &dyn Store) -> Result<String, InstallError> {
    let conffiles = package.conffiles(store)?;
    let mut out = String::new();
    for path in package.list.iter().filter(|path| !conffiles.contains(path)) {
        if let Some(sum) = of_file(package, path, store)? {
            let path = String::from_utf8_lossy(path.as_bytes());
            writeln!(out, "{sum}  {path}").expect("a string takes everything");
        }
    }
    Ok(out)
}
