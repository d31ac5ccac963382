//! One socket: replies in, bytes out, each within a deadline, in clear or over TLS.
//!
//! - Owns: the socket, its timeouts, bytes that were read and not used yet.
//! - Leaves to others: what is awaited and for how long (`connection`), who else hears it (`tap`), TLS itself (`tls`).
//! - Always true: a peer that drips bytes cannot stretch a deadline, because each read gets what is left of it. What was
//!   begun over TLS never goes on in clear.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::Socket;

use super::peer::Peer;
use super::tap::Tap;
use super::tls::{TlsError, TlsSessions, TlsStream};
use crate::config::{TlsPolicy, Transport};
use crate::mail::Server;
use crate::smtp::{self, BadReply, Cause, Redactor, Reply, parse_auth_reply, parse_reply};

const READ_SIZE: usize = 4096;
/// What is told of a line that is no reply where it may repeat a secret.
const HIDDEN: &str = "[...]";
/// Octets written at once. The kernel cuts a write to a UNIX socket into packets, and each of them may wait as long as
/// the send timeout says: so one write must not be many packets.
const WRITE_SIZE_MAX: usize = 128 * 1024;

/// How long [`Link::early_reply`] reads on while there is something to read.
const EARLY_REPLY_MAX: Duration = Duration::from_secs(1);

/// A connected socket.
#[derive(Debug)]
pub struct Link {
    wire: Wire,
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
    /// What must not be shown of the peer's words.
    redactor: Option<Redactor>,
}

/// How octets get to the peer.
#[derive(Debug)]
enum Wire {
    Plain(Socket),
    Tls(Box<TlsStream>),
    /// A handshake has failed.
    Closed,
}

/// A write that failed, or the peer's early word on it.
pub type Written = Result<(), Cause>;

impl Link {
    /// Takes a connected socket, and who hears what is said on it.
    pub fn new(socket: Socket, peer: Peer, tap: Tap) -> Self {
        let flight_size = flight_size(&socket);
        Self {
            wire: Wire::Plain(socket),
            peer,
            input: vec![0; READ_SIZE],
            used: 0,
            filled: 0,
            flight_size,
            receive_timeout: Duration::ZERO,
            send_timeout: Duration::ZERO,
            tap,
            redactor: None,
        }
    }

    /// Leaves out of replies, from now on, what must not be shown: some servers repeat what they have heard.
    pub fn hide(&mut self, redactor: Option<Redactor>) {
        self.redactor = redactor;
    }

    /// The other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Begins TLS, until `deadline`, as `policy` asks for `server`. After an error the link is closed; but where the
    /// certificate was the reason ([`TlsError::Certificate`]), QUIT can still be said, and nothing else should be.
    pub fn start_tls(
        &mut self,
        sessions: &mut TlsSessions,
        server: &Server,
        transport: &Transport,
        policy: &TlsPolicy<'_>,
        deadline: Instant,
    ) -> Result<(), TlsError> {
        let wire = std::mem::replace(&mut self.wire, Wire::Closed);
        // Whoever can put something in between the two must not have it taken for the server's words under TLS.
        if self.has_surplus() {
            return Err(TlsError::Handshake(
                "the server sent more in clear than the reply to STARTTLS".to_owned(),
            ));
        }
        let Wire::Plain(socket) = wire else {
            return Err(TlsError::Handshake("TLS was begun on this connection already".to_owned()));
        };
        let mut stream = sessions.start(socket, server, transport, policy, deadline)?;
        let judged = stream.judge(&self.peer, server, transport, policy);
        self.wire = Wire::Tls(Box::new(stream));
        self.flight_size = less_records(self.flight_size);
        // The handshake had its own.
        (self.receive_timeout, self.send_timeout) = (Duration::ZERO, Duration::ZERO);
        judged
    }

    /// TLS, if it is spoken.
    pub fn tls(&self) -> Option<&TlsStream> {
        match &self.wire {
            Wire::Tls(stream) => Some(stream),
            Wire::Plain(_) | Wire::Closed => None,
        }
    }

    /// Who hears what is said.
    pub fn tap(&mut self) -> &mut Tap {
        &mut self.tap
    }

    /// Lets be heard what was read and cannot be used.
    pub fn note_surplus(&mut self) {
        let surplus = self.input.get(self.used..self.filled).unwrap_or_default();
        match &self.redactor {
            None => self.tap.surplus(surplus),
            Some(redactor) => {
                self.tap.surplus(redactor.redact(&String::from_utf8_lossy(surplus)).as_bytes());
            }
        }
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

    /// Reads one reply to a line of a login, until `deadline`. Whoever listens hears what `shown` makes of it; of what is no
    /// reply, nothing: it may repeat what we have said.
    pub fn read_auth_reply(
        &mut self,
        deadline: Instant,
        shown: impl Fn(&Reply) -> String,
    ) -> Result<Reply, Cause> {
        loop {
            match parse_auth_reply(self.unused()) {
                Ok(Some((reply, length))) => {
                    self.tap.shown_reply(&shown(&reply));
                    self.used += length;
                    return Ok(reply);
                }
                Ok(None) => {
                    if let Err(cause) = self.fill(deadline) {
                        self.used = self.filled;
                        return Err(cause);
                    }
                }
                Err(bad) => {
                    self.used = self.filled;
                    return Err(Cause::BadReply(match bad {
                        BadReply::Syntax(_) => BadReply::Syntax(HIDDEN.to_owned()),
                        other => other,
                    }));
                }
            }
        }
    }

    /// A reply that has arrived whole already.
    pub fn buffered_reply(&mut self) -> Result<Option<Reply>, Cause> {
        let parsed = parse_reply(self.unused());
        let Some(redactor) = &self.redactor else {
            let Some((reply, length)) = parsed.map_err(Cause::BadReply)? else { return Ok(None) };
            self.tap.reply(&reply, &self.input[self.used..self.used + length]);
            self.used += length;
            return Ok(Some(reply));
        };
        let parsed = parsed.map_err(|bad| match bad {
            // Cut off as it is, the end of it may be the beginning of a secret.
            BadReply::Syntax(_) => BadReply::Syntax(HIDDEN.to_owned()),
            other => other,
        });
        let Some((mut reply, length)) = parsed.map_err(Cause::BadReply)? else { return Ok(None) };
        reply.hide(|text| redactor.redact(text));
        self.tap.shown_reply(reply.text());
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
        let read = self.wire.read(&mut self.input[self.filled..]);
        self.filled += *read.as_ref().unwrap_or(&0);
        match read {
            Ok(0) => Err(Cause::LostConnection),
            Ok(_) => Ok(()),
            // A signal, or a record of TLS that holds no reply.
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
            self.wire.socket()?.set_read_timeout(Some(at_least_a_tick(left))).map_err(Cause::Io)?;
            self.receive_timeout = left;
        }
        Ok(())
    }

    fn limit_writing(&mut self, left: Duration) -> Result<(), Cause> {
        if left.is_zero() {
            return Err(Cause::TimedOut);
        }
        if differs(self.send_timeout, left) {
            self.wire.socket()?.set_write_timeout(Some(at_least_a_tick(left))).map_err(Cause::Io)?;
            self.send_timeout = left;
        }
        Ok(())
    }

    /// Writes command lines, until `deadline`.
    pub fn write_commands(&mut self, commands: &[u8], deadline: Instant) -> Written {
        self.tap.commands(commands);
        self.write(commands, Duration::MAX, deadline)
    }

    /// Writes a line that may hold a secret, until `deadline`: whoever listens hears what may be shown of it.
    pub fn write_line(&mut self, line: &smtp::Line, deadline: Instant) -> Written {
        self.tap.commands(format!("{}\r\n", line.shown).as_bytes());
        self.write(&line.octets, Duration::MAX, deadline)
    }

    /// Writes content: each progress may take `progress`, the whole until `deadline`.
    pub fn write_content(&mut self, content: &[u8], progress: Duration, deadline: Instant) -> Written {
        self.write(content, progress, deadline)
    }

    fn write(&mut self, mut bytes: &[u8], progress: Duration, deadline: Instant) -> Written {
        while !bytes.is_empty() || self.wire.is_writing() {
            self.limit_writing(deadline.saturating_duration_since(Instant::now()).min(progress))?;
            match self.wire.write(&bytes[..bytes.len().min(WRITE_SIZE_MAX)]) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WriteZero => return Err(Cause::LostConnection),
                Err(error) if is_timeout(&error) => return Err(Cause::TimedOut),
                Err(error) => return Err(Cause::Io(error)),
            }
        }
        Ok(())
    }

    /// Whether anything can be read, the end of file included, within `wait`.
    pub fn is_readable(&mut self, wait: Duration) -> bool {
        if self.has_surplus() {
            return true;
        }
        match &mut self.wire {
            Wire::Plain(socket) => has_input(socket, wait),
            Wire::Tls(stream) => has_news(stream, wait),
            Wire::Closed => true,
        }
    }

    /// What the peer said before it stopped reading: replies that are there without waiting for more.
    pub fn early_reply(&mut self) -> Result<Option<Reply>, Cause> {
        let deadline = Instant::now() + EARLY_REPLY_MAX;
        loop {
            match self.buffered_reply()? {
                Some(reply) => return Ok(Some(reply)),
                None if !self.is_readable(Duration::ZERO) => return Ok(None),
                None => self.fill(deadline)?,
            }
        }
    }
}

impl Wire {
    fn socket(&self) -> Result<&Socket, Cause> {
        match self {
            Self::Plain(socket) => Ok(socket),
            Self::Tls(stream) => Ok(stream.socket()),
            Self::Closed => Err(Cause::LostConnection),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
            Self::Closed => Ok(0),
        }
    }

    /// How many of `bytes` need not be written any more; with TLS perhaps none in this turn, and some of them may still
    /// have to leave.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match self {
            Self::Plain(socket) => socket.write(bytes)?,
            Self::Tls(stream) => return stream.write(bytes),
            Self::Closed => 0,
        };
        if written > 0 { Ok(written) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn is_writing(&self) -> bool {
        matches!(self, Self::Tls(stream) if stream.is_writing())
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

/// What is left of `flight_size` for what goes into records of TLS: a record of up to 16384 octets has at most 29 more,
/// and a flight is written in a few pieces, each of which may be a record by itself.
fn less_records(flight_size: usize) -> usize {
    flight_size - flight_size / 32
}

/// Whether anything can be read from `socket`, the end of file included, within `wait`.
fn has_input(socket: &Socket, wait: Duration) -> bool {
    let timeout = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
    let mut descriptors = [PollFd::new(socket, PollFlags::IN)];
    // A poll that fails says nothing good about the socket.
    rustix::event::poll(&mut descriptors, Some(&timeout)).map_or(true, |ready| ready > 0)
}

/// The same for plain text: what else comes over TLS is taken in on the way.
fn has_news(stream: &mut TlsStream, wait: Duration) -> bool {
    let deadline = Instant::now() + wait;
    loop {
        if stream.has_news() {
            return true;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || !has_input(stream.socket(), left) {
            return false;
        }
    }
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

#[cfg(test)]
mod tests;
