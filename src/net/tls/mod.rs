//! TLS over a connected socket (RFC 3207, RFC 8314, RFC 8446, RFC 5246), and whom it leads to.
//!
//! - Owns: handshakes, resumption, what a certificate proves, the words for what it does not.
//! - Leaves to others: when TLS begins (`connection`), what is asked of a server (`config`), deadlines (`link`).
//! - Always true: the server's certificate is judged at each connection, also where a session is resumed; no level that
//!   asks for a certificate is met by less.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use rustls::ClientConfig;
use socket2::Socket;

use super::peer::Peer;
use crate::config::{TlsPolicy, Transport};
use crate::mail::Server;

/// Whom a TLS connection leads to, as far as its certificate tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// There is no certificate.
    Anonymous,
    /// There is one that proves nothing.
    Untrusted,
    /// It is from a trusted authority; nobody has looked at its name.
    Trusted,
    /// It is that of the server that was asked for.
    Verified,
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Untrusted => "Untrusted",
            Self::Trusted => "Trusted",
            Self::Verified => "Verified",
        })
    }
}

/// Why there is no TLS, or not the one that is asked for: half a sentence for the log.
#[derive(Debug)]
pub enum TlsError {
    /// The handshake came to no end: the connection is of no more use.
    Handshake(String),
    /// The handshake was done, and the server is not the one that is asked for.
    Certificate(String),
    /// The time for it was over.
    TimedOut,
    /// The server closed the connection.
    LostConnection,
}

/// A worker's TLS: what its connections share, so that sessions can be resumed.
#[derive(Debug, Default)]
pub struct TlsSessions {
    _configs: Vec<Arc<ClientConfig>>,
}

impl TlsSessions {
    /// Makes the handshake on `socket`, until `deadline`, and judges the certificate by `policy`.
    pub fn start(
        &mut self,
        _socket: Socket,
        _peer: &Peer,
        _server: &Server,
        _transport: &Transport,
        _policy: &TlsPolicy<'_>,
        _deadline: Instant,
    ) -> Result<TlsStream, TlsError> {
        Err(TlsError::Handshake("not yet".to_owned()))
    }
}

/// A socket that speaks TLS. Reading and writing wait as long as the socket's own timeouts say.
#[derive(Debug)]
pub struct TlsStream {
    socket: Socket,
    trust: Trust,
}

impl TlsStream {
    /// The socket below, for its timeouts and for poll.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Whom it leads to.
    pub fn trust(&self) -> Trust {
        self.trust
    }

    /// Version and cipher, as the log has them: `TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)`.
    pub fn summary(&self) -> String {
        String::new()
    }

    /// What ties a login to this connection: `tls-exporter` of RFC 9266, of TLS 1.3 alone.
    pub fn channel_binding(&self) -> Option<Vec<u8>> {
        None
    }

    /// Reads plain text; 0 is the end. What the peer sends for TLS alone (tickets, key updates) is no plain text: then it
    /// reads on.
    pub fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }

    /// Encrypts and writes all of `octets`, at most one record's worth of it being under way at a time; how much was
    /// written for good. An error may leave half a record behind: the connection is of no more use then.
    pub fn write(&mut self, _octets: &[u8]) -> io::Result<usize> {
        Ok(0)
    }

    /// Whether plain text or the end can be read without waiting. Takes in what the peer sends for TLS alone.
    pub fn has_news(&mut self) -> bool {
        true
    }

    /// Says that nothing more follows, if that takes no time.
    pub fn say_goodbye(&mut self) {}
}
