//! Check 16: how often a step is stopped is known exactly, whatever the machine does meanwhile.

use std::collections::BTreeMap;

use crate::probe::{Load, Probe};

/// What looks at a file.
const STAT: [&str; 5] = ["newfstatat", "fstat", "statx", "stat", "lstat"];

fn stat_stops(stops: &BTreeMap<String, u64>) -> u64 {
    STAT.iter().filter_map(|name| stops.get(*name)).sum()
}

fn tar_of(count: u32, metadata: &str) -> BTreeMap<String, u64> {
    Probe::new("deterministic", "tar cf /work/files.tar files")
        .after(&format!(
            "mkdir files; cd files; seq {count} | split -l 1 -a 4 -d"
        ))
        .with(&format!("metadata = \"{metadata}\""))
        .run()
        .stops
}

#[test]
fn tar_of_many_files_is_hardly_stopped_under_clamp() {
    let few: u64 = tar_of(10, "clamp").values().sum();
    let many: u64 = tar_of(1000, "clamp").values().sum();
    assert_eq!(few, many, "a file more is no stop more");
    assert!(many < 100, "{many}");
}

#[test]
fn tar_of_many_files_is_hardly_stopped() {
    let (few, many) = (tar_of(100, "virtual"), tar_of(300, "virtual"));
    let told = format!("{few:?} and {many:?}");
    // The process itself answers what is asked of files that were there before it.
    assert_eq!(stat_stops(&many), stat_stops(&few), "{told}");
    let all = |stops: &BTreeMap<String, u64>| stops.values().sum::<u64>();
    assert!(all(&many) - all(&few) <= 10, "{told}");
}

#[test]
fn where_threads_take_turns_each_question_about_a_file_is_a_stop() {
    let of = |count| {
        Probe::new("strict", "tar cf /work/files.tar files")
            .after(&format!(
                "mkdir files; cd files; seq {count} | split -l 1 -a 4 -d"
            ))
            .run()
            .stops
    };
    let (few, many) = (of(100), of(300));
    let told = format!("{few:?} and {many:?}");
    assert_eq!(stat_stops(&many) - stat_stops(&few), 3 * 200, "{told}");
}

#[test]
fn starting_a_program_is_a_fixed_number_of_stops() {
    let script = "i=0; while [ $i -lt 100 ]; do /bin/true; i=$((i + 1)); done";
    let probe = Probe::new("deterministic", script);
    let stops = probe.run().stops;
    let load = Load::new();
    for _ in 0..2 {
        assert_eq!(probe.run().stops, stops, "it does not depend on load");
    }
    drop(load);
    let half = Probe::new("deterministic", &script.replace("100", "50"))
        .run()
        .stops;
    for (what, count) in &stops {
        let each = count - half.get(what).copied().unwrap_or_default();
        assert_eq!(
            each % 50,
            0,
            "every start has as many of `{what}`: {stops:?} and {half:?}"
        );
    }
    let all: u64 = stops.values().sum();
    let half: u64 = half.values().sum();
    assert!(
        (all - half) / 50 <= 10,
        "a program's start has few stops: {stops:?}"
    );
}

/// A shell looks for more children after each that has ended, and libselinux for a file system of its own.
#[test]
fn what_fails_is_one_stop() {
    let of = |call: &str, count: u32| {
        let python =
            format!("import os\nfor i in range({count}):\n try: {call}\n except OSError: pass");
        Probe::new("deterministic", &format!("python3 -c '{python}'"))
            .run()
            .stops
    };
    for (name, call) in [
        ("wait4", "os.wait()"),
        ("statfs", "os.statvfs(\"/sys/none\")"),
    ] {
        let (few, mut many) = (of(call, 10), of(call, 110));
        *many.get_mut(name).expect("each is a stop") -= 100;
        assert_eq!(few, many);
    }
}

/// What only computes is not stopped at all.
#[test]
fn computing_is_not_stopped() {
    let script = |loops: u32| format!("python3 -c 'x = 0\nfor i in range({loops}): x += i * i'");
    let few = Probe::new("deterministic", &script(10)).run().stops;
    let many = Probe::new("deterministic", &script(3_000_000)).run().stops;
    assert_eq!(few, many);
}
