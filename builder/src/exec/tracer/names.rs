//! What system calls are called.

use syscalls::Sysno;

/// The name of a call of this architecture; `call N` for one that is newer than the list.
pub(super) fn of_call(number: i64) -> String {
    usize::try_from(number)
        .ok()
        .and_then(Sysno::new)
        .map_or_else(|| format!("call {number}"), |known| known.name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_names_and_what_has_none_a_number() {
        assert_eq!(of_call(libc::SYS_newfstatat), "newfstatat");
        assert_eq!(of_call(libc::SYS_clock_gettime), "clock_gettime");
        assert_eq!(of_call(9999), "call 9999");
        assert_eq!(of_call(-1), "call -1");
    }
}
