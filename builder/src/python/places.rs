//! Where packages are, as this machine has it: pip's own configuration, read as pip reads it.
//!
//! None is known here. What is found reaches no lock and no byte of any image.

use std::path::{Path, PathBuf};

/// Where packages are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexPlaces {
    /// URLs of indexes (simple repository API), the first preferred.
    pub indexes: Vec<String>,
    /// Directories of this machine with files in them.
    pub directories: Vec<PathBuf>,
}

impl IndexPlaces {
    /// Does nobody say anything?
    pub fn is_empty(&self) -> bool {
        self.indexes.is_empty() && self.directories.is_empty()
    }
}

/// What is set so far.
#[derive(Default)]
struct Options {
    index: Option<String>,
    extra: Option<String>,
    links: Option<String>,
    no_index: Option<String>,
}

impl Options {
    fn set(&mut self, key: &str, value: String) {
        match key {
            "index-url" => self.index = Some(value),
            "extra-index-url" => self.extra = Some(value),
            "find-links" => self.links = Some(value),
            "no-index" => self.no_index = Some(value),
            _ => {}
        }
    }
}

/// What pip would go by: its files for the machine and for the user, then the environment.
///
/// `variable` gives a variable of the environment, `read` the text of a file that is there.
pub fn of_pip(
    variable: &dyn Fn(&str) -> Option<String>,
    read: &dyn Fn(&Path) -> Option<String>,
) -> IndexPlaces {
    let mut options = Options::default();
    for path in files(variable) {
        let text = read(&path).unwrap_or_default();
        // Those of a command win over those for all commands.
        for section in ["global", "install"] {
            for (_, key, value) in lines(&text).into_iter().filter(|it| it.0 == section) {
                options.set(&key, value);
            }
        }
    }
    for (name, key) in [
        ("PIP_INDEX_URL", "index-url"),
        ("PIP_EXTRA_INDEX_URL", "extra-index-url"),
        ("PIP_FIND_LINKS", "find-links"),
        ("PIP_NO_INDEX", "no-index"),
    ] {
        if let Some(value) = variable(name).filter(|value| !value.is_empty()) {
            options.set(key, value);
        }
    }
    let is_off = matches!(
        options.no_index.as_deref(),
        Some("1" | "true" | "True" | "yes" | "on")
    );
    let words = |text: &Option<String>| -> Vec<String> {
        let text = text.as_deref().unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    };
    let mut places = IndexPlaces::default();
    if !is_off {
        places.indexes = words(&options.index);
        places.indexes.extend(words(&options.extra));
    }
    for link in words(&options.links) {
        let path = link.strip_prefix("file://").unwrap_or(&link);
        // Pages with links are no places of ours.
        if !path.contains("://") {
            places.directories.extend(std::path::absolute(path));
        }
    }
    places
}

/// pip's files of configuration, those that win last ("Configuration", "Location").
fn files(variable: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let own = variable("PIP_CONFIG_FILE").filter(|path| !path.is_empty());
    if own.as_deref() == Some("/dev/null") {
        return Vec::new();
    }
    let mut files = Vec::new();
    let machine = variable("XDG_CONFIG_DIRS").unwrap_or_else(|| "/etc/xdg".to_owned());
    files.extend(
        machine
            .split(':')
            .filter(|path| !path.is_empty())
            .map(|path| Path::new(path).join("pip/pip.conf")),
    );
    files.push("/etc/pip.conf".into());
    let home = variable("HOME").map(PathBuf::from);
    files.extend(home.as_ref().map(|home| home.join(".pip/pip.conf")));
    let user = variable("XDG_CONFIG_HOME").map(PathBuf::from);
    let user = user.or_else(|| home.map(|home| home.join(".config")));
    files.extend(user.map(|user| user.join("pip/pip.conf")));
    files.extend(own.map(PathBuf::from));
    files
}

/// Section, key and value of each setting, as Python's `configparser` reads them: a line that is indented goes on with the
/// value before it.
fn lines(text: &str) -> Vec<(String, String, String)> {
    let mut found: Vec<(String, String, String)> = Vec::new();
    let mut section = String::new();
    let mut goes_on = false;
    for line in text.lines() {
        let content = line.trim();
        if content.is_empty() || content.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with([' ', '\t']) && goes_on {
            if let Some((_, _, value)) = found.last_mut() {
                value.push(' ');
                value.push_str(content);
            }
            continue;
        }
        if let Some(name) = content
            .strip_prefix('[')
            .and_then(|it| it.strip_suffix(']'))
        {
            name.clone_into(&mut section);
            goes_on = false;
            continue;
        }
        if let Some((key, value)) = content.split_once(['=', ':']) {
            let key = key.trim().to_lowercase().replace('_', "-");
            found.push((section.clone(), key, value.trim().to_owned()));
            goes_on = true;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn places(variables: &[(&str, &str)], files: &[(&str, &str)]) -> IndexPlaces {
        let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
        let files: BTreeMap<&Path, &str> = files
            .iter()
            .map(|(path, text)| (Path::new(*path), *text))
            .collect();
        of_pip(
            &|name| variables.get(name).map(|it| (*it).to_owned()),
            &|path| files.get(path).map(|it| (*it).to_owned()),
        )
    }

    #[test]
    fn the_environment_wins_over_the_user_and_the_user_over_the_machine() {
        let machine = (
            "/etc/pip.conf",
            "[global]\nindex-url = https://m.example.com/simple\n",
        );
        let user = (
            "/home/u/.config/pip/pip.conf",
            "[global]\nindex_url: https://u.example.com/simple\nextra-index-url =\n  https://a.example.com\n  https://b.example.com\n\n[list]\nindex-url = no\n",
        );
        let home = ("HOME", "/home/u");
        let urls = |places: IndexPlaces| places.indexes;
        assert_eq!(
            urls(places(&[home], &[machine])),
            ["https://m.example.com/simple"]
        );
        assert_eq!(
            urls(places(&[home], &[machine, user])),
            [
                "https://u.example.com/simple",
                "https://a.example.com",
                "https://b.example.com"
            ]
        );
        let env = ("PIP_INDEX_URL", "https://e.example.com/simple");
        assert_eq!(
            urls(places(&[home, env], &[machine]))[0],
            "https://e.example.com/simple"
        );
        assert_eq!(
            urls(places(
                &[home, ("PIP_CONFIG_FILE", "/dev/null")],
                &[machine]
            )),
            [""; 0]
        );
        assert_eq!(
            urls(places(&[home, ("PIP_NO_INDEX", "1")], &[machine])),
            [""; 0]
        );
        assert!(places(&[], &[]).is_empty());
    }

    #[test]
    fn directories_are_places_too() {
        let links = (
            "PIP_FIND_LINKS",
            "/opt/wheels file:///srv/w https://l.example.com/",
        );
        let expected = [PathBuf::from("/opt/wheels"), PathBuf::from("/srv/w")];
        assert_eq!(places(&[links], &[]).directories, expected);
        // A relative one is where immbuild was started, as it is for pip.
        let here = std::path::absolute("wheels").expect("it is somewhere");
        let links = ("PIP_FIND_LINKS", "wheels https://l.example.com/");
        assert_eq!(places(&[links], &[]).directories, [here]);
    }
}
