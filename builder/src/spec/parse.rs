//! A document as a spec: every table read into its typed value.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use immbuild_cas::path::RelPath;
use immbuild_cas::tree::Mode;

use super::debian;
use super::document::{Data, Entry, Table};
use super::fields::{Fields, Reader, Text, list};
use super::image_name::{ImageName, ImageNameError};
use super::keys::{
    COPY, Form, IMAGE, INSTALL, Keys, LINK, MKDIR, OUTPUT, REMOVE, RUN, RUNTIME, SHELL, STAGE, Set,
    TOP, UNPACK, USER, WRITE,
};
use super::libraries;
use super::model::{
    Base, Command, Compression, Config, Copy, GitSource, HttpSource, Ident, Image, ImageSource,
    Install, Layers, Link, Metadata, Mkdir, Origin, Output, OutputKind, Owner, PathSource,
    Reference, Remove, Repository, Resolved, Run, Source, SourceKind, Stage, Step, Tier, Unpack,
    Unpacking, User, Verb, Write,
};
use super::runtime;
use super::substitute::Variables;
use super::validate::{self, Use};
use super::value::{self, Complaint, Fix};
use crate::diag::{Diagnostic, Place, SourceFile, Span, nearest};
use crate::epoch::FormatVersion;
use crate::platform::Platform;

/// How many layers the packages of one source get at most, where nothing is said. Part of format 1: changing it changes image
/// bytes.
const MAX_LAYERS: u32 = 12;

/// `[args]` with what was said on the command line.
pub(super) fn arguments(document: &Table) -> BTreeMap<String, String> {
    let Some(Data::Table(table)) = document.get("args").map(|entry| &entry.value.data) else {
        return BTreeMap::new();
    };
    let strings = table
        .entries
        .iter()
        .filter_map(|entry| match &entry.value.data {
            Data::String(text) => Some((entry.key.clone(), text.clone())),
            _ => None,
        });
    strings.collect()
}

/// `image.platforms`, as far as they can be read; never empty.
pub(super) fn platforms(file: &Arc<SourceFile>, document: &Table) -> Vec<Platform> {
    let default = || vec!["linux/amd64".parse().expect("a known platform")];
    let Some(Data::Table(table)) = document.get("image").map(|entry| &entry.value.data) else {
        return default();
    };
    let nothing = Variables::new(default()[0], &BTreeMap::new());
    let mut reader = Reader::new(file, &nothing);
    let read = reader.open(&IMAGE, None, table).platforms("platforms");
    let platforms: Vec<Platform> = read.into_iter().flatten().map(|(it, _)| it).collect();
    if platforms.is_empty() {
        default()
    } else {
        platforms
    }
}

/// What can be said of a file before it is read as a spec: is it one at all, and if so, is `immbuild` its first key?
///
/// # Errors
/// It is none of this version: there is no point in reading on.
pub(super) fn check_kind(
    file: &Arc<SourceFile>,
    document: &Table,
) -> Result<Option<Diagnostic>, Diagnostic> {
    let place = |span| Place {
        file: Arc::clone(file),
        span,
    };
    let Some(first) = document
        .entries
        .iter()
        .min_by_key(|entry| entry.key_span.start)
    else {
        return Err(Diagnostic::error("this spec is empty")
            .at(place(Span::default()))
            .hint("`immbuild init` writes one; its first line is `immbuild = 1`"));
    };
    if let Some(lock) = document.get("lock")
        && document.get("immbuild").is_none()
    {
        return Err(Diagnostic::error("this is a lock, not a spec")
            .at(place(lock.key_span))
            .hint("give the spec beside it: the same name ending in `.toml`"));
    }
    let Some(version) = document.get("immbuild") else {
        return Err(Diagnostic::error("a spec begins with `immbuild = 1`")
            .at(place(first.key_span))
            .hint("add `immbuild = 1` as the first line"));
    };
    match version.value.data {
        Data::Integer(Some(1)) => {}
        Data::Integer(_) => {
            let number = file.slice(version.value.span);
            let message = format!("format version {number} is not known to this version");
            return Err(Diagnostic::error(message)
                .at(place(version.value.span))
                .hint("this version reads `immbuild = 1`; a newer one may read more"));
        }
        _ => {
            return Err(Diagnostic::error("`immbuild` must be the number 1")
                .at(place(version.value.span))
                .hint("write `immbuild = 1`"));
        }
    }
    Ok((first.key != "immbuild").then(|| {
        Diagnostic::error("`immbuild` is not the first key")
            .at(place(version.key_span))
            .hint("move `immbuild = 1` to the first line")
    }))
}

/// What each name stands for, known before anything that refers to it is read.
struct Names<'t> {
    sources: BTreeMap<&'t str, Shape>,
    stages: BTreeSet<&'t str>,
}

/// What a source is when referred to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// A file or a directory: only the file system knows.
    Local,
    /// Always one file.
    File,
    /// Always a directory.
    Directory,
    /// An image: a directory, and something to start from.
    Image,
    /// Packages: something to start from.
    Packages,
    /// Libraries of a language.
    Libraries,
    /// Something that has already been complained about.
    Unknown,
}

/// Reads all of it for one platform.
pub(super) fn read(
    file: &Arc<SourceFile>,
    document: &Table,
    platform: Platform,
    arguments: &BTreeMap<String, String>,
) -> (Option<Resolved>, Vec<Diagnostic>) {
    let variables = Variables::new(platform, arguments);
    let mut reader = Reader::new(file, &variables);
    let resolved = read_top(&mut reader, document, platform);
    (resolved, reader.into_diagnostics())
}

fn read_top(reader: &mut Reader<'_>, document: &Table, platform: Platform) -> Option<Resolved> {
    let mut top = reader.open(&TOP, None, document);
    top.raw("immbuild", Form::Version);
    let epoch = top.epoch("epoch");
    let tier = top.tier("tier");
    let arguments = top.literals("args");
    let sources = top.named("source");
    let stages = top.named("stage");
    let outputs = top.tables("output");
    let image = top.raw("image", Form::Table(&IMAGE));
    let runtime = top.raw("runtime", Form::Table(&RUNTIME));
    top.finish();

    for (entry, text) in &arguments {
        check_argument(reader, entry, text);
    }
    let names = names(reader, &sources, &stages);
    let sources: Vec<Option<Source>> = sources
        .iter()
        .map(|(entry, table)| read_source(reader, entry, table))
        .collect();
    let mut scope = Scope {
        reader,
        names: &names,
        tier,
        platform,
        uses: Vec::new(),
        caches: BTreeMap::new(),
    };
    let stages: Vec<Option<Stage>> = stages
        .iter()
        .map(|(entry, table)| scope.stage(entry, table))
        .collect();
    let image = image.and_then(|value| match &value.data {
        Data::Table(table) => scope.image(table),
        data => {
            let message = format!("`image` must be a table, found {}", data.kind());
            scope.reader.error(value.span, message, "write `[image]`");
            None
        }
    });
    let Scope { uses, caches, .. } = scope;
    let runtime = runtime::read(reader, runtime);
    validate::cycles(reader, &uses);
    validate::caches(reader, &uses, &caches);
    let outputs: Vec<Option<Output>> = outputs
        .into_iter()
        .map(|table| read_output(reader, table))
        .collect();
    validate::outputs(reader, outputs.iter().flatten());

    let (stage, image) = image?;
    let sources: Option<Vec<Source>> = sources.into_iter().collect();
    let stages: Option<Vec<Stage>> = stages.into_iter().chain([Some(stage)]).collect();
    Some(Resolved {
        format: FormatVersion::V1,
        platform,
        epoch,
        tier: tier.unwrap_or_default(),
        sources: sources?
            .into_iter()
            .map(|it| (it.name.clone(), it))
            .collect(),
        stages: stages?
            .into_iter()
            .map(|it| (it.name.clone(), it))
            .collect(),
        image,
        runtime,
        outputs: outputs.into_iter().collect::<Option<_>>()?,
    })
}

fn check_argument(reader: &mut Reader<'_>, entry: &Entry, text: &str) {
    let name = entry.key.as_str();
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if Variables::OF_PLATFORM.contains(&name) {
        let error = Diagnostic::error(format!("`{name}` is a variable of the platform"))
            .hint("give the argument another name");
        reader.report(entry.key_span, error);
    } else if name.is_empty() || !name.bytes().all(letter) {
        let error = Diagnostic::error(format!(
            "`{}` is not a name for an argument",
            name.escape_debug()
        ))
        .hint("use letters, digits, `-` and `_`");
        reader.report(entry.key_span, error);
    } else if TOP.get(name).is_some() {
        let warning = Diagnostic::warning(format!("`{name}` is an argument here"))
            .hint("if the key of the top level is meant, move it above the first table");
        reader.report(entry.key_span, warning);
    }
    reader.warn_if_quoted(
        text,
        entry.value.span,
        "the default of an argument",
        "put both into the value that uses them",
    );
}

/// All names, each complained about that cannot be one.
fn names<'t>(
    reader: &mut Reader<'_>,
    sources: &[(&'t Entry, &'t Table)],
    stages: &[(&'t Entry, &'t Table)],
) -> Names<'t> {
    for (entry, _) in sources.iter().chain(stages) {
        let name = entry.key.as_str();
        if name == Ident::IMAGE {
            let error = Diagnostic::error("the name `image` is taken by `[image]`")
                .hint("give it another name");
            reader.report(entry.key_span, error);
        } else if Ident::new(name).is_none() {
            let error = Diagnostic::error(format!("`{}` is not a name", name.escape_debug()))
                .because("a name is a lower-case letter, then lower-case letters, digits and `-`");
            let better = better_name(name);
            reader.report(
                entry.key_span,
                match better {
                    Some(better) => error.hint(format!("write `{better}`")),
                    None => error,
                },
            );
        }
    }
    let stage_names: BTreeSet<&str> = stages.iter().map(|(entry, _)| entry.key.as_str()).collect();
    for (entry, _) in sources {
        if stage_names.contains(entry.key.as_str()) {
            let error = Diagnostic::error(format!("`{}` is a source and a stage", entry.key))
                .because("sources and stages share one set of names")
                .hint("give one of them another name");
            reader.report(entry.key_span, error);
        }
    }
    let form = |table: &Table| {
        let member = Set::Sources
            .members()
            .iter()
            .find(|keys| table.get(keys.choosing().name).is_some());
        let unpacked = matches!(
            table.get("unpack").map(|entry| &entry.value.data),
            Some(Data::Boolean(true))
        );
        match member.map(|keys| keys.choosing().name) {
            Some("path") => Shape::Local,
            Some("http") if !unpacked => Shape::File,
            Some("http" | "git") => Shape::Directory,
            Some("image") => Shape::Image,
            Some("debian") => Shape::Packages,
            Some("python" | "cargo") => Shape::Libraries,
            _ => Shape::Unknown,
        }
    };
    Names {
        sources: sources
            .iter()
            .map(|(entry, table)| (entry.key.as_str(), form(table)))
            .collect(),
        stages: stage_names.into_iter().chain([Ident::IMAGE]).collect(),
    }
}

/// The name with capitals made small and everything else that cannot be in one made `-`.
fn better_name(name: &str) -> Option<String> {
    let better: String = name
        .chars()
        .map(|c| match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9') => c,
            _ => '-',
        })
        .collect();
    let better = better.trim_matches('-');
    (better != Ident::IMAGE && Ident::new(better).is_some()).then(|| better.to_owned())
}

/// The one member of a set whose choosing key a table has. Everything else has been complained about.
fn choose(
    reader: &mut Reader<'_>,
    set: Set,
    what: &str,
    key: &str,
    table: &Table,
) -> Option<&'static Keys> {
    let members = set.members().iter().copied();
    let found: Vec<&Keys> = members
        .filter(|keys| table.get(keys.choosing().name).is_some())
        .collect();
    let names = |keys: &[&Keys]| {
        list(
            &keys
                .iter()
                .map(|keys| keys.choosing().name)
                .collect::<Vec<_>>(),
        )
    };
    match found.as_slice() {
        [keys] => return Some(keys),
        [] => {
            let known: Vec<&str> = set
                .members()
                .iter()
                .map(|keys| keys.choosing().name)
                .collect();
            // A slip of the choosing key itself reads best as one.
            let slip = table
                .entries
                .iter()
                .find_map(|entry| Some((entry, nearest(&entry.key, known.iter().copied())?)));
            match slip {
                Some((entry, near)) => reader.error(
                    entry.key_span,
                    format!("`{}` is not a {key}", entry.key.escape_debug()),
                    format!("did you mean `{near}`?"),
                ),
                None => reader.error(
                    table.span,
                    format!("{what} has no {key}"),
                    format!("give it one of {}", list(&known)),
                ),
            }
        }
        [first, .., last] => {
            let second = table
                .get(last.choosing().name)
                .map_or(table.span, |it| it.key_span);
            let hint = match (first.choosing().name, last.choosing().name) {
                ("run" | "shell", "user") => "to say who runs it write `as`".to_owned(),
                _ if set == Set::Steps => "make each a step of its own".to_owned(),
                _ => "keep one of them".to_owned(),
            };
            reader.error(
                second,
                format!(
                    "{what} has exactly one {key}, this one has {}",
                    names(&found)
                ),
                hint,
            );
        }
    }
    None
}

fn read_source(reader: &mut Reader<'_>, entry: &Entry, table: &Table) -> Option<Source> {
    let keys = choose(reader, Set::Sources, "a source", "kind", table)?;
    reader.take_platform_used();
    let span = table
        .get(keys.choosing().name)
        .map_or(table.span, |entry| entry.value.span);
    let mut fields = reader.open(keys, Some(Set::Sources), table);
    let kind = match keys.choosing().name {
        "path" => read_path(&mut fields).map(SourceKind::Path),
        "git" => read_git(&mut fields).map(SourceKind::Git),
        "http" => read_http(&mut fields).map(SourceKind::Http),
        "debian" => debian::read(&mut fields).map(SourceKind::Debian),
        "python" => libraries::read_python(&mut fields).map(SourceKind::Python),
        "cargo" => libraries::read_cargo(&mut fields).map(SourceKind::Cargo),
        _ => read_image_source(&mut fields).map(SourceKind::Image),
    };
    fields.finish();
    let per_platform = reader.take_platform_used();
    Some(Source {
        name: Ident::new(&entry.key)?,
        span,
        kind: kind?,
        per_platform,
    })
}

fn read_path(fields: &mut Fields<'_, '_, '_>) -> Option<PathSource> {
    let path = fields.local_path("path");
    let include = fields.list("include").unwrap_or_default();
    let exclude = fields.list("exclude").unwrap_or_default();
    let ignore = fields.list("ignore");
    let preserve = fields.boolean("preserve").unwrap_or(false);
    Some(PathSource {
        path: path?.value,
        include,
        exclude,
        ignore: ignore.unwrap_or_else(|| vec![".immignore".into()]),
        preserve,
    })
}

fn read_git(fields: &mut Fields<'_, '_, '_>) -> Option<GitSource> {
    let repository = fields.text("git");
    let rev = fields.text("rev");
    let subdir = fields.text("subdir");
    let submodules = fields.boolean("submodules").unwrap_or(false);
    let subdir = match subdir {
        None => RelPath::root(),
        Some(text) => match value::source_path(&text.value) {
            Ok(path) => path,
            Err(complaint) => {
                fields.reader.complain(Some("subdir"), &text, complaint);
                return None;
            }
        },
    };
    let repository = repository?.value;
    Some(GitSource {
        repository: if is_url(&repository) {
            Repository::Remote(repository)
        } else {
            Repository::Local(repository)
        },
        rev: rev.map(|text| text.value),
        subdir,
        submodules,
    })
}

/// Is this a URL, or what git reads as one (`git@host:path`)? A local path with a colon is written `./a:b`.
fn is_url(repository: &str) -> bool {
    match repository.split_once(':') {
        None => false,
        Some((before, _)) => !before.contains('/'),
    }
}

fn read_http(fields: &mut Fields<'_, '_, '_>) -> Option<HttpSource> {
    let url = fields.text("http");
    let mirrors = fields.texts("mirrors").unwrap_or_default();
    let sha256 = fields.sha256("sha256");
    let unpack = fields.boolean("unpack").unwrap_or(false);
    let strip = fields.integer("strip");
    let preserve = fields.boolean("preserve");
    for text in url.iter().chain(&mirrors) {
        let scheme = text.value.split_once("://").map(|(scheme, _)| scheme);
        if !matches!(scheme, Some("https" | "http" | "file")) {
            fields.reader.error(
                text.span,
                format!("`{}` is not a URL this source can read", text.value.escape_debug()),
                "it begins with `https://`, `http://` or `file://`; a file of this machine is a `path` source",
            );
        }
    }
    for key in ["strip", "preserve"] {
        if !unpack && fields.has(key) {
            let span = fields.span(key);
            fields.reader.error(
                span,
                format!("`{key}` without `unpack` does nothing"),
                "add `unpack = true`",
            );
        }
    }
    Some(HttpSource {
        url: url?.value,
        mirrors: mirrors.into_iter().map(|text| text.value).collect(),
        sha256,
        unpack: unpack.then(|| Unpacking {
            strip: strip.unwrap_or(0),
            preserve: preserve.unwrap_or(false),
        }),
    })
}

fn read_image_source(fields: &mut Fields<'_, '_, '_>) -> Option<ImageSource> {
    let place = fields.local_path("image");
    let tag = fields.text("tag");
    let place = place?;
    if ["./", "../", "/"]
        .iter()
        .any(|start| place.value.starts_with(start))
    {
        return Some(ImageSource::Local {
            path: place.value,
            tag: tag.map(|text| text.value),
        });
    }
    if let Some(tag) = tag {
        let error = Diagnostic::error("`tag` is for a layout or archive of this machine")
            .hint("leave it out: of an image in a registry the name says the tag");
        fields.reader.report(tag.span, error);
        return None;
    }
    match place.value.parse::<ImageName>() {
        Ok(reference) => Some(ImageSource::Registry(reference)),
        Err(error) => {
            let shown = place.value.escape_debug();
            let diagnostic = Diagnostic::error(format!("`{shown}` is not the name of an image"))
                .because(error.to_string())
                .hint(image_hint(&place.value, &error));
            fields.reader.report(place.span, diagnostic);
            None
        }
    }
}

/// What to write instead.
fn image_hint(text: &str, error: &ImageNameError) -> String {
    match error {
        ImageNameError::NoHost if !text.contains(['/', '@']) => format!(
            "write the full name, `image = \"docker.io/library/{text}\"`, or a layout of this machine, `image = \"./{text}\"`"
        ),
        ImageNameError::NoHost => format!(
            "write the full name, such as `image = \"registry.example.com/{text}\"`, or a layout of this machine, `image = \"./{text}\"`"
        ),
        ImageNameError::Unnamed => {
            format!("say which: `image = \"{text}:TAG\"` or `image = \"{text}@sha256:…\"`")
        }
        _ => "it is `HOST/PATH:TAG` or `HOST/PATH@sha256:…`, the path in lower-case letters, digits, `.`, `_` and `-`".into(),
    }
}

/// What a name is written for.
#[derive(Clone, Copy)]
enum Wanted {
    Base,
    Files,
    Install,
}

impl Wanted {
    /// What to write where something was written that is no name, but would do elsewhere.
    fn instead_of(self, name: &str) -> Option<&'static str> {
        match self {
            // As in a Dockerfile.
            Self::Base if name.contains([':', '@', '/', '.']) => Some(
                "declare an image as a source, `[source.NAME]` with `image = \"HOST/REPOSITORY:TAG\"`, and write `NAME` here",
            ),
            Self::Files if name.contains(['/', '.']) => Some(
                "write `\"name:path\"`, where `name` is a source or stage; declare a file of this machine as `[source.NAME]`",
            ),
            _ => None,
        }
    }
}

/// What a stage is read with.
struct Scope<'s, 'a> {
    reader: &'s mut Reader<'a>,
    names: &'s Names<'s>,
    /// The spec's.
    tier: Option<Tier>,
    platform: Platform,
    /// Which stage uses what.
    uses: Vec<Use>,
    /// The caches of each stage.
    caches: BTreeMap<String, Vec<RelPath>>,
}

impl Scope<'_, '_> {
    fn stage(&mut self, entry: &Entry, table: &Table) -> Option<Stage> {
        let mut fields = self.reader.open(&STAGE, None, table);
        let from = fields.literal("from");
        let env = fields.strings("env");
        let cache = fields.image_paths("cache").unwrap_or_default();
        let tier = fields.tier("tier");
        let platform = fields.platforms("platform");
        let steps = fields.tables("steps");
        fields.finish();
        self.body(
            &entry.key,
            table.span,
            from,
            env,
            cache,
            tier,
            platform.and_then(|it| it.first().map(|(platform, _)| *platform)),
            &steps,
        )
    }

    /// What a stage and the image have in common.
    #[expect(clippy::too_many_arguments, reason = "the keys of a stage, once")]
    fn body(
        &mut self,
        name: &str,
        span: Span,
        from: Option<Text>,
        env: BTreeMap<String, Text>,
        cache: Vec<(RelPath, Span)>,
        tier: Option<Tier>,
        platform: Option<Platform>,
        steps: &[&Table],
    ) -> Option<Stage> {
        self.check_env(&env);
        let from = from.map(|text| self.base(name, &text));
        let cache = self.cache(cache);
        self.caches.insert(name.to_owned(), cache.clone());
        let env: BTreeMap<String, String> = env
            .into_iter()
            .map(|(key, text)| (key, text.value))
            .collect();
        let tier = tier.or(self.tier);
        let steps: Vec<Option<Step>> = steps
            .iter()
            .map(|table| self.step(name, table, tier, &env))
            .collect();
        Some(Stage {
            name: Ident::new(name)?,
            span,
            from: match from {
                None => None,
                Some(base) => Some(base?),
            },
            steps: steps.into_iter().collect::<Option<_>>()?,
            env,
            cache,
            platform: platform.unwrap_or(self.platform),
        })
    }

    fn check_env(&mut self, env: &BTreeMap<String, Text>) {
        for (key, text) in env {
            if key.is_empty() || key.contains(['=', '\0']) || text.value.contains('\0') {
                self.reader.report(
                    text.span,
                    Diagnostic::error(format!(
                        "`{}` cannot be set in an environment",
                        key.escape_debug()
                    ))
                    .because("a name has no `=`, and neither name nor value has a NUL"),
                );
            }
        }
    }

    fn base(&mut self, stage: &str, text: &Text) -> Option<Base> {
        let origin = self.origin(text, Wanted::Base)?;
        self.uses.push(Use {
            by: stage.to_owned(),
            of: origin.name().to_string(),
            path: None,
            span: text.span,
        });
        if let Origin::Source(name) = &origin {
            match self.names.sources.get(name.as_str()) {
                Some(Shape::Image | Shape::Packages) => {}
                // Complained about where it is declared.
                Some(Shape::Unknown) | None => return None,
                Some(Shape::Libraries) => {
                    self.reader.report(
                        text.span,
                        Diagnostic::error(format!("`{name}` is not something to start from"))
                            .because("`from` takes an image or `debian` source or a stage")
                            .hint(format!(
                                "start from what uses them, and write a step: `{{ install = \"{name}\", to = \"/…\" }}`"
                            )),
                    );
                    return None;
                }
                Some(Shape::Local | Shape::File | Shape::Directory) => {
                    self.reader.report(
                        text.span,
                        Diagnostic::error(format!("`{name}` is not something to start from"))
                            .because("`from` takes an image or `debian` source or a stage")
                            .hint(format!(
                                "leave `from` out and copy it: `{{ copy = \"{name}\", to = \"/…\" }}`"
                            )),
                    );
                    return None;
                }
            }
        }
        Some(Base {
            origin,
            span: text.span,
        })
    }

    /// The source or stage of this name.
    fn origin(&mut self, text: &Text, wanted: Wanted) -> Option<Origin> {
        let name = text.value.as_str();
        if let Some(ident) = Ident::new(name) {
            if self.names.sources.contains_key(name) {
                return Some(Origin::Source(ident));
            }
            if self.names.stages.contains(name) {
                return Some(Origin::Stage(ident));
            }
        }
        let known = || {
            let stages = self.names.stages.iter();
            self.names.sources.keys().chain(stages).copied()
        };
        let hint = if let Some(near) = nearest(name, known()) {
            format!("did you mean `{near}`?")
        } else if let Some(instead) = wanted.instead_of(name) {
            instead.to_owned()
        } else if Ident::new(name).is_some() {
            format!("declare `[source.{name}]` or `[stage.{name}]`")
        } else {
            let names: Vec<&str> = known().collect();
            format!("the names are {}", list(&names))
        };
        let message = if name.is_empty() {
            "the name of a source or stage is missing".to_owned()
        } else {
            format!("no source or stage is named `{}`", name.escape_debug())
        };
        let error = self.reader.not_put_in(name, Diagnostic::error(message));
        self.reader.report(text.span, error.hint(hint));
        None
    }

    /// Sorted, none of them the root or below another.
    fn cache(&mut self, paths: Vec<(RelPath, Span)>) -> Vec<RelPath> {
        let mut cache: Vec<RelPath> = Vec::new();
        for (path, span) in paths {
            if path.is_root() {
                self.reader.error(
                    span,
                    "the root cannot be a cache",
                    "name the directory that is worth keeping",
                );
            } else if let Some(other) = cache
                .iter()
                .find(|other| path.starts_with(other) || other.starts_with(&path))
            {
                let error = Diagnostic::error(format!("the caches `{other}` and `{path}` overlap"))
                    .hint("keep the outer one");
                self.reader.report(span, error);
            } else {
                cache.push(path);
            }
        }
        cache.sort();
        cache
    }

    fn step(
        &mut self,
        stage: &str,
        table: &Table,
        tier: Option<Tier>,
        env: &BTreeMap<String, String>,
    ) -> Option<Step> {
        let keys = choose(self.reader, Set::Steps, "a step", "verb", table)?;
        let verb = match keys.choosing().name {
            "copy" => self.copy(stage, table).map(Verb::Copy),
            "write" => self.write(table).map(Verb::Write),
            "install" => self.install(stage, table, tier).map(Verb::Install),
            "run" => self.run(&RUN, table, tier, env).map(Verb::Run),
            "shell" => self.run(&SHELL, table, tier, env).map(Verb::Run),
            "mkdir" => self.mkdir(table).map(Verb::Mkdir),
            "link" => self.link(table).map(Verb::Link),
            "remove" => self.remove(table).map(Verb::Remove),
            "user" => self.user(table).map(Verb::User),
            _ => self.unpack(stage, table).map(Verb::Unpack),
        };
        Some(Step {
            span: table.span,
            verb: verb?,
        })
    }

    /// `"name"` or `"name:path"`, and whether a path was said.
    fn reference(
        &mut self,
        stage: &str,
        name: &Text,
        path: Option<&Text>,
        verb: &str,
    ) -> Option<(Reference, bool)> {
        let path = match path {
            None => None,
            Some(text) => match value::source_path(&text.value) {
                Ok(path) if path.is_root() => {
                    self.reader.error(
                        text.span,
                        "there is no path after `:`",
                        format!("write `{verb} = \"{}\"`", name.value),
                    );
                    return None;
                }
                Ok(path) => Some(path),
                Err(complaint) => {
                    let fix = match complaint.fix {
                        Fix::Write(path) if path.is_empty() => Fix::Write(name.value.clone()),
                        Fix::Write(path) => Fix::Write(format!("{}:{path}", name.value)),
                        fix => fix,
                    };
                    let complaint = Complaint { fix, ..complaint };
                    self.reader.complain(Some(verb), text, complaint);
                    return None;
                }
            },
        };
        let origin = self.origin(name, Wanted::Files)?;
        self.uses.push(Use {
            by: stage.to_owned(),
            of: origin.name().to_string(),
            path: Some(path.clone().unwrap_or_default()),
            span: name.span,
        });
        let form = match &origin {
            Origin::Source(name) => *self.names.sources.get(name.as_str())?,
            Origin::Stage(_) => Shape::Directory,
        };
        if let (Shape::File, Some(path)) = (form, &path) {
            self.reader.report(
                name.span,
                Diagnostic::error(format!("there is no `{path}` in `{}`", name.value))
                    .because("an `http` source without `unpack` is one file")
                    .hint(format!("write `{verb} = \"{}\"` for the file, or add `unpack = true` to the source", name.value)),
            );
            return None;
        }
        if form == Shape::Libraries {
            self.reader.report(
                name.span,
                Diagnostic::error(format!(
                    "`{}` is libraries, which `{verb}` cannot read",
                    name.value
                ))
                .hint(format!(
                    "write `{{ install = \"{}\", to = \"/…\" }}`",
                    name.value
                )),
            );
            return None;
        }
        if form == Shape::Packages {
            self.reader.report(
                name.span,
                Diagnostic::error(format!(
                    "`{}` is packages, which `{verb}` cannot read",
                    name.value
                ))
                .hint(format!(
                    "make a root of them, and read that: `[stage.NAME]` with `from = \"{}\"`",
                    name.value
                )),
            );
            return None;
        }
        let whole_directory = path.is_none() && matches!(form, Shape::Directory | Shape::Image);
        let reference = Reference {
            origin,
            path: path.unwrap_or_default(),
            span: name.span,
        };
        Some((reference, whole_directory))
    }

    fn copy(&mut self, stage: &str, table: &Table) -> Option<Copy> {
        let mut fields = self.reader.open(&COPY, Some(Set::Steps), table);
        let from = fields.reference("copy");
        let to = fields.full_name("to", from.as_ref().and_then(|(_, path)| path.as_ref()));
        let include = fields.list("include").unwrap_or_default();
        let exclude = fields.list("exclude").unwrap_or_default();
        let mode = fields.mode("mode");
        let dir_mode = fields.mode("dir-mode");
        let owner = fields.owner("owner");
        fields.finish();
        let (name, path) = from?;
        let (from, _) = self.reference(stage, &name, path.as_ref(), "copy")?;
        let (to, to_span) = to?;
        Some(Copy {
            from,
            to,
            to_span,
            include,
            exclude,
            mode,
            dir_mode,
            owner,
        })
    }

    fn install(&mut self, stage: &str, table: &Table, tier: Option<Tier>) -> Option<Install> {
        let mut fields = self.reader.open(&INSTALL, Some(Set::Steps), table);
        let name = fields.literal("install");
        let to = fields.image_path("to");
        let has_to = fields.has("to");
        fields.finish();
        let name = name?;
        let origin = self.origin(&name, Wanted::Install)?;
        self.uses.push(Use {
            by: stage.to_owned(),
            of: origin.name().to_string(),
            path: None,
            span: name.span,
        });
        let shape = match &origin {
            Origin::Source(name) => *self.names.sources.get(name.as_str())?,
            Origin::Stage(_) => Shape::Directory,
        };
        let of = &name.value;
        match shape {
            Shape::Packages if has_to => {
                let span = to.map_or(table.span, |(_, span)| span);
                let message = format!("`{of}` is packages, which have their places");
                let hint = format!("write `{{ install = \"{of}\" }}`");
                self.reader.error(span, message, hint);
                None
            }
            Shape::Packages => Some(Install {
                origin,
                span: name.span,
                to: None,
                tier: tier.unwrap_or_default(),
            }),
            Shape::Libraries if !has_to => {
                let message = format!("`{of}` is libraries, and nothing says where to");
                let hint = format!("write `{{ install = \"{of}\", to = \"/opt/venv\" }}`");
                self.reader.error(name.span, message, hint);
                None
            }
            Shape::Libraries => {
                let (to, span) = self.not_root(to, "install")?;
                // It becomes the first line of scripts and a line of a configuration.
                if to.as_bytes().contains(&b'\n') {
                    let message = "`to` holds a line feed";
                    self.reader.report(span, Diagnostic::error(message));
                    return None;
                }
                Some(Install {
                    origin,
                    span: name.span,
                    to: Some(to),
                    tier: tier.unwrap_or_default(),
                })
            }
            // Complained about where it is declared.
            Shape::Unknown => None,
            Shape::Image | Shape::Local | Shape::File | Shape::Directory => {
                let error = Diagnostic::error(format!("`{of}` is not packages"))
                    .because("`install` takes a `debian`, `python` or `cargo` source")
                    .hint(format!("copy it: `{{ copy = \"{of}\", to = \"/…\" }}`"));
                self.reader.report(name.span, error);
                None
            }
        }
    }

    fn write(&mut self, table: &Table) -> Option<Write> {
        let mut fields = self.reader.open(&WRITE, Some(Set::Steps), table);
        let path = fields.image_path("write");
        let text = fields.literal("text");
        let mode = fields.mode("mode").unwrap_or(Mode::FILE);
        let owner = fields.owner("owner").unwrap_or(Owner::ROOT);
        let expand = fields.boolean("expand").unwrap_or(false);
        fields.finish();
        let path = self.not_root(path, "write")?;
        let text = text?;
        let text = if expand {
            self.reader.substitute(&text.value, text.span)?.value
        } else {
            self.reader
                .warn_if_quoted(&text.value, text.span, "`text`", "add `expand = true`");
            text.value
        };
        Some(Write {
            path: path.0,
            text,
            mode,
            owner,
        })
    }

    /// A path that something else than a directory will be at, or that will be gone.
    fn not_root(&mut self, path: Option<(RelPath, Span)>, verb: &str) -> Option<(RelPath, Span)> {
        let (path, span) = path?;
        if path.is_root() {
            let message = format!("`{verb}` cannot take the root");
            self.reader.report(span, Diagnostic::error(message));
            return None;
        }
        Some((path, span))
    }

    fn run(
        &mut self,
        keys: &'static Keys,
        table: &Table,
        stage_tier: Option<Tier>,
        stage_env: &BTreeMap<String, String>,
    ) -> Option<Run> {
        let mut fields = self.reader.open(keys, Some(Set::Steps), table);
        let command = if std::ptr::eq(keys, &raw const SHELL) {
            fields.literal("shell").map(|text| (text, None))
        } else {
            let span = fields.span("run");
            let words = fields.list("run");
            words.map(|words| {
                let text = Text {
                    value: String::new(),
                    span,
                };
                (text, Some(words))
            })
        };
        let directory = fields.image_path("in");
        let env = fields.strings("env");
        let owner = fields.owner("as").unwrap_or(Owner::ROOT);
        let secrets = fields.texts("secrets").unwrap_or_default();
        let tier = fields.tier("tier");
        let timeout = fields.duration("timeout");
        let metadata = match fields.choice("metadata") {
            Some("clamp") => Metadata::Clamp,
            _ => Metadata::Virtual,
        };
        let metadata_span = fields.has("metadata").then(|| fields.span("metadata"));
        let wrong_directory = fields.has("in") && directory.is_none();
        fields.finish();

        self.check_env(&env);
        let tier = tier.or(stage_tier).unwrap_or_default();
        if let Some(span) = metadata_span
            && tier == Tier::Isolated
        {
            let error = Diagnostic::error("`metadata` means nothing in tier `isolated`")
                .because("only the tiers above make file times and numbers virtual")
                .hint("leave it out, or take another `tier`");
            self.reader.report(span, error);
        }
        let secrets: BTreeSet<String> = secrets
            .into_iter()
            .filter_map(|text| self.secret(text))
            .collect();
        let command = match command? {
            (text, Some(words)) => self.argv(words, text.span)?,
            (text, None) => self.script(text, &env, stage_env)?,
        };
        if wrong_directory {
            return None;
        }
        Some(Run {
            command,
            directory: directory.map_or_else(RelPath::root, |(path, _)| path),
            env: env
                .into_iter()
                .map(|(key, text)| (key, text.value))
                .collect(),
            owner,
            secrets,
            tier,
            metadata,
            timeout,
        })
    }

    fn argv(&mut self, words: Vec<String>, span: Span) -> Option<Command> {
        match words.first().map(String::as_str) {
            None | Some("") => {
                self.reader.error(
                    span,
                    "`run` names no program",
                    "write program and arguments: `run = [\"make\", \"-j4\"]`",
                );
                None
            }
            Some(_) => Some(Command::Argv(words)),
        }
    }

    fn script(
        &mut self,
        text: Text,
        env: &BTreeMap<String, Text>,
        stage_env: &BTreeMap<String, String>,
    ) -> Option<Command> {
        if text.value.trim().is_empty() || text.value.contains('\0') {
            let what = if text.value.contains('\0') {
                "holds a NUL"
            } else {
                "is empty"
            };
            self.reader
                .report(text.span, Diagnostic::error(format!("`shell` {what}")));
            return None;
        }
        // A script may well use a shell variable that is called like an argument, when something sets it.
        let set = |name: &str| {
            env.contains_key(name)
                || stage_env.contains_key(name)
                || text.value.contains(&format!("{name}="))
        };
        if !self.reader.quoted_name(&text.value).is_some_and(set) {
            self.reader.warn_if_quoted(
                &text.value,
                text.span,
                "`shell`",
                "give it to the script by `env = { VALUE = \"${NAME}\" }`",
            );
        }
        Some(Command::Shell(text.value))
    }

    fn secret(&mut self, text: Text) -> Option<String> {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        let name = &text.value;
        if name.is_empty() || name.starts_with('.') || name.len() > 255 || !name.bytes().all(letter)
        {
            let error = Diagnostic::error(format!(
                "`{}` is not a name for a secret",
                name.escape_debug()
            ))
            .because("it becomes the file `/run/secrets/NAME`")
            .hint("use letters, digits, `-`, `_` and `.`");
            self.reader.report(text.span, error);
            return None;
        }
        Some(text.value)
    }

    fn mkdir(&mut self, table: &Table) -> Option<Mkdir> {
        let mut fields = self.reader.open(&MKDIR, Some(Set::Steps), table);
        let path = fields.image_path("mkdir");
        let mode = fields.mode("mode");
        let owner = fields.owner("owner");
        fields.finish();
        Some(Mkdir {
            path: path?.0,
            mode,
            owner,
        })
    }

    fn link(&mut self, table: &Table) -> Option<Link> {
        let mut fields = self.reader.open(&LINK, Some(Set::Steps), table);
        let path = fields.image_path("link");
        let target = fields.text("to");
        fields.finish();
        let path = self.not_root(path, "link")?;
        let target = target?;
        if target.value.len() > TARGET_MAX {
            let message = format!("the text of a link is at most {TARGET_MAX} bytes");
            self.reader.report(target.span, Diagnostic::error(message));
            return None;
        }
        Some(Link {
            path: path.0,
            target: target.value,
        })
    }

    fn remove(&mut self, table: &Table) -> Option<Remove> {
        let mut fields = self.reader.open(&REMOVE, Some(Set::Steps), table);
        let path = fields.image_path("remove");
        fields.finish();
        let (path, path_span) = self.not_root(path, "remove")?;
        Some(Remove { path, path_span })
    }

    fn user(&mut self, table: &Table) -> Option<User> {
        let mut fields = self.reader.open(&USER, Some(Set::Steps), table);
        let name = fields.text("user");
        let uid = fields.integer("uid");
        let gid = fields.integer("gid");
        let home = fields.image_path("home");
        let login = fields.image_path("login");
        let groups = fields.texts("groups").unwrap_or_default();
        fields.finish();
        for text in name.iter().chain(&groups) {
            if !value::is_account(&text.value) {
                self.reader.report(
                    text.span,
                    Diagnostic::error(format!("`{}` is not a name for an account", text.value.escape_debug()))
                        .because("it is a lower-case letter or `_`, then lower-case letters, digits, `-` and `_`, at most 32"),
                );
            }
        }
        for (path, span) in home.iter().chain(&login) {
            if path
                .as_bytes()
                .iter()
                .any(|byte| matches!(byte, b':' | b'\n'))
            {
                self.reader.report(
                    *span,
                    Diagnostic::error(format!("`{path}` cannot stand in `/etc/passwd`"))
                        .because("its fields end at a colon and its lines at a line end"),
                );
            }
        }
        let uid = uid?;
        Some(User {
            name: name?.value,
            uid,
            gid: gid.unwrap_or(uid),
            home: home.map(|(path, _)| path),
            login: login.map_or_else(|| "/usr/sbin/nologin".into(), |(path, _)| path.to_string()),
            groups: groups.into_iter().map(|text| text.value).collect(),
        })
    }

    fn unpack(&mut self, stage: &str, table: &Table) -> Option<Unpack> {
        let mut fields = self.reader.open(&UNPACK, Some(Set::Steps), table);
        let from = fields.reference("unpack");
        let to = fields.image_path("to");
        let strip = fields.integer("strip").unwrap_or(0);
        let preserve = fields.boolean("preserve").unwrap_or(false);
        fields.finish();
        let (name, path) = from?;
        let (from, whole_directory) = self.reference(stage, &name, path.as_ref(), "unpack")?;
        if whole_directory {
            self.reader.error(
                name.span,
                format!("`{}` is a directory, not an archive", name.value),
                format!("name the file in it: `unpack = \"{}:…\"`", name.value),
            );
            return None;
        }
        let (to, to_span) = to?;
        Some(Unpack {
            from,
            to,
            to_span,
            how: Unpacking { strip, preserve },
        })
    }

    fn image(&mut self, table: &Table) -> Option<(Stage, Image)> {
        let mut fields = self.reader.open(&IMAGE, None, table);
        let from = fields.literal("from");
        let env = fields.strings("env");
        let cache = fields.image_paths("cache").unwrap_or_default();
        let tier = fields.tier("tier");
        let steps = fields.tables("steps");
        let platforms = fields.platforms("platforms");
        let platforms_span = fields.span("platforms");
        let name = fields.text("name");
        let tags = fields.texts("tags");
        let most = fields.integer("max-layers");
        let most_span = fields.span("max-layers");
        let layers = match fields.choice("layers") {
            Some("single") => Layers::Single,
            Some("per-package") => Layers::PerPackage(most.unwrap_or(MAX_LAYERS)),
            _ => Layers::PerStep,
        };
        if most.is_some() && !matches!(layers, Layers::PerPackage(_)) {
            let message = "`max-layers` means nothing without `layers = \"per-package\"`";
            fields
                .reader
                .error(most_span, message, "leave one out, or add the other");
        }
        let compression = match fields.choice("compression") {
            Some("gzip") => Compression::Gzip,
            Some("none") => Compression::None,
            _ => Compression::Zstd,
        };
        let entrypoint = fields.list("entrypoint");
        let cmd = fields.list("cmd");
        let user = fields.owner("user");
        let user_span = fields.has("user").then(|| fields.span("user"));
        let workdir = fields.text("workdir");
        let stop_signal = fields.signal("stop-signal");
        let expose = fields.ports("expose");
        let labels = fields.strings("labels");
        let annotations = fields.strings("annotations");
        fields.finish();

        runtime::check_labels(self.reader, &labels);
        runtime::check_nul(self.reader, &annotations, "an annotation");
        self.check_env(&env);
        self.check_tags(tags.as_deref().unwrap_or_default());
        if let Some(name) = &name {
            self.check_repository(name);
        }
        let workdir = self.workdir(workdir);
        if let Some(platforms) = &platforms {
            self.check_platforms(platforms, platforms_span);
        }
        let stage = self.body(
            Ident::IMAGE,
            table.span,
            from,
            BTreeMap::new(),
            cache,
            tier,
            None,
            &steps,
        );
        let plain = |map: BTreeMap<String, Text>| -> BTreeMap<String, String> {
            map.into_iter()
                .map(|(key, text)| (key, text.value))
                .collect()
        };
        let platforms = match platforms {
            Some(platforms) => platforms
                .into_iter()
                .map(|(platform, _)| platform)
                .collect(),
            None => vec!["linux/amd64".parse().expect("a known platform")],
        };
        let image = Image {
            platforms,
            name: name.map(|text| text.value),
            tags: tags.map_or_else(
                || vec!["latest".into()],
                |tags| tags.into_iter().map(|text| text.value).collect(),
            ),
            layers,
            compression,
            config: Config {
                env: plain(env),
                entrypoint,
                cmd,
                user,
                user_span,
                workdir,
                stop_signal: stop_signal.map(|text| text.value),
                expose,
                labels: plain(labels),
            },
            annotations: plain(annotations),
        };
        Some((stage?, image))
    }

    fn check_platforms(&mut self, platforms: &[(Platform, Span)], span: Span) {
        if platforms.is_empty() {
            self.reader.error(
                span,
                "an image is for at least one platform",
                "write `platforms = [\"linux/amd64\"]`",
            );
        }
        let mut seen = BTreeSet::new();
        for (platform, span) in platforms {
            if !seen.insert(platform) {
                let message = format!("`{platform}` is there twice");
                self.reader.error(*span, message, "keep one of them");
            }
        }
    }

    /// A tag of the OCI distribution spec: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
    fn check_tags(&mut self, tags: &[Text]) {
        for tag in tags {
            let rest =
                |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
            let fits = matches!(tag.value.len(), 1..=128)
                && tag.value.bytes().all(rest)
                && !tag.value.starts_with(['.', '-']);
            if !fits {
                self.reader.error(
                    tag.span,
                    format!("`{}` is not a tag", tag.value.escape_debug()),
                    "a tag has letters, digits, `_`, `.` and `-`, at most 128, and does not begin with `.` or `-`",
                );
            }
        }
    }

    /// A name of the OCI distribution spec, with its host and without a tag.
    fn check_repository(&mut self, name: &Text) {
        let (repository, tag) = match name.value.rsplit_once('/') {
            Some((host, last)) => match last.split_once([':', '@']) {
                Some((last, tag)) => (format!("{host}/{last}"), Some(tag)),
                None => (name.value.clone(), None),
            },
            None => match name.value.split_once([':', '@']) {
                Some((last, tag)) => (last.to_owned(), Some(tag)),
                None => (name.value.clone(), None),
            },
        };
        if let Some(tag) = tag {
            self.reader.error(
                name.span,
                "`name` is without a tag",
                format!("write `name = \"{repository}\"` and `tags = [\"{tag}\"]`"),
            );
            return;
        }
        let (host, path) = match repository.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path),
            _ => ("", repository.as_str()),
        };
        let host_fits = host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':'));
        let part_fits = |part: &str| {
            let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            let mark = |byte: u8| matches!(byte, b'.' | b'_' | b'-');
            let ends = |byte: Option<u8>| byte.is_some_and(letter);
            part.bytes().all(|byte| letter(byte) || mark(byte))
                && ends(part.bytes().next())
                && ends(part.bytes().last())
        };
        if !host_fits || !path.split('/').all(part_fits) {
            self.reader.error(
                name.span,
                format!("`{}` is not a name for an image", name.value.escape_debug()),
                "it is `HOST/PATH` in lower-case letters, digits, `.`, `_` and `-`, such as `registry.example.com/shop`",
            );
        }
    }

    fn workdir(&mut self, text: Option<Text>) -> Option<String> {
        let text = text?;
        match value::image_path(&text.value) {
            Ok(_) => Some(text.value),
            Err(complaint) => {
                self.reader.complain(Some("workdir"), &text, complaint);
                None
            }
        }
    }
}

/// Longest text of a symbolic link in bytes: Linux `PATH_MAX` without its NUL.
const TARGET_MAX: usize = 4095;

fn read_output(reader: &mut Reader<'_>, table: &Table) -> Option<Output> {
    let mut fields = reader.open(&OUTPUT, None, table);
    let kind = fields.choice("kind").and_then(|word| {
        let mut all = OutputKind::ALL.into_iter();
        all.find(|kind| kind.as_str() == word)
    });
    let file = fields.local_path("file");
    let dir = fields.local_path("dir");
    let root = fields.image_path("root");
    fields.finish();
    let kind = kind?;
    let (wanted, other, path, wrong) = match kind.place() {
        "file" => ("file", "dir", file, dir),
        _ => ("dir", "file", dir, file),
    };
    if let (Some((_, span)), true) = (&root, kind != OutputKind::FunctionZip) {
        reader.error(
            *span,
            format!("the output `{}` has no `root`", kind.as_str()),
            "take it out: the whole root is written",
        );
        return None;
    }
    if let Some(wrong) = wrong {
        reader.error(
            wrong.span,
            format!("the output `{}` has no `{other}`", kind.as_str()),
            format!("write `{wanted} = \"{}\"`", wrong.value),
        );
        return None;
    }
    let Some(path) = path else {
        if table.get(wanted).is_none() {
            let message = format!("the output `{}` needs `{wanted}`", kind.as_str());
            reader.error(table.span, message, format!("add `{wanted} = \"out/…\"`"));
        }
        return None;
    };
    if wanted == "file" && path.value.ends_with('/') {
        let message = format!("`{}` ends in a slash and is to be a file", path.value);
        reader.error(path.span, message, "write the name of the file");
        return None;
    }
    Some(Output {
        kind,
        path: path.value,
        root: root.map_or_else(RelPath::root, |(root, _)| root),
        span: path.span,
    })
}
