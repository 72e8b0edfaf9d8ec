//! A spec from anybody: it is valid and resolves, or its errors can be drawn.
#![no_main]

use std::collections::BTreeMap;

use immbuild::diag::{Severity, Style, render_all};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match immbuild::spec::parse(text, "spec.toml") {
        Ok(spec) => {
            render_all(spec.warnings(), Style::Plain);
            let arguments = spec.arguments(&BTreeMap::new()).expect("nothing is asked");
            let resolved = spec.resolve_each(spec.platforms(), &arguments);
            let resolved = resolved.expect("a valid spec resolves for its platforms");
            immbuild::lock::requests(&resolved);
        }
        Err(diagnostics) => {
            assert!(
                diagnostics
                    .iter()
                    .any(|diagnostic| diagnostic.severity == Severity::Error)
            );
            render_all(&diagnostics, Style::Plain);
        }
    }
});
