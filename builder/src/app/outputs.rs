//! Where images go: what a spec and the command line ask for, checked before anything is built, written when all is done.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use immbuild_cas::canonical::{Canonical, Encoder};
use immbuild_cas::digest::{BlobId, Digest, TreeId};
use immbuild_cas::path::RelPath;
use immbuild_cas::store::{LocalStore, Record, Store as _, StoreError};

use super::failure::{Exit, Failure};
use super::memory::Built;
use super::pins::Pinned;
use super::project::Project;
use super::session::Session;
use super::until::Until;
use crate::diag::{Diagnostic, Place};
use crate::hostfs::materialise::{Materialise, Purpose, Times};
use crate::hostfs::scan::{Scan, would_take};
use crate::image::{Image, ImageIndex};
use crate::layer::LayerDigest;
use crate::output::{
    self, FunctionZip, LayerSource, MAX_PACKED, Names, OutputError, Stamp, Subject, Written, stamp,
    write_docker_archive, write_function_zip, write_oci_archive, write_oci_layout,
};
use crate::pattern::Selection;
use crate::ports::{Event, Outcome, WorkId};
use crate::spec::model::{OutputKind, Resolved, Source, SourceKind};

/// An output of the command line: `kind=oci-archive,file=out/shop.tar`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputRequest {
    /// What is written.
    pub kind: OutputKind,
    /// Where, from the working directory.
    pub path: PathBuf,
    /// Of a function zip: the directory of the image that is written.
    pub root: RelPath,
}

impl OutputRequest {
    /// Reads the value of `--output`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut kind, mut path, mut root) = (None, None, None);
        for part in text.split(',') {
            match part.split_once('=') {
                Some(("kind", value)) => {
                    kind = Some(value.parse::<Kind>()?.0);
                }
                Some(("file" | "dir", value)) if !value.is_empty() => path = Some((part, value)),
                Some(("root", value)) if value.starts_with('/') => {
                    let found = RelPath::from_absolute(value.as_bytes());
                    root = Some(found.map_err(|error| format!("`{part}`: {error}"))?);
                }
                _ => {
                    return Err(format!(
                        "`{part}` is none of `kind=…`, `file=…`, `dir=…`, `root=/…`"
                    ));
                }
            }
        }
        let kind = kind.ok_or("it needs `kind=…`")?;
        let key = kind.place();
        if root.is_some() && kind != OutputKind::FunctionZip {
            return Err(format!("kind `{}` has no `root`", kind.as_str()));
        }
        match path {
            Some((part, value)) if part.starts_with(key) => Ok(Self {
                kind,
                path: value.into(),
                root: root.unwrap_or_default(),
            }),
            _ => Err(format!("kind `{}` needs `{key}=…`", kind.as_str())),
        }
    }
}

struct Kind(OutputKind);

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = OutputKind::ALL;
        all.into_iter()
            .find(|kind| kind.as_str() == text)
            .map(Self)
            .ok_or_else(|| {
                let known: Vec<&str> = all.iter().map(|kind| kind.as_str()).collect();
                match text {
                    "registry" => format!("`{text}` is not supported by this version"),
                    _ => format!(
                        "there is no kind `{text}`: it is one of {}",
                        known.join(", ")
                    ),
                }
            })
    }
}

/// An output with its place on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedOutput {
    /// What is written.
    pub kind: OutputKind,
    /// Where, absolute.
    pub path: PathBuf,
    /// As the user wrote it.
    pub shown: PathBuf,
    /// Of a function zip: the directory of the image that is written.
    pub root: RelPath,
    /// Which of several platforms' images; none: all of them.
    pub platform: Option<usize>,
    /// Where the spec says it.
    place: Option<Place>,
}

/// All outputs of a build, each checked as far as it can be before there is an image: those of the spec, unless there are to be
/// `none` of them, and `more`.
pub fn plan(
    project: &Project,
    specs: &[&Resolved],
    more: &[OutputRequest],
    none: bool,
) -> Result<Vec<PlannedOutput>, Failure> {
    let mut planned: Vec<PlannedOutput> = Vec::new();
    for (at, spec) in specs.iter().enumerate().filter(|_| !none) {
        for output in &spec.outputs {
            let path = project.directory.join(&output.path);
            if planned.iter().any(|known| known.path == path) {
                continue;
            }
            planned.push(PlannedOutput {
                kind: output.kind,
                path,
                shown: project
                    .path
                    .parent()
                    .unwrap_or(Path::new(""))
                    .join(&output.path),
                root: output.root.clone(),
                platform: (output.kind.is_of_one_platform() && specs.len() > 1).then_some(at),
                place: Some(Place {
                    file: project.file.clone(),
                    span: output.span,
                }),
            });
        }
    }
    for output in more {
        let path = std::path::absolute(&output.path)
            .map_err(|error| super::project::io_failure("find", &output.path, &error))?;
        if output.kind.is_of_one_platform() && specs.len() > 1 {
            return Err(Failure::new(
                Exit::Usage,
                Diagnostic::error(format!(
                    "`{}` holds files of one platform, and this spec has several",
                    output.kind.as_str()
                ))
                .hint("add `--platform P`"),
            ));
        }
        planned.push(PlannedOutput {
            kind: output.kind,
            path,
            shown: output.path.clone(),
            root: output.root.clone(),
            platform: None,
            place: None,
        });
    }
    let mut written = BTreeSet::new();
    for output in &planned {
        output.check()?;
        output.check_input(project, specs)?;
        if !written.insert(&output.path) {
            return Err(Failure::new(
                Exit::Usage,
                Diagnostic::error(format!("two outputs write `{}`", output.shown.display()))
                    .hint("name another place for one of them"),
            ));
        }
    }
    for output in planned.iter().filter(|output| output.place.is_none()) {
        for source in specs.iter().flat_map(|spec| spec.sources.values()) {
            output.check_outside(project, source)?;
        }
    }
    Ok(planned)
}

impl PlannedOutput {
    /// A build that takes minutes should not end with "there is a directory in the way".
    fn check(&self) -> Result<(), Failure> {
        let is_file = self.is_file();
        let there = std::fs::symlink_metadata(&self.path);
        // Also behind a link: whoever names `/dev/stdout` does not want it replaced.
        let leads_to = std::fs::metadata(&self.path);
        let problem = match (there, leads_to) {
            (Ok(there), _) if is_file && there.is_dir() => "there is a directory of that name",
            (Ok(there), _) if !is_file && !there.is_dir() => "there is a file of that name",
            (Ok(_), Ok(found)) if is_file && !found.is_file() => {
                "what is there is no file, and an output is never written into something"
            }
            _ => return Ok(()),
        };
        let mut diagnostic = Diagnostic::error(format!("cannot write `{}`", self.shown.display()))
            .because(problem)
            .hint("name another place, or move away what is there");
        diagnostic.place.clone_from(&self.place);
        Err(Failure::new(Exit::Local, diagnostic))
    }

    /// What a build reads is never replaced by what it writes.
    fn check_input(&self, project: &Project, specs: &[&Resolved]) -> Result<(), Failure> {
        let same = |path: &Path| {
            let found =
                |path: &Path| std::fs::canonicalize(path).or_else(|_| std::path::absolute(path));
            found(path).ok() == found(&self.path).ok()
        };
        let mut sources = specs.iter().flat_map(|spec| spec.sources.values());
        let source = sources.find(|source| match &source.kind {
            SourceKind::Path(path) => same(&project.resolve(&path.path)),
            _ => false,
        });
        let what = if same(&project.path) {
            "it is the spec".to_owned()
        } else if same(&project.lock_path) {
            "it is the lock".to_owned()
        } else if let Some(source) = source {
            format!("it is the source `{}`", source.name)
        } else {
            return Ok(());
        };
        let shown = self.shown.display();
        let mut diagnostic = Diagnostic::error(format!("cannot write `{shown}`"))
            .because(what)
            .hint("name another place");
        diagnostic.place.clone_from(&self.place);
        Err(Failure::new(Exit::Usage, diagnostic))
    }

    /// SPEC A, "Outputs": what only the command line names would be part of the source at the next build.
    fn check_outside(&self, project: &Project, source: &Source) -> Result<(), Failure> {
        let SourceKind::Path(path) = &source.kind else {
            return Ok(());
        };
        let place = Place {
            file: project.file.clone(),
            span: source.span,
        };
        let at = |failure: Failure| failure.at(place.clone(), &source.name);
        let selection = Selection::new(&path.include, &path.exclude)
            .map_err(|error| at(Failure::of(Exit::Spec, &error)))?;
        let scan = Scan {
            root: &project.resolve(&path.path),
            selection: Some(&selection),
            ignore: &path.ignore,
            leave_out: &[],
            preserve: path.preserve,
            threads: NonZeroUsize::MIN,
            started: (0, 0),
        };
        if would_take(&scan, &self.path, !self.is_file()).map_err(|error| at(error.into()))? {
            return Err(Failure::new(
                Exit::Usage,
                Diagnostic::error(format!("cannot write `{}`", self.shown.display()))
                    .because(format!("it lies in source `{}`, so the next build would take it in", source.name))
                    .at(place)
                    .hint("write it elsewhere, leave it out with `exclude`, or declare it as an `[[output]]`: those are never part of a source"),
            ));
        }
        Ok(())
    }

    /// What is wrong with what the spec says is told with the line that says it.
    fn at_its_place(&self, error: OutputError) -> Failure {
        let mut failure = Failure::from(error);
        if let Some(first) = failure.diagnostics.first_mut()
            && failure.exit == Exit::Spec
        {
            first.place.clone_from(&self.place);
        }
        failure
    }

    fn is_file(&self) -> bool {
        self.kind.place() == "file"
    }
}

/// The store as the source of layers, until the process is asked to stop. Layers that this process wrote are copied by
/// the kernel.
struct StoreLayers<'a> {
    store: &'a LocalStore,
    stop: &'a AtomicBool,
}

impl LayerSource for StoreLayers<'_> {
    fn open(&self, digest: &LayerDigest) -> Result<Box<dyn Read + Send + '_>, StoreError> {
        Until::new(self.store, self.stop).reader(&BlobId::new(*digest.digest()))
    }

    fn file(&self, digest: &LayerDigest) -> Result<Option<File>, StoreError> {
        let blob = BlobId::new(*digest.digest());
        if self.stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        self.store.own_file(&blob)
    }
}

const WRITTEN: &str = "written";
/// The kind of record of a directory that is about to be put at its place: who is killed then cannot say so afterwards.
const COMING: &str = "coming";

/// What decides the bytes of an output, and with its stamp whether it has to be written again.
fn output_key(output: &PlannedOutput) -> Digest {
    let mut out = Encoder::default();
    out.str(WRITTEN);
    out.str(output.kind.as_str());
    out.str(&output.path.display().to_string());
    out.bytes(output.root.as_bytes());
    Digest::of(&out.into_bytes())
}

fn output_value(subject: Digest, names: &Names, stamp: Option<&Stamp>) -> Vec<u8> {
    let mut out = Encoder::default();
    out.digest(&subject);
    out.sequence(names.references().into_iter(), |out, name| out.str(&name));
    out.sequence(names.tags.iter(), |out, tag| out.str(tag));
    out.option(stamp, |out, stamp| out.bytes(&stamp.to_canonical()));
    out.into_bytes()
}

/// Writes every output; one that is there already, untouched since this very image was written there, is left alone.
///
/// Says for each whether it was.
pub fn write(
    session: &Session<'_>,
    pinned: &Pinned,
    outputs: &[PlannedOutput],
    images: &[Image],
    index: Option<&ImageIndex>,
    built: &Built,
) -> Result<Vec<(PathBuf, bool)>, Failure> {
    let names = Names {
        name: built.name.clone(),
        tags: built.tags.iter().cloned().collect::<BTreeSet<_>>(),
    };
    let whole = match index {
        Some(index) => Subject::Several(index),
        None => Subject::One(&images[0]),
    };
    let mut written = Vec::new();
    for (output, number) in outputs.iter().zip(0_u64..) {
        let which = output.platform.unwrap_or(0);
        let subject = match output.platform {
            Some(at) => Subject::One(&images[at]),
            None => whole,
        };
        let key = output_key(output);
        let record = session.store.record(WRITTEN, &key)?;
        let before = stamp(&output.path).ok().flatten();
        let same = before.as_ref().is_some_and(|before| {
            record.as_ref().is_some_and(|record| {
                record.value == output_value(subject.digest(), &names, Some(before))
            })
        });
        if same {
            written.push((output.shown.clone(), true));
            continue;
        }
        let work = WorkId((2 << 32) + number);
        session.events.event(Event::Started {
            id: work,
            label: format!("write {}", output.shown.display()),
            total: Some(
                subject
                    .images()
                    .iter()
                    .flat_map(|image| &image.layers)
                    .map(|layer| layer.size)
                    .sum(),
            ),
        });
        let progress = |done| session.events.event(Event::Advanced { id: work, done });
        let last = record.as_ref().and_then(|record| stamp_of(&record.value));
        let tree = built.images[which].tree;
        let outcome = write_one(
            session,
            pinned,
            output,
            subject,
            &names,
            &key,
            last.as_ref(),
            tree,
            &progress,
        );
        session.events.event(Event::Finished {
            id: work,
            outcome: if outcome.is_ok() {
                Outcome::Done
            } else {
                Outcome::Failed
            },
        });
        outcome?;
        let after = stamp(&output.path)?;
        let record = Record {
            value: output_value(subject.digest(), &names, after.as_ref()),
            ..Record::default()
        };
        session.store.put_record(WRITTEN, &key, &record)?;
        written.push((output.shown.clone(), false));
    }
    Ok(written)
}

/// The stamp at the end of a record's value, if there is one.
fn stamp_of(value: &[u8]) -> Option<Stamp> {
    let mut decoder = immbuild_cas::canonical::Decoder::over(value);
    decoder.digest().ok()?;
    for _ in 0..2 {
        for _ in 0..decoder.count().ok()? {
            decoder.bytes().ok()?;
        }
    }
    (decoder.u8().ok()? == 1).then_some(())?;
    Stamp::decode_strict(decoder.bytes().ok()?).ok()
}

#[allow(
    clippy::too_many_arguments,
    reason = "each kind of output uses some of them, and only here"
)]
fn write_one(
    session: &Session<'_>,
    pinned: &Pinned,
    output: &PlannedOutput,
    subject: Subject<'_>,
    names: &Names,
    key: &Digest,
    last: Option<&Stamp>,
    tree: TreeId,
    progress: &dyn Fn(u64),
) -> Result<(), Failure> {
    let layers = StoreLayers {
        store: &session.store,
        stop: session.cancel,
    };
    if let Some(parent) = output.path.parent() {
        std::fs::create_dir_all(parent)
            .map_err(|error| super::project::io_failure("make", parent, &error))?;
    }
    match output.kind {
        OutputKind::OciArchive => {
            write_oci_archive(&output.path, subject, names, &layers, progress)?;
        }
        OutputKind::DockerArchive => {
            write_docker_archive(&output.path, subject, names, &layers, progress)?;
        }
        OutputKind::OciLayout => {
            write_oci_layout(&output.path, subject, names, &layers, last, progress)?;
        }
        OutputKind::Dir => {
            let blobs = pinned.blobs(&session.store);
            let blobs = Until::new(&blobs, session.cancel);
            let materialise = Materialise {
                directories: &session.store,
                blobs: &blobs,
                times: Times {
                    epoch: subject.images()[0].epoch,
                    known: &|_| None,
                },
                purpose: Purpose::Output {
                    owners: rustix::process::geteuid().is_root(),
                },
                threads: session.settings.threads,
            };
            let coming = session.store.record(COMING, key)?;
            let coming = coming.and_then(|record| Stamp::decode_strict(&record.value).ok());
            let known: Vec<Stamp> = last.copied().into_iter().chain(coming).collect();
            let tree = session.store.tree(&tree)?;
            let whole = output::write_dir(&output.path, &tree, &materialise, &known)?;
            let record = Record {
                value: whole.stamp.to_canonical(),
                ..Record::default()
            };
            session.store.put_record(COMING, key, &record)?;
            whole.publish()?;
        }
        OutputKind::FunctionZip => {
            let blobs = pinned.blobs(&session.store);
            let zip = FunctionZip {
                tree: &session.store.tree(&tree)?,
                root: &output.root,
                epoch: subject.images()[0].epoch,
                directories: &session.store,
                blobs: &Until::new(&blobs, session.cancel),
            };
            let written = write_function_zip(&output.path, &zip, progress)
                .map_err(|error| output.at_its_place(error))?;
            warn_of_zip(session, output, &written);
        }
    }
    Ok(())
}

/// What a function zip is written without, or may be refused for.
fn warn_of_zip(session: &Session<'_>, output: &PlannedOutput, written: &Written) {
    let warn = |text: String, hint: &str| {
        session.events.event(Event::Warning {
            text: format!("`{}`: {text}", output.shown.display()),
            hint: Some(hint.into()),
        });
    };
    if written.packed > MAX_PACKED {
        warn(
            format!(
                "it has {} bytes, and AWS Lambda takes at most {MAX_PACKED} (50 MB) in an upload of its own",
                written.packed
            ),
            "upload it to a bucket and name it there; or ship the image, which may have 10 GB",
        );
    }
    if let Some(first) = written.unreadable.first() {
        warn(
            format!(
                "{} that others cannot read, `{first}` first",
                entries(written.unreadable.len())
            ),
            "platforms run functions as a user of their own: files want 0644, programs and directories 0755",
        );
    }
    if let Some(first) = written.without_xattrs.first() {
        warn(
            format!(
                "{} without extended attributes that the image has, `{first}` first",
                entries(written.without_xattrs.len())
            ),
            "a zip has no place for them",
        );
    }
}

fn entries(count: usize) -> String {
    match count {
        1 => "an entry".into(),
        count => format!("{count} entries"),
    }
}
