//! Pickup: from what anybody dropped into `incoming/` to a message in `active/`.
//!
//! - Owns: the claim, and what becomes of a file that was claimed.
//! - Leaves to others: the copy (`copy`), interrupted pickups (`recovery`), when to look and what to log
//!   (`agent`), whom to trust with a nexthop (`config`).
//! - Always true: a file that somebody else can still write to is read once, from its start to its end, and
//!   what was read is what is queued; a dropped file is removed only when its message is on disk in
//!   `active/`; a file that is of no use is kept in `corrupt/`, never deleted unread.
//!
//! The steps, each of which a crash may follow: (1) a rename to `tmp/ID.in` claims the file; (2) it is opened
//! and looked at; (3) it is copied to `tmp/ID`; (4) that goes to `active/` as every submission does; (5)
//! `tmp/ID.in` is unlinked, or else `active/ID` is taken back; (6) the caller hears of it. A bare message has its
//! envelope in a job line, which a crash would lose once the file is claimed: so its `tmp/ID`, complete but for the
//! content, is on disk *before* step 1, and says which file it is about. A power loss may undo the claim, which is not
//! synced; the next start makes it again.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use super::copy::{Refused, begins_as_queue_file, claimed_name};
use super::directory::{Gone, Place, Spool};
use super::listing::{is_incoming_name, is_unfinished_name};
use super::submit::{Draft, SubmitError, SubmitLimits};
use crate::mail::{QueueId, Sender};

/// Names that we remember to have complained about.
const COMPLAINTS_MAX: usize = 1000;

/// What a finished name in `incoming/` seems to be. Only the copy that is made of it decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peek {
    /// A queue file, of any version: it speaks for itself.
    QueueFile,
    /// A bare message, for which a job line must speak.
    Bare,
    /// No message at all (a directory, a link, a name that none may have …), to be taken as a queue file is:
    /// that moves it to `corrupt/`.
    Unusable,
    /// Still being written, or gone.
    Nothing,
}

/// A message that was picked up, for the log and the master.
#[derive(Debug)]
pub struct Taken {
    /// Its name from now on.
    pub id: QueueId,
    /// Who owned the file.
    pub uid: u32,
    /// Whom it says it comes from.
    pub sender: Sender,
    /// Octets of its content in wire form.
    pub size: u64,
    /// Its recipients.
    pub recipients: u32,
    /// A nexthop that did not count, because its owner is not trusted with one.
    pub ignored_nexthop: Option<String>,
    /// The copy is safe, but neither could the claimed file be removed nor the copy be taken back. Removing it is tried
    /// again by [`Pickup::retry_claimed`]; a start that finds it after the message is delivered queues it once more.
    pub leftover: Option<io::Error>,
}

/// What became of a dropped file.
#[derive(Debug)]
pub enum PickedUp {
    /// It is in `active/`.
    Queued(Taken),
    /// It was not there: somebody was faster. No error.
    Gone,
    /// It is of no use, and kept: as `corrupt/ID`, or `hold/ID` if it is a queue file of another version.
    SetAside {
        /// The name it had.
        name: OsString,
        /// The name it has.
        id: QueueId,
        /// Where.
        place: Place,
        /// Who owns it, if that could be found out.
        uid: Option<u32>,
        /// What is wrong with it, as the end of a sentence about the file.
        reason: String,
    },
    /// Nothing is wrong with it, but it cannot be queued now (disk full, say). It is where it was, or in
    /// `tmp/ID.in`, whence [`Pickup::retry_claimed`] takes it.
    Postponed {
        /// The name it has.
        name: OsString,
        /// Why.
        error: SubmitError,
    },
    /// A claimed file whose message is queued, or was, cannot be removed. Said once for each name.
    Leftover {
        /// The message.
        id: QueueId,
        /// What the system said.
        error: io::Error,
    },
    /// It cannot be moved (somebody's directory, say). Said once for each name.
    Stuck {
        /// The name it has.
        name: OsString,
        /// What the system said.
        error: io::Error,
    },
}

/// The pickup thread's view of the queue.
#[derive(Debug)]
pub struct Pickup {
    pub(super) spool: Arc<Spool>,
    pub(super) limits: SubmitLimits,
    /// For addresses without a domain; `None`: they stay so.
    pub(super) origin: Option<String>,
    complained: HashSet<OsString>,
    /// Messages that came into `active/` and left their claimed files in `tmp/`. One that is not in the queue any more
    /// was delivered, not lost. No more than there are such files.
    pub(super) published: HashSet<QueueId>,
}

impl Pickup {
    /// Makes a pickup for one thread: no other may pick up from the same queue.
    pub fn new(spool: Arc<Spool>, limits: SubmitLimits) -> Self {
        Self { spool, limits, origin: None, complained: HashSet::new(), published: HashSet::new() }
    }

    /// Takes new limits, after the configuration was read again.
    pub fn set_limits(&mut self, limits: SubmitLimits) {
        self.limits = limits;
    }

    /// Gives every address that lacks a domain this one from now on.
    pub fn complete_with(&mut self, origin: &str) {
        self.origin = Some(origin.to_owned());
    }

    /// Looks at a name in `incoming/` without moving anything.
    pub fn peek(&self, name: &OsStr) -> io::Result<Peek> {
        if is_unfinished_name(name) {
            return Ok(Peek::Nothing);
        }
        if !is_incoming_name(name) {
            return Ok(Peek::Unusable);
        }
        let file = match self.spool.open_file(Place::Incoming, name, false) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(Peek::Nothing),
            Err(Errno::LOOP | Errno::NXIO | Errno::NODEV | Errno::ACCESS | Errno::PERM) => {
                return Ok(Peek::Unusable);
            }
            Err(error) => return Err(error.into()),
        };
        if !file.metadata()?.is_file() {
            return Ok(Peek::Unusable);
        }
        Ok(if begins_as_queue_file(&file)? { Peek::QueueFile } else { Peek::Bare })
    }

    /// Picks up a queue file, or sets aside what is none. `trusted` tells whose nexthop counts.
    pub fn take_queue_file(&mut self, name: &OsStr, trusted: &dyn Fn(u32) -> bool) -> PickedUp {
        let id = match self.spool.new_id() {
            Ok(id) => id,
            Err(error) => return PickedUp::Postponed { name: name.to_owned(), error },
        };
        if let Err(error) = self.claim(Place::Incoming, name, id) {
            return self.not_claimed(name, error);
        }
        if is_incoming_name(name) {
            let result = self.copy_queue_file(id, trusted);
            self.conclude(id, name, result)
        } else {
            let reason = "its name is not 1 to 64 letters, digits, \".\", \"_\" and \"-\"";
            self.set_aside(id, name, Place::Corrupt, None, reason.into())
        }
    }

    /// Picks up a bare message, with the envelope from its job line; its owner becomes the origin. A file
    /// that turns out to be a queue file speaks for itself.
    pub fn take_bare(&mut self, name: &OsStr, draft: Draft, trusted: &dyn Fn(u32) -> bool) -> PickedUp {
        let begun =
            self.spool.check_room(&self.limits).and_then(|()| self.begin_bare(name, self.completed(draft)));
        let unfinished = match begun {
            Ok(unfinished) => unfinished,
            Err(error) => return PickedUp::Postponed { name: name.to_owned(), error },
        };
        let id = unfinished.envelope.id;
        if let Err(error) = self.claim(Place::Incoming, name, id) {
            self.discard(id);
            return self.not_claimed(name, error);
        }
        let result = self.copy_bare(unfinished, trusted);
        self.conclude(id, name, result)
    }

    /// Takes in a file in the queue that belongs to somebody else ([`super::LoadError::Foreign`]) as if it
    /// had been dropped, under the ID that it has.
    pub fn take_foreign(&mut self, id: QueueId, from: Place, trusted: &dyn Fn(u32) -> bool) -> PickedUp {
        let name = OsString::from(id.as_str());
        if let Err(error) = self.claim(from, &name, id) {
            return self.not_claimed(&name, error);
        }
        let result = self.copy_queue_file(id, trusted);
        self.conclude(id, &name, result)
    }

    fn completed(&self, draft: Draft) -> Draft {
        match &self.origin {
            Some(origin) => draft.completed(origin),
            None => draft,
        }
    }

    /// Step 1. A name that leads elsewhere is refused: names may come from job lines.
    pub(super) fn claim(&self, from: Place, name: &OsStr, id: QueueId) -> Result<(), Errno> {
        let bytes = name.as_encoded_bytes();
        if bytes.contains(&b'/') || matches!(bytes, b"" | b"." | b"..") {
            return Err(Errno::INVAL);
        }
        self.spool.rename_new(from, name, Place::Tmp, &claimed_name(id))
    }

    fn not_claimed(&mut self, name: &OsStr, error: Errno) -> PickedUp {
        if error != Errno::NOENT && self.complain(name) {
            let error = self.spool.explained(Place::Tmp, error);
            return PickedUp::Stuck { name: name.to_owned(), error };
        }
        PickedUp::Gone
    }

    /// Forgets what was complained about: to be called now and then.
    pub fn forget_complaints(&mut self) {
        self.complained.clear();
    }

    /// Directories of the queue that somebody has removed while they are open here; once each. What is dropped into one
    /// that was made in the place of `incoming/` is not seen.
    pub fn lost_directories(&mut self) -> Vec<Gone> {
        let mut gone: Vec<_> = Place::ALL.into_iter().filter(|&place| self.spool.is_gone(place)).collect();
        // No name of a file has a slash in it.
        gone.retain(|place| self.complain(format!("{place}/").as_ref()));
        gone.into_iter().map(Gone).collect()
    }

    /// Whether a complaint about this name is new.
    pub fn complain(&mut self, name: &OsStr) -> bool {
        // Who makes thousands of such names has said enough with the first.
        self.complained.len() < COMPLAINTS_MAX && self.complained.insert(name.to_owned())
    }

    /// What a finished or failed copy means for the dropped file.
    pub(super) fn conclude(&mut self, id: QueueId, name: &OsStr, result: Result<Taken, Refused>) -> PickedUp {
        match result {
            Ok(taken) => {
                if taken.leftover.is_some() {
                    self.published.insert(id);
                }
                PickedUp::Queued(taken)
            }
            Err(Refused::SetAside(place, uid, reason)) => {
                let result = self.set_aside(id, name, place, uid, reason);
                self.discard(id);
                result
            }
            Err(Refused::Postponed(error)) if error.is_in_doubt() => {
                self.published.insert(id);
                PickedUp::Postponed { name: claimed_name(id), error }
            }
            Err(Refused::Postponed(error)) => {
                self.put_back(id, name);
                PickedUp::Postponed { name: name.to_owned(), error }
            }
        }
    }

    /// Gives a file its name back, for another try; where that is taken or cannot be, the file stays claimed,
    /// and the envelope of a bare one with it.
    fn put_back(&self, id: QueueId, name: &OsStr) {
        if self.spool.rename_new(Place::Tmp, &claimed_name(id), Place::Incoming, name).is_ok() {
            self.discard(id);
        }
    }

    fn set_aside(
        &mut self,
        id: QueueId,
        name: &OsStr,
        place: Place,
        uid: Option<u32>,
        reason: String,
    ) -> PickedUp {
        match self.spool.rename_new(Place::Tmp, &claimed_name(id), place, id.as_str().as_ref()) {
            Ok(()) => PickedUp::SetAside { name: name.to_owned(), id, place, uid, reason },
            Err(error) if self.complain(&claimed_name(id)) => {
                PickedUp::Stuck { name: claimed_name(id), error: self.spool.explained(place, error) }
            }
            Err(_) => PickedUp::Gone,
        }
    }
}
