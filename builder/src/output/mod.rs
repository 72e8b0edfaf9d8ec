//! Writes images to the local machine: layouts, archives, directories, engines. Effects: the file system, processes.
//!
//! Everything appears under its name at once and whole, or not at all. May use: floors 0 to 4, `hostfs`. Must never
//! know how an image was made.

mod copy;
mod dir;
mod docker_archive;
mod function_zip;
mod load;
mod oci_archive;
mod oci_layout;
mod staging;
mod stamp;
mod tar;
mod vendor;
mod whole;
mod zip;

pub use copy::{Blobs, LayerSource};
pub use dir::{WholeDir, write_dir};
pub use docker_archive::write_docker_archive;
pub use function_zip::{FunctionZip, MAX_PACKED, MAX_UNPACKED, Written, write_function_zip};
pub use load::{Engine, EngineCommand, load};
pub use oci_archive::write_oci_archive;
pub use oci_layout::write_oci_layout;
pub use stamp::{Stamp, stamp};
pub use vendor::{ARTIFACT, VendorLayout, Vendored, write_vendor};
pub use whole::{AsItIs, write_archive_as_it_is, write_layout_as_it_is};

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use immbuild_cas::digest::Digest;
use immbuild_cas::path::RelPath;
use immbuild_cas::store::StoreError;
use immbuild_cas::tree::TreeError;

use crate::epoch::Epoch;
use crate::hostfs::HostFsError;
use crate::image::descriptor::{Descriptor, ImageLayer, LayerMedia};
use crate::image::index::Index;
use crate::image::{CanonicalJson, Image, ImageIndex};
use crate::layer::EncoderError;

/// What is written: an image for one platform, or for several.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// A manifest.
    One(&'a Image),
    /// An index.
    Several(&'a ImageIndex),
}

impl<'a> Subject<'a> {
    /// Its images.
    pub fn images(self) -> &'a [Image] {
        match self {
            Self::One(image) => std::slice::from_ref(image),
            Self::Several(index) => &index.images,
        }
    }

    /// Digest of the manifest or the index: its name.
    pub fn digest(self) -> Digest {
        self.descriptor().digest
    }

    fn descriptor(self) -> Descriptor {
        match self {
            Self::One(image) => image.descriptor(),
            Self::Several(index) => index.descriptor(),
        }
    }

    /// The time that archives of it carry.
    fn epoch(self) -> Epoch {
        self.images()
            .iter()
            .map(|image| image.epoch)
            .max()
            .unwrap_or(Epoch::DEFAULT)
    }

    /// Every document and layer by digest, each once.
    fn blobs(self) -> BTreeMap<Digest, Blob<'a>> {
        let mut blobs = BTreeMap::new();
        let mut document =
            |json: &'a CanonicalJson| blobs.insert(json.digest(), Blob::Document(json.as_bytes()));
        if let Self::Several(index) = self {
            document(&index.index);
        }
        for image in self.images() {
            document(&image.manifest);
            document(&image.config);
        }
        for layer in self.images().iter().flat_map(|image| &image.layers) {
            blobs.insert(*layer.digest.digest(), Blob::Layer(*layer));
        }
        blobs
    }
}

/// A blob of an image.
#[derive(Clone, Copy, Debug)]
enum Blob<'a> {
    /// Here in memory.
    Document(&'a [u8]),
    /// Found by its digest.
    Layer(ImageLayer),
}

/// Under which names engines know an image. Never part of a digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// `registry.example.com/shop`
    pub name: Option<String>,
    /// `latest`, `1.4.0`
    pub tags: BTreeSet<String>,
}

impl Names {
    /// The name of the first `NAME:TAG` and all the tags it has among them. What has no name or no tag is passed over.
    pub fn of_references<'a>(references: impl IntoIterator<Item = &'a str>) -> Self {
        let mut names = Self::default();
        for reference in references {
            let Some((name, tag)) = reference.rsplit_once(':') else {
                continue;
            };
            if name.is_empty() || tag.is_empty() || tag.contains('/') {
                continue;
            }
            if names.name.get_or_insert_with(|| name.to_owned()) == name {
                names.tags.insert(tag.to_owned());
            }
        }
        names
    }

    /// `registry.example.com/shop:1.4.0` for each tag, when there is a name.
    pub fn references(&self) -> Vec<String> {
        self.name.as_ref().map_or_else(Vec::new, |name| {
            self.tags
                .iter()
                .map(|tag| format!("{name}:{tag}"))
                .collect()
        })
    }

    /// The `index.json` of a layout: one descriptor per tag, all of the same image.
    ///
    /// `org.opencontainers.image.ref.name` is the tag (OCI image-spec, "Pre-Defined Annotation Keys");
    /// `io.containerd.image.name` the full reference, which containerd and podman look for.
    fn layout_index(&self, descriptor: &Descriptor) -> CanonicalJson {
        let tagged = |tag: &String| {
            let mut descriptor = descriptor.clone();
            descriptor.annotations.insert(REF_NAME.into(), tag.clone());
            if let Some(name) = &self.name {
                descriptor
                    .annotations
                    .insert(CONTAINERD_NAME.into(), format!("{name}:{tag}"));
            }
            descriptor
        };
        let manifests = if self.tags.is_empty() {
            vec![descriptor.clone()]
        } else {
            self.tags.iter().map(tagged).collect()
        };
        CanonicalJson::of(&Index {
            manifests,
            annotations: BTreeMap::new(),
        })
    }
}

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// The `oci-layout` file (OCI image-spec, "Image Layout").
const LAYOUT_MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Why an output was not written. What stood there before still stands there.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// A layout is none of what `vendor` writes.
    #[error("`{}` cannot be read as what `vendor` writes: {what}", path.display())]
    NotVendored {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Something stands at the target that is not ours to replace.
    #[error("{what} is in the way at `{path}`")]
    InTheWay {
        /// The target.
        path: PathBuf,
        /// What is there: `a directory`, `a file`, `a directory that is no layout of one image`.
        what: &'static str,
    },
    /// The system refused.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A layer's bytes cannot be had.
    #[error("cannot read layer {digest}")]
    Layer {
        /// The layer.
        digest: Digest,
        /// Why.
        source: StoreError,
    },
    /// A layer has another length than its descriptor says.
    #[error("layer {digest} has {actual} bytes, its descriptor says {expected}")]
    Size {
        /// The layer.
        digest: Digest,
        /// What the descriptor says.
        expected: u64,
        /// What was there.
        actual: u64,
    },
    /// A layer does not decompress to what the config names.
    #[error("layer {digest} ({media:?}) does not decompress to diff id {diff_id}")]
    DiffId {
        /// The layer.
        digest: Digest,
        /// How it is compressed.
        media: LayerMedia,
        /// What the config names.
        diff_id: Digest,
    },
    /// A layer does not decompress at all.
    #[error("layer {digest} does not decompress")]
    Decompress {
        /// The layer.
        digest: Digest,
        /// What the decoder says.
        source: io::Error,
    },
    /// An output that holds one platform was asked to hold several.
    #[error("`{kind}` holds one platform, the image has {platforms}")]
    OnePlatform {
        /// The kind of output.
        kind: &'static str,
        /// What the image has: `linux/amd64, linux/arm64`.
        platforms: String,
    },
    /// A tree cannot be written as a directory.
    #[error("cannot write the tree to `{path}`")]
    Tree {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: HostFsError,
    },
    /// There is no such directory in the image.
    #[error("`{root}` {what}")]
    Root {
        /// The path.
        root: RelPath,
        /// What is wrong with it: `is not in the image`, `is a symbolic link`.
        what: &'static str,
    },
    /// A zip cannot hold an entry.
    #[error("a function zip cannot hold `{path}`: {what}")]
    NoMember {
        /// Its path in the image.
        path: RelPath,
        /// What it is: `it is a named pipe`.
        what: &'static str,
    },
    /// More than a function may have.
    #[error(
        "what is below `{root}` has {unpacked} bytes, {limit} are the most a function may have unpacked"
    )]
    Unpacked {
        /// The directory that becomes the zip.
        root: RelPath,
        /// How much it has.
        unpacked: u64,
        /// The most.
        limit: u64,
    },
    /// A tree cannot be read.
    #[error("cannot read the tree")]
    Directories(#[from] TreeError),
    /// A file's content cannot be had.
    #[error("cannot read `{path}`")]
    Content {
        /// Its path in the image.
        path: RelPath,
        /// Why.
        source: StoreError,
    },
    /// An encoder is of no use.
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    /// An engine knows images by name alone, and this one has none.
    #[error("{engine} knows images by their names, and this one has none")]
    Unnamed {
        /// The engine.
        engine: &'static str,
    },
    /// The engine's program is not installed.
    #[error("`{program}` is not installed")]
    NoProgram {
        /// The program looked for in `PATH`.
        program: &'static str,
    },
    /// The engine would not take the image.
    #[error("`{program}` failed with {status}: {stderr}")]
    Engine {
        /// The program with its first argument: `podman load`.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it said.
        stderr: String,
    },
}

/// Makes an [`OutputError::Io`] out of what the system says.
fn io_error<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> OutputError + 'a {
    move |source| OutputError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// The one image of a subject, for outputs that hold no more.
fn only_image<'a>(subject: Subject<'a>, kind: &'static str) -> Result<&'a Image, OutputError> {
    match subject.images() {
        [image] => Ok(image),
        images => Err(OutputError::OnePlatform {
            kind,
            platforms: images
                .iter()
                .map(|image| image.platform.to_string())
                .collect::<Vec<_>>()
                .join(", "),
        }),
    }
}
