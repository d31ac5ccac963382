//! One poll over FIFO, doorbell and inotify; asks the scheduler; hands batches out.
//!
//! - Owns: the table of messages in memory, the clock that the scheduler is told, the decision to stop.
//! - Leaves to others: disk (`pickup`), network (`worker`), who gets what (`queue::scheduler`).
//! - Always true: it waits for nothing but its poll; an ID in the table is never loaded again, and leaves it only
//!   when the report that ends the message has been read: so a message is in memory once.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::control::{Action, Answer, Ask, DestinationStatus, Question, Status, whole_seconds};
use super::crew::Crew;
use super::doorbell::Chime;
use super::intake::{Intake, Name};
use super::jobs::Jobs;
use super::log::QMGR;
use super::message::{Counters, Message, Order};
use super::pickup::{Chunk, Errand, Found, Load};
use super::recorder::logged;
use super::report::{Loaded, Report};
use crate::config::Config;
use crate::mail::{QueueId, Recipient};
use crate::queue::job::{IncomingName, JobLine, Submission};
use crate::queue::scheduler::{self, Event, Limits, Scheduler, Settings, WorkerId};
use crate::spool::{Cursor, Draft, Place, Spool, Watch};

/// Recipients of a message that are loaded at once.
const WINDOW: usize = 1000;
/// Files of `incoming/` named by job lines that the pickup thread has not come to yet.
const TAKES_MAX: usize = 256;

/// What the master owns.
pub struct Master {
    config: Arc<Config>,
    spool: Arc<Spool>,
    started: Instant,
    scheduler: Scheduler,
    table: HashMap<QueueId, Entry>,
    intake: Intake,
    jobs: Jobs,
    crew: Crew,
    errands: Sender<Errand>,
    reports: Receiver<Report>,
    chime: Chime,
    watch: Watch,
    counters: Arc<Counters>,
    /// Windows asked for and not come yet.
    loading: usize,
    /// Files asked to be taken and not reported yet.
    taking: usize,
    /// Recipients in memory when a message was passed over for want of room.
    passed_over: Option<usize>,
    stop_by: Option<Instant>,
}

/// What the master is made of.
pub struct Parts {
    /// By which rules.
    pub config: Arc<Config>,
    /// The queue, with its FIFO.
    pub spool: Arc<Spool>,
    /// The pool.
    pub crew: Crew,
    /// To the pickup thread.
    pub errands: Sender<Errand>,
    /// From everybody.
    pub reports: Receiver<Report>,
    /// The master's end of the doorbell.
    pub chime: Chime,
    /// The watch on `incoming/`.
    pub watch: Watch,
}

/// A message that the master knows of.
#[derive(Default)]
struct Entry {
    /// Once its first window has come.
    loaded: Option<InMemory>,
    /// The pickup thread is about to read or move its file.
    is_busy: bool,
    /// It does what an administrator has asked for.
    is_acting: bool,
    /// What is to happen when nothing of it is under way any more.
    then: Then,
}

/// A message that has come from disk.
struct InMemory {
    message: Arc<Message>,
    /// Where the next window begins.
    next: Option<Cursor>,
}

#[derive(Default)]
enum Then {
    /// What the outcomes say.
    #[default]
    Finish,
    /// Nothing: its file is gone.
    Forget,
    /// What an administrator wants.
    Act(Action, Sender<Answer>),
}

impl Master {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        let Parts { config, spool, crew, errands, reports, chime, watch } = parts;
        let started = Instant::now();
        Self {
            scheduler: Scheduler::new(settings(&config)),
            intake: Intake::new(started, config.queue_run_delay),
            jobs: Jobs::new(started),
            config,
            spool,
            started,
            table: HashMap::new(),
            crew,
            errands,
            reports,
            chime,
            watch,
            counters: Arc::default(),
            loading: 0,
            taking: 0,
            passed_over: None,
            stop_by: None,
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

    // ---- waiting ----

    fn sleep(&mut self) -> io::Result<()> {
        self.chime.about_to_sleep();
        if !self.reports.is_empty() {
            self.chime.awake();
            return Ok(());
        }
        let timeout = Timespec::try_from(self.time_to_sleep()).unwrap_or(Timespec { tv_sec: 60, tv_nsec: 0 });
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
        self.chime.awake();
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
        let scheduler = self.scheduler.next_wakeup().map(|moment| self.started + moment);
        let next = [scheduler, self.intake.next_listing(), self.stop_by, self.jobs.next_count()];
        let soonest = next.into_iter().flatten().min();
        soonest.map_or(Duration::from_secs(60), |moment| moment.saturating_duration_since(now))
    }

    fn accepts_jobs(&self) -> bool {
        self.stop_by.is_none()
            && self.intake.has_room()
            && self.taking < TAKES_MAX
            && self.scheduler.has_room()
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn tick(&mut self) {
        let now = self.now();
        self.jobs.count_bad_lines();
        if self.stop_by.is_none() && self.scheduler.next_wakeup().is_some_and(|due| due <= now) {
            self.step(Event::Tick);
        }
    }

    // ---- jobs ----

    fn read_jobs(&mut self) {
        let Some(fifo) = self.spool.jobs() else { return };
        let lines = self.jobs.read(fifo);
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

    fn take(&mut self, name: IncomingName, draft: Option<Box<Draft>>) {
        self.taking += 1;
        self.send(Errand::Take { name, draft });
    }

    fn send(&self, errand: Errand) {
        // If the pickup thread is gone, its last report is about to end us.
        let _ = self.errands.send(errand);
    }

    // ---- loading ----

    fn load_more(&mut self) {
        if self.stop_by.is_some() {
            return;
        }
        self.look_again_if_there_is_room();
        // Each window under way may bring as many recipients as it is wide.
        while !self.intake.is_empty() && self.scheduler.room() > self.loading * self.window() {
            let Some(Name { id, place, is_new }) = self.intake.next() else { break };
            if !self.table.contains_key(&id) {
                let window = self.window();
                self.begin_errand(id, Errand::Load(Load { id, from: place, next: None, window, is_new }));
            }
        }
        for errand in self.intake.errands(Instant::now()) {
            self.send(errand);
        }
    }

    /// What was passed over is on disk only; once a part of memory is free, it gets another chance.
    fn look_again_if_there_is_room(&mut self) {
        let in_memory = self.scheduler.recipients();
        if self.passed_over.is_some_and(|then| in_memory <= then - then / 8) {
            self.passed_over = None;
            self.intake.want(Place::Active, false);
        }
    }

    fn window(&self) -> usize {
        WINDOW.min(self.config.active_limit / 4).max(1)
    }

    /// Sends the pickup thread to a message; its report will say when it is done.
    fn begin_errand(&mut self, id: QueueId, errand: Errand) {
        let entry = self.table.entry(id).or_default();
        entry.is_busy = true;
        entry.is_acting = matches!(errand, Errand::Act(..));
        self.loading += 1;
        self.send(errand);
    }

    fn end_errand(&mut self, id: QueueId) {
        if self.table.get_mut(&id).is_some_and(|entry| std::mem::take(&mut entry.is_busy)) {
            self.loading -= 1;
        }
    }

    fn load_next_window(&mut self, id: QueueId) {
        let Some(in_memory) = self.table.get_mut(&id).and_then(|entry| entry.loaded.as_mut()) else { return };
        if let Some(cursor) = in_memory.next.take() {
            let next = Some((Arc::clone(&in_memory.message), cursor));
            let window = self.window();
            let load = Load { id, from: Place::Active, next, window, is_new: false };
            self.begin_errand(id, Errand::Load(load));
        }
    }

    fn loaded(&mut self, loaded: Loaded) {
        let Loaded { message, recipients, rest, next, is_first, count } = loaded;
        let envelope = Arc::clone(&message.envelope);
        let id = envelope.id;
        self.end_errand(id);
        let Some(entry) = self.table.get_mut(&id) else { return };
        if !matches!(entry.then, Then::Finish) {
            return self.conclude_if_idle(id);
        }
        if is_first && !self.scheduler.admits(&recipients) {
            self.passed_over = Some(self.scheduler.recipients());
            self.table.remove(&id);
            return;
        }
        if is_first {
            let (sender, size) = (logged(&envelope.sender), envelope.size);
            log::info!(target: QMGR, "{id}: {sender}, size={size}, nrcpt={count} (queue active)");
        }
        entry.loaded = Some(InMemory { message, next });
        if recipients.is_empty() {
            // Of this window only a bounce is owed; that is no news for the scheduler.
            return self.load_next_window(id);
        }
        self.step_unless_stopping(Event::Loaded { envelope, recipients, rest });
    }

    // ---- what the scheduler wants ----

    fn step(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.scheduler.step(self.now(), event) {
                events.extend(self.carry_out(action));
            }
        }
    }

    /// Does what the scheduler wants; a batch that was got back is what it must hear of next.
    fn carry_out(&mut self, action: scheduler::Action) -> Option<Event> {
        match action {
            scheduler::Action::Assign { worker, batch } => {
                if let Some(order) = self.order(batch) {
                    self.crew.hand_over(worker, order);
                }
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

    fn order(&self, batch: crate::mail::Batch) -> Option<Order> {
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

    // ---- reports ----

    fn take_reports(&mut self) {
        while let Ok(report) = self.reports.try_recv() {
            self.take_report(report);
        }
    }

    fn take_report(&mut self, report: Report) {
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
            Report::Loaded(loaded) => self.loaded(*loaded),
            Report::Dismissed { id, queued } => {
                self.add_queued(queued);
                self.dismissed(id);
            }
            Report::Queued(ids) => self.add_queued(ids),
            Report::Listed(Chunk { place, ids, is_last }) => {
                ids.into_iter().for_each(|id| self.intake.add(Name { id, place, is_new: false }));
                self.intake.has_come(place, is_last);
            }
            Report::PickedUp(Found { ids, is_last }) => {
                self.add_queued(ids);
                match is_last {
                    Some(is_last) => self.intake.has_come(Place::Incoming, is_last),
                    None => self.taking = self.taking.saturating_sub(1),
                }
            }
            Report::Asked(question) => self.answer(question),
            Report::Stop => self.stop(),
            Report::Reconfigured(config) => self.reconfigure(config),
            Report::StatusWanted => log::info!("{}", self.status().summary()),
            Report::PickupLost => {
                log::error!(
                    "the pickup thread has failed, so nothing can be loaded: the agent stops; all mail is kept"
                );
                self.stop();
            }
        }
    }

    /// A stopping agent hands nothing out: what the scheduler has is on disk. It still learns what has ended, because
    /// that may be what an administrator's wish waits for.
    fn step_unless_stopping(&mut self, event: Event) {
        if self.stop_by.is_none() {
            self.step(event);
        } else {
            self.scheduler.step(self.now(), event);
        }
    }

    fn add_queued(&mut self, ids: Vec<QueueId>) {
        let name = |id| Name { id, place: Place::Active, is_new: false };
        ids.into_iter().for_each(|id| self.intake.add(name(id)));
    }

    /// A message is done with, or could not be loaded.
    fn dismissed(&mut self, id: QueueId) {
        let was_window = self.table.get(&id).is_some_and(|entry| entry.is_busy && entry.loaded.is_some());
        self.end_errand(id);
        if !was_window {
            return self.conclude(id);
        }
        // Its file is gone while batches of it may be under way.
        self.step_unless_stopping(Event::Withdrawn { id });
        if let Some(entry @ Entry { then: Then::Finish, .. }) = self.table.get_mut(&id) {
            entry.then = Then::Forget;
        }
        self.conclude_if_idle(id);
    }

    /// Nothing of the message is under way: it leaves memory, and what an administrator asked for can be done.
    fn conclude(&mut self, id: QueueId) {
        if let Some(Entry { then: Then::Act(action, answer), .. }) = self.table.remove(&id) {
            self.begin_errand(id, Errand::Act(id, action, answer));
        }
    }

    /// Ends a message that is not to be finished, once no batch of it is under way.
    fn conclude_if_idle(&mut self, id: QueueId) {
        let may_end =
            self.table.get(&id).is_some_and(|entry| !entry.is_busy && !matches!(entry.then, Then::Finish));
        if may_end && self.scheduler.in_flight(id) == 0 {
            self.conclude(id);
        }
    }

    fn replace(&mut self, worker: WorkerId, order: Box<Order>) {
        let id = order.message.envelope.id;
        log::error!("{id}: a worker has panicked while it had the message; another one takes its place");
        self.send(Errand::TellOfPanic(format!(
            "A worker of the agent panicked while it was delivering message {id}. Its recipients are tried again."
        )));
        self.crew.has_ended(worker);
        let unbegun = std::iter::from_fn(|| self.crew.take_back(worker)).map(|order| order.batch).collect();
        self.step_unless_stopping(Event::WorkerLost { worker, unbegun });
        self.send(Errand::SettleLost(order));
        match self.crew.replace(worker) {
            Ok(()) => self.step_unless_stopping(Event::WorkerReady { worker }),
            Err(error) => log::error!("no other worker can be started: {error}; the pool is one smaller"),
        }
    }

    // ---- questions ----

    fn answer(&mut self, question: Question) {
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

    fn act(&mut self, id: QueueId, action: Action, answer: Sender<Answer>) {
        if self.stop_by.is_some() {
            // What the scheduler still has may never end now. Whoever asked may have gone.
            let stopping = io::Error::other("the agent is stopping: ask again when it has");
            let _ = answer.send(Answer::Acted(Err(stopping)));
            return;
        }
        let Some(entry) = self.table.get_mut(&id) else {
            return self.begin_errand(id, Errand::Act(id, action, answer));
        };
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

    fn status(&self) -> Status {
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

    // ---- reload and stop ----

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
            self.crew.empty_mailboxes();
            log::info!("stopping: {} batches are under way", self.crew.batches());
        }
    }

    fn has_stopped(&self) -> bool {
        let is_done = || self.crew.batches() == 0 && !self.table.values().any(|entry| entry.is_acting);
        self.stop_by.is_some_and(|by| by <= Instant::now() || is_done())
    }

    fn end(self) -> io::Result<()> {
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
        Ok(())
    }
}

/// The envelope of a bare message, from its job line. Whoever may write the FIFO is trusted; the message's origin is
/// the owner of its file all the same.
fn draft(submission: Submission) -> (IncomingName, Draft) {
    let Submission { file, sender, recipients, nexthop, envid, ret, smtputf8, body: _ } = submission;
    let recipients = recipients.into_iter().zip(0..).map(|(submitted, position)| Recipient {
        position,
        address: submitted.address,
        notify: submitted.notify.unwrap_or_default(),
        orcpt: submitted.orcpt,
        sender: submitted.sender,
    });
    let recipients = recipients.collect();
    (file, Draft { sender, recipients, nexthop, envid, ret, smtputf8, origin: String::new() })
}

/// What of the configuration the scheduler goes by.
fn settings(config: &Config) -> Settings {
    let limits = config.transports().map(|transport| {
        let limits = Limits {
            destination_concurrency_limit: transport.destination_concurrency_limit,
            destination_recipient_limit: transport.effective_recipient_limit(),
            recipient_concurrency_limit: transport.recipient_concurrency_limit,
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
