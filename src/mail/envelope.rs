//! Envelopes and recipients: what SMTP says about a message outside of it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;

use super::text::serde_as_text;
use super::{Address, Destination, Notify, OriginalRecipient, QueueId, Return, Sender};

/// Whether the content has octets over 127 (RFC 6152).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyType {
    /// ASCII only.
    #[default]
    SevenBit,
    /// At least one octet over 127.
    EightBitMime,
}

impl FromStr for BodyType {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_uppercase().as_str() {
            "7BIT" => Ok(Self::SevenBit),
            "8BITMIME" => Ok(Self::EightBitMime),
            _ => Err("a body type is 7BIT or 8BITMIME"),
        }
    }
}

impl fmt::Display for BodyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SevenBit => "7BIT",
            Self::EightBitMime => "8BITMIME",
        })
    }
}

serde_as_text!(BodyType);

/// What is known of a message besides its recipients and its content.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// Its name in the queue and in the log.
    pub id: QueueId,
    /// Whom it comes from; a recipient may have a sender of its own.
    pub sender: Sender,
    /// When it was submitted.
    pub arrival: Timestamp,
    /// Where it goes, if the submitter may and did say so; else routes decide.
    pub nexthop: Option<String>,
    /// Whether its content needs 8BITMIME.
    pub body: BodyType,
    /// Whether it was submitted as an internationalised message (RFC 6531).
    pub smtputf8: bool,
    /// The submitter's own name for it (RFC 3461), decoded.
    pub envid: Option<String>,
    /// What a bounce returns.
    pub ret: Option<Return>,
    /// Who submitted it: `uid=1000`, or the part of the program that wrote it.
    pub origin: String,
    /// Octets of its content in wire form.
    pub size: u64,
}

/// One recipient of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// Its place among the message's recipients, from 0.
    pub position: u32,
    /// Where to.
    pub address: Address,
    /// Which reports are wanted.
    pub notify: Notify,
    /// The recipient as the sender wrote it.
    pub orcpt: Option<OriginalRecipient>,
    /// A sender for this recipient alone (VERP).
    pub sender: Option<Sender>,
}

impl Recipient {
    /// A recipient of whom nothing but the address is known.
    pub fn new(position: u32, address: Address) -> Self {
        Self { position, address, notify: Notify::default(), orcpt: None, sender: None }
    }
}

/// Recipients that share a transaction: one message, one sender, one destination. Never empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    envelope: Arc<Envelope>,
    sender: Sender,
    destination: Destination,
    recipients: Vec<Recipient>,
}

impl Batch {
    /// Makes a batch; `None` without recipients. All of them must have `sender` as their own sender, or none
    /// and `sender` the envelope's.
    pub fn new(
        envelope: Arc<Envelope>,
        sender: Sender,
        destination: Destination,
        recipients: Vec<Recipient>,
    ) -> Option<Self> {
        (!recipients.is_empty()).then_some(Self { envelope, sender, destination, recipients })
    }

    /// The message.
    pub fn envelope(&self) -> &Arc<Envelope> {
        &self.envelope
    }

    /// The sender in MAIL FROM.
    pub fn sender(&self) -> &Sender {
        &self.sender
    }

    /// Where to.
    pub fn destination(&self) -> &Destination {
        &self.destination
    }

    /// To whom.
    pub fn recipients(&self) -> &[Recipient] {
        &self.recipients
    }

    /// Gives the recipients back, of a batch that is not to be delivered.
    pub fn into_recipients(self) -> Vec<Recipient> {
        self.recipients
    }
}
