//! The code that the kernel maps into every program for reading clocks without a call (vdso(7)). Programs find it
//! by an entry that we hide, but it is still there: its functions are made to make the call.

use super::arch;
use super::sys;

/// What takes the place of a part of it.
#[derive(Debug, Default)]
pub(super) struct Patch {
    /// Where, from its beginning.
    pub(super) at: u64,
    pub(super) code: Vec<u8>,
    /// Where the code is that was to be put into it, if there was room.
    pub(super) more: Option<u64>,
}

/// Code for its functions, and `more` where they were longer than they are now. The same for every process of a machine;
/// empty where there is no vDSO.
pub(super) fn patch(more: &[u8]) -> Patch {
    let Some(base) = sys::own_vdso() else {
        return Patch::default();
    };
    let mut image = vec![0; 16 << 10];
    let own = rustix::process::getpid().as_raw_nonzero().get();
    // What lies behind its last page is not mapped: then less is read.
    let mut length = image.len();
    while sys::read_memory(own, base, &mut image[..length]).is_err() && length > 4096 {
        length -= 4096;
    }
    image.truncate(length);
    patch_of(&image, more).unwrap_or_default()
}

fn patch_of(image: &[u8], more: &[u8]) -> Option<Patch> {
    const CALL: usize = 16;
    let functions = functions(image)?;
    let end = |function: &Function| function.at + function.length.max(function.code.len());
    let at = functions.iter().map(|function| function.at).min()?;
    let mut code = image.get(at..functions.iter().map(end).max()?)?.to_vec();
    let mut put = |place: usize, bytes: &[u8]| {
        code[place - at..place - at + bytes.len()].copy_from_slice(bytes);
    };
    for function in &functions {
        put(function.at, &function.code);
    }
    let room = functions
        .iter()
        .find(|function| function.length >= CALL + more.len());
    if let Some(function) = room {
        put(function.at + CALL, more);
    }
    Some(Patch {
        at: at as u64,
        code,
        more: room.map(|function| (function.at + CALL) as u64),
    })
}

/// A function whose work is a call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Function {
    at: usize,
    length: usize,
    code: [u8; 8],
}

fn functions(image: &[u8]) -> Option<Vec<Function>> {
    const DYNAMIC: u32 = 2;
    const STRINGS: u64 = 5;
    const SYMBOLS: u64 = 6;
    /// Bytes of a symbol, of a program header, of a dynamic entry (elf(5)).
    const SYMBOL: usize = 24;
    const HEADER: usize = 56;
    const ENTRY: usize = 16;
    let word = |at: usize| -> Option<u64> {
        Some(u64::from_ne_bytes(image.get(at..at + 8)?.try_into().ok()?))
    };
    let half = |at: usize| -> Option<u32> {
        Some(u32::from_ne_bytes(image.get(at..at + 4)?.try_into().ok()?))
    };
    let place = |value: u64| usize::try_from(value).ok();
    let headers = place(word(32)?)?;
    let count = usize::try_from(half(56)? & 0xffff).ok()?;
    let dynamic = (0..count)
        .map(|number| headers + number * HEADER)
        .find(|at| half(*at) == Some(DYNAMIC))?;
    let mut at = place(word(dynamic + 8)?)?;
    let (mut strings, mut symbols) = (None, None);
    while word(at)? != 0 {
        match word(at)? {
            STRINGS => strings = place(word(at + 8)?),
            SYMBOLS => symbols = place(word(at + 8)?),
            _ => {}
        }
        at += ENTRY;
    }
    // The names follow the symbols.
    let (strings, symbols) = (strings?, symbols?);
    let mut found = Vec::new();
    let mut at = symbols;
    while at + SYMBOL <= strings {
        let name = strings + usize::try_from(half(at)?).ok()?;
        let name = image.get(name..)?.split(|byte| *byte == 0).next()?;
        if let Some(code) = arch::vdso_call(name) {
            found.push(Function {
                at: place(word(at + 8)?)?,
                length: place(word(at + 16)?)?,
                code,
            });
        }
        at += SYMBOL;
    }
    found.sort_unstable();
    found.dedup();
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_functions_of_this_kernel_are_found() {
        let more = [0x90; 200];
        let patch = patch(&more);
        let calls = patch.code.windows(2).filter(|code| *code == [0x0f, 0x05]);
        assert!(calls.count() >= 4, "{patch:?}");
        let at = usize::try_from(patch.more.expect("there is room") - patch.at).expect("an offset");
        assert_eq!(patch.code[at..at + more.len()], more);
        assert_eq!(functions(b"no program"), None);
    }
}
