//! Images and their differences as lines for people and as JSON for machines.

use std::fmt::Write as _;

use immbuild_cas::digest::BlobId;
use immbuild_cas::path::{RelPath, escape};
use immbuild_cas::tree::{Meta, SpecialKind, TreeError, Visit, walk};
use serde_json::{Value, json};

use super::report::bytes;
use crate::app::compare::{Compared, ComparedPlatform};
use crate::app::inspect::Files;
use crate::app::locate::{Documents, ImageDocuments};
use crate::compare::{
    AttributeDifference, FieldDifference, Hint, Level, PathChange, PathDifference, Verdict,
};
use crate::image::{ContainerConfig, History, ImageLayer, LayerMedia};
use crate::ui::in_short;

/// Room for the longest first word.
const WIDTH: usize = 12;

fn line(out: &mut String, head: &str, text: &str) {
    writeln!(out, "{head:WIDTH$}{text}").expect("a string takes everything");
}

/// What an image says of itself.
pub(super) fn inspection(documents: &Documents) -> String {
    let mut out = String::new();
    if let Some((digest, index)) = &documents.index {
        line(&mut out, "index", &digest.to_string());
        for (name, value) in &index.annotations {
            line(&mut out, "annotation", &format!("{name} = {value}"));
        }
    }
    for one in &documents.images {
        if !out.is_empty() {
            out.push('\n');
        }
        image(&mut out, one);
    }
    out
}

fn image(out: &mut String, one: &ImageDocuments) {
    let config = &one.image.config;
    line(out, "manifest", &one.image.manifest.to_string());
    line(out, "config", &one.manifest.config.digest.to_string());
    line(out, "platform", &one.platform.to_string());
    if let Some(created) = &config.created {
        line(out, "created", created);
    }
    for (name, value) in settings(&config.config) {
        line(out, name, &value);
    }
    for field in &one.image.dropped {
        line(
            out,
            "also",
            &format!("{field}, which immbuild does not keep"),
        );
    }
    for (name, value) in &one.manifest.annotations {
        line(out, "annotation", &format!("{name} = {value}"));
    }
    let total: u64 = one.image.layers.iter().map(|layer| layer.size).sum();
    line(
        out,
        "layers",
        &format!("{}, {}", one.image.layers.len(), bytes(total)),
    );
    for (layer, number) in one.image.layers.iter().zip(1..) {
        let LayerText { form, size } = layer_text(layer);
        line(
            out,
            &format!("  {number}"),
            &format!("{}  {form:4}  {size:>9}", layer.digest),
        );
        line(out, "", &format!("{}  uncompressed", layer.diff_id));
    }
    if !config.history.is_empty() {
        let steps = match config.history.len() {
            1 => "1 step".to_owned(),
            steps => format!("{steps} steps"),
        };
        line(out, "history", &steps);
    }
    let mut layer = 0;
    for history in &config.history {
        let head = if history.empty_layer {
            "  -".to_owned()
        } else {
            layer += 1;
            format!("  {layer}")
        };
        line(out, &head, &history_text(history));
    }
}

/// What is set of how a container starts, in the order of the spec's keys.
fn settings(config: &ContainerConfig) -> Vec<(&'static str, String)> {
    let words = |words: &[String]| json!(words).to_string();
    let mut settings = Vec::new();
    if !config.entrypoint.is_empty() {
        settings.push(("entrypoint", words(&config.entrypoint)));
    }
    if !config.cmd.is_empty() {
        settings.push(("cmd", words(&config.cmd)));
    }
    if !config.user.is_empty() {
        settings.push(("user", config.user.clone()));
    }
    if !config.working_dir.is_empty() {
        settings.push(("workdir", config.working_dir.clone()));
    }
    settings.extend(config.env.iter().map(|one| ("env", one.clone())));
    settings.extend(
        config
            .exposed_ports
            .iter()
            .map(|one| ("expose", one.clone())),
    );
    settings.extend(config.volumes.iter().map(|one| ("volume", one.clone())));
    settings.extend(
        config
            .labels
            .iter()
            .map(|(name, value)| ("label", format!("{name} = {value}"))),
    );
    if !config.stop_signal.is_empty() {
        settings.push(("stop-signal", config.stop_signal.clone()));
    }
    settings
}

struct LayerText {
    form: &'static str,
    size: String,
}

fn layer_text(layer: &ImageLayer) -> LayerText {
    LayerText {
        form: form(layer.media),
        size: bytes(layer.size),
    }
}

fn form(media: LayerMedia) -> &'static str {
    match media {
        LayerMedia::Zstd => "zstd",
        LayerMedia::Gzip => "gzip",
        LayerMedia::Tar => "none",
    }
}

fn history_text(history: &History) -> String {
    let texts = [&history.created_by, &history.comment];
    texts
        .into_iter()
        .flatten()
        .next()
        .map_or_else(|| "(nothing said)".into(), |text| in_short(text))
}

/// The same for machines.
pub(super) fn inspection_json(documents: &Documents) -> Value {
    let images: Vec<Value> = documents.images.iter().map(image_json).collect();
    json!({
        "event": "result",
        "ok": true,
        "digest": documents.digest().map(|digest| digest.to_string()),
        "index": documents.index.as_ref().map(|(digest, index)| json!({
            "digest": digest.to_string(),
            "annotations": index.annotations,
        })),
        "images": images,
    })
}

fn image_json(one: &ImageDocuments) -> Value {
    let config = &one.image.config;
    let start = &config.config;
    let layers: Vec<Value> = one
        .image
        .layers
        .iter()
        .map(|layer| {
            json!({
                "digest": layer.digest.to_string(),
                "diff-id": layer.diff_id.to_string(),
                "size": layer.size,
                "compression": form(layer.media),
            })
        })
        .collect();
    let history: Vec<Value> = config
        .history
        .iter()
        .map(|line| {
            json!({
                "created": line.created,
                "created-by": line.created_by,
                "comment": line.comment,
                "empty-layer": line.empty_layer,
            })
        })
        .collect();
    json!({
        "manifest": one.image.manifest.to_string(),
        "config": one.manifest.config.digest.to_string(),
        "platform": one.platform.to_string(),
        "created": config.created,
        "entrypoint": start.entrypoint,
        "cmd": start.cmd,
        "user": start.user,
        "workdir": start.working_dir,
        "env": start.env,
        "expose": start.exposed_ports,
        "volumes": start.volumes,
        "labels": start.labels,
        "stop-signal": start.stop_signal,
        "annotations": one.manifest.annotations,
        "dropped": one.image.dropped,
        "layers": layers,
        "history": history,
    })
}

/// Every file of an image for machines. In paths and link texts a backslash is `\\` and what is no printable UTF-8 is `\xNN`.
pub(super) fn listing_json(files: &Files) -> Result<Value, TreeError> {
    let first = files.tree.links.first_by_path();
    let mut entries = Vec::new();
    walk(&files.directories, &files.tree, &mut |path, visit| {
        let mut entry = match visit {
            Visit::Directory(meta) => meta_json("directory", meta),
            Visit::File(file) => {
                let mut entry = meta_json("file", &file.meta);
                entry["digest"] = json!(file.blob.to_string());
                entry["size"] = json!(file.size);
                entry
            }
            Visit::Symlink(link) => json!({
                "kind": "symlink",
                "uid": link.uid,
                "gid": link.gid,
                "target": escaped(&link.target),
            }),
            Visit::Special(special) => {
                let (kind, device) = match special.kind {
                    SpecialKind::Fifo => ("pipe", None),
                    SpecialKind::Char { major, minor } => {
                        ("character-device", Some((major, minor)))
                    }
                    SpecialKind::Block { major, minor } => ("block-device", Some((major, minor))),
                };
                let mut entry = meta_json(kind, &special.meta);
                if let Some((major, minor)) = device {
                    entry["device"] = json!(format!("{major}:{minor}"));
                }
                entry
            }
        };
        entry["path"] = json!(path.to_string());
        if let Some(first) = first.get(path).filter(|first| **first != path) {
            entry["link-to"] = json!(first.to_string());
        }
        entries.push(entry);
        Ok::<(), TreeError>(())
    })?;
    Ok(Value::Array(entries))
}

fn meta_json(kind: &str, meta: &Meta) -> Value {
    let xattrs: serde_json::Map<String, Value> = meta
        .xattrs
        .iter()
        .map(|(name, value)| (escaped(name.as_bytes()), json!(hex(value))))
        .collect();
    let mut entry = json!({
        "kind": kind,
        "mode": meta.mode.to_string(),
        "uid": meta.uid,
        "gid": meta.gid,
    });
    if !xattrs.is_empty() {
        entry["xattrs"] = Value::Object(xattrs);
    }
    entry
}

/// Bytes of which nobody knows whether they are text, told apart from all others.
fn escaped(bytes: &[u8]) -> String {
    let mut out = String::new();
    escape(bytes, &mut out).expect("a string takes everything");
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a string takes everything");
        hex
    })
}

/// The verdict, and every difference.
pub(super) fn comparison(compared: &Compared) -> String {
    let mut out = compared.word().to_owned();
    if compared.level().is_none() && compared.verdict != Verdict::Identical {
        out.push_str(": only the JSON text of documents differs");
    }
    if let Some(level) = compared.level() {
        write!(out, ": the first difference is in the {}", level.as_str())
            .expect("a string takes everything");
    }
    out.push('\n');
    for field in &compared.index {
        field_line(&mut out, field);
    }
    let several = compared.platforms.len() > 1;
    for one in &compared.platforms {
        if let Some(platform) = one.platform.as_ref().filter(|_| several) {
            writeln!(out, "\n{platform}: {}", one.comparison.verdict.as_str())
                .expect("a string takes everything");
        }
        differences(&mut out, one);
    }
    out
}

fn differences(out: &mut String, one: &ComparedPlatform) {
    let comparison = &one.comparison;
    for field in &comparison.fields {
        field_line(out, field);
    }
    for layer in &comparison.layers {
        let what = if layer.same_diff_id {
            "the same tar, compressed otherwise"
        } else {
            "another tar"
        };
        let step = one.steps[layer.number].as_deref();
        let step = step.map_or_else(String::new, |step| format!("   ({})", in_short(step)));
        line(out, "layer", &format!("{}: {what}{step}", layer.number + 1));
    }
    for path in &comparison.paths {
        path_lines(out, path);
    }
}

fn field_line(out: &mut String, field: &FieldDifference) {
    let side = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".into());
    let text = format!(
        "{}: {} → {}",
        field.field,
        side(&field.left),
        side(&field.right)
    );
    line(out, field.level.as_str(), &text);
}

fn path_lines(out: &mut String, difference: &PathDifference) {
    let path = &difference.path;
    let mut say = |text: String| line(out, "path", &format!("{path}  {text}"));
    match &difference.change {
        PathChange::OnlyLeft => say("is only in the first".into()),
        PathChange::OnlyRight => say("is only in the second".into()),
        PathChange::Kind { left, right } => say(format!("{left} → {right}")),
        PathChange::Attributes(attributes) => {
            for attribute in attributes {
                let (name, left, right) = attribute_texts(attribute);
                say(format!("{name} {left} → {right}"));
                if let AttributeDifference::Content { hints, .. } = attribute {
                    for hint in hints {
                        say(hint_text(hint));
                    }
                }
            }
        }
    }
}

/// An attribute's name and its two values.
fn attribute_texts(attribute: &AttributeDifference) -> (String, String, String) {
    let texts = |name: &str, left: String, right: String| (name.to_owned(), left, right);
    match attribute {
        AttributeDifference::Mode { left, right } => {
            texts("mode", left.to_string(), right.to_string())
        }
        AttributeDifference::Owner { left, right } => texts(
            "owner",
            format!("{}:{}", left.0, left.1),
            format!("{}:{}", right.0, right.1),
        ),
        AttributeDifference::Xattr { name, left, right } => {
            let value = |value: &Option<Box<[u8]>>| {
                value
                    .as_ref()
                    .map_or_else(|| "nothing".into(), |value| hex(value))
            };
            texts(
                &format!("attribute {}", escaped(name.as_bytes())),
                value(left),
                value(right),
            )
        }
        AttributeDifference::Content { left, right, .. } => {
            let side = |(blob, size): &(BlobId, u64)| {
                format!("sha256:{} ({size} bytes)", blob.digest().short())
            };
            texts("content", side(left), side(right))
        }
        AttributeDifference::Target { left, right } => {
            texts("target", escaped(left), escaped(right))
        }
        AttributeDifference::Device { left, right } => {
            texts("device", device(*left), device(*right))
        }
        AttributeDifference::Link { left, right } => {
            let side = |first: &Option<RelPath>| {
                first
                    .as_ref()
                    .map_or_else(|| "none".into(), ToString::to_string)
            };
            texts("hard link to", side(left), side(right))
        }
    }
}

fn device(kind: SpecialKind) -> String {
    match kind {
        SpecialKind::Fifo => "pipe".into(),
        SpecialKind::Char { major, minor } => format!("character device {major}:{minor}"),
        SpecialKind::Block { major, minor } => format!("block device {major}:{minor}"),
    }
}

fn hint_text(hint: &Hint) -> String {
    match hint {
        Hint::GzipTime { left, right } => {
            format!("gzip header time {left} → {right} (seconds since 1970)")
        }
        Hint::PycTime { left, right } => {
            format!("source time in Python byte code {left} → {right} (seconds since 1970)")
        }
        Hint::BuildId { left, right } => format!("ELF build id {left} → {right}"),
        Hint::ZipTime { entry, left, right } => {
            format!("time of zip entry {entry} {left} → {right}")
        }
        Hint::DateText {
            offset,
            left,
            right,
        } => format!("text at byte {offset} `{left}` → `{right}`"),
    }
}

/// The same for machines.
pub(super) fn comparison_json(compared: &Compared) -> Value {
    let platforms: Vec<Value> = compared
        .platforms
        .iter()
        .map(|one| {
            let comparison = &one.comparison;
            let layers: Vec<Value> = comparison
                .layers
                .iter()
                .map(|layer| {
                    json!({
                        "number": layer.number + 1,
                        "same-diff-id": layer.same_diff_id,
                        "step": one.steps[layer.number],
                    })
                })
                .collect();
            json!({
                "platform": one.platform.as_ref().map(ToString::to_string),
                "verdict": comparison.verdict.as_str(),
                "fields": fields_json(&comparison.fields),
                "layers": layers,
                "paths": comparison.paths.iter().map(path_json).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "verdict": compared.word(),
        "level": compared.level().map(Level::as_str),
        "index": fields_json(&compared.index),
        "platforms": platforms,
        "without-owners": compared.without_owners,
    })
}

fn fields_json(fields: &[FieldDifference]) -> Value {
    fields
        .iter()
        .map(|field| {
            json!({
                "level": field.level.as_str(),
                "field": field.field,
                "left": field.left,
                "right": field.right,
            })
        })
        .collect()
}

fn path_json(difference: &PathDifference) -> Value {
    let mut value = json!({ "path": difference.path.to_string() });
    match &difference.change {
        PathChange::OnlyLeft => value["only"] = json!("left"),
        PathChange::OnlyRight => value["only"] = json!("right"),
        PathChange::Kind { left, right } => value["kind"] = json!({ "left": left, "right": right }),
        PathChange::Attributes(attributes) => {
            value["attributes"] = attributes
                .iter()
                .map(|attribute| {
                    let (name, left, right) = attribute_texts(attribute);
                    let mut value = json!({ "name": name, "left": left, "right": right });
                    if let AttributeDifference::Content { hints, left, right } = attribute {
                        value["left"] = json!({ "digest": left.0.to_string(), "size": left.1 });
                        value["right"] = json!({ "digest": right.0.to_string(), "size": right.1 });
                        value["hints"] = hints.iter().map(hint_text).collect();
                    }
                    value
                })
                .collect();
        }
    }
    value
}
