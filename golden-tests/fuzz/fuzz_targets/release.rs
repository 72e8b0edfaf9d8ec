//! A release from anybody: signed by nobody we know, so never taken; and the text of one, as if it had been signed.
#![no_main]

use std::sync::OnceLock;

use immbuild::debian::control;
use immbuild::debian::openpgp::{Keyring, Rules};
use immbuild::debian::release::Release;
use immbuild::epoch::Epoch;
use libfuzzer_sys::fuzz_target;

/// Debian's keys where this machine has them.
fn keyring() -> Option<&'static Keyring> {
    static KEYS: OnceLock<Option<Keyring>> = OnceLock::new();
    KEYS.get_or_init(|| {
        let bytes = std::fs::read("/usr/share/keyrings/debian-archive-keyring.gpg").ok()?;
        Keyring::parse(&bytes).ok()
    })
    .as_ref()
}

fuzz_target!(|bytes: &[u8]| {
    let _ = Keyring::parse(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    for stanza in control::stanzas(text).flatten() {
        assert!(!stanza.fields.is_empty());
    }
    if let Ok(release) = Release::parse(text) {
        let _ = release.index("main", "amd64");
    }
    if let Some(keyring) = keyring() {
        let rules = Rules {
            fingerprints: &[],
            now: Epoch::DEFAULT,
            allow_expired: true,
        };
        if let Err(error) = keyring.verify(text, &rules) {
            assert!(!error.to_string().is_empty());
        }
    }
});
