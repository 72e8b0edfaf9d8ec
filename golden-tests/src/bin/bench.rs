//! The whole-command benchmark: immbuild beside the plain pipe and whatever peers are installed, in turn, in one run.
//!
//! `cargo run --release -p golden-tests --bin bench -- --dir DIR` makes its inputs below DIR, which should be on a disk
//! with 8 GB free. Figures are medians; what is printed are ratios, since seconds belong to one machine.

#![allow(clippy::print_stdout, reason = "a table is what it is for")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use golden_tests::{immbuild, roots};

/// Times immbuild beside the plain pipe and the peers.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where inputs and stores are made
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    /// How many counted runs of each
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Files in the large input
    #[arg(long, default_value_t = 58_642)]
    files: usize,
    /// Bytes in the large input
    #[arg(long, default_value_t = 1_070_000_000)]
    bytes: u64,
    /// Small files in the tiny input
    #[arg(long, default_value_t = 100_000)]
    tiny: usize,
    /// Only rows whose name starts with one of these
    #[arg(long)]
    only: Vec<String>,
    /// How many counted runs of the peers; from the second on, one more goes before them
    #[arg(long, default_value_t = 1)]
    peer_runs: usize,
    /// Leave out the peers
    #[arg(long)]
    no_peers: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    fs::create_dir_all(&arguments.dir)?;
    let dir = fs::canonicalize(&arguments.dir)?;
    let bench = Bench { arguments, dir };
    println!("| work | immbuild | beside | ratio | goal |");
    println!("|---|---|---|---|---|");
    bench.large()?;
    bench.tiny()?;
    bench.steps()?;
    bench.one()
}

struct Bench {
    arguments: Arguments,
    dir: PathBuf,
}

/// What one command took.
#[derive(Clone, Copy, Debug)]
struct Took {
    wall: f64,
    cpu: f64,
    rss: u64,
}

impl Bench {
    fn wants(&self, row: &str) -> bool {
        let only = &self.arguments.only;
        only.is_empty() || only.iter().any(|part| row.starts_with(part.as_str()))
    }

    /// The median of several runs of a command line, each after `before`.
    fn time(&self, line: &str, before: &str) -> Result<Took> {
        // The first warms the page cache.
        self.median(line, before, 1 + self.arguments.runs, 1)
    }

    /// The median of runs after as many that do not count.
    fn median(&self, line: &str, before: &str, runs: usize, leave_out: usize) -> Result<Took> {
        let mut all = Vec::new();
        for run in 0..runs {
            self.shell(before)?;
            let took = self.once(line)?;
            if run >= leave_out {
                all.push(took);
            }
        }
        all.sort_by(|a, b| a.wall.total_cmp(&b.wall));
        Ok(all[all.len() / 2])
    }

    /// A peer takes minutes; its input is in the page cache already.
    fn peer(&self, line: &str, before: &str) -> Result<Took> {
        let more = usize::from(self.arguments.peer_runs > 1);
        self.median(line, before, self.arguments.peer_runs + more, more)
    }

    fn once(&self, line: &str) -> Result<Took> {
        let start = Instant::now();
        let child = Command::new("sh")
            .args(["-c", line])
            .current_dir(&self.dir)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let (status, usage, errors) = wait(child)?;
        let wall = start.elapsed().as_secs_f64();
        ensure!(status == 0, "`{line}` ended with {status}: {errors}");
        let seconds = |time: libc::timeval| {
            #[allow(clippy::cast_precision_loss, reason = "times are small")]
            let value = time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
            value
        };
        Ok(Took {
            wall,
            cpu: seconds(usage.ru_utime) + seconds(usage.ru_stime),
            rss: u64::try_from(usage.ru_maxrss).unwrap_or_default(),
        })
    }

    fn shell(&self, line: &str) -> Result<()> {
        let status = Command::new("sh")
            .args(["-c", line])
            .current_dir(&self.dir)
            .stdout(Stdio::null())
            .status()?;
        ensure!(status.success(), "`{line}` ended with {status}");
        Ok(())
    }

    fn row(name: &str, ours: Took, beside: &str, theirs: Took, goal: &str) {
        println!(
            "| {name} | {:.3} s, {:.2} CPU-s, {} MB | {beside} {:.3} s, {:.2} CPU-s | **{:.2}** | {goal} |",
            ours.wall,
            ours.cpu,
            ours.rss / 1024,
            theirs.wall,
            theirs.cpu,
            ours.wall / theirs.wall
        );
        let _ = std::io::stdout().flush();
    }

    fn alone(name: &str, ours: Took, goal: &str) {
        println!(
            "| {name} | {:.3} s, {:.2} CPU-s, {} MB | | | {goal} |",
            ours.wall,
            ours.cpu,
            ours.rss / 1024
        );
        let _ = std::io::stdout().flush();
    }

    fn build(spec: &str) -> String {
        format!(
            "{} build {spec} --quiet --store store",
            immbuild().display()
        )
    }

    fn spec(&self, name: &str, source: &str, compression: &str) -> Result<()> {
        let text = format!(
            "immbuild = 1\nsource.files.path = \"{source}\"\n\n[image]\ncompression = \"{compression}\"\n\
             steps = [{{ copy = \"files\", to = \"/srv\" }}]\n\n[[output]]\nkind = \"oci-archive\"\nfile = \"out/{name}.tar\"\n"
        );
        fs::write(self.dir.join(format!("{name}.toml")), text)?;
        Ok(())
    }

    /// 58,642 files, 1.07 GB.
    fn large(&self) -> Result<()> {
        let rows = [
            "large zstd",
            "large none",
            "large gzip",
            "large again",
            "large changed",
        ];
        if !rows.iter().any(|row| self.wants(row)) {
            return Ok(());
        }
        let input = self.dir.join("large");
        if !input.exists() {
            collect(&input, self.arguments.files, self.arguments.bytes)?;
        }
        let sums = "find large -type f -print0 | xargs -0 sha256sum > sums";
        let fresh = "rm -rf store out pipe.out sums";
        for (compression, pipe, goal) in [
            (
                "zstd",
                "tar -cf - large | zstd -q -3 -T2 > pipe.out && sync pipe.out",
                "≤ 1.3",
            ),
            (
                "none",
                "tar -cf - large | tee pipe.out | sha256sum && sync pipe.out",
                "≤ 1.3",
            ),
            (
                "gzip",
                "tar -cf - large | gzip -6 > pipe.out && sync pipe.out",
                "≤ 0.35",
            ),
        ] {
            let name = format!("large {compression}");
            if !self.wants(&name) {
                continue;
            }
            self.spec(compression, "large", compression)?;
            let ours = self.time(&Self::build(&format!("{compression}.toml")), fresh)?;
            let theirs = self.time(&format!("{pipe} && {sums}"), fresh)?;
            Self::row(&name, ours, "pipe", theirs, goal);
            if compression == "zstd" {
                self.peers("large", &name, ours)?;
            }
        }
        self.spec("zstd", "large", "zstd")?;
        let build = Self::build("zstd.toml");
        self.shell(&build)?;
        // What was touched two seconds before a scan is read again by the next: wait, and let one scan see it.
        std::thread::sleep(std::time::Duration::from_secs(3));
        self.shell(&build)?;
        if self.wants("large again") {
            Self::alone(
                "large again, nothing changed",
                self.time(&build, "true")?,
                "≤ 0.5 s",
            );
        }
        if self.wants("large changed") {
            let change = "date +%N > large/changed-file; sleep 0.1";
            Self::alone(
                "large again, one file changed",
                self.time(&build, change)?,
                "≤ 3 s",
            );
        }
        Ok(())
    }

    /// 100,000 files of a few bytes.
    fn tiny(&self) -> Result<()> {
        let rows = ["tiny cold", "tiny again", "tiny changed"];
        if !rows.iter().any(|row| self.wants(row)) {
            return Ok(());
        }
        let input = self.dir.join("tiny");
        if !input.exists() {
            for number in 0..self.arguments.tiny {
                let directory = input.join(format!("{:03}", number / 250));
                if number % 250 == 0 {
                    fs::create_dir_all(&directory)?;
                }
                fs::write(
                    directory.join(format!("file-{number}")),
                    format!("content {number}\n"),
                )?;
            }
        }
        self.spec("tiny", "tiny", "none")?;
        let build = Self::build("tiny.toml");
        let fresh = "rm -rf store out pipe.out sums";
        if self.wants("tiny cold") {
            let pipe = "tar -cf - tiny | sha256sum > pipe.out && find tiny -type f -print0 | xargs -0 sha256sum > sums";
            let ours = self.time(&build, fresh)?;
            let theirs = self.time(pipe, fresh)?;
            Self::row("tiny cold", ours, "pipe", theirs, "≤ 2");
            self.peers("tiny", "tiny cold", ours)?;
        }
        self.shell(&build)?;
        std::thread::sleep(std::time::Duration::from_secs(3));
        self.shell(&build)?;
        let walk = "find tiny -printf '%p %s %T@\\n' | sort > sums";
        if self.wants("tiny again") {
            let ours = self.time(&build, "true")?;
            let theirs = self.time(walk, "true")?;
            Self::row(
                "tiny again, nothing changed",
                ours,
                "sorted walk",
                theirs,
                "≤ 1.5",
            );
        }
        if self.wants("tiny changed") {
            let ours = self.time(&build, "date +%N > tiny/000/file-0; sleep 0.1")?;
            let theirs = self.time(walk, "true")?;
            Self::row(
                "tiny again, one file changed",
                ours,
                "sorted walk",
                theirs,
                "≤ 3",
            );
        }
        Ok(())
    }

    /// 30 trivial steps on a Debian root.
    fn steps(&self) -> Result<()> {
        if !self.wants("steps cold") && !self.wants("steps cached") {
            return Ok(());
        }
        let layout = roots::debian()?;
        let steps = (0..30)
            .map(|number| format!("  {{ run = [\"/bin/touch\", \"/step-{number}\"] }},"))
            .collect::<Vec<_>>()
            .join("\n");
        let text = format!(
            "immbuild = 1\ntier = \"isolated\"\nsource.debian.image = \"{}\"\n\n[image]\nfrom = \"debian\"\nsteps = [\n{steps}]\n",
            layout.display()
        );
        fs::write(self.dir.join("steps.toml"), text)?;
        // The base is imported and materialised once; what is timed are the steps.
        let build = Self::build("steps.toml");
        self.shell(&format!("rm -rf store steps.lock; {build}"))?;
        if self.wants("steps cold") {
            let ours = self.time(&format!("{build} --rerun"), "true")?;
            Self::alone("30 run steps, cold", ours, "≤ 0.6 s");
        }
        if self.wants("steps cached") {
            Self::alone(
                "30 run steps, cached",
                self.time(&build, "true")?,
                "≤ 0.05 s",
            );
        }
        Ok(())
    }

    /// One file of 12 MB on nothing.
    fn one(&self) -> Result<()> {
        if !self.wants("one cold") && !self.wants("one again") {
            return Ok(());
        }
        let file = self.dir.join("program");
        if !file.exists() {
            // Something compressible as programs are.
            let mut bytes = fs::read(std::env::current_exe()?)?;
            while bytes.len() < 12_000_000 {
                bytes.extend_from_within(..);
            }
            bytes.truncate(12_000_000);
            fs::write(&file, bytes)?;
        }
        self.spec("one", "program", "zstd")?;
        let build = Self::build("one.toml");
        if self.wants("one cold") {
            let ours = self.time(&build, "rm -rf store out")?;
            Self::alone("one 12 MB file, cold", ours, "≤ 0.06 s");
            self.peers("program", "one cold", ours)?;
        }
        if self.wants("one again") {
            self.shell(&build)?;
            std::thread::sleep(std::time::Duration::from_secs(3));
            self.shell(&build)?;
            Self::alone(
                "one 12 MB file, again",
                self.time(&build, "true")?,
                "≤ 0.03 s",
            );
        }
        Ok(())
    }

    /// buildah and umoci on the same input, where they are installed.
    fn peers(&self, input: &str, name: &str, ours: Took) -> Result<()> {
        if self.arguments.no_peers {
            return Ok(());
        }
        let has = |program: &str| {
            Command::new(program)
                .arg("--version")
                .output()
                .is_ok_and(|output| output.status.success())
        };
        if has("buildah") {
            fs::write(
                self.dir.join("Containerfile"),
                format!("FROM scratch\nCOPY {input} /srv\n"),
            )?;
            fs::write(self.dir.join(".containerignore"), format!("*\n!{input}\n"))?;
            let storage = "--root buildah-root --runroot buildah-run --storage-driver vfs";
            let line = format!(
                "buildah {storage} build --quiet --no-cache -f Containerfile -t bench . && \
                 buildah {storage} push --quiet bench oci-archive:peer.tar"
            );
            let theirs = self.peer(&line, "rm -rf buildah-root buildah-run peer.tar")?;
            Self::row(name, ours, "buildah", theirs, "");
            self.shell("rm -rf buildah-root buildah-run peer.tar")?;
        }
        if has("umoci") {
            let line = format!(
                "umoci init --layout peer && umoci new --image peer:bench && umoci insert --image peer:bench {input} /srv"
            );
            let theirs = self.peer(&line, "rm -rf peer")?;
            Self::row(name, ours, "umoci", theirs, "");
            self.shell("rm -rf peer")?;
        }
        Ok(())
    }
}

/// Waits for a child and gives its exit status, what it used with all its descendants, and its standard error.
#[allow(
    unsafe_code,
    reason = "the standard library does not tell what a child used"
)]
fn wait(mut child: std::process::Child) -> Result<(i32, libc::rusage, String)> {
    let mut errors = String::new();
    if let Some(mut stream) = child.stderr.take() {
        std::io::Read::read_to_string(&mut stream, &mut errors)
            .context("standard error is text")?;
    }
    let pid = i32::try_from(child.id())?;
    let mut status = 0;
    // SAFETY: a zeroed rusage is a valid value of the plain C struct.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of the right types; the child has not been waited for.
    let result = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    ensure!(result == pid, "cannot wait for {pid}");
    Ok((libc::WEXITSTATUS(status), usage, errors))
}

/// Copies files of this machine until there are as many, of as many bytes: real input of all kinds.
fn collect(into: &Path, files: usize, bytes: u64) -> Result<()> {
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .unwrap_or_default();
    let places = ["/usr/share", "/usr/include", "/usr/lib", "/usr/bin"]
        .map(PathBuf::from)
        .into_iter()
        .chain([
            home.join(".cargo/registry/src"),
            home.join(".rustup/toolchains"),
        ]);
    let (mut count, mut size) = (0, 0);
    let part = into.with_extension("part");
    let average = bytes / files as u64;
    for (place, number) in places.zip(0..) {
        for entry in walkdir::WalkDir::new(&place).sort_by_file_name() {
            let Ok(entry) = entry else { continue };
            if !entry.file_type().is_file() {
                continue;
            }
            let length = entry.metadata()?.len();
            // Large files wait until the small ones have brought the average down.
            let ahead = (size + length) > (count as u64 + 1) * average + bytes / 10;
            if count >= files || size + length > bytes || ahead {
                continue;
            }
            let to = part
                .join(number.to_string())
                .join(entry.path().strip_prefix(&place)?);
            fs::create_dir_all(to.parent().context("a file is in a directory")?)?;
            fs::copy(entry.path(), &to)?;
            count += 1;
            size += length;
        }
    }
    println!("input: {count} files, {size} bytes");
    fs::rename(part, into)?;
    Ok(())
}
