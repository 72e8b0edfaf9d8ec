//! What a user says for this machine, in `config.toml`: where archives are. It reaches no lock and no byte of any image.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::failure::{Exit, Failure};
use super::project::io_failure;
use crate::debian::sources::{Places, UserMirrors};
use crate::diag::{Diagnostic, Place, SourceFile, Span};
use crate::spec::document::{self, Data, Table, Value};

/// Reads the file; none is nothing said.
pub fn read(path: &Path) -> Result<UserMirrors, Failure> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(UserMirrors::new()),
        Err(error) => return Err(io_failure("read", path, &error)),
    };
    parse(&text, &path.display().to_string())
        .map_err(|diagnostics| Failure::all(Exit::Usage, diagnostics))
}

/// `[archive.NAME]` with `mirrors` and `snapshot`.
fn parse(text: &str, name: &str) -> Result<UserMirrors, Vec<Diagnostic>> {
    let file = document::source_file(name, text);
    let document = document::parse(&file)?;
    let mut reader = Reader {
        file: &file,
        diagnostics: Vec::new(),
    };
    let mut mirrors = UserMirrors::new();
    reader.known(&document, &["archive"]);
    if let Some(entry) = document.get("archive") {
        let archives = reader.table(&entry.value, "archive");
        for entry in archives.iter().flat_map(|table| &table.entries) {
            if let Some(table) = reader.table(&entry.value, "an archive") {
                mirrors.insert(entry.key.clone(), reader.places(table));
            }
        }
    }
    if reader.diagnostics.is_empty() {
        Ok(mirrors)
    } else {
        Err(reader.diagnostics)
    }
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
            Ok(UserMirrors::from([("main".to_owned(), expected)]))
        );
        assert_eq!(parse("", "config.toml"), Ok(UserMirrors::new()));
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
        ] {
            assert!(parse(text, "config.toml").is_err(), "{text}");
        }
    }
}
