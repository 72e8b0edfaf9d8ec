//! An op with its inputs replaced by the trees they produced: what the cache is asked for.
//!
//! Equal inputs give an equal action however they came about, so a step that changed nothing stops a rebuild there
//! (early cutoff).

use std::collections::BTreeMap;

use immbuild_cas::canonical::{Canonical, Encoder};
use immbuild_cas::digest::{BlobId, TreeId};

use super::op::OpKind;
use crate::spec::model::Tier;

immbuild_cas::id! {
    /// Names an action: the cache key.
    ActionId;
}

/// Are a step's cache directories filled?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheState {
    /// They are empty, or there are none. Only such a result is expected, published or vouched for.
    Empty,
    /// They hold what earlier builds left.
    Warm,
}

/// An input of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActionInput {
    /// The tree it is.
    pub tree: TreeId,
    /// The times of files that are unchanged from a base image, and that image's tree: steps see them.
    pub times: Option<BaseTimes>,
}

/// What a base image brings besides its tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseTimes {
    /// The base image's tree.
    pub tree: TreeId,
    /// The times of its files.
    pub mtimes: BlobId,
}

/// What an executing op depends on besides its definition and its inputs.
///
/// What a machine cannot make virtual (`cpuid`) is no part of it: it is told with the evidence, and two machines share
/// their results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// The whole environment of the process.
    pub env: BTreeMap<String, String>,
    /// The effective tier: the one asked for, or a lesser one where that was allowed.
    pub tier: Tier,
    /// Name and version of the sandbox policy: every constant that a step can see.
    pub policy: &'static str,
    /// Are its cache directories filled?
    pub caches: CacheState,
}

/// An op with its inputs.
#[derive(Clone, Debug)]
pub struct Action<'a> {
    /// What is done.
    pub kind: &'a OpKind,
    /// To what.
    pub inputs: Vec<ActionInput>,
    /// Where, for an op that executes.
    pub surroundings: Option<Surroundings>,
}

impl Action<'_> {
    /// The id: digest of all of it.
    pub fn id(&self) -> ActionId {
        ActionId::new(self.canonical_digest())
    }
}

impl Canonical for Action<'_> {
    const TAG: &'static str = "action";
    const VERSION: u32 = 1;

    fn encode_fields(&self, out: &mut Encoder) {
        out.bytes(&self.kind.to_canonical());
        out.sequence(self.inputs.iter(), |out, input| {
            out.digest(input.tree.digest());
            // Only a process can see times.
            let times = input.times.filter(|_| self.surroundings.is_some());
            out.option(times, |out, times| {
                out.digest(times.tree.digest());
                out.digest(times.mtimes.digest());
            });
        });
        out.option(self.surroundings.as_ref(), |out, surroundings| {
            out.sequence(surroundings.env.iter(), |out, (name, value)| {
                out.str(name);
                out.str(value);
            });
            out.str(surroundings.tier.as_str());
            out.str(surroundings.policy);
            out.bool(surroundings.caches == CacheState::Warm);
        });
    }
}
