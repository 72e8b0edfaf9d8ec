//! A lock from anybody: what is read, written and read again is the same.
#![no_main]

use immbuild::diag::{Style, render_all};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match immbuild::lock::parse(text, "spec.lock") {
        Ok(lock) => {
            let written = immbuild::lock::write(&lock);
            let again = immbuild::lock::parse(&written, "spec.lock");
            assert_eq!(again.expect("what we write is a lock"), lock);
        }
        Err(diagnostics) => {
            assert!(!diagnostics.is_empty());
            render_all(&diagnostics, Style::Plain);
        }
    }
});
