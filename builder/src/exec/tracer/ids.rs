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

    fn is_root(self) -> bool {
        self.real == 0 || self.effective == 0 || self.saved == 0
    }

    /// setfsuid(2): gives the id there was.
    pub(super) fn set_file(&mut self, id: u32, privileged: bool) -> u32 {
        let old = self.file;
        if id < COUNT && (privileged || id == self.file || self.has(id)) {
            self.file = id;
        }
        old
    }

    /// A program starts: whose its files are goes with the effective id, and so does what it can come back to.
    const fn start(&mut self) {
        self.saved = self.effective;
        self.file = self.effective;
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

/// Capabilities by their numbers (capabilities(7)), as far as they are about users, owners and files.
pub(super) mod capability {
    pub(in super::super) const CHOWN: u32 = 1;
    pub(in super::super) const DAC_OVERRIDE: u32 = 1 << 1;
    pub(in super::super) const DAC_READ_SEARCH: u32 = 1 << 2;
    pub(in super::super) const FOWNER: u32 = 1 << 3;
    pub(in super::super) const FSETID: u32 = 1 << 4;
    pub(super) const SETGID: u32 = 1 << 6;
    pub(super) const SETUID: u32 = 1 << 7;
    pub(super) const SETPCAP: u32 = 1 << 8;
    const LINUX_IMMUTABLE: u32 = 1 << 9;
    pub(in super::super) const NET_BIND_SERVICE: u32 = 1 << 10;
    pub(in super::super) const SYS_CHROOT: u32 = 1 << 18;
    pub(super) const MKNOD: u32 = 1 << 27;
    pub(in super::super) const SETFCAP: u32 = 1 << 31;

    /// Those that come and go with the user of files, setfsuid(2).
    pub(super) const OF_FILES: u32 =
        CHOWN | DAC_OVERRIDE | DAC_READ_SEARCH | FOWNER | FSETID | LINUX_IMMUTABLE | MKNOD;
    /// Whoever has these is refused nothing that is asked for here.
    pub(super) const ALL: u32 = CHOWN | DAC_OVERRIDE | FOWNER | FSETID | SYS_CHROOT | SETFCAP;
    /// Those that the kernel is not to take away: it knows one user only, and what is missing is refused here.
    pub(in super::super) const KEPT: u32 = ALL | SETGID | SETUID | SETPCAP;
}

/// What a thread may do besides what its ids say, in sets of capabilities: the low halves, a step has no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capabilities {
    pub(super) effective: u32,
    pub(super) permitted: u32,
    pub(super) inheritable: u32,
    pub(super) bounding: u32,
    ambient: u32,
    /// They stay when the user changes (`PR_SET_KEEPCAPS`).
    pub(super) are_kept: bool,
}

impl Capabilities {
    /// Root's, of these.
    pub(super) const fn all(bounding: u32) -> Self {
        Self {
            effective: bounding,
            permitted: bounding,
            inheritable: 0,
            bounding,
            ambient: 0,
            are_kept: false,
        }
    }

    const fn has(self, capability: u32) -> bool {
        self.effective & capability == capability
    }

    /// capset(2)
    pub(super) fn set(
        &mut self,
        effective: u32,
        permitted: u32,
        inheritable: u32,
    ) -> Result<(), i32> {
        let within = |set: u32, of: u32| set & !of == 0;
        let may_inherit = within(inheritable, self.inheritable | self.bounding)
            && (self.has(capability::SETPCAP)
                || within(inheritable, self.inheritable | self.permitted));
        if !may_inherit || !within(permitted, self.permitted) || !within(effective, permitted) {
            return Err(libc::EPERM);
        }
        (self.effective, self.permitted) = (effective, permitted);
        self.inheritable = inheritable;
        self.ambient &= permitted & inheritable;
        Ok(())
    }

    /// `PR_CAPBSET_DROP`
    pub(super) fn bound(&mut self, capability: u64) -> Result<(), i32> {
        if !self.has(capability::SETPCAP) {
            return Err(libc::EPERM);
        }
        self.bounding &= !bit(capability)?;
        Ok(())
    }

    /// `PR_CAPBSET_READ`
    pub(super) fn is_bounding(&self, capability: u64) -> Result<i64, i32> {
        Ok((self.bounding & bit(capability)? != 0).into())
    }

    /// `PR_CAP_AMBIENT`
    pub(super) fn change_ambient(&mut self, command: u64, capability: u64) -> Result<i64, i32> {
        const IS_SET: u64 = 1;
        const RAISE: u64 = 2;
        const LOWER: u64 = 3;
        const CLEAR_ALL: u64 = 4;
        if command == CLEAR_ALL {
            self.ambient = 0;
            return Ok(0);
        }
        let bit = bit(capability)?;
        match command {
            IS_SET => return Ok((self.ambient & bit != 0).into()),
            RAISE if self.permitted & self.inheritable & bit != bit || bit == 0 => {
                return Err(libc::EPERM);
            }
            RAISE => self.ambient |= bit,
            LOWER => self.ambient &= !bit,
            _ => return Err(libc::EINVAL),
        }
        Ok(0)
    }
}

/// The bit of a capability; those that no step has are in no set.
fn bit(capability: u64) -> Result<u32, i32> {
    /// `CAP_CHECKPOINT_RESTORE`.
    const LAST: u64 = 40;
    match capability {
        0..32 => Ok(1 << capability),
        32..=LAST => Ok(0),
        _ => Err(libc::EINVAL),
    }
}

/// Who a thread is told that it is. Root, until it becomes somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) user: Set,
    pub(super) group: Set,
    /// Sorted, as the kernel keeps them.
    pub(super) groups: Vec<u32>,
    pub(super) capabilities: Capabilities,
}

impl Default for Ids {
    fn default() -> Self {
        Self::of(crate::hostfs::owner::ROOT, u32::MAX)
    }
}

/// What somebody may do with files: [`Ids`] as one call uses them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rights {
    pub(super) user: u32,
    pub(super) group: u32,
    pub(super) groups: Vec<u32>,
    pub(super) capabilities: u32,
}

impl Ids {
    /// This user as it starts, where root has these capabilities.
    pub(super) fn of((uid, gid): Owner, bounding: u32) -> Self {
        let mut ids = Self {
            user: Set::all(uid),
            group: Set::all(gid),
            groups: Vec::new(),
            capabilities: Capabilities::all(bounding),
        };
        ids.execute(0, crate::hostfs::owner::ROOT);
        ids
    }

    /// May it become any user?
    pub(super) const fn may_set_user(&self) -> bool {
        self.capabilities.has(capability::SETUID)
    }

    /// May it become any group?
    pub(super) const fn may_set_group(&self) -> bool {
        self.capabilities.has(capability::SETGID)
    }

    /// Is it refused nothing, whatever it does with files?
    pub(super) const fn may_do_all(&self) -> bool {
        self.capabilities.has(capability::ALL) && self.user.real == 0
    }

    /// With which it does something with files; `real`: access(2) is as if it were who it really is.
    pub(super) fn rights(&self, real: bool) -> Rights {
        let (user, group) = if real {
            (self.user.real, self.group.real)
        } else {
            self.owner()
        };
        let capabilities = match (real, self.user.real) {
            (false, _) => self.capabilities.effective,
            (true, 0) => self.capabilities.permitted,
            (true, _) => 0,
        };
        Rights {
            user,
            group,
            groups: self.groups.clone(),
            capabilities,
        }
    }

    /// Changes the user; capabilities go, or come, with it.
    pub(super) fn change_user(
        &mut self,
        change: impl FnOnce(&mut Set, bool) -> Result<(), i32>,
    ) -> Result<(), i32> {
        let (old, privileged) = (self.user, self.may_set_user());
        change(&mut self.user, privileged)?;
        let new = self.user;
        let capabilities = &mut self.capabilities;
        if old.is_root() && !new.is_root() {
            if !capabilities.are_kept {
                (capabilities.permitted, capabilities.effective) = (0, 0);
            }
            capabilities.ambient = 0;
        }
        match (old.effective, new.effective) {
            (0, 1..) => capabilities.effective = 0,
            (1.., 0) => capabilities.effective = capabilities.permitted,
            _ => {}
        }
        Ok(())
    }

    /// setfsuid(2): gives the id there was.
    pub(super) fn set_file_user(&mut self, id: u32) -> u32 {
        let old = self.user.set_file(id, self.may_set_user());
        let capabilities = &mut self.capabilities;
        match (old, self.user.file) {
            (0, 1..) => capabilities.effective &= !capability::OF_FILES,
            (1.., 0) => {
                capabilities.effective |= capabilities.permitted & capability::OF_FILES;
            }
            _ => {}
        }
        old
    }

    /// Whose the files are that it makes.
    pub(super) const fn owner(&self) -> Owner {
        (self.user.file, self.group.file)
    }

    /// May it give a file of `old` to this user and this group (chown(2)), either of which may be [`NONE`]?
    pub(super) fn may_give(&self, old: Owner, (uid, gid): Owner) -> bool {
        let rights = self.rights(false);
        let owns = old.0 == rights.user;
        let user = uid == NONE || owns && uid == old.0;
        let group = gid == NONE || owns && (gid == old.1 || rights.is_in(gid));
        rights.has(capability::CHOWN) || user && group
    }

    /// What a program does that has these set-id bits, and this owner.
    pub(super) fn execute(&mut self, mode: u32, owner: Owner) {
        if mode & libc::S_ISUID != 0 {
            self.user.become_effective(owner.0);
        }
        if mode & libc::S_ISGID != 0 && mode & libc::S_IXGRP != 0 {
            self.group.become_effective(owner.1);
        }
        let is_set_id = self.is_set_id();
        let capabilities = &mut self.capabilities;
        if is_set_id {
            capabilities.ambient = 0;
        }
        let is_root = self.user.effective == 0 || self.user.real == 0;
        capabilities.permitted = capabilities.ambient;
        if is_root {
            capabilities.permitted |= capabilities.bounding | capabilities.inheritable;
        }
        capabilities.effective = if self.user.effective == 0 {
            capabilities.permitted
        } else {
            capabilities.ambient
        };
        capabilities.are_kept = false;
        self.user.start();
        self.group.start();
    }

    pub(super) fn is_set_id(&self) -> bool {
        self.user.real != self.user.effective || self.group.real != self.group.effective
    }
}

impl Rights {
    pub(super) fn is_in(&self, group: u32) -> bool {
        group == self.group || self.groups.binary_search(&group).is_ok()
    }

    pub(super) const fn has(&self, capability: u32) -> bool {
        self.capabilities & capability == capability
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
            ..Ids::of((5, 6), u32::MAX)
        };
        assert!(ids.may_give((5, 6), (5, 6)) && ids.may_give((5, 6), (5, 9)));
        assert!(!ids.may_give((5, 6), (8, 6)) && !ids.may_give((5, 6), (5, 8)));
        assert!(!ids.may_give((0, 0), (5, 6)) && !ids.may_give((0, 0), (0, NONE)));
        assert!(ids.may_give((0, 0), (NONE, NONE)));
        assert!(Ids::default().may_give((5, 6), (8, 8)));
    }

    #[test]
    fn capabilities_go_with_the_user_unless_they_are_kept() {
        let become_five = |ids: &mut Ids| ids.change_user(|user, may| user.set(5, may));
        let sets = |ids: &Ids| (ids.capabilities.effective, ids.capabilities.permitted);
        let mut ids = Ids::of((0, 0), 0xff);
        assert_eq!(become_five(&mut ids), Ok(()));
        assert_eq!(sets(&ids), (0, 0));
        assert!(!ids.may_set_user());
        assert_eq!(ids.capabilities.set(1, 1, 0), Err(libc::EPERM));

        let mut ids = Ids::of((0, 0), 0xff);
        ids.capabilities.are_kept = true;
        assert_eq!(become_five(&mut ids), Ok(()));
        assert_eq!(sets(&ids), (0, 0xff));
        assert_eq!(ids.capabilities.set(1 << 6, 1 << 6, 0), Ok(()));
        assert!(ids.may_set_group() && !ids.may_set_user());
        ids.execute(0o755, (0, 0));
        assert_eq!(sets(&ids), (0, 0));

        // Only for a while, and back.
        let mut ids = Ids::of((0, 0), 0xff);
        let change =
            |ids: &mut Ids, to| ids.change_user(|user, may| user.set_three([NONE, to, NONE], may));
        assert_eq!(change(&mut ids, 5), Ok(()));
        assert_eq!(sets(&ids), (0, 0xff));
        assert_eq!(change(&mut ids, 0), Ok(()));
        assert_eq!(sets(&ids), (0xff, 0xff));
        assert!(!ids.may_do_all(), "its root has not got all");
    }

    #[test]
    fn the_user_of_files_takes_the_capabilities_of_files_along() {
        let mut ids = Ids::default();
        assert!(ids.may_do_all());
        assert_eq!(ids.set_file_user(5), 0);
        assert!(!ids.may_do_all() && ids.may_set_user());
        assert_eq!(ids.rights(false).user, 5);
        assert_eq!(ids.rights(true).user, 0);
        assert!(ids.rights(true).has(capability::DAC_OVERRIDE));
        assert_eq!(ids.set_file_user(0), 5);
        assert!(ids.may_do_all());
    }

    #[test]
    fn what_is_not_bounding_comes_back_with_no_program() {
        let mut ids = Ids::default();
        assert_eq!(ids.capabilities.bound(1), Ok(()));
        assert_eq!(ids.capabilities.is_bounding(1), Ok(0));
        assert!(ids.rights(false).has(capability::DAC_OVERRIDE));
        ids.execute(0o755, (0, 0));
        assert!(!ids.rights(false).has(capability::DAC_OVERRIDE));
        assert_eq!(ids.capabilities.is_bounding(64), Err(libc::EINVAL));
    }

    #[test]
    fn ambient_capabilities_go_into_programs_that_have_no_others() {
        let mut ids = Ids::of((0, 0), 0xff);
        let raise = |ids: &mut Ids| ids.capabilities.change_ambient(2, 1);
        assert_eq!(raise(&mut ids), Err(libc::EPERM));
        assert_eq!(ids.capabilities.set(0xff, 0xff, 2), Ok(()));
        ids.capabilities.are_kept = true;
        assert_eq!(ids.change_user(|user, may| user.set(5, may)), Ok(()));
        assert_eq!(raise(&mut ids), Ok(0));
        ids.execute(0o755, (0, 0));
        assert_eq!(ids.rights(false).capabilities, 2);
        ids.execute(0o4755, (7, 0));
        assert_eq!(ids.rights(false).capabilities, 0);
    }

    #[test]
    fn a_set_id_program_has_its_owners_rights() {
        let mut ids = Ids::of((5, 6), u32::MAX);
        ids.execute(0o755, (0, 0));
        assert_eq!(ids, Ids::of((5, 6), u32::MAX));
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
        assert!(ids.is_set_id() && ids.may_set_user() && !ids.may_do_all());
    }
}
