//! Recipients who are settled without a worker: of suspended batches, of those over which a worker has panicked, and
//! where nobody can tell the way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::PickupThread;
use crate::agent::message::{Message, Order};
use crate::agent::report::Report;
use crate::agent::{finish, notices, recorder};
use crate::mail::{EnhancedStatus, Outcome, Protocol, QueueId, Reason, Recipient};
use crate::notice::TroubleClass;
use crate::spool::{LoggedReply, State};

/// Time between two notices of class `resource`.
const SHORTAGE_INTERVAL: Duration = Duration::from_secs(3600);

/// The same where it could not be queued.
const SHORTAGE_RETRY: Duration = Duration::from_secs(60);

impl PickupThread {
    /// Defers up to `count` batches that were suspended, the oldest first.
    pub(in crate::agent) fn settle_suspended(&mut self, count: usize) {
        for (order, reason) in self.suspended.drain(..count.min(self.suspended.len())).collect::<Vec<_>>() {
            self.settle(&order, &Outcome::Deferred(reason));
        }
    }

    /// The same for all of one message.
    pub(super) fn settle_suspended_of(&mut self, id: QueueId) {
        let is_of = |(order, _): &(Box<Order>, Reason)| order.message.envelope.id == id;
        let (of_it, others): (VecDeque<_>, VecDeque<_>) = self.suspended.drain(..).partition(is_of);
        self.suspended = others;
        for (order, reason) in of_it {
            self.settle(&order, &Outcome::Deferred(reason));
        }
    }

    fn settle(&self, order: &Order, outcome: &Outcome) {
        let protocol = order
            .config
            .transport(order.batch.destination().transport())
            .map_or(Protocol::Lmtp, |t| t.protocol);
        recorder::log_unsent(order, outcome);
        self.remember(&order.message, order.batch.recipients(), outcome);
        self.count_down(order, protocol);
    }

    /// Defers recipients of whom nobody can tell where they go now. What is returned is for the master: it was the last
    /// that there was to do for the message.
    pub(super) fn defer_unplaced(
        &self,
        message: &Message,
        recipients: &[Recipient],
        reason: Reason,
    ) -> Option<finish::Finished> {
        let (outcome, protocol) = (Outcome::Deferred(reason), Protocol::Lmtp);
        for recipient in recipients {
            recorder::log_unattempted(message, &self.counters, protocol, recipient, &outcome);
        }
        self.remember(message, recipients, &outcome);
        let is_last = message.count_down(recipients.len());
        is_last.then(|| finish::finish(&self.spool, &self.sweeper, &self.config, message, protocol, None))
    }

    /// For `queue show`, and for the bounce in the end.
    fn remember(&self, message: &Message, recipients: &[Recipient], outcome: &Outcome) {
        let now = Timestamp::now();
        let reply = |recipient| LoggedReply::new(now, recipient, outcome, None);
        let replies: Vec<_> = recipients.iter().map(reply).collect();
        let id = message.envelope.id;
        if let Err(error) = self.spool.append_replies(id, &replies) {
            log::warn!("{id}: why it was deferred cannot be recorded: {error}");
        }
    }

    /// The worker has marked what it knew before it panicked; what it had not is tried again.
    pub(super) fn settle_lost(&self, order: &Order) {
        let reason = Reason::local(EnhancedStatus::new(4, 3, 0), "a worker failed while it had the message");
        let id = order.message.envelope.id;
        if order.message.is_settled() {
            // It panicked over the end of the message, which is not tried again here: the file tells what is left to do.
            let message = Arc::clone(&order.message);
            return self.reporter.send(Report::Settled { message, queued: Vec::new() });
        }
        let states =
            self.spool.open_active(id).ok().flatten().and_then(|file| file.states().ok()).unwrap_or_default();
        let outcome = Outcome::Deferred(reason);
        for recipient in order.batch.recipients() {
            match states.get(recipient.position as usize) {
                Some(State::InDoubt) => log::warn!(
                    "{id}: <{}> was in doubt when a worker failed; the message may be delivered twice",
                    recipient.address
                ),
                Some(State::Pending) | None => {}
                Some(State::Sent | State::Refused | State::Bounced) => continue,
            }
            recorder::log_one_unsent(order, recipient, &outcome);
        }
        self.count_down(order, Protocol::Lmtp);
    }

    pub(super) fn count_down(&self, order: &Order, protocol: Protocol) {
        if order.message.count_down(order.batch.recipients().len()) {
            let finished =
                finish::finish(&self.spool, &self.sweeper, &self.config, &order.message, protocol, None);
            let message = Arc::clone(&order.message);
            self.reporter.send(Report::Settled { message, queued: finished.queued });
        }
    }

    /// Tells the postmaster that mail cannot be queued for want of room, once an hour at most.
    pub(super) fn tell_of_shortage(&mut self, error: &str) {
        if Instant::now() < self.shortage_next {
            return;
        }
        let about = format!(
            "Mail in incoming/ cannot be queued: {error}. It is kept there, and tried again every minute."
        );
        let id = notices::queue_trouble(&self.spool, &self.config, TroubleClass::Resource, &about);
        // There may have been no room for the notice either.
        self.shortage_next = Instant::now() + if id.is_some() { SHORTAGE_INTERVAL } else { SHORTAGE_RETRY };
        self.reporter.send(Report::Queued(id.into_iter().collect()));
    }

    pub(super) fn tell_of_panic(&self, about: &str) {
        let class = TroubleClass::Software;
        if let Some(id) = notices::queue_trouble(&self.spool, &self.config, class, about) {
            self.reporter.send(Report::Queued(vec![id]));
        }
    }
}
