//! Runs one action of a graph in the sandbox: snapshots in, a tree out.
#![allow(clippy::disallowed_methods, reason = "is a directory empty")]

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use immbuild_cas::canonical::{Canonical as _, Encoder};
use immbuild_cas::digest::{BlobId, Digest, TreeId};
use immbuild_cas::path::RelPath;
use immbuild_cas::store::{BlobSource, LocalStore, Record, Scratch, Store as _, StoreError};
use immbuild_cas::tree::{Change, Delta, Tree, TreeError, Visit, delta, walk};

use super::key_material::{KeyError, predictable_keys};
use super::sandbox::{self, IdMap, Job, SandboxError, Status, Unsupported};
use super::tracer::evidence::Evidence;
use super::tracer::{self, Virtual};
use crate::epoch::Epoch;
use crate::graph::Origin;
use crate::graph::action::{ActionId, BaseTimes, CacheState};
use crate::graph::apply::{FileOpError, resolve_owner};
use crate::graph::op::ExecOp;
use crate::hostfs::HostFsError;
use crate::hostfs::ingest::{Ingested, ingest_upper};
use crate::hostfs::materialise::{Materialise, Materialised, Purpose, Times};
use crate::hostfs::owner::{Noteless, Owners, ROOT};
use crate::hostfs::seal::seal_upper;
use crate::layer::Mtimes;
use crate::ports::{Event, Events, Ran, Run, Sandbox};
use crate::spec::model::{Metadata, Tier};

/// Secrets by name.
pub type Secrets = BTreeMap<String, Vec<u8>>;

/// A stack of snapshots deeper than this is made into one.
const DEEPEST: usize = 100;

/// How much of a step's output is kept: the last so many bytes.
const LOG_MAX: usize = 4 << 20;

/// The sandbox of the embedded executor.
pub struct Embedded<'a> {
    /// Where results, snapshots and caches are.
    pub store: &'a LocalStore,
    /// Where content is.
    pub blobs: &'a dyn BlobSource,
    /// Is told what steps print.
    pub events: &'a dyn Events,
    /// Set when the process is asked to stop.
    pub cancel: &'a AtomicBool,
    /// The secrets that were given.
    pub secrets: &'a Secrets,
    /// Whose cache directories are mounted; none: they are empty.
    pub caches: Option<String>,
    /// Which ids there are.
    pub ids: IdMap,
    /// Steps whose tier this machine cannot keep run in tier `isolated`.
    pub allow_downgrade: bool,
    /// How many threads write a snapshot.
    pub threads: NonZeroUsize,
    /// One snapshot is made at a time, so that two steps on one root do not both make it.
    pub making: Mutex<()>,
    /// The times of base images that were decoded.
    pub tables: Mutex<BTreeMap<BlobId, Arc<Mtimes>>>,
}

/// Why a step failed, or could not be run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It ran and said so.
    #[error("{}", describe(.status))]
    Step {
        /// How it ended.
        status: Status,
        /// What was run.
        argv: Vec<String>,
        /// The last lines it printed.
        tail: String,
        /// The whole log, if it and what the step left could be kept.
        log: Option<BlobId>,
    },
    /// This machine cannot keep its tier.
    #[error("this machine cannot keep tier `{}`", .asked.as_str())]
    Tier {
        /// The tier it asks for.
        asked: Tier,
        /// What is lacking.
        source: Unsupported,
    },
    /// A secret it needs was not given.
    #[error("secret `{0}` was not given")]
    NoSecret(String),
    /// What it left holds a secret.
    #[error("`{path}` holds the secret `{name}`")]
    SecretLeaked {
        /// The file.
        path: RelPath,
        /// Which secret.
        name: String,
    },
    /// Who runs it is not known in its root.
    #[error("cannot tell who runs it")]
    User(#[source] FileOpError),
    /// The sandbox could not be made.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A root could not be written as a directory, or what a step left not be read.
    #[error(transparent)]
    HostFs(#[from] HostFsError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A tree could not be read or made.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A cache directory could not be made.
    #[error("cannot make the cache directory `{path}`")]
    Cache {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

fn describe(status: &Status) -> String {
    match status {
        Status::Exited(code) => format!("it exited with {code}"),
        Status::Signalled(signal) => format!("it was killed by signal {signal}"),
        Status::TimedOut => "it took longer than its `timeout`".into(),
        Status::Spun(spin) => spin.to_string(),
    }
}

impl From<KeyError> for RunError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Store(error) => error.into(),
            KeyError::Tree(error) => error.into(),
        }
    }
}

/// Name and version of what a step can see in a tier; part of what identifies its result.
const fn policy(tier: Tier) -> &'static str {
    match tier {
        Tier::Isolated => sandbox::POLICY,
        Tier::Deterministic => "deterministic/7",
        Tier::Strict => "strict/7",
    }
}

/// What a step gets in a tier instead of the machine's clock, randomness and file numbers, and, where only id 0 exists,
/// instead of its owners.
pub fn virtual_of(op: &ExecOp, tier: Tier, ids: IdMap) -> Option<Virtual> {
    (tier > Tier::Isolated).then(|| Virtual {
        epoch: op.epoch.seconds(),
        seed: op.seed(),
        metadata: match op.metadata {
            Metadata::Virtual => tracer::Metadata::Virtual,
            Metadata::Clamp => tracer::Metadata::Clamp,
        },
        strict: tier == Tier::Strict,
        owners: ids == IdMap::Single,
    })
}

/// A root as the sandbox wants it.
#[derive(Debug)]
pub struct Stack {
    /// Snapshots, topmost first.
    pub lowers: Vec<PathBuf>,
    /// The tree they show.
    pub tree: Tree,
    /// The times files of it have.
    times: Option<BaseTimes>,
    /// Where their owners are.
    owners: Owners,
}

impl Embedded<'_> {
    /// The root that a lineage ends with, as snapshots.
    pub fn stack(
        &self,
        lineage: &[TreeId],
        times: Option<BaseTimes>,
        epoch: Epoch,
        owners: Owners,
    ) -> Result<Stack, RunError> {
        let mut points = lineage.to_vec();
        points.dedup();
        let _one_at_a_time = lock(&self.making);
        let maker = SnapshotMaker {
            embedded: self,
            times,
            epoch,
            owners,
        };
        let top = points.len() - 1;
        let lowers = if points.len() > DEEPEST {
            maker.whole(points[top])?
        } else {
            let mut lowers = maker.whole(points[0])?;
            for pair in points.windows(2) {
                lowers.splice(0..0, maker.step(pair[0], pair[1])?);
            }
            lowers
        };
        Ok(Stack {
            lowers,
            tree: self.store.tree(&points[top])?,
            times,
            owners,
        })
    }

    /// Where the owners of a step's files are. They can be emulated for a step that is traced, and for no other.
    pub fn owners(&self, is_virtual: bool) -> Owners {
        match self.ids {
            IdMap::Single if is_virtual => Owners::Noted,
            ids => Owners::Real {
                highest: ids.highest(),
            },
        }
    }

    /// The owners that a root's links and pipes have, where notes say the others; root's are left out.
    pub fn noteless(&self, stack: &Stack) -> Result<Noteless, RunError> {
        let mut found = Noteless::new();
        if stack.owners != Owners::Noted {
            return Ok(found);
        }
        walk(self.store, &stack.tree, &mut |path, entry| {
            let owner = match entry {
                Visit::Symlink(link) => (link.uid, link.gid),
                Visit::Special(special) => (special.meta.uid, special.meta.gid),
                Visit::Directory(_) | Visit::File(_) => ROOT,
            };
            if owner != ROOT {
                found.insert(path.clone(), owner);
            }
            Ok::<(), TreeError>(())
        })?;
        Ok(found)
    }

    /// The lesser tier of steps that ask for this one, where this machine cannot keep it and that is allowed.
    pub fn lesser_tier(&self, asked: Tier) -> Option<Tier> {
        let lacks = || sandbox::tier_support().is_err();
        (self.allow_downgrade && asked > Tier::Isolated && lacks()).then_some(Tier::Isolated)
    }

    /// The times of a base image's files. A base has tens of thousands, and every step on it asks.
    fn table(&self, id: &BlobId) -> Result<Arc<Mtimes>, StoreError> {
        let mut tables = lock(&self.tables);
        if let Some(table) = tables.get(id) {
            return Ok(Arc::clone(table));
        }
        let table =
            Mtimes::decode_strict(&self.store.read(id)?).map_err(|source| StoreError::Decode {
                digest: *id.digest(),
                source,
            })?;
        let table = Arc::new(table);
        tables.insert(*id, Arc::clone(&table));
        Ok(table)
    }

    fn secrets_of(&self, op: &ExecOp) -> Result<Vec<(String, Vec<u8>)>, RunError> {
        op.secrets
            .iter()
            .map(|name| {
                let value = self
                    .secrets
                    .get(name)
                    .ok_or_else(|| RunError::NoSecret(name.clone()))?;
                Ok((name.clone(), value.clone()))
            })
            .collect()
    }

    /// The directories mounted at a step's `cache` paths.
    fn cache_directories(
        &self,
        op: &ExecOp,
        origin: &Origin,
        empty: Option<&Scratch>,
    ) -> Result<Vec<(RelPath, PathBuf)>, RunError> {
        let mut directories = Vec::new();
        for (at, number) in op.caches.iter().zip(0..) {
            let directory = match (&self.caches, empty) {
                (Some(owner), _) => self
                    .store
                    .path()
                    .join("caches")
                    .join(cache_key(owner, origin, at, self.ids).to_hex()),
                (None, Some(empty)) => empty.path().join(format!("cache-{number}")),
                (None, None) => unreachable!("there is a place for caches that are empty"),
            };
            std::fs::create_dir_all(&directory).map_err(|source| RunError::Cache {
                path: directory.clone(),
                source,
            })?;
            directories.push((at.clone(), directory));
        }
        Ok(directories)
    }

    fn warn(&self, run: &Run<'_>, ingested: &Ingested) {
        let step = run.origin.label();
        let sockets = ingested.sockets.iter().map(|path| {
            format!("step `{step}` left the socket `{path}`, which is no part of an image")
        });
        let attributes = ingested.dropped.iter().map(|(path, name)| {
            let name = String::from_utf8_lossy(name);
            format!(
                "step `{step}` set the attribute `{name}` of `{path}`, which is no part of an image"
            )
        });
        for text in sockets.chain(attributes) {
            self.events.event(Event::Warning { text, hint: None });
        }
    }

    /// What was made of virtual random bytes is no secret.
    fn warn_of_keys(
        &self,
        run: &Run<'_>,
        changes: &Delta,
        evidence: &Evidence,
        below: &Tree,
    ) -> Result<(), RunError> {
        let step = run.origin.label();
        for key in predictable_keys(changes, evidence, below, self.store, self.blobs)? {
            let path = &key.path;
            let made = match key.process {
                Some(process) => {
                    let argv = String::from_utf8_lossy(&process.argv.join(&b' ')).into_owned();
                    format!(
                        "`{}` of step `{step}` made the private key `{path}`",
                        argv.escape_debug()
                    )
                }
                None => format!("step `{step}` made the private key `{path}`"),
            };
            self.events.event(Event::Warning {
                text: format!(
                    "{made}: it is predictable, as anyone with the spec can make it again"
                ),
                hint: Some(
                    "make keys when the container starts, or give them to it then; what no one else may have is no part of an image"
                        .into(),
                ),
            });
        }
        Ok(())
    }

    /// No file that a step left may hold a secret it was given.
    fn refuse_leaks(&self, changes: &Delta, secrets: &[(String, Vec<u8>)]) -> Result<(), RunError> {
        for (path, change) in &changes.changes {
            let Change::File(file) = change else {
                continue;
            };
            // The line feed at the end of a secret's file is seldom part of it.
            let values = secrets
                .iter()
                .map(|(name, value)| (name, value.trim_ascii_end()));
            for (name, value) in values.filter(|(_, value)| !value.is_empty()) {
                if contains(&mut self.blobs.open(&file.blob)?, value)
                    .map_err(|error| immbuild_cas::store::read_error(file.blob.digest(), error))?
                {
                    return Err(RunError::SecretLeaked {
                        path: path.clone(),
                        name: name.clone(),
                    });
                }
            }
        }
        Ok(())
    }
}

impl Sandbox for Embedded<'_> {
    type Error = RunError;

    fn policy(&self, tier: Tier) -> &'static str {
        policy(tier)
    }

    fn tier(&self, asked: Tier) -> Result<Tier, RunError> {
        if asked == Tier::Isolated {
            return Ok(asked);
        }
        if let Some(lesser) = self.lesser_tier(asked) {
            return Ok(lesser);
        }
        sandbox::tier_support()
            .map(|()| asked)
            .map_err(|source| RunError::Tier { asked, source })
    }

    fn caches(&self, op: &ExecOp, origin: &Origin) -> CacheState {
        let filled = op.caches.iter().any(|at| {
            let Some(owner) = &self.caches else {
                return false;
            };
            let key = cache_key(owner, origin, at, self.ids).to_hex();
            let directory = self.store.path().join("caches").join(key);
            std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
        });
        if filled {
            CacheState::Warm
        } else {
            CacheState::Empty
        }
    }

    fn run(&self, run: &Run<'_>) -> Result<Ran, RunError> {
        let op = run.op;
        let secrets = self.secrets_of(op)?;
        let virtualise = virtual_of(op, run.tier, self.ids);
        let owners = self.owners(virtualise.is_some());
        let stack = self.stack(run.lineage, run.times, op.epoch, owners)?;
        let (uid, gid) =
            resolve_owner(&op.user, &stack.tree, self.store, self.blobs).map_err(RunError::User)?;
        let scratch = self.store.scratch("step")?;
        let empty = (self.caches.is_none() && !op.caches.is_empty())
            .then(|| self.store.scratch("caches"))
            .transpose()?;
        let job = Job {
            lowers: &stack.lowers,
            scratch: scratch.path(),
            argv: op
                .argv
                .iter()
                .map(|word| word.clone().into_bytes())
                .collect(),
            env: run
                .env
                .iter()
                .map(|(name, value)| (name.clone().into_bytes(), value.clone().into_bytes()))
                .collect(),
            directory: op.directory.clone(),
            uid,
            gid,
            caches: self.cache_directories(op, run.origin, empty.as_ref())?,
            secrets: secrets.clone(),
            timeout: op.timeout,
            terminal: false,
            read_only: false,
            virtualise,
            owners: self.noteless(&stack)?,
        };
        let mut log = Log::without(&secrets);
        let ended = sandbox::run(
            &job,
            self.ids,
            &mut |bytes| {
                for line in log.take(bytes) {
                    self.events.event(Event::Output { id: run.work, line });
                }
            },
            self.cancel,
        )?;
        let log = log.finish();
        if ended.status != Status::Exited(0) {
            return Err(RunError::Step {
                status: ended.status,
                argv: op.argv.clone(),
                tail: tail(&log),
                // A disk that the step filled must not hide why the step failed.
                log: keep_failed(self.store, run.action, &log, scratch).ok(),
            });
        }
        let ingested = ingest_upper(
            &ended.upper,
            &stack.tree,
            self.store,
            (owners == Owners::Noted).then_some(&ended.owners),
            self.threads,
        )?;
        self.warn(run, &ingested);
        let changes = delta(self.store, &stack.tree, &ingested.tree)?;
        self.refuse_leaks(&changes, &secrets)?;
        let evidence = virtualise.map(|_| ended.evidence.unwrap_or_default());
        if let Some(evidence) = &evidence {
            self.warn_of_keys(run, &changes, evidence, &stack.tree)?;
        }
        if !changes.changes.is_empty() {
            let maker = SnapshotMaker {
                embedded: self,
                times: stack.times,
                epoch: op.epoch,
                owners,
            };
            let known = maker.known(&ingested.tree)?;
            let times = Times {
                epoch: op.epoch,
                known: &known,
            };
            // Where it cannot be sealed it is written anew when a later step needs it.
            if seal_upper(&ended.upper, &changes, times, owners)? {
                let key = maker.key(Some(stack.tree.id()), ingested.tree.id());
                scratch.keep_only(sandbox::UPPER)?;
                self.store.publish_snapshot(&key, scratch)?;
            }
        }
        let evidence = evidence
            .map(|evidence| self.store.put_bytes(&evidence.to_canonical()))
            .transpose()?;
        Ok(Ran {
            tree: ingested.tree,
            evidence,
        })
    }
}

/// Finds snapshots or makes them.
struct SnapshotMaker<'a> {
    embedded: &'a Embedded<'a>,
    times: Option<BaseTimes>,
    epoch: Epoch,
    owners: Owners,
}

impl SnapshotMaker<'_> {
    /// The times of `tree`, as an image of it would show them: what no layer of our own holds has its time of the base
    /// image. A layer holds what changed and every directory above it.
    fn known(
        &self,
        tree: &Tree,
    ) -> Result<impl Fn(&RelPath) -> Option<(i64, u32)> + Sync + use<'_>, RunError> {
        let mut changed = BTreeSet::new();
        let mut table = None;
        if let Some(times) = self.times {
            let store = self.embedded.store;
            table = Some(self.embedded.table(&times.mtimes)?);
            let base = store.tree(&times.tree)?;
            for path in delta(store, &base, tree)?.changes.into_keys() {
                let mut above = path.parent();
                while let Some(directory) = above {
                    above = directory.parent();
                    if !changed.insert(directory) {
                        break;
                    }
                }
                changed.insert(path);
            }
        }
        Ok(move |path: &RelPath| {
            let time = table
                .as_ref()?
                .get(path)
                .filter(|_| !changed.contains(path))?;
            Some((time.seconds(), time.nanoseconds()))
        })
    }

    fn materialise<T>(
        &self,
        tree: &Tree,
        write: impl FnOnce(&Materialise<'_>) -> Result<T, HostFsError>,
    ) -> Result<T, RunError> {
        let known = self.known(tree)?;
        let embedded = self.embedded;
        Ok(write(&Materialise {
            directories: embedded.store,
            blobs: embedded.blobs,
            times: Times {
                epoch: self.epoch,
                known: &known,
            },
            purpose: Purpose::Snapshot {
                owners: self.owners,
            },
            threads: embedded.threads,
        })?)
    }

    /// Everything that decides what a snapshot shows.
    fn key(&self, lower: Option<TreeId>, upper: TreeId) -> Digest {
        let mut out = Encoder::default();
        out.str("snapshot");
        out.str(sandbox::POLICY);
        out.option(lower, |out, lower| out.digest(lower.digest()));
        out.digest(upper.digest());
        out.option(self.times, |out, times| {
            out.digest(times.tree.digest());
            out.digest(times.mtimes.digest());
        });
        out.i64(self.epoch.seconds());
        out.str(self.embedded.ids.name());
        out.bool(self.owners == Owners::Noted);
        Digest::of(&out.into_bytes())
    }

    /// A whole tree.
    fn whole(&self, id: TreeId) -> Result<Vec<PathBuf>, RunError> {
        let tree = self.embedded.store.tree(&id)?;
        self.find_or_make(&self.key(None, id), |into| {
            self.materialise(&tree, |materialise| materialise.tree(&tree, into))
        })
    }

    /// What one tree has over another.
    fn step(&self, lower: TreeId, upper: TreeId) -> Result<Vec<PathBuf>, RunError> {
        let store = self.embedded.store;
        let tree = store.tree(&upper)?;
        let changes = delta(store, &store.tree(&lower)?, &tree)?;
        self.find_or_make(&self.key(Some(lower), upper), |into| {
            self.materialise(&tree, |materialise| {
                materialise.delta(&tree, &changes, into)
            })
        })
    }

    fn find_or_make(
        &self,
        key: &Digest,
        make: impl FnOnce(&Path) -> Result<Materialised, RunError>,
    ) -> Result<Vec<PathBuf>, RunError> {
        let store = self.embedded.store;
        if let Some(found) = store.snapshot(key)? {
            return Ok(vec![found.join(sandbox::UPPER)]);
        }
        let scratch = store.scratch("snapshot")?;
        let into = scratch.path().join(sandbox::UPPER);
        std::fs::create_dir(&into).map_err(|source| RunError::Cache {
            path: into.clone(),
            source,
        })?;
        make(&into)?;
        Ok(vec![
            store.publish_snapshot(key, scratch)?.join(sandbox::UPPER),
        ])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One directory for each spec, stage and path.
fn cache_key(owner: &str, origin: &Origin, at: &RelPath, ids: IdMap) -> Digest {
    let stage = match origin {
        Origin::Step { stage, .. } => stage.as_str(),
        Origin::Source { .. } | Origin::Start => "",
    };
    let mut out = Encoder::default();
    out.str("cache");
    out.str(owner);
    out.str(stage);
    out.bytes(at.as_bytes());
    out.str(ids.name());
    Digest::of(&out.into_bytes())
}

const FAILED: &str = "failed";

fn failed_key(action: ActionId) -> Digest {
    let mut out = Encoder::default();
    out.str(FAILED);
    out.digest(action.digest());
    Digest::of(&out.into_bytes())
}

/// Keeps what a failed step left, for `immbuild shell`.
fn keep_failed(
    store: &LocalStore,
    action: ActionId,
    log: &[u8],
    scratch: Scratch,
) -> Result<BlobId, StoreError> {
    let log = store.put_bytes(log)?;
    let key = failed_key(action);
    scratch.keep_only(sandbox::UPPER)?;
    store.publish_snapshot(&key, scratch)?;
    let record = Record {
        value: Vec::new(),
        blobs: vec![log],
        trees: Vec::new(),
    };
    store.put_record(FAILED, action.digest(), &record)?;
    Ok(log)
}

/// What a failed step left over its root, if the store still has it.
pub fn failed_snapshot(
    store: &LocalStore,
    action: ActionId,
) -> Result<Option<PathBuf>, StoreError> {
    Ok(store
        .snapshot(&failed_key(action))?
        .map(|snapshot| snapshot.join(sandbox::UPPER)))
}

/// The logs of failed steps that the store still has, sorted.
pub fn failed_logs(store: &LocalStore) -> Result<Vec<BlobId>, StoreError> {
    let records = store.records(FAILED)?;
    let mut logs: Vec<BlobId> = records
        .into_iter()
        .flat_map(|(_, record)| record.blobs)
        .collect();
    logs.sort_unstable();
    logs.dedup();
    Ok(logs)
}

/// What a step printed, as lines and as the bytes that are kept.
#[derive(Debug, Default)]
struct Log {
    kept: Vec<u8>,
    line: Vec<u8>,
    /// What is never shown or kept.
    hidden: Vec<Vec<u8>>,
}

impl Log {
    /// One that hides these secrets, and the long lines of those that have several.
    fn without(secrets: &[(String, Vec<u8>)]) -> Self {
        const LONG: usize = 8;
        let mut hidden = Vec::new();
        for value in secrets.iter().map(|(_, value)| value.trim_ascii()) {
            let lines = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
            hidden.extend(lines.filter(|line| line.len() >= LONG).map(<[u8]>::to_vec));
            hidden.push(value.to_vec());
        }
        hidden.retain(|value| !value.is_empty());
        // A secret that holds another one goes first.
        hidden.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Self {
            hidden,
            ..Self::default()
        }
    }

    fn shown(&self, bytes: &[u8]) -> Vec<u8> {
        let mut shown = Vec::with_capacity(bytes.len());
        let mut rest = bytes;
        while let Some((first, after)) = rest.split_first() {
            if let Some(hidden) = self.hidden.iter().find(|hidden| rest.starts_with(hidden)) {
                shown.extend_from_slice(b"***");
                rest = &rest[hidden.len()..];
            } else {
                shown.push(*first);
                rest = after;
            }
        }
        shown
    }

    /// Takes bytes and gives the lines that are whole now.
    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        if self.kept.len() > 2 * LOG_MAX {
            self.kept.drain(..self.kept.len() - LOG_MAX);
        }
        self.kept.extend_from_slice(bytes);
        let mut lines = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' => {
                    lines.push(String::from_utf8_lossy(&self.shown(&self.line)).into_owned());
                    self.line.clear();
                }
                // A line that never ends is cut, so that it cannot fill the memory.
                _ if self.line.len() < 4096 => self.line.push(*byte),
                _ => {}
            }
        }
        lines
    }

    fn finish(self) -> Vec<u8> {
        self.shown(&self.kept)
    }
}

/// The last lines of a log.
fn tail(log: &[u8]) -> String {
    const LINES: usize = 20;
    let text = String::from_utf8_lossy(&log[log.len().saturating_sub(16 << 10)..]);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Is `needle` among the bytes of this reader, which is read to its end?
fn contains(reader: &mut dyn std::io::Read, needle: &[u8]) -> std::io::Result<bool> {
    let mut window = vec![0; (256 << 10) + needle.len()];
    let mut filled = 0;
    let mut found = false;
    loop {
        let count = reader.read(&mut window[filled..])?;
        if count == 0 {
            return Ok(found);
        }
        filled += count;
        found |= window[..filled]
            .windows(needle.len())
            .any(|part| part == needle);
        // What could be the beginning of it stays.
        let keep = filled.min(needle.len() - 1);
        window.copy_within(filled - keep..filled, 0);
        filled = keep;
    }
}
