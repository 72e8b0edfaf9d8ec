//! A package with all that an install reads of it.

use immbuild_cas::digest::DirectoryId;
use immbuild_cas::path::{Name, RelPath};
use immbuild_cas::store::{BlobSource, Store, StoreError};
use immbuild_cas::tree::{Directory, Entry, File, LinkGroups, Tree, TreeError};

use super::control::{ControlError, Field, stanzas};
use super::deb;

/// The fields of a stanza in the order they stand there, values without the space before them, and with the line feeds
/// inside of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(String, String)>);

impl Fields {
    /// The value of a field, whose name is told apart without regard to case (deb822(5)).
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Is it there and says yes?
    pub fn is_yes(&self, name: &str) -> bool {
        self.get(name) == Some("yes")
    }

    /// Reads stanzas, one after another.
    ///
    /// # Errors
    /// It is no text of stanzas.
    pub fn parse(text: &str) -> Result<Vec<Self>, ControlError> {
        stanzas(text)
            .map(|stanza| {
                let fields = stanza?.fields;
                let owned = |field: &Field<'_>| (field.name.to_owned(), field.value.to_owned());
                Ok(Self(fields.iter().map(owned).collect()))
            })
            .collect()
    }
}

/// How dpkg takes apart the packages of its database.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackageKey {
    /// Its name.
    pub name: String,
    /// Its architecture.
    pub arch: String,
}

impl std::fmt::Display for PackageKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.name, self.arch)
    }
}

/// A decoded package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its fields.
    pub fields: Fields,
    /// The other control files: scripts, checksums, names of configuration files.
    pub control: Vec<(Name, File)>,
    /// Its files.
    pub data: Tree,
    /// The paths of its files, as the archive names them.
    pub list: Vec<RelPath>,
}

/// Why what was decoded is no package.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// It has not the form that decoding gives.
    #[error("`{0}` is not the form of a decoded package")]
    Form(String),
    /// Its control file is wrong.
    #[error("the control file of `{package}` is wrong: {reason}")]
    Control {
        /// The package.
        package: String,
        /// What is wrong.
        reason: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tree could not be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

impl Package {
    /// Reads the decoded package in the directory `name`, whose hard links are `links`.
    ///
    /// # Errors
    /// It is none.
    pub fn read(
        name: &str,
        directory: DirectoryId,
        links: &LinkGroups,
        store: &dyn Store,
    ) -> Result<Self, PackageError> {
        let form = || PackageError::Form(name.to_owned());
        let parts = store.directory(&directory)?;
        let part = |name: &str| parts.get(name.as_bytes());
        let (
            Some(Entry::Directory(control)),
            Some(Entry::Directory(data)),
            Some(Entry::File(list)),
        ) = (part(deb::CONTROL), part(deb::DATA), part(deb::LIST))
        else {
            return Err(form());
        };
        let wrong = |reason: String| PackageError::Control {
            package: name.to_owned(),
            reason,
        };
        let control = store.directory(control)?;
        let fields = fields(&control, store).map_err(|error| match error {
            FieldsError::Wrong(reason) => wrong(reason),
            FieldsError::Store(error) => PackageError::Store(error),
        })?;
        let mut others = Vec::new();
        for (name, entry) in control.entries() {
            match entry {
                Entry::File(_) if name.as_bytes() == b"control" => {}
                Entry::File(file) => others.push((name.clone(), file.clone())),
                _ => {
                    let reason = format!("`{name}` beside it is no file");
                    return Err(wrong(reason));
                }
            }
        }
        let data_at = RelPath::new(deb::DATA.as_bytes()).expect("a constant is a path");
        Ok(Self {
            fields,
            control: others,
            data: Tree {
                root: *data,
                links: links.below(&data_at),
            },
            list: list_of(&store.read(&list.blob)?).ok_or_else(form)?,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.fields.get("Package").unwrap_or_default()
    }

    /// Its version.
    pub fn version(&self) -> &str {
        self.fields.get("Version").unwrap_or_default()
    }

    /// Its architecture.
    pub fn arch(&self) -> &str {
        self.fields.get("Architecture").unwrap_or_default()
    }

    /// Name and architecture.
    pub fn key(&self) -> PackageKey {
        PackageKey {
            name: self.name().to_owned(),
            arch: self.arch().to_owned(),
        }
    }

    /// What its files in dpkg's database are called by: its name, with the architecture where several may be there.
    pub fn info_name(&self) -> String {
        info_name(&self.fields)
    }

    /// Must it be there for others to work, without their saying so?
    pub fn is_essential(&self) -> bool {
        self.fields.is_yes("Essential")
    }

    /// One of its control files.
    pub fn control_file(&self, name: &str) -> Option<&File> {
        self.control
            .iter()
            .find(|(other, _)| other.as_bytes() == name.as_bytes())
            .map(|(_, file)| file)
    }

    /// The text of one of its control files; nothing when it has none of this name.
    ///
    /// # Errors
    /// The store failed.
    pub fn control_text(
        &self,
        name: &str,
        blobs: &dyn BlobSource,
    ) -> Result<Option<String>, StoreError> {
        let Some(file) = self.control_file(name) else {
            return Ok(None);
        };
        let bytes = blobs.read(&file.blob)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Its configuration files, in the order it names them (deb-conffiles(5)). What is to be removed is none.
    ///
    /// # Errors
    /// The store failed.
    pub fn conffiles(&self, blobs: &dyn BlobSource) -> Result<Vec<RelPath>, StoreError> {
        let text = self.control_text("conffiles", blobs)?.unwrap_or_default();
        Ok(text
            .lines()
            .filter_map(|line| RelPath::from_absolute(line.trim_end().as_bytes()).ok())
            .filter(|path| !path.is_root())
            .collect())
    }
}

/// See [`Package::info_name`].
pub fn info_name(fields: &Fields) -> String {
    let get = |name| fields.get(name).unwrap_or_default();
    if get("Multi-Arch") == "same" {
        format!("{}:{}", get("Package"), get("Architecture"))
    } else {
        get("Package").to_owned()
    }
}

enum FieldsError {
    Wrong(String),
    Store(StoreError),
}

/// The one stanza of a control file, with the fields that every package has.
fn fields(control: &Directory, store: &dyn Store) -> Result<Fields, FieldsError> {
    let Some(Entry::File(file)) = control.get(b"control") else {
        return Err(FieldsError::Wrong("there is none".into()));
    };
    let bytes = store.read(&file.blob).map_err(FieldsError::Store)?;
    let text =
        String::from_utf8(bytes).map_err(|_| FieldsError::Wrong("it is not UTF-8 text".into()))?;
    let mut stanzas =
        Fields::parse(&text).map_err(|error| FieldsError::Wrong(error.to_string()))?;
    let (Some(fields), true) = (stanzas.pop(), stanzas.is_empty()) else {
        return Err(FieldsError::Wrong("it is not one stanza".into()));
    };
    for name in ["Package", "Version", "Architecture"] {
        let value = fields.get(name).unwrap_or_default();
        // They become names of files in dpkg's database.
        let is_plain = !value.is_empty()
            && value.bytes().all(|byte| {
                byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b':' | b'~')
            })
            && value.as_bytes()[0].is_ascii_alphanumeric();
        if !is_plain {
            let reason = format!("`{name}` is missing or `{value}`");
            return Err(FieldsError::Wrong(reason));
        }
    }
    Ok(fields)
}

fn list_of(text: &[u8]) -> Option<Vec<RelPath>> {
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| match line {
            b"/." => Some(RelPath::root()),
            line => RelPath::from_absolute(line).ok(),
        })
        .collect()
}
