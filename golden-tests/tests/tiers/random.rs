//! Checks 2, 6 and 7: random bytes are many, differ from each other, and are the same twice.

use crate::probe::{Probe, VIRTUAL, log, number, same_log, value};

/// The values of lines `name value`; all must differ.
#[track_caller]
fn all_differ(said: &str, at_least: usize) {
    let mut values: Vec<&str> = said
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(_, value)| value)
        .collect();
    let count = values.len();
    assert!(count >= at_least, "{said}");
    values.sort_unstable();
    values.dedup();
    assert_eq!(values.len(), count, "two are the same:\n{said}");
}

const RANDOM: &str = r#"
hex() { od -An -tx1 | tr -d ' \n'; }
for i in 1 2; do
  echo urandom-$i $(head -c 8 /dev/urandom | hex)
  echo random-$i $(head -c 8 /dev/random | hex)
  echo uuid-$i $(cat /proc/sys/kernel/random/uuid)
  echo uuidgen-$i $(uuidgen -r)
  echo uuidgen-time-$i $(uuidgen -t)
  echo mktemp-$i $(mktemp -u)
  echo srandom-$i $(bash -c 'echo $SRANDOM')
  echo bash-$i $(bash -c 'echo $RANDOM $RANDOM $RANDOM')
  echo perl-$i $(perl -e 'print rand')
  echo openssl-$i $(openssl rand -hex 8)
  echo sqlite-$i $(sqlite3 :memory: 'select random()')
  echo shuf-$i $(shuf -i 1-100000 -n 3)
  python3 - $i <<'END'
import os, random, secrets, sys, uuid
for name, make in [("os", lambda: os.urandom(8).hex()), ("uuid1", uuid.uuid1), ("uuid4", uuid.uuid4),
                   ("random", random.random), ("secrets", lambda: secrets.token_hex(8))]:
    for time in "ab":
        print(f"python-{name}-{sys.argv[1]}{time} {make()}")
print(f"python-hash-{sys.argv[1]} {hash('a')}")
END
done
"#;

#[test]
fn random_values_differ_from_each_other_and_are_the_same_twice() {
    for tier in VIRTUAL {
        all_differ(&same_log(tier, RANDOM), 46);
    }
}

#[test]
fn the_control_has_other_values_each_time() {
    assert_ne!(log("isolated", RANDOM), log("isolated", RANDOM));
}

/// Threads and children each have their own bytes.
#[test]
fn no_two_threads_or_processes_get_the_same_bytes() {
    let script = r#"
python3 - <<'END'
import os, threading
found = {}
def ask(name): found[name] = os.getrandom(8).hex()
threads = [threading.Thread(target=ask, args=[f"thread-{n}"]) for n in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
ask("main")
for name in sorted(found): print(name, found[name], flush=True)
for n in range(4):
    if os.fork() == 0:
        print(f"child-{n}", os.getrandom(8).hex(), flush=True)
        os._exit(0)
    os.wait()
print("after", os.getrandom(8).hex())
END
"#;
    for tier in VIRTUAL {
        all_differ(&same_log(tier, script), 14);
    }
}

#[test]
fn the_random_devices_are_devices_and_never_run_dry() {
    let script = r#"
echo count $(head -c 1000000 /dev/urandom | wc -c)
echo distinct $(head -c 1000000 /dev/urandom | od -An -v -tx8 -w8 | sort -u | wc -l)
for name in urandom random; do
  echo $name-kind $(stat -c %F /dev/$name)
  echo $name-numbers $(stat -c %t,%T /dev/$name)
  echo $name-fstat $(stat -L -c %F /dev/stdin < /dev/$name)
done
[ "$(head -c 8 /dev/urandom | od -An -tx1)" = "$(head -c 8 /dev/urandom | od -An -tx1)" ] || echo opens differ
python3 - <<'END'
import os, stat, mmap
one = os.open("/dev/urandom", os.O_RDONLY)
two = os.dup(one)
print("character-device", stat.S_ISCHR(os.fstat(one).st_mode))
print("duplicates-differ", os.read(one, 16) != os.read(two, 16))
try:
    os.pread(one, 16, 0)
except OSError as error:
    print("pread", error.errno)
try:
    os.lseek(one, 0, os.SEEK_SET)
except OSError as error:
    print("seek", error.errno)
print("long-read", len(open(one, "rb").read(300000)))
import select
fd = os.open("/dev/urandom", os.O_RDONLY | os.O_NONBLOCK)
print("ready", bool(select.select([fd], [], [], 0)[0]))
with open("/dev/urandom", "wb", buffering=0) as device: print("written", device.write(b"seed"))
both = os.open("/dev/urandom", os.O_RDWR)
print("both-ways", os.write(both, bytes(500000)), len(os.read(both, 300000)))
print("at-once", len(os.read(one, 1000000)))
try:
    mmap.mmap(one, 4096, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
except OSError as error:
    print("map", error.errno)
END
dd if=/dev/urandom of=out bs=300k count=2 status=none
echo whole-blocks $(stat -c %s out)
dd if=/dev/urandom of=out bs=64k count=3 iflag=fullblock status=none
echo copied $(stat -c %s out)
cp --sparse=never /dev/null out
timeout 20 dd if=/dev/random bs=1 count=5 status=none | wc -c
"#;
    for tier in VIRTUAL {
        let said = same_log(tier, script);
        let expected = "count 1000000
distinct 125000
urandom-kind character special file
urandom-numbers 1,9
urandom-fstat character special file
random-kind character special file
random-numbers 1,8
random-fstat character special file
opens differ
character-device True
duplicates-differ True
pread 29
seek 29
long-read 300000
ready True
written 4
both-ways 500000 300000
at-once 1000000
map 19
whole-blocks 614400
copied 196608
5";
        assert_eq!(said, expected, "under `{tier}`");
    }
}

/// However the device is named, its bytes are random.
#[test]
fn the_random_device_is_known_by_every_name() {
    let script = r#"
hex() { head -c 16 "$1" | od -An -tx1 | tr -d ' \n'; }
ln -s /dev/urandom soft; ln -s /dev devices; ln -s soft softer
echo plain $(hex /dev/urandom)
echo slashes $(hex //dev//urandom)
echo dots $(hex /dev/../dev/./urandom)
echo soft $(hex soft)
echo softer $(hex softer)
echo through $(hex devices/random)
echo relative $(cd /dev; hex urandom)
echo above $(cd /dev/shm; hex ../urandom)
echo process $(hex /proc/self/root/dev/urandom)
echo input $(hex /dev/stdin < /dev/urandom)
echo descriptor $(hex /proc/self/fd/7 7< /dev/urandom)
echo perl $(perl -e 'sysopen F, "soft", 0; sysread F, $b, 16; print unpack "H*", $b')
"#;
    for tier in VIRTUAL {
        let said = log(tier, script);
        assert!(
            !said.contains("0000000000000000"),
            "under `{tier}`:\n{said}"
        );
        all_differ(&said, 12);
    }
}

/// A step that has mounts of its own may mount the device where it likes.
#[test]
fn a_random_device_that_is_mounted_again_is_random() {
    let script = r#"
hex() { head -c 16 "$1" | od -An -tx1 | tr -d ' \n'; }
touch one two zero; mkdir root root/dev; touch root/dev/urandom root/other
mount --bind /dev/urandom one
mount --bind one two
mount --bind /dev/urandom root/other
mount --bind /dev/zero zero
echo one $(hex one)
echo two $(hex /work/two)
echo long $(dd if=one bs=300k count=1 status=none | wc -c)
echo relative $(cd root; hex other)
echo zero $(hex zero)
"#;
    for tier in VIRTUAL {
        let said = same_log(
            tier,
            &format!("cat > script <<'END'\n{script}END\nunshare -rm sh -eu script"),
        );
        assert_eq!(value(&said, "zero"), "0".repeat(32), "under `{tier}`");
        assert_eq!(value(&said, "long"), "307200", "under `{tier}`");
        for name in ["one", "two", "relative"] {
            assert_ne!(value(&said, name), "0".repeat(32), "under `{tier}`: {said}");
        }
        all_differ(&said, 5);
    }
}

#[test]
fn a_private_key_made_in_a_step_is_warned_of() {
    let script = "openssl genrsa -out rsa.pem 2048; ssh-keygen -q -N '' -t ed25519 -f id; \
                  openssl ecparam -name prime256v1 -genkey -noout -out ec.pem";
    for tier in VIRTUAL {
        let mut told = Probe::new(tier, script).run();
        told.warnings.sort();
        let names = [
            ("openssl ecparam", "/work/ec.pem"),
            ("openssl genrsa", "/work/rsa.pem"),
            ("ssh-keygen -q", "/work/id"),
        ];
        assert_eq!(told.warnings.len(), names.len(), "{:?}", told.warnings);
        for (warning, (program, file)) in told.warnings.iter().zip(names) {
            assert!(
                warning.contains(program)
                    && warning.contains(file)
                    && warning.contains("it is predictable"),
                "{warning}"
            );
        }
    }
    let told = Probe::new("isolated", script).run();
    assert_eq!(told.warnings, Vec::<String>::new(), "there it is a secret");
}

#[test]
fn the_keys_are_the_same_twice() {
    let script = "openssl genrsa -out rsa.pem 2048 2> /dev/null; ssh-keygen -q -N '' -t ed25519 -f id; sha256sum rsa.pem id";
    let said = same_log("deterministic", script);
    assert_eq!(said.lines().count(), 2);
}

/// Another step has other bytes, also where it says the same.
#[test]
fn two_steps_have_different_bytes() {
    let script = "echo bytes $(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' ')";
    let one = log("deterministic", script);
    let two = log("deterministic", &format!("{script}; :"));
    assert_ne!(value(&one, "bytes"), value(&two, "bytes"));
    let numbers = log(
        "deterministic",
        "echo a $(shuf -i 1-1000000000 -n 1); echo b $(shuf -i 1-1000000000 -n 1)",
    );
    assert_ne!(number(&numbers, "a"), number(&numbers, "b"));
}
