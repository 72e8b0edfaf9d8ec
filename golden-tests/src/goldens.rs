//! The goldens: small specs, and to the byte what they become.
//!
//! Each directory of `cases` holds a spec, its files, and `expect/v1`. Nothing in them executes a step, so that they say
//! what format 1 is and nothing about a machine. What a repository cannot hold (names that are no UTF-8, hard links, base
//! images) is laid by [`Case::lay`], from the bytes written here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use immbuild::app::build::{BuildRequest, build};
use immbuild::app::session::Host;
use immbuild::app::{Failure, Project, Session, Settings};
use immbuild::diag::{Style, render_all};
use immbuild::exec::sandbox::IdMap;
use immbuild::image::descriptor::PlatformText;
use immbuild::image::read::{Document, document};
use immbuild::image::{Descriptor, Manifest};
use immbuild::ports::Silent;
use immbuild_cas::digest::{BlobId, Digest};
use immbuild_cas::store::{BlobSource as _, LocalStore, Store as _};

use crate::listing::{indented, tar_listing};
use crate::material;

/// The cases, by the names of their directories.
pub const CASES: &[Case] = &[
    Case::plain("from_nothing"),
    Case::plain("single"),
    Case::plain("nothing_changes"),
    Case::plain("platforms"),
    Case::plain("late"),
    Case::laid("archive", material::archive),
    Case::laid("names", material::names),
    Case::laid("preserve", material::preserve),
    Case::laid("whiteouts", material::base),
    Case::laid("replaced", material::base),
    Case::laid("attributes", material::base),
    Case::laid("packages", material::packages),
    Case::laid("frames_zstd", material::large),
    Case::laid("frames_gzip", material::large),
];

/// A spec and what it becomes.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its directory below `cases`.
    pub name: &'static str,
    /// Lays what the directory cannot hold.
    material: Option<fn(&Path) -> Result<()>>,
}

/// What a case became: files of its `expect` directory by name, in the order in which they are compared.
pub type Files = Vec<(String, Vec<u8>)>;

/// `cases`.
pub fn directory() -> PathBuf {
    crate::workspace().join("golden-tests/cases")
}

impl Case {
    const fn plain(name: &'static str) -> Self {
        Self {
            name,
            material: None,
        }
    }

    const fn laid(name: &'static str, material: fn(&Path) -> Result<()>) -> Self {
        Self {
            name,
            material: Some(material),
        }
    }

    /// Where what is expected of it under format 1 is.
    pub fn expect(&self) -> PathBuf {
        directory().join(self.name).join("expect/v1")
    }

    /// Lays the spec and its files in an empty directory.
    pub fn lay(&self, into: &Path) -> Result<()> {
        let from = directory().join(self.name);
        for entry in walkdir::WalkDir::new(&from).min_depth(1) {
            let entry = entry?;
            let relative = entry.path().strip_prefix(&from)?;
            if relative.starts_with("expect") {
                continue;
            }
            let to = into.join(relative);
            if entry.file_type().is_dir() {
                fs::create_dir(&to)?;
            } else {
                fs::copy(entry.path(), &to)?;
            }
        }
        self.material.map_or(Ok(()), |lay| lay(into))
    }

    /// Builds it in a new place with so many threads.
    pub fn build(&self, threads: usize) -> Result<Files> {
        fs::create_dir_all(crate::scratch())?;
        let place = tempfile::tempdir_in(crate::scratch())?;
        let work = place.path().join("work");
        fs::create_dir(&work)?;
        self.lay(&work)?;
        let settings = Settings {
            store: place.path().join("store"),
            offline: true,
            threads: NonZeroUsize::new(threads).context("no threads")?,
            ids: IdMap::Single,
            ssh: None,
            source_date_epoch: None,
            host: Host::default(),
            started: (0, 0),
        };
        fetch(&work, &LocalStore::open(&settings.store)?)?;
        let cancel = AtomicBool::new(false);
        let session = Session::open(&settings, &Silent, &cancel).map_err(told)?;
        let project = Project::open(&work.join("spec.toml")).map_err(told)?;
        let report = build(&session, &project, &BuildRequest::default()).map_err(told)?;
        files(&session, report.digest)
    }
}

/// What is in `fetched` is in the store: nothing here asks a network.
fn fetch(work: &Path, store: &LocalStore) -> Result<()> {
    let fetched = work.join("fetched");
    if !fetched.exists() {
        return Ok(());
    }
    for entry in walkdir::WalkDir::new(&fetched).min_depth(1) {
        store.put_bytes(&fs::read(entry?.path())?)?;
    }
    Ok(())
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "it is what `map_err` hands over"
)]
fn told(failure: Failure) -> anyhow::Error {
    anyhow!(render_all(&failure.diagnostics, Style::Plain))
}

/// What people can read comes first, so that a difference is told where it is; digests come last.
fn files(session: &Session<'_>, digest: Digest) -> Result<Files> {
    let blob = |digest: Digest| session.store.read(&BlobId::new(digest));
    let mut listing = String::new();
    let mut exact = Files::new();
    let mut digests = String::new();
    let mut last = String::new();

    let top = blob(digest)?;
    let manifests: BTreeMap<String, Descriptor> = match document(&top, "built")? {
        Document::Manifest(_) => {
            let media_type = "application/vnd.oci.image.manifest.v1+json";
            let size = top.len() as u64;
            BTreeMap::from([(String::new(), Descriptor::new(media_type, digest, size))])
        }
        Document::Index(index) => {
            last = format!("### index\n{}\n", indented(&top)?);
            writeln!(digests, "index {digest}")?;
            exact.push(("index.json".to_owned(), top));
            let platforms = index.manifests.into_iter().map(|descriptor| {
                let platform = descriptor.platform.as_ref();
                let platform = platform.and_then(PlatformText::known);
                let platform = platform.context("a manifest of no platform")?;
                Ok((
                    format!("-{}", platform.to_string().replace('/', "-")),
                    descriptor,
                ))
            });
            platforms.collect::<Result<_>>()?
        }
    };
    for (suffix, descriptor) in manifests {
        let bytes = blob(descriptor.digest)?;
        ensure!(
            bytes.len() as u64 == descriptor.size,
            "a descriptor's size is wrong"
        );
        let Document::Manifest(manifest) = document(&bytes, "manifest")? else {
            return Err(anyhow!("an index in an index"));
        };
        let config = blob(manifest.config.digest)?;
        layers(session, &manifest, &suffix, &mut listing, &mut digests)?;
        writeln!(listing, "### config{suffix}\n{}", indented(&config)?)?;
        writeln!(listing, "### manifest{suffix}\n{}", indented(&bytes)?)?;
        writeln!(digests, "config{suffix} {}", manifest.config.digest)?;
        writeln!(digests, "manifest{suffix} {}", descriptor.digest)?;
        exact.push((format!("config{suffix}.json"), config));
        exact.push((format!("manifest{suffix}.json"), bytes));
    }

    listing.push_str(&last);
    let mut files = vec![("listing".to_owned(), listing.into_bytes())];
    files.extend(exact);
    files.push(("digests".to_owned(), digests.into_bytes()));
    Ok(files)
}

fn layers(
    session: &Session<'_>,
    manifest: &Manifest,
    suffix: &str,
    listing: &mut String,
    digests: &mut String,
) -> Result<()> {
    for (number, layer) in manifest.layers.iter().enumerate() {
        let reader = session.store.open(&BlobId::new(layer.digest))?;
        let mut tar = Vec::new();
        immbuild::layer::decoder(reader)?.read_to_end(&mut tar)?;
        writeln!(listing, "### layer{suffix} {number}: {}", layer.media_type)?;
        listing.push_str(&tar_listing(&tar)?);
        listing.push('\n');
        writeln!(
            digests,
            "layer{suffix} {number}: diff id {}, {} bytes, digest {}, {} bytes",
            Digest::of(&tar),
            tar.len(),
            layer.digest,
            layer.size
        )?;
    }
    Ok(())
}

/// Builds a case with one thread and with many, and says where it is not what is committed.
///
/// # Errors
/// It differs, cannot be built, or was never blessed.
pub fn judge(case: &Case) -> Result<()> {
    let expected = expected(case).with_context(|| format!("{} was not blessed", case.name))?;
    for threads in [1, 8] {
        let found = case
            .build(threads)
            .with_context(|| format!("{} with {threads} threads", case.name))?;
        if let Some(difference) = difference(&expected, &found) {
            bail!("{} with {threads} threads: {difference}", case.name);
        }
    }
    Ok(())
}

/// What a committed `expect` directory says, in no particular order.
pub fn expected(case: &Case) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in walkdir::WalkDir::new(case.expect())
        .min_depth(1)
        .sort_by_file_name()
    {
        let entry = entry?;
        let name = entry
            .file_name()
            .to_str()
            .context("a golden's name")?
            .to_owned();
        files.insert(name, fs::read(entry.path())?);
    }
    Ok(files)
}

/// The digest of everything that is expected of every case: what stands in the changelog.
pub fn digest_of_all() -> Result<Digest> {
    let mut all = String::new();
    for case in CASES {
        for (name, bytes) in expected(case)? {
            writeln!(all, "{} {name} {}", case.name, Digest::of(&bytes))?;
        }
    }
    Ok(Digest::of(all.as_bytes()))
}

/// Where the digest of all is committed.
pub fn digest_file() -> PathBuf {
    directory().join("DIGEST")
}

/// The first difference of what was found to what is expected, in words; nothing if there is none.
pub fn difference(expected: &BTreeMap<String, Vec<u8>>, found: &Files) -> Option<String> {
    for (name, found) in found {
        let Some(expected) = expected.get(name) else {
            return Some(format!("`{name}` is new"));
        };
        if expected != found {
            return Some(format!("`{name}` differs: {}", first_line(expected, found)));
        }
    }
    expected
        .keys()
        .find(|name| found.iter().all(|(found, _)| found != *name))
        .map(|name| format!("`{name}` is gone"))
}

fn first_line(expected: &[u8], found: &[u8]) -> String {
    let (expected, found) = (
        String::from_utf8_lossy(expected),
        String::from_utf8_lossy(found),
    );
    let mut heading = "";
    let (mut left, mut right) = (expected.lines(), found.lines());
    let mut number = 1;
    loop {
        match (left.next(), right.next()) {
            (Some(left), Some(right)) if left == right => {
                if left.starts_with("###") {
                    heading = left;
                }
            }
            (left, right) => {
                let shown = |line: Option<&str>| line.unwrap_or("(the end)").to_owned();
                return format!(
                    "line {number} {heading}\n  expected: {}\n     found: {}",
                    shown(left),
                    shown(right)
                );
            }
        }
        number += 1;
    }
}
