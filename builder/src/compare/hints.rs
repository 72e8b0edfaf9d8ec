//! What the bytes of two files that should be one give away: times and ids that programs put into what they write.

/// Something known to make files differ, found in both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// The time in a gzip header (RFC 1952, `MTIME`), in seconds since 1970.
    GzipTime {
        /// On the left.
        left: u32,
        /// On the right.
        right: u32,
    },
    /// The source's time in a Python byte code header (PEP 552), in seconds since 1970.
    PycTime {
        /// On the left.
        left: u32,
        /// On the right.
        right: u32,
    },
    /// The build id in an ELF file (note `NT_GNU_BUILD_ID`), in hex.
    BuildId {
        /// On the left.
        left: String,
        /// On the right.
        right: String,
    },
    /// The time of an entry of a zip file.
    ZipTime {
        /// The entry's name.
        entry: String,
        /// On the left, as `2026-11-21 00:53:02`.
        left: String,
        /// On the right.
        right: String,
    },
    /// A date or time of day written as text.
    DateText {
        /// Where it is on the left, in bytes from the start.
        offset: usize,
        /// On the left.
        left: String,
        /// On the right.
        right: String,
    },
}

/// Looks for known causes of the difference between two files.
pub fn hints(left: &[u8], right: &[u8]) -> Vec<Hint> {
    [
        gzip_time(left, right),
        pyc_time(left, right),
        build_id(left, right),
        zip_time(left, right),
        date_text(left, right),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn differing<T: PartialEq>(left: Option<T>, right: Option<T>) -> Option<(T, T)> {
    left.zip(right).filter(|(left, right)| left != right)
}

fn gzip_time(left: &[u8], right: &[u8]) -> Option<Hint> {
    let time = |bytes: &[u8]| {
        bytes
            .starts_with(&[0x1f, 0x8b, 8])
            .then(|| u32_at(bytes, 4))
            .flatten()
    };
    differing(time(left), time(right)).map(|(left, right)| Hint::GzipTime { left, right })
}

fn pyc_time(left: &[u8], right: &[u8]) -> Option<Hint> {
    // Magic number, `\r\n`, flags (0: the source is known by time and size), time, size.
    let time = |bytes: &[u8]| {
        let by_time = bytes.get(2..4)? == b"\r\n" && u32_at(bytes, 4)? == 0;
        by_time.then(|| u32_at(bytes, 8)).flatten()
    };
    differing(time(left), time(right)).map(|(left, right)| Hint::PycTime { left, right })
}

fn build_id(left: &[u8], right: &[u8]) -> Option<Hint> {
    let id = |bytes: &[u8]| {
        if !bytes.starts_with(b"\x7fELF") {
            return None;
        }
        // The note: length of name (4), length of id, type 3, `GNU\0`, id; each number in the file's own byte order.
        let number = |bytes: &[u8]| -> Option<u32> {
            let raw: [u8; 4] = bytes.try_into().ok()?;
            Some(if raw[0] == 0 {
                u32::from_be_bytes(raw)
            } else {
                u32::from_le_bytes(raw)
            })
        };
        bytes.windows(16).enumerate().find_map(|(at, note)| {
            let is_note = &note[12..] == b"GNU\0"
                && number(&note[..4]) == Some(4)
                && number(&note[8..12]) == Some(3);
            let length = number(&note[4..8]).filter(|length| is_note && *length <= 64)?;
            let id = bytes.get(at + 16..at + 16 + length as usize)?;
            Some(
                id.iter()
                    .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}")),
            )
        })
    };
    differing::<String>(id(left), id(right)).map(|(left, right)| Hint::BuildId { left, right })
}

fn zip_time(left: &[u8], right: &[u8]) -> Option<Hint> {
    let (left, right) = (zip_times(left)?, zip_times(right)?);
    left.into_iter()
        .zip(right)
        .find(|(left, right)| left.0 == right.0 && left.1 != right.1)
        .map(|(left, right)| Hint::ZipTime {
            entry: left.0,
            left: dos_time(left.1),
            right: dos_time(right.1),
        })
}

/// Name and time of each entry (APPNOTE.TXT 4.3.12, central directory header).
fn zip_times(bytes: &[u8]) -> Option<Vec<(String, u32)>> {
    /// Length of an end record with the longest comment.
    const END: usize = 22 + 65_535;
    let tail = bytes.len().saturating_sub(END);
    let end = tail
        + bytes[tail..]
            .windows(4)
            .rposition(|four| four == b"PK\x05\x06")?;
    let count = u16_at(bytes, end + 10)?;
    let mut at = u32_at(bytes, end + 16)? as usize;
    let mut times = Vec::new();
    for _ in 0..count {
        if bytes.get(at..at.checked_add(4)?)? != b"PK\x01\x02" {
            return None;
        }
        let lengths = [28, 30, 32].map(|field| u16_at(bytes, at + field).map(usize::from));
        let [name, extra, comment] = [lengths[0]?, lengths[1]?, lengths[2]?];
        let text = String::from_utf8_lossy(bytes.get(at + 46..at + 46 + name)?);
        times.push((text.into_owned(), u32_at(bytes, at + 12)?));
        at += 46 + name + extra + comment;
    }
    Some(times)
}

/// Time in the low half, date in the high half, seconds by twos, years from 1980.
fn dos_time(bits: u32) -> String {
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        1980 + (bits >> 25),
        bits >> 21 & 15,
        bits >> 16 & 31,
        bits >> 11 & 31,
        bits >> 5 & 63,
        (bits & 31) * 2
    )
}

/// Dates and times as `cc`, `date` and logs write them: `0` is a digit, `a` a letter, `_` a digit or space.
const SHAPES: [&[u8]; 4] = [b"0000-00-00", b"aaa _0 0000", b"00:00:00", b"0000/00/00"];

/// A date or time at the first byte that differs.
fn date_text(left: &[u8], right: &[u8]) -> Option<Hint> {
    let first = left
        .iter()
        .zip(right)
        .position(|(left, right)| left != right)?;
    let found = SHAPES.iter().find_map(|shape| {
        let from = first.saturating_sub(shape.len() - 1);
        (from..=first).find_map(|at| {
            let text = |bytes: &[u8]| {
                let bytes = bytes.get(at..at + shape.len())?;
                let fits = bytes.iter().zip(*shape).all(|(byte, shape)| match shape {
                    b'0' => byte.is_ascii_digit(),
                    b'_' => byte.is_ascii_digit() || *byte == b' ',
                    b'a' => byte.is_ascii_alphabetic(),
                    other => byte == other,
                });
                fits.then(|| String::from_utf8_lossy(bytes).into_owned())
            };
            Some((at, text(left)?, text(right)?))
        })
    });
    found.map(|(offset, left, right)| Hint::DateText {
        offset,
        left,
        right,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gzip_header_tells_its_time() {
        let file =
            |time: u32| [&[0x1f, 0x8b, 8, 0][..], &time.to_le_bytes(), b"\0\x03rest"].concat();
        assert_eq!(
            hints(&file(1), &file(2)),
            [Hint::GzipTime { left: 1, right: 2 }]
        );
        assert_eq!(hints(&file(1), b"\x1f\x8b"), []);
    }

    #[test]
    fn python_byte_code_tells_its_time_unless_it_is_by_hash() {
        let file = |flags: u32, time: u32| {
            [
                &b"\xa7\x0d\r\n"[..],
                &flags.to_le_bytes(),
                &time.to_le_bytes(),
                b"size",
            ]
            .concat()
        };
        assert_eq!(
            hints(&file(0, 5), &file(0, 6)),
            [Hint::PycTime { left: 5, right: 6 }]
        );
        assert_eq!(hints(&file(1, 5), &file(1, 6)), []);
    }

    #[test]
    fn an_elf_file_tells_its_build_id() {
        let file = |id: u8| {
            [
                &b"\x7fELF padding"[..],
                &[4, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0],
                b"GNU\0",
                &[0xab, id],
            ]
            .concat()
        };
        assert_eq!(
            hints(&file(1), &file(2)),
            [Hint::BuildId {
                left: "ab01".into(),
                right: "ab02".into()
            }]
        );
    }

    #[test]
    fn a_zip_file_tells_the_time_of_its_entries() {
        let file = |seconds: u16| {
            let mut bytes = b"PK\x01\x02".to_vec();
            bytes.resize(12, 0);
            bytes.extend((seconds / 2).to_le_bytes());
            bytes.extend(((0x2e_u16 << 9) | (0x0b << 5) | 0x15).to_le_bytes());
            bytes.resize(28, 0);
            bytes.extend(1_u16.to_le_bytes());
            bytes.resize(46, 0);
            bytes.push(b'a');
            bytes.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
            bytes.extend(47_u32.to_le_bytes());
            bytes.extend(0_u32.to_le_bytes());
            bytes.extend([0, 0]);
            bytes
        };
        assert_eq!(
            hints(&file(2), &file(4)),
            [Hint::ZipTime {
                entry: "a".into(),
                left: "2026-11-21 00:00:02".into(),
                right: "2026-11-21 00:00:04".into()
            }]
        );
    }

    #[test]
    fn dates_in_text_are_seen_where_the_files_begin_to_differ() {
        for (left, right, offset, one, other) in [
            (
                "built 2026-11-21 by",
                "built 2026-11-22 by",
                6,
                "2026-11-21",
                "2026-11-22",
            ),
            (
                "at Nov 21 2026",
                "at Dec  1 2026",
                3,
                "Nov 21 2026",
                "Dec  1 2026",
            ),
            ("12:00:01", "12:00:09", 0, "12:00:01", "12:00:09"),
        ] {
            assert_eq!(
                hints(left.as_bytes(), right.as_bytes()),
                [Hint::DateText {
                    offset,
                    left: one.into(),
                    right: other.into()
                }]
            );
        }
        assert_eq!(hints(b"version 1", b"version 2"), []);
    }
}
