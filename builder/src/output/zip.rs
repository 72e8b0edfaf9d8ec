//! The bytes of a zip: every field of every record, as APPNOTE 6.3.10 names it. (Section numbers are those of that document.)
//!
//! Times, order, compression and attributes are given; nothing is read from the machine. Sizes and checksums stand in front of the
//! content, so there is no data descriptor, and a reader that begins at the front sees what one that begins at the end sees.

use std::io::{self, Write};

use crate::epoch::Epoch;

/// 4.4.2: the upper byte says whose attributes those of an entry are, 3 being UNIX; the lower one the version of this document, 2.0.
const MADE_BY: u16 = 0x0300 | 0x14;
/// 4.4.3.2: what a reader must know for a stored file; for a directory, or deflated; for zip64.
const NEEDED: [u16; 3] = [10, 20, 45];
/// 4.4.4: bit 11, the name is UTF-8.
const FLAG_UTF8: u16 = 1 << 11;
/// 4.4.5
const STORED: u16 = 0;
/// 4.4.5
const DEFLATED: u16 = 8;
/// Of MS-DOS, in the low byte of the external attributes (4.4.15): programs that do not know UNIX see a directory by it.
const DOS_DIRECTORY: u32 = 0x10;
/// 4.4.1.4: a number that stands in a zip64 field instead.
const IN_ZIP64: u32 = u32::MAX;

/// The type bits of `st_mode` (POSIX, `<sys/stat.h>`), in the high half of the external attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    File = 0o100_000,
    Directory = 0o040_000,
    Symlink = 0o120_000,
}

/// What an entry is, without its content.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member<'a> {
    /// Its path below the root, without a slash in front; that behind a directory's is added.
    pub(super) name: &'a str,
    pub(super) kind: Type,
    /// The twelve bits.
    pub(super) mode: u32,
}

/// The content of an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content<'a> {
    pub(super) crc: u32,
    /// Its length.
    pub(super) size: u32,
    /// What stands for it.
    pub(super) bytes: &'a [u8],
    /// Is that its deflated form?
    pub(super) deflated: bool,
}

impl Content<'_> {
    const NOTHING: Self = Self {
        crc: 0,
        size: 0,
        bytes: &[],
        deflated: false,
    };
}

/// Writes members one after the other, in the order given.
#[derive(Debug)]
pub(super) struct Zip<W> {
    out: W,
    /// MS-DOS time and date (4.4.6), the same for all.
    time: (u16, u16),
    /// The central directory so far.
    central: Vec<u8>,
    members: u64,
    offset: u64,
}

impl<W: Write> Zip<W> {
    pub(super) fn new(out: W, epoch: Epoch) -> Self {
        Self {
            out,
            time: dos_time(epoch),
            central: Vec::new(),
            members: 0,
            offset: 0,
        }
    }

    pub(super) fn directory(&mut self, name: &str, mode: u32) -> io::Result<()> {
        let member = Member {
            name,
            kind: Type::Directory,
            mode,
        };
        self.member(member, Content::NOTHING)
    }

    /// A file or link with its content.
    pub(super) fn member(&mut self, member: Member<'_>, content: Content<'_>) -> io::Result<()> {
        let slash = if member.kind == Type::Directory {
            "/"
        } else {
            ""
        };
        let name = format!("{}{slash}", member.name);
        let name_length = u16::try_from(name.len()).map_err(io::Error::other)?;
        let stored = u32::try_from(content.bytes.len()).map_err(io::Error::other)?;
        let external = (member.kind as u32 | member.mode) << 16
            | if slash.is_empty() { 0 } else { DOS_DIRECTORY };
        let flags = if name.is_ascii() { 0 } else { FLAG_UTF8 };
        let (method, needed) = match (content.deflated, member.kind) {
            (true, _) => (DEFLATED, NEEDED[1]),
            (false, Type::Directory) => (STORED, NEEDED[1]),
            (false, _) => (STORED, NEEDED[0]),
        };

        // What the two headers of a member have in common, from "general purpose bit flag" to "file name length".
        let mut common = Vec::new();
        common.extend(flags.to_le_bytes());
        common.extend(method.to_le_bytes());
        common.extend(self.time.0.to_le_bytes());
        common.extend(self.time.1.to_le_bytes());
        common.extend(content.crc.to_le_bytes());
        common.extend(stored.to_le_bytes());
        common.extend(content.size.to_le_bytes());
        common.extend(name_length.to_le_bytes());

        // 4.3.7: signature, version needed, the above, extra field length.
        let mut local = b"PK\x03\x04".to_vec();
        local.extend(needed.to_le_bytes());
        local.extend(&common);
        local.extend(0_u16.to_le_bytes());
        local.extend(name.as_bytes());

        // 4.5.3: only what does not fit, here the offset, has a place in the zip64 field.
        let (offset, extra, needed) = match u32::try_from(self.offset) {
            Ok(offset) if offset != IN_ZIP64 => (offset, Vec::new(), needed),
            _ => {
                let mut extra = Vec::new();
                extra.extend(1_u16.to_le_bytes());
                extra.extend(8_u16.to_le_bytes());
                extra.extend(self.offset.to_le_bytes());
                (IN_ZIP64, extra, NEEDED[2])
            }
        };
        // 4.3.12: signature, version made by, version needed, the above, lengths of extra field and comment, disk, internal
        // attributes, external attributes, offset of the local header.
        let central = &mut self.central;
        central.extend(b"PK\x01\x02");
        central.extend(MADE_BY.to_le_bytes());
        central.extend(needed.to_le_bytes());
        central.extend(&common);
        central.extend(u16::try_from(extra.len()).expect("12 bytes").to_le_bytes());
        central.extend([0; 6]);
        central.extend(external.to_le_bytes());
        central.extend(offset.to_le_bytes());
        central.extend(name.as_bytes());
        central.extend(&extra);

        self.out.write_all(&local)?;
        self.out.write_all(content.bytes)?;
        self.offset += (local.len() + content.bytes.len()) as u64;
        self.members += 1;
        Ok(())
    }

    /// Writes the central directory and what comes after it. Gives the length of the whole.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        self.out.write_all(&self.central)?;
        let end = end(self.members, self.central.len() as u64, self.offset);
        self.out.write_all(&end)?;
        Ok(self.offset + (self.central.len() + end.len()) as u64)
    }
}

/// The records behind the central directory: those of zip64 when a number does not fit in the old one.
fn end(members: u64, size: u64, offset: u64) -> Vec<u8> {
    let short = u16::try_from(members).ok().filter(|it| *it != u16::MAX);
    let fits = |number: u64| u32::try_from(number).ok().filter(|it| *it != IN_ZIP64);
    let mut end = Vec::new();
    if short.is_none() || fits(size).is_none() || fits(offset).is_none() {
        // 4.3.14: signature, length of the rest, versions, disks, members twice, size and offset of the central directory.
        end.extend(b"PK\x06\x06");
        end.extend(44_u64.to_le_bytes());
        end.extend((3 << 8 | NEEDED[2]).to_le_bytes());
        end.extend(NEEDED[2].to_le_bytes());
        end.extend([0; 8]);
        for number in [members, members, size, offset] {
            end.extend(number.to_le_bytes());
        }
        // 4.3.15: signature, disk, offset of the record above, number of disks.
        end.extend(b"PK\x06\x07");
        end.extend(0_u32.to_le_bytes());
        end.extend((offset + size).to_le_bytes());
        end.extend(1_u32.to_le_bytes());
    }
    // 4.3.16: signature, disks, members twice, size and offset of the central directory, length of the comment.
    end.extend(b"PK\x05\x06");
    end.extend([0; 4]);
    for _ in 0..2 {
        end.extend(short.unwrap_or(u16::MAX).to_le_bytes());
    }
    end.extend(fits(size).unwrap_or(IN_ZIP64).to_le_bytes());
    end.extend(fits(offset).unwrap_or(IN_ZIP64).to_le_bytes());
    end.extend(0_u16.to_le_bytes());
    end
}

/// Where hours, minutes and half seconds stand in a time of MS-DOS.
const TIME: [u32; 3] = [11, 5, 0];
/// Where years since 1980, months and days stand in a date.
const DATE: [u32; 3] = [9, 5, 0];

fn packed(numbers: [u16; 3], places: [u32; 3]) -> u16 {
    let parts = numbers.into_iter().zip(places);
    parts.fold(0, |all, (number, place)| all | number << place)
}

/// Time and date of MS-DOS (4.4.6): from 1980 to 2107, in steps of two seconds. What lies outside is the first or last of them.
fn dos_time(epoch: Epoch) -> (u16, u16) {
    let (year, month, day) = epoch.date();
    let second = epoch.seconds() % 86_400;
    let of = |number: i64| u16::try_from(number).expect("a part of a date or time");
    match year {
        ..1980 => (0, packed([0, 1, 1], DATE)),
        2108.. => (packed([23, 59, 29], TIME), packed([127, 12, 31], DATE)),
        _ => (
            packed(
                [of(second / 3600), of(second / 60 % 60), of(second % 60 / 2)],
                TIME,
            ),
            packed([of(year - 1980), of(month), of(day)], DATE),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_the_one_of_ms_dos() {
        let of = |text: &str| dos_time(text.parse().expect("a time"));
        assert_eq!(of("1979-12-31T23:59:59Z"), (0, 0x0021));
        assert_eq!(of("1980-01-01T00:00:00Z"), (0, 0x0021));
        assert_eq!(of("2026-11-21T00:53:03Z"), (0x06a1, 0x5d75));
        assert_eq!(of("2107-12-31T23:59:59Z"), (0xbf7d, 0xff9f));
        assert_eq!(of("2108-01-01T00:00:00Z"), (0xbf7d, 0xff9f));
    }

    #[test]
    fn every_byte_is_the_one_of_the_document() {
        let mut out = Vec::new();
        let mut zip = Zip::new(&mut out, Epoch::DEFAULT);
        zip.directory("\u{e9}", 0o755).expect("written");
        let member = Member {
            name: "a",
            kind: Type::File,
            mode: 0o4755,
        };
        let content = Content {
            crc: crate::layer::crc32(b"hi"),
            size: 2,
            bytes: b"hi",
            deflated: false,
        };
        zip.member(member, content).expect("written");
        let length = zip.finish().expect("written");
        assert_eq!(length, out.len() as u64);
        let expected = [
            &b"PK\x03\x04\x14\0\0\x08\0\0\0\0\x21\x50"[..],
            b"\0\0\0\0\0\0\0\0\0\0\0\0\x03\0\0\0\xc3\xa9/",
            b"PK\x03\x04\x0a\0\0\0\0\0\0\0\x21\x50",
            b"\xac\x2a\x93\xd8\x02\0\0\0\x02\0\0\0\x01\0\0\0ahi",
            b"PK\x01\x02\x14\x03\x14\0\0\x08\0\0\0\0\x21\x50",
            b"\0\0\0\0\0\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\0\0\x10\0\xed\x41\0\0\0\0\xc3\xa9/",
            b"PK\x01\x02\x14\x03\x0a\0\0\0\0\0\0\0\x21\x50",
            b"\xac\x2a\x93\xd8\x02\0\0\0\x02\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\xed\x89\x21\0\0\0a",
            b"PK\x05\x06\0\0\0\0\x02\0\x02\0\x60\0\0\0\x42\0\0\0\0\0",
        ]
        .concat();
        assert_eq!(out, expected, "{}", out.escape_ascii());
    }

    #[test]
    fn zip64_is_there_only_where_a_number_does_not_fit() {
        assert_eq!(end(65_534, 1, 2).len(), 22);
        for (members, size, offset) in [
            (65_535, 1, 2),
            (1, u64::from(u32::MAX), 2),
            (1, 1, u64::from(u32::MAX)),
        ] {
            let end = end(members, size, offset);
            assert_eq!(end.len(), 56 + 20 + 22);
            let number = |at: usize| u64::from_le_bytes(end[at..at + 8].try_into().expect("8"));
            assert_eq!(
                [number(24), number(32), number(40), number(48), number(64)],
                [members, members, size, offset, offset + size]
            );
        }
        let mut zip = Zip::new(Vec::new(), Epoch::DEFAULT);
        zip.offset = 5 << 30;
        zip.directory("a", 0o755).expect("written");
        let extra = zip.central.len() - 12;
        assert_eq!(&zip.central[extra..], b"\x01\0\x08\0\0\0\0\x40\x01\0\0\0");
        assert_eq!(&zip.central[42..46], [0xff; 4]);
    }
}
