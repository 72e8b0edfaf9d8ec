//! Versions and what is asked of them (PEP 440). The only home of `pep440_rs`.

use std::str::FromStr as _;

use pep440_rs::{Version, VersionSpecifier, VersionSpecifiers};

/// Is this a version?
pub fn is_version(text: &str) -> bool {
    Version::from_str(text).is_ok()
}

/// Are these two one version? `1.0` and `1.0.0` are.
pub fn is_same(a: &str, b: &str) -> bool {
    match (Version::from_str(a), Version::from_str(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

/// Does a version fulfil one comparison, `>=` and `3.8`? Nothing when one of the three is none.
pub fn compare(version: &str, operator: &str, with: &str) -> Option<bool> {
    let version = Version::from_str(version).ok()?;
    let asked = VersionSpecifier::from_str(&format!("{operator}{with}")).ok()?;
    Some(asked.contains(&version))
}

/// Does a version fulfil all of them, `>=3.8,<4`? Nothing when they are none.
pub fn fulfils(version: &str, asked: &str) -> Option<bool> {
    let version = Version::from_str(version).ok()?;
    let asked = VersionSpecifiers::from_str(asked).ok()?;
    Some(asked.contains(&version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_versions() {
        assert!(is_same("1.0", "1.0.0"));
        assert!(is_same("1.0-post1", "1.0.post1"));
        assert!(!is_same("1.0", "1.0.1"));
        assert_eq!(compare("3.11", ">=", "3.9"), Some(true));
        assert_eq!(compare("3.11.2", "==", "3.11.*"), Some(true));
        assert_eq!(compare("3.11", "<", "3.9"), Some(false));
        assert_eq!(compare("3.11", "<", "x"), None);
        assert_eq!(fulfils("3.11", ">=3.8, !=3.9.*"), Some(true));
        assert_eq!(fulfils("3.11", ">=3.12"), Some(false));
    }
}
