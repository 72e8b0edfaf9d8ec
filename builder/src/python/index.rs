//! EFFECT: asks indexes which files a package has (simple repository API, as JSON and as HTML: PEP 503, PEP 691).
//!
//! An index is believed in nothing: only files whose digest is in the lock are looked at, and what is fetched is checked.
#![allow(clippy::disallowed_methods, reason = "what a directory has is sorted")]

use std::fs;
use std::path::Path;

use immbuild_cas::digest::{Digest, HashingReader};
use immbuild_cas::store::Store;

use super::name::normalised;
use super::places::IndexPlaces;
use crate::resolve::http::{self, Fetcher, HttpError, Policy};

/// Most bytes of a page: those of packages with many thousand files have 10 MB.
const PAGE_MAX: u64 = 256 << 20;
/// What is asked for, and what is understood besides.
const ACCEPT: &str = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.5, text/html;q=0.1";

/// A file that an index has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexFile {
    /// Its name.
    pub file: String,
    /// Where it is.
    pub url: String,
    /// Its digest, where the index says it.
    pub sha256: Option<Digest>,
    /// Its bytes, where the index says how many.
    pub size: Option<u64>,
}

/// Why an index gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Nobody says where packages are.
    #[error("nothing says where packages of Python are")]
    NoPlace,
    /// No place has the package.
    #[error("cannot ask for the files of `{package}`")]
    Fetch {
        /// The package.
        package: String,
        /// What the last place said.
        source: HttpError,
    },
    /// What it answered is not understood.
    #[error("the index's page of `{package}` is not understood: {cause}")]
    Page {
        /// The package.
        package: String,
        /// Why.
        cause: String,
    },
    /// A directory cannot be read.
    #[error("cannot read `{path}`")]
    Directory {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// The indexes of this machine.
pub struct Index<'a> {
    /// Where they are.
    pub places: &'a IndexPlaces,
    /// Ask nothing of the network.
    pub offline: bool,
    /// Takes pages.
    pub store: &'a dyn Store,
    /// Fetches them.
    pub fetcher: &'a Fetcher,
}

/// What asks indexes.
pub fn fetcher() -> Fetcher {
    Fetcher::new(Policy {
        accept: ACCEPT,
        limit: PAGE_MAX,
        ..Policy::default()
    })
}

impl Index<'_> {
    /// The files of a package, in directories first, then of each index that has it.
    ///
    /// # Errors
    /// No place has it.
    pub fn files(&self, package: &str) -> Result<Vec<IndexFile>, IndexError> {
        if self.places.is_empty() {
            return Err(IndexError::NoPlace);
        }
        let mut files = Vec::new();
        for directory in &self.places.directories {
            files.extend(in_directory(directory, package)?);
        }
        let mut failed = None;
        for index in &self.places.indexes {
            let url = format!("{}/{package}/", index.trim_end_matches('/'));
            match self.page(&url, package) {
                Ok(found) => files.extend(found),
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if files.is_empty() => Err(error),
            _ => Ok(files),
        }
    }

    fn page(&self, url: &str, package: &str) -> Result<Vec<IndexFile>, IndexError> {
        let request = http::Request {
            url,
            mirrors: &[],
            expected: None,
            size: None,
            offline: self.offline,
        };
        let failed = |source| IndexError::Fetch {
            package: package.to_owned(),
            source,
        };
        let fetched = self
            .fetcher
            .fetch(&request, self.store, &|_, _| {})
            .map_err(failed)?;
        let page = self
            .store
            .read(&fetched.blob)
            .map_err(|error| failed(error.into()))?;
        parse(&page, url).map_err(|cause| IndexError::Page {
            package: package.to_owned(),
            cause,
        })
    }
}

fn in_directory(directory: &Path, package: &str) -> Result<Vec<IndexFile>, IndexError> {
    let bad = |source| IndexError::Directory {
        path: directory.display().to_string(),
        source,
    };
    let mut files = Vec::new();
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        // pip says nothing of one that is not there.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(files),
        Err(error) => return Err(bad(error)),
    };
    for entry in entries {
        let path = entry.map_err(bad)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_own = name
            .match_indices('-')
            .any(|(at, _)| normalised(&name[..at]).as_deref() == Some(package));
        let is_file = path.is_file() && is_own;
        let Some(url) = http::file_url(&path).filter(|_| is_file) else {
            continue;
        };
        let file = fs::File::open(&path).map_err(bad)?;
        let mut reader = HashingReader::new(file);
        std::io::copy(&mut reader, &mut std::io::sink()).map_err(bad)?;
        let (sha256, size) = reader.finish();
        files.push(IndexFile {
            file: name.into_owned(),
            url,
            sha256: Some(sha256),
            size: Some(size),
        });
    }
    files.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(files)
}

/// The files of a page that came from `base`; the error says what is wrong with it.
pub fn parse(page: &[u8], base: &str) -> Result<Vec<IndexFile>, String> {
    let text = std::str::from_utf8(page).map_err(|error| error.to_string())?;
    if text.trim_start().starts_with('{') {
        parse_json(text, base)
    } else {
        Ok(parse_html(text, base))
    }
}

fn parse_json(text: &str, base: &str) -> Result<Vec<IndexFile>, String> {
    let page: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let version = page["meta"]["api-version"].as_str().unwrap_or_default();
    if !version.starts_with("1.") {
        return Err(format!("its version is `{}`", version.escape_debug()));
    }
    let files = page["files"].as_array().ok_or("it has no `files`")?;
    let file = |file: &serde_json::Value| {
        Some(IndexFile {
            file: file["filename"].as_str()?.to_owned(),
            url: http::join(base, file["url"].as_str()?)?,
            sha256: file["hashes"]["sha256"]
                .as_str()
                .and_then(|hex| Digest::from_hex(hex).ok()),
            size: file["size"].as_u64(),
        })
    };
    Ok(files.iter().filter_map(file).collect())
}

/// Anchors: their text is the name of a file, the fragment of their reference its digest.
fn parse_html(text: &str, base: &str) -> Vec<IndexFile> {
    let mut files = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let is_anchor = rest.starts_with(['a', 'A'])
            && rest[1..].starts_with(|c: char| c.is_ascii_whitespace());
        if !is_anchor {
            continue;
        }
        let Some(end) = rest.find('>') else { break };
        let (tag, after) = (&rest[1..end], &rest[end + 1..]);
        let Some(close) = after.find('<') else { break };
        let (name, after) = after.split_at(close);
        rest = after;
        let Some(reference) = attribute(tag, "href") else {
            continue;
        };
        let (url, fragment) = reference.split_once('#').unwrap_or((&reference, ""));
        let Some(url) = http::join(base, url) else {
            continue;
        };
        files.push(IndexFile {
            file: unescaped(name.trim()),
            url,
            sha256: fragment
                .split('&')
                .find_map(|part| part.strip_prefix("sha256="))
                .and_then(|hex| Digest::from_hex(hex).ok()),
            size: None,
        });
    }
    files
}

/// The value of an attribute in a tag.
fn attribute(tag: &str, name: &str) -> Option<String> {
    let mut rest = tag;
    loop {
        rest = rest.trim_start();
        let end = rest.find(|c: char| c == '=' || c.is_ascii_whitespace());
        let end = end.unwrap_or(rest.len());
        if end == 0 {
            return None;
        }
        let (key, after) = rest.split_at(end);
        let after = after.trim_start();
        let Some(value) = after.strip_prefix('=') else {
            rest = after;
            continue;
        };
        let value = value.trim_start();
        let (value, after) = if let Some(quote @ ('"' | '\'')) = value.chars().next() {
            value[1..].split_once(quote)?
        } else {
            let end = value.find(|c: char| c.is_ascii_whitespace());
            value.split_at(end.unwrap_or(value.len()))
        };
        if key.eq_ignore_ascii_case(name) {
            return Some(unescaped(value));
        }
        rest = after;
    }
}

fn unescaped(text: &str) -> String {
    text.replace("&quot;", "\"")
        .replace("&#34;", "\"")
        .replace("&#39;", "'")
        .replace("&#x27;", "'")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&#43;", "+")
        .replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn pages_of_both_forms_say_the_same() {
        let base = "https://i.example.com/simple/a/";
        let html = format!(
            "<!DOCTYPE html><html><body>\n<a href=\"../../files/a-1%2Bx-py3-none-any.whl#sha256={HEX}\" data-requires-python=\"&gt;=3.8\">a-1+x-py3-none-any.whl</a><br/>\n<A class=x href='https://f.example.com/a-1.tar.gz'>a-1.tar.gz</A></body></html>"
        );
        let json = format!(
            r#"{{"meta":{{"api-version":"1.1"}},"name":"a","files":[{{"filename":"a-1+x-py3-none-any.whl","url":"../../files/a-1%2Bx-py3-none-any.whl","hashes":{{"sha256":"{HEX}"}}}},{{"filename":"a-1.tar.gz","url":"https://f.example.com/a-1.tar.gz","hashes":{{}}}}]}}"#
        );
        let expected = [
            IndexFile {
                file: "a-1+x-py3-none-any.whl".into(),
                url: "https://i.example.com/files/a-1%2Bx-py3-none-any.whl".into(),
                sha256: Digest::from_hex(HEX).ok(),
                size: None,
            },
            IndexFile {
                file: "a-1.tar.gz".into(),
                url: "https://f.example.com/a-1.tar.gz".into(),
                sha256: None,
                size: None,
            },
        ];
        assert_eq!(parse(html.as_bytes(), base), Ok(expected.to_vec()));
        assert_eq!(parse(json.as_bytes(), base), Ok(expected.to_vec()));
        assert!(parse(b"{\"meta\":{\"api-version\":\"2.0\"}}", base).is_err());
        assert!(parse(b"{\"files\"", base).is_err());
        assert_eq!(parse(b"<a href=<a <a >", base), Ok(Vec::new()));
    }
}
