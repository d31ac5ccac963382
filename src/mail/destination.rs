//! Where mail goes: nexthops as people write them, destinations as the engine compares them.
//!
//! - Owns: the nexthop syntax, and the canonical form by which connections are cached and batches are cut.
//! - Leaves to others: which transports exist and their default ports (`config`), name look-ups (`net`), how Postfix
//!   writes next hops (`postfix_nexthop`).
//! - Always true: a [`Destination`] has at least one server, each with an explicit port or a path; ours are absolute.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use super::text::shortened;

/// Octets of a socket's path: what `sun_path` holds on Linux, less its NUL.
pub(super) const SOCKET_PATH_MAX: usize = 107;
/// Servers in one nexthop.
pub(super) const SERVERS_MAX: usize = 16;

/// What is spoken to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// RFC 2033.
    Lmtp,
    /// RFC 5321, with EHLO.
    Smtp,
}

impl FromStr for Protocol {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "lmtp" => Ok(Self::Lmtp),
            "smtp" => Ok(Self::Smtp),
            _ => Err("a protocol is \"lmtp\" or \"smtp\""),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lmtp => "lmtp",
            Self::Smtp => "smtp",
        })
    }
}

/// The name of a set of delivery parameters: `[a-z0-9]` and single underscores, so that an environment variable
/// can name it between double ones.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransportName(Arc<str>);

impl TransportName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TransportName {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let is_word = |word: &str| {
            !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        if name.len() <= 64 && name.split('_').all(is_word) {
            Ok(Self(name.into()))
        } else {
            Err("a transport's name is made of a-z, 0-9 and single underscores between them")
        }
    }
}

impl fmt::Display for TransportName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One server of a destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Server {
    /// A UNIX-domain socket, by its path: in our own nexthops an absolute one, in Postfix's perhaps one that is relative to
    /// the working directory.
    Unix(PathBuf),
    /// A TCP server: a host name (of our own nexthops in lower case), or an address without brackets.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: NonZeroU16,
    },
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } if host.parse::<IpAddr>().is_ok() => write!(f, "inet:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "inet:{host}:{port}"),
        }
    }
}

/// Where a transaction goes, canonical. Connections are cached, and batches cut, by this value alone: with the
/// transport in it, one transport's mail never rides on another's login.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination(Arc<Canonical>);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Canonical {
    transport: TransportName,
    servers: Vec<Server>,
    /// Of the others. Destinations are looked up several times for each batch, and paths are slow to hash.
    hash: u64,
}

impl Destination {
    /// `servers` must not be empty.
    pub(super) fn new(transport: TransportName, servers: Vec<Server>) -> Self {
        let mut hasher = DefaultHasher::new();
        (&transport, &servers).hash(&mut hasher);
        Self(Arc::new(Canonical { transport, servers, hash: hasher.finish() }))
    }

    /// The transport whose parameters hold.
    pub fn transport(&self) -> &TransportName {
        &self.0.transport
    }

    /// The servers, in the order in which they are tried.
    pub fn servers(&self) -> &[Server] {
        &self.0.servers
    }
}

impl Hash for Destination {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.transport())?;
        for (at, server) in self.servers().iter().enumerate() {
            write!(f, "{}{server}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// A nexthop as written: `[transport:]destination[,destination…]`. Ports that were left out are still open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nexthop {
    transport: TransportName,
    servers: Vec<Written>,
}

/// A destination as written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Written {
    Unix(PathBuf),
    Tcp { host: String, port: Option<NonZeroU16> },
}

/// Why a text is no nexthop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadNexthop {
    /// Nothing there, or nothing between two commas.
    #[error(
        "a nexthop names a destination, as in lmtp:unix:/run/dovecot/lmtp or lmtp:inet:mx1.example.org:24"
    )]
    Empty,
    /// `WORD:` in front, and no transport of that name.
    #[error("there is no transport {0:?} (known prefixes are the configured transports, unix: and inet:)")]
    UnknownTransport(String),
    /// The name of a host or an address is malformed.
    #[error("{0:?} is no host name or address (IPv6 addresses stand in brackets)")]
    Host(String),
    /// The port is not 1 to 65535.
    #[error("{0:?} is no port number")]
    Port(String),
    /// A socket's path that is not absolute, does not fit into a socket address, or would not stay one word in a log
    /// line.
    #[error(
        "the socket path {0:?} is not absolute, has a blank or a control character, or is longer than \
         {SOCKET_PATH_MAX} octets"
    )]
    Path(String),
    /// More servers than are ever tried.
    #[error("a nexthop has at most {SERVERS_MAX} destinations")]
    TooMany,
}

impl Nexthop {
    /// Reads a nexthop; `is_transport` tells which names are configured ones. Without one, `lmtp` is meant.
    pub fn parse(text: &str, is_transport: impl Fn(&str) -> bool) -> Result<Self, BadNexthop> {
        let (transport, rest) = split_transport(text.trim(), is_transport)?;
        Self::of(transport, rest)
    }

    /// Reads a nexthop in which the transport is not named, since it is known.
    pub fn of(transport: TransportName, text: &str) -> Result<Self, BadNexthop> {
        let mut servers = Vec::new();
        for word in text.split([',', ' ', '\t']).filter(|word| !word.is_empty()) {
            if servers.len() == SERVERS_MAX {
                return Err(BadNexthop::TooMany);
            }
            servers.push(parse_destination(word)?);
        }
        if servers.is_empty() { Err(BadNexthop::Empty) } else { Ok(Self { transport, servers }) }
    }

    /// The transport whose parameters hold.
    pub fn transport(&self) -> &TransportName {
        &self.transport
    }

    /// The destination that this nexthop means, where `default_port` is the transport's port.
    pub fn destination(&self, default_port: NonZeroU16) -> Destination {
        let servers = self.servers.iter().map(|written| match written {
            Written::Unix(path) => Server::Unix(path.clone()),
            Written::Tcp { host, port } => {
                Server::Tcp { host: host.clone(), port: port.unwrap_or(default_port) }
            }
        });
        Destination::new(self.transport.clone(), servers.collect())
    }
}

/// Takes the transport off the front, where there is one.
fn split_transport(
    text: &str,
    is_transport: impl Fn(&str) -> bool,
) -> Result<(TransportName, &str), BadNexthop> {
    let lmtp = || "lmtp".parse().map_err(|_| BadNexthop::Empty);
    let Some((word, rest)) = text.split_once(':') else { return Ok((lmtp()?, text)) };
    let first = rest.split([',', ' ', '\t']).next().unwrap_or("");
    let only_a_port = !first.is_empty() && first.bytes().all(|b| b.is_ascii_digit());
    if word.starts_with(['/', '['])
        || word.contains([',', ' ', '\t'])
        || only_a_port
        || matches!(word, "unix" | "inet")
    {
        return Ok((lmtp()?, text));
    }
    match word.parse() {
        Ok(transport) if is_transport(word) => Ok((transport, rest)),
        _ => Err(BadNexthop::UnknownTransport(shortened(word))),
    }
}

fn parse_destination(word: &str) -> Result<Written, BadNexthop> {
    if let Some(path) = word.strip_prefix("unix:").or_else(|| word.starts_with('/').then_some(word)) {
        // What is no ASCII blank may be one to whoever reads the canonical form back, or the log.
        let breaks = |c: char| c.is_control() || c.is_whitespace();
        if !path.starts_with('/') || path.len() > SOCKET_PATH_MAX || path.contains(breaks) {
            return Err(BadNexthop::Path(shortened(path)));
        }
        return Ok(Written::Unix(Path::new(path).to_owned()));
    }
    let word = word.strip_prefix("inet:").unwrap_or(word);
    let (host, rest) = match word.strip_prefix('[') {
        Some(inner) => {
            let (address, rest) = inner.split_once(']').ok_or_else(|| BadNexthop::Host(shortened(word)))?;
            (parse_address(address).ok_or_else(|| BadNexthop::Host(shortened(word)))?, rest)
        }
        None => {
            let (host, rest) = word.split_at(word.find(':').unwrap_or(word.len()));
            if !is_host_name(host) {
                return Err(BadNexthop::Host(shortened(word)));
            }
            (host.to_ascii_lowercase(), rest)
        }
    };
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        None => return Err(BadNexthop::Host(shortened(word))),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            Some(digits.parse().map_err(|_| BadNexthop::Port(shortened(digits)))?)
        }
        // `host:name:24` names something before the host that is neither "inet" nor a transport.
        Some(other) if other.contains(':') => return Err(BadNexthop::UnknownTransport(shortened(&host))),
        Some(other) => return Err(BadNexthop::Port(shortened(other))),
    };
    Ok(Written::Tcp { host, port })
}

/// The inside of brackets, canonical: an address, IPv6 also with the tag of RFC 5321 section 4.1.3.
pub(super) fn parse_address(text: &str) -> Option<String> {
    let is_tagged = text.get(..5).is_some_and(|tag| tag.eq_ignore_ascii_case("ipv6:"));
    let untagged = if is_tagged { &text[5..] } else { text };
    untagged.parse::<IpAddr>().ok().map(|address| address.to_string())
}

pub(super) fn is_host_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    host.len() <= 253 && !host.starts_with('-') && host.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(text: &str) -> Result<String, BadNexthop> {
        let known = |name: &str| matches!(name, "lmtp" | "local" | "smtp" | "my_site");
        let port = NonZeroU16::new(24).unwrap();
        Nexthop::parse(text, known).map(|nexthop| nexthop.destination(port).to_string())
    }

    #[test]
    fn nexthops_become_canonical() {
        for (text, canonical) in [
            ("unix:/run/lmtp", "lmtp:unix:/run/lmtp"),
            ("/run/lmtp", "lmtp:unix:/run/lmtp"),
            ("lmtp:unix:/run/lmtp", "lmtp:unix:/run/lmtp"),
            ("local:/run/lmtp", "local:unix:/run/lmtp"),
            ("MX1.Example.org", "lmtp:inet:mx1.example.org:24"),
            ("inet:mx1:2003", "lmtp:inet:mx1:2003"),
            ("smtp:mx1:25", "smtp:inet:mx1:25"),
            ("my_site:mx1", "my_site:inet:mx1:24"),
            ("lmtp:24", "lmtp:inet:lmtp:24"),
            ("smtp:25", "lmtp:inet:smtp:25"),
            ("other:24", "lmtp:inet:other:24"),
            ("lmtp:inet:[127.0.0.1]:24", "lmtp:inet:[127.0.0.1]:24"),
            ("127.0.0.1:24", "lmtp:inet:[127.0.0.1]:24"),
            ("[::1]", "lmtp:inet:[::1]:24"),
            ("[IPv6:0:0::1]:26", "lmtp:inet:[::1]:26"),
            ("lmtp:mx1:24, mx2 /run/lmtp", "lmtp:inet:mx1:24,inet:mx2:24,unix:/run/lmtp"),
        ] {
            assert_eq!(destination(text).as_deref(), Ok(canonical), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_nexthop_is_refused() {
        for text in [
            "",
            " ",
            "lmtp:",
            "unix:",
            "unix:run/lmtp",
            "nosuch:mx1",
            "nosuch:mx1:24",
            "lmtp:nosuch:mx1:24",
            "::1",
            "[::1",
            "[::1]24",
            "[mx1]",
            "mx1:0",
            "mx1:65536",
            "mx1:+24",
            "mx1:lmtp",
            "a_b:/x y:",
            "-mx",
            "mx..1",
            "lmtp:smtp:mx1",
            "relay:inet:mx1",
            "/run/lmtp,unix:",
            "/a\0b",
            "/run/a\nb",
            "unix:/run/\u{1b}[2J",
            "unix:/run/a\u{a0},",
        ] {
            assert!(destination(text).is_err(), "{text:?} gave {:?}", destination(text));
        }
        assert!(destination(&"a ".repeat(17)).is_err());
        assert!(destination(&format!("/{}", "a".repeat(107))).is_err());
    }

    #[test]
    fn where_the_transport_is_known_nothing_is_taken_for_one() {
        let of = |text: &str| {
            let nexthop = Nexthop::of("smtp".parse().unwrap(), text)?;
            Ok::<_, BadNexthop>(nexthop.destination(NonZeroU16::new(25).unwrap()).to_string())
        };
        for (text, canonical) in [
            ("mx1", "smtp:inet:mx1:25"),
            ("24", "smtp:inet:24:25"),
            ("lmtp:26", "smtp:inet:lmtp:26"),
            ("[::1]:26, /run/x", "smtp:inet:[::1]:26,unix:/run/x"),
        ] {
            assert_eq!(of(text).as_deref(), Ok(canonical), "{text:?}");
        }
        for text in ["", ",", "lmtp:mx1", "smtp:mx1:26", "::1", "run/lmtp"] {
            assert!(of(text).is_err(), "{text:?} gave {:?}", of(text));
        }
    }

    #[test]
    fn the_canonical_form_reads_back() {
        for text in ["lmtp:unix:/run/lmtp", "smtp:inet:[::1]:25,inet:mx1:26"] {
            assert_eq!(destination(text).unwrap(), text);
        }
    }

    #[test]
    fn transport_names_fit_between_double_underscores() {
        for name in ["lmtp", "my_site", "a1"] {
            assert!(name.parse::<TransportName>().is_ok());
        }
        for name in ["", "_a", "a_", "a__b", "A", "a-b"] {
            assert!(name.parse::<TransportName>().is_err(), "{name:?}");
        }
    }
}
