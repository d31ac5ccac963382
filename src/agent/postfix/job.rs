//! A request of qmgr(8) while it is with us: who still needs an outcome, and who waits for the answer.
//!
//! - Owns: the connection to qmgr, and the translation of a request into what the engine delivers.
//! - Leaves to others: the request's wire form (`postfix::request`), outcomes (`recorder`).
//! - Always true: a job is answered once; a recipient is settled once. The answer is "done" only if each recipient was
//!   accounted for, whoever has worked on the job, and whichever way that ended.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::mail::{BodyType, EnhancedStatus, Envelope, Outcome, QueueId, Reason, Recipient, Return};
use crate::postfix::address::{self, Unusable};
use crate::postfix::request::{self, HopStatus, Request, RequestResult};

/// How long qmgr may take to read an answer of some hundred octets.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);

/// A request that was taken on.
#[derive(Debug)]
pub struct Job {
    /// By which the engine knows it. Several requests may be about one message at a time, so this is not its queue ID.
    pub key: QueueId,
    /// What qmgr wants.
    pub request: Request,
    /// When we got it, since the epoch.
    pub received: Duration,
    /// Recipients whose addresses cannot be said to a server, with what becomes of them.
    pub refused: Vec<(u32, Outcome)>,
    caller: Mutex<Option<UnixStream>>,
    settled: Vec<AtomicBool>,
    /// How many of these need nothing more.
    accounted_for: AtomicUsize,
}

/// Who is to get the message, in the engine's terms.
#[derive(Debug)]
pub struct Translated {
    /// The message.
    pub envelope: Arc<Envelope>,
    /// Recipients by their place in the request; at least one.
    pub recipients: Vec<Recipient>,
}

impl Job {
    /// Takes on a request that came over `caller`. What is to be delivered is `None` where no address can be said to a
    /// server.
    pub fn new(key: QueueId, request: Request, caller: UnixStream) -> (Self, Option<Translated>) {
        let received = since_epoch(Timestamp::now());
        let (translated, refused) = translate(key, &request, received);
        let settled = request.recipients.iter().map(|_| AtomicBool::new(false)).collect();
        let (caller, accounted_for) = (Mutex::new(Some(caller)), AtomicUsize::new(0));
        (Self { key, request, received, refused, caller, settled, accounted_for }, translated)
    }

    /// The message's queue ID.
    pub fn queue_id(&self) -> &str {
        &self.request.queue_id
    }

    /// Notes that a recipient is about to be settled; `false` if it was before.
    pub fn settle(&self, position: u32) -> bool {
        self.settled.get(position as usize).is_some_and(|settled| !settled.swap(true, Ordering::AcqRel))
    }

    /// Notes that a recipient who is settled need not be kept: the mail was delivered, or its refusal reported, and the
    /// recipient is marked. Whoever panics before this keeps the recipient.
    pub fn account_for_one(&self) {
        self.accounted_for.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether nobody has to be kept.
    pub fn is_done(&self) -> bool {
        self.accounted_for.load(Ordering::Acquire) == self.settled.len()
    }

    /// Recipients without an outcome, by their place in the request.
    pub fn unsettled(&self) -> Vec<u32> {
        let unsettled = |(_, settled): &(u32, &AtomicBool)| !settled.load(Ordering::Acquire);
        (0..).zip(&self.settled).filter(unsettled).map(|(position, _)| position).collect()
    }

    /// Tells qmgr how it went, and hangs up. A qmgr that has gone meanwhile reads the queue file again.
    pub fn answer(&self, hop: Option<&HopStatus>) {
        let result = if self.is_done() { RequestResult::Done } else { RequestResult::Deferred };
        let caller = self.caller.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(error)) = caller.map(|caller| reply(caller, result, hop)) {
            let id = self.queue_id();
            log::debug!("{id}: the queue manager has gone before it was answered: {error}");
        }
    }
}

/// Says no to something that is no request: its message stays in the queue.
pub fn refuse(caller: UnixStream) {
    if let Err(error) = reply(caller, RequestResult::Deferred, None) {
        log::debug!("the queue manager has gone before it was answered: {error}");
    }
}

/// qmgr has nothing to say after its request, so nothing of the answer is lost by hanging up behind it.
fn reply(mut caller: UnixStream, result: RequestResult, hop: Option<&HopStatus>) -> io::Result<()> {
    caller.set_nonblocking(false)?;
    caller.set_write_timeout(Some(REPLY_TIMEOUT))?;
    caller.write_all(&request::final_reply(result, hop))
}

/// What the engine is to deliver, and who cannot be spoken of to a server.
fn translate(
    key: QueueId,
    request: &Request,
    received: Duration,
) -> (Option<Translated>, Vec<(u32, Outcome)>) {
    let everybody = || (0..).zip(&request.recipients);
    let sender = match address::to_sender(&request.sender) {
        Ok(sender) => sender,
        Err(error) => {
            let outcome = unspeakable(5, 1, 7, "sender", &error);
            return (None, everybody().map(|(position, _)| (position, outcome.clone())).collect());
        }
    };
    let (mut recipients, mut refused) = (Vec::new(), Vec::new());
    for (position, recipient) in everybody() {
        match address::to_recipient(recipient, position, request.needs) {
            Ok(recipient) => recipients.push(recipient),
            Err(error) => refused.push((position, unspeakable(5, 1, 3, "recipient", &error))),
        }
    }
    let envelope = Envelope {
        id: key,
        sender,
        arrival: timestamp(request.times.arrival.unwrap_or(received)),
        nexthop: None,
        body: body(request).unwrap_or(BodyType::EightBitMime),
        smtputf8: request.needs.requires_smtputf8(),
        envid: text(&request.envelope_id),
        ret: match request.ret {
            1 => Some(Return::Full),
            2 => Some(Return::Headers),
            _ => None,
        },
        origin: String::new(),
        size: request.size,
    };
    let translated =
        (!recipients.is_empty()).then(|| Translated { envelope: Arc::new(envelope), recipients });
    (translated, refused)
}

/// What Postfix knows of the octets in the content.
pub fn body(request: &Request) -> Option<BodyType> {
    match request.encoding.as_str() {
        "8bit" => Some(BodyType::EightBitMime),
        "7bit" => Some(BodyType::SevenBit),
        _ => None,
    }
}

/// An address that cannot be said in SMTP without becoming another one. Trying again would not help.
fn unspeakable(class: u8, subject: u16, detail: u16, whose: &str, error: &Unusable) -> Outcome {
    let text = format!("bad {whose} address syntax: {error}");
    Outcome::Bounced(Reason::local(EnhancedStatus::new(class, subject, detail), text))
}

fn text(octets: &[u8]) -> Option<String> {
    (!octets.is_empty()).then(|| String::from_utf8_lossy(octets).into_owned())
}

/// Time since 1970; a clock before that makes none.
pub fn since_epoch(time: Timestamp) -> Duration {
    time.duration_since(Timestamp::UNIX_EPOCH).try_into().unwrap_or_default()
}

/// Postfix's time stamp as one of ours.
fn timestamp(since_epoch: Duration) -> Timestamp {
    let micros = i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX)
}
