//! `immbuild push`, `build --push`: an image goes to a registry as it is.

use std::collections::{BTreeMap, BTreeSet};

use immbuild_cas::digest::{BlobId, Digest};
use immbuild_cas::store::{BlobSource as _, Store as _};

use super::failure::{Exit, Failure};
use super::locate::ImageAt;
use super::project::Project;
use super::session::Session;
use crate::diag::Diagnostic;
use crate::image::{BaseImage, ManifestDigest};
use crate::lock::model::Pin;
use crate::output::Names;
use crate::ports::{Event, Outcome, WorkId};
use crate::registry::{Push, Pushed, RegistryError, Whole};
use crate::spec::image_name::{ImageName, ImageNameError, ImageRepository};
use crate::spec::model::{ImageSource, SourceKind};

/// Where an image goes: repositories, each with the tags it gets there.
pub type Targets = BTreeMap<ImageRepository, BTreeSet<String>>;

/// Which repositories have which blobs already.
pub type Elsewhere = BTreeMap<Digest, ImageRepository>;

/// What was pushed to one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushReport {
    /// By this it can be had again, whatever becomes of tags: `name@sha256:…`.
    pub reference: ImageName,
    /// Its names with tags.
    pub tags: Vec<String>,
    /// What was sent.
    pub pushed: Pushed,
}

/// The only piece of work of this kind.
const PUSH: u64 = 5 << 32;

/// Where an image goes by the names it has and those of the command line: `1.4.0`, `registry.example.com/shop:1.4.0`.
///
/// # Errors
/// Nothing names a registry.
pub fn targets(names: &Names, asked: &[String]) -> Result<Targets, Failure> {
    let own = || -> Result<ImageRepository, Failure> {
        let name = names.name.as_deref().ok_or_else(|| {
            let message = "nothing says where the image goes";
            Failure::new(Exit::Usage, Diagnostic::error(message)).hint(
                "add `name = \"registry.example.com/shop\"` to `[image]`, or name it with `--tag registry.example.com/shop:1.4.0`",
            )
        })?;
        name.parse().map_err(|error| no_name(name, &error))
    };
    let mut targets = Targets::new();
    if asked.is_empty() {
        targets.insert(own()?, names.tags.clone());
    }
    for text in asked {
        let name = if text.contains('/') {
            ImageName::with_or_without_tag(text)
        } else {
            own()?.tagged(text)
        };
        let name = name.map_err(|error| no_name(text, &error))?;
        if name.digest.is_some() {
            let message = format!("`{text}` names a digest, which is what comes out");
            return Err(Failure::new(Exit::Usage, Diagnostic::error(message)));
        }
        let tags = targets.entry(name.repository).or_default();
        tags.insert(name.tag.unwrap_or_else(|| "latest".into()));
    }
    Ok(targets)
}

fn no_name(text: &str, error: &ImageNameError) -> Failure {
    let failure = Failure::new(
        Exit::Usage,
        Diagnostic::error(format!(
            "`{}` is no name in a registry",
            text.escape_debug()
        )),
    );
    failure
        .because(error.to_string())
        .hint("it is `HOST/PATH:TAG`, such as `registry.example.com/shop:1.4.0`")
}

/// The layers of a spec's base images by where they came from: a registry that has them need not get them again.
///
/// # Errors
/// The spec or the lock cannot be read, or the store fails.
pub fn elsewhere(session: &Session<'_>, project: &Project) -> Result<Elsewhere, Failure> {
    let mut known = Elsewhere::new();
    let Some(lock) = project.read_lock()? else {
        return Ok(known);
    };
    for spec in project.resolve_defaults()?.values() {
        for source in spec.sources.values() {
            let pin = lock.sources.get(&source.name).map(|locked| &locked.pin);
            let (
                SourceKind::Image(ImageSource::Registry(name)),
                Some(Pin::Image { manifests, .. }),
            ) = (&source.kind, pin)
            else {
                continue;
            };
            for manifest in manifests.values() {
                let id = BlobId::new(manifest.digest);
                if !session.store.has(&id)? {
                    continue;
                }
                let bytes = session.store.read(&id)?;
                let digest = ManifestDigest::new(manifest.digest);
                if let Ok(parsed) = BaseImage::manifest(digest, &bytes) {
                    for layer in &parsed.layers {
                        known.insert(layer.digest, name.repository.clone());
                    }
                }
            }
        }
    }
    Ok(known)
}

/// Sends an image, and gives it its tags when all of it is there.
///
/// # Errors
/// A registry does not take it, or a part of it cannot be read. The tags of that registry are as they were.
pub fn push(
    session: &Session<'_>,
    at: &ImageAt<'_>,
    targets: &Targets,
    elsewhere: &Elsewhere,
) -> Result<Vec<PushReport>, Failure> {
    if session.settings.offline {
        let message = "pushing needs the network, and it is off";
        return Err(Failure::new(Exit::Unreachable, Diagnostic::error(message))
            .hint("run it without `--offline`"));
    }
    let [root] = at.roots.as_slice() else {
        return Err(Failure::new(
            Exit::Usage,
            Diagnostic::error(format!("`{}` has several images and no index", at.name))
                .hint("push one of them: name it by its tag or digest"),
        ));
    };
    let whole = Whole::read(root, at, &at.name).map_err(|error| part_failure(at, error))?;
    let client = session.registries();
    let mut reports = Vec::new();
    for ((repository, tags), number) in targets.iter().zip(0..) {
        let work = WorkId(PUSH + number);
        session.events.event(Event::Started {
            id: work,
            label: format!("push {repository}"),
            total: Some(whole.size()),
        });
        let progress = |done| session.events.event(Event::Advanced { id: work, done });
        let tags: Vec<String> = tags.iter().cloned().collect();
        let outcome = Push {
            client: &client,
            repository,
            blobs: at,
            elsewhere,
            threads: session.settings.threads,
            progress: &progress,
        }
        .image(&whole, &tags);
        session.events.event(Event::Finished {
            id: work,
            outcome: match outcome {
                Ok(_) => Outcome::Done,
                Err(_) => Outcome::Failed,
            },
        });
        reports.push(PushReport {
            reference: repository.at(root.digest),
            tags: tags
                .iter()
                .map(|tag| format!("{repository}:{tag}"))
                .collect(),
            pushed: outcome.map_err(|error| part_failure(at, error))?,
        });
    }
    Ok(reports)
}

/// What cannot be read is a matter of where the image is.
pub(super) fn part_failure(at: &ImageAt<'_>, error: RegistryError) -> Failure {
    match error {
        RegistryError::Store(error) => at.failure(&error),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(name: Option<&str>) -> Names {
        Names {
            name: name.map(Into::into),
            tags: ["latest".to_owned(), "1".to_owned()].into(),
        }
    }

    fn found(name: Option<&str>, asked: &[&str]) -> Result<Vec<String>, Exit> {
        let asked: Vec<String> = asked.iter().map(ToString::to_string).collect();
        let targets = targets(&names(name), &asked).map_err(|failure| failure.exit)?;
        Ok(targets
            .iter()
            .flat_map(|(name, tags)| tags.iter().map(move |tag| format!("{name}:{tag}")))
            .collect())
    }

    #[test]
    fn an_image_goes_where_its_spec_or_the_command_line_says() {
        let own = Some("r.example.com/shop");
        assert_eq!(
            found(own, &[]).expect("targets"),
            ["r.example.com/shop:1", "r.example.com/shop:latest"]
        );
        assert_eq!(
            found(own, &["2"]).expect("targets"),
            ["r.example.com/shop:2"]
        );
        assert_eq!(
            found(
                own,
                &["2", "s.example.com:5000/x", "s.example.com:5000/x:3"]
            )
            .expect("targets"),
            [
                "r.example.com/shop:2",
                "s.example.com:5000/x:3",
                "s.example.com:5000/x:latest"
            ]
        );
        assert_eq!(
            found(None, &["s.example.com/x:3"]).expect("targets"),
            ["s.example.com/x:3"]
        );
        assert_eq!(found(None, &[]), Err(Exit::Usage));
        assert_eq!(found(None, &["3"]), Err(Exit::Usage));
        assert_eq!(found(Some("shop"), &[]), Err(Exit::Usage));
        assert_eq!(found(own, &["-x"]), Err(Exit::Usage));
        assert_eq!(found(own, &["team/shop:1"]), Err(Exit::Usage));
    }
}
