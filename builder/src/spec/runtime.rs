//! `[runtime]`: what the running container may write.

use std::collections::BTreeMap;

use super::document::{Data, Value};
use super::fields::{Reader, Text};
use super::keys::RUNTIME;
use super::model::Runtime;
use crate::diag::Diagnostic;

/// Reads it; a value that is wrong has been complained about.
pub(super) fn read(reader: &mut Reader<'_>, value: Option<&Value>) -> Runtime {
    let table = match value.map(|value| (&value.data, value.span)) {
        None => return Runtime::default(),
        Some((Data::Table(table), _)) => table,
        Some((data, span)) => {
            let message = format!("`runtime` must be a table, found {}", data.kind());
            reader.error(span, message, "write `[runtime]`");
            return Runtime::default();
        }
    };
    let mut fields = reader.open(&RUNTIME, None, table);
    let readonly = fields.boolean("readonly");
    let paths = fields.image_paths("writable");
    fields.finish();
    let mut writable = Vec::new();
    for (path, span) in paths.iter().flatten() {
        let clash = writable
            .iter()
            .find(|(other, _)| path.starts_with(other) || other.starts_with(path));
        if path.is_root() {
            let hint = "take it out, and `readonly` too";
            reader.error(*span, "the whole root is writable without `readonly`", hint);
        } else if let Some((other, _)) = clash {
            let message = format!("the writable paths `{other}` and `{path}` overlap");
            reader.report(*span, Diagnostic::error(message).hint("keep the outer one"));
        } else {
            writable.push((path.clone(), *span));
        }
    }
    writable.sort();
    Runtime {
        readonly,
        writable: paths.is_some().then_some(writable),
    }
}

/// Labels of these names are made of `[runtime]`.
const LABELS: &str = "immbuild.runtime.";

/// What `[runtime]` says is said there alone.
pub(super) fn check_labels(reader: &mut Reader<'_>, labels: &BTreeMap<String, Text>) {
    check_nul(reader, labels, "a label");
    for (name, text) in labels {
        if name.starts_with(LABELS) {
            let message = format!("the label `{name}` is written from `[runtime]`");
            reader.error(text.span, message, "say it there");
        }
    }
}

/// No tool shows what stands behind a NUL.
pub(super) fn check_nul(reader: &mut Reader<'_>, texts: &BTreeMap<String, Text>, what: &str) {
    for (name, text) in texts {
        if name.contains('\0') || text.value.contains('\0') {
            reader.report(text.span, Diagnostic::error(format!("{what} holds a NUL")));
        }
    }
}
