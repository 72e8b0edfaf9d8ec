//! gitignore(5) patterns over the paths of a tree, and the selection that `include`, `exclude` and ignore files make.
//!
//! The only home of `ignore`. Must never know a host's file system: it sees paths, and whether they are directories.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use immbuild_cas::path::RelPath;

/// A pattern that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` is no pattern: {reason}")]
pub struct PatternError {
    /// The pattern as it was written.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Patterns in the order they were written; the last one that matches a path decides.
#[derive(Clone, Debug)]
pub struct Patterns(Gitignore);

impl Patterns {
    /// These patterns. One that could never match (empty, a comment) is an error: in a spec it is a mistake.
    pub fn new(patterns: &[String]) -> Result<Self, PatternError> {
        let mut builder = GitignoreBuilder::new("");
        for pattern in patterns {
            if is_nothing(pattern) {
                return Err(PatternError {
                    pattern: pattern.clone(),
                    reason: "it names nothing".to_owned(),
                });
            }
            add(&mut builder, pattern)?;
        }
        build(&builder)
    }

    /// The lines of an ignore file, read as git reads a `.gitignore`: blank lines and those with `#` in front say
    /// nothing, a byte order mark in front and carriage returns at line ends are no part of them.
    pub fn of_ignore_file(bytes: &[u8]) -> Result<Self, PatternError> {
        let mut builder = GitignoreBuilder::new("");
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        for line in bytes.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let line = std::str::from_utf8(line).map_err(|error| PatternError {
                pattern: String::from_utf8_lossy(line).into_owned(),
                reason: error.to_string(),
            })?;
            if !is_nothing(line) {
                add(&mut builder, line)?;
            }
        }
        build(&builder)
    }

    /// What the patterns say of this very path, relative to where they stand: yes, no (`!`), or nothing.
    ///
    /// What they say of the directories above it is the caller's to ask.
    pub fn matches(&self, path: &RelPath, is_dir: bool) -> Option<bool> {
        if path.is_root() {
            return None;
        }
        self.matches_bytes(path.as_bytes(), is_dir)
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn matches_bytes(&self, path: &[u8], is_dir: bool) -> Option<bool> {
        match self.0.matched(Path::new(OsStr::from_bytes(path)), is_dir) {
            Match::None => None,
            Match::Ignore(_) => Some(true),
            Match::Whitelist(_) => Some(false),
        }
    }
}

/// Is this line empty or a comment, or does it leave nothing once its marks are taken off?
fn is_nothing(pattern: &str) -> bool {
    let rest = pattern.trim_end_matches(' ');
    let rest = rest.strip_prefix('!').unwrap_or(rest);
    pattern.starts_with('#') || matches!(rest, "" | "/")
}

fn add(builder: &mut GitignoreBuilder, pattern: &str) -> Result<(), PatternError> {
    builder
        .add_line(None, &with_literal_braces(pattern))
        .map(|_| ())
        .map_err(|error| PatternError {
            pattern: pattern.to_owned(),
            reason: error.to_string(),
        })
}

fn build(builder: &GitignoreBuilder) -> Result<Patterns, PatternError> {
    builder.build().map(Patterns).map_err(|error| PatternError {
        pattern: String::new(),
        reason: error.to_string(),
    })
}

/// `{a,b}` is three plain characters and two letters to git, and a choice to the library: braces outside of brackets
/// are put into brackets.
fn with_literal_braces(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' if !in_class => {
                out.push(c);
                out.extend(chars.next());
            }
            '{' | '}' if !in_class => {
                out.extend(['[', c, ']']);
            }
            _ => {
                // A bracket that is never closed is a plain character, also to the library.
                in_class = match c {
                    '[' if !in_class => chars.as_str().contains(']'),
                    ']' => false,
                    _ => in_class,
                };
                out.push(c);
            }
        }
    }
    out
}

/// What `include` picks and `exclude` leaves of it.
///
/// `include` picks a path when the nearest of the path and the directories above it that a pattern speaks of is picked;
/// no `include` at all picks everything. `exclude` removes a path and everything below it, and removal wins; so a `!` in
/// `exclude` takes back only what was not removed with its directory, as in git.
#[derive(Clone, Debug)]
pub struct Selection {
    include: Option<Patterns>,
    exclude: Patterns,
    /// For each pattern of `include` that picks, the names with which every path it can match begins.
    heads: Vec<Vec<Box<[u8]>>>,
}

impl Selection {
    /// The selection by these patterns.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, PatternError> {
        Ok(Self {
            include: (!include.is_empty())
                .then(|| Patterns::new(include))
                .transpose()?,
            exclude: Patterns::new(exclude)?,
            heads: include
                .iter()
                .map(|pattern| literal_head(pattern))
                .collect(),
        })
    }

    /// Is this path picked for itself? A directory above a picked one may not be, and is made all the same.
    pub fn picks(&self, path: &RelPath, is_dir: bool) -> bool {
        !self.removes(path, is_dir) && self.includes(path, is_dir)
    }

    /// Can anything below this directory be picked? False only when certainly nothing can.
    pub fn may_pick_below(&self, dir: &RelPath) -> bool {
        if self.removes(dir, true) {
            return false;
        }
        self.include.is_none()
            || self.includes(dir, true)
            || self.heads.iter().any(|head| {
                // Either lies above the other.
                dir.names()
                    .zip(head)
                    .all(|(name, expected)| name == &**expected)
            })
    }

    fn includes(&self, path: &RelPath, is_dir: bool) -> bool {
        let Some(include) = &self.include else {
            return true;
        };
        upwards(path, is_dir)
            .find_map(|(prefix, is_dir)| include.matches_bytes(prefix, is_dir))
            .unwrap_or(false)
    }

    fn removes(&self, path: &RelPath, is_dir: bool) -> bool {
        !self.exclude.is_empty()
            && upwards(path, is_dir)
                .any(|(prefix, is_dir)| self.exclude.matches_bytes(prefix, is_dir) == Some(true))
    }
}

/// The path, then each directory above it, without the root.
fn upwards(path: &RelPath, is_dir: bool) -> impl Iterator<Item = (&[u8], bool)> {
    let bytes = path.as_bytes();
    let whole = (!bytes.is_empty()).then_some((bytes, is_dir));
    std::iter::successors(whole, |(prefix, _)| {
        let slash = prefix.iter().rposition(|byte| *byte == b'/')?;
        Some((&prefix[..slash], true))
    })
}

/// The names with which every path that `pattern` can match begins: none for one that matches at any depth.
fn literal_head(pattern: &str) -> Vec<Box<[u8]>> {
    let pattern = pattern.trim_end_matches([' ', '/']);
    let is_anchored = pattern.contains('/');
    let names = pattern.strip_prefix('/').unwrap_or(pattern).split('/');
    names
        .take_while(|name| is_anchored && !name.contains(['*', '?', '[', '\\']))
        .map(|name| name.as_bytes().into())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Texts = &'static [&'static str];

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).expect("a path")
    }

    fn selection(include: &[&str], exclude: &[&str]) -> Selection {
        let owned =
            |patterns: &[&str]| patterns.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
        Selection::new(&owned(include), &owned(exclude)).expect("patterns")
    }

    #[test]
    fn patterns_mean_what_they_mean_to_git() {
        // Checked against `git check-ignore --no-index` of git 2.47.
        for (pattern, subject, is_dir, expected) in [
            ("*.o", "a.o", false, Some(true)),
            ("*.o", "src/a.o", false, Some(true)),
            ("/*.o", "src/a.o", false, None),
            ("src/*.o", "src/a.o", false, Some(true)),
            ("src/*.o", "x/src/a.o", false, None),
            ("**/src/*.o", "x/src/a.o", false, Some(true)),
            ("src/**", "src", true, None),
            ("src/**", "src/a/b", false, Some(true)),
            ("build/", "build", true, Some(true)),
            ("build/", "build", false, None),
            ("build/", "x/build", true, Some(true)),
            ("a/**/b", "a/b", false, Some(true)),
            ("a/**/b", "a/x/y/b", false, Some(true)),
            ("!keep", "keep", false, Some(false)),
            ("\\!keep", "!keep", false, Some(true)),
            ("\\#keep", "#keep", false, Some(true)),
            ("x.{a,b}", "x.a", false, None),
            ("x.{a,b}", "x.{a,b}", false, Some(true)),
            ("x.[{]", "x.{", false, Some(true)),
            ("x\\{", "x{", false, Some(true)),
            ("[ab]c", "bc", false, Some(true)),
            ("[!ab]c", "bc", false, None),
            ("?.c", "é.c", false, None),
            ("a ", "a", false, Some(true)),
        ] {
            let patterns = Patterns::new(&[pattern.to_owned()]).expect("a pattern");
            let actual = patterns.matches(&path(subject), is_dir);
            assert_eq!(actual, expected, "pattern `{pattern}`, path `{subject}`");
        }
    }

    #[test]
    fn a_name_that_is_no_text_can_be_matched() {
        let patterns = Patterns::new(&["*.o".to_owned()]).expect("a pattern");
        let path = RelPath::new(*b"src/\xff.o").expect("a path");
        assert_eq!(patterns.matches(&path, false), Some(true));
    }

    #[test]
    fn a_pattern_that_names_nothing_is_refused() {
        for pattern in ["", "  ", "# note", "!", "/", "!/"] {
            let error = Patterns::new(&[pattern.to_owned()]).expect_err(pattern);
            assert_eq!(error.pattern, pattern);
        }
        let error = Patterns::new(&["a[z-a]".to_owned()]).expect_err("a bad range");
        assert_eq!(error.pattern, "a[z-a]");
    }

    #[test]
    fn an_ignore_file_is_read_as_git_reads_it() {
        let text = b"\xef\xbb\xbf# built\r\n*.o\r\n\r\n!main.o\n";
        let patterns = Patterns::of_ignore_file(text).expect("patterns");
        assert_eq!(patterns.matches(&path("a.o"), false), Some(true));
        assert_eq!(patterns.matches(&path("main.o"), false), Some(false));
        assert_eq!(patterns.matches(&path("# built"), false), None);
        let error = Patterns::of_ignore_file(b"ok\n\xff\n").expect_err("no text");
        assert_eq!(error.pattern, "\u{fffd}");
    }

    #[test]
    fn include_picks_and_exclude_removes() {
        // include, exclude, path, directory?, picked?
        let table: &[(Texts, Texts, &str, bool, bool)] = &[
            (&[], &[], "a", false, true),
            (&["*.toml"], &[], "a.toml", false, true),
            (&["*.toml"], &[], "x/y/a.toml", false, true),
            (&["*.toml"], &[], "x/y", true, false),
            (&["src"], &[], "src/a/b.c", false, true),
            (&["src", "!src/gen"], &[], "src/gen/b.c", false, false),
            (&["src", "!src/gen"], &[], "src/a/b.c", false, true),
            (&["src"], &["*.o"], "src/a.o", false, false),
            (&["src/a.o"], &["*.o"], "src/a.o", false, false),
            (&[], &["target"], "target/debug/x", false, false),
            (&[], &["*.o", "!main.o"], "main.o", false, true),
            (&[], &["out", "!out/keep"], "out/keep", false, false),
            (&[], &["out/*", "!out/keep"], "out/keep", false, true),
            (&[], &["build/"], "build", false, true),
        ];
        for (include, exclude, subject, is_dir, expected) in table {
            let actual = selection(include, exclude).picks(&path(subject), *is_dir);
            assert_eq!(actual, *expected, "{include:?} {exclude:?} {subject}");
        }
    }

    #[test]
    fn directories_in_which_nothing_can_be_picked_are_known() {
        let table: &[(Texts, Texts, &str, bool)] = &[
            (&[], &[], "", true),
            (&[], &["target"], "target", false),
            (&[], &["target"], "target/debug", false),
            (&["*.toml"], &[], "x/y", true),
            (&["/src/lib/*.c"], &[], "", true),
            (&["/src/lib/*.c"], &[], "src", true),
            (&["/src/lib/*.c"], &[], "src/lib", true),
            (&["/src/lib/*.c"], &[], "src/lib/x", true),
            (&["/src/lib/*.c"], &[], "src/bin", false),
            (&["/src/lib/*.c"], &[], "doc", false),
            (&["src/lib"], &[], "doc", false),
            (&["src/lib"], &[], "src/lib/deep/er", true),
            (&["**/lib/a"], &[], "doc", true),
            (&["lib/"], &[], "doc", true),
            (&["src/lib", "!src/lib/x"], &[], "doc", false),
            (&["/src"], &["/src"], "src", false),
        ];
        for (include, exclude, subject, expected) in table {
            let actual = selection(include, exclude).may_pick_below(&path(subject));
            assert_eq!(actual, *expected, "{include:?} {exclude:?} {subject}");
        }
    }
}
