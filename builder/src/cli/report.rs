//! What a use case found, as lines for people and as JSON for machines.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::app::build::{BuildReport, Expectation, Guarantee};
use crate::app::lock::LockReport;
use crate::app::push::PushReport;
use crate::app::shared::Sent;
use crate::app::vendor::VendorReport;
use crate::app::why::Why;
use crate::spec::image_name::ImageRepository;
pub(super) use crate::ui::{data, raw};

/// A line for people on standard error.
pub(super) fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// `12.4 MB`: decimal units, as registries and disks count.
pub(super) fn bytes(count: u64) -> String {
    #[allow(
        clippy::cast_precision_loss,
        reason = "one digit after the point is shown"
    )]
    let value = count as f64;
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{:.1} kB", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", value / 1e6),
        _ => format!("{:.1} GB", value / 1e9),
    }
}

/// The summary of a build (SPEC C).
pub(super) fn build(report: &BuildReport, seconds: f64, terminal: bool) {
    for (line, number) in report.locked.iter().zip(0..) {
        let new = match &report.new_lock {
            Some(path) if number == 0 => format!("   ({} is new: commit it)", path.display()),
            _ => String::new(),
        };
        say(&format!("locked    {line}{new}"));
    }
    let tier = report.guarantee.as_ref().map(tier).unwrap_or_default();
    let taken = match report.taken {
        0 => String::new(),
        taken => format!(" ({taken} from the shared cache)"),
    };
    say(&format!(
        "built     {} op{}: {} cached{taken}, {} run, {seconds:.1} s{tier}",
        report.ops,
        if report.ops == 1 { "" } else { "s" },
        report.cached,
        report.ran
    ));
    let emulated = report.guarantee.iter().flat_map(|it| &it.emulated);
    for (step, platform) in emulated {
        say(&format!("emulated  {step}: programs of {platform}"));
    }
    let base = match report.base {
        (0, _) => String::new(),
        (count, size) => format!(", {count} base {}", bytes(size)),
    };
    say(&format!(
        "layers    {} own {}{base}",
        report.own.0,
        bytes(report.own.1)
    ));
    say(&format!("expected  {}", expectation(&report.expectation)));
    for (path, same) in &report.written {
        let same = if *same { "   (as it was)" } else { "" };
        say(&format!("written   {}{same}", path.display()));
    }
    if report.written.is_empty() && terminal {
        say("next      immbuild load podman");
    }
}

/// What was sent for others to take.
pub(super) fn sent(to: &ImageRepository, sent: &Sent) {
    let (given, size) = sent.given;
    let s = if given == 1 { "" } else { "s" };
    say(&format!(
        "shared    {given} result{s} sent to {to} ({}), {} there",
        bytes(size),
        sent.there
    ));
}

/// The same for machines.
pub(super) fn sent_json(sent: &Sent) -> Value {
    json!({ "sent": sent.given.0, "bytes": sent.given.1, "there": sent.there })
}

fn tier(guarantee: &Guarantee) -> String {
    let asked = match &guarantee.downgraded {
        Some((_, asked)) => format!(" ({} was asked for)", asked.as_str()),
        None => String::new(),
    };
    format!("   tier {}{asked}", guarantee.tier.as_str())
}

fn expectation(expectation: &Expectation) -> String {
    match expectation {
        Expectation::None => "nothing recorded; `--record` pins these bytes".into(),
        Expectation::Met => "these bytes".into(),
        Expectation::Other {
            changed: Some(changed),
        } => format!("another image: `{changed}` is not as it was, so nothing was compared"),
        Expectation::Other { changed: None } => {
            "another image, so nothing was compared; `--record` pins these bytes".into()
        }
        Expectation::Recorded => "recorded in the lock: commit it".into(),
        Expectation::Warm => {
            "not compared: a step saw a filled cache; `--without-caches` builds without".into()
        }
    }
}

/// The same for machines.
pub(super) fn build_json(report: &BuildReport, seconds: f64) -> Value {
    let images: Vec<Value> = report
        .images
        .iter()
        .map(|(platform, image)| {
            json!({
                "platform": platform.to_string(),
                "manifest": image.manifest.to_string(),
                "image-id": image.id.to_string(),
                "tree": image.tree.to_string(),
            })
        })
        .collect();
    let written: Vec<Value> = report
        .written
        .iter()
        .map(|(path, same)| json!({ "path": path.display().to_string(), "unchanged": same }))
        .collect();
    let guarantee = report.guarantee.as_ref();
    let downgraded = guarantee.and_then(|guarantee| guarantee.downgraded.as_ref());
    json!({
        "event": "result",
        "ok": true,
        "digest": report.digest.to_string(),
        "images": images,
        "ops": {
            "all": report.ops,
            "cached": report.cached,
            "run": report.ran,
            "executed": report.executed,
            "taken": report.taken,
        },
        "tier": guarantee.map(|guarantee| guarantee.tier.as_str()),
        "emulated": guarantee.map_or(&[][..], |guarantee| &guarantee.emulated).iter()
            .map(|(step, platform)| json!({ "step": step, "platform": platform.to_string() }))
            .collect::<Vec<Value>>(),
        "downgraded": downgraded.map(|(steps, asked)| json!({
            "steps": steps,
            "asked": asked.as_str(),
        })),
        "layers": {
            "own": { "count": report.own.0, "bytes": report.own.1 },
            "base": { "count": report.base.0, "bytes": report.base.1 },
        },
        "expectation": match &report.expectation {
            Expectation::None => "none",
            Expectation::Met => "met",
            Expectation::Other { .. } => "other",
            Expectation::Recorded => "recorded",
            Expectation::Warm => "warm",
        },
        "new-lock": report.new_lock.as_ref().map(|path| path.display().to_string()),
        "written": written,
        "bytes-hashed": report.bytes_hashed,
        "seconds": seconds,
    })
}

/// What `lock` and `update` did.
pub(super) fn lock(report: &LockReport) {
    for line in &report.added {
        say(&format!("locked    {line}"));
    }
    for name in &report.dropped {
        say(&format!("dropped   {name}"));
    }
    for (name, before, after) in &report.moved {
        say(&format!("moved     {name:9} {before} → {after}"));
    }
    for (name, kept, all) in &report.shared {
        let (kept, all) = (bytes(*kept), bytes(*all));
        say(&format!("shared    {name:9} {kept} of {all} of packages"));
    }
    if let Some((before, after)) = report.epoch {
        say(&format!("epoch     {before} → {after}"));
    }
    match (&report.written, report.needed) {
        (Some(path), _) => say(&format!("written   {}", path.display())),
        (None, true) if !report.moved.is_empty() || report.epoch.is_some() => {
            say("nothing was written: this was a dry run");
        }
        (None, true) => say("nothing moved"),
        (None, false) => say("nothing to lock: every source is identified by its content"),
    }
}

/// The same for machines.
pub(super) fn lock_json(report: &LockReport) -> Value {
    let moved: Vec<Value> = report
        .moved
        .iter()
        .map(|(name, before, after)| json!({ "source": name, "before": before, "after": after }))
        .collect();
    let shared: Vec<Value> = report
        .shared
        .iter()
        .map(|(name, kept, all)| json!({ "source": name, "kept": kept, "of": all }))
        .collect();
    json!({
        "event": "result",
        "ok": true,
        "added": report.added,
        "dropped": report.dropped,
        "moved": moved,
        "shared": shared,
        "epoch": report.epoch.map(|(_, after)| after.to_string()),
        "written": report.written.as_ref().map(|path| path.display().to_string()),
    })
}

/// Why a package is locked: the way to it, and all that need it.
pub(super) fn why(package: &str, found: &[Why]) {
    for it in found {
        data(&format!(
            "{package} {} in `{}` ({})",
            it.version, it.source, it.architecture
        ));
        for (depth, (name, reason)) in it.chain.iter().enumerate() {
            data(&format!(
                "  {:indent$}{name}: {reason}",
                "",
                indent = 2 * depth
            ));
        }
        if !it.needed_by.is_empty() {
            data(&format!("  needed by {}", it.needed_by.join(", ")));
        }
    }
}

/// The same for machines.
pub(super) fn why_json(found: &[Why]) -> Value {
    let found: Vec<Value> = found
        .iter()
        .map(|it| {
            let chain: Vec<Value> = it
                .chain
                .iter()
                .map(|(name, reason)| json!({ "package": name, "reason": reason }))
                .collect();
            json!({
                "source": it.source.as_str(),
                "architecture": it.architecture,
                "version": it.version,
                "chain": chain,
                "needed-by": it.needed_by,
            })
        })
        .collect();
    json!({ "event": "result", "ok": true, "found": found })
}

/// What was pushed, for people.
pub(super) fn push(report: &PushReport) {
    let pushed = &report.pushed;
    let mut parts = vec![format!("{} sent {}", pushed.sent.0, bytes(pushed.sent.1))];
    if pushed.there > 0 {
        parts.push(format!("{} there", pushed.there));
    }
    if pushed.mounted > 0 {
        parts.push(format!("{} from another repository", pushed.mounted));
    }
    say(&format!("pushed    {}", parts.join(", ")));
    for tag in &report.tags {
        say(&format!("tagged    {tag}"));
    }
}

/// The same for machines.
pub(super) fn push_json(reports: &[PushReport]) -> Value {
    let all = reports.iter().map(|report| {
        json!({
            "reference": report.reference.to_string(),
            "tags": report.tags,
            "sent": { "count": report.pushed.sent.0, "bytes": report.pushed.sent.1 },
            "there": report.pushed.there,
            "mounted": report.pushed.mounted,
        })
    });
    Value::Array(all.collect())
}

/// What `vendor` did, for machines.
pub(super) fn vendor_json(report: &VendorReport) -> Value {
    json!({
        "event": "result",
        "ok": true,
        "files": report.files,
        "bytes": report.bytes,
        "digest": report.manifest.map(|digest| digest.to_string()),
    })
}
