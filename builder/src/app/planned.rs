//! What a spec means now, before anything is done: its lock, its pins and its graph.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::build::{BuildRequest, resolve_platforms, wanted_stage};
use super::failure::{Exit, Failure};
use super::outputs::{self, PlannedOutput};
use super::pins::{self, Pinned};
use super::project::Project;
use super::session::Session;
use crate::diag::Diagnostic;
use crate::epoch::Epoch;
use crate::graph::Graph;
use crate::graph::op::OpId;
use crate::graph::plan::{Plan, plan};
use crate::lock::model::Lock;
use crate::platform::Platform;
use crate::spec::model::{Ident, Resolved};

/// A place in a spec, as it is typed: `build` or `build.2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// The stage.
    pub stage: String,
    /// Which root of it: 0 is what it starts from, n what step n leaves.
    pub step: Option<usize>,
}

impl At {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let (stage, step) = match text.split_once('.') {
            None => (text, None),
            Some((stage, step)) => {
                let number = step.parse().map_err(|_| {
                    let what = Diagnostic::error(format!("`{text}` names no step"))
                        .because(format!("`{step}` is not a number"))
                        .hint("write it as `build` or `build.2`");
                    Failure::new(Exit::Usage, what)
                })?;
                (stage, Some(number))
            }
        };
        Ok(Self {
            stage: stage.to_owned(),
            step,
        })
    }
}

/// A spec with everything that it reads pinned.
#[derive(Debug)]
pub struct Planned {
    /// The lock, where one is needed.
    pub lock: Option<Lock>,
    /// Its file, where it is new.
    pub new_lock: Option<PathBuf>,
    /// Sources that were locked because there was no lock.
    pub locked: Vec<String>,
    /// The spec for each platform; at least one.
    pub resolved: BTreeMap<Platform, Resolved>,
    /// The stage that is wanted.
    pub stage: Ident,
    /// The one time.
    pub epoch: Epoch,
    /// The outputs, where any are to be written.
    pub outputs: Vec<PlannedOutput>,
    /// Every source that is read.
    pub pinned: Pinned,
    /// What is to be done.
    pub graph: Graph,
    /// Where each step is in it.
    pub plans: BTreeMap<Platform, Plan>,
    /// The op that the stage ends with, for each platform.
    pub wants: Vec<OpId>,
}

impl Planned {
    /// The root of the wanted stage that is meant, on this platform: after step `number`, or after the last.
    pub fn root(&self, platform: Platform, number: Option<usize>) -> Result<OpId, Failure> {
        let roots = &self.plans[&platform].stages[&self.stage];
        let last = roots.len() - 1;
        roots.get(number.unwrap_or(last)).copied().ok_or_else(|| {
            let stage = &self.stage;
            let number = number.unwrap_or(last);
            let steps = match last {
                0 => "it has no steps".to_owned(),
                1 => "it has one step".to_owned(),
                _ => format!("its steps are `{stage}.1` to `{stage}.{last}`"),
            };
            Failure::new(
                Exit::Usage,
                Diagnostic::error(format!("there is no step `{stage}.{number}`")).hint(steps),
            )
        })
    }
}

/// Reads the lock (or makes it), pins what is local by its content, and plans. Writes nothing but lock and store.
pub fn planned(
    session: &Session<'_>,
    project: &Project,
    request: &BuildRequest,
) -> Result<Planned, Failure> {
    let options = &request.options;
    let (lock, new_lock, locked) = super::lock::for_build(session, project, request.locked)?;
    let resolved = resolve_platforms(project, &options.args, &request.platforms)?;
    let stage = wanted_stage(&resolved, request.stage.as_deref())?;
    let first = resolved.values().next().expect("a spec has a platform");
    let epoch = first
        .epoch
        .or(lock.as_ref().map(|lock| lock.epoch))
        .unwrap_or(Epoch::DEFAULT);
    let specs: Vec<&Resolved> = resolved.values().collect();
    let outputs = outputs::plan(project, &specs, &request.outputs, request.no_outputs)?;
    let pinned = pins::pin(
        session,
        project,
        &resolved,
        &stage,
        lock.as_ref(),
        options,
        &outputs,
    )?;
    let mut graph = Graph::default();
    let plans: BTreeMap<Platform, Plan> = resolved
        .iter()
        .map(|(platform, spec)| {
            let pins = &pinned.pins[platform];
            (*platform, plan(spec, pins, epoch, &stage, &mut graph))
        })
        .collect();
    let wants = plans.values().map(|plan| plan.end(&stage)).collect();
    Ok(Planned {
        lock,
        new_lock,
        locked,
        resolved,
        stage,
        epoch,
        outputs,
        pinned,
        graph,
        plans,
        wants,
    })
}
