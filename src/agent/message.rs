//! A message in memory: what the threads that deal with it share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use jiff::Timestamp;

use crate::config::Config;
use crate::mail::{Batch, Envelope, Outcome};
use crate::spool::Layout;

/// A message that was loaded from `active/`.
#[derive(Debug)]
pub struct Message {
    /// What is known of it.
    pub envelope: Arc<Envelope>,
    /// Where everything lies in its file.
    pub layout: Layout,
    /// When it was loaded: the log's delays begin with it.
    pub loaded: Timestamp,
    /// Recipients for whom this attempt has no outcome yet, those that are still on disk included. Whoever brings
    /// it to zero finishes the message.
    unsettled: AtomicUsize,
}

impl Message {
    /// A message for `unsettled` of whose recipients something is to be done.
    pub fn new(envelope: Arc<Envelope>, layout: Layout, unsettled: usize) -> Self {
        Self { envelope, layout, loaded: Timestamp::now(), unsettled: AtomicUsize::new(unsettled) }
    }

    /// Counts `recipients` as done with; `true` for whoever counts the last ones, who then finishes the message.
    pub fn count_down(&self, recipients: usize) -> bool {
        recipients > 0 && self.unsettled.fetch_sub(recipients, Ordering::AcqRel) == recipients
    }

    /// Whether everybody has been counted.
    pub fn is_settled(&self) -> bool {
        self.unsettled.load(Ordering::Acquire) == 0
    }
}

/// A batch on its way to a worker, with what is needed to deliver it.
#[derive(Debug)]
pub struct Order {
    /// To whom, and where.
    pub batch: Batch,
    /// Of what.
    pub message: Arc<Message>,
    /// By which rules.
    pub config: Arc<Config>,
    /// Where its outcomes are counted.
    pub counters: Arc<Counters>,
}

/// Outcomes since the start.
#[derive(Debug, Default)]
pub struct Counters {
    sent: AtomicU64,
    deferred: AtomicU64,
    bounced: AtomicU64,
}

impl Counters {
    /// Counts one outcome.
    pub fn count(&self, outcome: &Outcome) {
        let counter = match outcome {
            Outcome::Delivered(_) => &self.sent,
            Outcome::Deferred(_) => &self.deferred,
            Outcome::Bounced(_) => &self.bounced,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Sent, deferred and bounced so far.
    pub fn totals(&self) -> [u64; 3] {
        [&self.sent, &self.deferred, &self.bounced].map(|counter| counter.load(Ordering::Relaxed))
    }
}
