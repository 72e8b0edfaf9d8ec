//! Why each op will run, or why not: what a build would find in the store, without building.

use std::collections::{BTreeMap, BTreeSet};

use immbuild_cas::digest::TreeId;

use super::build::BuildRequest;
use super::failure::Failure;
use super::memory;
use super::pins::Pinned;
use super::planned::{At, Planned, planned};
use super::project::Project;
use super::realise::{Options, Provider, sandbox};
use super::session::Session;
use crate::exec::cache::{ActionCache, CacheError};
use crate::exec::embedded::{Embedded, failed_snapshot};
use crate::exec::scheduler::{Known, action_of, surroundings};
use crate::exec::tracer::evidence::Evidence;
use crate::graph::action::{ActionId, CacheState};
use crate::graph::op::{Op, OpId, OpKind};
use crate::graph::{Graph, Origin};
use crate::ports::{Had, Sandbox as _, Taint};
use crate::spec::model::{Ident, Tier};

/// What a build would do with an op.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing: its result is in the store.
    Cached,
    /// Nothing: this source is here.
    Here,
    /// Bring this source here.
    Fetched,
    /// Run it.
    Runs,
    /// Run these first. If what they give is what they gave before, its result is known, else it runs.
    Waits(BTreeSet<String>),
}

impl Fate {
    /// The word for it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Cached => "cached",
            Self::Here => "here",
            Self::Fetched => "fetch",
            Self::Runs => "run",
            Self::Waits(_) => "wait",
        }
    }
}

/// What tells an op from the one the spec's last build had in its place, or why what that build left is no use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The store remembers no build of this spec.
    FirstBuild,
    /// The last build had no such step or source.
    New,
    /// What it does is not what it was: the text of the step, or the content of the source.
    Changed,
    /// This op, which it starts from or copies from, is not what it was.
    Input(String),
    /// It ran like this before and failed.
    Failed,
    /// Its cache directories hold what an earlier run left, and its result was made with empty ones.
    WarmCache,
    /// As far as is remembered it is what it was, but there is no result: it was dropped from the store, or the sandbox
    /// or the base image's environment is another.
    Lost,
}

impl Reason {
    /// The word for machines.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::FirstBuild => "first-build",
            Self::New => "new",
            Self::Changed => "changed",
            Self::Input(_) => "input",
            Self::Failed => "failed",
            Self::WarmCache => "warm-cache",
            Self::Lost => "lost",
        }
    }
}

/// An op and what would become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// Its label: `build.2`, `source tools`.
    pub label: String,
    /// The step in one line; empty for a source.
    pub text: String,
    /// Its id.
    pub op: OpId,
    /// The key of its result, where its inputs are known.
    pub action: Option<ActionId>,
    /// What a build would do.
    pub fate: Fate,
    /// What changed since the last build, and why it runs. Sorted.
    pub reasons: Vec<Reason>,
    /// How its result came about, where it executed, has one, and this was asked for.
    pub trace: Option<Trace>,
}

/// How a result came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// What was guaranteed.
    pub tier: Tier,
    /// What its processes did; none in tier `isolated`, where nobody looks.
    pub evidence: Option<Evidence>,
}

/// Explains every op of the spec, or of one stage or step of it, inputs first; with `sources`, also what processes did.
pub fn explain(
    session: &Session<'_>,
    project: &Project,
    at: Option<&At>,
    options: &Options,
    sources: bool,
) -> Result<Vec<Explained>, Failure> {
    let request = BuildRequest {
        // To explain is to change nothing, so a missing lock is not made.
        locked: true,
        stage: at.map(|at| at.stage.clone()),
        options: options.clone(),
        ..BuildRequest::default()
    };
    let planned = planned(session, project, &request)?;
    if let Some(At {
        step: Some(step), ..
    }) = at
    {
        let platform = *planned.plans.keys().next().expect("a spec has a platform");
        planned.root(platform, Some(*step))?;
    }
    let stage = planned.stage.as_str();
    let spec = project.memory();
    let last = match memory::last(session, &spec, stage)? {
        None if stage != Ident::IMAGE => memory::last(session, &spec, Ident::IMAGE)?,
        last => last,
    };
    let last = last.map(|built| Remembered::new(&built.ops));
    let blobs = planned.pinned.blobs(&session.store);
    let forecast = Forecast {
        session,
        project,
        graph: &planned.graph,
        pinned: &planned.pinned,
        sandbox: &sandbox(session, project, &blobs, options),
        last: last.as_ref(),
        sources,
    };
    let explained = forecast.all(&planned)?;
    Ok(explained
        .into_iter()
        .filter(|(id, _)| at.is_none_or(|at| is_meant(planned.graph.origin(*id), at)))
        .map(|(_, explained)| explained)
        .collect())
}

fn is_meant(origin: &Origin, at: &At) -> bool {
    match origin {
        Origin::Step { stage, number, .. } => {
            *stage == at.stage && at.step.is_none_or(|step| step == *number)
        }
        Origin::Source { .. } | Origin::Start => false,
    }
}

/// The ops of the last build, by label; the n-th of a label is the one of the n-th platform.
#[derive(Debug)]
struct Remembered(BTreeMap<(String, usize), OpId>);

impl Remembered {
    fn new(ops: &[(String, OpId)]) -> Self {
        Self(numbered(ops.iter().cloned()).collect())
    }
}

/// Tells ops of one label apart by their number among them.
fn numbered(
    ops: impl Iterator<Item = (String, OpId)>,
) -> impl Iterator<Item = ((String, usize), OpId)> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    ops.map(move |(label, id)| {
        let number = seen.entry(label.clone()).or_default();
        *number += 1;
        ((label, *number), id)
    })
}

/// What the ops of this graph have that the last build's did not.
fn changes(graph: &Graph, ids: &[OpId], last: Option<&Remembered>) -> BTreeMap<OpId, Vec<Reason>> {
    let Some(Remembered(last)) = last else {
        return ids
            .iter()
            .map(|id| (*id, vec![Reason::FirstBuild]))
            .collect();
    };
    let labels = numbered(ids.iter().map(|id| (graph.origin(*id).label(), *id)));
    let labels: BTreeMap<OpId, (String, usize)> = labels.map(|(label, id)| (id, label)).collect();
    let change = |id: &OpId| {
        let Some(before) = last.get(&labels[id]) else {
            return vec![Reason::New];
        };
        if before == id {
            return Vec::new();
        }
        let op = graph.op(*id);
        let mut reasons: Vec<Reason> = Vec::new();
        let mut before_inputs = Some(Vec::new());
        for input in &op.inputs {
            let was = last.get(&labels[input]).copied();
            if was != Some(*input) {
                reasons.push(Reason::Input(labels[input].0.clone()));
            }
            before_inputs = before_inputs.zip(was).map(|(mut inputs, was)| {
                inputs.push(was);
                inputs
            });
        }
        // An id is made of a definition and of inputs: with the inputs of then it is the id of then, unless the
        // definition is another. What an input is that there was not then cannot be told apart.
        if let Some(inputs) = before_inputs {
            let kind = op.kind.clone();
            if (Op { kind, inputs }).id() != *before {
                reasons.push(Reason::Changed);
            }
        }
        reasons.sort();
        reasons.dedup();
        reasons
    };
    ids.iter().map(|id| (*id, change(id))).collect()
}

/// Follows a graph as far as results are known.
struct Forecast<'a> {
    session: &'a Session<'a>,
    project: &'a Project,
    graph: &'a Graph,
    pinned: &'a Pinned,
    sandbox: &'a Embedded<'a>,
    last: Option<&'a Remembered>,
    sources: bool,
}

impl Forecast<'_> {
    fn all(&self, planned: &Planned) -> Result<Vec<(OpId, Explained)>, Failure> {
        let ids = self.graph.reachable(&planned.wants);
        let mut changes = changes(self.graph, &ids, self.last);
        let mut known: BTreeMap<OpId, Known> = BTreeMap::new();
        let mut open: BTreeMap<OpId, BTreeSet<String>> = BTreeMap::new();
        let mut explained = Vec::new();
        for id in ids {
            let origin = self.graph.origin(id);
            let op = self.graph.op(id);
            let mut reasons = changes.remove(&id).unwrap_or_default();
            let waits: BTreeSet<String> = op
                .inputs
                .iter()
                .flat_map(|input| open.get(input).into_iter().flatten().cloned())
                .collect();
            let mut action = None;
            let mut trace = None;
            let fate = match &op.kind {
                // It is there before anything is, and nothing can be said of it.
                OpKind::Empty => {
                    known.insert(id, self.empty()?);
                    continue;
                }
                OpKind::Source(pin) => {
                    let provider = Provider {
                        session: self.session,
                        project: self.project,
                        pinned: self.pinned,
                        forget: false,
                    };
                    match provider.here(pin)? {
                        Some(source) => {
                            known.insert(id, Known::of_source(source));
                            Fate::Here
                        }
                        None => Fate::Fetched,
                    }
                }
                _ if !waits.is_empty() => Fate::Waits(waits.clone()),
                _ => {
                    let inputs: Vec<Known> =
                        op.inputs.iter().map(|input| known[input].clone()).collect();
                    let (mut key, mut tier) = (self.action(op, origin, &inputs, None, None), None);
                    let mut result = self.result(key)?;
                    if let OpKind::Exec(exec) = &op.kind {
                        tier = Some(exec.tier);
                        if result.is_none()
                            && let Some(lesser) = self.sandbox.lesser_tier(exec.tier)
                        {
                            tier = Some(lesser);
                            key = self.action(op, origin, &inputs, tier, None);
                            result = self.result(key)?;
                        }
                    }
                    action = Some(key);
                    if let Some(tree) = result {
                        let taint = Taint::default();
                        known.insert(id, inputs[0].followed_by(tree, key, tier, Had::Here, taint));
                        if self.sources
                            && let Some(tier) = tier
                        {
                            trace = Some(Trace {
                                tier,
                                evidence: self.evidence(key)?,
                            });
                        }
                        Fate::Cached
                    } else {
                        let more = self.why(op, origin, &inputs, (key, tier), &reasons)?;
                        reasons.extend(more);
                        reasons.sort();
                        Fate::Runs
                    }
                }
            };
            match &fate {
                Fate::Cached | Fate::Here => {}
                Fate::Fetched | Fate::Runs => drop(open.insert(id, [origin.label()].into())),
                Fate::Waits(_) => drop(open.insert(id, waits)),
            }
            let text = match origin {
                Origin::Step { text, .. } => text.clone(),
                Origin::Source { .. } | Origin::Start => String::new(),
            };
            let label = origin.label();
            explained.push((
                id,
                Explained {
                    label,
                    text,
                    op: id,
                    action,
                    fate,
                    reasons,
                    trace,
                },
            ));
        }
        Ok(explained)
    }

    /// Why there is no result, besides what changed.
    fn why(
        &self,
        op: &Op,
        origin: &Origin,
        inputs: &[Known],
        (key, tier): (ActionId, Option<Tier>),
        changed: &[Reason],
    ) -> Result<Option<Reason>, Failure> {
        if failed_snapshot(&self.session.store, key)?.is_some() {
            return Ok(Some(Reason::Failed));
        }
        let with_empty = self.action(op, origin, inputs, tier, Some(CacheState::Empty));
        if with_empty != key && self.result(with_empty)?.is_some() {
            return Ok(Some(Reason::WarmCache));
        }
        Ok(changed.is_empty().then_some(Reason::Lost))
    }

    fn action(
        &self,
        op: &Op,
        origin: &Origin,
        inputs: &[Known],
        tier: Option<Tier>,
        caches: Option<CacheState>,
    ) -> ActionId {
        action_here(op, origin, inputs, self.sandbox, tier, caches)
    }

    fn result(&self, action: ActionId) -> Result<Option<TreeId>, Failure> {
        let found = ActionCache::new(&self.session.store).get(action);
        found.map_err(|CacheError::Store(error)| error.into())
    }

    fn evidence(&self, action: ActionId) -> Result<Option<Evidence>, Failure> {
        let found = ActionCache::new(&self.session.store).evidence(action);
        found.map_err(|CacheError::Store(error)| error.into())
    }

    fn empty(&self) -> Result<Known, Failure> {
        let tree = crate::exec::scheduler::empty_root(&self.session.store)?;
        Ok(Known::empty(tree))
    }
}

/// The key that a build in this sandbox would ask for; with `tier`, where the step gets that one, and with `caches`, as
/// if the cache directories were like that.
pub fn action_here(
    op: &Op,
    origin: &Origin,
    inputs: &[Known],
    sandbox: &Embedded<'_>,
    tier: Option<Tier>,
    caches: Option<CacheState>,
) -> ActionId {
    let OpKind::Exec(exec) = &op.kind else {
        return action_of(op, inputs, None);
    };
    let caches = caches.unwrap_or_else(|| sandbox.caches(exec, origin));
    let tier = tier.unwrap_or(exec.tier);
    let surroundings = surroundings(exec, &inputs[0].env, tier, sandbox.policy(tier), caches);
    action_of(op, inputs, Some(&surroundings))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::file_op::FileOp;
    use immbuild_cas::path::RelPath;

    fn link(target: &str, base: OpId) -> Op {
        Op {
            kind: OpKind::File(FileOp::Link {
                path: RelPath::from_absolute(b"/link").unwrap(),
                target: target.into(),
            }),
            inputs: vec![base],
        }
    }

    /// A stage of these links, each on the one before.
    fn chain(targets: &[&str]) -> (Graph, Vec<OpId>) {
        let mut graph = Graph::default();
        let start = Op {
            kind: OpKind::Empty,
            inputs: Vec::new(),
        };
        let mut ids = vec![graph.add(start, Origin::Start)];
        for (target, number) in targets.iter().zip(1..) {
            let origin = Origin::Step {
                stage: "image".into(),
                number,
                text: String::new(),
            };
            ids.push(graph.add(link(target, ids[ids.len() - 1]), origin));
        }
        (graph, ids)
    }

    fn explained(before: &[&str], after: &[&str]) -> Vec<Vec<Reason>> {
        let (graph, ids) = chain(before);
        let ops: Vec<(String, OpId)> = ids
            .iter()
            .map(|id| (graph.origin(*id).label(), *id))
            .collect();
        let (graph, ids) = chain(after);
        let all = changes(&graph, &ids, Some(&Remembered::new(&ops)));
        ids[1..].iter().map(|id| all[id].clone()).collect()
    }

    #[test]
    fn what_changed_is_told_from_what_only_follows() {
        type Case<'a> = (&'a [&'a str], &'a [&'a str], &'a [&'a [Reason]]);

        let input = |label: &str| Reason::Input(label.into());
        let table: [Case<'_>; 5] = [
            (&["a", "b"], &["a", "b"], &[&[], &[]]),
            (
                &["a", "b"],
                &["x", "b"],
                &[&[Reason::Changed], &[input("image.1")]],
            ),
            (&["a", "b"], &["a", "x"], &[&[], &[Reason::Changed]]),
            (
                &["a", "b"],
                &["x", "y"],
                &[&[Reason::Changed], &[Reason::Changed, input("image.1")]],
            ),
            (&["a"], &["a", "b"], &[&[], &[Reason::New]]),
        ];
        for (before, after, expected) in table {
            assert_eq!(
                explained(before, after),
                expected,
                "{before:?} to {after:?}"
            );
        }
    }

    #[test]
    fn without_memory_everything_is_first() {
        let (graph, ids) = chain(&["a"]);
        let all = changes(&graph, &ids, None);
        assert_eq!(all[&ids[1]], [Reason::FirstBuild]);
    }
}
