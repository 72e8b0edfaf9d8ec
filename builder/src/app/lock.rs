//! Finds pins and writes them down: `lock` adds and drops, `update` moves, `build` does the first when there is no lock.

use std::collections::BTreeMap;
use std::path::PathBuf;

use immbuild_cas::digest::Digest;
use immbuild_cas::store::Store as _;

use super::failure::{Exit, Failure};
use super::project::Project;
use super::session::Session;
use crate::diag::{Diagnostic, Place};
use crate::epoch::Epoch;
use crate::lock::model::{CommitPin, FilePin, Lock, Locked, ManifestPin, Pin};
use crate::lock::{self, Check, Why};
use crate::platform::Platform;
use crate::resolve::{git, http, image};
use crate::spec::model::{GitSource, Ident, ImageSource, Repository, Resolved, Source, SourceKind};

/// What became of the pins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockReport {
    /// Sources that were pinned, each in a line for people.
    pub added: Vec<String>,
    /// Sources whose pins were dropped.
    pub dropped: Vec<String>,
    /// Sources whose pins moved: source, old, new.
    pub moved: Vec<(String, String, String)>,
    /// The epoch before and after, where it moved.
    pub epoch: Option<(Epoch, Epoch)>,
    /// The lock's file, where it was written.
    pub written: Option<PathBuf>,
    /// Is there anything that needs a lock at all?
    pub needed: bool,
}

type ByPlatform = BTreeMap<Platform, Resolved>;

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
        let (lock, report) = find_missing(session, project, &resolved, None)?;
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
pub fn lock(session: &Session<'_>, project: &Project) -> Result<LockReport, Failure> {
    let resolved = project.resolve_defaults()?;
    let existing = project.read_lock()?;
    let (lock, mut report) = find_missing(session, project, &resolved, existing.as_ref())?;
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

/// What `update` is asked to move.
#[derive(Clone, Debug, Default)]
pub struct UpdateRequest {
    /// These sources; none: all, unless only the epoch is asked for.
    pub sources: Vec<String>,
    /// The epoch too.
    pub epoch: bool,
    /// Write nothing.
    pub dry_run: bool,
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
    for name in &request.sources {
        if !requests.keys().any(|known| known.as_str() == name) {
            let known: Vec<&str> = requests.keys().map(Ident::as_str).collect();
            return Err(Failure::new(
                Exit::Usage,
                Diagnostic::error(format!("there is no locked source `{name}`"))
                    .hint(format!("the lock has {}", known.join(", "))),
            ));
        }
    }
    let moves = |name: &Ident| match (request.sources.as_slice(), request.epoch) {
        ([], epoch_only) => !epoch_only,
        (names, _) => names.iter().any(|wanted| wanted == name.as_str()),
    };
    let finder = Finder::new(session, project, &resolved);
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
        let (pin, date) = finder.find(name)?;
        dates.extend(date);
        let before = existing
            .sources
            .get(name)
            .map(|locked| describe(&locked.pin));
        let after = describe(&pin);
        if before.as_ref() != Some(&after) {
            let before = before.unwrap_or_else(|| "nothing".into());
            report.moved.push((name.to_string(), before, after));
        }
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
            dates.extend(finder.find(name)?.1);
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
) -> Result<(Lock, LockReport), Failure> {
    let finder = Finder::new(session, project, resolved);
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
        let (pin, date) = finder.find(&name)?;
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
}

impl<'a> Finder<'a> {
    fn new(session: &'a Session<'a>, project: &'a Project, resolved: &'a ByPlatform) -> Self {
        Self {
            session,
            project,
            resolved,
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

    fn find(&self, name: &Ident) -> Result<(Pin, Option<i64>), Failure> {
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
            SourceKind::Debian(_) => Err(Failure::new(
                Exit::Spec,
                Diagnostic::error("locking packages is not supported by this version"),
            )),
            SourceKind::Path(_) => unreachable!("a path has no request"),
        };
        found.map_err(at)
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
            let (image, choice) = self.open(source)?;
            indexes.push(choice.index.map(|index| *index.digest()));
            for wanted in self.image_platforms(name, *platform) {
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

    fn open(&self, source: &ImageSource) -> Result<(image::LocalImage, image::Choice), Failure> {
        let image = image::open_local(&self.project.resolve(&source.path))?;
        let choice = image.select(source.tag.as_deref())?;
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
            format!("{} packages{newest}", pin.packages.len())
        }
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
