//! The archives around images: a few files with short names, in ustar (POSIX.1-1988), always the same bytes.
//!
//! This is not the tar of layers, which has rules of its own. Owner 0:0 without names, mode 0644 or 0755, one time for all. A
//! size beyond the eleven octal digits is written in base 256, which every reader of images knows.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{OutputError, io_error};
use crate::epoch::Epoch;

const BLOCK: usize = 512;

/// Writes members one after the other into a file.
#[derive(Debug)]
pub(super) struct Archive<'a> {
    file: &'a mut File,
    epoch: Epoch,
}

impl<'a> Archive<'a> {
    pub(super) fn new(file: &'a mut File, epoch: Epoch) -> Self {
        Self { file, epoch }
    }

    /// A directory; `name` ends in a slash.
    pub(super) fn directory(&mut self, name: &str) -> io::Result<()> {
        self.file
            .write_all(&header(name, Kind::Directory, 0, self.epoch))
    }

    /// A file with these bytes.
    pub(super) fn file(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.file
            .write_all(&header(name, Kind::File, bytes.len() as u64, self.epoch))?;
        self.file.write_all(bytes)?;
        self.pad(bytes.len() as u64)
    }

    /// A file of this size whose bytes `write` appends. `path` is what the archive is called, for messages.
    pub(super) fn sized(
        &mut self,
        name: &str,
        size: u64,
        path: &Path,
        write: impl FnOnce(&mut File) -> Result<(), OutputError>,
    ) -> Result<(), OutputError> {
        let failed = io_error("write", path);
        self.file
            .write_all(&header(name, Kind::File, size, self.epoch))
            .map_err(&failed)?;
        write(self.file)?;
        self.pad(size).map_err(failed)
    }

    /// As [`sized`](Self::sized), of a size that is known when it is written: the header follows then.
    pub(super) fn streamed(
        &mut self,
        name: &str,
        path: &Path,
        write: impl FnOnce(&mut File) -> Result<(), OutputError>,
    ) -> Result<(), OutputError> {
        let failed = io_error("write", path);
        let start = self.file.stream_position().map_err(&failed)?;
        self.file.write_all(&[0; BLOCK]).map_err(&failed)?;
        write(self.file)?;
        let size = self.file.stream_position().map_err(&failed)? - start - BLOCK as u64;
        self.file
            .write_all_at(&header(name, Kind::File, size, self.epoch), start)
            .map_err(&failed)?;
        self.pad(size).map_err(failed)
    }

    /// The two zero blocks at the end.
    pub(super) fn finish(self) -> io::Result<()> {
        self.file.write_all(&[0; 2 * BLOCK])
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let missing = size.next_multiple_of(BLOCK as u64) - size;
        let missing = usize::try_from(missing).expect("less than a block");
        self.file.write_all(&[0; BLOCK][..missing])
    }
}

#[derive(Clone, Copy)]
enum Kind {
    File,
    Directory,
}

fn header(name: &str, kind: Kind, size: u64, epoch: Epoch) -> [u8; BLOCK] {
    let (mode, flag) = match kind {
        Kind::File => (0o644, b'0'),
        Kind::Directory => (0o755, b'5'),
    };
    let mut block = [0; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    number(&mut block[100..108], mode);
    number(&mut block[108..116], 0);
    number(&mut block[116..124], 0);
    number(&mut block[124..136], size);
    number(&mut block[136..148], epoch.seconds().cast_unsigned());
    block[156] = flag;
    block[257..265].copy_from_slice(b"ustar\x0000");
    number(&mut block[329..337], 0);
    number(&mut block[337..345], 0);
    // The checksum counts itself as spaces.
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    number(&mut block[148..155], sum);
    block
}

/// Octal digits and a NUL, or base 256 when those are too few.
fn number(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let octal = format!("{value:0digits$o}");
    if octal.len() == digits {
        field[..digits].copy_from_slice(octal.as_bytes());
        field[digits] = 0;
    } else {
        let from = field.len() - 8;
        field[from..].copy_from_slice(&value.to_be_bytes());
        field[0] |= 0x80;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_the_one_of_posix() {
        let block = header("blobs/", Kind::Directory, 0, Epoch::DEFAULT);
        assert_eq!(&block[..7], b"blobs/\0");
        assert_eq!(
            &block[100..157],
            b"0000755\x000000000\x000000000\x0000000000000\x0013602760400\x00010343\x00 5"
        );
        assert_eq!(&block[257..265], b"ustar\x0000");
    }

    #[test]
    fn a_size_beyond_octal_is_base_256() {
        let mut field = [0; 12];
        number(&mut field, 0o77_777_777_777);
        assert_eq!(&field, b"77777777777\0");
        let mut field = [0; 12];
        number(&mut field, 0o100_000_000_000);
        assert_eq!(field, [0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
    }
}
