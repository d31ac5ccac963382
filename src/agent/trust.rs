//! Whom `trusted_users` names: for the agent numbers, found out while the list of users can be read.
//!
//! - Owns: what a name means, for the agent, sendmail and `lastmile check` alike; what it meant when it was last looked up.
//! - Leaves to others: what trusted users may do (`pickup`, `control_server`), who is trusted without being named.
//! - Always true: a login name goes before a number, since some systems have login names made of digits; a user who is
//!   trusted does not lose that because the root directory has changed.

use std::collections::BTreeMap;

use nix::unistd::User;

use crate::config::Config;

/// The uid of a login name; of a number that is no login name, that number. `None`: nobody that this machine knows.
pub fn uid_of(user: &str) -> Option<u32> {
    match User::from_name(user) {
        Ok(Some(user)) => Some(user.uid.as_raw()),
        // Also where the user database cannot be asked: a number needs none.
        Ok(None) | Err(_) => user.parse().ok(),
    }
}

/// Whether one of the users is this one.
pub fn is_among(users: &[String], uid: u32) -> bool {
    users.iter().any(|user| uid_of(user) == Some(uid))
}

/// User names and what they stand for.
#[derive(Debug, Default)]
pub struct Names {
    known: BTreeMap<String, u32>,
    /// The list of users is outside of the root directory: what could be read instead may be about others.
    is_confined: bool,
}

impl Names {
    /// Puts numbers in the place of the names in `trusted_users`. A name that nobody knows stays: it is nobody's number.
    pub fn resolve(&mut self, config: &mut Config) {
        for user in &mut config.trusted_users {
            match self.uid_of(user) {
                Ok(uid) => *user = uid.to_string(),
                Err(reason) => log::warn!(
                    "trusted_users: {user:?} {reason}; until the configuration is read again this user's files may not \
                     choose a nexthop"
                ),
            }
        }
    }

    /// From now on the root directory is another one, or may be.
    pub fn confine(&mut self) {
        self.is_confined = true;
    }

    fn uid_of(&mut self, name: &str) -> Result<u32, String> {
        if let Some(uid) = self.known.get(name).filter(|_| self.is_confined) {
            return Ok(*uid);
        }
        let number = name.parse().ok();
        let below =
            if self.is_confined { " below chroot: the name is looked up there since the start" } else { "" };
        match User::from_name(name) {
            Ok(Some(user)) => {
                self.known.insert(name.to_owned(), user.uid.as_raw());
                Ok(user.uid.as_raw())
            }
            Ok(None) => {
                self.known.remove(name);
                number.ok_or_else(|| format!("is no user of this machine{below}"))
            }
            // It need not be known now to be the same as before.
            Err(error) => self
                .known
                .get(name)
                .copied()
                .or(number)
                .ok_or_else(|| format!("cannot be looked up{below} ({})", error.desc())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(names: &mut Names, users: &[&str]) -> Vec<String> {
        let trusted_users = users.iter().map(|&user| user.to_owned()).collect();
        let mut config = Config::default();
        config.trusted_users = trusted_users;
        names.resolve(&mut config);
        config.trusted_users
    }

    #[test]
    fn users_are_login_names_or_numbers() {
        for (user, uid) in [
            ("root", Some(0)),
            ("0", Some(0)),
            ("54321", Some(54321)),
            ("no-such-user", None),
            ("", None),
            ("-1", None),
            ("4294967296", None),
        ] {
            assert_eq!(uid_of(user), uid, "{user:?}");
        }
        let users = ["root", "54321"].map(ToOwned::to_owned);
        assert!(is_among(&users, 0) && is_among(&users, 54321) && !is_among(&users, 54322));
        assert!(!is_among(&[], 0));
    }

    #[test]
    fn names_become_numbers_and_what_nobody_knows_stays() {
        let mut names = Names::default();
        assert_eq!(resolved(&mut names, &["root", "54321", "no-such-user"]), ["0", "54321", "no-such-user"]);
    }

    #[test]
    fn below_a_new_root_a_name_means_what_it_meant_before() {
        let known = BTreeMap::from([("root".to_owned(), 77), ("gone".to_owned(), 78)]);
        let mut names = Names { known, is_confined: false };
        names.confine();
        assert_eq!(resolved(&mut names, &["root", "gone"]), ["77", "78"]);
        // Where the list of users is the machine's own, it decides.
        names.is_confined = false;
        assert_eq!(resolved(&mut names, &["root", "gone"]), ["0", "gone"]);
    }
}
