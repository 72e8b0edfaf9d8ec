//! What the kernel starts for a program that cannot start by itself (execve(2)): what the first line of a script names, or
//! the dynamic linker of an ELF file.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// `BINPRM_BUF_SIZE`: no more of a script's first line counts.
pub(super) const HEAD: usize = 256;

/// The program that a script names, given how it begins.
pub(super) fn of_script(head: &[u8]) -> Option<Vec<u8>> {
    let line = head.strip_prefix(b"#!")?;
    let line = line.split(|byte| [b'\n', 0].contains(byte)).next()?;
    let mut words = line.split(|byte| [b' ', b'\t'].contains(byte));
    let name = words.find(|word| !word.is_empty())?;
    Some(name.to_vec())
}

/// What a script or a dynamic program names.
pub(super) fn of_program(file: &File) -> Option<Vec<u8>> {
    let head = part(file, 0, HEAD)?;
    of_script(&head).or_else(|| linker(file, &head))
}

/// The segment `PT_INTERP` (System V ABI, "Program Header") of a little-endian ELF-64 file.
fn linker(file: &File, head: &[u8]) -> Option<Vec<u8>> {
    const IDENTIFICATION: &[u8] = b"\x7fELF\x02\x01";
    const PT_INTERP: u64 = 3;
    /// `PATH_MAX`
    const LONGEST: u64 = 4096;
    head.strip_prefix(IDENTIFICATION)?;
    let (first, size, count) = (
        number::<8>(head, 32)?,
        number::<2>(head, 54)?,
        number::<2>(head, 56)?,
    );
    let header = |nth| {
        part(
            file,
            first.checked_add(nth * size)?,
            usize::try_from(size).ok()?,
        )
    };
    let segment = (0..count)
        .map_while(header)
        .find(|header| number::<4>(header, 0) == Some(PT_INTERP))?;
    let length = number::<8>(&segment, 32).filter(|length| *length <= LONGEST)?;
    let path = part(
        file,
        number::<8>(&segment, 8)?,
        usize::try_from(length).ok()?,
    )?;
    path.split(|byte| *byte == 0).next().map(<[u8]>::to_vec)
}

/// So many bytes from there on, or as many as there are.
fn part(file: &File, at: u64, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    let read = file.read_at(&mut bytes, at).ok()?;
    bytes.truncate(read);
    Some(bytes)
}

/// A little-endian number of so many bytes.
fn number<const BYTES: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let mut number = [0; 8];
    number[..BYTES].copy_from_slice(bytes.get(at..at + BYTES)?);
    Some(u64::from_le_bytes(number))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn text(name: Option<Vec<u8>>) -> Option<String> {
        name.map(|name| String::from_utf8(name).unwrap())
    }

    #[test]
    fn a_script_names_its_interpreter() {
        for (head, name) in [
            (&b"#!/bin/sh\n"[..], Some("/bin/sh")),
            (b"#! /usr/bin/env python3\nx", Some("/usr/bin/env")),
            (b"#!sh\t-e", Some("sh")),
            (b"#!/bin/sh\r\n", Some("/bin/sh\r")),
            (b"#!\n/bin/sh", None),
            (b"\x7fELF", None),
            (b"", None),
        ] {
            assert_eq!(text(of_script(head)).as_deref(), name);
        }
    }

    #[test]
    fn a_dynamic_program_names_its_linker() {
        let linker = text(of_program(&File::open("/bin/ls").unwrap())).unwrap();
        assert!(
            linker.starts_with("/lib") && linker.contains("ld-linux"),
            "{linker}"
        );
    }

    #[test]
    fn a_damaged_program_names_nothing() {
        let mut whole = std::fs::read("/bin/ls").unwrap();
        // Its headers say that there are others, far away or none.
        for (at, byte) in [(32, 0xff), (39, 0xff), (54, 0), (56, 0)] {
            let was = std::mem::replace(&mut whole[at], byte);
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&whole).unwrap();
            assert_eq!(text(of_program(&file)), None, "byte {at}");
            whole[at] = was;
        }
        for length in [0, 5, 6, 40, 64, 100] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&whole[..length]).unwrap();
            assert_eq!(text(of_program(&file)), None, "{length} bytes");
        }
    }
}
