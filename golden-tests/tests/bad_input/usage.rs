//! A command line that asks for what is not there.

use golden_tests::lab::Lab;
use golden_tests::machine::run;

const SPEC: &str = r#"
immbuild = 1

[image]
steps = [
  { write = "/a", text = "a" },
]
"#;

fn refused(arguments: &[&str], exit: i32, message: &str) {
    Lab::new(SPEC).run(arguments).refused(exit, message);
}

#[test]
fn names_that_the_spec_does_not_have() {
    refused(
        &["build", "--stage", "test"],
        2,
        "error: there is no stage `test`\nhint: the stages are image",
    );
    refused(
        &["build", "--arg", "version=2"],
        2,
        "error: the spec declares no argument `version`\nhint: declare it: `args.version = \"…\"` above the first table",
    );
    refused(
        &["build", "--arg", "version"],
        2,
        "error: `--arg version` has no `=`",
    );
    for platform in ["linux/arm64", "amiga"] {
        refused(
            &["build", "--platform", platform],
            2,
            &format!(
                "error: `{platform}` is not a platform of this spec\nhint: it has linux/amd64"
            ),
        );
    }
}

#[test]
fn outputs_that_are_none() {
    for (output, cause) in [
        (
            "image.tar",
            "`image.tar` is none of `kind=…`, `file=…`, `dir=…`, `root=/…`",
        ),
        ("file=image.tar", "it needs `kind=…`"),
        ("kind=oci-archive", "kind `oci-archive` needs `file=…`"),
        ("kind=dir,file=root", "kind `dir` needs `dir=…`"),
        (
            "kind=zip,file=a",
            "there is no kind `zip`: it is one of oci-archive, docker-archive, oci-layout, dir, function-zip",
        ),
        ("kind=dir,dir=a,root=/b", "kind `dir` has no `root`"),
        (
            "kind=registry,file=a",
            "`registry` is not supported by this version",
        ),
    ] {
        refused(
            &["build", "--output", output],
            2,
            &format!(
                "error: `--output {output}` names no output\n  cause: {cause}\nhint: write it as `--output kind=oci-archive,file=out/image.tar`"
            ),
        );
    }
}

#[test]
fn what_a_later_version_can() {
    refused(
        &["build", "--executor", "buildkit"],
        2,
        "error: `--executor` is not supported by this version",
    );
    for command in ["check", "audit", "attest"] {
        Lab::new(SPEC).run(&[command]).refused(
            2,
            &format!("error: `{command}` is not supported by this version"),
        );
    }
}

#[test]
fn a_cache_that_nobody_vouches_for() {
    for (arguments, code, error) in [
        (
            &["--cache-from", "cache"][..],
            2,
            "error: invalid value 'cache' for '--cache-from <REPOSITORY>': it names no registry\n\nFor more information, try '--help'.",
        ),
        (
            &["--cache-to", "r.example.com/cache:1"],
            2,
            "error: invalid value 'r.example.com/cache:1' for '--cache-to <REPOSITORY>': `cache:1` is not a name in a registry\n\nFor more information, try '--help'.",
        ),
        (
            &["--cache-from", "r.example.com/cache"],
            2,
            "error: nothing says who is believed about `r.example.com/cache`\nhint: name who signs in your `config.toml`: `cache.signers = [\"ed25519:…\"]`; or, if whoever may write there is to be believed: `cache.unsigned = [\"r.example.com/cache\"]`",
        ),
        (
            &["--cache-to", "r.example.com/cache"],
            2,
            "error: nothing signs what goes to `r.example.com/cache`\nhint: make a key with `immbuild cache key FILE`, and name it in your `config.toml`: `cache.key = \"FILE\"`",
        ),
        (
            &["--cache-to", "r.example.com/cache", "--offline"],
            5,
            "error: `r.example.com/cache` is a cache in the network, and the network is off\nhint: run it without `--offline`",
        ),
    ] {
        refused(&[&["build"], arguments].concat(), code, error);
    }
    refused(
        &["cache", "key"],
        2,
        "error: your `config.toml` names no key\nhint: `immbuild cache key FILE` makes one; then name it: `cache.key = \"FILE\"`",
    );
    refused(
        &["cache", "key", "/nonexistent/key"],
        9,
        "error: cannot write `/nonexistent/key`\n  cause: No such file or directory (os error 2)",
    );
}

#[test]
fn packages_that_nobody_locked() {
    refused(&["why", "dash"], 2, "error: no package `dash` is locked");
    let lab = Lab::new(
        "immbuild = 1\nsource.os = { debian = \"bookworm\", packages = [\"dash\"] }\nimage.from = \"os\"\n",
    );
    for arguments in [
        &["why", "dash"][..],
        &["sbom"],
        &["vendor", "-o", "vendor"],
        &["build", "--locked"],
    ] {
        lab.run(arguments).refused_with(
            4,
            &[
                "error: there is no lock `spec.lock`",
                "hint: run `immbuild lock`",
            ],
        );
    }
}

#[test]
fn words_that_are_none() {
    Lab::new(SPEC)
        .run(&["biuld"])
        .refused_with(2, &["error: unrecognized subcommand 'biuld'", "'build'"]);
    Lab::new(SPEC)
        .run(&["build", "--lokced"])
        .refused_with(2, &["error: unexpected argument '--lokced'", "'--locked'"]);
    Lab::new(SPEC)
        .run(&["build", "--record", "--locked"])
        .refused_with(2, &["cannot be used with '--locked'"]);
}

#[test]
fn a_spec_that_is_not_there() {
    refused(
        &["build", "other.toml"],
        3,
        "error: there is no spec `other.toml`\nhint: run `immbuild init` to write one, or name it with `-f FILE`",
    );
}

/// What a build reads, a device, a pipe: none of it is replaced, also behind a link.
#[test]
fn outputs_that_would_replace_what_is_no_output() {
    let spec = "immbuild = 1\n[source.f]\npath = \"f\"\n[image]\nsteps = [{ copy = \"f\", to = \"/f\" }]\n";
    let lab = Lab::new(spec);
    lab.write("f", "data");
    lab.run(&["lock"]);
    let at = |name: &str| lab.file(name).display().to_string();
    run("mkfifo", &[&at("pipe")]).expect("it can be made");
    run("ln", &["-s", "/dev/null", &at("link")]).expect("it can be made");
    let no_file = "what is there is no file";
    for (name, cause, exit) in [
        ("spec.toml", "it is the spec", 2),
        ("./spec.toml", "it is the spec", 2),
        ("spec.lock", "it is the lock", 2),
        ("f", "it is the source `f`", 2),
        ("pipe", no_file, 9),
        ("link", no_file, 9),
    ] {
        let output = format!("kind=oci-archive,file={name}");
        let said = [format!("cannot write `{name}`"), cause.to_owned()];
        lab.run(&["build", "--output", &output])
            .refused_with(exit, &said.each_ref().map(String::as_str));
    }
    let twice = [
        "kind=oci-archive,file=x.tar",
        "kind=docker-archive,file=x.tar",
    ];
    lab.run(&["build", "--output", twice[0], "--output", twice[1]])
        .refused_with(2, &["two outputs write `x.tar`"]);
}

#[test]
fn all_platforms_are_the_same_as_none_said() {
    let spec = "immbuild = 1\n[image]\nplatforms = [\"linux/amd64\", \"linux/arm64\", \"linux/s390x\"]\n\
                steps = [{ write = \"/arch\", text = \"${arch}\", expand = true }]\n";
    let lab = Lab::new(spec);
    let build = |platforms: &[&str]| {
        let words = platforms.iter().flat_map(|it| ["--platform", *it]);
        let words: Vec<&str> = std::iter::once("build").chain(words).collect();
        lab.run(&words).digest()
    };
    let all = build(&[]);
    assert_eq!(build(&["linux/s390x", "linux/arm64", "linux/amd64"]), all);
    let some = build(&["linux/arm64", "linux/amd64"]);
    assert_ne!(some, all);
    assert_ne!(some, build(&["linux/amd64"]));
}

#[test]
fn data_that_cannot_be_written_is_an_error() {
    let lab = Lab::new(SPEC);
    for arguments in [
        &["build"][..],
        &["build", "--json"],
        &["schema"],
        &["graph"],
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let mut command = lab.immbuild(arguments);
        let output = command.stdout(full.expect("it is there")).output();
        let output = output.expect("it can be started");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(9), "{arguments:?}: {said}");
        assert!(
            said.contains("error: cannot write to standard output"),
            "{said}"
        );
    }
}

#[test]
fn a_stage_goes_where_the_command_line_says() {
    let spec = "immbuild = 1\n[[output]]\nkind = \"oci-archive\"\nfile = \"image.tar\"\n\
                [stage.other]\nsteps = [{ write = \"/b\", text = \"b\" }]\n\
                [image]\nsteps = [{ write = \"/a\", text = \"a\" }]\n";
    let lab = Lab::new(spec);
    let stage = ["build", "--stage", "other"];
    let digest = lab.run(&stage).digest();
    let output = ["--output", "kind=oci-archive,file=other.tar"];
    assert_eq!(lab.run(&[&stage[..], &output].concat()).digest(), digest);
    assert_eq!(
        lab.run(&["compare", "other.tar", "other.tar"])
            .output
            .status
            .code(),
        Some(0)
    );
    assert!(
        !lab.file("image.tar").exists(),
        "it is no output of this stage"
    );
}
