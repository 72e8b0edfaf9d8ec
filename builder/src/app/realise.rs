//! Joins scheduler, sandbox and sources into the embedded executor for one build.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use immbuild_cas::canonical::Canonical;
use immbuild_cas::digest::{BlobId, Digest, TreeId};
use immbuild_cas::store::{BlobSource, Record, Store as _};
use immbuild_cas::tree::Tree;

use super::failure::Failure;
use super::libraries;
use super::packages::Archives;
use super::pins::{Fetch, Pinned, RegistryImage};
use super::project::Project;
use super::session::Session;
use super::shared::SharedCache;
use crate::cargo::vendored;
use crate::debian::deb;
use crate::debian::install::install;
use crate::debian::set::Assembly;
use crate::exec::embedded::{Embedded, RunError, Secrets};
use crate::exec::scheduler::{ExecError, Scheduler};
use crate::graph::Graph;
use crate::graph::action::BaseTimes;
use crate::graph::install::{InstallOp, PackagePin};
use crate::graph::libraries::{Layout, LibrariesOp};
use crate::graph::op::{OpId, Pin, Unpack};
use crate::image::{BaseImage, ManifestDigest};
use crate::lock::model as lock;
use crate::ports::{
    Event, Executor as _, Outcome, Realised, SharedResults, SourceTree, Sources, WorkId,
};
use crate::python::environment;
use crate::registry::Pull;
use crate::resolve::{git, http, image, unpack};
use crate::spec::image_name::ImageRepository;
use crate::spec::model::DebianSource;

/// What steps are run with.
#[derive(Clone, Debug, Default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "flags of the command line, each its own"
)]
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
    /// Run steps whose tier this machine cannot keep in tier `isolated`.
    pub allow_downgrade: bool,
    /// Repositories that have results of others, asked in turn.
    pub cache_from: Vec<ImageRepository>,
    /// Believe no memo of the store: fetch, import and do everything again.
    pub forget: bool,
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
    attempt(session, project, graph, wants, pinned, options)
        .map_err(|error| super::step_failure::of_exec(error, project))
}

/// The same, for who wants to know which op failed.
pub fn attempt(
    session: &Session<'_>,
    project: &Project,
    graph: &Graph,
    wants: &[OpId],
    pinned: &Pinned,
    options: &Options,
) -> Result<BTreeMap<OpId, Realised>, ExecError<RunError, Failure>> {
    let blobs = pinned.blobs(&session.store);
    let sandbox = sandbox(session, project, &blobs, options);
    let sources = Provider {
        session,
        project,
        pinned,
        forget: options.forget,
    };
    let shared = SharedCache::new(session, &options.cache_from);
    let scheduler = Scheduler {
        sandbox: &sandbox,
        sources: &sources,
        store: &session.store,
        shared: shared.as_ref().map(|shared| shared as &dyn SharedResults),
        blobs: &blobs,
        events: session.events,
        threads: session.settings.threads,
        rerun: options.rerun,
        forget: options.forget,
        cancel: session.cancel,
    };
    scheduler.realise(graph, wants)
}

/// The sandbox that steps of this spec run in.
pub fn sandbox<'a>(
    session: &'a Session<'a>,
    project: &Project,
    blobs: &'a dyn BlobSource,
    options: &'a Options,
) -> Embedded<'a> {
    Embedded {
        store: &session.store,
        blobs,
        events: session.events,
        cancel: session.cancel,
        secrets: &options.secrets,
        caches: (!options.empty_caches).then(|| project.memory()),
        ids: session.settings.ids,
        allow_downgrade: options.allow_downgrade,
        threads: session.settings.threads,
        making: Mutex::new(()),
        tables: Mutex::default(),
    }
}

/// Gives pinned sources as trees: from the store, or by fetching them.
pub struct Provider<'a> {
    /// Where they are kept.
    pub session: &'a Session<'a>,
    /// What asks for them.
    pub project: &'a Project,
    /// Where they come from.
    pub pinned: &'a Pinned,
    /// Fetch them again, whatever is known.
    pub forget: bool,
}

const KIND: &str = "source";

impl Provider<'_> {
    fn key(pin: &Pin) -> Digest {
        crate::graph::op::OpKind::Source(pin.clone()).canonical_digest()
    }

    /// A source that is here: one that was brought here before, or a local one, which was read when it was pinned.
    pub fn here(&self, pin: &Pin) -> Result<Option<SourceTree>, Failure> {
        if self.fetch_of(pin).is_some() {
            return self.known(pin);
        }
        let Pin::Tree { tree, .. } = pin else {
            unreachable!("only a tree can be pinned without being fetched");
        };
        Ok(Some(SourceTree {
            tree: *tree,
            times: None,
            config: None,
            env: BTreeMap::new(),
            cached: true,
        }))
    }

    fn fetch_of(&self, pin: &Pin) -> Option<&Fetch> {
        let fetches = &self.pinned.fetches;
        fetches
            .iter()
            .find(|(known, _)| known == pin)
            .map(|(_, fetch)| fetch)
    }

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
        self.session
            .store
            .put_record(KIND, &Self::key(pin), &record)?;
        Ok(())
    }

    fn fetch(
        &self,
        pin: &Pin,
        fetch: &Fetch,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<SourceTree, Failure> {
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
                let remote = super::lock::remote(source, self.session);
                let cache = self.session.git_cache();
                let wanted = git::Pin {
                    commit,
                    tree: *tree,
                };
                let found =
                    git::fetch_remote(&remote, &wanted, &self.session.git_means(&cache), store)?;
                let tree = store.put_tree(&found)?;
                self.keep(pin, tree, Vec::new())?;
                Ok(plain(tree))
            }
            (
                Pin::Http {
                    sha256,
                    unpack: how,
                },
                Fetch::Http(source, size),
            ) => {
                let request = http::Request {
                    url: &source.url,
                    mirrors: &source.mirrors,
                    expected: Some(*sha256),
                    size: Some(*size),
                    offline: self.session.settings.offline,
                };
                let fetched =
                    http::fetch(&request, &http::Policy::default(), store, &|done, _| {
                        progress(done);
                    })?;
                let tree = match how {
                    Some(how) => self.unpack(&fetched.blob, *how)?,
                    None => {
                        crate::graph::file_op::one_file_tree(fetched.blob, fetched.size, store)?
                    }
                };
                let tree = store.put_tree(&tree)?;
                self.keep(pin, tree, vec![fetched.blob])?;
                Ok(plain(tree))
            }
            (Pin::Image { manifest }, Fetch::Image(path)) => {
                let manifest = ManifestDigest::new(*manifest);
                let image = image::open_local(path)?;
                self.image(pin, &image.base(&manifest)?, &image)
            }
            (Pin::Image { manifest }, Fetch::Registry(source)) => {
                let manifest = ManifestDigest::new(*manifest);
                pull(self.session, manifest, source, progress)?;
                let base = self.stored(manifest)?;
                self.image(pin, &base, store)
            }
            (Pin::Packages(pins), Fetch::Packages(source, releases, locked)) => {
                let tree = self.packages(pins, source, releases, locked, progress)?;
                self.keep(pin, tree, Vec::new())?;
                Ok(plain(tree))
            }
            (Pin::Libraries(language, _), Fetch::Libraries(wanted)) => {
                let tree =
                    libraries::assemble(self.session, self.project, *language, wanted, progress)?;
                let tree = store.put_tree(&tree)?;
                self.keep(pin, tree, Vec::new())?;
                Ok(plain(tree))
            }
            _ => unreachable!("a pin and where to fetch it are made together"),
        }
    }

    /// Packages, decoded. One that was decoded before is not fetched again.
    fn packages(
        &self,
        pins: &[PackagePin],
        source: &DebianSource,
        releases: &[lock::ReleasePin],
        locked: &[lock::PackagePin],
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<TreeId, Failure> {
        let store = &self.session.store;
        let mut missing = Vec::new();
        for package in locked {
            if !deb::is_decoded(&BlobId::new(package.sha256), store)? {
                missing.push(package.clone());
            }
        }
        if !missing.is_empty() {
            let archives = Archives::new(self.session, self.project, false);
            archives.fetch(source, releases, &missing, progress)?;
        }
        let packages: Vec<(PackagePin, u64)> = pins
            .iter()
            .cloned()
            .zip(locked.iter().map(|package| package.size))
            .collect();
        let assembly = Assembly {
            store,
            threads: self.session.settings.threads,
            progress,
        };
        let set = assembly.assemble(&packages)?;
        for (package, dropped) in &set.dropped {
            self.session.events.event(Event::Warning {
                text: format!("`{}` of `{package}`: {}", dropped.path, dropped.what),
                hint: None,
            });
        }
        Ok(store.put_tree(&set.tree)?)
    }

    /// An image whose parts are all in the store.
    fn stored(&self, manifest: ManifestDigest) -> Result<BaseImage, Failure> {
        let store = &self.session.store;
        let bytes = store.read(&BlobId::new(*manifest.digest()))?;
        let config = BaseImage::manifest(manifest, &bytes)?.config.digest;
        let config = store.read(&BlobId::new(config))?;
        Ok(BaseImage::new(manifest, &bytes, &config)?)
    }

    /// Imports a base image: its documents and layers as they are, and what they are together as a tree.
    fn image(
        &self,
        pin: &Pin,
        base: &BaseImage,
        image: &dyn BlobSource,
    ) -> Result<SourceTree, Failure> {
        let store = &self.session.store;
        let manifest = base.manifest;
        for field in &base.dropped {
            self.session.events.event(Event::Warning {
                text: format!(
                    "`{field}` of base image {} is not inherited",
                    manifest.digest().short()
                ),
                hint: None,
            });
        }
        let manifest_blob = store
            .put(&mut image.open(&BlobId::new(*manifest.digest()))?)?
            .0;
        let document = BaseImage::manifest(manifest, &store.read(&manifest_blob)?)?;
        let config = store
            .put(&mut image.open(&BlobId::new(document.config.digest))?)?
            .0;
        image::keep_layers(base, image, store)?;
        let imported = image::import_base(base, store, store, IMAGE_MAX)?;
        for dropped in &imported.dropped {
            self.session.events.event(Event::Warning {
                text: format!("`{}` of the base image: {}", dropped.path, dropped.what),
                hint: None,
            });
        }
        let tree = store.put_tree(&imported.tree)?;
        let mut blobs = vec![imported.mtimes, config, manifest_blob];
        blobs.extend(
            base.layers
                .iter()
                .map(|layer| BlobId::new(*layer.digest.digest())),
        );
        self.keep(pin, tree, blobs)?;
        Ok(SourceTree {
            tree,
            times: Some(BaseTimes {
                tree,
                mtimes: imported.mtimes,
            }),
            config: Some(config),
            env: self.environment(Some(config))?,
            cached: false,
        })
    }
}

/// Brings all of an image of a registry into the store.
pub(super) fn pull(
    session: &Session<'_>,
    manifest: ManifestDigest,
    source: &RegistryImage,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), Failure> {
    let client = session.registries();
    let pull = Pull {
        client: &client,
        repository: &source.repository,
        store: &session.store,
        offline: session.settings.offline,
        threads: session.settings.threads,
        progress,
    };
    let digest = *manifest.digest();
    Ok(pull.image(digest, source.size, source.index, source.platform)?)
}

/// More than this many bytes are no base image but a bomb.
pub(super) const IMAGE_MAX: u64 = 64 << 30;

static NEXT_WORK: AtomicU64 = AtomicU64::new(3 << 32);

impl Sources for Provider<'_> {
    type Error = Failure;

    fn realise(&self, _op: OpId, pin: &Pin, name: &str) -> Result<SourceTree, Failure> {
        if let Some(here) = self.here(pin)? {
            return Ok(here);
        }
        let fetch = self.fetch_of(pin).expect("what is not here is fetched");
        let work = WorkId(NEXT_WORK.fetch_add(1, Ordering::Relaxed));
        self.session.events.event(Event::Started {
            id: work,
            label: format!("source {name}"),
            total: None,
        });
        let progress = |done| {
            self.session
                .events
                .event(Event::Advanced { id: work, done });
        };
        let outcome = self.fetch(pin, fetch, &progress);
        self.session.events.event(Event::Finished {
            id: work,
            outcome: if outcome.is_ok() {
                Outcome::Done
            } else {
                Outcome::Failed
            },
        });
        outcome
    }

    fn unpack(&self, archive: &BlobId, how: Unpack) -> Result<Tree, Failure> {
        let blobs = self.pinned.blobs(&self.session.store);
        let mut archive = blobs.open(archive)?;
        let options = unpack::Options {
            strip: how.strip,
            preserve: how.preserve,
        };
        let unpacked = unpack::unpack(
            &mut archive,
            options,
            &unpack::Limits::default(),
            &self.session.store,
        )?;
        for dropped in &unpacked.dropped {
            self.session.events.event(Event::Warning {
                text: format!("`{}` of an archive: {}", dropped.path, dropped.what),
                hint: None,
            });
        }
        Ok(unpacked.tree)
    }

    fn install(
        &self,
        op: &InstallOp,
        root: &Tree,
        packages: &Tree,
    ) -> Result<(Tree, Vec<String>), Failure> {
        let store = &self.session.store;
        let blobs = self.pinned.blobs(store);
        let installed = install(op, root, packages, store, &blobs)?;
        Ok((installed.tree, installed.warnings))
    }

    fn libraries(
        &self,
        op: &LibrariesOp,
        root: &Tree,
        libraries: &Tree,
    ) -> Result<(Tree, Vec<String>), Failure> {
        let store = &self.session.store;
        let blobs = self.pinned.blobs(store);
        match &op.layout {
            Layout::Environment(environment) => Ok(environment::install(
                environment,
                &op.to,
                root,
                libraries,
                store,
                &blobs,
            )?),
            Layout::Vendored(registries) => {
                let tree = vendored::install(registries, &op.to, root, libraries, store, &blobs)?;
                Ok((tree, Vec::new()))
            }
        }
    }
}
