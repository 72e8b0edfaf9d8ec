//! Who a thread is told that it is: ids of users and groups, and the rules by which they change.
//!
//! Pure: the machine has one id only, and these are kept here.

use crate::hostfs::owner::Owner;

/// Ids from here on do not exist, as in a user namespace with a range.
pub(super) const COUNT: u32 = 65536;
/// "No change", or "no id".
pub(super) const NONE: u32 = u32::MAX;

/// The ids of one kind, user or group, that a thread has (credentials(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) real: u32,
    pub(super) effective: u32,
    pub(super) saved: u32,
    file: u32,
}

impl Set {
    const fn all(id: u32) -> Self {
        Self {
            real: id,
            effective: id,
            saved: id,
            file: id,
        }
    }

    const fn has(self, id: u32) -> bool {
        id == self.real || id == self.effective || id == self.saved
    }

    /// setuid(2)
    pub(super) fn set(&mut self, id: u32, privileged: bool) -> Result<(), i32> {
        if id >= COUNT {
            return Err(libc::EINVAL);
        }
        if privileged {
            *self = Self::all(id);
        } else if id == self.real || id == self.saved {
            self.become_effective(id);
        } else {
            return Err(libc::EPERM);
        }
        Ok(())
    }

    /// setreuid(2)
    pub(super) fn set_two(
        &mut self,
        real: u32,
        effective: u32,
        privileged: bool,
    ) -> Result<(), i32> {
        check(&[real, effective])?;
        let old = *self;
        let may_be_real = real == NONE || real == old.real || real == old.effective;
        let may_be_effective = effective == NONE || old.has(effective);
        if !(privileged || may_be_real && may_be_effective) {
            return Err(libc::EPERM);
        }
        if real != NONE {
            self.real = real;
        }
        let effective = or(effective, old.effective);
        self.become_effective(effective);
        if real != NONE || effective != old.effective && effective != old.real {
            self.saved = effective;
        }
        Ok(())
    }

    /// setresuid(2)
    pub(super) fn set_three(&mut self, ids: [u32; 3], privileged: bool) -> Result<(), i32> {
        check(&ids)?;
        if !privileged && ids.iter().any(|id| *id != NONE && !self.has(*id)) {
            return Err(libc::EPERM);
        }
        self.real = or(ids[0], self.real);
        self.saved = or(ids[2], self.saved);
        self.become_effective(or(ids[1], self.effective));
        Ok(())
    }

    /// setfsuid(2): gives the id there was.
    pub(super) fn set_file(&mut self, id: u32, privileged: bool) -> u32 {
        let old = self.file;
        if id < COUNT && (privileged || id == self.file || self.has(id)) {
            self.file = id;
        }
        old
    }

    const fn become_effective(&mut self, id: u32) {
        self.effective = id;
        self.file = id;
    }
}

pub(super) const fn or(id: u32, old: u32) -> u32 {
    if id == NONE { old } else { id }
}

pub(super) fn check(ids: &[u32]) -> Result<(), i32> {
    if ids.iter().all(|id| *id < COUNT || *id == NONE) {
        Ok(())
    } else {
        Err(libc::EINVAL)
    }
}

/// Who a thread is told that it is. Root, until it becomes somebody else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) user: Set,
    pub(super) group: Set,
    /// Sorted, as the kernel keeps them.
    pub(super) groups: Vec<u32>,
    /// Whether it took or dropped the capabilities to become others; none: they go with the effective user.
    capable: Option<bool>,
}

impl Ids {
    pub(super) const fn of((uid, gid): Owner) -> Self {
        Self {
            user: Set::all(uid),
            group: Set::all(gid),
            groups: Vec::new(),
            capable: None,
        }
    }

    /// May it become anybody?
    pub(super) const fn is_privileged(&self) -> bool {
        match self.capable {
            Some(capable) => capable,
            None => self.user.effective == 0,
        }
    }

    /// capset(2): with the low half of the effective set. Who has kept capabilities across a change of user (prctl(2),
    /// `PR_SET_KEEPCAPS`) takes them into use like this.
    pub(super) fn set_capabilities(&mut self, effective: u32) {
        const SETGID: u32 = 1 << 6;
        const SETUID: u32 = 1 << 7;
        self.capable = Some(effective & (SETGID | SETUID) != 0);
    }

    /// Changes the user; capabilities go, or come, with it.
    pub(super) fn change_user(
        &mut self,
        change: impl FnOnce(&mut Set, bool) -> Result<(), i32>,
    ) -> Result<(), i32> {
        let (old, privileged) = (self.user, self.is_privileged());
        change(&mut self.user, privileged)?;
        if (old.effective == 0) != (self.user.effective == 0) {
            self.capable = None;
        }
        Ok(())
    }

    /// Whose the files are that it makes.
    pub(super) const fn owner(&self) -> Owner {
        (self.user.file, self.group.file)
    }

    /// May it give a file of `old` to `new` (chown(2))?
    pub(super) fn may_give(&self, old: Owner, new: Owner) -> bool {
        let (uid, gid) = self.owner();
        let is_in = |group| group == gid || self.groups.binary_search(&group).is_ok();
        uid == 0 || old.0 == uid && new.0 == uid && (new.1 == old.1 || is_in(new.1))
    }

    /// What a program does that has these set-id bits, and this owner.
    pub(super) fn execute(&mut self, mode: u32, owner: Owner) {
        if mode & libc::S_ISUID != 0 {
            self.user.become_effective(owner.0);
        }
        if mode & libc::S_ISGID != 0 && mode & libc::S_IXGRP != 0 {
            self.group.become_effective(owner.1);
        }
        self.capable = None;
        self.user.saved = self.user.effective;
        self.group.saved = self.group.effective;
    }

    pub(super) fn is_set_id(&self) -> bool {
        self.user.real != self.user.effective || self.group.real != self.group.effective
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_becomes_anybody_and_nobody_becomes_root() {
        let mut set = Set::default();
        assert_eq!(set.set(5, true), Ok(()));
        assert_eq!(set, Set::all(5));
        assert_eq!(set.set(0, false), Err(libc::EPERM));
        assert_eq!(set.set_two(0, NONE, false), Err(libc::EPERM));
        assert_eq!(set.set_three([0, NONE, NONE], false), Err(libc::EPERM));
        assert_eq!(set, Set::all(5));
    }

    #[test]
    fn who_keeps_the_saved_id_can_come_back() {
        let mut set = Set::default();
        assert_eq!(set.set_three([5, 5, NONE], true), Ok(()));
        assert_eq!((set.real, set.effective, set.saved, set.file), (5, 5, 0, 5));
        assert_eq!(set.set(0, false), Ok(()));
        assert_eq!((set.real, set.effective, set.saved), (5, 0, 0));
        let mut swapped = Set {
            effective: 7,
            file: 7,
            saved: 7,
            ..Set::all(5)
        };
        assert_eq!(swapped.set_two(7, 5, false), Ok(()));
        assert_eq!((swapped.real, swapped.effective, swapped.saved), (7, 5, 5));
    }

    #[test]
    fn ids_outside_the_range_do_not_exist() {
        let mut set = Set::default();
        assert_eq!(set.set(COUNT, true), Err(libc::EINVAL));
        assert_eq!(set.set(NONE, true), Err(libc::EINVAL));
        assert_eq!(set.set_three([NONE, COUNT, NONE], true), Err(libc::EINVAL));
        assert_eq!(set.set_file(COUNT, true), 0);
        assert_eq!(set, Set::default());
    }

    #[test]
    fn an_ordinary_user_gives_nothing_away() {
        let ids = Ids {
            groups: vec![7, 9],
            ..Ids::of((5, 6))
        };
        assert!(ids.may_give((5, 6), (5, 6)) && ids.may_give((5, 6), (5, 9)));
        assert!(!ids.may_give((5, 6), (8, 6)) && !ids.may_give((5, 6), (5, 8)));
        assert!(!ids.may_give((0, 0), (5, 6)));
        assert!(Ids::default().may_give((5, 6), (8, 8)));
    }

    #[test]
    fn kept_capabilities_are_taken_into_use_until_the_next_program() {
        let mut ids = Ids::default();
        assert_eq!(
            ids.change_user(|user, privileged| user.set(5, privileged)),
            Ok(())
        );
        assert!(!ids.is_privileged());
        ids.set_capabilities(1 << 6);
        assert!(ids.is_privileged());
        ids.execute(0o755, (0, 0));
        assert!(!ids.is_privileged());
    }

    #[test]
    fn a_set_id_program_has_its_owners_rights() {
        let mut ids = Ids::of((5, 6));
        ids.execute(0o755, (0, 0));
        assert_eq!(ids, Ids::of((5, 6)));
        ids.execute(0o2745, (0, 0));
        assert!(
            !ids.is_set_id(),
            "without the right of the group to execute"
        );
        ids.execute(0o6755, (0, 8));
        assert_eq!(
            (ids.user.real, ids.user.effective, ids.user.saved),
            (5, 0, 0)
        );
        assert_eq!((ids.group.real, ids.group.effective), (6, 8));
        assert!(ids.is_set_id() && ids.is_privileged());
    }
}
