//! `immbuild manifest`: how an image is run, for those who run it: a pod for Kubernetes, a fragment for OCI runtimes.
//!
//! Made from the image alone, so that it says of a base, or of what others built with us, the same as of what a spec built last.

mod yaml;

use serde_json::{Map, Value, json};

use super::failure::{Exit, Failure};
use super::locate::{Documents, ImageAt, ImageDocuments};
use crate::diag::Diagnostic;
use crate::image::ContainerConfig;
use crate::image::contract::Contract;

/// A document, as data and as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// What it says.
    pub value: Value,
    /// As it is written into a file.
    pub text: String,
}

/// A pod with one container, its image by digest. `repository` is where it is pulled from; absent: what the spec says.
///
/// # Errors
/// Nothing says where it is pulled from; its labels say what is no contract.
pub fn pod(at: &ImageAt<'_>, repository: Option<&str>) -> Result<Document, Failure> {
    let documents = at.documents()?;
    let repository = repository.or(at.names.name.as_deref()).ok_or_else(|| {
        Failure::new(
            Exit::Usage,
            Diagnostic::error(format!("cannot tell where `{}` is pulled from", at.name))
                .hint("write `name` in `[image]`, or give `--name HOST/PATH`"),
        )
    })?;
    let digest = documents.digest().ok_or_else(|| several(at))?;
    let image = same_for_all(at, &documents)?;
    let contract = contract(at, image)?;
    let config = &image.image.config.config;
    let name = label_of(repository);

    let mut container = Map::new();
    container.insert("name".into(), json!(name));
    container.insert("image".into(), json!(format!("{repository}@{digest}")));
    let ports: Vec<Value> = config
        .exposed_ports
        .iter()
        .filter_map(|it| port(it))
        .collect();
    if !ports.is_empty() {
        container.insert("ports".into(), ports.into());
    }
    let mut security = Map::new();
    security.insert("readOnlyRootFilesystem".into(), contract.readonly.into());
    // Names of users are for the node to look up in the image: numbers alone can be written here.
    if let Some((uid, gid)) = ids(&config.user) {
        security.insert("runAsUser".into(), uid.into());
        if let Some(gid) = gid {
            security.insert("runAsGroup".into(), gid.into());
        }
        if uid != 0 {
            security.insert("runAsNonRoot".into(), true.into());
        }
    }
    container.insert("securityContext".into(), security.into());
    let volume = |at: usize| format!("writable-{at}");
    let paths = || contract.writable.iter().enumerate();
    if !contract.writable.is_empty() {
        let mounts = paths().map(|(at, path)| json!({ "mountPath": path, "name": volume(at) }));
        container.insert("volumeMounts".into(), mounts.collect());
    }
    let mut spec = Map::new();
    spec.insert("containers".into(), json!([container]));
    if !contract.writable.is_empty() {
        let volumes = paths().map(|(at, _)| json!({ "emptyDir": {}, "name": volume(at) }));
        spec.insert("volumes".into(), volumes.collect());
    }
    let value = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name },
        "spec": spec,
    });
    let text = yaml::document(&value);
    Ok(Document { value, text })
}

/// The parts of an OCI runtime's `config.json` that the image decides: `process`, `root` and `mounts` for what is writable.
///
/// # Errors
/// Who runs it is a name; its labels say what is no contract.
pub fn oci(at: &ImageAt<'_>) -> Result<Document, Failure> {
    let documents = at.documents()?;
    let image = same_for_all(at, &documents)?;
    let contract = contract(at, image)?;
    let config = &image.image.config.config;
    let (uid, gid) = match (config.user.as_str(), ids(&config.user)) {
        ("", _) => (0, 0),
        (_, Some((uid, gid))) => (uid, gid.unwrap_or(0)),
        (name, None) => {
            return Err(Failure::new(
                Exit::Spec,
                Diagnostic::error(format!(
                    "`{}` is run by `{name}`, which is no number",
                    at.name
                ))
                .because("an OCI runtime knows users by number alone")
                .hint("write `user` in `[image]`: it becomes numbers"),
            ));
        }
    };
    let args: Vec<&String> = config.entrypoint.iter().chain(&config.cmd).collect();
    let cwd = match config.working_dir.as_str() {
        "" => "/",
        directory => directory,
    };
    let mounts: Vec<Value> = contract
        .writable
        .iter()
        .map(|path| {
            json!({
                "destination": path,
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "nodev", "mode=1777"],
            })
        })
        .collect();
    let mut process = Map::new();
    process.insert("cwd".into(), cwd.into());
    process.insert("user".into(), json!({ "gid": gid, "uid": uid }));
    // Nothing said is nothing decided: the runtime's own stays.
    if !args.is_empty() {
        process.insert("args".into(), json!(args));
    }
    if !config.env.is_empty() {
        process.insert("env".into(), json!(config.env));
    }
    let value = json!({
        "mounts": mounts,
        "process": process,
        "root": { "path": "rootfs", "readonly": contract.readonly },
    });
    let text = serde_json::to_string_pretty(&value).expect("every key is a string") + "\n";
    Ok(Document { value, text })
}

fn contract(at: &ImageAt<'_>, image: &ImageDocuments) -> Result<Contract, Failure> {
    let labels = &image.image.config.config.labels;
    Contract::of_labels(labels).map_err(|label| {
        Failure::new(
            Exit::Untrusted,
            Diagnostic::error(format!("the label `{label}` of `{}` is not ours", at.name))
                .because(format!("it says `{}`", labels[label].escape_debug())),
        )
    })
}

/// The image whose config stands for those of every platform.
fn same_for_all<'d>(
    at: &ImageAt<'_>,
    documents: &'d Documents,
) -> Result<&'d ImageDocuments, Failure> {
    let runs = |image: &ImageDocuments| {
        let config = &image.image.config.config;
        // What else there is, such as labels about the platform, has no part in a manifest.
        let ContainerConfig {
            user,
            exposed_ports,
            env,
            entrypoint,
            cmd,
            working_dir,
            ..
        } = config.clone();
        let contract = Contract::of_labels(&config.labels);
        (
            user,
            exposed_ports,
            env,
            entrypoint,
            cmd,
            working_dir,
            contract,
        )
    };
    let Some((first, others)) = documents.images.split_first() else {
        return Err(several(at));
    };
    match others.iter().find(|other| runs(other) != runs(first)) {
        None => Ok(first),
        Some(other) => Err(Failure::new(
            Exit::Usage,
            Diagnostic::error(format!(
                "`{}` is run otherwise on {} than on {}",
                at.name, first.platform, other.platform
            ))
            .hint("name one of its manifests by digest: `immbuild inspect` lists them"),
        )),
    }
}

fn several(at: &ImageAt<'_>) -> Failure {
    Failure::new(
        Exit::Usage,
        Diagnostic::error(format!("`{}` has several images and no index", at.name))
            .hint("name one of its manifests by digest: `immbuild inspect` lists them"),
    )
}

/// `10001:10001`, or a number alone.
fn ids(user: &str) -> Option<(u32, Option<u32>)> {
    match user.split_once(':') {
        Some((uid, gid)) => Some((uid.parse().ok()?, Some(gid.parse().ok()?))),
        None => Some((user.parse().ok()?, None)),
    }
}

/// `8080/tcp`
fn port(text: &str) -> Option<Value> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let number: u16 = number.parse().ok()?;
    Some(json!({ "containerPort": number, "protocol": protocol.to_uppercase() }))
}

/// The last part of a repository as a label of RFC 1123, which names of pods and containers are: at most 63 of `a-z0-9-`.
fn label_of(repository: &str) -> String {
    let last = repository.rsplit('/').next().unwrap_or_default();
    let label: String = last
        .chars()
        .map(|c| match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9') => c,
            _ => '-',
        })
        .take(63)
        .collect();
    match label.trim_matches('-') {
        "" => "image".into(),
        label => label.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_a_name_that_is_one() {
        for (repository, name) in [
            ("registry.example.com/team/Shop_1.x", "shop-1-x"),
            ("localhost/-a-", "a"),
            ("localhost/___", "image"),
        ] {
            assert_eq!(label_of(repository), name);
        }
        assert_eq!(label_of(&format!("a/{}", "b".repeat(99))).len(), 63);
    }

    #[test]
    fn users_and_ports_are_numbers_or_left_out() {
        assert_eq!(ids("10001:20"), Some((10001, Some(20))));
        assert_eq!(ids("7"), Some((7, None)));
        for text in ["", "web", "7:web", "-1"] {
            assert_eq!(ids(text), None, "{text}");
        }
        assert_eq!(
            port("53/udp"),
            Some(json!({ "containerPort": 53, "protocol": "UDP" }))
        );
        assert_eq!(port("1-2/tcp"), None);
    }
}
