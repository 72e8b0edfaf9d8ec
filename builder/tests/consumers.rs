//! Other people's tools read what we wrote, and we read what they wrote. The table in `book/src/consumers.md` is what these
//! tests saw.
//!
//! They need Debian 12's umoci, skopeo, podman, buildah, crun and busybox-static, and root:
//! `cargo test -p immbuild --test consumers -- --ignored`.
#![allow(clippy::disallowed_methods, reason = "tests look at directories")]

mod common;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use common::{host_platform, image, names};
use immbuild::epoch::Epoch;
use immbuild::image::{ConfigChanges, Image, ImageSpec, OwnLayer, assemble, assemble_index};
use immbuild::layer::Compression;
use immbuild::output::{
    Blobs, Engine, EngineCommand, OutputError, Subject, load, write_docker_archive,
    write_oci_archive, write_oci_layout,
};
use immbuild::resolve::image::{import_base, open_local};
use immbuild_cas::path::RelPath;
use immbuild_cas::store::{MemoryStore, Store};
use immbuild_cas::tree::{Entry, File, Meta, Mode, Tree, TreeBuilder, to_listing};

const COMPRESSIONS: [(Compression, &str); 3] = [
    (Compression::Zstd, "zstd"),
    (Compression::Gzip, "gzip"),
    (Compression::None, "none"),
];

/// Runs a tool and gives what it prints, or what it complains about.
fn run(program: &str, args: &[&OsStr]) -> Result<String, String> {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("cannot run `{program}`: {error}"));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if output.status.success() {
        Ok(text(output.stdout))
    } else {
        Err(text(output.stderr))
    }
}

macro_rules! run {
    ($program:expr, $($word:expr),+ $(,)?) => {
        run($program, &[$(AsRef::<OsStr>::as_ref(&$word)),+])
    };
}

/// As [`run`], for what starts a container: crun refuses hosts that mount cgroups of both versions, so it sees one of its own.
fn run_container(program: &str, args: &[&OsStr]) -> Result<String, String> {
    const SCRIPT: &str = "mount --make-rprivate / && umount -R -l /sys/fs/cgroup \
        && mount -t cgroup2 none /sys/fs/cgroup && exec \"$0\" \"$@\"";
    let words = ["-m", "sh", "-c", SCRIPT, program].map(OsStr::new);
    let words: Vec<&OsStr> = words.iter().chain(args).copied().collect();
    run("unshare", &words)
}

/// Everything a scratch directory needs to hold an image in each form.
fn write_all(at: &Path, image: &Image, store: &MemoryStore) {
    let subject = Subject::One(image);
    let (names, blobs) = (names(&["latest"]), Blobs(store));
    write_oci_layout(&at.join("layout"), subject, &names, &blobs, None, &|_| ()).expect("written");
    write_oci_archive(&at.join("oci.tar"), subject, &names, &blobs, &|_| ()).expect("written");
    write_docker_archive(&at.join("docker.tar"), subject, &names, &blobs, &|_| ())
        .expect("written");
}

/// `transport:path`, with the tag for those that want one.
fn reference(transport: &str, path: &Path, tag: &str) -> String {
    format!("{transport}:{}{tag}", path.display())
}

#[test]
#[ignore = "needs umoci and root"]
fn umoci_unpacks_gzip_and_plain_layers() {
    for (compression, name) in COMPRESSIONS {
        let (store, scratch) = (MemoryStore::new(), tempfile::tempdir().expect("made"));
        let (image, _) = image(&store, host_platform(), compression, None);
        write_all(scratch.path(), &image, &store);
        let layout = format!("{}:latest", scratch.path().join("layout").display());
        let bundle = scratch.path().join("bundle");
        let unpacked = run!("umoci", "unpack", "--image", layout, bundle);
        if compression == Compression::Zstd {
            let error = unpacked.expect_err("umoci 0.4 knows no zstd");
            assert!(error.contains("blob is not correct mediatype"), "{error}");
            continue;
        }
        unpacked.unwrap_or_else(|error| panic!("{name}: {error}"));
        let rootfs = bundle.join("rootfs");
        let listed = run!(
            "find",
            rootfs,
            "-mindepth",
            "1",
            "-printf",
            "%y %m %U:%G %n %T@ %P %l\n"
        )
        .expect("listed");
        let mut lines: Vec<&str> = listed.lines().map(str::trim_end).collect();
        lines.sort_by_key(|line| line.split(' ').nth(5).map(str::to_owned));
        assert_eq!(
            lines,
            [
                "l 777 0:0 1 1577836800.0000000000 bin usr/bin",
                "d 755 0:0 2 1577836800.0000000000 etc",
                "f 640 10:20 2 1577836800.0000000000 etc/conf",
                "f 640 10:20 2 1577836800.0000000000 etc/conf.link",
                "d 1777 0:0 2 1577836800.0000000000 tmp",
                "d 755 0:0 3 1577836800.0000000000 usr",
                "d 755 0:0 2 1577836800.0000000000 usr/bin",
                "f 755 0:0 1 1577836800.0000000000 usr/bin/hello",
            ],
            "{name}"
        );
    }
}

#[test]
#[ignore = "needs skopeo"]
fn skopeo_inspects_and_copies_every_form() {
    for (compression, _) in COMPRESSIONS {
        let (store, scratch) = (MemoryStore::new(), tempfile::tempdir().expect("made"));
        let (image, _) = image(&store, host_platform(), compression, None);
        write_all(scratch.path(), &image, &store);
        let at = |name: &str| scratch.path().join(name);
        for (from, verbatim) in [
            (reference("oci", &at("layout"), ":latest"), true),
            (reference("oci-archive", &at("oci.tar"), ":latest"), true),
            (reference("docker-archive", &at("docker.tar"), ""), false),
        ] {
            let label = run!(
                "skopeo",
                "inspect",
                "--format",
                "{{index .Labels \"org.example.label\"}} {{.Architecture}} {{.Created.Unix}}",
                from
            );
            let arch = image.platform.arch();
            assert_eq!(label, Ok(format!("<a & b> {arch} 1577836800\n")), "{from}");
            let copy = at("copy");
            run!("skopeo", "copy", "-q", from, reference("dir", &copy, "")).expect("copied");
            let manifest = fs::read(copy.join("manifest.json")).expect("there");
            assert_eq!(manifest == image.manifest.as_bytes(), verbatim, "{from}");
            let config = copy.join(image.config_digest().digest().to_hex());
            assert_eq!(fs::read(config).expect("there"), image.config.as_bytes());
        }
    }
}

#[test]
#[ignore = "needs skopeo"]
fn skopeo_copies_an_index_verbatim() {
    let (store, scratch) = (MemoryStore::new(), tempfile::tempdir().expect("made"));
    let images = ["linux/arm64", "linux/amd64"]
        .map(|platform| image(&store, platform, Compression::Zstd, None).0);
    let index = assemble_index(images.into(), &BTreeMap::new());
    let (layout, copy) = (scratch.path().join("layout"), scratch.path().join("copy"));
    let names = names(&["latest"]);
    write_oci_layout(
        &layout,
        Subject::Several(&index),
        &names,
        &Blobs(&store),
        None,
        &|_| (),
    )
    .expect("written");
    let (from, to) = (
        reference("oci", &layout, ":latest"),
        reference("oci", &copy, ":x"),
    );
    run!("skopeo", "copy", "-q", "--all", from, to).expect("copied");
    let choice = open_local(&copy)
        .expect("readable")
        .select(Some("x"))
        .expect("there");
    assert_eq!(choice.index, Some(index.digest()));
}

#[test]
#[ignore = "needs skopeo, podman and root"]
fn what_skopeo_and_podman_write_is_a_base_image() {
    let (store, scratch) = (MemoryStore::new(), tempfile::tempdir().expect("made"));
    let (image, tree) = image(&store, host_platform(), Compression::Gzip, None);
    write_all(scratch.path(), &image, &store);
    let at = |name: &str| scratch.path().join(name);
    let from = reference("oci", &at("layout"), ":latest");
    let podman = podman(scratch.path());
    load(
        &podman,
        Subject::One(&image),
        &names(&["latest"]),
        &Blobs(&store),
        scratch.path(),
        &|_| (),
    )
    .expect("loaded");
    let name = "registry.example.com/shop:latest";
    for (path, transport) in [
        ("s-oci", "oci"),
        ("s-oci.tar", "oci-archive"),
        ("s-docker.tar", "docker-archive"),
        ("p-docker.tar", "docker-archive"),
        ("p-oci.tar", "oci-archive"),
        ("p-oci", "oci-dir"),
    ] {
        let path = at(path);
        if path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"s-"))
        {
            let to = match transport {
                "docker-archive" => {
                    reference(transport, &path, ":registry.example.com/shop:latest")
                }
                _ => reference(transport, &path, ":latest"),
            };
            run!("skopeo", "copy", "-q", from, to).expect("copied");
        } else {
            let words = podman_words(scratch.path());
            let mut words: Vec<&OsStr> = words.iter().map(AsRef::as_ref).collect();
            let rest: [&OsStr; 5] = [
                "save".as_ref(),
                "--format".as_ref(),
                transport.as_ref(),
                "-o".as_ref(),
                path.as_os_str(),
            ];
            words.extend(rest);
            words.push(name.as_ref());
            run("podman", &words).expect("saved");
        }
        let local = open_local(&path).expect("readable");
        let tag = transport.starts_with("docker").then_some("latest");
        let choice = local.select(tag).expect("one image");
        let base = local
            .base(&choice.manifests[&image.platform].digest)
            .expect("an image");
        assert_eq!(
            base.config.config,
            open_local(&at("layout"))
                .and_then(|ours| ours.base(&image.manifest_digest()))
                .expect("ours")
                .config
                .config
        );
        let other = MemoryStore::new();
        let imported = import_base(&base, &local, &other, 1 << 30).expect("a tree");
        assert_eq!(
            to_listing(&other, &imported.tree).expect("listed"),
            to_listing(&store, &tree).expect("listed"),
            "{}",
            path.display()
        );
    }
}

/// Podman with a storage of its own.
fn podman(scratch: &Path) -> EngineCommand {
    let mut words = vec!["podman".into()];
    words.extend(podman_words(scratch).into_iter().map(Into::into));
    EngineCommand {
        engine: Engine::Podman,
        words,
    }
}

fn podman_words(scratch: &Path) -> Vec<String> {
    vec![
        format!("--root={}", scratch.join("podman-root").display()),
        format!("--runroot={}", scratch.join("podman-run").display()),
        "--storage-driver=vfs".into(),
        "--cgroup-manager=cgroupfs".into(),
        "--events-backend=none".into(),
    ]
}

/// An image with one static program.
fn busybox(store: &MemoryStore, compression: Compression) -> Image {
    let below = common::empty(store);
    let mut tree = TreeBuilder::new(store, Meta::root(Mode::DIRECTORY));
    let bytes = fs::read("/bin/busybox").expect("busybox-static is installed");
    let file = File {
        blob: store.put_bytes(&bytes).expect("stored"),
        size: bytes.len() as u64,
        meta: Meta::root(Mode::DIRECTORY),
    };
    let path = RelPath::from_absolute(b"/busybox").expect("a path");
    tree.insert(&path, Entry::File(file)).expect("inserted");
    for directory in ["proc", "sys", "dev", "etc", "run"] {
        let path = RelPath::new(directory.as_bytes()).expect("a path");
        tree.make_directory(&path, Meta::root(Mode::DIRECTORY))
            .expect("made");
    }
    let tree: Tree = tree.seal(store).expect("sealed");
    let own = [OwnLayer {
        created_by: "copy busybox".into(),
        layer: Some(common::layer(store, &below, &tree, compression)),
    }];
    let changes = ConfigChanges {
        entrypoint: Some(
            ["/busybox", "sh", "-c", "echo $HELLO $(id -u)"]
                .map(Into::into)
                .into(),
        ),
        env: BTreeMap::from([
            ("HELLO".into(), "hello".into()),
            ("PATH".into(), "/".into()),
        ]),
        ..ConfigChanges::default()
    };
    assemble(&ImageSpec {
        base: None,
        own: &own,
        changes: &changes,
        annotations: &BTreeMap::new(),
        platform: host_platform().parse().expect("known"),
        epoch: Epoch::DEFAULT,
    })
}

#[test]
#[ignore = "needs podman, busybox and root"]
fn podman_loads_and_runs_every_compression_under_every_tag() {
    for (compression, name) in COMPRESSIONS {
        let (store, scratch) = (MemoryStore::new(), tempfile::tempdir().expect("made"));
        let image = busybox(&store, compression);
        let command = podman(scratch.path());
        let tags = names(&["1.0", "latest"]);
        load(
            &command,
            Subject::One(&image),
            &tags,
            &Blobs(&store),
            scratch.path(),
            &|_| (),
        )
        .unwrap_or_else(|error| panic!("{name}: {error}"));
        let globals = podman_words(scratch.path());
        let words = |args: &'static [&'static str]| -> Vec<&OsStr> {
            let globals = globals.iter().map(AsRef::as_ref);
            globals.chain(args.iter().map(AsRef::as_ref)).collect()
        };
        let inspect = [
            "registry.example.com/shop:1.0",
            "registry.example.com/shop:latest",
        ];
        for reference in inspect {
            let mut words = words(&["image", "inspect", "--format", "{{.Id}} {{.Digest}}"]);
            words.push(reference.as_ref());
            assert_eq!(
                run("podman", &words),
                Ok(format!(
                    "{} {}\n",
                    image.config_digest().digest().to_hex(),
                    image.manifest_digest()
                )),
                "{name}"
            );
        }
        let printed = run_container(
            "podman",
            &words(&[
                "run",
                "--rm",
                "--network=none",
                "--cgroups=disabled",
                "--ulimit=nofile=1024:1024",
                "--ulimit=nproc=1024:1024",
                "registry.example.com/shop:1.0",
            ]),
        );
        assert_eq!(printed, Ok("hello 0\n".into()), "{name}");
        let left = fs::read_dir(scratch.path()).expect("a directory").count();
        assert_eq!(left, 2, "podman's two directories, and no archive of ours");
    }
}

#[test]
#[ignore = "needs umoci, crun, busybox and root"]
fn crun_runs_what_umoci_unpacks() {
    let (store, scratch) = (MemoryStore::new(), tempfile::tempdir().expect("made"));
    let image = busybox(&store, Compression::Gzip);
    write_all(scratch.path(), &image, &store);
    let layout = format!("{}:latest", scratch.path().join("layout").display());
    let bundle = scratch.path().join("bundle");
    run!("umoci", "unpack", "--rootless", "--image", layout, bundle).expect("unpacked");
    let config = bundle.join("config.json");
    let text = fs::read_to_string(&config).expect("there");
    fs::write(
        &config,
        text.replace("\"terminal\": true", "\"terminal\": false"),
    )
    .expect("written");
    let name = format!("immbuild-test-{}", std::process::id());
    let root = format!("--root={}", scratch.path().join("crun").display());
    let printed = run_container(
        "crun",
        &[
            root.as_ref(),
            "--cgroup-manager=disabled".as_ref(),
            "run".as_ref(),
            "-b".as_ref(),
            bundle.as_os_str(),
            name.as_ref(),
        ],
    );
    assert_eq!(printed, Ok("hello 0\n".into()));
}

#[test]
#[ignore = "needs buildah and root"]
fn buildah_builds_on_every_compression() {
    for (compression, name) in COMPRESSIONS {
        let (store, scratch) = (MemoryStore::new(), tempfile::tempdir().expect("made"));
        let (image, _) = image(&store, host_platform(), compression, None);
        write_all(scratch.path(), &image, &store);
        let from = reference("oci-archive", &scratch.path().join("oci.tar"), "");
        run!(
            "buildah",
            format!("--root={}", scratch.path().join("root").display()),
            format!("--runroot={}", scratch.path().join("run").display()),
            "--storage-driver=vfs",
            "from",
            from
        )
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn an_engine_that_is_not_there_or_refuses_says_so() {
    let (store, scratch) = (MemoryStore::new(), tempfile::tempdir().expect("made"));
    let (image, _) = image(&store, host_platform(), Compression::Gzip, None);
    let error = |engine, words: &[&str]| {
        let command = EngineCommand {
            engine,
            words: words.iter().map(Into::into).collect(),
        };
        let subject = Subject::One(&image);
        load(
            &command,
            subject,
            &names(&["a"]),
            &Blobs(&store),
            scratch.path(),
            &|_| (),
        )
        .expect_err("it does not load")
    };
    assert!(matches!(
        error(Engine::Docker, &["/does/not/exist"]),
        OutputError::NoProgram { program: "docker" }
    ));
    assert_eq!(
        error(Engine::Podman, &["sh", "-c", "echo no room >&2; exit 3"]).to_string(),
        "`podman load` failed with exit status: 3: no room"
    );
    assert_eq!(fs::read_dir(scratch.path()).expect("there").count(), 0);
}
