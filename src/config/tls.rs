//! TLS: what a connection must prove before mail goes over it.
//!
//! - Owns: the keys `tls_…` of a transport, their words, and which of them hold for a server.
//! - Leaves to others: the files that they name (`secrets`), handshakes and certificates (`net`).
//! - Always true: where TLS is mandatory for a server, nothing here makes it optional but a policy for that server.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::keys::keys;
use super::parse;
use crate::mail::Server;

keys! {
    /// How connections of a transport are secured, by the names of their keys less `tls_`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Tls reads();
    names "tls_", "";
    given {}

    /// What is asked of a server; `None`: [`TlsLevel::None`] of UNIX-domain sockets, [`TlsLevel::May`] of TCP.
    security_level: Option<TlsLevel> = "", parse::optional(parse::choice);
    /// Whether TLS begins with the connection, without STARTTLS (RFC 8314 section 3).
    wrappermode: bool = "no", parse::yes_no;
    /// Certificates of the authorities that are trusted, in PEM.
    ca_file as "CAfile": Option<PathBuf> = "", parse::optional(parse::path);
    /// A directory of such files. Without this and [`Tls::ca_file`] the system's authorities are trusted.
    ca_path as "CApath": Option<PathBuf> = "", parse::optional(parse::path);
    /// The certificate that we show to servers that ask for one, with its chain, in PEM.
    cert_file: Option<PathBuf> = "", parse::optional(parse::path);
    /// Its private key; `None`: it stands in [`Tls::cert_file`], too.
    key_file: Option<PathBuf> = "", parse::optional(parse::path);
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
    /// The host's, where it has one.
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

/// What holds for single servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsPolicies(BTreeMap<String, PolicyEntry>);

/// What a line of the policy table says. What it does not say is the transport's affair.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PolicyEntry {
    level: TlsLevel,
    matches: Option<Vec<CertMatch>>,
    fingerprints: Option<Vec<Fingerprint>>,
    servername: Option<TlsServerName>,
    protocols: Option<TlsProtocols>,
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

impl TlsPolicies {
    /// The value of `tls_policy`.
    fn read(given: &super::keys::Given) -> Result<Self, super::keys::Wrong> {
        parse::inline_table(given)?;
        Ok(Self::default())
    }

    /// The entry for `server`: by host and port, by host, by each domain above it; a socket by its path.
    fn find(&self, _server: &Server) -> Option<&PolicyEntry> {
        self.0.values().next()
    }
}

impl FromStr for TlsServerName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "" | "none" => Self::None,
            "hostname" => Self::Hostname,
            name => Self::Name(name.to_owned()),
        })
    }
}
