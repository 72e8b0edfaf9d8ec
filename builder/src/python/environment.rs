//! Wheels put into a virtual environment (PEP 405), as the format says and pip does it, without executing anything.
//!
//! The result is a function of the two trees and the op. No `.pyc` is written: only the interpreter knows how, and a step
//! may ask it.

use std::collections::BTreeMap;

use immbuild_cas::digest::{BlobId, Digest};
use immbuild_cas::path::{PathError, RelPath};
use immbuild_cas::store::{BlobSource, Store, StoreError};
use immbuild_cas::tree::{
    Entry, EntryKind, File, Meta, Mode, Symlink, Tree, TreeBuilder, TreeError,
};

use super::record::{self, Row};
use super::scripts::{entry_points, with_interpreter};
use super::version;
use super::wheel::{self, Description, Files, WheelError};
use crate::graph::apply::{FileOpError, Missing, Root, Way};
use crate::graph::libraries::Environment;

/// Where interpreters are looked for, as `PATH` of a step has it.
const PROGRAMS: [&str; 3] = ["usr/local/bin", "usr/bin", "bin"];
/// Who installed a package, as `INSTALLER` says (PEP 376). Part of format 1: changing it changes image bytes.
const INSTALLER: &str = "immbuild\n";

/// Why wheels cannot be put into an environment.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// One of them is refused.
    #[error("the wheel `{file}` is refused")]
    Wheel {
        /// Its name.
        file: String,
        /// Why.
        source: WheelError,
    },
    /// One of them is for other interpreters.
    #[error("`{package}` is for Python {wanted}, and the environment has {found}")]
    Interpreter {
        /// The package.
        package: String,
        /// What it says.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// The root has no interpreter.
    #[error("the root has no `{0}`")]
    NoInterpreter(String),
    /// Something else has the place of a file.
    #[error("`{path}` of `{package}` is there already, and is something else")]
    Meets {
        /// The path.
        path: RelPath,
        /// Whose it is.
        package: String,
    },
    /// No path of a tree can be this.
    #[error("`{path}` cannot be in a tree")]
    Path {
        /// As the wheel has it.
        path: String,
        /// Why.
        source: PathError,
    },
    /// The root refused.
    #[error(transparent)]
    Root(#[from] FileOpError),
    /// The tree refused.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Puts the wheels in `set`, a directory of decoded wheels, into the environment `to` of `base`.
///
/// # Errors
/// A wheel is refused or does not fit, or the root has no interpreter.
pub fn install(
    environment: &Environment,
    to: &RelPath,
    base: &Tree,
    set: &Tree,
    store: &dyn Store,
    blobs: &dyn BlobSource,
) -> Result<(Tree, Vec<String>), EnvironmentError> {
    let mut root = Root {
        verb: "install",
        builder: TreeBuilder::from_tree(store, base),
    };
    let program = format!("python{}", environment.series());
    let directory = interpreter(&mut root, &program)?;
    let place = root.directory(to)?;
    let mut installer = Installer {
        root,
        place,
        interpreter: format!("{to}/bin/python3"),
        site: format!("lib/{program}/site-packages"),
        program,
        store,
        blobs,
        owners: BTreeMap::new(),
        warnings: Vec::new(),
    };
    installer.skeleton(environment, &directory)?;
    let wheels = store.directory(&set.root)?;
    for (name, entry) in wheels.entries() {
        let Entry::Directory(id) = entry else {
            continue;
        };
        let file = String::from_utf8_lossy(name.as_bytes()).into_owned();
        let refused = |source| EnvironmentError::Wheel {
            file: file.clone(),
            source,
        };
        let files = wheel::files(&Tree::new(*id), store).map_err(refused)?;
        let description = wheel::describe(&files, blobs).map_err(refused)?;
        if let Some(wanted) = &description.requires_python
            && version::fulfils(&environment.full_version(), wanted) == Some(false)
        {
            return Err(EnvironmentError::Interpreter {
                package: description.name,
                wanted: wanted.clone(),
                found: environment.full_version(),
            });
        }
        installer.wheel(&file, &files, &description)?;
    }
    let tree = installer.root.builder.seal(store)?;
    Ok((tree, installer.warnings))
}

/// The directory of an interpreter in the root, as a program in it would name it.
fn interpreter(root: &mut Root<'_>, program: &str) -> Result<String, EnvironmentError> {
    for directory in PROGRAMS {
        let path = RelPath::new(directory.as_bytes()).expect("a constant is a path");
        if let Way::Directory(real) = root.way(&path, Missing::Stop)? {
            let found = join(&real, program)?;
            if matches!(
                root.builder.kind(&found)?,
                Some(EntryKind::File | EntryKind::Symlink)
            ) {
                return Ok(format!("/{directory}"));
            }
        }
    }
    Err(EnvironmentError::NoInterpreter(program.to_owned()))
}

fn join(directory: &RelPath, below: &str) -> Result<RelPath, EnvironmentError> {
    let bad = |source| EnvironmentError::Path {
        path: below.to_owned(),
        source,
    };
    let below = RelPath::new(below.as_bytes()).map_err(bad)?;
    directory.join_path(&below).map_err(bad)
}

/// A file that is to be in the environment.
struct Placed {
    /// Below the environment.
    path: String,
    blob: BlobId,
    size: u64,
    mode: Mode,
}

struct Installer<'a> {
    root: Root<'a>,
    /// The environment's directory, without links.
    place: RelPath,
    /// As scripts name it.
    interpreter: String,
    /// Below the environment: where packages are.
    site: String,
    program: String,
    store: &'a dyn Store,
    blobs: &'a dyn BlobSource,
    /// Whose each file is.
    owners: BTreeMap<String, String>,
    warnings: Vec<String>,
}

impl Installer<'_> {
    /// What makes a directory an environment, as `python -m venv` has it.
    fn skeleton(
        &mut self,
        environment: &Environment,
        directory: &str,
    ) -> Result<(), EnvironmentError> {
        let program = self.program.clone();
        let text = format!(
            "home = {directory}\ninclude-system-site-packages = false\nversion = {}\nexecutable = {directory}/{program}\n",
            environment.version()
        );
        let bytes = text.into_bytes();
        self.write("pyvenv.cfg", &bytes, Mode::FILE, "the environment")?;
        for (path, target) in [
            ("bin/python3".to_owned(), format!("{directory}/{program}")),
            ("bin/python".to_owned(), "python3".to_owned()),
            (format!("bin/{program}"), "python3".to_owned()),
        ] {
            self.link(&path, &target)?;
        }
        if environment.lib64 {
            self.link("lib64", "lib")?;
        }
        let site = join(&self.place, &self.site)?;
        Ok(self.root.make_directory(&site, None, None)?)
    }

    fn link(&mut self, path: &str, target: &str) -> Result<(), EnvironmentError> {
        let place = join(&self.place, path)?;
        let place = self.root.place(&place)?;
        let entry = Entry::Symlink(Symlink {
            target: target.as_bytes().into(),
            uid: 0,
            gid: 0,
        });
        match self.root.builder.kind(&place)? {
            None => Ok(self.root.put(&place, entry)?),
            // Another set of wheels made it.
            Some(EntryKind::Symlink) if self.root.builder.get(&place)? == Some(entry) => Ok(()),
            Some(_) => Err(EnvironmentError::Meets {
                path: place,
                package: "the environment".into(),
            }),
        }
    }

    /// Puts a text of ours there, and says what a record says about it.
    fn write(
        &mut self,
        path: &str,
        bytes: &[u8],
        mode: Mode,
        package: &str,
    ) -> Result<(), EnvironmentError> {
        let placed = Placed {
            path: path.to_owned(),
            blob: self.store.put_bytes(bytes)?,
            size: bytes.len() as u64,
            mode,
        };
        self.put(&placed, package)
    }

    fn put(&mut self, placed: &Placed, package: &str) -> Result<(), EnvironmentError> {
        let place = join(&self.place, &placed.path)?;
        let place = self.root.place(&place)?;
        let entry = Entry::File(File {
            blob: placed.blob,
            size: placed.size,
            meta: Meta::root(placed.mode),
        });
        let before = match self.root.builder.kind(&place)? {
            None => None,
            Some(EntryKind::Directory) => {
                return Err(EnvironmentError::Meets {
                    path: place,
                    package: package.to_owned(),
                });
            }
            Some(_) => self.root.builder.get(&place)?,
        };
        match (before, self.owners.get(&placed.path)) {
            (None, _) => {}
            (Some(before), _) if before == entry => {}
            (Some(_), Some(other)) if other == package => {}
            (Some(_), Some(other)) => self.warnings.push(format!(
                "`{}` of `{other}` is replaced by that of `{package}`",
                placed.path
            )),
            (Some(_), None) => {
                return Err(EnvironmentError::Meets {
                    path: place,
                    package: package.to_owned(),
                });
            }
        }
        self.owners.insert(placed.path.clone(), package.to_owned());
        Ok(self.root.put(&place, entry)?)
    }

    fn wheel(
        &mut self,
        file: &str,
        files: &Files,
        description: &Description,
    ) -> Result<(), EnvironmentError> {
        let refused = |reason: String| EnvironmentError::Wheel {
            file: file.to_owned(),
            source: WheelError::NotAWheel(reason),
        };
        let package = &description.name;
        let record = format!("{}/RECORD", description.dist_info);
        let mut rows: BTreeMap<String, Row> = BTreeMap::new();
        let mut add = |row: Row| drop(rows.insert(row.path.clone(), row));
        let installer = format!("{}/INSTALLER", description.dist_info);
        for (path, content) in files {
            // Written anew below.
            if *path == record || *path == installer {
                continue;
            }
            let placed = self
                .placed(path, content, description)
                .map_err(|error| match error {
                    Ok(error) => error,
                    Err(reason) => refused(reason),
                })?;
            self.put(&placed, package)?;
            add(self.row(&placed.path, Some((placed.blob.digest(), placed.size))));
        }
        let points = format!("{}/entry_points.txt", description.dist_info);
        if let Some(content) = files.get(&points) {
            let bytes = wheel::read(content, &points, self.blobs).map_err(|source| {
                EnvironmentError::Wheel {
                    file: file.to_owned(),
                    source,
                }
            })?;
            let text =
                String::from_utf8(bytes).map_err(|_| refused(format!("`{points}` is no UTF-8")))?;
            for point in entry_points(&text).map_err(refused)? {
                let program = point.program(&self.interpreter).into_bytes();
                let path = format!("bin/{}", point.name);
                self.write(&path, &program, Mode::DIRECTORY, package)?;
                let digest = Digest::of(&program);
                add(self.row(&path, Some((&digest, program.len() as u64))));
            }
        }
        let installer = format!("{}/{installer}", self.site);
        self.write(&installer, INSTALLER.as_bytes(), Mode::FILE, package)?;
        let digest = Digest::of(INSTALLER.as_bytes());
        add(self.row(&installer, Some((&digest, INSTALLER.len() as u64))));
        let path = format!("{}/{record}", self.site);
        add(self.row(&path, None));
        let mut rows: Vec<Row> = rows.into_values().collect();
        let text = record::write(&mut rows);
        self.write(&path, &text, Mode::FILE, package)
    }

    /// A line of a record: seen from where packages are.
    fn row(&self, path: &str, content: Option<(&Digest, u64)>) -> Row {
        let below = path
            .strip_prefix(&self.site)
            .and_then(|rest| rest.strip_prefix('/'));
        Row {
            path: match below {
                Some(below) => below.to_owned(),
                None => format!("../../../{path}"),
            },
            hash: content.map(|(digest, _)| record::hash(digest)),
            size: content.map(|(_, size)| size),
        }
    }

    /// Where a file of a wheel goes and what it becomes; the inner error is a reason to refuse the wheel.
    fn placed(
        &self,
        path: &str,
        content: &File,
        description: &Description,
    ) -> Result<Placed, Result<EnvironmentError, String>> {
        let executable = content.meta.mode.is_executable();
        let mut placed = Placed {
            path: format!("{}/{path}", self.site),
            blob: content.blob,
            size: content.size,
            mode: if executable {
                Mode::DIRECTORY
            } else {
                Mode::FILE
            },
        };
        let Some((top, rest)) = path.split_once('/') else {
            return Ok(placed);
        };
        if top.rsplit_once('.').is_none_or(|(_, kind)| kind != "data") {
            return Ok(placed);
        }
        let bad = || {
            Err(format!(
                "`{path}` is in no directory that an environment has"
            ))
        };
        let Some((scheme, rest)) = rest.split_once('/') else {
            return Err(bad());
        };
        match scheme {
            "purelib" | "platlib" => placed.path = format!("{}/{rest}", self.site),
            "headers" => {
                placed.path = format!("include/site/{}/{}/{rest}", self.program, description.name);
            }
            "data" => rest.clone_into(&mut placed.path),
            "scripts" => {
                placed.path = format!("bin/{rest}");
                placed.mode = Mode::DIRECTORY;
                let bytes =
                    wheel::read(content, path, self.blobs).map_err(|error| match error {
                        WheelError::Store(error) => Ok(EnvironmentError::Store(error)),
                        error => Err(error.to_string()),
                    })?;
                if let Some(script) = with_interpreter(&bytes, &self.interpreter) {
                    placed.blob = self.store.put_bytes(&script).map_err(|it| Ok(it.into()))?;
                    placed.size = script.len() as u64;
                }
            }
            _ => return Err(bad()),
        }
        Ok(placed)
    }
}
