//! Delivery requests of qmgr(8), and the reply that ends one.
//!
//! - Owns: the attributes of a request and its recipients, the flags, the final reply. (`reader` has the octets)
//! - Leaves to others: the socket, the queue file, and what becomes of each recipient.
//! - Always true: a request that parses is complete; attributes that are not known are passed over.

mod reader;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use self::reader::{BadRequest, RECIPIENTS_MAX, RequestReader};
use super::attribute::Writer;
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

impl Recipient {
    /// Adds what identifies this recipient to a report, in its order: five attributes. `notify` are the reports that are
    /// still wanted.
    #[must_use]
    pub fn write_to(&self, notify: u32, list: Writer) -> Writer {
        // A file is never so long that its offsets are negative.
        let offset = self.offset.and_then(|offset| i64::try_from(offset).ok()).unwrap_or(-1);
        list.text("original_recipient", &self.original)
            .text("recipient", &self.address)
            .long("offset", offset)
            .text("dsn_orig_rcpt", &self.dsn_orcpt)
            .number("notify_flags", notify)
    }
}

/// Bits of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestFlags(pub u32);

impl RequestFlags {
    const SUCCESS: u32 = 1;
    const MTA_VERIFY: u32 = 256;
    const USER_VERIFY: u32 = 512;
    const RECORD: u32 = 1024;
    const CONNECTION_LOAD: u32 = 2048;
    const CONNECTION_STORE: u32 = 4096;
    const RECORD_DELAYED_SENT: u32 = 8192;

    fn has(self, bits: u32) -> bool {
        self.0 & bits != 0
    }

    /// Recipients that were delivered are marked as done in the queue file.
    pub fn success_marks(self) -> bool {
        self.has(Self::SUCCESS)
    }

    /// Postfix itself wants to know whether the addresses exist: no content is sent, verify(8) hears of it.
    pub fn is_probe_mta(self) -> bool {
        self.has(Self::MTA_VERIFY)
    }

    /// A user wants to know whether the addresses exist (`sendmail -bv`): no content is sent, trace(8) hears of it.
    pub fn is_probe_usr(self) -> bool {
        self.has(Self::USER_VERIFY)
    }

    /// Either kind of probe.
    pub fn is_probe(self) -> bool {
        self.has(Self::MTA_VERIFY | Self::USER_VERIFY)
    }

    /// trace(8) hears of every result as well (`sendmail -v`).
    pub fn record(self) -> bool {
        self.has(Self::RECORD)
    }

    /// trace(8) hears of mail that is delivered late (`confirm_delay_cleared`).
    pub fn rec_dly_sent(self) -> bool {
        self.has(Self::RECORD_DELAYED_SENT)
    }

    /// A connection that is there may be used.
    pub fn conn_load(self) -> bool {
        self.has(Self::CONNECTION_LOAD)
    }

    /// The connection should be kept: more mail for the destination waits.
    pub fn conn_store(self) -> bool {
        self.has(Self::CONNECTION_STORE)
    }

    /// The bits that reports pass on.
    pub fn trace_flags(self) -> u32 {
        self.0 & (Self::MTA_VERIFY | Self::USER_VERIFY | Self::RECORD | Self::RECORD_DELAYED_SENT)
    }
}

/// What the sender's message needs, in Postfix's bits of `smtputf8` or `sendopts`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs(pub u32);

impl Needs {
    const SMTPUTF8: u32 = 1;
    /// A header, the sender or a recipient of this request is in UTF-8. Releases before 3.10 look at all bits but the
    /// first, and have no others than these.
    const UTF8_USED: u32 = 2 | 4 | 8;
    /// Since 3.10.
    const TLS_NOT_REQUIRED: u32 = 16;

    /// The sender asked for SMTPUTF8 (RFC 6531).
    pub fn smtputf8_requested(self) -> bool {
        self.0 & Self::SMTPUTF8 != 0
    }

    /// The message cannot go to a server without SMTPUTF8: it was asked for, and is made use of.
    pub fn requires_smtputf8(self) -> bool {
        self.smtputf8_requested() && self.0 & Self::UTF8_USED != 0
    }

    /// The sender wants the message to arrive even where TLS cannot be what it has to be (`TLS-Required: no` of RFC 8689).
    pub fn tls_not_required(self) -> bool {
        self.0 & Self::TLS_NOT_REQUIRED != 0
    }

    /// Any bit about UTF-8: an original recipient that is not ASCII goes to the server as `utf-8;`.
    pub fn any_utf8(self) -> bool {
        self.0 & (Self::SMTPUTF8 | Self::UTF8_USED) != 0
    }
}

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

/// A release of Postfix, as far as its protocols tell releases apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// 3 of 3.7.11.
    pub major: u32,
    /// 7 of 3.7.11.
    pub minor: u32,
}

impl Release {
    /// Reads `mail_version`: `3.7.11`, `3.12-20260821`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(['.', '-']).map(|number| number.parse().ok());
        Some(Self { major: numbers.next()??, minor: numbers.next()?? })
    }

    /// Whether servers say first which protocol they speak. From Postfix 3.6 on.
    pub fn announces_protocols(self) -> bool {
        self >= Self { major: 3, minor: 6 }
    }
}

/// What an agent says to qmgr first, on each connection.
pub fn announcement(release: Release) -> Vec<u8> {
    if release.announces_protocols() {
        Writer::new().text("protocol", "delivery_request_protocol").end()
    } else {
        Writer::new().int("status", 0).end()
    }
}

/// What became of a request as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestResult {
    /// All its recipients are accounted for: qmgr may remove the message.
    Done,
    /// The message has to be kept.
    Deferred,
}

/// The last words of an agent about a request. A hop status makes qmgr spare the destination for a while.
pub fn final_reply(result: RequestResult, hop: Option<&HopStatus>) -> Vec<u8> {
    let (status, reason) = match hop {
        Some(hop) => (hop.status.to_string(), &*hop.reason),
        None => (String::new(), ""),
    };
    let list = ["diag_type", "diag_text", "mta_type", "mta_mname", "action"]
        .iter()
        .fold(Writer::new().text("status", status), |list, name| list.text(name, ""));
    let number = match result {
        RequestResult::Done => 0,
        RequestResult::Deferred => -1,
    };
    list.text("reason", reason).int("status", number).end()
}
