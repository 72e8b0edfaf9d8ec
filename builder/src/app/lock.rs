//! Finds pins and writes them down: `lock` adds and drops, `update` moves, `build` does the first when there is no lock.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use immbuild_cas::digest::Digest;
use immbuild_cas::store::Store as _;

use super::failure::{Exit, Failure};
use super::libraries;
use super::packages::{self, Archives, Moving};
use super::project::Project;
use super::session::Session;
use crate::diag::{Diagnostic, Place, nearest};
use crate::epoch::Epoch;
use crate::lock::model::{CommitPin, FilePin, Lock, Locked, ManifestPin, Pin};
use crate::lock::{self, Check, Why};
use crate::platform::Platform;
use crate::registry::Pull;
use crate::resolve::{git, http, image};
use crate::spec::model::{
    DebianSource, GitSource, Ident, ImageSource, PythonSource, Repository, Resolved, Source,
    SourceKind,
};

/// What became of the pins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockReport {
    /// Sources that were pinned, each in a line for people.
    pub added: Vec<String>,
    /// Sources whose pins were dropped.
    pub dropped: Vec<String>,
    /// Sources whose pins moved: source, old, new.
    pub moved: Vec<(String, String, String)>,
    /// Sources of packages, and of their bytes those that an older lock had already, and all.
    pub shared: Vec<(String, u64, u64)>,
    /// The epoch before and after, where it moved.
    pub epoch: Option<(Epoch, Epoch)>,
    /// The lock's file, where it was written.
    pub written: Option<PathBuf>,
    /// Is there anything that needs a lock at all?
    pub needed: bool,
}

type ByPlatform = BTreeMap<Platform, Resolved>;

/// How locking is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LockOptions {
    /// Take releases and keys of archives that are no longer valid.
    pub allow_expired: bool,
}

/// The lock a build goes by, made when there is none.
///
/// Gives the lock, its file when it is new, and what was locked.
#[allow(
    clippy::type_complexity,
    reason = "each part is plain, and one caller takes them apart"
)]
pub fn for_build(
    session: &Session<'_>,
    project: &Project,
    locked: bool,
) -> Result<(Option<Lock>, Option<PathBuf>, Vec<String>), Failure> {
    let resolved = project.resolve_defaults()?;
    let needed = !lock::requests(&resolved).is_empty();
    let Some(existing) = project.read_lock()? else {
        if !needed {
            return Ok((None, None, Vec::new()));
        }
        if locked {
            return Err(Failure::new(
                Exit::Lock,
                Diagnostic::error(format!(
                    "there is no lock `{}`",
                    project.lock_path.display()
                ))
                .because(
                    "`--locked`, `explain`, `graph` and `shell` go by the lock and never make one",
                )
                .hint("run `immbuild lock` and commit the file"),
            ));
        }
        let options = LockOptions::default();
        let (lock, report) = find_missing(session, project, &resolved, None, options)?;
        project.write_lock(&lock)?;
        return Ok((Some(lock), Some(project.lock_path.clone()), report.added));
    };
    let check = lock::check(&resolved, &existing);
    if check.is_clean() {
        Ok((Some(existing), None, Vec::new()))
    } else {
        Err(outdated(project, &check))
    }
}

/// `immbuild lock`: adds what is missing, drops what is unused, moves nothing.
pub fn lock(
    session: &Session<'_>,
    project: &Project,
    options: LockOptions,
) -> Result<LockReport, Failure> {
    let resolved = project.resolve_defaults()?;
    let existing = project.read_lock()?;
    let (lock, mut report) = find_missing(session, project, &resolved, existing.as_ref(), options)?;
    if report.needed || existing.is_some() {
        report.written = project
            .write_lock(&lock)?
            .then(|| project.lock_path.clone());
    }
    Ok(report)
}

/// `immbuild lock --check`: says whether the lock is complete and up to date, and touches nothing.
pub fn check(project: &Project) -> Result<(), Failure> {
    let resolved = project.resolve_defaults()?;
    own_locks(project, &resolved)?;
    let Some(existing) = project.read_lock()? else {
        if lock::requests(&resolved).is_empty() {
            return Ok(());
        }
        return Err(Failure::new(
            Exit::Lock,
            Diagnostic::error(format!(
                "there is no lock `{}`",
                project.lock_path.display()
            ))
            .hint("run `immbuild lock`"),
        ));
    };
    let check = lock::check(&resolved, &existing);
    if check.is_clean() {
        Ok(())
    } else {
        Err(outdated(project, &check))
    }
}

/// Do the project's own locks have what is wanted of them on every platform?
fn own_locks(project: &Project, resolved: &ByPlatform) -> Result<(), Failure> {
    for spec in resolved.values() {
        let platforms = spec.image_platforms();
        for source in spec.sources.values().filter(|source| !source.is_locked()) {
            if libraries::language(source).is_some() {
                for platform in platforms.get(&source.name).into_iter().flatten() {
                    libraries::of(project, source, *platform, None)?;
                }
            }
        }
    }
    Ok(())
}

/// What `update` is asked to move.
#[derive(Clone, Debug, Default)]
pub struct UpdateRequest {
    /// These sources, or `SOURCE:PACKAGE`; none: all, unless only the epoch is asked for.
    pub sources: Vec<String>,
    /// The epoch too.
    pub epoch: bool,
    /// Write nothing.
    pub dry_run: bool,
    /// How.
    pub options: LockOptions,
}

/// What of a source `update` is to move.
enum Part {
    /// All of it.
    Whole,
    /// These packages and what they force.
    Packages(BTreeSet<String>),
}

/// What `update` is asked for, by source.
fn parts(asked: &[String], existing: &Lock) -> Result<BTreeMap<String, Part>, Failure> {
    let mut parts: BTreeMap<String, Part> = BTreeMap::new();
    for text in asked {
        let Some((source, package)) = text.split_once(':') else {
            parts.insert(text.clone(), Part::Whole);
            continue;
        };
        let pin = existing.sources.get(source).map(|locked| &locked.pin);
        let failure = |message: String| Failure::new(Exit::Usage, Diagnostic::error(message));
        match pin {
            Some(Pin::Debian(pin)) => {
                let names = || pin.packages.iter().map(|it| it.name.as_str());
                if !names().any(|name| name == package) {
                    let error = failure(format!("no package `{package}` of `{source}` is locked"));
                    return Err(match nearest(package, names()) {
                        Some(near) => error.hint(format!("did you mean `{source}:{near}`?")),
                        None => error,
                    });
                }
            }
            Some(_) => {
                return Err(failure(format!("`{source}` has no packages"))
                    .hint(format!("write `immbuild update {source}`")));
            }
            // Told below, as for a source alone.
            None => {}
        }
        let part = parts
            .entry(source.to_owned())
            .or_insert_with(|| Part::Packages(BTreeSet::new()));
        if let Part::Packages(packages) = part {
            packages.insert(package.to_owned());
        }
    }
    Ok(parts)
}

/// Sources of packages that share an archive with one that moves: they move too, so that what compiles and what runs stay
/// one system.
fn sharing<'l>(existing: &'l Lock, name: &str) -> Vec<&'l Ident> {
    let releases = |locked: &'l Locked| match &locked.pin {
        Pin::Debian(pin) => pin.releases.as_slice(),
        _ => &[],
    };
    let own = existing.sources.get(name).map(releases).unwrap_or_default();
    let shares = |locked: &'l Locked| {
        releases(locked).iter().any(|it| {
            own.iter()
                .any(|own| (&own.archive, &own.suite) == (&it.archive, &it.suite))
        })
    };
    existing
        .sources
        .iter()
        .filter(|(_, locked)| shares(locked))
        .map(|(name, _)| name)
        .collect()
}

/// `immbuild update`: finds pins anew.
pub fn update(
    session: &Session<'_>,
    project: &Project,
    request: &UpdateRequest,
) -> Result<LockReport, Failure> {
    let resolved = project.resolve_defaults()?;
    let requests = lock::requests(&resolved);
    let existing = project.read_lock()?.ok_or_else(|| {
        Failure::new(
            Exit::Lock,
            Diagnostic::error(format!(
                "there is no lock `{}`",
                project.lock_path.display()
            ))
            .hint("run `immbuild lock`, which pins everything for the first time"),
        )
    })?;
    let mut parts = parts(&request.sources, &existing)?;
    for name in parts.keys() {
        if !requests.keys().any(|known| known.as_str() == name) {
            let known: Vec<&str> = requests.keys().map(Ident::as_str).collect();
            return Err(Failure::new(
                Exit::Usage,
                Diagnostic::error(format!("there is no locked source `{name}`"))
                    .hint(format!("the lock has {}", known.join(", "))),
            ));
        }
    }
    let named: Vec<String> = parts.keys().cloned().collect();
    for name in named {
        for other in sharing(&existing, &name) {
            let none = || Part::Packages(BTreeSet::new());
            parts.entry(other.to_string()).or_insert_with(none);
        }
    }
    let all = request.sources.is_empty() && !request.epoch;
    let moves = |name: &Ident| all || parts.contains_key(name.as_str());
    let finder = Finder::new(session, project, &resolved, request.options);
    let mut lock = existing.clone();
    let mut report = LockReport {
        needed: !requests.is_empty(),
        ..LockReport::default()
    };
    let mut dates = Vec::new();
    for (name, asked) in &requests {
        if !moves(name) {
            continue;
        }
        let before = existing.sources.get(name).map(|locked| &locked.pin);
        let moving = match (parts.get(name.as_str()), before) {
            (Some(Part::Packages(wanted)), Some(Pin::Debian(pin))) => {
                Moving::These(&existing, pin, wanted)
            }
            _ => Moving::All(&existing),
        };
        let (pin, date) = finder.find(name, moving)?;
        dates.extend(date);
        report.shared.extend(shared(name, before, &pin));
        report.moved.extend(moved(name, before, &pin));
        lock.sources.insert(
            name.clone(),
            Locked {
                request: *asked,
                pin,
            },
        );
    }
    if request.epoch {
        // The date of what did not move is not in the lock, so the rule of a first lock needs every source.
        for name in requests.keys().filter(|name| !moves(name)) {
            dates.extend(finder.find(name, Moving::Nothing(Some(&existing)))?.1);
        }
        lock.epoch = first_epoch(session, &resolved, &dates)?;
        if lock.epoch != existing.epoch {
            report.epoch = Some((existing.epoch, lock.epoch));
        }
    }
    if !request.dry_run {
        report.written = project
            .write_lock(&lock)?
            .then(|| project.lock_path.clone());
    }
    Ok(report)
}

/// A lock with what `existing` still says and what it lacks.
fn find_missing(
    session: &Session<'_>,
    project: &Project,
    resolved: &ByPlatform,
    existing: Option<&Lock>,
    options: LockOptions,
) -> Result<(Lock, LockReport), Failure> {
    let finder = Finder::new(session, project, resolved, options);
    let requests = lock::requests(resolved);
    let stale = existing.map(|existing| lock::check(resolved, existing));
    let mut report = LockReport {
        needed: !requests.is_empty(),
        ..LockReport::default()
    };
    let mut sources = BTreeMap::new();
    let mut dates = Vec::new();
    for (name, request) in requests {
        let kept = existing
            .and_then(|existing| existing.sources.get(&name))
            .filter(|_| {
                stale
                    .iter()
                    .all(|stale| stale.outdated.iter().all(|outdated| outdated.name != name))
            });
        if let Some(kept) = kept {
            sources.insert(name, kept.clone());
            continue;
        }
        let (pin, date) = finder.find(&name, Moving::Nothing(existing))?;
        dates.extend(date);
        report.added.push(format!("{name:9} {}", describe(&pin)));
        sources.insert(name, Locked { request, pin });
    }
    report.dropped = stale
        .iter()
        .flat_map(|stale| stale.unused.iter().map(ToString::to_string))
        .collect();
    let epoch = match existing {
        Some(existing) => existing.epoch,
        None => first_epoch(session, resolved, &dates)?,
    };
    let lock = Lock {
        epoch,
        sources,
        expect: existing
            .map(|existing| existing.expect.clone())
            .unwrap_or_default(),
    };
    Ok((lock, report))
}

/// SPEC B: the spec's, else `SOURCE_DATE_EPOCH`, else the newest date of a locked source, else the constant.
fn first_epoch(
    session: &Session<'_>,
    resolved: &ByPlatform,
    dates: &[i64],
) -> Result<Epoch, Failure> {
    if let Some(epoch) = resolved.values().find_map(|spec| spec.epoch) {
        return Ok(epoch);
    }
    if let Some(text) = &session.settings.source_date_epoch {
        return text
            .parse()
            .ok()
            .and_then(|seconds| Epoch::from_seconds(seconds).ok())
            .ok_or_else(|| {
                Failure::new(
                    Exit::Usage,
                    Diagnostic::error(format!("`SOURCE_DATE_EPOCH` is `{text}`"))
                        .because("it must be seconds since 1970, up to the year 9999")
                        .hint("unset it, or set it to such a number"),
                )
            });
    }
    Ok(dates
        .iter()
        .max()
        .and_then(|seconds| Epoch::from_seconds(*seconds).ok())
        .unwrap_or(Epoch::DEFAULT))
}

/// Asks the outside what a source is now.
struct Finder<'a> {
    session: &'a Session<'a>,
    project: &'a Project,
    resolved: &'a ByPlatform,
    options: LockOptions,
    /// Looked at when the first source of packages is.
    archives: OnceCell<Archives<'a>>,
}

impl<'a> Finder<'a> {
    fn new(
        session: &'a Session<'a>,
        project: &'a Project,
        resolved: &'a ByPlatform,
        options: LockOptions,
    ) -> Self {
        Self {
            session,
            project,
            resolved,
            options,
            archives: OnceCell::new(),
        }
    }

    /// The source for each platform that has it; one for all where none depends on the platform.
    fn variants(&self, name: &Ident) -> Vec<(Option<Platform>, &'a Source)> {
        let all: Vec<(Platform, &Source)> = self
            .resolved
            .iter()
            .filter_map(|(platform, spec)| Some((*platform, spec.sources.get(name)?)))
            .collect();
        if all.iter().any(|(_, source)| source.per_platform) {
            all.into_iter()
                .map(|(platform, source)| (Some(platform), source))
                .collect()
        } else {
            all.into_iter()
                .take(1)
                .map(|(_, source)| (None, source))
                .collect()
        }
    }

    fn find(&self, name: &Ident, moving: Moving<'_>) -> Result<(Pin, Option<i64>), Failure> {
        let variants = self.variants(name);
        let first = variants[0].1;
        let at = |failure: Failure| {
            failure.at(
                Place {
                    file: self.project.file.clone(),
                    span: first.span,
                },
                name,
            )
        };
        let found = match &first.kind {
            SourceKind::Image(_) => self.image(name, &variants),
            SourceKind::Http(_) => self.http(&variants).map(|pin| (pin, None)),
            SourceKind::Git(_) => self.git(&variants),
            SourceKind::Debian(_) => self.debian(name, &variants, moving),
            SourceKind::Python(_) => self.python(name, &variants).map(|pin| (pin, None)),
            SourceKind::Path(_) | SourceKind::Cargo(_) => unreachable!("it has no request"),
        };
        found.map_err(at)
    }

    fn debian(
        &self,
        name: &Ident,
        variants: &[(Option<Platform>, &Source)],
        moving: Moving<'_>,
    ) -> Result<(Pin, Option<i64>), Failure> {
        let variants: Vec<(&DebianSource, Vec<Platform>)> = variants
            .iter()
            .map(|(platform, source)| {
                let SourceKind::Debian(source) = &source.kind else {
                    unreachable!("a source has one kind on all platforms");
                };
                (source, self.image_platforms(name, *platform))
            })
            .collect();
        let archives = self
            .archives
            .get_or_init(|| Archives::new(self.session, self.project, self.options.allow_expired));
        let (pin, date) = archives.find(&variants, moving)?;
        Ok((Pin::Debian(pin), date.map(Epoch::seconds)))
    }

    fn python(
        &self,
        name: &Ident,
        variants: &[(Option<Platform>, &Source)],
    ) -> Result<Pin, Failure> {
        let variants: Vec<(&PythonSource, Vec<Platform>)> = variants
            .iter()
            .map(|(platform, source)| {
                let SourceKind::Python(source) = &source.kind else {
                    unreachable!("a source has one kind on all platforms");
                };
                (source, self.image_platforms(name, *platform))
            })
            .collect();
        libraries::lock_python(self.session, self.project, &variants).map(Pin::Python)
    }

    fn http(&self, variants: &[(Option<Platform>, &Source)]) -> Result<Pin, Failure> {
        let mut files = BTreeMap::new();
        for (platform, source) in variants {
            let SourceKind::Http(source) = &source.kind else {
                unreachable!("a source has one kind on all platforms");
            };
            let request = http::Request {
                url: &source.url,
                mirrors: &source.mirrors,
                expected: source.sha256,
                size: None,
                offline: self.session.settings.offline,
            };
            let fetched = http::fetch(
                &request,
                &http::Policy::default(),
                &self.session.store,
                &|_, _| {},
            )?;
            files.insert(
                *platform,
                FilePin {
                    sha256: *fetched.blob.digest(),
                    size: fetched.size,
                },
            );
        }
        Ok(Pin::Http { files })
    }

    fn git(&self, variants: &[(Option<Platform>, &Source)]) -> Result<(Pin, Option<i64>), Failure> {
        let mut commits = BTreeMap::new();
        let mut newest = None;
        for (platform, source) in variants {
            let SourceKind::Git(source) = &source.kind else {
                unreachable!("a source has one kind on all platforms");
            };
            let cache = self.session.git_cache();
            let found = git::lock_remote(
                &remote(source, self.session),
                &self.session.git_means(&cache),
                &self.session.store,
            )?;
            newest = newest.max(Some(found.time));
            commits.insert(
                *platform,
                CommitPin {
                    commit: found.commit,
                    tree: self.session.store.put_tree(&found.tree)?,
                },
            );
        }
        Ok((Pin::Git { commits }, newest))
    }

    fn image(
        &self,
        name: &Ident,
        variants: &[(Option<Platform>, &Source)],
    ) -> Result<(Pin, Option<i64>), Failure> {
        let mut manifests = BTreeMap::new();
        let mut indexes: Vec<Option<Digest>> = Vec::new();
        let mut newest = None;
        for (platform, source) in variants {
            let SourceKind::Image(source) = &source.kind else {
                unreachable!("a source has one kind on all platforms");
            };
            let platforms = self.image_platforms(name, *platform);
            let (image, choice) = self.open(source, &platforms)?;
            indexes.push(choice.index.map(|index| *index.digest()));
            for wanted in platforms {
                let found = image.for_platform(&choice, wanted)?;
                newest = newest.max(image.base(&found.digest)?.date().map(Epoch::seconds));
                manifests.insert(
                    wanted,
                    ManifestPin {
                        digest: *found.digest.digest(),
                        size: found.size,
                    },
                );
            }
        }
        let index = match indexes.as_slice() {
            [one] => *one,
            _ => None,
        };
        Ok((Pin::Image { index, manifests }, newest))
    }

    fn open(
        &self,
        source: &ImageSource,
        platforms: &[Platform],
    ) -> Result<(image::LocalImage, image::Choice), Failure> {
        let (image, tag) = match source {
            ImageSource::Local { path, tag } => {
                let image = image::open_local(&self.project.resolve(path))?;
                (image, tag.as_deref())
            }
            ImageSource::Registry(name) => {
                let client = self.session.registries();
                let found = Pull {
                    client: &client,
                    repository: &name.repository,
                    store: &self.session.store,
                    offline: self.session.settings.offline,
                    threads: self.session.settings.threads,
                    progress: &|_| {},
                }
                .find(name, platforms)?;
                let name = name.to_string();
                (
                    image::of_documents(&name, found.root, found.documents),
                    None,
                )
            }
        };
        let choice = image.select(tag)?;
        Ok((image, choice))
    }

    /// The platforms an image source is started from or copied from.
    fn image_platforms(&self, name: &Ident, only: Option<Platform>) -> Vec<Platform> {
        let mut platforms: Vec<Platform> = self
            .resolved
            .iter()
            .filter(|(platform, _)| only.is_none_or(|only| only == **platform))
            .flat_map(|(_, spec)| spec.image_platforms().remove(name).unwrap_or_default())
            .collect();
        platforms.sort_unstable();
        platforms.dedup();
        platforms
    }
}

/// A remote repository as `git` wants it.
pub fn remote<'a>(source: &'a GitSource, session: &'a Session<'_>) -> git::Remote<'a> {
    let Repository::Remote(url) = &source.repository else {
        unreachable!("a local repository is pinned by its content, not fetched");
    };
    git::Remote {
        url,
        mirrors: &[],
        rev: source.rev.as_deref(),
        subdir: &source.subdir,
        submodules: source.submodules,
        ssh: session.settings.ssh.as_deref(),
    }
}

/// How much of a source of packages is in both pins, where they differ: who has the one fetches no more than the rest.
fn shared(name: &Ident, before: Option<&Pin>, after: &Pin) -> Option<(String, u64, u64)> {
    let (Some(Pin::Debian(before)), Pin::Debian(after)) = (before, after) else {
        return None;
    };
    let had: BTreeSet<Digest> = before.packages.iter().map(|it| it.sha256).collect();
    let of = |wanted: &dyn Fn(&Digest) -> bool| -> u64 {
        let packages = after.packages.iter().filter(|it| wanted(&it.sha256));
        packages.map(|it| it.size).sum()
    };
    let (kept, all) = (of(&|sha256| had.contains(sha256)), of(&|_| true));
    (kept < all).then(|| (name.to_string(), kept, all))
}

/// What moved of a source, in words: what, from, to.
fn moved(name: &Ident, before: Option<&Pin>, after: &Pin) -> Vec<(String, String, String)> {
    if let Pin::Debian(after) = after {
        let before = before.and_then(|pin| match pin {
            Pin::Debian(pin) => Some(pin),
            _ => None,
        });
        return packages::difference(before, after)
            .into_iter()
            .map(|(what, from, to)| (format!("{name}:{what}"), from, to))
            .collect();
    }
    let before = before.map(describe);
    let after = describe(after);
    if before.as_ref() == Some(&after) {
        return Vec::new();
    }
    let before = before.unwrap_or_else(|| "nothing".into());
    vec![(name.to_string(), before, after)]
}

/// A pin in a few words.
fn describe(pin: &Pin) -> String {
    match pin {
        Pin::Image { index, manifests } => {
            let digest = index.or(manifests.values().next().map(|manifest| manifest.digest));
            let digest = digest.map(|digest| digest.short()).unwrap_or_default();
            format!("image sha256:{digest}")
        }
        Pin::Http { files } => {
            let files: Vec<String> = files
                .values()
                .map(|file| format!("sha256:{} ({} bytes)", file.sha256.short(), file.size))
                .collect();
            files.join(", ")
        }
        Pin::Git { commits } => {
            let commits: Vec<&str> = commits
                .values()
                .map(|commit| &commit.commit[..12])
                .collect();
            format!("commit {}", commits.join(", "))
        }
        Pin::Debian(pin) => {
            let newest = pin.releases.iter().map(|release| release.date).max();
            let newest = newest.map(|date| format!(" of {date}")).unwrap_or_default();
            match pin.packages.len() {
                1 => format!("1 package{newest}"),
                packages => format!("{packages} packages{newest}"),
            }
        }
        Pin::Python(pin) => match pin.wheels.len() {
            1 => "1 wheel".to_owned(),
            wheels => format!("{wheels} wheels"),
        },
    }
}

/// SPEC B: an incomplete or outdated lock names what was added or removed and the command.
fn outdated(project: &Project, check: &Check) -> Failure {
    let mut causes: Vec<String> = Vec::new();
    causes.extend(
        check
            .missing
            .iter()
            .map(|name| format!("`{name}` is not locked")),
    );
    causes.extend(check.outdated.iter().map(|outdated| {
        let name = &outdated.name;
        match outdated.why {
            Why::Request => format!("`{name}` asks for something else now"),
            Why::Added(platform) => format!("`{name}` is wanted for {platform} too"),
            Why::Removed(platform) => format!("`{name}` is no longer wanted for {platform}"),
        }
    }));
    causes.extend(
        check
            .unused
            .iter()
            .map(|name| format!("`{name}` is no longer used")),
    );
    Failure::new(
        Exit::Lock,
        Diagnostic::error(format!("`{}` is outdated", project.lock_path.display()))
            .because(causes.join("; "))
            .hint("run `immbuild lock`, which adds and drops pins and moves none"),
    )
}
