//! The build graph of a spec, for reading.

use std::fmt::Write as _;

use super::build::BuildRequest;
use super::failure::Failure;
use super::planned::{Planned, planned};
use super::project::Project;
use super::realise::Options;
use super::session::Session;
use crate::graph::op::{OpId, OpKind, Pin};
use crate::graph::{Graph, Origin};

/// An op, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vertex {
    /// Its id.
    pub op: OpId,
    /// `empty`, `tree`, `http`, `image`, `file`, `unpack` or `exec`.
    pub kind: &'static str,
    /// Its label: `build.2`, `source tools`, `start`.
    pub label: String,
    /// The step in one line; empty for a source.
    pub text: String,
    /// The ops it is done to, in the order its kind says.
    pub inputs: Vec<OpId>,
}

/// The ops of a spec's image, inputs first.
pub fn graph(
    session: &Session<'_>,
    project: &Project,
    options: &Options,
) -> Result<Vec<Vertex>, Failure> {
    let request = BuildRequest {
        locked: true,
        options: options.clone(),
        ..BuildRequest::default()
    };
    let Planned { graph, wants, .. } = planned(session, project, &request)?;
    let ids = graph.reachable(&wants);
    Ok(ids.into_iter().map(|id| vertex(&graph, id)).collect())
}

fn vertex(graph: &Graph, id: OpId) -> Vertex {
    let op = graph.op(id);
    let origin = graph.origin(id);
    Vertex {
        op: id,
        kind: match &op.kind {
            OpKind::Empty => "empty",
            OpKind::Source(Pin::Tree { .. }) => "tree",
            OpKind::Source(Pin::Http { .. }) => "http",
            OpKind::Source(Pin::Image { .. }) => "image",
            OpKind::Source(Pin::Packages(_)) => "packages",
            OpKind::Source(Pin::Libraries(..)) => "libraries",
            OpKind::Install(_) | OpKind::Libraries(_) => "install",
            OpKind::File(_) => "file",
            OpKind::Unpack { .. } => "unpack",
            OpKind::Exec(_) => "exec",
        },
        label: origin.label(),
        text: match origin {
            Origin::Step { text, .. } => text.clone(),
            Origin::Source { .. } | Origin::Start => String::new(),
        },
        inputs: op.inputs.clone(),
    }
}

/// A line for each op: id, kind, label, inputs, text.
pub fn to_text(vertices: &[Vertex]) -> String {
    let label = |id: &OpId| {
        let found = vertices.iter().find(|vertex| vertex.op == *id);
        found.map_or_else(|| id.digest().short(), |vertex| vertex.label.clone())
    };
    let width = vertices
        .iter()
        .map(|vertex| vertex.label.len())
        .max()
        .unwrap_or(0);
    let mut out = String::new();
    for vertex in vertices {
        let id = vertex.op.digest().short();
        let mut line = format!("{id}  {:6}  {:width$}", vertex.kind, vertex.label);
        if !vertex.text.is_empty() {
            line.push_str("  ");
            line.push_str(&first_line(&vertex.text));
        }
        if !vertex.inputs.is_empty() {
            let inputs: Vec<String> = vertex.inputs.iter().map(label).collect();
            let _ = write!(line, "  <- {}", inputs.join(", "));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// The same for Graphviz.
pub fn to_dot(vertices: &[Vertex]) -> String {
    let mut out = String::from("digraph build {\n  rankdir = \"LR\";\n  node [shape = \"box\"];\n");
    for vertex in vertices {
        let id = vertex.op.digest().short();
        let label = match vertex.text.as_str() {
            "" => vertex.label.clone(),
            text => format!("{}\n{}", vertex.label, first_line(text)),
        };
        let _ = writeln!(out, "  \"{id}\" [label = {}];", quoted(&label));
        for input in &vertex.inputs {
            let _ = writeln!(out, "  \"{}\" -> \"{id}\";", input.digest().short());
        }
    }
    out.push_str("}\n");
    out
}

/// A string of the DOT language, in which only the quote needs an escape and `\n` is a line break; other backslashes
/// would begin escapes of their own.
fn quoted(text: &str) -> String {
    let escaped = text
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    format!("\"{escaped}\"")
}

/// Enough of a step to know it by: one line of at most 72 characters.
pub fn first_line(text: &str) -> String {
    const LONGEST: usize = 72;
    let line = text.lines().next().unwrap_or_default();
    if line.len() == text.len() && line.chars().count() <= LONGEST {
        return line.to_owned();
    }
    let cut: String = line.chars().take(LONGEST).collect();
    format!("{cut} …")
}

#[cfg(test)]
mod tests {
    use super::*;
    use immbuild_cas::digest::Digest;

    fn vertices() -> Vec<Vertex> {
        let id = |text: &str| OpId::new(Digest::of(text.as_bytes()));
        vec![
            Vertex {
                op: id("s"),
                kind: "tree",
                label: "source src".into(),
                text: String::new(),
                inputs: Vec::new(),
            },
            Vertex {
                op: id("1"),
                kind: "exec",
                label: "build.1".into(),
                text: "shell echo \"a\\n\"\nrest".into(),
                inputs: vec![id("s")],
            },
        ]
    }

    #[test]
    fn text_names_inputs() {
        assert_eq!(
            to_text(&vertices()),
            "043a718774c5  tree    source src\n\
             6b86b273ff34  exec    build.1     shell echo \"a\\n\" …  <- source src\n"
        );
    }

    #[test]
    fn dot_quotes_what_people_write() {
        assert_eq!(
            to_dot(&vertices()),
            "digraph build {\n  rankdir = \"LR\";\n  node [shape = \"box\"];\n  \
             \"043a718774c5\" [label = \"source src\"];\n  \
             \"6b86b273ff34\" [label = \"build.1\\nshell echo \\\"a\\\\n\\\" …\"];\n  \
             \"043a718774c5\" -> \"6b86b273ff34\";\n}\n"
        );
    }
}
