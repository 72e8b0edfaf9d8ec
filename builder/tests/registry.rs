//! Registries that misbehave: every failure is told clearly or overcome, nothing wrong enters the store, and no tag is moved
//! unless all is there.
#![allow(clippy::disallowed_methods, reason = "tests measure how long it takes")]
#![allow(clippy::match_bool, reason = "what is answered reads as a table")]

#[path = "registry/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use immbuild::image::descriptor::{Descriptor, MEDIA_CONFIG, MEDIA_INDEX, MEDIA_MANIFEST};
use immbuild::platform::Platform;
use immbuild::registry::credentials::{Credential, CredentialFiles};
use immbuild::registry::{
    Access, Attachment, Client, Patience, Pull, Push, Pushed, RegistryError, Whole,
};
use immbuild::spec::image_name::ImageRepository;
use immbuild_cas::digest::{BlobId, Digest};
use immbuild_cas::store::{MemoryStore, Store as _};
use server::{Instead, Request, Rule, Server, answer};

/// As patient as a test.
const PATIENCE: Patience = Patience {
    attempts: 3,
    first_wait: Duration::from_millis(2),
    longest_wait: Duration::from_millis(20),
    connect: Duration::from_secs(2),
    idle: Duration::from_millis(400),
    slowest: 100_000,
    chunk: 100_000,
};

static NEVER: AtomicBool = AtomicBool::new(false);
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An image whose layer is no tar: nobody looks into it here.
struct Image {
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
    index: Vec<u8>,
}

fn of(media_type: &str, bytes: &[u8]) -> String {
    let (digest, size) = (Digest::of(bytes), bytes.len());
    format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#)
}

impl Image {
    fn new() -> Self {
        let layer: Vec<u8> = (0..300_000_u32)
            .flat_map(|at| at.wrapping_mul(at).to_le_bytes())
            .collect();
        let config =
            br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#
                .to_vec();
        Self::with(layer, config, GZIP)
    }

    fn with(layer: Vec<u8>, config: Vec<u8>, media_type: &str) -> Self {
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MEDIA_MANIFEST}","config":{},"layers":[{}]}}"#,
            of(MEDIA_CONFIG, &config),
            of(media_type, &layer)
        );
        let entry = of(MEDIA_MANIFEST, manifest.as_bytes());
        let entry = entry.trim_end_matches('}');
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MEDIA_INDEX}","manifests":[{entry},"platform":{{"architecture":"amd64","os":"linux"}}}}]}}"#
        );
        Self {
            layer,
            config,
            manifest: manifest.into_bytes(),
            index: index.into_bytes(),
        }
    }

    fn on(&self, server: &Server) {
        server.put_blob(&self.layer);
        server.put_blob(&self.config);
        server.put_manifest("shop", "manifest", MEDIA_MANIFEST, &self.manifest);
        server.put_manifest("shop", "1", MEDIA_INDEX, &self.index);
    }

    fn in_store(&self) -> MemoryStore {
        let store = MemoryStore::default();
        for bytes in [&self.layer, &self.config, &self.manifest, &self.index] {
            store.put_bytes(bytes).expect("kept");
        }
        store
    }

    fn root(&self) -> Descriptor {
        Descriptor::new(
            MEDIA_INDEX,
            Digest::of(&self.index),
            self.index.len() as u64,
        )
    }

    /// Index and manifest as the lock has them.
    fn pull(&self, server: &Server, store: &MemoryStore) -> Result<(), RegistryError> {
        let access = Access::default();
        let client = Client::new(&access, PATIENCE, &NEVER);
        pull_with(&client, server, store).image(
            Digest::of(&self.manifest),
            self.manifest.len() as u64,
            Some(Digest::of(&self.index)),
            amd64(),
        )
    }

    fn push(&self, server: &Server) -> Result<Pushed, RegistryError> {
        let access = Access::default();
        let client = Client::new(&access, PATIENCE, &NEVER);
        self.push_with(&client, server, &BTreeMap::new())
    }

    fn push_with(
        &self,
        client: &Client<'_>,
        server: &Server,
        elsewhere: &BTreeMap<Digest, ImageRepository>,
    ) -> Result<Pushed, RegistryError> {
        let store = self.in_store();
        let whole = Whole::read(&self.root(), &store, "a store").expect("all is there");
        Push {
            client,
            repository: &shop(server),
            blobs: &store,
            elsewhere,
            threads: NonZeroUsize::new(2).expect("two"),
            progress: &|_| {},
        }
        .image(&whole, &["1".into(), "latest".into()])
    }
}

fn amd64() -> Platform {
    "linux/amd64".parse().expect("a platform")
}

fn shop(server: &Server) -> ImageRepository {
    format!("{}/shop", server.host).parse().expect("a name")
}

fn pull_with<'a>(client: &'a Client<'a>, server: &Server, store: &'a MemoryStore) -> Pull<'a> {
    Pull {
        client,
        repository: Box::leak(Box::new(shop(server))),
        store,
        offline: false,
        threads: NonZeroUsize::new(2).expect("two"),
        progress: &|_| {},
    }
}

fn rule(rule: impl Fn(&Request, usize) -> Instead + Send + Sync + 'static) -> Rule {
    Box::new(rule)
}

/// Pulls the image from a server with this rule.
fn pulled(image: &Image, with: Rule) -> (Result<(), RegistryError>, MemoryStore, Server) {
    let server = Server::start(with);
    image.on(&server);
    let store = MemoryStore::default();
    let outcome = image.pull(&server, &store);
    (outcome, store, server)
}

fn has(store: &MemoryStore, bytes: &[u8]) -> bool {
    store.has(&BlobId::new(Digest::of(bytes))).expect("a store")
}

fn is_layer(request: &Request) -> bool {
    let layer = Digest::of(&Image::new().layer).to_string();
    request.is("GET", &format!("/blobs/{layer}"))
}

#[test]
fn an_image_comes_by_its_digests() {
    let image = Image::new();
    let (outcome, store, server) = pulled(&image, rule(|_, _| Instead::Right));
    outcome.expect("pulled");
    for bytes in [&image.layer, &image.config, &image.manifest, &image.index] {
        assert!(has(&store, bytes));
    }
    // By tag nothing is asked.
    assert!(server.lines().iter().all(|line| line.contains("sha256:")));
    // What is here is not fetched again.
    image.pull(&server, &store).expect("pulled");
    assert_eq!(server.lines().len(), 4);
}

#[test]
fn a_blob_that_breaks_off_goes_on_where_it_broke_off() {
    let image = Image::new();
    let cut = rule(|request, before| match is_layer(request) && before < 2 {
        true => Instead::Cut(400_000),
        false => Instead::Right,
    });
    let (outcome, store, server) = pulled(&image, cut);
    outcome.expect("pulled");
    assert!(has(&store, &image.layer));
    let ranges: Vec<String> = server
        .requests()
        .iter()
        .filter(|request| is_layer(request))
        .map(|request| request.header("range").to_owned())
        .collect();
    assert_eq!(ranges.len(), 3, "{ranges:?}");
    assert_eq!(ranges[0], "");
    for range in &ranges[1..] {
        assert!(
            range.starts_with("bytes=") && range.ends_with("-1199999"),
            "{range}"
        );
        assert_ne!(range, "bytes=0-1199999");
    }
}

#[test]
fn a_registry_that_cannot_go_on_begins_again() {
    let image = Image::new();
    let layer = image.layer.clone();
    let whole = rule(move |request, before| match (is_layer(request), before) {
        (true, 0) => Instead::Cut(400_000),
        (true, _) => Instead::Raw(answer(200, &[], &layer, false)),
        _ => Instead::Right,
    });
    let (outcome, store, _) = pulled(&image, whole);
    outcome.expect("pulled");
    assert!(has(&store, &image.layer));
}

#[test]
fn what_always_breaks_off_is_told_after_some_attempts() {
    let image = Image::new();
    let cut = rule(|request, _| match is_layer(request) {
        true => Instead::Cut(200),
        false => Instead::Right,
    });
    let (outcome, store, server) = pulled(&image, cut);
    let error = outcome.expect_err("it never ends");
    assert!(
        matches!(error, RegistryError::Unreachable { attempts: 3, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("of 1200000 bytes"), "{error}");
    assert!(!has(&store, &image.layer));
    assert_eq!(
        server.requests().iter().filter(|it| is_layer(it)).count(),
        3
    );
}

#[test]
fn a_part_that_is_another_is_refused() {
    let image = Image::new();
    let layer = image.layer.clone();
    let other = rule(move |request, before| match (is_layer(request), before) {
        (true, 0) => Instead::Cut(400_000),
        (true, _) => Instead::Raw(answer(
            206,
            &[("Content-Range", "bytes 5-1199999/1200000")],
            &layer[5..],
            false,
        )),
        _ => Instead::Right,
    });
    let (outcome, store, _) = pulled(&image, other);
    let error = outcome.expect_err("another part");
    assert!(matches!(error, RegistryError::Protocol { .. }), "{error}");
    assert!(!has(&store, &image.layer));
}

#[test]
fn other_bytes_are_refused_and_never_kept() {
    let image = Image::new();
    let mut other = image.layer.clone();
    other[7] ^= 1;
    let changed = other.clone();
    let wrong = rule(move |request, _| match is_layer(request) {
        true => Instead::Raw(answer(200, &[], &other, false)),
        false => Instead::Right,
    });
    let (outcome, store, _) = pulled(&image, wrong);
    let error = outcome.expect_err("other bytes");
    let RegistryError::Mismatch {
        expected, actual, ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(
        (*expected, *actual),
        (Digest::of(&image.layer), Digest::of(&changed))
    );
    assert!(!has(&store, &image.layer) && !has(&store, &changed));
}

#[test]
fn more_or_fewer_bytes_than_the_descriptor_says_are_refused() {
    let image = Image::new();
    let chunked = |bytes: &[u8]| {
        let mut all =
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        all.extend(format!("{:x}\r\n", bytes.len()).into_bytes());
        all.extend_from_slice(bytes);
        all.extend_from_slice(b"\r\n0\r\n\r\n");
        all
    };
    let mut longer = image.layer.clone();
    longer.push(0);
    let shorter = image.layer[1..].to_vec();
    for bytes in [
        answer(200, &[], &longer, false),
        answer(200, &[], &shorter, false),
        chunked(&longer),
    ] {
        let wrong = rule(move |request, _| match is_layer(request) {
            true => Instead::Raw(bytes.clone()),
            false => Instead::Right,
        });
        let (outcome, store, _) = pulled(&image, wrong);
        let error = outcome.expect_err("another length");
        assert!(
            matches!(
                error,
                RegistryError::Size {
                    expected: 1_200_000,
                    ..
                }
            ),
            "{error}"
        );
        assert!(!has(&store, &image.layer));
    }
    // Without a length, an early end may be an accident, and is none for ever.
    let shorter = chunked(&shorter);
    let wrong = rule(move |request, _| match is_layer(request) {
        true => Instead::Raw(shorter.clone()),
        false => Instead::Right,
    });
    let (outcome, store, _) = pulled(&image, wrong);
    assert!(outcome.is_err() && !has(&store, &image.layer));
}

#[test]
fn a_document_is_what_its_digest_says_or_is_refused() {
    let image = Image::new();
    let config = image.config.clone();
    for part in ["/manifests/", "/blobs/"] {
        let config = config.clone();
        let wrong = rule(move |request, _| {
            let is_it = request.is("GET", part) && !is_layer(request);
            match is_it {
                true => Instead::Raw(answer(200, &[], &config.to_ascii_uppercase(), false)),
                false => Instead::Right,
            }
        });
        let (outcome, _, _) = pulled(&image, wrong);
        let error = outcome.expect_err("another document");
        assert!(matches!(error, RegistryError::Mismatch { .. }), "{error}");
    }
    // What a registry says of a tag must be so.
    let manifest = image.manifest.clone();
    let server = Server::start(rule(move |_, _| {
        let digest = Digest::of(b"another").to_string();
        let headers = [
            ("Docker-Content-Digest", digest.as_str()),
            ("Content-Type", MEDIA_MANIFEST),
        ];
        Instead::Raw(answer(200, &headers, &manifest, false))
    }));
    let access = Access::default();
    let client = Client::new(&access, PATIENCE, &NEVER);
    let error = client.document(&shop(&server), "1").expect_err("a lie");
    assert!(matches!(error, RegistryError::Mismatch { .. }), "{error}");
}

#[test]
fn a_document_without_end_is_not_read_to_its_end() {
    let server = Server::start(rule(|_, _| {
        let mut bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_vec();
        bytes.resize(6 << 20, b' ');
        Instead::Raw(bytes)
    }));
    let access = Access::default();
    let client = Client::new(&access, PATIENCE, &NEVER);
    let error = client.document(&shop(&server), "1").expect_err("too much");
    assert!(matches!(error, RegistryError::Document { .. }), "{error}");
    assert_eq!(server.lines().len(), 1);
}

#[test]
fn a_registry_that_is_busy_is_asked_again() {
    let image = Image::new();
    for status in [408, 429, 500, 502, 503, 504] {
        let busy = rule(move |_, before| match before {
            0 => Instead::Raw(answer(status, &[("Retry-After", "3600")], b"", false)),
            1 => Instead::Nothing,
            _ => Instead::Right,
        });
        let begun = Instant::now();
        let (outcome, store, _) = pulled(&image, busy);
        outcome.expect("pulled in the end");
        assert!(has(&store, &image.layer));
        // An hour is more than anybody waits.
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn a_registry_that_stays_busy_is_named_with_what_it_said() {
    let image = Image::new();
    let busy = rule(|_, _| Instead::Raw(answer(503, &[], b"", false)));
    let (outcome, _, server) = pulled(&image, busy);
    let error = outcome.expect_err("always busy").to_string();
    assert!(
        error.contains(&server.host) && error.contains("503") && error.contains("3 attempts"),
        "{error}"
    );
    assert_eq!(server.lines().len(), 3);
}

#[test]
fn who_sends_a_byte_now_and_then_is_given_up() {
    let image = Image::new();
    for part in ["/manifests/", "/blobs/"] {
        let slow = rule(move |request, _| match request.path.contains(part) {
            true => Instead::Trickle(1, Duration::from_millis(3)),
            false => Instead::Right,
        });
        let begun = Instant::now();
        let (outcome, store, _) = pulled(&image, slow);
        let unreachable =
            |error: &RegistryError| matches!(error, RegistryError::Unreachable { .. });
        match outcome.expect_err("it would take hours") {
            // Config and layer trickle at the same time.
            RegistryError::Several(errors) => assert!(errors.iter().all(unreachable)),
            error => assert!(unreachable(&error), "{error}"),
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "{:?}",
            begun.elapsed()
        );
        assert!(!has(&store, &image.layer));
    }
}

#[test]
fn who_is_slow_and_steady_is_waited_for() {
    let image = Image::new();
    // In all three times as long as a silence may be.
    let slow = rule(|request, _| match is_layer(request) {
        true => Instead::Trickle(30_000, Duration::from_millis(30)),
        false => Instead::Right,
    });
    let (outcome, store, server) = pulled(&image, slow);
    outcome.expect("pulled");
    assert!(has(&store, &image.layer));
    assert_eq!(
        server.requests().iter().filter(|it| is_layer(it)).count(),
        1
    );
}

#[test]
fn what_is_not_there_is_named() {
    let server = Server::right();
    let access = Access::default();
    let client = Client::new(&access, PATIENCE, &NEVER);
    let error = client
        .document(&shop(&server), "9")
        .expect_err("there is none");
    assert_eq!(
        error.to_string(),
        format!("`{}/shop:9` is not there", server.host)
    );
    assert_eq!(server.lines().len(), 1);
}

#[test]
fn old_and_foreign_images_are_refused() {
    let server = Server::right();
    let schema_1 = br#"{"schemaVersion":1,"name":"shop","tag":"1","fsLayers":[]}"#;
    let media = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    server.put_manifest("shop", "old", media, schema_1);
    let access = Access::default();
    let client = Client::new(&access, PATIENCE, &NEVER);
    let error = client
        .document(&shop(&server), "old")
        .expect_err("an old form");
    assert!(matches!(error, RegistryError::Schema1(_)), "{error}");

    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let image = Image::with(b"layer".to_vec(), Image::new().config, foreign);
    image.on(&server);
    let error = image
        .pull(&server, &MemoryStore::default())
        .expect_err("a foreign layer");
    let cause = std::error::Error::source(&error)
        .expect("a cause")
        .to_string();
    assert!(
        cause.contains(foreign) && cause.contains("layers[0]"),
        "{cause}"
    );
    let error =
        Whole::read(&image.root(), &image.in_store(), "a store").expect_err("a foreign layer");
    assert!(matches!(error, RegistryError::Document { .. }), "{error}");
}

#[test]
fn a_manifest_that_is_not_of_the_locked_index_is_refused() {
    let server = Server::right();
    let image = Image::new();
    image.on(&server);
    let other = Image::with(b"another".to_vec(), image.config.clone(), GZIP);
    other.on(&server);
    let access = Access::default();
    let client = Client::new(&access, PATIENCE, &NEVER);
    let store = MemoryStore::default();
    let pull = pull_with(&client, &server, &store);
    let size = image.manifest.len() as u64;
    let (manifest, index) = (Digest::of(&image.manifest), Digest::of(&image.index));
    let arm64: Platform = "linux/arm64".parse().expect("a platform");
    for (size, index, platform) in [
        (size, Digest::of(&other.index), amd64()),
        (size + 1, index, amd64()),
        (size, index, arm64),
        (size, manifest, amd64()),
    ] {
        let error = pull
            .image(manifest, size, Some(index), platform)
            .expect_err("no member");
        assert!(matches!(error, RegistryError::NotInIndex { .. }), "{error}");
        assert!(!has(&store, &image.layer));
    }
}

#[test]
fn without_a_network_all_that_is_missing_is_named() {
    let server = Server::right();
    let image = Image::new();
    let access = Access::default();
    let client = Client::new(&access, PATIENCE, &NEVER);
    let store = MemoryStore::default();
    for bytes in [&image.manifest, &image.index] {
        store.put_bytes(bytes).expect("kept");
    }
    let pull = Pull {
        offline: true,
        ..pull_with(&client, &server, &store)
    };
    let size = image.manifest.len() as u64;
    let error = pull
        .image(Digest::of(&image.manifest), size, None, amd64())
        .expect_err("the network is off")
        .to_string();
    for part in [&image.layer, &image.config] {
        assert!(error.contains(&Digest::of(part).to_string()), "{error}");
    }
    let name = format!("{}/shop:1", server.host).parse().expect("a name");
    assert!(matches!(
        pull.find(&name, &[amd64()]),
        Err(RegistryError::Offline { .. })
    ));
    assert!(server.lines().is_empty());
}

#[test]
fn nothing_is_tagged_before_all_is_there() {
    let image = Image::new();
    let server = Server::right();
    let pushed = image.push(&server).expect("pushed");
    assert_eq!((pushed.sent.0, pushed.there, pushed.mounted), (2, 0, 0));
    assert_eq!(server.tags(), ["shop:1", "shop:latest"]);
    let puts: Vec<String> = server
        .lines()
        .into_iter()
        .filter(|line| line.starts_with("PUT"))
        .map(|line| line.rsplit('/').next().unwrap_or_default().to_owned())
        .collect();
    let expected = [
        Digest::of(&image.manifest).to_string(),
        Digest::of(&image.index).to_string(),
        "1".to_owned(),
        "latest".to_owned(),
    ];
    assert_eq!(puts[2..], expected);
    let held = server.held.lock().expect("no thread panics with it");
    assert_eq!(
        held.manifests["shop:1"],
        (MEDIA_INDEX.to_owned(), image.index.clone())
    );
    assert_eq!(
        held.blobs[&Digest::of(&image.layer).to_string()],
        image.layer
    );
    drop(held);
    // What is there is not sent again.
    let pushed = image.push(&server).expect("pushed");
    assert_eq!((pushed.sent.0, pushed.there), (0, 2));
}

#[test]
fn a_registry_that_takes_no_blob_or_manifest_gets_no_tag() {
    let image = Image::new();
    let denied = br#"{"errors":[{"code":"DENIED","message":"not yours"}]}"#;
    for (method, part) in [
        ("POST", "/blobs/uploads/"),
        ("PUT", "/blobs/uploads/"),
        ("PUT", "/manifests/sha256:"),
    ] {
        for status in [403, 500] {
            let refuse = rule(move |request, _| {
                let is_it = request.is(method, part)
                    || (method == "PUT" && part.contains("uploads") && request.method == "PATCH");
                match is_it {
                    true => Instead::Raw(answer(status, &[], denied, false)),
                    false => Instead::Right,
                }
            });
            let server = Server::start(refuse);
            let error = image.push(&server).expect_err("it takes nothing");
            match (&error, status) {
                (
                    RegistryError::Refused {
                        status: 403, said, ..
                    },
                    403,
                ) => assert_eq!(said, ": not yours"),
                (RegistryError::Unreachable { .. } | RegistryError::Several(_), 500) => {}
                (RegistryError::Several(errors), 403) => {
                    assert!(
                        errors
                            .iter()
                            .all(|it| matches!(it, RegistryError::Refused { status: 403, .. }))
                    );
                }
                _ => panic!("{method} {part} {status}: {error}"),
            }
            assert!(server.tags().is_empty(), "{:?}", server.tags());
        }
    }
}

#[test]
fn a_blob_that_cannot_be_sent_whole_is_sent_in_pieces() {
    let image = Image::new();
    let layer = Digest::of(&image.layer).to_string();
    // A proxy that takes little, one that breaks off, and one that says come again in the middle.
    let too_much: Rule = rule(|request, _| {
        let length: usize = request.header("content-length").parse().unwrap_or(0);
        match request.path.contains("/blobs/uploads/") && length > 70_000 {
            true => Instead::Raw(answer(413, &[], b"", false)),
            false => Instead::Right,
        }
    });
    let breaks: Rule = rule(|request, before| {
        let length: usize = request.header("content-length").parse().unwrap_or(0);
        match (request.method.as_str(), before) {
            ("PUT", _) if length > 1_000_000 => Instead::Nothing,
            ("PATCH", 3) => Instead::Nothing,
            ("PATCH", 5) => Instead::Raw(answer(503, &[], b"", false)),
            _ => Instead::Right,
        }
    });
    // The piece arrives, but not the word that it did.
    let forgets: Rule = rule(|request, before| {
        let length: usize = request.header("content-length").parse().unwrap_or(0);
        match (request.method.as_str(), before) {
            ("PUT", _) if length > 1_000_000 => Instead::Raw(answer(502, &[], b"", false)),
            ("PATCH", 2) => Instead::Cut(10),
            _ => Instead::Right,
        }
    });
    for with in [too_much, breaks, forgets] {
        let server = Server::start(with);
        let pushed = image.push(&server).expect("pushed in pieces");
        assert_eq!(pushed.sent.0, 2);
        let held = server.held.lock().expect("no thread panics with it");
        assert_eq!(held.blobs[&layer], image.layer);
        let patches = held
            .requests
            .iter()
            .filter(|it| it.method == "PATCH")
            .count();
        assert!(patches >= 12, "{patches}");
    }
}

#[test]
fn a_registry_that_makes_something_else_of_a_manifest_is_told() {
    let image = Image::new();
    let other = rule(|request, _| match request.is("PUT", "/manifests/sha256:") {
        true => {
            let digest = Digest::of(b"another").to_string();
            Instead::Raw(answer(
                201,
                &[("Docker-Content-Digest", &digest)],
                b"",
                false,
            ))
        }
        false => Instead::Right,
    });
    let server = Server::start(other);
    let error = image.push(&server).expect_err("another manifest");
    assert!(matches!(error, RegistryError::Mismatch { .. }), "{error}");
    assert!(server.tags().is_empty());
}

#[test]
fn a_blob_of_another_repository_is_mounted_or_sent() {
    let image = Image::new();
    let layer = Digest::of(&image.layer);
    for mounts in [true, false] {
        let server = Server::start(rule(move |request, _| {
            let asks = request.method == "POST" && request.query.contains("mount=");
            match asks && mounts {
                true => Instead::Raw(answer(201, &[], b"", false)),
                false if asks => Instead::Raw(answer(405, &[], b"", false)),
                false => Instead::Right,
            }
        }));
        let access = Access::default();
        let client = Client::new(&access, PATIENCE, &NEVER);
        let base: ImageRepository = format!("{}/base", server.host).parse().expect("a name");
        let pushed = image
            .push_with(&client, &server, &BTreeMap::from([(layer, base)]))
            .expect("pushed");
        let (sent, mounted) = if mounts { (1, 1) } else { (2, 0) };
        assert_eq!((pushed.sent.0, pushed.mounted), (sent, mounted));
        let asked = server
            .requests()
            .iter()
            .any(|it| it.query.contains("from=base"));
        assert!(asked);
    }
}

#[test]
fn a_part_that_is_damaged_or_missing_here_stops_a_push() {
    let image = Image::new();
    let server = Server::right();
    let access = Access::default();
    let client = Client::new(&access, PATIENCE, &NEVER);
    let store = MemoryStore::default();
    for bytes in [&image.config, &image.manifest, &image.index] {
        store.put_bytes(bytes).expect("kept");
    }
    let whole = Whole::read(&image.root(), &store, "a store").expect("documents");
    let error = Push {
        client: &client,
        repository: &shop(&server),
        blobs: &store,
        elsewhere: &BTreeMap::new(),
        threads: NonZeroUsize::MIN,
        progress: &|_| {},
    }
    .image(&whole, &["1".into()])
    .expect_err("the layer is missing");
    assert!(matches!(error, RegistryError::Store(_)), "{error}");
    assert!(server.tags().is_empty());
}

#[test]
fn who_is_asked_to_stop_stops() {
    let image = Image::new();
    let server = Server::right();
    let stop = AtomicBool::new(true);
    let access = Access::default();
    let client = Client::new(&access, PATIENCE, &stop);
    let error = image
        .push_with(&client, &server, &BTreeMap::new())
        .expect_err("stopped");
    assert!(matches!(error, RegistryError::Interrupted), "{error}");
    assert!(server.lines().is_empty());
}

/// Files with a credential for this host.
fn access(server: &Server, auth: &str, directory: &tempfile::TempDir) -> Access {
    let path = directory.path().join("config.json");
    let text = format!(r#"{{"auths":{{"{}":{auth}}}}}"#, server.host);
    std::fs::write(&path, text).expect("written");
    Access {
        credentials: CredentialFiles {
            read: vec![path],
            write: None,
        },
        ..Access::default()
    }
}

/// `me:secret`
const AUTH: &str = r#"{"auth":"bWU6c2VjcmV0"}"#;
const BASIC: &str = "Basic bWU6c2VjcmV0";

/// A registry that wants tokens and gives them itself. `lets_in` says whether a token is good.
fn with_tokens(lets_in: impl Fn(&str) -> bool + Send + Sync + 'static) -> Server {
    Server::start(rule(move |request, _| {
        if request.path == "/token" {
            let named = request.header("authorization") == BASIC;
            let body = if named || request.method == "POST" {
                br#"{"token":"good"}"#
            } else {
                br#"{"token":"anon"}"#
            };
            return Instead::Raw(answer(200, &[], body, false));
        }
        if lets_in(request.header("authorization")) {
            return Instead::Right;
        }
        let realm = format!(
            r#"Bearer realm="http://{}/token",service="registry",scope="repository:shop:pull""#,
            request.header("host")
        );
        Instead::Raw(answer(401, &[("WWW-Authenticate", &realm)], b"", false))
    }))
}

#[test]
fn tokens_are_asked_for_once_and_for_what_they_are_needed() {
    let image = Image::new();
    let server = with_tokens(|said| said == "Bearer good");
    let directory = tempfile::tempdir().expect("a directory");
    let access = access(&server, AUTH, &directory);
    let client = Client::new(&access, PATIENCE, &NEVER);
    let base: ImageRepository = format!("{}/base", server.host).parse().expect("a name");
    let elsewhere = BTreeMap::from([(Digest::of(&image.layer), base)]);
    image
        .push_with(&client, &server, &elsewhere)
        .expect("pushed");
    let asked: Vec<String> = server
        .requests()
        .iter()
        .filter(|request| request.path == "/token")
        .map(|request| request.query.clone())
        .collect();
    let mut asked_once = asked.clone();
    asked_once.dedup();
    assert_eq!(asked, asked_once);
    assert_eq!(
        asked,
        [
            "service=registry&scope=repository%3Ashop%3Apull%2Cpush",
            "service=registry&scope=repository%3Ashop%3Apull%2Cpush&scope=repository%3Abase%3Apull",
        ]
    );
    assert_eq!(server.tags(), ["shop:1", "shop:latest"]);
}

#[test]
fn a_token_that_gives_tokens_is_sent_in_the_body() {
    let server = with_tokens(|said| said == "Bearer good");
    Image::new().on(&server);
    let directory = tempfile::tempdir().expect("a directory");
    let access = access(
        &server,
        r#"{"auth":"","identitytoken":"refresh&me"}"#,
        &directory,
    );
    let client = Client::new(&access, PATIENCE, &NEVER);
    client.document(&shop(&server), "1").expect("let in");
    let requests = server.requests();
    let asked = requests
        .iter()
        .find(|it| it.path == "/token")
        .expect("a token");
    assert_eq!((asked.method.as_str(), asked.query.as_str()), ("POST", ""));
    assert!(requests.iter().all(|it| !it.query.contains("refresh")));
}

#[test]
fn a_registry_that_is_never_content_is_given_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = with_tokens(|_| false);
    let own = access(&server, AUTH, &directory);
    let client = Client::new(&own, PATIENCE, &NEVER);
    let error = client.document(&shop(&server), "1").expect_err("never");
    assert!(
        matches!(&error, RegistryError::Unauthorized { named: true, .. }),
        "{error}"
    );
    assert_eq!(server.lines().len(), 3, "{:?}", server.lines());

    let server = Server::start(rule(|_, _| {
        Instead::Raw(answer(
            401,
            &[("WWW-Authenticate", "Basic realm=\"x\"")],
            b"",
            false,
        ))
    }));
    let own = access(&server, AUTH, &directory);
    let client = Client::new(&own, PATIENCE, &NEVER);
    let error = client.document(&shop(&server), "1").expect_err("never");
    assert!(
        matches!(&error, RegistryError::Unauthorized { named: true, .. }),
        "{error}"
    );
    assert_eq!(server.lines().len(), 2);
    let said = format!("{error} {error:?} {client:?} {own:?}");
    assert!(!said.contains("secret") && !said.contains("bWU6"), "{said}");

    let nobody = Access::default();
    let client = Client::new(&nobody, PATIENCE, &NEVER);
    let error = client.document(&shop(&server), "1").expect_err("never");
    assert!(
        matches!(&error, RegistryError::Unauthorized { named: false, .. }),
        "{error}"
    );

    let silent = Server::start(rule(|_, _| Instead::Raw(answer(401, &[], b"", false))));
    let error = client.document(&shop(&silent), "1").expect_err("never");
    assert!(
        matches!(&error, RegistryError::Unauthorized { .. }),
        "{error}"
    );
    assert_eq!(silent.lines().len(), 1);
}

#[test]
fn a_credential_goes_to_its_registry_alone() {
    let image = Image::new();
    let elsewhere = Server::right();
    elsewhere.put_blob(&image.layer);
    let other = elsewhere.host.clone();
    let server = Server::start(rule(move |request, _| {
        if request.header("authorization") != BASIC {
            return Instead::Raw(answer(
                401,
                &[("WWW-Authenticate", "Basic realm=\"x\"")],
                b"",
                false,
            ));
        }
        match is_layer(request) {
            true => {
                let location = format!("http://{other}{}?signature=x", request.path);
                Instead::Raw(answer(307, &[("Location", &location)], b"", false))
            }
            false => Instead::Right,
        }
    }));
    image.on(&server);
    let directory = tempfile::tempdir().expect("a directory");
    let access = access(&server, AUTH, &directory);
    let client = Client::new(&access, PATIENCE, &NEVER);
    let store = MemoryStore::default();
    let size = image.manifest.len() as u64;
    pull_with(&client, &server, &store)
        .image(Digest::of(&image.manifest), size, None, amd64())
        .expect("pulled");
    assert!(has(&store, &image.layer));
    let requests = elsewhere.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].header("authorization"), "");
    assert_eq!(requests[0].query, "signature=x");
}

#[test]
fn who_sends_us_in_circles_or_out_of_safety_is_not_followed() {
    let image = Image::new();
    for location in [
        "/v2/shop/again",
        "http://registry.example.com/x",
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
    ] {
        let server = Server::start(rule(move |_, _| {
            Instead::Raw(answer(302, &[("Location", location)], b"", false))
        }));
        let error = image
            .pull(&server, &MemoryStore::default())
            .expect_err("nowhere");
        assert!(
            matches!(error, RegistryError::Redirect { .. }),
            "{location}: {error}"
        );
        assert!(server.lines().len() <= 6, "{:?}", server.lines());
    }
}

#[test]
fn a_login_is_tried() {
    let server = Server::start(rule(|request, _| match request.header("authorization") {
        BASIC => Instead::Right,
        _ => Instead::Raw(answer(
            401,
            &[("WWW-Authenticate", "Basic realm=\"x\"")],
            b"",
            false,
        )),
    }));
    let access = Access::default();
    let as_who = |password: &str| {
        let credential = Credential::Password {
            user: "me".into(),
            password: password.into(),
        };
        Client::new(&access, PATIENCE, &NEVER)
            .with(credential)
            .check(&server.host)
    };
    assert!(as_who("secret").expect("let in"));
    let error = as_who("wrong").expect_err("the password is wrong");
    assert!(
        matches!(error, RegistryError::Unauthorized { named: true, .. }),
        "{error}"
    );
    let open = Server::right();
    let client = Client::new(&access, PATIENCE, &NEVER);
    assert!(!client.check(&open.host).expect("everybody is let in"));
}

/// Attaches one file with this text.
fn attach(
    image: &Image,
    server: &Server,
    of_type: &str,
    text: &str,
) -> Result<Digest, RegistryError> {
    let access = Access::default();
    let client = Client::new(&access, PATIENCE, &NEVER);
    let store = MemoryStore::default();
    let blob = store.put_bytes(text.as_bytes()).expect("kept");
    let file = Attachment {
        title: "bill.json".into(),
        media_type: of_type.into(),
        digest: *blob.digest(),
        size: text.len() as u64,
    };
    Push {
        client: &client,
        repository: &shop(server),
        blobs: &store,
        elsewhere: &BTreeMap::new(),
        threads: NonZeroUsize::MIN,
        progress: &|_| {},
    }
    .attach(&image.root(), of_type, &[file], &store)
}

fn listed(image: &Image, server: &Server, of_type: Option<&str>) -> Vec<(Digest, String)> {
    let access = Access::default();
    let client = Client::new(&access, PATIENCE, &NEVER);
    client
        .referrers(&shop(server), &Digest::of(&image.index), of_type)
        .expect("a list")
        .into_iter()
        .map(|it| (it.descriptor.digest, it.artifact_type))
        .collect()
}

#[test]
fn what_is_about_an_image_is_listed_with_and_without_the_registrys_help() {
    let image = Image::new();
    let fallback = format!("shop:sha256-{}", Digest::of(&image.index).to_hex());
    for knows in [true, false] {
        let server = Server::right();
        server
            .held
            .lock()
            .expect("no thread panics with it")
            .referrers = knows;
        image.push(&server).expect("pushed");
        assert_eq!(listed(&image, &server, None), []);
        let bill = attach(&image, &server, "application/spdx+json", "{}").expect("attached");
        let other = attach(&image, &server, "text/plain", "good").expect("attached");
        assert_ne!(bill, other);
        // The same is the same, and listed once.
        assert_eq!(
            attach(&image, &server, "text/plain", "good").expect("attached"),
            other
        );
        let mut all = vec![
            (bill, "application/spdx+json".to_owned()),
            (other, "text/plain".to_owned()),
        ];
        all.sort();
        assert_eq!(listed(&image, &server, None), all);
        assert_eq!(
            listed(&image, &server, Some("text/plain")),
            [(other, "text/plain".to_owned())]
        );
        assert_eq!(server.tags().contains(&fallback), !knows);
        // The image is what it was.
        let held = server.held.lock().expect("no thread panics with it");
        assert_eq!(held.manifests["shop:1"].1, image.index);
        drop(held);
        let access = Access::default();
        let client = Client::new(&access, PATIENCE, &NEVER);
        let store = MemoryStore::default();
        let files = pull_with(&client, &server, &store)
            .artifact(other)
            .expect("fetched");
        assert_eq!(files.len(), 1);
        assert_eq!(files[0].title.as_deref(), Some("bill.json"));
        assert!(has(&store, b"good"));
    }
}

#[test]
fn a_list_goes_on_where_the_registry_says_and_ends() {
    let image = Image::new();
    let entry = |name: &str| {
        let digest = Digest::of(name.as_bytes());
        format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{MEDIA_MANIFEST}","digest":"{digest}","size":1,"artifactType":"{name}"}}]}}"#
        )
    };
    let (first, second) = (entry("a"), entry("b"));
    let pages = rule(move |request, _| {
        let link = ("Link", "</v2/shop/referrers/more?last=1>; rel=\"next\"");
        match (request.path.contains("/referrers/"), request.query.as_str()) {
            (false, _) => Instead::Right,
            (true, "last=1") => Instead::Raw(answer(200, &[], second.as_bytes(), false)),
            (true, _) => Instead::Raw(answer(200, &[link], first.as_bytes(), false)),
        }
    });
    let server = Server::start(pages);
    let types: Vec<String> = listed(&image, &server, None)
        .into_iter()
        .map(|(_, it)| it)
        .collect();
    assert_eq!(types.len(), 2);

    let again = rule(|request, _| {
        let link = ("Link", "<?again>; rel=\"next\"");
        match request.path.contains("/referrers/") {
            true => Instead::Raw(answer(
                200,
                &[link],
                br#"{"schemaVersion":2,"manifests":[]}"#,
                false,
            )),
            false => Instead::Right,
        }
    });
    let server = Server::start(again);
    assert_eq!(listed(&image, &server, None), []);
    assert!(server.lines().len() <= 64, "{}", server.lines().len());
}
