//! The lock as text: one way to write it, and a reader that takes nothing else than what it means.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Display, Write as _};
use std::sync::Arc;

use immbuild_cas::digest::{Digest, TreeId};

use super::model::{
    ALL, CommitPin, DebianPin, Expect, FilePin, Lock, Locked, ManifestPin, PackagePin, Pin,
    PythonPin, ReleasePin, Target, WheelPin,
};
use crate::diag::{Diagnostic, Place, SourceFile, Span, nearest};
use crate::epoch::Epoch;
use crate::platform::Platform;
use crate::spec::document::{self, Data, Entry, Table, Value};
use crate::spec::model::Ident;

/// The version of this file's form.
const VERSION: i64 = 1;

/// The text of a lock: sorted, one field a line.
pub fn write(lock: &Lock) -> String {
    let mut out = format!(
        "# Written by immbuild. Commit it; do not edit it.\nlock = {VERSION}\nepoch = {}\n",
        lock.epoch
    );
    for (name, locked) in &lock.sources {
        write_source(&mut out, name, locked);
    }
    for (target, expect) in &lock.expect {
        out.push_str("\n[[expect]]\n");
        string(&mut out, "platform", target);
        string(&mut out, "image-id", &expect.image_id);
        string(&mut out, "manifest", &expect.manifest);
        if let Some(tree) = &expect.tree {
            string(&mut out, "tree", tree);
        }
    }
    out
}

fn write_source(out: &mut String, name: &Ident, locked: &Locked) {
    let mut head = |kind: &str| {
        line(out, format_args!("\n[source.{name}]"));
        string(out, "kind", &kind);
        string(out, "request", &locked.request);
    };
    match &locked.pin {
        Pin::Image { index, manifests } => {
            head("image");
            if let Some(index) = index {
                string(out, "index", index);
            }
            for (platform, manifest) in manifests {
                line(out, format_args!("\n[[source.{name}.manifest]]"));
                string(out, "platform", platform);
                string(out, "digest", &manifest.digest);
                line(out, format_args!("size = {}", manifest.size));
            }
        }
        Pin::Http { files } => {
            head("http");
            for (platform, file) in files {
                line(out, format_args!("\n[[source.{name}.file]]"));
                if let Some(platform) = platform {
                    string(out, "platform", platform);
                }
                string(out, "sha256", &file.sha256.to_hex());
                line(out, format_args!("size = {}", file.size));
            }
        }
        Pin::Git { commits } => {
            head("git");
            for (platform, pin) in commits {
                if let Some(platform) = platform {
                    line(out, format_args!("\n[[source.{name}.revision]]"));
                    string(out, "platform", platform);
                }
                string(out, "commit", &pin.commit);
                string(out, "tree", &pin.tree);
            }
        }
        Pin::Debian(pin) => {
            head("debian");
            write_debian(out, name, pin);
        }
        Pin::Python(pin) => {
            head("python");
            for wheel in &pin.wheels {
                line(out, format_args!("\n[[source.{name}.wheel]]"));
                string(out, "platform", &wheel.platform);
                string(out, "name", &wheel.name);
                string(out, "version", &wheel.version);
                string(out, "file", &wheel.file);
                string(out, "sha256", &wheel.sha256.to_hex());
                if let Some(size) = wheel.size {
                    line(out, format_args!("size = {size}"));
                }
            }
        }
    }
}

fn write_debian(out: &mut String, name: &Ident, pin: &DebianPin) {
    string(out, "solver", &pin.solver);
    for release in &pin.releases {
        line(out, format_args!("\n[[source.{name}.release]]"));
        string(out, "archive", &release.archive);
        string(out, "suite", &release.suite);
        string(out, "inrelease", &release.inrelease);
        line(out, format_args!("date = {}", release.date));
        strings(out, "signers", &release.signers);
    }
    for package in &pin.packages {
        line(out, format_args!("\n[[source.{name}.package]]"));
        string(out, "name", &package.name);
        string(out, "version", &package.version);
        string(out, "arch", &package.arch);
        if !package.for_architectures.is_empty() {
            strings(out, "for", &package.for_architectures);
        }
        string(out, "archive", &package.archive);
        string(out, "path", &package.path);
        line(out, format_args!("size = {}", package.size));
        string(out, "sha256", &package.sha256.to_hex());
        string(out, "source", &package.source);
        if let Some(version) = &package.source_version {
            string(out, "source-version", version);
        }
        strings(out, "depends", &package.depends);
        string(out, "reason", &package.reason);
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a string takes everything");
}

/// No value of a lock needs an escape: they are names, digests and platforms.
fn string(out: &mut String, key: &str, value: &dyn Display) {
    line(out, format_args!("{key} = \"{value}\""));
}

fn strings(out: &mut String, key: &str, values: &[String]) {
    let quoted: Vec<String> = values.iter().map(|value| format!("\"{value}\"")).collect();
    line(out, format_args!("{key} = [{}]", quoted.join(", ")));
}

/// Reads a lock; `name` is what the file is called in diagnostics. Comments, order and line ends do not matter.
///
/// # Errors
/// Everything that is wrong with it, in the order of the text.
pub fn parse(text: &str, name: &str) -> Result<Lock, Vec<Diagnostic>> {
    let file = document::source_file(name, text);
    if let Some(error) = document::conflict(&file, "lock") {
        return Err(vec![
            error.hint("keep either side, then run `immbuild lock`"),
        ]);
    }
    let mut reader = Reader {
        file: &file,
        diagnostics: Vec::new(),
    };
    let lock = document::parse(&file)
        .map_err(|errors| reader.diagnostics.extend(errors))
        .ok()
        .and_then(|document| reader.lock(&document));
    let mut diagnostics = reader.diagnostics;
    match lock {
        Some(lock) if diagnostics.is_empty() => Ok(lock),
        _ => {
            diagnostics.sort_by_key(|it| it.place.as_ref().map(|place| place.span));
            // What to do is the same for all that is damaged: once is enough.
            if let Some(last) = diagnostics.last_mut() {
                last.hint.get_or_insert_with(|| RESTORE.to_owned());
            }
            Err(diagnostics)
        }
    }
}

/// What to do with a lock that is not as it was written.
pub const RESTORE: &str = "take the file back from version control, or remove it and run `immbuild lock`, which finds everything anew";

const NEWER: &str = "use the newer immbuild that wrote it";

struct Reader<'f> {
    file: &'f Arc<SourceFile>,
    diagnostics: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn error(&mut self, span: Span, message: impl Into<String>) {
        self.report(span, Diagnostic::error(message));
    }

    fn report(&mut self, span: Span, error: Diagnostic) {
        let place = Place {
            file: Arc::clone(self.file),
            span,
        };
        self.diagnostics.push(error.at(place));
    }

    fn lock(&mut self, document: &Table) -> Option<Lock> {
        let Some(version) = document.get("lock") else {
            match document.get("immbuild") {
                Some(spec) => self.report(
                    spec.key_span,
                    Diagnostic::error("this is a spec, not a lock")
                        .hint("give the file ending in `.lock` beside it"),
                ),
                None => self.error(document.span, "the lock does not say `lock = 1`"),
            }
            return None;
        };
        match version.value.data {
            Data::Integer(Some(VERSION)) => {}
            Data::Integer(Some(number)) if number > VERSION => {
                let message = format!("version {number} of the lock is not known to this version");
                let error = Diagnostic::error(message).hint(NEWER);
                self.report(version.value.span, error);
                return None;
            }
            _ => {
                self.error(version.value.span, "`lock` must be the number 1");
                return None;
            }
        }
        self.keys("the lock", document, &["lock", "epoch", "source", "expect"]);
        let epoch = self.epoch(document, "epoch");
        let sources = self.sources(document);
        let expect = self.expectations(document);
        Some(Lock {
            epoch: epoch?,
            sources,
            expect,
        })
    }

    /// Tells of keys that do not belong there.
    fn keys(&mut self, what: &str, table: &Table, known: &[&str]) {
        for entry in &table.entries {
            if !known.contains(&entry.key.as_str()) {
                let message = format!("{what} has no key `{}`", entry.key.escape_debug());
                let mut error = Diagnostic::error(message);
                if let Some(near) = nearest(&entry.key, known.iter().copied()) {
                    error = error.because(format!("its name for it is `{near}`"));
                }
                self.report(entry.key_span, error);
            }
        }
    }

    fn required<'t>(&mut self, table: &'t Table, key: &str) -> Option<&'t Value> {
        let Some(entry) = table.get(key) else {
            self.error(table.span, format!("`{key}` is missing"));
            return None;
        };
        Some(&entry.value)
    }

    fn text<'t>(&mut self, table: &'t Table, key: &str) -> Option<&'t str> {
        let value = self.required(table, key)?;
        let Data::String(text) = &value.data else {
            let message = format!("`{key}` must be a string, found {}", value.data.kind());
            self.error(value.span, message);
            return None;
        };
        Some(text)
    }

    /// A string that reads as something.
    fn read<T>(
        &mut self,
        table: &Table,
        key: &str,
        what: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(table, key)?;
        let found = read(text);
        if found.is_none() {
            let span = table.get(key).map_or(table.span, |entry| entry.value.span);
            self.error(span, format!("`{key}` is not {what}"));
        }
        found
    }

    fn digest(&mut self, table: &Table, key: &str) -> Option<Digest> {
        let what = "`sha256:` and 64 digits of `0-9a-f`";
        self.read(table, key, what, |text| text.parse().ok())
    }

    fn size(&mut self, table: &Table) -> Option<u64> {
        let value = self.required(table, "size")?;
        let size = match value.data {
            Data::Integer(Some(number)) => u64::try_from(number).ok(),
            _ => None,
        };
        if size.is_none() {
            self.error(value.span, "`size` is not a number of bytes");
        }
        size
    }

    /// The one name of a platform: `linux/arm64/v8` is written `linux/arm64`.
    fn platform(&mut self, table: &Table) -> Option<Platform> {
        self.read(table, "platform", "a platform", exact_platform)
    }

    fn epoch(&mut self, table: &Table, key: &str) -> Option<Epoch> {
        let value = self.required(table, key)?;
        let epoch = match &value.data {
            Data::Datetime(text) => text.parse().ok(),
            _ => None,
        };
        if epoch.is_none() {
            self.error(
                value.span,
                format!("`{key}` is not a time of the form `2026-11-21T00:53:02Z`"),
            );
        }
        epoch
    }

    fn sources(&mut self, document: &Table) -> BTreeMap<Ident, Locked> {
        let mut sources = BTreeMap::new();
        let Some(entry) = document.get("source") else {
            return sources;
        };
        let Data::Table(table) = &entry.value.data else {
            self.error(entry.value.span, "`source` must be a table");
            return sources;
        };
        for entry in &table.entries {
            if let Some((name, locked)) = self.source(entry) {
                sources.insert(name, locked);
            }
        }
        sources
    }

    fn source(&mut self, entry: &Entry) -> Option<(Ident, Locked)> {
        let name = Ident::new(&entry.key);
        if name.is_none() {
            let message = format!("`{}` is not a name of a source", entry.key.escape_debug());
            self.error(entry.key_span, message);
        }
        let Data::Table(table) = &entry.value.data else {
            let message = format!("`source.{}` must be a table", entry.key);
            self.error(entry.value.span, message);
            return None;
        };
        let kind = self.text(table, "kind")?;
        let pin = match kind {
            "image" => self.image(table),
            "http" => self.http(table),
            "git" => self.git(table),
            "debian" => self.debian(table),
            "python" => self.python(table),
            _ => {
                let span = table.get("kind")?.value.span;
                let message = format!("`{}` is not a kind of pin", kind.escape_debug());
                self.error(span, message);
                return None;
            }
        };
        let request = self.digest(table, "request");
        Some((
            name?,
            Locked {
                request: request?,
                pin: pin?,
            },
        ))
    }

    fn image(&mut self, table: &Table) -> Option<Pin> {
        self.keys(
            "an image's pin",
            table,
            &["kind", "request", "index", "manifest"],
        );
        let index = match table.get("index") {
            None => None,
            Some(_) => Some(self.digest(table, "index")?),
        };
        let mut manifests = BTreeMap::new();
        for table in self.tables(table, "manifest", true)? {
            self.keys("a manifest", table, &["platform", "digest", "size"]);
            let (platform, digest, size) = (
                self.platform(table),
                self.digest(table, "digest"),
                self.size(table),
            );
            let pin = ManifestPin {
                digest: digest?,
                size: size?,
            };
            self.insert(&mut manifests, platform?, pin, table.span);
        }
        Some(Pin::Image { index, manifests })
    }

    fn http(&mut self, table: &Table) -> Option<Pin> {
        self.keys("a file's pin", table, &["kind", "request", "file"]);
        let mut files = BTreeMap::new();
        for table in self.tables(table, "file", true)? {
            self.keys("a file", table, &["platform", "sha256", "size"]);
            let hex = |text: &str| Digest::from_hex(text).ok();
            let for_all = table.get("platform").is_none();
            let (platform, sha256, size) = (
                if for_all { None } else { self.platform(table) },
                self.read(table, "sha256", "64 digits of `0-9a-f`", hex),
                self.size(table),
            );
            let pin = FilePin {
                sha256: sha256?,
                size: size?,
            };
            if platform.is_some() || for_all {
                self.insert(&mut files, platform, pin, table.span);
            }
        }
        self.one_or_each(&files, table.span);
        Some(Pin::Http { files })
    }

    fn git(&mut self, table: &Table) -> Option<Pin> {
        self.keys(
            "a commit's pin",
            table,
            &["kind", "request", "commit", "tree", "revision"],
        );
        let mut commits = BTreeMap::new();
        if table.get("revision").is_none() {
            let pin = self.commit(table)?;
            commits.insert(None, pin);
            return Some(Pin::Git { commits });
        }
        for key in ["commit", "tree"] {
            if let Some(entry) = table.get(key) {
                let message = format!("`{key}` is there beside `revision`");
                self.error(entry.key_span, message);
            }
        }
        for table in self.tables(table, "revision", true)? {
            self.keys("a revision", table, &["platform", "commit", "tree"]);
            let (platform, pin) = (self.platform(table), self.commit(table));
            self.insert(&mut commits, Some(platform?), pin?, table.span);
        }
        Some(Pin::Git { commits })
    }

    fn commit(&mut self, table: &Table) -> Option<CommitPin> {
        let hex = |text: &str| {
            let digits = text
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            (digits && matches!(text.len(), 40 | 64)).then(|| text.to_owned())
        };
        let commit = self.read(table, "commit", "40 or 64 digits of `0-9a-f`", hex);
        let tree = self.digest(table, "tree");
        Some(CommitPin {
            commit: commit?,
            tree: TreeId::new(tree?),
        })
    }

    fn debian(&mut self, table: &Table) -> Option<Pin> {
        let known = ["kind", "request", "solver", "release", "package"];
        self.keys("a pin of packages", table, &known);
        let solver = self.read(table, "solver", "a name of a solver", |text| {
            plain(text, b"/-.").map(ToOwned::to_owned)
        });
        let mut releases = BTreeMap::new();
        for table in self.tables(table, "release", true)? {
            let pin = self.release(table)?;
            let key = (pin.archive.clone(), pin.suite.clone());
            self.insert(&mut releases, key, pin, table.span);
        }
        let mut packages = BTreeMap::new();
        let mut installed = BTreeSet::new();
        let mut spans = Vec::new();
        for table in self.tables(table, "package", true)? {
            let pin = self.package(table)?;
            for architecture in pin.architectures() {
                let key = (pin.name.clone(), architecture.to_owned());
                if !installed.insert(key) {
                    self.error(table.span, "one architecture has this package twice");
                }
            }
            let key = (pin.name.clone(), pin.arch.clone(), pin.version.clone());
            spans.push((key.clone(), table.span));
            self.insert(&mut packages, key, pin, table.span);
        }
        // A merge may have dropped what others need.
        for (key, span) in spans {
            let package = &packages[&key];
            let gone = package.depends.iter().find(|name| {
                let mut architectures = package.architectures();
                architectures.any(|it| !installed.contains(&((*name).clone(), it.to_owned())))
            });
            if let Some(gone) = gone {
                let message = format!(
                    "`{}` needs `{gone}`, which the lock does not have",
                    package.name
                );
                self.error(span, message);
            }
            if !releases
                .keys()
                .any(|(archive, _): &(Ident, String)| *archive == package.archive)
            {
                let message = format!("there is no release of the archive `{}`", package.archive);
                self.error(span, message);
            }
        }
        Some(Pin::Debian(DebianPin {
            solver: solver?,
            releases: releases.into_values().collect(),
            packages: packages.into_values().collect(),
        }))
    }

    fn python(&mut self, table: &Table) -> Option<Pin> {
        self.keys("a pin of wheels", table, &["kind", "request", "wheel"]);
        let mut wheels = BTreeMap::new();
        for table in self.tables(table, "wheel", true)? {
            let pin = self.wheel(table)?;
            let key = (pin.platform, pin.name.clone());
            self.insert(&mut wheels, key, pin, table.span);
        }
        let wheels = wheels.into_values().collect();
        Some(Pin::Python(PythonPin { wheels }))
    }

    fn wheel(&mut self, table: &Table) -> Option<WheelPin> {
        let known = ["platform", "name", "version", "file", "sha256", "size"];
        self.keys("a wheel", table, &known);
        let platform = self.platform(table);
        let name = self.read(table, "name", "a name of a package", |text| {
            let is_mark =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            (!text.is_empty() && text.bytes().all(is_mark)).then(|| text.to_owned())
        });
        let version = self.read(table, "version", "a version", |text| {
            plain(text, b"+.-_!").map(str::to_owned)
        });
        let file = self.read(table, "file", "a name of a wheel", |text| {
            let stem = text.strip_suffix(".whl")?;
            plain(stem, b"+.-_!").map(|_| text.to_owned())
        });
        let hex = |text: &str| Digest::from_hex(text).ok();
        let sha256 = self.read(table, "sha256", "64 digits of `0-9a-f`", hex);
        let size = match table.get("size") {
            None => None,
            Some(_) => Some(self.size(table)?),
        };
        Some(WheelPin {
            platform: platform?,
            name: name?,
            version: version?,
            file: file?,
            sha256: sha256?,
            size,
        })
    }

    fn release(&mut self, table: &Table) -> Option<ReleasePin> {
        let known = ["archive", "suite", "inrelease", "date", "signers"];
        self.keys("a release", table, &known);
        let archive = self.read(table, "archive", "a name of an archive", Ident::new);
        let suite = self.read(table, "suite", "a name of a suite", |text| {
            plain(text, b"._-/").map(ToOwned::to_owned)
        });
        let inrelease = self.digest(table, "inrelease");
        let date = self.epoch(table, "date");
        let signers = self.names(table, "signers", "a fingerprint", |text| {
            let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'A'..=b'F');
            matches!(text.len(), 40 | 64) && text.bytes().all(hex)
        });
        Some(ReleasePin {
            archive: archive?,
            suite: suite?,
            inrelease: inrelease?,
            date: date?,
            signers: signers?,
        })
    }

    fn package(&mut self, table: &Table) -> Option<PackagePin> {
        let known = [
            "name",
            "version",
            "arch",
            "for",
            "archive",
            "path",
            "size",
            "sha256",
            "source",
            "source-version",
            "depends",
            "reason",
        ];
        self.keys("a package", table, &known);
        let word = |marks: &'static [u8]| move |text: &str| plain(text, marks).map(str::to_owned);
        let name = self.read(table, "name", "a name of a package", word(PACKAGE));
        let version = self.read(table, "version", "a version", word(VERSION_MARKS));
        let arch = self.read(table, "arch", "an architecture", word(b"-"));
        let archive = self.read(table, "archive", "a name of an archive", Ident::new);
        let path = self.read(table, "path", "a path below the archive", |text| {
            is_pool_path(text).then(|| text.to_owned())
        });
        let size = self.size(table);
        let hex = |text: &str| Digest::from_hex(text).ok();
        let sha256 = self.read(table, "sha256", "64 digits of `0-9a-f`", hex);
        let source = self.read(table, "source", "a name of a package", word(PACKAGE));
        let source_version = match table.get("source-version") {
            None => None,
            Some(_) => {
                Some(self.read(table, "source-version", "a version", word(VERSION_MARKS))?)
            }
        };
        let is = |marks: &'static [u8]| move |text: &str| plain(text, marks).is_some();
        let depends = self.names(table, "depends", "a name of a package", is(PACKAGE));
        let reason = self.read(table, "reason", "a reason", word(b"+.- "));
        let arch = arch?;
        let for_architectures = if arch == ALL {
            self.names(table, "for", "an architecture", is(b"-"))?
        } else {
            Vec::new()
        };
        if arch == ALL && for_architectures.is_empty() {
            self.error(
                table.span,
                "a package for all architectures says `for` which",
            );
            return None;
        }
        if arch != ALL
            && let Some(entry) = table.get("for")
        {
            self.error(entry.key_span, "`for` goes with `arch = \"all\"`");
            return None;
        }
        Some(PackagePin {
            name: name?,
            arch,
            version: version?,
            for_architectures,
            archive: archive?,
            path: path?,
            size: size?,
            sha256: sha256?,
            source: source?,
            source_version,
            depends: depends?,
            reason: reason?,
        })
    }

    /// An array of strings of a form, sorted, each once.
    fn names(
        &mut self,
        table: &Table,
        key: &str,
        what: &str,
        form: impl Fn(&str) -> bool,
    ) -> Option<Vec<String>> {
        let value = self.required(table, key)?;
        let strings: Option<Vec<&str>> = match &value.data {
            Data::Array(values) => values
                .iter()
                .map(|value| match &value.data {
                    Data::String(text) => Some(text.as_str()),
                    _ => None,
                })
                .collect(),
            _ => None,
        };
        let Some(strings) = strings else {
            self.error(value.span, format!("`{key}` must be an array of strings"));
            return None;
        };
        if let Some(wrong) = strings.iter().find(|text| !form(text)) {
            let message = format!("`{}` in `{key}` is not {what}", wrong.escape_debug());
            self.error(value.span, message);
            return None;
        }
        let sorted: BTreeSet<&str> = strings.iter().copied().collect();
        if sorted.len() < strings.len() {
            self.error(value.span, format!("`{key}` names something twice"));
            return None;
        }
        Some(sorted.into_iter().map(str::to_owned).collect())
    }

    fn expectations(&mut self, document: &Table) -> BTreeMap<Target, Expect> {
        let mut expect = BTreeMap::new();
        for table in self.tables(document, "expect", false).unwrap_or_default() {
            if let Some((target, it)) = self.expectation(table) {
                self.insert(&mut expect, target, it, table.span);
            }
        }
        expect
    }

    fn expectation(&mut self, table: &Table) -> Option<(Target, Expect)> {
        self.keys(
            "an expectation",
            table,
            &["platform", "image-id", "manifest", "tree"],
        );
        let target = self.read(
            table,
            "platform",
            "a platform or `index`",
            |text| match text {
                "index" => Some(Target::Index),
                text => exact_platform(text).map(Target::Platform),
            },
        );
        let image_id = self.digest(table, "image-id");
        let manifest = self.digest(table, "manifest");
        let tree = match (target?, table.get("tree")) {
            (Target::Index, None) => None,
            (Target::Index, Some(entry)) => {
                self.error(entry.key_span, "an index has no `tree`");
                return None;
            }
            (Target::Platform(_), _) => Some(TreeId::new(self.digest(table, "tree")?)),
        };
        let expect = Expect {
            image_id: image_id?,
            manifest: manifest?,
            tree,
        };
        Some((target?, expect))
    }

    /// The tables of an array; a required one has at least one.
    fn tables<'t>(
        &mut self,
        table: &'t Table,
        key: &str,
        required: bool,
    ) -> Option<Vec<&'t Table>> {
        let value = match table.get(key) {
            Some(entry) => &entry.value,
            None if required => {
                self.error(table.span, format!("`{key}` is missing"));
                return None;
            }
            None => return Some(Vec::new()),
        };
        let tables: Option<Vec<&Table>> = match &value.data {
            Data::Array(values) if !values.is_empty() => values
                .iter()
                .map(|value| match &value.data {
                    Data::Table(table) => Some(table),
                    _ => None,
                })
                .collect(),
            _ => None,
        };
        if tables.is_none() {
            self.error(value.span, format!("`{key}` must be tables"));
        }
        tables
    }

    fn insert<K: Ord, V>(&mut self, map: &mut BTreeMap<K, V>, key: K, value: V, span: Span) {
        if map.insert(key, value).is_some() {
            self.error(span, "this is there twice");
        }
    }

    /// Either one for all platforms or one for each.
    fn one_or_each<V>(&mut self, pins: &BTreeMap<Option<Platform>, V>, span: Span) {
        if pins.len() > 1 && pins.contains_key(&None) {
            self.error(span, "one of the files does not say its platform");
        }
    }
}

fn exact_platform(text: &str) -> Option<Platform> {
    text.parse::<Platform>()
        .ok()
        .filter(|platform| platform.to_string() == text)
}

/// What a name of a package has besides letters and digits.
const PACKAGE: &[u8] = b"+.-";
/// What a version has besides letters and digits.
const VERSION_MARKS: &[u8] = b"+.-~:";

/// The text, if it is letters, digits and these marks: so that it needs no escape when it is written.
fn plain<'t>(text: &'t str, marks: &[u8]) -> Option<&'t str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || marks.contains(&byte);
    (!text.is_empty() && text.bytes().all(allowed)).then_some(text)
}

/// A path below an archive's top: in plain form, of characters that a URL and a lock take as they are.
fn is_pool_path(text: &str) -> bool {
    let part = |part: &str| plain(part, b"+.-~_:%=,@").is_some() && part != "." && part != "..";
    text.split('/').all(part)
}
