//! TLS as main.cf describes it.
//!
//! - Owns: how Postfix's `…_tls_…` parameters become a transport's [`Tls`], and its ways to list versions and names.
//! - Leaves to others: entries of `…_tls_policy_maps` (`postfix::tls_policy`), the files that are named (`config`).
//! - Always true: where Postfix would insist on TLS, so does what is made here; what we cannot prove (DANE, digests other
//!   than SHA-256) is refused, never weakened.

use std::path::PathBuf;
use std::str::FromStr;

use super::transport::Parameters;
use crate::config::{CertMatch, Tls, TlsLevel, TlsProtocols, TlsServerName, Transport};
use crate::mail::Protocol;

/// What TLS goes by beside the transport's own fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// Versions at the level `may`.
    pub protocols: TlsProtocols,
    /// Versions at the levels above it.
    pub mandatory_protocols: TlsProtocols,
    /// Whether fingerprints are SHA-256: others cannot be compared here.
    pub fingerprints_are_sha256: bool,
    /// Whether the system's authorities are trusted beside those of `…_tls_CAfile` and `…_tls_CApath`.
    pub trusts_system: bool,
    /// Whether there are policy maps, so that other levels than the transport's may hold.
    pub has_policies: bool,
}

impl TlsSettings {
    /// The versions that are spoken at a level.
    pub fn protocols_at(&self, level: TlsLevel) -> TlsProtocols {
        if level.is_mandatory() { self.mandatory_protocols } else { self.protocols }
    }
}

/// Both versions.
const ALL: TlsProtocols = TlsProtocols { v1_2: true, v1_3: true };

impl Parameters<'_, '_> {
    /// Reads everything about TLS.
    pub(super) fn read_tls(&mut self, transport: &mut Transport) -> TlsSettings {
        self.read_timeout(&mut transport.timeouts.starttls, "starttls_timeout", "300s");
        transport.habits.tls_log = self.number("tls_loglevel", "0", 0, u64::from(u32::MAX)) > 0;
        let level = self.security_level();
        let settings = TlsSettings {
            protocols: self.parsed("tls_protocols", ">=TLSv1", protocols).unwrap_or(ALL),
            mandatory_protocols: self.parsed("tls_mandatory_protocols", ">=TLSv1", protocols).unwrap_or(ALL),
            fingerprints_are_sha256: self.digest_is_sha256(),
            trusts_system: self.reader.yes("tls_append_default_CA", false),
            has_policies: !self.text("tls_policy_maps", "").is_empty(),
        };
        let tls = &mut transport.tls;
        tls.security_level = Some(level);
        tls.protocols = settings.protocols_at(level);
        tls.wrappermode = self.yes("tls_wrappermode", false);
        tls.ca_file = self.path("tls_CAfile");
        tls.ca_path = self.path("tls_CApath");
        self.read_certificate(tls);
        tls.servername = self.parsed("tls_servername", "", server_name).unwrap_or(TlsServerName::None);
        tls.verify_cert_match = self.names("tls_verify_cert_match", "hostname");
        let secure = if self.protocol == Protocol::Lmtp { "nexthop" } else { "nexthop, dot-nexthop" };
        tls.secure_cert_match = self.names("tls_secure_cert_match", secure);
        self.read_fingerprints(tls, &settings);
        self.refuse_contradictions(tls, level, &settings);
        settings
    }

    /// The level, also as it was said before there were levels.
    fn security_level(&mut self) -> TlsLevel {
        let (must, should) = (self.yes("enforce_tls", false), self.yes("use_tls", false));
        let with_name = self.yes("tls_enforce_peername", true);
        let unsaid = match (must, should) {
            (true, _) if with_name => TlsLevel::Verify,
            (true, _) => TlsLevel::Encrypt,
            (false, true) => TlsLevel::May,
            (false, false) => TlsLevel::None,
        };
        let name = self.name("tls_security_level");
        let protocol = self.protocol;
        let parse = |text: &str| {
            match text {
            "" => Ok(unsaid),
            text => level(text).map_err(|what| match is_dane(text) {
                true => format!(
                    "{what}; start with -o {name}=encrypt, which asks for no certificate, or =secure, or let Postfix's own \
                     {protocol} deliver this mail"
                ),
                false => what,
            }),
        }
        };
        // Where it is wrong nothing starts, so nobody goes by this.
        self.parsed("tls_security_level", "", parse).unwrap_or(TlsLevel::Secure)
    }

    fn digest_is_sha256(&mut self) -> bool {
        self.text("tls_fingerprint_digest", "sha256").eq_ignore_ascii_case("sha256")
    }

    fn path(&mut self, suffix: &str) -> Option<PathBuf> {
        Some(self.text(suffix, "")).filter(|text| !text.is_empty()).map(PathBuf::from)
    }

    /// The certificate that we show: `…_tls_chain_files`, which come before the others, or the one of RSA or of ECDSA.
    fn read_certificate(&mut self, tls: &mut Tls) {
        let chain = self.list("tls_chain_files", "");
        let [rsa, ecdsa] = [["tls_cert_file", "tls_key_file"], ["tls_eccert_file", "tls_eckey_file"]]
            .map(|[certificate, key]| self.path(certificate).map(|path| (path, self.path(key))));
        let shown = match chain.as_slice() {
            [] if rsa.is_some() && ecdsa.is_some() => {
                let other = self.name("tls_cert_file");
                self.refuse(
                    "tls_eccert_file",
                    format!("one certificate can be shown, and there is {other}, too"),
                );
                None
            }
            [] => rsa.or(ecdsa),
            [file] => Some((PathBuf::from(file), None)),
            _ => {
                self.refuse("tls_chain_files", "one file is needed, with a key and its certificates");
                None
            }
        };
        let (certificate, key) = shown.unzip();
        tls.key_file = key.flatten().filter(|key| Some(key) != certificate.as_ref());
        tls.cert_file = certificate;
    }

    /// Names of certificates.
    fn names(&mut self, suffix: &str, default: &'static str) -> Vec<CertMatch> {
        let parse = |text: &str| {
            let words = text.split([',', ':', ' ', '\t']).filter(|word| !word.is_empty());
            words.map(CertMatch::from_str).collect::<Result<Vec<_>, _>>()
        };
        self.parsed(suffix, default, parse).unwrap_or_default()
    }

    /// Fingerprints: only of SHA-256 can there be any.
    fn read_fingerprints(&mut self, tls: &mut Tls, settings: &TlsSettings) {
        if settings.fingerprints_are_sha256 {
            let parse = |text: &str| {
                let words = text.split([',', ' ', '\t']).filter(|word| !word.is_empty());
                words.map(str::parse).collect::<Result<Vec<_>, String>>()
            };
            tls.fingerprints = self.parsed("tls_fingerprint_cert_match", "", parse).unwrap_or_default();
        } else if !self.text("tls_fingerprint_cert_match", "").is_empty() {
            self.refuse(
                "tls_fingerprint_digest",
                "fingerprints are SHA-256 here: set it to sha256, with such fingerprints",
            );
        }
    }

    /// What no server could meet, while no policy can say otherwise.
    fn refuse_contradictions(&mut self, tls: &Tls, level: TlsLevel, settings: &TlsSettings) {
        if settings.has_policies {
            return;
        }
        let level_name = self.name("tls_security_level");
        if tls.wrappermode && !level.is_mandatory() {
            let what = format!(
                "TLS begins with the connection then, which needs {level_name} = encrypt or a higher level"
            );
            self.refuse("tls_wrappermode", what);
        }
        if level == TlsLevel::Fingerprint && settings.fingerprints_are_sha256 && tls.fingerprints.is_empty() {
            let what =
                format!("the level is {level}, and there is no fingerprint that a certificate could have");
            self.refuse("tls_fingerprint_cert_match", what);
        }
        for (at, names, suffix) in [
            (TlsLevel::Verify, &tls.verify_cert_match, "tls_verify_cert_match"),
            (TlsLevel::Secure, &tls.secure_cert_match, "tls_secure_cert_match"),
        ] {
            if level == at && names.is_empty() {
                self.refuse(
                    suffix,
                    format!("the level is {level}, and there is no name that a certificate could be for"),
                );
            }
        }
    }
}

/// A level, in capital or small letters. The error names those that there are.
pub(in crate::postfix) fn level(text: &str) -> Result<TlsLevel, String> {
    if is_dane(text) {
        return Err(
            "DANE needs DNSSEC, and host names are looked up here by the system's resolver, which does not \
                    tell whether that vouches for an answer"
                .to_owned(),
        );
    }
    Ok(text.to_ascii_lowercase().parse()?)
}

/// Whether a level goes by records of the DNS.
fn is_dane(text: &str) -> bool {
    ["dane", "dane-only", "half-dane"].iter().any(|level| level.eq_ignore_ascii_case(text))
}

/// The name that a handshake asks for. Without look-ups of MX records the host is what the next hop names.
pub(in crate::postfix) fn server_name(text: &str) -> Result<TlsServerName, String> {
    match text {
        "" => Ok(TlsServerName::None),
        "hostname" | "nexthop" => Ok(TlsServerName::Hostname),
        name => name.parse(),
    }
}

/// Versions of TLS by Postfix's names, and their numbers on the wire. The first one was never more than a name to it.
const VERSIONS: [(&str, u16); 6] = [
    ("SSLv2", 0x0200),
    ("SSLv3", 0x0300),
    ("TLSv1", 0x0301),
    ("TLSv1.1", 0x0302),
    ("TLSv1.2", TLS_1_2),
    ("TLSv1.3", TLS_1_3),
];
const TLS_1_2: u16 = 0x0303;
const TLS_1_3: u16 = 0x0304;

/// Those of a list of versions that are spoken here. Names include a version, or exclude it behind `!`; `>=` and `<=` are
/// bounds, of names or of numbers as they are on the wire.
pub(in crate::postfix) fn protocols(text: &str) -> Result<TlsProtocols, String> {
    let (mut included, mut excluded) = (Vec::new(), Vec::new());
    let (mut floor, mut ceiling) = (0, u16::MAX);
    for word in text.split([',', ':', ' ', '\t']).filter(|word| !word.is_empty()) {
        if let Some(least) = word.strip_prefix(">=") {
            floor = bound(least)?;
        } else if let Some(most) = word.strip_prefix("<=") {
            ceiling = bound(most)?;
        } else if let Some(name) = word.strip_prefix('!') {
            excluded.push(version(name)?);
        } else {
            included.push(version(word)?);
        }
    }
    let is_spoken = |number: u16| {
        let is_meant = included.is_empty() || included.contains(&number);
        is_meant && !excluded.contains(&number) && (floor..=ceiling).contains(&number)
    };
    match (is_spoken(TLS_1_2), is_spoken(TLS_1_3)) {
        (false, false) => {
            Err("TLSv1.2 and TLSv1.3 are spoken here, and it leaves neither of them".to_owned())
        }
        (v1_2, v1_3) => Ok(TlsProtocols { v1_2, v1_3 }),
    }
}

fn version(name: &str) -> Result<u16, String> {
    let known = VERSIONS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    known.map(|(_, number)| *number).ok_or_else(|| {
        let names: Vec<_> = VERSIONS.iter().skip(1).map(|(name, _)| *name).collect();
        format!("{name:?} is no version of TLS; the versions are {}", names.join(", "))
    })
}

/// A bound: a name, or hexadecimal digits.
fn bound(text: &str) -> Result<u16, String> {
    let is_number = (1..=4).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_hexdigit());
    match u16::from_str_radix(text, 16) {
        Ok(number) if is_number => Ok(number),
        _ => version(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn versions_are_named_excluded_and_bounded() {
        for (text, spoken) in [
            ("", Some((true, true))),
            (">=TLSv1", Some((true, true))),
            (">=tlsv1.3", Some((false, true))),
            (">=0303", Some((true, true))),
            (">=304", Some((false, true))),
            (">=TLSv1, <=TLSv1.2", Some((true, false))),
            ("!SSLv2, !SSLv3", Some((true, true))),
            ("!SSLv2:!SSLv3:!TLSv1:!TLSv1.1:!TLSv1.2", Some((false, true))),
            ("TLSv1.2", Some((true, false))),
            ("TLSv1.2 TLSv1.3", Some((true, true))),
            ("TLSv1.2, !TLSv1.2", None),
            ("TLSv1.1, TLSv1.3", Some((false, true))),
            ("TLSv1", None),
            ("!TLSv1.2 !TLSv1.3", None),
            ("<=TLSv1.1", None),
            (">=0305", None),
            ("TLSv1.4", None),
            ("!TLS", None),
            (">=", None),
            (">=03 03", None),
        ] {
            let read = protocols(text).ok().map(|protocols| (protocols.v1_2, protocols.v1_3));
            assert_eq!(read, spoken, "{text:?}");
        }
    }

    #[test]
    fn levels_have_their_names_and_dane_is_refused() {
        for (text, known) in [
            ("none", Some(TlsLevel::None)),
            ("May", Some(TlsLevel::May)),
            ("ENCRYPT", Some(TlsLevel::Encrypt)),
            ("fingerprint", Some(TlsLevel::Fingerprint)),
            ("verify", Some(TlsLevel::Verify)),
            ("secure", Some(TlsLevel::Secure)),
            ("dane", None),
            ("dane-only", None),
            ("Half-Dane", None),
            ("must", None),
            ("", None),
        ] {
            assert_eq!(level(text).ok(), known, "{text:?}");
        }
        assert!(level("dane").unwrap_err().contains("DNSSEC"));
        assert!(!level("must").unwrap_err().contains("DNSSEC"));
    }

    proptest! {
        #[test]
        fn any_list_of_versions_leaves_one_or_is_refused(text in "[!<>=TLSv1.23, :]{0,40}") {
            if let Ok(spoken) = protocols(&text) {
                prop_assert!(spoken.v1_2 || spoken.v1_3);
            }
        }
    }
}
