//! Whose turn it is: destinations take turns for idle workers, then for mailboxes; timers.
//!
//! - Owns: the lists of destinations that want a worker, the reserve, the use of mailboxes.
//! - Leaves to others: which batch a destination gives (`place`), which worker takes it (`pool`).
//! - Always true: a mailbox is filled only where no idle worker may take the batch, no destination is without any
//!   worker, and no other that waits has less in flight. So nobody keeps a worker for ever by refilling its mailbox.

use std::time::Duration;

use super::place::{List, Place};
use super::pool::{Asked, Key};
use super::ring::Ring;
use super::{RESERVED_PART, Scheduler, WorkerId};

/// A batch in a mailbox is asked back when the pool has started this many rounds of later ones: the worker is held
/// up by what it runs.
const ROUNDS_OVERTAKEN: u64 = 4;

impl Scheduler {
    /// Hands out all that can be handed out.
    pub(super) fn dispatch(&mut self) {
        while let Some(key) = self.next_turn() {
            self.take_turn(key);
        }
        while self.fill_a_mailbox() {}
    }

    /// The destination that gets the next idle worker. It leaves its list.
    fn next_turn(&mut self) -> Option<Key> {
        let reserved = self.reserved();
        let free = self.pool.free();
        let first = if free > 0 { self.unserved.iter().next().copied() } else { None };
        let key = first.or_else(|| if free > reserved { self.least_served() } else { None })?;
        self.unlist(key);
        Some(key)
    }

    /// Of the destinations that could use a worker more, the one that has fewest; the first of several. By turns alone
    /// one that gives its workers back soon would lose them, one after the other, to those that keep theirs for long.
    fn least_served(&self) -> Option<Key> {
        let workers = |key: &&Key| self.places.get(*key).map_or(0, Place::workers);
        self.served.iter().min_by_key(workers).copied()
    }

    /// Lets a destination start one batch on an idle worker. What stands in a mailbox goes before what waits here: it
    /// was cut earlier.
    fn take_turn(&mut self, key: Key) {
        let Some(place) = self.places.get_mut(&key) else { return };
        if let Some((_, worker)) = place.mailed.first_key_value() {
            let worker = *worker;
            self.ask_back(worker, Asked::ForWorker);
        } else {
            self.start_one(key);
        }
        self.refresh(key);
    }

    /// A batch that was asked back for an idle worker has come: it is at the front of its destination.
    pub(super) fn start_kept(&mut self, key: Key) {
        if self.pool.free() > self.reserved() && self.places.get(&key).is_some_and(Place::may_start) {
            self.start_one(key);
        }
    }

    fn start_one(&mut self, key: Key) {
        let Some(place) = self.places.get_mut(&key) else { return };
        let Some(cut) = place.cut() else { return };
        match self.pool.pick(&place.destination) {
            Some(worker) => self.hand_out(key, worker, cut),
            None => place.put_back(cut.batch),
        }
    }

    /// Workers that are left to destinations without a batch in flight.
    fn reserved(&self) -> usize {
        self.settings.workers_reserved.min(self.pool.size() / RESERVED_PART)
    }

    /// Puts a batch into a mailbox; false if there is none to put or no mailbox for it. Looks at the destinations
    /// that are being served: they are no more than workers.
    fn fill_a_mailbox(&mut self) -> bool {
        let Some((key, worker)) = self.next_mailbox() else { return false };
        let Some(place) = self.places.get_mut(&key) else { return false };
        let overtaken = ROUNDS_OVERTAKEN * self.pool.size() as u64;
        let oldest = place.mailed.first_key_value().map(|(serial, worker)| (*serial, *worker));
        if let Some((serial, held_up)) = oldest
            && self.serial - serial > overtaken
        {
            // Nothing more until it is back, else the mailbox that is open now would be gone.
            self.ask_back(held_up, Asked::ToWait);
            self.refresh(key);
            return false;
        }
        match place.cut() {
            Some(cut) => self.hand_out(key, worker, cut),
            None => self.unlist(key),
        }
        self.refresh(key);
        true
    }

    /// The open mailbox behind the youngest batch, of the destination that has least in flight of all that wait.
    fn next_mailbox(&self) -> Option<(Key, WorkerId)> {
        if !self.unserved.is_empty() {
            return None;
        }
        let waiting = || self.served.iter().filter_map(|key| Some((*key, self.places.get(key)?)));
        let least = waiting().map(|(_, place)| place.in_flight).min()?;
        waiting()
            .filter(|(_, place)| place.in_flight == least && place.may_start())
            .find_map(|(key, place)| place.open_mailboxes.last_key_value().map(|(_, worker)| (key, *worker)))
    }

    /// Puts a destination on the list where it belongs now, behind the others unless it is there already; forgets it
    /// if nothing is left of it.
    pub(super) fn refresh(&mut self, key: Key) {
        let Some(place) = self.places.get_mut(&key) else { return };
        let wants = place.wants();
        if place.listed.map(|(list, _)| list) != wants {
            self.unlist(key);
            if let Some(list) = wants {
                let turn = self.list_mut(list).push_back(key);
                if let Some(place) = self.places.get_mut(&key) {
                    place.listed = Some((list, turn));
                }
            }
        }
        self.forget_if_unused(key);
    }

    fn unlist(&mut self, key: Key) {
        if let Some((list, turn)) = self.places.get_mut(&key).and_then(|place| place.listed.take()) {
            self.list_mut(list).remove(turn);
        }
    }

    fn list_mut(&mut self, list: List) -> &mut Ring<Key> {
        match list {
            List::Unserved => &mut self.unserved,
            List::Served => &mut self.served,
        }
    }

    /// A destination without mail goes, at once or when its failures are old enough to be forgotten. There are never
    /// more such memories than twice `active_limit`.
    fn forget_if_unused(&mut self, key: Key) {
        let Some(place) = self.places.get(&key).filter(|place| place.is_unused()) else { return };
        if place.condition.is_clean() || self.places.len() > 2 * self.settings.active_limit.max(1) {
            self.forget(key);
        } else if place.timer.is_none() {
            self.set_timer(key, Some(self.now.saturating_add(self.settings.minimal_backoff_time)));
        }
    }

    fn forget(&mut self, key: Key) {
        self.unlist(key);
        self.set_timer(key, None);
        if let Some(place) = self.places.remove(&key) {
            self.keys.remove(&place.destination);
        }
    }

    /// Sets the one timer of a destination.
    pub(super) fn set_timer(&mut self, key: Key, at: Option<Duration>) {
        let Some(place) = self.places.get_mut(&key) else { return };
        if let Some(before) = std::mem::replace(&mut place.timer, at) {
            self.timers.remove(&(before, key));
        }
        self.timers.extend(at.map(|at| (at, key)));
    }

    /// Ends the rests and pauses whose time has come, and forgets failures of destinations without mail.
    pub(super) fn wake(&mut self) {
        while let Some((_, key)) = self.timers.first().copied().filter(|(at, _)| *at <= self.now) {
            self.timers.pop_first();
            let Some(place) = self.places.get_mut(&key) else { continue };
            place.timer = None;
            if place.condition.until().is_some() {
                place.condition.wake(self.now);
                self.refresh(key);
            } else if place.is_unused() {
                self.forget(key);
            }
        }
    }
}
