//! One batch at a time.
//!
//! - Owns: a thread and its connection.
//! - Leaves to others: which batch comes next (the master), what a batch is and how it ends (its [`Source`]).
//! - Always true: a batch that was taken ends in exactly one report, also if the thread panics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::report::Reporter;
use super::source::Source;
use crate::net::CachedConnection;
use crate::queue::scheduler::WorkerId;

/// One worker: owns its connection, shares nothing but what its source shares, ends when the master drops its mailbox.
pub struct Worker<S: Source> {
    /// Which of the pool.
    pub id: WorkerId,
    /// Its mailbox; the master holds a clone, to take batches back.
    pub mailbox: Receiver<S::Order>,
    /// The agent stops: nobody waits for servers that say goodbye.
    pub stopping: Arc<AtomicBool>,
    /// Where it tells what happened.
    pub reporter: Reporter<S::Report>,
    /// Where its batches come from.
    pub source: S,
    /// Its connection.
    pub cached: CachedConnection,
    /// Whether it has one, or is about to: for whoever asks for numbers.
    pub connected: Arc<AtomicBool>,
}

impl<S: Source> Worker<S> {
    /// Works until the mailbox is closed.
    pub fn run(mut self) {
        let mut guard = Guard::<S> { worker: self.id, reporter: self.reporter.clone(), order: None };
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
                    let report = self.source.deliver(self.id, order, &mut self.cached);
                    let _done = guard.order.take();
                    self.reporter.send(report);
                    #[cfg(test)]
                    _done.iter().for_each(S::reported);
                    self.cached.say_goodbye(&work_is_waiting);
                }
                Err(RecvTimeoutError::Timeout) => self.cached.close(&work_is_waiting),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.connected.store(self.cached.destination().is_some(), Ordering::Relaxed);
        }
        self.cached.close(&|| true);
    }
}

/// Tells the master of a worker that panics, with the batch that it was working on.
struct Guard<S: Source> {
    worker: WorkerId,
    reporter: Reporter<S::Report>,
    order: Option<S::Order>,
}

impl<S: Source> Drop for Guard<S> {
    fn drop(&mut self) {
        if let Some(order) = self.order.take() {
            self.reporter.send(S::lost(self.worker, order));
        } else if std::thread::panicking() {
            self.reporter.send(S::gone(self.worker));
        }
    }
}
