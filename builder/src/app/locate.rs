//! Which image a person means: a layout or archive of this machine, a digest in the store, one of a registry, or what a spec
//! built last.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use immbuild_cas::digest::{BlobId, Digest};
use immbuild_cas::store::{BlobSource, LocalStore, StoreError, read_error};

use super::failure::{Exit, Failure};
use super::memory::{self, Built};
use super::project::Project;
use super::session::Session;
use crate::diag::Diagnostic;
use crate::image::descriptor::{Descriptor, MEDIA_INDEX, MEDIA_MANIFEST, PlatformText};
use crate::image::json::MAX_JSON;
use crate::image::{BaseImage, Document, Index, Manifest, ManifestDigest, read};
use crate::output::Names;
use crate::ports::{Event, Outcome, WorkId};
use crate::registry::{Pull, Whole};
use crate::resolve::image::{LocalImage, LocalImageError, open_local};
use crate::spec::image_name::ImageName;
use crate::spec::model::Ident;

/// What a person named.
#[derive(Debug)]
pub enum Located<'a> {
    /// An image.
    Image(Box<ImageAt<'a>>),
    /// A directory that is no layout: a tree.
    Directory(PathBuf),
}

/// An image and where its parts are. As a [`BlobSource`] it gives documents and layers by digest.
#[derive(Debug)]
pub struct ImageAt<'a> {
    /// As it was named, for messages.
    pub name: String,
    /// What points to it: one descriptor, or several when a layout lists platforms without an index.
    pub roots: Vec<Descriptor>,
    /// Under which names engines should know it: those of its spec, layout or archive.
    pub names: Names,
    place: Place<'a>,
}

#[derive(Debug)]
enum Place<'a> {
    Local(LocalImage),
    Store(&'a LocalStore),
}

/// The documents of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Documents {
    /// The index and its digest, where there is one.
    pub index: Option<(Digest, Index)>,
    /// The images, in the order of their platforms.
    pub images: Vec<ImageDocuments>,
}

/// The documents of an image for one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageDocuments {
    /// What it runs on, as its config spells it.
    pub platform: PlatformText,
    /// Its manifest.
    pub manifest: Manifest,
    /// Manifest and config, checked against each other.
    pub image: BaseImage,
}

impl Documents {
    /// The digest that names all of it: that of the index, or of the only manifest.
    pub fn digest(&self) -> Option<Digest> {
        match (&self.index, self.images.as_slice()) {
            (Some((digest, _)), _) => Some(*digest),
            (None, [one]) => Some(*one.image.manifest.digest()),
            (None, _) => None,
        }
    }
}

/// What a spec built last.
///
/// # Errors
/// It built nothing yet, or what it built was dropped from the store.
pub fn last_of<'a>(session: &'a Session<'_>, project: &Project) -> Result<ImageAt<'a>, Failure> {
    let shown = project.path.display();
    let built = memory::last(session, &project.memory(), Ident::IMAGE)?.ok_or_else(|| {
        not_found(format!("`{shown}` has built no image yet"))
            .because(format!(
                "the store `{}` remembers none",
                session.store.path().display()
            ))
            .hint(format!("run `immbuild build {shown}`"))
    })?;
    let digest = built.digest;
    Ok(ImageAt {
        names: names_of(&built),
        ..in_store(&session.store, digest, shown.to_string())?
    })
}

/// The image that `text` names: `sha256:…`, `PATH` or `PATH:TAG` of a layout or archive, a spec, or `HOST/PATH:TAG` of a
/// registry, from which all of it is brought into the store.
///
/// # Errors
/// There is none, or it cannot be read.
pub fn image<'a>(session: &'a Session<'_>, text: &str) -> Result<ImageAt<'a>, Failure> {
    if text.starts_with("sha256:") {
        return by_digest(session, text);
    }
    let path = Path::new(text);
    if let Some(spec) = spec_at(path) {
        return last_of(session, &Project::open(&spec)?);
    }
    if let Some(name) = in_registry(text) {
        let fetched = fetch(session, name)?;
        return Ok(ImageAt {
            name: text.to_owned(),
            roots: vec![fetched.root],
            names: fetched.names,
            place: Place::Store(&session.store),
        });
    }
    match text.rsplit_once(':') {
        Some((before, tag)) if !path.exists() && Path::new(before).exists() => {
            local(Path::new(before), Some(tag), text)
        }
        _ => local(path, None, text),
    }
}

/// The name in a registry that a person means: one with a host, where there is no file of that name. `./` before it means the
/// file in any case.
pub fn in_registry(text: &str) -> Option<ImageName> {
    let is_path = ["./", "../", "/"]
        .iter()
        .any(|start| text.starts_with(start));
    if is_path || Path::new(text).exists() {
        return None;
    }
    ImageName::with_or_without_tag(text).ok()
}

/// An image of a registry, all of which is in the store.
#[derive(Debug)]
pub struct Fetched {
    /// What its name stands for.
    pub root: Descriptor,
    /// It, with all that belongs to it.
    pub whole: Whole,
    /// Under which names engines should know it.
    pub names: Names,
    /// What was asked for, with a tag or a digest.
    pub name: ImageName,
}

/// The piece of work that brings an image from a registry.
const FETCH: WorkId = WorkId(6 << 32);

/// Brings an image of a registry into the store, for all its platforms.
///
/// # Errors
/// It is not there, or a part of it is not what its digest says; the network is off.
pub fn fetch(session: &Session<'_>, name: ImageName) -> Result<Fetched, Failure> {
    if session.settings.offline {
        return Err(needs_network());
    }
    let name = match (&name.tag, &name.digest) {
        (None, None) => ImageName {
            tag: Some("latest".into()),
            ..name
        },
        _ => name,
    };
    let client = session.registries();
    session.events.event(Event::Started {
        id: FETCH,
        label: format!("fetch {name}"),
        total: None,
    });
    let progress = |done| session.events.event(Event::Advanced { id: FETCH, done });
    let fetched = Pull {
        client: &client,
        repository: &name.repository,
        store: &session.store,
        offline: false,
        threads: session.settings.threads,
        progress: &progress,
    }
    .whole(&name);
    finish(session, FETCH, fetched.is_ok());
    let (root, whole) = fetched?;
    Ok(Fetched {
        root,
        whole,
        names: Names {
            name: Some(name.repository.to_string()),
            tags: name.tag.iter().cloned().collect(),
        },
        name,
    })
}

/// What is told where the network is off.
pub(super) fn needs_network() -> Failure {
    let message = "a registry needs the network, and it is off";
    Failure::new(Exit::Unreachable, Diagnostic::error(message)).hint("run it without `--offline`")
}

/// Tells that a piece of work is done, or not to be.
pub(super) fn finish(session: &Session<'_>, id: WorkId, is_done: bool) {
    let outcome = if is_done {
        Outcome::Done
    } else {
        Outcome::Failed
    };
    session.events.event(Event::Finished { id, outcome });
}

/// The same, or a directory that is neither a layout nor that of a spec's image: a tree.
pub fn image_or_directory<'a>(
    session: &'a Session<'_>,
    text: &str,
) -> Result<Located<'a>, Failure> {
    let path = Path::new(text);
    if path.is_dir() && !path.join("oci-layout").exists() {
        return Ok(Located::Directory(path.to_owned()));
    }
    Ok(Located::Image(Box::new(image(session, text)?)))
}

/// An image of a store by its whole digest.
pub fn in_store(store: &LocalStore, digest: Digest, name: String) -> Result<ImageAt<'_>, Failure> {
    let bytes = document(store, &digest).map_err(|error| match error {
        StoreError::Missing(_) => not_found(format!("the store has no image {digest}"))
            .because(format!(
                "there is none of this digest in `{}`",
                store.path().display()
            ))
            .hint("build it again, or name another store with `--store DIR`"),
        error => error.into(),
    })?;
    let media_type = match read::document(&bytes, &digest.to_string()) {
        Ok(Document::Index(_)) => MEDIA_INDEX,
        Ok(Document::Manifest(_)) => MEDIA_MANIFEST,
        Err(error) => {
            let failure = not_found(format!("{digest} is in the store and is no image"));
            return Err(failure.because(super::failure::diagnostic_of(&error).message));
        }
    };
    Ok(ImageAt {
        name,
        roots: vec![Descriptor::new(media_type, digest, bytes.len() as u64)],
        names: Names::default(),
        place: Place::Store(store),
    })
}

/// The names that its spec gave an image.
fn names_of(built: &Built) -> Names {
    Names {
        name: built.name.clone(),
        tags: built.tags.iter().cloned().collect(),
    }
}

fn not_found(message: String) -> Failure {
    Failure::new(Exit::Unreachable, Diagnostic::error(message))
}

/// The spec that a path names: a file of that kind, or a directory with one and without a layout.
pub fn spec_at(path: &Path) -> Option<PathBuf> {
    let default = path.join("spec.toml");
    if path
        .extension()
        .is_some_and(|extension| extension == "toml")
    {
        Some(path.to_owned())
    } else if default.is_file() && !path.join("oci-layout").exists() {
        Some(default)
    } else {
        None
    }
}

fn local<'a>(path: &Path, tag: Option<&str>, name: &str) -> Result<ImageAt<'a>, Failure> {
    let failure = |error: LocalImageError| {
        let needs_tag = matches!(error, LocalImageError::NeedsTag { .. });
        let is_missing = matches!(&error, LocalImageError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound);
        let failure = Failure::from(error);
        if needs_tag {
            failure.hint(format!("write `{}:TAG`", path.display()))
        } else if is_missing {
            not_found(format!("there is no image `{name}`")).hint(
                "name an OCI layout, an OCI or docker archive, a spec, `HOST/PATH:TAG` of a registry, or `sha256:…` of the store",
            )
        } else {
            failure
        }
    };
    let image = open_local(path).map_err(failure)?;
    let roots = image.roots(tag).map_err(failure)?;
    let references = image.references(&roots);
    Ok(ImageAt {
        name: name.to_owned(),
        roots: roots.into_iter().cloned().collect(),
        names: Names::of_references(references.iter().map(String::as_str)),
        place: Place::Local(image),
    })
}

/// Fewer digits name too many things.
const PREFIX_MIN: usize = 4;

/// An image of the store by its digest, or by the first digits of one that some spec built last.
fn by_digest<'a>(session: &'a Session<'_>, text: &str) -> Result<ImageAt<'a>, Failure> {
    let builds = memory::all(session)?;
    let names = |digest: &Digest| {
        let built = builds.iter().find(|built| built.digest == *digest);
        built.map(names_of).unwrap_or_default()
    };
    if let Ok(digest) = text.parse::<Digest>() {
        return Ok(ImageAt {
            names: names(&digest),
            ..in_store(&session.store, digest, text.to_owned())?
        });
    }
    let digits = text.len() - "sha256:".len();
    let is_hex = text["sha256:".len()..]
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !is_hex || !(PREFIX_MIN..64).contains(&digits) {
        return Err(Failure::new(
            Exit::Usage,
            Diagnostic::error(format!("`{text}` is no digest"))
                .because(format!("`sha256:` is followed by 64 hexadecimal digits, or by the first {PREFIX_MIN} or more")),
        ));
    }
    let known: BTreeSet<Digest> = builds
        .iter()
        .flat_map(|built| {
            let manifests = built.images.iter().map(|image| image.manifest);
            manifests.chain([built.digest])
        })
        .filter(|digest| digest.to_string().starts_with(text))
        .collect();
    match known.iter().collect::<Vec<_>>().as_slice() {
        [] => Err(
            not_found(format!("no image of the store begins with `{text}`"))
                .because("the first digits are looked up among what each spec built last")
                .hint("write the whole digest, or name the spec"),
        ),
        [one] => Ok(ImageAt {
            names: names(one),
            ..in_store(&session.store, **one, one.to_string())?
        }),
        several => {
            let several: Vec<String> = several.iter().map(ToString::to_string).collect();
            Err(Failure::new(
                Exit::Usage,
                Diagnostic::error(format!("`{text}` begins several digests"))
                    .because(several.join(", "))
                    .hint("write more digits"),
            ))
        }
    }
}

/// All of a document, checked against its digest.
fn document(blobs: &dyn BlobSource, digest: &Digest) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    // One byte more is enough for the reader of documents to refuse it.
    blobs
        .open(&BlobId::new(*digest))?
        .take(MAX_JSON + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| read_error(digest, error))?;
    Ok(bytes)
}

impl ImageAt<'_> {
    /// Reads index, manifests and configs.
    ///
    /// # Errors
    /// One of them is missing, damaged, or does not fit the others.
    pub fn documents(&self) -> Result<Documents, Failure> {
        let mut index = None;
        let mut images = Vec::new();
        for root in &self.roots {
            let bytes = self.document(&root.digest)?;
            match read::document(&bytes, &root.digest.to_string())? {
                Document::Manifest(_) => images.push(self.image(&root.digest)?),
                Document::Index(entries) => {
                    for entry in entries
                        .manifests
                        .iter()
                        .filter(|entry| !entry.is_attestation())
                    {
                        images.push(self.image(&entry.digest)?);
                    }
                    index = Some((root.digest, entries));
                }
            }
        }
        images.sort_by(|a, b| a.platform.cmp(&b.platform));
        Ok(Documents { index, images })
    }

    fn image(&self, digest: &Digest) -> Result<ImageDocuments, Failure> {
        let bytes = self.document(digest)?;
        let digest = ManifestDigest::new(*digest);
        let manifest = BaseImage::manifest(digest, &bytes)?;
        let config = self.document(&manifest.config.digest)?;
        let image = BaseImage::new(digest, &bytes, &config)?;
        Ok(ImageDocuments {
            platform: image.config.platform.clone(),
            manifest,
            image,
        })
    }

    fn document(&self, digest: &Digest) -> Result<Vec<u8>, Failure> {
        document(self, digest).map_err(|error| self.failure(&error))
    }

    /// A part that cannot be read: of the store it is the store's matter, of a layout or archive it is not to be trusted.
    pub fn failure(&self, error: &StoreError) -> Failure {
        let exit = match (&self.place, error) {
            (_, StoreError::Io { .. }) | (Place::Store(_), _) => Exit::Local,
            (Place::Local(_), _) => Exit::Untrusted,
        };
        let cause = super::failure::diagnostic_of(error).message;
        let diagnostic = Diagnostic::error(format!("a part of `{}` cannot be used", self.name));
        Failure::new(exit, diagnostic.because(cause))
    }
}

impl BlobSource for ImageAt<'_> {
    fn open(&self, id: &BlobId) -> Result<Box<dyn Read + Send + '_>, StoreError> {
        match &self.place {
            Place::Local(image) => image.open(id),
            Place::Store(store) => store.open(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_host_is_a_registry_unless_it_says_that_it_is_a_path() {
        for text in [
            "r.example.com/shop",
            "localhost:5000/shop:1",
            "localhost/a/b:1",
        ] {
            assert!(in_registry(text).is_some(), "{text}");
        }
        for text in [
            "out/shop",
            "out/shop.tar",
            "./r.example.com/shop",
            "/tmp/x.y/z",
            "../a.b/c",
            "sha256:12",
            "shop.tar",
        ] {
            assert_eq!(in_registry(text), None, "{text}");
        }
    }
}
