//! The programs that a package brings: entry points, and scripts that ask for an interpreter.
//!
//! What is written here is part of format 1: changing it changes image bytes.

/// The longest first line that every kernel takes (`BINPRM_BUF_SIZE` of older ones).
const LINE_MAX: usize = 127;

/// A program that an entry point stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryPoint {
    /// What it is called.
    pub name: String,
    /// The module it is in.
    pub module: String,
    /// What is called in it, `main` or `App.run`.
    pub function: String,
}

/// The programs that `entry_points.txt` declares; the error says what is wrong with it.
pub fn entry_points(text: &str) -> Result<Vec<EntryPoint>, String> {
    let mut found: Vec<EntryPoint> = Vec::new();
    let mut is_program = false;
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(section) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            is_program = matches!(section.trim(), "console_scripts" | "gui_scripts");
            continue;
        }
        if !is_program {
            continue;
        }
        let bad = || format!("the entry point `{}` says no function", line.escape_debug());
        let (name, value) = line.split_once('=').ok_or_else(bad)?;
        let name = name.trim();
        // Extras that it needs are in the lock.
        let value = value.split('[').next().unwrap_or_default().trim();
        let (module, function) = value.split_once(':').ok_or_else(bad)?;
        let (module, function) = (module.trim(), function.trim());
        if !is_dotted(module) || !is_dotted(function) {
            return Err(bad());
        }
        let is_name = !name.is_empty()
            && !matches!(name, "." | "..")
            && !name.contains(['/', '\\', '\0'])
            && !name.chars().any(char::is_control);
        if !is_name {
            return Err(format!("`{}` is no name of a program", name.escape_debug()));
        }
        if found.iter().any(|known| known.name == name) {
            return Err(format!("there are two programs `{}`", name.escape_debug()));
        }
        found.push(EntryPoint {
            name: name.to_owned(),
            module: module.to_owned(),
            function: function.to_owned(),
        });
    }
    Ok(found)
}

/// Names of Python with dots between them: the text becomes part of a program.
fn is_dotted(text: &str) -> bool {
    text.split('.').all(|name| {
        let mut chars = name.chars();
        chars.next().is_some_and(|c| c.is_alphabetic() || c == '_')
            && chars.all(|c| c.is_alphanumeric() || c == '_')
    })
}

impl EntryPoint {
    /// The program, as pip writes it.
    pub fn program(&self, interpreter: &str) -> String {
        let import = self.function.split('.').next().unwrap_or_default();
        format!(
            "{}# -*- coding: utf-8 -*-\n\
             import re\n\
             import sys\n\
             from {} import {import}\n\
             if __name__ == '__main__':\n\
             \x20   sys.argv[0] = re.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])\n\
             \x20   sys.exit({}())\n",
            first_lines(interpreter),
            self.module,
            self.function,
        )
    }
}

/// What makes the kernel start an interpreter: by way of a shell where the path is too long or has a space in it.
fn first_lines(interpreter: &str) -> String {
    let line = format!("#!{interpreter}\n");
    if line.len() <= LINE_MAX && !interpreter.contains([' ', '\t']) {
        return line;
    }
    format!("#!/bin/sh\n'''exec' \"{interpreter}\" \"$0\" \"$@\"\n' '''\n")
}

/// A script of a package, which asks for its interpreter with the word `#!python`; nothing when it does not ask.
pub fn with_interpreter(script: &[u8], interpreter: &str) -> Option<Vec<u8>> {
    script.strip_prefix(b"#!python")?;
    let end = script.iter().position(|byte| *byte == b'\n');
    let rest = end.map_or(&[][..], |end| &script[end + 1..]);
    let mut out = first_lines(interpreter).into_bytes();
    out.extend_from_slice(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_points_are_read_as_importlib_reads_them() {
        let text = "[other]\nx = y:z\n\n[console_scripts]\n# a comment\nflask = flask.cli:main\n\
                    run = app.core:App.run [extra]\n[gui_scripts]\nwin=app:win\n";
        let found = entry_points(text).expect("entry points");
        let names: Vec<String> = found
            .iter()
            .map(|it| format!("{} {} {}", it.name, it.module, it.function))
            .collect();
        assert_eq!(
            names,
            [
                "flask flask.cli main",
                "run app.core App.run",
                "win app win"
            ]
        );
        for text in [
            "[console_scripts]\na = b",
            "[console_scripts]\na = b:",
            "[console_scripts]\n../a = b:c",
            "[console_scripts]\na = b:c() or os",
            "[console_scripts]\na = b:c\na = b:d",
            "[console_scripts]\n = b:c",
        ] {
            assert!(entry_points(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_long_interpreter_is_started_by_a_shell() {
        let script = b"#!pythonw -u\r\nprint()\n";
        assert_eq!(
            with_interpreter(script, "/opt/venv/bin/python3").expect("it asks"),
            b"#!/opt/venv/bin/python3\nprint()\n"
        );
        assert_eq!(with_interpreter(b"#!/bin/sh\n", "/p"), None);
        let long = format!("/{}/python3", "d".repeat(130));
        let text = String::from_utf8(with_interpreter(b"#!python", &long).expect("it asks"));
        assert!(
            text.expect("text")
                .starts_with("#!/bin/sh\n'''exec' \"/ddd")
        );
    }
}
