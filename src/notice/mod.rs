//! The messages that we write ourselves: bounces, delay and success notices, and mail to the postmaster.
//!
//! - Owns: who is told what ([`plan()`]), the words, and the form (RFC 3464, RFC 6522, RFC 6533).
//! - Leaves to others: putting a [`Notice`] on disk (`spool`), and when one is due (`agent`). No clock, no I/O.
//! - Always true: a notice has a null envelope sender, ends its lines with CRLF, none of them longer than 998
//!   octets, and nothing that a peer or a sender wrote can add a field to it or end one of its parts.
//!
//! mail-builder writes the message fields, encoded words, the multipart frame and the transfer encoding of the
//! text. It does not know `message/delivery-status`, so the fields of that part are put together here, with its
//! folding; and the boundary is ours, because only we can look whether the returned message holds it.

mod delivery_status;
mod human;
mod message;
mod original;
mod plan;
mod postmaster;
mod report;
mod text;

pub use message::{Author, Notice, ORIGIN_BOUNCE, ORIGIN_DELAY, ORIGIN_POSTMASTER, ORIGIN_SUCCESS};
pub use original::{RETURN_LIMIT_DEFAULT, octets_wanted};
pub use plan::{Addressed, Event, Policy, plan};
pub use postmaster::{Said, Trouble, TroubleClass};
pub use report::{Kind, Report, ReportedRecipient};
