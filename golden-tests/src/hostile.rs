//! Recipes built again and again under other surroundings: the hostile corpus, small steps that read what differs from run
//! to run, and the real programs, which do so on the way.
//!
//! A recipe is a file in `golden-tests/hostile` or `golden-tests/programs`; the book's page "The hostile corpus" says how
//! to add one. In each world all recipes are stages of one spec per tier, built one by one in one store, so that the root
//! is written out once and a step that fails takes no other down.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use immbuild_cas::digest::TreeId;
use immbuild_cas::store::{LocalStore, Store as _};
use immbuild_cas::tree::{Delta, Tree, delta};

use crate::abreast::{abreast, processors};
use crate::machine::{Mounted, User, run};
use crate::matrix::open_to_all;
use crate::world::World;
use crate::{roots, scratch, workspace};

mod recipe;
mod surroundings;
mod verdict;

pub use recipe::{Cause, Expectation, Recipe, Tier};
use surroundings::Surroundings;
pub use verdict::{Built, Least, Row, Totals, Verdict, objections};

/// The tiers that `cargo ci` judges.
pub const TIERS: &[Tier] = &[Tier::Isolated, Tier::Deterministic, Tier::Strict];

/// Recipes that start from one root.
#[derive(Clone, Copy, Debug)]
pub struct Corpus {
    /// Of its directory, of its root and of the tag of that.
    pub name: &'static str,
    /// Its root.
    root: fn() -> Result<PathBuf>,
    /// No recipe takes longer, or it hangs.
    timeout: &'static str,
    /// What a store with the root and all results needs at most, in GiB.
    room: u8,
    /// Where its recipes are built, one world after the other.
    worlds: &'static [Surroundings],
    /// So much of it must be identical, or differ.
    pub least: Least,
}

/// Small steps that each read one thing.
pub const HOSTILE: Corpus = Corpus {
    name: "hostile",
    root: roots::hostile,
    timeout: "120s",
    room: 6,
    worlds: &surroundings::WORLDS,
    least: Least {
        deterministic: 95.0,
        differing: 40,
    },
};

/// Compilers, package managers and archivers doing what they are for.
pub const PROGRAMS: Corpus = Corpus {
    name: "programs",
    root: roots::programs,
    timeout: "500s",
    room: 20,
    worlds: &surroundings::OF_PROGRAMS,
    least: Least {
        deterministic: 60.0,
        differing: 10,
    },
};

/// What becomes of the machine's clock in a world that is ahead of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// It is set, and set back at the end.
    Set,
    /// It stays as it is: others work on this machine.
    Left,
}

impl Corpus {
    /// Where its recipes are.
    pub fn directory(&self) -> PathBuf {
        workspace().join("golden-tests").join(self.name)
    }

    /// Every recipe of it, by name.
    pub fn recipes(&self) -> Result<Vec<Recipe>> {
        recipe::read_all(&self.directory())
    }
}

/// Builds each recipe in each of these worlds, counted from 1, under each tier; rows by recipe, then tier.
///
/// A control that came out the same everywhere gets one more chance to differ: some read what differs by chance.
pub fn run_corpus<'a>(
    corpus: &Corpus,
    recipes: &'a [Recipe],
    tiers: &[Tier],
    worlds: &[usize],
    clock: Clock,
) -> Result<Vec<Row<'a>>> {
    let mut verdicts = build_all(corpus, recipes, tiers, worlds, clock)?;
    let alike: Vec<usize> = verdicts
        .iter()
        .filter(|(key, verdict)| is_control_alike(&recipes[key.0], key.1, verdict))
        .map(|((at, _), _)| *at)
        .collect();
    if worlds.len() > 1 && !alike.is_empty() {
        let again: Vec<Recipe> = alike.iter().map(|at| recipes[*at].clone()).collect();
        #[allow(clippy::print_stderr, reason = "stdout is the table")]
        for recipe in &again {
            eprintln!(
                "{} came out the same under {CONTROL}: once more",
                recipe.name
            );
        }
        for ((nth, tier), verdict) in build_all(corpus, &again, &[CONTROL], worlds, clock)? {
            verdicts.insert((alike[nth], tier), verdict);
        }
    }
    let row = |((at, tier), verdict)| Row {
        recipe: &recipes[at],
        tier,
        verdict,
    };
    Ok(verdicts.into_iter().map(row).collect())
}

/// Where recipes must differ, or the others prove nothing.
const CONTROL: Tier = Tier::Isolated;

/// Had it to differ, and did not?
fn is_control_alike(recipe: &Recipe, tier: Tier, verdict: &Verdict) -> bool {
    tier == CONTROL
        && recipe.expected(tier) == Expectation::Differs
        && *verdict == Verdict::Identical
}

/// Builds all of them; what the builds of a recipe, by its place in `recipes`, say together.
fn build_all(
    corpus: &Corpus,
    recipes: &[Recipe],
    tiers: &[Tier],
    worlds: &[usize],
    clock: Clock,
) -> Result<BTreeMap<(usize, Tier), Verdict>> {
    let scratch = scratch();
    std::fs::create_dir_all(&scratch)?;
    // Other users must be able to reach the program and what is laid for them.
    open_to_all(&scratch)?;
    open_to_all(&crate::immbuild())?;
    let root = (corpus.root)()?;
    let mut builds: BTreeMap<(usize, Tier), Vec<Built>> = BTreeMap::new();
    for at in worlds {
        let surroundings = surroundings::numbered(corpus.worlds, *at);
        let start = Instant::now();
        let name = format!("{}-{at}", corpus.name);
        let mount = Mounted::new(surroundings.system, corpus.room, &scratch, &name)?;
        let arranged = surroundings.arrange(clock)?;
        for (user, tiers) in by_user(surroundings.user, tiers) {
            let world = World {
                user,
                place: mount.path(),
                cpus: surroundings.cpus,
                first_cpu: 0,
                threads: None,
                environment: surroundings.environment,
            };
            for (key, built) in build_in(corpus, &world, &root, recipes, &tiers)? {
                builds.entry(key).or_default().push(built);
            }
        }
        drop(arranged);
        #[allow(clippy::print_stderr, reason = "stdout is the table")]
        {
            eprintln!(
                "world {at}: {} builds in {:.0} s",
                recipes.len() * tiers.len(),
                start.elapsed().as_secs_f64()
            );
        }
    }
    let verdict = |(key, builds): (_, Vec<Built>)| (key, Verdict::of(&builds));
    Ok(builds.into_iter().map(verdict).collect())
}

/// Who builds which tiers in the world of a user: without a range of ids nobody builds on a Debian root under `isolated`.
fn by_user(user: User, tiers: &[Tier]) -> Vec<(User, Vec<Tier>)> {
    let (isolated, others): (Vec<Tier>, Vec<Tier>) = match user {
        User::Plain => tiers.iter().partition(|tier| **tier == Tier::Isolated),
        User::Root | User::Range => (Vec::new(), tiers.to_vec()),
    };
    let shares = [(User::Range, isolated), (user, others)];
    let shares = shares.into_iter().filter(|(_, tiers)| !tiers.is_empty());
    shares.collect()
}

/// Builds every recipe under every tier in one world.
fn build_in(
    corpus: &Corpus,
    world: &World<'_>,
    root: &Path,
    recipes: &[Recipe],
    tiers: &[Tier],
) -> Result<BTreeMap<(usize, Tier), Built>> {
    let name = format!("{}-{}", corpus.name, world.user.name());
    let project = world.lay(&corpus.directory(), &name)?;
    for tier in tiers {
        let spec = project.join(spec_name(*tier));
        std::fs::write(&spec, spec_of(corpus, recipes, *tier, root))?;
        run("chown", &[&world.user.id()?.to_string(), &text(&spec)])?;
    }
    let store = world.place.join(format!("store-{}", world.user.name()));
    let mut trees = BTreeMap::new();
    for tier in tiers {
        let base = match build_stage(world, &project, &store, *tier, "root")? {
            Ok(base) => base,
            Err(why) => {
                // A tier that this version does not know: every recipe says so.
                trees.extend((0..recipes.len()).map(|at| ((at, *tier), (None, Err(why.clone())))));
                continue;
            }
        };
        let found = abreast(processors(), recipes.len(), |at, thread| {
            let world = world.on(thread);
            build_stage(&world, &project, &store, *tier, &recipes[at].name)
        })?;
        for (at, tree) in found.into_iter().enumerate() {
            trees.insert((at, *tier), (Some(base), tree));
        }
    }
    if world.user != User::Root && store.exists() {
        // A store opens for its owner alone.
        run("chown", &["0", &text(&store)])?;
    }
    let store = LocalStore::open(&store)?;
    trees
        .into_iter()
        .map(|(key, (base, tree))| {
            let built = match (base, tree) {
                (Some(base), Ok(tree)) => {
                    let (base, tree) = (store.tree(&base)?, store.tree(&tree)?);
                    Built::Changes(changes(&store, &base, &tree)?)
                }
                (_, Err(why)) => Built::Failed(why),
                (None, Ok(_)) => unreachable!("a recipe starts from the root"),
            };
            Ok((key, built))
        })
        .collect()
}

fn spec_name(tier: Tier) -> String {
    format!("{}.spec.toml", tier.name())
}

/// A spec with the root and a stage for each recipe.
fn spec_of(corpus: &Corpus, recipes: &[Recipe], tier: Tier, root: &Path) -> String {
    let mut spec = format!(
        "immbuild = 1\nepoch = 2026-01-01T00:00:00Z\ntier = \"{}\"\n\n\
         [source.debian]\nimage = {}\ntag = \"{}\"\n\n\
         [source.src]\npath = \"src\"\n\n\
         [stage.root]\nfrom = \"debian\"\n\
         steps = [ {{ copy = \"src\", to = \"/src\", mode = \"0644\", dir-mode = \"0755\" }}, {{ mkdir = \"/work\" }} ]\n\n\
         [image]\nfrom = \"root\"\nsteps = []\n",
        tier.name(),
        quoted(&text(root)),
        corpus.name,
    );
    let timeout = corpus.timeout;
    for recipe in recipes {
        let Recipe { name, script, .. } = recipe;
        let script = quoted(script);
        let _ = write!(
            spec,
            "\n[stage.{name}]\nfrom = \"root\"\n\
             steps = [ {{ in = \"/work\", timeout = \"{timeout}\", shell = {script} }} ]\n"
        );
    }
    spec
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Builds one stage; gives its tree, or why there is none.
fn build_stage(
    world: &World<'_>,
    project: &Path,
    store: &Path,
    tier: Tier,
    stage: &str,
) -> Result<Result<TreeId, String>> {
    let arguments = [
        "build".into(),
        project.join(spec_name(tier)).into(),
        "--store".into(),
        store.into(),
        "--stage".into(),
        stage.into(),
        "--json".into(),
    ];
    let output = world.command(&arguments, project)?.output()?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let last = stdout.lines().last().unwrap_or_default();
    let Ok(result) = serde_json::from_str::<serde_json::Value>(last) else {
        // It crashed, or hung until it was killed. The others go on.
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().last().unwrap_or_default();
        return Ok(Err(format!("no result, but {}: {said}", output.status)));
    };
    if result["ok"] != true {
        return Ok(Err(why(&result)));
    }
    let tree = result["images"][0]["tree"]
        .as_str()
        .context("a result names its tree")?;
    Ok(Ok(TreeId::new(tree.parse()?)))
}

/// What a failed build says, in a line.
fn why(result: &serde_json::Value) -> String {
    /// The end of what a step printed says most.
    const LONGEST: usize = 400;
    let diagnostic = &result["diagnostics"][0];
    let part = |key: &str| diagnostic[key].as_str().unwrap_or_default().to_owned();
    let (message, cause) = (part("message"), part("cause"));
    let cause = match cause.split_once("` exited with ") {
        Some((_, end)) => format!("exit {end}"),
        None => cause,
    };
    let words: Vec<&str> = cause.split_whitespace().collect();
    let cause = words.join(" ");
    let start = cause.len().saturating_sub(LONGEST);
    let start = (start..=cause.len())
        .find(|at| cause.is_char_boundary(*at))
        .unwrap_or_default();
    if cause.is_empty() {
        return message;
    }
    format!("{message}: {}", &cause[start..])
}

/// Every path that a recipe changed, and what is there now.
fn changes(store: &LocalStore, base: &Tree, tree: &Tree) -> Result<BTreeMap<String, String>> {
    let delta: Delta = delta(store, base, tree)?;
    let first = delta.links.first_by_path();
    Ok(delta
        .changes
        .iter()
        .map(|(path, change)| {
            let link = first.get(path).map(|first| format!(" = {first}"));
            (
                path.to_string(),
                format!("{change:?}{}", link.unwrap_or_default()),
            )
        })
        .collect())
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// The table on stdout, a line for each recipe and tier.
pub fn print_table(rows: &[Row<'_>], tiers: &[Tier]) {
    let widest = rows.iter().map(|row| row.recipe.name.len()).max();
    for row in rows {
        println!(
            "{:width$}  {:13}  {}",
            row.recipe.name,
            row.tier.name(),
            row.verdict,
            width = widest.unwrap_or_default()
        );
    }
    for tier in tiers {
        let totals = Totals::of(rows, *tier);
        println!(
            "{:13}  {} recipes: {} identical ({:.1} %), {} differ, {} failed",
            tier.name(),
            totals.all,
            totals.identical,
            totals.percentage(),
            totals.differing,
            totals.failed
        );
    }
}

/// What `cargo ci` asks of the hostile corpus: all of it, in two worlds or in five.
pub fn check(full: bool) -> Result<()> {
    // One thread at a time takes too long for every change.
    let (tiers, runs) = if full { (TIERS, 5) } else { (&TIERS[..2], 2) };
    check_corpus(&HOSTILE, tiers, runs)
}

/// What `cargo ci --full` asks of the real programs: all of them, by each of the three kinds of users; where threads may race
/// to other bytes, under `strict` too.
pub fn check_programs() -> Result<()> {
    const RUNS: usize = 3;
    check_corpus(&PROGRAMS, &TIERS[..2], RUNS)?;
    let mut racing = PROGRAMS.recipes()?;
    racing.retain(|recipe| recipe.expected(Tier::Deterministic) == Expectation::MayDiffer);
    judge(&PROGRAMS, &racing, &[Tier::Strict], RUNS, None)
}

fn check_corpus(corpus: &Corpus, tiers: &[Tier], runs: usize) -> Result<()> {
    judge(corpus, &corpus.recipes()?, tiers, runs, Some(corpus.least))
}

fn judge(
    corpus: &Corpus,
    recipes: &[Recipe],
    tiers: &[Tier],
    runs: usize,
    least: Option<Least>,
) -> Result<()> {
    let worlds: Vec<usize> = (1..=runs).collect();
    let rows = run_corpus(corpus, recipes, tiers, &worlds, Clock::Set)?;
    print_table(&rows, tiers);
    let objections = objections(&rows, least);
    ensure!(objections.is_empty(), "{}", objections.join("; "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_control_that_must_differ_gets_another_chance() {
        let recipe = |keys| {
            let text = format!("trap = \"\"\nscript = \"\"\ncause = \"pid\"\n{keys}");
            Recipe::parse("pid", &text).unwrap()
        };
        let (differs, may) = (
            recipe("isolated = \"differs\""),
            recipe("isolated = \"may-differ\""),
        );
        assert!(is_control_alike(&differs, CONTROL, &Verdict::Identical));
        let failed = Verdict::Failed(String::new());
        assert!(!is_control_alike(&differs, CONTROL, &failed));
        assert!(!is_control_alike(&may, CONTROL, &Verdict::Identical));
        for tier in [Tier::Deterministic, Tier::Strict] {
            assert!(!is_control_alike(&differs, tier, &Verdict::Identical));
        }
    }

    #[test]
    fn the_committed_recipes_can_be_read_and_are_enough() {
        let recipes = HOSTILE.recipes().unwrap();
        assert!(recipes.len() >= 66, "only {} recipes", recipes.len());
    }

    #[test]
    fn the_book_counts_the_recipes_of_every_cause() {
        let page = std::fs::read_to_string(workspace().join("book/src/hostile.md")).unwrap();
        let recipes = HOSTILE.recipes().unwrap();
        assert!(page.contains(&format!(" holds {} small recipes", recipes.len())));
        let mut counts: BTreeMap<Cause, usize> = BTreeMap::new();
        for recipe in &recipes {
            *counts.entry(recipe.cause).or_default() += 1;
            for cause in &recipe.also {
                counts.entry(*cause).or_default();
            }
        }
        for (cause, count) in counts {
            let name = serde_json::to_value(cause).unwrap();
            let name = name.as_str().unwrap();
            let rows: Vec<&str> = page
                .lines()
                .filter(|line| line.starts_with(&format!("| `{name}` |")))
                .collect();
            assert!(
                rows.len() == 1 && rows[0].ends_with(&format!("| {count} |")),
                "the page has not one row for `{name}` with {count} recipes: {rows:?}"
            );
        }
    }

    #[test]
    fn a_spec_has_a_stage_for_each_recipe() {
        let keys = "trap = \"\"\ncause = \"clock\"\nisolated = \"differs\"\n";
        let date = Recipe::parse("date", &format!("{keys}script = 'date > \"a\\b\"'")).unwrap();
        let spec = spec_of(&HOSTILE, &[date], Tier::Isolated, Path::new("/root.oci"));
        let parsed: toml::Table = spec.parse().unwrap();
        let step = &parsed["stage"]["date"]["steps"][0];
        assert_eq!(step["shell"].as_str(), Some("date > \"a\\b\""));
        assert_eq!(parsed["tier"].as_str(), Some("isolated"));
    }

    #[test]
    fn a_failure_says_how_the_step_ended() {
        let result = serde_json::json!({ "diagnostics": [{
            "message": "step `b.1` failed",
            "cause": "`/bin/sh -eu -c date; false` exited with 1; it printed last\n    Tue Nov 24",
        }]});
        assert_eq!(
            why(&result),
            "step `b.1` failed: exit 1; it printed last Tue Nov 24"
        );
    }
}
