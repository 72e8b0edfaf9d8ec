//! A place to try what goes wrong: a directory with a spec, a store of its own, and the program run in it.
//!
//! The program is the `immbuild` that lies beside the tests, of the same profile. `cargo test --workspace` builds it;
//! `cargo test -p golden-tests` alone does not, and needs a `cargo build -p immbuild` before.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use immbuild_cas::digest::Digest;

use crate::machine::User;

/// A user without any right here, and without a range of ids.
pub const NOBODY: u32 = 65534;

/// A root that has a shell, for specs with steps that execute: two steps of `[image]` and the source they need.
pub const SHELL: &str = r#"
  { copy = "busybox", to = "/bin/busybox", mode = "0755" },
  { link = "/bin/sh", to = "busybox" },
"#;

/// The program under test, of the profile of the test that asks.
pub fn immbuild() -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    let profile = test
        .ancestors()
        .nth(2)
        .expect("a test lies in target/<profile>/deps");
    let program = profile.join("immbuild");
    assert!(
        program.exists(),
        "there is no {}: run `cargo test --workspace`, or `cargo build -p immbuild` before",
        program.display()
    );
    program
}

/// For tests that mount, or act as another user.
pub fn need_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test mounts file systems or acts as other users: run it as root, as `cargo ci` does"
    );
}

/// A directory that goes when this is dropped.
#[derive(Debug)]
pub struct Lab {
    top: tempfile::TempDir,
    /// Where the store is; not inside the project.
    pub store: PathBuf,
}

impl Lab {
    /// One with this spec, in the directory for temporary files.
    pub fn new(spec: &str) -> Self {
        Self::below(&std::env::temp_dir(), spec)
    }

    /// One with this spec, on the file system of `place`.
    pub fn below(place: &Path, spec: &str) -> Self {
        let top = tempfile::Builder::new()
            .prefix("lab-")
            .tempdir_in(place)
            .expect("a temporary directory can be made");
        let lab = Self {
            store: top.path().join("store"),
            top,
        };
        fs::create_dir(lab.project()).unwrap_or_else(|error| panic!("{error}"));
        lab.write("spec.toml", spec);
        lab
    }

    /// One whose image has a shell and then these steps, and whose spec ends with `rest`.
    pub fn with_shell(steps: &str, rest: &str) -> Self {
        Self::with_shell_below(&std::env::temp_dir(), steps, rest)
    }

    /// The same on the file system of `place`.
    pub fn with_shell_below(place: &Path, steps: &str, rest: &str) -> Self {
        let lab = Self::below(place, &shell_spec(steps, rest));
        let busybox = Path::new("/bin/busybox");
        fs::copy(busybox, lab.file("busybox")).unwrap_or_else(|error| {
            panic!("the tests need /bin/busybox (Debian: `busybox-static`): {error}")
        });
        lab
    }

    /// The directory of the spec.
    pub fn project(&self) -> PathBuf {
        self.top.path().join("project")
    }

    /// A directory beside the project and the store.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    /// A file of the project.
    pub fn file(&self, name: &str) -> PathBuf {
        self.project().join(name)
    }

    /// Writes a file of the project.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.file(name);
        let parent = path.parent().expect("a file is in a directory");
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&path, bytes))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Reads a file of the project.
    pub fn read(&self, name: &str) -> Vec<u8> {
        let path = self.file(name);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Lets everybody read and write everything, also what is made later.
    pub fn open_to_all(&self) {
        for directory in [self.top.path().to_owned(), self.project()] {
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o777))
                .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        }
    }

    /// `immbuild` with these arguments in the project's directory, saying only what went wrong, in an environment that
    /// has nothing of the machine's.
    pub fn immbuild(&self, arguments: &[&str]) -> Command {
        let mut command = self.prepared(Command::new(immbuild()), arguments);
        command.arg("--quiet");
        command
    }

    fn prepared(&self, mut command: Command, arguments: &[&str]) -> Command {
        command.args(arguments).arg("--store").arg(&self.store);
        command.current_dir(self.project());
        command.env_clear();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", self.top.path());
        command
    }

    /// Runs it to its end.
    pub fn run(&self, arguments: &[&str]) -> Ended<'_> {
        self.end(&mut self.immbuild(arguments))
    }

    /// Runs a command line that was made with [`Lab::immbuild`] to its end.
    pub fn end(&self, command: &mut Command) -> Ended<'_> {
        let before = self.listing();
        let output = command.stdin(Stdio::null()).output();
        let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Ended {
            lab: self,
            before,
            output,
        }
    }

    /// Runs it as a user without any right.
    pub fn run_as_nobody(&self, arguments: &[&str]) -> Ended<'_> {
        need_root();
        let mut command = Command::new("setpriv");
        let id = NOBODY.to_string();
        command
            .args(["--reuid", &id, "--regid", &id, "--clear-groups"])
            .arg(immbuild());
        self.end(self.prepared(command, arguments).arg("--quiet"))
    }

    /// Runs it as one of the users of a machine.
    pub fn run_as(&self, user: User, arguments: &[&str]) -> Ended<'_> {
        need_root();
        if user == User::Root {
            return self.run(arguments);
        }
        let mut command = Command::new("setpriv");
        let id = user
            .id()
            .unwrap_or_else(|error| panic!("{error:#}"))
            .to_string();
        command
            .args(["--reuid", &id, "--regid", &id, "--clear-groups"])
            .arg(immbuild());
        self.end(self.prepared(command, arguments).arg("--quiet"))
    }

    /// Starts it, telling all it does, and gives a handle that does not let it outlive the test.
    pub fn start(&self, arguments: &[&str]) -> Running<'_> {
        let mut command = self.prepared(Command::new(immbuild()), arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let before = self.listing();
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Running {
            lab: self,
            before,
            child: Some(child),
            said: Vec::new(),
        }
    }

    /// Everything in the project's directory, with what is in it.
    pub fn listing(&self) -> BTreeMap<String, String> {
        let project = self.project();
        walkdir::WalkDir::new(&project)
            .min_depth(1)
            .into_iter()
            .map(|entry| {
                let entry = entry.unwrap_or_else(|error| panic!("{error}"));
                let name = entry.path().strip_prefix(&project).expect("it is below");
                (name.display().to_string(), what_is(entry.path()))
            })
            .collect()
    }
}

/// A spec whose image has a shell and then these steps.
pub fn shell_spec(steps: &str, rest: &str) -> String {
    format!(
        "immbuild = 1\ntier = \"isolated\"\nsource.busybox.path = \"busybox\"\n{rest}\n[image]\nsteps = [{SHELL}{steps}\n]\n"
    )
}

fn what_is(path: &Path) -> String {
    let metadata = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{error}"));
    let kind = metadata.file_type();
    if kind.is_file() {
        // What cannot be read (a test may have seen to that) is not there to be compared either.
        fs::read(path).map_or_else(
            |error| error.to_string(),
            |bytes| Digest::of(&bytes).to_string(),
        )
    } else if kind.is_symlink() {
        format!(
            "link to {}",
            fs::read_link(path).unwrap_or_default().display()
        )
    } else if kind.is_dir() {
        "directory".to_owned()
    } else if kind.is_socket() || kind.is_fifo() {
        "socket or pipe".to_owned()
    } else {
        "something else".to_owned()
    }
}

/// A run that has ended.
#[derive(Debug)]
pub struct Ended<'a> {
    lab: &'a Lab,
    before: BTreeMap<String, String>,
    /// What it wrote, and how it ended.
    pub output: Output,
}

impl Ended<'_> {
    /// How it ended.
    pub fn status(&self) -> ExitStatus {
        self.output.status
    }

    /// What it said, with `DIR` for the directory of the lab.
    pub fn said(&self) -> String {
        let text = String::from_utf8_lossy(&self.output.stderr).into_owned();
        text.replace(&self.lab.top.path().display().to_string(), "DIR")
    }

    /// It succeeded; gives the digest it printed.
    #[track_caller]
    pub fn digest(&self) -> String {
        assert!(
            self.output.status.success(),
            "{}: {}",
            self.output.status,
            self.said()
        );
        let text = String::from_utf8_lossy(&self.output.stdout);
        let digest = text.trim_end();
        assert!(
            digest.starts_with("sha256:") && digest.len() == 71,
            "stdout is not one digest: {text:?}"
        );
        digest.to_owned()
    }

    /// It ended with this status, said exactly this, and left the project as it was.
    #[track_caller]
    pub fn refused(&self, exit: i32, message: &str) {
        assert_eq!(self.said().trim_end(), message.trim(), "what it said");
        self.ended_with(exit);
    }

    /// It ended with this status, said each of these among other things, and left the project as it was.
    #[track_caller]
    pub fn refused_with(&self, exit: i32, parts: &[&str]) {
        let said = self.said();
        for part in parts {
            assert!(
                said.contains(part),
                "it does not say {part:?}, but:\n{said}"
            );
        }
        self.ended_with(exit);
    }

    #[track_caller]
    fn ended_with(&self, exit: i32) {
        let status = self.output.status;
        assert_eq!(status.code(), Some(exit), "{status}: {}", self.said());
        assert_eq!(
            String::from_utf8_lossy(&self.output.stdout),
            "",
            "stdout is for data"
        );
        assert_eq!(
            self.lab.listing(),
            self.before,
            "a failed run leaves the project as it was"
        );
        nothing_left_running(self.lab);
    }
}

/// No process has anything of the lab open as its root, its directory or its program, and no mount is below it.
#[track_caller]
pub fn nothing_left_running(lab: &Lab) {
    let top = lab.top.path().display().to_string();
    let still = || {
        let mut found = Vec::new();
        #[allow(
            clippy::disallowed_methods,
            reason = "what is asked is whether there is any, so order means nothing"
        )]
        let processes = fs::read_dir("/proc");
        for entry in processes.into_iter().flatten().flatten() {
            let Ok(id) = entry.file_name().to_string_lossy().parse::<u32>() else {
                continue;
            };
            for name in ["cwd", "root", "exe"] {
                if fs::read_link(entry.path().join(name))
                    .is_ok_and(|target| target.to_string_lossy().starts_with(&top))
                {
                    found.push(format!("process {id} has its {name} there"));
                }
            }
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&command).contains(&top) {
                found.push(format!(
                    "process {id} names it: {}",
                    String::from_utf8_lossy(&command)
                ));
            }
        }
        found
    };
    // What was killed takes a moment to go.
    let mut found = still();
    for _ in 0..100 {
        if found.is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        found = still();
    }
    assert_eq!(found, Vec::<String>::new(), "nothing runs on");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let left: Vec<&str> = mounts
        .lines()
        .filter(|line| {
            line.contains(&format!("{top}/project")) || line.contains(&format!("{top}/store"))
        })
        .collect();
    assert_eq!(left, Vec::<&str>::new(), "nothing stays mounted");
}

/// A run that has not ended; killed when it is dropped.
#[derive(Debug)]
pub struct Running<'a> {
    lab: &'a Lab,
    before: BTreeMap<String, String>,
    child: Option<Child>,
    /// What was read of stderr so far.
    said: Vec<u8>,
}

impl<'a> Running<'a> {
    /// Its process.
    pub fn id(&self) -> rustix::process::Pid {
        let child = self.child.as_ref().expect("it was not waited for yet");
        rustix::process::Pid::from_child(child)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.id(), signal).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Reads what it says until a line contains this.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        let child = self.child.as_mut().expect("it was not waited for yet");
        let stderr = child.stderr.as_mut().expect("it is a pipe");
        let mut line = Vec::new();
        let mut byte = [0];
        // Byte by byte, so that nothing is taken from what is read at the end.
        while stderr.read(&mut byte).unwrap_or(0) == 1 {
            line.push(byte[0]);
            self.said.push(byte[0]);
            if byte[0] == b'\n' {
                line.clear();
            } else if String::from_utf8_lossy(&line).contains(text) {
                return;
            }
        }
        panic!(
            "it never said {text:?}, but:\n{}",
            String::from_utf8_lossy(&self.said)
        );
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Ended<'a> {
        let child = self.child.take().expect("it was not waited for yet");
        let output = child.wait_with_output();
        let mut output = output.unwrap_or_else(|error| panic!("{error}"));
        output.stderr.splice(0..0, std::mem::take(&mut self.said));
        Ended {
            lab: self.lab,
            before: std::mem::take(&mut self.before),
            output,
        }
    }

    /// Kills it, as a power cut would, and waits until it is gone.
    pub fn kill(self) -> bool {
        self.signal(rustix::process::Signal::KILL);
        let ended = self.wait();
        ended.output.status.signal() == Some(9)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
