//! Opening files: what is opened for writing is noted; random devices, and files of `/proc` that are
//! never the same twice, are replaced by ours.

use std::ffi::CString;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::fs::{SeekFrom, seek};

use super::arch::{Machine as _, Registers};
use super::call::FileName;
use super::clock::SECOND;
use super::evidence::Source;
use super::feeder::Feeder;
use super::files::path_of;
use super::filter::WRITES;
use super::run::{Answer, Pending, Tracer, sys_string};
use super::sys::{self, Resume, Tid};

/// A file that is ours.
enum Special {
    /// A file about a process, of this kind, and where the tracer finds it.
    Process(Vec<u8>, String),
    /// By its minor number.
    Random(u32),
    Uuid,
    Uptime,
    /// What we share with processes, which is nothing for them.
    Nothing,
    /// What libgcrypt shall not use, where the root has nothing to say about it.
    Denied,
}

impl Special {
    /// Where the tracer finds the file of `/proc` that a file in memory stands for.
    fn place(&self) -> Option<CString> {
        let place = match self {
            Self::Process(_, place) => place.as_str(),
            Self::Uuid => "/proc/sys/kernel/random/uuid",
            Self::Uptime => "/proc/uptime",
            Self::Random(_) | Self::Nothing | Self::Denied => return None,
        };
        CString::new(place).ok()
    }
}

/// What a file in memory is for a process.
#[derive(Debug)]
pub(super) struct StandsFor {
    /// Where the tracer finds it.
    place: CString,
    /// What the process calls it.
    name: Vec<u8>,
}

/// libgcrypt draws random numbers from the processor itself unless this file of its own, `hwf.deny`, forbids it.
const DENIED: &[u8] = b"intel-rdrand\n";

/// What a file is by whatever name.
enum Other {
    /// By its minor number.
    Random(u32),
    Fifo,
}

pub(super) const PATH_MAX: usize = 4096;

impl Tracer {
    pub(super) fn open(
        &mut self,
        tid: Tid,
        name: FileName,
        flags: i32,
        registers: &mut Registers,
    ) -> io::Result<Answer> {
        let path = sys_string(tid, name.path, PATH_MAX)?;
        let writes = flags.cast_unsigned() & WRITES != 0;
        if path == b"/dev/null" {
            return Ok(Answer::Native);
        }
        let process = self.threads[&tid].process;
        let is_ours = self
            .inside
            .as_ref()
            .is_some_and(|inside| inside.path() == path);
        let special = is_ours
            .then_some(Special::Nothing)
            .or_else(|| is_denial(tid, &path, writes).then_some(Special::Denied))
            .or_else(|| special((process, tid), name.directory, &path, writes));
        let special = match special {
            Some(special) => Some(special),
            None => match self.other_name(tid, name, &path, flags) {
                // Opening it waits for its other end.
                Some(Other::Fifo) => return Ok(Answer::ToEnd(Pending::Blocked)),
                Some(Other::Random(minor)) => Some(Special::Random(minor)),
                None => None,
            },
        };
        let Some(special) = special else {
            return Ok(if writes {
                Answer::ToEnd(Pending::Opened {
                    flags,
                    new: self.will_be_new(tid, name, flags),
                })
            } else {
                Answer::Native
            });
        };
        self.used(
            tid,
            match &special {
                Special::Random(_) | Special::Uuid => Source::Random,
                Special::Uptime => Source::Clock,
                Special::Process(..) | Special::Nothing | Special::Denied => Source::Machine,
            },
        );
        let saved = registers.clone();
        let stands_for = special.place().map(|place| StandsFor {
            name: if path.starts_with(b"/") {
                path.clone()
            } else {
                place.as_bytes().to_vec()
            },
            place,
        });
        match special {
            // What is written to it is for nobody.
            Special::Random(_) if flags & libc::O_ACCMODE == libc::O_WRONLY => {
                let at = scratch(registers);
                sys::write_memory(tid, at, b"/dev/null\0")?;
                let argument = (0..2)
                    .find(|argument| registers.argument(*argument) == name.path)
                    .unwrap_or(0);
                registers.set_argument(argument, at);
                Ok(Answer::Changed(Pending::Redirected(saved)))
            }
            Special::Random(minor) => {
                let pair = scratch(registers);
                registers.set_number(libc::SYS_socketpair);
                // The bit is that of open(2). A random device never has nothing, so `O_NONBLOCK` means nothing.
                let kept = flags & libc::SOCK_CLOEXEC;
                let arguments = [libc::AF_UNIX, libc::SOCK_STREAM | kept, 0];
                for (at, value) in arguments.into_iter().enumerate() {
                    registers.set_argument(at, u64::from(value.cast_unsigned()));
                }
                registers.set_argument(3, pair);
                Ok(Answer::Changed(Pending::Pair { saved, pair, minor }))
            }
            Special::Process(kind, place) => {
                let quiet = Some(place)
                    .filter(|place| self.may_show(&kind, place))
                    .filter(|place| !is_map(&kind) || self.has_our_users(place))
                    .and_then(|place| text_of(&place))
                    .and_then(|real| super::proc::quiet(&kind, &real, &self.files));
                Ok(match quiet {
                    Some(content) => {
                        in_memory(registers, saved, flags, name.path, (content, stands_for))
                    }
                    None => Answer::Native,
                })
            }
            Special::Uuid | Special::Uptime | Special::Nothing | Special::Denied => {
                let content = self.content(tid, &special);
                let content = (content, stands_for);
                Ok(in_memory(registers, saved, flags, name.path, content))
            }
        }
    }

    /// What a file of ours says that is like no other.
    fn content(&mut self, tid: Tid, special: &Special) -> Vec<u8> {
        match special {
            Special::Uuid => (self.thread(tid).stream.uuid() + "\n").into_bytes(),
            Special::Uptime => {
                let now = self.time(tid);
                let clock = &self.process(tid).clock;
                let uptime = clock.show(libc::CLOCK_MONOTONIC, now).unwrap_or(0);
                let hundredth = uptime.rem_euclid(SECOND) / (SECOND / 100);
                format!("{}.{hundredth:02} 0.00\n", uptime / SECOND).into_bytes()
            }
            Special::Denied => DENIED.to_vec(),
            Special::Nothing | Special::Random(_) | Special::Process(..) => Vec::new(),
        }
    }

    /// The tracer may read more than the process: only what everybody may read is shown of a process that is not
    /// among the traced.
    fn may_show(&self, kind: &[u8], place: &str) -> bool {
        const OPEN: [&[u8]; 3] = [b"stat", b"status", b"statm"];
        let number = place.split('/').nth(2).and_then(|pid| pid.parse().ok());
        number.is_some_and(|pid: Tid| self.threads.contains_key(&pid)) || OPEN.contains(&kind)
    }

    /// Is a process, one of whose files this is, in the user namespace that the step began in?
    fn has_our_users(&self, place: &str) -> bool {
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user")).ok();
        let first = self.first.to_string();
        let pid = place.split('/').nth(2).unwrap_or_default();
        namespace(pid).is_some_and(|theirs| Some(theirs) == namespace(&first))
    }

    /// A random device by another name: through a link, by a way around, or as a descriptor that is one already. Where
    /// one thread runs at a time, also a fifo(7).
    fn other_name(&self, tid: Tid, name: FileName, path: &[u8], flags: i32) -> Option<Other> {
        let strict = self.turns.is_some();
        let may_be_random = flags & libc::O_ACCMODE != libc::O_WRONLY;
        if !may_be_random && !strict {
            return None;
        }
        let process = self.threads[&tid].process;
        if let Some(descriptor) = descriptor_named(process, path) {
            let link = format!("/proc/{process}/fd/{descriptor}");
            let link = CString::new(link).ok()?;
            let real = sys::statx(libc::AT_FDCWD, &link, 0).ok()?;
            let minor = self.files.stands_for_random(&real);
            return minor.map(Other::Random).or_else(|| fifo(&real, strict));
        }
        if !self.processes[&process].at_home {
            let file = sys::open_in_root(tid, name.directory, path, true).ok()?;
            let real = sys::statx(file.as_raw_fd(), c"", libc::AT_EMPTY_PATH).ok()?;
            return is_marked(&file, &real)
                .then_some(Other::Random(9))
                .or_else(|| fifo(&real, strict));
        }
        let place = if path.starts_with(b"/") {
            CString::new(path).ok()?
        } else {
            super::stat::place_of(tid, name.directory, path)?
        };
        let real = sys::statx(libc::AT_FDCWD, &place, 0).ok()?;
        self.files
            .random_device(&real)
            .filter(|_| may_be_random)
            .map(Other::Random)
            .or_else(|| fifo(&real, strict))
    }

    /// Our copy of a process' descriptor.
    pub(super) fn descriptor(&mut self, tid: Tid, number: i32) -> io::Result<OwnedFd> {
        let pid = self.threads[&tid].process;
        let process = self.process(tid);
        if process.handle.is_none() {
            process.handle = Some(sys::open_process(pid)?);
        }
        let handle = process.handle.as_ref().expect("it was made above");
        sys::descriptor_of(handle, number)
    }

    pub(super) fn fill_content(
        &mut self,
        tid: Tid,
        mut saved: Registers,
        registers: &Registers,
        content: &[u8],
        stands_for: Option<StandsFor>,
    ) -> io::Result<Resume> {
        let result = registers.result();
        if let Ok(number @ 0..) = i32::try_from(result) {
            let file = self.descriptor(tid, number)?;
            std::fs::File::from(file.try_clone()?).write_all(content)?;
            seek(&file, SeekFrom::Start(0))?;
            if let Some(StandsFor { place, name }) = stands_for {
                self.files.stand_in(&file, &place, name);
            }
        }
        saved.skip(result);
        sys::set_registers(tid, &saved)?;
        Ok(Resume::Run)
    }

    /// The sockets are there: one becomes ours, and the process closes its own of it.
    pub(super) fn feed_pair(
        &mut self,
        tid: Tid,
        mut saved: Registers,
        mut registers: Registers,
        pair: u64,
        minor: u32,
    ) -> io::Result<Resume> {
        if registers.result() < 0 {
            saved.skip(registers.result());
            sys::set_registers(tid, &saved)?;
            return Ok(Resume::Run);
        }
        let mut bytes = [0; 8];
        sys::read_memory(tid, pair, &mut bytes)?;
        let [device, ours] =
            [0, 4].map(|at| i32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes")));
        let socket = self.descriptor(tid, ours)?;
        let reader = self.descriptor(tid, device)?;
        let stream = self.thread(tid).stream.child();
        self.files.mark_random(&reader, minor);
        let place = if minor == 8 {
            c"/dev/random"
        } else {
            c"/dev/urandom"
        };
        let name = place.to_bytes().to_vec();
        self.files.stand_in(&reader, place, name);
        if self.feeder.is_none() {
            self.feeder = Some(Feeder::start()?);
        }
        if let Some(feeder) = &mut self.feeder {
            feeder.feed(&reader, socket, stream)?;
        }
        registers.call_again(libc::SYS_close, &[u64::from(ours.unsigned_abs())]);
        sys::set_registers(tid, &registers)?;
        self.thread(tid).pending = Some(Pending::Closing {
            saved,
            reader: device,
            entered: false,
        });
        Ok(Resume::ToCallEnd)
    }

    /// A file was opened for writing.
    pub(super) fn opened(&mut self, tid: Tid, descriptor: i32, flags: i32) {
        let Ok(link) = CString::new(format!("/proc/{tid}/fd/{descriptor}")) else {
            return;
        };
        let Ok(real) = sys::statx(libc::AT_FDCWD, &link, 0) else {
            return;
        };
        if !self.files.is_plain(&real) {
            return;
        }
        let path = path_of(&link);
        let emptied = flags & libc::O_TRUNC != 0;
        self.forget_inside(&real);
        if self.what.metadata == super::Metadata::Virtual {
            let pid = self.threads[&tid].process;
            if let Some(process) = self.processes.get_mut(&pid) {
                let clock = &mut process.clock;
                let is_new = self.files.opened(&real, clock, emptied, || path.clone());
                if is_new && flags & libc::O_CREAT != 0 {
                    self.names_changed(pid, &path);
                }
            }
        }
        self.wrote(tid, path);
    }
}

fn fifo(real: &libc::statx, strict: bool) -> Option<Other> {
    let kind = u32::from(real.stx_mode) & libc::S_IFMT;
    (strict && kind == libc::S_IFIFO).then_some(Other::Fifo)
}

/// The descriptor of its own that a process means by a path.
pub(super) fn descriptor_named(process: Tid, path: &[u8]) -> Option<u32> {
    let path = std::str::from_utf8(path).ok()?;
    match path {
        "/dev/stdin" => return Some(0),
        "/dev/stdout" => return Some(1),
        "/dev/stderr" => return Some(2),
        _ => {}
    }
    let own = format!("/proc/{process}/fd/");
    ["/dev/fd/", "/proc/self/fd/", "/proc/thread-self/fd/", &own]
        .iter()
        .find_map(|start| path.strip_prefix(start))?
        .parse()
        .ok()
}

/// Is it a random device that a process with mounts of its own has mounted again? It keeps the mark that the sandbox
/// has put on its mount.
fn is_marked(file: &OwnedFd, real: &libc::statx) -> bool {
    /// `ST_NOSYMFOLLOW` (linux/statfs.h).
    const MARK: u64 = 0x2000;
    /// null(4): what a random device is in truth.
    const ZERO: (u32, u32) = (1, 5);
    let is_device = u32::from(real.stx_mode) & libc::S_IFMT == libc::S_IFCHR
        && (real.stx_rdev_major, real.stx_rdev_minor) == ZERO;
    let has_mark =
        || rustix::fs::fstatvfs(file).is_ok_and(|system| system.f_flag.bits() & MARK != 0);
    is_device && has_mark()
}

/// A place below the stack that the program does not use while it is in a call.
pub(super) fn scratch(registers: &Registers) -> u64 {
    /// More than the red zone (System V ABI, 3.2.2), aligned.
    const BELOW: u64 = 512;
    (registers.stack() - BELOW) & !15
}

/// Does it tell which users of the machine those of a namespace are?
fn is_map(kind: &[u8]) -> bool {
    matches!(kind, b"uid_map" | b"gid_map")
}

/// All of a process' file.
fn text_of(place: &str) -> Option<Vec<u8>> {
    const LONGEST: u64 = 64 << 20;
    let mut text = Vec::new();
    let file = std::fs::File::open(place).ok()?;
    file.take(LONGEST).read_to_end(&mut text).ok()?;
    Some(text)
}

/// A file in memory takes the place of the one that is opened.
fn in_memory(
    registers: &mut Registers,
    saved: Registers,
    flags: i32,
    name: u64,
    (content, stands_for): (Vec<u8>, Option<StandsFor>),
) -> Answer {
    registers.set_number(libc::SYS_memfd_create);
    // Any string will do for a name.
    registers.set_argument(0, name);
    let close = if flags & libc::O_CLOEXEC == 0 {
        0
    } else {
        libc::MFD_CLOEXEC
    };
    registers.set_argument(1, close.into());
    Answer::Changed(Pending::Content {
        saved,
        content,
        stands_for,
    })
}

/// Is it the file that denies features to libgcrypt, and does the root have none of its own?
fn is_denial(tid: Tid, path: &[u8], writes: bool) -> bool {
    path == b"/etc/gcrypt/hwf.deny"
        && !writes
        && sys::open_in_root(tid, libc::AT_FDCWD, path, true).is_err()
}

/// Whether a path names one of ours.
fn special(
    (process, tid): (Tid, Tid),
    directory: i32,
    path: &[u8],
    writes: bool,
) -> Option<Special> {
    let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"".as_slice(), path),
    };
    let (home, special): (&[u8], _) = match name {
        b"random" => (b"/dev", Special::Random(8)),
        b"urandom" => (b"/dev", Special::Random(9)),
        b"uuid" => (b"/proc/sys/kernel/random", Special::Uuid),
        b"uptime" => (b"/proc", Special::Uptime),
        _ if writes || !is_kind(parent, name) => return None,
        _ => {
            let whole = whole(tid, directory, path)?;
            return about_process((process, tid), &whole);
        }
    };
    let parent = whole(tid, directory, parent)?;
    (parent == home).then_some(special)
}

/// Can it be the last name of a file about a process?
fn is_kind(parent: &[u8], name: &[u8]) -> bool {
    let number = || name.iter().all(u8::is_ascii_digit);
    super::proc::KINDS.contains(&name)
        || number() && (parent.is_empty() || parent.ends_with(b"fdinfo"))
}

/// The whole path, without detours, if that can be told from names.
fn whole(tid: Tid, directory: i32, path: &[u8]) -> Option<Vec<u8>> {
    let from = if path.starts_with(b"/") {
        Vec::new()
    } else if directory == libc::AT_FDCWD {
        path_of(&CString::new(format!("/proc/{tid}/cwd")).ok()?)
    } else {
        path_of(&CString::new(format!("/proc/{tid}/fd/{directory}")).ok()?)
    };
    straight(&[from.as_slice(), b"/", path].concat())
}

/// A path without empty names and without `.` and `..`; none if what is left by `..` may be a link, other than `self`, which
/// leads to a neighbour.
fn straight(path: &[u8]) -> Option<Vec<u8>> {
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => {
                if let Some(b"root" | b"cwd" | b"exe") = names.pop() {
                    return None;
                }
            }
            name => names.push(name),
        }
    }
    Some([b"/".as_slice(), &names.join(&b'/')].concat())
}

/// A file of `/proc` about a process, by the name that the process uses for it.
fn about_process((process, tid): (Tid, Tid), path: &[u8]) -> Option<Special> {
    let path = std::str::from_utf8(path).ok()?;
    let mut names = path.strip_prefix("/proc/")?.split('/');
    let own = format!("/proc/{process}");
    let mut place = match names.next()? {
        "mounts" => return Some(Special::Process(b"mounts".into(), own + "/mounts")),
        "self" => own,
        "thread-self" => format!("{own}/task/{tid}"),
        number if number.bytes().all(|byte| byte.is_ascii_digit()) => format!("/proc/{number}"),
        _ => return None,
    };
    let mut kind = names.next()?;
    if kind == "task" {
        place = format!("{place}/task/{}", names.next()?);
        kind = names.next()?;
    }
    place = format!("{place}/{kind}");
    if kind == "fdinfo" {
        place = format!("{place}/{}", names.next()?);
    }
    names
        .next()
        .is_none()
        .then(|| Special::Process(kind.into(), place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detours_are_left_out() {
        let straight =
            |path: &str| straight(path.as_bytes()).map(|path| String::from_utf8(path).unwrap());
        let is = |path: &str, other: &str| assert_eq!(straight(path).as_deref(), Some(other));
        is("/proc/self/status", "/proc/self/status");
        is("//proc/./self//status", "/proc/self/status");
        is("/usr/../proc/7/task/../stat", "/proc/7/stat");
        is("/../../x", "/x");
        is("", "/");
        assert_eq!(straight("/proc/self/root/../stat"), None);
    }

    #[test]
    fn a_file_about_a_process_is_known_by_its_last_name() {
        for (parent, name, known) in [
            ("/proc/self", "stat", true),
            ("", "status", true),
            ("", "7", true),
            ("/proc/1/fdinfo", "7", true),
            ("/etc", "7", false),
            ("/proc/self", "pagemap", false),
            ("", "main.c", false),
        ] {
            let is_kind = is_kind(parent.as_bytes(), name.as_bytes());
            assert_eq!(is_kind, known, "{parent} {name}");
        }
    }
}
