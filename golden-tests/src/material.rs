//! What the goldens are built from and a repository cannot hold: other people's archives, names that are no UTF-8, hard
//! links, large files. Fixed bytes, made here.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::{Context as _, Result};
use immbuild::lock::model::PackagePin;
use immbuild::spec::model::Ident;
use immbuild_cas::digest::Digest;
use rustix::fs::{XattrFlags, setxattr};

use crate::debs::lock_of;
use crate::roots::layout_of_tar;

/// A tar, member by member.
#[derive(Debug, Default)]
struct Tar(Vec<u8>);

impl Tar {
    /// A member as ustar writes it, with `records` of an extended header before it.
    fn member(&mut self, flag: u8, member: &Member<'_>) {
        if !member.records.is_empty() {
            let mut content = Vec::new();
            for (key, value) in member.records {
                // The length counts its own digits.
                let mut length = key.len() + value.len() + 3;
                while length.to_string().len() + key.len() + value.len() + 3 != length {
                    length = length.to_string().len() + key.len() + value.len() + 3;
                }
                content.extend_from_slice(format!("{length} {key}=").as_bytes());
                content.extend_from_slice(value);
                content.push(b'\n');
            }
            self.block(
                b'x',
                &Member {
                    name: "x",
                    content: &content,
                    ..*member
                },
            );
        }
        self.block(flag, member);
    }

    fn block(&mut self, flag: u8, member: &Member<'_>) {
        let mut header = [0; 512];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, member.name.as_bytes());
        put(100, format!("{:07o}", member.mode).as_bytes());
        put(108, format!("{:07o}", member.owner.0).as_bytes());
        put(116, format!("{:07o}", member.owner.1).as_bytes());
        put(124, format!("{:011o}", member.content.len()).as_bytes());
        put(136, b"12345670000");
        put(148, b"        ");
        put(156, &[flag]);
        put(157, member.link.as_bytes());
        put(257, b"ustar\x0000somebody");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(member.content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn finish(self, path: &Path) -> Result<()> {
        fs::write(path, self.whole())?;
        Ok(())
    }

    fn whole(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

#[derive(Clone, Copy, Debug)]
struct Member<'a> {
    name: &'a str,
    mode: u32,
    owner: (u32, u32),
    link: &'a str,
    content: &'a [u8],
    records: &'a [(&'a str, &'a [u8])],
}

const FILE: Member<'_> = Member {
    name: "",
    mode: 0o644,
    owner: (0, 0),
    link: "",
    content: b"",
    records: &[],
};

/// `src/all.tar`: every kind of entry that an archive may bring, with owners that no user of this machine has; and
/// `src/plain.tar`, without what is refused when nothing is preserved.
pub fn archive(into: &Path) -> Result<()> {
    fs::create_dir_all(into.join("src"))?;
    every_kind(true).finish(&into.join("src/all.tar"))?;
    every_kind(false).finish(&into.join("src/plain.tar"))
}

#[allow(
    clippy::too_many_lines,
    reason = "one entry after the other, nothing else"
)]
fn every_kind(pipe: bool) -> Tar {
    let long = "l".repeat(101);
    let longer = vec!["d".repeat(99); 4].join("/");
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let mut tar = Tar::default();
    let mut add = |flag: u8, name: &str, member: Member<'_>| {
        tar.member(flag, &Member { name, ..member });
    };
    add(
        b'5',
        "z-first/",
        Member {
            mode: 0o1777,
            ..FILE
        },
    );
    add(
        b'0',
        "set-uid",
        Member {
            mode: 0o4755,
            owner: (1000, 100),
            content: b"u\n",
            ..FILE
        },
    );
    add(
        b'0',
        "set-gid",
        Member {
            mode: 0o2711,
            owner: (0, 12),
            content: b"g\n",
            ..FILE
        },
    );
    add(b'0', "no-mode", Member { mode: 0, ..FILE });
    add(
        b'1',
        "z-first/linked",
        Member {
            link: "set-uid",
            ..FILE
        },
    );
    add(
        b'2',
        "link",
        Member {
            link: "z-first/linked",
            mode: 0o777,
            owner: (7, 8),
            ..FILE
        },
    );
    if pipe {
        add(
            b'6',
            "pipe",
            Member {
                mode: 0o600,
                ..FILE
            },
        );
    }
    add(
        b'0',
        "owners",
        Member {
            records: &[("gid", b"4294967294"), ("uid", b"2097152")],
            ..FILE
        },
    );
    add(
        b'0',
        "attributes",
        Member {
            records: &[
                ("SCHILY.xattr.user.b", b"2"),
                ("SCHILY.xattr.user.a", b"one\n=two\0"),
                ("SCHILY.xattr.security.capability", capability),
                ("comment", b"nobody keeps this"),
            ],
            ..FILE
        },
    );
    add(
        b'5',
        "attributes.d",
        Member {
            mode: 0o750,
            records: &[("SCHILY.xattr.user.d", b"")],
            ..FILE
        },
    );
    add(
        b'0',
        "short",
        Member {
            records: &[("path", long.as_bytes())],
            content: b"101\n",
            ..FILE
        },
    );
    add(
        b'0',
        "short",
        Member {
            records: &[("path", longer.as_bytes())],
            content: b"399\n",
            ..FILE
        },
    );
    add(
        b'2',
        "far",
        Member {
            records: &[("linkpath", longer.as_bytes())],
            link: "x",
            ..FILE
        },
    );
    add(
        b'0',
        "bytes",
        Member {
            records: &[("path", b"bytes-\xff\xfe\x80"), ("hdrcharset", b"BINARY")],
            content: b"no text\n",
            ..FILE
        },
    );
    add(b'0', "line\nfeed", FILE);
    tar
}

/// `base`: an image with what the cases remove, replace and change.
#[allow(
    clippy::too_many_lines,
    reason = "one entry after the other, nothing else"
)]
pub fn base(into: &Path) -> Result<()> {
    let mut tar = Tar::default();
    let mut add = |flag: u8, name: &str, member: Member<'_>| {
        tar.member(flag, &Member { name, ..member });
    };
    add(
        b'5',
        "etc/",
        Member {
            mode: 0o755,
            ..FILE
        },
    );
    add(
        b'0',
        "etc/one",
        Member {
            content: b"1\n",
            ..FILE
        },
    );
    add(
        b'0',
        "etc/two",
        Member {
            content: b"2\n",
            ..FILE
        },
    );
    add(
        b'1',
        "etc/two-again",
        Member {
            link: "etc/two",
            ..FILE
        },
    );
    add(
        b'0',
        "etc/passwd",
        Member {
            content: b"root:x:0:0::/root:/bin/sh\nshop:x:500:600::/:/bin/sh\n",
            ..FILE
        },
    );
    add(
        b'0',
        "etc/group",
        Member {
            content: b"root:x:0:\nshop:x:600:\n",
            ..FILE
        },
    );
    add(
        b'5',
        "gone/",
        Member {
            mode: 0o700,
            owner: (3, 4),
            ..FILE
        },
    );
    add(
        b'5',
        "gone/below/",
        Member {
            mode: 0o755,
            ..FILE
        },
    );
    add(b'0', "gone/below/file", FILE);
    add(
        b'0',
        "was-file",
        Member {
            content: b"f\n",
            ..FILE
        },
    );
    add(
        b'5',
        "was-directory/",
        Member {
            mode: 0o755,
            ..FILE
        },
    );
    add(b'0', "was-directory/file", FILE);
    add(
        b'2',
        "was-link",
        Member {
            link: "etc/one",
            mode: 0o777,
            ..FILE
        },
    );
    add(
        b'5',
        "usr/",
        Member {
            mode: 0o755,
            ..FILE
        },
    );
    add(
        b'5',
        "usr/bin/",
        Member {
            mode: 0o755,
            ..FILE
        },
    );
    add(
        b'2',
        "bin",
        Member {
            link: "usr/bin",
            mode: 0o777,
            ..FILE
        },
    );
    let path = into.join("base.tar");
    tar.finish(&path)?;
    layout_of_tar(&path, &into.join("base"), "base")
}

/// `src`: a directory with names that make an order, a length or an encoding matter.
pub fn names(into: &Path) -> Result<()> {
    let src = into.join("src");
    let names: [&[u8]; 12] = [
        b"a",
        b"a.b",
        b"a-b",
        b"B",
        "ä".as_bytes(),
        // The same letter as two characters: another name.
        "a\u{308}".as_bytes(),
        b"\xff\x80",
        b"with space",
        b"with\\backslash",
        b"with\"quote",
        b"with\nline",
        &[b'n'; 255],
    ];
    fs::create_dir_all(&src)?;
    for name in names {
        fs::write(src.join(OsStr::from_bytes(name)), b"")?;
    }
    // Between `a` and `a/b` in the order of names, behind it in the order of paths.
    fs::create_dir(src.join("d"))?;
    fs::write(src.join("d/x"), b"")?;
    fs::write(src.join("d.x"), b"")?;
    fs::write(src.join("d-x"), b"")?;
    // ustar has 155 bytes for a prefix and 100 for a name; both ends are met to the byte.
    for (prefix, name) in [(155, 100), (156, 100), (155, 101), (100, 99)] {
        // Below `names/`, in two steps, as no name is longer than 255 bytes.
        let first = "p".repeat(50);
        let second = "q".repeat(prefix - "names/".len() - 51);
        let directory = src.join(first).join(second);
        fs::create_dir_all(&directory)?;
        fs::write(directory.join("r".repeat(name)), b"")?;
    }
    symlink("t".repeat(100), src.join("target-100"))?;
    symlink("t".repeat(101), src.join("target-101"))?;
    Ok(())
}

/// `src`: modes, hard links and attributes as they are on a disk.
pub fn preserve(into: &Path) -> Result<()> {
    let src = into.join("src");
    fs::create_dir_all(src.join("directory"))?;
    for (name, mode) in [
        ("directory/set-uid", 0o4755),
        ("directory/read-only", 0o400),
        ("plain", 0o664),
    ] {
        fs::write(src.join(name), name)?;
        fs::set_permissions(src.join(name), fs::Permissions::from_mode(mode))?;
    }
    fs::hard_link(src.join("directory/set-uid"), src.join("again"))?;
    fs::hard_link(src.join("directory/set-uid"), src.join("zz-again"))?;
    symlink("directory/set-uid", src.join("link"))?;
    setxattr(
        src.join("plain"),
        "user.kind",
        b"plain",
        XattrFlags::empty(),
    )?;
    fs::set_permissions(src.join("directory"), fs::Permissions::from_mode(0o2770))?;
    fs::set_permissions(&src, fs::Permissions::from_mode(0o751))?;
    Ok(())
}

/// `src/large`: 9 MiB and a bit, so that it takes more than one block of every encoder.
pub fn large(into: &Path) -> Result<()> {
    fs::create_dir_all(into.join("src"))?;
    let mut file = std::io::BufWriter::new(fs::File::create(into.join("src/large"))?);
    let mut state = 1_u64;
    let mut written = 0;
    while written < (9 << 20) + 12_345 {
        // Knuth's MMIX generator: words that repeat, as those of a text do.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let word = format!("{:x} ", (state >> 33) % 5000);
        file.write_all(word.as_bytes())?;
        written += word.len();
    }
    file.flush()?;
    Ok(())
}

/// What a package of [`packages`] says of itself beyond its name, and the paths of its files; a directory ends with `/`, a link has
/// its target after ` -> `.
const PACKAGES: &[(&str, &str, &[&str])] = &[
    (
        "base-passwd",
        "Essential: yes\n",
        &[
            "usr/share/base-passwd/passwd.master",
            "usr/share/base-passwd/group.master",
        ],
    ),
    (
        "base",
        "Essential: yes\nSource: base-src (2)\n",
        &[
            "etc/",
            "etc/base.conf",
            "usr/bin/",
            "usr/bin/base",
            "var/lib/base/",
        ],
    ),
    (
        "lib",
        "Section: libs\n",
        &[
            "usr/lib/liblib.so.1.2",
            "usr/lib/liblib.so.1 -> liblib.so.1.2",
        ],
    ),
    (
        "app",
        "Depends: lib\n",
        &["etc/app/", "etc/app/conf", "usr/bin/app"],
    ),
    (
        "tool",
        "Source: tools\n",
        &["usr/bin/tool", "usr/share/doc/tool/copyright"],
    ),
    (
        "tool-doc",
        "Source: tools\n",
        &[
            "usr/share/doc/tool-doc/copyright",
            "usr/share/doc/tool-doc/manual",
        ],
    ),
    ("data-one", "", &["usr/share/data/one"]),
    ("data-two", "", &["usr/share/data/two"]),
];

/// `fetched`: packages; and the lock that names them.
pub fn packages(into: &Path) -> Result<()> {
    fs::create_dir_all(into.join("fetched"))?;
    let mut pins = Vec::new();
    for (name, says, paths) in PACKAGES {
        let bytes = package(name, says, paths);
        fs::write(into.join("fetched").join(name), &bytes)?;
        let said = |key: &str| says.lines().find_map(|line| line.strip_prefix(key));
        let source = said("Source: ").map(|source| source.split(' ').next().unwrap_or(source));
        pins.push(PackagePin {
            name: (*name).to_owned(),
            arch: "amd64".to_owned(),
            version: "1".to_owned(),
            for_architectures: Vec::new(),
            archive: Ident::new("main").context("a name")?,
            path: format!("pool/main/{name}"),
            size: bytes.len() as u64,
            sha256: Digest::of(&bytes),
            source: source.unwrap_or(name).to_owned(),
            source_version: None,
            depends: said("Depends: ").into_iter().map(str::to_owned).collect(),
            reason: "requested".to_owned(),
        });
    }
    let spec = fs::read_to_string(into.join("spec.toml"))?;
    fs::write(into.join("spec.lock"), lock_of(&spec, pins)?)?;
    Ok(())
}

/// deb(5), with nothing compressed.
fn package(name: &str, says: &str, paths: &[&str]) -> Vec<u8> {
    let mut data = Tar::default();
    for path in paths {
        let (path, link) = path.split_once(" -> ").unwrap_or((path, ""));
        let flag = match path {
            _ if !link.is_empty() => b'2',
            path if path.ends_with('/') => b'5',
            _ => b'0',
        };
        let programs = path.contains("bin/") || flag == b'5';
        let passwd = "www-data:*:33:33:www-data:/var/www:/usr/sbin/nologin\n";
        let content = match path.rsplit_once('/') {
            _ if flag != b'0' => String::new(),
            Some((_, "passwd.master")) => format!("root:*:0:0:root:/root:/bin/bash\n{passwd}"),
            Some((_, "group.master")) => "root:*:0:\nwww-data:*:33:\n".to_owned(),
            _ => format!("{path} of {name}\n"),
        };
        data.member(
            flag,
            &Member {
                name: &format!("./{path}"),
                mode: if programs { 0o755 } else { 0o644 },
                link,
                content: content.as_bytes(),
                ..FILE
            },
        );
    }
    let mut configuration = String::new();
    for path in paths {
        if path.starts_with("etc/") && !path.ends_with('/') {
            configuration += &["/", path, "\n"].concat();
        }
    }
    let says = format!(
        "Package: {name}\nVersion: 1\nArchitecture: amd64\nMaintainer: Nobody <nobody@example.org>\n{says}Description: it\n"
    );
    let mut control = Tar::default();
    for (name, content) in [("./control", &says), ("./conffiles", &configuration)] {
        control.member(
            b'0',
            &Member {
                name,
                content: content.as_bytes(),
                ..FILE
            },
        );
    }
    let mut archive = b"!<arch>\n".to_vec();
    for (name, content) in [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar", control.whole()),
        ("data.tar", data.whole()),
    ] {
        let header = format!(
            "{name:16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
            0,
            0,
            0,
            100_644,
            content.len()
        );
        archive.extend_from_slice(header.as_bytes());
        archive.extend_from_slice(&content);
        archive.resize(archive.len().next_multiple_of(2), b'\n');
    }
    archive
}
