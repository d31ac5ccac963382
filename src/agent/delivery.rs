//! A batch of the spool: from its queue file to a server, and its outcomes back into the file.
//!
//! - Owns: what is prepended to content, what is done before and after the conversation.
//! - Leaves to others: the thread (`worker`), outcomes on disk (`recorder`), the end of a message (`finish`).
//! - Always true: a batch that was taken ends in exactly one report.

use std::io::Read;
use std::sync::Arc;

use super::finish::{self, Finished};
use super::message::Order;
use super::notices::ProtocolNotices;
use super::prepend;
use super::recorder::{Recorded, Recorder};
use super::report::Report;
use super::source::Source;
use super::sweeper::Sweeper;
use crate::config::Transport;
use crate::mail::{EnhancedStatus, OriginalRecipient, Outcome, Protocol, QueueId, Reason};
use crate::net::{CachedConnection, Delivered, Delivery, FileContent, Observer};
use crate::queue::scheduler::{BatchEnd, Health, WorkerId};
use crate::smtp::Settled;
use crate::spool::{QueueFile, Spool};

/// Octets of a header that are searched for a loop.
const HEADER_MAX: u64 = 1 << 20;

/// The spool, as workers need it.
#[derive(Clone)]
pub struct SpoolSource {
    /// The queue.
    pub spool: Arc<Spool>,
    /// Who removes what is done with.
    pub sweeper: Sweeper,
    /// What the postmaster was told of servers; shared by all workers.
    pub protocol_notices: Arc<ProtocolNotices>,
}

/// How a batch went.
pub(super) struct Ended {
    destination: Health,
    pub(super) finished: Option<Finished>,
    queued: Vec<QueueId>,
}

impl Source for SpoolSource {
    type Order = Order;
    type Report = Report;

    fn deliver(&self, worker: WorkerId, order: &Order, connection: &mut CachedConnection) -> Report {
        let Ended { destination, finished, queued } = self.deliver_batch(order, connection);
        let cached = connection.destination() == Some(order.batch.destination());
        let end = BatchEnd { cached, destination };
        Report::Ended { worker, id: order.message.envelope.id, end, finished, queued }
    }

    fn lost(worker: WorkerId, order: Order) -> Report {
        Report::Lost { worker, order: Box::new(order) }
    }

    fn gone(worker: WorkerId) -> Report {
        Report::Gone { worker }
    }

    #[cfg(test)]
    fn reported(order: &Order) {
        super::tests::panic_if_asked(order, "between@test.invalid");
    }
}

impl SpoolSource {
    fn deliver_batch(&self, order: &Order, connection: &mut CachedConnection) -> Ended {
        let id = order.message.envelope.id;
        let destination = order.batch.destination();
        let Some(transport) = order.config.transport(destination.transport()) else {
            // Routes are read together with the transports they name, so this is a message from before a reload.
            return self.defer_unsent(order, "its transport is no longer configured");
        };
        match self.spool.open_again(&order.message.envelope, &order.message.layout) {
            Ok(Some(file)) => self.deliver_file(order, transport, &file, connection),
            Ok(None) => self.ended(order, transport, None, Health::Untouched, Vec::new()),
            Err(error) => {
                log::error!(
                    "{id}: the queue file cannot be opened for writing: {error}; the mail is deferred unsent"
                );
                self.defer_unsent(order, "the queue file cannot be opened")
            }
        }
    }

    fn deliver_file(
        &self,
        order: &Order,
        transport: &Arc<Transport>,
        file: &QueueFile,
        connection: &mut CachedConnection,
    ) -> Ended {
        #[cfg(test)]
        super::tests::panic_if_asked(order, "unsent@test.invalid");
        let mut recorder = Recorder::new(&self.spool, file, order, transport.protocol);
        let original = order.batch.recipients().first().and_then(|recipient| recipient.orcpt.as_ref());
        let original = original.map(OriginalRecipient::address);
        let prefix = match prepend::headers(&order.batch, transport.flags, original, |address| {
            was_delivered_to(file, address)
        }) {
            Ok(prefix) => prefix,
            Err(outcome) => {
                recorder.settled(all(order, &outcome));
                return self.recorded(order, transport, file, recorder.into_recorded(), Health::Untouched);
            }
        };
        connection.set_myhostname(&order.config.myhostname);
        let (offset, length) = file.content_range();
        let content = FileContent { prefix: &prefix, file: file.file(), offset, length };
        let health =
            match connection.deliver(&Delivery::new(&order.batch, &content, transport), &mut recorder) {
                Delivered::Reached => Health::Reached,
                Delivered::Failed(reason) => Health::Failed(reason),
                Delivered::Busy(reason) => {
                    recorder.unsent();
                    recorder.note(&format!("{}; the server is busy, and the mail waits", reason.text));
                    let destination = Health::Busy(order.batch.clone(), reason);
                    return Ended { destination, finished: None, queued: Vec::new() };
                }
            };
        self.recorded(order, transport, file, recorder.into_recorded(), health)
    }

    /// Everybody of the batch has an outcome on disk.
    pub(super) fn recorded(
        &self,
        order: &Order,
        transport: &Transport,
        file: &QueueFile,
        recorded: Recorded,
        health: Health,
    ) -> Ended {
        if let Some(error) = &recorded.failed {
            finish::hold(&self.spool, order.message.envelope.id, error);
        }
        let mut queued = recorded.queued;
        if let Some(trouble) = recorded.trouble {
            let about = about_trouble(order.message.envelope.id, &trouble.what, recorded.outcomes);
            let destination = order.batch.destination();
            let transcript = trouble.transcript.as_ref();
            queued.extend(self.protocol_notices.queue(
                &self.spool,
                &order.config,
                destination,
                about,
                transcript,
            ));
        }
        self.ended(order, transport, Some(file), health, queued)
    }

    /// Settles all of a batch without an attempt, for a reason of ours that the queue file need not know.
    fn defer_unsent(&self, order: &Order, why: &str) -> Ended {
        let reason = Reason::local(EnhancedStatus::new(4, 3, 0), why);
        super::recorder::log_unsent(order, &Outcome::Deferred(reason));
        let finished = self.count_down(order, Protocol::Lmtp, None);
        Ended { destination: Health::Untouched, finished, queued: Vec::new() }
    }

    fn ended(
        &self,
        order: &Order,
        transport: &Transport,
        file: Option<&QueueFile>,
        health: Health,
        queued: Vec<QueueId>,
    ) -> Ended {
        let finished = self.count_down(order, transport.protocol, file);
        Ended { destination: health, finished, queued }
    }

    /// `file` is the message's, if the worker has it open.
    fn count_down(&self, order: &Order, protocol: Protocol, file: Option<&QueueFile>) -> Option<Finished> {
        let is_last = order.message.count_down(order.batch.recipients().len());
        #[cfg(test)]
        super::tests::panic_if_asked(order, "settled@test.invalid");
        is_last.then(|| {
            finish::finish(&self.spool, &self.sweeper, &order.config, &order.message, protocol, file)
        })
    }
}

/// Whether the header has a Delivered-To field for `address`. A header that cannot be read has none: the content
/// that follows it cannot be sent either.
fn was_delivered_to(file: &QueueFile, address: &str) -> bool {
    let mut header = Vec::new();
    if file.content().take(HEADER_MAX).read_to_end(&mut header).is_err() {
        return false;
    }
    let end = memchr::memmem::find(&header, b"\r\n\r\n").unwrap_or(header.len());
    String::from_utf8_lossy(&header[..end]).lines().any(|line| {
        let field =
            line.split_once(':').filter(|(name, _)| name.trim_end().eq_ignore_ascii_case("Delivered-To"));
        field.is_some_and(|(_, value)| value.trim().eq_ignore_ascii_case(address))
    })
}

/// What a server did, and what it meant for the mail.
fn about_trouble(id: QueueId, what: &str, outcomes: [usize; 3]) -> String {
    let words = ["delivered", "deferred (to be tried again)", "bounced (returned to the sender)"];
    let counted = outcomes.iter().zip(words).filter(|(count, _)| **count > 0);
    let became: Vec<_> = counted.map(|(count, word)| format!("{count} {word}")).collect();
    format!(
        "A mail server broke the protocol: {what}. It was to take message {id}; of the recipients there: {}.",
        became.join(", ")
    )
}

/// The same outcome for all of a batch.
fn all(order: &Order, outcome: &Outcome) -> Vec<Settled> {
    let settle = |position| Settled { position, outcome: outcome.clone(), in_doubt: false };
    order.batch.recipients().iter().map(|recipient| settle(recipient.position)).collect()
}
