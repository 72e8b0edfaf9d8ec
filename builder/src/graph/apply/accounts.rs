//! The account files `/etc/passwd` and `/etc/group` as text: looked into, and added to.
//!
//! Lines are as passwd(5) and group(5) say: fields parted by colons. A line that is none is kept and not looked into. Must
//! never know trees.

/// The path of the users' file below a root.
pub(super) const PASSWD: &str = "etc/passwd";
/// The path of the groups' file below a root.
pub(super) const GROUP: &str = "etc/group";

/// A user to be added.
#[derive(Clone, Copy, Debug)]
pub struct NewUser<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its number.
    pub uid: u32,
    /// The number of its own group.
    pub gid: u32,
    /// An absolute path.
    pub home: &'a str,
    /// Its login program.
    pub login: &'a str,
    /// Names of further groups.
    pub groups: &'a [String],
}

/// Why accounts cannot be added or found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// `/etc/passwd` has no such user.
    #[error("there is no user `{0}` in `/etc/passwd`")]
    NoUser(String),
    /// `/etc/group` has no such group.
    #[error("there is no group `{0}` in `/etc/group`")]
    NoGroup(String),
    /// There is one of this name.
    #[error("there is a user `{0}` already")]
    User(String),
    /// Another has this number.
    #[error("user `{other}` has the number {uid} already")]
    Uid {
        /// The number.
        uid: u32,
        /// Whose it is.
        other: String,
    },
    /// The own group of the user has another number already.
    #[error("group `{group}` has the number {found}, not {gid}")]
    Gid {
        /// The group, named as the user.
        group: String,
        /// The number it has.
        found: u32,
        /// The number it should have.
        gid: u32,
    },
    /// A colon, a comma or a line end would make another line of it.
    #[error("`{0}` cannot be a field of an account line")]
    Field(String),
}

/// The numbers of a user and of its own group.
pub(super) fn find_user(passwd: &[u8], name: &str) -> Result<(u32, u32), AccountError> {
    users(passwd)
        .find(|user| user.name == name.as_bytes())
        .map(|user| (user.uid, user.gid))
        .ok_or_else(|| AccountError::NoUser(name.to_owned()))
}

/// The number of a group.
pub(super) fn find_group(group: &[u8], name: &str) -> Result<u32, AccountError> {
    groups(group)
        .find(|(found, _)| *found == name.as_bytes())
        .map(|(_, gid)| gid)
        .ok_or_else(|| AccountError::NoGroup(name.to_owned()))
}

/// Both files with the user in them. Its own group gets a line, unless a group has that number; it gets no password, and
/// `/etc/shadow` no line, so that nobody can log in by one.
pub(super) fn add_user(
    passwd: &[u8],
    group: &[u8],
    user: &NewUser<'_>,
) -> Result<(Vec<u8>, Vec<u8>), AccountError> {
    let NewUser {
        name,
        uid,
        gid,
        home,
        login,
        groups: further,
    } = user;
    let texts = [*name, *home, *login].into_iter();
    for text in texts.chain(further.iter().map(String::as_str)) {
        if text.contains([':', ',', '\n', '\0']) {
            return Err(AccountError::Field(text.to_owned()));
        }
    }
    for found in users(passwd) {
        if found.name == name.as_bytes() {
            return Err(AccountError::User((*name).to_owned()));
        }
        if found.uid == *uid {
            let other = String::from_utf8_lossy(found.name).into_owned();
            return Err(AccountError::Uid { uid: *uid, other });
        }
    }
    let line = format!("{name}:x:{uid}:{gid}::{home}:{login}");
    let passwd = with_line(passwd, &line);

    let mut group = match find_group(group, name) {
        Ok(found) if found != *gid => {
            return Err(AccountError::Gid {
                group: (*name).to_owned(),
                found,
                gid: *gid,
            });
        }
        Ok(_) => group.to_vec(),
        Err(_) if groups(group).any(|(_, found)| found == *gid) => group.to_vec(),
        Err(_) => with_line(group, &format!("{name}:x:{gid}:")),
    };
    for further in *further {
        find_group(&group, further)?;
        group = with_member(&group, further, name);
    }
    Ok((passwd, group))
}

struct User<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
}

fn users(passwd: &[u8]) -> impl Iterator<Item = User<'_>> {
    lines(passwd).filter_map(|line| match *fields(line) {
        [name, _, uid, gid, ..] => Some(User {
            name,
            uid: number(uid)?,
            gid: number(gid)?,
        }),
        _ => None,
    })
}

fn groups(group: &[u8]) -> impl Iterator<Item = (&[u8], u32)> {
    lines(group).filter_map(|line| match *fields(line) {
        [name, _, gid, ..] => Some((name, number(gid)?)),
        _ => None,
    })
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n')
}

fn fields(line: &[u8]) -> Vec<&[u8]> {
    line.split(|byte| *byte == b':').collect()
}

fn number(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn with_line(text: &[u8], line: &str) -> Vec<u8> {
    let mut out = text.to_vec();
    if !out.is_empty() && !out.ends_with(b"\n") {
        out.push(b'\n');
    }
    out.extend_from_slice(line.as_bytes());
    out.push(b'\n');
    out
}

/// The group file with `member` in `name`, once.
fn with_member(group: &[u8], name: &str, member: &str) -> Vec<u8> {
    let mut is_done = false;
    let lines: Vec<Vec<u8>> = lines(group)
        .map(|line| {
            let fields = fields(line);
            let mut line = line.to_vec();
            if let [found, _, gid, members, ..] = *fields
                && found == name.as_bytes()
                && number(gid).is_some()
                && !is_done
            {
                is_done = true;
                let mut members = members.split(|byte| *byte == b',');
                if !members.any(|found| found == member.as_bytes()) {
                    if !line.ends_with(b":") {
                        line.push(b',');
                    }
                    line.extend_from_slice(member.as_bytes());
                }
            }
            line
        })
        .collect();
    lines.join(&b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n+nis line\nwww:x:33:33::/:/no";
    const GROUPS: &[u8] = b"root:x:0:\nwww:x:33:\nadm:x:4:syslog\nvideo:x:44:\nshort:x:50\n";

    fn shop() -> NewUser<'static> {
        NewUser {
            name: "shop",
            uid: 10001,
            gid: 10001,
            home: "/nonexistent",
            login: "/usr/sbin/nologin",
            groups: &[],
        }
    }

    fn added(user: &NewUser<'_>) -> Result<(String, String), AccountError> {
        let text = |bytes| String::from_utf8(bytes).expect("text");
        add_user(USERS, GROUPS, user).map(|(passwd, group)| (text(passwd), text(group)))
    }

    #[test]
    fn a_user_is_added_at_the_end_and_to_its_groups() {
        let groups = ["adm", "video", "video"].map(str::to_owned);
        let user = NewUser {
            groups: &groups,
            ..shop()
        };
        let (passwd, group) = added(&user).expect("a new user");
        assert_eq!(
            passwd,
            "root:x:0:0:root:/root:/bin/sh\n+nis line\nwww:x:33:33::/:/no\n\
             shop:x:10001:10001::/nonexistent:/usr/sbin/nologin\n"
        );
        assert_eq!(
            group,
            "root:x:0:\nwww:x:33:\nadm:x:4:syslog,shop\nvideo:x:44:shop\nshort:x:50\nshop:x:10001:\n"
        );
    }

    #[test]
    fn files_that_are_empty_get_their_first_line() {
        let (passwd, group) = add_user(b"", b"", &shop()).expect("a new user");
        assert_eq!(
            passwd,
            b"shop:x:10001:10001::/nonexistent:/usr/sbin/nologin\n"
        );
        assert_eq!(group, b"shop:x:10001:\n");
    }

    #[test]
    fn a_group_that_has_the_number_is_the_own_group() {
        let (_, group) = added(&NewUser { gid: 33, ..shop() }).expect("a new user");
        assert_eq!(group.as_bytes(), GROUPS);
    }

    #[test]
    fn what_is_taken_or_missing_is_named() {
        let none = ["none".to_owned()];
        for (user, expected) in [
            (
                NewUser {
                    name: "www",
                    ..shop()
                },
                AccountError::User("www".into()),
            ),
            (
                NewUser { uid: 33, ..shop() },
                AccountError::Uid {
                    uid: 33,
                    other: "www".into(),
                },
            ),
            (
                NewUser {
                    name: "adm",
                    ..shop()
                },
                AccountError::Gid {
                    group: "adm".into(),
                    found: 4,
                    gid: 10001,
                },
            ),
            (
                NewUser {
                    groups: &none,
                    ..shop()
                },
                AccountError::NoGroup("none".into()),
            ),
            (
                NewUser {
                    login: "/bin/sh\nroot::0:0::/:",
                    ..shop()
                },
                AccountError::Field("/bin/sh\nroot::0:0::/:".into()),
            ),
        ] {
            assert_eq!(added(&user), Err(expected));
        }
    }

    #[test]
    fn names_are_found() {
        assert_eq!(find_user(USERS, "www"), Ok((33, 33)));
        assert_eq!(
            find_user(USERS, "ww"),
            Err(AccountError::NoUser("ww".into()))
        );
        assert_eq!(find_group(GROUPS, "short"), Ok(50));
        assert_eq!(
            find_group(GROUPS, "x"),
            Err(AccountError::NoGroup("x".into()))
        );
    }
}
