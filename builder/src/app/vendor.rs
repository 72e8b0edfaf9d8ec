//! All locked inputs of a spec in one artifact, and back into a store.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter};
use std::path::Path;

use immbuild_cas::digest::{BlobId, Digest, TreeId};
use immbuild_cas::store::{BlobSource as _, LocalStore, Store as _, read_error};
use immbuild_cas::tree::bundle::{self, BundleError};

use super::failure::{Exit, Failure};
use super::libraries::{self, Library};
use super::packages::Archives;
use super::pins::RegistryImage;
use super::project::{Project, io_failure};
use super::realise::pull;
use super::session::Session;
use crate::diag::{Diagnostic, Place};
use crate::graph::libraries::Language;
use crate::image::BaseImage;
use crate::image::descriptor::{Descriptor, MEDIA_INDEX, MEDIA_MANIFEST, ManifestDigest};
use crate::lock::model::{CommitPin, Lock, Pin};
use crate::output::{VendorLayout, Vendored, write_vendor};
use crate::platform::Platform;
use crate::resolve::{git, http};
use crate::spec::model::{GitSource, ImageSource, Resolved, Source, SourceKind};

/// What a `.deb` is called.
const MEDIA_PACKAGE: &str = "application/vnd.debian.binary-package";
/// What a wheel is: a zip.
const MEDIA_WHEEL: &str = "application/zip";
/// What a crate is: a tar by gzip.
const MEDIA_CRATE: &str = "application/gzip";
/// What a commit holds: see [`bundle`]. Its title is the tree.
const MEDIA_BUNDLE: &str = "application/vnd.immbuild.bundle.v1";
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
        let sources: BTreeMap<Platform, &Source> = resolved
            .iter()
            .filter_map(|(platform, spec)| Some((*platform, spec.sources.get(name)?)))
            .collect();
        let Some(first) = sources.values().next() else {
            continue;
        };
        let place = Place {
            file: project.file.clone(),
            span: first.span,
        };
        let found = one(session, project, &sources, &locked.pin);
        files.extend(found.map_err(|failure| failure.at(place, name))?);
    }
    files.extend(libraries_of(session, project, &resolved, lock.as_ref())?);
    files.sort();
    files.dedup_by(|a, b| a.digest == b.digest);
    let manifest = write_vendor(out, &files, &session.store)?;
    Ok(VendorReport {
        files: files.len(),
        bytes: files.iter().map(|file| file.size).sum(),
        manifest: Some(manifest),
    })
}

/// Libraries by the project's own locks, in the store.
fn libraries_of(
    session: &Session<'_>,
    project: &Project,
    resolved: &BTreeMap<Platform, Resolved>,
    lock: Option<&Lock>,
) -> Result<Vec<Vendored>, Failure> {
    let mut files = Vec::new();
    for spec in resolved.values() {
        for source in spec.sources.values() {
            let Some(language) = libraries::language(source) else {
                continue;
            };
            let platforms = spec.image_platforms().remove(&source.name);
            for platform in platforms.unwrap_or_else(|| [spec.platform].into()) {
                let place = Place {
                    file: project.file.clone(),
                    span: source.span,
                };
                let wanted = libraries::of(project, source, platform, lock)?;
                let all: Vec<&Library> = wanted.iter().collect();
                libraries::fetch(session, project, &all, &|_| {})
                    .map_err(|failure| failure.at(place, &source.name))?;
                for library in &wanted {
                    files.push(Vendored {
                        digest: library.pin.sha256,
                        size: size(session, library)?,
                        title: library.pin.file.clone(),
                        media_type: match language {
                            Language::Python => MEDIA_WHEEL.into(),
                            Language::Rust => MEDIA_CRATE.into(),
                        },
                    });
                }
            }
        }
    }
    Ok(files)
}

/// The bytes of a file that is in the store.
fn size(session: &Session<'_>, library: &Library) -> Result<u64, Failure> {
    if let Some(size) = library.size {
        return Ok(size);
    }
    let blob = BlobId::new(library.pin.sha256);
    let mut reader = session.store.open(&blob)?;
    std::io::copy(&mut reader, &mut std::io::sink())
        .map_err(|error| read_error(blob.digest(), error).into())
}

/// The locked files of one source, in the store.
fn one(
    session: &Session<'_>,
    project: &Project,
    sources: &BTreeMap<Platform, &Source>,
    pin: &Pin,
) -> Result<Vec<Vendored>, Failure> {
    match pin {
        Pin::Debian(pin) => {
            let Some(SourceKind::Debian(source)) = sources.values().next().map(|it| &it.kind)
            else {
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
            let name = sources.values().next().map(|it| it.name.to_string());
            let name = name.unwrap_or_default();
            // With a pin for each platform, each asks for another URL.
            for file in files.values() {
                let mut last = None;
                for source in sources.values() {
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
                    title: name.clone(),
                    media_type: MEDIA_FILE.into(),
                });
            }
            Ok(vendored)
        }
        Pin::Image { index, manifests } => {
            let mut vendored = Vec::new();
            for (platform, manifest) in manifests {
                let source = sources.get(platform).map(|it| &it.kind);
                // One of a layout or archive is a file of this machine already.
                let Some(SourceKind::Image(ImageSource::Registry(name))) = source else {
                    continue;
                };
                let image = RegistryImage {
                    repository: name.repository.clone(),
                    size: manifest.size,
                    index: *index,
                    platform: *platform,
                };
                vendored.extend(parts(session, manifest.digest, &image)?);
            }
            Ok(vendored)
        }
        // Told with other libraries.
        Pin::Python(_) => Ok(Vec::new()),
        Pin::Git { commits } => commits
            .iter()
            .map(|(platform, commit)| {
                let source = match platform {
                    Some(platform) => sources.get(platform),
                    None => sources.values().next(),
                };
                let Some(SourceKind::Git(git)) = source.map(|it| &it.kind) else {
                    unreachable!("the lock was checked against the spec");
                };
                bundled(session, git, commit)
            })
            .collect(),
    }
}

/// All of an image of a registry, in the store.
fn parts(
    session: &Session<'_>,
    manifest: Digest,
    image: &RegistryImage,
) -> Result<Vec<Vendored>, Failure> {
    let manifest = ManifestDigest::new(manifest);
    pull(session, manifest, image, &|_| {})?;
    let read = |digest: &Digest| session.store.read(&BlobId::new(*digest));
    let bytes = read(manifest.digest())?;
    let document = BaseImage::manifest(manifest, &bytes)?;
    let title = image.repository.to_string();
    let index = image.index.map(|index| {
        let size = read(&index)?.len() as u64;
        Ok::<_, Failure>(Descriptor::new(MEDIA_INDEX, index, size))
    });
    let own = Descriptor::new(MEDIA_MANIFEST, *manifest.digest(), bytes.len() as u64);
    let all = index.transpose()?.into_iter().chain([own, document.config]);
    let vendored = all.chain(document.layers).map(|part| Vendored {
        digest: part.digest,
        size: part.size,
        title: title.clone(),
        media_type: part.media_type,
    });
    Ok(vendored.collect())
}

/// What a locked commit holds, as one file in the store.
fn bundled(
    session: &Session<'_>,
    source: &GitSource,
    commit: &CommitPin,
) -> Result<Vendored, Failure> {
    let cache = session.git_cache();
    let wanted = git::Pin {
        commit: &commit.commit,
        tree: commit.tree,
    };
    let remote = super::lock::remote(source, session);
    let store = &session.store;
    let tree = git::fetch_remote(&remote, &wanted, &session.git_means(&cache), store)?;
    let scratch = store.scratch("bundle")?;
    let path = scratch.path().join("bundle");
    let written = File::create_new(&path)
        .map_err(BundleError::from)
        .and_then(|file| {
            let mut out = BufWriter::new(file);
            bundle::write(store, &tree, None, &mut out)?;
            Ok(out.into_inner().map_err(io::IntoInnerError::into_error)?)
        });
    written.map_err(|error| bundle_failure(error, &path))?;
    let mut file = File::open(&path).map_err(|error| io_failure("read", &path, &error))?;
    let (blob, size) = store.put(&mut file)?;
    Ok(Vendored {
        digest: *blob.digest(),
        size,
        title: commit.tree.to_string(),
        media_type: MEDIA_BUNDLE.into(),
    })
}

fn bundle_failure(error: BundleError, path: &Path) -> Failure {
    match error {
        BundleError::Store(error) => error.into(),
        BundleError::Io(error) => io_failure("read or write", path, &error),
        error => Failure::new(
            Exit::Untrusted,
            Diagnostic::error(format!(
                "`{}` is not the tree that it is for",
                path.display()
            ))
            .because(error.to_string()),
        ),
    }
}

/// `immbuild vendor --read DIR`: what the artifact has, into the store, each file checked.
pub fn read(store: &LocalStore, path: &Path) -> Result<VendorReport, Failure> {
    let path = fs::canonicalize(path).map_err(|error| io_failure("read", path, &error))?;
    let layout = VendorLayout::open(&path)?;
    let mut bytes = 0;
    for file in &layout.files {
        bytes += file.size;
        if file.media_type == MEDIA_BUNDLE {
            unbundle(store, &layout.file(file), &file.title)?;
            continue;
        }
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
    }
    Ok(VendorReport {
        files: layout.files.len(),
        bytes,
        manifest: None,
    })
}

/// Brings what a commit holds into the store, where a build that wants this tree finds it.
fn unbundle(store: &LocalStore, path: &Path, tree: &str) -> Result<(), Failure> {
    let tree: Digest = tree.parse().map_err(|_| {
        let error = Diagnostic::error(format!(
            "`{}` does not say which tree it is",
            path.display()
        ));
        Failure::new(Exit::Untrusted, error)
    })?;
    let file = File::open(path).map_err(|error| io_failure("read", path, &error))?;
    let tree = TreeId::new(tree);
    bundle::read(&mut BufReader::new(file), &tree, None, store)
        .map_err(|error| bundle_failure(error, path))?;
    git::keep(&tree, store)?;
    Ok(())
}
