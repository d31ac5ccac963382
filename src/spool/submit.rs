//! Submission: how a message comes onto the disk, in an order that a crash at any instruction survives.
//!
//! - Owns: the order of writes. The file is written under an unfinished name, its head last; renamed to its
//!   final name; then synced, and only then acknowledged.
//! - Leaves to others: who may submit what (`cli`, `agent`, `pickup`), headers (`cli`).
//! - Always true: a final name stands only for a file that was written to its end; the head, which carries
//!   the content's size, is the last write, so a file that a power loss has cut fails its own measure; after
//!   an error nothing half-queued stays, or the error says that nobody knows.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use rustix::io::Errno;
use rustix::rand::GetRandomFlags;

use super::directory::{Place, Spool};
use super::format::{self, RECIPIENTS_MAX};
use super::received::Numbered;
use super::write::{Unfinished, WriteError};
use crate::mail::{BodyType, Envelope, QueueId, Recipient, Return, Sender};

/// Names tried before we believe that something else is wrong.
const NAMES_TRIED: usize = 3;

/// A message that is to be queued. ID, arrival, body type and size are not the submitter's to say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draft {
    /// Whom it comes from.
    pub sender: Sender,
    /// To whom; their positions are set by their order here.
    pub recipients: Vec<Recipient>,
    /// Where it goes; `None`: routes decide. In a dropped file it counts only for trusted users.
    pub nexthop: Option<String>,
    /// The submitter's own name for it (RFC 3461), decoded.
    pub envid: Option<String>,
    /// What a bounce returns.
    pub ret: Option<Return>,
    /// Whether it is an internationalised message.
    pub smtputf8: bool,
    /// Who submits it: `uid=1000`, or the part of the program that wrote it.
    pub origin: String,
}

/// What a submission must stay within.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubmitLimits {
    /// Octets of the content in wire form; 0: no limit.
    pub message_size_limit: u64,
    /// Octets that must be free before a message is accepted.
    pub minfree: u64,
}

/// Why a message was not queued. Each is one sentence, and nothing of the message is left in the queue, but for
/// [`SubmitError::InDoubt`].
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// Too little room on the file system.
    #[error(
        "the message was not queued: {} has {free} octets free, less than the {wanted} that must stay free",
        path.display()
    )]
    NoRoom {
        /// The queue.
        path: PathBuf,
        /// Octets that are free.
        free: u64,
        /// Octets that are wanted.
        wanted: u64,
    },
    /// The content is too large.
    #[error("the message was not queued: it is larger than the {0} octets of message_size_limit")]
    TooLarge(u64),
    /// No recipients, or too many.
    #[error("the message was not queued: it has {0} recipients, not 1 to {RECIPIENTS_MAX}")]
    Recipients(usize),
    /// A part of the envelope cannot be written: says which, and why.
    #[error("the message was not queued: {0}")]
    Envelope(String),
    /// The submitter's end failed while the content was read from it.
    #[error("the message was not queued: its content cannot be read: {0}")]
    Content(io::Error),
    /// The queue's end failed: disk full, file size limit, permission.
    #[error("the message was not queued: cannot {doing} {}: {source}", path.display())]
    Io {
        /// The verb.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It could not be written to disk, and somebody had taken it from its place before it could be taken back.
    #[error(
        "the message may be queued: cannot write {} to disk ({source}), and it cannot be taken back: it may be \
         delivered, and arrives twice then if it is sent again",
        path.display()
    )]
    InDoubt {
        /// Where it was.
        path: PathBuf,
        /// What the system said when it was to be written to disk.
        source: io::Error,
    },
}

impl SubmitError {
    /// Whether the message may be queued all the same.
    pub fn is_in_doubt(&self) -> bool {
        matches!(self, Self::InDoubt { .. })
    }

    /// Whether the message itself is at fault, so that trying again cannot help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::TooLarge(_) | Self::Recipients(_) | Self::Envelope(_) => true,
            Self::NoRoom { .. } | Self::Content(_) | Self::Io { .. } | Self::InDoubt { .. } => false,
        }
    }
}

impl Spool {
    /// Queues a message: on return it is on disk for good. For the queue's owner; root must have become it.
    pub fn submit(
        &self,
        draft: Draft,
        content: &mut dyn Read,
        limits: &SubmitLimits,
    ) -> Result<QueueId, SubmitError> {
        let id = self.new_id()?;
        self.submit_as(id, draft, content, limits)?;
        Ok(id)
    }

    /// Queues a message under an ID from [`Spool::new_id`], which its content can name then.
    pub fn submit_as(
        &self,
        id: QueueId,
        draft: Draft,
        content: &mut dyn Read,
        limits: &SubmitLimits,
    ) -> Result<(), SubmitError> {
        self.check_room(limits)?;
        let (envelope, recipients) = envelope_of(draft, id)?;
        let name = OsStr::new(id.as_str());
        let file = self.create_unfinished(Place::Tmp, name, 0o600)?;
        let content = &mut Numbered::new(content, id);
        let written = write_whole(file, envelope, recipients, content, limits);
        self.settle(written, (Place::Tmp, name), (Place::Active, name))
    }

    /// Drops a message into `incoming/`, as anybody may; returns the name it has there. On return it is on
    /// disk, and it is the agent's to pick up, at once or when one starts.
    pub fn drop_incoming(
        &self,
        draft: Draft,
        content: &mut dyn Read,
        limits: &SubmitLimits,
    ) -> Result<String, SubmitError> {
        self.check_room(limits)?;
        let (envelope, recipients) = envelope_of(draft, self.new_id()?)?;
        // Nobody can list `incoming/`, and nobody can guess this either.
        let name = format!("{:032x}", self.random().map(u128::from_ne_bytes)?);
        let draft_name = OsString::from(format!(".{name}"));
        let file = self.create_unfinished(Place::Incoming, &draft_name, 0o640)?;
        let written = write_whole(file, envelope, recipients, content, limits);
        self.settle(written, (Place::Incoming, &draft_name), (Place::Incoming, name.as_ref()))?;
        Ok(name)
    }

    /// Publishes a file that was written to its end; after an error neither name stays.
    fn settle(
        &self,
        written: Result<File, WriteError>,
        (from, old): (Place, &OsStr),
        (to, new): (Place, &OsStr),
    ) -> Result<(), SubmitError> {
        written
            .map_err(|error| self.submit_error("write", from, old, error))
            .and_then(|file| self.publish(&file, (from, old), (to, new)))
            .inspect_err(|_| self.discard(from, old))
    }

    /// Gives a file its final name and makes both durable, in this order: so the sync of the file also covers
    /// the rename on the journalling file systems, even for a submitter who may not open the directory to
    /// sync that too. After an error at most the old name stays, unless it says that this is in doubt.
    pub(super) fn publish(
        &self,
        file: &File,
        (from, old): (Place, &OsStr),
        (to, new): (Place, &OsStr),
    ) -> Result<(), SubmitError> {
        self.rename_new(from, old, to, new)
            .map_err(|error| self.io_failure("rename a message to", to, new, self.explained(to, error)))?;
        let synced = file.sync_all().and_then(|()| self.at(to).sync());
        synced.map_err(|error| self.take_back(error, (from, old), (to, new)))
    }

    /// Takes back what has its final name and cannot be synced. From the rename on, an agent may have found it.
    pub(super) fn take_back(
        &self,
        error: io::Error,
        (from, old): (Place, &OsStr),
        (to, new): (Place, &OsStr),
    ) -> SubmitError {
        let is_back = self.rename_new(to, new, from, old).is_ok() || matches!(self.unlink(to, new), Ok(true));
        if is_back {
            return self.io_failure("write to disk", to, new, error);
        }
        SubmitError::InDoubt { path: self.path_of(to, new), source: error }
    }

    /// Removes what a failed submission has left; what cannot be removed now is removed when it is old.
    fn discard(&self, place: Place, name: &OsStr) {
        let _ = self.unlink(place, name);
    }

    pub(super) fn check_room(&self, limits: &SubmitLimits) -> Result<(), SubmitError> {
        if limits.minfree == 0 { Ok(()) } else { self.check_free(limits.minfree) }
    }

    /// Sees that `wanted` octets are free.
    pub(super) fn check_free(&self, wanted: u64) -> Result<(), SubmitError> {
        let free = self.free_space().map_err(|source| SubmitError::Io {
            doing: "ask for free space on",
            path: self.path().to_owned(),
            source,
        })?;
        if free < wanted {
            return Err(SubmitError::NoRoom { path: self.path().to_owned(), free, wanted });
        }
        Ok(())
    }

    /// An ID that nobody has used: its time goes by the clock, its randomness by the kernel.
    pub fn new_id(&self) -> Result<QueueId, SubmitError> {
        let microseconds = u64::try_from(Timestamp::now().as_microsecond()).unwrap_or(0);
        Ok(QueueId::new(microseconds, u64::from_ne_bytes(self.random()?)))
    }

    fn random<const N: usize>(&self) -> Result<[u8; N], SubmitError> {
        let mut octets = [0; N];
        for _ in 0..NAMES_TRIED {
            match rustix::rand::getrandom(&mut octets, GetRandomFlags::empty()) {
                Ok(length) if length == N => return Ok(octets),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(self.no_random(error)),
            }
        }
        Err(self.no_random(Errno::INTR))
    }

    fn no_random(&self, error: Errno) -> SubmitError {
        let path = self.path().to_owned();
        SubmitError::Io { doing: "get random octets for a name in", path, source: error.into() }
    }

    fn create_unfinished(&self, place: Place, name: &OsStr, mode: u32) -> Result<File, SubmitError> {
        self.create_file(place, name, mode).map_err(|error| self.io_failure("make", place, name, error))
    }

    pub(super) fn io_failure(
        &self,
        doing: &'static str,
        place: Place,
        name: &OsStr,
        source: impl Into<io::Error>,
    ) -> SubmitError {
        SubmitError::Io { doing, path: self.path_of(place, name), source: source.into() }
    }

    pub(super) fn submit_error(
        &self,
        doing: &'static str,
        place: Place,
        name: &OsStr,
        error: WriteError,
    ) -> SubmitError {
        match error {
            WriteError::Disk(error) => self.io_failure(doing, place, name, error),
            WriteError::Source(error) => SubmitError::Content(error),
            WriteError::TooLarge(limit) => SubmitError::TooLarge(limit),
            WriteError::Rejected(reason) => SubmitError::Envelope(reason),
        }
    }
}

/// The process lives on when a write would pass RLIMIT_FSIZE: the write then fails with EFBIG, and the
/// submitter is told. Without this the kernel ends the process with SIGXFSZ. To be called once, before
/// anything is queued.
pub fn survive_file_size_limit() -> io::Result<()> {
    let signal = rustix::process::Signal::XFSZ.as_raw();
    signal_hook::flag::register(signal, Arc::default()).map(drop)
}

fn count_of(recipients: &[Recipient]) -> Result<u32, SubmitError> {
    match u32::try_from(recipients.len()) {
        Ok(count @ 1..=RECIPIENTS_MAX) => Ok(count),
        _ => Err(SubmitError::Recipients(recipients.len())),
    }
}

/// The envelope of a draft; what its content decides is filled in later.
pub(super) fn envelope_of(draft: Draft, id: QueueId) -> Result<(Envelope, Vec<Recipient>), SubmitError> {
    count_of(&draft.recipients)?;
    for (name, value) in [
        ("nexthop", draft.nexthop.as_deref().unwrap_or("")),
        ("envid", draft.envid.as_deref().unwrap_or("")),
        ("origin", &draft.origin),
    ] {
        format::check_member(name, value).map_err(|error| SubmitError::Envelope(error.to_string()))?;
    }
    let envelope = Envelope {
        id,
        sender: draft.sender,
        arrival: now(),
        nexthop: draft.nexthop,
        body: BodyType::SevenBit,
        smtputf8: draft.smtputf8,
        envid: draft.envid,
        ret: draft.ret,
        origin: draft.origin,
        size: 0,
    };
    Ok((envelope, draft.recipients))
}

/// The time, to the microsecond: what a head and an ID hold.
pub(super) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

fn write_whole(
    file: File,
    envelope: Envelope,
    recipients: Vec<Recipient>,
    content: &mut dyn Read,
    limits: &SubmitLimits,
) -> Result<File, WriteError> {
    // `envelope_of` has seen that the count fits.
    let count = u32::try_from(recipients.len()).unwrap_or(u32::MAX);
    let mut unfinished = Unfinished::begin(file, envelope, count, None, recipients.into_iter().map(Ok))?;
    unfinished.add_content(content, limits)?;
    Ok(unfinished.file)
}
