//! The server at the other end, as logs and reasons name it.

use std::net::SocketAddr;
use std::path::PathBuf;

/// The other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A UNIX-domain socket.
    Unix {
        /// Our own host name: a socket has none.
        host: String,
        /// Its path.
        path: PathBuf,
    },
    /// A TCP server.
    Tcp {
        /// The name that was looked up, or the address.
        host: String,
        /// Where it led.
        address: SocketAddr,
    },
}

impl Peer {
    /// `host[address]`, or `host[/path]`: what reasons say.
    pub fn name(&self) -> String {
        match self {
            Self::Unix { host, path } => format!("{host}[{}]", path.display()),
            Self::Tcp { host, address } => format!("{host}[{}]", address.ip()),
        }
    }

    /// `host[address]:port`, or `host[/path]`: the log's `relay=`, and what could not be connected to.
    pub fn relay(&self) -> String {
        match self {
            Self::Unix { .. } => self.name(),
            Self::Tcp { address, .. } => format!("{}:{}", self.name(), address.port()),
        }
    }

    /// The host's name, for reports about what it said.
    pub fn host(&self) -> &str {
        match self {
            Self::Unix { host, .. } | Self::Tcp { host, .. } => host,
        }
    }

    /// Whether this is a UNIX-domain socket.
    pub fn is_unix(&self) -> bool {
        matches!(self, Self::Unix { .. })
    }

    /// Whether `pattern` names this peer: its host, a domain above it, its address, or its path.
    pub fn matches(&self, pattern: &str) -> bool {
        match self {
            Self::Unix { path, .. } => path.as_os_str() == pattern,
            Self::Tcp { host, address } => {
                let above =
                    host.strip_suffix(pattern).is_some_and(|front| front.is_empty() || front.ends_with('.'));
                above || address.ip().to_string() == pattern
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_named_as_in_postfix_logs() {
        let tcp = Peer::Tcp { host: "mx.example".into(), address: "[::1]:24".parse().unwrap() };
        assert_eq!((tcp.name().as_str(), tcp.relay().as_str()), ("mx.example[::1]", "mx.example[::1]:24"));
        let unix = Peer::Unix { host: "here".into(), path: "/run/lmtp".into() };
        assert_eq!(unix.relay(), "here[/run/lmtp]");
    }

    #[test]
    fn patterns_name_hosts_domains_addresses_and_paths() {
        let tcp = Peer::Tcp { host: "mx.example".into(), address: "192.0.2.1:24".parse().unwrap() };
        for pattern in ["mx.example", "example", "192.0.2.1"] {
            assert!(tcp.matches(pattern), "{pattern}");
        }
        assert!(!tcp.matches("ample") && !tcp.matches("192.0.2"));
    }
}
