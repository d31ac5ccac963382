//! TLS: what a connection must prove before mail goes over it.
//!
//! - Owns: the keys `tls_…` of a transport, their words, which of them hold for a server, and which cannot go together.
//! - Leaves to others: the table for single servers (`tls_policy`), the files that keys name (`secrets`), handshakes and
//!   certificates (`net`).
//! - Always true: where TLS is mandatory for a server, nothing here makes it optional but a policy for that server.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use super::keys::{keys, quoted};
use super::parse::{self, is_host_name};
use super::tls_policy::{PolicyEntry, TlsPolicies};
use crate::mail::Server;

keys! {
    /// How connections of a transport are secured, by the names of their keys less `tls_`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Tls reads();
    names "tls_", "";
    given {
        /// What holds for single servers in every respect, whatever the rest says. The configuration file has no such thing:
        /// Postfix's tables are asked for each message.
        pub exact: Vec<(Server, Tls)>,
    }

    /// What is asked of a server; `None`: [`TlsLevel::None`] of UNIX-domain sockets, [`TlsLevel::May`] of TCP.
    security_level: Option<TlsLevel> = "", parse::optional(parse::choice);
    /// Whether TLS begins with the connection, without STARTTLS (RFC 8314 section 3).
    wrappermode: bool = "no", parse::yes_no;
    /// Certificates of the authorities that are trusted, in PEM.
    ca_file as "CAfile": Option<PathBuf> = "", parse::optional(parse::secret_path);
    /// A directory of such files. Without this and [`Tls::ca_file`] the system's authorities are trusted.
    ca_path as "CApath": Option<PathBuf> = "", parse::optional(parse::secret_directory);
    /// The certificate that we show to servers that ask for one, with its chain, in PEM.
    cert_file: Option<PathBuf> = "", parse::optional(parse::secret_path);
    /// Its private key; `None`: it stands in [`Tls::cert_file`], too.
    key_file: Option<PathBuf> = "", parse::optional(parse::secret_path);
    /// The name that the handshake asks for (RFC 6066 section 3).
    servername: TlsServerName = "hostname", parse::described_choice;
    /// The versions that are spoken.
    protocols: TlsProtocols = ">=TLSv1.2", parse::tls_protocols;
    /// SHA-256 of certificates or public keys, one of which the server must have at level `fingerprint`.
    fingerprints: Vec<Fingerprint> = "", parse::fingerprints;
    /// Which names a certificate may be for at level `verify`.
    verify_cert_match: Vec<CertMatch> = "hostname", parse::cert_matches;
    /// Which names a certificate may be for at level `secure`.
    secure_cert_match: Vec<CertMatch> = "nexthop, dot-nexthop", parse::cert_matches;
    /// What holds for single servers instead.
    policy: TlsPolicies = "{}", TlsPolicies::read;
}

/// What is asked of a server before it gets mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsLevel {
    /// Nothing: TLS is not used.
    None,
    /// TLS where it is offered, whatever the certificate.
    May,
    /// TLS, whatever the certificate.
    Encrypt,
    /// TLS, and a certificate or public key that is known.
    Fingerprint,
    /// TLS, and a certificate from a trusted authority for the name of the host.
    Verify,
    /// TLS, and a certificate from a trusted authority for a name from the configuration.
    Secure,
}

impl TlsLevel {
    /// Whether mail is kept rather than sent in clear.
    pub fn is_mandatory(self) -> bool {
        self > Self::May
    }

    /// Whether the server has to prove who it is.
    pub fn authenticates(self) -> bool {
        self > Self::Encrypt
    }
}

impl FromStr for TlsLevel {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::None),
            "may" => Ok(Self::May),
            "encrypt" => Ok(Self::Encrypt),
            "fingerprint" => Ok(Self::Fingerprint),
            "verify" => Ok(Self::Verify),
            "secure" => Ok(Self::Secure),
            _ => Err("a level is none, may, encrypt, fingerprint, verify or secure"),
        }
    }
}

impl fmt::Display for TlsLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::May => "may",
            Self::Encrypt => "encrypt",
            Self::Fingerprint => "fingerprint",
            Self::Verify => "verify",
            Self::Secure => "secure",
        })
    }
}

/// The name that a handshake asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsServerName {
    /// None.
    None,
    /// The host's, where it has one; written `hostname` or, as Postfix has it, `nexthop`.
    Hostname,
    /// This one.
    Name(String),
}

/// Versions of TLS; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsProtocols {
    /// RFC 5246.
    pub v1_2: bool,
    /// RFC 8446.
    pub v1_3: bool,
}

/// SHA-256 of a certificate, or of its public key (the SubjectPublicKeyInfo), both in DER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

/// A name that a certificate may be for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertMatch {
    /// The host that is connected to, as the log names it: for UNIX-domain sockets our own name.
    Hostname,
    /// The host as the nexthop has it. There is no look-up between the two: for TCP it is the same as `hostname`.
    Nexthop,
    /// Any name below that of the nexthop.
    DotNexthop,
    /// This name, in lower case.
    Name(String),
    /// Any name below this one, in lower case, without its dot in front.
    Below(String),
}

/// What holds for one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsPolicy<'a> {
    /// What is asked of it.
    pub level: TlsLevel,
    /// Whether TLS begins with the connection.
    pub wrappermode: bool,
    /// Names that its certificate may be for; empty where nobody looks.
    pub matches: &'a [CertMatch],
    /// Fingerprints, one of which it must have at level `fingerprint`.
    pub fingerprints: &'a [Fingerprint],
    /// The name to ask for.
    pub servername: &'a TlsServerName,
    /// Versions.
    pub protocols: TlsProtocols,
}

impl Tls {
    /// What holds for `server`: the entry of the policy table that fits it most closely, over the transport's keys.
    pub fn policy_for(&self, server: &Server) -> TlsPolicy<'_> {
        if let Some((_, exact)) = self.exact.iter().find(|(known, _)| known == server) {
            return exact.policy_for(server);
        }
        let entry = self.policy.find(server);
        let by_kind = match server {
            Server::Unix(_) => TlsLevel::None,
            Server::Tcp { .. } => TlsLevel::May,
        };
        // Who wants TLS from the first octet does not want to do without.
        let unsaid = if self.wrappermode { TlsLevel::Encrypt } else { by_kind };
        let level = entry.map(|entry| entry.level).or(self.security_level).unwrap_or(unsaid);
        let of_transport: &[CertMatch] = match level {
            TlsLevel::Secure => &self.secure_cert_match,
            TlsLevel::Verify => &self.verify_cert_match,
            _ => &[],
        };
        TlsPolicy {
            level,
            wrappermode: self.wrappermode && level.is_mandatory(),
            matches: entry.and_then(|entry| entry.matches.as_deref()).unwrap_or(of_transport),
            fingerprints: entry.and_then(|entry| entry.fingerprints.as_deref()).unwrap_or(&self.fingerprints),
            servername: entry.and_then(|entry| entry.servername.as_ref()).unwrap_or(&self.servername),
            protocols: entry.and_then(|entry| entry.protocols).unwrap_or(self.protocols),
        }
    }
}

impl Tls {
    /// Combinations that cannot work: the key to name, without `transport.NAME.`, and why.
    pub(super) fn contradictions(&self) -> Vec<(Cow<'static, str>, String)> {
        let mut found = Vec::new();
        let mut note = |key: &'static str, what: String| found.push((Cow::Borrowed(key), what));
        if self.key_file.is_some() && self.cert_file.is_none() {
            note(
                "tls_key_file",
                "a key without its certificate is of no use: set tls_cert_file, too".to_owned(),
            );
        }
        if let Some(what) = self.security_level.and_then(|level| self.wrong_level(level, None, None)) {
            note("tls_security_level", what);
        }
        found.extend(self.policy.entries().filter_map(|(entry, is_socket)| {
            let what = self.wrong_level(entry.level, entry.matches.as_deref(), entry.fingerprints.as_deref());
            let what = what.or_else(|| is_socket.then(|| self.nameless(entry)).flatten())?;
            Some((Cow::Owned(format!("tls_policy.{}", quoted(&entry.name))), what))
        }));
        found
    }

    /// Why a level cannot work with the other keys, where an entry of the table has `matches` and `fingerprints` of its own.
    fn wrong_level(
        &self,
        level: TlsLevel,
        matches: Option<&[CertMatch]>,
        fingerprints: Option<&[Fingerprint]>,
    ) -> Option<String> {
        let no_name =
            |key: &str| format!("{key} is empty, so no certificate would do: name what one may be for");
        match level {
            TlsLevel::None | TlsLevel::May if self.wrappermode => Some(format!(
                "with tls_wrappermode = yes TLS begins with the connection; the level {level} would do without it: \
                 take encrypt or a higher one"
            )),
            TlsLevel::Fingerprint if fingerprints.unwrap_or(&self.fingerprints).is_empty() => {
                Some("there is no fingerprint that a certificate could have: set tls_fingerprints".to_owned())
            }
            TlsLevel::Verify if matches.unwrap_or(&self.verify_cert_match).is_empty() => {
                Some(no_name("tls_verify_cert_match"))
            }
            TlsLevel::Secure if matches.unwrap_or(&self.secure_cert_match).is_empty() => {
                Some(no_name("tls_secure_cert_match"))
            }
            _ => None,
        }
    }

    /// Why no certificate would do for a socket: a path is no name of a host.
    fn nameless(&self, entry: &PolicyEntry) -> Option<String> {
        let matches = match entry.level {
            TlsLevel::Secure => entry.matches.as_ref().unwrap_or(&self.secure_cert_match),
            TlsLevel::Verify => entry.matches.as_ref().unwrap_or(&self.verify_cert_match),
            _ => return None,
        };
        let is_of_nexthop = |wanted: &CertMatch| matches!(wanted, CertMatch::Nexthop | CertMatch::DotNexthop);
        matches.iter().all(is_of_nexthop).then(|| {
            "a socket has no host name that a certificate could be for: name one with match=".to_owned()
        })
    }
}

impl TlsProtocols {
    /// `TLSv1.2`, `TLSv1.3`, or the oldest one behind `>=`.
    pub(super) fn of<'a>(words: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let mut protocols = Self { v1_2: false, v1_3: false };
        for word in words {
            match word {
                ">=TLSv1.2" => protocols = Self { v1_2: true, v1_3: true },
                "TLSv1.2" => protocols.v1_2 = true,
                "TLSv1.3" | ">=TLSv1.3" => protocols.v1_3 = true,
                other => {
                    return Err(format!(
                        "there is no version {other:?}; the versions are TLSv1.2 and TLSv1.3, or >=TLSv1.2 for both"
                    ));
                }
            }
        }
        if protocols.v1_2 || protocols.v1_3 {
            Ok(protocols)
        } else {
            Err("TLSv1.2 or TLSv1.3 is needed".to_owned())
        }
    }
}

impl Fingerprint {
    /// Several, each in hexadecimal.
    pub(super) fn list<'a>(words: impl Iterator<Item = &'a str>) -> Result<Vec<Self>, String> {
        words.map(str::parse).collect()
    }
}

impl FromStr for Fingerprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits: Option<Vec<u8>> = if text.contains(':') {
            text.split(':').map(octet).collect()
        } else {
            text.as_bytes().chunks(2).map(|pair| octet(std::str::from_utf8(pair).ok()?)).collect()
        };
        let octets = digits.and_then(|octets| <[u8; 32]>::try_from(octets).ok());
        octets.map(Self).ok_or_else(|| {
            format!(
                "{text:?} is no fingerprint: 64 hexadecimal digits are needed, SHA-256 of the certificate or of its \
                    public key"
            )
        })
    }
}

/// Two hexadecimal digits.
fn octet(pair: &str) -> Option<u8> {
    let is_pair = pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit());
    if is_pair { u8::from_str_radix(pair, 16).ok() } else { None }
}

impl CertMatch {
    /// Several names, or words for them.
    pub(super) fn list<'a>(words: impl Iterator<Item = &'a str>) -> Result<Vec<Self>, String> {
        words.map(str::parse).collect()
    }
}

impl FromStr for CertMatch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.to_ascii_lowercase();
        Ok(match (&*name, name.strip_prefix('.')) {
            ("hostname", _) => Self::Hostname,
            ("nexthop", _) => Self::Nexthop,
            ("dot-nexthop", _) => Self::DotNexthop,
            (_, Some(domain)) if can_be_certified(domain) => Self::Below(domain.to_owned()),
            (name, None) if can_be_certified(name) || name.parse::<IpAddr>().is_ok() => {
                Self::Name(name.to_owned())
            }
            _ => {
                let name = text;
                let below = name.strip_prefix("*.").filter(|domain| can_be_certified(domain)).map(|domain| {
                    format!(": names are compared as they are; write .{domain} for all below {domain}")
                });
                return Err(format!("{name:?} is no name of a host{}", below.unwrap_or_default()));
            }
        })
    }
}

/// Whether a certificate, or a handshake, can name it: no name ends in a label of digits, so that none looks like an address.
fn can_be_certified(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    is_host_name(name) && !last.bytes().all(|octet| octet.is_ascii_digit())
}

impl FromStr for TlsServerName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match &*text.to_ascii_lowercase() {
            "" | "none" => Self::None,
            // There is no look-up between the two.
            "hostname" | "nexthop" => Self::Hostname,
            // RFC 6066 section 3 allows no addresses.
            name if can_be_certified(name) => Self::Name(name.to_owned()),
            _ => {
                return Err(
                    "the server's name is \"hostname\", \"none\" or the name of a host; an address is none"
                        .to_owned(),
                );
            }
        })
    }
}
