//! What somebody may do with whose files: every call that asks for permission, made by several users on files of several
//! owners and modes, with what the kernel said. Where users are real it is the kernel's own answer.
#![allow(unsafe_code, reason = "raw system calls are what is tested")]

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;

/// Everything is made here anew for each user.
const TOP: &str = "/data/rights";

/// Owners of files: root, the user, the user's group, one of its other groups, a stranger.
const OWNERS: [(u32, u32); 5] = [(0, 0), (1000, 1000), (7, 1000), (7, 8), (7, 9)];

const MODES: [u32; 9] = [
    0o000, 0o400, 0o060, 0o006, 0o644, 0o666, 0o755, 0o711, 0o070,
];

/// Who tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Root,
    /// User, group, other group.
    User(u32, u32, u32),
    /// Root whose files are those of user 1000 (setfsuid(2)).
    FileUser,
    /// User 1000 only effectively: access(2) asks for the real one.
    Effective,
    /// User 1000 really, who runs with root's rights.
    Real,
    /// Root without `CAP_DAC_OVERRIDE` and `CAP_FOWNER`.
    Weak,
    /// User 1000 that has kept `CAP_DAC_OVERRIDE` alone.
    Strong,
}

const EVERYBODY: [Who; 10] = [
    Who::Root,
    Who::User(1000, 1000, 8),
    Who::User(65534, 65534, 65534),
    Who::User(5, 0, 9),
    Who::User(7, 7, 7),
    Who::FileUser,
    Who::Effective,
    Who::Real,
    Who::Weak,
    Who::Strong,
];

fn text(path: &str) -> CString {
    CString::new(path).unwrap()
}

fn number() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

/// What a call gave, in a word.
fn said(result: libc::c_long) -> &'static str {
    if result >= 0 {
        return "ok";
    }
    name(number())
}

fn name(number: i32) -> &'static str {
    match number {
        0 => "ok",
        libc::EPERM => "EPERM",
        libc::EACCES => "EACCES",
        libc::ENOENT => "ENOENT",
        libc::EEXIST => "EEXIST",
        libc::ENOTDIR => "ENOTDIR",
        libc::EISDIR => "EISDIR",
        libc::ENOTEMPTY => "ENOTEMPTY",
        libc::ELOOP => "ELOOP",
        libc::EINVAL => "EINVAL",
        libc::ENODATA => "ENODATA",
        libc::EXDEV => "EXDEV",
        libc::EROFS => "EROFS",
        libc::ENOEXEC => "ENOEXEC",
        libc::EBADF => "EBADF",
        libc::EBUSY => "EBUSY",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::ECONNREFUSED => "ECONNREFUSED",
        other => panic!("error {other}"),
    }
}

fn call(number: libc::c_long, a: &[libc::c_long]) -> libc::c_long {
    let at = |at: usize| a.get(at).copied().unwrap_or(0);
    // SAFETY: strings and structures that are passed live through the call.
    unsafe { libc::syscall(number, at(0), at(1), at(2), at(3), at(4)) }
}

fn address(text: &CString) -> libc::c_long {
    text.as_ptr().expose_provenance().try_into().unwrap()
}

const HERE: libc::c_long = libc::AT_FDCWD as libc::c_long;

fn open_at(directory: libc::c_long, path: &str, flags: i32, mode: libc::c_long) -> &'static str {
    let path = text(path);
    let number = call(
        libc::SYS_openat,
        &[directory, address(&path), flags.into(), mode],
    );
    let said = said(number);
    if number >= 0 {
        call(libc::SYS_close, &[number]);
    }
    said
}

fn open(path: &str, flags: i32) -> &'static str {
    open_at(HERE, path, flags, 0o644)
}

/// A call whose first argument is a path, in its oldest form.
fn old(number: libc::c_long, path: &str, rest: &[libc::c_long]) -> &'static str {
    let path = text(path);
    let mut arguments = vec![address(&path)];
    arguments.extend(rest);
    let result = call(number, &arguments);
    let said = said(result);
    if result >= 0 && [libc::SYS_open, libc::SYS_creat].contains(&number) {
        call(libc::SYS_close, &[result]);
    }
    said
}

/// The same with a directory before it.
fn at(number: libc::c_long, path: &str, rest: &[libc::c_long]) -> &'static str {
    let path = text(path);
    let mut arguments = vec![HERE, address(&path)];
    arguments.extend(rest);
    said(call(number, &arguments))
}

fn two(number: libc::c_long, one: &str, other: &str, flags: libc::c_long) -> &'static str {
    let (one, other) = (text(one), text(other));
    said(call(
        number,
        &[HERE, address(&one), HERE, address(&other), flags],
    ))
}

fn link(target: &str, path: &str) -> &'static str {
    let (target, path) = (text(target), text(path));
    said(call(
        libc::SYS_symlinkat,
        &[address(&target), HERE, address(&path)],
    ))
}

fn times(path: &str, of: Option<[i64; 2]>) -> &'static str {
    let span = of.map(|of| {
        of.map(|tv_nsec| libc::timespec {
            tv_sec: 1_000_000,
            tv_nsec,
        })
    });
    let path = text(path);
    let pointer = span.as_ref().map_or(std::ptr::null(), |span| span.as_ptr());
    // SAFETY: both pointers live through the call; null means now.
    said(unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), pointer, 0) }.into())
}

fn attribute(path: &str, name: &str, what: char) -> &'static str {
    let (path, name) = (text(path), text(name));
    let mut value = [0_u8; 64];
    // SAFETY: the value has the length that is said.
    unsafe {
        let (path, name, value) = (path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast());
        said(match what {
            's' => libc::setxattr(path, name, value, 1, 0).into(),
            'r' => libc::removexattr(path, name).into(),
            'g' => libc::getxattr(path, name, value, 64) as libc::c_long,
            _ => libc::listxattr(path, value.cast(), 0) as libc::c_long,
        })
    }
}

fn stat(path: &str) -> &'static str {
    fs::symlink_metadata(path).map_or_else(|error| name(error.raw_os_error().unwrap()), |_| "ok")
}

/// Does it start?
fn run(path: &str) -> &'static str {
    let path = text(path);
    // SAFETY: the child calls nothing but execve and _exit.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            let arguments = [path.as_ptr(), std::ptr::null()];
            libc::execve(path.as_ptr(), arguments.as_ptr(), arguments[1..].as_ptr());
            libc::_exit(*libc::__errno_location());
        }
        let mut status = 0;
        libc::waitpid(child, &raw mut status, 0);
        name(libc::WEXITSTATUS(status))
    }
}

/// Becomes somebody, for good.
fn become_one(who: Who) {
    // SAFETY: takes numbers, and structures that live through the call.
    unsafe {
        let groups = |gid, other: u32| {
            assert_eq!(libc::setgroups(1, &raw const other), 0);
            assert_eq!(libc::setresgid(gid, gid, gid), 0);
        };
        match who {
            Who::Root => {}
            Who::User(uid, gid, other) => {
                groups(gid, other);
                assert_eq!(libc::setresuid(uid, uid, uid), 0);
            }
            Who::FileUser => {
                groups(1000, 8);
                libc::setfsuid(1000);
            }
            Who::Effective => {
                groups(1000, 8);
                assert_eq!(libc::setresuid(0, 1000, 0), 0);
            }
            Who::Real => {
                groups(1000, 8);
                assert_eq!(libc::setresuid(1000, 0, 0), 0);
            }
            Who::Weak => {
                let rights = capabilities();
                let kept = rights[1] & !(1 << 1 | 1 << 3);
                set_capabilities([kept, kept, rights[2]]);
            }
            Who::Strong => {
                assert_eq!(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0), 0);
                groups(1000, 8);
                assert_eq!(libc::setresuid(1000, 1000, 1000), 0);
                let rights = capabilities();
                print!("kept {:x} {:x} {:x}; ", rights[0], rights[1], rights[2]);
                set_capabilities([1 << 1, 1 << 1, 0]);
            }
        }
        let rights = capabilities();
        println!("{who:?} {:x} {:x} {:x}", rights[0], rights[1], rights[2]);
    }
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

const VERSION: u32 = 0x2008_0522;

/// The low halves of what is effective, permitted and inheritable.
fn capabilities() -> [u32; 3] {
    let header = Header {
        version: VERSION,
        pid: 0,
    };
    let mut data = [0_u32; 6];
    // SAFETY: the array is as long as this version says.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) };
    assert_eq!(result, 0);
    [data[0], data[1], data[2]]
}

fn set_capabilities(rights: [u32; 3]) {
    let header = Header {
        version: VERSION,
        pid: 0,
    };
    let data = [rights[0], rights[1], rights[2], 0, 0, 0];
    // SAFETY: as above.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    assert_eq!(result, 0);
}

/// Files and directories of all owners and modes, as root makes them.
fn make() {
    if Path::new(TOP).exists() {
        fs::remove_dir_all(TOP).unwrap();
    }
    let set = |path: &str, (uid, gid), mode| {
        chown(path, Some(uid), Some(gid)).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    fs::create_dir(TOP).unwrap();
    set(TOP, (0, 0), 0o777);
    for (at, owner) in OWNERS.into_iter().enumerate() {
        for mode in MODES {
            let file = format!("{TOP}/f{at}-{mode:o}");
            fs::write(&file, "#!/bin/true\n").unwrap();
            set(&file, owner, mode);
            let directory = format!("{TOP}/d{at}-{mode:o}");
            fs::create_dir(&directory).unwrap();
            fs::write(format!("{directory}/in"), "in").unwrap();
            set(&format!("{directory}/in"), (0, 0), 0o666);
            symlink("in", format!("{directory}/link")).unwrap();
            fs::create_dir(format!("{directory}/sub")).unwrap();
            set(&format!("{directory}/sub"), (0, 0), 0o777);
            symlink(&directory, format!("{TOP}/to-d{at}-{mode:o}")).unwrap();
            set(&directory, owner, mode);
        }
        // Sticky directories of this owner, with files of everybody.
        for mode in [0o1777, 0o1770, 0o1707, 0o777] {
            let directory = format!("{TOP}/s{at}-{mode:o}");
            fs::create_dir(&directory).unwrap();
            for (of, owner) in OWNERS.into_iter().enumerate() {
                for name in ["gone", "moved", "over"] {
                    let file = format!("{directory}/{name}{of}");
                    fs::write(&file, "").unwrap();
                    set(&file, owner, 0o666);
                }
                let inner = format!("{directory}/dir{of}");
                fs::create_dir(&inner).unwrap();
                set(&inner, owner, 0o755);
            }
            set(&directory, owner, mode);
        }
        let file = format!("{TOP}/group{at}");
        fs::write(&file, "").unwrap();
        set(&file, owner, 0o644);
    }
    fs::create_dir(format!("{TOP}/closed")).unwrap();
    fs::create_dir(format!("{TOP}/closed/open")).unwrap();
    fs::write(format!("{TOP}/closed/open/in"), "in").unwrap();
    set(&format!("{TOP}/closed/open"), (0, 0), 0o777);
    set(&format!("{TOP}/closed/open/in"), (0, 0), 0o666);
    set(&format!("{TOP}/closed"), (0, 0), 0o700);
    for (name, interpreter) in [
        ("script", "/bin/true"),
        ("of-script", "/data/rights/f2-755"),
        ("of-closed", "/data/rights/closed/true"),
    ] {
        let file = format!("{TOP}/{name}");
        fs::write(&file, format!("#!{interpreter}\n")).unwrap();
        set(&file, (0, 0), 0o755);
    }
    symlink("/bin/true", format!("{TOP}/closed/true")).unwrap();
    // Nobody listens any more.
    std::os::unix::net::UnixListener::bind(format!("{TOP}/theirs")).unwrap();
    for (path, target) in [
        ("into", "closed/open/in"),
        ("around", "./closed/../f0-666"),
        ("past", "d0-755/../f0-666"),
        ("twice", "past"),
        ("loop", "loop"),
        ("new-there", "d0-755/new"),
        ("new-here", "new-file"),
    ] {
        symlink(target, format!("{TOP}/{path}")).unwrap();
    }
}

pub(super) fn tell() {
    for who in EVERYBODY {
        make();
        let closed = text(&format!("{TOP}/closed/open"));
        let inner = call(
            libc::SYS_openat,
            &[
                HERE,
                address(&closed),
                (libc::O_PATH | libc::O_DIRECTORY).into(),
            ],
        );
        // SAFETY: this process has one thread.
        let child = unsafe { libc::fork() };
        if child == 0 {
            become_one(who);
            try_all(inner);
            std::process::exit(0);
        }
        let mut status = 0;
        // SAFETY: the pointer lives through the call.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(status, 0);
        call(libc::SYS_close, &[inner]);
        println!("{who:?} {}", left());
    }
}

/// What is there now, and whose it is.
fn left() -> String {
    use std::os::unix::fs::MetadataExt as _;
    let mut found = Vec::new();
    for entry in fs::read_dir(TOP).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        found.push(format!(
            "{} {:o} {}:{} {}",
            path.display(),
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime()
        ));
    }
    found.sort();
    found.join("\n")
}

fn try_all(inner: libc::c_long) {
    for at in 0..OWNERS.len() {
        for mode in MODES {
            let told = file(&format!("{TOP}/f{at}-{mode:o}"));
            println!("f{at}-{mode:o}: {}", told.join(" "));
            let path = format!("{TOP}/d{at}-{mode:o}");
            let told = [directory(&path), moves(&path)].concat();
            println!("d{at}-{mode:o}: {}", told.join(" "));
        }
        for mode in [0o1777, 0o1770, 0o1707, 0o777] {
            let told = sticky(&format!("{TOP}/s{at}-{mode:o}"));
            println!("s{at}-{mode:o}: {}", told.join(" "));
        }
        let path = format!("{TOP}/group{at}");
        let told = old(libc::SYS_chmod, &path, &[0o2755]);
        println!("{path}: {told} {:o}", mode_of(&path));
    }
    println!("ways: {}", ways(inner).join(" "));
}

fn mode_of(path: &str) -> u32 {
    fs::metadata(path).unwrap().permissions().mode()
}

fn file(path: &str) -> Vec<&'static str> {
    let new = format!("{TOP}/linked");
    let mut told = vec![
        run(path),
        open(path, libc::O_RDONLY),
        open(path, libc::O_WRONLY),
        open(path, libc::O_RDWR | libc::O_CREAT),
        open(path, libc::O_RDONLY | libc::O_TRUNC),
        open(path, libc::O_RDONLY | libc::O_NOATIME),
        open(path, libc::O_PATH),
        open(path, libc::O_RDONLY | libc::O_NOFOLLOW),
        open(path, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL),
        old(libc::SYS_open, path, &[libc::O_RDWR.into()]),
        old(libc::SYS_creat, path, &[0o644]),
        stat(path),
    ];
    for wanted in [libc::R_OK, libc::W_OK, libc::X_OK, libc::F_OK, 6] {
        told.push(old(libc::SYS_access, path, &[wanted.into()]));
        told.push(at(libc::SYS_faccessat, path, &[wanted.into()]));
        let effective = libc::AT_EACCESS.into();
        told.push(at(439, path, &[wanted.into(), effective]));
    }
    told.extend([
        old(libc::SYS_truncate, path, &[12]),
        times(path, None),
        times(path, Some([libc::UTIME_NOW, libc::UTIME_NOW])),
        times(path, Some([libc::UTIME_NOW, libc::UTIME_OMIT])),
        times(path, Some([libc::UTIME_OMIT, libc::UTIME_OMIT])),
        times(path, Some([5, 6])),
        old(libc::SYS_utime, path, &[0]),
        attribute(path, "user.a", 's'),
        attribute(path, "user.a", 'g'),
        attribute(path, "user.a", 'r'),
        attribute(path, "user.b", 'g'),
        attribute(path, "user.a", 'l'),
        old(libc::SYS_chown, path, &[-1, -1]),
        old(libc::SYS_chown, path, &[-1, 8]),
        old(libc::SYS_chown, path, &[1000, -1]),
        at(libc::SYS_fchmodat, path, &[0o600]),
        two(libc::SYS_linkat, path, &new, 0),
        at(libc::SYS_unlinkat, &new, &[0]),
    ]);
    told
}

fn directory(path: &str) -> Vec<&'static str> {
    let new = format!("{path}/new");
    let inner = format!("{path}/in");
    let through = path
        .replace(TOP, &format!("{TOP}/to-"))
        .replace("to-/", "to-")
        + "/in";
    let mut buffer = [0_u8; 256];
    let buffer = buffer.as_mut_ptr().expose_provenance().try_into().unwrap();
    vec![
        open(path, libc::O_RDONLY | libc::O_DIRECTORY),
        open(path, libc::O_PATH | libc::O_DIRECTORY),
        open(path, libc::O_WRONLY),
        open(&inner, libc::O_RDONLY),
        open(&inner, libc::O_RDWR),
        open(&through, libc::O_RDONLY),
        stat(&inner),
        stat(&through),
        stat(&format!("{path}/missing")),
        stat(&format!("{path}/in/missing")),
        stat(&format!("{path}/.")),
        stat(&format!("{path}/..")),
        old(libc::SYS_access, &inner, &[0]),
        old(libc::SYS_access, path, &[libc::X_OK.into()]),
        old(libc::SYS_access, path, &[libc::W_OK.into()]),
        old(libc::SYS_access, path, &[libc::R_OK.into()]),
        at(
            libc::SYS_readlinkat,
            &format!("{path}/link"),
            &[buffer, 100],
        ),
        old(libc::SYS_readlink, &format!("{path}/link"), &[buffer, 100]),
        old(libc::SYS_statfs, &inner, &[buffer]),
        attribute(&inner, "user.a", 'g'),
        attribute(&inner, "user.a", 'l'),
        attribute(&inner, "user.a", 's'),
        open(&new, libc::O_WRONLY | libc::O_CREAT),
        open(&new, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL),
        at(libc::SYS_unlinkat, &new, &[0]),
        at(libc::SYS_unlinkat, &new, &[0]),
        open_at(HERE, &new, libc::O_WRONLY | libc::O_CREAT, 0),
        open(&new, libc::O_WRONLY),
        old(libc::SYS_unlink, &new, &[]),
        open(path, libc::O_TMPFILE | libc::O_WRONLY),
        at(libc::SYS_mkdirat, &new, &[0o755]),
        at(libc::SYS_mkdirat, &inner, &[0o755]),
        at(libc::SYS_mkdirat, &format!("{new}/"), &[0o755]),
        old(libc::SYS_rmdir, &new, &[]),
        old(libc::SYS_mkdir, &new, &[0o755]),
        at(libc::SYS_unlinkat, &new, &[libc::AT_REMOVEDIR.into()]),
        at(libc::SYS_mknodat, &new, &[(libc::S_IFIFO | 0o644).into()]),
        at(libc::SYS_unlinkat, &new, &[0]),
        at(
            libc::SYS_mknodat,
            &new,
            &[(libc::S_IFCHR | 0o644).into(), 0x103],
        ),
        link("target", &new),
        link("target", &inner),
        at(libc::SYS_unlinkat, &new, &[0]),
        two(libc::SYS_linkat, &inner, &new, 0),
        at(libc::SYS_unlinkat, &new, &[0]),
    ]
}

/// What is done with the directory itself, and with names in it.
fn moves(path: &str) -> Vec<&'static str> {
    let new = format!("{path}/new");
    let inner = format!("{path}/in");
    let moved = format!("{path}/moved");
    let outside = format!("{TOP}/outside");
    let sub = format!("{path}/sub");
    vec![
        two(libc::SYS_renameat2, &inner, &moved, 0),
        two(libc::SYS_renameat2, &moved, &inner, 0),
        two(libc::SYS_renameat2, &inner, &outside, 0),
        two(libc::SYS_renameat2, &outside, &inner, 0),
        two(libc::SYS_renameat2, &sub, &outside, 0),
        two(libc::SYS_renameat2, &outside, &sub, 0),
        two(libc::SYS_renameat2, path, &outside, 0),
        two(libc::SYS_renameat2, &outside, path, 0),
        two(libc::SYS_renameat2, path, &format!("{TOP}/d0-755/there"), 0),
        two(libc::SYS_renameat2, &format!("{TOP}/d0-755/there"), path, 0),
        two(
            libc::SYS_renameat2,
            &inner,
            &sub,
            libc::RENAME_EXCHANGE.into(),
        ),
        two(
            libc::SYS_renameat2,
            &inner,
            &sub,
            libc::RENAME_EXCHANGE.into(),
        ),
        two(libc::SYS_renameat2, &inner, &sub, 0),
        two(libc::SYS_renameat2, &inner, &inner, 0),
        two(libc::SYS_renameat2, &format!("{path}/no"), &new, 0),
        old(libc::SYS_rmdir, path, &[]),
        old(libc::SYS_rmdir, &format!("{path}/."), &[]),
        old(libc::SYS_unlink, path, &[]),
        old(libc::SYS_chdir, path, &[]),
        stat("in"),
        open("in", libc::O_RDONLY),
        old(libc::SYS_chdir, "/", &[]),
        old(libc::SYS_chroot, &format!("{path}/missing"), &[]),
        old(libc::SYS_chroot, "/", &[]),
        change_directory(path),
        times(path, None),
        times(path, Some([5, 6])),
        attribute(path, "user.a", 's'),
        attribute(path, "user.a", 'r'),
    ]
}

/// fchdir(2)
fn change_directory(path: &str) -> &'static str {
    let path = text(path);
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let directory = call(libc::SYS_openat, &[HERE, address(&path), flags.into()]);
    let told = said(call(libc::SYS_fchdir, &[directory]));
    call(libc::SYS_close, &[directory]);
    old(libc::SYS_chdir, "/", &[]);
    told
}

fn sticky(path: &str) -> Vec<&'static str> {
    let mut told = vec![attribute(path, "user.a", 's')];
    for of in 0..OWNERS.len() {
        let name = |what: &str| format!("{path}/{what}{of}");
        told.extend([
            old(libc::SYS_unlink, &name("gone"), &[]),
            two(libc::SYS_renameat2, &name("moved"), &name("new"), 0),
            two(
                libc::SYS_renameat2,
                &format!("{path}/made"),
                &name("over"),
                0,
            ),
            open(&format!("{path}/made"), libc::O_CREAT | libc::O_WRONLY),
            two(
                libc::SYS_renameat2,
                &format!("{path}/made"),
                &name("over"),
                0,
            ),
            old(libc::SYS_rmdir, &name("dir"), &[]),
            old(libc::SYS_rmdir, &name("over"), &[]),
            old(libc::SYS_unlink, &name("dir"), &[]),
        ]);
    }
    told
}

/// Links, descriptors, and where several ways lead to the same file.
fn ways(inner: libc::c_long) -> Vec<&'static str> {
    let path = |name: &str| format!("{TOP}/{name}");
    let mut told: Vec<&str> = [
        "into",
        "around",
        "past",
        "twice",
        "loop",
        "closed",
        "closed/open",
    ]
    .into_iter()
    .flat_map(|name| {
        [
            open(&path(name), libc::O_RDONLY),
            open(&path(name), libc::O_PATH | libc::O_NOFOLLOW),
            stat(&path(name)),
            open(&format!("{}/", path(name)), libc::O_RDONLY),
            old(libc::SYS_access, &path(name), &[libc::R_OK.into()]),
        ]
    })
    .collect();
    told.extend([
        open_at(inner, "in", libc::O_RDWR, 0),
        open_at(inner, "../open/in", libc::O_RDWR, 0),
        open_at(inner, "new", libc::O_RDWR | libc::O_CREAT, 0o600),
        open_at(inner, "new", libc::O_RDWR, 0),
        open(&path("new-there"), libc::O_WRONLY | libc::O_CREAT),
        open(&path("new-here"), libc::O_WRONLY | libc::O_CREAT),
        open(
            &path("new-here"),
            libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL,
        ),
        open(
            &path("new-here"),
            libc::O_WRONLY | libc::O_CREAT | libc::O_NOFOLLOW,
        ),
        open("/dev/null", libc::O_RDWR),
        open("/dev/zero", libc::O_RDONLY),
        open("/dev/urandom", libc::O_RDONLY),
        open("/dev/new", libc::O_WRONLY | libc::O_CREAT),
        open("/dev/shm/new", libc::O_WRONLY | libc::O_CREAT),
        open("/tmp/new", libc::O_WRONLY | libc::O_CREAT),
        old(libc::SYS_unlink, "/tmp/new", &[]),
        old(libc::SYS_unlink, "/dev/shm/new", &[]),
        old(libc::SYS_unlink, "/dev/new", &[]),
        open("/new", libc::O_WRONLY | libc::O_CREAT),
        open("/etc/passwd", libc::O_RDONLY),
        open("/etc/passwd", libc::O_WRONLY),
        open("/etc/hosts", libc::O_WRONLY),
        open("/proc/self/status", libc::O_RDONLY),
        open("", libc::O_RDONLY),
        old(libc::SYS_access, "", &[0]),
        stat(""),
        run("/bin/true"),
        run(&path("f0-666/")),
        run(&path("no")),
        run(&path("script")),
        run(&path("of-script")),
        run(&path("of-closed")),
        old(libc::SYS_access, "", &[libc::W_OK.into()]),
        old(libc::SYS_chmod, "", &[0o600]),
        at(439, "", &[libc::W_OK.into(), libc::AT_EMPTY_PATH.into()]),
        bind(&path("socket")),
        old(libc::SYS_unlink, &path("socket"), &[]),
        bind(&path("d0-755/socket")),
        bind(&path("closed/socket")),
        bind("/tmp/socket"),
        stat("/tmp/socket"),
        old(libc::SYS_unlink, "/tmp/socket", &[]),
        connect(&path("theirs")),
        connect(&path("f0-666")),
        connect(&path("f0-644")),
        listen(80),
        listen(8080),
        open("/dev/stdout", libc::O_WRONLY),
        open("/proc/self/fd/1", libc::O_WRONLY),
    ]);
    told.extend(again(inner));
    told
}

/// A name for a socket.
fn bind(path: &str) -> &'static str {
    match std::os::unix::net::UnixListener::bind(path) {
        Ok(_) => "ok",
        Err(error) => name(error.raw_os_error().unwrap()),
    }
}

fn connect(path: &str) -> &'static str {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => "ok",
        Err(error) => name(error.raw_os_error().unwrap()),
    }
}

fn listen(port: u16) -> &'static str {
    match std::net::TcpListener::bind(("127.0.0.1", port)) {
        Ok(_) => "ok",
        Err(error) => name(error.raw_os_error().unwrap()),
    }
}

/// What is open already is opened, or changed, by the number of its descriptor.
fn again(inner: libc::c_long) -> Vec<&'static str> {
    let mut ends = [0; 2];
    // SAFETY: the array has room for two.
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), 0) }, 0);
    let by_number = |number: libc::c_long| format!("/proc/self/fd/{number}");
    let file = text(&format!("{TOP}/f0-644"));
    let file = call(libc::SYS_openat, &[HERE, address(&file), 0]);
    let told = vec![
        open(&by_number(ends[1].into()), libc::O_WRONLY),
        open(&by_number(file), libc::O_RDONLY),
        open(&by_number(file), libc::O_WRONLY),
        old(libc::SYS_chmod, &by_number(file), &[0o644]),
        said(call(libc::SYS_fchmod, &[file, 0o644])),
        said(call(libc::SYS_fchown, &[file, -1, 8])),
        said(call(libc::SYS_fchdir, &[inner])),
        open("in", libc::O_RDONLY),
        open("../../f0-644", libc::O_RDONLY),
        stat("../open"),
        old(libc::SYS_chdir, "/", &[]),
    ];
    for number in [ends[0].into(), ends[1].into(), file] {
        call(libc::SYS_close, &[number]);
    }
    told
}
