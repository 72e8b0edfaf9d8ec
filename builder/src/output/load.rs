//! Gives an image to an engine of this machine through the engine's own loader.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::copy::LayerSource;
use super::{Names, OutputError, Subject, only_image, write_docker_archive, write_oci_archive};

/// An engine that runs containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Takes an OCI archive, so layers and manifest digest stay as they are.
    Podman,
    /// Takes a docker archive: Docker 20.10 reads nothing else, and no version before 23 reads zstd. The image id (the config's digest)
    /// is the same; Docker computes a manifest of its own.
    Docker,
    /// Takes an OCI archive with all tags, through `ctr`, or `nerdctl` where there is no `ctr`. Both go by `CONTAINERD_NAMESPACE` and
    /// `CONTAINERD_ADDRESS`. An image is nothing but a name there, so it must have one.
    Containerd,
}

impl Engine {
    /// The program's name.
    pub fn program(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Docker => "docker",
            Self::Containerd => "ctr",
        }
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            other => other.program(),
        }
    }
}

/// How an engine is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineCommand {
    /// Which it is.
    pub engine: Engine,
    /// The program, found by `PATH`, and arguments that come before any other: `podman --remote`.
    pub words: Vec<OsString>,
}

impl From<Engine> for EngineCommand {
    fn from(engine: Engine) -> Self {
        Self {
            engine,
            words: vec![engine.program().into()],
        }
    }
}

/// Loads an image for one platform. `scratch` is a directory for the archive that is passed on.
///
/// # Errors
/// The image has several platforms, or no name for containerd; the engine is not installed or refuses; the archive cannot be written.
pub fn load(
    command: &EngineCommand,
    subject: Subject<'_>,
    names: &Names,
    layers: &dyn LayerSource,
    scratch: &Path,
    progress: &dyn Fn(u64),
) -> Result<(), OutputError> {
    let engine = command.engine;
    let image = only_image(subject, engine.program())?;
    let archive = Scratch(scratch.join(format!("load-{}.tar", std::process::id())));
    match engine {
        Engine::Docker => {
            write_docker_archive(&archive.0, subject, names, layers, progress)?;
        }
        Engine::Podman => {
            // Podman reads an OCI archive with exactly one entry: the other tags follow as names of that image.
            let first = Names {
                name: names.name.clone(),
                tags: names.tags.iter().take(1).cloned().collect(),
            };
            write_oci_archive(&archive.0, subject, &first, layers, progress)?;
        }
        Engine::Containerd => {
            if names.references().is_empty() {
                return Err(OutputError::Unnamed {
                    engine: engine.name(),
                });
            }
            write_oci_archive(&archive.0, subject, names, layers, progress)?;
            let import = ["images".as_ref(), "import".as_ref(), archive.0.as_os_str()];
            match command.run(&import) {
                Err(OutputError::NoProgram { .. }) => {}
                other => return other,
            }
            let nerdctl = EngineCommand {
                engine,
                words: vec!["nerdctl".into()],
            };
            return nerdctl.run(&["load".as_ref(), "-i".as_ref(), archive.0.as_os_str()]);
        }
    }
    command.run(&["load".as_ref(), "-i".as_ref(), archive.0.as_os_str()])?;
    if engine == Engine::Podman {
        let id = image.config_digest().digest().to_hex();
        for reference in names.references().iter().skip(1) {
            command.run(&["tag".as_ref(), id.as_ref(), reference.as_ref()])?;
        }
    }
    Ok(())
}

/// A file that goes when we do.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// How much of what a failing engine said is kept.
const STDERR_TAIL: usize = 2000;

impl EngineCommand {
    fn run(&self, args: &[&OsStr]) -> Result<(), OutputError> {
        let name = self.engine.program();
        let (program, first) = self
            .words
            .split_first()
            .ok_or(OutputError::NoProgram { program: name })?;
        let output = Command::new(program)
            .args(first)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .map_err(|source| match source.kind() {
                std::io::ErrorKind::NotFound => OutputError::NoProgram { program: name },
                _ => OutputError::Io {
                    action: "run",
                    path: program.into(),
                    source,
                },
            })?;
        if output.status.success() {
            return Ok(());
        }
        let from = output.stderr.len().saturating_sub(STDERR_TAIL);
        Err(OutputError::Engine {
            program: format!("{name} {}", args[0].display()),
            status: output.status,
            stderr: String::from_utf8_lossy(&output.stderr[from..])
                .trim()
                .to_owned(),
        })
    }
}
