//! Stanzas of fields (Debian Policy §5.1): the form of `Packages`, `Release`, `status`, `control` and `*.sources`.
//!
//! Pure, and the one home of `memchr`: an index has fifty million bytes, which are looked at once, in place.

use std::fmt;

/// Some fields that belong together, in the order written. Values are slices of the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stanza<'t> {
    /// Where in the text it begins, in bytes.
    pub offset: usize,
    /// The fields.
    pub fields: Vec<Field<'t>>,
}

/// One field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'t> {
    /// As written; names are compared without regard to case.
    pub name: &'t str,
    /// Without blanks at its ends. Further lines follow as written, each after a line end and with the blank it begins
    /// with, comments among them.
    pub value: &'t str,
}

impl<'t> Field<'t> {
    /// Every line of the value that is no comment, without blanks at its ends.
    pub fn lines(&self) -> impl Iterator<Item = &'t str> {
        let lines = self.value.split('\n');
        lines.filter(|line| !line.starts_with('#')).map(str::trim)
    }
}

impl<'t> Stanza<'t> {
    /// The value of the field of this name.
    pub fn get(&self, name: &str) -> Option<&'t str> {
        self.field(name).map(|field| field.value)
    }

    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<Field<'t>> {
        let mut fields = self.fields.iter();
        fields
            .find(|field| field.name.eq_ignore_ascii_case(name))
            .copied()
    }
}

/// Why a text is no stanzas.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {cause}")]
pub struct ControlError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub cause: ControlCause,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlCause {
    /// There is no `Name:`, or the name is none.
    NoField,
    /// A line that continues a field, where there is none.
    NothingToContinue,
    /// A field that the stanza has already.
    Twice(String),
    /// NUL, or a carriage return.
    Control,
}

impl fmt::Display for ControlCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoField => f.write_str("this is not a field (`Name: value`)"),
            Self::NothingToContinue => f.write_str("this continues a field, and there is none"),
            Self::Twice(name) => write!(f, "the field `{name}` is there twice"),
            Self::Control => f.write_str("this holds a NUL or a carriage return"),
        }
    }
}

/// The stanzas of a text, one after the other. After an error there are no more.
pub fn stanzas(text: &str) -> Stanzas<'_> {
    Stanzas { text, at: 0 }
}

/// The text's only stanza.
///
/// # Errors
/// It is no stanza, or more than one: then the second is what is wrong.
pub fn stanza(text: &str) -> Result<Stanza<'_>, ControlError> {
    let mut all = stanzas(text);
    let first = all.next().unwrap_or_else(|| Ok(Stanza::default()))?;
    match all.next() {
        None => Ok(first),
        Some(Err(error)) => Err(error),
        Some(Ok(second)) => Err(error_at(text, second.offset, ControlCause::NoField)),
    }
}

/// Iterates over stanzas.
#[derive(Clone, Debug)]
pub struct Stanzas<'t> {
    text: &'t str,
    at: usize,
}

fn error_at(text: &str, offset: usize, cause: ControlCause) -> ControlError {
    let before = &text.as_bytes()[..offset.min(text.len())];
    ControlError {
        line: 1 + memchr::memchr_iter(b'\n', before).count(),
        cause,
    }
}

impl<'t> Stanzas<'t> {
    /// The line at `at` without its end, and where the next one begins.
    fn line(&self, at: usize) -> (&'t str, usize) {
        let rest = &self.text[at..];
        match memchr::memchr(b'\n', rest.as_bytes()) {
            Some(end) => (&rest[..end], at + end + 1),
            None => (rest, self.text.len()),
        }
    }

    fn fail(&mut self, offset: usize, cause: ControlCause) -> ControlError {
        self.at = self.text.len();
        error_at(self.text, offset, cause)
    }
}

impl<'t> Iterator for Stanzas<'t> {
    type Item = Result<Stanza<'t>, ControlError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut stanza = Stanza::default();
        // Where the value of the last field begins and ends.
        let mut value = 0..0;
        while self.at < self.text.len() {
            let at = self.at;
            let (line, next) = self.line(at);
            self.at = next;
            let first = line.as_bytes().first().copied();
            if memchr::memchr2(0, b'\r', line.as_bytes()).is_some() {
                return Some(Err(self.fail(at, ControlCause::Control)));
            }
            match first {
                // A comment, wherever it stands.
                Some(b'#') => continue,
                Some(b' ' | b'\t') if !line.trim().is_empty() => {
                    let Some(last) = stanza.fields.last_mut() else {
                        return Some(Err(self.fail(at, ControlCause::NothingToContinue)));
                    };
                    value.end = at + line.len();
                    last.value = self.text[value.clone()].trim();
                    continue;
                }
                // A line of blanks ends a stanza as an empty one does.
                None | Some(b' ' | b'\t') => {
                    if stanza.fields.is_empty() {
                        continue;
                    }
                    return Some(Ok(stanza));
                }
                Some(_) => {}
            }
            let colon = memchr::memchr(b':', line.as_bytes());
            let Some((name, rest)) = colon.map(|colon| (&line[..colon], &line[colon + 1..])) else {
                return Some(Err(self.fail(at, ControlCause::NoField)));
            };
            if !is_name(name) {
                return Some(Err(self.fail(at, ControlCause::NoField)));
            }
            if stanza.field(name).is_some() {
                return Some(Err(self.fail(at, ControlCause::Twice(name.to_owned()))));
            }
            if stanza.fields.is_empty() {
                stanza.offset = at;
            }
            value = at + name.len() + 1..at + line.len();
            stanza.fields.push(Field {
                name,
                value: rest.trim(),
            });
        }
        (!stanza.fields.is_empty()).then_some(Ok(stanza))
    }
}

/// Where in a text a word is: every place in turn, the first first.
pub fn occurrences<'t>(text: &'t str, word: &'t str) -> impl Iterator<Item = usize> + 't {
    memchr::memmem::find_iter(text.as_bytes(), word.as_bytes())
}

/// The field that the place is in, and where that begins.
pub fn field_at(text: &str, mut at: usize) -> (&str, usize) {
    let bytes = text.as_bytes();
    loop {
        let start = memchr::memrchr(b'\n', &bytes[..at]).map_or(0, |end| end + 1);
        if start == 0 || !matches!(bytes[start], b' ' | b'\t') {
            let name = text[start..].split([':', '\n']).next().unwrap_or_default();
            return (name, start);
        }
        at = start - 1;
    }
}

/// Policy §5.1: printable ASCII without blanks and colon, not beginning with `#` or `-`.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(['#', '-'])
        && name.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(text: &str) -> Vec<Vec<(String, String)>> {
        stanzas(text)
            .map(|stanza| {
                let stanza = stanza.expect("a stanza");
                stanza
                    .fields
                    .iter()
                    .map(|field| (field.name.to_owned(), field.value.to_owned()))
                    .collect()
            })
            .collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn stanzas_end_at_blank_lines_and_values_go_on_after_a_blank() {
        let text = "\n# made by hand\nPackage: a\nDescription: one\n two\n .\n three  \n\n \nPackage:b\nDepends:\n x,\n# no\n y\n";
        assert_eq!(
            fields(text),
            [
                vec![
                    pair("Package", "a"),
                    pair("Description", "one\n two\n .\n three")
                ],
                vec![pair("Package", "b"), pair("Depends", "x,\n# no\n y")],
            ]
        );
        assert_eq!(fields(""), Vec::<Vec<(String, String)>>::new());
    }

    #[test]
    fn names_are_found_without_regard_to_case_and_a_stanza_knows_its_place() {
        let text = "A: 1\n\n\nPaCkAge: x\n";
        let second = stanzas(text).nth(1).expect("there").expect("a stanza");
        assert_eq!(second.get("Package"), Some("x"));
        assert_eq!(second.get("Version"), None);
        assert_eq!(&text[second.offset..], "PaCkAge: x\n");
    }

    #[test]
    fn what_is_no_stanza_is_told_with_its_line() {
        for (text, line, cause) in [
            ("A: 1\nno field\n", 2, ControlCause::NoField),
            (": 1\n", 1, ControlCause::NoField),
            ("A b: 1\n", 1, ControlCause::NoField),
            ("-A: 1\n", 1, ControlCause::NoField),
            ("\n x\n", 2, ControlCause::NothingToContinue),
            ("A: 1\nB: 2\na: 3\n", 3, ControlCause::Twice("a".into())),
            ("A: 1\r\n", 1, ControlCause::Control),
            ("A: 1\nB: \0\n", 2, ControlCause::Control),
        ] {
            let all: Result<Vec<_>, _> = stanzas(text).collect();
            assert_eq!(all, Err(ControlError { line, cause }), "{text:?}");
        }
    }

    #[test]
    fn comments_are_in_no_line_of_a_value() {
        let found = stanza("Depends:\n x,\n# no\n y\n").expect("a stanza");
        let lines: Vec<&str> = found.fields[0].lines().collect();
        assert_eq!(lines, ["x,", "y"]);
    }

    #[test]
    fn one_stanza_is_not_two() {
        assert_eq!(stanza("A: 1\n").expect("one").get("a"), Some("1"));
        let error = stanza("A: 1\n\nB: 2\n").expect_err("two");
        assert_eq!(error.line, 3);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_fall_over(text in "[A-C:# \n.\ta-c\r\u{e9}]{0,80}") {
            for stanza in stanzas(&text).flatten() {
                prop_assert!(!stanza.fields.is_empty());
                for field in stanza.fields {
                    prop_assert_eq!(field.value.trim(), field.value);
                }
            }
        }
    }
}
