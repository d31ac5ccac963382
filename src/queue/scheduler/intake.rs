//! Jobs come in, in windows, and go: settled, suspended or withdrawn.
//!
//! - Owns: the table of jobs, the count of recipients in memory, when the next window of a job is due.
//! - Leaves to others: batches in flight (`flights`).
//! - Always true: a job is known as long as a recipient of it is in memory or on disk, and no longer.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::place::Place;
use super::pool::{Asked, Key};
use super::{Action, Limits, Scheduler, Settings};
use crate::mail::{Destination, Envelope, QueueId, Recipient};

impl Scheduler {
    pub(super) fn load(
        &mut self,
        envelope: &Arc<Envelope>,
        recipients: Vec<(Destination, Recipient)>,
        rest: usize,
    ) {
        let count = recipients.len();
        let mut touched = BTreeSet::new();
        for (destination, recipient) in recipients {
            let key = self.key_of(destination);
            if let Some(place) = self.places.get_mut(&key) {
                place.push(envelope, recipient);
                touched.insert(key);
            }
        }
        let job = self.jobs.entry(envelope.id).or_default();
        job.places.extend(&touched);
        job.recipients += count;
        job.window = job.recipients;
        // After an empty window another one would be as empty: asking again might never end.
        job.rest = if count == 0 { 0 } else { rest };
        job.asked = false;
        job.withdrawn = false;
        self.recipients += count;
        for key in touched {
            self.suspend(key);
            self.refresh(key);
        }
        self.settle(envelope.id, 0);
    }

    /// `count` recipients of a job have left memory.
    pub(super) fn settle(&mut self, id: QueueId, count: usize) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.recipients -= count;
        self.recipients -= count;
        if job.rest > 0 && !job.asked && job.recipients <= job.window / 2 {
            job.asked = true;
            self.actions.push(Action::LoadMore { id });
        }
        if job.recipients == 0 && job.rest == 0 {
            self.jobs.remove(&id);
        }
    }

    /// Forgets what waits of a job, and asks back what waits in mailboxes.
    pub(super) fn withdraw(&mut self, id: QueueId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.rest = 0;
        job.withdrawn = true;
        let mut count = 0;
        for key in std::mem::take(&mut job.places) {
            if let Some(place) = self.places.get_mut(&key) {
                count += place.take_all(id).iter().map(|(_, recipients)| recipients.len()).sum::<usize>();
                self.refresh(key);
            }
        }
        for worker in self.pool.with_mail_of(id) {
            self.ask_back(worker, Asked::ToWait);
        }
        self.settle(id, count);
    }

    /// Hands back all that waits for a destination, if it rests for long.
    pub(super) fn suspend(&mut self, key: Key) {
        let Some(place) = self.places.get_mut(&key) else { return };
        let Some(reason) = place.condition.suspends() else { return };
        let batches: Vec<_> = place.jobs().into_iter().map(|id| (id, place.take_batches(id))).collect();
        for (id, batches) in batches {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.places.remove(&key);
            }
            let count = batches.iter().map(|batch| batch.recipients().len()).sum();
            let suspend = |batch| Action::Suspend { batch, reason: reason.clone() };
            self.actions.extend(batches.into_iter().map(suspend));
            self.settle(id, count);
        }
    }

    pub(super) fn reconfigure(&mut self, settings: Settings) {
        self.settings = settings;
        let keys: BTreeSet<Key> = self.places.keys().copied().collect();
        for key in keys {
            if let Some(place) = self.places.get_mut(&key) {
                place.set_limits(limits_of(&self.settings, &place.destination));
                self.refresh(key);
            }
        }
    }

    fn key_of(&mut self, destination: Destination) -> Key {
        if let Some(key) = self.keys.get(&destination) {
            return *key;
        }
        self.last_key += 1;
        let limits = limits_of(&self.settings, &destination);
        self.keys.insert(destination.clone(), self.last_key);
        self.places.insert(self.last_key, Place::new(destination, limits));
        self.last_key
    }
}

fn limits_of(settings: &Settings, destination: &Destination) -> Limits {
    settings.limits.get(destination.transport()).copied().unwrap_or_default()
}
