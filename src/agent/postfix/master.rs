//! One poll over the listening sockets, qmgr's connections, master(8)'s status channel and the doorbell.
//!
//! - Owns: the jobs in memory, the decision to accept, to drain and to end.
//! - Leaves to others: who gets what (`queue::scheduler`), delivery (the workers), reports without an attempt (`clerk`).
//! - Always true: it waits for nothing but its poll. While there is no room nothing is accepted: qmgr waits, and gives
//!   the mail to nobody else. A drain ends what is under way and takes nothing more.

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use foldhash::{HashMap, HashMapExt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::callers::{Arrived, Callers};
use super::clerk::Task;
use super::delivery::{Context, Order, PostfixSource};
use super::job::{self, Job, Translated};
use crate::agent::crew::Crew;
use crate::agent::doorbell::Chime;
use crate::mail::{Batch, EnhancedStatus, Outcome, QueueId, Reason};
use crate::postfix::request::Request;
use crate::postfix::service::{Door, Service};
use crate::queue::scheduler::{Action, BatchEnd, Event, Health, Limits, Scheduler, Settings, WorkerId};

/// The longest sleep.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// How long servers are given to hear a goodbye at the end.
const GOODBYE: Duration = Duration::from_millis(500);
/// How long to wait before another try, where the system has no room for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections accepted in one round.
const ACCEPTS_MAX: usize = 8;

/// One thing that has happened.
#[derive(Debug)]
pub enum Report {
    /// A batch has ended; if `answered`, its job with it.
    Ended {
        /// Who had it.
        worker: WorkerId,
        /// Which job.
        key: QueueId,
        /// What it taught the scheduler.
        end: BatchEnd,
        /// qmgr has its answer.
        answered: bool,
    },
    /// A worker has panicked over this.
    Lost {
        /// Who.
        worker: WorkerId,
        /// What it was working on.
        order: Box<Order>,
    },
    /// A worker has panicked while it worked on nothing.
    Gone {
        /// Who.
        worker: WorkerId,
    },
    /// The clerk has answered a job.
    Settled(QueueId),
    /// The clerk has panicked.
    ClerkLost,
    /// Postfix stops.
    Stop,
}

/// What the master owns.
pub struct Master {
    context: Arc<Context>,
    /// `None`: there is one client, on standard input.
    service: Option<Service>,
    started: Instant,
    retire: Option<Duration>,
    scheduler: Scheduler,
    jobs: HashMap<QueueId, Arc<Job>>,
    latest: u64,
    callers: Callers,
    crew: Crew<PostfixSource>,
    clerk: Sender<Task>,
    reports: Receiver<Report>,
    chime: Chime,
    /// Since when there is nothing to do.
    idle_since: Instant,
    /// Nothing more is accepted.
    is_draining: bool,
    /// When a drain ends though something is under way.
    stop_by: Option<Instant>,
    clerk_lost: bool,
    /// Not before this is anything accepted: the system had no room for it.
    accept_again: Option<Instant>,
}

/// What the master is made of.
pub struct Parts {
    /// What all threads share.
    pub context: Arc<Context>,
    /// Where connections come from.
    pub door: Door,
    /// The pool.
    pub crew: Crew<PostfixSource>,
    /// To the clerk.
    pub clerk: Sender<Task>,
    /// From everybody.
    pub reports: Receiver<Report>,
    /// The master's end of the doorbell.
    pub chime: Chime,
    /// How old the process may become, once there is nothing to do (`-r`).
    pub retire: Option<Duration>,
}

impl Master {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> io::Result<Self> {
        let Parts { context, door, crew, clerk, reports, chime, retire } = parts;
        let mut callers = Callers::default();
        let service = match door {
            Door::Service(service) => Some(service),
            Door::OneClient(stream) => {
                callers.add(stream, context.release)?;
                None
            }
        };
        Ok(Self {
            scheduler: Scheduler::new(settings(&context)),
            context,
            service,
            started: Instant::now(),
            retire,
            jobs: HashMap::new(),
            latest: 0,
            callers,
            crew,
            clerk,
            reports,
            chime,
            idle_since: Instant::now(),
            is_draining: false,
            stop_by: None,
            clerk_lost: false,
            accept_again: None,
        })
    }

    /// Runs until nothing has come for `max_idle`, or what was under way when the end came has ended.
    pub fn run(mut self) -> io::Result<()> {
        loop {
            while let Ok(report) = self.reports.try_recv() {
                self.take_report(report);
            }
            if self.is_over() {
                return self.end();
            }
            self.tick();
            self.sleep()?;
        }
    }

    fn sleep(&mut self) -> io::Result<()> {
        // Whoever is about to report does so now, and need not wake us.
        std::thread::yield_now();
        self.chime.about_to_sleep();
        let pause = if self.reports.is_empty() { self.time_to_sleep() } else { Duration::ZERO };
        let timeout = Timespec::try_from(pause).unwrap_or(Timespec { tv_sec: 60, tv_nsec: 0 });
        let mut set = vec![PollFd::from_borrowed_fd(self.chime.descriptor(), PollFlags::IN)];
        if let Some(service) = self.service.as_ref().filter(|_| !self.is_draining) {
            // Whoever says that the end has come goes on saying so: once it is known they are left out.
            set.extend(service.ends().map(|fd| PollFd::from_borrowed_fd(fd, Service::END)));
        }
        let callers = self.callers.descriptors();
        let before_callers = set.len();
        set.extend(callers.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let before_listeners = set.len();
        // A full process leaves its listeners out: a descriptor that stays readable would make poll spin.
        if let Some(service) = self.service.as_ref().filter(|_| self.accepts()) {
            set.extend(service.listeners().iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        }
        match poll(&mut set, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = set.iter().map(|fd| !fd.revents().is_empty()).collect();
        let (others, listeners) = ready.split_at(before_listeners);
        let (others, callers) = others.split_at(before_callers);
        self.chime.awake(others.first() == Some(&true));
        // First of all what has come: whoever has asked is answered, also at the end.
        self.read_requests(callers);
        if others.iter().skip(1).any(|ready| *ready)
            && let Some(why) = self.service.as_ref().and_then(Service::ended)
        {
            log::debug!("no more requests are taken: {why:?}");
            self.drain();
        }
        if listeners.contains(&true) {
            self.accept();
        }
        Ok(())
    }

    /// Whoever is let in has a worker as soon as the request has come: qmgr counts deliveries by what was let in.
    fn accepts(&self) -> bool {
        !self.is_draining
            && self.accept_again.is_none_or(|moment| moment <= Instant::now())
            && self.jobs.len() + self.callers.len() < self.context.settings.config.workers
            && self.scheduler.has_room()
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTS_MAX {
            if !self.accepts() {
                return;
            }
            let Some(service) = &mut self.service else { return };
            match service.accept() {
                Ok(Some(stream)) => {
                    // After a reload there are connections of a qmgr that has gone: nothing is lost with them.
                    if let Err(error) = self.callers.add(stream, self.context.release) {
                        log::debug!("the queue manager has hung up before it was greeted: {error}");
                    }
                }
                // Another process of the service was faster, or there are no more.
                Ok(None) => return,
                Err(error) => {
                    log::error!("the queue manager's connection cannot be accepted: {error}; its mail waits");
                    // Descriptors may have run out: some are free again when a delivery has ended.
                    self.accept_again = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    fn read_requests(&mut self, ready: &[bool]) {
        for arrived in self.callers.read(ready) {
            match arrived {
                Arrived::Request(caller, request) => self.take_on(caller, *request),
                Arrived::Bad(caller, error) => {
                    log::warn!("a delivery request cannot be used: {error}; its message stays in the queue");
                    job::refuse(caller);
                }
                Arrived::Broken(error) => {
                    log::warn!("the queue manager has hung up in the middle of a request: {error}");
                }
            }
        }
    }

    fn take_on(&mut self, caller: UnixStream, request: Request) {
        self.latest += 1;
        let key = QueueId::new(self.latest, 0);
        let destination = self.context.destination(&request.nexthop);
        let (job, translated) = Job::new(key, request, caller);
        let job = Arc::new(job);
        self.jobs.insert(key, Arc::clone(&job));
        let (destination, Translated { envelope, recipients }) = match (destination, translated) {
            (Ok(destination), Some(translated)) => (destination, translated),
            (Err(outcome), _) => {
                let (id, nexthop) = (job.queue_id(), job.request.nexthop.escape_debug());
                log::warn!("{id}: next hop {nexthop} cannot be used: {}", outcome.reason().text);
                return self.settle(job, Some(outcome), true);
            }
            (Ok(_), None) => return self.settle(job, None, false),
        };
        let recipients = recipients.into_iter().map(|recipient| (destination.clone(), recipient)).collect();
        self.step(Event::Loaded { envelope, recipients, rest: 0 });
    }

    /// Has whoever of a job is left settled without an attempt.
    fn settle(&mut self, job: Arc<Job>, outcome: Option<Outcome>, destination_failed: bool) {
        // If the clerk is gone, its last report is about to end us.
        let _ = self.clerk.send(Task { job, outcome, destination_failed });
    }

    fn step(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.scheduler.step(self.started.elapsed(), event) {
                events.extend(self.carry_out(action));
            }
        }
    }

    fn carry_out(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Assign { worker, batch } => match self.order(batch) {
                Some(order) => self.crew.hand_over(worker, order),
                None => {
                    // The worker is not to wait for what never comes.
                    let end = BatchEnd { cached: false, destination: Health::Untouched };
                    return Some(Event::Ended { worker, end });
                }
            },
            Action::TakeBack { worker } => {
                let order = self.crew.take_back(worker)?;
                return Some(Event::TakenBack { worker, batch: order.batch });
            }
            Action::Suspend { batch, reason } => {
                if let Some(order) = self.order(batch) {
                    self.settle(order.job, Some(Outcome::Deferred(reason)), true);
                }
            }
            // A request is here as a whole.
            Action::LoadMore { .. } => {}
        }
        None
    }

    fn order(&self, batch: Batch) -> Option<Order> {
        let job = Arc::clone(self.jobs.get(&batch.envelope().id)?);
        Some(Order { batch, job })
    }

    fn take_report(&mut self, report: Report) {
        match report {
            Report::Ended { worker, key, end, answered } => {
                self.crew.has_ended(worker);
                if answered {
                    self.forget(key);
                }
                self.step(Event::Ended { worker, end });
                self.dismiss_idle();
            }
            Report::Lost { worker, order } => self.replace(worker, *order),
            Report::Gone { worker } => {
                log::error!("a worker has panicked between two deliveries; another one takes its place");
                self.take_on_worker(worker);
            }
            Report::Settled(key) => self.forget(key),
            Report::ClerkLost => {
                log::error!("the thread that reports what was not delivered has failed: the process ends");
                self.clerk_lost = true;
                self.stop();
            }
            Report::Stop => self.stop(),
        }
    }

    fn forget(&mut self, key: QueueId) {
        self.jobs.remove(&key);
        self.idle_since = Instant::now();
    }

    fn replace(&mut self, worker: WorkerId, order: Order) {
        let id = order.job.queue_id();
        log::error!(
            "{id}: a worker has panicked while it had the message, which is deferred; another one takes its place"
        );
        let reason = Reason::local(
            EnhancedStatus::new(4, 3, 0),
            "the delivery agent has failed in the middle of this",
        );
        self.settle(order.job, Some(Outcome::Deferred(reason)), false);
        self.crew.has_ended(worker);
        if self.take_on_worker(worker) {
            let end = BatchEnd { cached: false, destination: Health::Untouched };
            self.step(Event::Ended { worker, end });
        }
    }

    fn take_on_worker(&mut self, worker: WorkerId) -> bool {
        let Err(unbegun) = self.crew.take_on(worker) else { return true };
        let unbegun = unbegun.into_iter().map(|order| order.batch).collect();
        self.step(Event::WorkerLost { worker, unbegun });
        false
    }

    fn tick(&mut self) {
        for worker in self.crew.take_on_missing() {
            self.step(Event::WorkerReady { worker });
        }
        if self.scheduler.next_wakeup().is_some_and(|due| due <= self.started.elapsed()) {
            self.step(Event::Tick);
        }
    }

    fn time_to_sleep(&self) -> Duration {
        let scheduler = self.scheduler.next_wakeup().map(|moment| self.started + moment);
        let idle =
            self.context.settings.max_idle.filter(|_| self.is_idle()).map(|limit| self.idle_since + limit);
        let retire = self.retire.filter(|_| self.is_idle()).map(|limit| self.started + limit);
        let accept = self.accept_again.filter(|moment| *moment > Instant::now());
        let soonest = [scheduler, idle, retire, self.stop_by, accept].into_iter().flatten().min();
        soonest.map_or(SLEEP_MAX, |moment| moment.saturating_duration_since(Instant::now()).min(SLEEP_MAX))
    }

    fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.callers.is_empty()
    }

    /// master(8) wants no more of this process: it was told to reload or to drain, has removed the service, or died.
    fn drain(&mut self) {
        if !self.is_draining {
            self.is_draining = true;
            if let Some(service) = &mut self.service {
                service.close();
            }
            self.callers.dismiss_silent();
            self.dismiss_idle();
        }
    }

    /// In a drain a worker is kept for each job that is left. The connections of the others are closed at once: the next
    /// process of this service opens as many.
    fn dismiss_idle(&mut self) {
        if !self.is_draining {
            return;
        }
        // Whoever connected before may still send a request.
        let needed = self.jobs.len() + self.callers.len();
        let superfluous = self.crew.count().saturating_sub(needed);
        for worker in self.crew.idle().into_iter().take(superfluous) {
            self.crew.dismiss_one(worker);
            self.step(Event::WorkerLost { worker, unbegun: Vec::new() });
        }
    }

    /// Postfix stops: what is under way has a moment to end. Marks can still be written, reports cannot.
    fn stop(&mut self) {
        self.drain();
        self.stop_by.get_or_insert(Instant::now() + self.context.settings.config.shutdown_timeout);
    }

    fn is_over(&self) -> bool {
        let limit = self.context.settings.max_idle;
        let has_rested = || limit.is_some_and(|limit| self.idle_since.elapsed() >= limit);
        let has_retired = || self.retire.is_some_and(|limit| self.started.elapsed() >= limit);
        let takes_no_more = self.is_draining || self.service.is_none();
        self.is_idle() && (takes_no_more || has_rested() || has_retired())
            || self.stop_by.is_some_and(|by| by <= Instant::now())
    }

    fn end(mut self) -> io::Result<()> {
        self.drain();
        let interrupted = self.jobs.len();
        if interrupted > 0 {
            log::warn!(
                "{interrupted} deliveries were still under way after lastmile_shutdown_timeout: they are repeated"
            );
        }
        let by = Instant::now() + if interrupted > 0 { Duration::ZERO } else { GOODBYE };
        self.crew.dismiss(|| {
            std::thread::sleep(Duration::from_millis(2));
            Instant::now() < by
        });
        if self.clerk_lost { Err(io::Error::other("a thread has failed")) } else { Ok(()) }
    }
}

/// qmgr decides how much goes where; what is limited here is this process.
fn settings(context: &Context) -> Settings {
    let transport = &context.transport;
    let limits = Limits {
        destination_concurrency_limit: transport.destination_concurrency_limit,
        initial_destination_concurrency: transport.destination_concurrency_limit,
        destination_recipient_limit: 0,
        recipient_concurrency_limit: transport.recipient_concurrency_limit,
    };
    let config = &context.settings.config;
    Settings {
        workers: config.workers,
        workers_reserved: config.workers_reserved,
        active_limit: config.active_limit,
        minimal_backoff_time: config.minimal_backoff_time,
        limits: [(transport.name.clone(), limits)].into(),
    }
}
