//! Which batch goes to which worker, and when.
//!
//! - Owns: jobs in memory, their batches, who is in flight, which destinations rest. Events in, actions out.
//! - Leaves to others: clocks, channels and disk (the master acts, the pickup thread reads), outcomes (the recorder),
//!   the next attempt of what was deferred (`retry`).
//! - Always true: a recipient that was loaded is in exactly one of three states until it is settled: it waits, it is
//!   in flight in one batch, or it was handed back as suspended. No batch waits while a worker that may take it is
//!   idle. A step costs what it changes, not what waits: idle destinations and long queues do not slow it down.
//!
//! A *job* is one message and who still needs it. Every destination has a ring of jobs; each in turn gives one batch,
//! so that small mail overtakes a posting to a large list. Destinations take turns for workers: first those of
//! which nothing is in flight, then the others, the one with fewest workers first, who leave some workers to the
//! first. A worker may have one more batch for the same destination in its mailbox, so that it need not wait for the
//! master; that batch is asked back as soon as another worker could start it.

mod condition;
mod dispatch;
mod event;
mod flights;
mod intake;
mod lot;
mod place;
mod pool;
mod ring;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

// For keys of our own making; what others choose (addresses) keeps the hasher that withstands them.
use foldhash::{HashMap, HashMapExt};

use self::condition::Serial;
pub use self::event::{
    Action, BatchEnd, DestinationStatistics, Event, Health, Limits, Settings, Statistics, WorkerId,
};
use self::place::Place;
use self::pool::{Key, Pool};
use self::ring::Ring;
use crate::mail::{Destination, QueueId, Recipient};

/// Of the pool, this part at most is reserved for destinations without a batch in flight.
const RESERVED_PART: usize = 8;
/// Of `active_limit`, this last part is for destinations that hold less than half of it.
const LAST_PART: usize = 4;

/// The scheduler. See the module's head for its rules.
#[derive(Debug)]
pub struct Scheduler {
    settings: Settings,
    now: Duration,
    pool: Pool,
    keys: HashMap<Destination, Key>,
    places: HashMap<Key, Place>,
    last_key: Key,
    jobs: HashMap<QueueId, Job>,
    /// Recipients that wait or are in flight.
    recipients: usize,
    /// The last batch handed out.
    serial: Serial,
    /// Destinations that could start a batch and have none in flight.
    unserved: Ring<Key>,
    /// Destinations that could use a worker more, beside those they have.
    served: Ring<Key>,
    timers: BTreeSet<(Duration, Key)>,
    actions: Vec<Action>,
}

/// One message and who still needs it.
#[derive(Debug, Default)]
struct Job {
    /// Where something of it waits.
    places: BTreeSet<Key>,
    /// Recipients that wait or are in flight.
    recipients: usize,
    /// Batches in flight.
    flights: usize,
    /// Pending recipients on disk.
    rest: usize,
    /// Recipients in memory when the last window had been loaded.
    window: usize,
    /// Whether the next window was asked for.
    asked: bool,
    /// Whether batches that come back are forgotten.
    withdrawn: bool,
}

impl Scheduler {
    /// A scheduler without mail, whose workers are all there.
    pub fn new(settings: Settings) -> Self {
        Self {
            pool: Pool::new(settings.workers),
            settings,
            now: Duration::ZERO,
            keys: HashMap::new(),
            places: HashMap::new(),
            last_key: 0,
            jobs: HashMap::new(),
            recipients: 0,
            serial: 0,
            unserved: Ring::default(),
            served: Ring::default(),
            timers: BTreeSet::new(),
            actions: Vec::new(),
        }
    }

    /// Takes one event; returns what is to be done because of it, in order. `now` is the time since the start on a
    /// clock that does not jump.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        self.now = self.now.max(now);
        self.wake();
        match event {
            Event::Loaded { envelope, recipients, rest } => self.load(&envelope, recipients, rest),
            Event::Ended { worker, end } => self.end(worker, end),
            Event::TakenBack { worker, batch } => self.take_back(worker, batch),
            Event::Withdrawn { id } => self.withdraw(id),
            Event::WorkerLost { worker, unbegun } => self.lose(worker, unbegun),
            Event::WorkerReady { worker } => self.pool.add(worker),
            Event::Tick => {}
            Event::Reconfigured(settings) => self.reconfigure(settings),
        }
        self.dispatch();
        std::mem::take(&mut self.actions)
    }

    /// When [`Event::Tick`] is due, on the clock of `step`; `None` if nothing happens by itself.
    pub fn next_wakeup(&self) -> Option<Duration> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Recipients in memory: waiting, in mailboxes, in batches that run.
    pub fn recipients(&self) -> usize {
        self.recipients
    }

    /// How many recipients more may be loaded; a window is to be no larger.
    pub fn room(&self) -> usize {
        self.settings.active_limit.saturating_sub(self.recipients)
    }

    /// Whether anything may be loaded.
    pub fn has_room(&self) -> bool {
        self.room() > 0
    }

    /// Whether these recipients may be loaded. The last quarter of `active_limit` is for destinations that hold less
    /// than half of that quarter, so that a large one cannot keep the others out, and that leave as much room as they
    /// then hold, so that several of them cannot either. When memory is empty everything may be; else no more than
    /// there is [`room`](Self::room) for.
    pub fn admits(&self, recipients: &[(Destination, Recipient)]) -> bool {
        if self.recipients == 0 {
            return true;
        }
        let last_part = self.settings.active_limit / LAST_PART;
        let is_small = |destination| {
            let held = self.held_by(destination);
            held * 2 < last_part && held + recipients.len() <= self.room()
        };
        recipients.len() <= self.room()
            && (self.recipients < self.settings.active_limit - last_part
                || recipients.iter().all(|(destination, _)| is_small(destination)))
    }

    /// Batches of a message that run or wait in mailboxes.
    pub fn in_flight(&self, id: QueueId) -> usize {
        self.jobs.get(&id).map_or(0, |job| job.flights)
    }

    /// Numbers for a status report. Looks at every destination.
    pub fn statistics(&self) -> Statistics {
        let mut destinations: Vec<_> = self.places.values().map(Place::statistics).collect();
        destinations.sort_by(|a, b| a.destination.cmp(&b.destination));
        Statistics {
            workers_busy: self.pool.busy(),
            workers_idle: self.pool.idle(),
            recipients: self.recipients,
            jobs: self.jobs.len(),
            destinations,
        }
    }

    fn held_by(&self, destination: &Destination) -> usize {
        let place = self.keys.get(destination).and_then(|key| self.places.get(key));
        place.map_or(0, |place| place.waiting + place.carried)
    }
}
