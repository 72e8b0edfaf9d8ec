//! What others say about an image: artifacts that name it as their subject. They are never members of its index, so what they say
//! changes no digest of it.
//!
//! OCI distribution-spec, "Listing Referrers" and "Referrers Tag Schema" for registries that know nothing of it.

use std::collections::BTreeMap;

use immbuild_cas::digest::Digest;
use immbuild_cas::store::Store;
use serde_json::{Value, json};

use super::client::{Ask, Client, Reply};
use super::pull::Part;
use super::push::{Push, Whole};
use super::{Document, RegistryError};
use crate::image::CanonicalJson;
use crate::image::artifact::{Artifact, EMPTY, EMPTY_MEDIA, Referrer, TITLE};
use crate::image::descriptor::{Descriptor, MEDIA_INDEX, MEDIA_MANIFEST};
use crate::image::read;
use crate::resolve::http::exchange::with_query;
use crate::resolve::http::join;
use crate::spec::image_name::ImageRepository;

/// Most answers that one list is spread over.
const PAGES: usize = 64;

/// A file that becomes part of an artifact. It is in the store already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// What it is called.
    pub title: String,
    /// What it is.
    pub media_type: String,
    /// Its bytes.
    pub digest: Digest,
    /// How many.
    pub size: u64,
}

/// The tag that stands for the list where a registry keeps none: `sha256-…`.
fn tag_of(subject: &Digest) -> String {
    subject.to_string().replacen(':', "-", 1)
}

impl Client<'_> {
    /// What is said about a manifest or index, by digest. With a type only that.
    ///
    /// # Errors
    /// The registry does not answer, or answers with no list.
    pub fn referrers(
        &self,
        repository: &ImageRepository,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Referrer>, RegistryError> {
        let mut found = BTreeMap::new();
        let mut url = self.url(repository, &format!("referrers/{subject}"));
        if let Some(artifact_type) = artifact_type {
            url = with_query(&url, &[("artifactType", artifact_type)]).unwrap_or(url);
        }
        for page in 0..PAGES {
            let reply = self.list(repository, url.clone())?;
            match reply.answer.status() {
                200 => {}
                // It knows nothing of referrers; one that does answers with an empty list.
                400 | 404 | 405 if page == 0 => {
                    let list = self.tagged_list(repository, subject)?;
                    add(
                        &mut found,
                        repository,
                        &list.map_or_else(Vec::new, |list| list.bytes),
                    )?;
                    break;
                }
                _ => {
                    let what = format!("the list of what is about {subject}");
                    return Err(self.refused(reply, repository, what));
                }
            }
            let next = next_page(&reply).map(|next| join(&reply.url, &next).unwrap_or_default());
            let document = self.whole_document(reply, repository)?;
            add(&mut found, repository, &document)?;
            match next {
                None => break,
                Some(next) => {
                    self.may_go(repository.host(), &url, &next)?;
                    url = next;
                }
            }
        }
        Ok(found
            .into_values()
            .filter(|it: &Referrer| artifact_type.is_none_or(|wanted| it.artifact_type == wanted))
            .collect())
    }

    fn list(&self, repository: &ImageRepository, url: String) -> Result<Reply, RegistryError> {
        self.ask(&Ask::get(
            url,
            vec![("accept", MEDIA_INDEX.to_owned())],
            repository,
        ))
    }

    /// The list that a tag stands for.
    fn tagged_list(
        &self,
        repository: &ImageRepository,
        subject: &Digest,
    ) -> Result<Option<Document>, RegistryError> {
        match self.document(repository, &tag_of(subject)) {
            Ok(document) => Ok(Some(document)),
            Err(RegistryError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// RFC 8288 §3: the reference with `rel="next"`.
fn next_page(reply: &Reply) -> Option<String> {
    reply
        .answer
        .headers("link")
        .flat_map(|link| link.split(','))
        .find_map(|link| {
            let (reference, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
            let is_next = parameters
                .split(';')
                .any(|parameter| matches!(parameter.trim(), "rel=\"next\"" | "rel=next"));
            is_next.then(|| reference.to_owned())
        })
}

fn add(
    found: &mut BTreeMap<Digest, Referrer>,
    repository: &ImageRepository,
    list: &[u8],
) -> Result<(), RegistryError> {
    if list.is_empty() {
        return Ok(());
    }
    let all = read::referrers(list, "the list of referrers").map_err(|source| {
        RegistryError::Document {
            from: repository.to_string(),
            source,
        }
    })?;
    for referrer in all {
        found.insert(referrer.descriptor.digest, referrer);
    }
    Ok(())
}

impl Push<'_> {
    /// Makes an artifact of these files that is about `subject`, and gives its digest. The same files about the same image give the
    /// same artifact.
    ///
    /// # Errors
    /// The registry does not take it, or a file cannot be read.
    pub fn attach(
        &self,
        subject: &Descriptor,
        artifact_type: &str,
        files: &[Attachment],
        store: &dyn Store,
    ) -> Result<Digest, RegistryError> {
        let empty = store.put_bytes(EMPTY)?;
        let layers = files.iter().map(|file| {
            let mut layer = Descriptor::new(&file.media_type, file.digest, file.size);
            layer.annotations.insert(TITLE.into(), file.title.clone());
            layer
        });
        let manifest = CanonicalJson::of(&Artifact {
            artifact_type: artifact_type.to_owned(),
            config: Descriptor::new(EMPTY_MEDIA, *empty.digest(), EMPTY.len() as u64),
            layers: layers.collect(),
            subject: Some(Descriptor::new(
                &subject.media_type,
                subject.digest,
                subject.size,
            )),
            annotations: BTreeMap::new(),
        });
        store.put_bytes(manifest.as_bytes())?;
        let own = Descriptor::new(MEDIA_MANIFEST, manifest.digest(), manifest.size());
        let whole = Whole::read(&own, self.blobs, "the store")?;
        self.image(&whole, &[])?;
        let listed = self.document(&own, manifest.as_bytes(), &own.digest.to_string())?;
        if listed.is_none() {
            self.enlist(&subject.digest, &own, artifact_type)?;
        }
        Ok(own.digest)
    }

    /// Adds an artifact to the list that a tag stands for, as the registry keeps none. Others may do so at the same time, and nothing
    /// locks the tag: it is looked at again, and written again where ours is gone.
    fn enlist(
        &self,
        subject: &Digest,
        own: &Descriptor,
        artifact_type: &str,
    ) -> Result<(), RegistryError> {
        for _ in 0..self.client.patience.attempts {
            let list = self.client.tagged_list(self.repository, subject)?;
            let bytes = list.map(|list| list.bytes).unwrap_or_default();
            let mut known = BTreeMap::new();
            add(&mut known, self.repository, &bytes)?;
            if known.contains_key(&own.digest) {
                return Ok(());
            }
            let list = with_entry(&bytes, own, artifact_type);
            let descriptor = Descriptor::new(MEDIA_INDEX, Digest::of(&list), list.len() as u64);
            self.document(&descriptor, &list, &tag_of(subject))?;
        }
        Err(RegistryError::Protocol {
            host: self.repository.host().to_owned(),
            cause: format!(
                "the tag `{}` does not stay as it is written",
                tag_of(subject)
            ),
        })
    }
}

/// The list with one entry more; what the others say stays, also what is unknown here.
fn with_entry(list: &[u8], own: &Descriptor, artifact_type: &str) -> Vec<u8> {
    let entry = json!({
        "mediaType": own.media_type,
        "digest": own.digest.to_string(),
        "size": own.size,
        "artifactType": artifact_type,
    });
    let mut top = match serde_json::from_slice(list) {
        Ok(Value::Object(top)) => top,
        _ => serde_json::Map::from_iter([
            ("schemaVersion".to_owned(), json!(2)),
            ("mediaType".to_owned(), json!(MEDIA_INDEX)),
        ]),
    };
    match top.get_mut("manifests") {
        Some(Value::Array(entries)) => entries.push(entry),
        _ => {
            top.insert("manifests".to_owned(), json!([entry]));
        }
    }
    serde_json::to_vec(&top).expect("a value that was parsed")
}

/// A file of an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedFile {
    /// What it is called, where it is called anything.
    pub title: Option<String>,
    /// Its blob, in the store now.
    pub part: Part,
}

impl super::Pull<'_> {
    /// Brings an artifact into the store, and says what its files are.
    ///
    /// # Errors
    /// A part is not there or not what its digest says.
    pub fn artifact(&self, digest: Digest) -> Result<Vec<AttachedFile>, RegistryError> {
        let bytes = self.by_digest("artifact", digest, None)?;
        let links =
            read::links(&bytes, &digest.to_string()).map_err(|source| RegistryError::Document {
                from: self.repository.to_string(),
                source,
            })?;
        let files: Vec<AttachedFile> = links
            .blobs
            .iter()
            .skip(1)
            .map(|layer| AttachedFile {
                title: layer.annotations.get(TITLE).cloned(),
                part: Part {
                    what: "file",
                    digest: layer.digest,
                    size: layer.size,
                },
            })
            .collect();
        let parts: Vec<Part> = files.iter().map(|file| file.part.clone()).collect();
        self.parts(&parts)?;
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_stays() {
        let own = Descriptor::new(MEDIA_MANIFEST, Digest::of(b"own"), 3);
        let before = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"m","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":1,"artifactType":"t","data":"e30=","annotations":{"a":"b"}}],"x":[1]}"#;
        let list = with_entry(before, &own, "mine");
        let found = read::referrers(&list, "l").expect("a list");
        let types: Vec<&str> = found.iter().map(|it| it.artifact_type.as_str()).collect();
        assert_eq!(types, ["t", "mine"]);
        assert_eq!(found[1].descriptor, own);
        let text = String::from_utf8_lossy(&list).into_owned();
        assert!(
            text.contains(r#""data":"e30=""#) && text.contains(r#""x":[1]"#),
            "{text}"
        );
        let new = with_entry(b"", &own, "mine");
        assert_eq!(read::referrers(&new, "l").expect("a list").len(), 1);
    }
}
