//! What the caller hears: a line for each recipient, the dialogue, the last reply, the exit code.
//!
//! - Owns: standard error and standard output of a delivery.
//! - Leaves to others: the line's format (`mail`), the codes (`exit`).
//! - Always true: a recipient's line is written as soon as its outcome is known; output that nobody takes changes nothing.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::exit;
use super::signals::Signals;
use crate::cli::sendmail::options::Role;
use crate::mail::{Attempt, Delays, Outcome, Recipient};
use crate::net::{Line, Observer, Peer};
use crate::smtp::{Capabilities, Settled};

/// What is said of mail that may arrive twice.
const DOUBT: &str = "message may be sent more than once";

/// When what began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// The command.
    begun: Instant,
    /// The delivery, with all of the message there.
    read: Instant,
    /// The batch.
    batch: Instant,
}

impl Times {
    /// The message has just come to its end.
    pub(super) fn new(begun: Instant) -> Self {
        let now = Instant::now();
        Self { begun, read: now, batch: now }
    }

    /// As in the agent's log: before the delivery began, waiting, connecting, transmitting.
    fn delays(&self, ready: Option<Instant>) -> Delays {
        let now = Instant::now();
        // Without a session all of the time went into looking for one.
        let ready = ready.unwrap_or(now);
        Delays {
            before_queue: self.read.saturating_duration_since(self.begun),
            in_queue: self.batch.saturating_duration_since(self.read),
            connection: ready.saturating_duration_since(self.batch),
            transmission: now.saturating_duration_since(ready),
        }
    }
}

/// The connection that a batch is on.
#[derive(Debug)]
struct Session {
    relay: String,
    uses: u32,
    since: Instant,
}

/// Hears of each recipient's outcome, and tells it.
pub(super) struct Results<'a> {
    role: Role,
    /// By position.
    recipients: &'a [Recipient],
    times: Times,
    signals: &'a Signals,
    session: Option<Session>,
    /// The server that could be connected to, and was not ready for mail.
    not_ready: Option<String>,
    outcomes: Vec<Outcome>,
}

impl<'a> Results<'a> {
    pub(super) fn new(role: Role, recipients: &'a [Recipient], times: Times, signals: &'a Signals) -> Self {
        let (session, not_ready, outcomes) = (None, None, Vec::new());
        Self { role, recipients, times, signals, session, not_ready, outcomes }
    }

    /// A batch begins.
    pub(super) fn begin(&mut self) {
        self.times.batch = Instant::now();
        (self.session, self.not_ready) = (None, None);
    }

    /// How many recipients are settled.
    pub(super) fn count(&self) -> usize {
        self.outcomes.len()
    }

    /// Whether the server left somebody without a word who was settled since then.
    pub(super) fn broke_off_since(&self, count: usize) -> bool {
        let since = self.outcomes.get(count..).unwrap_or_default();
        let broke_off = |outcome: &Outcome| {
            let reason = outcome.reason();
            reason.reply.is_none() && reason.status.subject_and_detail() == (4, 2)
        };
        since.iter().any(broke_off)
    }

    /// Whether a signal has asked to begin nothing more.
    pub(super) fn is_told_to_stop(&self) -> bool {
        self.signals.is_told()
    }

    /// The same outcome for recipients of whom no server has heard.
    pub(super) fn settle_all(&mut self, recipients: &[Recipient], outcome: &Outcome) {
        let settle = |recipient: &Recipient| {
            let position = recipient.position;
            Settled { position, outcome: outcome.clone(), in_doubt: false }
        };
        self.settled(recipients.iter().map(settle).collect());
    }

    /// Prints the last reply that decided about a recipient.
    pub(super) fn show_last_reply(&self) {
        let last = self.outcomes.iter().rev().find_map(|outcome| outcome.reason().reply.as_deref());
        if let Some(reply) = last {
            // Nobody may be there to read it, and the mail is delivered all the same.
            let mut stdout = io::stdout();
            let _ = stdout.write_all(format!("{reply}\n").as_bytes()).and_then(|()| stdout.flush());
        }
    }

    /// What became of all of them.
    pub(super) fn exit_code(&self) -> ExitCode {
        exit::code(self.role, self.recipients.len(), &self.outcomes).into()
    }

    fn tell(&self, recipient: &Recipient, outcome: &Outcome) {
        let (relay, uses, ready) = match &self.session {
            Some(session) => (session.relay.as_str(), session.uses, Some(session.since)),
            None => (self.not_ready.as_deref().unwrap_or("none"), 0, None),
        };
        let delays = self.times.delays(ready);
        say(&Attempt { recipient, relay, uses, delays, outcome }.to_string());
    }
}

impl Observer for Results<'_> {
    fn ready(&mut self, peer: &Peer, _: &Capabilities, uses: u32) {
        self.session = Some(Session { relay: peer.relay(), uses, since: Instant::now() });
    }

    fn not_ready(&mut self, peer: Option<&Peer>) {
        self.session = None;
        self.not_ready = peer.map(Peer::relay);
    }

    fn end_of_data(&mut self, _: &[u32]) -> io::Result<()> {
        self.signals.point_of_no_return()
    }

    fn settled(&mut self, settled: Vec<Settled>) {
        for Settled { position, mut outcome, in_doubt } in settled {
            if in_doubt {
                warn_of_doubt(&mut outcome);
            }
            let recipient = usize::try_from(position).ok().and_then(|at| self.recipients.get(at));
            if let Some(recipient) = recipient {
                self.tell(recipient, &outcome);
            }
            self.outcomes.push(outcome);
        }
    }

    fn note(&mut self, text: &str) {
        say(&format!("{}: {text}", self.role.name()));
    }

    /// The command ends before that matters to anybody but itself.
    fn manner_changed(&mut self, _: &str) {}

    /// The outcomes say so too.
    fn protocol_error(&mut self, _: &str) {}
}

/// Says that the server may have the mail, where the words do not say so already.
fn warn_of_doubt(outcome: &mut Outcome) {
    if let Outcome::Delivered(reason) | Outcome::Deferred(reason) | Outcome::Bounced(reason) = outcome
        && !reason.text.contains(DOUBT)
    {
        reason.text = format!("{} -- {DOUBT}", reason.text);
    }
}

/// Shows a line of the dialogue (`--dump`).
pub(super) fn show_line(line: Line<'_>) {
    let (who, text) = match line {
        Line::Client(text) => ("C", text),
        Line::Server(text) => ("S", text),
        Line::Note(text) => ("-", text),
    };
    say(&format!("{who}: {text}"));
}

/// Writes a line to standard error, at once and whole. Where nobody can read it the exit code still says the same.
pub(super) fn say(line: &str) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// The same for who must not wait: a reader that takes nothing now does not hear it. The lock on standard error is left
/// alone, because another thread may hold it and wait for that reader.
pub(super) fn say_without_waiting(line: &str) {
    let stderr = io::stderr();
    let mut ready = [PollFd::new(&stderr, PollFlags::OUT)];
    let is_ready = poll(&mut ready, Some(&Timespec::default())).is_ok_and(|count| count > 0);
    // A pipe that takes any octets takes as many as a line has.
    if is_ready {
        let _ = rustix::io::write(&stderr, format!("{line}\n").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{EnhancedStatus, Reason};

    #[test]
    fn doubt_is_told_once() {
        for (text, expected) in [
            ("host mx said: 421 bye", "host mx said: 421 bye -- message may be sent more than once"),
            (
                "lost connection with mx while sending end of data -- message may be sent more than once",
                "lost connection with mx while sending end of data -- message may be sent more than once",
            ),
        ] {
            let mut outcome = Outcome::Deferred(Reason::local(EnhancedStatus::new(4, 4, 2), text));
            warn_of_doubt(&mut outcome);
            assert_eq!(outcome.reason().text, expected);
        }
    }
}
