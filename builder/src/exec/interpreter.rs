//! What the kernel starts for a program that cannot start by itself (execve(2)): what the first line of a script names, or
//! the dynamic linker of an ELF file.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

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

/// How often the kernel goes on from one script to the next (`exec_binprm`).
pub(super) const CHAIN: usize = 5;

/// What is not there of all that the kernel starts for a program; nothing if that cannot be said.
pub(super) fn missing(program: &Path) -> Option<Vec<u8>> {
    // A pipe would wait for somebody who writes to it.
    let open = |path: &Path| {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NONBLOCK).open(path)
    };
    let mut file = open(program).ok()?;
    for _ in 0..=CHAIN {
        let name = of_program(&file)?;
        file = match open(Path::new(OsStr::from_bytes(&name))) {
            Ok(next) => next,
            Err(error) => {
                let gone = [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind());
                return gone.then_some(name);
            }
        };
    }
    None
}

/// What a script or a dynamic program names.
fn of_program(file: &File) -> Option<Vec<u8>> {
    let head = part(file, 0, HEAD)?;
    of_script(&head).or_else(|| linker(file, &head))
}

/// The segment `PT_INTERP` (System V ABI, "Program Header") of a little-endian ELF file.
fn linker(file: &File, head: &[u8]) -> Option<Vec<u8>> {
    const PT_INTERP: u64 = 3;
    /// `PATH_MAX`
    const LONGEST: u64 = 4096;
    let (first, count, size) = match head.get(..6)? {
        b"\x7fELF\x01\x01" => (number::<4>(head, 28)?, number::<2>(head, 44)?, 32),
        b"\x7fELF\x02\x01" => (number::<8>(head, 32)?, number::<2>(head, 56)?, 56),
        _ => return None,
    };
    let header = |nth| {
        let at = first.checked_add(nth * size)?;
        part(file, at, usize::try_from(size).ok()?)
    };
    let segment = (0..count)
        .map_while(header)
        .find(|header| number::<4>(header, 0) == Some(PT_INTERP))?;
    let (at, length) = if size == 32 {
        (number::<4>(&segment, 4)?, number::<4>(&segment, 16)?)
    } else {
        (number::<8>(&segment, 8)?, number::<8>(&segment, 32)?)
    };
    let path = part(file, at, usize::try_from(length.min(LONGEST)).ok()?)?;
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
    use std::path::PathBuf;

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

    /// An ELF file of either class whose only segment, right behind its header, names a linker.
    fn elf(class: u8, linker: &str) -> Vec<u8> {
        let (header, size) = if class == 1 { (52, 32) } else { (64, 56) };
        let mut file = vec![0; header + size];
        file[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, 1]);
        let [first, count] = if class == 1 { [28, 44] } else { [32, 56] };
        let [at, length] = if class == 1 { [4, 16] } else { [8, 32] };
        let small = |number: usize| u8::try_from(number).unwrap();
        file[first] = small(header);
        file[count] = 1;
        file[header] = 3;
        file[header + at] = small(header + size);
        file[header + length] = small(linker.len() + 1);
        file.extend(linker.bytes());
        file.push(0);
        file
    }

    fn written(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn a_dynamic_program_names_its_linker() {
        for class in [1, 2] {
            let file = written(&elf(class, "/lib/ld.so"));
            assert_eq!(text(of_program(&file)).as_deref(), Some("/lib/ld.so"));
        }
    }

    #[test]
    fn a_damaged_program_names_nothing() {
        let whole = elf(2, "/lib/ld.so");
        // Its headers are said to be far away, or to be none; or it is none of ours.
        for (at, byte) in [(38, 0xff), (39, 0xff), (56, 0), (4, 3), (5, 2), (64, 2)] {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            assert_eq!(text(of_program(&written(&bytes))), None, "byte {at}");
        }
        for length in [0, 5, 6, 40, 64, 100] {
            let file = written(&whole[..length]);
            assert_eq!(text(of_program(&file)), None, "{length} bytes");
        }
    }

    #[test]
    fn the_first_that_is_not_there_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let script = |name: &str, of: &str| std::fs::write(at(name), format!("#!{of}\n")).unwrap();
        let name = |path: PathBuf| path.to_str().unwrap().to_owned();
        std::fs::write(at("dynamic"), elf(2, "/nowhere/ld.so")).unwrap();
        script("script", &name(at("dynamic")));
        script("outer", &name(at("script")));
        script("alone", "/nowhere/sh");
        script("circle", &name(at("circle")));
        std::fs::write(at("plain"), "text").unwrap();
        for (program, gone) in [
            ("dynamic", Some("/nowhere/ld.so")),
            ("script", Some("/nowhere/ld.so")),
            ("outer", Some("/nowhere/ld.so")),
            ("alone", Some("/nowhere/sh")),
            ("circle", None),
            ("plain", None),
            ("nothing", None),
        ] {
            assert_eq!(text(missing(&at(program))).as_deref(), gone, "{program}");
        }
    }
}
