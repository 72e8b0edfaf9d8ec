//! `immbuild supervise`: a command as it is without it, in the words and numbers of a command runner.

use std::process::{Command, Output, Stdio};

use golden_tests::lab::immbuild;

fn supervise(arguments: &[&str]) -> Output {
    let mut command = Command::new(immbuild());
    command
        .arg("supervise")
        .args(arguments)
        .stdin(Stdio::null());
    command.output().unwrap()
}

fn told(output: &Output) -> (Option<i32>, String) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

#[test]
fn the_code_is_the_commands_or_its_signals() {
    for (script, code) in [("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", 143)] {
        let output = supervise(&["--", "sh", "-c", script]);
        assert_eq!(told(&output), (Some(code), String::new()), "{script}");
    }
}

#[test]
fn a_program_that_is_missing_is_127_and_one_that_is_none_is_126() {
    for (program, code, cause) in [
        ("no-such-program-9c1", 127, "No such file or directory"),
        ("/nowhere/at/all", 127, "No such file or directory"),
        ("/etc/passwd", 126, "Permission denied"),
        ("/etc", 126, "Permission denied"),
    ] {
        for tier in [&[][..], &["--strict"]] {
            let output = supervise(&[tier, &["--", program]].concat());
            let (exit, said) = told(&output);
            assert_eq!(exit, Some(code), "{program}: {said}");
            assert!(
                said.contains(&format!("cannot execute `{program}`")) && said.contains(cause),
                "{said}"
            );
            assert!(!said.contains("doctor"), "the machine is well: {said}");
        }
    }
}
