//! The policy table: what TLS has to be for single servers.
//!
//! - Owns: `[transport.NAME.tls_policy]`, the syntax of its entries, which of them holds for a server.
//! - Leaves to others: the keys of the transport that hold without an entry (`tls`).
//! - Always true: an entry says nothing that its level does not look at, so nobody relies on what has no effect.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::keys::{Given, Wrong, WrongEntry};
use super::parse;
use super::server_key::ServerKey;
use super::tls::{CertMatch, Fingerprint, TlsLevel, TlsProtocols, TlsServerName};
use crate::mail::Server;

/// What holds for single servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsPolicies(BTreeMap<ServerKey, PolicyEntry>);

/// What a line of the policy table says. What it does not say is the transport's affair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PolicyEntry {
    /// The key as it was written.
    pub(super) name: String,
    pub(super) level: TlsLevel,
    pub(super) matches: Option<Vec<CertMatch>>,
    pub(super) fingerprints: Option<Vec<Fingerprint>>,
    pub(super) servername: Option<TlsServerName>,
    pub(super) protocols: Option<TlsProtocols>,
}

impl TlsPolicies {
    /// Adds what holds for the server that `name` names, in the syntax of the table: `secure match=.example.org`. The error
    /// is half a sentence.
    pub fn add(&mut self, name: &str, text: &str) -> Result<(), String> {
        let entry = PolicyEntry::parse(name, text)?;
        match self.0.entry(ServerKey::parse(name)?) {
            Entry::Occupied(other) => {
                Err(format!("there is already a policy for it, {:?}", other.get().name))
            }
            Entry::Vacant(vacant) => {
                vacant.insert(entry);
                Ok(())
            }
        }
    }

    /// The levels that occur.
    pub fn levels(&self) -> impl Iterator<Item = TlsLevel> {
        self.0.values().map(|entry| entry.level)
    }

    /// The levels of entries that go by the names or fingerprints of the transport's keys.
    pub fn levels_without_match(&self) -> impl Iterator<Item = TlsLevel> {
        let is_bare = |entry: &&PolicyEntry| entry.matches.is_none() && entry.fingerprints.is_none();
        self.0.values().filter(is_bare).map(|entry| entry.level)
    }

    /// The value of `tls_policy`.
    pub(super) fn read(given: &Given) -> Result<Self, Wrong> {
        let mut policies = Self::default();
        let mut wrong = Vec::new();
        for (name, given) in parse::inline_table(given)? {
            let added = parse::one_text(&name, &given, &WORDS, "secure match=mx.example.org")
                .and_then(|()| policies.add(&name, given.text()?));
            if let Err(what) = added {
                wrong.push(WrongEntry { name, given, what });
            }
        }
        if wrong.is_empty() { Ok(policies) } else { Err(Wrong::Entries(wrong)) }
    }

    /// The entry that fits `server` most closely.
    pub(super) fn find(&self, server: &Server) -> Option<&PolicyEntry> {
        if self.0.is_empty() {
            return None;
        }
        ServerKey::of(server).iter().find_map(|key| self.0.get(key))
    }

    /// All entries, and whether each is about a socket.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&PolicyEntry, bool)> {
        self.0.iter().map(|(key, entry)| (entry, matches!(key, ServerKey::Socket(_))))
    }
}

impl PolicyEntry {
    /// A level, and attributes behind it.
    fn parse(name: &str, text: &str) -> Result<Self, String> {
        let mut words = text.split_ascii_whitespace();
        let level: TlsLevel = words.next().unwrap_or_default().parse()?;
        let name = name.to_owned();
        let mut entry =
            Self { name, level, matches: None, fingerprints: None, servername: None, protocols: None };
        for word in words {
            let (attribute, value) = word.split_once('=').unwrap_or((word, ""));
            if !is_plain(attribute) {
                return Err(format!("behind the level, only {ATTRIBUTES} can stand"));
            }
            if value.is_empty() {
                return Err(format!("{word:?} is no attribute: behind the level, {ATTRIBUTES} can stand"));
            }
            entry.set(attribute, value)?;
        }
        Ok(entry)
    }

    fn set(&mut self, attribute: &str, value: &str) -> Result<(), String> {
        let level = self.level;
        match attribute {
            _ if level == TlsLevel::None => {
                Err(format!("{attribute}= has no effect where the level is none"))
            }
            "match" if level == TlsLevel::Fingerprint => {
                once(attribute, &mut self.fingerprints, Fingerprint::list(value.split('|'))?)
            }
            "match" if !level.authenticates() => {
                Err(format!("match= has no effect at the level {level}, which takes any certificate"))
            }
            "match" => once(attribute, &mut self.matches, CertMatch::list(value.split(':'))?),
            "servername" => once(attribute, &mut self.servername, value.parse()?),
            "protocols" => once(attribute, &mut self.protocols, TlsProtocols::of(value.split([':', ',']))?),
            other => {
                Err(format!("there is no attribute {other:?}: behind the level, {ATTRIBUTES} can stand"))
            }
        }
    }
}

/// What somebody may take for keys of an entry.
const WORDS: [&str; 4] = ["level", "match", "protocols", "servername"];
/// What can stand behind a level.
const ATTRIBUTES: &str = "match=, servername= and protocols=";

/// A wrong entry as it may be shown: what stands behind an attribute that there is not may be a secret, and what follows.
pub(super) fn shown(text: &str) -> String {
    let is_known = |(place, word): &(usize, &str)| match word.split_once('=') {
        Some((attribute, _)) => *place > 0 && matches!(attribute, "match" | "servername" | "protocols"),
        None => *place == 0 && is_plain(word),
    };
    let mut words = text.split_ascii_whitespace().enumerate().skip_while(is_known);
    let Some((place, unknown)) = words.next() else { return text.to_owned() };
    let before = text.split_ascii_whitespace().take(place).map(|word| format!("{word} "));
    let attribute = unknown.split_once('=').map(|(attribute, _)| attribute).filter(|word| is_plain(word));
    let attribute = attribute.map(|attribute| format!("{attribute}="));
    before.chain(attribute).chain(["(not shown)".to_owned()]).collect()
}

fn is_plain(word: &str) -> bool {
    !word.is_empty()
        && word.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'))
}

fn once<T>(attribute: &str, place: &mut Option<T>, value: T) -> Result<(), String> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("{attribute}= is there twice")),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;
    use crate::config::tls::Tls;
    use proptest::prelude::*;

    fn tcp(host: &str, port: u16) -> Server {
        Server::Tcp { host: host.to_owned(), port: NonZeroU16::new(port).unwrap() }
    }

    fn entry(text: &str) -> Result<PolicyEntry, String> {
        PolicyEntry::parse("mx", text)
    }

    fn names(names: &[&str]) -> Option<Vec<CertMatch>> {
        Some(names.iter().map(|name| CertMatch::Name((*name).to_owned())).collect())
    }

    #[test]
    fn an_entry_has_a_level_and_attributes() {
        let bare = |level| PolicyEntry { level, ..entry("none").unwrap() };
        assert_eq!(entry("may"), Ok(bare(TlsLevel::May)));
        assert_eq!(
            entry(" secure  match=MX.example.org:example.net servername=Front.example protocols=TLSv1.3 "),
            Ok(PolicyEntry {
                matches: names(&["mx.example.org", "example.net"]),
                servername: Some(TlsServerName::Name("front.example".to_owned())),
                protocols: Some(TlsProtocols { v1_2: false, v1_3: true }),
                ..bare(TlsLevel::Secure)
            })
        );
        assert_eq!(
            entry("verify match=hostname:.example.org:dot-nexthop:nexthop").unwrap().matches,
            Some(vec![
                CertMatch::Hostname,
                CertMatch::Below("example.org".to_owned()),
                CertMatch::DotNexthop,
                CertMatch::Nexthop
            ])
        );
        assert_eq!(
            entry("verify match=Hostname:DOT-nexthop:Nexthop:192.0.2.1:1.example").unwrap().matches,
            Some(vec![
                CertMatch::Hostname,
                CertMatch::DotNexthop,
                CertMatch::Nexthop,
                CertMatch::Name("192.0.2.1".to_owned()),
                CertMatch::Name("1.example".to_owned())
            ])
        );
        for (text, servername) in [
            ("may servername=nexthop", TlsServerName::Hostname),
            ("may servername=HostName", TlsServerName::Hostname),
            ("may servername=None", TlsServerName::None),
        ] {
            assert_eq!(entry(text).unwrap().servername, Some(servername), "{text}");
        }
        let both = format!("fingerprint match={}|{}", "aB".repeat(32), ["01"; 32].join(":"));
        assert_eq!(
            entry(&both).unwrap().fingerprints,
            Some(vec![Fingerprint([0xab; 32]), Fingerprint([1; 32])])
        );
        assert_eq!(
            entry("encrypt protocols=TLSv1.2:TLSv1.3 servername=none"),
            Ok(PolicyEntry {
                protocols: Some(TlsProtocols { v1_2: true, v1_3: true }),
                servername: Some(TlsServerName::None),
                ..bare(TlsLevel::Encrypt)
            })
        );
    }

    #[test]
    fn what_an_entry_cannot_mean_is_refused_in_words() {
        for (text, said) in [
            ("", "a level is none, may, encrypt, fingerprint, verify or secure"),
            ("match=mx secure", "a level is none, may, encrypt, fingerprint, verify or secure"),
            ("dane", "a level is none, may, encrypt, fingerprint, verify or secure"),
            (
                "secure match",
                "\"match\" is no attribute: behind the level, match=, servername= and protocols= can stand",
            ),
            (
                "secure match=",
                "\"match=\" is no attribute: behind the level, match=, servername= and protocols= can stand",
            ),
            (
                "secure ciphers=x",
                "there is no attribute \"ciphers\": behind the level, match=, servername= and protocols= can stand",
            ),
            ("secure match=a match=b", "match= is there twice"),
            (
                "secure match=a:*.b",
                "\"*.b\" is no name of a host: names are compared as they are; write .b for all below b",
            ),
            ("secure match=a::b", "\"\" is no name of a host"),
            ("secure match=.1", "\".1\" is no name of a host"),
            ("secure match=25", "\"25\" is no name of a host"),
            ("verify match=mx.1", "\"mx.1\" is no name of a host"),
            ("verify match=..a", "\"..a\" is no name of a host"),
            ("encrypt match=a", "match= has no effect at the level encrypt, which takes any certificate"),
            ("none servername=a", "servername= has no effect where the level is none"),
            (
                "verify servername=192.0.2.1",
                "the server's name is \"hostname\", \"none\" or the name of a host; an address is none",
            ),
            (
                "verify servername=25",
                "the server's name is \"hostname\", \"none\" or the name of a host; an address is none",
            ),
            (
                "verify protocols=SSLv3",
                "there is no version \"SSLv3\"; the versions are TLSv1.2 and TLSv1.3, or >=TLSv1.2 for both",
            ),
            (
                "fingerprint match=mx.example.org",
                "\"mx.example.org\" is no fingerprint: 64 hexadecimal digits are needed, SHA-256 of the certificate \
                    or of its public key",
            ),
        ] {
            assert_eq!(entry(text).unwrap_err(), said, "{text}");
        }
    }

    #[test]
    fn a_wrong_entry_is_shown_as_far_as_its_words_are_known() {
        for (text, seen) in [
            ("dane", "dane"),
            (" secure  match=a:*.b", " secure  match=a:*.b"),
            ("secure match=a password=canary match=b", "secure match=a password=(not shown)"),
            ("secure password = canary", "secure (not shown)"),
            ("secure me:canary", "secure (not shown)"),
            ("secure me:canary=", "secure (not shown)"),
            ("me:canary", "(not shown)"),
            ("password=canary", "password=(not shown)"),
            ("match=canary", "match=(not shown)"),
            ("secure level=canary", "secure level=(not shown)"),
            ("", ""),
        ] {
            assert_eq!(shown(text), seen, "{text}");
            let wrong = entry(text).unwrap_err();
            assert!(!wrong.contains("canary"), "{text} gives {wrong}");
        }
    }

    #[test]
    fn the_closest_entry_holds() {
        let mut policies = TlsPolicies::default();
        for (name, text) in [
            ("mx.a.example:25", "verify"),
            ("mx.a.example", "encrypt"),
            (".a.example", "may"),
            (".example", "none"),
            ("[192.0.2.1]", "secure match=x"),
            ("/run/lmtp", "encrypt"),
        ] {
            policies.add(name, text).unwrap();
        }
        for (server, level) in [
            (tcp("mx.a.example", 25), Some(TlsLevel::Verify)),
            (tcp("mx.a.example", 24), Some(TlsLevel::Encrypt)),
            (tcp("other.a.example", 25), Some(TlsLevel::May)),
            (tcp("deep.other.a.example", 25), Some(TlsLevel::May)),
            (tcp("a.example", 25), Some(TlsLevel::None)),
            (tcp("example", 25), None),
            (tcp("mxa.example.org", 25), None),
            (tcp("192.0.2.1", 25), Some(TlsLevel::Secure)),
            (Server::Unix("/run/lmtp".into()), Some(TlsLevel::Encrypt)),
            (Server::Unix("/run/lmtp2".into()), None),
        ] {
            assert_eq!(policies.find(&server).map(|entry| entry.level), level, "{server}");
        }
        assert_eq!(
            policies.add("inet:[MX.a.example]:25", "may").unwrap_err(),
            "there is already a policy for it, \"mx.a.example:25\""
        );
        assert_eq!(policies.find(&tcp("mx.a.example", 25)).unwrap().level, TlsLevel::Verify);
    }

    #[test]
    fn what_an_entry_does_not_say_the_transport_does() {
        let transport =
            crate::config::Config::default().transport(&"smtp".parse().unwrap()).unwrap().tls.clone();
        let own = Fingerprint([7; 32]);
        let mut tls = Tls {
            security_level: Some(TlsLevel::Encrypt),
            fingerprints: vec![own],
            servername: TlsServerName::Name("front.example".to_owned()),
            ..transport
        };
        for (name, text) in
            [("a", "secure"), ("b", "secure match=x"), ("c", "fingerprint"), ("d", "verify servername=none")]
        {
            tls.policy.add(name, text).unwrap();
        }
        let policy = |host| tls.policy_for(&tcp(host, 25));
        assert_eq!(policy("a").matches, [CertMatch::Nexthop, CertMatch::DotNexthop]);
        assert_eq!(policy("b").matches, [CertMatch::Name("x".to_owned())]);
        assert_eq!((policy("c").level, policy("c").fingerprints), (TlsLevel::Fingerprint, &[own][..]));
        assert_eq!(
            (policy("d").matches, policy("d").servername),
            (&[CertMatch::Hostname][..], &TlsServerName::None)
        );
        assert_eq!(policy("a").servername, &tls.servername);
        assert_eq!((policy("e").level, policy("e").matches), (TlsLevel::Encrypt, &[][..]));
    }

    #[test]
    fn without_a_level_sockets_are_plain_tcp_takes_what_there_is_and_wrapped_connections_are_encrypted() {
        let plain = crate::config::Config::default().transport(&"smtp".parse().unwrap()).unwrap().tls.clone();
        let socket = Server::Unix("/run/lmtp".into());
        assert_eq!(plain.policy_for(&socket).level, TlsLevel::None);
        assert_eq!(plain.policy_for(&tcp("mx", 25)).level, TlsLevel::May);
        let wrapped = Tls { wrappermode: true, ..plain };
        assert_eq!(wrapped.policy_for(&socket).level, TlsLevel::Encrypt);
        assert!(wrapped.policy_for(&tcp("mx", 25)).wrappermode);
    }

    proptest! {
        #[test]
        fn no_entry_panics(name in "\\PC{0,12}", text in "(none|may|fingerprint|secure) \
            ?(match|servername|protocols)?=?\\PC{0,20}") {
            let _ = TlsPolicies::default().add(&name, &text);
        }
    }
}
