//! Outcomes become reports to Postfix's daemons, log lines and marks, in this order and at once.
//!
//! - Owns: what is known of the conversation for the log, the hop status.
//! - Leaves to others: who is told what (`postfix::report`), the marks (`postfix::queue_file`).
//! - Always true: a recipient is marked right after its result was reported, and never before; who could not be marked
//!   after the mail was taken is told of in the log, since he will get it twice.

use std::io;
use std::time::Duration;

use jiff::{Timestamp, Zoned};

use super::delivery::Context;
use super::job::{Job, since_epoch};
use crate::agent::recorder::target;
use crate::mail::{Outcome, Reason};
use crate::net::{self, Observer, Peer, Transcript, is_about_protocol};
use crate::postfix::queue_file::QueueFile;
use crate::postfix::report::{Attempted, LogLine, NO_RELAY, Notice, Reports, Spoken, Stamps, Verdict};
use crate::postfix::request::HopStatus;
use crate::smtp::{Capabilities, Settled};

/// Among keywords to discard: nobody wants to read of it.
const SILENTLY: &str = "SILENT-DISCARD";

/// Records the outcomes of one request.
#[derive(Debug)]
pub struct Recorder<'a> {
    context: &'a Context,
    job: &'a Job,
    file: &'a QueueFile,
    reports: Reports<'a>,
    stamps: Stamps,
    session: Option<Session>,
    hop: Option<HopStatus>,
    /// What the postmaster may want to know of.
    trouble: Option<String>,
}

/// The server that the request is at.
#[derive(Debug)]
struct Session {
    relay: String,
    host: String,
    uses: u32,
    reports_success: bool,
}

impl<'a> Recorder<'a> {
    /// Begins with a job whose queue file is open.
    pub fn new(context: &'a Context, job: &'a Job, file: &'a QueueFile) -> Self {
        Self {
            context,
            job,
            file,
            reports: context.reporter.begin(),
            stamps: Stamps::new(&job.request.times, job.received),
            session: None,
            hop: None,
            trouble: None,
        }
    }

    /// The job.
    pub fn job(&self) -> &'a Job {
        self.job
    }

    /// Settles those of whom no server can be told.
    pub fn settle_refused(&mut self) {
        for (position, outcome) in &self.job.refused {
            self.settle(*position, outcome, now());
        }
    }

    /// What is settled next is decided by this service, and by no server.
    pub fn decided_here(&mut self) {
        let relay = self.context.service.clone();
        self.session = Some(Session { relay, host: String::new(), uses: 0, reports_success: false });
    }

    /// Settles everybody who is left.
    pub fn settle_rest(&mut self, outcome: &Outcome) {
        self.stamps.failed(now());
        for position in self.job.unsettled() {
            self.settle(position, outcome, now());
        }
    }

    /// Answers the request: everybody is settled.
    pub fn answer(self) {
        // qmgr logs that the message is removed once it has the answer: whoever reads the log expects that to be the end.
        self.context.log.write_now();
        self.job.answer(self.hop.as_ref());
    }

    fn settle(&mut self, position: u32, outcome: &Outcome, now: Duration) {
        let Some(recipient) = self.job.request.recipients.get(position as usize) else { return };
        if !self.job.settle(position) {
            return;
        }
        #[cfg(test)]
        super::tests::panic_if_asked_by(recipient, "between");
        let id = self.job.queue_id();
        let session = self.session.as_ref();
        let relay = session.map_or(NO_RELAY, |session| session.relay.as_str());
        let attempted = Attempted {
            queue_id: id,
            flags: self.job.request.flags,
            recipient,
            outcome,
            relay,
            host: session.map_or("", |session| session.host.as_str()),
            reports_success: session.is_some_and(|session| session.reports_success),
        };
        let (format, protocol) = (self.context.line_format, self.context.transport.protocol);
        let (uses, spent) = (session.map_or(0, |session| session.uses), self.stamps.spent(now));
        let Verdict { mark, is_done, .. } = self.reports.report(&attempted, &mut |result| {
            let line = LogLine { format, queue_id: id, recipient, relay, uses, spent, result };
            log::info!(target: target(protocol), "{line}");
        });
        if let Some(Err(error)) = mark.map(|offset| self.file.mark_done(offset)) {
            log::error!(
                "{id}: a recipient who is done with cannot be marked in the queue file: {error}; the mail may be \
                 delivered or returned again"
            );
        } else if is_done {
            self.job.account_for_one();
        }
    }

    /// Sends the postmaster what was said, where main.cf wants that.
    fn tell_postmaster(&self, what: &str, transcript: &Transcript) {
        let settings = &self.context.settings;
        let (id, notices) = (self.job.queue_id(), &settings.notices);
        if !Notice::is_for(&self.job.request.sender, &notices.double_bounce_sender) {
            return;
        }
        let transcript: Vec<_> = transcript
            .lines()
            .map(|line| match line {
                net::Line::Client(text) => Spoken::Out(text),
                net::Line::Server(text) => Spoken::In(text),
                net::Line::Note(text) => Spoken::Note(text),
            })
            .collect();
        let notice = Notice {
            sender: &notices.double_bounce_sender,
            recipient: &notices.recipient,
            hostname: &settings.myhostname,
            origin: &settings.myorigin,
            mail_name: &settings.mail_name,
            protocol: self.context.transport.protocol,
            relay: self.session.as_ref().map_or(NO_RELAY, |session| session.relay.as_str()),
            queue_id: id,
            what,
            transcript: &transcript,
            now: &Zoned::now(),
        };
        match self.context.reporter.services().submit(&notice) {
            Ok(notice) => log::info!("{id}: postmaster notification: {notice}"),
            Err(failure) => log::warn!("{id}: the postmaster cannot be notified: {failure}"),
        }
    }
}

impl Observer for Recorder<'_> {
    fn ready(&mut self, peer: &Peer, offered: &Capabilities, uses: u32) {
        if self.session.is_some() {
            self.stamps.again();
        }
        self.stamps.ready(now());
        self.session = Some(Session {
            relay: peer.relay(),
            host: peer.host().to_owned(),
            uses,
            reports_success: offered.dsn,
        });
    }

    fn not_ready(&mut self, peer: Option<&Peer>) {
        self.session = peer.map(|peer| Session {
            relay: peer.relay(),
            host: peer.host().to_owned(),
            uses: 0,
            reports_success: false,
        });
    }

    fn destination_failed(&mut self, reason: &Reason) {
        self.stamps.failed(now());
        // Of each address that cannot be connected to there is a line; of a socket its recipients' say enough.
        if self.session.is_none()
            && reason.text.starts_with("connect to ")
            && !self.job.request.nexthop.starts_with("unix:")
        {
            self.note(&reason.text);
        }
        if self.context.settings.notices.data && reason.text.starts_with("local data error") {
            self.trouble.get_or_insert_with(|| reason.text.clone());
        }
        // A probe defers nobody, and a host that does not exist is no server to be spared.
        if reason.status.class() == 4 && !self.job.request.flags.is_probe() {
            self.hop.get_or_insert_with(|| HopStatus { status: reason.status, reason: reason.text.clone() });
        }
    }

    fn keywords_to_discard(&mut self, peer: &Peer) -> io::Result<Option<Vec<String>>> {
        let found = self.context.keywords_to_discard(peer)?;
        let transport = &self.context.transport;
        let keywords = found.as_deref().unwrap_or(&transport.discard_lhlo_keywords);
        if !keywords.is_empty() && !keywords.iter().any(|word| word == SILENTLY) {
            let keywords = keywords.join(" ");
            log::info!(target: target(transport.protocol), "discarding EHLO keywords: {keywords}");
        }
        Ok(found)
    }

    fn end_of_data(&mut self, _positions: &[u32]) -> io::Result<()> {
        // Postfix's queue files know no doubt: whoever is not marked gets the mail again.
        Ok(())
    }

    fn settled(&mut self, settled: Vec<Settled>) {
        let now = now();
        let is_sent = |settled: &Settled| matches!(settled.outcome, Outcome::Delivered(_));
        let (log, are_sent) = (&self.context.log, settled.iter().all(is_sent));
        let settle = || {
            for Settled { position, outcome, .. } in settled {
                let reason = outcome.reason();
                if !matches!(outcome, Outcome::Delivered(_)) && is_about_protocol(reason) {
                    self.protocol_error(&reason.text);
                }
                self.settle(position, &outcome, now);
            }
        };
        // Of most mail nobody has to be told, so that its lines are soon together. Others may wait for a daemon.
        if are_sent { log.writing(settle) } else { settle() }
    }

    /// As Postfix logs it: of the connection, which may serve other messages too.
    fn secured(&mut self, text: &str) {
        log::info!(target: target(self.context.transport.protocol), "{text}");
    }

    fn note(&mut self, text: &str) {
        log::info!(target: target(self.context.transport.protocol), "{}: {text}", self.job.queue_id());
    }

    fn warning(&mut self, text: &str) {
        log::warn!("{}: {text}", self.job.queue_id());
    }

    fn protocol_error(&mut self, text: &str) {
        if !self.context.settings.notices.protocol {
            return;
        }
        self.trouble.get_or_insert_with(|| text.to_owned());
    }

    fn wants_conversations(&self) -> bool {
        let notices = &self.context.settings.notices;
        notices.protocol || notices.data
    }

    fn conversation(&mut self, transcript: &Transcript) {
        if let Some(what) = self.trouble.take() {
            self.tell_postmaster(&what, transcript);
        }
    }
}

/// The time since the epoch.
pub fn now() -> Duration {
    since_epoch(Timestamp::now())
}
