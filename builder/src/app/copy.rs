//! `immbuild copy A B`: an image goes from one place to another as it is: registry, layout, archive, store.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use immbuild_cas::digest::Digest;
use immbuild_cas::store::BlobSource;

use super::failure::{Exit, Failure};
use super::locate::{self, ImageAt};
use super::push::{Targets, part_failure};
use super::session::Session;
use crate::diag::Diagnostic;
use crate::image::descriptor::Descriptor;
use crate::output::{AsItIs, Names, write_archive_as_it_is, write_layout_as_it_is};
use crate::ports::{Event, Outcome, WorkId};
use crate::registry::{Pull, Push, RegistryError, Whole};
use crate::spec::image_name::ImageName;

/// What was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Digest of its manifest or index, the same in both places.
    pub digest: Digest,
    /// In a registry: by this it can be had again.
    pub reference: Option<ImageName>,
    /// Manifests and indexes.
    pub documents: usize,
    /// Configs and layers, and their bytes.
    pub blobs: (usize, u64),
}

/// Where an image is, or is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Registry(ImageName),
    /// A path, or whatever else names an image here.
    Here(String),
}

/// A name with a host, where there is no file of that name: `./` before it means the file in any case.
fn place(text: &str) -> Place {
    let is_path = ["./", "../", "/"]
        .iter()
        .any(|start| text.starts_with(start));
    match ImageName::with_or_without_tag(text) {
        Ok(name) if !is_path && !Path::new(text).exists() => Place::Registry(name),
        _ => Place::Here(text.to_owned()),
    }
}

/// The pieces of work of this command.
const FETCH: WorkId = WorkId(6 << 32);
const WRITE: WorkId = WorkId((6 << 32) + 1);

/// An image with all that belongs to it, and where its parts are.
struct Taken<'a> {
    root: Descriptor,
    whole: Whole,
    names: Names,
    from: From<'a>,
    /// The repository it is from.
    repository: Option<ImageName>,
}

/// What the parts are read from.
enum From<'a> {
    Store(&'a dyn BlobSource),
    Image(Box<ImageAt<'a>>),
}

impl From<'_> {
    fn blobs(&self) -> &dyn BlobSource {
        match self {
            Self::Store(store) => *store,
            Self::Image(at) => &**at,
        }
    }

    fn failure(&self, error: RegistryError) -> Failure {
        match self {
            Self::Store(_) => error.into(),
            Self::Image(at) => part_failure(at, error),
        }
    }
}

/// Copies an image. What is in registries is known by `HOST/PATH:TAG`; a file that ends in `.tar` is an archive, any other a layout.
///
/// # Errors
/// It is not there, a part of it is not what its digest says, or the other place does not take it. Then nothing is there by its name.
pub fn copy(session: &Session<'_>, from: &str, to: &str) -> Result<Copied, Failure> {
    let (from, to) = (place(from), place(to));
    let is_away = |place: &Place| matches!(place, Place::Registry(_));
    if session.settings.offline && (is_away(&from) || is_away(&to)) {
        let message = "a registry needs the network, and it is off";
        return Err(Failure::new(Exit::Unreachable, Diagnostic::error(message))
            .hint("run it without `--offline`"));
    }
    let taken = match from {
        Place::Registry(name) => fetch(session, name)?,
        Place::Here(text) => here(session, &text)?,
    };
    let digest = taken.root.digest;
    let reference = match to {
        Place::Registry(name) => Some(send(session, &taken, &name)?),
        Place::Here(path) => {
            write(session, &taken, Path::new(&path))?;
            None
        }
    };
    Ok(Copied {
        digest,
        reference,
        documents: taken.whole.documents.len(),
        blobs: (taken.whole.parts.len(), taken.whole.size()),
    })
}

fn fetch<'a>(session: &'a Session<'_>, name: ImageName) -> Result<Taken<'a>, Failure> {
    let name = match (&name.tag, &name.digest) {
        (None, None) => ImageName {
            tag: Some("latest".into()),
            ..name
        },
        _ => name,
    };
    let client = session.registries();
    session.events.event(Event::Started {
        id: FETCH,
        label: format!("fetch {name}"),
        total: None,
    });
    let progress = |done| session.events.event(Event::Advanced { id: FETCH, done });
    let fetched = Pull {
        client: &client,
        repository: &name.repository,
        store: &session.store,
        offline: false,
        threads: session.settings.threads,
        progress: &progress,
    }
    .whole(&name);
    finish(session, FETCH, fetched.is_ok());
    let (root, whole) = fetched?;
    Ok(Taken {
        root,
        whole,
        names: Names {
            name: Some(name.repository.to_string()),
            tags: name.tag.iter().cloned().collect(),
        },
        from: From::Store(&session.store),
        repository: Some(name),
    })
}

fn here<'a>(session: &'a Session<'_>, text: &str) -> Result<Taken<'a>, Failure> {
    let at = locate::image(session, text)?;
    let [root] = at.roots.as_slice() else {
        return Err(Failure::new(
            Exit::Usage,
            Diagnostic::error(format!("`{}` has several images and no index", at.name))
                .hint("name one of them by its tag or digest"),
        ));
    };
    let root = root.clone();
    let whole = Whole::read(&root, &at, &at.name).map_err(|error| part_failure(&at, error))?;
    Ok(Taken {
        root,
        whole,
        names: at.names.clone(),
        from: From::Image(Box::new(at)),
        repository: None,
    })
}

fn send(session: &Session<'_>, taken: &Taken<'_>, to: &ImageName) -> Result<ImageName, Failure> {
    if let Some(digest) = to.digest
        && digest != taken.root.digest
    {
        let message = format!("`{to}` names another image than {}", taken.root.digest);
        return Err(Failure::new(Exit::Usage, Diagnostic::error(message)));
    }
    let mut targets = Targets::new();
    let tags: BTreeSet<String> = match (&to.tag, to.digest) {
        (Some(tag), _) => [tag.clone()].into(),
        (None, Some(_)) => BTreeSet::new(),
        (None, None) => ["latest".to_owned()].into(),
    };
    targets.insert(to.repository.clone(), tags.clone());
    // What the same registry has elsewhere it need not get from here.
    let elsewhere: BTreeMap<_, _> = match &taken.repository {
        Some(from) => {
            let parts = taken.whole.parts.keys();
            parts
                .map(|digest| (*digest, from.repository.clone()))
                .collect()
        }
        None => BTreeMap::new(),
    };
    session.events.event(Event::Started {
        id: WRITE,
        label: format!("push {}", to.repository),
        total: Some(taken.whole.size()),
    });
    let progress = |done| session.events.event(Event::Advanced { id: WRITE, done });
    let client = session.registries();
    let tags: Vec<String> = tags.into_iter().collect();
    let pushed = Push {
        client: &client,
        repository: &to.repository,
        blobs: taken.from.blobs(),
        elsewhere: &elsewhere,
        threads: session.settings.threads,
        progress: &progress,
    }
    .image(&taken.whole, &tags);
    finish(session, WRITE, pushed.is_ok());
    pushed.map_err(|error| taken.from.failure(error))?;
    Ok(to.repository.at(taken.root.digest))
}

fn write(session: &Session<'_>, taken: &Taken<'_>, path: &Path) -> Result<(), Failure> {
    let documents: Vec<(Digest, &[u8])> = taken
        .whole
        .documents
        .iter()
        .map(|(descriptor, bytes)| (descriptor.digest, bytes.as_slice()))
        .collect();
    let is_document = |digest: &Digest| documents.iter().any(|(known, _)| known == digest);
    let blobs: Vec<(Digest, u64)> = taken
        .whole
        .parts
        .values()
        .filter(|part| !is_document(&part.digest))
        .map(|part| (part.digest, part.size))
        .collect();
    let image = AsItIs {
        root: &taken.root,
        documents: &documents,
        blobs: &blobs,
        names: &taken.names,
    };
    session.events.event(Event::Started {
        id: WRITE,
        label: format!("write {}", path.display()),
        total: Some(taken.whole.size()),
    });
    let done = Cell::new(0);
    let progress = |more| {
        done.set(done.get() + more);
        session.events.event(Event::Advanced {
            id: WRITE,
            done: done.get(),
        });
    };
    let is_archive = path.extension().is_some_and(|extension| extension == "tar");
    let written = if is_archive {
        write_archive_as_it_is(path, &image, taken.from.blobs(), &progress)
    } else {
        write_layout_as_it_is(path, &image, taken.from.blobs(), &progress)
    };
    finish(session, WRITE, written.is_ok());
    Ok(written?)
}

fn finish(session: &Session<'_>, id: WorkId, is_done: bool) {
    let outcome = if is_done {
        Outcome::Done
    } else {
        Outcome::Failed
    };
    session.events.event(Event::Finished { id, outcome });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_host_is_a_registry_unless_it_says_that_it_is_a_path() {
        for text in [
            "r.example.com/shop",
            "localhost:5000/shop:1",
            "localhost/a/b:1",
        ] {
            assert!(matches!(place(text), Place::Registry(_)), "{text}");
        }
        for text in [
            "out/shop",
            "out/shop.tar",
            "./r.example.com/shop",
            "/tmp/x.y/z",
            "../a.b/c",
            "sha256:12",
            "shop.tar",
        ] {
            assert_eq!(place(text), Place::Here(text.to_owned()));
        }
    }
}
