//! Names of packages and of wheels.

use super::version;

/// A name of a package in its one form (PEP 503): lower case, and `-` for each run of `-`, `_` and `.`.
pub fn normalised(name: &str) -> Option<String> {
    let is_end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let is_mark = |byte: u8| matches!(byte, b'-' | b'_' | b'.');
    let fits = is_end(name.bytes().next())
        && is_end(name.bytes().last())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || is_mark(byte));
    if !fits {
        return None;
    }
    let mut out = String::with_capacity(name.len());
    let mut in_run = false;
    for byte in name.bytes() {
        if is_mark(byte) {
            if !in_run {
                out.push('-');
            }
        } else {
            out.push(char::from(byte.to_ascii_lowercase()));
        }
        in_run = is_mark(byte);
    }
    Some(out)
}

/// What the name of a wheel says (binary distribution format, "File name convention").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WheelName {
    /// The package, normalised.
    pub name: String,
    /// Its version, as written.
    pub version: String,
    /// Its build, which breaks ties: a number and what follows it.
    pub build: Option<(u64, String)>,
    /// Every tag it fits, `cp311-abi3-manylinux_2_17_x86_64`.
    pub tags: Vec<String>,
}

impl WheelName {
    /// The name of a file, if it is that of a wheel.
    pub fn parse(file: &str) -> Option<Self> {
        let stem = file.strip_suffix(".whl")?;
        let plain = |byte: u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+' | b'!')
        };
        if !stem.bytes().all(plain) {
            return None;
        }
        let parts: Vec<&str> = stem.split('-').collect();
        let (name, version, build, python, abi, platform) = match parts.as_slice() {
            [name, version, python, abi, platform] => (name, version, None, python, abi, platform),
            [name, version, build, python, abi, platform] => {
                let digits =
                    build.len() - build.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                let number = build[..digits].parse().ok()?;
                let build = (number, build[digits..].to_owned());
                (name, version, Some(build), python, abi, platform)
            }
            _ => return None,
        };
        let mut tags = Vec::new();
        for python in python.split('.') {
            for abi in abi.split('.') {
                for platform in platform.split('.') {
                    tags.push(format!("{python}-{abi}-{platform}").to_ascii_lowercase());
                }
            }
        }
        if !version::is_version(&version.replace('_', "-")) {
            return None;
        }
        Some(Self {
            name: normalised(name)?,
            version: (*version).to_owned(),
            build,
            tags,
        })
    }

    /// Is it of this package in this version?
    pub fn is_of(&self, name: &str, version: &str) -> bool {
        self.name == name && version::is_same(&self.version.replace('_', "-"), version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_has_one_name() {
        for name in ["Flask-SQLAlchemy", "flask_sqlalchemy", "flask.-_SQLalchemy"] {
            assert_eq!(normalised(name).as_deref(), Some("flask-sqlalchemy"));
        }
        for name in ["", "-a", "a-", "a b", "a/b", "..", "é"] {
            assert_eq!(normalised(name), None, "{name}");
        }
    }

    #[test]
    fn a_wheels_name_says_what_it_is() {
        let wheel = WheelName::parse("Foo_Bar-1.0-2b-py2.py3-none-any.whl").expect("a wheel");
        let expected = WheelName {
            name: "foo-bar".into(),
            version: "1.0".into(),
            build: Some((2, "b".into())),
            tags: vec!["py2-none-any".into(), "py3-none-any".into()],
        };
        assert_eq!(wheel, expected);
        assert!(wheel.is_of("foo-bar", "1.0.0"));
        assert!(!wheel.is_of("foo-bar", "1.0.1"));
        for file in [
            "a-1.0.tar.gz",
            "a-1.0-py3-none.whl",
            "a-1.0-x-py3-none-any.whl",
            "../a-1.0-py3-none-any.whl",
            "a-one-py3-none-any.whl",
        ] {
            assert_eq!(WheelName::parse(file), None, "{file}");
        }
    }
}
