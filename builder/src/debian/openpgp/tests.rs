//! Signatures good and bad, by keys made here.

use pgp::composed::{
    ArmorOptions, KeyType, SecretKeyParamsBuilder, SignedSecretKey, SubkeyParamsBuilder,
};
use pgp::packet::{SignatureConfig, Subpacket, SubpacketData};
use pgp::ser::Serialize as _;
use pgp::types::{Password, SigningKey};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;

const BORN: u32 = 1_600_000_000;
const MADE: u32 = 1_700_000_000;
const NOW: i64 = 1_700_000_100;
const TEXT: &str = "Suite: stable\n- not a dash\n-- neither\nDate: x\n";

fn key(seed: u64) -> SignedSecretKey {
    let subkey = SubkeyParamsBuilder::default()
        .key_type(KeyType::Ed25519Legacy)
        .can_sign(true)
        .created_at(Timestamp::from_secs(BORN))
        .build()
        .expect("a subkey");
    SecretKeyParamsBuilder::default()
        .key_type(KeyType::Ed25519Legacy)
        .can_certify(true)
        .can_sign(true)
        .created_at(Timestamp::from_secs(BORN))
        .primary_user_id(format!("Archive {seed} <archive@example.com>"))
        .subkey(subkey)
        .build()
        .expect("a key")
        .generate(StdRng::seed_from_u64(seed))
        .expect("generated")
}

fn subpackets(key: &impl SigningKey, made: u32, more: Vec<SubpacketData>) -> Vec<Subpacket> {
    let own = [
        SubpacketData::SignatureCreationTime(Timestamp::from_secs(made)),
        SubpacketData::IssuerFingerprint(key.fingerprint()),
    ];
    own.into_iter()
        .chain(more)
        .map(|data| Subpacket::regular(data).expect("a subpacket"))
        .collect()
}

fn config(
    key: &impl SigningKey,
    kind: SignatureType,
    made: u32,
    more: Vec<SubpacketData>,
) -> SignatureConfig {
    let mut config = SignatureConfig::v4(kind, key.algorithm(), HashAlgorithm::Sha512);
    config.hashed_subpackets = subpackets(key, made, more);
    config
}

/// A text signed by the primary keys of all of these.
fn signed(keys: &[&SignedSecretKey]) -> String {
    let message = CleartextSignedMessage::new_many(TEXT, |text| {
        keys.iter()
            .map(|key| {
                config(&key.primary_key, SignatureType::Text, MADE, Vec::new()).sign(
                    &key.primary_key,
                    &Password::empty(),
                    text.as_bytes(),
                )
            })
            .collect()
    });
    armoured(&message.expect("signed"))
}

fn signed_with(key: &impl SigningKey, config: SignatureConfig) -> String {
    let message = CleartextSignedMessage::new(TEXT, config, key, &Password::empty());
    armoured(&message.expect("signed"))
}

fn armoured(message: &CleartextSignedMessage) -> String {
    message
        .to_armored_string(ArmorOptions::default())
        .expect("armoured")
}

fn keyring(keys: &[&SignedPublicKey]) -> Keyring {
    let mut bytes = Vec::new();
    for key in keys {
        key.to_writer(&mut bytes).expect("written");
    }
    Keyring::parse(&bytes).expect("a keyring")
}

fn rules() -> Rules<'static> {
    Rules {
        fingerprints: &[],
        now: epoch(NOW),
        allow_expired: false,
    }
}

fn name(key: &dyn KeyDetails) -> String {
    fingerprint(key)
}

/// Why the only signature does not count.
fn refusal(result: Result<Verified, VerifyError>) -> Refusal {
    match result {
        Err(VerifyError::Refused { refused }) => refused[0].1.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_good_signature_gives_the_text_and_its_key() {
    let key = key(1);
    let public = key.to_public_key();
    let verified = keyring(&[&public]).verify(&signed(&[&key]), &rules());
    let expected = Verified {
        text: TEXT.into(),
        signers: vec![name(&key.primary_key)],
    };
    assert_eq!(verified, Ok(expected));
}

#[test]
fn one_good_signature_among_others_is_enough_and_only_it_is_named() {
    let (good, other, third) = (key(1), key(2), key(3));
    let text = signed(&[&other, &good, &third]);
    let verified = keyring(&[&good.to_public_key()]).verify(&text, &rules());
    assert_eq!(verified.expect("good").signers, [name(&good.primary_key)]);
    let unknown = keyring(&[&key(4).to_public_key()]).verify(&text, &rules());
    let Err(VerifyError::Refused { refused }) = unknown else {
        panic!("nobody knows them");
    };
    assert_eq!(refused.len(), 3);
    assert!(refused.iter().all(|(_, why)| *why == Refusal::UnknownKey));
}

#[test]
fn a_subkey_signs_for_its_key_when_both_agree() {
    let key = key(1);
    let subkey = &key.secret_subkeys[0].key;
    let text = signed_with(
        subkey,
        config(subkey, SignatureType::Text, MADE, Vec::new()),
    );
    let public = key.to_public_key();
    let verified = keyring(&[&public]).verify(&text, &rules()).expect("good");
    assert_eq!(verified.signers, [name(subkey)]);

    let mut stolen = public.clone();
    for signature in &mut stolen.public_subkeys[0].signatures {
        // A binding without the subkey's own word: anybody could make one.
        let mut unbound = config(
            &key.primary_key,
            SignatureType::SubkeyBinding,
            BORN + 1,
            Vec::new(),
        );
        let mut flags = pgp::packet::KeyFlags::default();
        flags.set_sign(true);
        unbound
            .hashed_subpackets
            .push(Subpacket::regular(SubpacketData::KeyFlags(flags)).expect("flags"));
        *signature = unbound
            .sign_subkey_binding(
                &key.primary_key,
                &public.primary_key,
                &Password::empty(),
                &public.public_subkeys[0].key,
            )
            .expect("bound");
    }
    assert_eq!(
        refusal(keyring(&[&stolen]).verify(&text, &rules())),
        Refusal::NotBound
    );
}

#[test]
fn fingerprints_narrow_a_keyring() {
    let (one, two) = (key(1), key(2));
    let ring = keyring(&[&one.to_public_key(), &two.to_public_key()]);
    let only = [name(&two.primary_key)];
    let narrowed = Rules {
        fingerprints: &only,
        ..rules()
    };
    assert_eq!(
        refusal(ring.verify(&signed(&[&one]), &narrowed)),
        Refusal::NotListed
    );
    assert!(ring.verify(&signed(&[&two]), &narrowed).is_ok());
    // The key's fingerprint counts for its subkeys, and a subkey's for itself.
    let subkey = &two.secret_subkeys[0].key;
    let text = signed_with(
        subkey,
        config(subkey, SignatureType::Text, MADE, Vec::new()),
    );
    assert!(ring.verify(&text, &narrowed).is_ok());
}

#[test]
fn a_changed_text_is_refused() {
    let key = key(1);
    let text = signed(&[&key]).replace("stable", "Stable");
    let ring = keyring(&[&key.to_public_key()]);
    assert_eq!(refusal(ring.verify(&text, &rules())), Refusal::WrongText);
}

#[test]
fn what_stands_around_the_signed_text_is_refused() {
    let key = key(1);
    let ring = keyring(&[&key.to_public_key()]);
    let good = signed(&[&key]);
    let verify = |text: &str| ring.verify(text, &rules());
    assert!(
        verify(&format!("{good}\n\n")).is_ok(),
        "blank lines are nothing"
    );
    assert_eq!(
        verify(&format!("Suite: x\n{good}")),
        Err(VerifyError::TextBefore)
    );
    assert_eq!(verify(&format!("\n{good}")), Err(VerifyError::TextBefore));
    assert_eq!(
        verify(&format!("{good}Suite: x\n")),
        Err(VerifyError::TextAfter)
    );
    assert_eq!(
        verify(&format!("{good}{good}")),
        Err(VerifyError::TextAfter)
    );
    assert_eq!(verify(TEXT), Err(VerifyError::NotSigned));
    assert_eq!(verify(""), Err(VerifyError::NotSigned));
    let (body, _) = good.split_once(SIGNATURE).expect("there");
    assert_eq!(verify(body), Err(VerifyError::NotSigned));
    let damaged = good.replacen("\n=", "\nA=", 1);
    assert!(verify(&damaged).is_err());
}

#[test]
fn a_weak_hash_is_refused() {
    let key = key(1);
    // No program of today makes one: a good signature that says to be of another hash.
    let message = CleartextSignedMessage::new_many(TEXT, |text| {
        let good = config(&key.primary_key, SignatureType::Text, MADE, Vec::new()).sign(
            &key.primary_key,
            &Password::empty(),
            text.as_bytes(),
        )?;
        let mut weak = good.config().expect("known").clone();
        weak.hash_alg = HashAlgorithm::Sha1;
        let (start, bytes) = (good.signed_hash_value(), good.signature());
        let bytes = bytes.expect("known").clone();
        Signature::from_config(weak, start.expect("known"), bytes).map(|weak| vec![weak])
    });
    let text = armoured(&message.expect("made"));
    let ring = keyring(&[&key.to_public_key()]);
    assert_eq!(
        refusal(ring.verify(&text, &rules())),
        Refusal::WeakHash("SHA1".into())
    );
}

#[test]
fn signatures_of_no_time_or_an_ended_one_are_refused() {
    let key = key(1);
    let ring = keyring(&[&key.to_public_key()]);
    let sign = |made: u32, more: Vec<SubpacketData>| {
        let config = config(&key.primary_key, SignatureType::Text, made, more);
        ring.verify(&signed_with(&key.primary_key, config), &rules())
    };
    let far = u32::try_from(NOW).expect("small") + 3 * 86_400;
    assert_eq!(refusal(sign(far, Vec::new())), Refusal::NoTime);
    assert_eq!(refusal(sign(BORN - 1, Vec::new())), Refusal::KeyTooYoung);
    let ended = SubpacketData::SignatureExpirationTime(Duration::from_secs(10));
    assert_eq!(
        refusal(sign(MADE, vec![ended])),
        Refusal::SignatureExpired(epoch(i64::from(MADE) + 10))
    );
}

/// The key with one more statement of its own.
fn stating(
    key: &SignedSecretKey,
    kind: SignatureType,
    more: Vec<SubpacketData>,
) -> SignedPublicKey {
    let mut public = key.to_public_key();
    // Later than what the key said of itself when it was made here and now.
    let at = u32::MAX - 1;
    let signature = config(&key.primary_key, kind, at, more)
        .sign_key(&key.primary_key, &Password::empty(), &public.primary_key)
        .expect("stated");
    match kind {
        SignatureType::KeyRevocation => public.details.revocation_signatures.push(signature),
        _ => public.details.direct_signatures.push(signature),
    }
    public
}

#[test]
fn a_revoked_key_is_refused() {
    let key = key(1);
    let revoked = stating(&key, SignatureType::KeyRevocation, Vec::new());
    let text = signed(&[&key]);
    assert_eq!(
        refusal(keyring(&[&revoked]).verify(&text, &rules())),
        Refusal::Revoked
    );
    let expired_too = Rules {
        allow_expired: true,
        ..rules()
    };
    assert_eq!(
        refusal(keyring(&[&revoked]).verify(&text, &expired_too)),
        Refusal::Revoked
    );
}

#[test]
fn an_expired_key_is_refused_unless_it_was_valid_then_and_that_is_allowed() {
    let key = key(1);
    let text = signed(&[&key]);
    let lasting = |seconds: u32| {
        let more = vec![SubpacketData::KeyExpirationTime(Duration::from_secs(
            seconds,
        ))];
        keyring(&[&stating(&key, SignatureType::Key, more)])
    };
    let allowed = Rules {
        allow_expired: true,
        ..rules()
    };
    let since_then = lasting(MADE - BORN + 50);
    assert_eq!(
        refusal(since_then.verify(&text, &rules())),
        Refusal::KeyExpired(epoch(i64::from(MADE) + 50))
    );
    assert!(since_then.verify(&text, &allowed).is_ok());
    let before = lasting(MADE - BORN - 50);
    assert_eq!(
        refusal(before.verify(&text, &allowed)),
        Refusal::KeyExpired(epoch(i64::from(MADE) - 50))
    );
    assert!(lasting(MADE - BORN + 1000).verify(&text, &rules()).is_ok());
}

#[test]
fn armoured_keyrings_are_read_and_others_told_apart() {
    let secret = key(1);
    let key = secret.to_public_key();
    let armoured = key
        .to_armored_string(ArmorOptions::default())
        .expect("armoured");
    assert!(Keyring::parse(armoured.as_bytes()).is_ok());
    let keybox = [b"\0\0\0\x20\x01\x01\0\x02KBXf".as_slice(), &[0; 20]].concat();
    assert_eq!(Keyring::parse(&keybox).err(), Some(KeyringError::Keybox));
    assert!(Keyring::parse(b"").is_err());
    assert!(Keyring::parse(b"no key").is_err());
    let secret = secret.to_armored_string(ArmorOptions::default());
    let refused = Keyring::parse(secret.expect("armoured").as_bytes()).expect_err("a secret key");
    assert_eq!(
        refused.to_string(),
        "it is no OpenPGP keyring: it is a PGP PRIVATE KEY BLOCK"
    );
    // Its last packet may be a revocation.
    let whole = key.to_bytes().expect("written");
    let cut = Keyring::parse(&whole[..whole.len() - 3]);
    assert!(matches!(cut, Err(KeyringError::Form(_))), "{cut:?}");
}

#[test]
fn a_keyring_may_hold_what_its_owner_thinks_of_the_keys() {
    let (first, second) = (key(1), key(2));
    let mut bytes = Vec::new();
    for key in [&first, &second] {
        let key = key.to_public_key();
        for packet in PacketParser::new(&*key.to_bytes().expect("written")) {
            packet
                .and_then(|packet| packet.to_writer(&mut bytes))
                .expect("written");
            // As GnuPG 1 writes it: a packet of tag 12 in the old form, with two bytes.
            bytes.extend([0xb0, 2, 0, 0]);
        }
    }
    let verified = Keyring::parse(&bytes)
        .expect("a keyring")
        .verify(&signed(&[&second]), &rules())
        .expect("it counts");
    assert_eq!(verified.signers, [name(&second.primary_key)]);
}

#[test]
fn every_refusal_has_its_own_words() {
    let at = Epoch::DEFAULT;
    let all = [
        Refusal::UnknownKey,
        Refusal::NotListed,
        Refusal::WeakHash("SHA1".into()),
        Refusal::WrongText,
        Refusal::WrongKind,
        Refusal::NoTime,
        Refusal::SignatureExpired(at),
        Refusal::KeyExpired(at),
        Refusal::KeyTooYoung,
        Refusal::Revoked,
        Refusal::NotBound,
    ];
    let words: std::collections::BTreeSet<String> = all.iter().map(ToString::to_string).collect();
    assert_eq!(words.len(), all.len());
}
