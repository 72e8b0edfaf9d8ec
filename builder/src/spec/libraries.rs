//! `python` and `cargo` sources: their tables read into typed values.

use super::fields::{Fields, Text};
use super::model::{CargoSource, Libc, PythonSource};

pub(super) fn read_python(fields: &mut Fields<'_, '_, '_>) -> Option<PythonSource> {
    let file = fields.local_path("python");
    let interpreter = fields.text("interpreter");
    let libc = fields.text("libc");
    let groups = names(fields, "groups");
    let extras = names(fields, "extras");
    let file = file?;
    let interpreter = interpreter.and_then(|text| {
        let found = text.value.parse().ok();
        if found.is_none() {
            let message = format!("`{}` is no version of CPython 3", text.value.escape_debug());
            let hint =
                "write the one that the image has: `\"3.11\"`, or `\"3.11.2\"` where that matters";
            fields.reader.error(text.span, message, hint);
        }
        found
    });
    let libc = match libc {
        None => Libc::default(),
        Some(text) => {
            let Ok(libc) = text.value.parse() else {
                let message = format!("`{}` is no C library", text.value.escape_debug());
                let hint = "write `\"glibc-2.36\"` or `\"musl-1.2\"`, as the image has it or older";
                fields.reader.error(text.span, message, hint);
                return None;
            };
            libc
        }
    };
    let source = PythonSource {
        file: file.value,
        interpreter: interpreter?,
        libc,
        groups: groups?,
        extras: extras?,
        content: None,
    };
    for key in ["groups", "extras"] {
        if !source.is_lock() && fields.has(key) {
            let span = fields.span(key);
            let message = format!("requirements have no `{key}`");
            let hint = "let the tool that wrote them put in what is wanted, or name a `uv.lock` or `pylock.toml`";
            fields.reader.error(span, message, hint);
            return None;
        }
    }
    Some(source)
}

pub(super) fn read_cargo(fields: &mut Fields<'_, '_, '_>) -> Option<CargoSource> {
    let file = fields.local_path("cargo")?;
    Some(CargoSource { file: file.value })
}

/// Names as packages have them (PEP 503), as written.
fn names(fields: &mut Fields<'_, '_, '_>, key: &'static str) -> Option<Vec<String>> {
    let texts = fields.texts(key).unwrap_or_default();
    let is_name = |text: &Text| {
        let is_end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
        let mut bytes = text.value.bytes();
        is_end(bytes.clone().next())
            && is_end(bytes.clone().last())
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    let wrong = texts.iter().find(|text| !is_name(text));
    if let Some(text) = wrong {
        let message = format!("`{}` is not a name", text.value.escape_debug());
        let hint = "write it as the project's `pyproject.toml` has it";
        fields.reader.error(text.span, message, hint);
        return None;
    }
    Some(texts.into_iter().map(|text| text.value).collect())
}
