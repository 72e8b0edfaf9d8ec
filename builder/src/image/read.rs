//! Reads manifests, indexes, configs and docker's `manifest.json`, whoever wrote them.
//!
//! Strict where a loose reader and another could see different images: size, depth, keys that come twice, types, digests,
//! a document that is index and manifest at once. Unknown fields are none of our business and are passed over, except in a
//! config's `config`, where each field that would be lost is reported.

use std::collections::{BTreeMap, BTreeSet};

use immbuild_cas::digest::Digest;

use super::artifact::Referrer;
use super::config::{ContainerConfig, History, ImageConfig};
use super::descriptor::{
    Descriptor, LayerMedia, MEDIA_CONFIG, MEDIA_INDEX, MEDIA_MANIFEST, PlatformText,
};
use super::index::Index;
use super::json::{Json, MAX_JSON};
use super::manifest::Manifest;

/// Most layers an image may have. The kernel and the engines stop far below.
pub const MAX_LAYERS: usize = 1024;
/// Most manifests an index may have.
const MAX_MANIFESTS: usize = 1024;

/// Docker's name for an index.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's name for a manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// Why bytes are not the document they should be.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// More than [`MAX_JSON`].
    #[error("{document} has {size} bytes, more than the {MAX_JSON} that are read")]
    Size {
        /// Which document: a digest or a file name.
        document: String,
        /// Its size in bytes.
        size: u64,
    },
    /// No JSON, or JSON with a key that comes twice.
    #[error("{document} is not valid JSON")]
    Json {
        /// Which document.
        document: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A field is missing or has a value that it cannot have.
    #[error("{document}: `{field}` {problem}")]
    Field {
        /// Which document.
        document: String,
        /// The way to the field: `layers[2].digest`.
        field: String,
        /// What is wrong: `is missing`, `is a number, not a string`.
        problem: String,
    },
}

/// A manifest or an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// An image for one platform.
    Manifest(Manifest),
    /// An image for several.
    Index(Index),
}

/// Is this a media type of a manifest (OCI's or Docker's)?
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, MEDIA_MANIFEST | DOCKER_MANIFEST)
}

/// Is this a media type of an index (OCI's, or Docker's manifest list)?
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, MEDIA_INDEX | DOCKER_INDEX)
}

/// Reads a manifest or an index, known by its fields. `name` is its digest or file name, for messages.
pub fn document(bytes: &[u8], name: &str) -> Result<Document, ReadError> {
    let json = parse(bytes, name)?;
    let root = At::root(&json, name);
    root.expect_number("schemaVersion", 2)?;
    let media_type = root.optional_text("mediaType")?;
    // One text that is both would be one image for us and another for the next tool (CVE-2021-41190).
    match (root.has("manifests"), root.has("layers")) {
        (true, true) => Err(root.wrong("manifests", "and `layers` stand in one document")),
        (true, false) => {
            if !media_type.is_empty() && !is_index(&media_type) {
                return Err(root.wrong("mediaType", format!("is `{media_type}` on an index")));
            }
            index(&root).map(Document::Index)
        }
        (false, _) => {
            if !media_type.is_empty() && !is_manifest(&media_type) {
                return Err(root.wrong("mediaType", format!("is `{media_type}` on a manifest")));
            }
            manifest(&root).map(Document::Manifest)
        }
    }
}

/// The files of an artifact of this type: a manifest that is no image.
pub fn artifact(bytes: &[u8], name: &str, of_type: &str) -> Result<Vec<Descriptor>, ReadError> {
    let json = parse(bytes, name)?;
    let root = At::root(&json, name);
    root.expect_number("schemaVersion", 2)?;
    let media_type = root.optional_text("mediaType")?;
    if media_type != MEDIA_MANIFEST {
        return Err(root.wrong("mediaType", format!("is `{media_type}`, not a manifest's")));
    }
    let found = root.optional_text("artifactType")?;
    if found != of_type {
        return Err(root.wrong("artifactType", format!("is `{found}`, not `{of_type}`")));
    }
    root.list("layers")?.iter().map(descriptor).collect()
}

/// What a manifest or index, of whatever kind, points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Links {
    /// What the document says that it is; empty where it does not.
    pub media_type: String,
    /// Other manifests and indexes.
    pub documents: Vec<Descriptor>,
    /// Config and layers, or the files of an artifact.
    pub blobs: Vec<Descriptor>,
    /// What it is about.
    pub subject: Option<Descriptor>,
    /// What kind of artifact it is; empty where it is none.
    pub artifact_type: String,
    /// What is said of it besides.
    pub annotations: BTreeMap<String, String>,
}

/// What a document points to, for who brings it elsewhere as it is. Layers that may not be distributed are refused: their bytes
/// are not in the image.
pub fn links(bytes: &[u8], name: &str) -> Result<Links, ReadError> {
    let json = parse(bytes, name)?;
    let root = At::root(&json, name);
    root.expect_number("schemaVersion", 2)?;
    let is_index = root.has("manifests");
    if is_index && (root.has("layers") || root.has("config")) {
        return Err(root.wrong("manifests", "and `layers` stand in one document"));
    }
    let mut links = Links {
        media_type: root.optional_text("mediaType")?,
        documents: Vec::new(),
        blobs: Vec::new(),
        subject: root
            .optional_member("subject")
            .as_ref()
            .map(descriptor)
            .transpose()?,
        artifact_type: root.optional_text("artifactType")?,
        annotations: root.texts_by_name("annotations")?,
    };
    if is_index {
        let entries = root.list("manifests")?;
        if entries.len() > MAX_MANIFESTS {
            let problem = format!("has more than {MAX_MANIFESTS} entries");
            return Err(root.wrong("manifests", problem));
        }
        links.documents = entries.iter().map(descriptor).collect::<Result<_, _>>()?;
        return Ok(links);
    }
    links.blobs.push(descriptor(&root.member("config")?)?);
    let entries = root.list("layers")?;
    if entries.len() > MAX_LAYERS {
        return Err(root.wrong("layers", format!("has more than {MAX_LAYERS} entries")));
    }
    for entry in &entries {
        let layer = descriptor(entry)?;
        if is_foreign(&layer.media_type) {
            let problem = format!("is `{}`: its bytes are not in the image", layer.media_type);
            return Err(entry.wrong("mediaType", problem));
        }
        links.blobs.push(layer);
    }
    Ok(links)
}

/// The entries of a list of referrers (OCI distribution-spec, "Listing Referrers").
pub fn referrers(bytes: &[u8], name: &str) -> Result<Vec<Referrer>, ReadError> {
    let json = parse(bytes, name)?;
    let root = At::root(&json, name);
    root.expect_number("schemaVersion", 2)?;
    let entries = root.list("manifests")?;
    entries
        .iter()
        .map(|entry| {
            Ok(Referrer {
                descriptor: descriptor(entry)?,
                artifact_type: entry.optional_text("artifactType")?,
            })
        })
        .collect()
}

/// A layer that is fetched from elsewhere than the image (OCI image-spec, "Non-Distributable Layers").
fn is_foreign(media_type: &str) -> bool {
    media_type.contains(".nondistributable.") || media_type.contains(".rootfs.foreign.")
}

fn index(root: &At<'_>) -> Result<Index, ReadError> {
    let entries = root.list("manifests")?;
    if entries.len() > MAX_MANIFESTS {
        return Err(root.wrong(
            "manifests",
            format!("has more than {MAX_MANIFESTS} entries"),
        ));
    }
    Ok(Index {
        manifests: entries.iter().map(descriptor).collect::<Result<_, _>>()?,
        annotations: root.texts_by_name("annotations")?,
    })
}

/// Media types are translated to OCI's: the bytes they speak of are the same.
fn manifest(root: &At<'_>) -> Result<Manifest, ReadError> {
    let mut config = descriptor(&root.member("config")?)?;
    if config.media_type != MEDIA_CONFIG && config.media_type != DOCKER_CONFIG {
        let problem = format!("is `{}`: this is no image", config.media_type);
        return Err(root.wrong("config.mediaType", problem));
    }
    config.media_type = MEDIA_CONFIG.into();
    let entries = root.list("layers")?;
    if entries.len() > MAX_LAYERS {
        return Err(root.wrong("layers", format!("has more than {MAX_LAYERS} entries")));
    }
    let mut layers = Vec::with_capacity(entries.len());
    for entry in &entries {
        let mut layer = descriptor(entry)?;
        let media = LayerMedia::of_media_type(&layer.media_type).ok_or_else(|| {
            let why = if is_foreign(&layer.media_type) {
                "a layer whose bytes are not in the image"
            } else {
                "which is no layer we can ship"
            };
            entry.wrong("mediaType", format!("is `{}`, {why}", layer.media_type))
        })?;
        layer.media_type = media.media_type().into();
        layers.push(layer);
    }
    Ok(Manifest {
        config,
        layers,
        annotations: root.texts_by_name("annotations")?,
    })
}

fn descriptor(at: &At<'_>) -> Result<Descriptor, ReadError> {
    let platform = match at.optional_member("platform") {
        None => None,
        Some(platform) => Some(PlatformText {
            os: platform.text("os")?,
            architecture: platform.text("architecture")?,
            variant: platform.optional_text("variant")?,
        }),
    };
    Ok(Descriptor {
        media_type: at.text("mediaType")?,
        digest: at.member("digest")?.digest()?,
        size: at.number("size")?,
        annotations: at.texts_by_name("annotations")?,
        platform,
    })
}

/// Reads an image config. The second value names the fields of `config` that have a meaning and cannot be kept.
///
/// What is kept are the fields of OCI image-spec 1.1, "Properties". What Docker alone knows is dropped: `Healthcheck`,
/// `OnBuild`, `Shell`, `ArgsEscaped` and every unknown field are reported when they say something, that is, are not null,
/// false, zero or empty; the rest of a container's state that old Docker versions left there (`Hostname`, `Image`, `Tty`, …) says
/// nothing about the image and is passed over. `author`, `os.version` and `os.features` are not inherited.
pub fn config(bytes: &[u8], name: &str) -> Result<(ImageConfig, Vec<String>), ReadError> {
    let json = parse(bytes, name)?;
    let root = At::root(&json, name);
    let rootfs = root.member("rootfs")?;
    let kind = rootfs.text("type")?;
    if kind != "layers" {
        return Err(rootfs.wrong("type", format!("is `{kind}`, not `layers`")));
    }
    let diff_ids = rootfs.optional_list("diff_ids")?;
    if diff_ids.len() > MAX_LAYERS {
        return Err(rootfs.wrong("diff_ids", format!("has more than {MAX_LAYERS} entries")));
    }
    let history = root.optional_list("history")?;
    let (container, dropped) = match root.optional_member("config") {
        None => (ContainerConfig::default(), Vec::new()),
        Some(at) => container_config(&at)?,
    };
    let config = ImageConfig {
        created: root.option("created")?,
        platform: PlatformText {
            os: root.text("os")?,
            architecture: root.text("architecture")?,
            variant: root.optional_text("variant")?,
        },
        config: container,
        diff_ids: diff_ids.iter().map(At::digest).collect::<Result<_, _>>()?,
        history: history
            .iter()
            .map(|line| {
                Ok(History {
                    created: line.option("created")?,
                    created_by: line.option("created_by")?,
                    author: line.option("author")?,
                    comment: line.option("comment")?,
                    empty_layer: line.flag("empty_layer")?,
                })
            })
            .collect::<Result<_, _>>()?,
    };
    Ok((config, dropped))
}

/// Fields of a `config` that old Docker versions copied there from the container that was committed.
const CONTAINER_STATE: [&str; 14] = [
    "Hostname",
    "Domainname",
    "AttachStdin",
    "AttachStdout",
    "AttachStderr",
    "Tty",
    "OpenStdin",
    "StdinOnce",
    "Image",
    "MacAddress",
    "NetworkDisabled",
    "PublishService",
    "StopTimeout",
    "VolumeDriver",
];

const CONTAINER_FIELDS: [&str; 9] = [
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
];

fn container_config(at: &At<'_>) -> Result<(ContainerConfig, Vec<String>), ReadError> {
    let config = ContainerConfig {
        user: at.optional_text("User")?,
        exposed_ports: at.names("ExposedPorts")?,
        env: at.texts("Env")?,
        entrypoint: at.texts("Entrypoint")?,
        cmd: at.texts("Cmd")?,
        volumes: at.names("Volumes")?,
        working_dir: at.optional_text("WorkingDir")?,
        labels: at.texts_by_name("Labels")?,
        stop_signal: at.optional_text("StopSignal")?,
    };
    let dropped = at
        .object()?
        .iter()
        .filter(|(name, value)| {
            !CONTAINER_FIELDS.contains(&name.as_str())
                && !CONTAINER_STATE.contains(&name.as_str())
                && says_something(value)
        })
        .map(|(name, _)| name.clone())
        .collect();
    Ok((config, dropped))
}

fn says_something(value: &Json) -> bool {
    match value {
        Json::Null | Json::Bool(false) | Json::Integer(0) => false,
        Json::String(text) => !text.is_empty(),
        Json::Array(items) => !items.is_empty(),
        Json::Object(fields) => !fields.is_empty(),
        _ => true,
    }
}

/// One image of a docker archive's `manifest.json` (Docker image specification 1.2, "Combined Image JSON + Filesystem
/// Changeset Format").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerImage {
    /// Path of the config in the archive.
    pub config: String,
    /// `name:tag`
    pub tags: Vec<String>,
    /// Paths of the layers in the archive, lowest first.
    pub layers: Vec<String>,
}

/// Reads the `manifest.json` of a docker archive.
pub fn docker_manifest(bytes: &[u8], name: &str) -> Result<Vec<DockerImage>, ReadError> {
    let json = parse(bytes, name)?;
    let root = At::root(&json, name);
    root.items()?
        .iter()
        .map(|image| {
            let layers = image.texts("Layers")?;
            if layers.len() > MAX_LAYERS {
                return Err(image.wrong("Layers", format!("has more than {MAX_LAYERS} entries")));
            }
            Ok(DockerImage {
                config: image.text("Config")?,
                tags: image.texts("RepoTags")?,
                layers,
            })
        })
        .collect()
}

/// Reads the `oci-layout` file: there is one version, `1.0.0`.
pub fn layout_marker(bytes: &[u8], name: &str) -> Result<(), ReadError> {
    let json = parse(bytes, name)?;
    let root = At::root(&json, name);
    let version = root.text("imageLayoutVersion")?;
    if version == "1.0.0" {
        Ok(())
    } else {
        Err(root.wrong("imageLayoutVersion", format!("is `{version}`, not `1.0.0`")))
    }
}

fn parse(bytes: &[u8], name: &str) -> Result<Json, ReadError> {
    let size = bytes.len() as u64;
    if size > MAX_JSON {
        return Err(ReadError::Size {
            document: name.into(),
            size,
        });
    }
    Json::parse(bytes).map_err(|source| ReadError::Json {
        document: name.into(),
        source,
    })
}

/// A value and the way to it. `null` stands for a field that is absent, as Go's readers take it.
struct At<'a> {
    value: &'a Json,
    document: &'a str,
    way: String,
}

impl<'a> At<'a> {
    fn root(value: &'a Json, document: &'a str) -> Self {
        Self {
            value,
            document,
            way: String::new(),
        }
    }

    fn error(&self, field: String, problem: impl Into<String>) -> ReadError {
        ReadError::Field {
            document: self.document.into(),
            field,
            problem: problem.into(),
        }
    }

    fn way_to(&self, name: &str) -> String {
        if self.way.is_empty() {
            name.into()
        } else {
            format!("{}.{name}", self.way)
        }
    }

    /// An error about the member `name`.
    fn wrong(&self, name: &str, problem: impl Into<String>) -> ReadError {
        self.error(self.way_to(name), problem)
    }

    /// An error about this value itself.
    fn not_a(&self, wanted: &str) -> ReadError {
        let way = if self.way.is_empty() { "." } else { &self.way };
        self.error(
            way.into(),
            format!("is {}, not {wanted}", self.value.kind()),
        )
    }

    fn object(&self) -> Result<&'a BTreeMap<String, Json>, ReadError> {
        match self.value {
            Json::Object(object) => Ok(object),
            _ => Err(self.not_a("an object")),
        }
    }

    fn items(&self) -> Result<Vec<At<'a>>, ReadError> {
        let Json::Array(items) = self.value else {
            return Err(self.not_a("an array"));
        };
        Ok(items
            .iter()
            .enumerate()
            .map(|(index, value)| At {
                value,
                document: self.document,
                way: format!("{}[{index}]", self.way),
            })
            .collect())
    }

    fn as_text(&self) -> Result<String, ReadError> {
        match self.value {
            Json::String(text) => Ok(text.clone()),
            _ => Err(self.not_a("a string")),
        }
    }

    fn digest(&self) -> Result<Digest, ReadError> {
        self.as_text()?
            .parse()
            .map_err(|error| self.error(self.way.clone(), format!("is no digest: {error}")))
    }

    fn has(&self, name: &str) -> bool {
        self.optional_member(name).is_some()
    }

    fn optional_member(&self, name: &str) -> Option<At<'a>> {
        let Json::Object(object) = self.value else {
            return None;
        };
        match object.get(name) {
            None | Some(Json::Null) => None,
            Some(value) => Some(At {
                value,
                document: self.document,
                way: self.way_to(name),
            }),
        }
    }

    fn member(&self, name: &str) -> Result<At<'a>, ReadError> {
        self.object()?;
        self.optional_member(name)
            .ok_or_else(|| self.wrong(name, "is missing"))
    }

    fn text(&self, name: &str) -> Result<String, ReadError> {
        self.member(name)?.as_text()
    }

    fn option(&self, name: &str) -> Result<Option<String>, ReadError> {
        self.object()?;
        self.optional_member(name)
            .map(|at| at.as_text())
            .transpose()
    }

    fn optional_text(&self, name: &str) -> Result<String, ReadError> {
        Ok(self.option(name)?.unwrap_or_default())
    }

    fn number(&self, name: &str) -> Result<u64, ReadError> {
        let at = self.member(name)?;
        match at.value {
            Json::Integer(number) if *number < 1 << 53 => Ok(*number),
            Json::Integer(_) | Json::OtherNumber => {
                Err(self.wrong(name, "is no integer from 0 to 2^53 - 1"))
            }
            _ => Err(at.not_a("a number")),
        }
    }

    fn expect_number(&self, name: &str, wanted: u64) -> Result<(), ReadError> {
        match self.number(name)? {
            number if number == wanted => Ok(()),
            number => Err(self.wrong(name, format!("is {number}, not {wanted}"))),
        }
    }

    fn flag(&self, name: &str) -> Result<bool, ReadError> {
        match self.optional_member(name) {
            None => Ok(false),
            Some(at) => match at.value {
                Json::Bool(value) => Ok(*value),
                _ => Err(at.not_a("a boolean")),
            },
        }
    }

    fn list(&self, name: &str) -> Result<Vec<At<'a>>, ReadError> {
        self.member(name)?.items()
    }

    fn optional_list(&self, name: &str) -> Result<Vec<At<'a>>, ReadError> {
        self.optional_member(name)
            .map_or(Ok(Vec::new()), |at| at.items())
    }

    fn texts(&self, name: &str) -> Result<Vec<String>, ReadError> {
        self.optional_list(name)?.iter().map(At::as_text).collect()
    }

    fn members(&self, name: &str) -> Result<Vec<(&'a String, At<'a>)>, ReadError> {
        let Some(at) = self.optional_member(name) else {
            return Ok(Vec::new());
        };
        Ok(at
            .object()?
            .iter()
            .map(|(key, value)| {
                let way = at.way_to(key);
                (
                    key,
                    At {
                        value,
                        document: at.document,
                        way,
                    },
                )
            })
            .collect())
    }

    fn texts_by_name(&self, name: &str) -> Result<BTreeMap<String, String>, ReadError> {
        self.members(name)?
            .into_iter()
            .map(|(key, at)| Ok((key.clone(), at.as_text()?)))
            .collect()
    }

    fn names(&self, name: &str) -> Result<BTreeSet<String>, ReadError> {
        Ok(self
            .members(name)?
            .into_iter()
            .map(|(key, _)| key.clone())
            .collect())
    }
}

/// Seconds since 1970 of an RFC 3339 time, fractions cut off; nothing when it is none. For a base's `created`.
pub fn seconds_of_rfc3339(text: &str) -> Option<i64> {
    let (date_time, rest) = text.split_at_checked(19)?;
    let utc: crate::epoch::Epoch = format!("{date_time}Z").parse().ok()?;
    let zone = rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let offset = match zone.as_bytes() {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let digit = |byte: &u8| byte.is_ascii_digit().then(|| i64::from(byte - b'0'));
            let minutes = (digit(h1)? * 10 + digit(h2)?) * 60 + digit(m1)? * 10 + digit(m2)?;
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    Some(utc.seconds() - offset * 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn error(bytes: &str) -> String {
        document(bytes.as_bytes(), "sha256:x")
            .expect_err("a bad document")
            .to_string()
    }

    #[test]
    fn errors_name_the_document_and_the_field() {
        let layer = format!(
            r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{DIGEST}","size":1}}"#
        );
        let config = format!(r#"{{"mediaType":"{MEDIA_CONFIG}","digest":"{DIGEST}","size":1}}"#);
        for (text, want) in [
            ("[]".to_owned(), "sha256:x: `.` is an array, not an object"),
            (
                r#"{"schemaVersion":1}"#.into(),
                "sha256:x: `schemaVersion` is 1, not 2",
            ),
            (
                r#"{"schemaVersion":2}"#.into(),
                "sha256:x: `config` is missing",
            ),
            (
                r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#.into(),
                "sha256:x: `manifests` and `layers` stand in one document",
            ),
            (
                format!(
                    r#"{{"schemaVersion":2,"config":{config},"layers":[{layer},{{"mediaType":"x"}}]}}"#
                ),
                "sha256:x: `layers[1].digest` is missing",
            ),
            (
                format!(
                    r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#,
                    layer.replace(":1}", ":-1}")
                ),
                "sha256:x: `layers[0].size` is no integer from 0 to 2^53 - 1",
            ),
            (
                format!(
                    r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#,
                    layer.replace("b855", "B855")
                ),
                "sha256:x: `layers[0].digest` is no digest: a digest has only the digits `0-9a-f`",
            ),
            (
                format!(
                    r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#,
                    layer.replace("layer.v1.tar", "layer.nondistributable.v1.tar")
                ),
                "sha256:x: `layers[0].mediaType` is `application/vnd.oci.image.layer.nondistributable.v1.tar`, a layer whose bytes are not in the image",
            ),
        ] {
            assert_eq!(error(&text), want);
        }
    }

    #[test]
    fn links_are_read_of_manifests_of_any_kind() {
        let of = |media: &str, size: u32| {
            format!(
                r#"{{"mediaType":"{media}","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":{size}}}"#
            )
        };
        let artifact = format!(
            r#"{{"schemaVersion":2,"artifactType":"x/y","config":{},"layers":[{}],"subject":{}}}"#,
            of("application/vnd.oci.empty.v1+json", 2),
            of("text/plain", 3),
            of(MEDIA_MANIFEST, 4)
        );
        let found = links(artifact.as_bytes(), "a").expect("an artifact");
        let sizes: Vec<u64> = found.blobs.iter().map(|blob| blob.size).collect();
        assert_eq!(sizes, [2, 3]);
        assert_eq!(found.subject.map(|subject| subject.size), Some(4));
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
            of(MEDIA_MANIFEST, 5)
        );
        let found = links(index.as_bytes(), "i").expect("an index");
        assert_eq!((found.documents.len(), found.blobs.len()), (1, 0));
        for text in [
            format!(
                r#"{{"schemaVersion":2,"manifests":[],"config":{}}}"#,
                of("x", 1)
            ),
            r#"{"schemaVersion":1,"manifests":[]}"#.to_owned(),
            format!(
                r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
                of("x", 1),
                of("a.rootfs.foreign.diff", 1)
            ),
        ] {
            assert!(links(text.as_bytes(), "x").is_err(), "{text}");
        }
    }

    #[test]
    fn a_document_beyond_four_mebibytes_is_not_parsed() {
        let bytes = vec![b' '; usize::try_from(MAX_JSON).expect("fits") + 1];
        assert!(matches!(
            document(&bytes, "x"),
            Err(ReadError::Size {
                size: 4_194_305,
                ..
            })
        ));
    }

    #[test]
    fn docker_only_fields_with_a_meaning_are_reported() {
        let text = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},
            "config":{"Hostname":"3f2a","Image":"sha256:1","Env":null,"ArgsEscaped":true,"OnBuild":[],"Shell":null,
                      "Healthcheck":{"Test":["CMD","true"]},"Volumes":{"/data":{}},"Tty":false}}"#;
        let (config, dropped) = config(text.as_bytes(), "x").expect("a config");
        assert_eq!(dropped, ["ArgsEscaped", "Healthcheck"]);
        assert_eq!(
            config.config,
            ContainerConfig {
                volumes: BTreeSet::from(["/data".into()]),
                ..ContainerConfig::default()
            }
        );
    }

    #[test]
    fn times_of_other_zones_are_understood() {
        for (text, seconds) in [
            ("2023-05-08T17:27:33Z", Some(1_683_566_853)),
            ("2023-05-08T17:27:33.123456789Z", Some(1_683_566_853)),
            ("2023-05-08T19:27:33.5+02:00", Some(1_683_566_853)),
            ("2023-05-08T16:57:33-00:30", Some(1_683_566_853)),
            ("0001-01-01T00:00:00Z", None),
            ("2023-05-08", None),
            ("2023-05-08T17:27:33", None),
        ] {
            assert_eq!(seconds_of_rfc3339(text), seconds, "{text}");
        }
    }
}
