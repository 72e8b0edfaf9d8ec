//! What a source asks for, as a digest: how a lock tells an outdated pin.

use std::collections::BTreeSet;

use immbuild_cas::canonical::{Canonical, Encoder};
use immbuild_cas::digest::Digest;

use super::model::{
    DebianSource, GitSource, HttpSource, ImageSource, PathSource, PythonSource, Repository, Source,
    SourceKind,
};

impl Source {
    /// The digest of what it asks for, for the platform it was resolved for: without its name, mirrors, and what is
    /// done with the bytes once they are here.
    pub fn request(&self) -> Digest {
        self.canonical_digest()
    }

    /// Does it need a pin in the lock? `path` and a local `git` are what they are at each build.
    pub fn is_locked(&self) -> bool {
        match &self.kind {
            SourceKind::Path(_) | SourceKind::Cargo(_) => false,
            SourceKind::Git(git) => matches!(git.repository, Repository::Remote(_)),
            // A lock of its own says already which files there are.
            SourceKind::Python(python) => !python.is_lock(),
            SourceKind::Http(_) | SourceKind::Image(_) | SourceKind::Debian(_) => true,
        }
    }
}

impl Canonical for Source {
    const TAG: &'static str = "request";
    const VERSION: u32 = 1;

    fn encode_fields(&self, out: &mut Encoder) {
        match &self.kind {
            SourceKind::Path(path) => {
                out.str("path");
                encode_path(path, out);
            }
            SourceKind::Git(git) => {
                out.str("git");
                encode_git(git, out);
            }
            SourceKind::Http(http) => {
                out.str("http");
                encode_http(http, out);
            }
            SourceKind::Image(image) => {
                out.str("image");
                encode_image(image, out);
            }
            SourceKind::Debian(debian) => {
                out.str("debian");
                encode_debian(debian, out);
            }
            SourceKind::Python(python) => {
                out.str("python");
                encode_python(python, out);
            }
            SourceKind::Cargo(cargo) => {
                out.str("cargo");
                out.str(&cargo.file);
            }
        }
    }
}

fn encode_path(path: &PathSource, out: &mut Encoder) {
    out.str(&path.path);
    for patterns in [&path.include, &path.exclude, &path.ignore] {
        out.sequence(patterns.iter(), |out, pattern| out.str(pattern));
    }
    out.bool(path.preserve);
}

fn encode_git(git: &GitSource, out: &mut Encoder) {
    match &git.repository {
        Repository::Local(path) => {
            out.u8(0);
            out.str(path);
        }
        Repository::Remote(url) => {
            out.u8(1);
            out.str(url);
        }
    }
    out.str(git.rev.as_deref().unwrap_or("HEAD"));
    out.bytes(git.subdir.as_bytes());
    out.bool(git.submodules);
}

/// Not `unpack`, `strip` and `preserve`: the lock pins the file, and what is made of it is in the graph.
fn encode_http(http: &HttpSource, out: &mut Encoder) {
    out.str(&http.url);
    out.option(http.sha256.as_ref(), Encoder::digest);
}

/// A local path begins with a dot or a slash and a name in a registry never does, so none is taken for the other.
fn encode_image(image: &ImageSource, out: &mut Encoder) {
    let (place, tag) = match image {
        ImageSource::Local { path, tag } => (path.clone(), tag.as_deref()),
        ImageSource::Registry(reference) => (reference.to_string(), None),
    };
    out.str(&place);
    out.option(tag, Encoder::str);
}

/// What decides which wheels are locked: what the requirements say and what for, not how their file is called.
fn encode_python(python: &PythonSource, out: &mut Encoder) {
    out.option(python.content.as_ref(), Encoder::digest);
    out.str(&python.interpreter.to_string());
    out.str(&python.libc.to_string());
    for names in [&python.groups, &python.extras] {
        let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        out.sequence(names.iter(), |out, name| out.str(name));
    }
}

/// What decides which packages are locked and by whose word. Not where they are fetched from (`mirrors`, `snapshot`), not
/// how fresh a release must be, and not what is made of the packages (`configure`, `fixups`, `distro`).
fn encode_debian(debian: &DebianSource, out: &mut Encoder) {
    let set = |out: &mut Encoder, names: &[String]| {
        let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        out.sequence(names.iter(), |out, name| out.str(name));
    };
    set(out, &debian.packages);
    out.bool(debian.recommends);
    out.bool(debian.essential);
    out.sequence(debian.prefer.iter(), |out, name| out.str(name));
    set(out, &debian.exclude);
    out.sequence(debian.archives.iter(), |out, archive| {
        out.str(archive.name.as_str());
        out.sequence(archive.suites.iter(), |out, suite| out.str(suite));
        set(out, &archive.components);
        out.option(archive.signed_by.as_deref(), Encoder::str);
        set(out, &archive.fingerprints);
    });
}
