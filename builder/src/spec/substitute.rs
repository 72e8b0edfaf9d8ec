//! `${…}`: what it stands for and where it is.

use std::collections::BTreeMap;

use crate::diag::nearest;
use crate::platform::Platform;

/// What `${…}` can name: the platform's variables and the declared arguments.
#[derive(Clone, Debug)]
pub(super) struct Variables(BTreeMap<String, Variable>);

#[derive(Clone, Debug)]
struct Variable {
    value: String,
    of_platform: bool,
}

/// A text with everything put in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Substitution {
    pub(super) text: String,
    /// Was a variable of the platform put in?
    pub(super) of_platform: bool,
}

/// One `${…}` that leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Dangling {
    /// No such name; with the one that may have been meant.
    Unknown(String, Option<String>),
    /// `${` without `}`.
    Open,
}

impl Variables {
    /// The names that no argument may take.
    pub(super) const OF_PLATFORM: [&str; 5] = ["platform", "os", "arch", "variant", "machine"];

    /// For this platform and these arguments.
    pub(super) fn new(platform: Platform, arguments: &BTreeMap<String, String>) -> Self {
        let values = [
            platform.to_string(),
            platform.os().into(),
            platform.arch().into(),
            platform.variant().into(),
            platform.machine().into(),
        ];
        let arguments = arguments
            .iter()
            .map(|(name, value)| (name.clone(), value.clone(), false));
        let of_platform = Self::OF_PLATFORM
            .into_iter()
            .zip(values)
            .map(|(name, value)| (name.to_owned(), value, true));
        let variables = arguments
            .chain(of_platform)
            .map(|(name, value, of_platform)| (name, Variable { value, of_platform }));
        Self(variables.collect())
    }

    /// Puts in every `${name}` and writes `${` for `$${`. What is put in is not looked at again.
    pub(super) fn put_into(&self, text: &str) -> Result<Substitution, Vec<Dangling>> {
        let mut out = String::with_capacity(text.len());
        let mut of_platform = false;
        let mut dangling = Vec::new();
        for part in parts(text) {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Escape => out.push_str("${"),
                Part::Open => dangling.push(Dangling::Open),
                Part::Name(name) => {
                    if let Some(variable) = self.0.get(name) {
                        out.push_str(&variable.value);
                        of_platform |= variable.of_platform;
                    } else {
                        let known = nearest(name, self.0.keys().map(String::as_str));
                        dangling.push(Dangling::Unknown(name.into(), known.map(Into::into)));
                    }
                }
            }
        }
        if dangling.is_empty() {
            Ok(Substitution {
                text: out,
                of_platform,
            })
        } else {
            Err(dangling)
        }
    }

    /// The first known name that a text quotes.
    pub(super) fn quoted_in<'t>(&self, text: &'t str) -> Option<&'t str> {
        parts(text).find_map(|part| match part {
            Part::Name(name) if self.0.contains_key(name) => Some(name),
            _ => None,
        })
    }
}

enum Part<'t> {
    Text(&'t str),
    /// `$${`
    Escape,
    /// `${name}`
    Name(&'t str),
    /// `${` and nothing that ends it.
    Open,
}

fn parts(text: &str) -> impl Iterator<Item = Part<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if let Some(after) = rest.strip_prefix("$${") {
            rest = after;
            return Some(Part::Escape);
        }
        if let Some(after) = rest.strip_prefix("${") {
            let Some((name, after)) = after.split_once('}') else {
                rest = "";
                return Some(Part::Open);
            };
            rest = after;
            return Some(Part::Name(name));
        }
        // Up to the next `$`, with the one we stand on, which begins nothing.
        let end = rest
            .char_indices()
            .skip(1)
            .find_map(|(at, c)| (c == '$').then_some(at))
            .unwrap_or(rest.len());
        let (text, after) = rest.split_at(end);
        rest = after;
        Some(Part::Text(text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        let arguments = [("version", "1.4.0"), ("odd", "${arch}")];
        Variables::new(
            "linux/arm64".parse().expect("a platform"),
            &arguments
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
        )
    }

    #[test]
    fn names_become_values_and_nothing_nests() {
        for (text, expected, of_platform) in [
            ("plain $HOME 5$", "plain $HOME 5$", false),
            ("v${version}", "v1.4.0", false),
            (
                "${platform} ${os} ${arch} ${variant} ${machine}",
                "linux/arm64 linux arm64 v8 aarch64",
                true,
            ),
            ("$${version}", "${version}", false),
            ("$$${version}", "$${version}", false),
            ("$$$${version}", "$$${version}", false),
            ("${odd}", "${arch}", false),
            ("", "", false),
        ] {
            let found = variables().put_into(text);
            let expected = Substitution {
                text: expected.into(),
                of_platform,
            };
            assert_eq!(found, Ok(expected), "{text}");
        }
    }

    #[test]
    fn every_name_that_is_unknown_is_told() {
        assert_eq!(
            variables().put_into("${vresion} ${arch} ${x y} ${open"),
            Err(vec![
                Dangling::Unknown("vresion".into(), Some("version".into())),
                Dangling::Unknown("x y".into(), None),
                Dangling::Open,
            ])
        );
    }

    #[test]
    fn an_escape_quotes_nothing() {
        assert_eq!(variables().quoted_in("a ${HOME} $${arch}"), None);
        assert_eq!(variables().quoted_in("a ${HOME} ${arch}"), Some("arch"));
    }
}
