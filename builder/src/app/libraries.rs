//! Libraries of a language: which ones a project's own lock means, and bringing them here.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use immbuild_cas::digest::BlobId;
use immbuild_cas::path::RelPath;
use immbuild_cas::store::{BlobSource as _, Store as _};
use immbuild_cas::tree::{Meta, Mode, Tree, TreeBuilder, TreeError};

use super::failure::{Exit, Failure};
use super::project::{Project, io_failure, read_text};
use super::session::Session;
use crate::cargo::lock;
use crate::cargo::package::{self, CrateError};
use crate::cargo::places::{self, Places};
use crate::diag::{Diagnostic, Place, SourceFile};
use crate::graph::libraries::{Language, LibraryPin};
use crate::lock::model::{Lock, Pin, PythonPin, WheelPin};
use crate::platform::Platform;
use crate::python::choose::{Chosen, choose};
use crate::python::index::{self, Index, IndexError};
use crate::python::locked::{Files, Location, Locked, Wanted, WheelFile};
use crate::python::name::WheelName;
use crate::python::requirements::Requirements;
use crate::python::target::Target;
use crate::python::wheel::{self, WheelError};
use crate::python::{pylock, uv};
use crate::resolve::http::{self, Fetcher, Policy};
use crate::resolve::several::{self, SeveralError};
use crate::spec::model::{CargoSource, PythonSource, Source, SourceKind};

/// A library that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// What it is.
    pub pin: LibraryPin,
    /// Bytes of its file, where somebody said how many.
    pub size: Option<u64>,
    /// Where that is.
    pub at: At,
    /// The libraries of the same source that it needs, where the lock says so.
    pub depends: Vec<String>,
    /// Why it is here.
    pub reason: String,
}

/// Where a library's file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// Behind this URL, which its lock names.
    Url(String),
    /// On this machine.
    File(PathBuf),
    /// An index knows.
    Index,
    /// This machine's cargo knows.
    Registry,
}

impl Library {
    fn label(&self) -> String {
        format!("{} {}", self.pin.name, self.pin.version)
    }
}

/// What of a source says which libraries there are.
pub fn language(source: &Source) -> Option<Language> {
    match &source.kind {
        SourceKind::Python(_) => Some(Language::Python),
        SourceKind::Cargo(_) => Some(Language::Rust),
        _ => None,
    }
}

/// The libraries that a source means on a platform: by the project's own lock, or by ours where that does not say which
/// files there are.
///
/// # Errors
/// The lock cannot be read, is outdated, or has nothing for this platform.
pub fn of(
    project: &Project,
    source: &Source,
    platform: Platform,
    lock: Option<&Lock>,
) -> Result<Vec<Library>, Failure> {
    let place = Place {
        file: Arc::clone(&project.file),
        span: source.span,
    };
    match &source.kind {
        SourceKind::Python(python) if python.is_lock() => {
            own(project, python, platform).map_err(|failure| failure.at(place, &source.name))
        }
        SourceKind::Python(python) => {
            let locked = lock.and_then(|lock| lock.sources.get(&source.name));
            let Some(Pin::Python(pin)) = locked.map(|locked| &locked.pin) else {
                return Err(outdated(source, place));
            };
            let wheels: Vec<Library> = pin
                .wheels_for(platform)
                .map(|wheel| of_lock(wheel, python))
                .collect();
            if wheels.is_empty() {
                return Err(outdated(source, place));
            }
            Ok(wheels)
        }
        SourceKind::Cargo(cargo) => {
            crates(project, cargo).map_err(|failure| failure.at(place, &source.name))
        }
        _ => Ok(Vec::new()),
    }
}

fn outdated(source: &Source, place: Place) -> Failure {
    Failure::new(
        Exit::Lock,
        Diagnostic::error(format!("source `{}` is not locked", source.name))
            .at(place)
            .hint("run `immbuild lock`"),
    )
}

fn of_lock(wheel: &WheelPin, python: &PythonSource) -> Library {
    let file = python.file.rsplit('/').next().unwrap_or_default();
    Library {
        pin: LibraryPin {
            name: wheel.name.clone(),
            version: wheel.version.clone(),
            file: wheel.file.clone(),
            sha256: wheel.sha256,
            registry: None,
        },
        size: wheel.size,
        at: At::Index,
        depends: Vec::new(),
        reason: format!("named in {file}"),
    }
}

fn target(python: &PythonSource, platform: Platform) -> Target {
    Target {
        interpreter: python.interpreter,
        platform,
        libc: python.libc,
    }
}

/// The text of a lock of another tool.
fn foreign(project: &Project, path: &str) -> Result<Arc<SourceFile>, Failure> {
    let absolute = project.resolve(path);
    let text = read_text(&absolute, Exit::Spec)?.ok_or_else(|| {
        Failure::new(
            Exit::Spec,
            Diagnostic::error(format!("there is no file `{}`", absolute.display()))
                .hint("paths in a spec are relative to it"),
        )
    })?;
    let shown = project.path.parent().unwrap_or(Path::new("")).join(path);
    Ok(Arc::new(SourceFile {
        name: shown.display().to_string(),
        text: text.trim_start_matches('\u{feff}').replace("\r\n", "\n"),
    }))
}

/// What `uv.lock` or `pylock.toml` means.
fn own(
    project: &Project,
    python: &PythonSource,
    platform: Platform,
) -> Result<Vec<Library>, Failure> {
    let file = foreign(project, &python.file)?;
    let target = target(python, platform);
    let wanted = Wanted {
        target: &target,
        extras: &python.extras,
        groups: &python.groups,
    };
    let packages = if python.is_uv() {
        uv::wanted(&file, &wanted)
    } else {
        pylock::wanted(&file, &wanted)
    };
    let packages = packages.map_err(|errors| Failure::all(Exit::Lock, errors))?;
    let directory = project.resolve(&python.file);
    let directory = directory.parent().unwrap_or(&project.directory);
    let mut libraries = Vec::new();
    for package in &packages {
        let Files::Named { wheels, others } = &package.files else {
            unreachable!("such a lock names files");
        };
        let chosen = choose(package, wheels, others, &target)
            .map_err(|error| Failure::new(Exit::Lock, error))?;
        libraries.push(library(chosen, directory));
    }
    Ok(libraries)
}

fn library(chosen: Chosen, directory: &Path) -> Library {
    Library {
        pin: LibraryPin {
            name: chosen.name,
            version: chosen.version,
            file: chosen.file,
            sha256: chosen.sha256,
            registry: None,
        },
        size: chosen.size,
        at: match chosen.from {
            Some(Location::Url(url)) => At::Url(url),
            Some(Location::Path(path)) => At::File(directory.join(path)),
            None => At::Index,
        },
        depends: chosen.depends,
        reason: chosen.reason,
    }
}

/// What `Cargo.lock` means.
fn crates(project: &Project, cargo: &CargoSource) -> Result<Vec<Library>, Failure> {
    let file = foreign(project, &cargo.file)?;
    let crates = lock::read(&file).map_err(|errors| Failure::all(Exit::Lock, errors))?;
    let library = |one: lock::Crate| Library {
        pin: LibraryPin {
            file: format!("{}-{}.crate", one.name, one.version),
            name: one.name,
            version: one.version,
            sha256: one.sha256,
            registry: one.registry,
        },
        size: None,
        at: At::Registry,
        depends: one.depends,
        reason: one.reason,
    };
    Ok(crates.into_iter().map(library).collect())
}

/// What requirements say.
pub fn requirements(project: &Project, python: &PythonSource) -> Result<Requirements, Failure> {
    let file = foreign(project, &python.file)?;
    Requirements::parse(&file).map_err(|errors| Failure::all(Exit::Lock, errors))
}

/// Finds the wheels that requirements mean on these platforms.
pub fn lock_python(
    session: &Session<'_>,
    project: &Project,
    variants: &[(&PythonSource, Vec<Platform>)],
) -> Result<PythonPin, Failure> {
    let fetcher = index::fetcher();
    let index = index_of(session, &fetcher);
    let mut known: BTreeMap<String, Vec<index::IndexFile>> = BTreeMap::new();
    let mut wheels = BTreeMap::new();
    for (python, platforms) in variants {
        let requirements = requirements(project, python)?;
        for platform in platforms {
            let target = target(python, *platform);
            let wanted = Wanted {
                target: &target,
                extras: &[],
                groups: &[],
            };
            let packages = requirements
                .wanted(&wanted)
                .map_err(|error| Failure::new(Exit::Lock, error))?;
            for package in &packages {
                let chosen = find(package, &target, &index, &mut known)?;
                let pin = WheelPin {
                    platform: *platform,
                    name: chosen.name,
                    version: chosen.version,
                    file: chosen.file,
                    sha256: chosen.sha256,
                    size: chosen.size,
                };
                wheels.insert((*platform, pin.name.clone()), pin);
            }
        }
    }
    Ok(PythonPin {
        wheels: wheels.into_values().collect(),
    })
}

fn find(
    package: &Locked,
    target: &Target,
    index: &Index<'_>,
    known: &mut BTreeMap<String, Vec<index::IndexFile>>,
) -> Result<Chosen, Failure> {
    let digests = match &package.files {
        Files::Named { wheels, others } => {
            return choose(package, wheels, others, target)
                .map_err(|error| Failure::new(Exit::Lock, error));
        }
        Files::Digests(digests) => digests,
    };
    if !known.contains_key(&package.name) {
        let files = index.files(&package.name)?;
        known.insert(package.name.clone(), files);
    }
    let (mut wheels, mut others) = (Vec::new(), Vec::new());
    for file in &known[&package.name] {
        let Some(sha256) = file.sha256.filter(|sha256| digests.contains(sha256)) else {
            continue;
        };
        match WheelName::parse(&file.file) {
            Some(name) => wheels.push(WheelFile {
                file: file.file.clone(),
                name,
                sha256,
                size: file.size,
                from: Location::Url(file.url.clone()),
            }),
            None => others.push(file.file.clone()),
        }
    }
    choose(package, &wheels, &others, target).map_err(|error| {
        Failure::new(Exit::Lock, error).hint(if index.places.indexes.is_empty() {
            let directories = index.places.directories.iter();
            let names: Vec<String> = directories.map(|it| format!("`{}`", it.display())).collect();
            format!(
                "only {} was looked into, as nothing names an index: say one to pip, `pip config set global.index-url URL`, or put the wheels there with `pip download`",
                names.join(", ")
            )
        } else {
            "none of its hashes is that of a wheel which the index has: check that it is the index they were made from".to_owned()
        })
    })
}

fn index_of<'a>(session: &'a Session<'_>, fetcher: &'a Fetcher) -> Index<'a> {
    Index {
        places: &session.settings.host.python,
        offline: session.settings.offline,
        store: &session.store,
        fetcher,
    }
}

/// Brings libraries into the store.
pub fn fetch(
    session: &Session<'_>,
    project: &Project,
    libraries: &[&Library],
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), Failure> {
    let mut wanted = Vec::new();
    let registries = Registries::new(session, project);
    for library in libraries {
        if session.store.has(&BlobId::new(library.pin.sha256))? {
            continue;
        }
        wanted.push(several::Wanted {
            label: library.label(),
            sha256: library.pin.sha256,
            size: library.size,
            whole: "it".into(),
            urls: match library.at {
                At::Registry => registries.urls(&library.pin)?,
                _ => urls(session, library)?,
            },
        });
    }
    let fetcher = Fetcher::new(Policy::default());
    let means = several::Means {
        offline: session.settings.offline,
        store: &session.store,
        fetcher: &fetcher,
        threads: session.settings.threads,
        cancel: session.cancel,
        progress,
    };
    Ok(several::fetch(&wanted, &means)?)
}

fn urls(session: &Session<'_>, library: &Library) -> Result<Vec<String>, Failure> {
    match &library.at {
        At::Registry => unreachable!("registries are asked once for all"),
        At::Url(url) => Ok(vec![url.clone()]),
        At::File(path) => {
            let path = std::fs::canonicalize(path)
                .map_err(|error| io_failure("read the wheel", path, &error))?;
            Ok(http::file_url(&path).into_iter().collect())
        }
        At::Index => {
            let fetcher = index::fetcher();
            let mut index = index_of(session, &fetcher);
            let here = crate::python::places::IndexPlaces {
                indexes: Vec::new(),
                directories: index.places.directories.clone(),
            };
            // All that is missing is told at once, so nothing is asked of the network first.
            if session.settings.offline {
                if here.is_empty() {
                    return Ok(Vec::new());
                }
                index.places = &here;
            }
            let files = index.files(&library.pin.name)?;
            let own = |file: &index::IndexFile| file.sha256 == Some(library.pin.sha256);
            let files = files.into_iter().filter(own);
            Ok(files.map(|file| file.url).collect())
        }
    }
}

/// The registries of a source, each looked at once.
struct Registries<'a> {
    session: &'a Session<'a>,
    project: &'a Project,
    fetcher: Fetcher,
    known: RefCell<BTreeMap<Option<String>, Places>>,
}

impl<'a> Registries<'a> {
    fn new(session: &'a Session<'a>, project: &'a Project) -> Self {
        Self {
            session,
            project,
            fetcher: Fetcher::new(Policy {
                limit: 1 << 20,
                ..Policy::default()
            }),
            known: RefCell::default(),
        }
    }

    /// Where a crate is: what cargo has here, then what its registry says.
    fn urls(&self, pin: &LibraryPin) -> Result<Vec<String>, Failure> {
        if !self.known.borrow().contains_key(&pin.registry) {
            let places = self.places(pin.registry.as_deref())?;
            self.known.borrow_mut().insert(pin.registry.clone(), places);
        }
        let known = self.known.borrow();
        let places = &known[&pin.registry];
        let here = places.file(&pin.name, &pin.version);
        let mut urls: Vec<String> = here
            .and_then(|path| http::file_url(&path))
            .into_iter()
            .collect();
        let downloads = places.downloads.iter();
        urls.extend(downloads.map(|it| places::url(it, &pin.name, &pin.version, &pin.sha256)));
        if urls.is_empty() && !self.session.settings.offline {
            let of = pin.registry.as_deref().unwrap_or("crates-io");
            return Err(Failure::new(
                Exit::Unreachable,
                Diagnostic::error(format!("nothing says where crates of `{of}` are"))
                    .because(format!("`{}` {} is not in the store", pin.name, pin.version))
                    .hint("let cargo fetch them once: `cargo fetch --locked`; or say it to immbuild, in its `config.toml`: `cargo.downloads = [\"URL\"]`"),
            ));
        }
        Ok(urls)
    }

    fn places(&self, registry: Option<&str>) -> Result<Places, Failure> {
        let machine = &self.session.settings.host.cargo;
        let mut places = places::places(machine, &self.project.directory, registry);
        for index in &places.indexes {
            let Some(url) = places::config_of(index) else {
                continue;
            };
            let request = http::Request {
                url: &url,
                mirrors: &[],
                expected: None,
                size: None,
                offline: self.session.settings.offline,
            };
            let store = &self.session.store;
            let fetched = match self.fetcher.fetch(&request, store, &|_, _| {}) {
                Ok(fetched) => fetched,
                // All that is missing is told at once.
                Err(http::HttpError::Offline { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            let config = store.read(&fetched.blob)?;
            let download = places::download_of(&config).ok_or_else(|| {
                Failure::new(
                    Exit::Untrusted,
                    Diagnostic::error(format!("`{url}` does not say where crates are")),
                )
            })?;
            places.downloads.push(download);
        }
        Ok(places)
    }
}

/// Libraries, decoded, as one tree: a directory for each. One that was decoded before is not fetched again.
pub fn assemble(
    session: &Session<'_>,
    project: &Project,
    language: Language,
    libraries: &[Library],
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Tree, Failure> {
    let store = &session.store;
    let mut missing = Vec::new();
    for library in libraries {
        let blob = BlobId::new(library.pin.sha256);
        let is_here = match language {
            Language::Python => wheel::is_decoded(&blob, store)?,
            Language::Rust => {
                package::is_decoded(&blob, &library.pin.name, &library.pin.version, store)?
            }
        };
        if !is_here {
            missing.push(library);
        }
    }
    fetch(session, project, &missing, progress)?;
    let decoded = decode(session, language, libraries)?;
    let mut tree = TreeBuilder::new(store, Meta::root(Mode::DIRECTORY));
    for (library, decoded) in libraries.iter().zip(decoded) {
        let name = library.pin.file.as_bytes();
        let path = RelPath::new(name).map_err(|source| TreeError::Path {
            directory: RelPath::root(),
            name: RelPath::root(),
            source,
        })?;
        tree.graft(&path, decoded.root, &decoded.links)?;
    }
    Ok(tree.seal(store)?)
}

/// Several at once, in the order given.
fn decode(
    session: &Session<'_>,
    language: Language,
    libraries: &[Library],
) -> Result<Vec<Tree>, Failure> {
    let next = AtomicUsize::new(0);
    let decoded: Mutex<BTreeMap<usize, Result<Tree, Failure>>> = Mutex::default();
    let work = || {
        loop {
            let nth = next.fetch_add(1, Ordering::Relaxed);
            let Some(library) = libraries.get(nth) else {
                return;
            };
            let result = one(session, language, library);
            if result.is_err() {
                next.store(libraries.len(), Ordering::Relaxed);
            }
            let mut decoded = decoded.lock().unwrap_or_else(PoisonError::into_inner);
            decoded.insert(nth, result);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..session.settings.threads.get().min(libraries.len().max(1)) {
            scope.spawn(work);
        }
        work();
    });
    let decoded = decoded.into_inner().unwrap_or_else(PoisonError::into_inner);
    decoded.into_values().collect()
}

fn one(session: &Session<'_>, language: Language, library: &Library) -> Result<Tree, Failure> {
    let store = &session.store;
    let blob = BlobId::new(library.pin.sha256);
    let pin = &library.pin;
    match language {
        Language::Python => {
            let checked = wheel::decode(&blob, store).and_then(|tree| {
                let files = wheel::files(&tree, store)?;
                wheel::describe(&files, store)?.check(&pin.name, &pin.version)?;
                Ok(tree)
            });
            checked.map_err(|error| match error {
                WheelError::Store(error) => error.into(),
                error => {
                    let mut failure = Failure::of(Exit::Untrusted, &error);
                    refuse(
                        &mut failure,
                        &format!("the wheel `{}` is refused", pin.file),
                    );
                    failure
                }
            })
        }
        Language::Rust => {
            let decoded = package::decode(&blob, &pin.name, &pin.version, store);
            decoded.map_err(|error| match error {
                CrateError::Store(error) => error.into(),
                error => {
                    let mut failure = Failure::of(Exit::Untrusted, &error);
                    refuse(
                        &mut failure,
                        &format!("the crate `{}` is refused", pin.file),
                    );
                    failure
                }
            })
        }
    }
}

/// Says first what is refused, then why.
fn refuse(failure: &mut Failure, message: &str) {
    if let Some(first) = failure.diagnostics.first_mut() {
        let why = std::mem::replace(&mut first.message, message.to_owned());
        first.cause = Some(match first.cause.take() {
            Some(cause) => format!("{why}: {cause}"),
            None => why,
        });
    }
}

impl From<IndexError> for Failure {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::NoPlace => Self::of(Exit::Unreachable, &error).hint(
                "say it to pip: `pip config set global.index-url URL`; or to immbuild, in its `config.toml`: `python.indexes = [\"URL\"]`",
            ),
            IndexError::Fetch { package, source } => {
                let mut failure = Self::from(source);
                refuse(&mut failure, &format!("cannot ask an index for the files of `{package}`"));
                failure
            }
            IndexError::Page { .. } => Self::of(Exit::Untrusted, &error),
            IndexError::Directory { .. } => Self::of(Exit::Local, &error),
        }
    }
}

impl From<SeveralError> for Failure {
    fn from(error: SeveralError) -> Self {
        let exit = match &error {
            SeveralError::Offline { .. } => Exit::Unreachable,
            SeveralError::Store(_) => Exit::Local,
            SeveralError::Failed { failed } => {
                let any = |is: fn(&http::HttpError) -> bool| failed.iter().any(|(_, it)| is(it));
                if any(|error| matches!(error, http::HttpError::Store(_))) {
                    Exit::Local
                } else if any(|error| matches!(error, http::HttpError::Mismatch { .. })) {
                    Exit::Untrusted
                } else {
                    Exit::Unreachable
                }
            }
        };
        let failure = Self::of(exit, &error);
        match exit {
            Exit::Unreachable if matches!(error, SeveralError::Offline { .. }) => {
                failure.hint("run once without `--offline`")
            }
            Exit::Untrusted => failure.hint(
                "the file is not the one that was locked: somebody changed it, or it is another one of that name",
            ),
            _ => failure,
        }
    }
}
