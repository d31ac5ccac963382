//! Who hears what becomes of a batch, while it happens.
//!
//! - Owns: what there is to hear, and when.
//! - Leaves to others: when which of it happens (`open`, `connection`, `cached`), what is done about it (`agent`, `cli`).
//! - Always true: whoever may get the message is named before the end of data leaves, and each recipient is settled once.

use std::io;

use super::peer::Peer;
use super::transcript::Transcript;
use crate::mail::Reason;
use crate::smtp::{Capabilities, Settled};

/// Hears what happens to a batch, while it happens.
pub trait Observer {
    /// A connection has TLS; `text` says to whom, and how good it is.
    fn secured(&mut self, _text: &str) {}
    /// MAIL is about to be sent to `peer`, which offers `offered`, over a connection that has been used `uses` times.
    fn ready(&mut self, peer: &Peer, offered: &Capabilities, uses: u32);
    /// There is no connection for what is settled next: no server was ready for mail. `peer` is the one whose fault it
    /// was, where it could be connected to.
    fn not_ready(&mut self, _peer: Option<&Peer>) {}
    /// The destination is at fault for what is deferred next, and may be spared for a while: no server was ready for
    /// mail, or a conversation broke before any transaction of this batch had come to its end. What a server answers to
    /// mail is no such fault; that it closed the connection (421) on others than it answered for is one, which is told of
    /// right after these have been settled. At most once for each batch.
    fn destination_failed(&mut self, _reason: &Reason) {}
    /// Keywords that count as not offered by `peer`, which has just been connected to; `None`: those of the transport. An
    /// error makes the server one that cannot be used.
    fn keywords_to_discard(&mut self, _peer: &Peer) -> io::Result<Option<Vec<String>>> {
        Ok(None)
    }
    /// The end of data is about to leave for these recipients. An error stops it: the batch is then unsent.
    fn end_of_data(&mut self, positions: &[u32]) -> io::Result<()>;
    /// Outcomes, each recipient's once. May be empty.
    fn settled(&mut self, settled: Vec<Settled>);
    /// A server was passed over for the next one.
    fn note(&mut self, text: &str);
    /// Something is not as it should be, and no mail the worse for it.
    fn warning(&mut self, text: &str) {
        self.note(text);
    }
    /// A destination will be spoken to differently from now on.
    fn manner_changed(&mut self, text: &str) {
        self.note(text);
    }
    /// A server broke the protocol: the postmaster may want to know.
    fn protocol_error(&mut self, text: &str);
    /// Whether [`Observer::conversation`] is of any use. If not, nothing is kept for it.
    fn wants_conversations(&self) -> bool {
        false
    }
    /// What was said on a connection, as far as it is kept: after a protocol error, and after each transaction with
    /// its outcomes.
    fn conversation(&mut self, _transcript: &Transcript) {}
}
