//! Checks 10, 11, 12 and 18: numbers, order and times of files, and what build tools make of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use immbuild_cas::tree::Change;

use crate::probe::{Probe, VIRTUAL, log, same_log, value};

/// `make`, `ninja` under cmake and automake: the second run does nothing, and a touched source makes exactly what it is
/// part of.
const PROJECT: &str = r#"
mkdir project; cd project
echo 'int one(void);' > one.h
echo '#include "one.h"
int one(void) { return 1; }' > one.c
echo 'int two(void) { return 2; }' > two.c
echo '#include "one.h"
int main(void) { return one() - 1; }' > main.c
"#;

#[test]
fn make_builds_what_changed_and_nothing_else() {
    let script = format!(
        "{PROJECT}{}",
        r#"
cat > Makefile <<'END'
app: main.o one.o two.o
	@echo made $@; gcc -o $@ $^
%.o: %.c
	@echo made $@; gcc -MMD -c $<
-include $(wildcard *.d)
END
again() { echo "$1" $(make 2>&1 | grep -v 'Nothing\|up to date'); }
again first
again second
touch two.c
again two
again second-two
echo 'int one(void); int other(void);' > one.h
again header
again second-header
sleep 1
sed -i s/2/3/ two.c
again edited
again second-edited
cp -p app saved; mv saved app
again moved
touch -d '1 hour ago' two.c
again older
touch -d '1 hour' two.c
again future || true
"#
    );
    for tier in VIRTUAL {
        let said = same_log(tier, &script);
        assert_eq!(
            value(&said, "first"),
            "made main.o made one.o made two.o made app"
        );
        assert_eq!(value(&said, "two"), "made two.o made app");
        assert_eq!(value(&said, "header"), "made main.o made one.o made app");
        assert_eq!(value(&said, "edited"), "made two.o made app");
        for nothing in [
            "second",
            "second-two",
            "second-header",
            "second-edited",
            "moved",
            "older",
        ] {
            assert!(
                said.lines().any(|line| line.trim_end() == nothing),
                "under `{tier}`, `{nothing}` made something:\n{said}"
            );
        }
        assert!(
            value(&said, "future").contains("made two.o made app"),
            "{said}"
        );
    }
}

#[test]
fn cmake_and_ninja_build_what_changed_and_nothing_else() {
    let script = format!(
        "{PROJECT}{}",
        r#"
printf 'cmake_minimum_required(VERSION 3.20)\nproject(app C)\nadd_executable(app main.c one.c two.c)\n' > CMakeLists.txt
for by in Ninja 'Unix Makefiles'; do
  rm -rf out
  cmake -G "$by" -S . -B out > /dev/null
  again() { echo "$1" $(cmake --build out -j1 | grep -o 'Building C object [^ ]*/[a-z]*.c.o\|Linking C executable [a-z]*\|no work to do\|Re-running' | sed 's,.*/,,'); }
  again "$by-first"
  again "$by-second"
  touch two.c
  again "$by-two"
  again "$by-second-two"
  touch one.h
  again "$by-header"
  touch CMakeLists.txt
  cmake --build out > /dev/null
  again "$by-after-cmake"
done
"#
    );
    for tier in VIRTUAL {
        let said = log(tier, &script);
        for by in ["Ninja", "Unix Makefiles"] {
            let of = |name: &str| {
                let name = format!("{by}-{name}");
                let line = said.lines().find_map(|line| line.strip_prefix(&name));
                let line = line.unwrap_or_else(|| panic!("no {name} in\n{said}"));
                line.trim().replace("no work to do", "")
            };
            let mut first: Vec<String> = of("first").split(' ').map(str::to_owned).collect();
            first.sort();
            assert_eq!(
                first,
                [
                    "C",
                    "Linking",
                    "app",
                    "executable",
                    "main.c.o",
                    "one.c.o",
                    "two.c.o"
                ]
            );
            assert_eq!(of("second"), "", "under `{tier}`\n{said}");
            assert_eq!(of("two"), "two.c.o Linking C executable app");
            assert_eq!(of("second-two"), "");
            let mut header: Vec<String> = of("header").split(' ').map(str::to_owned).collect();
            header.sort();
            assert_eq!(
                header,
                ["C", "Linking", "app", "executable", "main.c.o", "one.c.o"]
            );
            assert_eq!(of("after-cmake"), "", "under `{tier}`\n{said}");
        }
    }
}

#[test]
fn an_autotools_project_passes_its_sanity_check_and_builds_what_changed() {
    let script = format!(
        "{PROJECT}{}",
        r#"
cat > configure.ac <<'END'
AC_INIT([app], [1])
AM_INIT_AUTOMAKE([foreign])
AC_PROG_CC
AC_CONFIG_FILES([Makefile])
AC_OUTPUT
END
printf 'bin_PROGRAMS = app\napp_SOURCES = main.c one.c two.c one.h\n' > Makefile.am
autoreconf -i 2> /dev/null
./configure | grep 'sane\|clock'
again() { echo "$1" $(make 2>&1 | grep -o 'gcc.* -o [a-z]*\(\.o\)\?\|configure\|aclocal\|automake' | sed 's/.* //'); }
again first
again second
touch two.c
again two
again second-two
touch Makefile.am
make > /dev/null
again after-am
make -s distdir
make -s -C . install DESTDIR=$PWD/to
"#
    );
    for tier in VIRTUAL {
        let said = log(tier, &script);
        assert!(
            said.contains("checking whether build environment is sane... yes"),
            "{said}"
        );
        let line = |name: &str| {
            let mut lines = said
                .lines()
                .map(|line| line.split_once(' ').unwrap_or((line, "")));
            let found = lines.find(|(first, _)| *first == name);
            found.unwrap_or_else(|| panic!("{said}")).1.to_owned()
        };
        assert_eq!(line("first"), "main.o one.o two.o app", "{said}");
        assert_eq!(line("second"), "");
        assert_eq!(line("two"), "two.o app");
        assert_eq!(line("second-two"), "");
        assert_eq!(line("after-am"), "", "{said}");
    }
}

#[test]
fn file_times_are_ordered_as_they_were_written() {
    let script = r#"
for i in 1 2 3 4 5 6 7 8 9; do echo $i > f$i; done
echo by-time $(ls -tr f*)
for a in 1 2 3 4 5 6 7 8; do [ f$((a + 1)) -nt f$a ] || echo f$a is not older; done
ln f1 linked; [ ! linked -nt f1 ] && [ ! f1 -nt linked ] && echo links have one time
cp -p f3 copied; [ ! copied -nt f3 ] && [ ! copied -ot f3 ] && echo a copy keeps it
touch -r f5 f2; [ ! f2 -nt f5 ] && [ ! f5 -nt f2 ] && echo set by another
touch -d @1000000000.123456789 f4; stat -c 'set %y' f4
[ /etc/passwd -ot f1 ] && echo older than the step
echo more >> f1; [ f1 -nt f9 ] && echo appended is newest
mv f9 renamed; [ renamed -ot f1 ] && echo a new name is no new time
mkdir d; before=$(stat -c %y d); echo x > d/x; [ "$(stat -c %y d)" != "$before" ] && echo a directory changes
"#;
    for tier in VIRTUAL {
        assert_eq!(
            same_log(tier, script),
            "by-time f1 f2 f3 f4 f5 f6 f7 f8 f9
links have one time
a copy keeps it
set by another
set 2001-09-09 01:46:40.123456789 +0000
older than the step
appended is newest
a new name is no new time
a directory changes",
            "under `{tier}`"
        );
    }
}

#[test]
fn a_mount_has_one_number_in_the_form_that_is_asked_for() {
    let script = "gcc -O1 -w -o mount /src/mount.c; ./mount; rm mount
sed 's/^/mountinfo /' /proc/self/mountinfo
echo fdinfo $(grep mnt_id /proc/self/fdinfo/0 < /etc/passwd)";
    for tier in VIRTUAL {
        let said = same_log(tier, script);
        let mut masks = BTreeMap::<&str, Vec<&str>>::new();
        let mut numbers = BTreeMap::<&str, BTreeSet<&str>>::new();
        let mut table = BTreeMap::<&str, &str>::new();
        for line in said.lines() {
            match line.split(' ').collect::<Vec<&str>>()[..] {
                ["mountinfo", number, _, _, _, point, ..] => {
                    assert_eq!(
                        table.insert(number, point),
                        None,
                        "two of one number: {said}"
                    );
                }
                ["fdinfo", _, number] => {
                    numbers.entry("/").or_default().insert(number);
                }
                [what, mask, number] => {
                    masks.entry(what).or_default().push(mask);
                    numbers.entry(what).or_default().insert(number);
                }
                _ => panic!("under `{tier}`: {line}"),
            }
        }
        // systemd takes nothing less since its version 258.
        let once = [
            "1fff", "1fff", "1fff", "1fff", "4fff", "4fff", "4fff", "4fff",
        ];
        for (path, masks) in masks {
            assert_eq!(masks, [once, once].concat(), "{path} under `{tier}`");
        }
        let mount = |path: &str| match Vec::from_iter(&numbers[path])[..] {
            [number] => table.get(number).copied(),
            ref several => panic!("{path} under `{tier}`: {several:?}"),
        };
        // A file that is mounted alone is shown on what is around it.
        for (path, point) in [
            ("/", "/"),
            ("/usr/bin/env", "/"),
            ("/work", "/"),
            ("new", "/"),
            ("/etc/hosts", "/"),
            ("/dev/null", "/dev"),
            ("/proc", "/proc"),
            ("/proc/self/status", "/proc"),
            ("/proc/cpuinfo", "/proc"),
            ("/sys", "/sys"),
            ("/tmp", "/tmp"),
        ] {
            assert_eq!(mount(path), Some(point), "{path} under `{tier}`\n{said}");
        }
    }
}

#[test]
fn a_directory_says_the_inode_numbers_that_stat_says() {
    let script = r#"
mkdir -p deep/er; for i in $(seq 300); do echo > deep/er/file-$i; done; ln deep/er/file-1 deep/hard; ln -s nowhere deep/soft
python3 - <<'END'
import os
count = 0
seen = {}
wrong = []
order = []
for top in ["/work", "/usr", "/etc", "/var"]:
    for directory, names, files in os.walk(top):
        listed = [entry for entry in os.scandir(directory)]
        if [entry.name for entry in listed] != sorted(entry.name for entry in listed):
            order.append(directory)
        for entry in listed:
            status = os.lstat(entry.path)
            count += 1
            if entry.inode() != status.st_ino: wrong.append((entry.path, entry.inode(), status.st_ino))
            if status.st_nlink == 1 or os.path.isdir(entry.path):
                key = (status.st_dev, status.st_ino)
                if key in seen: wrong.append(("twice", seen[key], entry.path))
                seen[key] = entry.path
print("many", count > 10000)
print("wrong", len(wrong), wrong[:5])
print("unsorted", len(order), order[:5])
one, two = os.stat("deep/hard"), os.stat("deep/er/file-1")
print("hard", one.st_ino == two.st_ino, one.st_nlink)
print("fstat", os.fstat(os.open("deep/hard", os.O_RDONLY)).st_ino == one.st_ino)
END
"#;
    for tier in VIRTUAL {
        assert_eq!(
            log(tier, script),
            "many True\nwrong 0 []\nunsorted 0 []\nhard True 2\nfstat True",
            "under `{tier}`"
        );
    }
}

#[test]
fn what_a_step_says_of_files_is_in_the_tree() {
    let script = r#"
echo a > file; ln file hard; ln -s file soft; mkfifo pipe
chown 7:8 file; chmod 4755 file
mkdir group; chmod 2775 group; mkdir -m 1777 sticky
echo b > set; chown 0:42 set; chmod 6711 set
python3 - <<'END'
import os
os.setxattr("set", "user.note", b"hello")
os.setxattr("set", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
print("capability", os.getxattr("set", "security.capability").hex())
END
stat -c '%n %a %u:%g %h' file hard set group sticky
"#;
    for tier in VIRTUAL {
        let told = Probe::new(tier, script).run();
        assert_eq!(
            told.log,
            "capability 0100000200040000000000000000000000000000
file 4755 7:8 2
hard 4755 7:8 2
set 6711 0:42 1
group 2775 0:0 1
sticky 1777 0:0 1",
            "under `{tier}`"
        );
        let changes = told.changes();
        let meta = |name: &str| match &changes[name] {
            Change::File(file) => &file.meta,
            Change::Directory(meta) => meta,
            other => panic!("{name} is {other:?}"),
        };
        let shown: Vec<(&str, String)> = ["/work/file", "/work/set", "/work/group", "/work/sticky"]
            .map(|name| {
                let meta = meta(name);
                (
                    name,
                    format!("{:?} {:?}:{:?}", meta.mode, meta.uid, meta.gid),
                )
            })
            .into();
        assert_eq!(shown.len(), 4);
        assert_eq!(
            told.links().get("/work/hard").map(String::as_str),
            Some("/work/file")
        );
        assert!(matches!(changes["/work/soft"], Change::Symlink(_)));
        assert!(matches!(changes["/work/pipe"], Change::Special(_)));
        let attributes = format!("{:?}", meta("/work/set"));
        assert!(attributes.contains("capability"), "{attributes}");
        assert!(attributes.contains("user.note"), "{attributes}");
    }
}

#[test]
fn a_device_is_refused_and_never_dropped() {
    for tier in VIRTUAL {
        let failed = Probe::new(tier, "mknod null c 1 3").fails();
        assert_eq!(failed.exit, Some(7));
        assert!(
            failed.said.contains("mknod: null: Operation not permitted"),
            "{}",
            failed.said
        );
    }
}

#[test]
fn archives_and_repositories_are_the_same_twice() {
    let script = r#"
mkdir tree; for i in c a b; do echo $i > tree/$i; done
tar czf tree.tgz tree
zip -qr tree.zip tree
echo 'int f(void) { return 1; }' > f.c; gcc -c f.c; ar rcU libf.a f.o
cd tree; git init -q .; git config user.email a@b; git config user.name a; git add .; git commit -qm one; git rev-parse HEAD; cd ..
echo 'x = 1' > mod.py; python3 -c 'import mod'
python3 -m zipfile -c p.zip tree/a; echo a | gzip > a.gz
find . -type f | sort | xargs sha256sum
"#;
    let said = same_log("deterministic", script);
    assert!(
        said.contains("tree/.git/index") && said.contains("__pycache__/mod"),
        "{said}"
    );
    // The control.
    assert_ne!(log("isolated", script), log("isolated", script));
}

/// What is renamed keeps its number, and what then takes its place has another.
#[test]
fn a_directory_that_is_emptied_while_it_is_read_is_read_to_its_end() {
    let script = "mkdir d; cd d; seq 5000 | split -l 1 -a 4 -d; cd ..
        python3 -c 'import os
for entry in os.scandir(\"d\"): os.unlink(entry.path)
os.rmdir(\"d\")
print(\"empty\")'";
    for tier in VIRTUAL {
        assert_eq!(Probe::new(tier, script).run().log, "empty");
    }
}

#[test]
fn two_files_never_share_a_number() {
    let script = r#"
echo one > new; stat -c 'first %i' new; mv new old
echo two > new; [ new -ef old ] && echo they seem to be the same
mv -f new old; cat old
for i in 1 2 3 4 5; do echo $i > same; stat -c %i same; mv same kept-$i; done > numbers
sort -u numbers | wc -l
mkdir d; mv d e; mkdir d; [ d -ef e ] && echo the directories seem to be the same
ln -s a l; mv l m; ln -s b l; [ "$(stat -c %i l)" != "$(stat -c %i m)" ] && echo links differ
sed -i s/two/three/ old; cat old
"#;
    for tier in VIRTUAL {
        let said = same_log(tier, script);
        let (_, rest) = said.split_once('\n').expect("lines");
        assert_eq!(rest, "two\n5\nlinks differ\nthree", "under `{tier}`");
    }
}

/// coreutils' `cp` and `install`, and `shutil`, look at a file by its name and again when it is open: if it is another, they give up.
#[test]
fn a_file_of_ours_is_the_same_by_its_name_and_when_it_is_open() {
    let script = r#"
for file in /proc/sys/kernel/random/uuid /proc/uptime /proc/self/status /proc/mounts /dev/urandom; do
  python3 - $file <<'END'
import os, sys
named = os.stat(sys.argv[1])
with open(sys.argv[1], "rb") as file:
    opened = os.fstat(file.fileno())
again = os.stat(sys.argv[1])
print(sys.argv[1], named == opened == again, *(n for n in dir(named) if n.startswith("st_") and getattr(named, n) != getattr(opened, n)))
END
done
install -m 600 /proc/sys/kernel/random/uuid secret
cp /proc/uptime uptime
echo copied $(wc -c < secret) $(wc -l < uptime)
"#;
    for tier in VIRTUAL {
        let said = same_log(tier, script);
        for name in [
            "/proc/sys/kernel/random/uuid",
            "/proc/uptime",
            "/proc/self/status",
            "/proc/mounts",
            "/dev/urandom",
        ] {
            assert_eq!(value(&said, name), "True", "{tier:?}");
        }
        assert_eq!(value(&said, "copied"), "37 1");
    }
}

/// What is mounted for a step is made a moment before it starts, and a file system's clock may tick between the two or not.
#[test]
fn what_is_seen_of_the_surroundings_does_not_depend_on_the_moment() {
    let script = r#"
        stat -c '%n %Y %Z %W %i %d %h %u:%g %f %s' / /* /dev/* /proc/* /proc/self/* /proc/self/ns/* /sys/* /etc/* || true
        echo > /file; stat -c 'file %.9Y' /file
    "#;
    for tier in VIRTUAL {
        let first = log(tier, script);
        assert!(first.contains("/proc/iomem") && first.contains("/dev/null"));
        for _ in 1..12 {
            let next = log(tier, script);
            let other: Vec<(&str, &str)> = std::iter::zip(first.lines(), next.lines())
                .filter(|(one, other)| one != other)
                .collect();
            assert!(next == first, "{tier}: {other:#?}");
        }
    }
}

/// Where a process has a root or mounts of its own, its files are those that others see.
#[test]
fn files_are_the_same_ones_behind_another_root() {
    let script = r#"
echo > /old; ln -s /old /link
look() { "$@" stat -L -c '%n %i %.9Y %h %b' /old /link /usr/bin/env /etc /; }
look env > here
look chroot / > rooted; look unshare -rm > mounted; look unshare -r > mapped
chroot /nowhere true 2> /dev/null || true
look env > after
for other in rooted mounted mapped after; do cmp here $other && echo $other same; done
mkdir -p /small/dir; echo > /small/target; ln -s /target /small/dir/link; mkdir -p /small/usr; cp -a /usr/bin /small/usr
cp -a /lib /lib64 /bin /small; cp -a /usr/lib64 /small/usr; mkdir /small/usr/lib; cp -a /usr/lib/*-linux-gnu /small/usr/lib
stat -c '%i %.9Y' /small/target > outside
chroot /small sh -c 'cd /dir; stat -L -c "%i %.9Y" link' > inside
cmp outside inside && echo link same
chroot /small sh -c 'echo > /dir/new; rm /dir/new'
chroot /small stat -c '%.9Y' /dir > inside; stat -c '%.9Y' /small/dir > outside; cmp outside inside && echo directory same
"#;
    for tier in VIRTUAL {
        let said = same_log(tier, script);
        for name in ["rooted", "mounted", "mapped", "after", "link", "directory"] {
            assert_eq!(value(&said, name), "same", "{tier}: {said}");
        }
    }
}

/// Sets it, also when a test fails.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// When memory is short the kernel forgets names and inodes, and an overlay finds its directories and copies anew.
#[test]
fn files_are_known_again_when_memory_is_short() {
    let script = r#"
for round in $(seq 40); do
  for file in /etc/ld.so.conf /etc/passwd /var/lib/dpkg/*; do test -f $file || continue
    exec 3<> $file; exec 3>&-; touch -c -r $file $file
  done
  stat -c '%n %i %.9Y' / /etc /usr /usr/* /var/lib/dpkg /var/lib/dpkg/* /etc/ld.so.conf /etc/passwd > round.$round
  echo $round > /etc/new; rm /etc/new
done
cmp round.1 round.2 || true; sha256sum round.*
"#;
    for tier in VIRTUAL {
        let first = log(tier, script);
        let over = AtomicBool::new(false);
        let again = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::fs::write("/proc/sys/vm/drop_caches", "2").expect("root may");
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
            });
            let _set = OnDrop(&over);
            log(tier, script)
        });
        assert_eq!(first, again, "{tier}");
    }
}
