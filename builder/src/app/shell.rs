//! A shell where a step ended or failed.

use std::collections::BTreeMap;

use immbuild_cas::digest::TreeId;
use immbuild_cas::path::RelPath;

use super::build::{BuildRequest, refuse_foreign};
use super::explain::action_here;
use super::failure::{Exit, Failure};
use super::planned::{At, Planned, planned};
use super::project::Project;
use super::realise::{self, Options, Provider, sandbox};
use super::session::Session;
use super::step_failure;
use crate::diag::Diagnostic;
use crate::exec::cache::{ActionCache, CacheError};
use crate::exec::embedded::{failed_snapshot, virtual_of};
use crate::exec::sandbox::{Status, tier_support};
use crate::exec::scheduler::{ExecError, Known, boundaries, environment};
use crate::exec::shell::ShellPlace;
use crate::graph::action::ActionId;
use crate::graph::file_op::Owner;
use crate::graph::op::{ExecOp, OpId, OpKind};
use crate::platform::Platform;
use crate::ports::{Had, Realised};
use crate::spec::model::Tier;

/// What is asked of a shell.
#[derive(Clone, Debug)]
pub struct ShellRequest {
    /// Where.
    pub at: At,
    /// Can the root be written to?
    pub writable: bool,
    /// Variables of the caller's terminal.
    pub terminal: BTreeMap<String, String>,
    /// What steps are run with that are not done yet.
    pub options: Options,
}

/// A place for a shell that was found, and all it takes to open one.
#[derive(Debug)]
pub struct Found {
    /// Which root: `build.2`; `build.0` is what the stage starts from.
    pub label: String,
    /// Why the step failed there, if it is one that failed just now.
    pub failure: Option<Failure>,
    /// Is it where a step failed?
    pub failed: bool,
    planned: Planned,
    place: ShellPlace,
}

/// Finds the root, and does what is not done yet to get there.
pub fn find(
    session: &Session<'_>,
    project: &Project,
    request: &ShellRequest,
) -> Result<Found, Failure> {
    let build = BuildRequest {
        locked: true,
        platforms: vec![platform_of(project).to_string()],
        stage: Some(request.at.stage.clone()),
        options: request.options.clone(),
        ..BuildRequest::default()
    };
    let planned = planned(session, project, &build)?;
    let (platform, spec) = planned
        .resolved
        .first_key_value()
        .expect("one was asked for");
    let root = planned.root(*platform, request.at.step)?;
    refuse_foreign(session, &planned.graph, &[root])?;

    let stage_env = crate::graph::plan::stage_environment(spec, &spec.stages[&planned.stage]);
    let finder = Finder {
        session,
        project,
        planned: &planned,
        request,
        stage_env,
    };
    let (place, failure) = match &planned.graph.op(root).kind {
        OpKind::Exec(exec) => finder.step(root, exec)?,
        _ => (finder.place(root, None, &finder.realise(root)?)?, None),
    };
    let last = planned.plans[platform].stages[&planned.stage].len() - 1;
    let step = request.at.step.unwrap_or(last);
    Ok(Found {
        label: format!("{}.{step}", planned.stage),
        failed: place.failed.is_some(),
        failure,
        place,
        planned,
    })
}

/// Opens the shell and waits for its end.
pub fn open(
    session: &Session<'_>,
    project: &Project,
    request: &ShellRequest,
    found: &Found,
) -> Result<Status, Failure> {
    let blobs = found.planned.pinned.blobs(&session.store);
    let sandbox = sandbox(session, project, &blobs, &request.options);
    let status = sandbox
        .shell(&found.place)
        .map_err(|error| step_failure::of_shell(&found.label, error))?;
    status.ok_or_else(|| {
        Failure::new(
            Exit::Usage,
            Diagnostic::error(format!("there is no shell in the root of `{}`", found.label))
                .because("neither `bash` nor `sh` is on the `PATH` of its steps")
                .hint("`immbuild build --output kind=dir,dir=out/root` writes an image's root where it can be looked at"),
        )
    })
}

/// This machine's, where the spec has it.
fn platform_of(project: &Project) -> Platform {
    let platforms = project.spec.platforms();
    let own = platforms
        .iter()
        .find(|platform| platform.machine() == std::env::consts::ARCH);
    *own.unwrap_or(&platforms[0])
}

struct Finder<'a> {
    session: &'a Session<'a>,
    project: &'a Project,
    planned: &'a Planned,
    request: &'a ShellRequest,
    stage_env: BTreeMap<String, String>,
}

impl Finder<'_> {
    /// Where a step that executes ended, or failed; it is run if neither is known.
    fn step(&self, root: OpId, exec: &ExecOp) -> Result<(ShellPlace, Option<Failure>), Failure> {
        let Planned { graph, pinned, .. } = self.planned;
        let store = &self.session.store;
        let op = graph.op(root);
        let base = op.inputs[0];
        let mut results = self.realise(base)?;
        let input = Known {
            realised: results[&base].clone(),
            env: self.base_environment(base)?,
        };
        let blobs = pinned.blobs(store);
        let sandbox = sandbox(self.session, self.project, &blobs, &self.request.options);
        let in_tier = |tier| {
            let inputs = std::slice::from_ref(&input);
            action_here(op, graph.origin(root), inputs, &sandbox, Some(tier), None)
        };
        let mut tier = exec.tier;
        let mut action = in_tier(tier);
        let mut known = self.result(action)?;
        if known.is_none()
            && !self.left(action)?
            && let Some(lesser) = sandbox.lesser_tier(tier)
        {
            tier = lesser;
            action = in_tier(tier);
            known = self.result(action)?;
        }
        if let Some(tree) = known {
            let taint = input.realised.taint;
            let ended = input.followed_by(tree, action, Some(tier), Had::Here, taint);
            results.insert(root, ended.realised);
            return Ok((self.place(root, Some((exec, tier)), &results)?, None));
        }
        let failed = |failure| {
            let mut place = self.place(base, Some((exec, tier)), &results)?;
            place.failed = failed_snapshot(store, action)?;
            Ok((place, failure))
        };
        if self.left(action)? {
            return failed(None);
        }
        match realise::attempt(
            self.session,
            self.project,
            graph,
            &[root],
            pinned,
            &self.request.options,
        ) {
            Ok(results) => Ok((self.place(root, Some((exec, tier)), &results)?, None)),
            Err(error) => {
                let ours =
                    matches!(&error, ExecError::Run { origin, .. } if origin == graph.origin(root));
                let failure = step_failure::of_exec(error, self.project);
                if ours && self.left(action)? {
                    failed(Some(failure))
                } else {
                    Err(failure)
                }
            }
        }
    }

    fn result(&self, action: ActionId) -> Result<Option<TreeId>, Failure> {
        let found = ActionCache::new(&self.session.store).get(action);
        found.map_err(|CacheError::Store(error)| error.into())
    }

    fn left(&self, action: ActionId) -> Result<bool, Failure> {
        Ok(failed_snapshot(&self.session.store, action)?.is_some())
    }

    fn realise(&self, root: OpId) -> Result<BTreeMap<OpId, Realised>, Failure> {
        let Planned { graph, pinned, .. } = self.planned;
        realise::realise(
            self.session,
            self.project,
            graph,
            &[root],
            pinned,
            &self.request.options,
        )
    }

    /// What the base image that `root` came from brings to steps.
    fn base_environment(&self, root: OpId) -> Result<BTreeMap<String, String>, Failure> {
        let Planned { graph, pinned, .. } = self.planned;
        let OpKind::Source(pin) = &graph.op(graph.lineage(root)[0]).kind else {
            return Ok(BTreeMap::new());
        };
        let provider = Provider {
            session: self.session,
            project: self.project,
            pinned,
            forget: false,
        };
        Ok(provider
            .here(pin)?
            .map(|source| source.env)
            .unwrap_or_default())
    }

    /// The surroundings of a step in its tier, or of any step that would follow on this root.
    fn place(
        &self,
        root: OpId,
        step: Option<(&ExecOp, Tier)>,
        results: &BTreeMap<OpId, Realised>,
    ) -> Result<ShellPlace, Failure> {
        let graph = &self.planned.graph;
        let lineage = graph.lineage(root);
        let exec = step.map(|(exec, _)| exec);
        let own = exec.map_or(&self.stage_env, |exec| &exec.env);
        let mut env = environment(self.planned.epoch, &self.base_environment(root)?, own);
        env.extend(self.request.terminal.clone());
        Ok(ShellPlace {
            lineage: boundaries(graph, &lineage)
                .map(|id| results[&id].tree)
                .collect(),
            times: results[&root].times,
            epoch: self.planned.epoch,
            failed: None,
            env,
            directory: exec.map_or_else(RelPath::root, |exec| exec.directory.clone()),
            user: exec.map_or(Owner::Ids { uid: 0, gid: 0 }, |exec| exec.user.clone()),
            writable: self.request.writable,
            // A result can be here of a tier that this machine cannot keep: a shell in it is only looked at.
            virtualise: step
                .filter(|_| tier_support().is_ok())
                .and_then(|(exec, tier)| virtual_of(exec, tier, self.session.settings.ids)),
        })
    }
}
