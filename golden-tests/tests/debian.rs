//! Real packages, from the machine's own archive, beside what apt and dpkg make of them.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use golden_tests::debs::{Deb, Reference, dpkg_query, lock, reference};
use golden_tests::lab::Lab;
use golden_tests::machine::{Mounted, User, run};

const BUILD: [&str; 4] = [
    "build",
    "--locked",
    "--output",
    "kind=oci-layout,dir=layout",
];

fn spec(packages: &str, configure: &str, rest: &str) -> String {
    format!(
        "immbuild = 1\n\n[source.os]\ndebian = \"bookworm\"\npackages = [{packages}]\nconfigure = \"{configure}\"\n\n\
         [image]\nfrom = \"os\"\ncompression = \"gzip\"\n{rest}\n"
    )
}

fn lab(packages: &str, configure: &str, rest: &str, reference: &Reference) -> Lab {
    let lab = Lab::new(&spec(packages, configure, rest));
    lock(&lab, &reference.packages).expect("the packages can be locked");
    lab
}

/// Builds, and unpacks what was built with a program that is not ours.
fn built(lab: &Lab) -> (String, PathBuf) {
    let digest = lab.run(&BUILD).digest();
    let bundle = lab.beside("bundle");
    let _ = std::fs::remove_dir_all(&bundle);
    let image = format!("{}:latest", lab.file("layout").display());
    let shown = bundle.display().to_string();
    run("umoci", &["unpack", "--image", &image, &shown]).expect("umoci unpacks it");
    (digest, bundle.join("rootfs"))
}

/// A file as a line: what is compared.
fn described(root: &Path) -> BTreeMap<String, String> {
    walkdir::WalkDir::new(root)
        .into_iter()
        .map(|entry| {
            let entry = entry.expect("a root can be read");
            let path = entry.path();
            let below = path.strip_prefix(root).expect("below the root");
            let meta = entry.metadata().expect("it is there");
            let content = if meta.is_symlink() {
                format!("-> {}", std::fs::read_link(path).expect("a link").display())
            } else if meta.is_file() {
                let bytes = std::fs::read(path).expect("a file");
                immbuild_cas::digest::Digest::of(&bytes).to_string()
            } else {
                String::new()
            };
            let mode = if meta.is_symlink() { 0 } else { meta.mode() };
            let line = format!("{mode:o} {}:{} {content}", meta.uid(), meta.gid());
            (format!("/{}", below.display()), line)
        })
        .collect()
}

fn differences(ours: &Path, theirs: &Path) -> BTreeSet<String> {
    let (ours, theirs) = (described(ours), described(theirs));
    let mut all = BTreeSet::new();
    for (path, line) in &ours {
        let _ = match theirs.get(path) {
            None => all.insert(format!("+ {path}")),
            Some(other) if other != line => {
                all.insert(format!("! {path}\n    {line}\n    {other}"))
            }
            Some(_) => false,
        };
    }
    for path in theirs.keys().filter(|path| !ours.contains_key(*path)) {
        all.insert(format!("- {path}"));
    }
    all
}

/// What an installation by apt leaves and one by us does not: files of apt, of the host, and devices.
const THEIRS: [&str; 11] = [
    "/dev/",
    "/etc/apt/",
    "/etc/fstab",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/var/cache/apt",
    "/var/lib/apt",
    "/var/lib/dpkg/arch",
    "/var/lib/dpkg/cmethopt",
    "/var/log/apt",
    "/var/log/bootstrap.log",
];

/// Logs and a cache, which mmdebstrap deletes and we make identical; a file that dselect reads.
const OURS: [&str; 4] = [
    "/var/cache/ldconfig/aux-cache",
    "/var/lib/dpkg/available",
    "/var/log/alternatives.log",
    "/var/log/dpkg.log",
];

/// What is written in the order in which packages were configured.
const OTHERS: [&str; 4] = [
    "/var/cache/debconf/config.dat",
    "/var/cache/debconf/config.dat-old",
    "/var/cache/debconf/templates.dat-old",
    "/var/lib/dpkg/status-old",
];

/// The lines of a difference that nobody has explained.
fn unexplained(ours: &Path, theirs: &Path, also: &[&str]) -> Vec<String> {
    differences(ours, theirs)
        .into_iter()
        .filter(|line| {
            let (kind, rest) = line.split_at(2);
            let path = rest.lines().next().unwrap_or_default();
            let is_explained = match kind {
                "- " => THEIRS.iter().any(|known| path.starts_with(known)),
                "+ " => OURS.contains(&path),
                // A compiled file holds the time of its source, which here is the epoch.
                _ => OTHERS.contains(&path) || path.contains("/__pycache__/"),
            };
            !is_explained && !also.contains(&path)
        })
        .collect()
}

const LISTED: &str = "${Package} ${Version} ${Architecture} ${Status}\n";

fn listed(root: &Path) -> String {
    dpkg_query(root, LISTED).expect("dpkg reads it")
}

fn as_apt(name: &str) {
    let reference = reference(name, &[name]).expect("mmdebstrap works");
    let lab = lab(&format!("\"{name}\""), "scripts", "", &reference);
    let (_, root) = built(&lab);
    assert_eq!(
        unexplained(&root, &reference.root, &[]),
        Vec::<String>::new()
    );
    assert_eq!(listed(&root), listed(&reference.root));
}

#[test]
fn scripts_make_of_nginx_what_apt_makes() {
    as_apt("nginx-light");
}

#[test]
fn scripts_make_of_python_what_apt_makes() {
    as_apt("python3-minimal");
}

/// The layers of an image by digest, in order.
fn layers(lab: &Lab) -> Vec<String> {
    let read = |path: PathBuf| -> serde_json::Value {
        let bytes =
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_slice(&bytes).expect("JSON")
    };
    let layout = lab.file("layout");
    let blob = |digest: &serde_json::Value| {
        let digest = digest
            .as_str()
            .expect("a digest")
            .trim_start_matches("sha256:");
        read(layout.join("blobs/sha256").join(digest))
    };
    let index = read(layout.join("index.json"));
    let manifest = blob(&index["manifests"][0]["digest"]);
    let layers = manifest["layers"].as_array().expect("layers");
    layers
        .iter()
        .map(|layer| layer["digest"].to_string())
        .collect()
}

#[test]
fn everybody_gets_the_same_from_scripts() {
    let reference = reference("nginx-light", &["nginx-light"]).expect("mmdebstrap works");
    let digests = [User::Root, User::Plain].map(|user| {
        let lab = lab("\"nginx-light\"", "scripts", "", &reference);
        lab.open_to_all();
        let id = user.id().expect("a user").to_string();
        let store = lab.store.display().to_string();
        run("chown", &["-R", &id, &store]).expect("root may");
        lab.run_as(user, &BUILD).digest()
    });
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn packages_share_layers_whatever_else_is_installed() {
    let nginx = reference("nginx-light", &["nginx-light"]).expect("mmdebstrap works");
    let python = reference("python3-minimal", &["python3-minimal"]).expect("mmdebstrap works");
    let per_package = "layers = \"per-package\"\nmax-layers = 8";
    let cut = |reference: &Reference, rest: &str| {
        let lab = lab("\"any\"", "none", rest, reference);
        let (_, root) = built(&lab);
        (layers(&lab), described(&root))
    };
    let (many, root) = cut(&nginx, per_package);
    // One for what is essential, one for what is left, and as many groups of six as have somebody.
    assert!((3..=8).contains(&many.len()), "{many:?}");
    let (one, whole) = cut(&nginx, "layers = \"single\"");
    assert_eq!(one.len(), 1);
    assert_eq!(root, whole, "however it is cut, it is one root");
    let (others, _) = cut(&python, per_package);
    assert_eq!(many[0], others[0], "what is essential is one layer in both");
    assert_ne!(many.last(), others.last());
}

/// A spec whose lock comes from the machine's own archive.
fn locked(packages: &str, configure: &str, rest: &str) -> Lab {
    let lab = Lab::new(&spec(packages, configure, rest));
    let ended = lab.run(&["lock"]);
    assert!(ended.output.status.success(), "{}", ended.said());
    lab
}

#[test]
fn python_works_without_scripts() {
    let run = "steps = [{ run = [\"/usr/bin/python3\", \"-c\", \"import ssl, sys; sys.exit(ssl is None)\"] }]";
    let lab = locked("\"python3-minimal\"", "none", run);
    let (_, root) = built(&lab);
    let names: BTreeSet<String> = listed(&root).lines().map(str::to_owned).collect();
    assert!(
        names
            .iter()
            .all(|line| line.ends_with("install ok installed")),
        "{names:?}"
    );
    let text = String::from_utf8(lab.read("spec.lock")).expect("text");
    assert_eq!(text.matches("[[source.os.package]]").count(), names.len());
    for form in ["spdx", "cyclonedx"] {
        let ended = lab.run(&["sbom", "--format", form]);
        assert!(ended.output.status.success(), "{}", ended.said());
        let bill = String::from_utf8_lossy(&ended.output.stdout).into_owned();
        for line in &names {
            let words: Vec<&str> = line.split(' ').collect();
            let version = words[1].replace('+', "%2B");
            let url = format!(
                "pkg:deb/debian/{}@{version}?arch={}",
                words[0].replace('+', "%2B"),
                words[2]
            );
            assert!(bill.contains(&url), "{url}");
        }
        let again = lab.run(&["sbom", "--format", form]);
        assert_eq!(again.output.stdout, ended.output.stdout);
    }
}

#[test]
fn nginx_takes_its_configuration_without_scripts() {
    let rest = "steps = [{ run = [\"/usr/sbin/nginx\", \"-t\"] }]\n\n\
                [source.os.fixups]\naccounts = [\"www-data\"]";
    let lab = locked("\"nginx-light\"", "none", rest);
    let (_, root) = built(&lab);
    let described = described(&root);
    assert_eq!(
        described["/var/log/nginx/access.log"],
        format!("100640 33:4 {EMPTY}")
    );
    assert!(described.contains_key("/etc/nginx/sites-enabled/default"));
}

/// The digest of nothing.
const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn packages_go_onto_a_root_that_has_some() {
    let text = "immbuild = 1\n\n\
        [source.os]\ndebian = \"bookworm\"\npackages = [\"python3-minimal\"]\n\n\
        [source.more]\ndebian = \"bookworm\"\npackages = [\"nginx-light\"]\n\n\
        [image]\nfrom = \"os\"\ncompression = \"gzip\"\nlayers = \"per-package\"\nsteps = [\n  \
        { install = \"more\" },\n  { run = [\"nginx\", \"-t\"] },\n  \
        { run = [\"python3\", \"-c\", \"import ssl\"] },\n]\n";
    let lab = Lab::new(text);
    let ended = lab.run(&["lock"]);
    assert!(ended.output.status.success(), "{}", ended.said());
    let (_, root) = built(&lab);
    let found = listed(&root);
    for name in ["python3-minimal", "nginx-light", "dpkg", "libc6"] {
        let lines = found
            .lines()
            .filter(|line| line.split(' ').next() == Some(name));
        assert_eq!(lines.count(), 1, "{found}");
    }
    assert!(
        found
            .lines()
            .all(|line| line.ends_with("install ok installed")),
        "{found}"
    );
    // Nobody has the file twice, and everybody's files are there.
    run("dpkg", &[&format!("--root={}", root.display()), "--audit"])
        .expect("dpkg has no complaint");
}

/// Ten packages of 16 MB, 60 MB when they are unpacked, in a mirror beside a store that has none of them.
fn mirrored() -> Lab {
    let reference = reference("nginx-light", &["nginx-light"]).expect("mmdebstrap works");
    let size = |deb: &Deb| std::fs::metadata(&deb.file).expect("it is there").len();
    let mut debs = reference.packages;
    debs.sort_by_key(|deb| std::cmp::Reverse(size(deb)));
    debs.truncate(10);
    let mut lab = Lab::new("");
    let mirror = lab.beside("mirror");
    let archive = format!(
        "\n[[source.os.archive]]\nname = \"main\"\nsuites = [\"bookworm\"]\nmirrors = [\"file://{}\"]",
        mirror.display()
    );
    lab.write("spec.toml", spec("\"any\"", "none", &archive));
    lock(&lab, &debs).expect("the packages can be locked");
    for deb in &debs {
        let to = mirror.join("pool/main").join(&deb.name);
        std::fs::create_dir_all(to.parent().expect("a directory")).expect("made");
        std::fs::copy(&deb.file, to).expect("copied");
    }
    lab.store = lab.beside("fresh");
    lab
}

fn fsck(lab: &Lab) {
    let ended = lab.run(&["cache", "fsck"]);
    assert!(ended.output.status.success(), "{}", ended.said());
}

#[test]
fn a_full_disk_leaves_no_half_package() {
    let mut lab = mirrored();
    let digest = lab.run(&BUILD).digest();
    std::fs::remove_dir_all(lab.file("layout")).expect("it is there");
    let small = Mounted::tmpfs("size=8M", &lab.beside("small")).expect("root may mount");
    lab.store = small.path().join("store");
    // First there is no room for all of the files, then none for what is in them.
    for size in ["8M", "20M"] {
        small.resize(size).expect("root may");
        lab.run(&BUILD).refused_with(
            9,
            &[
                "No space left on device",
                "hint: make room and run the same command again",
            ],
        );
        fsck(&lab);
    }
    small.resize("400M").expect("root may");
    assert_eq!(lab.run(&BUILD).digest(), digest);
    fsck(&lab);
}

#[test]
fn an_installation_that_is_killed_at_any_moment_goes_on() {
    let mut lab = mirrored();
    let start = std::time::Instant::now();
    let digest = lab.run(&BUILD).digest();
    let whole = start.elapsed();
    std::fs::remove_dir_all(lab.file("layout")).expect("it is there");
    let moments = 6;
    let mut killed = 0;
    // Every moment once; and again on a machine that is so busy that few were hit.
    for (tried, moment) in (0..4 * moments).map(|tried| (tried, tried % moments + 1)) {
        if tried >= moments && killed >= moments / 2 {
            break;
        }
        lab.store = lab.beside(&format!("store-{tried}"));
        let running = lab.start(&BUILD);
        std::thread::sleep(whole * moment / (moments + 1));
        killed += u32::from(running.kill());
        fsck(&lab);
        assert_eq!(lab.run(&BUILD).digest(), digest, "{moment}/{moments}");
    }
    assert!(killed >= moments / 2, "only {killed} before their end");
}

/// The same command line where there is no network, not even loopback.
fn without_network(lab: &Lab, arguments: &[&str]) -> Command {
    let inner = lab.immbuild(arguments);
    let mut command = Command::new("unshare");
    command.arg("--net").arg(inner.get_program());
    command.args(inner.get_args());
    command.current_dir(lab.project()).env_clear();
    command.envs(
        inner
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    command
}

#[test]
fn what_is_locked_needs_no_network_and_is_the_same_everywhere() {
    let lab = locked("\"python3-minimal\"", "none", "");
    let lock = lab.read("spec.lock");
    let ended = lab.end(&mut without_network(&lab, &["lock", "--check"]));
    assert!(ended.status().success(), "{}", ended.said());
    let ended = lab.run(&["lock"]);
    assert!(ended.status().success(), "{}", ended.said());
    assert_eq!(lab.read("spec.lock"), lock, "locking again moves nothing");

    // Everything is brought once; from then on no network is needed.
    let digest = lab.run(&BUILD).digest();
    let offline = [&BUILD[..], &["--offline", "--threads"]].concat();
    for (threads, mask, zone) in [("1", "022", "UTC"), ("8", "077", "Pacific/Kiritimati")] {
        let elsewhere = Lab::new("");
        for name in ["spec.toml", "spec.lock"] {
            elsewhere.write(name, lab.read(name));
        }
        let vendor = lab.beside("vendor").display().to_string();
        if !Path::new(&vendor).exists() {
            let ended = lab.run(&["vendor", "-o", &vendor]);
            assert!(ended.status().success(), "{}", ended.said());
        }
        let ended = elsewhere.run(&["vendor", "--read", &vendor]);
        assert!(ended.status().success(), "{}", ended.said());
        let arguments = [&offline[..], &[threads]].concat();
        // Cold, then warm.
        for _ in 0..2 {
            let inner = without_network(&elsewhere, &arguments);
            let mut command = Command::new("sh");
            command.args(["-c", "umask \"$1\"; shift; exec \"$@\"", "sh", mask]);
            command.arg(inner.get_program()).args(inner.get_args());
            command.current_dir(elsewhere.project()).env_clear();
            command.envs(
                inner
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            );
            command.env("TZ", zone).env("LANG", "tr_TR.UTF-8");
            assert_eq!(elsewhere.end(&mut command).digest(), digest);
        }
    }

    // One package is not there: it is named before anything is written.
    let empty = Lab::new("");
    for name in ["spec.toml", "spec.lock"] {
        empty.write(name, lab.read(name));
    }
    let vendor = lab.beside("vendor").display().to_string();
    assert!(empty.run(&["vendor", "--read", &vendor]).status().success());
    let text = String::from_utf8(lock).expect("text");
    let package = text
        .split("[[source.os.package]]")
        .find(|part| part.contains("name = \"libc6\""))
        .expect("it is locked");
    let value = |key: &str| {
        let line = package.lines().find_map(|line| line.strip_prefix(key));
        line.expect("a lock says it").trim_matches('"').to_owned()
    };
    let (version, sha256) = (value("version = "), value("sha256 = "));
    let hexadecimal = sha256.trim_start_matches("sha256:");
    // As the store keeps what is large.
    let blob = empty
        .store
        .join("blobs")
        .join(&hexadecimal[..2])
        .join(hexadecimal);
    std::fs::remove_file(blob).expect("removed");
    let arguments = [&offline[..], &["1"]].concat();
    let ended = empty.end(&mut without_network(&empty, &arguments));
    ended.refused_with(5, &["libc6", &version, &hexadecimal[..12]]);
}

#[test]
fn two_that_exclude_each_other_are_named_with_the_field_that_says_so() {
    let lab = Lab::new(&spec("\"exim4-daemon-light\", \"postfix\"", "none", ""));
    let says = [
        "`exim4-config` cannot be there beside `postfix`",
        "`exim4-config` says `Conflicts: postfix`",
    ];
    lab.run(&["lock"]).refused_with(3, &says);
}
