//! Dependency fields (Debian Policy §7.1): `a (>= 1) | b, c:any`. Pure.

use std::cmp::Ordering;
use std::fmt;

use super::version;

/// One package a dependency speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relation<'t> {
    /// Its name.
    pub name: &'t str,
    /// What follows the name after a colon: `any`, `native` or an architecture.
    pub qualifier: Option<&'t str>,
    /// Which versions.
    pub version: Option<(Operator, &'t str)>,
}

/// How a version is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `<<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `=`
    Equal,
    /// `>=`
    GreaterOrEqual,
    /// `>>`
    Greater,
}

/// A field is not as Policy has it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{part}` is no dependency")]
pub struct RelationError {
    /// The part of the field that cannot be read.
    pub part: String,
}

impl Operator {
    /// Does a version stand so to the other?
    pub fn holds(self, version: &str, other: &str) -> bool {
        let order = version::compare(version, other);
        match self {
            Self::Less => order == Ordering::Less,
            Self::LessOrEqual => order != Ordering::Greater,
            Self::Equal => order == Ordering::Equal,
            Self::GreaterOrEqual => order != Ordering::Less,
            Self::Greater => order == Ordering::Greater,
        }
    }

    /// As Policy writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Less => "<<",
            Self::LessOrEqual => "<=",
            Self::Equal => "=",
            Self::GreaterOrEqual => ">=",
            Self::Greater => ">>",
        }
    }
}

impl Relation<'_> {
    /// Does this version, of the package itself, satisfy it?
    pub fn allows(&self, version: &str) -> bool {
        self.version
            .is_none_or(|(operator, wanted)| operator.holds(version, wanted))
    }

    /// Does a package that provides the name, in this version if it says one, satisfy it? What says no version satisfies
    /// no wish for one.
    pub fn allows_provided(&self, version: Option<&str>) -> bool {
        match (self.version, version) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some((operator, wanted)), Some(version)) => operator.holds(version, wanted),
        }
    }
}

impl fmt::Display for Relation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if let Some(qualifier) = self.qualifier {
            write!(f, ":{qualifier}")?;
        }
        match self.version {
            Some((operator, version)) => write!(f, " ({} {version})", operator.as_str()),
            None => Ok(()),
        }
    }
}

/// A dependency as it is written: its alternatives.
pub fn in_words(alternatives: &[Relation<'_>]) -> String {
    let all: Vec<String> = alternatives.iter().map(Relation::to_string).collect();
    all.join(" | ")
}

/// The dependencies of a field, each with its alternatives in the order written. Empty parts are passed over, as dpkg does.
pub fn parse(field: &str) -> Result<Vec<Vec<Relation<'_>>>, RelationError> {
    let parts = field.split(',').map(str::trim);
    parts
        .filter(|part| !part.is_empty())
        .map(|part| part.split('|').map(|one| relation(one.trim())).collect())
        .collect()
}

fn relation(text: &str) -> Result<Relation<'_>, RelationError> {
    let error = || RelationError {
        part: text.to_owned(),
    };
    let end = text
        .find(|c: char| c.is_whitespace() || matches!(c, '(' | '[' | '<'))
        .unwrap_or(text.len());
    let (head, mut rest) = (&text[..end], text[end..].trim());
    let (name, qualifier) = match head.split_once(':') {
        Some((name, qualifier)) if !qualifier.is_empty() => (name, Some(qualifier)),
        Some(_) => return Err(error()),
        None => (head, None),
    };
    if name.is_empty() || !name.bytes().all(is_name_byte) {
        return Err(error());
    }
    let mut version = None;
    if let Some(inner) = rest.strip_prefix('(') {
        let (inner, after) = inner.split_once(')').ok_or_else(error)?;
        version = Some(constraint(inner.trim()).ok_or_else(error)?);
        rest = after.trim();
    }
    // `[arch]` and `<profile>` are resolved before a package is in an archive.
    if !rest.is_empty() {
        return Err(error());
    }
    Ok(Relation {
        name,
        qualifier,
        version,
    })
}

/// Names in real archives also have capitals and `_`, which Policy does not; nothing else ever.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_')
}

fn constraint(text: &str) -> Option<(Operator, &str)> {
    let operators = [
        ("<<", Operator::Less),
        ("<=", Operator::LessOrEqual),
        (">=", Operator::GreaterOrEqual),
        (">>", Operator::Greater),
        ("=", Operator::Equal),
        // What dpkg and apt still read: the old forms, which mean "or equal".
        ("<", Operator::LessOrEqual),
        (">", Operator::GreaterOrEqual),
    ];
    let (operator, version) = operators
        .into_iter()
        .find_map(|(sign, operator)| Some((operator, text.strip_prefix(sign)?.trim())))?;
    version::is_version(version).then_some((operator, version))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(name: &str) -> Relation<'_> {
        Relation {
            name,
            qualifier: None,
            version: None,
        }
    }

    #[test]
    fn alternatives_versions_and_qualifiers_are_read() {
        let field = "a (>= 1.2-3) | b , c:any(<<2),\n d ( = 1:0~1 ),, e";
        let version = |operator, version| Some((operator, version));
        assert_eq!(
            parse(field),
            Ok(vec![
                vec![
                    Relation {
                        version: version(Operator::GreaterOrEqual, "1.2-3"),
                        ..plain("a")
                    },
                    plain("b")
                ],
                vec![Relation {
                    qualifier: Some("any"),
                    version: version(Operator::Less, "2"),
                    ..plain("c")
                }],
                vec![Relation {
                    version: version(Operator::Equal, "1:0~1"),
                    ..plain("d")
                }],
                vec![plain("e")],
            ])
        );
        assert_eq!(parse("").map(|all| all.len()), Ok(0));
    }

    #[test]
    fn what_is_no_dependency_is_told() {
        for field in [
            "a b",
            "a (1)",
            "a (>= )",
            "a (>= 1",
            "(>= 1)",
            "a [amd64]",
            "a:",
            "a |",
            "é",
        ] {
            assert!(parse(field).is_err(), "{field}");
        }
    }

    #[test]
    fn what_provides_a_name_without_a_version_satisfies_no_wish_for_one() {
        let wish = parse("a (>= 2)").expect("a field")[0][0];
        assert!(wish.allows("2") && !wish.allows("1"));
        assert!(wish.allows_provided(Some("3")) && !wish.allows_provided(None));
        assert!(plain("a").allows_provided(None));
    }

    proptest! {
        #[test]
        fn what_is_read_is_written(text in "[ab]{1,2}(:any)?( \\((<<|<=|=|>=|>>) [0-9]\\))?( \\| [a-c])?") {
            let read = parse(&text).expect("a field");
            prop_assert_eq!(in_words(&read[0]), text);
        }

        #[test]
        fn no_field_makes_the_parser_fall_over(text in "[a-c(>=<) |,:1~\n]{0,40}") {
            let _ = parse(&text);
        }
    }
}
