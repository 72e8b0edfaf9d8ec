//! `cargo run --release -p golden-tests --bin hostile`: what each tier makes of the hostile corpus, or of real programs.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a table is what it is for, and beside it what is wrong"
)]

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use golden_tests::hostile::{self, Clock, Corpus, Recipe, Row, Tier, Totals, Verdict};

/// Builds every recipe of `golden-tests/hostile`, or of `golden-tests/programs`, in several worlds and says where its trees differ.
#[derive(Debug, Parser)]
struct Arguments {
    /// Under which tiers
    #[arg(long, value_delimiter = ',', value_name = "T,T", default_values_t = hostile::TIERS.to_vec())]
    tier: Vec<Tier>,
    /// The recipes of `golden-tests/programs`
    #[arg(long)]
    programs: bool,
    /// In how many worlds; the fifth has its clock 13 years ahead, with `--programs` the second
    #[arg(long, default_value_t = 2)]
    runs: usize,
    /// In these worlds, from 1, instead of the first ones
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "N,N",
        conflicts_with = "runs"
    )]
    worlds: Vec<usize>,
    /// The clock of this machine stays as it is, also in the world that is ahead of ours: for a machine that others use
    #[arg(long)]
    leave_clock: bool,
    /// One JSON object a line: one for each recipe and tier, then one for each tier
    #[arg(long)]
    json: bool,
    /// Only these recipes
    #[arg(long, num_args = 1.., value_name = "NAME")]
    only: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let mut arguments = Arguments::parse();
    if !rustix::process::geteuid().is_root() {
        bail!("loop mounts and other users need root");
    }
    arguments.tier.sort_unstable();
    arguments.tier.dedup();
    let corpus = if arguments.programs {
        hostile::PROGRAMS
    } else {
        hostile::HOSTILE
    };
    let recipes = wanted(&corpus, &arguments.only)?;
    let clock = if arguments.leave_clock {
        Clock::Left
    } else {
        Clock::Set
    };
    if arguments.worlds.is_empty() {
        arguments.worlds = (1..=arguments.runs).collect();
    }
    let rows = hostile::run_corpus(&corpus, &recipes, &arguments.tier, &arguments.worlds, clock)?;
    if arguments.json {
        print_json(&rows, &arguments.tier);
    } else {
        hostile::print_table(&rows, &arguments.tier);
    }
    let objections = hostile::objections(&rows, arguments.only.is_empty().then_some(corpus.least));
    for objection in &objections {
        eprintln!("not as it has to be: {objection}");
    }
    Ok(ExitCode::from(u8::from(!objections.is_empty())))
}

/// The recipes of these names, or all.
fn wanted(corpus: &Corpus, only: &[String]) -> Result<Vec<Recipe>> {
    let mut recipes = corpus.recipes()?;
    for name in only {
        if !recipes.iter().any(|recipe| recipe.name == *name) {
            bail!("there is no recipe {name}");
        }
    }
    recipes.retain(|recipe| only.is_empty() || only.contains(&recipe.name));
    Ok(recipes)
}

fn print_json(rows: &[Row<'_>], tiers: &[Tier]) {
    for row in rows {
        let (paths, why) = match &row.verdict {
            Verdict::Identical => (&[][..], None),
            Verdict::Differs { paths, found } => (&paths[..], Some(found)),
            Verdict::Failed(why) => (&[][..], Some(why)),
        };
        let line = serde_json::json!({
            "recipe": row.recipe.name,
            "tier": row.tier,
            "verdict": row.verdict.word(),
            "paths": paths,
            "why": why,
            "cause": row.recipe.cause,
            "also": row.recipe.also,
            "recorded": row.recipe.expected(row.tier),
            "as-recorded": row.is_as_recorded(),
        });
        println!("{line}");
    }
    for tier in tiers {
        let totals = Totals::of(rows, *tier);
        let line = serde_json::json!({
            "tier": tier,
            "recipes": totals.all,
            "identical": totals.identical,
            "differ": totals.differing,
            "failed": totals.failed,
        });
        println!("{line}");
    }
}
