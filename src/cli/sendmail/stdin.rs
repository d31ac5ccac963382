//! Standard input that stops when a signal asks for it.
//!
//! - Owns: TERM, INT and HUP while a message is read. One that the caller has set to be ignored (nohup) stays so.
//!   How long nothing may come, if somebody cares.
//! - Leaves to others: removing what was written so far (`spool` does, on any error), and ending the process.
//! - Always true: a read waits for input and signals at once, so that neither is missed.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

const HUP: i32 = 1;
const INT: i32 = 2;
const TERM: i32 = 15;
/// More octets than the kernel has to tell about a process.
const STATUS_SIZE: usize = 4096;

/// Standard input.
pub(super) struct Stdin {
    input: File,
    /// Readable once a signal has come.
    bell: OwnedFd,
    /// Where the caller ignores all signals nobody else holds this end, and a pipe without one is readable at once.
    _ringer: OwnedFd,
    stopped: Stopped,
    silence_max: Option<Duration>,
}

/// Which signal has come, 0 for none.
#[derive(Clone, Debug, Default)]
pub(super) struct Stopped(Arc<AtomicUsize>);

impl Stopped {
    /// The signal that has stopped the reading.
    pub(super) fn by(&self) -> Option<i32> {
        i32::try_from(self.0.load(Ordering::SeqCst)).ok().filter(|&signal| signal != 0)
    }
}

impl Stdin {
    /// Takes standard input over.
    pub(super) fn open() -> io::Result<Self> {
        let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let (bell, ringer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let stopped = Stopped::default();
        let ignored = ignored_signals();
        for signal in [HUP, INT, TERM] {
            if ignored >> (signal - 1) & 1 == 0 {
                // The number first, then the bell: whoever hears it finds the number.
                signal_hook::flag::register_usize(
                    signal,
                    Arc::clone(&stopped.0),
                    signal.unsigned_abs() as usize,
                )?;
                signal_hook::low_level::pipe::register(signal, ringer.try_clone()?)?;
            }
        }
        Ok(Self { input, bell, _ringer: ringer, stopped, silence_max: None })
    }

    /// Waits no longer than this for something to read; a read that does ends with [`io::ErrorKind::TimedOut`].
    pub(super) fn with_silence_max(self, limit: Duration) -> Self {
        Self { silence_max: Some(limit), ..self }
    }

    /// What becomes readable once a signal has come, for others who wait.
    pub(super) fn bell(&self) -> io::Result<OwnedFd> {
        self.bell.try_clone()
    }

    /// Reads no more: what can be read from now on is an octet for each signal that came, or comes.
    pub(super) fn into_bell(self) -> (File, Stopped) {
        (self.bell.into(), self.stopped)
    }

    /// What tells whether a signal has stopped the reading.
    pub(super) fn stopped(&self) -> Stopped {
        self.stopped.clone()
    }
}

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut ready = [
            PollFd::new(&self.bell, PollFlags::IN),
            // End of file and errors are for read to find.
            PollFd::new(&self.input, PollFlags::IN),
        ];
        let limit = self.silence_max.and_then(|limit| Timespec::try_from(limit).ok());
        match poll(&mut ready, limit.as_ref()) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [bell, input] = &ready;
        if !bell.revents().is_empty() {
            return Err(io::Error::other("a signal came"));
        }
        if input.revents().is_empty() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        self.input.read(buffer)
    }
}

/// The signals that the process was started to ignore, one bit each. Where the system does not tell, none is.
fn ignored_signals() -> u64 {
    // The kernel does not tell its length: without room it would be read in pieces that begin with 32 octets.
    let mut status = String::with_capacity(STATUS_SIZE);
    let read = File::open("/proc/self/status").and_then(|mut file| file.read_to_string(&mut status));
    if read.is_err() {
        return 0;
    }
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    /// An input that is a pipe, and what is written to it and to its bell.
    fn stdin(silence_max: Option<Duration>) -> (Stdin, File, File) {
        let pipe = || rustix::pipe::pipe().map(|(reader, writer)| (File::from(reader), File::from(writer)));
        let ((input, writer), (bell, ringer)) = (pipe().unwrap(), pipe().unwrap());
        let (stopped, _ringer) = (Stopped::default(), ringer.try_clone().unwrap().into());
        (Stdin { input, bell: bell.into(), _ringer, stopped, silence_max }, writer, ringer)
    }

    #[test]
    fn silence_has_an_end_if_somebody_cares() {
        let (mut input, mut writer, _ringer) = stdin(Some(Duration::from_millis(20)));
        let mut octets = [0; 8];
        writer.write_all(b"one").unwrap();
        assert_eq!(input.read(&mut octets).unwrap(), 3);
        assert_eq!(input.read(&mut octets).unwrap_err().kind(), io::ErrorKind::TimedOut);
        writer.write_all(b"two").unwrap();
        assert_eq!(input.read(&mut octets).unwrap(), 3);
        drop(writer);
        assert_eq!(input.read(&mut octets).unwrap(), 0);
    }

    #[test]
    fn a_signal_is_heard_before_what_has_come_is_read() {
        let (mut input, mut writer, mut ringer) = stdin(None);
        writer.write_all(b"one").unwrap();
        ringer.write_all(b"!").unwrap();
        for _ in 0..2 {
            assert_eq!(input.read(&mut [0; 8]).unwrap_err().to_string(), "a signal came");
        }
    }
}
