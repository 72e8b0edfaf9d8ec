//! Debian's `docker-registry` on this machine, by way of the program: plain, with passwords, with a private authority. What skopeo
//! pushes is read, and what is pushed skopeo reads, byte for byte.
//!
//! They need Debian 12's docker-registry, skopeo, podman, apache2-utils, openssl and busybox-static, and root:
//! `cargo test -p immbuild --test registries -- --ignored`.
#![allow(
    clippy::disallowed_methods,
    reason = "tests start programs and look at files"
)]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use immbuild_cas::digest::Digest;
use serde_json::Value;

/// A registry that ends with the test.
struct Registry {
    host: String,
    process: Child,
}

impl Registry {
    /// `more` is configuration besides that of its storage, below `http` where it is indented.
    fn start(directory: &Path, more: &str) -> Self {
        let port = {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            listener.local_addr().expect("an address").port()
        };
        let host = format!("127.0.0.1:{port}");
        let root = directory.join(format!("registry-{port}"));
        let configuration = root.with_extension("yml");
        let text = format!(
            "version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: \"{}\" }} }}\nhttp:\n  addr: \"{host}\"\n{more}",
            root.display()
        );
        fs::write(&configuration, text).expect("written");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed");
        let registry = Self { host, process };
        for _ in 0..200 {
            if TcpStream::connect(&registry.host).is_ok() {
                return registry;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("docker-registry does not listen");
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A directory to work in, and what of a user's home a command sees.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(directory.path().join("config/immbuild")).expect("made");
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
    }

    fn command(&self, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(words)
            .current_dir(self.directory.path())
            .env("HOME", self.path("home"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("DOCKER_CONFIG", self.path("docker"))
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("REGISTRY_AUTH_FILE")
            .stdin(Stdio::null());
        command
    }

    fn immbuild(&self, store: &str, words: &[&str]) -> Output {
        let mut command = self.command(env!("CARGO_BIN_EXE_immbuild"), words);
        command.args(["--store", store]);
        command.output().expect("the program runs")
    }

    /// What it prints, where it succeeds.
    fn built(&self, store: &str, words: &[&str]) -> String {
        let output = self.immbuild(store, words);
        assert!(output.status.success(), "{words:?}: {}", said(&output));
        String::from_utf8(output.stdout)
            .expect("text")
            .trim()
            .to_owned()
    }

    /// What it complains about, where it ends with this status.
    fn refused(&self, store: &str, words: &[&str], status: i32) -> String {
        let output = self.immbuild(store, words);
        assert_eq!(
            output.status.code(),
            Some(status),
            "{words:?}: {}",
            said(&output)
        );
        assert!(output.stdout.is_empty(), "{}", said(&output));
        said(&output)
    }

    fn skopeo(&self, words: &[&str]) -> Vec<u8> {
        let output = self
            .command("skopeo", words)
            .output()
            .expect("skopeo is installed");
        assert!(
            output.status.success(),
            "skopeo {words:?}: {}",
            said(&output)
        );
        output.stdout
    }

    fn openssl(&self, words: &[&str]) {
        let output = self
            .command("openssl", words)
            .output()
            .expect("openssl is installed");
        assert!(
            output.status.success(),
            "openssl {words:?}: {}",
            said(&output)
        );
    }
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// A spec of two platforms that executes nothing.
fn base_spec(text: &str) -> String {
    format!(
        "immbuild = 1\n[image]\nplatforms = [\"linux/amd64\", \"linux/arm64\"]\nsteps = [\n  {{ mkdir = \"/etc\" }},\n  {{ write = \"/etc/base\", text = \"{text} ${{arch}}\\n\", expand = true }},\n]\n[[output]]\nkind = \"oci-layout\"\ndir = \"base\"\n"
    )
}

fn shop_spec(host: &str, image: &str) -> String {
    format!(
        "immbuild = 1\n[source.base]\nimage = \"{host}/{image}\"\n[image]\nname = \"{host}/team/shop\"\ntags = [\"1\", \"latest\"]\nfrom = \"base\"\nplatforms = [\"linux/amd64\", \"linux/arm64\"]\nsteps = [ {{ write = \"/etc/shop\", text = \"shop\\n\" }} ]\n"
    )
}

fn digest_of(reference: &str) -> &str {
    reference.rsplit('@').next().expect("a reference")
}

#[test]
#[ignore = "needs docker-registry and skopeo"]
fn what_skopeo_pushes_is_built_on_and_what_is_pushed_skopeo_reads() {
    let place = Place::new();
    let registry = Registry::start(place.directory.path(), "");
    let host = &registry.host;
    place.write("base.toml", &base_spec("first"));
    place.write("spec.toml", &shop_spec(host, "lib/base:1"));
    let base = place.built("base-store", &["build", "-f", "base.toml"]);
    let to = format!("docker://{host}/lib/base:1");
    place.skopeo(&[
        "copy",
        "--all",
        "--dest-tls-verify=false",
        "oci:base:latest",
        &to,
    ]);

    let pushed = place.built("store", &["build", "--push"]);
    assert!(
        pushed.starts_with(&format!("{host}/team/shop@sha256:")),
        "{pushed}"
    );
    let lock = fs::read_to_string(place.path("spec.lock")).expect("a lock");
    assert!(lock.contains(&format!("index = \"{base}\"")), "{lock}");
    assert!(!lock.contains("127.0.0.1"), "{lock}");

    // As it was made, by skopeo's own check and by its bytes.
    for tag in ["1", "latest"] {
        let from = format!("docker://{host}/team/shop:{tag}");
        let raw = place.skopeo(&["inspect", "--raw", "--tls-verify=false", &from]);
        assert_eq!(Digest::of(&raw).to_string(), digest_of(&pushed));
    }
    let from = format!("docker://{host}/team/shop:1");
    place.skopeo(&[
        "copy",
        "--all",
        "--src-tls-verify=false",
        &from,
        "oci:back:1",
    ]);
    assert_eq!(
        place.built("store", &["verify", "back", "--structure-only"]),
        digest_of(&pushed)
    );

    is_an_image_like_any_other(&place, host, digest_of(&pushed));

    // The layers of the base came from its own repository.
    let json = place.built("store", &["push", "--json", "--tag", "2"]);
    let last: Value = serde_json::from_str(json.lines().last().expect("a line")).expect("JSON");
    assert_eq!(last["pushed"][0]["reference"], pushed.as_str());
    assert_eq!(last["pushed"][0]["tags"][0], format!("{host}/team/shop:2"));
    assert_eq!(last["pushed"][0]["sent"]["count"], 0);

    // Another machine gets the same, from the lock; and the same once more without a network.
    assert_eq!(
        place.built("other", &["build", "--locked"]),
        digest_of(&pushed)
    );
    assert_eq!(
        place.built("other", &["build", "--locked", "--offline"]),
        digest_of(&pushed)
    );
    let error = place.refused("third", &["build", "--locked", "--offline"], 5);
    assert!(
        error.contains("the network is off") && error.contains(&base),
        "{error}"
    );

    // So does one that never had a network, from what was vendored.
    place.built("other", &["vendor", "-o", "vendor"]);
    place.built("third", &["vendor", "--read", "vendor"]);
    assert_eq!(
        place.built("third", &["build", "--locked", "--offline"]),
        digest_of(&pushed)
    );

    // The tag moves, the build does not; `update` does.
    place.write("base.toml", &base_spec("second"));
    let second = place.built("base-store", &["build", "-f", "base.toml"]);
    place.skopeo(&[
        "copy",
        "--all",
        "--dest-tls-verify=false",
        "oci:base:latest",
        &to,
    ]);
    assert_eq!(
        place.built("fourth", &["build", "--locked"]),
        digest_of(&pushed)
    );
    place.built("fourth", &["update"]);
    let lock = fs::read_to_string(place.path("spec.lock")).expect("a lock");
    assert!(lock.contains(&second), "{lock}");
    assert_ne!(
        place.built("fourth", &["build", "--locked"]),
        digest_of(&pushed)
    );

    // By digest, and what is not there.
    place.write("spec.toml", &shop_spec(host, &format!("lib/base@{base}")));
    place.built("fifth", &["lock"]);
    assert_eq!(
        place.built("fifth", &["build", "--locked"]),
        digest_of(&pushed)
    );
    place.write("spec.toml", &shop_spec(host, "lib/none:1"));
    let error = place.refused("fifth", &["lock"], 5);
    assert!(
        error.contains("lib/none:1` is not there") && error.contains("spec.toml:3:9"),
        "{error}"
    );
}

#[test]
#[ignore = "needs docker-registry and skopeo"]
fn an_image_is_copied_as_it_is() {
    let place = Place::new();
    let registry = Registry::start(place.directory.path(), "");
    let other = Registry::start(place.directory.path(), "");
    let host = &registry.host;
    let spec = base_spec("copied").replace("[image]\n", "[image]\ncompression = \"gzip\"\n");
    place.write("base.toml", &spec);
    place.built("base-store", &["build", "-f", "base.toml"]);
    let raw = |name: &str| {
        let from = format!("docker://{name}");
        place.skopeo(&["inspect", "--raw", "--tls-verify=false", &from])
    };
    // In Docker's own form, which is none of ours, and in OCI's.
    for form in ["v2s2", "oci"] {
        let from = format!("{host}/{form}/base:1");
        let to = format!("docker://{from}");
        place.skopeo(&[
            "copy",
            "--all",
            "--format",
            form,
            "--dest-tls-verify=false",
            "oci:base:latest",
            &to,
        ]);
        let bytes = raw(&from);
        let digest = Digest::of(&bytes).to_string();

        let near = format!("{host}/{form}/mirror:2");
        assert_eq!(
            place.built("store", &["copy", &from, &near]),
            format!("{host}/{form}/mirror@{digest}")
        );
        assert_eq!(raw(&near), bytes);
        let far = format!("{}/{form}/base:1", other.host);
        place.built("store", &["copy", &from, &far]);
        assert_eq!(raw(&far), bytes);

        let (layout, archive) = (format!("{form}-layout"), format!("{form}.tar"));
        for to in [&layout, &archive] {
            assert_eq!(place.built("store", &["copy", &from, to]), digest);
            assert_eq!(
                place.built("store", &["verify", to, "--structure-only"]),
                digest
            );
            let back = format!("{host}/{form}/from-{to}:1");
            place.built("other-store", &["copy", to, &back]);
            assert_eq!(raw(&back), bytes);
        }
        // The archive is the same whenever it is written; what is there is replaced.
        let before = fs::read(place.path(&archive)).expect("written");
        place.built("store", &["copy", &layout, &archive]);
        assert_eq!(fs::read(place.path(&archive)).expect("written"), before);
    }
    let from = format!("{host}/oci/base:1");
    fs::create_dir(place.path("in-the-way")).expect("made");
    place.write("in-the-way/mine", "mine");
    place.refused("store", &["copy", &from, "in-the-way"], 9);
    assert!(place.path("in-the-way/mine").exists());
    place.refused(
        "store",
        &["copy", &format!("{host}/oci/none:1"), "none.tar"],
        5,
    );
    assert!(!place.path("none.tar").exists());
    place.refused("store", &["copy", &from, "off.tar", "--offline"], 5);
}

#[test]
#[ignore = "needs docker-registry and skopeo"]
fn what_is_about_an_image_is_beside_it() {
    let place = Place::new();
    let registry = Registry::start(place.directory.path(), "");
    let host = &registry.host;
    let spec = format!(
        "immbuild = 1\n[image]\nname = \"{host}/shop\"\nsteps = [ {{ write = \"/x\", text = \"x\" }} ]\n"
    );
    place.write("spec.toml", &spec);
    let pushed = place.built("store", &["build", "--push"]);
    let name = format!("{host}/shop:latest");
    place.write("bill.json", "{}");
    let words = [
        "attach",
        &name,
        "bill.json",
        "--type",
        "application/spdx+json",
    ];
    let bill = place.built("store", &words);
    assert!(bill.starts_with(&format!("{host}/shop@sha256:")), "{bill}");
    assert_eq!(place.built("store", &words), bill);
    let listed = format!("{}  application/spdx+json", digest_of(&bill));
    assert_eq!(place.built("other", &["referrers", &pushed]), listed);
    assert_eq!(
        place.built("other", &["referrers", &name, "--type", "x/y"]),
        ""
    );
    place.built("other", &["referrers", &name, "--fetch", "out"]);
    let hex = digest_of(&bill).trim_start_matches("sha256:");
    let file = place.path("out").join(hex).join("bill.json");
    assert_eq!(fs::read_to_string(file).expect("fetched"), "{}");
    // What is there is not overwritten.
    place.refused("other", &["referrers", &name, "--fetch", "out"], 9);
    let from = format!("docker://{name}");
    let raw = place.skopeo(&["inspect", "--raw", "--tls-verify=false", &from]);
    assert_eq!(Digest::of(&raw).to_string(), digest_of(&pushed));
    let error = place.refused(
        "other",
        &["attach", &name, "bill.json", "--type", "spdx"],
        2,
    );
    assert!(error.contains("no media type"), "{error}");
}

/// For those who have nothing of it; a copy is the layout `back`.
fn is_an_image_like_any_other(place: &Place, host: &str, digest: &str) {
    let name = format!("{host}/team/shop:1");
    assert_eq!(
        place.built("reader", &["verify", &name, "--structure-only"]),
        digest
    );
    place.built("reader", &["compare", &name, "back"]);
    assert!(
        place
            .built("reader", &["inspect", "--json", &name])
            .contains(digest)
    );
    let error = place.refused("unread", &["inspect", "--offline", &name], 5);
    assert!(error.contains("the network"), "{error}");
    let error = place.refused("unread", &["inspect", &format!("{host}/team/none:1")], 5);
    assert!(error.contains("team/none:1` is not there"), "{error}");
}

#[test]
#[ignore = "needs docker-registry and skopeo"]
fn dockers_own_form_of_an_image_is_a_base_too() {
    let place = Place::new();
    let registry = Registry::start(place.directory.path(), "");
    let host = &registry.host;
    let spec = base_spec("docker").replace(", \"linux/arm64\"", "");
    let spec = spec.replace("[image]\n", "[image]\ncompression = \"gzip\"\n");
    place.write("base.toml", &spec);
    place.built("base-store", &["build", "-f", "base.toml"]);
    let to = format!("docker://{host}/base:1");
    place.skopeo(&[
        "copy",
        "--format",
        "v2s2",
        "--dest-tls-verify=false",
        "oci:base:latest",
        &to,
    ]);
    let raw = place.skopeo(&["inspect", "--raw", "--tls-verify=false", &to]);
    assert!(String::from_utf8_lossy(&raw).contains("vnd.docker.distribution.manifest.v2"));
    let shop = shop_spec(host, "base:1").replace(", \"linux/arm64\"", "");
    place.write("spec.toml", &shop);
    let pushed = place.built("store", &["build", "--push"]);
    let from = format!("docker://{host}/team/shop:1");
    let config = place.skopeo(&["inspect", "--config", "--tls-verify=false", &from]);
    let config: Value = serde_json::from_slice(&config).expect("JSON");
    assert_eq!(
        config["rootfs"]["diff_ids"].as_array().map(Vec::len),
        Some(3)
    );
    assert!(pushed.contains("@sha256:"));
}

#[test]
#[ignore = "needs docker-registry, skopeo and htpasswd"]
fn a_password_is_tried_kept_and_never_told() {
    const PASSWORD: &str = "correct-horse";
    let place = Place::new();
    let output = place
        .command("htpasswd", &["-Bbn", "me", PASSWORD])
        .output()
        .expect("htpasswd is installed");
    place.write("htpasswd", &String::from_utf8_lossy(&output.stdout));
    let file = place.path("htpasswd");
    let more = format!(
        "auth: {{ htpasswd: {{ realm: test, path: \"{}\" }} }}\n",
        file.display()
    );
    let registry = Registry::start(place.directory.path(), &more);
    let host = &registry.host;
    place.write(
        "spec.toml",
        &format!("immbuild = 1\n[image]\nname = \"{host}/shop\"\nsteps = [ {{ write = \"/x\", text = \"x\" }} ]\n"),
    );
    let error = place.refused("store", &["build", "--push"], 5);
    assert!(
        error.contains(&format!("run `immbuild login {host}`")),
        "{error}"
    );

    let login = |password: &str| {
        let words = ["login", host, "--username", "me", "--password-stdin"];
        let mut command = place.command(env!("CARGO_BIN_EXE_immbuild"), &words);
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let mut input = process.stdin.take().expect("a pipe");
        std::io::Write::write_all(&mut input, format!("{password}\n").as_bytes()).expect("written");
        drop(input);
        process.wait_with_output().expect("it ends")
    };
    let kept = place.path("docker/config.json");
    let wrong = login("battery-staple");
    assert_eq!(wrong.status.code(), Some(5), "{}", said(&wrong));
    assert!(!said(&wrong).contains("battery"), "{}", said(&wrong));
    assert!(!kept.exists());
    let right = login(PASSWORD);
    assert!(right.status.success(), "{}", said(&right));
    assert!(!said(&right).contains(PASSWORD), "{}", said(&right));
    let permissions = fs::metadata(&kept).expect("kept").permissions();
    assert_eq!(permissions.mode() & 0o777, 0o600);

    let output = place.immbuild("store", &["build", "--push"]);
    assert!(output.status.success(), "{}", said(&output));
    // In base64 it would be no less told.
    let all = said(&output);
    assert!(!all.contains(PASSWORD) && !all.contains("bWU6"), "{all}");
    let name = format!("docker://{host}/shop:latest");
    let authfile = kept.display().to_string();
    let raw = place.skopeo(&[
        "inspect",
        "--raw",
        "--tls-verify=false",
        "--authfile",
        &authfile,
        &name,
    ]);
    let pushed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert_eq!(Digest::of(&raw).to_string(), digest_of(&pushed));

    as_a_base(&place, host, &kept);
}

/// For one who is let in and one who is not, as podman and as a helper have it.
fn as_a_base(place: &Place, host: &str, kept: &Path) {
    let shop = shop_spec(host, "shop:latest").replace(", \"linux/arm64\"", "");
    place.write("spec.toml", &shop);
    place.built("other", &["build"]);
    let lock = fs::read_to_string(place.path("spec.lock")).expect("a lock");
    assert!(
        !lock.contains("127.0.0.1") && !lock.contains("me"),
        "{lock}"
    );
    fs::rename(kept, place.path("podman.json")).expect("moved");
    place.refused("third", &["build"], 5);
    // podman's file does as well.
    let podman = place.path("podman.json");
    let mut command = place.command(
        env!("CARGO_BIN_EXE_immbuild"),
        &["build", "--store", "third"],
    );
    let output = command
        .env("REGISTRY_AUTH_FILE", podman)
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "{}", said(&output));
    // So does a helper, which is asked by pipe.
    let helper = "#!/bin/sh\ncat > asked\necho '{\"ServerURL\":\"x\",\"Username\":\"me\",\"Secret\":\"correct-horse\"}'\n";
    place.write("docker-credential-test", helper);
    let program = place.path("docker-credential-test");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("made executable");
    fs::create_dir_all(place.path("docker")).expect("made");
    place.write(
        "docker/config.json",
        &format!("{{\"credHelpers\":{{\"{host}\":\"test\"}}}}"),
    );
    let path = format!("{}:/usr/bin:/bin", place.directory.path().display());
    let mut command = place.command(
        env!("CARGO_BIN_EXE_immbuild"),
        &["build", "--store", "fourth"],
    );
    let output = command
        .env("PATH", path)
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "{}", said(&output));
    let asked = fs::read_to_string(place.path("asked")).expect("it was asked");
    assert_eq!(asked.trim(), host);
}

/// An authority, a registry of it, and a client of it.
fn certificates(place: &Place) {
    place.openssl(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=test authority",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
    ]);
    for (name, usage) in [("server", "serverAuth"), ("client", "clientAuth")] {
        let (key, request, certificate) = (
            format!("{name}.key"),
            format!("{name}.csr"),
            format!("{name}.pem"),
        );
        let subject = format!("/CN={name}");
        place.openssl(&[
            "req", "-newkey", "rsa:2048", "-nodes", "-subj", &subject, "-keyout", &key, "-out",
            &request,
        ]);
        place.write(
            "extensions",
            &format!("basicConstraints=CA:FALSE\nextendedKeyUsage={usage}\nsubjectAltName=IP:127.0.0.1,DNS:localhost\n"),
        );
        place.openssl(&[
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            &request,
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-extfile",
            "extensions",
            "-out",
            &certificate,
        ]);
    }
}

#[test]
#[ignore = "needs docker-registry and openssl"]
fn a_private_authority_and_a_certificate_of_ones_own_are_named_by_the_user() {
    let place = Place::new();
    certificates(&place);
    let at = |name: &str| place.path(name).display().to_string();
    let tls = format!(
        "  tls:\n    certificate: \"{}\"\n    key: \"{}\"\n",
        at("server.pem"),
        at("server.key")
    );
    let asks = format!("{tls}    clientcas: [\"{}\"]\n", at("ca.pem"));
    let registry = Registry::start(place.directory.path(), &tls);
    let strict = Registry::start(place.directory.path(), &asks);
    let spec = |host: &str| {
        let text = format!(
            "immbuild = 1\n[image]\nname = \"{host}/shop\"\nsteps = [ {{ write = \"/x\", text = \"x\" }} ]\n"
        );
        place.write("spec.toml", &text);
    };
    let configure = |host: &str, lines: &str| {
        place.write(
            "config/immbuild/config.toml",
            &format!("[registry.\"{host}\"]\n{lines}\n"),
        );
    };
    let ca = format!("ca = \"{}\"", at("ca.pem"));

    spec(&registry.host);
    configure(&registry.host, "plain-http = false");
    let error = place.refused("store", &["build", "--push"], 5);
    assert!(
        error.contains("cannot be spoken to safely") && error.contains("config.toml"),
        "{error}"
    );
    configure(&registry.host, &ca);
    let pushed = place.built("store", &["build", "--push"]);
    assert!(pushed.contains("/shop@sha256:"), "{pushed}");

    spec(&strict.host);
    configure(&strict.host, &ca);
    place.refused("store", &["build", "--push"], 5);
    let identity = format!(
        "{ca}\ncertificate = \"{}\"\nkey = \"{}\"",
        at("client.pem"),
        at("client.key")
    );
    configure(&strict.host, &identity);
    let pushed = place.built("store", &["build", "--push"]);
    assert!(pushed.contains("/shop@sha256:"), "{pushed}");
    configure(&strict.host, &format!("ca = \"{}\"", at("none.pem")));
    let error = place.refused("store", &["build", "--push"], 9);
    assert!(error.contains("none.pem"), "{error}");
}

/// Two steps, which read the clock and randomness, so that a result is known again. `more` is what the first has besides.
fn stepped_spec(more: &str) -> String {
    format!(
        "immbuild = 1\n[source.box]\npath = \"busybox\"\n[stage.base]\nsteps = [ {{ copy = \"box\", to = \"/bin/busybox\", mode = \"0755\" }}, {{ mkdir = \"/tmp\" }} ]\n[image]\nfrom = \"base\"\nsteps = [\n  {{ run = [\"/bin/busybox\", \"sh\", \"-c\", \"/bin/busybox date > /when; /bin/busybox head -c 100000 /dev/urandom > /random\"]{more} }},\n  {{ run = [\"/bin/busybox\", \"sh\", \"-c\", \"/bin/busybox cp /random /again; /bin/busybox echo hi > /tmp/x\"] }},\n]\n"
    )
}

/// A build whose spec has such steps: its digest, and how many steps were run, and how many taken.
fn shared(place: &Place, store: &str, more: &[&str]) -> (String, u64, u64, String) {
    let output = place.immbuild(store, &[&["build", "--json"][..], more].concat());
    assert!(output.status.success(), "{more:?}: {}", said(&output));
    let text = String::from_utf8(output.stdout).expect("text");
    let last: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    let number = |name: &str| last["ops"][name].as_u64().expect("a number");
    let digest = last["digest"].as_str().expect("a digest").to_owned();
    (digest, number("executed"), number("taken"), text)
}

/// A registry with what the steps gave, signed by `key`, and the digest of the image.
fn cache_of(place: &Place, registry: &Registry) -> (String, String, String) {
    fs::copy("/bin/busybox", place.path("busybox")).expect("busybox-static is installed");
    place.write("spec.toml", &stepped_spec(""));
    let public = place.built("first", &["cache", "key", "key"]);
    configure(place, &format!("key = \"{}\"", place.path("key").display()));
    let to = format!("{}/team/cache", registry.host);
    let (digest, executed, taken, said) = shared(place, "first", &["--cache-to", &to]);
    assert_eq!((executed, taken), (2, 0));
    assert!(said.contains(&format!("\"{to}\":{{\"bytes\":")), "{said}");
    assert!(said.contains("\"sent\":2,\"there\":0"), "{said}");
    (to, public, digest)
}

fn configure(place: &Place, cache: &str) {
    place.write(
        "config/immbuild/config.toml",
        &format!("[cache]\n{cache}\n"),
    );
}

#[test]
#[ignore = "needs docker-registry and busybox"]
fn another_machine_runs_no_step_again() {
    let place = Place::new();
    let registry = Registry::start(place.directory.path(), "");
    let (cache, public, digest) = cache_of(&place, &registry);
    let from = ["--cache-from", cache.as_str()];

    let (second, executed, taken, _) = shared(&place, "second", &from);
    assert_eq!((second.as_str(), executed, taken), (digest.as_str(), 0, 2));
    // It is as its own from then on, with what the steps did.
    let (second, executed, taken, _) = shared(&place, "second", &[]);
    assert_eq!((second.as_str(), executed, taken), (digest.as_str(), 0, 0));
    let sources = place.built("second", &["explain", "--sources"]);
    assert!(sources.contains("/dev/urandom"), "{sources}");
    let again = shared(&place, "second", &["--cache-to", &cache]).3;
    assert!(again.contains("\"sent\":0,\"there\":2"), "{again}");

    // Who has no key of their own takes what a named one has signed, or all of a repository.
    for trust in [
        format!("signers = [\"{public}\"]"),
        format!("unsigned = [\"{cache}\"]"),
    ] {
        configure(&place, &trust);
        let store = format!("third-{}", trust.len());
        let (third, executed, taken, _) = shared(&place, &store, &from);
        assert_eq!((third.as_str(), executed, taken), (digest.as_str(), 0, 2));
    }

    // What changes is run, and what does not is not.
    let changed = stepped_spec("").replace("echo hi", "echo ho");
    place.write("spec.toml", &changed);
    let (other, executed, taken, _) = shared(&place, "fourth", &from);
    assert_eq!((executed, taken), (1, 1));
    assert_ne!(other, digest);
}

#[test]
#[ignore = "needs docker-registry and busybox"]
fn what_nobody_vouches_for_is_not_taken() {
    let place = Place::new();
    let registry = Registry::start(place.directory.path(), "");
    let (cache, _, digest) = cache_of(&place, &registry);
    let from = ["--cache-from", cache.as_str()];
    let tags = place.path(&format!(
        "registry-{}/docker/registry/v2/repositories/team/cache/_manifests/tags",
        registry.host.rsplit(':').next().expect("a port")
    ));
    let run_here = |store: &str, cause: &str| {
        let (built, executed, taken, said) = shared(&place, store, &from);
        assert_eq!((built.as_str(), executed, taken), (digest.as_str(), 2, 0));
        assert!(said.contains(cause), "{said}");
    };
    configure(&place, "");
    let error = place.refused("second", &[&["build"][..], &from].concat(), 2);
    assert!(error.contains("nothing says who is believed"), "{error}");
    let error = place.refused("second", &["build", "--cache-to", &cache], 2);
    assert!(error.contains("nothing signs"), "{error}");
    let none = place.path("none").display().to_string();
    configure(&place, &format!("key = \"{none}\""));
    let error = place.refused("second", &["build", "--cache-to", &cache], 9);
    assert!(
        error.contains(&none) && error.contains("immbuild cache key"),
        "{error}"
    );
    place.refused("second", &["build", "--cache-from", "nothing here"], 2);

    let stranger = place.built("second", &["cache", "key", "other-key"]);
    configure(&place, &format!("signers = [\"{stranger}\"]"));
    run_here("second", "signed by nobody who is believed");

    // Whoever may write to the registry lets the key of one result lead to another.
    let key = place.path("key").display().to_string();
    configure(&place, &format!("key = \"{key}\""));
    let mut names: Vec<PathBuf> = fs::read_dir(&tags)
        .expect("tags")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    names.sort();
    let [one, other] = names.as_slice() else {
        panic!("{names:?}");
    };
    let links = [one, other].map(|tag| fs::read(tag.join("current/link")).expect("a link"));
    fs::write(one.join("current/link"), &links[1]).expect("written");
    fs::write(other.join("current/link"), &links[0]).expect("written");
    run_here("third", "signed by nobody who is believed");
    // Who vouches for what is right puts it right.
    let (_, executed, _, said) = shared(&place, "third", &["--cache-to", &cache]);
    assert_eq!(executed, 0);
    assert!(said.contains("\"sent\":2,\"there\":0"), "{said}");
    let (built, executed, taken, _) = shared(&place, "fourth", &from);
    assert_eq!((built.as_str(), executed, taken), (digest.as_str(), 0, 2));
}

#[test]
#[ignore = "needs docker-registry and busybox"]
fn a_result_that_was_tampered_with_is_made_again() {
    let place = Place::new();
    let registry = Registry::start(place.directory.path(), "");
    let (cache, _, digest) = cache_of(&place, &registry);
    let from = ["--cache-from", cache.as_str()];
    let blobs = place.path(&format!(
        "registry-{}/docker/registry/v2/blobs/sha256",
        registry.host.rsplit(':').next().expect("a port")
    ));
    // One byte of every blob that is a bundle.
    let found = place.command("find", &[&blobs.display().to_string(), "-name", "data"]);
    let found = { found }.output().expect("find");
    let mut changed = 0;
    for path in String::from_utf8_lossy(&found.stdout).lines() {
        let mut bytes = fs::read(path).expect("read");
        if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(path, bytes).expect("written");
            changed += 1;
        }
    }
    assert_eq!(changed, 2);
    let (built, executed, taken, text) = shared(&place, "second", &from);
    assert_eq!((built.as_str(), executed, taken), (digest.as_str(), 2, 0));
    assert!(text.contains("its bytes are those of"), "{text}");
    let fsck = place.built("second", &["cache", "fsck", "--json"]);
    assert!(fsck.contains("\"ok\":true"), "{fsck}");

    // A registry that does not answer is asked once.
    drop(registry);
    let (built, executed, taken, text) = shared(&place, "third", &from);
    assert_eq!((built.as_str(), executed, taken), (digest.as_str(), 2, 0));
    assert_eq!(text.matches("nothing is taken from").count(), 1, "{text}");
    // The image is there all the same.
    let output = place.immbuild("third", &["build", "--cache-to", &cache]);
    assert_eq!(output.status.code(), Some(5));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), digest);
    assert!(
        said(&output).contains("does not answer"),
        "{}",
        said(&output)
    );
    let error = place.refused("third", &["build", "--offline", "--cache-from", &cache], 5);
    assert!(error.contains("the network is off"), "{error}");
}

#[test]
#[ignore = "needs docker-registry and busybox"]
fn what_two_machines_make_of_one_step_is_told() {
    let place = Place::new();
    let registry = Registry::start(place.directory.path(), "");
    let (cache, _, _) = cache_of(&place, &registry);
    let to = ["--cache-to", cache.as_str()];
    // Of the two steps only the first sees randomness, and in this tier it is real.
    place.write("spec.toml", &stepped_spec(", tier = \"isolated\""));
    let (one, executed, _, text) = shared(&place, "one", &to);
    assert_eq!(executed, 2);
    assert!(text.contains("\"sent\":2,\"there\":0"), "{text}");
    let (other, executed, _, text) = shared(&place, "other", &to);
    assert_eq!(executed, 2);
    assert_ne!(one, other, "nothing was random");
    assert!(text.contains("to who sent it to"), "{text}");
    assert!(text.contains("step `image.1` gave "), "{text}");
    // The second step began with another root, so its result is another.
    assert!(text.contains("\"sent\":1,\"there\":1"), "{text}");
    let (third, executed, taken, _) = shared(&place, "third", &["--cache-from", &cache]);
    assert_eq!((third.as_str(), executed, taken), (one.as_str(), 0, 2));
}

#[test]
#[ignore = "needs docker-registry and busybox"]
fn no_secret_and_nothing_of_a_filled_cache_travels() {
    let place = Place::new();
    let registry = Registry::start(place.directory.path(), "");
    let (cache, _, _) = cache_of(&place, &registry);
    let to = ["--cache-to", cache.as_str()];

    // Whoever takes what a step did with a secret does not need it, and does not get it.
    place.write("spec.toml", &stepped_spec(", secrets = [\"token\"]"));
    place.write("token", "hidden-token");
    let secret = ["--secret", "token=file:token"];
    let (_, executed, _, said) = shared(&place, "first", &[&to[..], &secret].concat());
    assert_eq!(executed, 2);
    assert!(said.contains("\"sent\":2,\"there\":0"), "{said}");
    let (_, executed, taken, _) = shared(&place, "second", &["--cache-from", &cache]);
    assert_eq!((executed, taken), (0, 2));
    for entry in fs::read_dir(place.path("second")).expect("a store") {
        let path = entry.expect("an entry").path();
        let found = place.command(
            "grep",
            &["-rq", "hidden-token", &path.display().to_string()],
        );
        assert_eq!(
            { found }.status().expect("grep").code(),
            Some(1),
            "{}",
            path.display()
        );
    }

    // A directory that is filled is mounted empty for what is sent.
    let filling = stepped_spec("")
        .replace("from = \"base\"", "from = \"base\"\ncache = [\"/var/cache/x\"]")
        .replace(
            "/bin/busybox date",
            "/bin/busybox ls /var/cache/x > /seen; /bin/busybox touch /var/cache/x/filled; /bin/busybox date",
        );
    place.write("spec.toml", &filling);
    let (empty, executed, _, _) = shared(&place, "first", &[]);
    assert_eq!(executed, 2);
    let (warm, executed, ..) = shared(&place, "first", &[]);
    assert_eq!(executed, 2);
    assert_ne!(empty, warm, "the step tells the two apart");
    // The second step saw what the first had just left there.
    let (sent, executed, _, said) = shared(&place, "first", &to);
    assert_eq!((sent.as_str(), executed), (empty.as_str(), 1));
    assert!(said.contains("\"sent\":2,\"there\":0"), "{said}");
}

/// A `podman` whose images and containers are below the place, and for whom control groups are as it knows them.
fn podman(place: &Place, words: &[&str]) -> Output {
    const SCRIPT: &str = "mount --make-rprivate / && umount -R -l /sys/fs/cgroup \
        && mount -t cgroup2 none /sys/fs/cgroup && exec \"$0\" \"$@\"";
    let root = format!("--root={}", place.path("podman-root").display());
    let run = format!("--runroot={}", place.path("podman-run").display());
    let globals = [
        "-m",
        "sh",
        "-c",
        SCRIPT,
        "podman",
        &root,
        &run,
        "--storage-driver=vfs",
        "--cgroup-manager=cgroupfs",
        "--events-backend=none",
    ];
    let output = place
        .command("unshare", &[&globals[..], words].concat())
        .env_remove("DOCKER_CONFIG")
        .output()
        .expect("unshare is installed");
    assert!(
        output.status.success(),
        "podman {words:?}: {}",
        said(&output)
    );
    output
}

#[test]
#[ignore = "needs docker-registry, podman, busybox and root"]
fn podman_runs_what_is_pushed_and_what_it_pushes_is_built_on() {
    let place = Place::new();
    let registry = Registry::start(place.directory.path(), "");
    let host = &registry.host;
    fs::copy("/bin/busybox", place.path("busybox")).expect("busybox-static is installed");
    let spec = format!(
        "immbuild = 1\n[source.box]\npath = \"busybox\"\n[image]\nname = \"{host}/shop\"\ncompression = \"gzip\"\nsteps = [ {{ copy = \"box\", to = \"/bin/busybox\", mode = \"0755\" }} ]\nentrypoint = [\"/bin/busybox\", \"echo\", \"pushed and run\"]\n"
    );
    place.write("spec.toml", &spec);
    let pushed = place.built("store", &["build", "--push"]);
    podman(&place, &["pull", "--quiet", "--tls-verify=false", &pushed]);
    let format = ["image", "inspect", "--format", "{{.Digest}}"];
    let known = podman(&place, &[&format[..], &[&pushed]].concat());
    assert_eq!(
        String::from_utf8_lossy(&known.stdout).trim(),
        digest_of(&pushed)
    );
    let container = [
        "run",
        "--rm",
        "--network=none",
        "--cgroups=disabled",
        "--ulimit=nofile=1024:1024",
        "--ulimit=nproc=1024:1024",
    ];
    let printed = podman(&place, &[&container[..], &[&pushed]].concat());
    assert_eq!(printed.stdout, b"pushed and run\n");

    // It compresses anew what it pushes, in a form of its own choice.
    let theirs = format!("{host}/theirs:1");
    for form in ["v2s2", "oci"] {
        podman(
            &place,
            &[
                "push",
                "--quiet",
                "--tls-verify=false",
                "--format",
                form,
                &pushed,
                &theirs,
            ],
        );
        let base = format!(
            "immbuild = 1\n[source.base]\nimage = \"{theirs}\"\n[image]\nfrom = \"base\"\nsteps = [ {{ write = \"/more\", text = \"more\\n\" }} ]\n[[output]]\nkind = \"dir\"\ndir = \"{form}\"\n"
        );
        place.write("base.toml", &base);
        place.built("store", &["build", "-f", "base.toml"]);
        let ours = fs::read(place.path("busybox")).expect("read");
        let found = place.path(form).join("bin/busybox");
        assert_eq!(fs::read(found).expect("written"), ours, "{form}");
        fs::remove_file(place.path("base.lock")).expect("a lock");
    }
}

/// Starts a command, asks it to stop as soon as `begun`, and wants it to say that it was interrupted.
fn interrupted(place: &Place, store: &str, words: &[&str], begun: impl Fn() -> bool) {
    let mut command = place.command(env!("CARGO_BIN_EXE_immbuild"), words);
    command.args(["--store", store]).stdout(Stdio::null());
    let mut process = command.stderr(Stdio::null()).spawn().expect("it runs");
    while !begun() {
        let ended = process.try_wait().expect("a child");
        assert_eq!(ended, None, "{words:?} ended before it could be stopped");
        std::thread::sleep(Duration::from_millis(1));
    }
    let pid = process.id().to_string();
    let kill = place.command("kill", &["-INT", &pid]).status();
    assert!(kill.expect("kill is there").success());
    let status = process.wait().expect("a child");
    assert_eq!(status.code(), Some(130), "{words:?}: {status}");
}

/// Is there a file of more than a megabyte below, by whose name it is on its way?
fn on_its_way(below: &Path, name: &str) -> bool {
    let found = Command::new("find")
        .arg(below)
        .args(["-path", name, "-size", "+1M", "-print", "-quit"])
        .output()
        .expect("find is there");
    !found.stdout.is_empty()
}

#[test]
#[ignore = "needs docker-registry"]
fn who_stops_on_the_way_leaves_no_tag_and_goes_on_later() {
    let place = Place::new();
    let registry = Registry::start(place.directory.path(), "");
    let host = &registry.host;
    let storage = place.path(&format!(
        "registry-{}",
        host.rsplit(':').next().expect("a port")
    ));
    // So much that nobody has sent or fetched it before it is seen on its way.
    let mut bytes = vec![0_u8; 256 << 20];
    let mut state = 1_u64;
    for piece in bytes.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        piece.copy_from_slice(&state.to_le_bytes());
    }
    fs::write(place.path("large"), bytes).expect("written");
    let spec = format!(
        "immbuild = 1\n[source.large]\npath = \"large\"\n[image]\nname = \"{host}/large\"\ncompression = \"none\"\nsteps = [ {{ copy = \"large\", to = \"/large\" }} ]\n"
    );
    place.write("spec.toml", &spec);
    let digest = place.built("store", &["build"]);
    interrupted(&place, "store", &["push"], || {
        on_its_way(&storage, "*/_uploads/*")
    });
    let tags = place.path(&format!(
        "{}/docker/registry/v2/repositories/large/_manifests",
        storage.display()
    ));
    assert!(!tags.exists(), "something was tagged");
    let pushed = place.built("store", &["push"]);
    assert_eq!(digest_of(&pushed), digest);

    let base = format!(
        "immbuild = 1\n[source.base]\nimage = \"{pushed}\"\n[image]\nfrom = \"base\"\nsteps = [ {{ mkdir = \"/more\" }} ]\n"
    );
    place.write("base.toml", &base);
    let words = ["build", "-f", "base.toml"];
    interrupted(&place, "other", &words, || {
        on_its_way(&place.path("other"), "*/tmp/*")
    });
    let fsck = place.built("other", &["cache", "fsck", "--json"]);
    assert!(fsck.contains("\"ok\":true"), "{fsck}");
    place.built("other", &words);
}
