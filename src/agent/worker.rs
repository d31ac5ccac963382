//! One batch at a time.
//!
//! - Owns: a thread, its connection, what is prepended to content.
//! - Leaves to others: which batch comes next (the master), outcomes on disk (`recorder`), the end (`finish`).
//! - Always true: a batch that was taken ends in exactly one report, also if the thread panics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::finish::{self, Finished};
use super::message::Order;
use super::notices::ProtocolNotices;
use super::prepend;
use super::recorder::{Recorded, Recorder};
use super::report::{Report, Reporter};
use super::sweeper::Sweeper;
use crate::config::Transport;
use crate::mail::{EnhancedStatus, Outcome, Protocol, QueueId, Reason};
use crate::net::{CachedConnection, Content, Delivered, Observer};
use crate::queue::scheduler::{BatchEnd, Health, WorkerId};
use crate::smtp::Settled;
use crate::spool::{QueueFile, Spool};

/// One worker: owns its connection, shares nothing but the queue on disk, ends when the master drops its mailbox.
pub struct Worker {
    /// Which of the pool.
    pub id: WorkerId,
    /// Its mailbox; the master holds a clone, to take batches back.
    pub mailbox: Receiver<Order>,
    /// The agent stops: nobody waits for servers that say goodbye.
    pub stopping: Arc<AtomicBool>,
    /// Where it tells what happened.
    pub reporter: Reporter,
    /// The queue.
    pub spool: Arc<Spool>,
    /// Who removes what is done with.
    pub sweeper: Sweeper,
    /// Its connection.
    pub cached: CachedConnection,
    /// What the postmaster was told of servers; shared by all workers.
    pub protocol_notices: Arc<ProtocolNotices>,
    /// Whether it has one, or is about to: for whoever asks for numbers.
    pub connected: Arc<AtomicBool>,
}

/// How a batch went.
pub(super) struct Ended {
    end: BatchEnd,
    pub(super) finished: Option<Finished>,
    queued: Vec<QueueId>,
}

impl Worker {
    /// Works until the mailbox is closed.
    pub fn run(mut self) {
        let mut guard = Guard { worker: self.id, reporter: self.reporter.clone(), order: None };
        loop {
            let mailbox = self.mailbox.clone();
            let stopping = Arc::clone(&self.stopping);
            let work_is_waiting = || !mailbox.is_empty() || stopping.load(Ordering::Relaxed);
            let order = match self.cached.idle_limit() {
                Some(limit) => self.mailbox.recv_timeout(limit),
                None => self.mailbox.recv().map_err(RecvTimeoutError::from),
            };
            match order {
                Ok(order) => {
                    self.connected.store(true, Ordering::Relaxed);
                    let order = guard.order.insert(order);
                    let report = self.work_on(order);
                    let _done = guard.order.take();
                    self.reporter.send(report);
                    #[cfg(test)]
                    _done
                        .iter()
                        .for_each(|order| super::tests::panic_if_asked(order, "between@test.invalid"));
                    self.cached.say_goodbye(&work_is_waiting);
                }
                Err(RecvTimeoutError::Timeout) => self.cached.close(&work_is_waiting),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.connected.store(self.cached.destination().is_some(), Ordering::Relaxed);
        }
        self.cached.close(&|| true);
    }

    fn work_on(&mut self, order: &Order) -> Report {
        let Ended { end, finished, queued } = self.deliver(order);
        Report::Ended { worker: self.id, id: order.message.envelope.id, end, finished, queued }
    }

    fn deliver(&mut self, order: &Order) -> Ended {
        let id = order.message.envelope.id;
        let destination = order.batch.destination();
        let Some(transport) = order.config.transport(destination.transport()) else {
            // Routes are read together with the transports they name, so this is a message from before a reload.
            return self.defer_unsent(order, "its transport is no longer configured");
        };
        match self.spool.open_again(&order.message.envelope, &order.message.layout) {
            Ok(Some(file)) => self.deliver_file(order, transport, &file),
            Ok(None) => self.ended(order, transport, None, Health::Untouched, Vec::new()),
            Err(error) => {
                log::error!(
                    "{id}: the queue file cannot be opened for writing: {error}; the mail is deferred unsent"
                );
                self.defer_unsent(order, "the queue file cannot be opened")
            }
        }
    }

    fn deliver_file(&mut self, order: &Order, transport: &Arc<Transport>, file: &QueueFile) -> Ended {
        #[cfg(test)]
        super::tests::panic_if_asked(order, "unsent@test.invalid");
        let mut recorder = Recorder::new(&self.spool, file, order, transport.protocol);
        let prefix = match prepend::headers(&order.batch, transport.flags, file) {
            Ok(prefix) => prefix,
            Err(outcome) => {
                recorder.settled(all(order, &outcome));
                return self.recorded(order, transport, file, recorder.into_recorded(), Health::Untouched);
            }
        };
        self.cached.set_myhostname(&order.config.myhostname);
        let (offset, length) = file.content_range();
        let content = Content { prefix: &prefix, file: file.file(), offset, length };
        let health = match self.cached.deliver(&order.batch, &content, transport, &mut recorder) {
            Delivered::Reached => Health::Reached,
            Delivered::Failed(reason) => Health::Failed(reason),
            Delivered::Busy(reason) => {
                recorder.unsent();
                recorder.note(&format!("{}; the server is busy, and the mail waits", reason.text));
                let end = BatchEnd { cached: false, destination: Health::Busy(order.batch.clone(), reason) };
                return Ended { end, finished: None, queued: Vec::new() };
            }
        };
        self.recorded(order, transport, file, recorder.into_recorded(), health)
    }

    /// Everybody of the batch has an outcome on disk.
    pub(super) fn recorded(
        &self,
        order: &Order,
        transport: &Transport,
        file: &QueueFile,
        recorded: Recorded,
        health: Health,
    ) -> Ended {
        if let Some(error) = &recorded.failed {
            finish::hold(&self.spool, order.message.envelope.id, error);
        }
        let mut queued = recorded.queued;
        if let Some(trouble) = recorded.trouble {
            let about = about_trouble(order.message.envelope.id, &trouble.what, recorded.outcomes);
            let destination = order.batch.destination();
            let transcript = trouble.transcript.as_ref();
            queued.extend(self.protocol_notices.queue(
                &self.spool,
                &order.config,
                destination,
                about,
                transcript,
            ));
        }
        self.ended(order, transport, Some(file), health, queued)
    }

    /// Settles all of a batch without an attempt, for a reason of ours that the queue file need not know.
    fn defer_unsent(&self, order: &Order, why: &str) -> Ended {
        let reason = Reason::local(EnhancedStatus::new(4, 3, 0), why);
        super::recorder::log_unsent(order, &Outcome::Deferred(reason));
        let finished = self.count_down(order, Protocol::Lmtp, None);
        let end = BatchEnd { cached: self.cached.destination().is_some(), destination: Health::Untouched };
        Ended { end, finished, queued: Vec::new() }
    }

    fn ended(
        &self,
        order: &Order,
        transport: &Transport,
        file: Option<&QueueFile>,
        health: Health,
        queued: Vec<QueueId>,
    ) -> Ended {
        let cached = self.cached.destination() == Some(order.batch.destination());
        let finished = self.count_down(order, transport.protocol, file);
        Ended { end: BatchEnd { cached, destination: health }, finished, queued }
    }

    /// `file` is the message's, if the worker has it open.
    fn count_down(&self, order: &Order, protocol: Protocol, file: Option<&QueueFile>) -> Option<Finished> {
        let is_last = order.message.count_down(order.batch.recipients().len());
        #[cfg(test)]
        super::tests::panic_if_asked(order, "settled@test.invalid");
        is_last.then(|| {
            finish::finish(&self.spool, &self.sweeper, &order.config, &order.message, protocol, file)
        })
    }
}

/// What a server did, and what it meant for the mail.
fn about_trouble(id: QueueId, what: &str, outcomes: [usize; 3]) -> String {
    let words = ["delivered", "deferred (to be tried again)", "bounced (returned to the sender)"];
    let counted = outcomes.iter().zip(words).filter(|(count, _)| **count > 0);
    let became: Vec<_> = counted.map(|(count, word)| format!("{count} {word}")).collect();
    format!(
        "A mail server broke the protocol: {what}. It was to take message {id}; of the recipients there: {}.",
        became.join(", ")
    )
}

/// The same outcome for all of a batch.
fn all(order: &Order, outcome: &Outcome) -> Vec<Settled> {
    let settle = |position| Settled { position, outcome: outcome.clone(), in_doubt: false };
    order.batch.recipients().iter().map(|recipient| settle(recipient.position)).collect()
}

/// Tells the master of a worker that panics, with the batch that it was working on.
struct Guard {
    worker: WorkerId,
    reporter: Reporter,
    order: Option<Order>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let worker = self.worker;
        if let Some(order) = self.order.take() {
            self.reporter.send(Report::Lost { worker, order: Box::new(order) });
        } else if std::thread::panicking() {
            self.reporter.send(Report::Gone { worker });
        }
    }
}
