//! Checks 20 and 21: signals, job control, ways to start a program, storms of processes, and the end of it all.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use golden_tests::lab::{Lab, immbuild};

use crate::probe::{Probe, VIRTUAL, log, none_runs, processes_with, same_log, spec, store, value};

#[test]
fn jobs_are_stopped_continued_and_ended() {
    let script = r#"
exec 2> /dev/null
sleep 100 & job=$!
kill -STOP $job
kill -CONT $job
kill $job; wait $job && echo 0 || echo ended $?
tail -f /dev/null & job=$!
kill -STOP $job; kill -KILL $job; wait $job && echo 0 || echo killed $?
bash -c 'set -m; tail -f /dev/null & kill -STOP %1; sleep 1; jobs %1 | cut -c 7-13; kill -CONT %1; sleep 1; jobs %1 | cut -c 7-13; kill %1; wait %1; echo bash $?'
(trap 'echo trapped; exit 5' TERM; echo ready > flag; while :; do sleep 1; done) & job=$!
while [ ! -e flag ]; do sleep 0.1; done; kill $job; wait $job && echo 0 || echo trap $?
sh -c 'kill -SEGV $$' 2> /dev/null && echo 0 || echo fault $?
python3 - <<'END'
import os, signal, time
got = []
for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGRTMIN):
    signal.signal(number, lambda n, _: got.append(int(n)))
for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGRTMIN): os.kill(os.getpid(), number)
print("got", sorted(got))
child = os.fork()
if child == 0:
    signal.pause()
    os._exit(0)
os.kill(child, signal.SIGSTOP)
print("stopped", os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1]))
os.kill(child, signal.SIGCONT)
print("continued", os.WIFCONTINUED(os.waitpid(child, os.WCONTINUED)[1]))
os.kill(child, signal.SIGKILL)
print("killed", os.WTERMSIG(os.waitpid(child, 0)[1]))
END
"#;
    let expected = "ended 143
killed 137
Stopped
Running
bash 143
trapped
trap 5
fault 139
got [10, 12, 34]
stopped True
continued True
killed 9";
    for tier in VIRTUAL {
        assert_eq!(log(tier, script), expected, "under `{tier}`");
    }
}

/// The beginning of a Python program that starts children and waits for them.
const CHILDREN: &str = r#"
import ctypes, errno, os, signal, threading, time
C = ctypes.CDLL(None, use_errno=True)

def waited(flags=0, who=-1):
    status = ctypes.c_int(0)
    ctypes.set_errno(0)
    pid = C.syscall(61, who, ctypes.byref(status), flags, 0)
    return "a child" if pid > 0 else "none yet" if pid == 0 else errno.errorcode[ctypes.get_errno()]

def child(of=lambda: None, flags=None):
    pid = os.fork() if flags is None else C.syscall(56, flags | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        of()
        os._exit(0)
    return pid
"#;

fn with_children(tier: &'static str, program: &str) -> String {
    log(
        tier,
        &format!("exec python3 - <<'END'{CHILDREN}{program}END"),
    )
}

/// Who has no child is told so at once; who has one waits for it.
#[test]
fn children_are_waited_for_as_often_as_there_are_any() {
    let program = r#"
print("without", waited(), waited(os.WNOHANG), waited(who=1), waited(1 << 20))

pid = child(signal.pause)
print("lives", waited(os.WNOHANG))
os.kill(pid, signal.SIGKILL)
print("ended", waited(), waited())

def busy():
    for _ in range(3000): time.time()
pid = child(busy)
looks = [os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT).si_pid == pid for _ in range(2)]
print("looked at", *looks, os.times().children_user > 0)
print("reaped", C.waitid(os.P_PID, pid, 0, os.WEXITED), os.times().children_user > 0, waited())

thread = threading.Thread(target=child)
thread.start(), thread.join()
print("of a thread", waited(), waited())

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
child(lambda: time.sleep(1))
print("ignored", waited(), waited())
"#;
    let expected = "without ECHILD ECHILD ECHILD EINVAL
lives none yet
ended a child ECHILD
looked at True True False
reaped 0 True ECHILD
of a thread a child ECHILD
ignored ECHILD ECHILD";
    for tier in VIRTUAL {
        assert_eq!(with_children(tier, program), expected, "under `{tier}`");
    }
}

/// One step each: after the first of them every wait is the kernel's.
#[test]
fn children_that_a_process_has_not_forked_are_waited_for() {
    let programs = [
        // CLONE_PARENT
        (
            "child(lambda: child(flags=0x8000))",
            "a child a child ECHILD",
        ),
        // PR_SET_CHILD_SUBREAPER
        (
            "C.prctl(36, 1, 0, 0, 0)\nchild(lambda: child(lambda: time.sleep(1)))",
            "a child a child ECHILD",
        ),
        // CLONE_UNTRACED
        ("child(flags=0x80_0000)", "a child ECHILD ECHILD"),
    ];
    for tier in VIRTUAL {
        for (program, expected) in programs {
            let program = format!("{program}\nprint(waited(), waited(), waited())\n");
            assert_eq!(
                with_children(tier, &program),
                expected,
                "under `{tier}`: {program}"
            );
        }
    }
}

/// What was stopped does nothing: nobody needs to wait for it in real time.
#[test]
fn a_stopped_process_does_not_hold_up_time() {
    let script = "sleep 100 & kill -STOP $!; sleep 5; tail -f /dev/null & kill -STOP $!; sleep 5; kill -KILL $!; echo over";
    for tier in VIRTUAL {
        let told = Probe::new(tier, script).run();
        assert!(
            told.real < Duration::from_secs(5),
            "under `{tier}` {:?}",
            told.real
        );
    }
}

#[test]
fn a_program_is_started_in_every_way() {
    for tier in VIRTUAL {
        let said = same_log(
            tier,
            "gcc -O1 -w -pthread -o starts /src/starts.c; ./starts",
        );
        let expected = "vfork 3
posix_spawn 4
clone 5
clone3 6
system 7
in thread: exec'd with the id of the leader
thread-exec 8
killed 9
orphan 1
daemon is collected";
        assert_eq!(said, expected, "under `{tier}`");
    }
}

#[test]
fn ten_thousand_processes_come_and_go() {
    // Under `strict` each turn looks at all 50 that wait: fewer tell as much.
    for (tier, count) in [("deterministic", 10_000), ("strict", 1500)] {
        let script = format!("gcc -O1 -w -o storm /src/storm.c; ./storm {count} 50");
        let told = Probe::new(tier, &script).run();
        assert_eq!(told.log, format!("{count} ended, 0 refused"));
    }
}

#[test]
fn two_thousand_processes_at_once() {
    let told = Probe::new(
        "deterministic",
        "gcc -O1 -w -o storm /src/storm.c; ./storm 2000 2000",
    )
    .run();
    assert_eq!(told.log, "2000 ended, 0 refused");
}

#[test]
fn more_processes_than_there_may_be_are_refused_to_the_step() {
    let told = Probe::new(
        "deterministic",
        "gcc -O1 -w -o storm /src/storm.c; ./storm 10000 10000; echo goes on",
    )
    .run();
    let refused = told.log.split(" ended, ").nth(1).expect("a count");
    assert!(!refused.starts_with("0 "), "{}", told.log);
    assert!(told.log.ends_with("goes on"), "{}", told.log);
}

#[test]
fn a_fork_bomb_ends_at_the_timeout() {
    for tier in VIRTUAL {
        let failed = Probe::new(
            tier,
            "f() { f bomb-7d3 | f bomb-7d3 & }; f 2> /dev/null; exec tail -f /dev/null bomb-7d3",
        )
        .with("timeout = \"3s\"")
        .fails();
        assert!(
            failed
                .said
                .contains("took longer than its `timeout` and was killed"),
            "{}",
            failed.said
        );
        assert!(failed.real < Duration::from_secs(25), "{:?}", failed.real);
        none_runs("bomb-7d3");
    }
}

#[test]
fn a_step_that_never_ends_ends_at_its_timeout() {
    for tier in VIRTUAL {
        for script in [
            "exec tail -f /dev/null endless-5e1",
            "trap : TERM INT HUP; while :; do sleep 1; done # endless-5e1",
            "mkfifo pipe; cat pipe # endless-5e1",
            "while :; do :; done # endless-5e1",
            "python3 -c 'import signal; signal.pause() # endless-5e1'",
        ] {
            let failed = Probe::new(tier, script).with("timeout = \"1s\"").fails();
            assert_eq!(failed.exit, Some(7));
            assert!(
                failed
                    .said
                    .contains("took longer than its `timeout` and was killed"),
                "`{script}` under `{tier}`: {}",
                failed.said
            );
            assert!(failed.real < Duration::from_secs(15), "{:?}", failed.real);
        }
        none_runs("endless-5e1");
    }
}

#[test]
fn what_a_step_leaves_running_is_ended() {
    for tier in VIRTUAL {
        let told = Probe::new(
            tier,
            "tail -qf /dev/null left-2b7 2> /dev/null & setsid tail -qf /dev/null left-2b7 2> /dev/null & \
             (setsid sh -c 'trap : TERM HUP INT; while :; do sleep 1; done # left-2b7' &) ; echo done",
        )
        .run();
        assert_eq!(told.log, "done");
        none_runs("left-2b7");
    }
}

/// The builder, killed as nobody can catch it, takes every process with it and leaves no mount.
#[test]
fn killing_the_builder_leaves_no_process_and_no_mount() {
    for tier in VIRTUAL {
        let step = format!(
            "{{ tier = \"{tier}\", shell = \"tail -f /dev/null killed-4f8 2> /dev/null & setsid sh -c 'trap : TERM; while :; do :; done # killed-4f8' & while :; do :; done # killed-4f8\" }}"
        );
        let mut lab = Lab::new(&spec(&step));
        lab.store.clone_from(store());
        let mut builder = Command::new(immbuild())
            .args(["build", "--quiet", "--rerun", "--stage", "probe", "--store"])
            .arg(&lab.store)
            .current_dir(lab.project())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while processes_with("killed-4f8").len() < 3 {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "the step does not start"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        builder.kill().unwrap();
        builder.wait().unwrap();
        none_runs("killed-4f8");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let below = store().display().to_string();
        assert!(!mounts.contains(&below), "{mounts}");
        // The store is as good as before.
        assert_eq!(log(tier, "echo works"), "works");
    }
}

#[test]
fn who_traces_is_told_why_it_cannot() {
    for tier in VIRTUAL {
        let said = log(tier, "gcc -O1 -w -o traces /src/traces.c; ./traces");
        assert!(
            said.contains("immbuild: `traces` wants to trace a process, but this step is traced itself: run it with `tier = \"isolated\"`"),
            "{said}"
        );
        assert_eq!(
            value(&said, "traceme"),
            "-1 Operation not permitted",
            "{said}"
        );
        assert_eq!(
            value(&said, "attach"),
            "-1 Operation not permitted",
            "{said}"
        );
        assert_eq!(
            value(&said, "seize"),
            "-1 Operation not permitted",
            "{said}"
        );
    }
    let said = log("isolated", "gcc -O1 -w -o traces /src/traces.c; ./traces");
    assert_eq!(value(&said, "traceme"), "0 Success", "{said}");
}

#[test]
fn other_users_and_nested_namespaces_work() {
    let script = r#"
echo su $(su nobody -s /bin/sh -c 'id -un; date +%Y; head -c 4 /dev/urandom | wc -c')
echo setpriv $(setpriv --reuid 1000 --regid 1000 --clear-groups sh -c 'id -u; date +%Y')
echo runuser $(runuser -u nobody -- date +%Y)
echo unshare $(unshare -Ur sh -c 'id -u; date +%Y')
echo mounts $(unshare -Urm sh -c 'mount -t tmpfs none /mnt && echo x > /mnt/x && stat -c %Y /mnt/x | cut -c 1-5')
echo processes $(unshare -Urpf sh -c 'echo $$; date +%Y; sleep 3; kill -9 $$' || echo $?)
echo chroot $(chroot / date +%Y)
echo time-namespace $(unshare -UrT sh -c 'date +%Y' 2> /dev/null || echo refused)
cp /usr/bin/id own-id; chown 1000 own-id; chmod 4755 own-id; chmod 755 /work
echo set-user-id $(setpriv --reuid 2000 --clear-groups ./own-id -u)
"#;
    for tier in VIRTUAL {
        let said = same_log(tier, script);
        assert_eq!(value(&said, "su"), "nobody 2026 4", "{said}");
        assert_eq!(value(&said, "setpriv"), "1000 2026");
        assert_eq!(value(&said, "runuser"), "2026");
        assert_eq!(value(&said, "unshare"), "0 2026");
        assert_eq!(value(&said, "mounts"), "17672", "{said}");
        assert_eq!(value(&said, "processes"), "1 2026", "{said}");
        assert_eq!(value(&said, "chroot"), "2026");
        assert!(
            ["2026", "refused"].contains(&value(&said, "time-namespace")),
            "{said}"
        );
        assert_eq!(value(&said, "set-user-id"), "1000");
    }
}

/// Check 20: what becomes another user, pretends to be one, makes namespaces of its own or traces works, or says why not.
#[test]
fn tools_that_need_more_than_a_program_work_or_say_why_not() {
    let script = r#"
useradd -m greeter
echo 'greeter ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/greeter
last() { "$@" 2>&1 | tail -n 1; }
echo sudo $(last sudo -n id -u) $(last sudo -n -u greeter id -un) $(last su greeter -c 'sudo -n id -u')
echo su $(last su greeter -c 'id -un') $(last su - greeter -c pwd)
touch f
echo fakeroot $(last fakeroot sh -c 'chown 7:8 f; stat -c %u:%g f')
echo fakeroot-user $(last su greeter -c 'cd; touch f; fakeroot sh -c "chown 7:8 f; mknod d c 1 3; stat -c %u:%g:%F f d"')
echo unshare $(last unshare -Ur unshare -Ur --mount --pid --fork id -u)
echo bwrap $(last bwrap --ro-bind / / --dev /dev --unshare-all id -u) $(last su greeter -c 'bwrap --ro-bind / / --unshare-all id -un')
echo bwrap-proc $(last bwrap --ro-bind / / --proc /proc --unshare-all id -u)
echo strace $(strace -o /dev/null true 2>&1 || true)
sleep 100 & echo gdb $(last gdb -nx -q -batch -p $!); kill $!
"#;
    for tier in VIRTUAL {
        let said = log(tier, script);
        let is = |name, expected: &str| assert_eq!(value(&said, name), expected, "{tier}: {said}");
        is("sudo", "0 greeter 0");
        is("su", "greeter /home/greeter");
        is("fakeroot", "7:8");
        is("fakeroot-user", "0:0:character special file");
        is("unshare", "0");
        is("bwrap", "0 greeter");
        // As in a container whose engine covers parts of /proc.
        is(
            "bwrap-proc",
            "bwrap: Can't mount proc on /newroot/proc: Operation not permitted",
        );
        is("gdb", "ptrace: Operation not permitted.");
        assert!(said.contains("wants to trace a process, but this step is traced itself: run it with `tier = \"isolated\"`"), "{said}");
        assert!(!value(&said, "strace").is_empty(), "{said}");
    }
}
