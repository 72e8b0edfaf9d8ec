//! Crates put into a directory of a root, and the lines of configuration by which cargo takes them from there.

use immbuild_cas::path::{PathError, RelPath};
use immbuild_cas::store::{BlobSource, Store, StoreError};
use immbuild_cas::tree::{Entry, EntryKind, File, Meta, Mode, Tree, TreeBuilder, TreeError};

use crate::graph::apply::{FileOpError, Root};
use crate::spec::document;

/// The name of the source that others are replaced with, as `cargo vendor` has it.
const SOURCE: &str = "vendored-sources";
/// No configuration is longer.
const TEXT_MAX: u64 = 16 << 20;

/// Why crates cannot be put into a root.
#[derive(Debug, thiserror::Error)]
pub enum VendoredError {
    /// Something else has the place of a crate.
    #[error("`{0}` is there already")]
    Meets(RelPath),
    /// A configuration of cargo is there that says itself where crates are, or that cannot be read.
    #[error("`{path}` cannot be added to: {reason}")]
    Configuration {
        /// The file.
        path: RelPath,
        /// Why.
        reason: String,
    },
    /// No path of a tree can be this.
    #[error("a path cannot be in a tree")]
    Path(#[source] PathError),
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

/// Puts the crates in `set`, a directory of vendored crates, into the directory `to` of `base`, and says so in
/// `.cargo/config.toml` beside it.
///
/// # Errors
/// Something is in the way.
pub fn install(
    registries: &[String],
    to: &RelPath,
    base: &Tree,
    set: &Tree,
    store: &dyn Store,
    blobs: &dyn BlobSource,
) -> Result<Tree, VendoredError> {
    let mut root = Root {
        verb: "install",
        builder: TreeBuilder::from_tree(store, base),
    };
    let place = root.directory(to)?;
    let crates = store.directory(&set.root)?;
    for (name, entry) in crates.entries() {
        let Entry::Directory(id) = entry else {
            continue;
        };
        let bytes = name.as_bytes();
        let bytes = bytes.strip_suffix(b".crate").unwrap_or(bytes);
        let path = join(&place, bytes)?;
        if root.builder.kind(&path)?.is_some() {
            return Err(VendoredError::Meets(path));
        }
        root.builder.insert(&path, Entry::Directory(*id))?;
    }
    configure(&mut root, registries, to, store, blobs)?;
    Ok(root.builder.seal(store)?)
}

fn join(directory: &RelPath, below: &[u8]) -> Result<RelPath, VendoredError> {
    let below = RelPath::new(below).map_err(VendoredError::Path)?;
    directory.join_path(&below).map_err(VendoredError::Path)
}

/// Cargo reads `.cargo/config.toml` in the directory that it is started in and in each above.
fn configure(
    root: &mut Root<'_>,
    registries: &[String],
    to: &RelPath,
    store: &dyn Store,
    blobs: &dyn BlobSource,
) -> Result<(), VendoredError> {
    let above = to.parent().unwrap_or_default();
    let old = join(&above, b".cargo/config")?;
    let path = join(&above, b".cargo/config.toml")?;
    let refuse = |path: &RelPath, reason: String| VendoredError::Configuration {
        path: path.clone(),
        reason,
    };
    if root.find(&old)?.is_some() {
        let reason = "it is of the form that cargo has given up, and would hide `config.toml`";
        return Err(refuse(&old, reason.into()));
    }
    let directory = std::str::from_utf8(to.file_name())
        .map_err(|_| refuse(&path, "the name of the directory is no UTF-8".into()))?;
    let place = root.place(&path)?;
    let mut text = match root.builder.kind(&place)? {
        None => String::new(),
        Some(EntryKind::File) => {
            let Some(Entry::File(file)) = root.builder.get(&place)? else {
                unreachable!("its kind says so");
            };
            let before = existing(&file, blobs)?.ok_or_else(|| {
                refuse(
                    &path,
                    "it is no TOML, or says itself where crates are".into(),
                )
            })?;
            if before.is_empty() || before.ends_with('\n') {
                before
            } else {
                before + "\n"
            }
        }
        Some(_) => return Err(refuse(&path, "it is no file".into())),
    };
    text.push_str(&lines(registries, directory));
    Ok(root.put_file(&place, text.as_bytes(), Meta::root(Mode::FILE), store)?)
}

/// The text of a configuration that sources can be added to.
fn existing(file: &File, blobs: &dyn BlobSource) -> Result<Option<String>, VendoredError> {
    if file.size > TEXT_MAX {
        return Ok(None);
    }
    let Ok(text) = String::from_utf8(blobs.read(&file.blob)?) else {
        return Ok(None);
    };
    let Ok(table) = document::parse(&document::source_file("config.toml", &text)) else {
        return Ok(None);
    };
    Ok(table.get("source").is_none().then_some(text))
}

/// What `cargo vendor` tells people to write. Part of format 1: changing it changes image bytes.
fn lines(registries: &[String], directory: &str) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let replaced = registries.iter().map(|registry| {
        let url = registry.strip_prefix("registry+").unwrap_or(registry);
        let (name, url) = (quoted(registry), quoted(url));
        format!("\n[source.{name}]\nregistry = {url}\nreplace-with = \"{SOURCE}\"\n")
    });
    let replaced: String = replaced.collect();
    let directory = quoted(directory);
    format!(
        "[source.crates-io]\nreplace-with = \"{SOURCE}\"\n{replaced}\n[source.{SOURCE}]\ndirectory = {directory}\n"
    )
}
