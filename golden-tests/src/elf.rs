//! The programs of the examples: complete static executables of under 250 bytes that print one line.
//!
//! They are made here, from the processor manuals' encodings, so that nobody has to trust a binary in a repository:
//! a test compares the committed files with these.

/// Which processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// x86-64.
    Amd64,
    /// `AArch64`.
    Arm64,
}

const HEADERS: usize = 64 + 56;
const ADDRESS: u64 = 0x40_0000;

/// An ELF executable (System V ABI, ELF-64) that writes `text` to standard output and exits with 0.
pub fn program(machine: Machine, text: &str) -> Vec<u8> {
    let (number, code) = match machine {
        Machine::Amd64 => (62_u16, amd64(text.len())),
        Machine::Arm64 => (183, arm64(text.len())),
    };
    let size = (HEADERS + code.len() + text.len()) as u64;
    let mut out = Vec::new();
    // Identification: 64 bits, little-endian, version 1, System V.
    out.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0]);
    out.extend([0; 8]);
    out.extend(2_u16.to_le_bytes()); // ET_EXEC
    out.extend(number.to_le_bytes());
    out.extend(1_u32.to_le_bytes());
    out.extend((ADDRESS + HEADERS as u64).to_le_bytes()); // entry
    out.extend(64_u64.to_le_bytes()); // program headers
    out.extend(0_u64.to_le_bytes()); // no section headers
    out.extend(0_u32.to_le_bytes()); // flags
    for half in [64_u16, 56, 1, 0, 0, 0] {
        out.extend(half.to_le_bytes());
    }
    // One segment: the whole file, read and execute.
    out.extend(1_u32.to_le_bytes()); // PT_LOAD
    out.extend(5_u32.to_le_bytes()); // R + X
    out.extend(0_u64.to_le_bytes());
    out.extend(ADDRESS.to_le_bytes());
    out.extend(ADDRESS.to_le_bytes());
    out.extend(size.to_le_bytes());
    out.extend(size.to_le_bytes());
    out.extend(0x1000_u64.to_le_bytes());
    out.extend(code);
    out.extend(text.as_bytes());
    out
}

fn amd64(length: usize) -> Vec<u8> {
    let length = u32::try_from(length).expect("a line is short");
    let mut code = Vec::new();
    code.extend([0xb8, 1, 0, 0, 0]); // mov eax, 1 (write)
    code.extend([0xbf, 1, 0, 0, 0]); // mov edi, 1
    code.extend([0x48, 0x8d, 0x35]); // lea rsi, [rip + 16]
    code.extend(16_u32.to_le_bytes());
    code.push(0xba); // mov edx, length
    code.extend(length.to_le_bytes());
    code.extend([0x0f, 0x05]); // syscall
    code.extend([0xb8, 60, 0, 0, 0]); // mov eax, 60 (exit)
    code.extend([0x31, 0xff]); // xor edi, edi
    code.extend([0x0f, 0x05]); // syscall
    code
}

fn arm64(length: usize) -> Vec<u8> {
    let length = u32::try_from(length).expect("a line is short");
    let words = [
        0xd280_0020,               // mov x0, 1
        0x1000_0001 | (7 << 5),    // adr x1, 28 bytes on
        0xd280_0002 | length << 5, // mov x2, length
        0xd280_0808,               // mov x8, 64 (write)
        0xd400_0001,               // svc 0
        0xd280_0000,               // mov x0, 0
        0xd280_0ba8,               // mov x8, 93 (exit)
        0xd400_0001,               // svc 0
    ];
    words
        .iter()
        .flat_map(|word: &u32| word.to_le_bytes())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const HELLO: &str = "hello, the same bytes everywhere\n";

    #[test]
    fn the_committed_programs_are_these() {
        let examples = crate::workspace().join("examples");
        for (file, machine) in [
            ("smallest/hello", Machine::Amd64),
            ("static/dist/hello-amd64", Machine::Amd64),
            ("static/dist/hello-arm64", Machine::Arm64),
        ] {
            let path = examples.join(file);
            let expected = program(machine, HELLO);
            if std::env::var_os("BLESS").is_some() {
                std::fs::write(&path, &expected).expect("the example can be written");
            }
            let found = std::fs::read(&path).expect("the example is committed");
            assert_eq!(found, expected, "{file}");
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_program_prints_its_line() {
        use std::os::unix::fs::PermissionsExt as _;

        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("hello");
        std::fs::write(&path, program(Machine::Amd64, HELLO)).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("set");
        let output = Command::new(&path).output().expect("it runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout), HELLO);
        assert!(output.status.success());
    }
}
