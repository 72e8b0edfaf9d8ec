//! What a process answers itself: machine code that every process has in its memory, and how its calls get there.
//!
//! A C library makes a call by `mov eax, number; syscall` (System V ABI, A.2.1). The seven bytes are recognised when the
//! call stops its thread for the first time, and the first five become a jump; the `syscall` stays where it is, so that
//! whatever returns to it, as the end of a signal handler does, finds it.
#![allow(
    unsafe_code,
    reason = "machine code that never runs in this process: bytes that are copied"
)]

use super::super::super::filter::{NO_MODE, WRITES};
use super::super::super::inside::{BASE, DEVICES, DEVICES_AT, GATE, SLOTS, TABLE};
use super::super::super::sys::{STATX_MASK, STATX_MASK_UNIQUE, STATX_MNT_ID_UNIQUE};

/// The calls that the code answers, in the order of its entrances.
pub(in super::super::super) const CALLS: [i64; 9] = [
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_statx,
    libc::SYS_openat,
    libc::SYS_open,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
];

/// Bytes up to where a call returns that tell which it is.
pub(in super::super::super) const CALL: usize = 15;
const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// An instruction as long as a jump.
pub(in super::super::super) type Displaced = [u8; 5];
/// Bytes from it to where the call returns.
pub(in super::super::super) const BEFORE: u64 = 7;
/// How far below the stack pointer the address is that the code of [`setup`] returns to: behind the red zone.
pub(in super::super::super) const BELOW: u64 = 128 + 8;
/// Bytes of one trampoline.
pub(in super::super::super) const TRAMPOLINE: usize = 32;
/// Bytes between two entrances.
const ENTRANCE: u64 = 8;

// Rules of the code: it keeps all registers but rax, rcx and r11, which a call changes anyway; it calls the kernel only
// in this page, where the filter lets the calls above through; what it cannot answer it gives to the gate, whose call
// stops the thread as if nothing had been tried. The kernel has written its answer where the program wants it; if the
// table says what is to be shown instead, that is copied over it.
//
// A slot of the table (`inside.rs`): device, number, mtime (2), ctime (2), and 18 words of `struct stat`.
std::arch::global_asm!(
    ".pushsection .rodata.immbuild_inside, \"a\"",
    ".balign 16",
    ".globl immbuild_inside_start",
    ".globl immbuild_inside_end",
    ".hidden immbuild_inside_start",
    ".hidden immbuild_inside_end",
    "immbuild_inside_start:",
    "jmp 40f",
    ".balign 8",
    "jmp 41f",
    ".balign 8",
    "jmp 42f",
    ".balign 8",
    "jmp 43f",
    ".balign 8",
    "jmp 44f",
    ".balign 8",
    "jmp 45f",
    ".balign 8",
    "jmp 46f",
    ".balign 8",
    "jmp 47f",
    ".balign 8",
    "jmp 48f",
    ".balign 16",
    // newfstatat(directory, path, answer = rdx, flags)
    "40:",
    "mov eax, 262",
    "syscall",
    "test eax, eax",
    "jnz 9f",
    "mov r11, rdx",
    "call 20f",
    "test eax, eax",
    "jz 9f",
    "mov eax, 262",
    "jmp 30f",
    "9: ret",
    // fstat(descriptor, answer = rsi)
    "41:",
    "mov eax, 5",
    "syscall",
    "test eax, eax",
    "jnz 9f",
    "mov r11, rsi",
    "call 20f",
    "test eax, eax",
    "jz 9f",
    "mov eax, 5",
    "jmp 30f",
    // stat(path, answer = rsi)
    "42:",
    "mov eax, 4",
    "syscall",
    "test eax, eax",
    "jnz 9f",
    "mov r11, rsi",
    "call 20f",
    "test eax, eax",
    "jz 9f",
    "mov eax, 4",
    "jmp 30f",
    // lstat(path, answer = rsi)
    "43:",
    "mov eax, 6",
    "syscall",
    "test eax, eax",
    "jnz 9f",
    "mov r11, rsi",
    "call 20f",
    "test eax, eax",
    "jz 9f",
    "mov eax, 6",
    "jmp 30f",
    "9: ret",
    // statx(directory, path, flags, mask, answer = r8): what tells files apart is put as in a struct stat.
    "44:",
    "mov eax, 332",
    "syscall",
    "test eax, eax",
    "jnz 9b",
    "sub rsp, 152",
    "mov eax, [r8 + 140]",
    "mov ecx, eax",
    "and ecx, 0xff",
    "and eax, 0xffffff00",
    "shl rax, 12",
    "or rax, rcx",
    "mov ecx, [r8 + 136]",
    "shl rcx, 8",
    "or rax, rcx",
    "mov [rsp], rax",
    "mov rax, [r8 + 32]",
    "mov [rsp + 8], rax",
    "mov rax, [r8 + 112]",
    "mov [rsp + 88], rax",
    "mov eax, [r8 + 120]",
    "mov [rsp + 96], rax",
    "mov rax, [r8 + 96]",
    "mov [rsp + 104], rax",
    "mov eax, [r8 + 104]",
    "mov [rsp + 112], rax",
    "mov r11, rsp",
    "call 20f",
    "test eax, eax",
    "jz 2f",
    "add rsp, 152",
    "mov eax, 332",
    "jmp 30f",
    "2:",
    // r10 is the mask.
    "mov eax, {shown}",
    "test r10d, {unique}",
    "jz 3f",
    "mov eax, {shown_unique}",
    "3:",
    "mov [r8], eax",
    "mov rax, [rsp + 56]",
    "mov [r8 + 4], eax",
    "mov qword ptr [r8 + 8], 0",
    "mov rax, [rsp + 16]",
    "mov [r8 + 16], eax",
    "mov eax, [rsp + 28]",
    "mov [r8 + 20], eax",
    "mov eax, [rsp + 32]",
    "mov [r8 + 24], eax",
    "mov eax, [rsp + 24]",
    "mov [r8 + 28], eax",
    "mov rax, [rsp + 8]",
    "mov [r8 + 32], rax",
    "mov rax, [rsp + 48]",
    "mov [r8 + 40], rax",
    "mov rax, [rsp + 64]",
    "mov [r8 + 48], rax",
    "mov qword ptr [r8 + 56], 0",
    "mov rax, [rsp + 88]",
    "mov [r8 + 64], rax",
    "mov [r8 + 80], rax",
    "mov [r8 + 96], rax",
    "mov [r8 + 112], rax",
    "mov rax, [rsp + 96]",
    "mov [r8 + 72], rax",
    "mov [r8 + 88], rax",
    "mov [r8 + 104], rax",
    "mov [r8 + 120], rax",
    "mov qword ptr [r8 + 128], 0",
    "mov dword ptr [r8 + 136], 0",
    "mov rax, [rsp]",
    "mov rcx, rax",
    "and ecx, 0xff",
    "shr rax, 12",
    "and eax, 0xffffff00",
    "or eax, ecx",
    "mov [r8 + 140], eax",
    "mov [r8 + 144], rax",
    "mov [rsp], rdi",
    "lea rdi, [r8 + 152]",
    "mov ecx, 13",
    "xor eax, eax",
    "rep stosq",
    "mov rdi, [rsp]",
    "add rsp, 152",
    "ret",
    // open(path, flags, mode)
    "46:",
    "push rdi",
    "push rsi",
    "push rdx",
    "push r10",
    "mov r10, rdx",
    "mov edx, esi",
    "mov rsi, rdi",
    "mov edi, -100",
    "call 45f",
    "pop r10",
    "pop rdx",
    "pop rsi",
    "pop rdi",
    "9: ret",
    // openat(directory, path, flags = edx, mode): a file that is opened for reading and is on a disk of the step's is
    // none of those that have to be replaced.
    "45:",
    "test edx, {writes}",
    "jnz 5f",
    "mov eax, 257",
    "syscall",
    "test eax, eax",
    "jns 46f",
    // Below `/etc/gcrypt` there is more than on the disk.
    "cmp eax, -2",
    "jne 9b",
    "cmp byte ptr [rsi + 0], 0x2f",
    "jne 9b",
    "cmp byte ptr [rsi + 1], 0x65",
    "jne 9b",
    "cmp byte ptr [rsi + 2], 0x74",
    "jne 9b",
    "cmp byte ptr [rsi + 3], 0x63",
    "jne 9b",
    "cmp byte ptr [rsi + 4], 0x2f",
    "jne 9b",
    "cmp byte ptr [rsi + 5], 0x67",
    "jne 9b",
    "cmp byte ptr [rsi + 6], 0x63",
    "jne 9b",
    "cmp byte ptr [rsi + 7], 0x72",
    "jne 9b",
    "mov eax, 257",
    "jmp 30f",
    "46:",
    "push rdi",
    "push rsi",
    "sub rsp, 144",
    "mov edi, eax",
    "mov rsi, rsp",
    "mov eax, 5",
    "syscall",
    "test eax, eax",
    "jnz 4f",
    "mov ecx, [rsp + 24]",
    "and ecx, 0xf000",
    "cmp ecx, 0x8000",
    "je 22f",
    "cmp ecx, 0x4000",
    "je 22f",
    // What is no file is open now, and that can be done only once, as with a pipe that has a name; but a device may stand for
    // random bytes: 1:5 does in a sandbox, 1:8 and 1:9 are those (null(4), random(4)).
    "cmp ecx, 0x2000",
    "jne 3f",
    "mov rax, [rsp + 40]",
    "cmp rax, 0x105",
    "je 4f",
    "cmp rax, 0x108",
    "je 4f",
    "cmp rax, 0x109",
    "je 4f",
    "jmp 3f",
    "22:",
    "movabs r11, {devices_at}",
    "mov rax, [rsp]",
    "mov ecx, {devices}",
    "2:",
    "cmp rax, [r11]",
    "je 3f",
    "add r11, 8",
    "dec ecx",
    "jnz 2b",
    "4:",
    "mov eax, 3",
    "syscall",
    "add rsp, 144",
    "pop rsi",
    "pop rdi",
    "mov eax, 257",
    "jmp 30f",
    "3:",
    "mov eax, edi",
    "add rsp, 144",
    "pop rsi",
    "pop rdi",
    "ret",
    // For writing: only to nowhere. A shell does so all the time.
    "5:",
    "cmp rsi, 0x10000",
    "jb 6f",
    "cmp byte ptr [rsi], 0x2f",
    "jne 6f",
    "cmp byte ptr [rsi + 1], 0x64",
    "jne 6f",
    "cmp byte ptr [rsi + 2], 0x65",
    "jne 6f",
    "cmp byte ptr [rsi + 3], 0x76",
    "jne 6f",
    "cmp byte ptr [rsi + 4], 0x2f",
    "jne 6f",
    "cmp byte ptr [rsi + 5], 0x6e",
    "jne 6f",
    "cmp byte ptr [rsi + 6], 0x75",
    "jne 6f",
    "cmp byte ptr [rsi + 7], 0x6c",
    "jne 6f",
    "cmp byte ptr [rsi + 8], 0x6c",
    "jne 6f",
    "cmp byte ptr [rsi + 9], 0",
    "jne 6f",
    "mov eax, 257",
    "syscall",
    "ret",
    "6:",
    "mov eax, 257",
    "jmp 30f",
    // readlink(path, answer, length): links of /proc are another matter.
    "47:",
    "mov eax, 89",
    "syscall",
    "test rax, rax",
    "js 9f",
    "mov rcx, rdi",
    "call 7f",
    "jne 9f",
    "mov eax, 89",
    "jmp 30f",
    // readlinkat(directory, path, answer, length)
    "48:",
    "mov eax, 267",
    "syscall",
    "test rax, rax",
    "js 9f",
    "mov rcx, rsi",
    "call 7f",
    "jne 9f",
    "mov eax, 267",
    "jmp 30f",
    // Does the path at rcx, which can be read, begin with `/proc/`?
    "7:",
    "cmp byte ptr [rcx], 0x2f",
    "jne 9f",
    "cmp byte ptr [rcx + 1], 0x70",
    "jne 9f",
    "cmp byte ptr [rcx + 2], 0x72",
    "jne 9f",
    "cmp byte ptr [rcx + 3], 0x6f",
    "jne 9f",
    "cmp byte ptr [rcx + 4], 0x63",
    "jne 9f",
    "cmp byte ptr [rcx + 5], 0x2f",
    "9: ret",
    // Looks the struct stat at r11 up, and puts what is to be shown over it: 0 in eax if so.
    "20:",
    "push rsi",
    "push rdi",
    "push rdx",
    "push rbx",
    "mov rdi, r11",
    "mov rax, [rdi + 8]",
    "movabs rcx, {spread}",
    "imul rcx, rax",
    "shr rcx, {shift}",
    "mov ebx, {looks}",
    "movabs rdx, {table}",
    "22:",
    "lea rsi, [rcx + rcx * 2]",
    "shl rsi, 6",
    "add rsi, rdx",
    "mov r11, [rsi + 8]",
    "test r11, r11",
    "jz 3f",
    "cmp r11, rax",
    "jne 2f",
    "mov r11, [rsi]",
    "cmp r11, [rdi]",
    "jne 2f",
    "mov r11, [rsi + 16]",
    "cmp r11, [rdi + 88]",
    "jne 2f",
    "mov r11, [rsi + 24]",
    "cmp r11, [rdi + 96]",
    "jne 2f",
    "mov r11, [rsi + 32]",
    "cmp r11, [rdi + 104]",
    "jne 2f",
    "mov r11, [rsi + 40]",
    "cmp r11, [rdi + 112]",
    "jne 2f",
    "add rsi, 48",
    "mov ecx, 18",
    "rep movsq",
    "xor eax, eax",
    "jmp 4f",
    "2:",
    "inc ecx",
    "and ecx, {mask}",
    "dec ebx",
    "jnz 22b",
    "3:",
    "mov eax, 1",
    "4:",
    "pop rbx",
    "pop rdx",
    "pop rdi",
    "pop rsi",
    "ret",
    "30:",
    "movabs r11, {gate}",
    "jmp r11",
    "immbuild_inside_end:",
    ".popsection",
    writes = const WRITES,
    shown = const STATX_MASK,
    unique = const STATX_MNT_ID_UNIQUE,
    shown_unique = const STATX_MASK_UNIQUE,
    devices = const DEVICES,
    devices_at = const DEVICES_AT,
    table = const TABLE,
    gate = const GATE,
    spread = const super::super::super::inside::SPREAD,
    shift = const 64 - SLOTS.trailing_zeros(),
    looks = const super::super::super::inside::LOOKS,
    mask = const SLOTS - 1,
);

/// `syscall; ret`, outside the page where calls are let through.
pub(in super::super::super) const GATE_CODE: [u8; 3] = [0x0f, 0x05, 0xc3];

/// The place of a call in [`CALLS`].
pub(in super::super::super) fn entrance(number: i64) -> usize {
    CALLS
        .iter()
        .position(|call| *call == number)
        .expect("one of them")
}

/// The instruction before the `syscall` that becomes a jump, if these are the bytes of this call.
pub(in super::super::super) fn displaced(code: &[u8; CALL], number: i64) -> Option<Displaced> {
    // mov rsi, rdi; mov edi, AT_FDCWD: how open(2) becomes openat(2).
    const MOVES: [u8; 8] = [0x48, 0x89, 0xfe, 0xbf, 0x9c, 0xff, 0xff, 0xff];
    let [a, b, c, d] = u32::try_from(number).ok()?.to_le_bytes();
    let load = [0xb8, a, b, c, d];
    let (before, call) = code.split_at(CALL - SYSCALL.len());
    if call != SYSCALL {
        return None;
    }
    let last = before.last_chunk()?;
    (*last == load || before == [load.as_slice(), &MOVES].concat()).then_some(*last)
}

/// A relative jump or call of five bytes, as far as it reaches.
fn five(opcode: u8, from: u64, to: u64) -> Option<[u8; 5]> {
    let distance = to.wrapping_sub(from.wrapping_add(5)).cast_signed();
    let [a, b, c, d] = i32::try_from(distance).ok()?.to_le_bytes();
    Some([opcode, a, b, c, d])
}

/// What the first five bytes of a call at `from` become.
pub(in super::super::super) fn jump(from: u64, to: u64) -> Option<[u8; 5]> {
    five(0xe9, from, to)
}

/// Entrances at `from` that lead to the gate: the number of the call is in rax already.
pub(in super::super::super) fn closed(from: u64, gate: u64) -> Vec<u8> {
    let mut code = Vec::new();
    for at in 0..CALLS.len() as u64 {
        code.extend(five(0xe9, from + ENTRANCE * at, gate).expect("both are in the same file"));
        code.resize(code.len().next_multiple_of(8), 0xcc);
    }
    code
}

/// Does what the displaced instruction did; below the red zone (System V ABI, 3.2.2) calls the entrance, the place of a
/// call in [`CALLS`]; and returns to `back`.
pub(in super::super::super) fn trampoline(
    at: u64,
    displaced: Displaced,
    entrance: usize,
    code: u64,
    back: u64,
) -> Option<[u8; TRAMPOLINE]> {
    const DOWN: [u8; 5] = [0x48, 0x8d, 0x64, 0x24, 0x80];
    const UP: [u8; 8] = [0x48, 0x8d, 0xa4, 0x24, 0x80, 0, 0, 0];
    let entrance = code + ENTRANCE * entrance as u64;
    let mut out = displaced.to_vec();
    out.extend(DOWN);
    out.extend(five(0xe8, at + 10, entrance)?);
    out.extend(UP);
    out.extend(five(0xe9, at + 23, back)?);
    out.resize(TRAMPOLINE, 0xcc);
    out.try_into().ok()
}

/// Code that maps the file of this path, and returns over the red zone with all registers as they were; where that fails
/// it traps. Also gives where it goes on after the trap.
pub(in super::super::super) fn setup(path: &std::ffi::CStr, length: u32) -> (Vec<u8>, u64) {
    let mut code: Vec<u8> = vec![
        0x50, 0x57, 0x56, 0x52, // push rax, rdi, rsi, rdx
        0x41, 0x52, 0x41, 0x50, 0x41, 0x51, // push r10, r8, r9
    ];
    // openat(AT_FDCWD, path, O_CLOEXEC, a mode with which it does not stop)
    code.extend([0xb8, 1, 1, 0, 0]); // mov eax, 257
    code.extend([0xbf, 0x9c, 0xff, 0xff, 0xff]); // mov edi, -100
    let name = code.len();
    code.extend([0x48, 0x8d, 0x35, 0, 0, 0, 0]); // lea rsi, [rip + path]
    code.push(0xba); // mov edx, flags
    code.extend(libc::O_CLOEXEC.to_le_bytes());
    code.extend([0x41, 0xba]); // mov r10d, mode
    code.extend(NO_MODE.to_le_bytes());
    code.extend([0x0f, 0x05, 0x85, 0xc0]); // syscall; test eax, eax
    let no_file = code.len();
    code.extend([0x78, 0]); // js trap
    code.extend([0x41, 0x89, 0xc0]); // mov r8d, eax
    // mmap(BASE, length, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED_NOREPLACE, file, 0): what is written to the file is
    // seen all the same, as long as nobody has changed the page for this process alone.
    code.extend([0xb8, 9, 0, 0, 0]);
    code.extend([0x48, 0xbf]); // movabs rdi
    code.extend(BASE.to_le_bytes());
    code.push(0xbe);
    code.extend(length.to_le_bytes());
    code.push(0xba);
    code.extend((libc::PROT_READ | libc::PROT_EXEC).to_le_bytes());
    code.extend([0x41, 0xba]);
    code.extend((libc::MAP_PRIVATE | libc::MAP_FIXED_NOREPLACE).to_le_bytes());
    code.extend([0x45, 0x31, 0xc9]); // xor r9d, r9d
    code.extend([0x0f, 0x05, 0x50]); // syscall; push rax
    // close(file)
    code.extend([0xb8, 3, 0, 0, 0, 0x44, 0x89, 0xc7, 0x0f, 0x05]);
    code.extend([0x58, 0x48, 0x85, 0xc0]); // pop rax; test rax, rax
    let no_memory = code.len();
    code.extend([0x78, 0]); // js trap
    let restore: [u8; 10] = [0x41, 0x59, 0x41, 0x58, 0x41, 0x5a, 0x5a, 0x5e, 0x5f, 0x58];
    code.extend(restore);
    code.extend([0xc2, 128, 0]); // ret 128
    for at in [no_file, no_memory] {
        let distance = code.len() - (at + 2);
        code[at + 1] = u8::try_from(distance).expect("a short code");
    }
    code.extend(restore);
    code.push(0xcc); // int3
    let trapped = code.len() as u64;
    code.extend([0xc2, 128, 0]); // ret 128
    let distance = u32::try_from(code.len() - (name + 7)).expect("a short code");
    code[name + 3..name + 7].copy_from_slice(&distance.to_le_bytes());
    code.extend(path.to_bytes_with_nul());
    (code, trapped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_known_by_its_bytes() {
        let stat = [0xb8, 6, 1, 0, 0];
        let mut code = [0x90; CALL];
        code[8..13].copy_from_slice(&stat);
        code[13..].copy_from_slice(&SYSCALL);
        assert_eq!(displaced(&code, 262), Some(stat));
        assert_eq!(displaced(&code, 257), None);
        let open = [
            0xb8, 1, 1, 0, 0, 0x48, 0x89, 0xfe, 0xbf, 0x9c, 0xff, 0xff, 0xff, 0x0f, 0x05,
        ];
        assert_eq!(displaced(&open, 257), Some([0xbf, 0x9c, 0xff, 0xff, 0xff]));
        assert_eq!(displaced(&open, 262), None);
        // The end of a longer instruction looks like another one.
        let mut other = open;
        other[5] = 0x49;
        assert_eq!(displaced(&other, 257), None);
    }

    #[test]
    fn what_is_too_far_is_left_alone() {
        assert_eq!(jump(0x1000, 0x1005), Some([0xe9, 0, 0, 0, 0]));
        assert_eq!(jump(0x40_0000, BASE), None);
        assert_eq!(trampoline(BASE, [0x90; 5], 0, BASE, 0x40_0000), None);
    }
}
