//! What can be said of a file in the queue that is no message of ours (yet): dropped ones, damaged ones.
//!
//! - Owns: looking at such a file without believing it.
//! - Leaves to others: files that are messages (`queue_file`), what is shown of them (`agent`).
//! - Always true: nothing but a regular file is ever read, and no link is followed.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::copy::{begins_as_queue_file, check_size};
use super::directory::{Place, Spool};
use super::format::{self, FormatError};
use super::lines::Section;
use super::listing::system_time;
use super::state::States;
use super::write::WriteError;

/// Recipients that are looked at to find out what is wrong with a file. A list of the queue should not take longer for
/// each than it takes for a message.
const RECIPIENTS_READ: u32 = 200;

/// A file in the queue, as the file system knows it.
#[derive(Debug)]
pub struct Examined {
    /// Who owns it.
    pub uid: u32,
    /// Its octets, all of them.
    pub size: u64,
    /// When it was last modified.
    pub modified: SystemTime,
    /// What it is, if it is no regular file: `a directory`.
    pub other_kind: Option<&'static str>,
    /// Whether it begins as a queue file does.
    pub is_queue_file: bool,
    /// The file itself, if it is a regular one that we may read.
    pub file: Option<File>,
}

impl Examined {
    /// Why pickup takes no message from it, as a sentence about the file; `None` if that is not to be seen from its first
    /// recipients.
    pub fn fault(&self) -> Option<String> {
        if let Some(kind) = self.other_kind {
            return Some(format!("it is {kind}, not a regular file"));
        }
        match look_at(self.file.as_ref()?, self.size) {
            Err(FormatError::Io(_)) | Ok(()) => None,
            Err(FormatError::Bad(reason)) => Some(reason),
            Err(error @ FormatError::Version(_)) => Some(error.to_string()),
        }
    }
}

/// Reads as much of a queue file as a list may take time for.
fn look_at(file: &File, end: u64) -> Result<(), FormatError> {
    if file.metadata()?.nlink() > 1 {
        return Err(FormatError::bad("it has more than one name, so it may be somebody else's file"));
    }
    let mut reader = BufReader::new(Section { file, front: &[], at: 0, end });
    format::read_version(&mut reader)?;
    let head = format::read_dropped_head(&mut reader)?;
    States::read(&mut reader, head.recipients)?;
    let mut line = Vec::new();
    for position in 0..head.recipients.min(RECIPIENTS_READ) {
        format::read_recipient(&mut reader, position, &mut line)?;
    }
    if head.recipients > RECIPIENTS_READ {
        return Ok(());
    }
    format::read_blank(&mut reader)?;
    let buffered = reader.fill_buf()?.len() as u64;
    let content_at = reader.get_ref().at - buffered;
    match check_size(head.size, end.saturating_sub(content_at)) {
        Err(WriteError::Rejected(reason)) => Err(FormatError::Bad(reason)),
        _ => Ok(()),
    }
}

fn other_kind(mode: u32) -> Option<&'static str> {
    match FileType::from_raw_mode(mode) {
        FileType::RegularFile => None,
        FileType::Directory => Some("a directory"),
        FileType::Symlink => Some("a symbolic link"),
        FileType::Fifo => Some("a FIFO"),
        FileType::Socket => Some("a socket"),
        _ => Some("a device"),
    }
}

impl Spool {
    /// Looks at a file of any name; `None` if it is gone.
    pub fn examine(&self, place: Place, name: &OsStr) -> io::Result<Option<Examined>> {
        let stat = match rustix::fs::statat(self.at(place), name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut examined = Examined {
            uid: stat.st_uid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: system_time(stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            other_kind: other_kind(stat.st_mode),
            is_queue_file: false,
            file: None,
        };
        // What may not be read is shown all the same: somebody has to hear of it.
        let Ok(file) = self.open_file(place, name, false) else { return Ok(Some(examined)) };
        let metadata = file.metadata()?;
        if metadata.is_file() {
            (examined.uid, examined.size) = (metadata.uid(), metadata.len());
            examined.is_queue_file = begins_as_queue_file(&file)?;
            examined.file = Some(file);
        }
        Ok(Some(examined))
    }
}
