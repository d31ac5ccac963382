//! What becomes of each recipient is told to Postfix: to bounce(8), defer(8), trace(8), verify(8) and flush(8).
//!
//! - Owns: who is told what in which order, what it means when one of them cannot be told, the log line of a recipient,
//!   and notices to the postmaster.
//! - Leaves to others: the delivery, writing the log line, marking the recipient in the queue file, the final reply.
//! - Always true: a recipient may be marked as done only after everybody who has to know has said yes.
//!
//! `decision` makes a plan, `reporter` carries it out by way of `services`. The rest is what these are made of.

mod call;
mod decision;
mod log_line;
mod notice;
mod reporter;
mod services;
mod stamps;
#[cfg(test)]
mod tests;

pub use call::{Call, Service, ServiceNames};
pub use decision::{Act, Attempted, Filter, Logged, NO_RELAY, OnFailure, Plan, Policy, Verdict, decide};
pub use log_line::{AddressFormat, LineFormat, LogLine};
pub use notice::{Notice, Spoken};
pub use reporter::{FlushDomains, Reporter, Reports, StatusFilter};
pub use services::{Failure, Services};
pub use stamps::{Spent, Stamps};
