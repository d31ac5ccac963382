//! Next hops as Postfix's clients read them, which is not quite as ours are.
//!
//! - Owns: the syntax of Postfix's transport(5) tables, as far as its lmtp(8) and smtp(8) interpret it.
//! - Leaves to others: our own syntax (`destination`), look-ups and connecting (`net`), services(5).
//! - Always true: what cannot be delivered to defers mail, with words that name what is to be changed.
//!
//! | written | means |
//! | --- | --- |
//! | `unix:PATH` | LMTP: a socket; all of the rest is its path, relative to the working directory or absolute |
//! | `inet:HOST[:PORT]`, `HOST[:PORT]` | LMTP: a TCP server |
//! | `[HOST][:PORT]`, `[ADDRESS][:PORT]` | a TCP server, in LMTP also after `inet:` |
//! | `ADDRESS[:PORT]` | the same, for IPv4 |
//!
//! Several TCP servers, between commas or blanks, are tried in order. A port may be a name of services(5).

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;
use std::path::PathBuf;

use super::destination::{SERVERS_MAX, SOCKET_PATH_MAX, is_host_name, parse_address};
use super::text::shortened;
use super::{Destination, EnhancedStatus, Protocol, Reason, Server, TransportName};

/// How the next hops of one transport are read.
#[derive(Clone, Copy, Debug)]
pub struct PostfixNexthops<'a, F> {
    /// The transport whose parameters hold.
    pub transport: &'a TransportName,
    /// What is spoken.
    pub protocol: Protocol,
    /// The port where none is written.
    pub default_port: NonZeroU16,
    /// The port of a service, by its name.
    pub port_of: F,
}

impl<F: Fn(&str) -> Option<NonZeroU16>> PostfixNexthops<'_, F> {
    /// Reads a next hop. Otherwise says why mail for it is deferred.
    pub fn destination(&self, nexthop: &str) -> Result<Destination, Reason> {
        if let Some(path) = nexthop.strip_prefix("unix:").filter(|_| self.protocol == Protocol::Lmtp) {
            let server = socket(path).map_err(|bad| bad.reason(nexthop))?;
            return Ok(Destination::new(self.transport.clone(), vec![server]));
        }
        let mut servers = Vec::new();
        for word in nexthop.split([',', ' ', '\t', '\r', '\n']).filter(|word| !word.is_empty()) {
            if servers.len() == SERVERS_MAX {
                return Err(Bad::TooMany.reason(nexthop));
            }
            servers.push(self.tcp_server(word).map_err(|bad| bad.reason(nexthop))?);
        }
        if servers.is_empty() {
            return Err(Bad::Empty.reason(nexthop));
        }
        Ok(Destination::new(self.transport.clone(), servers))
    }

    fn tcp_server(&self, word: &str) -> Result<Server, Bad> {
        let rest = match (self.protocol, word.split_once(':')) {
            (Protocol::Lmtp, Some(("inet", rest))) => rest,
            (Protocol::Lmtp, Some(("unix", _))) => return Err(Bad::SocketInList),
            (Protocol::Smtp, Some((kind @ ("inet" | "unix"), _))) => {
                return Err(Bad::OnlyLmtp(kind.to_owned()));
            }
            _ => word,
        };
        let (host, port) = match rest.strip_prefix('[') {
            Some(inner) => {
                let (inner, rest) = inner.split_once(']').ok_or_else(|| Bad::host(word))?;
                let host = parse_address(inner).or_else(|| host_name(inner));
                (host.ok_or_else(|| Bad::host(word))?, rest)
            }
            None => {
                let (host, rest) = rest.split_at(rest.find(':').unwrap_or(rest.len()));
                let address = host.parse::<Ipv4Addr>().ok();
                if address.is_none() && self.protocol == Protocol::Smtp {
                    return Err(Bad::NeedsMx(shortened(host)));
                }
                (host_name(host).ok_or_else(|| Bad::host(word))?, rest)
            }
        };
        let port = match rest_to_port(port) {
            Some(None) => self.default_port,
            Some(Some(port)) => self.port(port)?,
            None => return Err(Bad::host(word)),
        };
        Ok(Server::Tcp { host, port })
    }

    fn port(&self, text: &str) -> Result<NonZeroU16, Bad> {
        let is_number = text.bytes().all(|octet| octet.is_ascii_digit());
        let port = if is_number { text.parse().ok() } else { (self.port_of)(text) };
        port.ok_or_else(|| Bad::Port(shortened(text)))
    }
}

/// What stands behind a host: nothing, or a port. `None` is neither.
fn rest_to_port(rest: &str) -> Option<Option<&str>> {
    if rest.is_empty() {
        return Some(None);
    }
    rest.strip_prefix(':').filter(|port| !port.is_empty()).map(Some)
}

/// A host as it was written: the log shows it so.
fn host_name(text: &str) -> Option<String> {
    let is_one = is_host_name(text) || text.parse::<IpAddr>().is_ok();
    is_one.then(|| text.to_owned())
}

fn socket(path: &str) -> Result<Server, Bad> {
    if path.is_empty() {
        return Err(Bad::Empty);
    }
    if path.len() > SOCKET_PATH_MAX {
        return Err(Bad::PathTooLong);
    }
    // It has to stay one word in log lines.
    if path.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err(Bad::Path);
    }
    Ok(Server::Unix(PathBuf::from(path)))
}

/// What is wrong with a next hop.
#[derive(Debug, thiserror::Error)]
enum Bad {
    #[error("it names no server")]
    Empty,
    #[error("a socket's path has no blanks and no control characters")]
    Path,
    #[error("Server configuration error")]
    PathTooLong,
    #[error("a socket stands alone, and in no list")]
    SocketInList,
    #[error("{0}: is a word of LMTP only")]
    OnlyLmtp(String),
    #[error("{0:?} is no host name, and no address in brackets")]
    Host(String),
    #[error("{0:?} is no port, and no service of this machine")]
    Port(String),
    #[error("mail servers of domains (MX) are not looked up; for a host, write [{0}]")]
    NeedsMx(String),
    #[error("it has more than {SERVERS_MAX} servers")]
    TooMany,
}

impl Bad {
    fn host(word: &str) -> Self {
        Self::Host(shortened(word))
    }

    /// The words for a path that is too long are Postfix's own.
    fn reason(&self, nexthop: &str) -> Reason {
        let text = match self {
            Self::PathTooLong => self.to_string(),
            _ => {
                let shown: String = shortened(nexthop).escape_debug().collect();
                format!("Server configuration error: next hop \"{shown}\": {self}")
            }
        };
        Reason::local(EnhancedStatus::new(4, 3, 5), text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(protocol: Protocol, nexthop: &str) -> Result<String, String> {
        let transport = "stock".parse().unwrap();
        let port_of = |name: &str| (name == "lmtp").then(|| NonZeroU16::new(2003).unwrap());
        let default_port = NonZeroU16::new(24).unwrap();
        let nexthops = PostfixNexthops { transport: &transport, protocol, default_port, port_of };
        let destination = nexthops.destination(nexthop).map_err(|reason| {
            assert_eq!(reason.status.to_string(), "4.3.5");
            reason.text
        })?;
        Ok(destination.servers().iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn lmtp_next_hops_are_read_as_postfix_has_them() {
        for (nexthop, servers) in [
            ("unix:private/dovecot-lmtp", "unix:private/dovecot-lmtp"),
            ("unix:/run/dovecot/lmtp", "unix:/run/dovecot/lmtp"),
            ("unix:/run/a,b", "unix:/run/a,b"),
            ("inet:127.0.0.1:12424", "inet:[127.0.0.1]:12424"),
            ("inet:mx1", "inet:mx1:24"),
            ("Mx1.Example", "inet:Mx1.Example:24"),
            ("mx1:2003", "inet:mx1:2003"),
            ("mx1:lmtp", "inet:mx1:2003"),
            ("[mx1]", "inet:mx1:24"),
            ("[::1]:26", "inet:[::1]:26"),
            ("[ipv6:0:0::1]", "inet:[::1]:24"),
            ("inet:[127.0.0.1]:26", "inet:[127.0.0.1]:26"),
            ("inet:mx1:26, mx2 [mx3]", "inet:mx1:26 inet:mx2:24 inet:mx3:24"),
        ] {
            assert_eq!(read(Protocol::Lmtp, nexthop).as_deref(), Ok(servers), "{nexthop:?}");
        }
    }

    #[test]
    fn smtp_next_hops_are_hosts_that_need_no_mx() {
        for (nexthop, servers) in [
            ("[mx1.example]", "inet:mx1.example:24"),
            ("[mx1.example]:26 [192.0.2.1]", "inet:mx1.example:26 inet:[192.0.2.1]:24"),
            ("192.0.2.1:26", "inet:[192.0.2.1]:26"),
            ("[2001:db8::1]", "inet:[2001:db8::1]:24"),
        ] {
            assert_eq!(read(Protocol::Smtp, nexthop).as_deref(), Ok(servers), "{nexthop:?}");
        }
        for (nexthop, why) in [
            (
                "example.org",
                "mail servers of domains (MX) are not looked up; for a host, write [example.org]",
            ),
            ("[mx1], example.org:26", "write [example.org]"),
            ("inet:mx1", "inet: is a word of LMTP only"),
            ("unix:/run/lmtp", "unix: is a word of LMTP only"),
        ] {
            let text = read(Protocol::Smtp, nexthop).unwrap_err();
            assert!(text.ends_with(why) && text.contains(&format!("next hop \"{nexthop}\": ")), "{text}");
        }
    }

    #[test]
    fn what_is_no_next_hop_defers_with_words() {
        for nexthop in [
            "",
            ",",
            "unix:",
            "unix:/a b",
            "unix:/a\n",
            "::1",
            "[::1",
            "[::1]26",
            "[]",
            "mx1:",
            "mx1:0",
            "mx1:65536",
            "mx1:nosuch",
            "mx1:+24",
            "-mx",
            "mx..1",
            "/run/lmtp",
            "mx1 unix:/run/lmtp",
            "inet:",
            "inet::24",
            "a@b",
        ] {
            let text = read(Protocol::Lmtp, nexthop).unwrap_err();
            assert!(text.starts_with("Server configuration error: next hop \""), "{text}");
            assert!(!text.contains(char::is_control), "{text}");
        }
        assert!(read(Protocol::Lmtp, &"mx ".repeat(16)).is_ok());
        assert!(read(Protocol::Lmtp, &"mx ".repeat(17)).is_err());
        let path = |length| read(Protocol::Lmtp, &format!("unix:{}", "x".repeat(length)));
        assert!(path(107).is_ok());
        assert_eq!(path(108).unwrap_err(), "Server configuration error");
    }
}
