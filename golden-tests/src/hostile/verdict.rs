//! What several builds of a recipe say together, and whether that is what was expected.

use std::collections::{BTreeMap, BTreeSet};

use super::recipe::{Expectation, Recipe, Tier};

/// What one build of a recipe left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Built {
    /// Every path that it changed, and what is there now.
    Changes(BTreeMap<String, String>),
    /// Why it has no tree.
    Failed(String),
}

/// What all builds of a recipe under one tier left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The same tree.
    Identical,
    /// Not the same tree.
    Differs {
        /// The paths where any of them is not the first.
        paths: Vec<String>,
        /// What is at the first of these paths in every world.
        found: String,
    },
    /// Some have no tree.
    Failed(String),
}

impl Verdict {
    /// Of all builds, the first being what the others are compared with.
    pub fn of(builds: &[Built]) -> Self {
        let mut trees = Vec::new();
        // Worlds are counted from 1.
        for (at, built) in (1..).zip(builds) {
            match built {
                Built::Failed(why) => return Self::Failed(format!("in world {at}: {why}")),
                Built::Changes(changes) if changes.is_empty() => {
                    return Self::Failed(format!("in world {at}: it left nothing to compare"));
                }
                Built::Changes(changes) => trees.push(changes),
            }
        }
        let (Some(first), true) = (trees.first(), trees.len() > 1) else {
            return Self::Failed("there is nothing to compare with".to_owned());
        };
        let paths: BTreeSet<&String> = trees
            .iter()
            .flat_map(|tree| {
                let changed = tree
                    .iter()
                    .filter(|(path, what)| first.get(*path) != Some(what));
                let gone = first.iter().filter(|(path, _)| !tree.contains_key(*path));
                changed.chain(gone).map(|(path, _)| path)
            })
            .collect();
        let Some(path) = paths.first() else {
            return Self::Identical;
        };
        let found = (1..).zip(&trees).map(|(world, tree)| {
            let what = tree.get(*path).map_or("nothing", String::as_str);
            format!("in world {world} {what}")
        });
        Self::Differs {
            found: found.collect::<Vec<_>>().join(", "),
            paths: paths.into_iter().cloned().collect(),
        }
    }

    /// Its one word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Identical => "identical",
            Self::Differs { .. } => "differs",
            Self::Failed(_) => "failed",
        }
    }

    /// May it be, when this is expected?
    pub fn fits(&self, expectation: Expectation) -> bool {
        match self {
            Self::Identical => expectation != Expectation::Differs,
            Self::Differs { .. } => expectation != Expectation::Identical,
            Self::Failed(_) => false,
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        /// More than these are counted.
        const SHOWN: usize = 6;
        f.write_str(self.word())?;
        match self {
            Self::Identical => Ok(()),
            Self::Differs { paths, .. } => {
                let shown = paths.iter().take(SHOWN).map(String::as_str);
                write!(f, ": {}", shown.collect::<Vec<_>>().join(", "))?;
                if paths.len() > SHOWN {
                    write!(f, " and {} more", paths.len() - SHOWN)?;
                }
                Ok(())
            }
            Self::Failed(why) => write!(f, ": {why}"),
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// Which recipe.
    pub recipe: &'a Recipe,
    /// Built under which tier.
    pub tier: Tier,
    /// What came of it.
    pub verdict: Verdict,
}

impl Row<'_> {
    /// Is it what the recipe says of this tier?
    pub fn is_as_recorded(&self) -> bool {
        self.verdict.fits(self.recipe.expected(self.tier))
    }
}

/// How many of the rows of a tier are what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Recipes.
    pub all: usize,
    /// Identical ones.
    pub identical: usize,
    /// Those that differ.
    pub differing: usize,
    /// Those that failed.
    pub failed: usize,
}

impl Totals {
    /// Of one tier.
    pub fn of(rows: &[Row<'_>], tier: Tier) -> Self {
        let mut totals = Self::default();
        for row in rows.iter().filter(|row| row.tier == tier) {
            totals.all += 1;
            match row.verdict {
                Verdict::Identical => totals.identical += 1,
                Verdict::Differs { .. } => totals.differing += 1,
                Verdict::Failed(_) => totals.failed += 1,
            }
        }
        totals
    }

    /// Of a hundred, how many are identical.
    #[allow(clippy::cast_precision_loss, reason = "counts of recipes are small")]
    pub fn percentage(self) -> f64 {
        100.0 * self.identical as f64 / self.all.max(1) as f64
    }
}

/// What a whole corpus must reach, whichever of its recipes do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Least {
    /// Identical under `deterministic`, in percent of the recipes that do not ask the processor itself.
    pub deterministic: f64,
    /// With fewer recipes that differ under `isolated` the corpus proves nothing.
    pub differing: usize,
}

/// Everything that is not as it has to be. `whole` is for when these are all the recipes there are.
pub fn objections(rows: &[Row<'_>], whole: Option<Least>) -> Vec<String> {
    let mut objections = Vec::new();
    for row in rows {
        let Row {
            recipe,
            tier,
            verdict,
        } = row;
        let wrong = match tier {
            Tier::Isolated | Tier::Strict => !row.is_as_recorded(),
            // How many may differ is counted; which, chance decides.
            Tier::Deterministic => matches!(verdict, Verdict::Failed(_)),
        };
        if wrong {
            let (name, tier) = (&recipe.name, tier.name());
            let recorded = recipe.expected(row.tier);
            let found = match verdict {
                Verdict::Differs { found, .. } => format!(": {found}"),
                Verdict::Identical | Verdict::Failed(_) => String::new(),
            };
            objections.push(format!(
                "{name} under {tier}: {verdict} (recorded: {recorded:?}){found}"
            ));
        }
    }
    let Some(least) = whole else {
        return objections;
    };
    let has = |tier| rows.iter().any(|row| row.tier == tier);
    let within_reach: Vec<Row<'_>> = rows
        .iter()
        .filter(|row| !row.recipe.cause.is_hardware())
        .cloned()
        .collect();
    let deterministic = Totals::of(&within_reach, Tier::Deterministic).percentage();
    if has(Tier::Deterministic) && deterministic < least.deterministic {
        objections.push(format!(
            "only {deterministic:.1} % are identical under deterministic, not {} %",
            least.deterministic
        ));
    }
    let isolated = Totals::of(rows, Tier::Isolated);
    if has(Tier::Isolated) && isolated.differing < least.differing {
        objections.push(format!(
            "only {} recipes differ under isolated, not {}: the corpus proves nothing",
            isolated.differing, least.differing
        ));
    }
    objections
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(entries: &[(&str, &str)]) -> Built {
        Built::Changes(
            entries
                .iter()
                .map(|(path, what)| ((*path).to_owned(), (*what).to_owned()))
                .collect(),
        )
    }

    fn differing(path: &str, found: &str) -> Verdict {
        Verdict::Differs {
            paths: vec![path.to_owned()],
            found: found.to_owned(),
        }
    }

    fn recipe(name: &str, keys: &str) -> Recipe {
        let text = format!("trap = \"\"\nscript = \"\"\n{keys}");
        Recipe::parse(name, &text).unwrap()
    }

    #[test]
    fn a_difference_is_reported_with_its_path() {
        let first = changes(&[("/work/date", "1"), ("/work/same", "x")]);
        let second = changes(&[("/work/date", "2"), ("/work/same", "x")]);
        let verdict = Verdict::of(&[first.clone(), first.clone(), second]);
        assert_eq!(
            verdict,
            differing("/work/date", "in world 1 1, in world 2 1, in world 3 2")
        );
        assert_eq!(verdict.to_string(), "differs: /work/date");
        assert_eq!(Verdict::of(&[first.clone(), first]), Verdict::Identical);
    }

    #[test]
    fn a_path_that_is_in_one_tree_alone_is_a_difference() {
        let first = changes(&[("/work/tmp.a", "x")]);
        let second = changes(&[("/work/tmp.b", "x")]);
        assert_eq!(
            Verdict::of(&[first, second]).to_string(),
            "differs: /work/tmp.a, /work/tmp.b"
        );
    }

    #[test]
    fn nothing_is_never_identical_to_nothing() {
        let good = changes(&[("/work/a", "x")]);
        let bad = Built::Failed("exit 1".to_owned());
        assert_eq!(
            Verdict::of(&[good.clone(), bad]).to_string(),
            "failed: in world 2: exit 1"
        );
        assert_eq!(
            Verdict::of(&[changes(&[]), changes(&[])]).to_string(),
            "failed: in world 1: it left nothing to compare"
        );
        assert_eq!(
            Verdict::of(&[good]).to_string(),
            "failed: there is nothing to compare with"
        );
    }

    #[test]
    fn what_differs_where_nothing_may_is_objected_to() {
        let date = recipe("date", "cause = \"clock\"\nisolated = \"differs\"");
        let differs = differing("/work/date", "in world 1 1, in world 2 2");
        let row = |tier, verdict| Row {
            recipe: &date,
            tier,
            verdict,
        };
        let good = [
            row(Tier::Isolated, differs.clone()),
            row(Tier::Deterministic, Verdict::Identical),
            row(Tier::Strict, Verdict::Identical),
        ];
        assert_eq!(objections(&good, None), Vec::<String>::new());
        let bad = [
            row(Tier::Isolated, Verdict::Identical),
            row(Tier::Strict, differs),
        ];
        assert_eq!(
            objections(&bad, None),
            [
                "date under isolated: identical (recorded: Differs)",
                "date under strict: differs: /work/date (recorded: Identical): in world 1 1, in world 2 2",
            ]
        );
    }

    #[test]
    fn the_processor_may_differ_under_strict() {
        let keys = "cause = \"cpu-instruction\"\nisolated = \"differs\"\nstrict = \"differs\"";
        let rdrand = recipe("rdrand", keys);
        let row = Row {
            recipe: &rdrand,
            tier: Tier::Strict,
            verdict: differing("/work/out", ""),
        };
        assert_eq!(objections(&[row], None), Vec::<String>::new());
    }

    #[test]
    fn too_few_identical_and_too_few_differing_are_objected_to() {
        let least = Least {
            deterministic: 95.0,
            differing: 40,
        };
        let race = recipe("race", "cause = \"thread-race\"\nisolated = \"may-differ\"");
        let row = |tier, verdict| Row {
            recipe: &race,
            tier,
            verdict,
        };
        let mut rows: Vec<_> = (0..19)
            .map(|_| row(Tier::Deterministic, Verdict::Identical))
            .collect();
        rows.push(row(Tier::Deterministic, differing("/work/out", "")));
        assert_eq!(
            objections(&rows, Some(least)),
            Vec::<String>::new(),
            "95 of 100"
        );
        rows.push(row(Tier::Deterministic, differing("/work/out", "")));
        rows.push(row(Tier::Isolated, differing("/work/out", "")));
        assert_eq!(
            objections(&rows, Some(least)),
            [
                "only 90.5 % are identical under deterministic, not 95 %",
                "only 1 recipes differ under isolated, not 40: the corpus proves nothing",
            ]
        );
    }
}
