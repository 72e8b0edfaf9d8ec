//! The sandbox, told from inside: what a step sees, what it leaves, and how it ends.
//!
//! Has its own `main`, because the sandbox starts its program again. As root every story is told three
//! times: by root, by a user with a range of sub-uids and by one without. Needs `busybox-static`, and for
//! the users `setpriv`, `unshare` and `newuidmap`; the users exist only in a private mount namespace.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that reports by itself"
)]

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use immbuild::exec::sandbox::{
    Ended, IdMap, Job, Outcome, SandboxError, Status, enter_if_needed, probe, run,
    supervise_if_asked,
};
use immbuild::exec::tracer::{Metadata, Virtual};
use immbuild::hostfs::owner::{NOTE, of_note};
use immbuild_cas::digest::Digest;
use immbuild_cas::path::RelPath;

#[path = "sandbox/rights.rs"]
mod rights;

type Story = (&'static str, fn(&Stage));

const STORIES: &[Story] = &[
    (
        "the_surroundings_are_the_same_from_every_store",
        surroundings_are_constant,
    ),
    (
        "the_id_map_is_the_same_text_for_root_and_user",
        id_map_is_constant,
    ),
    (
        "the_environment_is_exactly_the_one_given",
        environment_is_exact,
    ),
    (
        "only_the_standard_streams_are_open_and_input_is_empty",
        streams,
    ),
    ("output_arrives_in_order_from_both_streams", output_in_order),
    ("exit_codes_and_signals_are_told", endings),
    ("a_missing_program_or_directory_is_named", missing_things),
    ("the_network_is_unreachable", network),
    ("init_cannot_be_looked_into", init_is_closed),
    ("the_host_cannot_be_written_to_through_proc", proc_is_closed),
    ("a_nested_namespace_uncovers_nothing", nested),
    ("refused_system_calls_fail_as_documented", system_calls),
    ("addresses_are_the_same_in_every_run", addresses),
    ("a_device_cannot_be_made", devices),
    ("a_set_user_id_program_works", set_user_id),
    ("owners_need_the_range_or_the_tracer", owners),
    ("with_the_tracer_every_user_has_every_id", every_id),
    ("everybody_may_do_what_the_kernel_says", rights_of_all),
    ("emulated_owners_follow_the_file", emulated_owners),
    (
        "emulated_owners_are_seen_where_metadata_is_clamped",
        clamped_owners,
    ),
    ("emulated_owners_are_seen_in_another_root", owners_elsewhere),
    (
        "file_capabilities_can_be_set_and_are_lost_by_chown",
        capabilities,
    ),
    ("the_upper_holds_the_changes_and_no_mount_point", upper),
    ("a_root_without_anything_runs_a_static_program", empty_root),
    ("links_in_the_tree_do_not_lead_out", links),
    ("the_root_directory_keeps_its_mode", root_mode),
    ("two_lowers_are_merged", two_lowers),
    ("deep_paths_work", deep_paths),
    ("secrets_are_files_of_the_user_and_leave_nothing", secrets),
    ("a_cache_keeps_its_files_and_leaves_nothing", caches),
    ("a_cache_is_used_by_one_at_a_time", cache_lock),
    ("what_is_left_running_ends_with_the_step", leftovers),
    ("orphans_are_collected", orphans),
    ("a_step_that_ignores_sigterm_ends_at_its_timeout", timeout),
    ("a_cancelled_step_ends", cancel),
    (
        "too_many_processes_end_in_an_error_of_the_step",
        many_processes,
    ),
    ("killing_the_builder_kills_the_step", kill_builder),
    ("a_shell_has_the_terminal_and_gives_it_back", shell),
    ("a_limit_that_is_not_granted_is_named", limits),
];

fn main() -> ExitCode {
    supervise_if_asked();
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["--inside", what] => inside::tell(what),
        ["--job", directory, script] => return builder(Path::new(directory), script, false),
        ["--shell", directory, script] => return builder(Path::new(directory), script, true),
        ["--probes", name] => probes(name),
        ["--stories", name, view, filter @ ..] => return stories(name, Path::new(view), filter),
        ["--list", ..] => {}
        filter => return everybody(filter),
    }
    ExitCode::SUCCESS
}

// ---- who tells the stories ----

/// As root: root, and the two users; otherwise only who we are.
fn everybody(filter: &[&str]) -> ExitCode {
    let filter: Vec<&str> = filter
        .iter()
        .copied()
        .filter(|word| !word.starts_with('-'))
        .collect();
    let home = tempfile::tempdir().unwrap();
    open_to_all(home.path());
    let program = home.path().join("sandbox-test");
    fs::copy(env::current_exe().unwrap(), &program).unwrap();
    open_to_all(&program);
    let root = is_root();
    let names: &[&str] = if root {
        &["root", "range", "single"]
    } else {
        &["me"]
    };
    let mut good = true;
    for (name, tier) in names.iter().flat_map(|name| TIERS.map(|tier| (name, tier))) {
        let view = home.path().join(format!("view-{name}-{tier}"));
        fs::write(&view, "").unwrap();
        fs::write(rights_at(&view), "").unwrap();
        for file in [&view, &rights_at(&view)] {
            fs::set_permissions(file, fs::Permissions::from_mode(0o666)).unwrap();
        }
        let command = || match *name {
            "range" => as_user(home.path(), &program, true),
            "single" => as_user(home.path(), &program, false),
            _ => Command::new(&program),
        };
        let command = || {
            let mut command = command();
            command.env(TIER, tier);
            command
        };
        let mut told = command();
        told.args(["--stories", name]).arg(&view).args(&filter);
        good &= told.status().unwrap().success();
        if filter.is_empty() && tier == TIERS[0] {
            good &= command()
                .args(["--probes", name])
                .status()
                .unwrap()
                .success();
        }
    }
    if root && rights_are_told(&filter) {
        let traced = &TIERS[1..];
        for (tier, name) in traced
            .iter()
            .flat_map(|tier| [(tier, "range"), (tier, "single")])
        {
            let rights = |name: &str| {
                fs::read_to_string(rights_at(&home.path().join(format!("view-{name}-{tier}"))))
                    .unwrap()
            };
            let difference = difference(&rights("root"), &rights(name));
            let same = difference.is_empty() && !rights("root").is_empty();
            println!(
                "test {tier}: root_and_{name}_may_do_the_same ... {}",
                if same { "ok" } else { "FAILED" }
            );
            print!("{difference}");
            good &= same;
        }
    }
    if root && filter.is_empty() {
        for tier in TIERS {
            let view = |name: &str| {
                fs::read_to_string(home.path().join(format!("view-{name}-{tier}"))).unwrap()
            };
            let difference = difference(&view("root"), &view("range"));
            let same = difference.is_empty() && !view("root").is_empty();
            println!(
                "test {tier}: root_and_user_see_the_same ... {}",
                if same { "ok" } else { "FAILED" }
            );
            print!("{difference}");
            good &= same;
        }
    }
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn rights_are_told(filter: &[&str]) -> bool {
    let (story, _) = STORIES
        .iter()
        .find(|(_, tell)| std::ptr::fn_addr_eq(*tell, rights_of_all as fn(&Stage)))
        .unwrap();
    filter.is_empty() || filter.iter().any(|word| story.contains(word))
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn open_to_all(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The program as user 54321, who exists only in the mount namespace it runs in.
fn as_user(home: &Path, program: &Path, range: bool) -> Command {
    let file = |name: &str, line: &str| {
        let text = fs::read_to_string(Path::new("/etc").join(name)).unwrap_or_default();
        fs::write(home.join(name), text + line).unwrap();
        format!("mount --bind {0}/{name} /etc/{name}; ", home.display())
    };
    let mut script = String::from("set -e; ");
    script += &file(
        "passwd",
        "immbuild-test:x:54321:54321::/nonexistent:/bin/sh\n",
    );
    if range {
        // Where mktemp of the host does not matter: far from any range in use.
        script += &file("subuid", "immbuild-test:2000000000:65536\n");
        script += &file("subgid", "immbuild-test:2000000000:65536\n");
    }
    script += "exec setpriv --reuid 54321 --regid 54321 --clear-groups \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", &script, "sh"])
        .arg(program);
    command
}

/// Tells the stories as whoever this process is.
fn stories(name: &str, view: &Path, filter: &[&str]) -> ExitCode {
    let ids = enter_if_needed().unwrap_or_else(|error| panic!("{name}: {error}: {}", error.fix()));
    let expected = if name == "single" {
        IdMap::Single
    } else {
        IdMap::Range
    };
    assert!(name == "me" || ids == expected, "{name} got {ids:?}");
    let mut good = true;
    for (story, tell) in STORIES {
        if !filter.is_empty() && !filter.iter().any(|word| story.contains(word)) {
            continue;
        }
        let stage = Stage::new(ids, view);
        let told = catch_unwind(AssertUnwindSafe(|| tell(&stage))).is_ok();
        println!(
            "test {name}::{}::{story} ... {}",
            tier(),
            if told { "ok" } else { "FAILED" }
        );
        good &= told;
    }
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A builder in a process of its own: runs the script on the root that a stage has made.
fn builder(directory: &Path, script: &str, terminal: bool) -> ExitCode {
    let ids = enter_if_needed().unwrap();
    let root = [directory.join("root")];
    let scratch = directory.join("builder");
    fs::create_dir(&scratch).unwrap();
    let mut job = job(&root, &scratch, &["sh", "-c", script]);
    job.terminal = terminal;
    let result = run(&job, ids, &mut |_| {}, &AtomicBool::new(false));
    if terminal {
        println!("builder in front: {}", in_front());
    }
    match result {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether our process group is the terminal's foreground one; `proc_pid_stat(5)`, fields 5 and 8.
fn in_front() -> bool {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    fields[2] == fields[5]
}

// ---- the stage ----

/// A root directory with a shell, and room for scratch directories.
struct Stage {
    ids: IdMap,
    view: PathBuf,
    directory: tempfile::TempDir,
}

/// What a job on a [`Stage`] gave.
struct Told {
    status: Status,
    text: String,
    upper: PathBuf,
    owners: BTreeMap<RelPath, (u32, u32)>,
}

impl Stage {
    fn new(ids: IdMap, view: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        open_to_all(directory.path());
        let root = directory.path().join("root");
        make_root(&root);
        Self {
            ids,
            view: view.to_owned(),
            directory,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A new empty directory.
    fn fresh(&self) -> PathBuf {
        let path = (0..1000)
            .map(|n| self.path(&format!("scratch-{n}")))
            .find(|path| !path.exists())
            .unwrap();
        fs::create_dir(&path).unwrap();
        path
    }

    fn run(&self, change: impl FnOnce(&mut Job<'_>)) -> Result<Told, SandboxError> {
        let (root, scratch) = ([self.path("root")], self.fresh());
        let mut job = job(&root, &scratch, &[]);
        if let Some(what) = &mut job.virtualise {
            what.owners = self.ids == IdMap::Single;
        }
        change(&mut job);
        self.run_job(&job)
    }

    fn run_job(&self, job: &Job<'_>) -> Result<Told, SandboxError> {
        let mut output = Vec::new();
        let Ended {
            status,
            upper,
            owners,
            ..
        } = run(
            job,
            self.ids,
            &mut |bytes| output.extend_from_slice(bytes),
            &AtomicBool::new(false),
        )?;
        Ok(Told {
            status,
            text: String::from_utf8_lossy(&output).into_owned(),
            upper,
            owners,
        })
    }

    /// Are owners emulated, if there is no range?
    fn emulates(&self) -> Option<bool> {
        (self.ids == IdMap::Single).then(|| tier() != TIERS[0])
    }

    /// The owner of what a job left, real or emulated.
    fn owner(&self, told: &Told, path: &str) -> (u32, u32) {
        let upper = told.upper.join(path);
        let meta = fs::symlink_metadata(&upper).unwrap();
        if self.ids == IdMap::Range {
            return (meta.uid(), meta.gid());
        }
        let mut note = [0; 32];
        let noted = match rustix::fs::lgetxattr(&upper, NOTE, &mut note) {
            Ok(length) => of_note(&note[..length]),
            Err(_) => told.owners.get(&rel(path)).copied(),
        };
        noted.unwrap_or((0, 0))
    }

    /// The output of a script that must succeed.
    fn sh(&self, script: &str) -> String {
        let told = self
            .run(|job| job.argv = words(&["sh", "-euc", script]))
            .unwrap();
        assert_eq!(told.status, Status::Exited(0), "{}", told.text);
        told.text
    }
}

fn words(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

fn rel(path: &str) -> RelPath {
    RelPath::new(path.as_bytes().to_vec()).unwrap()
}

fn job<'a>(lowers: &'a [PathBuf], scratch: &'a Path, argv: &[&str]) -> Job<'a> {
    Job {
        lowers,
        scratch,
        argv: words(argv),
        env: BTreeMap::from([(b"PATH".to_vec(), b"/bin".to_vec())]),
        directory: RelPath::root(),
        uid: 0,
        gid: 0,
        caches: vec![],
        secrets: vec![],
        timeout: Some(Duration::from_secs(60)),
        terminal: false,
        read_only: false,
        virtualise: (tier() != TIERS[0]).then(|| Virtual {
            epoch: EPOCH,
            seed: Digest::of(b"story"),
            metadata: Metadata::Virtual,
            strict: tier() == "strict",
            owners: false,
        }),
        owners: BTreeMap::new(),
    }
}

/// Every story is told in each of these.
const TIERS: [&str; 3] = ["isolated", "deterministic", "strict"];
/// The variable that says which.
const TIER: &str = "IMMBUILD_STORY_TIER";
const EPOCH: i64 = 1_600_000_000;

fn tier() -> String {
    env::var(TIER).unwrap_or_else(|_| TIERS[0].into())
}

/// `/bin` with busybox under all its names, this program with its libraries, and an account file.
fn make_root(root: &Path) {
    for name in ["bin", "etc", "lib", "lib64", "data"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .find(|path| Path::new(path).exists());
    let busybox = busybox.expect("the package busybox-static is installed");
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    let applets = Command::new(busybox).arg("--list").output().unwrap().stdout;
    for applet in String::from_utf8(applets)
        .unwrap()
        .lines()
        .filter(|name| *name != "busybox")
    {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(
        root.join("etc/passwd"),
        "root::0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n",
    )
    .unwrap();
    fs::write(root.join("data/kept"), "kept\n").unwrap();
    fs::copy("/proc/self/exe", root.join("bin/inside")).unwrap();
    open_to_all(&root.join("bin/inside"));
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    for library in maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
    {
        let Some(name) = Path::new(library)
            .file_name()
            .filter(|_| library.contains(".so"))
        else {
            continue;
        };
        for directory in ["lib", "lib64"] {
            fs::copy(library, root.join(directory).join(name)).unwrap();
        }
    }
}

// ---- the stories ----

/// Everything that can be looked at, without the numbers that the kernel counts up for all mounts.
const VIEW: &str = "
    awk '{ $1 = $2 = $3 = \"-\"; print }' /proc/self/mountinfo
    cat /proc/self/mounts
    cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups /proc/self/limits
    grep -E '^(Umask|Uid|Gid|Groups|Sig[IBC]|Cap|NoNewPrivs|Seccomp)' /proc/self/status
    cat /proc/self/personality /proc/1/cmdline /proc/1/comm
    id; umask; hostname; echo $$; pwd
    for f in $(find /proc/sys /sys /etc/hosts /etc/resolv.conf | sort); do
        stat -c '%n %F %a %u:%g %s %Y' $f; [ ! -f $f ] || cat $f
    done
    for f in cmdline cpuinfo devices filesystems interrupts kallsyms keys loadavg meminfo modules \
             stat swaps uptime version vmstat; do
        [ ! -e /proc/$f ] || { stat -c '%n %a %s %Y' /proc/$f; cat /proc/$f; }
    done
    find /dev /tmp | sort | while read -r f; do stat -c '%n %F %a %t,%T' $f; done
    stat -c '%n %a %u:%g %Y' /dev/shm /tmp
    cat /proc/net/route /proc/net/dev | cut -c1-6
";

fn surroundings_are_constant(stage: &Stage) {
    let first = stage.sh(VIEW);
    let elsewhere = Stage::new(stage.ids, &stage.view);
    let second = elsewhere.sh(VIEW);
    assert_eq!(difference(&first, &second), "");
    assert!(
        !first.contains(stage.directory.path().to_str().unwrap()),
        "{first}"
    );
    assert!(first.contains("\nimmbuild\n2\n/\n"), "{first}");
    assert!(
        tier() != TIERS[0] || first.contains("lowerdir=0:stubs,upperdir=upper,workdir=work,"),
        "{first}"
    );
    fs::write(&stage.view, &first).unwrap();
}

/// The lines that differ.
fn difference(one: &str, two: &str) -> String {
    let (mut ones, mut twos) = (one.lines(), two.lines());
    let mut differing = String::new();
    loop {
        match (ones.next(), twos.next()) {
            (None, None) => return differing,
            (one, two) if one == two => {}
            (one, two) => {
                let (one, two) = (one.unwrap_or(""), two.unwrap_or(""));
                writeln!(differing, "- {one}\n+ {two}").unwrap();
            }
        }
    }
}

fn id_map_is_constant(stage: &Stage) {
    let map = stage.sh("cat /proc/self/uid_map /proc/self/gid_map");
    let map: Vec<&str> = map.split_whitespace().collect();
    // What one without a range has shows only where nothing is virtual.
    match stage.ids {
        IdMap::Single if tier() == TIERS[0] => assert_eq!(map, ["0", "0", "1"].repeat(2)),
        IdMap::Single | IdMap::Range => {
            assert_eq!(map, ["0", "0", "1", "1", "1", "65535"].repeat(2));
        }
    }
}

fn environment_is_exact(stage: &Stage) {
    let told = stage.run(|job| {
        job.argv = words(&["env"]);
        job.env.insert(b"B".to_vec(), b"2 \xff".to_vec());
    });
    assert_eq!(told.unwrap().text, "B=2 \u{fffd}\nPATH=/bin\n");
}

fn streams(stage: &Stage) {
    assert_eq!(stage.sh("cat; exec ls /proc/self/fd"), "0\n1\n2\n3\n");
    assert_eq!(stage.sh("readlink /proc/self/fd/0"), "/dev/null\n");
}

fn output_in_order(stage: &Stage) {
    let text = stage.sh("for n in 1 2 3; do echo out $n; echo err $n >&2; done; head -c 300000 /dev/zero | tr '\\0' x");
    assert_eq!(&text[..36], "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n");
    assert_eq!(text.len(), 36 + 300_000);
}

fn endings(stage: &Stage) {
    let status = |script| {
        stage
            .run(|job| job.argv = words(&["sh", "-c", script]))
            .unwrap()
            .status
    };
    assert_eq!(status("exit 0"), Status::Exited(0));
    assert_eq!(status("exit 7"), Status::Exited(7));
    assert_eq!(status("kill -SEGV $$"), Status::Signalled(11));
    assert_eq!(status("kill -KILL $$"), Status::Signalled(9));
}

fn missing_things(stage: &Stage) {
    let failed = |argv: &[&str], directory| {
        let told = stage.run(|job| {
            job.argv = words(argv);
            job.directory = rel(directory);
        });
        told.map(|told| told.status).unwrap_err()
    };
    let error = failed(&["no-such"], "data");
    assert!(
        matches!(&error, SandboxError::Program { program, source }
        if program == Path::new("no-such") && source.raw_os_error() == Some(2)),
        "{error:?}"
    );
    let error = failed(&["/data/kept"], "data");
    assert!(
        matches!(&error, SandboxError::Program { source, .. } if source.raw_os_error() == Some(13)),
        "{error:?}"
    );
    let error = failed(&["true"], "not/there");
    assert!(
        matches!(&error, SandboxError::Directory { path, .. } if path == Path::new("/not/there")),
        "{error:?}"
    );
}

fn network(stage: &Stage) {
    assert_eq!(stage.sh("inside --inside connect"), "ENETUNREACH\n");
    assert_eq!(
        stage.sh("ping -c 1 -q 127.0.0.1 | grep -c '1 packets received'"),
        "1\n"
    );
}

fn init_is_closed(stage: &Stage) {
    let text = stage.sh("for f in environ maps mem; do cat /proc/1/$f && echo open; done; readlink /proc/1/exe /proc/1/root && echo open; true");
    assert!(!text.contains("open\n"), "{text}");
}

fn proc_is_closed(stage: &Stage) {
    let text = stage.sh("for f in sysrq-trigger sys/kernel/hostname irq/x bus/x sys/x; do (echo h > /proc/$f) && echo written; done; umount /proc/sys && echo off; mount -o remount,rw /proc/sys && echo rw; true");
    assert!(
        !text.contains("written") && !text.contains("off\n") && !text.contains("rw\n"),
        "{text}"
    );
}

/// In a namespace of its own a step has every capability again; what covers `/proc` is locked there.
fn nested(stage: &Stage) {
    let text = stage.sh("unshare -U -r -m -p -f sh -c 'id -u; umount /proc/sys && echo off; umount -l /proc && echo off; mount -t proc none /data && echo mounted; mount -t ramfs none /data && echo own' 2>&1");
    let said: Vec<&str> = text.lines().filter(|line| !line.contains(": ")).collect();
    assert_eq!(said, ["0", "own"], "{text}");
}

fn system_calls(stage: &Stage) {
    assert_eq!(
        stage.sh("inside --inside calls"),
        "add_key ENOSYS\nbpf ENOSYS\nio_uring_setup ENOSYS\nkeyctl ENOSYS\nperf_event_open ENOSYS\n\
         personality(0) EPERM\npersonality(query) 0x40000\nsocket(AF_VSOCK) EAFNOSUPPORT\n\
         socket(AF_INET) ok\nioctl(TIOCSTI) EPERM\nx32 getpid ENOSYS\nmonotonic < 60 s\n"
    );
    if cfg!(target_arch = "x86_64") {
        let told = stage
            .run(|job| job.argv = words(&["inside", "--inside", "ia32"]))
            .unwrap();
        assert_eq!(told.status, Status::Signalled(31), "{}", told.text);
    }
}

fn addresses(stage: &Stage) {
    let address = || stage.sh("inside --inside addresses");
    let first = address();
    assert!(first.starts_with("0x"), "{first}");
    assert_eq!(first, address());
}

fn devices(stage: &Stage) {
    let told = stage.run(|job| {
        job.argv = words(&[
            "sh",
            "-c",
            "mknod /data/null c 1 3; mknod /data/whiteout c 0 0; mkfifo /data/fifo",
        ]);
    });
    let told = told.unwrap();
    assert_eq!(
        told.text,
        "mknod: /data/null: Operation not permitted\nmknod: /data/whiteout: Operation not permitted\n"
    );
    assert_eq!(names(&told.upper.join("data")), ["fifo"]);
}

fn set_user_id(stage: &Stage) {
    let su = stage.path("root/bin/su");
    fs::remove_file(&su).unwrap();
    fs::copy(stage.path("root/bin/busybox"), &su).unwrap();
    fs::set_permissions(&su, fs::Permissions::from_mode(0o4755)).unwrap();
    let told = stage.run(|job| {
        // Not from busybox's shell, which runs its own programs without executing their files.
        job.argv = words(&["su", "root", "-c", "id -u"]);
        (job.uid, job.gid) = (1000, 1000);
    });
    match stage.emulates() {
        None | Some(true) => assert_eq!(told.unwrap().text, "0\n"),
        Some(false) => assert!(matches!(
            told.map(|told| told.text),
            Err(SandboxError::Ids {
                uid: 1000,
                gid: 1000
            })
        )),
    }
}

fn owners(stage: &Stage) {
    let told = stage
        .run(|job| job.argv = words(&["chown", "5:6", "/data/kept"]))
        .unwrap();
    match stage.emulates() {
        Some(false) => assert_eq!(told.text, "chown: /data/kept: Invalid argument\n"),
        _ => assert_eq!(stage.owner(&told, "data/kept"), (5, 6)),
    }
}

/// What programs see of ids and owners, however they come to be.
fn every_id(stage: &Stage) {
    if stage.emulates() == Some(false) {
        return;
    }
    let su = stage.path("root/bin/su");
    fs::remove_file(&su).unwrap();
    fs::copy(stage.path("root/bin/busybox"), &su).unwrap();
    fs::set_permissions(&su, fs::Permissions::from_mode(0o4755)).unwrap();
    let script = "
        stat -c '%u:%g %a' /data/kept
        chmod 6755 /data/kept; chown 5:6 /data/kept; stat -c '%u:%g %a' /data/kept
        chown :7 /data/kept; stat -c '%u:%g' /data/kept
        chown 70000 /data/kept || echo refused
        mkdir /data/shared; chown 0:8 /data/shared; chmod 2775 /data/shared
        mkdir /data/shared/in; echo > /data/shared/in/file; ln -s x /data/shared/link
        stat -c '%n %u:%g %a' /data/shared/in /data/shared/in/file /data/shared/link
        chmod 777 /data
        su user -s /bin/sh -c '
            id; echo > /data/mine; mkdir /data/ours; ln -s x /data/link; mkfifo /data/pipe
            stat -c \"%n %u:%g\" /data/mine /data/ours /data/link /data/pipe
            chown 5 /data/mine || echo refused
            /bin/su root -c \"id -u\"
        '
        mkdir /data/t; chown 5:6 /data/t; mv /data/t /data/u; stat -c '%u:%g' /data/u
        cp -a /data/mine /data/copy; stat -c '%u:%g' /data/copy
        rm /data/mine; echo > /data/mine; stat -c '%u:%g' /data/mine
        chown -h 5:6 /data/link; mv /data/link /data/moved; stat -c '%u:%g' /data/moved
        ln -s y /data/link; stat -c '%u:%g' /data/link
        find /data -user 5 | sort
        inside --inside ids
    ";
    let expected = "0:0 644\n5:6 755\n5:7\nchown: /data/kept: Invalid argument\nrefused\n\
        /data/shared/in 0:8 2755\n/data/shared/in/file 0:8 644\n/data/shared/link 0:8 777\n\
        uid=1000(user) gid=1000 groups=1000\n\
        /data/mine 1000:1000\n/data/ours 1000:1000\n/data/link 1000:1000\n/data/pipe 1000:1000\n\
        chown: /data/mine: Operation not permitted\nrefused\n0\n\
        5:6\n1000:1000\n0:0\n5:6\n0:0\n\
        /data/kept\n/data/moved\n/data/u\n\
        5 6 [7, 9] EPERM\n";
    assert_eq!(stage.sh(&script.replace("\\\"", "\"")), expected);
}

/// What every user may do with whose files: written down, for [`everybody`] to compare.
fn rights_of_all(stage: &Stage) {
    // Elsewhere times are the machine's.
    if tier() == TIERS[0] {
        return;
    }
    let told = stage.sh("exec inside --inside rights");
    for word in [" ok", " EACCES", " EPERM"] {
        assert!(told.contains(word), "{word}");
    }
    fs::write(rights_at(&stage.view), told).unwrap();
}

/// Where they are written, beside a view.
fn rights_at(view: &Path) -> PathBuf {
    view.with_extension("rights")
}

fn clamped_owners(stage: &Stage) {
    if stage.emulates() == Some(false) {
        return;
    }
    let told = stage.run(|job| {
        if let Some(what) = &mut job.virtualise {
            what.metadata = Metadata::Clamp;
        }
        let script = "
            chown 5:6 /data/kept; stat -c '%u:%g %a %s' /data/kept; stat -c %u:%g /data
            mkdir -m 700 /data/closed; ln -s x /data/closed/link
            su user -s /bin/sh -c 'rm -f /data/kept; readlink -v /data/closed/link; touch /data/kept; echo > /data/kept' || true
        ";
        job.argv = words(&["sh", "-euc", script]);
    });
    let expected = "5:6 644 5\n0:0\n\
        rm: can't remove '/data/kept': Permission denied\n\
        readlink: /data/closed/link: cannot read link: Permission denied\n\
        touch: /data/kept: Permission denied\n\
        sh: can't create /data/kept: Permission denied\n";
    assert_eq!(told.unwrap().text, expected);
}

fn owners_elsewhere(stage: &Stage) {
    if stage.emulates() == Some(false) {
        return;
    }
    let script = "
        mkdir /data/bin; cp /bin/busybox /data/bin/busybox; ln -s busybox /data/bin/sh
        ln -s /kept /data/link
        chroot /data /bin/sh -euc '
            b=/bin/busybox
            $b chown 5:6 /kept; $b stat -c %u:%g /kept; $b stat -L -c %u:%g /link
            $b mkdir /in; cd /in; $b chown 7:8 ../link; $b stat -c %u:%g ../kept
        '
        stat -c %u:%g /data/kept
    ";
    assert_eq!(stage.sh(script), "5:6\n5:6\n7:8\n7:8\n");
}

fn capabilities(stage: &Stage) {
    let owner = match stage.emulates() {
        Some(false) => "",
        _ => "chown 5 /data/kept; inside --inside attributes",
    };
    let script = format!("inside --inside capability; inside --inside attributes; {owner}");
    let lost = if owner.is_empty() { "" } else { "[]\nEPERM\n" };
    // The note of an owner is not there for a step that has the tracer; elsewhere it is an attribute like others.
    let told = stage.sh(&script).replace("ok\n", "EPERM\n");
    assert_eq!(
        told.replace("user.immbuild.owner", ""),
        format!("[security.capability]\nEPERM\n{lost}")
    );
}

/// What is left says whose it is, wherever it was moved to.
fn emulated_owners(stage: &Stage) {
    if stage.emulates() == Some(false) {
        return;
    }
    let root = stage.path("root");
    symlink("x", root.join("data/theirs")).unwrap();
    symlink("x", root.join("data/replaced")).unwrap();
    let given = BTreeMap::from([(rel("data/theirs"), (3, 4)), (rel("data/replaced"), (3, 4))]);
    if stage.emulates().is_none() {
        for (path, (uid, gid)) in &given {
            let path = root.join(std::ffi::OsStr::from_bytes(path.as_bytes()));
            std::os::unix::fs::lchown(path, Some(*uid), Some(*gid)).unwrap();
        }
    }
    let script = "
        stat -c '%u:%g' /data/theirs
        mv /data/theirs /data/moved; stat -c '%u:%g' /data/moved
        rm /data/replaced; ln -s x /data/replaced; stat -c '%u:%g' /data/replaced
        mkdir /data/a; ln -s x /data/a/link; chown -h 5:6 /data/a/link; mv /data/a /data/b
        echo > /data/file; chown 5:6 /data/file; ln /data/file /data/other
        chown 5:6 /data/kept; chown 0:0 /data/kept
    ";
    let told = stage
        .run(|job| {
            job.argv = words(&["sh", "-euc", script]);
            job.owners = given;
        })
        .unwrap();
    assert_eq!(told.text, "3:4\n3:4\n0:0\n");
    let expected = [
        ("moved", (3, 4)),
        ("replaced", (0, 0)),
        ("b/link", (5, 6)),
        ("file", (5, 6)),
        ("other", (5, 6)),
        ("kept", (0, 0)),
    ];
    for (name, owner) in expected {
        assert_eq!(stage.owner(&told, &format!("data/{name}")), owner, "{name}");
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

fn upper(stage: &Stage) {
    fs::create_dir_all(stage.path("root/data/old/below")).unwrap();
    let told = stage.run(|job| {
        job.argv = words(&[
            "sh",
            "-euc",
            "
            rm /data/kept; rm -r /data/old; mkdir /data/old; echo n > /new; touch /etc/made
            touch /tmp/t /dev/shm/s /dev/d; mkdir /run",
        ]);
    });
    let told = told.unwrap();
    assert_eq!((told.status, told.text.as_str()), (Status::Exited(0), ""));
    assert_eq!(names(&told.upper), ["data", "etc", "new", "run"]);
    assert_eq!(names(&told.upper.join("etc")), ["made"]);
    let kept = fs::symlink_metadata(told.upper.join("data/kept")).unwrap();
    assert!(kept.file_type().is_char_device() && kept.rdev() == 0);
    let mut value = [0; 8];
    let length = rustix::fs::getxattr(
        told.upper.join("data/old"),
        "user.overlay.opaque",
        &mut value,
    )
    .unwrap();
    assert_eq!(&value[..length], b"y");
    assert_eq!(
        fs::read_to_string(stage.path("root/data/kept")).unwrap(),
        "kept\n"
    );
}

fn empty_root(stage: &Stage) {
    let lower = stage.fresh();
    fs::copy(stage.path("root/bin/busybox"), lower.join("busybox")).unwrap();
    let (lowers, scratch) = ([lower], stage.fresh());
    let told = stage
        .run_job(&job(&lowers, &scratch, &["/busybox", "ls", "/"]))
        .unwrap();
    assert_eq!(told.text, "busybox\ndev\netc\nproc\nsys\ntmp\n");
    assert_eq!(names(&told.upper), <[&str; 0]>::default());
    let scratch = stage.fresh();
    let error = stage
        .run_job(&job(&[], &scratch, &["/busybox"]))
        .map(|told| told.text)
        .unwrap_err();
    assert!(matches!(error, SandboxError::Program { .. }), "{error:?}");
}

/// A tree from outside may have links where the sandbox mounts.
fn links(stage: &Stage) {
    let target = stage.path("outside");
    fs::create_dir(&target).unwrap();
    symlink(&target, stage.path("root/etc/resolv.conf")).unwrap();
    symlink("/data/kept", stage.path("root/etc/hosts")).unwrap();
    symlink("data", stage.path("root/tmp")).unwrap();
    let text = stage.sh("cat /data/../etc/resolv.conf 2>&1 || true; echo x > /tmp/x; ls -l /etc/hosts | sed 's/.* -> //'; grep -c /data /proc/self/mounts");
    assert_eq!(
        text,
        "cat: can't open '/data/../etc/resolv.conf': No such file or directory\n/data/kept\n1\n"
    );
    assert_eq!(names(&target), <[&str; 0]>::default());
    assert_eq!(names(&stage.path("root/data")), ["kept"]);
}

fn root_mode(stage: &Stage) {
    fs::set_permissions(stage.path("root"), fs::Permissions::from_mode(0o1711)).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(stage.path("root"), "user.mark", b"m", flags).unwrap();
    let told = stage
        .run(|job| job.argv = words(&["stat", "-c", "%a", "/"]))
        .unwrap();
    assert_eq!(told.text, "1711\n");
    let mut value = [0; 8];
    let length = rustix::fs::getxattr(&told.upper, "user.mark", &mut value).unwrap();
    assert_eq!(
        (
            fs::metadata(&told.upper).unwrap().mode() & 0o7777,
            &value[..length]
        ),
        (0o1711, b"m".as_slice())
    );
}

fn two_lowers(stage: &Stage) {
    let top = stage.fresh();
    fs::create_dir(top.join("data")).unwrap();
    fs::write(top.join("data/kept"), "top\n").unwrap();
    fs::write(top.join("data/more"), "more\n").unwrap();
    let (lowers, scratch) = ([top, stage.path("root")], stage.fresh());
    let told = stage
        .run_job(&job(&lowers, &scratch, &["sh", "-c", "cat /data/*"]))
        .unwrap();
    assert_eq!(told.text, "top\nmore\n");
}

fn deep_paths(stage: &Stage) {
    let told = stage.run(|job| {
        job.argv = words(&["sh", "-euc", "n=0; while [ $n -lt 250 ]; do mkdir level-$n; cd level-$n; n=$((n+1)); done; echo deep > file; cat file"]);
        job.directory = rel("data");
    });
    let told = told.unwrap();
    assert_eq!(told.text, "deep\n");
    let deep: PathBuf = (0..250).map(|n| format!("level-{n}")).collect();
    assert_eq!(
        fs::read_to_string(told.upper.join("data").join(deep).join("file")).unwrap(),
        "deep\n"
    );
}

fn secrets(stage: &Stage) {
    let user = match stage.emulates() {
        Some(false) => 0,
        None | Some(true) => 1000,
    };
    let told = stage.run(|job| {
        job.argv = words(&[
            "sh",
            "-c",
            "stat -c '%n %a %u:%g' /run/secrets/*; cat /run/secrets/token; echo x > /run/secrets/y",
        ]);
        (job.uid, job.gid) = (user, user);
        job.secrets = vec![("token".into(), b"s3cret\n".to_vec())];
    });
    let told = told.unwrap();
    let expected = format!(
        "/run/secrets/token 400 {user}:{user}\ns3cret\nsh: can't create /run/secrets/y: Read-only file system\n"
    );
    assert_eq!(told.text, expected);
    assert_eq!(names(&told.upper), <[&str; 0]>::default());
    let bad = stage
        .run(|job| job.secrets = vec![("../x".into(), vec![])])
        .map(|told| told.text);
    assert!(matches!(bad, Err(SandboxError::SecretName(_))));
}

fn caches(stage: &Stage) {
    let cache = stage.fresh();
    let with_cache = |script| {
        let told = stage.run(|job| {
            job.argv = words(&["sh", "-euc", script]);
            job.caches = vec![(rel("var/cache/x"), cache.clone())];
        });
        told.unwrap()
    };
    let first =
        with_cache("mkdir -p /var/cache/x/a; echo 1 > /var/cache/x/a/b; echo 2 > /var/cache/x/c");
    assert_eq!(
        (first.status, names(&first.upper)),
        (Status::Exited(0), vec![])
    );
    let second = with_cache(
        "rm /var/cache/x/c; cat /var/cache/x/a/b; grep -c /var/cache/x /proc/self/mounts",
    );
    assert_eq!(
        (second.text.as_str(), names(&second.upper)),
        ("1\n1\n", vec![])
    );
    assert_eq!(names(&cache), ["a"]);
}

fn cache_lock(stage: &Stage) {
    let cache = stage.fresh();
    let count = |_: usize| {
        let told = stage.run(|job| {
            job.argv = words(&[
                "sh",
                "-euc",
                "cd /cache; n=$(cat n 2>/dev/null || echo 0); sleep 0.05; echo $((n+1)) > n",
            ]);
            job.caches = vec![(rel("cache"), cache.clone())];
        });
        assert_eq!(told.unwrap().status, Status::Exited(0));
    };
    // Scratch directories are numbered as they are made, so the threads get theirs one by one.
    let scratches: Vec<PathBuf> = (0..4).map(|_| stage.fresh()).collect();
    let root = [stage.path("root")];
    std::thread::scope(|scope| {
        for scratch in &scratches {
            scope.spawn(|| {
                let script =
                    "cd /cache; n=$(cat n 2>/dev/null || echo 0); sleep 0.05; echo $((n+1)) > n";
                let mut job = job(&root, scratch, &["sh", "-euc", script]);
                job.caches = vec![(rel("cache"), cache.clone())];
                assert_eq!(stage.run_job(&job).unwrap().status, Status::Exited(0));
            });
        }
    });
    count(4);
    assert_eq!(fs::read_to_string(cache.join("n")).unwrap(), "5\n");
}

/// Whether a process anywhere on the machine has this in its command line.
fn is_running(mark: &str) -> bool {
    let running = |entry: fs::DirEntry| {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        command
            .split(|byte| *byte == 0)
            .any(|word| word == mark.as_bytes())
    };
    fs::read_dir("/proc").unwrap().flatten().any(running)
}

/// A number of seconds that no other process sleeps.
fn mark() -> String {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    format!(
        "5432{}.{}",
        NEXT.fetch_add(1, Ordering::Relaxed),
        std::process::id()
    )
}

fn leftovers(stage: &Stage) {
    let mark = mark();
    let start = Instant::now();
    let told = stage.run(|job| {
        job.argv = words(&[
            "sh",
            "-c",
            &format!("sleep {mark} & setsid sleep {mark} & exit 3"),
        ]);
    });
    assert_eq!(told.unwrap().status, Status::Exited(3));
    assert!(start.elapsed() < Duration::from_secs(30));
    assert!(!is_running(&mark));
}

fn orphans(stage: &Stage) {
    let text = stage.sh("n=0; while [ $n -lt 20 ]; do (sh -c 'exit 0' &); n=$((n+1)); done; sleep 0.5; grep -l 'State:.Z' /proc/[0-9]*/status || echo none");
    assert_eq!(text, "none\n");
}

fn timeout(stage: &Stage) {
    let mark = mark();
    let start = Instant::now();
    let told = stage.run(|job| {
        job.argv = words(&[
            "sh",
            "-c",
            &format!("trap '' TERM INT HUP; echo started; sleep {mark} & while :; do :; done"),
        ]);
        job.timeout = Some(Duration::from_millis(400));
    });
    let told = told.unwrap();
    assert_eq!(
        (told.status, told.text.as_str()),
        (Status::TimedOut, "started\n")
    );
    assert!(
        start.elapsed() >= Duration::from_millis(400) && start.elapsed() < Duration::from_secs(30)
    );
    assert!(!is_running(&mark));
}

fn cancel(stage: &Stage) {
    let mark = mark();
    let (root, scratch, cancel) = ([stage.path("root")], stage.fresh(), AtomicBool::new(false));
    let script = format!("echo started; sleep {mark}");
    let job = job(&root, &scratch, &["sh", "-c", &script]);
    let result = run(
        &job,
        stage.ids,
        &mut |_| cancel.store(true, Ordering::Relaxed),
        &cancel,
    );
    assert!(matches!(result, Err(SandboxError::Cancelled)), "{result:?}");
    assert!(!is_running(&mark));
}

fn many_processes(stage: &Stage) {
    let told = stage.run(|job| {
        job.argv = words(&[
            "sh",
            "-c",
            "n=0; while [ $n -lt 5000 ]; do sleep 600 & n=$((n+1)); done; echo all",
        ]);
    });
    let told = told.unwrap();
    assert!(
        told.text.contains("can't fork"),
        "{:?} {}",
        told.status,
        told.text
    );
}

fn kill_builder(stage: &Stage) {
    let mark = mark();
    let mut builder = Command::new("/proc/self/exe")
        .arg("--job")
        .arg(stage.directory.path())
        .arg(format!(
            "echo x > /data/x; trap '' TERM; while :; do sleep {mark}; done"
        ))
        .spawn()
        .unwrap();
    wait_until(|| is_running(&mark));
    builder.kill().unwrap();
    builder.wait().unwrap();
    wait_until(|| !is_running(&mark));
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(
        !mounts.contains(stage.directory.path().to_str().unwrap()),
        "{mounts}"
    );
    assert_eq!(names(&stage.path("builder/upper/data")), ["x"]);
    fs::remove_dir_all(stage.path("builder")).unwrap();
}

fn shell(stage: &Stage) {
    let script = "[ -t 0 ] && [ -t 1 ] && echo terminal; awk '{ print $5 == $8 ? \"in\" : \"not in\", \"front\" }' /proc/$$/stat; read line; echo got $line";
    let command = format!(
        "'{}' --shell '{}' '{}'",
        env::current_exe().unwrap().display(),
        stage.directory.path().display(),
        script.replace('\'', r"'\''"),
    );
    let mut terminal = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut terminal.stdin.take().unwrap(), b"words\n").unwrap();
    let output = terminal.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap().replace('\r', "");
    let lines: Vec<&str> = text.lines().filter(|line| *line != "words").collect();
    assert_eq!(
        lines,
        [
            "terminal",
            "in front",
            "got words",
            "builder in front: true"
        ]
    );
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "it takes too long"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn limits(stage: &Stage) {
    let program = env::current_exe().unwrap();
    let output = Command::new("prlimit")
        .arg("--nofile=1024:1024")
        .arg(program)
        .arg("--job")
        .arg(stage.directory.path())
        .arg("true")
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "cannot set the limit RLIMIT_NOFILE\n"
    );
}

/// Asked as `doctor` asks: by a user who has not yet entered a namespace.
fn probes(name: &str) {
    let scratch = tempfile::tempdir().unwrap();
    for probe in probe(scratch.path()).unwrap() {
        let expected = match (name, probe.name) {
            ("single", "ids") => Outcome::Limited,
            _ => Outcome::Works,
        };
        assert_eq!(probe.outcome, expected, "{probe:?}");
    }
    assert_eq!(names(scratch.path()), <[&str; 0]>::default());
    println!("test {name}::every_probe_works_here ... ok");
}

/// What this program does as a step.
mod inside {
    #![allow(unsafe_code, reason = "raw system calls are what is tested")]

    pub(super) fn tell(what: &str) {
        match what {
            "calls" => calls(),
            "ids" => ids(),
            "capability" => capability(),
            "attributes" => attributes(),
            "rights" => super::rights::tell(),
            "connect" => {
                let error = std::net::TcpStream::connect("192.0.2.1:80").unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH));
                println!("ENETUNREACH");
            }
            "addresses" => {
                let local = 0;
                println!(
                    "{:p} {:p} {:p}",
                    &raw const local,
                    Box::new(1),
                    tell as fn(&str)
                );
            }
            #[cfg(target_arch = "x86_64")]
            "ia32" => {
                // SAFETY: getpid of the 32-bit ABI takes and touches nothing.
                unsafe { std::arch::asm!("int 0x80", inout("eax") 20 => _) };
                println!("survived");
            }
            other => panic!("{other}"),
        }
    }

    /// Gives a file `cap_net_raw` (capabilities(7), "File capability extended attribute versioning").
    fn capability() {
        let value: [u8; 20] = [
            1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr("/data/kept", "security.capability", &value, flags).unwrap();
    }

    /// Lists the attributes of a file, and tries to forge one.
    fn attributes() {
        let mut list = [0; 256];
        let length = rustix::fs::listxattr("/data/kept", list.as_mut_slice()).unwrap();
        // SAFETY: without room nothing is written.
        let asked = unsafe { libc::listxattr(c"/data/kept".as_ptr(), std::ptr::null_mut(), 0) };
        // An overlay counts what it does not show, too.
        assert!(usize::try_from(asked).unwrap() >= length);
        let names = list[..length].split(|byte| *byte == 0);
        let names: Vec<_> = names.map(String::from_utf8_lossy).collect();
        println!("[{}]", names.concat());
        let flags = rustix::fs::XattrFlags::CREATE;
        let forged = rustix::fs::setxattr("/data", "user.immbuild.owner", b"5:6", flags);
        println!("{}", if forged.is_ok() { "ok" } else { "EPERM" });
    }

    /// Becomes somebody, says so, and tries to come back.
    fn ids() {
        let groups: [libc::gid_t; 2] = [9, 7];
        let mut found: [libc::gid_t; 8] = [0; 8];
        // SAFETY: the arrays are as long as is said.
        unsafe {
            assert_eq!(libc::setgroups(2, groups.as_ptr()), 0);
            assert_eq!(libc::setresgid(6, 6, 6), 0);
            assert_eq!(libc::setresuid(5, 5, 5), 0);
            let count = libc::getgroups(8, found.as_mut_ptr());
            let groups = &found[..usize::try_from(count).unwrap()];
            print!("{} {} {groups:?}", libc::getuid(), libc::getegid());
            assert_eq!(libc::setuid(0), -1);
        }
        let refused = std::io::Error::last_os_error().raw_os_error();
        assert_eq!(refused, Some(libc::EPERM));
        println!(" EPERM");
    }

    fn calls() {
        // SAFETY: all arguments are numbers or null, and none of the calls gets as far as using them.
        let call = |number: libc::c_long, a: libc::c_long, b: libc::c_long| unsafe {
            libc::syscall(number, a, b, 0, 0, 0)
        };
        let name = |result: libc::c_long| match result {
            -1 => match std::io::Error::last_os_error().raw_os_error().unwrap() {
                libc::ENOSYS => "ENOSYS".to_owned(),
                libc::EPERM => "EPERM".to_owned(),
                libc::EAFNOSUPPORT => "EAFNOSUPPORT".to_owned(),
                other => format!("error {other}"),
            },
            _ => "ok".to_owned(),
        };
        println!("add_key {}", name(call(libc::SYS_add_key, 0, 0)));
        println!("bpf {}", name(call(libc::SYS_bpf, 0, 0)));
        println!(
            "io_uring_setup {}",
            name(call(libc::SYS_io_uring_setup, 1, 0))
        );
        println!("keyctl {}", name(call(libc::SYS_keyctl, 0, 0)));
        println!(
            "perf_event_open {}",
            name(call(libc::SYS_perf_event_open, 0, 0))
        );
        println!("personality(0) {}", name(call(libc::SYS_personality, 0, 0)));
        println!(
            "personality(query) {:#x}",
            call(libc::SYS_personality, 0xffff_ffff, 0)
        );
        let stream = libc::SOCK_STREAM.into();
        println!(
            "socket(AF_VSOCK) {}",
            name(call(libc::SYS_socket, libc::AF_VSOCK.into(), stream))
        );
        println!(
            "socket(AF_INET) {}",
            name(call(libc::SYS_socket, libc::AF_INET.into(), stream))
        );
        println!(
            "ioctl(TIOCSTI) {}",
            name(call(libc::SYS_ioctl, 0, libc::TIOCSTI.cast_signed()))
        );
        println!(
            "x32 getpid {}",
            name(call(0x4000_0000 | libc::SYS_getpid, 0, 0))
        );
        let mut now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the time lives through the call.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
        println!(
            "monotonic {} 60 s",
            if now.tv_sec < 60 { "<" } else { ">=" }
        );
    }
}
