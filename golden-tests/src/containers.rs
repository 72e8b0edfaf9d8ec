//! immbuild inside a container of Docker's: what its own profile refuses, and what is needed.
//!
//! Starts a `dockerd` of its own on a socket of its own, without a network, and ends it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use immbuild_cas::digest::Digest;

use crate::lab::shell_spec;
use crate::machine::run;
use crate::matrix::open_to_all;
use crate::{roots, scratch, workspace};

/// A step that reads what the default tier hides.
const STEP: &str =
    r#"{ shell = "busybox date > /date; busybox head -c 8 /dev/urandom > /bytes" },"#;

/// A running `dockerd`.
#[derive(Debug)]
struct Engine {
    directory: PathBuf,
    process: Child,
}

impl Engine {
    fn start(directory: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&directory)?;
        let log = std::fs::File::create(directory.join("log"))?;
        let at = |name: &str| directory.join(name).display().to_string();
        let process = Command::new("dockerd")
            .args(["--data-root", &at("data"), "--exec-root", &at("exec")])
            .args([
                "--pidfile",
                &at("pid"),
                "--host",
                &format!("unix://{}", at("socket")),
            ])
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot run dockerd: install docker.io")?;
        let mut engine = Self { directory, process };
        for _ in 0..300 {
            if engine.docker(&["version"])?.0 == 0 {
                return Ok(engine);
            }
            if let Some(status) = engine.process.try_wait()? {
                let said = std::fs::read_to_string(engine.directory.join("log"))?;
                bail!("dockerd ended with {status}: {said}");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        bail!("dockerd does not answer")
    }

    /// Runs `docker`; gives its exit status and what it printed.
    fn docker(&self, arguments: &[&str]) -> Result<(i32, String)> {
        let socket = self.directory.join("socket");
        let output = Command::new("docker")
            .args(["--host", &format!("unix://{}", socket.display())])
            .args(arguments)
            .output()
            .context("cannot run docker")?;
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok((output.status.code().unwrap_or(-1), said))
    }

    /// Runs `immbuild` in a container that was started with these flags.
    fn immbuild(&self, flags: &[&str], arguments: &[&str]) -> Result<(i32, String)> {
        let program = format!("{}:/usr/bin/immbuild:ro", crate::immbuild().display());
        let project = format!("{}:/project", self.directory.join("project").display());
        let mut all = vec!["run", "--rm", "--network=none", "--env=HOME=/tmp"];
        all.extend(["--volume", &program, "--volume", &project]);
        all.extend(["--workdir=/project"]);
        all.extend(flags);
        all.extend(["debian", "immbuild"]);
        all.extend(arguments);
        self.docker(&all)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Politely, so that it takes its mounts and containers with it.
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.process),
            rustix::process::Signal::TERM,
        );
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Everything that is said of containers in the book.
pub fn check() -> Result<()> {
    let directory = scratch().join("docker");
    let _ = std::fs::remove_dir_all(&directory);
    let project = directory.join("project");
    std::fs::create_dir_all(&project)?;
    open_to_all(&scratch())?;
    std::fs::copy("/bin/busybox", project.join("busybox"))?;
    std::fs::write(
        project.join("spec.toml"),
        shell_spec(STEP, "").replace("\"isolated\"", "\"deterministic\""),
    )?;
    run("chmod", &["-R", "a+rwX", &text(&project)])?;
    let outside = outside(&project)?;
    let engine = Engine::start(directory)?;
    let root = text(&tar_of(&roots::debian()?)?);
    let (status, said) = engine.docker(&["import", &root, "debian"])?;
    ensure!(status == 0, "docker import: {said}");
    refused(&engine)?;
    same(&engine, &outside)?;
    supervised(&engine)?;
    drop(engine);
    statically()
}

/// Linked statically it needs nothing but Linux: it supervises in a root that has no other file than a static program.
fn statically() -> Result<()> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let status = Command::new("cargo")
        .args(["build", "--release", "--locked", "--quiet"])
        .args(["--package", "immbuild", "--target", TARGET])
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .current_dir(workspace())
        .status()?;
    ensure!(status.success(), "the static build ended with {status}");
    let program = crate::target().join(TARGET).join("release/immbuild");
    let root = scratch().join("static");
    let _ = std::fs::remove_dir_all(&root);
    std::fs::create_dir_all(root.join("proc"))?;
    std::fs::copy(&program, root.join("immbuild"))?;
    std::fs::copy("/bin/busybox", root.join("busybox"))?;
    let script = "mount -t proc proc \"$1/proc\" && exec chroot \"$1\" /immbuild supervise -- \
                  /busybox sh -c 'date -u +%Y; sleep 3600; date -u +%H:%M'";
    let said = run(
        "unshare",
        &[
            "--mount",
            "--pid",
            "--fork",
            "sh",
            "-c",
            script,
            "sh",
            &text(&root),
        ],
    )?;
    ensure!(said == "2020\n01:00\n", "statically linked it said {said}");
    std::fs::remove_dir_all(&root)?;
    println!("static       `supervise`: alone in a root");
    Ok(())
}

/// The digest of the project without any container.
fn outside(project: &Path) -> Result<String> {
    let store = text(&project.join("outside"));
    let spec = text(&project.join("spec.toml"));
    let program = text(&crate::immbuild());
    run(&program, &["build", "--quiet", "--store", &store, &spec])
        .map(|said| said.trim().to_owned())
}

/// The uncompressed layer of a layout with one.
fn tar_of(layout: &Path) -> Result<PathBuf> {
    let mut largest = None;
    for entry in walkdir::WalkDir::new(layout.join("blobs")) {
        let entry = entry?;
        let size = entry.metadata()?.len();
        if largest.as_ref().is_none_or(|(most, _)| size > *most) {
            largest = Some((size, entry.into_path()));
        }
    }
    Ok(largest.context("a layout has blobs")?.1)
}

/// Under Docker's own profile doctor names each feature with the error and the flag, and nothing is built.
fn refused(engine: &Engine) -> Result<()> {
    let store = "/project/refused";
    let (status, said) = engine.immbuild(&[], &["doctor", "--store", store])?;
    ensure!(status == 8, "doctor ended with {status}:\n{said}");
    for feature in [
        "ids",
        "user namespaces",
        "personality",
        "ptrace",
        "pidfd_getfd",
    ] {
        let mut lines = said.lines();
        let line = lines.find(|line| line.starts_with(&format!("failed  {feature:<17} ")));
        let line = line.with_context(|| format!("{feature} is not what failed:\n{said}"))?;
        ensure!(line.ends_with("(os error 1)"), "{line}");
        let fix = lines.next().unwrap_or_default();
        let flag = match feature {
            "ids" => "--cap-add SYS_ADMIN",
            _ => "--security-opt seccomp=seccomp.json",
        };
        ensure!(fix.contains(flag), "{fix}");
    }
    println!("docker       its own profile: refused, by feature");
    let arguments = ["build", "--store", store];
    for flags in [&["--user=1000:1000"][..], &[]] {
        let (status, said) = engine.immbuild(flags, &arguments)?;
        ensure!(
            status == 8 && said.contains("hint: "),
            "{flags:?} ended with {status}:\n{said}"
        );
    }
    // The profile alone does not uncover /proc.
    let flags = ["--user=1000:1000", "--security-opt", &profile()];
    let (status, said) = engine.immbuild(&flags, &["doctor", "--store", store])?;
    ensure!(
        status == 8
            && said.contains("failed  proc ")
            && said.contains("--security-opt systempaths=unconfined"),
        "doctor ended with {status}:\n{said}"
    );
    println!("docker       our profile and a covered /proc: refused, with the flag");
    Ok(())
}

/// With our profile and the flag a user and root build what is built outside.
fn same(engine: &Engine, outside: &str) -> Result<()> {
    let profile = profile();
    let flags = [
        "--security-opt",
        &profile,
        "--security-opt=systempaths=unconfined",
    ];
    for who in ["--user=1000:1000", "--cap-add=SYS_ADMIN"] {
        let store = format!("/project/{}", Digest::of(who.as_bytes()).to_hex());
        let flags = [&[who][..], &flags].concat();
        let (status, said) = engine.immbuild(&flags, &["doctor", "--store", &store])?;
        ensure!(status == 0, "{who}: doctor ended with {status}:\n{said}");
        let (status, said) = engine.immbuild(&flags, &["build", "--quiet", "--store", &store])?;
        ensure!(
            status == 0 && said.trim() == outside,
            "{who} ended with {status}, outside it is {outside}:\n{said}"
        );
    }
    println!("docker       our profile: a user and root, the digest of outside");
    Ok(())
}

/// The tracer alone needs nothing but the profile.
fn supervised(engine: &Engine) -> Result<()> {
    let arguments = [
        "supervise",
        "--",
        "sh",
        "-c",
        "date -u +%Y; sleep 3600; date -u +%H:%M",
    ];
    let profile = profile();
    let (status, said) = engine.immbuild(&["--security-opt", &profile], &arguments)?;
    ensure!(
        (status, said.as_str()) == (0, "2020\n01:00\n"),
        "it ended with {status}:\n{said}"
    );
    let (status, said) = engine.immbuild(&[], &arguments)?;
    ensure!(
        status == 8 && said.contains("--security-opt seccomp=seccomp.json"),
        "it ended with {status}:\n{said}"
    );
    println!("docker       `supervise`: with our profile alone");
    Ok(())
}

fn profile() -> String {
    let file = workspace().join("book/src/containers/seccomp.json");
    format!("seccomp={}", file.display())
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
