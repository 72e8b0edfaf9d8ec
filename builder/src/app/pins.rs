//! Every source a build needs, pinned: what is locked from the lock, what is local by its content now.

use std::collections::BTreeMap;
use std::path::PathBuf;

use immbuild_cas::canonical::Encoder;
use immbuild_cas::digest::Digest;
use immbuild_cas::store::{BlobSource, DirectorySource as _, LocalStore, Store as _};

use super::failure::{Exit, Failure};
use super::libraries::{self, Library};
use super::outputs::PlannedOutput;
use super::project::Project;
use super::realise::Options;
use super::session::Session;
use super::until::Until;
use crate::diag::{Diagnostic, Place, Span};
use crate::graph::install::PackagePin;
use crate::graph::libraries::Language;
use crate::graph::op::Pin;
use crate::graph::plan::{sources_in_use, unpacking};
use crate::hostfs::origins::{Chain, Origins};
use crate::hostfs::scan::{Scan, scan};
use crate::hostfs::stat_cache::StatCache;
use crate::lock::model::{self as lock, Lock};
use crate::pattern::Selection;
use crate::platform::Platform;
use crate::ports::Event;
use crate::resolve::git;
use crate::spec::image_name::ImageRepository;
use crate::spec::model::{
    DebianSource, GitSource, HttpSource, Ident, ImageSource, PathSource, Repository, Resolved,
    Source, SourceKind,
};

/// All that a graph's sources need to be realised.
#[derive(Debug, Default)]
pub struct Pinned {
    /// For each platform of the image, the pin of each source on each platform it is used on: a stage may have another
    /// than the image.
    pub pins: BTreeMap<Platform, BTreeMap<(Ident, Platform), Pin>>,
    /// Where to fetch what is not local.
    pub fetches: Vec<(Pin, Fetch)>,
    /// Where local content is.
    pub origins: Origins,
    /// Bytes of local files that were read.
    pub bytes_hashed: u64,
}

/// How a pinned source is brought here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// From a URL, this many bytes.
    Http(HttpSource, u64),
    /// From a repository, this commit.
    Git(GitSource, String),
    /// From a layout or archive of this machine.
    Image(PathBuf),
    /// From a registry.
    Registry(Box<RegistryImage>),
    /// From archives of packages.
    Packages(
        Box<DebianSource>,
        Vec<lock::ReleasePin>,
        Vec<lock::PackagePin>,
    ),
    /// By the project's own lock.
    Libraries(Vec<Library>),
}

/// An image of a registry that is locked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryImage {
    /// Where it is, without tag: the lock says which.
    pub repository: ImageRepository,
    /// How many bytes its manifest has.
    pub size: u64,
    /// The index that it is one of.
    pub index: Option<Digest>,
    /// What it is for.
    pub platform: Platform,
}

impl Pinned {
    /// Content by digest: local files first, then the store.
    pub fn blobs<'a>(&'a self, store: &'a LocalStore) -> Chain<'a> {
        Chain {
            first: &self.origins as &dyn BlobSource,
            then: store,
        }
    }
}

/// Pins what the wanted stage reads from.
pub fn pin(
    session: &Session<'_>,
    project: &Project,
    resolved: &BTreeMap<Platform, Resolved>,
    stage: &Ident,
    lock: Option<&Lock>,
    options: &Options,
    outputs: &[PlannedOutput],
) -> Result<Pinned, Failure> {
    let mut pinner = Pinner {
        session,
        project,
        lock,
        options,
        leave_out: leave_out(session, project, options, outputs)?,
        local: Vec::new(),
        origins: Vec::new(),
        pinned: Pinned::default(),
    };
    for (platform, spec) in resolved {
        let mut pins = BTreeMap::new();
        for (source, used_on) in sources_in_use(spec, stage) {
            let pin = pinner.source(source, *platform, used_on)?;
            pins.insert((source.name.clone(), used_on), pin);
        }
        pinner.pinned.pins.insert(*platform, pins);
    }
    let Pinner {
        origins,
        mut pinned,
        ..
    } = pinner;
    pinned.origins = Origins::merge(origins);
    Ok(pinned)
}

/// SPEC A: never part of a local source.
fn leave_out(
    session: &Session<'_>,
    project: &Project,
    options: &Options,
    outputs: &[PlannedOutput],
) -> Result<Vec<PathBuf>, Failure> {
    let name = project.path.file_name().unwrap_or_default();
    let lock = project.lock_path.file_name().unwrap_or_default();
    let mut paths = vec![project.directory.join(name), project.directory.join(lock)];
    paths.extend_from_slice(session.stores());
    // What the spec declares, also where it is not written now: for other platforms, or for no output at all.
    let arguments = project.arguments(&options.args)?;
    let everywhere = project.resolve_each(project.spec.platforms(), &arguments)?;
    let declared = everywhere.values().flat_map(|spec| &spec.outputs);
    paths.extend(declared.map(|output| project.directory.join(&output.path)));
    paths.extend(outputs.iter().map(|output| output.path.clone()));
    paths.sort_unstable();
    paths.dedup();
    Ok(paths)
}

struct Pinner<'a> {
    session: &'a Session<'a>,
    project: &'a Project,
    lock: Option<&'a Lock>,
    options: &'a Options,
    leave_out: Vec<PathBuf>,
    /// Local sources that were read already: two platforms mostly ask for the same.
    local: Vec<(SourceKind, Pin)>,
    origins: Vec<Origins>,
    pinned: Pinned,
}

impl Pinner<'_> {
    fn source(
        &mut self,
        source: &Source,
        platform: Platform,
        used_on: Platform,
    ) -> Result<Pin, Failure> {
        if let Some((_, pin)) = self.local.iter().find(|(kind, _)| *kind == source.kind) {
            return Ok(pin.clone());
        }
        match &source.kind {
            SourceKind::Path(path) => self.path(source, path),
            SourceKind::Git(git) => match &git.repository {
                Repository::Local(path) => self.local_git(source, git, path),
                Repository::Remote(_) => self.remote_git(source, git, platform),
            },
            SourceKind::Http(http) => self.http(source, http, platform),
            SourceKind::Image(image) => self.image(source, image, used_on),
            SourceKind::Debian(debian) => self.debian(source, debian, used_on),
            SourceKind::Python(_) => self.libraries(source, Language::Python, used_on),
            SourceKind::Cargo(_) => self.libraries(source, Language::Rust, used_on),
        }
    }

    fn place(&self, span: Span) -> Place {
        Place {
            file: self.project.file.clone(),
            span,
        }
    }

    fn path(&mut self, source: &Source, path: &PathSource) -> Result<Pin, Failure> {
        let at = |failure: Failure| failure.at(self.place(source.span), &source.name);
        let selection = Selection::new(&path.include, &path.exclude)
            .map_err(|error| at(Failure::of(Exit::Spec, &error)))?;
        let root = self.project.resolve(&path.path);
        let key = stat_key(self.project, &path.path);
        let known = if self.options.distrust_times {
            StatCache::default()
        } else {
            StatCache::load(&self.session.store, &key)?
        };
        let request = Scan {
            root: &root,
            selection: Some(&selection),
            ignore: &path.ignore,
            leave_out: &self.leave_out,
            preserve: path.preserve,
            threads: self.session.settings.threads,
            started: self.session.settings.started,
        };
        let until = Until::new(&self.session.store, self.session.cancel);
        let scanned = scan(&request, &known, &until).map_err(|error| at(error.into()))?;
        if scanned.report.bytes_hashed > 0 || scanned.report.cached < scanned.report.files {
            scanned.stat_cache.save(&self.session.store, &key)?;
        }
        for (path, attribute) in &scanned.dropped {
            self.session.events.event(Event::Warning {
                text: format!(
                    "`{}` of source `{}` has the attribute `{}`, which is not part of an image",
                    &path.to_string()[1..],
                    source.name,
                    String::from_utf8_lossy(attribute)
                ),
                hint: None,
            });
        }
        let is_empty = || {
            self.session
                .store
                .directory(&scanned.tree.root)
                .map(|it| it.is_empty())
        };
        if !path.include.is_empty() && !scanned.is_file && is_empty()? {
            self.session.events.event(Event::Warning {
                text: format!("`include` of source `{}` picks nothing that is left", source.name),
                hint: Some("patterns are those of .gitignore, below its `path`; `exclude` and ignore files win".into()),
            });
        }
        let pin = Pin::Tree {
            tree: self.session.store.put_tree(&scanned.tree)?,
            file: scanned.is_file,
        };
        self.pinned.bytes_hashed += scanned.report.bytes_hashed;
        self.origins.push(scanned.origins);
        self.local.push((source.kind.clone(), pin.clone()));
        Ok(pin)
    }

    fn local_git(&mut self, source: &Source, git: &GitSource, path: &str) -> Result<Pin, Failure> {
        let found = git::local(
            &git::Local {
                path: &self.project.resolve(path),
                rev: git.rev.as_deref(),
                subdir: &git.subdir,
                submodules: git.submodules,
                dirty: self.options.dirty,
                omit: &self.leave_out,
            },
            &self.session.store,
        )
        .map_err(|error| Failure::from(error).at(self.place(source.span), &source.name))?;
        let pin = Pin::Tree {
            tree: self.session.store.put_tree(&found.tree)?,
            file: false,
        };
        self.local.push((source.kind.clone(), pin.clone()));
        Ok(pin)
    }

    fn remote_git(
        &mut self,
        source: &Source,
        git: &GitSource,
        platform: Platform,
    ) -> Result<Pin, Failure> {
        let lock::Pin::Git { commits } = self.locked(source)? else {
            return Err(self.outdated(source));
        };
        let commit = commits
            .get(&Some(platform))
            .or_else(|| commits.get(&None))
            .ok_or_else(|| self.outdated(source))?;
        let pin = Pin::Tree {
            tree: commit.tree,
            file: false,
        };
        let fetch = Fetch::Git(git.clone(), commit.commit.clone());
        self.pinned.fetches.push((pin.clone(), fetch));
        Ok(pin)
    }

    fn http(
        &mut self,
        source: &Source,
        http: &HttpSource,
        platform: Platform,
    ) -> Result<Pin, Failure> {
        let lock::Pin::Http { files } = self.locked(source)? else {
            return Err(self.outdated(source));
        };
        let file = files
            .get(&Some(platform))
            .or_else(|| files.get(&None))
            .ok_or_else(|| self.outdated(source))?;
        let pin = Pin::Http {
            sha256: file.sha256,
            unpack: http.unpack.map(unpacking),
        };
        self.pinned
            .fetches
            .push((pin.clone(), Fetch::Http(http.clone(), file.size)));
        Ok(pin)
    }

    fn image(
        &mut self,
        source: &Source,
        image: &ImageSource,
        platform: Platform,
    ) -> Result<Pin, Failure> {
        let lock::Pin::Image { index, manifests } = self.locked(source)? else {
            return Err(self.outdated(source));
        };
        let manifest = manifests
            .get(&platform)
            .ok_or_else(|| self.outdated(source))?;
        let pin = Pin::Image {
            manifest: manifest.digest,
        };
        let fetch = match image {
            ImageSource::Local { path, .. } => Fetch::Image(self.project.resolve(path)),
            ImageSource::Registry(name) => Fetch::Registry(Box::new(RegistryImage {
                repository: name.repository.clone(),
                size: manifest.size,
                index: *index,
                platform,
            })),
        };
        self.pinned.fetches.push((pin.clone(), fetch));
        Ok(pin)
    }

    fn debian(
        &mut self,
        source: &Source,
        debian: &DebianSource,
        platform: Platform,
    ) -> Result<Pin, Failure> {
        let lock::Pin::Debian(locked) = self.locked(source)? else {
            return Err(self.outdated(source));
        };
        let mut packages: Vec<lock::PackagePin> =
            locked.packages_for(platform.debian()).cloned().collect();
        if packages.is_empty() {
            return Err(self.outdated(source));
        }
        packages.sort();
        let pins = packages.iter().map(|package| PackagePin {
            name: package.name.clone(),
            arch: package.arch.clone(),
            version: package.version.clone(),
            sha256: package.sha256,
        });
        let pin = Pin::Packages(pins.collect());
        let fetch = Fetch::Packages(Box::new(debian.clone()), locked.releases.clone(), packages);
        self.pinned.fetches.push((pin.clone(), fetch));
        Ok(pin)
    }

    fn libraries(
        &mut self,
        source: &Source,
        language: Language,
        platform: Platform,
    ) -> Result<Pin, Failure> {
        let libraries = libraries::of(self.project, source, platform, self.lock)?;
        let pins = libraries.iter().map(|library| library.pin.clone());
        let pin = Pin::Libraries(language, pins.collect());
        let fetch = Fetch::Libraries(libraries);
        self.pinned.fetches.push((pin.clone(), fetch));
        Ok(pin)
    }

    fn locked(&self, source: &Source) -> Result<&lock::Pin, Failure> {
        self.lock
            .and_then(|lock| lock.sources.get(&source.name))
            .map(|locked| &locked.pin)
            .ok_or_else(|| self.outdated(source))
    }

    /// The lock was checked against the spec before; what is still missing is in it under another kind or platform.
    fn outdated(&self, source: &Source) -> Failure {
        Failure::new(
            Exit::Lock,
            Diagnostic::error(format!("source `{}` is not locked", source.name))
                .at(self.place(source.span))
                .hint("run `immbuild lock`"),
        )
    }
}

/// Names the stat cache of one source of one spec.
fn stat_key(project: &Project, path: &str) -> Digest {
    let mut out = Encoder::default();
    out.str("stat");
    out.str(&project.memory());
    out.str(path);
    Digest::of(&out.into_bytes())
}
