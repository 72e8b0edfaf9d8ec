//! The lock as text: one way to write it, and a reader that takes nothing else than what it means.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::sync::Arc;

use immbuild_cas::digest::{Digest, TreeId};

use super::model::{CommitPin, Expect, FilePin, Lock, Locked, ManifestPin, Pin, Target};
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
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a string takes everything");
}

/// No value of a lock needs an escape: they are names, digests and platforms.
fn string(out: &mut String, key: &str, value: &dyn Display) {
    line(out, format_args!("{key} = \"{value}\""));
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
const RESTORE: &str = "take the file back from version control, or remove it and run `immbuild lock`, which finds everything anew";

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
        let epoch = self.epoch(document);
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

    fn epoch(&mut self, document: &Table) -> Option<Epoch> {
        let value = self.required(document, "epoch")?;
        let epoch = match &value.data {
            Data::Datetime(text) => text.parse().ok(),
            _ => None,
        };
        if epoch.is_none() {
            self.error(
                value.span,
                "`epoch` is not a time of the form `2026-11-21T00:53:02Z`",
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
            "debian" => {
                let span = table.get("kind")?.value.span;
                let error =
                    Diagnostic::error("pins of `debian` sources are not supported by this version");
                self.report(span, error.hint(NEWER));
                return None;
            }
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
