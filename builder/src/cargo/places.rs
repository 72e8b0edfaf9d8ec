//! Where crates are, as this machine has it: cargo's own configuration and what cargo keeps.
//!
//! No registry is known here. What is found reaches no lock and no byte of any image.
#![allow(clippy::disallowed_methods, reason = "what a directory has is sorted")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use immbuild_cas::digest::Digest;

use crate::resolve::http;
use crate::spec::document::{self, Table};

/// The name that cargo gives to the registry of the community.
const COMMUNITY: &str = "crates-io";
/// How often one source may be replaced with another.
const REPLACED: usize = 16;

/// What of this machine says where crates are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CargoPlaces {
    /// `CARGO_HOME`.
    pub home: Option<PathBuf>,
    /// Where the user says crates of the community's registry are: as `dl` of a registry has it.
    pub downloads: Vec<String>,
}

/// Where the crates of one registry are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Directories with `NAME-VERSION.crate` in them.
    pub directories: Vec<PathBuf>,
    /// URLs of indexes (sparse), whose `config.json` says where crates are.
    pub indexes: Vec<String>,
    /// Where crates are, with places for name and version.
    pub downloads: Vec<String>,
}

impl Places {
    /// Does nobody say anything?
    pub fn is_empty(&self) -> bool {
        self.directories.is_empty() && self.indexes.is_empty() && self.downloads.is_empty()
    }

    /// The file of a crate in one of the directories.
    pub fn file(&self, name: &str, version: &str) -> Option<PathBuf> {
        let file = format!("{name}-{version}.crate");
        let mut paths = self
            .directories
            .iter()
            .map(|directory| directory.join(&file));
        paths.find(|path| path.is_file())
    }
}

/// A source of cargo's configuration.
#[derive(Clone, Debug, Default)]
struct Source {
    replaced_with: Option<String>,
    registry: Option<String>,
    local_registry: Option<PathBuf>,
}

/// What cargo's files of configuration say, the nearest first.
#[derive(Debug, Default)]
struct Configuration {
    sources: BTreeMap<String, Source>,
    registries: BTreeMap<String, String>,
}

impl Configuration {
    /// As cargo finds them: in this directory and each above, then in its home.
    fn read(directory: &Path, home: Option<&Path>) -> Self {
        let mut configuration = Self::default();
        let above = directory.ancestors().map(|it| it.join(".cargo"));
        for place in above.chain(home.map(Path::to_path_buf)) {
            for name in ["config.toml", "config"] {
                let path = place.join(name);
                let Ok(text) = fs::read_to_string(&path) else {
                    continue;
                };
                let file = document::source_file(&path.display().to_string(), &text);
                // What cargo cannot read, it says better.
                if let Ok(table) = document::parse(&file) {
                    configuration.add(&table, &place);
                }
                break;
            }
        }
        configuration
    }

    fn add(&mut self, table: &Table, place: &Path) {
        let tables = |key: &str| -> Vec<(String, &Table)> {
            let entries = table.table(key).map(|table| table.entries.as_slice());
            entries
                .unwrap_or_default()
                .iter()
                .filter_map(|entry| match &entry.value.data {
                    document::Data::Table(table) => Some((entry.key.clone(), table)),
                    _ => None,
                })
                .collect()
        };
        for (name, table) in tables("source") {
            let source = self.sources.entry(name).or_default();
            let text = |key: &str| table.text(key).map(str::to_owned);
            source.replaced_with = source.replaced_with.take().or_else(|| text("replace-with"));
            source.registry = source.registry.take().or_else(|| text("registry"));
            if source.local_registry.is_none() {
                // Seen from the directory that `.cargo` is in.
                let base = place.parent().unwrap_or(place);
                source.local_registry = text("local-registry").map(|path| base.join(path));
            }
        }
        for (name, table) in tables("registries") {
            if let Some(index) = table.text("index") {
                self.registries
                    .entry(name)
                    .or_insert_with(|| index.to_owned());
            }
        }
    }

    /// Where a source has gone after all replacements.
    fn resolve(&self, name: &str) -> (Option<String>, Option<PathBuf>) {
        let mut name = name.to_owned();
        for _ in 0..REPLACED {
            let source = self.sources.get(&name);
            if let Some(next) = source.and_then(|source| source.replaced_with.clone()) {
                name = next;
                continue;
            }
            let registry = source.and_then(|source| source.registry.clone());
            let registry = registry.or_else(|| self.registries.get(&name).cloned());
            return (
                registry,
                source.and_then(|source| source.local_registry.clone()),
            );
        }
        (None, None)
    }
}

/// Where the crates of a registry are; nothing for its name means the community's.
pub fn places(machine: &CargoPlaces, project: &Path, registry: Option<&str>) -> Places {
    let home = machine.home.as_deref();
    let configuration = Configuration::read(project, home);
    let mut places = Places::default();
    // Files that cargo has fetched: whose they are, the digest says.
    let kept = home.map(|home| home.join("registry"));
    let below = |name: &str| -> Vec<PathBuf> {
        let directory = kept
            .as_ref()
            .and_then(|kept| fs::read_dir(kept.join(name)).ok());
        let entries = directory.into_iter().flatten().flatten();
        let paths: BTreeSet<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.into_iter().collect()
    };
    places.directories = below("cache");
    let name = match registry {
        None => COMMUNITY.to_owned(),
        Some(registry) => {
            let url = registry.strip_prefix("registry+").unwrap_or(registry);
            let by_url = configuration
                .sources
                .iter()
                .find(|(_, source)| source.registry.as_deref() == Some(url));
            by_url.map_or_else(|| url.to_owned(), |(name, _)| name.clone())
        }
    };
    let (index, local) = configuration.resolve(&name);
    places.directories.extend(local);
    if registry.is_none() {
        places.downloads.clone_from(&machine.downloads);
    }
    let index = index.or_else(|| registry.map(str::to_owned));
    if let Some(url) = index
        .as_deref()
        .and_then(|index| index.strip_prefix("sparse+"))
    {
        places.indexes.push(url.to_owned());
    }
    if registry.is_none() && index.is_none() {
        // Nothing replaces it: what cargo has used here knows where its crates are.
        for path in below("index") {
            let text = fs::read_to_string(path.join("config.json")).ok();
            places
                .downloads
                .extend(text.and_then(|text| download_of(text.as_bytes())));
        }
    }
    places
}

/// `dl` of a registry's `config.json`.
pub fn download_of(config: &[u8]) -> Option<String> {
    let config: serde_json::Value = serde_json::from_slice(config).ok()?;
    config["dl"].as_str().map(str::to_owned)
}

/// The URL of the `config.json` of an index.
pub fn config_of(index: &str) -> Option<String> {
    http::join(&format!("{}/", index.trim_end_matches('/')), "config.json")
}

/// The URL of a crate by `dl` (Cargo book, "Registry Index", "Index Configuration").
pub fn url(download: &str, name: &str, version: &str, sha256: &Digest) -> String {
    const MARKS: [&str; 5] = [
        "{crate}",
        "{version}",
        "{prefix}",
        "{lowerprefix}",
        "{sha256-checksum}",
    ];
    // A version may have a `+`, which some servers take for a space.
    let version = version.replace('+', "%2B");
    if !MARKS.iter().any(|mark| download.contains(mark)) {
        return format!("{download}/{name}/{version}/download");
    }
    let prefix = match name.len() {
        1 => "1".to_owned(),
        2 => "2".to_owned(),
        3 => format!("3/{}", &name[..1]),
        _ => format!("{}/{}", &name[..2], &name[2..4]),
    };
    download
        .replace("{crate}", name)
        .replace("{version}", &version)
        .replace("{prefix}", &prefix)
        .replace("{lowerprefix}", &prefix.to_lowercase())
        .replace("{sha256-checksum}", &sha256.to_hex())
}
