//! The workers: who is idle, who runs what, what waits in whose mailbox.
//!
//! - Owns: the choice among idle workers.
//! - Leaves to others: which batch goes next (`dispatch`).
//! - Always true: the batch in a mailbox is for the same destination as the one that runs before it.

use foldhash::{HashMap, HashMapExt};

use super::condition::Serial;
use super::event::WorkerId;
use super::lot::Folded;
use super::ring::{Ring, Turn};
use crate::mail::{Batch, Destination, QueueId};

/// A destination by its number; later ones have higher numbers.
pub(super) type Key = u64;

/// What is remembered of a batch in flight.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) id: QueueId,
    pub(super) place: Key,
    /// The position of the first recipient, who is in no other batch in flight.
    pub(super) first: Option<u32>,
    pub(super) recipients: usize,
    /// The slots that it holds, one for each address.
    pub(super) addresses: Vec<Folded>,
    pub(super) serial: Serial,
}

impl Flight {
    /// Whether this is the batch.
    pub(super) fn carries(&self, batch: &Batch) -> bool {
        self.id == batch.envelope().id && self.first == first_position(batch)
    }
}

/// With its message's ID, the name of a batch.
pub(super) fn first_position(batch: &Batch) -> Option<u32> {
    batch.recipients().first().map(|recipient| recipient.position)
}

/// Why a batch was asked back from a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// An idle worker is kept for it.
    ForWorker,
    /// It is to wait elsewhere, or to go.
    ToWait,
}

/// A batch in a mailbox.
#[derive(Debug)]
pub(super) struct Mail {
    pub(super) flight: Flight,
    pub(super) asked: Option<Asked>,
}

/// One worker.
#[derive(Debug, Default)]
pub(super) struct Worker {
    pub(super) running: Option<Flight>,
    pub(super) mail: Option<Mail>,
    idle: Option<Idle>,
    is_there: bool,
}

/// Where an idle worker stands in the lines of idle workers.
#[derive(Debug)]
struct Idle {
    turn: Turn,
    cached: Option<Destination>,
    /// Its turn among those with the same connection, or among those without any.
    turn_by_connection: Turn,
}

/// All workers.
#[derive(Debug)]
pub(super) struct Pool {
    workers: Vec<Worker>,
    /// Who is idle longest comes first, in this and in the others.
    idle: Ring<WorkerId>,
    unconnected: Ring<WorkerId>,
    cached: HashMap<Destination, Ring<WorkerId>>,
    /// Idle workers that are kept for batches that were asked back.
    kept: usize,
}

impl Pool {
    /// A pool whose workers are all idle and unconnected.
    pub(super) fn new(size: usize) -> Self {
        let mut pool = Self {
            workers: Vec::new(),
            idle: Ring::default(),
            unconnected: Ring::default(),
            cached: HashMap::new(),
            kept: 0,
        };
        for id in (0..size).map(WorkerId) {
            pool.workers.push(Worker { is_there: true, ..Worker::default() });
            pool.set_idle(id, None);
        }
        pool
    }

    /// How many there are, lost ones included.
    pub(super) fn size(&self) -> usize {
        self.workers.len()
    }

    /// Idle workers.
    pub(super) fn idle(&self) -> usize {
        self.idle.len()
    }

    /// Workers with a batch.
    pub(super) fn busy(&self) -> usize {
        self.workers.iter().filter(|worker| worker.running.is_some()).count()
    }

    /// Idle workers that nothing is kept for.
    pub(super) fn free(&self) -> usize {
        self.idle.len().saturating_sub(self.kept)
    }

    /// A worker.
    pub(super) fn get_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.workers.get_mut(id.0)
    }

    /// The workers in whose mailbox a batch of this message waits.
    pub(super) fn with_mail_of(&self, id: QueueId) -> Vec<WorkerId> {
        let has_mail = |worker: &Worker| worker.mail.as_ref().is_some_and(|mail| mail.flight.id == id);
        (0..).map(WorkerId).zip(&self.workers).filter(|(_, w)| has_mail(w)).map(|(id, _)| id).collect()
    }

    /// The best idle worker for a destination, which is then no longer idle: one that is connected to it and used
    /// last (so that the others' connections may go), one without connection, the one idle longest.
    pub(super) fn pick(&mut self, destination: &Destination) -> Option<WorkerId> {
        let connected = self.cached.get_mut(destination).and_then(Ring::pop_back);
        let id = connected.or_else(|| self.unconnected.pop_front()).or_else(|| self.idle.pop_front())?;
        self.unset_idle(id);
        Some(id)
    }

    /// A worker has nothing to do; `cached` is what it is connected to.
    pub(super) fn set_idle(&mut self, id: WorkerId, cached: Option<Destination>) {
        let Some(worker) = self.workers.get_mut(id.0) else { return };
        let by_connection = match &cached {
            Some(destination) => self.cached.entry(destination.clone()).or_default(),
            None => &mut self.unconnected,
        };
        let turn_by_connection = by_connection.push_back(id);
        worker.idle = Some(Idle { turn: self.idle.push_back(id), cached, turn_by_connection });
    }

    fn unset_idle(&mut self, id: WorkerId) {
        let Some(idle) = self.workers.get_mut(id.0).and_then(|worker| worker.idle.take()) else { return };
        self.idle.remove(idle.turn);
        let Some(destination) = idle.cached else {
            self.unconnected.remove(idle.turn_by_connection);
            return;
        };
        if let Some(ring) = self.cached.get_mut(&destination) {
            ring.remove(idle.turn_by_connection);
            if ring.is_empty() {
                self.cached.remove(&destination);
            }
        }
    }

    /// Notes that the batch in a mailbox was asked back. False if it was before.
    pub(super) fn ask(&mut self, id: WorkerId, why: Asked) -> bool {
        let mail = self.workers.get_mut(id.0).and_then(|worker| worker.mail.as_mut());
        let Some(mail) = mail.filter(|mail| mail.asked.is_none()) else { return false };
        mail.asked = Some(why);
        self.kept += usize::from(why == Asked::ForWorker);
        true
    }

    /// Empties a mailbox, as far as we count; an idle worker that was kept for its batch is free again.
    pub(super) fn take_mail(&mut self, id: WorkerId) -> Option<Mail> {
        let mail = self.workers.get_mut(id.0)?.mail.take()?;
        if mail.asked == Some(Asked::ForWorker) {
            self.kept = self.kept.saturating_sub(1);
        }
        Some(mail)
    }

    /// A worker is gone. Returns what it ran and what waited behind that; `None` if it was gone already.
    pub(super) fn lose(&mut self, id: WorkerId) -> Option<(Option<Flight>, Option<Mail>)> {
        self.unset_idle(id);
        let mail = self.take_mail(id);
        let worker = self.workers.get_mut(id.0).filter(|worker| worker.is_there)?;
        worker.is_there = false;
        Some((worker.running.take(), mail))
    }

    /// A lost worker is there again.
    pub(super) fn add(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(id.0).filter(|worker| !worker.is_there) {
            worker.is_there = true;
            self.set_idle(id, None);
        }
    }
}
