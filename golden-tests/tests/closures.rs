//! What we choose is what apt chooses: name and version, from the real archive, on the five targets and on packages picked
//! by a seed. Differences are printed; each one that stays is listed here with its reason.

#![allow(
    clippy::print_stdout,
    reason = "what was asked is told as it is answered"
)]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use golden_tests::apt::{Apt, Question};
use immbuild::debian::index;
use immbuild::debian::release::Rank;
use immbuild::debian::solve::{List, SolveError, Universe, Wish};

/// How many packages are picked for every change, and how many with `cargo ci --full`: apt thinks a second about each.
const FEW: usize = 20;
const MANY: usize = 300;
/// How many questions at once.
const THREADS: usize = 4;
/// Which packages are picked.
const SEED: u64 = 20_261_127;

const TARGETS: [&str; 5] = [
    "python3-minimal",
    "nginx-light",
    "openjdk-17-jre-headless",
    "postgresql-15",
    "build-essential",
];

fn ours(
    universe: &Universe<'_>,
    question: &Question<'_>,
) -> Result<BTreeMap<String, String>, SolveError> {
    let wish = Wish {
        packages: question.packages,
        recommends: question.recommends,
        essential: question.essential,
        ..Wish::default()
    };
    let chosen = universe.solve(&wish)?;
    let pairs = chosen
        .iter()
        .map(|it| (it.package.name.to_owned(), it.package.version.to_owned()));
    Ok(pairs.collect())
}

/// How the two differ, in words; nothing where they do not.
fn difference(
    apt: &Result<BTreeMap<String, String>, String>,
    ours: &Result<BTreeMap<String, String>, SolveError>,
) -> Option<String> {
    match (apt, ours) {
        (Ok(apt), Ok(ours)) if apt == ours => None,
        (Ok(apt), Ok(ours)) => {
            let lacks = apt.iter().filter(|it| ours.get(it.0) != Some(it.1));
            let more = ours.iter().filter(|it| apt.get(it.0) != Some(it.1));
            let lacks: Vec<String> = lacks
                .map(|(name, version)| format!("-{name} {version}"))
                .collect();
            let more: Vec<String> = more
                .map(|(name, version)| format!("+{name} {version}"))
                .collect();
            Some(format!("{} {}", lacks.join(" "), more.join(" ")))
        }
        (Err(_), Err(_)) => None,
        (Ok(_), Err(error)) => Some(format!("apt can, we cannot: {error}")),
        (Err(error), Ok(_)) => Some(format!(
            "we can, apt cannot: {}",
            error.lines().last().unwrap_or_default()
        )),
    }
}

/// Names picked by the seed: every run picks the same from the same archive.
fn picked(universe: &Universe<'_>, count: usize) -> Vec<String> {
    let names = universe.names();
    let mut state = SEED;
    let mut picked = Vec::new();
    while picked.len() < count.min(names.len()) {
        // Knuth's linear congruential generator; its upper bits are good enough to pick names with.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let at = usize::try_from(state >> 33).expect("31 bits") % names.len();
        let name = names[at].to_owned();
        if !picked.contains(&name) {
            picked.push(name);
        }
    }
    picked
}

/// Seconds of processor time that this process has used: what others do on the machine is not in it.
fn processor_time() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let nanoseconds = u32::try_from(time.tv_nsec).expect("below a second");
    let seconds = u32::try_from(time.tv_sec).expect("a short test");
    f64::from(seconds) + f64::from(nanoseconds) / 1e9
}

fn closures_are_those_of_apt(count: usize) {
    let apt = Apt::new().expect("this machine has apt");
    let texts: Vec<String> = apt
        .lists()
        .expect("lists")
        .iter()
        .map(|list| apt.text(list).expect("a list"))
        .collect();
    assert!(!texts.is_empty(), "run `apt-get update`");
    let start = processor_time();
    let lists = texts
        .iter()
        .map(|text| List {
            text,
            packages: index::parse(text).expect("an index"),
            rank: Rank::Normal,
        })
        .collect();
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let universe = Universe::new(lists, architecture, &BTreeMap::new());
    let parsed = processor_time() - start;
    println!("{} names read in {parsed:.3} s", universe.names().len());
    let longest = choose(&universe);
    // What is promised, is promised of what is shipped.
    if !cfg!(debug_assertions) {
        assert!(parsed <= 0.5, "{parsed} s to read the indexes");
        assert!(longest <= 0.05, "{longest} s to choose");
    }
    let questions = questions(&universe, count);
    let differences = differences(&apt, &universe, &questions);
    assert!(
        differences.is_empty(),
        "{} of {} differ:\n{}",
        differences.len(),
        questions.len(),
        differences.join("\n")
    );
}

/// The longest that choosing one of the targets kept a processor busy, in seconds.
fn choose(universe: &Universe<'_>) -> f64 {
    let mut longest: f64 = 0.0;
    for target in TARGETS {
        let packages = [target.to_owned()];
        let question = Question {
            packages: &packages,
            recommends: false,
            essential: true,
        };
        let start = processor_time();
        let chosen = ours(universe, &question).expect("it can be had");
        let solved = processor_time() - start;
        println!("{target}: {} packages in {solved:.4} s", chosen.len());
        longest = longest.max(solved);
    }
    longest
}

/// Packages, with what they recommend, with what is essential.
type Asked = (Vec<String>, bool, bool);

fn questions(universe: &Universe<'_>, count: usize) -> Vec<Asked> {
    let mut questions: Vec<Asked> = Vec::new();
    for target in TARGETS {
        questions.push((vec![target.to_owned()], false, false));
        questions.push((vec![target.to_owned()], false, true));
        questions.push((vec![target.to_owned()], true, false));
    }
    questions.push((TARGETS.map(str::to_owned).to_vec(), false, true));
    let picked = picked(universe, count);
    questions.extend(picked.into_iter().map(|name| (vec![name], false, false)));
    questions
}

/// Asks both about everything; gives a line for each question on which they do not agree.
fn differences(apt: &Apt, universe: &Universe<'_>, questions: &[Asked]) -> Vec<String> {
    let differences = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    let worker = || {
        while let Some((packages, recommends, essential)) =
            questions.get(next.fetch_add(1, Ordering::Relaxed))
        {
            let question = Question {
                packages,
                recommends: *recommends,
                essential: *essential,
            };
            let theirs = apt.closure(&question).expect("apt runs");
            let found = difference(&theirs, &ours(universe, &question));
            let line = format!(
                "{}{}{}: {}",
                packages.join(" "),
                if *recommends { " with recommends" } else { "" },
                if *essential { " with essential" } else { "" },
                found.as_deref().unwrap_or("the same"),
            );
            println!("{line}");
            if found.is_some() {
                differences
                    .lock()
                    .expect("no thread panics with it")
                    .push(line);
            }
        }
    };
    // Each question to apt costs more than a second of one processor.
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(worker);
        }
    });
    differences.into_inner().expect("no thread panics with it")
}

#[test]
fn closures_of_a_few_are_those_of_apt() {
    closures_are_those_of_apt(FEW);
}

#[test]
#[ignore = "five minutes of apt: `cargo ci --full` runs it"]
fn closures_of_many_are_those_of_apt() {
    closures_are_those_of_apt(MANY);
}
