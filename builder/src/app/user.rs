//! What a user says for this machine, in `config.toml`: where archives are, how registries are reached. It reaches no lock and no byte of any image.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use super::failure::{Exit, Failure};
use super::project::io_failure;
use super::shared::Sharing;
use crate::debian::sources::{Places, UserMirrors};
use crate::diag::{Diagnostic, Place, SourceFile, Span};
use crate::python::places::IndexPlaces;
use crate::registry::HostAccess;
use crate::spec::document::{self, Data, Table, Value};
use crate::spec::image_name::is_host;

/// Reads the file; none is nothing said.
pub fn read(path: &Path) -> Result<User, Failure> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(User::default()),
        Err(error) => return Err(io_failure("read", path, &error)),
    };
    parse(&text, &path.display().to_string())
        .map_err(|diagnostics| Failure::all(Exit::Usage, diagnostics))
}

/// `[archive.NAME]` with `mirrors` and `snapshot`; `[python]` with `indexes` and `directories`; `[cargo]` with `downloads`;
/// `[registry."HOST"]` with `plain-http`, `ca`, `certificate` and `key`; `[cache]` with `key`, `signers` and `unsigned`.
fn parse(text: &str, name: &str) -> Result<User, Vec<Diagnostic>> {
    let file = document::source_file(name, text);
    let document = document::parse(&file)?;
    let mut reader = Reader {
        file: &file,
        diagnostics: Vec::new(),
    };
    let mut mirrors = UserMirrors::new();
    reader.known(
        &document,
        &["archive", "python", "cargo", "registry", "cache"],
    );
    if let Some(entry) = document.get("archive") {
        let archives = reader.table(&entry.value, "archive");
        for entry in archives.iter().flat_map(|table| &table.entries) {
            if let Some(table) = reader.table(&entry.value, "an archive") {
                mirrors.insert(entry.key.clone(), reader.places(table));
            }
        }
    }
    let python = document
        .get("python")
        .and_then(|entry| reader.table(&entry.value, "python"))
        .map(|table| reader.python(table));
    let cargo = document
        .get("cargo")
        .and_then(|entry| reader.table(&entry.value, "cargo"));
    let downloads = cargo.map_or_else(Vec::new, |table| reader.cargo(table));
    let mut registries = BTreeMap::new();
    if let Some(entry) = document.get("registry") {
        let hosts = reader.table(&entry.value, "registry");
        for entry in hosts.iter().flat_map(|table| &table.entries) {
            if !is_host(&entry.key) {
                let message = format!("`{}` is no host", entry.key.escape_debug());
                reader.error(entry.key_span, message);
            } else if let Some(table) = reader.table(&entry.value, "a registry") {
                registries.insert(entry.key.clone(), reader.registry(table));
            }
        }
    }
    let sharing = document
        .get("cache")
        .and_then(|entry| reader.table(&entry.value, "cache"))
        .map_or_else(Sharing::default, |table| reader.sharing(table));
    if reader.diagnostics.is_empty() {
        Ok(User {
            mirrors,
            python,
            downloads,
            registries,
            sharing,
        })
    } else {
        Err(reader.diagnostics)
    }
}

/// What a user says for this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Where archives of packages are.
    pub mirrors: UserMirrors,
    /// Where packages of Python are, in place of what pip would go by.
    pub python: Option<IndexPlaces>,
    /// Where crates are, as `dl` of a registry has it.
    pub downloads: Vec<String>,
    /// How registries are reached, by host.
    pub registries: BTreeMap<String, HostAccess>,
    /// Who is believed about results of steps.
    pub sharing: Sharing,
}

struct Reader<'f> {
    file: &'f Arc<SourceFile>,
    diagnostics: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn error(&mut self, span: Span, message: String) {
        let file = Arc::clone(self.file);
        let place = Place { file, span };
        self.diagnostics.push(Diagnostic::error(message).at(place));
    }

    fn known(&mut self, table: &Table, names: &[&str]) {
        for entry in &table.entries {
            if !names.contains(&entry.key.as_str()) {
                let message = format!(
                    "there is no key `{}`: there are {}",
                    entry.key.escape_debug(),
                    names.join(", ")
                );
                self.error(entry.key_span, message);
            }
        }
    }

    fn table<'v>(&mut self, value: &'v Value, what: &str) -> Option<&'v Table> {
        if let Data::Table(table) = &value.data {
            return Some(table);
        }
        self.error(value.span, format!("{what} must be a table"));
        None
    }

    fn places(&mut self, table: &Table) -> Places {
        self.known(table, &["mirrors", "snapshot"]);
        let mut places = Places::default();
        if let Some(entry) = table.get("mirrors") {
            match &entry.value.data {
                Data::Array(values) => {
                    let urls: Vec<String> =
                        values.iter().filter_map(|value| self.url(value)).collect();
                    places.add(&urls);
                }
                _ => self.error(entry.value.span, "`mirrors` must be an array".into()),
            }
        }
        if let Some(entry) = table.get("snapshot") {
            places.snapshot = self.url(&entry.value);
            let has_time = |url: &String| url.contains("{timestamp}");
            if !places.snapshot.iter().all(has_time) {
                let message = "`snapshot` has no place for the time: `{timestamp}`";
                self.error(entry.value.span, message.into());
            }
        }
        places
    }

    fn python(&mut self, table: &Table) -> IndexPlaces {
        self.known(table, &["indexes", "directories"]);
        let mut places = IndexPlaces::default();
        for entry in &table.entries {
            let Data::Array(values) = &entry.value.data else {
                let message = format!("`{}` must be an array", entry.key.escape_debug());
                self.error(entry.value.span, message);
                continue;
            };
            for value in values {
                if entry.key == "indexes" {
                    places.indexes.extend(self.url(value));
                    continue;
                }
                places.directories.extend(self.absolute(value));
            }
        }
        places
    }

    fn cargo(&mut self, table: &Table) -> Vec<String> {
        self.known(table, &["downloads"]);
        match table.get("downloads").map(|entry| &entry.value) {
            None => Vec::new(),
            Some(Value {
                data: Data::Array(values),
                ..
            }) => values.iter().filter_map(|value| self.url(value)).collect(),
            Some(value) => {
                self.error(value.span, "`downloads` must be an array".into());
                Vec::new()
            }
        }
    }

    fn registry(&mut self, table: &Table) -> HostAccess {
        self.known(table, &["plain-http", "ca", "certificate", "key"]);
        let mut access = HostAccess::default();
        let mut path = |name| self.absolute(&table.get(name)?.value);
        access.roots = path("ca");
        let (certificate, key) = (path("certificate"), path("key"));
        access.identity = certificate.zip(key);
        for (name, other) in [("certificate", "key"), ("key", "certificate")] {
            if let Some(entry) = table.get(name)
                && table.get(other).is_none()
            {
                self.error(
                    entry.key_span,
                    format!("`{name}` is nothing without `{other}`"),
                );
            }
        }
        if let Some(entry) = table.get("plain-http") {
            match entry.value.data {
                Data::Boolean(plain) => access.plain = Some(plain),
                _ => self.error(entry.value.span, "this must be `true` or `false`".into()),
            }
            let is_moot = access.plain == Some(true)
                && ["ca", "certificate", "key"]
                    .iter()
                    .any(|name| table.get(name).is_some());
            if is_moot {
                let message = "where nothing is protected, no certificate is looked at";
                self.error(entry.key_span, message.into());
            }
        }
        access
    }

    fn sharing(&mut self, table: &Table) -> Sharing {
        self.known(table, &["key", "signers", "unsigned"]);
        let key = table.get("key");
        Sharing {
            key: key.and_then(|entry| self.absolute(&entry.value)),
            signers: self.all(table, "signers"),
            unsigned: self.all(table, "unsigned"),
        }
    }

    /// The values of an array of texts.
    fn all<T>(&mut self, table: &Table, name: &str) -> BTreeSet<T>
    where
        T: FromStr<Err: Display> + Ord,
    {
        let mut found = BTreeSet::new();
        let Some(value) = table.get(name).map(|entry| &entry.value) else {
            return found;
        };
        let Data::Array(values) = &value.data else {
            self.error(value.span, format!("`{name}` must be an array"));
            return found;
        };
        for value in values {
            match &value.data {
                Data::String(text) => match text.parse() {
                    Ok(parsed) => {
                        found.insert(parsed);
                    }
                    Err(error) => {
                        let message = format!("`{}`: {error}", text.escape_debug());
                        self.error(value.span, message);
                    }
                },
                _ => self.error(value.span, "this must be a string".into()),
            }
        }
        found
    }

    fn absolute(&mut self, value: &Value) -> Option<PathBuf> {
        match &value.data {
            Data::String(text) if text.starts_with('/') => Some(text.into()),
            _ => {
                self.error(value.span, "this must be an absolute path".into());
                None
            }
        }
    }

    fn url(&mut self, value: &Value) -> Option<String> {
        match &value.data {
            Data::String(text)
                if ["https://", "http://", "file://"]
                    .iter()
                    .any(|start| text.starts_with(start)) =>
            {
                Some(text.clone())
            }
            _ => {
                let message = "this must be a URL: `https://…`, `http://…` or `file://…`";
                self.error(value.span, message.into());
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_read_by_the_name_of_the_archive() {
        let text = "[archive.main]\nmirrors = [\"https://m.example.com/debian/\"]\nsnapshot = \"https://s.example.com/{timestamp}\"\n";
        let expected = Places {
            mirrors: vec!["https://m.example.com/debian".into()],
            snapshot: Some("https://s.example.com/{timestamp}".into()),
        };
        assert_eq!(
            parse(text, "config.toml"),
            Ok(User {
                mirrors: UserMirrors::from([("main".to_owned(), expected)]),
                python: None,
                downloads: Vec::new(),
                ..User::default()
            })
        );
        assert_eq!(parse("", "config.toml"), Ok(User::default()));
        let text = "[python]\nindexes = [\"https://i.example.com/simple\"]\ndirectories = [\"/opt/wheels\"]\n";
        let expected = IndexPlaces {
            indexes: vec!["https://i.example.com/simple".into()],
            directories: vec!["/opt/wheels".into()],
        };
        let read = parse(text, "config.toml").expect("a configuration");
        assert_eq!(read.python, Some(expected));
        let text = "[cargo]\ndownloads = [\"https://c.example.com/{crate}/{version}\"]\n";
        let read = parse(text, "config.toml").expect("a configuration");
        assert_eq!(read.downloads, ["https://c.example.com/{crate}/{version}"]);
    }

    #[test]
    fn who_is_believed_is_read() {
        let signer = format!("ed25519:{}", "0".repeat(64));
        let text = format!(
            "[cache]\nkey = \"/k\"\nsigners = [\"{signer}\"]\nunsigned = [\"r.example.com/cache\"]\n"
        );
        let read = parse(&text, "config.toml").expect("a configuration");
        assert_eq!(
            read.sharing,
            Sharing {
                key: Some("/k".into()),
                signers: BTreeSet::from([signer.parse().expect("a key")]),
                unsigned: BTreeSet::from(["r.example.com/cache".parse().expect("a repository")]),
            }
        );
        for wrong in [
            "key = \"k\"",
            "key = 1",
            "signers = \"ed25519:\"",
            "signers = [\"rsa:00\"]",
            "signers = [1]",
            "unsigned = [\"cache\"]",
            "signer = []",
        ] {
            assert!(
                parse(&format!("[cache]\n{wrong}\n"), "config.toml").is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn registries_are_read_by_their_host() {
        let text = "[registry.\"r.example.com:5000\"]\nca = \"/etc/ca.pem\"\ncertificate = \"/c.pem\"\nkey = \"/k.pem\"\n[registry.\"10.0.0.1\"]\nplain-http = true\n";
        let read = parse(text, "config.toml").expect("a configuration");
        let safe = HostAccess {
            plain: None,
            roots: Some("/etc/ca.pem".into()),
            identity: Some(("/c.pem".into(), "/k.pem".into())),
        };
        let plain = HostAccess {
            plain: Some(true),
            ..HostAccess::default()
        };
        let expected = [("10.0.0.1", plain), ("r.example.com:5000", safe)];
        let expected = expected.map(|(host, access)| (host.to_owned(), access));
        assert_eq!(read.registries, BTreeMap::from(expected));
    }

    #[test]
    fn what_means_nothing_is_told() {
        for text in [
            "mirrors = []",
            "archive = 1",
            "archive.main = 1",
            "[archive.main]\nmirror = []",
            "[archive.main]\nmirrors = \"https://m.example.com\"",
            "[archive.main]\nmirrors = [\"m.example.com\"]",
            "[archive.main]\nsnapshot = \"https://s.example.com\"",
            "x = ",
            "python = []",
            "cargo = []",
            "registry = []",
            "registry.shop = {}",
            "registry.\"r.example.com\" = 1",
            "[registry.\"r.example.com\"]\ninsecure = true",
            "[registry.\"r.example.com\"]\nplain-http = \"yes\"",
            "[registry.\"r.example.com\"]\nca = \"ca.pem\"",
            "[registry.\"r.example.com\"]\ncertificate = \"/c.pem\"",
            "[registry.\"r.example.com\"]\nplain-http = true\nca = \"/ca.pem\"",
            "[cargo]\ndownloads = 1",
            "[cargo]\ndownload = []",
            "[python]\nindex = []",
            "[python]\nindexes = [\"i.example.com\"]",
            "[python]\ndirectories = [\"wheels\"]",
        ] {
            assert!(parse(text, "config.toml").is_err(), "{text}");
        }
    }
}
