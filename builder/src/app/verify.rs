//! `immbuild verify IMAGE`: is it what its digests say, and does its spec give it again?

use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use immbuild_cas::digest::{BlobId, Digest};
use immbuild_cas::store::{BlobSource as _, LocalStore, Store as _};
use immbuild_cas::tree::{Meta, Mode, Tree, TreeBuilder, delta};

use super::build::{self, BuildRequest};
use super::compare::{self, Compared};
use super::failure::{Exit, Failure, diagnostic_of};
use super::locate::{self, Documents, ImageAt};
use super::project::Project;
use super::realise::{IMAGE_MAX, Options};
use super::scratch::ScratchPlace;
use super::session::{Session, Settings};
use crate::compare::Verdict;
use crate::diag::Diagnostic;
use crate::epoch::Epoch;
use crate::image::BaseImage;
use crate::image::verify::verify_structure;
use crate::layer::{
    Compression, DiffId, LayerDigest, LayerError, LayerPlan, LayerWriter, Mtimes, UntarTarget,
};
use crate::lock::model::Pin;
use crate::resolve::image::import_layer;

/// What a right image is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Digest of the index, or of the only manifest.
    pub digest: Option<Digest>,
    /// Manifests that were read.
    pub manifests: usize,
    /// Layers that were read.
    pub layers: usize,
    /// Documents that another tool wrote.
    pub foreign_documents: Vec<Digest>,
    /// Layers that are not what format 1 writes for the change they make: a base's, or another tool's. Looked for where
    /// every document is ours.
    pub foreign_layers: Vec<LayerDigest>,
}

/// Reads every document and layer of an image and compares digests, sizes and diff ids.
///
/// # Errors
/// Everything that is wrong, each with its digest.
pub fn structure(session: &Session<'_>, image: &ImageAt<'_>) -> Result<Parts, Failure> {
    let mut parts = Parts {
        digest: None,
        manifests: 0,
        layers: 0,
        foreign_documents: Vec::new(),
        foreign_layers: Vec::new(),
    };
    let mut problems = Vec::new();
    for root in &image.roots {
        let found = verify_structure(image, root, IMAGE_MAX);
        parts.manifests += found.manifests;
        parts.layers += found.layers;
        parts.foreign_documents.extend(found.foreign);
        problems.extend(found.problems.iter().map(|(digest, problem)| {
            let mut told = diagnostic_of(problem);
            told.message = format!("{digest} {}", told.message);
            told
        }));
    }
    if !problems.is_empty() {
        return Err(Failure::all(Exit::Untrusted, problems));
    }
    let documents = image.documents()?;
    parts.digest = documents.digest();
    if parts.foreign_documents.is_empty() {
        parts.foreign_layers = foreign_layers(session, image, &documents)?;
    }
    Ok(parts)
}

/// Layers whose tar is another than format 1 writes for what they change.
fn foreign_layers(
    session: &Session<'_>,
    at: &ImageAt<'_>,
    documents: &Documents,
) -> Result<Vec<LayerDigest>, Failure> {
    let place = ScratchPlace::new(session, "verify")?;
    let store = place.open()?;
    let mut foreign = Vec::new();
    for one in &documents.images {
        foreign.extend(foreign_layers_of(session, at, &one.image, &store)?);
    }
    foreign.sort_unstable();
    foreign.dedup();
    Ok(foreign)
}

fn foreign_layers_of(
    session: &Session<'_>,
    at: &ImageAt<'_>,
    image: &BaseImage,
    store: &LocalStore,
) -> Result<Vec<LayerDigest>, Failure> {
    let mut foreign = Vec::new();
    let mut below = TreeBuilder::new(store, Meta::root(Mode::DIRECTORY)).seal(store)?;
    for layer in &image.layers {
        let mut builder = TreeBuilder::from_tree(store, &below);
        let target = UntarTarget {
            tree: &mut builder,
            store,
            mtimes: &mut Mtimes::default(),
            dropped: &mut Vec::new(),
        };
        import_layer(layer, at, target, IMAGE_MAX)?;
        let tree = builder.seal(store)?;
        let written = match image.date() {
            Some(epoch) => rewritten(session, store, (&below, &tree), epoch)?,
            None => None,
        };
        if written != Some(layer.diff_id) {
            foreign.push(layer.digest);
        }
        below = tree;
    }
    Ok(foreign)
}

/// The diff id of the layer that format 1 writes for this change; none for a change that our own layers never hold.
fn rewritten(
    session: &Session<'_>,
    store: &LocalStore,
    (below, tree): (&Tree, &Tree),
    epoch: Epoch,
) -> Result<Option<DiffId>, Failure> {
    let changes = delta(store, below, tree)?;
    let threads = session.settings.threads;
    let written = LayerPlan::new(store, tree, changes).and_then(|plan| {
        LayerWriter {
            blobs: store,
            epoch,
            compression: Compression::None,
            threads,
            earlier: None,
            progress: &|_| (),
        }
        .write(&plan, &mut io::sink())
    });
    match written {
        Ok(written) => Ok(Some(written.diff_id)),
        Err(LayerError::WhiteoutName(_) | LayerError::Device(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What a rebuild showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// What came out: digest of the index, or of the only manifest.
    pub digest: Digest,
    /// How far the two agree: the image on the left, what was rebuilt on the right.
    pub compared: Compared,
}

/// Builds the spec again, from nothing, in a scratch store and under other surroundings, and compares.
///
/// # Errors
/// [`Exit::CannotSay`] with the reason, where the rebuild came to no end; other failures where the spec, the lock or the
/// command line is wrong.
pub fn rebuild(
    session: &Session<'_>,
    image: &ImageAt<'_>,
    project: &Project,
    options: &Options,
) -> Result<Rebuilt, Failure> {
    // A wrong `--arg` is wrong usage, and not something the rebuild could not do.
    project.arguments(&options.args)?;
    let documents = image.documents()?;
    let platforms = match (&documents.index, documents.images.as_slice()) {
        (None, [one]) if project.spec.platforms().len() > 1 => vec![one.platform.to_string()],
        _ => Vec::new(),
    };
    let request = BuildRequest {
        // A rebuild never writes a lock.
        locked: true,
        ignore_expectations: true,
        no_outputs: true,
        platforms,
        options: Options {
            empty_caches: true,
            distrust_times: true,
            ..options.clone()
        },
        ..BuildRequest::default()
    };

    let place = ScratchPlace::new(session, "verify")?;
    let settings = other_surroundings(session.settings, place.store_path());
    let inner = session.inside(&settings)?;
    seed(session, project, &inner.store)?;
    let built = {
        let _umask = OtherUmask::set();
        build::build(&inner, project, &request)
    };
    let built = built.map_err(|failure| cannot_say(image, project, failure))?;
    let rebuilt = locate::in_store(&inner.store, built.digest, "the rebuilt image".into())?;
    Ok(Rebuilt {
        digest: built.digest,
        compared: compare::images(session, image, &rebuilt)?,
    })
}

/// The exit status of a verdict when this much is accepted.
pub fn exit_of(verdict: Verdict, accepted: Verdict) -> Option<Exit> {
    match verdict {
        verdict if verdict <= accepted => None,
        Verdict::Identical => None,
        Verdict::DiffIdIdentical => Some(Exit::DiffId),
        Verdict::TreeIdentical => Some(Exit::Tree),
        Verdict::Different => Some(Exit::Different),
    }
}

/// Another store in another place, and another number of threads.
fn other_surroundings(settings: &Settings, store: PathBuf) -> Settings {
    const TWO: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);
    Settings {
        store,
        threads: if settings.threads == NonZeroUsize::MIN {
            TWO
        } else {
            NonZeroUsize::MIN
        },
        ..settings.clone()
    }
}

/// Takes over downloads that the lock names by digest: reading them again cannot give anything else.
fn seed(session: &Session<'_>, project: &Project, into: &LocalStore) -> Result<(), Failure> {
    let Some(lock) = project.read_lock()? else {
        return Ok(());
    };
    for locked in lock.sources.values() {
        let Pin::Http { files } = &locked.pin else {
            continue;
        };
        for file in files.values() {
            let id = BlobId::new(file.sha256);
            if session.store.has(&id)? {
                into.put(&mut session.store.open(&id)?)?;
            }
        }
    }
    Ok(())
}

/// A rebuild that came to no end says nothing about the image. What is wrong with spec, lock or sources is told as ever.
fn cannot_say(image: &ImageAt<'_>, project: &Project, failure: Failure) -> Failure {
    // Usage was checked before: what is left of it is a secret that was not given, or a platform that the spec lacks.
    let says_nothing = matches!(
        failure.exit,
        Exit::Usage | Exit::Unreachable | Exit::Step | Exit::Machine
    );
    if !says_nothing {
        return failure;
    }
    let mut diagnostics = vec![Diagnostic::error(format!(
        "cannot say whether `{}` is what `{}` builds: it could not be rebuilt",
        image.name,
        project.path.display()
    ))];
    diagnostics.extend(failure.diagnostics);
    Failure::all(Exit::CannotSay, diagnostics)
}

/// While this lives, the process has another umask.
struct OtherUmask(rustix::fs::Mode);

impl OtherUmask {
    fn set() -> Self {
        let strict = rustix::fs::Mode::from_raw_mode(0o077);
        let loose = rustix::fs::Mode::from_raw_mode(0o002);
        let before = rustix::process::umask(strict);
        if before == strict {
            rustix::process::umask(loose);
        }
        Self(before)
    }
}

impl Drop for OtherUmask {
    fn drop(&mut self) {
        rustix::process::umask(self.0);
    }
}
