//! Hashed requirements: `name==version --hash=sha256:…`, as `pip-compile --generate-hashes` and `uv export` write them.
//!
//! They say which digests a package may have and nothing about files, so an index has to be asked which file is which,
//! once, when locking.

use std::collections::BTreeSet;
use std::sync::Arc;

use immbuild_cas::canonical::{Canonical, Encoder};
use immbuild_cas::digest::Digest;

use super::locked::{Files, Location, Locked, Wanted, WheelFile, file_name, sha256};
use super::marker::{Context, Marker};
use super::name::{WheelName, normalised};
use super::version;
use crate::diag::{Diagnostic, Place, SourceFile, Span};

/// Everything that a file of requirements says.
#[derive(Clone, Debug)]
pub struct Requirements {
    /// The file.
    pub file: Arc<SourceFile>,
    all: Vec<Requirement>,
}

#[derive(Clone, Debug)]
struct Requirement {
    name: String,
    what: What,
    /// As written, with single spaces.
    marker: Option<(String, Marker)>,
    hashes: BTreeSet<Digest>,
    span: Span,
}

#[derive(Clone, Debug)]
enum What {
    Version(String),
    Url(String),
}

/// Options that change nothing here: what they ask for is so anyway.
const IDLE: [&str; 5] = [
    "--require-hashes",
    "--no-deps",
    "--only-binary",
    "--prefer-binary",
    "--no-build-isolation",
];

/// Options that say where packages are.
const INDEX: [&str; 8] = [
    "-i",
    "--index-url",
    "--pypi-url",
    "--extra-index-url",
    "-f",
    "--find-links",
    "--no-index",
    "--trusted-host",
];

impl Requirements {
    /// Reads a file of requirements.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the text.
    pub fn parse(file: &Arc<SourceFile>) -> Result<Self, Vec<Diagnostic>> {
        let mut errors = Vec::new();
        let mut all = Vec::new();
        for line in lines(&file.text) {
            let place = Place {
                file: Arc::clone(file),
                span: line.span,
            };
            match requirement(&line) {
                Ok(Some(requirement)) => all.push(requirement),
                Ok(None) => {}
                Err(error) => errors.push(error.at(place)),
            }
        }
        if errors.is_empty() && all.is_empty() {
            let place = Place {
                file: Arc::clone(file),
                span: Span::default(),
            };
            errors.push(Diagnostic::error("there is no requirement in this file").at(place));
        }
        if errors.is_empty() {
            let file = Arc::clone(file);
            Ok(Self { file, all })
        } else {
            Err(errors)
        }
    }

    /// The packages that are wanted for a target, by name.
    ///
    /// # Errors
    /// One of them is there in two versions.
    pub fn wanted(&self, wanted: &Wanted<'_>) -> Result<Vec<Locked>, Diagnostic> {
        let nothing = BTreeSet::new();
        let context = Context {
            target: wanted.target,
            extras: &nothing,
            groups: &nothing,
        };
        let mut found: Vec<Locked> = Vec::new();
        for one in &self.all {
            if one
                .marker
                .as_ref()
                .is_some_and(|(_, marker)| !marker.holds(&context))
            {
                continue;
            }
            let place = Place {
                file: Arc::clone(&self.file),
                span: one.span,
            };
            let (version, files) = one.files();
            if found.iter().any(|other| other.name == one.name) {
                let message = format!("`{}` is required twice for this target", one.name);
                return Err(Diagnostic::error(message)
                    .at(place)
                    .hint("keep one of the two lines"));
            }
            let name = self.file.name.rsplit('/').next().unwrap_or_default();
            found.push(Locked {
                name: one.name.clone(),
                version,
                files,
                depends: Vec::new(),
                reason: format!("named in {name}"),
                place,
            });
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// The digest of what it says: comments, order and line ends do not matter.
    pub fn digest(&self) -> Digest {
        self.canonical_digest()
    }
}

impl Canonical for Requirements {
    const TAG: &'static str = "requirements";
    const VERSION: u32 = 1;

    fn encode_fields(&self, out: &mut Encoder) {
        let one = |requirement: &Requirement| {
            let mut out = Encoder::default();
            out.str(&requirement.name);
            match &requirement.what {
                What::Version(version) => {
                    out.u8(0);
                    out.str(version);
                }
                What::Url(url) => {
                    out.u8(1);
                    out.str(url);
                }
            }
            out.option(requirement.marker.as_ref(), |out, (text, _)| out.str(text));
            out.sequence(requirement.hashes.iter(), Encoder::digest);
            out.into_bytes()
        };
        let all: BTreeSet<Vec<u8>> = self.all.iter().map(one).collect();
        out.sequence(all.iter(), |out, one| out.bytes(one));
    }
}

impl Requirement {
    fn files(&self) -> (String, Files) {
        let url = match &self.what {
            What::Version(version) => {
                return (version.clone(), Files::Digests(self.hashes.clone()));
            }
            What::Url(url) => url,
        };
        let file = file_name(url);
        let name = WheelName::parse(&file).expect("it was looked at when it was read");
        let version = name.version.clone();
        let wheels = self.hashes.iter().map(|sha256| WheelFile {
            file: file.clone(),
            name: name.clone(),
            sha256: *sha256,
            size: None,
            from: Location::Url(url.clone()),
        });
        let files = Files::Named {
            wheels: wheels.collect(),
            others: Vec::new(),
        };
        (version, files)
    }
}

/// A line with those that a `\` at its end continues it by, without comments.
struct Line {
    text: String,
    span: Span,
}

fn lines(text: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut open: Option<Line> = None;
    let mut at = 0;
    for physical in text.split_inclusive('\n') {
        let start = at;
        at += physical.len();
        let content = physical.trim_end_matches(['\n', '\r']);
        let is_comment = content.trim_start().starts_with('#');
        // A comment between continued lines ends nothing (pip, `join_lines`).
        if is_comment && open.is_some() {
            continue;
        }
        let (content, goes_on) = match content.strip_suffix('\\') {
            Some(content) if !is_comment => (content, true),
            _ => (content, false),
        };
        let line = open.get_or_insert_with(|| Line {
            text: String::new(),
            span: Span::from(start..start + content.trim_end().len()),
        });
        line.text.push_str(content);
        line.text.push(' ');
        if !goes_on {
            lines.extend(open.take());
        }
    }
    lines.extend(open);
    for line in &mut lines {
        line.text = without_comment(&line.text).trim().to_owned();
    }
    lines.retain(|line| !line.text.is_empty());
    lines
}

fn without_comment(text: &str) -> &str {
    if text.trim_start().starts_with('#') {
        return "";
    }
    let at = text
        .match_indices('#')
        .map(|(at, _)| at)
        .find(|at| text[..*at].ends_with([' ', '\t']));
    &text[..at.unwrap_or(text.len())]
}

fn requirement(line: &Line) -> Result<Option<Requirement>, Diagnostic> {
    let text = line.text.as_str();
    if text.contains("${") {
        return Err(Diagnostic::error("a requirement reads the environment")
            .because("what an environment says is no part of a lock")
            .hint("write what it stands for"));
    }
    if text.starts_with('-') {
        return option(text).map(|()| None);
    }
    let (asked, options) = match text.find(" -") {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let hashes = hashes(options)?;
    let (asked, marker) = split_marker(asked)?;
    let (name, what) = named(asked)?;
    if hashes.is_empty() {
        return Err(Diagnostic::error(format!("`{name}` has no hash"))
            .because("what is not pinned by its digest does not exist")
            .hint("write hashes: `pip-compile --generate-hashes` or `uv export` does"));
    }
    Ok(Some(Requirement {
        name,
        what,
        marker,
        hashes,
        span: line.span,
    }))
}

fn option(text: &str) -> Result<(), Diagnostic> {
    let name = text.split([' ', '=']).next().unwrap_or_default();
    if IDLE.contains(&name) {
        return Ok(());
    }
    let error = Diagnostic::error(format!("`{name}` cannot be in these requirements"));
    if INDEX.contains(&name) {
        return Err(error
            .because("where packages are is no part of what they are")
            .hint("take it out, and say it to this machine: in pip's configuration, or in immbuild's `config.toml`"));
    }
    Err(match name {
        "-e" | "--editable" => error
            .because("an editable package is a directory, which has no digest")
            .hint("copy your own code with a `path` source"),
        "-r" | "--requirement" | "-c" | "--constraint" => error
            .because("one file says it all")
            .hint("let the tool that wrote it put both into one"),
        _ => error.hint("take it out"),
    })
}

/// `--hash=sha256:…`, any number of times.
fn hashes(options: &str) -> Result<BTreeSet<Digest>, Diagnostic> {
    let mut hashes = BTreeSet::new();
    let mut others = Vec::new();
    let mut words = options.split_ascii_whitespace();
    while let Some(word) = words.next() {
        let value = match word.split_once('=') {
            Some(("--hash", value)) => value,
            None if word == "--hash" => words.next().unwrap_or_default(),
            _ => {
                return Err(Diagnostic::error(format!(
                    "`{}` cannot be said of a requirement",
                    word.escape_debug()
                ))
                .hint("take it out; only `--hash` means something here"));
            }
        };
        match (sha256(value), value.split_once(':')) {
            (Some(digest), _) => drop(hashes.insert(digest)),
            (None, Some((algorithm @ ("sha384" | "sha512"), _))) => others.push(algorithm),
            (None, _) => {
                return Err(
                    Diagnostic::error(format!("`{}` is no hash", value.escape_debug()))
                        .hint("write `--hash=sha256:` and 64 digits of `0-9a-f`"),
                );
            }
        }
    }
    match others.first() {
        Some(algorithm) if hashes.is_empty() => Err(Diagnostic::error(format!(
            "the requirement has hashes of {algorithm} only"
        ))
        .hint("write them with sha256, as every index has it")),
        _ => Ok(hashes),
    }
}

/// A marker and how it is written.
type Written = (String, Marker);

fn split_marker(asked: &str) -> Result<(&str, Option<Written>), Diagnostic> {
    // In a URL, a `;` is part of it unless a space stands before it.
    let end = if asked.contains('@') { " ;" } else { ";" };
    let at = asked.find(end);
    let Some(at) = at else {
        return Ok((asked.trim(), None));
    };
    let (asked, marker) = asked.split_at(at);
    let text = marker.trim_start_matches([' ', ';']).trim();
    let marker = Marker::parse(text)
        .map_err(|cause| Diagnostic::error("this is no marker").because(cause))?;
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    Ok((asked.trim(), Some((words.join(" "), marker))))
}

/// The name, and the version or URL.
fn named(asked: &str) -> Result<(String, What), Diagnostic> {
    let end = asked
        .find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.'))
        .unwrap_or(asked.len());
    let (name, rest) = asked.split_at(end);
    let is_url = rest.starts_with(['+', ':', '/']);
    let Some(name) = normalised(name).filter(|_| !is_url) else {
        let error = Diagnostic::error(format!("`{}` is no requirement", asked.escape_debug()));
        let is_other =
            asked.contains("://") || asked.starts_with(['.', '/']) || asked.contains('+');
        return Err(if is_other {
            error.hint("write `name==version` with its hashes; a repository or directory has none")
        } else {
            error
        });
    };
    let mut rest = rest.trim_start();
    // Which extras were wanted is done: what they bring is in the list.
    if let Some(extras) = rest.strip_prefix('[') {
        let end = extras
            .find(']')
            .ok_or_else(|| Diagnostic::error("the extras are not closed").hint("write `]`"))?;
        rest = extras[end + 1..].trim_start();
    }
    if let Some(url) = rest.strip_prefix('@') {
        let url = url.trim();
        let is_file = ["https://", "http://", "file:///"]
            .iter()
            .any(|scheme| url.starts_with(scheme));
        if !is_file {
            return Err(Diagnostic::error(format!(
                "`{name}` is taken from `{}`",
                url.escape_debug()
            ))
            .because("only files have a digest: what is in a repository is not locked by one")
            .hint("build a wheel of it and name that"));
        }
        let is_wheel = WheelName::parse(&file_name(url)).is_some_and(|wheel| wheel.name == name);
        if !is_wheel {
            return Err(Diagnostic::error(format!("`{name}` is no wheel of that name"))
                .because("only wheels are installed: what has to be built runs code that nobody pinned")
                .hint(format!("name a file `{name}-VERSION-….whl`")));
        }
        return Ok((name, What::Url(url.to_owned())));
    }
    let version = rest.strip_prefix("===").or_else(|| rest.strip_prefix("=="));
    let version = version.map(str::trim);
    match version {
        Some(version) if version::is_version(version) => {
            Ok((name, What::Version(version.to_owned())))
        }
        _ => Err(
            Diagnostic::error(format!("`{name}` is not pinned to a version"))
                .because("nothing is solved here: their lock is the lock")
                .hint(format!(
                    "write `{name}==VERSION` with its hashes; `pip-compile --generate-hashes` does"
                )),
        ),
    }
}
