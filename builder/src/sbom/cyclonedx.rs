//! `CycloneDX` 1.6 (ECMA-424).

use std::fmt::Write as _;

use immbuild_cas::digest::Digest;

use super::json::Json;
use super::{Bill, Component};
use crate::image::CanonicalJson;

pub(super) fn document(bill: &Bill) -> CanonicalJson {
    CanonicalJson::of(&body(bill, Some(&uuid(&bill.digest()))))
}

/// Without a name it is what the name is made of.
pub(super) fn body(bill: &Bill, name: Option<&str>) -> Json {
    let mut fields = vec![
        ("bomFormat", Json::text("CycloneDX")),
        ("specVersion", Json::text("1.6")),
    ];
    if let Some(name) = name {
        fields.push(("serialNumber", Json::text(name)));
    }
    let image = Json::Object(vec![
        ("type", Json::text("container")),
        ("bom-ref", Json::text(IMAGE)),
        ("name", Json::text(&bill.name)),
    ]);
    let tool = Json::Object(vec![
        ("type", Json::text("application")),
        ("name", Json::text("immbuild")),
    ]);
    let components = bill
        .components
        .iter()
        .map(|(reference, it)| component(reference, it));
    let mut dependencies = vec![depends(IMAGE, bill.components.keys())];
    dependencies.extend(
        bill.components
            .iter()
            .map(|(reference, component)| depends(reference, component.depends.iter())),
    );
    fields.extend([
        ("version", Json::Number(1)),
        (
            "metadata",
            Json::Object(vec![
                ("timestamp", Json::text(bill.epoch.to_string())),
                (
                    "tools",
                    Json::Object(vec![("components", Json::List(vec![tool]))]),
                ),
                ("component", image),
            ]),
        ),
        ("components", Json::List(components.collect())),
        ("dependencies", Json::List(dependencies)),
    ]);
    Json::Object(fields)
}

/// The reference of the image itself.
const IMAGE: &str = "image";

fn component(reference: &str, component: &Component) -> Json {
    let mut fields = vec![
        ("type", Json::text("library")),
        ("bom-ref", Json::text(reference)),
        ("name", Json::text(&component.name)),
    ];
    if let Some(version) = &component.version {
        fields.push(("version", Json::text(version)));
    }
    if let Some(digest) = &component.sha256 {
        let hash = Json::Object(vec![
            ("alg", Json::text("SHA-256")),
            ("content", Json::text(digest.to_hex())),
        ]);
        fields.push(("hashes", Json::List(vec![hash])));
    }
    if let Some(purl) = &component.purl {
        fields.push(("purl", Json::text(purl)));
    }
    let property = |name: &str, value: &str| {
        Json::Object(vec![
            ("name", Json::text(name)),
            ("value", Json::text(value)),
        ])
    };
    let mut properties = Vec::new();
    if let Some((name, version)) = &component.source {
        properties.push(property("immbuild:source", &format!("{name} {version}")));
    }
    for (name, digest) in &component.provenance {
        properties.push(property("immbuild:release", &format!("{name} {digest}")));
    }
    if !properties.is_empty() {
        fields.push(("properties", Json::List(properties)));
    }
    Json::Object(fields)
}

fn depends<'a>(reference: &str, on: impl Iterator<Item = &'a String>) -> Json {
    let on: Vec<Json> = on.map(Json::text).collect();
    let mut fields = vec![("ref", Json::text(reference))];
    if !on.is_empty() {
        fields.push(("dependsOn", Json::List(on)));
    }
    Json::Object(fields)
}

/// A UUID of version 8 (RFC 9562, 5.8) made of a digest.
fn uuid(digest: &Digest) -> String {
    let mut bytes: [u8; 16] = digest.as_bytes()[..16]
        .try_into()
        .expect("a digest has more than 16 bytes");
    bytes[6] = 0x80 | bytes[6] & 0x0f;
    bytes[8] = 0x80 | bytes[8] & 0x3f;
    let mut hex = String::new();
    for byte in bytes {
        write!(hex, "{byte:02x}").expect("a string takes everything");
    }
    format!(
        "urn:uuid:{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}
