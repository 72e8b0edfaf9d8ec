//! Alternatives: which program a common name leads to (update-alternatives(1)).
//!
//! What packages offer is read from their scripts, where it is written without variables, and of Java's from the list that
//! each runtime brings. The offer with the highest priority wins, unless the spec says another.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use immbuild_cas::path::RelPath;
use immbuild_cas::tree::Mode;

use super::{Fixing, constant};
use crate::debian::install::{InstallError, admin};
use crate::debian::shell;

/// What one package offers under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    name: String,
    link: String,
    path: String,
    priority: i64,
    slaves: Vec<Slave>,
}

/// What goes with it: a manual page, mostly.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slave {
    name: String,
    link: String,
    path: String,
}

/// All that is offered under one name.
#[derive(Debug, Default)]
struct Group {
    link: String,
    /// Names of what may go with a choice, and their links.
    slaves: BTreeMap<String, String>,
    choices: BTreeMap<String, Choice>,
}

#[derive(Debug)]
struct Choice {
    priority: i64,
    slaves: BTreeMap<String, String>,
}

pub(super) fn apply(fixing: &mut Fixing<'_, '_>) -> Result<(), InstallError> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    let mut offers = Vec::new();
    for package in fixing.packages {
        let script = fixing.postinst(package)?;
        let commands = shell::commands(&script);
        offers.extend(commands.iter().filter_map(|words| offer(words)));
    }
    offers.extend(java(fixing)?);
    for offer in offers {
        if !is_there(fixing, &offer.path)? {
            continue;
        }
        let group = groups.entry(offer.name).or_default();
        if group.link.is_empty() {
            group.link = offer.link;
        }
        let mut slaves = BTreeMap::new();
        for slave in offer.slaves {
            if is_there(fixing, &slave.path)? {
                slaves.insert(slave.name.clone(), slave.path);
            }
            group.slaves.entry(slave.name).or_insert(slave.link);
        }
        let priority = offer.priority;
        group
            .choices
            .entry(offer.path)
            .or_insert(Choice { priority, slaves });
    }
    let mut asked = fixing.fixups.alternatives.clone();
    for (name, group) in &groups {
        let asked = asked.remove(name);
        install(fixing, name, group, asked.as_ref())?;
    }
    for (name, path) in asked {
        // Nobody offers it: the spec does.
        let mut group = Group {
            link: format!("/usr/bin/{name}"),
            ..Group::default()
        };
        let choice = Choice {
            priority: 0,
            slaves: BTreeMap::new(),
        };
        group.choices.insert(path.to_string(), choice);
        if !is_there(fixing, &path.to_string())? {
            return Err(not_there(&name, &path));
        }
        install(fixing, &name, &group, Some(&path))?;
    }
    Ok(())
}

fn not_there(name: &str, path: &RelPath) -> InstallError {
    InstallError::Fixup {
        fixup: "alternatives",
        reason: format!("`{name}` is to lead to `{path}`, which is not there"),
    }
}

fn is_there(fixing: &mut Fixing<'_, '_>, path: &str) -> Result<bool, InstallError> {
    match RelPath::from_absolute(path.as_bytes()) {
        Ok(path) => fixing.leads_somewhere(&path),
        Err(_) => Ok(false),
    }
}

/// Writes the links of one name, and what update-alternatives knows about it.
fn install(
    fixing: &mut Fixing<'_, '_>,
    name: &str,
    group: &Group,
    asked: Option<&RelPath>,
) -> Result<(), InstallError> {
    let asked = asked.map(ToString::to_string);
    let chosen = match &asked {
        Some(path) => group.choices.get_key_value(path).ok_or_else(|| {
            let offered: Vec<&str> = group.choices.keys().map(String::as_str).collect();
            InstallError::Fixup {
                fixup: "alternatives",
                reason: format!(
                    "`{path}` is not offered as `{name}`: there is `{}`",
                    offered.join("`, `")
                ),
            }
        })?,
        None => group
            .choices
            .iter()
            .rev()
            .max_by_key(|(_, choice)| choice.priority)
            .expect("a name is there because something is offered under it"),
    };
    let (path, choice) = chosen;
    let mut links = vec![(name, group.link.as_str(), path.as_str())];
    for (slave, path) in &choice.slaves {
        links.push((slave, &group.slaves[slave], path));
    }
    for (name, link, path) in links {
        let (Ok(link), Ok(in_etc)) = (
            RelPath::from_absolute(link.as_bytes()),
            RelPath::new(format!("etc/alternatives/{name}").into_bytes()),
        ) else {
            continue;
        };
        fixing.link(&in_etc, path)?;
        fixing.link(&link, &in_etc.to_string())?;
    }
    let text = to_text(group, asked.is_some());
    fixing.write(&admin(&format!("alternatives/{name}")), &text, Mode::FILE)
}

/// The file of one name in dpkg's directory.
fn to_text(group: &Group, is_manual: bool) -> String {
    let mut out = String::new();
    let mut line = |text: &str| writeln!(out, "{text}").expect("a string takes everything");
    line(if is_manual { "manual" } else { "auto" });
    line(&group.link);
    for (name, link) in &group.slaves {
        line(name);
        line(link);
    }
    line("");
    for (path, choice) in &group.choices {
        line(path);
        line(&choice.priority.to_string());
        for name in group.slaves.keys() {
            line(choice.slaves.get(name).map_or("", String::as_str));
        }
    }
    line("");
    out
}

/// What one command of a script offers; nothing when it is no such command, or cannot be told.
pub(super) fn offer(words: &[String]) -> Option<Offer> {
    let (program, words) = words.split_first()?;
    if !matches!(
        program.as_str(),
        "update-alternatives" | "/usr/bin/update-alternatives"
    ) {
        return None;
    }
    let mut offer = None;
    let mut slaves = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut next = || words.next().filter(|word| shell::is_literal(word)).cloned();
        match word.as_str() {
            "--install" => {
                let (link, name, path) = (next()?, next()?, next()?);
                offer = Some((link, name, path, next()?.parse().ok()?));
            }
            "--slave" => slaves.push(Slave {
                link: next()?,
                name: next()?,
                path: next()?,
            }),
            "--quiet" | "--force" | "--verbose" => {}
            _ => return None,
        }
    }
    let (link, name, path, priority) = offer?;
    let names = slaves.iter().map(|slave| &slave.name);
    let is_plain =
        |name: &String| !name.is_empty() && !name.contains('/') && !name.starts_with('.');
    if !names.chain([&name]).all(is_plain) {
        return None;
    }
    Some(Offer {
        name,
        link,
        path,
        priority,
        slaves,
    })
}

/// What Java runtimes offer: a file `.NAME.jinfo` beside each says its priority and its programs.
fn java(fixing: &mut Fixing<'_, '_>) -> Result<Vec<Offer>, InstallError> {
    let mut offers = Vec::new();
    let Some(directory) = fixing.root.find(&constant("/usr/lib/jvm"))? else {
        return Ok(offers);
    };
    for name in fixing.root.builder.names(&directory)? {
        if !name.as_bytes().ends_with(b".jinfo") {
            continue;
        }
        let file = directory.join(&name).map_err(InstallError::Path)?;
        let text = fixing.text(&file)?.unwrap_or_default();
        offers.extend(java_offers(&text));
    }
    Ok(offers)
}

/// The programs of a runtime: `hl java /usr/lib/jvm/…/bin/java`.
fn java_offers(text: &str) -> Vec<Offer> {
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    };
    let Some(priority) = value("priority").and_then(|text| text.trim().parse().ok()) else {
        return Vec::new();
    };
    text.lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let [kind, name, path] = words[..] else {
                return None;
            };
            let is_program = matches!(kind, "hl" | "jre" | "jdk" | "jdkhl");
            if !is_program || name.contains('/') || name.starts_with('.') {
                return None;
            }
            let page = path.rsplit_once("/bin/").map(|(home, name)| Slave {
                name: format!("{name}.1.gz"),
                link: format!("/usr/share/man/man1/{name}.1.gz"),
                path: format!("{home}/man/man1/{name}.1.gz"),
            });
            Some(Offer {
                name: name.to_owned(),
                link: format!("/usr/bin/{name}"),
                path: path.to_owned(),
                priority,
                slaves: page.into_iter().collect(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers(script: &str) -> Vec<Offer> {
        let commands = shell::commands(script);
        commands.iter().filter_map(|words| offer(words)).collect()
    }

    #[test]
    fn what_a_script_says_plainly_is_offered() {
        let script = "\
if [ \"$1\" = configure ]; then
    update-alternatives --install /usr/bin/awk awk /usr/bin/mawk 5 \\
        --slave /usr/bin/nawk nawk /usr/bin/mawk
    update-alternatives --install /usr/bin/x x \"/usr/bin/x-$version\" 5
    update-alternatives --remove awk /usr/bin/old
fi";
        let [awk] = &offers(script)[..] else {
            panic!("one offer is plain");
        };
        assert_eq!((awk.name.as_str(), awk.priority), ("awk", 5));
        assert_eq!(awk.slaves[0].link, "/usr/bin/nawk");
        assert_eq!(offers("update-alternatives --install /a ../b /c 1"), []);
    }

    #[test]
    fn the_file_is_as_update_alternatives_writes_it() {
        let mut group = Group {
            link: "/usr/bin/awk".into(),
            ..Group::default()
        };
        group
            .slaves
            .insert("awk.1.gz".into(), "/usr/share/man/man1/awk.1.gz".into());
        let choice = |priority| Choice {
            priority,
            slaves: BTreeMap::new(),
        };
        group.choices.insert("/usr/bin/mawk".into(), choice(5));
        let mut gawk = choice(10);
        gawk.slaves
            .insert("awk.1.gz".into(), "/usr/share/man/man1/gawk.1.gz".into());
        group.choices.insert("/usr/bin/gawk".into(), gawk);
        assert_eq!(
            to_text(&group, false),
            "auto\n/usr/bin/awk\nawk.1.gz\n/usr/share/man/man1/awk.1.gz\n\n\
             /usr/bin/gawk\n10\n/usr/share/man/man1/gawk.1.gz\n/usr/bin/mawk\n5\n\n\n"
        );
    }

    #[test]
    fn a_runtime_offers_its_programs() {
        let text = "name=java\nalias=x\npriority=1711\nsection=main\n\n\
                    hl java /usr/lib/jvm/j/bin/java\nplugin libnpjp2.so /usr/lib/x.so\n";
        let [java] = &java_offers(text)[..] else {
            panic!("one program");
        };
        assert_eq!((java.link.as_str(), java.priority), ("/usr/bin/java", 1711));
        assert_eq!(java.slaves[0].path, "/usr/lib/jvm/j/man/man1/java.1.gz");
    }
}
