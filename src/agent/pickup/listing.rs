//! Listings that keep their place, what lies in `incoming/`, and what a crash has left.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;

use super::{Chunk, Found, PickupThread, is_trusted};
use crate::agent::finish;
use crate::agent::log::PICKUP;
use crate::agent::recorder::logged;
use crate::agent::report::Report;
use crate::mail::QueueId;
use crate::queue::job::IncomingName;
use crate::spool::{Draft, Entry, Fingerprint, Names, Peek, PickedUp, Place, Taken};

/// Names in one part of a listing.
const NAMES_AT_ONCE: usize = 256;
/// Dropped files taken in one go.
const PICKED_UP_AT_ONCE: usize = 64;
/// The same where other errands wait: each file costs a sync, so that a full part would hold up a job line's mail for
/// longer than most deliveries take.
const PICKED_UP_MEANWHILE: usize = 8;
/// Names looked at in one go, where most are not to be taken.
const LOOKED_AT_ONCE: usize = 1024;
/// Time between two tries of what could not be queued.
const POSTPONED_INTERVAL: Duration = Duration::from_secs(55);
/// Time between two searches for what writers have left unfinished.
const STALE_INTERVAL: Duration = Duration::from_secs(3600);

impl PickupThread {
    pub(super) fn recover(&mut self) {
        let config = Arc::clone(&self.config);
        let recovered = self.pickup.recover(&|uid| is_trusted(&config, uid));
        self.recovered(recovered);
        match self.spool.remove_orphan_logs() {
            Ok(ids) => ids.iter().for_each(|id| log::debug!("deferred/{id}.log had no message: removed")),
            Err(error) => log::error!("deferred/ cannot be searched for logs without a message: {error}"),
        }
    }

    /// Says what was taken up again of what had been claimed and not queued, because of a crash or for want of room.
    fn recovered(&mut self, recovered: io::Result<Vec<PickedUp>>) {
        match recovered {
            Ok(found) => {
                let ids = found.into_iter().filter_map(|picked_up| self.log(picked_up)).collect();
                self.reporter.send(Report::Queued(ids));
            }
            Err(error) => {
                log::error!("tmp/ cannot be searched for interrupted pickups: {error}; they are kept");
            }
        }
    }

    /// At the start of a listing, a minute after the last one or later.
    fn try_postponed(&mut self) {
        if self.postponed_tried.elapsed() < POSTPONED_INTERVAL {
            return;
        }
        self.postponed_tried = Instant::now();
        let config = Arc::clone(&self.config);
        let retried = self.pickup.retry_claimed(&|uid| is_trusted(&config, uid));
        self.recovered(retried);
        let mut ids = Vec::new();
        for (name, file, draft) in self.postponed.due() {
            if self.spool.fingerprint(name.as_str().as_ref()) == Some(file) {
                ids.extend(self.take_named(&name, Some(draft)));
            } else {
                log::info!(target: PICKUP, "incoming/{name} waited for room, and is another file (or none) now");
            }
        }
        self.reporter.send(Report::Queued(ids));
    }

    pub(super) fn remove_stale_drafts(&mut self) {
        let now = SystemTime::now();
        if now.duration_since(self.stale_looked_for).is_ok_and(|since| since < STALE_INTERVAL) {
            return;
        }
        self.stale_looked_for = now;
        self.pickup.forget_complaints();
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

    pub(super) fn pick_up(&mut self, others_wait: &dyn Fn() -> bool) {
        if self.incoming.is_none() {
            self.try_postponed();
            self.remove_stale_drafts();
            self.pickup.lost_directories().iter().for_each(|gone| log::error!("{gone}"));
        }
        let names = match self.incoming.take().map_or_else(|| self.spool.names(Place::Incoming), Ok) {
            Ok(names) => names,
            Err(error) => {
                log::error!("incoming/ cannot be listed: {error}; tried again in a minute");
                return self.reporter.send(Report::PickedUp(Found { ids: Vec::new(), is_last: Some(true) }));
            }
        };
        let (ids, rest) = self.pick_up_some(names, others_wait);
        // Another round, from the start, goes on as the same listing.
        let is_last = rest.is_none() && !self.turns.end_round();
        self.incoming = rest;
        self.reporter.send(Report::PickedUp(Found { ids, is_last: Some(is_last) }));
    }

    /// Takes files until it is the turn of other errands; what is left of the listing, if anything is.
    fn pick_up_some(
        &mut self,
        mut names: Names,
        others_wait: &dyn Fn() -> bool,
    ) -> (Vec<QueueId>, Option<Names>) {
        let (mut ids, mut taken, mut looked_at) = (Vec::new(), 0, 0);
        loop {
            let (piece, rest) = take_some(names, PICKED_UP_MEANWHILE);
            looked_at += piece.len();
            for entry in piece {
                // Gone since; or it is not its turn, which is found out without opening it.
                let owner = self.spool.owner_of(&entry.name);
                let Some(uid) = owner.filter(|&uid| self.turns.may_take(uid)) else { continue };
                let Some(picked_up) = self.pick_up_one(uid, &entry.name) else { continue };
                if !matches!(picked_up, PickedUp::Gone | PickedUp::Stuck { .. }) {
                    self.turns.took(uid);
                    taken += 1;
                }
                ids.extend(self.log(picked_up));
            }
            let is_enough = taken >= PICKED_UP_AT_ONCE || taken >= PICKED_UP_MEANWHILE && others_wait();
            match rest {
                Some(rest) if looked_at < LOOKED_AT_ONCE && !is_enough => names = rest,
                rest => return (ids, rest),
            }
        }
    }

    /// `None` if the file is to stay as it is.
    fn pick_up_one(&mut self, uid: u32, name: &OsStr) -> Option<PickedUp> {
        if !self.postponed.may_try(Some(uid), name) {
            return None;
        }
        match self.pickup.peek(name) {
            // A bare message waits for its job line.
            Ok(Peek::Bare | Peek::Nothing) => None,
            Ok(Peek::QueueFile | Peek::Unusable) => {
                let config = Arc::clone(&self.config);
                Some(self.pickup.take_queue_file(name, &|uid| is_trusted(&config, uid)))
            }
            Err(error) => {
                if self.pickup.complain(name) {
                    log::error!("incoming/{} cannot be read: {error}; it stays", name.display());
                }
                None
            }
        }
    }

    /// Takes a file that a job line names.
    pub(super) fn take(&mut self, name: &IncomingName, draft: Option<Box<Draft>>) {
        let ids = self.take_named(name, draft).into_iter().collect();
        self.reporter.send(Report::PickedUp(Found { ids, is_last: None }));
    }

    /// Where the job line is of no use the file stays, for `queue list` to show.
    fn take_named(&mut self, name: &IncomingName, draft: Option<Box<Draft>>) -> Option<QueueId> {
        let config = Arc::clone(&self.config);
        let trusted = |uid| is_trusted(&config, uid);
        let file = name.as_str().as_ref();
        if let Some(nexthop) = draft.as_ref().and_then(|draft| draft.nexthop.as_ref())
            && let Err(error) = config.destination(nexthop)
        {
            let what = format!("job line for incoming/{name} skipped: nexthop \"{nexthop}\"");
            log::error!(target: PICKUP, "{what}: {error}; the file stays");
            return None;
        }
        let fingerprint = self.spool.fingerprint(file);
        let picked_up = match &draft {
            Some(draft) => self.pickup.take_bare(file, (**draft).clone(), &trusted),
            None if matches!(self.pickup.peek(file), Ok(Peek::Bare)) => {
                let lacks = "is no queue file, and its job line names no sender and recipients";
                log::warn!(target: PICKUP, "incoming/{name} {lacks}; it stays");
                return None;
            }
            None => self.pickup.take_queue_file(file, &trusted),
        };
        match (&picked_up, draft) {
            (PickedUp::Postponed { .. }, Some(draft)) => self.postpone(name, fingerprint, draft),
            (PickedUp::Postponed { .. }, None) => {}
            // No error: another line may have been faster. But a mistyped name should leave a trace.
            (PickedUp::Gone, _) => {
                log::info!(target: PICKUP, "job line for incoming/{name}: there is no such file (any more)");
            }
            _ => self.postponed.forget(name),
        }
        self.log(picked_up)
    }

    /// No listing brings the envelope of a bare message back. Where the file has not got its name back, because
    /// somebody else took the name while it was claimed, say, the envelope is beside it in `tmp/`: it is not for what
    /// has the name now. `file` is what had it before.
    fn postpone(&mut self, name: &IncomingName, file: Option<Fingerprint>, draft: Box<Draft>) {
        let present = self.spool.fingerprint(name.as_str().as_ref());
        let Some(file) = file.filter(|file| present == Some(*file)) else { return };
        let owner = self.spool.owner_of(name.as_str().as_ref());
        let is_news = self.postponed.may_try(owner, name.as_str().as_ref());
        if !self.postponed.keep(name, file, draft) && is_news {
            log::error!(target: PICKUP, "incoming/{name} stays: too many wait; its job line must be written again");
        }
    }

    /// Says in the log what became of a dropped file; returns its ID if it is queued.
    pub(super) fn log(&mut self, picked_up: PickedUp) -> Option<QueueId> {
        let is_news = match &picked_up {
            PickedUp::Postponed { name, error } => {
                self.tell_of_shortage(&error.to_string());
                self.postponed.add(self.spool.owner_of(name), name)
            }
            _ => true,
        };
        if is_news { log_picked_up(picked_up) } else { None }
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
fn log_picked_up(picked_up: PickedUp) -> Option<QueueId> {
    match picked_up {
        PickedUp::Queued(taken) => {
            let Taken { id, uid, sender, ignored_nexthop, leftover, .. } = taken;
            log::info!(target: PICKUP, "{id}: uid={uid} {}", logged(&sender));
            if let Some(nexthop) = ignored_nexthop {
                log::warn!(target: PICKUP, "{id}: uid {uid} may not choose the nexthop \"{nexthop}\": the routes decide");
            }
            if let Some(error) = leftover {
                log_leftover(id, &error);
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
            let (place, name) = (place_of(&name), name.display());
            log::error!(
                target: PICKUP,
                "{place}/{name} cannot be queued now: {error}; it is kept and tried again in a minute"
            );
        }
        PickedUp::Leftover { id, error } => log_leftover(id, &error),
        PickedUp::Stuck { name, error } => {
            let (place, name) = (place_of(&name), name.display());
            log::error!(target: PICKUP, "{place}/{name} cannot be moved: {error}; it stays");
        }
    }
    None
}

fn log_leftover(id: QueueId, error: &io::Error) {
    log::error!(
        target: PICKUP,
        "{id}: tmp/{id}.in, which it was made from, cannot be removed: {error}; that is tried again every minute, but if \
         the agent is restarted before it is gone, the message may be delivered twice"
    );
}

/// Where a name is: claimed files are in `tmp/`, under a name of ours.
fn place_of(name: &OsStr) -> &'static str {
    let is_claimed = name
        .to_str()
        .and_then(|name| name.strip_suffix(".in"))
        .is_some_and(|id| id.parse::<QueueId>().is_ok());
    if is_claimed { "tmp" } else { "incoming" }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crossbeam_channel::unbounded;

    use super::*;
    use crate::agent::doorbell::doorbell;
    use crate::agent::report::Reporter;
    use crate::config::{Config, Sources};
    use crate::spool::Spool;

    #[test]
    fn an_envelope_is_not_kept_for_a_file_that_took_the_name_meanwhile() {
        let directory = tempfile::tempdir().unwrap();
        let (spool, _lock) = Spool::prepare(&directory.path().join("queue"), None).unwrap();
        let config = Config::load(&Sources::default()).unwrap();
        let (bell, _chime) = doorbell().unwrap();
        let reporter = Reporter::new(unbounded().0, bell);
        let spool = Arc::new(spool);
        let (sweeper, _) = crate::agent::sweeper::Sweeper::start(Arc::clone(&spool)).unwrap();
        let mut thread = PickupThread::new(spool, sweeper, Arc::new(config), reporter);
        let (name, path) = (IncomingName::new("m").unwrap(), directory.path().join("queue/incoming/m"));
        fs::write(&path, "theirs").unwrap();
        let theirs = thread.spool.fingerprint("m".as_ref());
        // It stays claimed, under another name.
        fs::rename(&path, directory.path().join("queue/tmp/X.in")).unwrap();
        thread.postpone(&name, theirs, Box::default());
        fs::write(&path, "other!").unwrap();
        thread.postpone(&name, theirs, Box::default());
        assert_eq!(thread.postponed.names_of_drafts().count(), 0);
        let present = thread.spool.fingerprint("m".as_ref());
        thread.postpone(&name, present, Box::default());
        assert_eq!(thread.postponed.names_of_drafts().count(), 1);
    }
}
