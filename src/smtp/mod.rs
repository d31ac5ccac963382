//! LMTP (RFC 2033) and ESMTP (RFC 5321), the client's side: bytes in, bytes and outcomes out.
//!
//! - Owns: the grammar of replies and commands, the order of a conversation, what each answer means for whom.
//! - Leaves to others: sockets, clocks and retries (`net`), which recipients share a transaction (`queue`).
//! - Always true: nothing here waits or does I/O, and every buffer has a bound.

mod auth;
mod body;
mod capabilities;
mod command;
mod failure;
mod reply;
mod session;
mod stage;
mod transaction;
mod xforward;

pub use auth::{
    Answer, Credentials, Exchange, Line, Login, Proof, Redactor, Secret, SecurityOptions, known_mechanisms,
};
pub use body::DotStuffing;
pub use capabilities::Capabilities;
pub use command::plain;
pub use failure::{Cause, EightBit, OverQuota, SessionError, refused_to_talk};
pub use reply::{BadReply, Class, Reply, parse_auth_reply, parse_reply};
pub use session::{Account, Footing, Handshake, Next, Refusals, StartTls};
pub use stage::Stage;
pub use transaction::{Encoding, Flight, Manner, Message, Probe, Settled, Smtputf8, Step, Transaction};
pub use xforward::{Attributes, Origin};
