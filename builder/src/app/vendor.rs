//! All locked inputs of a spec in one artifact, and back into a store.

use std::fs;
use std::path::Path;

use immbuild_cas::digest::Digest;
use immbuild_cas::store::LocalStore;

use super::failure::{Exit, Failure};
use super::packages::Archives;
use super::project::{Project, io_failure};
use super::session::Session;
use crate::diag::{Diagnostic, Place};
use crate::lock::model::Pin;
use crate::output::{VendorLayout, Vendored, write_vendor};
use crate::resolve::http;
use crate::spec::model::{Source, SourceKind};

/// What a `.deb` is called.
const MEDIA_PACKAGE: &str = "application/vnd.debian.binary-package";
/// Any other file.
const MEDIA_FILE: &str = "application/octet-stream";

/// What was written or read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VendorReport {
    /// How many files.
    pub files: usize,
    /// How many bytes they have together.
    pub bytes: u64,
    /// Digest of the artifact's manifest, where it was written.
    pub manifest: Option<Digest>,
}

/// `immbuild vendor -o DIR`: fetches what is locked and writes it.
pub fn vendor(
    session: &Session<'_>,
    project: &Project,
    out: &Path,
) -> Result<VendorReport, Failure> {
    super::lock::check(project)?;
    let resolved = project.resolve_defaults()?;
    let lock = project.read_lock()?;
    let mut files = Vec::new();
    for (name, locked) in lock.iter().flat_map(|lock| &lock.sources) {
        let sources: Vec<&Source> = resolved
            .values()
            .filter_map(|spec| spec.sources.get(name))
            .collect();
        let Some(first) = sources.first() else {
            continue;
        };
        let place = Place {
            file: project.file.clone(),
            span: first.span,
        };
        let found = one(session, project, &sources, &locked.pin);
        files.extend(found.map_err(|failure| failure.at(place, name))?);
    }
    files.sort();
    files.dedup_by(|a, b| a.digest == b.digest);
    let manifest = write_vendor(out, &files, &session.store)?;
    Ok(VendorReport {
        files: files.len(),
        bytes: files.iter().map(|file| file.size).sum(),
        manifest: Some(manifest),
    })
}

/// The locked files of one source, in the store.
fn one(
    session: &Session<'_>,
    project: &Project,
    sources: &[&Source],
    pin: &Pin,
) -> Result<Vec<Vendored>, Failure> {
    match pin {
        Pin::Debian(pin) => {
            let Some(SourceKind::Debian(source)) = sources.first().map(|it| &it.kind) else {
                unreachable!("the lock was checked against the spec");
            };
            let archives = Archives::new(session, project, false);
            archives.fetch(source, &pin.releases, &pin.packages, &|_| {})?;
            let files = pin.packages.iter().map(|package| Vendored {
                digest: package.sha256,
                size: package.size,
                title: package.path.rsplit('/').next().unwrap_or_default().into(),
                media_type: MEDIA_PACKAGE.into(),
            });
            Ok(files.collect())
        }
        Pin::Http { files } => {
            let mut vendored = Vec::new();
            // With a pin for each platform, each asks for another URL.
            for file in files.values() {
                let mut last = None;
                for source in sources {
                    let SourceKind::Http(http) = &source.kind else {
                        unreachable!("the lock was checked against the spec");
                    };
                    let request = http::Request {
                        url: &http.url,
                        mirrors: &http.mirrors,
                        expected: Some(file.sha256),
                        size: Some(file.size),
                        offline: session.settings.offline,
                    };
                    let policy = http::Policy::default();
                    match http::fetch(&request, &policy, &session.store, &|_, _| {}) {
                        Ok(_) => {
                            last = None;
                            break;
                        }
                        Err(error) => last = Some(error),
                    }
                }
                if let Some(error) = last {
                    return Err(error.into());
                }
                vendored.push(Vendored {
                    digest: file.sha256,
                    size: file.size,
                    title: sources[0].name.to_string(),
                    media_type: MEDIA_FILE.into(),
                });
            }
            Ok(vendored)
        }
        // A file of this machine already.
        Pin::Image { .. } => Ok(Vec::new()),
        Pin::Git { .. } => Err(Failure::new(
            Exit::Usage,
            Diagnostic::error("`vendor` does not take `git` sources yet")
                .because("they are locked as trees, not as files")
                .hint("build once with the network: the store keeps what was fetched"),
        )),
    }
}

/// `immbuild vendor --read DIR`: what the artifact has, into the store, each file checked.
pub fn read(store: &LocalStore, path: &Path) -> Result<VendorReport, Failure> {
    let path = fs::canonicalize(path).map_err(|error| io_failure("read", path, &error))?;
    let layout = VendorLayout::open(&path)?;
    let mut bytes = 0;
    for file in &layout.files {
        let url = http::file_url(&layout.file(file)).ok_or_else(|| {
            Failure::new(
                Exit::Local,
                Diagnostic::error(format!("`{}` has no URL", path.display())),
            )
        })?;
        // What is not what its digest says does not enter the store.
        let request = http::Request {
            url: &url,
            mirrors: &[],
            expected: Some(file.digest),
            size: Some(file.size),
            offline: true,
        };
        http::fetch(&request, &http::Policy::default(), store, &|_, _| {})?;
        bytes += file.size;
    }
    Ok(VendorReport {
        files: layout.files.len(),
        bytes,
        manifest: None,
    })
}
