//! The pool of workers, as the master sees it: mailboxes, and how many batches each has.
//!
//! - Owns: the threads and their channels.
//! - Leaves to others: who gets what (`queue::scheduler`).
//! - Always true: a batch in a mailbox can be taken back until the worker has it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::report::Reporter;
use super::source::Source;
use super::worker::Worker;
use crate::net::{CachedConnection, Stepwise};
use crate::queue::scheduler::WorkerId;

/// How long to wait before a worker that could not be started is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// The pool.
pub struct Crew<S: Source> {
    members: Vec<Member<S::Order>>,
    source: S,
    reporter: Reporter<S::Report>,
    stepwise: Arc<Stepwise>,
    stopping: Arc<AtomicBool>,
    myhostname: String,
    /// Workers that could not be started again.
    missing: Vec<WorkerId>,
    missing_since: Instant,
}

struct Member<O> {
    /// The scheduler puts at most two batches in: one to run, one to wait.
    mailbox: Sender<O>,
    take_back: Receiver<O>,
    thread: JoinHandle<()>,
    connected: Arc<AtomicBool>,
    /// Batches handed over that have neither ended nor been taken back.
    batches: usize,
    /// It takes no more batches.
    is_dismissed: bool,
}

impl<S: Source> Crew<S> {
    /// Starts `size` workers for `source`.
    pub fn start(
        size: usize,
        source: S,
        reporter: Reporter<S::Report>,
        myhostname: String,
    ) -> io::Result<Self> {
        let mut crew = Self {
            members: Vec::with_capacity(size),
            source,
            reporter,
            stepwise: Arc::default(),
            stopping: Arc::default(),
            myhostname,
            missing: Vec::new(),
            missing_since: Instant::now(),
        };
        for number in 0..size {
            let member = crew.start_member(WorkerId(number))?;
            crew.members.push(member);
        }
        Ok(crew)
    }

    fn start_member(&self, id: WorkerId) -> io::Result<Member<S::Order>> {
        let (mailbox, take_back) = unbounded();
        let connected = Arc::default();
        let thread = self.start_thread(id, take_back.clone(), Arc::clone(&connected))?;
        Ok(Member { mailbox, take_back, thread, connected, batches: 0, is_dismissed: false })
    }

    fn start_thread(
        &self,
        id: WorkerId,
        mailbox: Receiver<S::Order>,
        connected: Arc<AtomicBool>,
    ) -> io::Result<JoinHandle<()>> {
        let worker = Worker {
            id,
            mailbox,
            stopping: Arc::clone(&self.stopping),
            reporter: self.reporter.clone(),
            source: self.source.clone(),
            cached: CachedConnection::new(self.myhostname.clone(), Arc::clone(&self.stepwise)),
            connected,
        };
        std::thread::Builder::new().name(format!("worker {}", id.0)).spawn(|| worker.run())
    }

    /// Puts a batch into a worker's mailbox.
    pub fn hand_over(&mut self, worker: WorkerId, order: S::Order) {
        let member = &mut self.members[worker.0];
        member.batches += 1;
        // We hold a receiver ourselves, so the channel is never closed.
        let _ = member.mailbox.send(order);
    }

    /// Takes a batch back that the worker has not begun, the oldest first.
    pub fn take_back(&mut self, worker: WorkerId) -> Option<S::Order> {
        let member = &mut self.members[worker.0];
        let order = member.take_back.try_recv().ok()?;
        member.batches -= 1;
        Some(order)
    }

    /// A worker has reported the end of a batch.
    pub fn has_ended(&mut self, worker: WorkerId) {
        let member = &mut self.members[worker.0];
        member.batches = member.batches.saturating_sub(1);
    }

    /// Starts another worker in the place of one that has panicked: it reads the same mailbox. Where that is not possible
    /// now, [`Crew::take_on_missing`] tries again, and the batches that waited for it come back.
    pub fn take_on(&mut self, worker: WorkerId) -> Result<(), Vec<S::Order>> {
        if self.members[worker.0].is_dismissed {
            return Ok(());
        }
        let Err(error) = self.start_again(worker) else { return Ok(()) };
        log::error!(
            "no other worker can be started: {error}; the pool is one smaller, tried again in a minute"
        );
        self.missing.push(worker);
        self.missing_since = Instant::now();
        Err(std::iter::from_fn(|| self.take_back(worker)).collect())
    }

    /// Tries again, from time to time, to start workers that could not be started; returns who is there now.
    pub fn take_on_missing(&mut self) -> Vec<WorkerId> {
        if self.missing.is_empty() || self.missing_since.elapsed() < TRY_AGAIN {
            return Vec::new();
        }
        self.missing_since = Instant::now();
        let mut ready = Vec::new();
        for worker in std::mem::take(&mut self.missing) {
            match self.start_again(worker) {
                Ok(()) => ready.push(worker),
                Err(error) => {
                    log::error!("no other worker can be started: {error}; tried again in a minute");
                    self.missing.push(worker);
                }
            }
        }
        ready
    }

    fn start_again(&mut self, worker: WorkerId) -> io::Result<()> {
        let Member { take_back, connected, .. } = &self.members[worker.0];
        let thread = self.start_thread(worker, take_back.clone(), Arc::clone(connected))?;
        self.members[worker.0].thread = thread;
        Ok(())
    }

    /// Workers who are there, without a batch.
    pub fn idle(&self) -> Vec<WorkerId> {
        let numbered = self.members.iter().enumerate().map(|(number, member)| (WorkerId(number), member));
        let is_idle =
            |(worker, member): &(WorkerId, &Member<S::Order>)| member.batches == 0 && self.is_there(*worker);
        numbered.filter(is_idle).map(|(worker, _)| worker).collect()
    }

    /// Workers who are there.
    pub fn count(&self) -> usize {
        (0..self.members.len()).filter(|number| self.is_there(WorkerId(*number))).count()
    }

    /// Neither dismissed nor waiting to be started again.
    fn is_there(&self, worker: WorkerId) -> bool {
        !self.members[worker.0].is_dismissed && !self.missing.contains(&worker)
    }

    /// Lets an idle worker say goodbye to its server and end. Whoever hands batches over must forget it before.
    pub fn dismiss_one(&mut self, worker: WorkerId) {
        let member = &mut self.members[worker.0];
        member.is_dismissed = true;
        // Its mailbox is closed by this: it has been the only sender.
        member.mailbox = unbounded().0;
    }

    /// Batches that workers have.
    pub fn batches(&self) -> usize {
        self.members.iter().map(|member| member.batches).sum()
    }

    /// Connections that are open or being opened.
    pub fn connections(&self) -> usize {
        self.members.iter().filter(|member| member.connected.load(Ordering::Relaxed)).count()
    }

    /// Empties all mailboxes: what waits there stays on disk for the next start.
    pub fn empty_mailboxes(&mut self) -> Vec<(WorkerId, S::Order)> {
        let mut unbegun = Vec::new();
        for worker in (0..self.members.len()).map(WorkerId) {
            while let Some(order) = self.take_back(worker) {
                unbegun.push((worker, order));
            }
        }
        unbegun
    }

    /// Lets the workers say goodbye to their servers and end; `false` if some have not by the time `patience` says no.
    pub fn dismiss(self, mut patience: impl FnMut() -> bool) -> bool {
        self.stopping.store(true, Ordering::Relaxed);
        let threads: Vec<_> = self.members.into_iter().map(|member| member.thread).collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            if !patience() {
                return false;
            }
        }
        true
    }
}
