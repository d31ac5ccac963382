//! SASL over LMTP and ESMTP (RFC 4954): who we are, by which mechanism, line after line.
//!
//! - Owns: which mechanism is taken, the exchange, what a server's answer to it means.
//! - Leaves to others: the mechanisms' own messages (rsasl, but for CRAM-MD5), where names and passwords come from
//!   (`config`), sockets.
//! - Always true: nothing secret is in what may be shown ([`Line::shown`], [`Exchange::shown`], reasons); an exchange that
//!   a server does not end ends itself; a server that must prove who it is has done so before we are logged in.

mod client;
mod cram_md5;
mod exchange;
mod mechanism;
mod oauth;
mod redact;
mod scram;

use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

use crate::mail::Reason;
pub use exchange::Exchange;
pub use mechanism::known_mechanisms;
pub use redact::Redactor;

/// Something that nobody may read: wiped when it is dropped, and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a secret; the text it comes in is the caller's to wipe.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Whom we are to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The name; may be empty for EXTERNAL.
    pub username: String,
    /// How we prove it.
    pub proof: Proof,
}

/// How a name is proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// By a password.
    Password(Secret),
    /// By an OAuth 2.0 access token.
    Token(Secret),
    /// By the certificate that TLS has shown.
    Certificate,
}

/// What a mechanism must not do, or must (`smtp_sasl_security_options` of Postfix).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SecurityOptions {
    /// No secret goes over the wire as it is.
    pub no_plaintext: bool,
    /// Nobody in between can take the exchange over.
    pub no_active: bool,
    /// Nobody who hears it can guess the password by trying a dictionary.
    pub no_dictionary: bool,
    /// No login without a name.
    pub no_anonymous: bool,
    /// The server proves that it knows the password, too.
    pub mutual_auth: bool,
}

impl FromStr for SecurityOptions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut options = Self::default();
        for word in text.split([',', ' ', '\t']).filter(|word| !word.is_empty()) {
            match word {
                "noplaintext" => options.no_plaintext = true,
                "noactive" => options.no_active = true,
                "nodictionary" => options.no_dictionary = true,
                "noanonymous" => options.no_anonymous = true,
                "mutual_auth" => options.mutual_auth = true,
                other => {
                    return Err(format!(
                        "there is no option {other:?}; the options are noplaintext, noactive, nodictionary, noanonymous \
                         and mutual_auth"
                    ));
                }
            }
        }
        Ok(options)
    }
}

/// What an exchange is to go by.
#[derive(Clone, Debug)]
pub struct Login<'a> {
    /// Whom we are.
    pub credentials: &'a Credentials,
    /// What a mechanism must not do.
    pub options: SecurityOptions,
    /// The mechanisms that may be used, in upper case; empty: all that [`known_mechanisms`] names.
    pub filter: &'a [String],
    /// The server's name or address, and its port: OAUTHBEARER tells them.
    pub host: &'a str,
    /// See [`Login::host`]; 0 for a UNIX-domain socket.
    pub port: u16,
    /// What ties the exchange to the TLS connection (`tls-exporter` of RFC 9266), where there is TLS 1.3.
    pub channel_binding: Option<&'a [u8]>,
    /// Whether the server has proved by its certificate who it is.
    pub is_server_known: bool,
}

/// A line for the server, CRLF included, and the same as it may be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Line {
    /// What is written.
    pub octets: Zeroizing<Vec<u8>>,
    /// What transcripts and logs get instead: one line without its end.
    pub shown: String,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Line({:?})", self.shown)
    }
}

/// What to do after a reply of an exchange.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Write this and read one reply.
    Send(Line),
    /// We are logged in.
    Accepted,
    /// We are not; the conversation can go on, but nothing may be sent over it.
    Refused(Reason),
}

#[cfg(test)]
mod tests;
