//! Notices on their way into the queue: bounces, delay and success notices, mail to the postmaster.
//!
//! - Owns: gathering what a notice needs, queueing it, the log lines about it.
//! - Leaves to others: who is told what and in which words (`notice`), when (`finish`, `worker`).
//! - Always true: a bounce or delay notice is on disk before anything is marked because of it. A success notice
//!   follows the mark: the mail has arrived, and a crash in between costs no more than the news of it.

use std::io::Read;

use jiff::Timestamp;

use super::log::BOUNCE;
use crate::config::{Config, NotifyClass};
use crate::mail::{Address, Envelope, Protocol, QueueId, Reason, Recipient, Sender};
use crate::notice::{
    Addressed, Author, Event, Kind, Notice, Policy, RETURN_LIMIT_DEFAULT, Report, ReportedRecipient, Trouble,
    TroubleClass, octets_wanted, plan,
};
use crate::spool::{Draft, QueueFile, Spool, SubmitError, SubmitLimits};

/// A recipient that is to be reported, with what was kept of its last attempt.
#[derive(Clone, Debug)]
pub struct Reported {
    /// Who.
    pub recipient: Recipient,
    /// What became of it.
    pub reason: Reason,
    /// The host that said so.
    pub remote_mta: Option<String>,
    /// When.
    pub last_attempt: Option<Timestamp>,
}

/// Queues all notices that `event` calls for; returns their IDs. After an error nothing may be marked, and what was
/// queued is told again later: at least once is the rule for notices too.
pub fn queue(
    spool: &Spool,
    config: &Config,
    file: &QueueFile,
    event: Event,
    protocol: Protocol,
    reported: &[Reported],
) -> Result<Vec<QueueId>, SubmitError> {
    let recipients: Vec<_> = reported.iter().map(|reported| reported.as_reported(protocol)).collect();
    let postmaster = postmaster(config);
    let policy = Policy {
        copies_of_bounces: config.notify_classes.contains(NotifyClass::Bounce),
        copies_of_delays: config.notify_classes.contains(NotifyClass::Delay),
        double_bounces: config.notify_classes.contains(NotifyClass::DoubleBounce),
        postmaster: &postmaster,
    };
    let due = plan(event, file.envelope(), &recipients, &policy);
    if due.is_empty() {
        return Ok(Vec::new());
    }
    let content_start = content_start(file)?;
    due.iter().map(|addressed| queue_one(spool, config, file.envelope(), addressed, &content_start)).collect()
}

impl Reported {
    fn as_reported(&self, protocol: Protocol) -> ReportedRecipient<'_> {
        ReportedRecipient {
            recipient: &self.recipient,
            reason: &self.reason,
            remote_mta: self.remote_mta.as_deref(),
            protocol,
            last_attempt: self.last_attempt,
        }
    }
}

fn queue_one(
    spool: &Spool,
    config: &Config,
    envelope: &Envelope,
    addressed: &Addressed<'_>,
    content_start: &[u8],
) -> Result<QueueId, SubmitError> {
    let report = Report {
        kind: addressed.kind,
        id: spool.new_id()?,
        author: author(config),
        to: &addressed.to,
        envelope,
        recipients: &addressed.recipients,
        content_start,
        return_limit: RETURN_LIMIT_DEFAULT,
        now: Timestamp::now(),
    };
    let id = submit(spool, report.write())?;
    log::info!(target: BOUNCE, "{}: {}: {id}", envelope.id, describe(addressed.kind));
    Ok(id)
}

/// Tells the postmaster of trouble, where `notify_classes` wants it; returns the notice's ID.
pub fn queue_trouble(spool: &Spool, config: &Config, class: TroubleClass, about: &str) -> Option<QueueId> {
    let wanted = match class {
        TroubleClass::Protocol => NotifyClass::Protocol,
        TroubleClass::Resource => NotifyClass::Resource,
        TroubleClass::Software => NotifyClass::Software,
    };
    if !config.notify_classes.contains(wanted) {
        return None;
    }
    let queued = spool.new_id().and_then(|id| {
        let (author, to) = (author(config), &postmaster(config));
        let trouble = Trouble { class, id, author, to, about, transcript: &[], now: Timestamp::now() };
        submit(spool, trouble.write())
    });
    queued.inspect_err(|error| log::error!("the postmaster could not be told of trouble: {error}")).ok()
}

fn submit(spool: &Spool, notice: Notice) -> Result<QueueId, SubmitError> {
    let draft = Draft {
        sender: Sender::NULL,
        recipients: vec![Recipient::new(0, notice.to)],
        // bounce_nexthop or the routes: asked at every attempt.
        nexthop: None,
        envid: None,
        ret: None,
        smtputf8: notice.smtputf8,
        origin: notice.origin.to_owned(),
    };
    // Our own notices must get out also where a large message is returned and the disk is nearly full.
    let limits = SubmitLimits { message_size_limit: 0, minfree: 0 };
    spool.submit(draft, &mut notice.content.as_slice(), &limits)
}

fn content_start(file: &QueueFile) -> Result<Vec<u8>, SubmitError> {
    let mut start = Vec::new();
    let wanted = octets_wanted(RETURN_LIMIT_DEFAULT);
    file.content().take(wanted).read_to_end(&mut start).map_err(SubmitError::Content)?;
    Ok(start)
}

fn author(config: &Config) -> Author<'_> {
    Author { hostname: &config.myhostname, origin: &config.myorigin }
}

/// `error_notice_recipient`, complete.
fn postmaster(config: &Config) -> Address {
    let address = &config.error_notice_recipient;
    address.completed_with(&config.myorigin).unwrap_or_else(|_| address.clone())
}

/// As Postfix's bounce(8) writes it, so that log searches keep working.
fn describe(kind: Kind) -> &'static str {
    match kind {
        Kind::Bounce => "sender non-delivery notification",
        Kind::Delay { .. } => "sender delay notification",
        Kind::Success => "sender delivery status notification",
        Kind::DoubleBounce | Kind::BounceCopy => "postmaster non-delivery notification",
        Kind::DelayCopy { .. } => "postmaster delay notification",
    }
}
