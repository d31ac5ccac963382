//! One poll over FIFO, doorbell and inotify; asks the scheduler; hands batches out.
//!
//! - Owns: the table of messages in memory, the clock that the scheduler is told, the decision to stop.
//! - Leaves to others: disk (`pickup`), network (`worker`), who gets what (`queue::scheduler`).
//! - Always true: it waits for nothing but its poll; an ID in the table is never loaded again, and leaves it only
//!   when the report that ends the message has been read: so a message is in memory once.

mod orders;
mod questions;
mod table;
mod takes;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use foldhash::{HashMap, HashMapExt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::crew::Crew;
use super::delivery::SpoolSource;
use super::doorbell::Chime;
use super::intake::Intake;
use super::jobs::Jobs;
use super::message::Counters;
use super::pickup::{Errand, ErrandId};
use super::report::Report;
use crate::config::Config;
use crate::mail::QueueId;
use crate::queue::scheduler::{Event, Limits, Scheduler, Settings};
use crate::spool::{Place, Spool, Watch};
use table::{Entry, PassedOver};
use takes::Takes;

/// What the master owns.
pub struct Master {
    config: Arc<Config>,
    spool: Arc<Spool>,
    started: Instant,
    scheduler: Scheduler,
    table: HashMap<QueueId, Entry>,
    /// The latest to any message.
    latest_errand: ErrandId,
    intake: Intake,
    jobs: Jobs,
    crew: Crew<SpoolSource>,
    errands: Sender<Errand>,
    reports: Receiver<Report>,
    chime: Chime,
    watch: Watch,
    counters: Arc<Counters>,
    /// First windows asked for and not come yet.
    loading: usize,
    /// Recipients for whom room is kept, since windows asked for may bring them.
    reserved: usize,
    /// Files asked to be taken and not reported yet.
    takes: Takes,
    /// Since the active queue was last looked through.
    passed_over: Option<PassedOver>,
    stop_by: Option<Instant>,
    pickup_lost: bool,
}

/// What the master is made of.
pub struct Parts {
    /// By which rules.
    pub config: Arc<Config>,
    /// The queue, with its FIFO.
    pub spool: Arc<Spool>,
    /// What is counted for `status`.
    pub counters: Arc<Counters>,
    /// The pool.
    pub crew: Crew<SpoolSource>,
    /// To the pickup thread.
    pub errands: Sender<Errand>,
    /// From everybody.
    pub reports: Receiver<Report>,
    /// The master's end of the doorbell.
    pub chime: Chime,
    /// The watch on `incoming/`.
    pub watch: Watch,
}

impl Master {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        let Parts { config, spool, counters, crew, errands, reports, chime, watch } = parts;
        let started = Instant::now();
        Self {
            scheduler: Scheduler::new(settings(&config)),
            intake: Intake::new(started, config.queue_run_delay),
            jobs: Jobs::new(started),
            config,
            spool,
            started,
            table: HashMap::new(),
            latest_errand: ErrandId::default(),
            crew,
            errands,
            reports,
            chime,
            watch,
            counters,
            loading: 0,
            reserved: 0,
            takes: Takes::default(),
            passed_over: None,
            stop_by: None,
            pickup_lost: false,
        }
    }

    /// Runs until a signal asks to stop and what was under way has ended, or its time is over.
    pub fn run(mut self) -> io::Result<()> {
        loop {
            self.take_reports();
            if self.has_stopped() {
                return self.end();
            }
            self.tick();
            self.load_more();
            self.sleep()?;
        }
    }

    fn sleep(&mut self) -> io::Result<()> {
        // Whoever is about to report does so now, and need not wake us: under load one round then takes many reports.
        std::thread::yield_now();
        self.chime.about_to_sleep();
        // With reports waiting it only looks: jobs must not have to wait until there are none.
        let pause = if self.reports.is_empty() { self.time_to_sleep() } else { Duration::ZERO };
        let timeout = Timespec::try_from(pause).unwrap_or(Timespec { tv_sec: 60, tv_nsec: 0 });
        let jobs = self.spool.jobs().filter(|_| self.accepts_jobs());
        let mut set = vec![
            PollFd::from_borrowed_fd(self.chime.descriptor(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.watch.as_fd(), PollFlags::IN),
        ];
        // A full agent leaves the FIFO out: a descriptor that stays readable would make poll spin.
        set.extend(jobs.map(|jobs| PollFd::from_borrowed_fd(jobs.as_fd(), PollFlags::IN)));
        match poll(&mut set, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = set.iter().map(|fd| !fd.revents().is_empty()).collect();
        self.chime.awake(ready.first() == Some(&true));
        if ready.get(1) == Some(&true) && self.watch.drain()? {
            self.intake.want(Place::Incoming, false);
        }
        if ready.get(2) == Some(&true) {
            self.read_jobs();
        }
        Ok(())
    }

    fn time_to_sleep(&self) -> Duration {
        let now = Instant::now();
        if let Some(by) = self.stop_by {
            // Nothing else is begun any more.
            return by.saturating_duration_since(now);
        }
        let scheduler = self.scheduler.next_wakeup().map(|moment| self.started + moment);
        let in_memory = self.scheduler.recipients();
        let passed_over = self.passed_over.as_ref().and_then(|passed| passed.look_again_at(in_memory));
        let next = [scheduler, self.intake.next_listing(), self.jobs.next_count(), passed_over];
        let soonest = next.into_iter().flatten().min();
        soonest.map_or(Duration::from_secs(60), |moment| moment.saturating_duration_since(now))
    }

    fn accepts_jobs(&self) -> bool {
        self.stop_by.is_none() && self.intake.has_room() && self.takes.has_room() && self.scheduler.has_room()
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn tick(&mut self) {
        let now = self.now();
        self.jobs.count_bad_lines();
        self.replace_missing();
        if self.stop_by.is_none() && self.scheduler.next_wakeup().is_some_and(|due| due <= now) {
            self.step(Event::Tick);
        }
    }

    fn reconfigure(&mut self, config: Arc<Config>) {
        for key in self.config.restart_needed(&config) {
            log::warn!("{key} has changed: that takes effect only after a restart");
        }
        self.intake.set_queue_run_delay(config.queue_run_delay);
        self.config = Arc::clone(&config);
        self.step_unless_stopping(Event::Reconfigured(settings(&config)));
        self.send(Errand::Reconfigured(config));
        log::info!("the configuration was read again");
    }

    fn stop(&mut self) {
        if self.stop_by.is_none() {
            self.stop_by = Some(Instant::now() + self.config.shutdown_timeout);
            for (worker, order) in self.crew.empty_mailboxes() {
                let id = order.message.envelope.id;
                self.step_unless_stopping(Event::TakenBack { worker, batch: order.batch });
                self.conclude_if_idle(id);
            }
            if !self.pickup_lost {
                self.drain_jobs();
            }
            log::info!("stopping: {} batches are under way", self.crew.batches());
        }
    }

    fn has_stopped(&self) -> bool {
        let is_acting = || self.table.values().any(|entry| entry.is_acting);
        let picked_up = || self.pickup_lost || self.takes.is_empty() && !is_acting();
        let is_done = || self.crew.batches() == 0 && picked_up();
        self.stop_by.is_some_and(|by| by <= Instant::now() || is_done())
    }

    fn end(mut self) -> io::Result<()> {
        self.jobs.tell_count();
        let interrupted = self.crew.batches();
        if interrupted > 0 {
            log::warn!(
                "{interrupted} batches were still under way after shutdown_timeout: they are tried again at the next start"
            );
        }
        let by = self.stop_by.unwrap_or_else(Instant::now);
        drop(self.errands);
        self.crew.dismiss(|| {
            std::thread::sleep(Duration::from_millis(2));
            Instant::now() < by
        });
        log::info!("stopped");
        // A service manager starts again what has failed, not what was told to stop.
        if self.pickup_lost { Err(io::Error::other("its pickup thread has failed")) } else { Ok(()) }
    }
}

/// What of the configuration the scheduler goes by.
fn settings(config: &Config) -> Settings {
    let limits = config.transports().map(|transport| {
        let limits = Limits {
            destination_concurrency_limit: transport.destination_concurrency_limit,
            destination_recipient_limit: transport.effective_recipient_limit(),
            recipient_concurrency_limit: transport.recipient_concurrency_limit,
            ..Limits::default()
        };
        (transport.name.clone(), limits)
    });
    Settings {
        workers: config.workers,
        workers_reserved: config.workers_reserved,
        active_limit: config.active_limit,
        minimal_backoff_time: config.minimal_backoff_time,
        limits: limits.collect(),
    }
}
