//! The control socket's questions, and what the master answers; what an administrator can do with a message.
//!
//! - Owns: which action means which move on disk, and how it is told.
//! - Leaves to others: when nobody works on the message (`master`), who may ask (`queue_control`).
//! - Always true: an action on a message that is not where the action applies changes nothing.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;
use serde::{Deserialize, Serialize};

use crate::config::Config;
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
    /// The configuration in effect.
    Config,
    /// Try everything that is deferred now.
    Flush,
    /// Do something with one message.
    Act(QueueId, Action),
}

/// What an administrator can do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// If it is deferred: try it at once.
    Flush,
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
    /// The configuration in effect.
    Config(Arc<Config>),
    /// Everything deferred will be tried.
    Flushing,
    /// It was done: where the message was before, `None` if there is no such message.
    Acted(io::Result<Option<Place>>),
    /// A batch of it is under way: it will be done when that ends.
    WhenItEnds,
}

/// A summary of the running agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its process.
    pub pid: u32,
    /// Seconds since its start.
    pub uptime: u64,
    /// Workers with a batch.
    pub workers_busy: usize,
    /// Workers without.
    pub workers_idle: usize,
    /// Connections that are open or being opened.
    pub connections: usize,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// What an action does to a message, by where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Remove,
    Move(Place),
    Nothing,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Flush, Self::Hold, Self::Release, Self::Delete, Self::Requeue];

    fn effect(self, place: Place) -> Effect {
        match (self, place) {
            (Self::Delete, _) => Effect::Remove,
            (Self::Hold, Place::Active | Place::Deferred) => Effect::Move(Place::Hold),
            (Self::Flush, Place::Deferred)
            | (Self::Release, Place::Hold)
            | (Self::Requeue, Place::Hold | Place::Deferred | Place::Corrupt) => Effect::Move(Place::Active),
            (Self::Flush | Self::Hold | Self::Release | Self::Requeue, _) => Effect::Nothing,
        }
    }

    /// Whether it would change anything about a message that is there.
    pub fn changes(self, place: Place) -> bool {
        self.effect(place) != Effect::Nothing
    }

    /// The places whose messages are meant where all are.
    pub fn places(self) -> &'static [Place] {
        match self {
            Self::Flush => &[Place::Deferred],
            Self::Hold => &[Place::Active, Place::Deferred],
            Self::Release => &[Place::Hold],
            Self::Delete => &[Place::Active, Place::Deferred, Place::Hold, Place::Corrupt],
            // What is damaged would only come back.
            Self::Requeue => &[Place::Deferred, Place::Hold],
        }
    }

    /// Does it, to a message that nobody works on. Returns where the message was, `None` if there is none.
    pub fn carry_out(self, spool: &Spool, id: QueueId) -> io::Result<Option<Place>> {
        let Some(place) = spool.find(id)? else { return Ok(None) };
        let done = match self.effect(place) {
            Effect::Remove => spool.remove(id, place)?,
            Effect::Move(to) => spool.move_to(id, place, to)?,
            Effect::Nothing => true,
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
            (_, Some(Place::Active)) => "it is active already",
            (Self::Flush, Some(Place::Deferred)) => "it is tried now",
            (Self::Flush, Some(Place::Hold)) => "it is on hold, and stays there until it is released",
            (Self::Flush, _) => "only a deferred message can be flushed",
            (Self::Requeue, _) => "requeued: it is tried now",
        }
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Flush => "flush",
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Delete => "delete",
            Self::Requeue => "requeue",
        })
    }
}

/// Seconds, rounded up: "0" is over.
pub fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
