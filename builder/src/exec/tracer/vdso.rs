//! The code that the kernel maps into every program for reading clocks without a call (vdso(7)). Programs find it
//! by an entry that we hide, but it is still there: its functions are made to make the call.

use super::arch;
use super::sys;

/// Where its functions are, from its beginning, and the code to put there. The same for every process of a
/// machine; empty where there is none.
pub(super) fn calls() -> Vec<(u64, [u8; 8])> {
    let Some(base) = sys::own_vdso() else {
        return Vec::new();
    };
    let mut image = vec![0; 16 << 10];
    let own = rustix::process::getpid().as_raw_nonzero().get();
    // What lies behind its last page is not mapped: then less is read.
    let mut length = image.len();
    while sys::read_memory(own, base, &mut image[..length]).is_err() && length > 4096 {
        length -= 4096;
    }
    image.truncate(length);
    functions(&image).unwrap_or_default()
}

fn functions(image: &[u8]) -> Option<Vec<(u64, [u8; 8])>> {
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
            found.push((word(at + 8)?, code));
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
        assert!(calls().len() >= 4, "{:?}", calls());
        assert_eq!(functions(b"no program"), None);
    }
}
