//! The control socket's questions, and what the master answers.

use std::io;
use std::time::Duration;

use crossbeam_channel::Sender;
use serde::Serialize;

use crate::mail::QueueId;
use crate::spool::{Place, Spool};

/// A question to the master.
#[derive(Debug)]
pub struct Question {
    /// What is asked.
    pub ask: Ask,
    /// Where the answer goes.
    pub answer: Sender<Answer>,
}

/// What can be asked of the master.
#[derive(Clone, Copy, Debug)]
pub enum Ask {
    /// Numbers.
    Status,
    /// Try everything that is deferred now.
    Flush,
    /// Do something with one message.
    Act(QueueId, Action),
}

/// What an administrator can do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Set it aside until it is released.
    Hold,
    /// Out of `hold/`, to be tried at once.
    Release,
    /// Remove it.
    Delete,
    /// Whatever it waits for: try it at once.
    Requeue,
}

/// The master's answer.
#[derive(Debug)]
pub enum Answer {
    /// Numbers.
    Status(Box<Status>),
    /// Everything deferred will be tried.
    Flushing,
    /// It was done: where the message was before, `None` if there is no such message.
    Acted(io::Result<Option<Place>>),
    /// A batch of it is under way: it will be done when that ends.
    WhenItEnds,
}

/// A summary of the running agent.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Its process.
    pub pid: u32,
    /// Seconds since its start.
    pub uptime: u64,
    /// Workers with a batch.
    pub workers_busy: usize,
    /// Workers without.
    pub workers_idle: usize,
    /// Messages in memory.
    pub messages: usize,
    /// Recipients in memory.
    pub recipients: usize,
    /// The most there may be.
    pub active_limit: usize,
    /// Outcomes since the start.
    pub sent: u64,
    /// Outcomes since the start.
    pub deferred: u64,
    /// Outcomes since the start.
    pub bounced: u64,
    /// Destinations with mail, or with a failure that is remembered.
    pub destinations: Vec<DestinationStatus>,
}

/// A summary of one destination.
#[derive(Clone, Debug, Serialize)]
pub struct DestinationStatus {
    /// Which.
    pub destination: String,
    /// Recipients that wait for a worker.
    pub waiting: usize,
    /// Batches that are under way.
    pub in_flight: usize,
    /// Seconds until it is tried again, if it rests.
    pub resting: Option<u64>,
    /// Why it rests or did so last.
    pub reason: Option<String>,
}

impl Status {
    /// One line for the log.
    pub fn summary(&self) -> String {
        let Self { workers_busy, workers_idle, messages, recipients, active_limit, .. } = self;
        let Self { sent, deferred, bounced, destinations, .. } = self;
        let resting = destinations.iter().filter(|destination| destination.resting.is_some()).count();
        format!(
            "status: {messages} messages with {recipients} of at most {active_limit} recipients in memory, \
             {workers_busy} workers busy, {workers_idle} idle, {} destinations, {resting} of them resting; \
             since the start {sent} sent, {deferred} deferred, {bounced} bounced",
            destinations.len()
        )
    }
}

impl Action {
    /// Does it, to a message that nobody works on. Returns where the message was, `None` if there is none.
    pub fn carry_out(self, spool: &Spool, id: QueueId) -> io::Result<Option<Place>> {
        let Some(place) = spool.find(id)? else { return Ok(None) };
        let done = match (self, place) {
            (Self::Delete, _) => spool.remove(id, place)?,
            (Self::Hold, Place::Active | Place::Deferred) => spool.move_to(id, place, Place::Hold)?,
            (Self::Release, Place::Hold)
            | (Self::Requeue, Place::Hold | Place::Deferred | Place::Corrupt) => {
                spool.move_to(id, place, Place::Active)?
            }
            _ => true,
        };
        Ok(done.then_some(place))
    }

    /// What has been done to a message that was in `place`, for the log and for whoever asked.
    pub fn done(self, place: Option<Place>) -> &'static str {
        match (self, place) {
            (_, None) => "no such message",
            (Self::Delete, _) => "removed by the administrator",
            (Self::Hold, Some(Place::Active | Place::Deferred)) => "placed on hold",
            (Self::Hold, Some(Place::Hold)) => "it is on hold already",
            (Self::Hold, _) => "only a message that waits for delivery can be held",
            (Self::Release, Some(Place::Hold)) => "released from hold",
            (Self::Release, _) => "it is not on hold",
            (Self::Requeue, _) => "requeued: it is tried now",
        }
    }
}

/// Seconds, rounded up: "0" is over.
pub fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
