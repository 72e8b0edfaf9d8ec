//! A shell for a person, on a root of the graph, in the surroundings that steps have.

use std::collections::BTreeMap;
use std::path::PathBuf;

use immbuild_cas::digest::TreeId;
use immbuild_cas::path::RelPath;

use super::embedded::{Embedded, RunError};
use super::sandbox::{self, Job, SandboxError, Status};
use super::tracer::Virtual;
use crate::epoch::Epoch;
use crate::graph::action::BaseTimes;
use crate::graph::apply::resolve_owner;
use crate::graph::file_op::Owner;

/// Where a shell is opened. Whatever is done there is thrown away.
#[derive(Clone, Debug)]
pub struct ShellPlace {
    /// The trees the root went through, oldest first, as in [`Run`](crate::ports::Run).
    pub lineage: Vec<TreeId>,
    /// The times of files unchanged from a base image.
    pub times: Option<BaseTimes>,
    /// The time of all other files.
    pub epoch: Epoch,
    /// What a failed step left over that root.
    pub failed: Option<PathBuf>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// Where it starts.
    pub directory: RelPath,
    /// Who it runs as.
    pub user: Owner,
    /// Can the root be written to?
    pub writable: bool,
    /// The clock, randomness and file numbers that the step there has.
    pub virtualise: Option<Virtual>,
}

/// What is looked for, the first that is there.
const SHELLS: [&str; 2] = ["bash", "sh"];

impl Embedded<'_> {
    /// Runs a shell on the caller's terminal, or on whatever its standard input is, until it ends; `None` where the root
    /// has none. Neither secrets nor cache directories are there: the first are not given, the second outlive a shell.
    pub fn shell(&self, place: &ShellPlace) -> Result<Option<Status>, RunError> {
        let owners = self.owners(place.virtualise.is_some());
        let mut stack = self.stack(&place.lineage, place.times, place.epoch, owners)?;
        let (uid, gid) = resolve_owner(&place.user, &stack.tree, self.store, self.blobs)
            .map_err(RunError::User)?;
        stack.lowers.splice(0..0, place.failed.clone());
        let mut lacking = None;
        for program in SHELLS {
            let scratch = self.store.scratch("shell")?;
            let job = Job {
                lowers: &stack.lowers,
                scratch: scratch.path(),
                argv: vec![program.into()],
                env: place
                    .env
                    .iter()
                    .map(|(name, value)| (name.clone().into_bytes(), value.clone().into_bytes()))
                    .collect(),
                directory: place.directory.clone(),
                uid,
                gid,
                caches: Vec::new(),
                secrets: Vec::new(),
                timeout: None,
                terminal: true,
                read_only: !place.writable,
                virtualise: place.virtualise,
                owners: self.noteless(&stack)?,
            };
            match sandbox::run(&job, self.ids, &mut |_| (), self.cancel) {
                Ok(ended) => return Ok(Some(ended.status)),
                Err(SandboxError::Program { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(error @ SandboxError::Interpreter { .. }) => lacking = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        lacking.map_or(Ok(None), |error| Err(error.into()))
    }
}
