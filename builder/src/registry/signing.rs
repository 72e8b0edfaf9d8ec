//! Who vouches for a result: keys and signatures (Ed25519, RFC 8032).
//!
//! EFFECT: reads and writes key files. The only home of `ed25519_dalek`. A secret key is in no message.
#![allow(
    clippy::disallowed_methods,
    reason = "a new key is random, and reaches no byte of any image"
)]

use std::fmt::{self, Write as _};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::str::FromStr;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};

/// How the text of a public key and of a signature begins.
const SCHEME: &str = "ed25519:";
/// How a file with a secret key begins.
const FILE: &str = "immbuild-key 1 ";
/// More bytes than any file with a secret key has.
const FILE_MAX: usize = 256;

/// Why a text or a file is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or made.
    #[error("it cannot be used")]
    Io(#[from] io::Error),
    /// It has something else.
    #[error("it has no key of `immbuild cache key`")]
    Form,
}

/// Names whoever signs: `ed25519:` and 64 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", hex(&self.0))
    }
}

/// The text names no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is `ed25519:` and 64 hex digits")]
pub struct ParseKeyError;

impl FromStr for PublicKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        let bytes: [u8; 32] = text
            .strip_prefix(SCHEME)
            .and_then(unhex)
            .ok_or(ParseKeyError)?;
        // Not every number is a point of the curve.
        VerifyingKey::from_bytes(&bytes).map_err(|_| ParseKeyError)?;
        Ok(Self(bytes))
    }
}

/// Signs. Whoever has it is believed.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

/// Never with what is secret.
impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.public())
    }
}

impl SecretKey {
    /// The key of a file.
    ///
    /// # Errors
    /// There is none, or something else is in it.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let text = fs::read(path)?;
        if text.len() > FILE_MAX {
            return Err(KeyError::Form);
        }
        let bytes: [u8; 32] = std::str::from_utf8(&text)
            .ok()
            .and_then(|text| text.strip_prefix(FILE))
            .and_then(|digits| unhex(digits.trim_end()))
            .ok_or(KeyError::Form)?;
        Ok(Self(SigningKey::from_bytes(&bytes)))
    }

    /// A new key in a new file, which only its owner can read.
    ///
    /// # Errors
    /// The file is there already, or cannot be written.
    pub fn create(path: &Path) -> Result<Self, KeyError> {
        let mut bytes = [0; 32];
        let mut filled = 0;
        while filled < bytes.len() {
            let flags = rustix::rand::GetRandomFlags::empty();
            filled +=
                rustix::rand::getrandom(&mut bytes[filled..], flags).map_err(io::Error::from)?;
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(format!("{FILE}{}\n", hex(&bytes)).as_bytes())?;
        file.sync_all()?;
        Ok(Self(SigningKey::from_bytes(&bytes)))
    }

    /// By which it is known.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Vouches for a message.
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature {
            by: self.public(),
            bytes: self.0.sign(message).to_bytes(),
        }
    }
}

/// That somebody vouches for a message. Says nothing before it is checked with that message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signature {
    /// Who.
    pub by: PublicKey,
    bytes: [u8; 64],
}

impl Signature {
    /// Did they sign this?
    pub fn is_of(&self, message: &[u8]) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(&self.bytes);
        VerifyingKey::from_bytes(&self.by.0)
            .is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
    }
}

/// `ed25519:KEY:SIGNATURE`, both in hex digits.
impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.by, hex(&self.bytes))
    }
}

impl FromStr for Signature {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        let (by, digits) = text.rsplit_once(':').ok_or(ParseKeyError)?;
        Ok(Self {
            by: by.parse()?,
            bytes: unhex(digits).ok_or(ParseKeyError)?,
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex<const LENGTH: usize>(text: &str) -> Option<[u8; LENGTH]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * LENGTH {
        return None;
    }
    let mut bytes = [0; LENGTH];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        let value = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032 §7.1, test 2.
    const SECRET: &str = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
    const PUBLIC: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
    const SIGNED: &str = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";

    #[test]
    fn it_signs_as_the_standard_says() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("key");
        fs::write(&path, format!("{FILE}{SECRET}\n")).expect("written");
        let key = SecretKey::read(&path).expect("a key");
        assert_eq!(key.public().to_string(), format!("{SCHEME}{PUBLIC}"));
        let signature = key.sign(&[0x72]);
        assert_eq!(signature.to_string(), format!("{SCHEME}{PUBLIC}:{SIGNED}"));
        assert!(signature.is_of(&[0x72]));
        assert!(!signature.is_of(&[0x73]));
        assert_eq!(signature.to_string().parse(), Ok(signature));
        assert!(!format!("{key:?}").contains(SECRET));
    }

    #[test]
    fn a_new_key_is_a_file_of_its_owner() {
        use std::os::unix::fs::MetadataExt as _;

        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("key");
        let key = SecretKey::create(&path).expect("made");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        let read = SecretKey::read(&path).expect("read");
        assert_eq!(read.public(), key.public());
        let text = fs::read(&path).expect("there");
        assert!(matches!(SecretKey::create(&path), Err(KeyError::Io(_))));
        assert_eq!(fs::read(&path).expect("there"), text);
        let other = SecretKey::create(&place.path().join("other")).expect("made");
        assert_ne!(other.public(), key.public());
        assert!(
            !Signature {
                by: other.public(),
                ..key.sign(b"m")
            }
            .is_of(b"m")
        );
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("key");
        for text in [
            String::new(),
            format!("{FILE}{}", &SECRET[1..]),
            format!("{FILE}{}", SECRET.to_uppercase()),
            format!("{FILE}{SECRET}00"),
            SECRET.to_owned(),
            "x".repeat(1000),
        ] {
            fs::write(&path, text).expect("written");
            assert!(matches!(SecretKey::read(&path), Err(KeyError::Form)));
        }
        for text in ["", SCHEME, PUBLIC, "ed25519:00", "rsa:00"] {
            assert_eq!(text.parse::<PublicKey>(), Err(ParseKeyError), "{text}");
            assert_eq!(text.parse::<Signature>(), Err(ParseKeyError), "{text}");
        }
        // A number that is no point of the curve.
        let none = format!("{SCHEME}02{}", "0".repeat(62));
        assert_eq!(none.parse::<PublicKey>(), Err(ParseKeyError));
    }
}
