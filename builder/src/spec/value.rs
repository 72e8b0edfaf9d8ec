//! Texts with a form of their own: paths, modes, owners, durations, references, ports.
//!
//! Each function takes the text as it is after substitution and gives the value, or what is wrong with it and what to
//! write instead.

use std::time::Duration;

use immbuild_cas::path::{PathError, RelPath};
use immbuild_cas::tree::Mode;

use super::model::{Owner, Port, Protocol};

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    /// Continues "`text` ", as in "is not an absolute path".
    pub(super) message: &'static str,
    pub(super) hint: Option<String>,
}

impl Complaint {
    fn new(message: &'static str, hint: impl Into<Option<String>>) -> Self {
        Self {
            message,
            hint: hint.into(),
        }
    }
}

type Checked<T> = Result<T, Complaint>;

/// "write `"/a/b"`"
fn write(text: &str) -> String {
    format!("write `\"{text}\"`")
}

/// An absolute path in the image, in the one way it can be written.
pub(super) fn image_path(text: &str) -> Checked<RelPath> {
    let clean = format!("/{}", clean(text));
    match text {
        "" => return Err(Complaint::new("is empty", None)),
        _ if !text.starts_with('/') => {
            return Err(Complaint::new("is not an absolute path", write(&clean)));
        }
        _ if text != clean && text.ends_with('/') => {
            return Err(Complaint::new("ends in a slash", write(&clean)));
        }
        _ if text != clean => {
            return Err(Complaint::new(
                "is not the plain form of a path",
                write(&clean),
            ));
        }
        _ => {}
    }
    RelPath::from_absolute(text.as_bytes()).map_err(path_complaint)
}

/// A path below a source's root. A leading slash means nothing.
pub(super) fn source_path(text: &str) -> Checked<RelPath> {
    let relative = text.strip_prefix('/').unwrap_or(text);
    let clean = clean(relative);
    if relative == clean {
        RelPath::new(relative.as_bytes()).map_err(path_complaint)
    } else if relative.ends_with('/') {
        Err(Complaint::new("ends in a slash", clean))
    } else {
        Err(Complaint::new("is not the plain form of a path", clean))
    }
}

fn path_complaint(error: PathError) -> Complaint {
    let message = match error {
        PathError::LongName => "has a name longer than 255 bytes",
        PathError::LongPath => "is longer than 4095 bytes",
        PathError::Byte => "holds a NUL",
        PathError::Empty | PathError::Dots => "is not the plain form of a path",
    };
    Complaint::new(message, None)
}

/// The names that a path comes down to: no empty ones, no `.`, and `..` done as far as it goes.
fn clean(text: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in text.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    names.join("/")
}

/// `"name"` or `"name:path"`: the name, and the path when there is one.
pub(super) fn split_reference(text: &str) -> (&str, Option<&str>) {
    match text.split_once(':') {
        None => (text, None),
        Some((name, path)) => (name, Some(path)),
    }
}

/// Four octal digits.
pub(super) fn mode(text: &str) -> Checked<Mode> {
    let octal =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    if text.len() == 4 && octal(text) {
        let bits = u32::from_str_radix(text, 8).ok().and_then(Mode::new);
        return Ok(bits.expect("four octal digits are permission bits"));
    }
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let hint = (octal(digits) && digits.len() < 4).then(|| write(&format!("{digits:0>4}")));
    Err(Complaint::new("is not a mode of four octal digits", hint))
}

/// `"name"`, `"name:group"`, `"uid:gid"`, or `"n"` for both.
pub(super) fn owner(text: &str) -> Checked<Owner> {
    let (user, group) = split_reference(text);
    let id = |text: &str| -> Option<u32> {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit())
            && (text == "0" || !text.starts_with('0'));
        text.parse().ok().filter(|id| plain && *id != u32::MAX)
    };
    match (id(user), group.map(|group| (id(group), group))) {
        (Some(uid), None) => Ok(Owner::Ids { uid, gid: uid }),
        (Some(uid), Some((Some(gid), _))) => Ok(Owner::Ids { uid, gid }),
        (None, None) if is_account(user) => Ok(Owner::Named {
            user: user.into(),
            group: None,
        }),
        (None, Some((None, group))) if is_account(user) && is_account(group) => Ok(Owner::Named {
            user: user.into(),
            group: Some(group.into()),
        }),
        (Some(_), Some((None, group))) if is_account(group) => Err(mixed()),
        (None, Some((Some(_), _))) if is_account(user) => Err(mixed()),
        _ => Err(Complaint::new(
            "is not an owner",
            "write `\"name\"`, `\"name:group\"`, `\"uid:gid\"`, or `\"n\"` for both".to_owned(),
        )),
    }
}

fn mixed() -> Complaint {
    Complaint::new(
        "mixes a name and a number",
        "write both as names or both as numbers".to_owned(),
    )
}

/// What `useradd` takes for a name: `[a-z_][a-z0-9_-]*`, at most 32 bytes.
pub(super) fn is_account(text: &str) -> bool {
    let mut bytes = text.bytes();
    let first = bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_');
    first
        && text.len() <= 32
        && bytes.all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-')
        })
}

/// `"90s"`, `"30m"`, `"2h"`: more than nothing, at most a year.
pub(super) fn duration(text: &str) -> Checked<Duration> {
    let bad = || {
        Complaint::new(
            "is not a duration",
            "write a whole number and `s`, `m` or `h`, such as `\"90s\"` or `\"30m\"`".to_owned(),
        )
    };
    let unit = match text.bytes().last() {
        Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'h') => 3600,
        _ => return Err(bad()),
    };
    let digits = &text[..text.len() - 1];
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    let seconds = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
    match seconds {
        Some(0) => Err(Complaint::new("is no time at all", None)),
        Some(seconds) if seconds <= 365 * 86_400 => Ok(Duration::from_secs(seconds)),
        _ => Err(Complaint::new("is longer than a year", None)),
    }
}

/// `"53/udp"`, `"8080/tcp"`.
pub(super) fn port(text: &str) -> Checked<Port> {
    let (number, protocol) = match text.split_once('/') {
        Some((number, "tcp")) => (number, Protocol::Tcp),
        Some((number, "udp")) => (number, Protocol::Udp),
        Some((_, _)) => {
            return Err(Complaint::new(
                "is not a port",
                "write the number, or `\"NUMBER/udp\"`".to_owned(),
            ));
        }
        None => (text, Protocol::Tcp),
    };
    let digits = !number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit());
    match number.parse::<u16>() {
        Ok(number) if digits => Ok(Port { number, protocol }),
        _ => Err(Complaint::new(
            "is not a port",
            "a port is a number from 1 to 65535".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_way_to_write_it() {
        let path = |text: &str| RelPath::new(text.as_bytes()).expect("a path");
        assert_eq!(image_path("/"), Ok(RelPath::root()));
        assert_eq!(image_path("/usr/bin"), Ok(path("usr/bin")));
        for (text, message, hint) in [
            ("", "is empty", None),
            ("usr", "is not an absolute path", Some("/usr")),
            ("./usr/", "is not an absolute path", Some("/usr")),
            ("/usr/bin/", "ends in a slash", Some("/usr/bin")),
            ("//", "ends in a slash", Some("/")),
            (
                "/usr//bin",
                "is not the plain form of a path",
                Some("/usr/bin"),
            ),
            (
                "/usr/./a/../bin",
                "is not the plain form of a path",
                Some("/usr/bin"),
            ),
            ("/..", "is not the plain form of a path", Some("/")),
            ("/a\0", "holds a NUL", None),
        ] {
            let complaint = image_path(text).expect_err(text);
            let hint = hint.map(|hint| format!("write `\"{hint}\"`"));
            assert_eq!(
                (complaint.message, complaint.hint),
                (message, hint),
                "{text}"
            );
        }
        assert_eq!(source_path("/usr/bin"), Ok(path("usr/bin")));
        assert_eq!(source_path("usr/bin"), Ok(path("usr/bin")));
        assert_eq!(source_path("a/").expect_err("slash").hint, Some("a".into()));
        assert_eq!(
            source_path("//a").expect_err("slash").hint,
            Some("a".into())
        );
    }

    #[test]
    fn a_mode_is_four_octal_digits() {
        assert_eq!(mode("4755"), Ok(Mode::new(0o4755).expect("a mode")));
        for (text, hint) in [
            ("755", Some("write `\"0755\"`")),
            ("0o755", Some("write `\"0755\"`")),
            ("u+x", None),
            ("0888", None),
            ("00755", None),
            ("", None),
        ] {
            let found = mode(text).expect_err(text).hint;
            assert_eq!(found.as_deref(), hint, "{text}");
        }
    }

    #[test]
    fn owners_are_names_or_numbers() {
        let named = |user: &str, group: Option<&str>| {
            Ok(Owner::Named {
                user: user.into(),
                group: group.map(Into::into),
            })
        };
        assert_eq!(owner("10"), Ok(Owner::Ids { uid: 10, gid: 10 }));
        assert_eq!(owner("10:0"), Ok(Owner::Ids { uid: 10, gid: 0 }));
        assert_eq!(owner("shop"), named("shop", None));
        assert_eq!(owner("www-data:shop"), named("www-data", Some("shop")));
        for text in [
            "",
            ":",
            "a:",
            ":a",
            "1:",
            "01",
            "Shop",
            "a b",
            "4294967295",
            "-1",
            "+1",
        ] {
            assert_eq!(
                owner(text).expect_err(text).message,
                "is not an owner",
                "{text}"
            );
        }
        for text in ["shop:0", "0:shop"] {
            assert_eq!(
                owner(text).expect_err(text).message,
                "mixes a name and a number"
            );
        }
    }

    #[test]
    fn durations_say_their_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("30m"), Ok(Duration::from_secs(1800)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for text in [
            "",
            "s",
            "90",
            "1.5h",
            "-1s",
            "+1s",
            "1 s",
            "1d",
            "0s",
            "99999999999999999999s",
            "9000h",
            "1ä",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ports_are_numbers_and_protocols() {
        let udp = Port {
            number: 53,
            protocol: Protocol::Udp,
        };
        assert_eq!(port("53/udp"), Ok(udp));
        for text in ["", "0", "053/udp", "70000", "53/icmp", "+1/tcp", "http"] {
            assert!(port(text).is_err(), "{text}");
        }
    }
}
