//! One socket: replies in, bytes out, each within a deadline.
//!
//! - Owns: the socket, its timeouts, bytes that were read and not used yet.
//! - Leaves to others: what is awaited and for how long (`connection`), who else hears it (`tap`).
//! - Always true: a peer that drips bytes cannot stretch a deadline, because each read gets what is left of it.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::Socket;

use super::peer::Peer;
use super::tap::Tap;
use crate::smtp::{BadReply, Cause, Reply, parse_reply};

const READ_SIZE: usize = 4096;
/// Octets written at once. The kernel cuts a write to a UNIX socket into packets, and each of them may wait as long as
/// the send timeout says: so one write must not be many packets.
const WRITE_SIZE_MAX: usize = 128 * 1024;

/// A connected socket.
#[derive(Debug)]
pub struct Link {
    socket: Socket,
    peer: Peer,
    /// What was read is its beginning, up to `filled`; of that, what stands from `used` on is not used yet.
    input: Vec<u8>,
    used: usize,
    filled: usize,
    /// See [`Link::flight_size`].
    flight_size: usize,
    receive_timeout: Duration,
    send_timeout: Duration,
    tap: Tap,
}

/// A write that failed, or the peer's early word on it.
pub type Written = Result<(), Cause>;

impl Link {
    /// Takes a connected socket, and who hears what is said on it.
    pub fn new(socket: Socket, peer: Peer, tap: Tap) -> Self {
        let flight_size = flight_size(&socket);
        Self {
            socket,
            peer,
            input: vec![0; READ_SIZE],
            used: 0,
            filled: 0,
            flight_size,
            receive_timeout: Duration::ZERO,
            send_timeout: Duration::ZERO,
            tap,
        }
    }

    /// The other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Who hears what is said.
    pub fn tap(&mut self) -> &mut Tap {
        &mut self.tap
    }

    /// Lets be heard what was read and cannot be used.
    pub fn note_surplus(&mut self) {
        self.tap.surplus(self.input.get(self.used..self.filled).unwrap_or_default());
    }

    /// Octets that can be written without the peer reading: half of the send buffer, since the kernel counts its
    /// bookkeeping in. As it was when the connection began: a TCP connection's buffer may only grow.
    pub fn flight_size(&self) -> usize {
        self.flight_size
    }

    /// Read and not used yet.
    fn unused(&self) -> &[u8] {
        self.input.get(self.used..self.filled).unwrap_or_default()
    }

    /// Reads one reply, until `deadline`.
    pub fn read_reply(&mut self, deadline: Instant) -> Result<Reply, Cause> {
        loop {
            if let Some(reply) = self.buffered_reply()? {
                return Ok(reply);
            }
            self.fill(deadline)?;
        }
    }

    /// A reply that has arrived whole already.
    pub fn buffered_reply(&mut self) -> Result<Option<Reply>, Cause> {
        let Some((reply, length)) = parse_reply(self.unused()).map_err(Cause::BadReply)? else {
            return Ok(None);
        };
        self.tap.reply(&reply, &self.input[self.used..self.used + length]);
        self.used += length;
        Ok(Some(reply))
    }

    /// Whether bytes have been read that answer nothing yet.
    pub fn has_surplus(&self) -> bool {
        self.used < self.filled
    }

    /// Whether a line has been read that answers nothing yet.
    pub fn has_line(&self) -> bool {
        memchr::memchr(b'\n', self.unused()).is_some()
    }

    /// Before something is written, with no reply due: whatever has been read would be taken for the answer, and
    /// each reply after it for the one before. But a 421 answers anything, and content may be refused before it is
    /// sent.
    pub fn expect_no_surplus(&self, content_follows: bool) -> Result<(), Cause> {
        let surplus = self.unused();
        let refuses = content_follows && matches!(surplus.first(), Some(b'4' | b'5'));
        if surplus.is_empty() || surplus.starts_with(b"421") || refuses {
            return Ok(());
        }
        Err(BadReply::Surplus.into())
    }

    fn fill(&mut self, deadline: Instant) -> Result<(), Cause> {
        self.limit_reading(deadline)?;
        self.input.copy_within(self.used..self.filled, 0);
        (self.used, self.filled) = (0, self.filled - self.used);
        if self.filled == self.input.len() {
            // The parser bounds what is kept of a reply without end.
            self.input.resize(self.filled + READ_SIZE, 0);
        }
        let read = self.socket.read(&mut self.input[self.filled..]);
        self.filled += *read.as_ref().unwrap_or(&0);
        match read {
            Ok(0) => Err(Cause::LostConnection),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) if is_timeout(&error) => Err(Cause::TimedOut),
            Err(error) => Err(Cause::Io(error)),
        }
    }

    fn limit_reading(&mut self, deadline: Instant) -> Result<(), Cause> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Cause::TimedOut);
        }
        if differs(self.receive_timeout, left) {
            self.socket.set_read_timeout(Some(at_least_a_tick(left))).map_err(Cause::Io)?;
            self.receive_timeout = left;
        }
        Ok(())
    }

    fn limit_writing(&mut self, left: Duration) -> Result<(), Cause> {
        if left.is_zero() {
            return Err(Cause::TimedOut);
        }
        if differs(self.send_timeout, left) {
            self.socket.set_write_timeout(Some(at_least_a_tick(left))).map_err(Cause::Io)?;
            self.send_timeout = left;
        }
        Ok(())
    }

    /// Writes command lines, until `deadline`.
    pub fn write_commands(&mut self, commands: &[u8], deadline: Instant) -> Written {
        self.tap.commands(commands);
        self.write(commands, Duration::MAX, deadline)
    }

    // STUB
    pub fn write_line(&mut self, line: &crate::smtp::Line, deadline: Instant) -> Written {
        self.write(&line.octets, Duration::MAX, deadline)
    }
    pub fn tls(&self) -> Option<&super::tls::TlsStream> {
        None
    }
    pub fn start_tls(
        &mut self,
        _: &mut super::tls::TlsSessions,
        _: &crate::mail::Server,
        _: &crate::config::Transport,
        _: &crate::config::TlsPolicy<'_>,
        _: Instant,
    ) -> Result<(), super::tls::TlsError> {
        Ok(())
    }

    /// Writes content: each progress may take `progress`, the whole until `deadline`.
    pub fn write_content(&mut self, content: &[u8], progress: Duration, deadline: Instant) -> Written {
        self.write(content, progress, deadline)
    }

    fn write(&mut self, mut bytes: &[u8], progress: Duration, deadline: Instant) -> Written {
        while !bytes.is_empty() {
            self.limit_writing(deadline.saturating_duration_since(Instant::now()).min(progress))?;
            match self.socket.write(&bytes[..bytes.len().min(WRITE_SIZE_MAX)]) {
                Ok(0) => return Err(Cause::LostConnection),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => return Err(Cause::TimedOut),
                Err(error) => return Err(Cause::Io(error)),
            }
        }
        Ok(())
    }

    /// Whether anything can be read, the end of file included, within `wait`.
    pub fn is_readable(&self, wait: Duration) -> bool {
        let timeout = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        let mut descriptors = [PollFd::new(&self.socket, PollFlags::IN)];
        // A poll that fails says nothing good about the socket.
        self.has_surplus()
            || rustix::event::poll(&mut descriptors, Some(&timeout)).map_or(true, |ready| ready > 0)
    }

    /// What the peer said before it stopped reading: replies that are there without waiting for more.
    pub fn early_reply(&mut self) -> Result<Option<Reply>, Cause> {
        loop {
            match self.buffered_reply()? {
                Some(reply) => return Ok(Some(reply)),
                None if !self.is_readable(Duration::ZERO) => return Ok(None),
                None => self.fill(Instant::now() + Duration::from_secs(1))?,
            }
        }
    }
}

impl From<BadReply> for Cause {
    fn from(bad: BadReply) -> Self {
        Self::BadReply(bad)
    }
}

fn flight_size(socket: &Socket) -> usize {
    socket.send_buffer_size().unwrap_or(0).max(2 * READ_SIZE) / 2
}

/// To a socket, zero means "wait for ever".
fn at_least_a_tick(left: Duration) -> Duration {
    left.max(Duration::from_millis(1))
}

/// Whether a timeout is worth setting anew: a system call for each read would buy a precision nobody needs.
fn differs(set: Duration, wanted: Duration) -> bool {
    set.abs_diff(wanted) > wanted / 50
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
