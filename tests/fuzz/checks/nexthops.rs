//! Nexthops, and the destinations that they mean.

use std::num::NonZeroU16;

use lastmile::mail::{Destination, Nexthop, Server};

use super::{assert_short, text_of};

/// Names of configured transports.
const TRANSPORTS: [&str; 4] = ["lmtp", "local", "my_site", "smtp"];
/// Octets of a socket's path (unix(7)).
const SOCKET_PATH_MAX: usize = 107;
/// Servers in a nexthop, as `mail` documents them.
const SERVERS_MAX: usize = 16;

/// A destination is canonical: printed, it is one word that reads back as itself, whatever the transport's port.
pub fn nexthop(input: &[u8]) {
    let text = &*text_of(input);
    let nexthop = match parse(text) {
        Ok(nexthop) => nexthop,
        Err(sentence) => return assert_short(&sentence),
    };
    assert!(TRANSPORTS.contains(&nexthop.transport().to_string().as_str()));
    let (lmtp, other) = (NonZeroU16::new(24).unwrap(), NonZeroU16::new(65535).unwrap());
    let destination = nexthop.destination(lmtp);
    assert_eq!(destination.transport(), nexthop.transport());
    assert!((1..=SERVERS_MAX).contains(&destination.servers().len()));
    destination.servers().iter().for_each(check_server);
    let printed = destination.to_string();
    assert!(!printed.contains(|c: char| c.is_control() || c.is_whitespace()), "{printed:?} is not one word");
    let again = parse(&printed).unwrap_or_else(|sentence| panic!("{printed:?}: {sentence}"));
    assert_eq!(again.destination(other), destination, "{printed:?}");
    assert_eq!(again.destination(other).to_string(), printed);
    // Every server named its port, or none may depend on the transport's.
    let elsewhere = nexthop.destination(other);
    let shared = elsewhere.servers().iter().zip(destination.servers()).filter(|(a, b)| a == b);
    assert!(shared.count() == destination.servers().len() || printed.contains(":24"), "{printed:?}");
    assert_eq!(parse(&format!(" {text} ")).map(|nexthop| nexthop.destination(lmtp)), Ok(destination.clone()));
    check_transport(text, &destination);
}

fn parse(text: &str) -> Result<Nexthop, String> {
    Nexthop::parse(text, |name| TRANSPORTS.contains(&name)).map_err(|error| error.to_string())
}

fn check_server(server: &Server) {
    match server {
        Server::Unix(path) => {
            let path = path.to_str().unwrap();
            assert!(path.starts_with('/') && path.len() <= SOCKET_PATH_MAX, "{path:?}");
            assert!(!path.contains(','), "{path:?}");
        }
        Server::Tcp { host, .. } => {
            assert!(!host.is_empty() && host.len() <= 254, "{host:?}");
            assert!(!host.contains(char::is_uppercase), "{host:?}");
            let is_host = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
            assert!(host.bytes().all(is_host), "{host:?}");
            assert!(!host.contains(':') || host.parse::<std::net::Ipv6Addr>().is_ok(), "{host:?}");
        }
    }
}

/// `WORD:DIGITS` is a host and its port, whatever transports there are (`inet:` is no word); a transport that is meant is
/// named.
fn check_transport(text: &str, destination: &Destination) {
    let text = text.trim();
    let Some((word, rest)) = text.split_once(':') else {
        return assert_eq!(destination.transport().to_string(), "lmtp", "{text:?}");
    };
    // The colon is one of a path, or of a server that is not the first.
    if word.starts_with('/') || word.contains([',', ' ', '\t']) {
        assert_eq!(destination.transport().to_string(), "lmtp", "{text:?}");
    } else if word != "inet" && !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()) {
        assert_eq!(destination.transport().to_string(), "lmtp", "{text:?}");
        let [Server::Tcp { host, port }] = destination.servers() else { panic!("{text:?}: {destination}") };
        assert_eq!(port.get().to_string(), rest.trim_start_matches('0'), "{text:?}");
        assert!(
            host.eq_ignore_ascii_case(word) || host.parse::<std::net::IpAddr>().is_ok() || word == "inet"
        );
    } else if destination.transport().to_string() != "lmtp" {
        assert_eq!(destination.transport().to_string(), word, "{text:?}");
    }
}
