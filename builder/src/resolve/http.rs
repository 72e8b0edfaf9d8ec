//! EFFECT: fetches files by `https`, `http` and `file` URLs into a store.
//!
//! The only home of `reqwest` and `rustls`. What is fetched is the bytes as served: no content encoding is asked for
//! and none is undone. Proxies of the environment (`HTTPS_PROXY`, `NO_PROXY`, …) carry bytes and cannot change them
//! unseen, since every pinned byte is checked.

pub mod exchange;

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use immbuild_cas::digest::{BlobId, Digest, Hasher};
use immbuild_cas::store::{Store, StoreError};
use reqwest::blocking::{Client, ClientBuilder, Response};
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, RETRY_AFTER};
use reqwest::{StatusCode, Url, redirect};

/// Most redirects followed for one URL.
const REDIRECTS: usize = 10;
/// Longest wait that a server's `Retry-After` may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// One file, and what is known about it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Where it comes from.
    pub url: &'a str,
    /// Where else it may come from, tried in order after `url`.
    pub mirrors: &'a [String],
    /// What it must be: the lock's digest, or the one asserted in the spec.
    pub expected: Option<Digest>,
    /// How long it is, where the lock says so.
    pub size: Option<u64>,
    /// Refuse the network; `file` URLs and what is in the store already still work.
    pub offline: bool,
}

/// How patient and how generous fetching is.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// How often one URL is tried when the failure may pass.
    pub attempts: u32,
    /// Wait before the second attempt; doubled before each further one.
    pub first_wait: Duration,
    /// Longest time to make a connection.
    pub connect: Duration,
    /// Longest time without a byte.
    pub idle: Duration,
    /// Most bytes of one file.
    pub limit: u64,
    /// The forms of an answer that are wanted, as `Accept` has them.
    pub accept: &'static str,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            attempts: 4,
            first_wait: Duration::from_millis(500),
            connect: Duration::from_secs(20),
            idle: Duration::from_secs(60),
            limit: 64 << 30,
            accept: "*/*",
        }
    }
}

/// A file that is in the store now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its content.
    pub blob: BlobId,
    /// Its length in bytes.
    pub size: u64,
}

/// Told while bytes arrive: how many so far, and how many there will be where the server says so.
pub type Progress<'a> = &'a dyn Fn(u64, Option<u64>);

/// Why a file was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Not a URL that can be fetched.
    #[error("`{url}` cannot be fetched: {reason}")]
    Url {
        /// The URL, without what may be secret in it.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The network is needed and not allowed.
    #[error("`{url}` is not in the store, and the network is off")]
    Offline {
        /// The URL.
        url: String,
    },
    /// Neither the URL nor a mirror gave the file.
    #[error("cannot fetch {attempts}")]
    Unreachable {
        /// What each URL answered.
        attempts: Attempts,
    },
    /// At least one of the URLs gave other bytes than those expected, and none gave the right ones.
    #[error("not the bytes of {expected}: {attempts}")]
    Mismatch {
        /// The digest asked for.
        expected: Digest,
        /// What each URL answered.
        attempts: Attempts,
    },
    /// The spec asserts one digest, the lock has another.
    #[error("the spec wants {asserted}, locked is {locked}")]
    Asserted {
        /// `sha256` in the spec.
        asserted: Digest,
        /// `sha256` in the lock.
        locked: Digest,
    },
    /// Nothing says where it is.
    #[error("nothing says where {what} is")]
    NoPlace {
        /// What it would be a part of.
        what: String,
    },
    /// The store did not take the file.
    #[error("cannot store a fetched file")]
    Store(#[from] StoreError),
}

/// One URL and how it failed, for each that was tried.
#[derive(Debug)]
pub struct Attempts(pub Vec<(String, Cause)>);

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (url, cause)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}`{url}`: {cause}")?;
        }
        Ok(())
    }
}

/// Why one URL did not give the file.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The server answered, and not with the file.
    #[error("HTTP status {0}")]
    Status(u16),
    /// The connection was not made, broke, or fell silent.
    #[error("{0}")]
    Transport(String),
    /// The server's certificate, or this machine's list of roots, is not good enough.
    #[error("not trusted: {0}")]
    Tls(String),
    /// Too many redirects, or one that leads from `https` to `http`.
    #[error("{0}")]
    Redirect(String),
    /// More bytes than the policy allows.
    #[error("larger than {0} bytes")]
    TooLarge(u64),
    /// A local file cannot be read.
    #[error("{0}")]
    File(io::Error),
    /// Other bytes than those expected.
    #[error("the bytes are those of {actual}")]
    Mismatch {
        /// Their digest.
        actual: Digest,
    },
}

impl Cause {
    /// May it work when tried again?
    fn may_pass(&self) -> bool {
        match self {
            Self::Status(status) => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            Self::Transport(_) => true,
            _ => false,
        }
    }
}

/// A client for the `http` and `git` transports with this program's name and patience.
///
/// TLS is rustls with the `ring` provider and the machine's own root certificates.
pub(super) fn client_builder(builder: ClientBuilder, policy: &Policy) -> ClientBuilder {
    static PROVIDER: OnceLock<()> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        // An error says that the process has a provider already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    builder
        .user_agent(concat!("immbuild/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(policy.connect)
        // In the blocking client this is the longest wait for the answer and for each further read, not for the whole.
        .timeout(policy.idle)
        .referer(false)
}

/// The digest a file must have, by what the spec asserts and what is locked.
///
/// # Errors
/// [`HttpError::Asserted`] when the two differ.
pub fn expected(
    asserted: Option<Digest>,
    locked: Option<Digest>,
) -> Result<Option<Digest>, HttpError> {
    match (asserted, locked) {
        (Some(asserted), Some(locked)) if asserted != locked => {
            Err(HttpError::Asserted { asserted, locked })
        }
        (asserted, locked) => Ok(locked.or(asserted)),
    }
}

/// Brings a file into the store, by connections of its own. [`Fetcher::fetch`] says the rest.
pub fn fetch(
    request: &Request<'_>,
    policy: &Policy,
    store: &dyn Store,
    progress: Progress<'_>,
) -> Result<Fetched, HttpError> {
    Fetcher::new(*policy).fetch(request, store, progress)
}

/// Fetches several files, over the same connections where servers allow it.
#[derive(Debug)]
pub struct Fetcher {
    policy: Policy,
    /// Made when the network is first needed.
    client: OnceLock<Client>,
}

impl Fetcher {
    /// One that is so patient.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            client: OnceLock::new(),
        }
    }

    /// As [`fetch`](Self::fetch), of at most so many bytes.
    pub fn fetch_at_most(
        &self,
        request: &Request<'_>,
        limit: u64,
        store: &dyn Store,
        progress: Progress<'_>,
    ) -> Result<Fetched, HttpError> {
        let policy = Policy {
            limit: limit.min(self.policy.limit),
            ..self.policy
        };
        fetch_with(request, &policy, &self.client, store, progress)
    }

    /// Brings a file into the store.
    ///
    /// Content that is expected and in the store already costs no network, nor, when its size is known, any reading. With
    /// `expected`, bytes that differ never enter the store.
    pub fn fetch(
        &self,
        request: &Request<'_>,
        store: &dyn Store,
        progress: Progress<'_>,
    ) -> Result<Fetched, HttpError> {
        fetch_with(request, &self.policy, &self.client, store, progress)
    }
}

fn fetch_with(
    request: &Request<'_>,
    policy: &Policy,
    client: &OnceLock<Client>,
    store: &dyn Store,
    progress: Progress<'_>,
) -> Result<Fetched, HttpError> {
    let urls = std::iter::once(request.url)
        .chain(request.mirrors.iter().map(String::as_str))
        .map(parse)
        .collect::<Result<Vec<Url>, HttpError>>()?;
    if let Some(known) = known(request, store) {
        return Ok(known);
    }
    let policy = &Policy {
        limit: request.size.unwrap_or(policy.limit).min(policy.limit),
        ..*policy
    };
    let mut attempts = Vec::new();
    for url in &urls {
        if request.offline && url.scheme() != "file" {
            continue;
        }
        let result = if url.scheme() == "file" {
            fetch_file(url, request.expected, policy, store, progress)
        } else {
            let client = match client.get() {
                Some(client) => client,
                None => match make_client(policy) {
                    Ok(made) => client.get_or_init(|| made),
                    Err(cause) => {
                        attempts.push((shown(url), cause));
                        continue;
                    }
                },
            };
            fetch_patiently(client, url, request.expected, policy, store, progress)
        };
        match result {
            Ok(fetched) => return Ok(fetched),
            Err(Fault::Store(error)) => return Err(error.into()),
            Err(Fault::Cause(cause)) => attempts.push((shown(url), cause)),
        }
    }
    if attempts.is_empty() {
        return Err(HttpError::Offline {
            url: shown(&urls[0]),
        });
    }
    let is_mismatch = attempts.iter().any(|(_, cause)| match cause {
        Cause::Mismatch { .. } => true,
        Cause::TooLarge(_) => request.size.is_some(),
        _ => false,
    });
    let attempts = Attempts(attempts);
    match request.expected {
        Some(expected) if is_mismatch => Err(HttpError::Mismatch { expected, attempts }),
        _ => Err(HttpError::Unreachable { attempts }),
    }
}

/// The file as the store has it; nothing when it is missing or turns out damaged.
fn known(request: &Request<'_>, store: &dyn Store) -> Option<Fetched> {
    let blob = BlobId::new(request.expected?);
    if !store.has(&blob).ok()? {
        return None;
    }
    let size = match request.size {
        Some(size) => size,
        None => io::copy(&mut store.open(&blob).ok()?, &mut io::sink()).ok()?,
    };
    Some(Fetched { blob, size })
}

/// Checks a URL before anything is sent anywhere.
pub(super) fn parse(text: &str) -> Result<Url, HttpError> {
    let refuse = |url: &str, reason| HttpError::Url {
        url: url.to_owned(),
        reason,
    };
    // What is no URL may still hold a password, so it is cut before it is shown.
    let url = Url::parse(text).map_err(|_| {
        let tail = text.rsplit('@').next().unwrap_or_default();
        refuse(tail, "it is no URL")
    })?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse(
            &shown(&url),
            "a user name or password in a URL ends up in logs",
        ));
    }
    match url.scheme() {
        "https" | "http" => Ok(url),
        "file" if url.to_file_path().is_ok() => Ok(url),
        "file" => Err(refuse(&shown(&url), "a `file` URL names no host")),
        _ => Err(refuse(
            &shown(&url),
            "only `https`, `http` and `file` are known",
        )),
    }
}

/// The URL that a reference in a document means, where the document came from `base`.
pub fn join(base: &str, reference: &str) -> Option<String> {
    let url = Url::parse(base).ok()?.join(reference).ok()?;
    Some(url.into())
}

/// The `file` URL of an absolute path.
pub fn file_url(path: &Path) -> Option<String> {
    Url::from_file_path(path).ok().map(String::from)
}

/// A URL as logs and messages may have it: without user, password, query and fragment, where secrets travel.
pub(super) fn shown(url: &Url) -> String {
    let mut text = format!("{}://", url.scheme());
    text.push_str(url.host_str().unwrap_or_default());
    if let Some(port) = url.port() {
        let _ = write!(text, ":{port}");
    }
    text.push_str(url.path());
    if url.query().is_some() {
        text.push_str("?…");
    }
    text
}

/// How fetching one URL fails: by itself, or because of the store.
enum Fault {
    Cause(Cause),
    Store(StoreError),
}

impl From<Cause> for Fault {
    fn from(cause: Cause) -> Self {
        Self::Cause(cause)
    }
}

fn fetch_file(
    url: &Url,
    expected: Option<Digest>,
    policy: &Policy,
    store: &dyn Store,
    progress: Progress<'_>,
) -> Result<Fetched, Fault> {
    let path = url.to_file_path().expect("checked when the URL was parsed");
    // Looked at before it is opened: opening a named pipe would wait for its writer.
    let status = std::fs::metadata(&path).map_err(Cause::File)?;
    if !status.is_file() {
        return Err(Cause::File(io::Error::other("not a regular file")).into());
    }
    let file = File::open(&path).map_err(Cause::File)?;
    put(file, Some(status.len()), expected, policy, store, progress)
}

fn make_client(policy: &Policy) -> Result<Client, Cause> {
    let redirects = redirect::Policy::custom(|attempt| {
        let secure_before = attempt
            .previous()
            .last()
            .is_some_and(|url| url.scheme() == "https");
        if attempt.previous().len() > REDIRECTS {
            attempt.error(RedirectError::TooMany)
        } else if secure_before && attempt.url().scheme() != "https" {
            attempt.error(RedirectError::Downgrade)
        } else {
            attempt.follow()
        }
    });
    client_builder(Client::builder(), policy)
        .redirect(redirects)
        .build()
        .map_err(|error| Cause::Tls(innermost(&error)))
}

#[derive(Debug, thiserror::Error)]
enum RedirectError {
    #[error("more than {REDIRECTS} redirects")]
    TooMany,
    #[error("a redirect from `https` to an unprotected URL")]
    Downgrade,
}

fn fetch_patiently(
    client: &Client,
    url: &Url,
    expected: Option<Digest>,
    policy: &Policy,
    store: &dyn Store,
    progress: Progress<'_>,
) -> Result<Fetched, Fault> {
    let mut wait = policy.first_wait;
    for attempt in 1.. {
        let (cause, asked) = match answer(client, url, policy.accept) {
            Ok(response) => {
                let total = response.content_length();
                match put(response, total, expected, policy, store, progress) {
                    Err(Fault::Cause(cause)) => (cause, None),
                    result => return result,
                }
            }
            Err(failed) => failed,
        };
        if attempt >= policy.attempts || !cause.may_pass() {
            return Err(cause.into());
        }
        thread::sleep(asked.unwrap_or(wait).min(LONGEST_WAIT));
        wait *= 2;
    }
    unreachable!("the last attempt returns")
}

/// The answer, if it is the file; else why not, and how long the server asks to wait.
fn answer(
    client: &Client,
    url: &Url,
    accept: &'static str,
) -> Result<Response, (Cause, Option<Duration>)> {
    let response = client
        .get(url.clone())
        .header(ACCEPT, accept)
        .header(ACCEPT_ENCODING, "identity")
        .send()
        .map_err(|error| (cause_of(&error), None))?;
    if response.status() == StatusCode::OK {
        return Ok(response);
    }
    let cause = Cause::Status(response.status().as_u16());
    Err((cause, retry_after(response.headers())))
}

/// RFC 9110 §10.2.3, the form in seconds. The form with a date would need a clock, and the usual wait does as well.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn cause_of(error: &reqwest::Error) -> Cause {
    if is_tls(error) {
        Cause::Tls(innermost(error))
    } else if error.is_redirect() {
        Cause::Redirect(innermost(error))
    } else if error.is_timeout() {
        Cause::Transport("no answer in time".into())
    } else {
        Cause::Transport(innermost(error))
    }
}

/// Is a failure of TLS among the causes? It hides in I/O errors, whose `source` skips what they hold.
fn is_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let held = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref);
    error.is::<rustls::Error>()
        || held.is_some_and(|held| is_tls(held))
        || error.source().is_some_and(is_tls)
}

/// The innermost of an error's causes: the layers of the client above it say only that a request failed.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |&error| error.source())
        .last()
        .map(ToString::to_string)
        .unwrap_or_default()
}

fn put(
    source: impl Read,
    total: Option<u64>,
    expected: Option<Digest>,
    policy: &Policy,
    store: &dyn Store,
    progress: Progress<'_>,
) -> Result<Fetched, Fault> {
    let failed = RefCell::new(None);
    let mut body = Body {
        source,
        total,
        done: 0,
        limit: policy.limit,
        expected,
        hasher: expected.map(|_| Hasher::new()),
        progress,
        failed: &failed,
    };
    let result = store.put(&mut body);
    match (result, failed.take()) {
        (_, Some(cause)) => Err(cause.into()),
        (Ok((blob, size)), None) => Ok(Fetched { blob, size }),
        (Err(error), None) => Err(Fault::Store(error)),
    }
}

/// What arrives, counted, limited and checked, so that the store aborts before it keeps anything wrong.
struct Body<'a, R> {
    source: R,
    total: Option<u64>,
    done: u64,
    limit: u64,
    expected: Option<Digest>,
    hasher: Option<Hasher>,
    progress: Progress<'a>,
    /// Set when reading fails, which tells this failure from one of the store.
    failed: &'a RefCell<Option<Cause>>,
}

impl<R: Read> Body<'_, R> {
    fn fail(&self, cause: Cause) -> io::Error {
        let text = cause.to_string();
        self.failed.replace(Some(cause));
        io::Error::other(text)
    }

    fn end(&mut self) -> io::Result<usize> {
        if let Some(total) = self.total
            && total != self.done
        {
            let text = format!("ended after {} of {total} bytes", self.done);
            return Err(self.fail(Cause::Transport(text)));
        }
        let actual = self.hasher.take().map(Hasher::finish);
        match (self.expected, actual) {
            (Some(expected), Some(actual)) if actual != expected => {
                Err(self.fail(Cause::Mismatch { actual }))
            }
            _ => Ok(0),
        }
    }
}

impl<R: Read> Read for Body<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = match self.source.read(buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => return Err(self.fail(Cause::Transport(innermost(&error)))),
        };
        if count == 0 {
            return self.end();
        }
        self.done += count as u64;
        if self.done > self.limit {
            return Err(self.fail(Cause::TooLarge(self.limit)));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count]);
        }
        (self.progress)(self.done, self.total);
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
