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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    /// An output that is a pipe, what reads from it, and what rings its bell.
    fn stdout(patience: Duration) -> (Stdout, File, File) {
        let pipe = || rustix::pipe::pipe().map(|(reader, writer)| (File::from(reader), File::from(writer)));
        let ((reader, output), (bell, ringer)) = (pipe().unwrap(), pipe().unwrap());
        (Stdout { output, bell: bell.into(), patience }, reader, ringer)
    }

    fn fill(output: &mut Stdout) -> io::Error {
        output.write_all(&vec![b'x'; 1 << 20]).unwrap_err()
    }

    #[test]
    fn a_reader_that_does_not_read_is_given_up() {
        let (mut output, mut reader, _ringer) = stdout(Duration::from_millis(20));
        assert_eq!(fill(&mut output).kind(), io::ErrorKind::TimedOut);
        reader.read_exact(&mut [0; 8192]).unwrap();
        output.write_all(b"again").unwrap();
        drop(reader);
        assert_eq!(output.write_all(b"gone").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn after_a_signal_is_written_what_can_be_at_once() {
        let (mut output, mut reader, mut ringer) = stdout(Duration::from_secs(3600));
        ringer.write_all(b"!").unwrap();
        output.write_all(b"421 bye").unwrap();
        reader.read_exact(&mut [0; 7]).unwrap();
        assert_eq!(fill(&mut output).to_string(), "a signal came");
    }
}
