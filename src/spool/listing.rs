//! Listings of the queue's directories, a piece at a time.
//!
//! - Owns: a directory stream and what a name in it means.
//! - Leaves to others: what to do with a name (`pickup`, the agent's loader).
//! - Always true: memory does not grow with the directory; a listing stays where it is until it is asked on.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::directory::{Place, Spool};
use crate::mail::QueueId;

/// Octets of a name that somebody may give a message in `incoming/`.
const NAME_LENGTH_MAX: usize = 64;

/// One name in a directory of the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As it lies on disk: users may have put anything into `incoming/`, and `deferred/` has logs (`ID.log`)
    /// too.
    pub name: OsString,
    /// When its message is to be tried again: the time of modification of a message in `deferred/`. `None`
    /// for everything else, where nobody needs it and it would cost a system call.
    pub modified: Option<SystemTime>,
}

impl Entry {
    /// The message whose file this is, if its name is an ID.
    pub fn id(&self) -> Option<QueueId> {
        self.name.to_str()?.parse().ok()
    }
}

/// A listing that keeps its place: take a few entries now, the next ones later.
pub struct Names {
    dir: Dir,
    with_time: bool,
}

impl Iterator for Names {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let entry = match self.dir.next()? {
                Ok(entry) => entry,
                Err(error) => return Some(Err(error.into())),
            };
            let name = OsStr::from_bytes(entry.file_name().to_bytes()).to_owned();
            if name == "." || name == ".." {
                continue;
            }
            let mut entry = Entry { name, modified: None };
            if !self.with_time || entry.id().is_none() {
                return Some(Ok(entry));
            }
            match self.modified(&entry.name) {
                Ok(modified) => {
                    entry.modified = Some(modified);
                    return Some(Ok(entry));
                }
                // Gone since: it has moved on.
                Err(Errno::NOENT) => {}
                Err(error) => return Some(Err(error.into())),
            }
        }
    }
}

impl Names {
    fn modified(&self, name: &OsStr) -> Result<SystemTime, Errno> {
        let stat = rustix::fs::statat(self.dir.fd()?, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(system_time(stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)))
    }
}

/// A time stamp of a file; what cannot be expressed counts as long ago.
pub(super) fn system_time(seconds: i64, nanoseconds: u32) -> SystemTime {
    let offset = Duration::new(seconds.unsigned_abs(), nanoseconds.min(999_999_999));
    let time = if seconds < 0 { None } else { SystemTime::UNIX_EPOCH.checked_add(offset) };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

impl Spool {
    /// Starts a listing; entries with their time in `deferred/`. Names that appear meanwhile may or may not
    /// be in it.
    pub fn names(&self, place: Place) -> io::Result<Names> {
        // A stream of its own: the open directory is shared, and may be open as a path only.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = Dir::new(rustix::fs::openat(self.at(place), ".", flags, Mode::empty())?)?;
        Ok(Names { dir, with_time: place == Place::Deferred })
    }
}

/// What tells a file from another one that has its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    device: u64,
    inode: u64,
    size: i64,
    modified: SystemTime,
}

impl Spool {
    /// Which file a name in `incoming/` is, so that it can be told from a later one of the same name. `None` if there
    /// is none.
    pub fn fingerprint(&self, name: &OsStr) -> Option<Fingerprint> {
        let stat = rustix::fs::statat(self.at(Place::Incoming), name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let modified = system_time(stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0));
        Some(Fingerprint { device: stat.st_dev, inode: stat.st_ino, size: stat.st_size, modified })
    }

    /// Who owns what has this name in `incoming/`; `None` if nothing has it. Nothing is opened for it.
    pub fn owner_of(&self, name: &OsStr) -> Option<u32> {
        let stat = rustix::fs::statat(self.at(Place::Incoming), name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(stat.st_uid)
    }
}

impl Fingerprint {
    /// In words that mean the same file after a restart, when its device may have another number.
    pub(super) fn describe(&self) -> String {
        let modified = self.modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let Self { inode, size, .. } = self;
        format!("inode={inode} size={size} modified={modified}")
    }
}

/// Whether a name in `incoming/` is one that software may give to a finished message.
pub fn is_incoming_name(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    (1..=NAME_LENGTH_MAX).contains(&bytes.len())
        && !bytes.starts_with(b".")
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b))
}

/// Whether a name in `incoming/` is one whose writer has not finished.
pub(super) fn is_unfinished_name(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".")
}
