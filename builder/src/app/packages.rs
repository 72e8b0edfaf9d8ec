//! Packages: which ones a `debian` source means now, and bringing those that are locked here.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;

use immbuild_cas::digest::Digest;

use super::failure::{Exit, Failure};
use super::project::{Project, io_failure};
use super::session::Session;
use crate::debian::fetch::{self, Archive, FetchError, MissingFile, Wanted};
use crate::debian::index;
use crate::debian::openpgp::{Keyring, Rules};
use crate::debian::release::Release;
use crate::debian::solve::{Chosen, List, SOLVER, SolveError, Universe, Wish};
use crate::debian::sources::{HostSources, Places};
use crate::diag::{Diagnostic, Place, nearest};
use crate::epoch::Epoch;
use crate::lock::model::{ALL, DebianPin, Lock, PackagePin, Pin, ReleasePin};
use crate::platform::Platform;
use crate::ports::Event;
use crate::resolve::http::Fetcher;
use crate::spec::model::{DebianArchive, DebianSource, Ident};

/// The file in the host's directory of keyrings that has Debian's own keys, by its new and its old name.
const DEBIAN_KEYS: [&str; 2] = ["debian-archive-keyring.pgp", "debian-archive-keyring.gpg"];
/// How far ahead of this machine's clock a release may be.
const AHEAD: i64 = 24 * 3600;

/// What may differ from what is locked.
#[derive(Clone, Copy, Debug)]
pub enum Moving<'l> {
    /// Nothing: a release that is locked for any source is taken as it was.
    Nothing(Option<&'l Lock>),
    /// Everything, but no release may be older than the locked one.
    All(&'l Lock),
    /// These packages of this pin and what they force; others stay in their version where the archive still has it.
    These(&'l Lock, &'l DebianPin, &'l BTreeSet<String>),
}

impl<'l> Moving<'l> {
    fn lock(self) -> Option<&'l Lock> {
        match self {
            Self::Nothing(lock) => lock,
            Self::All(lock) | Self::These(lock, ..) => Some(lock),
        }
    }

    /// The release that is locked for a suite, by any source.
    fn locked(self, archive: &Ident, suite: &str) -> Option<&'l ReleasePin> {
        let sources = self.lock()?.sources.values();
        sources
            .filter_map(|locked| match &locked.pin {
                Pin::Debian(pin) => Some(&pin.releases),
                _ => None,
            })
            .flatten()
            .filter(|release| release.archive == *archive && release.suite == suite)
            .max_by_key(|release| release.date)
    }
}

/// The archives that were looked at: sources of one archive share its release.
pub struct Archives<'a> {
    session: &'a Session<'a>,
    project: &'a Project,
    allow_expired: bool,
    host: HostSources,
    fetcher: Fetcher,
    /// By what they are asked for.
    suites: RefCell<BTreeMap<String, Rc<Suite>>>,
    /// By digest.
    indexes: RefCell<BTreeMap<Digest, Rc<str>>>,
}

/// A suite whose release is known.
#[derive(Debug)]
struct Suite {
    release: Release,
    pin: ReleasePin,
}

impl<'a> Archives<'a> {
    /// None looked at yet.
    pub fn new(session: &'a Session<'a>, project: &'a Project, allow_expired: bool) -> Self {
        Self {
            session,
            project,
            allow_expired,
            host: HostSources::read(&session.settings.host.apt),
            fetcher: fetch::fetcher(),
            suites: RefCell::default(),
            indexes: RefCell::default(),
        }
    }

    /// Where an archive is, in the order that is tried: the spec, the user, this machine's apt, the archive's old states.
    fn places(&self, archive: &DebianArchive) -> Places {
        let mut places = Places {
            snapshot: archive.snapshot.clone(),
            ..Places::default()
        };
        places.add(&archive.mirrors);
        let user = self
            .session
            .settings
            .host
            .mirrors
            .get(archive.name.as_str());
        if let Some(user) = user {
            places.add(&user.mirrors);
            places.snapshot = places.snapshot.or_else(|| user.snapshot.clone());
        }
        places.add(&self.host.mirrors(&archive.suites, &archive.components));
        places
    }

    /// Where the spec asks for the package that an error is about.
    fn asked_at(&self, error: &SolveError, source: &DebianSource) -> Option<Place> {
        let (SolveError::NotFound { name, .. } | SolveError::Virtual { name, .. }) = error else {
            return None;
        };
        let mut asked = std::iter::zip(&source.packages, &source.spans);
        let (_, span) = asked.find(|(asked, _)| *asked == name)?;
        Some(Place {
            file: self.project.file.clone(),
            span: *span,
        })
    }

    /// What a source means, for each of these architectures: the pin and the date of its newest release.
    pub fn find(
        &self,
        variants: &[(&DebianSource, Vec<Platform>)],
        moving: Moving<'_>,
    ) -> Result<(DebianPin, Option<Epoch>), Failure> {
        let mut releases: BTreeMap<(Ident, String), ReleasePin> = BTreeMap::new();
        let mut packages: BTreeMap<(String, String, String), PackagePin> = BTreeMap::new();
        let mut done = BTreeSet::new();
        for (source, platforms) in variants {
            for platform in platforms {
                let architecture = platform.debian();
                if !done.insert(architecture) {
                    continue;
                }
                let found = self.solve(source, architecture, moving)?;
                for pin in found.releases {
                    releases.insert((pin.archive.clone(), pin.suite.clone()), pin);
                }
                for package in found.packages {
                    join(&mut packages, package)?;
                }
            }
        }
        let newest = releases.values().map(|release| release.date).max();
        let pin = DebianPin {
            solver: SOLVER.to_owned(),
            releases: releases.into_values().collect(),
            packages: packages.into_values().collect(),
        };
        Ok((pin, newest))
    }

    fn solve(
        &self,
        source: &DebianSource,
        architecture: &str,
        moving: Moving<'_>,
    ) -> Result<Found, Failure> {
        let mut releases = Vec::new();
        // In the order that apt reads and prefers them: archives, suites, components as the spec has them.
        let mut texts: Vec<(Rc<str>, &DebianArchive, Rc<Suite>)> = Vec::new();
        for archive in &source.archives {
            for name in &archive.suites {
                let suite = self.suite(source, archive, name, moving)?;
                releases.push(suite.pin.clone());
                for component in &archive.components {
                    let found = self.indexes(archive, name, &suite, component, architecture)?;
                    texts.extend(
                        found
                            .into_iter()
                            .map(|text| (text, archive, Rc::clone(&suite))),
                    );
                }
            }
        }
        if texts.is_empty() {
            let names: Vec<String> = source
                .archives
                .iter()
                .map(|it| format!("`{}`", it.name))
                .collect();
            return Err(Failure::new(
                Exit::Unreachable,
                Diagnostic::error(format!(
                    "{} have no packages for {architecture}",
                    names.join(" and ")
                )),
            ));
        }
        let mut lists = Vec::new();
        for (text, archive, suite) in &texts {
            let packages = index::parse(text).map_err(|error| {
                Failure::of(Exit::Untrusted, &error).because(format!(
                    "it is in an index of `{}` in the archive `{}`",
                    suite.pin.suite, archive.name
                ))
            })?;
            lists.push(List {
                text,
                packages,
                rank: suite.release.rank,
            });
        }
        let keep = match moving {
            Moving::These(_, pin, named) => kept(pin, named, architecture, &lists),
            Moving::Nothing(_) | Moving::All(_) => BTreeMap::new(),
        };
        let universe = Universe::new(lists, architecture, &keep);
        let wish = Wish {
            packages: &source.packages,
            recommends: source.recommends,
            essential: source.essential,
            prefer: &source.prefer,
            exclude: &source.exclude,
        };
        let chosen = universe.solve(&wish).map_err(|error| {
            let mut failure = unsolved(&error, source, architecture);
            failure.diagnostics[0].place = self.asked_at(&error, source);
            failure
        })?;
        let packages = chosen
            .iter()
            .map(|one| pinned(one, &texts[one.list].1.name, architecture))
            .collect::<Result<_, _>>()?;
        Ok(Found { releases, packages })
    }

    fn indexes(
        &self,
        archive: &DebianArchive,
        name: &str,
        suite: &Suite,
        component: &str,
        architecture: &str,
    ) -> Result<Vec<Rc<str>>, Failure> {
        let own = suite.release.index(component, architecture);
        if own.is_none() {
            self.session.events.event(Event::Warning {
                text: format!(
                    "`{name}` of the archive `{}` has no `{component}` for {architecture}",
                    archive.name
                ),
                hint: None,
            });
        }
        let all = (!suite.release.all_in_each)
            .then(|| suite.release.index(component, ALL))
            .flatten();
        let mut texts = Vec::new();
        for (path, file) in own.into_iter().chain(all) {
            if let Some(known) = self.indexes.borrow().get(&file.sha256) {
                texts.push(Rc::clone(known));
                continue;
            }
            let places = self.places(archive);
            let from = self.archive(archive, &places);
            let text = from.index(name, &suite.release, &path, &file)?;
            let text: Rc<str> = text.into();
            self.indexes
                .borrow_mut()
                .insert(file.sha256, Rc::clone(&text));
            texts.push(text);
        }
        Ok(texts)
    }

    fn archive<'s>(&'s self, archive: &'s DebianArchive, places: &'s Places) -> Archive<'s> {
        Archive {
            name: archive.name.as_str(),
            places,
            offline: self.session.settings.offline,
            store: &self.session.store,
            fetcher: &self.fetcher,
        }
    }

    /// The release of a suite, each asked for once.
    fn suite(
        &self,
        source: &DebianSource,
        archive: &DebianArchive,
        name: &str,
        moving: Moving<'_>,
    ) -> Result<Rc<Suite>, Failure> {
        // Whoever trusts other keys or asks at other places may see another release.
        let key = format!("{archive:?} {name} {}", source.distro);
        if let Some(known) = self.suites.borrow().get(&key) {
            return Ok(Rc::clone(known));
        }
        let locked = moving.locked(&archive.name, name);
        let keyring = self.keyring(source, archive)?;
        let suite = match (moving, locked) {
            (Moving::Nothing(_), Some(locked)) => {
                self.locked_suite(archive, name, locked, &keyring)?
            }
            _ => self.newest_suite(archive, name, locked, &keyring)?,
        };
        let suite = Rc::new(suite);
        self.suites.borrow_mut().insert(key, Rc::clone(&suite));
        Ok(suite)
    }

    fn locked_suite(
        &self,
        archive: &DebianArchive,
        name: &str,
        locked: &ReleasePin,
        keyring: &Keyring,
    ) -> Result<Suite, Failure> {
        let places = self.places(archive);
        let text = self
            .archive(archive, &places)
            .locked_release(name, locked.inrelease, locked.date)
            .map_err(|error| {
                Failure::from(error).hint(format!(
                    "what is locked moves only by `immbuild update`: it takes `{name}` as it is now"
                ))
            })?;
        // It was good when it was locked; whether it is fresh is no question any more.
        let (release, signers) = self.check(archive, name, &text, keyring, true)?;
        let pin = ReleasePin {
            signers,
            ..locked.clone()
        };
        Ok(Suite { release, pin })
    }

    fn newest_suite(
        &self,
        archive: &DebianArchive,
        name: &str,
        floor: Option<&ReleasePin>,
        keyring: &Keyring,
    ) -> Result<Suite, Failure> {
        let places = self.places(archive);
        if places.mirrors.is_empty() {
            return Err(FetchError::NoPlace {
                archive: archive.name.to_string(),
                near: nearest(name, self.host.suites())
                    .filter(|near| *near != name)
                    .map(ToOwned::to_owned),
            }
            .into());
        }
        let mut refused: Vec<(Exit, String)> = Vec::new();
        for offer in self.archive(archive, &places).offers(name) {
            let (inrelease, text) = match offer.text {
                Ok(found) => found,
                Err(error) => {
                    let failure = Failure::from(error);
                    if failure.exit == Exit::Local {
                        return Err(failure);
                    }
                    refused.push((failure.exit, in_one_line(&failure)));
                    continue;
                }
            };
            match self.check(archive, name, &text, keyring, self.allow_expired) {
                Ok((release, _)) if floor.is_some_and(|floor| release.date < floor.date) => {
                    let floor = floor
                        .map(|floor| floor.date.to_string())
                        .unwrap_or_default();
                    let text = format!(
                        "`{}` offers the release of {}, and that of {floor} is locked: it was rolled back",
                        offer.url, release.date
                    );
                    refused.push((Exit::Untrusted, text));
                }
                Ok((release, signers)) => {
                    let pin = ReleasePin {
                        archive: archive.name.clone(),
                        suite: name.to_owned(),
                        inrelease,
                        date: release.date,
                        signers,
                    };
                    return Ok(Suite { release, pin });
                }
                Err(failure) => {
                    let text = format!("`{}`: {}", offer.url, in_one_line(&failure));
                    refused.push((failure.exit, text));
                }
            }
        }
        // What is not trusted says more than what is not there.
        let exit = refused.iter().map(|(exit, _)| *exit).max();
        let causes: Vec<String> = refused.into_iter().map(|(_, cause)| cause).collect();
        let exit = exit.unwrap_or(Exit::Unreachable);
        let failure = Failure::new(
            exit,
            Diagnostic::error(format!(
                "there is no good release of `{name}` in the archive `{}`",
                archive.name
            ))
            .because(causes.join("; ")),
        );
        Err(match exit {
            Exit::Untrusted => failure.hint(
                "`--allow-expired` takes a release or a key that is too old; nothing else can be waived",
            ),
            _ => failure.hint("name other places: `mirrors = [\"…\"]` of the archive"),
        })
    }

    /// What a release says, if it may be believed, and who signed it.
    fn check(
        &self,
        archive: &DebianArchive,
        name: &str,
        text: &str,
        keyring: &Keyring,
        allow_expired: bool,
    ) -> Result<(Release, Vec<String>), Failure> {
        let refuse = |cause: String| {
            Failure::new(
                Exit::Untrusted,
                Diagnostic::error(format!("the release of `{name}` is refused")).because(cause),
            )
        };
        let started = self.session.settings.started.0;
        let now = Epoch::from_seconds(started).map_err(|_| {
            refuse(format!(
                "this machine's clock says {started}, which is no time"
            ))
        })?;
        let rules = Rules {
            fingerprints: &archive.fingerprints,
            now,
            allow_expired,
        };
        let verified = keyring
            .verify(text, &rules)
            .map_err(|error| refuse(error.to_string()))?;
        let release = Release::parse(&verified.text).map_err(|error| refuse(error.to_string()))?;
        if !release.is_of(name) {
            return Err(refuse(format!(
                "it is of `{}` (`{}`)",
                release.suite, release.codename
            )));
        }
        if release.date.seconds() > now.seconds() + AHEAD {
            return Err(refuse(format!(
                "it is of {}, which is still to come",
                release.date
            )));
        }
        if !allow_expired {
            let oldest = archive.max_age.map(|age| {
                let age = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
                release.date.seconds().saturating_add(age)
            });
            match (release.valid_until, oldest) {
                (Some(until), _) if until < now => {
                    return Err(refuse(format!("it was valid until {until}")));
                }
                (None, Some(oldest)) if oldest < now.seconds() => {
                    return Err(refuse(format!(
                        "it is of {}, which is longer ago than `max-age`",
                        release.date
                    )));
                }
                _ => {}
            }
        }
        Ok((release, verified.signers))
    }

    fn keyring(&self, source: &DebianSource, archive: &DebianArchive) -> Result<Keyring, Failure> {
        let path = match &archive.signed_by {
            Some(path) => self.project.resolve(path),
            None if source.distro == "debian" => self.debian_keys()?,
            None => {
                return Err(Failure::new(
                    Exit::Spec,
                    Diagnostic::error(format!(
                        "nothing says who signs the archive `{}`",
                        archive.name
                    ))
                    .hint("name the keyring: `signed-by = \"keys/archive.gpg\"`"),
                ));
            }
        };
        let bytes =
            fs::read(&path).map_err(|error| io_failure("read the keyring", &path, &error))?;
        Keyring::parse(&bytes).map_err(|error| {
            Failure::new(
                Exit::Spec,
                Diagnostic::error(format!("`{}` cannot be used", path.display()))
                    .because(error.to_string()),
            )
        })
    }

    fn debian_keys(&self) -> Result<PathBuf, Failure> {
        let directory = &self.session.settings.host.keyrings;
        let mut paths = DEBIAN_KEYS.iter().map(|name| directory.join(name));
        paths.find(|path| path.is_file()).ok_or_else(|| {
            Failure::new(
                Exit::Untrusted,
                Diagnostic::error("this machine does not have Debian's keys")
                    .because(format!("there is no `{}` in `{}`", DEBIAN_KEYS[1], directory.display()))
                    .hint("install the package `debian-archive-keyring`, or name a keyring: `signed-by` of an archive"),
            )
        })
    }

    /// Brings packages that are locked into the store.
    pub fn fetch(
        &self,
        source: &DebianSource,
        releases: &[ReleasePin],
        packages: &[PackagePin],
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), Failure> {
        let places: BTreeMap<String, Places> = source
            .archives
            .iter()
            .map(|archive| (archive.name.to_string(), self.places(archive)))
            .collect();
        let wanted: Vec<Wanted> = packages
            .iter()
            .map(|package| Wanted {
                file: MissingFile {
                    name: package.name.clone(),
                    version: package.version.clone(),
                    sha256: package.sha256,
                },
                archive: package.archive.to_string(),
                path: package.path.clone(),
                size: package.size,
                date: releases
                    .iter()
                    .filter(|release| release.archive == package.archive)
                    .map(|release| release.date)
                    .max(),
            })
            .collect();
        let means = fetch::Means {
            places: &places,
            offline: self.session.settings.offline,
            store: &self.session.store,
            fetcher: &self.fetcher,
            threads: self.session.settings.threads,
            cancel: self.session.cancel,
            progress,
        };
        fetch::packages(&wanted, &means).map_err(Failure::from)
    }
}

struct Found {
    releases: Vec<ReleasePin>,
    packages: Vec<PackagePin>,
}

/// The locked versions that are to stay: all but those of the named packages and of what was built from the same source.
fn kept(
    pin: &DebianPin,
    named: &BTreeSet<String>,
    architecture: &str,
    lists: &[List<'_>],
) -> BTreeMap<String, String> {
    let sources: BTreeSet<&str> = pin
        .packages
        .iter()
        .filter(|package| named.contains(&package.name))
        .map(|package| package.source.as_str())
        .collect();
    let offered = |name: &str, version: &str| {
        lists.iter().any(|list| {
            list.packages
                .iter()
                .any(|package| package.name == name && package.version == version)
        })
    };
    pin.packages_for(architecture)
        .filter(|package| {
            !named.contains(&package.name) && !sources.contains(package.source.as_str())
        })
        .filter(|package| offered(&package.name, &package.version))
        .map(|package| (package.name.clone(), package.version.clone()))
        .collect()
}

fn pinned(one: &Chosen<'_>, archive: &Ident, architecture: &str) -> Result<PackagePin, Failure> {
    let package = &one.package;
    let sha256 = Digest::from_hex(package.sha256).map_err(|_| {
        Failure::new(
            Exit::Untrusted,
            Diagnostic::error(format!("`{}` has no SHA-256 in its archive", package.name))
                .because("nothing else says what its bytes must be"),
        )
    })?;
    let (source, source_version) = package.source();
    Ok(PackagePin {
        name: package.name.to_owned(),
        arch: package.architecture.to_owned(),
        version: package.version.to_owned(),
        for_architectures: if package.architecture == ALL {
            vec![architecture.to_owned()]
        } else {
            Vec::new()
        },
        archive: archive.clone(),
        path: package.path.to_owned(),
        size: package.size,
        sha256,
        source: source.to_owned(),
        source_version: (source_version != package.version).then(|| source_version.to_owned()),
        depends: one.depends.iter().map(|name| (*name).to_owned()).collect(),
        reason: one.reason.clone(),
    })
}

/// Adds a package of one architecture to those of others: what fits all of them is there once.
fn join(
    packages: &mut BTreeMap<(String, String, String), PackagePin>,
    package: PackagePin,
) -> Result<(), Failure> {
    let key = (
        package.name.clone(),
        package.arch.clone(),
        package.version.clone(),
    );
    let Some(known) = packages.get_mut(&key) else {
        packages.insert(key, package);
        return Ok(());
    };
    if known.sha256 != package.sha256 {
        return Err(Failure::new(
            Exit::Untrusted,
            Diagnostic::error(format!(
                "there are two files `{}` of version {}",
                package.name, package.version
            ))
            .because(format!(
                "sha256:{} and sha256:{}",
                known.sha256.to_hex(),
                package.sha256.to_hex()
            )),
        ));
    }
    let architectures: BTreeSet<String> = known
        .for_architectures
        .iter()
        .cloned()
        .chain(package.for_architectures)
        .collect();
    known.for_architectures = architectures.into_iter().collect();
    let depends: BTreeSet<String> = known
        .depends
        .iter()
        .cloned()
        .chain(package.depends)
        .collect();
    known.depends = depends.into_iter().collect();
    Ok(())
}

/// Why there is no set of packages.
fn unsolved(error: &SolveError, source: &DebianSource, architecture: &str) -> Failure {
    match error {
        SolveError::NotFound { name, near } => {
            let archives: Vec<String> = source
                .archives
                .iter()
                .map(|it| it.name.to_string())
                .collect();
            let failure = Failure::new(
                Exit::Unreachable,
                Diagnostic::error(format!("the package `{name}` is not found")).because(format!(
                    "it is not in {} ({architecture})",
                    archives.join(", ")
                )),
            );
            match near.as_slice() {
                [] => failure,
                near => {
                    let near: Vec<String> = near.iter().map(|it| format!("`{it}`")).collect();
                    failure.hint(format!("did you mean {}?", near.join(" or ")))
                }
            }
        }
        SolveError::Virtual { name, providers } => Failure::new(
            Exit::Spec,
            Diagnostic::error(format!("`{name}` is no package"))
                .because(format!("{} packages provide it", providers.len()))
                .hint(format!("name one of them: {}", providers.join(", "))),
        ),
        SolveError::Unsatisfiable { .. } | SolveError::Twofold { .. } => {
            let exit = match error {
                SolveError::Twofold { .. } => Exit::Untrusted,
                _ => Exit::Spec,
            };
            let message = format!("these packages cannot be had together for {architecture}");
            let failure = Failure::new(exit, Diagnostic::error(message).because(error.to_string()));
            match error {
                SolveError::Unsatisfiable { .. } => {
                    failure.hint("leave one of them out of `packages`, or say in `prefer` or `exclude` what to take instead")
                }
                _ => failure,
            }
        }
    }
}

fn in_one_line(failure: &Failure) -> String {
    let all: Vec<String> = failure
        .diagnostics
        .iter()
        .map(|it| match &it.cause {
            Some(cause) => format!("{}: {cause}", it.message),
            None => it.message.clone(),
        })
        .collect();
    all.join("; ")
}

/// What moved between two pins of one source, in words: what, from, to.
pub fn difference(before: Option<&DebianPin>, after: &DebianPin) -> Vec<(String, String, String)> {
    let versions = |pin: &DebianPin| -> BTreeMap<String, String> {
        let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for package in &pin.packages {
            versions
                .entry(package.name.clone())
                .or_default()
                .push(package.version.clone());
        }
        let joined = versions.into_iter().map(|(name, mut versions)| {
            versions.sort();
            versions.dedup();
            (name, versions.join(", "))
        });
        joined.collect()
    };
    let dates = |pin: &DebianPin| -> BTreeMap<String, String> {
        let dates = pin.releases.iter();
        let dates = dates.map(|it| (it.suite.clone(), it.date.to_string()));
        dates.collect()
    };
    let mut moved = Vec::new();
    let empty = DebianPin {
        solver: String::new(),
        releases: Vec::new(),
        packages: Vec::new(),
    };
    let before = before.unwrap_or(&empty);
    for (old, new) in [
        (dates(before), dates(after)),
        (versions(before), versions(after)),
    ] {
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for name in names {
            let nothing = || "nothing".to_owned();
            let (old, new) = (old.get(name), new.get(name));
            if old != new {
                moved.push((
                    name.clone(),
                    old.cloned().unwrap_or_else(nothing),
                    new.cloned().unwrap_or_else(nothing),
                ));
            }
        }
    }
    moved
}
