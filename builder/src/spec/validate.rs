//! Rules between tables: cycles, caches, outputs that get in each other's way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use immbuild_cas::path::RelPath;

use super::fields::Reader;
use super::model::{Output, OutputKind, Resolved};
use crate::diag::{Diagnostic, Place, SourceFile, Span};
use crate::platform::Platform;

/// One stage's use of a source or stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Use {
    /// The stage.
    pub(super) by: String,
    /// What it uses.
    pub(super) of: String,
    /// What of it; absent when it starts from it.
    pub(super) path: Option<RelPath>,
    /// The reference.
    pub(super) span: Span,
}

/// A stage cannot need itself.
pub(super) fn cycles(reader: &mut Reader<'_>, uses: &[Use]) {
    // Every use points from a stage; sources are leaves by having none.
    let mut by: BTreeMap<&str, Vec<&Use>> = BTreeMap::new();
    for it in uses {
        by.entry(&it.by).or_default().push(it);
    }
    let mut done = BTreeSet::new();
    for stage in by.keys() {
        follow(reader, &by, stage, &mut Vec::new(), &mut done);
    }
}

/// Follows uses depth first; `path` leads to `stage`, `done` are stages from which everything has been followed.
fn follow<'u>(
    reader: &mut Reader<'_>,
    by: &BTreeMap<&'u str, Vec<&'u Use>>,
    stage: &'u str,
    path: &mut Vec<&'u Use>,
    done: &mut BTreeSet<&'u str>,
) {
    if done.contains(stage) {
        return;
    }
    for it in by.get(stage).into_iter().flatten() {
        path.push(it);
        match path.iter().position(|earlier| earlier.by == it.of) {
            Some(start) => tell_cycle(reader, &path[start..]),
            None => follow(reader, by, &it.of, path, done),
        }
        path.pop();
    }
    done.insert(stage);
}

fn tell_cycle(reader: &mut Reader<'_>, cycle: &[&Use]) {
    let parts: Vec<String> = cycle
        .iter()
        .map(|it| {
            let verb = if it.path.is_some() {
                "reads from"
            } else {
                "starts from"
            };
            format!("`{}` {verb} `{}`", it.by, it.of)
        })
        .collect();
    let last = cycle.last().expect("a cycle has a use");
    let error = Diagnostic::error(format!("the stage `{}` needs itself", last.of))
        .because(parts.join(", "))
        .hint("split one of them, so that what is needed first is a stage of its own");
    reader.report(last.span, error);
}

/// What is below a cache is not in the stage's tree.
pub(super) fn caches(
    reader: &mut Reader<'_>,
    uses: &[Use],
    caches: &BTreeMap<String, Vec<RelPath>>,
) {
    for it in uses {
        let Some(path) = &it.path else { continue };
        let below = caches.get(&it.of).into_iter().flatten();
        if let Some(cache) = below.into_iter().find(|cache| path.starts_with(cache)) {
            let error = Diagnostic::error(format!("`{path}` is not in the stage `{}`", it.of))
                .because(format!(
                    "`{cache}` is a cache of it, and a cache is never in the tree"
                ))
                .hint("copy the file out of the cache in the step that makes it");
            reader.report(it.span, error);
        }
    }
}

/// The names that a local path comes down to.
fn normal(path: &str) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "." => {}
            "" if !names.is_empty() => {}
            ".." if names.last().is_some_and(|last| !matches!(*last, ".." | "")) => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    names
}

/// No output is at the place of another or inside it.
pub(super) fn outputs<'o>(reader: &mut Reader<'_>, outputs: impl Iterator<Item = &'o Output>) {
    let mut seen: Vec<(&Output, Vec<&str>)> = Vec::new();
    for output in outputs {
        let path = normal(&output.path);
        let clash = seen
            .iter()
            .find(|(_, other)| path.starts_with(other) || other.starts_with(&path));
        if let Some((other, _)) = clash {
            let message = if normal(&other.path) == path {
                format!("two outputs write `{}`", output.path)
            } else {
                format!("the outputs `{}` and `{}` overlap", other.path, output.path)
            };
            reader.error(output.span, message, "give each a place of its own");
        }
        seen.push((output, path));
    }
}

/// Outputs that are one per platform need different places; those that hold every platform need one.
pub(super) fn outputs_of_platforms(
    file: &Arc<SourceFile>,
    resolved: &BTreeMap<Platform, Resolved>,
) -> Vec<Diagnostic> {
    let Some(first) = resolved.values().next() else {
        return Vec::new();
    };
    let mut diagnostics = Vec::new();
    for (at, output) in first.outputs.iter().enumerate() {
        let paths: BTreeSet<Vec<&str>> = resolved
            .values()
            .filter_map(|it| it.outputs.get(at))
            .map(|output| normal(&output.path))
            .collect();
        let place = Place {
            file: Arc::clone(file),
            span: output.span,
        };
        let kind = output.kind.as_str();
        match output.kind {
            it if it.is_of_one_platform() && paths.len() < resolved.len() => diagnostics.push(
                Diagnostic::error(format!("the output `{kind}` is one per platform"))
                    .because("two platforms would write the same place")
                    .at(place)
                    .hint("put `${arch}` (or `${platform}`) into its path"),
            ),
            OutputKind::OciArchive | OutputKind::OciLayout if paths.len() > 1 => diagnostics.push(
                Diagnostic::error(format!("the output `{kind}` holds every platform"))
                    .because("its path differs from platform to platform")
                    .at(place)
                    .hint("take the variable of the platform out of its path"),
            ),
            _ => {}
        }
    }
    diagnostics
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_paths_are_compared_by_their_names() {
        assert_eq!(normal("./out//a/../b/"), ["out", "b"]);
        assert_eq!(normal("../../a"), ["..", "..", "a"]);
        assert_eq!(normal("/../a"), ["", "..", "a"]);
    }
}
