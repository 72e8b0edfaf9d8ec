//! A tar and a JSON text so that a person can read every byte that matters.
//!
//! Written without any code of immbuild's own reader or writer: this is what judges them.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use immbuild_cas::digest::Digest;
use immbuild_cas::path::escape;

const BLOCK: usize = 512;

/// Name, where it starts and how long it is (POSIX.1-2017, pax, "ustar Interchange Format").
const FIELDS: [(&str, usize, usize); 15] = [
    ("name", 0, 100),
    ("mode", 100, 8),
    ("uid", 108, 8),
    ("gid", 116, 8),
    ("size", 124, 12),
    ("mtime", 136, 12),
    ("type", 156, 1),
    ("link", 157, 100),
    ("magic", 257, 6),
    ("version", 263, 2),
    ("uname", 265, 32),
    ("gname", 297, 32),
    ("major", 329, 8),
    ("minor", 337, 8),
    ("prefix", 345, 155),
];

/// Every field of every header as it stands there, the records of extended headers, short contents, and how it ends.
pub fn tar_listing(tar: &[u8]) -> Result<String> {
    let mut out = String::new();
    let mut rest = tar;
    loop {
        let (header, behind) = rest.split_at_checked(BLOCK).context("no end")?;
        if header.iter().all(|byte| *byte == 0) {
            ensure!(rest.iter().all(|byte| *byte == 0), "bytes behind the end");
            writeln!(out, "end: {} blocks of zeros", rest.len() / BLOCK)?;
            return Ok(out);
        }
        let size = octal(&header[124..136])?;
        let content = behind
            .get(..size)
            .context("a member is longer than the tar")?;
        write_header(header, &mut out)?;
        if header[156] == b'x' {
            write_records(content, &mut out)?;
        } else if size > 0 {
            write_content(content, &mut out)?;
        }
        let padded = size.next_multiple_of(BLOCK);
        ensure!(
            behind[size..padded].iter().all(|byte| *byte == 0),
            "the padding is not zero"
        );
        rest = &behind[padded..];
    }
}

/// Fields in their order; what is only zeros is left out.
fn write_header(header: &[u8], out: &mut String) -> Result<()> {
    let sum: u64 = header
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            if (148..156).contains(&at) {
                32
            } else {
                u64::from(*byte)
            }
        })
        .sum();
    let stored = &header[148..156];
    ensure!(
        stored == format!("{sum:06o}\0 ").as_bytes(),
        "a header's sum is wrong or has another form"
    );
    ensure!(
        header[500..].iter().all(|byte| *byte == 0),
        "bytes behind the prefix"
    );
    let mut words = Vec::new();
    for (name, at, length) in FIELDS {
        let field = &header[at..at + length];
        let end = field.iter().rposition(|byte| *byte != 0);
        if let Some(end) = end {
            let mut word = format!("{name}=");
            escape(&field[..=end], &mut word)?;
            words.push(word);
        }
    }
    writeln!(out, "{}", words.join(" "))?;
    Ok(())
}

fn write_records(mut records: &[u8], out: &mut String) -> Result<()> {
    while !records.is_empty() {
        let space = records.iter().position(|byte| *byte == b' ');
        let space = space.context("a record without a length")?;
        let length: usize = std::str::from_utf8(&records[..space])?.parse()?;
        let (record, rest) = records.split_at_checked(length).context("a short record")?;
        let record = record.strip_suffix(b"\n").context("a record's end")?;
        out.push_str("    ");
        escape(record, out)?;
        out.push('\n');
        records = rest;
    }
    Ok(())
}

fn write_content(content: &[u8], out: &mut String) -> Result<()> {
    if content.len() > 400 {
        writeln!(out, "    {}", Digest::of(content))?;
        return Ok(());
    }
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        out.push_str("    | ");
        escape(line, out)?;
        out.push('\n');
    }
    Ok(())
}

fn octal(field: &[u8]) -> Result<usize> {
    let text = std::str::from_utf8(field)?.trim_end_matches(['\0', ' ']);
    Ok(usize::from_str_radix(text, 8)?)
}

/// A JSON text with a line for each member. Nothing is parsed: the order and the form of everything stay as they are.
pub fn indented(json: &[u8]) -> Result<String> {
    let mut out = String::new();
    let mut depth = 0;
    let mut inside = false;
    let mut escaped = false;
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(&"  ".repeat(depth));
    };
    for char in std::str::from_utf8(json)?.chars() {
        if inside {
            out.push(char);
            inside = escaped || char != '"';
            escaped = !escaped && char == '\\';
            continue;
        }
        match char {
            '{' | '[' => {
                out.push(char);
                depth += 1;
                line(&mut out, depth);
            }
            '}' | ']' => {
                depth = usize::checked_sub(depth, 1).context("brackets do not match")?;
                line(&mut out, depth);
                out.push(char);
            }
            ',' => {
                out.push(char);
                line(&mut out, depth);
            }
            _ => {
                inside = char == '"';
                out.push(char);
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::indented;

    #[test]
    fn a_text_keeps_its_order_and_its_strings() {
        let json = br#"{"b":[1,{"a":"x,{\"\\"}],"a":{}}"#;
        let shown = "{\n  \"b\":[\n    1,\n    {\n      \"a\":\"x,{\\\"\\\\\"\n    }\n  ],\n  \"a\":{\n    \n  }\n}";
        assert_eq!(indented(json).unwrap(), shown);
    }
}
