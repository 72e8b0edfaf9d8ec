//! The tar dialect of `immbuild = 1`: one exact header for every entry.
//!
//! POSIX.1-2017, pax: a ustar header where everything fits, else one extended header before it with what does not. No
//! GNU extension, no sparse file, no prefix field, no names of owners. The rules are in the book, "The bytes"; changing
//! one changes image bytes. Must never know where content comes from.

use immbuild_cas::tree::Meta;

use super::at_most;
use crate::epoch::Epoch;

/// Headers are blocks of this many bytes, and content is filled up with zeros to a multiple of it.
pub(super) const RECORD: usize = 512;

/// Zeros at the end of an archive: two records, no further filling.
pub(super) const END: usize = 2 * RECORD;

/// Largest number of seven octal digits: ids and device numbers above it are not for ustar.
const OCTAL_7: u64 = 0o7_777_777;
/// Largest number of eleven octal digits, for sizes and times.
const OCTAL_11: u64 = 0o77_777_777_777;

/// Name of every extended header. Programs that do not know extended headers make a file of this name.
const PAX_NAME: &[u8] = b"././@PaxHeader";

/// The type flag of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flag {
    File = b'0' as isize,
    HardLink = b'1' as isize,
    Symlink = b'2' as isize,
    Char = b'3' as isize,
    Block = b'4' as isize,
    Directory = b'5' as isize,
    Fifo = b'6' as isize,
    Pax = b'x' as isize,
}

/// What the header of an entry says.
pub(super) struct Header<'a> {
    /// As written: no slash in front, one behind a directory.
    pub(super) path: &'a [u8],
    pub(super) flag: Flag,
    pub(super) meta: &'a Meta,
    /// Length of the content that follows.
    pub(super) size: u64,
    /// Text of a symbolic link, path of the target of a hard link.
    pub(super) link: &'a [u8],
    /// Major and minor number, 0 and 0 except for devices.
    pub(super) device: (u32, u32),
}

/// Can these be the numbers of a device in this dialect? Linux has 12 and 20 bits, which always fit.
pub(super) const fn device_fits(major: u32, minor: u32) -> bool {
    major as u64 <= OCTAL_7 && minor as u64 <= OCTAL_7
}

/// How many zeros follow content of this length.
pub(super) fn padding(size: u64) -> usize {
    (RECORD - at_most(size % RECORD as u64, RECORD)) % RECORD
}

impl Header<'_> {
    /// Replaces `out` by the header, with an extended header in front where it takes one.
    pub(super) fn write(&self, epoch: Epoch, out: &mut Vec<u8>) {
        out.clear();
        let seconds = u64::try_from(epoch.seconds()).expect("an epoch is not before 1970");
        let mut records = Records::default();
        // In the order of their keys' bytes.
        for (name, value) in &self.meta.xattrs {
            records.add(&[b"SCHILY.xattr.", name.as_bytes()].concat(), value);
        }
        let gid = records.number("gid", self.meta.gid.into(), OCTAL_7);
        let link = records.text("linkpath", self.link);
        let mtime = records.number("mtime", seconds, OCTAL_11);
        let path = records.text("path", self.path);
        let size = records.number("size", self.size, OCTAL_11);
        let uid = records.number("uid", self.meta.uid.into(), OCTAL_7);

        let Records(records) = records;
        if !records.is_empty() {
            Ustar {
                name: PAX_NAME,
                mode: 0o644,
                size: records.len() as u64,
                flag: Flag::Pax,
                ..Ustar::default()
            }
            .write(out);
            out.extend_from_slice(&records);
            out.resize(out.len().next_multiple_of(RECORD), 0);
        }
        Ustar {
            name: path,
            mode: self.meta.mode.bits(),
            uid,
            gid,
            size,
            mtime,
            flag: self.flag,
            link,
            device: self.device,
        }
        .write(out);
    }
}

/// The records of an extended header: `<length> <key>=<value>\n`.
#[derive(Default)]
struct Records(Vec<u8>);

impl Records {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        // The length counts its own digits.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while rest + length.to_string().len() != length {
            length = rest + length.to_string().len();
        }
        self.0.extend_from_slice(length.to_string().as_bytes());
        self.0.push(b' ');
        self.0.extend_from_slice(key);
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    /// The value of the ustar field: `value`, or 0 when only a record can hold it.
    fn number(&mut self, key: &str, value: u64, most: u64) -> u64 {
        if value <= most {
            return value;
        }
        self.add(key.as_bytes(), value.to_string().as_bytes());
        0
    }

    /// The text of the ustar field: `value`, or what of it fits when only a record can hold it.
    fn text<'a>(&mut self, key: &str, value: &'a [u8]) -> &'a [u8] {
        match value.get(..100) {
            Some(start) if value.len() > 100 => {
                self.add(key.as_bytes(), value);
                start
            }
            _ => value,
        }
    }
}

/// The fields of a ustar header, each within what it can hold.
struct Ustar<'a> {
    name: &'a [u8],
    mode: u32,
    uid: u64,
    gid: u64,
    size: u64,
    mtime: u64,
    flag: Flag,
    link: &'a [u8],
    device: (u32, u32),
}

impl Default for Ustar<'_> {
    fn default() -> Self {
        Self {
            name: b"",
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: 0,
            flag: Flag::File,
            link: b"",
            device: (0, 0),
        }
    }
}

impl Ustar<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let mut header = [0; RECORD];
        header[..self.name.len()].copy_from_slice(self.name);
        octal(&mut header[100..108], self.mode.into());
        octal(&mut header[108..116], self.uid);
        octal(&mut header[116..124], self.gid);
        octal(&mut header[124..136], self.size);
        octal(&mut header[136..148], self.mtime);
        header[148..156].fill(b' ');
        header[156] = self.flag as u8;
        header[157..157 + self.link.len()].copy_from_slice(self.link);
        header[257..265].copy_from_slice(b"ustar\x0000");
        octal(&mut header[329..337], self.device.0.into());
        octal(&mut header[337..345], self.device.1.into());
        // The sum is taken with its own field as spaces, and written as six digits, NUL, space.
        let sum = header.iter().map(|byte| u64::from(*byte)).sum();
        octal(&mut header[148..155], sum);
        out.extend_from_slice(&header);
    }
}

/// Fills a field with octal digits, zeros in front, and one NUL behind.
fn octal(field: &mut [u8], mut value: u64) {
    let digits = field.len() - 1;
    for digit in field[..digits].iter_mut().rev() {
        *digit = b'0' + (value % 8) as u8;
        value /= 8;
    }
    field[digits] = 0;
}
