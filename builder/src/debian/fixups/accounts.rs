//! Users and groups: those that Debian has fixed for ever, those that scripts add, and those that the spec names.

use std::collections::BTreeSet;

use immbuild_cas::tree::Mode;

use super::{Fixing, constant};
use crate::debian::install::InstallError;
use crate::debian::shell;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// Where `base-passwd` has the accounts that it makes.
const MASTERS: [(&str, &str); 2] = [
    ("/usr/share/base-passwd/passwd.master", PASSWD),
    ("/usr/share/base-passwd/group.master", GROUP),
];

/// The users of `base-passwd`, whose numbers never change, for a root without it. Part of format 1.
const USERS: [&str; 18] = [
    "root:*:0:0:root:/root:/bin/bash",
    "daemon:*:1:1:daemon:/usr/sbin:/usr/sbin/nologin",
    "bin:*:2:2:bin:/bin:/usr/sbin/nologin",
    "sys:*:3:3:sys:/dev:/usr/sbin/nologin",
    "sync:*:4:65534:sync:/bin:/bin/sync",
    "games:*:5:60:games:/usr/games:/usr/sbin/nologin",
    "man:*:6:12:man:/var/cache/man:/usr/sbin/nologin",
    "lp:*:7:7:lp:/var/spool/lpd:/usr/sbin/nologin",
    "mail:*:8:8:mail:/var/mail:/usr/sbin/nologin",
    "news:*:9:9:news:/var/spool/news:/usr/sbin/nologin",
    "uucp:*:10:10:uucp:/var/spool/uucp:/usr/sbin/nologin",
    "proxy:*:13:13:proxy:/bin:/usr/sbin/nologin",
    "www-data:*:33:33:www-data:/var/www:/usr/sbin/nologin",
    "backup:*:34:34:backup:/var/backups:/usr/sbin/nologin",
    "list:*:38:38:Mailing List Manager:/var/list:/usr/sbin/nologin",
    "irc:*:39:39:ircd:/run/ircd:/usr/sbin/nologin",
    "_apt:*:42:65534::/nonexistent:/usr/sbin/nologin",
    "nobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin",
];

/// The groups of `base-passwd`. Part of format 1.
const GROUPS: [(&str, u32); 38] = [
    ("root", 0),
    ("daemon", 1),
    ("bin", 2),
    ("sys", 3),
    ("adm", 4),
    ("tty", 5),
    ("disk", 6),
    ("lp", 7),
    ("mail", 8),
    ("news", 9),
    ("uucp", 10),
    ("man", 12),
    ("proxy", 13),
    ("kmem", 15),
    ("dialout", 20),
    ("fax", 21),
    ("voice", 22),
    ("cdrom", 24),
    ("floppy", 25),
    ("tape", 26),
    ("sudo", 27),
    ("audio", 29),
    ("dip", 30),
    ("www-data", 33),
    ("backup", 34),
    ("operator", 37),
    ("list", 38),
    ("irc", 39),
    ("src", 40),
    ("shadow", 42),
    ("utmp", 43),
    ("video", 44),
    ("sasl", 45),
    ("plugdev", 46),
    ("staff", 50),
    ("games", 60),
    ("users", 100),
    ("nogroup", 65534),
];

/// The first number that scripts are given (adduser.conf(5)).
const FIRST_SYSTEM: u32 = 100;
const LAST_SYSTEM: u32 = 999;
const NOGROUP: u32 = 65534;

/// The account files while they are written.
struct Accounts {
    users: Vec<String>,
    groups: Vec<String>,
}

pub(super) fn apply(fixing: &mut Fixing<'_, '_>) -> Result<(), InstallError> {
    for (from, to) in MASTERS {
        let to = constant(to);
        if !fixing.is_there(&to)?
            && let Some(text) = fixing.text(&constant(from))?
        {
            fixing.write(&to, &text, Mode::FILE)?;
        }
    }
    let mut read = |path: &str| {
        let text = fixing.text(&constant(path))?.unwrap_or_default();
        Ok::<Vec<String>, InstallError>(text.lines().map(str::to_owned).collect())
    };
    let (users, groups) = (read(PASSWD)?, read(GROUP)?);
    let mut accounts = Accounts { users, groups };
    // Programs ask for these two wherever they run.
    for name in ["root", "nobody"] {
        accounts.fixed(name);
    }
    for package in fixing.packages {
        let script = fixing.postinst(package)?;
        for request in requests(&script) {
            accounts.request(&request);
        }
    }
    for account in &fixing.fixups.accounts {
        let name = &account.name;
        let is_known = match account.ids {
            None => accounts.has_user(name) || accounts.fixed(name),
            Some((uid, gid)) => accounts.numbered(name, uid, gid),
        };
        if !is_known {
            let reason = match account.ids {
                None => format!("Debian has no fixed number for `{name}`: write `{name}:UID:GID`"),
                Some((uid, gid)) => format!("`{name}` or {uid}:{gid} is somebody else's"),
            };
            return Err(InstallError::Fixup {
                fixup: "accounts",
                reason,
            });
        }
    }
    for (path, lines) in [(PASSWD, accounts.users), (GROUP, accounts.groups)] {
        let mut text = lines.join("\n");
        text.push('\n');
        if fixing.text(&constant(path))?.as_ref() != Some(&text) {
            fixing.write(&constant(path), &text, Mode::FILE)?;
        }
    }
    Ok(())
}

impl Accounts {
    fn has_user(&self, name: &str) -> bool {
        self.users.iter().any(|line| first(line) == name)
    }

    fn group(&self, name: &str) -> Option<u32> {
        let line = self.groups.iter().find(|line| first(line) == name)?;
        nth(line, 2)?.parse().ok()
    }

    /// An account that Debian has a number for.
    fn fixed(&mut self, name: &str) -> bool {
        if self.has_user(name) {
            return true;
        }
        let Some(line) = USERS.iter().find(|line| first(line) == name) else {
            return false;
        };
        let gid: Option<u32> = nth(line, 3).and_then(|gid| gid.parse().ok());
        let group = GROUPS.iter().find(|(_, id)| Some(*id) == gid);
        self.users.push((*line).to_owned());
        if let Some((name, id)) = group {
            self.fixed_group(name, *id);
        }
        true
    }

    fn fixed_group(&mut self, name: &str, id: u32) {
        if self.group(name).is_none() {
            self.groups.push(format!("{name}:*:{id}:"));
        }
    }

    /// An account with the numbers it is given.
    fn numbered(&mut self, name: &str, uid: u32, gid: u32) -> bool {
        if let Some(line) = self.users.iter().find(|line| first(line) == name) {
            return nth(line, 2) == Some(&uid.to_string())
                && nth(line, 3) == Some(&gid.to_string());
        }
        if self.is_taken(&self.users, uid) {
            return false;
        }
        match self.group(name) {
            Some(found) if found != gid => return false,
            Some(_) => {}
            None if self.is_taken(&self.groups, gid) => {}
            None => self.groups.push(format!("{name}:x:{gid}:")),
        }
        let login = "/usr/sbin/nologin";
        self.users
            .push(format!("{name}:x:{uid}:{gid}::/nonexistent:{login}"));
        true
    }

    #[allow(clippy::unused_self, reason = "reads as a question to the accounts")]
    fn is_taken(&self, lines: &[String], id: u32) -> bool {
        let id = id.to_string();
        lines.iter().any(|line| nth(line, 2) == Some(&id))
    }

    /// The first number that is free as user and as group.
    fn free(&self) -> u32 {
        (FIRST_SYSTEM..=LAST_SYSTEM)
            .find(|id| !self.is_taken(&self.users, *id) && !self.is_taken(&self.groups, *id))
            .unwrap_or(LAST_SYSTEM)
    }

    fn request(&mut self, request: &Request) {
        match request {
            Request::Group(name) => {
                if self.group(name).is_none() {
                    let id = self.free();
                    self.groups.push(format!("{name}:x:{id}:"));
                }
            }
            Request::User(user) => self.user(user),
            Request::Member { user, group } => {
                let groups = &mut self.groups;
                if let Some(line) = groups.iter_mut().find(|line| first(line) == group) {
                    let members: BTreeSet<&str> = nth(line, 3)
                        .unwrap_or_default()
                        .split(',')
                        .filter(|name| !name.is_empty())
                        .collect();
                    if !members.contains(user.as_str()) {
                        let comma = if members.is_empty() { "" } else { "," };
                        line.push_str(comma);
                        line.push_str(user);
                    }
                }
            }
        }
    }

    fn user(&mut self, user: &User) {
        let name = &user.name;
        if self.has_user(name) {
            return;
        }
        let id = self.free();
        let gid = match &user.group {
            None => NOGROUP,
            Some(group) => {
                if self.group(group).is_none() {
                    self.groups.push(format!("{group}:x:{id}:"));
                }
                self.group(group).unwrap_or(NOGROUP)
            }
        };
        let gecos = match &user.gecos {
            Some(gecos) => format!("{gecos},,,"),
            None => String::new(),
        };
        let (home, login) = (&user.home, &user.login);
        self.users
            .push(format!("{name}:x:{id}:{gid}:{gecos}:{home}:{login}"));
    }
}

fn first(line: &str) -> &str {
    line.split(':').next().unwrap_or_default()
}

fn nth(line: &str, field: usize) -> Option<&str> {
    line.split(':').nth(field)
}

/// What a script asks of adduser(8).
pub(super) enum Request {
    Group(String),
    User(User),
    Member { user: String, group: String },
}

pub(super) struct User {
    name: String,
    group: Option<String>,
    gecos: Option<String>,
    home: String,
    login: String,
}

/// The accounts that a script asks for, as far as it says so without a variable.
fn requests(script: &str) -> Vec<Request> {
    shell::commands(script)
        .iter()
        .filter_map(|words| request(words))
        .collect()
}

/// What one command asks for; nothing when it is no such command, or cannot be told.
pub(super) fn request(words: &[String]) -> Option<Request> {
    let (program, words) = words.split_first()?;
    let is_group = match program.as_str() {
        "adduser" => false,
        "addgroup" => true,
        _ => return None,
    };
    let mut names = Vec::new();
    let (mut is_system, mut own_group) = (false, false);
    let (mut home, mut login) = ("/nonexistent".to_owned(), "/usr/sbin/nologin".to_owned());
    let (mut group, mut gecos) = (None, None);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let (option, inline) = match word.split_once('=') {
            Some((option, value)) if option.starts_with("--") => (option, Some(value.to_owned())),
            _ => (word.as_str(), None),
        };
        let mut value = || inline.clone().or_else(|| words.next().cloned());
        match option {
            "--system" => is_system = true,
            "--group" => own_group = true,
            "--home" => home = value()?,
            "--shell" => login = value()?,
            "--gecos" | "--comment" => gecos = Some(value()?),
            "--ingroup" => group = Some(value()?),
            // A number of its own choice, or a place for many.
            "--uid" | "--gid" | "--firstuid" | "--lastuid" | "--conf" => return None,
            _ if option.starts_with('-') => {}
            // An unquoted variable that holds options, as `$quiet` does.
            _ if option.starts_with('$') => {}
            _ => names.push(word.clone()),
        }
    }
    let is_plain = |text: &str| shell::is_literal(text) && !text.contains([':', '\n']);
    let all = [Some(&home), Some(&login), group.as_ref(), gecos.as_ref()];
    if !all
        .into_iter()
        .flatten()
        .chain(&names)
        .all(|text| is_plain(text))
    {
        return None;
    }
    match names.as_slice() {
        [name] if is_group => Some(Request::Group(name.clone())),
        [name] if is_system && own_group && !is_group => Some(Request::User(User {
            group: group.or_else(|| Some(name.clone())),
            name: name.clone(),
            gecos,
            home,
            login,
        })),
        [name] if is_system && !is_group => Some(Request::User(User {
            name: name.clone(),
            group,
            gecos,
            home,
            login,
        })),
        [user, group] if !is_group && !is_system => Some(Request::Member {
            user: user.clone(),
            group: group.clone(),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(script: &str) -> (Vec<String>, Vec<String>) {
        let mut accounts = Accounts {
            users: Vec::new(),
            groups: Vec::new(),
        };
        for request in requests(script) {
            accounts.request(&request);
        }
        (accounts.users, accounts.groups)
    }

    #[test]
    fn what_a_script_says_plainly_is_done() {
        let (users, groups) = made(
            "addgroup --quiet --system --force-badname ssl-cert
             adduser --system $quiet --home /var/lib/postgresql --no-create-home \\
                --shell /bin/bash --group --gecos \"PostgreSQL administrator\" postgres
             adduser $quiet postgres ssl-cert
             adduser --system plain",
        );
        assert_eq!(
            users,
            [
                "postgres:x:101:101:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash",
                "plain:x:102:65534::/nonexistent:/usr/sbin/nologin",
            ]
        );
        assert_eq!(groups, ["ssl-cert:x:100:postgres", "postgres:x:101:"]);
    }

    #[test]
    fn what_a_script_works_out_is_not_guessed() {
        let (users, groups) =
            made("adduser --system --uid 7 a\nadduser --system --home \"$HOME\" b\nuseradd c");
        assert_eq!((users, groups), (vec![], vec![]));
    }
}
