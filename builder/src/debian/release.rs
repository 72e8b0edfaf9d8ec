//! `Release`: what an archive says of a suite, once its signature has been checked. Pure.

use std::collections::BTreeMap;

use immbuild_cas::digest::Digest;

use super::control::{self, ControlError};
use crate::epoch::Epoch;

/// What a release says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// `oldstable`; empty where it says none.
    pub suite: String,
    /// `bookworm`; empty where it says none.
    pub codename: String,
    /// Where old states of this archive are, with `@SNAPSHOTID@` for the time; few archives say it.
    pub snapshots: Option<String>,
    /// When it was made.
    pub date: Epoch,
    /// When it is no longer to be taken for the newest.
    pub valid_until: Option<Epoch>,
    /// Are files also found by their digest?
    pub by_hash: bool,
    /// Does every index have the packages that fit all architectures, so that theirs need not be read?
    pub all_in_each: bool,
    /// How much its versions count against those of other suites.
    pub rank: Rank,
    /// Its files below `dists/SUITE/` by their SHA-256.
    pub files: BTreeMap<String, IndexFile>,
}

/// How much the versions of a suite count. Ordered: more is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Only where nothing else has the package: `NotAutomatic`.
    Never,
    /// As long as no other suite has it: `NotAutomatic` with `ButAutomaticUpgrades`, as backports have.
    Later,
    /// By version.
    Normal,
}

/// A file of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexFile {
    /// Digest of its bytes.
    pub sha256: Digest,
    /// How many bytes.
    pub size: u64,
}

/// Why a text is no release that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// No stanza.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A field that must be there.
    #[error("it has no `{0}`")]
    Missing(&'static str),
    /// A time that is none.
    #[error("its `{field}` is `{text}`, which is no time")]
    Time {
        /// The field.
        field: &'static str,
        /// What it says.
        text: String,
    },
    /// A line of `SHA256` that is no digest, size and name.
    #[error("its `SHA256` has the line `{0}`")]
    File(String),
}

impl Release {
    /// Reads the signed text.
    pub fn parse(text: &str) -> Result<Self, ReleaseError> {
        let stanza = control::stanza(text)?;
        let get = |name: &str| stanza.get(name).unwrap_or_default();
        let is = |name: &str| get(name) == "yes";
        let time = |field: &'static str| match stanza.get(field) {
            None => Ok(None),
            Some(text) => parse_time(text).map(Some).ok_or(ReleaseError::Time {
                field,
                text: text.escape_debug().to_string(),
            }),
        };
        let mut files = BTreeMap::new();
        let list = stanza
            .field("SHA256")
            .ok_or(ReleaseError::Missing("SHA256"))?;
        for line in list.lines().filter(|line| !line.is_empty()) {
            let (name, file) = index_file(line)
                .ok_or_else(|| ReleaseError::File(line.escape_debug().to_string()))?;
            files.insert(name.to_owned(), file);
        }
        let rank = match (is("NotAutomatic"), is("ButAutomaticUpgrades")) {
            (false, _) => Rank::Normal,
            (true, true) => Rank::Later,
            (true, false) => Rank::Never,
        };
        let architectures = get("Architectures");
        let has_all = architectures.split_whitespace().any(|it| it == "all");
        Ok(Self {
            suite: get("Suite").to_owned(),
            codename: get("Codename").to_owned(),
            snapshots: stanza.get("Snapshots").map(ToOwned::to_owned),
            date: time("Date")?.ok_or(ReleaseError::Missing("Date"))?,
            valid_until: time("Valid-Until")?,
            by_hash: is("Acquire-By-Hash"),
            all_in_each: !has_all || get("No-Support-for-Architecture-all") == "Packages",
            rank,
            files,
        })
    }

    /// Is it the suite that was asked for? One archive signs many with the same key.
    pub fn is_of(&self, asked: &str) -> bool {
        // A suite may be asked for by a path, of which the release says the first part or all of it.
        let names = [&self.suite, &self.codename];
        names.into_iter().any(|name| {
            !name.is_empty() && (name == asked || asked.starts_with(&format!("{name}/")))
        })
    }

    /// The smallest form of an index that can be read, with its name.
    pub fn index(&self, component: &str, architecture: &str) -> Option<(String, IndexFile)> {
        let plain = format!("{component}/binary-{architecture}/Packages");
        [".xz", ".zst", ".gz", ""]
            .into_iter()
            .map(|ending| format!("{plain}{ending}"))
            .find_map(|name| self.files.get(&name).map(|file| (name.clone(), *file)))
    }
}

/// `DIGEST SIZE NAME`
fn index_file(line: &str) -> Option<(&str, IndexFile)> {
    let mut words = line.split_whitespace();
    let (digest, size, name) = (words.next()?, words.next()?, words.next()?);
    let file = IndexFile {
        sha256: Digest::from_hex(digest).ok()?,
        size: size.parse().ok()?,
    };
    words.next().is_none().then_some((name, file))
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// `Sat, 11 Jul 2026 10:16:37 UTC`: RFC 5322 in UTC, which is all that Policy's archives write.
fn parse_time(text: &str) -> Option<Epoch> {
    let rest = text.split_once(',').map_or(text, |(_, rest)| rest);
    let words: Vec<&str> = rest.split_whitespace().collect();
    let [day, month, year, time, zone] = words.as_slice() else {
        return None;
    };
    let month = 1 + MONTHS.iter().position(|it| it == month)?;
    let parts: Vec<&str> = time.split(':').collect();
    let [hour, minute, second] = parts.as_slice() else {
        return None;
    };
    if !matches!(*zone, "UTC" | "GMT" | "Z" | "+0000" | "-0000") {
        return None;
    }
    format!("{year}-{month:02}-{day:0>2}T{hour:0>2}:{minute}:{second}Z")
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE: &str = "\
Origin: Debian
Suite: oldstable
Codename: bookworm
Date: Sat, 11 Jul 2026 10:16:37 UTC
Valid-Until: Sat, 18 Jul 2026 10:16:37 UTC
Acquire-By-Hash: yes
No-Support-for-Architecture-all: Packages
Architectures: all amd64
SHA256:
 9e0b5aabb2465b3d2e7a7fe27f9913846277833f7a2826e7767acccff5b588c5  8790396 main/binary-amd64/Packages.xz
 8e0b5aabb2465b3d2e7a7fe27f9913846277833f7a2826e7767acccff5b588c5 50000000 main/binary-amd64/Packages
";

    fn read(text: &str) -> Release {
        Release::parse(text).expect("a release")
    }

    #[test]
    fn a_release_is_read_field_by_field() {
        let release = read(RELEASE);
        assert_eq!(release.date.to_string(), "2026-07-11T10:16:37Z");
        let until = release.valid_until.expect("it says one");
        assert_eq!(until.to_string(), "2026-07-18T10:16:37Z");
        assert!(release.by_hash && release.all_in_each);
        assert_eq!(release.rank, Rank::Normal);
        let (name, file) = release.index("main", "amd64").expect("it has one");
        assert_eq!(
            (name.as_str(), file.size),
            ("main/binary-amd64/Packages.xz", 8_790_396)
        );
        assert_eq!(release.index("main", "arm64"), None);
    }

    #[test]
    fn a_suite_is_known_by_either_of_its_names() {
        let release = read(RELEASE);
        assert!(release.is_of("bookworm") && release.is_of("oldstable"));
        assert!(!release.is_of("trixie") && !release.is_of("book") && !release.is_of(""));
    }

    #[test]
    fn what_is_not_taken_by_itself_counts_less() {
        let with = |fields: &str| read(&format!("{fields}{RELEASE}")).rank;
        let backports = with("NotAutomatic: yes\nButAutomaticUpgrades: yes\n");
        let experimental = with("NotAutomatic: yes\n");
        assert!(experimental < backports && backports < Rank::Normal);
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        for (from, to, expected) in [
            (
                "Date: Sat, 11 Jul",
                "Date: Sat, 31 Jun",
                "its `Date` is `Sat, 31 Jun 2026 10:16:37 UTC`, which is no time",
            ),
            ("Date: ", "Date-: ", "it has no `Date`"),
            ("SHA256:", "SHA1:", "it has no `SHA256`"),
            (
                "  8790396 ",
                " ",
                "its `SHA256` has the line `9e0b5aabb2465b3d2e7a7fe27f9913846277833f7a2826e7767acccff5b588c5 main/binary-amd64/Packages.xz`",
            ),
            (
                "10:16:37 UTC\nValid",
                "10:16:37 CET\nValid",
                "its `Date` is `Sat, 11 Jul 2026 10:16:37 CET`, which is no time",
            ),
        ] {
            let error = Release::parse(&RELEASE.replacen(from, to, 1)).expect_err(to);
            assert_eq!(error.to_string(), expected);
        }
    }
}
