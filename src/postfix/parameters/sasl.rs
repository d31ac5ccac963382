//! Logins as main.cf describes them.
//!
//! - Owns: how Postfix's `…_sasl_…` parameters become a transport's [`Sasl`]; which tables may hold passwords.
//! - Leaves to others: what an entry of such a table says, and for which server (`postfix::login`).
//! - Always true: what a parameter says is not shown where it may hold a password.

use super::transport::Parameters;
use super::values::list;
use crate::config::{Sasl, Secret, Transport, known_mechanisms};

/// What logins go by beside the transport's own fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginSettings {
    /// Tables with names and passwords, as main.cf names them: with `inline:` the passwords stand in the name. None where
    /// nobody logs in.
    pub password_maps: Vec<Secret>,
    /// What separates a name from its password; `None`: a colon.
    pub delimiter: Option<char>,
    /// Whether passwords are OAuth tokens, for no mechanism is left that takes another thing.
    pub passwords_are_tokens: bool,
}

/// Mechanisms that show an OAuth token.
const TOKEN_MECHANISMS: [&str; 2] = ["OAUTHBEARER", "XOAUTH2"];

/// Types of tables that can be read as the text that they are.
const TEXT_TYPES: [&str; 3] = ["texthash", "inline", "static"];

/// Types of files that postmap(1) makes of such a text.
const POSTMAP_TYPES: [&str; 6] = ["hash", "btree", "lmdb", "cdb", "dbm", "sdbm"];

impl Parameters<'_, '_> {
    /// Reads everything about logins.
    pub(super) fn read_sasl(
        &mut self,
        transport: &mut Transport,
        warnings: &mut Vec<String>,
    ) -> LoginSettings {
        const USUAL: &str = "noplaintext, noanonymous";
        let options = |text: &str| text.to_ascii_lowercase().parse();
        let clear = self.parsed("sasl_security_options", USUAL, options);
        let tls = self.parsed("sasl_tls_security_options", USUAL, options);
        let verified = self.parsed("sasl_tls_verified_security_options", USUAL, options);
        let filter = self.parsed("sasl_mechanism_filter", "", mechanisms).unwrap_or_default();
        transport.send_dummy_mail_auth = self.yes("send_dummy_mail_auth", false);
        let sasl: &mut Sasl = &mut transport.sasl;
        sasl.auth_enable = self.yes("sasl_auth_enable", false);
        sasl.security_options = clear.unwrap_or(sasl.security_options);
        sasl.tls_security_options = tls;
        sasl.tls_verified_security_options = verified;
        sasl.mechanism_filter = filter;
        if sasl.auth_enable && self.text("sasl_auth_soft_bounce", "yes").eq_ignore_ascii_case("no") {
            let name = self.name("sasl_auth_soft_bounce");
            warnings
                .push(format!("{name} = no: mail is deferred all the same where a server refuses our login"));
        }
        LoginSettings {
            password_maps: if sasl.auth_enable { self.password_maps() } else { Vec::new() },
            delimiter: self.delimiter(),
            passwords_are_tokens: is_for_tokens(&sasl.mechanism_filter),
        }
    }

    /// Tables with passwords. They are read as root, once; what proxymap(8) and the owner of the queue may not see, nobody
    /// asks them for.
    fn password_maps(&mut self) -> Vec<Secret> {
        let name = self.name("sasl_password_maps");
        let text = self.text("sasl_password_maps", "").to_owned();
        let tables = list(&text).unwrap_or_else(|what| {
            self.reader.refuse_hidden(&name, what);
            Vec::new()
        });
        if text.is_empty() {
            let enabled = self.name("sasl_auth_enable");
            self.refuse("sasl_password_maps", format!("{enabled} = yes needs a table of passwords"));
        }
        for table in &tables {
            if let Some(what) = unreadable(table) {
                let protocol = self.protocol;
                let what = format!(
                    "{what}; or start with -o {}=no, or let Postfix's own {protocol} deliver this mail",
                    self.name("sasl_auth_enable")
                );
                self.reader.refuse_hidden(&name, what);
            }
        }
        tables.into_iter().map(Secret::new).collect()
    }

    /// One character, since Postfix 3.10.
    fn delimiter(&mut self) -> Option<char> {
        let parse = |text: &str| {
            let mut characters = text.chars();
            match (characters.next(), characters.next()) {
                (Some(delimiter), None) => Ok(delimiter),
                _ => Err("one character is needed".to_owned()),
            }
        };
        self.parsed("sasl_password_result_delimiter", ":", parse).filter(|delimiter| *delimiter != ':')
    }
}

/// Why a table of passwords cannot be read, and what to do.
fn unreadable(table: &str) -> Option<String> {
    let Some((kind, file)) = table.split_once(':') else {
        return Some("a table is written as type:name".to_owned());
    };
    if TEXT_TYPES.contains(&kind) {
        return None;
    }
    let why = "passwords are read from text alone";
    Some(match POSTMAP_TYPES.contains(&kind) {
        true => format!(
            "{table} cannot be read here, where {why}: say texthash:{file}, the file that postmap(1) has made the table of \
             (postmap -s {table} prints a table as text)"
        ),
        // Some of them can have passwords in their name.
        false => format!(
            "a {kind} table cannot be read here, where {why}: say texthash:/FILE, with a line for each server"
        ),
    })
}

/// The mechanisms that a filter lets through, out of those that are known here; none where it is empty. The first pattern
/// that fits decides.
fn mechanisms(text: &str) -> Result<Vec<String>, String> {
    let patterns = list(text)?;
    let mut rules = Vec::new();
    for pattern in &patterns {
        let bare = pattern.trim_start_matches('!');
        let is_wanted = (pattern.len() - bare.len()) % 2 == 0;
        match bare.split_once(':') {
            _ if bare.starts_with('/') => {
                return Err(format!("{bare} is a file: name the mechanisms themselves"));
            }
            None => rules.push((Some(bare), is_wanted)),
            Some(("static", _)) => rules.push((None, is_wanted)),
            Some(_) => {
                return Err(format!(
                    "{bare} is a table: name the mechanisms themselves, and static:rest for all others"
                ));
            }
        }
    }
    let is_let_through = |mechanism: &str| {
        let fits = |name: &Option<&str>| name.is_none_or(|name| name.eq_ignore_ascii_case(mechanism));
        rules.iter().find(|(name, _)| fits(name)).is_some_and(|(_, is_wanted)| *is_wanted)
    };
    let let_through: Vec<_> =
        known_mechanisms().iter().filter(|mechanism| is_let_through(mechanism)).collect();
    if let_through.is_empty() && !rules.is_empty() {
        return Err(format!(
            "it leaves none of the mechanisms that are known here, {}",
            known_mechanisms().join(", ")
        ));
    }
    Ok(let_through.into_iter().map(|&mechanism| mechanism.to_owned()).collect())
}

fn is_for_tokens(filter: &[String]) -> bool {
    !filter.is_empty() && filter.iter().all(|mechanism| TOKEN_MECHANISMS.contains(&mechanism.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_lets_mechanisms_through() {
        let without = |left_out: &[&str]| -> Vec<&str> {
            known_mechanisms().iter().copied().filter(|mechanism| !left_out.contains(mechanism)).collect()
        };
        for (text, expected) in [
            ("", Some(vec![])),
            ("plain, login", Some(vec!["PLAIN", "LOGIN"])),
            ("login plain", Some(vec!["PLAIN", "LOGIN"])),
            ("!gssapi, !login, static:rest", Some(without(&["LOGIN"]))),
            ("static:all", Some(without(&[]))),
            ("!plain, plain, cram-md5", Some(vec!["CRAM-MD5"])),
            ("!!plain", Some(vec!["PLAIN"])),
            ("gssapi, ntlm", None),
            ("!plain", None),
            ("/etc/postfix/mechanisms", None),
            ("!/etc/postfix/mechanisms, static:rest", None),
            ("hash:/etc/postfix/mechanisms", None),
            ("{plain", None),
        ] {
            let expected = expected.map(|names| names.into_iter().map(str::to_owned).collect());
            assert_eq!(mechanisms(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_filter_for_tokens_makes_tokens_of_passwords() {
        for (text, is_one) in
            [("xoauth2", true), ("oauthbearer, xoauth2", true), ("xoauth2 plain", false), ("", false)]
        {
            assert_eq!(is_for_tokens(&mechanisms(text).unwrap()), is_one, "{text:?}");
        }
    }

    #[test]
    fn a_table_that_is_no_text_is_told_with_the_one_to_take() {
        for (table, words) in [
            ("texthash:/etc/postfix/sasl_passwd", None),
            ("inline:{a=b:c}", None),
            ("static:a:b", None),
            ("hash:/etc/postfix/sasl_passwd", Some("say texthash:/etc/postfix/sasl_passwd, ")),
            ("lmdb:/x", Some("postmap -s lmdb:/x")),
            ("proxy:mysql:/x", Some("say texthash:/FILE")),
            ("/etc/postfix/sasl_passwd", Some("type:name")),
        ] {
            let told = unreadable(table);
            assert_eq!(told.is_some(), words.is_some(), "{table}");
            assert!(told.is_none_or(|told| words.is_some_and(|words| told.contains(words))), "{table}");
        }
    }
}
