//! The program that runs the scripts of unpacked packages, once, inside of a step.
//!
//! It is a file of the root, because which packages there are is known only when they are unpacked: the step that starts it
//! is the same for all ([`configuration`](crate::graph::install::configuration)). dpkg does the configuring and the triggers; what dpkg would have done before it
//! unpacked, the `preinst` scripts, is done here.
//!
//! Must never know sandboxes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use immbuild_cas::path::RelPath;
use immbuild_cas::store::Store;
use immbuild_cas::tree::Mode;

use super::install::{InstallError, put_text};
use super::package::Package;
use super::status::Status;
use crate::graph::apply::Root;
use crate::graph::install::PROGRAM;

/// What runs first: `base-files` and `dash` are used by every script, `awk` and the cache of libraries by many, without
/// their saying so. `debianutils` has the list of shells that `dash` enters itself in.
const FIRST: [&str; 7] = [
    "base-files",
    "base-passwd",
    "dash",
    "debianutils",
    "libc-bin",
    "mawk",
    "original-awk",
];

/// The fields that say what a package needs to be configured.
const NEEDS: [&str; 2] = ["Pre-Depends", "Depends"];

/// Keeps services from being started (invoke-rc.d(8)).
const POLICY: &str = "usr/sbin/policy-rc.d";
const POLICY_TEXT: &str = "#!/bin/sh\nexit 101\n";

/// Writes the program into the root.
///
/// # Errors
/// There is no shell or no dpkg in it.
pub(super) fn prepare(
    root: &mut Root<'_>,
    packages: &[Package],
    status: &Status,
    store: &dyn Store,
) -> Result<(), InstallError> {
    for (path, name) in [("bin/sh", "sh"), ("usr/bin/dpkg", "dpkg")] {
        if root.find(&constant(path))?.is_none() {
            return Err(InstallError::NoRunner(name));
        }
    }
    let policy = constant(POLICY);
    let is_ours = root.find(&policy)?.is_none();
    if is_ours {
        put_text(
            root,
            &policy,
            POLICY_TEXT.as_bytes(),
            Mode::DIRECTORY,
            store,
        )?;
    }
    let text = program(packages, status, is_ours);
    let at = constant(PROGRAM);
    put_text(root, &at, text.as_bytes(), Mode::DIRECTORY, store)
}

fn constant(path: &str) -> RelPath {
    RelPath::new(path.as_bytes()).expect("a constant is a path")
}

fn program(packages: &[Package], status: &Status, policy_is_ours: bool) -> String {
    let order = Order::new(packages);
    let first: BTreeSet<usize> = order.named(&FIRST);
    let essential: BTreeSet<usize> = order.essential();
    let mut out = String::from(HEAD);
    let version = status
        .0
        .values()
        .find(|installed| installed.key().name == "dpkg")
        .map_or("", |installed| upstream(installed.version()));
    writeln!(out, "export DPKG_RUNNING_VERSION={version}").expect("a string takes everything");
    let all: BTreeSet<usize> = (0..packages.len()).collect();
    let early: BTreeSet<usize> = first.union(&essential).copied().collect();
    preinsts(&mut out, packages, order.sorted(&early));
    configure(&mut out, "--force-depends", packages, &order.sorted(&first));
    configure(&mut out, "--force-depends", packages, &order.sorted(&early));
    let rest: BTreeSet<usize> = all.difference(&early).copied().collect();
    let mut begun = early.clone();
    let mut configured = early;
    for nth in order.sorted(&rest) {
        let package = &packages[nth];
        if package.control_file("preinst").is_none() || begun.contains(&nth) {
            continue;
        }
        // Debian policy 7.2: what it pre-depends on is configured before its script runs.
        let mut before = order.closure(order.needs(nth, &["Pre-Depends"]));
        before.remove(&nth);
        let before: BTreeSet<usize> = before.difference(&configured).copied().collect();
        let sorted = order.sorted(&before);
        // In a circle one of them may come after this one.
        let late = sorted.iter().copied().filter(|nth| !begun.contains(nth));
        preinsts(&mut out, packages, late);
        configure(&mut out, "--force-depends", packages, &sorted);
        begun.extend(&before);
        configured.extend(before);
        preinsts(&mut out, packages, [nth]);
        begun.insert(nth);
    }
    out.push_str("dpkg $options --configure --pending\n");
    if policy_is_ours {
        writeln!(out, "rm -f /{POLICY}").expect("a string takes everything");
    }
    out
}

/// Part of format 1: changing it changes what scripts see.
const HEAD: &str = "\
#!/bin/sh
# Runs the scripts of the packages that were unpacked, once, and is gone then.
set -eu
rm -f \"$0\"
umask 022
options='--force-confdef --force-confold --force-unsafe-io'
export DPKG_ADMINDIR=/var/lib/dpkg DPKG_ROOT= DPKG_FORCE= DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1
preinst() {
  DPKG_MAINTSCRIPT_NAME=preinst DPKG_MAINTSCRIPT_PACKAGE=$1 DPKG_MAINTSCRIPT_ARCH=$2 \\
    \"/var/lib/dpkg/info/$3.preinst\" install ||
    { echo \"the preinst script of $1 failed\" >&2; exit 1; }
}
";

fn preinsts(out: &mut String, packages: &[Package], order: impl IntoIterator<Item = usize>) {
    for package in order.into_iter().map(|nth| &packages[nth]) {
        if package.control_file("preinst").is_some() {
            let (name, arch, info) = (package.name(), package.arch(), package.info_name());
            writeln!(out, "preinst {name} {arch} {info}").expect("a string takes everything");
        }
    }
}

fn configure(out: &mut String, force: &str, packages: &[Package], order: &[usize]) {
    if order.is_empty() {
        return;
    }
    // What one run has configured, the next may not name.
    out.push_str("set --");
    for package in order.iter().map(|nth| &packages[*nth]) {
        write!(out, " {}", package.info_name()).expect("a string takes everything");
    }
    out.push_str(
        "
states=$(dpkg-query -W -f ' ${db:Status-Status}=${Package} ${db:Status-Status}=${binary:Package} ' \"$@\")
for name; do
  shift
  case $states in *\" unpacked=$name \"*) set -- \"$@\" \"$name\" ;; esac
done
",
    );
    writeln!(
        out,
        "[ $# = 0 ] || dpkg $options {force} --configure \"$@\""
    )
    .expect("a string takes everything");
}

/// A version without epoch and revision.
fn upstream(version: &str) -> &str {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    version
        .rsplit_once('-')
        .map_or(version, |(upstream, _)| upstream)
}

/// Who needs whom.
struct Order<'p> {
    packages: &'p [Package],
    /// Who is called so, or provides it.
    names: BTreeMap<&'p str, Vec<usize>>,
}

impl<'p> Order<'p> {
    fn new(packages: &'p [Package]) -> Self {
        let mut names: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (package, nth) in packages.iter().zip(0..) {
            names.entry(package.name()).or_default().push(nth);
        }
        for (package, nth) in packages.iter().zip(0..) {
            let provides = package.fields.get("Provides").unwrap_or_default();
            for provided in provides.split(',') {
                let name = provided.split('(').next().unwrap_or_default().trim();
                if !name.is_empty() {
                    names.entry(name).or_default().push(nth);
                }
            }
        }
        Self { packages, names }
    }

    fn named(&self, names: &[&str]) -> BTreeSet<usize> {
        names
            .iter()
            .filter_map(|name| self.names.get(name))
            .flatten()
            .copied()
            .collect()
    }

    /// What is essential, with all that it needs.
    fn essential(&self) -> BTreeSet<usize> {
        let all = 0..self.packages.len();
        self.closure(
            all.filter(|nth| self.packages[*nth].is_essential())
                .collect(),
        )
    }

    /// These, with all that they need.
    fn closure(&self, mut open: Vec<usize>) -> BTreeSet<usize> {
        let mut all = BTreeSet::new();
        while let Some(nth) = open.pop() {
            if all.insert(nth) {
                open.extend(self.needs(nth, &NEEDS));
            }
        }
        all
    }

    /// The packages that one names in these fields. Of alternatives the first that is here.
    fn needs(&self, nth: usize, names: &[&str]) -> Vec<usize> {
        let fields = &self.packages[nth].fields;
        names
            .iter()
            .filter_map(|field| fields.get(field))
            .flat_map(|value| value.split(','))
            .filter_map(|clause| {
                clause.split('|').find_map(|relation| {
                    let name = relation.split(['(', ':']).next().unwrap_or_default();
                    self.names.get(name.trim())
                })
            })
            .flatten()
            .copied()
            .collect()
    }

    /// What is needed before what needs it, as far as there is no circle.
    fn sorted(&self, wanted: &BTreeSet<usize>) -> Vec<usize> {
        let mut sorted = Vec::new();
        let mut seen = BTreeSet::new();
        for start in wanted {
            // A package and how many of those it needs were looked at.
            let mut way = vec![(*start, 0)];
            if !seen.insert(*start) {
                continue;
            }
            while let Some((nth, looked)) = way.last_mut() {
                let next = self.needs(*nth, &NEEDS).get(*looked).copied();
                *looked += 1;
                match next {
                    Some(next) if wanted.contains(&next) && seen.insert(next) => {
                        way.push((next, 0));
                    }
                    Some(_) => {}
                    None => {
                        sorted.push(*nth);
                        way.pop();
                    }
                }
            }
        }
        sorted
    }
}
