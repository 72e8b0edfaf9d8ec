//! SPDX 2.3 (ISO/IEC 5962 has 2.2.1, of which this is a later edition).

use immbuild_cas::digest::Digest;

use super::json::Json;
use super::{Bill, Component};
use crate::image::CanonicalJson;

/// What is said where nothing is known.
const NOTHING: &str = "NOASSERTION";
const DOCUMENT: &str = "SPDXRef-DOCUMENT";
const IMAGE: &str = "SPDXRef-image";

pub(super) fn document(bill: &Bill) -> CanonicalJson {
    let image = Json::Object(vec![
        ("SPDXID", Json::text(IMAGE)),
        ("name", Json::text(&bill.name)),
        ("downloadLocation", Json::text(NOTHING)),
        ("filesAnalyzed", Json::Bool(false)),
        ("primaryPackagePurpose", Json::text("CONTAINER")),
    ]);
    let mut packages = vec![image];
    let mut relationships = vec![relationship(DOCUMENT, "DESCRIBES", IMAGE)];
    for (reference, component) in &bill.components {
        let id = id(reference);
        packages.push(package(&id, component));
        relationships.push(relationship(IMAGE, "CONTAINS", &id));
        for other in &component.depends {
            relationships.push(relationship(&id, "DEPENDS_ON", &self::id(other)));
        }
    }
    let creation = Json::Object(vec![
        ("created", Json::text(bill.epoch.to_string())),
        ("creators", Json::List(vec![Json::text("Tool: immbuild")])),
    ]);
    CanonicalJson::of(&Json::Object(vec![
        ("spdxVersion", Json::text("SPDX-2.3")),
        ("dataLicense", Json::text("CC0-1.0")),
        ("SPDXID", Json::text(DOCUMENT)),
        ("name", Json::text(&bill.name)),
        (
            "documentNamespace",
            Json::text(format!("urn:immbuild:sbom:{}", bill.digest())),
        ),
        ("creationInfo", creation),
        ("packages", Json::List(packages)),
        ("relationships", Json::List(relationships)),
    ]))
}

fn package(id: &str, component: &Component) -> Json {
    let mut fields = vec![
        ("SPDXID", Json::text(id)),
        ("name", Json::text(&component.name)),
    ];
    if let Some(version) = &component.version {
        fields.push(("versionInfo", Json::text(version)));
    }
    fields.extend([
        ("downloadLocation", Json::text(NOTHING)),
        ("filesAnalyzed", Json::Bool(false)),
    ]);
    if let Some(digest) = &component.sha256 {
        let checksum = Json::Object(vec![
            ("algorithm", Json::text("SHA256")),
            ("checksumValue", Json::text(digest.to_hex())),
        ]);
        fields.push(("checksums", Json::List(vec![checksum])));
    }
    if let Some((name, version)) = &component.source {
        let text = format!("built from the source package {name} {version}");
        fields.push(("sourceInfo", Json::text(text)));
    }
    fields.extend([
        ("licenseConcluded", Json::text(NOTHING)),
        ("licenseDeclared", Json::text(NOTHING)),
        ("copyrightText", Json::text(NOTHING)),
    ]);
    if let Some(purl) = &component.purl {
        let reference = Json::Object(vec![
            ("referenceCategory", Json::text("PACKAGE-MANAGER")),
            ("referenceType", Json::text("purl")),
            ("referenceLocator", Json::text(purl)),
        ]);
        fields.push(("externalRefs", Json::List(vec![reference])));
    }
    if !component.provenance.is_empty() {
        let found: Vec<String> = component
            .provenance
            .iter()
            .map(|(name, digest)| format!("{name} {digest}"))
            .collect();
        let text = format!("signed in {}", found.join(", "));
        fields.push(("comment", Json::text(text)));
    }
    Json::Object(fields)
}

/// Letters, digits, points and dashes are all that an identifier may have.
fn id(reference: &str) -> String {
    format!(
        "SPDXRef-{}",
        &Digest::of(reference.as_bytes()).to_hex()[..32]
    )
}

fn relationship(one: &str, is: &str, other: &str) -> Json {
    Json::Object(vec![
        ("spdxElementId", Json::text(one)),
        ("relationshipType", Json::text(is)),
        ("relatedSpdxElement", Json::text(other)),
    ])
}
