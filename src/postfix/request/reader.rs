//! The octets of a request, as they come.
//!
//! - Owns: putting a request together from pieces; the bounds on its size.
//! - Leaves to others: reading from the socket, and answering a request that is none.
//! - Always true: whatever the pieces, the request is the same; what is kept of an unfinished one is bounded.

use std::time::Duration;

use super::super::attribute::{BadAttributes, List};
use super::{Client, Needs, Recipient, Request, RequestFlags, Times};

/// Recipients of one request. qmgr holds at most 20,000 recipients at a time, unless somebody has changed that, and puts
/// no more than 50 of them into a request, unless somebody has changed that, too.
pub const RECIPIENTS_MAX: usize = 100_000;

/// Octets of one request: more than enough for that many recipients.
const REQUEST_SIZE_MAX: usize = 64 * 1024 * 1024;

/// Why octets are no request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// What is about the message is malformed.
    #[error("what it says about the message is malformed: {0}")]
    Message(BadAttributes),
    /// What is about a recipient is malformed.
    #[error("what it says about its recipient {number} is malformed: {error}")]
    Recipient {
        /// Which one, counted from 1.
        number: usize,
        /// What is wrong.
        error: BadAttributes,
    },
    /// Nobody to deliver to.
    #[error("it has no recipients")]
    NoRecipients,
    /// More than [`RECIPIENTS_MAX`].
    #[error("it has {0} recipients, and one may have {RECIPIENTS_MAX}")]
    TooManyRecipients(usize),
    /// It has no end, or is too large to be held.
    #[error("it is longer than {REQUEST_SIZE_MAX} octets")]
    TooLong,
    /// Octets behind the last recipient.
    #[error("there are {0} octets behind its last recipient")]
    Surplus(usize),
}

/// Reads one request.
#[derive(Debug, Default)]
pub struct RequestReader {
    /// Octets that are no whole list yet.
    pub(super) pending: Vec<u8>,
    /// Octets so far.
    length: usize,
    /// What came before the recipients, and how many of these it promised.
    head: Option<(Request, usize)>,
    has_ended: bool,
}

impl RequestReader {
    /// Nothing has come yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing has come. If it ends now, that is no error: qmgr had nothing left to deliver.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Takes what has come; returns the request with its last octet. After that, and after an error, the reader is of
    /// no more use.
    pub fn push(&mut self, octets: &[u8]) -> Result<Option<Request>, BadRequest> {
        self.length = self.length.saturating_add(octets.len());
        if self.has_ended {
            return if octets.is_empty() { Ok(None) } else { Err(BadRequest::Surplus(octets.len())) };
        }
        if self.length > REQUEST_SIZE_MAX {
            return Err(BadRequest::TooLong);
        }
        self.pending.extend_from_slice(octets);
        let mut used = 0;
        while !self.has_ended {
            let Some((list, length)) = self.next_list(used)? else { break };
            used += length;
            self.take(&list)?;
        }
        self.pending.drain(..used);
        match self.pending.len() {
            0 => {}
            surplus if self.has_ended => return Err(BadRequest::Surplus(surplus)),
            _ => return Ok(None),
        }
        Ok(self.head.take_if(|_| self.has_ended).map(|(request, _)| request))
    }

    fn next_list(&self, from: usize) -> Result<Option<(List, usize)>, BadRequest> {
        List::parse(self.pending.get(from..).unwrap_or_default()).map_err(|error| match &self.head {
            None => BadRequest::Message(error),
            Some((request, _)) => BadRequest::Recipient { number: request.recipients.len() + 1, error },
        })
    }

    fn take(&mut self, list: &List) -> Result<(), BadRequest> {
        let Some((request, count)) = &mut self.head else {
            let (mut request, count) = message(list).map_err(BadRequest::Message)?;
            match count {
                0 => return Err(BadRequest::NoRecipients),
                RECIPIENTS_MAX.. if count > RECIPIENTS_MAX => {
                    return Err(BadRequest::TooManyRecipients(count));
                }
                // The number alone is no reason to take memory: a list has to come for each.
                _ => request.recipients.reserve(count.min(1000)),
            }
            self.head = Some((request, count));
            return Ok(());
        };
        let number = request.recipients.len() + 1;
        request.recipients.push(recipient(list).map_err(|error| BadRequest::Recipient { number, error })?);
        self.has_ended = number == *count;
        Ok(())
    }
}

/// Reads what comes before the recipients; returns it with their number.
fn message(list: &List) -> Result<(Request, usize), BadAttributes> {
    let client = Client {
        name: list.text("log_client_name")?,
        address: list.text("log_client_address")?,
        port: list.text("log_client_port")?,
        protocol: list.text("log_protocol_name")?,
        helo: list.text("log_helo_name")?,
        ident: list.text("log_ident")?,
        rewrite_context: list.text("rewrite_context")?,
    };
    let request = Request {
        flags: RequestFlags(list.unsigned("flags")?),
        queue_name: list.text("queue_name")?,
        queue_id: list.text("queue_id")?,
        content_offset: not_negative(list, "offset")?,
        size: not_negative(list, "size")?,
        nexthop: list.text("nexthop")?,
        encoding: list.text("encoding")?,
        needs: needs(list)?,
        sender: list.octets("sender")?.to_vec(),
        envelope_id: list.octets("envelope_id")?.to_vec(),
        ret: list.unsigned("ret_flags")?,
        times: times(&list.data("time")?).ok_or(BadAttributes::Malformed("time"))?,
        client,
        recipients: Vec::new(),
    };
    let count = list.unsigned("recipient_count")?;
    Ok((request, usize::try_from(count).unwrap_or(usize::MAX)))
}

/// Postfix 3.10 gave the attribute another name, and more bits.
fn needs(list: &List) -> Result<Needs, BadAttributes> {
    let name = if list.get("sendopts").is_some() { "sendopts" } else { "smtputf8" };
    list.unsigned(name).map(Needs)
}

fn not_negative(list: &List, name: &'static str) -> Result<u64, BadAttributes> {
    u64::try_from(list.long(name)?).map_err(|_| BadAttributes::Number(name))
}

fn recipient(list: &List) -> Result<Recipient, BadAttributes> {
    let offset = match list.long("offset")? {
        -1 => None,
        // The first record of a queue file is no recipient.
        offset => Some(u64::try_from(offset).ok().filter(|&offset| offset > 0))
            .map(|offset| offset.ok_or(BadAttributes::Number("offset")))
            .transpose()?,
    };
    Ok(Recipient {
        original: list.octets("original_recipient")?.to_vec(),
        address: list.octets("recipient")?.to_vec(),
        offset,
        dsn_orcpt: list.octets("dsn_orig_rcpt")?.to_vec(),
        notify: list.unsigned("notify_flags")?,
    })
}

/// Reads the structure of the C compiler: five pairs of seconds and microseconds, and a count that says nothing here.
/// How wide its numbers are shows in its length: 44 octets with those of 32 bits, else 84 or, with padding, 88.
fn times(structure: &[u8]) -> Option<Times> {
    let number: fn(&[u8]) -> Option<i64> = match structure.len() {
        44 => |octets| Some(i32::from_ne_bytes(octets.try_into().ok()?).into()),
        84 | 88 => |octets| Some(i64::from_ne_bytes(octets.try_into().ok()?)),
        _ => return None,
    };
    let width = if structure.len() == 44 { 4 } else { 8 };
    let stamp = |index: usize| {
        let mut numbers = structure.get(index * 2 * width..)?.chunks_exact(width).map(number);
        let (seconds, micros) = (numbers.next()??, numbers.next()??);
        // Zero means that nobody has set it. What no clock says is as good as that: these are for the log.
        let seconds = u64::try_from(seconds).ok().filter(|&seconds| seconds > 0)?;
        let micros = u32::try_from(micros).ok().filter(|&micros| micros < 1_000_000)?;
        Some(Duration::new(seconds, micros * 1000))
    };
    Some(Times { arrival: stamp(0), active: stamp(1), handoff: stamp(2) })
}
