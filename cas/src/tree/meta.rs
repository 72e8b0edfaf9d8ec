//! What an entry has besides its content: mode, owner, extended attributes. No time: it cannot be said.

use std::collections::BTreeMap;
use std::fmt;

use crate::canonical::{DecodeError, Decoder, Encoder};

/// The twelve permission bits of POSIX `st_mode`: set-uid, set-gid, sticky and three times `rwx`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mode(u16);

impl Mode {
    /// `0644`, a plain file.
    pub const FILE: Self = Self(0o644);
    /// `0755`, a directory or a program.
    pub const DIRECTORY: Self = Self(0o755);

    /// These bits, if there are only permission bits.
    #[allow(clippy::cast_possible_truncation, reason = "at most 0o7777")]
    pub const fn new(bits: u32) -> Option<Self> {
        if bits <= 0o7777 {
            Some(Self(bits as u16))
        } else {
            None
        }
    }

    /// The permission bits of a `st_mode`; the file type is dropped.
    pub const fn of_st_mode(st_mode: u32) -> Self {
        Self((st_mode & 0o7777) as u16)
    }

    /// The bits.
    pub const fn bits(self) -> u32 {
        self.0 as u32
    }

    /// May anybody execute it?
    pub const fn is_executable(self) -> bool {
        self.0 & 0o111 != 0
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl fmt::Debug for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The name of an extended attribute that is part of an image: `security.capability`, or `user.*`
/// except `user.overlay.*`, which is overlayfs talking to itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct XattrName(Box<[u8]>);

impl XattrName {
    /// File capabilities, see capabilities(7).
    pub const CAPABILITY: &'static [u8] = b"security.capability";

    /// This name, if such an attribute is part of an image.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let user = bytes.starts_with(b"user.")
            && bytes.len() > b"user.".len()
            && bytes.len() <= 255
            && !bytes.starts_with(b"user.overlay.")
            && !bytes.contains(&0)
            && !bytes.contains(&b'=')
            && std::str::from_utf8(bytes).is_ok();
        (user || bytes == Self::CAPABILITY).then(|| Self(bytes.into()))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// File capabilities in version 2 (`VFS_CAP_REVISION_2` of linux/capability.h: 20 bytes), as a tree has them. Version 3
/// differs by the root user id of a namespace at its end, which says where a file was made and not what it may do. Nothing for
/// what is neither, as version 1, which no program has written since 2008.
pub fn capability_v2(value: &[u8]) -> Option<Box<[u8]>> {
    let (magic, rest) = value.split_first_chunk()?;
    // The lowest bit says "effective".
    let [effective @ (0 | 1), 0, 0, version] = *magic else {
        return None;
    };
    let sets = match (version, rest.len()) {
        (2, 16) => rest,
        (3, 20) => &rest[..16],
        _ => return None,
    };
    Some([&[effective, 0, 0, 2][..], sets].concat().into())
}

impl fmt::Debug for XattrName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", String::from_utf8_lossy(&self.0))
    }
}

/// Extended attributes by name.
pub type Xattrs = BTreeMap<XattrName, Box<[u8]>>;

/// Mode, owner and extended attributes of a file, directory or special file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits.
    pub mode: Mode,
    /// Owner, by number.
    pub uid: u32,
    /// Group, by number.
    pub gid: u32,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

impl Meta {
    /// This mode, owned by 0:0, no extended attributes.
    pub const fn root(mode: Mode) -> Self {
        Self {
            mode,
            uid: 0,
            gid: 0,
            xattrs: BTreeMap::new(),
        }
    }

    pub(super) fn encode(&self, out: &mut Encoder) {
        out.u32(self.mode.bits());
        out.u32(self.uid);
        out.u32(self.gid);
        out.sequence(self.xattrs.iter(), |out, (name, value)| {
            out.bytes(name.as_bytes());
            out.bytes(value);
        });
    }

    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let bits = decoder.u32()?;
        let mode = Mode::new(bits)
            .ok_or_else(|| DecodeError::NotCanonical(format!("mode {bits:o} has other bits")))?;
        let (uid, gid) = (decoder.u32()?, decoder.u32()?);
        let mut xattrs = Xattrs::new();
        for _ in 0..decoder.count()? {
            let bytes = decoder.bytes()?;
            let name = XattrName::new(bytes).ok_or_else(|| {
                DecodeError::NotCanonical(format!(
                    "extended attribute `{}` is not part of an image",
                    String::from_utf8_lossy(bytes)
                ))
            })?;
            if xattrs
                .last_key_value()
                .is_some_and(|(last, _)| *last >= name)
            {
                return Err(DecodeError::NotCanonical(
                    "extended attributes are not sorted".into(),
                ));
            }
            xattrs.insert(name, decoder.bytes()?.into());
        }
        Ok(Self {
            mode,
            uid,
            gid,
            xattrs,
        })
    }
}
