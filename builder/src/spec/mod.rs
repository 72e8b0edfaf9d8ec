//! The language of a spec: text in, [`model::Resolved`] out, or everything that is wrong with it.
//!
//! ```text
//! text ──parse──▶ Spec ──resolve(platform, arguments)──▶ Resolved
//! ```
//!
//! Pure: no files, no clock, no environment. Must never know the network or how pins are found.

mod debian;
pub(crate) mod document;
mod fields;
pub mod image_name;
mod keys;
mod libraries;
pub mod model;
mod parse;
mod request;
mod runtime;
pub mod schema;
mod substitute;
mod validate;
mod value;

use std::collections::BTreeMap;
use std::sync::Arc;

use document::Table;
use model::Resolved;

use crate::diag::{Diagnostic, Severity, SourceFile, nearest};
use crate::platform::Platform;

/// A spec that is right for all its platforms, with the defaults of its arguments.
#[derive(Clone, Debug)]
pub struct Spec {
    file: Arc<SourceFile>,
    document: Table,
    arguments: BTreeMap<String, String>,
    platforms: Vec<Platform>,
    warnings: Vec<Diagnostic>,
}

/// The declared arguments, each with its default or what was said instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments(BTreeMap<String, String>);

/// An `--arg` of a name that the spec does not declare. Wrong usage, not a wrong spec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the spec declares no argument `{name}`")]
pub struct UnknownArgument {
    /// The name.
    pub name: String,
    /// What to write instead.
    pub hint: String,
}

/// Reads a spec; `name` is what the file is called in diagnostics.
///
/// # Errors
/// Everything that is wrong with it, in the order of the text, warnings among it.
pub fn parse(text: &str, name: &str) -> Result<Spec, Vec<Diagnostic>> {
    let file = document::source_file(name, text);
    let document = document::parse(&file).map_err(|errors| {
        // A text may well hold such lines; where the file is not TOML, they are why.
        match document::conflict(&file, "spec") {
            Some(error) => vec![error.hint("keep either side")],
            None => errors,
        }
    })?;
    let misplaced = parse::check_kind(&file, &document).map_err(|error| vec![error])?;
    let mut spec = Spec {
        arguments: parse::arguments(&document),
        platforms: parse::platforms(&file, &document),
        file,
        document,
        warnings: Vec::new(),
    };
    let defaults = Arguments(spec.arguments.clone());
    let (_, mut diagnostics) = spec.read(&spec.platforms, &defaults);
    if let Some(misplaced) = misplaced {
        diagnostics.push(misplaced);
        diagnostics = in_order(diagnostics);
    }
    if has_error(&diagnostics) {
        return Err(diagnostics);
    }
    spec.warnings = diagnostics;
    Ok(spec)
}

fn has_error(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(|it| it.severity == Severity::Error)
}

impl Spec {
    /// The text it was read from.
    pub fn file(&self) -> &Arc<SourceFile> {
        &self.file
    }

    /// `image.platforms`: at least one, no two alike, in the order written.
    pub fn platforms(&self) -> &[Platform] {
        &self.platforms
    }

    /// What is probably not as meant.
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// The declared arguments with `overrides` in place of their defaults.
    pub fn arguments(
        &self,
        overrides: &BTreeMap<String, String>,
    ) -> Result<Arguments, UnknownArgument> {
        let mut arguments = self.arguments.clone();
        for (name, value) in overrides {
            let Some(argument) = arguments.get_mut(name) else {
                let known = self.arguments.keys().map(String::as_str);
                let hint = match nearest(name, known) {
                    Some(near) => format!("did you mean `--arg {near}={value}`?"),
                    None => format!("declare it: `args.{name} = \"…\"` above the first table"),
                };
                let name = name.clone();
                return Err(UnknownArgument { name, hint });
            };
            argument.clone_from(value);
        }
        Ok(Arguments(arguments))
    }

    /// What it says for one platform, which need not be one of its own.
    ///
    /// # Errors
    /// What is wrong with it. With the defaults and one of its own platforms there is nothing: [`parse`] has seen to
    /// that.
    pub fn resolve(
        &self,
        platform: Platform,
        arguments: &Arguments,
    ) -> Result<Resolved, Vec<Diagnostic>> {
        let mut resolved = self.resolve_each(&[platform], arguments)?;
        Ok(resolved
            .remove(&platform)
            .expect("without errors it is there"))
    }

    /// What it says for each of these platforms, with the rules that hold between them.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn resolve_each(
        &self,
        platforms: &[Platform],
        arguments: &Arguments,
    ) -> Result<BTreeMap<Platform, Resolved>, Vec<Diagnostic>> {
        let (resolved, diagnostics) = self.read(platforms, arguments);
        if has_error(&diagnostics) {
            Err(diagnostics)
        } else {
            Ok(resolved)
        }
    }

    fn read(
        &self,
        platforms: &[Platform],
        arguments: &Arguments,
    ) -> (BTreeMap<Platform, Resolved>, Vec<Diagnostic>) {
        let mut resolved = BTreeMap::new();
        let mut diagnostics = Vec::new();
        for platform in platforms {
            let (one, told) = parse::read(&self.file, &self.document, *platform, &arguments.0);
            resolved.extend(one.map(|one| (*platform, one)));
            diagnostics.extend(told);
        }
        diagnostics.extend(validate::outputs_of_platforms(&self.file, &resolved));
        (resolved, in_order(diagnostics))
    }
}

/// In the order of the text, each once: most are told for every platform.
fn in_order(mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let start = |it: &Diagnostic| it.place.as_ref().map(|place| place.span);
    diagnostics.sort_by_key(start);
    let mut unique: Vec<Diagnostic> = Vec::new();
    for it in diagnostics {
        let mut same_place = unique
            .iter()
            .rev()
            .take_while(|other| start(other) == start(&it));
        if !same_place.any(|other| *other == it) {
            unique.push(it);
        }
    }
    unique
}

#[cfg(test)]
mod tests;
