//! The main job: a spec becomes an image, compared with what is expected of it, and written where it should go.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use immbuild_cas::digest::{BlobId, Digest, TreeId};
use immbuild_cas::path::RelPath;
use immbuild_cas::store::{BlobSource as _, DirectorySource as _, Store as _};
use immbuild_cas::tree::{Entry, entry_at};

use super::failure::{Exit, Failure, diagnostic_of};
use super::layers::LayerMaker;
use super::memory::{self, Built, BuiltImage};
use super::outputs::{self, OutputRequest};
use super::package_layers::package_cuts;
use super::pins::Pinned;
use super::planned::{Planned, planned};
use super::project::Project;
use super::realise::{self, Options};
use super::session::Session;
use super::shared::{self, Sharable};
use super::until::Until;
use crate::diag::{Diagnostic, Place};
use crate::epoch::{Epoch, FormatVersion};
use crate::exec::sandbox::runs_programs_of;
use crate::graph::op::{OpId, OpKind, Pin};
use crate::graph::{Graph, Origin};
use crate::image::contract;
use crate::image::{
    BaseImage, ConfigChanges, Image, ImageId, ImageIndex, ImageKey, ImageSpec, ManifestDigest,
    OwnLayer, assemble, assemble_index,
};
use crate::layer::Compression;
use crate::layer::cut::{Cut, LayerPolicy, Root, cut};
use crate::lock::model::{Expect, Lock, Target};
use crate::platform::Platform;
use crate::ports::{Event, Had, Realised, Taint};
use crate::spec::model::{self, Ident, Resolved, Tier, Verb};

/// What is asked of a build.
#[derive(Clone, Debug, Default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "flags of the command line, each its own"
)]
pub struct BuildRequest {
    /// A missing or outdated lock is an error.
    pub locked: bool,
    /// No expectation that applies is an error.
    pub expected: bool,
    /// Write the expectation.
    pub record: bool,
    /// What the lock expects is not looked at: whoever asks compares by itself.
    pub ignore_expectations: bool,
    /// Only these platforms, in the words of the command line.
    pub platforms: Vec<String>,
    /// This stage instead of the image.
    pub stage: Option<String>,
    /// More outputs than the spec's.
    pub outputs: Vec<OutputRequest>,
    /// Write none of the outputs of the spec.
    pub no_outputs: bool,
    /// What steps are run with.
    pub options: Options,
}

/// What a build did.
#[derive(Clone, Debug)]
pub struct BuildReport {
    /// Digest of the index, or of the manifest for one platform.
    pub digest: Digest,
    /// Sources that were locked because there was no lock.
    pub locked: Vec<String>,
    /// The lock, where it is new.
    pub new_lock: Option<PathBuf>,
    /// Ops in all.
    pub ops: usize,
    /// Ops whose result was known.
    pub cached: usize,
    /// Ops that were done.
    pub ran: usize,
    /// Those of them that executed something.
    pub executed: usize,
    /// Those of the known ones that were taken from a shared cache now.
    pub taken: usize,
    /// What steps gave that others may have: `--cache-to` sends it.
    pub sharable: Vec<Sharable>,
    /// What is guaranteed of what was executed, if anything was.
    pub guarantee: Option<Guarantee>,
    /// Own layers and their bytes.
    pub own: (usize, u64),
    /// Layers of the base and their bytes.
    pub base: (usize, u64),
    /// What became of the expectation.
    pub expectation: Expectation,
    /// Bytes of local files that were read to be hashed.
    pub bytes_hashed: u64,
    /// What was written, and whether it was there already.
    pub written: Vec<(PathBuf, bool)>,
    /// The images, by platform.
    pub images: BTreeMap<Platform, ImageReport>,
}

/// What is guaranteed of all that was executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarantee {
    /// The least tier that a step had.
    pub tier: Tier,
    /// Steps that had a lesser tier than they ask for, by label, and the least that was asked for among them.
    pub downgraded: Option<(Vec<String>, Tier)>,
    /// Steps that ran now for another machine, by label, and for which.
    pub emulated: Vec<(String, Platform)>,
}

impl Guarantee {
    fn of(graph: &Graph, needed: &[OpId], realised: &BTreeMap<OpId, Realised>) -> Option<Self> {
        let tiers = needed.iter().filter_map(|id| match &graph.op(*id).kind {
            OpKind::Exec(exec) => Some((*id, exec.tier, realised[id].tier?)),
            _ => None,
        });
        let emulated = needed.iter().filter_map(|id| match &graph.op(*id).kind {
            OpKind::Exec(exec) if exec.platform.machine() != std::env::consts::ARCH => {
                let label = graph.origin(*id).label();
                (realised[id].had == Had::Made).then_some((label, exec.platform))
            }
            _ => None,
        });
        let mut least = None;
        let mut labels = Vec::new();
        let mut least_asked = Tier::Strict;
        for (id, asked, had) in tiers {
            least = Some(least.map_or(had, |least: Tier| least.min(had)));
            if had < asked {
                labels.push(graph.origin(id).label());
                least_asked = least_asked.min(asked);
            }
        }
        Some(Self {
            tier: least?,
            downgraded: (!labels.is_empty()).then_some((labels, least_asked)),
            emulated: emulated.collect(),
        })
    }

    /// A downgrade was allowed, and is told.
    fn warn(&self, session: &Session<'_>) {
        let Some((labels, asked)) = &self.downgraded else {
            return;
        };
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        session.events.event(Event::Warning {
            text: format!(
                "tier `{}` instead of `{}` for {}: this machine cannot keep it",
                self.tier.as_str(),
                asked.as_str(),
                labels.join(", ")
            ),
            hint: Some("`immbuild doctor` says what it lacks".into()),
        });
    }
}

/// One platform's image.
#[derive(Clone, Debug)]
pub struct ImageReport {
    /// Digest of its manifest.
    pub manifest: ManifestDigest,
    /// Key of its expectation.
    pub id: ImageId,
    /// Its root.
    pub tree: TreeId,
}

/// What became of the lock's expectation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// There is none.
    None,
    /// The bytes are as expected.
    Met,
    /// It speaks of another image; this op is the first that is another.
    Other {
        /// Where the image differs from the one that is expected, as far as it is known.
        changed: Option<String>,
    },
    /// It was written.
    Recorded,
    /// A filled cache directory was seen, so nothing was compared.
    Warm,
}

/// Builds. What turns out to be damaged in the store is made again, once.
pub fn build(
    session: &Session<'_>,
    project: &Project,
    request: &BuildRequest,
) -> Result<BuildReport, Failure> {
    match attempt(session, project, request) {
        Err(failure) if failure.damaged => {
            session.events.event(Event::Warning {
                text: "something in the store is damaged or gone: it is made again".into(),
                hint: Some("`immbuild cache fsck` looks at everything".into()),
            });
            let mut again = request.clone();
            again.options.forget = true;
            attempt(session, project, &again)
        }
        outcome => outcome,
    }
}

#[allow(
    clippy::too_many_lines,
    reason = "the pipeline from end to end, a stage a statement"
)]
fn attempt(
    session: &Session<'_>,
    project: &Project,
    request: &BuildRequest,
) -> Result<BuildReport, Failure> {
    let mut options = request.options.clone();
    // SPEC A, "Running": what is published or vouched for never saw a filled cache.
    options.empty_caches |= request.locked || request.record;
    // An expectation speaks for the tier that the spec asks for.
    options.allow_downgrade &= !request.record;
    warn_of_source_date_epoch(session);

    let Planned {
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
    } = planned(session, project, request)?;
    let first = resolved.values().next().expect("a spec has a platform");
    refuse_foreign(session, &graph, &wants)?;
    warn_of_secrets(session, &resolved, &options);

    let realised = realise::realise(session, project, &graph, &wants, &pinned, &options)?;
    let needed = graph.reachable(&wants);
    let guarantee = Guarantee::of(&graph, &needed, &realised);
    if let Some(guarantee) = &guarantee {
        guarantee.warn(session);
    }
    let made = Maker {
        session,
        project,
        graph: &graph,
        realised: &realised,
        pinned: &pinned,
        epoch,
    };
    let mut images = Vec::new();
    let mut reports = BTreeMap::new();
    let mut totals = Totals::default();
    for (platform, spec) in &resolved {
        let root = plans[platform].end(&stage);
        let delivery = Delivery::of(spec, &stage, project);
        if stage.as_str() == Ident::IMAGE {
            check_writable(session, project, spec, realised[&root].tree)?;
        }
        let image = made.image(root, *platform, &delivery, &mut totals)?;
        reports.insert(
            *platform,
            ImageReport {
                manifest: image.manifest_digest(),
                id: made.image_id(root, *platform, &delivery),
                tree: realised[&root].tree,
            },
        );
        images.push(image);
    }
    let index =
        (images.len() > 1).then(|| assemble_index(images.clone(), &first.image.annotations));
    let is_whole = images.len() == first.image.platforms.len();
    let digest = match &index {
        Some(index) => *index.digest().digest(),
        None => *images[0].manifest_digest().digest(),
    };
    keep_documents(session, &images, index.as_ref())?;

    let taint = wants
        .iter()
        .fold(Taint::default(), |taint, id| taint.and(realised[id].taint));
    let vector = op_vector(&graph, &wants);
    let expectation = expect(
        session,
        project,
        lock.as_ref(),
        request,
        &stage,
        &reports,
        // What is recorded is the index of them all.
        index.as_ref().filter(|_| is_whole),
        taint,
        &vector,
    )?;

    let built = Built {
        digest,
        index: index.is_some(),
        images: images
            .iter()
            .map(|image| BuiltImage {
                platform: image.platform,
                manifest: *image.manifest_digest().digest(),
                tree: reports[&image.platform].tree,
            })
            .collect(),
        name: first.image.name.clone(),
        tags: first.image.tags.clone(),
        epoch,
        ops: vector,
    };
    memory::remember(session, &project.memory(), &stage, &built, &realised)?;
    let written = outputs::write(session, &pinned, &outputs, &images, index.as_ref(), &built)?;

    let had = |had| {
        let same = |id: &&OpId| realised[id].had == had;
        needed.iter().filter(same).count()
    };
    Ok(BuildReport {
        digest,
        locked,
        new_lock,
        ops: needed.len(),
        cached: needed.len() - had(Had::Made),
        ran: had(Had::Made),
        executed: needed
            .iter()
            .filter(|id| matches!(graph.op(**id).kind, OpKind::Exec(_)))
            .filter(|id| realised[id].had == Had::Made)
            .count(),
        taken: had(Had::Shared),
        sharable: shared::sharable(&graph, &needed, &realised),
        guarantee,
        own: totals.own,
        base: totals.base,
        expectation,
        bytes_hashed: pinned.bytes_hashed,
        written,
        images: reports,
    })
}

#[derive(Debug, Default)]
struct Totals {
    own: (usize, u64),
    base: (usize, u64),
}

/// What of `[image]` decides bytes; for another stage, the defaults.
struct Delivery {
    changes: ConfigChanges,
    annotations: BTreeMap<String, String>,
    /// Who runs the container, and where the spec says so.
    user: Option<(model::Owner, Option<Place>)>,
    policy: LayerPolicy,
    compression: Compression,
}

impl Delivery {
    fn of(spec: &Resolved, stage: &Ident, project: &Project) -> Self {
        let image = &spec.image;
        let compression = match image.compression {
            model::Compression::Zstd => Compression::Zstd,
            model::Compression::Gzip => Compression::Gzip,
            model::Compression::None => Compression::None,
        };
        let policy = match image.layers {
            model::Layers::PerStep => LayerPolicy::PerStep,
            model::Layers::PerPackage(most) => LayerPolicy::PerPackage(most),
            model::Layers::Single => LayerPolicy::Single,
        };
        if stage.as_str() != Ident::IMAGE {
            return Self {
                changes: ConfigChanges::default(),
                annotations: BTreeMap::new(),
                user: None,
                policy,
                compression,
            };
        }
        let mut config = image.config.clone();
        config.labels.extend(contract_labels(&spec.runtime));
        Self {
            changes: ConfigChanges {
                env: config.env,
                entrypoint: config.entrypoint,
                cmd: config.cmd,
                user: config.user.as_ref().map(ToString::to_string),
                workdir: config.workdir,
                expose: config
                    .expose
                    .map(|ports| ports.iter().map(ToString::to_string).collect()),
                labels: config.labels,
                stop_signal: config.stop_signal,
            },
            annotations: image.annotations.clone(),
            user: config.user.map(|user| {
                let span = config.user_span;
                let file = project.file.clone();
                (user, span.map(|span| Place { file, span }))
            }),
            policy,
            compression,
        }
    }
}

/// The labels that say what `[runtime]` says.
fn contract_labels(runtime: &model::Runtime) -> BTreeMap<String, String> {
    let writable = runtime.writable.as_ref().map(|paths| {
        let text =
            |(path, _): &(RelPath, _)| format!("/{}", String::from_utf8_lossy(path.as_bytes()));
        paths.iter().map(text).collect::<Vec<String>>()
    });
    contract::labels(runtime.readonly, writable.as_deref())
}

/// A container sees an empty directory at every writable path, whatever the image has there.
fn check_writable(
    session: &Session<'_>,
    project: &Project,
    spec: &Resolved,
    tree: TreeId,
) -> Result<(), Failure> {
    let store = &session.store;
    let tree = store.tree(&tree)?;
    for (path, span) in spec.runtime.writable.iter().flatten() {
        match entry_at(store, &tree, path)? {
            // What a link leads to, only who mounts it knows.
            None | Some(Entry::Symlink(_)) => {}
            Some(Entry::Directory(id)) => {
                if !store.directory(&id)?.is_empty() {
                    session.events.event(Event::Warning {
                        text: format!("the container does not see what the image has in `{path}`: `[runtime]` makes it an empty directory"),
                        hint: Some("name a directory below it, or leave it empty".into()),
                    });
                }
            }
            Some(Entry::File(_) | Entry::Special(_)) => {
                let place = Place {
                    file: project.file.clone(),
                    span: *span,
                };
                return Err(Failure::new(
                    Exit::Spec,
                    Diagnostic::error(format!(
                        "`{path}` is no directory, and `[runtime]` makes it one"
                    ))
                    .at(place)
                    .hint("name the directory that it is in"),
                ));
            }
        }
    }
    Ok(())
}

/// Makes images of realised roots.
struct Maker<'a> {
    session: &'a Session<'a>,
    project: &'a Project,
    graph: &'a Graph,
    realised: &'a BTreeMap<OpId, Realised>,
    pinned: &'a Pinned,
    epoch: Epoch,
}

impl Maker<'_> {
    fn image(
        &self,
        root: OpId,
        platform: Platform,
        delivery: &Delivery,
        totals: &mut Totals,
    ) -> Result<Image, Failure> {
        let lineage = self.graph.lineage(root);
        let base = self.base(lineage[0])?;
        let blobs = self.pinned.blobs(&self.session.store);
        let blobs = Until::new(&blobs, self.session.cancel);
        let maker = LayerMaker {
            store: &self.session.store,
            blobs: &blobs,
            epoch: self.epoch,
            compression: delivery.compression,
            threads: self.session.settings.threads,
            events: self.session.events,
            place: format!("{}\0{platform}", self.project.memory()),
        };
        let cuts = self.cuts(&lineage, delivery.policy)?;
        let own = cuts
            .into_iter()
            .enumerate()
            .map(|(nth, cut)| {
                let layer = maker.layer(nth, cut.lower, cut.upper)?;
                if let Some(layer) = layer {
                    totals.own.0 += 1;
                    totals.own.1 += layer.size;
                }
                Ok(OwnLayer {
                    created_by: cut.text,
                    layer,
                })
            })
            .collect::<Result<Vec<_>, Failure>>()?;
        for layer in base.iter().flat_map(|base| &base.layers) {
            totals.base.0 += 1;
            totals.base.1 += layer.size;
        }
        let mut changes = delivery.changes.clone();
        if let Some((user, place)) = &delivery.user {
            changes.user = Some(self.user(user, place.as_ref(), self.realised[&root].tree)?);
        }
        Ok(assemble(&ImageSpec {
            base: base.as_ref(),
            own: &own,
            changes: &changes,
            annotations: &delivery.annotations,
            platform,
            epoch: self.epoch,
        }))
    }

    /// How the way from the first of a lineage to its last is cut.
    fn cuts(&self, lineage: &[OpId], policy: LayerPolicy) -> Result<Vec<Cut>, Failure> {
        let stops = self.stops(lineage);
        let roots: Vec<Root> = stops
            .iter()
            .map(|id| Root {
                tree: self.realised[id].tree,
                step: self.step_text(*id),
            })
            .collect();
        let cuts = cut(&roots, policy);
        let LayerPolicy::PerPackage(most) = policy else {
            return Ok(cuts);
        };
        let mut finer = Vec::new();
        for (cut, stop) in cuts.into_iter().zip(&stops[1..]) {
            let origin = self.graph.origin(*stop);
            let installed = lineage.iter().find_map(|id| {
                let op = self.graph.op(*id);
                let is_here = self.graph.origin(*id) == origin;
                (is_here && matches!(op.kind, OpKind::Install(_))).then(|| op.inputs[1])
            });
            match installed {
                Some(packages) => {
                    let set = self.realised[&packages].tree;
                    finer.extend(package_cuts(self.session, &cut, set, most)?);
                }
                None => finer.push(cut),
            }
        }
        Ok(finer)
    }

    /// The ops of a lineage that a layer can end at: the last of each step or source, which may be several ops.
    fn stops(&self, lineage: &[OpId]) -> Vec<OpId> {
        let origins = lineage.iter().map(|id| self.graph.origin(*id));
        let next = origins.clone().skip(1).map(Some).chain([None]);
        lineage
            .iter()
            .zip(origins.zip(next))
            .filter(|(_, (own, next))| Some(*own) != *next)
            .map(|(id, _)| *id)
            .collect()
    }

    /// The base image a lineage starts from, if it starts from one.
    fn base(&self, start: OpId) -> Result<Option<BaseImage>, Failure> {
        let (OpKind::Source(Pin::Image { manifest }), Some(config)) =
            (&self.graph.op(start).kind, self.realised[&start].config)
        else {
            return Ok(None);
        };
        let store = &self.session.store;
        let manifest_bytes = store.read(&BlobId::new(*manifest))?;
        let config_bytes = store.read(&config)?;
        Ok(Some(BaseImage::new(
            ManifestDigest::new(*manifest),
            &manifest_bytes,
            &config_bytes,
        )?))
    }

    fn step_text(&self, id: OpId) -> Option<String> {
        match self.graph.origin(id) {
            Origin::Step { text, .. } => Some(text.clone()),
            Origin::Source { name } if self.graph.op(id).base().is_some() => {
                Some(format!("from {name}"))
            }
            Origin::Source { .. } | Origin::Start => None,
        }
    }

    /// `uid:gid` of who runs the container, looked up in the root as it ships.
    fn user(
        &self,
        owner: &model::Owner,
        place: Option<&Place>,
        tree: TreeId,
    ) -> Result<String, Failure> {
        let owner = crate::graph::plan::owner(owner);
        let store = &self.session.store;
        let tree = store.tree(&tree)?;
        let blobs = self.pinned.blobs(store);
        let (uid, gid) =
            crate::graph::apply::resolve_owner(&owner, &tree, store, &blobs).map_err(|error| {
                let mut diagnostic = diagnostic_of(&error);
                diagnostic.message =
                    format!("cannot tell who runs the container: {}", diagnostic.message);
                diagnostic.place = place.cloned();
                Failure::new(Exit::Spec, diagnostic).hint(
                    "make the account with a `user` step, or write numbers, `user = \"10001\"`",
                )
            })?;
        Ok(format!("{uid}:{gid}"))
    }

    fn image_id(&self, root: OpId, platform: Platform, delivery: &Delivery) -> ImageId {
        let history: Vec<String> = self
            .stops(&self.graph.lineage(root))
            .iter()
            .filter_map(|id| self.step_text(*id))
            .collect();
        ImageKey {
            root: *root.digest(),
            platform,
            config: &delivery.changes,
            annotations: &delivery.annotations,
            history: &history,
            layers: &delivery.policy.name(),
            encoder: delivery.compression.encoder_id(),
            epoch: self.epoch,
            format: FormatVersion::V1,
        }
        .id()
    }
}

/// A secret that no step of any stage asks for is most likely another one's name, misspelt.
fn warn_of_secrets(
    session: &Session<'_>,
    resolved: &BTreeMap<Platform, Resolved>,
    options: &Options,
) {
    let stages = resolved.values().flat_map(|spec| spec.stages.values());
    let asked: BTreeSet<&String> = stages
        .flat_map(|stage| &stage.steps)
        .filter_map(|step| match &step.verb {
            Verb::Run(run) => Some(&run.secrets),
            _ => None,
        })
        .flatten()
        .collect();
    for name in options.secrets.keys().filter(|name| !asked.contains(name)) {
        session.events.event(Event::Warning {
            text: format!("no step asks for the secret `{name}`"),
            hint: Some(format!("a step does so with `secrets = [\"{name}\"]`")),
        });
    }
}

/// SPEC B: set at build time it is a warning, because it would be a second place for the one time.
fn warn_of_source_date_epoch(session: &Session<'_>) {
    if session.settings.source_date_epoch.is_some() {
        session.events.event(Event::Warning {
            text: "`SOURCE_DATE_EPOCH` is set and means nothing to a build: the epoch is in the spec or the lock".into(),
            hint: Some("to move it, run `immbuild update --epoch`".into()),
        });
    }
}

/// The spec for each platform that is wanted.
pub fn resolve_platforms(
    project: &Project,
    args: &BTreeMap<String, String>,
    only: &[String],
) -> Result<BTreeMap<Platform, Resolved>, Failure> {
    let declared = project.spec.platforms().to_vec();
    let arguments = project.arguments(args)?;
    let mut wanted = Vec::new();
    for text in only {
        let platform: Platform = text
            .parse()
            .ok()
            .filter(|platform| declared.contains(platform))
            .ok_or_else(|| {
                let known: Vec<String> = declared.iter().map(ToString::to_string).collect();
                Failure::new(
                    Exit::Usage,
                    Diagnostic::error(format!("`{text}` is not a platform of this spec"))
                        .hint(format!("it has {}", known.join(", "))),
                )
            })?;
        wanted.push(platform);
    }
    if wanted.is_empty() {
        wanted = declared;
    }
    project.resolve_each(&wanted, &arguments)
}

/// The stage that is built: `image`, or the one asked for.
pub fn wanted_stage(
    resolved: &BTreeMap<Platform, Resolved>,
    asked: Option<&str>,
) -> Result<Ident, Failure> {
    let Some(asked) = asked else {
        return Ok(Ident::image());
    };
    let spec = resolved.values().next().expect("a spec has a platform");
    spec.stages
        .keys()
        .find(|name| name.as_str() == asked)
        .cloned()
        .ok_or_else(|| {
            let known: Vec<&str> = spec.stages.keys().map(Ident::as_str).collect();
            Failure::new(
                Exit::Usage,
                Diagnostic::error(format!("there is no stage `{asked}`"))
                    .hint(format!("the stages are {}", known.join(", "))),
            )
        })
}

/// A step executes programs of this machine, or of others that it has a handler for.
pub fn refuse_foreign(session: &Session<'_>, graph: &Graph, wants: &[OpId]) -> Result<(), Failure> {
    for id in graph.reachable(wants) {
        let OpKind::Exec(exec) = &graph.op(id).kind else {
            continue;
        };
        if exec.platform.machine() == std::env::consts::ARCH {
            continue;
        }
        let scratch = session.store.scratch("foreign")?;
        if let Err(lack) = runs_programs_of(exec.platform.machine(), scratch.path())? {
            return Err(Failure::new(
                Exit::Machine,
                Diagnostic::error(format!(
                    "step `{}` executes programs of {}, and this machine is {}",
                    graph.origin(id).label(),
                    exec.platform,
                    std::env::consts::ARCH
                ))
                .because(lack.to_string())
                .hint(format!(
                    "{}; or give its stage `platform = \"…\"` of this machine and cross-compile",
                    lack.fix()
                )),
            ));
        }
    }
    Ok(())
}

/// Config, manifest and index are blobs of the store, where `load` and `inspect` find them.
fn keep_documents(
    session: &Session<'_>,
    images: &[Image],
    index: Option<&ImageIndex>,
) -> Result<(), Failure> {
    for image in images {
        session.store.put_bytes(image.config.as_bytes())?;
        session.store.put_bytes(image.manifest.as_bytes())?;
    }
    if let Some(index) = index {
        session.store.put_bytes(index.index.as_bytes())?;
    }
    Ok(())
}

/// The ops of an image with their labels, in the order of the graph.
fn op_vector(graph: &Graph, wants: &[OpId]) -> Vec<(String, OpId)> {
    graph
        .reachable(wants)
        .into_iter()
        .map(|id| (graph.origin(id).label(), id))
        .collect()
}

/// The digest of a set of image ids: key of an index's expectation.
fn set_of_ids(reports: &BTreeMap<Platform, ImageReport>) -> Digest {
    let mut out = immbuild_cas::canonical::Encoder::default();
    out.str("image-set");
    out.sequence(reports.values(), |out, report| {
        out.digest(report.id.digest());
    });
    Digest::of(&out.into_bytes())
}

/// What this build says of itself, as expectations.
fn statements(
    reports: &BTreeMap<Platform, ImageReport>,
    index: Option<&ImageIndex>,
) -> BTreeMap<Target, Expect> {
    let mut all: BTreeMap<Target, Expect> = reports
        .iter()
        .map(|(platform, report)| {
            let expect = Expect {
                image_id: *report.id.digest(),
                manifest: *report.manifest.digest(),
                tree: Some(report.tree),
            };
            (Target::Platform(*platform), expect)
        })
        .collect();
    if let Some(index) = index {
        all.insert(
            Target::Index,
            Expect {
                image_id: set_of_ids(reports),
                manifest: *index.digest().digest(),
                tree: None,
            },
        );
    }
    all
}

#[allow(
    clippy::too_many_arguments,
    reason = "each is one thing the comparison needs, and only here"
)]
fn expect(
    session: &Session<'_>,
    project: &Project,
    lock: Option<&Lock>,
    request: &BuildRequest,
    stage: &Ident,
    reports: &BTreeMap<Platform, ImageReport>,
    index: Option<&ImageIndex>,
    taint: Taint,
    ops: &[(String, OpId)],
) -> Result<Expectation, Failure> {
    if stage.as_str() != Ident::IMAGE {
        return Ok(Expectation::None);
    }
    let found = statements(reports, index);
    if request.record {
        let mut lock = lock.cloned().unwrap_or_else(|| Lock {
            epoch: Epoch::DEFAULT,
            sources: BTreeMap::new(),
            expect: BTreeMap::new(),
        });
        lock.expect.extend(found);
        project.write_lock(&lock)?;
        for report in reports.values() {
            memory::remember_ops(session, report.id, ops)?;
        }
        return Ok(Expectation::Recorded);
    }
    if request.ignore_expectations {
        return Ok(Expectation::None);
    }
    if taint.warm_cache {
        return Ok(Expectation::Warm);
    }
    let expected = lock
        .map(|lock| &lock.expect)
        .filter(|expect| !expect.is_empty());
    let Some(expected) = expected else {
        if request.expected {
            return Err(Failure::new(
                Exit::Lock,
                Diagnostic::error("the lock expects nothing")
                    .because(format!(
                        "there is no `[[expect]]` in `{}`",
                        project.lock_path.display()
                    ))
                    .hint("run `immbuild build --record` to write what this build gives"),
            ));
        }
        return Ok(Expectation::None);
    };
    let mut changed = None;
    let mut applies = true;
    for (target, found) in &found {
        match expected.get(target) {
            Some(expect) if expect.image_id == found.image_id => {
                if expect.manifest != found.manifest {
                    return Err(mismatch(*target, expect, found, taint));
                }
            }
            other => {
                applies = false;
                if let Some(expect) = other {
                    changed = changed.or(memory::first_changed(session, expect.image_id, ops)?);
                }
            }
        }
    }
    if applies {
        return Ok(Expectation::Met);
    }
    if request.expected {
        let what = changed.map_or_else(
            || "the lock's `[[expect]]` is about another image".to_owned(),
            |op| format!("the lock's `[[expect]]` is about another image: `{op}` is not as it was"),
        );
        return Err(Failure::new(
            Exit::Lock,
            Diagnostic::error("no expectation applies")
                .because(what)
                .hint("run `immbuild build --record` when the change is meant"),
        ));
    }
    Ok(Expectation::Other { changed })
}

/// Same image id and other bytes: the promise is broken, here or where it was recorded.
fn mismatch(target: Target, expected: &Expect, found: &Expect, taint: Taint) -> Failure {
    let grade = if expected.tree.is_some() && expected.tree == found.tree {
        "the trees are equal: the difference is in how they were written"
    } else if target == Target::Index {
        "an image of the index differs"
    } else if taint.downgraded {
        "the trees differ, and a step had a lesser tier than it asks for: that alone can be why"
    } else {
        "the trees differ: a step gave something else than when it was recorded"
    };
    Failure::new(
        Exit::Different,
        Diagnostic::error(format!("{target} is not what `[[expect]]` says"))
            .because(format!(
                "expected {}, built {}; {grade}",
                expected.manifest, found.manifest
            ))
            .hint("nothing was written; `immbuild compare` shows where two images begin to differ, `immbuild build --record` takes the new bytes"),
    )
}
