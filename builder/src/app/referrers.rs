//! `immbuild attach`, `immbuild referrers`: files about an image, beside it in its registry and never inside it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use immbuild_cas::digest::{BlobId, Digest};
use immbuild_cas::store::{BlobSource as _, Store as _};

use super::failure::{Exit, Failure};
use super::project::io_failure;
use super::session::Session;
use crate::diag::Diagnostic;
use crate::image::artifact::Referrer;
use crate::image::descriptor::{Descriptor, MEDIA_INDEX, MEDIA_MANIFEST};
use crate::image::read::{self, Document};
use crate::registry::{AttachedFile, Attachment, Client, Pull, Push};
use crate::spec::image_name::ImageName;

/// What was attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The artifact.
    pub reference: ImageName,
    /// What it is about.
    pub subject: Digest,
}

/// What is said about an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrers {
    /// The image.
    pub subject: Digest,
    /// In the order of their digests.
    pub all: Vec<Referrer>,
    /// The files that were written.
    pub written: Vec<PathBuf>,
}

fn online(session: &Session<'_>) -> Result<(), Failure> {
    if session.settings.offline {
        let message = "what is about an image is in its registry, and the network is off";
        return Err(Failure::new(Exit::Unreachable, Diagnostic::error(message))
            .hint("run it without `--offline`"));
    }
    Ok(())
}

/// What a name stands for, as an artifact names its subject.
fn subject(client: &Client<'_>, name: &ImageName) -> Result<Descriptor, Failure> {
    let digest = name.digest.map(|digest| digest.to_string());
    let asked = digest
        .as_deref()
        .or(name.tag.as_deref())
        .unwrap_or("latest");
    let document = client.document(&name.repository, asked)?;
    let said = read::links(&document.bytes, &document.digest.to_string())?.media_type;
    let media_type = if said.is_empty() {
        match read::document(&document.bytes, &document.digest.to_string())? {
            Document::Index(_) => MEDIA_INDEX.to_owned(),
            Document::Manifest(_) => MEDIA_MANIFEST.to_owned(),
        }
    } else {
        said
    };
    let size = document.bytes.len() as u64;
    Ok(Descriptor::new(&media_type, document.digest, size))
}

/// Makes an artifact of files, which is about an image of a registry.
///
/// # Errors
/// There is no such image, a file cannot be read, or the registry does not take it.
pub fn attach(
    session: &Session<'_>,
    name: &ImageName,
    files: &[PathBuf],
    artifact_type: &str,
) -> Result<Attached, Failure> {
    online(session)?;
    let mut attachments = Vec::new();
    for path in files {
        let mut file = File::open(path).map_err(|error| io_failure("read", path, &error))?;
        let (blob, size) = session.store.put(&mut file)?;
        let title = path.file_name().unwrap_or_default().to_string_lossy();
        attachments.push(Attachment {
            title: title.into_owned(),
            media_type: artifact_type.to_owned(),
            digest: *blob.digest(),
            size,
        });
    }
    let client = session.registries();
    let subject = subject(&client, name)?;
    let digest = Push {
        client: &client,
        repository: &name.repository,
        blobs: &session.store,
        elsewhere: &BTreeMap::new(),
        threads: session.settings.threads,
        progress: &|_| {},
    }
    .attach(&subject, artifact_type, &attachments, &session.store)?;
    Ok(Attached {
        reference: name.repository.at(digest),
        subject: subject.digest,
    })
}

/// Lists what is said about an image, and with `into` writes the files of it there, those of each artifact into a directory of its
/// own.
///
/// # Errors
/// There is no such image, an artifact is not what its digest says, or a file is in the way.
pub fn referrers(
    session: &Session<'_>,
    name: &ImageName,
    artifact_type: Option<&str>,
    into: Option<&Path>,
) -> Result<Referrers, Failure> {
    online(session)?;
    let client = session.registries();
    let subject = match name.digest {
        Some(digest) => digest,
        None => subject(&client, name)?.digest,
    };
    let all = client.referrers(&name.repository, &subject, artifact_type)?;
    let mut written = Vec::new();
    if let Some(into) = into {
        let pull = Pull {
            client: &client,
            repository: &name.repository,
            store: &session.store,
            offline: false,
            threads: session.settings.threads,
            progress: &|_| {},
        };
        for referrer in &all {
            let digest = referrer.descriptor.digest;
            let directory = into.join(digest.to_hex());
            for file in pull.artifact(digest)? {
                written.push(write(session, &directory, &file)?);
            }
        }
    }
    Ok(Referrers {
        subject,
        all,
        written,
    })
}

/// A file of an artifact becomes a file here. What it is called is taken where it is nothing but a name.
fn write(session: &Session<'_>, directory: &Path, file: &AttachedFile) -> Result<PathBuf, Failure> {
    let digest = file.part.digest;
    let is_name = |title: &&String| {
        !title.is_empty()
            && !title.starts_with('.')
            && title.len() <= 255
            && !title.contains(['/', '\0'])
            && !title.chars().any(char::is_control)
    };
    let hex = digest.to_hex();
    let name = file.title.as_ref().filter(is_name).unwrap_or(&hex);
    let path = directory.join(name);
    let failed = |error: &io::Error| io_failure("write", &path, error);
    fs::create_dir_all(directory).map_err(|error| failed(&error))?;
    let mut reader = session.store.open(&BlobId::new(digest))?;
    let mut out = File::create_new(&path).map_err(|error| failed(&error))?;
    io::copy(&mut reader, &mut out).map_err(|error| failed(&error))?;
    Ok(path)
}
