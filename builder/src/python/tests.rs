//! What locks say, read.

use std::sync::Arc;

use super::choose::choose;
use super::locked::{Files, Locked, Wanted};
use super::requirements::Requirements;
use super::target::Target;
use super::{pylock, uv};
use crate::diag::{Diagnostic, SourceFile, Style, render_all};
use crate::spec::model::{Interpreter, Libc};

const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn file(name: &str, text: &str) -> Arc<SourceFile> {
    Arc::new(SourceFile {
        name: name.into(),
        text: text.replace("HEX", HEX),
    })
}

fn target() -> Target {
    Target {
        interpreter: Interpreter {
            major: 3,
            minor: 11,
            patch: None,
        },
        platform: "linux/amd64".parse().expect("a platform"),
        libc: Libc::default(),
    }
}

fn words(errors: &[Diagnostic]) -> String {
    render_all(errors, Style::Plain)
}

fn read(text: &str) -> Result<Vec<String>, String> {
    let requirements =
        Requirements::parse(&file("requirements.txt", text)).map_err(|it| words(&it))?;
    let target = target();
    let wanted = Wanted {
        target: &target,
        extras: &[],
        groups: &[],
    };
    let found = requirements.wanted(&wanted).map_err(|it| words(&[it]))?;
    Ok(named(&found))
}

fn named(found: &[Locked]) -> Vec<String> {
    found
        .iter()
        .map(|it| format!("{} {}", it.name, it.version))
        .collect()
}

#[test]
fn requirements_are_read_as_pip_reads_them() {
    let text = "\u{20}
--require-hashes
# a comment \\
Flask[async]==3.0.0 ; python_version >= '3.8' \\
    --hash=sha256:HEX \\
    --hash=sha256:HEX  # trailing
colorama==0.4.6;sys_platform == 'win32' --hash=sha256:HEX
zope.interface === 6.0 --hash sha256:HEX --hash=sha512:00
wheel @ https://f.example.com/wheel-0.42.0-py3-none-any.whl#egg=x --hash=sha256:HEX
";
    assert_eq!(
        read(text),
        Ok(vec![
            "flask 3.0.0".into(),
            "wheel 0.42.0".into(),
            "zope-interface 6.0".into()
        ])
    );
}

#[test]
fn what_is_not_pinned_is_refused_with_its_line() {
    for (line, says) in [
        ("a==1", "has no hash"),
        ("a>=1 --hash=sha256:HEX", "not pinned to a version"),
        ("a --hash=sha256:HEX", "not pinned to a version"),
        ("a==1.* --hash=sha256:HEX", "not pinned to a version"),
        ("-e .", "`-e` cannot be"),
        ("--editable ./a", "`--editable` cannot be"),
        ("-r other.txt", "`-r` cannot be"),
        (
            "--index-url https://i.example.com",
            "in pip's configuration",
        ),
        ("-i https://i.example.com", "in pip's configuration"),
        (
            "--extra-index-url=https://i.example.com",
            "in pip's configuration",
        ),
        ("--trusted-host i.example.com", "in pip's configuration"),
        ("--pre", "`--pre` cannot be"),
        (
            "a @ git+https://g.example.com/a --hash=sha256:HEX",
            "what is in a repository",
        ),
        ("git+https://g.example.com/a#egg=a", "is no requirement"),
        ("./a.whl --hash=sha256:HEX", "is no requirement"),
        (
            "a @ https://f.example.com/a-1.tar.gz --hash=sha256:HEX",
            "only wheels are installed",
        ),
        (
            "a @ https://f.example.com/b-1-py3-none-any.whl --hash=sha256:HEX",
            "only wheels are installed",
        ),
        (
            "a @ https://f.example.com/a-1-py3-none-any.whl",
            "has no hash",
        ),
        ("a==1 --hash=md5:00", "is no hash"),
        ("a==1 --hash=sha512:00", "hashes of sha512 only"),
        ("a==1 --hash=sha256:00", "is no hash"),
        (
            "a==1 --config-settings=x --hash=sha256:HEX",
            "cannot be said of a requirement",
        ),
        (
            "a==1; color == 'red' --hash=sha256:HEX",
            "is no variable of markers",
        ),
        ("a==${VERSION} --hash=sha256:HEX", "reads the environment"),
        ("a[b==1 --hash=sha256:HEX", "extras are not closed"),
        (
            "a==1 --hash=sha256:HEX\nA==2 --hash=sha256:HEX",
            "required twice",
        ),
    ] {
        let said = read(&format!("b==1 --hash=sha256:HEX\n{line}\n")).expect_err(line);
        assert!(said.contains(says), "{line}: no `{says}` in\n{said}");
        let at = 2 + line.matches('\n').count();
        assert!(
            said.contains(&format!("requirements.txt:{at}:1")),
            "{line}:\n{said}"
        );
    }
    assert!(read("# nothing\n").is_err());
}

#[test]
fn only_what_requirements_say_is_in_their_digest() {
    let digest = |text: &str| {
        Requirements::parse(&file("requirements.txt", text))
            .expect("requirements")
            .digest()
    };
    let plain = digest("a==1 --hash=sha256:HEX\nb==2 --hash=sha256:HEX\n");
    let same = "# x\nb==2 \\\n  --hash=sha256:HEX\nA==1   --hash=sha256:HEX # y\n";
    assert_eq!(digest(same), plain);
    for other in [
        "a==1 --hash=sha256:HEX\nb==3 --hash=sha256:HEX\n",
        "a==1 --hash=sha256:HEX\n",
        "a==1; python_version > '3' --hash=sha256:HEX\nb==2 --hash=sha256:HEX\n",
    ] {
        assert_ne!(digest(other), plain, "{other}");
    }
}

fn lock(text: &str, extras: &[&str], groups: &[&str]) -> Result<Vec<String>, String> {
    let own = |names: &[&str]| -> Vec<String> { names.iter().map(|it| (*it).to_owned()).collect() };
    let (target, extras, groups) = (target(), own(extras), own(groups));
    let wanted = Wanted {
        target: &target,
        extras: &extras,
        groups: &groups,
    };
    let found = if text.contains("lock-version") {
        pylock::wanted(&file("pylock.toml", text), &wanted)
    } else {
        uv::wanted(&file("uv.lock", text), &wanted)
    };
    let found = found.map_err(|it| words(&it))?;
    for package in &found {
        if let Files::Named { wheels, others } = &package.files {
            choose(package, wheels, others, &target).map_err(|it| words(&[it]))?;
        }
    }
    Ok(named(&found))
}

const PYLOCK: &str = r#"
lock-version = "1.0"
requires-python = ">=3.9"
extras = ["x"]
dependency-groups = ["dev", "docs"]
default-groups = ["docs"]
[[packages]]
name = "Attrs"
version = "25.1.0"
[[packages.wheels]]
name = "attrs-25.1.0-py3-none-any.whl"
url = "https://f.example.com/x/attrs-25.1.0-py3-none-any.whl"
size = 63152
hashes = { sha256 = "HEX" }
[[packages]]
name = "b"
version = "1"
marker = "'x' in extras"
wheels = [{ path = "wheels/b-1-py3-none-any.whl", hashes = { sha256 = "HEX" } }]
[[packages]]
name = "c"
version = "1"
marker = "'docs' in dependency_groups"
wheels = [{ path = "wheels/c-1-py3-none-any.whl", hashes = { sha256 = "HEX" } }]
"#;

#[test]
fn a_pylock_is_read() {
    assert_eq!(
        lock(PYLOCK, &[], &[]),
        Ok(vec!["attrs 25.1.0".into(), "c 1".into()])
    );
    assert_eq!(
        lock(PYLOCK, &["X"], &["dev"]),
        Ok(vec!["attrs 25.1.0".into(), "b 1".into()])
    );
    for (from, to, says) in [
        ("\"1.0\"", "\"2.0\"", "version `2.0` of this form"),
        (">=3.9", ">=3.12", "the lock is for Python >=3.12"),
        (
            "hashes = { sha256 = \"HEX\" }\n[[packages]]",
            "hashes = { md5 = \"00\" }\n[[packages]]",
            "no hash of sha256",
        ),
        (
            "version = \"25.1.0\"\n[[packages.wheels]]",
            "version = \"26\"\n[[packages.wheels]]",
            "no wheel of `attrs` 26",
        ),
        (
            "py3-none-any.whl\"\nsize",
            "cp312-cp312-win32.whl\"\nsize",
            "there are wheels for py3-none-any",
        ),
        (
            "marker = \"'x' in extras\"",
            "marker = \"'x' on extras\"",
            "is no marker",
        ),
        (
            "[[packages]]\nname = \"b\"",
            "[[packages]]\nname = \"b\"\nvcs = { type = \"git\" }",
            "`b` is a repository",
        ),
    ] {
        assert!(PYLOCK.contains(from), "{from}");
        let text = PYLOCK.replace(from, to);
        match lock(&text, &["x"], &[]) {
            Err(said) => assert!(said.contains(says), "{to}: no `{says}` in\n{said}"),
            // The name says what a wheel is, not its URL.
            Ok(_) => assert!(says.starts_with("there are wheels"), "{to}"),
        }
    }
    assert!(lock(PYLOCK, &["y"], &[]).is_err_and(|said| said.contains("no extra `y`")));
}

const UV: &str = r#"
version = 1
requires-python = ">=3.9"
[[package]]
name = "app"
source = { editable = "." }
dependencies = [
    { name = "a", version = "1", source = { registry = "r" }, marker = "python_full_version < '3.12'" },
    { name = "a", version = "2", source = { registry = "r" }, marker = "python_full_version >= '3.12'" },
    { name = "member" },
]
[[package]]
name = "member"
source = { editable = "member" }
dependencies = [{ name = "b", extra = ["fast"] }]
[[package]]
name = "a"
version = "1"
source = { registry = "r" }
wheels = [{ url = "https://f.example.com/a-1-py3-none-any.whl", hash = "sha256:HEX" }]
[[package]]
name = "a"
version = "2"
source = { registry = "r" }
wheels = [{ url = "https://f.example.com/a-2-py3-none-any.whl", hash = "sha256:HEX" }]
[[package]]
name = "b"
version = "1"
source = { registry = "r" }
wheels = [{ url = "https://f.example.com/b-1-py3-none-any.whl", hash = "sha256:HEX" }]
[package.optional-dependencies]
fast = [{ name = "c" }]
slow = [{ name = "d" }]
[[package]]
name = "c"
version = "1"
source = { registry = "r" }
dependencies = [{ name = "b" }]
wheels = [{ url = "https://f.example.com/c-1-py3-none-any.whl", hash = "sha256:HEX" }]
"#;

#[test]
fn a_lock_of_uv_is_walked() {
    assert_eq!(
        lock(UV, &[], &[]),
        Ok(vec!["a 1".into(), "b 1".into(), "c 1".into()])
    );
    for (from, to, says) in [
        (
            "version = 1\nrequires",
            "version = 2\nrequires",
            "version of `uv.lock` is not known",
        ),
        ("editable = \".\"", "registry = \"r\"", "has no project"),
        (
            "{ name = \"member\" }",
            "{ name = \"gone\" }",
            "does not have `gone`",
        ),
        (
            "a\", version = \"1\", source = { registry = \"r\" }, marker = \"python_full_version < '3.12'\"",
            "a\"",
            "has `a` more than once",
        ),
        (
            "hash = \"sha256:HEX\" }]\n[package",
            "hash = \"md5:0\" }]\n[package",
            "no hash of sha256",
        ),
        (
            "name = \"c\"\nversion = \"1\"\nsource = { registry = \"r\" }",
            "name = \"c\"\nversion = \"1\"\nsource = { git = \"g\" }",
            "taken from a repository",
        ),
        ("a-1-py3", "a-3-py3", "is not of version 1"),
    ] {
        assert!(UV.contains(from), "{from}");
        let said = lock(&UV.replace(from, to), &[], &[]).expect_err(to);
        assert!(said.contains(says), "{to}: no `{says}` in\n{said}");
        assert!(said.contains("uv.lock:"), "{said}");
    }
}
