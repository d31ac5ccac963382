//! TLS policies: what `…_tls_policy_maps` says of a next hop.
//!
//! - Owns: which entry is about a next hop, what it says, and the TLS that follows from it.
//! - Leaves to others: tables (`maps`), the parameters that hold without an entry (`parameters`).
//! - Always true: an entry that is not understood whole makes no policy, so mail waits for who wrote it.

use super::maps::{LookupError, Maps};
use super::parameters::{self, TlsSettings, elements, without_braces};
use crate::config::{CertMatch, Fingerprint, Tls, TlsLevel, TlsProtocols, TlsServerName};

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    level: TlsLevel,
    matches: Vec<CertMatch>,
    fingerprints: Vec<Fingerprint>,
    servername: Option<TlsServerName>,
    protocols: Option<TlsProtocols>,
}

/// Why there is no policy. The words are for the log; the mail is deferred.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The table gave no answer.
    #[error(transparent)]
    LookUp(#[from] LookupError),
    /// The entry cannot be followed.
    #[error("next-hop destination \"{key}\": {what}")]
    Entry {
        /// Where it stands in the table.
        key: String,
        /// What is wrong with it.
        what: String,
    },
}

/// The entry about a next hop, as far as the tables have one.
pub fn find(maps: &Maps, next_hop: &str) -> Result<Option<Policy>, PolicyError> {
    for key in keys(next_hop) {
        if let Some(text) = maps.look_up(key)? {
            let policy = Policy::parse(&text);
            return policy.map(Some).map_err(|what| PolicyError::Entry { key: key.to_owned(), what });
        }
    }
    Ok(None)
}

/// What a next hop is looked up by: itself, and if that is the bare name of a host, the domains above it.
fn keys(next_hop: &str) -> impl Iterator<Item = &str> {
    let fits =
        |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.') || !octet.is_ascii();
    let is_address = next_hop.bytes().all(|octet| octet.is_ascii_digit() || octet == b'.');
    let is_name = next_hop.bytes().all(fits) && !is_address;
    let above = next_hop.match_indices('.').filter(move |(at, _)| is_name && *at > 0);
    std::iter::once(next_hop).chain(above.filter_map(|(at, _)| next_hop.get(at..)))
}

impl Policy {
    /// A level, and attributes behind it.
    fn parse(text: &str) -> Result<Self, String> {
        let mut words = elements(text)?.into_iter();
        let word = words.next().ok_or("the policy is empty")?;
        let level = parameters::level(word).map_err(|what| format!("{word:?} cannot be followed: {what}"))?;
        let mut policy =
            Self { level, matches: Vec::new(), fingerprints: Vec::new(), servername: None, protocols: None };
        // As in Postfix, attributes mean nothing where there is no TLS.
        for word in words.filter(|_| level > TlsLevel::None) {
            let assignment = without_braces(word).unwrap_or(word);
            let (name, value) =
                assignment.split_once('=').ok_or_else(|| format!("{assignment:?} is no name=value"))?;
            policy.set(&name.trim().to_ascii_lowercase(), value.trim())?;
        }
        Ok(policy)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match (name, self.level) {
            ("match" | "servername" | "ciphers", _) if value.is_empty() => {
                Err(format!("{name}= has no value"))
            }
            ("match", TlsLevel::Fingerprint) => append(&mut self.fingerprints, value.split('|')),
            ("match", TlsLevel::Verify | TlsLevel::Secure) => append(&mut self.matches, value.split(':')),
            ("match", level) => Err(format!("match= means nothing at the level {level}")),
            ("servername", _) => once(name, &mut self.servername, parameters::server_name(value)?),
            ("protocols", _) => once(name, &mut self.protocols, parameters::protocols(value)?),
            // They choose among ciphers that are not spoken here, or tell how connections are kept.
            ("ciphers" | "exclude" | "connection_reuse", _) => Ok(()),
            // What a plugin for MTA-STS says of itself; what it asks for stands in match= and servername=.
            (
                "policy_type" | "policy_ttl" | "policy_domain" | "policy_string" | "policy_failure"
                | "mx_host_pattern",
                _,
            ) => Ok(()),
            ("enable_rpk", _) if !value.eq_ignore_ascii_case("yes") => Ok(()),
            ("enable_rpk", _) => {
                Err("servers are known by certificates here, not by raw public keys".to_owned())
            }
            ("tafile", _) => Err("trust anchors for one policy are not known here".to_owned()),
            _ => Err(format!("there is no attribute {name:?}")),
        }
    }

    /// The TLS that this policy makes of the one that holds else. The error tells why no server could meet it.
    pub fn over(&self, tls: &Tls, settings: &TlsSettings) -> Result<Tls, String> {
        let mut exact = tls.clone();
        exact.security_level = Some(self.level);
        exact.protocols = self.protocols.unwrap_or_else(|| settings.protocols_at(self.level));
        if let Some(name) = &self.servername {
            exact.servername = name.clone();
        }
        if !self.matches.is_empty() {
            exact.verify_cert_match.clone_from(&self.matches);
            exact.secure_cert_match.clone_from(&self.matches);
        }
        if !self.fingerprints.is_empty() {
            exact.fingerprints.clone_from(&self.fingerprints);
        }
        let missing = match self.level {
            TlsLevel::Fingerprint if !settings.fingerprints_are_sha256 => {
                "fingerprints are SHA-256 here, and tls_fingerprint_digest says otherwise"
            }
            TlsLevel::Fingerprint if exact.fingerprints.is_empty() => "there is no fingerprint to match",
            TlsLevel::Verify if exact.verify_cert_match.is_empty() => "there is no name to match",
            TlsLevel::Secure if exact.secure_cert_match.is_empty() => "there is no name to match",
            _ => return Ok(exact),
        };
        Err(missing.to_owned())
    }
}

fn once<T>(name: &str, place: &mut Option<T>, value: T) -> Result<(), String> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("{name}= is there twice")),
    }
}

fn append<'a, T: std::str::FromStr<Err = String>>(
    place: &mut Vec<T>,
    words: impl Iterator<Item = &'a str>,
) -> Result<(), String> {
    for word in words.map(str::trim).filter(|word| !word.is_empty()) {
        place.push(word.parse()?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flags;
    use crate::mail::Protocol;
    use crate::postfix::maps::Tables;
    use crate::postfix::parameters::{Settings, Values};
    use proptest::prelude::*;

    fn settings(maps: &str) -> Settings {
        let values: Values = [
            ("mail_version", "3.7.11"),
            ("queue_directory", "/var/spool/postfix"),
            ("myhostname", "mx.example.org"),
            ("lmtp_tls_security_level", "may"),
            ("lmtp_tls_protocols", "TLSv1.2"),
            ("lmtp_tls_mandatory_protocols", "TLSv1.3"),
        ]
        .into_iter()
        .collect();
        let values = values.with("lmtp_tls_policy_maps", maps);
        Settings::from_values(&values, Protocol::Lmtp, Flags::default()).unwrap()
    }

    fn name(name: &str) -> CertMatch {
        CertMatch::Name(name.to_owned())
    }

    #[test]
    fn only_a_bare_name_has_domains_above_it() {
        for (next_hop, expected) in [
            ("mx.example.org", &["mx.example.org", ".example.org", ".org"][..]),
            ("localhost", &["localhost"]),
            ("[mx.example.org]", &["[mx.example.org]"]),
            ("mx.example.org:2424", &["mx.example.org:2424"]),
            ("[mx.example.org]:2424", &["[mx.example.org]:2424"]),
            ("192.0.2.1", &["192.0.2.1"]),
            ("[2001:db8::1]", &["[2001:db8::1]"]),
            ("/run/dovecot/lmtp.sock", &["/run/dovecot/lmtp.sock"]),
            ("", &[""]),
        ] {
            assert_eq!(keys(next_hop).collect::<Vec<_>>(), expected, "{next_hop}");
        }
    }

    #[test]
    fn the_closest_entry_counts() {
        let maps = "inline:{ {mx.example.org = encrypt}, {.example.org = none}, {.org = may}, {[mx.example.org]:25 = verify}, \
                    {/run/lmtp = encrypt}, {bad.example.org = dane} }";
        let tables = Tables::open(&settings(maps)).unwrap();
        for (next_hop, level) in [
            ("mx.example.org", Some(TlsLevel::Encrypt)),
            ("MX.Example.org", Some(TlsLevel::Encrypt)),
            ("other.example.org", Some(TlsLevel::None)),
            ("example.org", Some(TlsLevel::May)),
            ("[mx.example.org]:25", Some(TlsLevel::Verify)),
            ("[mx.example.org]", None),
            ("mx.example.org:25", None),
            ("/run/lmtp", Some(TlsLevel::Encrypt)),
            ("mx.example.net", None),
        ] {
            let found = find(&tables.tls_policy_maps, next_hop).unwrap();
            assert_eq!(found.map(|policy| policy.level), level, "{next_hop}");
        }
        // What is wrong with an entry is not made good by another one.
        let told = find(&tables.tls_policy_maps, "bad.example.org").unwrap_err().to_string();
        assert!(told.starts_with("next-hop destination \"bad.example.org\": \"dane\" cannot be "), "{told}");
    }

    #[test]
    fn an_entry_has_a_level_and_attributes() {
        let bare = |level| Policy {
            level,
            matches: Vec::new(),
            fingerprints: Vec::new(),
            servername: None,
            protocols: None,
        };
        let digits = "00".repeat(32);
        for (text, expected) in [
            ("may", bare(TlsLevel::May)),
            ("ENCRYPT, ciphers=high exclude=aNULL connection_reuse=no", bare(TlsLevel::Encrypt)),
            ("none match=x unheard=of", bare(TlsLevel::None)),
            (
                "secure match=MX.example.org:.example.net Match=nexthop",
                Policy {
                    matches: vec![
                        name("mx.example.org"),
                        CertMatch::Below("example.net".to_owned()),
                        CertMatch::Nexthop,
                    ],
                    ..bare(TlsLevel::Secure)
                },
            ),
            (
                "verify {servername = front.example} protocols=!TLSv1.2",
                Policy {
                    servername: Some(TlsServerName::Name("front.example".to_owned())),
                    protocols: Some(TlsProtocols { v1_2: false, v1_3: true }),
                    ..bare(TlsLevel::Verify)
                },
            ),
            (
                "encrypt servername=hostname policy_type=sts policy_ttl=86400 mx_host_pattern=*.example.org",
                Policy { servername: Some(TlsServerName::Hostname), ..bare(TlsLevel::Encrypt) },
            ),
            (
                &format!("fingerprint match={digits}|{} enable_rpk=no", digits.replace('0', "f")),
                Policy {
                    fingerprints: vec![Fingerprint([0; 32]), Fingerprint([0xff; 32])],
                    ..bare(TlsLevel::Fingerprint)
                },
            ),
        ] {
            assert_eq!(Policy::parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_makes_no_policy() {
        for text in [
            "",
            "must",
            "dane",
            "half-dane",
            "secure match",
            "secure match=",
            "secure match=a/b",
            "encrypt match=mx.example.org",
            "fingerprint match=mx.example.org",
            "secure tafile=/etc/ssl/ta.pem",
            "secure enable_rpk=yes",
            "encrypt servername=",
            "encrypt servername=a servername=b",
            "encrypt protocols=TLSv1.1",
            "encrypt protocols=TLSv1.2 protocols=TLSv1.3",
            "encrypt ciphers=",
            "encrypt unheard=of",
            "encrypt {servername=a",
        ] {
            assert!(Policy::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_policy_replaces_what_it_names_and_leaves_the_rest() {
        let settings = settings("static:none");
        let usual = &settings.client.tls;
        let over = |text: &str| Policy::parse(text).unwrap().over(usual, &settings.tls);
        let only = |v1_3: bool| TlsProtocols { v1_2: !v1_3, v1_3 };
        let plain = over("may").unwrap();
        assert_eq!(plain, *usual);
        let encrypt = over("encrypt servername=front.example").unwrap();
        assert_eq!((encrypt.security_level, encrypt.protocols), (Some(TlsLevel::Encrypt), only(true)));
        assert_eq!(encrypt.servername, TlsServerName::Name("front.example".to_owned()));
        let secure = over("secure match=a.example protocols=TLSv1.2").unwrap();
        assert_eq!((secure.secure_cert_match, secure.protocols), (vec![name("a.example")], only(false)));
        assert_eq!(over("secure").unwrap().secure_cert_match, [CertMatch::Nexthop]);
        assert_eq!(over("verify").unwrap().verify_cert_match, [CertMatch::Hostname]);
        assert!(over("fingerprint").is_err());
        let digits = "00".repeat(32);
        assert_eq!(
            over(&format!("fingerprint match={digits}")).unwrap().fingerprints,
            [Fingerprint([0; 32])]
        );
        let md5 = TlsSettings { fingerprints_are_sha256: false, ..settings.tls.clone() };
        assert!(Policy::parse(&format!("fingerprint match={digits}")).unwrap().over(usual, &md5).is_err());
    }

    proptest! {
        #[test]
        fn any_entry_is_a_policy_or_none(text in "(none|may|secure|fingerprint)?[ ,{}=:a-z|]{0,40}") {
            let _ = Policy::parse(&text);
            prop_assert!(keys(&text).all(|key| text.ends_with(key)));
        }
    }
}
