//! What a traced process is told about files: numbers, times and sizes that depend on nothing outside.
//!
//! - A file's number comes from the path it was first seen by and how many were seen by it before, not from
//!   the disk, and not from the order in which files are looked at, so that processes beside each other do not
//!   disturb it.
//! - A file that is unchanged has the time it came with; one that was changed has the time, on the
//!   virtual clock, when it was opened for writing, a directory that of the last name that was made or
//!   removed in it. So times are the same each time, and in order. Which of two changes in a row the file
//!   system's own clock can tell apart differs between kernels: it is only asked whether a file was changed
//!   at all.
//! - Device numbers say which mount, in the order of mount points; a directory has one link and one
//!   block; a file takes the blocks its size needs.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use immbuild_cas::digest::Digest;

use super::clock::{Clock, SECOND, Time};
use super::sys;

/// What the kernel tells files apart by. The time of birth tells a file from an earlier one whose number
/// was used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    device: (u32, u32),
    number: u64,
    birth: (i64, u32),
}

impl Key {
    pub(super) fn of(real: &libc::statx) -> Self {
        Self {
            device: (real.stx_dev_major, real.stx_dev_minor),
            number: real.stx_ino,
            birth: (real.stx_btime.tv_sec, real.stx_btime.tv_nsec),
        }
    }
}

/// A time as the file system has it.
type RealTime = (i64, u32);

fn changed(real: &libc::statx) -> RealTime {
    (real.stx_mtime.tv_sec, real.stx_mtime.tv_nsec)
}

fn exact((seconds, nanoseconds): RealTime) -> Time {
    seconds
        .saturating_mul(SECOND)
        .saturating_add(i64::from(nanoseconds))
}

#[derive(Clone, Copy, Debug)]
struct File {
    number: u64,
    /// What is shown while the file system says `real`.
    time: Time,
    real: RealTime,
    /// What will be shown when the file system says something else.
    next: Option<Time>,
    /// The next one holds even if the file system's clock is too coarse to tell.
    certain: bool,
    /// Somebody has set its time to one of their choice.
    chosen: bool,
}

/// Who has the number of a path.
#[derive(Clone, Copy, Debug)]
struct Numbered {
    last: Key,
    /// How many had it before: one of them may still be there by another name.
    before: u64,
    /// How many directories had been moved when it was seen.
    moved: u64,
}

/// A file system that is mounted where the process can see it.
#[derive(Clone, Copy, Debug)]
struct Mount {
    /// The kernel's number.
    real: (u32, u32),
    /// What is shown instead, of the mount as well.
    device: u32,
    /// A file is mounted here alone: it is shown as if it were on what is around it.
    alone: bool,
    /// `/proc` and terminals: their files have no times of their own.
    timeless: bool,
    /// Its links lead into processes, which are others for the tracer.
    process: bool,
    /// It is a random device, with this minor number (null(4)).
    random: Option<u32>,
}

/// All files that were seen.
#[derive(Debug)]
pub(super) struct Files {
    mounts: BTreeMap<u64, Mount>,
    /// Their other numbers (`STATX_MNT_ID_UNIQUE`), and which these stand for.
    unique: BTreeMap<u64, u64>,
    /// By the number of the device, for answers that do not say which mount: that of the first mount point.
    devices: BTreeMap<(u32, u32), Mount>,
    known: BTreeMap<Key, File>,
    /// Which file got the number of a path last.
    numbered: BTreeMap<u64, Numbered>,
    /// Numbers of paths whose file was removed or moved away since.
    removed: BTreeSet<u64>,
    /// How many directories were moved.
    moved: u64,
    /// When the first process started, on the file system's clock.
    started: RealTime,
    /// The latest time that a change got here. A later one was chosen by somebody and proves nothing, even if it is the machine's.
    latest: Time,
    epoch: Time,
    /// Numbers of pipes, sockets and the like, in the order they were seen.
    nameless: BTreeMap<Key, u64>,
    /// Sockets that stand for a random device, and its minor number.
    random: BTreeMap<Key, u32>,
    /// What stands for a file of `/proc` or for a random device, by its own device and number; what is said of that file, and
    /// its name.
    stand_ins: BTreeMap<((u32, u32), u64), Original>,
}

/// A file that another stands for.
#[derive(Clone, Debug)]
pub(super) struct Original {
    /// What the kernel says of it.
    pub(super) real: libc::statx,
    /// What the process calls it.
    pub(super) name: Vec<u8>,
}

/// Device numbers below are for what is in no mount: pipes, sockets, ….
const FIRST_MOUNT: u32 = 32;

impl Files {
    /// Looks at the mounts of the calling process.
    pub(super) fn new(epoch: Time) -> io::Result<Self> {
        let (mounts, unique) = mounts(&std::fs::read("/proc/self/mountinfo")?);
        // The numbers of mounts are whichever were free on this machine: their order means nothing.
        let by_point = mounts.iter().rev();
        Ok(Self {
            devices: by_point.map(|(_, mount)| (mount.real, *mount)).collect(),
            mounts: mounts.into_iter().collect(),
            unique,
            known: BTreeMap::new(),
            numbered: BTreeMap::new(),
            removed: BTreeSet::new(),
            moved: 0,
            started: sys::file_clock(),
            latest: epoch,
            epoch,
            nameless: BTreeMap::new(),
            random: BTreeMap::new(),
            stand_ins: BTreeMap::new(),
        })
    }

    /// Is it a file, a directory or a link on a mount that we know, and not among the processes?
    pub(super) fn is_plain(&self, real: &libc::statx) -> bool {
        let kind = u32::from(real.stx_mode) & libc::S_IFMT;
        [libc::S_IFREG, libc::S_IFDIR, libc::S_IFLNK].contains(&kind) && self.is_known(real)
    }

    /// Is it anything on such a mount?
    pub(super) fn is_known(&self, real: &libc::statx) -> bool {
        self.mount_of(real).is_some_and(|mount| !mount.process)
    }

    /// Whether what is shown of it depends on nothing but what the file system says: nobody has touched it since the start.
    pub(super) fn is_settled(&self, real: &libc::statx) -> bool {
        let named = (real.stx_ctime.tv_sec, real.stx_ctime.tv_nsec);
        !is_recent(self.started, changed(real)) && !is_recent(self.started, named)
    }

    /// Is it on a mount whose file system is mounted nowhere else, so that the number of its device says which?
    pub(super) fn has_one_place(&self, real: &libc::statx) -> bool {
        self.mounts.get(&real.stx_mnt_id).is_some_and(|mount| {
            self.mounts
                .values()
                .filter(|other| other.real == mount.real)
                .count()
                == 1
        })
    }

    /// This socket is what a process has for a random device.
    pub(super) fn mark_random(&mut self, socket: &OwnedFd, minor: u32) {
        if let Ok(real) = sys::statx(socket.as_raw_fd(), c"", libc::AT_EMPTY_PATH) {
            self.random.insert(Key::of(&real), minor);
        }
    }

    /// The minor number of the random device that a process has this socket for.
    pub(super) fn stands_for_random(&self, real: &libc::statx) -> Option<u32> {
        self.random.get(&Key::of(real)).copied()
    }

    /// This file is what a process has for the one of this name, which the tracer finds at `place`.
    pub(super) fn stand_in(&mut self, file: &impl AsRawFd, place: &CStr, name: Vec<u8>) {
        if let Ok(own) = sys::statx(file.as_raw_fd(), c"", libc::AT_EMPTY_PATH)
            && let Ok(real) = sys::statx(libc::AT_FDCWD, place, 0)
        {
            let key = Key::of(&own);
            self.stand_ins
                .insert((key.device, key.number), Original { real, name });
        }
    }

    /// What a file stands for.
    pub(super) fn stands_for(&self, real: &libc::statx) -> Option<&Original> {
        // Answers of stat(2) have no time of birth.
        let key = Key::of(real);
        self.stand_ins.get(&(key.device, key.number))
    }

    /// The minor number, if it is a random device.
    pub(super) fn random_device(&self, real: &libc::statx) -> Option<u32> {
        self.mounts.get(&real.stx_mnt_id)?.random
    }

    /// The device number of a mount.
    pub(super) fn device_of(&self, mount: u64) -> u32 {
        self.mounts.get(&mount).map_or(0, |mount| mount.device)
    }

    /// The number that is shown of a mount, unless it is one that is not to be seen by itself.
    pub(super) fn shown_mount(&self, mount: u64) -> Option<u64> {
        let mount = self.mounts.get(&mount).filter(|mount| !mount.alone)?;
        Some(mount.device.into())
    }

    /// The kernel's plain number for its unique one; 0, which is none, if we do not know it.
    pub(super) fn plain_mount(&self, unique: u64) -> u64 {
        self.unique.get(&unique).copied().unwrap_or_default()
    }

    fn mount_of(&self, real: &libc::statx) -> Option<Mount> {
        let device = (real.stx_dev_major, real.stx_dev_minor);
        // Answers of stat(2) do not name the mount.
        self.mounts
            .get(&real.stx_mnt_id)
            .or_else(|| self.devices.get(&device))
            .copied()
    }

    /// What a process is told instead of `real`. `path` names the file when it is seen for the first time.
    pub(super) fn show(
        &mut self,
        real: &libc::statx,
        clock: &mut Clock,
        path: impl FnOnce() -> Vec<u8>,
    ) -> libc::statx {
        let mut shown = *real;
        let kind = u32::from(real.stx_mode) & libc::S_IFMT;
        shown.stx_attributes = 0;
        shown.stx_attributes_mask = 0;
        shown.stx_mask = sys::STATX_MASK;
        shown.stx_blksize = 4096;
        shown.stx_blocks = real.stx_size.div_ceil(512);
        if kind == libc::S_IFDIR {
            shown.stx_nlink = 1;
            shown.stx_size = 4096;
            shown.stx_blocks = 8;
        } else if kind != libc::S_IFREG {
            shown.stx_blocks = 0;
        }
        let mount = self.mount_of(real);
        let still = mount.is_some_and(|mount| mount.timeless)
            || [libc::S_IFCHR, libc::S_IFBLK].contains(&kind);
        let (number, time) = if still || mount.is_none() {
            (self.number(real, path), self.epoch)
        } else {
            let file = self.seen(real, clock, path);
            // Whoever sees a change knows that it is later. Times that were there before prove nothing.
            if is_recent(self.started, file.real) && file.time <= self.latest {
                clock.learn(file.time);
            }
            (file.number, file.time)
        };
        let random = mount
            .and_then(|mount| mount.random)
            .filter(|_| self.mounts.contains_key(&real.stx_mnt_id))
            .or_else(|| self.stands_for_random(real));
        if let Some(minor) = random {
            // null(4), random(4): character devices 1:8 and 1:9.
            shown.stx_mode = u16::try_from(libc::S_IFCHR | 0o666).expect("a mode");
            (shown.stx_rdev_major, shown.stx_rdev_minor) = (1, minor);
        }
        shown.stx_ino = number;
        shown.stx_dev_major = 0;
        shown.stx_dev_minor = mount.map_or(kind >> 12, |mount| mount.device);
        shown.stx_mnt_id = shown.stx_dev_minor.into();
        let stamp = statx_time(time);
        shown.stx_atime = stamp;
        shown.stx_mtime = stamp;
        shown.stx_ctime = stamp;
        shown.stx_btime = stamp;
        shown
    }

    fn nameless(&mut self, real: &libc::statx) -> u64 {
        let next = self.nameless.len() as u64 + 1;
        *self.nameless.entry(Key::of(real)).or_insert(next)
    }

    /// The number of a file of a listing.
    pub(super) fn number(&mut self, real: &libc::statx, path: impl FnOnce() -> Vec<u8>) -> u64 {
        if self.mount_of(real).is_some() {
            let key = Key::of(real);
            let path = self.recognise(key, path);
            if let Some(file) = self.known.get(&key) {
                return file.number;
            }
            // Being listed is not being looked at: its time is settled when somebody asks.
            let file = self.first(real, path.unwrap_or_default(), None);
            self.known.insert(key, file);
            return file.number;
        }
        self.nameless(real)
    }

    /// The file with its time brought up to date.
    fn seen(
        &mut self,
        real: &libc::statx,
        clock: &mut Clock,
        path: impl FnOnce() -> Vec<u8>,
    ) -> File {
        let key = Key::of(real);
        let now = changed(real);
        let path = self.recognise(key, path);
        let Some(file) = self.known.get_mut(&key) else {
            let file = self.first(real, path.unwrap_or_default(), Some(clock));
            self.known.insert(key, file);
            return file;
        };
        if file.real != now || (file.certain && file.next.is_some()) {
            let recent = is_recent(self.started, now);
            file.time = match file.next.take() {
                Some(next) => next,
                None if !recent && file.chosen => exact(now),
                None if !recent => exact(now).min(self.epoch),
                None if is_recent(self.started, file.real) => file.time,
                None => tick(clock, &mut self.latest),
            };
            file.real = now;
            file.certain = false;
        }
        *file
    }

    /// A name is about to be removed, or to lead to another file. `directory`: what it led to is one, and gets another name.
    pub(super) fn removes(&mut self, path: &[u8], directory: bool) {
        self.moved += u64::from(directory);
        self.removed.insert(number_of(path));
    }

    /// A file that has the name of one that is still there is that one. An overlay that an ordinary user has mounted
    /// gives a file that was written to the number of its copy once it has forgotten the file, which it does when memory is
    /// short (`ovl_decode_real_fh` asks for a capability).
    fn recognise(&mut self, key: Key, path: impl FnOnce() -> Vec<u8>) -> Option<Vec<u8>> {
        if self.known.contains_key(&key) {
            return None;
        }
        let path = path();
        let id = number_of(&path);
        if let Some(numbered) = self.numbered.get_mut(&id)
            && numbered.moved == self.moved
            && numbered.last.device == key.device
            && !self.removed.contains(&id)
            && let Some(file) = self.known.remove(&numbered.last)
        {
            numbered.last = key;
            self.known.insert(key, file);
        }
        Some(path)
    }

    /// A file that nobody has looked at yet. Without a clock its time stays open.
    fn first(&mut self, real: &libc::statx, mut path: Vec<u8>, clock: Option<&mut Clock>) -> File {
        let (key, now) = (Key::of(real), changed(real));
        let recent = is_recent(self.started, now);
        let (time, real) = match clock {
            Some(clock) if recent => (tick(clock, &mut self.latest), now),
            None if recent => (self.epoch, (i64::MIN, 0)),
            // No file is from the future.
            _ => (exact(now).min(self.epoch), now),
        };
        let (started, moved, id) = (self.started, self.moved, number_of(&path));
        let numbered = self.numbered.entry(id).or_insert(Numbered {
            last: key,
            before: 0,
            moved,
        });
        if numbered.last != key {
            // An overlay gives a file of a lower layer another birth, and no other number, when it is written to.
            let last = numbered.last;
            let written =
                last.birth < started && (last.device, last.number) == (key.device, key.number);
            numbered.before += u64::from(!written);
            numbered.last = key;
        }
        numbered.moved = moved;
        self.removed.remove(&id);
        if numbered.before > 0 {
            path.push(0);
            path.extend(numbered.before.to_be_bytes());
        }
        File {
            number: number_of(&path),
            time,
            real,
            next: None,
            certain: false,
            chosen: false,
        }
    }

    /// Somebody has opened it for writing. `emptied`: what was in it is gone. Says whether it is new.
    pub(super) fn opened(
        &mut self,
        real: &libc::statx,
        clock: &mut Clock,
        emptied: bool,
        path: impl FnOnce() -> Vec<u8>,
    ) -> bool {
        let key = Key::of(real);
        let time = tick(clock, &mut self.latest);
        let now = changed(real);
        let recent = is_recent(self.started, now);
        let path = self.recognise(key, path);
        if let Some(file) = self.known.get_mut(&key) {
            if emptied && file.real != now {
                file.time = time;
                file.real = now;
            }
            file.next = Some(time);
            file.certain |= emptied;
            return false;
        }
        let mut file = self.first(real, path.unwrap_or_default(), None);
        file.next = Some(time);
        // A new file, or one that was emptied: changed already.
        if recent {
            file.time = time;
            file.real = now;
        }
        self.known.insert(key, file);
        recent && is_recent(self.started, key.birth)
    }

    /// Somebody sets its time: to now, or to this.
    pub(super) fn touched(
        &mut self,
        real: &libc::statx,
        clock: &mut Clock,
        to: Option<RealTime>,
        path: impl FnOnce() -> Vec<u8>,
    ) {
        let key = Key::of(real);
        let path = self.recognise(key, path);
        let mut file = match self.known.get(&key) {
            Some(file) => *file,
            None => self.first(real, path.unwrap_or_default(), None),
        };
        match to {
            None => {
                file.next = Some(tick(clock, &mut self.latest));
                file.certain = true;
            }
            // If the call fails the file system goes on saying what it said.
            Some(time) if is_recent(self.started, time) => file.next = Some(exact(time)),
            // Shown as it is.
            Some(_) => {
                file.next = None;
                file.certain = false;
            }
        }
        file.chosen |= to.is_some();
        self.known.insert(key, file);
    }
}

/// The time of a change.
fn tick(clock: &mut Clock, latest: &mut Time) -> Time {
    let time = clock.tick();
    *latest = time.max(*latest);
    time
}

/// Is this time, of the file system, one that was taken from the machine's clock since the start?
fn is_recent(started: RealTime, time: RealTime) -> bool {
    const SLACK: i64 = 2;
    time >= started && time.0 <= sys::file_clock().0 + SLACK
}

fn statx_time(time: Time) -> libc::statx_timestamp {
    let mut stamp = sys::zero_statx_time();
    stamp.tv_sec = time.div_euclid(SECOND);
    stamp.tv_nsec = u32::try_from(time.rem_euclid(SECOND)).expect("below a second");
    stamp
}

/// 52 bits: a number that every language can hold, and that seldom two files share.
pub(super) fn number_of(path: &[u8]) -> u64 {
    let digest = Digest::of(path);
    let bytes = digest.as_bytes()[..8].try_into().expect("eight bytes");
    (u64::from_be_bytes(bytes) >> 12).max(2)
}

/// Reads `proc_pid_mountinfo(5)`: mounts by their mount points, and the unique numbers of those that have one.
fn mounts(table: &[u8]) -> (Vec<(u64, Mount)>, BTreeMap<u64, u64>) {
    let mut lines = Vec::new();
    for line in table.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ');
        let id = fields
            .next()
            .and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
        let real = fields.nth(1).and_then(|device| {
            let (major, minor) = std::str::from_utf8(device).ok()?.split_once(':')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        });
        let (Some(id), Some(real), Some(point)) = (id, real, fields.nth(1)) else {
            continue;
        };
        let mut rest = fields.skip_while(|field| *field != b"-");
        let kind = rest.nth(1).unwrap_or_default();
        let timeless = [b"proc".as_slice(), b"devpts"].contains(&kind);
        lines.push((point, id, timeless, real));
    }
    lines.sort_unstable();
    let mut mounts = Vec::new();
    let mut unique = BTreeMap::new();
    let mut directories: Vec<(&[u8], u32)> = Vec::new();
    for (point, id, timeless, real) in lines {
        let path = std::ffi::CString::new(point).unwrap_or_default();
        let found = sys::statx(libc::AT_FDCWD, &path, 0);
        let is_directory = found
            .as_ref()
            .is_ok_and(|found| u32::from(found.stx_mode) & libc::S_IFMT == libc::S_IFDIR);
        // Another mount may lie over this one.
        if found.is_ok_and(|found| found.stx_mnt_id == id) {
            unique.extend(sys::unique_mount(&path).map(|unique| (unique, id)));
        }
        // A file that is mounted alone belongs to what is around it, as if it were there.
        let around = directories
            .iter()
            .rev()
            .find(|(directory, _)| point.starts_with(directory));
        let device = match around {
            Some((_, device)) if !is_directory => *device,
            _ => FIRST_MOUNT + u32::try_from(directories.len()).unwrap_or(u32::MAX),
        };
        if is_directory {
            directories.push((point, device));
        }
        mounts.push((
            id,
            Mount {
                real,
                device,
                alone: !is_directory,
                timeless,
                process: timeless || point.starts_with(b"/proc/"),
                random: match point {
                    b"/dev/random" => Some(8),
                    b"/dev/urandom" => Some(9),
                    _ => None,
                },
            },
        ));
    }
    (mounts, unique)
}

/// The path of an open file, as the tracer's `/proc` tells it.
pub(super) fn path_of(link: &CStr) -> Vec<u8> {
    rustix::fs::readlink(link, Vec::new())
        .map_or_else(|_| Vec::new(), std::ffi::CString::into_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn real(number: u64, mtime: RealTime) -> libc::statx {
        let mut real = sys::zero_statx();
        real.stx_ino = number;
        real.stx_mode = u16::try_from(libc::S_IFREG | 0o644).expect("a mode");
        real.stx_nlink = 1;
        real.stx_size = 1000;
        real.stx_mtime = sys::zero_statx_time();
        real.stx_mtime.tv_sec = mtime.0;
        real.stx_mtime.tv_nsec = mtime.1;
        real
    }

    fn files() -> Files {
        let mount = Mount {
            real: (0, 0),
            device: 32,
            alone: false,
            timeless: false,
            process: false,
            random: None,
        };
        Files {
            mounts: [(0, mount)].into(),
            unique: BTreeMap::new(),
            devices: BTreeMap::new(),
            known: BTreeMap::new(),
            numbered: BTreeMap::new(),
            removed: BTreeSet::new(),
            moved: 0,
            started: (1000, 0),
            latest: 0,
            epoch: 40 * SECOND,
            nameless: BTreeMap::new(),
            random: BTreeMap::new(),
            stand_ins: BTreeMap::new(),
        }
    }

    fn time_of(files: &mut Files, clock: &mut Clock, of: &libc::statx) -> i64 {
        let shown = files.show(of, clock, || b"/a".to_vec());
        shown.stx_mtime.tv_sec * SECOND + i64::from(shown.stx_mtime.tv_nsec)
    }

    #[test]
    fn what_was_there_before_keeps_its_time() {
        let (mut files, mut clock) = (files(), Clock::starting_at(50));
        assert_eq!(
            time_of(&mut files, &mut clock, &real(1, (7, 5))),
            7 * SECOND + 5
        );
    }

    #[test]
    fn what_has_no_time_of_its_own_moves_none() {
        let (mut files, mut clock) = (files(), Clock::starting_at(50));
        files.mounts.get_mut(&0).expect("it is there").timeless = true;
        let shown = time_of(&mut files, &mut clock, &real(1, (1000, 1)));
        assert_eq!(shown, 40 * SECOND);
        assert_eq!(
            clock.tick(),
            Clock::starting_at(50).tick(),
            "looking moved it"
        );
    }

    #[test]
    fn a_time_that_somebody_chose_moves_no_clock() {
        let (mut files, mut clock) = (files(), Clock::starting_at(50));
        let machines = sys::file_clock();
        time_of(&mut files, &mut clock, &real(1, (7, 0)));
        files.touched(&real(1, (7, 0)), &mut clock, Some(machines), Vec::new);
        let shown = time_of(&mut files, &mut clock, &real(1, machines));
        assert_eq!(shown, exact(machines));
        assert!(clock.tick() < 51 * SECOND, "looking moved it");
    }

    #[test]
    fn what_is_opened_later_is_newer() {
        let (mut files, mut clock) = (files(), Clock::starting_at(50));
        let (one, other) = (real(1, (1000, 1)), real(2, (1000, 1)));
        files.opened(&other, &mut clock, true, || b"/b".to_vec());
        files.opened(&one, &mut clock, true, || b"/a".to_vec());
        let (first, second) = (
            time_of(&mut files, &mut clock, &one),
            time_of(&mut files, &mut clock, &other),
        );
        assert!(first > second && second > 50 * SECOND);
        assert_eq!(time_of(&mut files, &mut clock, &one), first);
    }

    #[test]
    fn opened_but_not_written_is_not_newer() {
        let (mut files, mut clock) = (files(), Clock::starting_at(50));
        let before = time_of(&mut files, &mut clock, &real(1, (7, 0)));
        files.opened(&real(1, (7, 0)), &mut clock, false, Vec::new);
        assert_eq!(time_of(&mut files, &mut clock, &real(1, (7, 0))), before);
        assert!(time_of(&mut files, &mut clock, &real(1, (1000, 2))) > before);
    }

    #[test]
    fn touching_works_within_a_tick_of_the_kernel() {
        let (mut files, mut clock) = (files(), Clock::starting_at(50));
        let before = time_of(&mut files, &mut clock, &real(1, (1000, 0)));
        files.touched(&real(1, (1000, 0)), &mut clock, None, Vec::new);
        assert!(time_of(&mut files, &mut clock, &real(1, (1000, 0))) > before);
        files.touched(&real(1, (1000, 0)), &mut clock, Some((3, 4)), Vec::new);
        assert_eq!(
            time_of(&mut files, &mut clock, &real(1, (3, 4))),
            3 * SECOND + 4
        );
    }

    #[test]
    fn numbers_come_from_names() {
        let mut clock = Clock::starting_at(50);
        let number = |key, path: &[u8], clock: &mut Clock| {
            files()
                .show(&real(key, (7, 0)), clock, || path.to_vec())
                .stx_ino
        };
        assert_eq!(number(1, b"/a", &mut clock), number(2, b"/a", &mut clock));
        assert_ne!(number(1, b"/a", &mut clock), number(1, b"/b", &mut clock));
    }
}
