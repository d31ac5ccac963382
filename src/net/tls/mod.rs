//! TLS over a connected socket (RFC 3207, RFC 8314, RFC 8446, RFC 5246), and whom it leads to.
//!
//! - Owns: handshakes, resumption, what a certificate proves, the words for what it does not.
//! - Leaves to others: when TLS begins (`connection`), what is asked of a server (`config`), deadlines (`link`).
//! - Always true: the server's certificate is judged at each connection, also where a session is resumed; no level that
//!   asks for a certificate is met by less; what a server sends is shown shortened and printable.

mod certificate;
mod handshake;
mod sessions;
mod stream;
mod verify;
mod words;

use std::fmt;

pub use sessions::TlsSessions;
pub use stream::TlsStream;

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
#[derive(Debug, PartialEq, Eq)]
pub enum TlsError {
    /// The handshake came to no end: the connection is of no more use.
    Handshake(String),
    /// The handshake was done, and the server is not the one that is asked for. `Server certificate not trusted: …` or
    /// `Server certificate not verified: …`
    Certificate(String),
    /// The time for it was over.
    TimedOut,
    /// The server closed the connection instead of a handshake.
    LostConnection,
}

#[cfg(test)]
pub(super) mod tests;
