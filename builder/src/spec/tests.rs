//! The language as a whole: what specs mean, what the schema says of them, and that no text makes the parser fall over.
#![allow(clippy::disallowed_methods, reason = "every example, in any order")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use immbuild_cas::path::RelPath;
use immbuild_cas::tree::Mode;
use proptest::prelude::*;
use serde_json::Value;

use super::document::{self, Data, Table};
use super::keys;
use super::model::*;
use super::*;
use crate::diag::{Span, boundary};

const HELLO: &str = include_str!("../../tests/specs/hello.toml");
const EVERYTHING: &str = include_str!("../../tests/specs/everything.toml");

fn spec(text: &str) -> Spec {
    parse(text, "spec.toml").unwrap_or_else(|errors| {
        panic!(
            "{}",
            crate::diag::render_all(&errors, crate::diag::Style::Plain)
        )
    })
}

fn platform(text: &str) -> Platform {
    text.parse().expect("a platform")
}

fn ident(text: &str) -> Ident {
    Ident::new(text).expect("a name")
}

fn path(text: &str) -> RelPath {
    RelPath::from_absolute(text.as_bytes()).expect("a path")
}

fn arguments(spec: &Spec, overrides: &[(&str, &str)]) -> Arguments {
    let overrides = overrides
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    spec.arguments(&overrides).expect("declared")
}

fn resolved(text: &str, on: &str) -> Resolved {
    let spec = spec(text);
    let defaults = arguments(&spec, &[]);
    spec.resolve(platform(on), &defaults).expect("no errors")
}

fn debian(text: &str, name: &str) -> DebianSource {
    match &resolved(text, "linux/amd64").sources[&ident(name)].kind {
        SourceKind::Debian(source) => source.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn everything_said_of_packages_arrives() {
    let text = |text: &str| text.to_owned();
    let os = DebianSource {
        suite: text("bookworm"),
        distro: text("debian"),
        packages: vec![text("nginx-light"), text("ca-certificates")],
        spans: ["\"nginx-light\"", "\"ca-certificates\""]
            .map(|written| {
                let start = EVERYTHING.find(written).expect("it is there");
                let end = start + written.len();
                Span { start, end }
            })
            .to_vec(),
        recommends: true,
        configure: Configure::None,
        essential: false,
        prefer: vec![text("usr-is-merged")],
        exclude: vec![text("iproute2")],
        archives: vec![DebianArchive {
            name: ident("main"),
            mirrors: vec![text("https://mirror.example.com/debian")],
            snapshot: Some(text(
                "https://snapshot.example.com/archive/debian/{timestamp}",
            )),
            suites: vec![text("bookworm"), text("bookworm-updates")],
            components: vec![text("main"), text("contrib")],
            signed_by: Some(text("keys/archive.gpg")),
            fingerprints: vec![text("4CB50190207B4758A3F73A796ED0E7B82643E131")],
            max_age: Some(Duration::from_secs(240 * 3600)),
        }],
        fixups: Fixups {
            accounts: vec![
                FixupAccount {
                    name: text("www-data"),
                    ids: None,
                },
                FixupAccount {
                    name: text("shop"),
                    ids: Some((10001, 10001)),
                },
            ],
            alternatives: BTreeMap::from([(text("editor"), path("/usr/bin/vim.tiny"))]),
            ca_bundle: Some(true),
            symlinks: BTreeMap::from([(
                path("/etc/nginx/modules-enabled/50.conf"),
                text("/usr/share/nginx/modules-available/echo.conf"),
            )]),
            dirs: vec![Mkdir {
                path: path("/var/log/nginx"),
                mode: Mode::new(0o755),
                owner: Some(Owner::Ids { uid: 0, gid: 4 }),
            }],
            prune: BTreeSet::from([Prune::Docs, Prune::Man]),
        },
    };
    assert_eq!(debian(EVERYTHING, "os"), os);
}

#[test]
fn a_suite_alone_means_its_updates_and_its_security_suite() {
    let plain = debian(EVERYTHING, "plain");
    assert_eq!(
        (plain.configure, plain.essential, plain.recommends),
        (Configure::Scripts, true, false)
    );
    let archives: Vec<(&str, String, String)> = plain
        .archives
        .iter()
        .map(|it| {
            (
                it.name.as_str(),
                it.suites.join(" "),
                it.components.join(" "),
            )
        })
        .collect();
    let expected = |name, suites: &str| (name, suites.to_owned(), "main".to_owned());
    assert_eq!(
        archives,
        [
            expected("main", "bookworm bookworm-updates"),
            expected("security", "bookworm-security")
        ]
    );
}

#[test]
fn mirrors_snapshots_and_fixups_are_in_no_request() {
    let request = |from: &str, to: &str| {
        assert!(EVERYTHING.contains(from), "{from}");
        let text = EVERYTHING.replace(from, to);
        resolved(&text, "linux/amd64").sources[&ident("os")].request()
    };
    let asked = request("steps", "steps");
    for (from, to) in [
        (
            "https://mirror.example.com/debian",
            "https://other.example.com/debian",
        ),
        ("/archive/debian/{timestamp}", "/{timestamp}"),
        ("max-age = \"240h\"", "max-age = \"1h\""),
        ("prune = [\"docs\", \"man\"]", "prune = []"),
        (
            "\"nginx-light\", \"ca-certificates\"",
            "\"ca-certificates\", \"nginx-light\"",
        ),
    ] {
        assert_eq!(request(from, to), asked, "{to}");
    }
    for (from, to) in [
        ("\"nginx-light\", ", ""),
        ("recommends = true", "recommends = false"),
        ("prefer = [\"usr-is-merged\"]", ""),
        ("exclude = [\"iproute2\"]", ""),
        ("\"bookworm-updates\"]", "\"bookworm-backports\"]"),
        ("\"contrib\"]", "\"non-free\"]"),
        ("keys/archive.gpg", "keys/other.gpg"),
        ("4CB5 0190", "4CB5 0191"),
    ] {
        assert_ne!(request(from, to), asked, "{to}");
    }
}

#[test]
fn hello_is_one_file_and_an_entrypoint() {
    let hello = resolved(HELLO, "linux/amd64");
    assert_eq!(hello.epoch, None);
    assert_eq!(
        hello.sources[&ident("hello")].kind,
        SourceKind::Path(PathSource {
            path: "dist/hello".into(),
            include: vec![],
            exclude: vec![],
            ignore: vec![".immignore".into()],
            preserve: false,
        })
    );
    let stage = &hello.stages[&Ident::image()];
    let [step] = stage.steps.as_slice() else {
        panic!("one step")
    };
    let Verb::Copy(copy) = &step.verb else {
        panic!("a copy")
    };
    assert_eq!(copy.from.origin, Origin::Source(ident("hello")));
    assert_eq!(
        (&copy.from.path, &copy.to),
        (&RelPath::root(), &path("/hello"))
    );
    assert_eq!((copy.mode, copy.dir_mode), (Mode::new(0o755), None));
    assert_eq!(hello.image.platforms, [platform("linux/amd64")]);
    assert_eq!(hello.image.tags, ["latest"]);
    assert_eq!(hello.image.compression, Compression::Zstd);
    assert_eq!(hello.image.layers, Layers::PerStep);
    assert_eq!(hello.image.config.entrypoint, Some(vec!["/hello".into()]));
    assert_eq!(hello.image.config.user, None);
    assert!(!stage.executes());
}

#[test]
fn everything_said_of_sources_arrives() {
    let it = resolved(EVERYTHING, "linux/arm64");
    assert_eq!(
        it.epoch.map(|epoch| epoch.to_string()),
        Some("2026-11-21T00:53:02Z".into())
    );

    let kind = |name: &str| &it.sources[&ident(name)].kind;
    let SourceKind::Http(tool) = kind("tool") else {
        panic!("http")
    };
    assert_eq!(tool.url, "https://example.com/tool-arm64.tar.gz");
    let how = Unpacking {
        strip: 1,
        preserve: true,
    };
    assert_eq!(tool.unpack, Some(how));
    let SourceKind::Git(vendor) = kind("vendor") else {
        panic!("git")
    };
    assert_eq!(
        vendor.repository,
        Repository::Remote("https://example.com/vendor.git".into())
    );
    assert_eq!(vendor.subdir, path("/lib/core"));
    let SourceKind::Git(here) = kind("here") else {
        panic!("git")
    };
    assert_eq!(here.repository, Repository::Local(".".into()));
    assert_eq!(here.rev.as_deref(), Some("v1.4.0"));
    let SourceKind::Python(wheels) = kind("wheels") else {
        panic!("python")
    };
    assert_eq!(
        *wheels,
        PythonSource {
            file: "locks/uv.lock".into(),
            interpreter: Interpreter {
                major: 3,
                minor: 11,
                patch: Some(2),
            },
            libc: Libc::Musl { minor: 2 },
            groups: vec!["prod".into()],
            extras: vec!["Async_IO".into()],
            content: None,
        }
    );
    assert!(wheels.is_lock() && !it.sources["wheels"].is_locked());
    let SourceKind::Cargo(crates) = kind("crates") else {
        panic!("cargo")
    };
    assert_eq!(crates.file, "Cargo.lock");
    assert!(!it.sources["crates"].is_locked());
    let per_platform: Vec<&str> = it
        .sources
        .values()
        .filter(|source| source.per_platform)
        .map(|source| source.name.as_str())
        .collect();
    assert_eq!(per_platform, ["tool"]);
}

#[test]
fn everything_said_of_a_stage_arrives() {
    let it = resolved(EVERYTHING, "linux/arm64");
    let build = &it.stages[&ident("build")];
    assert_eq!(build.platform, platform("linux/amd64"));
    assert_eq!(build.cache, [path("/root/.cache"), path("/var/cache/cc")]);
    assert_eq!(build.env["ARCH"], "arm64");
    assert_eq!(
        build.steps[2].verb,
        Verb::Run(Run {
            command: Command::Argv(vec!["make".into(), "VERSION=1.4.0".into()]),
            directory: path("/src"),
            env: BTreeMap::from([("V".into(), "1".into())]),
            owner: Owner::Named {
                user: "nobody".into(),
                group: None
            },
            secrets: BTreeSet::from(["token".into()]),
            tier: Tier::Deterministic,
            metadata: Metadata::Clamp,
            timeout: Some(Duration::from_secs(1800)),
        })
    );
    let Verb::Run(shell) = &build.steps[3].verb else {
        panic!("shell")
    };
    assert_eq!(
        shell.command.argv(),
        ["/bin/sh", "-eu", "-c", "make install"]
    );
    assert_eq!(shell.env["V"], "${x}");
}

#[test]
fn scripts_of_packages_get_the_tier_of_what_they_are_installed_by() {
    let text = "immbuild = 1\ntier = \"strict\"\n[source.os]\ndebian = \"bookworm\"\npackages = [\"dash\"]\n\
         [stage.own]\ntier = \"isolated\"\nsteps = [{ install = \"os\" }]\n\
         [image]\nfrom = \"os\"\nsteps = [{ install = \"os\" }]\n";
    let it = resolved(text, "linux/amd64");
    assert_eq!(it.tier, Tier::Strict);
    let of = |stage: &Ident| match &it.stages[stage].steps[0].verb {
        Verb::Install(install) => install.tier,
        other => panic!("{other:?}"),
    };
    assert_eq!(of(&ident("own")), Tier::Isolated);
    assert_eq!(of(&Ident::image()), Tier::Strict);
    let unsaid = resolved(&text.replace("tier = \"strict\"\n", ""), "linux/amd64");
    assert_eq!(unsaid.tier, Tier::Deterministic);
}

#[test]
fn everything_said_of_the_image_arrives() {
    let it = resolved(EVERYTHING, "linux/arm64");
    let image = &it.stages[&Ident::image()];
    assert!(image.env.is_empty(), "`[image.env]` never reaches steps");
    assert_eq!(it.image.config.env["APP"], "42");
    assert_eq!(it.image.layers, Layers::PerPackage(10));
    let Some(Verb::Install(install)) = image.steps.last().map(|step| &step.verb) else {
        panic!("it comes last");
    };
    assert_eq!(install.origin, Origin::Source(ident("plain")));
    assert_eq!(
        image.steps[1].verb,
        Verb::User(User {
            name: "app".into(),
            uid: 10001,
            gid: 10002,
            home: Some(path("/home/app")),
            login: "/bin/sh".into(),
            groups: vec!["audio".into()],
        })
    );
    assert_eq!(
        image.steps[2].verb,
        Verb::User(User {
            name: "bare".into(),
            uid: 0,
            gid: 0,
            home: None,
            login: "/usr/sbin/nologin".into(),
            groups: vec![],
        })
    );
    assert_eq!(
        image.steps[4].verb,
        Verb::Write(Write {
            path: path("/etc/app.conf"),
            text: "version = 1.4.0\n".into(),
            mode: Mode::new(0o600).expect("a mode"),
            owner: Owner::Named {
                user: "app".into(),
                group: Some("app".into())
            },
        })
    );
    let ports: Vec<String> = it
        .image
        .config
        .expose
        .iter()
        .flatten()
        .map(Port::to_string)
        .collect();
    assert_eq!(ports, ["53/udp", "8080/tcp", "8443/tcp"]);
    assert_eq!(it.image.tags, ["1.4.0", "latest"]);
    assert_eq!(it.image.config.cmd, Some(vec![]));
    let outputs: Vec<(&str, &str)> = it
        .outputs
        .iter()
        .map(|output| (output.kind.as_str(), output.path.as_str()))
        .collect();
    assert_eq!(
        outputs,
        [
            ("oci-archive", "out/app.tar"),
            ("docker-archive", "out/docker-arm64.tar"),
            ("oci-layout", "out/layout"),
            ("dir", "out/root/linux/arm64"),
            ("function-zip", "out/function-arm64.zip"),
        ]
    );
}

#[test]
fn steps_in_brackets_equal_steps_in_a_list() {
    let list = "immbuild = 1\n[image]\nsteps = [\n  { mkdir = \"/a\" },\n  { link = \"/b\", to = \"a\" },\n]\n";
    let tables = "immbuild = 1\n[image]\n[[image.steps]]\nmkdir = \"/a\"\n[[image.steps]]\nlink = \"/b\"\nto = \"a\"\n";
    let verbs = |text| -> Vec<Verb> {
        let mut resolved = resolved(text, "linux/amd64");
        let image = resolved.stages.remove(&Ident::image()).expect("there");
        image.steps.into_iter().map(|step| step.verb).collect()
    };
    assert_eq!(verbs(list), verbs(tables));
}

#[test]
fn what_a_stage_needs_comes_before_it() {
    let it = resolved(EVERYTHING, "linux/amd64");
    let names = |wanted| -> Vec<&str> {
        it.needed(wanted)
            .iter()
            .map(|it| it.name.as_str())
            .collect()
    };
    assert_eq!(names("image"), ["build", "image"]);
    assert_eq!(names("test"), ["build", "image", "test"]);
    assert_eq!(names("nobody"), [""; 0]);
}

#[test]
fn an_argument_overrides_its_default_and_must_be_declared() {
    let spec = spec(EVERYTHING);
    let arguments = arguments(&spec, &[("version", "2.0")]);
    let it = spec
        .resolve(platform("linux/amd64"), &arguments)
        .expect("no errors");
    assert_eq!(it.image.tags, ["2.0", "latest"]);
    let unknown = spec
        .arguments(&BTreeMap::from([("vresion".into(), "2.0".into())]))
        .expect_err("not declared");
    assert_eq!(
        unknown.to_string(),
        "the spec declares no argument `vresion`"
    );
    assert_eq!(unknown.hint, "did you mean `--arg version=2.0`?");
}

#[test]
fn an_argument_can_make_a_spec_wrong() {
    let spec = spec("immbuild = 1\nargs.to = \"/a\"\n[image]\nsteps = [{ mkdir = \"${to}\" }]\n");
    let arguments = arguments(&spec, &[("to", "a/")]);
    let errors = spec
        .resolve(platform("linux/amd64"), &arguments)
        .expect_err("`a/` is no path");
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].message, "`a/` is not an absolute path");
}

#[test]
fn a_request_is_what_is_asked_for_and_nothing_else() {
    let request = |source: &str| {
        let text = format!("immbuild = 1\nargs.v = \"1\"\n[source.a]\n{source}\n[image]\n");
        resolved(&text, "linux/amd64").sources[&ident("a")].request()
    };
    let http = request("http = \"https://example.com/1\"");
    for same in [
        "http = \"https://example.com/${v}\" # why",
        "mirrors = [\"https://mirror.example.com/1\"]\nhttp = 'https://example.com/1'",
        "http = \"https://example.com/1\"\r\nunpack = true\r\nstrip = 1",
    ] {
        assert_eq!(request(same), http, "{same}");
    }
    let git = "git = \"https://example.com/r\"";
    let different = [
        "http = \"https://example.com/2\"".to_owned(),
        format!(
            "http = \"https://example.com/1\"\nsha256 = \"{}\"",
            "0".repeat(64)
        ),
        git.to_owned(),
        format!("{git}\nrev = \"v1\""),
        format!("{git}\nsubdir = \"a\""),
        format!("{git}\nsubmodules = true"),
        "image = \"./a\"".to_owned(),
        "image = \"./a\"\ntag = \"b\"".to_owned(),
        "image = \"./b\"".to_owned(),
    ];
    let requests: BTreeSet<_> = different
        .iter()
        .map(|it| request(it))
        .chain([http])
        .collect();
    assert_eq!(requests.len(), different.len() + 1);
    assert_eq!(request(git), request(&format!("{git}\nrev = \"HEAD\"")));
}

/// A document as the tools of JSON Schema see it.
fn to_json(table: &Table) -> Value {
    fn value(data: &Data) -> Value {
        match data {
            Data::String(text) | Data::Datetime(text) => text.as_str().into(),
            Data::Integer(number) => (*number).into(),
            Data::Float => 0.5.into(),
            Data::Boolean(it) => (*it).into(),
            Data::Array(values) => values.iter().map(|it| value(&it.data)).collect(),
            Data::Table(table) => to_json(table),
        }
    }
    let entries = table.entries.iter();
    entries
        .map(|it| (it.key.clone(), value(&it.value.data)))
        .collect()
}

fn json_of(text: &str) -> Value {
    let file = document::source_file("spec.toml", text);
    to_json(&document::parse(&file).expect("TOML"))
}

fn validator() -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(&schema::schema()).expect("JSON");
    jsonschema::draft202012::meta::validate(&schema).expect("a schema");
    jsonschema::draft202012::new(&schema).expect("a schema")
}

/// The specs of `examples/`, each with its path.
fn examples() -> Vec<(String, String)> {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    let directories = std::fs::read_dir(examples).expect("there are examples");
    let specs = directories.filter_map(|it| {
        let path = it.expect("readable").path().join("spec.toml");
        let text = std::fs::read_to_string(&path).ok()?;
        Some((path.display().to_string(), text))
    });
    specs.collect()
}

#[test]
fn the_schema_takes_what_the_parser_takes() {
    let validator = validator();
    let examples = examples();
    assert!(!examples.is_empty());
    let ours = [("hello", HELLO), ("everything", EVERYTHING)];
    let ours = ours.map(|(name, text)| (name.to_owned(), text.to_owned()));
    for (name, text) in ours.into_iter().chain(examples) {
        assert_eq!(spec(&text).warnings(), [], "{name}");
        let errors: Vec<String> = validator
            .iter_errors(&json_of(&text))
            .map(|it| format!("{}: {it}", it.instance_path()))
            .collect();
        assert_eq!(errors, [""; 0], "{name}");
    }
}

/// Every table of a document with the path that leads there.
fn tables<'v>(
    value: &'v Value,
    path: String,
    found: &mut Vec<(String, &'v serde_json::Map<String, Value>)>,
) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                tables(
                    value,
                    format!("{path}/{}", key.replace('~', "~0").replace('/', "~1")),
                    found,
                );
            }
            found.push((path, map));
        }
        Value::Array(values) => {
            for (at, value) in values.iter().enumerate() {
                tables(value, format!("{path}/{at}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn the_schema_refuses_a_key_more_in_any_closed_table() {
    let validator = validator();
    let document = json_of(EVERYTHING);
    let mut found = Vec::new();
    tables(&document, String::new(), &mut found);
    let open = [
        "/args",
        "/source",
        "/stage",
        "env",
        "/image/labels",
        "/image/annotations",
        "/fixups/alternatives",
        "/fixups/symlinks",
    ];
    let mut tried = 0;
    for (path, _) in found {
        if open.iter().any(|it| path.ends_with(it)) {
            continue;
        }
        let mut changed = document.clone();
        let table = changed.pointer_mut(&path).and_then(Value::as_object_mut);
        table
            .expect("a table")
            .insert("entrypiont".into(), "x".into());
        assert!(!validator.is_valid(&changed), "{path}");
        tried += 1;
    }
    assert!(tried > 25, "{tried}");
}

#[test]
fn every_key_is_tried() {
    let document = json_of(EVERYTHING);
    let mut found = Vec::new();
    tables(&document, String::new(), &mut found);
    for keys in keys::all() {
        for key in keys.keys {
            if matches!(key.need, keys::Need::Later(_)) {
                continue;
            }
            let tried = found.iter().any(|(_, table)| {
                table.contains_key(key.name)
                    && table.keys().all(|it| keys.get(it).is_some())
                    && keys
                        .keys
                        .iter()
                        .filter(|it| it.need == keys::Need::Required)
                        .all(|it| table.contains_key(it.name))
            });
            assert!(tried, "{}: `{}`", keys.name, key.name);
        }
    }
}

#[test]
fn completion_of_a_step_is_that_of_its_verb() {
    let schema: Value = serde_json::from_str(&schema::schema()).expect("JSON");
    let steps = schema["$defs"]["step"]["oneOf"].as_array().expect("verbs");
    let verbs: Vec<&str> = steps.iter().filter_map(|it| it["title"].as_str()).collect();
    assert_eq!(
        verbs,
        [
            "copy", "write", "install", "run", "shell", "mkdir", "link", "remove", "user", "unpack"
        ]
    );
    for step in steps {
        let verb = step["title"].as_str().expect("a title");
        assert_eq!(step["additionalProperties"], Value::Bool(false));
        assert!(
            step["required"]
                .as_array()
                .is_some_and(|it| it.contains(&verb.into()))
        );
        for (key, property) in step["properties"].as_object().expect("keys") {
            let described = property["description"]
                .as_str()
                .is_some_and(|it| !it.is_empty());
            assert!(described, "{verb}: {key}");
        }
    }
    let link = steps[6]["properties"].as_object().expect("keys");
    assert_eq!(link.keys().collect::<Vec<_>>(), ["link", "to"]);
}

#[test]
fn what_a_later_version_brings_is_not_offered() {
    let schema = schema::schema();
    let reference = schema::reference();
    assert!(!schema.contains("\"check\""));
    assert!(!reference.contains("`check`"));
}

#[test]
fn the_reference_has_a_section_for_each_table() {
    let reference = schema::reference();
    let sections: Vec<&str> = reference
        .lines()
        .filter(|line| line.starts_with("## "))
        .collect();
    assert_eq!(
        sections,
        [
            "## Top level",
            "## `[source.N]` with `path`",
            "## `[source.N]` with `git`",
            "## `[source.N]` with `http`",
            "## `[source.N]` with `image`",
            "## `[source.N]` with `debian`",
            "## `[source.N]` with `python`",
            "## `[source.N]` with `cargo`",
            "## `[[source.N.archive]]`",
            "## `[source.N.fixups]`",
            "## `[[source.N.fixups.dirs]]`",
            "## `[stage.N]`",
            "## `[image]`",
            "## `[runtime]`",
            "## The step `copy`",
            "## The step `write`",
            "## The step `install`",
            "## The step `run`",
            "## The step `shell`",
            "## The step `mkdir`",
            "## The step `link`",
            "## The step `remove`",
            "## The step `user`",
            "## The step `unpack`",
            "## `[[output]]`",
        ]
    );
    assert!(
        reference.contains("| `mode` | four octal digits | `\"0644\"` | Four octal digits. |\n")
    );
    assert!(
        reference.contains(
            "| `to` | absolute path | required | The full new name of what is copied. |\n"
        )
    );
}

/// Pieces that a spec may be made of, so that mutations reach further than the TOML parser.
fn piece() -> impl Strategy<Value = String> {
    let words: Vec<String> = keys::all()
        .flat_map(|keys| keys.keys)
        .flat_map(|key| {
            let name = key.name;
            [
                format!("{name} = \"a\"\n"),
                format!("{name} = 1\n"),
                format!("{name} = [\"/a\"]\n"),
                format!("{name} = {{ copy = \"a:b\" }}\n"),
                format!("[{name}.x]\n"),
                format!("[[{name}]]\n"),
                format!("[[image.{name}]]\n"),
            ]
        })
        .chain(
            [
                "${",
                "}",
                "\"",
                "'",
                "\"\"\"",
                "é\u{301}",
                "\u{0}",
                "\\",
                "${arch}",
                ":",
                "/",
                "\r\n",
                "[image]\n",
            ]
            .map(Into::into),
        )
        .collect();
    proptest::sample::select(words)
}

/// A spec with some ranges of it replaced by pieces.
fn mutated(text: &'static str) -> impl Strategy<Value = String> {
    let edit = (any::<prop::sample::Index>(), 0_usize..40, piece());
    prop::collection::vec(edit, 1..6).prop_map(move |edits| {
        let mut text = text.to_owned();
        for (at, length, piece) in edits {
            let start = boundary(&text, at.index(text.len() + 1));
            let end = boundary(&text, start + length);
            text.replace_range(start..end, &piece);
        }
        text
    })
}

/// Reads a text and draws all that is told of it; the only thing that matters is that this comes to an end.
fn survives(text: &str) {
    let told = match parse(text, "spec.toml") {
        Ok(spec) => spec.warnings().to_vec(),
        Err(told) => {
            assert!(told.iter().any(|it| it.severity == Severity::Error));
            told
        }
    };
    for it in told {
        assert!(!crate::diag::render(&it, crate::diag::Style::Coloured).is_empty());
        let place = it.place.expect("everything is somewhere");
        let text = &place.file.text;
        assert!(place.span.start <= place.span.end && place.span.end <= text.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_mutation_makes_the_parser_fall_over(text in mutated(EVERYTHING)) {
        survives(&text);
    }

    #[test]
    fn no_heap_of_pieces_makes_the_parser_fall_over(pieces in prop::collection::vec(piece(), 0..30)) {
        survives(&format!("immbuild = 1\n{}", pieces.concat()));
    }

    #[test]
    fn no_text_makes_the_parser_fall_over(text in "\\PC{0,200}") {
        survives(&text);
    }
}
