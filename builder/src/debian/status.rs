//! dpkg's database of installed packages, as text: `status`, the names of its files, what triggers wait for.
//!
//! Written as dpkg 1.21 writes it, so that nothing changes when dpkg writes it again. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::package::{Fields, PackageKey};

/// The directory of the database.
pub const ADMIN: &str = "var/lib/dpkg";

/// The fields that dpkg knows, in the order it writes them. Part of format 1: changing it changes image bytes.
const ORDER: [&str; 25] = [
    "Package",
    "Essential",
    "Protected",
    "Status",
    "Priority",
    "Section",
    "Installed-Size",
    "Origin",
    "Maintainer",
    "Bugs",
    "Architecture",
    "Multi-Arch",
    "Source",
    "Version",
    "Config-Version",
    "Replaces",
    "Provides",
    "Depends",
    "Pre-Depends",
    "Recommends",
    "Suggests",
    "Breaks",
    "Conflicts",
    "Enhances",
    "Conffiles",
];

/// What comes behind them and before the fields that dpkg does not know.
const LAST: [&str; 3] = ["Description", "Triggers-Pending", "Triggers-Awaited"];

/// Fields of an archive's index, which are none of an installed package.
const DROPPED: [&str; 5] = ["Filename", "Size", "MD5sum", "SHA1", "SHA256"];

/// The fields that hold relations of packages.
const RELATIONS: [&str; 9] = [
    "Replaces",
    "Provides",
    "Depends",
    "Pre-Depends",
    "Recommends",
    "Suggests",
    "Breaks",
    "Conflicts",
    "Enhances",
];

/// How far an installation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its files are there and its scripts have not run.
    Unpacked,
    /// All is done.
    Installed,
}

impl State {
    const fn text(self) -> &'static str {
        match self {
            Self::Unpacked => "install ok unpacked",
            Self::Installed => "install ok installed",
        }
    }
}

/// A package of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed(pub Fields);

impl Installed {
    /// The stanza of a package whose control file has these fields. `conffiles` are its configuration files with what
    /// `status` says of each: a digest, or `newconffile` as long as it is not in its place.
    pub fn new(control: &Fields, state: State, conffiles: &[(String, String)]) -> Self {
        let mut fields: Vec<(String, String)> = control
            .0
            .iter()
            .filter(|(name, _)| !is_any(&DROPPED, name) && !name.eq_ignore_ascii_case("Status"))
            .map(|(name, value)| {
                let value = if is_any(&RELATIONS, name) {
                    normal_relations(value)
                } else {
                    value.clone()
                };
                (name.clone(), value)
            })
            .filter(|(_, value)| !value.is_empty())
            .collect();
        fields.push(("Status".to_owned(), state.text().to_owned()));
        if !conffiles.is_empty() {
            let mut value = String::new();
            for (path, said) in conffiles {
                write!(value, "\n {path} {said}").expect("a string takes everything");
            }
            fields.push(("Conffiles".to_owned(), value));
        }
        Self(Fields(fields))
    }

    /// Name and architecture.
    pub fn key(&self) -> PackageKey {
        PackageKey {
            name: self.get("Package").to_owned(),
            arch: self.get("Architecture").to_owned(),
        }
    }

    /// Its version.
    pub fn version(&self) -> &str {
        self.get("Version")
    }

    /// Are its files there and configured, as far as its scripts have come?
    pub fn is_installed(&self) -> bool {
        self.get("Status").split(' ').nth(2).is_some_and(|state| {
            matches!(state, "installed" | "triggers-pending" | "triggers-awaited")
        })
    }

    /// Are its files there?
    pub fn has_files(&self) -> bool {
        let state = self.get("Status").split(' ').nth(2);
        state.is_some_and(|state| !matches!(state, "not-installed" | "config-files"))
    }

    /// New files came that its triggers wait for: dpkg runs them with the next packages it configures.
    pub fn wake(&mut self, triggers: &BTreeSet<String>) {
        let fields = &mut self.0.0;
        let mut pending: BTreeSet<String> = triggers.clone();
        let known = fields
            .iter()
            .position(|(name, _)| name.eq_ignore_ascii_case("Triggers-Pending"));
        if let Some(at) = known {
            let (_, value) = fields.remove(at);
            pending.extend(value.split_ascii_whitespace().map(str::to_owned));
        }
        let pending: Vec<String> = pending.into_iter().collect();
        fields.push(("Triggers-Pending".to_owned(), pending.join(" ")));
        for (name, value) in fields.iter_mut() {
            if name.eq_ignore_ascii_case("Status") && value.ends_with(" installed") {
                "install ok triggers-pending".clone_into(value);
            }
        }
    }

    fn get(&self, name: &str) -> &str {
        self.0.get(name).unwrap_or_default()
    }

    /// The stanza, with the empty line behind it.
    fn write(&self, out: &mut String) {
        let known = ORDER.iter().chain(&LAST);
        for name in known {
            if let Some((_, value)) = self.find(name) {
                field(out, name, value);
            }
        }
        for (name, value) in &self.0.0 {
            if !is_any(&ORDER, name) && !is_any(&LAST, name) {
                field(out, name, value);
            }
        }
        out.push('\n');
    }

    fn find(&self, name: &str) -> Option<&(String, String)> {
        let fields = &self.0.0;
        fields
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
    }
}

fn is_any(names: &[&str], name: &str) -> bool {
    names.iter().any(|other| other.eq_ignore_ascii_case(name))
}

fn field(out: &mut String, name: &str, value: &str) {
    out.push_str(name);
    // The paths of conffiles begin on a line of their own.
    let begins = if name == "Conffiles" { ":\n " } else { ": " };
    out.push_str(begins);
    out.push_str(value.trim_start());
    out.push('\n');
}

/// Relations in the one form that dpkg writes: `a (>= 1), b:any | c`.
fn normal_relations(value: &str) -> String {
    let relation = |text: &str| {
        let text = text.trim();
        let Some((name, rest)) = text.split_once('(') else {
            return text.to_owned();
        };
        let rest = rest.trim_end().trim_end_matches(')');
        let at = rest
            .find(|c| !matches!(c, '<' | '>' | '='))
            .unwrap_or(rest.len());
        let (operator, version) = rest.split_at(at);
        // The old forms mean "or equal" (deb-control(5)).
        let operator = match operator {
            "<" => "<=",
            ">" => ">=",
            "" => "=",
            other => other,
        };
        format!("{} ({operator} {})", name.trim(), version.trim())
    };
    let alternatives = |text: &str| {
        let all: Vec<String> = text.split('|').map(relation).collect();
        all.join(" | ")
    };
    let all: Vec<String> = value
        .split(',')
        .filter(|text| !text.trim().is_empty())
        .map(alternatives)
        .collect();
    all.join(", ")
}

/// The file `status`: every package, by name and architecture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status(pub BTreeMap<PackageKey, Installed>);

impl Status {
    /// Reads the file.
    ///
    /// # Errors
    /// It is not as dpkg writes it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut all = BTreeMap::new();
        for fields in Fields::parse(text).map_err(|error| error.to_string())? {
            let installed = Installed(fields);
            let key = installed.key();
            if key.name.is_empty() {
                return Err("a stanza names no package".into());
            }
            if all.insert(key.clone(), installed).is_some() {
                return Err(format!("`{key}` is there twice"));
            }
        }
        Ok(Self(all))
    }

    /// The file as dpkg writes it.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        for installed in self.0.values() {
            installed.write(&mut out);
        }
        out
    }
}

/// What a package says about triggers (deb-triggers(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Triggers {
    /// What it waits for: a path or a name, and whether nobody waits for it.
    pub interests: Vec<(String, bool)>,
}

impl Triggers {
    /// Reads the control file `triggers`.
    pub fn parse(text: &str) -> Self {
        let mut triggers = Self::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(word), Some(name)) = (words.next(), words.next()) else {
                continue;
            };
            match word {
                "interest" | "interest-await" => {
                    triggers.interests.push((name.to_owned(), false));
                }
                "interest-noawait" => triggers.interests.push((name.to_owned(), true)),
                _ => {}
            }
        }
        triggers
    }
}

/// A line of a file of interests.
pub fn interest_line(package: &str, is_noawait: bool) -> String {
    let rest = if is_noawait { "/noawait" } else { "" };
    format!("{package}{rest}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTROL: &str = "\
Package: demo
Source: demo-src (1.0)
Version: 1.0-1
Architecture: amd64
Maintainer: Somebody <somebody@example.org>
Installed-Size: 12
Depends: libc6 (>=2.34),dpkg (>= 1.19) |debconf:any, a(=1)
Pre-Depends: base-files
Section: misc
Priority: optional
Multi-Arch: same
Homepage: https://example.org/
Description: short
 long
 .
 end
";

    fn fields(text: &str) -> Fields {
        Fields::parse(text).unwrap().remove(0)
    }

    #[test]
    fn a_stanza_is_in_the_order_of_dpkg() {
        let conffiles = [("/etc/demo".to_owned(), "newconffile".to_owned())];
        let demo = Installed::new(&fields(CONTROL), State::Unpacked, &conffiles);
        let status = Status([(demo.key(), demo)].into());
        assert_eq!(
            status.to_text(),
            "\
Package: demo
Status: install ok unpacked
Priority: optional
Section: misc
Installed-Size: 12
Maintainer: Somebody <somebody@example.org>
Architecture: amd64
Multi-Arch: same
Source: demo-src (1.0)
Version: 1.0-1
Depends: libc6 (>= 2.34), dpkg (>= 1.19) | debconf:any, a (= 1)
Pre-Depends: base-files
Conffiles:
 /etc/demo newconffile
Description: short
 long
 .
 end
Homepage: https://example.org/

"
        );
        let again = Status::parse(&status.to_text()).unwrap();
        assert_eq!(again.to_text(), status.to_text());
    }

    #[test]
    fn a_status_that_is_none_is_refused() {
        assert!(Status::parse(" continues\n").is_err());
        assert!(Status::parse("word\n").is_err());
        assert_eq!(
            Status::parse("Package: a\n\nPackage: a\n"),
            Err("`a:` is there twice".into())
        );
        assert_eq!(
            Status::parse("Version: 1\n"),
            Err("a stanza names no package".into())
        );
    }

    #[test]
    fn interests_are_read() {
        let triggers = Triggers::parse("# a\ninterest /usr/lib\ninterest-noawait x\nactivate y\n");
        assert_eq!(
            triggers.interests,
            [("/usr/lib".to_owned(), false), ("x".to_owned(), true)]
        );
    }
}
