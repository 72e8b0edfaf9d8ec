//! The traits that effects stand behind. Must never know an implementation.

use std::collections::BTreeMap;
use std::sync::Arc;

use immbuild_cas::digest::{BlobId, TreeId};
use immbuild_cas::tree::Tree;

use crate::graph::action::{ActionId, BaseTimes, CacheState};
use crate::graph::install::InstallOp;
use crate::graph::libraries::LibrariesOp;
use crate::graph::op::{ExecOp, OpId, Pin, Unpack};
use crate::graph::{Graph, Origin};
use crate::spec::model::Tier;

/// What a build tells while it goes on. Drawn by `ui`, written as JSON lines by `cli`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something that takes time begins.
    Started {
        /// Names this piece of work until it is finished.
        id: WorkId,
        /// What is done, for people: `build.2 make -j4`, `fetch tool`, `layer 3`.
        label: String,
        /// How many bytes there are to do, where it is known.
        total: Option<u64>,
    },
    /// So many bytes of it are done.
    Advanced {
        /// Which piece of work.
        id: WorkId,
        /// Bytes done since it started.
        done: u64,
    },
    /// A line that a step printed.
    Output {
        /// Which piece of work.
        id: WorkId,
        /// Without its line end; bytes that are no UTF-8 are replaced.
        line: String,
    },
    /// It is over.
    Finished {
        /// Which piece of work.
        id: WorkId,
        /// How it ended.
        outcome: Outcome,
    },
    /// Something a person should know, though it is no error.
    Warning {
        /// The sentence, without `warning:`.
        text: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

/// Names a piece of work among those going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkId(pub u64);

/// How a piece of work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// Its result was known already.
    Cached,
    /// It failed; the error says why.
    Failed,
}

/// Takes events. Called from several threads at once.
pub trait Events: Send + Sync {
    /// Takes one event. Must not block for long.
    fn event(&self, event: Event);
}

/// Takes events and does nothing with them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Events for Silent {
    fn event(&self, _event: Event) {}
}

/// Events shared between threads.
pub type SharedEvents = Arc<dyn Events>;

/// What an op gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Realised {
    /// The tree.
    pub tree: TreeId,
    /// What it has from a base image besides: the times of unchanged files.
    pub times: Option<BaseTimes>,
    /// The base image's config, where the root came from one.
    pub config: Option<BlobId>,
    /// The key it was found or kept by; none for a source.
    pub action: Option<ActionId>,
    /// What was guaranteed while it ran, where it executed.
    pub tier: Option<Tier>,
    /// Who did it.
    pub had: Had,
    /// What happened on the way here that whoever expects or publishes it must know.
    pub taint: Taint,
}

/// Who did what a result comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Had {
    /// This build.
    Made,
    /// An earlier build: it was known here.
    Here,
    /// Somebody else: it was taken from a shared cache now.
    Shared,
}

/// What keeps a result from being recorded, published or vouched for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taint {
    /// A step saw a cache directory that an earlier build had filled.
    pub warm_cache: bool,
    /// A step was given a secret.
    pub secret: bool,
    /// A step had a lesser tier than it asks for. Such a result is compared all the same.
    pub downgraded: bool,
}

impl Taint {
    /// What either had.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            warm_cache: self.warm_cache || other.warm_cache,
            secret: self.secret || other.secret,
            downgraded: self.downgraded || other.downgraded,
        }
    }
}

/// Realises a whole graph. The embedded executor wants actions, BuildKit wants definitions: both return trees.
pub trait Executor {
    /// Why it could not.
    type Error;

    /// The trees of `wants` and of all that they need.
    fn realise(
        &self,
        graph: &Graph,
        wants: &[OpId],
    ) -> Result<BTreeMap<OpId, Realised>, Self::Error>;
}

/// Gives the tree of a pinned source.
pub trait Sources: Send + Sync {
    /// Why it could not.
    type Error: Send;

    /// Fetches what is not in the store yet, checks it against the pin, and says what it is.
    fn realise(&self, op: OpId, pin: &Pin, name: &str) -> Result<SourceTree, Self::Error>;

    /// The tree of an archive among the files of a tree.
    fn unpack(&self, archive: &BlobId, unpack: Unpack) -> Result<Tree, Self::Error>;

    /// A root with packages on it, which are a tree of [`Pin::Packages`], and what a person should know about it.
    fn install(
        &self,
        op: &InstallOp,
        root: &Tree,
        packages: &Tree,
    ) -> Result<(Tree, Vec<String>), Self::Error>;

    /// A root with libraries in it, which are a tree of [`Pin::Libraries`], and what a person should know about it.
    fn libraries(
        &self,
        op: &LibrariesOp,
        root: &Tree,
        libraries: &Tree,
    ) -> Result<(Tree, Vec<String>), Self::Error>;
}

/// Results that others have made.
pub trait SharedResults: Send + Sync {
    /// What an action gave elsewhere on a root: its tree, which is then in the store with all it reaches, and kept as what the action
    /// gave. Where nobody who is believed has one there is none, and whatever goes wrong on the way is told and means the same.
    fn result(&self, action: ActionId, root: TreeId, origin: &Origin) -> Option<TreeId>;
}

/// A source as a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceTree {
    /// The tree.
    pub tree: TreeId,
    /// Times, where it is a base image.
    pub times: Option<BaseTimes>,
    /// The config, where it is a base image.
    pub config: Option<BlobId>,
    /// The environment that config brings to steps.
    pub env: BTreeMap<String, String>,
    /// Was it known already?
    pub cached: bool,
}

/// One process to be run.
#[derive(Clone, Debug)]
pub struct Run<'a> {
    /// What is run.
    pub op: &'a ExecOp,
    /// The key of its result.
    pub action: ActionId,
    /// What is guaranteed while it runs.
    pub tier: Tier,
    /// Where it comes from.
    pub origin: &'a Origin,
    /// Its whole environment.
    pub env: &'a BTreeMap<String, String>,
    /// The trees its root went through, oldest first, the root itself last; each but the first and last is what a
    /// step that executed left behind.
    pub lineage: &'a [TreeId],
    /// The times of files unchanged from a base image.
    pub times: Option<BaseTimes>,
    /// The piece of work it is, for events.
    pub work: WorkId,
}

/// What a process left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// What its root became.
    pub tree: Tree,
    /// What it did that could have differed, in the store, where that was made virtual.
    pub evidence: Option<BlobId>,
}

/// Runs one action hermetically.
pub trait Sandbox: Send + Sync {
    /// Why it could not, or how it failed.
    type Error: Send;

    /// Name and version of the policy of a tier: every constant that a step can see. Part of action ids.
    fn policy(&self, tier: Tier) -> &'static str;

    /// The tier that a step gets which asks for this one: it, or a lesser one where that is allowed. Asked only for a step
    /// that has to run.
    fn tier(&self, asked: Tier) -> Result<Tier, Self::Error>;

    /// Will the cache directories of this op be filled?
    fn caches(&self, op: &ExecOp, origin: &Origin) -> CacheState;

    /// Runs it and says what it left.
    fn run(&self, run: &Run<'_>) -> Result<Ran, Self::Error>;
}
