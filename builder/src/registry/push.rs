//! To a registry: blobs first, then manifests by digest, tags last. Who fails on the way leaves no tag behind.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use immbuild_cas::digest::{BlobId, Digest};
use immbuild_cas::store::{BlobSource, StoreError, read_error};

use super::RegistryError;
use super::client::{Action, Ask, Client, Reply, nothing};
use super::pull::{Part, several};
use crate::image::descriptor::Descriptor;
use crate::image::json::MAX_JSON;
use crate::image::read::{self, ReadError};
use crate::resolve::http::exchange::{Method, Payload, with_query};
use crate::spec::image_name::ImageRepository;

/// How deep an index may stand in an index.
pub(super) const DEPTH: usize = 4;
/// How much is handed from the reader of a blob to the connection at once.
const PIECE: usize = 256 << 10;
/// The least that is sent at once where a registry refuses more.
const LEAST_CHUNK: usize = 64 << 10;
/// The most that a registry may ask to be sent at once: it is held in memory.
const MOST_CHUNK: u64 = 64 << 20;

/// Sends images.
pub struct Push<'a> {
    /// Asks.
    pub client: &'a Client<'a>,
    /// Where they go.
    pub repository: &'a ImageRepository,
    /// Has documents and blobs.
    pub blobs: &'a dyn BlobSource,
    /// Repositories of the same registry that have a blob already.
    pub elsewhere: &'a BTreeMap<Digest, ImageRepository>,
    /// How many blobs at once, but never more than four.
    pub threads: NonZeroUsize,
    /// Told how many bytes are there in all.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Blobs that were sent, and their bytes.
    pub sent: (usize, u64),
    /// Blobs that were there.
    pub there: usize,
    /// Blobs that came from another repository of the registry.
    pub mounted: usize,
}

/// An image with all it points to, in the order it is sent.
#[derive(Clone, Debug, Default)]
pub struct Whole {
    /// Documents, each after those it points to.
    pub documents: Vec<(Descriptor, Vec<u8>)>,
    /// Blobs by digest.
    pub parts: BTreeMap<Digest, Part>,
}

impl Whole {
    /// Reads every document below `root`.
    ///
    /// # Errors
    /// One is missing, damaged, or points to what cannot be sent.
    pub fn read(
        root: &Descriptor,
        blobs: &dyn BlobSource,
        from: &str,
    ) -> Result<Self, RegistryError> {
        let mut whole = Self::default();
        whole.add(root, blobs, from, 0)?;
        Ok(whole)
    }

    fn add(
        &mut self,
        descriptor: &Descriptor,
        blobs: &dyn BlobSource,
        from: &str,
        depth: usize,
    ) -> Result<(), RegistryError> {
        let digest = descriptor.digest;
        if self
            .documents
            .iter()
            .any(|(known, _)| known.digest == digest)
        {
            return Ok(());
        }
        let name = digest.to_string();
        let unreadable = |source| RegistryError::Document {
            from: from.to_owned(),
            source,
        };
        if depth >= DEPTH {
            return Err(unreadable(ReadError::Field {
                document: name,
                field: "manifests".into(),
                problem: format!("are nested more than {DEPTH} deep"),
            }));
        }
        let mut bytes = Vec::new();
        blobs
            .open(&BlobId::new(digest))?
            .take(MAX_JSON + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| read_error(&digest, error))?;
        let links = read::links(&bytes, &name).map_err(unreadable)?;
        let actual = bytes.len() as u64;
        if actual != descriptor.size {
            return Err(RegistryError::Size {
                what: format!("manifest {digest}"),
                from: from.to_owned(),
                expected: descriptor.size,
                actual,
            });
        }
        for entry in &links.documents {
            self.add(entry, blobs, from, depth + 1)?;
        }
        for (at, blob) in links.blobs.iter().enumerate() {
            self.parts.insert(
                blob.digest,
                Part {
                    what: if at == 0 { "config" } else { "layer" },
                    digest: blob.digest,
                    size: blob.size,
                },
            );
        }
        let mut descriptor = descriptor.clone();
        if !links.media_type.is_empty() {
            descriptor.media_type = links.media_type;
        }
        self.documents.push((descriptor, bytes));
        Ok(())
    }

    /// Bytes of all blobs.
    pub fn size(&self) -> u64 {
        self.parts.values().map(|part| part.size).sum()
    }
}

/// How a blob came to be there.
enum Arrival {
    Sent,
    There,
    Mounted,
}

/// An upload that was begun.
struct Session {
    url: String,
    /// The least that every part but the last must have.
    least: u64,
}

impl Push<'_> {
    /// Sends all of an image, then gives it these tags.
    ///
    /// # Errors
    /// The registry does not take a part, or the part cannot be read. Then no tag was moved.
    pub fn image(&self, whole: &Whole, tags: &[String]) -> Result<Pushed, RegistryError> {
        let mut parts: Vec<&Part> = whole.parts.values().collect();
        parts.sort_by_key(|part| std::cmp::Reverse(part.size));
        let pushed = Mutex::new(Pushed::default());
        let arrived = AtomicU64::new(0);
        several(parts.len(), self.threads, |at| {
            let part = parts[at];
            let arrival = self.blob(part)?;
            let mut pushed = pushed.lock().unwrap_or_else(PoisonError::into_inner);
            match arrival {
                Arrival::Sent => {
                    pushed.sent.0 += 1;
                    pushed.sent.1 += part.size;
                }
                Arrival::There => pushed.there += 1,
                Arrival::Mounted => pushed.mounted += 1,
            }
            (self.progress)(arrived.fetch_add(part.size, Ordering::Relaxed) + part.size);
            Ok(())
        })?;
        for (descriptor, bytes) in &whole.documents {
            self.document(descriptor, bytes, &descriptor.digest.to_string())?;
        }
        if let Some((descriptor, bytes)) = whole.documents.last() {
            for tag in tags {
                self.document(descriptor, bytes, tag)?;
            }
        }
        Ok(pushed.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends a manifest or index, by its digest or as a tag. Gives what the registry says it is about (`OCI-Subject`).
    ///
    /// # Errors
    /// The registry does not take it, or took it as something else.
    pub fn document(
        &self,
        descriptor: &Descriptor,
        bytes: &[u8],
        name: &str,
    ) -> Result<Option<String>, RegistryError> {
        self.client.go_on()?;
        let reply = self.ask(
            Method::Put,
            self.client
                .url(self.repository, &format!("manifests/{name}")),
            vec![("content-type", descriptor.media_type.clone())],
            &|| Payload::Bytes(bytes.to_vec()),
            bytes.len() as u64,
            true,
        )?;
        if !matches!(reply.answer.status(), 200..=202) {
            let separator = if name.contains(':') { '@' } else { ':' };
            let what = format!("the manifest `{}{separator}{name}`", self.repository);
            return Err(self.client.refused(reply, self.repository, what));
        }
        let said = reply.answer.header("docker-content-digest");
        if let Some(actual) = said.and_then(|said| said.parse::<Digest>().ok())
            && actual != descriptor.digest
        {
            return Err(RegistryError::Mismatch {
                what: "what became of the manifest".into(),
                from: self.repository.to_string(),
                expected: descriptor.digest,
                actual,
            });
        }
        Ok(reply.answer.header("oci-subject").map(str::to_owned))
    }

    fn ask(
        &self,
        method: Method,
        url: String,
        headers: Vec<(&'static str, String)>,
        payload: &dyn Fn() -> Payload,
        size: u64,
        again: bool,
    ) -> Result<Reply, RegistryError> {
        self.client.ask(&Ask {
            method,
            url,
            headers,
            payload,
            size,
            repository: self.repository,
            action: Action::Push,
            from: None,
            again,
        })
    }

    fn blob(&self, part: &Part) -> Result<Arrival, RegistryError> {
        let url = self
            .client
            .url(self.repository, &format!("blobs/{}", part.digest));
        let reply = self.ask(Method::Head, url, Vec::new(), &nothing, 0, true)?;
        match reply.answer.status() {
            // One of another length is none of ours, whatever it is called.
            200 if reply.answer.length().is_none_or(|size| size == part.size) => {
                return Ok(Arrival::There);
            }
            200 | 404 | 405 => {}
            _ => {
                let what = format!("to say whether it has {}", part.digest);
                return Err(self.client.refused(reply, self.repository, what));
            }
        }
        let Some(session) = self.begin(part, self.elsewhere.get(&part.digest))? else {
            return Ok(Arrival::Mounted);
        };
        self.upload(part, session)?;
        Ok(Arrival::Sent)
    }

    /// Begins an upload. None: the registry has it from another of its repositories.
    fn begin(
        &self,
        part: &Part,
        from: Option<&ImageRepository>,
    ) -> Result<Option<Session>, RegistryError> {
        let own = self.repository;
        let from = from.filter(|from| from.host() == own.host() && *from != own);
        let mut url = self.client.url(own, "blobs/uploads/");
        if let Some(from) = from {
            let digest = part.digest.to_string();
            let pairs = [("mount", digest.as_str()), ("from", from.path())];
            url = with_query(&url, &pairs).unwrap_or(url);
        }
        let reply = self.client.ask(&Ask {
            method: Method::Post,
            url,
            headers: Vec::new(),
            payload: &nothing,
            size: 0,
            repository: own,
            action: Action::Push,
            from,
            again: true,
        });
        let reply = match (reply, from) {
            // Who may not read there may still write here.
            (Err(RegistryError::Unauthorized { .. }), Some(_)) => return self.begin(part, None),
            (Ok(reply), Some(_)) if matches!(reply.answer.status(), 400 | 403 | 404 | 405) => {
                return self.begin(part, None);
            }
            (reply, _) => reply?,
        };
        match reply.answer.status() {
            201 if from.is_some() => Ok(None),
            202 => {
                let least = reply.answer.header("oci-chunk-min-length");
                let least = least.and_then(|least| least.parse().ok()).unwrap_or(0);
                let url = self.next(&reply)?;
                Ok(Some(Session { url, least }))
            }
            _ => {
                let what = format!("{} {}", part.what, part.digest);
                Err(self.client.refused(reply, own, what))
            }
        }
    }

    /// Where the upload goes on.
    fn next(&self, reply: &Reply) -> Result<String, RegistryError> {
        let url = Client::location(reply, self.repository)?;
        self.client
            .may_go(self.repository.host(), &reply.url, &url)?;
        Ok(url)
    }

    /// Sends it whole, and where that fails in pieces.
    fn upload(&self, part: &Part, session: Session) -> Result<(), RegistryError> {
        let mut wait = self.client.patience.first_wait;
        let mut session = Some(session);
        let mut cause = String::new();
        for attempt in 0..self.client.patience.attempts {
            if attempt > 0 {
                self.client.rest(wait)?;
                wait *= 2;
            }
            let session = match session.take() {
                Some(session) => session,
                None => match self.begin(part, None)? {
                    Some(session) => session,
                    None => return Ok(()),
                },
            };
            let outcome = if attempt == 0 {
                self.at_once(part, &session)
            } else {
                self.in_pieces(part, session)
            };
            match outcome {
                Ok(None) => return Ok(()),
                Ok(Some(said)) | Err(RegistryError::Unreachable { cause: said, .. }) => {
                    cause = said;
                }
                Err(error) => return Err(error),
            }
        }
        Err(RegistryError::Unreachable {
            url: self
                .client
                .url(self.repository, &format!("blobs/{}", part.digest)),
            cause,
            attempts: self.client.patience.attempts,
        })
    }

    /// OCI distribution-spec, "POST then PUT". Says why it may work in another way.
    fn at_once(&self, part: &Part, session: &Session) -> Result<Option<String>, RegistryError> {
        let url = closing(&session.url, part)?;
        let id = BlobId::new(part.digest);
        let broken: Mutex<Option<StoreError>> = Mutex::default();
        let outcome = thread::scope(|scope| {
            let payload = || {
                let (sender, pipe) = pipe();
                let (blobs, broken) = (self.blobs, &broken);
                scope.spawn(move || {
                    if let Err(error) = feed(blobs, &id, &sender) {
                        *broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    }
                });
                Payload::Stream(Box::new(pipe), part.size)
            };
            let headers = vec![("content-type", "application/octet-stream".to_owned())];
            self.ask(Method::Put, url, headers, &payload, part.size, false)
        });
        if let Some(error) = broken.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error.into());
        }
        self.closed(part, outcome?)
    }

    /// Is the upload complete? Else why it may work in another way.
    fn closed(&self, part: &Part, reply: Reply) -> Result<Option<String>, RegistryError> {
        match reply.answer.status() {
            200..=204 => {
                let said = reply.answer.header("docker-content-digest");
                match said.and_then(|said| said.parse::<Digest>().ok()) {
                    Some(actual) if actual != part.digest => Err(RegistryError::Mismatch {
                        what: format!("what became of the {}", part.what),
                        from: self.repository.to_string(),
                        expected: part.digest,
                        actual,
                    }),
                    _ => Ok(None),
                }
            }
            // Too much at once, a session that is gone, or a time that passes.
            status @ (404 | 408 | 411 | 413 | 416 | 429 | 500 | 502 | 503 | 504) => {
                Ok(Some(format!("HTTP status {status}")))
            }
            _ => {
                let what = format!("{} {}", part.what, part.digest);
                Err(self.client.refused(reply, self.repository, what))
            }
        }
    }

    /// OCI distribution-spec, "Pushing a blob in chunks". A piece that does not arrive is sent again from where the registry is.
    fn in_pieces(&self, part: &Part, session: Session) -> Result<Option<String>, RegistryError> {
        let chunk = self
            .client
            .patience
            .chunk
            .max(session.least)
            .min(MOST_CHUNK);
        let mut limit = usize::try_from(chunk).unwrap_or(usize::MAX).max(1);
        let mut url = session.url;
        let mut reader = self.blobs.open(&BlobId::new(part.digest))?;
        let mut offset = 0;
        let mut failures = 0;
        while offset < part.size {
            let mut piece = Vec::new();
            (&mut reader)
                .take(chunk)
                .read_to_end(&mut piece)
                .map_err(|error| read_error(&part.digest, error))?;
            if piece.is_empty() {
                return Err(RegistryError::Size {
                    what: format!("{} {}", part.what, part.digest),
                    from: "the store".into(),
                    expected: part.size,
                    actual: offset,
                });
            }
            let mut sent = 0;
            while sent < piece.len() {
                let now = &piece[sent..piece.len().min(sent + limit)];
                let first = offset + sent as u64;
                let headers = vec![
                    ("content-type", "application/octet-stream".to_owned()),
                    (
                        "content-range",
                        format!("{first}-{}", first + now.len() as u64 - 1),
                    ),
                ];
                let payload = || Payload::Bytes(now.to_vec());
                let size = now.len() as u64;
                let outcome = self.ask(Method::Patch, url.clone(), headers, &payload, size, false);
                let cause = match outcome {
                    Ok(reply) => match reply.answer.status() {
                        200..=204 => {
                            url = self.next(&reply)?;
                            sent += now.len();
                            failures = 0;
                            continue;
                        }
                        413 if limit > LEAST_CHUNK && session.least <= limit as u64 / 2 => {
                            limit /= 2;
                            continue;
                        }
                        // In such a session nothing goes on.
                        404 => return Ok(Some("HTTP status 404".into())),
                        status @ (408 | 416 | 429 | 500 | 502 | 503 | 504) => {
                            format!("HTTP status {status}")
                        }
                        _ => {
                            let what = format!("{} {}", part.what, part.digest);
                            return Err(self.client.refused(reply, self.repository, what));
                        }
                    },
                    Err(RegistryError::Unreachable { cause, .. }) => cause,
                    Err(error) => return Err(error),
                };
                failures += 1;
                if failures >= self.client.patience.attempts {
                    return Ok(Some(cause));
                }
                self.client
                    .rest(self.client.patience.first_wait * failures)?;
                let Some((there, location)) = self.progress_of(&url)? else {
                    return Ok(Some(cause));
                };
                url = location;
                // It may be anywhere in this piece; what is before it is gone from here.
                match there
                    .checked_sub(offset)
                    .and_then(|it| usize::try_from(it).ok())
                {
                    Some(at) if at <= piece.len() => sent = at,
                    _ => return Ok(Some(cause)),
                }
            }
            offset += piece.len() as u64;
        }
        let url = closing(&url, part)?;
        let reply = self.ask(Method::Put, url, Vec::new(), &nothing, 0, true)?;
        self.closed(part, reply)
    }

    /// How many bytes of an upload are there, and where it goes on; none where the registry does not know.
    fn progress_of(&self, url: &str) -> Result<Option<(u64, String)>, RegistryError> {
        let reply = self.ask(Method::Get, url.to_owned(), Vec::new(), &nothing, 0, true)?;
        if !matches!(reply.answer.status(), 200..=204) {
            return Ok(None);
        }
        let range = reply.answer.header("range").unwrap_or_default();
        let last = range.rsplit('-').next().unwrap_or_default().parse::<u64>();
        let url = match reply.answer.header("location") {
            Some(_) => self.next(&reply)?,
            None => url.to_owned(),
        };
        // `0-0` is what some say for nothing and others for one byte: nothing is sent twice where it is believed to be nothing.
        Ok(match last {
            Ok(0) => Some((0, url)),
            Ok(last) => Some((last + 1, url)),
            Err(_) => None,
        })
    }
}

/// Where an upload is closed.
fn closing(url: &str, part: &Part) -> Result<String, RegistryError> {
    let digest = part.digest.to_string();
    with_query(url, &[("digest", &digest)]).ok_or_else(|| RegistryError::Protocol {
        host: url.to_owned(),
        cause: "that is no URL".into(),
    })
}

type PieceOf = io::Result<Vec<u8>>;

/// What one thread reads, for another that must own what it sends.
struct Pipe {
    pieces: Receiver<PieceOf>,
    piece: Vec<u8>,
    at: usize,
}

fn pipe() -> (SyncSender<PieceOf>, Pipe) {
    let (sender, pieces) = sync_channel(2);
    let pipe = Pipe {
        pieces,
        piece: Vec::new(),
        at: 0,
    };
    (sender, pipe)
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() {
            match self.pieces.recv() {
                Ok(piece) => self.piece = piece?,
                Err(_) => return Ok(0),
            }
            self.at = 0;
        }
        let count = buffer.len().min(self.piece.len() - self.at);
        buffer[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// Reads a blob into a pipe. Where nobody wants more of it, that is no error.
fn feed(blobs: &dyn BlobSource, id: &BlobId, pipe: &SyncSender<PieceOf>) -> Result<(), StoreError> {
    let fail = |error: StoreError| {
        let _ = pipe.send(Err(io::Error::other(error.to_string())));
        Err(error)
    };
    let mut reader = match blobs.open(id) {
        Ok(reader) => reader,
        Err(error) => return fail(error),
    };
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        match (&mut reader).take(PIECE as u64).read_to_end(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) => return fail(read_error(id.digest(), error)),
        }
        if pipe.send(Ok(piece)).is_err() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use immbuild_cas::store::{MemoryStore, Store as _};

    use super::*;

    #[test]
    fn a_pipe_gives_what_was_read() {
        let store = MemoryStore::default();
        let bytes: Vec<u8> = (0..PIECE * 2 + 7)
            .map(|at| u8::try_from(at % 251).expect("small"))
            .collect();
        let id = store.put_bytes(&bytes).expect("kept");
        let (sender, mut pipe) = pipe();
        let mut read = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                let sender = sender;
                feed(&store, &id, &sender)
            });
            pipe.read_to_end(&mut read).expect("read");
        });
        assert_eq!(read, bytes);
    }
}
