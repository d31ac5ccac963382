//! Servers as tables name them: `mx.example.org:25`, `[192.0.2.1]`, `.example.org`, `/run/lmtp`.
//!
//! - Owns: the forms of such a name, and which names stand for a server, the closest first.
//! - Leaves to others: what a table says of them (`tls`, `secrets`).
//! - Always true: two ways to write the same server are one key.

use std::fmt;
use std::iter::successors;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;

use super::parse::is_host_name;
use super::services::service_port;
use crate::mail::Server;

/// What a line of a table is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ServerKey {
    /// A UNIX-domain socket.
    Socket(PathBuf),
    /// A host, at one port or at any. Names are in lower case, addresses as the standard library writes them.
    Host { host: String, port: Option<NonZeroU16> },
    /// Every host below a domain, which is in lower case and has no dot in front.
    Below(String),
}

impl ServerKey {
    /// Reads a key in any of its forms. The error is half a sentence and does not repeat the text.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:").or(text.starts_with('/').then_some(text)) {
            let is_path = !path.is_empty() && !path.contains(|c: char| c.is_whitespace() || c.is_control());
            return if is_path { Ok(Self::Socket(path.into())) } else { Err(bad()) };
        }
        if let Some(domain) = text.strip_prefix('.') {
            let domain = without_root(domain);
            return if is_host_name(domain) {
                Ok(Self::Below(domain.to_ascii_lowercase()))
            } else {
                Err(bad())
            };
        }
        let text = text.strip_prefix("inet:").unwrap_or(text);
        let (host, rest) = match text.strip_prefix('[') {
            Some(bracketed) => {
                let (inner, rest) = bracketed.split_once(']').ok_or_else(bad)?;
                (address(inner), rest)
            }
            None if text.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()) => {
                return Err("an IPv6 address stands in brackets, as in [2001:db8::1]".to_owned());
            }
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(port_number(port)?),
            None if rest.is_empty() => None,
            None => return Err(bad()),
        };
        Ok(Self::Host { host: canonical(host).ok_or_else(bad)?, port })
    }

    /// The keys that stand for `server`, the closest first: host and port, host, each domain above it; a socket's path.
    pub(super) fn of(server: &Server) -> Vec<Self> {
        let (host, port) = match server {
            Server::Unix(path) => return vec![Self::Socket(path.clone())],
            Server::Tcp { host, port } => (host, *port),
        };
        let is_address = host.parse::<IpAddr>().is_ok();
        let host = canonical(host).unwrap_or_else(|| without_root(host).to_lowercase());
        let above = |name: &str| name.split_once('.').map(|(_, above)| above.to_owned());
        let first = if is_address { None } else { above(&host) };
        let parents = successors(first, |name| above(name)).map(Self::Below);
        let own = [Some(port), None].map(|port| Self::Host { host: host.clone(), port });
        own.into_iter().chain(parents).collect()
    }
}

impl fmt::Display for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "unix:{}", path.display()),
            Self::Below(domain) => write!(f, ".{domain}"),
            Self::Host { host, port } => {
                let is_address = host.parse::<IpAddr>().is_ok();
                if is_address {
                    write!(f, "[{host}]")?;
                } else {
                    f.write_str(host)?;
                }
                port.map_or(Ok(()), |port| write!(f, ":{port}"))
            }
        }
    }
}

fn bad() -> String {
    "a server is named as host, host:port, [address], .domain (all hosts below it) or by its socket's path"
        .to_owned()
}

/// What stands in brackets may have the kind of address in front (RFC 5321 section 4.1.3).
fn address(inner: &str) -> &str {
    match inner.split_at_checked(5) {
        Some((kind, address)) if kind.eq_ignore_ascii_case("ipv6:") => address,
        _ => inner,
    }
}

fn canonical(host: &str) -> Option<String> {
    match host.parse::<IpAddr>() {
        // `::ffff:192.0.2.1` leads to 192.0.2.1.
        Ok(address) => Some(address.to_canonical().to_string()),
        Err(_) => {
            let host = without_root(host);
            is_host_name(host).then(|| host.to_ascii_lowercase())
        }
    }
}

/// A name with a dot at its end is the same to DNS.
fn without_root(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// A number, or a name of services(5).
fn port_number(text: &str) -> Result<NonZeroU16, String> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let port = if is_number { text.parse().ok() } else { service_port(text) };
    port.ok_or_else(|| "its port is none from 1 to 65535, and no service that this machine knows".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tcp(host: &str, port: u16) -> Server {
        Server::Tcp { host: host.to_owned(), port: NonZeroU16::new(port).unwrap() }
    }

    #[test]
    fn a_server_is_named_in_many_ways_and_is_one_key() {
        for (text, key) in [
            ("mx.example.org", "mx.example.org"),
            ("MX.Example.ORG:25", "mx.example.org:25"),
            ("inet:mx.example.org:25", "mx.example.org:25"),
            ("[mx.example.org]:25", "mx.example.org:25"),
            ("[mx.example.org]", "mx.example.org"),
            ("mx:smtp", "mx:25"),
            ("mx.Example.org.:25", "mx.example.org:25"),
            (".example.org.", ".example.org"),
            ("[::ffff:192.0.2.1]", "[192.0.2.1]"),
            ("[192.0.2.1]", "[192.0.2.1]"),
            ("192.0.2.1:24", "[192.0.2.1]:24"),
            ("[2001:DB8:0::1]:24", "[2001:db8::1]:24"),
            ("[IPv6:2001:db8::1]", "[2001:db8::1]"),
            (".Example.org", ".example.org"),
            ("/run/Lmtp", "unix:/run/Lmtp"),
            ("unix:/run/Lmtp", "unix:/run/Lmtp"),
            ("unix:private/lmtp", "unix:private/lmtp"),
        ] {
            assert_eq!(ServerKey::parse(text).unwrap().to_string(), key, "{text}");
        }
    }

    #[test]
    fn what_names_no_server_is_refused() {
        for text in [
            "",
            " ",
            "a b",
            "unix:",
            "/a b",
            ".",
            "..a",
            ".a:25",
            "mx:0",
            "mx:65536",
            "mx:",
            "mx:nothing-known",
            "[mx",
            "[mx]25",
            "[]",
            "inet:",
            "2001:db8::1",
            "a@b",
            "*",
            "*.example.org",
            "mx:25:26",
            "é.example",
        ] {
            assert!(ServerKey::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_closest_name_comes_first() {
        let keys = |server| ServerKey::of(&server).iter().map(ServerKey::to_string).collect::<Vec<_>>();
        assert_eq!(keys(tcp("a.b.Example", 25)), ["a.b.example:25", "a.b.example", ".b.example", ".example"]);
        // What is asked of a server must not depend on a dot behind its name.
        assert_eq!(
            keys(tcp("mx.b.example.", 25)),
            ["mx.b.example:25", "mx.b.example", ".b.example", ".example"]
        );
        assert_eq!(keys(tcp("192.0.2.1", 24)), ["[192.0.2.1]:24", "[192.0.2.1]"]);
        assert_eq!(keys(tcp("::ffff:192.0.2.1", 24)), ["[192.0.2.1]:24", "[192.0.2.1]"]);
        assert_eq!(keys(Server::Unix("/run/lmtp".into())), ["unix:/run/lmtp"]);
    }

    proptest! {
        #[test]
        fn a_key_as_it_is_shown_is_the_same_key(text in "(inet:|unix:|\\.)?(\\[)?[a-z0-9.:/]{1,12}(\\])?(:[0-9]{1,5})?") {
            if let Ok(key) = ServerKey::parse(&text) {
                prop_assert_eq!(ServerKey::parse(&key.to_string()), Ok(key));
            }
        }

        #[test]
        fn no_key_panics(text in "\\PC{0,24}") {
            let _ = ServerKey::parse(&text);
        }
    }
}
