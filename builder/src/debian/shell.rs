//! Maintainer scripts as the commands in them, to see what they would do. Nothing is expanded, and nothing runs.

/// The simple commands of a script, in order, without what steers them. A word with a `$` stays as it stands.
pub(super) fn commands(script: &str) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    // The next word is where something is read from or written to.
    let mut redirected = false;
    let mut chars = script.chars().peekable();
    let finish = |words: &mut Vec<String>, word: &mut Option<String>, redirected: &mut bool| {
        if let Some(word) = word.take()
            && !std::mem::take(redirected)
        {
            words.push(word);
        }
    };
    let mut end = |words: &mut Vec<String>| {
        let mut words = std::mem::take(words);
        while words.first().is_some_and(|word| is_steering(word)) {
            words.remove(0);
        }
        if !words.is_empty() {
            all.push(words);
        }
    };
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(c) => word.get_or_insert_default().push(c),
            },
            '\'' | '"' => {
                let text = word.get_or_insert_default();
                while let Some(inner) = chars.next() {
                    match inner {
                        _ if inner == c => break,
                        '\\' if c == '"' => match chars.next() {
                            Some('\n') | None => {}
                            Some(escaped) => text.push(escaped),
                        },
                        inner => text.push(inner),
                    }
                }
            }
            '#' if word.is_none() => {
                while chars.peek().is_some_and(|c| *c != '\n') {
                    chars.next();
                }
            }
            '$' if chars.peek() == Some(&'{') => {
                let text = word.get_or_insert_default();
                text.push(c);
                for c in chars.by_ref() {
                    text.push(c);
                    if c == '}' {
                        break;
                    }
                }
            }
            '>' | '<' => {
                // A number before it is the file's, and an `&` behind it belongs to it.
                if word
                    .as_ref()
                    .is_some_and(|word| word.bytes().all(|byte| byte.is_ascii_digit()))
                {
                    word = None;
                }
                finish(&mut words, &mut word, &mut redirected);
                while chars
                    .peek()
                    .is_some_and(|c| matches!(c, '>' | '<' | '&' | '-'))
                {
                    chars.next();
                }
                redirected = true;
            }
            ' ' | '\t' => finish(&mut words, &mut word, &mut redirected),
            '\n' | ';' | '&' | '|' | '(' | ')' | '`' => {
                finish(&mut words, &mut word, &mut redirected);
                redirected = false;
                end(&mut words);
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    finish(&mut words, &mut word, &mut redirected);
    end(&mut words);
    all
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
            | "case"
            | "esac"
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
    fn functions_are_found() {
        assert_eq!(functions("ua() {\n}\nb () {\n}\nx=$(y)"), ["ua", "b"]);
    }
}
