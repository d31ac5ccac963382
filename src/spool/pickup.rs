//! Pickup: from what anybody dropped into `incoming/` to a message in `active/`.
//!
//! - Owns: the claim, the copy, what a user may say about a message and what not, and how an interrupted pickup
//!   goes on.
//! - Leaves to others: when to look (`agent`), whom to trust with a nexthop (`config`), log lines (`agent`).
//! - Always true: a file that somebody else can still write to is read once, from its start to its end, and what
//!   was read is what is queued; a dropped file is removed only when its message is on disk in `active/`; a file
//!   that is of no use is kept in `corrupt/`, never deleted unread.
//!
//! The steps, each of which a crash may follow: (1) a rename to `tmp/ID.in` claims the file; (2) it is opened and
//! looked at; (3) it is copied to `tmp/ID`; (4) that goes to `active/` as every submission does; (5) `tmp/ID.in` is
//! unlinked; (6) the caller hears of it. A bare message has its envelope in a job line, which a crash would lose
//! once the file is claimed: so its `tmp/ID`, complete but for the content, is on disk *before* step 1.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::directory::{Place, Spool};
use super::format::{self, MAGIC};
use super::listing::{is_incoming_name, is_unfinished_name, system_time};
use super::queue_file::LoadError;
use super::submit::{Draft, SubmitError, SubmitLimits, Unfinished, WriteError, envelope_of, now};
use crate::mail::{BodyType, Envelope, QueueId, Sender};

/// How long a writer may take before its unfinished file counts as abandoned.
const DRAFT_AGE_MAX: Duration = Duration::from_secs(36 * 3600);
/// Names that we remember to have complained about.
const COMPLAINTS_MAX: usize = 1000;
/// Octets that a dropped queue file may have besides its content: head, states and a million long recipients.
const OVERHEAD_MAX: u64 = 512 << 20;

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
#[derive(Clone, Debug, PartialEq)]
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
    /// The copy is safe, but the dropped file could not be removed: the next start will.
    pub leftover: Option<String>,
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
    /// `tmp/ID.in`, whence [`Pickup::recover_tmp`] takes it.
    Postponed {
        /// The name it had.
        name: OsString,
        /// Why.
        error: SubmitError,
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
    spool: Arc<Spool>,
    limits: SubmitLimits,
    complained: HashSet<OsString>,
}

/// The file that was claimed, open and looked at.
struct Claimed {
    file: File,
    uid: u32,
}

/// Why a claimed file was not queued.
enum Refused {
    /// The file is at fault: where it goes, and why.
    SetAside(Place, Option<u32>, String),
    /// We are.
    Postponed(SubmitError),
}

impl From<SubmitError> for Refused {
    fn from(error: SubmitError) -> Self {
        Self::Postponed(error)
    }
}

impl Pickup {
    /// Makes a pickup for one thread: no other may pick up from the same queue.
    pub fn new(spool: Arc<Spool>, limits: SubmitLimits) -> Self {
        Self { spool, limits, complained: HashSet::new() }
    }

    /// Takes new limits, after the configuration was read again.
    pub fn set_limits(&mut self, limits: SubmitLimits) {
        self.limits = limits;
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

    /// Picks up a bare message, with the envelope from its job line; its owner becomes the origin. A file that
    /// turns out to be a queue file speaks for itself.
    pub fn take_bare(&mut self, name: &OsStr, draft: Draft, trusted: &dyn Fn(u32) -> bool) -> PickedUp {
        let begun = self.spool.check_room(&self.limits).and_then(|()| self.begin_bare(draft));
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

    /// Takes in a file in the queue that belongs to somebody else ([`LoadError::Foreign`]) as if it had been
    /// dropped, under the ID that it has.
    pub fn take_foreign(&mut self, id: QueueId, from: Place, trusted: &dyn Fn(u32) -> bool) -> PickedUp {
        let name = OsString::from(id.as_str());
        if let Err(error) = self.claim(from, &name, id) {
            return self.not_claimed(&name, error);
        }
        let result = self.copy_queue_file(id, trusted);
        self.conclude(id, &name, result)
    }

    /// Goes on with pickups that a crash (or a full disk) has interrupted: to be called at start, before anything
    /// else moves in the queue. A claimed file whose message is in the queue is unlinked, any other taken up again.
    pub fn recover_tmp(&mut self, trusted: &dyn Fn(u32) -> bool) -> io::Result<Vec<PickedUp>> {
        let mut results = Vec::new();
        for entry in self.spool.names(Place::Tmp)? {
            let name = entry?.name;
            let id = name.to_str().and_then(|name| name.strip_suffix(".in"));
            let Some(id) = id.and_then(|id| id.parse::<QueueId>().ok()) else { continue };
            if matches!(self.spool.find(id)?, Some(Place::Active | Place::Deferred | Place::Hold)) {
                self.spool.unlink(Place::Tmp, &name)?;
                continue;
            }
            let result = self.resume(id, trusted);
            results.push(match result {
                Err(Refused::Postponed(error)) => PickedUp::Postponed { name, error },
                result => self.conclude(id, &name, result),
            });
        }
        Ok(results)
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

    /// Removes what writers have left unfinished for 36 hours, in `incoming/` and `tmp/`. Returns what was removed,
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
                }
            }
        }
        Ok(removed)
    }

    /// Goes by the time of the last change of status, which a user cannot set back or forward. Claimed files in
    /// `tmp/` are somebody's mail, never stale.
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

    /// Step 1. A name that leads elsewhere is refused: names may come from job lines.
    fn claim(&self, from: Place, name: &OsStr, id: QueueId) -> Result<(), Errno> {
        let bytes = name.as_encoded_bytes();
        if bytes.contains(&b'/') || matches!(bytes, b"" | b"." | b"..") {
            return Err(Errno::INVAL);
        }
        self.spool.rename_new(from, name, Place::Tmp, &claimed_name(id))
    }

    fn not_claimed(&mut self, name: &OsStr, error: Errno) -> PickedUp {
        if error != Errno::NOENT && self.complain(name) {
            return PickedUp::Stuck { name: name.to_owned(), error: error.into() };
        }
        PickedUp::Gone
    }

    /// Whether a complaint about this name is new.
    fn complain(&mut self, name: &OsStr) -> bool {
        if self.complained.len() >= COMPLAINTS_MAX {
            self.complained.clear();
        }
        self.complained.insert(name.to_owned())
    }

    /// Step 2.
    fn open_claimed(&self, id: QueueId) -> Result<Claimed, Refused> {
        let refuse = |uid, reason: &str| Refused::SetAside(Place::Corrupt, uid, reason.to_owned());
        let file = match self.spool.open_file(Place::Tmp, &claimed_name(id), false) {
            Ok(file) => file,
            Err(Errno::LOOP | Errno::NXIO | Errno::NODEV) => {
                return Err(refuse(None, "it is a link, a socket or a device, not a regular file"));
            }
            Err(Errno::ACCESS | Errno::PERM) => {
                return Err(refuse(None, "the agent may not read it (mode 0640 would let it)"));
            }
            Err(error) => return Err(self.unreadable(id, error.into())),
        };
        let metadata = file.metadata().map_err(|error| self.unreadable(id, error))?;
        let uid = metadata.uid();
        if !metadata.is_file() {
            return Err(refuse(Some(uid), "it is not a regular file"));
        }
        if metadata.nlink() != 1 {
            return Err(refuse(Some(uid), "it has more than one name, so it may be somebody else's file"));
        }
        let limit = self.limits.message_size_limit;
        if limit > 0 && metadata.len() > limit.saturating_add(OVERHEAD_MAX) {
            return Err(refuse(Some(uid), "it is larger than message_size_limit"));
        }
        Ok(Claimed { file, uid })
    }

    /// Steps 2 to 5 for a queue file. What is read is parsed and written at once, so nobody can change in between
    /// what was checked.
    fn copy_queue_file(&self, id: QueueId, trusted: &dyn Fn(u32) -> bool) -> Result<Taken, Refused> {
        let Claimed { file: source, uid } = self.open_claimed(id)?;
        self.spool.check_room(&self.limits)?;
        let corrupt = |error: format::FormatError| match error {
            format::FormatError::Io(error) => self.unreadable(id, error),
            format::FormatError::Version(_) => Refused::SetAside(Place::Hold, Some(uid), error.to_string()),
            format::FormatError::Bad(reason) => Refused::SetAside(Place::Corrupt, Some(uid), reason),
        };
        let length = source.metadata().map_err(|error| self.unreadable(id, error))?.len();
        // A file that grows under our hands is read no further than it was when we looked.
        let mut reader = BufReader::with_capacity(64 << 10, Read::take(&source, length));
        format::read_version(&mut reader).map_err(corrupt)?;
        let head = format::read_dropped_head(&mut reader).map_err(corrupt)?;
        format::States::read(&mut reader, head.recipients).map_err(corrupt)?;

        let is_trusted = head.nexthop.is_none() || trusted(uid);
        let (nexthop, ignored_nexthop) = if is_trusted { (head.nexthop, None) } else { (None, head.nexthop) };
        let envelope = Envelope {
            id,
            sender: head.sender,
            arrival: now(),
            nexthop,
            body: BodyType::SevenBit,
            smtputf8: head.smtputf8,
            envid: head.envid,
            ret: head.ret,
            origin: format!("uid={uid}"),
            size: 0,
        };
        self.discard(id);
        let target = self.spool.create_file(Place::Tmp, id.as_str().as_ref(), 0o600);
        let target =
            target.map_err(|error| self.spool.io_failure("make", Place::Tmp, id.as_str().as_ref(), error))?;
        let written = (|| {
            let mut line = Vec::new();
            let recipients =
                (0..head.recipients).map(|at| format::read_recipient(&mut reader, at, &mut line));
            let mut unfinished = Unfinished::begin(target, envelope, head.recipients, recipients)?;
            format::read_blank(&mut reader)?;
            let mut content = Counted { reader, count: 0 };
            unfinished.add_content(&mut content, &self.limits)?;
            check_size(head.size, content.count)?;
            check_unchanged(&source, length)?;
            Ok(unfinished)
        })();
        let result = self.enqueue(id, uid, written, ignored_nexthop);
        // The claimed file has everything: a part of it is no use.
        result.inspect_err(|_| self.discard(id))
    }

    /// Step 0 of a bare message: its envelope goes to disk.
    fn begin_bare(&self, draft: Draft) -> Result<Unfinished, SubmitError> {
        let id = self.spool.new_id()?;
        let name = OsStr::new(id.as_str());
        let (envelope, recipients) = envelope_of(draft, id)?;
        // `envelope_of` has seen that the count fits.
        let count = u32::try_from(recipients.len()).unwrap_or(u32::MAX);
        let fail = |doing, error| self.spool.io_failure(doing, Place::Tmp, name, error);
        let file = self.spool.create_file(Place::Tmp, name, 0o600).map_err(|e| fail("make", e.into()))?;
        let positioned =
            (0..count).zip(recipients).map(|(position, r)| Ok(crate::mail::Recipient { position, ..r }));
        let begun = Unfinished::begin(file, envelope, count, positioned)
            .map_err(|error| self.spool.submit_error("write", Place::Tmp, name, error))
            .and_then(|unfinished| {
                let synced = unfinished.file.sync_all().and_then(|()| self.spool.at(Place::Tmp).sync());
                synced.map_err(|error| fail("write to disk", error)).map(|()| unfinished)
            });
        begun.inspect_err(|_| self.discard(id))
    }

    /// Opens the envelope that step 0 has written, less what there may be of content.
    fn reopen_bare(&self, id: QueueId) -> Result<Unfinished, LoadError> {
        let file = self.spool.open_file(Place::Tmp, id.as_str().as_ref(), true).map_err(io::Error::from)?;
        let mut reader = BufReader::new(&file);
        format::read_version(&mut reader)?;
        let head = format::read_head(&mut reader)?;
        format::States::read(&mut reader, head.count)?;
        let mut line = Vec::new();
        for position in 0..head.count {
            format::read_recipient(&mut reader, position, &mut line)?;
        }
        format::read_blank(&mut reader)?;
        let content_at = reader.stream_position()?;
        drop(reader);
        file.set_len(content_at)?;
        (&file).seek(SeekFrom::Start(content_at))?;
        Ok(Unfinished { file, envelope: head.envelope, count: head.count, head_length: head.length })
    }

    /// Steps 2 to 5 for a bare message.
    fn copy_bare(&self, mut unfinished: Unfinished, trusted: &dyn Fn(u32) -> bool) -> Result<Taken, Refused> {
        let id = unfinished.envelope.id;
        let Claimed { file: source, uid } = self.open_claimed(id)?;
        if begins_as_queue_file(&source).map_err(|error| self.unreadable(id, error))? {
            return self.copy_queue_file(id, trusted);
        }
        unfinished.envelope.origin = format!("uid={uid}");
        let written = (|| {
            let length = source.metadata().map_err(WriteError::Source)?.len();
            unfinished.add_content(&mut Read::take(&source, length), &self.limits)?;
            check_unchanged(&source, length)?;
            Ok(unfinished)
        })();
        self.enqueue(id, uid, written, None)
    }

    /// Steps 4 and 5.
    fn enqueue(
        &self,
        id: QueueId,
        uid: u32,
        written: Result<Unfinished, WriteError>,
        ignored_nexthop: Option<String>,
    ) -> Result<Taken, Refused> {
        let name = OsStr::new(id.as_str());
        let Unfinished { file, envelope, count, .. } = match written {
            Ok(unfinished) => unfinished,
            Err(WriteError::Rejected(reason)) => {
                return Err(Refused::SetAside(Place::Corrupt, Some(uid), reason));
            }
            Err(WriteError::TooLarge(_)) => {
                let reason = "it is larger than message_size_limit".to_owned();
                return Err(Refused::SetAside(Place::Corrupt, Some(uid), reason));
            }
            Err(error) => return Err(self.spool.submit_error("write", Place::Tmp, name, error).into()),
        };
        self.spool.publish(&file, (Place::Tmp, name), (Place::Active, name))?;
        let leftover = self.spool.unlink(Place::Tmp, &claimed_name(id)).err().map(|error| error.to_string());
        let Envelope { sender, size, .. } = envelope;
        Ok(Taken { id, uid, sender, size, recipients: count, ignored_nexthop, leftover })
    }

    /// What a finished or failed copy means for the dropped file.
    fn conclude(&mut self, id: QueueId, name: &OsStr, result: Result<Taken, Refused>) -> PickedUp {
        match result {
            Ok(taken) => PickedUp::Queued(taken),
            Err(Refused::SetAside(place, uid, reason)) => {
                let result = self.set_aside(id, name, place, uid, reason);
                self.discard(id);
                result
            }
            Err(Refused::Postponed(error)) => {
                self.put_back(id, name);
                PickedUp::Postponed { name: name.to_owned(), error }
            }
        }
    }

    /// Gives a file its name back, for another try; where that is taken or cannot be, the file stays claimed, and
    /// the envelope of a bare one with it.
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
            Err(error) => PickedUp::Stuck { name: claimed_name(id), error: error.into() },
        }
    }

    /// Removes our own unfinished copy; if it cannot be removed now, its age will tell.
    fn discard(&self, id: QueueId) {
        let _ = self.spool.unlink(Place::Tmp, id.as_str().as_ref());
    }

    fn unreadable(&self, id: QueueId, error: io::Error) -> Refused {
        Refused::Postponed(self.spool.io_failure("read", Place::Tmp, &claimed_name(id), error))
    }
}

fn claimed_name(id: QueueId) -> OsString {
    format!("{id}.in").into()
}

fn begins_as_queue_file(file: &File) -> io::Result<bool> {
    let mut first = [0; MAGIC.len()];
    match file.read_exact_at(&mut first, 0) {
        Ok(()) => Ok(first == MAGIC),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// A dropped file may say how long its content is; our own submitters do. If it then is not, a crash has cut it:
/// it was never acknowledged, and half a message must not be delivered.
fn check_size(said: Option<Option<u64>>, found: u64) -> Result<(), WriteError> {
    match said {
        Some(None) => Err(WriteError::Rejected("it was never finished: its size is missing".into())),
        Some(Some(said)) if said != found => Err(WriteError::Rejected(format!(
            "its head says that the content has {said} octets, but it has {found}"
        ))),
        _ => Ok(()),
    }
}

/// A finished file does not change; one that does has a writer that took the final name too early.
fn check_unchanged(file: &File, length: u64) -> Result<(), WriteError> {
    if file.metadata().map_err(WriteError::Source)?.len() == length {
        return Ok(());
    }
    Err(WriteError::Rejected("somebody wrote to it under its final name".into()))
}

/// Counts what is read.
struct Counted<R> {
    reader: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.count += length as u64;
        Ok(length)
    }
}
