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
    pub(super) fix: Fix,
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fix {
    /// The text says it all.
    Plain,
    /// Write this instead.
    Write(String),
    /// Do this.
    Hint(&'static str),
}

type Checked<T> = Result<T, Complaint>;

fn plain<T>(message: &'static str) -> Checked<T> {
    let fix = Fix::Plain;
    Err(Complaint { message, fix })
}

fn write<T>(message: &'static str, text: String) -> Checked<T> {
    let fix = Fix::Write(text);
    Err(Complaint { message, fix })
}

fn hint<T>(message: &'static str, hint: &'static str) -> Checked<T> {
    let fix = Fix::Hint(hint);
    Err(Complaint { message, fix })
}

/// An absolute path in the image, in the one way it can be written.
pub(super) fn image_path(text: &str) -> Checked<RelPath> {
    let clean = format!("/{}", clean(text));
    match text {
        "" => plain("is empty"),
        _ if !text.starts_with('/') => write("is not an absolute path", clean),
        _ if text != clean && text.ends_with('/') => write("ends in a slash", clean),
        _ if text != clean => write("is not the plain form of a path", clean),
        _ => RelPath::from_absolute(text.as_bytes()).or_else(bad_path),
    }
}

/// A path below a source's root. A leading slash means nothing.
pub(super) fn source_path(text: &str) -> Checked<RelPath> {
    let relative = text.strip_prefix('/').unwrap_or(text);
    let clean = clean(relative);
    if relative == clean {
        RelPath::new(relative.as_bytes()).or_else(bad_path)
    } else if relative.ends_with('/') {
        write("ends in a slash", clean)
    } else {
        write("is not the plain form of a path", clean)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "what `or_else` gives")]
fn bad_path(error: PathError) -> Checked<RelPath> {
    plain(match error {
        PathError::LongName => "has a name longer than 255 bytes",
        PathError::LongPath => "is longer than 4095 bytes",
        PathError::Byte => "holds a NUL",
        PathError::Empty | PathError::Dots => "is not the plain form of a path",
    })
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
    let message = "is not a mode of four octal digits";
    let octal =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    let digits = text.strip_prefix("0o").unwrap_or(text);
    match u32::from_str_radix(text, 8).ok().and_then(Mode::new) {
        Some(mode) if text.len() == 4 && octal(text) => Ok(mode),
        _ if octal(digits) && digits.len() < 4 => write(message, format!("{digits:0>4}")),
        _ => plain(message),
    }
}

/// `"name"`, `"name:group"`, `"uid:gid"`, or `"n"` for both.
pub(super) fn owner(text: &str) -> Checked<Owner> {
    let (user, group) = split_reference(text);
    let named = |group: Option<&str>| {
        Ok(Owner::Named {
            user: user.into(),
            group: group.map(Into::into),
        })
    };
    match (id(user), group.map(|group| (id(group), group))) {
        (Some(uid), None) => Ok(Owner::Ids { uid, gid: uid }),
        (Some(uid), Some((Some(gid), _))) => Ok(Owner::Ids { uid, gid }),
        (None, None) if is_account(user) => named(None),
        (None, Some((None, group))) if is_account(user) && is_account(group) => named(Some(group)),
        (Some(_), Some((None, name))) if is_account(name) => mixed(),
        (None, Some((Some(_), _))) if is_account(user) => mixed(),
        _ => hint(
            "is not an owner",
            "write `\"name\"`, `\"name:group\"`, `\"uid:gid\"`, or `\"n\"` for both",
        ),
    }
}

fn mixed<T>() -> Checked<T> {
    hint(
        "mixes a name and a number",
        "write both as names or both as numbers",
    )
}

/// The number of a user or group, written plainly. The greatest one means "nobody said" to the kernel.
fn id(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = plain && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|id| plain && *id != u32::MAX)
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
    let units = [("s", 1), ("m", 60), ("h", 3600)];
    let split = units
        .into_iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)));
    let Some((digits, unit)) = split.filter(|(digits, _)| {
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    }) else {
        return hint(
            "is not a duration",
            "write a whole number and `s`, `m` or `h`, such as `\"90s\"` or `\"30m\"`",
        );
    };
    match digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)) {
        Some(0) => plain("is no time at all"),
        Some(seconds) if seconds <= 365 * 86_400 => Ok(Duration::from_secs(seconds)),
        _ => plain("is longer than a year"),
    }
}

/// `"53/udp"`, `"8080/tcp"`, `"8080"`.
pub(super) fn port(text: &str) -> Checked<Port> {
    let bad = || {
        hint(
            "is not a port",
            "write a number from 1 to 65535, or `\"NUMBER/udp\"`",
        )
    };
    let (number, protocol) = match text.split_once('/') {
        None => (text, Protocol::Tcp),
        Some((number, "tcp")) => (number, Protocol::Tcp),
        Some((number, "udp")) => (number, Protocol::Udp),
        Some(_) => return bad(),
    };
    let plain = !number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit());
    match number.parse::<u16>() {
        Ok(number) if plain => Ok(Port { number, protocol }),
        _ => bad(),
    }
}

/// Signals of Linux (signal(7)) that have a name; the others count from `SIGRTMIN` or back from `SIGRTMAX`.
const SIGNALS: [&str; 34] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

/// `"SIGTERM"`, `"SIGRTMIN+3"` (OCI image specification, "Properties"), and `"15"`, which engines take, too. They know real-time
/// signals to half way between the two ends.
pub(super) fn signal(text: &str) -> Checked<()> {
    let is_number = |text: &str, most: u8| {
        text.starts_with(|first| matches!(first, '1'..='9'))
            && text.parse::<u8>().is_ok_and(|number| number <= most)
    };
    let is_known = match text.strip_prefix("SIG") {
        None => is_number(text, 64),
        Some("RTMIN" | "RTMAX") => true,
        Some(name) => {
            let (up, down) = (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-"));
            SIGNALS.contains(&name)
                || up.is_some_and(|number| is_number(number, 15))
                || down.is_some_and(|number| is_number(number, 14))
        }
    };
    if is_known {
        return Ok(());
    }
    hint(
        "is no signal",
        "write a name such as `\"SIGTERM\"`, `\"SIGQUIT\"` or `\"SIGRTMIN+3\"`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_one_of_linux() {
        for text in [
            "SIGTERM",
            "SIGRTMIN",
            "SIGRTMIN+3",
            "SIGRTMAX-14",
            "SIGXFSZ",
            "9",
            "64",
        ] {
            assert_eq!(signal(text), Ok(()), "{text}");
        }
        for text in [
            "",
            "SIG",
            "TERM",
            "sigterm",
            "SIGFOO",
            "SIGRTMIN+16",
            "SIGRTMIN+",
            "0",
            "09",
            "65",
            "+9",
        ] {
            assert!(signal(text).is_err(), "{text}");
        }
    }

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
            let fix = hint.map_or(Fix::Plain, |hint| Fix::Write(hint.into()));
            assert_eq!((complaint.message, complaint.fix), (message, fix), "{text}");
        }
        assert_eq!(source_path("/usr/bin"), Ok(path("usr/bin")));
        assert_eq!(source_path("usr/bin"), Ok(path("usr/bin")));
        for text in ["a/", "//a", "./a", "x/../a"] {
            let fix = source_path(text).expect_err(text).fix;
            assert_eq!(fix, Fix::Write("a".into()), "{text}");
        }
    }

    #[test]
    fn a_mode_is_four_octal_digits() {
        assert_eq!(mode("4755"), Ok(Mode::new(0o4755).expect("a mode")));
        for (text, hint) in [
            ("755", Some("0755")),
            ("0o755", Some("0755")),
            ("u+x", None),
            ("0888", None),
            ("00755", None),
            ("+755", None),
            ("", None),
        ] {
            let fix = hint.map_or(Fix::Plain, |hint| Fix::Write(hint.into()));
            assert_eq!(mode(text).expect_err(text).fix, fix, "{text}");
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
