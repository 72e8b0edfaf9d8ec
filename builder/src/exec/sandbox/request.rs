//! What the builder and the supervisor say to each other.
//!
//! Both ends are the same program, so the encoding has no history; it is the canonical one because
//! that is there.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use immbuild_cas::canonical::{Canonical, DecodeError, Decoder, Encoder};

use super::Status;
use super::idmap::IdMap;
use crate::exec::tracer::evidence::Evidence;
use crate::exec::tracer::{self, Metadata, Spin, Virtual};
use crate::hostfs::owner::ROOT;

/// Everything the supervisor needs to run one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) lowers: Vec<PathBuf>,
    pub(super) scratch: PathBuf,
    pub(super) argv: Vec<Vec<u8>>,
    pub(super) env: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Absolute.
    pub(super) directory: PathBuf,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Mount point without the leading `/`, and the directory outside.
    pub(super) caches: Vec<(PathBuf, PathBuf)>,
    pub(super) secrets: Vec<(String, Vec<u8>)>,
    pub(super) terminal: bool,
    pub(super) read_only: bool,
    pub(super) virtualise: Option<Virtual>,
    /// Where owners are emulated: of what can have no note, by absolute path.
    pub(super) owners: BTreeMap<Vec<u8>, (u32, u32)>,
    pub(super) ids: IdMap,
}

/// What the supervisor answers, once, when no process is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Report {
    Ended(Status),
    Failed(Failure),
}

/// What the tracer knows when the process has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) evidence: Evidence,
    /// Of what can have no note, by absolute path.
    pub(super) owners: BTreeMap<Vec<u8>, (u32, u32)>,
}

impl Left {
    pub(super) fn of(ended: &tracer::Ended) -> Self {
        Self {
            evidence: ended.evidence.clone(),
            owners: ended.owners.clone(),
        }
    }

    /// Strict.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::new::<Self>(bytes)?;
        let left = Self {
            evidence: Evidence::decode(from.bytes()?)?,
            owners: owners(&mut from)?,
        };
        from.finish()?;
        Ok(left)
    }
}

impl Canonical for Left {
    const TAG: &'static str = "immbuild.sandbox.left";
    const VERSION: u32 = 1;

    fn encode_fields(&self, out: &mut Encoder) {
        out.bytes(&self.evidence.to_canonical());
        encode_owners(out, &self.owners);
    }
}

/// Where starting the process failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) stage: Stage,
    /// The path, program or limit that the stage is about.
    pub(super) detail: Vec<u8>,
    /// The error number, 0 where there is none.
    pub(super) errno: i32,
}

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Namespaces,
    Scratch,
    Times,
    Overlay,
    Mount,
    Cache,
    Limit,
    Directory,
    Program,
    /// The program is there, what the kernel starts it with is not; the detail is both, with a NUL between.
    Interpreter,
    Setup,
    Killed,
    /// What could not happen; the detail says it.
    Defect,
}

impl Stage {
    const ALL: [Self; 13] = [
        Self::Namespaces,
        Self::Scratch,
        Self::Times,
        Self::Overlay,
        Self::Mount,
        Self::Cache,
        Self::Limit,
        Self::Directory,
        Self::Program,
        Self::Interpreter,
        Self::Setup,
        Self::Killed,
        Self::Defect,
    ];
}

/// Turns the error of a system call into a [`Failure`].
pub(super) trait At<T> {
    fn at(self, stage: Stage, detail: impl AsRef<Path>) -> Result<T, Failure>;
}

impl<T, E: Into<std::io::Error>> At<T> for Result<T, E> {
    fn at(self, stage: Stage, detail: impl AsRef<Path>) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            stage,
            detail: detail.as_ref().as_os_str().as_bytes().to_vec(),
            errno: error.into().raw_os_error().unwrap_or(0),
        })
    }
}

impl Canonical for Request {
    const TAG: &'static str = "immbuild.sandbox.request";
    const VERSION: u32 = 1;

    fn encode_fields(&self, out: &mut Encoder) {
        out.count(self.lowers.len());
        for lower in &self.lowers {
            path(out, lower);
        }
        path(out, &self.scratch);
        out.count(self.argv.len());
        for word in &self.argv {
            out.bytes(word);
        }
        out.count(self.env.len());
        for (name, value) in &self.env {
            out.bytes(name);
            out.bytes(value);
        }
        path(out, &self.directory);
        out.u32(self.uid);
        out.u32(self.gid);
        out.count(self.caches.len());
        for (at, host) in &self.caches {
            path(out, at);
            path(out, host);
        }
        out.count(self.secrets.len());
        for (name, value) in &self.secrets {
            out.str(name);
            out.bytes(value);
        }
        out.bool(self.terminal);
        out.bool(self.read_only);
        out.option(self.virtualise, |out, what| {
            out.i64(what.epoch);
            out.digest(&what.seed);
            out.bool(what.metadata == Metadata::Clamp);
            out.bool(what.strict);
            out.bool(what.owners);
        });
        encode_owners(out, &self.owners);
        out.bool(self.ids == IdMap::Range);
    }
}

impl Request {
    /// User and group that the kernel knows. Where owners are emulated, the tracer tells the process the others.
    pub(super) fn real_ids(&self) -> (u32, u32) {
        match &self.virtualise {
            Some(what) if what.owners => ROOT,
            _ => (self.uid, self.gid),
        }
    }

    /// Strict.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::new::<Self>(bytes)?;
        let request = Self {
            lowers: sequence(&mut from, to_path)?,
            scratch: to_path(&mut from)?,
            argv: sequence(&mut from, |from| Ok(from.bytes()?.to_vec()))?,
            env: sequence(&mut from, |from| {
                Ok((from.bytes()?.to_vec(), from.bytes()?.to_vec()))
            })?
            .into_iter()
            .collect(),
            directory: to_path(&mut from)?,
            uid: from.u32()?,
            gid: from.u32()?,
            caches: sequence(&mut from, |from| Ok((to_path(from)?, to_path(from)?)))?,
            secrets: sequence(&mut from, |from| {
                let name = String::from_utf8_lossy(from.bytes()?).into_owned();
                Ok((name, from.bytes()?.to_vec()))
            })?,
            terminal: from.u8()? == 1,
            read_only: from.u8()? == 1,
            virtualise: if from.u8()? == 1 {
                Some(Virtual {
                    epoch: from.i64()?,
                    seed: from.digest()?,
                    metadata: if from.u8()? == 1 {
                        Metadata::Clamp
                    } else {
                        Metadata::Virtual
                    },
                    strict: from.u8()? == 1,
                    owners: from.u8()? == 1,
                })
            } else {
                None
            },
            owners: owners(&mut from)?,
            ids: if from.u8()? == 1 {
                IdMap::Range
            } else {
                IdMap::Single
            },
        };
        from.finish()?;
        Ok(request)
    }
}

impl Canonical for Report {
    const TAG: &'static str = "immbuild.sandbox.report";
    const VERSION: u32 = 1;

    fn encode_fields(&self, out: &mut Encoder) {
        match self {
            Self::Ended(Status::Exited(code)) => {
                out.u8(0);
                out.i64(i64::from(*code));
            }
            Self::Ended(Status::Signalled(signal)) => {
                out.u8(1);
                out.i64(i64::from(*signal));
            }
            Self::Ended(Status::TimedOut) => out.u8(2),
            Self::Ended(Status::Spun(spin)) => {
                out.u8(4);
                out.i64(spin.process.into());
                out.str(&spin.program);
                out.i64(spin.thread.into());
                out.str(&spin.name);
                out.u64(spin.instruction);
                out.u8(spin.between.into());
            }
            Self::Failed(failure) => {
                out.u8(3);
                let stage = Stage::ALL.iter().position(|stage| *stage == failure.stage);
                out.count(stage.expect("ALL holds every stage"));
                out.bytes(&failure.detail);
                out.i64(i64::from(failure.errno));
            }
        }
    }
}

impl Report {
    /// `None` unless the bytes are exactly one report.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Decoder::new::<Self>(bytes).ok()?;
        let number = |from: &mut Decoder<'_>| i32::try_from(from.i64().ok()?).ok();
        let report = match from.u8().ok()? {
            0 => Self::Ended(Status::Exited(number(&mut from)?)),
            1 => Self::Ended(Status::Signalled(number(&mut from)?)),
            2 => Self::Ended(Status::TimedOut),
            4 => Self::Ended(Status::Spun(Spin {
                process: number(&mut from)?,
                program: String::from_utf8_lossy(from.bytes().ok()?).into_owned(),
                thread: number(&mut from)?,
                name: String::from_utf8_lossy(from.bytes().ok()?).into_owned(),
                instruction: from.u64().ok()?,
                between: from.u8().ok()? == 1,
            })),
            3 => Self::Failed(Failure {
                stage: *Stage::ALL.get(from.u32().ok()? as usize)?,
                detail: from.bytes().ok()?.to_vec(),
                errno: number(&mut from)?,
            }),
            _ => return None,
        };
        from.finish().ok()?;
        Some(report)
    }
}

/// Owners by path.
pub(super) fn encode_owners(out: &mut Encoder, owners: &BTreeMap<Vec<u8>, (u32, u32)>) {
    out.sequence(owners.iter(), |out, (path, (uid, gid))| {
        out.bytes(path);
        out.u32(*uid);
        out.u32(*gid);
    });
}

/// The reverse.
pub(super) fn owners(from: &mut Decoder<'_>) -> Result<BTreeMap<Vec<u8>, (u32, u32)>, DecodeError> {
    let entries = sequence(from, |from| {
        Ok((from.bytes()?.to_vec(), (from.u32()?, from.u32()?)))
    })?;
    Ok(entries.into_iter().collect())
}

fn path(out: &mut Encoder, path: &Path) {
    out.bytes(path.as_os_str().as_bytes());
}

fn to_path(from: &mut Decoder<'_>) -> Result<PathBuf, DecodeError> {
    Ok(OsString::from_vec(from.bytes()?.to_vec()).into())
}

fn sequence<T>(
    from: &mut Decoder<'_>,
    member: impl Fn(&mut Decoder<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    (0..from.count()?).map(|_| member(from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_arrives_as_it_was_sent() {
        let request = Request {
            lowers: vec!["/a".into(), "/b".into()],
            scratch: "/s".into(),
            argv: vec![b"sh".to_vec(), b"\xff".to_vec()],
            env: [(b"A".to_vec(), b"1".to_vec())].into(),
            directory: "/w".into(),
            uid: 1,
            gid: 2,
            caches: vec![("c".into(), "/h".into())],
            secrets: vec![("k".into(), b"\0v".to_vec())],
            terminal: true,
            read_only: true,
            virtualise: Some(Virtual {
                epoch: -1,
                seed: immbuild_cas::digest::Digest::of(b"seed"),
                metadata: Metadata::Clamp,
                strict: true,
                owners: true,
            }),
            owners: [(b"/l".to_vec(), (5, 6))].into(),
            ids: IdMap::Single,
        };
        assert_eq!(Request::decode(&request.to_canonical()), Ok(request));
    }

    #[test]
    fn what_is_left_arrives_as_it_was_sent() {
        let left = Left {
            evidence: Evidence::default(),
            owners: [(b"/l".to_vec(), (5, 6))].into(),
        };
        assert_eq!(Left::decode(&left.to_canonical()), Ok(left));
    }

    #[test]
    fn every_report_arrives_as_it_was_sent() {
        let failures = Stage::ALL.map(|stage| {
            Report::Failed(Failure {
                stage,
                detail: b"/x".to_vec(),
                errno: 13,
            })
        });
        let statuses = [
            Status::Exited(3),
            Status::Signalled(9),
            Status::TimedOut,
            Status::Spun(Spin {
                process: 6,
                program: "y".into(),
                thread: 7,
                name: "x".into(),
                instruction: 0x40_1000,
                between: true,
            }),
        ];
        for report in failures.into_iter().chain(statuses.map(Report::Ended)) {
            assert_eq!(Report::decode(&report.to_canonical()), Some(report));
        }
        assert_eq!(Report::decode(b"x"), None);
    }
}
