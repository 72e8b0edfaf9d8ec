//! The times of a base image's entries, beside its tree, which has none.
//!
//! Used only to materialise what is unchanged from the base. Must never know the clock.

use std::collections::BTreeMap;
use std::ops::Bound;

use immbuild_cas::canonical::{Canonical, DecodeError, Decoder, Encoder};
use immbuild_cas::path::RelPath;

const NANOSECONDS: u32 = 1_000_000_000;

/// A time: seconds since 1970-01-01T00:00:00Z and nanoseconds after that second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mtime {
    seconds: i64,
    nanoseconds: u32,
}

impl Mtime {
    /// This time, if there are less than 10^9 nanoseconds.
    pub const fn new(seconds: i64, nanoseconds: u32) -> Option<Self> {
        if nanoseconds < NANOSECONDS {
            Some(Self {
                seconds,
                nanoseconds,
            })
        } else {
            None
        }
    }

    /// Seconds since 1970-01-01T00:00:00Z.
    pub const fn seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds after that second, less than 10^9.
    pub const fn nanoseconds(self) -> u32 {
        self.nanoseconds
    }
}

/// Times by path. Kept as a blob in its canonical encoding; the digest of that is part of action ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mtimes(BTreeMap<RelPath, Mtime>);

impl Mtimes {
    /// The time of this path, if it is known.
    pub fn get(&self, path: &RelPath) -> Option<Mtime> {
        self.0.get(path).copied()
    }

    /// Sets the time of a path; a later layer has the last word.
    pub fn insert(&mut self, path: RelPath, mtime: Mtime) {
        self.0.insert(path, mtime);
    }

    /// Forgets the path and everything below it.
    pub fn remove(&mut self, path: &RelPath) {
        self.0.remove(path);
        // What is below has the path and a slash in front; between them only names that go on with bytes before `/`.
        let below: Vec<RelPath> = self
            .0
            .range::<RelPath, _>((Bound::Excluded(path), Bound::Unbounded))
            .map(|(other, _)| other)
            .take_while(|other| other.as_bytes().starts_with(path.as_bytes()))
            .filter(|other| other.starts_with(path))
            .cloned()
            .collect();
        for path in below {
            self.0.remove(&path);
        }
    }

    /// Paths and times in the order of the paths.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&RelPath, Mtime)> {
        self.0.iter().map(|(path, mtime)| (path, *mtime))
    }

    /// Reads a canonical encoding and nothing else.
    pub fn decode_strict(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new::<Self>(bytes)?;
        let mut times = BTreeMap::new();
        for _ in 0..decoder.count()? {
            let path = RelPath::new(decoder.bytes()?)
                .map_err(|error| DecodeError::NotCanonical(error.to_string()))?;
            let mtime = Mtime::new(decoder.i64()?, decoder.u32()?)
                .ok_or_else(|| DecodeError::NotCanonical("a second has 10^9 nanoseconds".into()))?;
            if times
                .last_key_value()
                .is_some_and(|(last, _)| *last >= path)
            {
                return Err(DecodeError::NotCanonical("times are not sorted".into()));
            }
            times.insert(path, mtime);
        }
        decoder.finish()?;
        Ok(Self(times))
    }
}

impl Canonical for Mtimes {
    const TAG: &'static str = "mtimes";
    const VERSION: u32 = 1;

    fn encode_fields(&self, out: &mut Encoder) {
        out.sequence(self.0.iter(), |out, (path, mtime)| {
            out.bytes(path.as_bytes());
            out.i64(mtime.seconds);
            out.u32(mtime.nanoseconds);
        });
    }
}
