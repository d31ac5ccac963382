//! Drives the protocol over one socket; errors gain peer and stage here, once.
//!
//! - Owns: the handshake, the order of writing and reading within a transaction, QUIT.
//! - Leaves to others: what is said and what a reply means (`smtp`), when a connection is used again (`cached`), how long
//!   a reply is awaited (`progress`).
//! - Always true: whoever may get the message is told to the observer before the end of data leaves.

use std::io;
use std::time::{Duration, Instant};

use socket2::Socket;

use super::content::Content;
use super::link::Link;
use super::observer::Observer;
use super::peer::Peer;
use super::progress::Progress;
use super::shake_hands::{Failure, Opening, say_quit, shake_hands};
use super::tap::Tap;
use super::transcript::Transcript;
use crate::config::Transport;
use crate::mail::{Protocol, Reason};
use crate::smtp::{
    Capabilities, Cause, DotStuffing, Encoding, Flight, Reply, SessionError, Stage, Step, Transaction,
};

/// Octets of a buffer that is kept for the next message.
const KEPT_MAX: usize = 16 * 1024;
/// How long one look for the reply to QUIT takes, before we see whether work is waiting.
const QUIT_PAUSE: Duration = Duration::from_millis(20);

/// A connection that is ready for mail.
#[derive(Debug)]
pub struct Connection {
    link: Link,
    /// Which of the destination's servers this is.
    server: usize,
    protocol: Protocol,
    name: String,
    offered: Capabilities,
    is_logged_in: bool,
    /// Transactions begun.
    uses: u32,
    opened: Instant,
    rested_since: Instant,
    buffers: Buffers,
}

/// What content is read into and written from. Kept while it is small, as it is for most mail.
#[derive(Debug, Default)]
struct Buffers {
    read: Vec<u8>,
    out: Vec<u8>,
}

/// Why a server that answered is not ready for mail.
#[derive(Debug)]
pub struct NotReady {
    /// In words.
    pub reason: Reason,
    /// It was ready as far as that goes without TLS, and the TLS handshake failed.
    pub tls_failed: bool,
    /// It does not take our login.
    pub login_failed: bool,
    /// What was said until then.
    pub transcript: Transcript,
}

impl Connection {
    /// Takes a connected socket through greeting, LHLO or EHLO, TLS and login. An error is the destination's fault; `tap`
    /// hears what is said.
    pub fn start(
        socket: Socket,
        peer: Peer,
        opening: &mut Opening<'_>,
        mut tap: Tap,
    ) -> Result<Self, Box<NotReady>> {
        let (name, transport) = (peer.name(), opening.transport);
        if transport.debug_peer_list.iter().any(|pattern| peer.matches(pattern)) {
            tap.log(peer.relay(), transport.debug_peer_level);
        }
        let mut link = Link::new(socket, peer, tap);
        match shake_hands(&mut link, &name, opening) {
            Ok(offered) => Ok(Self {
                link,
                server: opening.place,
                protocol: transport.protocol,
                name,
                offered,
                is_logged_in: opening.credentials.is_some(),
                uses: 0,
                opened: Instant::now(),
                rested_since: Instant::now(),
                buffers: Buffers::default(),
            }),
            Err(failure) => {
                link.note_surplus();
                let transcript = std::mem::take(link.tap().transcript());
                let Failure { reason, tls_failed, login_failed } = failure;
                Err(Box::new(NotReady { reason, tls_failed, login_failed, transcript }))
            }
        }
    }

    /// How it is secured, as the log has it: `Verified TLS connection established to …`; `None` in clear.
    pub fn security(&self) -> Option<String> {
        let tls = self.link.tls()?;
        let (trust, peer) = (tls.trust(), self.link.peer().relay());
        Some(format!("{trust} TLS connection established to {peer}: {}", tls.summary()))
    }

    /// Whether we have logged in.
    pub fn is_logged_in(&self) -> bool {
        self.is_logged_in
    }

    /// The other end.
    pub fn peer(&self) -> &Peer {
        self.link.peer()
    }

    /// Its place among the destination's servers.
    pub fn server(&self) -> usize {
        self.server
    }

    /// The other end, as reasons name it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the server offers.
    pub fn offered(&self) -> &Capabilities {
        &self.offered
    }

    /// Transactions begun so far.
    pub fn uses(&self) -> u32 {
        self.uses
    }

    /// When the server was last heard of.
    pub fn rested_since(&self) -> Instant {
        self.rested_since
    }

    /// The server took fewer recipients than it was offered: later transactions ask for no more.
    pub fn learn_recipient_limit(&mut self, limit: usize) {
        self.offered.rcpt_max = Some(self.offered.rcpt_max.map_or(limit, |known| known.min(limit)));
    }

    /// How long it may still rest before it is too old or too idle to be used again.
    pub fn may_rest(&self, transport: &Transport) -> Duration {
        let idle = transport.max_idle.saturating_sub(self.rested_since.elapsed());
        let age = transport.habits.reuse_time_limit.map(|limit| limit.saturating_sub(self.opened.elapsed()));
        age.map_or(idle, |age| idle.min(age))
    }

    /// Whether it has become older than a connection may.
    pub fn is_too_old(&self, transport: &Transport) -> bool {
        transport.habits.reuse_time_limit.is_some_and(|limit| self.opened.elapsed() >= limit)
    }

    /// Whether the idle socket has anything to read: a 421, the end of file, whatever. Nothing is awaited, so all of
    /// that means that the connection is of no more use.
    pub fn is_stale(&mut self) -> bool {
        self.link.is_readable(Duration::ZERO)
    }

    /// Carries out `transaction`. An error settles nobody: the caller knows whether trying again is safe. With
    /// `retry`, a 421 instead of the first reply is such an error: the server had closed before we came.
    pub fn transact(
        &mut self,
        transaction: &mut Transaction<'_, '_>,
        content: &dyn Content,
        transport: &Transport,
        retry: bool,
        observer: &mut dyn Observer,
    ) -> Result<(), SessionError> {
        self.uses += 1;
        let mut progress = Progress::default();
        let room = self.link.flight_size();
        let mut answered = Stage::Lhlo;
        loop {
            match transaction.next_step(room) {
                Step::Write(flight) => {
                    let waits_for_content =
                        matches!(flight.content, Some(Encoding::Dots | Encoding::SevenBitDots));
                    self.link
                        .expect_no_surplus(waits_for_content)
                        .map_err(|cause| self.broken(answered, cause, &progress))?;
                    self.write(&flight, transaction, content, transport, &mut progress, observer)
                        .or_else(|error| self.after_failed_write(error, transaction, retry, observer))?;
                }
                Step::Read(stage) => {
                    let deadline = progress.deadline(Instant::now(), stage, transaction, transport);
                    let reply = self.link.read_reply(deadline);
                    if retry && reply.as_ref().is_ok_and(|reply| had_closed(transaction, reply)) {
                        progress.end_of_data_written = None;
                        return Err(self.broken(stage, Cause::LostConnection, &progress));
                    }
                    let taken = reply.and_then(|reply| Ok(transaction.on_reply(&reply)?));
                    transaction.take_warnings().iter().for_each(|text| observer.warning(text));
                    taken.map_err(|cause| self.broken(stage, cause, &progress))?;
                    answered = stage;
                    // What has arrived together is recorded together: fewer writes to disk.
                    if !self.link.has_line() || transaction.replies_due() == 0 {
                        observer.settled(transaction.take_settled());
                    }
                }
                Step::Done => break,
            }
        }
        observer.settled(transaction.take_settled());
        // A transaction in which nothing had to be said tells nothing of the server.
        if transaction.replies_read() > 0 {
            self.rested_since = Instant::now();
        }
        Ok(())
    }

    fn write(
        &mut self,
        flight: &Flight,
        transaction: &mut Transaction<'_, '_>,
        content: &dyn Content,
        transport: &Transport,
        progress: &mut Progress,
        observer: &mut dyn Observer,
    ) -> Result<(), SessionError> {
        let deadline = Instant::now() + transport.timeout_at(flight.stage).get();
        let Some(encoding) = flight.content else {
            return self
                .link
                .write_commands(&flight.commands, deadline)
                .map_err(|cause| self.broken(flight.stage, cause, progress));
        };
        observer
            .end_of_data(&transaction.at_stake())
            .map_err(|error| self.broken(Stage::DataXfer, Cause::LocalData(error), progress))?;
        self.write_content(flight, encoding, content, transport)
            .map_err(|cause| self.broken(Stage::DataXfer, cause, progress))?;
        transaction.content_has_left();
        progress.end_of_data_written = Some(Instant::now());
        Ok(())
    }

    /// Writes commands and content; small content in the same write.
    fn write_content(
        &mut self,
        flight: &Flight,
        encoding: Encoding,
        content: &dyn Content,
        transport: &Transport,
    ) -> Result<(), Cause> {
        let progress = transport.timeouts.data_xfer.get();
        // Each octet may become three, and every 73 of them a line.
        let growth = if encoding == Encoding::SevenBitDots { 4 } else { 1 };
        let size = content.size().saturating_mul(growth);
        let deadline = Instant::now() + progress + slowest(size, transport.min_data_rate);
        let room = self.link.flight_size();
        self.link.tap().commands(&flight.commands);
        self.link.tap().content(content.size());
        let Buffers { mut read, mut out } = std::mem::take(&mut self.buffers);
        out.extend_from_slice(&flight.commands);
        let mut dots = (encoding != Encoding::Chunk).then(|| DotStuffing::new(transport.line_length_limit));
        let mut take = |piece: &[u8]| {
            match &mut dots {
                Some(dots) => dots.push(piece, &mut out),
                None => out.extend_from_slice(piece),
            }
            if out.len() > room / 2 {
                self.link.write_content(&out, progress, deadline)?;
                out.clear();
            }
            Ok(())
        };
        match encoding {
            Encoding::SevenBitDots => content.for_each_seven_bit_piece(&mut read, &mut take)?,
            Encoding::Chunk | Encoding::Dots => content.for_each_piece(&mut read, &mut take)?,
        }
        if let Some(dots) = dots {
            dots.finish(&mut out);
        }
        self.link.write_content(&out, progress, deadline)?;
        out.clear();
        if read.capacity().max(out.capacity()) <= KEPT_MAX {
            self.buffers = Buffers { read, out };
        }
        Ok(())
    }

    /// A server that stops reading has often said why: its replies are taken as if they had come in time. Refusals
    /// stand. Accepting content that has not left is no answer, and ends this. With `retry`, so does a 421 that says no
    /// more than that the server had closed before we came.
    fn after_failed_write(
        &mut self,
        error: SessionError,
        transaction: &mut Transaction<'_, '_>,
        retry: bool,
        observer: &mut dyn Observer,
    ) -> Result<(), SessionError> {
        if matches!(error.cause, Cause::LocalData(_) | Cause::TimedOut) {
            return Err(error);
        }
        while transaction.replies_due() > 0 {
            let Ok(Some(reply)) = self.link.early_reply() else { break };
            if retry && had_closed(transaction, &reply) || transaction.on_reply(&reply).is_err() {
                break;
            }
        }
        observer.settled(transaction.take_settled());
        Err(error)
    }

    fn broken(&self, stage: Stage, cause: Cause, progress: &Progress) -> SessionError {
        // A UNIX socket is reset when its peer closes with unread bytes: it has not read to the end of data.
        // Of TLS it may have left unread what is no mail.
        let unread = matches!(&cause, Cause::Io(error) if error.kind() == io::ErrorKind::ConnectionReset)
            && self.link.tls().is_none();
        let end_of_data_written =
            progress.end_of_data_written.is_some() && !(unread && self.peer().is_unix());
        SessionError { peer: self.name.clone(), protocol: self.protocol, stage, cause, end_of_data_written }
    }

    /// Keeps what is said from now on, or stops to.
    pub fn keep_transcript(&mut self, keep: bool) {
        self.link.tap().transcript().turn(keep);
    }

    /// What was said so far.
    pub fn transcript(&mut self) -> &Transcript {
        self.link.tap().transcript()
    }

    /// The conversation cannot go on: adds to the transcript what the server sent and nobody could use.
    pub fn note_break(&mut self) {
        self.link.note_surplus();
        self.link.tap().transcript().note(format_args!("here the conversation was broken off"));
    }

    /// Whether another transaction may follow, as far as limits and stray bytes go.
    pub fn may_be_kept(&self, transport: &Transport) -> bool {
        let limit = self.offered.mail_max.unwrap_or(u32::MAX).min(transport.max_use);
        let is_young = !self.is_too_old(transport);
        transport.cache_connection && self.uses < limit && is_young && !self.link.has_surplus()
    }

    /// Says QUIT and waits for the answer, unless work is waiting or nobody cares for it.
    pub fn quit(&mut self, transport: &Transport, work_is_waiting: &dyn Fn() -> bool) {
        let deadline = Instant::now() + transport.timeouts.quit.get();
        // A server that has gone needs no goodbye.
        if say_quit(&mut self.link).is_err() || transport.skip_quit_response {
            return;
        }
        while Instant::now() < deadline && !work_is_waiting() {
            if self.link.is_readable(QUIT_PAUSE) {
                // Only to let it be heard.
                let _ = self.link.early_reply();
                return;
            }
        }
    }
}

/// Whether `reply`, which is about to be taken, says 421 before anything else was said.
fn had_closed(transaction: &Transaction<'_, '_>, reply: &Reply) -> bool {
    transaction.replies_read() == 0 && reply.is_closing()
}

/// Time for `size` octets at `rate` octets a second; without a rate, as good as for ever.
fn slowest(size: u64, rate: u64) -> Duration {
    Duration::from_secs(size.checked_div(rate).unwrap_or(u64::from(u32::MAX)).min(u64::from(u32::MAX)))
}

#[cfg(test)]
mod tests;
