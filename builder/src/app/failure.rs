//! How a use case ends when it does not succeed: sentences for people and the exit status that SPEC C gives them.

use std::error::Error;
use std::io;

use immbuild_cas::store::StoreError;
use immbuild_cas::tree::TreeError;

use crate::cargo::vendored::VendoredError;
use crate::debian::fetch::FetchError;
use crate::debian::install::InstallError;
use crate::debian::set::SetError;
use crate::diag::{Diagnostic, Place};
use crate::exec::sandbox::{RANGE_FIX, SandboxError};
use crate::graph::apply::FileOpError;
use crate::hostfs::HostFsError;
use crate::image::{BaseError, ReadError};
use crate::layer::LayerError;
use crate::output::OutputError;
use crate::python::environment::EnvironmentError;
use crate::python::wheel::WheelError;
use crate::registry::RegistryError;
use crate::resolve::git::GitError;
use crate::resolve::http::HttpError;
use crate::resolve::image::{ImportError, LocalImageError};
use crate::resolve::unpack::UnpackError;
use crate::spec::model::Ident;

/// The exit statuses of SPEC C.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// A defect of immbuild.
    Defect = 1,
    /// Wrong usage.
    Usage = 2,
    /// The spec is invalid.
    Spec = 3,
    /// The lock is missing, outdated or damaged, no expectation applies, or a tree is dirty.
    Lock = 4,
    /// An input or destination cannot be reached or refuses.
    Unreachable = 5,
    /// An input is not what was locked, or not trusted.
    Untrusted = 6,
    /// A step failed or timed out.
    Step = 7,
    /// This machine cannot keep the promise.
    Machine = 8,
    /// The local machine refused.
    Local = 9,
    /// Identical except compression.
    DiffId = 10,
    /// Identical except tar form.
    Tree = 11,
    /// Different.
    Different = 12,
    /// It cannot be said, with the reason.
    CannotSay = 13,
    /// Interrupted, by SIGINT.
    Interrupted = 130,
    /// Asked to end, by SIGTERM.
    Terminated = 143,
}

/// Why a use case did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the process exits with.
    pub exit: Exit,
    /// What to say, all of it.
    pub diagnostics: Vec<Diagnostic>,
    /// Was something of the store damaged or gone? Then it is set aside now, and can be made again.
    pub damaged: bool,
}

impl Failure {
    /// One sentence.
    pub fn new(exit: Exit, diagnostic: Diagnostic) -> Self {
        Self::all(exit, vec![diagnostic])
    }

    /// Several sentences.
    pub fn all(exit: Exit, diagnostics: Vec<Diagnostic>) -> Self {
        Self {
            exit,
            diagnostics,
            damaged: false,
        }
    }

    /// An error with everything that caused it.
    pub fn of(exit: Exit, error: &dyn Error) -> Self {
        Self::new(exit, diagnostic_of(error))
    }

    /// Points at the source it is about, where nothing points yet.
    #[must_use]
    pub fn at(mut self, place: Place, source: &Ident) -> Self {
        if let Some(first) = self.diagnostics.first_mut()
            && first.place.is_none()
        {
            first.place = Some(place);
            let message = std::mem::take(&mut first.message);
            first.cause = Some(match first.cause.take() {
                Some(cause) => format!("{message}: {cause}"),
                None => message,
            });
            first.message = format!("cannot use source `{source}`");
        }
        self
    }

    /// Says why, where nothing says so yet.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        if let Some(last) = self.diagnostics.last_mut() {
            last.cause.get_or_insert(cause.into());
        }
        self
    }

    /// Says what to type next, where nothing says so yet.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Some(last) = self.diagnostics.last_mut() {
            last.hint.get_or_insert(hint.into());
        }
        self
    }
}

/// An error and its sources as one diagnostic: the first is the message, the others are its cause.
pub fn diagnostic_of(error: &dyn Error) -> Diagnostic {
    let diagnostic = Diagnostic::error(error.to_string());
    let mut causes: Vec<String> = Vec::new();
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        // A transparent error says what its source says.
        if causes.last() != Some(&text) && text != diagnostic.message {
            causes.push(text);
        }
        source = error.source();
    }
    if causes.is_empty() {
        diagnostic
    } else {
        diagnostic.because(causes.join(": "))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let exit = match &error {
            StoreError::Changed { .. } => Exit::Untrusted,
            StoreError::Missing(_)
            | StoreError::Damaged { .. }
            | StoreError::Decode { .. }
            | StoreError::Owner { .. }
            | StoreError::Form { .. }
            | StoreError::Busy { .. }
            | StoreError::Io { .. } => Exit::Local,
        };
        hint_of_store(Self::of(exit, &error), &error)
    }
}

/// What to do when the store fails.
fn hint_of_store(mut failure: Failure, error: &StoreError) -> Failure {
    failure.damaged = matches!(
        error,
        StoreError::Missing(_) | StoreError::Damaged { .. } | StoreError::Decode { .. }
    );
    match error {
        StoreError::Changed { .. } => failure.hint(CHANGED_HINT),
        StoreError::Missing(_) | StoreError::Damaged { .. } | StoreError::Decode { .. } => {
            failure.hint("run the build again: what is damaged is made anew; `immbuild cache fsck` looks at everything")
        }
        StoreError::Owner { .. } => failure.hint("a store belongs to one user: name another with `--store DIR`"),
        StoreError::Form { .. } => failure.hint("name another directory with `--store DIR`"),
        StoreError::Busy { .. } => failure.hint("wait until the other builds have ended"),
        StoreError::Io { source, .. } => hint_of_io(failure, source),
    }
}

/// What to do when the system refuses.
fn hint_of_io(failure: Failure, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::StorageFull => failure.hint("make room and run the same command again; `immbuild cache gc` drops what no recent build needs"),
        io::ErrorKind::PermissionDenied => failure.hint("check who owns it and its mode"),
        io::ErrorKind::ReadOnlyFilesystem => failure.hint("name a place that can be written to"),
        _ => failure,
    }
}

/// The first of an error's sources that is an I/O error.
fn io_source<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io);
        }
        next = error.source();
    }
    None
}

/// The first of an error's sources that is the store's.
fn store_source<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a StoreError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(store) = error.downcast_ref::<StoreError>() {
            return Some(store);
        }
        next = error.source();
    }
    None
}

/// An error whose exit status is `exit` unless something below it knows better.
fn wrapped(exit: Exit, error: &(dyn Error + 'static)) -> Failure {
    let exit = match store_source(error) {
        Some(StoreError::Changed { .. }) => Exit::Untrusted,
        Some(_) => Exit::Local,
        None => exit,
    };
    let failure = Failure::of(exit, error);
    if let Some(store) = store_source(error) {
        return hint_of_store(failure, store);
    }
    match io_source(error) {
        Some(io) => hint_of_io(failure, io),
        None => failure,
    }
}

impl From<TreeError> for Failure {
    fn from(error: TreeError) -> Self {
        wrapped(Exit::Local, &error)
    }
}

impl From<LayerError> for Failure {
    fn from(error: LayerError) -> Self {
        let exit = match &error {
            LayerError::WhiteoutName(_) | LayerError::Device(_) => Exit::Spec,
            LayerError::Encoder(_) => Exit::Defect,
            LayerError::Length { .. } => Exit::Untrusted,
            LayerError::Content { .. }
            | LayerError::Tree(_)
            | LayerError::Earlier
            | LayerError::Write(_) => Exit::Local,
        };
        wrapped(exit, &error)
    }
}

impl From<HostFsError> for Failure {
    fn from(error: HostFsError) -> Self {
        if let HostFsError::Store(error) = error {
            return error.into();
        }
        let exit = match &error {
            HostFsError::Changed { .. } | HostFsError::Overlay { .. } => Exit::Untrusted,
            HostFsError::Kind { .. }
            | HostFsError::Path { .. }
            | HostFsError::Pattern { .. }
            | HostFsError::Entry { .. }
            | HostFsError::Links(_) => Exit::Spec,
            HostFsError::Owner { .. } => Exit::Machine,
            HostFsError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Exit::Unreachable
            }
            HostFsError::Case { .. } | HostFsError::Io { .. } | HostFsError::Store(_) => {
                Exit::Local
            }
        };
        let failure = wrapped(exit, &error);
        match &error {
            HostFsError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                failure.hint("a path begins at the directory of the spec")
            }
            HostFsError::Kind { .. } => {
                failure.hint("leave it out: `exclude = [\"…\"]`, or a line in `.immignore`")
            }
            HostFsError::Changed { .. } => failure.hint(CHANGED_HINT),
            HostFsError::Owner { .. } => failure.hint(RANGE_FIX),
            HostFsError::Case { .. } => failure.hint(CASE_HINT),
            _ => failure,
        }
    }
}

/// What to do when an input did not hold still.
const CHANGED_HINT: &str = "build again when nothing writes to it";

/// What to do when a directory cannot hold a tree on every file system.
const CASE_HINT: &str = "write an archive instead: in a tar both have their place";

impl From<GitError> for Failure {
    fn from(error: GitError) -> Self {
        let exit = match &error {
            GitError::Dirty { .. } => Exit::Lock,
            GitError::Entry { .. } | GitError::Url { .. } => Exit::Spec,
            GitError::Mismatch { .. } | GitError::Object { .. } => Exit::Untrusted,
            GitError::NotFound { .. }
            | GitError::Open { .. }
            | GitError::Rev { .. }
            | GitError::Subdir { .. }
            | GitError::Submodule { .. }
            | GitError::Offline { .. }
            | GitError::Unreachable(_) => Exit::Unreachable,
            GitError::Io { .. } | GitError::Store(_) | GitError::Tree(_) => Exit::Local,
        };
        let failure = wrapped(exit, &error);
        match &error {
            GitError::Dirty { .. } => failure.hint("commit them, or take them as they are with `--dirty`"),
            GitError::Offline { .. } => failure.hint("run once without `--offline`"),
            GitError::Mismatch { .. } => failure.hint("the lock was written for other content: `immbuild update` moves the pin, if that is meant"),
            _ => failure,
        }
    }
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        let exit = match &error {
            HttpError::Url { .. } => Exit::Spec,
            HttpError::Offline { .. }
            | HttpError::Unreachable { .. }
            | HttpError::NoPlace { .. } => Exit::Unreachable,
            HttpError::Mismatch { .. } | HttpError::Asserted { .. } => Exit::Untrusted,
            HttpError::Store(_) => Exit::Local,
        };
        let failure = wrapped(exit, &error);
        match &error {
            HttpError::Offline { .. } => failure.hint("run once without `--offline`"),
            HttpError::Mismatch { .. } => failure.hint("if the file was meant to change, say its new digest where the spec has `sha256`, and `immbuild update` moves the pin; else somebody changed it"),
            HttpError::Unreachable { .. } => failure.hint("check the URL; `mirrors = [\"…\"]` names other places"),
            _ => failure,
        }
    }
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::File { what, source } => {
                let failure = Self::from(source);
                let cause = failure.diagnostics.first().map(|it| match &it.cause {
                    Some(cause) => format!("{}: {cause}", it.message),
                    None => it.message.clone(),
                });
                let mut failure = failure;
                if let Some(first) = failure.diagnostics.first_mut() {
                    first.message = format!("cannot fetch {what}");
                    first.cause = cause;
                }
                failure
            }
            FetchError::NoPlace { ref near, .. } => {
                let place =
                    "name a place: `mirrors = [\"…\"]` of the archive, or in your configuration";
                let hint = match near {
                    Some(near) => {
                        format!(
                            "did you mean `{near}`, which apt of this machine has? Otherwise {place}"
                        )
                    }
                    None => place.to_owned(),
                };
                wrapped(Exit::Unreachable, &error).hint(hint)
            }
            FetchError::Offline { .. } => {
                wrapped(Exit::Unreachable, &error).hint("run once without `--offline`")
            }
            FetchError::Packages { ref failed } => {
                let changed = failed
                    .iter()
                    .any(|(_, error)| matches!(error, HttpError::Mismatch { .. }));
                let exit = if changed {
                    Exit::Untrusted
                } else {
                    Exit::Unreachable
                };
                wrapped(exit, &error).hint("`immbuild update` locks what the archive has now; `snapshot` of an archive says where its old states are")
            }
            FetchError::Damaged { .. } => wrapped(Exit::Untrusted, &error),
            FetchError::Store(_) => wrapped(Exit::Local, &error),
        }
    }
}

impl From<LocalImageError> for Failure {
    fn from(error: LocalImageError) -> Self {
        let exit = match &error {
            LocalImageError::Io { source, .. } if source.kind() != io::ErrorKind::NotFound => {
                Exit::Local
            }
            LocalImageError::Io { .. }
            | LocalImageError::NoTag { .. }
            | LocalImageError::NeedsTag { .. }
            | LocalImageError::Empty { .. }
            | LocalImageError::NoPlatform { .. } => Exit::Unreachable,
            _ => Exit::Untrusted,
        };
        // What is wrong with somebody else's image is never the store's fault.
        Self::of(exit, &error)
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        let exit = match &error {
            RegistryError::Mismatch { .. }
            | RegistryError::Size { .. }
            | RegistryError::NotInIndex { .. }
            | RegistryError::Schema1(_)
            | RegistryError::Document { .. } => Exit::Untrusted,
            RegistryError::Several(errors) => {
                let is_trust = |error: &RegistryError| {
                    matches!(
                        error,
                        RegistryError::Mismatch { .. } | RegistryError::Size { .. }
                    )
                };
                if errors.iter().any(is_trust) {
                    Exit::Untrusted
                } else {
                    Exit::Unreachable
                }
            }
            RegistryError::Interrupted => Exit::Interrupted,
            RegistryError::Access { .. } | RegistryError::Store(_) => Exit::Local,
            _ => Exit::Unreachable,
        };
        let failure = wrapped(exit, &error);
        match &error {
            RegistryError::Unauthorized { host, .. } => {
                failure.hint(format!("run `immbuild login {host}`"))
            }
            RegistryError::Offline { .. } => failure.hint("run once without `--offline`"),
            RegistryError::NotFound(_) => failure.hint("check the name and the tag"),
            RegistryError::Tls { url, .. } => {
                let host = url.split('/').nth(2).unwrap_or_default();
                failure.hint(format!(
                    "if its certificate is of a private authority, name that in your `config.toml`: `registry.\"{host}\".ca = \"/…/ca.pem\"`"
                ))
            }
            RegistryError::Schema1(_) => {
                failure.hint("push it again with a tool of this decade, which writes a form with digests")
            }
            RegistryError::Mismatch { .. } | RegistryError::Size { .. } | RegistryError::NotInIndex { .. } => failure.hint(
                "the registry, or somebody between, gives other bytes: ask whoever runs it; `immbuild update` moves the pin, if that is meant",
            ),
            _ => failure,
        }
    }
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        let exit = match &error {
            // What is not what its digest says was read from the image; it only passes through the store's hands.
            ImportError::Store(StoreError::Damaged { .. }) => Exit::Untrusted,
            ImportError::Store(_) => Exit::Local,
            ImportError::Missing { .. } => Exit::Unreachable,
            _ => Exit::Untrusted,
        };
        match io_source(&error).map(io::Error::kind) {
            Some(io::ErrorKind::StorageFull) => wrapped(Exit::Local, &error),
            _ => Self::of(exit, &error),
        }
    }
}

impl From<UnpackError> for Failure {
    fn from(error: UnpackError) -> Self {
        match io_source(&error).map(io::Error::kind) {
            Some(io::ErrorKind::StorageFull) => wrapped(Exit::Local, &error),
            _ => Self::of(Exit::Untrusted, &error),
        }
    }
}

impl From<SetError> for Failure {
    fn from(error: SetError) -> Self {
        match error {
            SetError::Store(error) => error.into(),
            SetError::Tree(error) => error.into(),
            error => Self::of(Exit::Untrusted, &error),
        }
    }
}

impl From<InstallError> for Failure {
    fn from(error: InstallError) -> Self {
        match error {
            InstallError::Store(error) | InstallError::Root(FileOpError::Keep { source: error, .. }) => error.into(),
            InstallError::Tree(error) => error.into(),
            InstallError::NoRunner(_) => Self::of(Exit::Spec, &error)
                .hint("take `essential = true`, or let nothing execute: `configure = \"none\"`"),
            InstallError::Overwrites { .. } | InstallError::Meets { .. } => Self::of(Exit::Spec, &error)
                .hint("leave one of the two out"),
            InstallError::Unmet { .. } => Self::of(Exit::Spec, &error).hint(
                "what is in the root stays as it is: take a root with other versions, or lock packages that fit it",
            ),
            error => Self::of(Exit::Spec, &error),
        }
    }
}

impl From<EnvironmentError> for Failure {
    fn from(error: EnvironmentError) -> Self {
        match error {
            EnvironmentError::Store(error)
            | EnvironmentError::Root(FileOpError::Keep { source: error, .. })
            | EnvironmentError::Wheel {
                source: WheelError::Store(error),
                ..
            } => error.into(),
            EnvironmentError::Tree(error) => error.into(),
            EnvironmentError::Wheel { .. } | EnvironmentError::Path { .. } => {
                Self::of(Exit::Untrusted, &error)
            }
            EnvironmentError::NoInterpreter(_) => Self::of(Exit::Spec, &error)
                .hint("install the interpreter first, or set `interpreter` of the source to the one that is there"),
            EnvironmentError::Interpreter { .. } => Self::of(Exit::Spec, &error)
                .hint("set `interpreter` as exactly as it matters: `\"3.11\"` means 3.11.0"),
            EnvironmentError::Meets { .. } => Self::of(Exit::Spec, &error)
                .hint("install first, and copy over it afterwards"),
            EnvironmentError::Root(_) => Self::of(Exit::Spec, &error),
        }
    }
}

impl From<VendoredError> for Failure {
    fn from(error: VendoredError) -> Self {
        match error {
            VendoredError::Store(error)
            | VendoredError::Root(FileOpError::Keep { source: error, .. }) => error.into(),
            VendoredError::Tree(error) => error.into(),
            VendoredError::Configuration { .. } => Self::of(Exit::Spec, &error)
                .hint("take `[source]` out of it, or remove the file in a step before this one"),
            VendoredError::Meets(_) | VendoredError::Path(_) | VendoredError::Root(_) => {
                Self::of(Exit::Spec, &error)
            }
        }
    }
}

impl From<BaseError> for Failure {
    fn from(error: BaseError) -> Self {
        Self::of(Exit::Untrusted, &error)
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::of(Exit::Untrusted, &error)
    }
}

impl From<OutputError> for Failure {
    fn from(error: OutputError) -> Self {
        let exit = match &error {
            OutputError::OnePlatform { .. } | OutputError::Unnamed { .. } => Exit::Usage,
            OutputError::NotVendored { .. } => Exit::Untrusted,
            OutputError::Root { .. }
            | OutputError::NoMember { .. }
            | OutputError::Unpacked { .. } => Exit::Spec,
            OutputError::Encoder(_) => Exit::Defect,
            OutputError::NoProgram { .. } | OutputError::Engine { .. } => Exit::Unreachable,
            _ => Exit::Local,
        };
        let failure = wrapped(exit, &error);
        match &error {
            OutputError::InTheWay { .. } => {
                failure.hint("name another place, or move away what is there")
            }
            OutputError::Tree {
                source: HostFsError::Case { .. },
                ..
            } => failure.hint(CASE_HINT),
            OutputError::Root { .. } => {
                failure.hint("`root` names a directory of the image: `immbuild inspect --files` lists them")
            }
            OutputError::Unnamed { .. } => {
                failure.hint("`name` in `[image]` or `--tag NAME:TAG` gives it one")
            }
            OutputError::NoMember { .. } => {
                failure.hint("leave it out of the directory that `root` names")
            }
            OutputError::Unpacked { .. } => failure.hint(
                "250 MB is AWS Lambda's limit, with all layers of the function: write less below `root`, or ship the image, which may have 10 GB",
            ),
            OutputError::OnePlatform { .. } => {
                failure.hint("add `--platform P`, or write an OCI archive or layout")
            }
            _ => failure,
        }
    }
}

impl From<SandboxError> for Failure {
    fn from(error: SandboxError) -> Self {
        let exit = match &error {
            SandboxError::Cancelled => Exit::Interrupted,
            SandboxError::Directory { .. }
            | SandboxError::Program { .. }
            | SandboxError::Interpreter { .. }
            | SandboxError::SecretName(_)
            | SandboxError::Killed => Exit::Step,
            SandboxError::Scratch { .. } => Exit::Local,
            SandboxError::NotReady | SandboxError::Supervisor(_) | SandboxError::Defect(_) => {
                Exit::Defect
            }
            _ => Exit::Machine,
        };
        let failure = Self::of(exit, &error);
        match error.fix() {
            Some(fix) => failure.hint(fix),
            None if exit == Exit::Machine => {
                failure.hint("run `immbuild doctor`, which tries each thing that is needed")
            }
            None => failure,
        }
    }
}
