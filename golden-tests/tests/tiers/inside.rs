//! What a process answers itself is what the tracer would have said. Where threads take turns no process does.

use crate::probe::Probe;

/// Says the same in both tiers, the second time in the first as well.
fn the_same(script: &str) -> String {
    let said = |tier| {
        let told = Probe::new(tier, script).run();
        (told.log, told.tree)
    };
    let strict = said("strict");
    for _ in 0..2 {
        assert_eq!(said("deterministic"), strict, "{script}");
    }
    strict.0
}

#[test]
fn files_that_nobody_has_changed() {
    let said = the_same(
        "ls -laiR --time-style=full-iso /usr/share/doc/l* /etc
         find /usr/lib/python3 /usr/share/perl -printf '%i %T@ %C@ %A@ %s %n %b %m %U %G %D %F %p\\n'
         stat /usr/share/* /usr/bin/python3 /etc/localtime
         python3 - <<'END'
import os
for directory, _, names in os.walk('/usr/share/python3'):
    for name in names:
        path = os.path.join(directory, name)
        print(path, os.stat(path), os.lstat(path))
        file = os.open(path, os.O_RDONLY)
        print(os.fstat(file))
        os.close(file)
END
         ls -i /usr/bin/env /; readlink -f /bin/sh; readlink /proc/self/exe /proc/self/ns/uts",
    );
    assert!(said.lines().count() > 1000, "{said}");
}

#[test]
fn what_is_not_a_file_of_the_step_s() {
    let said = the_same(
        "stat -L -c '%F %t %T %i %d' /dev/null /dev/urandom /dev/zero /dev/stdin /proc /proc/self/fd/0 /tmp
         exec 3</etc/passwd; stat -L -c '%F %i %s' /dev/fd/3; head -c 4 <&3
         echo a | stat -L -c %F /dev/stdin
         head -c 8 /dev/urandom | wc -c
         cat /proc/iomem /proc/self/stat /no/such/file '' 2>&1 | cut -c 1-20
         : > /dev/null; cat < /dev/null; echo b >> /dev/null
         mkfifo f; (echo through a fifo > f) & cat f; wait; rm f
         python3 -c 'import os, pty
print(os.ttyname(pty.openpty()[1]), os.ttyname(pty.openpty()[1]))
a = os.open(\"/dev/ptmx\", os.O_RDONLY); print(a)'
         cat /proc/uptime; wc -c < /proc/sys/kernel/random/uuid; head -3 /proc/self/maps",
    );
    assert!(said.contains("character special file 1 3"), "{said}");
}

#[test]
fn files_that_the_step_changes() {
    the_same(
        "cp -a /usr/share/doc/bash d; cd d; all() { ls -lai --time-style=full-iso . .. /etc/passwd /etc /root; }
         all; chmod 600 copyright; all; touch -d @1000 copyright; all; touch copyright; all
         mv copyright c; ln c e; all; rm c; all; echo x >> e; all; : > e; all; mkdir f; all
         touch /etc/passwd; all; chmod 640 /etc/passwd; all; rm -r /root; mkdir /root; all
         python3 -c \"
import os, time
for turn in range(3):
    os.utime('/etc/hostname', ns=(turn, turn))
    print(os.stat('/etc/hostname'), os.stat('/etc/group'))
    with open('/etc/group', 'a') as file: file.write('#')
    print(os.stat('/etc/group'))
\"",
    );
}

#[test]
fn surroundings_in_which_a_process_cannot_answer_itself() {
    let said = the_same(
        "ls -i /usr/bin/env
         (ulimit -v 20000; ls -i /usr/bin/env)
         (ulimit -n 4; ls -i /usr/bin/env)
         (ulimit -s 100; ls -i /usr/bin/env)
         chroot / ls -i /usr/bin/env
         su nobody -s /bin/sh -c 'ls -i /usr/bin/env; cat /etc/shadow || true' 2>&1
         setarch -R ls -i /usr/bin/env
         env -i /bin/ls -i /usr/bin/env",
    );
    let numbers: Vec<&str> = said
        .lines()
        .filter(|line| line.ends_with("/usr/bin/env"))
        .collect();
    assert_eq!(numbers.len(), 8, "{said}");
    assert!(numbers.windows(2).all(|two| two[0] == two[1]), "{said}");
    assert!(said.contains("Permission denied"), "{said}");
}

#[test]
fn a_signal_s_handler_may_ask_at_the_same_place() {
    let said = the_same("gcc -O1 -o asks /src/asks.c && ./asks; rm asks");
    assert_eq!(said, "1 number for 20000 questions");
}
