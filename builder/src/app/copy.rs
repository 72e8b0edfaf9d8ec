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
use crate::ports::{Event, WorkId};
use crate::registry::{Push, RegistryError, Whole};
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

/// The piece of work of this command, after that of fetching.
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
    let to_registry = locate::in_registry(to);
    if session.settings.offline && to_registry.is_some() {
        return Err(locate::needs_network());
    }
    let taken = match locate::in_registry(from) {
        Some(name) => fetch(session, name)?,
        None => here(session, from)?,
    };
    let digest = taken.root.digest;
    let reference = if let Some(name) = to_registry {
        Some(send(session, &taken, &name)?)
    } else {
        write(session, &taken, Path::new(to))?;
        None
    };
    Ok(Copied {
        digest,
        reference,
        documents: taken.whole.documents.len(),
        blobs: (taken.whole.parts.len(), taken.whole.size()),
    })
}

fn fetch<'a>(session: &'a Session<'_>, name: ImageName) -> Result<Taken<'a>, Failure> {
    let fetched = locate::fetch(session, name)?;
    Ok(Taken {
        root: fetched.root,
        whole: fetched.whole,
        names: fetched.names,
        from: From::Store(&session.store),
        repository: Some(fetched.name),
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
    locate::finish(session, WRITE, pushed.is_ok());
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
    locate::finish(session, WRITE, written.is_ok());
    Ok(written?)
}
