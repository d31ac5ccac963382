//! The thread that lists, loads and picks up for the master, who never touches the disk.
//!
//! - Owns: listings that keep their place, turns between users, the order of claims and loads, moves that an
//!   administrator asks for.
//! - Leaves to others: what may be loaded now (`master`), how a file is claimed and read (`spool`).
//! - Always true: it answers every errand, in order; how many are under way is the master's to bound. Only batches to be
//!   deferred without an attempt wait for their time: there may be thousands at once, and nobody waits for them.

mod listing;
mod loading;
mod postponed;
mod settling;
mod turns;

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crossbeam_channel::{Receiver, TryRecvError};

use super::control::{Action, Answer};
use super::log::{PICKUP, QMGR};
use super::message::{Counters, Message, Order};
use super::report::{Report, Reporter};
use super::sweeper::Sweeper;
use crate::config::Config;
use crate::mail::{QueueId, Reason};
use crate::queue::job::IncomingName;
use crate::spool::{Cursor, Draft, Names, Pickup, Place, Spool, SubmitLimits};
use postponed::Postponed;
use turns::Turns;

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
    Act(ErrandId, QueueId, Action, crossbeam_channel::Sender<Answer>),
    /// Tell the postmaster of trouble with the program.
    TellOfPanic(String),
    /// The configuration was read again.
    Reconfigured(Arc<Config>),
}

/// Which errand: no two to messages have the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrandId(u64);

impl ErrandId {
    /// The one after it.
    pub fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// A window to be read.
#[derive(Debug)]
pub struct Load {
    /// Of which message.
    pub id: QueueId,
    /// Under this it is reported.
    pub errand: ErrandId,
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
    sweeper: Sweeper,
    config: Arc<Config>,
    counters: Arc<Counters>,
    pickup: Pickup,
    reporter: Reporter,
    active: Option<Names>,
    deferred: Option<Names>,
    incoming: Option<Names>,
    turns: Turns,
    stale_looked_for: SystemTime,
    postponed: Postponed,
    postponed_tried: Instant,
    /// Not before this is the postmaster told (again) that room is short.
    shortage_next: Instant,
    /// To be deferred without an attempt.
    suspended: VecDeque<(Box<Order>, Reason)>,
}

impl PickupThread {
    /// Prepares the thread.
    pub fn new(spool: Arc<Spool>, sweeper: Sweeper, config: Arc<Config>, reporter: Reporter) -> Self {
        let mut pickup = Pickup::new(Arc::clone(&spool), limits(&config));
        pickup.complete_with(&config.myorigin);
        Self {
            spool,
            sweeper,
            config,
            counters: Arc::default(),
            pickup,
            reporter,
            active: None,
            deferred: None,
            incoming: None,
            turns: Turns::default(),
            stale_looked_for: SystemTime::UNIX_EPOCH,
            postponed: Postponed::default(),
            postponed_tried: Instant::now(),
            shortage_next: Instant::now(),
            suspended: VecDeque::new(),
        }
    }

    /// Counts outcomes where the workers do.
    #[must_use]
    pub fn counting_in(self, counters: Arc<Counters>) -> Self {
        Self { counters, ..self }
    }

    /// Puts right what a crash has left, then runs errands until the master closes the channel.
    pub fn run(mut self, errands: &Receiver<Errand>) {
        let _guard = PickupLost(self.reporter.clone());
        self.recover();
        while let Some(errand) = self.next_errand(errands) {
            self.run_guarded(errand, &|| !errands.is_empty());
        }
        for name in self.postponed.names_of_drafts() {
            log::warn!(target: PICKUP, "incoming/{name} still waits for room: its job line must be written again");
        }
    }

    /// Runs an errand. Over one message that makes it panic the thread must not end: the agent would stop, start, and
    /// come to that message again.
    fn run_guarded(&mut self, errand: Errand, others_wait: &dyn Fn() -> bool) {
        let Errand::Load(Load { id, errand: errand_id, .. }) = errand else {
            return self.run_errand(errand, others_wait);
        };
        if panic::catch_unwind(AssertUnwindSafe(|| self.run_errand(errand, others_wait))).is_ok() {
            return;
        }
        let kept = match self.spool.move_to(id, Place::Active, Place::Hold) {
            Ok(_) => "it is kept in hold/".to_owned(),
            Err(error) => format!("and it cannot be moved to hold/: {error}; it stays in active/"),
        };
        log::error!("{id}: the agent has panicked over this message when it was to be loaded: {kept}");
        self.tell_of_panic(&format!("The agent panicked when it was to load message {id}: {kept}."));
        self.reporter.send(Report::Dismissed { id, errand: errand_id, queued: Vec::new() });
    }

    /// Waits for the next errand, and meanwhile defers what is suspended. What is left of that when the agent ends is on
    /// disk as it was.
    fn next_errand(&mut self, errands: &Receiver<Errand>) -> Option<Errand> {
        while !self.suspended.is_empty() {
            match errands.try_recv() {
                Ok(errand) => return Some(errand),
                Err(TryRecvError::Empty) => self.settle_suspended(1),
                Err(TryRecvError::Disconnected) => return None,
            }
        }
        errands.recv().ok()
    }

    /// Runs one errand; `others_wait` tells whether a long one should make way for the next.
    pub(super) fn run_errand(&mut self, errand: Errand, others_wait: &dyn Fn() -> bool) {
        match &errand {
            Errand::Suspend(..) => {}
            // The rest of a message comes after what was suspended of it, and so does what an administrator wants.
            Errand::Load(Load { id, next: Some(_), .. }) | Errand::Act(_, id, ..) => {
                self.settle_suspended_of(*id);
            }
            // They get their turn also where errands never end, and are no more than fit into memory.
            _ => self.settle_suspended(self.suspended.len().saturating_sub(self.config.active_limit).max(1)),
        }
        match errand {
            Errand::Load(load) => {
                let report = self.load(load);
                self.reporter.send(report);
            }
            Errand::List { place, everything } => self.list(place, everything),
            Errand::PickUp => self.pick_up(others_wait),
            Errand::Take { name, draft } => self.take(&name, draft),
            Errand::Suspend(order, reason) => self.suspended.push_back((order, reason)),
            Errand::SettleLost(order) => self.settle_lost(&order),
            Errand::Act(errand, id, action, answer) => self.act(errand, id, action, &answer),
            Errand::TellOfPanic(about) => self.tell_of_panic(&about),
            Errand::Reconfigured(config) => {
                self.pickup.set_limits(limits(&config));
                self.pickup.complete_with(&config.myorigin);
                self.config = config;
            }
        }
    }

    fn act(&self, errand: ErrandId, id: QueueId, action: Action, answer: &crossbeam_channel::Sender<Answer>) {
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
        let queued = if leaves { Vec::new() } else { vec![id] };
        self.reporter.send(Report::Dismissed { id, errand, queued });
    }
}

/// Whose files may name a nexthop: root's, our own user's and the trusted users', whose names have become numbers when
/// the configuration was read (`trust`).
pub(super) fn is_trusted(config: &Config, uid: u32) -> bool {
    let is_ours = uid == 0 || uid == rustix::process::geteuid().as_raw();
    is_ours || config.trusted_users.iter().any(|user| user.parse() == Ok(uid))
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
