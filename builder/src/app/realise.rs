//! Joins scheduler, sandbox and sources into the embedded executor for one build.

use std::collections::BTreeMap;
use std::path::PathBuf;

use immbuild_cas::canonical::{Canonical, Encoder};
use immbuild_cas::digest::{BlobId, Digest, TreeId};
use immbuild_cas::store::{BlobSource as _, Record, Store as _};
use immbuild_cas::tree::Tree;

use super::failure::Failure;
use super::pins::{Fetch, Pinned};
use super::project::Project;
use super::session::Session;
use crate::exec::embedded::{Embedded, Secrets};
use crate::exec::scheduler::Scheduler;
use crate::graph::action::BaseTimes;
use crate::graph::op::{OpId, Pin, Unpack};
use crate::graph::Graph;
use crate::ports::{Event, Executor as _, Outcome, Realised, SourceTree, Sources, WorkId};
use crate::resolve::{git, http, image, unpack};

/// What steps are run with.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--arg`.
    pub args: BTreeMap<String, String>,
    /// `--secret`, by name.
    pub secrets: Secrets,
    /// Take uncommitted changes of a local git source.
    pub dirty: bool,
    /// Run every step again.
    pub rerun: bool,
    /// Mount cache directories empty.
    pub empty_caches: bool,
    /// Read every local file again, whatever its times say.
    pub distrust_times: bool,
}

/// Realises what is wanted.
pub fn realise(
    session: &Session<'_>,
    project: &Project,
    graph: &Graph,
    wants: &[OpId],
    pinned: &Pinned,
    options: &Options,
) -> Result<BTreeMap<OpId, Realised>, Failure> {
    let blobs = pinned.blobs(&session.store);
    let sandbox = Embedded {
        store: &session.store,
        blobs: &blobs,
        events: session.events,
        cancel: session.cancel,
        secrets: &options.secrets,
        caches: (!options.empty_caches).then(|| project.memory()),
        threads: session.settings.threads,
    };
    let sources = Provider { session, pinned };
    let scheduler = Scheduler {
        sandbox: &sandbox,
        sources: &sources,
        store: &session.store,
        blobs: &blobs,
        events: session.events,
        threads: session.settings.threads,
        rerun: options.rerun,
        cancel: session.cancel,
    };
    scheduler
        .realise(graph, wants)
        .map_err(|error| super::explain_failure::of_exec(error, graph, project))
}

/// Gives pinned sources as trees: from the store, or by fetching them.
pub struct Provider<'a> {
    /// Where they are kept.
    pub session: &'a Session<'a>,
    /// Where they come from.
    pub pinned: &'a Pinned,
}

const KIND: &str = "source";

impl Provider<'_> {
    fn key(pin: &Pin) -> Digest {
        crate::graph::op::OpKind::Source(pin.clone()).canonical_digest()
    }

    /// A source that was brought here before, and is still here.
    fn known(&self, pin: &Pin) -> Result<Option<SourceTree>, Failure> {
        let store = &self.session.store;
        let Some(record) = store.record(KIND, &Self::key(pin))? else {
            return Ok(None);
        };
        let Some(tree) = record.trees.first().copied() else {
            return Ok(None);
        };
        if store.tree(&tree).is_err() {
            return Ok(None);
        }
        // A base image's record has its mtimes and its config first, then manifest and layers.
        let (mtimes, config) = match (pin, record.blobs.as_slice()) {
            (Pin::Image { .. }, [mtimes, config, rest @ ..]) => {
                for blob in rest.iter().chain([mtimes, config]) {
                    if !store.has(blob)? {
                        return Ok(None);
                    }
                }
                (Some(*mtimes), Some(*config))
            }
            (Pin::Image { .. }, _) => return Ok(None),
            _ => (None, None),
        };
        Ok(Some(SourceTree {
            tree,
            times: mtimes.map(|mtimes| BaseTimes { tree, mtimes }),
            config,
            env: self.environment(config)?,
            cached: true,
        }))
    }

    /// What a base image's config brings to steps.
    fn environment(&self, config: Option<BlobId>) -> Result<BTreeMap<String, String>, Failure> {
        let Some(config) = config else {
            return Ok(BTreeMap::new());
        };
        let bytes = self.session.store.read(&config)?;
        let (config, _) = crate::image::read::config(&bytes, &config.to_string())?;
        Ok(config
            .config
            .env
            .iter()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect())
    }

    fn keep(&self, pin: &Pin, tree: TreeId, blobs: Vec<BlobId>) -> Result<(), Failure> {
        let record = Record {
            value: Vec::new(),
            blobs,
            trees: vec![tree],
        };
        self.session.store.put_record(KIND, &Self::key(pin), &record)?;
        Ok(())
    }

    fn fetch(&self, pin: &Pin, fetch: &Fetch, progress: &dyn Fn(u64)) -> Result<SourceTree, Failure> {
        let store = &self.session.store;
        let plain = |tree: TreeId| SourceTree {
            tree,
            times: None,
            config: None,
            env: BTreeMap::new(),
            cached: false,
        };
        match (pin, fetch) {
            (Pin::Tree { tree, .. }, Fetch::Git(source, commit)) => {
                let remote = super::lock::remote(source);
                let wanted = git::Pin { commit, tree: *tree };
                let found = git::fetch_remote(&remote, &wanted, self.session.settings.offline, store)?;
                let tree = store.put_tree(&found.tree)?;
                self.keep(pin, tree, Vec::new())?;
                Ok(plain(tree))
            }
            (Pin::Http { sha256, unpack: how }, Fetch::Http(source)) => {
                let request = http::Request {
                    url: &source.url,
                    mirrors: &source.mirrors,
                    expected: Some(*sha256),
                    offline: self.session.settings.offline,
                };
                let fetched =
                    http::fetch(&request, &http::Policy::default(), store, &|done, _| progress(done))?;
                let tree = match how {
                    Some(how) => self.unpack(&fetched.blob, *how)?,
                    None => crate::graph::file_op::one_file_tree(fetched.blob, fetched.size, store)?,
                };
                let tree = store.put_tree(&tree)?;
                self.keep(pin, tree, vec![fetched.blob])?;
                Ok(plain(tree))
            }
            (Pin::Image { manifest }, Fetch::Image(path, platform)) => {
                self.image(pin, manifest, path, *platform)
            }
            _ => unreachable!("a pin and where to fetch it are made together"),
        }
    }
}
