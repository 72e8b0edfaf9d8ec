//! What we tell people about a text they wrote: where, what, why and what to do.
//!
//! The only home of `annotate-snippets`. Must never know the clock, terminals or any format.

mod nearest;
mod render;
mod source;

pub use nearest::nearest;
pub use render::{Report, ReportPlace, Style, render, render_all};
pub(crate) use source::boundary;
pub use source::{Place, Position, SourceFile, Span};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The work cannot go on.
    Error,
    /// It can, and probably not as meant.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One thing to say: lower case, no full stop, names in backticks; what happened, then why, then what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What happened.
    pub message: String,
    /// Why.
    pub cause: Option<String>,
    /// Where, when it is about a text.
    pub place: Option<Place>,
    /// What to do, when it helps.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// An error that says this.
    pub fn error(message: impl Into<String>) -> Self {
        Self::new(Severity::Error, message.into())
    }

    /// A warning that says this.
    pub fn warning(message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, message.into())
    }

    fn new(severity: Severity, message: String) -> Self {
        Self {
            severity,
            message,
            cause: None,
            place: None,
            hint: None,
        }
    }

    /// The same, and where.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// The same, and why.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// The same, and what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
