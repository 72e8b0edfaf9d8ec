//! A spec with its lock, as files.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::failure::{Exit, Failure};
use super::libraries;
use crate::diag::{Diagnostic, Place, SourceFile};
use crate::lock::{self, model::Lock};
use crate::platform::Platform;
use crate::spec::model::{Configure, Resolved, SourceKind, Verb};
use crate::spec::{self, Arguments, Spec};

/// A spec that was read and is valid as far as can be said without a platform.
#[derive(Debug)]
pub struct Project {
    /// The spec's file, as the user named it.
    pub path: PathBuf,
    /// The directory that paths in the spec start from.
    pub directory: PathBuf,
    /// The lock's file: the spec's name with `.lock`.
    pub lock_path: PathBuf,
    /// The spec.
    pub spec: Spec,
    /// The spec's text, for pointing at.
    pub file: Arc<SourceFile>,
}

/// A text no longer than this is read as a spec or lock.
const TEXT_MAX: u64 = 16 << 20;

impl Project {
    /// Reads a spec.
    ///
    /// # Errors
    /// There is none, it cannot be read, or it is invalid: all of its errors.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let text = read_text(path, Exit::Spec)?.ok_or_else(|| {
            let shown = path.display();
            Failure::new(
                Exit::Spec,
                Diagnostic::error(format!("there is no spec `{shown}`"))
                    .hint("run `immbuild init` to write one, or name it with `-f FILE`"),
            )
        })?;
        let name = path.display().to_string();
        let spec = spec::parse(&text, &name)
            .map_err(|diagnostics| Failure::all(Exit::Spec, diagnostics))?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let directory = fs::canonicalize(parent)
            .map_err(|error| io_failure("find the directory of", path, &error))?;
        Ok(Self {
            path: path.to_owned(),
            directory,
            lock_path: path.with_extension("lock"),
            file: Arc::clone(spec.file()),
            spec,
        })
    }

    /// Reads the lock, if there is one.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub fn read_lock(&self) -> Result<Option<Lock>, Failure> {
        let text =
            read_text(&self.lock_path, Exit::Lock).map_err(|failure| match failure.exit {
                Exit::Lock => failure.hint(lock::RESTORE),
                _ => failure,
            })?;
        let Some(text) = text else { return Ok(None) };
        lock::parse(&text, &self.lock_path.display().to_string())
            .map(Some)
            .map_err(|diagnostics| Failure::all(Exit::Lock, diagnostics))
    }

    /// Writes the lock, whole or not at all. Says whether its bytes changed.
    pub fn write_lock(&self, lock: &Lock) -> Result<bool, Failure> {
        let text = lock::write(lock);
        if read_text(&self.lock_path, Exit::Lock)?.as_ref() == Some(&text) {
            return Ok(false);
        }
        write_atomically(&self.lock_path, text.as_bytes())
            .map_err(|error| io_failure("write", &self.lock_path, &error))?;
        Ok(true)
    }

    /// The spec for each of its platforms, with the defaults of its arguments: what the lock speaks of.
    pub fn resolve_defaults(&self) -> Result<BTreeMap<Platform, Resolved>, Failure> {
        let arguments = self.arguments(&BTreeMap::new())?;
        self.resolve_each(self.spec.platforms(), &arguments)
    }

    /// The spec for each of these platforms, with what its requirements say.
    pub fn resolve_each(
        &self,
        platforms: &[Platform],
        arguments: &Arguments,
    ) -> Result<BTreeMap<Platform, Resolved>, Failure> {
        let mut resolved = self
            .spec
            .resolve_each(platforms, arguments)
            .map_err(|diagnostics| Failure::all(Exit::Spec, diagnostics))?;
        for spec in resolved.values_mut() {
            for source in spec.sources.values_mut() {
                let SourceKind::Python(python) = &mut source.kind else {
                    continue;
                };
                if python.is_lock() {
                    continue;
                }
                let place = Place {
                    file: Arc::clone(&self.file),
                    span: source.span,
                };
                let requirements = libraries::requirements(self, python)
                    .map_err(|failure| failure.at(place, &source.name))?;
                python.content = Some(requirements.digest());
            }
        }
        Ok(resolved)
    }

    /// Does any stage execute anything, on any platform?
    pub fn executes(&self) -> bool {
        self.resolve_defaults().is_ok_and(|resolved| {
            resolved.values().any(|spec| {
                let mut steps = spec.stages.values().flat_map(|stage| &stage.steps);
                let mut sources = spec.sources.values();
                steps.any(|step| matches!(step.verb, Verb::Run(_)))
                    || sources.any(|source| {
                        matches!(&source.kind, SourceKind::Debian(debian)
                            if debian.configure == Configure::Scripts)
                    })
            })
        })
    }

    /// The declared arguments with what the command line says.
    pub fn arguments(&self, given: &BTreeMap<String, String>) -> Result<Arguments, Failure> {
        self.spec.arguments(given).map_err(|error| {
            Failure::new(
                Exit::Usage,
                Diagnostic::error(error.to_string()).hint(error.hint),
            )
        })
    }

    /// A path of the spec, from its directory.
    pub fn resolve(&self, path: &str) -> PathBuf {
        self.directory.join(path)
    }

    /// The name under which the store remembers what this spec gave: its absolute path.
    pub fn memory(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        self.directory.join(name).display().to_string()
    }
}

/// The text of a file; nothing when there is none. What is no text ends with `exit`.
pub(super) fn read_text(path: &Path, exit: Exit) -> Result<Option<String>, Failure> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_failure("read", path, &error)),
    };
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, TEXT_MAX + 1), &mut bytes)
        .map_err(|error| io_failure("read", path, &error))?;
    if bytes.len() as u64 > TEXT_MAX {
        return Err(Failure::new(
            exit,
            Diagnostic::error(format!("`{}` is longer than 16 MiB", path.display())),
        ));
    }
    String::from_utf8(bytes).map(Some).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::new(
            exit,
            Diagnostic::error(format!("`{}` is not UTF-8 text", path.display()))
                .because(format!("byte {at} starts no character")),
        )
    })
}

/// Writes a file under a temporary name beside `path`, syncs it, and renames it.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let written = fs::File::create(&part).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let renamed = written.and_then(|()| fs::rename(&part, path));
    if renamed.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&part);
    }
    renamed
}

/// The local machine refused.
pub fn io_failure(action: &str, path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::new(
        Exit::Local,
        Diagnostic::error(format!("cannot {action} `{}`", path.display()))
            .because(error.to_string()),
    );
    match error.kind() {
        io::ErrorKind::StorageFull => failure.hint("make room and run the same command again"),
        io::ErrorKind::PermissionDenied => failure.hint("check who owns it and its mode"),
        _ => failure,
    }
}
