//! Delivery requests of qmgr(8), and the reply that ends one.
//!
//! - Owns: the attributes of a request and its recipients, the flags, the final reply.
//! - Leaves to others: the socket, the queue file, and what becomes of each recipient.
//! - Always true: a request that parses is complete; attributes that are not known are passed over.

use std::time::Duration;

use crate::mail::EnhancedStatus;

/// A request to deliver one message to some of its recipients, all by way of the same next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What qmgr wants beside delivery.
    pub flags: RequestFlags,
    /// Which queue the file is in: nearly always `active`.
    pub queue_name: String,
    /// The message.
    pub queue_id: String,
    /// Where in the queue file the content begins.
    pub content_offset: u64,
    /// Octets of content as Postfix counts them, for SIZE.
    pub size: u64,
    /// Where it goes, as the transport table has it.
    pub nexthop: String,
    /// `8bit`, `7bit`, or empty where that is not known.
    pub encoding: String,
    /// What the message needs of a server.
    pub needs: Needs,
    /// Envelope sender without quotes; empty for the null sender.
    pub sender: Vec<u8>,
    /// ENVID, decoded; may be empty.
    pub envelope_id: Vec<u8>,
    /// RET: 0 none, 1 FULL, 2 HDRS.
    pub ret: u32,
    /// When what has happened to the message.
    pub times: Times,
    /// Where the message came from, for XFORWARD.
    pub client: Client,
    /// Who has to get it. Never empty.
    pub recipients: Vec<Recipient>,
}

/// A recipient of a request. Addresses are without quotes, in any octets but NUL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipient {
    /// The address before aliases and the like; may be empty.
    pub original: Vec<u8>,
    /// The address to deliver to.
    pub address: Vec<u8>,
    /// Where in the queue file its record is; `None` where it has none.
    pub offset: Option<u64>,
    /// The DSN original recipient, `type;address`; may be empty.
    pub dsn_orcpt: Vec<u8>,
    /// DSN NOTIFY, as Postfix's bits: 1 NEVER, 2 SUCCESS, 4 FAILURE, 8 DELAY.
    pub notify: u32,
}

/// Bits of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestFlags(pub u32);

/// What the sender's message needs, in Postfix's bits of `smtputf8` or `sendopts`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs(pub u32);

/// Time stamps since the epoch. `None`: not set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// The message arrived.
    pub arrival: Option<Duration>,
    /// It entered the active queue.
    pub active: Option<Duration>,
    /// It was handed to a delivery agent.
    pub handoff: Option<Duration>,
}

/// Where a message came from. All may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Host name.
    pub name: String,
    /// Address.
    pub address: String,
    /// Port.
    pub port: String,
    /// `SMTP`, `ESMTP` and the like.
    pub protocol: String,
    /// What it said in HELO.
    pub helo: String,
    /// The queue ID for IDENT.
    pub ident: String,
    /// `local` or `remote`.
    pub rewrite_context: String,
}

/// What was wrong with a destination, as the final reply tells qmgr, which then spares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HopStatus {
    /// Status.
    pub status: EnhancedStatus,
    /// In words.
    pub reason: String,
}
