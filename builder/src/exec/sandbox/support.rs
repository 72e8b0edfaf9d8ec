//! Whether this machine lets steps have a tier above `isolated`, found out by doing what the tracer does.
//!
//! Effects: processes.

use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, WaitOptions};

use super::probe::{Outcome, Trial, or_profile, start};
use super::{PROBE, is_ready};

/// What this machine lacks for a tier above `isolated`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{feature} does not work here: {message}")]
pub struct Unsupported {
    /// The feature, as `doctor` names it.
    pub feature: &'static str,
    /// What the system said.
    pub message: String,
    /// The error's number, where there is one.
    pub errno: Option<i32>,
    /// What to do about it.
    pub fix: &'static str,
}

/// What the tracer needs, besides what every step needs.
pub(super) const TRIALS: &[Trial] = &[
    Trial {
        name: "ptrace",
        needed_for: "what a step asks the kernel can be answered (tiers above `isolated`)",
        fix: or_profile!("set kernel.yama.ptrace_scope to at most 1"),
        check: |_| trace(),
    },
    Trial {
        name: "seccomp trace",
        needed_for: "only the calls that matter stop a step (tiers above `isolated`)",
        fix: "use a Linux kernel with CONFIG_SECCOMP_FILTER: emulated kernels have no SECCOMP_RET_TRACE",
        check: |_| trace_action(),
    },
    Trial {
        name: "pidfd_getfd",
        needed_for: "files that a step opened can be looked at (tiers above `isolated`)",
        fix: or_profile!("use a kernel of at least 5.6"),
        check: |_| take_file(),
    },
    #[cfg(target_arch = "x86_64")]
    Trial {
        name: "PR_SET_TSC",
        needed_for: "the time stamp counter can be made virtual (tiers above `isolated`)",
        fix: "use a kernel and a machine on which prctl(PR_SET_TSC) works",
        check: |_| stop_counter(),
    },
];

/// Can steps have every tier here? Tried once for the whole process.
pub fn tier_support() -> Result<(), Unsupported> {
    static FOUND: OnceLock<Result<(), Unsupported>> = OnceLock::new();
    // Who cannot start a trial cannot start a step either, which says so.
    if !is_ready() {
        return Ok(());
    }
    FOUND
        .get_or_init(|| TRIALS.iter().try_for_each(attempt))
        .clone()
}

fn attempt(trial: &Trial) -> Result<(), Unsupported> {
    let lacking = |message: String, errno| Unsupported {
        feature: trial.name,
        message,
        errno,
        fix: trial.fix,
    };
    // None of these needs a directory.
    let probe = start(trial, Path::new("/"))
        .map_err(|error| lacking(error.to_string(), error.raw_os_error()))?;
    match probe.outcome {
        Outcome::Works | Outcome::Limited => Ok(()),
        Outcome::Fails(errno) => Err(lacking(probe.detail, (errno != 0).then_some(errno))),
    }
}

/// The name of what [`wait`] is, in place of a trial's number.
pub(super) const WAIT: &str = "wait";

/// What a trial looks at: a process that ends when its standard input does.
pub(super) fn wait() -> i32 {
    let mut nothing = Vec::new();
    i32::from(io::stdin().read_to_end(&mut nothing).is_err())
}

/// A waiting process, killed when it is dropped.
struct Waiting(Child);

impl Waiting {
    fn start() -> io::Result<Self> {
        Command::new("/proc/self/exe")
            .arg0(PROBE)
            .arg(WAIT)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .map(Self)
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Traces a process, stops it and reads its memory.
fn trace() -> io::Result<()> {
    let waiting = Waiting::start()?;
    let options = libc::PTRACE_O_EXITKILL
        | libc::PTRACE_O_TRACESECCOMP
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEEXEC;
    ptrace(libc::PTRACE_SEIZE, waiting.pid(), options)?;
    ptrace(libc::PTRACE_INTERRUPT, waiting.pid(), 0)?;
    rustix::process::waitpid(Some(waiting.pid()), WaitOptions::empty())?;
    read_memory(waiting.pid())
}

#[allow(unsafe_code, reason = "ptrace(2) has no wrapper")]
fn ptrace(request: libc::c_uint, pid: Pid, data: libc::c_int) -> io::Result<()> {
    let nowhere = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: the requests made here take a number and no address.
    match unsafe {
        libc::ptrace(
            request,
            pid.as_raw_nonzero().get(),
            nowhere,
            libc::c_long::from(data),
        )
    } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Reads the first bytes of a process's first mapping.
#[allow(unsafe_code, reason = "process_vm_readv(2) has no wrapper")]
fn read_memory(pid: Pid) -> io::Result<()> {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", pid.as_raw_nonzero()))?;
    let start = maps
        .split('-')
        .next()
        .and_then(|start| usize::from_str_radix(start, 16).ok())
        .ok_or_else(|| io::Error::other("a process without memory"))?;
    let mut bytes = [0_u8; 4];
    let here = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    let there = libc::iovec {
        iov_base: std::ptr::without_provenance_mut(start),
        iov_len: bytes.len(),
    };
    // SAFETY: `here` is the whole of `bytes`; the other address is of another process.
    let count = unsafe {
        libc::process_vm_readv(
            pid.as_raw_nonzero().get(),
            &raw const here,
            1,
            &raw const there,
            1,
            0,
        )
    };
    match usize::try_from(count) {
        Ok(count) if count == bytes.len() => Ok(()),
        Ok(_) => Err(io::Error::other("less was read than is there")),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Asks whether a filter can hand a call to a tracer.
#[allow(unsafe_code, reason = "seccomp(2) has no wrapper")]
fn trace_action() -> io::Result<()> {
    let action: u32 = libc::SECCOMP_RET_TRACE;
    // SAFETY: the kernel reads one number from the address.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0,
            &raw const action,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Takes a copy of another process's standard input.
fn take_file() -> io::Result<()> {
    let waiting = Waiting::start()?;
    let process = rustix::process::pidfd_open(waiting.pid(), PidfdFlags::empty())?;
    rustix::process::pidfd_getfd(process, 0, PidfdGetfdFlags::empty())?;
    Ok(())
}

/// Makes reading the time stamp counter a fault, and back again.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "prctl(2) has no wrapper for this")]
fn stop_counter() -> io::Result<()> {
    for mode in [libc::PR_TSC_SIGSEGV, libc::PR_TSC_ENABLE] {
        // SAFETY: takes a number.
        if unsafe { libc::prctl(libc::PR_SET_TSC, mode) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
