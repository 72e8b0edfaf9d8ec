//! Whole documents, byte by byte, and what `oci-spec` makes of them.

use std::collections::{BTreeMap, BTreeSet};

use immbuild_cas::digest::Digest;
use oci_spec::image as oci;

use super::read::{self, Document};
use super::*;
use crate::epoch::Epoch;
use crate::layer::{DiffId, LayerDigest};

fn table(rows: &[(&str, &str)]) -> BTreeMap<String, String> {
    rows.iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn layer(text: &str, media: LayerMedia) -> ImageLayer {
    ImageLayer {
        diff_id: DiffId::new(Digest::of(text.as_bytes())),
        digest: LayerDigest::new(Digest::of(format!("{text} shipped").as_bytes())),
        size: 512,
        media,
    }
}

fn changes(labels: &[(&str, &str)]) -> ConfigChanges {
    ConfigChanges {
        env: table(&[("SHOP", "a \"b\" \\ <c>\n")]),
        entrypoint: Some(vec!["/usr/bin/shop".into()]),
        user: Some("10001:10001".into()),
        workdir: Some("/srv".into()),
        expose: Some(BTreeSet::from(["8080/tcp".into(), "53/udp".into()])),
        labels: table(labels),
        stop_signal: Some("SIGINT".into()),
        ..ConfigChanges::default()
    }
}

fn own() -> Vec<OwnLayer> {
    vec![
        OwnLayer {
            created_by: "copy build:/src/server to /usr/bin/server".into(),
            layer: Some(layer("one", LayerMedia::Zstd)),
        },
        OwnLayer {
            created_by: "mkdir /tmp".into(),
            layer: None,
        },
    ]
}

fn image(base: Option<&BaseImage>, platform: &str, labels: &[(&str, &str)]) -> Image {
    assemble(&ImageSpec {
        base,
        own: &own(),
        changes: &changes(labels),
        annotations: &table(&[("org.example.b", "2"), ("org.example.a", "1")]),
        platform: platform.parse().expect("known"),
        epoch: Epoch::DEFAULT,
    })
}

fn text(json: &CanonicalJson) -> &str {
    std::str::from_utf8(json.as_bytes()).expect("UTF-8")
}

const BASE_CONFIG: &str = r#"{
    "architecture": "amd64", "os": "linux", "created": "2023-05-08T17:27:33.5Z", "author": "them",
    "docker_version": "20.10.23", "container": "3f2a",
    "config": {"Env": ["PATH=/bin", "SHOP=old"], "Cmd": ["sh"], "Labels": {"base": "yes"}, "Volumes": {"/data": {}},
               "Image": "sha256:1", "Healthcheck": {"Test": ["NONE"]}},
    "history": [{"created": "2023-05-08T17:27:33.5Z", "created_by": "ADD file:1 in / ", "author": "them"},
                {"created": "2023-05-08T17:27:34Z", "created_by": "CMD [\"sh\"]", "comment": "c", "empty_layer": true}],
    "rootfs": {"type": "layers", "diff_ids": ["sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]}}"#;

/// An image as Docker pushes it.
fn base(config: &str) -> BaseImage {
    let manifest = format!(
        r#"{{"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {{"mediaType": "application/vnd.docker.container.image.v1+json", "size": {}, "digest": "{}"}},
            "layers": [{{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": 99,
                "digest": "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"}}]}}"#,
        config.len(),
        Digest::of(config.as_bytes())
    );
    let digest = ManifestDigest::new(Digest::of(manifest.as_bytes()));
    BaseImage::new(digest, manifest.as_bytes(), config.as_bytes()).expect("an image")
}

#[test]
fn an_image_on_nothing_is_these_bytes() {
    let image = image(None, "linux/arm64", &[("b", "2"), ("a", "1")]);
    assert_eq!(
        text(&image.config),
        concat!(
            r#"{"created":"2020-01-01T00:00:00Z","architecture":"arm64","os":"linux","variant":"v8","#,
            r#""config":{"User":"10001:10001","ExposedPorts":{"53/udp":{},"8080/tcp":{}},"#,
            r#""Env":["SHOP=a \"b\" \\ <c>\n"],"Entrypoint":["/usr/bin/shop"],"#,
            r#""WorkingDir":"/srv","Labels":{"a":"1","b":"2"},"StopSignal":"SIGINT"},"#,
            r#""rootfs":{"type":"layers","diff_ids":["sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"]},"#,
            r#""history":[{"created":"2020-01-01T00:00:00Z","created_by":"copy build:/src/server to /usr/bin/server"},"#,
            r#"{"created":"2020-01-01T00:00:00Z","created_by":"mkdir /tmp","empty_layer":true}]}"#,
        )
    );
    let config = image.config_digest();
    let size = image.config.size();
    let layer = image.layers[0].digest;
    assert_eq!(
        text(&image.manifest),
        format!(
            concat!(
                r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","#,
                r#""config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":{size}}},"#,
                r#""layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+zstd","digest":"{layer}","size":512}}],"#,
                r#""annotations":{{"org.example.a":"1","org.example.b":"2"}}}}"#,
            ),
            config = config,
            size = size,
            layer = layer,
        )
    );
}

#[test]
fn a_base_brings_its_config_layers_and_history() {
    let base = base(BASE_CONFIG);
    assert_eq!(base.dropped, ["Healthcheck"]);
    let image = image(Some(&base), "linux/amd64", &[("own", "1")]);
    assert_eq!(
        text(&image.config),
        concat!(
            r#"{"created":"2020-01-01T00:00:00Z","architecture":"amd64","os":"linux","#,
            r#""config":{"User":"10001:10001","ExposedPorts":{"53/udp":{},"8080/tcp":{}},"#,
            r#""Env":["PATH=/bin","SHOP=a \"b\" \\ <c>\n"],"Entrypoint":["/usr/bin/shop"],"Volumes":{"/data":{}},"#,
            r#""WorkingDir":"/srv","Labels":{"base":"yes","own":"1"},"StopSignal":"SIGINT"},"#,
            r#""rootfs":{"type":"layers","diff_ids":["sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","#,
            r#""sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"]},"#,
            r#""history":[{"created":"2023-05-08T17:27:33.5Z","created_by":"ADD file:1 in / ","author":"them"},"#,
            r#"{"created":"2023-05-08T17:27:34Z","created_by":"CMD [\"sh\"]","comment":"c","empty_layer":true},"#,
            r#"{"created":"2020-01-01T00:00:00Z","created_by":"copy build:/src/server to /usr/bin/server"},"#,
            r#"{"created":"2020-01-01T00:00:00Z","created_by":"mkdir /tmp","empty_layer":true}]}"#,
        )
    );
    let layers: Vec<_> = image.layers.iter().map(ImageLayer::descriptor).collect();
    assert_eq!(
        layers[0],
        Descriptor::new(
            "application/vnd.oci.image.layer.v1.tar+gzip",
            Digest::from_bytes([0xbb; 32]),
            99
        )
    );
    assert_eq!(layers.len(), 2);
}

#[test]
fn a_base_that_tells_no_history_gets_a_line_per_layer() {
    let start = BASE_CONFIG.find("\"history\"").expect("there");
    let end = BASE_CONFIG.find("\"rootfs\"").expect("there");
    let base = base(&format!("{}{}", &BASE_CONFIG[..start], &BASE_CONFIG[end..]));
    let image = image(Some(&base), "linux/amd64", &[]);
    let (config, _) = read::config(image.config.as_bytes(), "ours").expect("ours");
    assert_eq!(
        config.history[0],
        History {
            created: Some("2020-01-01T00:00:00Z".into()),
            comment: Some(format!("layer of base image {}", base.manifest)),
            ..History::default()
        }
    );
    let with_layer = config.history.iter().filter(|line| !line.empty_layer);
    assert_eq!(with_layer.count(), image.layers.len());
}

#[test]
fn the_order_of_labels_and_platforms_moves_no_byte() {
    let forward = [("a", "1"), ("b", "2"), ("c", "3")];
    let backward = [("c", "3"), ("b", "2"), ("a", "1")];
    let index = |order: [&str; 2], labels: &[(&str, &str)]| {
        let images = order.map(|platform| image(None, platform, labels));
        assemble_index(images.into(), &table(&[("x", "y")]))
    };
    let one = index(["linux/amd64", "linux/arm/v7"], &forward);
    let other = index(["linux/arm/v7", "linux/amd64"], &backward);
    assert_eq!(one, other);
    let [amd64, arm] = [&one.images[0], &one.images[1]]
        .map(|image| (image.manifest_digest(), image.manifest.size()));
    assert_eq!(
        text(&one.index),
        format!(
            concat!(
                r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":["#,
                r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":{},"#,
                r#""platform":{{"architecture":"amd64","os":"linux"}}}},"#,
                r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":{},"#,
                r#""platform":{{"architecture":"arm","os":"linux","variant":"v7"}}}}],"#,
                r#""annotations":{{"x":"y"}}}}"#,
            ),
            amd64.0, amd64.1, arm.0, arm.1
        )
    );
}

#[test]
fn what_we_write_we_read_back() {
    let base = base(BASE_CONFIG);
    let index = assemble_index(
        vec![
            image(Some(&base), "linux/amd64", &[]),
            image(None, "linux/s390x", &[]),
        ],
        &BTreeMap::new(),
    );
    let parsed = read::document(index.index.as_bytes(), "index").expect("an index");
    let Document::Index(parsed) = parsed else {
        panic!("not an index: {parsed:?}");
    };
    assert_eq!(CanonicalJson::of(&parsed), index.index);
    for image in &index.images {
        let read = BaseImage::new(
            image.manifest_digest(),
            image.manifest.as_bytes(),
            image.config.as_bytes(),
        )
        .expect("an image");
        assert_eq!(CanonicalJson::of(&read.config), image.config);
        assert_eq!(read.layers, image.layers);
        assert_eq!(read.dropped, Vec::<String>::new());
        assert_eq!(read.platform(), Some(image.platform));
    }
}

#[test]
fn oci_spec_reads_what_we_write() {
    let image = image(Some(&base(BASE_CONFIG)), "linux/amd64", &[("a", "1")]);
    let config = oci::ImageConfiguration::from_reader(image.config.as_bytes()).expect("a config");
    assert_eq!(config.architecture(), &oci::Arch::Amd64);
    assert_eq!(config.rootfs().diff_ids().len(), 2);
    let container = config.config().as_ref().expect("a container");
    assert_eq!(
        container.entrypoint().as_deref(),
        Some(&["/usr/bin/shop".to_owned()][..])
    );
    assert_eq!(
        container.volumes().as_deref(),
        Some(&["/data".to_owned()][..])
    );
    assert_eq!(container.cmd(), &None);
    let manifest = oci::ImageManifest::from_reader(image.manifest.as_bytes()).expect("a manifest");
    assert_eq!(
        manifest.config().digest().to_string(),
        image.config_digest().to_string()
    );
    assert_eq!(
        manifest.layers()[1].media_type(),
        &oci::MediaType::ImageLayerZstd
    );
    let index = assemble_index(vec![image], &BTreeMap::new());
    let parsed = oci::ImageIndex::from_reader(index.index.as_bytes()).expect("an index");
    assert_eq!(
        parsed.manifests()[0].platform().as_ref().expect("one").os(),
        &oci::Os::Linux
    );
}

#[test]
fn a_config_that_is_not_the_manifests_is_refused() {
    let good = base(BASE_CONFIG);
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","size":{},"digest":"{}"}},"layers":[]}}"#,
        BASE_CONFIG.len(),
        Digest::of(BASE_CONFIG.as_bytes())
    );
    let digest = ManifestDigest::new(Digest::of(manifest.as_bytes()));
    let error = |digest, config: &str| {
        BaseImage::new(digest, manifest.as_bytes(), config.as_bytes())
            .expect_err("no image")
            .to_string()
    };
    assert_eq!(
        error(digest, BASE_CONFIG),
        format!("manifest {digest} has 0 layers, its config has 1")
    );
    assert_eq!(
        error(digest, "{}"),
        format!(
            "config mismatch: expected {}, read {}",
            Digest::of(BASE_CONFIG.as_bytes()),
            Digest::of(b"{}")
        )
    );
    assert_eq!(
        error(good.manifest, BASE_CONFIG),
        format!(
            "manifest mismatch: expected {}, read {digest}",
            good.manifest
        )
    );
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let _ = read::document(&bytes, "x");
        let _ = read::config(&bytes, "x");
        let _ = read::docker_manifest(&bytes, "x");
    }

    #[test]
    fn no_text_breaks_a_config(value in ".*", name in "[^=\u{0}]+") {
        let changes = ConfigChanges {
            env: BTreeMap::from([(name.clone(), value.clone())]),
            labels: BTreeMap::from([(name.clone(), value.clone())]),
            ..ConfigChanges::default()
        };
        let image = assemble(&ImageSpec {
            base: None,
            own: &[],
            changes: &changes,
            annotations: &BTreeMap::from([(name.clone(), value.clone())]),
            platform: "linux/amd64".parse().expect("known"),
            epoch: Epoch::DEFAULT,
        });
        let (config, dropped) = read::config(image.config.as_bytes(), "ours").expect("ours");
        proptest::prop_assert!(dropped.is_empty());
        proptest::prop_assert_eq!(config.config.env, vec![format!("{name}={value}")]);
        proptest::prop_assert_eq!(config.config.labels, BTreeMap::from([(name, value)]));
        let parsed = oci::ImageConfiguration::from_reader(image.config.as_bytes());
        proptest::prop_assert!(parsed.is_ok());
    }
}
