//! EFFECT: where an archive's files are: what the spec says, what this machine's user says, what its apt has, and last
//! the archive's old states.
//!
//! Nothing here is trusted: what comes from there is checked by signature or digest, so a wrong place costs time only.
#![allow(
    clippy::disallowed_methods,
    reason = "a directory of apt's is listed, and sorted as apt sorts it"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::control;
use crate::epoch::Epoch;

/// Longest file of apt's that is looked at.
const FILE_MAX: u64 = 1 << 20;
/// How long after a state's date old states are asked for: it is published then, and its files are still there.
const SETTLED: i64 = 12 * 3600;

/// The places of one archive, in the order they are tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// URLs of its top directory, without a slash at the end, each once.
    pub mirrors: Vec<String>,
    /// The URL of its top directory at `{timestamp}`.
    pub snapshot: Option<String>,
}

impl Places {
    /// Adds mirrors after those that are there.
    pub fn add<'a>(&mut self, mirrors: impl IntoIterator<Item = &'a String>) {
        for mirror in mirrors {
            let mirror = mirror.trim_end_matches('/').to_owned();
            if !self.mirrors.contains(&mirror) {
                self.mirrors.push(mirror);
            }
        }
    }

    /// Is there no place at all?
    pub fn is_empty(&self) -> bool {
        self.mirrors.is_empty() && self.snapshot.is_none()
    }

    /// The URLs of a file, in the order they are tried, as far as it was there at a date.
    pub fn urls(&self, path: &str, date: Option<Epoch>) -> Vec<String> {
        let mut urls: Vec<String> = self
            .mirrors
            .iter()
            .map(|mirror| format!("{mirror}/{}", escaped(path)))
            .collect();
        let old = self.snapshot.iter().zip(date).flat_map(|(snapshot, date)| {
            [date.seconds().saturating_add(SETTLED), date.seconds()]
                .into_iter()
                .filter_map(|seconds| Epoch::from_seconds(seconds).ok())
                .map(|at| snapshot.replace("{timestamp}", &timestamp(at)))
        });
        urls.extend(old.map(|top| format!("{}/{}", top.trim_end_matches('/'), escaped(path))));
        urls
    }
}

/// `20260711T101637Z`
fn timestamp(at: Epoch) -> String {
    at.to_string().replace(['-', ':'], "")
}

/// The path as a URL has it: names of packages have characters that mean something there.
fn escaped(path: &str) -> String {
    path.replace('%', "%25").replace('+', "%2B")
}

/// What this machine's apt takes packages from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostSources {
    entries: Vec<Entry>,
}

/// One line of `sources.list`, or one stanza of a file of `*.sources`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
}

impl HostSources {
    /// Reads what is in `/etc/apt`, or a directory like it. What is not there or cannot be read is no place.
    pub fn read(apt: &Path) -> Self {
        let mut entries = Vec::new();
        if let Some(text) = read(&apt.join("sources.list")) {
            entries.extend(one_line(&text));
        }
        let parts = fs::read_dir(apt.join("sources.list.d"));
        let mut files: Vec<_> = parts
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        files.sort();
        for file in files {
            let Some(text) = read(&file) else { continue };
            match file.extension().and_then(|ending| ending.to_str()) {
                Some("list") => entries.extend(one_line(&text)),
                Some("sources") => entries.extend(stanzas(&text)),
                _ => {}
            }
        }
        for entry in &mut entries {
            let uris = std::mem::take(&mut entry.uris);
            entry.uris = uris.iter().flat_map(|uri| plain_uris(uri)).collect();
        }
        Self { entries }
    }

    /// The suites it names.
    pub fn suites(&self) -> impl Iterator<Item = &str> {
        let entries = self.entries.iter();
        entries.flat_map(|entry| entry.suites.iter().map(String::as_str))
    }

    /// The URLs it has for any of these suites of these components, in its order.
    pub fn mirrors(&self, suites: &[String], components: &[String]) -> Vec<String> {
        let has = |all: &[String], wanted: &[String]| wanted.iter().any(|it| all.contains(it));
        self.entries
            .iter()
            .filter(|entry| has(&entry.suites, suites) && has(&entry.components, components))
            .flat_map(|entry| entry.uris.clone())
            .collect()
    }
}

fn read(path: &Path) -> Option<String> {
    let status = fs::metadata(path).ok()?;
    if !status.is_file() || status.len() > FILE_MAX {
        return None;
    }
    fs::read_to_string(path).ok()
}

/// `deb [option=value …] URI SUITE COMPONENT…`
fn one_line(text: &str) -> Vec<Entry> {
    let entry = |line: &str| {
        let line = line.split('#').next().unwrap_or_default().trim();
        let mut rest = line.strip_prefix("deb ")?.trim_start();
        if let Some(options) = rest.strip_prefix('[') {
            rest = options.split_once(']')?.1;
        }
        let mut words = rest.split_whitespace().map(ToOwned::to_owned);
        Some(Entry {
            uris: vec![words.next()?],
            suites: vec![words.next()?],
            components: words.collect(),
        })
    };
    text.lines().filter_map(entry).collect()
}

/// `Types:`, `URIs:`, `Suites:`, `Components:` and `Enabled:`.
fn stanzas(text: &str) -> Vec<Entry> {
    let words = |field: Option<control::Field<'_>>| -> Vec<String> {
        let lines = field.iter().flat_map(control::Field::lines);
        let words = lines.flat_map(str::split_whitespace);
        words.map(ToOwned::to_owned).collect()
    };
    control::stanzas(text)
        .map_while(Result::ok)
        .filter(|stanza| {
            let off = stanza
                .get("Enabled")
                .is_some_and(|it| matches!(it, "no" | "false" | "0" | "off"));
            !off && words(stanza.field("Types")).iter().any(|it| it == "deb")
        })
        .map(|stanza| Entry {
            uris: words(stanza.field("URIs")),
            suites: words(stanza.field("Suites")),
            components: words(stanza.field("Components")),
        })
        .collect()
}

/// What this program can fetch by: the URL itself, or for a list of mirrors in a file what it lists.
fn plain_uris(uri: &str) -> Vec<String> {
    let known = ["http://", "https://", "file:///"];
    if known.iter().any(|start| uri.starts_with(start)) {
        return vec![uri.to_owned()];
    }
    if let Some(path) = uri.strip_prefix("copy:/").or(uri.strip_prefix("file:/")) {
        return vec![format!("file:///{}", path.trim_start_matches('/'))];
    }
    let Some(list) = uri.strip_prefix("mirror+file:") else {
        return Vec::new();
    };
    let text = read(Path::new(list)).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split('\t').next())
        .map(str::trim)
        .filter(|line| known.iter().any(|start| line.starts_with(start)))
        .map(ToOwned::to_owned)
        .collect()
}

/// Mirrors that a user names for this machine, by the name of the archive in specs.
pub type UserMirrors = BTreeMap<String, Places>;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn both_forms_of_apt_are_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let apt = directory.path();
        let parts = apt.join("sources.list.d");
        fs::create_dir(&parts).expect("made");
        let write = |name: &str, text: &str| fs::write(apt.join(name), text).expect("written");
        write(
            "sources.list",
            "# old\ndeb [arch=amd64 signed-by=/x] https://a.example.com/debian bookworm main contrib # why\n\
             deb-src https://a.example.com/debian bookworm main\n#deb https://off.example.com/ bookworm main\n",
        );
        write(
            "mirrors.txt",
            "https://m1.example.com/debian\tpriority:1\nhttps://m2.example.com/debian\n",
        );
        write(
            "sources.list.d/z.sources",
            &format!(
                "Types: deb deb-src\n# a comment\nURIs: http://b.example.com/debian/\n mirror+file:{}\nSuites: bookworm bookworm-updates\n\
                 Components: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n x\n\n\
                 Types: deb\nURIs: https://off.example.com\nSuites: bookworm\nComponents: main\nEnabled: no\n",
                apt.join("mirrors.txt").display()
            ),
        );
        write(
            "sources.list.d/a.list",
            "deb copy:/srv/debian bookworm-updates main\ndeb cdrom:[x]/ bookworm main\n",
        );
        write(
            "sources.list.d/b.list.disabled",
            "deb https://off.example.com bookworm main\n",
        );
        let sources = HostSources::read(apt);
        assert_eq!(
            sources.mirrors(&text(&["bookworm"]), &text(&["main"])),
            [
                "https://a.example.com/debian",
                "http://b.example.com/debian/",
                "https://m1.example.com/debian",
                "https://m2.example.com/debian"
            ]
        );
        assert_eq!(
            sources.mirrors(&text(&["bookworm-updates"]), &text(&["main"]))[0],
            "file:///srv/debian"
        );
        assert!(
            sources
                .mirrors(&text(&["trixie"]), &text(&["main"]))
                .is_empty()
        );
        assert!(
            sources
                .mirrors(&text(&["bookworm"]), &text(&["non-free"]))
                .is_empty()
        );
        assert_eq!(HostSources::read(&apt.join("gone")), HostSources::default());
    }

    #[test]
    fn mirrors_come_first_and_old_states_last() {
        let mut places = Places {
            snapshot: Some("https://old.example.com/{timestamp}/".into()),
            ..Places::default()
        };
        places.add(&text(&[
            "https://a.example.com/debian/",
            "https://a.example.com/debian",
        ]));
        let date = "2026-07-11T10:16:37Z".parse().ok();
        assert_eq!(
            places.urls("pool/g/g++_1_amd64.deb", date),
            [
                "https://a.example.com/debian/pool/g/g%2B%2B_1_amd64.deb",
                "https://old.example.com/20260711T221637Z/pool/g/g%2B%2B_1_amd64.deb",
                "https://old.example.com/20260711T101637Z/pool/g/g%2B%2B_1_amd64.deb"
            ]
        );
        assert_eq!(places.urls("x", None).len(), 1);
    }
}
