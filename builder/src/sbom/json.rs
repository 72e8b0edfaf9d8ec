//! JSON as a value, written by the one writer.

use crate::image::json::{ToJson, Writer};

/// A value. What has none is left out where it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Json {
    Text(String),
    Number(u64),
    Bool(bool),
    List(Vec<Json>),
    Object(Vec<(&'static str, Json)>),
}

impl Json {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }
}

impl ToJson for Json {
    fn write(&self, out: &mut Writer) {
        match self {
            Self::Text(text) => text.write(out),
            Self::Number(number) => number.write(out),
            Self::Bool(value) => value.write(out),
            Self::List(values) => values.write(out),
            Self::Object(fields) => out.object(|object| {
                for (name, value) in fields {
                    object.field(name, value);
                }
            }),
        }
    }
}
