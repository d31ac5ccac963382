//! What went wrong with TLS, in words that a mail administrator understands.
//!
//! - Owns: the words for rustls's errors, for certificates that are not trusted and for names that do not fit.
//! - Leaves to others: finding out (`handshake`, `verify`, `stream`), the sentence around the words.
//! - Always true: each is half a sentence in one line; what a server has sent is in it printable and shortened.

use rustls::pki_types::CertificateDer;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, OtherError, PeerIncompatible};
use webpki::EndEntityCert;

use super::certificate::{Certificate, date};
use super::verify::{Accepted, UnusableKey};
use crate::config::{Fingerprint, TlsProtocols};
use crate::mail::{printable, shortened};

/// rustls has one error for it, webpki another.
const UNKNOWN_DEMAND: &str =
    "demands something that is not known here (it has an unknown critical extension)";

/// Why a handshake failed in which `offered` was offered. `heard` is the beginning of what the server said.
pub(super) fn handshake(error: &Error, offered: TlsProtocols, heard: &[u8]) -> String {
    match error {
        Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion)
            if is_text(heard) =>
        {
            let line = heard.split(|octet| matches!(octet, b'\r' | b'\n')).next().unwrap_or_default();
            format!("the server answered in plain text: {}", printable(line))
        }
        Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            format!("the server speaks none of the versions of TLS that are allowed here ({})", versions(offered))
        }
        Error::AlertReceived(AlertDescription::HandshakeFailure) => {
            "the server broke off the handshake (alert: handshake failure): there is no version or cipher that both sides \
             allow, or it asks for a certificate of ours, or its key is of a kind we do not know (P-521, Ed448)"
                .to_owned()
        }
        // Nothing else that a handshake needs can be that long.
        Error::InvalidMessage(
            InvalidMessage::HandshakePayloadTooLarge | InvalidMessage::CertificatePayloadTooLarge,
        ) => "the server's certificates are longer than 64 KB".to_owned(),
        Error::PeerIncompatible(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig) => {
            format!("the server speaks a version of TLS that is not allowed here ({} is)", versions(offered))
        }
        _ => broken(error),
    }
}

/// What a server broke, at any time.
pub(super) fn broken(error: &Error) -> String {
    use Error::{
        AlertReceived, DecryptError, InappropriateHandshakeMessage, InappropriateMessage, InvalidCertificate,
        InvalidMessage, PeerIncompatible, PeerMisbehaved, PeerSentOversizedRecord,
    };
    match error {
        AlertReceived(alert) => alerted(*alert),
        InvalidMessage(_) | PeerSentOversizedRecord => {
            format!("what the server sent is no TLS ({})", described(error))
        }
        DecryptError => "what the server sent cannot be decrypted".to_owned(),
        PeerIncompatible(rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
            "the server speaks no TLS 1.2 or later".to_owned()
        }
        PeerIncompatible(_) => {
            format!("the server's TLS and ours have too little in common ({})", described(error))
        }
        PeerMisbehaved(_) | InappropriateMessage { .. } | InappropriateHandshakeMessage { .. } => {
            format!("the server broke the rules of TLS ({})", described(error))
        }
        InvalidCertificate(CertificateError::BadSignature) => {
            "the server did not prove that it has the key of its certificate".to_owned()
        }
        InvalidCertificate(fault) => format!("the server's certificate cannot be used: it {}", faulty(fault)),
        _ => described(error),
    }
}

/// What the server had to say. With TLS 1.3 it does not look at our certificate before the handshake is over for us.
fn alerted(alert: AlertDescription) -> String {
    use AlertDescription::{
        AccessDenied, BadCertificate, CertificateExpired, CertificateRequired, CertificateRevoked,
        CertificateUnknown, UnknownCA, UnrecognisedName, UnsupportedCertificate,
    };
    let meaning = match alert {
        BadCertificate
        | UnsupportedCertificate
        | CertificateRevoked
        | CertificateExpired
        | CertificateUnknown
        | UnknownCA
        | AccessDenied => "the server does not accept our certificate",
        CertificateRequired => "the server asks for a certificate of ours",
        UnrecognisedName => "the server has no certificate for the name that was asked for",
        _ => "the server broke off TLS",
    };
    format!("{meaning} (alert: {})", spaced(&format!("{alert:?}")))
}

/// Why `chain`, the server's own certificate first, is not trusted: goes on after "Server certificate not trusted: ".
pub(super) fn untrusted(error: &Error, chain: &[CertificateDer<'_>], nobody_is_trusted: bool) -> String {
    let own = chain.first().and_then(|own| Certificate::parse(own));
    let of_itself = own.as_ref().is_some_and(Certificate::is_self_issued);
    let fault = match error {
        Error::InvalidCertificate(fault) => fault,
        other => return described(other),
    };
    match fault {
        CertificateError::ExpiredContext { not_after: at, .. }
        | CertificateError::NotValidYetContext { not_before: at, .. } => {
            let is_own = own.is_some_and(|own| own.begins_or_ends_at(at.as_secs()));
            format!("{} {}", if is_own { "it" } else { "a certificate of its authority" }, faulty(fault))
        }
        CertificateError::UnknownIssuer if of_itself => {
            "it is signed by itself, and is not among those that are trusted".to_owned()
        }
        _ if of_itself && is_authority(error) => {
            "it is signed by itself, and is not among those that are trusted".to_owned()
        }
        _ if is_unread(fault) && chain.first().is_some_and(|own| EndEntityCert::try_from(own).is_ok()) => {
            format!("a certificate of its authority {}", faulty(fault))
        }
        _ if webpki_error(fault) == Some(&webpki::Error::UnsupportedCertVersion) => format!(
            "it {}, so it names no host: make it anew with a subjectAltName (openssl x509 -req takes one from -extfile), or \
             ask for its fingerprint",
            faulty(fault)
        ),
        CertificateError::UnknownIssuer => unknown_issuer(chain, nobody_is_trusted),
        other => format!("it {}", faulty(other)),
    }
}

/// Whether the fault is that an authority's certificate is used as a server's.
pub(super) fn is_authority(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(fault) if webpki_error(fault) == Some(&webpki::Error::CaUsedAsEndEntity))
}

/// Follows the chain as far as it leads.
fn unknown_issuer(chain: &[CertificateDer<'_>], nobody_is_trusted: bool) -> String {
    let sent: Vec<_> = chain.iter().filter_map(|der| Certificate::parse(der)).collect();
    let Some(mut last) = sent.first() else { return "it cannot be read".to_owned() };
    for _ in &sent {
        match sent.iter().find(|other| last.is_issued_by(other)) {
            Some(other) if !last.is_self_issued() => last = other,
            _ => break,
        }
    }
    let mut words = format!("its authority {} is not among those that are trusted", last.issuer());
    if nobody_is_trusted {
        words += " (there are none here)";
    } else if !last.is_self_issued() {
        words += ", and the server sent no certificate that leads from there to one of them";
    }
    words
}

/// A fault of a certificate: goes on after "it ".
fn faulty(fault: &CertificateError) -> String {
    use CertificateError::{
        BadEncoding, BadSignature, Expired, ExpiredContext, InvalidPurpose, InvalidPurposeContext,
        NotValidYet, NotValidYetContext, UnhandledCriticalExtension, UnknownIssuer,
        UnsupportedSignatureAlgorithmContext, UnsupportedSignatureAlgorithmForPublicKeyContext,
    };
    match fault {
        ExpiredContext { not_after, .. } => format!("expired on {}", date(not_after.as_secs())),
        Expired => "ends before it begins".to_owned(),
        NotValidYetContext { time, not_before } => {
            let (begins, now) = (date(not_before.as_secs()), date(time.as_secs()));
            format!("is not valid before {begins} (it is {now} here)")
        }
        NotValidYet => "is not valid yet".to_owned(),
        BadEncoding => "cannot be read".to_owned(),
        BadSignature => "was not signed by the authority that it names".to_owned(),
        InvalidPurpose | InvalidPurposeContext { .. } => {
            "is not meant for servers (its extended key usage has no serverAuth)".to_owned()
        }
        UnhandledCriticalExtension => UNKNOWN_DEMAND.to_owned(),
        UnknownIssuer => "is from an authority that is not trusted".to_owned(),
        UnsupportedSignatureAlgorithmContext { .. }
        | UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "is signed in a way that is not supported, or too weak".to_owned()
        }
        CertificateError::Other(OtherError(other)) if other.is::<UnusableKey>() => {
            format!(
                "has a key {other}; RSA of 2048 to 8192 bits, P-256, P-384 and Ed25519 are what is known here"
            )
        }
        other => match webpki_error(other) {
            Some(webpki::Error::CaUsedAsEndEntity) => {
                "is that of an authority and not of a server".to_owned()
            }
            Some(webpki::Error::NameConstraintViolation) => {
                "is for a name that its authority may not vouch for".to_owned()
            }
            Some(webpki::Error::UnsupportedCriticalExtension) => UNKNOWN_DEMAND.to_owned(),
            Some(webpki::Error::UnsupportedCertVersion) => "is older than version 3 of X.509".to_owned(),
            Some(error) => format!("is malformed or too complex ({})", spaced(&format!("{error:?}"))),
            None => format!("is not accepted ({})", shortened(&printable(other.to_string().as_bytes()))),
        },
    }
}

/// Whether it is one of those for which webpki does not read a certificate at all.
fn is_unread(fault: &CertificateError) -> bool {
    use webpki::Error::{UnsupportedCertVersion, UnsupportedCriticalExtension};
    matches!(webpki_error(fault), Some(UnsupportedCertVersion | UnsupportedCriticalExtension))
}

fn webpki_error(fault: &CertificateError) -> Option<&webpki::Error> {
    match fault {
        CertificateError::Other(other) => other.0.downcast_ref(),
        _ => None,
    }
}

/// That `own` is for others than the `accepted`: goes on after "Server certificate not verified: ".
pub(super) fn other_names(own: &CertificateDer<'_>, accepted: &[Accepted<'_>]) -> String {
    let hosts = Certificate::parse(own).and_then(|own| own.hosts());
    let hosts = hosts.as_deref().unwrap_or("no host (a common name alone does not count)");
    let wanted: Vec<_> = accepted.iter().map(ToString::to_string).collect();
    match wanted.as_slice() {
        [] => format!("it is for {hosts}, and no name is configured that would do"),
        wanted => format!("it is for {hosts} and not for {}", wanted.join(" or ")),
    }
}

/// That neither the certificate nor its key is known: goes on after "Server certificate not verified: ".
pub(super) fn other_fingerprints(certificate: Fingerprint, key: Option<Fingerprint>) -> String {
    let certificate = colons(certificate);
    match key.map(colons) {
        Some(key) => format!(
            "neither its fingerprint {certificate} nor that of its public key, {key}, is among those that are expected"
        ),
        None => format!("its fingerprint {certificate} is not among those that are expected"),
    }
}

fn colons(Fingerprint(octets): Fingerprint) -> String {
    octets.map(|octet| format!("{octet:02X}")).join(":")
}

/// The versions that are offered.
fn versions(offered: TlsProtocols) -> String {
    let all = [(offered.v1_2, "TLSv1.2"), (offered.v1_3, "TLSv1.3")];
    let named: Vec<_> = all.into_iter().filter(|(wanted, _)| *wanted).map(|(_, name)| name).collect();
    named.join(" and ")
}

/// Whether the first line is one of a server that speaks LMTP or ESMTP, or anything that people can read.
fn is_text(heard: &[u8]) -> bool {
    let line = heard.split(|octet| matches!(octet, b'\r' | b'\n')).next().unwrap_or_default();
    line.len() >= 4 && line.iter().all(|octet| octet.is_ascii_graphic() || *octet == b' ')
}

fn described(error: &Error) -> String {
    shortened(&printable(error.to_string().as_bytes()))
}

/// `HandshakeFailure` as people write it: `handshake failure`.
fn spaced(name: &str) -> String {
    let mut spaced = String::new();
    let mut was_upper = true;
    for c in name.chars().take(200) {
        if c.is_uppercase() && !was_upper {
            spaced.push(' ');
        }
        was_upper = c.is_uppercase();
        spaced.push(c);
    }
    let is_word = |word: &str| word.chars().skip(1).any(char::is_lowercase);
    let lowered =
        spaced.split(' ').map(|word| if is_word(word) { word.to_lowercase() } else { word.to_owned() });
    lowered.collect::<Vec<_>>().join(" ")
}
