//! `debian` sources: their tables read into typed values, with Debian's own archives where none are named.

use std::collections::{BTreeMap, BTreeSet};

use immbuild_cas::path::RelPath;
use immbuild_cas::tree::Mode;

use super::document::{Data, Table};
use super::fields::{Fields, Reader, Text};
use super::keys::{ARCHIVE, FIXUP_DIR, FIXUPS, Form, Set};
use super::model::{
    Configure, DebianArchive, DebianSource, FixupAccount, Fixups, Ident, Mkdir, Owner, Prune,
};
use super::value;
use crate::diag::{Diagnostic, Span};

/// What can be left out, by the word for it.
const PRUNE: [(&str, Prune); 4] = [
    ("docs", Prune::Docs),
    ("info", Prune::Info),
    ("locales", Prune::Locales),
    ("man", Prune::Man),
];

pub(super) fn read(fields: &mut Fields<'_, '_, '_>) -> Option<DebianSource> {
    let suite = fields.text("debian");
    let packages = named(fields, "packages");
    let recommends = fields.boolean("recommends").unwrap_or(false);
    let configure = match fields.choice("configure") {
        Some("none") => Configure::None,
        _ => Configure::Scripts,
    };
    let essential = fields.boolean("essential");
    let prefer = names(fields, "prefer");
    let exclude = names(fields, "exclude");
    let distro = fields.text("distro");
    let tables = fields.tables("archive");
    let fixups = fields.raw("fixups", Form::Table(&FIXUPS));

    let suite = suite.filter(|suite| check_suite(fields.reader, suite))?;
    let (packages, spans) = packages?;
    if packages.is_empty() {
        let span = fields.span("packages");
        let hint = "name at least one: `packages = [\"ca-certificates\"]`";
        fields.reader.error(span, "no package is asked for", hint);
        return None;
    }
    let exclude = exclude.unwrap_or_default();
    if let Some(both) = packages.iter().find(|name| exclude.contains(name)) {
        let span = fields.span("exclude");
        let message = format!("`{both}` is asked for and excluded");
        fields
            .reader
            .error(span, message, "take it out of one of the two");
        return None;
    }
    let distro = match distro {
        None => "debian".to_owned(),
        Some(text) => checked(fields.reader, text, is_word, "a name of a distribution")?,
    };
    let archives = if tables.is_empty() {
        if distro != "debian" {
            let span = fields.span("distro");
            let message = format!("the archives of `{distro}` are not known");
            let hint = "say where they are: `[[source.NAME.archive]]`";
            fields.reader.error(span, message, hint);
            return None;
        }
        default_archives(&suite.value)
    } else {
        archives(fields.reader, &tables)?
    };
    let fixups = match fixups {
        None => Fixups::default(),
        Some(value) => {
            if configure == Configure::Scripts {
                let hint = "add `configure = \"none\"`, or write steps after `install`";
                let message = "`fixups` do nothing where the packages' scripts run";
                fields.reader.error(value.span, message, hint);
                return None;
            }
            let Data::Table(table) = &value.data else {
                let message = format!("`fixups` must be a table, found {}", value.data.kind());
                let hint = "write `[source.NAME.fixups]`";
                fields.reader.error(value.span, message, hint);
                return None;
            };
            read_fixups(fields.reader, table)?
        }
    };
    Some(DebianSource {
        suite: suite.value,
        distro,
        packages,
        spans,
        recommends,
        configure,
        essential: essential.unwrap_or(configure == Configure::Scripts),
        prefer: prefer.unwrap_or_default(),
        exclude,
        archives,
        fixups,
    })
}

/// A list of package names.
fn names(fields: &mut Fields<'_, '_, '_>, key: &'static str) -> Option<Vec<String>> {
    Some(named(fields, key)?.0)
}

/// Names, and where each is written.
fn named(fields: &mut Fields<'_, '_, '_>, key: &'static str) -> Option<(Vec<String>, Vec<Span>)> {
    let named = fields.texts(key)?.into_iter().map(|text| {
        let span = text.span;
        let name = checked(fields.reader, text, is_package, "a name of a package")?;
        Some((name, span))
    });
    named.collect()
}

/// The text, if it has the form; what it is to be continues "is not".
fn checked(
    reader: &mut Reader<'_>,
    text: Text,
    form: impl Fn(&str) -> bool,
    what: &str,
) -> Option<String> {
    if form(&text.value) {
        return Some(text.value);
    }
    let message = format!("`{}` is not {what}", text.value.escape_debug());
    let mut error = Diagnostic::error(message);
    // Other tools select by version or architecture with these.
    if let Some((name, _)) = text.value.split_once(['=', ':', '/'])
        && is_package(name)
    {
        error = error.hint(format!(
            "write `\"{name}\"`: the lock pins the version, and the platform says the architecture"
        ));
    }
    reader.report(text.span, error);
    None
}

/// Debian Policy §5.6.7: at least two of `a-z0-9+.-`, the first a letter or digit.
fn is_package(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() >= 2
        && text.bytes().next().is_some_and(letter)
        && text
            .bytes()
            .all(|byte| letter(byte) || matches!(byte, b'+' | b'-' | b'.'))
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// A part of a path below `dists`: it becomes part of URLs and of the lock.
fn is_suite(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    text.split('/')
        .all(|part| !part.is_empty() && !part.starts_with('.') && part.bytes().all(allowed))
}

fn check_suite(reader: &mut Reader<'_>, text: &Text) -> bool {
    let fits = is_suite(&text.value);
    if !fits {
        reader.error(
            text.span,
            format!("`{}` is not a name of a suite", text.value.escape_debug()),
            "write the release's name, such as `\"bookworm\"`",
        );
    }
    fits
}

/// SPEC A: that suite, its updates and its security suite. The suite that everything enters first has neither.
fn default_archives(suite: &str) -> Vec<DebianArchive> {
    let archive = |name: &str, suites: Vec<String>| DebianArchive {
        name: Ident::new(name).expect("a name"),
        mirrors: Vec::new(),
        snapshot: None,
        suites,
        components: vec!["main".into()],
        signed_by: None,
        fingerprints: Vec::new(),
        max_age: None,
    };
    if matches!(suite, "sid" | "unstable") {
        return vec![archive("main", vec![suite.into()])];
    }
    vec![
        archive("main", vec![suite.into(), format!("{suite}-updates")]),
        archive("security", vec![format!("{suite}-security")]),
    ]
}

fn archives(reader: &mut Reader<'_>, tables: &[&Table]) -> Option<Vec<DebianArchive>> {
    let mut archives: Vec<DebianArchive> = Vec::new();
    for table in tables {
        let archive = archive(reader, table)?;
        if archives.iter().any(|other| other.name == archive.name) {
            let message = format!("two archives are named `{}`", archive.name);
            reader.error(table.span, message, "give each a name of its own");
            return None;
        }
        archives.push(archive);
    }
    Some(archives)
}

fn archive(reader: &mut Reader<'_>, table: &Table) -> Option<DebianArchive> {
    let mut fields = reader.open(&ARCHIVE, None, table);
    let name = fields.literal("name");
    let mirrors = fields.texts("mirrors").unwrap_or_default();
    let snapshot = fields.text("snapshot");
    let suites = fields.texts("suites");
    let components = fields.texts("components");
    let signed_by = fields.local_path("signed-by");
    let fingerprints = fields.texts("fingerprints").unwrap_or_default();
    let max_age = fields.duration("max-age");
    fields.finish();

    for text in mirrors.iter().chain(&snapshot) {
        let scheme = text.value.split_once("://").map(|(scheme, _)| scheme);
        if !matches!(scheme, Some("https" | "http" | "file")) {
            let message = format!("`{}` is not a URL of an archive", text.value.escape_debug());
            let hint = "it begins with `https://`, `http://` or `file://`";
            reader.error(text.span, message, hint);
            return None;
        }
    }
    if let Some(text) = &snapshot
        && !text.value.contains("{timestamp}")
    {
        let message = "`snapshot` has no place for the time";
        reader.error(text.span, message, "write `{timestamp}` where it belongs");
        return None;
    }
    let name = name?;
    let Some(ident) = Ident::new(&name.value) else {
        let message = format!("`{}` is not a name", name.value.escape_debug());
        let hint = "use a lower-case letter, then lower-case letters, digits and `-`";
        reader.error(name.span, message, hint);
        return None;
    };
    let suites_span = table
        .get("suites")
        .map_or(table.span, |entry| entry.value.span);
    let suites = suites?;
    if suites.is_empty() || components.as_ref().is_some_and(Vec::is_empty) {
        let message = "an archive has at least one suite and one component";
        reader.error(suites_span, message, "name what you take from it");
        return None;
    }
    if !suites.iter().all(|text| check_suite(reader, text)) {
        return None;
    }
    let components = match components {
        None => vec!["main".to_owned()],
        Some(texts) => texts
            .into_iter()
            .map(|text| checked(reader, text, is_suite, "a name of a component"))
            .collect::<Option<_>>()?,
    };
    let fingerprints = fingerprints
        .into_iter()
        .map(|text| fingerprint(reader, &text))
        .collect::<Option<_>>()?;
    Some(DebianArchive {
        name: ident,
        mirrors: mirrors.into_iter().map(|text| text.value).collect(),
        snapshot: snapshot.map(|text| text.value),
        suites: suites.into_iter().map(|text| text.value).collect(),
        components,
        signed_by: signed_by.map(|text| text.value),
        fingerprints,
        max_age,
    })
}

/// Capital hex digits without the spaces that tools print.
fn fingerprint(reader: &mut Reader<'_>, text: &Text) -> Option<String> {
    let digits: String = text
        .value
        .chars()
        .filter(|c| *c != ' ')
        .map(|c| c.to_ascii_uppercase())
        .collect();
    if matches!(digits.len(), 40 | 64) && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Some(digits);
    }
    let message = format!("`{}` is not a fingerprint", text.value.escape_debug());
    let hint = "write the key's whole fingerprint: 40 hex digits, or 64 for a key of version 6";
    reader.error(text.span, message, hint);
    None
}

fn read_fixups(reader: &mut Reader<'_>, table: &Table) -> Option<Fixups> {
    let mut fields = reader.open(&FIXUPS, None, table);
    let accounts = fields.texts("accounts").unwrap_or_default();
    let alternatives = fields.strings("alternatives");
    let ca_bundle = fields.boolean("ca-bundle");
    let symlinks = fields.strings("symlinks");
    let dirs = fields.tables("dirs");
    let prune = fields.texts("prune").unwrap_or_default();
    fields.finish();

    let accounts: Option<Vec<FixupAccount>> =
        accounts.iter().map(|text| account(reader, text)).collect();
    let mut programs = BTreeMap::new();
    for (name, text) in alternatives {
        match value::image_path(&text.value) {
            Ok(path) => drop(programs.insert(name, path)),
            Err(complaint) => reader.complain(None, &text, complaint),
        }
    }
    let mut links: BTreeMap<RelPath, String> = BTreeMap::new();
    for (path, text) in symlinks {
        let key = Text {
            value: path,
            span: text.span,
        };
        match value::image_path(&key.value) {
            Ok(path) if !path.is_root() && !text.value.is_empty() => {
                links.insert(path, text.value);
            }
            Ok(_) => reader.report(
                text.span,
                Diagnostic::error("a symbolic link has a name and a text"),
            ),
            Err(complaint) => reader.complain(None, &key, complaint),
        }
    }
    let dirs: Option<Vec<Mkdir>> = dirs.iter().map(|table| dir(reader, table)).collect();
    let mut pruned = BTreeSet::new();
    for text in prune {
        let known = PRUNE.iter().find(|(word, _)| *word == text.value);
        match known {
            Some((_, it)) => drop(pruned.insert(*it)),
            None => reader.error(
                text.span,
                format!("`{}` cannot be left out", text.value.escape_debug()),
                "`prune` takes `docs`, `info`, `locales` and `man`",
            ),
        }
    }
    Some(Fixups {
        accounts: accounts?,
        alternatives: programs,
        ca_bundle,
        symlinks: links,
        dirs: dirs?,
        prune: pruned,
    })
}

fn account(reader: &mut Reader<'_>, text: &Text) -> Option<FixupAccount> {
    let parts: Vec<&str> = text.value.split(':').collect();
    let id = |text: &str| text.parse::<u32>().ok().filter(|id| *id != u32::MAX);
    let found = match parts.as_slice() {
        [name] => Some((*name, None)),
        [name, uid, gid] => id(uid).zip(id(gid)).map(|ids| (*name, Some(ids))),
        _ => None,
    };
    match found {
        Some((name, ids)) if value::is_account(name) => Some(FixupAccount {
            name: name.to_owned(),
            ids,
        }),
        _ => {
            let message = format!("`{}` is not an account", text.value.escape_debug());
            let hint = "write `\"name\"`, or `\"name:uid:gid\"` with numbers";
            reader.error(text.span, message, hint);
            None
        }
    }
}

fn dir(reader: &mut Reader<'_>, table: &Table) -> Option<Mkdir> {
    let mut fields = reader.open(&FIXUP_DIR, Some(Set::Dirs), table);
    let path = fields.image_path("path");
    let mode = fields.mode("mode");
    let owner = fields.owner("owner");
    fields.finish();
    Some(Mkdir {
        path: path?.0,
        mode: Some(mode.unwrap_or(Mode::DIRECTORY)),
        owner: Some(owner.unwrap_or(Owner::ROOT)),
    })
}
