//! `--cache-from`, `--cache-to`: what steps gave, in a repository that machines share.
//!
//! Only what was executed is shared. All else is a function of locked inputs that every machine computes for itself, and believes
//! nobody for.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use immbuild_cas::digest::{BlobId, HashingWriter, TreeId};
use immbuild_cas::store::{BlobSource as _, LocalStore, Store, StoreError};
use immbuild_cas::tree::Tree;
use immbuild_cas::tree::bundle::{self, BundleError};

use super::failure::{Exit, Failure};
use super::locate::finish;
use super::project::io_failure;
use super::scratch::ScratchPlace;
use super::session::Session;
use crate::diag::Diagnostic;
use crate::exec::cache::{ActionCache, Beside, CacheError};
use crate::graph::action::ActionId;
use crate::graph::op::{OpId, OpKind};
use crate::graph::{Graph, Origin};
use crate::layer::{Compressing, Compression, Limited, decoder};
use crate::ports::{Event, Realised, SharedResults, WorkId};
use crate::registry::{
    Client, KeyError, Part, Patience, PublicKey, Push, RegistryError, SecretKey, SharedResult,
    Statement,
};
use crate::spec::image_name::ImageRepository;

/// Who is believed about results of steps, and who this is to others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    /// File of the key that signs what is sent. Whoever has it is believed too.
    pub key: Option<PathBuf>,
    /// Whose results are taken.
    pub signers: BTreeSet<PublicKey>,
    /// Repositories whose results are taken unsigned: whoever may write there is believed.
    pub unsigned: BTreeSet<ImageRepository>,
}

/// A result that others may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sharable {
    /// Its key.
    pub action: ActionId,
    /// What the step began with.
    pub root: TreeId,
    /// What it gave.
    pub tree: TreeId,
    /// Which step: `build.2`.
    pub label: String,
}

/// What became of results that were to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Results that were sent, and bytes that travelled for them.
    pub given: (usize, u64),
    /// Results that were there.
    pub there: usize,
}

/// More bytes than what a step is known to have done has.
const EVIDENCE_MAX: u64 = 64 << 20;

/// Results of steps that may leave this machine, each once: none that saw a filled cache directory, or came after one. What a step
/// did with a secret is as in the image: the secret itself was looked for in it, and is not.
pub fn sharable(
    graph: &Graph,
    needed: &[OpId],
    realised: &BTreeMap<OpId, Realised>,
) -> Vec<Sharable> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for id in needed {
        let op = graph.op(*id);
        let result = &realised[id];
        let (OpKind::Exec(_), Some(action)) = (&op.kind, result.action) else {
            continue;
        };
        if result.taint.warm_cache || !seen.insert(action) {
            continue;
        }
        all.push(Sharable {
            action,
            root: realised[&op.inputs[0]].tree,
            tree: result.tree,
            label: graph.origin(*id).label(),
        });
    }
    all
}

/// The key that signs, where one is named.
fn own_key(sharing: &Sharing) -> Result<Option<SecretKey>, Failure> {
    let read = |path: &PathBuf| SecretKey::read(path).map_err(|error| key_failure(path, &error));
    sharing.key.as_ref().map(read).transpose()
}

fn key_failure(path: &Path, error: &KeyError) -> Failure {
    let cause = match error {
        KeyError::Io(error) => error.to_string(),
        KeyError::Form => error.to_string(),
    };
    Failure::new(
        Exit::Local,
        Diagnostic::error(format!("cannot use the key `{}`", path.display())),
    )
    .because(cause)
    .hint("`immbuild cache key FILE` makes one")
}

/// Everybody who is believed.
fn trusted(sharing: &Sharing, own: Option<&SecretKey>) -> BTreeSet<PublicKey> {
    let own = own.map(SecretKey::public);
    sharing.signers.iter().copied().chain(own).collect()
}

/// Can these repositories be used as what they are to be?
///
/// # Errors
/// The network is off, nobody is believed, or nothing signs.
pub fn check(
    session: &Session<'_>,
    from: &[ImageRepository],
    to: &[ImageRepository],
) -> Result<(), Failure> {
    let Some(first) = from.iter().chain(to).next() else {
        return Ok(());
    };
    if session.settings.offline {
        let message = format!("`{first}` is a cache in the network, and the network is off");
        return Err(Failure::new(Exit::Unreachable, Diagnostic::error(message))
            .hint("run it without `--offline`"));
    }
    let sharing = &session.settings.host.sharing;
    let own = own_key(sharing)?;
    let is_believed = |repository: &ImageRepository| sharing.unsigned.contains(repository);
    if trusted(sharing, own.as_ref()).is_empty()
        && let Some(from) = from.iter().find(|from| !is_believed(from))
    {
        let message = format!("nothing says who is believed about `{from}`");
        return Err(
            Failure::new(Exit::Usage, Diagnostic::error(message)).hint(format!(
                "name who signs in your `config.toml`: `cache.signers = [\"ed25519:…\"]`; or, if whoever may write there is to be believed: `cache.unsigned = [\"{from}\"]`"
            )),
        );
    }
    if own.is_none()
        && let Some(to) = to.iter().find(|to| !is_believed(to))
    {
        let message = format!("nothing signs what goes to `{to}`");
        return Err(Failure::new(Exit::Usage, Diagnostic::error(message)).hint(
            "make a key with `immbuild cache key FILE`, and name it in your `config.toml`: `cache.key = \"FILE\"`",
        ));
    }
    Ok(())
}

/// The public key of a file, which is made where it is not there; without a file that of `config.toml`.
///
/// # Errors
/// There is neither, or the file has something else.
pub fn key(sharing: &Sharing, file: Option<&Path>) -> Result<(PublicKey, bool), Failure> {
    let Some(path) = file.or(sharing.key.as_deref()) else {
        let message = "your `config.toml` names no key";
        return Err(Failure::new(Exit::Usage, Diagnostic::error(message))
            .hint("`immbuild cache key FILE` makes one; then name it: `cache.key = \"FILE\"`"));
    };
    match SecretKey::create(path) {
        Ok(key) => Ok((key.public(), true)),
        Err(KeyError::Io(error)) if error.kind() == io::ErrorKind::AlreadyExists => {
            let key = SecretKey::read(path).map_err(|error| key_failure(path, &error))?;
            Ok((key.public(), false))
        }
        Err(KeyError::Io(error)) => Err(io_failure("write", path, &error)),
        Err(error) => Err(key_failure(path, &error)),
    }
}

/// Why a result was not taken.
#[derive(Debug, thiserror::Error)]
enum TakeError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("it is signed by nobody who is believed")]
    Unsigned,
    #[error("its {what} has {size} bytes")]
    Size { what: &'static str, size: u64 },
    #[error("what it brings is not what it says: {0}")]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("what it brings cannot be decompressed: {0}")]
    Decompress(io::Error),
    #[error("{}", first_message(.0))]
    Local(Failure),
}

fn first_message(failure: &Failure) -> &str {
    failure
        .diagnostics
        .first()
        .map_or("", |first| first.message.as_str())
}

impl From<CacheError> for TakeError {
    fn from(CacheError::Store(error): CacheError) -> Self {
        Self::Store(error)
    }
}

/// Results of others, taken when a step would run.
pub struct SharedCache<'a> {
    session: &'a Session<'a>,
    client: Client<'a>,
    from: &'a [ImageRepository],
    trusted: BTreeSet<PublicKey>,
    /// Those that do not answer: they are asked no more.
    silent: Mutex<BTreeSet<ImageRepository>>,
}

static NEXT_WORK: AtomicU64 = AtomicU64::new(7 << 32);

impl<'a> SharedCache<'a> {
    /// None where nothing is to be taken.
    pub fn new(session: &'a Session<'a>, from: &'a [ImageRepository]) -> Option<Self> {
        if from.is_empty() {
            return None;
        }
        let sharing = &session.settings.host.sharing;
        // One that cannot be read was told by `check`.
        let own = own_key(sharing).ok().flatten();
        Some(Self {
            session,
            client: Client::new(
                &session.settings.host.registries,
                // What does not come can be made.
                Patience {
                    attempts: 2,
                    ..Patience::default()
                },
                session.cancel,
            ),
            from,
            trusted: trusted(sharing, own.as_ref()),
            silent: Mutex::default(),
        })
    }

    fn believes(&self, repository: &ImageRepository, result: &SharedResult) -> bool {
        let unsigned = &self.session.settings.host.sharing.unsigned;
        unsigned.contains(repository) || result.is_signed_by(&self.trusted)
    }

    fn take(
        &self,
        repository: &ImageRepository,
        action: ActionId,
        root: TreeId,
        label: &str,
    ) -> Result<Option<TreeId>, TakeError> {
        let Some(result) = self.client.result(repository, *action.digest())? else {
            return Ok(None);
        };
        if !self.believes(repository, &result) {
            return Err(TakeError::Unsigned);
        }
        let store = &self.session.store;
        let base = store.tree(&root)?;
        let tree = match here(store, &base, result.statement.tree)? {
            Some(tree) => tree,
            None => self.fetch(repository, &result, &base, label)?,
        };
        if let Some(evidence) = &result.evidence {
            if evidence.size > EVIDENCE_MAX {
                return Err(too_big(evidence));
            }
            self.client.blob(repository, evidence, store, &|_| {})?;
        }
        let beside = Beside {
            evidence: result.statement.evidence.map(BlobId::new),
            ..Beside::default()
        };
        Ok(Some(ActionCache::new(store).put(action, &tree, beside)?))
    }

    fn fetch(
        &self,
        repository: &ImageRepository,
        result: &SharedResult,
        base: &Tree,
        label: &str,
    ) -> Result<Tree, TakeError> {
        let length = result.statement.length;
        // Who signs says how long it is; frames that say nothing could make what is fetched any length.
        if result.bundle.size > length.saturating_add(length / 64 + 1024) {
            return Err(too_big(&result.bundle));
        }
        let place = ScratchPlace::new(self.session, "shared").map_err(TakeError::Local)?;
        let scratch = place.open().map_err(TakeError::Local)?;
        let work = WorkId(NEXT_WORK.fetch_add(1, Ordering::Relaxed));
        let events = self.session.events;
        events.event(Event::Started {
            id: work,
            label: format!("take {label}"),
            total: Some(result.bundle.size),
        });
        let progress = |done| events.event(Event::Advanced { id: work, done });
        let taken = self
            .client
            .blob(repository, &result.bundle, &scratch, &progress)
            .map_err(TakeError::from)
            .and_then(|()| {
                let compressed = scratch.open(&BlobId::new(result.bundle.digest))?;
                let plain = decoder(compressed).map_err(TakeError::Decompress)?;
                let mut plain = Limited::new(plain, length);
                let id = &result.statement.tree;
                Ok(bundle::read(
                    &mut plain,
                    id,
                    Some(base),
                    &self.session.store,
                )?)
            });
        finish(self.session, work, taken.is_ok());
        taken
    }

    /// Says why something is not taken. Who does not answer is asked no more.
    fn tell(&self, repository: &ImageRepository, label: &str, error: &TakeError) {
        let is_whole = matches!(
            error,
            TakeError::Registry(
                RegistryError::Unreachable { .. }
                    | RegistryError::Tls { .. }
                    | RegistryError::Unauthorized { .. }
                    | RegistryError::Credential { .. }
                    | RegistryError::Access { .. }
            )
        );
        if matches!(error, TakeError::Registry(RegistryError::Interrupted)) {
            return;
        }
        let text = if is_whole {
            let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
            if !silent.insert(repository.clone()) {
                return;
            }
            format!("nothing is taken from `{repository}`: {error}")
        } else {
            format!("what `{repository}` has of `{label}` is not taken: {error}")
        };
        self.session.events.event(Event::Warning {
            text,
            hint: Some("steps are run here instead".into()),
        });
    }
}

fn too_big(part: &Part) -> TakeError {
    TakeError::Size {
        what: part.what,
        size: part.size,
    }
}

/// A tree that is in the store with all that it has beyond the other, which is.
fn here(store: &LocalStore, base: &Tree, id: TreeId) -> Result<Option<Tree>, TakeError> {
    let gone = |error: &StoreError| {
        matches!(
            error,
            StoreError::Missing(_) | StoreError::Damaged { .. } | StoreError::Decode { .. }
        )
    };
    let tree = match store.tree(&id) {
        Ok(tree) => tree,
        Err(error) if gone(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let beyond = match bundle::beyond(store, &tree, Some(base)) {
        Ok(beyond) => beyond,
        Err(BundleError::Store(error)) if gone(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    for digest in beyond.keys() {
        if !store.has(&BlobId::new(*digest))? {
            return Ok(None);
        }
    }
    Ok(Some(tree))
}

impl SharedResults for SharedCache<'_> {
    fn result(&self, action: ActionId, root: TreeId, origin: &Origin) -> Option<TreeId> {
        let label = origin.label();
        for repository in self.from {
            let is_silent = || {
                let silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
                silent.contains(repository)
            };
            if is_silent() {
                continue;
            }
            match self.take(repository, action, root, &label) {
                Ok(Some(tree)) => return Some(tree),
                Ok(None) => {}
                Err(error) => self.tell(repository, &label, &error),
            }
        }
        None
    }
}

/// Sends results to a repository; those that are there are not sent again.
///
/// # Errors
/// The registry does not take one. Those before it are there.
pub fn send(
    session: &Session<'_>,
    results: &[Sharable],
    to: &ImageRepository,
) -> Result<Sent, Failure> {
    let sharing = &session.settings.host.sharing;
    let own = own_key(sharing)?;
    let trusted = trusted(sharing, own.as_ref());
    let client = session.registries();
    let work = WorkId(NEXT_WORK.fetch_add(1, Ordering::Relaxed));
    session.events.event(Event::Started {
        id: work,
        label: format!("send results to {to}"),
        total: None,
    });
    let mut sent = Sent::default();
    let outcome = results.iter().try_for_each(|result| {
        let known = match client.result(to, *result.action.digest()) {
            // What is there in another form is replaced.
            Err(RegistryError::Document { .. }) => None,
            known => known?,
        };
        let is_there = known.as_ref().is_some_and(|known| {
            if known.statement.tree != result.tree {
                return sharing.unsigned.contains(to) || known.is_signed_by(&trusted);
            }
            match &own {
                Some(own) => known.is_signed_by(&[own.public()].into()),
                None => true,
            }
        });
        match known {
            Some(known) if is_there => {
                sent.there += 1;
                if known.statement.tree != result.tree {
                    tell_other(session, result, &known, to);
                }
            }
            known => {
                sent.given.0 += 1;
                sent.given.1 += send_one(session, &client, result, known, own.as_ref(), to)?;
            }
        }
        session.events.event(Event::Advanced {
            id: work,
            done: sent.given.1,
        });
        Ok::<_, Failure>(())
    });
    finish(session, work, outcome.is_ok());
    outcome.map(|()| sent)
}

/// Whoever was first stays, so that everybody has the same; that there are two is told.
fn tell_other(
    session: &Session<'_>,
    result: &Sharable,
    known: &SharedResult,
    to: &ImageRepository,
) {
    session.events.event(Event::Warning {
        text: format!(
            "step `{}` gave {} here, and {} to who sent it to `{to}` first",
            result.label,
            result.tree.digest().short(),
            known.statement.tree.digest().short(),
        ),
        hint: Some(
            "it is not reproducible: `immbuild explain --sources` says what it reads".into(),
        ),
    });
}

fn send_one(
    session: &Session<'_>,
    client: &Client<'_>,
    result: &Sharable,
    known: Option<SharedResult>,
    own: Option<&SecretKey>,
    to: &ImageRepository,
) -> Result<u64, Failure> {
    let store = &session.store;
    let place = ScratchPlace::new(session, "shared")?;
    let scratch = place.open()?;
    let (base, tree) = (store.tree(&result.root)?, store.tree(&result.tree)?);
    let failed = |error: BundleError| match error {
        BundleError::Store(error) => Failure::from(error),
        error => Failure::of(Exit::Local, &error),
    };
    let mut out = Compressing::new(HashingWriter::new(scratch.incoming()?), Compression::Zstd)
        .map_err(|error| Failure::of(Exit::Defect, &error))?;
    let length = bundle::write(store, &tree, Some(&base), &mut out).map_err(failed)?;
    let out = out.finish().map_err(|error| failed(error.into()))?;
    let (written, digest, size) = out.finish();
    written.keep(BlobId::new(digest))?;
    let bundle = Part {
        what: "bundle",
        digest,
        size,
    };
    let beside = ActionCache::new(store)
        .beside(result.action)
        .map_err(|CacheError::Store(error)| error)?;
    let evidence = match beside.evidence {
        Some(blob) if store.has(&blob)? => {
            let (_, size) = scratch.put(&mut store.open(&blob)?)?;
            Some(Part {
                what: "evidence",
                digest: *blob.digest(),
                size,
            })
        }
        _ => None,
    };
    let mut shared = SharedResult {
        statement: Statement {
            action: *result.action.digest(),
            tree: result.tree,
            length,
            evidence: evidence.as_ref().map(|part| part.digest),
        },
        bundle,
        evidence,
        signatures: BTreeSet::new(),
    };
    // Who said the same before goes on saying it.
    if let Some(known) = known.filter(|known| known.statement == shared.statement) {
        shared.signatures = known.signatures;
    }
    if let Some(own) = own {
        shared.sign(own);
    }
    let pushed = Push {
        client,
        repository: to,
        blobs: &scratch,
        elsewhere: &BTreeMap::new(),
        threads: session.settings.threads,
        progress: &|_| {},
    }
    .result(&shared, &scratch)?;
    Ok(pushed.sent.1)
}
