//! TOML 1.0 as a tree of spanned values.
//!
//! The only home of `toml`, which reads TOML 1.1: what only 1.1 has is refused here, so that every other tool can
//! read what we read. Knows no key of any file.

use std::collections::BTreeSet;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};
use toml_parser::lexer::TokenKind;

use crate::diag::{Diagnostic, Place, SourceFile, Span, boundary};

/// A table, its entries in the order of their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// Its header, or its braces, or the key that implies it.
    pub(crate) span: Span,
    pub(crate) entries: Vec<Entry>,
}

/// One key of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Span,
    pub(crate) value: Value,
}

/// A value and where it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) span: Span,
    pub(crate) data: Data,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    String(String),
    /// Absent when it does not fit: no key takes such a number.
    Integer(Option<i64>),
    Float,
    Boolean(bool),
    /// As written.
    Datetime(String),
    Array(Vec<Value>),
    Table(Table),
}

impl Data {
    /// With its article, for "found …".
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float => "a float",
            Self::Boolean(_) => "a boolean",
            Self::Datetime(_) => "a date-time",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
        }
    }
}

impl Table {
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// The string of a key; nothing when there is none. For files of other tools, whose form they check themselves.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match &self.get(key)?.value.data {
            Data::String(text) => Some(text),
            _ => None,
        }
    }

    /// The table of a key; nothing when there is none.
    pub(crate) fn table(&self, key: &str) -> Option<&Table> {
        match &self.get(key)?.value.data {
            Data::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The tables of an array; none when there is no such array.
    pub(crate) fn tables(&self, key: &str) -> impl Iterator<Item = &Table> {
        self.array(key)
            .iter()
            .filter_map(|value| match &value.data {
                Data::Table(table) => Some(table),
                _ => None,
            })
    }

    /// The strings of an array; none when there is no such array.
    pub(crate) fn texts(&self, key: &str) -> impl Iterator<Item = &str> {
        self.array(key)
            .iter()
            .filter_map(|value| match &value.data {
                Data::String(text) => Some(text.as_str()),
                _ => None,
            })
    }

    fn array(&self, key: &str) -> &[Value] {
        match self.get(key).map(|entry| &entry.value.data) {
            Some(Data::Array(values)) => values,
            _ => &[],
        }
    }
}

/// The file with line ends as `\n` and without a byte order mark, so that a checkout that rewrites line ends builds
/// the same image. Lines and columns stay what they were.
pub(crate) fn source_file(name: &str, text: &str) -> Arc<SourceFile> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    Arc::new(SourceFile {
        name: name.into(),
        text: text.replace("\r\n", "\n"),
    })
}

/// Reads all of it, or says everything that is wrong with its form.
pub(crate) fn parse(file: &Arc<SourceFile>) -> Result<Table, Vec<Diagnostic>> {
    let (table, mut errors) = DeTable::parse_recoverable(&file.text);
    let mut diagnostics = Vec::new();
    // After the first error of a line the parser is guessing; that something is unclosed is a guess at best.
    errors.sort_by_key(|error| error.message().starts_with("unclosed"));
    let mut lines = BTreeSet::new();
    for error in &errors {
        let span = error.span().map_or_else(Span::default, Span::from);
        if lines.insert(file.position(span.start).line) {
            diagnostics.push(syntax_error(file, error.message(), span));
        }
    }
    diagnostics.extend(only_in_toml_1_1(file));
    diagnostics.sort_by_key(|it| it.place.as_ref().map(|place| place.span));
    if diagnostics.is_empty() {
        let span = Span::from(table.span());
        Ok(convert_table(file, span, table.get_ref()))
    } else {
        Err(diagnostics)
    }
}

fn syntax_error(file: &Arc<SourceFile>, message: &str, span: Span) -> Diagnostic {
    let error = Diagnostic::error("this is not TOML")
        .because(message)
        .at(Place {
            file: Arc::clone(file),
            span,
        });
    if message.contains("leading zero") {
        let before = &file.text[..boundary(&file.text, span.start)];
        let key = before.trim_end_matches(|it: char| it.is_ascii_digit());
        let digits: String = file.text[key.len()..]
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        let is_mode = key.trim_end_matches([' ', '\t', '=']).ends_with("mode");
        return error.hint(if is_mode {
            format!("a mode is a string: `\"{digits}\"`")
        } else {
            format!("write `{}`", digits.trim_start_matches('0'))
        });
    }
    let slice = file.slice(span);
    if message.contains("must be quoted") && !slice.is_empty() && !slice.contains('"') {
        return error.hint(format!("write `\"{slice}\"`"));
    }
    if message.contains("invalid basic string") || message.contains("invalid literal string") {
        return error.hint("a string ends on its line, with the quote it began with");
    }
    if message.contains("duplicate key") {
        return error.hint(
            "write each key once; a table that is already there goes on under its own header",
        );
    }
    error
}

/// TOML 1.1 lets inline tables wrap and end in a comma, and has the escapes `\e` and `\xHH`.
fn only_in_toml_1_1(file: &Arc<SourceFile>) -> Vec<Diagnostic> {
    let source = toml_parser::Source::new(&file.text);
    let refuse = |what: &str, hint: &str, span: Span| {
        Diagnostic::error(what)
            .because("a spec is TOML 1.0")
            .at(Place {
                file: Arc::clone(file),
                span,
            })
            .hint(hint)
    };
    let mut diagnostics = Vec::new();
    // The open brackets; for a brace also where it is and whether it has been complained about.
    let mut open: Vec<Option<(Span, bool)>> = Vec::new();
    let mut comma: Option<Span> = None;
    for token in source.lex() {
        let span = Span {
            start: token.span().start(),
            end: token.span().end(),
        };
        match token.kind() {
            TokenKind::LeftCurlyBracket => open.push(Some((span, false))),
            TokenKind::LeftSquareBracket => open.push(None),
            TokenKind::RightCurlyBracket => {
                open.pop();
                if let Some(comma) = comma {
                    diagnostics.push(refuse(
                        "an inline table does not end in a comma",
                        "remove the comma",
                        comma,
                    ));
                }
            }
            TokenKind::RightSquareBracket => {
                open.pop();
            }
            TokenKind::Newline => {
                if let Some(Some((brace, said))) = open.last_mut()
                    && !*said
                {
                    *said = true;
                    diagnostics.push(refuse(
                        "an inline table stays on one line",
                        "join the lines, or write it as a table of its own (a step: `[[image.steps]]`)",
                        *brace,
                    ));
                }
            }
            TokenKind::BasicString | TokenKind::MlBasicString => {
                let text = file.slice(span);
                diagnostics.extend(new_escapes(text).map(|(at, escape)| {
                    let start = span.start + at;
                    refuse(
                        &format!("`{escape}` is no escape"),
                        "write `\\u00HH` with the character's number in hex; a backslash itself is `\\\\`",
                        Span::from(start..start + escape.len()),
                    )
                }));
            }
            _ => {}
        }
        match token.kind() {
            TokenKind::Comma => comma = Some(span),
            TokenKind::Whitespace | TokenKind::Newline | TokenKind::Comment => {}
            _ => comma = None,
        }
    }
    diagnostics
}

/// Offsets of `\e` and `\x` in a basic string as written.
fn new_escapes(text: &str) -> impl Iterator<Item = (usize, &'static str)> {
    let mut escaped = false;
    text.char_indices().filter_map(move |(at, c)| {
        let found = match c {
            'e' if escaped => Some((at - 1, "\\e")),
            'x' if escaped => Some((at - 1, "\\x")),
            _ => None,
        };
        escaped = c == '\\' && !escaped;
        found
    })
}

fn convert_table(file: &SourceFile, span: Span, table: &DeTable<'_>) -> Table {
    let entries = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            key_span: key.span().into(),
            value: convert(file, value.span().into(), value.get_ref()),
        })
        .collect();
    Table { span, entries }
}

fn convert(file: &SourceFile, span: Span, value: &DeValue<'_>) -> Value {
    let data = match value {
        DeValue::String(text) => Data::String(text.to_string()),
        DeValue::Integer(number) => {
            Data::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok())
        }
        DeValue::Float(_) => Data::Float,
        DeValue::Boolean(value) => Data::Boolean(*value),
        DeValue::Datetime(_) => Data::Datetime(file.slice(span).to_owned()),
        DeValue::Array(values) => Data::Array(
            values
                .iter()
                .map(|value| convert(file, value.span().into(), value.get_ref()))
                .collect(),
        ),
        DeValue::Table(table) => Data::Table(convert_table(file, span, table)),
    };
    Value { span, data }
}

/// The first line that git leaves where two sides differ, and what to say of it.
pub(crate) fn conflict(file: &Arc<SourceFile>, what: &str) -> Option<Diagnostic> {
    let mut start = 0;
    for line in file.text.split_inclusive('\n') {
        let content = line.trim_end();
        if content.starts_with("<<<<<<< ") || content.starts_with(">>>>>>> ") {
            let span = Span::from(start..start + content.len());
            let place = Place {
                file: Arc::clone(file),
                span,
            };
            let message = format!("the {what} holds merge conflict markers");
            return Some(Diagnostic::error(message).at(place));
        }
        start += line.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_text(text: &str) -> Result<Table, Vec<Diagnostic>> {
        parse(&source_file("spec.toml", text))
    }

    #[test]
    fn line_ends_and_a_byte_order_mark_mean_nothing() {
        let unix = "a = \"\"\"x\ny\"\"\"\nb = 1\n";
        let windows = format!("\u{feff}{}", unix.replace('\n', "\r\n"));
        assert_eq!(parse_text(&windows), parse_text(unix));
        let escaped = parse_text(r#"a = "x\r\ny""#).expect("TOML");
        assert_eq!(escaped.entries[0].value.data, Data::String("x\r\ny".into()));
    }

    #[test]
    fn headers_and_dotted_keys_say_where_they_are() {
        let file = source_file(
            "spec.toml",
            "source.a.path = \"x\"\n[image]\nb = [{ c = 1 }]\n",
        );
        let table = parse(&file).expect("TOML");
        let at = |span: Span| file.slice(span);
        let image = table.get("image").expect("there");
        let source = table.get("source").expect("there");
        assert_eq!(
            (at(image.key_span), at(image.value.span)),
            ("image", "[image]")
        );
        assert_eq!(
            (at(source.key_span), at(source.value.span)),
            ("source", "source")
        );
        let Data::Table(image) = &image.value.data else {
            panic!("a table")
        };
        assert_eq!(at(image.entries[0].value.span), "[{ c = 1 }]");
    }

    #[test]
    fn only_toml_1_0_is_read() {
        for text in [
            "a = {\n b = 1 }",
            "a = { b = 1, }",
            "a = { b = 1, # why\n }",
            "a = { b = [ 1,\n 2 ],\n c = 1 }",
            r#"a = "\e""#,
            r#"a = "\x41""#,
            "a = \"\"\"\n\\e\"\"\"",
        ] {
            assert!(parse_text(text).is_err(), "{text}");
        }
        for text in [
            "a = { b = [ 1,\n 2,\n ] }",
            "a = [ { b = 1 },\n { c = 2 },\n]",
            r#"a = "\\e \\x41""#,
            r"a = '\e'",
            "a = '{,}' # {,}\n[b]\n[[c]]\nd = 1",
            "a = '''\n{\n'''",
        ] {
            assert!(parse_text(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_crash() {
        let deep = |open: &str, close: &str| {
            format!("a = {}1{}", open.repeat(10_000), close.repeat(10_000))
        };
        for text in [
            deep("[", "]"),
            deep("{a=", "}"),
            format!("{}a = 1", "a.".repeat(10_000)),
            format!("[{}a]", "a.".repeat(10_000)),
        ] {
            assert!(parse_text(&text).is_err());
        }
    }
}
