//! Which packages: what was asked for and all that it needs, chosen as apt chooses. Pure.
//!
//! Greedy and depth first, in the order of the fields: a dependency that something chosen already satisfies brings
//! nothing; else the first alternative that can be had, and among packages that provide a name the one apt would take.
//! What cannot be had with all that it needs is put back, and the next is tried. When an early choice stands in the way of
//! something that must be, that choice is ruled out and all begins anew; so the search ends.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

use super::index::{self, Package};
use super::relation::{self, Relation};
use super::release::Rank;
use super::version;

/// Names these rules in a lock. Another choice for the same question is another version.
pub const SOLVER: &str = "apt-greedy/1";

/// How often an early choice is ruled out before the first failure is what is told.
const RESTARTS: usize = 64;
/// How many conflicts and dependencies that cannot be had are told at once.
const FAILURES: usize = 8;

/// An index to choose from.
#[derive(Clone, Debug)]
pub struct List<'t> {
    /// Its text, which says in what order apt would read it.
    pub text: &'t str,
    /// Its packages, in that order.
    pub packages: Vec<Package<'t>>,
    /// How much its versions count.
    pub rank: Rank,
}

/// Everything that can be chosen for one architecture: of each name one version.
#[derive(Debug)]
pub struct Universe<'t> {
    lists: Vec<List<'t>>,
    architecture: String,
    /// Sorted.
    names: Vec<&'t str>,
    /// Of each name: which list and which package of it.
    candidates: Vec<(usize, usize)>,
    /// Sorted by name.
    provided: Vec<Provided<'t>>,
    /// Those of which the lists have two different files.
    twofold: BTreeSet<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Provided<'t> {
    name: &'t str,
    by: usize,
    version: Option<&'t str>,
}

/// What is wanted.
#[derive(Clone, Debug, Default)]
pub struct Wish<'w> {
    /// These packages.
    pub packages: &'w [String],
    /// What packages recommend, too.
    pub recommends: bool,
    /// Every package that is essential, too.
    pub essential: bool,
    /// First among several that satisfy a dependency.
    pub prefer: &'w [String],
    /// Never.
    pub exclude: &'w [String],
}

/// A package that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen<'t> {
    /// It.
    pub package: Package<'t>,
    /// Which of the lists it is from.
    pub list: usize,
    /// Why.
    pub reason: String,
    /// Those of the chosen that satisfy what it depends on, sorted, without itself.
    pub depends: Vec<&'t str>,
}

/// Why nothing was chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SolveError {
    /// A package that was asked for is not there.
    #[error("the package `{name}` is not there")]
    NotFound {
        /// Its name.
        name: String,
        /// Names that may have been meant.
        near: Vec<String>,
    },
    /// A name that is no package, and several packages provide it.
    #[error("`{name}` is no package: {} provide it", providers.join(", "))]
    Virtual {
        /// The name.
        name: String,
        /// The packages.
        providers: Vec<String>,
    },
    /// Two files of one name, version and architecture.
    #[error("there are two files `{name}` of version {version}, with different digests")]
    Twofold {
        /// The package.
        name: String,
        /// Its version.
        version: String,
    },
    /// What is wanted cannot be had together.
    #[error("{}", failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Unsatisfiable {
        /// Each way it failed.
        failures: Vec<Failure>,
    },
}

/// One thing that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// From a package that was asked for to the one that cannot be had or lacks something.
    pub chain: Vec<String>,
    /// What is wrong with the last of them.
    pub cause: Cause,
}

/// What is wrong with a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A dependency, as written, and why each alternative is none.
    Lacks {
        /// The dependency.
        dependency: String,
        /// The alternatives in words.
        why: Vec<String>,
    },
    /// It cannot be there beside another.
    Conflict {
        /// The other.
        with: String,
        /// The package whose field says so.
        by: String,
        /// `Conflicts: mail-transport-agent`.
        field: String,
    },
    /// A field of it that cannot be read.
    Field(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.chain.last().map_or("", String::as_str);
        match &self.cause {
            Cause::Lacks { dependency, why } => {
                write!(f, "`{last}` needs `{dependency}`, and {}", why.join(", "))?;
            }
            Cause::Conflict { with, by, field } => {
                write!(
                    f,
                    "`{last}` cannot be there beside `{with}`: `{by}` says `{field}`"
                )?;
            }
            Cause::Field(text) => write!(f, "`{last}` cannot be read: {text}")?,
        }
        if self.chain.len() > 1 {
            write!(f, " (wanted by {})", self.chain.join(" → "))?;
        }
        Ok(())
    }
}

impl<'t> Universe<'t> {
    /// What these lists offer for an architecture. Of several versions of a name the one from the list that counts more,
    /// then the newest, then the one of the earlier list; but the version in `keep`, if a list has it.
    #[expect(
        clippy::stable_sort_primitive,
        reason = "indexes are nearly in order already, and a stable sort finds that"
    )]
    pub fn new(
        lists: Vec<List<'t>>,
        architecture: &str,
        keep: &BTreeMap<String, String>,
    ) -> Universe<'t> {
        let mut all: Vec<(&'t str, usize, usize)> = Vec::new();
        for (list, of) in lists.iter().enumerate() {
            all.extend(of.packages.iter().enumerate().filter_map(|(at, package)| {
                let fits = package.architecture == architecture || package.architecture == "all";
                fits.then_some((package.name, list, at))
            }));
        }
        all.sort();
        let mut names: Vec<&'t str> = Vec::with_capacity(all.len());
        let mut candidates: Vec<(usize, usize)> = Vec::with_capacity(all.len());
        let mut twofold = BTreeSet::new();
        for (name, list, at) in all {
            if names.last() != Some(&name) {
                names.push(name);
                candidates.push((list, at));
                continue;
            }
            let last = candidates.last_mut().expect("there is one for each name");
            let (old, new) = (&lists[last.0].packages[last.1], &lists[list].packages[at]);
            if (old.version, old.architecture) == (new.version, new.architecture)
                && old.sha256 != new.sha256
            {
                twofold.insert(names.len() - 1);
            }
            let kept = keep.get(name).map(String::as_str);
            let wanted = |package: &Package<'_>| kept == Some(package.version);
            let order = wanted(new)
                .cmp(&wanted(old))
                .then(lists[list].rank.cmp(&lists[last.0].rank))
                .then_with(|| version::compare(new.version, old.version));
            if order == Ordering::Greater {
                *last = (list, at);
            }
        }
        let mut provided = Vec::new();
        for (by, (list, at)) in candidates.iter().enumerate() {
            let package = &lists[*list].packages[*at];
            if package.provides.is_empty() {
                continue;
            }
            // One that cannot be read provides nothing.
            for group in relation::parse(package.provides).unwrap_or_default() {
                for relation in group {
                    provided.push(Provided {
                        name: relation.name,
                        by,
                        version: relation.version.map(|(_, version)| version),
                    });
                }
            }
        }
        provided.sort_unstable();
        Self {
            lists,
            architecture: architecture.to_owned(),
            names,
            candidates,
            provided,
            twofold,
        }
    }

    /// The package of this name.
    pub fn get(&self, name: &str) -> Option<&Package<'t>> {
        self.id(name).map(|id| self.package(id))
    }

    /// How many packages there are to choose from.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Is there nothing to choose from?
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The names, sorted.
    pub fn names(&self) -> &[&'t str] {
        &self.names
    }

    /// Chooses.
    ///
    /// The order of the names in the wish does not matter.
    pub fn solve(&self, wish: &Wish<'_>) -> Result<Vec<Chosen<'t>>, SolveError> {
        let wanted = self.wanted(wish)?;
        let mut ruled_out = BTreeSet::new();
        let mut first_error = None;
        for _ in 0..RESTARTS {
            let mut attempt = Attempt::new(self, wish, &ruled_out);
            let culprit = match attempt.run(&wanted) {
                Ok(()) => {
                    let mut twofold = attempt.trail.iter().filter(|id| self.twofold.contains(id));
                    return match twofold.next() {
                        None => Ok(attempt.chosen()),
                        Some(id) => Err(SolveError::Twofold {
                            name: self.names[*id].to_owned(),
                            version: self.package(*id).version.to_owned(),
                        }),
                    };
                }
                Err(culprit) => culprit,
            };
            let failures = std::mem::take(&mut attempt.failures);
            first_error.get_or_insert(SolveError::Unsatisfiable { failures });
            match culprit {
                Some(culprit) if ruled_out.insert(culprit) => {}
                _ => break,
            }
        }
        Err(first_error.expect("every attempt that failed has said why"))
    }

    /// What was asked for by name or by being essential, the essential ones first.
    fn wanted(&self, wish: &Wish<'_>) -> Result<Vec<(usize, Reason)>, SolveError> {
        let mut wanted: Vec<(usize, Reason)> = Vec::new();
        let asked: BTreeSet<&str> = wish.packages.iter().map(String::as_str).collect();
        if wish.essential {
            let essential = (0..self.names.len()).filter(|id| self.package(*id).essential);
            let essential = essential.filter(|id| {
                let name = self.names[*id];
                !asked.contains(name) && !wish.exclude.iter().any(|it| it == name)
            });
            wanted.extend(essential.map(|id| (id, Reason::Essential)));
        }
        for name in asked {
            wanted.push((self.asked(name)?, Reason::Requested));
        }
        Ok(wanted)
    }

    fn asked(&self, name: &str) -> Result<usize, SolveError> {
        if let Some(id) = self.id(name) {
            return Ok(id);
        }
        let providers: BTreeSet<usize> = self.providers(name).map(|it| it.by).collect();
        match providers.iter().copied().collect::<Vec<_>>().as_slice() {
            [] => Err(SolveError::NotFound {
                name: name.to_owned(),
                near: self.near(name),
            }),
            [one] => Ok(*one),
            several => Err(SolveError::Virtual {
                name: name.to_owned(),
                providers: several
                    .iter()
                    .map(|id| self.names[*id].to_owned())
                    .collect(),
            }),
        }
    }

    /// Up to three names: the nearest slip, then those that begin the same.
    fn near(&self, name: &str) -> Vec<String> {
        let slip = crate::diag::nearest(name, self.names.iter().copied());
        let start = self.names.partition_point(|it| *it < name);
        let begin = self.names[start..]
            .iter()
            .take_while(|it| it.starts_with(name))
            .copied();
        let mut near: Vec<String> = Vec::new();
        for it in slip.into_iter().chain(begin).take(3) {
            if near.iter().all(|other| other != it) {
                near.push(it.to_owned());
            }
        }
        near
    }

    fn id(&self, name: &str) -> Option<usize> {
        self.names.binary_search(&name).ok()
    }

    fn package(&self, id: usize) -> &Package<'t> {
        let (list, at) = self.candidates[id];
        &self.lists[list].packages[at]
    }

    fn providers<'s>(&'s self, name: &str) -> impl Iterator<Item = &'s Provided<'t>> {
        let start = self.provided.partition_point(|it| it.name < name);
        let end = self.provided.partition_point(|it| it.name <= name);
        self.provided[start..end].iter()
    }

    /// The packages that satisfy a relation: the one of that name, then those that provide it.
    fn satisfying(&self, relation: &Relation<'_>) -> Vec<usize> {
        let fits_here = match relation.qualifier {
            None | Some("native") => true,
            Some("any") => false,
            Some(architecture) => architecture == self.architecture,
        };
        let own = self.id(relation.name).filter(|id| {
            let package = self.package(*id);
            let qualified =
                fits_here || (relation.qualifier == Some("any") && package.any_architecture);
            qualified && relation.allows(package.version)
        });
        let mut all: Vec<usize> = own.into_iter().collect();
        if fits_here {
            for it in self.providers(relation.name) {
                if relation.allows_provided(it.version) && !all.contains(&it.by) {
                    all.push(it.by);
                }
            }
        }
        all
    }

    /// When apt would first have read a name: what decides where nothing else does.
    fn read_at(&self, id: usize) -> ReadAt {
        let mut lists = self.lists.iter().enumerate();
        lists.find_map(|(at, list)| {
            Some((
                at,
                index::first_read(list.text, &list.packages, self.names[id])?,
            ))
        })
    }
}

/// Why a package is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Requested,
    Essential,
    Needed(usize),
    Recommended(usize),
}

impl Reason {
    fn parent(self) -> Option<usize> {
        match self {
            Self::Needed(parent) | Self::Recommended(parent) => Some(parent),
            Self::Requested | Self::Essential => None,
        }
    }
}

/// What a package says of others.
#[derive(Debug, Default)]
struct Relations<'t> {
    /// `Pre-Depends`, then `Depends`.
    depends: Vec<Vec<Relation<'t>>>,
    recommends: Vec<Vec<Relation<'t>>>,
    /// With the name of the field.
    negative: Vec<(&'static str, Relation<'t>)>,
    provides: Vec<Relation<'t>>,
}

impl<'t> Relations<'t> {
    fn of(package: &Package<'t>) -> Result<Self, String> {
        let read = |name: &str, field: &'t str| {
            relation::parse(field).map_err(|error| format!("`{name}`: {error}"))
        };
        let mut relations = Self {
            depends: read("Pre-Depends", package.pre_depends)?,
            recommends: read("Recommends", package.recommends)?,
            ..Self::default()
        };
        relations.depends.extend(read("Depends", package.depends)?);
        for (name, field) in [("Conflicts", package.conflicts), ("Breaks", package.breaks)] {
            let all = read(name, field)?.into_iter().flatten();
            relations.negative.extend(all.map(|it| (name, it)));
        }
        let provides = read("Provides", package.provides)?;
        relations.provides = provides.into_iter().flatten().collect();
        Ok(relations)
    }
}

#[derive(Clone, Debug, Default)]
struct State {
    installed: Option<Reason>,
    /// Is not to be tried (again).
    discarded: bool,
    /// There is no choice about it.
    protected: bool,
    /// What it needs has been looked at since there is no choice about it.
    settled: bool,
}

struct Attempt<'u, 't> {
    universe: &'u Universe<'t>,
    wish: &'u Wish<'u>,
    excluded: BTreeSet<usize>,
    states: Vec<State>,
    /// In the order they were chosen.
    trail: Vec<usize>,
    /// From the package asked for to the one that is looked at.
    path: Vec<usize>,
    relations: BTreeMap<usize, Rc<Relations<'t>>>,
    /// By name: who forbids it, by which field, and what of it.
    forbidden: BTreeMap<&'t str, Vec<(usize, &'static str, Relation<'t>)>>,
    failures: Vec<Failure>,
    /// A choice that stood in the way of something.
    culprit: Option<usize>,
    /// When apt would have read a name, as far as that was asked: it takes a look through the whole text.
    read_at: RefCell<BTreeMap<usize, ReadAt>>,
}

/// Which list, and where in it; nothing where no list has the name.
type ReadAt = Option<(usize, (usize, usize, usize))>;

impl<'u, 't> Attempt<'u, 't> {
    fn new(universe: &'u Universe<'t>, wish: &'u Wish<'u>, ruled_out: &BTreeSet<usize>) -> Self {
        let mut states = vec![State::default(); universe.len()];
        let excluded: BTreeSet<usize> = wish
            .exclude
            .iter()
            .filter_map(|name| universe.id(name))
            .collect();
        for id in excluded.iter().chain(ruled_out) {
            states[*id].discarded = true;
        }
        Self {
            universe,
            wish,
            excluded,
            states,
            trail: Vec::new(),
            path: Vec::new(),
            relations: BTreeMap::new(),
            forbidden: BTreeMap::new(),
            failures: Vec::new(),
            culprit: None,
            read_at: RefCell::default(),
        }
    }

    /// Chooses all; else says whose being there was in the way, if that was a choice.
    fn run(&mut self, wanted: &[(usize, Reason)]) -> Result<(), Option<usize>> {
        // Everything wanted is there before the first dependency is looked at: much of it satisfies the rest.
        for (id, reason) in wanted {
            if self.states[*id].installed.is_some() {
                continue;
            }
            self.path.push(*id);
            match self.relations(*id) {
                Ok(relations) => {
                    if let Some(conflict) = self.conflict(*id, &relations) {
                        self.fail(conflict.1);
                    }
                    self.install(*id, *reason, &relations);
                    self.states[*id].protected = true;
                }
                Err(cause) => self.fail(cause),
            }
            self.path.pop();
        }
        let mut all = true;
        for (id, reason) in wanted {
            all &= self.choose(*id, *reason);
        }
        if all && self.failures.is_empty() {
            Ok(())
        } else {
            Err(self.culprit)
        }
    }

    fn relations(&mut self, id: usize) -> Result<Rc<Relations<'t>>, Cause> {
        if let Some(known) = self.relations.get(&id) {
            return Ok(Rc::clone(known));
        }
        let read = Relations::of(self.universe.package(id)).map_err(Cause::Field)?;
        let read = Rc::new(read);
        self.relations.insert(id, Rc::clone(&read));
        Ok(read)
    }

    fn fail(&mut self, cause: Cause) {
        if self.failures.len() >= FAILURES {
            return;
        }
        let name = |id: &usize| self.universe.names[*id].to_owned();
        let failure = Failure {
            chain: self.path.iter().map(name).collect(),
            cause,
        };
        if !self.failures.contains(&failure) {
            self.failures.push(failure);
        }
    }

    fn install(&mut self, id: usize, reason: Reason, relations: &Relations<'t>) {
        self.states[id].installed = Some(reason);
        self.trail.push(id);
        for (field, relation) in &relations.negative {
            let by = self.forbidden.entry(relation.name).or_default();
            by.push((id, field, *relation));
        }
    }

    /// Puts back what was chosen since.
    fn put_back(&mut self, mark: usize) {
        let gone: BTreeSet<usize> = self.trail.drain(mark..).collect();
        for id in &gone {
            let state = &mut self.states[*id];
            state.installed = None;
            state.protected = false;
            state.settled = false;
        }
        if !gone.is_empty() {
            for by in self.forbidden.values_mut() {
                by.retain(|(id, ..)| !gone.contains(id));
            }
        }
    }

    fn is_installed(&self, id: usize) -> bool {
        self.states[id].installed.is_some()
    }

    /// What is chosen and cannot be there beside a package, and why.
    fn conflict(&self, id: usize, relations: &Relations<'t>) -> Option<(usize, Cause)> {
        let package = self.universe.package(id);
        let cause = |with: usize, by: usize, field: &str, relation: &Relation<'_>| {
            let cause = Cause::Conflict {
                with: self.universe.names[with].to_owned(),
                by: self.universe.names[by].to_owned(),
                field: format!("{field}: {relation}"),
            };
            Some((with, cause))
        };
        for (field, relation) in &relations.negative {
            let others = self.universe.satisfying(relation);
            let other = others
                .into_iter()
                .find(|other| *other != id && self.is_installed(*other));
            if let Some(other) = other {
                return cause(other, id, field, relation);
            }
        }
        for (by, field, relation) in self.forbidden.get(package.name).into_iter().flatten() {
            if *by != id && relation.allows(package.version) {
                return cause(*by, *by, field, relation);
            }
        }
        for provided in &relations.provides {
            let version = provided.version.map(|(_, version)| version);
            for (by, field, relation) in self.forbidden.get(provided.name).into_iter().flatten() {
                if *by != id && relation.allows_provided(version) {
                    return cause(*by, *by, field, relation);
                }
            }
        }
        None
    }

    /// Chooses a package with all that it needs.
    fn choose(&mut self, id: usize, reason: Reason) -> bool {
        let state = &self.states[id];
        if state.discarded {
            return false;
        }
        if state.installed.is_some() && (!state.protected || state.settled) {
            return true;
        }
        let protected = state.protected;
        let installed = state.installed.is_some();
        self.path.push(id);
        let done = self.choose_here(id, reason, protected, installed);
        self.path.pop();
        done
    }

    fn choose_here(&mut self, id: usize, reason: Reason, protected: bool, installed: bool) -> bool {
        let relations = match self.relations(id) {
            Ok(relations) => relations,
            Err(cause) => {
                self.fail(cause);
                return false;
            }
        };
        if !installed {
            if let Some((with, cause)) = self.conflict(id, &relations) {
                self.blame(with);
                self.fail(cause);
                return false;
            }
            self.install(id, reason, &relations);
        }
        if protected {
            self.states[id].settled = true;
            self.rule_out(id, &relations);
        }
        for group in &relations.depends {
            if !self.need(id, group, protected, Reason::Needed(id)) {
                return false;
            }
        }
        if self.wish.recommends {
            for group in &relations.recommends {
                let before = (self.failures.len(), self.culprit);
                if !self.need(id, group, false, Reason::Recommended(id)) {
                    // What is only recommended may be missing.
                    self.failures.truncate(before.0);
                    self.culprit = before.1;
                }
            }
        }
        true
    }

    /// There is no choice about a package: so what it excludes is none.
    fn rule_out(&mut self, id: usize, relations: &Relations<'t>) {
        for (_, relation) in &relations.negative {
            for other in self.universe.satisfying(relation) {
                if other != id && !self.is_installed(other) {
                    self.states[other].discarded = true;
                }
            }
        }
    }

    /// Sees to it that one alternative of a dependency is there.
    fn need(&mut self, of: usize, group: &[Relation<'t>], protected: bool, reason: Reason) -> bool {
        let satisfied = group.iter().any(|relation| {
            let mut all = self.universe.satisfying(relation).into_iter();
            all.any(|id| self.is_installed(id))
        });
        if satisfied {
            if protected {
                self.spread(group, reason);
            }
            return true;
        }
        let solutions = self.solutions(group);
        let only = protected && solutions.len() == 1;
        let before = (self.failures.len(), self.culprit);
        for id in &solutions {
            let mark = self.trail.len();
            if only {
                self.states[*id].protected = true;
            }
            if self.choose(*id, reason) {
                // What failed on the way here has been got round.
                self.failures.truncate(before.0);
                self.culprit = before.1;
                return true;
            }
            self.put_back(mark);
            self.states[*id].discarded = true;
            self.states[*id].protected = false;
        }
        let left_out = group
            .iter()
            .flat_map(|relation| self.universe.satisfying(relation))
            .any(|id| self.excluded.contains(&id));
        if left_out {
            self.failures.truncate(before.0);
            self.culprit = before.1;
            return true;
        }
        if self.failures.len() == before.0 {
            let why = group
                .iter()
                .map(|relation| self.why_not(relation))
                .collect();
            debug_assert_eq!(self.path.last(), Some(&of), "the path leads here");
            self.fail(Cause::Lacks {
                dependency: relation::in_words(group),
                why,
            });
        }
        false
    }

    /// A dependency of something there is no choice about, which only one package can satisfy: neither is there about that.
    fn spread(&mut self, group: &[Relation<'t>], reason: Reason) {
        let mut all: BTreeSet<usize> = BTreeSet::new();
        for relation in group {
            all.extend(self.universe.satisfying(relation));
        }
        all.retain(|id| !self.states[*id].discarded);
        let [only] = all.into_iter().collect::<Vec<_>>()[..] else {
            return;
        };
        if !self.states[only].protected {
            self.states[only].protected = true;
            self.choose(only, reason);
        }
    }

    /// What can satisfy a dependency, in the order it is tried.
    fn solutions(&self, group: &[Relation<'t>]) -> Vec<usize> {
        let mut all: Vec<usize> = Vec::new();
        for relation in group {
            let mut these = self.universe.satisfying(relation);
            these.retain(|id| !self.states[*id].discarded && !all.contains(id));
            these.sort_by(|a, b| self.compare(relation.name, *a, *b));
            all.extend(these);
        }
        let preferred = |id: &usize| {
            let name = self.universe.names[*id];
            let place = self.wish.prefer.iter().position(|it| it == name);
            place.unwrap_or(usize::MAX)
        };
        all.sort_by_key(preferred);
        all
    }

    /// apt's order among the packages that satisfy one relation (`CompareProviders`).
    fn compare(&self, name: &str, a: usize, b: usize) -> Ordering {
        let key = |id: usize| {
            let package = self.universe.package(id);
            (
                !self.states[id].protected,
                package.name != name,
                !package.essential,
                !package.important,
                package.priority,
            )
        };
        // Where nothing else decides, apt takes the name it read last.
        key(a)
            .cmp(&key(b))
            .then_with(|| self.read_at(b).cmp(&self.read_at(a)))
    }

    fn read_at(&self, id: usize) -> ReadAt {
        let mut known = self.read_at.borrow_mut();
        *known.entry(id).or_insert_with(|| self.universe.read_at(id))
    }

    /// Remembers whose being there is in the way, as far as there was a choice about it.
    fn blame(&mut self, with: usize) {
        let mut at = Some(with);
        while let Some(id) = at {
            if !self.states[id].protected && !self.path.contains(&id) {
                self.culprit.get_or_insert(id);
                return;
            }
            at = self.states[id].installed.and_then(Reason::parent);
        }
    }

    fn why_not(&self, relation: &Relation<'t>) -> String {
        let name = relation.name;
        let own = self.universe.id(name);
        let provided = self.universe.providers(name).next().is_some();
        match own {
            None if !provided => format!("there is no `{name}`"),
            Some(id) if !relation.allows(self.universe.package(id).version) => {
                let version = self.universe.package(id).version;
                format!("`{name}` is there in version {version}")
            }
            Some(_) => format!("`{name}` cannot be taken"),
            None => format!("nothing that provides `{name}` can be taken"),
        }
    }

    /// What was chosen, by name.
    fn chosen(&mut self) -> Vec<Chosen<'t>> {
        let mut ids = self.trail.clone();
        ids.sort_unstable();
        ids.into_iter().map(|id| self.one_chosen(id)).collect()
    }

    fn one_chosen(&mut self, id: usize) -> Chosen<'t> {
        let universe = self.universe;
        let relations = self.relations.get(&id).map(Rc::clone).unwrap_or_default();
        let recommends = relations.recommends.iter().filter(|_| self.wish.recommends);
        let mut depends: BTreeSet<&'t str> = BTreeSet::new();
        for group in relations.depends.iter().chain(recommends) {
            let satisfied = group.iter().find_map(|relation| {
                let mut all = universe.satisfying(relation);
                all.retain(|other| self.is_installed(*other));
                all.into_iter()
                    .min_by(|a, b| self.compare(relation.name, *a, *b))
            });
            depends.extend(satisfied.map(|other| universe.names[other]));
        }
        depends.remove(universe.names[id]);
        let name = |id: usize| universe.names[id];
        let reason = match self.states[id].installed {
            Some(Reason::Essential) => "essential".to_owned(),
            Some(Reason::Needed(by)) => format!("needed by {}", name(by)),
            Some(Reason::Recommended(by)) => format!("recommended by {}", name(by)),
            Some(Reason::Requested) | None => "requested".to_owned(),
        };
        Chosen {
            package: *universe.package(id),
            list: universe.candidates[id].0,
            reason,
            depends: depends.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests;
