//! The traits that effects stand behind. Must never know an implementation.

use std::sync::Arc;

/// What a build tells while it goes on. Drawn by `ui`, written as JSON lines by `cli`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something that takes time begins.
    Started {
        /// Names this piece of work until it is finished.
        id: WorkId,
        /// What is done, for people: `build.2 make -j4`, `fetch tool`, `layer 3`.
        label: String,
        /// How many bytes there are to do, where it is known.
        total: Option<u64>,
    },
    /// So many bytes of it are done.
    Advanced {
        /// Which piece of work.
        id: WorkId,
        /// Bytes done since it started.
        done: u64,
    },
    /// A line that a step printed.
    Output {
        /// Which piece of work.
        id: WorkId,
        /// Without its line end; bytes that are no UTF-8 are replaced.
        line: String,
    },
    /// It is over.
    Finished {
        /// Which piece of work.
        id: WorkId,
        /// How it ended.
        outcome: Outcome,
    },
    /// Something a person should know, though it is no error.
    Warning {
        /// The sentence, without `warning:`.
        text: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

/// Names a piece of work among those going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkId(pub u64);

/// How a piece of work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// Its result was known already.
    Cached,
    /// It failed; the error says why.
    Failed,
}

/// Takes events. Called from several threads at once.
pub trait Events: Send + Sync {
    /// Takes one event. Must not block for long.
    fn event(&self, event: Event);
}

/// Takes events and does nothing with them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Events for Silent {
    fn event(&self, _event: Event) {}
}

/// Events shared between threads.
pub type SharedEvents = Arc<dyn Events>;
