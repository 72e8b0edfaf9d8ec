//! The language as a JSON Schema for editors and as a page for the book, both made from the parser's own list of keys.

use serde_json::{Map, Value, json};

use super::keys::{self, Form, IMAGE, Key, Keys, Need, Set, Substituted, TOP};
use crate::platform::Platform;

/// A JSON Schema (draft 2020-12) of a spec, indented, ending in a line end.
///
/// A source is chosen by its kind and a step by its verb, so that completion offers the keys of that one only. A value
/// that `${…}` can be put into also allows any text with it in.
pub fn schema() -> String {
    let mut schema = object(&TOP);
    let mut head = Map::new();
    head.insert(
        "$schema".into(),
        "https://json-schema.org/draft/2020-12/schema".into(),
    );
    head.insert("title".into(), "immbuild spec".into());
    let sets = [
        Set::Sources,
        Set::Steps,
        Set::Stages,
        Set::Outputs,
        Set::Archives,
        Set::Dirs,
    ];
    let definitions: Map<String, Value> = sets
        .into_iter()
        .map(|set| (set_name(set).to_owned(), any_of_set(set)))
        .chain([&IMAGE, &keys::RUNTIME, &keys::FIXUPS].map(|keys| {
            let table = Value::Object(object(keys));
            (table_name(keys).to_owned(), table)
        }))
        .collect();
    head.append(&mut schema);
    head.insert("$defs".into(), Value::Object(definitions));
    let text = serde_json::to_string_pretty(&head).expect("every key is a string");
    text + "\n"
}

const fn set_name(set: Set) -> &'static str {
    match set {
        Set::Sources => "source",
        Set::Steps => "step",
        Set::Stages => "stage",
        Set::Outputs => "output",
        Set::Archives => "archive",
        Set::Dirs => "fixup-dir",
    }
}

/// The name of a table that stands for itself.
fn table_name(keys: &Keys) -> &'static str {
    if std::ptr::eq(keys, &raw const IMAGE) {
        "image"
    } else if std::ptr::eq(keys, &raw const keys::RUNTIME) {
        "runtime"
    } else {
        "fixups"
    }
}

fn any_of_set(set: Set) -> Value {
    match set.members() {
        [keys] => Value::Object(object(keys)),
        members => {
            let members: Vec<Value> = members
                .iter()
                .map(|keys| {
                    let mut member = object(keys);
                    member.insert("title".into(), keys.choosing().name.into());
                    Value::Object(member)
                })
                .collect();
            json!({ "oneOf": members })
        }
    }
}

fn reference_to(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

/// The keys that this version has.
fn present(keys: &Keys) -> impl Iterator<Item = &Key> {
    keys.keys
        .iter()
        .filter(|key| !matches!(key.need, Need::Later(_)))
}

fn object(keys: &Keys) -> Map<String, Value> {
    let properties: Map<String, Value> = present(keys)
        .map(|key| (key.name.to_owned(), property(key)))
        .collect();
    let required: Vec<&str> = present(keys)
        .filter(|key| key.need == Need::Required)
        .map(|key| key.name)
        .collect();
    let mut object = Map::new();
    object.insert("description".into(), keys.doc.into());
    object.insert("type".into(), "object".into());
    object.insert("properties".into(), Value::Object(properties));
    if !required.is_empty() {
        object.insert("required".into(), required.into());
    }
    object.insert("additionalProperties".into(), false.into());
    object
}

fn property(key: &Key) -> Value {
    let description = match key.need {
        Need::Optional(default) => format!("{} Default: {default}.", key.doc),
        Need::Required | Need::Later(_) => key.doc.to_owned(),
    };
    let mut value = form(key.form);
    if let Value::Object(value) = &mut value {
        value.insert("description".into(), description.into());
    }
    value
}

/// A pattern, or any text that something is put into.
fn pattern(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": format!(r"{pattern}|\$\{{") })
}

fn form(it: Form) -> Value {
    match it {
        Form::Version => json!({ "const": 1 }),
        Form::Text(Substituted::No) => json!({ "type": "string" }),
        Form::Text(Substituted::Yes) | Form::LocalPath | Form::Owner => {
            json!({ "type": "string", "minLength": 1 })
        }
        Form::ImagePath => pattern("^/"),
        Form::Reference => json!({ "type": "string", "pattern": "^[a-z][a-z0-9-]*(:.+)?$" }),
        Form::Name => json!({ "type": "string", "pattern": "^[a-z][a-z0-9-]*$" }),
        Form::Mode => pattern("^[0-7]{4}$"),
        Form::Duration => pattern("^[0-9]+[smh]$"),
        Form::DateTime => json!({ "type": "string", "format": "date-time" }),
        Form::Sha256 => pattern("^[0-9a-f]{64}$"),
        Form::Boolean => json!({ "type": "boolean" }),
        Form::Integer(last) => json!({ "type": "integer", "minimum": 0, "maximum": last }),
        Form::Choice(words, _) => {
            json!({ "anyOf": [{ "enum": words }, { "type": "string", "pattern": r"\$\{" }] })
        }
        Form::Platform => {
            let names: Vec<String> = Platform::all().map(|it| it.to_string()).collect();
            json!({ "enum": names })
        }
        Form::List(items) => json!({ "type": "array", "items": form(*items) }),
        Form::Words => json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 }),
        Form::Ports => json!({
            "type": "array",
            "items": { "anyOf": [
                { "type": "integer", "minimum": 1, "maximum": 65535 },
                pattern("^[1-9][0-9]*(/(tcp|udp))?$"),
            ] },
        }),
        Form::Strings => {
            json!({ "type": "object", "additionalProperties": { "type": "string" } })
        }
        Form::Named(set) => json!({
            "type": "object",
            "propertyNames": { "pattern": "^[a-z][a-z0-9-]*$", "not": { "const": "image" } },
            "additionalProperties": reference_to(set_name(set)),
        }),
        Form::Table(keys) => reference_to(table_name(keys)),
        Form::Tables(set) => json!({ "type": "array", "items": reference_to(set_name(set)) }),
    }
}

/// The reference of all keys in Markdown, one section for each table.
pub fn reference() -> String {
    keys::all().map(section).collect()
}

fn section(keys: &Keys) -> String {
    let head = "| key | value | default | meaning |\n|---|---|---|---|\n";
    let rows: String = present(keys).map(row).collect();
    format!("## {}\n\n{}\n\n{head}{rows}\n", title(keys), keys.doc)
}

fn row(key: &Key) -> String {
    let default = match key.need {
        Need::Required => "required".to_owned(),
        // What is written is set as code, what is said is not.
        Need::Optional(text) if text.starts_with(['"', '[', '{']) || is_word(text) => {
            format!("`{text}`")
        }
        Need::Optional(text) | Need::Later(text) => text.to_owned(),
    };
    let value = value_in_words(key.form);
    format!("| `{}` | {value} | {default} | {} |\n", key.name, key.doc)
}

fn is_word(text: &str) -> bool {
    matches!(text, "true" | "false") || text.parse::<i64>().is_ok()
}

fn title(keys: &Keys) -> String {
    let chosen = |set: Set| {
        let several = set.members().len() > 1;
        several && set.members().iter().any(|it| std::ptr::eq(*it, keys))
    };
    let name = keys.choosing().name;
    if std::ptr::eq(keys, &raw const TOP) {
        "Top level".into()
    } else if std::ptr::eq(keys, &raw const IMAGE) {
        "`[image]`".into()
    } else if std::ptr::eq(keys, &raw const keys::RUNTIME) {
        "`[runtime]`".into()
    } else if chosen(Set::Sources) {
        format!("`[source.N]` with `{name}`")
    } else if chosen(Set::Steps) {
        format!("The step `{name}`")
    } else if std::ptr::eq(keys, &raw const keys::STAGE) {
        "`[stage.N]`".into()
    } else if std::ptr::eq(keys, &raw const keys::ARCHIVE) {
        "`[[source.N.archive]]`".into()
    } else if std::ptr::eq(keys, &raw const keys::FIXUPS) {
        "`[source.N.fixups]`".into()
    } else if std::ptr::eq(keys, &raw const keys::FIXUP_DIR) {
        "`[[source.N.fixups.dirs]]`".into()
    } else {
        "`[[output]]`".into()
    }
}

fn value_in_words(form: Form) -> String {
    match form {
        Form::Version => "`1`".into(),
        Form::Text(_) => "string".into(),
        Form::LocalPath => "path, relative to the spec".into(),
        Form::ImagePath => "absolute path".into(),
        Form::Reference => "`\"name\"` or `\"name:path\"`".into(),
        Form::Name => "name".into(),
        Form::Mode => "four octal digits".into(),
        Form::Owner => "owner".into(),
        Form::Duration => "time such as `\"90s\"`".into(),
        Form::DateTime => "date-time".into(),
        Form::Sha256 => "64 hex digits".into(),
        Form::Boolean => "boolean".into(),
        Form::Integer(_) => "integer".into(),
        Form::Choice(words, _) => {
            let words: Vec<String> = words.iter().map(|word| format!("`\"{word}\"`")).collect();
            words.join(", ")
        }
        Form::Platform => "platform".into(),
        Form::List(Form::Platform) => "array of platforms".into(),
        Form::List(Form::ImagePath) => "array of absolute paths".into(),
        Form::List(_) | Form::Words => "array of strings".into(),
        Form::Ports => "array of integers and `\"53/udp\"`".into(),
        Form::Strings => "table of strings".into(),
        Form::Named(_) => "tables by name".into(),
        Form::Table(_) => "table".into(),
        Form::Tables(_) => "array of tables".into(),
    }
}
