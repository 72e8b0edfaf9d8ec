//! Builds that are interrupted, killed, run beside each other, or find a damaged store.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use golden_tests::lab::{Lab, nothing_left_running, shell_spec};
use golden_tests::machine::run;
use rustix::process::Signal;

const OUTPUT: [&str; 3] = ["build", "--output", "kind=oci-archive,file=image.tar"];

#[test]
fn a_signal_ends_a_step_and_everything_it_started() {
    for (signal, exit, message) in [
        (Signal::INT, 130, "error: interrupted"),
        (Signal::TERM, 143, "error: terminated"),
    ] {
        let lab = Lab::with_shell(
            "{ shell = \"trap : INT TERM; busybox sleep 86402 & echo now; while true; do busybox sleep 1; done\" },",
            "",
        );
        let mut running = lab.start(&OUTPUT);
        running.wait_for("now");
        let start = Instant::now();
        running.signal(signal);
        running.wait().refused_with(exit, &[message]);
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{:?}",
            start.elapsed()
        );
        let left = run("ps", &["-e", "-o", "args"]).expect("ps lists processes");
        assert!(!left.contains("sleep 86402"), "{left}");
        // And the next build sees nothing of it.
        let steps = "{ shell = \"echo a > /a\" },";
        lab.write("spec.toml", shell_spec(steps, ""));
        let clean = Lab::with_shell(steps, "");
        assert_eq!(lab.run(&OUTPUT).digest(), clean.run(&OUTPUT).digest());
    }
}

/// A spec with these steps and every kind of output.
fn every_output(steps: &str) -> String {
    shell_spec(steps, "source.data.path = \"data\"")
        + r#"
[[output]]
kind = "oci-archive"
file = "out/image.tar"

[[output]]
kind = "oci-layout"
dir = "out/layout"

[[output]]
kind = "docker-archive"
file = "out/docker.tar"

[[output]]
kind = "dir"
dir = "out/root"
"#
}

/// Files of several sizes whose bytes do not compress, always the same ones.
fn write_data(lab: &Lab) {
    let mut state = 1_u64;
    for number in 0..150 {
        let length = if number % 50 == 0 { 1 << 20 } else { 2000 };
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()
        })
        .flatten()
        .take(length)
        .collect();
        lab.write(&format!("data/{}/{number}", number % 7), bytes);
    }
}

/// As if it had been made some time ago: what is new may be that of a build that runs.
fn make_old(directory: &Path) {
    let time = std::time::SystemTime::now() - Duration::from_secs(60);
    fs::File::open(directory)
        .and_then(|file| file.set_modified(time))
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
}

/// What is at one output and below it.
fn at(listing: &BTreeMap<String, String>, output: &str) -> BTreeMap<String, String> {
    let below = format!("{output}/");
    listing
        .iter()
        .filter(|(path, _)| *path == output || path.starts_with(&below))
        .map(|(path, what)| (path.clone(), what.clone()))
        .collect()
}

/// Who is killed between the two says nothing afterwards of what it has put there.
#[test]
fn a_directory_is_known_again_when_nothing_could_be_noted_of_it() {
    let spec = |text: &str| every_output(&format!("{{ write = \"/text\", text = \"{text}\" }},"));
    let lab = Lab::with_shell("", "");
    write_data(&lab);
    let noted = lab.store.join("records/written");
    let saved = lab.beside("saved");
    let build = |text: &str| {
        lab.write("spec.toml", spec(text));
        lab.run(&["build"])
    };
    build("one").digest();
    run(
        "cp",
        &[
            "-a",
            &noted.display().to_string(),
            &saved.display().to_string(),
        ],
    )
    .expect("copied");
    build("two").digest();
    fs::remove_dir_all(&noted).expect("removed");
    fs::rename(&saved, &noted).expect("as it was before");
    build("three").digest();
    assert_eq!(lab.read("out/root/text"), b"three");
    // The control: what somebody else puts there stays.
    fs::remove_dir_all(lab.file("out/root")).expect("removed");
    lab.write("out/root/precious", "data");
    build("three").refused_with(9, &["something that was not written by the last build"]);
    assert_eq!(lab.read("out/root/precious"), b"data");
}

#[test]
fn a_build_that_is_killed_at_any_moment_loses_nothing() {
    // The new image has all the data, which the old build did not read: every phase has something to do.
    let new_spec = every_output(
        "{ copy = \"data\", to = \"/data\" },\n  { shell = \"echo new > /text; busybox sleep 0.1\" },",
    );
    let old_spec = every_output("{ write = \"/text\", text = \"old\" },");
    let old_lab = || {
        let lab = Lab::with_shell("", "");
        write_data(&lab);
        lab.write("spec.toml", &old_spec);
        lab.run(&["build"]).digest();
        let old = lab.listing();
        lab.write("spec.toml", &new_spec);
        (lab, old)
    };
    let (reference, _) = old_lab();
    let start = Instant::now();
    let digest = reference.run(&["build"]).digest();
    let whole = start.elapsed();
    let new = reference.listing();

    let moments = 8;
    let mut killed = 0;
    for moment in 0..=moments {
        let (lab, old) = old_lab();
        // A second time where the first one left it.
        for round in 0..2 {
            let running = lab.start(&["build"]);
            std::thread::sleep(whole * moment / moments);
            killed += u32::from(running.kill());
            nothing_left_running(&lab);
            let found = lab.listing();
            for output in ["out/image.tar", "out/layout", "out/docker.tar", "out/root"] {
                let found = at(&found, output);
                assert!(
                    found == at(&old, output) || found == at(&new, output),
                    "{output} is neither the old nor the new one after {moment}/{moments}, round {round}: {found:#?}"
                );
            }
        }
        assert_eq!(
            lab.run(&["build"]).digest(),
            digest,
            "after {moment}/{moments}"
        );
        // A directory that was being written, or the one it replaced, may still lie beside its output.
        let (left, outputs): (BTreeMap<_, _>, BTreeMap<_, _>) = lab
            .listing()
            .into_iter()
            .partition(|(path, _)| path.contains(".immbuild-new-"));
        assert!(outputs == new, "after {moment}/{moments}");
        if left.is_empty() {
            continue;
        }
        for (path, _) in left
            .iter()
            .filter(|(path, _)| path.matches('/').count() == 1)
        {
            make_old(&lab.file(path));
        }
        lab.write("spec.toml", &old_spec);
        lab.run(&["build"]).digest();
        assert!(
            lab.listing() == old,
            "it goes when the output is written again"
        );
    }
    assert!(
        killed > moments,
        "only {killed} builds were killed before their end"
    );
}

#[test]
fn a_build_that_is_interrupted_at_any_moment_tidies_up() {
    let data = || {
        let lab = Lab::with_shell("", "");
        write_data(&lab);
        lab.write(
            "spec.toml",
            every_output(
                "{ copy = \"data\", to = \"/data\" },\n  { shell = \"echo new > /text\" },",
            ),
        );
        lab
    };
    let reference = data();
    let start = Instant::now();
    let digest = reference.run(&["build"]).digest();
    let whole = start.elapsed();
    let moments = 8;
    let mut interrupted = 0;
    // Every moment once; and again on a machine that is so busy that few were hit.
    for (tried, moment) in (0..4 * moments).map(|tried| (tried, tried % moments)) {
        if tried >= moments && interrupted > 2 {
            break;
        }
        let lab = data();
        fs::create_dir(lab.file("out")).expect("it can be made");
        let running = lab.start(&["build"]);
        std::thread::sleep(whole * moment / moments);
        running.signal(Signal::INT);
        let ended = running.wait();
        let what = format!("{moment}/{moments}: {}: {}", ended.status(), ended.said());
        if ended.status().success() {
            assert_eq!(ended.digest(), digest, "{what}");
        } else if ended.status().code() == Some(130) {
            interrupted += 1;
            assert!(ended.said().ends_with("error: interrupted\n"), "{what}");
            // Outputs that were done are there, none is there by half.
            let whole = reference.listing();
            for (path, content) in lab.listing() {
                assert_eq!(whole.get(&path), Some(&content), "{path}: {what}");
            }
        } else {
            // Before anybody listens the signal does what it always does.
            assert_eq!(ended.status().signal(), Some(2), "{what}");
        }
        nothing_left_running(&lab);
        assert_eq!(lab.run(&["build"]).digest(), digest);
        assert!(lab.listing() == reference.listing(), "{what}");
    }
    assert!(
        interrupted > 2,
        "only {interrupted} builds were interrupted"
    );
}

#[test]
fn builds_beside_each_other_on_one_store_do_not_disturb_each_other() {
    let spec = |number: u32| {
        shell_spec(
            &format!(
                "{{ shell = \"echo a > /a; busybox sleep 0.2\" }},\n  {{ shell = \"echo {number} > /b\" }},"
            ),
            "",
        )
    };
    let alone: Vec<String> = (0..2)
        .map(|number| {
            let lab = Lab::with_shell("", "");
            lab.write("spec.toml", spec(number));
            lab.run(&["build"]).digest()
        })
        .collect();
    let lab = Lab::with_shell("", "");
    for number in 0..2 {
        lab.write(&format!("spec-{number}.toml"), spec(number));
    }
    for _ in 0..3 {
        // Twice each, all at the same output too.
        let running: Vec<_> = (0..6)
            .map(|number| {
                let name = format!("spec-{}.toml", number % 2);
                let output = format!("kind=oci-layout,dir=layout-{}", number % 2);
                (
                    number % 2,
                    lab.start(&["build", &name, "--rerun", "--output", &output]),
                )
            })
            .collect();
        for (number, running) in running {
            assert_eq!(running.wait().digest(), alone[number]);
        }
    }
    let names: Vec<String> = lab
        .listing()
        .into_keys()
        .filter(|name| !name.contains('/'))
        .collect();
    assert_eq!(
        names,
        [
            "busybox",
            "layout-0",
            "layout-1",
            "spec-0.toml",
            "spec-1.toml",
            "spec.toml"
        ]
    );
}

#[test]
fn fsck_finds_damage_and_the_next_build_makes_it_good() {
    let lab = Lab::with_shell("{ shell = \"echo a > /a\" },", "");
    let digest = lab.run(&OUTPUT).digest();
    assert!(lab.run(&["cache", "fsck"]).status().success());
    let blob = objects(&lab.store)
        .into_iter()
        .find(|path| path.starts_with("blobs"));
    let blob = lab
        .store
        .join(blob.expect("a layer of a megabyte is a blob"));
    let mut bytes = fs::read(&blob).expect("it can be read");
    bytes[9] ^= 1;
    fs::remove_file(&blob)
        .and_then(|()| fs::write(&blob, &bytes))
        .expect("root may write");
    assert_eq!(lab.run(&["cache", "fsck"]).status().code(), Some(9));
    assert!(
        lab.run(&["cache", "fsck"]).status().success(),
        "it was set aside"
    );
    fs::remove_file(lab.file("image.tar")).expect("it is there");
    assert_eq!(lab.run(&OUTPUT).digest(), digest);
}

/// Every file that holds what was computed.
fn objects(store: &Path) -> Vec<std::path::PathBuf> {
    ["blobs", "packs", "records", "roots"]
        .iter()
        .flat_map(|name| walkdir::WalkDir::new(store.join(name)).sort_by_file_name())
        .map(|entry| entry.expect("it can be read"))
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| {
            entry
                .path()
                .strip_prefix(store)
                .expect("it is below")
                .to_owned()
        })
        .collect()
}

#[test]
fn a_damaged_object_is_made_anew_and_never_used() {
    let steps = "{ shell = \"busybox head -c 300000 /bin/busybox > /part; echo a > /a\" },\n  { copy = \"data\", to = \"/data\" },";
    let more = "\n  { shell = \"echo b > /b\" },";
    let rest = "source.data.path = \"data\"";
    let new_lab = || {
        let lab = Lab::with_shell(steps, rest);
        lab.write("data/a", vec![7; 50_000]);
        lab.write("data/b", "b");
        lab
    };
    let mut lab = new_lab();
    let same = lab.run(&OUTPUT).digest();
    let image = lab.read("image.tar");
    let extended = new_lab();
    extended.write("spec.toml", shell_spec(&(steps.to_owned() + more), rest));
    let other = extended.run(&OUTPUT).digest();

    let good = lab.store.clone();
    let objects = objects(&good);
    assert!(objects.len() > 10, "{objects:?}");
    let copy = |from: &Path, to: &Path| {
        let [from, to] = [from, to].map(|path| path.display().to_string());
        run("cp", &["-a", &from, &to]).expect("cp copies");
    };
    for object in &objects {
        for damage in ["flipped", "cut"] {
            lab.store = lab.beside("damaged");
            copy(&good, &lab.store);
            let path = lab.store.join(object);
            let mut bytes = fs::read(&path).expect("it can be read");
            if bytes.is_empty() {
                continue;
            }
            let middle = bytes.len() / 2;
            if damage == "flipped" {
                bytes[middle] ^= 0x10;
            } else {
                bytes.truncate(middle);
            }
            // As what writes to the disk beside the file system would: modes do not stop it.
            fs::remove_file(&path)
                .and_then(|()| fs::write(&path, &bytes))
                .expect("root may write");
            let what = format!("{} {damage}", object.display());
            fs::remove_file(lab.file("image.tar")).expect("it is there");
            for (spec, wanted) in [(steps.to_owned(), &same), (steps.to_owned() + more, &other)] {
                lab.write("spec.toml", shell_spec(&spec, rest));
                assert_eq!(lab.run(&OUTPUT).digest(), *wanted, "{what}");
                if *wanted == same {
                    assert!(
                        lab.read("image.tar") == image,
                        "{what}: other bytes were written"
                    );
                }
            }
            fs::remove_dir_all(&lab.store).expect("it can be removed");
        }
    }
}

/// Blocks of the layer before a change are taken over, unless they are damaged: then they are made again.
#[test]
fn a_damaged_layer_lends_no_block_to_the_next_one() {
    for compression in ["zstd", "gzip", "none"] {
        let spec = format!(
            "immbuild = 1\nsource.data.path = \"data\"\n\n[image]\ncompression = \"{compression}\"\n\
             steps = [{{ copy = \"data\", to = \"/\" }}]\n"
        );
        let mut lab = Lab::new(&spec);
        let mut noise = 1_u32;
        let mut file = |length: usize| -> Vec<u8> {
            let bytes = std::iter::repeat_with(|| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                noise.to_le_bytes()[3]
            });
            bytes.take(length).collect()
        };
        for name in ["a", "b", "c"] {
            lab.write(&format!("data/{name}"), file(3 << 20));
        }
        lab.run(&OUTPUT).digest();
        let layers = objects(&lab.store);
        let layer = layers.iter().find(|path| path.starts_with("blobs"));
        let path = lab
            .store
            .join(layer.expect("the layer is a file of its own"));

        lab.write("data/d", "new");
        let fresh = lab.beside("fresh");
        let store = std::mem::replace(&mut lab.store, fresh);
        let wanted = lab.run(&OUTPUT).digest();
        lab.store = store;

        let mut bytes = fs::read(&path).expect("it can be read");
        bytes[4 << 20] ^= 1;
        fs::remove_file(&path)
            .and_then(|()| fs::write(&path, &bytes))
            .expect("root may write");
        assert_eq!(lab.run(&OUTPUT).digest(), wanted, "{compression}");
    }
}
