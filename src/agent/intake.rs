//! What is to be loaded next: listings that keep their place, names from the FIFO, notices of our own.
//!
//! - Owns: the bounded lists of names, and when which directory is listed.
//! - Leaves to others: whether there is room (`queue::scheduler`), the listing itself (`pickup`).
//! - Always true: a name that finds no room here is found again by a listing, because it lies on disk. Mail that we
//!   are told of does not wait behind a backlog that is being listed, nor the other way round: they take turns.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::pickup::Errand;
use crate::mail::QueueId;
use crate::spool::Place;

/// Names in memory, of each kind.
const NAMES_MAX: usize = 4096;
/// While more than this wait, no listing goes on, or no job line is read.
const NAMES_ENOUGH: usize = 512;
/// Time between two listings of `active/` and `incoming/`: what a lost job line or event costs at most.
const LISTING_INTERVAL: Duration = Duration::from_secs(60);
/// Time until a listing that makes up for missed job lines: each second one, however many are missed.
const LISTING_SOON: Duration = Duration::from_secs(1);
/// Time from a second listing that found nothing to the next one, whatever calls for it. The first is nothing unusual:
/// the event that called for it may have told of a file that the listing before had found already.
const PAUSE_AFTER_NOTHING: Duration = Duration::from_millis(500);

/// A directory that is listed from time to time, a part at a time.
#[derive(Debug)]
struct Listing {
    place: Place,
    interval: Duration,
    next: Instant,
    /// To be started (again) as soon as the present one is through.
    wanted: bool,
    /// Also what is not due.
    everything: bool,
    going_on: bool,
    asked: bool,
    /// Nothing was found the last two times: whoever only makes events is not listened to for a while.
    not_before: Instant,
    found: bool,
    /// Nothing was found the last time.
    in_vain: bool,
}

/// A message to be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    /// Which.
    pub id: QueueId,
    /// Where it is.
    pub place: Place,
    /// Its submitter has just told of it: it is new.
    pub is_new: bool,
}

/// What is to be loaded next.
#[derive(Debug)]
pub struct Intake {
    /// From job lines and our own threads.
    told: VecDeque<Name>,
    /// From listings.
    listed: VecDeque<Name>,
    /// Whose turn it is, if both have something.
    listed_is_next: bool,
    listings: [Listing; 3],
}

impl Intake {
    /// Lists everything at once, then from time to time.
    pub fn new(now: Instant, queue_run_delay: Duration) -> Self {
        let listing = |place, interval| Listing {
            place,
            interval,
            next: now + interval,
            wanted: true,
            everything: false,
            going_on: false,
            asked: false,
            not_before: now,
            found: false,
            in_vain: false,
        };
        let listings = [
            listing(Place::Active, LISTING_INTERVAL),
            listing(Place::Incoming, LISTING_INTERVAL),
            listing(Place::Deferred, queue_run_delay),
        ];
        Self { told: VecDeque::new(), listed: VecDeque::new(), listed_is_next: false, listings }
    }

    /// A message to be loaded. If there are too many, a listing of its directory will find it again.
    pub fn add(&mut self, name: Name) {
        if self.told.len() < NAMES_MAX {
            self.told.push_back(name);
        } else {
            self.want(name.place, false);
        }
    }

    /// The same for a message that a listing has found.
    pub fn add_listed(&mut self, name: Name) {
        if self.listed.len() < NAMES_MAX {
            self.listed.push_back(name);
        } else {
            self.want(name.place, false);
        }
    }

    /// The next message to be loaded.
    pub fn next(&mut self) -> Option<Name> {
        self.listed_is_next = !self.listed_is_next;
        let [first, second] = if self.listed_is_next {
            [&mut self.told, &mut self.listed]
        } else {
            [&mut self.listed, &mut self.told]
        };
        first.pop_front().or_else(|| second.pop_front())
    }

    /// Whether there is nothing to load at once.
    pub fn is_empty(&self) -> bool {
        self.told.is_empty() && self.listed.is_empty()
    }

    /// Whether more names may come in from job lines.
    pub fn has_room(&self) -> bool {
        self.told.len() < NAMES_ENOUGH
    }

    /// Whether more names may come in from listings.
    fn has_room_for_listings(&self) -> bool {
        self.listed.len() < NAMES_ENOUGH
    }

    /// A directory is to be listed as soon as possible.
    pub fn want(&mut self, place: Place, everything: bool) {
        for listing in self.listings.iter_mut().filter(|listing| listing.place == place) {
            listing.wanted = true;
            listing.everything |= everything;
        }
    }

    /// Job lines were missed: what they told of is found by listing `active/` and `incoming/`.
    pub fn missed_lines(&mut self, now: Instant) {
        for listing in self.listings.iter_mut().filter(|listing| listing.place != Place::Deferred) {
            listing.next = listing.next.min(now + LISTING_SOON);
        }
    }

    /// A part of a listing has come; whether there was anything in it.
    pub fn has_come(&mut self, place: Place, is_last: bool, found: bool) {
        for listing in self.listings.iter_mut().filter(|listing| listing.place == place) {
            listing.asked = false;
            listing.going_on = !is_last;
            listing.found |= found;
            if is_last {
                listing.everything &= listing.wanted;
                let in_vain = !std::mem::take(&mut listing.found);
                if std::mem::replace(&mut listing.in_vain, in_vain) && in_vain {
                    listing.not_before = Instant::now() + PAUSE_AFTER_NOTHING;
                }
            }
        }
    }

    /// The configuration was read again.
    pub fn set_queue_run_delay(&mut self, delay: Duration) {
        for listing in self.listings.iter_mut().filter(|listing| listing.place == Place::Deferred) {
            listing.interval = delay;
            listing.next = listing.next.min(Instant::now() + delay);
        }
    }

    /// When the next listing is due by itself.
    pub fn next_listing(&self) -> Option<Instant> {
        // Without room nothing is asked for, however much it is wanted: what makes room wakes the master.
        let has_room = self.has_room_for_listings();
        let may_ask = |listing: &Listing| listing.wanted && !listing.asked && !listing.going_on && has_room;
        let next = |listing: &Listing| {
            if may_ask(listing) { listing.next.min(listing.not_before) } else { listing.next }
        };
        self.listings.iter().map(next).min()
    }

    /// What to ask of the pickup thread now. At most one part of each listing is under way.
    pub fn errands(&mut self, now: Instant) -> Vec<Errand> {
        let has_room = self.has_room_for_listings();
        self.listings.iter_mut().filter_map(|listing| listing.errand(now, has_room)).collect()
    }
}

impl Listing {
    fn errand(&mut self, now: Instant, has_room: bool) -> Option<Errand> {
        if self.next <= now {
            self.wanted = true;
            self.next = now + self.interval;
        }
        let may_start = self.wanted && self.not_before <= now;
        if self.asked || !has_room || !(self.going_on || may_start) {
            return None;
        }
        if !self.going_on {
            self.wanted = false;
        }
        self.asked = true;
        Some(match self.place {
            Place::Incoming => Errand::PickUp,
            place => Errand::List { place, everything: self.everything },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u64) -> Name {
        Name { id: QueueId::new(number, 0), place: Place::Active, is_new: false }
    }

    fn places(intake: &mut Intake, now: Instant) -> Vec<Place> {
        let place = |errand| match errand {
            Errand::PickUp => Place::Incoming,
            Errand::List { place, .. } => place,
            other => panic!("{other:?}"),
        };
        intake.errands(now).into_iter().map(place).collect()
    }

    #[test]
    fn everything_is_listed_at_start_and_then_from_time_to_time() {
        let now = Instant::now();
        let mut intake = Intake::new(now, Duration::from_secs(300));
        assert_eq!(places(&mut intake, now), [Place::Active, Place::Incoming, Place::Deferred]);
        assert_eq!(places(&mut intake, now), [], "one part of each is under way");
        for place in [Place::Active, Place::Incoming, Place::Deferred] {
            intake.has_come(place, true, true);
        }
        assert_eq!(places(&mut intake, now), []);
        assert_eq!(places(&mut intake, now + Duration::from_secs(61)), [Place::Active, Place::Incoming]);
    }

    #[test]
    fn a_listing_keeps_its_place_while_there_is_no_room() {
        let now = Instant::now();
        let mut intake = Intake::new(now, Duration::from_secs(300));
        intake.errands(now);
        intake.has_come(Place::Active, false, true);
        for number in 0..=NAMES_ENOUGH as u64 {
            intake.add_listed(name(number));
        }
        assert_eq!(places(&mut intake, now), []);
        assert!(intake.has_room(), "job lines are read all the same");
        while intake.next().is_some() {}
        assert_eq!(places(&mut intake, now), [Place::Active], "it goes on");
    }

    #[test]
    fn a_name_without_room_is_found_again_by_a_listing() {
        let now = Instant::now();
        let mut intake = Intake::new(now, Duration::from_secs(300));
        intake.errands(now);
        intake.has_come(Place::Active, true, true);
        for number in 0..=NAMES_MAX as u64 {
            intake.add(name(number));
        }
        while intake.next().is_some() {}
        assert_eq!(places(&mut intake, now), [Place::Active]);
    }

    #[test]
    fn missed_job_lines_are_made_up_for_once_a_second() {
        let start = Instant::now();
        let mut intake = Intake::new(start, Duration::from_secs(300));
        for place in places(&mut intake, start) {
            intake.has_come(place, true, true);
        }
        for second in [10, 11] {
            let at = start + Duration::from_secs(second);
            intake.missed_lines(at);
            intake.missed_lines(at + Duration::from_millis(900));
            assert_eq!(places(&mut intake, at), [], "not at once: the next line may be missed too");
            assert_eq!(intake.next_listing(), Some(at + LISTING_SOON));
            assert_eq!(places(&mut intake, at + LISTING_SOON), [Place::Active, Place::Incoming]);
            intake.has_come(Place::Active, true, true);
            intake.has_come(Place::Incoming, true, true);
        }
    }

    #[test]
    fn what_we_are_told_of_and_what_is_listed_take_turns() {
        let mut intake = Intake::new(Instant::now(), Duration::from_secs(300));
        (0..100).for_each(|number| intake.add_listed(name(number)));
        (100..103).for_each(|number| intake.add(name(number)));
        let order: Vec<_> = std::iter::from_fn(|| intake.next()).collect();
        assert_eq!(order[..7], [100, 0, 101, 1, 102, 2, 3].map(name));
        assert_eq!(order.len(), 103);
    }

    #[test]
    fn only_a_second_listing_in_vain_is_followed_by_a_pause() {
        let now = Instant::now();
        let mut intake = Intake::new(now, Duration::from_secs(300));
        intake.errands(now);
        for (found, goes_on) in [(false, true), (true, true), (false, true), (false, false)] {
            intake.want(Place::Incoming, false);
            intake.has_come(Place::Incoming, true, found);
            let next: &[Place] = if goes_on { &[Place::Incoming] } else { &[] };
            assert_eq!(places(&mut intake, now), next, "found: {found}");
        }
        assert_eq!(places(&mut intake, Instant::now() + PAUSE_AFTER_NOTHING), [Place::Incoming]);
    }
}
