//! Notices on their way into the queue: bounces, delay and success notices, mail to the postmaster.
//!
//! - Owns: gathering what a notice needs, queueing it, the log lines about it.
//! - Leaves to others: who is told what and in which words (`notice`), when (`finish`, `worker`).
//! - Always true: a notice is on disk before anything is marked because of it. So a crash in between may tell somebody
//!   twice, but never leaves them untold.

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::log::BOUNCE;
use crate::config::{Config, NotifyClass};
use crate::mail::{Address, Destination, Envelope, Protocol, QueueId, Reason, Recipient, Sender};
use crate::net::{Line, Transcript};
use crate::notice::{
    Addressed, Author, Event, Kind, Notice, Policy, RETURN_LIMIT_DEFAULT, Report, ReportedRecipient, Said,
    Trouble, TroubleClass, octets_wanted, plan,
};
use crate::spool::{Draft, QueueFile, Spool, SubmitError, SubmitLimits};

/// Time between two notices about the protocol of one destination.
const PROTOCOL_INTERVAL: Duration = Duration::from_secs(3600);
/// Destinations that are remembered for that; if more break the protocol within an hour, nobody is told of the rest.
const DESTINATIONS_MAX: usize = 1000;

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
    queue_trouble_with(spool, config, class, about, &[])
}

fn queue_trouble_with(
    spool: &Spool,
    config: &Config,
    class: TroubleClass,
    about: &str,
    transcript: &[Said<'_>],
) -> Option<QueueId> {
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
        let trouble = Trouble { class, id, author, to, about, transcript, now: Timestamp::now() };
        submit(spool, trouble.write())
    });
    queued.inspect_err(|error| log::error!("the postmaster could not be told of trouble: {error}")).ok()
}

/// Notices of class `protocol`, one an hour for each destination: a server that breaks the protocol does so for each
/// message that it is given.
#[derive(Debug, Default)]
pub struct ProtocolNotices(Mutex<HashMap<Destination, Told>>);

/// The last notice about a destination.
#[derive(Clone, Copy, Debug)]
struct Told {
    at: Instant,
    /// What the postmaster was not told since.
    untold: u64,
}

impl ProtocolNotices {
    /// Tells the postmaster of a server of `destination`, where `notify_classes` wants it and an hour has passed since
    /// the last notice about it; returns the notice's ID.
    pub fn queue(
        &self,
        spool: &Spool,
        config: &Config,
        destination: &Destination,
        mut about: String,
        transcript: Option<&Transcript>,
    ) -> Option<QueueId> {
        if !config.notify_classes.contains(NotifyClass::Protocol) {
            return None;
        }
        let untold = self.due(destination, Instant::now())?;
        about.push_str(&match untold {
            0 => String::new(),
            1 => " Since the last notice there was one more such error.".to_owned(),
            more => format!(" Since the last notice there were {more} more such errors."),
        });
        about.push_str(&format!(" Of {destination} you are told once an hour at most."));
        let said: Vec<_> = transcript.into_iter().flat_map(Transcript::lines).map(said).collect();
        let id = queue_trouble_with(spool, config, TroubleClass::Protocol, &about, &said);
        if id.is_none() {
            self.told().remove(destination);
        }
        id
    }

    /// Whether a notice may go out: then, how many were held back before it.
    fn due(&self, destination: &Destination, now: Instant) -> Option<u64> {
        let is_recent = |told: &Told| now.saturating_duration_since(told.at) < PROTOCOL_INTERVAL;
        let mut known = self.told();
        match known.get_mut(destination) {
            Some(told) if is_recent(told) => {
                told.untold += 1;
                return None;
            }
            Some(_) => {}
            None => {
                if known.len() >= DESTINATIONS_MAX {
                    known.retain(|_, told| is_recent(told));
                }
                if known.len() >= DESTINATIONS_MAX {
                    return None;
                }
            }
        }
        let before = known.insert(destination.clone(), Told { at: now, untold: 0 });
        Some(before.map_or(0, |told| told.untold))
    }

    fn told(&self) -> MutexGuard<'_, HashMap<Destination, Told>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn said(line: Line<'_>) -> Said<'_> {
    match line {
        Line::Client(text) => Said::Client(text),
        Line::Server(text) => Said::Server(text),
        Line::Note(text) => Said::Note(text),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Nexthop;

    fn destination(name: &str) -> Destination {
        let nexthop = Nexthop::parse(&format!("lmtp:inet:{name}"), |name| name == "lmtp").unwrap();
        nexthop.destination(24.try_into().unwrap())
    }

    #[test]
    fn a_destination_is_told_of_once_an_hour_with_the_number_of_what_was_held_back() {
        let notices = ProtocolNotices::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for (name, seconds, due) in [
            ("mx1", 0, Some(0)),
            ("mx1", 1, None),
            ("mx2", 2, Some(0)),
            ("mx1", 3599, None),
            ("mx1", 3600, Some(2)),
            ("mx1", 3601, None),
            ("mx1", 7200, Some(1)),
        ] {
            assert_eq!(notices.due(&destination(name), at(seconds)), due, "{name} {seconds}");
        }
    }

    #[test]
    fn destinations_without_number_do_not_fill_memory() {
        let notices = ProtocolNotices::default();
        let start = Instant::now();
        for number in 0..DESTINATIONS_MAX {
            assert_eq!(notices.due(&destination(&format!("mx{number}")), start), Some(0));
        }
        assert_eq!(notices.due(&destination("more"), start), None);
        assert_eq!(notices.due(&destination("more"), start + PROTOCOL_INTERVAL), Some(0));
        assert_eq!(notices.told().len(), 1, "what is older is forgotten");
    }
}
