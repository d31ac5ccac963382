//! The end of an attempt: a message with no batch left is done with, deferred, bounced, or set aside.
//!
//! - Owns: the order in which notices, marks and renames reach the disk.
//! - Leaves to others: each of these (`notices`, `spool`), and when it is time (`Message::count_down`).
//! - Always true: a mark that says a bounce is on disk is written after the bounce is; a message leaves `active/`
//!   once, with nobody working on it.

use std::io;

use jiff::{SignedDuration, Timestamp};

use super::log::QMGR;
use super::message::Message;
use super::notices::{self, Reported};
use super::recorder::logged;
use super::sweeper::Sweeper;
use crate::config::Config;
use crate::mail::{EnhancedStatus, Notify, Outcome, Protocol, QueueId, Reason, Recipient};
use crate::notice::Event;
use crate::queue::retry::Patience;
use crate::spool::{LoadError, LoggedReply, Place, QueueFile, Spool, State, SubmitError};

/// Recipients of one bounce or delay notice, all of whom are in memory while it is written. A message with more gets
/// several: a report on a hundred thousand would be too large for most servers to take.
const RECIPIENTS_AT_ONCE: usize = 5000;

/// What the master hears about it.
#[derive(Debug)]
pub struct Finished {
    /// Which message.
    pub id: QueueId,
    /// Notices that were queued for it, in `active/`.
    pub queued: Vec<QueueId>,
}

/// Why a message cannot be finished now.
#[derive(Debug, thiserror::Error)]
enum Unfinished {
    #[error("its queue file cannot be used: {0}")]
    File(#[from] LoadError),
    #[error("its queue file cannot be used: {0}")]
    Disk(#[from] io::Error),
    #[error("a notice about it cannot be queued: {0}")]
    Notice(#[from] SubmitError),
}

/// Finishes `message`, whose last batch has ended. Whatever fails is logged, and the message kept. `file` is its file
/// if the caller has it open.
pub fn finish(
    spool: &Spool,
    sweeper: &Sweeper,
    config: &Config,
    message: &Message,
    protocol: Protocol,
    file: Option<&QueueFile>,
) -> Finished {
    let id = message.envelope.id;
    let mut queued = Vec::new();
    let mut finish_file = |file: &QueueFile| {
        let finishing = Finishing { spool, sweeper, config, message, protocol, file };
        if let Err(error) = finishing.run(&mut queued) {
            log::error!("{id}: {error}; the message is deferred and tried again");
            finishing.defer_anyhow();
        }
    };
    match file {
        Some(file) => finish_file(file),
        None => match spool.open_again(&message.envelope, &message.layout) {
            // Somebody has moved or deleted it: it is theirs now.
            Ok(None) => {}
            Ok(Some(file)) => finish_file(&file),
            Err(error) => log::error!("{id}: the queue file cannot be opened: {error}; it stays where it is"),
        },
    }
    Finished { id, queued }
}

/// Sets a message aside whose marks could not be written: nobody can tell from it any more who has got it.
pub fn hold(spool: &Spool, id: QueueId, error: &io::Error) {
    let result = match spool.move_to(id, Place::Active, Place::Hold) {
        Ok(true) => "it is in hold/ now".to_owned(),
        Ok(false) => "somebody has moved or removed it meanwhile".to_owned(),
        Err(error) => format!("and it cannot be moved to hold/ either: {error}"),
    };
    log::error!(
        "{id}: outcomes could not be marked in the queue file ({error}), so it may not be tried again: {result}"
    );
}

struct Finishing<'a> {
    spool: &'a Spool,
    sweeper: &'a Sweeper,
    config: &'a Config,
    message: &'a Message,
    protocol: Protocol,
    file: &'a QueueFile,
}

/// The recipients that are not done with, by position.
struct Open {
    refused: Vec<u32>,
    pending: Vec<u32>,
    /// Somebody was bounced in an earlier attempt.
    bounced: bool,
}

impl Open {
    fn is_work_left(&self) -> bool {
        !self.refused.is_empty() || !self.pending.is_empty()
    }
}

impl Finishing<'_> {
    fn run(&self, queued: &mut Vec<QueueId>) -> Result<(), Unfinished> {
        let mut open = self.open_recipients()?;
        if open.is_work_left() && !self.spool.is_active(self.file)? {
            // Somebody has moved or deleted it meanwhile: it is theirs now.
            return Ok(());
        }
        if !open.pending.is_empty() && self.is_expired() {
            self.give_up(&mut open)?;
        }
        if !open.refused.is_empty() {
            self.bounce(&open.refused, queued)?;
        }
        if open.pending.is_empty() {
            let bounced = open.bounced || !open.refused.is_empty();
            return self.remove_or_keep(bounced, !queued.is_empty());
        }
        self.warn_of_delay(&open.pending, queued)?;
        self.defer()
    }

    fn open_recipients(&self) -> Result<Open, Unfinished> {
        let mut open = Open { refused: Vec::new(), pending: Vec::new(), bounced: false };
        for (state, position) in self.file.states()?.into_iter().zip(0..) {
            match state {
                State::Refused => open.refused.push(position),
                State::Pending | State::InDoubt => open.pending.push(position),
                State::Bounced => open.bounced = true,
                State::Sent => {}
            }
        }
        Ok(open)
    }

    fn is_expired(&self) -> bool {
        let envelope = &self.message.envelope;
        patience(self.config).is_over(envelope.arrival, Timestamp::now(), envelope.sender.is_null())
    }

    /// The message is too old: who is pending is refused, with the words of the last attempt.
    fn give_up(&self, open: &mut Open) -> Result<(), Unfinished> {
        let envelope = &self.message.envelope;
        self.for_some_at_a_time(&open.pending, |reported| {
            let replies: Vec<_> = reported.iter().map(expired).collect();
            self.spool.append_replies(envelope.id, &replies)?;
            Ok(self.file.mark(&positions_of(reported), State::Refused)?)
        })?;
        let from = logged(&envelope.sender);
        log::info!(target: QMGR, "{}: {from}, status=expired, returned to sender", envelope.id);
        open.refused.append(&mut open.pending);
        open.refused.sort_unstable();
        Ok(())
    }

    /// A bounce for those who were refused, on disk before they are marked.
    fn bounce(&self, refused: &[u32], queued: &mut Vec<QueueId>) -> Result<(), Unfinished> {
        self.for_some_at_a_time(refused, |reported| {
            queued.extend(self.notify(Event::Failed, reported)?);
            Ok(self.file.mark(&positions_of(reported), State::Bounced)?)
        })
    }

    fn notify(&self, event: Event, reported: &[Reported]) -> Result<Vec<QueueId>, SubmitError> {
        notices::queue(self.spool, self.config, self.file, event, self.protocol, reported)
    }

    /// Hands recipients, with what was kept of their last attempts, to `act`: at most [`RECIPIENTS_AT_ONCE`] of them
    /// are in memory, however many the message has.
    fn for_some_at_a_time(
        &self,
        positions: &[u32],
        mut act: impl FnMut(&[Reported]) -> Result<(), Unfinished>,
    ) -> Result<(), Unfinished> {
        let replies = self.spool.find_last_replies(self.message.envelope.id, positions)?;
        let mut gathered = Vec::with_capacity(positions.len().min(RECIPIENTS_AT_ONCE));
        for entry in self.file.recipients()? {
            let (recipient, _) = entry?;
            if positions.binary_search(&recipient.position).is_ok() {
                let reply = replies.of(recipient.position)?;
                gathered.push(self.reported_one(recipient, reply));
            }
            if gathered.len() == RECIPIENTS_AT_ONCE {
                act(&gathered)?;
                gathered.clear();
            }
        }
        if gathered.is_empty() { Ok(()) } else { act(&gathered) }
    }

    fn reported_one(&self, recipient: Recipient, reply: Option<LoggedReply>) -> Reported {
        match reply {
            Some(LoggedReply { time, dsn, text, reply, mta, .. }) => Reported {
                recipient,
                reason: Reason { status: dsn, text, reply },
                remote_mta: mta,
                last_attempt: time.parse().ok(),
            },
            None => Reported {
                recipient,
                reason: Reason::local(EnhancedStatus::new(5, 0, 0), "the reason was not recorded"),
                remote_mta: None,
                last_attempt: None,
            },
        }
    }

    /// Everybody is settled. A notice that could not be delivered is kept: at most the postmaster was told of it.
    fn remove_or_keep(&self, bounced: bool, postmaster_told: bool) -> Result<(), Unfinished> {
        let envelope = &self.message.envelope;
        let id = envelope.id;
        if bounced && envelope.sender.is_null() {
            self.spool.move_to(id, Place::Active, Place::Corrupt)?;
            let told = if postmaster_told { " and reported to the postmaster" } else { "" };
            log::warn!("{id}: a message without sender could not be delivered: it is kept in corrupt/{told}");
        } else {
            self.sweeper.remove(id);
        }
        Ok(())
    }

    fn warn_of_delay(&self, pending: &[u32], queued: &mut Vec<QueueId>) -> Result<(), Unfinished> {
        let (envelope, patience, now) = (&self.message.envelope, patience(self.config), Timestamp::now());
        let is_due =
            |notify| patience.warning_is_due(envelope.arrival, now, notify, envelope.sender.is_null());
        // Who asked is told no later than who did not, so one look spares reading all recipients of most mail.
        if !is_due(Notify::DELAY) || self.file.delay_notice_sent()? {
            return Ok(());
        }
        let lifetime =
            SignedDuration::try_from(patience.maximal_queue_lifetime).unwrap_or(SignedDuration::MAX);
        let retry_until = envelope.arrival.checked_add(lifetime).unwrap_or(Timestamp::MAX);
        let mut somebody_is_due = false;
        self.for_some_at_a_time(pending, |reported| {
            let is_due = |reported: &&Reported| is_due(reported.recipient.notify);
            let due: Vec<_> = reported.iter().filter(is_due).cloned().collect();
            somebody_is_due |= !due.is_empty();
            queued.extend(self.notify(Event::Delayed { retry_until }, &due)?);
            Ok(())
        })?;
        if somebody_is_due {
            self.file.mark_delay_notice_sent()?;
        }
        Ok(())
    }

    fn defer(&self) -> Result<(), Unfinished> {
        let id = self.message.envelope.id;
        let next = patience(self.config).next_attempt(
            self.message.envelope.arrival,
            Timestamp::now(),
            fastrand::f64(),
        );
        self.file.set_next_attempt(next.into())?;
        self.spool.move_to(id, Place::Active, Place::Deferred)?;
        Ok(())
    }

    /// Gets a message that cannot be finished out of the way, so that it does not come back at once.
    fn defer_anyhow(&self) {
        if let Err(error) = self.defer() {
            log::error!("{}: it cannot be deferred: {error}; it stays in active/", self.message.envelope.id);
        }
    }
}

fn positions_of(reported: &[Reported]) -> Vec<u32> {
    reported.iter().map(|reported| reported.recipient.position).collect()
}

/// The refusal of a recipient whose time is over, in the words of its last attempt.
fn expired(reported: &Reported) -> LoggedReply {
    // RFC 3463 section 3.5: delivery time expired.
    let reason = Reason { status: EnhancedStatus::new(5, 4, 7), ..reported.reason.clone() };
    let mta = reported.remote_mta.as_deref();
    LoggedReply::new(Timestamp::now(), &reported.recipient, &Outcome::Bounced(reason), mta)
}

/// What the configuration says about waiting.
pub fn patience(config: &Config) -> Patience {
    Patience {
        minimal_backoff_time: config.minimal_backoff_time,
        maximal_backoff_time: config.maximal_backoff_time,
        maximal_queue_lifetime: config.maximal_queue_lifetime,
        bounce_queue_lifetime: config.bounce_queue_lifetime,
        delay_warning_time: config.delay_warning_time,
    }
}
