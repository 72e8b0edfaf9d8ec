//! What people are told about a spec or lock that is not right: every case as it is written and as it is answered.
//!
//! `BLESS=1 cargo test -p immbuild --test told` writes the answers anew; read the difference before you commit it.
#![allow(
    clippy::disallowed_methods,
    reason = "BLESS is how a test is told to write"
)]

use std::path::Path;

use immbuild::diag::{Diagnostic, Style, render_all};

const CASE: &str = "################ ";
const ANSWER: &str = "---------------- is told\n";

fn told(name: &str, read: impl Fn(&str) -> Vec<Diagnostic>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/told")
        .join(name);
    let cases = std::fs::read_to_string(&path).expect("the cases are there");
    let mut answered = String::new();
    for case in cases.split(CASE).skip(1) {
        let (title, rest) = case.split_once('\n').expect("a case has a title");
        let (text, _) = rest
            .split_once(ANSWER)
            .unwrap_or((rest.trim_end_matches('\n'), ""));
        let answer = render_all(&read(text), Style::Plain);
        assert!(!answer.is_empty(), "{title}: nothing is told");
        let text = text.trim_end_matches('\n');
        for part in [CASE, title, "\n", text, "\n", ANSWER, &answer, "\n"] {
            answered.push_str(part);
        }
    }
    let answered = format!("{}\n", answered.trim_end_matches('\n'));
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, answered).expect("the cases can be written");
    } else {
        assert!(answered == cases, "{}", difference(&cases, &answered));
    }
}

/// The lines around the first difference.
fn difference(expected: &str, found: &str) -> String {
    let (expected, found): (Vec<&str>, Vec<&str>) =
        (expected.lines().collect(), found.lines().collect());
    let same = expected
        .iter()
        .zip(&found)
        .take_while(|(a, b)| a == b)
        .count();
    let around = |lines: &[&str]| {
        lines[same.saturating_sub(12).min(lines.len())..(same + 12).min(lines.len())].join("\n")
    };
    format!(
        "line {}\nexpected:\n{}\n\nfound:\n{}",
        same + 1,
        around(&expected),
        around(&found)
    )
}

#[test]
fn about_a_spec() {
    told("spec.txt", |text| {
        match immbuild::spec::parse(text, "spec.toml") {
            Ok(spec) => spec.warnings().to_vec(),
            Err(told) => told,
        }
    });
}

#[test]
fn about_a_lock() {
    told("lock.txt", |text| {
        immbuild::lock::parse(text, "spec.lock")
            .err()
            .unwrap_or_default()
    });
}
