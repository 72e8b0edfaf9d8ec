//! Whether this machine runs programs of another, found out by running one where nothing of the machine can be seen.
//!
//! Linux hands programs that it does not know to a handler of `binfmt_misc` (`Documentation/admin-guide/binfmt-misc.rst`). In the root of
//! a step there is no emulator; one that was registered with the flag `F` was opened then, and works in every root. Effects: processes.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, chroot};
use std::path::Path;
use std::sync::Mutex;

use super::probe::{Outcome, Trial, enter_namespace, start};
use super::supervisor::execve;
use super::{SandboxError, is_ready, seccomp};

/// Why programs of another machine cannot be run here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// Nothing is registered for them.
    #[error("no handler of binfmt_misc is registered for {machine}")]
    Unknown {
        /// What `uname -m` says there.
        machine: String,
    },
    /// Something is, and is looked for in the root of the step.
    #[error(
        "the handler of binfmt_misc for {machine} lacks the flag `F`, so it is looked for in the root of the step"
    )]
    NotFixed {
        /// What `uname -m` says there.
        machine: String,
    },
    /// Something is, and does not run them.
    #[error("a program for {machine} that only ends does not even do that here: {said}")]
    Broken {
        /// What `uname -m` says there.
        machine: String,
        /// How it went.
        said: String,
    },
}

impl Foreign {
    /// What to do about it.
    pub fn fix(&self) -> &'static str {
        match self {
            Self::Unknown { .. } | Self::Broken { .. } => FOREIGN_FIX,
            Self::NotFixed { .. } => {
                "register it anew with the flag `F`, as Debian's packages `qemu-user-static` and `binfmt-support` do"
            }
        }
    }
}

/// How a machine comes to run programs of others.
pub const FOREIGN_FIX: &str = "install an emulator with its handler: `apt install qemu-user-static binfmt-support` on Debian; in a container, on the host";

/// The program in the scratch directory that the trial runs.
const PROGRAM: &CStr = c"program";

pub(super) static TRIAL: Trial = Trial {
    name: "foreign programs",
    needed_for: "steps of other platforms",
    fix: FOREIGN_FIX,
    check: |directory| {
        enter_namespace()?;
        chroot(directory)?;
        std::env::set_current_dir("/")?;
        seccomp::install(&seccomp::filters())?;
        // Does not come back where it works: the program ends with 0.
        Err(execve(PROGRAM, &[PROGRAM.into()], &[]).into())
    },
};

/// Does this machine run programs for which `uname -m` says `machine`? `scratch` is a directory for a program to try it with.
///
/// Tried once for each in a process.
pub fn runs_programs_of(
    machine: &str,
    scratch: &Path,
) -> Result<Result<(), Foreign>, SandboxError> {
    static FOUND: Mutex<BTreeMap<String, Result<(), Foreign>>> = Mutex::new(BTreeMap::new());
    if machine == std::env::consts::ARCH {
        return Ok(Ok(()));
    }
    if !is_ready() {
        return Err(SandboxError::NotReady);
    }
    let mut found = FOUND.lock().expect("nobody panics with it");
    if let Some(known) = found.get(machine) {
        return Ok(known.clone());
    }
    let tried = attempt(machine, scratch).map_err(SandboxError::Supervisor)?;
    found.insert(machine.to_owned(), tried.clone());
    Ok(tried)
}

fn attempt(machine: &str, scratch: &Path) -> io::Result<Result<(), Foreign>> {
    let directory = tempfile::Builder::new()
        .prefix("foreign")
        .tempdir_in(scratch)?;
    let machine = machine.to_owned();
    let Some(program) = program(&machine) else {
        return Ok(Err(Foreign::Unknown { machine }));
    };
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(directory.path().join("program"))?;
    io::Write::write_all(&mut file, &program)?;
    drop(file);
    let probe = start(&TRIAL, directory.path())?;
    Ok(match probe.outcome {
        Outcome::Works | Outcome::Limited => Ok(()),
        Outcome::Fails(libc::ENOEXEC) => Err(Foreign::Unknown { machine }),
        Outcome::Fails(libc::ENOENT) => Err(Foreign::NotFixed { machine }),
        Outcome::Fails(_) => Err(Foreign::Broken {
            machine,
            said: probe.detail,
        }),
    })
}

/// How a program of a machine is written: ELF's `e_machine` and `e_flags`, and instructions that end it with status 0.
struct Ending {
    machine: u16,
    flags: u32,
    is_64: bool,
    is_big: bool,
    code: &'static [u8],
}

fn ending(machine: &str) -> Option<Ending> {
    let little = |machine, flags, is_64, code| Ending {
        machine,
        flags,
        is_64,
        is_big: false,
        code,
    };
    Some(match machine {
        // mov edi, 0 as xor; mov eax, 60; syscall
        "x86_64" => little(62, 0, true, b"\x31\xff\xb8\x3c\0\0\0\x0f\x05"),
        // xor ebx, ebx; mov eax, 1; int 0x80
        "i686" => little(3, 0, false, b"\x31\xdb\xb8\x01\0\0\0\xcd\x80"),
        // mov r7, #1; mov r0, #0; svc 0
        "armv5l" | "armv6l" | "armv7l" => little(
            40,
            0x0500_0000,
            false,
            b"\x01\x70\xa0\xe3\0\0\xa0\xe3\0\0\0\xef",
        ),
        // mov x8, #93; mov x0, #0; svc #0
        "aarch64" => little(183, 0, true, b"\xa8\x0b\x80\xd2\0\0\x80\xd2\x01\0\0\xd4"),
        // ori a7, zero, 93; ori a0, zero, 0; syscall 0
        "loongarch64" => little(258, 0x43, true, b"\x0b\x74\x81\x03\x04\0\x80\x03\0\0\x2b\0"),
        // li r0, 1; li r3, 0; sc
        "ppc64le" => little(21, 2, true, b"\x01\0\0\x38\0\0\x60\x38\x02\0\0\x44"),
        // li a7, 93; li a0, 0; ecall
        "riscv64" => little(243, 0, true, b"\x93\x08\xd0\x05\x13\x05\0\0\x73\0\0\0"),
        // lghi %r2, 0; svc 1
        "s390x" => Ending {
            machine: 22,
            flags: 0,
            is_64: true,
            is_big: true,
            code: b"\xa7\x29\0\0\x0a\x01",
        },
        _ => return None,
    })
}

/// The whole file: an ELF header, one segment that is all of it, and the instructions (gABI, "ELF Header", "Program Header").
fn program(machine: &str) -> Option<Vec<u8>> {
    let ending = ending(machine)?;
    let (header, segment): (u16, u16) = if ending.is_64 { (64, 56) } else { (52, 32) };
    // Above what nobody may map, and the largest page there is.
    let base: u64 = 0x1_0000;
    let start = u64::from(header + segment);
    let size = start + ending.code.len() as u64;
    let mut out = vec![0x7f, b'E', b'L', b'F'];
    out.extend([1 + u8::from(ending.is_64), 1 + u8::from(ending.is_big), 1]);
    out.extend([0; 9]);
    let mut number = |value: u64, bytes: usize| {
        let all = value.to_le_bytes();
        if ending.is_big {
            out.extend(all[..bytes].iter().rev());
        } else {
            out.extend(&all[..bytes]);
        }
    };
    let address = if ending.is_64 { 8 } else { 4 };
    // Type: a program; machine; version; entry; where segments and sections are; flags; sizes and counts of headers.
    number(2, 2);
    number(ending.machine.into(), 2);
    number(1, 4);
    number(base + start, address);
    number(header.into(), address);
    number(0, address);
    number(ending.flags.into(), 4);
    for half in [header, segment, 1, 0, 0, 0] {
        number(half.into(), 2);
    }
    // Type: loaded; in 64 bits the flags, read and execute; offset, two addresses, two sizes; in 32 bits the flags; alignment.
    number(1, 4);
    if ending.is_64 {
        number(5, 4);
    }
    for value in [0, base, base, size, size] {
        number(value, address);
    }
    if !ending.is_64 {
        number(5, 4);
    }
    number(base, address);
    out.extend(ending.code);
    Some(out)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn there_is_a_program_for_every_platform() {
        for platform in crate::platform::Platform::all() {
            let program = program(platform.machine()).expect("a program");
            assert!(program.len() < 200, "{platform}");
        }
        assert_eq!(program("vax"), None);
    }

    #[test]
    fn the_program_of_this_machine_ends_well() {
        let program = program(std::env::consts::ARCH).expect("a program");
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("program");
        std::fs::write(&path, program).expect("written");
        let mut mode = std::fs::metadata(&path).expect("there").permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o755);
        std::fs::set_permissions(&path, mode).expect("set");
        assert!(Command::new(&path).status().expect("it runs").success());
    }

    /// Each emulator of Debian's `qemu-user-static` takes the program that is for it.
    #[test]
    #[ignore = "needs qemu-user-static"]
    fn emulators_end_well_with_the_programs_of_their_machines() {
        let directory = tempfile::tempdir().expect("a directory");
        for (machine, emulator) in [
            ("x86_64", "x86_64"),
            ("i686", "i386"),
            ("armv7l", "arm"),
            ("aarch64", "aarch64"),
            ("loongarch64", "loongarch64"),
            ("ppc64le", "ppc64le"),
            ("riscv64", "riscv64"),
            ("s390x", "s390x"),
        ] {
            let path = directory.path().join(machine);
            std::fs::write(&path, program(machine).expect("a program")).expect("written");
            let mut mode = std::fs::metadata(&path).expect("there").permissions();
            std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o755);
            std::fs::set_permissions(&path, mode).expect("set");
            let status = Command::new(format!("qemu-{emulator}-static"))
                .arg(&path)
                .status();
            assert_eq!(status.expect("it runs").code(), Some(0), "{machine}");
        }
    }
}
