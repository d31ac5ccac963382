//! What the other threads tell the master.

use std::sync::Arc;

use crossbeam_channel::Sender;

use super::doorbell::Doorbell;
use super::finish::Finished;
use super::message::{Message, Order};
use super::pickup::{Chunk, ErrandId, Found};
use crate::config::Config;
use crate::mail::{Destination, QueueId, Recipient};
use crate::queue::scheduler::{BatchEnd, WorkerId};
use crate::spool::Cursor;

/// One thing that has happened.
#[derive(Debug)]
pub enum Report {
    /// A batch has ended.
    Ended {
        /// Who had it.
        worker: WorkerId,
        /// The message it was of.
        id: QueueId,
        /// What it taught the scheduler.
        end: BatchEnd,
        /// It was the message's last.
        finished: Option<Finished>,
        /// Notices that were queued meanwhile, in `active/`.
        queued: Vec<QueueId>,
    },
    /// A worker has panicked over this.
    Lost {
        /// Who.
        worker: WorkerId,
        /// What it was working on.
        order: Box<Order>,
    },
    /// A worker has panicked while it worked on nothing.
    Gone {
        /// Who.
        worker: WorkerId,
    },
    /// A window of a message was read.
    Loaded(Box<Loaded>),
    /// An errand to a message has ended without anything to deliver: it could not be loaded, is done with already, or
    /// what an administrator wanted is done. Its ID may leave the table.
    Dismissed {
        /// Which.
        id: QueueId,
        /// The errand.
        errand: ErrandId,
        /// Notices that were queued meanwhile.
        queued: Vec<QueueId>,
    },
    /// The last that there was to do for a message was done without a worker. It may have left the table by then.
    Settled {
        /// Which, as it was loaded: another one of this ID may be in memory now.
        message: Arc<Message>,
        /// Notices that were queued meanwhile.
        queued: Vec<QueueId>,
    },
    /// Messages of ours were queued in `active/`.
    Queued(Vec<QueueId>),
    /// A part of a listing.
    Listed(Chunk),
    /// Messages were picked up into `active/`.
    PickedUp(Found),
    /// Stop gracefully.
    Stop,
    /// The configuration was read again.
    Reconfigured(Arc<Config>),
    /// Log a status summary.
    StatusWanted,
    /// Somebody asks through the control socket.
    Asked(super::control::Question),
    /// The pickup thread has ended; without it nothing can be loaded.
    PickupLost,
}

/// A window of a message that was read.
#[derive(Debug)]
pub struct Loaded {
    /// The message.
    pub message: Arc<Message>,
    /// The errand that has brought it.
    pub errand: ErrandId,
    /// Who is pending, and where each goes.
    pub recipients: Vec<(Destination, Recipient)>,
    /// Pending recipients behind the window.
    pub rest: usize,
    /// Where the next window begins.
    pub next: Option<Cursor>,
    /// Whether this is the first window.
    pub is_first: bool,
    /// All recipients of the message.
    pub count: u32,
}

/// A thread's way to the master.
#[derive(Debug)]
pub struct Reporter<R = Report> {
    reports: Sender<R>,
    doorbell: Doorbell,
}

impl<R> Clone for Reporter<R> {
    fn clone(&self) -> Self {
        Self { reports: self.reports.clone(), doorbell: self.doorbell.clone() }
    }
}

impl<R> Reporter<R> {
    /// Reports go into `reports`; the master is woken by `doorbell`.
    pub fn new(reports: Sender<R>, doorbell: Doorbell) -> Self {
        Self { reports, doorbell }
    }

    /// Tells the master.
    pub fn send(&self, report: R) {
        // No receiver: the master is gone and nobody is left to hear of it.
        let _ = self.reports.send(report);
        self.doorbell.ring();
    }

    /// Tells the master, and wakes it whatever it does: for signals.
    pub fn send_signal(&self, report: R) {
        let _ = self.reports.send(report);
        self.doorbell.ring_anyway();
    }
}
