//! `Packages`: what an archive has, as slices of its text. Pure.
//!
//! The fields that few packages are asked for, dependencies above all, stay text until they are.

use super::control::{self, ControlError, Stanza};
use super::version;

/// A package as an archive offers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Package<'t> {
    /// `zlib1g`.
    pub name: &'t str,
    /// `1:1.2.13.dfsg-1`.
    pub version: &'t str,
    /// `amd64`, or `all`.
    pub architecture: &'t str,
    /// Below the archive's top directory.
    pub path: &'t str,
    /// Bytes of the `.deb`.
    pub size: u64,
    /// 64 hex digits; empty where the archive has none.
    pub sha256: &'t str,
    /// `Source`: the name, and in brackets the version where it differs; empty: as the package.
    pub source: &'t str,
    /// Is every system to have it?
    pub essential: bool,
    /// Is it dangerous to remove (`Important` or `Protected`)?
    pub important: bool,
    /// How far it is from the middle of a system.
    pub priority: Priority,
    /// May `name:any` mean it?
    pub any_architecture: bool,
    /// `Pre-Depends`.
    pub pre_depends: &'t str,
    /// `Depends`.
    pub depends: &'t str,
    /// `Recommends`.
    pub recommends: &'t str,
    /// `Conflicts`.
    pub conflicts: &'t str,
    /// `Breaks`.
    pub breaks: &'t str,
    /// `Provides`.
    pub provides: &'t str,
    /// Where its stanza begins in the text.
    pub offset: usize,
}

/// `Priority`, nearest to the middle first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// `required`
    Required,
    /// `important`
    Important,
    /// `standard`
    Standard,
    /// `optional`
    Optional,
    /// `extra`, and what is none of these.
    Extra,
}

/// Why a text is no index.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// No stanzas.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A package without what it must have, or with what it cannot have.
    #[error("the package `{name}` at byte {offset} has no good `{field}`")]
    Field {
        /// The package, as far as it says.
        name: String,
        /// The field.
        field: &'static str,
        /// Where the stanza begins.
        offset: usize,
    },
}

/// The packages of an index, in its order.
pub fn parse(text: &str) -> Result<Vec<Package<'_>>, IndexError> {
    let mut packages = Vec::with_capacity(text.len() / 800);
    for stanza in control::stanzas(text) {
        packages.push(package(&stanza?)?);
    }
    Ok(packages)
}

fn package<'t>(stanza: &Stanza<'t>) -> Result<Package<'t>, IndexError> {
    let mut it = Package {
        name: "",
        version: "",
        architecture: "",
        path: "",
        size: 0,
        sha256: "",
        source: "",
        essential: false,
        important: false,
        priority: Priority::Extra,
        any_architecture: false,
        pre_depends: "",
        depends: "",
        recommends: "",
        conflicts: "",
        breaks: "",
        provides: "",
        offset: stanza.offset,
    };
    let mut size = None;
    for field in &stanza.fields {
        let value = field.value;
        // Every archive writes names as Policy does, so the look that minds no case is for the few that do not.
        match field.name {
            "Package" => it.name = value,
            "Version" => it.version = value,
            "Architecture" => it.architecture = value,
            "Filename" => it.path = value,
            "Size" => size = value.parse().ok(),
            "SHA256" => it.sha256 = value,
            "Source" => it.source = value,
            "Essential" => it.essential = value == "yes",
            "Important" | "Protected" => it.important = value == "yes",
            "Priority" => it.priority = priority(value),
            "Multi-Arch" => it.any_architecture = value == "allowed",
            "Pre-Depends" => it.pre_depends = value,
            "Depends" => it.depends = value,
            "Recommends" => it.recommends = value,
            "Conflicts" => it.conflicts = value,
            "Breaks" => it.breaks = value,
            "Provides" => it.provides = value,
            _ => {}
        }
    }
    let fail = |field| {
        Err(IndexError::Field {
            name: it.name.escape_debug().to_string(),
            field,
            offset: it.offset,
        })
    };
    if !is_name(it.name) {
        return fail("Package");
    }
    if !version::is_version(it.version) {
        return fail("Version");
    }
    if !is_word(it.architecture) {
        return fail("Architecture");
    }
    if !is_path(it.path) {
        return fail("Filename");
    }
    match size {
        Some(size) => it.size = size,
        None => return fail("Size"),
    }
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_digest = it.sha256.len() == 64 && it.sha256.bytes().all(hex);
    if !it.sha256.is_empty() && !is_digest {
        return fail("SHA256");
    }
    Ok(it)
}

fn priority(text: &str) -> Priority {
    match text {
        "required" => Priority::Required,
        "important" => Priority::Important,
        "standard" => Priority::Standard,
        "optional" => Priority::Optional,
        _ => Priority::Extra,
    }
}

/// What dpkg takes for a name, which is a little more than Policy §5.6.7 does.
fn is_name(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    !text.is_empty() && text.bytes().all(letter)
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// A path that leads down from the archive's top and nowhere else, of characters a URL takes as they are.
fn is_path(text: &str) -> bool {
    let allowed = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'+' | b'-' | b'.' | b'~' | b'_' | b':' | b'%' | b'=' | b',' | b'@' | b'/'
            )
    };
    text.bytes().all(allowed)
        && text
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..")
}

impl<'t> Package<'t> {
    /// What it was built from, and the version of that.
    pub fn source(&self) -> (&'t str, &'t str) {
        let (name, version) = match self.source.split_once('(') {
            Some((name, rest)) => (name.trim(), rest.trim_end_matches(')').trim()),
            None => (self.source, ""),
        };
        let or = |text: &'t str, other: &'t str| if text.is_empty() { other } else { text };
        (or(name, self.name), or(version, self.version))
    }
}

/// The fields whose names apt reads, in its order: a name's number is when it is first read.
const READ_ORDER: [&str; 10] = [
    "Package",
    "Pre-Depends",
    "Depends",
    "Conflicts",
    "Breaks",
    "Recommends",
    "Suggests",
    "Replaces",
    "Enhances",
    "Provides",
];

/// When a name is first read by whoever reads the index as apt does: the stanza, the field in it, the place in the field.
pub fn first_read(
    text: &str,
    packages: &[Package<'_>],
    name: &str,
) -> Option<(usize, usize, usize)> {
    let of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    let mut first: Option<(usize, usize, usize)> = None;
    for at in control::occurrences(text, name) {
        let bytes = text.as_bytes();
        let end = at + name.len();
        let inside = (at > 0 && of_name(bytes[at - 1]))
            || bytes
                .get(end)
                .is_some_and(|byte| of_name(*byte) || *byte == b':');
        if inside {
            continue;
        }
        let stanza = packages.partition_point(|package| package.offset <= at);
        if first.is_some_and(|(found, ..)| found < stanza) {
            break;
        }
        let (field, _) = control::field_at(text, at);
        if let Some(rank) = READ_ORDER.iter().position(|it| *it == field) {
            let place = (stanza, rank, at);
            first = Some(first.map_or(place, |found| found.min(place)));
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANZA: &str = "\
Package: libc6
Source: glibc (2.36-9)
Version: 2.36-9+b1
Architecture: amd64
Depends: libgcc-s1
Provides: libc6-x (= 1)
Essential: yes
Priority: required
Multi-Arch: allowed
Filename: pool/main/g/glibc/libc6_2.36-9+b1_amd64.deb
Size: 12
SHA256: d7dd1d1411fedf27f5e27650a6eff20ef294077b568f4c8c5e51466dc7c08ce4
Description: long
 text
";

    #[test]
    fn a_package_is_read_field_by_field() {
        let text = format!(
            "{STANZA}\n{}",
            STANZA.replace("Source: glibc (2.36-9)\n", "")
        );
        let packages = parse(&text).expect("an index");
        let first = packages[0];
        assert_eq!(first.name, "libc6");
        assert_eq!(first.source(), ("glibc", "2.36-9"));
        assert_eq!(first.depends, "libgcc-s1");
        assert_eq!(first.provides, "libc6-x (= 1)");
        assert_eq!(first.priority, Priority::Required);
        assert!(first.essential && first.any_architecture && !first.important);
        assert_eq!(first.size, 12);
        assert_eq!(packages[1].source(), ("libc6", "2.36-9+b1"));
        assert_eq!(packages[1].offset, STANZA.len() + 1);
    }

    #[test]
    fn a_name_is_first_read_where_apt_reads_it() {
        let other = STANZA
            .replace("Package: libc6", "Package: libx-libc6")
            .replace(
                "Depends: libgcc-s1",
                "Depends: b (= 1),\n a | libgcc-s1:any",
            )
            .replace("Provides: libc6-x (= 1)", "Pre-Depends: c");
        let text = format!("{other}\n{STANZA}");
        let packages = parse(&text).expect("an index");
        let at =
            |name: &str| first_read(&text, &packages, name).map(|(stanza, rank, _)| (stanza, rank));
        assert_eq!(at("c"), Some((1, 1)));
        assert_eq!(at("a"), Some((1, 2)));
        assert!(first_read(&text, &packages, "b") < first_read(&text, &packages, "a"));
        assert_eq!(at("libgcc-s1"), Some((2, 2)), "`libgcc-s1:any` is another");
        assert_eq!(at("libc6"), Some((2, 0)), "`libx-libc6` is another");
        assert_eq!(at("text"), None, "no name in a description");
    }

    #[test]
    fn what_a_lock_could_not_hold_is_refused() {
        for (from, to, field) in [
            ("Package: libc6", "Package: \"", "Package"),
            ("Version: 2.36-9+b1", "Version: 1 2", "Version"),
            ("Architecture: amd64\n", "", "Architecture"),
            ("Filename: pool", "Filename: ../pool", "Filename"),
            ("Filename: pool", "Filename: /pool", "Filename"),
            ("Filename: pool", "Filename: po ol", "Filename"),
            ("Size: 12", "Size: -1", "Size"),
            ("SHA256: d7", "SHA256: D7", "SHA256"),
            ("SHA256: d7", "SHA256: d", "SHA256"),
        ] {
            let text = STANZA.replace(from, to);
            let Err(IndexError::Field { field: found, .. }) = parse(&text) else {
                panic!("{from} became {to}");
            };
            assert_eq!(found, field);
        }
    }
}
