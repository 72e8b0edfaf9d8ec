//! Real inputs that are made on the machine and never committed: a Debian root as an OCI layout.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use immbuild_cas::digest::{Digest, HashingWriter};

use crate::machine::run;

/// A Debian root with a compiler, about 380 MB, as an OCI layout tagged `debian`. Made once for a target directory.
pub fn debian() -> Result<PathBuf> {
    layout_of_packages("debian", &["gcc", "libc6-dev", "make", "xz-utils"], &[])
}

/// What the recipes of `hostile/` call, as Debian packages.
const HOSTILE: &[&str] = &[
    "attr",
    "autoconf",
    "automake",
    "bc",
    "bubblewrap",
    "ca-certificates",
    "cmake",
    "cpio",
    "dbus-bin",
    "dosfstools",
    "e2fsprogs",
    "fakeroot",
    "fontconfig",
    "fonts-dejavu-core",
    "gcc",
    "gdb-minimal",
    "gdbmtool",
    "genisoimage",
    "git",
    "gpg",
    "gpg-agent",
    "hostname",
    "libarchive-tools",
    "libc6-dev",
    "locales",
    "make",
    "man-db",
    "ninja-build",
    "openssh-client",
    "openssl",
    "perl",
    "pigz",
    "procps",
    "python3",
    "python3-pip",
    "rpm",
    "shared-mime-info",
    "sqlite3",
    "squashfs-tools",
    "strace",
    "sudo",
    "unzip",
    "uuid-runtime",
    "xz-utils",
    "zip",
    "zstd",
];

/// The root of the hostile corpus, about 680 MB, as an OCI layout tagged `hostile`. Made once for a target directory.
pub fn hostile() -> Result<PathBuf> {
    layout_of_packages("hostile", HOSTILE, &[])
}

/// What the recipes of `programs/` call, as Debian packages.
const PROGRAMS: &[&str] = &[
    "apt-utils",
    "autoconf",
    "automake",
    "bubblewrap",
    "build-essential",
    "cargo",
    "clang",
    "cmake",
    "debhelper",
    "default-jdk-headless",
    "fakeroot",
    "file",
    "fontconfig",
    "fonts-dejavu-core",
    "gdb",
    "git",
    "golang-go",
    "golang-golang-x-text-dev",
    "help2man",
    "libfile-fcntllock-perl",
    "librust-rand-dev",
    "librust-regex-dev",
    "librust-serde-json-dev",
    "librust-serde+derive-dev",
    "libtool",
    "ninja-build",
    "npm",
    "openssl",
    "perl",
    "pkg-config",
    "python3",
    "python3-pip",
    "python3-setuptools",
    "python3-wheel",
    "rustc",
    "sqlite3",
    "strace",
    "sudo",
    "texinfo",
    "unzip",
    "xz-utils",
    "zip",
];

/// What the recipes of `programs/` install by `apt-get`: these and what they need lie in `/opt/debs`.
const OFFLINE: &str = "bc less man-db nginx-light postfix tree";

/// The root of the real programs, about 2.5 GB, as an OCI layout tagged `programs`. Made once for a target directory.
///
/// `/opt/debs` is an archive that apt knows, `/opt/src` a source package.
pub fn programs() -> Result<PathBuf> {
    let source = source_package()?;
    let archive = format!(
        "set -e; mkdir -p \"$1/opt/debs/partial\"
         APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\" apt-get -q=2 --yes --download-only \
           -o Dir::Cache::archives=\"$1/opt/debs\" install {OFFLINE}
         rm -r \"$1/opt/debs/partial\" \"$1/opt/debs/lock\"
         chroot \"$1\" sh -c 'cd /opt/debs && dpkg-scanpackages --multiversion . > Packages 2> /dev/null'
         rm -rf \"$1\"/etc/apt/sources.list.d/*
         echo 'deb [trusted=yes] file:/opt/debs ./' > \"$1/etc/apt/sources.list\""
    );
    let files: Vec<String> = source
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    let source = format!("copy-in {} /opt/src", files.join(" "));
    layout_of_packages(
        "programs",
        PROGRAMS,
        &[&archive, "mkdir -p \"$1/opt/src\"", &source],
    )
}

/// A Debian root with these packages and what they need, from the machine's own Debian archive. The hooks are mmdebstrap's,
/// for what else it has.
fn layout_of_packages(name: &str, packages: &[&str], hooks: &[&str]) -> Result<PathBuf> {
    let layout = crate::scratch().join(format!("{name}-layout"));
    let _alone = alone(name)?;
    // What is there was made for a list of packages; for another it is made anew.
    let wanted =
        format!("{packages:?} {hooks:?}\n").replace(&crate::scratch().display().to_string(), "");
    let made = crate::scratch().join(format!("{name}.made"));
    let is_wanted = fs::read_to_string(&made).is_ok_and(|made| made == wanted);
    if is_wanted && layout.join("index.json").exists() {
        return Ok(layout);
    }
    let tar = crate::scratch().join(format!("{name}.tar"));
    println!("making the root `{name}` with mmdebstrap");
    let include = format!("--include={}", packages.join(","));
    let mut arguments = vec!["--quiet", "--mode=root", "--variant=minbase", &include];
    for hook in hooks {
        arguments.extend(["--customize-hook", hook]);
    }
    let file = tar.display().to_string();
    arguments.extend(["bookworm", &file]);
    run("mmdebstrap", &arguments)?;
    let part = crate::scratch().join(format!("{name}-layout.part"));
    let _ = fs::remove_dir_all(&part);
    layout_of_tar(&tar, &part, name)?;
    let _ = fs::remove_dir_all(&layout);
    fs::rename(&part, &layout)?;
    fs::write(&made, &wanted)?;
    fs::remove_file(&tar)?;
    Ok(layout)
}

/// Held while something is made in the scratch directory: whoever else wants it, a thread or a process, waits and finds it.
pub(crate) fn alone(name: &str) -> Result<fs::File> {
    fs::create_dir_all(crate::scratch())?;
    let held = fs::File::create(crate::scratch().join(format!("{name}.lock")))?;
    held.lock()?;
    Ok(held)
}

/// Name of the file that [`release`] gives.
pub const RELEASE: &str = "hello-2.10.tar.gz";

/// The release of GNU hello 2.10 as its authors signed it: Debian's archive has it, byte for byte. Fetched once for a target
/// directory.
pub fn release() -> Result<PathBuf> {
    const SHA256: &str = "31e066137a962676e89f69d1b65382de95a7ef7d914b8cb956f41ea72e0f516b";
    let file = crate::scratch().join(RELEASE);
    let _alone = alone("release")?;
    if file.exists() {
        return Ok(file);
    }
    let part = file.with_extension("part");
    from_pool("hello_2.10.orig.tar.gz", SHA256, &part)?;
    fs::rename(&part, &file)?;
    Ok(file)
}

/// The source package of GNU hello as Debian 12 has it: its description, the release, and how it is packaged. Fetched once
/// for a target directory.
fn source_package() -> Result<[PathBuf; 4]> {
    const FILES: [(&str, &str); 4] = [
        (
            "hello_2.10-3.dsc",
            "75296f5ef618ae2f1849e22b142a2b5ab52c452ebefa4e7b0564c44617db3790",
        ),
        (
            "hello_2.10.orig.tar.gz",
            "31e066137a962676e89f69d1b65382de95a7ef7d914b8cb956f41ea72e0f516b",
        ),
        (
            "hello_2.10.orig.tar.gz.asc",
            "4ea69de913428a4034d30dcdcb34ab84f5c4a76acf9040f3091f0d3fac411b60",
        ),
        (
            "hello_2.10-3.debian.tar.xz",
            "60ee7a466808301fbaa7fea2490b5e7a6d86f598956fb3e79c71b3295dc1f249",
        ),
    ];
    let _alone = alone("source")?;
    let file = |name: &str| crate::scratch().join(name);
    for (name, sha256) in FILES {
        if !file(name).exists() {
            let part = file(&format!("{name}.part"));
            from_pool(name, sha256, &part)?;
            fs::rename(&part, file(name))?;
        }
    }
    Ok(FILES.map(|(name, _)| file(name)))
}

/// Fetches a file of the source of `hello` from where the machine's own apt would fetch the package.
fn from_pool(name: &str, sha256: &str, to: &Path) -> Result<()> {
    let ask = || run("apt-get", &["download", "--print-uris", "hello"]);
    let said = ask().or_else(|_| {
        // No package lists are here yet.
        run("apt-get", &["update", "--quiet=2"])?;
        ask()
    })?;
    let package = said.split('\'').nth(1).context("apt names no place")?;
    let (pool, _) = package.rsplit_once('/').context("a package is a file")?;
    let expected = format!("SHA256:{sha256}");
    let (from, to) = (format!("{pool}/{name}"), to.display().to_string());
    run(
        "/usr/lib/apt/apt-helper",
        &["download-file", &from, &to, &expected],
    )?;
    Ok(())
}

/// An OCI layout with one uncompressed layer. Written without any code of immbuild's own image writer, so that what is
/// read in the checks is not what the program under test would have written.
pub fn layout_of_tar(tar: &Path, layout: &Path, tag: &str) -> Result<()> {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let put = |bytes: &[u8]| -> Result<(String, usize)> {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.to_hex()), bytes)?;
        Ok((digest.to_string(), bytes.len()))
    };

    let part = blobs.join("part");
    let mut source = fs::File::open(tar).with_context(|| tar.display().to_string())?;
    let mut layer = HashingWriter::new(fs::File::create(&part)?);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => layer.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let (_, diff_id, size) = layer.finish();
    fs::rename(&part, blobs.join(diff_id.to_hex()))?;

    let config = serde_json::json!({
        "created": "2026-01-02T03:04:05Z",
        "architecture": "amd64",
        "os": "linux",
        "config": { "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "ROOT=debian"], "Cmd": ["/bin/sh"] },
        "rootfs": { "type": "layers", "diff_ids": [diff_id.to_string()] },
        "history": [{ "created": "2026-01-02T03:04:05Z", "created_by": "mmdebstrap" }],
    });
    let (config, config_size) = put(&serde_json::to_vec(&config)?)?;
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": diff_id.to_string(), "size": size }],
    });
    let (manifest, manifest_size) = put(&serde_json::to_vec(&manifest)?)?;
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": manifest,
            "size": manifest_size,
            "annotations": { "org.opencontainers.image.ref.name": tag },
        }],
    });
    fs::write(
        layout.join("oci-layout"),
        br#"{"imageLayoutVersion":"1.0.0"}"#,
    )?;
    fs::write(layout.join("index.json"), serde_json::to_vec(&index)?)?;
    Ok(())
}
