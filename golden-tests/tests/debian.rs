//! Real packages, from the machine's own archive, beside what apt and dpkg make of them.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use golden_tests::debs::{Reference, dpkg_query, lock, reference};
use golden_tests::lab::Lab;
use golden_tests::machine::run;

const BUILD: [&str; 4] = [
    "build",
    "--locked",
    "--output",
    "kind=oci-layout,dir=layout",
];

fn spec(packages: &str, configure: &str, rest: &str) -> String {
    format!(
        "immbuild = 1\n\n[source.os]\ndebian = \"bookworm\"\npackages = [{packages}]\nconfigure = \"{configure}\"\n\n\
         [image]\nfrom = \"os\"\ncompression = \"gzip\"\n{rest}\n"
    )
}

fn lab(packages: &str, configure: &str, rest: &str, reference: &Reference) -> Lab {
    let lab = Lab::new(&spec(packages, configure, rest));
    lock(&lab, &reference.packages).expect("the packages can be locked");
    lab
}

/// Builds, and unpacks what was built with a program that is not ours.
fn built(lab: &Lab) -> (String, PathBuf) {
    let digest = lab.run(&BUILD).digest();
    let bundle = lab.beside("bundle");
    let _ = std::fs::remove_dir_all(&bundle);
    let image = format!("{}:latest", lab.file("layout").display());
    let shown = bundle.display().to_string();
    run("umoci", &["unpack", "--image", &image, &shown]).expect("umoci unpacks it");
    (digest, bundle.join("rootfs"))
}

/// A file as a line: what is compared.
fn described(root: &Path) -> BTreeMap<String, String> {
    walkdir::WalkDir::new(root)
        .into_iter()
        .map(|entry| {
            let entry = entry.expect("a root can be read");
            let path = entry.path();
            let below = path.strip_prefix(root).expect("below the root");
            let meta = entry.metadata().expect("it is there");
            let content = if meta.is_symlink() {
                format!("-> {}", std::fs::read_link(path).expect("a link").display())
            } else if meta.is_file() {
                let bytes = std::fs::read(path).expect("a file");
                immbuild_cas::digest::Digest::of(&bytes).to_string()
            } else {
                String::new()
            };
            let mode = if meta.is_symlink() { 0 } else { meta.mode() };
            let line = format!("{mode:o} {}:{} {content}", meta.uid(), meta.gid());
            (format!("/{}", below.display()), line)
        })
        .collect()
}

fn differences(ours: &Path, theirs: &Path) -> BTreeSet<String> {
    let (ours, theirs) = (described(ours), described(theirs));
    let mut all = BTreeSet::new();
    for (path, line) in &ours {
        let _ = match theirs.get(path) {
            None => all.insert(format!("+ {path}")),
            Some(other) if other != line => {
                all.insert(format!("! {path}\n    {line}\n    {other}"))
            }
            Some(_) => false,
        };
    }
    for path in theirs.keys().filter(|path| !ours.contains_key(*path)) {
        all.insert(format!("- {path}"));
    }
    all
}

/// What an installation by apt leaves and one by us does not: files of apt, of the host, and devices.
const THEIRS: [&str; 11] = [
    "/dev/",
    "/etc/apt/",
    "/etc/fstab",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/var/cache/apt",
    "/var/lib/apt",
    "/var/lib/dpkg/arch",
    "/var/lib/dpkg/cmethopt",
    "/var/log/apt",
    "/var/log/bootstrap.log",
];

/// Logs and a cache, which mmdebstrap deletes and we make identical; a file that dselect reads.
const OURS: [&str; 4] = [
    "/var/cache/ldconfig/aux-cache",
    "/var/lib/dpkg/available",
    "/var/log/alternatives.log",
    "/var/log/dpkg.log",
];

/// What is written in the order in which packages were configured.
const OTHERS: [&str; 4] = [
    "/var/cache/debconf/config.dat",
    "/var/cache/debconf/config.dat-old",
    "/var/cache/debconf/templates.dat-old",
    "/var/lib/dpkg/status-old",
];

/// The lines of a difference that nobody has explained.
fn unexplained(ours: &Path, theirs: &Path, also: &[&str]) -> Vec<String> {
    differences(ours, theirs)
        .into_iter()
        .filter(|line| {
            let (kind, rest) = line.split_at(2);
            let path = rest.lines().next().unwrap_or_default();
            let is_explained = match kind {
                "- " => THEIRS.iter().any(|known| path.starts_with(known)),
                "+ " => OURS.contains(&path),
                // A compiled file holds the time of its source, which here is the epoch.
                _ => OTHERS.contains(&path) || path.ends_with(".pyc"),
            };
            !is_explained && !also.contains(&path)
        })
        .collect()
}

const LISTED: &str = "${Package} ${Version} ${Architecture} ${Status}\n";

fn listed(root: &Path) -> String {
    dpkg_query(root, LISTED).expect("dpkg reads it")
}

fn as_apt(name: &str) {
    let reference = reference(name, &[name]).expect("mmdebstrap works");
    let lab = lab(&format!("\"{name}\""), "scripts", "", &reference);
    let (_, root) = built(&lab);
    assert_eq!(
        unexplained(&root, &reference.root, &[]),
        Vec::<String>::new()
    );
    assert_eq!(listed(&root), listed(&reference.root));
}

#[test]
fn scripts_make_of_nginx_what_apt_makes() {
    as_apt("nginx-light");
}

#[test]
fn scripts_make_of_python_what_apt_makes() {
    as_apt("python3-minimal");
}
