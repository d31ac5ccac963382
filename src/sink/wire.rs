//! One connection's octets: buffered both ways.
//!
//! - Owns: the buffers, the lines, when what was written is sent.
//! - Leaves to others: encryption (`channel`), what the octets mean (`session`, `receive`).
//! - Always true: replies gather until the input is exhausted and leave in one write; a line, the input and the
//!   output are bounded; no read or write waits longer than the limit, nor longer than until the server stops.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket};

use super::channel::Channel;
use super::server::Stop;

/// Octets of input held at a time.
const INPUT_SIZE: usize = 64 * 1024;
/// Octets of a line. RFC 5321 section 4.5.3.1.4 asks for 512 of a command; RFC 4954 section 4 for so many of a line of a
/// login, without its end.
const LINE_LENGTH_MAX: usize = 12 * 1024;
/// Octets of output that may gather before they are sent.
const OUTPUT_MAX: usize = 16 * 1024;
/// The same while a rule holds the replies back.
const HELD_OUTPUT_MAX: usize = 1024 * 1024;

/// How long a connection that we close waits for the peer to close it, too.
const PARTING_TIME_MAX: Duration = Duration::from_secs(1);

/// The connection is over.
#[derive(Debug)]
pub(super) enum Ended {
    /// The peer has gone or is too slow, a rule closes the connection, or the server stops.
    Abruptly,
    /// A last reply was written, which must reach the peer.
    AfterReply,
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        log::debug!("sink: a connection broke: {error}");
        Self::Abruptly
    }
}

/// What [`Wire::read_line`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line, without its end.
    Complete,
    /// A line that is too long; it was read to its end and is gone.
    TooLong,
    /// None in time.
    TimedOut,
}

/// A connection with its buffers.
pub(super) struct Wire {
    /// The octets as they travel.
    pub channel: Channel,
    stop: Arc<Stop>,
    limit: Duration,
    input: Vec<u8>,
    start: usize,
    end: usize,
    output: Vec<u8>,
    /// Keeps replies back until released.
    pub held: bool,
    /// Drops all further output.
    pub muted: bool,
}

impl Wire {
    /// Wraps a connected socket; `limit` bounds each read, each write and each line.
    pub fn new(socket: Arc<Socket>, stop: Arc<Stop>, limit: Duration) -> io::Result<Self> {
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(limit))?;
        socket.set_write_timeout(Some(limit))?;
        if socket.domain()? != Domain::UNIX {
            socket.set_tcp_nodelay(true)?;
        }
        let (input, output) = (vec![0; INPUT_SIZE], Vec::with_capacity(1024));
        let channel = Channel::new(socket, limit);
        Ok(Self { channel, stop, limit, input, start: 0, end: 0, output, held: false, muted: false })
    }

    /// What has been read and not yet consumed.
    pub fn available(&self) -> &[u8] {
        self.input.get(self.start..self.end).unwrap_or_default()
    }

    /// Takes octets off the front of what is available.
    pub fn consume(&mut self, octets: usize) {
        self.start = (self.start + octets).min(self.end);
    }

    /// The space where replies gather.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Sends what has gathered, unless it is held back.
    pub fn flush(&mut self) -> Result<(), Ended> {
        if self.held && self.output.len() < HELD_OUTPUT_MAX {
            return Ok(());
        }
        if !self.muted && !self.output.is_empty() {
            self.channel.write_all(&self.output)?;
        }
        self.output.clear();
        Ok(())
    }

    /// Sends what has gathered if it is much.
    pub fn relieve(&mut self) -> Result<(), Ended> {
        if self.output.len() > OUTPUT_MAX { self.flush() } else { Ok(()) }
    }

    /// Reads more, after sending what has gathered: the peer may be waiting for it.
    pub fn fill(&mut self) -> Result<(), Ended> {
        self.read_more()?.then_some(()).ok_or(Ended::Abruptly)
    }

    /// As [`Wire::fill`]; `false` when nothing came in time.
    fn read_more(&mut self) -> Result<bool, Ended> {
        self.flush()?;
        if self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let Some(room) = self.input.get_mut(self.end..).filter(|room| !room.is_empty()) else {
            return Err(Ended::Abruptly);
        };
        loop {
            match self.channel.read(room) {
                Ok(0) => return Err(Ended::Abruptly),
                Ok(octets) => {
                    self.end += octets;
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads a line into `line`; a bare LF ends it too.
    pub fn read_line(&mut self, line: &mut Vec<u8>) -> Result<Line, Ended> {
        line.clear();
        let (mut scanned, mut too_long, mut began) = (0, false, None);
        loop {
            let available = self.available();
            if let Some(at) = memchr::memchr(b'\n', available.get(scanned..).unwrap_or_default()) {
                let length = scanned + at;
                let text = available.get(..length).unwrap_or_default();
                line.extend_from_slice(text.strip_suffix(b"\r").unwrap_or(text));
                self.consume(length + 1);
                let fits = !too_long && line.len() <= LINE_LENGTH_MAX;
                return Ok(if fits { Line::Complete } else { Line::TooLong });
            }
            scanned = available.len();
            if scanned > LINE_LENGTH_MAX {
                too_long = true;
                self.consume(scanned);
                scanned = 0;
            }
            let began = *began.get_or_insert_with(Instant::now);
            if !self.read_more()? || began.elapsed() > self.limit {
                return Ok(Line::TimedOut);
            }
        }
    }

    /// Waits, after sending what has gathered; ends early when the server stops.
    pub fn pause(&mut self, time: Duration) -> Result<(), Ended> {
        self.flush()?;
        if self.stop.wait(time) { Err(Ended::Abruptly) } else { Ok(()) }
    }

    /// Writes `octets` bit by bit, after what has gathered.
    pub fn drip(&mut self, octets: &[u8], at_a_time: usize, interval: Duration) -> Result<(), Ended> {
        for piece in octets.chunks(at_a_time.max(1)) {
            self.output.extend_from_slice(piece);
            self.pause(interval)?;
        }
        Ok(())
    }

    /// Makes the close of this connection a reset (TCP).
    pub fn reset_on_close(&self) -> Result<(), Ended> {
        Ok(self.channel.socket().set_linger(Some(Duration::ZERO))?)
    }

    /// Forgets what has been read: it came before TLS, and nothing that came before is to count (RFC 3207 section 4.2).
    pub fn forget_input(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// How long each read, each write and each line may take.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Closes without a reset: closing with unread input would make one, and the peer could lose the last reply.
    pub fn close_gently(&mut self) {
        let flushed = self.flush().is_ok();
        if flushed && !self.muted {
            self.channel.say_goodbye();
        }
        let socket = self.channel.socket();
        let parting = flushed
            && socket.shutdown(std::net::Shutdown::Write).is_ok()
            && socket.set_read_timeout(Some(PARTING_TIME_MAX)).is_ok();
        if parting {
            self.drain(Instant::now() + PARTING_TIME_MAX);
        }
    }

    /// Says nothing and hears nothing, until the peer closes or has waited for as long as we would.
    pub fn play_dead(&mut self) {
        self.drain(Instant::now() + self.limit);
    }

    /// Reads below TLS and forgets; ends at the end of file, at an error and when time is up.
    fn drain(&mut self, until: Instant) {
        let mut socket = self.channel.socket();
        while Instant::now() < until {
            match socket.read(&mut self.input) {
                Ok(1..) => {}
                _ => break,
            }
        }
    }
}
