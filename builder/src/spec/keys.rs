//! Every key of a spec: its table, its form, its meaning.
//!
//! The one list that the parser, the JSON Schema and the book's reference are made from, so that they cannot drift:
//! the parser refuses to ask for a key that is not here, and to leave one out that is.

/// A closed set of keys.
#[derive(Debug)]
#[expect(clippy::struct_field_names, reason = "`Keys.keys` is what it says")]
pub(crate) struct Keys {
    /// What holds them, for "in …".
    pub(crate) name: &'static str,
    /// One sentence about it.
    pub(crate) doc: &'static str,
    pub(crate) keys: &'static [Key],
}

/// One key.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) form: Form,
    pub(crate) need: Need,
    pub(crate) doc: &'static str,
}

/// Must the key be there, and what holds when it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Required,
    /// The default, as written in TOML or in words.
    Optional(&'static str),
    /// The key comes with a later version; this names what it is for.
    Later(&'static str),
}

/// The form of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The number 1.
    Version,
    /// A string. The flag: is `${…}` put in?
    Text(Substituted),
    /// A path of this machine.
    LocalPath,
    /// A path in the image.
    ImagePath,
    /// `"name"` or `"name:path"`.
    Reference,
    /// The name of a source or stage.
    Name,
    /// `"0755"`
    Mode,
    /// `"name"`, `"name:group"`, `"uid:gid"`, `"n"`
    Owner,
    /// `"90s"`, `"30m"`
    Duration,
    /// `2026-11-21T00:53:02Z`
    DateTime,
    /// 64 hex digits.
    Sha256,
    Boolean,
    /// From 0 to this.
    Integer(i64),
    /// One of these words; the first is the default. Those of the second list come with a later version.
    Choice(&'static [&'static str], &'static [&'static str]),
    /// `"linux/amd64"`
    Platform,
    /// An array of strings of a form.
    List(&'static Form),
    /// An array of strings with at least one.
    Words,
    /// `8080` or `"53/udp"`
    Ports,
    /// Any keys, each with a string.
    Strings,
    /// A table of one of these closed sets for each name.
    Named(Set),
    /// A table of one closed set.
    Table(&'static Keys),
    /// An array of tables.
    Tables(Set),
}

/// Is `${…}` put into a string?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Substituted {
    Yes,
    No,
}

/// Tables that are told apart by one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Set {
    Sources,
    Steps,
    Stages,
    Outputs,
    /// `[[source.N.archive]]`
    Archives,
    /// `source.N.fixups.dirs`
    Dirs,
}

// `Keys` is compared by address: there is one of each.
impl PartialEq for Keys {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Keys {}

static SOURCES: [&Keys; 7] = [&PATH, &GIT, &HTTP, &IMAGE_SOURCE, &DEBIAN, &PYTHON, &CARGO];
static VERBS: [&Keys; 10] = [
    &COPY, &WRITE, &INSTALL, &RUN, &SHELL, &MKDIR, &LINK, &REMOVE, &USER, &UNPACK,
];
static STAGES: [&Keys; 1] = [&STAGE];
static OUTPUTS: [&Keys; 1] = [&OUTPUT];
static ARCHIVES: [&Keys; 1] = [&ARCHIVE];
static DIRS: [&Keys; 1] = [&FIXUP_DIR];

impl Set {
    /// What is in it, each with the key that chooses it; no such key when there is only one.
    pub(crate) fn members(self) -> &'static [&'static Keys] {
        match self {
            Self::Sources => &SOURCES,
            Self::Steps => &VERBS,
            Self::Stages => &STAGES,
            Self::Outputs => &OUTPUTS,
            Self::Archives => &ARCHIVES,
            Self::Dirs => &DIRS,
        }
    }
}

impl Keys {
    pub(crate) fn get(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The key that chooses this one of a [`Set`]: the first.
    pub(crate) fn choosing(&self) -> &'static Key {
        &self.keys[0]
    }
}

const fn key(name: &'static str, form: Form, need: Need, doc: &'static str) -> Key {
    Key {
        name,
        form,
        need,
        doc,
    }
}

use Form::{
    Boolean, Choice, DateTime, Duration, ImagePath, Integer, List, LocalPath, Mode, Name, Named,
    Owner, Platform, Ports, Reference, Sha256, Strings, Tables, Text, Version, Words,
};
use Need::{Later, Optional, Required};

const TEXT: Form = Text(Substituted::Yes);
const TIERS: Form = Choice(&["deterministic", "isolated", "strict"], &[]);
/// The greatest user or group number: `(uid_t) -1` means "nobody said".
const IDS: i64 = 4_294_967_294;

/// Top level.
pub(crate) static TOP: Keys = Keys {
    name: "the spec",
    doc: "One image.",
    keys: &[
        key(
            "immbuild",
            Version,
            Required,
            "Format version, the first key of the file. It freezes every rule of the language and every byte written.",
        ),
        key(
            "epoch",
            DateTime,
            Optional("chosen when locking"),
            "The one time in the image, in UTC with whole seconds.",
        ),
        key(
            "tier",
            TIERS,
            Optional("\"deterministic\""),
            "Least guarantee of every executing step; a stage or a step may set its own.",
        ),
        key(
            "args",
            Strings,
            Optional("{}"),
            "Declared parameters with their defaults; `--arg name=value` overrides.",
        ),
        key(
            "source",
            Named(Set::Sources),
            Optional("{}"),
            "Inputs from outside, by name.",
        ),
        key(
            "stage",
            Named(Set::Stages),
            Optional("{}"),
            "Intermediate roots, by name.",
        ),
        key(
            "image",
            Form::Table(&IMAGE),
            Required,
            "The stage that ships.",
        ),
        key(
            "output",
            Tables(Set::Outputs),
            Optional("[]"),
            "Local files a build writes.",
        ),
        key(
            "runtime",
            Form::Table(&RUNTIME),
            Optional("the base's"),
            "The contract of the running container, as labels of the image.",
        ),
        key(
            "check",
            Form::Table(&NOTHING),
            Later("`immbuild check`"),
            "",
        ),
    ],
};

static NOTHING: Keys = Keys {
    name: "",
    doc: "",
    keys: &[],
};

const INCLUDE: &str = "Patterns that pick, as in .gitignore; none: everything.";
const EXCLUDE: &str = "Patterns that remove; removal wins.";
const PRESERVE: &str = "Keep mode, owner, hard links and extended attributes as they are.";

/// `path` sources.
pub(crate) static PATH: Keys = Keys {
    name: "a `path` source",
    doc: "A file or directory of this machine, taken as it is at each build.",
    keys: &[
        key(
            "path",
            LocalPath,
            Required,
            "The file or directory, relative to the spec.",
        ),
        key("include", List(&TEXT), Optional("[]"), INCLUDE),
        key("exclude", List(&TEXT), Optional("[]"), EXCLUDE),
        key(
            "ignore",
            List(&TEXT),
            Optional("[\".immignore\"]"),
            "Names of files that hold patterns to remove.",
        ),
        key("preserve", Boolean, Optional("false"), PRESERVE),
    ],
};

/// `git` sources.
pub(crate) static GIT: Keys = Keys {
    name: "a `git` source",
    doc: "A committed tree: of the checkout on this machine, or of a repository behind a URL.",
    keys: &[
        key(
            "git",
            TEXT,
            Required,
            "A path of this machine such as `.`, or a URL. Only a URL is locked.",
        ),
        key("rev", TEXT, Optional("\"HEAD\""), "Branch, tag or commit."),
        key(
            "subdir",
            TEXT,
            Optional("all of it"),
            "The directory of the repository that is the source.",
        ),
        key(
            "submodules",
            Boolean,
            Optional("false"),
            "Fetch submodules too.",
        ),
    ],
};

/// `http` sources.
pub(crate) static HTTP: Keys = Keys {
    name: "an `http` source",
    doc: "A file behind a URL, locked by its bytes.",
    keys: &[
        key(
            "http",
            TEXT,
            Required,
            "A `https:`, `http:` or `file:` URL.",
        ),
        key(
            "mirrors",
            List(&TEXT),
            Optional("[]"),
            "Other URLs of the same bytes; in no id and in no lock.",
        ),
        key(
            "sha256",
            Sha256,
            Optional("what is found when locking"),
            "What the bytes must be: 64 hex digits.",
        ),
        key(
            "unpack",
            Boolean,
            Optional("false"),
            "The source is what is in the archive; otherwise it is the file.",
        ),
        key(
            "strip",
            Integer(64),
            Optional("0"),
            "With `unpack`: how many leading names of every path are taken off.",
        ),
        key(
            "preserve",
            Boolean,
            Optional("false"),
            "With `unpack`: keep mode, owner, hard links and extended attributes.",
        ),
    ],
};

/// `image` sources.
pub(crate) static IMAGE_SOURCE: Keys = Keys {
    name: "an `image` source",
    doc: "An image to start from or to copy from.",
    keys: &[
        key(
            "image",
            LocalPath,
            Required,
            "`HOST/PATH:TAG` or `HOST/PATH@sha256:…` in a registry; or an OCI layout, OCI archive or docker archive, which begins with `./`, `../` or `/`.",
        ),
        key(
            "tag",
            TEXT,
            Optional("the only one"),
            "Which image of a layout or archive, when there are several in it.",
        ),
    ],
};

/// `debian` sources.
pub(crate) static DEBIAN: Keys = Keys {
    name: "a `debian` source",
    doc: "Packages of a Debian-format archive with all that they need, each locked by its bytes.",
    keys: &[
        key(
            "debian",
            TEXT,
            Required,
            "The suite, such as `\"bookworm\"`. Alone it means that suite, its updates and its security suite, component `main`, with Debian's own keys.",
        ),
        key(
            "packages",
            List(&TEXT),
            Required,
            "The packages asked for; what they depend on comes with them.",
        ),
        key(
            "recommends",
            Boolean,
            Optional("false"),
            "Take what packages recommend, too.",
        ),
        key(
            "configure",
            Choice(&["scripts", "none"], &[]),
            Optional("\"scripts\""),
            "`\"scripts\"` runs the packages' own scripts in the sandbox and gives what apt gives; `\"none\"` executes nothing and applies `fixups`.",
        ),
        key(
            "essential",
            Boolean,
            Optional("true with `\"scripts\"`, else false"),
            "Take every package that is marked essential, too.",
        ),
        key(
            "prefer",
            List(&TEXT),
            Optional("[]"),
            "Packages that are taken first where several satisfy a dependency.",
        ),
        key(
            "exclude",
            List(&TEXT),
            Optional("[]"),
            "Packages that are never taken; what depends on them does without.",
        ),
        key(
            "distro",
            TEXT,
            Optional("\"debian\""),
            "Whose packages they are, as package URLs name it; another than Debian names its archives.",
        ),
        key(
            "archive",
            Tables(Set::Archives),
            Optional("Debian's"),
            "Where they come from.",
        ),
        key(
            "fixups",
            Form::Table(&FIXUPS),
            Optional("{}"),
            "With `configure = \"none\"`: what is done in place of scripts.",
        ),
    ],
};

/// `python` sources.
pub(crate) static PYTHON: Keys = Keys {
    name: "a `python` source",
    doc: "Wheels by the project's own lock: nothing is solved and nothing of them is executed.",
    keys: &[
        key(
            "python",
            LocalPath,
            Required,
            "A `uv.lock`, a `pylock.toml`, or requirements with hashes, relative to the spec. Requirements are locked.",
        ),
        key(
            "interpreter",
            TEXT,
            Required,
            "The version of CPython that the root has: `\"3.11\"`, or `\"3.11.2\"` where that matters.",
        ),
        key(
            "libc",
            TEXT,
            Optional("\"glibc-2.28\""),
            "The C library that the root has, or an older one: `\"glibc-2.36\"`, `\"musl-1.2\"`.",
        ),
        key(
            "groups",
            List(&TEXT),
            Optional("[]"),
            "Groups of dependencies that are wanted besides the project's own.",
        ),
        key(
            "extras",
            List(&TEXT),
            Optional("[]"),
            "Extras of the project that are wanted.",
        ),
    ],
};

/// `cargo` sources.
pub(crate) static CARGO: Keys = Keys {
    name: "a `cargo` source",
    doc: "Crates by the project's own lock, laid out as `cargo vendor` lays them.",
    keys: &[key(
        "cargo",
        LocalPath,
        Required,
        "A `Cargo.lock`, relative to the spec.",
    )],
};

/// `[[source.N.archive]]`
pub(crate) static ARCHIVE: Keys = Keys {
    name: "an archive",
    doc: "Suites that are signed and mirrored together.",
    keys: &[
        key("name", Name, Required, "What the lock calls it."),
        key(
            "mirrors",
            List(&TEXT),
            Optional("what this machine's user or apt names"),
            "URLs of its top directory, tried in order; in no id and in no lock.",
        ),
        key(
            "snapshot",
            TEXT,
            Optional("none"),
            "The URL of its top directory as it was at `{timestamp}`, tried last.",
        ),
        key(
            "suites",
            List(&TEXT),
            Required,
            "Its suites, such as `[\"bookworm\", \"bookworm-updates\"]`.",
        ),
        key(
            "components",
            List(&TEXT),
            Optional("[\"main\"]"),
            "Its components.",
        ),
        key(
            "signed-by",
            LocalPath,
            Optional("Debian's own keys"),
            "The keyring whose keys may sign it, a file of this machine.",
        ),
        key(
            "fingerprints",
            List(&TEXT),
            Optional("every key of the keyring"),
            "Only these keys or subkeys of it count.",
        ),
        key(
            "max-age",
            Duration,
            Optional("none"),
            "How old a release may be that does not say how long it is valid, such as `\"240h\"`.",
        ),
    ],
};

/// `[source.N.fixups]`
pub(crate) static FIXUPS: Keys = Keys {
    name: "`fixups`",
    doc: "What is done in place of the packages' scripts.",
    keys: &[
        key(
            "accounts",
            List(&TEXT),
            Optional("[]"),
            "Accounts: `\"www-data\"`, whose numbers `base-passwd` knows, or `\"name:uid:gid\"`.",
        ),
        key(
            "alternatives",
            Strings,
            Optional("{}"),
            "Names of alternatives and the programs they lead to, over those that are known.",
        ),
        key(
            "ca-bundle",
            Boolean,
            Optional("true with the package `ca-certificates`"),
            "Make the bundle of certificates and its links.",
        ),
        key(
            "symlinks",
            Strings,
            Optional("{}"),
            "Symbolic links and their texts.",
        ),
        key("dirs", Tables(Set::Dirs), Optional("[]"), "Directories."),
        key(
            "prune",
            List(&TEXT),
            Optional("[]"),
            "What is left out of packages: `\"docs\"` (never `copyright`), `\"info\"`, `\"locales\"`, `\"man\"`.",
        ),
    ],
};

/// `source.N.fixups.dirs`
pub(crate) static FIXUP_DIR: Keys = Keys {
    name: "a directory of `fixups`",
    doc: "A directory that is to be there.",
    keys: &[
        key("path", ImagePath, Required, "The directory."),
        key("mode", Mode, Optional("\"0755\""), FILE_MODE),
        key("owner", Owner, Optional("\"0:0\""), OWNER_DOC),
    ],
};

const FROM: &str =
    "An image source or a stage to start from: brings its tree and its image config.";
const STEPS: &str = "What is done, in order; each step has exactly one verb.";
const CACHE: &str =
    "Directories kept between builds for speed, mounted in executing steps, never in the tree.";
const STAGE_TIER: &str = "Least guarantee of these steps.";

/// `[stage.N]`
pub(crate) static STAGE: Keys = Keys {
    name: "a stage",
    doc: "A root that others start from or copy from.",
    keys: &[
        key("from", Name, Optional("nothing at all"), FROM),
        key("steps", Tables(Set::Steps), Optional("[]"), STEPS),
        key(
            "env",
            Strings,
            Optional("{}"),
            "Environment of these steps; never shipped.",
        ),
        key("cache", List(&ImagePath), Optional("[]"), CACHE),
        key("tier", TIERS, Optional("the spec's"), STAGE_TIER),
        key(
            "platform",
            Platform,
            Optional("the image's"),
            "Where its programs run, for cross compiling; a constant.",
        ),
    ],
};

/// `[image]`
pub(crate) static IMAGE: Keys = Keys {
    name: "`[image]`",
    doc: "The stage that ships, named `image`.",
    keys: &[
        key("from", Name, Optional("nothing at all"), FROM),
        key("steps", Tables(Set::Steps), Optional("[]"), STEPS),
        key(
            "env",
            Strings,
            Optional("{}"),
            "Environment of the container, never of steps.",
        ),
        key("cache", List(&ImagePath), Optional("[]"), CACHE),
        key("tier", TIERS, Optional("the spec's"), STAGE_TIER),
        key(
            "platforms",
            List(&Platform),
            Optional("[\"linux/amd64\"]"),
            "One: a manifest; several: an index.",
        ),
        key(
            "name",
            TEXT,
            Optional("none"),
            "Where `push` and `load` put it; never in the digest.",
        ),
        key(
            "tags",
            List(&TEXT),
            Optional("[\"latest\"]"),
            "The tags it gets there.",
        ),
        key(
            "layers",
            Choice(&["per-step", "per-package", "single"], &[]),
            Optional("\"per-step\""),
            "How own changes are cut; base layers stay byte for byte.",
        ),
        key(
            "max-layers",
            Integer(100),
            Optional("12"),
            "How many layers packages get, with `\"per-package\"`; the last has what they share.",
        ),
        key(
            "compression",
            Choice(&["zstd", "gzip", "none"], &[]),
            Optional("\"zstd\""),
            "Of own layers.",
        ),
        key(
            "entrypoint",
            List(&TEXT),
            Optional("the base's"),
            "Program and first arguments; setting it drops an inherited `cmd`; `[]` clears.",
        ),
        key(
            "cmd",
            List(&TEXT),
            Optional("the base's"),
            "Further arguments; `[]` clears.",
        ),
        key(
            "user",
            Owner,
            Optional("the base's, else 0:0"),
            "Who runs the container; written as numbers.",
        ),
        key(
            "workdir",
            TEXT,
            Optional("the base's"),
            "Where the container starts, an absolute path; never where steps run.",
        ),
        key(
            "stop-signal",
            TEXT,
            Optional("the base's"),
            "What stops it, such as `SIGTERM`.",
        ),
        key(
            "expose",
            Ports,
            Optional("the base's"),
            "Ports it listens on.",
        ),
        key(
            "labels",
            Strings,
            Optional("{}"),
            "Labels; merged with the base's.",
        ),
        key(
            "annotations",
            Strings,
            Optional("{}"),
            "Annotations of the manifest.",
        ),
    ],
};

/// `[runtime]`
pub(crate) static RUNTIME: Keys = Keys {
    name: "`[runtime]`",
    doc: "What a container of the image may write. It becomes labels, and `immbuild manifest` makes of them what runs it so.",
    keys: &[
        key(
            "readonly",
            Boolean,
            Optional("the base's, else false"),
            "Its root is mounted read-only.",
        ),
        key(
            "writable",
            List(&ImagePath),
            Optional("the base's, else none"),
            "Directories that are writable, and empty when it starts.",
        ),
    ],
};

/// `[[output]]`
pub(crate) static OUTPUT: Keys = Keys {
    name: "an output",
    doc: "A file or directory of this machine that a build writes.",
    keys: &[
        key(
            "kind",
            Choice(
                &[
                    "oci-archive",
                    "docker-archive",
                    "oci-layout",
                    "dir",
                    "function-zip",
                ],
                &[],
            ),
            Required,
            "What is written. Archives and zips want `file`, the others `dir`.",
        ),
        key(
            "file",
            LocalPath,
            Optional("for archives and `function-zip`"),
            "The file, relative to the spec; `function-zip` writes one per platform.",
        ),
        key(
            "dir",
            LocalPath,
            Optional("for `oci-layout` and `dir`"),
            "The directory, relative to the spec; `dir` writes one per platform.",
        ),
        key(
            "root",
            ImagePath,
            Optional("\"/\""),
            "With `function-zip`: the directory of the image that is the root of the zip.",
        ),
    ],
};

const TO: &str = "The full new name of what is copied.";
const FILE_MODE: &str = "Four octal digits.";
const OWNER_DOC: &str = "`\"name\"`, `\"name:group\"`, `\"uid:gid\"`, or `\"n\"` for both.";
const IN: &str = "Where it runs; must exist.";
const STEP_ENV: &str = "Its own environment, over the stage's.";
const AS: &str = "Who runs it.";
const SECRETS: &str = "Names of secrets it gets as files `/run/secrets/NAME`, given by `--secret`.";
const TIMEOUT: &str = "How long it may take, such as `\"90s\"` or `\"30m\"`.";
const STEP_TIER: &str = "Least guarantee of this step.";
const METADATA: &str = "What it sees of file times, inode numbers and the order of directories: `\"clamp\"` shows the file system's own, for steps that ask about very many files. Not with tier `\"isolated\"`.";

/// `copy`
pub(crate) static COPY: Keys = Keys {
    name: "a `copy` step",
    doc: "What you name becomes `to`: a file becomes that file, a directory that directory, merged into one that is there.",
    keys: &[
        key(
            "copy",
            Reference,
            Required,
            "`\"name\"` or `\"name:path\"`: a source or stage, and a path in it.",
        ),
        key("to", ImagePath, Required, TO),
        key("include", List(&TEXT), Optional("[]"), INCLUDE),
        key("exclude", List(&TEXT), Optional("[]"), EXCLUDE),
        key(
            "mode",
            Mode,
            Optional("their own"),
            "Mode of regular files: four octal digits.",
        ),
        key(
            "dir-mode",
            Mode,
            Optional("their own"),
            "Mode of directories: four octal digits.",
        ),
        key(
            "owner",
            Owner,
            Optional("their own"),
            "Owner of all that is copied: `\"name\"`, `\"name:group\"`, `\"uid:gid\"`, or `\"n\"` for both.",
        ),
    ],
};

/// `write`
pub(crate) static WRITE: Keys = Keys {
    name: "a `write` step",
    doc: "A file with this text; replaces a file or link.",
    keys: &[
        key("write", ImagePath, Required, "The file."),
        key(
            "text",
            Text(Substituted::No),
            Required,
            "Its text; `${…}` is put in only with `expand = true`.",
        ),
        key("mode", Mode, Optional("\"0644\""), FILE_MODE),
        key("owner", Owner, Optional("\"0:0\""), OWNER_DOC),
        key(
            "expand",
            Boolean,
            Optional("false"),
            "Put `${…}` into `text`.",
        ),
    ],
};

/// `run`
pub(crate) static RUN: Keys = Keys {
    name: "a `run` step",
    doc: "One process, no shell.",
    keys: &[
        key(
            "run",
            Words,
            Required,
            "Program and arguments; a program without `/` is found by `PATH`.",
        ),
        key("in", ImagePath, Optional("\"/\""), IN),
        key("env", Strings, Optional("{}"), STEP_ENV),
        key("as", Owner, Optional("\"0:0\""), AS),
        key("secrets", List(&TEXT), Optional("[]"), SECRETS),
        key("tier", TIERS, Optional("the stage's"), STEP_TIER),
        key("timeout", Duration, Optional("none"), TIMEOUT),
        key(
            "metadata",
            Choice(&["virtual", "clamp"], &[]),
            Optional("\"virtual\""),
            METADATA,
        ),
    ],
};

/// `shell`
pub(crate) static SHELL: Keys = Keys {
    name: "a `shell` step",
    doc: "A script for `/bin/sh -eu -c`.",
    keys: &[
        key(
            "shell",
            Text(Substituted::No),
            Required,
            "The script; it gets values by `env`, never by `${…}`.",
        ),
        key("in", ImagePath, Optional("\"/\""), IN),
        key("env", Strings, Optional("{}"), STEP_ENV),
        key("as", Owner, Optional("\"0:0\""), AS),
        key("secrets", List(&TEXT), Optional("[]"), SECRETS),
        key("tier", TIERS, Optional("the stage's"), STEP_TIER),
        key("timeout", Duration, Optional("none"), TIMEOUT),
        key(
            "metadata",
            Choice(&["virtual", "clamp"], &[]),
            Optional("\"virtual\""),
            METADATA,
        ),
    ],
};

/// `mkdir`
pub(crate) static MKDIR: Keys = Keys {
    name: "a `mkdir` step",
    doc: "A directory with its parents; on an existing directory sets what is given.",
    keys: &[
        key("mkdir", ImagePath, Required, "The directory."),
        key("mode", Mode, Optional("\"0755\""), FILE_MODE),
        key("owner", Owner, Optional("\"0:0\""), OWNER_DOC),
    ],
};

/// `link`
pub(crate) static LINK: Keys = Keys {
    name: "a `link` step",
    doc: "A symbolic link; replaces a file or link.",
    keys: &[
        key("link", ImagePath, Required, "The link."),
        key("to", TEXT, Required, "Its text, taken as it is."),
    ],
};

/// `remove`
pub(crate) static REMOVE: Keys = Keys {
    name: "a `remove` step",
    doc: "Removes a file, link or whole directory; nothing there is an error.",
    keys: &[key("remove", ImagePath, Required, "What goes.")],
};

/// `user`
pub(crate) static USER: Keys = Keys {
    name: "a `user` step",
    doc: "Account lines in `/etc/passwd` and `/etc/group`.",
    keys: &[
        key("user", TEXT, Required, "The account's name."),
        key("uid", Integer(IDS), Required, "Its number."),
        key(
            "gid",
            Integer(IDS),
            Optional("the uid"),
            "The number of its own group.",
        ),
        key(
            "home",
            ImagePath,
            Optional("\"/nonexistent\""),
            "Its home; one that is given is made and owned by it.",
        ),
        key(
            "login",
            ImagePath,
            Optional("\"/usr/sbin/nologin\""),
            "Its login shell.",
        ),
        key(
            "groups",
            List(&TEXT),
            Optional("[]"),
            "Further groups it is in.",
        ),
    ],
};

/// `install`
pub(crate) static INSTALL: Keys = Keys {
    name: "an `install` step",
    doc: "Packages onto this root, or libraries into a directory of it.",
    keys: &[
        key(
            "install",
            Name,
            Required,
            "The name of a `debian`, `python` or `cargo` source.",
        ),
        key(
            "to",
            ImagePath,
            Optional("none"),
            "With a `python` or `cargo` source, and only there: the directory that becomes a virtual environment, or holds the crates.",
        ),
    ],
};

/// `unpack`
pub(crate) static UNPACK: Keys = Keys {
    name: "an `unpack` step",
    doc: "A tar or zip, plain or compressed, known by its content, into a directory.",
    keys: &[
        key(
            "unpack",
            Reference,
            Required,
            "`\"name\"` or `\"name:path\"`: the archive.",
        ),
        key("to", ImagePath, Required, "The directory."),
        key(
            "strip",
            Integer(64),
            Optional("0"),
            "How many leading names of every path are taken off.",
        ),
        key("preserve", Boolean, Optional("false"), PRESERVE),
    ],
};

/// Every closed set, in the order a reader wants them.
pub(crate) fn all() -> impl Iterator<Item = &'static Keys> {
    let members = |set: Set| set.members().iter().copied();
    [&TOP]
        .into_iter()
        .chain(members(Set::Sources))
        .chain([&ARCHIVE, &FIXUPS, &FIXUP_DIR])
        .chain(members(Set::Stages))
        .chain([&IMAGE, &RUNTIME])
        .chain(members(Set::Steps))
        .chain(members(Set::Outputs))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_key_of_this_version_is_described_and_there_once() {
        for keys in all() {
            let mut names = BTreeSet::new();
            for key in keys.keys {
                assert!(names.insert(key.name), "{}: {} twice", keys.name, key.name);
                let later = matches!(key.need, Need::Later(_));
                assert_eq!(
                    key.doc.ends_with('.'),
                    !later,
                    "{}: {}",
                    keys.name,
                    key.name
                );
            }
            assert!(keys.doc.ends_with('.'), "{}", keys.name);
        }
    }

    #[test]
    fn a_choosing_key_belongs_to_one_of_its_set() {
        for set in [Set::Sources, Set::Steps] {
            for keys in set.members() {
                let name = keys.choosing().name;
                let with = set.members().iter().filter(|it| it.get(name).is_some());
                assert_eq!(with.count(), 1, "{name}");
            }
        }
    }
}
