//! Checks 1 and 4: clocks start at the epoch and move only by what happens in the step.

use crate::probe::{EPOCH, VIRTUAL, log, number, same_log, value};

/// Every way to ask for the time of day that a program of the root has, a line each.
const TIMES: &str = r#"
echo date $(date +%s)
echo nanoseconds $(date +%s%N | cut -c 1-10)
bash -c 'echo bash ${EPOCHREALTIME%.*}; printf "printf %(%s)T\n" -1'
perl -e 'print "perl ", time, "\n"'
awk 'BEGIN { srand(); print "awk", srand() }'
python3 -c 'import time; print("python", int(time.time())); print("python-ns", time.time_ns() // 10**9)'
echo x > file
echo file-mtime $(stat -c %Y file)
echo file-ctime $(stat -c %Z file)
touch touched
echo touched $(stat -c %Y touched)
mkdir directory
echo directory $(stat -c %Y directory)
echo proc $(stat -c %Y /proc/self/status)
echo dev $(stat -c %Y /dev/null)
echo sqlite $(sqlite3 :memory: "select strftime('%s','now')")
gcc -O1 -w -o wall /src/wall.c
./wall dynamic
gcc -O1 -w -static -o wall /src/wall.c
./wall static
"#;

#[test]
fn every_time_of_day_starts_at_the_epoch() {
    for tier in VIRTUAL {
        let said = log(tier, TIMES);
        let times: Vec<(&str, i64)> = said
            .lines()
            .map(|line| line.rsplit_once(' ').expect("a name and a time"))
            .map(|(name, time)| (name, time.parse().expect("a number")))
            .collect();
        assert!(times.len() >= 30, "{said}");
        for (name, time) in times {
            assert!(
                (EPOCH..EPOCH + 60).contains(&time),
                "under `{tier}`, `{name}` says {time}, and the epoch is {EPOCH}"
            );
        }
    }
}

#[test]
fn the_first_time_is_the_epoch_and_its_year_is_the_epoch_s() {
    for tier in VIRTUAL {
        let said = same_log(tier, "date +%s%N; date; date +%Y");
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines[0].starts_with("17672256000000"), "{said}");
        assert_eq!(lines[1..], ["Thu Jan  1 00:00:00 UTC 2026", "2026"]);
    }
}

#[test]
fn time_moves_on_by_itself_and_by_what_is_waited_for() {
    let script = r#"
a=$(date +%s%N); b=$(date +%s%N); sleep 7; c=$(date +%s%N)
echo between $((b - a))
echo slept $((c - b))
python3 -c '
import time
for name in ("time_ns", "monotonic_ns", "perf_counter_ns"):
    clock = getattr(time, name)
    times = [clock() for _ in range(1000)]
    print(name, all(a < b for a, b in zip(times, times[1:])))
before = time.monotonic_ns(), time.time_ns()
time.sleep(2.5)
after = time.monotonic_ns(), time.time_ns()
print("monotonic", after[0] - before[0])
print("wall", after[1] - before[1])
print("process", time.process_time() < 5)
'
"#;
    for tier in VIRTUAL {
        let said = same_log(tier, script);
        assert!(
            (1..1_000_000_000).contains(&number(&said, "between")),
            "{said}"
        );
        let slept = number(&said, "slept");
        assert!((7_000_000_000..7_100_000_000).contains(&slept), "{said}");
        for name in ["time_ns", "monotonic_ns", "perf_counter_ns"] {
            assert_eq!(value(&said, name), "True", "{said}");
        }
        for name in ["monotonic", "wall"] {
            let slept = number(&said, name);
            assert!((2_500_000_000..2_600_000_000).contains(&slept), "{said}");
        }
        assert_eq!(value(&said, "process"), "True");
    }
}

/// How far the clock of a process has come when one of its threads looks does not depend on how often others did.
#[test]
fn what_a_thread_sees_is_not_moved_by_others_that_look() {
    let script = "gcc -O1 -w -pthread -o look /src/look.c; ./look; rm look";
    for tier in VIRTUAL {
        let said = same_log(tier, script);
        assert!(number(&said, "seen") >= EPOCH * 1_000_000_000, "{said}");
        assert_eq!(said.lines().last(), Some("waited"));
    }
}

/// A step does not see when another ended: the next starts at the epoch, too.
#[test]
fn a_later_start_of_the_step_is_not_seen() {
    let script = "date +%s%N; cat /proc/uptime; uptime -s; stat -c '%x %y %z' /proc/self /work /";
    let first = log("deterministic", script);
    std::thread::sleep(std::time::Duration::from_millis(1200));
    assert_eq!(log("deterministic", script), first);
}

#[test]
fn the_time_stamp_counter_is_virtual() {
    let script = "gcc -O1 -w -o tsc /src/tsc.c; ./tsc; rm tsc";
    for tier in VIRTUAL {
        let said = same_log(tier, script);
        let counts: Vec<i64> = ["rdtsc", "then", "rdtscp", "enabled"]
            .iter()
            .map(|name| number(&said, name))
            .collect();
        assert!(counts.is_sorted_by(|a, b| a < b), "it goes up: {said}");
        // Of a machine that started ten seconds ago, whatever its frequency.
        assert!(counts[3] < 100_000_000_000, "no machine's: {said}");
        assert_eq!(number(&said, "processor"), 0);
    }
    // The control: this machine's own is another each time.
    assert_ne!(log("isolated", script), log("isolated", script));
}

/// The page of the kernel's that tells the time without a call is still there for one who looks for it.
#[test]
fn no_page_of_the_kernel_tells_the_time() {
    let script = "gcc -O1 -w -o vdso /src/vdso.c; ./vdso";
    for tier in VIRTUAL {
        let said = log(tier, script);
        assert!(said.contains("auxiliary-vector 0"), "{said}");
        for line in said.lines().filter(|line| !line.starts_with("auxiliary")) {
            let (name, time) = line.rsplit_once(' ').expect("a name and a time");
            let time: i64 = time.parse().expect("a number");
            // -1: there is no such way.
            assert!(
                time == -1 || (EPOCH..EPOCH + 60).contains(&time),
                "under `{tier}`, {name} says {time}"
            );
        }
    }
}

#[test]
fn addresses_are_the_same_and_differ_from_each_other() {
    let script = "gcc -O1 -w -pie -o auxv /src/auxv.c; ./auxv; rm auxv";
    for tier in VIRTUAL {
        let said = same_log(tier, script);
        assert_ne!(value(&said, "main"), value(&said, "stack"));
        assert_eq!(value(&said, "random").len(), 32);
        assert_ne!(value(&said, "random"), "0".repeat(32));
    }
}
