//! Who calls sendmail.
//!
//! - Owns: the caller's uid and names, and the time by the caller's clock.
//! - Leaves to others: the change of identity that root makes (`cli::identity`).
//! - Always true: who submits is the real uid, which nobody can choose.

mod zone;

use std::cell::OnceCell;

use jiff::{Timestamp, Zoned};
use nix::unistd::{Uid, User};

use super::failure::{Code, Failure};

/// The user behind the process.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) uid: u32,
    /// What the user database has, once it was asked.
    user: OnceCell<Option<User>>,
}

impl Caller {
    /// Who it is. To be called before root becomes the queue's owner. The user database, which may be on another machine,
    /// is asked only for a name that nobody gave.
    pub(super) fn find() -> Self {
        Self { uid: nix::unistd::getuid().as_raw(), user: OnceCell::new() }
    }

    fn user(&self) -> Result<Option<&User>, Failure> {
        if let Some(user) = self.user.get() {
            return Ok(user.as_ref());
        }
        let user = User::from_uid(Uid::from_raw(self.uid)).map_err(|error| {
            let text = format!("the message was not queued: cannot look up uid {}: {error}", self.uid);
            Failure::new(Code::Temporary, text)
        })?;
        Ok(self.user.get_or_init(|| user).as_ref())
    }

    /// The full name, for a From that nobody wrote: `$NAME`, or what the user database has.
    pub(super) fn full_name(&self) -> Result<Option<String>, Failure> {
        match std::env::var("NAME").ok().filter(|name| !name.trim().is_empty()) {
            Some(name) => Ok(Some(name)),
            None => Ok(self.user()?.and_then(|user| full_name(&user.gecos.to_string_lossy(), &user.name))),
        }
    }

    /// The time, in the zone of whoever calls.
    pub(super) fn now() -> Zoned {
        Timestamp::now().to_zoned(zone::zone())
    }

    /// The login name, for a sender that nobody gave.
    pub(super) fn login(&self) -> Result<&str, Failure> {
        self.user()?.map(|user| user.name.as_str()).ok_or_else(|| {
            let text = format!(
                "the message was not queued: uid {} has no login name to send as; name the sender with -f",
                self.uid
            );
            Failure::new(Code::NoUser, text)
        })
    }
}

/// The name in a gecos field: what stands before the first comma, with `&` for the login name.
fn full_name(gecos: &str, login: &str) -> Option<String> {
    let name = gecos.split(',').next().unwrap_or("").trim();
    let mut capital: String = login.chars().take(1).flat_map(char::to_uppercase).collect();
    capital.extend(login.chars().skip(1));
    (!name.is_empty()).then(|| name.replace('&', &capital))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_names_come_from_gecos() {
        for (gecos, name) in [
            ("Ann Doe,Room 7,,", Some("Ann Doe")),
            ("& Doe", Some("Ann Doe")),
            ("", None),
            (",Room 7", None),
            (" J\u{fc}rgen ", Some("J\u{fc}rgen")),
        ] {
            assert_eq!(full_name(gecos, "ann").as_deref(), name, "{gecos:?}");
        }
    }

    #[test]
    fn the_caller_is_the_real_uid() {
        let caller = Caller::find();
        assert_eq!(caller.uid, rustix::process::getuid().as_raw());
    }

    #[test]
    fn nobody_is_looked_up_who_is_not_asked_for() {
        let caller = Caller { uid: 0, user: OnceCell::new() };
        assert!(caller.user.get().is_none());
        assert_eq!(caller.login().unwrap(), "root");
        assert!(caller.user.get().is_some());
        let stranger = Caller { uid: u32::MAX - 7, user: OnceCell::new() };
        assert!(stranger.login().unwrap_err().to_string().contains("4294967288 has no login name"));
    }
}
