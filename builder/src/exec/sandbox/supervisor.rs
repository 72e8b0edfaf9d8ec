//! The processes around a step.
//!
//! ```text
//! builder ──exec──▶ supervisor ──clone──▶ init (pid 1) ──fork──▶ the step (pid 2)
//!            same ids, no namespace        all namespaces
//! ```
//!
//! The builder has threads, so it does not fork: it starts its own program again as a *supervisor*,
//! which has one thread and may do what it likes between fork and exec. That costs about a
//! millisecond. The supervisor writes the id maps, waits, and kills init when the builder says so or
//! is gone; when init dies, the kernel kills every process of the namespace, and with the last one the
//! mounts go. Init collects orphans and ends when the step's process ends.
//!
//! Init was started outside, so its memory (with the request in it) belongs to the outer user
//! namespace; being not dumpable it cannot be read or traced from inside.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read, Seek, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use immbuild_cas::canonical::Canonical;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, Rlimit, Signal, WaitOptions, WaitStatus};
use rustix::thread::{CapabilitySet, Gid, Uid, UnshareFlags};
use seccompiler::BpfProgram;

use super::idmap::{IdMap, unshare};
use super::policy::{CAPABILITIES, DOMAIN, HOSTNAME, LIMITS, NAMES, SECRETS, UMASK};
use super::request::{At, Failure, Left, Report, Request, Stage};
use super::{Status, mounts, seccomp, terminal};
use crate::exec::interpreter;
use crate::exec::tracer::{self, Tracer};
use crate::hostfs::owner::Owner;

/// Reads one request from standard input, runs it, answers there. The step's output goes to the
/// supervisor's own. Gives the exit code of the supervisor.
pub(super) fn supervise() -> i32 {
    let Ok(stdin) = io::stdin().as_fd().try_clone_to_owned() else {
        return 1;
    };
    let mut builder = UnixStream::from(stdin);
    let Some((request, terminal)) = receive(&mut builder) else {
        return 1;
    };
    let (report, evidence) = execute(&request, terminal.as_ref(), &builder)
        .unwrap_or_else(|failure| (Report::Failed(failure), Vec::new()));
    let report = report.to_canonical();
    let mut answer = (report.len() as u64).to_le_bytes().to_vec();
    answer.extend_from_slice(&report);
    answer.extend_from_slice(&evidence);
    // A builder that is gone needs no answer.
    i32::from(builder.write_all(&answer).is_err())
}

fn receive(builder: &mut UnixStream) -> Option<(Request, Option<OwnedFd>)> {
    let mut length = [0; 8];
    builder.read_exact(&mut length).ok()?;
    let mut bytes = vec![0; usize::try_from(u64::from_le_bytes(length)).ok()?];
    builder.read_exact(&mut bytes).ok()?;
    let request = Request::decode(&bytes).ok()?;
    let terminal = if request.terminal {
        Some(terminal::receive(builder).ok()?)
    } else {
        None
    };
    Some((request, terminal))
}

fn execute(
    request: &Request,
    terminal: Option<&OwnedFd>,
    builder: &UnixStream,
) -> Result<(Report, Vec<u8>), Failure> {
    rustix::process::umask(Mode::from_raw_mode(UMASK));
    mounts::prepare(request)?;
    let filters = seccomp::filters();
    let evidence = new_memory_file().at(Stage::Setup, "memfd_create")?;
    let (go_reader, mut go) = io::pipe().at(Stage::Setup, "pipe")?;
    let (mut reports, reporter) = io::pipe().at(Stage::Setup, "pipe")?;
    let Some(init) = clone_init().at(Stage::Namespaces, "clone3")? else {
        drop((go, reports));
        report_panics(&reporter).at(Stage::Setup, "pipe")?;
        let result = init(request, terminal, &filters, go_reader, &evidence);
        finish(&reporter, result);
    };
    drop((go_reader, reporter));
    let mapped = map_ids(init.pid, request.ids).at(Stage::Namespaces, "id map");
    if mapped.is_ok() {
        // If init is gone already, its report or the lack of one says so.
        let _ = go.write_all(b"!");
        wait_or_cancel(&init.handle, builder);
    }
    let _ = rustix::process::pidfd_send_signal(&init.handle, Signal::KILL);
    // Returns when no process of the namespace is left.
    let end = rustix::process::waitpid(Some(init.pid), WaitOptions::empty());
    let end = end.ok().flatten().map(|(_, status)| to_status(status));
    mapped?;
    if let Some(terminal) = terminal {
        terminal::take_back(terminal);
    }
    let mut report = Vec::new();
    reports.read_to_end(&mut report).at(Stage::Setup, "pipe")?;
    let report =
        Report::decode(&report).unwrap_or_else(|| Report::Failed(without_report(end.as_ref())));
    let mut bytes = Vec::new();
    let mut evidence = evidence;
    evidence.rewind().at(Stage::Setup, "evidence")?;
    evidence
        .read_to_end(&mut bytes)
        .at(Stage::Setup, "evidence")?;
    Ok((report, bytes))
}

/// Why init has said nothing.
fn without_report(end: Option<&Status>) -> Failure {
    let (stage, detail) = match end {
        Some(Status::Exited(code)) => (Stage::Defect, format!("it exited with {code}")),
        Some(Status::Signalled(signal)) if *signal != libc::SIGKILL => {
            (Stage::Defect, format!("it was killed by signal {signal}"))
        }
        _ => (Stage::Killed, String::new()),
    };
    Failure {
        stage,
        detail: detail.into_bytes(),
        errno: 0,
    }
}

/// From now on a panic is reported instead of printed into the step's log, and ends the process.
fn report_panics(reporter: &PipeWriter) -> io::Result<()> {
    let reporter = reporter.try_clone()?;
    std::panic::set_hook(Box::new(move |panic| {
        finish(&reporter, Err(of_panic(&panic.to_string())));
    }));
    Ok(())
}

fn of_panic(said: &str) -> Failure {
    /// A report is one write below `PIPE_BUF`.
    const LONGEST: usize = 1024;
    let mut detail = said.replace('\n', " ").into_bytes();
    detail.truncate(LONGEST);
    Failure {
        stage: Stage::Defect,
        detail,
        errno: 0,
    }
}

fn new_memory_file() -> io::Result<fs::File> {
    use rustix::fs::{MemfdFlags, memfd_create};
    Ok(memfd_create(c"evidence", MemfdFlags::CLOEXEC)?.into())
}

fn finish(mut reporter: &PipeWriter, result: Result<Status, Failure>) -> ! {
    let report = result.map_or_else(Report::Failed, Report::Ended);
    // One write below PIPE_BUF; without a reader there is nobody to tell.
    let _ = reporter.write_all(&report.to_canonical());
    exit_at_once()
}

#[allow(
    unsafe_code,
    reason = "ending a forked child without running what the parent registered"
)]
fn exit_at_once() -> ! {
    // SAFETY: `_exit` takes no pointer and does not return.
    unsafe { libc::_exit(0) }
}

struct Init {
    pid: Pid,
    handle: OwnedFd,
}

/// Forks into new namespaces; `None` in the child.
#[allow(unsafe_code, reason = "clone3(2) has no wrapper")]
fn clone_init() -> io::Result<Option<Init>> {
    let flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_PIDFD;
    let mut handle: libc::c_int = -1;
    // SAFETY: all zero is a valid `clone_args`.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = u64::from(flags.unsigned_abs());
    arguments.pidfd = &raw mut handle as u64;
    arguments.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    // SAFETY: without CLONE_VM and without a stack this is a fork; the supervisor has one thread, so
    // the child finds no lock held. Both pointers live through the call.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut arguments,
            size_of::<libc::clone_args>(),
        )
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Ok(None);
    };
    // SAFETY: the kernel has put a new descriptor there, which nobody else owns.
    let handle = unsafe { OwnedFd::from_raw_fd(handle) };
    Ok(Some(Init { pid, handle }))
}

fn map_ids(init: Pid, ids: IdMap) -> io::Result<()> {
    let directory = Path::new("/proc").join(init.as_raw_nonzero().to_string());
    fs::write(directory.join("uid_map"), ids.inner())?;
    fs::write(directory.join("gid_map"), ids.inner())
}

/// Returns when init has ended or the builder has closed its side.
fn wait_or_cancel(init: &OwnedFd, builder: &UnixStream) {
    loop {
        let mut sources = [
            PollFd::new(init, PollFlags::IN),
            PollFd::new(builder, PollFlags::IN | PollFlags::RDHUP),
        ];
        match poll(&mut sources, None) {
            Err(Errno::INTR) => {}
            _ => return,
        }
    }
}

/// Pid 1: builds the surroundings, starts the step, collects orphans until the step ends.
fn init(
    request: &Request,
    terminal: Option<&OwnedFd>,
    filters: &[BpfProgram],
    mut go: PipeReader,
    mut evidence: &fs::File,
) -> Result<Status, Failure> {
    if !matches!(go.read(&mut [0]), Ok(1)) {
        exit_at_once();
    }
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .at(Stage::Setup, "prctl")?;
    // The supervisor keeps its end open while it lives: it may have died before the line above.
    let mut supervisor = [PollFd::new(&go, PollFlags::IN)];
    let now = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    if poll(&mut supervisor, Some(&now)) != Ok(0) {
        exit_at_once();
    }
    let _ = rustix::thread::set_name(c"init");
    rustix::system::sethostname(HOSTNAME.as_bytes()).at(Stage::Setup, "host name")?;
    rustix::system::setdomainname(DOMAIN.as_bytes()).at(Stage::Setup, "domain name")?;
    loopback_up().at(Stage::Setup, "loopback interface")?;
    start_clocks_at_zero().at(Stage::Namespaces, "time namespace")?;
    let inside = mounts::enter(request)?;

    let (mut failures, failed) = io::pipe().at(Stage::Setup, "pipe")?;
    let (start, mut starter) = io::pipe().at(Stage::Setup, "pipe")?;
    let Some(step) = fork().at(Stage::Setup, "fork")? else {
        drop(starter);
        let failure = become_step(request, terminal, filters, start);
        finish(&failed, Err(failure));
    };
    drop((failed, start));
    // After the fork, because a process that cannot be looked into cannot be traced either; before
    // anything of the step's runs.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .at(Stage::Setup, "prctl")?;
    let Some(what) = request.virtualise else {
        starter.write_all(b"!").at(Stage::Setup, "pipe")?;
        // Ends with nothing read when exec closes the other end.
        failure_of(&mut failures, request)?;
        return collect_until_end(step);
    };
    let step = step.as_raw_nonzero().get();
    let mut tracer = Tracer::seize(step, what, NAMES).at(Stage::Setup, "ptrace")?;
    if what.owners {
        let user = (request.uid, request.gid);
        tracer = tracer.with_owners(user, owners_in_memory(request, user));
    }
    if let Some(inside) = inside {
        tracer = tracer
            .answering_inside(inside, mounts::INSIDE)
            .at(Stage::Setup, "table")?;
    }
    starter.write_all(b"!").at(Stage::Setup, "pipe")?;
    let ended = tracer.run(step).at(Stage::Setup, "trace")?;
    failure_of(&mut failures, request)?;
    evidence
        .write_all(&Left::of(&ended).to_canonical())
        .at(Stage::Setup, "evidence")?;
    Ok(match (ended.spin, ended.status) {
        (Some(spin), _) => Status::Spun(spin),
        (None, Ok(code)) => Status::Exited(code),
        (None, Err(signal)) => Status::Signalled(signal),
    })
}

/// Whose the files are that can have no note: secrets are the user's.
fn owners_in_memory(request: &Request, user: Owner) -> BTreeMap<Vec<u8>, Owner> {
    let mut owners = request.owners.clone();
    for (name, _) in &request.secrets {
        let path = Path::new("/").join(SECRETS).join(name);
        owners.insert(path.into_os_string().into_encoded_bytes(), user);
    }
    owners
}

/// Why the step's process did not become its program, if it did not.
fn failure_of(failures: &mut PipeReader, request: &Request) -> Result<(), Failure> {
    let mut failure = Vec::new();
    failures
        .read_to_end(&mut failure)
        .at(Stage::Setup, "pipe")?;
    match Report::decode(&failure) {
        Some(Report::Failed(failure)) => Err(explained(failure, request)),
        _ => Ok(()),
    }
}

/// With what the program lacks, if it is there: until it is executed, its process may not be looked into, so nothing that it does
/// can be traced, and init has to look.
fn explained(failure: Failure, request: &Request) -> Failure {
    if failure.stage != Stage::Program || failure.errno != libc::ENOENT {
        return failure;
    }
    let program = request.argv.first().map_or(b"".as_slice(), Vec::as_slice);
    let start = Path::new("/").join(&request.directory);
    let missing = candidates(program, request.env.get(b"PATH".as_slice()))
        .iter()
        .find_map(|candidate| {
            let file = start.join(std::ffi::OsStr::from_bytes(candidate));
            interpreter::missing(&file)
        });
    let Some(missing) = missing else {
        return failure;
    };
    Failure {
        stage: Stage::Interpreter,
        detail: [program, b"\0", &missing].concat(),
        ..failure
    }
}

fn collect_until_end(step: Pid) -> Result<Status, Failure> {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == step => return Ok(to_status(status)),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).at(Stage::Setup, "wait"),
        }
    }
}

fn to_status(status: WaitStatus) -> Status {
    match status.terminating_signal() {
        Some(signal) => Status::Signalled(signal),
        None => Status::Exited(status.exit_status().unwrap_or(0)),
    }
}

#[allow(unsafe_code, reason = "fork(2)")]
fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: this process has one thread, so the child finds no lock held.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// What is started next sees monotonic time and time since boot count from 0.
fn start_clocks_at_zero() -> io::Result<()> {
    use rustix::time::{ClockId, clock_gettime};
    unshare(UnshareFlags::NEWTIME)?;
    let offset = |clock| -clock_gettime(clock).tv_sec;
    let (monotonic, boot) = (offset(ClockId::Monotonic), offset(ClockId::Boottime));
    fs::write(
        "/proc/self/timens_offsets",
        format!("monotonic {monotonic} 0\nboottime {boot} 0\n"),
    )
}

#[allow(unsafe_code, reason = "interface flags are set by ioctl(2)")]
fn loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketType, socket};
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: all zero is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l'.cast_signed();
    request.ifr_name[1] = b'o'.cast_signed();
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP).expect("a small constant");
    let number = std::os::fd::AsRawFd::as_raw_fd(&socket);
    // SAFETY: the request is for an `ifreq`, which lives through the call.
    match unsafe { libc::ioctl(number, libc::SIOCSIFFLAGS, &raw const request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Becomes the step's process; returns only if that fails.
fn become_step(
    request: &Request,
    terminal: Option<&OwnedFd>,
    filters: &[BpfProgram],
    mut start: PipeReader,
) -> Failure {
    let result = (|| {
        if !matches!(start.read(&mut [0]), Ok(1)) {
            exit_at_once();
        }
        drop(start);
        attach_streams(terminal)?;
        default_signals();
        for (name, resource, limit) in LIMITS {
            let limit = Rlimit {
                current: limit,
                maximum: limit,
            };
            rustix::process::setrlimit(resource, limit).at(Stage::Limit, name)?;
        }
        set_personality().at(Stage::Setup, "personality")?;
        new_session_keyring();
        rustix::process::chdir(&request.directory).at(Stage::Directory, &request.directory)?;
        drop_privileges(request, filters)?;
        close_other_files().at(Stage::Setup, "close_range")?;
        execute_program(request)
    })();
    match result {
        Err(failure) => failure,
        Ok(never) => match never {},
    }
}

fn attach_streams(terminal: Option<&OwnedFd>) -> Result<(), Failure> {
    if let Some(terminal) = terminal {
        rustix::stdio::dup2_stdin(terminal).at(Stage::Setup, "terminal")?;
        terminal::make_foreground(terminal);
        return Ok(());
    }
    rustix::process::setsid().at(Stage::Setup, "setsid")?;
    let null = fs::File::open("/dev/null").at(Stage::Setup, "/dev/null")?;
    rustix::stdio::dup2_stdin(&null).at(Stage::Setup, "/dev/null")
}

/// Rust ignores SIGPIPE, and the builder's starter may have ignored or blocked others.
#[allow(unsafe_code, reason = "signal dispositions have no safe wrapper")]
fn default_signals() {
    // SAFETY: the default disposition runs no code of ours; signals that have none are refused, which
    // is as good. The set is made by `sigemptyset` before it is used.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

#[allow(unsafe_code, reason = "personality(2) has no wrapper")]
pub(super) fn set_personality() -> io::Result<()> {
    let value = libc::c_ulong::from(libc::ADDR_NO_RANDOMIZE.unsigned_abs());
    // SAFETY: takes a number.
    match unsafe { libc::personality(value) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// So that no key of the caller is reachable by whatever goes around the filter; a kernel without key
/// rings has none to reach.
#[allow(unsafe_code, reason = "keyctl(2) has no wrapper")]
fn new_session_keyring() {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous key ring.
    unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            JOIN_SESSION_KEYRING,
            std::ptr::null::<u8>(),
        )
    };
}

fn drop_privileges(request: &Request, filters: &[BpfProgram]) -> Result<(), Failure> {
    // Bits that this kernel does not know are refused as invalid; there is nothing to drop there.
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if !CAPABILITIES.contains(capability)
            && let Err(error) = rustix::thread::remove_capability_from_bounding_set(capability)
            && error != Errno::INVAL
        {
            return Err(error).at(Stage::Setup, "capabilities");
        }
    }
    if request.ids == IdMap::Range {
        rustix::thread::set_thread_groups(&[]).at(Stage::Setup, "groups")?;
    }
    let (uid, gid) = request.real_ids();
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).at(Stage::Setup, "group")?;
    // Filters before the user: installing them takes root.
    seccomp::install(filters).at(Stage::Setup, "seccomp")?;
    if let Some(what) = &request.virtualise {
        tracer::arm().at(Stage::Setup, "prctl(PR_SET_TSC)")?;
        seccomp::install(&[tracer::filter(what)]).at(Stage::Setup, "seccomp")?;
    }
    rustix::thread::set_thread_res_uid(uid, uid, uid).at(Stage::Setup, "user")
}

/// Everything above standard error goes at exec; until then the way to report stays open.
#[allow(unsafe_code, reason = "close_range(2) has no safe wrapper")]
fn close_other_files() -> io::Result<()> {
    // SAFETY: only marks descriptors, closes none.
    match unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// execve(2), with the search of execvp(3) in the step's own `PATH`.
fn execute_program(request: &Request) -> Result<std::convert::Infallible, Failure> {
    let program = request.argv.first().map_or(b"".as_slice(), Vec::as_slice);
    let name = Path::new(std::ffi::OsStr::from_bytes(program));
    let text = |bytes: &[u8]| {
        CString::new(bytes)
            .map_err(|_| Errno::INVAL)
            .at(Stage::Program, name)
    };
    let argv = request
        .argv
        .iter()
        .map(|word| text(word))
        .collect::<Result<Vec<_>, _>>()?;
    let env = request
        .env
        .iter()
        .map(|(name, value)| text(&[name, b"=".as_slice(), value].concat()))
        .collect::<Result<Vec<_>, _>>()?;
    let mut error = Errno::NOENT;
    for candidate in candidates(program, request.env.get(b"PATH".as_slice())) {
        match execve(&text(&candidate)?, &argv, &env) {
            // As execvp: look on, but remember that there was something.
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS => error = Errno::ACCESS,
            other => return Err(other).at(Stage::Program, name),
        }
    }
    Err(error).at(Stage::Program, name)
}

fn candidates(program: &[u8], path: Option<&Vec<u8>>) -> Vec<Vec<u8>> {
    if program.contains(&b'/') {
        return vec![program.to_vec()];
    }
    let directories = path
        .map_or(b"".as_slice(), Vec::as_slice)
        .split(|byte| *byte == b':');
    let absolute = directories.filter(|directory| directory.starts_with(b"/"));
    absolute
        .map(|directory| [directory, b"/", program].concat())
        .collect()
}

/// execve(2) itself: the C library's own wrappers try a shell where the kernel does not know what the program is.
#[allow(unsafe_code, reason = "execve(2) takes arrays of pointers")]
pub(super) fn execve(program: &CStr, argv: &[CString], env: &[CString]) -> Errno {
    let pointers = |words: &[CString]| -> Vec<*const libc::c_char> {
        words
            .iter()
            .map(|word| word.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both arrays end with null and point to strings that live through the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::NOENT)
}

#[cfg(test)]
mod tests {
    use super::super::{SandboxError, Status};
    use super::{candidates, of_panic, without_report};
    use crate::app::{Exit, Failure};

    fn told(failure: super::Failure) -> (Exit, String) {
        let failure = Failure::from(SandboxError::from(failure));
        (failure.exit, format!("{:?}", failure.diagnostics))
    }

    #[test]
    fn a_panic_of_init_is_a_defect_with_its_words() {
        let (exit, said) = told(of_panic("panicked at run.rs:1:\nno thread"));
        assert_eq!(exit, Exit::Defect);
        assert!(
            said.contains("the supervisor of the sandbox failed")
                && said.contains("panicked at run.rs:1: no thread")
                && said.contains("a defect of immbuild"),
            "{said}"
        );
        assert!(!said.contains("out-of-memory"), "{said}");
        let (_, said) = told(of_panic(&"long ".repeat(10_000)));
        assert!(said.len() < 4096);
    }

    #[test]
    fn only_who_was_killed_was_killed_from_outside() {
        let (exit, said) = told(without_report(Some(&Status::Signalled(libc::SIGKILL))));
        assert!(
            exit == Exit::Step && said.contains("killed from outside"),
            "{said}"
        );
        for (end, how) in [
            (Status::Exited(101), "it exited with 101"),
            (
                Status::Signalled(libc::SIGSEGV),
                "it was killed by signal 11",
            ),
        ] {
            let (exit, said) = told(without_report(Some(&end)));
            assert!(exit == Exit::Defect && said.contains(how), "{said}");
        }
    }

    #[test]
    fn a_word_without_slash_is_looked_for_in_absolute_directories_only() {
        let path = b"/a::rel:/b".to_vec();
        assert_eq!(
            candidates(b"x", Some(&path)),
            [b"/a/x".to_vec(), b"/b/x".to_vec()]
        );
        assert_eq!(candidates(b"./x", Some(&path)), [b"./x".to_vec()]);
        assert_eq!(candidates(b"x", None), Vec::<Vec<u8>>::new());
    }
}
