//! The image config (OCI image-spec, "Image Configuration"), and what a spec changes in an inherited one.

use std::collections::{BTreeMap, BTreeSet};

use immbuild_cas::canonical::Encoder;
use immbuild_cas::digest::Digest;

use super::descriptor::PlatformText;
use super::json::{Emptiness, Present, ToJson, Writer};

/// What a manifest's `config` points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageConfig {
    /// RFC 3339. In what we write always the epoch.
    pub created: Option<String>,
    /// What the image runs on.
    pub platform: PlatformText,
    /// How a container of it starts.
    pub config: ContainerConfig,
    /// Digests of the uncompressed layers, lowest first.
    pub diff_ids: Vec<Digest>,
    /// What made the layers, oldest first.
    pub history: Vec<History>,
}

/// How a container starts: the `config` object. Empty means absent, except that an `Option` is absent when it is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerConfig {
    /// `uid:gid`, or what a base wrote.
    pub user: String,
    /// `8080/tcp`, `53/udp`.
    pub exposed_ports: BTreeSet<String>,
    /// `NAME=value`, in the order programs see them.
    pub env: Vec<String>,
    /// First words of the command line.
    pub entrypoint: Vec<String>,
    /// Its other words, replaced by what is given when a container is started.
    pub cmd: Vec<String>,
    /// Directories a runtime should put a volume on. Only ever inherited.
    pub volumes: BTreeSet<String>,
    /// Where the program starts.
    pub working_dir: String,
    /// Labels by name.
    pub labels: BTreeMap<String, String>,
    /// `SIGTERM`, or a number.
    pub stop_signal: String,
}

/// One line of `history`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// RFC 3339. In lines of our own always the epoch; in a base's as it stood there.
    pub created: Option<String>,
    /// What made the layer: for our own lines, the step.
    pub created_by: Option<String>,
    /// Only ever inherited.
    pub author: Option<String>,
    /// Only ever inherited.
    pub comment: Option<String>,
    /// The step changed nothing, and there is no layer for it.
    pub empty_layer: bool,
}

/// Fields in the order `created`, `architecture`, `os`, `variant`, `config`, `rootfs`, `history`.
///
/// `config` is always there, `history` when there is any.
impl ToJson for ImageConfig {
    fn write(&self, out: &mut Writer) {
        out.object(|fields| {
            fields.optional("created", self.created.as_ref());
            self.platform.write_fields(fields);
            fields.field("config", &self.config);
            fields.field("rootfs", &RootFs(&self.diff_ids));
            fields.unless_empty("history", &self.history);
        });
    }
}

/// Fields in the order `User`, `ExposedPorts`, `Env`, `Entrypoint`, `Cmd`, `Volumes`, `WorkingDir`, `Labels`,
/// `StopSignal`; each when it is not empty.
impl ToJson for ContainerConfig {
    fn write(&self, out: &mut Writer) {
        out.object(|fields| {
            fields.unless_empty("User", self.user.as_str());
            fields.unless_empty("ExposedPorts", &Set(&self.exposed_ports));
            fields.unless_empty("Env", &self.env);
            fields.unless_empty("Entrypoint", &self.entrypoint);
            fields.unless_empty("Cmd", &self.cmd);
            fields.unless_empty("Volumes", &Set(&self.volumes));
            fields.unless_empty("WorkingDir", self.working_dir.as_str());
            fields.unless_empty("Labels", &self.labels);
            fields.unless_empty("StopSignal", self.stop_signal.as_str());
        });
    }
}

/// Fields in the order `created`, `created_by`, `author`, `comment`, `empty_layer`; the last when it is true.
impl ToJson for History {
    fn write(&self, out: &mut Writer) {
        out.object(|fields| {
            fields.optional("created", self.created.as_ref());
            fields.optional("created_by", self.created_by.as_ref());
            fields.optional("author", self.author.as_ref());
            fields.optional("comment", self.comment.as_ref());
            if self.empty_layer {
                fields.field("empty_layer", &true);
            }
        });
    }
}

struct RootFs<'a>(&'a Vec<Digest>);

impl ToJson for RootFs<'_> {
    fn write(&self, out: &mut Writer) {
        out.object(|fields| {
            fields.field("type", "layers");
            fields.field("diff_ids", self.0);
        });
    }
}

/// A set, as Go's `map[string]struct{}` is written: each member with an empty object.
struct Set<'a>(&'a BTreeSet<String>);

impl Emptiness for Set<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl ToJson for Set<'_> {
    fn write(&self, out: &mut Writer) {
        out.object(|fields| {
            for member in self.0 {
                fields.field(member, &Present);
            }
        });
    }
}

/// What a spec says about the container: its tables merge into what is inherited, every other key that is set replaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigChanges {
    /// `[image.env]`
    pub env: BTreeMap<String, String>,
    /// `entrypoint`; setting it drops an inherited `cmd`, and `[]` clears it.
    pub entrypoint: Option<Vec<String>>,
    /// `cmd`; `[]` clears it.
    pub cmd: Option<Vec<String>>,
    /// `user`, already as numbers: `10001:10001`.
    pub user: Option<String>,
    /// `workdir`
    pub workdir: Option<String>,
    /// `expose`, each `8080/tcp` or `53/udp`.
    pub expose: Option<BTreeSet<String>>,
    /// `labels`
    pub labels: BTreeMap<String, String>,
    /// `stop-signal`
    pub stop_signal: Option<String>,
}

/// Who runs a container when neither the spec nor a base says. Part of format 1: changing it changes image bytes.
const DEFAULT_USER: &str = "0:0";

impl ConfigChanges {
    /// What becomes of an inherited config.
    pub fn apply(&self, inherited: ContainerConfig) -> ContainerConfig {
        let mut config = inherited;
        apply_env(&mut config.env, &self.env);
        if let Some(entrypoint) = &self.entrypoint {
            config.entrypoint.clone_from(entrypoint);
            config.cmd.clear();
        }
        if let Some(cmd) = &self.cmd {
            config.cmd.clone_from(cmd);
        }
        match &self.user {
            Some(user) => config.user.clone_from(user),
            None if config.user.is_empty() => config.user = DEFAULT_USER.into(),
            None => (),
        }
        if let Some(workdir) = &self.workdir {
            config.working_dir.clone_from(workdir);
        }
        if let Some(expose) = &self.expose {
            config.exposed_ports.clone_from(expose);
        }
        config.labels.extend(self.labels.clone());
        if let Some(stop_signal) = &self.stop_signal {
            config.stop_signal.clone_from(stop_signal);
        }
        config
    }

    /// Writes every field, for an image's key.
    pub(super) fn encode(&self, out: &mut Encoder) {
        let map = |out: &mut Encoder, map: &BTreeMap<String, String>| {
            out.sequence(map.iter(), |out, (name, value)| {
                out.str(name);
                out.str(value);
            });
        };
        let words = |out: &mut Encoder, words: &Vec<String>| {
            out.sequence(words.iter(), |out, word| out.str(word));
        };
        map(out, &self.env);
        out.option(self.entrypoint.as_ref(), words);
        out.option(self.cmd.as_ref(), words);
        out.option(self.user.as_deref(), Encoder::str);
        out.option(self.workdir.as_deref(), Encoder::str);
        out.option(self.expose.as_ref(), |out, ports| {
            out.sequence(ports.iter(), |out, port| out.str(port));
        });
        map(out, &self.labels);
        out.option(self.stop_signal.as_deref(), Encoder::str);
    }
}

/// Sets variables in a list that has an order: a known name keeps its place (and stands there once), new names follow
/// in the order of their bytes.
fn apply_env(list: &mut Vec<String>, changes: &BTreeMap<String, String>) {
    let mut left: BTreeMap<&str, &str> = changes
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    list.retain_mut(|line| {
        let name = line.split_once('=').map_or(line.as_str(), |(name, _)| name);
        if let Some((name, value)) = left.remove_entry(name) {
            *line = format!("{name}={value}");
            return true;
        }
        !changes.contains_key(name)
    });
    list.extend(left.iter().map(|(name, value)| format!("{name}={value}")));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn table(rows: &[(&str, &str)]) -> BTreeMap<String, String> {
        rows.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn base() -> ContainerConfig {
        ContainerConfig {
            user: "www".into(),
            exposed_ports: BTreeSet::from(["80/tcp".into()]),
            env: strings(&["PATH=/bin", "Z=1", "A=2", "Z=3", "odd"]),
            entrypoint: strings(&["/entry"]),
            cmd: strings(&["serve"]),
            volumes: BTreeSet::from(["/data".into()]),
            working_dir: "/srv".into(),
            labels: table(&[("a", "1"), ("b", "2")]),
            stop_signal: "SIGQUIT".into(),
        }
    }

    #[test]
    fn nothing_said_changes_nothing() {
        assert_eq!(ConfigChanges::default().apply(base()), base());
        assert_eq!(
            ConfigChanges::default().apply(ContainerConfig::default()),
            ContainerConfig {
                user: "0:0".into(),
                ..ContainerConfig::default()
            }
        );
    }

    #[test]
    fn variables_keep_their_place_and_new_ones_follow_sorted() {
        let changes = ConfigChanges {
            env: table(&[("NEW2", "y"), ("Z", "9"), ("NEW1", "x=y")]),
            ..ConfigChanges::default()
        };
        assert_eq!(
            changes.apply(base()).env,
            strings(&["PATH=/bin", "Z=9", "A=2", "odd", "NEW1=x=y", "NEW2=y"])
        );
    }

    #[test]
    fn an_entrypoint_drops_the_inherited_command() {
        let applied = |entrypoint: Option<&[&str]>, cmd: Option<&[&str]>| {
            let config = ConfigChanges {
                entrypoint: entrypoint.map(strings),
                cmd: cmd.map(strings),
                ..ConfigChanges::default()
            }
            .apply(base());
            (config.entrypoint, config.cmd)
        };
        assert_eq!(
            applied(Some(&["/x"]), None),
            (strings(&["/x"]), strings(&[]))
        );
        assert_eq!(
            applied(Some(&["/x"]), Some(&["y"])),
            (strings(&["/x"]), strings(&["y"]))
        );
        assert_eq!(
            applied(None, Some(&["y"])),
            (strings(&["/entry"]), strings(&["y"]))
        );
        assert_eq!(
            applied(None, Some(&[])),
            (strings(&["/entry"]), strings(&[]))
        );
        assert_eq!(applied(Some(&[]), None), (strings(&[]), strings(&[])));
    }

    #[test]
    fn tables_merge_and_other_keys_replace() {
        let changes = ConfigChanges {
            user: Some("5:6".into()),
            workdir: Some("/".into()),
            expose: Some(BTreeSet::from(["53/udp".into()])),
            labels: table(&[("b", "3"), ("c", "4")]),
            stop_signal: Some("SIGINT".into()),
            ..ConfigChanges::default()
        };
        assert_eq!(
            changes.apply(base()),
            ContainerConfig {
                user: "5:6".into(),
                working_dir: "/".into(),
                exposed_ports: BTreeSet::from(["53/udp".into()]),
                labels: table(&[("a", "1"), ("b", "3"), ("c", "4")]),
                stop_signal: "SIGINT".into(),
                ..base()
            }
        );
    }
}
