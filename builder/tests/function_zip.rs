//! Function zips as a build writes them, read back by others: modes, links, one digest whatever the surroundings.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use immbuild_cas::digest::Digest;

const SPEC: &str = r#"
immbuild = 1
epoch = 2026-11-21T00:53:03Z
source.app.path = "app"
[image]
steps = [
  { copy = "app", to = "/var/task" },
  { copy = "app:bootstrap", to = "/var/task/bootstrap", mode = "0755" },
  { copy = "app:lib", to = "/var/task/lib", mode = "0400", dir-mode = "0700" },
  { mkdir = "/var/task/tmp", mode = "1777" },
  { link = "/var/task/current", to = "lib/ä.txt" },
]
[[output]]
kind = "function-zip"
file = "out/f.zip"
root = "/var/task"
"#;

struct Place(tempfile::TempDir);

impl Place {
    fn new(spec: &str) -> Self {
        let place = Self(tempfile::tempdir().expect("a directory"));
        place.write("spec.toml", spec.as_bytes());
        place.write("app/bootstrap", b"#!/bin/sh\n");
        place.write("app/lib/\u{e4}.txt", &b"words ".repeat(1000));
        place.write("app/lib.empty", b"");
        place.write("app/noise", &Digest::of(b"noise").to_hex().into_bytes());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, bytes).expect("written");
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_immbuild"));
        command
            .arg("build")
            .args(args)
            .args(["--store", ".store"])
            .current_dir(self.0.path())
            .env_remove("SOURCE_DATE_EPOCH");
        command
    }

    fn build(&self, args: &[&str]) -> String {
        said(self.command(args).output().expect("it runs"), 0)
    }

    fn refused(&self, args: &[&str], code: i32) -> String {
        said(self.command(args).output().expect("it runs"), code)
    }

    fn zip(&self) -> Vec<u8> {
        fs::read(self.path("out/f.zip")).expect("written")
    }
}

fn said(output: Output, code: i32) -> String {
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

/// Each entry with all that a reader can learn of it.
fn entries(zip: &[u8]) -> BTreeMap<String, (Option<u32>, Vec<u8>, String)> {
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(zip)).expect("a zip");
    let mut entries = BTreeMap::new();
    for at in 0..archive.len() {
        let mut file = archive.by_index(at).expect("an entry");
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).expect("whole");
        let time = file.last_modified().expect("a time").to_string();
        let name = file.name().expect("UTF-8").into_owned();
        assert_eq!(entries.insert(name, (file.unix_mode(), bytes, time)), None);
    }
    entries
}

#[test]
fn modes_links_and_names_are_kept() {
    let place = Place::new(SPEC);
    let told = place.build(&[]);
    let found = entries(&place.zip());
    let modes: Vec<(&str, u32)> = found
        .iter()
        .map(|(name, (mode, ..))| (name.as_str(), mode.expect("a mode")))
        .collect();
    assert_eq!(
        modes,
        [
            ("bootstrap", 0o100_755),
            ("current", 0o120_777),
            ("lib.empty", 0o100_644),
            ("lib/", 0o040_700),
            ("lib/\u{e4}.txt", 0o100_400),
            ("noise", 0o100_644),
            // This reader shows no sticky bit; Python does, below.
            ("tmp/", 0o040_777),
        ]
    );
    assert_eq!(found["current"].1, "lib/\u{e4}.txt".as_bytes());
    assert_eq!(found["lib/\u{e4}.txt"].1, b"words ".repeat(1000));
    // Two seconds are the least that the form can tell apart.
    assert!(
        found
            .values()
            .all(|(.., time)| time == "2026-11-21 00:53:02")
    );
    assert!(
        told.contains("`out/f.zip`: 2 entries that others cannot read, `/var/task/lib` first"),
        "{told}"
    );
}

#[test]
fn surroundings_do_not_show() {
    let [one, two] = [Place::new(SPEC), Place::new(SPEC)];
    one.build(&[]);
    for name in ["app/lib.empty", "app/bootstrap"] {
        // Another inode, another time, another place in the directory.
        let bytes = fs::read(two.path(name)).expect("read");
        fs::remove_file(two.path(name)).expect("removed");
        two.write(name, &bytes);
        fs::set_permissions(two.path(name), fs::Permissions::from_mode(0o600)).expect("set");
    }
    let script = format!(
        "umask 077; exec {} build --quiet --threads 7 --store elsewhere -f '{}'",
        env!("CARGO_BIN_EXE_immbuild"),
        two.path("spec.toml").display()
    );
    let output = Command::new("/bin/sh")
        .args(["-c", &script])
        .current_dir(two.path("app/.."))
        .envs([("TZ", "Asia/Kathmandu"), ("LC_ALL", "tr_TR.UTF-8")])
        .output();
    said(output.expect("it runs"), 0);
    assert!(one.zip() == two.zip());
    // A build that finds it untouched leaves it; one that finds it touched writes the same.
    let inode = fs::metadata(one.path("out/f.zip")).expect("there").ino();
    assert!(one.build(&[]).contains("out/f.zip   (as it was)"));
    assert_eq!(
        fs::metadata(one.path("out/f.zip")).expect("there").ino(),
        inode
    );
    one.write("out/f.zip", b"touched");
    one.build(&[]);
    assert!(one.zip() == two.zip());
}

#[test]
fn a_changed_file_changes_exactly_its_entry() {
    let place = Place::new(SPEC);
    place.build(&[]);
    let before = entries(&place.zip());
    place.write("app/lib.empty", b"no longer\n");
    place.build(&[]);
    let after = entries(&place.zip());
    let changed: Vec<&String> = after
        .iter()
        .filter(|(name, entry)| before.get(*name) != Some(entry))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(changed, ["lib.empty"]);
    assert_eq!(before.len(), after.len());
    // Another directory of the same image is another zip, though nothing else changed.
    let asked = "kind=function-zip,file=out/f.zip,root=/var/task/lib";
    place.write(
        "spec.toml",
        SPEC.split("[[output]]").next().expect("a part").as_bytes(),
    );
    place.build(&["--output", asked]);
    assert_eq!(
        entries(&place.zip()).into_keys().collect::<Vec<_>>(),
        ["\u{e4}.txt"]
    );
}

#[test]
fn what_a_zip_cannot_hold_is_refused_by_its_path() {
    let place = Place::new(SPEC);
    place.build(&[]);
    let before = place.zip();
    for (root, cause) in [
        ("/var/tusk", "`/var/tusk` is not in the image"),
        (
            "/var/task/current",
            "`/var/task/current` is a symbolic link",
        ),
        ("/var/task/noise", "`/var/task/noise` is not a directory"),
    ] {
        place.write(
            "spec.toml",
            SPEC.replace("root = \"/var/task\"", &format!("root = \"{root}\""))
                .as_bytes(),
        );
        let told = place.refused(&[], 3);
        assert!(told.contains(&format!("error: {cause}")), "{told}");
        assert!(told.contains("spec.toml:15:8"), "{told}");
    }
    assert!(place.zip() == before);
}

#[test]
fn the_limits_of_the_platform_are_named() {
    let place = Place::new(SPEC);
    // 51 MB that do not get smaller.
    let mut state = 1_u32;
    let noise: Vec<u8> = (0..53_000_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .collect();
    place.write("app/noise", &noise);
    let told = place.build(&[]);
    assert!(
        told.contains("AWS Lambda takes at most 52428800 (50 MB) in an upload"),
        "{told}"
    );
    let before = place.zip();
    let sparse = fs::File::create(place.path("app/noise")).expect("made");
    sparse.set_len(250 << 20).expect("a hole");
    let told = place.refused(&[], 3);
    assert!(
        told.contains("error: what is below `/var/task` has 262150010 bytes, 262144000 are the most a function may have unpacked"),
        "{told}"
    );
    assert!(told.contains("250 MB is AWS Lambda's limit"), "{told}");
    assert!(place.zip() == before);
}

#[test]
fn more_entries_than_the_old_form_can_count() {
    let place = Place::new(SPEC);
    for at in 0..65_540 {
        place.write(&format!("app/lib/{}/{at}", at % 32), b"");
    }
    place.build(&[]);
    assert_eq!(entries(&place.zip()).len(), 7 + 65_540 + 32);
}

/// Runs a program and wants it to succeed.
fn read_by(program: &str, args: &[&str], at: &Path) -> String {
    let output = Command::new(program)
        .args(args)
        .current_dir(at)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

#[test]
#[ignore = "needs unzip and python3"]
fn unzip_and_python_read_it() {
    let place = Place::new(SPEC);
    place.build(&[]);
    let at = place.path("out");
    assert!(read_by("unzip", &["-tq", "f.zip"], &at).contains("No errors detected"));
    fs::create_dir(at.join("to")).expect("made");
    read_by("unzip", &["-q", "f.zip", "-d", "to"], &at);
    let mode = |name: &str| {
        let metadata = fs::symlink_metadata(at.join("to").join(name)).expect("unpacked");
        metadata.mode()
    };
    assert_eq!(mode("bootstrap"), 0o100_755);
    assert_eq!(mode("lib/\u{e4}.txt"), 0o100_400);
    assert_eq!(mode("lib"), 0o040_700);
    assert_eq!(mode("tmp") & 0o777, 0o777);
    assert_eq!(
        fs::read_link(at.join("to/current")).expect("a link"),
        Path::new("lib/\u{e4}.txt")
    );
    let script = "
import zipfile
with zipfile.ZipFile('f.zip') as f:
    assert f.testzip() is None
    for it in f.infolist():
        print(it.filename, oct(it.external_attr >> 16), it.create_system, it.flag_bits, it.extra, it.date_time)
";
    let told = read_by("python3", &["-c", script], &at);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(
        lines,
        [
            "bootstrap 0o100755 3 0 b'' (2026, 11, 21, 0, 53, 2)",
            "current 0o120777 3 0 b'' (2026, 11, 21, 0, 53, 2)",
            "lib/ 0o40700 3 0 b'' (2026, 11, 21, 0, 53, 2)",
            "lib.empty 0o100644 3 0 b'' (2026, 11, 21, 0, 53, 2)",
            "lib/\u{e4}.txt 0o100400 3 2048 b'' (2026, 11, 21, 0, 53, 2)",
            "noise 0o100644 3 0 b'' (2026, 11, 21, 0, 53, 2)",
            "tmp/ 0o41777 3 0 b'' (2026, 11, 21, 0, 53, 2)",
        ]
    );
}

/// One request: its first line, and its body.
fn request(stream: &TcpStream) -> (String, String) {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).expect("a request");
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a header");
        let Some((name, value)) = line.trim().split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().expect("a length");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    let first = first.trim().trim_end_matches(" HTTP/1.1").to_owned();
    (first, String::from_utf8(body).expect("UTF-8"))
}

/// Plays the platform: the zip of the example is unpacked, its `bootstrap` is started, and two events are answered.
#[test]
#[ignore = "needs unzip and curl"]
fn the_example_answers_events() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/function");
    let place = tempfile::tempdir().expect("a directory");
    read_by(
        "cp",
        &["-r", &example.display().to_string(), "f"],
        place.path(),
    );
    let at = place.path().join("f");
    let build = ["build", "--expected", "--locked", "--store", "store"];
    read_by(env!("CARGO_BIN_EXE_immbuild"), &build, &at);
    read_by("sha256sum", &["--check", "--strict", "SHA256SUMS"], &at);
    read_by("unzip", &["-q", "out/function.zip", "-d", "task"], &at);

    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let mut function = Command::new(at.join("task/bootstrap"))
        .env_clear()
        .envs([
            ("PATH", "/usr/bin:/bin"),
            ("AWS_LAMBDA_RUNTIME_API", &address),
            ("LAMBDA_TASK_ROOT", &at.join("task").display().to_string()),
        ])
        .current_dir("/")
        .spawn()
        .expect("it starts");
    let mut answers = Vec::new();
    for event in 0..3 {
        let (mut stream, _) = listener.accept().expect("a connection");
        let (line, _) = request(&stream);
        assert_eq!(line, "GET /2018-06-01/runtime/invocation/next");
        if event == 2 {
            // The platform ends it.
            write!(stream, "HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n").expect("sent");
            break;
        }
        let body = format!("{{\"number\": {event}}}");
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: id-{event}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("sent");
        drop(stream);
        let (mut stream, _) = listener.accept().expect("a connection");
        answers.push(request(&stream));
        write!(
            stream,
            "HTTP/1.1 202 Accepted\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
        .expect("sent");
    }
    assert!(function.wait().expect("it ended").success());
    let expected = |number: u32| {
        (
            format!("POST /2018-06-01/runtime/invocation/id-{number}/response"),
            format!(
                "{{\"greeting\": \"hello, the same bytes everywhere\", \"event\": {{\"number\": {number}}}}}\n"
            ),
        )
    };
    assert_eq!(answers, [expected(0), expected(1)]);
}

#[test]
fn what_is_no_file_is_refused_and_what_is_lost_is_told() {
    use immbuild::epoch::Epoch;
    use immbuild::output::{FunctionZip, OutputError, Written, write_function_zip};
    use immbuild_cas::path::RelPath;
    use immbuild_cas::store::MemoryStore;
    use immbuild_cas::tree::tree_of_listing;

    let at = |text: &str| RelPath::from_absolute(text.as_bytes()).expect("a path");
    let directory = tempfile::tempdir().expect("a directory");
    let target = directory.path().join("f.zip");
    let write = |listing: &str| -> Result<Written, OutputError> {
        let store = MemoryStore::new();
        let zip = FunctionZip {
            tree: &tree_of_listing(listing, &store).expect("a tree"),
            root: &at("/app"),
            epoch: Epoch::DEFAULT,
            directories: &store,
            blobs: &store,
        };
        write_function_zip(&target, &zip, &|_| ())
    };
    for (line, told) in [
        (
            "p 0644 0:0 /app/x/pipe",
            "a function zip cannot hold `/app/x/pipe`: it is a named pipe",
        ),
        (
            "c 0666 0:0 /app/null 1:3",
            "a function zip cannot hold `/app/null`: it is a device",
        ),
        (
            "b 0666 0:0 /app/disk 8:0",
            "a function zip cannot hold `/app/disk`: it is a device",
        ),
        (
            "f 0644 0:0 /app/\\xff \"\"",
            "a function zip cannot hold `/app/\\xff`: its name is not UTF-8",
        ),
    ] {
        let error = write(line).expect_err("refused");
        assert_eq!(error.to_string(), told);
    }
    assert!(!target.exists());

    let written = write(
        "f 0755 0:0 /app/a \"12345\"
         x          user.note=61
         h          /app/b => /app/a
         f 0600 0:0 /app/c \"\"
         p 0644 0:0 /elsewhere",
    )
    .expect("written");
    let expected = Written {
        packed: fs::metadata(&target).expect("there").len(),
        unpacked: 10,
        unreadable: vec![at("/app/c")],
        without_xattrs: vec![at("/app/a"), at("/app/b")],
    };
    assert_eq!(written, expected);
    let names: Vec<String> = entries(&fs::read(&target).expect("read"))
        .into_keys()
        .collect();
    assert_eq!(names, ["a", "b", "c"]);
}
