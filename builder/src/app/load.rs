//! `immbuild load ENGINE`: an image goes to a container engine of this machine.

use std::io::Read;

use immbuild_cas::digest::{BlobId, Digest};
use immbuild_cas::store::{BlobSource as _, StoreError};

use super::failure::{Exit, Failure};
use super::locate::{ImageAt, ImageDocuments};
use super::session::Session;
use crate::diag::Diagnostic;
use crate::epoch::Epoch;
use crate::image::{CanonicalJson, Image};
use crate::layer::LayerDigest;
use crate::output::{self, Engine, LayerSource, Names, Subject};
use crate::platform::Platform;
use crate::ports::{Event, Outcome, WorkId};

/// What was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its manifest.
    pub manifest: Digest,
    /// Its config: the id that engines show.
    pub config: Digest,
    /// What it runs on, when there were several to choose from.
    pub chosen: Option<Platform>,
    /// The names it has there.
    pub references: Vec<String>,
}

/// Loads an image, under the names that its spec gives it unless `reference` is another.
///
/// # Errors
/// The image has no manifest for this machine, was written by another tool, or the engine is missing or refuses.
pub fn load(
    session: &Session<'_>,
    engine: Engine,
    at: &ImageAt<'_>,
    reference: Option<&str>,
) -> Result<Loaded, Failure> {
    let documents = at.documents()?;
    let names = names(at, reference)?;
    let (one, chosen) = choose(at, &documents.images)?;
    let image = image(at, one)?;
    let scratch = session.store.scratch("load")?;
    let work = WorkId(LOAD);
    session.events.event(Event::Started {
        id: work,
        label: format!("load into {}", engine.name()),
        total: Some(image.layers.iter().map(|layer| layer.size).sum()),
    });
    let progress = |done| session.events.event(Event::Advanced { id: work, done });
    let loaded = output::load(
        &engine.into(),
        Subject::One(&image),
        &names,
        &Layers(at),
        scratch.path(),
        &progress,
    );
    session.events.event(Event::Finished {
        id: work,
        outcome: if loaded.is_ok() {
            Outcome::Done
        } else {
            Outcome::Failed
        },
    });
    loaded?;
    Ok(Loaded {
        manifest: *image.manifest_digest().digest(),
        config: *image.config_digest().digest(),
        chosen,
        references: names.references(),
    })
}

/// The only piece of work of this command.
const LOAD: u64 = 0;

/// The name of the command line, else those it has.
fn names(at: &ImageAt<'_>, reference: Option<&str>) -> Result<Names, Failure> {
    let Some(reference) = reference else {
        return Ok(at.names.clone());
    };
    let with_tag = match reference.rsplit_once(':') {
        // A colon before the last slash is a port: `localhost:5000/shop`.
        Some((_, tag)) if !tag.contains('/') => reference.to_owned(),
        _ => format!("{reference}:latest"),
    };
    let names = Names::of_references([with_tag.as_str()]);
    if names.references().is_empty() {
        return Err(Failure::new(
            Exit::Usage,
            Diagnostic::error(format!("`--tag {reference}` is no name"))
                .hint("write it as `--tag NAME:TAG`"),
        ));
    }
    Ok(names)
}

/// An engine takes one platform: the only one, else this machine's.
fn choose<'a>(
    at: &ImageAt<'_>,
    images: &'a [ImageDocuments],
) -> Result<(&'a ImageDocuments, Option<Platform>), Failure> {
    if let [one] = images {
        return Ok((one, None));
    }
    let of_machine = images.iter().find_map(|one| {
        let platform = one.platform.known()?;
        (platform.machine() == std::env::consts::ARCH).then_some((one, Some(platform)))
    });
    of_machine.ok_or_else(|| {
        let platforms: Vec<String> = images.iter().map(|one| one.platform.to_string()).collect();
        Failure::new(
            Exit::Unreachable,
            Diagnostic::error(format!(
                "`{}` is not for this machine ({})",
                at.name,
                std::env::consts::ARCH
            ))
            .because(format!("it is for {}", platforms.join(", ")))
            .hint("name one of its manifests by digest: `immbuild inspect` lists them"),
        )
    })
}

/// The image as outputs take it. Bytes never change on the way, so its documents must be in our own form.
fn image(at: &ImageAt<'_>, one: &ImageDocuments) -> Result<Image, Failure> {
    let manifest = CanonicalJson::of(&one.manifest);
    let config = CanonicalJson::of(&one.image.config);
    let platform = one.image.platform();
    let is_ours = manifest.digest() == *one.image.manifest.digest()
        && config.digest() == one.manifest.config.digest;
    match platform {
        Some(platform) if is_ours => Ok(Image {
            config,
            manifest,
            layers: one.image.layers.clone(),
            platform,
            epoch: one.image.date().unwrap_or(Epoch::DEFAULT),
        }),
        _ => Err(Failure::new(
            Exit::Unreachable,
            Diagnostic::error(format!("`{}` was written by another tool", at.name))
                .because(
                    "its documents are in another form than ours, and loading must not change them",
                )
                .hint("hand it over with the engine's own `load` or `pull`, or with `skopeo copy`"),
        )),
    }
}

/// Layers of an image where they are.
struct Layers<'a>(&'a ImageAt<'a>);

impl LayerSource for Layers<'_> {
    fn open(&self, digest: &LayerDigest) -> Result<Box<dyn Read + Send + '_>, StoreError> {
        self.0.open(&BlobId::new(*digest.digest()))
    }
}
