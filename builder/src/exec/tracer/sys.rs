//! The kernel's interface to traced processes: ptrace(2), their memory, their descriptors, waiting for them.
//!
//! Everything unsafe of the tracer is here.
#![allow(
    unsafe_code,
    reason = "ptrace(2) and process_vm_readv(2) have no safe wrapper"
)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::arch::Registers;

/// A thread's number in the tracer's pid namespace.
pub(super) type Tid = libc::pid_t;

/// What a thread did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// It is gone, and ended with this code.
    Exited(i32),
    /// It is gone, killed by this signal.
    Killed(i32),
    /// It is about to make a call that the filter names.
    Call,
    /// A call is over whose end was asked for.
    CallEnd,
    /// It started a process or a thread.
    Started(Started),
    /// The process that it started by vfork(2) has its own memory now, or is gone.
    VforkDone,
    /// It runs another program now.
    Exec,
    /// It stopped because it was asked to, or has just been born.
    Interrupted,
    /// It is stopped together with its process, by this signal.
    GroupStop,
    /// A signal is about to be delivered.
    Signal(i32),
}

/// How a new thread was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Started {
    /// fork(2)
    Fork,
    /// vfork(2)
    Vfork,
    /// clone(2) in any other form.
    Clone,
}

/// How a stopped thread goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resume {
    /// To its next call that the filter names.
    Run,
    /// To the end of the call it is in, or to any call.
    ToCallEnd,
    /// It stays stopped with its process, until the process is continued.
    Listen,
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn ptrace(request: libc::c_uint, tid: Tid, address: usize, data: usize) -> io::Result<()> {
    // SAFETY: the callers pass addresses that live through the call where the request takes one.
    check(unsafe { libc::ptrace(request, tid, address, data) }).map(|_| ())
}

/// Starts tracing `tid` and all it will start; when the tracer ends, they are killed.
pub(super) fn seize(tid: Tid, strict: bool) -> io::Result<()> {
    let options = libc::PTRACE_O_TRACESYSGOOD
        | libc::PTRACE_O_TRACESECCOMP
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEEXEC
        | libc::PTRACE_O_EXITKILL
        | if strict {
            libc::PTRACE_O_TRACEVFORKDONE
        } else {
            0
        };
    let options = usize::try_from(options).expect("a set of small bits");
    ptrace(libc::PTRACE_SEIZE, tid, 0, options)
}

/// Lets a stopped thread go on. One that was killed meanwhile is no error: its end will be told.
pub(super) fn resume(tid: Tid, how: Resume, signal: i32) -> io::Result<()> {
    let request = match how {
        Resume::Run => libc::PTRACE_CONT,
        Resume::ToCallEnd => libc::PTRACE_SYSCALL,
        Resume::Listen => libc::PTRACE_LISTEN,
    };
    gone_is_fine(ptrace(
        request,
        tid,
        0,
        usize::try_from(signal).unwrap_or(0),
    ))
}

/// Stops a running or waiting thread.
pub(super) fn interrupt(tid: Tid) -> io::Result<()> {
    gone_is_fine(ptrace(libc::PTRACE_INTERRUPT, tid, 0, 0))
}

/// What `ESRCH` means for a thread that is being killed.
fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if is_gone(&error) => Ok(()),
        result => result,
    }
}

/// Is the thread dead, or dying?
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESRCH)
}

/// The number that goes with the event a thread is stopped at.
pub(super) fn event_message(tid: Tid) -> io::Result<u64> {
    let mut message: libc::c_ulong = 0;
    ptrace(libc::PTRACE_GETEVENTMSG, tid, 0, &raw mut message as usize)?;
    Ok(message)
}

/// The registers of a stopped thread.
pub(super) fn registers(tid: Tid) -> io::Result<Registers> {
    let mut registers = std::mem::MaybeUninit::<Registers>::zeroed();
    let mut vector = libc::iovec {
        iov_base: registers.as_mut_ptr().cast(),
        iov_len: size_of::<Registers>(),
    };
    ptrace(
        libc::PTRACE_GETREGSET,
        tid,
        NT_PRSTATUS,
        &raw mut vector as usize,
    )?;
    if vector.iov_len != size_of::<Registers>() {
        // Those of another architecture, as of a 32-bit program.
        return Err(io::Error::from_raw_os_error(libc::ENOEXEC));
    }
    // SAFETY: integers only; zero before, the kernel's after.
    Ok(unsafe { registers.assume_init() })
}

const NT_PRSTATUS: usize = 1;
const NT_PRFPREG: usize = 2;

/// The floating point and vector registers of a stopped thread, in a form that is only compared.
pub(super) fn float_registers(tid: Tid) -> io::Result<Vec<u8>> {
    let mut registers = vec![0; 4096];
    let mut vector = libc::iovec {
        iov_base: registers.as_mut_ptr().cast(),
        iov_len: registers.len(),
    };
    ptrace(
        libc::PTRACE_GETREGSET,
        tid,
        NT_PRFPREG,
        &raw mut vector as usize,
    )?;
    registers.truncate(vector.iov_len);
    Ok(registers)
}

/// Changes the registers of a stopped thread.
pub(super) fn set_registers(tid: Tid, registers: &Registers) -> io::Result<()> {
    let mut copy = registers.clone();
    let mut vector = libc::iovec {
        iov_base: (&raw mut copy).cast(),
        iov_len: size_of::<Registers>(),
    };
    gone_is_fine(ptrace(
        libc::PTRACE_SETREGSET,
        tid,
        NT_PRSTATUS,
        &raw mut vector as usize,
    ))
}

/// Code and, for a fault, address of the signal a thread is stopped at.
pub(super) fn signal_code(tid: Tid) -> io::Result<i32> {
    // SAFETY: all zero is a valid `siginfo_t`.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    ptrace(libc::PTRACE_GETSIGINFO, tid, 0, &raw mut info as usize)?;
    Ok(info.si_code)
}

/// Takes the processor time of a child out of the signal that tells of its end (sigaction(2), `si_utime`).
pub(super) fn hide_child_times(tid: Tid) -> io::Result<()> {
    /// Two times, behind status (`__kernel_sigchld`).
    const TIMES: std::ops::Range<usize> = 32..48;
    let mut info = [0u8; size_of::<libc::siginfo_t>()];
    ptrace(libc::PTRACE_GETSIGINFO, tid, 0, info.as_mut_ptr() as usize)?;
    // The code of a signal that a process has sent is not above 0; it says what it was given.
    let code = i32::from_ne_bytes(info[8..12].try_into().expect("four bytes"));
    if code <= 0 || info[TIMES].iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    info[TIMES].fill(0);
    ptrace(libc::PTRACE_SETSIGINFO, tid, 0, info.as_mut_ptr() as usize).map(drop)
}

/// Waits for any traced thread or child.
pub(super) fn wait(block: bool) -> io::Result<Option<(Tid, Event)>> {
    let mut status = 0;
    let flags = libc::__WALL | if block { 0 } else { libc::WNOHANG };
    loop {
        // SAFETY: the pointer lives through the call.
        match check(unsafe { libc::waitpid(-1, &raw mut status, flags) }.into()) {
            Ok(0) => return Ok(None),
            Ok(tid) => {
                let tid = Tid::try_from(tid).expect("a pid");
                return Ok(Some((tid, event(status))));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A traced thread that has stopped; whoever has ended stays unreaped.
pub(super) fn wait_stopped() -> io::Result<Option<(Tid, Event)>> {
    let (tid, status) = match wait_id(None, libc::WSTOPPED) {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(None),
        // All have ended, and none of them is counted here.
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(None),
        Err(error) => return Err(error),
    };
    // As waitpid(2) gives it.
    Ok(Some((tid, event(status << 8 | 0x7f))))
}

/// Has any traced thread or child stopped or ended? It is told again.
pub(super) fn has_news() -> io::Result<bool> {
    let all = libc::WSTOPPED | libc::WEXITED | libc::WNOWAIT;
    Ok(wait_id(None, all)?.is_some())
}

/// A traced thread or child, or this one, that has ended and can be reaped; it stays unreaped.
pub(super) fn ended(which: Option<Tid>) -> io::Result<Option<Tid>> {
    Ok(wait_id(which, libc::WEXITED | libc::WNOWAIT)?.map(|(tid, _)| tid))
}

/// Who, and `si_status`.
fn wait_id(which: Option<Tid>, flags: i32) -> io::Result<Option<(Tid, i32)>> {
    let flags = flags | libc::__WALL | libc::WNOHANG;
    let (kind, id) = match which {
        Some(tid) => (libc::P_PID, tid.unsigned_abs()),
        None => (libc::P_ALL, 0),
    };
    loop {
        // SAFETY: all zero is a valid `siginfo_t`.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer lives through the call.
        match check(unsafe { libc::waitid(kind, id, &raw mut info, flags) }.into()) {
            Ok(_) => {
                // SAFETY: waitid(2) has filled in these two, or left them zero.
                let (tid, status) = unsafe { (info.si_pid(), info.si_status()) };
                return Ok((tid != 0).then_some((tid, status)));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if which.is_some() && error.raw_os_error() == Some(libc::ECHILD) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Reaps one that has ended; only then its parent is told.
pub(super) fn reap(tid: Tid) -> io::Result<Event> {
    let mut status = 0;
    // SAFETY: the pointer lives through the call.
    check(unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) }.into())?;
    Ok(event(status))
}

/// ptrace(2), "Stopped tracees".
fn event(status: i32) -> Event {
    if libc::WIFEXITED(status) {
        return Event::Exited(libc::WEXITSTATUS(status));
    }
    if libc::WIFSIGNALED(status) {
        return Event::Killed(libc::WTERMSIG(status));
    }
    let signal = libc::WSTOPSIG(status);
    match status >> 16 {
        libc::PTRACE_EVENT_SECCOMP => Event::Call,
        libc::PTRACE_EVENT_FORK => Event::Started(Started::Fork),
        libc::PTRACE_EVENT_VFORK => Event::Started(Started::Vfork),
        libc::PTRACE_EVENT_CLONE => Event::Started(Started::Clone),
        libc::PTRACE_EVENT_VFORK_DONE => Event::VforkDone,
        libc::PTRACE_EVENT_EXEC => Event::Exec,
        libc::PTRACE_EVENT_STOP if signal == libc::SIGTRAP => Event::Interrupted,
        libc::PTRACE_EVENT_STOP => Event::GroupStop,
        _ if signal == libc::SIGTRAP | 0x80 => Event::CallEnd,
        _ => Event::Signal(signal),
    }
}

/// Keeps the news of children for [`wait_for_news`], instead of interrupting calls.
pub(super) fn block_news() -> io::Result<()> {
    let set = news();
    // SAFETY: the set is initialised and lives through the call.
    let result =
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(result))
    }
}

fn news() -> libc::sigset_t {
    // SAFETY: `sigemptyset` makes a valid set of it before it is used.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        set
    }
}

/// Waits until a thread has something to tell, or for so long.
pub(super) fn wait_for_news(longest: Duration) {
    let set = news();
    let timeout = libc::timespec {
        tv_sec: longest.as_secs().cast_signed(),
        tv_nsec: longest.subsec_nanos().into(),
    };
    // SAFETY: both pointers live through the call.
    unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const timeout) };
}

/// Reads the memory of a process: how many bytes there were.
pub(super) fn read_memory(tid: Tid, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let local = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let remote = libc::iovec {
        iov_base: address as *mut libc::c_void,
        iov_len: buffer.len(),
    };
    // SAFETY: the local vector is the buffer; the remote one is the other process' business.
    let count =
        check(
            unsafe { libc::process_vm_readv(tid, &raw const local, 1, &raw const remote, 1, 0) }
                as _,
        )?;
    Ok(usize::try_from(count).expect("not negative"))
}

/// Writes all of it, or fails with `EFAULT`.
pub(super) fn write_memory(tid: Tid, address: u64, bytes: &[u8]) -> io::Result<()> {
    let local = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let remote = libc::iovec {
        iov_base: address as *mut libc::c_void,
        iov_len: bytes.len(),
    };
    // SAFETY: as above; the local side is only read.
    let count =
        check(
            unsafe { libc::process_vm_writev(tid, &raw const local, 1, &raw const remote, 1, 0) }
                as _,
        )?;
    if usize::try_from(count) == Ok(bytes.len()) {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EFAULT))
    }
}

/// As [`write_memory`], in many places.
pub(super) fn write_places(tid: Tid, places: &[(u64, Vec<u8>)]) -> io::Result<()> {
    let vector = |start, bytes: &[u8]| libc::iovec {
        iov_base: start,
        iov_len: bytes.len(),
    };
    let (local, remote): (Vec<_>, Vec<_>) = places
        .iter()
        .map(|(address, bytes)| {
            let here = bytes.as_ptr().cast_mut().cast();
            let there = *address as *mut libc::c_void;
            (vector(here, bytes), vector(there, bytes))
        })
        .unzip();
    let count = libc::c_ulong::try_from(places.len()).expect("a few");
    // SAFETY: the local vectors are the slices, which are only read; the remote ones are the other process' business.
    let written = check(unsafe {
        libc::process_vm_writev(tid, local.as_ptr(), count, remote.as_ptr(), count, 0)
    } as _)?;
    let whole: usize = places.iter().map(|(_, bytes)| bytes.len()).sum();
    if usize::try_from(written) == Ok(whole) {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EFAULT))
    }
}

/// The words at these addresses, up to the first that cannot be read.
pub(super) fn read_words(tid: Tid, addresses: &[u64]) -> io::Result<Vec<[u8; 8]>> {
    let mut words = vec![[0; 8]; addresses.len()];
    let local = libc::iovec {
        iov_base: words.as_mut_ptr().cast(),
        iov_len: 8 * words.len(),
    };
    let vector = |address: &u64| libc::iovec {
        iov_base: *address as *mut libc::c_void,
        iov_len: 8,
    };
    let remote: Vec<libc::iovec> = addresses.iter().map(vector).collect();
    let count = libc::c_ulong::try_from(remote.len()).expect("a few");
    // SAFETY: the local vector is the buffer; the remote ones are the other process' business.
    let read =
        check(
            unsafe { libc::process_vm_readv(tid, &raw const local, 1, remote.as_ptr(), count, 0) }
                as _,
        )?;
    words.truncate(usize::try_from(read).expect("not negative") / 8);
    Ok(words)
}

/// Changes memory that the process itself may not write, as its code.
pub(super) fn patch_memory(tid: Tid, address: u64, bytes: [u8; 8]) -> io::Result<()> {
    let address = usize::try_from(address).expect("addresses have the size of a word");
    ptrace(
        libc::PTRACE_POKETEXT,
        tid,
        address,
        usize::from_ne_bytes(bytes),
    )
}

/// As [`patch_memory`], for more than a word.
pub(super) fn patch_code(tid: Tid, address: u64, code: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let memory = std::fs::File::options()
        .write(true)
        .open(format!("/proc/{tid}/mem"));
    if let Ok(memory) = memory {
        return memory.write_all_at(code, address);
    }
    // It has rights that its file in /proc is kept from us for.
    for (at, part) in (address..).step_by(8).zip(code.chunks(8)) {
        let mut word = [0; 8];
        read_memory(tid, at, &mut word)?;
        word[..part.len()].copy_from_slice(part);
        patch_memory(tid, at, word)?;
    }
    Ok(())
}

/// A file of `/proc` about a thread.
pub(super) fn open_proc(tid: Tid, name: &str) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(open(format!("/proc/{tid}/{name}"), flags, Mode::empty())?)
}

/// What a small file of `/proc` says now.
pub(super) fn read_proc(file: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut text = vec![0; 1024];
    let length = rustix::io::pread(file, text.as_mut_slice(), 0)?;
    text.truncate(length);
    Ok(text)
}

/// A descriptor for a process.
pub(super) fn open_process(pid: Tid) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers.
    let number = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(RawFd::try_from(number).expect("a descriptor")) })
}

/// A copy of a process' descriptor, with the same open file.
pub(super) fn descriptor_of(process: &OwnedFd, number: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers.
    let number =
        check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(RawFd::try_from(number).expect("a descriptor")) })
}

/// A file as a process finds it in its own root and mounts.
pub(super) fn open_in_root(
    tid: Tid,
    directory: i32,
    path: &[u8],
    follow: bool,
) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let link = |what: &str| format!("/proc/{tid}/{what}");
    let root = open(link("root"), flags, Mode::empty())?;
    let whole = if path.starts_with(b"/") {
        path.to_vec()
    } else {
        let start = if directory == libc::AT_FDCWD {
            link("cwd")
        } else {
            link(&format!("fd/{directory}"))
        };
        let home = super::files::path_of(&CString::new(link("root"))?);
        let here = super::files::path_of(&CString::new(start)?);
        // Where a link in the path begins at the root, that is the process' root.
        let below = match home.as_slice() {
            b"/" => Some(here.as_slice()),
            home => here.strip_prefix(home),
        };
        let below = below.ok_or(io::ErrorKind::NotFound)?;
        [b"/", below, b"/", path].concat()
    };
    let last = if follow {
        OFlags::empty()
    } else {
        OFlags::NOFOLLOW
    };
    let (flags, within) = (flags | last, ResolveFlags::IN_ROOT);
    Ok(openat2(root, whole, flags, Mode::empty(), within)?)
}

/// Are both the same open file?
pub(super) fn same_file(one: &OwnedFd, other: &OwnedFd) -> bool {
    const KCMP_FILE: libc::c_int = 0;
    // SAFETY: takes numbers.
    let result = unsafe {
        let own = libc::getpid();
        libc::syscall(
            libc::SYS_kcmp,
            own,
            own,
            KCMP_FILE,
            one.as_raw_fd(),
            other.as_raw_fd(),
        )
    };
    result == 0
}

/// Sets off a timer descriptor.
pub(super) fn fire_timer(timer: &OwnedFd) {
    // SAFETY: all zero is valid; the pointer lives through the call.
    unsafe {
        let mut soon: libc::itimerspec = std::mem::zeroed();
        soon.it_value.tv_nsec = 1;
        libc::timerfd_settime(timer.as_raw_fd(), 0, &raw const soon, std::ptr::null_mut());
    }
}

/// Has it gone off without anybody reading it?
pub(super) fn is_readable(timer: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(timer, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&now)), Ok(1..))
}

/// Says how often it went off (`timerfd_create(2)`); only kernels with `CONFIG_CHECKPOINT_RESTORE` can.
pub(super) fn set_ticks(timer: &OwnedFd, ticks: u64) -> bool {
    const TFD_IOC_SET_TICKS: libc::Ioctl = 0x4008_5400;
    // SAFETY: the pointer lives through the call.
    unsafe { libc::ioctl(timer.as_raw_fd(), TFD_IOC_SET_TICKS, &raw const ticks) == 0 }
}

/// Disarms a timer descriptor and forgets how often it went off.
pub(super) fn disarm_timer(timer: &OwnedFd) {
    // SAFETY: as above.
    unsafe {
        let never: libc::itimerspec = std::mem::zeroed();
        libc::timerfd_settime(timer.as_raw_fd(), 0, &raw const never, std::ptr::null_mut());
    }
}

/// Sends a signal as a timer of the process would: to the process, or to one thread of it.
pub(super) fn send_timer_signal(
    process: Tid,
    thread: Option<Tid>,
    signal: i32,
    timer: i32,
    value: u64,
) {
    /// The head of `siginfo_t` and the fields of `SI_TIMER` (sigaction(2)).
    #[repr(C)]
    struct Info {
        signal: i32,
        error: i32,
        code: i32,
        padding: i32,
        timer: i32,
        overrun: i32,
        value: u64,
        rest: [u64; 12],
    }
    const _: () = assert!(size_of::<Info>() == size_of::<libc::siginfo_t>());
    const SI_TIMER: i32 = -2;
    let info = Info {
        signal,
        error: 0,
        code: SI_TIMER,
        padding: 0,
        timer,
        overrun: 0,
        value,
        rest: [0; 12],
    };
    // SAFETY: the structure has the kernel's size and lives through the call. A process that is gone
    // needs no signal.
    unsafe {
        match thread {
            Some(thread) => libc::syscall(
                libc::SYS_rt_tgsigqueueinfo,
                process,
                thread,
                signal,
                &raw const info,
            ),
            None => libc::syscall(libc::SYS_rt_sigqueueinfo, process, signal, &raw const info),
        }
    };
}

/// `statx` of a path as the tracer sees it, or of the file itself where the path is empty.
pub(super) fn statx(
    directory: RawFd,
    path: &std::ffi::CStr,
    flags: i32,
) -> io::Result<libc::statx> {
    statx_of(directory, path, flags, STATX_MASK)
}

/// The number of the mount at a path that no other mount gets; none where the kernel has no such numbers.
pub(super) fn unique_mount(path: &std::ffi::CStr) -> Option<u64> {
    let found = statx_of(libc::AT_FDCWD, path, 0, STATX_MNT_ID_UNIQUE).ok()?;
    (found.stx_mask & STATX_MNT_ID_UNIQUE != 0).then_some(found.stx_mnt_id)
}

fn statx_of(
    directory: RawFd,
    path: &std::ffi::CStr,
    flags: i32,
    mask: u32,
) -> io::Result<libc::statx> {
    let mut result = std::mem::MaybeUninit::<libc::statx>::zeroed();
    let (path, to) = (path.as_ptr(), result.as_mut_ptr());
    // SAFETY: both pointers live through the call.
    let code = unsafe { libc::statx(directory, path, flags, mask, to) };
    check(code.into())?;
    // SAFETY: integers only; zero before, the kernel's after.
    Ok(unsafe { result.assume_init() })
}

/// What we ask for, and show of every file.
pub(super) const STATX_MASK: u32 = libc::STATX_BASIC_STATS | libc::STATX_BTIME | STATX_MNT_ID;
/// The same with the unique number of the mount.
pub(super) const STATX_MASK_UNIQUE: u32 = STATX_MASK & !STATX_MNT_ID | STATX_MNT_ID_UNIQUE;
/// Since Linux 5.8.
const STATX_MNT_ID: u32 = 0x1000;
/// Since Linux 6.8, instead of the other where it is asked for: that number is not given to another mount.
pub(super) const STATX_MNT_ID_UNIQUE: u32 = 0x4000;

/// The time stamp counter faults from now on, in this thread and all it starts.
pub(super) fn hide_time_stamp_counter() -> io::Result<()> {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: takes numbers.
        check(unsafe { libc::prctl(libc::PR_SET_TSC, libc::PR_TSC_SIGSEGV, 0, 0, 0) }.into())?;
    }
    Ok(())
}

/// Where the calling process has its vDSO.
pub(super) fn own_vdso() -> Option<u64> {
    // SAFETY: takes a number.
    match unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) } {
        0 => None,
        at => Some(at),
    }
}

/// Is it a socket with a stream of bytes?
pub(super) fn is_stream_socket(file: &OwnedFd) -> bool {
    rustix::net::sockopt::socket_type(file) == Ok(rustix::net::SocketType::STREAM)
}

/// How many bytes were sent on a socket that nobody has read yet.
pub(super) fn bytes_unread(socket: &impl AsRawFd) -> i32 {
    let mut count = 0;
    // SAFETY: the pointer lives through the call.
    unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    count
}

/// read(2) on this socket gives all that is asked for, and waits for it (`SO_RCVLOWAT`).
pub(super) fn read_all_or_wait(socket: &OwnedFd) -> io::Result<()> {
    let least = libc::c_int::MAX;
    let size = libc::socklen_t::try_from(size_of::<libc::c_int>()).expect("four bytes");
    // SAFETY: the pointer is to `size` bytes and lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const least).cast(),
            size,
        )
    };
    check(result.into()).map(|_| ())
}

/// The machine's clock, in the precision of file times: what is written from now on is not older.
pub(super) fn file_clock() -> (i64, u32) {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    (now.tv_sec, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// All zero.
pub(super) fn zero_statx_time() -> libc::statx_timestamp {
    // SAFETY: integers only.
    unsafe { std::mem::zeroed() }
}

/// All zero.
pub(super) fn zero_statx() -> libc::statx {
    // SAFETY: integers only.
    unsafe { std::mem::zeroed() }
}

/// `struct statx` as the kernel writes it.
pub(super) fn bytes_of_statx(from: &libc::statx) -> &[u8] {
    // SAFETY: the structure is integers, its padding was zeroed by whoever made it (the kernel, or
    // `zero_statx`), and the slice lives as long as it.
    unsafe { std::slice::from_raw_parts((&raw const *from).cast(), size_of::<libc::statx>()) }
}

/// The reverse.
pub(super) fn statx_of_bytes(bytes: &[u8; size_of::<libc::statx>()]) -> libc::statx {
    // SAFETY: any bits are valid integers; the array may be less aligned.
    unsafe { bytes.as_ptr().cast::<libc::statx>().read_unaligned() }
}

/// Memory of a file that others have mapped too.
#[derive(Debug)]
pub(super) struct Shared {
    /// Open as long as others may look for it.
    _file: std::fs::File,
    start: std::ptr::NonNull<u8>,
    length: usize,
}

impl Shared {
    /// Makes an empty file so long.
    pub(super) fn new(file: std::fs::File, length: usize) -> io::Result<Self> {
        file.set_len(length as u64)?;
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = std::ptr::NonNull::new(start.cast()).expect("the kernel maps nothing at 0");
        Ok(Self {
            _file: file,
            start,
            length,
        })
    }

    /// Writes `bytes`, which must lie within.
    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) {
        assert!(bytes.len() <= self.length && at <= self.length - bytes.len());
        // SAFETY: the place is within the mapping, which lives as long as `self`; others only read, code that takes what
        // it finds for plain numbers.
        unsafe {
            let to = self.start.add(at);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.as_ptr(), bytes.len());
        }
    }

    /// Writes a word, at a multiple of its size: whoever sees it sees what was written before.
    pub(super) fn publish(&mut self, at: usize, word: u64) {
        assert!(at.is_multiple_of(8) && at < self.length - 7);
        // SAFETY: as above; pages are aligned, so the word is.
        let place =
            unsafe { std::sync::atomic::AtomicU64::from_ptr(self.start.add(at).cast().as_ptr()) };
        place.store(word, std::sync::atomic::Ordering::Release);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and used by nobody any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// The code of the architecture's `inside` module.
pub(super) fn inside_code() -> &'static [u8] {
    unsafe extern "C" {
        static immbuild_inside_start: u8;
        static immbuild_inside_end: u8;
    }
    // SAFETY: both are labels around one piece of read-only data.
    unsafe {
        let start = &raw const immbuild_inside_start;
        let end = &raw const immbuild_inside_end;
        std::slice::from_raw_parts(start, end.addr() - start.addr())
    }
}
