//! Logins: whom we are to a server, by `…_sasl_password_maps`.
//!
//! - Owns: which entry is about a server, and what it says.
//! - Leaves to others: tables (`maps`), the exchange with the server (`smtp::auth`).
//! - Always true: without an entry there is no attempt to log in; a password is shown nowhere.

use super::maps::{LookupError, Maps};
use super::parameters::LoginSettings;
use crate::config::{Credentials, Proof, Secret};

/// Whom we are to `host`, which is what `next_hop` leads to. The host comes first, as in Postfix.
pub fn find(
    maps: &Maps,
    settings: &LoginSettings,
    host: &str,
    next_hop: &str,
) -> Result<Option<Credentials>, LookupError> {
    for key in [host, next_hop] {
        if let Some(entry) = maps.look_up(key)?.map(Secret::new) {
            return Ok(Some(credentials(&entry, settings)));
        }
    }
    Ok(None)
}

/// What an entry says: a name, and what proves it behind a colon. With nothing there, the certificate that TLS shows has
/// to do.
fn credentials(entry: &Secret, settings: &LoginSettings) -> Credentials {
    let (username, proof) =
        entry.expose().split_once(settings.delimiter.unwrap_or(':')).unwrap_or((entry.expose(), ""));
    let proof = match proof {
        "" => Proof::Certificate,
        token if settings.passwords_are_tokens => Proof::Token(Secret::new(token.to_owned())),
        password => Proof::Password(Secret::new(password.to_owned())),
    };
    Credentials { username: username.to_owned(), proof }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postfix::maps::Opener;
    use crate::postfix::parameters::Problems;
    use crate::postfix::proxymap::Proxymap;
    use std::sync::Arc;
    use std::time::Duration;

    fn maps(tables: &[&str]) -> Maps {
        let proxymap = Arc::new(Proxymap::new("/nonexistent/proxymap", false, Duration::from_secs(1)));
        let mut opener = Opener { proxymap, problems: Problems::default() };
        let names: Vec<_> = tables.iter().map(|&name| Secret::new(name.to_owned())).collect();
        let maps = opener.secret_maps("lmtp_sasl_password_maps", &names);
        assert!(opener.problems.is_empty(), "{}", opener.problems);
        maps
    }

    fn password(username: &str, password: &str) -> Credentials {
        Credentials {
            username: username.to_owned(),
            proof: Proof::Password(Secret::new(password.to_owned())),
        }
    }

    #[test]
    fn the_host_comes_before_the_next_hop_and_nothing_else_is_asked() {
        let maps = maps(&[
            "inline:{mx.example.org=a:1, [mx.example.org]:25=b:2, [relay.example]:25=c:3, .example.net=d:4}",
        ]);
        for (host, next_hop, found) in [
            ("mx.example.org", "[mx.example.org]:25", Some(password("a", "1"))),
            ("MX.example.org", "mx.example.org", Some(password("a", "1"))),
            ("relay.example", "[relay.example]:25", Some(password("c", "3"))),
            ("relay.example", "[relay.example]", None),
            ("mx.example.net", "mx.example.net", None),
        ] {
            let settings = LoginSettings::default();
            assert_eq!(find(&maps, &settings, host, next_hop).unwrap(), found, "{host} {next_hop}");
        }
    }

    #[test]
    fn a_table_may_know_one_login_for_all() {
        let maps = maps(&["inline:{a=user:1}", "static:other:2"]);
        for (host, found) in [("a", password("user", "1")), ("b", password("other", "2"))] {
            assert_eq!(find(&maps, &LoginSettings::default(), host, "x").unwrap(), Some(found));
        }
    }

    #[test]
    fn a_name_ends_at_the_first_delimiter() {
        let entry = |text: &str| Secret::new(text.to_owned());
        let usual = LoginSettings::default();
        let certificate =
            |username: &str| Credentials { username: username.to_owned(), proof: Proof::Certificate };
        for (text, expected) in [
            ("user:secret", password("user", "secret")),
            ("user@example.org:a:b:c", password("user@example.org", "a:b:c")),
            ("user:", certificate("user")),
            ("user", certificate("user")),
            (":", certificate("")),
        ] {
            assert_eq!(credentials(&entry(text), &usual), expected, "{text}");
        }
        let other = LoginSettings { delimiter: Some('|'), ..LoginSettings::default() };
        assert_eq!(credentials(&entry("a:b|c:d"), &other), password("a:b", "c:d"));
        let tokens = LoginSettings { passwords_are_tokens: true, ..LoginSettings::default() };
        let token = Credentials { username: "user".to_owned(), proof: Proof::Token(entry("ya29.x")) };
        assert_eq!(credentials(&entry("user:ya29.x"), &tokens), token);
    }
}
