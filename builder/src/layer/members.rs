//! A tar as a sequence of members: the strict reader.
//!
//! Reads what the tools of the field write: v7, ustar, pax and GNU with long names and base-256 numbers. Where readers are
//! known to disagree on what an archive says, it says nothing here and is refused: that is how one archive looks harmless to
//! a scanner and is not when unpacked. Extended headers are bounded before they are read. Must never know trees.

use std::io::{self, Read};

use immbuild_cas::path::escape;

use super::at_most;
use super::codec::{LimitError, Limited};
use super::tar::{RECORD, padding};

/// Longest extended header or long name in bytes. An attribute's value has at most 64 KiB on Linux.
const EXTENDED_MAX: usize = 1 << 20;

/// Key of an attribute in base64, as libarchive writes it besides the usual one.
const LIBARCHIVE: &[u8] = b"LIBARCHIVE.xattr.";

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// What the archive is read from failed, also when decompressing.
    #[error("cannot read the archive after {offset} bytes")]
    Read {
        /// Bytes of the tar read so far.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// It ends inside a header or a content.
    #[error("the archive is cut short after {offset} bytes")]
    Short {
        /// Bytes of the tar that are there.
        offset: u64,
    },
    /// More bytes come out of it than are allowed: a bomb, or a limit that is too low.
    #[error("the archive has more than {0} bytes")]
    Bytes(u64),
    /// A header breaks the format.
    #[error("the archive has a bad header at byte {offset}: {reason}")]
    Header {
        /// Where the header starts in the tar.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    HardLink,
    Symlink,
    Char,
    Block,
    Directory,
    Fifo,
}

/// One member, with everything that stands in front of its content. All bytes are as they stand in the archive.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// Where its own header starts.
    pub(super) offset: u64,
    pub(super) kind: Kind,
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    /// Seconds and nanoseconds since 1970.
    pub(super) mtime: (i64, u32),
    pub(super) device: (u32, u32),
    /// Extended attributes by name, in the order they stand there.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Keys of records that would be part of the entry and are of no use here: access control lists, labels.
    pub(super) dropped: Vec<Vec<u8>>,
}

/// Reads members one after another.
pub(super) struct Members<'r> {
    reader: Limited<&'r mut dyn Read>,
    offset: u64,
    /// Content of the current member that nobody has read yet.
    content: u64,
    padding: u64,
    /// What made a read of content fail, kept because readers of content only see an [`io::Error`].
    failed: Option<MemberError>,
}

impl<'r> Members<'r> {
    /// Reads an archive of at most `limit` bytes.
    pub(super) fn new(reader: &'r mut dyn Read, limit: u64) -> Self {
        Self {
            reader: Limited::new(reader, limit),
            offset: 0,
            content: 0,
            padding: 0,
            failed: None,
        }
    }

    /// The next member; nothing at the end, when all that follows has been read, too.
    ///
    /// The end is two records of zeros, or the end of the bytes where a header would be, as Go and GNU tar take it.
    pub(super) fn next(&mut self) -> Result<Option<Member>, MemberError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip(self.content + self.padding)?;
            (self.content, self.padding) = (0, 0);
            let offset = self.offset;
            let bad = |reason: &str| MemberError::Header {
                offset,
                reason: reason.to_owned(),
            };
            let Some(header) = self.header()? else {
                if extensions.is_empty() {
                    return Ok(None);
                }
                return Err(bad("an extended header belongs to no member"));
            };
            let raw = RawHeader::check(&header).map_err(|reason| bad(&reason))?;
            let size = raw.size().map_err(|reason| bad(&reason))?;
            match raw.flag() {
                b'x' | b'g' | b'L' | b'K' => {
                    let bytes = self.extended(size, offset)?;
                    extensions
                        .take(raw.flag(), bytes)
                        .map_err(|reason| bad(&reason))?;
                }
                _ => {
                    let member = raw
                        .member(offset, size, extensions)
                        .map_err(|reason| bad(&reason))?;
                    self.content = member.size;
                    self.padding = padding(member.size) as u64;
                    return Ok(Some(member));
                }
            }
        }
    }

    /// Reads the content of the member that [`next`](Self::next) gave last.
    pub(super) fn content(&mut self) -> Content<'_, 'r> {
        Content(self)
    }

    /// What was wrong with the archive when reading a content failed; nothing if it was something else.
    pub(super) fn failure(&mut self) -> Option<MemberError> {
        self.failed.take()
    }

    /// A header, or nothing at the end.
    fn header(&mut self) -> Result<Option<[u8; RECORD]>, MemberError> {
        let mut header = [0; RECORD];
        if !self.fill(&mut header)? {
            return Ok(None);
        }
        if header.iter().any(|byte| *byte != 0) {
            return Ok(Some(header));
        }
        let offset = self.offset;
        if self.fill(&mut header)? && header.iter().any(|byte| *byte != 0) {
            return Err(MemberError::Header {
                offset,
                reason: "a record of zeros stands alone before it".to_owned(),
            });
        }
        self.drain()?;
        Ok(None)
    }

    /// Fills the buffer; says no when there is nothing at all.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<bool, MemberError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..])? {
                0 if filled == 0 => return Ok(false),
                0 => {
                    return Err(MemberError::Short {
                        offset: self.offset,
                    });
                }
                count => filled += count,
            }
        }
        Ok(true)
    }

    fn extended(&mut self, size: u64, offset: u64) -> Result<Vec<u8>, MemberError> {
        let length = usize::try_from(size).ok();
        let Some(length) = length.filter(|length| *length <= EXTENDED_MAX) else {
            return Err(MemberError::Header {
                offset,
                reason: format!("an extended header of {size} bytes, more than {EXTENDED_MAX}"),
            });
        };
        let mut bytes = vec![0; length];
        if !self.fill(&mut bytes)? && size > 0 {
            return Err(MemberError::Short {
                offset: self.offset,
            });
        }
        self.padding = padding(size) as u64;
        Ok(bytes)
    }

    fn skip(&mut self, mut length: u64) -> Result<(), MemberError> {
        let mut buffer = [0; 4096];
        while length > 0 {
            let most = at_most(length, buffer.len());
            match self.read(&mut buffer[..most])? {
                0 => {
                    return Err(MemberError::Short {
                        offset: self.offset,
                    });
                }
                count => length -= count as u64,
            }
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<(), MemberError> {
        let mut buffer = [0; 4096];
        while self.read(&mut buffer)? > 0 {}
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, MemberError> {
        loop {
            match self.reader.read(buffer) {
                Ok(count) => {
                    self.offset += count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let limit = source.get_ref().and_then(|inner| inner.downcast_ref());
                    return Err(match limit {
                        Some(LimitError(limit)) => MemberError::Bytes(*limit),
                        None => MemberError::Read {
                            offset: self.offset,
                            source,
                        },
                    });
                }
            }
        }
    }
}

/// The content of one member, no byte more or less.
pub(super) struct Content<'m, 'r>(&'m mut Members<'r>);

impl Read for Content<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let members = &mut *self.0;
        let most = at_most(members.content, buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let result = match members.read(&mut buffer[..most]) {
            Ok(0) => Err(MemberError::Short {
                offset: members.offset,
            }),
            other => other,
        };
        match result {
            Ok(count) => {
                members.content -= count as u64;
                Ok(count)
            }
            Err(error) => {
                let told = io::Error::other(error.to_string());
                members.failed = Some(error);
                Err(told)
            }
        }
    }
}

/// What extended headers say about the next member.
#[derive(Default)]
struct Extensions {
    seen_pax: bool,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    dropped: Vec<Vec<u8>>,
}

impl Extensions {
    fn is_empty(&self) -> bool {
        !self.seen_pax && self.path.is_none() && self.link.is_none()
    }

    fn take(&mut self, flag: u8, bytes: Vec<u8>) -> Result<(), String> {
        match flag {
            b'L' => set_once(&mut self.path, long_name(bytes), "path"),
            b'K' => set_once(&mut self.link, long_name(bytes), "link"),
            b'x' if self.seen_pax => Err("two extended headers for one member".into()),
            b'x' => {
                self.seen_pax = true;
                records(&bytes)?
                    .into_iter()
                    .try_for_each(|(key, value)| self.record(key, value))
            }
            // Go ignores global headers and GNU tar does not, so they may only say what has no meaning.
            _ => {
                let mut global = Self::default();
                for (key, value) in records(&bytes)? {
                    global.record(key, value)?;
                }
                if global.says_something() {
                    return Err("a global extended header that changes members".into());
                }
                Ok(())
            }
        }
    }

    fn says_something(&self) -> bool {
        !self.is_empty()
            || self.size.is_some()
            || self.uid.is_some()
            || self.gid.is_some()
            || self.mtime.is_some()
            || !self.xattrs.is_empty()
            || !self.dropped.is_empty()
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        // POSIX: an empty value takes back what was said of this key before, which is nothing here. An attribute can be empty.
        if value.is_empty() && !key.starts_with(b"SCHILY.xattr.") {
            return Ok(());
        }
        match key {
            b"path" => set_once(&mut self.path, value.to_vec(), "path"),
            b"linkpath" => set_once(&mut self.link, value.to_vec(), "link"),
            b"size" => set_once(&mut self.size, decimal(key, value)?, "size"),
            b"uid" => set_once(&mut self.uid, decimal(key, value)?, "uid"),
            b"gid" => set_once(&mut self.gid, decimal(key, value)?, "gid"),
            b"mtime" => set_once(&mut self.mtime, time(value)?, "mtime"),
            _ if key.starts_with(b"GNU.sparse.") || key == b"SCHILY.realsize" => {
                Err("a sparse file, which is not supported".into())
            }
            _ if key.starts_with(b"SCHILY.acl.")
                || key.starts_with(b"RHT.security.")
                || key.starts_with(LIBARCHIVE)
                || key == b"SCHILY.fflags" =>
            {
                self.dropped.push(key.to_vec());
                Ok(())
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    if self.xattrs.iter().any(|(other, _)| other == name) {
                        return Err(format!("the attribute `{}` twice", shown(name)));
                    }
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
                // Comments, access times, names of owners, character sets.
                Ok(())
            }
        }
    }
}

fn set_once<T>(slot: &mut Option<T>, value: T, what: &str) -> Result<(), String> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("the {what} of one member twice")),
    }
}

/// A GNU long name, which ends with a NUL that is no part of it.
fn long_name(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    bytes
}

/// Key and value.
type Record<'a> = (&'a [u8], &'a [u8]);

/// The `<length> <key>=<value>\n` records of a pax header.
fn records(mut bytes: &[u8]) -> Result<Vec<Record<'_>>, String> {
    let bad = || "an extended record that is not `<length> <key>=<value>`".to_owned();
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let space = bytes
            .iter()
            .take(20)
            .position(|byte| *byte == b' ')
            .ok_or_else(bad)?;
        let length: usize = decimal(b"length", &bytes[..space])?;
        let record = bytes.get(..length).ok_or_else(bad)?;
        let body = record
            .get(space + 1..)
            .and_then(|body| body.strip_suffix(b"\n"))
            .ok_or_else(bad)?;
        let equals = body.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
        if equals == 0 {
            return Err(bad());
        }
        records.push((&body[..equals], &body[equals + 1..]));
        bytes = &bytes[length..];
    }
    Ok(records)
}

fn decimal<T: std::str::FromStr>(key: &[u8], value: &[u8]) -> Result<T, String> {
    let text = std::str::from_utf8(value).ok();
    text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("`{}` is no {}", shown(value), shown(key)))
}

/// A time in seconds with a fraction, of which nanoseconds are kept; what is left is cut off towards the past.
fn time(value: &[u8]) -> Result<(i64, u32), String> {
    let bad = || format!("`{}` is no time", shown(value));
    let (negative, digits) = match value.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, value),
    };
    let (whole, fraction) = match digits.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&digits[..dot], &digits[dot + 1..]),
        None => (digits, &b""[..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(bad());
    }
    let seconds: i64 = decimal(b"time", whole).map_err(|_| bad())?;
    let digit = |at: usize| fraction.get(at).map_or(0, |byte| u32::from(byte - b'0'));
    let nanoseconds = (0..9).fold(0, |sum, at| sum * 10 + digit(at));
    if !negative {
        return Ok((seconds, nanoseconds));
    }
    let beyond = fraction.iter().skip(9).any(|byte| *byte != b'0');
    match nanoseconds + u32::from(beyond) {
        0 => Ok((-seconds, 0)),
        back => Ok((-seconds - 1, 1_000_000_000 - back)),
    }
}

/// Bytes from an archive, for a message.
pub(super) fn shown(bytes: &[u8]) -> String {
    let mut text = String::new();
    escape(bytes, &mut text).expect("a string takes everything");
    text
}

/// Which fields a header has beyond those of v7.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    V7,
    Ustar,
    /// `ustar` with a shorter prefix and times behind it, by Schilling's star.
    Star,
    Gnu,
}

/// A header whose checksum is right.
struct RawHeader<'a>(&'a [u8; RECORD], Form);

impl<'a> RawHeader<'a> {
    fn check(header: &'a [u8; RECORD]) -> Result<Self, String> {
        let field = 148..156;
        let outside = |at: usize| !(148..156).contains(&at);
        let bytes = header.iter().enumerate();
        let bytes = bytes.map(|(at, byte)| if outside(at) { *byte } else { b' ' });
        // Some old programs summed signed bytes.
        let (mut unsigned, mut signed) = (0_i64, 0_i64);
        for byte in bytes {
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        let told = number("checksum", &header[field])?;
        if told != unsigned && told != signed {
            return Err("its checksum is wrong".into());
        }
        let form = match &header[257..265] {
            b"ustar  \0" => Form::Gnu,
            [b'u', b's', b't', b'a', b'r', 0, ..] if &header[508..512] == b"tar\0" => Form::Star,
            [b'u', b's', b't', b'a', b'r', 0, ..] => Form::Ustar,
            _ => Form::V7,
        };
        Ok(Self(header, form))
    }

    fn flag(&self) -> u8 {
        self.0[156]
    }

    fn size(&self) -> Result<u64, String> {
        unsigned("size", &self.0[124..136])
    }

    fn member(self, offset: u64, size: u64, extensions: Extensions) -> Result<Member, String> {
        let Self(header, form) = self;
        let path = extensions.path.unwrap_or_else(|| self.path());
        let kind = match header[156] {
            // Before ustar a directory was a file with a slash behind its name.
            0 | b'0' | b'7' if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'S' => return Err("a sparse file, which is not supported".into()),
            other => return Err(format!("type `{}` is not supported", shown(&[other]))),
        };
        let size = extensions.size.unwrap_or(size);
        if kind != Kind::File && size != 0 {
            // Some readers skip such content and some read headers in it.
            return Err(format!(
                "`{}` is no file and has {size} bytes",
                shown(&path)
            ));
        }
        let has_numbers = form != Form::V7 && matches!(kind, Kind::Char | Kind::Block);
        let device = if has_numbers {
            (
                unsigned("major number", &header[329..337])?,
                unsigned("minor number", &header[337..345])?,
            )
        } else {
            (0, 0)
        };
        let id =
            |told: Option<u32>, what: &str, field| told.map_or_else(|| unsigned(what, field), Ok);
        let mut dropped = extensions.dropped;
        // libarchive writes each attribute in both ways.
        dropped.retain(|key| {
            let name = key.strip_prefix(LIBARCHIVE);
            !extensions
                .xattrs
                .iter()
                .any(|(other, _)| Some(&other[..]) == name)
        });
        Ok(Member {
            offset,
            kind,
            link: extensions.link.unwrap_or_else(|| text(&header[157..257])),
            // Some programs write the whole `st_mode`.
            mode: unsigned::<u32>("mode", &header[100..108])? & 0o7777,
            uid: id(extensions.uid, "uid", &header[108..116])?,
            gid: id(extensions.gid, "gid", &header[116..124])?,
            mtime: match extensions.mtime {
                Some(mtime) => mtime,
                None => (number("mtime", &header[136..148])?, 0),
            },
            size,
            device,
            path,
            xattrs: extensions.xattrs,
            dropped,
        })
    }

    fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = match self.1 {
            Form::Ustar => text(&self.0[345..500]),
            Form::Star => text(&self.0[345..476]),
            Form::V7 | Form::Gnu => Vec::new(),
        };
        if prefix.is_empty() {
            name
        } else {
            [&prefix[..], b"/", &name[..]].concat()
        }
    }
}

/// A text field: up to its first NUL, or all of it.
fn text(field: &[u8]) -> Vec<u8> {
    field
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default()
        .to_vec()
}

fn unsigned<T: TryFrom<i64>>(what: &str, field: &[u8]) -> Result<T, String> {
    let value = number(what, field)?;
    T::try_from(value).map_err(|_| format!("its {what} is {value}"))
}

/// A number: octal digits with spaces in front and spaces or NULs behind, none for 0; or GNU's base-256, two's complement
/// behind a set first bit.
fn number(what: &str, field: &[u8]) -> Result<i64, String> {
    let bad = || format!("its {what} is no number");
    if let [first @ (0x80 | 0xff), rest @ ..] = field {
        let negative = *first == 0xff;
        let fill = if negative { 0xff } else { 0 };
        let (high, low) = rest.split_at(rest.len().saturating_sub(8));
        let mut bytes = [fill; 8];
        bytes[8 - low.len()..].copy_from_slice(low);
        let value = i64::from_be_bytes(bytes);
        if high.iter().any(|byte| *byte != fill) || (value < 0) != negative {
            return Err(bad());
        }
        return Ok(value);
    }
    let digits = field.trim_ascii_start();
    let end = digits
        .iter()
        .position(|byte| matches!(byte, 0 | b' '))
        .unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    let octal = digits.iter().all(|digit| matches!(digit, b'0'..=b'7'));
    if !octal || rest.iter().any(|byte| !matches!(byte, 0 | b' ')) {
        return Err(bad());
    }
    // At most twelve digits, 36 bits.
    let value = |sum, digit: &u8| sum * 8 + i64::from(digit - b'0');
    Ok(digits.iter().fold(0, value))
}
