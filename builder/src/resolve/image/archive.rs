//! The table of contents of a tar: which name is where. Reads headers only, so an archive of gigabytes is opened at once.
//!
//! Ustar, PAX (`path`, `linkpath`, `size`) and GNU (long names, base 256); links are names for other members.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::Extent;

const BLOCK: usize = 512;
/// Most members that are looked at. An image has a few hundred.
const MAX_MEMBERS: usize = 100_000;
/// Longest extended header, in bytes.
const MAX_EXTENDED: u64 = 1 << 20;
/// Longest chain of links.
const MAX_LINKS: usize = 8;

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file cannot be read.
    #[error("reading failed")]
    Io(#[from] io::Error),
    /// It is compressed as a whole.
    #[error("it is compressed: decompress it first")]
    Compressed,
    /// A header is none.
    #[error("at byte {0} there is no tar header")]
    Header(u64),
    /// More members than an image can have.
    #[error("it has more than {MAX_MEMBERS} members")]
    Members,
    /// A member ends behind the end of the file.
    #[error("it is cut short: `{0}` ends behind its end")]
    Short(String),
    /// One name, two contents.
    #[error("`{0}` is in it twice")]
    Twice(String),
}

/// Names and where their bytes are.
#[derive(Debug, Default)]
pub(super) struct Archive {
    files: BTreeMap<String, Extent>,
    links: BTreeMap<String, String>,
}

impl Archive {
    /// Reads all headers.
    pub(super) fn scan(file: &File) -> Result<Self, ArchiveError> {
        let length = file.metadata()?.len();
        let mut archive = Self::default();
        let mut next = Overrides::default();
        let mut at = 0;
        for _ in 0..MAX_MEMBERS {
            if at + BLOCK as u64 > length {
                // Some writers leave the two zero blocks out.
                return if at == length && at > 0 {
                    Ok(archive)
                } else {
                    Err(ArchiveError::Header(at))
                };
            }
            let mut block = [0; BLOCK];
            file.read_exact_at(&mut block, at)?;
            if block == [0; BLOCK] {
                return Ok(archive);
            }
            let header = Header(&block);
            if !header.is_sound() {
                return Err(match (at, &block[..4]) {
                    (0, [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd] | b"\xfd7zX" | b"BZh9") => {
                        ArchiveError::Compressed
                    }
                    _ => ArchiveError::Header(at),
                });
            }
            let stated = header.size().ok_or(ArchiveError::Header(at))?;
            let extended = matches!(header.flag(), b'x' | b'g' | b'L' | b'K');
            let size = next.size.filter(|_| !extended).unwrap_or(stated);
            let data = at + BLOCK as u64;
            let padded = size
                .checked_next_multiple_of(BLOCK as u64)
                .and_then(|padded| data.checked_add(padded))
                .ok_or(ArchiveError::Header(at))?;
            if data + size > length {
                return Err(ArchiveError::Short(next.name.unwrap_or(header.name())));
            }
            if extended {
                if size > MAX_EXTENDED {
                    return Err(ArchiveError::Header(at));
                }
                let mut bytes = vec![0; usize::try_from(size).expect("at most a mebibyte")];
                file.read_exact_at(&mut bytes, data)?;
                next.take(header.flag(), &bytes)
                    .ok_or(ArchiveError::Header(at))?;
            } else {
                let extent = Extent { offset: data, size };
                archive.add(&header, std::mem::take(&mut next), extent)?;
            }
            at = padded;
        }
        Err(ArchiveError::Members)
    }

    fn add(
        &mut self,
        header: &Header<'_>,
        overrides: Overrides,
        extent: Extent,
    ) -> Result<(), ArchiveError> {
        let name = clean(&overrides.name.unwrap_or_else(|| header.name()));
        let is_new = match header.flag() {
            b'0' | 0 | b'7' => self.files.insert(name.clone(), extent).is_none(),
            kind @ (b'1' | b'2') => {
                let target = overrides.link.unwrap_or_else(|| header.link());
                let target = match (kind, name.rsplit_once('/')) {
                    // A symbolic link starts in its own directory, a hard link at the root.
                    (b'2', Some((parent, _))) if !target.starts_with('/') => {
                        format!("{parent}/{target}")
                    }
                    _ => target,
                };
                self.links.insert(name.clone(), clean(&target)).is_none()
            }
            _ => return Ok(()),
        };
        if is_new {
            Ok(())
        } else {
            Err(ArchiveError::Twice(name))
        }
    }

    /// Where the bytes of a member are; links are followed.
    pub(super) fn get(&self, name: &str) -> Option<Extent> {
        let mut name = clean(name);
        for _ in 0..MAX_LINKS {
            if let Some(extent) = self.files.get(&name) {
                return Some(*extent);
            }
            name = self.links.get(&name)?.clone();
        }
        None
    }

    /// The members below a directory (given with a slash at its end), by the rest of their names.
    pub(super) fn below<'a>(
        &'a self,
        directory: &'a str,
    ) -> impl Iterator<Item = (&'a str, Extent)> {
        self.files.iter().filter_map(move |(name, extent)| {
            name.strip_prefix(directory).map(|rest| (rest, *extent))
        })
    }
}

/// A name without `.`, `..` and empty parts: names are only compared, never opened.
fn clean(name: &str) -> String {
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => (),
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// What extended headers say about the next member.
#[derive(Default)]
struct Overrides {
    name: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

impl Overrides {
    fn take(&mut self, flag: u8, bytes: &[u8]) -> Option<()> {
        match flag {
            b'L' => self.name = Some(text(bytes)),
            b'K' => self.link = Some(text(bytes)),
            b'x' => self.take_pax(bytes)?,
            // A global header says nothing that we ask for.
            _ => (),
        }
        Some(())
    }

    /// Records `LENGTH key=value\n` (POSIX.1-2001, pax, "Extended Header").
    fn take_pax(&mut self, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() {
            let space = bytes.iter().position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
            let (record, rest) = bytes.split_at_checked(length)?;
            let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            let value = text(&record[equals + 1..]);
            match &record[..equals] {
                b"path" => self.name = Some(value),
                b"linkpath" => self.link = Some(value),
                b"size" => self.size = Some(value.parse().ok()?),
                _ => (),
            }
            bytes = rest;
        }
        Some(())
    }
}

struct Header<'a>(&'a [u8; BLOCK]);

impl Header<'_> {
    fn flag(&self) -> u8 {
        self.0[156]
    }

    fn name(&self) -> String {
        let name = text(&self.0[..100]);
        let prefix = text(&self.0[345..500]);
        // GNU's own magic (`ustar  `) has other fields where ustar has its prefix.
        if &self.0[257..263] != b"ustar\0" || prefix.is_empty() {
            name
        } else {
            format!("{prefix}/{name}")
        }
    }

    fn link(&self) -> String {
        text(&self.0[157..257])
    }

    fn size(&self) -> Option<u64> {
        number(&self.0[124..136])
    }

    fn is_sound(&self) -> bool {
        let sum: u64 = (0..)
            .zip(self.0)
            .map(|(at, byte)| match at {
                148..156 => u64::from(b' '),
                _ => u64::from(*byte),
            })
            .sum();
        number(&self.0[148..156]) == Some(sum)
    }
}

/// Octal digits, or base 256.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let (high, low) = field.split_at(field.len() - 8);
        let fits = high.iter().enumerate().all(|(at, byte)| match at {
            0 => *byte == 0x80,
            _ => *byte == 0,
        });
        return fits.then(|| {
            low.iter()
                .fold(0, |value, byte| value << 8 | u64::from(*byte))
        });
    }
    let digits = text(field);
    let digits = digits.trim_matches(' ');
    if digits.is_empty() {
        return Some(0);
    }
    u64::from_str_radix(digits, 8).ok()
}

/// The bytes up to a NUL.
fn text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_never_leave_the_archive() {
        assert_eq!(clean("./a//b/../c"), "a/c");
        assert_eq!(clean("../../etc/passwd"), "etc/passwd");
        assert_eq!(clean("/a"), "a");
    }

    #[test]
    fn pax_records_are_read_and_torn_ones_refused() {
        let mut next = Overrides::default();
        assert!(
            next.take(b'x', b"11 path=ab\n12 size=123\n20 mtime=1234567890\n")
                .is_some()
        );
        assert_eq!((next.name.as_deref(), next.size), (Some("ab"), Some(123)));
        for torn in [&b"99 path=ab\n"[..], b"path=ab\n", b"11 path=abc", b"3 a"] {
            assert!(Overrides::default().take(b'x', torn).is_none());
        }
    }

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"00000000017\0"), Some(15));
        assert_eq!(number(b"        17 \0"), Some(15));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(
            number(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]),
            Some(1 << 33)
        );
        assert_eq!(number(&[0xff; 12]), None);
        assert_eq!(number(b"0000000008\0\0"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_field_of_a_header_makes_the_scan_panic_or_read_behind_the_end(
            at in 0_usize..157,
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 1..24),
            flag in proptest::sample::select(&b"01257xgLKS"[..]),
        ) {
            let mut block = [0; BLOCK];
            block[..4].copy_from_slice(b"name");
            block[124..136].copy_from_slice(b"00000000010\0");
            block[at..at + bytes.len()].copy_from_slice(&bytes);
            block[156] = flag;
            block[148..156].fill(b' ');
            let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
            block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            let mut file = tempfile::tempfile().expect("made");
            io::Write::write_all(&mut file, &[&block[..], &[0; 2 * BLOCK]].concat()).expect("written");
            if let Ok(archive) = Archive::scan(&file) {
                for extent in archive.files.values() {
                    proptest::prop_assert!(extent.offset + extent.size <= 3 * BLOCK as u64);
                }
            }
        }
    }
}
