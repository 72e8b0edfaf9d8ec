//! Files of `/proc` about processes, without what differs from run to run: counters, addresses of what is
//! on the disk, what the machine is.
//!
//! Pure: text in, text out. What a new kernel adds to a file that is listed here does not show.

use super::files::{Files, number_of};

/// The files about a process that are not shown as they are, but for `fdinfo`, whose files are numbers.
pub(super) const KINDS: [&[u8]; 30] = [
    b"stat",
    b"status",
    b"statm",
    b"schedstat",
    b"sched",
    b"autogroup",
    b"wchan",
    b"stack",
    b"syscall",
    b"latency",
    b"numa_maps",
    b"mountstats",
    b"smaps_rollup",
    b"arch_status",
    b"patch_state",
    b"io",
    b"maps",
    b"smaps",
    b"mountinfo",
    b"mounts",
    b"timens_offsets",
    b"uid_map",
    b"gid_map",
    b"loginuid",
    b"sessionid",
    b"oom_score",
    b"oom_score_adj",
    b"oom_adj",
    b"cgroup",
    b"cpuset",
];

/// One process' file, of the kind its name says; `None` for one that is shown as it is.
pub(super) fn quiet(name: &[u8], real: &[u8], files: &Files) -> Option<Vec<u8>> {
    Some(match name {
        b"stat" => stat(real)?,
        b"status" => status(real),
        b"statm" => statm(real),
        b"schedstat" => b"0 0 0\n".to_vec(),
        b"sched" | b"autogroup" | b"wchan" | b"stack" | b"syscall" | b"latency" | b"numa_maps"
        | b"mountstats" | b"smaps_rollup" | b"arch_status" | b"patch_state" => Vec::new(),
        b"io" => lines(real, |line| Some([field(line), b": 0"].concat())),
        b"maps" => lines(real, |line| Some(mapping(line))),
        b"smaps" => lines(real, |line| {
            Some(if line.ends_with(b" kB") {
                [field(line), b": 0 kB"].concat()
            } else {
                mapping(line)
            })
        }),
        b"mountinfo" => mount_table(real, files),
        b"mounts" => lines(real, |line| Some(mount(line))),
        b"timens_offsets" => {
            b"monotonic           0         0\nboottime            0         0\n".to_vec()
        }
        // As with a range of sub-uids: who has none, or no users of its own, shows no other.
        b"uid_map" | b"gid_map" => {
            b"         0          0          1\n         1          1      65535\n".to_vec()
        }
        b"loginuid" | b"sessionid" => b"4294967295".to_vec(),
        b"oom_score" | b"oom_score_adj" | b"oom_adj" => b"0\n".to_vec(),
        b"cgroup" => b"0::/\n".to_vec(),
        b"cpuset" => b"/\n".to_vec(),
        b"fdinfo" => lines(real, |line| match field(line) {
            b"mnt_id" => Some(format!("mnt_id:\t{}", mount_in(line, files)).into_bytes()),
            b"ino" => Some(b"ino:\t1".to_vec()),
            // What is watched or locked, by the numbers of the file system; and since when.
            b"tfd" | b"lock" => None,
            _ if line.starts_with(b"inotify") || line.starts_with(b"fanotify") => None,
            _ => Some(line.to_vec()),
        }),
        _ => return None,
    })
}

fn lines(text: &[u8], change: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for line in text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        if let Some(line) = change(line) {
            out.extend_from_slice(&line);
            out.push(b'\n');
        }
    }
    out
}

/// What stands before the colon.
fn field(line: &[u8]) -> &[u8] {
    let end = line.iter().position(|byte| *byte == b':');
    &line[..end.unwrap_or(line.len())]
}

fn join(words: &[Vec<u8>]) -> Vec<u8> {
    words.join(&b' ')
}

/// `proc_pid_stat(5)`: what a process is stays, what it used is 0.
fn stat(real: &[u8]) -> Option<Vec<u8>> {
    /// State, parent, group, session, terminal and its group, flags; threads; the size of memory; and
    /// the place of code and stack, which is the same each time.
    const KEPT: [usize; 11] = [3, 4, 5, 6, 7, 8, 20, 23, 26, 27, 28];
    let end = real.iter().rposition(|byte| *byte == b')')?;
    let (head, rest) = real.split_at(end + 1);
    let rest = rest.trim_ascii();
    let mut words = vec![head.to_vec()];
    for (number, word) in (3..).zip(rest.split(|byte| *byte == b' ')) {
        words.push(match number {
            number if KEPT.contains(&number) => word.to_vec(),
            // The usual priority, and how much is in memory: programs divide by it.
            18 => b"20".to_vec(),
            24 => b"256".to_vec(),
            _ => b"0".to_vec(),
        });
    }
    let mut text = join(&words);
    text.push(b'\n');
    Some(text)
}

/// `proc_pid_status(5)`
fn status(real: &[u8]) -> Vec<u8> {
    lines(real, |line| {
        let name = field(line);
        let constant = match name {
            b"Name" | b"Umask" | b"State" | b"Tgid" | b"Ngid" | b"Pid" | b"PPid" | b"Uid"
            | b"Gid" | b"Groups" | b"NStgid" | b"NSpid" | b"NSpgid" | b"NSsid" | b"VmSize"
            | b"VmData" | b"VmStk" | b"VmExe" | b"VmLib" | b"Threads" | b"SigPnd" | b"ShdPnd"
            | b"SigBlk" | b"SigIgn" | b"SigCgt" | b"CapInh" | b"CapPrm" | b"CapEff" | b"CapBnd"
            | b"CapAmb" | b"NoNewPrivs" | b"Seccomp" => return Some(line.to_vec()),
            b"FDSize" => "64",
            b"VmPeak" | b"VmLck" | b"VmPin" | b"VmHWM" | b"VmRSS" | b"VmPTE" | b"VmSwap" => {
                "       0 kB"
            }
            b"SigQ" => "0/1024",
            b"Cpus_allowed" => "f",
            b"Cpus_allowed_list" => "0-3",
            b"Mems_allowed" => "1",
            b"TracerPid"
            | b"Mems_allowed_list"
            | b"voluntary_ctxt_switches"
            | b"nonvoluntary_ctxt_switches" => "0",
            _ => return None,
        };
        Some([name, b":\t", constant.as_bytes()].concat())
    })
}

/// `proc_pid_statm(5)`
fn statm(real: &[u8]) -> Vec<u8> {
    let words: Vec<Vec<u8>> = real
        .trim_ascii()
        .split(|byte| *byte == b' ')
        .enumerate()
        .map(|(at, word)| match at {
            1 => b"256".to_vec(),
            2 => b"128".to_vec(),
            _ => word.to_vec(),
        })
        .collect();
    let mut text = join(&words);
    text.push(b'\n');
    text
}

/// A line of `proc_pid_maps(5)`: the device and number of what is mapped.
fn mapping(line: &[u8]) -> Vec<u8> {
    let mut words = line
        .split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty());
    let mut next = || words.next().unwrap_or_default().to_vec();
    let (range, rights, offset, _device, number) = (next(), next(), next(), next(), next());
    let path = match line.iter().position(|byte| *byte == b'/') {
        Some(at) => &line[at..],
        None => words.next().unwrap_or_default(),
    };
    let (device, number) = if number == b"0" {
        (b"00:00".to_vec(), number)
    } else {
        (b"00:20".to_vec(), number_of(path).to_string().into_bytes())
    };
    let mut text = join(&[range, rights, offset, device, number]);
    if !path.is_empty() {
        // Where the kernel puts it.
        text.resize(text.len().max(72), b' ');
        text.push(b' ');
        text.extend_from_slice(path);
    }
    text
}

/// The number of the mount that a line of `proc_pid_fdinfo(5)` names, as statx(2) shows it; 1 for what is nowhere to be seen.
fn mount_in(line: &[u8], files: &Files) -> u64 {
    let number = line.rsplit(u8::is_ascii_whitespace).next();
    let number = number.and_then(|word| std::str::from_utf8(word).ok()?.parse().ok());
    number
        .and_then(|number| files.shown_mount(number))
        .unwrap_or(1)
}

/// `proc_pid_mountinfo(5)`: mounts and devices by the numbers that stat(2) and statx(2) show, others by their place in the table.
fn mount_table(real: &[u8], files: &Files) -> Vec<u8> {
    let id = |line: &[u8]| -> Option<u64> {
        let word = line.split(|byte| *byte == b' ').next()?;
        std::str::from_utf8(word).ok()?.parse().ok()
    };
    let ids: Vec<u64> = real.split(|byte| *byte == b'\n').filter_map(id).collect();
    let number = |word: &[u8]| {
        /// No number that is shown elsewhere is so great.
        const OTHERS: u64 = 1000;
        let wanted: Option<u64> = id(word);
        let shown = wanted.and_then(|wanted| files.shown_mount(wanted));
        let place = || (OTHERS..).zip(&ids).find(|(_, id)| Some(**id) == wanted);
        let number = shown.or_else(|| place().map(|(number, _)| number));
        number.unwrap_or(1).to_string().into_bytes()
    };
    lines(real, |line| {
        let mut words: Vec<Vec<u8>> = line
            .split(|byte| *byte == b' ')
            .map(<[u8]>::to_vec)
            .collect();
        if words.len() < 10 {
            return None;
        }
        let device = id(line).map_or(0, |id| files.device_of(id));
        words[2] = format!("0:{device}").into_bytes();
        words[1] = number(&words[1]);
        words[0] = number(&words[0]);
        let last = words.len() - 1;
        // How often the root was changed, and how much memory the machine has.
        if [b"overlay".as_slice(), b"devtmpfs", b"tmpfs"].contains(&words[last - 2].as_slice()) {
            words[last] = b"rw".to_vec();
        }
        Some(join(&words))
    })
}

/// A line of `proc_pid_mounts(5)`: an overlay shows how often the root was changed.
fn mount(line: &[u8]) -> Vec<u8> {
    let mut words: Vec<Vec<u8>> = line
        .split(|byte| *byte == b' ')
        .map(<[u8]>::to_vec)
        .collect();
    let quiet: Option<&[u8]> = match words.get(2).map(Vec::as_slice) {
        Some(b"overlay") => Some(b"rw,noatime"),
        Some(b"devtmpfs" | b"tmpfs") => Some(b"rw,relatime"),
        _ => None,
    };
    if let Some(quiet) = quiet.filter(|_| words.len() > 3) {
        words[3] = quiet.to_vec();
    }
    join(&words)
}

/// What a link of `/proc` leads to, without a number that counts up for the whole machine.
pub(super) fn quiet_link(target: &[u8]) -> Option<Vec<u8>> {
    let open = target.iter().position(|byte| *byte == b'[')?;
    if !target.ends_with(b"]") || target.contains(&b'/') {
        return None;
    }
    let kind = &target[..open];
    (kind.ends_with(b":") && !kind.starts_with(b"anon_inode")).then(|| {
        [
            kind,
            format!("[{}]", number_of(kind) % 1_000_000).as_bytes(),
        ]
        .concat()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_used_does_not_show() {
        let real = b"7 (a b) c) R 1 7 7 0 -1 4194304 95 0 3 0 12 13 0 0 39 19 1 0 274 2580480 217 184467 1 2 3 4 5 0 0 0 0 0 0 0 17 1 0 0 0 0 0 6 7 8 9 10 11 12 0\n";
        let text = String::from_utf8(stat(real).expect("a process")).expect("text");
        assert!(
            text.starts_with(
                "7 (a b) c) R 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 0 2580480 256 0 1 2 3 "
            ),
            "{text}"
        );
    }

    #[test]
    fn lines_nobody_knows_do_not_show() {
        let real =
            b"Name:\ttar\nTracerPid:\t1\nSpeculation_Store_Bypass:\tvulnerable\nCpus_allowed:\t3\n";
        assert_eq!(
            status(real),
            b"Name:\ttar\nTracerPid:\t0\nCpus_allowed:\tf\n"
        );
    }

    #[test]
    fn a_mapping_has_the_number_of_its_file() {
        let one = mapping(b"5555-5566 r-xp 00001000 fe:01 1234                       /usr/bin/tar");
        let other =
            mapping(b"5555-5566 r-xp 00001000 00:31 99                        /usr/bin/tar");
        assert_eq!(one, other);
        assert!(
            one.starts_with(b"5555-5566 r-xp 00001000 00:20 ") && one.ends_with(b" /usr/bin/tar")
        );
        assert_eq!(
            mapping(b"7ff0-7ff1 rw-p 00000000 00:00 0                          [stack]")
                .trim_ascii_end(),
            [
                b"7ff0-7ff1 rw-p 00000000 00:00 0".as_slice(),
                &[b' '; 42],
                b"[stack]"
            ]
            .concat()
        );
    }

    #[test]
    fn links_to_what_has_no_name_have_no_number_of_the_machine() {
        assert_eq!(quiet_link(b"pipe:[123]"), quiet_link(b"pipe:[456]"));
        assert_eq!(quiet_link(b"/a[1]"), None);
        assert_eq!(quiet_link(b"anon_inode:[eventfd]"), None);
    }
}
