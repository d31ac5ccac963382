//! The job FIFO, `jobs`: how software on this machine tells the agent what to deliver.
//!
//! - Owns: making it, opening it at either end, reading and writing pieces.
//! - Leaves to others: what a job line says (`queue`), when to read (`agent`).
//! - Always true: nobody ever waits in here. The agent holds the FIFO open for writing too, so it never sees
//!   an end of file, which poll(2) would report for ever.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::directory::{Spool, SpoolError, io_error};
use super::prepare::set_owner_and_mode;
use crate::mail::QueueId;

const NAME: &str = "jobs";
/// Who may write here is trusted as the agent is: its own user, and one group.
const MODE: u32 = 0o620;
/// Octets that the kernel never mixes with another writer's (PIPE_BUF).
pub const JOB_LINE_ATOMIC: usize = 4096;

/// The agent's end.
#[derive(Debug)]
pub struct JobFifo {
    file: File,
}

impl JobFifo {
    /// Opens the FIFO for the agent, or makes it; whatever else stands there, or lets more people write than
    /// owner and group, is refused.
    pub(super) fn open_or_make(spool: &Spool, owner: (Uid, Gid)) -> Result<Self, SpoolError> {
        let path = spool.path().join(NAME);
        let refuse = |why: String| SpoolError::Unsafe { path: path.clone(), why };
        let made = match rustix::fs::mknodat(spool.root(), NAME, FileType::Fifo, Mode::from(0o600), 0) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(io_error("make the job FIFO", &path, error)),
        };
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(spool.root(), NAME, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::LOOP | Errno::ISDIR) => return Err(refuse("it is not a FIFO".into())),
            Err(error) => return Err(io_error("open the job FIFO", &path, error)),
        };
        let examine = || rustix::fs::fstat(&fd).map_err(|error| io_error("examine", &path, error));
        if FileType::from_raw_mode(examine()?.st_mode) != FileType::Fifo {
            return Err(refuse("it is not a FIFO".into()));
        }
        if made {
            set_owner_and_mode(&path, fd.as_fd(), owner, MODE)?;
        }
        let stat = examine()?;
        if stat.st_uid != owner.0.as_raw() {
            return Err(refuse(format!(
                "it belongs to uid {}, not to the agent's, {}",
                stat.st_uid,
                owner.0.as_raw()
            )));
        }
        if stat.st_mode & 0o777 & !MODE != 0 {
            let mode = stat.st_mode & 0o777;
            return Err(refuse(format!(
                "its mode is {mode:04o}, which is more than {MODE:04o}: chmod {MODE:04o} mends that"
            )));
        }
        Ok(Self { file: File::from(fd) })
    }

    /// Reads what is there, up to the length of `buffer`; 0 if there is nothing.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match (&self.file).read(buffer) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(0)
            }
            result => result,
        }
    }
}

impl AsFd for JobFifo {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// What became of a job line. For a message that is in the queue none of these is an error: the agent finds
/// it when it lists `active/` or `incoming/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobWritten {
    /// The agent will read it.
    Written,
    /// No agent has the FIFO open (ENXIO), or there is none.
    NoAgent,
    /// The FIFO is full (EAGAIN).
    Full,
    /// We may not write to it (EACCES).
    NotAllowed,
}

impl Spool {
    /// Tells the agent of a message in `active/`.
    pub fn announce(&self, id: QueueId) -> io::Result<JobWritten> {
        self.write_job(&format!("{{\"queue_file\":\"active/{id}\"}}"))
    }

    /// Writes one job line without waiting. It is framed by an LF on both sides, so that a line that somebody
    /// else has torn spoils only itself; with them it has at most [`JOB_LINE_ATOMIC`] octets.
    pub fn write_job(&self, object: &str) -> io::Result<JobWritten> {
        let line = format!("\n{object}\n");
        if line.len() > JOB_LINE_ATOMIC || object.contains('\n') {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a job line is one line of at most {JOB_LINE_ATOMIC} octets"),
            ));
        }
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(self.root(), NAME, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NXIO | Errno::NOENT) => return Ok(JobWritten::NoAgent),
            Err(Errno::ACCESS | Errno::PERM) => return Ok(JobWritten::NotAllowed),
            Err(error) => return Err(error.into()),
        };
        if FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) != FileType::Fifo {
            return Err(io::Error::other(format!("{} is not a FIFO", self.path().join(NAME).display())));
        }
        match rustix::io::write(&fd, line.as_bytes()) {
            // A write of this size is all or nothing.
            Ok(_) => Ok(JobWritten::Written),
            Err(Errno::WOULDBLOCK) => Ok(JobWritten::Full),
            Err(Errno::PIPE) => Ok(JobWritten::NoAgent),
            Err(error) => Err(error.into()),
        }
    }
}
