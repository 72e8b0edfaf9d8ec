//! TOML 1.0 as a tree of spanned values.
//!
//! The only home of `toml`, which reads TOML 1.1: what only 1.1 has is refused here, so that every other tool can
//! read what we read. Knows no key of any file.

use std::sync::Arc;

use toml::de::{DeTable, DeValue};
use toml_parser::lexer::TokenKind;

use crate::diag::{Diagnostic, Place, SourceFile, Span};

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
    let (table, errors) = DeTable::parse_recoverable(&file.text);
    let mut diagnostics = Vec::new();
    let mut last_line = None;
    for error in &errors {
        let span = error.span().map_or_else(Span::default, Span::from);
        // After the first error of a line the parser is guessing.
        let line = file.position(span.start).line;
        if last_line.replace(line) != Some(line) {
            diagnostics.push(syntax_error(file, error.message(), span));
        }
    }
    diagnostics.extend(only_in_toml_1_1(file));
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
    let line_start = file.text[..file.text.floor_char_boundary(span.start)]
        .rfind('\n')
        .map_or(0, |at| at + 1);
    let line = file.text[line_start..].lines().next().unwrap_or("");
    let value = line.split_once('=').map_or("", |(_, value)| value.trim());
    if message.contains("leading zero") {
        let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
        return error.hint(format!("a mode is a string: `\"{digits}\"`"));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::{Style, render_all};

    fn probe(text: &str) {
        let file = source_file("spec.toml", text);
        match parse(&file) {
            Ok(table) => show(&file, &table, 0),
            Err(errors) => eprintln!("{}", render_all(&errors, Style::Plain)),
        }
    }
    fn show(file: &SourceFile, t: &Table, d: usize) {
        for e in &t.entries {
            eprintln!(
                "{:d$}{} @{:?} = {:?} @{:?}",
                "",
                e.key,
                file.slice(e.key_span),
                e.value.data.kind(),
                file.slice(e.value.span)
            );
            match &e.value.data {
                Data::Table(t) => show(file, t, d + 2),
                Data::Array(v) => {
                    for v in v {
                        if let Data::Table(t) = &v.data {
                            eprintln!("{:d$} - {:?}", "", file.slice(v.span));
                            show(file, t, d + 4)
                        }
                    }
                }
                Data::String(s) => eprintln!("{s:?}"),
                _ => {}
            }
        }
    }

    #[test]
    fn look() {
        probe(
            "immbuild = 1\r\nsource.hello.path = 'x'\r\n[source.b]\nx = [1,2]\n[image]\nsteps = [ { copy = 'a', to.x = 'b' } ]\nt = \"\"\"a\r\nb\"\"\"\n[stage.a.env]\nx=1\n[[image.more]]\na=1\n[[image.more]]\nb=2\n",
        );
        probe(
            "mode = 0755\na = {\n b = 1,\n c = 2, }\nx = \"\\e \\x41 \\\\x\"\nb = \nc c = 1\n[a\n",
        );
        probe("a = 1\na = 2\n[x]\n[x]\n");
        probe("<<<<<<< HEAD\na = 1\n=======\na = 2\n>>>>>>> x\n");
        probe("text = \"abc\nb = 1");
        probe("a = 'x\n[b]\nc = [1, 2\nd = 3\n");
        probe("a = nothing\nb = tru\nc = 2026-01-01T00:00Z\nd = \"\\q\"\n");
    }
}
