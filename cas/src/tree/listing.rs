//! Trees and deltas as lines that people read and that lose nothing.
//!
//! ```text
//! d 0755 0:0 /
//! d 0755 0:0 /usr
//! f 0755 0:0 /usr/hello sha256:5891…be03 6
//! x          security.capability=0100000200040000…
//! l      0:0 /usr/hi -> hello
//! h          /usr/hullo => /usr/hello
//! p 0644 0:0 /usr/pipe
//! c 0666 0:0 /usr/null 1:3
//! b 0660 0:6 /usr/disk 8:0
//! ```
//!
//! `d` directory, `f` file with digest and size, `l` symbolic link, `h` hard link to the first path of its group, `p` named
//! pipe, `c` and `b` devices, `x` an extended attribute, in hex, of the entry above it. Modes are octal, owners
//! `uid:gid`, the order is that of the bytes of paths. In paths, link texts and attribute names a backslash is `\\`, and a
//! space and everything that is no printable UTF-8 is `\xNN`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{
    Change, Delta, Entry, EntryKind, File, Meta, Mode, Special, SpecialKind, Symlink, Tree,
    TreeBuilder, TreeError, Visit, XattrName, walk,
};
use crate::digest::BlobId;
use crate::path::{RelPath, escape};
use crate::store::{DirectorySource, Store, StoreError};

/// Every entry of a tree, a line each.
pub fn to_listing(source: &dyn DirectorySource, tree: &Tree) -> Result<String, TreeError> {
    let first = tree.links.first_by_path();
    let mut out = String::new();
    walk(source, tree, &mut |path, visit| {
        match first.get(path) {
            Some(first) if *first != path => hard_link(&mut out, path, first),
            _ => entry(&mut out, "", path, visit),
        }
        Ok::<(), TreeError>(())
    })?;
    Ok(out)
}

/// Every change of a delta: `+` and the entry that is there afterwards, or `-` and a path that is gone with everything
/// below.
pub fn delta_listing(delta: &Delta) -> String {
    let first = delta.links.first_by_path();
    let mut out = String::new();
    for (path, change) in &delta.changes {
        let visit = match change {
            Change::Remove => {
                out.push_str("- ");
                path_token(&mut out, path);
                out.push('\n');
                continue;
            }
            Change::Directory(meta) => Visit::Directory(meta),
            Change::File(file) => Visit::File(file),
            Change::Symlink(link) => Visit::Symlink(link),
            Change::Special(special) => Visit::Special(special),
        };
        match first.get(path) {
            Some(first) if *first != path => {
                out.push_str("+ ");
                hard_link(&mut out, path, first);
            }
            _ => entry(&mut out, "+ ", path, visit),
        }
    }
    out
}

fn hard_link(out: &mut String, path: &RelPath, first: &RelPath) {
    out.push_str("h          ");
    path_token(out, path);
    out.push_str(" => ");
    path_token(out, first);
    out.push('\n');
}

fn entry(out: &mut String, mark: &str, path: &RelPath, visit: Visit<'_>) {
    out.push_str(mark);
    let meta = match visit {
        Visit::Directory(meta) => {
            head(out, 'd', meta, path);
            meta
        }
        Visit::File(File { blob, size, meta }) => {
            head(out, 'f', meta, path);
            write!(out, " {blob} {size}").expect("a string takes everything");
            meta
        }
        Visit::Symlink(Symlink { target, uid, gid }) => {
            write!(out, "l      {uid}:{gid} ").expect("a string takes everything");
            path_token(out, path);
            out.push_str(" -> ");
            token(out, target);
            out.push('\n');
            return;
        }
        Visit::Special(Special { kind, meta }) => {
            match kind {
                SpecialKind::Fifo => head(out, 'p', meta, path),
                SpecialKind::Char { major, minor } => {
                    head(out, 'c', meta, path);
                    write!(out, " {major}:{minor}").expect("a string takes everything");
                }
                SpecialKind::Block { major, minor } => {
                    head(out, 'b', meta, path);
                    write!(out, " {major}:{minor}").expect("a string takes everything");
                }
            }
            meta
        }
    };
    out.push('\n');
    for (name, value) in &meta.xattrs {
        out.push_str(mark);
        out.push_str("x          ");
        token(out, name.as_bytes());
        out.push('=');
        for byte in value {
            write!(out, "{byte:02x}").expect("a string takes everything");
        }
        out.push('\n');
    }
}

fn head(out: &mut String, letter: char, meta: &Meta, path: &RelPath) {
    let Meta { mode, uid, gid, .. } = meta;
    write!(out, "{letter} {mode} {uid}:{gid} ").expect("a string takes everything");
    path_token(out, path);
}

fn path_token(out: &mut String, path: &RelPath) {
    out.push('/');
    token(out, path.as_bytes());
}

/// Writes bytes without a space in them.
fn token(out: &mut String, bytes: &[u8]) {
    for (i, word) in bytes.split(|byte| *byte == b' ').enumerate() {
        if i > 0 {
            out.push_str("\\x20");
        }
        escape(word, out).expect("a string takes everything");
    }
}

/// Why a text is no listing.
#[derive(Debug, thiserror::Error)]
pub enum ListingError {
    /// A line cannot be read.
    #[error("line {line}: {reason}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A line says something that no tree can be.
    #[error("line {line}")]
    Tree {
        /// Counted from 1.
        line: usize,
        /// What no tree can be.
        source: TreeError,
    },
    /// The store does not take the content of a file.
    #[error("line {line}")]
    Store {
        /// Counted from 1.
        line: usize,
        /// What the store says.
        source: StoreError,
    },
    /// The store does not take the tree.
    #[error("cannot keep the tree of a listing")]
    Seal(#[source] TreeError),
}

/// The tree that a listing says, kept in `store`.
///
/// Besides what [`to_listing`] writes it reads, for fixtures: a quoted text in place of digest and size, which is kept as
/// a blob (`"` with the escapes `\n`, `\t`, `\"`, `\\`, `\xNN`); lines in any order, as long as a hard link comes after what it
/// links to; blank lines, and those that begin with `#`; white space in front of a line. Parents that no line names are 0755
/// 0:0.
pub fn tree_of_listing(text: &str, store: &dyn Store) -> Result<Tree, ListingError> {
    let mut builder = TreeBuilder::new(store, Meta::root(Mode::DIRECTORY));
    let mut seen = BTreeSet::new();
    let mut lines = text.lines().map(str::trim_start).enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        let line_number = index + 1;
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at_line = |reason: String| ListingError::Line {
            line: line_number,
            reason,
        };
        let in_tree = |source| ListingError::Tree {
            line: line_number,
            source,
        };
        let (path, mut said) = parse(line).map_err(at_line)?;
        if !seen.insert(path.clone()) {
            return Err(at_line(format!("`{path}` stands in two lines")));
        }
        while let Some((index, attribute)) = lines.next_if(|(_, line)| line.starts_with("x ")) {
            let at_line = |reason| ListingError::Line {
                line: index + 1,
                reason,
            };
            let meta = said
                .meta()
                .ok_or_else(|| at_line("a link has no extended attributes".to_owned()))?;
            let (name, value) = parse_attribute(attribute).map_err(at_line)?;
            if meta.xattrs.insert(name, value).is_some() {
                return Err(at_line("the attribute stands there twice".to_owned()));
            }
        }
        make_parents(&mut builder, &path).map_err(in_tree)?;
        let done = match said {
            Said::Directory(meta) => builder.make_directory(&path, meta),
            Said::Entry(entry) => builder.insert(&path, entry),
            Said::Text(text, meta) => {
                let blob = store
                    .put_bytes(&text)
                    .map_err(|source| ListingError::Store {
                        line: line_number,
                        source,
                    })?;
                let size = text.len() as u64;
                builder.insert(&path, Entry::File(File { blob, size, meta }))
            }
            Said::HardLink(existing) => builder.link(&existing, &path),
        };
        done.map_err(in_tree)?;
    }
    builder.seal(store).map_err(ListingError::Seal)
}

fn make_parents(builder: &mut TreeBuilder<'_>, path: &RelPath) -> Result<(), TreeError> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    if builder.kind(&parent)? == Some(EntryKind::Directory) {
        return Ok(());
    }
    make_parents(builder, &parent)?;
    if builder.kind(&parent)?.is_some() {
        return Err(TreeError::NotADirectory(parent));
    }
    builder.make_directory(&parent, Meta::root(Mode::DIRECTORY))
}

/// What a line says stands at its path.
enum Said {
    Directory(Meta),
    Entry(Entry),
    Text(Vec<u8>, Meta),
    HardLink(RelPath),
}

impl Said {
    fn meta(&mut self) -> Option<&mut Meta> {
        match self {
            Self::Directory(meta)
            | Self::Text(_, meta)
            | Self::Entry(Entry::File(File { meta, .. }) | Entry::Special(Special { meta, .. })) => {
                Some(meta)
            }
            Self::Entry(Entry::Directory(_) | Entry::Symlink(_)) | Self::HardLink(_) => None,
        }
    }
}

fn parse(line: &str) -> Result<(RelPath, Said), String> {
    let mut words = Words(line);
    let (path, said) = match words.next("a letter")? {
        "d" => {
            let (meta, path) = words.head()?;
            (path, Said::Directory(meta))
        }
        "f" => {
            let (meta, path) = words.head()?;
            let text = words.rest();
            if text.starts_with('"') {
                return Ok((path, Said::Text(unquote(text)?, meta)));
            }
            let blob: BlobId = words
                .next("a digest or a text in quotes")?
                .parse()
                .map_err(|error| format!("{error}"))?;
            let size = parse_number(words.next("a size")?)?;
            (path, Said::Entry(Entry::File(File { blob, size, meta })))
        }
        "l" => {
            let (uid, gid) = parse_pair(words.next("an owner")?)?;
            let path = parse_path(words.next("a path")?)?;
            words.arrow("->")?;
            let target = unescape(words.next("the text of the link")?)?.into();
            (
                path,
                Said::Entry(Entry::Symlink(Symlink { target, uid, gid })),
            )
        }
        "h" => {
            let path = parse_path(words.next("a path")?)?;
            words.arrow("=>")?;
            let existing = parse_path(words.next("a path")?)?;
            (path, Said::HardLink(existing))
        }
        letter @ ("p" | "c" | "b") => {
            let (meta, path) = words.head()?;
            let kind = words.special_kind(letter)?;
            (path, Said::Entry(Entry::Special(Special { kind, meta })))
        }
        "x" => return Err("an extended attribute follows the entry that has it".to_owned()),
        other => return Err(format!("`{other}` is no kind of entry")),
    };
    match words.rest() {
        "" => Ok((path, said)),
        more => Err(format!("`{more}` is too much")),
    }
}

/// The words of a line, which one or more spaces part.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn next(&mut self, what: &str) -> Result<&'a str, String> {
        let line = self.rest();
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        self.0 = rest;
        if word.is_empty() {
            Err(format!("{what} is missing"))
        } else {
            Ok(word)
        }
    }

    fn arrow(&mut self, arrow: &str) -> Result<(), String> {
        match self.next(arrow)? {
            word if word == arrow => Ok(()),
            word => Err(format!("`{arrow}` is due where `{word}` stands")),
        }
    }

    fn head(&mut self) -> Result<(Meta, RelPath), String> {
        let mode = parse_mode(self.next("a mode")?)?;
        let (uid, gid) = parse_pair(self.next("an owner")?)?;
        let path = parse_path(self.next("a path")?)?;
        let meta = Meta {
            uid,
            gid,
            ..Meta::root(mode)
        };
        Ok((meta, path))
    }

    fn special_kind(&mut self, letter: &str) -> Result<SpecialKind, String> {
        if letter == "p" {
            return Ok(SpecialKind::Fifo);
        }
        let (major, minor) = parse_pair(self.next("device numbers")?)?;
        Ok(if letter == "c" {
            SpecialKind::Char { major, minor }
        } else {
            SpecialKind::Block { major, minor }
        })
    }

    fn rest(&self) -> &'a str {
        self.0.trim_matches(' ')
    }
}

fn parse_mode(word: &str) -> Result<Mode, String> {
    (word.len() == 4)
        .then(|| u32::from_str_radix(word, 8).ok().and_then(Mode::new))
        .flatten()
        .ok_or_else(|| format!("`{word}` is no mode of four octal digits"))
}

fn parse_number<T: std::str::FromStr>(word: &str) -> Result<T, String> {
    word.parse()
        .map_err(|_| format!("`{word}` is no number that fits"))
}

fn parse_pair(word: &str) -> Result<(u32, u32), String> {
    let (first, second) = word
        .split_once(':')
        .ok_or_else(|| format!("`{word}` is not two numbers with a colon between"))?;
    Ok((parse_number(first)?, parse_number(second)?))
}

fn parse_path(word: &str) -> Result<RelPath, String> {
    if !word.starts_with('/') {
        return Err(format!("the path `{word}` does not begin with `/`"));
    }
    RelPath::from_absolute(&unescape(word)?).map_err(|error| format!("`{word}`: {error}"))
}

fn parse_attribute(line: &str) -> Result<(XattrName, Box<[u8]>), String> {
    let mut words = Words(line);
    words.arrow("x")?;
    let word = words.rest();
    let (name, hex) = word
        .rsplit_once('=')
        .ok_or_else(|| format!("`{word}` is no name and value with `=` between"))?;
    let name = XattrName::new(&unescape(name)?)
        .ok_or_else(|| format!("the attribute `{name}` is not part of an image"))?;
    let value = hex
        .as_bytes()
        .chunks(2)
        .map(|pair| hex_byte(pair).ok_or_else(|| format!("`{hex}` is no hex")))
        .collect::<Result<Box<[u8]>, String>>()?;
    Ok((name, value))
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let [high, low] = digits else { return None };
    let digit = |digit: &u8| char::from(*digit).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

/// The bytes of a text in quotes.
fn unquote(text: &str) -> Result<Vec<u8>, String> {
    let inner = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .ok_or_else(|| format!("{text} has no closing quote"))?;
    let mut bytes = Vec::with_capacity(inner.len());
    unescape_into(inner, true, &mut bytes)?;
    Ok(bytes)
}

fn unescape(word: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(word.len());
    unescape_into(word, false, &mut bytes)?;
    Ok(bytes)
}

fn unescape_into(text: &str, is_quoted: bool, out: &mut Vec<u8>) -> Result<(), String> {
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte == b'"' && is_quoted {
            return Err("a quote inside of quotes is written `\\\"`".to_owned());
        }
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        let (byte, length) = match rest {
            [b'\\', ..] => (Some(b'\\'), 1),
            [b'n', ..] if is_quoted => (Some(b'\n'), 1),
            [b't', ..] if is_quoted => (Some(b'\t'), 1),
            [b'"', ..] if is_quoted => (Some(b'"'), 1),
            [b'x', high, low, ..] => (hex_byte(&[*high, *low]), 3),
            _ => (None, 0),
        };
        out.push(byte.ok_or_else(|| format!("`{text}` has an unknown escape"))?);
        rest = &rest[length..];
    }
    Ok(())
}
