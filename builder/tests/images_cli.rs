//! `inspect`, `compare`, `verify` and `load` as a person types them: what is printed, and the exit status.

use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use immbuild::epoch::Epoch;
use immbuild::image::descriptor::{Descriptor, MEDIA_CONFIG, MEDIA_INDEX, MEDIA_MANIFEST};
use immbuild::image::{CanonicalJson, Image, ImageLayer, Index, Manifest};
use immbuild::layer::{Compression, LayerPlan, LayerWriter};
use immbuild::output::{Blobs, Names, Subject, write_oci_layout};
use immbuild::resolve::image::{import_base, open_local};
use immbuild_cas::digest::Digest;
use immbuild_cas::store::{MemoryStore, Store as _};
use immbuild_cas::tree::{Meta, Mode, TreeBuilder, delta};
use serde_json::{Value, json};

/// A directory with a spec, its files and a store.
struct Place(tempfile::TempDir);

/// What a command answered.
struct Answer {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Answer {
    fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// The last line of `--json`.
    fn result(&self) -> Value {
        let last = self.stdout.lines().last().expect("a line");
        serde_json::from_str(last).expect("JSON")
    }
}

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a directory"));
        place.write("site/index.html", "<p>hello\n");
        place.write("site/style.css", "p { }\n");
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_immbuild"));
        command
            .args(args)
            .args(["--store", ".store"])
            .current_dir(self.path())
            .env_remove("SOURCE_DATE_EPOCH");
        command
    }

    fn run(&self, args: &[&str]) -> Answer {
        answer(&mut self.command(args))
    }

    /// Writes `NAME.toml` with these lines in `[image]`, builds it, and gives the digest. The layout is `out/NAME`.
    fn build(&self, name: &str, image: &str) -> String {
        self.spec(name, image);
        let answer = self.run(&["build", &format!("{name}.toml")]).ok();
        answer.stdout.trim().to_owned()
    }

    fn spec(&self, name: &str, image: &str) {
        self.write(
            &format!("{name}.toml"),
            &format!(
                "immbuild = 1\n\
                 source.here.path = \".\"\n\
                 [image]\n\
                 {image}\n\
                 [[output]]\n\
                 kind = \"oci-layout\"\n\
                 dir = \"out/{name}\"\n"
            ),
        );
    }

    /// What the store's `tmp` still holds.
    #[allow(
        clippy::disallowed_methods,
        reason = "the directory is expected to be empty, so there is no order"
    )]
    fn left_over(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path().join(".store/tmp")).expect("a directory");
        entries
            .map(|entry| entry.expect("an entry").path())
            .collect()
    }

    /// A program of this name, and a `PATH` that it is first in.
    fn with_program(&self, name: &str, script: &str) -> String {
        let program = self.path().join("bin").join(name);
        self.write(&format!("bin/{name}"), script);
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
        format!("{}:/usr/bin:/bin", self.path().join("bin").display())
    }
}

fn answer(command: &mut Command) -> Answer {
    let output = command.output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Answer {
        code: output.status.code().expect("no signal"),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

const SITE: &str = r#"
steps = [{ copy = "here:site", to = "/srv" }]
entrypoint = ["/bin/serve"]
labels = { stage = "test" }
"#;

#[test]
fn a_right_image_is_bit_identical() {
    let place = Place::new();
    // The source is the whole directory, with the store, the outputs, the specs and their locks in it.
    let all = "steps = [{ copy = \"here\", to = \"/all\" }]";
    let digest = place.build("all", all);
    let answer = place.run(&["verify", "out/all", "-f", "all.toml"]).ok();
    assert_eq!(answer.stdout, "bit-identical\n");
    assert_eq!(
        answer.stderr,
        format!(
            "structure 1 manifest, 1 layer: every digest and size is right\n\
             rebuilt   {digest}\n"
        )
    );
    let by_spec = place.run(&["verify", "all.toml", "--json"]).ok().result();
    assert_eq!(by_spec["verdict"], "bit-identical");
    assert_eq!(by_spec["rebuilt"], json!(digest));
    assert_eq!(by_spec["structure"]["foreign-layers"], json!([]));
    assert_eq!(place.left_over(), Vec::<PathBuf>::new());
}

#[test]
fn another_compression_is_diff_id_identical() {
    let place = Place::new();
    place.build("zstd", SITE);
    place.build("gzip", &format!("{SITE}compression = \"gzip\""));
    let answer = place.run(&["verify", "out/gzip", "-f", "zstd.toml"]);
    assert_eq!(answer.code, 10);
    assert_eq!(
        answer.stdout,
        "diff-id-identical: the first difference is in the layer\n\
         layer       1: the same tar, compressed otherwise   (copy here:site to /srv)\n"
    );
    let accepted = [
        "verify",
        "out/gzip",
        "-f",
        "zstd.toml",
        "--accept",
        "diff-id",
    ];
    assert_eq!(place.run(&accepted).code, 0);
    let answer = place.run(&["compare", "out/gzip", "out/zstd", "--json"]);
    assert_eq!(answer.code, 10);
    assert_eq!(answer.result()["verdict"], "diff-id-identical");
}

/// Writes the one-layer image of a layout again, with other times in its tar.
fn with_other_times(layout: &Path, target: &Path) {
    let local = open_local(layout).expect("a layout");
    let choice = local.select(None).expect("one image");
    let (platform, found) = choice.manifests.first_key_value().expect("one platform");
    let base = local.base(&found.digest).expect("an image");
    let store = MemoryStore::new();
    let tree = import_base(&base, &local, &store, 1 << 30)
        .expect("a tree")
        .tree;
    let nothing = TreeBuilder::new(&store, Meta::root(Mode::DIRECTORY));
    let nothing = nothing.seal(&store).expect("an empty tree");
    let changes = delta(&store, &nothing, &tree).expect("a delta");
    let plan = LayerPlan::new(&store, &tree, changes).expect("a plan");
    let epoch = Epoch::from_seconds(Epoch::DEFAULT.seconds() + 1).expect("an epoch");
    let mut bytes = Vec::new();
    let form = Compression::Zstd;
    let writer = LayerWriter {
        blobs: &store,
        epoch,
        compression: form,
        threads: NonZeroUsize::MIN,
        earlier: None,
        progress: &|_| (),
    };
    let info = writer.write(&plan, &mut bytes);
    let layer = ImageLayer::own(&info.expect("a layer"), form);
    store.put_bytes(&bytes).expect("stored");
    let mut config = base.config;
    config.diff_ids = vec![*layer.diff_id.digest()];
    let config = CanonicalJson::of(&config);
    let manifest = CanonicalJson::of(&Manifest {
        config: Descriptor::new(MEDIA_CONFIG, config.digest(), config.size()),
        layers: vec![layer.descriptor()],
        annotations: std::collections::BTreeMap::new(),
    });
    let image = Image {
        config,
        manifest,
        layers: vec![layer],
        platform: *platform,
        epoch: Epoch::DEFAULT,
    };
    let subject = Subject::One(&image);
    write_oci_layout(
        target,
        subject,
        &Names::default(),
        &Blobs(&store),
        None,
        &|_| (),
    )
    .expect("written");
}

#[test]
fn other_times_in_the_tar_are_tree_identical() {
    let place = Place::new();
    place.build("site", SITE);
    with_other_times(
        &place.path().join("out/site"),
        &place.path().join("out/later"),
    );
    let answer = place.run(&["verify", "out/later", "-f", "site.toml"]);
    assert_eq!(answer.code, 11);
    assert_eq!(
        answer.stdout,
        "tree-identical: the first difference is in the layer\n\
         layer       1: another tar   (copy here:site to /srv)\n"
    );
    assert!(
        answer.stderr.contains("foreign   layer sha256:"),
        "{}",
        answer.stderr
    );
    for (grade, code) in [("diff-id", 11), ("tree", 0)] {
        let args = ["verify", "out/later", "-f", "site.toml", "--accept", grade];
        assert_eq!(place.run(&args).code, code);
    }
}

#[test]
fn layers_of_a_base_are_told_and_do_not_count() {
    let place = Place::new();
    place.build("site", SITE);
    let base = place.path().join("base");
    with_other_times(&place.path().join("out/site"), &base);
    place.build(
        "top",
        "from = \"below\"\nsteps = [{ mkdir = \"/new\" }]\n[source.below]\nimage = \"./base\"",
    );
    let args = ["verify", "out/top", "-f", "top.toml", "--json"];
    let found = place.run(&args).ok().result();
    assert_eq!(found["verdict"], "bit-identical");
    let layers = &place.run(&["inspect", "base", "--json"]).ok().result()["images"][0]["layers"];
    assert_eq!(
        found["structure"]["foreign-layers"],
        json!([layers[0]["digest"]])
    );
}

#[test]
fn a_rebuild_takes_what_was_downloaded_from_the_store() {
    let place = Place::new();
    place.write("elsewhere/tool", "#!/bin/sh\n");
    let url = format!("file://{}/elsewhere/tool", place.path().display());
    place.build(
        "tool",
        &format!(
            "steps = [{{ copy = \"tool\", to = \"/tool\" }}]\n[source.tool]\nhttp = \"{url}\""
        ),
    );
    fs::remove_file(place.path().join("elsewhere/tool")).expect("removed");
    let verify = ["verify", "out/tool", "-f", "tool.toml"];
    assert_eq!(place.run(&verify).ok().stdout, "bit-identical\n");
    fs::remove_dir_all(place.path().join(".store")).expect("removed");
    let answer = place.run(&verify);
    assert_eq!(answer.code, 13, "{}", answer.stderr);
    assert!(answer.stderr.contains(&url), "{}", answer.stderr);
}

#[test]
fn a_difference_names_paths_and_attributes() {
    let place = Place::new();
    place.build("old", SITE);
    place.write("site/index.html", "<p>built 2026-11-24\n");
    fs::set_permissions(
        place.path().join("site/style.css"),
        fs::Permissions::from_mode(0o755),
    )
    .expect("changed");
    place.write("site/new", "");
    place.spec("new", &SITE.replace("test", "live"));
    let answer = place.run(&["verify", "out/old", "-f", "new.toml"]);
    assert_eq!(answer.code, 12);
    assert_eq!(
        answer.stdout,
        "different: the first difference is in the config\n\
         config      config.Labels.stage: \"test\" → \"live\"\n\
         layer       1: another tar   (copy here:site to /srv)\n\
         path        /srv/index.html  content sha256:13e28dd7cadc (9 bytes) → sha256:461318ec50dc (20 bytes)\n\
         path        /srv/new  is only in the second\n\
         path        /srv/style.css  mode 0644 → 0755\n"
    );
    place.run(&["build", "new.toml"]).ok();
    let answer = place.run(&["compare", "out/old", "out/new", "--json"]);
    assert_eq!(answer.code, 12);
    let found = answer.result();
    assert_eq!((&found["ok"], &found["exit"]), (&json!(false), &json!(12)));
    assert_eq!(found["level"], "config");
    let platform = &found["platforms"][0];
    assert_eq!(
        platform["fields"],
        json!([{ "level": "config", "field": "config.Labels.stage", "left": "\"test\"", "right": "\"live\"" }])
    );
    assert_eq!(
        platform["paths"][1],
        json!({ "path": "/srv/new", "only": "right" })
    );
    assert_eq!(
        platform["paths"][2]["attributes"],
        json!([{ "name": "mode", "left": "0644", "right": "0755" }])
    );
}

#[test]
fn known_causes_of_a_difference_are_named() {
    let place = Place::new();
    for day in ["21", "22"] {
        place.write("site/version", &format!("built 2026-11-{day} by make\n"));
        place.build(&format!("day{day}"), SITE);
    }
    let answer = place.run(&["compare", "day21.toml", "day22.toml"]);
    assert_eq!(answer.code, 12);
    let last = answer.stdout.lines().last().expect("a line");
    assert_eq!(
        last,
        "path        /srv/version  text at byte 6 `2026-11-21` → `2026-11-22`"
    );
}

#[test]
fn a_rebuild_without_its_secret_cannot_say() {
    let place = Place::new();
    place.build("site", SITE);
    place.spec(
        "secret",
        "tier = \"isolated\"\nsteps = [{ run = [\"/bin/true\"], secrets = [\"token\"] }]",
    );
    let answer = place.run(&["verify", "out/site", "-f", "secret.toml"]);
    assert_eq!(answer.code, 13, "{}", answer.stderr);
    assert_eq!(answer.stdout, "");
    assert!(
        answer
            .stderr
            .contains("cannot say whether `out/site` is what `secret.toml` builds")
            && answer
                .stderr
                .contains("step `image.1` needs the secret `token`"),
        "{}",
        answer.stderr
    );
    let json = place.run(&["verify", "out/site", "-f", "secret.toml", "--json"]);
    assert_eq!(json.result()["exit"], 13);
    assert_eq!(place.left_over(), Vec::<PathBuf>::new());
}

#[test]
fn without_a_spec_only_the_structure_can_be_told() {
    let place = Place::new();
    let digest = place.build("site", SITE);
    let answer = place.run(&["verify", "out/site"]);
    assert_eq!((answer.code, answer.stdout.as_str()), (13, ""));
    assert!(answer.stderr.contains("-f SPEC"), "{}", answer.stderr);
    let answer = place.run(&["verify", "out/site", "--structure-only"]).ok();
    assert_eq!(answer.stdout, format!("{digest}\n"));
}

#[test]
fn a_wrong_spec_is_no_verdict() {
    let place = Place::new();
    place.build("site", SITE);
    place.write("wrong.toml", "immbuild = 1\n[image]\nstep = []\n");
    assert_eq!(
        place.run(&["verify", "out/site", "-f", "wrong.toml"]).code,
        3
    );
    let args = ["verify", "out/site", "-f", "site.toml", "--arg", "no=1"];
    assert_eq!(place.run(&args).code, 2);
    assert_eq!(place.run(&["verify", "nothing", "-f", "site.toml"]).code, 5);
}

#[test]
fn a_damaged_layer_is_named() {
    let place = Place::new();
    place.build("site", SITE);
    let layer = place.run(&["inspect", "--json", "site.toml"]).ok().result();
    let digest = layer["images"][0]["layers"][0]["digest"]
        .as_str()
        .expect("a digest")
        .to_owned();
    let blob = place
        .path()
        .join("out/site/blobs/sha256")
        .join(&digest["sha256:".len()..]);
    let mut bytes = fs::read(&blob).expect("a layer");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let mode = fs::metadata(&blob).expect("a layer").permissions();
    fs::remove_file(&blob).expect("removed");
    fs::write(&blob, bytes).expect("written");
    fs::set_permissions(&blob, mode).expect("as it was");
    for more in [&["--structure-only"][..], &["-f", "site.toml"]] {
        let answer = place.run(&[&["verify", "out/site"][..], more].concat());
        assert_eq!((answer.code, answer.stdout.as_str()), (6, ""));
        assert!(
            answer
                .stderr
                .starts_with(&format!("error: {digest} cannot be read\n")),
            "{}",
            answer.stderr
        );
    }
    // What the store has is as it was.
    place.run(&["verify", "site.toml"]).ok();
}

/// Puts a document into a layout and gives what points to it.
fn add(layout: &Path, media_type: &str, text: &str) -> Descriptor {
    let digest = Digest::of(text.as_bytes());
    fs::write(layout.join("blobs/sha256").join(digest.to_hex()), text).expect("written");
    Descriptor::new(media_type, digest, text.len() as u64)
}

#[test]
fn a_statement_about_an_image_is_checked_and_is_no_image() {
    let place = Place::new();
    place.build("site", SITE);
    let layout = place.path().join("out/site");
    let local = open_local(&layout).expect("a layout");
    let mut image = local.roots(None).expect("one image")[0].clone();
    image.annotations.clear();
    let nothing = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
    let descriptor =
        |kind: &str| format!("{{\"mediaType\":\"{kind}\",\"digest\":\"{nothing}\",\"size\":2}}");
    let mut statement = add(
        &layout,
        MEDIA_MANIFEST,
        &format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{MEDIA_MANIFEST}\",\"config\":{},\"layers\":[{}]}}",
            descriptor(MEDIA_CONFIG),
            descriptor("application/vnd.in-toto+json")
        ),
    );
    let about = [("vnd.docker.reference.type", "attestation-manifest")];
    statement.annotations = about
        .map(|(name, value)| (name.into(), value.into()))
        .into();
    let blob = layout.join("blobs/sha256").join(statement.digest.to_hex());
    let digest = statement.digest;
    let index = |manifests| Index {
        manifests,
        annotations: std::collections::BTreeMap::new(),
    };
    let inner = CanonicalJson::of(&index(vec![image, statement]));
    let text = std::str::from_utf8(inner.as_bytes()).expect("UTF-8");
    let outer = CanonicalJson::of(&index(vec![add(&layout, MEDIA_INDEX, text)]));
    fs::write(layout.join("index.json"), outer.as_bytes()).expect("written");

    let answer = place.run(&["verify", "out/site", "--structure-only"]).ok();
    assert_eq!(answer.stdout, format!("{}\n", inner.digest()));
    let listed = place.run(&["inspect", "out/site", "--json"]).ok().result();
    assert_eq!(listed["images"].as_array().map(Vec::len), Some(1));
    fs::write(blob, "{}").expect("written");
    let answer = place.run(&["verify", "out/site", "--structure-only"]);
    assert_eq!(answer.code, 6);
    assert!(
        answer.stderr.contains(&format!("{digest} cannot be read")),
        "{}",
        answer.stderr
    );
}

#[test]
fn a_docker_archive_is_the_image_without_compression() {
    let place = Place::new();
    place.spec(
        "site",
        &format!("{SITE}[[output]]\nkind = \"docker-archive\"\nfile = \"site.tar\""),
    );
    place.run(&["build", "site.toml"]).ok();
    let answer = place
        .run(&[
            "verify",
            "site.tar",
            "-f",
            "site.toml",
            "--accept",
            "diff-id",
        ])
        .ok();
    assert!(
        answer.stdout.starts_with("diff-id-identical"),
        "{}",
        answer.stdout
    );
}

#[test]
fn an_image_is_listed() {
    let place = Place::new();
    let digest = place.build("site", SITE);
    let answer = place.run(&["inspect", "-f", "site.toml"]).ok();
    assert!(
        answer
            .stdout
            .starts_with(&format!("manifest    {digest}\n"))
    );
    for line in [
        "platform    linux/amd64\n",
        "created     2020-01-01T00:00:00Z\n",
        "entrypoint  [\"/bin/serve\"]\n",
        "label       stage = test\n",
        "  1         copy here:site to /srv\n",
    ] {
        assert!(answer.stdout.contains(line), "{line}{}", answer.stdout);
    }
    let answer = place.run(&["inspect", "out/site", "--files"]).ok();
    let digest_of = |text: &str| Digest::of(text.as_bytes());
    let (page, style) = (digest_of("<p>hello\n"), digest_of("p { }\n"));
    assert_eq!(
        answer.stdout,
        format!(
            "d 0755 0:0 /\n\
             d 0755 0:0 /srv\n\
             f 0644 0:0 /srv/index.html {page} 9\n\
             f 0644 0:0 /srv/style.css {style} 6\n"
        )
    );
    let json = place
        .run(&["inspect", &digest[..15], "--files", "--json"])
        .ok()
        .result();
    assert_eq!(json["digest"], json!(digest));
    let image = &json["images"][0];
    assert_eq!(image["entrypoint"], json!(["/bin/serve"]));
    assert_eq!(image["files"][3]["path"], "/srv/style.css");
    assert_eq!(image["files"][3]["size"], 6);
}

#[test]
fn an_image_is_found_by_whatever_names_it() {
    let place = Place::new();
    let digest = place.build("site", SITE);
    place.write(
        "spec.toml",
        &fs::read_to_string(place.path().join("site.toml")).expect("a spec"),
    );
    place.run(&["build"]).ok();
    let first = format!("manifest    {digest}");
    for name in [
        &digest[..],
        &digest[..11],
        "out/site",
        "out/site:latest",
        "site.toml",
        ".",
    ] {
        let answer = place.run(&["inspect", name]).ok();
        assert_eq!(answer.stdout.lines().next(), Some(&first[..]), "{name}");
    }
    assert_eq!(
        place.run(&["inspect"]).ok().stdout.lines().next(),
        Some(&first[..])
    );
    let nothing = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
    for (name, code, words) in [
        ("missing", 5, "there is no image `missing`"),
        (
            "out/site:other",
            5,
            "has no image with the tag `other`; it has `latest`",
        ),
        (
            "sha256:0000",
            5,
            "no image of the store begins with `sha256:0000`",
        ),
        (nothing, 5, "the store has no image sha256:0000"),
        ("sha256:xyz", 2, "`sha256:xyz` is no digest"),
        ("site/index.html", 6, "site/index.html"),
        ("other.toml", 3, "there is no spec `other.toml`"),
    ] {
        let answer = place.run(&["inspect", name]);
        assert!(answer.stderr.contains(words), "{name}: {}", answer.stderr);
        assert_eq!(answer.code, code, "{name}: {}", answer.stderr);
    }
    place.spec("unbuilt", SITE);
    let answer = place.run(&["inspect", "unbuilt.toml"]);
    assert_eq!(answer.code, 5);
    assert!(
        answer
            .stderr
            .contains("`unbuilt.toml` has built no image yet"),
        "{}",
        answer.stderr
    );
}

#[test]
fn directories_are_compared_as_trees() {
    let place = Place::new();
    place.build("site", "steps = [{ copy = \"here:site\", to = \"/\" }]");
    let answer = place.run(&["compare", "site", "site"]).ok();
    assert_eq!(answer.stdout, "identical\n");
    fs::create_dir(place.path().join("copy")).expect("made");
    place.write("copy/index.html", "<p>hello\n");
    let answer = place.run(&["compare", "site", "copy"]);
    assert_eq!(answer.code, 12);
    assert_eq!(
        answer.stdout,
        "different: the first difference is in the tree\n\
         path        /style.css  is only in the first\n"
    );
    fs::remove_file(place.path().join("site/style.css")).expect("removed");
    let answer = place.run(&["compare", "site", "out/site"]);
    assert!(
        answer
            .stdout
            .ends_with("path        /style.css  is only in the second\n"),
        "{}",
        answer.stdout
    );
}

const TWO: &str = r#"
name = "registry.example.com/shop"
platforms = ["linux/amd64", "linux/arm64"]
steps = [{ write = "/arch", text = "${arch}\n", expand = true }]
"#;

#[test]
fn platforms_are_compared_one_by_one() {
    let place = Place::new();
    let digest = place.build("two", TWO);
    place.build(
        "other",
        &TWO.replace("/arch\"", "/arm\"")
            .replace("arm64\"]", "arm64\"]\nlabels = { a = \"b\" }"),
    );
    place.build("one", &TWO.replace(", \"linux/arm64\"", ""));
    let answer = place.run(&["inspect", "out/two"]).ok();
    assert!(
        answer
            .stdout
            .starts_with(&format!("index       {digest}\n\nmanifest")),
        "{}",
        answer.stdout
    );
    let answer = place.run(&["verify", "out/two", "-f", "two.toml"]).ok();
    assert_eq!(answer.stdout, "bit-identical\n");
    let answer = place.run(&["compare", "out/two", "out/other"]);
    assert_eq!(answer.code, 12);
    for platform in ["linux/amd64", "linux/arm64/v8"] {
        let lines = format!(
            "\n{platform}: different\n\
             config      config.Labels: nothing → {{\"a\":\"b\"}}\n"
        );
        assert!(answer.stdout.contains(&lines), "{}", answer.stdout);
    }
    let answer = place.run(&["compare", "out/two", "out/one"]);
    assert_eq!(answer.code, 12);
    assert_eq!(
        answer.stdout,
        "different: the first difference is in the index\n\
         index       document: an index → no index\n\
         index       platforms: [\"linux/amd64\",\"linux/arm64/v8\"] → [\"linux/amd64\"]\n"
    );
    // One image of several is verified against that platform alone.
    let image = place.run(&["inspect", "two.toml", "--json"]).ok().result();
    let manifest = image["images"][1]["manifest"]
        .as_str()
        .expect("a digest")
        .to_owned();
    let answer = place.run(&["verify", &manifest, "-f", "two.toml"]).ok();
    assert_eq!(answer.stdout, "bit-identical\n");
}

/// An engine that keeps the archive it is given and says what it was asked.
const ENGINE: &str = "#!/bin/sh\n\
    echo \"$@\" | sed 's/-i .*/-i/' >> asked\n\
    if [ \"$1\" = load ]; then cp \"$3\" loaded.tar; fi\n";

#[test]
fn an_engine_is_given_this_machine_s_platform() {
    let place = Place::new();
    place.build("two", TWO);
    let path = place.with_program("podman", ENGINE);
    let load = |args: &[&str]| answer(place.command(args).env("PATH", &path)).ok();
    let answer = load(&["load", "podman", "two.toml"]);
    let platform = match std::env::consts::ARCH {
        "aarch64" => "linux/arm64",
        _ => "linux/amd64",
    };
    assert_eq!(
        answer.stderr,
        format!(
            "platform  {platform}, this machine's: an engine takes one\n\
             loaded    registry.example.com/shop:latest\n"
        )
    );
    let image = place
        .run(&["inspect", "loaded.tar", "--json"])
        .ok()
        .result();
    assert_eq!(answer.stdout.trim(), image["images"][0]["config"]);
    // A layout carries the names along.
    let answer = load(&["load", "podman", "out/two", "--json"]).result();
    assert_eq!(
        answer["references"],
        json!(["registry.example.com/shop:latest"])
    );
    let answer = load(&[
        "load",
        "podman",
        "-f",
        "two.toml",
        "--tag",
        "localhost:5000/shop",
    ]);
    assert!(
        answer
            .stderr
            .ends_with("loaded    localhost:5000/shop:latest\n"),
        "{}",
        answer.stderr
    );
    let asked = fs::read_to_string(place.path().join("asked")).expect("asked");
    assert_eq!(asked, "load -i\nload -i\nload -i\n");
    assert_eq!(place.left_over(), Vec::<PathBuf>::new());
}

#[test]
fn an_engine_that_is_missing_or_refuses_is_told() {
    let place = Place::new();
    place.build("site", SITE);
    let answer = crate::answer(
        place
            .command(&["load", "docker", "site.toml"])
            .env("PATH", "/nowhere"),
    );
    assert_eq!(answer.code, 5);
    assert!(
        answer.stderr.contains("`docker` is not installed"),
        "{}",
        answer.stderr
    );
    let refuse = "#!/bin/sh\necho 'no daemon' >&2\nexit 1\n";
    let path = place.with_program("docker", refuse);
    let answer = crate::answer(
        place
            .command(&["load", "docker", "site.toml"])
            .env("PATH", path),
    );
    assert_eq!(answer.code, 5);
    assert!(answer.stderr.contains("no daemon"), "{}", answer.stderr);
    let tag = ["load", "docker", "site.toml", "--tag", ":1"];
    assert_eq!(place.run(&tag).code, 2);
}

#[test]
#[ignore = "needs podman and root"]
fn podman_has_the_image_afterwards() {
    let place = Place::new();
    place.build("site", &format!("name = \"localhost/site\"{SITE}"));
    let podman = format!(
        "#!/bin/sh\nexec /usr/bin/podman --root={root}/podman-root --runroot={root}/podman-run --storage-driver=vfs \"$@\"\n",
        root = place.path().join("bin").display()
    );
    let path = place.with_program("podman", &podman);
    let load = ["load", "podman", "-f", "site.toml", "--json"];
    let loaded = answer(place.command(&load).env("PATH", &path))
        .ok()
        .result();
    let output = Command::new(place.path().join("bin/podman"))
        .args([
            "image",
            "inspect",
            "localhost/site:latest",
            "--format",
            "sha256:{{.Id}}",
        ])
        .output()
        .expect("it runs");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        loaded["config"]
    );
}

#[test]
fn containerd_gets_every_tag_and_wants_a_name() {
    let place = Place::new();
    let named = format!("name = \"localhost/site\"\ntags = [\"1\", \"2\"]{SITE}");
    let digest = place.build("site", &named);
    let import = "#!/bin/sh\necho \"$0 $1 $2\" | sed 's|.*/||' >> asked\nfor last; do :; done\ncp \"$last\" loaded.tar\n";
    let path = place.with_program("ctr", import);
    let load = ["load", "containerd", "site.toml"];
    let told = answer(place.command(&load).env("PATH", &path)).ok();
    assert_eq!(
        told.stderr,
        "loaded    localhost/site:1\nloaded    localhost/site:2\n"
    );
    for tag in ["1", "2"] {
        let of_tag = place.run(&["inspect", &format!("loaded.tar:{tag}"), "--json"]);
        assert_eq!(of_tag.ok().result()["digest"], digest.as_str());
    }
    // Where there is no `ctr`, there may be its friendlier sister.
    fs::remove_file(place.path().join("bin/ctr")).expect("removed");
    let bin = place.path().join("bin").display().to_string();
    let script = "#!/bin/sh\necho \"nerdctl $1 $2\" >> asked\n";
    place.with_program("nerdctl", script);
    let alone = |load: &[&str]| {
        let mut command = place.command(load);
        answer(command.env("PATH", &bin))
    };
    alone(&load).ok();
    let asked = fs::read_to_string(place.path().join("asked")).expect("asked");
    assert_eq!(asked, "ctr images import\nnerdctl load -i\n");
    fs::remove_file(place.path().join("bin/nerdctl")).expect("removed");
    let told = alone(&load);
    assert_eq!(told.code, 5);
    assert!(
        told.stderr.contains("`ctr` is not installed"),
        "{}",
        told.stderr
    );

    place.build("none", SITE);
    let told = alone(&["load", "containerd", "none.toml"]);
    assert_eq!(told.code, 2);
    assert!(
        told.stderr
            .contains("containerd knows images by their names, and this one has none"),
        "{}",
        told.stderr
    );
    assert_eq!(place.left_over(), Vec::<PathBuf>::new());
}

/// A daemon of the test's own, ended with it.
struct Containerd(std::process::Child);

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs containerd and root"]
fn containerd_has_the_image_afterwards() {
    let place = Place::new();
    let digest = place.build("site", &format!("name = \"localhost/site\"{SITE}"));
    let at = |name: &str| place.path().join(name).display().to_string();
    place.write(
        "containerd.toml",
        "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n",
    );
    let socket = at("c.sock");
    let daemon = Command::new("containerd")
        .args(["--config", &at("containerd.toml"), "--address", &socket])
        .args([
            "--root",
            &at("c-root"),
            "--state",
            &at("c-state"),
            "--log-level",
            "error",
        ])
        .spawn()
        .expect("containerd is installed");
    let _daemon = Containerd(daemon);
    let ctr = |args: &[&str]| {
        Command::new("ctr")
            .args(["--address", &socket, "--namespace", "immbuild"])
            .args(args)
            .output()
            .expect("ctr is installed")
    };
    let answers = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        ctr(&["version"]).status.success()
    });
    assert!(answers, "containerd does not answer");
    let mut load = place.command(&["load", "containerd", "-f", "site.toml"]);
    load.envs([
        ("CONTAINERD_ADDRESS", socket.as_str()),
        ("CONTAINERD_NAMESPACE", "immbuild"),
        // An overlay may lie on an overlay here.
        ("CONTAINERD_SNAPSHOTTER", "native"),
    ]);
    answer(&mut load).ok();
    let listed = ctr(&["images", "list"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let line = listed
        .lines()
        .find(|line| line.starts_with("localhost/site:latest "))
        .unwrap_or_else(|| panic!("{listed}"));
    assert!(line.contains(&digest), "{line}");
    // Every blob arrived, and is what its digest says.
    let content = ctr(&["content", "get", &digest]);
    assert_eq!(
        Digest::of(&content.stdout).to_string(),
        digest,
        "{}",
        String::from_utf8_lossy(&content.stderr)
    );
    let checked = ctr(&["images", "check", "--snapshotter", "native"]);
    let checked = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(
        checked.contains("complete (") && checked.contains(" true"),
        "{checked}"
    );
}
