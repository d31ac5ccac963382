//! Who a process is: its user, its groups, its root directory.
//!
//! - Owns: looking accounts up, and the order in which privileges are given up.
//! - Leaves to others: which account is meant, and what the failure means for the mail.
//! - Always true: the user changes last, since nobody but root may do the rest.

use std::ffi::CString;
use std::io;
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User};

/// A user and a group to become.
#[derive(Clone, Debug)]
pub struct Identity {
    uid: Uid,
    gid: Gid,
    /// Whose supplementary groups belong to it; `None` where they stay as they are.
    user: Option<CString>,
}

/// A step on the way to another identity that the system refused.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {error}")]
pub struct Refused {
    /// The step, as the beginning of a sentence.
    pub what: String,
    /// What the system said.
    pub error: io::Error,
}

impl Identity {
    /// What the process is now.
    pub fn present() -> Self {
        Self { uid: Uid::effective(), gid: Gid::effective(), user: None }
    }

    /// A user with their primary group. The error says why there is none, as the end of a sentence.
    pub fn of_user(name: &str) -> Result<Self, String> {
        Self::found(User::from_name(name))
    }

    /// The same for a user's number.
    pub fn of_uid(uid: rustix::fs::Uid) -> Result<Self, String> {
        Self::found(User::from_uid(Uid::from_raw(uid.as_raw())))
    }

    fn found(user: nix::Result<Option<User>>) -> Result<Self, String> {
        let user = user.map_err(not_looked_up)?.ok_or("there is no such user")?;
        let name = CString::new(user.name).map_err(|_| "its name holds a NUL")?;
        Ok(Self { uid: user.uid, gid: user.gid, user: Some(name) })
    }

    /// The same user with another group.
    pub fn with_group(mut self, name: &str) -> Result<Self, String> {
        let group = Group::from_name(name).map_err(not_looked_up)?.ok_or("there is no such group")?;
        self.gid = group.gid;
        Ok(self)
    }

    /// The user.
    pub fn uid(&self) -> rustix::fs::Uid {
        rustix::fs::Uid::from_raw(self.uid.as_raw())
    }

    /// The group.
    pub fn gid(&self) -> rustix::fs::Gid {
        rustix::fs::Gid::from_raw(self.gid.as_raw())
    }

    /// Becomes it, for good, and changes the root directory where one is given. Groups come first, since their list is
    /// outside of the new root. Who is not root stays who they are.
    pub fn take_on(&self, root: Option<&Path>) -> Result<(), Refused> {
        let is_root = Uid::effective().is_root();
        if is_root {
            nix::unistd::setgid(self.gid).map_err(refused("the group cannot be taken on"))?;
        }
        if let Some(name) = self.user.as_ref().filter(|_| is_root && !self.uid.is_root()) {
            nix::unistd::initgroups(name, self.gid)
                .map_err(refused("the groups of user cannot be taken on"))?;
        }
        if let Some(root) = root {
            change_root(root)?;
        }
        if is_root {
            nix::unistd::setuid(self.uid).map_err(refused("the user cannot be taken on"))?;
        }
        Ok(())
    }
}

fn change_root(root: &Path) -> Result<(), Refused> {
    nix::unistd::chroot(root).map_err(refused(format!("chroot to {} is not possible", root.display())))?;
    nix::unistd::chdir(Path::new("/")).map_err(refused("the new root directory cannot be entered"))
}

fn not_looked_up(error: nix::Error) -> String {
    format!("it cannot be looked up ({})", error.desc())
}

fn refused(what: impl Into<String>) -> impl FnOnce(nix::Error) -> Refused {
    let what = what.into();
    move |error| Refused { what, error: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_name_and_by_number_and_may_get_another_group() {
        let root = Identity::of_user("root").unwrap();
        assert_eq!((root.uid().as_raw(), root.gid().as_raw()), (0, 0));
        let same = Identity::of_uid(rustix::fs::Uid::ROOT).unwrap();
        assert_eq!((same.uid, same.gid, same.user), (root.uid, root.gid, root.user.clone()));
        let other = root.with_group("daemon").unwrap();
        assert_ne!(other.gid().as_raw(), 0);
        assert_eq!(other.uid().as_raw(), 0);
    }

    #[test]
    fn who_is_not_there_is_told_in_words() {
        assert_eq!(Identity::of_user("no such user").unwrap_err(), "there is no such user");
        assert_eq!(Identity::of_uid(rustix::fs::Uid::from_raw(54321)).unwrap_err(), "there is no such user");
        let error = Identity::present().with_group("no such group").unwrap_err();
        assert_eq!(error, "there is no such group");
    }
}
