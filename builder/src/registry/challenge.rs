//! What a registry wants to know of who asks (`WWW-Authenticate`, RFC 9110 §11.6.1; the token protocol of Docker's
//! distribution, "Token Authentication Specification").

use std::collections::BTreeMap;

/// A way to say who one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password with every request.
    Basic,
    /// A token from somebody else.
    Bearer {
        /// Who gives tokens.
        realm: String,
        /// What they are for.
        service: Option<String>,
        /// What they must allow.
        scope: Option<String>,
    },
}

/// The best of the challenges in these headers: a token before a password.
pub(super) fn best<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut found = None;
    for (scheme, mut parameters) in headers.flat_map(challenges) {
        if scheme.eq_ignore_ascii_case("bearer") {
            if let Some(realm) = parameters.remove("realm") {
                return Some(Challenge::Bearer {
                    realm,
                    service: parameters.remove("service"),
                    scope: parameters.remove("scope"),
                });
            }
        } else if scheme.eq_ignore_ascii_case("basic") {
            found = Some(Challenge::Basic);
        }
    }
    found
}

type Challenges = Vec<(String, BTreeMap<String, String>)>;

/// Every challenge of one header. What follows a part that cannot be read is not looked at.
fn challenges(header: &str) -> Challenges {
    let mut found: Challenges = Vec::new();
    let mut rest = header.trim_start();
    while !rest.is_empty() {
        rest = rest.trim_start_matches([',', ' ', '\t']);
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)))
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            break;
        }
        let after = after.trim_start_matches([' ', '\t']);
        let Some(value) = after.strip_prefix('=') else {
            found.push((word.to_owned(), BTreeMap::new()));
            rest = after;
            continue;
        };
        let value = value.trim_start_matches([' ', '\t']);
        let (value, after) = if let Some(quoted) = value.strip_prefix('"') {
            let Some(both) = unquote(quoted) else { break };
            both
        } else {
            let end = value.find([',', ' ', '\t']).unwrap_or(value.len());
            (value[..end].to_owned(), &value[end..])
        };
        if let Some((_, parameters)) = found.last_mut() {
            parameters.insert(word.to_ascii_lowercase(), value);
        }
        rest = after;
    }
    found
}

/// What stands before the closing quote, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(letters.next()?.1),
            letter => value.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scope: scope.map(Into::into),
        }
    }

    #[test]
    fn challenges_are_read() {
        for (headers, expected) in [
            (
                vec!["Basic realm=\"Registry Realm\""],
                Some(Challenge::Basic),
            ),
            (vec!["basic"], Some(Challenge::Basic)),
            (
                vec![
                    "Bearer realm=\"https://a.example.com/token\",service=\"r\",scope=\"repository:a/b:pull,push\"",
                ],
                Some(bearer(
                    "https://a.example.com/token",
                    Some("r"),
                    Some("repository:a/b:pull,push"),
                )),
            ),
            (
                vec!["Basic realm=\"x\", bEARER realm=https://a.example.com/t, service = r"],
                Some(bearer("https://a.example.com/t", Some("r"), None)),
            ),
            (
                vec!["Basic realm=\"x\"", "Bearer realm=\"a \\\"b\\\" c\""],
                Some(bearer("a \"b\" c", None, None)),
            ),
            (vec!["Bearer service=\"r\""], None),
            (vec!["Negotiate", "NTLM abc="], None),
            (vec![""], None),
            (vec!["Bearer realm=\"open"], None),
            (vec![], None),
        ] {
            assert_eq!(best(headers.iter().copied()), expected, "{headers:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_read_to_its_end(header in "[ -~]{0,60}") {
            let _ = best(std::iter::once(header.as_str()));
        }
    }
}
