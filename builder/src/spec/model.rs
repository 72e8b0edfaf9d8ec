//! What a spec says for one platform, every value checked and typed.
//!
//! [`Resolved`] comes out of [`Spec::resolve`](super::Spec::resolve): arguments and platform put in, references
//! followed, defaults filled in. Paths in the image are [`RelPath`]s from its root; paths of this machine stay as
//! written and are relative to the spec.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use immbuild_cas::digest::Digest;
use immbuild_cas::path::RelPath;
use immbuild_cas::tree::Mode;

use super::image_name::ImageName;
use crate::diag::Span;
use crate::epoch::{Epoch, FormatVersion};
use crate::platform::Platform;

/// The name of a source or stage: `[a-z][a-z0-9-]*`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ident(Box<str>);

impl Ident {
    /// The name of the stage that ships; no source or stage may take it.
    pub const IMAGE: &'static str = "image";

    /// This name, if it is one.
    pub fn new(text: &str) -> Option<Self> {
        let mut bytes = text.bytes();
        let first = bytes.next()?;
        let rest = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (first.is_ascii_lowercase() && bytes.all(rest)).then(|| Self(text.into()))
    }

    /// `image`.
    pub fn image() -> Self {
        Self(Self::IMAGE.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

impl Borrow<str> for Ident {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A spec as it stands for one platform and one set of arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The rules it is read by.
    pub format: FormatVersion,
    /// What it is resolved for.
    pub platform: Platform,
    /// `epoch`, when the spec says one.
    pub epoch: Option<Epoch>,
    /// `tier`, for what no step executes: the scripts of a root of packages.
    pub tier: Tier,
    /// `[source.N]`.
    pub sources: BTreeMap<Ident, Source>,
    /// `[stage.N]`, and `[image]` under the name `image`. Free of cycles; every reference leads somewhere.
    pub stages: BTreeMap<Ident, Stage>,
    /// The delivery keys of `[image]`.
    pub image: Image,
    /// `[runtime]`.
    pub runtime: Runtime,
    /// `[[output]]`, in the order written.
    pub outputs: Vec<Output>,
}

impl Resolved {
    /// What `wanted` needs, each stage after those it starts from and copies from, `wanted` last. Nothing when there
    /// is no such stage.
    pub fn needed(&self, wanted: &str) -> Vec<&Stage> {
        let mut order = Vec::new();
        self.visit(wanted, &mut BTreeSet::new(), &mut order);
        order
    }

    /// The platforms each source of programs, an image, packages or libraries, is wanted for: it is taken for the platform of the
    /// stage that uses it, and for the image's own when no stage does.
    pub fn image_platforms(&self) -> BTreeMap<&Ident, BTreeSet<Platform>> {
        let images = self.sources.iter().filter(|(_, source)| {
            matches!(
                source.kind,
                SourceKind::Image(_)
                    | SourceKind::Debian(_)
                    | SourceKind::Python(_)
                    | SourceKind::Cargo(_)
            )
        });
        images
            .map(|(name, _)| {
                let uses = |stage: &&Stage| {
                    stage
                        .origins()
                        .any(|origin| matches!(origin, Origin::Source(it) if it == name))
                };
                let mut platforms: BTreeSet<Platform> = self
                    .stages
                    .values()
                    .filter(uses)
                    .map(|stage| stage.platform)
                    .collect();
                if platforms.is_empty() {
                    platforms.insert(self.platform);
                }
                (name, platforms)
            })
            .collect()
    }

    fn visit<'s>(&'s self, name: &str, seen: &mut BTreeSet<&'s Ident>, order: &mut Vec<&'s Stage>) {
        let Some((name, stage)) = self.stages.get_key_value(name) else {
            return;
        };
        if seen.insert(name) {
            for origin in stage.origins() {
                if let Origin::Stage(name) = origin {
                    self.visit(name.as_str(), seen, order);
                }
            }
            order.push(stage);
        }
    }
}

impl Stage {
    /// What it starts from and what its steps read, in the order written.
    pub fn origins(&self) -> impl Iterator<Item = &Origin> {
        let steps = self.steps.iter().filter_map(|step| match &step.verb {
            Verb::Copy(copy) => Some(&copy.from.origin),
            Verb::Unpack(unpack) => Some(&unpack.from.origin),
            Verb::Install(install) => Some(&install.origin),
            _ => None,
        });
        self.from.iter().map(|base| &base.origin).chain(steps)
    }

    /// Does a step of it execute anything?
    pub fn executes(&self) -> bool {
        self.steps
            .iter()
            .any(|step| matches!(step.verb, Verb::Run(_)))
    }
}

/// The least guarantee of a step that executes. Ordered: more is greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// The surroundings are constants.
    Isolated,
    /// Also time, randomness and what of the machine can be seen.
    #[default]
    Deterministic,
    /// Also the order of threads.
    Strict,
}

impl Tier {
    /// As a spec writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Isolated => "isolated",
            Self::Deterministic => "deterministic",
            Self::Strict => "strict",
        }
    }
}

/// What a step above tier `isolated` is told about files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Metadata {
    /// Times, numbers and an order of directories that depend on nothing outside.
    #[default]
    Virtual,
    /// What the file system says.
    Clamp,
}

impl Metadata {
    /// As a spec writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Virtual => "virtual",
            Self::Clamp => "clamp",
        }
    }
}

/// An input from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name.
    pub name: Ident,
    /// The value of its kind key.
    pub span: Span,
    /// What it asks for.
    pub kind: SourceKind,
    /// Does what it asks for use a variable of the platform (`${arch}`, …)? Then it is locked per platform.
    pub per_platform: bool,
}

/// The kinds of sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// `path = …`
    Path(PathSource),
    /// `git = …`
    Git(GitSource),
    /// `http = …`
    Http(HttpSource),
    /// `image = …`
    Image(ImageSource),
    /// `debian = …`
    Debian(DebianSource),
    /// `python = …`
    Python(PythonSource),
    /// `cargo = …`
    Cargo(CargoSource),
}

/// A file or directory of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathSource {
    /// As written; relative to the spec.
    pub path: String,
    /// Patterns that pick; none: everything.
    pub include: Vec<String>,
    /// Patterns that remove afterwards.
    pub exclude: Vec<String>,
    /// Names of files that hold such patterns.
    pub ignore: Vec<String>,
    /// Keep mode, owner, hard links and extended attributes.
    pub preserve: bool,
}

/// A committed tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitSource {
    /// Where the repository is.
    pub repository: Repository,
    /// Branch, tag or commit; absent: `HEAD`.
    pub rev: Option<String>,
    /// The directory of it that is the source; the root: all.
    pub subdir: RelPath,
    /// Fetch submodules too.
    pub submodules: bool,
}

/// Where a git repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repository {
    /// A checkout on this machine, relative to the spec. Not pinned in the lock.
    Local(String),
    /// A URL.
    Remote(String),
}

/// A file behind a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSource {
    /// `https:`, `http:` or `file:`.
    pub url: String,
    /// Other URLs of the same bytes. In no id and in no lock.
    pub mirrors: Vec<String>,
    /// What the bytes must be.
    pub sha256: Option<Digest>,
    /// The archive's content, or the file as it is.
    pub unpack: Option<Unpacking>,
}

/// How an archive becomes a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpacking {
    /// How many leading names of every path are taken off.
    pub strip: u32,
    /// Keep mode, owner, hard links and extended attributes.
    pub preserve: bool,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// An OCI layout, OCI archive or docker archive of this machine.
    Local {
        /// As written, starts with `./`, `../` or `/`; relative to the spec.
        path: String,
        /// Which of several images in it.
        tag: Option<String>,
    },
    /// In a registry.
    Registry(ImageName),
}

/// Packages of a Debian-format archive, with all that they need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebianSource {
    /// `bookworm`: what the default archives are named after, and the release in package URLs.
    pub suite: String,
    /// Whose packages they are: `debian` or another distribution's name in package URLs.
    pub distro: String,
    /// The names asked for, in the order written. Never empty.
    pub packages: Vec<String>,
    /// Where each of them is written.
    pub spans: Vec<Span>,
    /// Take what packages recommend, too.
    pub recommends: bool,
    /// Are their scripts run?
    pub configure: Configure,
    /// Take every package that is marked essential, too.
    pub essential: bool,
    /// Names that are taken first where several packages satisfy a dependency.
    pub prefer: Vec<String>,
    /// Names that are never taken; what depends on them does without.
    pub exclude: Vec<String>,
    /// Where they come from, in the order written: the first is preferred among equal versions. Never empty.
    pub archives: Vec<DebianArchive>,
    /// What is done in place of scripts.
    pub fixups: Fixups,
}

/// Packages of Python by the project's own lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PythonSource {
    /// The lock: `uv.lock`, `pylock.toml` or hashed requirements, as written; relative to the spec.
    pub file: String,
    /// The interpreter that they are for.
    pub interpreter: Interpreter,
    /// The C library that they are for, or an older one.
    pub libc: Libc,
    /// Groups of dependencies that are wanted.
    pub groups: Vec<String>,
    /// Extras of the project that are wanted.
    pub extras: Vec<String>,
    /// Digest of what requirements say, once they were read. A lock is read when a build is planned.
    pub content: Option<Digest>,
}

impl PythonSource {
    /// Does the file say itself which files there are? Requirements do not, and are locked.
    pub fn is_lock(&self) -> bool {
        let name = self.file.rsplit('/').next().unwrap_or_default();
        // PEP 751: `pylock.toml`, or `pylock.NAME.toml`.
        let pylock = name.strip_prefix("pylock.");
        self.is_uv() || pylock.is_some_and(|rest| rest.rsplit('.').next() == Some("toml"))
    }

    /// Is it a `uv.lock`?
    pub fn is_uv(&self) -> bool {
        self.file.rsplit('/').next() == Some("uv.lock")
    }
}

/// Crates by the project's own lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CargoSource {
    /// `Cargo.lock`, as written; relative to the spec.
    pub file: String,
}

/// A version of `CPython`: `3.11`, or `3.11.2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interpreter {
    /// 3.
    pub major: u32,
    /// 11.
    pub minor: u32,
    /// 2, where it is said.
    pub patch: Option<u32>,
}

impl FromStr for Interpreter {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number = |text: &str| -> Option<u32> {
            let plain =
                !text.is_empty() && text.len() <= 3 && text.bytes().all(|it| it.is_ascii_digit());
            text.parse()
                .ok()
                .filter(|it: &u32| plain && it.to_string() == text)
        };
        let parts: Option<Vec<u32>> = text.split('.').map(number).collect();
        match parts.as_deref() {
            Some([major @ 3, minor]) => Ok(Self {
                major: *major,
                minor: *minor,
                patch: None,
            }),
            Some([major @ 3, minor, patch]) => Ok(Self {
                major: *major,
                minor: *minor,
                patch: Some(*patch),
            }),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Interpreter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        match self.patch {
            Some(patch) => write!(f, ".{patch}"),
            None => Ok(()),
        }
    }
}

/// A C library: wheels of an older one run on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Libc {
    /// glibc 2.
    Glibc {
        /// The number after `2.`.
        minor: u32,
    },
    /// musl 1.
    Musl {
        /// The number after `1.`.
        minor: u32,
    },
}

/// What every distribution in use has. Part of format 1: changing it changes which wheels are chosen.
impl Default for Libc {
    fn default() -> Self {
        Self::Glibc { minor: 28 }
    }
}

impl FromStr for Libc {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number = |text: &str| {
            let found = text.parse().ok();
            found
                .filter(|it: &u32| *it < 1000 && it.to_string() == text)
                .ok_or(())
        };
        match (text.strip_prefix("glibc-2."), text.strip_prefix("musl-1.")) {
            (Some(minor), _) => Ok(Self::Glibc {
                minor: number(minor)?,
            }),
            (None, Some(minor)) => Ok(Self::Musl {
                minor: number(minor)?,
            }),
            (None, None) => Err(()),
        }
    }
}

impl fmt::Display for Libc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Glibc { minor } => write!(f, "glibc-2.{minor}"),
            Self::Musl { minor } => write!(f, "musl-1.{minor}"),
        }
    }
}

/// What becomes of maintainer scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Configure {
    /// They run in the sandbox: what apt gives.
    Scripts,
    /// Nothing executes; [`Fixups`] are applied.
    None,
}

impl Configure {
    /// As a spec writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scripts => "scripts",
            Self::None => "none",
        }
    }
}

/// One archive: suites that are signed and mirrored together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebianArchive {
    /// What the lock calls it.
    pub name: Ident,
    /// URLs of its top directory, tried in order. In no id and in no lock.
    pub mirrors: Vec<String>,
    /// The URL of its top directory at `{timestamp}`. In no id and in no lock.
    pub snapshot: Option<String>,
    /// `bookworm`, `bookworm-updates`, … Never empty.
    pub suites: Vec<String>,
    /// `main`, … Never empty.
    pub components: Vec<String>,
    /// The keyring's file, as written; relative to the spec. Absent: Debian's own keys as this machine has them.
    pub signed_by: Option<String>,
    /// Only these keys or subkeys of the keyring count: 40 or 64 capital hex digits each. Empty: all of them.
    pub fingerprints: Vec<String>,
    /// How old a release may be that does not say itself how long it is valid.
    pub max_age: Option<Duration>,
}

/// What is done in place of maintainer scripts. Everything is a plain statement of what the root is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fixups {
    /// Accounts that are to be there.
    pub accounts: Vec<FixupAccount>,
    /// The name of an alternative and the program it leads to: `editor` to `/usr/bin/vim.tiny`.
    pub alternatives: BTreeMap<String, RelPath>,
    /// Make the bundle of certificates; absent: when `ca-certificates` is among the packages.
    pub ca_bundle: Option<bool>,
    /// Symbolic links and their texts.
    pub symlinks: BTreeMap<RelPath, String>,
    /// Directories.
    pub dirs: Vec<Mkdir>,
    /// What is left out.
    pub prune: BTreeSet<Prune>,
}

/// An account of a fix-up: `www-data`, whose numbers `base-passwd` knows, or `postgres:110:115`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixupAccount {
    /// Its name.
    pub name: String,
    /// Its user and group number; absent: those of `base-passwd`.
    pub ids: Option<(u32, u32)>,
}

/// What can be left out of packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Prune {
    /// `/usr/share/doc` but for the files `copyright`.
    Docs,
    /// `/usr/share/info`.
    Info,
    /// `/usr/share/locale` but for `C` and English.
    Locales,
    /// `/usr/share/man`.
    Man,
}

/// A root and how it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its name; `image` for the one that ships.
    pub name: Ident,
    /// Its header.
    pub span: Span,
    /// What it starts from; absent: an empty root.
    pub from: Option<Base>,
    /// What is done to it, in order.
    pub steps: Vec<Step>,
    /// The environment of its steps. Empty for `image`, whose `env` is the container's ([`Config::env`]).
    pub env: BTreeMap<String, String>,
    /// Directories kept between builds, in the order of their paths; none is below another.
    pub cache: Vec<RelPath>,
    /// Where its programs run.
    pub platform: Platform,
}

/// What `from` and references name. A stage may be `image`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A source.
    Source(Ident),
    /// A stage.
    Stage(Ident),
}

impl Origin {
    /// The name without its kind.
    pub fn name(&self) -> &Ident {
        match self {
            Self::Source(name) | Self::Stage(name) => name,
        }
    }
}

/// `from`: an image source, packages or a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// What it names.
    pub origin: Origin,
    /// The value.
    pub span: Span,
}

/// One thing that is done to a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Where it is written.
    pub span: Span,
    /// What it does.
    pub verb: Verb,
}

/// The verbs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `copy`
    Copy(Copy),
    /// `write`
    Write(Write),
    /// `install`
    Install(Install),
    /// `run` and `shell`
    Run(Run),
    /// `mkdir`
    Mkdir(Mkdir),
    /// `link`
    Link(Link),
    /// `remove`
    Remove(Remove),
    /// `user`
    User(User),
    /// `unpack`
    Unpack(Unpack),
}

/// Packages onto a root, or libraries into a directory of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    /// The source.
    pub origin: Origin,
    /// The value.
    pub span: Span,
    /// The directory that libraries become; absent for packages.
    pub to: Option<RelPath>,
    /// The least guarantee of the scripts of packages.
    pub tier: Tier,
}

/// What a step reads from elsewhere: `"name"` or `"name:path"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The source or stage.
    pub origin: Origin,
    /// The path in it; the root for a bare name.
    pub path: RelPath,
    /// The value.
    pub span: Span,
}

/// That file or directory becomes `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// What is copied.
    pub from: Reference,
    /// Its full new name.
    pub to: RelPath,
    /// The value of `to`.
    pub to_span: Span,
    /// Patterns that pick below the named directory; none: everything.
    pub include: Vec<String>,
    /// Patterns that remove afterwards.
    pub exclude: Vec<String>,
    /// Mode of every regular file, if not its own.
    pub mode: Option<Mode>,
    /// Mode of every directory, if not its own.
    pub dir_mode: Option<Mode>,
    /// Owner of everything copied, if not its own.
    pub owner: Option<Owner>,
}

/// A file with this text; replaces a file or link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The file.
    pub path: RelPath,
    /// Its text.
    pub text: String,
    /// Its mode.
    pub mode: Mode,
    /// Its owner.
    pub owner: Owner,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What runs.
    pub command: Command,
    /// `in`: where it runs; must exist.
    pub directory: RelPath,
    /// Its own environment, over the stage's.
    pub env: BTreeMap<String, String>,
    /// `as`: who runs it.
    pub owner: Owner,
    /// Names of the secrets it gets, sorted.
    pub secrets: BTreeSet<String>,
    /// The least guarantee.
    pub tier: Tier,
    /// What it is told about files.
    pub metadata: Metadata,
    /// How long it may take.
    pub timeout: Option<Duration>,
}

/// What a step runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `run`: program and arguments, at least the program. A program without `/` is found by `PATH`.
    Argv(Vec<String>),
    /// `shell`: `/bin/sh -eu -c` this.
    Shell(String),
}

impl Command {
    /// What is executed.
    pub fn argv(&self) -> Vec<String> {
        match self {
            Self::Argv(words) => words.clone(),
            Self::Shell(script) => ["/bin/sh", "-eu", "-c", script].map(String::from).to_vec(),
        }
    }
}

/// A directory and its parents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mkdir {
    /// The directory.
    pub path: RelPath,
    /// Its mode; absent: 0755 for a new one, an existing one keeps its own.
    pub mode: Option<Mode>,
    /// Its owner; absent: 0:0 for a new one, an existing one keeps its own.
    pub owner: Option<Owner>,
}

/// A symbolic link; replaces a file or link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The link.
    pub path: RelPath,
    /// Its text, never empty, without NUL.
    pub target: String,
}

/// Removes a file, link or whole directory; nothing there is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remove {
    /// What goes; never the root.
    pub path: RelPath,
    /// The value.
    pub path_span: Span,
}

/// Account lines in `/etc/passwd` and `/etc/group`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// `[a-z_][a-z0-9_-]*`, at most 32 bytes.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// The number of its own group.
    pub gid: u32,
    /// Its home, made and owned by it; absent: `/nonexistent`, not made.
    pub home: Option<RelPath>,
    /// Its login shell, an absolute path.
    pub login: String,
    /// Further groups it is in, in the order written.
    pub groups: Vec<String>,
}

/// An archive unpacked into a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpack {
    /// The archive.
    pub from: Reference,
    /// The directory.
    pub to: RelPath,
    /// The value of `to`.
    pub to_span: Span,
    /// How.
    pub how: Unpacking,
}

/// Whose something is, or who runs something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// `"uid:gid"`, or `"n"` for both.
    Ids {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// `"name"` or `"name:group"`, looked up in the root at that point.
    Named {
        /// User.
        user: String,
        /// Group; absent: the user's own.
        group: Option<String>,
    },
}

impl Owner {
    /// `0:0`.
    pub const ROOT: Self = Self::Ids { uid: 0, gid: 0 };
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ids { uid, gid } => write!(f, "{uid}:{gid}"),
            Self::Named { user, group: None } => f.write_str(user),
            Self::Named {
                user,
                group: Some(group),
            } => write!(f, "{user}:{group}"),
        }
    }
}

/// How the image is delivered, and what its container does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// What it is built for, in the order written; one: a manifest, several: an index.
    pub platforms: Vec<Platform>,
    /// Where `push` and `load` put it. In no digest.
    pub name: Option<String>,
    /// As above.
    pub tags: Vec<String>,
    /// How own changes are cut.
    pub layers: Layers,
    /// Of own layers.
    pub compression: Compression,
    /// Of the container.
    pub config: Config,
    /// On the manifest.
    pub annotations: BTreeMap<String, String>,
}

/// How own changes are cut into layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layers {
    /// `per-step`
    PerStep,
    /// `per-package`: so many layers at most for the packages of one source.
    PerPackage(u32),
    /// `single`
    Single,
}

/// How own layers are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// `zstd`
    Zstd,
    /// `gzip`
    Gzip,
    /// `none`
    None,
}

/// What a spec says about the container. Tables merge with the base's by key; a key that is set replaces the base's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Setting it drops an inherited `cmd`; an empty one clears.
    pub entrypoint: Option<Vec<String>>,
    /// An empty one clears.
    pub cmd: Option<Vec<String>>,
    /// Who runs the container; absent: the base's, else 0:0.
    pub user: Option<Owner>,
    /// The value of `user`.
    pub user_span: Option<Span>,
    /// An absolute path.
    pub workdir: Option<String>,
    /// A signal's name or number.
    pub stop_signal: Option<String>,
    /// Ports the container listens on.
    pub expose: Option<BTreeSet<Port>>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// `8080/tcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// 1 to 65535.
    pub number: u16,
    /// How.
    pub protocol: Protocol,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(f, "{}/{protocol}", self.number)
    }
}

/// The protocols OCI's `ExposedPorts` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// `tcp`
    Tcp,
    /// `udp`
    Udp,
}

/// The contract of the running container. What is not said is what a base says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runtime {
    /// Is its root mounted read-only?
    pub readonly: Option<bool>,
    /// Directories that are writable and empty when it starts, with their place in the spec; sorted, none below another.
    pub writable: Option<Vec<(RelPath, Span)>>,
}

/// A local file or directory that a build writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// What is written.
    pub kind: OutputKind,
    /// Where, as written; relative to the spec.
    pub path: String,
    /// Of a function zip: the directory of the image that is written.
    pub root: RelPath,
    /// The value of `file` or `dir`.
    pub span: Span,
}

/// What a build can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OutputKind {
    /// A tar of an OCI layout.
    OciArchive,
    /// What `docker load` reads.
    DockerArchive,
    /// An OCI layout.
    OciLayout,
    /// The root as a directory; one per platform.
    Dir,
    /// A directory of the root as a zip for a platform for functions; one per platform.
    FunctionZip,
}

impl OutputKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::OciArchive,
        Self::DockerArchive,
        Self::OciLayout,
        Self::Dir,
        Self::FunctionZip,
    ];

    /// The key that says where it goes.
    pub const fn place(self) -> &'static str {
        match self {
            Self::OciArchive | Self::DockerArchive | Self::FunctionZip => "file",
            Self::OciLayout | Self::Dir => "dir",
        }
    }

    /// Is it made of the files of one platform, so that several need several places?
    pub const fn is_of_one_platform(self) -> bool {
        matches!(self, Self::Dir | Self::FunctionZip)
    }

    /// As a spec writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OciArchive => "oci-archive",
            Self::DockerArchive => "docker-archive",
            Self::OciLayout => "oci-layout",
            Self::Dir => "dir",
            Self::FunctionZip => "function-zip",
        }
    }
}
