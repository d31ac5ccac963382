//! Who calls sendmail.
//!
//! - Owns: the caller's uid and names, and the time by the caller's clock.
//! - Leaves to others: the change of identity that root makes (`cli::identity`).
//! - Always true: who submits is the real uid, which nobody can choose.

mod zone;

use jiff::{Timestamp, Zoned};
use nix::unistd::User;

use super::failure::{Code, Failure};

/// The user behind the process.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) uid: u32,
    /// The login name, if the uid has one.
    pub(super) name: Option<String>,
    /// The full name: `$NAME`, or what the user database has.
    pub(super) full_name: Option<String>,
}

impl Caller {
    /// Asks who it is. To be called before root becomes the queue's owner.
    pub(super) fn find() -> Result<Self, Failure> {
        let uid = nix::unistd::getuid();
        let user = User::from_uid(uid).map_err(|error| {
            let text = format!("the message was not queued: cannot look up uid {uid}: {error}");
            Failure::new(Code::Temporary, text)
        })?;
        let named = std::env::var("NAME").ok().filter(|name| !name.trim().is_empty());
        let full_name = named
            .or_else(|| user.as_ref().and_then(|user| full_name(&user.gecos.to_string_lossy(), &user.name)));
        Ok(Self { uid: uid.as_raw(), name: user.map(|user| user.name), full_name })
    }

    /// The time, in the zone of whoever calls.
    pub(super) fn now() -> Zoned {
        Timestamp::now().to_zoned(zone::zone())
    }

    /// The login name, for a sender that nobody gave.
    pub(super) fn login(&self) -> Result<&str, Failure> {
        self.name.as_deref().ok_or_else(|| {
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
        let caller = Caller::find().unwrap();
        assert_eq!(caller.uid, rustix::process::getuid().as_raw());
    }
}
