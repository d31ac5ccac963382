//! Listings that keep their place, what lies in `incoming/`, and what a crash has left.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::{Chunk, Found, PickupThread, is_trusted};
use crate::agent::finish;
use crate::agent::log::PICKUP;
use crate::agent::recorder::logged;
use crate::agent::report::Report;
use crate::mail::QueueId;
use crate::spool::{Draft, Entry, Names, Peek, PickedUp, Place, Taken};

/// Names in one part of a listing.
const NAMES_AT_ONCE: usize = 256;
/// Dropped files looked at in one go, before other errands get their turn.
const PICKED_UP_AT_ONCE: usize = 64;
/// Time between two searches for what writers have left unfinished.
const STALE_INTERVAL: Duration = Duration::from_secs(3600);

impl PickupThread {
    pub(super) fn recover(&mut self) {
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

    pub(super) fn remove_stale_drafts(&mut self) {
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

    pub(super) fn list(&mut self, place: Place, everything: bool) {
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
        let ids = chunk.iter().filter(|entry| is_due(entry.modified)).filter_map(Entry::id).collect();
        let is_last = rest.is_none();
        if place == Place::Active {
            self.active = rest;
        } else {
            self.deferred = rest;
        }
        self.reporter.send(Report::Listed(Chunk { place, ids, is_last }));
    }

    pub(super) fn pick_up(&mut self) {
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
    pub(super) fn take(&mut self, name: &str, draft: Option<Box<Draft>>) {
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
            // No error: another line may have been faster. But a mistyped name should leave a trace.
            log::info!(target: PICKUP, "job line for incoming/{name}: there is no such file (any more)");
        }
        let ids = log_picked_up(picked_up).into_iter().collect();
        self.reporter.send(Report::PickedUp(Found { ids, is_last: None }));
    }
}

/// Takes up to `count` entries; what is left of the listing, if anything is.
pub(super) fn take_some(mut names: Names, count: usize) -> (VecDeque<Entry>, Option<Names>) {
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
pub(super) fn log_picked_up(picked_up: PickedUp) -> Option<QueueId> {
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
