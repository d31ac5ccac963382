//! The thread that lists, loads and picks up for the master, who never touches the disk.
//!
//! - Owns: listings that keep their place, the order of claims and loads, moves that an administrator asks for.
//! - Leaves to others: what may be loaded now (`master`), how a file is claimed and read (`spool`).
//! - Always true: it answers every errand, in order; how many are under way is the master's to bound.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crossbeam_channel::Receiver;
use jiff::Timestamp;
use nix::unistd::{Uid, User};

use super::control::{Action, Answer};
use super::finish;
use super::log::{PICKUP, QMGR};
use super::message::{Message, Order};
use super::recorder::{self, logged};
use super::report::{Loaded, Report, Reporter};
use crate::config::Config;
use crate::mail::{Envelope, Outcome, Protocol, QueueId, Reason};
use crate::queue::job::IncomingName;
use crate::spool::{
    Cursor, Draft, LoadError, Names, Peek, PickedUp, Pickup, Place, Spool, State, SubmitLimits, Taken,
};

/// Names in one part of a listing.
const NAMES_AT_ONCE: usize = 256;
/// Dropped files looked at in one go, before other errands get their turn.
const PICKED_UP_AT_ONCE: usize = 64;
/// Time between two searches for what writers have left unfinished.
const STALE_INTERVAL: Duration = Duration::from_secs(3600);

/// What the master wants done.
#[derive(Debug)]
pub enum Errand {
    /// Read a window of a message.
    Load(Load),
    /// The next part of a listing of `active/` or `deferred/`, from its start if none is going on.
    List {
        /// Which.
        place: Place,
        /// In `deferred/`: also what is not due yet.
        everything: bool,
    },
    /// Pick up what lies in `incoming/`, from the start of the listing if none is going on.
    PickUp,
    /// Pick up one file of `incoming/`: a bare message if there is a draft.
    Take {
        /// Its name.
        name: IncomingName,
        /// The envelope from its job line.
        draft: Option<Box<Draft>>,
    },
    /// Defer a batch without an attempt.
    Suspend(Box<Order>, Reason),
    /// Settle the batch over which a worker has panicked.
    SettleLost(Box<Order>),
    /// What an administrator asks for a message that nobody works on.
    Act(QueueId, Action, crossbeam_channel::Sender<Answer>),
    /// Tell the postmaster of trouble with the program.
    TellOfPanic(String),
    /// The configuration was read again.
    Reconfigured(Arc<Config>),
}

/// A window to be read.
#[derive(Debug)]
pub struct Load {
    /// Of which message.
    pub id: QueueId,
    /// Where it is now; from `deferred/` it is moved to `active/` first.
    pub from: Place,
    /// The message and where the window begins, if it is not the first.
    pub next: Option<(Arc<Message>, Cursor)>,
    /// How many recipients at most.
    pub window: usize,
    /// It was queued directly, and nobody has logged yet by whom.
    pub is_new: bool,
}

/// A part of a listing.
#[derive(Debug)]
pub struct Chunk {
    /// Of which directory.
    pub place: Place,
    /// Messages.
    pub ids: Vec<QueueId>,
    /// Nothing comes after this.
    pub is_last: bool,
}

/// What was picked up.
#[derive(Debug)]
pub struct Found {
    /// Now in `active/`.
    pub ids: Vec<QueueId>,
    /// The listing of `incoming/` has come to its end; `None` if this was one file from a job line.
    pub is_last: Option<bool>,
}

/// The thread's own things.
pub struct PickupThread {
    spool: Arc<Spool>,
    config: Arc<Config>,
    pickup: Pickup,
    reporter: Reporter,
    active: Option<Names>,
    deferred: Option<Names>,
    incoming: Option<Names>,
    stale_looked_for: SystemTime,
}

impl PickupThread {
    /// Prepares the thread.
    pub fn new(spool: Arc<Spool>, config: Arc<Config>, reporter: Reporter) -> Self {
        let pickup = Pickup::new(Arc::clone(&spool), limits(&config));
        Self {
            spool,
            config,
            pickup,
            reporter,
            active: None,
            deferred: None,
            incoming: None,
            stale_looked_for: SystemTime::UNIX_EPOCH,
        }
    }

    /// Puts right what a crash has left, then runs errands until the master closes the channel.
    pub fn run(mut self, errands: &Receiver<Errand>) {
        let _guard = PickupLost(self.reporter.clone());
        self.recover();
        while let Ok(errand) = errands.recv() {
            self.run_errand(errand);
        }
    }

    fn run_errand(&mut self, errand: Errand) {
        match errand {
            Errand::Load(load) => {
                let report = self.load(load);
                self.reporter.send(report);
            }
            Errand::List { place, everything } => self.list(place, everything),
            Errand::PickUp => self.pick_up(),
            Errand::Take { name, draft } => self.take(name.as_str(), draft),
            Errand::Suspend(order, reason) => self.settle(&order, &Outcome::Deferred(reason)),
            Errand::SettleLost(order) => self.settle_lost(&order),
            Errand::Act(id, action, answer) => self.act(id, action, &answer),
            Errand::TellOfPanic(about) => self.tell_of_panic(&about),
            Errand::Reconfigured(config) => {
                self.pickup.set_limits(limits(&config));
                self.config = config;
            }
        }
    }

    // ---- at start ----

    fn recover(&mut self) {
        let (config, pickup) = (Arc::clone(&self.config), &mut self.pickup);
        match pickup.recover_tmp(&|uid| is_trusted(&config, uid)) {
            Ok(found) => found.into_iter().for_each(|picked_up| {
                log_picked_up(picked_up);
            }),
            Err(error) => {
                log::error!("tmp/ cannot be searched for interrupted pickups: {error}; they are kept");
            }
        }
        match self.spool.remove_orphan_logs() {
            Ok(ids) => ids.iter().for_each(|id| log::debug!("deferred/{id}.log had no message: removed")),
            Err(error) => log::error!("deferred/ cannot be searched for logs without a message: {error}"),
        }
    }

    fn remove_stale_drafts(&mut self) {
        let now = SystemTime::now();
        if now.duration_since(self.stale_looked_for).is_ok_and(|since| since < STALE_INTERVAL) {
            return;
        }
        self.stale_looked_for = now;
        match self.pickup.remove_stale_drafts(now) {
            Ok(removed) => removed.into_iter().for_each(|(name, result)| match result {
                Ok(()) => log::info!(target: PICKUP, "{}: unfinished for 36 hours: removed", name.display()),
                Err(error) => {
                    let name = name.display();
                    log::warn!(target: PICKUP, "{name}: unfinished for 36 hours, and cannot be removed: {error}");
                }
            }),
            Err(error) => log::error!("incoming/ and tmp/ cannot be searched for abandoned files: {error}"),
        }
    }

    // ---- listings ----

    fn list(&mut self, place: Place, everything: bool) {
        let (now, patience) = (Timestamp::now(), finish::patience(&self.config));
        let listing = if place == Place::Active { &mut self.active } else { &mut self.deferred };
        let names = match listing.take().map_or_else(|| self.spool.names(place), Ok) {
            Ok(names) => names,
            Err(error) => {
                log::error!("{}/ cannot be listed: {error}; tried again in a minute", place.name());
                return self.reporter.send(Report::Listed(Chunk { place, ids: Vec::new(), is_last: true }));
            }
        };
        let is_due = |modified: Option<SystemTime>| {
            let next = modified.and_then(|next| Timestamp::try_from(next).ok());
            everything || next.is_none_or(|next| patience.is_due(next, now))
        };
        let (chunk, rest) = take_some(names, NAMES_AT_ONCE);
        let ids =
            chunk.iter().filter(|entry| is_due(entry.modified)).filter_map(crate::spool::Entry::id).collect();
        let is_last = rest.is_none();
        if place == Place::Active {
            self.active = rest;
        } else {
            self.deferred = rest;
        }
        self.reporter.send(Report::Listed(Chunk { place, ids, is_last }));
    }

    fn pick_up(&mut self) {
        if self.incoming.is_none() {
            self.remove_stale_drafts();
        }
        let names = match self.incoming.take().map_or_else(|| self.spool.names(Place::Incoming), Ok) {
            Ok(names) => names,
            Err(error) => {
                log::error!("incoming/ cannot be listed: {error}; tried again in a minute");
                return self.reporter.send(Report::PickedUp(Found { ids: Vec::new(), is_last: Some(true) }));
            }
        };
        let (chunk, rest) = take_some(names, PICKED_UP_AT_ONCE);
        let config = Arc::clone(&self.config);
        let trusted = |uid| is_trusted(&config, uid);
        let mut ids = Vec::new();
        for entry in chunk {
            match self.pickup.peek(&entry.name) {
                // A bare message waits for its job line.
                Ok(Peek::Bare | Peek::Nothing) => {}
                Ok(Peek::QueueFile | Peek::Unusable) => {
                    ids.extend(log_picked_up(self.pickup.take_queue_file(&entry.name, &trusted)));
                }
                Err(error) => {
                    log::error!("incoming/{} cannot be read: {error}; it stays", entry.name.display());
                }
            }
        }
        self.incoming = rest;
        let is_last = Some(self.incoming.is_none());
        self.reporter.send(Report::PickedUp(Found { ids, is_last }));
    }

    /// Takes a file that a job line names. Where the line is of no use the file stays, for `queue list` to show.
    fn take(&mut self, name: &str, draft: Option<Box<Draft>>) {
        let config = Arc::clone(&self.config);
        if let Some(nexthop) = draft.as_ref().and_then(|draft| draft.nexthop.as_ref())
            && let Err(error) = config.destination(nexthop)
        {
            log::error!(target: PICKUP, "job line for incoming/{name} skipped: nexthop \"{nexthop}\": {error}; the file stays");
            return self.reporter.send(Report::PickedUp(Found { ids: Vec::new(), is_last: None }));
        }
        let trusted = |uid| is_trusted(&config, uid);
        let picked_up = match draft {
            Some(draft) => self.pickup.take_bare(name.as_ref(), *draft, &trusted),
            None => match self.pickup.peek(name.as_ref()) {
                Ok(Peek::Bare) => {
                    log::warn!(
                        "incoming/{name} is no queue file, and its job line names no sender and recipients; it stays"
                    );
                    return self.reporter.send(Report::PickedUp(Found { ids: Vec::new(), is_last: None }));
                }
                _ => self.pickup.take_queue_file(name.as_ref(), &trusted),
            },
        };
        if matches!(picked_up, PickedUp::Gone) {
            log::warn!(target: PICKUP, "job line for incoming/{name}: there is no such file (any more)");
        }
        let ids = log_picked_up(picked_up).into_iter().collect();
        self.reporter.send(Report::PickedUp(Found { ids, is_last: None }));
    }

    // ---- loading ----

    fn load(&mut self, load: Load) -> Report {
        let id = load.id;
        let dismissed = |queued| Report::Dismissed { id, queued };
        if load.from == Place::Deferred {
            match self.spool.move_to(id, Place::Deferred, Place::Active) {
                Ok(true) => {}
                Ok(false) => return dismissed(Vec::new()),
                Err(error) => {
                    log::error!(
                        "{id}: it cannot be moved from deferred/ to active/: {error}; tried again later"
                    );
                    return dismissed(Vec::new());
                }
            }
        }
        let cursor = load.next.as_ref().map_or_else(Cursor::default, |(_, cursor)| *cursor);
        match self.spool.load(id, cursor, load.window) {
            Ok(loaded) => self.loaded(load, loaded),
            Err(error) => {
                self.not_loaded(id, &error);
                dismissed(Vec::new())
            }
        }
    }

    fn loaded(&self, load: Load, loaded: crate::spool::Loaded) -> Report {
        let id = load.id;
        let refused = loaded.recipients.iter().filter(|(_, state)| *state == State::Refused).count();
        let is_first = load.next.is_none();
        let Envelope { origin, sender, .. } = &loaded.envelope;
        if load.is_new && origin.starts_with("uid=") {
            log::info!(target: PICKUP, "{id}: {origin} {}", logged(sender));
        }
        let message = match load.next {
            Some((message, _)) => message,
            None => {
                let mut envelope = loaded.envelope;
                // A crash may have come between two windows of an attempt; nothing of that is lost by trying.
                envelope.id = id;
                Arc::new(Message::new(envelope, loaded.unsettled))
            }
        };
        // Refused ones were settled by an earlier attempt; only their bounce is owed, which finishing sees to.
        let is_done = loaded.unsettled == 0 || message.count_down(refused);
        if is_done {
            let finished = finish::finish(&self.spool, &self.config, &message, Protocol::Lmtp);
            return Report::Dismissed { id, queued: finished.queued };
        }
        let mut recipients = Vec::with_capacity(loaded.recipients.len());
        for (recipient, state) in loaded.recipients {
            match state {
                State::Refused => continue,
                State::InDoubt => log::warn!(
                    "{id}: an earlier attempt for <{}> ended without an answer to the end of data; \
                     the message may be delivered twice",
                    recipient.address
                ),
                State::Pending | State::Sent | State::Bounced => {}
            }
            recipients.push((self.destination(&message, &recipient.address), recipient));
        }
        Report::Loaded(Box::new(Loaded {
            message,
            recipients,
            rest: loaded.rest,
            next: loaded.next,
            is_first,
            count: loaded.count,
        }))
    }

    /// Asked again at every attempt, so that a changed route counts for mail that waits.
    fn destination(&self, message: &Message, recipient: &crate::mail::Address) -> crate::mail::Destination {
        let envelope = &message.envelope;
        if let Some(nexthop) = &envelope.nexthop {
            match self.config.destination(nexthop) {
                Ok(destination) => return destination,
                Err(error) => log::warn!(
                    "{}: its nexthop \"{nexthop}\" cannot be used: {error}; the routes decide",
                    envelope.id
                ),
            }
        }
        match &self.config.bounce_nexthop {
            Some(destination) if envelope.sender.is_null() && !envelope.origin.starts_with("uid=") => {
                destination.clone()
            }
            _ => self.config.route(recipient),
        }
    }

    fn not_loaded(&mut self, id: QueueId, error: &LoadError) {
        match error {
            LoadError::Gone => {}
            LoadError::Foreign(_) => {
                let config = Arc::clone(&self.config);
                let picked_up = self.pickup.take_foreign(id, Place::Active, &|uid| is_trusted(&config, uid));
                self.reporter.send(Report::Queued(log_picked_up(picked_up).into_iter().collect()));
            }
            LoadError::Io(error) => {
                log::error!("{id}: the queue file cannot be read: {error}; tried again in a minute");
            }
            LoadError::Version(_) | LoadError::Corrupt(_) => self.set_aside(id, error),
        }
    }

    fn set_aside(&self, id: QueueId, error: &LoadError) {
        let Some(place) = error.place() else { return };
        match self.spool.move_to(id, Place::Active, place) {
            Ok(true) => log::error!("{id}: {error}; it is kept in {}/", place.name()),
            Ok(false) => {}
            Err(moving) => {
                log::error!("{id}: {error}; and it cannot be moved to {}/: {moving}", place.name());
            }
        }
    }

    // ---- settling without a worker ----

    fn settle(&self, order: &Order, outcome: &Outcome) {
        let protocol = order
            .config
            .transport(order.batch.destination().transport())
            .map_or(Protocol::Lmtp, |t| t.protocol);
        recorder::log_unsent(order, outcome);
        let now = Timestamp::now();
        let replies: Vec<_> = order
            .batch
            .recipients()
            .iter()
            .map(|recipient| crate::spool::LoggedReply::new(now, recipient, outcome, None))
            .collect();
        let id = order.message.envelope.id;
        if let Err(error) = self.spool.append_replies(id, &replies) {
            log::warn!("{id}: why it was deferred cannot be recorded: {error}");
        }
        self.count_down(order, protocol);
    }

    /// The worker has marked what it knew before it panicked; what it had not is tried again.
    fn settle_lost(&self, order: &Order) {
        let reason = Reason::local(
            crate::mail::EnhancedStatus::new(4, 3, 0),
            "a worker failed while it had the message",
        );
        let id = order.message.envelope.id;
        let states =
            self.spool.open_active(id).ok().flatten().and_then(|file| file.states().ok()).unwrap_or_default();
        let outcome = Outcome::Deferred(reason);
        for recipient in order.batch.recipients() {
            match states.get(recipient.position as usize) {
                Some(State::InDoubt) => log::warn!(
                    "{id}: <{}> was in doubt when a worker failed; the message may be delivered twice",
                    recipient.address
                ),
                Some(State::Pending) | None => {}
                Some(State::Sent | State::Refused | State::Bounced) => continue,
            }
            recorder::log_one_unsent(order, recipient, &outcome);
        }
        self.count_down(order, Protocol::Lmtp);
    }

    fn count_down(&self, order: &Order, protocol: Protocol) {
        if order.message.count_down(order.batch.recipients().len()) {
            let finished = finish::finish(&self.spool, &self.config, &order.message, protocol);
            self.reporter.send(Report::Dismissed { id: finished.id, queued: finished.queued });
        }
    }

    fn tell_of_panic(&self, about: &str) {
        let class = crate::notice::TroubleClass::Software;
        if let Some(id) = super::notices::queue_trouble(&self.spool, &self.config, class, about) {
            self.reporter.send(Report::Queued(vec![id]));
        }
    }

    // ---- what administrators ask for ----

    fn act(&self, id: QueueId, action: Action, answer: &crossbeam_channel::Sender<Answer>) {
        let result = action.carry_out(&self.spool, id);
        match &result {
            Ok(place) => log::info!(target: QMGR, "{id}: {}", action.done(*place)),
            Err(error) => {
                log::error!(target: QMGR, "{id}: {action} is not possible: {error}; the message stays where it is");
            }
        }
        // What is left in active/ was taken out of memory, or has just come: the master is to look at it again.
        let leaves = matches!(action, Action::Hold | Action::Delete) && result.is_ok();
        // Whoever asked may have gone.
        let _ = answer.send(Answer::Acted(result));
        self.reporter.send(Report::Dismissed { id, queued: if leaves { Vec::new() } else { vec![id] } });
    }
}

/// Takes up to `count` entries; what is left of the listing, if anything is.
fn take_some(mut names: Names, count: usize) -> (VecDeque<crate::spool::Entry>, Option<Names>) {
    let mut entries = VecDeque::new();
    while entries.len() < count {
        match names.next() {
            Some(Ok(entry)) => entries.push_back(entry),
            Some(Err(error)) => {
                log::error!("the queue cannot be listed to its end: {error}; tried again in a minute");
                return (entries, None);
            }
            None => return (entries, None),
        }
    }
    (entries, Some(names))
}

/// Says in the log what became of a dropped file; returns its ID if it is queued.
fn log_picked_up(picked_up: PickedUp) -> Option<QueueId> {
    match picked_up {
        PickedUp::Queued(taken) => {
            let Taken { id, uid, sender, ignored_nexthop, leftover, .. } = taken;
            log::info!(target: PICKUP, "{id}: uid={uid} {}", logged(&sender));
            if let Some(nexthop) = ignored_nexthop {
                log::warn!(target: PICKUP, "{id}: uid {uid} may not choose the nexthop \"{nexthop}\": the routes decide");
            }
            if let Some(leftover) = leftover {
                log::warn!(target: PICKUP, "{id}: {leftover}");
            }
            return Some(id);
        }
        PickedUp::Gone => {}
        PickedUp::SetAside { name, id, place, uid, reason } => {
            let owner = uid.map_or_else(String::new, |uid| format!(" of uid {uid}"));
            let (name, place) = (name.display(), place.name());
            log::error!(
                target: PICKUP,
                "{id}: incoming/{name}{owner} is not queued: {reason}; it is kept as {place}/{id}"
            );
        }
        PickedUp::Postponed { name, error } => {
            let name = name.display();
            log::error!(target: PICKUP, "incoming/{name} cannot be queued now: {error}; it is kept and tried again");
        }
        PickedUp::Stuck { name, error } => {
            log::error!(target: PICKUP, "\"{}\" of incoming/ cannot be moved: {error}; it stays", name.display());
        }
    }
    None
}

/// Whose files may name a nexthop: root's, our own user's and the trusted users'.
pub(super) fn is_trusted(config: &Config, uid: u32) -> bool {
    let is_ours = uid == 0 || uid == rustix::process::geteuid().as_raw();
    is_ours || config.trusted_users.iter().any(|name| has_uid(name, uid))
}

fn has_uid(name: &str, uid: u32) -> bool {
    name.parse() == Ok(uid)
        || User::from_name(name).is_ok_and(|user| user.is_some_and(|user| user.uid == Uid::from_raw(uid)))
}

pub(super) fn limits(config: &Config) -> SubmitLimits {
    SubmitLimits { message_size_limit: config.message_size_limit, minfree: config.queue_minfree }
}

/// Tells the master if the thread ends, however that happens.
struct PickupLost(Reporter);

impl Drop for PickupLost {
    fn drop(&mut self) {
        self.0.send(Report::PickupLost);
    }
}
