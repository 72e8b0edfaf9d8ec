//! Names and paths inside a tree: bytes, validated once, free of any host's rules.
//!
//! Must never know `std::path` semantics.

use std::borrow::Borrow;
use std::fmt;

/// Longest name in bytes (Linux `NAME_MAX`).
pub const NAME_MAX: usize = 255;
/// Longest path in bytes (Linux `PATH_MAX` without its NUL).
pub const PATH_MAX: usize = 4095;

/// Why bytes are not a name or path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// An empty name, also between two slashes or at either end of a path.
    #[error("a name is empty")]
    Empty,
    /// `.` or `..`, which are ways and not names.
    #[error("`.` and `..` are not names")]
    Dots,
    /// A slash in a name, or a NUL anywhere.
    #[error("a name holds a slash or a NUL")]
    Byte,
    /// Longer than [`NAME_MAX`].
    #[error("a name is longer than {NAME_MAX} bytes")]
    LongName,
    /// Longer than [`PATH_MAX`].
    #[error("a path is longer than {PATH_MAX} bytes")]
    LongPath,
}

fn check_name(name: &[u8]) -> Result<(), PathError> {
    match name {
        b"" => Err(PathError::Empty),
        b"." | b".." => Err(PathError::Dots),
        _ if name.len() > NAME_MAX => Err(PathError::LongName),
        _ if name.iter().any(|byte| matches!(byte, 0 | b'/')) => Err(PathError::Byte),
        _ => Ok(()),
    }
}

/// The name of an entry: 1 to 255 bytes, no slash, no NUL, not `.` or `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Checks and takes these bytes.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        check_name(&bytes)?;
        Ok(Self(bytes))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(&self.0, f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

/// A path below a root: names joined by single slashes, no slash at either end. Empty is the root.
///
/// Ordered by its bytes: `a`, `a.b`, `a/b`. A parent always comes before what is in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RelPath(Box<[u8]>);

impl RelPath {
    /// The root itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// Checks and takes these bytes.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        if bytes.len() > PATH_MAX {
            return Err(PathError::LongPath);
        }
        if !bytes.is_empty() {
            bytes.split(|byte| *byte == b'/').try_for_each(check_name)?;
        }
        Ok(Self(bytes))
    }

    /// The path as an absolute one writes it: one leading slash is taken off, `/` is the root.
    pub fn from_absolute(bytes: &[u8]) -> Result<Self, PathError> {
        Self::new(bytes.strip_prefix(b"/").unwrap_or(bytes))
    }

    /// The bytes, without a leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Is this the root?
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The names from the root down.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
    }

    /// The directory this is in and the name it has there; nothing for the root.
    pub fn split_last(&self) -> Option<(RelPath, Name)> {
        if self.is_root() {
            return None;
        }
        let slash = self.0.iter().rposition(|byte| *byte == b'/');
        let (parent, name) = match slash {
            None => (&self.0[..0], &self.0[..]),
            Some(at) => (&self.0[..at], &self.0[at + 1..]),
        };
        Some((Self(parent.into()), Name(name.into())))
    }

    /// The bytes of the last name; none of the root.
    pub fn file_name(&self) -> &[u8] {
        let start = self.0.iter().rposition(|byte| *byte == b'/');
        &self.0[start.map_or(0, |slash| slash + 1)..]
    }

    /// The path without its kind.
    pub fn into_bytes(self) -> Box<[u8]> {
        self.0
    }

    /// The directory this is in; nothing for the root.
    pub fn parent(&self) -> Option<RelPath> {
        self.split_last().map(|(parent, _)| parent)
    }

    /// The entry `name` in this directory.
    ///
    /// # Errors
    /// [`PathError::LongPath`].
    pub fn join(&self, name: &Name) -> Result<RelPath, PathError> {
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.0.len());
        bytes.extend_from_slice(&self.0);
        if !self.is_root() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(&name.0);
        if bytes.len() > PATH_MAX {
            return Err(PathError::LongPath);
        }
        Ok(Self(bytes.into()))
    }

    /// The path `below` seen from this directory.
    ///
    /// # Errors
    /// [`PathError::LongPath`].
    pub fn join_path(&self, below: &RelPath) -> Result<RelPath, PathError> {
        if self.is_root() || below.is_root() {
            return Ok(if self.is_root() { below } else { self }.clone());
        }
        let mut bytes = self.0.to_vec();
        bytes.push(b'/');
        bytes.extend_from_slice(&below.0);
        if bytes.len() > PATH_MAX {
            return Err(PathError::LongPath);
        }
        Ok(Self(bytes.into()))
    }

    /// Is this `directory`, or below it?
    pub fn starts_with(&self, directory: &RelPath) -> bool {
        self.strip_prefix(directory).is_some()
    }

    /// The rest of the path below `directory`; the root when it is `directory` itself.
    pub fn strip_prefix(&self, directory: &RelPath) -> Option<RelPath> {
        if directory.is_root() {
            return Some(self.clone());
        }
        match self.0.strip_prefix(&*directory.0)? {
            [] => Some(Self::root()),
            [b'/', rest @ ..] => Some(Self(rest.into())),
            _ => None,
        }
    }
}

/// Sound because a path is ordered and compared by its bytes alone; lets a sorted table be searched without a copy.
impl Borrow<[u8]> for RelPath {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// Written as an absolute path, with bytes that are no printable UTF-8 as `\xNN` and a backslash doubled,
/// so that different paths never look alike.
impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("/")?;
        escape(&self.0, f)
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

/// Writes bytes so that they can be read and told apart: printable UTF-8 as it is, the rest as `\xNN`.
pub fn escape(bytes: &[u8], out: &mut impl fmt::Write) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.write_str("\\\\")?,
                c if c.is_control() => {
                    let mut buffer = [0; 4];
                    for byte in c.encode_utf8(&mut buffer).bytes() {
                        write!(out, "\\x{byte:02x}")?;
                    }
                }
                c => out.write_char(c)?,
            }
        }
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_checked_once() {
        assert!(RelPath::new(*b"usr/bin/hello").is_ok());
        assert_eq!(RelPath::new(*b"/usr"), Err(PathError::Empty));
        assert_eq!(RelPath::new(*b"usr/"), Err(PathError::Empty));
        assert_eq!(RelPath::new(*b"usr//bin"), Err(PathError::Empty));
        assert_eq!(RelPath::new(*b"usr/../bin"), Err(PathError::Dots));
        assert_eq!(RelPath::new(*b"usr/a\0b"), Err(PathError::Byte));
        assert_eq!(RelPath::new(vec![b'a'; 256]), Err(PathError::LongName));
        assert_eq!(RelPath::from_absolute(b"/"), Ok(RelPath::root()));
    }

    #[test]
    fn order_is_the_order_of_bytes() {
        let path = |text: &str| RelPath::new(text.as_bytes()).expect("a path");
        assert!(path("a") < path("a.b"));
        assert!(path("a.b") < path("a/b"));
        assert!(path("a/b").starts_with(&path("a")));
        assert!(!path("a.b").starts_with(&path("a")));
    }

    #[test]
    fn different_bytes_look_different() {
        let shown = |bytes: &[u8]| RelPath::new(bytes).expect("a path").to_string();
        assert_eq!(shown(b"a\xff"), "/a\\xff");
        assert_eq!(shown(b"a\\xff"), "/a\\\\xff");
        assert_eq!(shown(b"a\nb"), "/a\\x0ab");
    }
}
