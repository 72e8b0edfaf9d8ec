//! `vendor`: what a spec locks, as one OCI artifact in a layout: a manifest whose layers are the locked files as they are.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use immbuild_cas::digest::{BlobId, Digest};
use immbuild_cas::store::BlobSource;

use super::oci_layout::{is_layout_of_one_image, is_ours};
use super::staging::StagedDirectory;
use super::{LAYOUT_MARKER, OutputError, io_error};
use crate::image::CanonicalJson;
use crate::image::artifact::{Artifact, EMPTY, EMPTY_MEDIA, TITLE};
use crate::image::descriptor::{Descriptor, MEDIA_MANIFEST};
use crate::image::index::Index;
use crate::image::json::MAX_JSON;
use crate::image::read::{Document, artifact, document, layout_marker};

/// What the artifact is.
pub const ARTIFACT: &str = "application/vnd.immbuild.vendor.v1";

/// One locked file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vendored {
    /// Its bytes.
    pub digest: Digest,
    /// How many.
    pub size: u64,
    /// For people: its name.
    pub title: String,
    /// What it is.
    pub media_type: String,
}

/// Writes a layout with these files, each once, in the order of their digests. Gives the digest of the manifest: the same
/// files give the same artifact.
///
/// # Errors
/// Something else stands at `path`, a file is not in `blobs` or not what its digest says, or the system refuses.
pub fn write_vendor(
    path: &Path,
    files: &[Vendored],
    blobs: &dyn BlobSource,
) -> Result<Digest, OutputError> {
    if !is_ours(path, &[])? && !is_layout_of_one_image(path) {
        return Err(OutputError::InTheWay {
            path: path.into(),
            what: "something that is no layout of a single artifact",
        });
    }
    let files: BTreeMap<Digest, &Vendored> = files.iter().map(|it| (it.digest, it)).collect();
    let staged = StagedDirectory::new(path)?;
    let directory = staged.path.join("blobs/sha256");
    fs::create_dir_all(&directory).map_err(io_error("create", &directory))?;
    let write = |digest: &Digest, source: &mut dyn Read| {
        let path = directory.join(digest.to_hex());
        let mut file = File::create_new(&path).map_err(io_error("create", &path))?;
        io::copy(source, &mut file).map_err(io_error("write", &path))
    };
    let mut layers = Vec::new();
    for (digest, file) in &files {
        let failed = |source| OutputError::Layer {
            digest: *digest,
            source,
        };
        write(
            digest,
            &mut blobs.open(&BlobId::new(*digest)).map_err(failed)?,
        )?;
        let mut descriptor = Descriptor::new(&file.media_type, *digest, file.size);
        descriptor
            .annotations
            .insert(TITLE.into(), file.title.clone());
        layers.push(descriptor);
    }
    let empty = Digest::of(EMPTY);
    if !files.contains_key(&empty) {
        write(&empty, &mut &*EMPTY)?;
    }
    let manifest = CanonicalJson::of(&Artifact {
        artifact_type: ARTIFACT.to_owned(),
        config: Descriptor::new(EMPTY_MEDIA, empty, EMPTY.len() as u64),
        layers,
        subject: None,
        annotations: BTreeMap::new(),
    });
    write(&manifest.digest(), &mut manifest.as_bytes())?;
    let index = CanonicalJson::of(&Index {
        manifests: vec![Descriptor::new(
            MEDIA_MANIFEST,
            manifest.digest(),
            manifest.size(),
        )],
        annotations: BTreeMap::new(),
    });
    for (name, bytes) in [
        ("index.json", index.as_bytes()),
        ("oci-layout", LAYOUT_MARKER),
    ] {
        let path = staged.path.join(name);
        fs::write(&path, bytes).map_err(io_error("write", &path))?;
    }
    staged.publish()?;
    Ok(manifest.digest())
}

/// A layout that may hold the artifact.
#[derive(Debug)]
pub struct VendorLayout {
    directory: PathBuf,
    /// The locked files that it says it has.
    pub files: Vec<Vendored>,
}

impl VendorLayout {
    /// Reads what a layout says it has; no file is read yet.
    ///
    /// # Errors
    /// It is no layout with one artifact of ours.
    pub fn open(path: &Path) -> Result<Self, OutputError> {
        let wrong = |what: &'static str| OutputError::NotVendored {
            path: path.into(),
            what,
        };
        let read = |name: &str| {
            let path = path.join(name);
            let file = File::open(&path).map_err(io_error("read", &path))?;
            let mut bytes = Vec::new();
            file.take(MAX_JSON + 1)
                .read_to_end(&mut bytes)
                .map_err(io_error("read", &path))?;
            Ok::<_, OutputError>(bytes)
        };
        layout_marker(&read("oci-layout")?, "oci-layout")
            .map_err(|_| wrong("it is no OCI layout"))?;
        let Ok(Document::Index(index)) = document(&read("index.json")?, "index.json") else {
            return Err(wrong("its index cannot be read"));
        };
        let [manifest] = index.manifests.as_slice() else {
            return Err(wrong("it has more than one artifact"));
        };
        let bytes = read(&format!("blobs/sha256/{}", manifest.digest.to_hex()))?;
        if Digest::of(&bytes) != manifest.digest {
            return Err(wrong("its manifest is not what its digest says"));
        }
        let layers = artifact(&bytes, "the manifest", ARTIFACT)
            .map_err(|_| wrong("it is an image, or an artifact of another kind"))?;
        let files = layers.into_iter().map(|layer| Vendored {
            digest: layer.digest,
            size: layer.size,
            title: layer.annotations.get(TITLE).cloned().unwrap_or_default(),
            media_type: layer.media_type,
        });
        Ok(Self {
            directory: path.to_owned(),
            files: files.collect(),
        })
    }

    /// Where one of its files is, which nobody has checked.
    pub fn file(&self, file: &Vendored) -> PathBuf {
        let blobs = self.directory.join("blobs/sha256");
        blobs.join(file.digest.to_hex())
    }
}
