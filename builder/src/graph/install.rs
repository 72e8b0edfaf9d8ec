//! Packages put onto a root, as data with one encoding.
//!
//! Must never know how it is done: an [`Sources`](crate::ports::Sources) does it.

use immbuild_cas::canonical::{Canonical, Encoder};
use immbuild_cas::digest::Digest;

use super::file_op::Owner;
use super::op::ExecOp;
use super::plan;
use crate::epoch::Epoch;
use crate::platform::Platform;
use crate::spec::model::{Configure, Fixups, Metadata, Prune, Tier};

/// A package with its digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackagePin {
    /// Its name.
    pub name: String,
    /// Its architecture, or `all`.
    pub arch: String,
    /// Its version.
    pub version: String,
    /// Digest of the `.deb`.
    pub sha256: Digest,
}

impl PackagePin {
    pub(super) fn encode(&self, out: &mut Encoder) {
        out.str(&self.name);
        out.str(&self.arch);
        out.str(&self.version);
        out.digest(&self.sha256);
    }
}

/// Packages put onto a root. Inputs: the root, and the packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstallOp {
    /// The architecture of the root's programs, in Debian's words.
    pub architecture: String,
    /// Are scripts left to be run?
    pub configure: Configure,
    /// What is done in their place, where nothing runs.
    pub fixups: Fixups,
}

/// Version of what an install makes of equal packages. Another is another op.
const FORM: u32 = 3;

impl Canonical for InstallOp {
    const TAG: &'static str = "install";
    const VERSION: u32 = 1;

    fn encode_fields(&self, out: &mut Encoder) {
        out.u32(FORM);
        out.str(&self.architecture);
        out.str(self.configure.as_str());
        let fixups = &self.fixups;
        out.sequence(fixups.accounts.iter(), |out, account| {
            out.str(&account.name);
            out.option(account.ids, |out, (uid, gid)| {
                out.u32(uid);
                out.u32(gid);
            });
        });
        out.sequence(fixups.alternatives.iter(), |out, (name, path)| {
            out.str(name);
            out.bytes(path.as_bytes());
        });
        out.option(fixups.ca_bundle, Encoder::bool);
        out.sequence(fixups.symlinks.iter(), |out, (path, target)| {
            out.bytes(path.as_bytes());
            out.str(target);
        });
        out.sequence(fixups.dirs.iter(), |out, directory| {
            out.bytes(directory.path.as_bytes());
            out.option(directory.mode, |out, mode| out.u32(mode.bits()));
            out.option(directory.owner.as_ref(), |out, owner| {
                out.bytes(&plan::owner(owner).to_canonical());
            });
        });
        out.sequence(fixups.prune.iter(), |out, prune| {
            out.u8(match prune {
                Prune::Docs => 0,
                Prune::Info => 1,
                Prune::Locales => 2,
                Prune::Man => 3,
            });
        });
    }
}

/// The program that an install leaves in a root, which runs the scripts of its packages once.
pub const PROGRAM: &str = "var/lib/dpkg/immbuild-configure";

/// What executes it; nothing happens where there is none, because nothing was new. Part of format 1: changing it changes what
/// scripts see.
const COMMAND: [&str; 3] = [
    "/bin/sh",
    "-c",
    "program=/var/lib/dpkg/immbuild-configure; [ ! -e $program ] || exec $program",
];

/// What scripts are told besides what every step is. Part of format 1, as [`COMMAND`].
const ENVIRONMENT: [(&str, &str); 3] = [
    ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
    ("DEBIAN_FRONTEND", "noninteractive"),
    ("LC_ALL", "C.UTF-8"),
];

/// The process that runs the scripts of what was installed. Below tier `deterministic` they leave clocks and random numbers.
pub fn configuration(epoch: Epoch, platform: Platform, least: Tier) -> ExecOp {
    ExecOp {
        argv: COMMAND.map(str::to_owned).to_vec(),
        env: ENVIRONMENT
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        directory: immbuild_cas::path::RelPath::root(),
        user: Owner::ROOT,
        secrets: Vec::new(),
        caches: Vec::new(),
        tier: least.max(Tier::Deterministic),
        metadata: Metadata::Virtual,
        occurrence: 0,
        epoch,
        platform,
        timeout: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_get_a_tier_that_hides_clocks_or_the_greater_one_that_is_asked_for() {
        let platform = "linux/amd64".parse().expect("a platform");
        for (asked, given) in [
            (Tier::Isolated, Tier::Deterministic),
            (Tier::Deterministic, Tier::Deterministic),
            (Tier::Strict, Tier::Strict),
        ] {
            let op = configuration(Epoch::DEFAULT, platform, asked);
            assert_eq!(op.tier, given);
        }
    }
}
