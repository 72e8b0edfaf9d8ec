//! Does a lock answer what a spec asks?

use std::collections::{BTreeMap, BTreeSet};

use immbuild_cas::canonical::{Canonical, Encoder};
use immbuild_cas::digest::Digest;

use super::model::{Lock, Locked, Pin};
use crate::platform::Platform;
use crate::spec::model::{Ident, Resolved, Source, SourceKind};

/// How a lock stands to a spec. Nothing in it: the lock is complete and up to date.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// Sources without a pin.
    pub missing: Vec<Ident>,
    /// Sources that ask for something else than when they were locked.
    pub outdated: Vec<Outdated>,
    /// Pins without a source.
    pub unused: Vec<Ident>,
}

impl Check {
    /// Is there nothing to do?
    pub fn is_clean(&self) -> bool {
        self.missing.is_empty() && self.outdated.is_empty() && self.unused.is_empty()
    }
}

/// A pin that no longer answers its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outdated {
    /// The source.
    pub name: Ident,
    /// What has changed.
    pub why: Why,
}

/// What has changed since a source was locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// What it asks for, or of what kind it is.
    Request,
    /// It is now wanted for this platform, too.
    Added(Platform),
    /// It is no longer wanted for this platform.
    Removed(Platform),
}

/// What each source that is locked asks for, over all platforms of the spec: give the spec resolved for each of them.
pub fn requests(resolved: &BTreeMap<Platform, Resolved>) -> BTreeMap<Ident, Digest> {
    let mut sources: BTreeMap<&Ident, Vec<(Platform, &Source)>> = BTreeMap::new();
    for (platform, one) in resolved {
        for (name, source) in &one.sources {
            if source.is_locked() {
                sources.entry(name).or_default().push((*platform, source));
            }
        }
    }
    sources
        .into_iter()
        .map(|(name, sources)| (name.clone(), request(&sources)))
        .collect()
}

/// One platform's request when all ask for the same, else the digest of all of them.
fn request(sources: &[(Platform, &Source)]) -> Digest {
    if sources.iter().any(|(_, source)| source.per_platform) {
        let requests = sources
            .iter()
            .map(|(platform, source)| (*platform, source.request()));
        Requests(requests.collect()).canonical_digest()
    } else {
        sources[0].1.request()
    }
}

struct Requests(Vec<(Platform, Digest)>);

impl Canonical for Requests {
    const TAG: &'static str = "requests";
    const VERSION: u32 = 1;

    fn encode_fields(&self, out: &mut Encoder) {
        out.sequence(self.0.iter(), |out, (platform, digest)| {
            out.str(&platform.to_string());
            out.digest(digest);
        });
    }
}

/// Compares a lock with a spec resolved for each of its platforms.
pub fn check(resolved: &BTreeMap<Platform, Resolved>, lock: &Lock) -> Check {
    let requests = requests(resolved);
    let mut check = Check::default();
    for (name, request) in &requests {
        match lock.sources.get(name) {
            None => check.missing.push(name.clone()),
            Some(locked) => check
                .outdated
                .extend(outdated(resolved, name, *request, locked)),
        }
    }
    let unused = lock
        .sources
        .keys()
        .filter(|name| !requests.contains_key(*name));
    check.unused = unused.cloned().collect();
    check
}

fn outdated(
    resolved: &BTreeMap<Platform, Resolved>,
    name: &Ident,
    request: Digest,
    locked: &Locked,
) -> Vec<Outdated> {
    let outdated = |why| Outdated {
        name: name.clone(),
        why,
    };
    let same_kind = resolved
        .values()
        .filter_map(|one| one.sources.get(name))
        .all(|source| {
            matches!(
                (&source.kind, &locked.pin),
                (SourceKind::Image(_), Pin::Image { .. })
                    | (SourceKind::Http(_), Pin::Http { .. })
                    | (SourceKind::Git(_), Pin::Git { .. })
                    | (SourceKind::Debian(_), Pin::Debian(_))
                    | (SourceKind::Python(_), Pin::Python(_))
            )
        });
    if !same_kind || request != locked.request {
        return vec![outdated(Why::Request)];
    }
    // What asks for the same on every platform has one pin; else the request says the platforms already. Only images,
    // packages and wheels are one request with a pin for each.
    let is_locked_for: &dyn Fn(Platform) -> bool = match &locked.pin {
        Pin::Image { manifests, .. } => &|platform| manifests.contains_key(&platform),
        Pin::Debian(pin) => &|platform| pin.architectures().contains(platform.debian()),
        Pin::Python(pin) => &|platform| pin.wheels_for(platform).next().is_some(),
        Pin::Http { .. } | Pin::Git { .. } => return Vec::new(),
    };
    let wanted: BTreeSet<Platform> = resolved
        .values()
        .flat_map(|one| one.image_platforms().remove(name).unwrap_or_default())
        .collect();
    let added = wanted
        .iter()
        .filter(|platform| !is_locked_for(**platform))
        .map(|platform| outdated(Why::Added(*platform)));
    // Several platforms may share an architecture of Debian's: then each is wanted as long as one of them is.
    let is_wanted = |platform: &Platform| match &locked.pin {
        Pin::Debian(_) => wanted.iter().any(|it| it.debian() == platform.debian()),
        _ => wanted.contains(platform),
    };
    let removed = Platform::all()
        .filter(|platform| is_locked_for(*platform) && !is_wanted(platform))
        .map(|platform| outdated(Why::Removed(platform)));
    added.chain(removed).collect()
}
