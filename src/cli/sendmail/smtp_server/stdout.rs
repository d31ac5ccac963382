//! Standard output that does not wait for ever.
//!
//! - Owns: giving up when a signal comes or nobody reads.
//! - Leaves to others: what signals there are (`stdin`).
//! - Always true: what can be written at once is written, also after a signal.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Octets that a pipe takes without waiting once it takes any (PIPE_BUF).
const PIECE: usize = 4096;

/// Standard output.
#[derive(Debug)]
pub(super) struct Stdout {
    output: File,
    bell: OwnedFd,
    patience: Duration,
}

impl Stdout {
    /// Takes standard output over. A write fails when `bell` is readable and the reader is not ready, or when that takes
    /// longer than `patience`.
    pub(super) fn open(bell: OwnedFd, patience: Duration) -> io::Result<Self> {
        Ok(Self { output: File::from(io::stdout().as_fd().try_clone_to_owned()?), bell, patience })
    }
}

impl Write for Stdout {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let mut ready = [PollFd::new(&self.bell, PollFlags::IN), PollFd::new(&self.output, PollFlags::OUT)];
        let patience = Timespec::try_from(self.patience).ok();
        match poll(&mut ready, patience.as_ref()) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody reads it")),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [bell, output] = &ready;
        // A reader that has gone is for write to find.
        if !output.revents().is_empty() {
            return self.output.write(octets.get(..octets.len().min(PIECE)).unwrap_or_default());
        }
        let came = !bell.revents().is_empty();
        Err(if came { io::Error::other("a signal came") } else { io::ErrorKind::Interrupted.into() })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
