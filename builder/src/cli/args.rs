//! What can be typed. The doc comments are the help texts.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::spec::image_name::ImageRepository;

/// Container images that are the same bytes everywhere, with proof.
#[derive(Debug, Parser)]
#[command(
    name = "immbuild",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    after_help = "\
Start here:
  immbuild init            write a spec for what lies here
  immbuild build           lock what is not locked, build, write the outputs
  immbuild load podman     hand the image to a container engine
  immbuild explain         say why a step will run

The spec is `spec.toml`, its pins are in `spec.lock` beside it: commit both."
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that work everywhere.
#[derive(Debug, Args)]
pub struct Global {
    /// The spec [default: spec.toml]
    #[arg(short = 'f', long = "spec", value_name = "FILE", global = true)]
    pub spec: Option<PathBuf>,
    /// Write one JSON object a line on stdout, the last being the result
    #[arg(long, global = true)]
    pub json: bool,
    /// Say only what went wrong
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// When to colour
    #[arg(long, value_enum, default_value_t, value_name = "WHEN", global = true)]
    pub color: Color,
    /// Ask nothing of any network: what is not in the store is an error
    #[arg(long, global = true)]
    pub offline: bool,
    /// Where what was fetched and built is kept [default: $XDG_CACHE_HOME/immbuild]
    #[arg(long, value_name = "DIR", global = true)]
    pub store: Option<PathBuf>,
    /// How many things to do at once [default: one for each CPU]; never changes a byte
    #[arg(long, value_name = "N", global = true, hide_short_help = true)]
    pub threads: Option<NonZeroUsize>,
}

/// When to colour what is written to a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lock if there is no lock, build, and write the outputs
    Build(Build),
    /// Add missing pins and drop unused ones; move nothing
    Lock(Lock),
    /// Move pins, and print old → new
    Update(Update),
    /// Write a spec for what lies here
    Init(Init),
    /// Open a shell where a step ended or failed
    Shell(Shell),
    /// Say why each step will run, or why not
    Explain(Explain),
    /// Print the build graph
    Graph(Graph),
    /// Say why a package is locked
    Why(Why),
    /// Write all locked inputs as one artifact, or take them from one
    Vendor(Vendor),
    /// Say what ships, from the lock alone
    Sbom(Sbom),
    /// Hand the image to a container engine, through its own loader
    Load(Load),
    /// Send an image to a registry, and give it its tags when all of it is there
    Push(Push),
    /// Copy an image as it is between registries, layouts and archives
    Copy(Copy),
    /// Put files about an image beside it in its registry
    Attach(Attach),
    /// List what is beside an image in its registry, or fetch it
    Referrers(Referrers),
    /// Try a credential, and keep it where Docker and podman look for it
    Login(Login),
    /// Check an image, rebuild it, and say how far the two agree
    Verify(Verify),
    /// Say where two images or trees begin to differ, and in what
    Compare(Compare),
    /// List what is in an image
    Inspect(Inspect),
    /// Run a command with a virtual clock and virtual randomness, where it is
    Supervise(Supervise),
    /// Try what this machine can do, and say how to mend what it can't
    Doctor,
    /// Look after what is kept between builds
    #[command(subcommand)]
    Cache(Cache),
    /// Print the JSON Schema of the spec, for editors
    Schema,
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
    /// (a later version) rebuild under hostile variation
    #[command(hide = true)]
    Check(Later),
    /// (a later version) findings about an image
    #[command(hide = true)]
    Audit(Later),
    /// (a later version) receipt and provenance
    #[command(hide = true)]
    Attest(Later),
    /// Write how the image is run: for Kubernetes, or for an OCI runtime
    #[command(subcommand)]
    Manifest(Manifest),
}

/// A command of a later version: whatever follows it is not looked at.
#[derive(Debug, Args)]
pub struct Later {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub rest: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Stdout gets one line: the index digest, or the manifest digest for one platform.

Examples:
  immbuild build
  immbuild build --record                      pin these output bytes in the lock
  immbuild build --locked --expected           in CI, for a release
  immbuild build --output kind=oci-archive,file=out/shop.tar
  immbuild build --secret token=env:API_TOKEN")]
#[allow(clippy::struct_excessive_bools, reason = "a flag is a bool to clap")]
pub struct Build {
    /// The spec [default: spec.toml]
    #[arg(value_name = "SPEC")]
    pub file: Option<PathBuf>,
    /// A missing or outdated lock is an error; cache directories are mounted empty
    #[arg(long)]
    pub locked: bool,
    /// It is an error when no expectation of the lock applies
    #[arg(long)]
    pub expected: bool,
    /// Write what came out into the lock as `[[expect]]`
    #[arg(long, conflicts_with = "locked")]
    pub record: bool,
    /// Take uncommitted changes of a local git source
    #[arg(long)]
    pub dirty: bool,
    /// Build only these platforms of the spec
    #[arg(long, value_name = "P")]
    pub platform: Vec<String>,
    /// Build this stage instead of the image, and write no output but those of `--output`
    #[arg(long, value_name = "S")]
    pub stage: Option<String>,
    /// Set a declared parameter
    #[arg(long = "arg", value_name = "K=V")]
    pub args: Vec<String>,
    /// Give a secret: `n=env:VARIABLE` or `n=file:PATH`
    #[arg(long, value_name = "N=FROM")]
    pub secret: Vec<String>,
    /// Write one more output: `kind=…,file=…` or `kind=…,dir=…`
    #[arg(long, value_name = "KIND")]
    pub output: Vec<String>,
    /// Run every step again, whatever is known
    #[arg(long)]
    pub rerun: bool,
    /// Mount cache directories empty
    #[arg(long)]
    pub without_caches: bool,
    /// Send the image to the registry that `name` of `[image]` says, under its `tags`; cache directories are mounted empty
    #[arg(long, conflicts_with = "stage")]
    pub push: bool,
    /// Take what steps gave elsewhere from a repository: `HOST/PATH`, asked before a step is run
    #[arg(long, value_name = "REPOSITORY", conflicts_with = "rerun")]
    pub cache_from: Vec<ImageRepository>,
    /// Send what steps gave to a repository, for `--cache-from` of others
    #[arg(long, value_name = "REPOSITORY")]
    pub cache_to: Vec<ImageRepository>,
    #[command(flatten)]
    pub tiers: Tiers,
    #[command(flatten)]
    pub later: BuildLater,
}

/// What to do about a tier that this machine cannot keep.
#[derive(Clone, Copy, Debug, Args)]
pub struct Tiers {
    /// Run steps whose tier this machine cannot keep in tier `isolated`, and say so
    #[arg(long)]
    pub allow_tier_downgrade: bool,
}

/// Flags of a later version: known, and refused.
#[derive(Debug, Args)]
pub struct BuildLater {
    #[arg(long, hide = true)]
    pub executor: Option<String>,
}

#[derive(Debug, Args)]
pub struct Lock {
    /// The spec [default: spec.toml]
    #[arg(value_name = "SPEC")]
    pub file: Option<PathBuf>,
    /// Write nothing and ask no network; say whether the lock is up to date
    #[arg(long)]
    pub check: bool,
    /// With --check: ask what would move
    #[arg(long, requires = "check")]
    pub online: bool,
    /// Take releases of package archives, and keys, that are no longer valid
    #[arg(long, conflicts_with = "check")]
    pub allow_expired: bool,
}

#[derive(Debug, Args)]
pub struct Update {
    /// Sources whose pins to move, or a package of one with what it forces [default: all]
    #[arg(value_name = "SOURCE[:PACKAGE]")]
    pub sources: Vec<String>,
    /// Choose the epoch anew, by the rule of a first lock
    #[arg(long)]
    pub epoch: bool,
    /// Say what would move, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Take releases of package archives, and keys, that are no longer valid
    #[arg(long)]
    pub allow_expired: bool,
}

#[derive(Debug, Args)]
pub struct Vendor {
    /// The OCI layout to write
    #[arg(
        short,
        long = "output",
        value_name = "DIR",
        required_unless_present = "read"
    )]
    pub output: Option<PathBuf>,
    /// Take everything from this layout into the store, so that a build needs no network
    #[arg(long, value_name = "DIR", conflicts_with = "output")]
    pub read: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Why {
    /// The package's name
    #[arg(value_name = "PACKAGE")]
    pub package: String,
}

#[derive(Debug, Args)]
pub struct Sbom {
    /// The form of the document
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub format: SbomForm,
    /// Write it to this file instead of standard output
    #[arg(short = 'o', value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// The forms of a bill of materials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SbomForm {
    /// SPDX 2.3
    #[default]
    Spdx,
    /// `CycloneDX` 1.6
    Cyclonedx,
}

#[derive(Debug, Args)]
pub struct Init {
    /// Start from this kind of spec
    #[arg(long, value_name = "NAME", value_enum)]
    pub from: Option<Template>,
}

/// The specs that `init` knows how to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Template {
    /// One static program on nothing
    Static,
    /// Files on a base image
    Site,
    /// Compile in one stage, ship from another
    Compile,
}

#[derive(Debug, Args)]
pub struct Shell {
    /// `STAGE` or `STAGE.N`; the last step unless N is given
    #[arg(default_value = "image", value_name = "STAGE[.N]")]
    pub at: String,
    /// Let changes be made; they are thrown away at the end
    #[arg(long)]
    pub writable: bool,
    /// Set a declared parameter
    #[arg(long = "arg", value_name = "K=V")]
    pub args: Vec<String>,
    /// Give a secret to a step that has still to run: `n=env:VARIABLE` or `n=file:PATH`
    #[arg(long, value_name = "N=FROM")]
    pub secret: Vec<String>,
    /// Take uncommitted changes of a local git source
    #[arg(long)]
    pub dirty: bool,
    #[command(flatten)]
    pub tiers: Tiers,
}

#[derive(Debug, Args)]
pub struct Explain {
    /// Only this step or stage: `build`, `build.2`
    #[arg(value_name = "STAGE[.N]")]
    pub at: Option<String>,
    /// Set a declared parameter
    #[arg(long = "arg", value_name = "K=V")]
    pub args: Vec<String>,
    /// Take uncommitted changes of a local git source
    #[arg(long)]
    pub dirty: bool,
    /// Say what the processes of each step with a result did that could have differed, and what they wrote
    #[arg(long)]
    pub sources: bool,
    #[command(flatten)]
    pub tiers: Tiers,
}

#[derive(Debug, Args)]
pub struct Graph {
    /// The spec [default: spec.toml]
    #[arg(value_name = "SPEC")]
    pub file: Option<PathBuf>,
    /// How to write it
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub format: GraphFormat,
    /// Set a declared parameter
    #[arg(long = "arg", value_name = "K=V")]
    pub args: Vec<String>,
    /// Take uncommitted changes of a local git source
    #[arg(long)]
    pub dirty: bool,
}

/// How to write a graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// A line for each op
    #[default]
    Text,
    /// Graphviz
    Dot,
}

#[derive(Debug, Args)]
pub struct Load {
    /// `podman`, `docker` or `containerd`
    #[arg(value_enum)]
    pub engine: Engine,
    /// A layout or archive (`PATH`, `PATH:TAG`), `HOST/PATH:TAG` of a registry, `sha256:…` in the store, or a spec [default: what the spec built last]
    #[arg(value_name = "IMAGE")]
    pub image: Option<String>,
    /// Give it this name instead of the one it has
    #[arg(long, value_name = "NAME:TAG")]
    pub tag: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Manifest {
    /// A pod with the image by digest, and what `[runtime]` says
    K8s {
        #[command(flatten)]
        of: ManifestOf,
        /// Where the image is pulled from [default: the spec's `name`]
        #[arg(long, value_name = "HOST/PATH")]
        name: Option<String>,
    },
    /// The parts of an OCI runtime's `config.json` that the image decides
    Oci {
        #[command(flatten)]
        of: ManifestOf,
    },
}

#[derive(Debug, Args)]
pub struct ManifestOf {
    /// A layout or archive (`PATH`, `PATH:TAG`), `HOST/PATH:TAG` of a registry, `sha256:…` in the store, or a spec [default: what the spec built last]
    #[arg(value_name = "IMAGE")]
    pub image: Option<String>,
    /// Write it to this file instead of standard output
    #[arg(short = 'o', value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Stdout gets a line for each repository: `NAME@sha256:…`, by which the image can be had again.

Examples:
  immbuild push
  immbuild push --tag 1.4.0 --tag latest
  immbuild push out/shop.tar --tag registry.example.com/shop:1.4.0")]
pub struct Push {
    /// A layout or archive (`PATH`, `PATH:TAG`), `HOST/PATH:TAG` of a registry, `sha256:…` in the store, or a spec [default: what the spec built last]
    #[arg(value_name = "IMAGE")]
    pub image: Option<String>,
    /// Give it this tag, or this name with a tag, instead of those of the spec
    #[arg(long, value_name = "TAG")]
    pub tag: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A name with a host (`registry.example.com/shop:1`) is in a registry; a path that begins with `./`
or `/` never is. A file that ends in `.tar` is written as an OCI archive, any other as a layout.
No byte changes: stdout gets the digest, or `NAME@sha256:…` in a registry.

Examples:
  immbuild copy registry.example.com/shop:1.4.0 mirror.example.com/shop:1.4.0
  immbuild copy registry.example.com/shop:1.4.0 out/shop.tar")]
pub struct Copy {
    /// From where: in a registry, a layout or archive (`PATH`, `PATH:TAG`), `sha256:…` in the store, or a spec
    #[arg(value_name = "A")]
    pub from: String,
    /// To where: in a registry, a layout, or an archive
    #[arg(value_name = "B")]
    pub to: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The image stays as it is: what is about it is another artifact, which names it.
Stdout gets `NAME@sha256:…` of that artifact.

Example:
  immbuild sbom -o shop.spdx.json
  immbuild attach registry.example.com/shop:1.4.0 shop.spdx.json --type application/spdx+json")]
pub struct Attach {
    /// The image: `HOST/PATH:TAG` or `HOST/PATH@sha256:…`
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// What is put beside it
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// What it is: a media type
    #[arg(long = "type", value_name = "TYPE")]
    pub artifact_type: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Stdout gets a line for each artifact: its digest, its type.")]
pub struct Referrers {
    /// The image: `HOST/PATH:TAG` or `HOST/PATH@sha256:…`
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// Only those of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub artifact_type: Option<String>,
    /// Write their files below this directory
    #[arg(long, value_name = "DIR")]
    pub fetch: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Login {
    /// The registry, as image names have it: `registry.example.com`, `localhost:5000`
    #[arg(value_name = "HOST")]
    pub host: String,
    /// Who logs in [default: asked for]
    #[arg(short, long, value_name = "USER")]
    pub username: Option<String>,
    /// Read the password from standard input, up to the end of the line
    #[arg(long, requires = "username")]
    pub password_stdin: bool,
}

/// Container engines with a loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    Podman,
    Docker,
    Containerd,
}

#[derive(Debug, Args)]
#[command(after_help = "\
First every digest and size is checked; then the spec of `-f` is built again, from nothing, and
the two are compared.

Exit status: 0 identical at the accepted grade, 10 identical except compression,
11 except tar form, 12 different, 13 cannot say, 6 a digest or size is wrong.

Examples:
  immbuild verify out/shop.tar -f spec.toml
  immbuild verify out/docker.tar -f spec.toml --accept diff-id
  immbuild verify out/shop.tar --structure-only")]
pub struct Verify {
    /// A layout or archive (`PATH`, `PATH:TAG`), `HOST/PATH:TAG` of a registry, `sha256:…` in the store, or a spec: what it built last
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// Check the image alone, rebuild nothing
    #[arg(long)]
    pub structure_only: bool,
    /// The least grade to accept
    #[arg(long, value_enum, default_value_t, value_name = "GRADE")]
    pub accept: Grade,
    /// Set a declared parameter
    #[arg(long = "arg", value_name = "K=V")]
    pub args: Vec<String>,
    /// Give a secret: `n=env:VARIABLE` or `n=file:PATH`
    #[arg(long, value_name = "N=FROM")]
    pub secret: Vec<String>,
    #[command(flatten)]
    pub tiers: Tiers,
    /// (a later version)
    #[arg(long, hide = true)]
    pub policy: Option<PathBuf>,
}

/// How far two images agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Grade {
    /// Every byte
    #[default]
    Bit,
    /// Every byte but for the compression
    DiffId,
    /// Every file but for the form of the tar
    Tree,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Stdout gets the verdict, then each difference as `old → new`.

Exit status: 0 identical, 10 identical except compression, 11 except tar form, 12 different.")]
pub struct Compare {
    /// A layout or archive (`PATH`, `PATH:TAG`), a directory, `HOST/PATH:TAG` of a registry, `sha256:…` in the store, or a spec
    pub a: String,
    /// What to compare it with
    pub b: String,
}

#[derive(Debug, Args)]
pub struct Inspect {
    /// A layout or archive (`PATH`, `PATH:TAG`), `HOST/PATH:TAG` of a registry, `sha256:…` in the store, or a spec [default: what the spec built last]
    #[arg(value_name = "IMAGE")]
    pub image: Option<String>,
    /// List every file, a line each
    #[arg(long)]
    pub files: bool,
}

#[derive(Debug, Subcommand)]
pub enum Cache {
    /// Say how much is kept
    Stat,
    /// Drop what nothing remembered needs
    Gc {
        /// Keep at most this much of what was used last: `500M`, `20G` (decimal)
        #[arg(long, value_name = "SIZE")]
        max_size: Option<String>,
    },
    /// Read everything again and set aside what is damaged
    Fsck,
    /// Print the public key by which what `--cache-to` sends is believed; make the secret one where there is none
    Key {
        /// File of the secret key [default: what `config.toml` names]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Print the log of a step that failed
    Log {
        /// The first digits of its digest, as the step's message gives them
        #[arg(value_name = "DIGEST")]
        digest: String,
    },
}

/// Run a command under a virtual clock, virtual randomness and virtual file numbers, without a sandbox.
#[derive(Debug, Args)]
#[command(after_help = "\
The command sees the files, the network and the users of its surroundings; only clocks, randomness, file \
numbers, the order of directories and what the machine is are virtual. In a container whose seccomp profile \
refuses `personality` or `ptrace`, run it with the profile that `book/` ships.")]
pub struct Supervise {
    /// Where the clock starts, in seconds since 1970 [default: $SOURCE_DATE_EPOCH, else 2020-01-01]
    #[arg(long, value_name = "SECONDS")]
    pub epoch: Option<i64>,
    /// What random bytes are made from: any text
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub seed: String,
    /// Let one thread run at a time
    #[arg(long)]
    pub strict: bool,
    /// Leave file numbers, file times and the order of directories as they are
    #[arg(long)]
    pub clamp: bool,
    /// Say at the end what was made virtual, for which process, and how often threads were stopped
    #[arg(long)]
    pub sources: bool,
    /// The command
    #[arg(required = true, last = true, value_name = "COMMAND")]
    pub command: Vec<std::ffi::OsString>,
}
