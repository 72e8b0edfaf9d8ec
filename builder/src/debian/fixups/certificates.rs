//! The bundle of certificates that programs trust, as `update-ca-certificates` makes it, without the links by which
//! OpenSSL finds one of them by its name: the file that OpenSSL asks first has them all.

use immbuild_cas::path::RelPath;
use immbuild_cas::tree::{EntryKind, Mode};

use super::{Fixing, constant};
use crate::debian::install::InstallError;

const SHARED: &str = "/usr/share/ca-certificates";
const LOCAL: &str = "/usr/local/share/ca-certificates";
const CERTS: &str = "/etc/ssl/certs";

pub(super) fn apply(fixing: &mut Fixing<'_, '_>) -> Result<(), InstallError> {
    let mut shared = certificates(fixing, SHARED)?;
    if shared.is_empty() {
        return Err(InstallError::Fixup {
            fixup: "ca-bundle",
            reason: format!("there is no certificate below `{SHARED}`"),
        });
    }
    let base = constant(SHARED);
    let mut list = String::from(CONF_HEAD);
    for path in &shared {
        let below = path.strip_prefix(&base).expect("it was found there");
        list.push_str(&String::from_utf8_lossy(below.as_bytes()));
        list.push('\n');
    }
    let conf = constant("/etc/ca-certificates.conf");
    if !fixing.is_there(&conf)? {
        fixing.write(&conf, &list, Mode::FILE)?;
    }
    shared.extend(certificates(fixing, LOCAL)?);
    let mut bundle = String::new();
    for path in &shared {
        let Some(text) = fixing.text(path)? else {
            continue;
        };
        bundle.push_str(&text);
        if !text.ends_with('\n') {
            bundle.push('\n');
        }
        let pem = constant(CERTS)
            .join_path(&pem_name(path))
            .map_err(InstallError::Path)?;
        fixing.link(&pem, &path.to_string())?;
    }
    let at = constant(CERTS)
        .join_path(&constant("/ca-certificates.crt"))
        .map_err(InstallError::Path)?;
    fixing.write(&at, &bundle, Mode::FILE)?;
    let first_asked = constant("/usr/lib/ssl/cert.pem");
    if !fixing.is_there(&first_asked)? {
        fixing.link(&first_asked, "/etc/ssl/certs/ca-certificates.crt")?;
    }
    Ok(())
}

/// Part of format 1: changing it changes image bytes.
const CONF_HEAD: &str = "\
# This file lists the certificates that update-ca-certificates(8) takes from
# /usr/share/ca-certificates. A line that begins with `!` leaves one out.
";

/// The name that a certificate has among the others: without blanks, commas and brackets.
fn pem_name(path: &RelPath) -> RelPath {
    let name = path.file_name();
    let name = name.strip_suffix(b".crt").unwrap_or(name);
    let mut pem: Vec<u8> = name
        .iter()
        .map(|byte| match byte {
            b' ' | b',' => b'_',
            b'(' | b')' => b'=',
            other => *other,
        })
        .collect();
    pem.extend_from_slice(b".pem");
    RelPath::new(pem).unwrap_or_default()
}

/// The files `*.crt` below a directory, sorted.
fn certificates(fixing: &mut Fixing<'_, '_>, below: &str) -> Result<Vec<RelPath>, InstallError> {
    let mut found = Vec::new();
    let mut open = vec![constant(below)];
    while let Some(directory) = open.pop() {
        if fixing.root.builder.kind(&directory)? != Some(EntryKind::Directory) {
            continue;
        }
        for name in fixing.root.builder.names(&directory)? {
            let path = directory.join(&name).map_err(InstallError::Path)?;
            match fixing.root.builder.kind(&path)? {
                Some(EntryKind::Directory) => open.push(path),
                Some(EntryKind::File) if name.as_bytes().ends_with(b".crt") => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    Ok(found)
}
