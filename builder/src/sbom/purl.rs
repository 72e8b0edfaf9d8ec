//! Package URLs (ECMA-427): how scanners name a package.

use super::Distribution;
use crate::graph::libraries::{Language, LibraryPin};
use crate::lock::model::PackagePin;

/// `pkg:deb/debian/nginx@1.22.1-9%2Bdeb12u1?arch=amd64&distro=bookworm&upstream=…`: `upstream` is the source package, where it
/// is called otherwise or has another version, because that is what advisories speak of.
pub fn deb(package: &PackagePin, of: Distribution<'_>) -> String {
    let (name, version) = (encoded(&package.name), encoded(&package.version));
    let mut url = format!("pkg:deb/{}/{name}@{version}", encoded(of.name));
    url.push_str("?arch=");
    url.push_str(&encoded(&package.arch));
    url.push_str("&distro=");
    url.push_str(&encoded(of.suite));
    let upstream = match &package.source_version {
        Some(version) => Some(format!("{}@{version}", package.source)),
        None if package.source != package.name => Some(package.source.clone()),
        None => None,
    };
    if let Some(upstream) = upstream {
        url.push_str("&upstream=");
        url.push_str(&encoded(&upstream));
    }
    url
}

/// `pkg:pypi/flask@3.0.0?file_name=flask-3.0.0-py3-none-any.whl`, since wheels of one version differ; `pkg:cargo/serde@1.0.0`.
pub(super) fn library(library: &LibraryPin, language: Language) -> String {
    let (name, version) = (encoded(&library.name), encoded(&library.version));
    match language {
        Language::Python => {
            let file = encoded(&library.file);
            format!("pkg:pypi/{name}@{version}?file_name={file}")
        }
        Language::Rust => format!("pkg:cargo/{name}@{version}"),
    }
}

/// Percent-encoded but for what needs it nowhere, and `:`, which the standard leaves as it is.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                out.push(char::from(byte));
            }
            other => {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                out.push('%');
                out.push(char::from(HEX[usize::from(other >> 4)]));
                out.push(char::from(HEX[usize::from(other & 15)]));
            }
        }
    }
    out
}
