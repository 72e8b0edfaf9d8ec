//! Realises a graph with one [`Sandbox`]: every op as soon as its inputs are there, several at once.
//!
//! What comes out depends on no order of completion: results are kept by op id. Must never know how an action runs.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use immbuild_cas::digest::{BlobId, TreeId};
use immbuild_cas::path::RelPath;
use immbuild_cas::store::{BlobSource, Store, StoreError};
use immbuild_cas::tree::{Directory, Entry, Meta, Mode, Tree, TreeBuilder, TreeError};

use super::cache::{ActionCache, Beside, CacheError};
use crate::epoch::Epoch;
use crate::graph::action::{Action, ActionId, ActionInput, CacheState, Surroundings};
use crate::graph::apply::{FileOpError, apply_file_op};
use crate::graph::file_op::FileOp;
use crate::graph::op::{ExecOp, Op, OpId, OpKind, Pin};
use crate::graph::{Graph, Origin};
use crate::ports::{
    Event, Events, Executor, Had, Outcome, Ran, Realised, Run, Sandbox, SharedResults, SourceTree,
    Sources, Taint, WorkId,
};
use crate::spec::model::Tier;

/// Why a graph could not be realised. `R` is how a step fails, `S` how a source does.
#[derive(Debug, thiserror::Error)]
pub enum ExecError<R, S> {
    /// A source could not be had.
    #[error("cannot realise source `{name}`")]
    Source {
        /// The source's name.
        name: String,
        /// Why.
        source: S,
    },
    /// A step that executes failed, or could not be run.
    #[error("step `{}` failed", .origin.label())]
    Run {
        /// Which step.
        origin: Origin,
        /// Why.
        source: R,
    },
    /// A step that executes nothing cannot be done on this root.
    #[error("cannot do step `{}`", .origin.label())]
    File {
        /// Which step.
        origin: Origin,
        /// Why.
        source: FileOpError,
    },
    /// Packages cannot be put onto a root.
    #[error("cannot install for `{}`", .origin.label())]
    Install {
        /// Which step or source.
        origin: Origin,
        /// Why.
        source: S,
    },
    /// What a step unpacks is no archive, or no file.
    #[error("cannot unpack for step `{}`", .origin.label())]
    Unpack {
        /// Which step.
        origin: Origin,
        /// What is not a file of its source.
        path: RelPath,
        /// Why, when it is a file.
        source: Option<S>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A tree could not be read or made.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// It was asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl<R, S> From<CacheError> for ExecError<R, S> {
    fn from(error: CacheError) -> Self {
        match error {
            CacheError::Store(error) => Self::Store(error),
        }
    }
}

/// The embedded executor.
#[derive(Clone, Copy)]
pub struct Scheduler<'a, B, S> {
    /// Runs what executes.
    pub sandbox: &'a B,
    /// Gives what comes from outside.
    pub sources: &'a S,
    /// Where results are kept.
    pub store: &'a dyn Store,
    /// Where else there may be some.
    pub shared: Option<&'a dyn SharedResults>,
    /// Where content is found: the store, and files that were only hashed.
    pub blobs: &'a dyn BlobSource,
    /// Is told what goes on.
    pub events: &'a dyn Events,
    /// How many ops at once.
    pub threads: NonZeroUsize,
    /// Do everything again that executes, whatever is known.
    pub rerun: bool,
    /// Do everything again, whatever is known.
    pub forget: bool,
    /// Set by whoever wants it to stop.
    pub cancel: &'a AtomicBool,
}

type Failure<B, S> = ExecError<<B as Sandbox>::Error, <S as Sources>::Error>;

/// What the workers share.
struct Progress<E> {
    /// Ops whose inputs are all realised, by their place in the graph.
    ready: BTreeMap<usize, OpId>,
    /// How many inputs each of the others waits for.
    waiting: BTreeMap<OpId, usize>,
    results: BTreeMap<OpId, Known>,
    unfinished: usize,
    failure: Option<E>,
}

/// A result with what only later ops want to know of it.
#[derive(Clone, Debug)]
pub struct Known {
    /// The result.
    pub realised: Realised,
    /// The environment that a base image brings to steps.
    pub env: BTreeMap<String, String>,
}

impl<B: Sandbox, S: Sources> Executor for Scheduler<'_, B, S> {
    type Error = Failure<B, S>;

    fn realise(
        &self,
        graph: &Graph,
        wants: &[OpId],
    ) -> Result<BTreeMap<OpId, Realised>, Self::Error> {
        let needed = graph.reachable(wants);
        let places: BTreeMap<OpId, usize> = needed.iter().copied().zip(0..).collect();
        let mut users: BTreeMap<OpId, BTreeSet<OpId>> = BTreeMap::new();
        let mut progress = Progress {
            ready: BTreeMap::new(),
            waiting: BTreeMap::new(),
            results: BTreeMap::new(),
            unfinished: needed.len(),
            failure: None,
        };
        for id in &needed {
            let inputs: BTreeSet<OpId> = graph.op(*id).inputs.iter().copied().collect();
            if inputs.is_empty() {
                progress.ready.insert(places[id], *id);
            } else {
                progress.waiting.insert(*id, inputs.len());
            }
            for input in inputs {
                users.entry(input).or_default().insert(*id);
            }
        }

        let workers = self.threads.get().min(needed.len());
        let shared = (Mutex::new(progress), Condvar::new());
        std::thread::scope(|scope| {
            for _ in 1..workers {
                scope.spawn(|| self.work(graph, &places, &users, &shared));
            }
            self.work(graph, &places, &users, &shared);
        });
        let progress = shared
            .0
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        match progress.failure {
            Some(failure) => Err(failure),
            None => Ok(progress
                .results
                .into_iter()
                .map(|(id, known)| (id, known.realised))
                .collect()),
        }
    }
}

impl<B: Sandbox, S: Sources> Scheduler<'_, B, S> {
    /// Takes ready ops until there are none left or one failed.
    fn work(
        &self,
        graph: &Graph,
        places: &BTreeMap<OpId, usize>,
        users: &BTreeMap<OpId, BTreeSet<OpId>>,
        (progress, changed): &(Mutex<Progress<Failure<B, S>>>, Condvar),
    ) {
        let mut state = lock(progress);
        loop {
            if state.failure.is_some() || state.unfinished == 0 {
                return;
            }
            if self.cancel.load(Ordering::Relaxed) {
                state.failure = Some(ExecError::Interrupted);
                changed.notify_all();
                return;
            }
            let Some((_, id)) = state.ready.pop_first() else {
                state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let inputs: Vec<Known> = graph
                .op(id)
                .inputs
                .iter()
                .map(|input| state.results[input].clone())
                .collect();
            let lineage: Vec<OpId> = graph.lineage(id);
            let roots: Vec<TreeId> = boundaries(graph, &lineage[..lineage.len() - 1])
                .map(|root| state.results[&root].realised.tree)
                .collect();
            drop(state);

            let outcome = self.realise_op(graph, id, &inputs, &roots);

            state = lock(progress);
            match outcome {
                Ok(known) => {
                    state.results.insert(id, known);
                    state.unfinished -= 1;
                    for user in users.get(&id).into_iter().flatten() {
                        let left = state
                            .waiting
                            .get_mut(user)
                            .expect("an op waits until its last input is there");
                        *left -= 1;
                        if *left == 0 {
                            state.waiting.remove(user);
                            state.ready.insert(places[user], *user);
                        }
                    }
                }
                // The first failure is told; what fails after it may fail because of it.
                Err(error) => {
                    state.failure.get_or_insert(error);
                }
            }
            changed.notify_all();
        }
    }

    fn realise_op(
        &self,
        graph: &Graph,
        id: OpId,
        inputs: &[Known],
        roots: &[TreeId],
    ) -> Result<Known, Failure<B, S>> {
        let op = graph.op(id);
        let origin = graph.origin(id);
        match &op.kind {
            OpKind::Empty => self.empty(),
            OpKind::Source(pin) => self.source(id, pin, origin),
            OpKind::File(_) | OpKind::Unpack { .. } => self.file(graph, op, origin, inputs),
            OpKind::Exec(exec) => self.exec(op, exec, origin, &inputs[0], roots),
            OpKind::Install(_) | OpKind::Libraries(_) => self.install(op, origin, inputs),
        }
    }

    fn empty(&self) -> Result<Known, Failure<B, S>> {
        Ok(Known::empty(empty_root(self.store)?))
    }

    fn source(&self, id: OpId, pin: &Pin, origin: &Origin) -> Result<Known, Failure<B, S>> {
        let name = match origin {
            Origin::Source { name } => name.as_str(),
            Origin::Step { .. } | Origin::Start => "",
        };
        let source = self
            .sources
            .realise(id, pin, name)
            .map_err(|source| ExecError::Source {
                name: name.to_owned(),
                source,
            })?;
        Ok(Known::of_source(source))
    }

    /// A verb that executes nothing.
    fn file(
        &self,
        graph: &Graph,
        op: &Op,
        origin: &Origin,
        inputs: &[Known],
    ) -> Result<Known, Failure<B, S>> {
        let action = action_of(op, inputs, None);
        let taint = inputs.iter().fold(Taint::default(), |taint, input| {
            taint.and(input.realised.taint)
        });
        let cache = ActionCache::new(self.store);
        // What a file op gives is a pure function of its inputs, so `rerun` has nothing to find out here.
        if !self.forget
            && let Some(tree) = cache.get(action)?
        {
            return Ok(inputs[0].followed_by(tree, action, None, Had::Here, taint));
        }
        let base = self.store.tree(&inputs[0].realised.tree)?;
        let source = inputs
            .get(1)
            .map(|input| self.store.tree(&input.realised.tree))
            .transpose()?;
        let is_file = op
            .inputs
            .get(1)
            .is_some_and(|input| is_one_file(&graph.op(*input).kind));
        let tree = match &op.kind {
            OpKind::File(file_op) => {
                self.apply(file_op, &base, source.as_ref(), is_file, origin)?
            }
            OpKind::Unpack { from, to, unpack } => {
                let source = source.expect("an unpack op has a second input");
                let archive = self.archive(&source, from, is_file, origin)?;
                let unpacked =
                    self.sources
                        .unpack(&archive, *unpack)
                        .map_err(|error| ExecError::Unpack {
                            origin: origin.clone(),
                            path: from.clone(),
                            source: Some(error),
                        })?;
                let copy = FileOp::Copy {
                    from: RelPath::root(),
                    to: to.clone(),
                    include: Vec::new(),
                    exclude: Vec::new(),
                    mode: None,
                    dir_mode: None,
                    owner: None,
                };
                self.apply(&copy, &base, Some(&unpacked), false, origin)?
            }
            OpKind::Empty
            | OpKind::Source(_)
            | OpKind::Exec(_)
            | OpKind::Install(_)
            | OpKind::Libraries(_) => {
                unreachable!("realise_op sends only file ops here")
            }
        };
        let id = cache.put(action, &tree, Beside::default())?;
        Ok(inputs[0].followed_by(id, action, None, Had::Made, taint))
    }

    /// Packages onto a root, or libraries into it. Scripts are an op of their own.
    fn install(&self, op: &Op, origin: &Origin, inputs: &[Known]) -> Result<Known, Failure<B, S>> {
        let action = action_of(op, inputs, None);
        let taint = inputs.iter().fold(Taint::default(), |taint, input| {
            taint.and(input.realised.taint)
        });
        let cache = ActionCache::new(self.store);
        if !self.forget
            && let Some(tree) = cache.get(action)?
        {
            // What was said then is as true now.
            let said = cache.log(action)?.unwrap_or_default();
            self.warn(String::from_utf8_lossy(&said).lines());
            return Ok(inputs[0].followed_by(tree, action, None, Had::Here, taint));
        }
        let root = self.store.tree(&inputs[0].realised.tree)?;
        let packages = self.store.tree(&inputs[1].realised.tree)?;
        let installed = match &op.kind {
            OpKind::Install(install) => self.sources.install(install, &root, &packages),
            OpKind::Libraries(libraries) => self.sources.libraries(libraries, &root, &packages),
            _ => unreachable!("realise_op sends only these here"),
        };
        let (tree, warnings) = installed.map_err(|source| ExecError::Install {
            origin: origin.clone(),
            source,
        })?;
        self.warn(warnings.iter().map(String::as_str));
        let log = if warnings.is_empty() {
            None
        } else {
            Some(self.store.put_bytes(warnings.join("\n").as_bytes())?)
        };
        let beside = Beside {
            log,
            ..Beside::default()
        };
        let id = cache.put(action, &tree, beside)?;
        Ok(inputs[0].followed_by(id, action, None, Had::Made, taint))
    }

    fn warn<'w>(&self, warnings: impl Iterator<Item = &'w str>) {
        for text in warnings {
            self.events.event(Event::Warning {
                text: text.to_owned(),
                hint: None,
            });
        }
    }

    fn apply(
        &self,
        op: &FileOp,
        base: &Tree,
        source: Option<&Tree>,
        is_file: bool,
        origin: &Origin,
    ) -> Result<Tree, Failure<B, S>> {
        apply_file_op(op, base, source, is_file, self.store, self.blobs).map_err(|source| {
            ExecError::File {
                origin: origin.clone(),
                source,
            }
        })
    }

    /// The blob that is the archive at `path` of a source.
    fn archive(
        &self,
        source: &Tree,
        path: &RelPath,
        is_file: bool,
        origin: &Origin,
    ) -> Result<BlobId, Failure<B, S>> {
        let path = if is_file {
            crate::graph::file_op::one_file_path()
        } else {
            path.clone()
        };
        match TreeBuilder::from_tree(self.store, source).get(&path)? {
            Some(Entry::File(file)) => Ok(file.blob),
            _ => Err(ExecError::Unpack {
                origin: origin.clone(),
                path,
                source: None,
            }),
        }
    }

    fn exec(
        &self,
        op: &Op,
        exec: &ExecOp,
        origin: &Origin,
        input: &Known,
        roots: &[TreeId],
    ) -> Result<Known, Failure<B, S>> {
        let caches = self.sandbox.caches(exec, origin);
        let cache = ActionCache::new(self.store);
        let asked_in = |tier| {
            let policy = self.sandbox.policy(tier);
            let surroundings = surroundings(exec, &input.env, tier, policy, caches);
            let action = action_of(op, std::slice::from_ref(input), Some(&surroundings));
            if self.rerun || self.forget {
                return Ok((surroundings, action, None));
            }
            let here = cache.get(action)?.map(|tree| (tree, Had::Here));
            let known = here.or_else(|| {
                let root = input.realised.tree;
                let tree = self.shared?.result(action, root, origin)?;
                Some((tree, Had::Shared))
            });
            Ok::<_, Failure<B, S>>((surroundings, action, known))
        };
        let failed = |source| ExecError::Run {
            origin: origin.clone(),
            source,
        };
        // Whether this machine can keep the tier is asked when there is no result that did.
        let mut tier = exec.tier;
        let (mut surroundings, mut action, mut known) = asked_in(tier)?;
        if known.is_none() {
            tier = self.sandbox.tier(exec.tier).map_err(failed)?;
            if tier != exec.tier {
                (surroundings, action, known) = asked_in(tier)?;
            }
        }
        let taint = input.realised.taint.and(Taint {
            warm_cache: caches == CacheState::Warm,
            secret: !exec.secrets.is_empty(),
            downgraded: tier < exec.tier,
        });
        let work = WorkId(NEXT_WORK.fetch_add(1, Ordering::Relaxed));
        if let Some((tree, had)) = known {
            self.events.event(Event::Finished {
                id: work,
                outcome: Outcome::Cached,
            });
            return Ok(input.followed_by(tree, action, Some(tier), had, taint));
        }
        self.events.event(Event::Started {
            id: work,
            label: format!("{} {}", origin.label(), exec.argv.join(" ")),
            total: None,
        });
        let outcome = self.sandbox.run(&Run {
            op: exec,
            action,
            tier,
            origin,
            env: &surroundings.env,
            lineage: roots,
            times: input.realised.times,
            work,
        });
        self.events.event(Event::Finished {
            id: work,
            outcome: match outcome {
                Ok(_) => Outcome::Done,
                Err(_) => Outcome::Failed,
            },
        });
        let Ran { tree, evidence } = outcome.map_err(failed)?;
        let beside = Beside {
            evidence,
            ..Beside::default()
        };
        let id = cache.put(action, &tree, beside)?;
        Ok(input.followed_by(id, action, Some(tier), Had::Made, taint))
    }
}

static NEXT_WORK: AtomicU64 = AtomicU64::new(1);

impl Known {
    /// What comes from outside.
    pub fn of_source(source: SourceTree) -> Self {
        let SourceTree {
            tree,
            times,
            config,
            env,
            cached,
        } = source;
        Self {
            realised: Realised {
                tree,
                times,
                config,
                action: None,
                tier: None,
                had: if cached { Had::Here } else { Had::Made },
                taint: Taint::default(),
            },
            env,
        }
    }

    /// The root with nothing in it, which is this tree.
    pub fn empty(tree: TreeId) -> Self {
        Self::of_source(SourceTree {
            tree,
            times: None,
            config: None,
            env: BTreeMap::new(),
            cached: true,
        })
    }

    /// The same root, one step on.
    #[must_use]
    pub fn followed_by(
        &self,
        tree: TreeId,
        action: ActionId,
        tier: Option<Tier>,
        had: Had,
        taint: Taint,
    ) -> Self {
        Self {
            realised: Realised {
                tree,
                action: Some(action),
                tier,
                had,
                taint,
                ..self.realised.clone()
            },
            env: self.env.clone(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A worker that panics ends the build by its own panic; what it left is never read.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A root with nothing in it.
pub fn empty_root(store: &dyn Store) -> Result<TreeId, StoreError> {
    let root = store.put_directory(&Directory::new(Meta::root(Mode::DIRECTORY)))?;
    store.put_tree(&Tree::new(root))
}

/// The key of what an op gives on these inputs; `surroundings` are for an op that executes.
pub fn action_of(op: &Op, inputs: &[Known], surroundings: Option<&Surroundings>) -> ActionId {
    let input = |known: &Known| ActionInput {
        tree: known.realised.tree,
        times: known.realised.times,
    };
    Action {
        kind: &op.kind,
        inputs: inputs.iter().map(input).collect(),
        surroundings: surroundings.cloned(),
    }
    .id()
}

/// What a step depends on besides its definition and its root, whose base image brings `from`.
pub fn surroundings(
    exec: &ExecOp,
    from: &BTreeMap<String, String>,
    tier: Tier,
    policy: &'static str,
    caches: CacheState,
) -> Surroundings {
    Surroundings {
        env: environment(exec.epoch, from, &exec.env),
        tier,
        policy,
        caches,
    }
}

fn is_one_file(kind: &OpKind) -> bool {
    matches!(
        kind,
        OpKind::Source(Pin::Tree { file: true, .. } | Pin::Http { unpack: None, .. })
    )
}

/// The roots of a lineage that are snapshots of their own: its start, each that a step left behind, and its last.
pub fn boundaries<'a>(graph: &'a Graph, lineage: &'a [OpId]) -> impl Iterator<Item = OpId> + 'a {
    lineage
        .iter()
        .enumerate()
        .filter(move |(at, id)| {
            *at == 0 || *at + 1 == lineage.len() || matches!(graph.op(**id).kind, OpKind::Exec(_))
        })
        .map(|(_, id)| *id)
}

/// SPEC A, "Running": the constants, what `from` brings, what stage and step say. Later wins.
///
/// Part of format 1: changing it changes what steps see.
pub fn environment(
    epoch: Epoch,
    from: &BTreeMap<String, String>,
    own: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let constants = [
        (
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        ),
        ("HOME", "/root".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        ("TZ", "UTC".to_owned()),
        ("SOURCE_DATE_EPOCH", epoch.seconds().to_string()),
    ];
    constants
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .chain(from.clone())
        .chain(own.clone())
        .collect()
}
