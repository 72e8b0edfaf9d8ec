//! Which packages had a script that nothing took the place of.
//!
//! A script is understood when each of its commands is: it does nothing in a root that no one runs services in, or is done
//! by a fix-up. What is not understood is told, rather too often than too seldom.

use std::collections::BTreeSet;

use super::{Fixing, accounts, alternatives, known};
use crate::debian::install::InstallError;
use crate::debian::package::Package;
use crate::debian::shell;

/// Commands that leave nothing behind which an image of one program wants: they ask, they speak to an init system or to
/// debconf, they tidy up after older versions, or they make caches.
const HARMLESS: [&str; 43] = [
    ".",
    ":",
    "[",
    "break",
    "command",
    "compileall",
    "continue",
    "db_capb",
    "db_get",
    "db_metaget",
    "db_purge",
    "db_stop",
    "db_version",
    "deb-systemd-helper",
    "deb-systemd-invoke",
    "dpkg",
    "dpkg-maintscript-helper",
    "dpkg-trigger",
    "echo",
    "exit",
    "export",
    "false",
    "for",
    "getent",
    "grep",
    "invoke-rc.d",
    "ldconfig",
    "local",
    "printf",
    "py3compile",
    "py3clean",
    "pycompile",
    "return",
    "rm",
    "rmdir",
    "set",
    "shift",
    "systemctl",
    "systemd-tmpfiles",
    "test",
    "true",
    "unset",
    "update-rc.d",
];

pub(super) fn warnings(
    fixing: &Fixing<'_, '_>,
    is_bundled: bool,
) -> Result<Vec<String>, InstallError> {
    let mut warnings = Vec::new();
    for package in fixing.packages {
        let name = package.name();
        if known::PACKAGES.contains(&name) || (is_bundled && name == "ca-certificates") {
            continue;
        }
        let mut commands = BTreeSet::new();
        for kind in ["preinst", "postinst"] {
            let script = package.control_text(kind, fixing.store)?;
            commands.extend(not_understood(&script.unwrap_or_default()));
        }
        if !commands.is_empty() {
            let commands: Vec<String> = commands.into_iter().collect();
            warnings.push(format!(
                "the script of `{}` was not run, and nothing takes its place: it calls `{}`",
                shown(package),
                commands.join("`, `")
            ));
        }
    }
    Ok(warnings)
}

fn shown(package: &Package) -> &str {
    package.name()
}

/// The commands of a script whose effect nothing here has.
fn not_understood(script: &str) -> BTreeSet<String> {
    if !script.starts_with("#!") || is_other_language(script) {
        let is_empty = script.trim().is_empty();
        let what = || "a program that is no shell script".to_owned();
        return (!is_empty).then(what).into_iter().collect();
    }
    let functions: BTreeSet<&str> = shell::functions(script).into_iter().collect();
    shell::commands(script)
        .into_iter()
        .filter(|words| !is_understood(words, &functions))
        .map(|words| words[0].clone())
        .collect()
}

fn is_other_language(script: &str) -> bool {
    let first = script.lines().next().unwrap_or_default();
    !["sh", "dash", "bash"]
        .iter()
        .any(|shell| first.trim_end().ends_with(shell) || first.contains(&format!("/{shell} ")))
}

fn is_understood(words: &[String], functions: &BTreeSet<&str>) -> bool {
    let word = words[0].as_str();
    let is_assignment = word.split_once('=').is_some_and(|(name, _)| {
        name.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    });
    // What prints the command, or a part of one, is looked at by itself.
    let is_remnant = word.starts_with('$');
    is_assignment
        || is_remnant
        || HARMLESS.contains(&word)
        || word.starts_with("db_")
        || functions.contains(word)
        || alternatives::offer(words).is_some()
        || accounts::request(words).is_some()
        || (word == "update-alternatives" && words.iter().any(|word| word.starts_with("--remove")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(script: &str) -> Vec<String> {
        not_understood(script).into_iter().collect()
    }

    #[test]
    fn what_a_service_or_a_trigger_wants_is_nothing() {
        let script = "\
#!/bin/sh
set -e
case \"$1\" in
  configure|reconfigure)
    ;;
  *)
    exit 1
    ;;
esac
if [ \"$1\" = configure ]; then
    deb-systemd-helper unmask 'x.service' >/dev/null || true
    update-rc.d x defaults >/dev/null || exit 1
    update-alternatives --install /usr/bin/a a /usr/bin/b 1
fi
";
        assert_eq!(left(script), Vec::<String>::new());
    }

    #[test]
    fn what_is_done_by_nobody_is_told() {
        assert_eq!(
            left("#!/bin/sh\nmake-ssl-cert generate\nchown a /b\n"),
            ["chown", "make-ssl-cert"]
        );
        assert_eq!(
            left("#!/usr/bin/perl\nprint 1;\n"),
            ["a program that is no shell script"]
        );
        assert_eq!(left(""), Vec::<String>::new());
    }
}
