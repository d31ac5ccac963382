//! SASL: whether and how we log in to a server.
//!
//! - Owns: the keys `sasl_…` of a transport.
//! - Leaves to others: names and passwords (`secrets`), the exchange (`smtp::auth`).
//! - Always true: nothing secret stands here, but for a table that came by a `_FILE` variable, which nobody prints.

use super::keys::keys;
use super::parse;
use super::secrets::PasswordMaps;
use crate::smtp::SecurityOptions;

keys! {
    /// How a transport logs in, by the names of their keys less `sasl_`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Sasl reads();
    names "sasl_", "";
    given {}

    /// Whether we log in at all.
    auth_enable: bool = "no", parse::yes_no;
    /// Where names and passwords stand, by server. Without an entry there is no attempt to log in.
    password_maps: Option<PasswordMaps> = "", PasswordMaps::read;
    /// What a mechanism must not do where there is no TLS.
    security_options: SecurityOptions = "noplaintext, noanonymous", parse::described_choice;
    /// The same over TLS; `None`: plain text is allowed where the server has proved who it is, and not elsewhere.
    tls_security_options: Option<SecurityOptions> = "", parse::optional(parse::described_choice);
    /// The mechanisms that may be used, in upper case; empty: all that we know.
    mechanism_filter: Vec<String> = "", parse::keywords;
}

impl Sasl {
    /// What a mechanism must not do: over TLS where `is_encrypted`, with a server that has proved who it is where
    /// `is_authenticated`.
    pub fn options_for(&self, is_encrypted: bool, is_authenticated: bool) -> SecurityOptions {
        match (is_encrypted, self.tls_security_options) {
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
