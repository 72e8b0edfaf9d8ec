//! Maintainer scripts as the commands in them, to see what they would do. Nothing is expanded, and nothing runs.

use std::iter::Peekable;
use std::str::Chars;

/// What a script is made of.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    /// The next word is where something is read from or written to.
    Redirection,
    /// What ends a command, and is none of the below.
    End,
    /// `)`.
    Close,
    /// `;;`.
    NextCase,
}

/// The simple commands of a script, in order, without what steers them. A word with a `$` stays as it stands.
pub(super) fn commands(script: &str) -> Vec<Vec<String>> {
    let mut commands = Commands::default();
    for token in Tokens::new(script) {
        commands.take(token);
    }
    commands.end();
    commands.all
}

/// Commands as they are found.
#[derive(Default)]
struct Commands {
    all: Vec<Vec<String>>,
    words: Vec<String>,
    redirected: bool,
    /// How many `case` the next token is in.
    cases: u32,
    /// Which part of the innermost of them.
    part: Part,
}

#[derive(Default, PartialEq, Eq)]
enum Part {
    /// Between `case` and `in`.
    Head,
    /// Up to `)`.
    Pattern,
    /// Commands, as outside of any.
    #[default]
    Body,
}

impl Commands {
    fn take(&mut self, token: Token) {
        match (&self.part, token) {
            (Part::Head, Token::Word(word)) if word == "in" => self.part = Part::Pattern,
            (Part::Pattern, Token::Word(word)) if word == "esac" => self.end_case(),
            (Part::Pattern, Token::Close) => self.part = Part::Body,
            (Part::Head | Part::Pattern, _) => {}
            (Part::Body, Token::Word(word)) => self.word(word),
            (Part::Body, Token::Redirection) => self.redirected = true,
            (Part::Body, Token::NextCase) => {
                self.end();
                if self.cases > 0 {
                    self.part = Part::Pattern;
                }
            }
            (Part::Body, Token::End | Token::Close) => self.end(),
        }
    }

    fn word(&mut self, word: String) {
        if std::mem::take(&mut self.redirected) {
            return;
        }
        match word.as_str() {
            _ if !self.words.is_empty() => self.words.push(word),
            "case" => {
                self.cases += 1;
                self.part = Part::Head;
            }
            "esac" => self.end_case(),
            word if is_steering(word) => {}
            _ => self.words.push(word),
        }
    }

    fn end_case(&mut self) {
        self.cases = self.cases.saturating_sub(1);
        self.part = Part::Body;
    }

    fn end(&mut self) {
        self.redirected = false;
        if !self.words.is_empty() {
            self.all.push(std::mem::take(&mut self.words));
        }
    }
}

/// A script's tokens.
struct Tokens<'t> {
    chars: Peekable<Chars<'t>>,
    /// What comes behind the word that was just given.
    next: Option<Token>,
    /// How texts end that begin with the next line, and whether tabs may stand before that.
    documents: Vec<(String, bool)>,
    /// The next word is such an end.
    document: Option<bool>,
}

impl<'t> Tokens<'t> {
    fn new(script: &'t str) -> Self {
        Self {
            chars: script.chars().peekable(),
            next: None,
            documents: Vec::new(),
            document: None,
        }
    }

    /// The text between here and a quotation mark.
    fn quoted(&mut self, mark: char, word: &mut String) {
        while let Some(inner) = self.chars.next() {
            match inner {
                _ if inner == mark => break,
                '\\' if mark == '"' => match self.chars.next() {
                    Some('\n') | None => {}
                    Some(escaped) => word.push(escaped),
                },
                inner => word.push(inner),
            }
        }
    }

    /// What stands behind a `$` as far as that belongs to the word.
    fn expansion(&mut self, word: &mut String) {
        let mut ahead = self.chars.clone();
        let closing = match (ahead.next(), ahead.next()) {
            (Some('{'), _) => "}",
            // Of `$(command)` the command is one of its own.
            (Some('('), Some('(')) => "))",
            _ => return,
        };
        for c in self.chars.by_ref() {
            word.push(c);
            if word.ends_with(closing) {
                break;
            }
        }
    }

    /// The operator that begins with `<` or `>`.
    fn redirection(&mut self, first: char) -> Token {
        let mut text = String::from(first);
        while let Some(c) = self
            .chars
            .next_if(|c| matches!(c, '>' | '<' | '&' | '-' | '|'))
        {
            text.push(c);
        }
        self.document = match text.as_str() {
            "<<" => Some(false),
            "<<-" => Some(true),
            _ => None,
        };
        Token::Redirection
    }

    /// Leaves out the texts that begin with this line.
    fn skip_documents(&mut self) {
        for (end, is_indented) in std::mem::take(&mut self.documents) {
            loop {
                let mut line = String::new();
                while let Some(c) = self.chars.next_if(|c| *c != '\n') {
                    line.push(c);
                }
                let is_last = self.chars.next().is_none();
                let shown = if is_indented {
                    line.trim_start_matches('\t')
                } else {
                    &line
                };
                if is_last || shown == end {
                    break;
                }
            }
        }
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        if let Some(token) = self.next.take() {
            return Some(token);
        }
        let document = self.document.take();
        let mut is_line = false;
        let mut word: Option<String> = None;
        let behind = loop {
            let Some(c) = self.chars.next() else {
                break None;
            };
            match c {
                '\\' => match self.chars.next() {
                    Some('\n') | None => {}
                    Some(c) => word.get_or_insert_default().push(c),
                },
                '\'' | '"' => self.quoted(c, word.get_or_insert_default()),
                '#' if word.is_none() => while self.chars.next_if(|c| *c != '\n').is_some() {},
                '$' => {
                    let text = word.get_or_insert_default();
                    text.push(c);
                    self.expansion(text);
                }
                '>' | '<' => {
                    // A number before it is the file's.
                    word = word.filter(|word| !word.bytes().all(|byte| byte.is_ascii_digit()));
                    break Some(self.redirection(c));
                }
                ' ' | '\t' if word.is_none() => {}
                ' ' | '\t' => break None,
                '\n' => {
                    is_line = true;
                    break Some(Token::End);
                }
                ';' if self.chars.next_if_eq(&';').is_some() => break Some(Token::NextCase),
                ')' => break Some(Token::Close),
                ';' | '&' | '|' | '(' | '`' => break Some(Token::End),
                c => word.get_or_insert_default().push(c),
            }
        };
        if let (Some(is_indented), Some(word)) = (document, &word) {
            self.documents.push((word.clone(), is_indented));
        }
        if is_line {
            self.skip_documents();
        }
        match word {
            Some(word) => {
                self.next = behind;
                Some(Token::Word(word))
            }
            None => behind,
        }
    }
}

fn is_steering(word: &str) -> bool {
    matches!(
        word,
        "if" | "then"
            | "else"
            | "elif"
            | "fi"
            | "while"
            | "until"
            | "do"
            | "done"
            | "!"
            | "{"
            | "}"
    )
}

/// The functions that a script defines: words right before `()`.
pub(super) fn functions(script: &str) -> Vec<&str> {
    script
        .match_indices("()")
        .filter_map(|(at, _)| {
            let before = script[..at].trim_end_matches([' ', '\t']);
            let start = before
                .rfind(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-')))
                .map_or(0, |at| at + 1);
            let name = &before[start..];
            (!name.is_empty()).then_some(name)
        })
        .collect()
}

/// Is this word known without running anything?
pub(super) fn is_literal(word: &str) -> bool {
    !word.contains(['$', '*', '?'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_taken_apart() {
        let script = "\
#!/bin/sh
set -e  # stop
if [ \"$1\" = configure ] && ! getent passwd x >/dev/null 2>&1; then
    update-alternatives --install /usr/bin/awk awk /usr/bin/mawk 5 \\
        --slave '/a b' c \"d\"
fi
";
        assert_eq!(
            commands(script),
            [
                vec!["set", "-e"],
                vec!["[", "$1", "=", "configure", "]"],
                vec!["getent", "passwd", "x"],
                vec![
                    "update-alternatives",
                    "--install",
                    "/usr/bin/awk",
                    "awk",
                    "/usr/bin/mawk",
                    "5",
                    "--slave",
                    "/a b",
                    "c",
                    "d"
                ],
            ]
        );
    }

    #[test]
    fn patterns_and_texts_are_no_commands() {
        let script = "\
case \"$1\" in
    configure | auto|arch)
        case $2 in (a) one x ;; esac
        two 2>&1;;
    *) three
esac
four <<EOF > /etc/file; five
six
EOF
seven <<-'END'
\teight
\tEND
if nine=$((1 + 2)); then ten; fi
";
        let commands = commands(script);
        let names: Vec<&str> = commands.iter().map(|words| words[0].as_str()).collect();
        assert_eq!(
            names,
            [
                "one",
                "two",
                "three",
                "four",
                "five",
                "seven",
                "nine=$((1 + 2))",
                "ten"
            ]
        );
    }

    #[test]
    fn functions_are_found() {
        assert_eq!(functions("ua() {\n}\nb () {\n}\nx=$(y)"), ["ua", "b"]);
    }
}
