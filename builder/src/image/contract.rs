//! The contract of a running container, as labels of its image: is its root read-only, and where can it write?
//!
//! Labels travel with an image through every registry and engine, and an image that is built on this one inherits them.

use std::collections::BTreeMap;

use super::CanonicalJson;

/// `true` or `false`.
pub const READONLY_LABEL: &str = "immbuild.runtime.readonly";
/// A JSON list of absolute paths, sorted: `["/tmp","/var/cache/shop"]`.
pub const WRITABLE_LABEL: &str = "immbuild.runtime.writable";

/// What an image says of its container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contract {
    /// Is the root mounted read-only?
    pub readonly: bool,
    /// Absolute paths of directories that are writable and empty when the container starts.
    pub writable: Vec<String>,
}

impl Contract {
    /// What the labels of an image say.
    ///
    /// # Errors
    /// The name of a label that says something else.
    pub fn of_labels(labels: &BTreeMap<String, String>) -> Result<Self, &'static str> {
        let readonly = match labels.get(READONLY_LABEL).map(String::as_str) {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(READONLY_LABEL),
        };
        let writable: Vec<String> = match labels.get(WRITABLE_LABEL) {
            None => Vec::new(),
            Some(text) => serde_json::from_str(text).map_err(|_| WRITABLE_LABEL)?,
        };
        if writable.iter().any(|path| !path.starts_with('/')) {
            return Err(WRITABLE_LABEL);
        }
        Ok(Self { readonly, writable })
    }
}

/// The labels for what a spec says. What it does not say has none, so that what a base says stays.
pub fn labels(readonly: Option<bool>, writable: Option<&[String]>) -> BTreeMap<String, String> {
    let readonly = readonly.map(|it| (READONLY_LABEL.to_owned(), it.to_string()));
    let writable = writable.map(|paths| {
        let json = CanonicalJson::of(&paths.to_vec());
        let text = String::from_utf8_lossy(json.as_bytes()).into_owned();
        (WRITABLE_LABEL.to_owned(), text)
    });
    readonly.into_iter().chain(writable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read_back() {
        let paths = ["/tmp".to_owned(), "/a \"b\"".to_owned()];
        let said = labels(Some(true), Some(&paths));
        assert_eq!(said[WRITABLE_LABEL], r#"["/tmp","/a \"b\""]"#);
        let contract = Contract {
            readonly: true,
            writable: paths.to_vec(),
        };
        assert_eq!(Contract::of_labels(&said), Ok(contract));
        assert_eq!(labels(None, None), BTreeMap::new());
        assert_eq!(
            Contract::of_labels(&BTreeMap::new()),
            Ok(Contract::default())
        );
    }

    #[test]
    fn labels_of_others_are_not_believed() {
        for (label, value) in [
            (READONLY_LABEL, "yes"),
            (WRITABLE_LABEL, "/tmp"),
            (WRITABLE_LABEL, r#"["tmp"]"#),
        ] {
            let labels = BTreeMap::from([(label.to_owned(), value.to_owned())]);
            assert_eq!(Contract::of_labels(&labels), Err(label));
        }
    }
}
