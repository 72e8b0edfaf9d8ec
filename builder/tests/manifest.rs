//! `[runtime]` and `immbuild manifest`: labels, a pod that the published schema takes, a fragment that a runtime obeys.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

const SPEC: &str = r#"
immbuild = 1
[image]
name = "registry.example.com/team/shop"
steps = [
  { write = "/shop.conf", text = "listen = 8080\n" },
  { mkdir = "/tmp", mode = "1777" },
]
entrypoint = ["/shop", "--name", "no"]
user = "10001:10002"
workdir = "/tmp"
expose = [8080, "53/udp"]
env = { LEVEL = "1" }

[runtime]
readonly = true
writable = ["/var/cache/shop", "/tmp"]
"#;

struct Place(tempfile::TempDir);

impl Place {
    fn new(spec: &str) -> Self {
        let place = Self(tempfile::tempdir().expect("a directory"));
        place.write("spec.toml", spec);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
    }

    fn output(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_immbuild"))
            .args(args)
            .args(["--store", ".store"])
            .current_dir(self.0.path())
            .env_remove("SOURCE_DATE_EPOCH")
            .output()
            .expect("it runs")
    }

    fn run(&self, args: &[&str]) -> String {
        let output = self.output(args);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {told}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn json(&self, args: &[&str]) -> Value {
        let text = self.run(&[args, &["--json"]].concat());
        serde_json::from_str(&text).expect("JSON")
    }

    fn refused(&self, args: &[&str], code: i32) -> String {
        let output = self.output(args);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{told}");
        told
    }
}

/// The published schema of a pod (`schemas/README.md`).
fn schema() -> jsonschema::Validator {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemas/kubernetes-1.37-pod.json");
    let text = fs::read_to_string(path).expect("it is there");
    let schema = serde_json::from_str(&text).expect("JSON");
    jsonschema::validator_for(&schema).expect("a schema")
}

fn assert_valid(pod: &Value) {
    let schema = schema();
    let errors: Vec<String> = schema
        .iter_errors(pod)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert_eq!(errors, [""; 0], "{pod:#}");
}

#[test]
fn a_pod_is_pinned_and_writes_only_where_it_may() {
    let place = Place::new(SPEC);
    let digest = place.run(&["build", "--quiet"]);
    let digest = digest.trim();
    let text = place.run(&["manifest", "k8s"]);
    let expected = format!(
        r#"apiVersion: "v1"
kind: "Pod"
metadata:
  name: "shop"
spec:
  containers:
    - image: "registry.example.com/team/shop@{digest}"
      name: "shop"
      ports:
        - containerPort: 53
          protocol: "UDP"
        - containerPort: 8080
          protocol: "TCP"
      securityContext:
        readOnlyRootFilesystem: true
        runAsGroup: 10002
        runAsNonRoot: true
        runAsUser: 10001
      volumeMounts:
        - mountPath: "/tmp"
          name: "writable-0"
        - mountPath: "/var/cache/shop"
          name: "writable-1"
  volumes:
    - emptyDir: {{}}
      name: "writable-0"
    - emptyDir: {{}}
      name: "writable-1"
"#
    );
    assert_eq!(text, expected);
    let pod = place.json(&["manifest", "k8s"]);
    assert_valid(&pod);
    // The schema is one that can say no.
    let mut wrong = pod.clone();
    wrong["spec"]["containers"][0]["securityContext"]["readOnlyRootFileSystem"] = json!(true);
    assert!(!schema().is_valid(&wrong));

    place.run(&["manifest", "k8s", "-o", "pod.yaml"]);
    assert_eq!(
        fs::read_to_string(place.path("pod.yaml")).expect("written"),
        text
    );
    let elsewhere = place.json(&["manifest", "k8s", "--name", "localhost:5000/other"]);
    assert_eq!(
        elsewhere["spec"]["containers"][0]["image"],
        json!(format!("localhost:5000/other@{digest}"))
    );
    assert_valid(&elsewhere);
}

#[test]
fn an_image_that_says_nothing_is_a_small_pod() {
    let place = Place::new("immbuild = 1\n[image]\nsteps = [{ mkdir = \"/a\" }]\n");
    place.run(&["build", "--quiet"]);
    let told = place.refused(&["manifest", "k8s"], 2);
    assert!(told.contains("cannot tell where"), "{told}");
    let pod = place.json(&["manifest", "k8s", "--name", "localhost/_"]);
    assert_valid(&pod);
    assert_eq!(pod["metadata"]["name"], json!("image"));
    assert_eq!(
        pod["spec"]["containers"][0]["securityContext"],
        json!({ "readOnlyRootFilesystem": false, "runAsGroup": 0, "runAsUser": 0 })
    );
    assert_eq!(pod["spec"].get("volumes"), None);
}

#[test]
fn several_platforms_are_one_pod() {
    let spec = SPEC.replace(
        "[image]",
        "[image]\nplatforms = [\"linux/amd64\", \"linux/arm64\"]",
    );
    let place = Place::new(&spec);
    let index = place.run(&["build", "--quiet"]);
    let pod = place.json(&["manifest", "k8s"]);
    assert_eq!(
        pod["spec"]["containers"][0]["image"],
        json!(format!("registry.example.com/team/shop@{}", index.trim()))
    );
    let spec = spec.replace("LEVEL = \"1\"", "LEVEL = \"${arch}\"");
    place.write("spec.toml", &spec);
    place.run(&["build", "--quiet"]);
    let told = place.refused(&["manifest", "k8s"], 2);
    assert!(
        told.contains("is run otherwise on linux/amd64 than on linux/arm64"),
        "{told}"
    );
}

#[test]
fn the_contract_is_labels_that_images_inherit() {
    let place = Place::new(&format!(
        "{SPEC}\n[[output]]\nkind = \"oci-layout\"\ndir = \"out\"\n"
    ));
    place.run(&["build", "--quiet"]);
    let labels = |place: &Place| {
        let found = place.json(&["inspect"]);
        found["images"][0]["labels"].clone()
    };
    let said = json!({
        "immbuild.runtime.readonly": "true",
        "immbuild.runtime.writable": "[\"/tmp\",\"/var/cache/shop\"]",
    });
    assert_eq!(labels(&place), said, "{}", place.json(&["inspect"]));
    let above = "immbuild = 1\nsource.base.image = \"./out\"\n[image]\nfrom = \"base\"\n";
    let of = |text: &str| {
        place.write("spec.toml", &format!("{above}{text}"));
        place.run(&["build", "--quiet"]);
        place.json(&["manifest", "oci"])["root"]["readonly"].clone()
    };
    assert_eq!(of(""), json!(true));
    assert_eq!(labels(&place), said);
    assert_eq!(of("[runtime]\nreadonly = false\n"), json!(false));
    // It is part of the image, so another contract is another image.
    assert_eq!(of("[runtime]\nwritable = []\n"), json!(true));
    assert_eq!(place.json(&["manifest", "oci"])["mounts"], json!([]));
}

#[test]
fn what_is_hidden_is_told_and_what_cannot_be_is_refused() {
    let place = Place::new(&SPEC.replace("\"/tmp\"]", "\"/shop.conf\"]"));
    let told = place.refused(&["build"], 3);
    assert!(
        told.contains("error: `/shop.conf` is no directory, and `[runtime]` makes it one"),
        "{told}"
    );
    assert!(told.contains("spec.toml:"), "{told}");
    let spec = SPEC.replace("\"/shop.conf\"", "\"/tmp/shop.conf\"");
    place.write("spec.toml", &spec);
    let output = place.output(&["build"]);
    assert!(output.status.success());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("the container does not see what the image has in `/tmp`"),
        "{told}"
    );
}

#[test]
fn a_fragment_says_what_the_image_decides() {
    let place = Place::new(SPEC);
    place.run(&["build", "--quiet"]);
    let mount = |path: &str| {
        json!({
            "destination": path,
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "nodev", "mode=1777"],
        })
    };
    let fragment = place.json(&["manifest", "oci"]);
    assert_eq!(
        fragment,
        json!({
            "process": {
                "user": { "uid": 10001, "gid": 10002 },
                "args": ["/shop", "--name", "no"],
                "env": ["LEVEL=1"],
                "cwd": "/tmp",
            },
            "root": { "path": "rootfs", "readonly": true },
            "mounts": [mount("/tmp"), mount("/var/cache/shop")],
        })
    );
    let text = place.run(&["manifest", "oci"]);
    assert!(text.ends_with("}\n"));
    assert_eq!(
        serde_json::from_str::<Value>(&text).expect("JSON"),
        fragment
    );
}

#[test]
fn the_example_has_what_the_book_shows() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/readonly");
    let place = Place::new(&fs::read_to_string(example.join("spec.toml")).expect("there"));
    for name in ["hello", "spec.lock"] {
        fs::copy(example.join(name), place.path(name)).expect("copied");
    }
    place.run(&["build", "--locked", "--expected"]);
    let expected = |name: &str| fs::read_to_string(example.join(name)).expect("there");
    assert_eq!(place.run(&["manifest", "k8s"]), expected("pod.yaml"));
    assert_eq!(place.run(&["manifest", "oci"]), expected("config.json"));
    assert_valid(&place.json(&["manifest", "k8s"]));
}

/// A YAML reader that is not ours reads what we mean.
#[test]
#[ignore = "needs python3-yaml"]
fn yaml_is_what_others_read() {
    let place = Place::new(SPEC);
    place.run(&["build", "--quiet"]);
    place.run(&["manifest", "k8s", "-o", "pod.yaml"]);
    let script = "import json, yaml; print(json.dumps(yaml.safe_load(open('pod.yaml'))))";
    let output = Command::new("/usr/bin/python3")
        .args(["-c", script])
        .current_dir(place.path(""))
        .output()
        .expect("it runs");
    let read: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(read, place.json(&["manifest", "k8s"]));
    assert_valid(&read);
}

const BUSY: &str = r#"
immbuild = 1
source.busybox.path = "/bin/busybox"
[image]
name = "localhost/busy"
steps = [
  { copy = "busybox", to = "/bin/busybox", mode = "0755" },
  { mkdir = "/var/cache/shop" },
  { mkdir = "/work" },
]
entrypoint = ["/bin/busybox", "sh", "-c"]
cmd = ["/bin/busybox id -u; /bin/busybox touch /work/x; /bin/busybox touch /var/cache/shop/x && echo written; echo $LEVEL"]
user = "10001:10002"
env = { LEVEL = "level 1" }
[runtime]
readonly = true
writable = ["/var/cache/shop"]
[[output]]
kind = "dir"
dir = "bundle/rootfs"
"#;

/// What `crun spec` writes, with our fragment over it, is a container that may write where the spec says and nowhere else.
#[test]
#[ignore = "needs crun and busybox-static, as root"]
fn a_runtime_obeys_the_fragment() {
    let place = Place::new(BUSY);
    place.run(&["build", "--quiet"]);
    let fragment = place.json(&["manifest", "oci"]);
    let bundle = place.path("bundle");
    let status = Command::new("crun")
        .arg("spec")
        .current_dir(&bundle)
        .status();
    assert!(status.expect("it runs").success());
    let path = bundle.join("config.json");
    let text = fs::read_to_string(&path).expect("written");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    for (name, value) in fragment["process"].as_object().expect("fields") {
        config["process"][name] = value.clone();
    }
    config["process"]["terminal"] = json!(false);
    config["root"] = fragment["root"].clone();
    let mounts = config["mounts"].as_array_mut().expect("mounts");
    mounts.extend(fragment["mounts"].as_array().expect("mounts").clone());
    fs::write(&path, config.to_string()).expect("written");
    let id = format!("immbuild-manifest-{}", std::process::id());
    // crun refuses hosts that mount cgroups of both versions, so it sees one of its own.
    let script = "mount --make-rprivate / && umount -R -l /sys/fs/cgroup \
        && mount -t cgroup2 none /sys/fs/cgroup && exec crun \"$@\"";
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "crun"])
        .args(["--root", &place.path("state").display().to_string()])
        .args(["--cgroup-manager=disabled", "run", "--bundle"])
        .arg(&bundle)
        .arg(&id)
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "10001\nwritten\nlevel 1\n",
        "{told}"
    );
    assert!(told.contains("/work/x: Read-only file system"), "{told}");
}
