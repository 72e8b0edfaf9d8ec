//! `cargo bless [CASE…]`: takes what is built now as what is expected from now on.
//!
//! A golden is changed on purpose, in a commit of its own, with a line in the changelog that says why.

#![allow(clippy::print_stdout, reason = "it says what to do next")]

use std::fs;

use anyhow::{Result, ensure};
use golden_tests::goldens::{CASES, difference, digest_file, digest_of_all, expected};

fn main() -> Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    for name in &wanted {
        ensure!(
            CASES.iter().any(|case| case.name == name),
            "there is no case `{name}`"
        );
    }
    for case in CASES {
        if !wanted.is_empty() && wanted.iter().all(|name| name != case.name) {
            continue;
        }
        let found = case.build(2)?;
        let expect = case.expect();
        match difference(&expected(case).unwrap_or_default(), &found) {
            None => continue,
            Some(difference) => println!("{}: {difference}", case.name),
        }
        if expect.exists() {
            fs::remove_dir_all(&expect)?;
        }
        fs::create_dir_all(&expect)?;
        for (name, bytes) in found {
            fs::write(expect.join(name), bytes)?;
        }
    }
    let digest = digest_of_all()?;
    fs::write(digest_file(), format!("{digest}\n"))?;
    println!(
        "CHANGELOG.md, under \"Changes to image bytes\", what changed and:\n- goldens: {digest}"
    );
    Ok(())
}
