//! Outcomes become replies to remember, success notices, marks and log lines, in this order and at once.
//!
//! - Owns: what is written for each outcome, and in which order.
//! - Leaves to others: the format on disk (`spool`), the notices (`notices`), what becomes of the message when all are
//!   settled (`finish`).
//! - Always true: a refusal's text is on disk before its mark, a success notice that was asked for before the mark of
//!   the success, and a recipient is marked right after its reply.

use std::collections::BTreeSet;
use std::io;
use std::time::Instant;

use jiff::Timestamp;

use super::log::{LMTP, SMTP};
use super::message::{Counters, Message, Order};
use super::notices::{self, Reported};
use crate::config::NotifyClass;
use crate::mail::{Attempt, Delays, Outcome, Protocol, QueueId, Reason, Recipient, Sender};
use crate::net::{Observer, Peer, Transcript, is_about_protocol};
use crate::notice::Event;
use crate::smtp::{Capabilities, Settled};
use crate::spool::{LoggedReply, QueueFile, Spool, State};

/// Records the outcomes of one batch.
#[derive(Debug)]
pub struct Recorder<'a> {
    spool: &'a Spool,
    file: &'a QueueFile,
    order: &'a Order,
    /// By position, in order.
    recipients: Vec<(u32, &'a Recipient)>,
    protocol: Protocol,
    started: Instant,
    started_at: Timestamp,
    session: Option<Session>,
    /// The server that could be connected to, and was not ready for mail.
    not_ready: Option<Peer>,
    /// Recipients that carry the mark of doubt in the file.
    in_doubt: BTreeSet<u32>,
    queued: Vec<QueueId>,
    failed: Option<io::Error>,
    /// Delivered, deferred, bounced.
    outcomes: [usize; 3],
    trouble: Option<Trouble>,
}

/// Trouble with the protocol that the postmaster may want to know of.
#[derive(Debug)]
pub struct Trouble {
    /// What a server did.
    pub what: String,
    /// The conversation in which it did, where that was kept.
    pub transcript: Option<Transcript>,
}

/// The connection that the batch is on.
#[derive(Debug)]
struct Session {
    relay: String,
    host: String,
    uses: u32,
    reports_success: bool,
    since: Instant,
}

/// What is left to do after a batch, besides finishing the message.
#[derive(Debug, Default)]
pub struct Recorded {
    /// A mark could not be written after a reply had come: the file no longer tells the truth.
    pub failed: Option<io::Error>,
    /// Success notices, in `active/`.
    pub queued: Vec<QueueId>,
    /// How many were delivered, deferred and bounced.
    pub outcomes: [usize; 3],
    /// The first trouble with the protocol.
    pub trouble: Option<Trouble>,
}

impl<'a> Recorder<'a> {
    /// Starts with a batch that a worker has just taken.
    pub fn new(spool: &'a Spool, file: &'a QueueFile, order: &'a Order, protocol: Protocol) -> Self {
        let mut recipients: Vec<_> = order.batch.recipients().iter().map(|r| (r.position, r)).collect();
        recipients.sort_unstable_by_key(|(position, _)| *position);
        Self {
            spool,
            file,
            order,
            recipients,
            protocol,
            started: Instant::now(),
            started_at: Timestamp::now(),
            session: None,
            not_ready: None,
            in_doubt: BTreeSet::new(),
            queued: Vec::new(),
            failed: None,
            outcomes: [0; 3],
            trouble: None,
        }
    }

    /// The batch is over.
    pub fn into_recorded(self) -> Recorded {
        let Self { failed, queued, outcomes, trouble, .. } = self;
        Recorded { failed, queued, outcomes, trouble }
    }

    fn recipient(&self, position: u32) -> Option<&'a Recipient> {
        let at = self.recipients.binary_search_by_key(&position, |(position, _)| *position).ok()?;
        self.recipients.get(at).map(|(_, recipient)| *recipient)
    }

    /// Remembers why for `queue show` and for the bounce.
    fn remember(&self, settled: &[Settled]) -> io::Result<()> {
        let now = Timestamp::now();
        let session = self.session.as_ref().map(|session| session.host.as_str());
        let host = session.or_else(|| self.not_ready.as_ref().map(Peer::host));
        let worth_it = settled.iter().filter(|settled| !matches!(settled.outcome, Outcome::Delivered(_)));
        let replies: Vec<_> = worth_it
            .filter_map(|settled| {
                Some(LoggedReply::new(now, self.recipient(settled.position)?, &settled.outcome, host))
            })
            .collect();
        if replies.is_empty() {
            Ok(())
        } else {
            self.spool.append_replies(self.order.message.envelope.id, &replies)
        }
    }

    /// The batch goes back unsent: no server can have it, whatever was marked on the way.
    pub fn unsent(&mut self) {
        let positions: Vec<_> = std::mem::take(&mut self.in_doubt).into_iter().collect();
        self.take_back_doubt(&positions);
    }

    /// A mark that stays costs a false warning, but no mail: so what goes wrong here is only told.
    fn take_back_doubt(&self, positions: &[u32]) {
        if let Err(error) = self.file.mark(positions, State::Pending) {
            let id = self.order.message.envelope.id;
            log::warn!(
                "{id}: marks of doubt cannot be taken back: {error}; the mail was not sent, but may be called in \
                 doubt later"
            );
        }
    }

    /// Tells senders who asked for it that their mail has arrived, where the server will not. A crash before the mark
    /// that follows may tell them twice, but never leaves them waiting.
    fn report_successes(&mut self, settled: &[Settled]) {
        if self.session.as_ref().is_some_and(|session| session.reports_success) {
            return;
        }
        let now = Timestamp::now();
        let remote_mta = self.session.as_ref().map(|session| &session.host);
        let reported: Vec<_> = settled
            .iter()
            .filter_map(|settled| {
                let recipient = self.recipient(settled.position).filter(|r| r.notify.on_success())?;
                let Outcome::Delivered(reason) = &settled.outcome else { return None };
                Some(Reported {
                    recipient: recipient.clone(),
                    reason: reason.clone(),
                    remote_mta: remote_mta.cloned(),
                    last_attempt: Some(now),
                })
            })
            .collect();
        if reported.is_empty() {
            return;
        }
        let (config, protocol) = (&self.order.config, self.reported_protocol());
        match notices::queue(self.spool, config, self.file, Event::Delivered, protocol, &reported) {
            Ok(queued) => self.queued.extend(queued),
            Err(error) => {
                let id = self.order.message.envelope.id;
                log::error!("{id}: the mail was delivered, but the sender cannot be told as asked: {error}");
            }
        }
    }

    /// Flag X says that the server makes the final delivery, whatever is spoken to it.
    fn reported_protocol(&self) -> Protocol {
        let transport = self.order.config.transport(self.order.batch.destination().transport());
        let is_final = transport.is_some_and(|transport| transport.flags.final_delivery);
        if is_final { Protocol::Lmtp } else { self.protocol }
    }

    fn mark(&mut self, settled: &[Settled]) -> io::Result<()> {
        let mut marks =
            [(State::Sent, Vec::new()), (State::Refused, Vec::new()), (State::Pending, Vec::new())];
        for Settled { position, outcome, in_doubt } in settled {
            match outcome {
                Outcome::Delivered(_) => marks[0].1.push(*position),
                Outcome::Bounced(_) => marks[1].1.push(*position),
                // Without the mark of doubt it is pending already.
                Outcome::Deferred(_) if !in_doubt && self.in_doubt.contains(position) => {
                    marks[2].1.push(*position);
                }
                Outcome::Deferred(_) => {}
            }
        }
        for (state, mut positions) in marks {
            positions.sort_unstable();
            self.file.mark(&positions, state)?;
        }
        Ok(())
    }

    fn log(&self, settled: &Settled) {
        let Some(recipient) = self.recipient(settled.position) else { return };
        let delays = self.delays();
        let not_ready = || self.not_ready.as_ref().map_or_else(|| "none".to_owned(), Peer::relay);
        let (relay, uses) = match &self.session {
            Some(session) => (session.relay.clone(), session.uses),
            None => (not_ready(), 0),
        };
        self.order.counters.count(&settled.outcome);
        let id = self.order.message.envelope.id;
        let attempt = Attempt { recipient, relay: &relay, uses, delays, outcome: &settled.outcome };
        log_attempt(self.protocol, id, attempt);
    }

    fn delays(&self) -> Delays {
        let Order { message, .. } = self.order;
        let now = Instant::now();
        // Without a session all of the time went into looking for one.
        let ready = self.session.as_ref().map_or(now, |session| session.since);
        Delays {
            before_queue: between(message.envelope.arrival, message.loaded),
            in_queue: between(message.loaded, self.started_at),
            connection: ready.saturating_duration_since(self.started),
            transmission: now.saturating_duration_since(ready),
        }
    }
}

impl Observer for Recorder<'_> {
    fn ready(&mut self, peer: &Peer, offered: &Capabilities, uses: u32) {
        self.session = Some(Session {
            relay: peer.relay(),
            host: peer.host().to_owned(),
            uses,
            reports_success: offered.dsn,
            since: Instant::now(),
        });
    }

    fn not_ready(&mut self, peer: Option<&Peer>) {
        self.session = None;
        self.not_ready = peer.cloned();
    }

    fn end_of_data(&mut self, positions: &[u32]) -> io::Result<()> {
        let mut positions = positions.to_vec();
        positions.sort_unstable();
        let mut marked = 0;
        for run in positions.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
            if let Err(error) = self.file.mark(run, State::InDoubt) {
                self.take_back_doubt(positions.get(..marked).unwrap_or_default());
                return Err(error);
            }
            marked += run.len();
        }
        self.in_doubt.extend(positions);
        #[cfg(test)]
        super::tests::panic_if_asked(self.order, "in-doubt@test.invalid");
        Ok(())
    }

    fn settled(&mut self, mut settled: Vec<Settled>) {
        if settled.is_empty() {
            return;
        }
        if let Err(error) = self.remember(&settled) {
            settled.iter_mut().for_each(|settled| put_off_refusal(settled, &error));
        }
        self.report_successes(&settled);
        if let Err(error) = self.mark(&settled) {
            self.failed.get_or_insert(error);
        }
        for Settled { outcome, .. } in &settled {
            let counter = match outcome {
                Outcome::Delivered(_) => 0,
                Outcome::Deferred(_) => 1,
                Outcome::Bounced(_) => 2,
            };
            self.outcomes[counter] += 1;
            let reason = outcome.reason();
            if counter > 0 && is_about_protocol(reason) {
                self.protocol_error(&reason.text);
            }
        }
        for settled in &settled {
            self.log(settled);
        }
    }

    fn protocol_error(&mut self, text: &str) {
        self.trouble.get_or_insert_with(|| Trouble { what: text.to_owned(), transcript: None });
    }

    fn wants_conversations(&self) -> bool {
        self.order.config.notify_classes.contains(NotifyClass::Protocol)
    }

    fn conversation(&mut self, transcript: &Transcript) {
        if let Some(trouble) = &mut self.trouble {
            trouble.transcript.get_or_insert_with(|| transcript.clone());
        }
    }

    /// As Postfix logs it: of the connection, which may serve other messages too.
    fn secured(&mut self, text: &str) {
        log::info!(target: target(self.protocol), "{text}");
    }

    fn note(&mut self, text: &str) {
        log::info!(target: target(self.protocol), "{}: {text}", self.order.message.envelope.id);
    }
}

/// A refusal whose text is not on disk cannot be told to the sender: the recipient is tried again instead.
fn put_off_refusal(settled: &mut Settled, error: &io::Error) {
    if let Outcome::Bounced(reason) = &settled.outcome {
        let text =
            format!("{} -- tried again later, because the refusal cannot be recorded: {error}", reason.text);
        settled.outcome =
            Outcome::Deferred(Reason { status: reason.status.with_class(4), text, ..reason.clone() });
    }
}

/// The log line of one recipient and attempt.
fn log_attempt(protocol: Protocol, id: QueueId, attempt: Attempt<'_>) {
    log::info!(target: target(protocol), "{id}: {attempt}");
}

/// The tag of a protocol's log lines.
pub fn target(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Lmtp => LMTP,
        Protocol::Smtp => SMTP,
    }
}

/// A sender as the log writes it.
pub fn logged(sender: &Sender) -> String {
    format!("from=<{sender}>")
}

/// Time from one to the other; a clock that was set back makes none.
pub fn between(from: Timestamp, to: Timestamp) -> std::time::Duration {
    to.duration_since(from).try_into().unwrap_or_default()
}

/// Log lines for a batch that was not sent.
pub fn log_unsent(order: &Order, outcome: &Outcome) {
    for recipient in order.batch.recipients() {
        log_one_unsent(order, recipient, outcome);
    }
}

/// The log line of a recipient of a batch that was not sent.
pub fn log_one_unsent(order: &Order, recipient: &Recipient, outcome: &Outcome) {
    let Order { message, batch, config, counters } = order;
    let transport = config.transport(batch.destination().transport());
    let protocol = transport.map_or(Protocol::Lmtp, |transport| transport.protocol);
    log_unattempted(message, counters, protocol, recipient, outcome);
}

/// The same for a recipient who is in no batch.
pub fn log_unattempted(
    message: &Message,
    counters: &Counters,
    protocol: Protocol,
    recipient: &Recipient,
    outcome: &Outcome,
) {
    let delays = Delays {
        before_queue: between(message.envelope.arrival, message.loaded),
        in_queue: between(message.loaded, Timestamp::now()),
        ..Delays::default()
    };
    counters.count(outcome);
    let attempt = Attempt { recipient, relay: "none", uses: 0, delays, outcome };
    log_attempt(protocol, message.envelope.id, attempt);
}
