//! Libraries by the project's own lock: the program against an index on this machine, and beside pip.
#![allow(clippy::disallowed_methods, reason = "a test lists what it made")]

use std::fmt::Write as _;
use std::fs;
use std::io::{Cursor, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use immbuild_cas::digest::Digest;
use zip::write::SimpleFileOptions;

#[path = "common/place.rs"]
mod place;

use place::{Index, Ran, World, listing};

/// Wheels that others made: as they are on the index of the community.
const REAL: [&str; 3] = [
    "itsdangerous-2.2.0-py3-none-any.whl",
    "jmespath-1.0.1-py3-none-any.whl",
    "tabulate-0.10.0-py3-none-any.whl",
];

fn real(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wheels");
    fs::read(path.join(name)).expect("it is in the repository")
}

/// A file of a wheel that is made here.
struct Member<'a> {
    path: &'a str,
    content: &'a [u8],
    mode: u32,
}

fn member<'a>(path: &'a str, content: &'a str) -> Member<'a> {
    Member {
        path,
        content: content.as_bytes(),
        mode: 0o644,
    }
}

fn base64(bytes: &[u8]) -> String {
    let letters: Vec<char> = ('A'..='Z')
        .chain('a'..='z')
        .chain('0'..='9')
        .chain(['-', '_'])
        .collect();
    let bits: String = bytes.iter().fold(String::new(), |mut bits, byte| {
        let _ = write!(bits, "{byte:08b}");
        bits
    });
    let bits: Vec<char> = bits.chars().collect();
    bits.chunks(6)
        .map(|six| {
            let text: String = six.iter().collect();
            letters[usize::from_str_radix(&format!("{text:0<6}"), 2).expect("bits")]
        })
        .collect()
}

/// The record of these files.
fn record(dist_info: &str, members: &[Member<'_>]) -> String {
    let mut text = String::new();
    for member in members {
        let digest = base64(Digest::of(member.content).as_bytes());
        let size = member.content.len();
        let _ = writeln!(text, "\"{}\",sha256={digest},{size}", member.path);
    }
    let _ = writeln!(text, "{dist_info}/RECORD,,");
    text
}

fn zipped(members: &[Member<'_>]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for member in members {
        let options = SimpleFileOptions::default().unix_permissions(member.mode);
        writer.start_file(member.path, options).expect("begun");
        writer.write_all(member.content).expect("written");
    }
    writer.finish().expect("finished").into_inner()
}

/// A good wheel of `name` 1.0 with these files besides those that describe it.
fn wheel(name: &str, members: Vec<Member<'_>>) -> Vec<u8> {
    let dist_info = format!("{name}-1.0.dist-info");
    let (metadata, format) = (
        format!("{dist_info}/METADATA"),
        format!("{dist_info}/WHEEL"),
    );
    let about = format!("Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n");
    let mut all = members;
    all.push(member(&metadata, &about));
    all.push(member(
        &format,
        "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\nTag: py3-none-any\n",
    ));
    let text = record(&dist_info, &all);
    let path = format!("{dist_info}/RECORD");
    all.push(member(&path, &text));
    zipped(&all)
}

/// A wheel with everything that a wheel may have.
fn everything() -> Vec<u8> {
    let mut members = vec![
        member("every/__init__.py", "def main():\n    print('every')\n"),
        member("every/data, with comma.txt", "x\n"),
        member("every-1.0.data/purelib/pure.py", "pure = 1\n"),
        member("every-1.0.data/platlib/every/plat.py", "plat = 1\n"),
        member("every-1.0.data/headers/every.h", "#define EVERY\n"),
        member("every-1.0.data/data/share/every/file", "data\n"),
        member(
            "every-1.0.data/scripts/every-script",
            "#!python -u\nimport every\nevery.main()\n",
        ),
        member(
            "every-1.0.data/scripts/every-shell",
            "#!/bin/sh\necho every\n",
        ),
        member(
            "every-1.0.dist-info/entry_points.txt",
            "[console_scripts]\nevery-run = every:main\n\n[gui_scripts]\nevery-win = every.plat:main.go [x]\n",
        ),
    ];
    // As tools write them; a script that is not executable becomes so here, which pip leaves to the archive.
    for member in &mut members {
        if member.path.contains("/scripts/") {
            member.mode = 0o755;
        }
    }
    members.push(Member {
        path: "every/tool",
        content: b"#!/bin/sh\n",
        mode: 0o755,
    });
    wheel("every", members)
}

/// The page of a package with these files, and the files.
fn package(index: &Index, name: &str, wheels: &[(&str, Vec<u8>)], as_json: bool) {
    let mut files = index.files.lock().expect("no test panics with it");
    let mut entries = Vec::new();
    for (file, bytes) in wheels {
        let digest = Digest::of(bytes).to_hex();
        entries.push(if as_json {
            format!(
                r#"{{"filename":"{file}","url":"../../files/{file}","hashes":{{"sha256":"{digest}"}},"size":{}}}"#,
                bytes.len()
            )
        } else {
            format!("<a href=\"../../files/{file}#sha256={digest}\">{file}</a><br>")
        });
        files.insert(format!("/files/{file}"), bytes.clone());
    }
    let page = if as_json {
        format!(
            r#"{{"meta":{{"api-version":"1.0"}},"name":"{name}","files":[{}]}}"#,
            entries.join(",")
        )
    } else {
        format!("<html><body>{}</body></html>", entries.join("\n"))
    };
    files.insert(format!("/simple/{name}/"), page.into_bytes());
}

/// A spec that installs what `file` says into `to`, onto a root with an interpreter.
fn spec(world: &World, file: &str, to: &Path, series: &str, more: &str) {
    world.write(
        "spec.toml",
        &format!(
            "immbuild = 1\n[source.deps]\npython = \"{file}\"\ninterpreter = \"{series}\"\n{more}\n\
             [image]\nsteps = [\n  {{ write = \"/usr/bin/python{series}\", text = \"\", mode = \"0755\" }},\n\
             \x20 {{ install = \"deps\", to = \"{}\" }},\n]\nentrypoint = [\"/a\"]\n\
             [[output]]\nkind = \"dir\"\ndir = \"out\"\n",
            to.display()
        ),
    );
}

/// Requirements with the hashes of these wheels.
fn requirements(wheels: &[(&str, Vec<u8>)]) -> String {
    let mut text = String::from("# made by hand\n");
    for (file, bytes) in wheels {
        let mut parts = file.split('-');
        let (name, version) = (
            parts.next().expect("a name"),
            parts.next().expect("a version"),
        );
        let digest = Digest::of(bytes).to_hex();
        let _ = writeln!(
            text,
            "{name}=={version} \\\n    --hash=sha256:{} \\\n    --hash=sha256:{digest}\n    # via something",
            "0".repeat(64)
        );
    }
    text
}

fn all() -> Vec<(&'static str, Vec<u8>)> {
    let mut wheels: Vec<(&str, Vec<u8>)> = REAL.iter().map(|name| (*name, real(name))).collect();
    wheels.push(("every-1.0-py3-none-any.whl", everything()));
    wheels
}

fn serve(index: &Index, wheels: &[(&str, Vec<u8>)]) {
    for (nth, (file, bytes)) in wheels.iter().enumerate() {
        let name = file.split('-').next().expect("a name");
        package(index, name, &[(file, bytes.clone())], nth % 2 == 0);
    }
}

fn python(args: &[&str], more: &[&Path]) -> String {
    let output = Command::new("python3")
        .args(args)
        .args(more)
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("python3 is installed");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "python3 {args:?}: {err}");
    String::from_utf8(output.stdout).expect("text")
}

fn series() -> String {
    let code = "import sys; print('%d.%d' % sys.version_info[:2])";
    python(&["-c", code], &[]).trim().to_owned()
}

#[test]
fn an_environment_is_what_pip_makes() {
    let (world, wheels, series) = (World::new(), all(), series());
    serve(&world.index, &wheels);
    let text = requirements(&wheels);
    world.write("requirements.txt", &text);
    // pip's environment, at the path that ours is made for.
    let venv = world.path("venv");
    python(&["-m", "venv", "--without-pip"], &[&venv]);
    let links = world.path("links");
    fs::create_dir(&links).expect("made");
    for (file, bytes) in &wheels {
        fs::write(links.join(file), bytes).expect("written");
    }
    let program = venv.join("bin/python3");
    python(
        &["-m", "pip", "--python"],
        &[
            &program,
            Path::new("install"),
            Path::new("-q"),
            Path::new("--no-compile"),
            Path::new("--no-deps"),
            Path::new("--no-index"),
            Path::new("--require-hashes"),
            Path::new("--find-links"),
            &links,
            Path::new("-r"),
            &world.path("requirements.txt"),
        ],
    );
    spec(&world, "requirements.txt", &venv, &series, "");
    world.build();
    let below = venv.strip_prefix("/").expect("absolute");
    let mut ours = listing(&world.path("out").join(below));
    let mut theirs = listing(&venv);
    // What `venv` writes for people at a prompt, and which interpreter it found.
    theirs.retain(|path, _| {
        let name = path.strip_prefix("bin/").unwrap_or(path);
        let is_for_people = name.to_lowercase().starts_with("activate");
        let is_empty = *path == format!("include/python{series}");
        !is_for_people && !is_empty && !path.ends_with("/REQUESTED")
    });
    for path in ["pyvenv.cfg", "bin/python3"] {
        assert!(ours.remove(path).is_some(), "no {path}");
        theirs.remove(path);
    }
    let names: Vec<&String> = ours.keys().collect();
    assert_eq!(names, theirs.keys().collect::<Vec<_>>());
    // Who installed it differs, and so do the lines that say so.
    let plain = |path: &str, content: &[u8]| -> Vec<String> {
        let text = String::from_utf8_lossy(content).replace("\r\n", "\n");
        if path.ends_with("/INSTALLER") {
            return vec!["somebody".to_owned()];
        }
        text.lines()
            .filter(|line| {
                let is_record = path.ends_with("/RECORD");
                !(is_record && (line.contains("/INSTALLER,") || line.contains("/REQUESTED,")))
            })
            .map(str::to_owned)
            .collect()
    };
    for (path, (mode, content)) in &ours {
        let (other, expected) = &theirs[path];
        assert_eq!(mode, other, "the mode of {path}");
        if path.ends_with("/INSTALLER") || path.ends_with("/RECORD") {
            assert_eq!(plain(path, content), plain(path, expected), "{path}");
        } else {
            assert!(
                content == expected,
                "{path} differs: {}",
                String::from_utf8_lossy(content)
            );
        }
    }
    // And it works where the interpreter is.
    let out = world.path("out").join(below);
    let tabulate = Command::new("python3")
        .arg(out.join("bin/tabulate"))
        .arg("--help")
        .env(
            "PYTHONPATH",
            out.join(format!("lib/python{series}/site-packages")),
        )
        .output()
        .expect("it runs");
    assert!(tabulate.status.success());
}

#[test]
fn the_same_wheels_give_the_same_image_wherever_they_are_installed() {
    let (world, wheels) = (World::new(), all());
    serve(&world.index, &wheels);
    world.write("requirements.txt", &requirements(&wheels));
    spec(
        &world,
        "requirements.txt",
        Path::new("/opt/venv"),
        "3.11",
        "",
    );
    let first = world.build();
    assert_eq!(world.build(), first, "warm");
    // Without the network and with another mask.
    world.index.asked();
    fs::remove_dir_all(world.path("out")).expect("removed");
    let mut again = Command::new("sh");
    again
        .args(["-c", "umask 077; exec \"$0\" build --offline --locked"])
        .arg(env!("CARGO_BIN_EXE_immbuild"))
        .current_dir(world.place.path())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", world.path("home"))
        .env("XDG_CACHE_HOME", world.path("cache"));
    assert_eq!(Ran::of(&again.output().expect("it runs")).good(), first);
    assert_eq!(world.index.asked(), [""; 0]);
    // From nothing, elsewhere, by a lock of another form.
    let other = World::new();
    serve(&other.index, &wheels);
    let mut lock = String::from("lock-version = \"1.0\"\ncreated-by = \"test\"\n");
    for (file, bytes) in wheels.iter().rev() {
        let (name, version) = (file.split('-').next(), file.split('-').nth(1));
        let _ = write!(
            lock,
            "[[packages]]\nname = \"{}\"\nversion = \"{}\"\nwheels = [{{ url = \"{}/files/{file}\", hashes = {{ sha256 = \"{}\" }} }}]\n",
            name.expect("a name"),
            version.expect("a version"),
            other.index.url,
            Digest::of(bytes).to_hex()
        );
    }
    other.write("pylock.toml", &lock);
    spec(&other, "pylock.toml", Path::new("/opt/venv"), "3.11", "");
    assert_eq!(other.build(), first);
    assert!(!other.path("spec.lock").exists(), "its lock is the lock");
}

#[test]
fn requirements_are_locked_once_and_told_when_they_change() {
    let (world, wheels) = (World::new(), all());
    serve(&world.index, &wheels);
    world.write("requirements.txt", &requirements(&wheels));
    spec(
        &world,
        "requirements.txt",
        Path::new("/opt/venv"),
        "3.11",
        "",
    );
    world
        .run(&["lock", "--check"])
        .fails(4, &["there is no lock"]);
    let report = world.run(&["lock"]);
    assert!(report.err.contains("4 wheels"), "{}", report.err);
    let lock = fs::read_to_string(world.path("spec.lock")).expect("a lock");
    let wheel = format!(
        "[[source.deps.wheel]]\nplatform = \"linux/amd64\"\nname = \"itsdangerous\"\nversion = \"2.2.0\"\nfile = \"{}\"\nsha256 = \"{}\"\n",
        REAL[0],
        Digest::of(&real(REAL[0])).to_hex()
    );
    assert!(lock.contains(&wheel), "{lock}");
    assert!(!lock.contains("127.0.0.1"), "{lock}");
    world.run(&["lock", "--check"]).good();
    // Comments and order say nothing; another hash does.
    let text = requirements(&wheels);
    let (head, rest) = text.split_once("itsdangerous").expect("it is there");
    world.write(
        "requirements.txt",
        &format!("{head}# other\nitsdangerous{rest}"),
    );
    world.run(&["lock", "--check"]).good();
    world.write(
        "requirements.txt",
        &text.replace(&"0".repeat(64), &"1".repeat(64)),
    );
    world
        .run(&["lock", "--check"])
        .fails(4, &["`deps` asks for something else now"]);
    world.run(&["build"]).fails(4, &["immbuild lock"]);
    world.run(&["lock"]).good();
    world.run(&["lock", "--check"]).good();

    let why = world.run(&["why", "tabulate"]).good();
    assert!(
        why.contains("tabulate") && why.contains("requirements.txt"),
        "{why}"
    );
    let bill = world.run(&["sbom", "--format", "cyclonedx"]).good();
    let purl = "pkg:pypi/jmespath@1.0.1?file_name=jmespath-1.0.1-py3-none-any.whl";
    assert!(bill.contains(purl), "{bill}");
}

#[test]
fn everything_can_be_vendored_and_what_is_missing_is_told_at_once() {
    let (world, wheels) = (World::new(), all());
    serve(&world.index, &wheels);
    world.write("requirements.txt", &requirements(&wheels));
    spec(
        &world,
        "requirements.txt",
        Path::new("/opt/venv"),
        "3.11",
        "",
    );
    world.run(&["lock"]).good();
    let offline = world.run(&["build", "--offline"]);
    offline.fails(
        5,
        &[
            "every 1.0",
            "itsdangerous 2.2.0",
            "jmespath 1.0.1",
            "tabulate 0.10.0",
        ],
    );
    world.run(&["vendor", "-o", "vendored"]).good();
    fs::remove_dir_all(world.path("cache")).expect("removed");
    world.run(&["vendor", "--read", "vendored"]).good();
    world.run(&["build", "--offline"]).good();
}

/// A lock of uv with a dependency that only other systems need, one of an extra and one of a group.
fn uv_lock(index: &str) -> String {
    let package = |name: &str, version: &str, file: &str, bytes: &[u8], more: &str| {
        format!(
            "[[package]]\nname = \"{name}\"\nversion = \"{version}\"\nsource = {{ registry = \"{index}/simple\" }}\n{more}\
             sdist = {{ url = \"{index}/files/{name}.tar.gz\", hash = \"sha256:{}\", size = 1 }}\n\
             wheels = [\n    {{ url = \"{index}/files/{file}\", hash = \"sha256:{}\", size = {} }},\n]\n\n",
            "2".repeat(64),
            Digest::of(bytes).to_hex(),
            bytes.len()
        )
    };
    let mut text = "version = 1\nrevision = 3\nrequires-python = \">=3.9\"\n\n[[package]]\nname = \"app\"\nversion = \"0.1.0\"\nsource = { virtual = \".\" }\n\
        dependencies = [\n    { name = \"every\" },\n    { name = \"colorama\", marker = \"sys_platform == 'win32'\" },\n]\n\n\
        [package.optional-dependencies]\ntable = [\n    { name = \"tabulate\" },\n]\n\n\
        [package.dev-dependencies]\ndev = [\n    { name = \"jmespath\", marker = \"python_full_version >= '3.9'\" },\n]\n\n"
        .to_owned();
    text +=
        "[[package]]\nname = \"colorama\"\nversion = \"0.4.6\"\nsource = { registry = \"x\" }\n\n";
    let needs = "dependencies = [\n    { name = \"itsdangerous\" },\n]\n";
    text += &package(
        "every",
        "1.0",
        "every-1.0-py3-none-any.whl",
        &everything(),
        needs,
    );
    text += &package("itsdangerous", "2.2.0", REAL[0], &real(REAL[0]), "");
    text += &package("jmespath", "1.0.1", REAL[1], &real(REAL[1]), "");
    text += &package("tabulate", "0.10.0", REAL[2], &real(REAL[2]), "");
    text
}

#[test]
fn a_lock_of_uv_is_walked_from_the_project() {
    let world = World::new();
    serve(&world.index, &all());
    world.write("uv.lock", &uv_lock(&world.index.url));
    let installed = |more: &str| -> Vec<String> {
        spec(&world, "uv.lock", Path::new("/opt/venv"), "3.11", more);
        world.build();
        let site = world.path("out/opt/venv/lib/python3.11/site-packages");
        let names = listing(&site).into_keys().filter_map(|path| {
            let (name, _) = path.strip_suffix(".dist-info")?.split_once('-')?;
            Some(name.to_owned())
        });
        names.collect()
    };
    assert_eq!(installed(""), ["every", "itsdangerous"]);
    assert!(!world.path("spec.lock").exists(), "its lock is the lock");
    assert_eq!(
        installed("groups = [\"dev\"]\nextras = [\"table\"]"),
        ["every", "itsdangerous", "jmespath", "tabulate"]
    );
    let why = world.run(&["why", "itsdangerous"]).good();
    assert!(
        why.contains("needed by every") && why.contains("the project app"),
        "{why}"
    );
    world.run(&["lock", "--check"]).good();
    world.run(&["vendor", "-o", "vendored"]).good();

    spec(
        &world,
        "uv.lock",
        Path::new("/opt/venv"),
        "3.11",
        "groups = [\"devel\"]",
    );
    world
        .run(&["build"])
        .fails(4, &["uv.lock", "no group `devel`", "did you mean `dev`?"]);
    spec(&world, "uv.lock", Path::new("/opt/venv"), "3.8", "");
    world
        .run(&["build"])
        .fails(4, &["the lock is for Python >=3.9"]);
    // Only a source distribution is left.
    let lock = uv_lock(&world.index.url);
    let at = lock.find("wheels = [").expect("wheels");
    let end = lock[at..].find("]\n").expect("an end") + at + 2;
    world.write("uv.lock", &format!("{}{}", &lock[..at], &lock[end..]));
    spec(&world, "uv.lock", Path::new("/opt/venv"), "3.11", "");
    world.run(&["build"]).fails(
        4,
        &["no wheel of `every` 1.0", "there is only `every.tar.gz`"],
    );
    world
        .run(&["lock", "--check"])
        .fails(4, &["there is only `every.tar.gz`"]);
}

#[test]
#[expect(clippy::too_many_lines, reason = "what is tried, one after the other")]
fn hostile_wheels_are_refused() {
    let good = || {
        vec![
            member("bad/__init__.py", ""),
            member("bad-1.0.dist-info/METADATA", "Name: bad\nVersion: 1.0\n"),
            member("bad-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n"),
        ]
    };
    let recorded = |members: Vec<Member<'_>>| -> Vec<u8> {
        let text = record("bad-1.0.dist-info", &members);
        let mut all = members;
        all.push(member("bad-1.0.dist-info/RECORD", &text));
        zipped(&all)
    };
    let with = |path: &'static str, content: &'static str| {
        let mut members = good();
        members.push(member(path, content));
        recorded(members)
    };
    let without = |path: &str| {
        let members = good().into_iter().filter(|it| it.path != path).collect();
        recorded(members)
    };
    let mut link = good();
    link.push(Member {
        path: "bad/link",
        content: b"__init__.py",
        mode: 0o777,
    });
    let link = {
        let text = record("bad-1.0.dist-info", &link);
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for it in &link[..3] {
            writer
                .start_file(it.path, SimpleFileOptions::default())
                .expect("begun");
            writer.write_all(it.content).expect("written");
        }
        let options = SimpleFileOptions::default();
        writer
            .add_symlink("bad/link", "__init__.py", options)
            .expect("a link");
        writer
            .start_file("bad-1.0.dist-info/RECORD", options)
            .expect("begun");
        writer.write_all(text.as_bytes()).expect("written");
        writer.finish().expect("finished").into_inner()
    };
    let mut tampered = good();
    let text = record("bad-1.0.dist-info", &tampered);
    tampered[0].content = b"evil";
    tampered.push(member("bad-1.0.dist-info/RECORD", &text));
    let mut unlisted = good();
    let text = record("bad-1.0.dist-info", &unlisted);
    unlisted.push(member("bad/extra.py", ""));
    unlisted.push(member("bad-1.0.dist-info/RECORD", &text));
    let weak = {
        let mut members = good();
        let text = record("bad-1.0.dist-info", &members).replace("sha256=", "md5=");
        members.push(member("bad-1.0.dist-info/RECORD", &text));
        zipped(&members)
    };
    let mut truncated = recorded(good());
    truncated.truncate(truncated.len() / 2);
    let zeros = "\0".repeat(128 << 20);
    let mut bomb = good();
    bomb.push(member("bad/bomb", &zeros));
    let other = {
        let mut members = good();
        members[1].content = b"Name: good\nVersion: 1.0\n";
        recorded(members)
    };
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("climbs", with("../evil.py", ""), "climbs by `..`"),
        ("absolute", with("/etc/evil", ""), "absolute"),
        ("link", link, "is a link or a device"),
        ("tampered", zipped(&tampered), "`bad/__init__.py` has"),
        (
            "unlisted",
            zipped(&unlisted),
            "`bad/extra.py` is not recorded",
        ),
        ("weak", weak, "without a digest of sha256"),
        (
            "truncated",
            truncated,
            "bad-1.0-py3-none-any.whl` is refused",
        ),
        ("bomb", recorded(bomb), "bomb"),
        (
            "no metadata",
            without("bad-1.0.dist-info/METADATA"),
            "no `bad-1.0.dist-info/METADATA`",
        ),
        ("other", other, "describes `good` 1.0"),
        (
            "two",
            with("evil-1.0.dist-info/METADATA", ""),
            "more than one directory",
        ),
        (
            "scheme",
            with("bad-1.0.data/etc/passwd", ""),
            "in no directory that an environment has",
        ),
        (
            "climbing script",
            with("bad-1.0.data/data/../../evil", ""),
            "climbs by `..`",
        ),
        (
            "entry point",
            with(
                "bad-1.0.dist-info/entry_points.txt",
                "[console_scripts]\n../sh = a:b\n",
            ),
            "no name of a program",
        ),
        (
            "code in an entry point",
            with(
                "bad-1.0.dist-info/entry_points.txt",
                "[console_scripts]\nsh = os:system('x') or a\n",
            ),
            "says no function",
        ),
        ("no zip", b"hello".to_vec(), "it does not begin as a zip"),
    ];
    for (case, bytes, says) in cases {
        let world = World::new();
        let wheels = [("bad-1.0-py3-none-any.whl", bytes)];
        serve(&world.index, &wheels);
        world.write("requirements.txt", &requirements(&wheels));
        spec(
            &world,
            "requirements.txt",
            Path::new("/opt/venv"),
            "3.11",
            "",
        );
        let ran = world.run(&["build"]);
        assert_eq!(ran.code, 6, "{case}: {}", ran.err);
        assert!(
            ran.err.contains(says),
            "{case}: no `{says}` in:\n{}",
            ran.err
        );
        assert!(!world.path("out").exists(), "{case}");
    }
}

#[test]
fn what_an_index_serves_is_checked() {
    let (world, wheels) = (World::new(), all());
    serve(&world.index, &wheels);
    world.write("requirements.txt", &requirements(&wheels));
    spec(
        &world,
        "requirements.txt",
        Path::new("/opt/venv"),
        "3.11",
        "",
    );
    // The page says one thing, the file is another.
    let path = format!("/files/{}", REAL[0]);
    let mut files = world.index.files.lock().expect("no test panics with it");
    files.insert(path, b"PK\x03\x04evil".to_vec());
    drop(files);
    world
        .run(&["build"])
        .fails(6, &["itsdangerous 2.2.0", "the bytes are those of"]);

    // No index at all, and one without the file.
    let mut command = world.command(&["update"]);
    command.env_remove("PIP_INDEX_URL");
    Ran::of(&command.output().expect("it runs")).fails(
        5,
        &[
            "nothing says where packages of Python are",
            "pip config set global.index-url",
        ],
    );
    std::fs::create_dir(world.path("wheels")).expect("it can be made");
    let mut command = world.command(&["update"]);
    command.env_remove("PIP_INDEX_URL");
    command.env("PIP_FIND_LINKS", world.path("wheels"));
    Ran::of(&command.output().expect("it runs")).fails(
        4,
        &[
            "/wheels` was looked into, as nothing names an index",
            "pip config set global.index-url",
        ],
    );
    package(
        &world.index,
        "every",
        &[("every-2.0-py3-none-any.whl", everything())],
        true,
    );
    package(
        &world.index,
        "tabulate",
        &[("tabulate-0.10.0-cp39-cp39-win32.whl", real(REAL[2]))],
        true,
    );
    world
        .run(&["update"])
        .fails(4, &["requirements.txt:14:1", "no wheel of `every`"]);
}

#[test]
fn a_root_without_the_interpreter_is_told() {
    let (world, wheels) = (World::new(), all());
    serve(&world.index, &wheels);
    world.write("requirements.txt", &requirements(&wheels));
    spec(
        &world,
        "requirements.txt",
        Path::new("/opt/venv"),
        "3.11",
        "",
    );
    let spec = fs::read_to_string(world.path("spec.toml")).expect("a spec");
    world.write(
        "spec.toml",
        &spec.replace("/usr/bin/python3.11", "/usr/bin/python3.12"),
    );
    world.run(&["build"]).fails(
        3,
        &[
            "the root has no `python3.11`",
            "install the interpreter first",
        ],
    );
    // A file that a step has put there stays.
    let there = "{ write = \"/opt/venv/bin/tabulate\", text = \"mine\" },\n  { install";
    world.write("spec.toml", &spec.replace("{ install", there));
    world.run(&["build"]).fails(
        3,
        &["`/opt/venv/bin/tabulate` of `tabulate` is there already"],
    );
    // Two sets in one environment.
    let two = "{ install = \"deps\", to = \"/opt/venv\" },\n  { install";
    world.write("spec.toml", &spec.replace("{ install", two));
    world.build();
    let mode = |path: &str| {
        let status = world.path(path).symlink_metadata().expect("there");
        status.permissions().mode() & 0o777
    };
    assert_eq!(mode("out/opt/venv/bin/tabulate"), 0o755);
}
