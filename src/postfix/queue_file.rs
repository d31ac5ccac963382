//! Postfix's queue files.
//!
//! - Owns: where a message's file lies, opening and locking it, its content, and the marks of recipients that are done.
//! - Leaves to others: what the records mean (`record`, `content`), the envelope, which comes with the request, and what
//!   is said to qmgr about a file that cannot be delivered.
//! - Always true: while a [`QueueFile`] exists its lock is held, and qmgr leaves the message alone. Nothing is written
//!   but single octets where records of recipients begin, and the mode of a file that is broken.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::buffer::spare_capacity;
use rustix::fs::{FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::content::{self, Form, Loaded, Stopped};
use super::record::{ContentError, Source};

/// Longest names, as Postfix allows them.
const QUEUE_NAME_MAX: usize = 100;
const QUEUE_ID_MAX: usize = 255;

/// `hash_queue_depth` is at most this.
const DEPTH_MAX: usize = 16;

/// What a recipient's record becomes when all is said and done.
const DONE: &[u8] = b"D";

/// How the queue directory is laid out: `hash_queue_names` and `hash_queue_depth`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Queues that have directories in their directory.
    pub hash_queue_names: Vec<String>,
    /// How many of these, one in the other.
    pub hash_queue_depth: usize,
}

/// A name that no queue or no message has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Of a queue.
    #[error("\"{}\" is not the name of a queue", .0.escape_debug())]
    Queue(String),
    /// Of a message.
    #[error("\"{}\" is not a queue ID", .0.escape_debug())]
    Message(String),
}

impl Layout {
    /// Where a message lies, below the queue directory.
    pub fn path(&self, queue_name: &str, queue_id: &str) -> Result<PathBuf, BadName> {
        let is_name = |name: &str, max: usize, more: &str| {
            let fits = (1..=max).contains(&name.len());
            fits && name.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        if !is_name(queue_name, QUEUE_NAME_MAX, "") {
            return Err(BadName::Queue(crate::mail::shortened(queue_name)));
        }
        if !is_name(queue_id, QUEUE_ID_MAX, "_") {
            return Err(BadName::Message(crate::mail::shortened(queue_id)));
        }
        let mut path = PathBuf::from(queue_name);
        if self.hash_queue_names.iter().any(|name| name.eq_ignore_ascii_case(queue_name)) {
            let hashed = hashed_part(queue_id);
            let directories = hashed.chars().chain(std::iter::repeat('_'));
            let depth = self.hash_queue_depth.min(DEPTH_MAX);
            directories.take(depth).for_each(|directory| path.push(directory.to_string()));
        }
        path.push(queue_id);
        Ok(path)
    }
}

/// The part of a queue ID that changes most: for the long ones these are the microseconds, written as in the short ones.
fn hashed_part(queue_id: &str) -> String {
    /// Digits of numbers of base 52, without vowels, so that no words come about.
    const DIGITS: &[u8] = b"0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz";
    const SECONDS_MIN: usize = 6;
    const MICROSECONDS: usize = 4;
    let octets = queue_id.as_bytes();
    let separator = octets.iter().rposition(|&octet| octet == b'z');
    let Some(end) = separator.filter(|&at| at >= SECONDS_MIN + MICROSECONDS) else {
        return queue_id.to_owned();
    };
    let digits = octets.get(end - MICROSECONDS..end).unwrap_or_default();
    let value = |digit: &u8| DIGITS.iter().position(|known| known == digit);
    let number = digits.iter().try_fold(0, |number, digit| Some(number * DIGITS.len() + value(digit)?));
    // Postfix takes what is no number for zero, too.
    format!("{:05X}", number.unwrap_or(0))
}

/// Why a queue file cannot be opened for delivery.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Somebody has removed the message.
    #[error("queue file {0} does not exist")]
    Gone(PathBuf),
    /// It is not to be delivered, or not yet: not complete, corrupt, or no file.
    #[error("queue file {path} is not to be delivered: {why}")]
    NotDeliverable {
        /// Which.
        path: PathBuf,
        /// What it is instead.
        why: &'static str,
    },
    /// Another delivery is running, or qmgr is at work on it.
    #[error("queue file {0} is locked by another process")]
    Locked(PathBuf),
    /// Trouble that says nothing about the message.
    #[error("cannot {action} queue file {path}: {error}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which.
        path: PathBuf,
        /// What came back.
        error: io::Error,
    },
}

/// A message in the queue, open and locked.
#[derive(Debug)]
pub struct QueueFile {
    file: File,
    path: PathBuf,
    length: u64,
}

impl QueueFile {
    /// Opens a message for delivery and takes its shared lock, without waiting. `path` is what [`Layout::path`] says.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let io_error = |action, error: Errno| match error {
            Errno::NOENT => OpenError::Gone(path.to_owned()),
            error => OpenError::Io { action, path: path.to_owned(), error: error.into() },
        };
        let check = |stat: &Stat| match not_deliverable(stat) {
            Some(why) => Err(OpenError::NotDeliverable { path: path.to_owned(), why }),
            None => Ok(()),
        };
        // Looked at before it is opened: a file that cannot be opened may be one that is not to be.
        check(&rustix::fs::lstat(path).map_err(|error| io_error("examine", error))?)?;
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| io_error("open", error))?;
        let stat = rustix::fs::fstat(&file).map_err(|error| io_error("examine", error))?;
        check(&stat)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(OpenError::Locked(path.to_owned())),
            Err(error) => return Err(io_error("lock", error)),
        }
        let length = u64::try_from(stat.st_size).unwrap_or(0);
        Ok(Self { file: file.into(), path: path.to_owned(), length })
    }

    /// Where it lies, below the queue directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Marks the recipient whose record begins at `offset` as done: delivered, or its refusal reported.
    pub fn mark_done(&self, offset: u64) -> io::Result<()> {
        if offset == 0 || offset >= self.length {
            let why = format!("{} has no recipient at {offset}", self.path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        self.file.write_all_at(DONE, offset)
    }

    /// Marks the file as corrupt, so that qmgr puts it aside.
    pub fn make_corrupt(&self) -> io::Result<()> {
        Ok(rustix::fs::fchmod(&self.file, Mode::RUSR)?)
    }

    /// Reads the content that begins at `offset` once, to learn its size in this form, and whether it is sound. It is
    /// kept in memory where it has no more than `keep` octets.
    pub fn load(&self, offset: u64, form: Form, keep: usize) -> Result<Loaded, ContentError> {
        content::load(self, offset, form, keep)
    }

    /// Hands the content that begins at `offset` to `take`, piece by piece, each put together in `buffer`; returns how
    /// often a line was broken.
    pub fn for_each_piece<E>(
        &self,
        offset: u64,
        form: Form,
        buffer: &mut Vec<u8>,
        take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<u64, Stopped<E>> {
        content::for_each_piece(self, offset, form, buffer, take)
    }

    /// The values of the Delivered-To fields of the message, the first thousand at most.
    pub fn delivered_to(&self, offset: u64) -> Result<Vec<Vec<u8>>, ContentError> {
        content::delivered_to(self, offset)
    }
}

impl Source for QueueFile {
    fn read_at(&self, at: u64, into: &mut Vec<u8>) -> io::Result<usize> {
        Ok(rustix::io::pread(&self.file, spare_capacity(into), at)?)
    }

    fn length(&self) -> u64 {
        self.length
    }
}

/// Postfix makes a file executable for its owner once it is complete.
fn not_deliverable(stat: &Stat) -> Option<&'static str> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Some("it is not a regular file");
    }
    let mode = Mode::from_raw_mode(stat.st_mode) & Mode::RWXU;
    (mode != Mode::RWXU).then_some("its mode says that it is not complete, or corrupt")
}

#[cfg(test)]
mod tests;
