//! The key of an expectation: everything that decides an image's manifest, known before anything is built.

use std::collections::BTreeMap;

use immbuild_cas::canonical::{Canonical, Encoder};
use immbuild_cas::digest::Digest;

use super::config::ConfigChanges;
use crate::epoch::{Epoch, FormatVersion};
use crate::platform::Platform;

immbuild_cas::id! {
    /// Names an image by what it is made from.
    ImageId;
}

/// What an [`ImageId`] is the digest of. Names, tags and outputs are not in it: they change no byte of a manifest.
#[derive(Clone, Debug)]
pub struct ImageKey<'a> {
    /// Digest of the op id of the image's root.
    pub root: Digest,
    /// What it runs on.
    pub platform: Platform,
    /// What the spec says about the container.
    pub config: &'a ConfigChanges,
    /// The spec's annotations.
    pub annotations: &'a BTreeMap<String, String>,
    /// The text of each history line of our own. It comes from the steps' text, which an op id does not hold.
    pub history: &'a [String],
    /// `per-step`, `single`.
    pub layers: &'a str,
    /// `zstd/1`, `gzip/1`, `none`.
    pub encoder: &'a str,
    /// The one time in the image.
    pub epoch: Epoch,
    /// The rules.
    pub format: FormatVersion,
}

impl ImageKey<'_> {
    /// The digest of all this.
    pub fn id(&self) -> ImageId {
        ImageId::new(self.canonical_digest())
    }
}

impl Canonical for ImageKey<'_> {
    const TAG: &'static str = "image";
    const VERSION: u32 = 1;

    fn encode_fields(&self, out: &mut Encoder) {
        out.digest(&self.root);
        out.str(&self.platform.to_string());
        self.config.encode(out);
        out.sequence(self.annotations.iter(), |out, (name, value)| {
            out.str(name);
            out.str(value);
        });
        out.sequence(self.history.iter(), |out, line| out.str(line));
        out.str(self.layers);
        out.str(self.encoder);
        out.i64(self.epoch.seconds());
        out.u32(self.format.number());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_moves_the_id() {
        let (config, none) = (ConfigChanges::default(), BTreeMap::new());
        let other_config = ConfigChanges {
            cmd: Some(Vec::new()),
            ..ConfigChanges::default()
        };
        let annotations = BTreeMap::from([("a".into(), "b".into())]);
        let history = ["step".to_owned()];
        let key = || ImageKey {
            root: Digest::of(b"root"),
            platform: "linux/amd64".parse().expect("known"),
            config: &config,
            annotations: &none,
            history: &[],
            layers: "per-step",
            encoder: "zstd/1",
            epoch: Epoch::DEFAULT,
            format: FormatVersion::V1,
        };
        let mut ids = vec![
            key().id(),
            ImageKey {
                root: Digest::of(b"other"),
                ..key()
            }
            .id(),
            ImageKey {
                platform: "linux/arm64".parse().expect("known"),
                ..key()
            }
            .id(),
            ImageKey {
                config: &other_config,
                ..key()
            }
            .id(),
            ImageKey {
                annotations: &annotations,
                ..key()
            }
            .id(),
            ImageKey {
                history: &history,
                ..key()
            }
            .id(),
            ImageKey {
                layers: "single",
                ..key()
            }
            .id(),
            ImageKey {
                encoder: "none",
                ..key()
            }
            .id(),
            ImageKey {
                epoch: Epoch::from_seconds(0).expect("in range"),
                ..key()
            }
            .id(),
        ];
        let count = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), count);
        assert_eq!(key().id(), key().id());
    }
}
