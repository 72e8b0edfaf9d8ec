//! Reading one closed table: every key by its form, everything wrong told and passed over.
//!
//! A getter gives nothing when the key is absent *or* wrong; what is wrong has been told by then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use immbuild_cas::digest::Digest;
use immbuild_cas::path::RelPath;
use immbuild_cas::tree::Mode;

use super::document::{Data, Entry, Table, Value};
use super::keys::{self, Form, Keys, Need, Set, Substituted, TOP};
use super::model::{Owner, Port, Protocol, Tier};
use super::substitute::{Dangling, Variables};
use super::value::{self, Complaint, Fix};
use crate::diag::{Diagnostic, Place, SourceFile, Span, nearest};
use crate::epoch::Epoch;
use crate::platform::Platform;

/// A string as it is after substitution, and where it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) value: String,
    pub(super) span: Span,
}

/// What is needed to read any table, and where complaints go.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    file: &'a Arc<SourceFile>,
    variables: &'a Variables,
    diagnostics: Vec<Diagnostic>,
    /// Has a variable of the platform been put in since this was last taken?
    platform_used: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a Arc<SourceFile>, variables: &'a Variables) -> Self {
        Self {
            file,
            variables,
            diagnostics: Vec::new(),
            platform_used: false,
        }
    }

    pub(super) fn into_diagnostics(self) -> Vec<Diagnostic> {
        self.diagnostics
    }

    pub(super) fn take_platform_used(&mut self) -> bool {
        std::mem::take(&mut self.platform_used)
    }

    pub(super) fn report(&mut self, span: Span, diagnostic: Diagnostic) {
        let file = Arc::clone(self.file);
        self.diagnostics.push(diagnostic.at(Place { file, span }));
    }

    pub(super) fn error(
        &mut self,
        span: Span,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.report(span, Diagnostic::error(message).hint(hint));
    }

    /// Says what is wrong with the text of a key, or with one of several that a key holds.
    pub(super) fn complain(&mut self, key: Option<&str>, text: &Text, complaint: Complaint) {
        let shown = if text.value.is_empty() {
            "this".to_owned()
        } else {
            format!("`{}`", text.value.escape_debug())
        };
        let mut error = Diagnostic::error(format!("{shown} {}", complaint.message));
        error.hint = match complaint.fix {
            Fix::Plain => None,
            Fix::Hint(hint) => Some(hint.into()),
            Fix::Write(value) => Some(match key {
                Some(key) => format!("write `{key} = \"{value}\"`"),
                None => format!("write `\"{value}\"`"),
            }),
        };
        self.report(text.span, error);
    }

    /// Says that a value has the wrong type, with what to write if that can be told; `expected` continues "must".
    fn wrong_type(&mut self, key: &str, expected: &str, value: &Value, hint: Option<String>) {
        let mut error = Diagnostic::error(format!(
            "`{key}` must {expected}, found {}",
            value.data.kind()
        ));
        error.hint = hint;
        self.report(value.span, error);
    }

    /// A string as written: the value of a key, or one of those it holds.
    fn string<'v>(&mut self, key: &str, expected: &str, value: &'v Value) -> Option<&'v str> {
        let written = self.file.slice(value.span);
        let hint = match &value.data {
            Data::String(text) => return Some(text),
            Data::Array(_) if key == "shell" => Some(format!("write `run = {written}`")),
            Data::Array(_) | Data::Table(_) => None,
            _ if key == "timeout" => Some(format!("write `{key} = \"{written}s\"`")),
            _ if expected == ITEMS => Some(format!("write `\"{written}\"`")),
            _ => Some(format!("write `{key} = \"{written}\"`")),
        };
        self.wrong_type(key, expected, value, hint);
        None
    }

    /// Puts `${…}` into a text.
    pub(super) fn substitute(&mut self, text: &str, span: Span) -> Option<Text> {
        match self.variables.put_into(text) {
            Ok(substitution) => {
                self.platform_used |= substitution.of_platform;
                Some(Text {
                    value: substitution.text,
                    span,
                })
            }
            Err(dangling) => {
                for it in dangling {
                    self.dangling(&it, span);
                }
                None
            }
        }
    }

    fn dangling(&mut self, dangling: &Dangling, span: Span) {
        // The caret goes under the `${…}` itself where it can be found in the text as written.
        let within = |reader: &Self, what: &str| {
            let at = reader.file.slice(span).find(what)?;
            Some(Span::from(span.start + at..span.start + at + what.len()))
        };
        match dangling {
            Dangling::Unknown(name, known) => {
                let written = format!("${{{name}}}");
                let span = within(self, &written).unwrap_or(span);
                let hint = match known {
                    Some(known) => format!("did you mean `${{{known}}}`?"),
                    None => format!(
                        "declare it: `args.{name} = \"…\"` above the first table; for the text itself write `$${{{name}}}`"
                    ),
                };
                self.error(span, format!("`{written}` names nothing"), hint);
            }
            Dangling::Open => {
                let span = within(self, "${").unwrap_or(span);
                self.error(span, "`${` has no `}`", "for the text itself write `$${`");
            }
        }
    }

    /// The first known name that a text quotes.
    pub(super) fn quoted_name<'t>(&self, text: &'t str) -> Option<&'t str> {
        self.variables.quoted_in(text)
    }

    /// Adds to an error that a text quotes a known name where nothing is put in.
    pub(super) fn not_put_in(&self, text: &str, error: Diagnostic) -> Diagnostic {
        match self.variables.quoted_in(text) {
            Some(name) => error.because(format!("`${{{name}}}` is not put in here")),
            None => error,
        }
    }

    /// Warns of a known `${name}` where it is not put in.
    pub(super) fn warn_if_quoted(&mut self, text: &str, span: Span, what: &str, hint: &str) {
        if let Some(name) = self.variables.quoted_in(text) {
            let warning = Diagnostic::warning(format!("`${{{name}}}` is not put into {what}"));
            self.report(span, warning.hint(hint.replace("NAME", name)));
        }
    }

    fn no_platform(&mut self, text: &str, span: Span) {
        let names: Vec<String> = Platform::all().map(|it| it.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        // `uname -m` calls them by other names than OCI does.
        let machine = Platform::all()
            .find(|it| format!("{}/{}", it.os(), it.machine()) == text)
            .map(|it| it.to_string());
        let near = machine
            .as_deref()
            .or_else(|| nearest(text, names.iter().copied()));
        let hint = match near {
            Some(near) => format!("did you mean `\"{near}\"`?"),
            None => format!("known are {}", list(&names)),
        };
        let message = format!("`{}` is not a platform", text.escape_debug());
        let error = self.not_put_in(text, Diagnostic::error(message));
        self.report(span, error.hint(hint));
    }

    /// Opens a table: tells of keys that do not belong there and of those that are missing.
    pub(super) fn open<'r, 't>(
        &'r mut self,
        keys: &'static Keys,
        set: Option<Set>,
        table: &'t Table,
    ) -> Fields<'r, 'a, 't> {
        for entry in &table.entries {
            match keys.get(&entry.key) {
                None => self.unknown_key(keys, set, entry),
                Some(key) => {
                    if let Need::Later(what) = key.need {
                        self.later(&entry.key, what, entry.key_span);
                    }
                }
            }
        }
        for key in keys.keys {
            if key.need == Need::Required && table.get(key.name).is_none() {
                let hint = format!("add `{}`", example(key.name, key.form));
                self.error(
                    table.span,
                    format!("{} needs `{}`", keys.name, key.name),
                    hint,
                );
            }
        }
        Fields {
            reader: self,
            keys,
            table,
            asked: BTreeSet::new(),
        }
    }

    /// Says that something comes with a later version.
    pub(super) fn later(&mut self, name: &str, what: &str, span: Span) {
        let error = Diagnostic::error(format!("`{name}` is not supported by this version"))
            .because(format!("it is for {what}, which a later version brings"));
        self.report(span, error);
    }

    fn unknown_key(&mut self, keys: &'static Keys, set: Option<Set>, entry: &Entry) {
        let key = &entry.key;
        let names = || {
            keys.keys
                .iter()
                .filter(|key| !matches!(key.need, Need::Later(_)))
                .map(|key| key.name)
        };
        let elsewhere: Vec<&str> = set
            .into_iter()
            .flat_map(Set::members)
            .filter(|other| other.get(key).is_some())
            .map(|other| other.choosing().name)
            .collect();
        let hint = if !elsewhere.is_empty() {
            format!("`{key}` goes with {}", list(&elsewhere))
        } else if TOP.get(key).is_some() && !std::ptr::eq(keys, &raw const TOP) {
            "it is a key of the top level: move it above the first table".into()
        } else if let Some(near) = nearest(key, names()) {
            format!("did you mean `{near}`?")
        } else {
            let names: Vec<&str> = names().collect();
            format!("it has {}", list(&names))
        };
        self.error(
            entry.key_span,
            format!("{} has no key `{key}`", keys.name),
            hint,
        );
    }
}

/// What is expected of a value of an array.
const ITEMS: &str = "hold strings only";

/// "`a`, `b` and `c`"
pub(super) fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

/// A line that shows the form of a value.
fn example(name: &str, form: Form) -> String {
    match form {
        Form::Version => format!("{name} = 1"),
        Form::Table(_) => format!("[{name}]"),
        Form::ImagePath => format!("{name} = \"/…\""),
        Form::Integer(_) => format!("{name} = 10001"),
        Form::Choice(words, _) => format!("{name} = \"{}\"", words[0]),
        Form::List(_) | Form::Words => format!("{name} = [\"…\"]"),
        _ => format!("{name} = \"…\""),
    }
}

/// A table being read.
#[derive(Debug)]
pub(super) struct Fields<'r, 'a, 't> {
    pub(super) reader: &'r mut Reader<'a>,
    keys: &'static Keys,
    table: &'t Table,
    asked: BTreeSet<&'static str>,
}

impl<'t> Fields<'_, '_, 't> {
    /// The entry of a key that this version has.
    ///
    /// # Panics
    /// When the table of keys has no such key, or of another form: then parser and schema have drifted apart.
    fn entry(&mut self, name: &'static str, form: impl Fn(Form) -> bool) -> Option<&'t Entry> {
        let key = self
            .keys
            .get(name)
            .expect("the parser asks for keys that are listed");
        debug_assert!(
            form(key.form),
            "`{name}` is read by the form it is listed with"
        );
        self.asked.insert(name);
        self.table.get(name)
    }

    fn is(form: Form) -> impl Fn(Form) -> bool {
        move |it| it == form
    }

    /// Ends the reading of this table.
    ///
    /// # Panics
    /// When a listed key was never asked for: it would be accepted and ignored.
    pub(super) fn finish(self) {
        for key in self.keys.keys {
            let later = matches!(key.need, Need::Later(_));
            debug_assert!(
                later || self.asked.contains(key.name),
                "`{}` is listed and never read",
                key.name
            );
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.table.get(name).is_some()
    }

    /// Where the value of a key is, or else the table.
    pub(super) fn span(&self, name: &str) -> Span {
        self.table
            .get(name)
            .map_or(self.table.span, |entry| entry.value.span)
    }

    /// The value of a key whose form only its caller can read.
    pub(super) fn raw(&mut self, name: &'static str, form: Form) -> Option<&'t Value> {
        self.entry(name, Self::is(form)).map(|entry| &entry.value)
    }

    /// A string with everything put in.
    fn substituted(
        &mut self,
        name: &'static str,
        form: impl Fn(Form) -> bool,
        expected: &str,
    ) -> Option<Text> {
        let value = &self.entry(name, form)?.value;
        let text = self.reader.string(name, expected, value)?;
        self.reader.substitute(text, value.span)
    }

    fn checked<T>(&mut self, key: &str, text: &Text, checked: Result<T, Complaint>) -> Option<T> {
        checked
            .map_err(|complaint| self.reader.complain(Some(key), text, complaint))
            .ok()
    }

    /// [`Form::Text`] that names a signal.
    pub(super) fn signal(&mut self, name: &'static str) -> Option<Text> {
        let text = self.text(name)?;
        self.checked(name, &text, value::signal(&text.value))?;
        Some(text)
    }

    /// [`Form::Text`], never empty.
    pub(super) fn text(&mut self, name: &'static str) -> Option<Text> {
        let text = self.substituted(name, Self::is(Form::Text(Substituted::Yes)), "be a string")?;
        self.not_empty(name, text)
    }

    fn not_empty(&mut self, name: &str, text: Text) -> Option<Text> {
        if text.value.is_empty() {
            self.reader
                .report(text.span, Diagnostic::error(format!("`{name}` is empty")));
            return None;
        }
        if text.value.contains('\0') {
            self.reader.report(
                text.span,
                Diagnostic::error(format!("`{name}` holds a NUL")),
            );
            return None;
        }
        Some(text)
    }

    /// [`Form::Text`] and [`Form::Name`] as written.
    pub(super) fn literal(&mut self, name: &'static str) -> Option<Text> {
        let form = |form| matches!(form, Form::Text(Substituted::No) | Form::Name);
        let value = &self.entry(name, form)?.value;
        let text = self.reader.string(name, "be a string", value)?;
        Some(Text {
            value: text.to_owned(),
            span: value.span,
        })
    }

    /// [`Form::LocalPath`]
    pub(super) fn local_path(&mut self, name: &'static str) -> Option<Text> {
        let text = self.substituted(name, Self::is(Form::LocalPath), "be a string")?;
        self.not_empty(name, text)
    }

    /// [`Form::ImagePath`]
    pub(super) fn image_path(&mut self, name: &'static str) -> Option<(RelPath, Span)> {
        let text = self.substituted(name, Self::is(Form::ImagePath), "be an absolute path")?;
        let path = self.checked(name, &text, value::image_path(&text.value))?;
        Some((path, text.span))
    }

    /// [`Form::ImagePath`] that is to be the full name of what is copied: a trailing slash misses the last part of it.
    pub(super) fn full_name(
        &mut self,
        name: &'static str,
        copied: Option<&Text>,
    ) -> Option<(RelPath, Span)> {
        let text = self.substituted(name, Self::is(Form::ImagePath), "be an absolute path")?;
        let last = copied.and_then(|path| path.value.rsplit('/').next());
        let path = match (value::image_path(&text.value), last) {
            (Err(complaint), Some(last)) if text.value.ends_with('/') && !last.is_empty() => {
                let fix = match complaint.fix {
                    Fix::Write(directory) => {
                        Fix::Write(format!("{}/{last}", directory.trim_end_matches('/')))
                    }
                    fix => fix,
                };
                Err(Complaint { fix, ..complaint })
            }
            (path, _) => path,
        };
        let path = self.checked(name, &text, path)?;
        Some((path, text.span))
    }

    /// [`Form::Reference`]: the name as written, the path with everything put in.
    pub(super) fn reference(&mut self, name: &'static str) -> Option<(Text, Option<Text>)> {
        let value = &self.entry(name, Self::is(Form::Reference))?.value;
        let text = self.reader.string(name, "be a string", value)?;
        let (origin, path) = value::split_reference(text);
        let path = match path {
            None => None,
            Some(path) => Some(self.reader.substitute(path, value.span)?),
        };
        let origin = Text {
            value: origin.to_owned(),
            span: value.span,
        };
        Some((origin, path))
    }

    /// [`Form::Mode`]
    pub(super) fn mode(&mut self, name: &'static str) -> Option<Mode> {
        let value = &self.entry(name, Self::is(Form::Mode))?.value;
        if let Data::Integer(_) = value.data {
            let digits = self.reader.file.slice(value.span).trim_start_matches("0o");
            let digits = format!("{digits:0>4}");
            // Any other number is one that somebody has reckoned.
            let hint = value::mode(&digits)
                .is_ok()
                .then(|| format!("write `{name} = \"{digits}\"`"));
            self.reader
                .wrong_type(name, "be a string of four octal digits", value, hint);
            return None;
        }
        let text = self.substituted(
            name,
            Self::is(Form::Mode),
            "be a string of four octal digits",
        )?;
        self.checked(name, &text, value::mode(&text.value))
    }

    /// [`Form::Owner`]
    pub(super) fn owner(&mut self, name: &'static str) -> Option<Owner> {
        let text = self.substituted(name, Self::is(Form::Owner), "be a string")?;
        self.checked(name, &text, value::owner(&text.value))
    }

    /// [`Form::Duration`]
    pub(super) fn duration(&mut self, name: &'static str) -> Option<Duration> {
        let expected = "be a string such as `\"90s\"`";
        let text = self.substituted(name, Self::is(Form::Duration), expected)?;
        self.checked(name, &text, value::duration(&text.value))
    }

    /// [`Form::Sha256`]
    pub(super) fn sha256(&mut self, name: &'static str) -> Option<Digest> {
        let text = self.substituted(name, Self::is(Form::Sha256), "be a string")?;
        let hex = text.value.strip_prefix("sha256:").unwrap_or(&text.value);
        match Digest::from_hex(hex) {
            Ok(digest) if hex.len() == text.value.len() => Some(digest),
            Ok(_) => {
                let hint = format!("write `{name} = \"{hex}\"`");
                self.reader
                    .error(text.span, "`sha256` is the hex digits alone", hint);
                None
            }
            Err(_) => {
                self.reader.report(
                    text.span,
                    Diagnostic::error("`sha256` must be 64 digits of `0-9a-f`"),
                );
                None
            }
        }
    }

    /// [`Form::Boolean`]
    pub(super) fn boolean(&mut self, name: &'static str) -> Option<bool> {
        let value = &self.entry(name, Self::is(Form::Boolean))?.value;
        match &value.data {
            Data::Boolean(it) => Some(*it),
            data => {
                let hint = match data {
                    Data::String(text) if matches!(text.as_str(), "true" | "false") => {
                        Some(format!("write `{name} = {text}`"))
                    }
                    _ => None,
                };
                self.reader
                    .wrong_type(name, "be `true` or `false`", value, hint);
                None
            }
        }
    }

    /// [`Form::Integer`]
    pub(super) fn integer(&mut self, name: &'static str) -> Option<u32> {
        let value = &self
            .entry(name, |form| matches!(form, Form::Integer(_)))?
            .value;
        let Some(Form::Integer(last)) = self.keys.get(name).map(|key| key.form) else {
            return None;
        };
        match &value.data {
            Data::Integer(number) => {
                let found = number.filter(|number| (0..=last).contains(number));
                if found.is_none() {
                    let message = format!("`{name}` must be from 0 to {last}");
                    self.reader.report(value.span, Diagnostic::error(message));
                }
                found.and_then(|number| u32::try_from(number).ok())
            }
            data => {
                let hint = match data {
                    Data::String(text) if text.parse::<u32>().is_ok() => {
                        Some(format!("write `{name} = {text}`"))
                    }
                    _ => None,
                };
                self.reader.wrong_type(name, "be an integer", value, hint);
                None
            }
        }
    }

    /// [`Form::DateTime`]
    pub(super) fn epoch(&mut self, name: &'static str) -> Option<Epoch> {
        let value = &self.entry(name, Self::is(Form::DateTime))?.value;
        match &value.data {
            Data::Datetime(text) => {
                let epoch = text.parse().ok();
                if epoch.is_none() {
                    self.reader.error(
                        value.span,
                        format!("`{name}` is not a time in UTC with whole seconds"),
                        "write it as in `2026-11-21T00:53:02Z`, between 1970 and 9999",
                    );
                }
                epoch
            }
            data => {
                let hint = match data {
                    Data::String(text) if text.parse::<Epoch>().is_ok() => {
                        Some(format!("write `{name} = {text}`, without quotes"))
                    }
                    _ => Some(format!("write `{name} = 2026-11-21T00:53:02Z`")),
                };
                self.reader.wrong_type(name, "be a date-time", value, hint);
                None
            }
        }
    }

    /// [`Form::Choice`]: the word, which is one of this version.
    pub(super) fn choice(&mut self, name: &'static str) -> Option<&'static str> {
        let text =
            self.substituted(name, |form| matches!(form, Form::Choice(..)), "be a string")?;
        let Some(Form::Choice(words, later)) = self.keys.get(name).map(|key| key.form) else {
            return None;
        };
        if let Some(word) = words.iter().find(|word| **word == text.value) {
            return Some(word);
        }
        if later.contains(&text.value.as_str()) {
            let mut error = Diagnostic::error(format!(
                "`{name} = \"{}\"` is not supported by this version",
                text.value
            ));
            error.hint = Some(match words {
                [word] => format!("write `{name} = \"{word}\"`"),
                _ => format!("this version has {}", list(words)),
            });
            self.reader.report(text.span, error);
        } else {
            let hint = match nearest(&text.value, words.iter().copied()) {
                Some(near) => format!("did you mean `\"{near}\"`?"),
                None => format!("`{name}` is one of {}", list(words)),
            };
            let message = format!("`{name}` cannot be `{}`", text.value.escape_debug());
            self.reader.error(text.span, message, hint);
        }
        None
    }

    /// A tier.
    pub(super) fn tier(&mut self, name: &'static str) -> Option<Tier> {
        self.choice(name).map(|word| match word {
            "isolated" => Tier::Isolated,
            "strict" => Tier::Strict,
            _ => Tier::Deterministic,
        })
    }

    /// [`Form::Platform`] and lists of it: as written, since everything else is put in by them.
    pub(super) fn platforms(&mut self, name: &'static str) -> Option<Vec<(Platform, Span)>> {
        let form = |form| matches!(form, Form::Platform | Form::List(Form::Platform));
        let value = &self.entry(name, form)?.value;
        let one = self
            .keys
            .get(name)
            .is_some_and(|key| key.form == Form::Platform);
        let values = match &value.data {
            Data::Array(values) if !one => values.as_slice(),
            Data::String(text) if !one => {
                let hint = format!("write `{name} = [\"{text}\"]`");
                self.reader
                    .wrong_type(name, "be an array of strings", value, Some(hint));
                return None;
            }
            _ if !one => {
                self.reader
                    .wrong_type(name, "be an array of strings", value, None);
                return None;
            }
            _ => std::slice::from_ref(value),
        };
        let mut platforms = Vec::new();
        for value in values {
            let expected = if one { "be a string" } else { ITEMS };
            let text = self.reader.string(name, expected, value)?;
            if let Ok(platform) = text.parse() {
                platforms.push((platform, value.span));
            } else {
                self.reader.no_platform(text, value.span);
            }
        }
        (platforms.len() == values.len()).then_some(platforms)
    }

    /// The strings of an array, with everything put in.
    fn strings_of(&mut self, name: &'static str, value: &'t Value) -> Option<Vec<Text>> {
        let Data::Array(values) = &value.data else {
            let hint = match &value.data {
                Data::String(text) => {
                    let words: Vec<&str> = text.split_whitespace().collect();
                    let quoted: Vec<String> =
                        words.iter().map(|word| format!("{word:?}")).collect();
                    (!words.is_empty()).then(|| format!("write `{name} = [{}]`", quoted.join(", ")))
                }
                _ => None,
            };
            self.reader
                .wrong_type(name, "be an array of strings", value, hint);
            return None;
        };
        let mut texts = Vec::new();
        for value in values {
            if let Some(text) = self.reader.string(name, ITEMS, value)
                && let Some(text) = self.reader.substitute(text, value.span)
            {
                texts.push(text);
            }
        }
        (texts.len() == values.len()).then_some(texts)
    }

    /// [`Form::List`] of [`Form::Text`], none of them with NUL.
    pub(super) fn texts(&mut self, name: &'static str) -> Option<Vec<Text>> {
        let form = |form| matches!(form, Form::List(Form::Text(Substituted::Yes)) | Form::Words);
        let value = &self.entry(name, form)?.value;
        let texts = self.strings_of(name, value)?;
        for text in &texts {
            if text.value.contains('\0') {
                self.reader.report(
                    text.span,
                    Diagnostic::error(format!("`{name}` holds a NUL")),
                );
                return None;
            }
        }
        Some(texts)
    }

    /// The same, as plain strings.
    pub(super) fn list(&mut self, name: &'static str) -> Option<Vec<String>> {
        let texts = self.texts(name)?;
        Some(texts.into_iter().map(|text| text.value).collect())
    }

    /// [`Form::List`] of [`Form::ImagePath`]
    pub(super) fn image_paths(&mut self, name: &'static str) -> Option<Vec<(RelPath, Span)>> {
        let form = |form| matches!(form, Form::List(Form::ImagePath));
        let value = &self.entry(name, form)?.value;
        let mut paths = Vec::new();
        for text in self.strings_of(name, value)? {
            match value::image_path(&text.value) {
                Ok(path) => paths.push((path, text.span)),
                Err(complaint) => self.reader.complain(None, &text, complaint),
            }
        }
        Some(paths)
    }

    /// [`Form::Strings`]
    pub(super) fn strings(&mut self, name: &'static str) -> BTreeMap<String, Text> {
        let mut map = BTreeMap::new();
        let Some(entry) = self.entry(name, Self::is(Form::Strings)) else {
            return map;
        };
        let Data::Table(table) = &entry.value.data else {
            self.reader.wrong_type(
                name,
                "be a table of strings",
                &entry.value,
                Some(format!("write `{name} = {{ KEY = \"value\" }}`")),
            );
            return map;
        };
        for entry in &table.entries {
            self.reader.warn_if_quoted(
                &entry.key,
                entry.key_span,
                "keys",
                "write the key as it is meant",
            );
            if let Some(text) = self.string_of_map(name, entry) {
                map.insert(entry.key.clone(), text);
            }
        }
        map
    }

    fn string_of_map(&mut self, name: &str, entry: &Entry) -> Option<Text> {
        let Data::String(text) = &entry.value.data else {
            // A key that slid under `[image.env]` and the like.
            let of_image = keys::IMAGE.get(&entry.key).is_some() && !matches!(name, "args");
            let hint = if TOP.get(&entry.key).is_some() {
                Some("if the key of the top level is meant, move it above the first table".into())
            } else if of_image {
                Some(format!(
                    "if the key of the stage is meant, move it above the header of `{name}`"
                ))
            } else if matches!(entry.value.data, Data::Array(_) | Data::Table(_)) {
                None
            } else {
                let written = self.reader.file.slice(entry.value.span);
                Some(format!("write `{} = \"{written}\"`", entry.key))
            };
            self.reader.wrong_type(
                &format!("{name}.{}", entry.key),
                "be a string",
                &entry.value,
                hint,
            );
            return None;
        };
        self.reader.substitute(text, entry.value.span)
    }

    /// [`Form::Strings`] that are put in and so get nothing put in themselves.
    pub(super) fn literals(&mut self, name: &'static str) -> Vec<(&'t Entry, String)> {
        let Some(entry) = self.entry(name, Self::is(Form::Strings)) else {
            return Vec::new();
        };
        let Data::Table(table) = &entry.value.data else {
            let hint = format!("write `{name}.version = \"1.0\"`");
            self.reader
                .wrong_type(name, "be a table of strings", &entry.value, Some(hint));
            return Vec::new();
        };
        let mut literals = Vec::new();
        for entry in &table.entries {
            match &entry.value.data {
                Data::String(text) => literals.push((entry, text.clone())),
                _ => {
                    self.string_of_map(name, entry);
                }
            }
        }
        literals
    }

    /// [`Form::Ports`]
    pub(super) fn ports(&mut self, name: &'static str) -> Option<BTreeSet<Port>> {
        let value = &self.entry(name, Self::is(Form::Ports))?.value;
        let Data::Array(values) = &value.data else {
            let written = self.reader.file.slice(value.span);
            let hint = matches!(value.data, Data::Integer(_) | Data::String(_))
                .then(|| format!("write `{name} = [{written}]`"));
            self.reader
                .wrong_type(name, "be an array of ports", value, hint);
            return None;
        };
        let mut ports = BTreeSet::new();
        for value in values {
            match &value.data {
                Data::Integer(number) => {
                    let number = number.and_then(|number| u16::try_from(number).ok());
                    match number.filter(|number| *number != 0) {
                        Some(number) => {
                            ports.insert(Port {
                                number,
                                protocol: Protocol::Tcp,
                            });
                        }
                        None => self.reader.report(
                            value.span,
                            Diagnostic::error("a port is a number from 1 to 65535"),
                        ),
                    }
                }
                Data::String(text) => {
                    if let Some(text) = self.reader.substitute(text, value.span) {
                        match value::port(&text.value) {
                            Ok(port) => {
                                ports.insert(port);
                            }
                            Err(complaint) => self.reader.complain(None, &text, complaint),
                        }
                    }
                }
                _ => self
                    .reader
                    .wrong_type(name, "hold integers and strings only", value, None),
            }
        }
        Some(ports)
    }

    /// The tables of a [`Form::Tables`].
    pub(super) fn tables(&mut self, name: &'static str) -> Vec<&'t Table> {
        let Some(entry) = self.entry(name, |form| matches!(form, Form::Tables(_))) else {
            return Vec::new();
        };
        let Data::Array(values) = &entry.value.data else {
            let hint = match &entry.value.data {
                Data::Table(_) => {
                    let header = self.reader.file.slice(entry.value.span);
                    let inner = header.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
                    let inner = inner.unwrap_or(name);
                    Some(format!(
                        "write `[[{inner}]]` with double brackets, once for each"
                    ))
                }
                _ => None,
            };
            self.reader
                .wrong_type(name, "be an array of tables", &entry.value, hint);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for value in values {
            if let Data::Table(table) = &value.data {
                tables.push(table);
            } else {
                let hint = "write each as a table: `{ mkdir = \"/srv\" }`".to_owned();
                let hint = (name == "steps").then_some(hint);
                self.reader
                    .wrong_type(name, "hold tables only", value, hint);
            }
        }
        tables
    }

    /// The tables of a [`Form::Named`], each with its name.
    pub(super) fn named(&mut self, name: &'static str) -> Vec<(&'t Entry, &'t Table)> {
        let Some(entry) = self.entry(name, |form| matches!(form, Form::Named(_))) else {
            return Vec::new();
        };
        let hint = format!("write `[{name}.NAME]`");
        let Data::Table(table) = &entry.value.data else {
            self.reader
                .wrong_type(name, "be a table of tables", &entry.value, Some(hint));
            return Vec::new();
        };
        let mut tables = Vec::new();
        for entry in &table.entries {
            match &entry.value.data {
                Data::Table(table) => tables.push((entry, table)),
                _ => self.reader.wrong_type(
                    &format!("{name}.{}", entry.key),
                    "be a table",
                    &entry.value,
                    Some(format!("write `[{name}.{}]`", entry.key)),
                ),
            }
        }
        tables
    }
}
