//! After a crash: pickups that were interrupted, drafts that nobody will finish.
//!
//! - Owns: what a start does with leftovers, and how old a draft may get.
//! - Leaves to others: messages in `active/`, which are loaded like any other; reply logs (`reply_log`).
//! - Always true: a claimed file leads to exactly one message, wherever the pickup was interrupted; only
//!   drafts that were never acknowledged are removed; what is in doubt is made again from the claimed file.
//!
//! A start takes the lock, opens the FIFO, calls [`Pickup::recover`] and [`Spool::remove_orphan_logs`],
//! and only then loads `active/` and lists `incoming/`. A loaded file with no unsettled recipient is a
//! leftover: remove it.
//!
//! [`Spool::remove_orphan_logs`]: super::Spool::remove_orphan_logs

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::time::{Duration, SystemTime};

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::copy::{Refused, begins_as_queue_file};
use super::directory::Place;
use super::listing::{is_unfinished_name, system_time};
use super::pickup::{PickedUp, Pickup, Taken};
use super::queue_file::LoadError;
use super::state::State;
use crate::mail::QueueId;

/// How long a writer may take before its unfinished file counts as abandoned.
const DRAFT_AGE_MAX: Duration = Duration::from_secs(36 * 3600);
/// Drafts removed in one go.
pub const STALE_MAX: usize = 1000;

impl Pickup {
    /// Goes on with pickups that a crash has interrupted: to be called at start, before anything else moves in the
    /// queue. A claim that did not reach the disk is made again. A claimed file whose message has been worked on is
    /// unlinked, any other taken up again.
    pub fn recover(&mut self, trusted: &dyn Fn(u32) -> bool) -> io::Result<Vec<PickedUp>> {
        let mut results = self.claim_again()?;
        for (id, name) in self.claimed()? {
            match self.take_back(id) {
                Ok(()) => results.extend(self.retry(id, name, trusted)),
                Err(error) => results.push(PickedUp::Stuck { name, error }),
            }
        }
        Ok(results)
    }

    /// Claims the bare files whose envelopes are on disk, and whose claims are not.
    fn claim_again(&self) -> io::Result<Vec<PickedUp>> {
        let mut stuck = Vec::new();
        for entry in self.spool.names(Place::Tmp)? {
            let name = entry?.name;
            let Some(id) = name.to_str().and_then(|name| name.parse::<QueueId>().ok()) else { continue };
            if self.is_claimed(&name)? {
                continue;
            }
            if let Some(bare) = self.unclaimed(id)
                && let Err(error) = self.claim(Place::Incoming, &bare, id)
            {
                stuck.push(PickedUp::Stuck { name: bare, error: error.into() });
            }
        }
        Ok(stuck)
    }

    /// Goes on with pickups that stopped at a full disk, say, while this process runs. A claimed file whose message
    /// is in the queue is unlinked, any other taken up again.
    pub fn retry_claimed(&mut self, trusted: &dyn Fn(u32) -> bool) -> io::Result<Vec<PickedUp>> {
        let claimed = self.claimed()?;
        if !self.published.is_empty() {
            let claimed: HashSet<_> = claimed.iter().map(|(id, _)| *id).collect();
            self.published.retain(|id| claimed.contains(id));
        }
        Ok(claimed.into_iter().filter_map(|(id, name)| self.retry(id, name, trusted)).collect())
    }

    fn retry(&mut self, id: QueueId, name: OsString, trusted: &dyn Fn(u32) -> bool) -> Option<PickedUp> {
        let is_done = self.published.contains(&id) && matches!(self.spool.find(id), Ok(None));
        match if is_done { Ok(true) } else { self.is_queued(id) } {
            Ok(true) => self.clear_away(id, &name),
            Ok(false) => Some(match self.resume(id, trusted) {
                // Its name is not known any more, so it stays here for the next time.
                Err(Refused::Postponed(error)) if !error.is_in_doubt() => PickedUp::Postponed { name, error },
                result => self.conclude(id, &name, result),
            }),
            Err(error) => self.complain(&name).then_some(PickedUp::Stuck { name, error }),
        }
    }

    /// Removes a claimed file whose message is queued, or was. One that stays is remembered: the message may be delivered
    /// and gone when it is looked at again.
    fn clear_away(&mut self, id: QueueId, name: &OsStr) -> Option<PickedUp> {
        match self.spool.unlink(Place::Tmp, name) {
            Ok(_) => {
                self.published.remove(&id);
                None
            }
            Err(error) => {
                self.published.insert(id);
                self.complain(name).then_some(PickedUp::Leftover { id, error })
            }
        }
    }

    /// The files that are claimed: `tmp/ID.in`.
    fn claimed(&self) -> io::Result<Vec<(QueueId, OsString)>> {
        let mut claimed = Vec::new();
        for entry in self.spool.names(Place::Tmp)? {
            let name = entry?.name;
            let id = name.to_str().and_then(|name| name.strip_suffix(".in"));
            if let Some(id) = id.and_then(|id| id.parse().ok()) {
                claimed.push((id, name));
            }
        }
        Ok(claimed)
    }

    /// Takes a copy back that nobody has worked on. A power loss may have kept its name and its length, and put zeros
    /// in the place of what was not synced yet; the claimed file is whole. For a bare one the copy has the envelope,
    /// which was synced before all.
    fn take_back(&self, id: QueueId) -> io::Result<()> {
        let is_untouched = match self.spool.open_message(id, Place::Active) {
            Ok(file) => match file.states() {
                Ok(states) => states.iter().all(|state| *state == State::Pending),
                Err(error) => matches!(error, LoadError::Corrupt(_)),
            },
            Err(error) => matches!(error, LoadError::Corrupt(_)),
        };
        if is_untouched {
            let name = OsStr::new(id.as_str());
            match self.spool.rename_new(Place::Active, name, Place::Tmp, name) {
                Ok(()) => {}
                // Another copy has been begun there: of a queue file, which has its own envelope.
                Err(Errno::EXIST) => drop(self.spool.unlink(Place::Active, name)?),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether the message of a claimed file is in the queue. What is whole now may be so in memory only, so it is
    /// synced before the claimed file may go.
    fn is_queued(&self, id: QueueId) -> io::Result<bool> {
        let Some(place @ (Place::Active | Place::Deferred | Place::Hold)) = self.spool.find(id)? else {
            return Ok(false);
        };
        match self.spool.open_message(id, place) {
            Ok(file) => {
                rustix::fs::fsync(&file)?;
                self.spool.at(place).sync()?;
                Ok(true)
            }
            Err(LoadError::Gone) => Ok(false),
            Err(LoadError::Corrupt(_)) => {
                self.spool.unlink(place, id.as_str().as_ref())?;
                Ok(false)
            }
            Err(LoadError::Io(error)) => Err(error),
            // Not made by pickup: somebody has to look.
            Err(error @ (LoadError::Version(_) | LoadError::Foreign(_))) => Err(io::Error::other(error)),
        }
    }

    fn resume(&self, id: QueueId, trusted: &dyn Fn(u32) -> bool) -> Result<Taken, Refused> {
        let claimed = self.open_claimed(id)?;
        let is_queue_file =
            begins_as_queue_file(&claimed.file).map_err(|error| self.unreadable(id, error))?;
        if is_queue_file {
            return self.copy_queue_file(id, trusted);
        }
        match self.reopen_bare(id) {
            Ok(unfinished) => self.copy_bare(unfinished, trusted),
            Err(error) => {
                let reason = format!("it is no queue file, and its envelope cannot be read again: {error}");
                Err(Refused::SetAside(Place::Corrupt, Some(claimed.uid), reason))
            }
        }
    }

    /// Removes what writers have left unfinished for 36 hours, in `incoming/` and `tmp/`: at most
    /// [`STALE_MAX`] at a time, so that nobody can keep the pickup busy with them. Returns what was removed,
    /// and, once for each name, what could not be.
    pub fn remove_stale_drafts(&mut self, now: SystemTime) -> io::Result<Vec<(OsString, io::Result<()>)>> {
        let mut removed = Vec::new();
        for place in [Place::Incoming, Place::Tmp] {
            for entry in self.spool.names(place)? {
                let name = entry?.name;
                if self.is_stale(place, &name, now)? {
                    let result = self.spool.unlink(place, &name).map(drop);
                    let path = self.spool.path_of(place, &name).into_os_string();
                    if result.is_ok() || self.complain(&path) {
                        removed.push((path, result));
                    }
                    if removed.len() >= STALE_MAX {
                        return Ok(removed);
                    }
                }
            }
        }
        Ok(removed)
    }

    /// Goes by the time of the last change of status, which a user cannot set back or forward. Claimed files
    /// in `tmp/` are somebody's mail, never stale.
    fn is_stale(&self, place: Place, name: &OsStr, now: SystemTime) -> io::Result<bool> {
        let draft = match place {
            Place::Incoming => is_unfinished_name(name),
            _ => !name.to_string_lossy().ends_with(".in") && !self.is_claimed(name)?,
        };
        if !draft {
            return Ok(false);
        }
        match rustix::fs::statat(self.spool.at(place), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let changed = system_time(stat.st_ctime, 0);
                Ok(now.duration_since(changed).is_ok_and(|age| age > DRAFT_AGE_MAX))
            }
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether `tmp/NAME` is the envelope of a claimed bare message.
    fn is_claimed(&self, name: &OsStr) -> io::Result<bool> {
        let mut claimed = name.to_owned();
        claimed.push(".in");
        match rustix::fs::statat(self.spool.at(Place::Tmp), &claimed, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
