//! Events as rows on a terminal, as plain lines, or as JSON.
#![allow(clippy::disallowed_methods, reason = "rates need a clock")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::in_short;
use crate::diag::{Diagnostic, Style, render};
use crate::ports::{Event, Events, Outcome, WorkId};

/// How to show what goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// A row for each running piece of work, redrawn in place.
    Rows,
    /// A line when a piece of work has ended.
    Lines,
    /// A JSON object for each event, on standard output.
    Json,
    /// Only warnings.
    Nothing,
}

/// A piece of work shorter than this is over before a row would help.
const PATIENCE: Duration = Duration::from_millis(300);

/// Draws events.
pub struct Progress {
    show: Show,
    style: Style,
    rows: MultiProgress,
    state: Mutex<BTreeMap<WorkId, Work>>,
}

struct Work {
    label: String,
    start: Instant,
    total: Option<u64>,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Shows events in this way.
    pub fn new(show: Show, style: Style) -> Self {
        let target = match show {
            Show::Rows => ProgressDrawTarget::stderr_with_hz(10),
            Show::Lines | Show::Json | Show::Nothing => ProgressDrawTarget::hidden(),
        };
        Self {
            show,
            style,
            rows: MultiProgress::with_draw_target(target),
            state: Mutex::new(BTreeMap::new()),
        }
    }

    fn state(&self) -> MutexGuard<'_, BTreeMap<WorkId, Work>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a line above the rows.
    pub fn say(&self, line: &str) {
        self.rows.suspend(|| {
            // Nobody is left to be told when standard error is closed.
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        });
    }

    fn json(value: &serde_json::Value) {
        super::data(&value.to_string());
    }

    fn started(&self, id: WorkId, label: String, total: Option<u64>) {
        let work = Work {
            label,
            start: Instant::now(),
            total,
            bar: None,
        };
        if self.show == Show::Json {
            Self::json(&serde_json::json!({
                "event": "started", "id": id.0, "label": work.label, "total": total,
            }));
        }
        self.state().insert(id, work);
    }

    fn advanced(&self, id: WorkId, done: u64) {
        if self.show != Show::Rows {
            return;
        }
        if let Some(work) = self.state().get_mut(&id) {
            self.row(work, None);
            if let Some(bar) = &work.bar {
                bar.set_position(done);
            }
        }
    }

    /// Makes the row of a piece of work that has lasted long enough to be worth one.
    fn row(&self, work: &mut Work, message: Option<&str>) {
        if work.bar.is_none() && work.start.elapsed() >= PATIENCE {
            let (bar, template) = match work.total {
                Some(total) => (
                    ProgressBar::new(total),
                    "{prefix:.cyan} [{bar:24}] {bytes}/{total_bytes} {bytes_per_sec} {elapsed}",
                ),
                None => (
                    ProgressBar::new_spinner(),
                    "{prefix:.cyan} {spinner} {elapsed} {wide_msg:.dim}",
                ),
            };
            let style = ProgressStyle::with_template(template)
                .expect("the template is a constant")
                .progress_chars("=> ");
            let bar = self
                .rows
                .add(bar.with_style(style).with_prefix(in_short(&work.label)));
            bar.enable_steady_tick(Duration::from_millis(100));
            work.bar = Some(bar);
        }
        if let (Some(bar), Some(message)) = (&work.bar, message) {
            bar.set_message(message.to_owned());
        }
    }

    fn output(&self, id: WorkId, line: &str) {
        match self.show {
            Show::Rows => {
                if let Some(work) = self.state().get_mut(&id) {
                    self.row(work, Some(line));
                }
            }
            Show::Lines => {
                let label = self
                    .state()
                    .get(&id)
                    .map(|work| first_word(&work.label).to_owned());
                self.say(&format!("{:12} {line}", label.unwrap_or_default()));
            }
            Show::Json => Self::json(&serde_json::json!({
                "event": "output", "id": id.0, "line": line,
            })),
            Show::Nothing => {}
        }
    }

    fn finished(&self, id: WorkId, outcome: Outcome) {
        let Some(work) = self.state().remove(&id) else {
            return;
        };
        if let Some(bar) = &work.bar {
            bar.finish_and_clear();
        }
        let seconds = work.start.elapsed().as_secs_f64();
        match self.show {
            Show::Rows | Show::Lines if work.start.elapsed() >= PATIENCE => {
                let mark = match outcome {
                    Outcome::Done => "done",
                    Outcome::Cached => "cached",
                    Outcome::Failed => "failed",
                };
                self.say(&format!(
                    "{mark:9} {} {seconds:.1} s",
                    in_short(&work.label)
                ));
            }
            Show::Json => Self::json(&serde_json::json!({
                "event": "finished", "id": id.0, "label": work.label, "seconds": seconds,
                "outcome": match outcome {
                    Outcome::Done => "done",
                    Outcome::Cached => "cached",
                    Outcome::Failed => "failed",
                },
            })),
            Show::Rows | Show::Lines | Show::Nothing => {}
        }
    }
}

impl Events for Progress {
    fn event(&self, event: Event) {
        match event {
            Event::Started { id, label, total } => self.started(id, label, total),
            Event::Advanced { id, done } => self.advanced(id, done),
            Event::Output { id, line } => self.output(id, &line),
            Event::Finished { id, outcome } => self.finished(id, outcome),
            Event::Warning { text, hint } => {
                if self.show == Show::Json {
                    Self::json(&serde_json::json!({
                        "event": "warning", "message": text, "hint": hint,
                    }));
                } else {
                    let mut diagnostic = Diagnostic::warning(text);
                    diagnostic.hint = hint;
                    self.say(render(&diagnostic, self.style).trim_end());
                }
            }
        }
    }
}

fn first_word(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}
