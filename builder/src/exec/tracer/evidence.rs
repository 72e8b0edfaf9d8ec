//! What a traced process did that decides whether its result can be the same twice.

use std::collections::BTreeMap;

use immbuild_cas::canonical::{Canonical, DecodeError, Decoder, Encoder};

/// A source of difference that was made virtual.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A clock was read.
    Clock,
    /// Waited for a time.
    Timer,
    /// Random bytes were asked for.
    Random,
    /// The time stamp counter was read.
    Tsc,
    /// Kernel, processors, memory or load were asked for.
    Machine,
    /// Numbers or times of a file were asked for.
    Files,
    /// A directory was listed.
    Listing,
    /// An owner that this machine cannot give was emulated.
    Owner,
}

impl Source {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Clock,
        Self::Timer,
        Self::Random,
        Self::Tsc,
        Self::Machine,
        Self::Files,
        Self::Listing,
        Self::Owner,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Clock => "clock",
            Self::Timer => "timer",
            Self::Random => "random",
            Self::Tsc => "tsc",
            Self::Machine => "machine",
            Self::Files => "files",
            Self::Listing => "listing",
            Self::Owner => "owner",
        }
    }
}

/// One process, from its start or last exec(2) on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Its place: `[]` for the first, `[2, 0]` for the first child of the third child of the first.
    pub lineage: Vec<u32>,
    /// Program and arguments, as far as they are short.
    pub argv: Vec<Vec<u8>>,
    /// Which virtual sources it used, and how often.
    pub sources: BTreeMap<Source, u64>,
    /// Absolute paths of files it opened for writing, sorted.
    pub written: Vec<Vec<u8>>,
}

/// All processes of a step, and what no tracer can make virtual.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Sorted by lineage, then by order of exec.
    pub processes: Vec<Process>,
    /// What this machine does not let be virtual (`cpuid`, `rdrand`), sorted.
    pub real: Vec<String>,
    /// How often the kernel stopped a thread, by what for: names of system calls, `signal`, `fork`, ….
    /// In no key: it may differ where threads run beside each other.
    pub stops: BTreeMap<String, u64>,
    /// How long it took in real time, so that stops can be told by the second. In no key either.
    pub milliseconds: u64,
}

impl Canonical for Evidence {
    const TAG: &'static str = "immbuild.evidence";
    const VERSION: u32 = 2;

    fn encode_fields(&self, out: &mut Encoder) {
        out.sequence(self.processes.iter(), |out, process| {
            out.sequence(process.lineage.iter(), |out, place| out.u32(*place));
            out.sequence(process.argv.iter(), |out, word| out.bytes(word));
            out.sequence(process.sources.iter(), |out, (source, count)| {
                out.str(source.as_str());
                out.u64(*count);
            });
            out.sequence(process.written.iter(), |out, path| out.bytes(path));
        });
        out.sequence(self.real.iter(), |out, name| out.str(name));
        out.sequence(self.stops.iter(), |out, (name, count)| {
            out.str(name);
            out.u64(*count);
        });
        out.u64(self.milliseconds);
    }
}

impl Evidence {
    /// Strict.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::new::<Self>(bytes)?;
        let mut evidence = Self::default();
        for _ in 0..from.count()? {
            let mut process = Process::default();
            for _ in 0..from.count()? {
                process.lineage.push(from.u32()?);
            }
            for _ in 0..from.count()? {
                process.argv.push(from.bytes()?.to_vec());
            }
            for _ in 0..from.count()? {
                let name = from.bytes()?.to_vec();
                let source = Source::ALL
                    .into_iter()
                    .find(|source| source.as_str().as_bytes() == name);
                let count = from.u64()?;
                if let Some(source) = source {
                    process.sources.insert(source, count);
                }
            }
            for _ in 0..from.count()? {
                process.written.push(from.bytes()?.to_vec());
            }
            evidence.processes.push(process);
        }
        for _ in 0..from.count()? {
            let name = String::from_utf8_lossy(from.bytes()?).into_owned();
            evidence.real.push(name);
        }
        for _ in 0..from.count()? {
            let name = String::from_utf8_lossy(from.bytes()?).into_owned();
            evidence.stops.insert(name, from.u64()?);
        }
        evidence.milliseconds = from.u64()?;
        from.finish()?;
        Ok(evidence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_arrives_as_it_was_sent() {
        let evidence = Evidence {
            processes: vec![Process {
                lineage: vec![2, 0],
                argv: vec![b"cc".to_vec()],
                sources: [(Source::Clock, 3)].into(),
                written: vec![b"/a.o".to_vec()],
            }],
            real: vec!["cpuid".into()],
            stops: [("newfstatat".into(), 4)].into(),
            milliseconds: 70,
        };
        assert_eq!(Evidence::decode(&evidence.to_canonical()), Ok(evidence));
    }
}
