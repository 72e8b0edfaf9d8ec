//! What the checks change about this machine, and put back: users, file systems.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::roots;

/// Runs a program to its end and wants it to succeed; gives what it printed.
pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(
        output.status.success(),
        "{program} {} ended with {}: {}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Who builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum User {
    /// User 0 of the machine.
    Root,
    /// A user with 65,536 sub-uids.
    Range,
    /// A user without any.
    Plain,
}

impl User {
    /// Its name, for those that are made.
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Range => "immbuild-range",
            Self::Plain => "immbuild-plain",
        }
    }

    /// Its number. The users are made when they are missing.
    pub fn id(self) -> Result<u32> {
        if self == Self::Root {
            return Ok(0);
        }
        let name = self.name();
        let _alone = roots::alone("users")?;
        if run("id", &["-u", name]).is_err() {
            run("useradd", &["--create-home", "--shell", "/bin/sh", name])?;
        }
        // `useradd` gives a range where the machine is set up for it: what a user has is said here alone.
        for file in ["/etc/subuid", "/etc/subgid"] {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let range = format!("{name}:700000000:65536");
            let mut lines: Vec<&str> = text
                .lines()
                .filter(|line| !line.starts_with(&format!("{name}:")))
                .collect();
            if self == Self::Range {
                lines.push(&range);
            }
            let wanted = lines.join("\n") + "\n";
            // At once, and only when it has to be: builds beside this one read it.
            if wanted != text {
                let new = format!("{file}.immbuild");
                std::fs::write(&new, wanted)
                    .and_then(|()| std::fs::rename(&new, file))
                    .with_context(|| file.to_owned())?;
            }
        }
        Ok(run("id", &["-u", name])?.trim().parse()?)
    }
}

/// What the store and the work lie on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileSystem {
    /// A fresh ext4 in a file, so that its hash seed is another each time.
    Ext4,
    /// Memory.
    Tmpfs,
    /// An ext4 whose inodes have no room for parts of a second.
    WholeSeconds,
    /// A fresh xfs in a file.
    Xfs,
    /// A fresh btrfs in a file.
    Btrfs,
}

/// A mounted file system that goes when this is dropped.
#[derive(Debug)]
pub struct Mounted {
    directory: PathBuf,
    image: PathBuf,
}

impl Mounted {
    /// Makes one of so many GiB at most below `scratch`.
    pub fn new(kind: FileSystem, gibibytes: u8, scratch: &Path, name: &str) -> Result<Self> {
        let directory = scratch.join(format!("mnt-{name}"));
        let image = scratch.join(format!("{name}.img"));
        std::fs::create_dir_all(&directory)?;
        let (at, file) = (text(&directory), text(&image));
        match kind {
            FileSystem::Tmpfs => {
                let options = format!("size={gibibytes}G,mode=1777");
                run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", &at])?;
            }
            FileSystem::Ext4 | FileSystem::WholeSeconds | FileSystem::Xfs | FileSystem::Btrfs => {
                std::fs::File::create(&image)?.set_len(u64::from(gibibytes) << 30)?;
                match kind {
                    FileSystem::Xfs => run("mkfs.xfs", &["-q", &file])?,
                    FileSystem::Btrfs => run("mkfs.btrfs", &["-q", "-f", &file])?,
                    FileSystem::WholeSeconds => {
                        run("mkfs.ext4", &["-q", "-F", "-I", "128", &file])?
                    }
                    _ => run("mkfs.ext4", &["-q", "-F", &file])?,
                };
                run("mount", &["-o", "loop", &file, &at])?;
                run("chmod", &["1777", &at])?;
            }
        }
        Ok(Self { directory, image })
    }

    /// One in memory at `directory`, which is made, with the options of `mount`.
    pub fn tmpfs(options: &str, directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        run(
            "mount",
            &["-t", "tmpfs", "-o", options, "tmpfs", &text(directory)],
        )?;
        Ok(Self {
            directory: directory.to_owned(),
            image: PathBuf::new(),
        })
    }

    /// Gives one in memory another size.
    pub fn resize(&self, size: &str) -> Result<()> {
        let options = format!("remount,size={size}");
        run("mount", &["-o", &options, &text(&self.directory)])?;
        Ok(())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Nothing is left to tell anybody; the next run makes its own.
        let _ = run("umount", &["--lazy", &text(&self.directory)]);
        let _ = std::fs::remove_dir(&self.directory);
        let _ = std::fs::remove_file(&self.image);
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Processor seconds, user and system, of this process so far (`RUSAGE_SELF`), or of its children that were waited for
/// (`RUSAGE_CHILDREN`).
#[allow(unsafe_code, reason = "there is no safe way to ask")]
pub fn processor_seconds(who: libc::c_int) -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` is valid for writes, and all zeros is one.
    let usage = unsafe {
        assert_eq!(libc::getrusage(who, usage.as_mut_ptr()), 0);
        usage.assume_init()
    };
    #[allow(clippy::cast_precision_loss, reason = "seconds of a process are few")]
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}
