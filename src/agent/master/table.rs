//! The table of messages in memory: how they come in, and how they leave.
//!
//! - Owns: what is known of each, and which of them the pickup thread is sent to.
//! - Leaves to others: where names come from (`intake`), reading (`pickup`), the end of an attempt (`finish`).
//! - Always true: an ID in the table is never loaded again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::Master;
use crate::agent::control::{Action, Answer};
use crate::agent::intake::Name;
use crate::agent::log::QMGR;
use crate::agent::message::Message;
use crate::agent::pickup::{Errand, ErrandId, Load};
use crate::agent::recorder::logged;
use crate::agent::report::Loaded;
use crate::mail::QueueId;
use crate::queue::scheduler::Event;
use crate::spool::{Cursor, Place};

/// Recipients of a message that are loaded at once.
const WINDOW: usize = 1000;
/// First windows that are under way at a time.
const LOADING_MAX: usize = 64;
/// Recipients for whom room is kept with each of them. Most messages have fewer; one that has more, and finds no room
/// when it comes, is passed over and comes again.
const FIRST_WINDOW: usize = 50;
/// How long a file that was read in vain keeps the next look away: some ten times what reading it takes.
const LOOK_AGAIN: Duration = Duration::from_micros(400);
/// The same for all of them together.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(5);

/// A message that the master knows of.
#[derive(Default)]
pub(super) struct Entry {
    /// Once its first window has come.
    pub(super) loaded: Option<InMemory>,
    /// The errand on which the pickup thread is about to read or move its file.
    errand: Option<ErrandId>,
    /// That reads its first window.
    is_first: bool,
    /// Room that is kept for what it is about to read.
    reserved: usize,
    /// It does what an administrator has asked for.
    pub(super) is_acting: bool,
    /// What is to happen when nothing of it is under way any more.
    pub(super) then: Then,
}

/// A message that has come from disk.
pub(super) struct InMemory {
    pub(super) message: Arc<Message>,
    /// Where the next window begins.
    pub(super) next: Option<Cursor>,
}

#[derive(Default)]
pub(super) enum Then {
    /// What the outcomes say.
    #[default]
    Finish,
    /// Nothing: its file is gone.
    Forget,
    /// What an administrator wants.
    Act(Action, Sender<Answer>),
}

/// Messages that were passed over for want of room.
pub(super) struct PassedOver {
    /// Recipients in memory when the first was.
    in_memory: usize,
    since: Instant,
    files: u32,
}

impl PassedOver {
    /// Most of a large backlog would be read in vain each time: so half of memory must be free, or, for less, the last
    /// look must be as long ago as it was dear.
    fn may_look_again(&self, in_memory: usize) -> bool {
        let is_due = self.look_again_at(in_memory).is_some_and(|at| at <= Instant::now());
        in_memory <= self.in_memory / 2 || is_due
    }

    /// When it is time for another look with so many recipients in memory; `None` as long as they are too many.
    pub(super) fn look_again_at(&self, in_memory: usize) -> Option<Instant> {
        // A part of the last quarter, since the rest may be held for long. But at least one has to go, or a small memory
        // would be offered the same message again and again.
        let some = self.in_memory.saturating_sub((self.in_memory / 32).max(1));
        let pause = LOOK_AGAIN.saturating_mul(self.files).min(LOOK_AGAIN_MAX);
        (in_memory <= some).then(|| self.since + pause)
    }
}

impl Master {
    pub(super) fn load_more(&mut self) {
        if self.stop_by.is_some() {
            return;
        }
        self.look_again_if_there_is_room();
        while !self.intake.is_empty() && self.loading < LOADING_MAX && self.scheduler.room() > self.reserved {
            let Some(Name { id, place, is_new }) = self.intake.next() else { break };
            if !self.table.contains_key(&id) {
                let window = self.window();
                self.begin_errand(id, |errand| {
                    Errand::Load(Load { id, errand, from: place, next: None, window, is_new })
                });
            }
        }
        for errand in self.intake.errands(Instant::now()) {
            self.send(errand);
        }
    }

    /// Notes that a message found no room. What counts is how full memory was at most, whoever filled it.
    fn pass_over(&mut self) {
        let in_memory = self.scheduler.recipients();
        let new = || PassedOver { in_memory, since: Instant::now(), files: 0 };
        let passed = self.passed_over.get_or_insert_with(new);
        passed.in_memory = passed.in_memory.max(in_memory);
        passed.files = passed.files.saturating_add(1);
    }

    /// What was passed over is on disk only; once a part of memory is free, it gets another chance.
    pub(super) fn look_again_if_there_is_room(&mut self) {
        let in_memory = self.scheduler.recipients();
        if self.passed_over.as_ref().is_some_and(|passed| passed.may_look_again(in_memory)) {
            self.passed_over = None;
            self.intake.want(Place::Active, false);
        }
    }

    pub(super) fn window(&self) -> usize {
        // Several windows have room in the last quarter of a small memory, where a hung destination may hold the rest.
        WINDOW.min(self.config.active_limit / 16).max(1)
    }

    /// Sends the pickup thread to a message; its report will say when it is done.
    pub(super) fn begin_errand(&mut self, id: QueueId, errand: impl FnOnce(ErrandId) -> Errand) {
        self.latest_errand = self.latest_errand.next();
        let errand = errand(self.latest_errand);
        let (reserved, is_first) = match &errand {
            Errand::Load(Load { next: None, window, .. }) => (FIRST_WINDOW.min(*window), true),
            // Its message is in memory already: it comes in whether there is room or not.
            Errand::Load(Load { window, .. }) => (*window, false),
            _ => (0, false),
        };
        self.end_errand(id);
        let entry = self.table.entry(id).or_default();
        entry.errand = Some(self.latest_errand);
        entry.is_first = is_first;
        entry.reserved = reserved;
        entry.is_acting = matches!(errand, Errand::Act(..));
        self.reserved += reserved;
        self.loading += usize::from(is_first);
        self.send(errand);
    }

    pub(super) fn end_errand(&mut self, id: QueueId) {
        if let Some(entry) = self.table.get_mut(&id)
            && entry.errand.take().is_some()
        {
            self.reserved -= std::mem::take(&mut entry.reserved);
            self.loading -= usize::from(std::mem::take(&mut entry.is_first));
        }
    }

    pub(super) fn load_next_window(&mut self, id: QueueId) {
        let Some(in_memory) = self.table.get_mut(&id).and_then(|entry| entry.loaded.as_mut()) else { return };
        if let Some(cursor) = in_memory.next.take() {
            let next = Some((Arc::clone(&in_memory.message), cursor));
            // What others have taken of the room is not there. But a list that is not read on would never end.
            let room = self.scheduler.room().saturating_sub(self.reserved);
            let window = self.window().min(room.max(1));
            let load = |errand| Load { id, errand, from: Place::Active, next, window, is_new: false };
            self.begin_errand(id, |errand| Errand::Load(load(errand)));
        }
    }

    pub(super) fn loaded(&mut self, loaded: Loaded) {
        let Loaded { message, errand, recipients, rest, next, is_first, count } = loaded;
        let envelope = Arc::clone(&message.envelope);
        let id = envelope.id;
        if !self.is_about(id, errand) {
            return;
        }
        self.end_errand(id);
        let Some(entry) = self.table.get_mut(&id) else { return };
        if !matches!(entry.then, Then::Finish) {
            return self.conclude_if_idle(id);
        }
        if is_first && entry.loaded.is_some() {
            // It is in memory already: a message is there once.
            return;
        }
        if is_first && !self.scheduler.admits(&recipients) {
            self.pass_over();
            self.table.remove(&id);
            return;
        }
        if is_first {
            let (sender, size) = (logged(&envelope.sender), envelope.size);
            log::info!(target: QMGR, "{id}: {sender}, size={size}, nrcpt={count} (queue active)");
        }
        let is_last = next.is_none();
        entry.loaded = Some(InMemory { message, next });
        if recipients.is_empty() && !is_last {
            // Of this window only a bounce is owed; that is no news for the scheduler. It must hear of the last one:
            // it still counts on what lay behind the windows before.
            return self.load_next_window(id);
        }
        self.step_unless_stopping(Event::Loaded { envelope, recipients, rest });
    }

    /// Whether a report is of the errand that is under way. Any other is of one that nobody waits for.
    fn is_about(&self, id: QueueId, errand: ErrandId) -> bool {
        self.table.get(&id).is_some_and(|entry| entry.errand == Some(errand))
    }

    /// A message is done with, or could not be loaded.
    pub(super) fn dismissed(&mut self, id: QueueId, errand: ErrandId) {
        if !self.is_about(id, errand) {
            return;
        }
        let was_window = self.table.get(&id).is_some_and(|entry| entry.loaded.is_some());
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

    /// A message is done with. It may have been taken out of memory before, and its ID be about something else.
    pub(super) fn settled(&mut self, message: &Arc<Message>) {
        let id = message.envelope.id;
        let in_memory = self.table.get(&id).and_then(|entry| entry.loaded.as_ref());
        if in_memory.is_some_and(|in_memory| Arc::ptr_eq(&in_memory.message, message)) {
            self.conclude(id);
        }
    }

    /// Nothing of the message is under way: it leaves memory, and what an administrator asked for can be done.
    pub(super) fn conclude(&mut self, id: QueueId) {
        self.end_errand(id);
        if let Some(Entry { then: Then::Act(action, answer), .. }) = self.table.remove(&id) {
            self.begin_errand(id, |errand| Errand::Act(errand, id, action, answer));
        }
    }

    /// Ends a message that is not to be finished, once no batch of it is under way.
    pub(super) fn conclude_if_idle(&mut self, id: QueueId) {
        let may_end = self
            .table
            .get(&id)
            .is_some_and(|entry| entry.errand.is_none() && !matches!(entry.then, Then::Finish));
        if may_end && self.scheduler.in_flight(id) == 0 {
            self.conclude(id);
        }
    }
}
