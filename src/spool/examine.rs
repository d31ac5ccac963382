//! What can be said of a file in the queue that is no message of ours (yet): dropped ones, damaged ones.
//!
//! - Owns: looking at such a file without believing it.
//! - Leaves to others: files that are messages (`queue_file`), what is shown of them (`agent`).
//! - Always true: nothing but a regular file is ever read, and no link is followed.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use rustix::io::Errno;

use super::copy::begins_as_queue_file;
use super::directory::{Place, Spool};
use super::listing::system_time;

/// A file in the queue, as the file system knows it.
#[derive(Debug)]
pub struct Examined {
    /// Who owns it.
    pub uid: u32,
    /// Its octets, all of them.
    pub size: u64,
    /// When it was last modified.
    pub modified: SystemTime,
    /// Whether it begins as a queue file does.
    pub is_queue_file: bool,
    /// The file itself, if it is a regular one that we may read.
    pub file: Option<File>,
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
