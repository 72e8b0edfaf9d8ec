//! Signatures of releases. Pure, and the one home of `pgp`, which checks that a signature belongs to a key.
//!
//! Whether that key may speak is decided here: it is in the keyring that was named, its own signatures bind it, it is
//! not revoked, and it is valid both when it signed and now. Only the text that was signed comes out.

use std::borrow::Cow;
use std::fmt;
use std::io::Read as _;

use pgp::armor::{BlockType, Dearmor};
use pgp::composed::{
    CleartextSignedMessage, Deserializable as _, SignedPublicKey, SignedPublicSubKey,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::errors::Error;
use pgp::packet::{Packet, PacketParser, Signature, SignatureType};
use pgp::types::{Duration, KeyDetails, Tag, Timestamp};

use crate::epoch::Epoch;

/// How far ahead of this machine's clock a signature may be: clocks differ.
const AHEAD: i64 = 24 * 3600;

const BEGIN: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";
const END: &str = "-----END PGP SIGNATURE-----";

/// The keys that may sign.
#[derive(Debug)]
pub struct Keyring {
    keys: Vec<SignedPublicKey>,
}

/// A file is no keyring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// `GnuPG`'s own form, which changes with it.
    #[error("it is a keybox of GnuPG: export the keys with `gpg --export`")]
    Keybox,
    /// Not of `OpenPGP`.
    #[error("it is no OpenPGP keyring: {0}")]
    Form(String),
    /// No key in it.
    #[error("there is no key in it")]
    Empty,
}

/// Signed text and who signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// What was signed.
    pub text: String,
    /// The keys and subkeys whose signatures are good: capital hex digits, sorted.
    pub signers: Vec<String>,
}

/// What a signature is held against.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Only these keys or subkeys count; none: all of the keyring.
    pub fingerprints: &'a [String],
    /// The time now.
    pub now: Epoch,
    /// Accept keys that were valid when they signed and no longer are.
    pub allow_expired: bool,
}

/// Why a text is not to be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// There is no signed text.
    #[error("it is not signed")]
    NotSigned,
    /// Something stands before the signed text.
    #[error("there is text before the signed text, which nobody signed")]
    TextBefore,
    /// Something stands after the signature.
    #[error("there is text after the signature, which nobody signed")]
    TextAfter,
    /// Not of the form of RFC 9580 §7.
    #[error("its signed text is damaged: {0}")]
    Damaged(String),
    /// No signature is good.
    #[error("no signature counts: {}", in_words(refused))]
    Refused {
        /// Each signature's key and why it does not count.
        refused: Vec<(String, Refusal)>,
    },
}

fn in_words(refused: &[(String, Refusal)]) -> String {
    let all: Vec<String> = refused
        .iter()
        .map(|(key, why)| format!("that of {key} {why}"))
        .collect();
    all.join("; ")
}

/// Why a signature does not count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// The keyring has no such key.
    UnknownKey,
    /// The key is not among those that count.
    NotListed,
    /// A hash whose collisions can be made.
    WeakHash(String),
    /// It is not of this text.
    WrongText,
    /// It is a signature of another kind.
    WrongKind,
    /// It says no time, or one that is still to come.
    NoTime,
    /// It is no longer valid since then.
    SignatureExpired(Epoch),
    /// Its key is no longer valid since then.
    KeyExpired(Epoch),
    /// Its key is younger than it.
    KeyTooYoung,
    /// Its key, or the key that is bound to, was revoked.
    Revoked,
    /// Its key does not vouch for itself, or for its subkey, by a signature that counts.
    NotBound,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey => f.write_str("is by a key that is not in the keyring"),
            Self::NotListed => f.write_str("is by a key that `fingerprints` does not list"),
            Self::WeakHash(name) => write!(f, "uses the weak hash {name}"),
            Self::WrongText => f.write_str("is not of this text"),
            Self::WrongKind => f.write_str("is not the signature of a text"),
            Self::NoTime => f.write_str("is of no time, or of one still to come"),
            Self::SignatureExpired(at) => write!(f, "expired at {at}"),
            Self::KeyExpired(at) => write!(f, "is by a key that expired at {at}"),
            Self::KeyTooYoung => f.write_str("is older than its key"),
            Self::Revoked => f.write_str("is by a key that was revoked"),
            Self::NotBound => f.write_str("is by a key that nothing lets sign: a self-signature or binding with a strong hash is missing"),
        }
    }
}

impl Keyring {
    /// Reads keys, binary or armoured.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyringError> {
        if bytes.get(8..12) == Some(b"KBXf") {
            return Err(KeyringError::Keybox);
        }
        let plain = if bytes.first().is_some_and(|byte| byte & 0x80 != 0) {
            Cow::Borrowed(bytes)
        } else {
            Cow::Owned(without_armour(bytes)?)
        };
        let packets = PacketParser::new(&*plain).filter(means_something);
        let keys: Vec<SignedPublicKey> = SignedPublicKey::from_packets(packets.peekable())
            .collect::<Result<_, _>>()
            .map_err(form)?;
        if keys.is_empty() {
            return Err(KeyringError::Empty);
        }
        Ok(Self { keys })
    }

    /// Adds the keys of another.
    pub fn extend(&mut self, other: Self) {
        self.keys.extend(other.keys);
    }

    /// Checks a text with its signatures. One that counts is enough; only those that do are named.
    pub fn verify(&self, text: &str, rules: &Rules<'_>) -> Result<Verified, VerifyError> {
        check_frame(text)?;
        let damaged = |error: pgp::errors::Error| VerifyError::Damaged(error.to_string());
        // The parser minds blank lines at the end, which mean nothing.
        let (message, _) = CleartextSignedMessage::from_string(text.trim_end()).map_err(damaged)?;
        // Lines end in CR LF there, as they are hashed.
        let signed = message.signed_text();
        let mut signers = Vec::new();
        let mut refused = Vec::new();
        for signature in message.signatures() {
            match self.check(signature, signed.as_bytes(), rules) {
                Ok(fingerprint) => signers.push(fingerprint),
                Err(refusal) => refused.push((name_of(signature), refusal)),
            }
        }
        if signers.is_empty() {
            return Err(if refused.is_empty() {
                VerifyError::NotSigned
            } else {
                VerifyError::Refused { refused }
            });
        }
        signers.sort();
        signers.dedup();
        Ok(Verified {
            text: signed.replace("\r\n", "\n"),
            signers,
        })
    }

    /// The key that made a signature which counts.
    fn check(
        &self,
        signature: &Signature,
        text: &[u8],
        rules: &Rules<'_>,
    ) -> Result<String, Refusal> {
        if !matches!(
            signature.typ(),
            Some(SignatureType::Text | SignatureType::Binary)
        ) {
            return Err(Refusal::WrongKind);
        }
        strong(signature)?;
        let mut refusal = Refusal::UnknownKey;
        for key in &self.keys {
            let made_by = |it: &dyn KeyDetails| is_by(signature, it);
            let subkeys = key.public_subkeys.iter().map(Some);
            for subkey in std::iter::once(None).chain(subkeys) {
                let signer: &dyn KeyDetails = match subkey {
                    None => &key.primary_key,
                    Some(subkey) => &subkey.key,
                };
                if !made_by(signer) {
                    continue;
                }
                let fits = match subkey {
                    None => signature.verify(&key.primary_key, text),
                    Some(subkey) => signature.verify(&subkey.key, text),
                };
                let checked = fits
                    .map_err(|_| Refusal::WrongText)
                    .and_then(|()| may_sign(key, subkey, signature, rules));
                match checked {
                    Ok(()) => return Ok(fingerprint(signer)),
                    // What says most about a key that is there is told.
                    Err(why) => refusal = why,
                }
            }
        }
        Err(refusal)
    }
}

/// A keyring may have packets that say nothing of a key (RFC 9580 §5.8 marker, §5.10 trust, §5.14 padding) or of a kind that
/// `pgp` does not know. Left where they are, a trust packet would hide the signatures behind it: Ubuntu's keyrings have them.
fn means_something(packet: &Result<Packet, Error>) -> bool {
    let skipped = |error: &Error| {
        matches!(
            error,
            Error::Unsupported { .. } | Error::EllipticCurve { .. }
        )
    };
    match packet {
        Ok(packet) => !matches!(
            packet,
            Packet::Trust(_) | Packet::Marker(_) | Packet::Padding(_)
        ),
        Err(Error::InvalidPacketContent { source }) => !skipped(source),
        Err(error) => !skipped(error),
    }
}

/// The keys of a block of text (RFC 9580 §6).
fn without_armour(bytes: &[u8]) -> Result<Vec<u8>, KeyringError> {
    let mut armour = Dearmor::new(bytes);
    armour.read_header().map_err(form)?;
    match armour.typ {
        Some(BlockType::PublicKey | BlockType::File) => {}
        Some(other) => return Err(KeyringError::Form(format!("it is a {other}"))),
        None => return Err(KeyringError::Empty),
    }
    let mut plain = Vec::new();
    armour
        .read_to_end(&mut plain)
        .map_err(|error| form(error.into()))?;
    Ok(plain)
}

#[expect(clippy::needless_pass_by_value, reason = "it is given away")]
fn form(error: Error) -> KeyringError {
    KeyringError::Form(error.to_string())
}

/// A signed text alone: gpgv and others pass over what stands around it, and so would whoever reads the file unchecked.
fn check_frame(text: &str) -> Result<(), VerifyError> {
    let lines = |what: &str| text.lines().filter(|line| line.trim_end() == what).count();
    if lines(BEGIN) == 0 || lines(SIGNATURE) == 0 || lines(END) == 0 {
        return Err(VerifyError::NotSigned);
    }
    if !text.starts_with(BEGIN) {
        return Err(VerifyError::TextBefore);
    }
    if lines(BEGIN) > 1 || lines(SIGNATURE) > 1 || lines(END) > 1 {
        return Err(VerifyError::TextAfter);
    }
    let (_, after) = text.rsplit_once(END).unwrap_or_default();
    if after.trim().is_empty() {
        Ok(())
    } else {
        Err(VerifyError::TextAfter)
    }
}

fn strong(signature: &Signature) -> Result<(), Refusal> {
    match signature.hash_alg() {
        Some(
            HashAlgorithm::Sha256
            | HashAlgorithm::Sha384
            | HashAlgorithm::Sha512
            | HashAlgorithm::Sha3_256
            | HashAlgorithm::Sha3_512,
        ) => Ok(()),
        Some(other) => Err(Refusal::WeakHash(other.to_string())),
        None => Err(Refusal::WeakHash("of an unknown kind".into())),
    }
}

fn is_by(signature: &Signature, key: &dyn KeyDetails) -> bool {
    let fingerprints = signature.issuer_fingerprint();
    if fingerprints.is_empty() {
        let id = key.legacy_key_id();
        return signature.issuer_key_id().into_iter().any(|it| *it == id);
    }
    let own = key.fingerprint();
    fingerprints.into_iter().any(|it| *it == own)
}

fn fingerprint(key: &dyn KeyDetails) -> String {
    format!("{:X}", key.fingerprint())
}

/// What a signature says of who made it.
fn name_of(signature: &Signature) -> String {
    let fingerprint = signature.issuer_fingerprint().into_iter().next();
    let id = signature.issuer_key_id().into_iter().next();
    match (fingerprint, id) {
        (Some(fingerprint), _) => format!("{fingerprint:X}"),
        (None, Some(id)) => id.to_string().to_uppercase(),
        (None, None) => "an unnamed key".to_owned(),
    }
}

/// May the key, or this subkey of it, have made the signature?
fn may_sign(
    key: &SignedPublicKey,
    subkey: Option<&SignedPublicSubKey>,
    signature: &Signature,
    rules: &Rules<'_>,
) -> Result<(), Refusal> {
    let listed = |it: &dyn KeyDetails| rules.fingerprints.contains(&fingerprint(it));
    let is_listed = listed(&key.primary_key) || subkey.is_some_and(|it| listed(&it.key));
    if !rules.fingerprints.is_empty() && !is_listed {
        return Err(Refusal::NotListed);
    }
    let now = rules.now.seconds();
    let made = signature.created().map(|it| i64::from(it.as_secs()));
    let made = made.filter(|made| *made <= now + AHEAD);
    let made = made.ok_or(Refusal::NoTime)?;
    if let Some(end) = signature.signature_expiration_time()
        && end.as_secs() > 0
    {
        let end = made + i64::from(end.as_secs());
        if end <= now && !rules.allow_expired {
            return Err(Refusal::SignatureExpired(epoch(end)));
        }
    }
    let span = Validity {
        made,
        now,
        allow_expired: rules.allow_expired,
    };
    primary_is_valid(key, &span)?;
    match subkey {
        None => Ok(()),
        Some(subkey) => subkey_is_valid(key, subkey, &span),
    }
}

/// When a key has to have been valid.
struct Validity {
    made: i64,
    now: i64,
    allow_expired: bool,
}

impl Validity {
    fn check(&self, key: &dyn KeyDetails, binding: &Signature) -> Result<(), Refusal> {
        let born = i64::from(key.created_at().as_secs());
        if self.made < born {
            return Err(Refusal::KeyTooYoung);
        }
        let lasts = binding.key_expiration_time().map_or(0, Duration::as_secs);
        if lasts == 0 {
            return Ok(());
        }
        let end = born + i64::from(lasts);
        let needed = if self.allow_expired {
            self.made
        } else {
            self.made.max(self.now)
        };
        if end <= needed {
            return Err(Refusal::KeyExpired(epoch(end)));
        }
        Ok(())
    }
}

fn primary_is_valid(key: &SignedPublicKey, span: &Validity) -> Result<(), Refusal> {
    let primary = &key.primary_key;
    let revoked = key
        .details
        .revocation_signatures
        .iter()
        .any(|it| it.verify_key(primary).is_ok());
    if revoked {
        return Err(Refusal::Revoked);
    }
    // The newest of its own good statements holds.
    let direct = key
        .details
        .direct_signatures
        .iter()
        .filter(|it| it.verify_key(primary).is_ok());
    let of_names = key.details.users.iter().flat_map(|user| {
        let own = user.signatures.iter().filter(move |it| {
            it.is_certification()
                && is_by(it, primary)
                && it
                    .verify_certification(primary, Tag::UserId, &user.id)
                    .is_ok()
        });
        own.collect::<Vec<_>>()
    });
    let newest = direct
        .chain(of_names)
        .filter(|it| strong(it).is_ok())
        .max_by_key(|it| it.created().map(Timestamp::as_secs));
    match newest {
        Some(binding) => span.check(primary, binding),
        None => Err(Refusal::NotBound),
    }
}

fn subkey_is_valid(
    key: &SignedPublicKey,
    subkey: &SignedPublicSubKey,
    span: &Validity,
) -> Result<(), Refusal> {
    let primary = &key.primary_key;
    let of_kind = |kind: SignatureType| {
        let good = subkey.signatures.iter().filter(move |it| {
            it.typ() == Some(kind) && it.verify_subkey_binding(primary, &subkey.key).is_ok()
        });
        good.collect::<Vec<&Signature>>()
    };
    if !of_kind(SignatureType::SubkeyRevocation).is_empty() {
        return Err(Refusal::Revoked);
    }
    let newest = of_kind(SignatureType::SubkeyBinding)
        .into_iter()
        .filter(|it| strong(it).is_ok())
        .max_by_key(|it| it.created().map(Timestamp::as_secs))
        .ok_or(Refusal::NotBound)?;
    // A key that may sign has to agree to be bound: else another's key could be claimed as one's own.
    let agreed = newest.embedded_signature().is_some_and(|back| {
        strong(back).is_ok()
            && back
                .verify_primary_key_binding(&subkey.key, primary)
                .is_ok()
    });
    if !newest.key_flags().sign() || !agreed {
        return Err(Refusal::NotBound);
    }
    span.check(&subkey.key, newest)
}

fn epoch(seconds: i64) -> Epoch {
    Epoch::from_seconds(seconds).unwrap_or(Epoch::DEFAULT)
}

#[cfg(test)]
mod tests;
