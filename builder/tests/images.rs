//! Images go out and come back in: every kind of output is read again, and nothing else is believed.
#![allow(clippy::disallowed_methods, reason = "tests look at directories")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use common::{host_platform, image, names};
use immbuild::compare::{
    AttributeDifference, Level, PathChange, PathDifference, Side, TreeSide, Verdict, compare_images,
};
use immbuild::epoch::Epoch;
use immbuild::hostfs::materialise::{Materialise, Purpose, Times};
use immbuild::image::verify::{Problem, verify_structure};
use immbuild::image::{BaseImage, ConfigChanges, ImageSpec, OwnLayer, assemble, assemble_index};
use immbuild::layer::{Compression, Mtimes};
use immbuild::output::{
    Blobs, Names, OutputError, Stamp, Subject, stamp, write_dir, write_docker_archive,
    write_oci_archive, write_oci_layout,
};
use immbuild::resolve::image::{
    ImportError, LocalImageError, import_base, keep_layers, open_local,
};
use immbuild_cas::canonical::Canonical;
use immbuild_cas::digest::BlobId;
use immbuild_cas::store::{BlobSource, MemoryStore, Store};
use immbuild_cas::tree::{Tree, to_listing, tree_of_listing};

const LIMIT: u64 = 1 << 30;

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

/// Names below a directory, hidden ones too.
fn names_in(path: &Path) -> BTreeSet<String> {
    fs::read_dir(path)
        .expect("a directory")
        .map(|entry| {
            let name = entry.expect("an entry").file_name();
            name.into_string().expect("UTF-8")
        })
        .collect()
}

/// Writes with `write`, reads back, and wants the same image and tree.
fn round_trip(compression: Compression, write: impl Fn(&Path, Subject<'_>, &MemoryStore)) {
    let store = MemoryStore::new();
    let (image, tree) = image(&store, host_platform(), compression, None);
    let scratch = scratch();
    let target = scratch.path().join("made/here/out");
    write(&target, Subject::One(&image), &store);
    let local = open_local(&target).expect("readable");
    let choice = local.select(None).expect("one image");
    let found = choice.manifests[&image.platform];
    assert_eq!(
        (found.digest, found.size),
        (image.manifest_digest(), image.manifest.size())
    );
    let base = local.base(&found.digest).expect("an image");
    assert_eq!(base.layers, image.layers);
    assert_eq!(base.date(), Some(Epoch::DEFAULT));
    let other = MemoryStore::new();
    let imported = import_base(&base, &local, &other, LIMIT).expect("a tree");
    assert_eq!(
        to_listing(&other, &imported.tree).expect("listed"),
        to_listing(&store, &tree).expect("listed")
    );
    assert_eq!(imported.dropped, []);
    let times = Mtimes::decode_strict(&other.read(&imported.mtimes).expect("stored"));
    let times = times.expect("canonical");
    assert!(times.iter().len() > 3);
    assert!(
        times
            .iter()
            .all(|(_, time)| time.seconds() == Epoch::DEFAULT.seconds())
    );
    keep_layers(&base, &local, &other).expect("kept");
    for layer in &base.layers {
        assert!(
            other
                .has(&BlobId::new(*layer.digest.digest()))
                .expect("asked")
        );
    }
    assert_eq!(
        names_in(target.parent().expect("one")),
        BTreeSet::from(["out".into()])
    );
}

#[test]
fn a_layout_is_read_back() {
    for compression in [Compression::Zstd, Compression::Gzip, Compression::None] {
        round_trip(compression, |path, subject, store| {
            let names = names(&["latest"]);
            write_oci_layout(path, subject, &names, &Blobs(store), None, &|_| ()).expect("written");
        });
    }
}

#[test]
fn an_oci_archive_is_read_back() {
    for compression in [Compression::Zstd, Compression::Gzip, Compression::None] {
        round_trip(compression, |path, subject, store| {
            write_oci_archive(path, subject, &names(&["latest"]), &Blobs(store), &|_| ())
                .expect("written");
        });
    }
}

#[test]
fn a_docker_archive_has_the_config_and_the_plain_layers() {
    let store = MemoryStore::new();
    let scratch = scratch();
    let target = scratch.path().join("image.tar");
    let mut digests = BTreeSet::new();
    for compression in [Compression::Zstd, Compression::Gzip, Compression::None] {
        let (image, tree) = image(&store, host_platform(), compression, None);
        let names = names(&["1", "2"]);
        write_docker_archive(
            &target,
            Subject::One(&image),
            &names,
            &Blobs(&store),
            &|_| (),
        )
        .expect("written");
        let local = open_local(&target).expect("readable");
        let choice = local.select(Some("2")).expect("that tag");
        let base = local
            .base(&choice.manifests[&image.platform].digest)
            .expect("an image");
        let diff_ids = |layers: &[immbuild::image::ImageLayer]| {
            layers.iter().map(|layer| layer.diff_id).collect::<Vec<_>>()
        };
        assert_eq!(diff_ids(&base.layers), diff_ids(&image.layers));
        digests.insert(base.manifest);
        let imported = import_base(&base, &local, &store, LIMIT).expect("a tree");
        assert_eq!(imported.tree, tree);
    }
    // The pin of a docker archive is a function of config and layers.
    assert_eq!(digests.len(), 1);
}

#[test]
fn archives_of_one_image_are_equal_bytes() {
    let scratch = scratch();
    let bytes = |name: &str| {
        let store = MemoryStore::new();
        let (image, _) = image(&store, host_platform(), Compression::Zstd, None);
        let [oci, docker] =
            ["oci", "docker"].map(|kind| scratch.path().join(format!("{name}-{kind}")));
        let names = names(&["b", "a"]);
        let subject = Subject::One(&image);
        write_oci_archive(&oci, subject, &names, &Blobs(&store), &|_| ()).expect("written");
        write_docker_archive(&docker, subject, &names, &Blobs(&store), &|_| ()).expect("written");
        (
            fs::read(oci).expect("read"),
            fs::read(docker).expect("read"),
        )
    };
    assert_eq!(bytes("one"), bytes("two"));
}

#[test]
fn several_platforms_are_one_index() {
    let store = MemoryStore::new();
    let images = ["linux/arm64", "linux/amd64"]
        .map(|platform| image(&store, platform, Compression::Zstd, None).0);
    let index = assemble_index(images.into(), &BTreeMap::new());
    let scratch = scratch();
    let target = scratch.path().join("out");
    let subject = Subject::Several(&index);
    let progress = std::cell::Cell::new(0);
    write_oci_layout(
        &target,
        subject,
        &names(&["1.0", "latest"]),
        &Blobs(&store),
        None,
        &|count| {
            progress.set(progress.get() + count);
        },
    )
    .expect("written");
    let local = open_local(&target).expect("readable");
    for tag in [
        None,
        Some("1.0"),
        Some("latest"),
        Some("registry.example.com/shop:1.0"),
    ] {
        let choice = local.select(tag).expect("an image");
        assert_eq!(choice.index, Some(index.digest()));
        assert_eq!(
            choice.available,
            BTreeSet::from(["linux/amd64".into(), "linux/arm64".into()])
        );
    }
    let shared: BTreeMap<_, _> = index
        .images
        .iter()
        .flat_map(|image| image.layers.iter().map(|layer| (layer.digest, layer.size)))
        .collect();
    assert_eq!(progress.get(), shared.values().sum::<u64>());
    assert_eq!(
        local
            .select(Some("2.0"))
            .expect_err("no such tag")
            .to_string(),
        format!(
            "`{}` has no image with the tag `2.0`; it has `1.0`, `latest`, \
             `registry.example.com/shop:1.0`, `registry.example.com/shop:latest`",
            target.display()
        )
    );
    let choice = local.select(None).expect("an image");
    let missing = "linux/s390x".parse().expect("known");
    let error = local.for_platform(&choice, missing).expect_err("missing");
    assert_eq!(
        error.to_string(),
        format!(
            "the image in `{}` is not for linux/s390x; it is for `linux/amd64`, `linux/arm64`",
            target.display()
        )
    );
    let structure = verify_structure(&local, &index.descriptor(), LIMIT);
    assert_eq!((structure.manifests, structure.layers), (2, shared.len()));
    assert!(structure.problems.is_empty(), "{:?}", structure.problems);
    assert_eq!(structure.foreign, []);
    let error = write_docker_archive(
        &scratch.path().join("d"),
        subject,
        &names(&[]),
        &Blobs(&store),
        &|_| (),
    )
    .expect_err("two platforms");
    assert_eq!(
        error.to_string(),
        "`docker-archive` holds one platform, the image has linux/amd64, linux/arm64"
    );
}

#[test]
fn a_base_image_stays_byte_for_byte_below_what_is_added() {
    let store = MemoryStore::new();
    let (below, _) = image(&store, host_platform(), Compression::Gzip, None);
    let base = BaseImage::new(
        below.manifest_digest(),
        below.manifest.as_bytes(),
        below.config.as_bytes(),
    )
    .expect("an image");
    let imported = import_base(&base, &store, &store, LIMIT).expect("a tree");
    let (above, _) = image(
        &store,
        host_platform(),
        Compression::Zstd,
        Some((&base, &imported.tree)),
    );
    assert_eq!(above.layers[..2], below.layers[..]);
    assert_eq!(above.layers.len(), 4);
    let scratch = scratch();
    let target = scratch.path().join("out.tar");
    write_docker_archive(
        &target,
        Subject::One(&above),
        &names(&[]),
        &Blobs(&store),
        &|_| (),
    )
    .expect("gzip and zstd layers in one archive");
}

#[test]
fn what_is_in_the_way_stays() {
    let store = MemoryStore::new();
    let (image, tree) = image(&store, host_platform(), Compression::None, None);
    let subject = Subject::One(&image);
    let scratch = scratch();
    let in_the_way = |result: Result<(), OutputError>| match result {
        Err(OutputError::InTheWay { .. }) => (),
        other => panic!("not in the way: {other:?}"),
    };
    let full = scratch.path().join("full");
    fs::create_dir(&full).expect("made");
    fs::write(full.join("precious"), "data").expect("written");
    let file = scratch.path().join("file");
    fs::write(&file, "data").expect("written");
    let blobs = Blobs(&store);
    let names = names(&["latest"]);
    in_the_way(write_oci_archive(&full, subject, &names, &blobs, &|_| ()));
    in_the_way(write_docker_archive(
        &full,
        subject,
        &names,
        &blobs,
        &|_| (),
    ));
    for path in [&full, &file] {
        in_the_way(write_oci_layout(
            path,
            subject,
            &names,
            &blobs,
            None,
            &|_| (),
        ));
        in_the_way(dir(path, &tree, &store, &[]).map(drop));
    }
    assert_eq!(fs::read(full.join("precious")).expect("there"), b"data");
    assert_eq!(fs::read(&file).expect("there"), b"data");
    assert_eq!(
        names_in(scratch.path()),
        BTreeSet::from(["file".into(), "full".into()])
    );
}

fn dir(
    path: &Path,
    tree: &Tree,
    store: &MemoryStore,
    written: &[Stamp],
) -> Result<Stamp, OutputError> {
    let materialise = Materialise {
        directories: store,
        blobs: store,
        times: Times {
            epoch: Epoch::DEFAULT,
            known: &|_| None,
        },
        purpose: Purpose::Output { owners: false },
        threads: std::num::NonZeroUsize::MIN,
    };
    let whole = write_dir(path, tree, &materialise, written)?;
    let stamp = whole.stamp;
    whole.publish().map(|_| stamp)
}

#[test]
fn outputs_are_replaced_whole() {
    let store = MemoryStore::new();
    let (old, _) = image(&store, "linux/amd64", Compression::None, None);
    let (new, _) = image(&store, "linux/s390x", Compression::None, None);
    let scratch = scratch();
    let blobs = Blobs(&store);
    let (layout, archive) = (
        scratch.path().join("layout"),
        scratch.path().join("archive"),
    );
    fs::create_dir(&layout).expect("an empty directory is not in the way");
    for image in [&old, &new, &new] {
        let subject = Subject::One(image);
        let names = names(&["latest"]);
        write_oci_layout(&layout, subject, &names, &blobs, None, &|_| ()).expect("written");
        write_oci_archive(&archive, subject, &names, &blobs, &|_| ()).expect("written");
        for path in [&layout, &archive] {
            let choice = open_local(path)
                .expect("readable")
                .select(None)
                .expect("one");
            assert_eq!(
                choice.manifests[&image.platform].digest,
                image.manifest_digest()
            );
        }
    }
    let expected = 2 + new.layers.len();
    assert_eq!(names_in(&layout.join("blobs/sha256")).len(), expected);
    assert_eq!(
        names_in(scratch.path()),
        BTreeSet::from(["archive".into(), "layout".into()])
    );
}

#[test]
fn a_layout_that_others_added_to_is_not_replaced() {
    let store = MemoryStore::new();
    let (image, _) = image(&store, "linux/amd64", Compression::None, None);
    let scratch = scratch();
    let layout = scratch.path().join("layout");
    let write = |written: Option<&Stamp>| {
        let names = names(&["latest"]);
        write_oci_layout(
            &layout,
            Subject::One(&image),
            &names,
            &Blobs(&store),
            written,
            &|_| (),
        )
    };
    write(None).expect("written");
    let stamp = stamp(&layout).expect("looked").expect("there");
    fs::write(layout.join("notes"), "mine").expect("written");
    assert!(matches!(write(None), Err(OutputError::InTheWay { .. })));
    write(Some(&stamp)).expect("it is the directory written last time");
    assert_eq!(names_in(&layout).len(), 3);
}

#[test]
fn a_directory_is_replaced_only_when_it_is_the_one_written_before() {
    let store = MemoryStore::new();
    let tree = |text: &str| tree_of_listing(text, &store).expect("a tree");
    let one = tree("d 0500 0:0 /a\n f 0400 0:0 /a/b \"one\"");
    let two = tree("f 4755 0:0 /c \"two\"");
    let scratch = scratch();
    let target = scratch.path().join("root");
    dir(&target, &one, &store, &[]).expect("written");
    assert_eq!(fs::read(target.join("a/b")).expect("there"), b"one");
    let meta = fs::metadata(target.join("a")).expect("there");
    assert_eq!(
        (meta.permissions().mode() & 0o7777, meta.mtime()),
        (0o500, Epoch::DEFAULT.seconds())
    );
    let written = stamp(&target).expect("looked").expect("there");
    assert!(matches!(
        dir(&target, &two, &store, &[]),
        Err(OutputError::InTheWay { .. })
    ));
    // Its stamp was known before it was there, so that who is killed then has it.
    let coming = dir(&target, &two, &store, &[written]).expect("written");
    dir(&target, &two, &store, &[written]).expect_err("that one is gone");
    dir(&target, &two, &store, &[written, coming]).expect("written");
    assert_eq!(names_in(&target), BTreeSet::from(["c".into()]));
    assert_eq!(names_in(scratch.path()), BTreeSet::from(["root".into()]));
    // Another directory under the same name is not the one that was written.
    fs::rename(&target, scratch.path().join("elsewhere")).expect("renamed");
    fs::create_dir(&target).expect("made");
    fs::write(target.join("precious"), "data").expect("written");
    let latest = stamp(&scratch.path().join("elsewhere"))
        .expect("looked")
        .expect("there");
    assert!(matches!(
        dir(&target, &one, &store, &[latest]),
        Err(OutputError::InTheWay { .. })
    ));
}

#[test]
fn a_stamp_tells_whether_anything_was_touched() {
    let store = MemoryStore::new();
    let (image, _) = image(&store, "linux/amd64", Compression::None, None);
    let scratch = scratch();
    let layout = scratch.path().join("layout");
    assert_eq!(stamp(&layout).expect("looked"), None);
    let names = Names::default();
    write_oci_layout(
        &layout,
        Subject::One(&image),
        &names,
        &Blobs(&store),
        None,
        &|_| (),
    )
    .expect("written");
    let now = || stamp(&layout).expect("looked").expect("there");
    let first = now();
    assert_eq!(first, now());
    assert_eq!(Stamp::decode_strict(&first.to_canonical()), Ok(first));
    let blob = layout
        .join("blobs/sha256")
        .join(image.manifest.digest().to_hex());
    fs::write(&blob, "other").expect("written");
    assert_ne!(first, now());
    assert!(first.is_same_object(&now()));
}

#[test]
fn a_damaged_layer_stops_an_output_and_leaves_the_old_one() {
    let store = MemoryStore::new();
    let (image, _) = image(&store, "linux/amd64", Compression::Zstd, None);
    let scratch = scratch();
    let layout = scratch.path().join("layout");
    let names = names(&["latest"]);
    write_oci_layout(
        &layout,
        Subject::One(&image),
        &names,
        &Blobs(&store),
        None,
        &|_| (),
    )
    .expect("written");
    let digest = *image.layers[1].digest.digest();
    let blob = layout.join("blobs/sha256").join(digest.to_hex());
    let mut bytes = fs::read(&blob).expect("there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&blob, &bytes).expect("written");
    let local = open_local(&layout).expect("its documents are right");
    let target = scratch.path().join("old");
    fs::write(&target, "old").expect("written");
    for result in [
        write_oci_archive(
            &target,
            Subject::One(&image),
            &names,
            &Blobs(&local),
            &|_| (),
        ),
        write_docker_archive(
            &target,
            Subject::One(&image),
            &names,
            &Blobs(&local),
            &|_| (),
        ),
    ] {
        let error = result.expect_err("a damaged layer");
        assert!(
            matches!(error, OutputError::Layer { digest: culprit, .. } | OutputError::Decompress { digest: culprit, .. } if culprit == digest),
            "{error:?}"
        );
    }
    assert_eq!(fs::read(&target).expect("there"), b"old");
    assert_eq!(names_in(scratch.path()).len(), 2);
    let base = local.base(&image.manifest_digest()).expect("documents");
    assert!(import_base(&base, &local, &store, LIMIT).is_err());
    let structure = verify_structure(&local, &image.descriptor(), LIMIT);
    assert!(
        matches!(&structure.problems[..], [(culprit, Problem::Blob(_))] if *culprit == digest),
        "{:?}",
        structure.problems
    );
    fs::remove_file(&blob).expect("removed");
    assert!(matches!(
        import_base(&base, &local, &store, LIMIT),
        Err(ImportError::Blob { .. })
    ));
}

#[test]
fn a_layer_that_is_not_its_diff_id_is_found_by_everybody_who_unpacks_it() {
    for compression in [Compression::Zstd, Compression::None] {
        let store = MemoryStore::new();
        let empty = common::empty(&store);
        let tree = tree_of_listing("f 0644 0:0 /a \"a\"", &store).expect("a tree");
        let mut layer = common::layer(&store, &empty, &tree, compression);
        let right = layer.diff_id;
        layer.diff_id = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
            .parse()
            .expect("a digest");
        let image = assemble(&ImageSpec {
            base: None,
            own: &[OwnLayer {
                created_by: "step".into(),
                layer: Some(layer),
            }],
            changes: &ConfigChanges::default(),
            annotations: &BTreeMap::new(),
            platform: "linux/amd64".parse().expect("known"),
            epoch: Epoch::DEFAULT,
        });
        for json in [&image.config, &image.manifest] {
            store.put_bytes(json.as_bytes()).expect("stored");
        }
        let structure = verify_structure(&store, &image.descriptor(), LIMIT);
        assert!(matches!(
            structure.problems[..],
            [(_, Problem::DiffId { expected, actual })] if expected == layer.diff_id && actual == right
        ));
        let base = BaseImage::new(
            image.manifest_digest(),
            image.manifest.as_bytes(),
            image.config.as_bytes(),
        )
        .expect("documents");
        assert!(matches!(
            import_base(&base, &store, &store, LIMIT),
            Err(ImportError::DiffId { actual, .. }) if actual == right
        ));
        let scratch = scratch();
        let target = scratch.path().join("image.tar");
        let subject = Subject::One(&image);
        let written = write_docker_archive(&target, subject, &names(&[]), &Blobs(&store), &|_| ());
        assert!(matches!(written, Err(OutputError::DiffId { .. })));
        assert!(!target.exists());
    }
}

#[test]
fn more_bytes_than_allowed_are_not_unpacked() {
    let store = MemoryStore::new();
    let (image, _) = image(&store, "linux/amd64", Compression::Zstd, None);
    let base = BaseImage::new(
        image.manifest_digest(),
        image.manifest.as_bytes(),
        image.config.as_bytes(),
    )
    .expect("an image");
    let error = import_base(&base, &store, &store, 4096).expect_err("too much");
    assert!(matches!(error, ImportError::Untar { .. }), "{error:?}");
}

#[test]
fn what_is_no_image_is_refused_by_name() {
    let scratch = scratch();
    let file = scratch.path().join("file");
    let error = |bytes: &[u8]| {
        fs::write(&file, bytes).expect("written");
        let error = open_local(&file).expect_err("no image");
        let source = std::error::Error::source(&error).map(ToString::to_string);
        (error.to_string(), source)
    };
    let shown = file.display();
    let archive = |why: &str| {
        (
            format!("the archive `{shown}` cannot be read"),
            Some(why.to_owned()),
        )
    };
    assert_eq!(error(b""), archive("at byte 0 there is no tar header"));
    assert_eq!(
        error(&[0x1f; 600]),
        archive("at byte 0 there is no tar header")
    );
    let mut gzip = vec![0x1f, 0x8b];
    gzip.resize(600, 1);
    assert_eq!(
        error(&gzip),
        archive("it is compressed: decompress it first")
    );
    assert_eq!(
        error(&[0; 1024]),
        (
            format!(
                "`{shown}` is no OCI layout, OCI archive or docker archive: \
                 the tar has neither `oci-layout` nor `manifest.json` in it"
            ),
            None
        )
    );
    assert!(matches!(
        open_local(scratch.path()),
        Err(LocalImageError::Unknown { .. })
    ));
    assert!(matches!(
        open_local(&scratch.path().join("absent")),
        Err(LocalImageError::Io { .. })
    ));
}

#[test]
fn an_archive_cut_short_is_refused() {
    let store = MemoryStore::new();
    let (image, _) = image(&store, "linux/amd64", Compression::Zstd, None);
    let scratch = scratch();
    let target = scratch.path().join("out");
    write_oci_archive(
        &target,
        Subject::One(&image),
        &Names::default(),
        &Blobs(&store),
        &|_| (),
    )
    .expect("written");
    let bytes = fs::read(&target).expect("there");
    // All but the zero blocks at the end, then ever less.
    fs::write(&target, &bytes[..bytes.len() - 1024]).expect("written");
    open_local(&target).expect("the zero blocks say nothing");
    for length in [bytes.len() - 1025, 2000, 700, 100] {
        fs::write(&target, &bytes[..length]).expect("written");
        assert!(
            matches!(open_local(&target), Err(LocalImageError::Archive { .. })),
            "{length}"
        );
    }
}

#[test]
fn a_layout_without_tags_needs_none_and_one_with_several_images_does() {
    let store = MemoryStore::new();
    let scratch = scratch();
    let images = [Compression::Zstd, Compression::Gzip]
        .map(|compression| image(&store, "linux/amd64", compression, None).0);
    let layouts = ["a", "b"].map(|tag| scratch.path().join(tag));
    for ((image, path), tag) in images.iter().zip(&layouts).zip(["a", "b"]) {
        let names = Names {
            name: None,
            tags: BTreeSet::from([tag.into()]),
        };
        write_oci_layout(
            path,
            Subject::One(image),
            &names,
            &Blobs(&store),
            None,
            &|_| (),
        )
        .expect("written");
    }
    // What another tool would do that adds an image to a layout. Without platforms, these are two images.
    let blobs = layouts[1].join("blobs/sha256");
    for name in names_in(&blobs) {
        fs::copy(
            blobs.join(&name),
            layouts[0].join("blobs/sha256").join(&name),
        )
        .expect("copied");
    }
    let entry = |image: &immbuild::image::Image, tag: &str| {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":{},
                "annotations":{{"org.opencontainers.image.ref.name":"{tag}"}}}}"#,
            image.manifest_digest(),
            image.manifest.size()
        )
    };
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#,
        entry(&images[0], "a"),
        entry(&images[1], "b")
    );
    fs::write(layouts[0].join("index.json"), index).expect("written");
    let local = open_local(&layouts[0]).expect("readable");
    for (image, tag) in images.iter().zip(["a", "b"]) {
        let choice = local.select(Some(tag)).expect("that tag");
        // The platform is found in the config.
        assert_eq!(
            choice.manifests[&image.platform].digest,
            image.manifest_digest()
        );
    }
    assert_eq!(
        local.select(None).expect_err("two images").to_string(),
        format!(
            "`{}` has several images: say which with `tag`; it has `a`, `b`",
            layouts[0].display()
        )
    );
}

#[test]
#[allow(clippy::too_many_lines, reason = "one story from equal to different")]
fn a_comparison_grades_and_names() {
    let store = MemoryStore::new();
    let make = |platform: &str, compression| {
        let (image, tree) = image(&store, platform, compression, None);
        let base = BaseImage::new(
            image.manifest_digest(),
            image.manifest.as_bytes(),
            image.config.as_bytes(),
        );
        (base.expect("an image"), tree)
    };
    let annotations = BTreeMap::new();
    let compare = |left: &(BaseImage, Tree), right: &(BaseImage, Tree)| {
        let side = |(image, tree): &'_ (BaseImage, Tree)| (image.clone(), tree.clone());
        let sides = [side(left), side(right)];
        let [left, right] = [0, 1].map(|number| Side {
            image: &sides[number].0,
            annotations: &annotations,
            tree: TreeSide {
                tree: &sides[number].1,
                directories: &store,
                blobs: &store,
            },
        });
        compare_images(&left, &right).expect("readable")
    };
    let zstd = make("linux/amd64", Compression::Zstd);
    let gzip = make("linux/amd64", Compression::Gzip);
    let same = compare(&zstd, &zstd);
    assert_eq!((same.verdict, same.level()), (Verdict::Identical, None));
    let packed = compare(&zstd, &gzip);
    assert_eq!(
        (packed.verdict, packed.level()),
        (Verdict::DiffIdIdentical, Some(Level::Layer))
    );
    assert!(packed.layers.iter().all(|layer| layer.same_diff_id));
    let platform = compare(&zstd, &make("linux/s390x", Compression::Zstd));
    assert_eq!(
        (platform.verdict, platform.level()),
        (Verdict::Different, Some(Level::Config))
    );
    assert_eq!(platform.fields[0].field, "architecture");
    assert_eq!(platform.fields[0].left.as_deref(), Some("\"amd64\""));
    let mut reordered = zstd.clone();
    reordered.0.manifest = gzip.0.manifest;
    reordered.0.layers[0].diff_id = gzip.0.layers[1].diff_id;
    let tar = compare(&zstd, &reordered);
    assert_eq!(
        (tar.verdict, tar.level()),
        (Verdict::TreeIdentical, Some(Level::Layer))
    );
    let mut changed = gzip.clone();
    changed.1 = tree_of_listing(
        "d 1777 0:0 /tmp
         d 0755 0:0 /usr/bin
         f 0700 0:0 /usr/bin/hello \"#!/bin/sh\\necho 2026-11-21\\n\"
         d 0755 0:0 /etc
         f 0640 10:20 /etc/conf \"listen = 8080\\n\"
         f 0640 10:20 /etc/conf.link \"listen = 8080\\n\"
         f 0644 0:0 /bin \"\"
         f 0644 0:0 /new \"\"",
        &store,
    )
    .expect("a tree");
    let tree = compare(&zstd, &changed);
    assert_eq!(tree.verdict, Verdict::Different);
    let [bin, conf, link, new, hello] = &tree.paths[..] else {
        panic!("{:#?}", tree.paths);
    };
    assert_eq!(
        bin,
        &PathDifference {
            path: common::path("/bin"),
            change: PathChange::Kind {
                left: "a symbolic link",
                right: "a file"
            },
        }
    );
    for (difference, path) in [(conf, "/etc/conf"), (link, "/etc/conf.link")] {
        assert_eq!(
            difference,
            &PathDifference {
                path: common::path(path),
                change: PathChange::Attributes(vec![AttributeDifference::Link {
                    left: Some(common::path("/etc/conf")),
                    right: None,
                }]),
            }
        );
    }
    assert_eq!(
        new,
        &PathDifference {
            path: common::path("/new"),
            change: PathChange::OnlyRight
        }
    );
    let PathChange::Attributes(attributes) = &hello.change else {
        panic!("{hello:?}");
    };
    assert!(matches!(
        &attributes[..],
        [
            AttributeDifference::Mode { .. },
            AttributeDifference::Content { .. }
        ]
    ));
}

/// An archive with these members, written by GNU tar.
fn tar(at: &Path, members: &[(&str, &[u8])]) -> std::path::PathBuf {
    let (files, archive) = (at.join("files"), at.join("hand-made.tar"));
    for (name, bytes) in members {
        let path = files.join(name);
        fs::create_dir_all(path.parent().expect("one")).expect("made");
        fs::write(path, bytes).expect("written");
    }
    let status = std::process::Command::new("tar")
        .arg("-cf")
        .arg(&archive)
        .arg("-C")
        .arg(&files)
        .arg(".")
        .status()
        .expect("tar is installed");
    assert!(status.success());
    archive
}

#[test]
fn a_docker_archive_that_names_what_it_does_not_have_is_refused() {
    let scratch = scratch();
    let diff_id = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#
    );
    let manifest = br#"[{"Config":"c.json","RepoTags":null,"Layers":["../../etc/passwd"]}]"#;
    let archive = tar(
        scratch.path(),
        &[("manifest.json", manifest), ("c.json", config.as_bytes())],
    );
    assert_eq!(
        open_local(&archive).expect_err("no layer").to_string(),
        format!(
            "`{}` has no member `../../etc/passwd`, which its `manifest.json` names",
            archive.display()
        )
    );
}

#[test]
fn a_docker_archives_layer_that_is_not_its_diff_id_is_found_when_it_is_read() {
    let scratch = scratch();
    let diff_id = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#
    );
    let archive = tar(
        scratch.path(),
        &[
            (
                "manifest.json",
                br#"[{"Config":"c.json","RepoTags":["a:b"],"Layers":["l/layer.tar"]}]"#,
            ),
            ("c.json", config.as_bytes()),
            ("l/layer.tar", &[0; 1024]),
        ],
    );
    let local = open_local(&archive).expect("its documents are right");
    let choice = local.select(Some("b")).expect("that tag");
    let manifest = local
        .for_platform(&choice, "linux/amd64".parse().expect("known"))
        .expect("that platform");
    let base = local.base(&manifest.digest).expect("an image");
    let store = MemoryStore::new();
    assert!(import_base(&base, &local, &store, LIMIT).is_err());
    assert!(matches!(
        keep_layers(&base, &local, &store),
        Err(ImportError::Store(_) | ImportError::Blob { .. })
    ));
}

#[test]
fn a_document_of_a_layout_that_was_changed_is_refused() {
    let store = MemoryStore::new();
    let (image, _) = image(&store, "linux/amd64", Compression::None, None);
    let scratch = scratch();
    let layout = scratch.path().join("layout");
    let names = Names::default();
    write_oci_layout(
        &layout,
        Subject::One(&image),
        &names,
        &Blobs(&store),
        None,
        &|_| (),
    )
    .expect("written");
    for digest in [image.config.digest(), image.manifest.digest()] {
        let blob = layout.join("blobs/sha256").join(digest.to_hex());
        let text = fs::read_to_string(&blob).expect("there");
        fs::write(&blob, text.replace("linux", "plan9").replace("tar", "TAR")).expect("written");
        let local = open_local(&layout).expect("the index is right");
        let error = local.base(&image.manifest_digest()).expect_err("changed");
        assert_eq!(
            error.to_string(),
            format!(
                "a part of the image in `{}` was changed: it is not {digest}",
                layout.display()
            )
        );
        fs::write(&blob, text).expect("written");
    }
}

#[test]
fn what_a_killed_process_left_beside_an_output_is_removed() {
    let store = MemoryStore::new();
    let (image, _) = image(&store, "linux/amd64", Compression::None, None);
    let scratch = scratch();
    let layout = scratch.path().join("layout");
    let (dead, alive) = (
        scratch.path().join(".layout.immbuild-new-1-0"),
        scratch.path().join(".layout.immbuild-new-2-0"),
    );
    let long_ago = std::time::SystemTime::UNIX_EPOCH;
    for path in [&dead, &alive] {
        fs::create_dir_all(path.join("blobs")).expect("made");
        let directory = fs::File::open(path).expect("opened");
        directory.set_modified(long_ago).expect("set");
    }
    let lock = fs::File::open(&alive).expect("opened");
    lock.lock_shared().expect("locked");
    write_oci_layout(
        &layout,
        Subject::One(&image),
        &Names::default(),
        &Blobs(&store),
        None,
        &|_| (),
    )
    .expect("written");
    assert_eq!(
        names_in(scratch.path()),
        BTreeSet::from([".layout.immbuild-new-2-0".into(), "layout".into()])
    );
}

#[test]
#[ignore = "needs root, to mount a small file system"]
fn a_full_disk_leaves_what_was_there() {
    let store = MemoryStore::new();
    let (image, tree) = image(&store, "linux/amd64", Compression::None, None);
    let scratch = scratch();
    let mount = |words: &[&str]| {
        let status = std::process::Command::new(words[0])
            .args(&words[1..])
            .arg(scratch.path())
            .status()
            .expect("installed");
        assert!(status.success(), "{words:?}");
    };
    mount(&["mount", "-t", "tmpfs", "-o", "size=16k", "none"]);
    let (archive, layout) = (
        scratch.path().join("archive"),
        scratch.path().join("layout"),
    );
    fs::write(&archive, "old").expect("written");
    let subject = Subject::One(&image);
    let names = names(&["latest"]);
    let blobs = Blobs(&store);
    let errors = [
        write_oci_archive(&archive, subject, &names, &blobs, &|_| ()),
        write_docker_archive(&archive, subject, &names, &blobs, &|_| ()),
        write_oci_layout(&layout, subject, &names, &blobs, None, &|_| ()),
        dir(&layout, &tree, &store, &[]).map(drop),
    ];
    let left = names_in(scratch.path());
    let old = fs::read(&archive);
    mount(&["umount"]);
    for error in &errors[..3] {
        assert!(
            matches!(error, Err(OutputError::Io { source, .. }) if source.kind() == std::io::ErrorKind::StorageFull),
            "{error:?}"
        );
    }
    assert_eq!(old.expect("there"), b"old");
    assert!(
        left.is_subset(&BTreeSet::from(["archive".into(), "layout".into()])),
        "{left:?}"
    );
    assert!(!left.contains("layout") || errors[3].is_ok());
}
