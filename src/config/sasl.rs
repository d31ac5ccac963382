//! SASL: whether and how we log in to a server.
//!
//! - Owns: the keys `sasl_…` of a transport, and which of their values cannot go together.
//! - Leaves to others: names and passwords (`secrets`), the exchange (`smtp::auth`).
//! - Always true: nothing secret stands here, only where it is found.

use std::borrow::Cow;

use super::keys::keys;
use super::parse;
use super::secrets::PasswordMaps;
use crate::smtp::{SecurityOptions, known_mechanisms};

keys! {
    /// How a transport logs in, by the names of their keys less `sasl_`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Sasl reads();
    names "sasl_", "";
    given {
        /// The same over TLS with a server that has proved who it is, where that differs: main.cf alone can say so.
        pub tls_verified_security_options: Option<SecurityOptions>,
    }

    /// Whether we log in at all.
    auth_enable: bool = "no", parse::yes_no;
    /// Where names and passwords stand, by server. Without an entry there is no attempt to log in.
    password_maps: Option<PasswordMaps> = "", parse::optional(PasswordMaps::read);
    /// What a mechanism must not do where there is no TLS.
    security_options: SecurityOptions = "noplaintext, noanonymous", parse::described_choice;
    /// The same over TLS; `None`: plain text is allowed where the server has proved who it is, and not elsewhere.
    tls_security_options: Option<SecurityOptions> = "", parse::optional(parse::described_choice);
    /// The mechanisms that may be used, in upper case; empty: all that we know.
    mechanism_filter: Vec<String> = "", parse::keywords;
}

impl Sasl {
    /// Combinations that cannot work: the key to name, without `transport.NAME.`, and why.
    pub(super) fn contradictions(&self) -> Vec<(Cow<'static, str>, String)> {
        let mut found = Vec::new();
        let mut note = |key: &'static str, what: String| found.push((Cow::Borrowed(key), what));
        if self.auth_enable && self.password_maps.is_none() {
            note(
                "sasl_auth_enable",
                "nobody knows by which name and password: set sasl_password_maps".to_owned(),
            );
        }
        let is_unknown = |name: &String| !known_mechanisms().contains(&name.as_str());
        if !self.mechanism_filter.is_empty() && self.mechanism_filter.iter().all(is_unknown) {
            note(
                "sasl_mechanism_filter",
                format!(
                    "none of these mechanisms is known; the known ones are {}",
                    known_mechanisms().join(", ")
                ),
            );
        }
        let impossible = |options: SecurityOptions| options.no_dictionary && options.mutual_auth;
        let sets = [
            ("sasl_security_options", Some(self.security_options)),
            ("sasl_tls_security_options", self.tls_security_options),
        ];
        for (key, _) in sets.into_iter().filter(|(_, options)| options.is_some_and(impossible)) {
            note(
                key,
                "no mechanism has both nodictionary and mutual_auth, so nobody could log in".to_owned(),
            );
        }
        found
    }

    /// What a mechanism must not do: over TLS where `is_encrypted`, with a server that has proved who it is where
    /// `is_authenticated`.
    pub fn options_for(&self, is_encrypted: bool, is_authenticated: bool) -> SecurityOptions {
        let verified = self.tls_verified_security_options.filter(|_| is_authenticated);
        match (is_encrypted, verified.or(self.tls_security_options)) {
            (false, _) => self.security_options,
            (true, Some(options)) => options,
            (true, None) => SecurityOptions {
                no_plaintext: !is_authenticated,
                no_anonymous: true,
                ..SecurityOptions::default()
            },
        }
    }
}
