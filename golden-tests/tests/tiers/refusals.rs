//! Check 22: other ways into the kernel than the ones that are watched are closed.

use crate::probe::{EPOCH, Probe, VIRTUAL, log, value};

#[test]
fn a_32_bit_program_is_killed_and_says_nothing_of_the_time() {
    let build = "gcc -c -x assembler -Wa,--32 -o old.o /src/time32.s; ld -m elf_i386 -o old old.o;";
    for tier in VIRTUAL {
        let said = log(
            tier,
            &format!("{build} ./old > said 2> /dev/null && echo 0 || echo ended $?; wc -c < said"),
        );
        assert!(said.ends_with("ended 137\n0"), "under `{tier}`: {said}");
        // As the step itself it is a failure with its reason.
        let failed = Probe::new(tier, &format!("{build} exec ./old")).fails();
        assert_eq!(failed.exit, Some(7));
        assert!(
            failed.said.contains("was killed by signal"),
            "{}",
            failed.said
        );
        assert!(
            failed.said.contains("immbuild: `old` is a program of another architecture, as 32-bit ones are, and no step can run those"),
            "{}",
            failed.said
        );
    }
}

/// The calls of other ABIs, from a 64-bit program.
#[test]
fn no_other_way_into_the_kernel_is_open() {
    let script = "gcc -O1 -w -o ways /src/ways.c; for way in int80 x32 io_uring perf userfaultfd bpf adjtimex \
                  clock_adjtime settime rtc; do echo $way $(./ways $way 2> /dev/null || echo ended $?); done";
    for tier in VIRTUAL {
        let said = log(tier, script);
        assert_eq!(value(&said, "int80"), "ended 159", "{said}");
        for absent in ["x32", "io_uring", "perf", "userfaultfd", "bpf"] {
            assert_eq!(
                value(&said, absent),
                "Function not implemented",
                "{absent}: {said}"
            );
        }
        for time in ["adjtimex", "clock_adjtime"] {
            let text = value(&said, time);
            let virtually = text
                .parse()
                .is_ok_and(|time| (EPOCH..EPOCH + 60).contains(&time));
            assert!(virtually || text == "Operation not permitted", "{said}");
        }
        assert_eq!(value(&said, "settime"), "Operation not permitted");
        assert_ne!(value(&said, "rtc"), "there", "{said}");
    }
}
