//! Real inputs that are made on the machine and never committed: a Debian root as an OCI layout.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use immbuild_cas::digest::{Digest, HashingWriter};

use crate::machine::run;

/// A Debian root with a compiler, about 380 MB, as an OCI layout tagged `debian`. Made once for a target directory.
pub fn debian() -> Result<PathBuf> {
    layout_of_packages("debian", &["gcc", "libc6-dev", "make", "xz-utils"])
}

/// What the recipes of `hostile/` call, as Debian packages.
const HOSTILE: &[&str] = &[
    "attr",
    "autoconf",
    "automake",
    "bc",
    "ca-certificates",
    "cmake",
    "cpio",
    "dbus-bin",
    "dosfstools",
    "e2fsprogs",
    "fontconfig",
    "fonts-dejavu-core",
    "gcc",
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
    "unzip",
    "uuid-runtime",
    "xz-utils",
    "zip",
    "zstd",
];

/// The root of the hostile corpus, about 680 MB, as an OCI layout tagged `hostile`. Made once for a target directory.
pub fn hostile() -> Result<PathBuf> {
    layout_of_packages("hostile", HOSTILE)
}

/// A Debian root with these packages and what they need, from the machine's own Debian archive.
fn layout_of_packages(name: &str, packages: &[&str]) -> Result<PathBuf> {
    let layout = crate::scratch().join(format!("{name}-layout"));
    let _alone = alone(name)?;
    if layout.join("index.json").exists() {
        return Ok(layout);
    }
    let tar = crate::scratch().join(format!("{name}.tar"));
    println!("making the root `{name}` with mmdebstrap");
    run(
        "mmdebstrap",
        &[
            "--quiet",
            "--mode=root",
            "--variant=minbase",
            &format!("--include={}", packages.join(",")),
            "bookworm",
            &tar.display().to_string(),
        ],
    )?;
    let part = crate::scratch().join(format!("{name}-layout.part"));
    let _ = fs::remove_dir_all(&part);
    layout_of_tar(&tar, &part, name)?;
    fs::rename(&part, &layout)?;
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
    // Where the machine's own apt would fetch the package from.
    let ask = || run("apt-get", &["download", "--print-uris", "hello"]);
    let said = ask().or_else(|_| {
        // No package lists are here yet.
        run("apt-get", &["update", "--quiet=2"])?;
        ask()
    })?;
    let package = said.split('\'').nth(1).context("apt names no place")?;
    let (pool, _) = package.rsplit_once('/').context("a package is a file")?;
    let part = file.with_extension("part");
    run(
        "/usr/lib/apt/apt-helper",
        &[
            "download-file",
            &format!("{pool}/hello_2.10.orig.tar.gz"),
            &part.display().to_string(),
            &format!("SHA256:{SHA256}"),
        ],
    )?;
    fs::rename(&part, &file)?;
    Ok(file)
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
