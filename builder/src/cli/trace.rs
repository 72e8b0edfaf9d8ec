//! What the processes of a step did that could have differed, as lines for people and as JSON for machines.

use immbuild_cas::path::escape;
use serde_json::{Map, Value, json};

use crate::app::explain::{Explained, Trace};
use crate::app::graph::first_line;
use crate::exec::tracer::evidence::{Evidence, Process};
use crate::spec::model::Tier;

/// Every step that has a result: tier and step, then its processes, then what was real and how often it was stopped.
pub(super) fn lines(all: &[Explained]) -> Vec<String> {
    let traces = all
        .iter()
        .filter_map(|op| Some((op, op.trace.as_ref()?)))
        .map(|(op, trace)| {
            let tier = trace.tier.as_str();
            let head = format!("{}  {tier}  {}", op.label, first_line(&op.text));
            let body = match &trace.evidence {
                Some(evidence) => evidence_lines(evidence),
                None if trace.tier == Tier::Isolated => {
                    vec!["  nothing is virtual in this tier, and nobody looks".into()]
                }
                None => vec!["  nothing of its processes is kept; `--rerun` builds it anew".into()],
            };
            (head, body)
        });
    traces
        .flat_map(|(head, body)| std::iter::once(head).chain(body))
        .collect()
}

/// Its processes, then what was real and how often they were stopped.
pub(super) fn evidence_lines(evidence: &Evidence) -> Vec<String> {
    let places = evidence.processes.iter().map(place);
    let width = places.map(|place| place.len()).max().unwrap_or(0);
    let mut lines = Vec::new();
    for process in &evidence.processes {
        lines.push(format!("  {:width$}  {}", place(process), command(process)));
        let mut under = |text: String| lines.push(format!("  {:width$}    {text}", ""));
        if !process.sources.is_empty() {
            let sources = process.sources.iter();
            under(counts(
                sources.map(|(source, count)| (source.as_str(), *count)),
            ));
        }
        for path in &process.written {
            under(format!("wrote {}", escaped(path)));
        }
    }
    if !evidence.real.is_empty() {
        lines.push(format!("  real   {}", evidence.real.join(", ")));
    }
    if !evidence.stops.is_empty() {
        let stops = evidence.stops.iter();
        let stops = counts(stops.map(|(name, count)| (name.as_str(), *count)));
        lines.push(format!("  stops  {}: {stops}", rate(evidence)));
    }
    lines
}

/// How many stops there were in all, in how long, and how many that is in a second.
fn rate(evidence: &Evidence) -> String {
    let all: u64 = evidence.stops.values().sum();
    let took = evidence.milliseconds;
    // What took less than a millisecond took one.
    let each = all.saturating_mul(1000) / took.max(1);
    format!(
        "{all} in {}.{:03} s, {each} a second",
        took / 1000,
        took % 1000
    )
}

/// `0` for the first process, `0.2.0` for the first child of its third child.
fn place(process: &Process) -> String {
    let numbers = process.lineage.iter().map(ToString::to_string);
    let numbers: Vec<String> = std::iter::once("0".to_owned()).chain(numbers).collect();
    numbers.join(".")
}

fn command(process: &Process) -> String {
    let words: Vec<String> = process.argv.iter().map(|word| escaped(word)).collect();
    words.join(" ")
}

fn counts<'a>(counts: impl Iterator<Item = (&'a str, u64)>) -> String {
    let counts: Vec<String> = counts
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    counts.join(", ")
}

fn escaped(bytes: &[u8]) -> String {
    let mut out = String::new();
    escape(bytes, &mut out).expect("a string takes everything");
    out
}

/// The same for machines. In words and paths a backslash is `\\` and what is no printable UTF-8 is `\xNN`.
pub(super) fn json(trace: &Trace) -> Value {
    let process = |process: &Process| {
        let sources: Map<String, Value> = process
            .sources
            .iter()
            .map(|(source, count)| (source.as_str().to_owned(), json!(count)))
            .collect();
        json!({
            "lineage": process.lineage,
            "argv": process.argv.iter().map(|word| escaped(word)).collect::<Vec<_>>(),
            "sources": sources,
            "written": process.written.iter().map(|path| escaped(path)).collect::<Vec<_>>(),
        })
    };
    let evidence = trace.evidence.as_ref().map(|evidence| {
        json!({
            "processes": evidence.processes.iter().map(process).collect::<Vec<_>>(),
            "real": evidence.real,
            "stops": evidence.stops,
            "milliseconds": evidence.milliseconds,
        })
    });
    json!({ "tier": trace.tier.as_str(), "evidence": evidence })
}

#[cfg(test)]
mod tests {
    use immbuild_cas::digest::Digest;

    use super::*;
    use crate::app::explain::Fate;
    use crate::exec::tracer::evidence::Source;
    use crate::graph::op::OpId;

    fn explained(trace: Option<Trace>) -> Explained {
        Explained {
            label: "build.2".into(),
            text: "run make".into(),
            op: OpId::new(Digest::of(b"op")),
            action: None,
            fate: Fate::Cached,
            reasons: Vec::new(),
            trace,
        }
    }

    fn trace() -> Trace {
        let make = Process {
            argv: vec![b"make".to_vec(), b"-j4".to_vec()],
            sources: [(Source::Clock, 3), (Source::Files, 12)].into(),
            ..Process::default()
        };
        let cc = Process {
            lineage: vec![0, 1],
            argv: vec![b"cc".to_vec(), b"a\n".to_vec()],
            sources: [(Source::Random, 1)].into(),
            written: vec![b"/a.o".to_vec(), b"/tmp/x".to_vec()],
        };
        Trace {
            tier: Tier::Deterministic,
            evidence: Some(Evidence {
                processes: vec![make, cc],
                real: vec!["cpuid".into()],
                stops: [("fork".into(), 2), ("newfstatat".into(), 12)].into(),
                milliseconds: 250,
            }),
        }
    }

    #[test]
    fn each_process_is_told_with_what_it_used_and_wrote() {
        assert_eq!(
            lines(&[explained(Some(trace())), explained(None)]).join("\n"),
            "\
build.2  deterministic  run make
  0      make -j4
           clock 3, files 12
  0.0.1  cc a\\x0a
           random 1
           wrote /a.o
           wrote /tmp/x
  real   cpuid
  stops  14 in 0.250 s, 56 a second: fork 2, newfstatat 12"
        );
    }

    #[test]
    fn machines_are_told_the_same() {
        assert_eq!(
            json(&trace()),
            json!({
                "tier": "deterministic",
                "evidence": {
                    "processes": [
                        {
                            "lineage": [],
                            "argv": ["make", "-j4"],
                            "sources": { "clock": 3, "files": 12 },
                            "written": [],
                        },
                        {
                            "lineage": [0, 1],
                            "argv": ["cc", "a\\x0a"],
                            "sources": { "random": 1 },
                            "written": ["/a.o", "/tmp/x"],
                        },
                    ],
                    "real": ["cpuid"],
                    "stops": { "fork": 2, "newfstatat": 12 },
                    "milliseconds": 250,
                },
            })
        );
    }
}
