//! What comes in from the FIFO and from the other threads, and what the scheduler makes of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::Master;
use crate::agent::intake::Name;
use crate::agent::message::Order;
use crate::agent::pickup::{Chunk, Errand, Found};
use crate::agent::report::Report;
use crate::mail::{Batch, QueueId};
use crate::queue::job::{IncomingName, JobLine, Submission};
use crate::queue::scheduler::{self, BatchEnd, Event, Health, WorkerId};
use crate::spool::{Draft, Place};

/// Reads of the FIFO at a stop: more than a pipe holds.
const DRAINS_MAX: usize = 4;

impl Master {
    pub(super) fn read_jobs(&mut self) {
        let Some(fifo) = self.spool.jobs() else { return };
        let lines = self.jobs.read(fifo);
        if self.jobs.may_have_missed() {
            self.intake.missed_lines(Instant::now());
        }
        for line in lines {
            match line {
                JobLine::QueueFile(id) => self.intake.add(Name { id, place: Place::Active, is_new: true }),
                JobLine::Incoming(name) => self.take(name, None),
                JobLine::Submission(submission) => {
                    let (name, draft) = draft(submission);
                    self.take(name, Some(Box::new(draft)));
                }
            }
        }
    }

    /// Reads what writers have been promised: the envelope of a bare message is in its job line alone.
    pub(super) fn drain_jobs(&mut self) {
        // Writers may go on; a pipe's worth is what had been written when the stop came.
        for _ in 0..DRAINS_MAX {
            self.read_jobs();
        }
    }

    pub(super) fn take(&mut self, name: IncomingName, draft: Option<Box<Draft>>) {
        self.takes.begin(draft.as_deref());
        self.send(Errand::Take { name, draft });
    }

    pub(super) fn send(&self, errand: Errand) {
        // If the pickup thread is gone, its last report is about to end us.
        let _ = self.errands.send(errand);
    }

    pub(super) fn step(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.scheduler.step(self.now(), event) {
                events.extend(self.carry_out(action));
            }
        }
    }

    /// Does what the scheduler wants; a batch that was got back is what it must hear of next.
    pub(super) fn carry_out(&mut self, action: scheduler::Action) -> Option<Event> {
        match action {
            scheduler::Action::Assign { worker, batch } => {
                let Some(order) = self.order(batch) else {
                    // The worker is not to wait for what never comes.
                    let end = BatchEnd { cached: false, destination: Health::Untouched };
                    return Some(Event::Ended { worker, end });
                };
                self.crew.hand_over(worker, order);
            }
            scheduler::Action::TakeBack { worker } => {
                let order = self.crew.take_back(worker)?;
                return Some(Event::TakenBack { worker, batch: order.batch });
            }
            scheduler::Action::Suspend { batch, reason } => {
                if let Some(order) = self.order(batch) {
                    self.send(Errand::Suspend(Box::new(order), reason));
                }
            }
            scheduler::Action::LoadMore { id } => self.load_next_window(id),
        }
        None
    }

    pub(super) fn order(&self, batch: Batch) -> Option<Order> {
        let in_memory = self.table.get(&batch.envelope().id).and_then(|entry| entry.loaded.as_ref());
        if in_memory.is_none() {
            let id = batch.envelope().id;
            log::error!("{id}: there is a batch of a message that is not in memory; it is left on disk");
        }
        in_memory.map(|in_memory| Order {
            batch,
            message: Arc::clone(&in_memory.message),
            config: Arc::clone(&self.config),
            counters: Arc::clone(&self.counters),
        })
    }

    pub(super) fn take_reports(&mut self) {
        while let Ok(report) = self.reports.try_recv() {
            self.take_report(report);
        }
    }

    pub(super) fn take_report(&mut self, report: Report) {
        match report {
            Report::Ended { worker, id, end, finished, queued } => {
                self.crew.has_ended(worker);
                self.add_queued(queued);
                if let Some(finished) = finished {
                    self.add_queued(finished.queued);
                    self.conclude(finished.id);
                }
                self.step_unless_stopping(Event::Ended { worker, end });
                self.conclude_if_idle(id);
            }
            Report::Lost { worker, order } => self.replace(worker, order),
            Report::Gone { worker } => self.replace_idle(worker),
            Report::Loaded(loaded) => self.loaded(*loaded),
            Report::Dismissed { id, errand, queued } => {
                self.add_queued(queued);
                self.dismissed(id, errand);
            }
            Report::Settled { message, queued } => {
                self.add_queued(queued);
                self.settled(&message);
            }
            Report::Queued(ids) => self.add_queued(ids),
            Report::Listed(Chunk { place, ids, is_last }) => {
                let found = !ids.is_empty();
                ids.into_iter().for_each(|id| self.intake.add_listed(Name { id, place, is_new: false }));
                self.intake.has_come(place, is_last, found);
            }
            Report::PickedUp(Found { ids, is_last }) => {
                let Some(is_last) = is_last else {
                    self.takes.end();
                    return self.add_queued(ids);
                };
                let found = !ids.is_empty();
                let name = |id| Name { id, place: Place::Active, is_new: false };
                ids.into_iter().for_each(|id| self.intake.add_listed(name(id)));
                self.intake.has_come(Place::Incoming, is_last, found);
            }
            Report::Asked(question) => self.answer(question),
            Report::Stop => self.stop(),
            Report::Reconfigured(config) => self.reconfigure(config),
            Report::StatusWanted => log::info!("{}", self.status().summary()),
            Report::PickupLost => {
                log::error!(
                    "the pickup thread has failed, so nothing can be loaded: the agent stops; all mail is kept"
                );
                self.pickup_lost = true;
                self.stop();
            }
        }
    }

    /// A stopping agent hands nothing out: what the scheduler has is on disk. It still learns what has ended, because
    /// that may be what an administrator's wish waits for.
    pub(super) fn step_unless_stopping(&mut self, event: Event) {
        if self.stop_by.is_none() {
            self.step(event);
        } else {
            self.scheduler.step(self.now(), event);
        }
    }

    pub(super) fn add_queued(&mut self, ids: Vec<QueueId>) {
        let name = |id| Name { id, place: Place::Active, is_new: false };
        ids.into_iter().for_each(|id| self.intake.add(name(id)));
    }

    /// Workers that could not be started before may be there now.
    pub(super) fn replace_missing(&mut self) {
        for worker in self.crew.take_on_missing() {
            self.step_unless_stopping(Event::WorkerReady { worker });
        }
    }

    pub(super) fn replace(&mut self, worker: WorkerId, order: Box<Order>) {
        let id = order.message.envelope.id;
        log::error!("{id}: a worker has panicked while it had the message; another one takes its place");
        self.send(Errand::TellOfPanic(format!(
            "A worker of the agent panicked while it was delivering message {id}. Its recipients are tried again."
        )));
        self.send(Errand::SettleLost(order));
        self.crew.has_ended(worker);
        if self.take_on(worker) {
            // What waits in the mailbox is for the new one. Asked back, it would be put there again at once.
            let end = BatchEnd { cached: false, destination: Health::Untouched };
            self.step_unless_stopping(Event::Ended { worker, end });
        }
    }
}

impl Master {
    /// A worker has panicked between two batches. Another one reads the same mailbox.
    fn replace_idle(&mut self, worker: WorkerId) {
        log::error!("a worker has panicked between two batches; another one takes its place");
        self.send(Errand::TellOfPanic(
            "A worker of the agent panicked between two deliveries. No mail was hurt.".into(),
        ));
        self.take_on(worker);
    }

    /// Starts another worker; `false` if that is not possible now, and its batches wait elsewhere.
    fn take_on(&mut self, worker: WorkerId) -> bool {
        let Err(unbegun) = self.crew.take_on(worker) else { return true };
        let unbegun = unbegun.into_iter().map(|order| order.batch).collect();
        self.step_unless_stopping(Event::WorkerLost { worker, unbegun });
        false
    }
}

/// The envelope of a bare message, from its job line. Whoever may write the FIFO is trusted; the message's origin is
/// the owner of its file all the same.
fn draft(submission: Submission) -> (IncomingName, Draft) {
    let Submission { file, sender, recipients, nexthop, envid, ret, smtputf8, body: _ } = submission;
    let recipients =
        recipients.into_iter().zip(0..).map(|(recipient, position)| recipient.at(position)).collect();
    (file, Draft { sender, recipients, nexthop, envid, ret, smtputf8, origin: String::new() })
}
