//! The full name of an image in a registry: `registry.example.com/shop:1.4.0@sha256:…`.

use std::fmt;
use std::str::FromStr;

use immbuild_cas::digest::Digest;

/// Longest name of a repository with its host, and longest tag (OCI distribution-spec, "Pulling manifests").
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// A place for images of one name: a registry and a name in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageRepository {
    host: String,
    path: String,
}

/// An image in a repository: a tag, a digest, or both, where the digest decides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageName {
    /// Where it is.
    pub repository: ImageRepository,
    /// What it is called there.
    pub tag: Option<String>,
    /// What it must be.
    pub digest: Option<Digest>,
}

/// Why a text is no name of an image in a registry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageNameError {
    /// The first part is no host.
    #[error("it names no registry")]
    NoHost,
    /// The name has letters or parts that no registry takes.
    #[error("`{0}` is not a name in a registry")]
    Path(String),
    /// The tag has letters that no registry takes, or too many.
    #[error("`{0}` is not a tag")]
    Tag(String),
    /// What follows `@` is no digest.
    #[error("`{0}` is not a digest of the form `sha256:` and 64 hexadecimal digits")]
    Digest(String),
    /// There is neither a tag nor a digest.
    #[error("it has neither a tag nor a digest")]
    Unnamed,
}

impl ImageRepository {
    /// `registry.example.com`, `localhost:5000`
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `library/nginx`
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The image with this digest in it.
    pub fn at(&self, digest: Digest) -> ImageName {
        ImageName {
            repository: self.clone(),
            tag: None,
            digest: Some(digest),
        }
    }

    /// The image with this tag in it.
    ///
    /// # Errors
    /// It is no tag.
    pub fn tagged(&self, tag: &str) -> Result<ImageName, ImageNameError> {
        check_tag(tag)?;
        Ok(ImageName {
            repository: self.clone(),
            tag: Some(tag.to_owned()),
            digest: None,
        })
    }
}

impl FromStr for ImageRepository {
    type Err = ImageNameError;

    fn from_str(text: &str) -> Result<Self, ImageNameError> {
        let (host, path) = text.split_once('/').ok_or(ImageNameError::NoHost)?;
        if !is_host(host) {
            return Err(ImageNameError::NoHost);
        }
        if text.len() > NAME_MAX || !path.split('/').all(is_part) {
            return Err(ImageNameError::Path(path.to_owned()));
        }
        Ok(Self {
            host: host.to_owned(),
            path: path.to_owned(),
        })
    }
}

impl fmt::Display for ImageRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)
    }
}

impl FromStr for ImageName {
    type Err = ImageNameError;

    fn from_str(text: &str) -> Result<Self, ImageNameError> {
        let reference = Self::with_or_without_tag(text)?;
        if reference.tag.is_none() && reference.digest.is_none() {
            return Err(ImageNameError::Unnamed);
        }
        Ok(reference)
    }
}

impl ImageName {
    /// The same, where neither tag nor digest need be given.
    ///
    /// # Errors
    /// It is no name in a registry.
    pub fn with_or_without_tag(text: &str) -> Result<Self, ImageNameError> {
        let (name, digest) = match text.split_once('@') {
            None => (text, None),
            Some((name, digest)) => {
                let parsed = digest.parse::<Digest>();
                let parsed = parsed.map_err(|_| ImageNameError::Digest(digest.to_owned()))?;
                (name, Some(parsed))
            }
        };
        // A colon before the last slash is that of a port.
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') && name.contains('/') => {
                check_tag(tag)?;
                (name, Some(tag.to_owned()))
            }
            _ => (name, None),
        };
        Ok(Self {
            repository: name.parse()?,
            tag,
            digest,
        })
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.repository.fmt(f)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// A host as container tools tell it from a directory of a name: it has a dot or a port, or is `localhost`.
pub fn is_host(text: &str) -> bool {
    let (name, port) = match text.strip_prefix('[') {
        // An address of IP version 6 stands in brackets.
        Some(rest) => match rest.split_once(']') {
            Some((address, rest)) => {
                let is_address = address.parse::<std::net::Ipv6Addr>().is_ok();
                return is_address
                    && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port));
            }
            None => return false,
        },
        None => match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    let label = |label: &str| {
        let letter = |byte: u8| byte.is_ascii_alphanumeric();
        label.bytes().all(|byte| letter(byte) || byte == b'-')
            && label.bytes().next().is_some_and(letter)
            && label.bytes().last().is_some_and(letter)
    };
    name.split('.').all(label)
        && port.is_none_or(is_port)
        && (name.contains('.') || port.is_some() || name == "localhost")
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// OCI distribution-spec, "Pulling manifests": lower-case letters and digits, with `.`, `_`, `__` or dashes between.
fn is_part(part: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mark = |byte: u8| matches!(byte, b'.' | b'_' | b'-');
    part.bytes().all(|byte| letter(byte) || mark(byte))
        && part.bytes().next().is_some_and(letter)
        && part.bytes().last().is_some_and(letter)
        && part
            .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            .all(|marks| matches!(marks, "" | "." | "_" | "__") || !marks.contains(['.', '_']))
}

fn check_tag(tag: &str) -> Result<(), ImageNameError> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let fits = (1..=TAG_MAX).contains(&tag.len())
        && tag.bytes().next().is_some_and(letter)
        && tag
            .bytes()
            .all(|byte| letter(byte) || matches!(byte, b'.' | b'-'));
    if fits {
        Ok(())
    } else {
        Err(ImageNameError::Tag(tag.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_reference_is_host_path_tag_and_digest() {
        for text in [
            "registry.example.com/shop:1.4.0".to_owned(),
            "localhost:5000/a/b__c/d-e:latest".to_owned(),
            "localhost/a:1".to_owned(),
            "127.0.0.1:5000/a:1".to_owned(),
            "[::1]:5000/a:1".to_owned(),
            format!("registry.example.com:443/shop@{DIGEST}"),
            format!("registry.example.com/shop:1@{DIGEST}"),
        ] {
            let parsed: ImageName = text.parse().expect("a reference");
            assert_eq!(parsed.to_string(), text);
        }
        let parsed: ImageName = "r.example.com:5000/shop/web:1".parse().expect("one");
        assert_eq!(parsed.repository.host(), "r.example.com:5000");
        assert_eq!(parsed.repository.path(), "shop/web");
        assert_eq!(parsed.tag.as_deref(), Some("1"));
    }

    #[test]
    fn what_no_registry_takes_is_refused() {
        use ImageNameError::{NoHost, Path, Tag, Unnamed};
        let path = |text: &str| Path(text.to_owned());
        for (text, error) in [
            ("nginx", NoHost),
            ("nginx:1", NoHost),
            ("library/nginx:1", NoHost),
            ("r.example.com:port/a:1", NoHost),
            ("r.example.com:99999/a:1", NoHost),
            ("-r.example.com/a:1", NoHost),
            ("[::1/a:1", NoHost),
            ("https://r.example.com/a:1", NoHost),
            (
                "user@r.example.com/a:1",
                ImageNameError::Digest("r.example.com/a:1".into()),
            ),
            ("r.example.com/A:1", path("A")),
            ("r.example.com/a//b:1", path("a//b")),
            ("r.example.com/a/../b:1", path("a/../b")),
            ("r.example.com/a..b:1", path("a..b")),
            ("r.example.com/a%2f:1", path("a%2f")),
            ("r.example.com/a?b:1", path("a?b")),
            ("r.example.com/a", Unnamed),
            ("r.example.com/a:", Tag(String::new())),
            ("r.example.com/a:-1", Tag("-1".into())),
            (
                "r.example.com/a@sha256:12",
                ImageNameError::Digest("sha256:12".into()),
            ),
        ] {
            assert_eq!(text.parse::<ImageName>(), Err(error), "{text}");
        }
        let long = format!("r.example.com/{}:1", "a".repeat(256));
        assert!(long.parse::<ImageName>().is_err());
        let long = format!("r.example.com/a:{}", "a".repeat(129));
        assert!(long.parse::<ImageName>().is_err());
    }
}
