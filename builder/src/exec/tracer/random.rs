//! Random bytes that are the same each time: a stream for every thread, which depends on the seed and on
//! who started whom, and on nothing that runs beside it.

use std::fmt::Write as _;

use immbuild_cas::canonical::Encoder;
use immbuild_cas::digest::Digest;

/// A stream of bytes: SHA-256 in counter mode.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    key: Digest,
    block: u64,
    rest: Vec<u8>,
    children: u64,
}

impl Stream {
    pub(super) fn new(seed: &Digest) -> Self {
        Self {
            key: derive("stream", seed, 0),
            block: 0,
            rest: Vec::new(),
            children: 0,
        }
    }

    /// The stream of the next thread or file that this one makes. What was taken from this one before
    /// makes no difference.
    pub(super) fn child(&mut self) -> Self {
        let key = derive("child", &self.key, self.children);
        self.children += 1;
        Self {
            key,
            block: 0,
            rest: Vec::new(),
            children: 0,
        }
    }

    /// The next bytes.
    pub(super) fn fill(&mut self, mut to: &mut [u8]) {
        while !to.is_empty() {
            if self.rest.is_empty() {
                let block = derive("block", &self.key, self.block);
                self.rest = block.as_bytes().to_vec();
                self.block += 1;
            }
            let count = to.len().min(self.rest.len());
            let (now, later) = to.split_at_mut(count);
            now.copy_from_slice(&self.rest[..count]);
            self.rest.drain(..count);
            to = later;
        }
    }

    /// A version 4 UUID (RFC 9562, 5.4) as the kernel prints it.
    pub(super) fn uuid(&mut self) -> String {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let mut text = String::new();
        for (at, byte) in bytes.iter().enumerate() {
            if [4, 6, 8, 10].contains(&at) {
                text.push('-');
            }
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

fn derive(what: &str, key: &Digest, number: u64) -> Digest {
    let mut out = Encoder::default();
    out.str(what);
    out.digest(key);
    out.u64(number);
    Digest::of(&out.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<const N: usize>(stream: &mut Stream) -> [u8; N] {
        let mut bytes = [0; N];
        stream.fill(&mut bytes);
        bytes
    }

    #[test]
    fn pieces_make_the_same_stream() {
        let seed = Digest::of(b"seed");
        let (mut one, mut other) = (Stream::new(&seed), Stream::new(&seed));
        let whole: [u8; 100] = bytes(&mut one);
        let pieces = [bytes::<37>(&mut other).as_slice(), &bytes::<63>(&mut other)].concat();
        assert_eq!(whole.as_slice(), pieces);
        assert_ne!(whole, bytes::<100>(&mut Stream::new(&Digest::of(b"other"))));
    }

    #[test]
    fn children_differ_and_do_not_depend_on_what_was_read() {
        let mut one = Stream::new(&Digest::of(b"seed"));
        let mut other = one.clone();
        let _: [u8; 5] = bytes(&mut other);
        let first: [u8; 32] = bytes(&mut one.child());
        assert_eq!(first, bytes::<32>(&mut other.child()));
        assert_ne!(first, bytes::<32>(&mut one.child()));
    }

    #[test]
    fn a_uuid_has_its_form() {
        let uuid = Stream::new(&Digest::of(b"seed")).uuid();
        assert_eq!(uuid.len(), 36);
        assert_eq!(uuid.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&uuid.as_bytes()[19]));
    }
}
