//! The field's nouns: addresses, destinations, envelopes, outcomes.
//!
//! - Owns: what a mail address, a nexthop, a recipient and an outcome are, and how each is written.
//! - Leaves to others: everything that happens to them. This folder imports nothing of ours and does no I/O.
//! - Always true: a value that exists is valid; what parsed once is not checked again.

mod address;
mod attempt;
mod delays;
mod destination;
mod dsn;
mod envelope;
mod outcome;
mod postfix_nexthop;
mod queue_id;
mod text;

pub use address::{Address, BadAddress, Sender};
pub use attempt::{Attempt, AttemptFields};
pub use delays::{Delay, Delays, Resolution};
pub use destination::{BadNexthop, Destination, Nexthop, Protocol, Server, TransportName};
pub use dsn::{BadParameter, Notify, OriginalRecipient, Return, from_xtext, xtext};
pub use envelope::{Batch, BodyType, Envelope, Recipient};
pub use outcome::{EnhancedStatus, Outcome, Reason};
pub use postfix_nexthop::PostfixNexthops;
pub use queue_id::QueueId;
pub use text::{printable, same_but_for_case, shortened};
