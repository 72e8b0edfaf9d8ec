//! Diagnostics as text and as data.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::{Diagnostic, Severity, boundary};

/// With or without terminal colours. Colour never carries meaning alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// Text only.
    #[default]
    Plain,
    /// With ANSI escapes.
    Coloured,
}

/// The text people read, ending in a line end.
///
/// ```text
/// error: cannot lock source `debian`
///   cause: manifest for `docker.io/library/debian:12` not found (HTTP 404)
///  --> spec.toml:7:9
///   |
/// 7 | image = "docker.io/library/debian:12"
///   |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
/// hint: check the tag
/// ```
pub fn render(diagnostic: &Diagnostic, style: Style) -> String {
    let paint = |code: &str, text: &str| match style {
        Style::Plain => text.to_owned(),
        Style::Coloured => format!("\x1b[{code}m{text}\x1b[0m"),
    };
    let colour = match diagnostic.severity {
        Severity::Error => "1;31",
        Severity::Warning => "1;33",
    };
    let severity = paint(colour, diagnostic.severity.as_str());
    let mut out = format!(
        "{severity}{}\n",
        paint("1", &format!(": {}", diagnostic.message))
    );
    if let Some(cause) = &diagnostic.cause {
        for part in ["  ", &paint("1", "cause:"), " ", cause, "\n"] {
            out.push_str(part);
        }
    }
    if let Some(place) = &diagnostic.place {
        let text = &place.file.text;
        // The renderer wants character boundaries inside the text. A value of many lines is marked in its first.
        let start = boundary(text, place.span.start);
        let end = boundary(text, place.span.end).max(start);
        let end = text[start..end].find('\n').map_or(end, |at| start + at);
        let snippet = Snippet::source(text.as_str())
            .path(place.file.name.as_str())
            .annotation(AnnotationKind::Primary.span(start..end));
        let (level, renderer) = (
            match diagnostic.severity {
                Severity::Error => Level::ERROR,
                Severity::Warning => Level::WARNING,
            },
            match style {
                Style::Plain => Renderer::plain(),
                Style::Coloured => Renderer::styled(),
            },
        );
        let group = Group::with_level(level).element(snippet);
        out += &renderer.render(&[group]);
        out.push('\n');
    }
    if let Some(hint) = &diagnostic.hint {
        for part in [&paint("1;36", "hint:"), " ", hint, "\n"] {
            out.push_str(part);
        }
    }
    out
}

/// All of them, a blank line between two.
pub fn render_all(diagnostics: &[Diagnostic], style: Style) -> String {
    let texts: Vec<String> = diagnostics.iter().map(|it| render(it, style)).collect();
    texts.join("\n")
}

/// A diagnostic for programs: what `--json` prints.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// `error` or `warning`.
    pub severity: &'static str,
    /// What happened.
    pub message: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<ReportPlace>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Where, in lines and columns from 1.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ReportPlace {
    /// The file's name.
    pub file: String,
    /// The line of the first character, from 1.
    pub line: usize,
    /// Its column in characters, from 1.
    pub column: usize,
    /// The line behind the last character.
    pub end_line: usize,
    /// The column behind the last character.
    pub end_column: usize,
}

impl From<&Diagnostic> for Report {
    fn from(diagnostic: &Diagnostic) -> Self {
        let place = diagnostic.place.as_ref().map(|place| {
            let (from, to) = (
                place.file.position(place.span.start),
                place.file.position(place.span.end),
            );
            ReportPlace {
                file: place.file.name.clone(),
                line: from.line,
                column: from.column,
                end_line: to.line,
                end_column: to.column,
            }
        });
        Self {
            severity: diagnostic.severity.as_str(),
            message: diagnostic.message.clone(),
            cause: diagnostic.cause.clone(),
            place,
            hint: diagnostic.hint.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::diag::{Place, SourceFile, Span};

    fn example() -> Diagnostic {
        let text = "immbuild = 1\n\n[source.debian]\nimage = \"debian:12\"\n";
        let start = text.find("\"debian:12\"").expect("there");
        let file = SourceFile {
            name: "spec.toml".into(),
            text: text.into(),
        };
        Diagnostic::error("cannot lock source `debian`")
            .because("manifest for `debian:12` not found (HTTP 404)")
            .at(Place {
                file: Arc::new(file),
                span: Span::from(start..start + 11),
            })
            .hint("check the tag")
    }

    #[test]
    fn what_then_why_then_where_then_what_to_do() {
        assert_eq!(
            render(&example(), Style::Plain),
            "\
error: cannot lock source `debian`
  cause: manifest for `debian:12` not found (HTTP 404)
 --> spec.toml:4:9
  |
4 | image = \"debian:12\"
  |         ^^^^^^^^^^^
hint: check the tag
"
        );
    }

    #[test]
    fn without_colours_the_coloured_text_is_the_plain_one() {
        let coloured = render(&example(), Style::Coloured);
        let mut stripped = String::new();
        let mut rest = coloured.as_str();
        while let Some(at) = rest.find("\x1b[") {
            stripped += &rest[..at];
            let end = rest[at..].find('m').expect("an escape ends");
            rest = &rest[at + end + 1..];
        }
        stripped += rest;
        assert_ne!(coloured, stripped);
        assert_eq!(stripped, render(&example(), Style::Plain));
    }

    #[test]
    fn programs_get_lines_columns_and_bytes() {
        let json = serde_json::to_string(&Report::from(&example())).expect("no map keys to refuse");
        assert_eq!(
            json,
            concat!(
                r#"{"severity":"error","message":"cannot lock source `debian`","#,
                r#""cause":"manifest for `debian:12` not found (HTTP 404)","#,
                r#""place":{"file":"spec.toml","line":4,"column":9,"end_line":4,"end_column":20},"#,
                r#""hint":"check the tag"}"#
            )
        );
    }

    #[test]
    fn a_span_outside_the_text_is_drawn_at_its_end() {
        let mut diagnostic = example();
        diagnostic.place.as_mut().expect("has one").span = Span {
            start: 900,
            end: 950,
        };
        let place = render(&diagnostic, Style::Plain);
        assert_eq!(place.lines().nth(2), Some(" --> spec.toml:4:21"));
    }

    #[test]
    fn a_span_of_many_lines_is_marked_in_its_first() {
        let mut diagnostic = example();
        diagnostic.place.as_mut().expect("has one").span = Span { start: 0, end: 30 };
        diagnostic.cause = None;
        diagnostic.hint = None;
        assert_eq!(
            render(&diagnostic, Style::Plain),
            "\
error: cannot lock source `debian`
 --> spec.toml:1:1
  |
1 | immbuild = 1
  | ^^^^^^^^^^^^
"
        );
    }
}
