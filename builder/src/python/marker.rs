//! Markers (dependency specifiers, "Environment markers"): is a requirement meant for this target?

use std::collections::BTreeSet;

use super::name::normalised;
use super::target::Target;
use super::version;

/// What a marker is asked about.
#[derive(Clone, Debug)]
pub struct Context<'a> {
    /// The interpreter and its platform.
    pub target: &'a Target,
    /// Extras that are wanted, normalised.
    pub extras: &'a BTreeSet<String>,
    /// Groups of dependencies that are wanted, normalised.
    pub groups: &'a BTreeSet<String>,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Marker {
    /// Any of them.
    Or(Vec<Marker>),
    /// All of them.
    And(Vec<Marker>),
    /// One comparison.
    Compare {
        /// What is compared.
        left: Operand,
        /// How.
        operator: String,
        /// With what.
        right: Operand,
    },
}

/// One side of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    /// A variable of the environment.
    Variable(String),
    /// A text.
    Text(String),
}

/// How deep parentheses may go.
const DEPTH: usize = 32;

impl Marker {
    /// Reads a marker; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { rest: text };
        let marker = parser.or(0)?;
        parser.blank();
        match parser.rest {
            "" => Ok(marker),
            rest => Err(format!("`{}` stands behind its end", rest.escape_debug())),
        }
    }

    /// Does it hold?
    pub fn holds(&self, context: &Context<'_>) -> bool {
        match self {
            Self::Or(any) => any.iter().any(|marker| marker.holds(context)),
            Self::And(all) => all.iter().all(|marker| marker.holds(context)),
            Self::Compare {
                left,
                operator,
                right,
            } => compare(left, operator, right, context),
        }
    }
}

/// Sets that are no texts: `extra == "x"`, and `"x" in extras` of PEP 751.
fn set<'a>(operand: &Operand, context: &Context<'a>) -> Option<&'a BTreeSet<String>> {
    match operand {
        Operand::Variable(name) if name == "extra" || name == "extras" => Some(context.extras),
        Operand::Variable(name) if name == "dependency_groups" => Some(context.groups),
        _ => None,
    }
}

fn compare(left: &Operand, operator: &str, right: &Operand, context: &Context<'_>) -> bool {
    let of_set = match (set(left, context), set(right, context)) {
        (Some(set), None) => Some((set, right)),
        (None, Some(set)) => Some((set, left)),
        _ => None,
    };
    if let Some((set, Operand::Text(text))) = of_set {
        let name = normalised(text).unwrap_or_else(|| text.clone());
        let is_in = set.contains(&name);
        return matches!(operator, "==" | "in" | "===") == is_in;
    }
    let value = |operand: &Operand| match operand {
        Operand::Text(text) => text.clone(),
        Operand::Variable(name) => context.target.variable(name).unwrap_or_default(),
    };
    let (l, r) = (value(left), value(right));
    match operator {
        "in" => return r.contains(&l),
        "not in" => return !r.contains(&l),
        _ => {}
    }
    let is_version = |operand: &Operand| {
        matches!(operand, Operand::Variable(name)
            if matches!(name.as_str(), "python_version" | "python_full_version" | "implementation_version"))
    };
    let by_version = if is_version(left) {
        version::compare(&l, operator, &r)
    } else if is_version(right) {
        version::compare(&r, mirrored(operator), &l)
    } else {
        None
    };
    by_version.unwrap_or_else(|| match operator {
        "==" | "===" => l == r,
        "!=" => l != r,
        "<" => l < r,
        "<=" => l <= r,
        ">" => l > r,
        ">=" => l >= r,
        // `~=` is for versions only.
        _ => false,
    })
}

fn mirrored(operator: &str) -> &str {
    match operator {
        "<" => ">",
        "<=" => ">=",
        ">" => "<",
        ">=" => "<=",
        same => same,
    }
}

const VARIABLES: [&str; 14] = [
    "python_version",
    "python_full_version",
    "os_name",
    "sys_platform",
    "platform_release",
    "platform_system",
    "platform_version",
    "platform_machine",
    "platform_python_implementation",
    "implementation_name",
    "implementation_version",
    "extra",
    "extras",
    "dependency_groups",
];

struct Parser<'t> {
    rest: &'t str,
}

impl Parser<'_> {
    fn blank(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    fn word(&mut self, word: &str) -> bool {
        self.blank();
        let Some(rest) = self.rest.strip_prefix(word) else {
            return false;
        };
        if rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
            return false;
        }
        self.rest = rest;
        true
    }

    fn or(&mut self, depth: usize) -> Result<Marker, String> {
        let mut any = vec![self.and(depth)?];
        while self.word("or") {
            any.push(self.and(depth)?);
        }
        Ok(match any.len() {
            1 => any.remove(0),
            _ => Marker::Or(any),
        })
    }

    fn and(&mut self, depth: usize) -> Result<Marker, String> {
        let mut all = vec![self.one(depth)?];
        while self.word("and") {
            all.push(self.one(depth)?);
        }
        Ok(match all.len() {
            1 => all.remove(0),
            _ => Marker::And(all),
        })
    }

    fn one(&mut self, depth: usize) -> Result<Marker, String> {
        self.blank();
        if let Some(rest) = self.rest.strip_prefix('(') {
            if depth == DEPTH {
                return Err("its parentheses are too deep".into());
            }
            self.rest = rest;
            let marker = self.or(depth + 1)?;
            self.blank();
            self.rest = self
                .rest
                .strip_prefix(')')
                .ok_or("a parenthesis is not closed")?;
            return Ok(marker);
        }
        let left = self.operand()?;
        let operator = self.operator()?;
        let right = self.operand()?;
        Ok(Marker::Compare {
            left,
            operator,
            right,
        })
    }

    fn operand(&mut self) -> Result<Operand, String> {
        self.blank();
        if let Some(quote) = self.rest.chars().next().filter(|c| matches!(c, '"' | '\'')) {
            let rest = &self.rest[1..];
            let end = rest.find(quote).ok_or("a text is not closed")?;
            self.rest = &rest[end + 1..];
            return Ok(Operand::Text(rest[..end].to_owned()));
        }
        let end = self
            .rest
            .find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '.'))
            .unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        // Names of an earlier time, which setuptools still writes.
        let known = match name {
            "os.name" => "os_name",
            "sys.platform" => "sys_platform",
            "platform.version" => "platform_version",
            "platform.machine" => "platform_machine",
            "platform.python_implementation" | "python_implementation" => {
                "platform_python_implementation"
            }
            name => name,
        };
        if !VARIABLES.contains(&known) {
            return Err(format!(
                "`{}` is no variable of markers",
                name.escape_debug()
            ));
        }
        self.rest = rest;
        Ok(Operand::Variable(known.to_owned()))
    }

    fn operator(&mut self) -> Result<String, String> {
        self.blank();
        for operator in ["===", "==", "!=", "<=", ">=", "~=", "<", ">"] {
            if let Some(rest) = self.rest.strip_prefix(operator) {
                self.rest = rest;
                return Ok(operator.to_owned());
            }
        }
        if self.word("in") {
            return Ok("in".into());
        }
        if self.word("not") && self.word("in") {
            return Ok("not in".into());
        }
        Err("a comparison has no operator".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::model::{Interpreter, Libc};

    fn holds(text: &str) -> Result<bool, String> {
        let target = Target {
            interpreter: Interpreter {
                major: 3,
                minor: 11,
                patch: Some(2),
            },
            platform: "linux/amd64".parse().expect("a platform"),
            libc: Libc::Glibc { minor: 28 },
        };
        let set = |name: &str| BTreeSet::from([name.to_owned()]);
        let context = Context {
            target: &target,
            extras: &set("async-io"),
            groups: &set("dev"),
        };
        Ok(Marker::parse(text)?.holds(&context))
    }

    #[test]
    fn markers_hold_as_packaging_says() {
        for text in [
            "python_version >= '3.9'",
            "python_version < \"3.12\" and sys_platform == 'linux'",
            "'3.9' <= python_version",
            "python_full_version == '3.11.*'",
            "python_version ~= '3.10'",
            "sys_platform == 'win32' or (os_name == 'posix' and platform_machine != 'aarch64')",
            "'linux' in sys_platform",
            "platform_machine not in 'aarch64 arm64'",
            "platform_python_implementation == 'CPython'",
            "extra == 'Async_IO'",
            "extra != 'other'",
            "'async-io' in extras",
            "'dev' in dependency_groups",
            "'test' not in dependency_groups",
            "os.name=='posix'",
        ] {
            assert_eq!(holds(text), Ok(true), "{text}");
        }
        for text in [
            "python_version < '3.9'",
            "python_version >= '3.10' and sys_platform == 'win32'",
            "extra == 'other'",
            "'test' in dependency_groups",
            "platform_system == 'Darwin'",
        ] {
            assert_eq!(holds(text), Ok(false), "{text}");
        }
    }

    #[test]
    fn what_is_no_marker_is_told() {
        for text in [
            "",
            "python_version",
            "python_version >=",
            "python_version >= 3.8",
            "(python_version >= '3.8'",
            "python_version >= '3.8') ",
            "color == 'red'",
            "python_version not '3'",
            "python_version >= '3.8",
            &format!("{}python_version >= '3'", "(".repeat(40)),
        ] {
            assert!(holds(text).is_err(), "{text}");
        }
    }
}
