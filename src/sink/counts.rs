//! What the server has seen so far.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What the server has seen since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections accepted.
    pub connections: u64,
    /// MAIL commands accepted.
    pub transactions: u64,
    /// RCPT commands accepted.
    pub recipients: u64,
    /// Messages whose content arrived completely and was taken for at least one recipient.
    pub messages: u64,
    /// Recipients for whom a message was taken: stored, or thrown away on purpose.
    pub deliveries: u64,
    /// Octets of the contents that arrived, without transparency dots.
    pub bytes: u64,
    /// Handshakes of TLS that were completed.
    pub handshakes: u64,
    /// How many of these took up an earlier session.
    pub resumed: u64,
    /// Logins that succeeded.
    pub logins: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "connections={} transactions={} recipients={} messages={} deliveries={} bytes={}",
            self.connections, self.transactions, self.recipients, self.messages, self.deliveries, self.bytes
        )?;
        write!(f, " handshakes={} resumed={} logins={}", self.handshakes, self.resumed, self.logins)
    }
}

/// The running totals, shared by all connections.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub connections: AtomicU64,
    pub transactions: AtomicU64,
    pub recipients: AtomicU64,
    pub messages: AtomicU64,
    pub deliveries: AtomicU64,
    pub bytes: AtomicU64,
    pub handshakes: AtomicU64,
    pub resumed: AtomicU64,
    pub logins: AtomicU64,
}

impl Counters {
    /// The totals now. They are read one by one: among running connections they need not fit together.
    pub fn read(&self) -> Counts {
        Counts {
            connections: self.connections.load(Relaxed),
            transactions: self.transactions.load(Relaxed),
            recipients: self.recipients.load(Relaxed),
            messages: self.messages.load(Relaxed),
            deliveries: self.deliveries.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            handshakes: self.handshakes.load(Relaxed),
            resumed: self.resumed.load(Relaxed),
            logins: self.logins.load(Relaxed),
        }
    }
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Relaxed);
}
