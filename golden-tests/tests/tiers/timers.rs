//! Check 13: every wait takes virtual time alone, ends when it should, and what is due comes in its order.

use std::time::Duration;

use crate::probe::{Probe, VIRTUAL, number, same_log, value};

#[test]
fn waits_take_no_real_time() {
    for tier in VIRTUAL {
        for script in [
            "sleep 3600",
            "start=$(date +%s); while [ $(date +%s) -lt $((start + 30)) ]; do sleep 1; done",
            "python3 -c 'import time; time.sleep(86400)'",
            "perl -e 'select undef, undef, undef, 5000'",
            "bash -c 'read -t 1000 line < <(tail -f /dev/null)' || true",
        ] {
            let told = Probe::new(tier, script).run();
            assert!(
                told.real < Duration::from_secs(5),
                "`{script}` took {:?}",
                told.real
            );
        }
    }
}

/// A loop that looks at the clock without waiting ends, too.
#[test]
fn a_loop_that_looks_at_the_clock_ends() {
    let script = "python3 -c '
import time
start = time.time()
while time.time() < start + 5: pass
print(\"wall\")
start = time.monotonic()
while time.monotonic() < start + 5: pass
print(\"monotonic\")
'; bash -c 'while ((SECONDS < 3)); do :; done; echo bash'";
    for tier in VIRTUAL {
        let told = Probe::new(tier, script).run();
        assert_eq!(told.log, "wall\nmonotonic\nbash");
        assert!(told.real < Duration::from_secs(20), "{:?}", told.real);
    }
}

#[test]
fn a_timeout_ends_what_takes_too_long_and_nothing_else() {
    let script = "
ended() { \"$@\" && echo 0 || echo $?; }
echo sleep $(ended timeout 5 sleep 100)
echo enough $(ended timeout 100 sleep 5)
echo endless $(ended timeout 5 tail -f /dev/null)
echo stubborn $(ended 2> /dev/null timeout -k 3 5 sh -c 'trap : TERM; while :; do sleep 1; done')
echo work $(ended timeout 100 sh -c 'gzip -9 < /usr/bin/make | wc -c > /dev/null; exit 4')
echo signal $(ended timeout -s INT 5 python3 -c '
import time
try: time.sleep(100)
except KeyboardInterrupt: raise SystemExit(9)')
echo preserved $(ended timeout --preserve-status 5 sleep 100)
";
    for tier in VIRTUAL {
        let said = same_log(tier, script);
        let expected =
            "sleep 124\nenough 0\nendless 124\nstubborn 137\nwork 4\nsignal 124\npreserved 143";
        assert_eq!(said, expected, "under `{tier}`");
    }
}

#[test]
fn python_waits_end_in_order() {
    let script = r#"
python3 - <<'END'
import asyncio, concurrent.futures, multiprocessing, os, queue, select, signal, socket, subprocess, threading, time
start = time.monotonic()
def tell(what):
    global start
    print(what, round(time.monotonic() - start, 2))
    start = time.monotonic()
done = []
timers = [threading.Timer(n / 2, done.append, [n]) for n in (5, 1, 3, 2, 4)]
for timer in timers: timer.start()
for timer in timers: timer.join()
tell(f"timers {done}")
done = []
async def wait(n):
    await asyncio.sleep(n)
    done.append(n)
async def main():
    await asyncio.gather(*[wait(n) for n in (3, 1, 2)])
    try: await asyncio.wait_for(asyncio.sleep(100), 4)
    except asyncio.TimeoutError: done.append("timeout")
asyncio.run(main())
tell(f"asyncio {done}")
try: queue.Queue().get(timeout=5)
except queue.Empty: tell("queue")
tell(f"select {select.select([os.pipe()[0]], [], [], 6)}")
tell(f"event {threading.Event().wait(2)}")
tell(f"condition {threading.Lock().acquire() and threading.Lock().acquire(timeout=1)}")
lock = threading.Lock(); lock.acquire()
tell(f"lock {lock.acquire(timeout=3)}")
try: subprocess.run(["sleep", "100"], timeout=7)
except subprocess.TimeoutExpired: tell("subprocess")
tell(f"sigtimedwait {signal.sigtimedwait([signal.SIGUSR1], 8)}")
signal.signal(signal.SIGALRM, lambda *_: tell("alarm"))
signal.alarm(9); signal.pause()
signal.setitimer(signal.ITIMER_REAL, 0.5, 0.25)
signal.pause(); signal.pause(); signal.pause()
signal.setitimer(signal.ITIMER_REAL, 0)
one, two = socket.socketpair()
one.settimeout(2)
try: one.recv(1)
except TimeoutError: tell("recv")
with concurrent.futures.ThreadPoolExecutor() as pool:
    jobs = [pool.submit(time.sleep, n) for n in (3, 1, 2)]
    order = [jobs.index(job) for job in concurrent.futures.as_completed(jobs)]
tell(f"pool {order}")
parent, child = multiprocessing.Pipe()
tell(f"pipe {parent.poll(4)}")
process = multiprocessing.Process(target=time.sleep, args=[50])
process.start(); process.join(6)
tell(f"join {process.is_alive()}")
process.join()
tell("joined")
END
"#;
    let expected = "timers [1, 2, 3, 4, 5] 2.5
asyncio [1, 2, 3, 'timeout'] 7.0
queue 5.0
select ([], [], []) 6.0
event False 2.0
condition True 0.0
lock False 3.0
subprocess 7.0
sigtimedwait None 8.0
alarm 9.0
alarm 0.5
alarm 0.25
alarm 0.25
recv 2.0
pool [1, 2, 0] 3.0
pipe False 4.0
join True 6.0
joined 44.0";
    for tier in VIRTUAL {
        assert_eq!(same_log(tier, script), expected, "under `{tier}`");
    }
}

/// One program that waits in every way at once.
#[test]
fn events_of_every_kind_come_in_the_order_of_their_deadlines() {
    for tier in VIRTUAL {
        let told = Probe::new(tier, "gcc -O1 -w -pthread -o order /src/order.c; ./order").run();
        let events: Vec<(&str, i64)> = told
            .log
            .lines()
            .map(|line| line.rsplit_once(' ').expect("a name and a time"))
            .map(|(name, time)| (name, time.parse().expect("a number")))
            .collect();
        let names: Vec<&str> = events.iter().map(|(name, _)| *name).collect();
        let expected = [
            "timerfd",
            "setitimer",
            "signal-timer",
            "thread-timer",
            "nanosleep",
            "poll",
            "ppoll",
            "epoll",
            "epoll-pwait2",
            "select",
            "pselect",
            "futex-relative",
            "futex-absolute",
            "condition-real",
            "condition-monotonic",
            "semaphore",
            "mutex",
            "sigtimedwait",
            "sleep-absolute",
            "semtimedop",
            "message-queue",
            "child",
            "alarm",
        ];
        assert_eq!(names, expected, "under `{tier}`:\n{}", told.log);
        for (at, (name, time)) in events.iter().enumerate() {
            let due = (i64::try_from(at).expect("few") + 1) * 100;
            assert!(
                (due..due + 50).contains(time),
                "under `{tier}`, `{name}` at {time} ms, not {due}"
            );
        }
        assert!(told.real < Duration::from_secs(10), "{:?}", told.real);
    }
}

#[test]
fn timers_that_go_off_again_and_again_count() {
    for tier in VIRTUAL {
        let said = same_log(tier, "gcc -O1 -w -pthread -o again /src/again.c; ./again");
        // Five times, each when it is due.
        assert_eq!(value(&said, "timerfd-each"), "1 1 1 1 1");
        assert_eq!(number(&said, "timerfd-elapsed"), 50, "{said}");
        assert_eq!(value(&said, "setitimer"), "5 50");
        assert_eq!(value(&said, "posix"), "5 50");
        // Nobody looked for a while: the count says how often.
        assert_eq!(number(&said, "timerfd-after-a-sleep"), 10, "{said}");
        assert_eq!(number(&said, "overrun-after-a-sleep"), 9, "{said}");
        // What is left, and after disarming.
        assert_eq!(value(&said, "left"), "100 60 0");
        assert_eq!(value(&said, "interrupted"), "-1 30 70");
        assert_eq!(value(&said, "read-nonblocking"), "-1");
        assert_eq!(value(&said, "poll-timerfd"), "1 20");
    }
}

/// Go's collector: one thread looks in memory whether another has gone on, which has gone to sleep for some microseconds. A
/// hundred times a moment takes no more than a few seconds, and as far as the clock tells no time at all.
#[test]
fn who_waits_for_a_moment_gives_way_to_a_thread_that_looks() {
    let script = "
cat > moments.c <<'END'
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
static atomic_int turn;
static void *other(void *unused) {
    for (int i = 0; i < 100; i++) {
        while (atomic_load(&turn) != 1) ;
        usleep(20);
        atomic_store(&turn, 0);
    }
    return unused;
}
int main(void) {
    struct timespec start, end;
    pthread_t thread;
    pthread_create(&thread, NULL, other, NULL);
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int i = 0; i < 100; i++) {
        atomic_store(&turn, 1);
        while (atomic_load(&turn) != 0) ;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    pthread_join(thread, NULL);
    printf(\"passed %ld\\n\", (end.tv_sec - start.tv_sec) * 1000000000L + end.tv_nsec - start.tv_nsec);
}
END
gcc -O1 -pthread -o moments moments.c
./moments
";
    let told = Probe::new("deterministic", script).run();
    assert!(told.real < Duration::from_secs(60), "{:?}", told.real);
    assert_eq!(told.log, "passed 0");
}
