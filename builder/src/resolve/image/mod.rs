//! Base images from the local machine: OCI layouts, OCI archives, docker archives, and documents that were fetched. Effects:
//! reads files.
//!
//! Nothing here is trusted: every document and layer is checked against its digest when it is read, sizes are bounded before
//! anything is allocated, and no path of an archive ever becomes a path of the host.

mod archive;
mod docker;
mod import;
mod layout;

pub use archive::ArchiveError;
pub use import::{BaseImported, ImportError, import_base, import_layer, keep_layers};

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use immbuild_cas::digest::{BlobId, Digest, VerifiedReader};
use immbuild_cas::store::{BlobSource, StoreError, read_error};

use archive::Archive;

use crate::image::base::{BaseError, BaseImage};
use crate::image::descriptor::{Descriptor, IndexDigest, ManifestDigest, PlatformText};
use crate::image::json::MAX_JSON;
use crate::image::read::{self, Document, ReadError};
use crate::platform::Platform;

/// Why a local image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LocalImageError {
    /// The file or directory cannot be read.
    #[error("cannot read `{path}`")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Neither a layout nor an archive of an image.
    #[error("`{path}` is no OCI layout, OCI archive or docker archive: {reason}")]
    Unknown {
        /// Which.
        path: PathBuf,
        /// What was looked for and not found.
        reason: &'static str,
    },
    /// The archive is damaged or hostile.
    #[error("the archive `{path}` cannot be read")]
    Archive {
        /// Which.
        path: PathBuf,
        /// Why.
        source: ArchiveError,
    },
    /// A document is damaged or hostile.
    #[error("the image in `{path}` cannot be used")]
    Document {
        /// Where it is.
        path: PathBuf,
        /// Which document and field.
        source: ReadError,
    },
    /// A manifest and its config do not fit.
    #[error("the image in `{path}` cannot be used")]
    Base {
        /// Where it is.
        path: PathBuf,
        /// Which document, and why.
        source: BaseError,
    },
    /// A document has other bytes than its digest.
    #[error("a part of the image in `{path}` was changed: it is not {expected}")]
    Mismatch {
        /// Where the image is.
        path: PathBuf,
        /// The digest it was asked by.
        expected: Digest,
    },
    /// A blob that a document points to.
    #[error("a part of the image in `{path}` cannot be used")]
    Blob {
        /// Where the image is.
        path: PathBuf,
        /// Which blob, and why.
        source: StoreError,
    },
    /// What the `manifest.json` of an archive names is not in it.
    #[error("`{path}` has no member `{member}`, which its `manifest.json` names")]
    NoMember {
        /// The archive.
        path: PathBuf,
        /// The name.
        member: String,
    },
    /// There is no image of this tag.
    #[error("`{path}` has no image with the tag `{tag}`; it has {}", list(tags))]
    NoTag {
        /// Where it is.
        path: PathBuf,
        /// The tag asked for.
        tag: String,
        /// The tags that are there.
        tags: BTreeSet<String>,
    },
    /// There are several images and none was named.
    #[error(
        "`{path}` has several images: say which with `tag`; it has {}",
        list(tags)
    )]
    NeedsTag {
        /// Where it is.
        path: PathBuf,
        /// The tags that are there.
        tags: BTreeSet<String>,
    },
    /// There is no image at all.
    #[error("`{path}` has no image")]
    Empty {
        /// Where it is.
        path: PathBuf,
    },
    /// The image has no manifest for this platform.
    #[error(
        "the image in `{path}` is not for {platform}; it is for {}",
        list(available)
    )]
    NoPlatform {
        /// Where it is.
        path: PathBuf,
        /// The platform asked for.
        platform: Platform,
        /// The platforms it has, also ones unknown here.
        available: BTreeSet<String>,
    },
    /// A platform has two manifests.
    #[error("the image in `{path}` has two manifests for {platform}")]
    TwoManifests {
        /// Where it is.
        path: PathBuf,
        /// The platform.
        platform: Platform,
    },
}

fn list(names: &BTreeSet<String>) -> String {
    if names.is_empty() {
        return "none".into();
    }
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

/// An image's place on this machine. As a [`BlobSource`] it gives manifests, configs and layers by digest.
#[derive(Debug)]
pub struct LocalImage {
    path: PathBuf,
    parts: Parts,
    /// The images: what `index.json` has, or what was made from `manifest.json`.
    roots: Vec<Root>,
}

/// Where bytes are found.
#[derive(Debug)]
enum Parts {
    /// `blobs/sha256` of a layout.
    Layout(PathBuf),
    /// Ranges of an archive, and documents made here.
    Archive {
        file: File,
        extents: BTreeMap<Digest, Extent>,
        made: BTreeMap<Digest, Vec<u8>>,
    },
    /// Documents alone.
    Documents(BTreeMap<Digest, Vec<u8>>),
}

/// A range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    offset: u64,
    size: u64,
}

/// An image and the tags it has.
#[derive(Clone, Debug)]
struct Root {
    tags: BTreeSet<String>,
    descriptor: Descriptor,
}

/// What a tag stands for: what a lock pins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The index, when there is one.
    pub index: Option<IndexDigest>,
    /// The manifest for each platform we know.
    pub manifests: BTreeMap<Platform, PlatformManifest>,
    /// All its platforms by name, also those unknown here.
    pub available: BTreeSet<String>,
}

/// A manifest, as a lock pins it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlatformManifest {
    /// Its bytes.
    pub digest: ManifestDigest,
    /// How many.
    pub size: u64,
}

/// Looks at what is at `path` and reads its table of contents.
///
/// - a directory: an OCI layout (OCI image-spec, "Image Layout");
/// - a tar with `oci-layout` in it: an OCI archive;
/// - a tar with `manifest.json` in it: a docker archive. It has no manifest that could be pinned, so one is made: an OCI manifest
///   in our canonical form of the config's bytes and the layers' bytes as they are. It depends on these bytes only, not on names in the
///   archive; so the pin does too. What Docker 25 and later save has both files and counts as an OCI archive.
pub fn open_local(path: &Path) -> Result<LocalImage, LocalImageError> {
    let io = |source| LocalImageError::Io {
        path: path.into(),
        source,
    };
    if fs::metadata(path).map_err(io)?.is_dir() {
        return layout::open(path);
    }
    let file = File::open(path).map_err(io)?;
    let archive = Archive::scan(&file).map_err(|source| LocalImageError::Archive {
        path: path.into(),
        source,
    })?;
    if archive.get("oci-layout").is_some() {
        layout::open_archive(path, file, &archive)
    } else if archive.get("manifest.json").is_some() {
        docker::open(path, file, &archive)
    } else {
        Err(LocalImageError::Unknown {
            path: path.into(),
            reason: "the tar has neither `oci-layout` nor `manifest.json` in it",
        })
    }
}

/// An image of which only documents are here, fetched from `name`. It has no layers.
pub fn of_documents(
    name: &str,
    root: Descriptor,
    documents: BTreeMap<Digest, Vec<u8>>,
) -> LocalImage {
    LocalImage {
        path: name.into(),
        parts: Parts::Documents(documents),
        roots: vec![Root {
            tags: BTreeSet::new(),
            descriptor: root,
        }],
    }
}

impl LocalImage {
    /// What `tag` stands for; without one, the only image there is.
    ///
    /// A tag is the whole of `org.opencontainers.image.ref.name` or what follows its last colon; in a docker archive, one of
    /// `RepoTags` likewise.
    pub fn select(&self, tag: Option<&str>) -> Result<Choice, LocalImageError> {
        match self.roots(tag)?.as_slice() {
            [one] => self.choice_of(one),
            several => self.choice(None, several),
        }
    }

    /// What points to the image of a tag: one descriptor, or several when a layout lists an image's platforms without an
    /// index between.
    pub fn roots(&self, tag: Option<&str>) -> Result<Vec<&Descriptor>, LocalImageError> {
        let fits = |root: &&Root| {
            tag.is_none_or(|tag| {
                root.tags.iter().any(|name| {
                    name == tag || name.rsplit_once(':').is_some_and(|(_, last)| last == tag)
                })
            })
        };
        let mut found: Vec<&Descriptor> = self
            .roots
            .iter()
            .filter(fits)
            .map(|root| &root.descriptor)
            .collect();
        found.sort_by_key(|descriptor| descriptor.digest);
        found.dedup_by_key(|descriptor| descriptor.digest);
        let tags = || {
            self.roots
                .iter()
                .flat_map(|root| root.tags.clone())
                .collect()
        };
        match (found.as_slice(), tag) {
            ([], _) if self.roots.is_empty() => Err(LocalImageError::Empty {
                path: self.path.clone(),
            }),
            ([], Some(tag)) => Err(LocalImageError::NoTag {
                path: self.path.clone(),
                tag: tag.into(),
                tags: tags(),
            }),
            ([_], _) => Ok(found),
            (several, _) if several.iter().all(|one| one.platform.is_some()) => Ok(found),
            _ => Err(LocalImageError::NeedsTag {
                path: self.path.clone(),
                tags: tags(),
            }),
        }
    }

    /// Names and tags of what these point to: `1.4.0` or `registry.example.com/shop:1.4.0`.
    pub fn references(&self, roots: &[&Descriptor]) -> BTreeSet<String> {
        let is_named = |root: &&Root| {
            roots
                .iter()
                .any(|named| named.digest == root.descriptor.digest)
        };
        self.roots
            .iter()
            .filter(is_named)
            .flat_map(|root| root.tags.clone())
            .collect()
    }

    fn choice_of(&self, descriptor: &Descriptor) -> Result<Choice, LocalImageError> {
        if read::is_manifest(&descriptor.media_type) {
            return self.choice(None, &[descriptor]);
        }
        match self.document(descriptor)? {
            Document::Manifest(_) => self.choice(None, &[descriptor]),
            Document::Index(index) => {
                let entries: Vec<&Descriptor> = index
                    .manifests
                    .iter()
                    .filter(|entry| !entry.is_attestation())
                    .collect();
                self.choice(Some(IndexDigest::new(descriptor.digest)), &entries)
            }
        }
    }

    fn choice(
        &self,
        index: Option<IndexDigest>,
        entries: &[&Descriptor],
    ) -> Result<Choice, LocalImageError> {
        let mut choice = Choice {
            index,
            manifests: BTreeMap::new(),
            available: BTreeSet::new(),
        };
        for entry in entries {
            let platform = match &entry.platform {
                Some(platform) => platform.clone(),
                None => self.platform_in_config(entry)?,
            };
            let Some(known) = platform.known() else {
                choice.available.insert(platform.to_string());
                continue;
            };
            choice.available.insert(known.to_string());
            let manifest = PlatformManifest {
                digest: ManifestDigest::new(entry.digest),
                size: entry.size,
            };
            let before = choice.manifests.insert(known, manifest);
            if before.is_some_and(|before| before != manifest) {
                return Err(LocalImageError::TwoManifests {
                    path: self.path.clone(),
                    platform: known,
                });
            }
        }
        Ok(choice)
    }

    fn platform_in_config(&self, entry: &Descriptor) -> Result<PlatformText, LocalImageError> {
        Ok(self
            .base(&ManifestDigest::new(entry.digest))?
            .config
            .platform)
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Document, LocalImageError> {
        let bytes = self.small(&descriptor.digest)?;
        read::document(&bytes, &descriptor.digest.to_string()).map_err(|source| {
            LocalImageError::Document {
                path: self.path.clone(),
                source,
            }
        })
    }

    /// The image with this manifest, checked.
    pub fn base(&self, manifest: &ManifestDigest) -> Result<BaseImage, LocalImageError> {
        let base = |source| LocalImageError::Base {
            path: self.path.clone(),
            source,
        };
        let bytes = self.small(manifest.digest())?;
        let config = BaseImage::manifest(*manifest, &bytes).map_err(base)?.config;
        BaseImage::new(*manifest, &bytes, &self.small(&config.digest)?).map_err(base)
    }

    /// The manifest of a [`Choice`] for a platform; when it has none, an error that names the platforms it has.
    pub fn for_platform(
        &self,
        choice: &Choice,
        platform: Platform,
    ) -> Result<PlatformManifest, LocalImageError> {
        choice
            .manifests
            .get(&platform)
            .copied()
            .ok_or_else(|| LocalImageError::NoPlatform {
                path: self.path.clone(),
                platform,
                available: choice.available.clone(),
            })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A whole document of at most [`MAX_JSON`] bytes, checked.
    fn small(&self, digest: &Digest) -> Result<Vec<u8>, LocalImageError> {
        let blob = |source| LocalImageError::Blob {
            path: self.path.clone(),
            source,
        };
        let (reader, size) = self.raw(digest).map_err(blob)?;
        if size > MAX_JSON {
            return Err(LocalImageError::Document {
                path: self.path.clone(),
                source: ReadError::Size {
                    document: digest.to_string(),
                    size,
                },
            });
        }
        let mut bytes = Vec::new();
        reader
            .take(MAX_JSON)
            .read_to_end(&mut bytes)
            .map_err(|error| blob(read_error(digest, error)))?;
        if Digest::of(&bytes) == *digest {
            Ok(bytes)
        } else {
            Err(LocalImageError::Mismatch {
                path: self.path.clone(),
                expected: *digest,
            })
        }
    }

    /// The bytes that should have this digest, not checked, and how many they are.
    fn raw(&self, digest: &Digest) -> Result<(Box<dyn Read + Send + '_>, u64), StoreError> {
        match &self.parts {
            Parts::Layout(blobs) => {
                let path = blobs.join(digest.to_hex());
                let io = |source: io::Error| match source.kind() {
                    io::ErrorKind::NotFound => StoreError::Missing(*digest),
                    _ => StoreError::Io {
                        action: "read",
                        path: path.display().to_string(),
                        source,
                    },
                };
                let file = open_regular(&path).map_err(io)?;
                let size = file.metadata().map_err(io)?.len();
                Ok((Box::new(file), size))
            }
            Parts::Archive {
                file,
                extents,
                made,
            } => {
                if let Some(bytes) = made.get(digest) {
                    return Ok((Box::new(bytes.as_slice()), bytes.len() as u64));
                }
                let extent = extents.get(digest).ok_or(StoreError::Missing(*digest))?;
                Ok((Box::new(ExtentReader::new(file, *extent)), extent.size))
            }
            Parts::Documents(documents) => {
                let bytes = documents.get(digest).ok_or(StoreError::Missing(*digest))?;
                Ok((Box::new(bytes.as_slice()), bytes.len() as u64))
            }
        }
    }
}

impl BlobSource for LocalImage {
    fn open(&self, id: &BlobId) -> Result<Box<dyn Read + Send + '_>, StoreError> {
        let (reader, _) = self.raw(id.digest())?;
        Ok(Box::new(VerifiedReader::new(reader, *id.digest())))
    }
}

/// Opens a file that is one: a pipe in a layout would block for ever.
fn open_regular(path: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("not a regular file"))
    }
}

/// Reads a range of a file that others read at the same time.
#[derive(Debug)]
struct ExtentReader<'a> {
    file: &'a File,
    extent: Extent,
}

impl<'a> ExtentReader<'a> {
    fn new(file: &'a File, extent: Extent) -> Self {
        Self { file, extent }
    }
}

impl Read for ExtentReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.extent.size).unwrap_or(usize::MAX);
        let most = most.min(buffer.len());
        let count = self.file.read_at(&mut buffer[..most], self.extent.offset)?;
        if count == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.extent.offset += count as u64;
        self.extent.size -= count as u64;
        Ok(count)
    }
}
