//! What steps gave, for whoever would run the same: a repository as a shared cache.
//!
//! ```text
//! tag           action-<64 hex digits>      the key of the result
//! artifactType  application/vnd.immbuild.result.v1
//! config        the empty one
//! layers        application/vnd.immbuild.bundle.v1+zstd      what the tree has beyond the root that the step began with
//!               application/vnd.immbuild.evidence.v1         where the step was traced
//! annotations   immbuild.result.tree        the tree's id
//!               immbuild.result.length      bytes of the bundle when it is decompressed
//!               immbuild.result.signatures  who vouches for all of that, with spaces between
//! ```

use std::collections::{BTreeMap, BTreeSet};

use immbuild_cas::canonical::{Canonical, Encoder};
use immbuild_cas::digest::{Digest, TreeId};
use immbuild_cas::store::Store;

use super::client::Client;
use super::pull::Part;
use super::push::{Push, Pushed, Whole};
use super::signing::{PublicKey, SecretKey, Signature};
use super::{Document, RegistryError};
use crate::image::CanonicalJson;
use crate::image::artifact::{Artifact, EMPTY, EMPTY_MEDIA};
use crate::image::descriptor::{Descriptor, MEDIA_MANIFEST};
use crate::image::read::{self, Links, ReadError};
use crate::spec::image_name::ImageRepository;

const ARTIFACT: &str = "application/vnd.immbuild.result.v1";
const MEDIA_BUNDLE: &str = "application/vnd.immbuild.bundle.v1+zstd";
const MEDIA_EVIDENCE: &str = "application/vnd.immbuild.evidence.v1";
const TREE: &str = "immbuild.result.tree";
const LENGTH: &str = "immbuild.result.length";
const SIGNATURES: &str = "immbuild.result.signatures";
/// Most signatures that are looked at.
const SIGNATURES_MAX: usize = 64;

/// What somebody says that an action gives: what is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The key of the result.
    pub action: Digest,
    /// The result.
    pub tree: TreeId,
    /// Bytes of the bundle that brings it.
    pub length: u64,
    /// What the step did that could have differed.
    pub evidence: Option<Digest>,
}

impl Canonical for Statement {
    const TAG: &'static str = "immbuild.result";
    const VERSION: u32 = 1;

    fn encode_fields(&self, out: &mut Encoder) {
        out.digest(&self.action);
        out.digest(self.tree.digest());
        out.u64(self.length);
        out.sequence(self.evidence.iter(), Encoder::digest);
    }
}

/// A result as a registry has it. Nothing of it is believed before somebody who is has signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedResult {
    /// What is said.
    pub statement: Statement,
    /// The bundle, compressed.
    pub bundle: Part,
    /// What the step did.
    pub evidence: Option<Part>,
    /// Who says so.
    pub signatures: BTreeSet<Signature>,
}

impl SharedResult {
    /// Has one of these signed it?
    pub fn is_signed_by(&self, trusted: &BTreeSet<PublicKey>) -> bool {
        let message = self.statement.to_canonical();
        self.signatures
            .iter()
            .any(|signature| trusted.contains(&signature.by) && signature.is_of(&message))
    }

    /// Vouches for it.
    pub fn sign(&mut self, key: &SecretKey) {
        self.signatures
            .insert(key.sign(&self.statement.to_canonical()));
    }

    fn manifest(&self) -> Artifact {
        let layer = |media: &str, part: &Part| Descriptor::new(media, part.digest, part.size);
        let mut annotations = BTreeMap::from([
            (TREE.to_owned(), self.statement.tree.to_string()),
            (LENGTH.to_owned(), self.statement.length.to_string()),
        ]);
        if !self.signatures.is_empty() {
            let all: Vec<String> = self.signatures.iter().map(ToString::to_string).collect();
            annotations.insert(SIGNATURES.to_owned(), all.join(" "));
        }
        let mut layers = vec![layer(MEDIA_BUNDLE, &self.bundle)];
        layers.extend(self.evidence.iter().map(|part| layer(MEDIA_EVIDENCE, part)));
        Artifact {
            artifact_type: ARTIFACT.to_owned(),
            config: Descriptor::new(EMPTY_MEDIA, Digest::of(EMPTY), EMPTY.len() as u64),
            layers,
            subject: None,
            annotations,
        }
    }

    /// What a manifest says that an action gives. Whatever it says of itself, it is about that action only if that was signed.
    fn of_manifest(action: Digest, document: &Document) -> Result<Self, ReadError> {
        let name = document.digest.to_string();
        let wrong = |field: &str, problem: &str| ReadError::Field {
            document: name.clone(),
            field: field.to_owned(),
            problem: problem.to_owned(),
        };
        let Links {
            artifact_type,
            annotations,
            blobs,
            ..
        } = read::links(&document.bytes, &name)?;
        if artifact_type != ARTIFACT {
            return Err(wrong("artifactType", "is not that of a result"));
        }
        let said = |key: &str| {
            annotations
                .get(key)
                .map(String::as_str)
                .ok_or_else(|| wrong(&format!("annotations.{key}"), "is missing"))
        };
        let tree: Digest = said(TREE)?
            .parse()
            .map_err(|_| wrong(&format!("annotations.{TREE}"), "is no digest"))?;
        let length = said(LENGTH)?
            .parse()
            .map_err(|_| wrong(&format!("annotations.{LENGTH}"), "is no number"))?;
        let signatures = annotations.get(SIGNATURES).map_or("", String::as_str);
        let mut parts = blobs.iter().skip(1);
        let mut part = |what: &'static str, media: &str| {
            let found = parts.next();
            match found {
                Some(found) if found.media_type == media => Ok(Some(Part {
                    what,
                    digest: found.digest,
                    size: found.size,
                })),
                Some(_) => Err(wrong("layers", "are not those of a result")),
                None => Ok(None),
            }
        };
        let bundle = part("bundle", MEDIA_BUNDLE)?;
        let bundle = bundle.ok_or_else(|| wrong("layers", "are missing"))?;
        let evidence = part("evidence", MEDIA_EVIDENCE)?;
        Ok(Self {
            statement: Statement {
                action,
                tree: TreeId::new(tree),
                length,
                evidence: evidence.as_ref().map(|part| part.digest),
            },
            bundle,
            evidence,
            // One of another kind is somebody's who knows more than this version.
            signatures: signatures
                .split(' ')
                .take(SIGNATURES_MAX)
                .filter_map(|text| text.parse().ok())
                .collect(),
        })
    }
}

fn tag_of(action: &Digest) -> String {
    format!("action-{}", action.to_hex())
}

impl Client<'_> {
    /// What a repository says that an action gives, if it says anything.
    ///
    /// # Errors
    /// The registry does not answer, or it has something else by that name.
    pub fn result(
        &self,
        repository: &ImageRepository,
        action: Digest,
    ) -> Result<Option<SharedResult>, RegistryError> {
        let document = match self.document(repository, &tag_of(&action)) {
            Ok(document) => document,
            Err(RegistryError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        SharedResult::of_manifest(action, &document)
            .map(Some)
            .map_err(|source| RegistryError::Document {
                from: repository.to_string(),
                source,
            })
    }
}

impl Push<'_> {
    /// Keeps a result, whose parts [`Push::blobs`] has, with what is in `store` besides: its tag comes when all of it is there.
    ///
    /// # Errors
    /// The registry does not take it, or a part cannot be read.
    pub fn result(
        &self,
        result: &SharedResult,
        store: &dyn Store,
    ) -> Result<Pushed, RegistryError> {
        store.put_bytes(EMPTY)?;
        let manifest = CanonicalJson::of(&result.manifest());
        store.put_bytes(manifest.as_bytes())?;
        let own = Descriptor::new(MEDIA_MANIFEST, manifest.digest(), manifest.size());
        let whole = Whole::read(&own, self.blobs, "the store")?;
        self.image(&whole, &[tag_of(&result.statement.action)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result() -> SharedResult {
        let part = |what, text: &[u8]| Part {
            what,
            digest: Digest::of(text),
            size: text.len() as u64,
        };
        let evidence = part("evidence", b"evidence");
        SharedResult {
            statement: Statement {
                action: Digest::of(b"action"),
                tree: TreeId::new(Digest::of(b"tree")),
                length: 7,
                evidence: Some(evidence.digest),
            },
            bundle: part("bundle", b"bundle"),
            evidence: Some(evidence),
            signatures: BTreeSet::new(),
        }
    }

    fn key() -> SecretKey {
        let place = tempfile::tempdir().expect("a directory");
        SecretKey::create(&place.path().join("key")).expect("a key")
    }

    fn document(manifest: &str) -> Document {
        Document {
            media_type: MEDIA_MANIFEST.into(),
            digest: Digest::of(manifest.as_bytes()),
            bytes: manifest.as_bytes().to_vec(),
        }
    }

    fn text(result: &SharedResult) -> String {
        let manifest = CanonicalJson::of(&result.manifest());
        String::from_utf8_lossy(manifest.as_bytes()).into_owned()
    }

    #[test]
    fn a_manifest_says_what_it_was_made_of() {
        let mut result = result();
        for _ in 0..3 {
            let read =
                SharedResult::of_manifest(result.statement.action, &document(&text(&result)));
            assert_eq!(read.expect("read"), result);
            result.sign(&key());
        }
        result.evidence = None;
        result.statement.evidence = None;
        let read = SharedResult::of_manifest(result.statement.action, &document(&text(&result)));
        assert_eq!(read.expect("read"), result);
    }

    #[test]
    fn a_signature_is_for_all_that_is_said() {
        let (ours, theirs) = (key(), key());
        let trusted = BTreeSet::from([ours.public()]);
        let mut signed = result();
        assert!(!signed.is_signed_by(&trusted));
        signed.sign(&theirs);
        assert!(!signed.is_signed_by(&trusted));
        signed.sign(&ours);
        assert!(signed.is_signed_by(&trusted));
        assert!(!signed.is_signed_by(&BTreeSet::new()));
        let other = Digest::of(b"other");
        let changes: [fn(&mut Statement, Digest); 4] = [
            |said, other| said.action = other,
            |said, other| said.tree = TreeId::new(other),
            |said, _| said.length += 1,
            |said, other| said.evidence = Some(other),
        ];
        for change in changes {
            let mut result = signed.clone();
            change(&mut result.statement, other);
            assert!(!result.is_signed_by(&trusted), "{result:?}");
        }
        // Of one action it says nothing about another: whoever writes to the registry may move a tag.
        let moved = SharedResult::of_manifest(other, &document(&text(&signed))).expect("read");
        assert!(!moved.is_signed_by(&trusted));
    }

    #[test]
    fn what_is_no_result_is_refused() {
        let good = text(&result());
        for (from, to) in [
            (ARTIFACT, "application/x"),
            (MEDIA_BUNDLE, "application/x"),
            (MEDIA_EVIDENCE, "application/x"),
            (TREE, "x"),
            (LENGTH, "x"),
            ("\"7\"", "\"-7\""),
            ("\"7\"", "7"),
        ] {
            assert!(good.contains(from), "{from}");
            let read = SharedResult::of_manifest(
                Digest::of(b"action"),
                &document(&good.replacen(from, to, 1)),
            );
            assert!(read.is_err(), "{from} {to}: {read:?}");
        }
    }
}
