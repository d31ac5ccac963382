//! Users as `trusted_users` names them.
//!
//! - Owns: what such a name means, for the agent, sendmail and `lastmile check` alike.
//! - Leaves to others: who is trusted without being named: root and the agent's user.
//! - Always true: a login name goes before a number, since some systems have login names made of digits.

use nix::unistd::User;

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
