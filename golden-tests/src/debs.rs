//! Debian packages from the machine's own archive: roots that apt and dpkg make of them, and locks that name them.
//!
//! A lock is written here from what a root of mmdebstrap's has, so that a test of installing asks nothing of a solver.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use immbuild::epoch::Epoch;
use immbuild::lock::model::{DebianPin, Lock, Locked, PackagePin, Pin, ReleasePin};
use immbuild::spec::model::Ident;
use immbuild_cas::digest::Digest;
use immbuild_cas::store::{LocalStore, Store as _};

use crate::lab::Lab;
use crate::machine::run;
use crate::roots::alone;

/// A root that mmdebstrap made.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Its files.
    pub root: PathBuf,
    /// Its packages.
    pub packages: Vec<Deb>,
    /// How long mmdebstrap kept processors busy, in seconds; downloads included.
    pub cpu: f64,
}

/// A package as a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deb {
    /// Its name.
    pub name: String,
    /// Its architecture.
    pub arch: String,
    /// Its version.
    pub version: String,
    /// Where it is.
    pub file: PathBuf,
}

impl Deb {
    fn fields(&self) -> Result<BTreeMap<String, String>> {
        let file = self.file.display().to_string();
        let text = run("dpkg-deb", &["--field", &file])?;
        Ok(text
            .lines()
            .filter(|line| !line.starts_with(' '))
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect())
    }
}

/// The root of these packages, of what they need and of what is essential: `/bin` is `/usr/bin`, there is no apt in it. Made
/// once for a target directory.
pub fn reference(name: &str, packages: &[&str]) -> Result<Reference> {
    let top = crate::scratch().join("debian").join(name);
    let root = top.join("root");
    let debs = top.join("debs");
    let _alone = alone(&format!("debian-{name}"))?;
    if !top.join("cpu").exists() || !debs.exists() {
        println!("making the root `{name}` with mmdebstrap");
        let _ = fs::remove_dir_all(&top);
        fs::create_dir_all(&root)?;
        let tar = top.join("root.tar");
        let shown = tar.display().to_string();
        let script = "import os,subprocess,sys\n\
            subprocess.run(sys.argv[1:],check=True)\n\
            t=os.times();print(t.children_user+t.children_system)";
        let cpu = run(
            "env",
            &[
                "SOURCE_DATE_EPOCH=1577836800",
                "python3",
                "-c",
                script,
                "mmdebstrap",
                "--quiet",
                "--mode=root",
                "--variant=essential",
                "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
                &format!("--include=usr-is-merged,{}", packages.join(",")),
                // The packages themselves: the machine's own lists may know other versions, or another archive.
                "--skip=essential/unlink,download/empty",
                &format!(
                    "--customize-hook=cp -r \"$1/var/cache/apt/archives\" {}",
                    debs.display()
                ),
                "bookworm",
                &shown,
            ],
        )?;
        run("tar", &["-C", &root.display().to_string(), "-xf", &shown])?;
        fs::remove_file(&tar)?;
        // What mmdebstrap prints comes before it.
        let cpu = cpu.lines().last().unwrap_or_default().to_owned();
        fs::write(top.join("cpu"), cpu)?;
    }
    let cpu = fs::read_to_string(top.join("cpu"))?.trim().parse()?;
    let packages = packages_of(&root, &debs)?;
    Ok(Reference {
        root,
        packages,
        cpu,
    })
}

/// The packages that a root says it has, as files in `debs`.
fn packages_of(root: &Path, debs: &Path) -> Result<Vec<Deb>> {
    let mut found = Vec::new();
    for line in dpkg_query(root, "${Package} ${Architecture} ${Version}\\n")?.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [name, arch, version] = words[..] else {
            anyhow::bail!("`{line}` is no package");
        };
        let file = debs.join(format!("{name}_{}_{arch}.deb", version.replace(':', "%3a")));
        ensure!(file.exists(), "there is no {}", file.display());
        found.push(Deb {
            name: name.to_owned(),
            arch: arch.to_owned(),
            version: version.to_owned(),
            file,
        });
    }
    Ok(found)
}

/// What dpkg says of the packages of a root.
pub fn dpkg_query(root: &Path, format: &str) -> Result<String> {
    let admin = root.join("var/lib/dpkg");
    run(
        "dpkg-query",
        &[
            &format!("--admindir={}", admin.display()),
            "--show",
            &format!("--showformat={format}"),
        ],
    )
}

/// Locks every `debian` source of the lab's spec to these packages, and puts those into its store.
pub fn lock(lab: &Lab, debs: &[Deb]) -> Result<()> {
    let store = LocalStore::open(&lab.store)?;
    let names: Vec<&str> = debs.iter().map(|deb| deb.name.as_str()).collect();
    let mut packages = Vec::new();
    for deb in debs {
        let bytes = fs::read(&deb.file)?;
        store.put_bytes(&bytes)?;
        let fields = deb.fields()?;
        let get = |name: &str| fields.get(name).cloned().unwrap_or_default();
        let source = get("Source");
        let (source, version) = match source.split_once(" (") {
            Some((name, version)) => (
                name.to_owned(),
                Some(version.trim_end_matches(')').to_owned()),
            ),
            None if source.is_empty() => (deb.name.clone(), None),
            None => (source, None),
        };
        packages.push(PackagePin {
            name: deb.name.clone(),
            arch: deb.arch.clone(),
            version: deb.version.clone(),
            for_architectures: if deb.arch == "all" {
                vec!["amd64".to_owned()]
            } else {
                Vec::new()
            },
            archive: Ident::new("main").context("a name")?,
            path: format!("pool/main/{}", deb.name),
            size: bytes.len() as u64,
            sha256: Digest::of(&bytes),
            source,
            source_version: version,
            depends: depends(
                &deb.name,
                &format!("{},{}", get("Pre-Depends"), get("Depends")),
                &names,
            ),
            reason: "requested".to_owned(),
        });
    }
    let text = String::from_utf8(lab.read("spec.toml"))?;
    lab.write("spec.lock", lock_of(&text, packages)?);
    Ok(())
}

/// The lock of a spec all of whose `debian` sources are these packages.
pub fn lock_of(spec: &str, mut packages: Vec<PackagePin>) -> Result<String> {
    let spec =
        immbuild::spec::parse(spec, "spec.toml").map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
    let arguments = spec
        .arguments(&BTreeMap::new())
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let resolved = spec
        .resolve(spec.platforms()[0], &arguments)
        .map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
    packages.sort();
    let pin = DebianPin {
        solver: "apt-greedy/1".to_owned(),
        // No archive was asked: it stands for the list that the packages are.
        releases: vec![ReleasePin {
            archive: Ident::new("main").context("a name")?,
            suite: "bookworm".to_owned(),
            inrelease: Digest::of(format!("{packages:?}").as_bytes()),
            date: Epoch::DEFAULT,
            signers: vec!["0".repeat(40)],
        }],
        packages,
    };
    let sources = resolved
        .sources
        .values()
        .filter(|source| source.is_locked())
        .map(|source| {
            let locked = Locked {
                request: source.request(),
                pin: Pin::Debian(pin.clone()),
            };
            (source.name.clone(), locked)
        })
        .collect();
    let lock = Lock {
        epoch: Epoch::DEFAULT,
        sources,
        expect: BTreeMap::new(),
    };
    Ok(immbuild::lock::write(&lock))
}

/// The names among `all` that a package says it depends on.
fn depends(own: &str, value: &str, all: &[&str]) -> Vec<String> {
    let mut found: Vec<String> = value
        .split([',', '|'])
        .map(|relation| relation.split(['(', ':']).next().unwrap_or_default().trim())
        .filter(|name| *name != own && all.contains(name))
        .map(str::to_owned)
        .collect();
    found.sort();
    found.dedup();
    found
}
