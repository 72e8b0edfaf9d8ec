//! A JSON value as a YAML document: block style, keys in the order of their bytes, every string in double quotes.
//!
//! What is plain in YAML depends on the version of YAML that the reader has (`no`, `1_000`, `0o17`), so nothing is. In double
//! quotes only escapes that all versions have are used, and everything that is no printable ASCII is escaped.

use std::fmt::Write as _;

use serde_json::Value;

/// The whole document, ending in a line end.
pub(super) fn document(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

/// A value that begins on a line of its own. Every line is indented by `depth` steps, but for the first, where the caller is.
fn block(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_by_key(|(key, _)| key.as_bytes());
            for (at, (key, value)) in sorted.into_iter().enumerate() {
                if at > 0 {
                    indent(depth, out);
                }
                scalar_key(key, out);
                inside(value, depth, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    indent(depth, out);
                }
                out.push_str("- ");
                block(item, depth + 1, out);
            }
        }
        scalar => {
            flow(scalar, out);
            out.push('\n');
        }
    }
}

/// The value behind `key:`.
fn inside(value: &Value, depth: usize, out: &mut String) {
    let is_block = match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if is_block {
        out.push('\n');
        indent(depth + 1, out);
        block(value, depth + 1, out);
    } else {
        out.push(' ');
        block(value, depth, out);
    }
}

fn indent(depth: usize, out: &mut String) {
    for _ in 0..depth {
        out.push_str("  ");
    }
}

/// Keys are plain when they are words that mean nothing else.
fn scalar_key(key: &str, out: &mut String) {
    let is_plain = key.len() > 3 && key.bytes().all(|byte| byte.is_ascii_alphabetic());
    if is_plain && !matches!(key, "true" | "false" | "null") {
        out.push_str(key);
    } else {
        quoted(key, out);
    }
    out.push(':');
}

fn flow(value: &Value, out: &mut String) {
    match value {
        Value::String(text) => quoted(text, out),
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        number_or_word => {
            write!(out, "{number_or_word}").expect("a string takes everything");
        }
    }
}

fn quoted(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            c => write!(out, "\\U{:08X}", u32::from(c)).expect("a string takes everything"),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_is_written_as_people_write_it() {
        let value = json!({
            "kind": "Pod",
            "spec": { "items": [{ "name": "no", "data": {} }, [1, true], "\u{e9}\u{2028}\"\n"], "none": [] },
            "on": null,
        });
        assert_eq!(
            document(&value),
            "kind: \"Pod\"\n\
             \"on\": null\n\
             spec:\n\
             \x20 items:\n\
             \x20   - data: {}\n\
             \x20     name: \"no\"\n\
             \x20   - - 1\n\
             \x20     - true\n\
             \x20   - \"\\U000000E9\\U00002028\\\"\\U0000000A\"\n\
             \x20 none: []\n"
        );
    }
}
