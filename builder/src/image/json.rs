//! One JSON text per document: the writer behind every byte of JSON that we publish, and a strict reader.
//!
//! The rules of format 1, where changing one changes image bytes:
//!
//! - No white space anywhere, no line end at the end, no byte order mark.
//! - A struct's fields come in the order of the OCI image-spec's own Go types; a map's keys in the order of their
//!   UTF-8 bytes. No key comes twice.
//! - A field without a value is left out: there is no `null`, and an empty map, list or text is left out too where the
//!   document's module says so.
//! - Strings are written as RFC 8785 (JCS), section 3.2.2.2, says: `\"`, `\\`, `\b`, `\t`, `\n`, `\f`, `\r`, other
//!   characters below U+0020 as `\u00xx` with lower-case hex; everything else as it is, in UTF-8. So `<`, `>`, `&`,
//!   `/`, U+007F and U+2028 are not escaped (Go's default writer escapes some of them).
//! - Numbers are integers from 0 to 2^53 - 1, in decimal, without sign, point or exponent.

use std::collections::BTreeMap;
use std::fmt;

use immbuild_cas::digest::Digest;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// Largest document that is read: 4 MiB, what registries accept (OCI distribution-spec, "Pushing Manifests").
pub const MAX_JSON: u64 = 4 << 20;

/// The canonical bytes of a document. Only this module makes one.
#[derive(Clone, PartialEq, Eq)]
pub struct CanonicalJson(Vec<u8>);

impl CanonicalJson {
    /// Writes a document.
    pub fn of(document: &impl ToJson) -> Self {
        let mut out = Writer(Vec::new());
        document.write(&mut out);
        Self(out.0)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The digest of the bytes.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }

    /// How many bytes.
    pub fn size(&self) -> u64 {
        self.0.len() as u64
    }
}

impl fmt::Debug for CanonicalJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

/// A value with one JSON text.
pub trait ToJson {
    /// Writes it.
    fn write(&self, out: &mut Writer);
}

/// Takes one JSON value.
#[derive(Debug)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// An object whose fields `fields` writes, in its order.
    pub fn object(&mut self, fields: impl FnOnce(&mut Fields<'_>)) {
        self.0.push(b'{');
        fields(&mut Fields {
            out: self,
            first: true,
        });
        self.0.push(b'}');
    }

    fn list(&mut self, values: impl Iterator<Item = impl FnOnce(&mut Self)>) {
        self.0.push(b'[');
        for (index, write) in values.enumerate() {
            if index > 0 {
                self.0.push(b',');
            }
            write(self);
        }
        self.0.push(b']');
    }

    fn string(&mut self, text: &str) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        self.0.push(b'"');
        for byte in text.bytes() {
            match byte {
                b'"' => self.0.extend_from_slice(b"\\\""),
                b'\\' => self.0.extend_from_slice(b"\\\\"),
                0x08 => self.0.extend_from_slice(b"\\b"),
                b'\t' => self.0.extend_from_slice(b"\\t"),
                b'\n' => self.0.extend_from_slice(b"\\n"),
                0x0c => self.0.extend_from_slice(b"\\f"),
                b'\r' => self.0.extend_from_slice(b"\\r"),
                0..0x20 => {
                    self.0.extend_from_slice(b"\\u00");
                    self.0.push(HEX[usize::from(byte >> 4)]);
                    self.0.push(HEX[usize::from(byte & 15)]);
                }
                _ => self.0.push(byte),
            }
        }
        self.0.push(b'"');
    }
}

/// Takes the fields of one object.
#[derive(Debug)]
pub struct Fields<'a> {
    out: &'a mut Writer,
    first: bool,
}

impl Fields<'_> {
    /// A field that is always there.
    pub fn field<T: ToJson + ?Sized>(&mut self, name: &str, value: &T) {
        self.name(name);
        value.write(self.out);
    }

    fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.first) {
            self.out.0.push(b',');
        }
        self.out.string(name);
        self.out.0.push(b':');
    }

    /// A field that is there when it has a value.
    pub fn optional<T: ToJson>(&mut self, name: &str, value: Option<&T>) {
        if let Some(value) = value {
            self.field(name, value);
        }
    }

    /// A list or map that is there when it is not empty.
    pub fn unless_empty<T: ToJson + Emptiness + ?Sized>(&mut self, name: &str, value: &T) {
        if !value.is_empty() {
            self.field(name, value);
        }
    }
}

/// What can be empty.
pub trait Emptiness {
    /// Is it?
    fn is_empty(&self) -> bool;
}

impl Emptiness for str {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

impl<T> Emptiness for Vec<T> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

impl<V> Emptiness for BTreeMap<String, V> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

impl ToJson for str {
    fn write(&self, out: &mut Writer) {
        out.string(self);
    }
}

impl ToJson for String {
    fn write(&self, out: &mut Writer) {
        out.string(self);
    }
}

impl ToJson for bool {
    fn write(&self, out: &mut Writer) {
        out.0
            .extend_from_slice(if *self { b"true" } else { b"false" });
    }
}

impl ToJson for u64 {
    fn write(&self, out: &mut Writer) {
        assert!(
            *self < 1 << 53,
            "no size or count reaches 2^53, where JSON readers begin to round"
        );
        out.0.extend_from_slice(self.to_string().as_bytes());
    }
}

impl ToJson for Digest {
    fn write(&self, out: &mut Writer) {
        out.string(&self.to_string());
    }
}

impl<T: ToJson> ToJson for Vec<T> {
    fn write(&self, out: &mut Writer) {
        out.list(self.iter().map(|value| |out: &mut Writer| value.write(out)));
    }
}

impl<V: ToJson> ToJson for BTreeMap<String, V> {
    fn write(&self, out: &mut Writer) {
        out.object(|fields| {
            for (name, value) in self {
                fields.field(name, value);
            }
        });
    }
}

/// An empty object: the value of a set's members (`ExposedPorts`, `Volumes`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Present;

impl ToJson for Present {
    fn write(&self, out: &mut Writer) {
        out.object(|_| ());
    }
}

/// A JSON value as somebody wrote it. A key that comes twice is refused: readers disagree on which one counts.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// An integer from 0 to 2^64 - 1.
    Integer(u64),
    /// Any other number, which no document we read has a use for.
    OtherNumber,
    /// A string.
    String(String),
    /// An array.
    Array(Vec<Json>),
    /// An object.
    Object(BTreeMap<String, Json>),
}

impl Json {
    /// Reads one value, nested at most 128 deep, and nothing after it.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// What kind of value this is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) | Self::OtherNumber => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

/// In the form of [`CanonicalJson`], for people; a number that is no integer from 0 to 2^64 - 1 as `?`.
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Writer(Vec::new());
        self.write(&mut out);
        f.write_str(&String::from_utf8_lossy(&out.0))
    }
}

impl Json {
    fn write(&self, out: &mut Writer) {
        match self {
            Self::Null => out.0.extend_from_slice(b"null"),
            Self::Bool(value) => value.write(out),
            Self::Integer(value) => out.0.extend_from_slice(value.to_string().as_bytes()),
            Self::OtherNumber => out.0.push(b'?'),
            Self::String(text) => text.write(out),
            Self::Array(items) => {
                out.list(items.iter().map(|item| |out: &mut Writer| item.write(out)));
            }
            Self::Object(object) => out.object(|fields| {
                for (name, value) in object {
                    fields.name(name);
                    value.write(fields.out);
                }
            }),
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Integer(value))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
        Ok(Json::OtherNumber)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
        Ok(Json::OtherNumber)
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::String(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element()? {
            values.push(value);
        }
        Ok(Json::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut object = BTreeMap::new();
        while let Some((key, value)) = items.next_entry::<String, Json>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format_args!("key `{key}` comes twice")));
            }
            object.insert(key, value);
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_rfc_8785_says() {
        let text = "\u{0}\u{8}\t\n\u{c}\r\u{1f} \"\\/ <&> \u{7f} ü \u{2028} 😀".to_owned();
        assert_eq!(
            String::from_utf8(CanonicalJson::of(&text).0).expect("UTF-8"),
            "\"\\u0000\\b\\t\\n\\f\\r\\u001f \\\"\\\\/ <&> \u{7f} ü \u{2028} 😀\""
        );
        assert_eq!(
            Json::parse(CanonicalJson::of(&text).as_bytes()).expect("our own text"),
            Json::String(text)
        );
    }

    #[test]
    fn maps_are_sorted_by_bytes_whatever_the_order_of_insertion() {
        let names = ["z", "a", "a.b", "a/b", "Ä", "A"];
        let forward: BTreeMap<String, u64> = names.iter().map(|n| ((*n).into(), 1)).collect();
        let backward: BTreeMap<String, u64> =
            names.iter().rev().map(|n| ((*n).into(), 1)).collect();
        let bytes = CanonicalJson::of(&forward);
        assert_eq!(bytes, CanonicalJson::of(&backward));
        assert_eq!(
            format!("{bytes:?}"),
            r#"{"A":1,"a":1,"a.b":1,"a/b":1,"z":1,"Ä":1}"#
        );
    }

    #[test]
    fn a_key_that_comes_twice_is_refused() {
        let error = Json::parse(br#"{"a":{"b":1,"b":2}}"#).expect_err("twice");
        assert!(error.to_string().starts_with("key `b` comes twice"));
    }

    #[test]
    fn deep_nesting_is_refused_and_not_a_stack_overflow() {
        assert!(Json::parse(&b"[".repeat(100_000)).is_err());
    }
}
