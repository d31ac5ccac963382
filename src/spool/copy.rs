//! The copy that pickup makes: from a claimed file, which its owner may still write to, to a queue file of
//! ours.
//!
//! - Owns: steps 2 to 5 of a pickup, and which parts of a dropped file count.
//! - Leaves to others: the claim, and what becomes of a file that is refused (`pickup`).
//! - Always true: a claimed file is read once, from its start to its end, no further than it was long when we
//!   looked; what was read is what is checked and what is written. Memory stays bounded whatever it holds.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::io::Errno;

use super::complete::{complete, complete_sender};
use super::directory::Place;
use super::format::{self, DroppedHead, FormatError, MAGIC};
use super::listing::is_incoming_name;
use super::pickup::{Pickup, Taken};
use super::queue_file::LoadError;
use super::received::Numbered;
use super::state::States;
use super::submit::{Draft, SubmitError, envelope_of, now};
use super::write::{Unfinished, WriteError};
use crate::mail::{BodyType, Envelope, QueueId, Recipient};

/// Octets that a dropped queue file may have besides its content: head, states and a million long recipients.
const OVERHEAD_MAX: u64 = 512 << 20;

/// The file that was claimed, open and looked at.
pub(super) struct Claimed {
    pub(super) file: File,
    pub(super) uid: u32,
}

/// Why a claimed file was not queued.
pub(super) enum Refused {
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
    /// Step 2.
    pub(super) fn open_claimed(&self, id: QueueId) -> Result<Claimed, Refused> {
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
        // A file with holes takes no room where it lies, but its copy does: it must not fill the disk for others.
        self.spool.check_free(metadata.len().saturating_add(self.limits.minfree))?;
        Ok(Claimed { file, uid })
    }

    /// Steps 2 to 5 for a queue file. What is read is parsed and written at once, so nobody can change in
    /// between what was checked.
    pub(super) fn copy_queue_file(
        &self,
        id: QueueId,
        trusted: &dyn Fn(u32) -> bool,
    ) -> Result<Taken, Refused> {
        let Claimed { file: source, uid } = self.open_claimed(id)?;
        self.spool.check_room(&self.limits)?;
        let corrupt = |error: FormatError| match error {
            FormatError::Io(error) => self.unreadable(id, error),
            FormatError::Version(_) => Refused::SetAside(Place::Hold, Some(uid), error.to_string()),
            FormatError::Bad(reason) => Refused::SetAside(Place::Corrupt, Some(uid), reason),
        };
        let length = source.metadata().map_err(|error| self.unreadable(id, error))?.len();
        // A file that grows under our hands is read no further than it was when we looked.
        let mut reader = BufReader::with_capacity(64 << 10, Read::take(&source, length));
        format::read_version(&mut reader).map_err(corrupt)?;
        let head = format::read_dropped_head(&mut reader).map_err(corrupt)?;
        States::read(&mut reader, head.recipients).map_err(corrupt)?;

        let (said_size, count) = (head.size, head.recipients);
        let (mut envelope, ignored_nexthop) = believe(head, id, uid, trusted);
        let origin = self.origin.as_deref();
        if let Some(origin) = origin {
            envelope.sender = complete_sender(envelope.sender, origin);
        }
        self.discard(id);
        let target = self.spool.create_file(Place::Tmp, id.as_str().as_ref(), 0o600);
        let target =
            target.map_err(|error| self.spool.io_failure("make", Place::Tmp, id.as_str().as_ref(), error))?;
        let written = (|| {
            let mut line = Vec::new();
            let recipients = (0..count).map(|at| {
                let recipient = format::read_recipient(&mut reader, at, &mut line)?;
                Ok(match origin {
                    Some(origin) => complete(recipient, origin),
                    None => recipient,
                })
            });
            let mut unfinished = Unfinished::begin(target, envelope, count, None, recipients)?;
            format::read_blank(&mut reader)?;
            let mut content = Counted { reader, count: 0 };
            unfinished.add_content(&mut Numbered::new(&mut content, id), &self.limits)?;
            check_size(said_size, content.count)?;
            check_unchanged(&source, length)?;
            Ok(unfinished)
        })();
        let result = self.enqueue(id, uid, written, ignored_nexthop);
        // The claimed file has everything: a part of it is no use.
        result.inspect_err(|_| self.discard(id))
    }

    /// Step 0 of a bare message: its envelope goes to disk, and with it which file it is about: after a power loss that
    /// may lie in `incoming/` still.
    pub(super) fn begin_bare(&self, bare: &OsStr, draft: Draft) -> Result<Unfinished, SubmitError> {
        let (id, bare) = (self.spool.new_id()?, self.describe_bare(bare));
        let name = OsStr::new(id.as_str());
        let (envelope, recipients) = envelope_of(draft, id)?;
        // `envelope_of` has seen that the count fits.
        let count = u32::try_from(recipients.len()).unwrap_or(u32::MAX);
        let fail = |doing, error| self.spool.io_failure(doing, Place::Tmp, name, error);
        let file = self.spool.create_file(Place::Tmp, name, 0o600).map_err(|e| fail("make", e.into()))?;
        let positioned = (0..count).zip(recipients).map(|(position, r)| Ok(Recipient { position, ..r }));
        let begun = Unfinished::begin(file, envelope, count, bare, positioned)
            .map_err(|error| self.spool.submit_error("write", Place::Tmp, name, error))
            .and_then(|unfinished| {
                let synced = unfinished.file.sync_all().and_then(|()| self.spool.at(Place::Tmp).sync());
                synced.map_err(|error| fail("write to disk", error)).map(|()| unfinished)
            });
        begun.inspect_err(|_| self.discard(id))
    }

    /// A file in `incoming/`, in words; `None` if there is none that a job line could be about.
    fn describe_bare(&self, name: &OsStr) -> Option<String> {
        let file = self.spool.fingerprint(name).filter(|_| is_incoming_name(name))?;
        Some(format!("{} {}", name.to_str()?, file.describe()))
    }

    /// The name in `incoming/` of the very file whose envelope `tmp/ID` is; `None` if it is none, or that file is not
    /// there. The head tells, which only we write: no submitter can make his draft look so.
    pub(super) fn unclaimed(&self, id: QueueId) -> Option<OsString> {
        let file = self.spool.open_file(Place::Tmp, id.as_str().as_ref(), false).ok()?;
        let mut reader = BufReader::new(&file);
        format::read_version(&mut reader).ok()?;
        let head = format::read_head(&mut reader).ok()?;
        let bare = head.bare?;
        let (name, _) = bare.split_once(' ')?;
        (self.describe_bare(name.as_ref())? == bare).then(|| name.into())
    }

    /// Opens the envelope that step 0 has written, less what there may be of content.
    pub(super) fn reopen_bare(&self, id: QueueId) -> Result<Unfinished, LoadError> {
        let file = self.spool.open_file(Place::Tmp, id.as_str().as_ref(), true).map_err(io::Error::from)?;
        let mut reader = BufReader::new(&file);
        format::read_version(&mut reader)?;
        let head = format::read_head(&mut reader)?;
        States::read(&mut reader, head.count)?;
        let mut line = Vec::new();
        for position in 0..head.count {
            format::read_recipient(&mut reader, position, &mut line)?;
        }
        format::read_blank(&mut reader)?;
        let content_at = reader.stream_position()?;
        drop(reader);
        file.set_len(content_at)?;
        (&file).seek(SeekFrom::Start(content_at))?;
        let (count, bare, head_length) = (head.count, head.bare, head.length);
        Ok(Unfinished { file, envelope: head.envelope, count, bare, head_length })
    }

    /// Steps 2 to 5 for a bare message.
    pub(super) fn copy_bare(
        &self,
        mut unfinished: Unfinished,
        trusted: &dyn Fn(u32) -> bool,
    ) -> Result<Taken, Refused> {
        let id = unfinished.envelope.id;
        let Claimed { file: source, uid } = self.open_claimed(id)?;
        if begins_as_queue_file(&source).map_err(|error| self.unreadable(id, error))? {
            return self.copy_queue_file(id, trusted);
        }
        self.spool.check_room(&self.limits)?;
        unfinished.envelope.origin = format!("uid={uid}");
        let written = (|| {
            let length = source.metadata().map_err(WriteError::Source)?.len();
            let mut content = Read::take(&source, length);
            unfinished.add_content(&mut Numbered::new(&mut content, id), &self.limits)?;
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
        let leftover = match self.spool.unlink(Place::Tmp, &claimed_name(id)) {
            Ok(_) => None,
            Err(error) => Some(self.withdraw(id, error)?),
        };
        let Envelope { sender, size, .. } = envelope;
        Ok(Taken { id, uid, sender, size, recipients: count, ignored_nexthop, leftover })
    }

    /// A message whose claimed file cannot be removed must not be delivered: with the message gone, nothing would tell
    /// the next start that the file has been dealt with, and it would be queued once more. So the message leaves `active/`
    /// again before anybody has looked: it is this thread that loads. Where that fails too, it is queued, and this is what
    /// the system said of the claimed file.
    fn withdraw(&self, id: QueueId, error: io::Error) -> Result<io::Error, Refused> {
        let name = OsStr::new(id.as_str());
        match self.spool.rename_new(Place::Active, name, Place::Tmp, name) {
            Ok(()) => Err(self.spool.io_failure("remove", Place::Tmp, &claimed_name(id), error).into()),
            Err(_) => Ok(error),
        }
    }

    /// Removes our own unfinished copy; if it cannot be removed now, its age will tell.
    pub(super) fn discard(&self, id: QueueId) {
        let _ = self.spool.unlink(Place::Tmp, id.as_str().as_ref());
    }

    pub(super) fn unreadable(&self, id: QueueId, error: io::Error) -> Refused {
        Refused::Postponed(self.spool.io_failure("read", Place::Tmp, &claimed_name(id), error))
    }
}

pub(super) fn claimed_name(id: QueueId) -> OsString {
    format!("{id}.in").into()
}

pub(super) fn begins_as_queue_file(file: &File) -> io::Result<bool> {
    let mut first = [0; MAGIC.len()];
    match file.read_exact_at(&mut first, 0) {
        Ok(()) => Ok(first == MAGIC),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The envelope that a dropped file gets: what its owner may say, and what is ours. Also the nexthop, if it
/// does not count.
fn believe(
    head: DroppedHead,
    id: QueueId,
    uid: u32,
    trusted: &dyn Fn(u32) -> bool,
) -> (Envelope, Option<String>) {
    let is_trusted = head.nexthop.is_none() || trusted(uid);
    let (nexthop, ignored) = if is_trusted { (head.nexthop, None) } else { (None, head.nexthop) };
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
    (envelope, ignored)
}

/// A dropped file may say how long its content is; our own submitters do. If it then is not, a crash has cut
/// it: it was never acknowledged, and half a message must not be delivered.
pub(super) fn check_size(said: Option<Option<u64>>, found: u64) -> Result<(), WriteError> {
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
