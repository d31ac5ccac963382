//! Whom a server's certificate shows it to be, and whether that is whom we asked for.
//!
//! - Owns: which certificates meet which level, by authority, by name, by fingerprint.
//! - Leaves to others: chains and names (webpki), the words for what is wrong with them (`words`), levels and policies
//!   (`config`).
//! - Always true: it judges the certificate of this connection at this moment, whatever an earlier one has shown. In the
//!   handshake only the signature is checked, by which the server proves that it has the certificate's key; that is done
//!   for certificates of each level, also for those that webpki does not read. By authority or name those prove nothing.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{self, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, OtherError, PeerMisbehaved, RootCertStore, SignatureScheme,
};
use webpki::{EndEntityCert, RawPublicKeyEntity};

use super::certificate::Certificate;
use super::{Trust, words};
use crate::config::{CertMatch, Fingerprint, Secrets, TlsLevel, TlsPolicy, system_roots};
use crate::mail::Server;
use crate::net::peer::Peer;

/// Whom the certificates lead to that `peer` has shown, its own first. An error says why that is not whom `policy` asks
/// for.
pub(super) fn judge(
    chain: &[CertificateDer<'_>],
    peer: &Peer,
    server: &Server,
    secrets: &Secrets,
    policy: &TlsPolicy<'_>,
) -> Result<Trust, String> {
    let Some((own, intermediates)) = chain.split_first() else {
        return if policy.level.authenticates() {
            Err("Server certificate not trusted: there is none".to_owned())
        } else {
            Ok(Trust::Anonymous)
        };
    };
    let trusted = || {
        let roots = secrets.roots().unwrap_or_else(|| system_roots());
        check_chain(own, intermediates, roots, UnixTime::now())
            .map_err(|error| words::untrusted(&error, chain, roots.is_empty()))
    };
    match policy.level {
        TlsLevel::None | TlsLevel::May | TlsLevel::Encrypt => {
            Ok(if trusted().is_ok() { Trust::Trusted } else { Trust::Untrusted })
        }
        TlsLevel::Fingerprint => check_fingerprint(own, policy.fingerprints)
            .map_err(|words| format!("Server certificate not verified: {words}")),
        TlsLevel::Verify | TlsLevel::Secure => {
            trusted().map_err(|words| format!("Server certificate not trusted: {words}"))?;
            check_names(own, &accepted_names(policy.matches, peer, server))
                .map_err(|words| format!("Server certificate not verified: {words}"))?;
            Ok(Trust::Verified)
        }
    }
}

/// Whether `own` was issued for a server by one of `roots`, with `intermediates` in between.
fn check_chain(
    own: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: UnixTime,
) -> Result<(), rustls::Error> {
    let algorithms = crypto::ring::default_provider().signature_verification_algorithms.all;
    let parsed = ParsedCertificate::try_from(own)?;
    match verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms) {
        // Administrators trust a single server by naming the certificate that it has issued to itself; what openssl makes
        // for that is an authority's. By now its dates have been looked at.
        Err(error) if words::is_authority(&error) && is_among(own, roots) => Ok(()),
        result => result,
    }
}

/// Whether `own` is itself one of `roots`.
fn is_among(own: &CertificateDer<'_>, roots: &RootCertStore) -> bool {
    webpki::anchor_from_trusted_cert(own).is_ok_and(|anchor| roots.roots.contains(&anchor))
}

/// Whether `own`, or its public key, has one of `known`. The error is half a sentence, and names both.
fn check_fingerprint(own: &CertificateDer<'_>, known: &[Fingerprint]) -> Result<Trust, String> {
    let certificate = fingerprint(own);
    let key = public_key(own).map(|key| fingerprint(&key));
    if known.contains(&certificate) || key.is_some_and(|key| known.contains(&key)) {
        return Ok(Trust::Verified);
    }
    Err(words::other_fingerprints(certificate, key))
}

/// The key of `own`, in DER; `None` if that is no certificate.
///
/// webpki refuses some of which every other program takes the key: those of version 1, which openssl makes where nobody
/// asks for extensions, and those with a critical extension that it does not know.
fn public_key<'a>(own: &'a CertificateDer<'_>) -> Option<SubjectPublicKeyInfoDer<'a>> {
    match EndEntityCert::try_from(own) {
        Ok(read) => Some(read.subject_public_key_info()),
        Err(_) => Certificate::parse(own).map(|read| read.public_key().into()),
    }
}

fn fingerprint(der: &[u8]) -> Fingerprint {
    let mut octets = [0; 32];
    octets.copy_from_slice(digest(&SHA256, der).as_ref());
    Fingerprint(octets)
}

/// A name that a certificate may be for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Accepted<'a> {
    /// This host or address.
    Host(&'a str),
    /// Any host below this domain.
    Below(&'a str),
}

impl fmt::Display for Accepted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => f.write_str(host),
            Self::Below(domain) => write!(f, "a host below {domain}"),
        }
    }
}

/// The names that `matches` stand for, where `server` is asked for and `peer` is the one who answers.
fn accepted_names<'a>(matches: &'a [CertMatch], peer: &'a Peer, server: &'a Server) -> Vec<Accepted<'a>> {
    let nexthop = match server {
        Server::Unix(_) => peer.host(),
        Server::Tcp { host, .. } => host,
    };
    let accepted = |name: &'a CertMatch| match name {
        CertMatch::Hostname => Some(Accepted::Host(peer.host())),
        CertMatch::Nexthop => Some(Accepted::Host(nexthop)),
        // Nothing is below an address.
        CertMatch::DotNexthop => nexthop.parse::<IpAddr>().is_err().then_some(Accepted::Below(nexthop)),
        CertMatch::Name(name) => Some(Accepted::Host(name)),
        CertMatch::Below(domain) => Some(Accepted::Below(domain)),
    };
    matches.iter().filter_map(accepted).collect()
}

/// Whether `own` is for one of the `accepted`. The error is half a sentence with the names on both sides.
fn check_names(own: &CertificateDer<'_>, accepted: &[Accepted<'_>]) -> Result<(), String> {
    let unreadable = "it cannot be read".to_owned();
    let Ok(parsed) = ParsedCertificate::try_from(own) else { return Err(unreadable) };
    let Ok(names) = EndEntityCert::try_from(own) else { return Err(unreadable) };
    let is_met = |accepted: &Accepted<'_>| match accepted {
        Accepted::Host(host) => {
            ServerName::try_from(*host).is_ok_and(|host| verify_server_name(&parsed, &host).is_ok())
        }
        Accepted::Below(domain) => names.valid_dns_names().any(|name| is_below(name, domain)),
    };
    if accepted.iter().any(is_met) { Ok(()) } else { Err(words::other_names(own, accepted)) }
}

/// Whether `name` is below `domain`. `*.example.org` is for nothing but hosts below `example.org`; but `*.org` is for too
/// many others.
fn is_below(name: &str, domain: &str) -> bool {
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    let (Some(at), false) = (name.len().checked_sub(domain.len()), domain.is_empty()) else { return false };
    match (name.get(..at), name.get(at..)) {
        (Some(front), Some(end)) => {
            front.len() > 1 && front.ends_with('.') && end.eq_ignore_ascii_case(domain)
        }
        _ => false,
    }
}

/// Checks the signatures of a handshake, and leaves the certificate for later: rustls asks its verifier about that in full
/// handshakes alone.
#[derive(Debug)]
pub(super) struct SignaturesOnly(WebPkiSupportedAlgorithms);

impl SignaturesOnly {
    /// By these algorithms.
    pub(super) fn new(algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self(algorithms)
    }

    /// What rustls has for TLS 1.3 alone. Before that, a scheme leaves open which curve the key is of (RFC 5246 section
    /// 7.4.1.4.1), so each algorithm that goes by this scheme has its try.
    fn verify_tls12_signature_with_raw_key(
        &self,
        message: &[u8],
        key: &SubjectPublicKeyInfoDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let (_, algorithms) = (self.0.mapping.iter().find(|(scheme, _)| *scheme == signed.scheme))
            .ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        let key = RawPublicKeyEntity::try_from(key).map_err(|_| CertificateError::BadEncoding)?;
        for algorithm in *algorithms {
            match key.verify_signature(*algorithm, message, signed.signature()) {
                Ok(()) => return Ok(HandshakeSignatureValid::assertion()),
                Err(webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)) => {}
                Err(_) => break,
            }
        }
        Err(CertificateError::BadSignature.into())
    }
}

impl ServerCertVerifier for SignaturesOnly {
    fn verify_server_cert(
        &self,
        _own: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // `judge` does it, before anything is said over the connection.
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = public_key(own).ok_or(CertificateError::BadEncoding)?;
        self.verify_tls12_signature_with_raw_key(message, &key, signed).map_err(|error| explained(error, own))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = public_key(own).ok_or(CertificateError::BadEncoding)?;
        crypto::verify_tls13_signature_with_raw_key(message, &key, signed, &self.0)
            .map_err(|error| explained(error, own))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// Of what kind a key is with which nothing can be checked here: goes on after "it has a key ".
#[derive(Debug)]
pub(super) struct UnusableKey(pub String);

impl fmt::Display for UnusableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UnusableKey {}

/// Why the signature of whoever shows `own` came to `error`: the key, if that is why.
fn explained(error: rustls::Error, own: &CertificateDer<'_>) -> rustls::Error {
    use CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext as OfAnotherKey;
    match (Certificate::parse(own).and_then(|own| own.unusable_key()), error) {
        (Some(key), _) => CertificateError::Other(OtherError(Arc::new(UnusableKey(key)))).into(),
        (None, rustls::Error::InvalidCertificate(OfAnotherKey { .. })) => {
            CertificateError::BadSignature.into()
        }
        (None, error) => error,
    }
}
