//! What the scheduler is told and what it asks for.
//!
//! - Owns: settings, events, actions, and the numbers for a status report.
//! - Leaves to others: acting on them (the master).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::mail::{Batch, Destination, Envelope, QueueId, Reason, Recipient, TransportName};

/// One worker of the pool, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub usize);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Batches in flight to a destination that has not answered yet; as many as Postfix begins with.
const INITIAL_CONCURRENCY: usize = 5;

/// The limits of one transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Batches in flight to one destination; 0 counts as 1.
    pub destination_concurrency_limit: usize,
    /// The same for a destination of which no batch has come to an end yet: it may be one that never answers, and is not
    /// to hold all the workers for as long as its timeouts are. 0 counts as 1.
    pub initial_destination_concurrency: usize,
    /// Recipients of one batch; 0 = no limit.
    pub destination_recipient_limit: usize,
    /// Batches in flight that hold one recipient address, whatever its case; 0 = no limit.
    pub recipient_concurrency_limit: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            destination_concurrency_limit: 20,
            initial_destination_concurrency: INITIAL_CONCURRENCY,
            destination_recipient_limit: 50,
            recipient_concurrency_limit: 4,
        }
    }
}

/// What the administrator decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Size of the pool. It is fixed at the start: [`Event::Reconfigured`] does not change it.
    pub workers: usize,
    /// Workers that a destination with a batch running leaves to those without; an eighth of the pool at most.
    pub workers_reserved: usize,
    /// Recipients in memory.
    pub active_limit: usize,
    /// The longest rest of a destination.
    pub minimal_backoff_time: Duration,
    /// The limits of each transport; one that is not named has the default ones.
    pub limits: HashMap<TransportName, Limits>,
}

/// Something that has happened.
#[derive(Debug)]
pub enum Event {
    /// Recipients of a message were read: a new job, or the next window of one that is known.
    Loaded {
        /// The message.
        envelope: Arc<Envelope>,
        /// Pending recipients that are not in memory yet, and where each goes.
        recipients: Vec<(Destination, Recipient)>,
        /// Pending recipients that are still on disk. Where `recipients` is empty nothing is asked for again.
        rest: usize,
    },
    /// The batch that a worker was running has ended. If one waits in its mailbox that runs now.
    Ended {
        /// The worker.
        worker: WorkerId,
        /// What the batch taught us.
        end: BatchEnd,
    },
    /// A batch is out of a worker's mailbox again: the one that waited there, or the one that we think is running, if
    /// the worker had not come to it. Then the one that waits is run instead.
    TakenBack {
        /// Whose mailbox it was.
        worker: WorkerId,
        /// The batch.
        batch: Batch,
    },
    /// A message was deleted or held: what is not running is forgotten, and what runs does not come back.
    Withdrawn {
        /// The message.
        id: QueueId,
    },
    /// A worker's thread has died. Its reports were read before; the batch it was running is settled by the master and
    /// forgotten here.
    WorkerLost {
        /// The worker.
        worker: WorkerId,
        /// What was still in its mailbox.
        unbegun: Vec<Batch>,
    },
    /// The place of a lost worker is taken by another, without connection.
    WorkerReady {
        /// The worker.
        worker: WorkerId,
    },
    /// Time has passed.
    Tick,
    /// The administrator changed the settings.
    Reconfigured(Settings),
}

/// What a batch that has ended taught us.
#[derive(Debug)]
pub struct BatchEnd {
    /// Whether the worker keeps a connection to the batch's destination.
    pub cached: bool,
    /// How the destination did.
    pub destination: Health,
}

/// How a destination did. What it replied to a recipient is no matter of health.
#[derive(Debug)]
pub enum Health {
    /// It spoke MAIL or later: it works.
    Reached,
    /// Connect, greeting, LHLO, TLS or AUTH failed on all of its servers, or 421 came before MAIL: it is to rest.
    Failed(Reason),
    /// It was too busy to take the connection. The batch comes back and waits; the destination does not rest. With what
    /// the batch is deferred where that has gone on for long.
    Busy(Batch, Reason),
    /// Nothing was learnt, for instance because the message was gone.
    Untouched,
}

/// Something for the master to do, in this order.
#[derive(Debug)]
pub enum Action {
    /// Put a batch into a worker's mailbox.
    Assign {
        /// The worker; idle, or running a batch for the same destination with nothing in its mailbox.
        worker: WorkerId,
        /// The batch.
        batch: Batch,
    },
    /// Try to get the batch out of a worker's mailbox again. When all actions of this step are done, and before any
    /// other event, it is reported as [`Event::TakenBack`]. Where the worker was faster nothing is reported: its
    /// `Ended` is on its way.
    TakeBack {
        /// The worker.
        worker: WorkerId,
    },
    /// Defer a batch without an attempt, because its destination rests or has been busy for long.
    Suspend {
        /// The batch. It is no longer the scheduler's.
        batch: Batch,
        /// Status and text for the log.
        reason: Reason,
    },
    /// Read the next window of a job. Asked once for each window; answered by [`Event::Loaded`].
    LoadMore {
        /// The message.
        id: QueueId,
    },
}

/// Numbers for a status report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Workers with a batch.
    pub workers_busy: usize,
    /// Workers without.
    pub workers_idle: usize,
    /// Recipients in memory.
    pub recipients: usize,
    /// Messages in memory.
    pub jobs: usize,
    /// Destinations with mail or with a failure that is remembered, in order.
    pub destinations: Vec<DestinationStatistics>,
}

/// Numbers of one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationStatistics {
    /// The destination.
    pub destination: Destination,
    /// Recipients that wait for a worker.
    pub waiting: usize,
    /// Batches that run or wait in a mailbox.
    pub in_flight: usize,
    /// When its rest or its pause ends, on the clock that the scheduler is told; `None` if it has neither.
    pub resting_until: Option<Duration>,
    /// Why it rests or did so last; `None` once it was reached again.
    pub reason: Option<Reason>,
}
