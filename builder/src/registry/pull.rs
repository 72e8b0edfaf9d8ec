//! From a registry: documents by tag or digest, blobs into a store.
//!
//! A blob that breaks off goes on where it broke off. Its bytes are hashed on their way and enter the store only when they are
//! those of the digest, and as many as its descriptor says; so little memory is enough for any of them.
#![allow(
    clippy::disallowed_methods,
    reason = "measures how fast bytes come, which no byte depends on"
)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use immbuild_cas::digest::{BlobId, Digest, Hasher};
use immbuild_cas::store::Store;

use super::RegistryError;
use super::client::{Ask, Client, Reply};
use super::push::{DEPTH, Whole};
use crate::image::descriptor::{Descriptor, MEDIA_INDEX, MEDIA_MANIFEST, ManifestDigest};
use crate::image::json::MAX_JSON;
use crate::image::read::{self, DOCKER_INDEX, DOCKER_MANIFEST, Document as Parsed, ReadError};
use crate::image::{BaseError, BaseImage};
use crate::platform::Platform;
use crate::resolve::http::exchange::{Answer, shown_text};
use crate::spec::image_name::{ImageName, ImageRepository};

/// Most connections at once: a registry is shared with others.
pub(super) const CONNECTIONS: usize = 4;
/// So much must have come that a blob which breaks off again is tried as often again.
const PROGRESS: u64 = 1 << 20;
/// Most bytes of all the documents that one tag leads to.
const DOCUMENTS_MAX: usize = 64 << 20;
/// Docker's first form of a manifest.
const SCHEMA_1: [&str; 3] = [
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/json",
];

/// A manifest or index as a registry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// What the registry says that it is.
    pub media_type: String,
    /// Its digest: that of the bytes.
    pub digest: Digest,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// A blob that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// `layer`, `config`
    pub what: &'static str,
    /// Its digest.
    pub digest: Digest,
    /// How many bytes.
    pub size: u64,
}

impl Part {
    fn of(what: &'static str, descriptor: &Descriptor) -> Self {
        Self {
            what,
            digest: descriptor.digest,
            size: descriptor.size,
        }
    }
}

impl Client<'_> {
    /// The manifest or index of a tag or digest; what is not that of the digest is an error.
    ///
    /// # Errors
    /// There is none, it is something else, or the registry does not answer.
    pub fn document(
        &self,
        repository: &ImageRepository,
        tag_or_digest: &str,
    ) -> Result<Document, RegistryError> {
        let separator = if tag_or_digest.contains(':') {
            '@'
        } else {
            ':'
        };
        let name = format!("{repository}{separator}{tag_or_digest}");
        let accept = [MEDIA_INDEX, MEDIA_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST].join(", ");
        let mut last = None;
        for _ in 0..self.patience.attempts.max(1) {
            let reply = self.ask(&Ask::get(
                self.url(repository, &format!("manifests/{tag_or_digest}")),
                vec![("accept", accept.clone())],
                repository,
            ))?;
            match reply.answer.status() {
                200 => {}
                404 => return Err(RegistryError::NotFound(name)),
                _ => return Err(self.refused(reply, repository, format!("`{name}`"))),
            }
            match self.read_document(reply, repository, tag_or_digest, &name)? {
                Ok(document) => return Ok(document),
                Err(cause) => {
                    last = Some(cause);
                    self.rest(self.patience.first_wait)?;
                }
            }
        }
        Err(RegistryError::Unreachable {
            url: name,
            cause: last.unwrap_or_default(),
            attempts: self.patience.attempts,
        })
    }

    /// The document of an answer; the inner error says why it broke off, and may not come again.
    fn read_document(
        &self,
        reply: Reply,
        repository: &ImageRepository,
        tag_or_digest: &str,
        name: &str,
    ) -> Result<Result<Document, String>, RegistryError> {
        let header = |name| reply.answer.header(name).map(str::to_owned);
        let media_type = header("content-type").unwrap_or_default();
        let media_type = media_type
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned();
        let said = header("docker-content-digest");
        let length = reply.answer.length();
        let mut bytes = Vec::new();
        let body = Paced::new(reply.answer, self.patience.idle, self.patience.slowest);
        if let Err(error) = body.take(MAX_JSON + 1).read_to_end(&mut bytes) {
            return Ok(Err(error.to_string()));
        }
        let size = bytes.len() as u64;
        if let Some(length) = length
            && length > size
            && size <= MAX_JSON
        {
            return Ok(Err(format!("ended after {size} of {length} bytes")));
        }
        let from = repository.to_string();
        if size > MAX_JSON {
            let source = ReadError::Size {
                document: name.to_owned(),
                size: length.unwrap_or(size).max(size),
            };
            return Err(RegistryError::Document { from, source });
        }
        let actual = Digest::of(&bytes);
        // What a registry says of a tag is checked where it says it, and what is asked by digest is checked in any case.
        let said = said.and_then(|said| said.parse::<Digest>().ok());
        let expected = tag_or_digest.parse::<Digest>().ok().or(said);
        if let Some(expected) = expected
            && expected != actual
        {
            return Err(RegistryError::Mismatch {
                what: "the manifest".into(),
                from: name.to_owned(),
                expected,
                actual,
            });
        }
        if SCHEMA_1.contains(&media_type.as_str()) && is_schema_1(&bytes) {
            return Err(RegistryError::Schema1(name.to_owned()));
        }
        Ok(Ok(Document {
            media_type,
            digest: actual,
            bytes,
        }))
    }

    /// All of an answer that is no document of the registry's own.
    pub(super) fn whole_document(
        &self,
        reply: Reply,
        repository: &ImageRepository,
    ) -> Result<Vec<u8>, RegistryError> {
        let url = reply.url;
        let mut bytes = Vec::new();
        let body = Paced::new(reply.answer, self.patience.idle, self.patience.slowest);
        body.take(MAX_JSON + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| RegistryError::Unreachable {
                url: shown_text(&url),
                cause: error.to_string(),
                attempts: 1,
            })?;
        if bytes.len() as u64 > MAX_JSON {
            let size = bytes.len() as u64;
            let source = ReadError::Size {
                document: shown_text(&url),
                size,
            };
            let from = repository.to_string();
            return Err(RegistryError::Document { from, source });
        }
        Ok(bytes)
    }

    /// Brings a blob into a store. What is there already is not fetched.
    ///
    /// # Errors
    /// It is not there, not what it should be, or the registry does not answer.
    pub fn blob(
        &self,
        repository: &ImageRepository,
        part: &Part,
        store: &dyn Store,
        progress: &dyn Fn(u64),
    ) -> Result<(), RegistryError> {
        let id = BlobId::new(part.digest);
        if store.has(&id)? {
            return Ok(());
        }
        let failed = RefCell::new(None);
        let mut blob = BlobReader::new(self, repository, part, progress, &failed);
        let result = store.put(&mut blob);
        match (failed.take(), result) {
            (Some(error), _) => Err(error),
            (None, Err(error)) => Err(error.into()),
            (None, Ok(_)) => Ok(()),
        }
    }

    /// A blob of a few bytes, checked.
    ///
    /// # Errors
    /// As [`Self::blob`], or its descriptor says that it is greater than any document.
    pub fn small_blob(
        &self,
        repository: &ImageRepository,
        part: &Part,
    ) -> Result<Vec<u8>, RegistryError> {
        if part.size > MAX_JSON {
            return Err(RegistryError::Document {
                from: repository.to_string(),
                source: ReadError::Size {
                    document: part.digest.to_string(),
                    size: part.size,
                },
            });
        }
        let failed = RefCell::new(None);
        let mut bytes = Vec::new();
        let mut blob = BlobReader::new(self, repository, part, &|_| {}, &failed);
        let result = blob.read_to_end(&mut bytes);
        match (failed.take(), result) {
            (Some(error), _) => Err(error),
            (None, result) => {
                result.expect("its reader says why it fails");
                Ok(bytes)
            }
        }
    }

    fn open(
        &self,
        repository: &ImageRepository,
        part: &Part,
        from: u64,
    ) -> Result<Reply, RegistryError> {
        let mut headers = Vec::new();
        if from > 0 {
            headers.push(("range", format!("bytes={from}-{}", part.size - 1)));
        }
        let reply = self.ask(&Ask::get(
            self.url(repository, &format!("blobs/{}", part.digest)),
            headers,
            repository,
        ))?;
        let protocol = |cause: String| RegistryError::Protocol {
            host: repository.host().to_owned(),
            cause,
        };
        match reply.answer.status() {
            200 => match reply.answer.length() {
                Some(actual) if actual != part.size => Err(RegistryError::Size {
                    what: format!("{} {}", part.what, part.digest),
                    from: repository.to_string(),
                    expected: part.size,
                    actual,
                }),
                _ => Ok(reply),
            },
            206 if from > 0 => {
                let range = reply.answer.header("content-range").unwrap_or_default();
                let begins = range
                    .strip_prefix("bytes ")
                    .and_then(|range| range.split_once('-'))
                    .and_then(|(first, _)| first.trim().parse().ok());
                if begins == Some(from) {
                    Ok(reply)
                } else {
                    Err(protocol(format!(
                        "asked for bytes from {from}, it gives `{}`",
                        range.escape_debug()
                    )))
                }
            }
            404 => Err(RegistryError::NotFound(format!(
                "{repository}@{}",
                part.digest
            ))),
            _ => {
                let what = format!("{} {}", part.what, part.digest);
                Err(self.refused(reply, repository, what))
            }
        }
    }
}

/// `{"schemaVersion": 1, …}`
fn is_schema_1(bytes: &[u8]) -> bool {
    use crate::image::json::Json;
    match Json::parse(bytes) {
        Ok(Json::Object(top)) => top.get("schemaVersion") == Some(&Json::Integer(1)),
        _ => false,
    }
}

/// A blob as it comes, begun again where it breaks off, and checked at its end.
struct BlobReader<'c> {
    client: &'c Client<'c>,
    repository: &'c ImageRepository,
    part: &'c Part,
    progress: &'c dyn Fn(u64),
    failed: &'c RefCell<Option<RegistryError>>,
    body: Option<Paced<Answer>>,
    hasher: Option<Hasher>,
    done: u64,
    /// Failures since the last progress, and how far it was then.
    failures: u32,
    before: u64,
    wait: Duration,
}

impl<'c> BlobReader<'c> {
    fn new(
        client: &'c Client<'c>,
        repository: &'c ImageRepository,
        part: &'c Part,
        progress: &'c dyn Fn(u64),
        failed: &'c RefCell<Option<RegistryError>>,
    ) -> Self {
        Self {
            client,
            repository,
            part,
            progress,
            failed,
            body: None,
            hasher: Some(Hasher::new()),
            done: 0,
            failures: 0,
            before: 0,
            wait: client.patience.first_wait,
        }
    }

    fn fail(&self, error: RegistryError) -> io::Error {
        let text = error.to_string();
        self.failed.replace(Some(error));
        io::Error::other(text)
    }

    fn open(&self) -> Result<Paced<Answer>, RegistryError> {
        let reply = self.client.open(self.repository, self.part, self.done)?;
        let is_part = reply.answer.status() == 206;
        let patience = &self.client.patience;
        let mut body = Paced::new(reply.answer, patience.idle, patience.slowest);
        if !is_part && self.done > 0 {
            // It does not know how to go on; what is here already is passed over, and the digest says whether it was the same.
            let skipped = io::copy(&mut (&mut body).take(self.done), &mut io::sink());
            if skipped.as_ref().ok() != Some(&self.done) {
                return Err(RegistryError::Unreachable {
                    url: format!("{}@{}", self.repository, self.part.digest),
                    cause: "it broke off where it had before".into(),
                    attempts: self.failures,
                });
            }
        }
        Ok(body)
    }

    /// Waits before it goes on, unless that failed too often.
    fn broken(&mut self, cause: String) -> Result<(), RegistryError> {
        self.body = None;
        if self.done - self.before >= PROGRESS {
            self.failures = 0;
            self.wait = self.client.patience.first_wait;
        }
        self.before = self.done;
        self.failures += 1;
        if self.failures >= self.client.patience.attempts {
            return Err(RegistryError::Unreachable {
                url: format!("{}@{}", self.repository, self.part.digest),
                cause,
                attempts: self.failures,
            });
        }
        self.client.rest(self.wait)?;
        self.wait *= 2;
        Ok(())
    }

    /// All is here: is it that, and all?
    fn end(&mut self) -> Result<(), RegistryError> {
        let Some(hasher) = self.hasher.take() else {
            return Ok(());
        };
        let what = || format!("{} {}", self.part.what, self.part.digest);
        if let Some(body) = &mut self.body
            && matches!(body.read(&mut [0]), Ok(1))
        {
            return Err(RegistryError::Size {
                what: what(),
                from: self.repository.to_string(),
                expected: self.part.size,
                actual: self.part.size + 1,
            });
        }
        let actual = hasher.finish();
        if actual == self.part.digest {
            return Ok(());
        }
        Err(RegistryError::Mismatch {
            what: format!("the {}", self.part.what),
            from: self.repository.to_string(),
            expected: self.part.digest,
            actual,
        })
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if let Err(error) = self.client.go_on() {
                return Err(self.fail(error));
            }
            if self.done == self.part.size {
                return match self.end() {
                    Ok(()) => Ok(0),
                    Err(error) => Err(self.fail(error)),
                };
            }
            if self.body.is_none() {
                match self.open() {
                    Ok(body) => self.body = Some(body),
                    Err(error) => return Err(self.fail(error)),
                }
            }
            let body = self.body.as_mut().expect("it was just opened");
            let left = usize::try_from(self.part.size - self.done).unwrap_or(usize::MAX);
            let most = left.min(buffer.len());
            let cause = match body.read(&mut buffer[..most]) {
                Ok(0) => format!("ended after {} of {} bytes", self.done, self.part.size),
                Ok(count) => {
                    self.done += count as u64;
                    let hasher = self.hasher.as_mut().expect("taken at the end only");
                    hasher.update(&buffer[..count]);
                    (self.progress)(self.done);
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
                Err(error) => format!("{error}, after {} of {} bytes", self.done, self.part.size),
            };
            if let Err(error) = self.broken(cause) {
                return Err(self.fail(error));
            }
        }
    }
}

/// A body that has to come at some speed: who sends a byte a minute would hold a build for ever.
struct Paced<R> {
    inner: R,
    span: Duration,
    least: u64,
    /// How long it was waited for, and what came in that time. What becomes of the bytes here takes its own time.
    waited: Duration,
    count: u64,
}

impl<R: Read> Paced<R> {
    fn new(inner: R, span: Duration, slowest: u64) -> Self {
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self {
            inner,
            span,
            least: slowest.saturating_mul(millis) / 1000,
            waited: Duration::ZERO,
            count: 0,
        }
    }
}

impl<R: Read> Read for Paced<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let begun = Instant::now();
        let count = self.inner.read(buffer)?;
        self.waited += begun.elapsed();
        self.count += count as u64;
        if self.waited >= self.span {
            if self.count < self.least && count > 0 {
                let (count, span) = (self.count, self.span);
                return Err(io::Error::other(format!(
                    "only {count} bytes came in {span:.0?}"
                )));
            }
            self.waited = Duration::ZERO;
            self.count = 0;
        }
        Ok(count)
    }
}

/// Brings images into a store.
pub struct Pull<'a> {
    /// Asks.
    pub client: &'a Client<'a>,
    /// Where they are.
    pub repository: &'a ImageRepository,
    /// Takes what is fetched.
    pub store: &'a dyn Store,
    /// Ask nothing of the network.
    pub offline: bool,
    /// How many blobs at once, but never more than four.
    pub threads: NonZeroUsize,
    /// Told how many bytes arrived in all.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// What a tag or digest leads to: as a rule an index, the manifests of the platforms that are wanted, and their configs.
#[derive(Clone, Debug)]
pub struct Found {
    /// What the tag stands for.
    pub root: Descriptor,
    /// All documents by digest.
    pub documents: BTreeMap<Digest, Vec<u8>>,
}

impl Pull<'_> {
    fn from(&self) -> String {
        self.repository.to_string()
    }

    fn unreadable(&self, source: ReadError) -> RegistryError {
        RegistryError::Document {
            from: self.from(),
            source,
        }
    }

    fn offline(&self, missing: Vec<String>) -> RegistryError {
        RegistryError::Offline {
            from: self.from(),
            missing,
        }
    }

    /// A document by its digest: from the store, else from the registry and then into the store.
    pub(super) fn by_digest(
        &self,
        what: &str,
        digest: Digest,
        size: Option<u64>,
    ) -> Result<Vec<u8>, RegistryError> {
        let id = BlobId::new(digest);
        let bytes = if self.store.has(&id)? {
            self.store.read(&id)?
        } else if self.offline {
            return Err(self.offline(vec![format!("{what} {digest}")]));
        } else {
            let document = self.client.document(self.repository, &digest.to_string())?;
            self.store.put_bytes(&document.bytes)?;
            document.bytes
        };
        let actual = bytes.len() as u64;
        match size {
            Some(expected) if expected != actual => Err(RegistryError::Size {
                what: format!("{what} {digest}"),
                from: self.from(),
                expected,
                actual,
            }),
            _ => Ok(bytes),
        }
    }

    fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        let id = BlobId::new(descriptor.digest);
        if self.store.has(&id)? {
            return Ok(self.store.read(&id)?);
        }
        if self.offline {
            return Err(self.offline(vec![format!("config {}", descriptor.digest)]));
        }
        let part = Part::of("config", descriptor);
        let bytes = self.client.small_blob(self.repository, &part)?;
        self.store.put_bytes(&bytes)?;
        Ok(bytes)
    }

    /// What a name stands for now, with the documents of these platforms. Layers are not asked for.
    ///
    /// # Errors
    /// There is no such image, a document is damaged, or the network is needed and off.
    pub fn find(&self, name: &ImageName, wanted: &[Platform]) -> Result<Found, RegistryError> {
        let (digest, bytes) = match (&name.digest, &name.tag) {
            (Some(digest), _) => (*digest, self.by_digest("manifest", *digest, None)?),
            (None, _) if self.offline => return Err(self.offline(vec![name.to_string()])),
            (None, tag) => {
                let tag = tag.as_deref().expect("a name has a tag or a digest");
                let document = self.client.document(self.repository, tag)?;
                self.store.put_bytes(&document.bytes)?;
                (document.digest, document.bytes)
            }
        };
        let parsed =
            read::document(&bytes, &digest.to_string()).map_err(|error| self.unreadable(error))?;
        let media_type = match &parsed {
            Parsed::Index(_) => MEDIA_INDEX,
            Parsed::Manifest(_) => MEDIA_MANIFEST,
        };
        let mut found = Found {
            root: Descriptor::new(media_type, digest, bytes.len() as u64),
            documents: BTreeMap::from([(digest, bytes)]),
        };
        match parsed {
            Parsed::Manifest(manifest) => self.add(&mut found, vec![manifest.config])?,
            Parsed::Index(index) => {
                let is_wanted = |entry: &&Descriptor| match &entry.platform {
                    Some(platform) => platform.known().is_some_and(|it| wanted.contains(&it)),
                    // What it is for, its config says.
                    None => true,
                };
                let entries = index
                    .manifests
                    .iter()
                    .filter(|entry| !entry.is_attestation());
                for entry in entries.filter(is_wanted) {
                    let bytes = self.by_digest("manifest", entry.digest, Some(entry.size))?;
                    let parsed = read::document(&bytes, &entry.digest.to_string())
                        .map_err(|error| self.unreadable(error))?;
                    found.documents.insert(entry.digest, bytes);
                    if let Parsed::Manifest(manifest) = parsed {
                        self.add(&mut found, vec![manifest.config])?;
                    }
                }
            }
        }
        Ok(found)
    }

    fn add(&self, found: &mut Found, configs: Vec<Descriptor>) -> Result<(), RegistryError> {
        for config in configs {
            found.documents.insert(config.digest, self.config(&config)?);
        }
        let all: usize = found.documents.values().map(Vec::len).sum();
        if all > DOCUMENTS_MAX {
            return Err(RegistryError::Protocol {
                host: self.repository.host().to_owned(),
                cause: format!("one tag leads to {all} bytes of documents"),
            });
        }
        Ok(())
    }

    /// All of what a name stands for now, every platform and whatever else its index has, so that it is in the store.
    ///
    /// # Errors
    /// As [`Self::image`].
    pub fn whole(&self, name: &ImageName) -> Result<(Descriptor, Whole), RegistryError> {
        let asked = match (&name.digest, &name.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().expect("a name has a tag or a digest"),
        };
        let document = self.client.document(self.repository, &asked)?;
        self.store.put_bytes(&document.bytes)?;
        let size = document.bytes.len() as u64;
        let said = self.links(&document.bytes, document.digest)?.media_type;
        let media_type = if said.is_empty() {
            document.media_type
        } else {
            said
        };
        let root = Descriptor::new(&media_type, document.digest, size);
        self.below(&document.bytes, document.digest, 0)?;
        let whole = Whole::read(&root, self.store, &self.from())?;
        self.parts(&whole.parts.values().cloned().collect::<Vec<_>>())?;
        Ok((root, whole))
    }

    fn links(&self, bytes: &[u8], digest: Digest) -> Result<read::Links, RegistryError> {
        read::links(bytes, &digest.to_string()).map_err(|error| self.unreadable(error))
    }

    /// The documents that one points to, and those below them.
    fn below(&self, bytes: &[u8], digest: Digest, depth: usize) -> Result<(), RegistryError> {
        // Deeper ones are refused when all of it is read.
        if depth < DEPTH {
            for entry in self.links(bytes, digest)?.documents {
                let bytes = self.by_digest("manifest", entry.digest, Some(entry.size))?;
                self.below(&bytes, entry.digest, depth + 1)?;
            }
        }
        Ok(())
    }

    /// All of one image, so that it is in the store. With an `index`, the manifest must be one of it.
    ///
    /// # Errors
    /// A part is not there or not what its digest says, or the network is needed and off: then all that is missing.
    pub fn image(
        &self,
        manifest: Digest,
        size: u64,
        index: Option<Digest>,
        platform: Platform,
    ) -> Result<(), RegistryError> {
        if let Some(index) = index {
            self.check_member(manifest, size, index, platform)?;
        }
        let bytes = self.by_digest("manifest", manifest, Some(size))?;
        let parsed = match BaseImage::manifest(ManifestDigest::new(manifest), &bytes) {
            Ok(parsed) => parsed,
            Err(BaseError::Read(error)) => return Err(self.unreadable(error)),
            Err(error) => {
                return Err(RegistryError::Protocol {
                    host: self.repository.host().to_owned(),
                    cause: error.to_string(),
                });
            }
        };
        let config = std::iter::once(Part::of("config", &parsed.config));
        let layers = parsed.layers.iter().map(|layer| Part::of("layer", layer));
        self.parts(&config.chain(layers).collect::<Vec<_>>())
    }

    fn check_member(
        &self,
        manifest: Digest,
        size: u64,
        index: Digest,
        platform: Platform,
    ) -> Result<(), RegistryError> {
        let bytes = self.by_digest("index", index, None)?;
        let parsed =
            read::document(&bytes, &index.to_string()).map_err(|error| self.unreadable(error))?;
        let is_member = |entry: &Descriptor| {
            let is_for = entry.platform.as_ref();
            entry.digest == manifest
                && entry.size == size
                && is_for.is_none_or(|it| it.known() == Some(platform))
        };
        match parsed {
            Parsed::Index(parsed) if parsed.manifests.iter().any(is_member) => Ok(()),
            _ => Err(RegistryError::NotInIndex {
                manifest,
                index,
                from: self.from(),
                platform: platform.to_string(),
            }),
        }
    }

    /// These blobs, the greatest first, several at once.
    ///
    /// # Errors
    /// As [`Self::image`].
    pub fn parts(&self, parts: &[Part]) -> Result<(), RegistryError> {
        let mut missing: Vec<&Part> = Vec::new();
        for part in parts {
            let is_known = missing.iter().any(|known| known.digest == part.digest);
            if !is_known && !self.store.has(&BlobId::new(part.digest))? {
                missing.push(part);
            }
        }
        if self.offline && !missing.is_empty() {
            let names = missing
                .iter()
                .map(|part| format!("{} {}", part.what, part.digest));
            return Err(self.offline(names.collect()));
        }
        missing.sort_by_key(|part| std::cmp::Reverse(part.size));
        let arrived = AtomicU64::new(0);
        several(missing.len(), self.threads, |at| {
            let seen = AtomicU64::new(0);
            let progress = |done: u64| {
                let more = done.saturating_sub(seen.swap(done, Ordering::Relaxed));
                (self.progress)(arrived.fetch_add(more, Ordering::Relaxed) + more);
            };
            self.client
                .blob(self.repository, missing[at], self.store, &progress)
        })
    }
}

/// Does several things at once. After a failure no further one is begun.
pub(super) fn several(
    count: usize,
    threads: NonZeroUsize,
    one: impl Fn(usize) -> Result<(), RegistryError> + Sync,
) -> Result<(), RegistryError> {
    let next = AtomicUsize::new(0);
    let failed: Mutex<Vec<RegistryError>> = Mutex::default();
    let worker = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return;
            }
            if let Err(error) = one(at) {
                next.store(count, Ordering::Relaxed);
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.push(error);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.get().min(CONNECTIONS).min(count) {
            scope.spawn(worker);
        }
        worker();
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    if failed.is_empty() {
        Ok(())
    } else {
        Err(RegistryError::of_all(failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_trickles_is_told_from_who_is_slow() {
        struct Slow(u64, usize);
        impl Read for Slow {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                std::thread::sleep(Duration::from_millis(self.0));
                Ok(self.1.min(buffer.len()))
            }
        }
        let span = Duration::from_millis(40);
        let read = |inner: Slow| {
            let mut paced = Paced::new(inner, span, 1000);
            (0..20).try_for_each(|_| paced.read(&mut [0; 64]).map(|_| ()))
        };
        assert!(read(Slow(5, 1)).is_err());
        assert!(read(Slow(5, 64)).is_ok());
        // The end is no slowness.
        assert!(read(Slow(50, 0)).is_ok());
    }
}
