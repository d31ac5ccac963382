//! What a transaction is told, and what it tells.
//!
//! - Owns: the choices with which a transaction begins, its steps and its outcomes.
//! - Leaves to others: what it makes of them (`transaction`).
//! - Always true: these are values; nothing here decides.

use crate::mail::{Batch, BodyType, Outcome, Protocol};
use crate::smtp::failure::{EightBit, OverQuota};
use crate::smtp::stage::Stage;
use crate::smtp::xforward::Origin;

/// How a transaction is to be spoken.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// What is spoken: decides how many replies follow the end of data.
    pub protocol: Protocol,
    /// Use PIPELINING where it is offered.
    pub pipelining: bool,
    /// Use CHUNKING where it is offered.
    pub chunking: bool,
    /// Content up to this many octets joins the flight of its commands.
    pub eager_content_limit: u64,
    /// Begin with RSET: the connection has been used before.
    pub reset: bool,
    /// Stop the first flight before the content: the connection has rested, and may be stale.
    pub hold_content: bool,
    /// What 552 5.2.2 means.
    pub over_quota: OverQuota,
    /// What to do with 8-bit mail where 8BITMIME is not offered.
    pub eight_bit: EightBit,
    /// Addresses have no quotes in commands.
    pub unquoted: bool,
    /// Say `AUTH=<>` where AUTH is offered: whoever wrote the mail is not vouched for (RFC 4954 section 5). For a connection
    /// on which we have logged in.
    pub dummy_auth: bool,
    /// Deliver nothing, and ask only who would be taken.
    pub probe: Option<Probe>,
}

/// How far a probe goes. Its "delivered" means "would be".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The reply to RCPT is the outcome.
    UntilRcpt,
    /// Whoever is accepted by RCPT and DATA would get it.
    UntilData,
}

/// What a transaction has to know of its message beside the envelope.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Octets, exactly, of the content as it goes behind BDAT.
    pub size: u64,
    /// Octets as they are declared.
    pub declared_size: u64,
    /// Whether there are octets over 127; `None` where nobody knows.
    pub body: Option<BodyType>,
    /// Whether SMTPUTF8 is needed.
    pub smtputf8: Smtputf8,
    /// Where it came from, if the server is to be told.
    pub origin: Option<Origin<'a>>,
}

impl Message<'_> {
    /// A message of `batch` with `size` octets of content, of which the envelope tells the rest.
    pub fn of(batch: &Batch, size: u64) -> Self {
        let body = Some(batch.envelope().body);
        Self { size, declared_size: size, body, smtputf8: Smtputf8::ByAddress, origin: None }
    }
}

/// Who decides whether SMTPUTF8 is needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Smtputf8 {
    /// The envelope and the addresses: one that is not ASCII needs it.
    #[default]
    ByAddress,
    /// Somebody who knows better.
    Told {
        /// MAIL says it where it is offered.
        wanted: bool,
        /// Without it nothing is sent.
        required: bool,
    },
}

/// How content goes over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Behind BDAT, as it lies on disk.
    Chunk,
    /// After DATA: dot-stuffed, with the final dot.
    Dots,
    /// The same in the content's seven-bit form.
    SevenBitDots,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Write this.
    Write(Flight),
    /// Read one reply; it answers this stage.
    Read(Stage),
    /// Everybody is settled, or left over for another transaction.
    Done,
}

/// What is written without reading in between.
#[derive(Debug, PartialEq, Eq)]
pub struct Flight {
    /// Command lines.
    pub commands: Vec<u8>,
    /// Content behind them, which ends the data.
    pub content: Option<Encoding>,
    /// The last command's stage.
    pub stage: Stage,
}

/// A recipient's outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The recipient's place in the message.
    pub position: u32,
    /// What became of it.
    pub outcome: Outcome,
    /// The server may hold the message for this recipient all the same.
    pub in_doubt: bool,
}
