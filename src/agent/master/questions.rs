//! What the control socket asks of the master.

use std::io;
use std::sync::Arc;

use crossbeam_channel::Sender;

use super::Master;
use super::table::Then;
use crate::agent::control::{Action, Answer, Ask, DestinationStatus, Question, Status, whole_seconds};
use crate::agent::pickup::Errand;
use crate::mail::QueueId;
use crate::queue::scheduler::{self, Event};
use crate::spool::Place;

impl Master {
    pub(super) fn answer(&mut self, question: Question) {
        let Question { ask, answer } = question;
        // Whoever asked may have gone.
        let _ = match ask {
            Ask::Status => answer.send(Answer::Status(Box::new(self.status()))),
            Ask::Config => answer.send(Answer::Config(Arc::clone(&self.config))),
            Ask::Flush => {
                self.intake.want(Place::Deferred, true);
                answer.send(Answer::Flushing)
            }
            Ask::Act(id, action) => return self.act(id, action, answer),
        };
    }

    pub(super) fn act(&mut self, id: QueueId, action: Action, answer: Sender<Answer>) {
        if self.stop_by.is_some() {
            // What the scheduler still has may never end now. Whoever asked may have gone.
            let stopping = io::Error::other("the agent is stopping: ask again when it has");
            let _ = answer.send(Answer::Acted(Err(stopping)));
            return;
        }
        let Some(entry) = self.table.get_mut(&id) else {
            return self.begin_errand(id, |errand| Errand::Act(errand, id, action, answer));
        };
        if let Then::Act(promised, _) = &entry.then {
            // What somebody was promised is not taken back by the next one.
            let error =
                format!("{promised:?} was asked for before, and is done when its batch ends").to_lowercase();
            let _ = answer.send(Answer::Acted(Err(io::Error::other(error))));
            return;
        }
        entry.then = Then::Act(action, answer);
        self.step_unless_stopping(Event::Withdrawn { id });
        self.conclude_if_idle(id);
        let waits = self.table.get(&id).and_then(|entry| match &entry.then {
            Then::Act(_, answer) => Some(answer),
            Then::Finish | Then::Forget => None,
        });
        if let Some(answer) = waits {
            // Whoever asked may have gone.
            let _ = answer.send(Answer::WhenItEnds);
        }
    }

    pub(super) fn status(&self) -> Status {
        let statistics = self.scheduler.statistics();
        let now = self.now();
        let [sent, deferred, bounced] = self.counters.totals();
        let destination = |d: scheduler::DestinationStatistics| DestinationStatus {
            destination: d.destination.to_string(),
            waiting: d.waiting,
            in_flight: d.in_flight,
            resting: d.resting_until.map(|until| whole_seconds(until.saturating_sub(now))),
            reason: d.reason.map(|reason| reason.text),
        };
        Status {
            pid: std::process::id(),
            uptime: now.as_secs(),
            workers_busy: statistics.workers_busy,
            workers_idle: statistics.workers_idle,
            connections: self.crew.connections(),
            messages: statistics.jobs,
            recipients: statistics.recipients,
            active_limit: self.config.active_limit,
            sent,
            deferred,
            bounced,
            destinations: statistics.destinations.into_iter().map(destination).collect(),
        }
    }
}
