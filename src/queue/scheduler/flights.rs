//! Batches in flight: handed out, asked back, ended, lost.
//!
//! - Owns: the counts of what is in flight, and what the end of a batch means for its destination.
//! - Leaves to others: which batch is next (`dispatch`), how long a rest lasts (`condition`).
//! - Always true: what is counted when a batch is handed out is counted back exactly once, however it ends.

use super::place::Cut;
use super::pool::{Asked, Flight, Key, Mail, first_position};
use super::{Action, BatchEnd, Health, Scheduler, WorkerId};
use crate::mail::{Batch, QueueId};

impl Scheduler {
    /// Gives a batch to a worker: to run at once if it is idle, else into its mailbox.
    pub(super) fn hand_out(&mut self, key: Key, id: WorkerId, cut: Cut) {
        let Cut { batch, addresses } = cut;
        let (Some(place), Some(worker)) = (self.places.get_mut(&key), self.pool.get_mut(id)) else { return };
        let (message, recipients) = (batch.envelope().id, batch.recipients().len());
        self.serial += 1;
        place.in_flight += 1;
        place.carried += recipients;
        place.condition.started(self.serial);
        if let Some(job) = self.jobs.get_mut(&message) {
            job.flights += 1;
            if !place.has_lot(message) {
                job.places.remove(&key);
            }
        }
        let first = first_position(&batch);
        let flight = Flight { id: message, place: key, first, recipients, addresses, serial: self.serial };
        match &worker.running {
            None => {
                place.open_mailboxes.insert(flight.serial, id);
                worker.running = Some(flight);
            }
            Some(running) => {
                place.open_mailboxes.remove(&running.serial);
                place.mailed.insert(flight.serial, id);
                worker.mail = Some(Mail { flight, asked: None });
            }
        }
        self.actions.push(Action::Assign { worker: id, batch });
    }

    /// Asks for the batch in a mailbox.
    pub(super) fn ask_back(&mut self, id: WorkerId, why: Asked) {
        if !self.pool.ask(id, why) {
            return;
        }
        if let Some(mail) = self.pool.get_mut(id).and_then(|worker| worker.mail.as_ref())
            && let Some(place) = self.places.get_mut(&mail.flight.place)
        {
            place.mailed.remove(&mail.flight.serial);
        }
        self.actions.push(Action::TakeBack { worker: id });
    }

    pub(super) fn end(&mut self, id: WorkerId, end: BatchEnd) {
        let mail = self.pool.take_mail(id);
        let Some(worker) = self.pool.get_mut(id) else { return };
        let Some(flight) = worker.running.take() else { return };
        let Some(place) = self.places.get_mut(&flight.place) else { return };
        place.open_mailboxes.remove(&flight.serial);
        match mail {
            Some(Mail { flight: next, .. }) => self.run_next(id, next),
            None => self.pool.set_idle(id, end.cached.then(|| place.destination.clone())),
        }
        self.learn(&flight, end.destination);
    }

    /// What the end of a batch means for its destination and its recipients.
    fn learn(&mut self, flight: &Flight, health: Health) {
        let (key, serial, now, last) = (flight.place, flight.serial, self.now, self.serial);
        let Some(place) = self.places.get_mut(&key) else { return };
        let holds_back = match &health {
            Health::Reached => {
                place.condition.reached(serial);
                false
            }
            Health::Failed(reason) => {
                let longest = self.settings.minimal_backoff_time;
                place.condition.failed(serial, reason.clone(), now, last, longest)
            }
            Health::Busy(..) => place.condition.busy(serial, now, last),
            Health::Untouched => false,
        };
        place.condition.untouched(serial);
        let busy_for = place.condition.busy_for(now);
        match health {
            Health::Busy(batch, reason) if flight.carries(&batch) => {
                // It stays nobody's fault, but who waits must hear of it some time, and the message must get old.
                // What counts is how long the server has taken nothing: a long list may wait for long before its turn.
                if busy_for >= self.settings.minimal_backoff_time && !self.is_withdrawn(flight.id) {
                    self.land(flight);
                    self.actions.push(Action::Suspend { batch, reason });
                } else {
                    self.put_back(flight, batch);
                }
            }
            _ => self.land(flight),
        }
        if holds_back {
            self.hold_back(key);
        }
        self.refresh(key);
    }

    /// A destination rests or pauses: nothing more is to be started there, nor to stay in a mailbox.
    fn hold_back(&mut self, key: Key) {
        let Some(place) = self.places.get_mut(&key) else { return };
        let timer = place.condition.until();
        for id in std::mem::take(&mut place.mailed).into_values() {
            self.ask_back(id, Asked::ToWait);
        }
        self.set_timer(key, timer);
        self.suspend(key);
    }

    pub(super) fn take_back(&mut self, id: WorkerId, batch: Batch) {
        let Some(worker) = self.pool.get_mut(id) else { return };
        if let Some(asked) =
            worker.mail.as_ref().filter(|mail| mail.flight.carries(&batch)).map(|mail| mail.asked)
        {
            let Some(mail) = self.pool.take_mail(id) else { return };
            self.reopen_mailbox(id, &mail.flight);
            let key = mail.flight.place;
            self.release_probe(&mail.flight);
            self.put_back(&mail.flight, batch);
            self.suspend(key);
            if asked == Some(Asked::ForWorker) {
                // Not left to the next round: an idle worker was kept for this batch when it was its turn.
                self.start_kept(key);
            }
            self.refresh(key);
        } else if let Some(flight) = worker.running.take_if(|flight| flight.carries(&batch)) {
            self.take_back_unbegun(id, &flight, batch);
        }
    }

    /// The worker had not come to the batch that we thought it was running. If another waits behind it, that is the
    /// one which runs now.
    fn take_back_unbegun(&mut self, id: WorkerId, flight: &Flight, batch: Batch) {
        let key = flight.place;
        if let Some(place) = self.places.get_mut(&key) {
            place.open_mailboxes.remove(&flight.serial);
        }
        let mail = self.pool.take_mail(id);
        let asked = mail.as_ref().and_then(|mail| mail.asked);
        match mail {
            Some(Mail { flight: next, .. }) => self.run_next(id, next),
            None => self.pool.set_idle(id, None),
        }
        self.release_probe(flight);
        self.put_back(flight, batch);
        self.suspend(key);
        if asked == Some(Asked::ForWorker) {
            self.start_kept(key);
        }
        self.refresh(key);
    }

    /// What was in the mailbox runs now.
    fn run_next(&mut self, id: WorkerId, next: Flight) {
        if let Some(place) = self.places.get_mut(&next.place) {
            place.mailed.remove(&next.serial);
            place.open_mailboxes.insert(next.serial, id);
        }
        if let Some(worker) = self.pool.get_mut(id) {
            worker.running = Some(next);
        }
    }

    fn reopen_mailbox(&mut self, id: WorkerId, mail: &Flight) {
        let running = self.pool.get_mut(id).and_then(|worker| worker.running.as_ref());
        if let Some(place) = self.places.get_mut(&mail.place) {
            place.mailed.remove(&mail.serial);
            place.open_mailboxes.extend(running.map(|running| (running.serial, id)));
        }
    }

    fn release_probe(&mut self, flight: &Flight) {
        if let Some(place) = self.places.get_mut(&flight.place) {
            place.condition.untouched(flight.serial);
        }
    }

    /// A worker is gone: what it had not begun waits again, what it ran is the master's.
    pub(super) fn lose(&mut self, id: WorkerId, mut unbegun: Vec<Batch>) {
        let Some((running, mail)) = self.pool.lose(id) else { return };
        for flight in running.into_iter().chain(mail.map(|mail| mail.flight)) {
            let key = flight.place;
            if let Some(place) = self.places.get_mut(&key) {
                place.open_mailboxes.remove(&flight.serial);
                place.mailed.remove(&flight.serial);
            }
            self.release_probe(&flight);
            match unbegun.iter().position(|batch| flight.carries(batch)) {
                Some(at) => self.put_back(&flight, unbegun.swap_remove(at)),
                None => self.land(&flight),
            }
            self.suspend(key);
            self.refresh(key);
        }
    }

    /// A batch is no longer in flight, and its recipients are settled.
    fn land(&mut self, flight: &Flight) {
        self.leave(flight);
        if let Some(place) = self.places.get_mut(&flight.place) {
            place.release(&flight.addresses);
        }
        self.settle(flight.id, flight.recipients);
    }

    /// A batch is no longer in flight, and its recipients wait again, unless the message was withdrawn.
    fn put_back(&mut self, flight: &Flight, batch: Batch) {
        let Some(job) = self.jobs.get_mut(&flight.id).filter(|job| !job.withdrawn) else {
            self.land(flight);
            return;
        };
        job.places.insert(flight.place);
        self.leave(flight);
        if let Some(place) = self.places.get_mut(&flight.place) {
            place.put_back(batch);
        }
    }

    fn is_withdrawn(&self, id: QueueId) -> bool {
        self.jobs.get(&id).is_none_or(|job| job.withdrawn)
    }

    fn leave(&mut self, flight: &Flight) {
        if let Some(place) = self.places.get_mut(&flight.place) {
            place.in_flight -= 1;
            place.carried -= flight.recipients;
        }
        if let Some(job) = self.jobs.get_mut(&flight.id) {
            job.flights -= 1;
        }
    }
}
