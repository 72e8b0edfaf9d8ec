//! How a use case ends when it does not succeed: sentences for people and the exit status that SPEC C gives them.

use std::error::Error;

use crate::diag::{Diagnostic, Place};
use crate::spec::model::Ident;

/// The exit statuses of SPEC C.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// A defect of immbuild.
    Defect = 1,
    /// Wrong usage.
    Usage = 2,
    /// The spec is invalid.
    Spec = 3,
    /// The lock is missing, outdated or damaged, no expectation applies, or a tree is dirty.
    Lock = 4,
    /// An input or destination cannot be reached or refuses.
    Unreachable = 5,
    /// An input is not what was locked, or not trusted.
    Untrusted = 6,
    /// A step failed or timed out.
    Step = 7,
    /// This machine cannot keep the promise.
    Machine = 8,
    /// The local machine refused.
    Local = 9,
    /// Identical except compression.
    DiffId = 10,
    /// Identical except tar form.
    Tree = 11,
    /// Different.
    Different = 12,
    /// It cannot be said, with the reason.
    CannotSay = 13,
    /// Interrupted.
    Interrupted = 130,
}

/// Why a use case did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the process exits with.
    pub exit: Exit,
    /// What to say, all of it.
    pub diagnostics: Vec<Diagnostic>,
}

impl Failure {
    /// One sentence.
    pub fn new(exit: Exit, diagnostic: Diagnostic) -> Self {
        Self {
            exit,
            diagnostics: vec![diagnostic],
        }
    }

    /// An error with everything that caused it.
    pub fn of(exit: Exit, error: &dyn Error) -> Self {
        Self::new(exit, diagnostic_of(error))
    }

    /// Points at the source it is about, where nothing points yet.
    #[must_use]
    pub fn at(mut self, place: Place, source: &Ident) -> Self {
        if let Some(first) = self.diagnostics.first_mut()
            && first.place.is_none()
        {
            first.place = Some(place);
            let message = std::mem::take(&mut first.message);
            first.cause = Some(match first.cause.take() {
                Some(cause) => format!("{message}: {cause}"),
                None => message,
            });
            first.message = format!("cannot use source `{source}`");
        }
        self
    }

    /// Says what to type next, where nothing says so yet.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Some(last) = self.diagnostics.last_mut() {
            last.hint.get_or_insert(hint.into());
        }
        self
    }
}

/// An error and its sources as one diagnostic: the first is the message, the others are its cause.
pub fn diagnostic_of(error: &dyn Error) -> Diagnostic {
    let diagnostic = Diagnostic::error(error.to_string());
    let mut causes: Vec<String> = Vec::new();
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        // A transparent error says what its source says.
        if causes.last() != Some(&text) && text != diagnostic.message {
            causes.push(text);
        }
        source = error.source();
    }
    if causes.is_empty() {
        diagnostic
    } else {
        diagnostic.because(causes.join(": "))
    }
}
