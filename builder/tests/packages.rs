//! Locking and fetching packages, from signed archives that are made here and served well or badly.
#![allow(clippy::disallowed_methods, reason = "a test lists what it made")]

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::thread;

use immbuild::app::lock::{self, LockOptions, LockReport, UpdateRequest};
use immbuild::app::packages::Archives;
use immbuild::app::session::Host;
use immbuild::app::{Exit, Failure, Project, Session, Settings, vendor, why};
use immbuild::diag::{Style, render_all};
use immbuild::exec::sandbox::IdMap;
use immbuild::lock::model::{DebianPin, Pin};
use immbuild::ports::Silent;
use immbuild::spec::model::{DebianSource, SourceKind};
use immbuild_cas::digest::{BlobId, Digest};
use immbuild_cas::store::BlobSource as _;
use pgp::composed::{
    ArmorOptions, CleartextSignedMessage, KeyType, SecretKeyParamsBuilder, SignedSecretKey,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{SignatureConfig, SignatureType, Subpacket, SubpacketData};
use pgp::ser::Serialize as _;
use pgp::types::{KeyDetails as _, Password, Timestamp};
use rand::SeedableRng as _;

/// 2026-11-27T12:00:00Z, when all of this takes place.
const NOW: i64 = 1_795_780_800;
const TODAY: &str = "Fri, 27 Nov 2026 06:00:00 UTC";

fn key(seed: u64) -> SignedSecretKey {
    SecretKeyParamsBuilder::default()
        .key_type(KeyType::Ed25519Legacy)
        .can_certify(true)
        .can_sign(true)
        .created_at(Timestamp::from_secs(1_600_000_000))
        .primary_user_id(format!("Archive {seed} <archive@example.com>"))
        .build()
        .expect("a key")
        .generate(rand::rngs::StdRng::seed_from_u64(seed))
        .expect("generated")
}

fn signed(key: &SignedSecretKey, text: &str) -> String {
    let signer = &key.primary_key;
    let made = u32::try_from(NOW - 7200).expect("a time");
    let mut config = SignatureConfig::v4(
        SignatureType::Text,
        signer.algorithm(),
        HashAlgorithm::Sha512,
    );
    config.hashed_subpackets = [
        SubpacketData::SignatureCreationTime(Timestamp::from_secs(made)),
        SubpacketData::IssuerFingerprint(signer.fingerprint()),
    ]
    .map(|data| Subpacket::regular(data).expect("a subpacket"))
    .to_vec();
    CleartextSignedMessage::new(text, config, signer, &Password::empty())
        .and_then(|message| message.to_armored_string(ArmorOptions::default()))
        .expect("signed")
}

/// An archive on disk, with one suite of one component.
struct Repository {
    top: PathBuf,
    key: SignedSecretKey,
    suite: &'static str,
    date: &'static str,
    /// Further fields of the release.
    fields: &'static str,
}

impl Repository {
    fn new(top: PathBuf) -> Self {
        Self {
            top,
            key: key(1),
            suite: "stable",
            date: TODAY,
            fields: "Acquire-By-Hash: yes\n",
        }
    }

    /// Writes packages, a line each: `name version: Field: value; Field: value`, and signs them. The content of a `.deb` is
    /// its name and version.
    fn publish(&self, packages: &str) {
        let mut index = String::new();
        for line in packages.lines().map(str::trim).filter(|it| !it.is_empty()) {
            let (head, fields) = line.split_once(": ").unwrap_or((line, ""));
            let (name, version) = head.split_once(' ').expect("a version");
            let content = format!("{name} {version}");
            let path = format!("pool/{name}_{version}.deb");
            self.write(&path, content.as_bytes());
            let architecture = if name.ends_with("-data") {
                "all"
            } else {
                "amd64"
            };
            let _ = write!(
                index,
                "Package: {name}\nVersion: {version}\nArchitecture: {architecture}\nFilename: {path}\nSize: {}\nSHA256: {}\n",
                content.len(),
                Digest::of(content.as_bytes()).to_hex(),
            );
            for field in fields.split("; ").filter(|it| !it.is_empty()) {
                index.push_str(field);
                index.push('\n');
            }
            index.push('\n');
        }
        let digest = Digest::of(index.as_bytes()).to_hex();
        let below = format!("dists/{}/main/binary-amd64", self.suite);
        self.write(&format!("{below}/Packages"), index.as_bytes());
        self.write(
            &format!("{below}/by-hash/SHA256/{digest}"),
            index.as_bytes(),
        );
        let release = format!(
            "Suite: {}\nDate: {}\n{}SHA256:\n {digest} {} main/binary-amd64/Packages\n",
            self.suite,
            self.date,
            self.fields,
            index.len()
        );
        let inrelease = format!("dists/{}/InRelease", self.suite);
        self.write(&inrelease, signed(&self.key, &release).as_bytes());
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.top.join(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(path, bytes).expect("written");
    }

    fn remove(&self, path: &str) {
        let path = self.top.join(path);
        if path.is_dir() {
            fs::remove_dir_all(path).expect("removed");
        } else {
            fs::remove_file(path).expect("removed");
        }
    }

    fn url(&self) -> String {
        format!("file://{}", self.top.display())
    }
}

/// A place with an archive, a keyring, a spec and a store.
struct World {
    place: tempfile::TempDir,
    offline: bool,
    options: LockOptions,
}

const PACKAGES: &str = "
    app 1: Depends: lib (>= 1), app-data; Source: app-src (0.9)
    app-data 1
    lib 1: Depends: app-data
    tool 1: Depends: lib
    other 1
";

impl World {
    fn new() -> (Self, Repository) {
        let place = tempfile::tempdir().expect("a directory");
        let repository = Repository::new(place.path().join("archive"));
        let world = Self {
            offline: false,
            options: LockOptions::default(),
            place,
        };
        world.trust(&[&repository.key]);
        repository.publish(PACKAGES);
        world.spec(&["app"], &[&repository.url()], "");
        (world, repository)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn trust(&self, keys: &[&SignedSecretKey]) {
        let mut ring = Vec::new();
        for key in keys {
            key.to_public_key().to_writer(&mut ring).expect("written");
        }
        fs::write(self.path("keys.gpg"), ring).expect("written");
    }

    fn spec(&self, packages: &[&str], mirrors: &[&str], more: &str) {
        let text = format!(
            "immbuild = 1\n[source.os]\ndebian = \"stable\"\npackages = {packages:?}\nconfigure = \"none\"\n\
             [[source.os.archive]]\nname = \"main\"\nsuites = [\"stable\"]\nmirrors = {mirrors:?}\nsigned-by = \"keys.gpg\"\n{more}\n\
             [image]\nfrom = \"os\"\n"
        );
        fs::write(self.path("spec.toml"), text).expect("written");
    }

    fn settings(&self) -> Settings {
        Settings {
            store: self.path("store"),
            offline: self.offline,
            threads: NonZeroUsize::new(2).expect("two"),
            ids: IdMap::Single,
            ssh: None,
            source_date_epoch: None,
            host: Host {
                apt: self.path("no-apt"),
                keyrings: self.path("no-keyrings"),
                ..Host::default()
            },
            started: (NOW, 0),
        }
    }

    fn with<T>(&self, run: impl FnOnce(&Session<'_>, &Project) -> T) -> T {
        let settings = self.settings();
        let cancel = AtomicBool::new(false);
        let session = Session::open(&settings, &Silent, &cancel).expect("a store");
        let project = Project::open(&self.path("spec.toml")).expect("a spec");
        run(&session, &project)
    }

    fn lock(&self) -> Result<LockReport, Failure> {
        self.with(|session, project| lock::lock(session, project, self.options))
    }

    fn update(&self, sources: &[&str]) -> Result<LockReport, Failure> {
        let request = UpdateRequest {
            sources: sources.iter().map(|it| (*it).to_owned()).collect(),
            options: self.options,
            ..UpdateRequest::default()
        };
        self.with(|session, project| lock::update(session, project, &request))
    }

    fn text(&self) -> Option<String> {
        fs::read_to_string(self.path("spec.lock")).ok()
    }

    fn pin(&self) -> DebianPin {
        let text = self.text().expect("a lock");
        let mut lock = immbuild::lock::parse(&text, "spec.lock").expect("a good lock");
        match lock.sources.pop_first() {
            Some((_, locked)) => match locked.pin {
                Pin::Debian(pin) => pin,
                other => panic!("{other:?}"),
            },
            None => panic!("no source"),
        }
    }

    /// `name version` of every package.
    fn locked(&self) -> Vec<String> {
        let pin = self.pin();
        let all = pin.packages.iter();
        all.map(|it| format!("{} {}", it.name, it.version))
            .collect()
    }

    /// Brings everything that is locked into the store.
    fn fetch(&self) -> Result<(), Failure> {
        let pin = self.pin();
        self.with(|session, project| {
            let source = source(project);
            Archives::new(session, project, false).fetch(
                &source,
                &pin.releases,
                &pin.packages,
                &|_| {},
            )
        })
    }

    fn stored(&self, content: &str) -> bool {
        self.with(|session, _| {
            let blob = BlobId::new(Digest::of(content.as_bytes()));
            session.store.read(&blob).is_ok()
        })
    }
}

fn source(project: &Project) -> DebianSource {
    let resolved = project.resolve_defaults().expect("good");
    let spec = resolved.into_values().next().expect("a platform");
    match spec.sources.into_values().next().expect("a source").kind {
        SourceKind::Debian(source) => source,
        other => panic!("{other:?}"),
    }
}

fn words(failure: &Failure) -> String {
    render_all(&failure.diagnostics, Style::Plain)
}

/// It fails so, with these words among what is said.
fn fails<T: std::fmt::Debug>(result: Result<T, Failure>, exit: Exit, says: &[&str]) {
    let failure = result.expect_err("it fails");
    let words = words(&failure);
    assert_eq!(failure.exit, exit, "{words}");
    for it in says {
        assert!(words.contains(it), "no `{it}` in:\n{words}");
    }
}

#[test]
fn a_lock_says_all_that_is_needed_later() {
    let (world, repository) = World::new();
    let report = world
        .lock()
        .unwrap_or_else(|error| panic!("{}", words(&error)));
    assert_eq!(report.added, ["os 3 packages of 2026-11-27T06:00:00Z"]);
    let inrelease = fs::read(repository.top.join("dists/stable/InRelease")).expect("there");
    let text = world.text().expect("a lock");
    let start = text.find("solver = ").expect("there");
    let expected = format!(
        "solver = \"apt-greedy/1\"\n\n[[source.os.release]]\narchive = \"main\"\nsuite = \"stable\"\ninrelease = \"{}\"\n\
         date = 2026-11-27T06:00:00Z\nsigners = [\"{:X}\"]\n\n\
         [[source.os.package]]\nname = \"app\"\nversion = \"1\"\narch = \"amd64\"\narchive = \"main\"\npath = \"pool/app_1.deb\"\nsize = 5\n\
         sha256 = \"{}\"\nsource = \"app-src\"\nsource-version = \"0.9\"\ndepends = [\"app-data\", \"lib\"]\nreason = \"requested\"\n\n\
         [[source.os.package]]\nname = \"app-data\"\nversion = \"1\"\narch = \"all\"\nfor = [\"amd64\"]\narchive = \"main\"\npath = \"pool/app-data_1.deb\"\nsize = 10\n\
         sha256 = \"{}\"\nsource = \"app-data\"\ndepends = []\nreason = \"needed by lib\"\n\n",
        Digest::of(&inrelease),
        repository.key.primary_key.fingerprint(),
        Digest::of(b"app 1").to_hex(),
        Digest::of(b"app-data 1").to_hex(),
    );
    assert!(text[start..].starts_with(&expected), "{text}");
    assert!(text.contains("epoch = 2026-11-27T06:00:00Z\n"), "{text}");
    assert!(
        !text.contains("file:") && !text.contains("keys.gpg"),
        "{text}"
    );
}

#[test]
fn locking_again_changes_nothing_and_needs_no_network() {
    let (mut world, repository) = World::new();
    world.lock().expect("locked");
    let text = world.text();
    repository.remove("dists");
    world.offline = true;
    let report = world.lock().expect("locked");
    assert_eq!((report.added, report.written), (Vec::new(), None));
    assert_eq!(world.text(), text);
    world.with(|_, project| lock::check(project).expect("up to date"));
}

#[test]
fn only_the_mirrors_changed_is_nothing_changed() {
    let (world, _) = World::new();
    world.lock().expect("locked");
    world.spec(&["app"], &["https://other.example.com/debian"], "");
    world.with(|_, project| lock::check(project).expect("up to date"));
    world.spec(&["app", "tool"], &["https://other.example.com/debian"], "");
    world.with(|_, project| {
        fails(
            lock::check(project),
            Exit::Lock,
            &["`os` asks for something else now"],
        );
    });
}

#[test]
fn who_is_not_trusted_locks_nothing() {
    let (world, mut repository) = World::new();
    world.lock().expect("locked");
    let text = world.text();
    let stranger = key(2);
    world.trust(&[&stranger]);
    fails(
        world.update(&[]),
        Exit::Untrusted,
        &["is by a key that is not in the keyring"],
    );
    assert_eq!(world.text(), text, "the lock is as it was");
    // Of two keys that may sign, the one that did is named.
    world.trust(&[&stranger, &repository.key]);
    world.update(&[]).expect("trusted");
    repository.key = stranger;
    repository.publish(PACKAGES);
    world.update(&[]).expect("trusted");
    let signer = format!("{:X}", repository.key.primary_key.fingerprint());
    assert_eq!(world.pin().releases[0].signers, [signer.as_str()]);
    let others = "fingerprints = [\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"]";
    world.spec(&["app"], &[&repository.url()], others);
    fs::remove_file(world.path("spec.lock")).expect("removed");
    fails(
        world.lock(),
        Exit::Untrusted,
        &["`fingerprints` does not list"],
    );
    assert_eq!(world.text(), None, "no lock is written");
}

#[test]
fn what_is_too_old_is_refused_with_its_date() {
    let (mut world, mut repository) = World::new();
    repository.fields = "Valid-Until: Fri, 27 Nov 2026 11:00:00 UTC\n";
    repository.publish(PACKAGES);
    fails(
        world.lock(),
        Exit::Untrusted,
        &["it was valid until 2026-11-27T11:00:00Z", "--allow-expired"],
    );
    world.options.allow_expired = true;
    world.lock().expect("allowed");
    world.options.allow_expired = false;
    fs::remove_file(world.path("spec.lock")).expect("removed");
    repository.fields = "";
    repository.publish(PACKAGES);
    world.spec(&["app"], &[&repository.url()], "max-age = \"5h\"");
    fails(
        world.lock(),
        Exit::Untrusted,
        &["it is of 2026-11-27T06:00:00Z, which is longer ago than `max-age`"],
    );
    world.spec(&["app"], &[&repository.url()], "max-age = \"7h\"");
    world.lock().expect("fresh enough");
}

#[test]
fn a_release_older_than_the_locked_one_is_a_rollback() {
    let (world, mut repository) = World::new();
    world.lock().expect("locked");
    let text = world.text();
    repository.date = "Thu, 26 Nov 2026 06:00:00 UTC";
    repository.publish(PACKAGES);
    fails(
        world.update(&[]),
        Exit::Untrusted,
        &[
            "offers the release of 2026-11-26T06:00:00Z, and that of 2026-11-27T06:00:00Z is locked: it was rolled back",
        ],
    );
    assert_eq!(world.text(), text);
    // A build from the lock asks for no release at all.
    world.fetch().expect("fetched");
}

#[test]
fn another_suite_of_the_same_key_is_not_the_one_asked_for() {
    let (world, repository) = World::new();
    let other = Repository {
        suite: "testing",
        ..Repository::new(repository.top.clone())
    };
    other.publish(PACKAGES);
    let text = fs::read(repository.top.join("dists/testing/InRelease")).expect("there");
    repository.write("dists/stable/InRelease", &text);
    fails(world.lock(), Exit::Untrusted, &["it is of `testing`"]);
}

#[test]
fn an_index_that_is_not_the_signed_one_is_refused() {
    let (world, repository) = World::new();
    let below = "dists/stable/main/binary-amd64";
    repository.remove(&format!("{below}/by-hash"));
    world.lock().expect("the plain path serves as well");
    fs::remove_file(world.path("spec.lock")).expect("removed");
    fs::remove_dir_all(world.path("store")).expect("removed");
    let mut text = fs::read(repository.top.join(below).join("Packages")).expect("there");
    text[9] ^= 1;
    repository.write(&format!("{below}/Packages"), &text);
    fails(
        world.lock(),
        Exit::Untrusted,
        &["not the bytes of", "the bytes are those of"],
    );
    assert_eq!(world.text(), None);
}

#[test]
fn what_is_not_there_is_told_with_what_may_be_meant() {
    let (world, repository) = World::new();
    world.spec(&["app", "toolx"], &[&repository.url()], "");
    let failure = world.lock();
    if let Err(failure) = &failure {
        let place = failure.diagnostics[0]
            .place
            .as_ref()
            .expect("it is pointed at");
        assert_eq!(
            &place.file.text[place.span.start..place.span.end],
            "\"toolx\""
        );
    }
    fails(
        failure,
        Exit::Unreachable,
        &[
            "the package `toolx` is not found",
            "it is not in main (amd64)",
            "did you mean `tool`?",
        ],
    );
    repository.publish("app 1: Depends: lib\nlib 1: Depends: gone (>= 2)\n");
    world.spec(&["app"], &[&repository.url()], "");
    fails(
        world.lock(),
        Exit::Spec,
        &[
            "`lib` needs `gone (>= 2)`",
            "there is no `gone`",
            "app → lib",
        ],
    );
    repository.publish("app 1: Conflicts: tool\ntool 1\n");
    world.spec(&["app", "tool"], &[&repository.url()], "");
    fails(world.lock(), Exit::Spec, &["`app` says `Conflicts: tool`"]);
}

/// What moved, a line each.
fn moved(report: &LockReport) -> Vec<String> {
    let all = report.moved.iter();
    all.map(|(what, from, to)| format!("{what} {from} → {to}"))
        .collect()
}

const NEWER: &str = "
    app 2: Depends: lib (>= 1), extra; Source: app-src
    app-data 2: Source: data
    lib 2: Depends: app-data
    extra 1
    tool 2: Depends: lib
    other 1
";

#[test]
fn an_update_says_what_moved() {
    let (world, mut repository) = World::new();
    world.lock().expect("locked");
    repository.date = "Fri, 27 Nov 2026 08:00:00 UTC";
    repository.publish(NEWER);
    let report = world.update(&["os"]).expect("moved");
    assert_eq!(
        moved(&report),
        [
            "os:stable 2026-11-27T06:00:00Z → 2026-11-27T08:00:00Z",
            "os:app 1 → 2",
            "os:app-data 1 → 2",
            "os:extra nothing → 1",
            "os:lib 1 → 2",
        ]
    );
    assert_eq!(world.locked(), ["app 2", "app-data 2", "extra 1", "lib 2"]);
}

#[test]
fn one_package_moves_with_what_it_forces_as_long_as_the_rest_is_still_there() {
    let (world, mut repository) = World::new();
    world.lock().expect("locked");
    repository.date = "Fri, 27 Nov 2026 08:00:00 UTC";
    // The old versions are still there.
    repository.publish(&format!("{PACKAGES}{}", NEWER.replace("other 1\n", "")));
    let report = world.update(&["os:app"]).expect("moved");
    assert_eq!(
        world.locked(),
        ["app 2", "app-data 1", "extra 1", "lib 1"],
        "{:?}",
        moved(&report)
    );
    fails(
        world.update(&["os:ap"]),
        Exit::Usage,
        &["no package `ap`", "`os:app`"],
    );
    fails(
        world.update(&["gone:app"]),
        Exit::Usage,
        &["no locked source `gone`"],
    );
}

#[test]
fn adding_a_package_moves_no_other() {
    let (world, mut repository) = World::new();
    world.lock().expect("locked");
    let before = world.pin();
    repository.date = "Fri, 27 Nov 2026 08:00:00 UTC";
    repository.publish(NEWER);
    world.spec(&["app", "tool"], &[&repository.url()], "");
    world.lock().expect("the locked release is in the store");
    assert_eq!(world.locked(), ["app 1", "app-data 1", "lib 1", "tool 1"]);
    assert_eq!(world.pin().releases, before.releases);
    // On a machine that never saw that release it cannot be had any more.
    fs::remove_dir_all(world.path("store")).expect("removed");
    world.spec(&["app", "tool", "other"], &[&repository.url()], "");
    fails(world.lock(), Exit::Untrusted, &["immbuild update"]);
    // But its old states may be named.
    let old = Repository::new(world.path("old"));
    old.publish(PACKAGES);
    let snapshot = format!(
        "snapshot = \"file://{}/{{timestamp}}\"",
        world.path("states").display()
    );
    fs::create_dir(world.path("states")).expect("made");
    fs::rename(world.path("old"), world.path("states/20261127T060000Z")).expect("moved");
    world.spec(&["app", "tool", "other"], &[&repository.url()], &snapshot);
    world
        .lock()
        .unwrap_or_else(|error| panic!("{}", words(&error)));
    assert_eq!(
        world.locked(),
        ["app 1", "app-data 1", "lib 1", "other 1", "tool 1"]
    );
}

#[test]
fn sources_of_one_archive_move_together() {
    let (world, mut repository) = World::new();
    let spec = fs::read_to_string(world.path("spec.toml")).expect("there");
    let second = spec
        .split_once("[source.os]")
        .and_then(|(_, rest)| rest.split_once("[image]"))
        .map(|(source, _)| {
            source
                .replace("source.os", "source.tools")
                .replace("\"app\"", "\"tool\"")
        })
        .expect("a source");
    let text = spec.replace(
        "[image]",
        &format!("[source.tools]{second}[stage.t]\nfrom = \"tools\"\n[image]"),
    );
    fs::write(world.path("spec.toml"), text).expect("written");
    world
        .lock()
        .unwrap_or_else(|error| panic!("{}", words(&error)));
    repository.date = "Fri, 27 Nov 2026 08:00:00 UTC";
    repository.publish(NEWER);
    let report = world.update(&["os"]).expect("moved");
    let all = moved(&report);
    assert!(all.contains(&"os:app 1 → 2".to_owned()), "{all:?}");
    assert!(
        all.contains(&"tools:stable 2026-11-27T06:00:00Z → 2026-11-27T08:00:00Z".to_owned()),
        "{all:?}"
    );
    let text = world.text().expect("a lock");
    assert_eq!(
        text.matches("date = 2026-11-27T08:00:00Z").count(),
        2,
        "{text}"
    );
}

#[test]
fn why_leads_from_what_was_asked_for() {
    let (world, _) = World::new();
    world.lock().expect("locked");
    world.with(|_, project| {
        let found = why::why(project, "app-data").expect("it is locked");
        let step = |name: &str, reason: &str| (name.to_owned(), reason.to_owned());
        assert_eq!(
            found[0].chain,
            [
                step("app", "requested"),
                step("lib", "needed by app"),
                step("app-data", "needed by lib")
            ]
        );
        assert_eq!(found[0].needed_by, ["app", "lib"]);
        fails(
            why::why(project, "app-date"),
            Exit::Usage,
            &["did you mean `app-data`?"],
        );
    });
}

#[test]
fn without_a_network_everything_that_is_missing_is_told_at_once() {
    let (mut world, repository) = World::new();
    world.lock().expect("locked");
    world.spec(&["app"], &["https://mirror.example.com/debian"], "");
    world.offline = true;
    let hex = |content: &str| Digest::of(content.as_bytes()).to_string();
    fails(
        world.fetch(),
        Exit::Unreachable,
        &[
            "3 packages are not in the store",
            &hex("app 1"),
            &hex("app-data 1"),
            &hex("lib 1"),
        ],
    );
    // A mirror on this machine is no network.
    world.spec(&["app"], &[&repository.url()], "");
    world.fetch().expect("fetched");
    assert!(world.stored("lib 1"));
}

#[test]
fn a_mirror_with_other_bytes_is_passed_over() {
    let (world, repository) = World::new();
    world.lock().expect("locked");
    let bad = Repository::new(world.path("bad"));
    bad.publish(PACKAGES);
    bad.write("pool/lib_1.deb", b"lib X");
    bad.remove("pool/app_1.deb");
    world.spec(&["app"], &[&bad.url(), &repository.url()], "");
    world.fetch().expect("the next mirror has them");
    assert!(world.stored("lib 1") && world.stored("app 1") && !world.stored("lib X"));
    // Without another place it is told what was found where.
    fs::remove_dir_all(world.path("store")).expect("removed");
    world.spec(&["app"], &[&bad.url()], "");
    let actual = Digest::of(b"lib X").to_string();
    fails(
        world.fetch(),
        Exit::Untrusted,
        &["lib 1", &actual, "2 packages are not fetched"],
    );
    assert!(!world.stored("lib X"), "the store has no trace of it");
}

/// Answers by path: what it says, or the file below a directory.
struct Server {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
}

type Fault = Box<dyn Fn(&str, usize) -> Option<String> + Send + Sync>;

impl Server {
    /// Serves files; `fault` gets the path and how often it was asked for, and may answer in their place.
    fn new(top: &Path, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (top, log, fault) = (top.to_owned(), Arc::clone(&seen), Arc::new(fault));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (top, log, fault) = (top.clone(), Arc::clone(&log), Arc::clone(&fault));
                thread::spawn(move || answer(stream, &top, &log, &fault));
            }
        });
        Self { url, seen }
    }

    fn asked(&self, part: &str) -> usize {
        let seen = self.seen.lock().expect("alive");
        seen.iter().filter(|path| path.contains(part)).count()
    }
}

fn answer(mut stream: TcpStream, top: &Path, log: &Mutex<Vec<String>>, fault: &Fault) {
    let mut request = String::new();
    let mut lines = BufReader::new(&stream);
    while lines.read_line(&mut request).is_ok_and(|count| count > 2) {}
    let path = request.split(' ').nth(1).unwrap_or("/").to_owned();
    let before = {
        let mut log = log.lock().expect("alive");
        log.push(path.clone());
        log.iter().filter(|it| **it == path).count() - 1
    };
    let body = fs::read(top.join(path[1..].replace("%2B", "+")));
    let reply = match (fault(&path, before), body) {
        (Some(reply), _) => reply.into_bytes(),
        (None, Err(_)) => {
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()
        }
        (None, Ok(body)) => {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            [head.into_bytes(), body].concat()
        }
    };
    let _ = stream.write_all(&reply);
}

const BUSY: &str = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

#[test]
fn a_mirror_that_is_busy_gone_or_cut_short_costs_patience_only() {
    let (world, repository) = World::new();
    let down = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let closed = format!("http://{}", down.local_addr().expect("an address"));
    drop(down);
    let server = Server::new(
        &repository.top,
        Box::new(|path, before| match (path, before) {
            ("/dists/stable/InRelease", 0) => Some(BUSY.into()),
            (path, 0) if path.contains("by-hash") => Some(
                "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into(),
            ),
            ("/pool/lib_1.deb", 0) => {
                Some("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nli".into())
            }
            ("/pool/app_1.deb", 0) => Some(BUSY.into()),
            _ => None,
        }),
    );
    world.spec(&["app"], &[&closed, &server.url], "");
    world
        .lock()
        .unwrap_or_else(|error| panic!("{}", words(&error)));
    assert_eq!(server.asked("InRelease"), 2);
    assert_eq!(
        server.asked("main/binary-amd64/Packages"),
        1,
        "after the one by digest"
    );
    world
        .fetch()
        .unwrap_or_else(|error| panic!("{}", words(&error)));
    assert_eq!(
        (
            server.asked("lib_1"),
            server.asked("app_1"),
            server.asked("app-data_1")
        ),
        (2, 2, 1)
    );
    assert!(world.stored("lib 1") && world.stored("app 1"));
    world.fetch().expect("everything is there");
    assert_eq!(server.asked("pool"), 5, "nothing is asked for twice");
}

#[test]
fn what_the_mirror_no_longer_has_comes_from_its_old_states() {
    let (world, repository) = World::new();
    world.lock().expect("locked");
    let states = world.path("states");
    fs::create_dir(&states).expect("made");
    fs::rename(&repository.top, states.join("20261127T180000Z")).expect("moved");
    let empty = Server::new(&world.path("nothing"), Box::new(|_, _| None));
    let snapshot = format!("snapshot = \"file://{}/{{timestamp}}\"", states.display());
    world.spec(&["app"], &[&empty.url], &snapshot);
    world
        .fetch()
        .unwrap_or_else(|error| panic!("{}", words(&error)));
    assert_eq!(empty.asked("pool"), 3, "the mirror is asked first");
    // All down: a word for each place.
    fs::remove_dir_all(world.path("store")).expect("removed");
    fs::remove_dir_all(&states).expect("removed");
    fails(
        world.fetch(),
        Exit::Unreachable,
        &["HTTP status 404", "20261127T180000Z", "20261127T060000Z"],
    );
}

#[test]
fn places_of_the_user_and_of_apt_come_after_those_of_the_spec() {
    let (world, repository) = World::new();
    let apt = world.path("apt");
    fs::create_dir_all(apt.join("sources.list.d")).expect("made");
    fs::write(
        apt.join("sources.list"),
        format!("deb {} stable main\n", repository.url()),
    )
    .expect("written");
    world.spec(&["app"], &[], "");
    fails(
        world.lock(),
        Exit::Unreachable,
        &["nothing says where the archive `main` is"],
    );
    let mut settings = world.settings();
    settings.host.apt = apt;
    let cancel = AtomicBool::new(false);
    let session = Session::open(&settings, &Silent, &cancel).expect("a store");
    let slip = fs::read_to_string(world.path("spec.toml")).expect("a spec");
    fs::write(world.path("slip.toml"), slip.replace("stable", "stabel")).expect("written");
    let project = Project::open(&world.path("slip.toml")).expect("a spec");
    fails(
        lock::lock(&session, &project, LockOptions::default()),
        Exit::Unreachable,
        &["did you mean `stable`, which apt of this machine has?"],
    );
    let project = Project::open(&world.path("spec.toml")).expect("a spec");
    lock::lock(&session, &project, LockOptions::default()).expect("apt knows it");
    assert_eq!(world.locked(), ["app 1", "app-data 1", "lib 1"]);
}

#[test]
fn what_is_vendored_serves_a_machine_without_a_network() {
    let (mut world, repository) = World::new();
    let (first, second) = (world.path("vendor"), world.path("again"));
    fails(
        world.with(|session, project| vendor::vendor(session, project, &first)),
        Exit::Lock,
        &["there is no lock"],
    );
    world.lock().expect("locked");
    let report = world
        .with(|session, project| vendor::vendor(session, project, &first))
        .unwrap_or_else(|error| panic!("{}", words(&error)));
    assert_eq!((report.files, report.bytes), (3, 20));
    let again = world
        .with(|session, project| vendor::vendor(session, project, &second))
        .expect("written");
    assert_eq!(again, report, "the same artifact");
    let index = fs::read_to_string(first.join("index.json")).expect("there");
    let manifest = report.manifest.expect("written").to_string();
    assert!(index.contains(&manifest), "{index}");

    repository.remove("pool");
    fs::remove_dir_all(world.path("store")).expect("removed");
    world.offline = true;
    let read = world.with(|session, _| vendor::read(&session.store, &first));
    assert_eq!(read.expect("good").files, 3);
    world.fetch().expect("everything is there");

    // One that was tampered with leaves no trace.
    let hex = Digest::of(b"lib 1").to_hex();
    fs::write(second.join("blobs/sha256").join(hex), "lib X").expect("written");
    fs::remove_dir_all(world.path("store")).expect("removed");
    let read = world.with(|session, _| vendor::read(&session.store, &second));
    fails(read, Exit::Untrusted, &["the bytes are those of"]);
    assert!(!world.stored("lib 1") && !world.stored("lib X"));
    let read = world.with(|session, _| vendor::read(&session.store, &world.path("archive")));
    fails(read, Exit::Local, &["oci-layout"]);
}
