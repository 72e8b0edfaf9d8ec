//! Checks 14 and 15: under `strict` nothing depends on who is scheduled when, and what spins is told.

use std::time::Duration;

use crate::probe::{Load, Probe, none_runs};

/// The same five times, of which three while the machine is busy.
#[track_caller]
fn same_under_load(script: &str) -> String {
    let probe = Probe::new("strict", script);
    let first = probe.run();
    assert_eq!(probe.run().log, first.log, "it prints the same");
    let load = Load::new();
    for _ in 0..3 {
        let told = probe.run();
        assert_eq!(told.log, first.log, "it prints the same under load");
        assert_eq!(told.tree, first.tree, "it leaves the same under load");
    }
    drop(load);
    first.log
}

#[test]
fn racing_threads_write_in_one_order() {
    let said = same_under_load(
        "gcc -O1 -w -pthread -o race /src/race.c; ./race | sha256sum; ./race | wc -l",
    );
    assert!(said.ends_with("\n400"), "{said}");
}

/// How much a pipe holds when its reader comes to it is settled, and when a parent hears of its child.
#[test]
fn jobs_of_make_end_in_one_order() {
    let said = same_under_load(
        "printf 'all: a b c d e f g h\\n%%:\\n\\t@gzip -9 < /usr/bin/$(if $(filter a c e,$@),make,env) | cksum > /dev/null; echo $@ | tee -a log\\n' > Makefile; make -s -j8; echo in the log: $(cat log)",
    );
    assert_eq!(said.lines().count(), 10, "{said}");
}

#[test]
fn process_ids_and_background_jobs_are_the_same() {
    let said = same_under_load(
        "bash -c 'echo $$; sleep 0.01 & echo $!; wait; for i in 1 2 3 4; do (echo job $i $BASHPID >> log) & done; wait; cat log'; python3 -c '
import os, threading
print(os.getpid(), threading.get_native_id())
'",
    );
    assert_eq!(said.lines().count(), 7, "{said}");
}

#[test]
fn python_s_threads_and_processes_share_work_in_one_way() {
    same_under_load(
        r#"
python3 - <<'END'
import multiprocessing, os, queue, threading
jobs = queue.Queue()
for n in range(100): jobs.put(n)
done = []
def work(name):
    while True:
        try: n = jobs.get_nowait()
        except queue.Empty: return
        sum(range(n * 1000))
        done.append((name, n))
threads = [threading.Thread(target=work, args=[name]) for name in "abcd"]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(done)
def where(n): return n, os.getpid()
with multiprocessing.Pool(3) as pool: print(list(pool.imap_unordered(where, range(30))))
END
"#,
    );
}

/// What two descriptors have to tell comes in one moment when their only other end closes, and a large message comes in
/// pieces: how many of them are seen at once is settled.
#[test]
fn who_waits_for_several_things_sees_the_same_of_them() {
    let said = same_under_load(
        r#"
cat > several.py <<'END'
import os, select, selectors, signal, socket, subprocess
for kind in selectors.PollSelector, selectors.SelectSelector:
    shell = subprocess.Popen(
        ["sh", "-c", "for i in 1 2 3; do echo out $i; echo err $i >&2; head -c 70000 /usr/bin/make; done"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    waiting, told = kind(), []
    waiting.register(shell.stdout, selectors.EVENT_READ); waiting.register(shell.stderr, selectors.EVENT_READ)
    while waiting.get_map():
        for key, events in waiting.select():
            part = os.read(key.fd, 5000)
            told.append((key.fd, len(part)))
            if not part: waiting.unregister(key.fileobj)
    print(told, shell.wait())
one, other = socket.socketpair()
if os.fork() == 0:
    one.close(); other.sendall(bytes(1000000)); os._exit(0)
other.close(); told = []
while not told or told[-1]: told.append(len(one.recv(400000)))
print(told, sum(told))
caught = []
signal.signal(signal.SIGCHLD, lambda *_: caught.append("child"))
reader, writer = os.pipe()
for n in range(4):
    if os.fork() == 0:
        os.close(reader); os.write(writer, bytes([n] * 3)); os._exit(0)
os.close(writer)
while True:
    ready = select.select([reader], [], [])[0]
    part = os.read(reader, 5)
    caught.append(part.hex())
    if not part: break
print(caught)
END
python3 several.py
"#,
    );
    assert!(said.contains("1000000\n"), "{said}");
}

/// A message that is larger than what a socket holds arrives whole, by whatever call it is sent, with its signals and its
/// errors, and its reader finds the same pieces of it.
#[test]
fn large_messages_come_through_sockets_in_one_way() {
    let said = same_under_load(
        r#"
cat > sockets.py <<'END'
import array, hashlib, os, random, signal, socket, sys, threading
drawn = random.Random(7)
message = drawn.randbytes(1500000)
parts = [message[:7], message[7:7], message[7:600000], message[600000:600001], message[600001:]]
def send(socket):
    sys.stdout = open("told", "w")
    print(os.write(socket.fileno(), message), os.writev(socket.fileno(), parts), socket.send(message))
    there = array.array("i", [0])
    print(socket.sendmsg(parts, [(1, 1, there)]), socket.sendmsg([b""]), socket.send(b""), os.write(socket.fileno(), b""))
def receive(socket):
    socket.shutdown(1); whole, pieces, passed = hashlib.sha256(), [], 0
    while True:
        part, extra, flags, _ = socket.recvmsg(drawn.choice([1, 4096, 70000, 300000, 1000000]), 100)
        whole.update(part); pieces.append(len(part)); passed += len(extra)
        if not part: return whole.hexdigest(), passed, hashlib.sha256(str(pieces).encode()).hexdigest()
one, other = socket.socketpair()
if os.fork() == 0:
    one.close(); send(other); sys.stdout.flush(); os._exit(0)
other.close()
told = receive(one)
print(open("told").read(), end="")
print(told[0] == hashlib.sha256(message * 4).hexdigest(), told)
# Two threads send at the same time.
one, other = socket.socketpair()
def both(): threads = [threading.Thread(target=other.sendall, args=[bytes([n]) * 500000]) for n in range(2)]; [thread.start() for thread in threads]; [thread.join() for thread in threads]; other.shutdown(1)
threading.Thread(target=both).start()
print(receive(one))
# A handler runs meanwhile; one that does not want the call to go on ends it.
one, other = socket.socketpair()
caught = []
def handler(*_): caught.append(os.write(other.fileno(), b"x" * 400000))
signal.signal(signal.SIGUSR1, handler); signal.siginterrupt(signal.SIGUSR1, False)
sender = os.getpid()
if os.fork() == 0:
    other.close(); os.kill(sender, signal.SIGUSR1); told = receive(one); os._exit(0)
one.close(); other.sendall(message); other.close()
print(caught, os.wait()[1])
# Nobody reads any more.
one, other = socket.socketpair()
if os.fork() == 0:
    other.close(); one.recv(10); os._exit(0)
one.close()
signal.signal(signal.SIGPIPE, lambda *_: caught.append("pipe"))
try: print("sent some:", os.write(other.fileno(), message) < len(message))
except OSError as error: print(error)
try: os.write(other.fileno(), message)
except OSError as error: print(error)
print(caught[1:])
# No room, and nobody waits.
one, other = socket.socketpair(); other.setblocking(False)
print(other.send(message) < len(message))
try: other.send(message)
except OSError as error: print(error)
other.settimeout(5)
try: other.sendall(message)
except OSError as error: print(error)
END
python3 sockets.py
"#,
    );
    let told: Vec<&str> = said.lines().collect();
    assert_eq!(
        told[..2],
        ["1500000 1500000 1500000", "1500000 0 0 0"],
        "{said}"
    );
    assert!(told[2].starts_with("True ("), "{said}");
    assert_eq!(told[4], "[400000] 0", "{said}");
    let ends = [
        "sent some: True",
        "[Errno 32] Broken pipe",
        "['pipe']",
        "True",
        "[Errno 11] Resource temporarily unavailable",
        "timed out",
    ];
    assert_eq!(told[5..], ends, "{said}");
}

#[test]
fn whom_a_signal_finds_and_who_meets_at_a_fifo_is_the_same() {
    same_under_load(
        r#"
mkfifo meet; for i in 1 2 3 4; do (echo $i > meet; echo through $i >> log) & done
cat < meet >> log; wait; cat log
cat > signals.py <<'END'
import os, signal, sys, threading, time
told = []
for number in signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM:
    signal.signal(number, lambda number, frame: told.append(number))
main = os.getpid()
reader, writer = os.pipe()
def wait(name):
    for _ in range(20): told.append(name + os.read(reader, 1).hex())
threads = [threading.Thread(target=wait, args=[name]) for name in "ab"]
for thread in threads: thread.start()
if os.fork() == 0:
    for n in range(40):
        os.kill(main, [signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM][n % 3])
        os.write(writer, bytes([n]))
    os._exit(0)
for thread in threads: thread.join()
children = [os.fork() for _ in range(1)]
if children[0] == 0:
    while True: time.sleep(1)
os.kill(children[0], signal.SIGKILL)
print(told, os.wait()[1], os.wait()[1])
END
python3 signals.py
"#,
    );
}

/// A thread that waits for another without ever giving way.
#[test]
fn a_spin_loop_is_an_error_that_names_thread_and_place() {
    let failed = Probe::new(
        "strict",
        "gcc -O1 -w -pthread -o spinning-9c1 /src/spin.c; ./spinning-9c1",
    )
    .with("timeout = \"90s\"")
    .fails();
    println!("{}", failed.said);
    assert_eq!(failed.exit, Some(7), "{}", failed.said);
    assert!(
        failed.said.contains("(`waiter`) runs without end at 0x"),
        "{}",
        failed.said
    );
    assert!(
        failed.said.contains("(`spinning-9c1`) thread ")
            && failed.said.contains("another of its process waits"),
        "{}",
        failed.said
    );
    let place = failed
        .log
        .lines()
        .find_map(|line| line.strip_prefix("loop at "));
    let place = place.unwrap_or_else(|| panic!("{}", failed.log));
    let start = u64::from_str_radix(place.trim_start_matches("0x"), 16).expect("an address");
    let told = failed
        .said
        .split(" at 0x")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let told = u64::from_str_radix(told.expect("a place"), 16).expect("an address");
    assert!(
        (start..start + 256).contains(&told),
        "{told:#x} is not near {start:#x}"
    );
    assert!(failed.real < Duration::from_secs(30), "{:?}", failed.real);
    none_runs("spinning-9c1");
}

/// One that gives way is waited for.
#[test]
fn a_loop_that_yields_or_sleeps_or_computes_for_long_is_none() {
    let told = Probe::new(
        "strict",
        "gcc -O1 -w -pthread -o spin /src/spin.c; ./spin yield; ./spin sleep; ./spin compute",
    )
    .run();
    assert!(told.log.ends_with("computed"), "{}", told.log);
}

/// What waits for another process in shared memory spins, too.
#[test]
fn a_spin_loop_between_processes_ends() {
    let failed = Probe::new(
        "strict",
        "gcc -O1 -w -pthread -o spinning-9c2 /src/spin.c; ./spinning-9c2 process",
    )
    .with("timeout = \"90s\"")
    .fails();
    assert_eq!(failed.exit, Some(7), "{}", failed.said);
    assert!(
        failed.said.contains("(`spinning-9c2`) thread ")
            && failed.said.contains("runs without end at 0x")
            && failed
                .said
                .contains("a process that shares memory with it waits"),
        "{}",
        failed.said
    );
    assert!(failed.real < Duration::from_secs(30), "{:?}", failed.real);
    none_runs("spinning-9c2");
}
